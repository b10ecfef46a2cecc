//! What an OAuth client shows instead of a key where people bring their own keys for a server: sealed, for one person,
//! one server and an hour. It stands for the gateway key that the person had when it was made, and counts as long as
//! that key does.

use memchr::memmem;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::fmt;
use vestibule_store::UserId;
use vestibule_store::keys::{KeyRing, MasterKeys};

/// What every one begins with, so that one is known wherever it turns up.
const PREFIX: &str = "vestibule_session_";
/// How long one counts, in seconds.
pub const LIFE: u64 = 60 * 60;

/// Seals and opens sessions.
pub struct ServerSessions {
    ring: KeyRing,
}

/// Whose a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The id of their gateway key; nothing for the master key.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Digest of that key's text: another text is another key.
    #[serde(rename = "d")]
    pub digest: [u8; 32],
    /// The person.
    #[serde(rename = "u")]
    pub user: String,
}

impl fmt::Debug for ServerSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSessions").finish_non_exhaustive()
    }
}

impl Holder {
    /// The person's id.
    pub fn user_id(&self) -> Option<UserId> {
        UserId::new(self.user.clone()).ok()
    }
}

impl ServerSessions {
    /// With a ring for this purpose alone.
    pub fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("server-session"),
        }
    }

    /// A session for `server_id` from `now` on, in seconds since 1970. `None` where an id is too long.
    pub fn seal(&self, holder: &Holder, server_id: &str, now: u64) -> Option<SecretString> {
        let payload = serde_json::to_vec(holder).ok()?;
        let end = now.saturating_add(LIFE);
        let sealed = self.ring.seal(&payload, end, &[server_id.as_bytes()])?;
        Some(format!("{PREFIX}{sealed}").into())
    }

    /// Whose the session `text` is, if it counts for this server and time.
    pub fn open(&self, text: &[u8], server_id: &str, now: u64) -> Option<Holder> {
        let sealed = text.strip_prefix(PREFIX.as_bytes())?;
        let payload = self.ring.open(sealed, now, &[server_id.as_bytes()])?;
        serde_json::from_slice(&payload).ok()
    }
}

/// Whether a text is one, good or not.
pub fn is_one(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// Whether one stands anywhere in `text`. Such a value goes to no server.
pub fn stands_in(text: &[u8]) -> bool {
    memmem::find(text, PREFIX.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::collections::HashMap;

    #[test]
    fn one_counts_for_its_server_and_an_hour() {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let sessions = ServerSessions::new(&keys);
        let holder = Holder {
            key: Some("k".into()),
            digest: [7; 32],
            user: "alice".into(),
        };
        let sealed = sessions.seal(&holder, "one", 1000).expect("sealed");
        let text = sealed.expose_secret().as_bytes();
        assert!(is_one(text) && stands_in(&[b"x ", text].concat()));
        assert_eq!(sessions.open(text, "one", 1000 + LIFE - 1), Some(holder.clone()));
        assert_eq!(sessions.open(text, "one", 1000 + LIFE), None);
        assert_eq!(sessions.open(text, "two", 1000), None);
        assert_eq!(sessions.open(&text[1..], "one", 1000), None);
        // Another gateway's, or another purpose's.
        let other = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        assert_eq!(ServerSessions::new(&other).open(text, "one", 1000), None);
    }
}

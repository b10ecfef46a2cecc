//! `Mcp-Session-Id` toward the client: the server's own id, sealed and bound to caller and server. Nothing is
//! stored; any replica with the key ring opens it.

use crate::admission::Principal;
use http::HeaderValue;
use vestibule_store::{KeyRing, MasterKeys};

/// Thirty days. A client that comes later starts a new session, as after a 404 of the server's own.
const LIFETIME: u64 = 30 * 24 * 60 * 60;

/// Whom a session is for: the caller, and where its token is exchanged the person that the token is about. A renewed
/// token of the same person keeps the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Who called.
    pub principal: Principal,
    /// A digest of issuer and subject; `None` where no token is exchanged, or an opaque one.
    pub subject: Option<[u8; 32]>,
}

impl Owner {
    /// Caller and person, the latter empty where there is none.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        let subject = self.subject.as_ref().map(<[u8; 32]>::as_slice);
        [self.principal.id(), subject.unwrap_or_default()]
    }

    fn seal_context<T>(&self, server_id: &str, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        match &self.subject {
            None => with(&[self.principal.id(), server_id.as_bytes()]),
            Some(subject) => with(&[self.principal.id(), server_id.as_bytes(), subject]),
        }
    }
}

impl From<Principal> for Owner {
    fn from(principal: Principal) -> Self {
        Self {
            principal,
            subject: None,
        }
    }
}

/// Seals and opens session ids.
pub struct Sessions {
    ring: KeyRing,
}

impl Sessions {
    /// With a ring for this purpose alone.
    pub fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("mcp-session-id"),
        }
    }

    /// The client's id for the server's. `None` for an id that no header can carry sealed.
    pub fn seal(
        &self,
        upstream: &HeaderValue,
        owner: &Owner,
        server_id: &str,
        now: u64,
    ) -> Option<HeaderValue> {
        let sealed = owner.seal_context(server_id, |context| {
            self.ring.seal(upstream.as_bytes(), now + LIFETIME, context)
        })?;
        HeaderValue::from_str(&sealed).ok()
    }

    /// The server's id for the client's, if this gateway gave it to this caller for this server.
    pub fn open(
        &self,
        sealed: &HeaderValue,
        owner: &Owner,
        server_id: &str,
        now: u64,
    ) -> Option<HeaderValue> {
        let upstream = owner.seal_context(server_id, |context| {
            self.ring.open(sealed.as_bytes(), now, context)
        })?;
        HeaderValue::from_bytes(&upstream).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn another_caller_server_or_time_does_not_open() {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let sessions = Sessions::new(&keys);
        let upstream = HeaderValue::from_static("upstream-1");
        let sealed = sessions
            .seal(&upstream, &Principal::Master.into(), "one", 100)
            .expect("sealed");
        assert!(!sealed.to_str().expect("text").contains("upstream"));
        let open = |principal: Principal, server, now| sessions.open(&sealed, &principal.into(), server, now);
        assert_eq!(open(Principal::Master, "one", 100), Some(upstream));
        assert_eq!(open(Principal::Anyone, "one", 100), None);
        assert_eq!(open(Principal::Master, "two", 100), None);
        assert_eq!(open(Principal::Master, "one", 100 + LIFETIME), None);
        let long = HeaderValue::from_str(&"x".repeat(8000)).expect("value");
        assert_eq!(sessions.seal(&long, &Principal::Master.into(), "one", 100), None);
    }

    #[test]
    fn another_person_does_not_open() {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let sessions = Sessions::new(&keys);
        let upstream = HeaderValue::from_static("upstream-1");
        let owner = |subject| Owner {
            principal: Principal::Master,
            subject,
        };
        let subjects = [None, Some([1; 32]), Some([2; 32])];
        for made_for in subjects {
            let sealed = sessions
                .seal(&upstream, &owner(made_for), "one", 100)
                .expect("sealed");
            for asks in subjects {
                let opened = sessions.open(&sealed, &owner(asks), "one", 100).is_some();
                assert_eq!(opened, made_for == asks, "{made_for:?} {asks:?}");
            }
        }
    }
}

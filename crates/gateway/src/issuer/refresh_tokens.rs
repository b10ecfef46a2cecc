//! The refresh tokens that clients get: always ours, sealed, for one client at one server. A rotating refresh token of
//! a provider can have one holder. Where the person's tokens are kept that is the gateway, and ours names what is kept;
//! else ours carries the provider's, which no other client can then use.

use crate::admission::server_session::Holder;
use crate::digest::sha256;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use vestibule_store::keys::{KeyRing, MasterKeys};

/// It lives as long as what it stands for.
const FOREVER: u64 = u64::MAX;
const PREFIX: &str = "vestibule_refresh_";

/// What a refresh token of ours stands for.
#[derive(Debug)]
pub(super) enum StandsFor {
    /// What is kept for this person since the sign-in of this name, as long as the gateway key counts that they had.
    Kept(Holder, String),
    /// The provider's refresh token, to be shown to nobody but the one at this address.
    Carried { token: SecretString, authority: String },
}

#[derive(Serialize, Deserialize)]
enum Payload {
    #[serde(rename = "k")]
    Kept { h: Holder, n: String },
    #[serde(rename = "c")]
    Carried { t: String, a: String },
}

/// Makes and opens them.
pub(super) struct RefreshTokens {
    ring: KeyRing,
}

impl RefreshTokens {
    /// With a ring for this purpose alone.
    pub(super) fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("refresh-token"),
        }
    }

    /// A refresh token for `client_id` at `server_id`, and for `holder` alone unless that is empty. `None` when the
    /// provider's is too long to be carried.
    pub(super) fn issue(
        &self,
        server_id: &str,
        client_id: &str,
        holder: &[u8],
        stands_for: &StandsFor,
    ) -> Option<SecretString> {
        let payload = match stands_for {
            StandsFor::Kept(holder, name) => Payload::Kept {
                h: holder.clone(),
                n: name.clone(),
            },
            StandsFor::Carried { token, authority } => Payload::Carried {
                t: token.expose_secret().to_owned(),
                a: authority.clone(),
            },
        };
        let payload = serde_json::to_vec(&payload).ok()?;
        let client = sha256(client_id.as_bytes());
        let context = [server_id.as_bytes(), &client, holder];
        let sealed = self.ring.seal(&payload, FOREVER, without_empty(&context))?;
        Some(format!("{PREFIX}{sealed}").into())
    }

    /// What it stands for, if it was issued to this client and holder for this server.
    pub(super) fn open(
        &self,
        server_id: &str,
        client_id: &str,
        holder: &[u8],
        token: &SecretString,
    ) -> Option<StandsFor> {
        let sealed = token.expose_secret().strip_prefix(PREFIX)?;
        let client = sha256(client_id.as_bytes());
        let context = [server_id.as_bytes(), &client, holder];
        let payload = self.ring.open(sealed.as_bytes(), 0, without_empty(&context))?;
        Some(match serde_json::from_slice(&payload).ok()? {
            Payload::Kept { h, n } => StandsFor::Kept(h, n),
            Payload::Carried { t, a } => StandsFor::Carried {
                token: t.into(),
                authority: a,
            },
        })
    }
}

/// Refresh tokens that are nobody's in particular are sealed without a third part.
fn without_empty<'c, 'p>(context: &'c [&'p [u8]]) -> &'c [&'p [u8]] {
    match context {
        [rest @ .., []] => rest,
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_counts_for_its_client_and_server_alone() {
        let tokens = RefreshTokens::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"));
        let carried = StandsFor::Carried {
            token: "the-providers".into(),
            authority: "https://as.example".into(),
        };
        let token = tokens.issue("server", "client", b"", &carried).expect("issued");
        assert!(!token.expose_secret().contains("providers"));
        let opened = tokens.open("server", "client", b"", &token);
        let Some(StandsFor::Carried {
            token: inner,
            authority,
        }) = opened
        else {
            panic!("{opened:?}")
        };
        assert_eq!(
            (inner.expose_secret(), authority.as_str()),
            ("the-providers", "https://as.example")
        );
        assert!(tokens.open("other", "client", b"", &token).is_none());
        assert!(tokens.open("server", "other", b"", &token).is_none());
        assert!(
            tokens
                .open("server", "client", b"", &"the-providers".into())
                .is_none()
        );
        let alice = Holder {
            key: Some("k".into()),
            digest: [255; 32],
            user: "alice".into(),
        };
        let kept = StandsFor::Kept(alice.clone(), "name".into());
        let token = tokens.issue("server", "client", b"", &kept).expect("issued");
        let opened = tokens.open("server", "client", b"", &token);
        assert!(matches!(opened, Some(StandsFor::Kept(holder, name)) if holder == alice && name == "name"));
        assert!(tokens.open("server", "client", b"somebody", &token).is_none());
        let held = tokens
            .issue("server", "client", b"somebody", &carried)
            .expect("issued");
        assert!(tokens.open("server", "client", b"somebody", &held).is_some());
        for other in [&b""[..], b"another"] {
            assert!(tokens.open("server", "client", other, &held).is_none());
        }
        let long = StandsFor::Carried {
            token: "x".repeat(4000).into(),
            authority: String::new(),
        };
        assert!(tokens.issue("server", "client", b"", &long).is_none());
    }
}

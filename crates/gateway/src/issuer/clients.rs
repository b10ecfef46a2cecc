//! The ids that MCP clients get from us: sealed and self-describing. Nothing is stored, so no restart, empty
//! database or rotated key makes one invalid, and a flood of registrations leaves nothing behind.

use crate::digest::sha256;
use aws_lc_rs::{constant_time, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use vestibule_oauth::redirect_uri::matches_registered;
use vestibule_oauth::registration::ClientMetadata;
use vestibule_store::keys::{KeyRing, MasterKeys};

/// The longest id: it travels in URLs.
const ID_LIMIT: usize = 3000;
/// Registrations do not expire.
const FOREVER: u64 = u64::MAX;

/// A client that was registered here, or one that LiteLLM gave its placeholder id to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Client {
    /// What it calls itself; shown to people, never trusted.
    pub(super) name: Option<String>,
    /// The metadata that goes along to the provider's own registration.
    pub(super) metadata: ClientMetadata,
    /// `None` for a placeholder, which may use any redirect URI that the rules accept.
    redirect_uris: Option<Vec<String>>,
    secret_digest: Option<[u8; 32]>,
}

/// An id that was just made.
pub(super) struct Issued {
    /// `client_id`.
    pub(super) id: String,
    /// `client_secret`, for a client that asked for one.
    pub(super) secret: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    /// The metadata as the client may send it again.
    m: ClientMetadata,
    /// SHA-256 of the secret, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<String>,
}

/// Makes and opens client ids.
pub(super) struct Clients {
    ring: KeyRing,
}

impl Clients {
    /// With a ring for this purpose alone.
    pub(super) fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("client-id"),
        }
    }

    /// An id for a client of `server_id`. `None` when its metadata is too long for one.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(clippy::expect_used, reason = "without randomness no secret is one")]
    pub(super) fn issue(
        &self,
        server_id: &str,
        metadata: &ClientMetadata,
        with_secret: bool,
    ) -> Option<Issued> {
        let secret = with_secret.then(|| {
            let mut bytes = [0; 32];
            rand::fill(&mut bytes).expect("the system gives random bytes");
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        });
        let record = Record {
            m: metadata.clone(),
            h: secret
                .as_ref()
                .map(|secret| BASE64_URL_SAFE_NO_PAD.encode(sha256(secret.as_bytes()))),
        };
        let payload = serde_json::to_vec(&record).ok()?;
        let id = self.ring.seal(&payload, FOREVER, &[server_id.as_bytes()])?;
        (id.len() <= ID_LIMIT).then_some(Issued { id, secret })
    }

    /// The client of an id that was issued for `server_id`.
    pub(super) fn open(&self, server_id: &str, client_id: &str) -> Option<Client> {
        let payload = self.ring.open(client_id.as_bytes(), 0, &[server_id.as_bytes()])?;
        let record: Record = serde_json::from_slice(&payload).ok()?;
        let secret_digest = match record.h {
            Some(digest) => Some(BASE64_URL_SAFE_NO_PAD.decode(digest).ok()?.try_into().ok()?),
            None => None,
        };
        Some(Client {
            name: record.m.client_name.clone(),
            redirect_uris: Some(record.m.redirect_uris.clone()),
            metadata: record.m,
            secret_digest,
        })
    }
}

impl Client {
    /// The holder of a placeholder id: LiteLLM's name of a server, or a shared client's own id.
    pub(super) fn placeholder() -> Self {
        Self {
            name: None,
            metadata: ClientMetadata::default(),
            redirect_uris: None,
            secret_digest: None,
        }
    }

    /// A part of the gateway itself, which goes by no id that anybody could bring.
    pub(super) fn own(metadata: ClientMetadata) -> Self {
        Self {
            name: metadata.client_name.clone(),
            redirect_uris: Some(metadata.redirect_uris.clone()),
            metadata,
            secret_digest: None,
        }
    }

    /// Whether `redirect_uri` is one that this client registered; a loopback port does not count
    /// (RFC 8252 section 7.3).
    pub(super) fn may_return_to(&self, redirect_uri: &str) -> bool {
        self.redirect_uris.as_ref().is_none_or(|registered| {
            registered
                .iter()
                .any(|registered| matches_registered(registered, redirect_uri))
        })
    }

    /// Whether the client proves itself with `secret`. One that has none needs none.
    pub(super) fn is_proved_by(&self, secret: Option<&str>) -> bool {
        match (&self.secret_digest, secret) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(digest), Some(secret)) => {
                constant_time::verify_slices_are_equal(digest, &sha256(secret.as_bytes())).is_ok()
            }
        }
    }
}

//! What a code is bound to between the callback and the token request: the server and its place, the client, its redirect
//! URI, its PKCE challenge and who issued it. The provider's code goes to the client as it is, so this is what makes it count for
//! that client alone, once, and at that provider alone (RFC 6749 section 4.1.2, RFC 7636 section 4.6, RFC 9700 section
//! 4.4).

use crate::digest::{sha256, sha256_of_parts};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use vestibule_store::{Store, StoreError};

/// Longer than any provider's code lives.
const LIFETIME: Duration = Duration::from_secs(600);

/// In the place of a server's id where a code is ours; no server has it.
const OURS: &str = "";

/// What a code counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bound {
    /// See [`client_digest`].
    pub(super) client: String,
    /// The redirect URI that it was sent to.
    pub(super) redirect_uri: String,
    /// The challenge of the authorization request, if there was one.
    pub(super) challenge: Option<String>,
    /// Who issued it, and alone may see it again; see [`super::upstream::UpstreamEndpoints::authority`].
    pub(super) authority: String,
    /// Where the server was when the sign-in began; see [`crate::net::transport::Endpoint::place`].
    #[serde(default)]
    pub(super) place: String,
    /// By what id the record has the sign-in.
    #[serde(default)]
    pub(super) flow: String,
}

/// Binds and takes codes. The store's connections live on the gateway's own runtime, and so does the work.
pub(super) struct Codes {
    store: Arc<Store>,
    runtime: Handle,
}

impl Codes {
    /// Kept in `store`.
    pub(super) fn new(store: Arc<Store>, runtime: Handle) -> Self {
        Self { store, runtime }
    }

    /// Binds `code` of `server_id`. It is on disk when this returns.
    pub(super) async fn bind(
        &self,
        server_id: &str,
        code: &str,
        bound: &Bound,
        now: u64,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(bound).unwrap_or_default();
        let end = now + LIFETIME.as_secs();
        self.put(digest_of(server_id, code), text, end, now).await
    }

    /// What `code` is bound to, once.
    pub(super) async fn take(
        &self,
        server_id: &str,
        code: &str,
        now: u64,
    ) -> Result<Option<Bound>, StoreError> {
        let taken = self.get(digest_of(server_id, code), now).await?;
        Ok(taken.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps `text` under a code of our own until `end`. It is on disk when this returns.
    pub(super) async fn keep(&self, code: &str, text: String, end: u64, now: u64) -> Result<(), StoreError> {
        self.put(digest_of(OURS, code), text, end, now).await
    }

    /// What was kept under a code of our own, once.
    pub(super) async fn take_kept(&self, code: &str, now: u64) -> Result<Option<String>, StoreError> {
        self.get(digest_of(OURS, code), now).await
    }

    async fn put(&self, digest: [u8; 32], text: String, end: u64, now: u64) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let work = async move { store.bind_code(&digest, &text, end, now).await };
        self.runtime
            .spawn(work)
            .await
            .unwrap_or(Err(StoreError::Interrupted))
    }

    async fn get(&self, digest: [u8; 32], now: u64) -> Result<Option<String>, StoreError> {
        let store = Arc::clone(&self.store);
        let work = async move { store.take_code(&digest, now).await };
        let taken = self.runtime.spawn(work).await;
        taken.unwrap_or(Err(StoreError::Interrupted))
    }
}

/// Names a client in 64 hex digits: ids are long.
pub(super) fn client_digest(client_id: &str) -> String {
    let digest = sha256(client_id.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of(server_id: &str, code: &str) -> [u8; 32] {
    sha256_of_parts(&[server_id.as_bytes(), code.as_bytes()])
}

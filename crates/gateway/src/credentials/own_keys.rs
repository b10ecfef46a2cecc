//! Keys for servers that people brought themselves (`is_byok`): kept in the store, sealed, for (person, server), and in
//! memory while they are used. Nothing renews them, and nobody but their person's calls shows them.

use super::OutboundCredential;
use super::person::Person;
use crate::clock::Clock;
use crate::config::{Unfit, by_auth_type};
use crate::registry::Server;
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use vestibule_store::{ServerId, Store, StoreError, UserId, UserSecretSummary};

/// The longest key that is kept.
pub const LONGEST: usize = 8 * 1024;
/// People and servers whose keys are in memory at once.
const IN_MEMORY: u64 = 4096;
/// Nobody asked for so long: the next call reads the store.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);
/// After so many seconds without a look into the store, the next call looks.
const BELIEVED: u64 = 60;
/// So long a key serves while the store does not answer.
const AT_A_PINCH: u64 = 5 * 60;

/// A key, and when the store was asked.
struct Held {
    key: SecretString,
    read_at: u64,
}

type InMemory = Cache<(UserId, ServerId), Arc<Held>>;

/// All people's keys.
pub struct OwnKeys {
    store: Arc<Store>,
    clock: Clock,
    runtime: Handle,
    held: InMemory,
    /// How often something was doubted: what was read before a doubt is not held after it.
    doubts: AtomicU64,
}

impl OwnKeys {
    /// Kept in `store`, whose connections live on `runtime`.
    pub fn new(store: Arc<Store>, clock: Clock, runtime: Handle) -> Self {
        Self {
            store,
            clock,
            runtime,
            held: Cache::builder()
                .max_capacity(IN_MEMORY)
                .time_to_idle(FORGOTTEN_AFTER)
                .build(),
            doubts: AtomicU64::new(0),
        }
    }

    /// What `server` is shown for this person; `None` where no key is kept.
    ///
    /// # Errors
    /// When the store does not answer, and has not for a while.
    pub async fn credential(
        &self,
        person: &Person,
        server: &Server,
    ) -> Result<Option<OutboundCredential>, StoreError> {
        let id = (person.id().clone(), server.store_id.clone());
        let now = self.clock.unix_seconds();
        let held = self.held.get(&id);
        let found = match held {
            Some(held) if now < held.read_at + BELIEVED => Some(held),
            held => match self.read(&id).await {
                Err(_) if held.as_ref().is_some_and(|held| now < held.read_at + AT_A_PINCH) => held,
                read => read?,
            },
        };
        // One that was kept under another auth_type may not fit this one: then there is none.
        Ok(found.and_then(|held| fitted(server, &held.key).ok()))
    }

    async fn read(&self, id: &(UserId, ServerId)) -> Result<Option<Arc<Held>>, StoreError> {
        let doubts = self.doubts.load(Ordering::SeqCst);
        let read_at = self.clock.unix_seconds();
        let (user, server) = id.clone();
        let read = self
            .on_runtime(move |store| async move { store.user_secret(&user, &server).await })
            .await;
        let payload = match read {
            // Sealed with a key that is gone: the person brings theirs again.
            Err(error @ StoreError::Undecryptable { .. }) => {
                tracing::error!(server = id.1.as_str(), %error, "a person has to bring a key again");
                None
            }
            read => read?.map(|secret| secret.payload),
        };
        let text = payload.and_then(|payload| {
            let text = std::str::from_utf8(payload.expose_secret()).ok()?;
            Some(SecretString::from(text))
        });
        let Some(key) = text else {
            self.held.invalidate(id);
            return Ok(None);
        };
        let held = Arc::new(Held { key, read_at });
        self.held.insert(id.clone(), Arc::clone(&held));
        if self.doubts.load(Ordering::SeqCst) != doubts {
            self.held.invalidate(id);
        }
        Ok(Some(held))
    }

    /// Keeps a person's key in the place of the one before. It is on disk when this returns.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn keep(&self, person: &Person, server: &Server, key: &SecretString) -> Result<(), StoreError> {
        let id = (person.id().clone(), server.store_id.clone());
        let payload = SecretSlice::from(key.expose_secret().as_bytes().to_vec());
        let now = self.clock.unix_seconds();
        let (user, server) = id.clone();
        let kept = self
            .on_runtime(
                move |store| async move { store.put_user_secret(&user, &server, &payload, now).await },
            )
            .await;
        self.doubt(&id.0, &id.1);
        kept
    }

    /// Forgets a person's key. False where there was none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn forget(&self, person: &Person, server: &Server) -> Result<bool, StoreError> {
        let id = (person.id().clone(), server.store_id.clone());
        let (user, server) = id.clone();
        let deleted = self
            .on_runtime(move |store| async move { store.delete_user_secret(&user, &server).await })
            .await;
        self.doubt(&id.0, &id.1);
        deleted
    }

    /// For which servers the person brought keys.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, person: &Person) -> Result<Vec<UserSecretSummary>, StoreError> {
        let user = person.id().clone();
        self.on_runtime(move |store| async move { store.user_secrets_of(&user).await })
            .await
    }

    /// Whether the person brought a key for this server.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn has(&self, person: &Person, server: &Server) -> Result<bool, StoreError> {
        let all = self.list(person).await?;
        Ok(all.iter().any(|one| one.server_id == server.store_id))
    }

    /// Something about this person and server was written elsewhere: what is in memory counts no longer.
    pub fn doubt(&self, user: &UserId, server: &ServerId) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.held.invalidate(&(user.clone(), server.clone()));
    }

    /// Work for the store runs where its connections live, and comes to its end whoever hangs up.
    async fn on_runtime<T, F>(&self, work: impl FnOnce(Arc<Store>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.store));
        self.runtime
            .spawn(work)
            .await
            .unwrap_or_else(|_| Err(StoreError::Interrupted))
    }
}

/// `key` as `server` is shown it.
///
/// # Errors
/// Where no header can carry it, or it is none of its kind.
pub fn fitted(server: &Server, key: &SecretString) -> Result<OutboundCredential, Unfit> {
    let (name, value) = by_auth_type(server.auth_type, key.expose_secret(), &server.token_header)?;
    Ok(OutboundCredential { name, value })
}

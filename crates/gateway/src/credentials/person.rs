//! What people signed in for: kept in the store, encrypted, for (person, server); used while it lasts, renewed ahead
//! of its end and once after the server's 401, by one process at a time. A call with a usable token asks no
//! database and waits for nobody.

mod grant;
mod redeem;
mod renewal;
mod slot;

pub use grant::{Grant, PersonToken};
pub use redeem::{Redeemed, Redemption};
pub use renewal::ExchangeFault;
use slot::Slot;

use crate::admission::{Admission, Principal};
use crate::app::{App, Worker};
use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::SignIn;
use crate::digest::sha256;
use crate::issuer::registrations::Registrations;
use crate::issuer::upstream::{Discovery, UpstreamConfig};
use crate::net::guarded::Guarded;
use crate::policy::access;
use crate::registry::{Registry, Server};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::timeout;
use vestibule_store::{GrantSummary, ServerId, Store, StoreError, UserId};

/// People and servers whose tokens are in memory at once.
const IN_MEMORY: u64 = 100_000;
/// Refused tokens that are remembered at once, and for how long.
const REFUSALS: u64 = 10_000;
const REMEMBERED: Duration = Duration::from_secs(600);
/// Revocations at once when a server goes, and how long all of them may take.
const FAREWELLS: usize = 4;
const FAREWELL: Duration = Duration::from_secs(300);
/// Nobody asked for so long: the next call reads the store.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// Whose tokens they are. There is no value for "somebody".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Person(UserId);

impl Person {
    /// The person behind an admitted caller. A master key that several people share is nobody's in particular, so it
    /// has tokens only where the operator says that it is one person's; nor has anybody, where no key is asked for.
    pub fn admitted(app: &App, admission: &Admission) -> Option<Self> {
        if let Some(user) = admission.user() {
            return Some(Self(user.clone()));
        }
        match &admission.principal {
            // LiteLLM's id of whoever holds the master key.
            Principal::Master if app.master_key_is_a_persons => UserId::new("default_user_id").ok().map(Self),
            _ => None,
        }
    }

    /// The person whose gateway key, for this server, stands on a request that needs none.
    pub fn of(worker: &Worker, server: &Server, headers: &HeaderMap) -> Option<Self> {
        let admission = worker.app.gate.admit(headers).ok()?;
        access::permit(&admission, server).ok()?;
        Self::admitted(&worker.app, &admission)
    }

    /// The person whose rows are kept under this id.
    pub fn kept_under(id: UserId) -> Self {
        Self(id)
    }

    /// The id that rows are kept under.
    pub fn id(&self) -> &UserId {
        &self.0
    }
}

/// Why there is no token to use.
#[derive(Debug, Clone, Error)]
pub enum NoToken {
    /// The person has to sign in: nothing is kept, or what was kept has ended.
    #[error("a sign-in is needed")]
    SignIn,
    /// What is kept cannot be renewed now; later it may.
    #[error("the token cannot be renewed now: {0}")]
    Renewal(ExchangeFault),
    /// The store does not answer.
    #[error("the gateway's store: {0}")]
    Store(Arc<StoreError>),
}

impl From<StoreError> for NoToken {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// All people's tokens.
pub struct Persons {
    parts: Arc<Parts>,
    slots: Slots,
}

/// In memory, by person and server.
type Slots = Cache<(UserId, ServerId), Arc<Slot>>;

/// What every slot needs.
struct Parts {
    store: Arc<Store>,
    guarded: Guarded,
    discovery: Arc<Discovery>,
    registrations: Registrations,
    clock: Clock,
    runtime: Handle,
    /// How long a token request may take.
    token_timeout: Duration,
    /// Access tokens that servers refused of late, by digest.
    refused: Cache<[u8; 32], ()>,
    audit: Audit,
}

impl Parts {
    fn was_refused(&self, token: &SecretString) -> bool {
        self.refused
            .contains_key(&sha256(token.expose_secret().as_bytes()))
    }
}

impl Persons {
    #[expect(
        clippy::too_many_arguments,
        reason = "what a token is kept, renewed and recorded with"
    )]
    /// Kept in `store`; renewals run on `runtime`, so that they outlive whoever waits for them. `token_timeout` is
    /// that of `guarded`.
    pub fn new(
        store: Arc<Store>,
        guarded: Guarded,
        discovery: Arc<Discovery>,
        registrations: Registrations,
        clock: Clock,
        runtime: Handle,
        token_timeout: Duration,
        audit: Audit,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                store,
                guarded,
                discovery,
                registrations,
                clock,
                runtime,
                token_timeout,
                refused: Cache::builder()
                    .max_capacity(REFUSALS)
                    .time_to_live(REMEMBERED)
                    .build(),
                audit,
            }),
            slots: Cache::builder()
                .max_capacity(IN_MEMORY)
                .time_to_idle(FORGOTTEN_AFTER)
                .build(),
        }
    }

    /// The token that `server` is shown for this person.
    pub async fn token(
        &self,
        person: &Person,
        server: &Arc<Server>,
        sign_in: &Arc<SignIn>,
    ) -> Result<Arc<PersonToken>, NoToken> {
        self.slot(person, server, sign_in).token().await
    }

    /// The server refused `token`: another one, if there is one.
    pub async fn after_refusal(
        &self,
        person: &Person,
        server: &Arc<Server>,
        sign_in: &Arc<SignIn>,
        token: &PersonToken,
    ) -> Result<Arc<PersonToken>, NoToken> {
        self.slot(person, server, sign_in).after_refusal(token).await
    }

    /// A server refused the token that a client brought itself, as the value of `Authorization`: if the client asks for
    /// another one, this is not handed out again.
    pub fn note_refusal(&self, authorization: &HeaderValue) {
        let value = authorization.as_bytes();
        if let Some((scheme, token)) = value.split_at_checked(7)
            && scheme.eq_ignore_ascii_case(b"bearer ")
        {
            self.parts.refused.insert(sha256(token), ());
        }
    }

    /// Keeps what a person just signed in for. It is on disk when this returns.
    pub async fn keep(&self, person: &Person, server: &Server, grant: Grant) -> Result<(), StoreError> {
        let (user, server, slots) = (person.id().clone(), server.store_id.clone(), self.slots.clone());
        self.on_runtime(move |parts| async move { parts.keep(&slots, user, server, grant).await.map(drop) })
            .await
    }

    /// Fresh tokens of what was kept under the name `grant`: renewed now, unless that was done a moment ago.
    pub async fn refresh(
        &self,
        person: &Person,
        server: &Arc<Server>,
        sign_in: &Arc<SignIn>,
        grant: &str,
    ) -> Result<Grant, NoToken> {
        self.slot(person, server, sign_in).refresh(grant.to_owned()).await
    }

    /// What is kept for this person and server, and since when.
    pub async fn kept(&self, person: &Person, server: &Server) -> Result<Option<(Grant, u64)>, StoreError> {
        let (user, server) = (person.id().clone(), server.store_id.clone());
        self.on_runtime(move |parts| async move {
            let found = parts.store.grant(&user, &server).await?;
            Ok(found.and_then(|row| Some((Grant::from_row(&row)?, row.connected_at))))
        })
        .await
    }

    /// For which servers something is kept.
    pub async fn list(&self, person: &Person) -> Result<Vec<GrantSummary>, StoreError> {
        let user = person.id().clone();
        self.on_runtime(move |parts| async move { parts.store.grants_of(&user).await })
            .await
    }

    /// Forgets what is kept, and tells the authorization server where it can be told (RFC 7009). False when there
    /// was nothing.
    pub async fn forget(
        &self,
        person: &Person,
        server: &Server,
        sign_in: &SignIn,
    ) -> Result<bool, StoreError> {
        let key = (person.id().clone(), server.store_id.clone());
        let upstream = sign_in.upstream(server);
        let slots = self.slots.clone();
        self.on_runtime(move |parts| async move {
            let deleted = parts.store.delete_grant(&key.0, &key.1).await;
            slots.invalidate(&key);
            let row = match deleted {
                // Gone, and nobody can say what it was.
                Err(StoreError::Undecryptable { .. }) => return Ok(true),
                row => row?,
            };
            let Some(row) = row else { return Ok(false) };
            // The row is gone already; whether the provider listens changes nothing here.
            if let Some(grant) = Grant::from_row(&row) {
                parts.revoke(&upstream, &key.0, &grant).await;
            }
            Ok(true)
        })
        .await
    }

    /// Tells authorization servers that what was kept for a person is not wanted any more (RFC 7009), where they can be
    /// told. The rows are gone already; whether anybody listens changes nothing.
    pub async fn revoke(
        &self,
        user: &UserId,
        rows: Vec<(ServerId, Result<vestibule_store::Grant, StoreError>)>,
        registry: &Registry,
    ) {
        let told = rows.into_iter().filter_map(|(id, row)| {
            self.doubt(user, &id);
            let grant = Grant::from_row(&row.ok()?)?;
            let server = registry.all().iter().find(|server| server.store_id == id)?;
            let upstream = server.sign_in()?.upstream(server);
            Some((upstream, grant))
        });
        let told: Vec<_> = told.collect();
        let user = user.clone();
        let done = self.on_runtime(move |parts| async move {
            let all = told
                .iter()
                .map(|(upstream, grant)| parts.revoke(upstream, &user, grant));
            join_all(all).await;
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "a person's tokens were forgotten, and perhaps not revoked");
        }
    }

    /// What all people have at `server`, to be revoked once it is deleted here. What cannot be opened is left out.
    pub async fn farewell(&self, server: &Server, sign_in: &SignIn) -> Result<Farewell, StoreError> {
        let (id, upstream) = (server.store_id.clone(), sign_in.upstream(server));
        self.on_runtime(move |parts| async move {
            let mut grants = Vec::new();
            for kept in parts.store.grants_of_server(&id).await? {
                match parts.store.grant(&kept.user_id, &id).await {
                    Ok(row) => {
                        let grant = row.and_then(|row| Grant::from_row(&row));
                        grants.extend(grant.map(|grant| (kept.user_id, grant)));
                    }
                    Err(StoreError::Undecryptable { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(Farewell {
                parts,
                upstream,
                grants,
            })
        })
        .await
    }

    /// Who signed in at `server`.
    pub async fn at(&self, server: &ServerId) -> Result<Vec<GrantSummary>, StoreError> {
        let server = server.clone();
        self.on_runtime(move |parts| async move { parts.store.grants_of_server(&server).await })
            .await
    }

    /// Work for the store runs on the gateway's own runtime: the connections live there, and what has begun comes to
    /// its end whoever hangs up.
    async fn on_runtime<T, F>(&self, work: impl FnOnce(Arc<Parts>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.parts));
        self.parts
            .runtime
            .spawn(work)
            .await
            .unwrap_or_else(|_| Err(StoreError::Interrupted))
    }

    /// Something about this person and server was written elsewhere: what is in memory counts no longer.
    pub fn doubt(&self, user: &UserId, server: &ServerId) {
        self.slots.invalidate(&(user.clone(), server.clone()));
    }

    fn slot(&self, person: &Person, server: &Arc<Server>, sign_in: &Arc<SignIn>) -> Arc<Slot> {
        let key = (person.id().clone(), server.store_id.clone());
        match self.slots.get(&key) {
            Some(slot) if slot.is_of(server) => return slot,
            // The server was configured anew.
            Some(_) => self.slots.invalidate(&key),
            None => {}
        }
        self.slots.get_with(key, || {
            Arc::new(Slot::new(
                Arc::clone(&self.parts),
                person.id().clone(),
                Arc::clone(server),
                Arc::clone(sign_in),
            ))
        })
    }
}

/// Grants that are over, as their provider is yet to hear.
pub struct Farewell {
    parts: Arc<Parts>,
    upstream: UpstreamConfig,
    grants: Vec<(UserId, Grant)>,
}

impl Farewell {
    /// Tells the provider, where it can be told (RFC 7009). Nobody waits for it.
    pub fn say(self) {
        let Self {
            parts,
            upstream,
            grants,
        } = self;
        let runtime = parts.runtime.clone();
        runtime.spawn(async move {
            let (parts, upstream) = (&parts, &upstream);
            let all = stream::iter(&grants).for_each_concurrent(FAREWELLS, |(user, grant)| async move {
                parts.revoke(upstream, user, grant).await;
            });
            if timeout(FAREWELL, all).await.is_err() {
                tracing::warn!(
                    server = upstream.name,
                    "not every grant was revoked at its provider"
                );
            }
        });
    }
}

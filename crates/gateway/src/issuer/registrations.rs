//! Our own clients at providers that register them (RFC 7591): one for each kind of MCP client, however often it
//! asks and however many replicas there are; kept, and made anew when the provider has forgotten it.

use super::flood::of_new_clients;
use super::upstream::UpstreamEndpoints;
use crate::clock::Clock;
use crate::digest::sha256_of_parts;
use crate::ids;
use crate::net::guarded::{Guarded, GuardedFault};
use crate::web::limits::Together;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use vestibule_oauth::client_auth::{Client, ClientAuthMethod};
use vestibule_oauth::registration::{ClientMetadata, RegistrationFault, RegistrationResponse};
use vestibule_store::{Registration, RegistrationLease, ServerId, Store, StoreError, Version};

/// How long one registration may take before another replica tries.
const LEASE: Duration = Duration::from_secs(30);
/// How often somebody who waits for another's registration looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long anybody waits for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long and how many registrations are remembered without a look at the store. Another replica may forget one.
const MEMORY: (Duration, u64) = (Duration::from_secs(30), 1024);

/// Why there is no client at the provider.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// The provider offers no registration, and no client is configured.
    #[error(
        "its authorization server offers no client registration; whoever runs the gateway has to set client_id and client_secret for it"
    )]
    NotOffered,
    /// The registration endpoint did not answer.
    #[error("its registration endpoint: {0}")]
    Unanswered(#[from] GuardedFault),
    /// It answered with something else than a client.
    #[error("{0}")]
    Refused(#[from] RegistrationFault),
    /// New kinds of clients come faster than a provider should be asked to keep them.
    #[error("too many new kinds of clients registered just now; try again later")]
    TooMany,
    /// Another replica registers, and does not come to an end.
    #[error("its registration is under way and took too long")]
    Slow,
    /// The store failed.
    #[error("the gateway's store: {0}")]
    Store(#[from] StoreError),
}

/// A client at the provider, and which registration it came from.
#[derive(Clone)]
pub struct UpstreamClient {
    /// The client.
    pub client: Client,
    /// `None` for a configured one.
    pub registration: Option<RegistrationKey>,
}

/// Names one registration of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationKey {
    digest: [u8; 32],
    generation: i64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// What a provider is sent, and the authentication method in it.
struct Request {
    document: serde_json::Value,
    asked: ClientAuthMethod,
}

/// Names a registration, whichever of those there have been.
type Name = (ServerId, [u8; 32]);
type Outcome = Result<UpstreamClient, Arc<RegistrationError>>;
/// What all wait for who ask at once.
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// A registration that was seen a short while ago.
#[derive(Clone)]
struct Known {
    client: UpstreamClient,
    expires: Option<u64>,
}

/// Makes and keeps registrations. Work runs on the gateway's own runtime, so it outlives whoever asked.
#[derive(Clone)]
pub struct Registrations(Arc<Parts>);

struct Parts {
    store: Arc<Store>,
    guarded: Guarded,
    clock: Clock,
    runtime: Handle,
    known: Cache<Name, Known>,
    flights: Mutex<HashMap<Name, Flight>>,
    new_clients: Together,
}

impl Registrations {
    /// Kept in `store`, made with `guarded` on `runtime`.
    pub fn new(store: Arc<Store>, guarded: Guarded, clock: Clock, runtime: Handle) -> Self {
        let (life, most) = MEMORY;
        Self(Arc::new(Parts {
            store,
            guarded,
            clock,
            runtime,
            known: Cache::builder().max_capacity(most).time_to_live(life).build(),
            flights: Mutex::default(),
            new_clients: of_new_clients(),
        }))
    }

    /// The client that stands at the provider for MCP clients with this metadata. Metadata of the authorization server
    /// that comes to name another issuer or another token endpoint gets another client: its secret goes there.
    pub async fn client(
        &self,
        server: &ServerId,
        endpoints: &Arc<UpstreamEndpoints>,
        metadata: &ClientMetadata,
        callback: &str,
    ) -> Outcome {
        let Some(registration_url) = &endpoints.registration_url else {
            return Err(Arc::new(RegistrationError::NotOffered));
        };
        let digest = sha256_of_parts(&[
            registration_url.as_str().as_bytes(),
            endpoints.token_url.origin().ascii_serialization().as_bytes(),
            endpoints.issuer.as_deref().unwrap_or_default().as_bytes(),
            callback.as_bytes(),
            &metadata.canonical_bytes(),
        ]);
        let name = (server.clone(), digest);
        let now = self.0.clock.unix_seconds();
        if let Some(known) = self.0.known.get(&name)
            && known.expires.is_none_or(|expires| expires > now)
        {
            return Ok(known.client);
        }
        let methods = endpoints.auth_methods.as_deref();
        let request = Request {
            document: metadata.upstream_request(callback, methods),
            asked: metadata.upstream_auth_method(methods),
        };
        self.flight(name, endpoints, request).await
    }

    /// Joins who asks the same already, or begins.
    fn flight(&self, name: Name, endpoints: &Arc<UpstreamEndpoints>, request: Request) -> Flight {
        let mut flights = self.0.flights();
        if let Some(flight) = flights.get(&name) {
            return flight.clone();
        }
        let (parts, endpoints, this) = (Arc::clone(&self.0), Arc::clone(endpoints), name.clone());
        let work = self.0.runtime.spawn(async move {
            let landing = Landing { parts, name: this };
            let found = landing.parts.client(&landing.name, &endpoints, request).await;
            found.map_err(Arc::new)
        });
        let flight = async move {
            // Without an outcome the runtime is going down.
            work.await
                .unwrap_or_else(|_| Err(Arc::new(RegistrationError::Slow)))
        };
        let flight = flight.boxed().shared();
        flights.insert(name, flight.clone());
        flight
    }

    /// The provider does not know this client any more (`invalid_client`): the next who asks registers anew.
    pub async fn forget(&self, server: &ServerId, key: &RegistrationKey) -> Result<bool, StoreError> {
        let generation = Version::from_number(key.generation);
        let (parts, server, digest) = (Arc::clone(&self.0), server.clone(), key.digest);
        let work = async move {
            let deleted = parts.store.delete_registration_if(&server, &digest, generation);
            let deleted = deleted.await;
            parts.known.invalidate(&(server, digest));
            deleted
        };
        self.0
            .runtime
            .spawn(work)
            .await
            .unwrap_or(Err(StoreError::Interrupted))
    }
}

/// Ends a flight, whatever becomes of the work.
struct Landing {
    parts: Arc<Parts>,
    name: Name,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.parts.flights().remove(&self.name);
    }
}

impl Parts {
    fn flights(&self) -> MutexGuard<'_, HashMap<Name, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks first: nearly always there is one, and a lease is a write.
    async fn client(
        &self,
        name: &Name,
        endpoints: &UpstreamEndpoints,
        request: Request,
    ) -> Result<UpstreamClient, RegistrationError> {
        let (server, digest) = name;
        if let Some(found) = self.store.registration(server, digest).await?
            && let Some(client) = self.usable(name, &found)
        {
            return Ok(client);
        }
        let holder = ids::random_hex();
        let give_up = self.clock.now().plus(PATIENCE);
        loop {
            let now = self.clock.unix_milliseconds();
            let until = now + u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
            match self
                .store
                .lease_registration(server, digest, &holder, now, until)
                .await?
            {
                RegistrationLease::Registered(found) => {
                    if let Some(client) = self.usable(name, &found) {
                        return Ok(client);
                    }
                    // Its secret is past, or another version of this program wrote it.
                    self.store
                        .delete_registration_if(server, digest, found.generation)
                        .await?;
                }
                RegistrationLease::Held => {
                    let made = self.register(endpoints, &request).await;
                    if made.is_err() {
                        self.store.release_registration(server, digest, &holder).await?;
                    }
                    let stored = made?;
                    let payload = SecretString::from(serde_json::to_string(&stored).unwrap_or_default());
                    let payload = payload.expose_secret().as_bytes();
                    let put = self
                        .store
                        .put_registration(server, digest, &holder, payload, now / 1000)
                        .await?;
                    // Where the lease was lost meanwhile, another one's registration counts: look again.
                    if let Some(generation) = put
                        && let Some(client) = self.remember(name, &stored, generation)
                    {
                        return Ok(client);
                    }
                }
                RegistrationLease::Busy { .. } => tokio::time::sleep(LOOK).await,
            }
            if self.clock.now() > give_up {
                return Err(RegistrationError::Slow);
            }
        }
    }

    fn usable(&self, name: &Name, found: &Registration) -> Option<UpstreamClient> {
        let stored: Stored = serde_json::from_slice(found.payload.expose_secret()).ok()?;
        self.remember(name, &stored, found.generation)
    }

    /// The client of a registration that is still good.
    fn remember(&self, name: &Name, stored: &Stored, generation: Version) -> Option<UpstreamClient> {
        let client = UpstreamClient {
            client: stored.client(self.clock.unix_seconds())?,
            registration: Some(RegistrationKey {
                digest: name.1,
                generation: generation.to_number(),
            }),
        };
        let known = Known {
            client: client.clone(),
            expires: stored.expires,
        };
        self.known.insert(name.clone(), known);
        Some(client)
    }

    async fn register(
        &self,
        endpoints: &UpstreamEndpoints,
        request: &Request,
    ) -> Result<Stored, RegistrationError> {
        let url = endpoints
            .registration_url
            .as_ref()
            .ok_or(RegistrationError::NotOffered)?;
        if !self.new_clients.admits() {
            return Err(RegistrationError::TooMany);
        }
        let answer = self
            .guarded
            .post_json(url, &request.document, &endpoints.reach)
            .await?;
        let registered = RegistrationResponse::parse(
            answer.status,
            answer.content_type.as_deref(),
            &answer.body,
            request.asked,
        )?;
        Ok(Stored {
            id: registered.client_id,
            secret: registered
                .client_secret
                .map(|secret| secret.expose_secret().to_owned()),
            method: registered.auth_method.name().to_owned(),
            expires: registered.secret_expires_at,
        })
    }
}

impl Stored {
    fn client(&self, now: u64) -> Option<Client> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return None;
        }
        Some(Client {
            id: self.id.clone(),
            secret: self.secret.clone().map(Into::into),
            auth_method: ClientAuthMethod::from_name(&self.method)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::guarded::Reach;
    use crate::net::tls;
    use serde_json::json;
    use url::Url;
    use vestibule_store::{DatabaseUrl, MasterKeys};
    use vestibule_testkit::{Answer, Upstream};

    const CALLBACK: &str = "http://gw.example/callback";

    struct World {
        provider: Upstream,
        store: Arc<Store>,
        server: ServerId,
        registrations: Registrations,
    }

    fn registrations(store: &Arc<Store>) -> Registrations {
        let tls = tls::client_config(false).expect("tls");
        let guarded = Guarded::new(Duration::from_secs(10), &tls).expect("client");
        Registrations::new(Arc::clone(store), guarded, Clock::manual().0, Handle::current())
    }

    impl World {
        async fn new() -> Self {
            let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
            let url = DatabaseUrl::parse("sqlite::memory:").expect("a database");
            let store = Arc::new(Store::open(&url, &keys).await.expect("opens"));
            Self {
                provider: Upstream::start().await,
                registrations: registrations(&store),
                store,
                server: ServerId::new("id").expect("an id"),
            }
        }

        /// The provider's next registration gives this client.
        fn gives(&self, id: &str) {
            let body = json!({"client_id": id, "token_endpoint_auth_method": "none"});
            let answer = Answer::json(201, &body);
            self.provider
                .push_when(|request| request.path() == "/register", answer);
        }

        fn endpoints(&self) -> UpstreamEndpoints {
            let at = |path: &str| Url::parse(&format!("{}{path}", self.provider.base())).expect("url");
            UpstreamEndpoints {
                issuer: Some(self.provider.base()),
                authorization_url: at("/authorize"),
                token_url: at("/token"),
                registration_url: Some(at("/register")),
                revocation_url: None,
                scopes: Vec::new(),
                iss_promised: false,
                auth_methods: None,
                s256_supported: None,
                resource: None,
                reach: Reach::configured([&at("/register")]),
            }
        }

        async fn id_at(
            &self,
            registrations: &Registrations,
            endpoints: UpstreamEndpoints,
            name: &str,
        ) -> Result<String, Arc<RegistrationError>> {
            let metadata = ClientMetadata {
                client_name: Some(name.to_owned()),
                ..ClientMetadata::default()
            };
            let found = registrations
                .client(&self.server, &Arc::new(endpoints), &metadata, CALLBACK)
                .await;
            found.map(|client| client.client.id)
        }

        async fn id(&self, name: &str) -> Result<String, Arc<RegistrationError>> {
            self.id_at(&self.registrations, self.endpoints(), name).await
        }

        fn registered(&self) -> usize {
            self.provider.requests().len()
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_and_again_are_one_registration() {
        let world = World::new().await;
        world.gives("first");
        let all = futures_util::future::join_all((0..50).map(|_| world.id("a"))).await;
        assert!(
            all.iter().all(|id| id.as_deref().is_ok_and(|id| id == "first")),
            "{all:?}"
        );
        assert_eq!(world.registered(), 1);
        assert!(world.registrations.0.flights().is_empty());
        // Another replica, or this one after a restart.
        let other = registrations(&world.store);
        let id = world.id_at(&other, world.endpoints(), "a").await;
        assert_eq!((id.expect("known"), world.registered()), ("first".to_owned(), 1));
    }

    #[tokio::test]
    async fn what_is_remembered_asks_nobody_until_it_is_forgotten() {
        let world = World::new().await;
        world.gives("first");
        assert_eq!(world.id("a").await.expect("registered"), "first");
        let (name, known) = world.registrations.0.known.iter().next().expect("remembered");
        let key = known.client.registration.expect("registered here");
        // Behind its back: the store has nothing more.
        let generation = Version::from_number(key.generation);
        let deleted = world
            .store
            .delete_registration_if(&world.server, &name.1, generation);
        assert!(deleted.await.expect("deleted"));
        assert_eq!(world.id("a").await.expect("remembered"), "first");
        let forgotten = world.registrations.forget(&world.server, &key).await;
        assert!(!forgotten.expect("the store answers"));
        world.gives("second");
        assert_eq!(world.id("a").await.expect("registered"), "second");
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_who_waited_and_nobodys_who_comes_later() {
        let world = World::new().await;
        let broken = Answer::json(500, &json!({}));
        world
            .provider
            .push_when(|request| request.path() == "/register", broken);
        let all = futures_util::future::join_all((0..5).map(|_| world.id("a"))).await;
        assert!(all.iter().all(Result::is_err), "{all:?}");
        assert_eq!(world.registered(), 1);
        world.gives("second");
        assert_eq!(world.id("a").await.expect("registered"), "second");
    }

    #[tokio::test]
    async fn new_kinds_of_clients_are_limited_and_known_ones_are_not() {
        let world = World::new().await;
        let mut made = 0;
        let refused = loop {
            let name = format!("client-{made}");
            world.gives(&name);
            match world.id(&name).await {
                Ok(id) => assert_eq!(id, name),
                Err(refused) => break refused,
            }
            made += 1;
        };
        assert!(matches!(*refused, RegistrationError::TooMany), "{refused}");
        assert!((60..200).contains(&made), "{made}");
        assert_eq!(world.registered(), made);
        assert_eq!(world.id("client-0").await.expect("known"), "client-0");
    }

    #[tokio::test]
    async fn changed_metadata_uses_no_client_of_before() {
        let world = World::new().await;
        world.gives("first");
        assert_eq!(world.id("a").await.expect("registered"), "first");
        let elsewhere = UpstreamEndpoints {
            token_url: Url::parse("https://elsewhere.example/token").expect("url"),
            ..world.endpoints()
        };
        let another = UpstreamEndpoints {
            issuer: Some("https://elsewhere.example".into()),
            ..world.endpoints()
        };
        for (endpoints, id) in [(elsewhere, "second"), (another, "third")] {
            world.gives(id);
            let found = world.id_at(&world.registrations, endpoints, "a").await;
            assert_eq!(found.expect("registered"), id);
        }
        // Another path at the same origin is the same server.
        let moved = UpstreamEndpoints {
            token_url: world.endpoints().token_url.join("/token/v2").expect("url"),
            ..world.endpoints()
        };
        let found = world.id_at(&world.registrations, moved, "a").await;
        assert_eq!(found.expect("known"), "first");
    }
}

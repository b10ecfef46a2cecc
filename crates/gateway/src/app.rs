//! Every long-lived part in one place. `build` may fail and binds nothing; what runs afterwards is in
//! [`crate::http`].

use crate::admission::Gate;
use crate::clock::Clock;
use crate::config::{self, Auth, CallerHeaders, Limits, ServerSettings, Settings};
use crate::credentials::exchange::Exchanges;
use crate::credentials::machine::MachineTokens;
use crate::credentials::passthrough::Envelopes;
use crate::credentials::person::Persons;
use crate::http::relay::aggregate::Aggregates;
use crate::http::relay::session::Sessions;
use crate::ids::{RequestId, RequestIds};
use crate::issuer::Issuer;
use crate::issuer::registrations::Registrations;
use crate::issuer::upstream::{Discovery, Patience};
use crate::net::bridge::Bridges;
use crate::net::guarded::Guarded;
use crate::net::pool::Pool;
use crate::net::tls;
use crate::net::token_endpoint::TokenClient;
use crate::net::transport::{Endpoint, Transport};
use crate::policy::visibility::{InternalNetworks, Whereabouts};
use crate::registry::{Registry, Server, UnusableUrl, View};
use crate::telemetry::metrics::Metrics;
use crate::web::client_address::ClientAddresses;
use crate::web::error::Refusal;
use crate::web::guard::Guard;
use crate::web::origin::PublicOrigin;
use http::HeaderMap;
use rustls::ClientConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use tokio::runtime::Handle;
use url::Url;
use vestibule_store::{MasterKeys, Store};

/// The gateway's parts.
pub struct App {
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub gate: Gate,
    /// Headers whose names the operator chose.
    pub caller_headers: CallerHeaders,
    /// Which hosts and origins may.
    pub guard: Guard,
    /// The servers.
    pub registry: Registry,
    /// The ways to servers of other transports than HTTP.
    pub bridges: Bridges,
    /// The same in the order of the registry.
    by_bridge: Vec<Option<Transport>>,
    /// Whether the master key is one person's.
    pub master_key_is_a_persons: bool,
    /// By what name the gateway is called.
    pub origin: PublicOrigin,
    /// Whose a request is, by address.
    pub addresses: ClientAddresses,
    /// Which addresses are near.
    pub internal: InternalNetworks,
    /// What people's sign-ins need; nothing where no server has them.
    pub people: Option<People>,
    /// What servers say about their authorization servers; nothing where no caller's own token is passed on and nobody
    /// signs in.
    pub discovery: Option<Arc<Discovery>>,
    /// Seals what clients of bridged passthrough servers show.
    pub envelopes: Envelopes,
    /// Seals session ids.
    pub sessions: Sessions,
    /// What endpoints with several servers keep.
    pub aggregates: Aggregates,
    /// Whether a request that names no server is refused.
    pub require_explicit_scope: bool,
    /// Counters.
    pub metrics: Metrics,
    /// TLS toward servers.
    pub tls: ClientConfig,
    /// Set when no new work is wanted; readiness says so.
    pub draining: AtomicBool,
}

/// Sign-ins of people, and what came of them.
pub struct People {
    /// We as authorization server toward clients.
    pub issuer: Issuer,
    /// Their tokens.
    pub persons: Persons,
}

/// Why there is no gateway.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The platform's certificates cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The client for token endpoints cannot be made.
    #[error("the client for token endpoints cannot be set up: {0}")]
    TokenClient(#[from] reqwest::Error),
    /// There is no thread for servers of other transports.
    #[error("the thread for servers of transport sse and stdio cannot be started: {0}")]
    Bridges(#[source] std::io::Error),
    /// A server's URL cannot be used.
    #[error(transparent)]
    Url(#[from] UnusableUrl),
}

impl App {
    /// Makes the parts. Token requests run on `runtime`; `loopback` says where the gateway will listen. A `store`
    /// is there when a server has people sign in.
    pub fn build(
        settings: Settings,
        keys: &MasterKeys,
        clock: Clock,
        runtime: Handle,
        loopback: bool,
        store: Option<Arc<Store>>,
    ) -> Result<Self, BuildError> {
        let tls = tls::client_config(!settings.servers.iter().all(in_clear))?;
        let metrics = Metrics::new();
        let guarded = Guarded::new(settings.limits.token_timeout, &tls)?;
        let discovery = settings.has_discovery().then(|| {
            let (guarded, clock, runtime) = (guarded.clone(), clock.clone(), runtime.clone());
            Arc::new(Discovery::new(guarded, clock, runtime, Patience::default()))
        });
        let people = match (store, &discovery) {
            (Some(store), Some(discovery)) => {
                let registrations = Registrations::new(
                    Arc::clone(&store),
                    guarded.clone(),
                    clock.clone(),
                    runtime.clone(),
                );
                Some(People {
                    issuer: Issuer::new(
                        keys,
                        settings.redirects,
                        Arc::clone(discovery),
                        registrations.clone(),
                        Arc::clone(&store),
                        runtime.clone(),
                    ),
                    persons: Persons::new(
                        store,
                        guarded.clone(),
                        Arc::clone(discovery),
                        registrations,
                        clock.clone(),
                        runtime.clone(),
                        settings.limits.token_timeout,
                    ),
                })
            }
            _ => None,
        };
        let client = TokenClient::new(settings.limits.token_timeout, tls.clone())?;
        let exchanges = Exchanges::new(client.clone(), guarded, clock.clone(), runtime.clone());
        let tokens = Arc::new(MachineTokens::new(
            client,
            clock.clone(),
            runtime,
            metrics.tokens(),
        ));
        let registry = Registry::new(settings.servers, &tokens, &exchanges, &metrics)?;
        let wanted = |server: &Arc<Server>| !matches!(server.endpoint, Endpoint::Http(_));
        let wanted = registry.all().iter().any(wanted);
        let mut bridges =
            Bridges::new(wanted, &settings.limits, &clock, &tls, &metrics).map_err(BuildError::Bridges)?;
        let by_bridge = registry.all().iter().map(|server| {
            let bridge = bridges.add(&server.name, &server.endpoint, server.first_byte_timeout);
            bridge.map(Transport::Bridge)
        });
        let by_bridge = by_bridge.collect();
        Ok(Self {
            clock,
            gate: Gate::new(settings.master_key, settings.caller_headers.key.clone()),
            caller_headers: settings.caller_headers,
            guard: Guard::new(settings.access, loopback),
            registry,
            bridges,
            by_bridge,
            master_key_is_a_persons: settings.keep_tokens_for_master_key,
            origin: PublicOrigin::new(settings.origin),
            addresses: ClientAddresses::new(settings.proxies),
            internal: InternalNetworks::new(settings.internal),
            people,
            discovery,
            envelopes: Envelopes::new(keys),
            sessions: Sessions::new(keys),
            aggregates: Aggregates::new(keys),
            require_explicit_scope: settings.require_explicit_scope,
            limits: settings.limits,
            metrics,
            tls,
            draining: AtomicBool::new(false),
        })
    }

    /// The servers that there are for whoever made this request.
    pub fn servers_for(&self, headers: &HeaderMap, peer: IpAddr) -> View<'_> {
        // Where every server is public nobody's address matters.
        let client = if self.registry.all_public() {
            Whereabouts::External
        } else {
            self.internal.place(self.addresses.of(headers, peer))
        };
        self.registry.seen_by(client)
    }

    /// Counts and logs a refusal, once, where it is answered. `server` is empty when none is concerned.
    pub fn refuse(&self, refusal: Refusal, server: &str, id: RequestId) -> Refusal {
        self.metrics.refused(refusal.code);
        let (code, message) = (refusal.code.name(), &refusal.message);
        if refusal.code.status().is_server_error() {
            tracing::warn!(request_id = %id, server, code, "{message}");
        } else {
            tracing::info!(request_id = %id, server, code, "{message}");
        }
        refusal
    }
}

/// Whether nothing about this server needs TLS.
fn in_clear(server: &ServerSettings) -> bool {
    let http = |url: &Url| url.scheme() == "http";
    let auth = match &server.auth {
        Auth::None | Auth::Static { .. } => true,
        Auth::ClientCredentials { token_url, .. } => http(token_url),
        Auth::AwsSigV4(settings) => settings.role.as_ref().is_none_or(|role| http(&role.endpoint)),
        _ => false,
    };
    let way = match &server.endpoint {
        config::Endpoint::Http(url) | config::Endpoint::Sse(url) => http(url),
        config::Endpoint::Stdio(_) => true,
    };
    way && auth
}

/// What one worker thread has for itself.
pub struct Worker {
    /// What all workers share.
    pub app: Arc<App>,
    /// Its request ids.
    pub ids: RequestIds,
    transports: Vec<Transport>,
}

impl Worker {
    /// A worker with empty pools.
    pub fn new(app: Arc<App>) -> Self {
        let own = |server: &Arc<Server>| {
            let address = server.endpoint.address()?;
            let pool = Pool::new(
                address.origin.clone(),
                app.tls.clone(),
                app.limits.connect_timeout,
            );
            Some(Transport::Http(Arc::new(pool)))
        };
        let servers = app.registry.all().iter().zip(&app.by_bridge);
        // Every server is bridged or has an address.
        let transports = servers.filter_map(|(server, bridged)| bridged.clone().or_else(|| own(server)));
        Self {
            ids: RequestIds::new(),
            transports: transports.collect(),
            app,
        }
    }

    /// This worker's way to `server`.
    pub fn transport(&self, server: &Server) -> &Transport {
        &self.transports[server.index.0]
    }

    /// Drops connections and sessions that were idle too long.
    pub fn reap(&self) {
        for transport in &self.transports {
            transport.reap();
        }
        self.app.bridges.reap();
    }

    /// [`App::refuse`].
    pub fn refuse(&self, refusal: Refusal, server: Option<&Arc<Server>>, id: RequestId) -> Refusal {
        let server = server.map_or("", |server| server.name.as_str());
        self.app.refuse(refusal, server, id)
    }
}

//! Every long-lived part in one place. `build` may fail and binds nothing; what runs afterwards is in
//! [`crate::http`].

use crate::admission::Gate;
use crate::clock::Clock;
use crate::config::{Auth, Limits, ServerSettings, Settings};
use crate::credentials::machine::MachineTokens;
use crate::credentials::person::Persons;
use crate::http::relay::session::Sessions;
use crate::ids::{RequestId, RequestIds};
use crate::issuer::Issuer;
use crate::issuer::registrations::Registrations;
use crate::issuer::upstream::{Discovery, Patience};
use crate::net::guarded::Guarded;
use crate::net::pool::Pool;
use crate::net::tls;
use crate::net::token_endpoint::TokenClient;
use crate::registry::{Registry, Server, UnusableUrl};
use crate::telemetry::metrics::Metrics;
use crate::web::error::Refusal;
use crate::web::guard::Guard;
use crate::web::origin::PublicOrigin;
use rustls::ClientConfig;
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
    /// Which hosts and origins may.
    pub guard: Guard,
    /// The servers.
    pub registry: Registry,
    /// Whether the master key is one person's.
    pub master_key_is_a_persons: bool,
    /// By what name the gateway is called.
    pub origin: PublicOrigin,
    /// What people's sign-ins need; nothing where no server has them.
    pub people: Option<People>,
    /// Seals session ids.
    pub sessions: Sessions,
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
        let people = match store {
            None => None,
            Some(store) => {
                let guarded = Guarded::new(settings.limits.token_timeout, &tls)?;
                let discovery = Discovery::new(
                    guarded.clone(),
                    clock.clone(),
                    runtime.clone(),
                    Patience::default(),
                );
                let discovery = Arc::new(discovery);
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
                        Arc::clone(&discovery),
                        registrations.clone(),
                        Arc::clone(&store),
                        runtime.clone(),
                    ),
                    persons: Persons::new(
                        store,
                        guarded,
                        discovery,
                        registrations,
                        clock.clone(),
                        runtime.clone(),
                        settings.limits.token_timeout,
                    ),
                })
            }
        };
        let client = TokenClient::new(settings.limits.token_timeout, tls.clone())?;
        let tokens = MachineTokens::new(client, clock.clone(), runtime, metrics.tokens());
        Ok(Self {
            clock,
            gate: Gate::new(settings.master_key),
            guard: Guard::new(settings.access, loopback),
            registry: Registry::new(settings.servers, &tokens, &metrics)?,
            master_key_is_a_persons: settings.keep_tokens_for_master_key,
            origin: PublicOrigin::new(settings.origin),
            people,
            sessions: Sessions::new(keys),
            limits: settings.limits,
            metrics,
            tls,
            draining: AtomicBool::new(false),
        })
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
    let auth = matches!(&server.auth, Auth::None | Auth::Static { .. })
        || matches!(&server.auth, Auth::ClientCredentials { token_url, .. } if http(token_url));
    http(&server.url) && auth
}

/// What one worker thread has for itself.
pub struct Worker {
    /// What all workers share.
    pub app: Arc<App>,
    /// Its request ids.
    pub ids: RequestIds,
    pools: Vec<Arc<Pool>>,
}

impl Worker {
    /// A worker with empty pools.
    pub fn new(app: Arc<App>) -> Self {
        let pools = app.registry.servers().iter().map(|server| {
            Arc::new(Pool::new(
                server.origin.clone(),
                app.tls.clone(),
                app.limits.connect_timeout,
            ))
        });
        Self {
            ids: RequestIds::new(),
            pools: pools.collect(),
            app,
        }
    }

    /// This worker's connections to `server`.
    pub fn pool(&self, server: &Server) -> &Arc<Pool> {
        &self.pools[server.index.0]
    }

    /// Drops connections that were idle too long.
    pub fn reap(&self) {
        for pool in &self.pools {
            pool.reap();
        }
    }

    /// [`App::refuse`].
    pub fn refuse(&self, refusal: Refusal, server: Option<&Arc<Server>>, id: RequestId) -> Refusal {
        let server = server.map_or("", |server| server.name.as_str());
        self.app.refuse(refusal, server, id)
    }
}

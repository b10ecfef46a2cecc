//! Every long-lived part in one place. `build` may fail and binds nothing; what runs afterwards is in
//! [`crate::http`].

use crate::admission::Gate;
use crate::admission::keys::Keys;
use crate::admission::server_session::ServerSessions;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{
    self, Auth, CallerHeaders, Limits, Management, Problem, ServerSettings, Settings, Severity,
};
use crate::credentials::exchange::Exchanges;
use crate::credentials::machine::MachineTokens;
use crate::credentials::own_keys::OwnKeys;
use crate::credentials::passthrough::Envelopes;
use crate::credentials::person::Persons;
use crate::http::console::Console;
use crate::http::relay::aggregate::Aggregates;
use crate::http::relay::session::Sessions;
use crate::ids::{RequestId, RequestIds};
use crate::issuer::Issuer;
use crate::issuer::registrations::Registrations;
use crate::issuer::upstream::{Discovery, Patience};
use crate::live::Live;
use crate::net::bridge::Bridges;
use crate::net::guarded::Guarded;
use crate::net::pool::Pool;
use crate::net::tls;
use crate::net::token_endpoint::TokenClient;
use crate::net::transport::Transport;
use crate::policy::visibility::{InternalNetworks, Whereabouts};
use crate::registry::{Registry, Server, UnusableServer, View};
use crate::telemetry::metrics::Metrics;
use crate::web::client_address::ClientAddresses;
use crate::web::error::Refusal;
use crate::web::guard::Guard;
use crate::web::origin::PublicOrigin;
use http::HeaderMap;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use tokio::runtime::Handle;
use url::Url;
use vestibule_oauth::redirect_uri::RedirectRules;
use vestibule_store::{MasterKeys, Store};

/// The gateway's parts: those that come from the configuration, and those that outlive it, which
/// [`App::next`] hands on.
pub struct App {
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub gate: Gate,
    /// The keys that admins gave out.
    pub keys: Arc<Keys>,
    /// Headers whose names the operator chose.
    pub caller_headers: CallerHeaders,
    /// Which hosts and origins may.
    pub guard: Guard,
    /// The servers.
    pub registry: Registry,
    /// The ways to servers of other transports than HTTP.
    pub bridges: Arc<Bridges>,
    /// Whether the master key is one person's.
    pub master_key_is_a_persons: bool,
    /// By what name the gateway is called.
    pub origin: PublicOrigin,
    /// Whose a request is, by address.
    pub addresses: ClientAddresses,
    /// Which addresses are near.
    pub internal: InternalNetworks,
    /// Which redirect URIs are accepted.
    pub redirects: RedirectRules,
    /// What lasts; nothing where nothing does.
    pub store: Option<Arc<Store>>,
    /// What people's sign-ins need; there with a store.
    pub people: Option<Arc<People>>,
    /// Fetches what is at addresses that nobody configured yet.
    pub guarded: Guarded,
    /// What servers say about their authorization servers.
    pub discovery: Arc<Discovery>,
    /// Seals what clients of bridged passthrough servers show.
    pub envelopes: Arc<Envelopes>,
    /// Seals session ids.
    pub sessions: Arc<Sessions>,
    /// What endpoints with several servers keep.
    pub aggregates: Arc<Aggregates>,
    /// Whether a request that names no server is refused.
    pub require_explicit_scope: bool,
    /// What the console keeps.
    pub console: Arc<Console>,
    /// What the management offers.
    pub management: Management,
    /// The record of what happened.
    pub audit: Audit,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// TLS toward servers.
    pub tls: ClientConfig,
    /// Set when no new work is wanted; readiness says so.
    pub draining: Arc<AtomicBool>,
    /// Makes what servers' credentials need.
    makers: Makers,
    loopback: bool,
    /// `general_settings.database_url` at the start.
    database_url: Option<SecretString>,
}

/// Makes the credential sources of servers.
#[derive(Clone)]
pub struct Makers {
    /// Machine tokens.
    pub tokens: Arc<MachineTokens>,
    /// Exchanges.
    pub exchanges: Arc<Exchanges>,
}

/// Sign-ins of people, and what came of them.
pub struct People {
    /// We as authorization server toward clients.
    pub issuer: Issuer,
    /// Their tokens.
    pub persons: Persons,
    /// The keys that they brought.
    pub own_keys: OwnKeys,
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
    /// A server cannot be used.
    #[error(transparent)]
    Server(#[from] UnusableServer),
    /// A file that somebody is writing, or has spoilt, opens no gateway to everybody.
    #[error(
        "there is no master key any more, and a gateway that asks for keys stops doing so with a restart alone"
    )]
    NoMasterKey,
}

impl App {
    /// Makes the parts. Token requests run on `runtime`; `loopback` says where the gateway will listen. Without a
    /// `store` nothing lasts, and nobody can sign in.
    pub fn build(
        settings: Settings,
        keys: &MasterKeys,
        clock: Clock,
        runtime: Handle,
        loopback: bool,
        store: Option<Arc<Store>>,
    ) -> Result<Self, BuildError> {
        let virtual_keys = Arc::new(Keys::new(clock.clone()));
        let tls = tls::client_config(!settings.servers.iter().all(in_clear))?;
        let metrics = Arc::new(Metrics::new());
        let guarded = Guarded::new(settings.limits.token_timeout, &tls)?;
        let discovery = {
            let (guarded, clock, runtime) = (guarded.clone(), clock.clone(), runtime.clone());
            Arc::new(Discovery::new(guarded, clock, runtime, Patience::default()))
        };
        let audit = Audit::new(
            settings.audit,
            store.as_ref(),
            clock.clone(),
            &runtime,
            metrics.audit_lost.clone(),
        );
        let people = store.as_ref().map(|store| {
            let registrations =
                Registrations::new(Arc::clone(store), guarded.clone(), clock.clone(), runtime.clone());
            Arc::new(People {
                issuer: Issuer::new(
                    keys,
                    Arc::clone(&discovery),
                    registrations.clone(),
                    Arc::clone(store),
                    runtime.clone(),
                ),
                persons: Persons::new(
                    Arc::clone(store),
                    guarded.clone(),
                    Arc::clone(&discovery),
                    registrations,
                    clock.clone(),
                    runtime.clone(),
                    settings.limits.token_timeout,
                    audit.clone(),
                ),
                own_keys: OwnKeys::new(Arc::clone(store), clock.clone(), runtime.clone()),
            })
        });
        let client = TokenClient::new(settings.limits.token_timeout, tls.clone())?;
        let exchanges = Exchanges::new(client.clone(), guarded.clone(), clock.clone(), runtime.clone());
        let tokens = MachineTokens::new(client, clock.clone(), runtime, metrics.tokens());
        let makers = Makers {
            tokens: Arc::new(tokens),
            exchanges: Arc::new(exchanges),
        };
        let bridges = Arc::new(Bridges::new(&settings.limits, &clock, &tls, &metrics));
        let registry = Registry::new(settings.servers, None, &makers, &bridges, &metrics)?;
        Ok(Self {
            gate: Gate::new(
                settings.master_key,
                settings.caller_headers.key.clone(),
                Arc::clone(&virtual_keys),
                Arc::new(ServerSessions::new(keys)),
            ),
            keys: virtual_keys,
            caller_headers: settings.caller_headers,
            guard: Guard::new(settings.access, loopback),
            registry,
            bridges,
            master_key_is_a_persons: settings.keep_tokens_for_master_key,
            origin: PublicOrigin::new(settings.origin),
            addresses: ClientAddresses::new(settings.proxies),
            internal: InternalNetworks::new(settings.internal),
            redirects: settings.redirects,
            store,
            people,
            guarded,
            discovery,
            envelopes: Arc::new(Envelopes::new(keys)),
            sessions: Arc::new(Sessions::new(keys)),
            aggregates: Arc::new(Aggregates::new(keys)),
            console: Arc::new(Console::new(keys)),
            require_explicit_scope: settings.require_explicit_scope,
            management: settings.management,
            limits: settings.limits,
            audit,
            metrics,
            tls,
            draining: Arc::default(),
            makers,
            loopback,
            database_url: settings.database_url,
            clock,
        })
    }

    /// The same gateway under another configuration. A server that did not change keeps its tokens, its sessions and
    /// its connections; so does everything that is not the configuration's. Bounds that parts were made with stay as
    /// they were: see [`App::with_the_next_start`].
    ///
    /// # Errors
    /// When a server cannot be used, or the master key is gone.
    pub fn next(&self, settings: Settings) -> Result<Self, BuildError> {
        if self.gate.asks_for_keys() && settings.master_key.is_none() {
            return Err(BuildError::NoMasterKey);
        }
        let before = Some(&self.registry);
        let registry = Registry::new(
            settings.servers,
            before,
            &self.makers,
            &self.bridges,
            &self.metrics,
        )?;
        Ok(Self {
            gate: self
                .gate
                .next(settings.master_key, settings.caller_headers.key.clone()),
            keys: Arc::clone(&self.keys),
            caller_headers: settings.caller_headers,
            guard: Guard::new(settings.access, self.loopback),
            registry,
            bridges: Arc::clone(&self.bridges),
            master_key_is_a_persons: settings.keep_tokens_for_master_key,
            origin: PublicOrigin::new(settings.origin),
            addresses: ClientAddresses::new(settings.proxies),
            internal: InternalNetworks::new(settings.internal),
            redirects: settings.redirects,
            store: self.store.clone(),
            people: self.people.clone(),
            guarded: self.guarded.clone(),
            discovery: Arc::clone(&self.discovery),
            envelopes: Arc::clone(&self.envelopes),
            sessions: Arc::clone(&self.sessions),
            aggregates: Arc::clone(&self.aggregates),
            console: Arc::clone(&self.console),
            require_explicit_scope: settings.require_explicit_scope,
            management: settings.management,
            limits: settings.limits,
            audit: self.audit.configured(settings.audit),
            metrics: Arc::clone(&self.metrics),
            tls: self.tls.clone(),
            draining: Arc::clone(&self.draining),
            makers: self.makers.clone(),
            loopback: self.loopback,
            database_url: self.database_url.clone(),
            clock: self.clock.clone(),
        })
    }

    /// What these settings ask for and only the next start gives.
    pub fn with_the_next_start(&self, settings: &Settings) -> Vec<Problem> {
        let limits = self.limits.lasting_differences(&settings.limits);
        let mut waiting: Vec<String> = limits
            .iter()
            .map(|one| format!("vestibule.limits.{one}"))
            .collect();
        let text = |url: &Option<SecretString>| url.as_ref().map(|url| url.expose_secret().to_owned());
        if text(&self.database_url) != text(&settings.database_url) {
            waiting.push("general_settings.database_url".into());
        }
        let keys_begin = settings.master_key.is_some() && !self.gate.asks_for_keys();
        if self.store.is_none() && keys_begin {
            waiting.push("general_settings.master_key".into());
        }
        if self.store.is_none() && settings.has_sign_in() {
            waiting.push("mcp_servers".into());
        }
        let problem = |path: String| Problem {
            severity: Severity::Warning,
            at: None,
            message: match path.as_str() {
                "mcp_servers" | "general_settings.master_key" => {
                    "needs a database, which is opened with the next start".into()
                }
                _ => "changes with the next start".into(),
            },
            path,
        };
        waiting.into_iter().map(problem).collect()
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
        Auth::None | Auth::Static { .. } | Auth::Byok { .. } => true,
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
    /// The gateway, whose configuration may have changed since this request came.
    pub live: Arc<Live>,
    /// Its request ids.
    pub ids: Arc<RequestIds>,
    /// By the servers' places.
    transports: Vec<Option<Transport>>,
}

impl Worker {
    /// A worker with empty pools.
    pub fn new(live: Arc<Live>) -> Self {
        Self::from(live.app(), live, Arc::new(RequestIds::new()), |_| None)
    }

    /// This worker under another configuration, with its connections to the servers that did not change.
    #[must_use]
    pub fn next(&self, app: Arc<App>) -> Self {
        let kept = |server: &Arc<Server>| {
            let before = self.app.registry.at(server.index)?;
            if !Arc::ptr_eq(before, server) {
                return None;
            }
            self.transport(server).cloned()
        };
        Self::from(app, Arc::clone(&self.live), Arc::clone(&self.ids), kept)
    }

    fn from(
        app: Arc<App>,
        live: Arc<Live>,
        ids: Arc<RequestIds>,
        kept: impl Fn(&Arc<Server>) -> Option<Transport>,
    ) -> Self {
        let own = |server: &Arc<Server>| match (&server.bridged, server.endpoint.address()) {
            (Some(bridge), _) => Some(Transport::Bridge(Arc::clone(bridge))),
            (None, Some(address)) => {
                let connect_timeout = app.limits.connect_timeout;
                let pool = Pool::new(address.origin.clone(), app.tls.clone(), connect_timeout);
                Some(Transport::Http(Arc::new(pool)))
            }
            (None, None) => None,
        };
        let mut transports = Vec::new();
        for server in app.registry.all() {
            let place = server.index.0;
            if transports.len() <= place {
                transports.resize_with(place + 1, || None);
            }
            transports[place] = kept(server).or_else(|| own(server));
        }
        Self {
            app,
            live,
            ids,
            transports,
        }
    }

    /// This worker's way to `server`; `None` for a server of another configuration than its own.
    pub fn transport(&self, server: &Server) -> Option<&Transport> {
        self.transports.get(server.index.0)?.as_ref()
    }

    /// Drops connections and sessions that were idle too long.
    pub fn reap(&self) {
        for transport in self.transports.iter().flatten() {
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

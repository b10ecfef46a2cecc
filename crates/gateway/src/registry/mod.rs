//! The MCP servers we know, as one immutable snapshot: what a request needs of a server is made here once.

pub mod health;

use crate::admission::Admission;
use crate::app::Makers;
use crate::config::{
    Auth, ByokPage, Passthrough, Problem, Provenance, ServerSettings, SharedSettings, Shown, SignIn,
    TokenEndpoint,
};
use crate::credentials::per_request::names_in_headers;
use crate::credentials::{CredentialSource, OutboundCredential};
use crate::digest::sha256_of_parts;
use crate::ending::Ending;
use crate::issuer::paths::Named;
use crate::net::bridge::{Bridge, Bridges};
use crate::net::transport::Endpoint;
use crate::policy::access;
use crate::policy::tools::{Names, ToolRules};
use crate::policy::visibility::{Whereabouts, visible};
use crate::telemetry::metrics::{Metrics, ServerMetrics};
use crate::web::error::{ErrorCode, Refusal};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use health::Health;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::time::sleep;
use vestibule_mcp::naming;
use vestibule_store::ServerId;

/// A server's place: its own for as long as it is configured, whatever becomes of the others. Pools are kept by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIndex(pub usize);

/// One MCP server, ready for requests.
pub struct Server {
    /// Its place.
    pub index: ServerIndex,
    /// Stable id.
    pub id: String,
    /// The id that rows of the store are kept under.
    pub store_id: ServerId,
    /// The key in `mcp_servers`.
    pub name: String,
    /// Second name.
    pub alias: Option<String>,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// `auth_type` as in the file.
    pub auth_type: &'static str,
    /// Where its credential comes from.
    pub credential: CredentialSource,
    /// The headers that carry it.
    pub credential_headers: Vec<HeaderName>,
    /// Where a bearer token goes.
    pub token_header: HeaderName,
    /// The headers that every request has: `Host`, `User-Agent` and `static_headers`.
    pub base_headers: HeaderMap,
    /// Request headers that are passed on beside MCP's own.
    pub extra_headers: Vec<HeaderName>,
    /// Until the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Whether it is there for clients outside the internal networks too.
    pub is_public: bool,
    /// Which of its tools may be used; `None` for all.
    pub rules: Option<Arc<ToolRules>>,
    /// `mcp_info` of the REST facade.
    pub info: serde_json::Map<String, serde_json::Value>,
    /// What stands before its tools' names where it is one of several.
    pub prefix: String,
    /// How it stands behind endpoints with several servers.
    pub shared: SharedSettings,
    /// Its counters.
    pub metrics: ServerMetrics,
    /// Whether it answers.
    pub health: Health,
    /// The way to it, where that is not HTTP.
    pub bridged: Option<Arc<Bridge>>,
    /// Whether every gateway key may use it.
    pub allows_all_keys: bool,
    /// See [`ServerSettings::has_derived_id`].
    pub has_derived_id: bool,
    /// See [`ServerSettings::derived_id`].
    pub derived_id: Option<String>,
    /// Where it is configured.
    pub provenance: Provenance,
    /// Its fields as they may be shown.
    pub shown: Arc<Shown>,
    /// What is worth a look about its configuration.
    pub warnings: Vec<Problem>,
    /// Said when the configuration has it no more, or otherwise.
    pub ending: Ending<End>,
    /// See [`ServerSettings::fingerprint`].
    fingerprint: [u8; 32],
    /// How it is called in `x-mcp-{server}-{header}`.
    names_in_headers: Vec<String>,
    calls: AtomicUsize,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is there no more.
    Removed,
    /// It is configured otherwise now.
    Replaced,
}

/// A call under way; over when dropped.
pub struct UnderWay<S: Borrow<Server>>(S);

impl<S: Borrow<Server>> UnderWay<S> {
    /// One call more.
    pub fn begin(server: S) -> Self {
        server.borrow().calls.fetch_add(1, Ordering::Relaxed);
        Self(server)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        self.0.borrow()
    }
}

impl<S: Borrow<Server>> Drop for UnderWay<S> {
    fn drop(&mut self) {
        self.server().calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a server cannot be used.
#[derive(Debug, Error)]
pub enum UnusableServer {
    /// No request can carry its URL.
    #[error("mcp_servers.{0}.url cannot be sent in a request")]
    Url(String),
    /// There is no thread for servers of other transports.
    #[error("the thread for servers of transport sse and stdio cannot be started: {0}")]
    Bridges(#[source] std::io::Error),
}

/// All servers.
pub struct Registry {
    servers: Vec<Arc<Server>>,
    /// Servers by their places.
    places: HashMap<usize, Arc<Server>>,
    names: HashMap<String, Arc<Server>>,
    ids: HashMap<String, Arc<Server>>,
    /// By id. A server that did not change is the same one through several writings.
    provenances: HashMap<String, Provenance>,
    all_public: bool,
    groups: HashMap<String, Vec<Arc<Server>>>,
}

impl Registry {
    /// Makes the snapshot. A server that is the same as `before` is taken over with all that it has by now.
    ///
    /// # Errors
    /// When a server cannot be used.
    pub fn new(
        settings: Vec<ServerSettings>,
        before: Option<&Self>,
        makers: &Makers,
        bridges: &Bridges,
        metrics: &Metrics,
    ) -> Result<Self, UnusableServer> {
        let called = names_in_headers(
            settings
                .iter()
                .map(|server| (server.name.as_str(), server.alias.as_deref())),
        );
        let provenances = settings
            .iter()
            .map(|server| (server.id.clone(), server.provenance));
        let provenances = provenances.collect();
        let kept = |settings: &ServerSettings, called: &Vec<String>| {
            let server = before?.ids.get(&settings.id)?;
            let same = server.fingerprint == settings.fingerprint && server.names_in_headers == *called;
            same.then(|| Arc::clone(server))
        };
        let kept: Vec<_> = settings
            .iter()
            .zip(&called)
            .map(|(one, called)| kept(one, called))
            .collect();
        let taken: HashSet<usize> = kept.iter().flatten().map(|server| server.index.0).collect();
        let mut free = (0..).filter(|place| !taken.contains(place));
        let mut servers = Vec::new();
        for ((settings, called), kept) in settings.into_iter().zip(called).zip(kept) {
            if let Some(server) = kept {
                servers.push(server);
                continue;
            }
            let place = ServerIndex(free.next().unwrap_or(usize::MAX));
            let server = Server::new(place, settings, called, makers, bridges, metrics)?;
            servers.push(Arc::new(server));
        }
        let mut registry = Self {
            places: servers
                .iter()
                .map(|server| (server.index.0, Arc::clone(server)))
                .collect(),
            ids: servers
                .iter()
                .map(|server| (server.id.clone(), Arc::clone(server)))
                .collect(),
            names: HashMap::new(),
            provenances,
            all_public: servers.iter().all(|server| server.is_public),
            groups: HashMap::new(),
            servers: Vec::new(),
        };
        for server in servers.iter().filter(|server| !server.provenance.is_trial()) {
            for name in [Some(&server.name), server.alias.as_ref()].into_iter().flatten() {
                registry.names.insert(name.clone(), Arc::clone(server));
            }
            for group in &server.shared.groups {
                registry
                    .groups
                    .entry(group.clone())
                    .or_default()
                    .push(Arc::clone(server));
            }
        }
        registry.servers = servers;
        Ok(registry)
    }

    /// The server at this place.
    pub fn at(&self, index: ServerIndex) -> Option<&Arc<Server>> {
        self.places.get(&index.0)
    }

    fn by_name(&self, name: &str) -> Option<&Arc<Server>> {
        self.names.get(name)
    }

    fn by_id_or_name(&self, text: &str) -> Option<&Arc<Server>> {
        self.by_id(text).or_else(|| self.by_name(text))
    }

    /// The server with this id, name or alias, whoever asks, if it is not only tried.
    pub fn named(&self, text: &str) -> Option<&Arc<Server>> {
        let found = self.by_id(text).filter(|server| !server.provenance.is_trial());
        found.or_else(|| self.by_name(text))
    }

    /// The server with this id, whoever asks, one that is only tried among them.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Server>> {
        self.ids.get(id)
    }

    /// What has become of a server of an earlier configuration: the one with its id, or the file's of its name where it
    /// was the file's too, whose id may have come of what changed.
    pub fn successor(&self, before: &Server) -> Option<&Arc<Server>> {
        let of_file = |server: &Server| server.provenance == Provenance::File;
        self.by_id(&before.id).or_else(|| {
            let named = self.by_name(&before.name)?;
            (named.name == before.name && of_file(before) && of_file(named)).then_some(named)
        })
    }

    /// The server with this id, if it is one that is only tried, and still is at `now`, in seconds since 1970.
    pub fn trial(&self, id: &str, now: u64) -> Option<&Arc<Server>> {
        let end = |server: &Server| match server.provenance {
            Provenance::Store { expires_at, .. } => expires_at,
            Provenance::File => None,
        };
        self.by_id(id)
            .filter(|server| end(server).is_some_and(|end| now < end))
    }

    /// Every server, whoever asks, in the order of the file; at the end those that are only tried.
    pub fn all(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Where a server is configured, and when that was written last.
    pub fn provenance(&self, server: &Server) -> Provenance {
        let now = self.provenances.get(&server.id).copied();
        now.unwrap_or(server.provenance)
    }

    /// Whether no server is for internal clients alone.
    pub fn all_public(&self) -> bool {
        self.all_public
    }

    /// The servers that there are for a client there. Every lookup for a request starts here.
    pub fn seen_by(&self, client: Whereabouts) -> View<'_> {
        View {
            registry: self,
            client,
        }
    }
}

/// The servers that there are for one client. The others do not exist.
#[derive(Clone, Copy)]
pub struct View<'r> {
    registry: &'r Registry,
    client: Whereabouts,
}

impl<'r> View<'r> {
    /// The server with this name or alias.
    pub fn by_name(self, name: &str) -> Option<&'r Arc<Server>> {
        self.only_visible(self.registry.by_name(name))
    }

    /// The server with this id, name or alias.
    pub fn by_id_or_name(self, text: &str) -> Option<&'r Arc<Server>> {
        self.only_visible(self.registry.by_id_or_name(text))
    }

    /// The server with this name, alias or id, if people sign in to it through us.
    pub fn signed_in_at(self, named: Named<'_>) -> Option<(&'r Arc<Server>, &'r Arc<SignIn>)> {
        let server = self.named(named)?;
        Some((server, server.signed_in_through_us()?))
    }

    /// The server with this name, alias or id, if people bring keys of their own for it.
    pub fn brought_keys_at(self, named: Named<'_>) -> Option<(&'r Arc<Server>, &'r Arc<ByokPage>)> {
        let server = self.named(named)?;
        Some((server, server.byok()?))
    }

    /// The server with this name, alias or id, if its clients sign in at its own authorization server.
    pub fn passed_through_at(self, named: Named<'_>) -> Option<&'r Arc<Server>> {
        self.named(named).filter(|server| server.passthrough().is_some())
    }

    /// The server with this name, alias or id, if it takes tokens of a configured issuer in exchange, and that issuer.
    pub fn exchanged_at(self, named: Named<'_>) -> Option<(&'r Arc<Server>, &'r str)> {
        let server = self.named(named)?;
        Some((server, server.subject_issuer()?))
    }

    /// The root names the only server that has metadata of any kind. Of several it names none: clients stop at a document
    /// about another resource than theirs (RFC 9728 section 3.3).
    fn named(self, named: Named<'_>) -> Option<&'r Arc<Server>> {
        match named {
            Named::Name(name) => self.by_name(name),
            Named::Id(id) => self.by_id_or_name(id),
            Named::TheOnlyOne => {
                let servers = self.registry.servers.iter();
                let mut all = servers.filter(|server| server.is_described() && self.has(server));
                let first = all.next()?;
                all.next().is_none().then_some(first)
            }
        }
    }

    /// The servers of the group with this name, in the order of the file. A group of which nothing is visible does not
    /// exist.
    pub fn group(self, name: &str) -> Option<Vec<&'r Arc<Server>>> {
        let members = self.registry.groups.get(name)?.iter();
        let visible: Vec<_> = members.filter(|server| self.has(server)).collect();
        (!visible.is_empty()).then_some(visible)
    }

    /// Those of them that this caller may use.
    pub fn servers_of(self, admission: &Admission) -> Vec<&'r Arc<Server>> {
        let mut servers = self.servers();
        servers.retain(|server| access::may_use(admission, server));
        servers
    }

    /// In the order of the file.
    pub fn servers(self) -> Vec<&'r Arc<Server>> {
        self.registry
            .servers
            .iter()
            .filter(|server| self.has(server))
            .collect()
    }

    /// Whether there is a server with this id, for others than this client.
    pub fn hides(self, id: &str) -> bool {
        self.registry
            .by_id_or_name(id)
            .is_some_and(|server| !self.has(server))
    }

    fn has(self, server: &Server) -> bool {
        !server.provenance.is_trial() && visible(server, self.client)
    }

    fn only_visible(self, found: Option<&'r Arc<Server>>) -> Option<&'r Arc<Server>> {
        let server = found?;
        if !self.has(server) {
            tracing::debug!(server = %server.name, "asked for from outside the internal networks");
            return None;
        }
        Some(server)
    }
}

/// Whom a caller's `Authorization` would be shown to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'s> {
    /// The server itself.
    Server(ServerIndex),
    /// The token endpoint where it is exchanged, whichever server the result is for.
    TokenEndpoint(&'s TokenEndpoint),
}

impl Server {
    /// Tells it in its place from the same one elsewhere, on forms: what is typed in for one place goes to no other.
    pub fn place_digest(&self) -> String {
        let place = self.endpoint.place();
        BASE64_URL_SAFE_NO_PAD.encode(sha256_of_parts(&[self.id.as_bytes(), place.as_bytes()]))
    }

    /// Resolves when what is under way with it is over: it is there no more, or was configured otherwise and `grace` is past.
    pub fn over(&self, grace: Duration) -> impl Future<Output = End> + Send + use<> + 'static {
        let ending = self.ending.heard();
        async move {
            let how = ending.await;
            if how == End::Replaced {
                sleep(grace).await;
            }
            how
        }
    }

    /// Whom the caller's `Authorization` would be shown to for this server's sake.
    pub fn takes_authorization(&self) -> Option<Party<'_>> {
        match &self.credential {
            CredentialSource::OnBehalf(exchange) => Some(Party::TokenEndpoint(exchange.endpoint())),
            CredentialSource::Person(_) | CredentialSource::Caller(..) => Some(Party::Server(self.index)),
            CredentialSource::None
            | CredentialSource::Static(_)
            | CredentialSource::Byok(_)
            | CredentialSource::Machine(_)
            | CredentialSource::AwsSigV4(_) => self
                .extra_headers
                .contains(&header::AUTHORIZATION)
                .then_some(Party::Server(self.index)),
        }
    }

    /// How people sign in, if they do.
    pub fn sign_in(&self) -> Option<&Arc<SignIn>> {
        match &self.credential {
            CredentialSource::Person(sign_in) => Some(sign_in),
            _ => None,
        }
    }

    /// What people are told about the keys that they bring, if they do.
    pub fn byok(&self) -> Option<&Arc<ByokPage>> {
        match &self.credential {
            CredentialSource::Byok(page) => Some(page),
            _ => None,
        }
    }

    /// How clients get their tokens through us, whoever keeps them then.
    pub fn signed_in_through_us(&self) -> Option<&Arc<SignIn>> {
        self.sign_in().or(self.bridge())
    }

    /// How clients of a passthrough server get their tokens through us, if they do.
    pub fn bridge(&self) -> Option<&Arc<SignIn>> {
        match &self.credential {
            CredentialSource::Caller(_, bridge) => bridge.as_ref(),
            _ => None,
        }
    }

    /// Who issues the tokens that are exchanged for it, where that is configured.
    pub fn subject_issuer(&self) -> Option<&str> {
        match &self.credential {
            CredentialSource::OnBehalf(exchange) => exchange.subject_issuer(),
            _ => None,
        }
    }

    /// How the caller's own token is passed on, if it is.
    pub fn passthrough(&self) -> Option<Passthrough> {
        match self.credential {
            CredentialSource::Caller(mode, _) => Some(mode),
            _ => None,
        }
    }

    /// Whether there is metadata of a protected resource about it (RFC 9728): clients get their tokens through us, or
    /// bring those of an authorization server that is named to them.
    fn is_described(&self) -> bool {
        self.signed_in_through_us().is_some()
            || self.passthrough().is_some()
            || self.subject_issuer().is_some()
            || self.byok().is_some()
    }

    /// Whether nothing goes to the server without a token of the caller's.
    pub fn always_has_token(&self) -> bool {
        self.passthrough().is_some_and(Passthrough::always_has_token)
    }

    /// Whether the server alone judges who may call it, so that nobody needs a gateway key.
    pub fn admits_by_itself(&self) -> bool {
        self.passthrough().is_some_and(|mode| !mode.asks_for_key())
    }

    /// Whether this is one of its names: id, name or alias.
    pub fn goes_by(&self, name: &str) -> bool {
        self.id == name || self.name == name || self.alias.as_deref() == Some(name)
    }

    /// Whether `name`, in lower case, means this server in `x-mcp-{server}-{header}`.
    pub fn is_called(&self, name: &str) -> bool {
        self.names_in_headers.iter().any(|called| called == name)
    }

    /// A bearer token in the header where this server wants it. `value` has the scheme.
    pub fn bearer(&self, value: &HeaderValue) -> OutboundCredential {
        OutboundCredential {
            name: self.token_header.clone(),
            value: value.clone(),
        }
    }

    /// Counts a call, unless there are `limit` under way: a server that never answers must not take every
    /// client connection.
    pub fn begin_call(&self, limit: usize) -> Result<UnderWay<&Self>, Refusal> {
        let call = UnderWay::begin(self);
        if self.calls.load(Ordering::Relaxed) > limit {
            let message = format!("The MCP server {} has {limit} calls under way.", self.name);
            return Err(Refusal::because(ErrorCode::TooManyCalls, message));
        }
        Ok(call)
    }

    fn new(
        index: ServerIndex,
        settings: ServerSettings,
        names_in_headers: Vec<String>,
        makers: &Makers,
        bridges: &Bridges,
        metrics: &Metrics,
    ) -> Result<Self, UnusableServer> {
        let counters = metrics.server(counted_as(&settings));
        let credential = CredentialSource::new(&settings, &makers.tokens, &makers.exchanges);
        let unusable = || UnusableServer::Url(settings.name.clone());
        let endpoint = Endpoint::new(settings.endpoint).ok_or_else(unusable)?;
        let bridge = bridges
            .add(&settings.name, &endpoint, settings.first_byte_timeout)
            .map_err(UnusableServer::Bridges)?;
        let mut base_headers = HeaderMap::new();
        if let Some(address) = endpoint.address() {
            base_headers.insert(header::HOST, address.host.clone());
        }
        base_headers.extend(settings.static_headers);
        // A configured User-Agent, fixed or passed on, takes the place of our own.
        if !base_headers.contains_key(header::USER_AGENT)
            && !settings.extra_headers.contains(&header::USER_AGENT)
        {
            base_headers.insert(
                header::USER_AGENT,
                HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION"))),
            );
        }
        // A server with a credential of its own gets no other one (invariant 1 of ARCHITECTURE.md).
        let credential_headers = settings.auth.headers(&settings.token_header);
        let of_callers = matches!(
            settings.auth,
            Auth::None | Auth::Static { .. } | Auth::Byok { .. }
        );
        let for_program: Vec<HeaderName> = match &endpoint {
            Endpoint::Stdio(program) => program.headers().cloned().collect(),
            Endpoint::Http(_) | Endpoint::Sse(_) => Vec::new(),
        };
        let extra_headers = settings
            .extra_headers
            .into_iter()
            .chain(for_program)
            .filter(|name| {
                !credential_headers.contains(name) && (of_callers || name != header::AUTHORIZATION)
            })
            .collect();
        let known_as = [Some(&settings.name), settings.alias.as_ref(), Some(&settings.id)];
        let rules = ToolRules::new(
            Names::new(known_as.into_iter().flatten().map(String::as_str)),
            settings.rules.allowed.as_deref(),
            &settings.rules.disallowed,
            &settings.rules.parameters,
        );
        let prefix = naming::prefix(settings.alias.as_deref().unwrap_or(&settings.name)).into_owned();
        Ok(Self {
            index,
            prefix,
            shared: settings.shared,
            bridged: bridge,
            allows_all_keys: settings.allows_all_keys,
            has_derived_id: settings.has_derived_id,
            derived_id: settings.derived_id,
            provenance: settings.provenance,
            shown: settings.shown,
            warnings: settings.warnings,
            ending: Ending::default(),
            fingerprint: settings.fingerprint,
            metrics: counters,
            health: Health::default(),
            store_id: ServerId::new(settings.id.clone()).map_err(|_| unusable())?,
            id: settings.id,
            name: settings.name,
            alias: settings.alias,
            endpoint,
            auth_type: settings.auth.auth_type(),
            credential,
            credential_headers,
            token_header: settings.token_header,
            base_headers,
            extra_headers,
            first_byte_timeout: settings.first_byte_timeout,
            is_public: settings.is_public,
            rules: rules.map(Arc::new),
            info: settings.info,
            names_in_headers,
            calls: AtomicUsize::new(0),
        })
    }
}

/// The name in the metrics: servers that are only tried come and go, and counters stay.
fn counted_as(settings: &ServerSettings) -> &str {
    if settings.provenance.is_trial() {
        "trial"
    } else {
        &settings.name
    }
}

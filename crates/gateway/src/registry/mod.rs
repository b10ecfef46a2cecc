//! The MCP servers we know, as one immutable snapshot: what a request needs of a server is made here once.

use crate::config::{Auth, ServerSettings, SignIn};
use crate::credentials::CredentialSource;
use crate::credentials::machine::MachineTokens;
use crate::issuer::paths::Named;
use crate::telemetry::metrics::{Metrics, ServerMetrics};
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thiserror::Error;
use url::Url;
use vestibule_store::ServerId;

/// A server's place in [`Registry::servers`]; pools are kept by it.
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
    /// The endpoint.
    pub url: Url,
    /// The endpoint's path and query, as sent.
    pub target: Uri,
    /// Scheme and authority, for a connection.
    pub origin: Uri,
    /// `auth_type` as in the file.
    pub auth_type: &'static str,
    /// Where its credential comes from.
    pub credential: CredentialSource,
    /// The headers that every request has: `Host`, `User-Agent` and `static_headers`.
    pub base_headers: HeaderMap,
    /// Request headers that are passed on beside MCP's own.
    pub extra_headers: Vec<HeaderName>,
    /// Until the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// `mcp_info` of the REST facade.
    pub info: serde_json::Map<String, serde_json::Value>,
    /// Its counters.
    pub metrics: ServerMetrics,
    calls: AtomicUsize,
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
#[error("mcp_servers.{0}.url cannot be sent in a request")]
pub struct UnusableUrl(String);

/// All servers.
pub struct Registry {
    servers: Vec<Arc<Server>>,
    names: HashMap<String, ServerIndex>,
}

impl Registry {
    /// Makes the snapshot.
    pub fn new(
        settings: Vec<ServerSettings>,
        tokens: &MachineTokens,
        metrics: &Metrics,
    ) -> Result<Self, UnusableUrl> {
        let mut servers = Vec::new();
        let mut names = HashMap::new();
        for (index, settings) in settings.into_iter().enumerate() {
            let server = Server::new(ServerIndex(index), settings, tokens, metrics)?;
            names.insert(server.name.clone(), server.index);
            if let Some(alias) = &server.alias {
                names.insert(alias.clone(), server.index);
            }
            servers.push(Arc::new(server));
        }
        Ok(Self { servers, names })
    }

    /// The server with this name or alias.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Server>> {
        self.names.get(name).map(|index| &self.servers[index.0])
    }

    /// The server with this id, name or alias.
    pub fn by_id_or_name(&self, text: &str) -> Option<&Arc<Server>> {
        self.servers
            .iter()
            .find(|server| server.id == text)
            .or_else(|| self.by_name(text))
    }

    /// The server with this name, alias or id, if people sign in to it; or the only one to which they do.
    pub fn signed_in_at(&self, named: Named<'_>) -> Option<(&Arc<Server>, &Arc<SignIn>)> {
        let server = match named {
            Named::Name(name) => self.by_name(name)?,
            Named::Id(id) => self.by_id_or_name(id)?,
            Named::TheOnlyOne => {
                let mut all = self.servers.iter().filter(|server| server.sign_in().is_some());
                let first = all.next()?;
                if all.next().is_some() {
                    return None;
                }
                first
            }
        };
        Some((server, server.sign_in()?))
    }

    /// In the order of the file.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }
}

impl Server {
    /// How people sign in, if they do.
    pub fn sign_in(&self) -> Option<&Arc<SignIn>> {
        match &self.credential {
            CredentialSource::Person(sign_in) => Some(sign_in),
            _ => None,
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
        tokens: &MachineTokens,
        metrics: &Metrics,
    ) -> Result<Self, UnusableUrl> {
        let credential = CredentialSource::new(&settings, tokens);
        let unusable = || UnusableUrl(settings.name.clone());
        let target = &settings.url[url::Position::BeforePath..url::Position::AfterQuery];
        let target: Uri = target.parse().map_err(|_| unusable())?;
        let origin = settings.url[..url::Position::BeforePath]
            .parse()
            .map_err(|_| unusable())?;
        let authority = &settings.url[url::Position::BeforeHost..url::Position::AfterPort];
        let host = HeaderValue::from_str(authority).map_err(|_| unusable())?;
        let mut base_headers = HeaderMap::new();
        base_headers.insert(header::HOST, host);
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
        let taken = credential.header().cloned();
        let machine = matches!(settings.auth, Auth::ClientCredentials { .. });
        let extra_headers = settings
            .extra_headers
            .into_iter()
            .filter(|name| Some(name) != taken.as_ref() && !(machine && name == header::AUTHORIZATION))
            .collect();
        Ok(Self {
            index,
            metrics: metrics.server(&settings.name),
            store_id: ServerId::new(settings.id.clone()).map_err(|_| unusable())?,
            id: settings.id,
            name: settings.name,
            alias: settings.alias,
            url: settings.url,
            target,
            origin,
            auth_type: settings.auth.auth_type(),
            credential,
            base_headers,
            extra_headers,
            first_byte_timeout: settings.first_byte_timeout,
            info: settings.info,
            calls: AtomicUsize::new(0),
        })
    }
}

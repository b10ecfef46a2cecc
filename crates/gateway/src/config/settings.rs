//! What the program uses: the configuration after every check, in the program's own types. Nothing here
//! can be half-filled; secrets do not print.

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::redirect_uri::RedirectRules;
use vestibule_oauth::token_request::ClientCredentialsRequest;
use vestibule_oauth::token_validation::TokenRules;

/// A whole, checked configuration.
#[derive(Debug)]
pub struct Settings {
    /// The one gateway key; without it the gateway is open and binds loopback only.
    pub master_key: Option<SecretString>,
    /// The servers in the order of the file.
    pub servers: Vec<ServerSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Hosts and origins that may call, beside loopback.
    pub access: BrowserAccess,
    /// The public origin.
    pub origin: OriginSettings,
    /// Which redirect URIs are accepted.
    pub redirects: RedirectRules,
    /// Whether the master key is one person's, whose tokens are kept.
    pub keep_tokens_for_master_key: bool,
    /// `general_settings.database_url`.
    pub database_url: Option<SecretString>,
}

impl Settings {
    /// Whether people sign in to a server, so that something has to last.
    pub fn has_sign_in(&self) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|server| matches!(server.auth, Auth::AuthorizationCode(_)))
    }
}

/// Who a browser may be calling for (MCP transports, "Security Warning": DNS rebinding).
#[derive(Debug, Default, Clone)]
pub struct BrowserAccess {
    /// `Host` names, lower case, without port.
    pub hosts: Vec<String>,
    /// Serialized origins.
    pub origins: Vec<String>,
}

/// One MCP server.
#[derive(Debug)]
pub struct ServerSettings {
    /// Stable id; sealed session ids are bound to it.
    pub id: String,
    /// The key in `mcp_servers`.
    pub name: String,
    /// Second name.
    pub alias: Option<String>,
    /// The endpoint.
    pub url: Url,
    /// What is shown to it.
    pub auth: Auth,
    /// Headers on every request; they win over `extra_headers`.
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// Request headers that are passed on.
    pub extra_headers: Vec<HeaderName>,
    /// Until the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// `mcp_info` of the REST facade.
    pub info: serde_json::Map<String, serde_json::Value>,
}

/// What the gateway shows a server.
#[derive(Debug)]
pub enum Auth {
    /// Nothing.
    None,
    /// One header with a fixed value, marked sensitive.
    Static {
        /// `auth_type` as written.
        auth_type: &'static str,
        /// The header.
        name: HeaderName,
        /// Its value.
        value: HeaderValue,
    },
    /// A token of the client credentials grant.
    ClientCredentials {
        /// The token endpoint.
        token_url: Url,
        /// The request to it.
        request: ClientCredentialsRequest,
    },
    /// A person's token of the authorization code grant.
    AuthorizationCode(Arc<SignIn>),
}

/// How people sign in at a server's authorization server (RFC 6749 section 4.1).
#[derive(Debug)]
pub struct SignIn {
    /// The one client that all MCP clients share there; without it each kind of client is registered.
    pub client: Option<Client>,
    /// Whose metadata counts; compared as text.
    pub issuer: Option<String>,
    /// The authorization endpoint; discovered when absent, as the two that follow.
    pub authorization_url: Option<Url>,
    /// The token endpoint.
    pub token_url: Option<Url>,
    /// The registration endpoint.
    pub registration_url: Option<Url>,
    /// What is asked for a client that names no scope.
    pub scopes: Vec<String>,
    /// `resource` (RFC 8707).
    pub resource: SendResource,
    /// Whether a client must bring an S256 challenge.
    pub require_pkce: bool,
    /// Whether a person is asked before the shared client is used for somebody.
    pub consent: Consent,
    /// What a token response must say.
    pub token_rules: TokenRules,
    /// How long stored tokens are kept, instead of as long as their own life.
    pub storage_ttl: Option<Duration>,
}

/// When `resource` is sent to the authorization server, with the configured value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResource {
    /// The configured value, or the one that the server's own metadata gives; not to providers known to refuse it.
    Auto(Option<String>),
    /// The configured value, or the server's own, or its url.
    Always(Option<String>),
    /// Never.
    Never,
}

/// Whether the gateway asks a person before a client is let in through the shared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Once for each client, and remembered.
    Ask,
    /// The operator vouches for the clients.
    Never,
}

/// Where the public origin comes from.
#[derive(Debug, Default, Clone)]
pub struct OriginSettings {
    /// `PROXY_BASE_URL`, valid.
    pub base: Option<vestibule_oauth::origin::Origin>,
    /// Peers whose forwarded headers count; empty when none do.
    pub trusted_peers: Vec<IpNet>,
}

impl Auth {
    /// `auth_type` as in the file.
    pub fn auth_type(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static { auth_type, .. } => auth_type,
            Self::ClientCredentials { .. } | Self::AuthorizationCode(_) => "oauth2",
        }
    }
}

/// Bounds on what clients and servers may take. `docs/reference/config.md` gives each its meaning.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of `vestibule.limits`, documented there")]
pub struct Limits {
    pub max_connections: usize,
    pub max_calls_per_server: usize,
    pub max_header_bytes: usize,
    pub max_body_bytes: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub stream_idle_timeout: Duration,
    pub listing_timeout: Duration,
    pub token_timeout: Duration,
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_calls_per_server: 2048,
            max_header_bytes: 32 * 1024,
            max_body_bytes: 4 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(90),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(120),
            stream_idle_timeout: Duration::from_secs(600),
            listing_timeout: Duration::from_secs(10),
            token_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

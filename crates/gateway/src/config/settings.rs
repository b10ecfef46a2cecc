//! What the program uses: the configuration after every check, in the program's own types. Nothing here
//! can be half-filled; secrets do not print.

use super::document::Shown;
use super::problem::Problem;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use vestibule_oauth::client_assertion::AssertionKey;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::jwt::ClaimRules;
use vestibule_oauth::redirect_uri::RedirectRules;
use vestibule_oauth::token_request::ClientCredentialsRequest;
use vestibule_oauth::token_validation::TokenRules;
use vestibule_store::Version;

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
    /// Whose word about a client's address counts.
    pub proxies: ProxySettings,
    /// The networks whose clients count as internal.
    pub internal: Vec<IpNet>,
    /// Which redirect URIs are accepted.
    pub redirects: RedirectRules,
    /// Whether the master key is one person's, whose tokens are kept.
    pub keep_tokens_for_master_key: bool,
    /// Whether a request that names no server is refused.
    pub require_explicit_scope: bool,
    /// What the management offers.
    pub management: Management,
    /// `general_settings.database_url`.
    pub database_url: Option<SecretString>,
    /// Headers whose names the operator chooses.
    pub caller_headers: CallerHeaders,
    /// What is recorded.
    pub audit: AuditSettings,
}

/// What is recorded of calls, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// Every call, and not only those that failed.
    pub calls: bool,
    /// The arguments of tools.
    pub arguments: bool,
    /// Days; zero is for ever.
    pub retention_days: u64,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            calls: true,
            arguments: false,
            retention_days: 30,
        }
    }
}

/// What the management offers.
#[derive(Debug, Clone, Copy)]
pub struct Management {
    /// Whether servers of the store are served, and may be changed.
    pub stored_servers: bool,
    /// Whether everybody may read which servers there are.
    pub registry_is_public: bool,
}

/// The request headers whose names the operator chooses.
#[derive(Debug, Clone)]
pub struct CallerHeaders {
    /// A credential for the one server of the request, sent as its `auth_type` says: `x-mcp-auth`.
    pub credential: HeaderName,
    /// A header for the gateway key, which counts before all others.
    pub key: Option<HeaderName>,
}

impl Default for CallerHeaders {
    fn default() -> Self {
        Self {
            credential: HeaderName::from_static("x-mcp-auth"),
            key: None,
        }
    }
}

impl Settings {
    /// Whether people sign in to a server through the gateway, or bring keys, so that something has to last.
    pub fn has_sign_in(&self) -> bool {
        let through_us = |auth: &Auth| match auth {
            Auth::AuthorizationCode(_) | Auth::Byok { .. } => true,
            Auth::Passthrough { bridge, .. } => bridge.is_some(),
            _ => false,
        };
        self.servers.iter().any(|server| through_us(&server.auth))
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
    /// Whether the id is made from the entry, for want of a `server_id`, and is another one when the URL is.
    pub has_derived_id: bool,
    /// The id that a server of the file has without a `server_id`, whether it has one or not.
    pub derived_id: Option<String>,
    /// The key in `mcp_servers`.
    pub name: String,
    /// Second name.
    pub alias: Option<String>,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// What is shown to it.
    pub auth: Auth,
    /// Headers on every request; they win over `extra_headers`.
    pub static_headers: Vec<(HeaderName, HeaderValue)>,
    /// Request headers that are passed on.
    pub extra_headers: Vec<HeaderName>,
    /// The header that carries a bearer token.
    pub token_header: HeaderName,
    /// Until the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Whether clients outside the internal networks may use it.
    pub is_public: bool,
    /// Which tools may be used.
    pub rules: RuleSettings,
    /// `mcp_info` of the REST facade.
    pub info: serde_json::Map<String, serde_json::Value>,
    /// What it has for endpoints with several servers.
    pub shared: SharedSettings,
    /// Whether every gateway key may use it.
    pub allows_all_keys: bool,
    /// Where it is configured.
    pub provenance: Provenance,
    /// Its fields as they may be shown.
    pub shown: Arc<Shown>,
    /// What is worth a look about it.
    pub warnings: Vec<Problem>,
    /// A digest of all that it depends on; equal ones are the same server.
    pub fingerprint: [u8; 32],
}

/// Where a server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// In the file, which nobody changes from here.
    File,
    /// In the store.
    Store {
        /// Which writing of it this is.
        version: Version,
        /// When it was added, in seconds since 1970.
        created_at: u64,
        /// When it was last written.
        updated_at: u64,
        /// When it ends, where it is only tried.
        expires_at: Option<u64>,
    },
}

impl Provenance {
    /// Whether the server is only tried: it is there by its id alone, for whoever manages the gateway.
    pub fn is_trial(self) -> bool {
        matches!(
            self,
            Self::Store {
                expires_at: Some(_),
                ..
            }
        )
    }
}

/// How one server stands behind endpoints with several.
#[derive(Debug)]
pub struct SharedSettings {
    /// The groups that it belongs to.
    pub groups: Vec<String>,
    /// What is said about it instead of its own `instructions`.
    pub instructions: Option<String>,
    /// Whether it learns that the client takes sampling requests.
    pub sampling: bool,
    /// Whether it learns that the client takes elicitation requests.
    pub elicitation: bool,
}

/// Tool rules as they are written; names are compared by [`crate::policy::tools`].
#[derive(Debug, Default)]
pub struct RuleSettings {
    /// The only tools; never empty.
    pub allowed: Option<Vec<String>>,
    /// All tools but these, where `allowed` is `None`.
    pub disallowed: Vec<String>,
    /// The only arguments of a tool.
    pub parameters: Vec<(String, Vec<String>)>,
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// Streamable HTTP at this URL.
    Http(Url),
    /// HTTP+SSE of revision 2024-11-05; the URL is that of its event stream.
    Sse(Url),
    /// A program of ours, over its standard input and output.
    Stdio(Arc<Program>),
}

/// A program that is an MCP server.
#[derive(Debug)]
pub struct Program {
    /// Its name, or an absolute path.
    pub command: String,
    /// Its arguments; they may hold secrets.
    pub args: Vec<SecretString>,
    /// The configured environment.
    pub env: Vec<(String, EnvValue)>,
    /// What it gets of the gateway's own environment.
    pub inherited: Vec<(String, String)>,
    /// `NPM_CONFIG_CACHE`; a directory of this process when absent.
    pub npm_cache: Option<PathBuf>,
    /// Where directories of this process are made.
    pub temporary: PathBuf,
    /// Which programs may run.
    pub rules: ProgramRules,
}

/// A value in the environment of a program: texts, each followed by the value of a header of the opening request.
#[derive(Debug)]
pub struct EnvValue(pub Vec<(SecretString, Option<HeaderName>)>);

/// Which programs may run beside [`super::transport::COMMANDS`].
#[derive(Debug, Clone, Default)]
pub struct ProgramRules {
    /// Names and whole paths that the operator lists.
    pub listed: Vec<String>,
}

impl Program {
    /// The headers of the opening request that fill the environment.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        let parts = self.env.iter().flat_map(|(_, value)| &value.0);
        parts.filter_map(|(_, header)| header.as_ref())
    }
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
    /// A key of each person's own, which they bring once, sent as a static type sends it.
    Byok {
        /// `auth_type` as written.
        auth_type: &'static str,
        /// The header.
        name: HeaderName,
        /// What people are told about it.
        page: Arc<ByokPage>,
    },
    /// A token of the client credentials grant.
    ClientCredentials {
        /// The token endpoint.
        token_url: Url,
        /// The request to it.
        request: MachineRequest,
    },
    /// A person's token of the authorization code grant.
    AuthorizationCode(Arc<SignIn>),
    /// The caller's own `Authorization`, as it came.
    Passthrough {
        /// Under which setting.
        mode: Passthrough,
        /// How the gateway gets the tokens for its clients, where it stands between them and the provider
        /// (`dcr_bridge`); what they show then is sealed.
        bridge: Option<Arc<SignIn>>,
    },
    /// A signature over each request (AWS Signature Version 4).
    AwsSigV4(AwsSettings),
    /// A token that the caller's own is exchanged for.
    Exchange(Arc<Exchange>),
}

/// What people are told where they are asked for their key.
#[derive(Debug)]
pub struct ByokPage {
    /// What it is used for.
    pub description: Vec<String>,
    /// Where one is to be had.
    pub help: Option<Url>,
}

/// A request for a machine token: who asks, and for what.
#[derive(Debug, Clone)]
pub struct MachineRequest {
    /// Who the gateway is at the token endpoint.
    pub client: ExchangeClient,
    /// What it asks for.
    pub grant: ClientCredentialsRequest,
}

/// How a caller's token becomes one for a server.
#[derive(Debug)]
pub struct Exchange {
    /// `auth_type` as written.
    pub auth_type: &'static str,
    /// In which dialect.
    pub profile: ExchangeProfile,
    /// Where the caller's token goes.
    pub endpoint: TokenEndpoint,
    /// Who the gateway is there.
    pub client: ExchangeClient,
    /// `subject_token_type` (RFC 8693 section 3).
    pub subject_token_type: String,
    /// What a caller's token must be; without it the authorization server alone judges.
    pub subject: Option<SubjectSettings>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// `audience` (RFC 8693 section 2.1).
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resource: Option<String>,
    /// The client credentials grant for callers that bring no token.
    pub fallback: Option<(Url, MachineRequest)>,
}

/// A dialect of exchange.
#[derive(Debug)]
pub enum ExchangeProfile {
    /// RFC 8693.
    Rfc8693 {
        /// `actor_token` with its type.
        actor: Option<(SecretString, String)>,
    },
    /// Entra's on-behalf-of flow.
    EntraObo,
    /// The identity assertion grant: RFC 8693 at the identity provider, RFC 7523 at the server's authorization server.
    IdJag {
        /// The token endpoint of the latter.
        endpoint: Url,
        /// Who the gateway is there.
        client: ExchangeClient,
    },
}

/// Where a caller's token is exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenEndpoint {
    /// As written.
    Configured(Url),
    /// As this issuer's metadata names it.
    OfIssuer(String),
}

/// What a caller's token must be.
#[derive(Debug)]
pub struct SubjectSettings {
    /// Its claims.
    pub rules: ClaimRules,
    /// Where its keys are, instead of where the issuer's metadata says.
    pub jwks_url: Option<Url>,
}

/// Who the gateway is at a token endpoint.
#[derive(Debug, Clone)]
pub enum ExchangeClient {
    /// A client with a secret.
    Shared(Client),
    /// A client with a key (RFC 7523 section 2.2).
    Key(ClientKey),
}

/// A client that signs.
#[derive(Debug, Clone)]
pub struct ClientKey {
    /// `client_id`.
    pub id: String,
    /// What it signs with.
    pub key: Arc<AssertionKey>,
    /// Whom an assertion is for.
    pub audience: AssertionAudience,
}

/// `aud` of a client assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer.
    Issuer(String),
    /// The token endpoint that it is sent to.
    TokenEndpoint,
}

/// The settings under which a server is shown the caller's own `Authorization`. They differ in whether a caller needs
/// a gateway key too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passthrough {
    /// `delegate_auth_to_upstream: true` with `auth_type: oauth2`: no key.
    Delegated,
    /// `auth_type: true_passthrough`: no key.
    TruePassthrough,
    /// `auth_type: oauth_delegate`: the key in `x-litellm-api-key`, and a token always.
    OAuthDelegate,
    /// `oauth_passthrough: true` with `auth_type: none`: a key.
    Flagged,
}

impl Passthrough {
    /// Whether a caller has to have a gateway key.
    pub fn asks_for_key(self) -> bool {
        match self {
            Self::Delegated | Self::TruePassthrough => false,
            Self::OAuthDelegate | Self::Flagged => true,
        }
    }

    /// Whether nothing goes to the server without a token, which leaves only `x-litellm-api-key` for the key.
    pub fn always_has_token(self) -> bool {
        self == Self::OAuthDelegate
    }
}

/// Who signs, and for what.
#[derive(Debug)]
pub struct AwsSettings {
    /// The access key's id, which every request shows.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: SecretString,
    /// What comes with a temporary access key.
    pub session_token: Option<SecretString>,
    /// `us-east-1` and the like.
    pub region: String,
    /// `bedrock-agentcore` and the like.
    pub service: String,
    /// The role that signs instead, where the access key only assumes it.
    pub role: Option<RoleSettings>,
}

/// A role that AWS STS gives out an access key of (`AssumeRole`).
#[derive(Debug, Clone)]
pub struct RoleSettings {
    /// `RoleArn`.
    pub arn: String,
    /// `RoleSessionName`; made of the time when absent.
    pub session_name: Option<String>,
    /// Where STS is.
    pub endpoint: Url,
}

/// Headers that AWS Signature Version 4 sets.
const SIGNATURE_HEADERS: [&str; 4] = [
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// How people sign in at a server's authorization server (RFC 6749 section 4.1).
#[derive(Debug)]
pub struct SignIn {
    /// The MCP server's endpoint, which the search for its authorization server starts from.
    pub server_url: Url,
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

/// The proxies in front of the gateway.
#[derive(Debug, Default, Clone)]
pub struct ProxySettings {
    /// Their addresses; empty when nobody's word counts.
    pub trusted: Vec<IpNet>,
    /// How many there are between client and gateway, where that is certain.
    pub hops: Option<NonZeroUsize>,
}

impl ProxySettings {
    /// Whether this is one of them. An IPv4 address is the same one written as IPv6.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|range| range.contains(&address))
    }
}

impl Auth {
    /// `auth_type` as in the file.
    pub fn auth_type(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static { auth_type, .. } | Self::Byok { auth_type, .. } => auth_type,
            Self::ClientCredentials { .. } | Self::AuthorizationCode(_) => "oauth2",
            Self::Passthrough { mode, .. } => match mode {
                Passthrough::Delegated => "oauth2",
                Passthrough::TruePassthrough => "true_passthrough",
                Passthrough::OAuthDelegate => "oauth_delegate",
                Passthrough::Flagged => "none",
            },
            Self::AwsSigV4(_) => "aws_sigv4",
            Self::Exchange(exchange) => exchange.auth_type,
        }
    }

    /// The headers that carry the gateway's own credential, where bearer tokens go into `token_header`. No configured
    /// or forwarded header takes their place.
    pub fn headers(&self, token_header: &HeaderName) -> Vec<HeaderName> {
        match self {
            Self::None => Vec::new(),
            Self::Static { name, .. } | Self::Byok { name, .. } => vec![name.clone()],
            Self::ClientCredentials { .. }
            | Self::AuthorizationCode(_)
            | Self::Passthrough { .. }
            | Self::Exchange(_) => vec![token_header.clone()],
            Self::AwsSigV4(_) => SIGNATURE_HEADERS.map(HeaderName::from_static).to_vec(),
        }
    }

    /// Whether the header is one that the signature is made of.
    pub fn signs(&self, name: &HeaderName) -> bool {
        matches!(self, Self::AwsSigV4(_)) && SIGNATURE_HEADERS.contains(&name.as_str())
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
    pub open_timeout: Duration,
    pub token_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_bridge_sessions: usize,
    pub max_stdio_processes: usize,
}

impl Limits {
    /// The limits that parts of the gateway are made with once, and that differ in `other`.
    pub fn lasting_differences(&self, other: &Self) -> Vec<&'static str> {
        let compared = [
            ("token_timeout", self.token_timeout == other.token_timeout),
            (
                "max_bridge_sessions",
                self.max_bridge_sessions == other.max_bridge_sessions,
            ),
            (
                "max_stdio_processes",
                self.max_stdio_processes == other.max_stdio_processes,
            ),
        ];
        let differ = compared.into_iter().filter(|(_, same)| !same);
        differ.map(|(name, _)| name).collect()
    }
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
            open_timeout: Duration::from_secs(2),
            token_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            max_bridge_sessions: 1024,
            max_stdio_processes: 32,
        }
    }
}

//! What the walk depends on: how the gateway gets what the server is shown, how the server is reached, and which steps
//! follow from the two.

use crate::config::{
    Auth, Endpoint, Exchange, ExchangeProfile, MachineRequest, Passthrough, ServerSettings, SignIn,
};
use std::sync::Arc;
use url::Url;

/// How the gateway gets what the server is shown.
pub(super) enum Mode {
    /// Nothing is shown.
    Open,
    /// The configured value.
    Fixed,
    /// A key that each person brings.
    Own,
    /// A machine token.
    Machine { token_url: Url, request: MachineRequest },
    /// A person's token, for which people sign in through the gateway: kept, or sealed (`dcr_bridge`).
    Person(Arc<SignIn>),
    /// The caller's own token, which clients get without the gateway.
    Brought(Passthrough),
    /// A signature.
    Signed(Signature),
    /// A token that the caller's own is exchanged for.
    Exchanged(Arc<Exchange>),
}

/// What requests are signed for.
pub(super) struct Signature {
    pub(super) region: String,
    pub(super) service: String,
    /// The access key is temporary (its id begins with `ASIA`), and what comes with such a key is not there.
    pub(super) half: bool,
}

/// How the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE.
    Sse,
    /// A program of the gateway's own.
    Program,
}

/// A step of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Configuration,
    Program,
    Dns,
    Connect,
    Tls,
    Endpoint,
    EventStream,
    Challenge,
    ResourceMetadata,
    AuthorizationServer,
    Endpoints,
    Grants,
    Pkce,
    IssuerParameter,
    Scopes,
    ClientAuthentication,
    Registration,
    SubjectIssuer,
    SubjectToken,
    TokenEndpoint,
    ResourceTokenEndpoint,
    Token,
    Initialize,
    Tools,
}

impl Mode {
    pub(super) fn of(server: &ServerSettings) -> Self {
        match &server.auth {
            Auth::None => Self::Open,
            Auth::Static { .. } => Self::Fixed,
            Auth::Byok { .. } => Self::Own,
            Auth::ClientCredentials { token_url, request } => Self::Machine {
                token_url: token_url.clone(),
                request: request.clone(),
            },
            Auth::AuthorizationCode(sign_in)
            | Auth::Passthrough {
                bridge: Some(sign_in),
                ..
            } => Self::Person(Arc::clone(sign_in)),
            Auth::Passthrough { mode, bridge: None } => Self::Brought(*mode),
            Auth::AwsSigV4(settings) => Self::Signed(Signature {
                region: settings.region.clone(),
                service: settings.service.clone(),
                half: settings.access_key_id.starts_with("ASIA") && settings.session_token.is_none(),
            }),
            Auth::Exchange(exchange) => Self::Exchanged(Arc::clone(exchange)),
        }
    }

    /// `auth_type` with what tells apart servers of the same one.
    pub(super) fn name(&self, server: &ServerSettings) -> String {
        let more = match (&server.auth, self) {
            (Auth::Passthrough { bridge: Some(_), .. }, _) => ", dcr_bridge",
            (_, Self::Own) => ", is_byok",
            (_, Self::Machine { .. }) => ", client_credentials",
            (_, Self::Person(_)) => ", authorization_code",
            (_, Self::Brought(Passthrough::Delegated)) => ", delegate_auth_to_upstream",
            (_, Self::Brought(Passthrough::Flagged)) => ", oauth_passthrough",
            (_, Self::Exchanged(exchange)) if matches!(exchange.profile, ExchangeProfile::EntraObo) => {
                ", entra_obo"
            }
            _ => "",
        };
        let way = match Way::of(&server.endpoint) {
            Way::Http => "",
            Way::Sse => ", transport sse",
            Way::Program => ", transport stdio",
        };
        format!("{}{more}{way}", server.auth.auth_type())
    }

    /// Its steps, in their order.
    pub(super) fn stages(&self, way: Way) -> Vec<Stage> {
        use Stage::{
            AuthorizationServer, Challenge, ClientAuthentication, Configuration, Connect, Dns, Endpoint,
            Endpoints, EventStream, Grants, Initialize, IssuerParameter, Pkce, Program, Registration,
            ResourceMetadata, ResourceTokenEndpoint, Scopes, SubjectIssuer, SubjectToken, Tls, Token,
            TokenEndpoint, Tools,
        };
        let road: &[Stage] = match way {
            Way::Http => &[Dns, Connect, Tls, Endpoint, Challenge, ResourceMetadata],
            Way::Sse => &[Dns, Connect, Tls, EventStream, Challenge, ResourceMetadata],
            Way::Program => &[Program],
        };
        let credential: &[Stage] = match self {
            Self::Open | Self::Fixed | Self::Own | Self::Signed(_) => &[],
            Self::Machine { .. } => &[AuthorizationServer, Grants, Scopes, ClientAuthentication, Token],
            Self::Person(_) => &[
                AuthorizationServer,
                Endpoints,
                Grants,
                Pkce,
                IssuerParameter,
                Scopes,
                ClientAuthentication,
                Registration,
                Token,
            ],
            Self::Brought(_) => &[
                AuthorizationServer,
                Endpoints,
                Grants,
                Pkce,
                IssuerParameter,
                Registration,
            ],
            Self::Exchanged(_) => &[
                SubjectIssuer,
                TokenEndpoint,
                ResourceTokenEndpoint,
                SubjectToken,
                Token,
            ],
        };
        [&[Configuration], road, credential, &[Initialize, Tools]].concat()
    }
}

impl Way {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Http(_) => Self::Http,
            Endpoint::Sse(_) => Self::Sse,
            Endpoint::Stdio(_) => Self::Program,
        }
    }
}

impl Stage {
    /// Stable; part of the JSON document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Program => "program",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Endpoint => "endpoint",
            Self::EventStream => "event_stream",
            Self::Challenge => "challenge",
            Self::ResourceMetadata => "resource_metadata",
            Self::AuthorizationServer => "authorization_server",
            Self::Endpoints => "endpoints",
            Self::Grants => "grants",
            Self::Pkce => "pkce",
            Self::IssuerParameter => "issuer_parameter",
            Self::Scopes => "scopes",
            Self::ClientAuthentication => "client_authentication",
            Self::Registration => "registration",
            Self::SubjectIssuer => "subject_issuer",
            Self::SubjectToken => "subject_token",
            Self::TokenEndpoint => "token_endpoint",
            Self::ResourceTokenEndpoint => "resource_token_endpoint",
            Self::Token => "token",
            Self::Initialize => "initialize",
            Self::Tools => "tools",
        }
    }
}

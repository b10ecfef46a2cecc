//! A small authorization server and an MCP server that accepts only its tokens, on one port.
//! `vestibule demo` and `vestibule mock` run it, so that a configuration can be tried without an account anywhere.
//! It is no production server: tokens live in memory, and everything is served over plain HTTP.

mod mcp;
mod oauth;
mod tools;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use url::Url;

/// The client id the mock knows when no other is set.
pub const DEFAULT_CLIENT_ID: &str = "test-client";
/// The client secret the mock knows when no other is set.
pub const DEFAULT_CLIENT_SECRET: &str = "test-secret";

const MCP_PATH: &str = "/mcp";
const TOKEN_PATH: &str = "/oauth/token";
const RESOURCE_METADATA_PATH: &str = "/.well-known/oauth-protected-resource/mcp";

/// Something that happened in the mock. Carries no secret; `scope`, `method` and `tool` are the caller's words, so
/// escape them before printing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The token endpoint handed out a token.
    TokenIssued {
        /// Who asked.
        client_id: String,
        /// The scope asked for, granted as it came.
        scope: Option<String>,
    },
    /// The token endpoint refused.
    TokenRefused {
        /// The error code of RFC 6749 section 5.2.
        error: &'static str,
    },
    /// The MCP endpoint was called with a good token.
    McpRequest {
        /// The JSON-RPC method.
        method: String,
        /// The tool's name, for `tools/call`.
        tool: Option<String>,
    },
    /// The MCP endpoint was called without a good token.
    McpRefused,
}

/// Receives every [`Event`] on the task that serves the request: it must not block.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// The two servers, before they are started.
#[derive(Clone)]
pub struct Mock {
    client_id: String,
    client_secret: String,
    token_lifetime: Duration,
    observer: Option<Observer>,
}

impl Default for Mock {
    fn default() -> Self {
        Self {
            client_id: DEFAULT_CLIENT_ID.to_owned(),
            client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
            token_lifetime: Duration::from_hours(1),
            observer: None,
        }
    }
}

impl Mock {
    /// Knows the client `test-client` / `test-secret`; tokens live an hour.
    pub fn new() -> Self {
        Self::default()
    }

    /// The one client that may ask for tokens.
    #[must_use]
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client_id = id.into();
        self.client_secret = secret.into();
        self
    }

    /// How long a token is accepted, and what `expires_in` says. Zero makes tokens that are refused at once.
    #[must_use]
    pub fn token_lifetime(mut self, seconds: u32) -> Self {
        self.token_lifetime = Duration::from_secs(seconds.into());
        self
    }

    /// Who is told what happens.
    #[must_use]
    pub fn observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Serves until `stop` resolves and the requests in flight are answered.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            tokens: oauth::Tokens::default(),
            mock: self,
        });
        let routes = Router::new()
            .route(TOKEN_PATH, post(token))
            .route("/.well-known/oauth-authorization-server", get(server_metadata))
            .route(RESOURCE_METADATA_PATH, get(resource_metadata))
            .route(MCP_PATH, post(call))
            .with_state(shared);
        axum::serve(listener, routes).with_graceful_shutdown(stop).await
    }
}

/// A configuration with one server, `test_oauth2`, that signs in at the mock running at `base_url` with the default
/// client.
pub fn config_yaml(base_url: &str) -> String {
    let base = base_url.trim_end_matches('/');
    format!(
        r#"mcp_servers:
  test_oauth2:
    url: "{base}{MCP_PATH}"
    auth_type: oauth2
    client_id: "{DEFAULT_CLIENT_ID}"
    client_secret: "{DEFAULT_CLIENT_SECRET}"
    token_url: "{base}{TOKEN_PATH}"
"#
    )
}

struct Shared {
    mock: Mock,
    address: SocketAddr,
    tokens: oauth::Tokens,
}

impl Shared {
    fn tell(&self, event: Event) {
        if let Some(observer) = &self.mock.observer {
            observer(event);
        }
    }

    /// The base URL by which the caller knows this server: `localhost` and `127.0.0.1` both work, and the metadata
    /// names the resource as the caller does (RFC 9728 section 3.3).
    fn base(&self, headers: &HeaderMap) -> String {
        let host = only(headers, &header::HOST).and_then(|host| host.parse::<Authority>().ok());
        match host {
            Some(authority) => format!("http://{authority}"),
            None => format!("http://{}", self.address),
        }
    }
}

type Context = State<Arc<Shared>>;

async fn token(State(shared): Context, headers: HeaderMap, body: Bytes) -> Response {
    let no_store = [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    match oauth::grant(&shared.mock, &headers, &body) {
        Ok(grant) => {
            let lifetime = shared.mock.token_lifetime;
            let mut answer = json!({
                "access_token": shared.tokens.issue(Instant::now(), lifetime),
                "token_type": "Bearer",
                "expires_in": lifetime.as_secs(),
            });
            if let Some(scope) = &grant.scope {
                answer["scope"] = json!(scope);
            }
            shared.tell(Event::TokenIssued {
                client_id: shared.mock.client_id.clone(),
                scope: grant.scope,
            });
            (no_store, Json(answer)).into_response()
        }
        Err(refusal) => {
            shared.tell(Event::TokenRefused { error: refusal.error });
            let answer = json!({ "error": refusal.error, "error_description": refusal.description });
            let mut response = (refusal.status(), no_store, Json(answer)).into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                // RFC 6749 section 5.2: a client that used the Authorization header is told the scheme.
                let challenge = HeaderValue::from_static("Basic realm=\"vestibule-mock\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// RFC 8414 section 2. There is no authorization endpoint, so no response type is supported.
async fn server_metadata(State(shared): Context, headers: HeaderMap) -> Response {
    let base = shared.base(&headers);
    Json(json!({
        "issuer": base,
        "token_endpoint": format!("{base}{TOKEN_PATH}"),
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    }))
    .into_response()
}

/// RFC 9728 section 2.
async fn resource_metadata(State(shared): Context, headers: HeaderMap) -> Response {
    let base = shared.base(&headers);
    Json(json!({
        "resource": format!("{base}{MCP_PATH}"),
        "authorization_servers": [base],
        "bearer_methods_supported": ["header"],
    }))
    .into_response()
}

async fn call(State(shared): Context, headers: HeaderMap, body: Bytes) -> Response {
    if !origin_allowed(&headers) {
        return (StatusCode::FORBIDDEN, "This Origin may not call the mock.\n").into_response();
    }
    let token = credentials(&headers, "Bearer");
    if !token.is_some_and(|token| shared.tokens.accepts(token, Instant::now())) {
        shared.tell(Event::McpRefused);
        let presented = headers.contains_key(header::AUTHORIZATION);
        return (
            StatusCode::UNAUTHORIZED,
            [(
                header::WWW_AUTHENTICATE,
                challenge(&shared.base(&headers), presented),
            )],
        )
            .into_response();
    }
    let answer = mcp::answer(&headers, &body, |method, tool| {
        shared.tell(Event::McpRequest {
            method: method.to_owned(),
            tool: tool.map(str::to_owned),
        });
    });
    match answer {
        mcp::Answer::Accepted => StatusCode::ACCEPTED.into_response(),
        mcp::Answer::Message(status, message) => (status, Json(message)).into_response(),
    }
}

/// RFC 9728 section 5.1; the error of RFC 6750 section 3.1 only where a token was presented.
fn challenge(base: &str, token_presented: bool) -> String {
    let error = if token_presented {
        ", error=\"invalid_token\""
    } else {
        ""
    };
    format!("Bearer resource_metadata=\"{base}{RESOURCE_METADATA_PATH}\"{error}")
}

/// Pages of other sites must not reach a server on this machine through its owner's browser (MCP, Streamable HTTP,
/// "Security Warning").
fn origin_allowed(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(origin) = only(headers, &header::ORIGIN).and_then(|origin| Url::parse(origin).ok()) else {
        return false;
    };
    let loopback = matches!(origin.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    loopback || only(headers, &header::HOST) == Some(origin.authority())
}

/// The value of a header that is there exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// What follows `scheme` in the one Authorization header. Schemes are case-insensitive (RFC 9110 section 11.1).
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let (found, rest) = only(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim_matches(' '))
}

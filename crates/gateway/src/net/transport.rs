//! The ways to a server. Whichever it is, a request goes in as Streamable HTTP has it, and an answer as
//! Streamable HTTP has it comes out; nothing above knows which one it was.

use crate::config;
use crate::net::bridge::Bridge;
use crate::net::pool::{Pool, SendFault};
use crate::net::stream::UpstreamBody;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use std::path::Path;
use std::sync::Arc;
use url::{Position, Url};

/// How a server is reached.
pub enum Endpoint {
    /// Streamable HTTP.
    Http(HttpEndpoint),
    /// HTTP+SSE of revision 2024-11-05.
    Sse(HttpEndpoint),
    /// A program of ours.
    Stdio(Arc<config::Program>),
}

/// A URL in the parts that requests are made of.
#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    /// The URL.
    pub url: Url,
    /// Its path and query, as sent.
    pub target: Uri,
    /// Scheme and authority, for a connection.
    pub origin: Uri,
    /// `Host`.
    pub host: HeaderValue,
}

impl Endpoint {
    /// The endpoint in parts. `None` for a URL that no request can carry.
    pub fn new(settings: config::Endpoint) -> Option<Self> {
        Some(match settings {
            config::Endpoint::Http(url) => Self::Http(HttpEndpoint::new(url)?),
            config::Endpoint::Sse(url) => Self::Sse(HttpEndpoint::new(url)?),
            config::Endpoint::Stdio(program) => Self::Stdio(program),
        })
    }

    /// The address, where there is one.
    pub fn address(&self) -> Option<&HttpEndpoint> {
        match self {
            Self::Http(endpoint) | Self::Sse(endpoint) => Some(endpoint),
            Self::Stdio(_) => None,
        }
    }

    /// Who gets what is sent there: the origin of its URL, or the program. Secrets that were meant for one place go to no
    /// other.
    pub fn place(&self) -> String {
        match self {
            Self::Http(endpoint) | Self::Sse(endpoint) => endpoint.url.origin().ascii_serialization(),
            Self::Stdio(program) => format!("stdio:{}", program.command),
        }
    }

    /// For people: a URL without what may be secret (its query, a user name), or `stdio:` and the program's name.
    pub fn shown(&self) -> String {
        match self {
            Self::Http(endpoint) | Self::Sse(endpoint) => shown(&endpoint.url),
            Self::Stdio(program) => {
                let name = Path::new(&program.command).file_name().unwrap_or_default();
                format!("stdio:{}", name.to_string_lossy())
            }
        }
    }
}

impl HttpEndpoint {
    /// `None` for a URL that no request can carry.
    pub fn new(url: Url) -> Option<Self> {
        Some(Self {
            target: url[Position::BeforePath..Position::AfterQuery].parse().ok()?,
            origin: url[..Position::BeforePath].parse().ok()?,
            host: HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()?,
            url,
        })
    }
}

pub(crate) fn shown(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    let query = if url.query().is_some() { "?..." } else { "" };
    format!("{origin}{}{query}", url.path())
}

/// One worker's way to one server.
#[derive(Clone)]
pub enum Transport {
    /// Streamable HTTP over this worker's own connections.
    Http(Arc<Pool>),
    /// Another transport, which all workers share.
    Bridge(Arc<Bridge>),
}

impl Transport {
    /// Sends one request and gives the response's head with its body to come.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<UpstreamBody>, SendFault> {
        match self {
            Self::Http(pool) => pool.send(request).await,
            // Boxed: the future of a call to an HTTP server does not carry the room for it.
            Self::Bridge(bridge) => Box::pin(bridge.send(request)).await.map_err(SendFault::Bridge),
        }
    }

    /// Drops connections that were idle too long.
    pub fn reap(&self) {
        if let Self::Http(pool) = self {
            pool.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        for (url, expected) in [
            (
                "https://user:pass@x.example:8443/a/mcp?key=k#f",
                "https://x.example:8443/a/mcp?...",
            ),
            ("http://127.0.0.1:1/mcp", "http://127.0.0.1:1/mcp"),
        ] {
            assert_eq!(shown(&Url::parse(url).expect("url")), expected);
        }
    }
}

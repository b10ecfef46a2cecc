//! The one client for URLs that are learned while the gateway runs: metadata, registration, token and revocation
//! endpoints that a server or an authorization server named.
//!
//! Addresses are judged after resolution, by the resolver that the connection itself uses, so what is judged is what
//! is dialled. A learned URL leads no further into the network than [`Reach`] says; what the operator configured is
//! exempt, origin by origin. There is one pool of connections for each distance, so that a connection opened for one
//! that may go far is not used by one that may not.

pub use super::address::{Zone, zone};
use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, header};
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error as ThisError;
use url::{Host, Origin, Url};
use vestibule_oauth::EncodedTokenRequest;

/// The largest body that is read.
pub const BODY_LIMIT: usize = 256 * 1024;
/// Redirects within one origin that a GET follows.
const REDIRECT_LIMIT: usize = 3;
/// Idle connections that are kept to one host.
const MAX_IDLE: usize = 8;

/// Which addresses a request may go to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// Public addresses.
    #[default]
    PublicOnly,
    /// Wherever the operator's own URLs lead, and from there on as far as `others` says.
    Configured {
        /// Origins of configured URLs; these are dialled wherever they are.
        origins: Vec<Origin>,
        /// How far any other URL leads: the zone of the peer that named it, [`Fetched::zone`]. So a document
        /// served from the internet cannot name an address within.
        others: Zone,
    },
}

impl Reach {
    /// The reach of what the operator configured: those origins, and public addresses.
    pub fn configured<'u>(urls: impl IntoIterator<Item = &'u Url>) -> Self {
        Self::Configured {
            origins: urls.into_iter().map(Url::origin).collect(),
            others: Zone::Public,
        }
    }

    /// The reach of URLs in a document that came from `zone`.
    #[must_use]
    pub fn named_from(&self, zone: Zone) -> Self {
        let origins = match self {
            Self::PublicOnly => Vec::new(),
            Self::Configured { origins, .. } => origins.clone(),
        };
        Self::Configured {
            origins,
            others: zone,
        }
    }

    /// Whether `url` would leave https although it was named over it, and the operator did not write its origin.
    pub fn downgrades(&self, url: &Url, named_over_https: bool) -> bool {
        let configured = matches!(self, Self::Configured { origins, .. } if origins.contains(&url.origin()));
        named_over_https && url.scheme() != "https" && !configured
    }

    fn bound(&self, url: &Url) -> Bound {
        match self {
            Self::PublicOnly => Bound::Within(Zone::Public),
            Self::Configured { origins, .. } if origins.contains(&url.origin()) => Bound::Anywhere,
            Self::Configured { others, .. } => Bound::Within(*others),
        }
    }
}

/// How far one request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Within(Zone),
    Anywhere,
}

impl Bound {
    const ALL: [Self; 4] = [
        Self::Within(Zone::Public),
        Self::Within(Zone::Private),
        Self::Within(Zone::Loopback),
        Self::Anywhere,
    ];

    fn allows(self, address: SocketAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Within(limit) => zone(address.ip()).is_some_and(|zone| zone <= limit),
        }
    }
}

/// What came back. The body is for reading, not for showing.
#[derive(Clone)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Every `WWW-Authenticate`.
    pub www_authenticate: Vec<String>,
    /// The body; empty where it was not asked for.
    pub body: Bytes,
    /// Where the peer is; the limit for URLs that the body names.
    pub zone: Zone,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("length", &self.body.len())
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

/// Why nothing usable came back. No variant holds a body, a URL or a secret.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum GuardedFault {
    /// Not a URL that this client sends to.
    #[error("the URL is not http or https, or carries a user name or password")]
    BadUrl,
    /// The address is not one that this URL may lead to.
    #[error("the address is not a public one")]
    NotAllowed,
    /// No connection.
    #[error("it cannot be reached ({0})")]
    Unreachable(String),
    /// No whole answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// The answer is larger than [`BODY_LIMIT`].
    #[error("it answered with more than {BODY_LIMIT} bytes")]
    TooLarge,
    /// The connection ended within the answer.
    #[error("its answer ended before its end")]
    Truncated,
    /// A redirect that is not followed: to another origin, once too often, or of a request with a body.
    #[error("it answered with a redirect ({0}) that is not followed")]
    Redirected(u16),
}

/// Resolves a host name; ports are ignored.
pub type Lookup =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync>;

/// The system's resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }))
}

/// No address of a name is one that the request may go to.
#[derive(Debug, ThisError)]
#[error("no allowed address")]
struct NotAllowed;

/// Resolves names to allowed addresses only. What it gives is what is dialled: there is no second lookup.
struct GuardedResolver {
    lookup: Lookup,
    bound: Bound,
}

impl GuardedResolver {
    fn addresses(&self, host: String) -> impl Future<Output = Result<Vec<SocketAddr>, BoxError>> + use<> {
        let found = (self.lookup)(host);
        let bound = self.bound;
        async move {
            let found = found.await?;
            let allowed: Vec<_> = found.iter().copied().filter(|at| bound.allows(*at)).collect();
            // A name without an address is a failed lookup, not a refusal.
            if allowed.is_empty() && !found.is_empty() {
                return Err(NotAllowed.into());
            }
            Ok(allowed)
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(addresses.await?.into_iter()) as Addrs) })
    }
}

/// Sends requests to learned URLs.
#[derive(Debug, Clone)]
pub struct Guarded {
    /// In the order of [`Bound::ALL`].
    clients: [Client; 4],
}

impl Guarded {
    /// `timeout` bounds a whole request.
    pub fn new(timeout: Duration, tls: &ClientConfig) -> Result<Self, reqwest::Error> {
        Self::with_lookup(timeout, tls, &system_lookup())
    }

    /// With a resolver other than the system's.
    pub fn with_lookup(
        timeout: Duration,
        tls: &ClientConfig,
        lookup: &Lookup,
    ) -> Result<Self, reqwest::Error> {
        let client = |bound| {
            let resolver = GuardedResolver {
                lookup: Arc::clone(lookup),
                bound,
            };
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(resolver))
                .redirect(Policy::none())
                .referer(false)
                .timeout(timeout)
                .connect_timeout(timeout)
                .no_proxy()
                .retry(reqwest::retry::never())
                .pool_max_idle_per_host(MAX_IDLE)
                .user_agent(concat!("vestibule/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        let [public, private, loopback, anywhere] = Bound::ALL.map(client);
        Ok(Self {
            clients: [public?, private?, loopback?, anywhere?],
        })
    }

    /// Fetches a document. A redirect is followed within its origin.
    pub async fn get_json(&self, url: &Url, reach: &Reach) -> Result<Fetched, GuardedFault> {
        self.get(url, reach, "application/json", true).await
    }

    /// Sends a JSON document, as for a registration (RFC 7591 section 3.1).
    pub async fn post_json(&self, url: &Url, body: &Value, reach: &Reach) -> Result<Fetched, GuardedFault> {
        let request = self.request(Method::POST, url, reach)?;
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(body.to_string());
        finish(send(request).await?, true).await
    }

    /// Sends a form with a client's credentials, as to a token or revocation endpoint.
    pub async fn post_form(
        &self,
        url: &Url,
        form: &EncodedTokenRequest,
        reach: &Reach,
    ) -> Result<Fetched, GuardedFault> {
        let mut request = self
            .request(Method::POST, url, reach)?
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(form.body.expose_secret().to_owned());
        if let Some(authorization) = &form.authorization {
            let mut value = header::HeaderValue::from_str(authorization.expose_secret())
                .map_err(|_| GuardedFault::BadUrl)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        finish(send(request).await?, true).await
    }

    /// GETs `url` as an MCP client without a credential would, for status and challenge; the body, which may be an
    /// endless stream, is not read. A redirect is followed within its origin.
    pub async fn probe_get(&self, url: &Url, reach: &Reach) -> Result<Fetched, GuardedFault> {
        self.get(url, reach, "application/json, text/event-stream", false)
            .await
    }

    /// POSTs `body` as an MCP client without a credential would, for status and challenge.
    pub async fn probe_post(&self, url: &Url, body: &Value, reach: &Reach) -> Result<Fetched, GuardedFault> {
        let request = self.request(Method::POST, url, reach)?;
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(body.to_string());
        finish(send(request).await?, false).await
    }

    async fn get(
        &self,
        url: &Url,
        reach: &Reach,
        accept: &str,
        whole: bool,
    ) -> Result<Fetched, GuardedFault> {
        let mut at = url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let request = self.request(Method::GET, &at, reach)?;
            let response = send(request.header(header::ACCEPT, accept)).await?;
            match redirect(&response, &at) {
                Some(next) => at = next,
                None => return finish(response, whole).await,
            }
        }
        Err(GuardedFault::Redirected(302))
    }

    /// Begins a request with the client that goes as far as `url` may.
    fn request(
        &self,
        method: Method,
        url: &Url,
        reach: &Reach,
    ) -> Result<reqwest::RequestBuilder, GuardedFault> {
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(GuardedFault::BadUrl);
        }
        let bound = reach.bound(url);
        // A literal address never reaches the resolver.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) => None,
            None => return Err(GuardedFault::BadUrl),
        };
        if literal.is_some_and(|address| !bound.allows(SocketAddr::new(address, 0))) {
            return Err(GuardedFault::NotAllowed);
        }
        let index = Bound::ALL.iter().position(|known| *known == bound);
        Ok(self.clients[index.unwrap_or(0)].request(method, url.clone()))
    }
}

/// Where a redirect within the origin leads.
fn redirect(response: &reqwest::Response, at: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let mut next = at.join(location).ok()?;
    next.set_fragment(None);
    (next.origin() == at.origin()).then_some(next)
}

async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, GuardedFault> {
    request.send().await.map_err(|error| fault(&error))
}

async fn finish(mut response: reqwest::Response, whole: bool) -> Result<Fetched, GuardedFault> {
    let status = response.status().as_u16();
    if whole && (300..400).contains(&status) {
        return Err(GuardedFault::Redirected(status));
    }
    let text = |value: &header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let headers = response.headers();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(text);
    let www_authenticate = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(text)
        .collect();
    let zone = response.remote_addr().and_then(|peer| zone(peer.ip()));
    let mut body = BytesMut::new();
    while whole
        && let Some(chunk) = response.chunk().await.map_err(|error| match fault(&error) {
            GuardedFault::Timeout => GuardedFault::Timeout,
            _ => GuardedFault::Truncated,
        })?
    {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(GuardedFault::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched {
        status,
        content_type,
        www_authenticate,
        body: body.freeze(),
        // A peer in no zone, which only a configured URL leads to, names public addresses.
        zone: zone.unwrap_or_default(),
    })
}

fn fault(error: &reqwest::Error) -> GuardedFault {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotAllowed>() {
            return GuardedFault::NotAllowed;
        }
        cause = error.source();
    }
    if error.is_timeout() {
        GuardedFault::Timeout
    } else {
        GuardedFault::Unreachable(super::pool::describe(error))
    }
}

#[cfg(test)]
mod tests;

//! A reverse proxy as most would write it with hyper: the plain multi-threaded runtime, the pooled client, bodies
//! streamed both ways, nothing parsed. What the gateway costs beyond this is what the gateway does.

use std::{convert::Infallible, io};

use bytes::Bytes;
use clap::Parser;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{Either, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// RFC 9110 section 7.6.1, and Keep-Alive as RFC 2068 had it.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

type Upstream = Client<HttpConnector, Incoming>;
type Body = Either<Incoming, Empty<Bytes>>;

/// A bare reverse proxy on 127.0.0.1; the path is kept.
#[derive(Parser)]
struct Arguments {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Host and port of the upstream, such as 127.0.0.1:8000
    #[arg(long)]
    upstream: Authority,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let listener = vestibule_bench::listen(arguments.port).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        let upstream = arguments.upstream.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| relay(request, &client, &upstream));
            // A client that goes away in the middle shows as an error at the load tool, which fails the run.
            let _gone = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn relay(
    mut request: Request<Incoming>,
    client: &Upstream,
    upstream: &Authority,
) -> Result<Response<Body>, Infallible> {
    *request.uri_mut() = at_upstream(request.uri(), upstream);
    strip_hop_by_hop(request.headers_mut());
    let Ok(mut response) = client.request(request).await else {
        let mut response = Response::new(Either::Right(Empty::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(response);
    };
    strip_hop_by_hop(response.headers_mut());
    Ok(response.map(Either::Left))
}

fn at_upstream(uri: &Uri, upstream: &Authority) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream.clone());
    parts.path_and_query = Some(
        uri.path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    );
    Uri::from_parts(parts).expect("scheme, authority and path make a URI")
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominations: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    for name in nominations
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
    {
        headers.remove(name.trim());
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

//! The MCP server behind every target: as little as HTTP allows, so that what is measured is the road to it.
//! It requires no credential and looks at no body; it is not an example of an MCP server.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RESULT: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello from the upstream"}],"#,
    r#""isError":false}}"#
);
const TOKEN: &str = r#"{"access_token":"bench-upstream-token","token_type":"Bearer","expires_in":3600}"#;

/// A minimal MCP upstream on 127.0.0.1: POST /mcp, POST /oauth/token, GET /count.
#[derive(Parser)]
struct Arguments {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Requests answered so far; reading the count is not one of them.
#[derive(Default)]
struct Counts {
    mcp: AtomicU64,
    token: AtomicU64,
    other: AtomicU64,
}

impl Counts {
    fn to_json(&self) -> String {
        format!(
            r#"{{"mcp":{},"token":{},"other":{}}}"#,
            self.mcp.load(Relaxed),
            self.token.load(Relaxed),
            self.other.load(Relaxed)
        )
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let counts = Arc::new(Counts::default());
    let listener = vestibule_bench::listen(arguments.port).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let counts = counts.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &counts));
            // A client that goes away in the middle shows as an error at the load tool, which fails the run.
            let _gone = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    mut request: Request<Incoming>,
    counts: &Counts,
) -> Result<Response<Full<Bytes>>, Infallible> {
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    Ok(match (request.method(), request.uri().path()) {
        (&Method::POST, "/mcp") => {
            counts.mcp.fetch_add(1, Relaxed);
            json(Bytes::from_static(RESULT.as_bytes()))
        }
        (&Method::POST, "/oauth/token") => {
            counts.token.fetch_add(1, Relaxed);
            json(Bytes::from_static(TOKEN.as_bytes()))
        }
        (&Method::GET, "/count") => json(Bytes::from(counts.to_json())),
        _ => {
            counts.other.fetch_add(1, Relaxed);
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

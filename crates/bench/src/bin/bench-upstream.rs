//! The MCP server behind every target: as little as HTTP allows, so that what is measured is the road to it.
//! It requires no credential and looks for a method's name and an id in a body without parsing it; it is not an
//! example of an MCP server.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLED: &str = r#"{"content":[{"type":"text","text":"hello from the upstream"}],"isError":false}"#;
const INITIALIZED: &str = concat!(
    r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"#,
    r#""serverInfo":{"name":"bench-upstream","version":"1"}}"#
);
const LISTED: &str = concat!(
    r#"{"tools":[{"name":"echo","description":"Says it again.","inputSchema":{"type":"object","#,
    r#""properties":{"text":{"type":"string"}},"required":["text"]}}]}"#
);
const TOKEN: &str = concat!(
    r#"{"access_token":"bench-upstream-token","token_type":"Bearer","expires_in":3600,"#,
    r#""issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#
);

/// What is sent: a whole body, or the silence of an open event stream.
type Answer = Either<Full<Bytes>, Silence>;

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

async fn answer(request: Request<Incoming>, counts: &Counts) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Ok(match (&head.method, head.uri.path()) {
        (&Method::POST, "/mcp") => {
            counts.mcp.fetch_add(1, Relaxed);
            mcp(&body)
        }
        (&Method::GET, "/mcp") => {
            let mut response = Response::new(Either::Right(Silence));
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        (&Method::POST, "/oauth/token") => {
            counts.token.fetch_add(1, Relaxed);
            json(TOKEN)
        }
        (&Method::GET, "/count") => json(counts.to_json()),
        _ => {
            counts.other.fetch_add(1, Relaxed);
            empty(StatusCode::NOT_FOUND)
        }
    })
}

fn mcp(body: &[u8]) -> Response<Answer> {
    let has = |method: &str| body.windows(method.len()).any(|part| part == method.as_bytes());
    let result = if has("tools/call") {
        CALLED
    } else if has("tools/list") {
        LISTED
    } else if has("\"initialize\"") {
        INITIALIZED
    } else {
        return empty(StatusCode::ACCEPTED);
    };
    let name = b"\"id\":";
    let id = body
        .windows(name.len())
        .position(|part| part == name)
        .map_or(&b"null"[..], |at| {
            let rest = &body[at + name.len()..];
            let end = rest.iter().position(|byte| matches!(byte, b',' | b'}'));
            &rest[..end.unwrap_or(rest.len())]
        });
    let id = String::from_utf8_lossy(id);
    json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

fn json(text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that never comes and never ends.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

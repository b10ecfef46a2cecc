//! Makes an exact number of calls, one after the other on one kept-alive connection, and stops at the first failure.
//! For counting instructions and round trips; it is no load tool.

use std::{
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use http::{
    HeaderName, HeaderValue, Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// POSTs the same tools/call N times over one connection; anything but a 200 fails.
#[derive(Parser)]
struct Arguments {
    /// Where to, such as `http://127.0.0.1:8000/mcp`
    #[arg(long)]
    url: Uri,

    /// How many calls
    #[arg(long)]
    calls: u64,

    /// File with the body of each call
    #[arg(long)]
    body: PathBuf,

    /// A further header, "name: value"; may be repeated
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// Give up after this long
    #[arg(long, default_value_t = 120)]
    max_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    #[expect(
        clippy::disallowed_methods,
        reason = "measuring time is what this program is for"
    )]
    let started = Instant::now();
    tokio::time::timeout(Duration::from_secs(arguments.max_seconds), run(&arguments)).await??;
    let micros = started.elapsed().as_micros();
    writeln!(
        io::stdout(),
        r#"{{"calls":{},"micros":{micros}}}"#,
        arguments.calls
    )?;
    Ok(())
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let body = Bytes::from(std::fs::read(&arguments.body)?);
    let authority = arguments.url.authority().ok_or("--url has no host")?;
    let path = arguments.url.path_and_query().ok_or("--url has no path")?;

    let stream = TcpStream::connect(authority.as_str()).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);

    for call in 1..=arguments.calls {
        let mut request = Request::post(path.as_str())
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(Full::new(body.clone()))?;
        for (name, value) in &arguments.headers {
            request.headers_mut().append(name, value.clone());
        }
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status != 200 {
            let answer = String::from_utf8_lossy(&answer);
            return Err(format!("call {call} was answered {status}: {answer}").into());
        }
    }
    Ok(())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header is written \"name: value\"")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| format!("not a header name: {name}"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| "not a header value".to_owned())?;
    Ok((name, value))
}

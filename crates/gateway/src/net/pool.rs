//! Connections to one server, kept for the worker that opened them.
//!
//! A connection is driven by whoever uses it: sending a request and reading its body poll the connection in
//! the caller's own task. So there is no second task to wake for every call, and a caller that goes away
//! takes its connection, and with it the server's work, along (MCP 2026-07-28 cancels by closing).

use crate::net::bridge::BridgeFault;
use crate::net::stream::UpstreamBody;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::iter::successors;
use std::pin::Pin;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};
use tower::Service;

/// Idle connections that one worker keeps to one server.
const MAX_IDLE: usize = 256;
/// How long an idle connection is kept when the server does not say.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// The largest response head.
const MAX_HEAD: usize = 64 * 1024;

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why no response came.
#[derive(Debug)]
pub enum SendFault {
    /// No connection: name, route, port or TLS.
    Unreachable(String),
    /// No connection in time.
    ConnectTimeout,
    /// The connection ended. The request may have been read.
    Closed(String),
    /// What came is not HTTP. The request may have been read.
    NotHttp(String),
    /// A server of another transport has no answer.
    Bridge(BridgeFault),
}

/// Connections to one server.
pub struct Pool {
    target: Uri,
    connector: HttpsConnector<HttpConnector>,
    connect_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// One open connection with nothing under way.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once the connection is over: only a dropped driver hands back a request that it has not read.
    driver: Option<Box<http1::Connection<Io, Full<Bytes>>>>,
    keep_until: Instant,
    keep_for: Duration,
}

/// An exchange without a response; `unsent` is the request if not one byte of it was written.
struct Failed {
    unsent: Option<Request<Full<Bytes>>>,
    fault: SendFault,
}

impl Pool {
    /// A pool for the server at `target`, which is absolute.
    pub fn new(target: Uri, tls: ClientConfig, connect_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self {
            target,
            connector,
            connect_timeout,
            idle: Mutex::default(),
        }
    }

    /// Sends one request and gives the response's head with its body to come.
    ///
    /// A kept connection that the server closed meanwhile is replaced only when not one byte of the request
    /// was written, so no call runs twice.
    pub async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, SendFault> {
        let mut request = request;
        loop {
            // A look at a connection must not be refused for want of the task's budget: it would say open.
            let kept = unconstrained(poll_fn(|cx| Poll::Ready(self.take(cx)))).await;
            let (mut connection, kept) = match kept {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            match connection.exchange(request).await {
                Ok(response) => {
                    connection.keep_for = keep_alive(response.headers());
                    let mut response =
                        response.map(|body| UpstreamBody::new(body, connection, Arc::clone(self)));
                    poll_fn(|cx| {
                        response.body_mut().release_if_over(cx);
                        Poll::Ready(())
                    })
                    .await;
                    return Ok(response);
                }
                Err(Failed {
                    unsent: Some(unsent), ..
                }) if kept => request = unsent,
                Err(Failed { fault, .. }) => return Err(fault),
            }
        }
    }

    /// Opens a connection and closes it: name, route, port and TLS as a call finds them.
    pub async fn try_connect(&self) -> Result<(), SendFault> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> Result<Connection, SendFault> {
        let connecting = async {
            let io = self.connector.clone().call(self.target.clone()).await;
            let io = io.map_err(|error| no_connection(error.as_ref()))?;
            let (sender, driver) = http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .handshake(io)
                .await
                .map_err(|error| SendFault::Unreachable(describe(&error)))?;
            Ok(Connection {
                sender,
                driver: Some(Box::new(driver)),
                keep_until: Instant::now(),
                keep_for: IDLE_LIMIT,
            })
        };
        timeout(self.connect_timeout, connecting)
            .await
            .unwrap_or(Err(SendFault::ConnectTimeout))
    }

    /// The connection used last, if it is still open: the others get to age.
    fn take(&self, cx: &mut Context<'_>) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let mut connection = self.idle().pop()?;
            if now < connection.keep_until && connection.drive(cx) {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back whose exchange is over.
    pub(crate) fn keep(&self, mut connection: Connection, cx: &mut Context<'_>) {
        if connection.keep_for.is_zero() || !connection.drive(cx) || !connection.sender.is_ready() {
            return;
        }
        connection.keep_until = Instant::now() + connection.keep_for;
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    /// Drops connections that were idle too long.
    pub fn reap(&self) {
        let now = Instant::now();
        let old: Vec<Connection> = self
            .idle()
            .extract_if(.., |connection| connection.keep_until <= now)
            .collect();
        drop(old);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Moves bytes. False when the connection is over.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.driver, cx)
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Failed> {
        let mut response = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            drive(driver, cx);
            response.as_mut().poll(cx)
        })
        .await
        .map_err(|mut error| Failed {
            unsent: error.take_message(),
            fault: fault(error.error()),
        })
    }
}

/// The connector gives each address of a name its share of the time, so it may say first that it is over.
fn no_connection(error: &(dyn Error + 'static)) -> SendFault {
    let timed_out = |error: &(dyn Error + 'static)| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    if successors(Some(error), |error| cause(*error)).any(timed_out) {
        SendFault::ConnectTimeout
    } else {
        SendFault::Unreachable(describe(error))
    }
}

/// Polls the driver and drops it at its end. False when there is none any more.
fn drive(driver: &mut Option<Box<http1::Connection<Io, Full<Bytes>>>>, cx: &mut Context<'_>) -> bool {
    let open = driver
        .as_mut()
        .is_some_and(|driver| Pin::new(&mut **driver).poll(cx).is_pending());
    if !open {
        *driver = None;
    }
    open
}

fn fault(error: &hyper::Error) -> SendFault {
    let why = describe(error);
    if error.is_parse() {
        SendFault::NotHttp(why)
    } else {
        SendFault::Closed(why)
    }
}

/// How long the server keeps an idle connection, less a second for the way, if it says so
/// (`Keep-Alive: timeout=5`); after that a request could meet its close.
fn keep_alive(headers: &http::HeaderMap) -> Duration {
    let said = headers
        .get("keep-alive")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            value
                .split(',')
                .find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok())
        });
    let closes = headers
        .get(header::CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
        // Two framings: what follows may not be where we think it is (RFC 9112 section 6.1).
        || (headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH));
    match said {
        _ if closes => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds)
            .saturating_sub(Duration::from_secs(1))
            .min(IDLE_LIMIT),
        None => IDLE_LIMIT,
    }
}

/// An error's cause. An I/O error that wraps another does not give it as its source, so it is looked into.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .map(|inner| inner as &(dyn Error + 'static));
    wrapped.or_else(|| error.source())
}

/// The innermost cause, which names what happened ("connection refused", "invalid peer certificate: …"); for
/// logs and messages. An I/O error of the system's own gives its kind alone.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(inner) = cause(innermost) {
        innermost = inner;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(io) => io.kind().to_string(),
        None => innermost.to_string(),
    }
}

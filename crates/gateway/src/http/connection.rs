//! One client connection: HTTP/1.1 with bounds on headers, silence, stalled readers and their number. What a
//! request means is not known here.

use super::router::Front;
use crate::app::App;
use crate::ids::RequestIds;
use crate::telemetry::metrics::Metrics;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::TcpStream as StdStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, interval, sleep, timeout};

/// The most header lines of a request.
const MAX_HEADERS: usize = 128;

/// How long a last answer may take, and how much of what the client still sends is read meanwhile.
const PARTING: Duration = Duration::from_secs(1);
const MAX_UNREAD: usize = 64 * 1024;
/// How long a connection without a call stays open after a stop began: its client may have sent a request that
/// is not read yet. A new one was made for a request, which is likely on its way.
const LINGER: Duration = Duration::from_millis(100);
const NEW_LINGER: Duration = Duration::from_secs(2);

/// A place among the open connections; given back when dropped. A connection may outlive many configurations, and holds
/// none of them.
pub(super) struct Slot(Arc<Metrics>);

impl Slot {
    /// A place, unless all are taken.
    pub(super) fn take(app: &Arc<App>) -> Option<Self> {
        let open = app.metrics.connections.inc();
        let slot = Self(Arc::clone(&app.metrics));
        let limit = i64::try_from(app.limits.max_connections).unwrap_or(i64::MAX);
        (open < limit).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Answers a connection without HTTP on it, and ends it so that the answer arrives.
pub(super) async fn turn_away(app: &App, mut stream: TcpStream, code: ErrorCode) {
    let id = RequestIds::new().next();
    let refusal = app.refuse(Refusal::new(code), "", id);
    if let Ok(peer) = stream.peer_addr() {
        app.audit.refused_early(&refusal, peer.ip(), id);
    }
    let answer = refusal.into_plain(id);
    let parting = async {
        stream.write_all(&wire(answer).await?).await?;
        stream.shutdown().await?;
        // Closing over unread bytes resets the connection, and the reset overtakes the answer.
        let (mut unread, mut read) = ([0; 4096], 0);
        while read < MAX_UNREAD {
            match stream.read(&mut unread).await? {
                0 => break,
                more => read += more,
            }
        }
        io::Result::Ok(())
    };
    // Whether the client hears it is its own affair.
    let _ = timeout(PARTING, parting).await;
}

/// The bytes of a response that ends its connection.
async fn wire(response: Response<Body>) -> io::Result<Vec<u8>> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        head.status,
        body.len()
    )
    .into_bytes();
    for (name, value) in &head.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Serves one connection to its end.
pub(super) async fn serve(front: Arc<Front>, stream: StdStream, slot: Slot, mut stop: watch::Receiver<bool>) {
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let Ok(peer) = stream.peer_addr().map(|address| address.ip()) else {
        return;
    };
    let (limits, draining) = {
        let app = &front.worker().app;
        (app.limits.clone(), Arc::clone(&app.draining))
    };
    let phase = Arc::new(Phase::new());
    let io = TokioIo::new(Watched {
        stream,
        phase: Arc::clone(&phase),
        patience: limits.stream_idle_timeout,
        stalled: None,
    });
    let service = service_fn(|request: Request<Incoming>| {
        let call = phase.call();
        let (front, draining) = (Arc::clone(&front), Arc::clone(&draining));
        async move {
            let mut response = front.respond(request, peer).await;
            if draining.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response.body_mut().attach(call);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        // Our own limit answers with a body; hyper's is the wall behind it.
        .max_buf_size(limits.max_header_bytes * 2)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        .serve_connection(io, service);
    let period = (limits.header_timeout.min(limits.keep_alive_timeout) / 4)
        .clamp(Duration::from_millis(20), Duration::from_secs(5));
    let mut look = interval(period);
    let mut stopping = *stop.borrow();
    let mut lingers = true;
    let mut linger = pin!(sleep(NEW_LINGER));
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    ended_badly(&front, &error, peer);
                }
                break;
            }
            Ok(()) = stop.changed(), if !stopping => {
                stopping = true;
                let wait = match phase.state() {
                    NEW => NEW_LINGER,
                    CALL => Duration::ZERO,
                    _ => LINGER,
                };
                linger.as_mut().reset(Instant::now() + wait);
            }
            () = linger.as_mut(), if stopping && lingers => {
                lingers = false;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ = look.tick() => match phase.look(limits.header_timeout, limits.keep_alive_timeout) {
                Verdict::Fine => {}
                Verdict::Idle => Pin::new(&mut connection).graceful_shutdown(),
                Verdict::SlowHeaders => {
                    let socket = connection.into_parts().io.into_inner();
                    // Behind half a response an answer would be read as the other half.
                    if !socket.holds_a_write_back() {
                        turn_away(&front.worker().app, socket.stream, ErrorCode::HeaderTimeout).await;
                    }
                    break;
                }
            },
        }
    }
    drop(slot);
}

/// Counts and logs what hyper has answered, without a body, before there was a request.
fn ended_badly(front: &Front, error: &hyper::Error, peer: IpAddr) {
    let code = if error.is_parse_too_large() {
        ErrorCode::HeadersTooLarge
    } else if error.is_parse() {
        ErrorCode::MalformedRequest
    } else {
        return;
    };
    let worker = front.worker();
    let message = format!("{} It was answered without a body ({error}).", code.meaning());
    let id = worker.ids.next();
    let refusal = worker.refuse(Refusal::because(code, message), None, id);
    worker.app.audit.refused_early(&refusal, peer, id);
}

/// Where a connection stands between requests: when its silence or its headers began. One word, so that a
/// call costs two stores and no timer.
struct Phase {
    zero: Instant,
    /// Milliseconds since `zero`, times four, plus a state.
    word: AtomicU64,
}

const IDLE: u64 = 0;
const HEADERS: u64 = 1;
const CALL: u64 = 2;
/// Idle, and nothing was ever read.
const NEW: u64 = 3;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Idle,
    SlowHeaders,
}

impl Phase {
    fn new() -> Self {
        Self {
            zero: Instant::now(),
            word: AtomicU64::new(NEW),
        }
    }

    fn set(&self, state: u64) {
        let since = u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX / 8);
        self.word.store(since * 4 + state, Ordering::Relaxed);
    }

    fn state(&self) -> u64 {
        self.word.load(Ordering::Relaxed) % 4
    }

    /// Bytes came in.
    fn bytes_read(&self) {
        if matches!(self.state(), IDLE | NEW) {
            self.set(HEADERS);
        }
    }

    /// A request's headers are complete; the call lasts until the guard goes.
    fn call(self: &Arc<Self>) -> CallGuard {
        self.word.store(CALL, Ordering::Relaxed);
        CallGuard(Arc::clone(self))
    }

    fn look(&self, header_timeout: Duration, keep_alive_timeout: Duration) -> Verdict {
        let word = self.word.load(Ordering::Relaxed);
        let since = self
            .zero
            .elapsed()
            .saturating_sub(Duration::from_millis(word / 4));
        match word % 4 {
            HEADERS if since >= header_timeout => Verdict::SlowHeaders,
            IDLE | NEW if since >= keep_alive_timeout => Verdict::Idle,
            _ => Verdict::Fine,
        }
    }
}

struct CallGuard(Arc<Phase>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.set(IDLE);
    }
}

/// The socket, with an eye on what comes in and on a reader that takes nothing.
struct Watched {
    stream: TcpStream,
    phase: Arc<Phase>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// The client has yet to take what was written for it.
    fn holds_a_write_back(&self) -> bool {
        self.stalled.is_some()
    }

    /// A write that waits is given up after `patience`.
    fn or_stalled<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes nothing",
            ))
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.phase.bytes_read();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_stalled(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.or_stalled(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_write_that_waits_is_known_until_it_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut reader, _) = accepted.expect("a connection");
        let mut watched = Watched {
            stream: stream.expect("a connection"),
            phase: Arc::new(Phase::new()),
            patience: Duration::from_secs(60),
            stalled: None,
        };
        assert!(!watched.holds_a_write_back());
        let chunk = vec![0; 64 * 1024];
        let mut written = 0;
        // Nobody reads, so the kernel's buffers fill up.
        while let Poll::Ready(more) =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut watched).poll_write(cx, &chunk))).await
        {
            written += more.expect("writable");
        }
        assert!(watched.holds_a_write_back());
        let mut taken = vec![0; written];
        let (read, wrote) = tokio::join!(reader.read_exact(&mut taken), watched.write(&chunk));
        assert!(read.is_ok() && wrote.is_ok());
        assert!(!watched.holds_a_write_back());
    }
}

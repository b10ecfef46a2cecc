//! Servers of other transports behind the face of Streamable HTTP: HTTP+SSE of revision 2024-11-05, and programs
//! over standard input and output. A session of the client is one event stream or one program, and never two
//! clients'. What belongs to which request is in [`session`]; the pipes are in [`sse`] and [`process`].

mod body;
mod message;
mod process;
mod session;
mod sse;

pub(crate) use body::MessageBody;
pub(crate) use sse::same_origin;

use crate::clock::{Clock, Moment};
use crate::config::{Limits, Program};
use crate::ids::random_hex;
use crate::net::pool::{Pool, SendFault};
use crate::net::stream::UpstreamBody;
use crate::net::transport::{Endpoint, HttpEndpoint};
use crate::telemetry::metrics::Metrics;
use body::AnswerBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use message::{Id, Kind};
use moka::sync::Cache;
use process::{LastWords, Process, ProcessPlace};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use serde_json::json;
use session::{Item, Session, Then};
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;
use vestibule_mcp::headers::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};

/// The largest message of a server's.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// Messages on their way to one program.
const OUTGOING: usize = 8;
/// A session that nobody has used for so long ends.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A program that ends by itself sooner than this has failed to start.
const QUICK: Duration = Duration::from_secs(10);
/// How long nothing is started after the first such failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many environments of one server are remembered by their failures.
const MAX_FAILURES: u64 = 10_000;
/// How long all programs together may take to end: the graces of one, and a little.
const FAREWELL: Duration = Duration::from_secs(8);
/// The newest revision that begins with `initialize`, and the first that does not.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// Why a bridge has no answer.
#[derive(Debug)]
pub enum BridgeFault {
    /// There is no such session, or no longer.
    UnknownSession,
    /// A request with this id is under way in the session.
    RepeatedId,
    /// The session has a listener already.
    SecondListener,
    /// The session ended before the answer. The request may have been carried out.
    Ended,
    /// There are as many sessions as there may be.
    TooManySessions,
    /// There are as many programs as there may be.
    TooManyProcesses,
    /// The program keeps ending; nothing is started for so long.
    Again(Duration),
    /// The program's environment needs this header, and it is not there once, or holds the gateway's key.
    MissingHeader(HeaderName),
    /// The program could not be started.
    NotStarted(String),
    /// The event stream named an address of another origin.
    ForeignEndpoint,
    /// The event stream named no address in time.
    NoEndpoint,
    /// What came is no event stream, or ended before it named an address.
    NotSse,
    /// A message was not taken in time.
    Silent,
    /// The server refused the credential, with these headers about it.
    Credential(StatusCode, HeaderMap),
    /// The server answered with a redirect, and where to.
    Redirect(StatusCode, Option<Url>),
    /// The server answered with this status.
    Status(StatusCode),
    /// There was no connection, or it broke.
    Send(Box<SendFault>),
    /// What the client sent is no message that can be bridged.
    Invalid(&'static str),
}

impl From<Box<SendFault>> for BridgeFault {
    fn from(fault: Box<SendFault>) -> Self {
        Self::Send(fault)
    }
}

/// All bridges, with the thread that their pipes live on.
pub struct Bridges {
    limits: Limits,
    clock: Clock,
    tls: ClientConfig,
    sessions_open: Gauge,
    processes_running: Gauge,
    /// Nothing before the first bridge is made.
    started: Mutex<Option<Started>>,
}

struct Started {
    shared: Arc<Shared>,
    runtime: Runtime,
    /// A server that is configured no longer has none.
    all: Vec<Weak<Bridge>>,
}

impl Started {
    fn bridges(&self) -> impl Iterator<Item = Arc<Bridge>> {
        self.all.iter().filter_map(Weak::upgrade)
    }
}

/// What all bridges have in common.
struct Shared {
    clock: Clock,
    runtime: Handle,
    tls: ClientConfig,
    connect_timeout: Duration,
    places: Arc<Semaphore>,
    places_of_a_server: usize,
    processes: Arc<Semaphore>,
    max_processes: u32,
    sessions_open: Gauge,
    processes_running: Gauge,
    npm_cache: OnceLock<PathBuf>,
}

/// The way to one server of another transport.
pub struct Bridge {
    server: String,
    shared: Arc<Shared>,
    driver: Driver,
    /// Until the first message of an answer.
    patience: Duration,
    places: Arc<Semaphore>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// By what callers bring into the environment: a program that one caller's value makes end is everybody else's all
    /// the same.
    failures: Cache<[u8; 32], Failures>,
    last_words: Arc<LastWords>,
}

enum Driver {
    Sse(Box<HttpEndpoint>, Arc<Pool>),
    Stdio(Arc<Program>),
}

/// Programs that failed to start, one after the other.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    not_before: Moment,
}

/// A place among the sessions of the server and of all servers.
struct Places {
    _of_server: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    open: Gauge,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The way of messages to a server.
enum Pipe {
    Sse(sse::Outgoing),
    Stdio(mpsc::Sender<Bytes>),
}

impl Pipe {
    /// Resolves when the server, or the system for it, has taken the message.
    async fn write(&self, message: Bytes, headers: HeaderMap) -> Result<(), BridgeFault> {
        match self {
            Self::Sse(outgoing) => outgoing.post(message, headers).await,
            Self::Stdio(lines) => lines.send(message).await.map_err(|_| BridgeFault::Ended),
        }
    }
}

impl Bridges {
    /// No bridges yet, and no thread for them.
    pub fn new(limits: &Limits, clock: &Clock, tls: &ClientConfig, metrics: &Metrics) -> Self {
        Self {
            limits: limits.clone(),
            clock: clock.clone(),
            tls: tls.clone(),
            sessions_open: metrics.bridge_sessions.clone(),
            processes_running: metrics.stdio_processes.clone(),
            started: Mutex::default(),
        }
    }

    fn started(&self) -> MutexGuard<'_, Option<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> io::Result<Started> {
        // A thread of their own: what a server floods its pipe with takes no time from calls to others.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bridges")
            .enable_all()
            .build()?;
        let limits = &self.limits;
        let shared = Shared {
            clock: self.clock.clone(),
            runtime: runtime.handle().clone(),
            tls: self.tls.clone(),
            connect_timeout: limits.connect_timeout,
            places: Arc::new(Semaphore::new(limits.max_bridge_sessions)),
            places_of_a_server: limits.max_bridge_sessions.div_ceil(2),
            processes: Arc::new(Semaphore::new(limits.max_stdio_processes)),
            max_processes: u32::try_from(limits.max_stdio_processes).unwrap_or(u32::MAX),
            sessions_open: self.sessions_open.clone(),
            processes_running: self.processes_running.clone(),
            npm_cache: OnceLock::new(),
        };
        Ok(Started {
            shared: Arc::new(shared),
            runtime,
            all: Vec::new(),
        })
    }

    /// The bridge to a server that needs one; the first starts the thread.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn add(
        &self,
        server: &str,
        endpoint: &Endpoint,
        patience: Duration,
    ) -> io::Result<Option<Arc<Bridge>>> {
        if matches!(endpoint, Endpoint::Http(_)) {
            return Ok(None);
        }
        let mut started = self.started();
        let started = match &mut *started {
            Some(started) => started,
            none => none.insert(self.start()?),
        };
        let shared = &started.shared;
        let driver = match endpoint {
            Endpoint::Http(_) => return Ok(None),
            Endpoint::Sse(endpoint) => {
                let pool = Pool::new(
                    endpoint.origin.clone(),
                    shared.tls.clone(),
                    shared.connect_timeout,
                );
                Driver::Sse(Box::new(endpoint.clone()), Arc::new(pool))
            }
            Endpoint::Stdio(program) => Driver::Stdio(Arc::clone(program)),
        };
        let bridge = Arc::new(Bridge {
            server: server.to_owned(),
            driver,
            patience,
            places: Arc::new(Semaphore::new(shared.places_of_a_server)),
            shared: Arc::clone(shared),
            sessions: Mutex::default(),
            failures: Cache::builder()
                .max_capacity(MAX_FAILURES)
                .time_to_idle(2 * LONGEST_PAUSE)
                .build(),
            last_words: Arc::default(),
        });
        started.all.retain(|bridge| bridge.strong_count() > 0);
        started.all.push(Arc::downgrade(&bridge));
        Ok(Some(bridge))
    }

    /// Ends what has not been used for long.
    pub fn reap(&self) {
        if let Some(started) = &*self.started() {
            started.bridges().for_each(|bridge| bridge.reap());
        }
    }

    /// Ends all sessions and takes no new ones; resolves when the programs are gone.
    pub async fn shut_down(&self) {
        let shared = match &*self.started() {
            None => return,
            Some(started) => {
                started.shared.places.close();
                started.bridges().for_each(|bridge| bridge.end_all());
                Arc::clone(&started.shared)
            }
        };
        let all_gone = shared.processes.acquire_many(shared.max_processes);
        if timeout(FAREWELL, all_gone).await.is_err() {
            tracing::warn!("not every server's program has ended");
        }
        if let Some(cache) = shared.npm_cache.get() {
            let _ = tokio::fs::remove_dir_all(cache).await;
        }
    }
}

impl Drop for Bridges {
    fn drop(&mut self) {
        let Some(started) = self.started().take() else {
            return;
        };
        started.bridges().for_each(|bridge| bridge.end_all());
        // Programs that are still there are killed with the tasks that keep them.
        started.runtime.shutdown_background();
        // Left when nobody shut down; made by us, under a name that nobody else has.
        if let Some(cache) = started.shared.npm_cache.get() {
            let _ = std::fs::remove_dir_all(cache);
        }
    }
}

impl Bridge {
    /// Answers one request as a server of Streamable HTTP does.
    pub async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, BridgeFault> {
        let (parts, body) = request.into_parts();
        let answered = match parts.method {
            Method::POST => {
                let body = match body.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(never) => match never {},
                };
                self.post(parts.headers, message::one_line(body)).await
            }
            Method::GET => self.known(&parts.headers).and_then(|session| {
                let messages = session.listen()?;
                Ok(stream(MessageBody::Listener(messages)))
            }),
            Method::DELETE => self.known(&parts.headers).map(|session| {
                session.end();
                self.forget(&session);
                whole(StatusCode::NO_CONTENT, None)
            }),
            _ => Ok(whole(StatusCode::METHOD_NOT_ALLOWED, None)),
        };
        match answered {
            Err(BridgeFault::Credential(status, headers)) => {
                let mut response = whole(status, None);
                response.headers_mut().extend(headers);
                Ok(response)
            }
            Err(BridgeFault::Invalid(message)) => Ok(invalid(StatusCode::BAD_REQUEST, message)),
            Err(BridgeFault::RepeatedId) => Ok(invalid(
                StatusCode::BAD_REQUEST,
                "A request with this id is under way in the session.",
            )),
            Err(BridgeFault::SecondListener) => Ok(invalid(
                StatusCode::CONFLICT,
                "The session has an event stream already.",
            )),
            answered => answered,
        }
    }

    async fn post(
        self: &Arc<Self>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, BridgeFault> {
        let kind = Kind::of(&body).ok_or(BridgeFault::Invalid("The body is no single JSON-RPC message."))?;
        let has_session = headers.contains_key(MCP_SESSION_ID);
        match &kind {
            Kind::Request { method, .. } if method == "initialize" && has_session => Err(
                BridgeFault::Invalid("initialize opens a session, so it carries no Mcp-Session-Id."),
            ),
            Kind::Request { method, id } if method == "initialize" => {
                let session = self.open(&headers).await?;
                let mut exchange = session.begin(id, &body, Then::EndUnlessAnswered)?;
                let first = exchange.first(body.clone(), headers).await?;
                let failed = matches!(&first, Some(Item::Last(answer)) if is_error(answer));
                let mut response = answer(first, exchange);
                if failed {
                    session.end();
                } else if let Ok(id) = HeaderValue::from_str(&session.id) {
                    response.headers_mut().insert(MCP_SESSION_ID, id);
                }
                Ok(response)
            }
            Kind::Request { id, .. } if has_session => {
                let session = self.known(&headers)?;
                let mut exchange = session.begin(id, &body, Then::Nothing)?;
                let first = exchange.first(body.clone(), headers).await?;
                Ok(answer(first, exchange))
            }
            Kind::Request { id, .. } => self.one_request(id, headers, body.clone()).await,
            _ if has_session => {
                let session = self.known(&headers)?;
                session.post(&kind, body.clone(), headers).await?;
                Ok(whole(StatusCode::ACCEPTED, None))
            }
            _ => Err(BridgeFault::Invalid("This message needs an Mcp-Session-Id.")),
        }
    }

    /// A request of a client without sessions: a session of its own, which ends with the answer.
    async fn one_request(
        self: &Arc<Self>,
        id: &Id,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, BridgeFault> {
        let session = self.open(&headers).await?;
        let mut exchange = session.begin(id, &body, Then::End)?;
        let version = headers
            .get(MCP_PROTOCOL_VERSION)
            .and_then(|version| version.to_str().ok())
            .unwrap_or(LEGACY);
        // Revisions are dates, so their order is that of their text.
        if version < MODERN {
            let own = Id::Text(random_hex());
            let initialize = json!({
                "jsonrpc": "2.0",
                "id": own_text(&own),
                "method": "initialize",
                "params": {
                    "protocolVersion": version,
                    "capabilities": {},
                    "clientInfo": {"name": "vestibule", "version": env!("CARGO_PKG_VERSION")},
                },
            });
            let initialize = Bytes::from(initialize.to_string());
            let mut opening = session.begin(&own, &initialize, Then::Nothing)?;
            // A server that refuses this says why again, to the client's own request.
            opening.answer(initialize, headers.clone()).await?;
            let initialized =
                Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
            let kind = Kind::Notification {
                method: "notifications/initialized".into(),
            };
            session.post(&kind, initialized, headers.clone()).await?;
        }
        let first = exchange.first(body, headers).await?;
        Ok(answer(first, exchange))
    }

    /// The last lines that the server's programs wrote on standard error, without what is secret; for tools.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.last_words.all()
    }

    /// The session that the headers name.
    fn known(&self, headers: &HeaderMap) -> Result<Arc<Session>, BridgeFault> {
        let id = headers
            .get(MCP_SESSION_ID)
            .ok_or(BridgeFault::Invalid("This request needs an Mcp-Session-Id."))?;
        let id = id.to_str().map_err(|_| BridgeFault::UnknownSession)?;
        let session = self.sessions().get(id).cloned();
        let session = session.filter(|session| !session.has_ended());
        session.ok_or(BridgeFault::UnknownSession)
    }

    /// Opens a session with what a request with these headers brings.
    async fn open(self: &Arc<Self>, headers: &HeaderMap) -> Result<Arc<Session>, BridgeFault> {
        let places = self.places()?;
        let (session, serving) = match &self.driver {
            Driver::Sse(endpoint, pool) => {
                let (endpoint, pool, patience) = (endpoint.clone(), Arc::clone(pool), self.patience);
                let sent = headers.clone();
                let opening = self
                    .shared
                    .runtime
                    .spawn(async move { sse::open(&endpoint, &pool, &sent, patience).await });
                let (outgoing, incoming) = Opening(opening).await?;
                (
                    self.session(Pipe::Sse(outgoing), headers, places),
                    Serving::Sse(incoming),
                )
            }
            Driver::Stdio(program) => {
                let brought = process::brought(program, headers);
                let place = self.process_place(&brought)?;
                let (program, sent) = (Arc::clone(program), headers.clone());
                let cache = self.shared.npm_cache(&program)?;
                let starting = self
                    .shared
                    .runtime
                    .spawn(async move { Process::start(&program, &sent, &cache, place) });
                let process = Opening(starting).await?;
                let (lines, outgoing) = mpsc::channel(OUTGOING);
                (
                    self.session(Pipe::Stdio(lines), headers, places),
                    Serving::Stdio(Box::new(process), outgoing, brought),
                )
            }
        };
        self.sessions().insert(session.id.clone(), Arc::clone(&session));
        let keeper = serving.run(
            Arc::downgrade(self),
            Arc::clone(&session),
            Arc::clone(&self.last_words),
        );
        self.shared.runtime.spawn(keeper);
        Ok(session)
    }

    fn session(&self, pipe: Pipe, headers: &HeaderMap, places: Places) -> Arc<Session> {
        let around = (self.shared.clock.clone(), self.shared.runtime.clone());
        Arc::new(Session::new(
            random_hex(),
            self.server.clone(),
            around,
            pipe,
            headers.clone(),
            places,
        ))
    }

    fn places(&self) -> Result<Places, BridgeFault> {
        let take = |places: &Arc<Semaphore>| {
            let place = Arc::clone(places).try_acquire_owned();
            place.map_err(|_| BridgeFault::TooManySessions)
        };
        let (of_server, of_all) = (take(&self.places)?, take(&self.shared.places)?);
        self.shared.sessions_open.inc();
        Ok(Places {
            _of_server: of_server,
            _of_all: of_all,
            open: self.shared.sessions_open.clone(),
        })
    }

    fn process_place(&self, brought: &[u8; 32]) -> Result<ProcessPlace, BridgeFault> {
        let failures = self.failures.get(brought).unwrap_or_default();
        let pause = self.shared.clock.now().until(failures.not_before);
        if !pause.is_zero() {
            return Err(BridgeFault::Again(pause));
        }
        let permit = Arc::clone(&self.shared.processes).try_acquire_owned();
        let permit = permit.map_err(|_| BridgeFault::TooManyProcesses)?;
        Ok(ProcessPlace::new(permit, &self.shared.processes_running))
    }

    /// Takes note of a program's end.
    fn program_ended(&self, brought: [u8; 32], by_itself: bool, started: Moment) {
        let now = self.shared.clock.now();
        if !by_itself || started.until(now) >= QUICK {
            return self.failures.invalidate(&brought);
        }
        let mut failures = self.failures.get(&brought).unwrap_or_default();
        let doubled = 2_u32.saturating_pow(failures.count);
        let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
        failures.count = failures.count.saturating_add(1);
        failures.not_before = now.plus(pause);
        self.failures.insert(brought, failures);
        tracing::warn!(server = %self.server, pause = ?pause, "a server's program ended soon after its start");
    }

    fn reap(&self) {
        let now = self.shared.clock.now();
        if let Driver::Sse(_, pool) = &self.driver {
            pool.reap();
        }
        let idle = |session: &Arc<Session>| {
            session.has_ended() || session.idle_since().is_some_and(|since| since.until(now) >= IDLE)
        };
        let old: Vec<_> = self.sessions().extract_if(|_, session| idle(session)).collect();
        for (_, session) in old {
            session.end();
        }
    }

    fn forget(&self, session: &Session) {
        self.sessions().remove(&session.id);
    }

    /// Ends all its sessions.
    pub fn end_all(&self) {
        let all = std::mem::take(&mut *self.sessions());
        for session in all.values() {
            session.end();
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Where npm keeps what it fetched: never the home directory of whoever runs the gateway.
    fn npm_cache(&self, program: &Program) -> Result<PathBuf, BridgeFault> {
        if let Some(configured) = &program.npm_cache {
            return Ok(configured.clone());
        }
        if let Some(made) = self.npm_cache.get() {
            return Ok(made.clone());
        }
        let made = program.temporary.join(format!("vestibule-npm-{}", random_hex()));
        private_directory(&made)
            .map_err(|error| BridgeFault::NotStarted(format!("no directory for npm: {}", error.kind())))?;
        Ok(self.npm_cache.get_or_init(|| made).clone())
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// What keeps a session going.
enum Serving {
    Sse(sse::Incoming),
    Stdio(Box<Process>, mpsc::Receiver<Bytes>, [u8; 32]),
}

impl Serving {
    async fn run(self, bridge: Weak<Bridge>, session: Arc<Session>, last_words: Arc<LastWords>) {
        match self {
            Self::Sse(incoming) => incoming.read(&session).await,
            Self::Stdio(process, outgoing, brought) => {
                let clock = session.clock().clone();
                let started = clock.now();
                let serving = process.serve(Arc::clone(&session), outgoing, last_words, clock);
                let (by_itself, place) = serving.await;
                if let Some(bridge) = bridge.upgrade() {
                    bridge.program_ended(brought, by_itself, started);
                }
                drop(place);
            }
        }
        session.end();
        if let Some(bridge) = bridge.upgrade() {
            bridge.forget(&session);
        }
    }
}

/// The opening of a pipe, on the runtime that it will live on. Dropped, it is given up.
struct Opening<T>(JoinHandle<Result<T, BridgeFault>>);

impl<T> Future for Opening<T> {
    type Output = Result<T, BridgeFault>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let opened = std::task::ready!(std::pin::Pin::new(&mut self.0).poll(cx));
        // A task of a runtime that is shutting down.
        std::task::Poll::Ready(opened.unwrap_or(Err(BridgeFault::Ended)))
    }
}

impl<T> Drop for Opening<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn own_text(id: &Id) -> &str {
    match id {
        Id::Text(text) | Id::Number(text) => text,
    }
}

fn is_error(answer: &[u8]) -> bool {
    vestibule_mcp::Envelope::parse(answer).is_some_and(|envelope| envelope.error.is_some())
}

/// The answer to a request: JSON when there is nothing but the answer, else events.
fn answer(first: Option<Item>, exchange: session::Exchange) -> Response<UpstreamBody> {
    match first {
        Some(Item::Last(message)) => {
            drop(exchange);
            whole(StatusCode::OK, Some(message))
        }
        first => stream(MessageBody::Answer(AnswerBody::new(first, exchange))),
    }
}

fn stream(body: MessageBody) -> Response<UpstreamBody> {
    let mut response = Response::new(UpstreamBody::messages(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A whole answer; without a message it has no body.
fn whole(status: StatusCode, message: Option<Bytes>) -> Response<UpstreamBody> {
    let is_json = message.is_some();
    let mut response = Response::new(UpstreamBody::messages(MessageBody::Whole(message)));
    *response.status_mut() = status;
    if is_json {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    response
}

/// A request that a server of Streamable HTTP refuses as well.
fn invalid(status: StatusCode, why: &str) -> Response<UpstreamBody> {
    const INVALID_REQUEST: i64 = -32600;
    whole(status, Some(message::error(None, INVALID_REQUEST, why)))
}

//! What a server sends back, as the client's answer; what servers ask the client, and the way back of what it says.
//!
//! A server's own request gets an id that names the server, so the client's answer finds its way from the id and
//! the session alone.

use super::session::{InFlight, locked};
use super::{Context, Stop, accepted, era, no_stream};
use crate::http::relay::capabilities::{may_ask, may_result, refuse};
use crate::http::relay::stream::{COMMENT, KEEP_ALIVE};
use crate::http::relay::upstream_client::{ANSWER_LIMIT, Posted, UpstreamClient, is};
use crate::ids::RequestId;
use crate::net::stream::UpstreamBody;
use crate::policy::{self, access};
use crate::registry::{End, Server, UnderWay};
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prometheus_client::metrics::gauge::Gauge;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use vestibule_mcp::members::Members;
use vestibule_mcp::raw::{quoted, replaced};
use vestibule_mcp::sse::EventReader;
use vestibule_mcp::{Envelope, RequestId as RpcId, id_value};

/// What tells of a request by the token that the request gave.
pub(super) const PROGRESS: &str = "notifications/progress";
/// What is wrong with an answer whose result is a question of a kind that is not allowed.
const ASKS: &str = "it asks what this server may not ask";
/// Before the id of a server's request.
const OURS: &str = "vestibule:";

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A request of the client's.
#[derive(Clone, Copy)]
pub(super) struct Asked<'r> {
    pub(super) rpc: &'r RpcId,
    pub(super) method: &'r str,
    pub(super) params: &'r Members<'r>,
}

impl Asked<'_> {
    /// The token by which its progress is told.
    fn progress(&self) -> Option<String> {
        let meta = Members::parse(self.params.get("_meta")?.get())?;
        meta.get("progressToken").map(id_value)
    }
}

/// Resolves when the client cancels what `cancelled` is of.
pub(super) async fn told(cancelled: Option<&Notify>) {
    match cancelled {
        Some(cancelled) => cancelled.notified().await,
        None => std::future::pending().await,
    }
}

/// The client's answer to the request `asked`, which is in flight for as long as the answer lives.
pub(super) async fn answer(
    ctx: &Context,
    server: &Arc<Server>,
    asked: Asked<'_>,
    client: UpstreamClient,
    posted: Posted,
    in_flight: Option<InFlight>,
) -> Result<Response<Body>, Refusal> {
    let Posted { head, read, mut rest } = posted;
    let rpc = asked.rpc;
    let kind = head.headers.get(header::CONTENT_TYPE);
    let says = |name: &[u8]| kind.is_some_and(|kind| is(kind, name));
    let eras = Eras {
        client_is_modern: ctx.modern,
        server_is_modern: client.opened().modern,
        cacheable: asked.method == "resources/read",
    };
    let mut response = if says(b"text/event-stream") && !head.status.is_redirection() {
        let mut events = EventReader::new(ANSWER_LIMIT);
        events.push(&read);
        let app = &ctx.caller.worker.app;
        let streams = app.metrics.streams.clone();
        streams.inc();
        let relay = Relay {
            events,
            rest,
            client: Arc::new(client),
            call: UnderWay::begin(Arc::clone(server)),
            ending: server.over(ctx.caller.worker.app.limits.drain_timeout).boxed(),
            rpc: rpc.clone(),
            eras,
            progress: asked.progress(),
            answers: ctx.session.is_some(),
            answered: false,
            over: false,
            heard: Instant::now(),
            due: Instant::now() + KEEP_ALIVE,
            idle: app.limits.stream_idle_timeout,
            id: ctx.id,
            streams,
            in_flight,
        };
        event_stream(unfold(relay, |mut relay| async {
            let bytes = relay.next().await?;
            relay.due = Instant::now() + KEEP_ALIVE;
            Some((Ok(Frame::data(bytes)), relay))
        }))
    } else if says(b"application/json") {
        let (bytes, complete) = if read.is_empty() {
            let reading = rest.buffer(ANSWER_LIMIT, server.first_byte_timeout).await;
            reading.map_err(|_| truncated(server))?
        } else {
            (read, true)
        };
        if !complete || bytes.len() > ANSWER_LIMIT {
            return Err(not_mcp(server, "an answer that is too large or too slow"));
        }
        // Where only the end of the connection ends the body, a broken connection looks like an end.
        if serde_json::from_slice::<IgnoredAny>(&bytes).is_err_and(|error| error.is_eof()) {
            return Err(truncated(server));
        }
        let text = std::str::from_utf8(&bytes).ok();
        let what = format!("status {} with JSON that answers nothing", head.status.as_u16());
        let own = text
            .and_then(|text| of_this_request(text, rpc))
            .ok_or_else(|| not_mcp(server, &what))?;
        if !may_answer(server, &own) {
            return Err(not_mcp(server, ASKS));
        }
        let changed = eras.translated(&own);
        let mut response = Response::new(Body::full(match (changed, own) {
            (Some(changed), _) | (None, Cow::Owned(changed)) => Bytes::from(changed),
            (None, Cow::Borrowed(_)) => bytes,
        }));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    } else if head.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Refusal::new(ErrorCode::UpstreamRateLimited));
    } else {
        let what = format!("status {} without JSON or events", head.status.as_u16());
        return Err(not_mcp(server, &what));
    };
    *response.status_mut() = head.status;
    if let Some(after) = head.headers.get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    Ok(response)
}

/// A response that is a stream of events.
pub(super) fn event_stream(
    events: impl futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::frames(StreamBody::new(events)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// One event. Ids of servers' events stay out: a stream of several cannot be resumed by one server's id.
pub(super) fn event(data: &str) -> Bytes {
    let mut event = String::with_capacity(data.len() + 32);
    event.push_str("event: message\n");
    for line in data.split('\n') {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Bytes::from(event)
}

/// The two ends of an answer.
#[derive(Clone, Copy)]
struct Eras {
    client_is_modern: bool,
    server_is_modern: bool,
    cacheable: bool,
}

impl Eras {
    /// The answer `message` as the client's era writes it; `None` where it is right as it came.
    fn translated(self, message: &str) -> Option<String> {
        if self.client_is_modern == self.server_is_modern {
            return None;
        }
        let envelope = Envelope::parse(message.as_bytes())?;
        if let Some(error) = envelope.error {
            let members = Members::parse(error.get())?;
            let code = members.get("code")?.get();
            // A resource that is not there.
            return (self.client_is_modern && code == "-32002").then(|| {
                let error = members.rebuilt(|name| name != "code", &[("code", "-32602")]);
                replaced(message, envelope.error.map_or("", |error| error.get()), &error)
            });
        }
        let result = envelope.result?.get();
        let members = Members::parse(result)?;
        let own = |name: &str| matches!(name, "resultType" | "ttlMs" | "cacheScope");
        let changed = if self.client_is_modern {
            let complete = quoted("complete");
            let private = quoted("private");
            let mut more = vec![("resultType", complete.as_str())];
            if self.cacheable {
                more.extend([("ttlMs", "0"), ("cacheScope", private.as_str())]);
            }
            members.rebuilt(|name| !own(name), &more)
        } else {
            members.rebuilt(|name| !own(name), &[])
        };
        Some(replaced(message, result, &changed))
    }
}

/// A server's stream on its way to the client.
struct Relay {
    events: EventReader,
    rest: UpstreamBody,
    client: Arc<UpstreamClient>,
    call: UnderWay<Arc<Server>>,
    /// See [`Server::over`].
    ending: BoxFuture<'static, End>,
    rpc: RpcId,
    eras: Eras,
    /// The request's own token of progress.
    progress: Option<String>,
    /// The client can answer a server's request.
    answers: bool,
    answered: bool,
    over: bool,
    /// When the server last sent anything.
    heard: Instant,
    /// When the client has to be sent something: much of what servers send is not for it.
    due: Instant,
    idle: Duration,
    id: RequestId,
    streams: Gauge,
    in_flight: Option<InFlight>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

impl Relay {
    /// What goes to the client next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            if self.due <= Instant::now() {
                return Some(Bytes::from_static(COMMENT));
            }
            match self.events.next_event() {
                Ok(Some(found)) => {
                    if let Some(data) = self.passed(found.data) {
                        return Some(event(&data));
                    }
                    continue;
                }
                Err(fault) => return Some(self.cut(&fault.to_string())),
                Ok(None) => {}
            }
            let wait = self.due.min(self.heard + self.idle);
            let cancelled = self.in_flight.as_ref().map(InFlight::cancelled);
            let frame = tokio::select! {
                biased;
                // A server without sessions learns it from the end of the stream.
                () = told(cancelled.as_deref()) => {
                    return Some(self.ended(&Refusal::new(ErrorCode::RequestCancelled)));
                }
                how = &mut self.ending => return Some(self.cut(match how {
                    End::Removed => "the server was removed",
                    End::Replaced => "the server was configured otherwise",
                })),
                frame = timeout_at(wait, self.rest.frame()) => frame,
            };
            match frame {
                Ok(Some(Ok(frame))) => {
                    self.heard = Instant::now();
                    if let Ok(data) = frame.into_data() {
                        self.events.push(&data);
                    }
                }
                Ok(Some(Err(error))) => return Some(self.cut(&error.to_string())),
                Ok(None) if self.answered => return None,
                Ok(None) => return Some(self.cut("the stream ended without an answer")),
                Err(_) if self.heard.elapsed() >= self.idle => {
                    return Some(self.cut("the server was silent for too long"));
                }
                Err(_) => {}
            }
        }
        None
    }

    /// The client's message for the server's.
    fn passed(&mut self, data: String) -> Option<String> {
        let envelope = Envelope::parse(data.as_bytes())?;
        if envelope.method.is_none() {
            let own = of_this_request(&data, &self.rpc)?.into_owned();
            self.answered = true;
            if !may_answer(self.call.server(), &own) {
                return Some(self.error(&not_mcp(self.call.server(), ASKS)));
            }
            return Some(self.eras.translated(&own).unwrap_or(own));
        }
        let asks = envelope.method.as_deref().unwrap_or_default();
        if envelope.id.is_some() && !(self.answers && may_ask(self.call.server(), asks)) {
            refuse(&self.client, &data);
            return None;
        }
        // A token of another request is perhaps one that another server works on.
        if asks == PROGRESS && told_progress(&envelope).is_none_or(|told| Some(told) != self.progress) {
            return None;
        }
        Some(marked(self.call.server(), data))
    }

    /// The end of a stream that has no answer: the client hears an error and does not wait.
    fn cut(&mut self, why: &str) -> Bytes {
        let server = self.call.server();
        let refusal = truncated(server);
        tracing::warn!(request_id = %self.id, server = %server.name, code = refusal.code.name(), "an answer was cut: {why}");
        self.ended(&refusal)
    }

    /// The last of the stream: the client hears why there is no answer, if there was none.
    fn ended(&mut self, refusal: &Refusal) -> Bytes {
        self.over = true;
        if self.answered {
            return Bytes::from_static(COMMENT);
        }
        event(&self.error(refusal))
    }

    /// The answer to the request in the place of the server's.
    fn error(&self, refusal: &Refusal) -> String {
        let code = refusal.code;
        let error = json!({
            "code": code.rpc(),
            "message": refusal.message,
            "data": {"code": code.name(), "next_step": code.next_step(), "request_id": self.id.as_str()},
        });
        format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#,
            self.rpc.as_json()
        )
    }
}

/// The token of a notification of progress.
fn told_progress(envelope: &Envelope<'_>) -> Option<String> {
    let params = Members::parse(envelope.params?.get())?;
    params.get("progressToken").map(id_value)
}

/// The answer in `message`, if it is one to this request: a client takes an answer by its id, and another request's
/// may be another server's. An error without an id is of a server that could not read the request.
fn of_this_request<'m>(message: &'m str, rpc: &RpcId) -> Option<Cow<'m, str>> {
    let envelope = Envelope::parse(message.as_bytes()).filter(|envelope| envelope.method.is_none())?;
    match (envelope.id, envelope.result, envelope.error) {
        (Some(id), _, _) if id.get() == rpc.as_json() => Some(Cow::Borrowed(message)),
        // As the client wrote it.
        (Some(id), _, _) => rpc
            .is(id)
            .then(|| Cow::Owned(replaced(message, id.get(), rpc.as_json()))),
        (None, None, Some(_)) => {
            let members = Members::parse(message)?;
            Some(Cow::Owned(
                members.rebuilt(|name| name != "id", &[("id", rpc.as_json())]),
            ))
        }
        _ => None,
    }
}

/// Whether an answer asks nothing that the server may not ask.
fn may_answer(server: &Server, answer: &str) -> bool {
    let result = Envelope::parse(answer.as_bytes()).and_then(|envelope| envelope.result);
    result.is_none_or(|result| may_result(server, result))
}

fn not_mcp(server: &Server, what: &str) -> Refusal {
    let message = format!(
        "What came from the MCP server {} is not MCP: {what}.",
        server.name
    );
    Refusal::because(ErrorCode::UpstreamNotMcp, message)
}

/// A server's message with what the client refers to it by leading back to the server: the id of a request and
/// the token of its progress, and the id that a cancellation names.
pub(super) fn marked(server: &Server, data: String) -> String {
    let Some(envelope) = Envelope::parse(data.as_bytes()) else {
        return data;
    };
    let mark = |raw: &RawValue| quoted(&format!("{OURS}{}:{}", server.id, raw.get()));
    let params = envelope.params.and_then(|params| Members::parse(params.get()));
    let changed = match (envelope.id, envelope.method.as_deref(), params) {
        (Some(id), _, params) => {
            let meta = params.and_then(|params| Members::parse(params.get("_meta")?.get()));
            let token = meta.and_then(|meta| meta.get("progressToken"));
            // The id stands outside of params, so each is found where it was whichever comes first.
            let changed = token.map(|token| replaced(&data, token.get(), &mark(token)));
            match changed {
                None => Some(replaced(&data, id.get(), &mark(id))),
                Some(changed) => Envelope::parse(changed.as_bytes())
                    .and_then(|envelope| envelope.id)
                    .map(|id| replaced(&changed, id.get(), &mark(id))),
            }
        }
        (None, Some("notifications/cancelled"), Some(params)) => params
            .get("requestId")
            .map(|request| replaced(&data, request.get(), &mark(request))),
        _ => None,
    };
    changed.unwrap_or(data)
}

/// The server that something is marked for, and what it was there.
fn unmarked<'c>(ctx: &'c Context, value: &RawValue) -> Option<(&'c Arc<Server>, String)> {
    let text = vestibule_mcp::members::text(value)?;
    let rest = text.strip_prefix(OURS)?;
    let (server, original) = ctx.scope.servers.iter().find_map(|server| {
        let original = rest.strip_prefix(&*server.id)?.strip_prefix(':')?;
        Some((server, original))
    })?;
    // It comes back from the client, so it is looked at again: nothing but an id takes its place.
    let is_id = matches!(
        serde_json::from_str(original),
        Ok(Value::String(_) | Value::Number(_))
    );
    is_id.then(|| (server, original.to_owned()))
}

fn truncated(server: &Server) -> Refusal {
    let message = format!(
        "The answer of the MCP server {} ended before its end.",
        server.name
    );
    Refusal::because(ErrorCode::UpstreamTruncated, message)
}

/// The client's answer to a server's request: to that server, with the id that it gave.
pub(super) async fn client_answered(ctx: &Context, envelope: &Envelope<'_>) -> Result<Response<Body>, Stop> {
    let to_nobody = || {
        let what = "The message answers no request of a server's.";
        Stop::from(Refusal::because(ErrorCode::InvalidMessage, what))
    };
    let (Some(session), Some(id)) = (&ctx.session, envelope.id) else {
        return Err(to_nobody());
    };
    let (member, said) = match (envelope.result, envelope.error) {
        (Some(result), None) => ("result", result.get()),
        (None, Some(error)) => ("error", error.get()),
        _ => return Err(to_nobody()),
    };
    let (server, original) = unmarked(ctx, id).ok_or_else(to_nobody)?;
    let opened = session.opened(server).ok_or_else(to_nobody)?;
    // Made anew: a reader that does not tell capital letters from small ones finds a call among further members.
    let body = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{original},"{member}":{said}}}"#
    ));
    judged(ctx, server, &body).map_err(|refusal| Stop::of(server, refusal))?;
    let client = ctx.resumed(server, opened);
    match client.post("", None, None, body).await {
        Ok(_) => Ok(accepted()),
        Err(found) => Err(super::fault(server, &client, found)),
    }
}

/// What the server's tool rules say of a message as the server gets it.
fn judged(ctx: &Context, server: &Server, sent: &[u8]) -> Result<(), Refusal> {
    let rules = access::permit(&ctx.caller.admission, server)?;
    if rules.are_none() {
        return Ok(());
    }
    policy::message::judge(&rules, &HeaderMap::new(), sent).map(drop)
}

/// The client's notification, to the servers that it concerns. Nobody waits for them. It is made anew of method and
/// params, as a request is.
pub(super) fn client_notified(ctx: &Context, method: &str, params: &Members<'_>) {
    let Some(session) = &ctx.session else { return };
    let mut changed = Vec::new();
    let open = || {
        let servers = ctx.scope.servers.iter();
        servers.filter_map(|server| Some((server, session.opened(server)?)))
    };
    let to: Vec<_> = match method {
        "notifications/cancelled" => {
            let request = params.get("requestId").map(id_value);
            let working = request.and_then(|id| locked(&session.live.in_flight).get(&id).cloned());
            let works = |server: &Server| working.as_ref().is_none_or(|working| working.server == server.id);
            // Another replica may know who works on it; a server that does not know the request ignores this.
            let (modern, legacy): (Vec<_>, Vec<_>) = open()
                .filter(|(server, _)| works(server))
                .partition(|(_, opened)| opened.modern);
            if let (Some(working), false) = (&working, modern.is_empty()) {
                working.cancelled.notify_one();
            }
            legacy
        }
        PROGRESS => {
            let token = params.get("progressToken");
            let Some((server, original)) = token.and_then(|token| unmarked(ctx, token)) else {
                return;
            };
            changed.push(("progressToken", original));
            let opened = session.opened(server);
            opened.map(|opened| (server, opened)).into_iter().collect()
        }
        "notifications/roots/list_changed" => open().collect(),
        _ => return,
    };
    for (server, opened) in to {
        let message = era::message(opened.modern, ctx.modern, None, method, params, &changed);
        if let Err(refusal) = judged(ctx, server, &message) {
            tracing::info!(request_id = %ctx.id, server = %server.name, code = refusal.code.name(), "a notification was not passed on");
            continue;
        }
        let client = ctx.resumed(server, opened);
        let method = method.to_owned();
        tokio::spawn(async move {
            // A server that is away has nothing to be told.
            let _ = client.post(&method, None, None, message).await;
        });
    }
}

/// The client's own stream.
pub(super) fn listen(ctx: &mut Context) -> Result<Response<Body>, Stop> {
    let session = ctx.session.take().ok_or_else(no_stream)?;
    Ok(event_stream(super::listen::merged(ctx, session)))
}

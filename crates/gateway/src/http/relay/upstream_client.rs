//! The gateway as an MCP client of its own: opens a session (or none, from revision 2026-07-28 on) or goes on with
//! one, asks for what it needs itself, and posts what it relays for somebody.

mod answer;

pub(crate) use answer::Welcome;
pub(super) use answer::{Reply, RpcError, answer_to, is, tells_the_era};

use super::forward::{Bearer, Call};
use crate::admission::Admission;
use crate::app::Worker;
use crate::diagnosis::Resolutions;
use crate::net::stream::UpstreamBody;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use answer::{misses_the_session, unrelated_error, welcome};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use vestibule_mcp::headers::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use vestibule_mcp::sse::EventReader;

/// The largest answer that is read whole.
pub(super) const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// The newest revision with `initialize`.
pub(super) const LEGACY: &str = "2025-11-25";
/// The first without.
pub(super) const MODERN: &str = "2026-07-28";

/// How long the end of a session may take; nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(5);
/// As much of a 400 is read to see whether it speaks of the session.
const COMPLAINT: usize = 64 * 1024;

/// Who asks, and what the request carries for servers.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(super) worker: Arc<Worker>,
    pub(super) admission: Arc<Admission>,
    /// The caller's headers without those that each message has for itself.
    headers: Arc<HeaderMap>,
    /// `Mcp-Param-*`, which mirror arguments to servers of the newer revisions.
    mirrored: Arc<HeaderMap>,
    /// Where it is noted what servers were shown; `None` unless the caller asked.
    resolutions: Option<Arc<Resolutions>>,
}

impl Caller {
    pub(crate) fn new(worker: &Arc<Worker>, admission: &Arc<Admission>, headers: &HeaderMap) -> Self {
        let mut own = headers.clone();
        let mut mirrored = HeaderMap::new();
        for (name, value) in headers {
            let text = name.as_str();
            if text.starts_with("mcp-param-") {
                mirrored.append(name.clone(), value.clone());
            }
            let of_the_message = ["mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"];
            if text.starts_with("mcp-param-") || of_the_message.contains(&text) {
                own.remove(name);
            }
        }
        own.remove(header::ACCEPT);
        own.remove(header::CONTENT_TYPE);
        Self {
            worker: Arc::clone(worker),
            admission: Arc::clone(admission),
            headers: Arc::new(own),
            mirrored: Arc::new(mirrored),
            resolutions: None,
        }
    }
}

impl Caller {
    /// Notes in `resolutions` what each server is shown.
    pub(super) fn noting(mut self, resolutions: Option<&Arc<Resolutions>>) -> Self {
        self.resolutions = resolutions.cloned();
        self
    }

    /// For requests that are no MCP: what their headers say in the place of arguments, no rule has judged.
    pub(crate) fn without_mirrored(mut self) -> Self {
        self.mirrored = Arc::default();
        self
    }

    /// The `Mcp-Param-*` headers of the request.
    pub(super) fn mirrored(&self) -> &HeaderMap {
        &self.mirrored
    }
}

/// What the server hears of the client.
#[derive(PartialEq, Eq)]
pub(crate) struct Hello {
    /// The revision that is asked for.
    pub(super) version: String,
    /// The client's capabilities, as JSON.
    pub(super) capabilities: String,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            version: LEGACY.into(),
            capabilities: "{}".into(),
        }
    }
}

/// What a handshake came to, which is all that a later request needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The server's session id, where it gives one.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// The revision that is spoken.
    #[serde(rename = "v")]
    pub(crate) version: String,
    /// The server knows no `initialize`.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) modern: bool,
}

impl Opened {
    /// What every conversation in the newer revisions is.
    pub(super) fn modern() -> Self {
        Self {
            session: None,
            version: MODERN.into(),
            modern: true,
        }
    }
}

/// Why there is no answer.
pub(super) enum Fault {
    /// The server does not know the session, so it did nothing.
    SessionGone,
    /// The server answered with a JSON-RPC error.
    Rpc(RpcError),
    Refused(Refusal),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The head of an answer, what was read of its body already, and the rest.
pub(super) struct Posted {
    pub(super) head: Parts,
    pub(super) read: Bytes,
    pub(super) rest: UpstreamBody,
}

/// A conversation with one server. One that opened a session ends it when it is dropped, whatever became of it,
/// behind the answer's back.
pub(crate) struct UpstreamClient {
    caller: Caller,
    server: Arc<Server>,
    bearer: Bearer,
    opened: Opened,
    /// The session is nobody else's.
    owned: bool,
    /// Before the numbers of our own requests, where the session has the client's requests too.
    prefix: Option<String>,
    next_id: AtomicU64,
}

/// A request to the server.
#[derive(Serialize)]
struct Message<'m> {
    jsonrpc: &'static str,
    id: &'m Value,
    method: &'m str,
    params: Params<'m>,
}

#[derive(Serialize)]
struct Params<'p> {
    #[serde(flatten)]
    known: &'p Value,
    /// Raw, because a [`Value`] keeps no more than 64 bits of a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'p RawValue>,
}

impl UpstreamClient {
    /// Begins a conversation. A server of the newer revisions has said nothing of itself yet.
    pub(crate) async fn open(
        caller: &Caller,
        server: &Arc<Server>,
        bearer: Bearer,
        hello: &Hello,
    ) -> Result<(Self, Option<Welcome>), Refusal> {
        let opened = Opened {
            session: None,
            version: hello.version.clone(),
            modern: false,
        };
        let mut client = Self::resume(caller, server, bearer, opened);
        client.owned = true;
        let welcome = client.initialize(hello).await?;
        Ok((client, welcome))
    }

    /// Begins a conversation in the newer revisions with `server/discover`. `None` from a server that answers as one
    /// of the older revisions does (MCP 2026-07-28, "Versioning"). What says nothing of revisions, like a 401, a 500 or
    /// silence, is a refusal.
    pub(super) async fn probe(
        caller: &Caller,
        server: &Arc<Server>,
        bearer: Bearer,
    ) -> Result<Option<(Self, Welcome)>, Refusal> {
        let client = Self::resume(caller, server, bearer, Opened::modern());
        let (id, body) = client.message("server/discover", json!({}), None)?;
        let whole = async {
            let posted = match client.post("server/discover", None, None, body).await {
                Ok(posted) => posted,
                Err(fault) => return Err(client.refusal(fault)),
            };
            let status = posted.head.status;
            if !status.is_success() && !tells_the_era(status) {
                return Err(client.undecided(status));
            }
            match client.reply(posted, &id).await {
                // An answer that cannot be read is an answer all the same.
                Err(_) if status.is_client_error() => Ok(None),
                reply => reply.map(Some),
            }
        };
        let late = Refusal::new(ErrorCode::UpstreamTimeout);
        let reply = timeout(server.first_byte_timeout, whole)
            .await
            .unwrap_or(Err(late))?;
        Ok(match reply {
            Some(Reply::Result(result)) => {
                let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
                let versions = result["supportedVersions"].as_array();
                let speaks =
                    versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN));
                speaks.then(|| (client, welcome(&result)))
            }
            // Only the newer revisions have these numbers. -32022 would say that it has none of ours.
            Some(Reply::Error(RpcError {
                code: -32020 | -32021,
                ..
            })) => Some((client, Welcome::of_the_silent())),
            Some(Reply::Error(_)) | None => None,
        })
    }

    /// Goes on with a conversation; its session outlives this.
    pub(super) fn resume(caller: &Caller, server: &Arc<Server>, bearer: Bearer, opened: Opened) -> Self {
        Self {
            caller: caller.clone(),
            server: Arc::clone(server),
            bearer,
            opened,
            owned: false,
            prefix: None,
            next_id: AtomicU64::new(1),
        }
    }

    /// Answers the server within the conversation that `call` is of.
    pub(super) fn answering(caller: &Caller, call: &Call<'_>) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let version = call.headers.get(MCP_PROTOCOL_VERSION).and_then(text);
        let opened = Opened {
            session: call.session.and_then(text),
            version: version.unwrap_or_else(|| LEGACY.into()),
            modern: false,
        };
        Self::resume(caller, call.server, call.bearer, opened)
    }

    /// Our own requests have ids that no client of this session uses.
    pub(super) fn with_ids(mut self, prefix: String) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// What the handshake came to.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The session is kept by somebody else from now on.
    pub(super) fn keep(&mut self) -> Opened {
        self.owned = false;
        self.opened.clone()
    }

    /// The session is this conversation's alone.
    pub(super) fn end_with_this(&mut self) {
        self.owned = true;
    }

    async fn initialize(&mut self, hello: &Hello) -> Result<Option<Welcome>, Refusal> {
        let capabilities: Value = serde_json::from_str(&hello.capabilities).unwrap_or_default();
        let params = json!({
            "protocolVersion": hello.version,
            "capabilities": capabilities,
            "clientInfo": client_info(),
        });
        match self.exchange("initialize", params, None).await {
            Ok((result, session)) => {
                let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
                if let Some(version) = result["protocolVersion"]
                    .as_str()
                    .filter(|text| HeaderValue::from_str(text).is_ok())
                {
                    version.clone_into(&mut self.opened.version);
                }
                self.opened.session = session
                    .and_then(|session| session.to_str().ok().map(str::to_owned))
                    .filter(|session| !session.is_empty());
                self.notify("notifications/initialized").await?;
                Ok(Some(welcome(&result)))
            }
            // Only a server of the newer revisions says these to `initialize`, unless it speaks of what the client
            // said: then its own word decides.
            Err(Fault::Rpc(
                error @ RpcError {
                    code: -32601 | -32602 | -32020 | -32022,
                    ..
                },
            )) => {
                let welcome = if *hello == Hello::default() {
                    None
                } else {
                    let found = Self::probe(&self.caller, &self.server, self.bearer).await?;
                    let (_, welcome) = found.ok_or_else(|| self.refused(&error))?;
                    Some(welcome)
                };
                self.opened = Opened::modern();
                Ok(welcome)
            }
            Err(fault) => Err(self.refusal(fault)),
        }
    }

    /// What a server of the newer revisions says of itself; one that does not say is taken to have everything.
    pub(super) async fn discover(&self) -> Result<Welcome, Refusal> {
        match self.exchange("server/discover", json!({}), None).await {
            Ok((result, _)) => Ok(welcome(&serde_json::from_str(result.get()).unwrap_or_default())),
            Err(Fault::Rpc(_)) => Ok(Welcome::of_the_silent()),
            Err(fault) => Err(self.refusal(fault)),
        }
    }

    /// Sends a request and gives its result as it came. `arguments` are a tool's, as the caller wrote them.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Refusal> {
        let asked = self.ask(method, params, arguments).await;
        asked.map_err(|fault| self.refusal(fault))
    }

    /// [`UpstreamClient::request`], with the server's own errors told apart.
    pub(super) async fn ask(
        &self,
        method: &str,
        params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Fault> {
        Ok(self.exchange(method, params, arguments).await?.0)
    }

    async fn notify(&self, method: &str) -> Result<(), Refusal> {
        let body = json!({"jsonrpc": "2.0", "method": method}).to_string();
        let posted = self.post(method, None, None, Bytes::from(body)).await;
        posted.map(drop).map_err(|fault| self.refusal(fault))
    }

    async fn exchange(
        &self,
        method: &str,
        params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<(Box<RawValue>, Option<HeaderValue>), Fault> {
        let name = params["name"].as_str().map(str::to_owned);
        let (id, body) = self.message(method, params, arguments)?;
        let whole = async {
            let posted = self.post(method, name.as_deref(), None, body).await?;
            let session = posted.head.headers.get(MCP_SESSION_ID).cloned();
            match self.reply(posted, &id).await? {
                Reply::Result(result) => Ok((result, session)),
                Reply::Error(error) => Err(Fault::Rpc(error)),
            }
        };
        let late = Refusal::new(ErrorCode::UpstreamTimeout);
        timeout(self.server.first_byte_timeout, whole)
            .await
            .unwrap_or(Err(Fault::Refused(late)))
    }

    /// A request of our own, with its id as JSON.
    pub(super) fn message(
        &self,
        method: &str,
        mut params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<(String, Bytes), Refusal> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = match &self.prefix {
            None => Value::from(number),
            Some(prefix) => Value::from(format!("{prefix}-{number}")),
        };
        if self.opened.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
        }
        let message = Message {
            jsonrpc: "2.0",
            id: &id,
            method,
            params: Params {
                known: &params,
                arguments,
            },
        };
        let body = serde_json::to_vec(&message).map_err(|_| Refusal::new(ErrorCode::Internal))?;
        Ok((id.to_string(), Bytes::from(body)))
    }

    /// Posts a message. `name` is what the method is about: a tool, a prompt, a resource. `mirrored` are the
    /// caller's `Mcp-Param-*` headers, which belong to the caller's own call and to nothing else.
    pub(super) async fn post(
        &self,
        method: &str,
        name: Option<&str>,
        mirrored: Option<&HeaderMap>,
        body: Bytes,
    ) -> Result<Posted, Fault> {
        let mut headers = (*self.caller.headers).clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if self.opened.modern {
            let mirrored = mirrored.into_iter().flatten();
            headers.extend(mirrored.map(|(name, value)| (name.clone(), value.clone())));
            for (header, value) in [
                ("mcp-method", Some(method.to_owned())),
                ("mcp-name", name.map(header_text)),
            ] {
                if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    headers.insert(HeaderName::from_static(header), value);
                }
            }
        }
        let response = self
            .send(&Method::POST, headers, method != "initialize", body)
            .await?;
        let (head, mut rest) = response.into_parts();
        let mut read = Bytes::new();
        if method != "initialize" && !self.opened.modern {
            if head.status == StatusCode::NOT_FOUND {
                return Err(Fault::SessionGone);
            }
            if head.status == StatusCode::BAD_REQUEST {
                let (bytes, _) = rest
                    .buffer(COMPLAINT, self.server.first_byte_timeout)
                    .await
                    .map_err(|_| Refusal::new(ErrorCode::UpstreamTruncated))?;
                if misses_the_session(&bytes) {
                    return Err(Fault::SessionGone);
                }
                read = bytes;
            }
        }
        Ok(Posted { head, read, rest })
    }

    /// Asks for the server's own stream of messages. `None` when it has none.
    pub(super) async fn listen(&self) -> Result<Option<UpstreamBody>, Fault> {
        let mut headers = (*self.caller.headers).clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = self.send(&Method::GET, headers, true, Bytes::new()).await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let stream = kind.is_some_and(|kind| is(kind, b"text/event-stream"));
        Ok((response.status().is_success() && stream).then(|| response.into_body()))
    }

    async fn send(
        &self,
        method: &Method,
        mut headers: HeaderMap,
        opened: bool,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, Fault> {
        let app = &self.caller.worker.app;
        let _under_way = self.server.begin_call(app.limits.max_calls_per_server)?;
        if opened && let Ok(version) = HeaderValue::from_str(&self.opened.version) {
            headers.insert(MCP_PROTOCOL_VERSION, version);
        }
        let session = self.session();
        let call = Call {
            worker: &self.caller.worker,
            server: &self.server,
            admission: &self.caller.admission,
            bearer: self.bearer,
            method,
            headers: &headers,
            session: session.as_ref(),
            body,
        };
        let resolutions = self.caller.resolutions.as_deref();
        if let Some(resolutions) = resolutions {
            resolutions.concerns(&self.server);
        }
        let answer = call.forward().await;
        match (resolutions, &answer) {
            (None, _) => {}
            (Some(resolutions), Ok(answer)) => resolutions.shown(&self.server, answer.resolution),
            (Some(resolutions), Err(refusal)) => {
                resolutions.refused(&self.server, refusal, call.intended());
            }
        }
        // A bridge has no 404: it refuses before anything is sent.
        let answer = answer.map_err(|refusal| match refusal.code {
            ErrorCode::UnknownSession if session.is_some() => Fault::SessionGone,
            _ => Fault::Refused(refusal),
        })?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        call.credential_was_taken(status, headers, answer.resolution)?;
        Ok(answer.response)
    }

    fn session(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.opened.session.as_deref()?).ok()
    }

    /// The answer to request `id`, out of a JSON body or an event stream.
    pub(super) async fn reply(&self, posted: Posted, id: &str) -> Result<Reply, Refusal> {
        let Posted { head, read, mut rest } = posted;
        let status = head.status;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Refusal::new(ErrorCode::UpstreamRateLimited));
        }
        let kind = head.headers.get(header::CONTENT_TYPE);
        let broken = || Refusal::new(ErrorCode::UpstreamTruncated);
        if kind.is_some_and(|kind| is(kind, b"text/event-stream")) {
            let mut events = EventReader::new(ANSWER_LIMIT);
            events.push(&read);
            loop {
                while let Some(event) = events
                    .next_event()
                    .map_err(|fault| self.not_mcp(&fault.to_string()))?
                {
                    if let Some(reply) = answer_to(id, event.data.as_bytes()) {
                        return Ok(reply);
                    }
                }
                let Some(frame) = rest.frame().await else {
                    return Err(broken());
                };
                if let Ok(data) = frame.map_err(|_| broken())?.into_data() {
                    events.push(&data);
                }
            }
        }
        if !kind.is_some_and(|kind| is(kind, b"application/json")) {
            return Err(self.not_mcp(&format!("status {} without JSON", status.as_u16())));
        }
        let (bytes, complete) = if read.is_empty() {
            rest.buffer(ANSWER_LIMIT, self.server.first_byte_timeout)
                .await
                .map_err(|_| broken())?
        } else {
            (read, true)
        };
        if !complete || bytes.len() > ANSWER_LIMIT {
            return Err(self.not_mcp("an answer that is too large or too slow"));
        }
        let reply =
            answer_to(id, &bytes).or_else(|| (status != StatusCode::OK).then(|| unrelated_error(&bytes))?);
        reply.ok_or_else(|| {
            self.not_mcp(&format!(
                "status {} with JSON that answers nothing",
                status.as_u16()
            ))
        })
    }

    /// What the caller hears of a fault.
    pub(super) fn refusal(&self, fault: Fault) -> Refusal {
        match fault {
            Fault::SessionGone => self.not_mcp("no answer but that it does not know the session it gave"),
            Fault::Rpc(error) => self.refused(&error),
            Fault::Refused(refusal) => refusal,
        }
    }

    pub(super) fn not_mcp(&self, what: &str) -> Refusal {
        let message = format!(
            "What came from the MCP server {} is not MCP: {what}.",
            self.server.name
        );
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    }

    /// Nothing is known of a server that answers a probe like this.
    fn undecided(&self, status: StatusCode) -> Refusal {
        match status {
            StatusCode::TOO_MANY_REQUESTS => Refusal::new(ErrorCode::UpstreamRateLimited),
            status => self.not_mcp(&format!("status {} to server/discover", status.as_u16())),
        }
    }

    fn refused(&self, error: &RpcError) -> Refusal {
        let message = format!(
            "The MCP server {} answered with error {}: {}",
            self.server.name,
            error.code,
            shown(&error.message, 500)
        );
        Refusal::because(ErrorCode::UpstreamError, message)
    }
}

impl UpstreamClient {
    /// Ends the session, and waits for that.
    pub(crate) async fn close(mut self) {
        if let Some(farewell) = self.farewell() {
            farewell.await;
        }
    }

    /// The end of the session, if it is this conversation's to end.
    fn farewell(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        if !std::mem::take(&mut self.owned) {
            return None;
        }
        let session = self.session()?;
        let mut headers = (*self.caller.headers).clone();
        if let Ok(version) = HeaderValue::from_str(&self.opened.version) {
            headers.insert(MCP_PROTOCOL_VERSION, version);
        }
        let (caller, server) = (self.caller.clone(), Arc::clone(&self.server));
        let bearer = self.bearer;
        Some(async move {
            let call = Call {
                worker: &caller.worker,
                server: &server,
                admission: &caller.admission,
                bearer,
                method: &Method::DELETE,
                headers: &headers,
                session: Some(&session),
                body: Bytes::new(),
            };
            // Whether the server minds is its own affair.
            let _ = timeout(FAREWELL, call.forward()).await;
        })
    }
}

impl Drop for UpstreamClient {
    fn drop(&mut self) {
        if let (Some(farewell), Ok(runtime)) = (self.farewell(), Handle::try_current()) {
            runtime.spawn(farewell);
        }
    }
}

/// `clientInfo` and `serverInfo` of the gateway.
pub(super) fn client_info() -> Value {
    json!({"name": "vestibule", "version": env!("CARGO_PKG_VERSION")})
}

/// A value as MCP puts it into a header: as it is, or in Base64 where a header could not carry it
/// (MCP 2026-07-28, "Standard request headers").
pub(super) fn header_text(text: &str) -> String {
    let printable = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e | b'\t'));
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let plain = printable && !looks_encoded && text.trim_matches([' ', '\t']) == text;
    if plain {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64_STANDARD.encode(text))
    }
}

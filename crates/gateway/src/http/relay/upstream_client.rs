//! The gateway as an MCP client of its own, for the REST facade: opens a session (or none, from revision
//! 2026-07-28 on), sends requests, reads one answer each.

use super::forward::Call;
use crate::admission::Admission;
use crate::app::Worker;
use crate::net::stream::UpstreamBody;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use vestibule_mcp::Envelope;
use vestibule_mcp::headers::{MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use vestibule_mcp::sse::EventReader;

/// The largest answer that is read whole.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// The newest revision with `initialize`.
const LEGACY: &str = "2025-11-25";
/// The first without.
const MODERN: &str = "2026-07-28";

/// How long the end of a session may take; nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(5);

/// A conversation with one server. Dropped, whatever became of it, it ends its session behind the answer's
/// back.
pub(super) struct UpstreamClient {
    worker: Arc<Worker>,
    server: Arc<Server>,
    admission: Arc<Admission>,
    /// What the caller's request carries for this server.
    forwarded: HeaderMap,
    session: Option<HeaderValue>,
    version: HeaderValue,
    modern: bool,
    next_id: AtomicU64,
}

/// A request to the server.
#[derive(Serialize)]
struct Message<'m> {
    jsonrpc: &'static str,
    id: u64,
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

/// A JSON-RPC error of the server's.
struct RpcError {
    code: i64,
    message: String,
}

enum Reply {
    Result(Box<RawValue>),
    Error(RpcError),
}

impl UpstreamClient {
    /// Begins a conversation. `headers` are the caller's, of which the server's `extra_headers` go along.
    pub(super) async fn open(
        worker: &Arc<Worker>,
        server: &Arc<Server>,
        admission: &Arc<Admission>,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let mut forwarded = HeaderMap::new();
        for (name, value) in headers {
            let trace = matches!(name.as_str(), "traceparent" | "tracestate" | "baggage");
            if trace || server.extra_headers.contains(name) {
                forwarded.append(name.clone(), value.clone());
            }
        }
        let mut client = Self {
            worker: Arc::clone(worker),
            server: Arc::clone(server),
            admission: Arc::clone(admission),
            forwarded,
            session: None,
            version: HeaderValue::from_static(LEGACY),
            modern: false,
            next_id: AtomicU64::new(1),
        };
        client.initialize().await?;
        Ok(client)
    }

    async fn initialize(&mut self) -> Result<(), Refusal> {
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client_info()});
        let (reply, session) = self.exchange("initialize", params, None).await?;
        match reply {
            Reply::Result(result) => {
                let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
                if let Some(version) = result["protocolVersion"]
                    .as_str()
                    .and_then(|text| HeaderValue::from_str(text).ok())
                {
                    self.version = version;
                }
                self.session = session;
                self.notify("notifications/initialized").await
            }
            // Only a server of the newer revisions says these to `initialize`.
            Reply::Error(RpcError {
                code: -32601 | -32602 | -32020 | -32022,
                ..
            }) => {
                self.modern = true;
                self.version = HeaderValue::from_static(MODERN);
                Ok(())
            }
            Reply::Error(error) => Err(self.refused(&error)),
        }
    }

    /// Sends a request and gives its result as it came. `arguments` are a tool's, as the caller wrote them.
    pub(super) async fn request(
        &self,
        method: &str,
        params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Refusal> {
        match self.exchange(method, params, arguments).await?.0 {
            Reply::Result(result) => Ok(result),
            Reply::Error(error) => Err(self.refused(&error)),
        }
    }

    async fn notify(&self, method: &str) -> Result<(), Refusal> {
        let body = json!({"jsonrpc": "2.0", "method": method}).to_string();
        self.send(
            Method::POST,
            self.headers(method, &Value::Null),
            Bytes::from(body),
        )
        .await?;
        Ok(())
    }

    async fn exchange(
        &self,
        method: &str,
        mut params: Value,
        arguments: Option<&RawValue>,
    ) -> Result<(Reply, Option<HeaderValue>), Refusal> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if self.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
        }
        let headers = self.headers(method, &params);
        let message = Message {
            jsonrpc: "2.0",
            id,
            method,
            params: Params {
                known: &params,
                arguments,
            },
        };
        let body = serde_json::to_vec(&message).map_err(|_| Refusal::new(ErrorCode::Internal))?;
        let whole = async {
            let response = self.send(Method::POST, headers, Bytes::from(body)).await?;
            let session = response.headers().get(MCP_SESSION_ID).cloned();
            Ok((self.reply(response, id).await?, session))
        };
        let late = Refusal::new(ErrorCode::UpstreamTimeout);
        timeout(self.server.first_byte_timeout, whole)
            .await
            .unwrap_or(Err(late))
    }

    async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, Refusal> {
        let _under_way = self
            .server
            .begin_call(self.worker.app.limits.max_calls_per_server)?;
        let call = Call {
            worker: &self.worker,
            server: &self.server,
            admission: &self.admission,
            method: &method,
            headers: &headers,
            session: self.session.as_ref(),
            body,
        };
        let answer = call.forward().await?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        call.credential_was_taken(status, headers, answer.resolution)?;
        Ok(answer.response)
    }

    fn headers(&self, method: &str, params: &Value) -> HeaderMap {
        let mut headers = self.forwarded.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if method != "initialize" {
            headers.insert(MCP_PROTOCOL_VERSION, self.version.clone());
        }
        if self.modern {
            let name = params["name"].as_str().map(header_text);
            for (header, value) in [("mcp-method", Some(method.to_owned())), ("mcp-name", name)] {
                if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    headers.insert(HeaderName::from_static(header), value);
                }
            }
        }
        headers
    }

    /// The answer to request `id`, out of a JSON body or an event stream.
    async fn reply(&self, response: Response<UpstreamBody>, id: u64) -> Result<Reply, Refusal> {
        let status = response.status();
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| value.as_bytes().to_ascii_lowercase());
        let kind = kind.unwrap_or_default();
        let mut body = response.into_body();
        let broken = || Refusal::new(ErrorCode::UpstreamTruncated);
        if kind.starts_with(b"text/event-stream") {
            let mut events = EventReader::new(ANSWER_LIMIT);
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|_| broken())?.into_data() else {
                    continue;
                };
                events.push(&data);
                while let Some(event) = events
                    .next_event()
                    .map_err(|fault| self.not_mcp(&fault.to_string()))?
                {
                    if let Some(reply) = answer_to(id, event.data.as_bytes()) {
                        return Ok(reply);
                    }
                }
            }
            return Err(broken());
        }
        if !kind.starts_with(b"application/json") {
            return Err(self.not_mcp(&format!("status {} without JSON", status.as_u16())));
        }
        let (bytes, complete) = body
            .buffer(ANSWER_LIMIT, self.server.first_byte_timeout)
            .await
            .map_err(|_| broken())?;
        if !complete {
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

    fn not_mcp(&self, what: &str) -> Refusal {
        let message = format!(
            "What came from the MCP server {} is not MCP: {what}.",
            self.server.name
        );
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
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

impl Drop for UpstreamClient {
    fn drop(&mut self) {
        let (Some(session), Ok(runtime)) = (self.session.take(), Handle::try_current()) else {
            return;
        };
        let headers = self.headers("", &Value::Null);
        let (worker, server) = (Arc::clone(&self.worker), Arc::clone(&self.server));
        let admission = Arc::clone(&self.admission);
        runtime.spawn(async move {
            let call = Call {
                worker: &worker,
                server: &server,
                admission: &admission,
                method: &Method::DELETE,
                headers: &headers,
                session: Some(&session),
                body: Bytes::new(),
            };
            // Whether the server minds is its own affair.
            let _ = timeout(FAREWELL, call.forward()).await;
        });
    }
}

fn client_info() -> Value {
    json!({"name": "vestibule", "version": env!("CARGO_PKG_VERSION")})
}

/// The result or error in `message`, if it answers request `id`.
fn answer_to(id: u64, message: &[u8]) -> Option<Reply> {
    let envelope = Envelope::parse(message)?;
    if envelope.method.is_some() || envelope.id?.get() != id.to_string() {
        return None;
    }
    match (envelope.result, envelope.error) {
        (Some(result), None) => Some(Reply::Result(result.to_owned())),
        (None, Some(error)) => Some(Reply::Error(rpc_error(error))),
        _ => None,
    }
}

/// An error with another id or none: of a server that could not read the request.
fn unrelated_error(message: &[u8]) -> Option<Reply> {
    Envelope::parse(message)?
        .error
        .map(|error| Reply::Error(rpc_error(error)))
}

fn rpc_error(raw: &RawValue) -> RpcError {
    let error: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    RpcError {
        code: error["code"].as_i64().unwrap_or_default(),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A value as MCP puts it into a header: as it is, or in Base64 where a header could not carry it
/// (MCP 2026-07-28, "Standard request headers").
fn header_text(text: &str) -> String {
    let printable = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e | b'\t'));
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let plain = printable && !looks_encoded && text.trim_matches([' ', '\t']) == text;
    if plain {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64_STANDARD.encode(text))
    }
}

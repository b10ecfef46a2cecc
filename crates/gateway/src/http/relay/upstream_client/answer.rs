//! What a server's answer says: of itself, of its era, of its sessions, to a request.

use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use vestibule_mcp::Envelope;

/// What the server said of itself.
#[derive(Debug, Default)]
pub(crate) struct Welcome {
    /// `serverInfo`.
    pub(crate) info: Value,
    pub(in crate::http::relay) capabilities: Value,
    pub(in crate::http::relay) instructions: Option<String>,
}

impl Welcome {
    /// A server that does not say is taken to have everything.
    pub(super) fn of_the_silent() -> Self {
        Self {
            info: Value::Null,
            capabilities: json!({"tools": {}, "prompts": {}, "resources": {}, "completions": {}}),
            instructions: None,
        }
    }
}

/// A JSON-RPC error of the server's.
#[derive(Debug, Clone)]
pub(in crate::http::relay) struct RpcError {
    pub(in crate::http::relay) code: i64,
    pub(in crate::http::relay) message: String,
}

/// An answer.
pub(in crate::http::relay) enum Reply {
    Result(Box<RawValue>),
    Error(RpcError),
}

/// Whether a content type is `kind`, whatever its parameters.
pub(in crate::http::relay) fn is(value: &HeaderValue, kind: &[u8]) -> bool {
    let name = value.as_bytes().split(|byte| *byte == b';').next();
    name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(kind))
}

/// Whether a status other than success says something of the revisions of a server. Who wants a credential, fewer
/// requests or more time has not looked at the message.
pub(in crate::http::relay) fn tells_the_era(status: StatusCode) -> bool {
    let of_the_caller = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !of_the_caller.contains(&status)
}

/// Some servers say 400 where MCP says 404. What answers a request by its id was carried out, whatever it says, and must
/// not be sent again.
pub(super) fn misses_the_session(body: &[u8]) -> bool {
    const SAID: &[&str] = &[
        "session id",
        "session-id",
        "session not found",
        "unknown session",
        "invalid session",
        "session expired",
        "not initialized",
    ];
    // The Python SDK's id for what answers no request.
    const NOBODYS: [&str; 2] = ["null", "\"server-error\""];
    let answers = Envelope::parse(body).and_then(|envelope| envelope.id);
    if answers.is_some_and(|id| !NOBODYS.contains(&id.get())) {
        return false;
    }
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    SAID.iter().any(|said| text.contains(said))
}

pub(super) fn welcome(result: &Value) -> Welcome {
    let instructions = result["instructions"].as_str().map(str::trim);
    Welcome {
        info: result["serverInfo"].clone(),
        capabilities: result["capabilities"].clone(),
        instructions: instructions.filter(|text| !text.is_empty()).map(str::to_owned),
    }
}

/// The result or error in `message`, if it answers request `id`.
pub(in crate::http::relay) fn answer_to(id: &str, message: &[u8]) -> Option<Reply> {
    let envelope = Envelope::parse(message)?;
    if envelope.method.is_some() || envelope.id?.get() != id {
        return None;
    }
    match (envelope.result, envelope.error) {
        (Some(result), None) => Some(Reply::Result(result.to_owned())),
        (None, Some(error)) => Some(Reply::Error(rpc_error(error))),
        _ => None,
    }
}

/// An error with another id or none: of a server that could not read the request.
pub(super) fn unrelated_error(message: &[u8]) -> Option<Reply> {
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

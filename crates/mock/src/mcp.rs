//! The MCP endpoint after admission: one JSON-RPC message in, one answer out, no session.
//! Speaks the revisions with `initialize` and the stateless one of 2026-07-28. Headers that contradict the body are
//! refused; headers a client left out are not missed.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{only, tools};

/// The revisions that begin with `initialize`, oldest first.
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const MODERN: &str = "2026-07-28";

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_VERSION: i32 = -32022;

/// What goes back to the caller.
pub(crate) enum Answer {
    /// 202 with no body: the message was a notification or a response.
    Accepted,
    /// A JSON-RPC message.
    Message(StatusCode, Value),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

struct Fault {
    status: StatusCode,
    code: i32,
    message: String,
    data: Option<Value>,
}

fn fault(status: StatusCode, code: i32, message: impl Into<String>) -> Fault {
    Fault {
        status,
        code,
        message: message.into(),
        data: None,
    }
}

/// Answers one message; `seen` is told its method, and the tool of a call.
pub(crate) fn answer(headers: &HeaderMap, body: &[u8], seen: impl FnOnce(&str, Option<&str>)) -> Answer {
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return failure(
            headers,
            None,
            fault(StatusCode::BAD_REQUEST, PARSE_ERROR, "The body is not JSON"),
        );
    };
    let bad = |reason| {
        failure(
            headers,
            None,
            fault(StatusCode::BAD_REQUEST, INVALID_REQUEST, reason),
        )
    };
    if message["jsonrpc"] != "2.0" {
        return bad("The body is not one JSON-RPC 2.0 message");
    }
    let Some(method) = message.get("method") else {
        let is_response = message.get("result").is_some() || message.get("error").is_some();
        return if is_response {
            Answer::Accepted
        } else {
            bad("The message has no method")
        };
    };
    let Some(method) = method.as_str() else {
        return bad("The method is not a string");
    };
    let params = match message.get("params") {
        None => &Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return bad("The params are not an object"),
    };
    let tool = params
        .get("name")
        .and_then(Value::as_str)
        .filter(|_| method == "tools/call");
    seen(method, tool);
    let id = match message.get("id") {
        None => return Answer::Accepted,
        Some(id @ (Value::String(_) | Value::Number(_))) => id,
        Some(_) => return bad("The id is neither a string nor a number"),
    };
    match era(headers, method, params).and_then(|era| result(era, method, params)) {
        Ok(result) => Answer::Message(
            StatusCode::OK,
            json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        ),
        Err(fault) => failure(headers, Some(id), fault),
    }
}

fn failure(headers: &HeaderMap, id: Option<&Value>, fault: Fault) -> Answer {
    let mut message = json!({ "jsonrpc": "2.0" });
    // JSON-RPC wants `id: null` where the id is unknown; 2026-07-28 wants none.
    if id.is_some() || header(headers, "mcp-protocol-version") != Some(MODERN) {
        message["id"] = id.cloned().unwrap_or_default();
    }
    message["error"] = json!({ "code": fault.code, "message": fault.message });
    if let Some(data) = fault.data {
        message["error"]["data"] = data;
    }
    Answer::Message(fault.status, message)
}

/// Each request says itself to which era it belongs; `initialize` is legacy whatever version it names.
fn era(headers: &HeaderMap, method: &str, params: &Map<String, Value>) -> Result<Era, Fault> {
    if method == "initialize" {
        return Ok(Era::Legacy);
    }
    let mismatch = |name| {
        Err(fault(
            StatusCode::BAD_REQUEST,
            HEADER_MISMATCH,
            format!("The header {name} contradicts the body"),
        ))
    };
    let in_header = header(headers, "mcp-protocol-version");
    let in_body = params
        .get("_meta")
        .and_then(|meta| meta.get(META_VERSION))
        .and_then(Value::as_str);
    if in_header.is_some() && in_body.is_some() && in_header != in_body {
        return mismatch("MCP-Protocol-Version");
    }
    match in_header.or(in_body) {
        None => Ok(Era::Legacy),
        Some(version) if LEGACY.contains(&version) => Ok(Era::Legacy),
        Some(MODERN) => {
            if header(headers, "mcp-method").is_some_and(|mirrored| mirrored != method) {
                return mismatch("Mcp-Method");
            }
            let name = params
                .get("name")
                .and_then(Value::as_str)
                .filter(|_| method == "tools/call");
            let mirrored = header(headers, "mcp-name");
            if mirrored.is_some() && mirrored.and_then(unwrap_base64).as_deref() != name {
                return mismatch("Mcp-Name");
            }
            Ok(Era::Modern)
        }
        Some(version) => {
            let supported: Vec<_> = [MODERN].into_iter().chain(LEGACY.into_iter().rev()).collect();
            let data = json!({ "supported": supported, "requested": version });
            let fault = fault(
                StatusCode::BAD_REQUEST,
                UNSUPPORTED_VERSION,
                "Unsupported protocol version",
            );
            Err(Fault {
                data: Some(data),
                ..fault
            })
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    only(headers, &HeaderName::from_static(name)).map(str::trim)
}

/// Names that a header cannot carry come as `=?base64?…?=`.
fn unwrap_base64(value: &str) -> Option<String> {
    match value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

fn result(era: Era, method: &str, params: &Map<String, Value>) -> Result<Value, Fault> {
    let mut result = match (era, method) {
        (Era::Legacy, "initialize") => initialize(params)?,
        (Era::Legacy, "ping") => json!({}),
        (Era::Modern, "server/discover") => {
            json!({ "supportedVersions": [MODERN], "capabilities": { "tools": {} } })
        }
        (_, "tools/list") => json!({ "tools": tools::list() }),
        (_, "tools/call") => call(params)?,
        _ => {
            let status = if era == Era::Modern {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            return Err(fault(
                status,
                METHOD_NOT_FOUND,
                format!("Unknown method: {method}"),
            ));
        }
    };
    if era == Era::Modern {
        result["resultType"] = json!("complete");
        result["_meta"] = json!({ META_SERVER: server_info() });
        if matches!(method, "server/discover" | "tools/list") {
            // The tools are the same for everybody and for the life of the process.
            result["ttlMs"] = json!(60_000);
            result["cacheScope"] = json!("public");
        }
    }
    Ok(result)
}

fn server_info() -> Value {
    json!({ "name": "vestibule-mock", "version": env!("CARGO_PKG_VERSION") })
}

/// The client's version where it is known, else the newest that begins with `initialize`.
fn initialize(params: &Map<String, Value>) -> Result<Value, Fault> {
    let Some(asked) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err(fault(
            StatusCode::OK,
            INVALID_PARAMS,
            "initialize needs a protocolVersion",
        ));
    };
    let version = LEGACY
        .into_iter()
        .find(|known| *known == asked)
        .unwrap_or(LEGACY[LEGACY.len() - 1]);
    Ok(json!({ "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": server_info() }))
}

fn call(params: &Map<String, Value>) -> Result<Value, Fault> {
    let invalid = |message: String| fault(StatusCode::OK, INVALID_PARAMS, message);
    let Some(name) = params.get("name").and_then(Value::as_str) else {
        return Err(invalid("tools/call needs the name of a tool".to_owned()));
    };
    let arguments = match params.get("arguments") {
        None => &Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(invalid("The arguments are not an object".to_owned())),
    };
    tools::call(name, arguments).ok_or_else(|| invalid(format!("Unknown tool: {name}")))
}

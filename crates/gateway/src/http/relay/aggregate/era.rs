//! Which era of MCP a message is of, and what the newer one asks of its headers and `_meta`
//! (MCP 2026-07-28, "Versioning" and "Standard request headers"); messages made for a server of the other era.

use super::Stop;
use crate::http::relay::upstream_client::{MODERN, client_info};
use crate::web::error::shown;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use vestibule_mcp::headers::MCP_PROTOCOL_VERSION;
use vestibule_mcp::members::Members;
use vestibule_mcp::raw::quoted;

/// Revisions with `initialize`, oldest first.
pub(super) const LEGACY_VERSIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const INFO_KEY: &str = "io.modelcontextprotocol/clientInfo";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";

/// A family of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// With `initialize` and sessions.
    Legacy,
    /// Without.
    Modern,
}

/// Whether the headers alone say that there is no session.
pub(super) fn says_modern(headers: &HeaderMap) -> bool {
    let version = headers.get(MCP_PROTOCOL_VERSION);
    version.is_some_and(|version| version.as_bytes().trim_ascii() == MODERN.as_bytes())
}

/// The era of a message. What contradicts itself is refused.
pub(super) fn of(headers: &HeaderMap, method: Option<&str>, params: &Members<'_>) -> Result<Era, Stop> {
    let header = single(headers, MCP_PROTOCOL_VERSION.as_str())?;
    let meta = params.get("_meta").and_then(|meta| Members::parse(meta.get()));
    let meta = meta.unwrap_or_default();
    let in_body = meta.text(VERSION_KEY);
    if method == Some("initialize") {
        return Ok(Era::Legacy);
    }
    let modern = |version: &str| !LEGACY_VERSIONS.contains(&version);
    match (header, in_body.as_deref()) {
        (None, None) => return Ok(Era::Legacy),
        (Some(version), None) if !modern(version) => return Ok(Era::Legacy),
        // A notification or an answer needs no `_meta`.
        (Some(MODERN), None) if method.is_none_or(|method| method.starts_with("notifications/")) => {}
        (Some(version), None) if version != MODERN => return Err(unsupported(version)),
        (_, None) => return Err(invalid(&format!("_meta has no {VERSION_KEY}"))),
        (header, Some(version)) if header != Some(version) => {
            return Err(mismatch("MCP-Protocol-Version and the version in _meta differ"));
        }
        (_, Some(version)) if version != MODERN => return Err(unsupported(version)),
        (_, Some(_)) => {
            if meta.get(CAPABILITIES_KEY).is_none() {
                return Err(invalid(&format!("_meta has no {CAPABILITIES_KEY}")));
            }
        }
    }
    if let Some(method) = method {
        if single(headers, "mcp-method")? != Some(method) {
            return Err(mismatch("Mcp-Method is not the method of the message"));
        }
        let named = match method {
            "tools/call" | "prompts/get" => Some("name"),
            "resources/read" => Some("uri"),
            _ => None,
        };
        if let Some(member) = named {
            let header = single(headers, "mcp-name")?.and_then(decoded);
            if header.is_none() || header.as_deref() != params.text(member).as_deref() {
                return Err(mismatch(&format!("Mcp-Name is not params.{member}")));
            }
        }
    }
    Ok(Era::Modern)
}

/// A message for a server: `params` with `changed` members, and `_meta` as the server's era wants it.
pub(super) fn message(
    to_modern: bool,
    from_modern: bool,
    rpc: Option<&str>,
    method: &str,
    params: &Members<'_>,
    changed: &[(&str, String)],
) -> Bytes {
    let meta = params.get("_meta").and_then(|meta| Members::parse(meta.get()));
    let meta = match (from_modern, to_modern) {
        (false, false) | (true, true) => params.get("_meta").map(|meta| meta.get().to_owned()),
        (true, false) => {
            let rebuilt = meta.unwrap_or_default().rebuilt(|name| !is_ours(name), &[]);
            (rebuilt != "{}").then_some(rebuilt)
        }
        (false, true) => {
            let own = own_meta();
            let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Some(meta.unwrap_or_default().rebuilt(|name| !is_ours(name), &own))
        }
    };
    let mut more: Vec<(&str, &str)> = changed
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    if let Some(meta) = &meta {
        more.push(("_meta", meta));
    }
    let kept = |name: &str| name != "_meta" && !changed.iter().any(|(other, _)| *other == name);
    let params = params.rebuilt(kept, &more);
    let id = rpc.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let params = if params == "{}" {
        String::new()
    } else {
        format!(r#","params":{params}"#)
    };
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0",{id}"method":{}{params}}}"#,
        quoted(method)
    ))
}

/// A client's session with `initialize` lends a server of the newer era nothing that it could ask for: the way
/// of asking is another one.
fn own_meta() -> [(&'static str, String); 3] {
    [
        (VERSION_KEY, quoted(MODERN)),
        (CAPABILITIES_KEY, "{}".to_owned()),
        (INFO_KEY, client_info().to_string()),
    ]
}

fn is_ours(name: &str) -> bool {
    [VERSION_KEY, CAPABILITIES_KEY, INFO_KEY, LOG_LEVEL_KEY].contains(&name)
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Stop> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(mismatch(&format!("the header {name} stands several times")));
    }
    match first.map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim_matches([' ', '\t']))),
        Some(Err(_)) => Err(mismatch(&format!("the header {name} is not text"))),
    }
}

/// A value as MCP puts it into a header, read. `None` when its Base64 is none.
fn decoded(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix("=?base64?")
        .and_then(|text| text.strip_suffix("?="));
    match inner {
        None => Some(text.to_owned()),
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok(),
    }
}

fn mismatch(what: &str) -> Stop {
    bad(-32020, format!("Header mismatch: {what}."))
}

fn invalid(what: &str) -> Stop {
    bad(-32602, format!("Invalid params: {what}."))
}

fn bad(code: i64, message: String) -> Stop {
    Stop::Rpc {
        status: StatusCode::BAD_REQUEST,
        code,
        message,
        data: None,
    }
}

fn unsupported(version: &str) -> Stop {
    let mut supported: Vec<Value> = LEGACY_VERSIONS.iter().map(|version| json!(version)).collect();
    supported.push(json!(MODERN));
    Stop::Rpc {
        status: StatusCode::BAD_REQUEST,
        code: -32022,
        message: "The protocol version is not supported.".into(),
        data: Some(json!({"supported": supported, "requested": shown(version, 40)})),
    }
}

//! What a server learns of the client's capabilities, and what it may ask: `allow_sampling` and `allow_elicitation`.
//! Messages to and from a server that may learn of both are not looked into.

use super::upstream_client::UpstreamClient;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use thiserror::Error;
use vestibule_mcp::members::{self, Members};
use vestibule_mcp::raw::replaced;
use vestibule_mcp::{Envelope, RequestId};

/// Where revisions without `initialize` declare them, in `_meta`.
const IN_META: &str = "io.modelcontextprotocol/clientCapabilities";

/// Whether `server` learns that the client has this capability.
pub(super) fn told(server: &Server, capability: &str) -> bool {
    match capability {
        "sampling" => server.shared.sampling,
        "elicitation" => server.shared.elicitation,
        _ => true,
    }
}

/// Whether there is a capability that `server` does not learn of.
pub(super) fn withholds(server: &Server) -> bool {
    !(server.shared.sampling && server.shared.elicitation)
}

/// Whether `server` may send the client a request of this method, whatever it was told.
pub(super) fn may_ask(server: &Server, method: &str) -> bool {
    told(server, method.split('/').next().unwrap_or_default())
}

/// The message without the capabilities that the server does not learn of.
///
/// # Errors
/// [`ErrorCode::UnreadableMessage`] where a member stands twice, so that the server could read another declaration.
pub(super) fn withheld(server: &Server, message: &Bytes) -> Result<Bytes, Refusal> {
    if !withholds(server) {
        return Ok(message.clone());
    }
    let Some((whole, envelope)) = std::str::from_utf8(message).ok().zip(Envelope::parse(message)) else {
        return Ok(message.clone());
    };
    let Some(params) = envelope.params else {
        return Ok(message.clone());
    };
    let params = read(params)?;
    let declared = if envelope.method.as_deref() == Some("initialize") {
        params.get("capabilities")
    } else {
        match params.get("_meta") {
            Some(meta) => read(meta)?.get(IN_META),
            None => None,
        }
    };
    let Some(declared) = declared else {
        return Ok(message.clone());
    };
    let left = read(declared)?.rebuilt(|name| told(server, name), &[]);
    Ok(Bytes::from(replaced(whole, declared.get(), &left)))
}

fn read(object: &RawValue) -> Result<Members<'_>, Refusal> {
    Members::parse(object.get()).ok_or_else(|| {
        let message = "A member of the message stands twice, or what should be an object is none.";
        Refusal::because(ErrorCode::UnreadableMessage, message)
    })
}

/// Why a server's message does not pass at all.
#[derive(Debug, Error)]
pub(super) enum HeardFault {
    /// It is not plain what it asks.
    #[error("it cannot be read, and this server may not ask everything of a client")]
    Unreadable,
    /// Its result is a question, which only another request of the client's would answer (MCP 2026-07-28).
    #[error("it asks what this server may not ask")]
    Asks,
}

/// What a server said, as far as it may.
#[derive(Debug)]
pub(super) struct Heard<'t> {
    /// For the client; `None` when nothing is left.
    pub(super) passes: Option<Cow<'t, str>>,
    /// Requests that the server may not make.
    pub(super) refused: Vec<&'t str>,
}

impl<'t> Heard<'t> {
    /// Reads a message, or a batch of them (MCP 2025-03-26).
    ///
    /// # Errors
    /// When readers could differ about what it asks, or a result asks.
    pub(super) fn of(server: &Server, text: &'t str) -> Result<Self, HeardFault> {
        let is_batch = text.trim_ascii_start().starts_with('[');
        let messages: Vec<&RawValue> = if is_batch {
            serde_json::from_str(text).map_err(|_| HeardFault::Unreadable)?
        } else {
            vec![serde_json::from_str(text).map_err(|_| HeardFault::Unreadable)?]
        };
        let (mut left, mut refused) = (Vec::new(), Vec::new());
        for message in messages {
            if may_say(server, message.get())? {
                left.push(message.get());
            } else {
                refused.push(message.get());
            }
        }
        let passes = match (refused.is_empty(), left.is_empty()) {
            (true, _) => Some(text.into()),
            (false, true) => None,
            (false, false) => Some(format!("[{}]", left.join(",")).into()),
        };
        Ok(Self { passes, refused })
    }
}

fn may_say(server: &Server, message: &str) -> Result<bool, HeardFault> {
    let unreadable = |_| HeardFault::Unreadable;
    // No message for any reader.
    if !message.starts_with(['{', '[']) {
        return Ok(true);
    }
    let message = Members::read_any(message).map_err(unreadable)?;
    if let Some(result) = message.only("result").map_err(unreadable)?
        && !may_result(server, result)
    {
        return Err(HeardFault::Asks);
    }
    let method = message.only("method").map_err(unreadable)?;
    let method = method.and_then(members::text);
    Ok(method.is_none_or(|method| may_ask(server, &method)))
}

/// Whether a result asks the client for nothing that `server` may not ask: results of the newer revisions can hold
/// requests.
pub(super) fn may_result(server: &Server, result: &RawValue) -> bool {
    if !withholds(server) || !result.get().starts_with('{') {
        return true;
    }
    let may = || {
        let result = Members::read_any(result.get()).ok()?;
        let Some(requests) = result.only("inputRequests").ok()? else {
            return Some(true);
        };
        let requests = Members::read_any(requests.get()).ok()?;
        Some(requests.values().all(|request| {
            let request = Members::read_any(request.get());
            let method = request.and_then(|request| request.only("method"));
            let method = method.ok().flatten().and_then(members::text);
            method.is_some_and(|method| may_ask(server, &method))
        }))
    };
    may().unwrap_or(false)
}

/// Tells a server that it cannot have an answer to its request.
pub(super) fn refuse(client: &Arc<UpstreamClient>, request: &str) {
    let Some(id) = RequestId::of_request(request.as_bytes()) else {
        return;
    };
    let method = Envelope::parse(request.as_bytes()).and_then(|envelope| envelope.method);
    let outcome = if method.as_deref() == Some("ping") {
        json!({"result": {}})
    } else {
        json!({"error": {"code": -32601, "message": "The client cannot be asked."}})
    };
    let members = outcome.to_string();
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},{}"#, id.as_json(), &members[1..]);
    let client = Arc::clone(client);
    tokio::spawn(async move {
        // Whether the server hears it is its own affair.
        let _ = client.post("", None, None, Bytes::from(body)).await;
    });
}

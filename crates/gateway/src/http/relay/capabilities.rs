//! What a server learns of the client's capabilities: `allow_sampling` and `allow_elicitation`. A message to a server
//! that may learn of both is not looked into.

use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use serde_json::value::RawValue;
use vestibule_mcp::Envelope;
use vestibule_mcp::raw::{Members, replaced};

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

/// Whether `server` may send the client a request of this method, whatever it was told.
pub(super) fn may_ask(server: &Server, method: &str) -> bool {
    told(server, method.split('/').next().unwrap_or_default())
}

/// The message without the capabilities that the server does not learn of.
///
/// # Errors
/// [`ErrorCode::UnreadableMessage`] where a member stands twice, so that the server could read another declaration.
pub(super) fn withheld(server: &Server, message: &Bytes) -> Result<Bytes, Refusal> {
    if server.shared.sampling && server.shared.elicitation {
        return Ok(message.clone());
    }
    let Some((whole, envelope)) = std::str::from_utf8(message).ok().zip(Envelope::parse(message)) else {
        return Ok(message.clone());
    };
    let Some(params) = envelope.params else {
        return Ok(message.clone());
    };
    let params = members(params)?;
    let declared = if envelope.method.as_deref() == Some("initialize") {
        params.get("capabilities")
    } else {
        match params.get("_meta") {
            Some(meta) => members(meta)?.get(IN_META),
            None => None,
        }
    };
    let Some(declared) = declared else {
        return Ok(message.clone());
    };
    let left = members(declared)?.rebuilt(|name| told(server, name), &[]);
    Ok(Bytes::from(replaced(whole, declared.get(), &left)))
}

fn members(object: &RawValue) -> Result<Members<'_>, Refusal> {
    Members::parse(object.get()).ok_or_else(|| {
        let message = "A member of the message stands twice, or what should be an object is none.";
        Refusal::because(ErrorCode::UnreadableMessage, message)
    })
}

//! Headers of the Streamable HTTP transport: their names, and which of a client's may reach a server and
//! which of a server's may reach a client. Both are allow-lists: a name that is not here does not cross.

use http::HeaderName;

/// `Mcp-Session-Id`, up to revision 2025-11-25.
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Whether a client's request header goes to the MCP server as it is. `Mcp-Session-Id` does not: it is
/// opened first. The whole `Mcp-*` family does, known or not (`Mcp-Param-*` names are the server's own).
pub fn crosses_upstream(name: &HeaderName) -> bool {
    match name.as_str() {
        "accept" | "content-type" | "last-event-id" | "traceparent" | "tracestate" | "baggage" => true,
        "mcp-session-id" => false,
        other => other.starts_with("mcp-"),
    }
}

/// Whether a server's response header goes to the client as it is. `Mcp-Session-Id` does not: it is
/// sealed first.
pub fn crosses_downstream(name: &HeaderName) -> bool {
    match name.as_str() {
        "content-type" | "content-encoding" | "content-length" | "cache-control" | "retry-after"
        | "allow" | "x-accel-buffering" => true,
        "mcp-session-id" => false,
        other => other.starts_with("mcp-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_cross() {
        for name in [
            "authorization",
            "x-litellm-api-key",
            "cookie",
            "proxy-authorization",
            "x-mcp-auth",
            "host",
        ] {
            assert!(!crosses_upstream(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "set-cookie",
            "www-authenticate",
            "server",
            "connection",
            "location",
            "x-mcp-debug-outbound-url",
        ] {
            assert!(!crosses_downstream(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn the_mcp_family_crosses_but_for_the_session() {
        for name in [
            "mcp-protocol-version",
            "mcp-method",
            "mcp-name",
            "mcp-param-region",
            "mcp-of-tomorrow",
        ] {
            assert!(crosses_upstream(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!crosses_upstream(&MCP_SESSION_ID) && !crosses_downstream(&MCP_SESSION_ID));
    }
}

//! Every refusal that a caller can see: one table of codes, and the one place that maps an error to a
//! status and a body. Bodies hold the code, a sentence, the next step and the request id; never a secret.

use crate::ids::RequestId;
use crate::web::body::Body;
use crate::web::json::no_store;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;
use vestibule_oauth::ErrorResponse;

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $rpc:literal $meaning:literal $next:literal;)*) => {
        /// A stable code. Its JSON-RPC number stays outside the range that JSON-RPC reserves.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the table gives each its meaning")]
        pub enum ErrorCode { $($variant,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in bodies and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                let number = match self { $(Self::$variant => $status,)* };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// `error.code` in a JSON-RPC answer.
            pub fn rpc(self) -> i64 {
                match self { $(Self::$variant => $rpc,)* }
            }

            /// What it means, for the reference.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What the reader can do.
            pub fn next_step(self) -> &'static str {
                match self { $(Self::$variant => $next,)* }
            }
        }
    };
}

codes! {
    MissingKey "missing_key" 401 40101 "The request carries no gateway key."
        "Send the gateway key in the header x-litellm-api-key (Bearer <key>), or in Authorization.";
    WrongKey "wrong_key" 401 40102 "The gateway does not know the key."
        "Check the key in the header x-litellm-api-key (it counts before Authorization), or ask whoever runs the gateway for one.";
    RepeatedHeader "repeated_header" 400 40001 "A header that may stand once stands several times."
        "Send the header once.";
    HostNotAllowed "host_not_allowed" 403 40301 "The Host header names no host of this gateway, which listens on a loopback address."
        "Call it as localhost or 127.0.0.1, or add the name to vestibule.allowed_hosts.";
    OriginNotAllowed "origin_not_allowed" 403 40302 "A page of another origin makes the call."
        "Add the origin to vestibule.allowed_origins if its pages may use this gateway.";
    NotFound "not_found" 404 40401 "The gateway has nothing at this path."
        "MCP servers are at /{server}/mcp and /mcp/{server}.";
    NoSignIn "no_sign_in" 404 40406 "There is no MCP server of this name to which people sign in."
        "Check the name in the URL. Only servers with auth_type: oauth2 and interactive sign-in have these documents and endpoints.";
    NoCredential "no_credential" 404 40407 "Nothing is kept for this person and server."
        "There is nothing to forget.";
    NoPerson "no_person" 400 40008 "The request carries no key that says whose tokens are meant."
        "A gateway without keys keeps nobody's tokens, and a master key is one person's only with vestibule.keep_tokens_for_master_key: true.";
    NoOrigin "no_origin" 400 40007 "The Host header names no host, so the gateway cannot say by what name it was called."
        "Send one Host header, or set PROXY_BASE_URL for the gateway.";
    SignInRequired "sign_in_required" 401 40103 "The MCP server wants a person's sign-in."
        "Sign in: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header.";
    SignInEnded "sign_in_ended" 401 40104 "The MCP server does not accept the person's token any more."
        "Sign in again: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header.";
    ScopeMissing "scope_missing" 403 40303 "The person's token lacks a scope that this request needs."
        "Sign in again with the scope of the WWW-Authenticate header.";
    RenewalFailed "renewal_failed" 503 50304 "The person's token could not be renewed, and the sign-in may still be good."
        "Try again shortly.";
    StoreUnavailable "store_unavailable" 503 50305 "The gateway's database does not answer."
        "Try again shortly; whoever runs the gateway finds the reason in its log.";
    UnknownServer "unknown_server" 404 40402 "No MCP server has this name."
        "Check the name in the URL against mcp_servers in the gateway's configuration.";
    NotSupported "not_supported" 404 40403 "The path exists in LiteLLM and is not supported here yet."
        "Use /{server}/mcp with one server's name.";
    MethodNotAllowed "method_not_allowed" 405 40501 "The path takes other methods."
        "Use one of the methods in the Allow header.";
    UnknownSession "unknown_session" 404 40404 "The Mcp-Session-Id is not one that this gateway gave to this caller for this server, or it has expired."
        "Start a new session with initialize and no Mcp-Session-Id.";
    MalformedRequest "malformed_request" 400 40005 "What was sent is not HTTP/1.1."
        "Speak clear-text HTTP/1.1 to the gateway.";
    HeadersTooLarge "headers_too_large" 431 43101 "The request's headers are larger than the gateway takes."
        "Send fewer or shorter headers; vestibule.limits.max_header_bytes is the limit.";
    BodyTooLarge "body_too_large" 413 41301 "The request's body is larger than the gateway takes."
        "Send less at once; vestibule.limits.max_body_bytes is the limit.";
    BodyTimeout "body_timeout" 408 40801 "The request's body did not arrive in time."
        "Send it again; vestibule.limits.body_timeout is the limit.";
    BodyBroken "body_broken" 400 40002 "The request's body ended before its end."
        "Send it again.";
    HeaderTimeout "header_timeout" 408 40802 "The request's headers did not arrive in time."
        "Send it again; vestibule.limits.header_timeout is the limit.";
    TooManyConnections "too_many_connections" 503 50301 "The gateway holds as many connections as it may."
        "Try again shortly; vestibule.limits.max_connections is the limit.";
    TooManyCalls "too_many_calls" 503 50302 "The MCP server has as many calls under way as it may."
        "Try again shortly, and look whether the server answers; vestibule.limits.max_calls_per_server is the limit.";
    UpstreamUnreachable "upstream_unreachable" 502 50201 "The MCP server cannot be reached."
        "Check that the server runs and that its url is right in the gateway's configuration.";
    UpstreamConnectTimeout "upstream_connect_timeout" 504 50401 "The MCP server did not take a connection in time."
        "Check that the server runs and is reachable from the gateway; vestibule.limits.connect_timeout is the limit.";
    UpstreamTimeout "upstream_timeout" 504 50402 "The MCP server did not begin its answer in time."
        "Try again, or raise timeout for this server. The call may have been carried out.";
    UpstreamClosed "upstream_closed" 502 50202 "The MCP server closed the connection without an answer."
        "Look at the server's log. The call may have been carried out.";
    UpstreamTruncated "upstream_truncated" 502 50203 "The MCP server's answer ended before its end."
        "Look at the server's log. The call may have been carried out.";
    UpstreamNotMcp "upstream_not_mcp" 502 50204 "What came from the MCP server is not MCP."
        "Check the server's url; it must be its MCP endpoint.";
    UpstreamRedirect "upstream_redirect" 502 50205 "The MCP server answered with a redirect that is not followed."
        "Put the address it redirects to into the server's url, if you trust it. Only 307 and 308 within one origin are followed.";
    UpstreamRefusedToken "upstream_refused_token" 502 50206 "The MCP server refused our token, a fresh one included."
        "Check that token_url belongs to this server, and its scopes, audience and resource.";
    UpstreamRefusedCredential "upstream_refused_credential" 502 50207 "The MCP server refused the gateway's configured credential."
        "Check auth_type and authentication_token of this server.";
    UpstreamWantsCredential "upstream_wants_credential" 502 50208 "The MCP server wants a credential, and the gateway has none for it."
        "Set auth_type for this server.";
    UpstreamForbidden "upstream_forbidden" 502 50209 "The MCP server accepts the gateway's credential and forbids this request."
        "Check what the credential may do: scopes for a machine token, permissions for a static one.";
    TokenRefused "token_refused" 502 50220 "The authorization server refused the token request."
        "Check client_id, client_secret, scopes, audience and resource of this server.";
    TokenEndpointUnreachable "token_endpoint_unreachable" 502 50221 "The token endpoint cannot be reached."
        "Check token_url, and that it is reachable from the gateway.";
    TokenEndpointTimeout "token_endpoint_timeout" 504 50420 "The token endpoint did not answer in time."
        "Try again; vestibule.limits.token_timeout is the limit.";
    TokenEndpointRedirect "token_endpoint_redirect" 502 50222 "The token endpoint answered with a redirect, which is never followed."
        "Set token_url to the address of the token endpoint itself.";
    TokenResponseInvalid "token_response_invalid" 502 50223 "What the token endpoint answered is no token response."
        "Check token_url; it must be the token endpoint (RFC 6749 section 3.2).";
    MissingParameter "missing_parameter" 400 40003 "A parameter is missing or has the wrong type."
        "Send a JSON object with name, arguments and, where needed, server_id.";
    UnknownTool "unknown_tool" 404 40405 "No MCP server has a tool of this name."
        "List the tools with GET /mcp-rest/tools/list.";
    ListingTimeout "listing_timeout" 504 50403 "The MCP server did not list its tools in time."
        "Try again; vestibule.limits.listing_timeout is the limit.";
    AmbiguousTool "ambiguous_tool" 400 40004 "Several MCP servers have a tool of this name."
        "Say which one with server_id.";
    UpstreamError "upstream_error" 502 50210 "The MCP server answered with an error."
        "The message is the server's.";
    Internal "internal" 500 50001 "The gateway failed."
        "Report the request id to whoever runs the gateway.";
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its code.
    pub code: ErrorCode,
    /// One sentence about this case. Never a secret, never a body of an identity provider.
    pub message: Cow<'static, str>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// A further header: `WWW-Authenticate`, `Allow`.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
    /// What an authorization server said (RFC 6749 section 5.2).
    pub oauth: Option<Box<ErrorResponse>>,
    /// A sign-in would help; the challenge says where.
    pub sign_in: Option<Box<Wanted>>,
}

/// What a challenge asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The server's name.
    pub server: String,
    /// `error`, when a token was shown (RFC 6750 section 3.1).
    pub error: Option<&'static str>,
    /// `scope`, when it is known.
    pub scope: Option<String>,
}

impl Refusal {
    /// With the code's own sentence.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            message: code.meaning().into(),
            retry_after: None,
            header: None,
            oauth: None,
            sign_in: None,
        }
    }

    /// With a sentence about this case.
    pub fn because(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
            ..Self::new(code)
        }
    }

    /// With a further header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// With a challenge to come, once it is known by what name the gateway was called.
    #[must_use]
    pub fn with_sign_in(mut self, wanted: Wanted) -> Self {
        self.sign_in = Some(Box::new(wanted));
        self
    }

    /// What the reader sees first: the sentence and the next step.
    fn text(&self) -> String {
        format!("{} {}", self.message, self.code.next_step())
    }

    /// `{"error": {…}}`, for everything that is not a JSON-RPC request.
    pub fn plain_json(&self, id: RequestId) -> serde_json::Value {
        let mut error = self.data(id);
        error["message"] = json!(self.message);
        json!({"error": error})
    }

    /// [`Refusal::plain_json`] as a response.
    pub fn into_plain(self, id: RequestId) -> Response<Body> {
        let body = self.plain_json(id).to_string();
        self.into_response(body, id)
    }

    /// A JSON-RPC error for the request `rpc`; without one, an error without an id.
    pub fn into_json_rpc(self, rpc: Option<&vestibule_mcp::RequestId>, id: RequestId) -> Response<Body> {
        let error = json!({"code": self.code.rpc(), "message": self.text(), "data": self.data(id)});
        // The id goes back as it was written: a number may have more digits than any type of ours.
        let body = match rpc {
            Some(rpc) => format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, rpc.as_json()),
            None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
        };
        self.into_response(body, id)
    }

    /// LiteLLM's shape of `/mcp-rest` errors, with ours beside it.
    pub fn into_rest(self, id: RequestId) -> Response<Body> {
        let body = json!({"detail": {
            "error": self.code.name(),
            "message": self.text(),
            "request_id": id.as_str(),
        }});
        self.into_response(body.to_string(), id)
    }

    /// For programs: the code, and what an authorization server said.
    fn data(&self, id: RequestId) -> serde_json::Value {
        let mut data = json!({
            "code": self.code.name(),
            "next_step": self.code.next_step(),
            "request_id": id.as_str(),
        });
        if let Some(oauth) = &self.oauth {
            data["oauth_error"] = json!(oauth.error);
            if let Some(description) = &oauth.description {
                data["oauth_error_description"] = json!(description);
            }
        }
        data
    }

    fn into_response(self, body: String, id: RequestId) -> Response<Body> {
        let mut response = no_store(self.code.status(), body);
        let headers = response.headers_mut();
        headers.insert("x-request-id", id.header());
        if let Some(after) = self.retry_after {
            // Rounded up: who comes back on the second is not early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        response
    }
}

/// Text of somebody else's for a message: at most `limit` characters, and none that could start a line or turn
/// the direction of reading. The one road by which foreign text gets into answers and logs.
pub fn shown(text: &str, limit: usize) -> String {
    let marks = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut plain = text.chars().filter(|c| !c.is_control() && !marks(*c));
    let mut shown: String = plain.by_ref().take(limit).collect();
    if plain.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// `docs/errors.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         <!-- Made from crates/gateway/src/web/error.rs. `UPDATE=1 cargo test -p vestibule error_codes` writes it. -->\n\n\
         Every refusal carries its code, a sentence, the next step and a request id, which finds the line in the\n\
         gateway's log and stands in `x-request-id`. On an MCP route the answer to a request is a JSON-RPC error\n\
         with the number below and `data.code`; elsewhere it is `{\"error\": {\"code\", \"message\", \"next_step\",\n\
         \"request_id\"}}`, and under `/mcp-rest` it is `{\"detail\": {\"error\", \"message\", \"request_id\"}}`.\n\n\
         An exception: what cannot be read as a request is answered without a body and an id, though its line in\n\
         the log has both code and id. Those answers are 400 (`malformed_request`), and 414 or 431\n\
         (`headers_too_large`) for a head of more than 128 lines or more than twice `max_header_bytes`.\n\n\
         | code | HTTP | JSON-RPC | meaning | next step |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let row = format!(
            "| `{}` | {} | {} | {} | {} |\n",
            code.name(),
            code.status().as_u16(),
            code.rpc(),
            code.meaning(),
            code.next_step()
        );
        page.push_str(&row);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn error_codes_are_distinct_and_outside_the_reserved_range() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert!(!(-32768..=-32000).contains(&code.rpc()));
            assert_eq!(
                code.rpc() / 100,
                i64::from(code.status().as_u16()),
                "{}",
                code.name()
            );
            for other in &ErrorCode::ALL[..index] {
                assert!(
                    other.name() != code.name() && other.rpc() != code.rpc(),
                    "{}",
                    code.name()
                );
            }
        }
    }

    #[test]
    fn foreign_text_is_short_and_on_one_line() {
        assert_eq!(shown("a\r\nb\u{2028}c\u{202e}d\u{1b}[31m", 20), "abcd[31m");
        assert_eq!(
            (shown("12345", 5), shown("123456", 5)),
            ("12345".into(), "12345...".into())
        );
    }

    #[test]
    fn retry_after_is_never_too_early() {
        for (milliseconds, seconds) in [(0, "1"), (200, "1"), (1000, "1"), (1001, "2"), (29_900, "30")] {
            let mut refusal = Refusal::new(ErrorCode::TokenRefused);
            refusal.retry_after = Some(Duration::from_millis(milliseconds));
            let response = refusal.into_plain(crate::ids::RequestIds::new().next());
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds, "{milliseconds}");
        }
    }

    #[test]
    fn error_codes_page_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, reference()).expect("writable");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == reference(),
            "docs/errors.md is stale; run UPDATE=1 cargo test -p vestibule error_codes"
        );
    }
}

//! A client's message to a server with tool rules, read strictly: what could mean one thing to the gateway and another
//! to the server is refused. Servers without rules get messages that nobody read.

use super::tools::Rules;
use crate::web::error::{ErrorCode, Refusal};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::value::RawValue;
use std::borrow::Cow;
use vestibule_mcp::members::{self, Members, MembersFault, folded};

/// The members of a JSON-RPC message, and of the params that name a tool.
const MESSAGE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] = &["name", "arguments", "task", "_meta"];

const CALL: &str = "tools/call";
const LIST: &str = "tools/list";

const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
const MCP_PARAM: &str = "mcp-param-";

/// What a message that may pass asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// `tools/list`: the answer has to be filtered.
    ForTools,
    /// Anything else.
    ForSomethingElse,
}

/// Judges what a client sends to a server with these rules.
///
/// # Errors
/// [`ErrorCode::BatchNotAllowed`], [`ErrorCode::UnreadableMessage`], [`ErrorCode::HeaderMismatch`], and what
/// [`Rules::judge_call`] says of a call.
pub fn judge(rules: &Rules, headers: &HeaderMap, body: &[u8]) -> Result<Asks, Refusal> {
    if !is_utf8(headers) {
        return Err(unreadable("Its Content-Type names another charset than UTF-8."));
    }
    let text = std::str::from_utf8(body).map_err(|_| unreadable("It is not UTF-8."))?;
    if text.trim_ascii_start().starts_with('[') {
        return Err(Refusal::new(ErrorCode::BatchNotAllowed));
    }
    let message = Members::read(text, MESSAGE).map_err(|fault| ambiguous("It", &fault))?;
    let method = match message.get("method") {
        // An answer to a request of the server's.
        None => return matches(headers, &MCP_METHOD, None).map(|()| Asks::ForSomethingElse),
        Some(_) => message
            .text("method")
            .ok_or_else(|| unreadable("Its method is not a string."))?,
    };
    matches(headers, &MCP_METHOD, Some(&method))?;
    match method.as_ref() {
        LIST => Ok(Asks::ForTools),
        CALL => {
            judge_call(rules, headers, &message)?;
            Ok(Asks::ForSomethingElse)
        }
        other => {
            let other = folded(other.trim());
            if other == CALL || other == LIST {
                return Err(unreadable(
                    "Its method is tools/call or tools/list in other letters.",
                ));
            }
            Ok(Asks::ForSomethingElse)
        }
    }
}

fn judge_call(rules: &Rules, headers: &HeaderMap, message: &Members<'_>) -> Result<(), Refusal> {
    let params = message.get("params").map_or("{}", |params| params.get());
    let params = Members::read(params, PARAMS).map_err(|fault| ambiguous("Its params", &fault))?;
    let name = params
        .text("name")
        .ok_or_else(|| unreadable("It calls a tool without a name."))?;
    matches(headers, &MCP_NAME, Some(&name))?;
    rules.judge_call(&name, params.get("arguments"))?;
    if rules.limit_arguments_of(&name) {
        repeats_arguments(headers, params.get("arguments"))?;
    }
    Ok(())
}

/// `Mcp-Param-*` repeats arguments too. Which one is the server's to say, so any that has this value will do.
fn repeats_arguments(headers: &HeaderMap, arguments: Option<&RawValue>) -> Result<(), Refusal> {
    let arguments = arguments.and_then(|raw| Members::read_any(raw.get()).ok());
    let is_argument = |said: &str| {
        let mut values = arguments.iter().flat_map(Members::values);
        values.any(|value| value.get() == said || members::text(value).is_some_and(|text| text == said))
    };
    for (name, value) in headers {
        let repeats = name.as_str().starts_with(MCP_PARAM);
        if repeats && !decoded(value).is_some_and(|said| is_argument(&said)) {
            let message = format!("The header {name} repeats none of the call's arguments.");
            return Err(Refusal::because(ErrorCode::HeaderMismatch, message));
        }
    }
    Ok(())
}

/// The header repeats what the body says (MCP 2026-07-28, "Standard request headers"); a server may go by either.
fn matches(headers: &HeaderMap, name: &HeaderName, body: Option<&str>) -> Result<(), Refusal> {
    let all_match = headers
        .get_all(name)
        .iter()
        .all(|value| body.is_some_and(|body| decoded(value).is_some_and(|said| said == body)));
    if all_match {
        return Ok(());
    }
    let message = format!("The header {name} and the body name different things.");
    Err(Refusal::because(ErrorCode::HeaderMismatch, message))
}

/// The text of a header, which may stand in Base64.
fn decoded(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?.trim();
    let encoded = text
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    match encoded {
        None => Some(text.into()),
        Some(encoded) => {
            let bytes = BASE64_STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
    }
}

/// Whether the body is in the one encoding of JSON (RFC 8259 section 8.1): in UTF-7 or UTF-16 other bytes are quotes.
fn is_utf8(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().all(|value| {
        let Ok(value) = value.to_str() else { return false };
        let value = value.to_ascii_lowercase();
        value.split("charset").skip(1).all(|rest| {
            let name = rest.trim_start_matches([' ', '=', '"', '\'']);
            let end = name.find([';', '"', '\'', ' ', ',']).unwrap_or(name.len());
            matches!(&name[..end], "utf-8" | "utf8")
        })
    })
}

fn ambiguous(what: &str, fault: &MembersFault) -> Refusal {
    let why = match fault {
        MembersFault::NotAnObject => format!("{what} cannot be read as one JSON object."),
        MembersFault::Repeated => format!("{what} can be read in two ways: a member stands twice."),
        MembersFault::Misspelt(name) => {
            format!("{what} can be read in two ways: {name} is written in other letters.")
        }
    };
    unreadable(&why)
}

fn unreadable(why: &str) -> Refusal {
    let message =
        format!("The message could mean one thing to the gateway and another to the MCP server. {why}");
    Refusal::because(ErrorCode::UnreadableMessage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tools::{Names, ToolRules};
    use proptest::prelude::*;

    fn verdict(headers: &[(&'static str, &str)], body: &[u8]) -> Result<Asks, ErrorCode> {
        let parameters = [("echo".to_owned(), vec!["message".to_owned()])];
        let rules = ToolRules::new(Names::new(["one"]), None, &["drop".to_owned()], &parameters);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            map.append(HeaderName::from_static(name), value);
        }
        judge(&rules.expect("rules").into(), &map, body).map_err(|refusal| refusal.code)
    }

    #[test]
    fn the_headers_say_what_the_body_says() {
        let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"gr\u00f6\u00dfe"}}"#;
        let answer = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let (method, name) = ("mcp-method", "mcp-name");
        let encoded = "=?base64?Z3LDtsOfZQ==?=";
        for (headers, body, fine) in [
            (&[][..], &call[..], true),
            (&[(method, "tools/call"), (name, encoded)], call, true),
            (&[(method, "tools/list")], call, false),
            (&[(method, "Tools/Call")], call, false),
            (&[(method, "tools/call"), (method, "ping")], call, false),
            (&[(name, "drop")], call, false),
            (&[(name, "größe")], call, false),
            (&[(name, encoded), (name, "drop")], call, false),
            (&[(name, "=?base64?!?=")], call, false),
            (&[(method, "tools/call")], answer, false),
            (&[], answer, true),
        ] {
            let expected = if fine {
                Ok(Asks::ForSomethingElse)
            } else {
                Err(ErrorCode::HeaderMismatch)
            };
            assert_eq!(verdict(headers, body), expected, "{headers:?}");
        }
    }

    #[test]
    fn parameters_in_headers_are_arguments_of_the_body() {
        let call = |name: &str| {
            format!(
                r#"{{"method":"tools/call","params":{{"name":"{name}","arguments":{{"message":"größe"}}}}}}"#
            )
        };
        for (tool, value, fine) in [
            ("echo", "=?base64?Z3LDtsOfZQ==?=", true),
            ("echo", "forced", false),
            ("echo", "", false),
            // Where arguments are not limited, headers are not either.
            ("other", "forced", true),
        ] {
            let found = verdict(&[("mcp-param-x", value)], call(tool).as_bytes());
            assert_eq!(found.is_ok(), fine, "{tool} {value}: {found:?}");
        }
    }

    #[test]
    fn the_body_is_read_in_the_encoding_that_the_server_reads() {
        let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        for (kind, fine) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"; x=y", true),
            ("application/json; charset=utf-7", false),
            ("application/json; charset = utf-16le", false),
            ("application/json; charset=utf-8; charset=utf-7", false),
            ("application/json; charset='utf-7'", false),
            ("application/json; charset*=utf-7", false),
            ("application/json; charset", false),
        ] {
            let found = verdict(&[("content-type", kind)], ping);
            assert_eq!(found.is_ok(), fine, "{kind}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let _ = verdict(&[], &body);
        }

        #[test]
        fn what_passes_calls_nothing_that_is_hidden(
            method in "(tools/call|m)", more in "(|,\"method\":\"tools/call\"|,\"params\":\\{\"name\":\"drop\"\\})",
            name in "(echo|drop|Drop|one-drop)",
        ) {
            let body = format!(r#"{{"method":"{method}","params":{{"name":"{name}"}}{more}}}"#);
            let passed = verdict(&[], body.as_bytes()).is_ok();
            let calls_drop = method == "tools/call" && name != "echo";
            prop_assert_eq!(passed, more.is_empty() && !calls_drop);
        }
    }
}

//! What a record says about a message: its method, the name it is about, and what a client calls itself. Never
//! arguments, unless the operator wants them.

use super::note::SHOWN;
use super::trace::ClientInfo;
use crate::web::error::shown;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::LazyLock;
use vestibule_mcp::Envelope;
use vestibule_mcp::members::{Members, text};

/// As much of a call's arguments as a row has, in bytes.
const ARGUMENTS: usize = 4096;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: Option<String>,
    pub(super) name: Option<String>,
    /// Two readers could see two things.
    pub(super) unreadable: bool,
    pub(super) client: Option<ClientInfo>,
    pub(super) arguments: Option<String>,
}

impl Asked {
    /// Reads one message.
    pub(super) fn read(message: &[u8], with_arguments: bool) -> Self {
        let mut asked = Self::default();
        let Some(envelope) = Envelope::parse(message) else {
            asked.unreadable = true;
            return asked;
        };
        let Some(method) = envelope.method.as_deref() else {
            return asked;
        };
        asked.method = Some(shown(method, SHOWN));
        let about_a_name = matches!(method, "tools/call" | "prompts/get");
        if !about_a_name && method != "initialize" {
            return asked;
        }
        let Some(params) = envelope.params else {
            return asked;
        };
        let Some(params) = Members::parse(params.get()) else {
            asked.unreadable = true;
            return asked;
        };
        if about_a_name {
            asked.name = params.text("name").map(|name| shown(&name, SHOWN));
            let arguments = params.get("arguments").filter(|_| with_arguments);
            asked.arguments = arguments.map(|arguments| cut(arguments.get()));
        } else {
            asked.client = params.get("clientInfo").and_then(client);
        }
        asked
    }

    /// A tool's call that came without an envelope.
    pub(super) fn of_tool(name: &str, arguments: Option<&str>) -> Self {
        Self {
            arguments: arguments.map(cut),
            ..Self::of("tools/call", name)
        }
    }

    /// Any request that came without an envelope.
    pub(super) fn of(method: &str, name: &str) -> Self {
        Self {
            method: Some(method.to_owned()),
            name: Some(shown(name, SHOWN)),
            ..Self::default()
        }
    }
}

fn client(info: &RawValue) -> Option<ClientInfo> {
    let info = Members::parse(info.get())?;
    let member = |name| info.get(name).and_then(text).map(|text| shown(&text, SHOWN));
    Some(ClientInfo {
        name: member("name")?,
        version: member("version").unwrap_or_default(),
    })
}

fn cut(arguments: &str) -> String {
    arguments[..arguments.floor_char_boundary(ARGUMENTS)].to_owned()
}

/// Whether an answer is a JSON-RPC error, or the result of a tool that failed. Only answers in which something says so are
/// read.
pub(super) fn is_error(answer: &[u8]) -> bool {
    if !says(answer, &ERROR, |_| true) && !says(answer, &IS_ERROR, |value| value == b't') {
        return false;
    }
    let Some(envelope) = Envelope::parse(answer) else {
        return false;
    };
    envelope.error.is_some() || envelope.result.is_some_and(|result| is_failure(result.get()))
}

/// Whether the result of a tool says that it failed.
pub(super) fn is_failure(result: &str) -> bool {
    #[derive(Deserialize)]
    struct Result {
        #[serde(default, rename = "isError")]
        is_error: bool,
    }
    says(result.as_bytes(), &IS_ERROR, |value| value == b't')
        && serde_json::from_str::<Result>(result).is_ok_and(|result| result.is_error)
}

static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
static IS_ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"isError\""));

/// Whether a member of this name, wherever in the text, has a value that begins so.
fn says(json: &[u8], name: &Finder<'_>, begins: fn(u8) -> bool) -> bool {
    name.find_iter(json).any(|at| {
        let rest = json[at + name.needle().len()..].trim_ascii_start();
        let value = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.and_then(<[u8]>::first).is_some_and(|first| begins(*first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_one_thing_or_is_unreadable() {
        let call =
            br#"{"id":1,"method":"tools/call","params":{"arguments":{"a":"secret"},"name":"x\u0000\ny"}}"#;
        let asked = Asked::read(call, false);
        assert_eq!(asked.method.as_deref(), Some("tools/call"));
        assert_eq!(asked.name.as_deref(), Some("xy"));
        assert_eq!(asked.arguments, None);
        assert_eq!(
            Asked::read(call, true).arguments.as_deref(),
            Some(r#"{"a":"secret"}"#)
        );
        let twice = br#"{"id":1,"method":"tools/call","params":{"name":"good","name":"bad"}}"#;
        let asked = Asked::read(twice, false);
        assert_eq!((asked.name, asked.unreadable), (None, true));
        assert!(Asked::read(b"[]", false).unreadable);
        assert!(Asked::read(br#"{"method":"a","method":"b"}"#, false).unreadable);
        let answer = Asked::read(br#"{"id":1,"result":{}}"#, false);
        assert_eq!(answer, Asked::default());
        let hello = br#"{"method":"initialize","params":{"clientInfo":{"name":"c","version":"1"}}}"#;
        let client = Asked::read(hello, false).client.expect("a client");
        assert_eq!((client.name.as_str(), client.version.as_str()), ("c", "1"));
    }

    #[test]
    fn arguments_are_cut_at_a_character() {
        let long = format!("\"{}\"", "é".repeat(ARGUMENTS));
        let asked = Asked::of_tool("t", Some(&long));
        let arguments = asked.arguments.expect("arguments");
        assert!(arguments.len() <= ARGUMENTS && arguments.len() > ARGUMENTS - 2);
    }

    #[test]
    fn errors_are_told_from_words() {
        for (answer, is) in [
            (&br#"{"id":1,"error":{"code":-1}}"#[..], true),
            (br#"{"id":1,"result":{"isError":true}}"#, true),
            (b"{\"id\":1,\"result\":{\"isError\" :\n true}}", true),
            (br#"{"id":1,"result":{"isError":false}}"#, false),
            (
                br#"{"id":1,"result":{"isError":false,"a":{"isError":true}}}"#,
                false,
            ),
            (
                br#"{"id":1,"result":{"text":"\"error\" \"isError\":true"}}"#,
                false,
            ),
            (br#"{"id":1,"result":{"error":1}}"#, false),
            (b"\"error\"", false),
        ] {
            assert_eq!(is_error(answer), is, "{}", String::from_utf8_lossy(answer));
        }
    }
}

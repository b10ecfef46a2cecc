//! JSON-RPC messages as a bridge looks at them: which kind, which id, which progress token. Their content stays
//! as it came.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use vestibule_mcp::Envelope;

/// A request id or progress token, equal to itself however it is spelled: a server may write `é` for `\u00e9`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Number(String),
    Text(String),
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'m> {
    /// It wants an answer.
    Request { method: Cow<'m, str>, id: Id },
    /// It wants none.
    Notification { method: Cow<'m, str> },
    /// It answers a request.
    Response { id: Id },
}

#[derive(Deserialize)]
struct WithParams {
    #[serde(default)]
    params: Option<Params>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    #[serde(default)]
    progress_token: Option<Value>,
    #[serde(default)]
    request_id: Option<Value>,
    #[serde(default, rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    progress_token: Option<Value>,
}

impl Id {
    /// `None` for what is no id (JSON-RPC 2.0 section 4): null, a list, an object.
    pub(super) fn new(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        if text.starts_with('"') {
            return serde_json::from_str(text).ok().map(Self::Text);
        }
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        is_number.then(|| Self::number(text))
    }

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Some(Self::number(&number.to_string())),
            _ => None,
        }
    }

    fn number(text: &str) -> Self {
        let whole = text.parse::<i128>().map(|number| number.to_string());
        Self::Number(whole.unwrap_or_else(|_| match text.parse::<f64>() {
            Ok(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
            _ => text.to_owned(),
        }))
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> String {
        match self {
            Self::Number(text) => text.clone(),
            Self::Text(text) => Value::from(text.as_str()).to_string(),
        }
    }
}

impl<'m> Kind<'m> {
    /// `None` for what is no message, and for a list of messages.
    pub(super) fn of(message: &'m [u8]) -> Option<Self> {
        let envelope = Envelope::parse(message)?;
        let answers = envelope.result.is_some() || envelope.error.is_some();
        match (envelope.method, envelope.id) {
            (Some(method), Some(id)) if !answers => Some(Self::Request {
                method,
                id: Id::new(id)?,
            }),
            (Some(method), None) if !answers => Some(Self::Notification { method }),
            (None, Some(id)) if answers => Some(Self::Response { id: Id::new(id)? }),
            _ => None,
        }
    }
}

/// The token under which a request wants its progress told.
pub(super) fn wanted_progress(message: &[u8]) -> Option<Id> {
    Id::of(&params(message)?.meta?.progress_token?)
}

/// Whose progress a notification tells.
pub(super) fn told_progress(message: &[u8]) -> Option<Id> {
    Id::of(&params(message)?.progress_token?)
}

/// Which request a notification cancels.
pub(super) fn cancelled_request(message: &[u8]) -> Option<Id> {
    Id::of(&params(message)?.request_id?)
}

fn params(message: &[u8]) -> Option<Params> {
    serde_json::from_slice::<WithParams>(message).ok()?.params
}

/// The message on one line. A line break in JSON stands between tokens only, so it is a space as well; left
/// as it is, it would let one message be read as two.
pub(super) fn one_line(message: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &message).is_none() {
        return message;
    }
    let spaced = message.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    });
    spaced.collect()
}

/// An error response without a request of its own (JSON-RPC 2.0 section 5.1).
pub(super) fn error(id: Option<&Id>, code: i64, message: &str) -> Bytes {
    let id = id.map_or_else(|| "null".to_owned(), Id::to_json);
    let message = Value::from(message);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#).into()
}

/// The answer to `ping`.
pub(super) fn pong(id: &Id) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.to_json()).into()
}

/// The notification that a request is wanted no more.
pub(super) fn cancelled(id: &Id, reason: &str) -> Bytes {
    let (id, reason) = (id.to_json(), Value::from(reason));
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let request = |id: Id| {
            Some(Kind::Request {
                method: "m".into(),
                id,
            })
        };
        for (message, expected) in [
            (r#"{"id":1,"method":"m"}"#, request(Id::Number("1".into()))),
            (r#"{"id":1.0,"method":"m"}"#, request(Id::Number("1".into()))),
            (r#"{"id":"1","method":"m"}"#, request(Id::Text("1".into()))),
            (r#"{"id":"\u00e9","method":"m"}"#, request(Id::Text("é".into()))),
            (
                r#"{"method":"m"}"#,
                Some(Kind::Notification { method: "m".into() }),
            ),
            (
                r#"{"id":1,"result":{}}"#,
                Some(Kind::Response {
                    id: Id::Number("1".into()),
                }),
            ),
            (
                r#"{"id":1,"error":{}}"#,
                Some(Kind::Response {
                    id: Id::Number("1".into()),
                }),
            ),
            (r#"{"id":null,"error":{}}"#, None),
            (r#"{"id":{},"method":"m"}"#, None),
            (r#"{"id":1,"method":"m","result":{}}"#, None),
            (r#"{"id":1}"#, None),
            (r#"[{"id":1,"method":"m"}]"#, None),
            ("Server started on stdio", None),
        ] {
            assert_eq!(Kind::of(message.as_bytes()), expected, "{message}");
        }
    }

    #[test]
    fn a_message_is_one_line_and_never_two() {
        let spread = Bytes::from_static(b"{\r\n\"id\": 1,\n\"method\": \"a\\nb\"}\n");
        let line = one_line(spread);
        assert_eq!(&line[..], &b"{  \"id\": 1, \"method\": \"a\\nb\"} "[..]);
        assert!(Kind::of(&line).is_some());
    }

    #[test]
    fn what_the_gateway_writes_is_json() {
        let id = Id::Text("a\"\n".into());
        for message in [
            error(Some(&id), -32000, "no \"x\""),
            error(None, -32600, ""),
            cancelled(&id, "r"),
        ] {
            assert!(serde_json::from_slice::<Value>(&message).is_ok(), "{message:?}");
        }
        assert_eq!(cancelled_request(&cancelled(&id, "")), Some(id));
    }
}

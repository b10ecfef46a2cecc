//! The JSON-RPC 2.0 envelope of a message, borrowed from its bytes. Params and results stay as they came.

use crate::raw::quoted;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One message. A typed struct refuses a repeated member, so nobody can show a reader one method and the
/// upstream another.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The request id as written; absent on notifications.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// The method; absent on responses.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// The params, on requests and notifications.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// The result, on a response.
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    /// The error, on a response.
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads one message. `None` when the bytes are not one JSON-RPC object.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        // A derived reader takes a list as well, member by member.
        let is_object = message.trim_ascii_start().first() == Some(&b'{');
        serde_json::from_slice(message).ok().filter(|_| is_object)
    }
}

/// A request id, as the sender wrote it: a string or a number (JSON-RPC 2.0 section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The id of the request in `body`. `None` for notifications, responses, batches, ids of another
    /// type, and anything that is not JSON-RPC: an answer to those carries no id.
    pub fn of_request(body: &[u8]) -> Option<Self> {
        let envelope = Envelope::parse(body)?;
        envelope.method?;
        let id = envelope.id?.get();
        let is_id =
            id.starts_with('"') || id.starts_with('-') || id.starts_with(|c: char| c.is_ascii_digit());
        is_id.then(|| Self(id.into()))
    }

    /// The JSON text of the id.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Whether `id` is this one, however it is written: `é` may come back as `\u00e9`, and 1 as 1.0.
    pub fn is(&self, id: &RawValue) -> bool {
        *self.0 == *id.get() || spelled_once(&self.0) == id_value(id)
    }

    /// [`id_value`] of this id.
    pub fn value(&self) -> String {
        spelled_once(&self.0)
    }
}

/// The value of a request id or a progress token: one text for all the ways to write it.
pub fn id_value(raw: &RawValue) -> String {
    spelled_once(raw.get())
}

fn spelled_once(json: &str) -> String {
    /// Up to here a double counts in ones.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if json.starts_with('"') {
        let text = serde_json::from_str::<String>(json);
        return text.map_or_else(|_| json.to_owned(), |text| quoted(&text));
    }
    match json.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < EXACT => format!("{:.0}", number + 0.0),
        _ => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(body: &str) -> Option<String> {
        RequestId::of_request(body.as_bytes()).map(|id| id.as_json().to_owned())
    }

    #[test]
    fn ids_come_back_as_written() {
        for raw in [
            "0",
            "1.0",
            "-7",
            "\"probe-1\"",
            "\"\\u00e9\"",
            "12345678901234567890",
        ] {
            assert_eq!(
                id(&format!(r#"{{"method":"ping","id":{raw},"jsonrpc":"2.0"}}"#)).as_deref(),
                Some(raw)
            );
        }
    }

    #[test]
    fn an_id_is_itself_however_it_is_written() {
        let same = |one: &str, other: &str| {
            let body = format!(r#"{{"method":"m","id":{one}}}"#);
            let other: Box<RawValue> = serde_json::from_str(other).expect("JSON");
            let id = RequestId::of_request(body.as_bytes()).expect("an id");
            assert_eq!(id.is(&other), id.value() == id_value(&other));
            id.is(&other)
        };
        for (one, other) in [
            (r#""é""#, r#""\u00e9""#),
            (r#""a/b""#, r#""a\/b""#),
            ("1", "1.0"),
            ("0", "-0"),
            ("100", "1e2"),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("1", r#""1""#),
            ("1", "2"),
            ("1", "null"),
            ("1.5", "1"),
            (r#""a""#, r#""A""#),
            ("9007199254740993", "9007199254740992"),
            ("12345678901234567890123", "12345678901234567890124"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn messages_without_a_request_id() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#" [1, "ping"]"#,
            "not json",
            "",
        ] {
            assert_eq!(id(body), None, "{body}");
        }
    }

    #[test]
    fn payloads_are_not_looked_into() {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"a":2,"deep":[[[[]]]]}}"#;
        assert_eq!(Envelope::parse(body).and_then(|e| e.method).as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let _ = RequestId::of_request(&body);
        }
    }
}

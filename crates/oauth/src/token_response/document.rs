//! A token response as a whole, kept for validation. It holds tokens, so it is never printed.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;
use url::form_urlencoded;

/// A token response's members (RFC 6749 section 5.1). Its debug output shows none of them.
#[derive(Clone)]
pub struct TokenDocument(Value);

impl fmt::Debug for TokenDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDocument([REDACTED])")
    }
}

impl TokenDocument {
    /// The members, tokens included: an object.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// A JSON object in which no key stands twice.
    pub(crate) fn from_json(body: &[u8]) -> Option<Self> {
        let Unique(value) = serde_json::from_slice(body).ok()?;
        value.is_object().then_some(Self(value))
    }

    /// Form fields, each a text, none of them twice.
    pub(super) fn from_form(body: &[u8]) -> Option<Self> {
        let mut members = Map::new();
        for (name, value) in form_urlencoded::parse(body) {
            if members
                .insert(name.into_owned(), Value::String(value.into_owned()))
                .is_some()
            {
                return None;
            }
        }
        Some(Self(Value::Object(members)))
    }

    /// The members that the token stands among: those of `authed_user` when only it has one.
    pub(super) fn around_the_token(&self) -> &Value {
        let has_token = |members: &Value| {
            let token = members.get("access_token").and_then(Value::as_str);
            token.is_some_and(|token| !token.is_empty())
        };
        self.0
            .get("authed_user")
            .filter(|nested| !has_token(&self.0) && has_token(nested))
            .unwrap_or(&self.0)
    }
}

/// JSON in which a repeated key is an error: two readers must not see two values.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unique(value))) = entries.next_entry::<String, _>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

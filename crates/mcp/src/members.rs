//! The members of a JSON object, borrowed, their values as they were written. Whoever has to judge a message before
//! others read it reads it so that every reader of the same bytes sees the same ones.

use crate::raw::quoted;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use thiserror::Error;

/// Why readers could differ about an object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembersFault {
    /// It is no JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A member stands twice. Readers differ in which one counts, and some do not tell capital letters from small ones.
    #[error("a member stands twice")]
    Repeated,
    /// A member is a known one in other letters.
    #[error("{0} is written in other letters")]
    Misspelt(&'static str),
}

/// The members of one object in their order, values as they came.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object whose members stand once, in whatever letters. `None` for any other: two readers could see two
    /// things.
    pub fn parse(text: &'a str) -> Option<Self> {
        let members = Self::read_any(text).ok()?;
        let mut names: Vec<&str> = members.names().collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| pair[0] == pair[1]);
        (!twice).then_some(members)
    }

    /// Reads an object. No two members may have the same name, and none a name of `known`, which are in small letters, in
    /// other letters.
    pub fn read(text: &'a str, known: &[&'static str]) -> Result<Self, MembersFault> {
        let members = Self::read_any(text)?;
        let mut seen = HashSet::with_capacity(members.0.len());
        for (name, _) in &members.0 {
            let folded = folded(name);
            let meant = known.iter().find(|known| **known == folded);
            if let Some(known) = meant.filter(|known| **known != name.as_ref()) {
                return Err(MembersFault::Misspelt(known));
            }
            if !seen.insert(folded) {
                return Err(MembersFault::Repeated);
            }
        }
        Ok(members)
    }

    /// Reads an object, whatever its members are called and however often.
    pub fn read_any(text: &'a str) -> Result<Self, MembersFault> {
        // A derived reader would take a list as well.
        let is_object = text.trim_ascii_start().starts_with('{');
        let read = serde_json::from_str(text).ok().filter(|_| is_object);
        read.ok_or(MembersFault::NotAnObject)
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find_map(|(other, value)| (other == name).then_some(*value))
    }

    /// The value of a member that no other one can be taken for.
    pub fn only(&self, name: &'static str) -> Result<Option<&'a RawValue>, MembersFault> {
        let wanted = folded(name);
        let mut found = self.0.iter().filter(|(other, _)| folded(other) == wanted);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((other, value)), None) if other == name => Ok(Some(*value)),
            (Some(_), None) => Err(MembersFault::Misspelt(name)),
            _ => Err(MembersFault::Repeated),
        }
    }

    /// The text of a member that is a string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// Their values.
    pub fn values(&self) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().map(|(_, value)| *value)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// As JSON again, without the members that `keep` refuses, and with `more`, which are whole members.
    pub fn rebuilt(&self, keep: impl Fn(&str) -> bool, more: &[(&str, &str)]) -> String {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        let kept = kept.map(|(name, value)| (&**name, value.get()));
        let mut json = String::from("{");
        for (name, value) in kept.chain(more.iter().copied()) {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&quoted(name));
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Borrowed where nothing is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON string.
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok().map(|Text(text)| text)
}

/// A name by which readers that do not tell capital letters from small ones would know it. Some know the long s
/// (U+017F) and the Kelvin sign (U+212A) as letters too.
pub fn folded(name: &str) -> String {
    name.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[&str] = &["method", "params"];

    fn read(text: &str) -> Result<Vec<String>, MembersFault> {
        Members::read(text, KNOWN).map(|members| members.names().map(str::to_owned).collect())
    }

    #[test]
    fn members_come_back_as_written() {
        let json = r#" { "a" : 1.00, "\u0062": {"x" : [ ]}, "c":"d" } "#;
        let members = Members::parse(json).expect("an object");
        assert_eq!(members.get("b").map(RawValue::get), Some(r#"{"x" : [ ]}"#));
        assert_eq!(members.text("c").as_deref(), Some("d"));
        assert_eq!(members.text("a"), None);
        assert_eq!(
            members.rebuilt(|name| name != "a", &[("e", "12345678901234567890")]),
            r#"{"b":{"x" : [ ]},"c":"d","e":12345678901234567890}"#
        );
        assert_eq!(Members::default().rebuilt(|_| true, &[]), "{}");
    }

    #[test]
    fn what_is_no_object_or_says_a_thing_twice_is_not_read() {
        for json in ["[]", "1", "", "{", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(Members::parse(json).is_none(), "{json}");
        }
    }

    #[test]
    fn objects_that_every_reader_reads_alike() {
        assert_eq!(
            read(r#" {"method":"a","other":{"x":1,"x":2}} "#).expect("read"),
            ["method", "other"]
        );
        assert_eq!(read("{}").expect("read"), Vec::<String>::new());
        let members = Members::read(r#"{"m\u0065thod":"tools\/call","n":1.0}"#, KNOWN).expect("read");
        assert_eq!(members.text("method").as_deref(), Some("tools/call"));
        assert_eq!(members.text("n"), None);
        assert_eq!(members.get("n").map(RawValue::get), Some("1.0"));
    }

    #[test]
    fn objects_about_which_readers_could_differ() {
        use MembersFault::{Misspelt, NotAnObject, Repeated};
        for (text, fault) in [
            (r#"{"method":"a","method":"b"}"#, Repeated),
            (r#"{"method":"a","m\u0065thod":"b"}"#, Repeated),
            (r#"{"method":"a","Method":"b"}"#, Misspelt("method")),
            (r#"{"METHOD":"b"}"#, Misspelt("method")),
            ("{\"param\u{17f}\":{}}", Misspelt("params")),
            (r#"{"other":1,"OTHER":2}"#, Repeated),
            ("{\"k\":1,\"\u{212a}\":2}", Repeated),
            (r#"["method"]"#, NotAnObject),
            (r#""method""#, NotAnObject),
            (r#"{"method":"a"}{"method":"b"}"#, NotAnObject),
            (r#"{"method":"a",}"#, NotAnObject),
            (r#"{"method":NaN}"#, NotAnObject),
            (r#"{"\ud800":1}"#, NotAnObject),
            ("\u{feff}{}", NotAnObject),
            ("", NotAnObject),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Members::read(&text, KNOWN);
        }
    }
}

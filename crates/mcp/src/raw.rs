//! JSON taken apart by borrowing: the members of an object as they were written, and one text put in another's
//! place. Nothing is re-encoded that is not replaced.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The members of an object, in their order, as they were written.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads `json`. `None` when it is no object, or when a member stands twice: two readers could see two things.
    pub fn parse(json: &'a str) -> Option<Self> {
        let members: Self = serde_json::from_str(json).ok()?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| pair[0] == pair[1]);
        (!twice).then_some(members)
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| *value)
    }

    /// A member that is text.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// As JSON again, without the members that `keep` refuses, and with `more`, which are whole members.
    pub fn rebuilt(&self, keep: impl Fn(&str) -> bool, more: &[(&str, &str)]) -> String {
        let kept = self.iter().filter(|(name, _)| keep(name));
        let kept = kept.map(|(name, value)| (name, value.get()));
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

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(name), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        deserializer.deserialize_map(Reader).map(Members)
    }
}

/// The text that a JSON string stands for.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get())
        .ok()
        .map(|text| text.0)
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `whole` with `replacement` where `part` stands. `part` is borrowed from `whole`; a text from anywhere else
/// changes nothing.
pub fn replaced(whole: &str, part: &str, replacement: &str) -> String {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let end = start.saturating_add(part.len());
    match (whole.get(..start), whole.get(end..)) {
        (Some(before), Some(after)) if whole.get(start..end) == Some(part) => {
            format!("{before}{replacement}{after}")
        }
        _ => whole.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn only_the_part_is_replaced() {
        let whole = r#"{"name": "x", "y": "x" }"#;
        let members = Members::parse(whole).expect("an object");
        let name = members.get("name").expect("a name").get();
        assert_eq!(replaced(whole, name, "\"z\""), r#"{"name": "z", "y": "x" }"#);
        assert_eq!(replaced(whole, "elsewhere", "z"), whole);
    }
}

//! `token_validation`: rules that a token response has to meet before anything of it is used or kept. Not
//! in an RFC; it is how an operator pins a tenant.

use serde_json::Value;
use std::borrow::Cow;
use thiserror::Error;

/// What is expected at each field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRules(Vec<(String, String)>);

/// A rule that can never be checked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRule {
    /// The rules are no map.
    #[error("the rules are no map from a field to the value it must have")]
    NotAMap,
    /// A field's name is empty.
    #[error("a rule has no field")]
    NoField,
    /// The expected value is null, a list or a map.
    #[error("the rule for {0:?} expects something other than a text, a number or a boolean")]
    NotAScalar(String),
}

/// A token response that breaks a rule. It names the field, never what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the token response's field {field:?} {}", if *absent { "is absent" } else { "does not have the expected value" })]
pub struct Mismatch {
    /// The rule's field.
    pub field: String,
    /// There is nothing to compare: the field is missing, or null.
    pub absent: bool,
}

impl TokenRules {
    /// Reads rules: a map from a field, or a path of fields with dots, to a text, a number or a boolean.
    pub fn parse(rules: &Value) -> Result<Self, BadRule> {
        let rules = rules.as_object().ok_or(BadRule::NotAMap)?;
        let mut list = Vec::with_capacity(rules.len());
        for (field, expected) in rules {
            if field.is_empty() {
                return Err(BadRule::NoField);
            }
            let expected = as_text(expected).ok_or_else(|| BadRule::NotAScalar(field.clone()))?;
            list.push((field.clone(), expected.into_owned()));
        }
        Ok(Self(list))
    }

    /// Rules from pairs of a field and the text it must have.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a token response (RFC 6749 section 5.1): every rule has to hold. A field is looked up under
    /// its literal name first, then by its path. Values are compared as texts: a boolean as `true` or
    /// `false`, a number as JSON writes it. What is absent, null, a list or a map equals no text.
    pub fn check(&self, document: &Value) -> Result<(), Mismatch> {
        for (field, expected) in &self.0 {
            let found = lookup(document, field).filter(|value| !value.is_null());
            let met = found.and_then(as_text).is_some_and(|text| text == *expected);
            if !met {
                return Err(Mismatch {
                    field: field.clone(),
                    absent: found.is_none(),
                });
            }
        }
        Ok(())
    }
}

fn lookup<'a>(document: &'a Value, field: &str) -> Option<&'a Value> {
    document
        .get(field)
        .or_else(|| field.split('.').try_fold(document, |value, name| value.get(name)))
}

fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(yes) => Some(if *yes { "true" } else { "false" }.into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_and_answers() {
        let document = json!({
            "team": {"enterprise_id": "T12345", "id": 42, "deep": {"x": "y"}, "none": null},
            "a.b": "literal", "a": {"b": "nested"}, "ok": true, "off": false, "ratio": 1.5,
            "list": ["x"], "text": "None",
        });
        for (rules, fails_at) in [
            (json!({}), None),
            (json!({"team.enterprise_id": "T12345"}), None),
            (
                json!({"team.enterprise_id": "T12345", "ok": "true", "team.deep.x": "y"}),
                None,
            ),
            (
                json!({"team.enterprise_id": "t12345"}),
                Some(("team.enterprise_id", false)),
            ),
            (json!({"team.id": "42"}), None),
            (json!({"team.id": 42}), None),
            (json!({"team.id": 42.0}), Some(("team.id", false))),
            (json!({"ratio": "1.5"}), None),
            (json!({"a.b": "literal"}), None),
            (json!({"a.b": "nested"}), Some(("a.b", false))),
            (json!({"ok": true}), None),
            (json!({"ok": "True"}), Some(("ok", false))),
            (json!({"off": false}), None),
            (json!({"off": "false"}), None),
            (json!({"missing": "None"}), Some(("missing", true))),
            (json!({"missing": ""}), Some(("missing", true))),
            (json!({"missing": "null"}), Some(("missing", true))),
            (json!({"team.none": "None"}), Some(("team.none", true))),
            (json!({"team.none": "null"}), Some(("team.none", true))),
            (json!({"text": "None"}), None),
            (
                json!({"team.enterprise_id.x": "T12345"}),
                Some(("team.enterprise_id.x", true)),
            ),
            (json!({"team": "x"}), Some(("team", false))),
            (json!({"list": "x"}), Some(("list", false))),
            (json!({"list.0": "x"}), Some(("list.0", true))),
            (json!({".": "x"}), Some((".", true))),
            (
                json!({"ok": true, "team.id": 1, "missing": 1}),
                Some(("team.id", false)),
            ),
        ] {
            let got = TokenRules::parse(&rules).expect("rules").check(&document);
            let expected = fails_at.map(|(field, absent)| Mismatch {
                field: field.to_owned(),
                absent,
            });
            assert_eq!(got.err(), expected, "{rules}");
        }
        let rules = TokenRules::parse(&json!({"a": "b"})).expect("rules");
        for document in [json!([]), json!("a"), json!(null)] {
            assert!(rules.check(&document).is_err());
        }
    }

    #[test]
    fn the_text_shows_the_field_and_not_what_is_in_it() {
        let rules = TokenRules::from_pairs([("team.id".to_owned(), "expected".to_owned())]);
        let shown = rules
            .check(&json!({"team": {"id": "found"}}))
            .expect_err("mismatch")
            .to_string();
        assert_eq!(
            shown,
            "the token response's field \"team.id\" does not have the expected value"
        );
        let shown = rules.check(&json!({})).expect_err("absent").to_string();
        assert_eq!(shown, "the token response's field \"team.id\" is absent");
    }

    #[test]
    fn rules_that_cannot_be_checked() {
        for (rules, fault) in [
            (json!([]), BadRule::NotAMap),
            (json!("x"), BadRule::NotAMap),
            (json!({"": "x"}), BadRule::NoField),
            (json!({"a": null}), BadRule::NotAScalar("a".into())),
            (json!({"a": ["x"]}), BadRule::NotAScalar("a".into())),
            (json!({"a": {"b": "x"}}), BadRule::NotAScalar("a".into())),
        ] {
            assert_eq!(TokenRules::parse(&rules), Err(fault));
        }
        assert!(TokenRules::parse(&json!({})).expect("rules").is_empty());
    }
}

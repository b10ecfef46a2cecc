//! One server's fields as a JSON object, as the store has them and as they may be shown. Which values are secret is said
//! here, once.

use super::fields::{self, Field, Kind};
use serde_json::{Map, Value};

/// The fields of `mcp_servers.<name>` as a JSON object.
pub type Document = Map<String, Value>;

/// Stands for a value that is not shown. Sent back, it means the value that is kept.
pub const MASK: &str = "********";

/// Mappings whose values may be secret.
pub(super) const HIDDEN_MAPS: &[&str] = &["static_headers", "env"];

/// Fields with two names: the other one, and the one that documents have.
const SAME: &[(&str, &str)] = &[
    ("auth_value", "authentication_token"),
    ("mcp_access_groups", "access_groups"),
    ("upstream_resource", "resource"),
];

/// A document as it may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The fields, with [`MASK`] for what may be secret. Fields that hold nothing but a secret are not here.
    pub fields: Document,
    /// The names of the latter.
    pub secrets: Vec<String>,
}

/// The field of this name.
pub(super) fn field(name: &str) -> Option<&'static Field> {
    fields::SERVER.iter().find(|field| field.name == name)
}

/// The name of a field in documents.
pub(super) fn canonical(name: &str) -> &str {
    SAME.iter()
        .find(|(other, _)| *other == name)
        .map_or(name, |(_, canonical)| canonical)
}

/// What may be shown of a document.
pub fn shown(document: &Document) -> Shown {
    let mut shown = Shown::default();
    for (name, value) in document.iter().filter(|(_, value)| !value.is_null()) {
        let name = canonical(name);
        match field(name).map(|field| field.kind) {
            Some(Kind::Secret) => shown.secrets.push(name.to_owned()),
            Some(_) => drop(shown.fields.insert(name.to_owned(), masked(name, value))),
            // Nobody knows what it holds.
            None => drop(shown.fields.insert(name.to_owned(), MASK.into())),
        }
    }
    shown
}

fn masked(name: &str, value: &Value) -> Value {
    match value {
        Value::Object(map) if HIDDEN_MAPS.contains(&name) => {
            let masked = map.keys().map(|key| (key.clone(), MASK.into()));
            Value::Object(masked.collect())
        }
        Value::Array(items) if name == "args" => items.iter().map(|_| Value::from(MASK)).collect(),
        Value::Array(items) if name == "env_vars" => items.iter().map(without_value).collect(),
        _ if HIDDEN_MAPS.contains(&name) || matches!(name, "args" | "env_vars") => MASK.into(),
        other => other.clone(),
    }
}

/// A variable of `env_vars` without its value.
fn without_value(variable: &Value) -> Value {
    let Value::Object(variable) = variable else {
        return MASK.into();
    };
    let mut variable = variable.clone();
    if let Some(value) = variable.get_mut("value") {
        *value = MASK.into();
    }
    Value::Object(variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_secret_is_shown() {
        let document = json!({
            "url": "https://a.example/mcp", "auth_value": "canary", "client_secret": "canary", "scopes": ["a"],
            "static_headers": {"X-Key": "canary"}, "env": {"A": "canary"}, "args": ["canary"],
            "env_vars": [{"name": "A", "value": "canary", "description": "text"}, "canary"],
            "mcp_access_groups": ["g"], "unheard_of": "canary", "alias": null,
        });
        let shown = shown(document.as_object().expect("an object"));
        assert_eq!(shown.secrets, ["authentication_token", "client_secret"]);
        let fields = Value::Object(shown.fields);
        assert!(!fields.to_string().contains("canary"), "{fields}");
        assert_eq!(
            fields,
            json!({
                "url": "https://a.example/mcp", "scopes": ["a"], "static_headers": {"X-Key": MASK},
                "env": {"A": MASK}, "args": [MASK],
                "env_vars": [{"name": "A", "value": MASK, "description": "text"}, MASK],
                "access_groups": ["g"], "unheard_of": MASK,
            })
        );
    }

    #[test]
    fn a_mapping_of_another_shape_is_not_shown() {
        let document =
            json!({"env": "canary", "args": "canary", "env_vars": "canary", "static_headers": ["canary"]});
        let shown = shown(document.as_object().expect("an object"));
        assert!(!Value::Object(shown.fields).to_string().contains("canary"));
    }
}

//! A schema read as fields, within bounds: what has no field of its own becomes JSON.

use super::{Bounds, Count, Field, Item, Kind, NAME_SHOWN, Text};
use crate::web::error::shown;
use serde_json::Value;

/// The most fields.
const FIELD_LIMIT: usize = 200;
/// Objects within objects that become fields.
pub(super) const DEPTH_LIMIT: usize = 4;
/// `$ref`, `allOf` and `anyOf` that are followed for one field.
const HOP_LIMIT: usize = 8;
/// The most choices of one field.
const CHOICE_LIMIT: usize = 500;
/// The longest description that is shown, in characters.
const TEXT_SHOWN: usize = 2000;
/// A text that may be longer than this gets several lines.
const ONE_LINE: u64 = 200;

/// One schema with those that it stands for: what is written further out counts first.
struct Layers<'s>(Vec<&'s Value>);

impl<'s> Layers<'s> {
    fn get(&self, name: &str) -> Option<&'s Value> {
        self.0.iter().find_map(|layer| layer.get(name))
    }

    fn text(&self, name: &str) -> Option<&'s str> {
        self.get(name).and_then(Value::as_str)
    }

    fn count(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::as_u64)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_f64)
    }
}

pub(super) struct Builder<'s> {
    root: &'s Value,
    fields: usize,
}

impl<'s> Builder<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, fields: 0 }
    }

    /// The fields of the whole schema; `None` where it cannot be fields.
    pub(super) fn whole(&mut self) -> Option<Vec<Field>> {
        self.root.as_object()?;
        let (layers, _) = self.followed(self.root)?;
        let is_object = layers.text("type").is_none_or(|name| name == "object");
        if !is_object
            || ["anyOf", "oneOf", "not", "if"]
                .iter()
                .any(|name| layers.get(name).is_some())
        {
            return None;
        }
        match layers.get("properties") {
            None => {
                let closed = layers
                    .get("additionalProperties")
                    .is_none_or(|more| *more == Value::Bool(false));
                closed.then(Vec::new)
            }
            Some(_) => self.members(&layers, "arg", 0),
        }
    }

    /// A schema with what `$ref` and a lone `allOf`, `anyOf` or `oneOf` lead to, and whether `null` is one of the
    /// choices. `None` where that has no end, or several.
    fn followed(&self, schema: &'s Value) -> Option<(Layers<'s>, bool)> {
        let mut layers = vec![schema];
        let mut nullable = false;
        let mut last = schema;
        for _ in 0..HOP_LIMIT {
            let next = if let Some(reference) = last.get("$ref") {
                self.root.pointer(reference.as_str()?.strip_prefix('#')?)?
            } else if let Some(all) = last.get("allOf") {
                only(all.as_array()?.iter())?
            } else if let Some(any) = last.get("anyOf").or_else(|| last.get("oneOf")) {
                let is_null = |one: &&Value| one.get("type").and_then(Value::as_str) == Some("null");
                nullable |= any.as_array()?.iter().any(|one| is_null(&one));
                only(any.as_array()?.iter().filter(|one| !is_null(one)))?
            } else {
                // Two lists of properties would have to be one.
                let lists = layers.iter().filter(|layer| layer.get("properties").is_some());
                return (lists.count() <= 1).then_some((Layers(layers), nullable));
            };
            layers.push(next);
            last = next;
        }
        None
    }

    /// `None` when there are too many.
    fn members(&mut self, layers: &Layers<'s>, pointer: &str, depth: usize) -> Option<Vec<Field>> {
        let properties = layers.get("properties")?.as_object()?;
        let required = layers.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)));
        properties
            .iter()
            .map(|(name, schema)| self.field(name, schema, pointer, is_required(name), depth))
            .collect()
    }

    fn field(
        &mut self,
        name: &str,
        schema: &'s Value,
        pointer: &str,
        required: bool,
        depth: usize,
    ) -> Option<Field> {
        self.fields += 1;
        if self.fields > FIELD_LIMIT {
            return None;
        }
        let id = format!("arg-{}", self.fields);
        let key = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        let followed = self.followed(schema);
        let (kind, nullable) = match &followed {
            None => (Kind::Json("JSON"), false),
            Some((layers, nullable)) => {
                let (kind, or_null) = self.kind(layers, &key, required, depth)?;
                (kind, *nullable || or_null)
            }
        };
        let layers = followed.map_or_else(|| Layers(vec![schema]), |(layers, _)| layers);
        let default = layers.get("default").filter(|value| !value.is_null());
        Some(Field {
            title: layers.text("title").map(|text| shown(text, NAME_SHOWN)),
            description: layers.text("description").map(paragraphs),
            hints: hints(&layers, &kind, default),
            default: default.cloned(),
            name: name.to_owned(),
            key,
            id,
            required,
            nullable,
            kind,
        })
    }

    /// The kind, and whether the schema's types take `null`. `None` when there are too many fields.
    fn kind(&mut self, layers: &Layers<'s>, key: &str, required: bool, depth: usize) -> Option<(Kind, bool)> {
        if let Some(value) = layers.get("const") {
            let choice = vec![value.clone()];
            return Some((
                if required {
                    Kind::Constant(value.clone())
                } else {
                    Kind::Choice(choice)
                },
                false,
            ));
        }
        if let Some(choices) = layers.get("enum") {
            let nullable = choices
                .as_array()
                .is_some_and(|all| all.iter().any(Value::is_null));
            return Some((
                choices_of(choices).map_or(Kind::Json("JSON"), Kind::Choice),
                nullable,
            ));
        }
        let (name, nullable) = type_of(layers);
        let kind = match name {
            Some("string") => Kind::Text(text_of(layers)),
            Some(name @ ("number" | "integer")) => Kind::Number(bounds_of(layers, name == "integer")),
            Some("boolean") => Kind::Flag,
            Some("array") => self.array(layers),
            Some("object") if depth < DEPTH_LIMIT && layers.get("properties").is_some_and(is_filled) => {
                Kind::Object(self.members(layers, key, depth + 1)?)
            }
            Some("object") => Kind::Json("a JSON object"),
            _ => Kind::Json("JSON"),
        };
        Some((kind, nullable))
    }

    fn array(&self, layers: &Layers<'s>) -> Kind {
        const AS_JSON: Kind = Kind::Json("a JSON array");
        let count = Count {
            least: layers.count("minItems"),
            most: layers.count("maxItems"),
        };
        let Some((items, false)) = layers.get("items").and_then(|items| self.followed(items)) else {
            return AS_JSON;
        };
        if let Some(choices) = items.get("enum") {
            return choices_of(choices).map_or(AS_JSON, |choices| Kind::Several(choices, count));
        }
        match type_of(&items) {
            (Some("string"), false) => {
                let default = layers.get("default").and_then(Value::as_array);
                let has_lines = |value: &Value| {
                    value
                        .as_str()
                        .is_some_and(|text| text.is_empty() || text.contains('\n'))
                };
                if default.is_some_and(|values| values.iter().any(has_lines)) {
                    return AS_JSON;
                }
                Kind::Lines(Item::Text, count)
            }
            (Some(name @ ("number" | "integer")), false) => {
                Kind::Lines(Item::Number(bounds_of(&items, name == "integer")), count)
            }
            _ => AS_JSON,
        }
    }
}

fn only<'v>(mut all: impl Iterator<Item = &'v Value>) -> Option<&'v Value> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

fn is_filled(properties: &Value) -> bool {
    properties.as_object().is_some_and(|all| !all.is_empty())
}

/// The one type beside `null`, and whether `null` is there. What has members is an object.
fn type_of<'s>(layers: &Layers<'s>) -> (Option<&'s str>, bool) {
    match layers.get("type") {
        Some(Value::String(name)) => (Some(name), false),
        Some(Value::Array(names)) => {
            let nullable = names.iter().any(|name| name == "null");
            let others = names.iter().filter(|name| *name != "null");
            (only(others).and_then(Value::as_str), nullable)
        }
        _ => (layers.get("properties").map(|_| "object"), false),
    }
}

fn choices_of(choices: &Value) -> Option<Vec<Value>> {
    let choices = choices.as_array()?;
    let choices: Vec<Value> = choices.iter().filter(|one| !one.is_null()).cloned().collect();
    (!choices.is_empty() && choices.len() <= CHOICE_LIMIT).then_some(choices)
}

fn text_of(layers: &Layers<'_>) -> Text {
    let most = layers.count("maxLength");
    let input = match layers.text("format") {
        Some("email") => "email",
        Some("uri") => "url",
        Some("date") => "date",
        Some("password") => "password",
        Some(_) => "text",
        None if layers.get("pattern").is_some() || most.is_some_and(|most| most <= ONE_LINE) => "text",
        None => "lines",
    };
    Text {
        input,
        least: layers.count("minLength"),
        most,
    }
}

fn bounds_of(layers: &Layers<'_>, integer: bool) -> Bounds {
    Bounds {
        integer,
        least: layers.number("minimum"),
        above: layers.number("exclusiveMinimum"),
        most: layers.number("maximum"),
        below: layers.number("exclusiveMaximum"),
    }
}

/// What is worth knowing beside the description.
fn hints(layers: &Layers<'_>, kind: &Kind, default: Option<&Value>) -> Vec<String> {
    let mut hints = Vec::new();
    match kind {
        Kind::Text(text) => {
            if let Some(format) = layers.text("format").filter(|_| text.input == "text") {
                hints.push(format!("Format: {}.", shown(format, NAME_SHOWN)));
            }
            if let Some(pattern) = layers.text("pattern") {
                hints.push(format!("Pattern: {}", shown(pattern, NAME_SHOWN)));
            }
            hints.extend(range("characters", text.least, text.most));
        }
        Kind::Number(bounds) => hints.push(bounds.hint()),
        Kind::Lines(item, count) => {
            hints.push(match item {
                Item::Text => "One a line.".into(),
                Item::Number(bounds) if bounds.integer => "One whole number a line.".into(),
                Item::Number(_) => "One number a line.".into(),
            });
            hints.extend(range("items", count.least, count.most));
        }
        Kind::Several(_, count) => hints.extend(range("items", count.least, count.most)),
        Kind::Json(what) => hints.push(format!("Takes {what}.")),
        Kind::Flag | Kind::Choice(_) | Kind::Constant(_) | Kind::Object(_) => {}
    }
    if let Some(default) = default {
        hints.push(format!("Default: {}.", label_of(default)));
    }
    hints
}

pub(super) fn range(what: &str, least: Option<u64>, most: Option<u64>) -> Option<String> {
    match (least, most) {
        (None | Some(0), None) => None,
        (Some(least), None) => Some(format!("At least {least} {what}.")),
        (None, Some(most)) => Some(format!("At most {most} {what}.")),
        (Some(least), Some(most)) => Some(format!("{least} to {most} {what}.")),
    }
}

/// A text of several lines, without what could turn the direction of reading.
fn paragraphs(text: &str) -> String {
    let mut rest = TEXT_SHOWN;
    let mut lines = Vec::new();
    for line in text.lines() {
        if rest == 0 {
            break;
        }
        let line = shown(line, rest);
        rest = rest.saturating_sub(line.chars().count().max(1));
        lines.push(line);
    }
    lines.join("\n")
}

/// A value as it is called in a list of choices.
pub(super) fn label_of(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text, NAME_SHOWN),
        other => shown(&other.to_string(), NAME_SHOWN),
    }
}

impl Bounds {
    fn hint(&self) -> String {
        let parts: Vec<String> = [
            (self.least, "at least"),
            (self.above, "more than"),
            (self.most, "at most"),
            (self.below, "less than"),
        ]
        .into_iter()
        .filter_map(|(bound, what)| Some(format!("{what} {}", bound?)))
        .collect();
        let kind = if self.integer {
            "A whole number"
        } else {
            "A number"
        };
        if parts.is_empty() {
            format!("{kind}.")
        } else {
            format!("{kind}, {}.", parts.join(", "))
        }
    }
}

//! A schema read as fields, within bounds: what has no field of its own becomes JSON.

use super::{Bounds, Count, Field, Item, Kind, NAME_SHOWN, Text};
use crate::web::error::shown;
use serde_json::Value;

/// The most fields and choices of a form together.
pub(super) const PART_LIMIT: usize = 1000;
/// The most text that they show, in bytes. A schema repeats its parts by `$ref`, so that its own size bounds nothing.
pub(super) const TEXT_LIMIT: usize = 256 * 1024;
/// Objects within objects that become fields.
pub(super) const DEPTH_LIMIT: usize = 4;
/// `$ref`, `allOf` and `anyOf` that are followed for one field.
const HOP_LIMIT: usize = 8;
/// The most schemas in an `anyOf`, and names in a `type`.
const BRANCH_LIMIT: usize = 16;
/// The most choices of one field.
const CHOICE_LIMIT: usize = 500;
/// The longest description that is shown, in characters.
const TEXT_SHOWN: usize = 2000;
/// A text that may be longer than this gets several lines.
const ONE_LINE: u64 = 200;
/// What an object is that has no fields.
const AS_OBJECT: Kind = Kind::Json("a JSON object");

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
    left: Budget,
}

/// What is left of a form's size. It only shrinks, so it bounds the work as well.
struct Budget {
    parts: usize,
    text: usize,
}

impl Budget {
    /// Takes fields or choices; `None` where there are not so many left.
    fn parts(&mut self, count: usize) -> Option<()> {
        self.parts = self.parts.checked_sub(count)?;
        Some(())
    }

    /// Takes text. What is too much takes all that is left.
    fn text(&mut self, bytes: usize) -> Option<()> {
        let left = self.text.checked_sub(bytes);
        self.text = left.unwrap_or(0);
        left.map(drop)
    }

    /// Takes the text of a value.
    fn value(&mut self, value: &Value) -> Option<()> {
        if self.text == 0 {
            return None;
        }
        self.text(value.to_string().len())
    }
}

/// A member of an object before its kind is known.
struct Member<'s> {
    name: &'s str,
    key: String,
    id: String,
    required: bool,
    layers: Layers<'s>,
    /// Whether `null` is one of its choices; `None` where its schema leads nowhere.
    nullable: Option<bool>,
}

impl<'s> Builder<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        let left = Budget {
            parts: PART_LIMIT,
            text: TEXT_LIMIT,
        };
        Self {
            root,
            fields: 0,
            left,
        }
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
                let any = any.as_array().filter(|any| any.len() <= BRANCH_LIMIT)?;
                let is_null = |one: &&Value| one.get("type").and_then(Value::as_str) == Some("null");
                nullable |= any.iter().any(|one| is_null(&one));
                only(any.iter().filter(|one| !is_null(one)))?
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

    /// `None` when there are too many. All are paid for before one of them becomes choices or an object: whatever is
    /// too large takes no room that its neighbours need to be there.
    fn members(&mut self, layers: &Layers<'s>, pointer: &str, depth: usize) -> Option<Vec<Field>> {
        let properties = layers.get("properties")?.as_object()?;
        self.left.parts(properties.len())?;
        let required = layers.get("required").and_then(Value::as_array);
        let is_required = |name: &str| {
            let mut names = required.into_iter().flatten().take(PART_LIMIT);
            names.any(|one| one.as_str() == Some(name))
        };
        let members: Option<Vec<Member<'s>>> = properties
            .iter()
            .map(|(name, schema)| self.member(name, schema, pointer, is_required(name)))
            .collect();
        let fields = members?.into_iter().map(|member| self.field(member, depth));
        Some(fields.collect())
    }

    fn member(
        &mut self,
        name: &'s str,
        schema: &'s Value,
        pointer: &str,
        required: bool,
    ) -> Option<Member<'s>> {
        self.left.text(pointer.len() + name.len())?;
        self.fields += 1;
        let (layers, nullable) = match self.followed(schema) {
            Some((layers, nullable)) => (layers, Some(nullable)),
            None => (Layers(vec![schema]), None),
        };
        for text in ["title", "description", "format", "pattern"] {
            self.left.text(layers.text(text).map_or(0, str::len))?;
        }
        if let Some(default) = layers.get("default") {
            self.left.value(default)?;
        }
        Some(Member {
            name,
            key: format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
            id: format!("arg-{}", self.fields),
            required,
            layers,
            nullable,
        })
    }

    fn field(&mut self, member: Member<'s>, depth: usize) -> Field {
        let (kind, nullable) = match member.nullable {
            None => (Kind::Json("JSON"), false),
            Some(nullable) => {
                let (kind, or_null) = self.kind(&member, depth);
                (kind, nullable || or_null)
            }
        };
        let layers = &member.layers;
        let default = layers.get("default").filter(|value| !value.is_null());
        Field {
            title: layers.text("title").map(|text| shown(text, NAME_SHOWN)),
            description: layers.text("description").map(paragraphs),
            hints: hints(layers, &kind, default),
            default: default.cloned(),
            name: member.name.to_owned(),
            key: member.key,
            id: member.id,
            required: member.required,
            nullable,
            kind,
        }
    }

    /// The kind, and whether the schema's types take `null`. What is too large for fields is JSON.
    fn kind(&mut self, member: &Member<'s>, depth: usize) -> (Kind, bool) {
        let layers = &member.layers;
        if let Some(value) = layers.get("const") {
            if self.left.value(value).is_none() {
                return (Kind::Json("JSON"), false);
            }
            let kind = if member.required {
                Kind::Constant(value.clone())
            } else {
                Kind::Choice(vec![value.clone()])
            };
            return (kind, false);
        }
        if let Some(choices) = layers.get("enum") {
            let choices = self.choices(choices, 0);
            let nullable = choices.as_ref().is_some_and(|(_, nullable)| *nullable);
            let kind = choices.map_or(Kind::Json("JSON"), |(choices, _)| Kind::Choice(choices));
            return (kind, nullable);
        }
        let (name, nullable) = type_of(layers);
        let kind = match name {
            Some("string") => Kind::Text(text_of(layers)),
            Some(name @ ("number" | "integer")) => Kind::Number(bounds_of(layers, name == "integer")),
            Some("boolean") => Kind::Flag,
            Some("array") => self.array(member),
            Some("object") if depth < DEPTH_LIMIT && layers.get("properties").is_some_and(is_filled) => {
                let members = self.members(layers, &member.key, depth + 1);
                members.map_or(AS_OBJECT, Kind::Object)
            }
            Some("object") => AS_OBJECT,
            _ => Kind::Json("JSON"),
        };
        (kind, nullable)
    }

    /// The choices beside `null`, and whether that is one; each comes with `beside` bytes of other text. `None` where
    /// there are none, or too many.
    fn choices(&mut self, choices: &Value, beside: usize) -> Option<(Vec<Value>, bool)> {
        let all = choices.as_array().filter(|all| all.len() <= CHOICE_LIMIT)?;
        let choices: Vec<&Value> = all.iter().filter(|one| !one.is_null()).collect();
        if choices.is_empty() {
            return None;
        }
        self.left.parts(choices.len())?;
        self.left.text(choices.len() * beside)?;
        for choice in &choices {
            self.left.value(choice)?;
        }
        let nullable = choices.len() < all.len();
        Some((choices.into_iter().cloned().collect(), nullable))
    }

    fn array(&mut self, member: &Member<'s>) -> Kind {
        const AS_JSON: Kind = Kind::Json("a JSON array");
        let layers = &member.layers;
        let count = Count {
            least: layers.count("minItems"),
            most: layers.count("maxItems"),
        };
        let Some((items, false)) = layers.get("items").and_then(|items| self.followed(items)) else {
            return AS_JSON;
        };
        if let Some(choices) = items.get("enum") {
            let choices = self.choices(choices, member.key.len());
            return choices.map_or(AS_JSON, |(choices, _)| Kind::Several(choices, count));
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
        Some(Value::Array(names)) if names.len() <= BRANCH_LIMIT => {
            let nullable = names.iter().any(|name| name == "null");
            let others = names.iter().filter(|name| *name != "null");
            (only(others).and_then(Value::as_str), nullable)
        }
        Some(Value::Array(_)) => (None, false),
        _ => (layers.get("properties").map(|_| "object"), false),
    }
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

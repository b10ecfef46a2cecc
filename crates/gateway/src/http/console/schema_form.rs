//! A tool's `inputSchema` as a form, and the submitted form as arguments. What a form cannot show is a text field for
//! JSON, and so is a part that is too large, and the whole of a schema that is broken. Numbers and JSON are sent as they were written.

mod read;
mod render;
mod schema;

use super::forms::{Errors, Fields};
use maud::{Markup, html};
use read::{object, read_members};
use render::whole_field;
use schema::Builder;
use serde_json::Value;
use serde_json::value::RawValue;

/// The largest schema that becomes fields, in bytes.
const SCHEMA_LIMIT: usize = 256 * 1024;
/// The longest names that are shown of a schema, in characters.
const NAME_SHOWN: usize = 200;

/// The field that holds all arguments as JSON.
const WHOLE: &str = "arguments";
/// Says whether [`WHOLE`] counts.
const AS_JSON: &str = "arguments_as_json";

/// A form made from a schema.
#[derive(Debug)]
pub(crate) struct SchemaForm {
    /// `None` when there is one field for everything.
    members: Option<Vec<Field>>,
}

/// A property.
#[derive(Debug)]
struct Field {
    /// As the schema has it.
    name: String,
    /// Its name in the form: `arg` and a JSON Pointer.
    key: String,
    id: String,
    title: Option<String>,
    description: Option<String>,
    hints: Vec<String>,
    required: bool,
    nullable: bool,
    kind: Kind,
    /// What a required field is filled with.
    default: Option<Value>,
}

#[derive(Debug)]
enum Kind {
    Text(Text),
    Number(Bounds),
    Flag,
    Choice(Vec<Value>),
    Several(Vec<Value>, Count),
    Constant(Value),
    /// An array, one item a line.
    Lines(Item, Count),
    Object(Vec<Field>),
    Json(&'static str),
}

#[derive(Debug)]
struct Text {
    input: &'static str,
    least: Option<u64>,
    most: Option<u64>,
}

#[derive(Debug)]
struct Bounds {
    integer: bool,
    least: Option<f64>,
    above: Option<f64>,
    most: Option<f64>,
    below: Option<f64>,
}

#[derive(Debug)]
enum Item {
    Text,
    Number(Bounds),
}

/// How many items there may be.
#[derive(Debug)]
struct Count {
    least: Option<u64>,
    most: Option<u64>,
}

/// What a field was filled with.
enum Read {
    /// JSON.
    Value(String),
    /// JSON that nobody wrote: constants alone.
    Unfilled(String),
    Nothing,
}

impl SchemaForm {
    /// The form of a schema as the server wrote it.
    pub(crate) fn of(schema: Option<&RawValue>) -> Self {
        let text = schema.map_or("{}", RawValue::get);
        let parsed = (text.len() <= SCHEMA_LIMIT)
            .then(|| serde_json::from_str::<Value>(text).ok())
            .flatten();
        let members = parsed.and_then(|root| Builder::new(&root).whole());
        Self { members }
    }

    /// The fields with what was submitted, or with the schema's defaults where nothing was.
    pub(crate) fn render(&self, values: Option<&Fields>, errors: &Errors) -> Markup {
        let whole = values
            .filter(|values| values.has(WHOLE))
            .map(|values| values.raw(WHOLE));
        let Some(members) = &self.members else {
            return whole_field(whole.unwrap_or("{}"), errors, false);
        };
        let as_json = values.is_some_and(|values| values.has(AS_JSON));
        html! {
            @if members.is_empty() { p class="hint" { "This tool takes no arguments." } }
            @for field in members { (field.render(values, errors, true)) }
            details class="as-json" open[as_json] {
                summary { "Arguments as JSON" }
                p class="check" {
                    input type="checkbox" id="arguments-as-json" name=(AS_JSON) value="on" checked[as_json];
                    label for="arguments-as-json" { "Send this JSON instead of the fields above" }
                }
                (whole_field(whole.unwrap_or("{}"), errors, true))
            }
        }
    }

    /// The arguments as JSON.
    pub(crate) fn read(&self, values: &Fields) -> Result<Box<RawValue>, Errors> {
        let mut errors = Errors::default();
        let text = match &self.members {
            Some(members) if !values.has(AS_JSON) => {
                let (members, _) = read_members(members, values, &mut errors);
                object(&members)
            }
            _ => {
                let text = values.get(WHOLE);
                let text = if text.is_empty() { "{}" } else { text };
                match serde_json::from_str::<Value>(text) {
                    Ok(Value::Object(_)) => {}
                    Ok(_) => errors.add(WHOLE, "takes a JSON object"),
                    Err(error) => errors.add(WHOLE, format!("is not JSON: {error}")),
                }
                text.to_owned()
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        RawValue::from_string(text).map_err(|_| {
            let mut errors = Errors::default();
            errors.add("", "The arguments could not be written as JSON.");
            errors
        })
    }

    /// The id of the element that holds the field `key`.
    pub(crate) fn element(&self, key: &str) -> Option<&str> {
        fn find<'f>(fields: &'f [Field], key: &str) -> Option<&'f str> {
            fields.iter().find_map(|field| match &field.kind {
                _ if field.key == key => Some(field.id.as_str()),
                Kind::Object(members) => find(members, key),
                _ => None,
            })
        }
        if key == WHOLE {
            return Some("arguments-json");
        }
        find(self.members.as_deref()?, key)
    }
}

#[cfg(test)]
mod tests;

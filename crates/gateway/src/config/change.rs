//! What a management request says about a server, in LiteLLM's words or in those of `mcp_servers`, and what a document
//! becomes by it: what is left out stays, `null` removes, and a secret goes nowhere that it was not meant for. Whether
//! the result can be used is judged as every configuration is.

use super::aws_sigv4::AWS_FIELDS;
use super::document::{Document, HIDDEN_MAPS, MASK, canonical, field};
use super::exchange::{EXCHANGE_FIELDS, ID_JAG_FIELDS, KEY_FIELDS, SHARED_FIELDS};
use super::fields::{self, Kind, Support};
use super::headers::STATIC_FIELDS;
use super::oauth::INTERACTIVE_ONLY;
use super::problem::{Problem, Severity, nearest};
use super::reference;
use super::server::OAUTH_FIELDS;
use serde_json::{Map, Value, json};
use url::{Origin, Url};

/// Members of a request beside the fields of a server.
const BESIDE: [&str; 4] = ["server_id", "server_name", "version", "credentials"];
/// Flags of `auth_type`, and where a token goes.
const MODE_FIELDS: &[&str] = &[
    "delegate_auth_to_upstream",
    "oauth_passthrough",
    "dcr_bridge",
    "upstream_token_header",
];
/// The fields that belong to one kind of `auth_type` or another.
const CREDENTIAL_FIELDS: [&[&str]; 9] = [
    STATIC_FIELDS,
    OAUTH_FIELDS,
    INTERACTIVE_ONLY,
    AWS_FIELDS,
    KEY_FIELDS,
    SHARED_FIELDS,
    EXCHANGE_FIELDS,
    ID_JAG_FIELDS,
    MODE_FIELDS,
];
/// Where the server itself is: when one of these comes to mean another place, no secret that is kept follows.
const PLACES: &[&str] = &["url", "command", "args"];
/// Where tokens are asked for: nor does what the gateway proves itself with, when one of these does.
const TOKEN_PLACES: &[&str] = &[
    "token_url",
    "issuer",
    "token_exchange_endpoint",
    "id_jag_resource_token_endpoint",
    "aws_sts_endpoint",
];

/// A request to add a server or to change one.
#[derive(Debug, Default)]
pub struct Change {
    /// The server's id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The writing that the request goes out from.
    pub version: Option<i64>,
    /// Fields by their names in documents; `null` removes one.
    fields: Document,
}

/// A document after a change.
#[derive(Debug)]
pub struct Changed {
    /// The document.
    pub document: Document,
    /// Kept secrets that were not taken along.
    pub dropped: Vec<String>,
    /// Whether the server is at another origin now, where nothing that is kept for people may go.
    pub moved: bool,
}

impl Change {
    /// Reads the body of a request. All that is wrong with it is said at once.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(body: Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut change = Self::default();
        let mut problems = Vec::new();
        for (name, value) in body {
            match name.as_str() {
                "server_id" => change.id = text(&name, value, &mut problems),
                "server_name" => change.name = text(&name, value, &mut problems),
                "version" => match value.as_i64() {
                    Some(version) => change.version = Some(version),
                    None if value.is_null() => {}
                    None => problems.push(wrong(name, "takes a whole number")),
                },
                "credentials" => change.credentials(value, &mut problems),
                _ => change.field(&name, &name, value, &mut problems),
            }
        }
        for (name, value) in [
            ("server_name", change.name.as_deref()),
            ("alias", change.fields.get("alias").and_then(Value::as_str)),
        ] {
            if let Some(value) = value.filter(|value| value.contains('-')) {
                // LiteLLM's own words, which its clients look for.
                let message = format!(
                    "Server name cannot contain '-'. Use an alternative character instead Found: {}",
                    crate::web::error::shown(value, 100)
                );
                problems.push(wrong(name, message));
            }
        }
        if problems.is_empty() {
            Ok(change)
        } else {
            Err(problems)
        }
    }

    /// The JSON Schema of what [`Change::read`] takes; what a form sends for a field that it does not have is in it.
    pub fn schema() -> Value {
        let blank = json!([null, "", [], {}]);
        let mut schema = reference::server();
        let mut properties = Map::new();
        for field in fields::SERVER {
            let property = match schema["properties"].get(field.name) {
                Some(property) => json!({"anyOf": [property, {"enum": blank}]}),
                None => json!({"enum": [null, "", [], {}, false], "description": field.doc}),
            };
            properties.insert(field.name.to_owned(), property);
        }
        let names = CREDENTIAL_FIELDS.iter().copied().flatten();
        let credentials: Map<String, Value> = names
            .filter_map(|name| Some(((*name).to_owned(), properties.get(*name)?.clone())))
            .collect();
        let beside = [
            ("server_id", json!({"type": ["string", "null"]})),
            ("server_name", json!({"type": ["string", "null"]})),
            ("version", json!({"type": ["integer", "null"]})),
            (
                "credentials",
                json!({"type": ["object", "null"], "properties": credentials, "additionalProperties": false}),
            ),
        ];
        properties.extend(beside.map(|(name, schema)| (name.to_owned(), schema)));
        schema["properties"] = Value::Object(properties);
        schema
    }

    /// The name of a server that is added: its own, or the alias.
    pub fn name_or_alias(&self) -> Option<&str> {
        let alias = || self.fields.get("alias").and_then(Value::as_str);
        self.name
            .as_deref()
            .or_else(alias)
            .filter(|name| !name.is_empty())
    }

    /// Leaves these fields out.
    pub fn without(&mut self, names: &[&str]) {
        self.fields.retain(|name, _| !names.contains(&name.as_str()));
    }

    /// `document` after this change.
    ///
    /// # Errors
    /// When a value stands for one that is not kept.
    pub fn applied_to(&self, document: &Document) -> Result<Changed, Vec<Problem>> {
        let before = document;
        let mut after = document.clone();
        let mut problems = Vec::new();
        self.leave_behind(before, &mut after);
        for (name, value) in &self.fields {
            if self.keeps(name) {
                continue;
            }
            match filled(name, value, before.get(name), &mut problems) {
                Some(value) => drop(after.insert(name.clone(), value)),
                None => drop(after.remove(name)),
            }
        }
        self.same_program(before, &after, &mut problems);
        stamp_flow(&mut after);
        if !problems.is_empty() {
            return Err(problems);
        }
        let elsewhere = |places: &[&str]| places.iter().any(|name| differ(name, before, &after));
        let (server, tokens) = (elsewhere(PLACES), elsewhere(TOKEN_PLACES));
        let mut dropped = Vec::new();
        if server || tokens {
            self.drop_secrets(server, &mut after, &mut dropped);
        }
        if server {
            self.drop_hidden(before, &mut after, &mut dropped);
        }
        if differ("command", before, &after) {
            self.drop_arguments(&mut after, &mut dropped);
        }
        Ok(Changed {
            moved: differ("url", before, &after),
            document: after,
            dropped,
        })
    }

    /// Arguments that are kept go to the program that they were meant for, in the place that they had: another program,
    /// or another argument before them, could show them.
    fn same_program(&self, before: &Document, after: &Document, problems: &mut Vec<Problem>) {
        if !["command", "args"].iter().any(|name| differ(name, before, after)) {
            return;
        }
        let kept = before.get("args").and_then(Value::as_array).map_or(0, Vec::len);
        let sent = self.fields.get("args").and_then(Value::as_array).into_iter();
        for (index, item) in sent.flatten().enumerate().take(kept) {
            if item == MASK {
                problems.push(wrong(
                    format!("args[{index}]"),
                    "stands for a value that is kept for the command and arguments as they were; send the value",
                ));
            }
        }
    }

    fn credentials(&mut self, value: Value, problems: &mut Vec<Problem>) {
        match value {
            Value::Null => {}
            Value::Object(members) => {
                for (name, value) in members {
                    let path = format!("credentials.{name}");
                    let known = CREDENTIAL_FIELDS
                        .iter()
                        .any(|family| family.contains(&canonical(&name)));
                    if known {
                        self.field(&name, &path, value, problems);
                    } else {
                        let names = CREDENTIAL_FIELDS.iter().copied().flatten().copied();
                        problems.push(unknown(path, nearest(&name, names)));
                    }
                }
            }
            _ => problems.push(wrong("credentials", "takes an object")),
        }
    }

    fn field(&mut self, name: &str, path: &str, value: Value, problems: &mut Vec<Problem>) {
        let name = canonical(name);
        let Some(field) = field(name) else {
            let known = fields::SERVER.iter().map(|field| field.name).chain(BESIDE);
            problems.push(unknown(path, nearest(name, known)));
            return;
        };
        // LiteLLM's forms send every field that they have.
        let says_nothing = is_blank(&value) || value == Value::Bool(false);
        if matches!(field.support, Support::NotYet(_)) && says_nothing {
            return;
        }
        if self.fields.insert(name.to_owned(), value).is_some() {
            problems.push(wrong(
                path,
                format!("{name} stands twice, by whatever name; keep one"),
            ));
        }
    }

    /// Whether a field is sent as a form sends a secret that nobody typed: it stays.
    fn keeps(&self, name: &str) -> bool {
        let is_secret = field(name).is_some_and(|field| field.kind == Kind::Secret);
        let value = self.fields.get(name).and_then(Value::as_str);
        is_secret && matches!(value, Some("" | MASK))
    }

    /// Whether the request itself brings a value.
    fn brings(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !is_blank(value)) && !self.keeps(name)
    }

    /// What belongs to another mode than the one that the request asks for is not taken along.
    fn leave_behind(&self, before: &Document, after: &mut Document) {
        let asked = |name: &str| {
            self.fields
                .get(name)
                .map(|value| value.as_str().unwrap_or("none"))
        };
        let was = |name: &str| before.get(name).and_then(Value::as_str);
        if let Some(asked) = asked("auth_type")
            && class(asked) != class(was("auth_type").unwrap_or("none"))
        {
            for name in CREDENTIAL_FIELDS.iter().copied().flatten() {
                after.remove(*name);
            }
        }
        if let (Some(asked), Some(was)) = (asked("oauth2_flow"), was("oauth2_flow"))
            && asked != was
        {
            let others: Vec<&str> = match asked {
                "client_credentials" => INTERACTIVE_ONLY.to_vec(),
                _ => [KEY_FIELDS, &["audience"]].concat(),
            };
            for name in others {
                after.remove(name);
            }
        }
        if let Some(asked) = asked("transport") {
            let others: &[&str] = match asked {
                "stdio" => &["url", "static_headers", "extra_headers"],
                _ => &["command", "args", "env"],
            };
            for name in others {
                after.remove(*name);
            }
        }
    }

    /// Drops the secrets that the request does not bring itself: all, or those that go to token endpoints.
    fn drop_secrets(&self, all: bool, after: &mut Document, dropped: &mut Vec<String>) {
        for field in fields::SERVER.iter().filter(|field| field.kind == Kind::Secret) {
            let goes = all || !STATIC_FIELDS.contains(&field.name);
            if goes && !self.brings(field.name) && after.remove(field.name).is_some() {
                dropped.push(field.name.to_owned());
            }
        }
    }

    /// The same for the values of mappings and variables.
    fn drop_hidden(&self, before: &Document, after: &mut Document, dropped: &mut Vec<String>) {
        for name in HIDDEN_MAPS {
            let (Some(Value::Object(was)), Some(Value::Object(map))) = (before.get(*name), after.get(*name))
            else {
                continue;
            };
            let brought = self.fields.get(*name).and_then(Value::as_object);
            let is_brought = |key: &str| {
                brought.is_some_and(|brought| brought.get(key).is_some_and(|value| value != MASK))
            };
            let kept = |key: &String| was.contains_key(key) && !is_brought(key);
            let mut map = map.clone();
            dropped.extend(
                map.keys()
                    .filter(|key| kept(key))
                    .map(|key| format!("{name}.{key}")),
            );
            map.retain(|key, _| !kept(key));
            if map.is_empty() {
                after.remove(*name);
            } else {
                after.insert((*name).to_owned(), Value::Object(map));
            }
        }
        let variables = self.fields.get("env_vars");
        let all_brought = variables.is_some_and(|value| !value.to_string().contains(MASK));
        if !all_brought && after.remove("env_vars").is_some() {
            dropped.push("env_vars".to_owned());
        }
    }

    /// Arguments that the request leaves out were meant for the program that there was.
    fn drop_arguments(&self, after: &mut Document, dropped: &mut Vec<String>) {
        if !self.fields.contains_key("args") && after.remove("args").is_some() {
            dropped.push("args".to_owned());
        }
    }
}

/// The value that a field gets: `None` where it is removed. [`MASK`] stands for what is kept.
fn filled(name: &str, value: &Value, kept: Option<&Value>, problems: &mut Vec<Problem>) -> Option<Value> {
    let mut missing = |path: String| {
        problems.push(wrong(
            path,
            "stands for a value that is kept, and none is; send the value",
        ));
        Value::Null
    };
    match value {
        Value::Object(map) if HIDDEN_MAPS.contains(&name) => {
            let filled = map.iter().map(|(key, value)| {
                let kept = kept.and_then(|kept| kept.get(key));
                let value = match kept {
                    _ if value != MASK => value.clone(),
                    Some(kept) => kept.clone(),
                    None => missing(format!("{name}.{key}")),
                };
                (key.clone(), value)
            });
            let filled: Map<_, _> = filled.collect();
            (!filled.is_empty()).then_some(Value::Object(filled))
        }
        Value::Array(items) if name == "args" => {
            let filled =
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| match kept.and_then(|kept| kept.get(index)) {
                        _ if item != MASK => item.clone(),
                        Some(kept) => kept.clone(),
                        None => missing(format!("args[{index}]")),
                    });
            let filled: Vec<Value> = filled.collect();
            (!filled.is_empty()).then_some(Value::Array(filled))
        }
        Value::Array(items) if name == "env_vars" => {
            let filled = items.iter().enumerate().map(|(index, item)| {
                if item["value"] != MASK {
                    return item.clone();
                }
                let mut item = item.clone();
                item["value"] = kept_variable(kept, &item["name"])
                    .unwrap_or_else(|| missing(format!("env_vars[{index}].value")));
                item
            });
            let filled: Vec<Value> = filled.collect();
            (!filled.is_empty()).then_some(Value::Array(filled))
        }
        // No tool is not every tool: that is for the judge.
        Value::Array(items) if items.is_empty() && name == "allowed_tools" => Some(value.clone()),
        value if is_blank(value) => None,
        value => Some(value.clone()),
    }
}

fn kept_variable(kept: Option<&Value>, name: &Value) -> Option<Value> {
    let variables = kept?.as_array()?.iter();
    let mut named = variables.filter(|variable| &variable["name"] == name);
    named.next().map(|variable| variable["value"].clone())
}

/// Whether a value says no more than leaving it out does.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Kinds of `auth_type` that have their credentials in common.
fn class(auth_type: &str) -> &str {
    match auth_type {
        "api_key" | "bearer_token" | "basic" | "authorization" | "token" => "static",
        other => other,
    }
}

/// Writes down which flow `auth_type: oauth2` means, so that no later change makes it mean another.
fn stamp_flow(document: &mut Document) {
    let is_oauth = document.get("auth_type").and_then(Value::as_str) == Some("oauth2");
    let delegates = document.get("delegate_auth_to_upstream") == Some(&Value::Bool(true));
    if !is_oauth || delegates || document.contains_key("oauth2_flow") {
        return;
    }
    let has = |name: &str| document.contains_key(name);
    let proves_itself = has("client_secret") || has("client_private_key");
    let machine = !has("authorization_url") && has("token_url") && has("client_id") && proves_itself;
    let flow = if machine {
        "client_credentials"
    } else {
        "authorization_code"
    };
    document.insert("oauth2_flow".to_owned(), flow.into());
}

/// Whether a field means another place than before: another origin, or another program.
fn differ(name: &str, before: &Document, after: &Document) -> bool {
    fn place(value: Option<&Value>) -> Option<String> {
        let value = value?;
        let url = value.as_str().and_then(|text| Url::parse(text).ok());
        let origin = url.map(|url| url.origin()).filter(Origin::is_tuple);
        Some(origin.map_or_else(|| value.to_string(), |origin| origin.ascii_serialization()))
    }
    place(before.get(name)) != place(after.get(name))
}

fn text(name: &str, value: Value, problems: &mut Vec<Problem>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text),
        _ => {
            problems.push(wrong(name, "takes text"));
            None
        }
    }
}

fn unknown(path: impl Into<String>, near: Option<&str>) -> Problem {
    let hint = near
        .map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default();
    wrong(path, format!("unknown field{hint}"))
}

fn wrong(path: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem {
        severity: Severity::Error,
        at: None,
        path: path.into(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;

//! The form of a server: what was filled in becomes the fields of `mcp_servers.<name>`, and those fields fill the form.
//! It judges no more than it has to: what fits together is the configuration's to say.

mod modes;
mod render;

use super::forms::{Errors, Fields};
use crate::config::fields::Kind;
use modes::{
    CONNECTION, DEFAULT_FLOW, DELEGATED, FLAGGED, IDENTITY, Mode, OF_PROGRAMS, OVER_HTTP, PARTS, Set,
};
use serde_json::{Map, Number, Value};

/// The field for the server's name.
pub(crate) const NAME: &str = "server_name";
/// The choices that decide which settings there are.
const TRANSPORT: &str = "transport";
const AUTH: &str = "authentication";
const FLOW: &str = "oauth_flow_type";
/// Before the name of a secret that is to be removed.
const REMOVE: &str = "remove:";

/// A form, new or of a server that is kept.
pub(crate) struct ServerForm {
    values: Fields,
    /// Of a kept server: the write-only settings that it has.
    kept: Option<Vec<String>>,
}

/// What a form asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Entered {
    /// The server's name.
    pub(crate) name: String,
    /// Fields of `mcp_servers.<name>`. Of a kept server `null` takes a field away, and a secret that is not here stays.
    pub(crate) fields: Map<String, Value>,
}

/// Which settings there are.
#[derive(Clone, Copy)]
struct Chosen {
    transport: &'static str,
    mode: &'static Mode,
}

impl ServerForm {
    /// An empty form; `values` may fill fields.
    pub(crate) fn new(values: Fields) -> Self {
        Self { values, kept: None }
    }

    /// The form of the server `name` with these fields, which has these secrets.
    pub(crate) fn of(name: &str, fields: &Map<String, Value>, secrets: &[String]) -> Self {
        let mut values = Fields::default();
        values.set(NAME, name);
        let (auth, flow) = mode_of(fields);
        values.set(AUTH, auth);
        values.set(FLOW, flow);
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        values.set(TRANSPORT, text(TRANSPORT).unwrap_or("http"));
        let mut kept: Vec<String> = secrets.to_vec();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            if modes::is_write_only(name) {
                if !kept.iter().any(|kept| kept == name) {
                    kept.push(name.clone());
                }
            } else if let Some(field) = modes::field(name) {
                values.set(name, written(field.kind, value));
            }
        }
        Self {
            values,
            kept: Some(kept),
        }
    }

    /// The same form as it was submitted.
    pub(crate) fn submitted(mut self, values: Fields) -> Self {
        self.values = values;
        self
    }

    /// Fills fields that are empty, and choices that nobody made.
    pub(crate) fn fill(&mut self, values: &[(&'static str, String)]) {
        for (name, value) in values {
            let unmade = matches!(
                (*name, self.values.get(name)),
                (TRANSPORT, "http") | (AUTH, "none")
            );
            if unmade || self.values.filled(name).is_none() {
                self.values.set(name, value.as_str());
            }
        }
    }

    /// Whether secrets were written, which no page shows again.
    pub(crate) fn has_secrets(&self) -> bool {
        let mut all = all_fields().into_iter();
        all.any(|name| {
            let secret = modes::field(name).is_some_and(|field| field.kind == Kind::Secret);
            secret && self.values.filled(name).is_some()
        })
    }

    /// What is filled in.
    pub(crate) fn values(&self) -> &Fields {
        &self.values
    }

    fn chosen(&self) -> Chosen {
        let transport = self.values.filled(TRANSPORT).unwrap_or("http");
        let transport = modes::TRANSPORTS.iter().find(|(word, _)| *word == transport);
        let auth = self.values.filled(AUTH).unwrap_or("none");
        let flow = self.values.filled(FLOW).unwrap_or(DEFAULT_FLOW);
        let mode = Mode::of(auth, flow).or_else(|| Mode::of(auth, DEFAULT_FLOW));
        Chosen {
            transport: transport.map_or("http", |(word, _)| word),
            mode: mode.unwrap_or(&modes::MODES[0]),
        }
    }

    fn keeps(&self, name: &str) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| kept.iter().any(|kept| kept == name))
    }

    /// What the form asks for.
    ///
    /// # Errors
    /// What cannot be read, field by field.
    pub(crate) fn read(&self) -> Result<Entered, Errors> {
        let chosen = self.chosen();
        let mut errors = Errors::default();
        let mut fields = Map::new();
        let name = self.values.get(NAME).to_owned();
        if name.is_empty() {
            errors.add(NAME, "is required");
        }
        fields.insert(TRANSPORT.into(), chosen.transport.into());
        for (name, set) in chosen.mode.sets {
            let value = match set {
                Set::Word(word) => Value::from(*word),
                Set::Yes => Value::Bool(true),
            };
            fields.insert((*name).into(), value);
        }
        for name in all_fields() {
            if !chosen.has(name) {
                continue;
            }
            match self.entered(name) {
                Ok(Some(value)) => {
                    fields.insert(name.into(), value);
                }
                Ok(None) if self.wants(chosen, name) => errors.add(name, "is required"),
                Ok(None) => {}
                Err(message) => errors.add(name, message),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if self.kept.is_some() {
            self.take_away(chosen, &mut fields);
        }
        Ok(Entered { name, fields })
    }

    /// Whether a blank field is an error. Nothing else in the form can stand for it.
    fn wants(&self, chosen: Chosen, name: &str) -> bool {
        let over_http = chosen.transport != "stdio";
        let required = match name {
            "url" => over_http,
            "command" => !over_http,
            name => chosen.mode.required.contains(&name),
        };
        let by_key = name == "client_secret"
            && (self.values.filled("client_private_key").is_some() || self.keeps("client_private_key"));
        let stays = self.keeps(name) && !self.removes(name);
        required && !by_key && !stays
    }

    fn removes(&self, name: &str) -> bool {
        self.values.has(&format!("{REMOVE}{name}"))
    }

    /// `null` for whatever is left blank or has no meaning any more; a blank secret stays where it has one.
    fn take_away(&self, chosen: Chosen, fields: &mut Map<String, Value>) {
        for name in all_fields().into_iter().chain(modes::CHOICES.iter().copied()) {
            let stays = modes::is_write_only(name) && chosen.has(name) && !self.removes(name);
            if !fields.contains_key(name) && !stays {
                fields.insert(name.into(), Value::Null);
            }
        }
    }

    /// What stands in one field; `None` when it is blank.
    fn entered(&self, name: &str) -> Result<Option<Value>, String> {
        let Some(text) = self.values.filled(name) else {
            return Ok(None);
        };
        let Some(field) = modes::field(name) else {
            return Ok(None);
        };
        let value = match field.kind {
            Kind::Secret => Value::from(self.values.raw(name).trim_matches('\n')),
            Kind::Text | Kind::Url | Kind::Choice(_) => Value::from(text.trim()),
            Kind::Bool if matches!(text, "true" | "false") => Value::Bool(text == "true"),
            Kind::Bool => return Err("takes Yes or No".into()),
            Kind::Seconds | Kind::Count => {
                let number: Result<Number, _> = serde_json::from_str(text.trim());
                Value::Number(number.map_err(|_| "takes a number".to_owned())?)
            }
            Kind::TextList if name == "scopes" => text.split_whitespace().map(Value::from).collect(),
            Kind::TextList => lines(text).map(|line| Value::from(line.trim())).collect(),
            Kind::Headers => pairs(text, ':', "Name: value")?,
            Kind::TextMap => pairs(text, '=', "NAME=value")?,
            Kind::Any => serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?,
        };
        Ok(Some(value))
    }
}

impl Chosen {
    /// Whether a setting has a meaning.
    fn has(self, name: &str) -> bool {
        let over_http = self.transport != "stdio";
        if OVER_HTTP.contains(&name) {
            return over_http;
        }
        if OF_PROGRAMS.contains(&name) {
            return !over_http;
        }
        is_common(name) || self.mode.has(name)
    }
}

/// How a server with these fields is reached, for people.
pub(crate) fn transport_of(fields: &Map<String, Value>) -> &'static str {
    match fields.get(TRANSPORT).and_then(Value::as_str) {
        Some("sse") => "SSE",
        Some("stdio") => "stdio",
        _ => "HTTP",
    }
}

/// What a server with these fields is shown, for people.
pub(crate) fn authentication_of(fields: &Map<String, Value>) -> &'static str {
    let (auth, flow) = mode_of(fields);
    Mode::of(auth, flow).map_or("None", |mode| mode.label)
}

/// Names a setting as the form does.
pub(crate) fn name_of(setting: &str) -> String {
    match setting {
        NAME => "MCP Server Name".into(),
        setting if modes::field(setting).is_some() => modes::label(setting),
        setting => setting.to_owned(),
    }
}

/// The field of the form that a setting has; nothing for what has none.
pub(crate) fn field_of(setting: &str) -> &str {
    let first = setting.split(['.', '[']).next().unwrap_or_default();
    match first {
        "oauth2_flow" => FLOW,
        "auth_type" | DELEGATED | FLAGGED => AUTH,
        name if name == NAME || name == TRANSPORT || all_fields().contains(&name) => name,
        _ => "",
    }
}

/// Whether what is kept of a setting is shown to nobody.
pub(crate) fn is_write_only(setting: &str) -> bool {
    modes::is_write_only(setting)
}

fn is_common(name: &str) -> bool {
    IDENTITY.contains(&name) || PARTS.iter().any(|part| part.fields.contains(&name))
}

/// Every setting that has a field, once.
fn all_fields() -> Vec<&'static str> {
    let parts = PARTS.iter().flat_map(|part| part.fields).copied();
    let modes = modes::MODES.iter().flat_map(Mode::fields);
    let mut all = Vec::new();
    for name in IDENTITY
        .iter()
        .chain(CONNECTION)
        .copied()
        .chain(modes)
        .chain(parts)
    {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The choices that these fields come from. A flow that is not written is inferred as the configuration does.
fn mode_of(fields: &Map<String, Value>) -> (&'static str, &'static str) {
    let is_set = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    let written = fields.get("auth_type").and_then(Value::as_str).unwrap_or("none");
    let auth = match written {
        "none" if is_set(FLAGGED) => FLAGGED,
        other => modes::MODES
            .iter()
            .map(|mode| mode.auth)
            .find(|auth| *auth == other)
            .unwrap_or("none"),
    };
    let machine = fields.get("oauth2_flow").and_then(Value::as_str).map_or_else(
        || {
            let proof = has("client_secret") || has("client_private_key");
            !has("authorization_url") && has("token_url") && has("client_id") && proof
        },
        |flow| flow == "client_credentials",
    );
    let flow = if is_set(DELEGATED) {
        DELEGATED
    } else if machine {
        "client_credentials"
    } else {
        DEFAULT_FLOW
    };
    (auth, flow)
}

/// A value as its field shows it.
fn written(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Any, value) => serde_json::to_string_pretty(value).unwrap_or_default(),
        (Kind::TextList, Value::Array(items)) => items.iter().map(plain).collect::<Vec<_>>().join("\n"),
        (_, value) => plain(value),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

/// A line for each name with its value.
fn pairs(text: &str, between: char, example: &str) -> Result<Value, String> {
    let pairs = lines(text).map(|line| {
        let (name, value) = line
            .split_once(between)
            .ok_or_else(|| format!("takes lines like {example}"))?;
        Ok((name.trim().to_owned(), Value::from(value.trim())))
    });
    Ok(Value::Object(pairs.collect::<Result<_, String>>()?))
}

#[cfg(test)]
mod tests;

//! Reads a section of the tree by its table of fields: unknown keys, wrong types, unset variables and
//! fields that are not supported are findings; what is left is typed. It knows no section by name.

use super::fields::{Field, Kind, Support};
use super::problem::{Findings, nearest};
use super::settings::CallerHeaders;
use super::yaml::{Key, Node, Position, Value};
use std::collections::HashMap;
use std::time::Duration;
use url::Url;

/// Values that begin with this are replaced by an environment variable.
const ENVIRONMENT_PREFIX: &str = "os.environ/";

/// The longest URL, in bytes; requests carry somewhat more.
const LONGEST_URL: usize = 8192;
/// The longest duration that a setting may name: 30 days.
const MAX_SECONDS: f64 = 30.0 * 24.0 * 3600.0;

/// What becomes of keys that the table does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Each is an error.
    Error,
    /// The section is shared with LiteLLM: only what looks like one of ours is an error.
    PassOver,
}

/// A value of the type that its field asks for.
pub(super) enum Read {
    Text(String),
    Bool(bool),
    Seconds(Duration),
    Count(usize),
    List(Vec<(String, Position)>),
    Map(Vec<(String, String, Position)>),
    Url(Url),
    Node(Node),
}

/// The fields of one section that were given and are usable.
pub(super) struct Section {
    pub(super) path: String,
    pub(super) at: Position,
    values: HashMap<&'static str, (Position, Read)>,
}

impl Section {
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn at(&self, name: &str) -> Position {
        self.values.get(name).map_or(self.at, |(at, _)| *at)
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some((_, Read::Text(text))) => Some(text),
            _ => None,
        }
    }

    pub(super) fn url(&self, name: &str) -> Option<&Url> {
        match self.values.get(name) {
            Some((_, Read::Url(url))) => Some(url),
            _ => None,
        }
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.values.get(name) {
            Some((_, Read::Bool(value))) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        match self.values.get(name) {
            Some((_, Read::Seconds(seconds))) => Some(*seconds),
            _ => None,
        }
    }

    pub(super) fn count(&self, name: &str) -> Option<usize> {
        match self.values.get(name) {
            Some((_, Read::Count(count))) => Some(*count),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> &[(String, Position)] {
        match self.values.get(name) {
            Some((_, Read::List(items))) => items,
            _ => &[],
        }
    }

    pub(super) fn map(&self, name: &str) -> &[(String, String, Position)] {
        match self.values.get(name) {
            Some((_, Read::Map(pairs))) => pairs,
            _ => &[],
        }
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        match self.values.get(name) {
            Some((_, Read::Node(node))) => Some(node),
            _ => None,
        }
    }
}

/// Reads sections and collects what is wrong with them.
pub(super) struct Reader<'e> {
    /// The process environment with `environment_variables` of the file on top.
    pub(super) environment: &'e HashMap<String, String>,
    /// The process environment alone, for what no file may decide.
    pub(super) process: &'e HashMap<String, String>,
    pub(super) findings: Findings,
    /// Paths that were LiteLLM's own business.
    pub(super) passed_over: Vec<String>,
    /// Names that `general_settings` gives to headers of the gateway's own.
    pub(super) caller_headers: CallerHeaders,
    /// Whether what is read may refer to the environment.
    pub(super) may_refer: bool,
}

impl Reader<'_> {
    /// A mapping's pairs; anything else is a finding. Nothing (`key:`) is an empty mapping.
    pub(super) fn pairs<'n>(&mut self, node: &'n Node, path: &str) -> &'n [(Key, Node)] {
        match &node.value {
            Value::Mapping(pairs) => pairs,
            _ if node.is_null() => &[],
            other => {
                self.findings.error(
                    node.at,
                    path,
                    format!("takes a mapping, and this is {}", other.shape()),
                );
                &[]
            }
        }
    }

    pub(super) fn section(
        &mut self,
        node: &Node,
        path: &str,
        table: &'static [Field],
        unknown: Unknown,
    ) -> Section {
        let mut values = HashMap::new();
        for (key, value) in self.pairs(node, path) {
            let path = join(path, &key.text);
            let Some(field) = table.iter().find(|field| field.name == key.text) else {
                self.unknown(key, &path, table, unknown);
                continue;
            };
            if value.is_null() {
                continue;
            }
            let mut value = value.clone();
            if !self.resolve(&mut value, &path) {
                continue;
            }
            match field.support {
                Support::NotYet(what) => {
                    self.findings
                        .error(key.at, &path, format!("not supported yet; it belongs to {what}"));
                }
                Support::Only(default, what) => match &value.value {
                    Value::Scalar { text, .. } if text.eq_ignore_ascii_case(default) => {}
                    _ => {
                        let message =
                            format!("only {default} is supported yet; anything else belongs to {what}");
                        self.findings.error(value.at, &path, message);
                    }
                },
                Support::Yes => {
                    let at = value.at;
                    if let Some(read) = self.read(field, value, &path) {
                        values.insert(field.name, (at, read));
                    }
                }
            }
        }
        Section {
            path: path.to_owned(),
            at: node.at,
            values,
        }
    }

    fn unknown(&mut self, key: &Key, path: &str, table: &[Field], unknown: Unknown) {
        let near = nearest(&key.text, table.iter().map(|field| field.name));
        if unknown == Unknown::PassOver && near.is_none() && !key.text.starts_with("mcp_") {
            self.passed_over.push(path.to_owned());
            return;
        }
        let hint = near
            .map(|name| format!("; did you mean {name}?"))
            .unwrap_or_default();
        self.findings.error(key.at, path, format!("unknown field{hint}"));
    }

    /// Replaces `os.environ/NAME` everywhere below `node`. False when a variable is not set.
    pub(super) fn resolve(&mut self, node: &mut Node, path: &str) -> bool {
        match &mut node.value {
            Value::Scalar { text, plain } => {
                let Some(name) = text.strip_prefix(ENVIRONMENT_PREFIX) else {
                    return true;
                };
                if !self.may_refer {
                    let message = "only the configuration file may refer to the environment";
                    self.findings.error(node.at, path, message);
                    return false;
                }
                if let Some(value) = self.environment.get(name) {
                    *text = value.clone();
                    // A variable that is set to nothing or to `null` is a value, not its absence.
                    *plain = false;
                    return true;
                }
                let message = format!("the environment variable {name} is not set");
                self.findings.error(node.at, path, message);
                false
            }
            Value::Sequence(items) => {
                let mut all = true;
                for (index, item) in items.iter_mut().enumerate() {
                    all &= self.resolve(item, &format!("{path}[{index}]"));
                }
                all
            }
            Value::Mapping(pairs) => {
                let mut all = true;
                for (key, value) in pairs {
                    all &= self.resolve(value, &join(path, &key.text));
                }
                all
            }
        }
    }

    fn read(&mut self, field: &Field, node: Node, path: &str) -> Option<Read> {
        if field.kind == Kind::Any {
            return Some(Read::Node(node));
        }
        let at = node.at;
        match (field.kind, node.value) {
            (Kind::TextList, Value::Sequence(items)) => {
                let texts: Vec<_> = items
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, item)| self.item(item, &format!("{path}[{index}]")))
                    .collect();
                Some(Read::List(texts))
            }
            (Kind::Headers | Kind::TextMap, Value::Mapping(pairs)) => {
                let pairs: Vec<_> = pairs
                    .into_iter()
                    .filter_map(|(key, value)| {
                        let (text, at) = self.item(value, &join(path, &key.text))?;
                        Some((key.text, text, at))
                    })
                    .collect();
                Some(Read::Map(pairs))
            }
            (kind, Value::Scalar { text, .. }) => match scalar(kind, text) {
                Ok(read) => Some(read),
                Err(message) => {
                    self.findings.error(at, path, message);
                    None
                }
            },
            (kind, other) => {
                let message = format!("takes {}, and this is {}", kind.describe(), other.shape());
                self.findings.error(at, path, message);
                None
            }
        }
    }

    fn item(&mut self, node: Node, path: &str) -> Option<(String, Position)> {
        match node.value {
            Value::Scalar { text, .. } => Some((text, node.at)),
            other => {
                self.findings.error(
                    node.at,
                    path,
                    format!("takes text, and this is {}", other.shape()),
                );
                None
            }
        }
    }
}

impl Kind {
    /// For messages and the reference.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Secret => "text (secret)".into(),
            Self::Url => "an http or https URL".into(),
            Self::Bool => "true or false".into(),
            Self::Seconds => "a number of seconds".into(),
            Self::Count => "a whole number above zero".into(),
            Self::TextList => "a list of texts".into(),
            Self::Headers => "a mapping of header names to values".into(),
            Self::TextMap => "a mapping of names to texts".into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Any => "anything".into(),
        }
    }
}

fn scalar(kind: Kind, text: String) -> Result<Read, String> {
    let wrong = || Err(format!("takes {}", kind.describe()));
    match kind {
        Kind::Text | Kind::Secret if text.is_empty() => Err("is empty".into()),
        Kind::Text | Kind::Secret => Ok(Read::Text(text)),
        Kind::Choice(words) if words.contains(&text.as_str()) => Ok(Read::Text(text)),
        Kind::Choice(words) => {
            let hint = nearest(&text, words.iter().copied());
            let hint = hint
                .map(|word| format!("; did you mean {word}?"))
                .unwrap_or_default();
            Err(format!("takes {}{hint}", kind.describe()))
        }
        Kind::Url => url(&text).map(Read::Url),
        Kind::Bool => match text.as_str() {
            "true" | "True" | "TRUE" => Ok(Read::Bool(true)),
            "false" | "False" | "FALSE" => Ok(Read::Bool(false)),
            _ => wrong(),
        },
        Kind::Seconds => match text.parse::<f64>() {
            Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => {
                Ok(Read::Seconds(Duration::from_secs_f64(seconds)))
            }
            _ => Err(format!(
                "takes a number of seconds above 0 and up to {MAX_SECONDS}"
            )),
        },
        Kind::Count => match text.parse::<usize>() {
            Ok(count) if count > 0 => Ok(Read::Count(count)),
            _ => wrong(),
        },
        Kind::TextList | Kind::Headers | Kind::TextMap | Kind::Any => wrong(),
    }
}

fn url(text: &str) -> Result<Url, String> {
    if text.len() > LONGEST_URL {
        return Err(format!("is longer than {LONGEST_URL} characters"));
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "takes an http or https URL, and this begins with {}:",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user name or password in it; use the fields for credentials".into());
    }
    if url.fragment().is_some() {
        return Err("has a fragment (#…), which no server ever sees".into());
    }
    Ok(url)
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

//! YAML as a tree of text with positions. What a scalar means is decided by the field that reads it, so
//! `no`, `1.10` and `0123` stay what was written. This knows nothing of the configuration's content.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::fmt;

/// How deep a document may nest, and how many nodes it may have with aliases expanded.
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 100_000;

/// A place in the file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<Span> for Position {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value.
    pub(super) value: Value,
    /// Where it begins.
    pub(super) at: Position,
}

/// What a node holds.
#[derive(Clone)]
pub(super) enum Value {
    /// Text. `plain` is false when it was quoted or a block.
    Scalar {
        /// The text with quotes and escapes resolved.
        text: String,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Key and value pairs in the order of the file; every key once.
    Mapping(Vec<(Key, Node)>),
}

/// Scalars may be secrets: only their shape is shown.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shape())
    }
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The key's text.
    pub(super) text: String,
    /// Where it stands.
    pub(super) at: Position,
}

/// Why a file is not one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where.
    pub(super) at: Position,
    /// What.
    pub(super) message: String,
}

impl Value {
    /// A word for what this is, for messages.
    pub(super) fn shape(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "a single value",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl Node {
    /// Whether the value was left out: nothing, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value as JSON, by YAML's core schema for plain scalars.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Scalar { .. } if self.is_null() => Json::Null,
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Json::Bool(true),
                "false" | "False" | "FALSE" => Json::Bool(false),
                // JSON numbers only: 007 and 0x7 stay text.
                other => match serde_json::from_str(other) {
                    Ok(Json::Number(number)) => Json::Number(number),
                    _ => Json::String(text.clone()),
                },
            },
            Value::Scalar { text, .. } => Json::String(text.clone()),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(pairs) => pairs
                .iter()
                .map(|(key, value)| (key.text.clone(), value.to_json()))
                .collect(),
        }
    }
}

/// Reads one document. `Ok(None)` when the file is empty. Every repeated key is reported.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Vec<Fault>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        faults: Vec::new(),
    };
    let root = builder.document().map_err(|fault| vec![fault])?;
    if builder.faults.is_empty() {
        Ok(root)
    } else {
        Err(builder.faults)
    }
}

struct Builder<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    faults: Vec<Fault>,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Position), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.into())),
            Some(Err(error)) => Err(Fault {
                at: Position {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                },
                message: format!("not YAML: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, Position::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Fault> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (_, at) if root.is_some() => {
                    return Err(Fault {
                        at,
                        message: "a second document; the configuration is one".into(),
                    });
                }
                (event, at) => root = Some(self.node(event, at, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Result<Node, Fault> {
        self.count(1, at)?;
        if depth > MAX_DEPTH {
            return Err(Fault {
                at,
                message: format!("nested deeper than {MAX_DEPTH} levels"),
            });
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (
                Value::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                },
                anchor,
            ),
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                (Value::Sequence(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Value::Mapping(self.pairs(depth)?), anchor),
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned();
                let node = node.ok_or_else(|| Fault {
                    at,
                    message: "an alias without its anchor".into(),
                })?;
                self.count(size(&node), at)?;
                (node.value, 0)
            }
            _ => {
                return Err(Fault {
                    at,
                    message: "not YAML: a value is missing".into(),
                });
            }
        };
        let node = Node { value, at };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn pairs(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Value::Scalar { text, .. } = self.node(event, at, depth + 1)?.value else {
                return Err(Fault {
                    at,
                    message: "a key must be text".into(),
                });
            };
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            if text == "<<" {
                match value.value {
                    Value::Mapping(inner) => merged.extend(inner),
                    _ => {
                        return Err(Fault {
                            at,
                            message: "<< takes a mapping".into(),
                        });
                    }
                }
            } else if let Some((first, _)) = pairs.iter().find(|(key, _)| key.text == text) {
                let message = format!(
                    "{text} stands here a second time; the first is at line {}",
                    first.at.line
                );
                self.faults.push(Fault { at, message });
            } else {
                pairs.push((Key { text, at }, value));
            }
        }
        for (key, value) in merged {
            if !pairs.iter().any(|(own, _)| own.text == key.text) {
                pairs.push((key, value));
            }
        }
        Ok(pairs)
    }

    fn count(&mut self, more: usize, at: Position) -> Result<(), Fault> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(Fault {
                at,
                message: format!("more than {MAX_NODES} values, aliases expanded"),
            });
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Mapping(pairs) => pairs.iter().map(|(_, value)| size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn json_of(text: &str) -> serde_json::Value {
        parse(text).expect("parses").expect("not empty").to_json()
    }

    #[test]
    fn scalars_keep_their_text_until_read() {
        assert_eq!(
            json_of("a: no\nb: 1.5\nc: '1.5'\nd: 0123\ne: ~\nf:\ng: true\n"),
            json!({"a": "no", "b": 1.5, "c": "1.5", "d": "0123", "e": null, "f": null, "g": true})
        );
    }

    #[test]
    fn anchors_and_merges() {
        assert_eq!(
            json_of("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n"),
            json!({"base": {"x": 1, "y": 2}, "more": {"y": 3, "x": 1}})
        );
    }

    #[test]
    fn every_repeated_key_is_reported_with_its_place() {
        let faults = parse("a: 1\nb: {c: 1, c: 2}\na: 3\n").expect_err("faults");
        let places: Vec<String> = faults.iter().map(|f| format!("{} {}", f.at, f.message)).collect();
        assert_eq!(
            places,
            [
                "2:11 c stands here a second time; the first is at line 2",
                "3:1 a stands here a second time; the first is at line 1"
            ]
        );
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for n in 1..9 {
            bomb.push_str(&format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 9].join(",")
            ));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(500)).is_err());
    }

    #[test]
    fn faults_of_syntax_have_a_place() {
        let faults = parse("a: [1, 2\nb: 3\n").expect_err("fault");
        assert!(
            faults[0].at.line >= 1 && faults[0].message.starts_with("not YAML"),
            "{faults:?}"
        );
        assert!(parse("").expect("empty").is_none());
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }

    #[test]
    fn a_value_does_not_print() {
        assert!(!format!("{:?}", parse("key: hush").expect("parses")).contains("hush"));
    }
}

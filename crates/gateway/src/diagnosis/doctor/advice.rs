//! What to do about a finding: a line of the configuration where one mends it, else who has to change what.

use serde::Serialize;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "who", rename_all = "lowercase")]
pub enum Advice {
    /// A line of the server's entry in the configuration.
    Configuration {
        /// The line, valid YAML.
        line: String,
        /// Why it helps.
        why: String,
    },
    /// No line mends it: whoever runs the MCP server or its authorization server has to.
    Upstream {
        /// What they have to change.
        what: String,
    },
    /// Something around the gateway: the command, the network, the machine.
    You {
        /// What to do.
        what: String,
    },
}

/// `name: value`, as text.
pub(super) fn line(name: &str, value: &str, why: impl Into<String>) -> Advice {
    Advice::Configuration {
        line: format!("{name}: {}", scalar(value)),
        why: why.into(),
    }
}

/// `name: […]`.
pub(super) fn list_line(name: &str, values: &[String], why: impl Into<String>) -> Advice {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    Advice::Configuration {
        line: format!("{name}: [{}]", values.join(", ")),
        why: why.into(),
    }
}

/// The line of `name` has to go.
pub(super) fn drop_line(name: &str, why: impl Into<String>) -> Advice {
    Advice::Configuration {
        line: format!("# {name}: (remove this line)"),
        why: why.into(),
    }
}

pub(super) fn upstream(what: impl Into<String>) -> Advice {
    Advice::Upstream { what: what.into() }
}

pub(super) fn you(what: impl Into<String>) -> Advice {
    Advice::You { what: what.into() }
}

/// Text as YAML reads it back: plain where nothing in it means anything to YAML. What a server says of itself must
/// not become a line of its own.
fn scalar(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._~%-+=".contains(c);
    let mut characters = value.chars().peekable();
    let begins = value.starts_with(|c: char| c.is_ascii_alphabetic());
    let mut harmless = begins;
    while let Some(c) = characters.next() {
        // A colon is a mapping only before a blank or the end.
        harmless &= plain(c) || c == ':' && characters.peek().is_some();
    }
    if harmless { value.to_owned() } else { quoted(value) }
}

/// In single quotes, in which nothing but the quote itself has a meaning.
fn quoted(value: &str) -> String {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_never_becomes_more_than_a_value() {
        for (value, expected) in [
            ("https://idp.example/a", "https://idp.example/a"),
            ("client_secret_basic", "client_secret_basic"),
            ("https://idp.example/a#b", "'https://idp.example/a#b'"),
            ("x: y", "'x: y'"),
            ("x:", "'x:'"),
            ("a\nurl: https://evil.example", "'aurl: https://evil.example'"),
            ("it's", "'it''s'"),
            ("os.environ/HOME", "os.environ/HOME"),
            ("", "''"),
            ("1", "'1'"),
        ] {
            assert_eq!(scalar(value), expected, "{value}");
        }
        let list = list_line("scopes", &["mcp:read".into(), "a'b".into()], "");
        let Advice::Configuration { line, .. } = list else {
            panic!("{list:?}")
        };
        assert_eq!(line, "scopes: ['mcp:read', 'a''b']");
    }
}

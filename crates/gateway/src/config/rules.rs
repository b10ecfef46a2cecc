//! The tool rules of one entry of `mcp_servers`: `allowed_tools`, `disallowed_tools` and `allowed_params`.

use super::reader::{Reader, Section, join};
use super::settings::RuleSettings;
use super::yaml::{Node, Position, Value};
use http::{HeaderName, HeaderValue, header};
use vestibule_mcp::members::folded;

impl Reader<'_> {
    pub(super) fn rules(&mut self, section: &Section) -> RuleSettings {
        let (allow, deny) = ("allowed_tools", "disallowed_tools");
        for field in [allow, deny] {
            for (name, at) in section.list(field) {
                self.tool_name(name, *at, &section.path_of(field));
            }
        }
        let texts = |name| section.list(name).iter().map(|(text, _)| text.clone()).collect();
        if section.has(allow) && section.list(allow).is_empty() {
            let message = "is empty, which LiteLLM reads as every tool; name the tools, or leave it out";
            self.findings
                .error(section.at(allow), section.path_of(allow), message);
        }
        let allowed: Option<Vec<String>> = section.has(allow).then(|| texts(allow));
        let disallowed: Vec<String> = texts(deny);
        if let (Some(allowed), true) = (&allowed, section.has(deny)) {
            let at = section.at(deny);
            match disallowed.iter().find(|tool| names(allowed, tool)) {
                Some(both) => {
                    let message =
                        format!("{both} stands in allowed_tools too, which counts; drop it from one of them");
                    self.findings.error(at, section.path_of(deny), message);
                }
                None => self.findings.warn(
                    at,
                    section.path_of(deny),
                    "has no effect beside allowed_tools, which counts",
                ),
            }
        }
        let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
        for (tool, at, list) in self.parameters(section) {
            let path = join(&section.path_of("allowed_params"), &tool);
            self.tool_name(&tool, at, &path);
            let hidden = match &allowed {
                Some(allowed) => !names(allowed, &tool),
                None => names(&disallowed, &tool),
            };
            if hidden {
                self.findings
                    .error(at, &path, "has no effect: the tool may not be used at all");
            } else if parameters.iter().any(|(other, _)| is_same(other, &tool)) {
                self.findings.error(
                    at,
                    &path,
                    "stands twice; tools' names do not differ by case or prefix",
                );
            }
            parameters.push((tool, list));
        }
        RuleSettings {
            allowed,
            disallowed,
            parameters,
        }
    }

    /// What has to be read must not come compressed.
    pub(super) fn uncompressed(
        &mut self,
        section: &Section,
        extra: &[HeaderName],
        fixed: &[(HeaderName, HeaderValue)],
    ) {
        let rules = ["allowed_tools", "disallowed_tools", "allowed_params"];
        let Some(rule) = rules.into_iter().find(|rule| section.has(rule)) else {
            return;
        };
        for (field, asks) in [
            ("extra_headers", extra.contains(&header::ACCEPT_ENCODING)),
            (
                "static_headers",
                fixed.iter().any(|(name, _)| name == header::ACCEPT_ENCODING),
            ),
        ] {
            if asks {
                let message =
                    format!("cannot have accept-encoding beside {rule}: tool lists are read on their way");
                self.findings
                    .error(section.at(field), section.path_of(field), message);
            }
        }
    }

    fn tool_name(&mut self, name: &str, at: Position, path: &str) {
        if name.trim().is_empty() {
            self.findings.error(at, path, "has a tool without a name");
        } else if name.contains('*') {
            let message = format!("{name:?} is no pattern: tools are named one by one");
            self.findings.error(at, path, message);
        }
    }

    fn parameters(&mut self, section: &Section) -> Vec<(String, Position, Vec<String>)> {
        let path = section.path_of("allowed_params");
        let Some(node) = section.node("allowed_params") else {
            return Vec::new();
        };
        let mut tools = Vec::new();
        for (key, value) in self.pairs(node, &path) {
            let path = join(&path, &key.text);
            let Value::Sequence(items) = &value.value else {
                let message = format!(
                    "takes a list of the tool's parameters, and this is {}",
                    value.value.shape()
                );
                self.findings.error(value.at, path, message);
                continue;
            };
            let mut names = Vec::new();
            for Node { value, at } in items {
                match value {
                    Value::Scalar { text, .. } => names.push(text.clone()),
                    other => {
                        let message = format!("takes names of parameters, and this is {}", other.shape());
                        self.findings.error(*at, &path, message);
                    }
                }
            }
            tools.push((key.text.clone(), key.at, names));
        }
        tools
    }
}

/// Whether one of the names is the tool's, in any of its spellings.
fn names(list: &[String], tool: &str) -> bool {
    list.iter().any(|other| is_same(other, tool))
}

/// By which prefixes the server is known is not settled yet, so any counts.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (folded(one.trim()), folded(other.trim()));
    let prefixed = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.ends_with('-'));
    one == other || prefixed(&one, &other) || prefixed(&other, &one)
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use std::collections::HashMap;

    fn found(fields: &str) -> Vec<String> {
        let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!("mcp_servers:\n  one:\n    url: http://localhost:1/mcp\n{fields}");
        let loaded = load(&text, &HashMap::new());
        loaded.findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_that_say_what_they_do() {
        for fields in [
            "allowed_tools: [echo, one-list]",
            "disallowed_tools: [drop]",
            "disallowed_tools: []",
            "allowed_params: {echo: [message], ping: []}",
            "allowed_tools: [one-Echo]\nallowed_params: {echo: [message]}",
            "disallowed_tools: [drop]\nextra_headers: [accept-encoding-x]",
            "extra_headers: [accept-encoding]",
        ] {
            assert_eq!(found(fields), Vec::<String>::new(), "{fields}");
        }
    }

    #[test]
    fn rules_that_would_not_hold_are_no_rules() {
        let section = "mcp_servers.one";
        for (fields, expected) in [
            (
                "allowed_tools: []",
                "4:20: error: mcp_servers.one.allowed_tools: is empty, which LiteLLM reads as every tool; name the tools, or leave it out",
            ),
            (
                "disallowed_tools: ['delete_*']",
                "4:24: error: mcp_servers.one.disallowed_tools: \"delete_*\" is no pattern: tools are named one by one",
            ),
            (
                "allowed_tools: [' ']",
                "4:21: error: mcp_servers.one.allowed_tools: has a tool without a name",
            ),
            (
                "allowed_tools: [echo]\ndisallowed_tools: [drop]",
                "5:23: warning: mcp_servers.one.disallowed_tools: has no effect beside allowed_tools, which counts",
            ),
            (
                "allowed_tools: [echo]\ndisallowed_tools: [one-ECHO]",
                "5:23: error: mcp_servers.one.disallowed_tools: one-ECHO stands in allowed_tools too, which counts; drop it from one of them",
            ),
            (
                "disallowed_tools: [echo]\nallowed_params: {echo: [x]}",
                "5:22: error: mcp_servers.one.allowed_params.echo: has no effect: the tool may not be used at all",
            ),
            (
                "allowed_tools: [echo]\nallowed_params: {ping: [x]}",
                "5:22: error: mcp_servers.one.allowed_params.ping: has no effect: the tool may not be used at all",
            ),
            (
                "allowed_params: {echo: [x], Echo: [y]}",
                "4:33: error: mcp_servers.one.allowed_params.Echo: stands twice; tools' names do not differ by case or prefix",
            ),
            (
                "allowed_params: {echo: message}",
                "4:28: error: mcp_servers.one.allowed_params.echo: takes a list of the tool's parameters, and this is a single value",
            ),
            (
                "allowed_params: [echo]",
                "4:21: error: mcp_servers.one.allowed_params: takes a mapping, and this is a list",
            ),
            (
                "disallowed_tools: [drop]\nextra_headers: [Accept-Encoding]",
                "5:20: error: mcp_servers.one.extra_headers: cannot have accept-encoding beside disallowed_tools: tool lists are read on their way",
            ),
            (
                "allowed_tools: [echo]\nstatic_headers: {Accept-Encoding: gzip}",
                "5:21: error: mcp_servers.one.static_headers: cannot have accept-encoding beside allowed_tools: tool lists are read on their way",
            ),
        ] {
            assert!(expected.contains(section));
            assert_eq!(found(fields), [expected], "{fields}");
        }
    }
}

//! What concerns a server behind endpoints with several: its groups, and that its names stay its own.

use super::problem::Severity;
use super::reader::{Reader, Section, join};
use super::server::RESERVED;
use super::settings::{ServerSettings, SharedSettings};
use std::collections::HashMap;
use vestibule_mcp::naming;

impl Reader<'_> {
    pub(super) fn shared(&mut self, section: &Section) -> SharedSettings {
        if section.has("access_groups") && section.has("mcp_access_groups") {
            let message = "access_groups and mcp_access_groups are the same setting; keep one";
            self.findings.error(
                section.at("mcp_access_groups"),
                section.path_of("mcp_access_groups"),
                message,
            );
        }
        let mut groups: Vec<String> = Vec::new();
        for field in ["access_groups", "mcp_access_groups"] {
            for (name, at) in section.list(field) {
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
                let path = section.path_of(field);
                if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed) {
                    let message = "a group's name takes 1 to 64 letters, digits, '_', '-' and '.', and does not begin with '.'";
                    self.findings.error(*at, path, message);
                } else if RESERVED.contains(&name.as_str()) {
                    let message = format!("{name} is a path of the gateway; choose another name");
                    self.findings.error(*at, path, message);
                } else if !groups.contains(name) {
                    groups.push(name.clone());
                }
            }
        }
        SharedSettings {
            groups,
            instructions: section.text("instructions").map(str::to_owned),
            sampling: section.bool("allow_sampling").unwrap_or(true),
            elicitation: section.bool("allow_elicitation").unwrap_or(true),
        }
    }

    /// What stands before a served name leads to one server.
    pub(super) fn unique_prefixes(&mut self, servers: &[ServerSettings]) {
        let mut owners: HashMap<String, (&str, &str)> = HashMap::new();
        for server in servers {
            for name in [Some(server.name.as_str()), server.alias.as_deref()]
                .into_iter()
                .flatten()
            {
                let prefix = naming::prefix(name).into_owned();
                if let Some((owner, theirs)) = owners.get(&prefix)
                    && *owner != server.name
                    // An equal name is refused as such.
                    && *theirs != name
                {
                    let message = format!(
                        "the tools of {name} and of mcp_servers.{owner} ({theirs}) would both be called {prefix}-…; rename one"
                    );
                    self.findings
                        .add(Severity::Error, None, join("mcp_servers", &server.name), message);
                }
                owners.entry(prefix).or_insert((&server.name, name));
            }
        }
    }

    /// A name in a path is a server or a group, never both.
    pub(super) fn groups_are_no_servers(&mut self, servers: &[ServerSettings]) {
        for server in servers {
            for group in &server.shared.groups {
                let owner = servers
                    .iter()
                    .find(|other| other.name == *group || other.alias.as_ref() == Some(group));
                if let Some(owner) = owner {
                    let path = join(&join("mcp_servers", &server.name), "access_groups");
                    let message = format!("the group {group} has a name of mcp_servers.{}", owner.name);
                    self.findings.add(Severity::Error, None, path, message);
                }
            }
        }
    }
}

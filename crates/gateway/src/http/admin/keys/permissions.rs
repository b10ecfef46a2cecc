//! `object_permission` as it is asked for: judged against the servers that there are, and put over what was there.

use super::super::api::{Change, says_something};
use crate::admission::permissions::{KeyDocument, meanings};
use crate::config::nearest;
use crate::registry::Registry;
use crate::web::error::{ErrorCode, Refusal, shown};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// As much of a name as a message repeats, and so many of them.
const NAME_SHOWN: usize = 100;
const NAMES_SHOWN: usize = 10;

/// What LiteLLM has beside them.
const FOREIGN: [&str; 8] = [
    "object_permission_id",
    "vector_stores",
    "agents",
    "agent_access_groups",
    "mcp_toolsets",
    "blocked_tools",
    "models",
    "search_tools",
];

/// What is said about permissions: what is left out stays, null takes away. Servers go by id, name or alias.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct PermissionChange {
    /// Servers.
    pub(crate) mcp_servers: Change<Vec<String>>,
    /// Groups of servers.
    pub(crate) mcp_access_groups: Change<Vec<String>>,
    /// The only tools, by server. A server that is named here may be used.
    pub(crate) mcp_tool_permissions: Change<BTreeMap<String, Vec<String>>>,
    /// Whatever else stands there.
    #[serde(flatten)]
    #[schemars(skip)]
    pub(crate) others: Map<String, Value>,
}

impl PermissionChange {
    /// Puts the change into a key's document. Its names have to be known, and mean the servers that have them now.
    pub(super) fn put_into(self, document: &mut KeyDocument, registry: &Registry) -> Result<(), Refusal> {
        self.judge(registry)?;
        document.narrowed = true;
        let (said, meaning) = (&mut document.object_permission, &mut document.meaning);
        if self.mcp_servers != Change::Keep {
            said.mcp_servers = self.mcp_servers.over(None).unwrap_or_default();
            meaning.mcp_servers = meanings(registry, &said.mcp_servers);
        }
        if self.mcp_access_groups != Change::Keep {
            said.mcp_access_groups = self.mcp_access_groups.over(None).unwrap_or_default();
        }
        if self.mcp_tool_permissions != Change::Keep {
            said.mcp_tool_permissions = self.mcp_tool_permissions.over(None).unwrap_or_default();
            meaning.mcp_tool_permissions = meanings(registry, said.mcp_tool_permissions.keys());
        }
        Ok(())
    }

    fn judge(&self, registry: &Registry) -> Result<(), Refusal> {
        foreign(&self.others)?;
        let names = Names(registry);
        let mut unknown = Vec::new();
        if let Change::Set(servers) = &self.mcp_servers {
            unknown.extend(servers.iter().filter_map(|name| names.unknown_server(name)));
        }
        if let Change::Set(groups) = &self.mcp_access_groups {
            unknown.extend(groups.iter().filter_map(|name| names.unknown_group(name)));
        }
        if let Change::Set(tools) = &self.mcp_tool_permissions {
            unknown.extend(tools.keys().filter_map(|name| names.unknown_server(name)));
            names.each_once(tools)?;
        }
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.truncate(NAMES_SHOWN);
        Err(Refusal::because(
            ErrorCode::UnknownName,
            format!("object_permission: {}.", unknown.join("; ")),
        ))
    }
}

fn foreign(others: &Map<String, Value>) -> Result<(), Refusal> {
    for (name, value) in others {
        let name = shown(name, NAME_SHOWN);
        if !FOREIGN.contains(&&*name) {
            let message = format!("object_permission: unknown field `{name}`.");
            return Err(Refusal::because(ErrorCode::InvalidField, message));
        }
        if says_something(value) {
            let message =
                format!("object_permission.{name} is LiteLLM's, and this gateway does not have it.");
            return Err(Refusal::because(ErrorCode::FieldNotSupported, message));
        }
    }
    Ok(())
}

/// The names that there are.
struct Names<'r>(&'r Registry);

impl Names<'_> {
    fn unknown_server(&self, name: &str) -> Option<String> {
        let all = self.0.all().iter();
        let names = all.flat_map(|server| [Some(&*server.name), server.alias.as_deref(), Some(&*server.id)]);
        let is_known = self.0.named(name).is_some();
        (!is_known).then(|| unknown("MCP server", name, names.flatten()))
    }

    fn unknown_group(&self, name: &str) -> Option<String> {
        let mut groups = self.0.all().iter().flat_map(|server| &server.shared.groups);
        (!groups.clone().any(|group| group == name))
            .then(|| unknown("group", name, groups.by_ref().map(String::as_str)))
    }

    /// One list for each server, since of two none would say which tools there are; and none that could be meant for all.
    fn each_once(&self, tools: &BTreeMap<String, Vec<String>>) -> Result<(), Refusal> {
        for server in self.0.all() {
            let is_it = |name: &&String| self.0.named(name).is_some_and(|named| named.id == server.id);
            let mut lists = tools.keys().filter(is_it);
            if let (Some(_), Some(_)) = (lists.next(), lists.next()) {
                let message = format!(
                    "object_permission.mcp_tool_permissions names the MCP server {} twice.",
                    server.name
                );
                return Err(Refusal::because(ErrorCode::InvalidField, message));
            }
        }
        if tools.values().flatten().any(|tool| tool == "*") {
            return Err(Refusal::because(
                ErrorCode::InvalidField,
                "object_permission.mcp_tool_permissions: * is no tool. For all tools of a server name it in \
                 mcp_servers and not here.",
            ));
        }
        Ok(())
    }
}

fn unknown<'n>(what: &str, name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let hint = nearest(name, names).map(|near| format!(" (`{near}` is the nearest name)"));
    let name = shown(name, NAME_SHOWN);
    format!("there is no {what} `{name}`{}", hint.unwrap_or_default())
}

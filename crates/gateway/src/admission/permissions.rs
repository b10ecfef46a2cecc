//! What a key is for, in the words of whoever made it, and which servers those meant. Names and derived ids change hands:
//! a limit stays with its server then, and a grant is no other server's. Written down are the names of that moment; later
//! ones are not.

use crate::registry::{Registry, Server};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Which servers and tools a key is for. Servers go by id, name or alias.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Servers.
    pub mcp_servers: Vec<String>,
    /// Groups of servers.
    pub mcp_access_groups: Vec<String>,
    /// The only tools, by server. A server that is named here may be used.
    pub mcp_tool_permissions: BTreeMap<String, Vec<String>>,
}

impl Permissions {
    /// Whether they name nothing at all.
    pub fn is_empty(&self) -> bool {
        self.mcp_servers.is_empty()
            && self.mcp_access_groups.is_empty()
            && self.mcp_tool_permissions.is_empty()
    }
}

/// The server that a name in [`Permissions`] meant when it was written down, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its second name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Whether its id was derived: it is another one with the next URL, and the name is what stays.
    #[serde(default)]
    pub has_derived_id: bool,
}

impl Meant {
    fn server(server: &Server) -> Self {
        Self {
            id: server.id.clone(),
            name: server.name.clone(),
            alias: server.alias.clone(),
            has_derived_id: server.has_derived_id,
        }
    }

    /// Whether it is this server, and no other one that took a name of it. A server of the file whose id was derived stays
    /// the same under its name: with the next URL, and with a `server_id` that says the id that it has anyway, or that was
    /// given to it at the URL that was meant.
    fn is(&self, server: &Server) -> bool {
        let may_have = |derived: &String| *derived == server.id || *derived == self.id;
        let keeps_its_name = || self.has_derived_id && self.name == server.name;
        self.id == server.id || (keeps_its_name() && server.derived_id.as_ref().is_some_and(may_have))
    }

    /// Whether this server is called like it.
    fn is_called_like(&self, server: &Server) -> bool {
        server.goes_by(&self.name) || self.alias.as_deref().is_some_and(|alias| server.goes_by(alias))
    }
}

/// Names with the servers that they meant. A name that is not here means whatever has it.
pub type Meanings = BTreeMap<String, Meant>;

/// What these names mean now.
pub fn meanings<'n>(registry: &Registry, names: impl IntoIterator<Item = &'n String>) -> Meanings {
    let meant = |name: &String| Some((name.clone(), Meant::server(registry.named(name)?)));
    names.into_iter().filter_map(meant).collect()
}

fn means(meanings: &Meanings, name: &str, server: &Server) -> bool {
    match meanings.get(name) {
        Some(meant) => meant.is(server),
        None => server.goes_by(name),
    }
}

/// What the names of [`Permissions`] meant, list by list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meaning {
    /// Those of `mcp_servers`.
    pub mcp_servers: Meanings,
    /// Those of `mcp_tool_permissions`.
    pub mcp_tool_permissions: Meanings,
}

/// What is kept about a key beside its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyDocument {
    /// What it is for, as it was said.
    pub object_permission: Permissions,
    /// Which servers that meant.
    pub meaning: Meaning,
    /// Whether it was said at all, and so narrows the key down, be it to nothing.
    pub narrowed: bool,
    /// Requests a minute.
    pub rpm_limit: Option<NonZeroU32>,
    /// The operator's own notes.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl KeyDocument {
    /// Whether the key is for some servers alone, and so not for all that its owner has.
    pub fn is_narrowed(&self) -> bool {
        self.narrowed || !self.object_permission.is_empty()
    }

    /// Which of the lists has this server, if one has.
    pub fn granted_by(&self, server: &Server) -> Option<&'static str> {
        let said = &self.object_permission;
        let (groups, meaning) = (&server.shared.groups, &self.meaning);
        let in_servers = |name: &String| means(&meaning.mcp_servers, name, server);
        let in_tools = |name: &String| means(&meaning.mcp_tool_permissions, name, server);
        if said.mcp_servers.iter().any(in_servers) {
            Some("mcp_servers")
        } else if said.mcp_tool_permissions.keys().any(in_tools) {
            Some("mcp_tool_permissions")
        } else if said.mcp_access_groups.iter().any(|group| groups.contains(group)) {
            Some("mcp_access_groups")
        } else {
            None
        }
    }

    /// The lists of the only tools of this server; every one of them holds. Where none is for it, those for a server that
    /// was called like it when they were said do: a limit is not gone with a new id under that name.
    pub fn limits(&self, server: &Server) -> Vec<&[String]> {
        let meanings = &self.meaning.mcp_tool_permissions;
        let lists = |fits: &dyn Fn(&str) -> bool| -> Vec<&[String]> {
            let all = self.object_permission.mcp_tool_permissions.iter();
            all.filter(|(name, _)| fits(name))
                .map(|(_, tools)| &**tools)
                .collect()
        };
        if self.has_own_limit(server) {
            return lists(&|name| means(meanings, name, server));
        }
        lists(&|name| {
            meanings
                .get(name)
                .is_some_and(|meant| meant.is_called_like(server))
        })
    }

    fn has_own_limit(&self, server: &Server) -> bool {
        let mut names = self.object_permission.mcp_tool_permissions.keys();
        names.any(|name| means(&self.meaning.mcp_tool_permissions, name, server))
    }

    /// The names of now of whatever a name in `mcp_tool_permissions` limits. Where the server that it meant is gone, those
    /// of servers that are called like it are named, if the key has them anyway: it would have them by being named here.
    fn limited_now(&self, registry: &Registry, name: &str) -> Vec<String> {
        let meanings = &self.meaning.mcp_tool_permissions;
        let is_there = lasting(registry).any(|server| means(meanings, name, server));
        let is_limited = |server: &Server| {
            let is_had = || server.allows_all_keys || self.granted_by(server).is_some();
            let meant = meanings.get(name);
            meant.is_some_and(|meant| meant.is_called_like(server)) && !self.has_own_limit(server) && is_had()
        };
        let others = lasting(registry).filter(|server| !is_there && is_limited(server));
        let others: Vec<String> = others.map(|server| name_of(registry, server)).collect();
        if others.is_empty() {
            return vec![name_now(registry, meanings, name)];
        }
        others
    }

    /// The names in `mcp_tool_permissions` that limit no server there is.
    pub fn idle_limits(&self, registry: &Registry) -> Vec<&str> {
        let meanings = &self.meaning.mcp_tool_permissions;
        let limits = |name: &str, server: &Server| {
            means(meanings, name, server)
                || meanings
                    .get(name)
                    .is_some_and(|meant| meant.is_called_like(server))
        };
        let names = self.object_permission.mcp_tool_permissions.keys();
        names
            .map(String::as_str)
            .filter(|name| !registry.all().iter().any(|server| limits(name, server)))
            .collect()
    }

    /// What it is for in the names of now: said again, it means the same.
    pub fn said_now(&self, registry: &Registry) -> Permissions {
        let said = &self.object_permission;
        let servers = said.mcp_servers.iter();
        let mut tools: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, list) in &said.mcp_tool_permissions {
            for name in self.limited_now(registry, name) {
                tools
                    .entry(name)
                    .and_modify(|both| both.retain(|tool| list.contains(tool)))
                    .or_insert_with(|| list.clone());
            }
        }
        Permissions {
            mcp_servers: servers
                .map(|name| name_now(registry, &self.meaning.mcp_servers, name))
                .collect(),
            mcp_access_groups: said.mcp_access_groups.clone(),
            mcp_tool_permissions: tools,
        }
    }
}

fn leads_to(registry: &Registry, name: &str, server: &Server) -> bool {
    registry.named(name).is_some_and(|now| now.id == server.id)
}

/// The server's name, or its id where the name is another one's.
fn name_of(registry: &Registry, server: &Server) -> String {
    if leads_to(registry, &server.name, server) {
        server.name.clone()
    } else {
        server.id.clone()
    }
}

/// The servers that are not only tried.
fn lasting(registry: &Registry) -> impl Iterator<Item = &Server> {
    let all = registry.all().iter().map(|server| &**server);
    all.filter(|server| !server.provenance.is_trial())
}

/// The name itself, while it leads to the server that it meant; else another one that does. The id stands for a server
/// that is gone where its name is somebody else's.
fn name_now(registry: &Registry, meanings: &Meanings, name: &str) -> String {
    let Some(meant) = meanings.get(name) else {
        return name.to_owned();
    };
    let by_id = lasting(registry).find(|server| server.id == meant.id);
    match by_id.or_else(|| lasting(registry).find(|server| meant.is(server))) {
        Some(server) if leads_to(registry, name, server) => name.to_owned(),
        Some(server) => name_of(registry, server),
        None if registry.named(name).is_some() => meant.id.clone(),
        None => name.to_owned(),
    }
}

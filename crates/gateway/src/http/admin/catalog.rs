//! What there is behind the gateway, for whoever may use it: groups, tools, one's own address, and the registry document
//! that a directory of MCP servers reads.

use super::answer;
use super::api::{Answer, Call, Nothing, Operation, Who, queried, written};
use super::servers::{Asker, servers_for, view::Eyes};
use crate::app::Worker;
use crate::http::relay::rest::{self, ToolList};
use crate::http::router::{id_of, peer_of};
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::request::Parts;
use http::{Method, Request, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The operations, and who may ask for them.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/v1/mcp/access_groups",
            Who::AnyKey,
            "The groups of the servers that the caller may use.",
            groups,
        ),
        Operation::by_hand::<Nothing, ToolList>(
            Method::GET,
            "/v1/mcp/tools",
            Who::AnyKey,
            "The tools of all servers that the caller may use, by the names that they have at endpoints with several.",
            get(rest::list_prefixed),
        ),
        Operation::new(
            Method::GET,
            "/v1/mcp/network/client-ip",
            Who::AnyKey,
            "The address that the caller has for the gateway.",
            address,
        ),
        Operation::by_hand::<Nothing, Registry>(
            Method::GET,
            "/v1/mcp/registry.json",
            Who::Anybody,
            "The servers that are public, as a registry of MCP servers lists them, where the operator says so.",
            get(registry),
        ),
    ]
}

impl Answer for ToolList {
    const FAILS_ALIKE: bool = true;
}

/// Groups.
#[derive(Debug, Serialize, JsonSchema)]
struct Groups {
    access_groups: BTreeSet<String>,
}

impl Answer for Groups {}

/// An address.
#[derive(Debug, Serialize, JsonSchema)]
struct Address {
    /// Null where it is not known.
    ip: Option<String>,
}

impl Answer for Address {}

/// The document of the registry.
#[derive(Debug, Serialize, JsonSchema)]
struct Registry {
    servers: Vec<Entry>,
}

impl Answer for Registry {}

/// A server of the registry.
#[derive(Debug, Serialize, JsonSchema)]
struct Entry {
    server: Described,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Described {
    name: String,
    title: String,
    description: String,
    version: &'static str,
    remotes: [Remote; 1],
}

#[derive(Debug, Serialize, JsonSchema)]
struct Remote {
    r#type: &'static str,
    url: String,
}

impl Entry {
    fn new(name: &str, title: &str, description: &str, url: String) -> Self {
        Self {
            server: Described {
                name: name.to_owned(),
                title: title.to_owned(),
                description: description.to_owned(),
                version: "1.0.0",
                remotes: [Remote {
                    r#type: "streamable-http",
                    url,
                }],
            },
        }
    }

    fn of(server: &Server, origin: &str) -> Self {
        let name = called(server);
        let description = server.info.get("description").and_then(Value::as_str);
        Self::new(
            name,
            name,
            description.unwrap_or_default(),
            format!("{origin}/{name}/mcp"),
        )
    }
}

/// The groups of the servers that the asker may see.
pub(crate) fn groups_for(worker: &Worker, asker: Asker<'_>) -> BTreeSet<String> {
    let servers = servers_for(&worker.app, asker, Eyes::of(asker.admission));
    let groups = servers.iter().flat_map(|server| &server.shared.groups);
    groups.cloned().collect()
}

async fn groups(call: Call, _: Nothing) -> Result<Groups, Refusal> {
    Ok(Groups {
        access_groups: groups_for(&call.worker, call.asker()),
    })
}

async fn address(call: Call, _: Nothing) -> Result<Address, Refusal> {
    let parts = &call.parts;
    let address = call.worker.app.addresses.of(&parts.headers, peer_of(parts));
    Ok(Address {
        ip: address.known().map(|address| address.to_string()),
    })
}

/// Asks for no key: it is there where the operator says that the names are public.
async fn registry(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let document = published(&worker, &parts);
    answer(&worker, document.and_then(|document| written(&document)), id)
}

fn published(worker: &Worker, parts: &Parts) -> Result<Registry, Refusal> {
    let app = &worker.app;
    if !app.management.registry_is_public {
        return Err(Refusal::new(ErrorCode::RegistryDisabled));
    }
    queried::<Nothing>(parts)?;
    let origin = app.origin.of(&parts.uri, &parts.headers, peer_of(parts));
    let origin = origin
        .ok_or_else(|| Refusal::new(ErrorCode::NoOrigin))?
        .to_string();
    let mut servers = app.servers_for(&parts.headers, peer_of(parts)).servers();
    servers.sort_by_key(|server| called(server));
    let all = "Every MCP server of this gateway.";
    let own = Entry::new("vestibule", "Vestibule", all, format!("{origin}/mcp"));
    let others = servers.into_iter().map(|server| Entry::of(server, &origin));
    Ok(Registry {
        servers: std::iter::once(own).chain(others).collect(),
    })
}

/// The name in its public address.
fn called(server: &Server) -> &str {
    server.alias.as_deref().unwrap_or(&server.name)
}

//! What there is behind the gateway, for whoever may use it: groups, tools, one's own address, and the registry document
//! that a directory of MCP servers reads.

use super::servers::{Asker, servers_for, view::Eyes};
use super::{answer, asker};
use crate::app::Worker;
use crate::http::router::{id_of, peer_of};
use crate::web::error::{ErrorCode, Refusal};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

type Result = std::result::Result<(StatusCode, Value), Refusal>;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<Worker>> {
    Router::new()
        .route("/v1/mcp/access_groups", get(groups))
        .route("/v1/mcp/network/client-ip", get(address))
        .route("/v1/mcp/registry.json", get(registry))
}

/// The groups of the servers that the asker may see.
pub(crate) fn groups_for(worker: &Worker, asker: Asker<'_>) -> BTreeSet<String> {
    let servers = servers_for(&worker.app, asker, Eyes::of(asker.admission));
    let groups = servers.iter().flat_map(|server| &server.shared.groups);
    groups.cloned().collect()
}

async fn groups(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result: Result = worker.app.gate.admit(&parts.headers).map(|admission| {
        let groups = groups_for(&worker, asker(&admission, &parts));
        (StatusCode::OK, json!({"access_groups": groups}))
    });
    answer(&worker, result, id)
}

async fn address(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result: Result = worker.app.gate.admit(&parts.headers).map(|_| {
        let address = worker.app.addresses.of(&parts.headers, peer_of(&parts));
        let ip = address.known().map(|address| address.to_string());
        (StatusCode::OK, json!({"ip": ip}))
    });
    answer(&worker, result, id)
}

/// Asks for no key: it is there where the operator says that the names are public.
async fn registry(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let app = &worker.app;
    let result: Result = match app.origin.of(&parts.uri, &parts.headers, peer_of(&parts)) {
        _ if !app.management.registry_is_public => Err(Refusal::new(ErrorCode::RegistryDisabled)),
        None => Err(Refusal::new(ErrorCode::NoOrigin)),
        Some(origin) => {
            let described = |name: &str, title: &str, description: &str, path: &str| {
                json!({"server": {
                    "name": name,
                    "title": title,
                    "description": description,
                    "version": "1.0.0",
                    "remotes": [{"type": "streamable-http", "url": format!("{origin}{path}")}],
                }})
            };
            let mut servers = app.servers_for(&parts.headers, peer_of(&parts)).servers();
            servers.sort_by_key(|server| server.alias.as_deref().unwrap_or(&server.name));
            let own = described(
                "vestibule",
                "Vestibule",
                "Every MCP server of this gateway.",
                "/mcp",
            );
            let others = servers.iter().map(|server| {
                let name = server.alias.as_deref().unwrap_or(&server.name);
                let description = server.info.get("description").and_then(Value::as_str);
                described(
                    name,
                    name,
                    description.unwrap_or_default(),
                    &format!("/{name}/mcp"),
                )
            });
            let all: Vec<Value> = std::iter::once(own).chain(others).collect();
            Ok((StatusCode::OK, json!({"servers": all})))
        }
    };
    answer(&worker, result, id)
}

//! Servers: all of them, and each with its tools, prompts, resources, settings and the people who are connected. What
//! changes a server is an operation of management; what asks one goes the way of every call.

mod acting;
mod connect;
mod edit;
mod frame;
mod health;
mod list;
mod offers;
mod overview;
mod people;
mod probe;
mod tools;
mod trial;

use super::parts::encoded;
use crate::app::Worker;
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;

/// The list.
pub(super) const HERE: &str = "/ui/servers";

/// Every page about servers.
pub(super) fn routes() -> Router<Arc<Worker>> {
    Router::new()
        .route(HERE, get(list::page))
        .route("/ui/servers/new", get(edit::new).post(edit::create))
        .route("/ui/servers/check", post(list::check))
        .route("/ui/servers/probe", post(edit::probed))
        .route("/ui/servers/{id}", get(overview::page))
        .route("/ui/servers/{id}/tools", get(tools::page).post(tools::act))
        .route("/ui/servers/{id}/prompts", get(offers::page).post(offers::act))
        .route(
            "/ui/servers/{id}/settings",
            get(edit::settings).post(edit::update),
        )
        .route(
            "/ui/servers/{id}/delete",
            get(edit::ask_delete).post(edit::delete),
        )
        .route("/ui/servers/{id}/people", get(people::page))
        .route(
            "/ui/servers/{id}/people/revoke",
            get(people::ask_revoke).post(people::revoke),
        )
        .route("/ui/servers/{id}/connect", get(connect::page))
}

/// The page of a server.
pub(super) fn path_of(id: &str) -> String {
    format!("{HERE}/{}", encoded(id))
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn an_id_is_one_part_of_a_path() {
        assert_eq!(path_of("a b/../c?d"), "/ui/servers/a%20b%2F..%2Fc%3Fd");
    }
}

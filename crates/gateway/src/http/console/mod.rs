//! The console: pages for people, at `/ui`. They are made here, work without scripts, and call the operations of
//! management and never its API. What holds for every page (where forms may come from, what browsers may do with the
//! answer) is in [`guard`], so that no page can forget it.

mod activity;
mod assets;
mod connect;
mod connections;
mod forms;
mod guard;
mod health;
mod keys;
mod layout;
mod login;
mod own_keys;
mod parts;
mod pretty;
mod schema_form;
mod server_form;
mod servers;
mod session;
mod sessions;
mod snippets;
mod tool_result;
mod users;

use crate::app::Worker;
use crate::issuer;
use crate::web::limits::{ByAddress, Together, quota_a_minute};
use axum::Router;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::sync::Arc;
use vestibule_store::keys::{KeyRing, MasterKeys};

pub(crate) use session::{NoVisitor, visitor};

type Answer = axum::response::Response;

/// What the console keeps for the process.
pub struct Console {
    /// Seals what the next page says.
    flashes: KeyRing,
    /// Seals what is known of a connection that has begun.
    connecting: KeyRing,
    /// Seals headers that somebody wrote down for a server, until the next page.
    headers: KeyRing,
    /// Addresses that were looked at.
    probes: Together,
    /// Sign-ins from one address with what was no key.
    failures: ByAddress,
}

impl Console {
    /// With rings of its own.
    pub fn new(keys: &MasterKeys) -> Self {
        Self {
            flashes: keys.ring("console-flash"),
            connecting: keys.ring("console-connect"),
            headers: keys.ring("console-headers"),
            probes: Together::new(quota_a_minute(20, 60)),
            failures: ByAddress::new(quota_a_minute(20, 10)),
        }
    }
}

/// Whether a path is the console's.
pub(crate) fn owns(path: &str) -> bool {
    path.strip_prefix("/ui")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Every page.
pub(crate) fn routes(worker: &Arc<Worker>) -> Router<Arc<Worker>> {
    Router::new()
        .route("/ui", get(home))
        .route("/ui/", get(home))
        .route(assets::PATH, get(asset))
        // Who is not signed in yet.
        .route("/ui/login", get(login::page).post(login::sign_in))
        .route("/ui/logout", post(login::sign_out))
        // Everybody.
        .route("/ui/connections", get(connections::page))
        .route(
            "/ui/connections/{server}/disconnect",
            get(connections::ask).post(connections::disconnect),
        )
        .route(
            "/ui/connections/{server}/key",
            get(own_keys::page).post(own_keys::keep),
        )
        .route(
            "/ui/connections/{server}/key/remove",
            get(own_keys::ask).post(own_keys::remove),
        )
        .route(
            "/ui/connect",
            get(connect::begin_all).post(connect::go_on_with_all),
        )
        .route("/ui/connect/{server}", get(connect::begin).post(connect::go_on))
        .route(issuer::connect::REDIRECT_PATH, get(connect::come_back))
        .route("/ui/activity", get(activity::page))
        .route("/ui/activity/rows", get(activity::live))
        .route("/ui/activity/export", get(activity::export))
        .route("/ui/activity/{request}", get(activity::one))
        .route("/ui/sessions", get(sessions::page))
        .route("/ui/sessions/{session}/end", post(sessions::end))
        // Whoever manages the gateway.
        .route("/ui/keys", get(keys::page).post(keys::create))
        .route("/ui/keys/new", get(keys::new))
        .route("/ui/keys/{key}", get(keys::one))
        .route("/ui/keys/{key}/edit", get(keys::edit).post(keys::update))
        .route("/ui/keys/{key}/rotate", get(keys::ask_rotate).post(keys::rotate))
        .route("/ui/keys/{key}/block", post(keys::block))
        .route("/ui/keys/{key}/unblock", post(keys::unblock))
        .route("/ui/keys/{key}/delete", get(keys::ask_delete).post(keys::delete))
        .route("/ui/users", get(users::page).post(users::create))
        .route("/ui/users/new", get(users::new))
        .route("/ui/users/one", get(users::one))
        .route("/ui/users/edit", get(users::edit).post(users::update))
        .route("/ui/users/block", get(users::ask_block).post(users::block))
        .route("/ui/users/unblock", get(users::ask_block).post(users::unblock))
        .route("/ui/users/delete", get(users::ask_delete).post(users::delete))
        .route("/ui/users/revoke", get(users::ask_revoke).post(users::revoke))
        .route("/ui/health", get(health::page))
        .merge(servers::routes())
        .route("/ui/{*rest}", axum::routing::any(layout::not_found))
        .method_not_allowed_fallback(layout::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(worker), guard::layer))
}

async fn home(visit: session::Visit) -> Answer {
    let first = layout::Section::first(visit.is_admin());
    guard::see_other(first.path()).into_response()
}

async fn asset(uri: http::Uri) -> Answer {
    assets::at(uri.path()).map_or_else(
        || http::StatusCode::NOT_FOUND.into_response(),
        |response| response.map(axum::body::Body::new),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_console() {
        for (path, own) in [
            ("/ui", true),
            ("/ui/", true),
            ("/ui/mcp", true),
            ("/uistuff", false),
            ("/mcp/ui", false),
            ("/UI", false),
        ] {
            assert_eq!(owns(path), own, "{path}");
        }
    }
}

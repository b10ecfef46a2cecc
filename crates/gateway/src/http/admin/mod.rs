//! The management of the gateway: operations, each with its JSON API at LiteLLM's addresses. Pages call the operations
//! and not the API.
//!
//! A family of operations is a module with a function `operations()` in [`operations`]' list: that gives it its routes
//! and its part of the OpenAPI description.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod keys;
mod openapi;
pub(crate) mod users;

pub(crate) mod catalog;
pub(crate) mod servers;
pub(crate) mod time;
pub(crate) use time::utc;

use crate::admission::{Admission, Principal};
use crate::app::Worker;
use crate::audit::Actor;
use crate::http::router::id_of;
use crate::http::{user_credentials, user_keys};
use crate::ids::RequestId;
use crate::web::error::{ErrorCode, Refusal};
use crate::web::json::no_store;
use api::Operation;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use vestibule_store::{Store, StoreError, Unique, Version};

/// The routes of the management API.
pub(crate) fn routes() -> Router<Arc<Worker>> {
    let routes = operations().into_iter().fold(Router::new(), |router, operation| {
        router.route(operation.path, operation.route)
    });
    NOT_SUPPORTED.iter().fold(routes, |routes, (path, what)| {
        let refuse = move |State(worker): State<Arc<Worker>>, request: Request<Body>| async move {
            let id = id_of(&request, &worker);
            let refusal = match worker.app.gate.admit(request.headers()) {
                Ok(_) => Refusal::because(ErrorCode::NotSupported, *what),
                Err(refusal) => refusal,
            };
            answer(&worker, Err(refusal), id)
        };
        routes.route(path, any(refuse))
    })
}

/// Every operation of the API.
fn operations() -> Vec<Operation> {
    let families = [
        openapi::operations(),
        keys::operations(),
        users::operations(),
        user_credentials::operations(),
        user_keys::operations(),
        audit::operations(),
        servers::api::operations(),
        catalog::operations(),
    ];
    families.into_iter().flatten().collect()
}

/// Does work with the store; see [`crate::live::Live::on_store`].
pub(crate) async fn stored<T, F>(worker: &Worker, work: impl FnOnce(Arc<Store>) -> F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    worker.live.on_store(work).await.map_err(of_store)
}

/// Records a change that was written to the store, and makes it count in this process.
pub(crate) async fn changed(
    worker: &Worker,
    by: &Actor,
    what: &str,
    subject: &str,
    id: RequestId,
) -> Result<(), Refusal> {
    worker.app.audit.changed(by, what, subject, id);
    worker.live.look().await.map_err(of_store)
}

fn of_store(error: StoreError) -> Refusal {
    match error {
        StoreError::Absent => Refusal::because(
            ErrorCode::StoreUnavailable,
            "This gateway has no database, so there is nothing to manage.",
        ),
        StoreError::Taken(Unique::ApiKeyAlias) => Refusal::new(ErrorCode::AliasTaken),
        StoreError::Taken(Unique::UserId) => Refusal::new(ErrorCode::UserExists),
        StoreError::Unfit { field, fault } => {
            Refusal::because(ErrorCode::InvalidField, format!("The {field}: {fault}."))
        }
        error => {
            tracing::error!(%error, "the store failed");
            Refusal::new(ErrorCode::StoreUnavailable)
        }
    }
}

/// LiteLLM's management that is not here, and what is said about it.
const NOT_SUPPORTED: &[(&str, &str)] = &[
    ("/v1/mcp/toolset", TOOLSETS),
    ("/v1/mcp/toolset/{toolset_id}", TOOLSETS),
    ("/v1/mcp/server/register", SUBMISSIONS),
    ("/v1/mcp/server/submissions", SUBMISSIONS),
    ("/v1/mcp/server/{server_id}/approve", SUBMISSIONS),
    ("/v1/mcp/server/{server_id}/reject", SUBMISSIONS),
    ("/v1/mcp/discover", "A catalogue of servers is not supported."),
    (
        "/v1/mcp/openapi-registry",
        "A catalogue of OpenAPI services is not supported.",
    ),
    (
        "/v1/mcp/make_public",
        "litellm_settings.public_mcp_servers is changed in the configuration file alone.",
    ),
    (
        "/v1/mcp/server/import",
        "Importing servers is not supported; POST /v1/mcp/server adds one.",
    ),
    (
        "/v1/mcp/sessions",
        "Sessions are sealed and not kept, so none can be listed or ended by others.",
    ),
    (
        "/v1/mcp/server/{server_id}/pin",
        "Pinning tool definitions is not supported.",
    ),
    ("/v1/mcp/server/{server_id}/user-env-vars", USER_VARIABLES),
    ("/v1/mcp/user-env-vars/status", USER_VARIABLES),
];
const TOOLSETS: &str = "Toolsets are not supported.";
const SUBMISSIONS: &str = "Submitting servers for review is not supported; admins add them.";
const USER_VARIABLES: &str = "Variables of people's own are not supported.";

/// Who manages the gateway.
///
/// # Errors
/// [`ErrorCode::AdminRequired`] for everybody else.
pub(crate) fn manager(admission: &Admission) -> Result<Actor, Refusal> {
    match &admission.principal {
        Principal::Master => Ok(actor(admission)),
        Principal::Key(key) if key.manages() => Ok(actor(admission)),
        Principal::Key(_) | Principal::Delegated => Err(Refusal::new(ErrorCode::AdminRequired)),
        Principal::Anyone => Err(Refusal::because(
            ErrorCode::AdminRequired,
            "A gateway without a master key is managed by its configuration file alone.",
        )),
    }
}

/// Whether somebody may look at what concerns all servers. A gateway without keys hides nothing from who reaches it.
///
/// # Errors
/// [`ErrorCode::AdminRequired`] for keys that are no admin's.
pub(crate) fn may_look(admission: &Admission) -> Result<(), Refusal> {
    match admission.principal {
        Principal::Anyone => Ok(()),
        _ => manager(admission).map(drop),
    }
}

/// The caller, for the record.
pub(crate) fn actor(admission: &Admission) -> Actor {
    let user = admission.user().map(|user| user.as_str().to_owned());
    match &admission.principal {
        Principal::Key(key) => Actor {
            name: key.alias.clone().unwrap_or_else(|| key.id.clone()),
            user,
            key: Some(key.id.clone()),
        },
        Principal::Master => Actor {
            name: "master key".into(),
            user,
            key: None,
        },
        Principal::Anyone | Principal::Delegated => Actor {
            name: "anyone".into(),
            user: None,
            key: None,
        },
    }
}

/// Refuses a change that goes out from another writing than the one that was `found`.
///
/// # Errors
/// [`ErrorCode::FormOutdated`].
fn last_writing(shown: Option<i64>, found: Version) -> Result<(), Refusal> {
    if shown.is_none_or(|shown| shown == found.to_number()) {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::FormOutdated))
    }
}

/// The answer of the API: a document, nothing, or the refusal.
pub(crate) fn answer(
    worker: &Worker,
    result: Result<(StatusCode, Value), Refusal>,
    id: RequestId,
) -> Response<Body> {
    match result {
        Ok((status, Value::Null)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            response
        }
        Ok((status, document)) => no_store(status, document.to_string()).map(Body::new),
        Err(refusal) => worker.refuse(refusal, None, id).into_plain(id).map(Body::new),
    }
}

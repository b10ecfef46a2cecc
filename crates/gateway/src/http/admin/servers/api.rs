//! The management of servers as JSON, at LiteLLM's addresses.

use super::view::ServerView;
use super::{health, people, trial};
use crate::app::Worker;
use crate::http::admin::{answer, asker, managed, manager};
use crate::http::relay::upstream_client::Caller;
use crate::http::relay::{read_body, rest};
use crate::http::router::id_of;
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use url::form_urlencoded;

/// The largest body that is read.
const BODY_LIMIT: usize = 256 * 1024;

type Result = std::result::Result<(StatusCode, Value), Refusal>;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<Worker>> {
    Router::new()
        .route("/v1/mcp/server", get(list).post(create).put(update))
        .route("/v1/mcp/server/health", get(looked_at))
        .route("/v1/mcp/server/{server_id}", get(one).delete(remove))
        .route("/v1/mcp/server/{server_id}/user-credentials", get(connected))
        .route("/v1/mcp/server/oauth/session", post(begin_trial))
        .route("/mcp-rest/test/connection", post(test_connection))
        .route("/mcp-rest/test/tools/list", post(test_tools))
}

async fn list(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result: Result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let asker = asker(&admission, &parts);
        let views = super::list(&worker, asker).await?;
        Ok((StatusCode::OK, views.iter().map(ServerView::to_json).collect()))
    }
    .await;
    answer(&worker, result, id)
}

async fn one(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result: Result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let view = super::get(&worker, asker(&admission, &parts), &server).await?;
        Ok((StatusCode::OK, view.to_json()))
    }
    .await;
    answer(&worker, result, id)
}

async fn create(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result: Result = async {
        let actor = managed(&worker, &parts.headers)?;
        let body = object(&worker, body).await?;
        let view = super::create(&worker, &actor, body, id).await?;
        Ok((StatusCode::CREATED, view.to_json()))
    }
    .await;
    answer(&worker, result, id)
}

async fn update(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result: Result = async {
        let actor = managed(&worker, &parts.headers)?;
        let version = if_match(&parts.headers)?;
        let body = object(&worker, body).await?;
        let view = super::update(&worker, &actor, body, version, id).await?;
        Ok((StatusCode::ACCEPTED, view.to_json()))
    }
    .await;
    answer(&worker, result, id)
}

async fn remove(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let actor = managed(&worker, &parts.headers)?;
        super::delete(&worker, &actor, &server, id).await
    };
    match result.await {
        Ok(()) => empty(StatusCode::ACCEPTED),
        Err(refusal) => refuse(&worker, refusal, id),
    }
}

async fn looked_at(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let ids = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "server_ids");
    let ids: Vec<String> = ids.map(|(_, id)| id.into_owned()).collect();
    let result: Result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let rows = health::list(&worker, asker(&admission, &parts), &ids).await?;
        Ok((StatusCode::OK, Value::Array(rows)))
    }
    .await;
    answer(&worker, result, id)
}

async fn connected(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result: Result = async {
        managed(&worker, &parts.headers)?;
        let (server, people) = people::connected(&worker, &server).await?;
        let now = worker.app.clock.unix_seconds();
        let rows = people.iter().map(|one| one.to_json(&server, now));
        Ok((StatusCode::OK, rows.collect()))
    }
    .await;
    answer(&worker, result, id)
}

async fn begin_trial(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result: Result = async {
        let actor = managed(&worker, &parts.headers)?;
        let body = object(&worker, body).await?;
        let view = trial::begin(&worker, &actor, body, id).await?;
        Ok((StatusCode::OK, view.to_json()))
    }
    .await;
    answer(&worker, result, id)
}

/// What a form says is tried with what the caller shows for the server; LiteLLM answers 200 whatever comes of it.
async fn test_connection(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    tested(&worker, request, |caller, server| async move {
        match health::opens(&caller, &server).await.map_err(health::fault_of) {
            Ok(()) => json!({"status": "ok", "error": false, "message": "The server opened a session."}),
            Err(fault) => json!({
                "status": "error",
                "error": true,
                "message": fault.message,
                "code": fault.code.name(),
                "step": fault.step.name(),
            }),
        }
    })
    .await
}

async fn test_tools(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    tested(&worker, request, |caller, server| async move {
        match rest::tools_tried(&caller, &server)
            .await
            .map_err(health::fault_of)
        {
            Ok(tools) => tools,
            Err(fault) => json!({
                "tools": [],
                "error": fault.code.name(),
                "message": fault.message,
                "step": fault.step.name(),
            }),
        }
    })
    .await
}

async fn tested<T>(
    worker: &Arc<Worker>,
    request: Request<Body>,
    test: impl FnOnce(Caller, Arc<Server>) -> T,
) -> Response<Body>
where
    T: Future<Output = Value>,
{
    let id = id_of(&request, worker);
    let (parts, body) = request.into_parts();
    let result: Result = async {
        let admission = Arc::new(worker.app.gate.admit(&parts.headers)?);
        manager(&admission)?;
        let body = object(worker, body).await?;
        let preview = trial::preview(worker, body).await?;
        let caller = Caller::new(&preview.worker, &admission, &parts.headers).without_mirrored();
        Ok((StatusCode::OK, test(caller, Arc::clone(&preview.server)).await))
    }
    .await;
    answer(worker, result, id)
}

/// The body as a JSON object.
pub(crate) async fn object(worker: &Worker, body: Body) -> std::result::Result<Map<String, Value>, Refusal> {
    let body = read_body(body, BODY_LIMIT, worker.app.limits.body_timeout).await?;
    serde_json::from_slice(&body).map_err(|_| Refusal::new(ErrorCode::BodyNotAnObject))
}

/// The version that `If-Match` names.
fn if_match(headers: &HeaderMap) -> std::result::Result<Option<i64>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.trim_matches('"').parse();
    // What is no version of ours is not the last one.
    version
        .map(Some)
        .map_err(|_| Refusal::new(ErrorCode::ServerChanged))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn refuse(worker: &Worker, refusal: Refusal, id: RequestId) -> Response<Body> {
    worker.refuse(refusal, None, id).into_plain(id).map(Body::new)
}

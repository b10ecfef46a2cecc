//! A person's own tokens, as LiteLLM's management API shows them: what is kept, without a secret; kept by hand;
//! forgotten.

use crate::admission::Admission;
use crate::app::{People, Worker};
use crate::config::SignIn;
use crate::credentials::person::{Grant, Person};
use crate::http::relay::{challenged, read_body};
use crate::http::router::{id_of, peer_of};
use crate::ids::RequestId;
use crate::issuer::registrations::UpstreamClient;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::body::Body;
use axum::extract::{Path, State};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use vestibule_store::StoreError;

/// The largest credential that is read.
const BODY_LIMIT: usize = 64 * 1024;

/// Who asks about which server.
struct Asked<'w> {
    people: &'w People,
    server: &'w Arc<Server>,
    sign_in: &'w Arc<SignIn>,
    person: Person,
}

type Result<T> = std::result::Result<T, Refusal>;

/// `GET /v1/mcp/user-credentials`: the servers for which something is kept.
pub(crate) async fn list(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let person = person(&worker, &worker.app.gate.admit(&parts.headers)?)?;
        let Some(people) = &worker.app.people else {
            return Ok(json!([]));
        };
        let now = worker.app.clock.unix_seconds();
        let servers = worker.app.servers_for(&parts.headers, peer_of(&parts));
        let mut all = Vec::new();
        for kept in people.persons.list(&person).await.map_err(unavailable)? {
            if servers.hides(kept.server_id.as_str()) {
                continue;
            }
            let server = servers.by_id_or_name(kept.server_id.as_str());
            all.push(json!({
                "server_id": kept.server_id.as_str(),
                "server_name": server.map(|server| &server.name),
                "alias": server.and_then(|server| server.alias.as_ref()),
                "credential_type": "oauth2",
                "has_credential": true,
                "expires_at": kept.expires_at.map(utc),
                "is_expired": kept.expires_at.is_some_and(|end| end <= now),
                "connected_at": utc(kept.connected_at),
            }));
        }
        Ok(Value::Array(all))
    };
    answer(&worker, result.await, &parts, id)
}

/// `GET /v1/mcp/server/{server_id}/oauth-user-credential/status`.
pub(crate) async fn status(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let asked = asked(&worker, &admission, &parts, &server)?;
        shown(&worker, &asked).await
    };
    answer(&worker, result.await, &parts, id)
}

#[derive(Deserialize)]
struct Brought {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
    #[serde(default)]
    scopes: Vec<String>,
}

/// `POST /v1/mcp/server/{server_id}/oauth-user-credential`: tokens that the person got elsewhere.
pub(crate) async fn put(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let asked = asked(&worker, &admission, &parts, &server)?;
        let body = read_body(body, BODY_LIMIT, worker.app.limits.body_timeout).await?;
        let wrong = |what: &'static str| Refusal::because(ErrorCode::MissingParameter, what);
        let brought: Brought = serde_json::from_slice(&body).map_err(|_| {
            wrong("The body takes access_token, and may have refresh_token, expires_in and scopes.")
        })?;
        let client = match (&asked.sign_in.client, &brought.refresh_token) {
            (Some(client), _) => client.clone(),
            (None, None) => vestibule_oauth::Client {
                id: String::new(),
                secret: None,
                auth_method: vestibule_oauth::ClientAuthMethod::None,
            },
            (None, Some(_)) => {
                return Err(wrong(
                    "A refresh_token counts only with the client it was issued to, and no client_id is configured for this server.",
                ));
            }
        };
        let now = worker.app.clock.unix_seconds();
        // Where a refresh token may be shown again is settled now.
        let authority = if brought.refresh_token.is_none() {
            String::new()
        } else {
            let upstream = asked.sign_in.upstream(asked.server);
            let endpoints = asked.people.issuer.discovery.endpoints(&upstream).await;
            endpoints
                .map_err(|error| Refusal::because(ErrorCode::RenewalFailed, error.to_string()))?
                .authority()
        };
        let grant = Grant::brought(
            brought.access_token.into(),
            brought.refresh_token.map(Into::into),
            (!brought.scopes.is_empty()).then(|| brought.scopes.join(" ")),
            brought.expires_in.map(|seconds| now.saturating_add(seconds)),
            UpstreamClient {
                client,
                registration: None,
            },
            authority,
            now,
        );
        if !grant.fits_a_header() {
            return Err(wrong(
                "The access_token has a character that no header may carry.",
            ));
        }
        let persons = &asked.people.persons;
        persons
            .keep(&asked.person, asked.server, grant)
            .await
            .map_err(unavailable)?;
        shown(&worker, &asked).await
    };
    answer(&worker, result.await, &parts, id)
}

/// `DELETE /v1/mcp/server/{server_id}/oauth-user-credential`: forgotten here, and revoked where that is offered.
pub(crate) async fn remove(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        let asked = asked(&worker, &admission, &parts, &server)?;
        let persons = &asked.people.persons;
        let forgotten = persons.forget(&asked.person, asked.server, asked.sign_in).await;
        if forgotten.map_err(unavailable)? {
            Ok(json!({"server_id": asked.server.id, "has_credential": false}))
        } else {
            Err(Refusal::new(ErrorCode::NoCredential))
        }
    };
    answer(&worker, result.await, &parts, id)
}

fn asked<'w>(worker: &'w Worker, admission: &Admission, parts: &Parts, server: &str) -> Result<Asked<'w>> {
    let person = person(worker, admission)?;
    let servers = worker.app.servers_for(&parts.headers, peer_of(parts));
    let found = servers.by_id_or_name(server);
    let (Some(server), Some(people)) = (found, &worker.app.people) else {
        return Err(Refusal::new(ErrorCode::NoSignIn));
    };
    let sign_in = server
        .sign_in()
        .ok_or_else(|| Refusal::new(ErrorCode::NoSignIn))?;
    Ok(Asked {
        people,
        server,
        sign_in,
        person,
    })
}

fn person(worker: &Worker, admission: &Admission) -> Result<Person> {
    Person::admitted(&worker.app, admission).ok_or_else(|| Refusal::new(ErrorCode::NoPerson))
}

async fn shown(worker: &Worker, asked: &Asked<'_>) -> Result<Value> {
    let persons = &asked.people.persons;
    let kept = persons
        .kept(&asked.person, asked.server)
        .await
        .map_err(unavailable)?;
    let now = worker.app.clock.unix_seconds();
    Ok(match kept {
        None => json!({"server_id": asked.server.id, "has_credential": false}),
        Some((grant, connected_at)) => json!({
            "server_id": asked.server.id,
            "has_credential": true,
            "expires_at": grant.ends_at().map(utc),
            "is_expired": grant.ends_at().is_some_and(|end| end <= now),
            "is_renewable": grant.is_renewable(),
            "connected_at": utc(connected_at),
        }),
    })
}

fn utc(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn unavailable(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store failed");
    Refusal::new(ErrorCode::StoreUnavailable)
}

fn answer(worker: &Worker, result: Result<Value>, parts: &Parts, id: RequestId) -> Response<Body> {
    match result {
        Ok(document) => {
            let mut response = Response::new(Body::from(document.to_string()));
            *response.status_mut() = StatusCode::OK;
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(refusal) => {
            let refusal = challenged(worker, refusal, parts, peer_of(parts), None);
            worker.refuse(refusal, None, id).into_plain(id).map(Body::new)
        }
    }
}

//! A person's own tokens, as LiteLLM's management API shows them: what is kept, without a secret; kept by hand;
//! forgotten.

use crate::admission::Admission;
use crate::app::{People, Worker};
use crate::audit::note;
use crate::config::SignIn;
use crate::credentials::person::{Grant, Person};
use crate::http::admin::api::{Answer, Input, Nothing, Operation, Who, queried, written};
use crate::http::admin::servers::people;
use crate::http::admin::time::utc;
use crate::http::admin::{actor, manager};
use crate::http::relay::{challenged, read_body};
use crate::http::router::{id_of, peer_of};
use crate::ids::RequestId;
use crate::issuer::registrations::UpstreamClient;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use crate::web::json::no_store;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use http::request::Parts;
use http::{Method, Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use url::form_urlencoded;
use vestibule_store::{ServerId, StoreError};

/// The largest credential that is read.
const BODY_LIMIT: usize = 64 * 1024;

/// Who asks about which server.
struct Asked<'w> {
    people: &'w People,
    server: &'w Arc<Server>,
    sign_in: &'w Arc<SignIn>,
    person: Person,
}

/// The operations; whoever has a key may ask for their own.
pub(crate) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/mcp/server/{server_id}/oauth-user-credential";
    let key = Who::AnyKey;
    vec![
        Operation::by_hand::<Nothing, Vec<Kept>>(
            Method::GET,
            "/v1/mcp/user-credentials",
            key,
            "The servers for which a person's tokens are kept.",
            get(list),
        ),
        Operation::by_hand::<Brought, Connection>(
            Method::POST,
            ONE,
            key,
            "Keep tokens that the person got elsewhere.",
            post(put),
        ),
        Operation::by_hand::<Whose, Connection>(
            Method::DELETE,
            ONE,
            key,
            "Forget what is kept, and revoke it where that is offered.",
            delete(remove),
        ),
        Operation::by_hand::<Nothing, Connection>(
            Method::GET,
            "/v1/mcp/server/{server_id}/oauth-user-credential/status",
            key,
            "What is kept, without a secret.",
            get(status),
        ),
    ]
}

/// A server for which something is kept.
#[derive(Debug, Serialize, JsonSchema)]
struct Kept {
    server_id: String,
    server_name: Option<String>,
    alias: Option<String>,
    /// `oauth2` or `byok`.
    credential_type: &'static str,
    has_credential: bool,
    expires_at: Option<String>,
    is_expired: bool,
    connected_at: Option<String>,
}

/// Whose are forgotten.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is there to be described")]
struct Whose {
    /// Another person's, for whoever manages the gateway.
    user_id: Option<String>,
}

impl Input for Whose {}
impl Input for Brought {}
impl Answer for Kept {}

/// What is kept for one server, without a secret.
#[derive(Debug, Serialize, JsonSchema)]
struct Connection {
    server_id: String,
    has_credential: bool,
    /// There with a credential.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Details {
    expires_at: Option<String>,
    is_expired: bool,
    is_renewable: bool,
    connected_at: Option<String>,
}

impl Answer for Connection {}

impl Connection {
    fn none(server: &Server) -> Self {
        Self {
            server_id: server.id.clone(),
            has_credential: false,
            details: None,
        }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// `GET /v1/mcp/user-credentials`: the servers for which something is kept.
pub(crate) async fn list(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        queried::<Nothing>(&parts)?;
        let person = person(&worker, &admission)?;
        let Some(people) = &worker.app.people else {
            return Ok(Vec::new());
        };
        let now = worker.app.clock.unix_seconds();
        let servers = worker.app.servers_for(&parts.headers, peer_of(&parts));
        let kept = |id: &ServerId, kind, expires_at: Option<u64>, connected_at| {
            let server = servers.by_id_or_name(id.as_str());
            Kept {
                server_id: id.as_str().to_owned(),
                server_name: server.map(|server| server.name.clone()),
                alias: server.and_then(|server| server.alias.clone()),
                credential_type: kind,
                has_credential: true,
                expires_at: expires_at.and_then(utc),
                is_expired: expires_at.is_some_and(|end| end <= now),
                connected_at: utc(connected_at),
            }
        };
        let tokens = people.persons.list(&person).await.map_err(unavailable)?;
        let keys = people.own_keys.list(&person).await.map_err(unavailable)?;
        let tokens = tokens
            .iter()
            .map(|row| kept(&row.server_id, "oauth2", row.expires_at, row.connected_at));
        let keys = keys
            .iter()
            .map(|row| kept(&row.server_id, "byok", None, row.updated_at));
        let mut all: Vec<Kept> = tokens.chain(keys).collect();
        all.retain(|kept| !servers.hides(&kept.server_id));
        all.sort_by(|one, other| one.server_id.cmp(&other.server_id));
        Ok(all)
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
        queried::<Nothing>(&parts)?;
        let asked = asked(&worker, &admission, &parts, &server)?;
        shown(&worker, &asked).await
    };
    answer(&worker, result.await, &parts, id)
}

/// Tokens that were got elsewhere.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
        queried::<Nothing>(&parts)?;
        let asked = asked(&worker, &admission, &parts, &server)?;
        let body = read_body(body, BODY_LIMIT, worker.app.limits.body_timeout).await?;
        let wrong = |what: &'static str| Refusal::because(ErrorCode::MissingParameter, what);
        let brought: Brought = serde_json::from_slice(&body).map_err(|_| {
            wrong("The body takes access_token, and may have refresh_token, expires_in and scopes; nothing else.")
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
        let authority = authority(&asked, brought.refresh_token.is_some()).await?;
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
        if !worker.live.is_in_place(asked.server).await.map_err(unavailable)? {
            let message = format!("The MCP server {} was moved; nothing is kept.", asked.server.name);
            return Err(Refusal::because(ErrorCode::ServerChanged, message));
        }
        let persons = &asked.people.persons;
        persons
            .keep(&asked.person, asked.server, grant)
            .await
            .map_err(unavailable)?;
        let by = actor(&admission);
        let server = &asked.server.name;
        worker.app.audit.changed(&by, "user_credential.put", server, id);
        shown(&worker, &asked).await
    };
    answer(&worker, result.await, &parts, id)
}

/// `DELETE /v1/mcp/server/{server_id}/oauth-user-credential`: forgotten here, and revoked where that is offered. With
/// `user_id` it is another person's, for whoever manages the gateway.
pub(crate) async fn remove(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let admission = worker.app.gate.admit(&parts.headers)?;
        queried::<Whose>(&parts)?;
        if let Some(other) = named_user(&parts)
            && admission.user().is_none_or(|own| own.as_str() != other)
        {
            let actor = manager(&admission)?;
            let server = people::disconnect(&worker, &actor, &server, &other, id).await?;
            return Ok(Connection::none(&server));
        }
        let asked = asked(&worker, &admission, &parts, &server)?;
        let persons = &asked.people.persons;
        let forgotten = persons.forget(&asked.person, asked.server, asked.sign_in).await;
        if forgotten.map_err(unavailable)? {
            let by = actor(&admission);
            let server = &asked.server.name;
            worker
                .app
                .audit
                .changed(&by, "user_credential.delete", server, id);
            Ok(Connection::none(asked.server))
        } else {
            Err(Refusal::new(ErrorCode::NoCredential))
        }
    };
    answer(&worker, result.await, &parts, id)
}

/// Who may be shown again what is brought: a refresh token, to renew it; an access token, to revoke it in the name of
/// the configured client. Empty where that is nobody.
async fn authority(asked: &Asked<'_>, is_renewable: bool) -> Result<String> {
    if !is_renewable && asked.sign_in.client.is_none() {
        return Ok(String::new());
    }
    let upstream = asked.sign_in.upstream(asked.server);
    match asked.people.issuer.discovery.endpoints(&upstream).await {
        Ok(endpoints) => Ok(endpoints.authority()),
        Err(error) if is_renewable => Err(Refusal::because(ErrorCode::RenewalFailed, error.to_string())),
        Err(_) => Ok(String::new()),
    }
}

fn named_user(parts: &Parts) -> Option<String> {
    let query = parts.uri.query()?;
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "user_id");
    named.next().map(|(_, user)| user.into_owned())
}

fn asked<'w>(worker: &'w Worker, admission: &Admission, parts: &Parts, server: &str) -> Result<Asked<'w>> {
    note::admitted(&worker.app, admission);
    let person = person(worker, admission)?;
    let servers = worker.app.servers_for(&parts.headers, peer_of(parts));
    let found = servers.by_id_or_name(server);
    let (Some(server), Some(people)) = (found, &worker.app.people) else {
        return Err(Refusal::new(ErrorCode::NoSignIn));
    };
    access::permit(admission, server)?;
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

pub(super) fn person(worker: &Worker, admission: &Admission) -> Result<Person> {
    Person::admitted(&worker.app, admission).ok_or_else(|| Refusal::new(ErrorCode::NoPerson))
}

async fn shown(worker: &Worker, asked: &Asked<'_>) -> Result<Connection> {
    let persons = &asked.people.persons;
    let kept = persons
        .kept(&asked.person, asked.server)
        .await
        .map_err(unavailable)?;
    let now = worker.app.clock.unix_seconds();
    Ok(match kept {
        None => Connection::none(asked.server),
        Some((grant, connected_at)) => Connection {
            has_credential: true,
            details: Some(Details {
                expires_at: grant.ends_at().and_then(utc),
                is_expired: grant.ends_at().is_some_and(|end| end <= now),
                is_renewable: grant.is_renewable(),
                connected_at: utc(connected_at),
            }),
            ..Connection::none(asked.server)
        },
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(super) fn unavailable(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store failed");
    Refusal::new(ErrorCode::StoreUnavailable)
}

pub(super) fn answer<T: Answer>(
    worker: &Worker,
    result: Result<T>,
    parts: &Parts,
    id: RequestId,
) -> Response<Body> {
    let written = result.and_then(|answer| written(&answer));
    match written {
        Ok((status, document)) => no_store(status, document.to_string()).map(Body::new),
        Err(refusal) => {
            let refusal = challenged(worker, refusal, parts, peer_of(parts), None);
            worker.refuse(refusal, None, id).into_plain(id).map(Body::new)
        }
    }
}

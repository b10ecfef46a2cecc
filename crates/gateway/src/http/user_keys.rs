//! A person's own keys for servers with `is_byok`, for scripts: brought and forgotten at LiteLLM's addresses. The page
//! for people is [`crate::issuer`]'s.

use super::admin::actor;
use super::admin::api::{Answer, Input, Nothing, Operation, Who, queried};
use super::relay::read_body;
use super::router::{id_of, peer_of};
use super::user_credentials::{answer, person, unavailable};
use crate::admission::Admission;
use crate::app::{People, Worker};
use crate::credentials::own_keys::{self, fitted};
use crate::credentials::person::Person;
use crate::ids::RequestId;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{delete, post};
use http::request::Parts;
use http::{Method, Request, Response};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The largest body that is read.
const BODY_LIMIT: usize = 64 * 1024;

/// The operations; whoever has a key may bring their own.
pub(crate) fn operations() -> Vec<Operation> {
    const ONE: &str = "/v1/mcp/server/{server_id}/user-credential";
    let key = Who::AnyKey;
    vec![
        Operation::by_hand::<OwnKey, OwnKeyKept>(
            Method::POST,
            ONE,
            key,
            "Keep the person's own key for a server that takes such keys.",
            post(put),
        ),
        Operation::by_hand::<Nothing, OwnKeyKept>(
            Method::DELETE,
            ONE,
            key,
            "Forget the person's own key for a server.",
            delete(remove),
        ),
    ]
}

/// A key that a person brings; read by hand, so that no fault repeats what may be the key.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it is the description of what `brought` reads")]
struct OwnKey {
    /// The key.
    credential: String,
    /// Whether it is kept; `false` only judges it.
    save: Option<bool>,
}

impl Input for OwnKey {}

/// Whether a key is kept.
#[derive(Debug, Serialize, JsonSchema)]
struct OwnKeyKept {
    server_id: String,
    has_credential: bool,
}

impl Answer for OwnKeyKept {}

impl OwnKeyKept {
    fn of(server: &Server, has_credential: bool) -> Self {
        Self {
            server_id: server.id.clone(),
            has_credential,
        }
    }
}

/// Who brings or forgets a key for which server.
struct Asked<'w> {
    admission: Admission,
    people: &'w People,
    server: &'w Arc<Server>,
    person: Person,
}

/// `POST /v1/mcp/server/{server_id}/user-credential`.
pub(crate) async fn put(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result = async {
        let asked = asked(&worker, &parts, &server)?;
        let body = read_body(body, BODY_LIMIT, worker.app.limits.body_timeout).await?;
        let (key, save) = brought(&body)?;
        judge(asked.server, &key)?;
        if save {
            keep(&worker, &asked.admission, &asked.person, asked.server, &key, id).await?;
        }
        let has = asked.people.own_keys.has(&asked.person, asked.server).await;
        let has = has.map_err(unavailable)?;
        Ok(OwnKeyKept::of(asked.server, has))
    };
    answer(&worker, result.await, &parts, id)
}

/// `DELETE /v1/mcp/server/{server_id}/user-credential`.
pub(crate) async fn remove(
    State(worker): State<Arc<Worker>>,
    Path(server): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let asked = asked(&worker, &parts, &server)?;
        if forget(&worker, &asked.admission, &asked.person, asked.server, id).await? {
            Ok(OwnKeyKept::of(asked.server, false))
        } else {
            Err(Refusal::new(ErrorCode::NoCredential))
        }
    };
    answer(&worker, result.await, &parts, id)
}

/// Whether `key` is one that `server` can be shown.
///
/// # Errors
/// [`ErrorCode::ByokKeyMalformed`], without the key.
pub(crate) fn judge(server: &Server, key: &SecretString) -> Result<(), Refusal> {
    let text = key.expose_secret();
    let refused = |why: &str| {
        let message = format!("The key for the MCP server {} {why}.", server.name);
        Refusal::because(ErrorCode::ByokKeyMalformed, message)
    };
    if text.len() > own_keys::LONGEST {
        return Err(refused("is too long"));
    }
    if text.trim().is_empty() {
        return Err(refused("is empty"));
    }
    fitted(server, key)
        .map(drop)
        .map_err(|unfit| refused(unfit.why()))
}

/// The field of forms for keys that says where the server was when the form was shown.
pub(crate) const PLACE: &str = "place";

/// Whether `server` is where it was when the form was shown whose field [`PLACE`] says `place`.
///
/// # Errors
/// [`ErrorCode::FormOutdated`].
pub(crate) fn judge_place(server: &Server, place: &str) -> Result<(), Refusal> {
    if place == server.place_digest() {
        return Ok(());
    }
    let message = format!(
        "The MCP server {} was moved since this form was opened, and a key goes to where it is now. Enter your key only if \
         that is meant.",
        server.name
    );
    Err(Refusal::because(ErrorCode::FormOutdated, message))
}

/// Keeps a key that was judged, and records that.
///
/// # Errors
/// [`ErrorCode::ServerChanged`] where the server is not any more where it was when the request began; when the store
/// does not answer.
pub(crate) async fn keep(
    worker: &Worker,
    admission: &Admission,
    person: &Person,
    server: &Server,
    key: &SecretString,
    id: RequestId,
) -> Result<(), Refusal> {
    let people = worker.app.people.as_ref().ok_or_else(no_store)?;
    if !worker.live.is_in_place(server).await.map_err(unavailable)? {
        let message = format!("The MCP server {} was moved; the key is not kept.", server.name);
        return Err(Refusal::because(ErrorCode::ServerChanged, message));
    }
    let kept = people.own_keys.keep(person, server, key).await;
    kept.map_err(unavailable)?;
    let audit = &worker.app.audit;
    audit.changed(&actor(admission), "user_credential.keep", &server.name, id);
    Ok(())
}

/// Forgets the person's key, and records that. False where there was none.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn forget(
    worker: &Worker,
    admission: &Admission,
    person: &Person,
    server: &Server,
    id: RequestId,
) -> Result<bool, Refusal> {
    let people = worker.app.people.as_ref().ok_or_else(no_store)?;
    let forgotten = people.own_keys.forget(person, server).await;
    let forgotten = forgotten.map_err(unavailable)?;
    if forgotten {
        let audit = &worker.app.audit;
        audit.changed(&actor(admission), "user_credential.forget", &server.name, id);
    }
    Ok(forgotten)
}

fn no_store() -> Refusal {
    Refusal::new(ErrorCode::StoreUnavailable)
}

fn asked<'w>(worker: &'w Worker, parts: &Parts, server: &str) -> Result<Asked<'w>, Refusal> {
    let admission = worker.app.gate.admit(&parts.headers)?;
    queried::<Nothing>(parts)?;
    let person = person(worker, &admission)?;
    let servers = worker.app.servers_for(&parts.headers, peer_of(parts));
    let found = servers.by_id_or_name(server);
    let (Some(server), Some(people)) = (found, &worker.app.people) else {
        return Err(Refusal::new(ErrorCode::UnknownServer));
    };
    access::permit(&admission, server)?;
    if server.byok().is_none() {
        return Err(Refusal::new(ErrorCode::NotByok));
    }
    Ok(Asked {
        admission,
        people,
        server,
        person,
    })
}

/// `{"credential": …, "save": …}`. A fault is told by the field's name alone: what it holds is a secret.
fn brought(body: &[u8]) -> Result<(SecretString, bool), Refusal> {
    let wrong = |what: String| Refusal::because(ErrorCode::MissingParameter, what);
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(wrong("The body is no JSON object.".into()));
    };
    let mut key = None;
    let mut save = true;
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("credential", Value::String(text)) => key = Some(SecretString::from(text)),
            ("save", Value::Bool(value)) => save = value,
            ("credential", _) => return Err(wrong("credential takes a text.".into())),
            ("save", _) => return Err(wrong("save takes true or false.".into())),
            _ => {
                let name = crate::web::error::shown(&name, 40);
                return Err(wrong(format!(
                    "There is no field {name}; the body takes credential and save."
                )));
            }
        }
    }
    let key = key.ok_or_else(|| wrong("The body takes credential.".into()))?;
    Ok((key, save))
}

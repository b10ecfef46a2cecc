//! Where providers send people back to. Every branch ends in a redirect to a redirect URI that is judged anew, or
//! in a page that a person can read (RFC 6749 section 4.1.2, RFC 9207).

use super::Issuer;
use super::codes::Bound;
use super::flow::{Flow, Flows};
use crate::app::Worker;
use crate::audit::note;
use crate::credentials::person::Person;
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::page;
use crate::web::parameters::Parameters;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::sync::Arc;
use vestibule_oauth::Trust;
use vestibule_oauth::origin::{Origin, Scheme};
use vestibule_oauth::redirect_uri::JudgedRedirectUri;
use vestibule_store::UserId;

/// The longest text of a provider's that is passed on or shown.
const TEXT_LIMIT: usize = 1000;

const START_AGAIN: &str = "Start the sign-in again from your MCP client, and finish it in the same browser within ten \
                           minutes.";
const ASK: &str = "If it happens again, give this page's request id to whoever runs the gateway.";

/// Answers a person whom a provider sent back.
pub(super) async fn callback(
    worker: &Worker,
    issuer: &Issuer,
    origin: &Origin,
    query: &str,
    headers: &HeaderMap,
    id: RequestId,
) -> Response<Body> {
    note::step("callback");
    let parameters = match Parameters::parse(query.as_bytes()) {
        Ok(parameters) => parameters,
        Err(repeated) => {
            let text = format!("The parameter '{}' stands several times.", repeated.0);
            return failed(id, "invalid_request", Some(&text), &[ASK]);
        }
    };
    let state = parameters.get("state");
    let error = parameters.get("error");
    let code = parameters.get("code");
    note::secret(state);
    note::secret(code);
    // Description without an error: some providers forget it, and it is a failure all the same.
    let said = shortened(parameters.get("error_description"));
    if error.is_none() && (code.is_none() || state.is_none()) {
        if let Some(said) = said {
            return failed(id, "unknown_error", Some(said), &[START_AGAIN, ASK]);
        }
        let text = match (code, state) {
            (None, None) => "Missing authorization 'code' and 'state' parameters.",
            (None, Some(_)) => "Missing authorization 'code' parameter.",
            _ => "Missing authorization 'state' parameter.",
        };
        return failed(id, "invalid_request", Some(text), &[START_AGAIN]);
    }
    let now = worker.app.clock.unix_seconds();
    let flow = state.and_then(|state| issuer.flows.resume(state, headers, now));
    let mut response = match (error, flow) {
        (Some(error), None) => failed(
            id,
            shortened(Some(error)).unwrap_or_default(),
            said,
            &[START_AGAIN, ASK],
        ),
        (None, None) => {
            let text = "This sign-in is not known here: it was begun in another browser, ended already, or took too long.";
            failed(id, "invalid_request", Some(text), &[START_AGAIN])
        }
        (error, Some(flow)) => finish(worker, issuer, origin, &flow, &parameters, error, said, now, id).await,
    };
    // A flow counts once.
    let secure = origin.scheme() == Scheme::Https;
    if let Some(cookie) = state.and_then(|state| Flows::end(state, secure)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The provider's word for a flow of this browser's.
#[expect(clippy::too_many_arguments, reason = "what came, and what it is judged by")]
async fn finish(
    worker: &Worker,
    issuer: &Issuer,
    origin: &Origin,
    flow: &Flow,
    parameters: &Parameters,
    error: Option<&str>,
    said: Option<&str>,
    now: u64,
    id: RequestId,
) -> Response<Body> {
    note::flow(&flow.id);
    note::secret(flow.client_state.as_deref());
    if let Some(person) = flow.person.as_deref().and_then(|id| UserId::new(id).ok()) {
        note::person(&Person::kept_under(person));
    }
    let server = worker.app.registry.by_id(&flow.server);
    if let Some(server) = server {
        note::server(server);
    }
    let judged = worker.app.redirects.judge(&flow.redirect_uri, origin);
    let judged = match judged {
        Ok(judged) => judged,
        Err(rejection) => {
            tracing::warn!(request_id = %id, redirect_uri = flow.redirect_uri, "MCP OAuth: rejecting redirect_uri: {rejection}");
            let (error, said) = match error {
                Some(error) => (error, said),
                None => (
                    "invalid_request",
                    Some("The client's redirect URI is not trusted any more."),
                ),
            };
            return failed(id, error, said, &[ASK]);
        }
    };
    // RFC 9207 section 2.4: compared as text before anything of the answer is used or shown.
    let iss = parameters.get("iss");
    let other = match (&flow.upstream_issuer, iss) {
        (Some(expected), Some(iss)) => expected != iss,
        (_, None) => flow.iss_promised,
        (None, Some(_)) => false,
    };
    if other {
        tracing::warn!(request_id = %id, server = flow.server, expected = flow.upstream_issuer, iss, "the answer is another issuer's");
        let text = "The answer does not come from the authorization server that was asked (RFC 9207).";
        return ended(flow, &judged, "invalid_issuer", text, ASK, id);
    }
    if let Some(error) = error {
        let error = shortened(Some(error)).unwrap_or("unknown_error");
        tracing::info!(request_id = %id, server = flow.server, error, "the provider refused a sign-in");
        note::failed(error, said);
        let uri = shortened(parameters.get("error_uri"));
        let answer = [
            ("error", Some(error)),
            ("error_description", said),
            ("error_uri", uri),
        ];
        return back(flow, &judged, &answer);
    }
    if let Some(text) = is_elsewhere(issuer, flow, server).await {
        tracing::warn!(request_id = %id, server = flow.server, "a sign-in under way ends: {text}");
        return ended(flow, &judged, "invalid_grant", text, START_AGAIN, id);
    }
    let code = parameters.get("code").unwrap_or_default();
    let bound = Bound {
        client: flow.client.clone(),
        redirect_uri: flow.redirect_uri.clone(),
        challenge: flow.challenge.clone(),
        authority: flow.authority.clone(),
        place: flow.place.clone(),
        flow: flow.id.clone(),
    };
    if let Err(error) = issuer.codes.bind(&flow.server, code, &bound, now).await {
        tracing::error!(request_id = %id, server = flow.server, %error, "a code could not be bound");
        let text = "The gateway's database does not answer, so the sign-in cannot be finished now.";
        return ended(flow, &judged, "temporarily_unavailable", text, START_AGAIN, id);
    }
    back(flow, &judged, &[("code", Some(code))])
}

/// What to say where the server, or its authorization server, is known to be another one by now than the one that the
/// person signed in for. The code goes no further then; the token request judges anew.
async fn is_elsewhere(issuer: &Issuer, flow: &Flow, server: Option<&Arc<Server>>) -> Option<&'static str> {
    let server = server?;
    let sign_in = server.signed_in_through_us()?;
    let endpoints = issuer.discovery.endpoints(&sign_in.upstream(server)).await;
    if endpoints.is_ok_and(|endpoints| endpoints.authority() != flow.authority) {
        return Some("The server's authorization server is another one than when this sign-in began.");
    }
    let moved = server.endpoint.place() != flow.place;
    moved.then_some("The server is not known to be where it was when this sign-in began.")
}

/// A failure that no client is told of, but for the gateway's own pages.
fn ended(
    flow: &Flow,
    uri: &JudgedRedirectUri,
    error: &str,
    text: &str,
    step: &str,
    id: RequestId,
) -> Response<Body> {
    if uri.trust() == Trust::SameOrigin {
        note::failed(error, Some(text));
        let answer = [("error", Some(error)), ("error_description", Some(text))];
        return back(flow, uri, &answer);
    }
    failed(id, error, Some(text), &[step])
}

/// 302 to the client, with its own state, and our `iss` as the last parameter.
fn back(flow: &Flow, uri: &JudgedRedirectUri, answer: &[(&str, Option<&str>)]) -> Response<Body> {
    let rest = [
        ("state", flow.client_state.as_deref()),
        ("iss", Some(flow.issuer.as_str())),
    ];
    redirect(StatusCode::FOUND, uri, answer.iter().chain(&rest))
}

/// A redirect to a judged URI with the parameters that have a value.
pub(super) fn redirect<'p>(
    status: StatusCode,
    uri: &JudgedRedirectUri,
    parameters: impl IntoIterator<Item = &'p (&'p str, Option<&'p str>)>,
) -> Response<Body> {
    let parameters: Vec<(&str, &str)> = parameters
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (*name, value)))
        .collect();
    to(status, &uri.with_parameters(&parameters))
}

/// A redirect that nobody keeps.
pub(super) fn to(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    match HeaderValue::from_str(location) {
        Ok(location) => {
            headers.insert(header::LOCATION, location);
            *response.status_mut() = status;
        }
        // A judged URI with form-encoded parameters is ASCII; a configured one was checked.
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

fn failed(id: RequestId, error: &str, said: Option<&str>, steps: &[&str]) -> Response<Body> {
    tracing::info!(request_id = %id, error, "a sign-in ended on the gateway's page");
    let error = if error.is_empty() { "unknown_error" } else { error };
    note::failed(error, said);
    page::failure(error, said, steps, id)
}

/// Cut at a character, not within one.
fn shortened(text: Option<&str>) -> Option<&str> {
    let text = text?;
    let end = text
        .char_indices()
        .map(|(at, _)| at)
        .nth(TEXT_LIMIT)
        .unwrap_or(text.len());
    Some(&text[..end])
}

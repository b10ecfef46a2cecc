//! `GET {identifier}/authorize` (RFC 6749 section 4.1.1): the redirect URI is judged before anything else, then
//! the client, then PKCE, then the person is asked where that is ours to do, and only then is there a state.

use super::Asked;
use super::callback::{redirect, to};
use super::clients::Client;
use super::codes::client_digest;
use super::consent::{Browser, Decision, Question};
use super::flow::Flow;
use super::providers;
use super::upstream::UpstreamEndpoints;
use crate::audit::note;
use crate::config::Consent;
use crate::web::body::Body;
use crate::web::error::shown;
use crate::web::parameters::Parameters;
use crate::web::{json, page};
use http::{HeaderValue, Response, StatusCode, header};
use std::sync::Arc;
use url::Url;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{
    AccessDenied, InvalidRequest, InvalidScope, UnsupportedResponseType,
};
use vestibule_oauth::pkce::CodeChallenge;
use vestibule_oauth::redirect_uri::JudgedRedirectUri;
use vestibule_oauth::token_request::is_scope_token;
use vestibule_oauth::{Trust, redirect_uri};

/// As much of a client's text as the log repeats.
pub(super) const SHOWN: usize = 300;

/// A request whose redirect URI and client are known to be right: what else is wrong goes back to the client.
pub(super) struct Judged {
    pub(super) client_id: String,
    pub(super) client: Client,
    pub(super) redirect_uri: JudgedRedirectUri,
    pub(super) state: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) challenge: Option<CodeChallenge>,
}

/// Sends a person on to the provider, or asks, or says why not. `answer` is what the person said to the
/// gateway's own question.
pub(super) async fn authorize(
    asked: &Asked<'_>,
    query: &str,
    answer: Option<(Decision, &str)>,
) -> Response<Body> {
    note::step(if answer.is_some() { "consent" } else { "authorize" });
    let judged = match judge(asked, query) {
        Ok(judged) => judged,
        Err(response) => return *response,
    };
    let status = if answer.is_some() {
        StatusCode::SEE_OTHER
    } else {
        StatusCode::FOUND
    };
    note::client_name(judged.client.name.as_deref());
    let refuse = |error: &OAuthError| {
        note::failed(error.code.name(), Some(&error.description));
        redirect(
            status,
            &judged.redirect_uri,
            &[
                ("error", Some(error.code.name())),
                ("error_description", Some(&error.description)),
                ("state", judged.state.as_deref()),
                ("iss", Some(asked.issuer().as_str())),
            ],
        )
    };
    let cannot_begin = |error: &OAuthError| {
        tracing::warn!(request_id = %asked.id, server = %asked.server.name, "a sign-in cannot begin: {}", error.description);
        refuse(error)
    };
    // Before the question: the person approves the scopes that the provider is asked for.
    let endpoints = match asked.endpoints().await {
        Ok(endpoints) => endpoints,
        Err(error) => return cannot_begin(&error),
    };
    let scope = scope(asked, &judged, &endpoints);
    let consents = &asked.people.issuer.consents;
    let browser = asked.browser();
    let question = Question {
        server: &asked.server.name,
        server_id: &asked.server.id,
        client_name: judged.client.name.as_deref(),
        redirect_uri: &judged.redirect_uri,
        scope: scope.as_deref(),
        query,
        flow: asked.id.as_str(),
    };
    let mut remembered = None;
    let mut flow = asked.id.as_str().to_owned();
    if let Some((decision, ticket)) = answer {
        let Some(begun) = consents.answered(ticket, &question, browser) else {
            let text = "This answer does not belong to a question that this browser was asked in the last ten minutes.";
            let step = "Start the sign-in again from your MCP client.";
            note::failed("invalid_request", Some(text));
            return page::failure("invalid_request", Some(text), &[step], asked.id);
        };
        flow = begun;
        note::flow(&flow);
        if decision == Decision::Deny {
            return refuse(&OAuthError::new(AccessDenied, "The person denied this client."));
        }
        remembered = consents.remember(&question, browser);
    } else if asks(asked, &judged) && !consents.remembers(&question, browser) {
        let Some(page) = consents.page(&question, browser) else {
            return refuse(&OAuthError::new(InvalidRequest, "The request is too long."));
        };
        note::asked();
        return page;
    }
    let begun = match begin(asked, &judged, &endpoints, scope.as_deref(), browser, flow).await {
        Ok(begun) => begun,
        Err(error) => return cannot_begin(&error),
    };
    let mut response = to(status, &begun.location);
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, begun.cookie);
    if let Some(cookie) = remembered {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

/// The consent is ours where one client at the provider serves many, and the answer leaves this gateway.
fn asks(asked: &Asked<'_>, judged: &Judged) -> bool {
    asked.sign_in.consent == Consent::Ask
        && asked.sign_in.client.is_some()
        && judged.redirect_uri.trust() != Trust::SameOrigin
}

/// What has to be right before the browser may be sent anywhere (RFC 6749 section 4.1.2.1), and then the rest.
fn judge(asked: &Asked<'_>, query: &str) -> Result<Judged, Box<Response<Body>>> {
    let refused = |uri: &str, why: &dyn std::fmt::Display| {
        tracing::warn!(request_id = %asked.id, server = %asked.server.name, redirect_uri = %shown(uri, SHOWN), "MCP OAuth: rejecting redirect_uri: {why}");
        note::failed(
            "invalid_redirect_uri",
            Some(&format!("The redirect_uri is refused: {why}.")),
        );
        Box::new(invalid_request())
    };
    let parameters = Parameters::parse(query.as_bytes()).map_err(|repeated| {
        tracing::warn!(request_id = %asked.id, server = %asked.server.name, parameter = %shown(&repeated.0, SHOWN), "MCP OAuth: rejecting an authorization request: a parameter stands several times");
        note::failed("invalid_request", Some("A parameter stands several times."));
        Box::new(invalid_request())
    })?;
    note::secret(parameters.get("state"));
    let uri = parameters.get("redirect_uri").unwrap_or_default();
    let redirect_uri = asked
        .worker
        .app
        .redirects
        .judge(uri, &asked.origin)
        .map_err(|rejection| refused(uri, &rejection))?;
    let client_id = parameters.get("client_id").unwrap_or_default();
    let Some(client) = asked.client(client_id) else {
        tracing::warn!(request_id = %asked.id, server = %asked.server.name, "a client id that this gateway did not give");
        note::failed("invalid_client", Some("The gateway did not give this client id."));
        return Err(Box::new(unknown_client(asked)));
    };
    if !client.may_return_to(uri) {
        return Err(refused(uri, &"the client did not register it"));
    }
    let state = parameters.get("state").map(str::to_owned);
    let back = |error: OAuthError| {
        note::failed(error.code.name(), Some(&error.description));
        Box::new(redirect(
            StatusCode::FOUND,
            &redirect_uri,
            &[
                ("error", Some(error.code.name())),
                ("error_description", Some(&error.description)),
                ("state", state.as_deref()),
                ("iss", Some(asked.issuer().as_str())),
            ],
        ))
    };
    if parameters.get("response_type").unwrap_or("code") != "code" {
        return Err(back(OAuthError::new(
            UnsupportedResponseType,
            "The response_type has to be code.",
        )));
    }
    let scope = parameters.get("scope").map(str::to_owned);
    if let Some(scope) = &scope
        && !scope
            .split(' ')
            .filter(|token| !token.is_empty())
            .all(is_scope_token)
    {
        return Err(back(OAuthError::new(
            InvalidScope,
            "A scope has a character that none may have.",
        )));
    }
    let challenge = match (
        parameters.get("code_challenge"),
        parameters.get("code_challenge_method"),
    ) {
        (None, None) if !asked.sign_in.require_pkce => None,
        (None, _) => {
            let text = "PKCE is required: send code_challenge and code_challenge_method=S256 (RFC 7636).";
            return Err(back(OAuthError::new(InvalidRequest, text)));
        }
        (Some(challenge), Some("S256")) => {
            let text = "The code_challenge is no S256 challenge: 43 characters of base64url (RFC 7636).";
            let challenge = CodeChallenge::s256(challenge);
            Some(challenge.map_err(|_| back(OAuthError::new(InvalidRequest, text)))?)
        }
        (Some(_), _) => {
            let text = "The code_challenge_method has to be S256 (RFC 7636).";
            return Err(back(OAuthError::new(InvalidRequest, text)));
        }
    };
    Ok(Judged {
        client_id: client_id.to_owned(),
        client,
        redirect_uri,
        state,
        scope,
        challenge,
    })
}

/// Where the browser goes now, and the cookie that lets it come back.
pub(super) struct Begun {
    pub(super) location: String,
    pub(super) cookie: HeaderValue,
}

/// Makes the state, and the address at the provider.
pub(super) async fn begin(
    asked: &Asked<'_>,
    judged: &Judged,
    endpoints: &Arc<UpstreamEndpoints>,
    scope: Option<&str>,
    browser: Browser<'_>,
    id: String,
) -> Result<Begun, OAuthError> {
    let upstream = asked.upstream_client(&judged.client.metadata, endpoints).await?;
    let flow = Flow {
        server: asked.server.id.clone(),
        redirect_uri: judged.redirect_uri.as_str().to_owned(),
        client: client_digest(&judged.client_id),
        challenge: judged
            .challenge
            .as_ref()
            .map(|challenge| challenge.as_str().to_owned()),
        client_state: judged.state.clone(),
        issuer: asked.issuer(),
        upstream_issuer: endpoints.issuer.clone(),
        iss_promised: endpoints.iss_promised,
        authority: endpoints.authority(),
        place: asked.server.endpoint.place(),
        id,
        person: asked
            .person
            .as_ref()
            .map(|person| person.id().as_str().to_owned()),
    };
    let begun = asked
        .people
        .issuer
        .flows
        .begin(&flow, browser.now, browser.secure)
        .ok_or_else(|| OAuthError::new(InvalidRequest, "state and redirect_uri are too long together."))?;
    let provider = providers::defaults(&endpoints.authorization_url);
    let callback = asked.callback();
    let resource = asked.resource(endpoints);
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", upstream.client.id.as_str()),
        ("redirect_uri", callback.as_str()),
        ("state", begun.state.as_str()),
    ];
    if let Some(scope) = scope {
        parameters.push(("scope", scope));
    }
    if let Some(challenge) = &judged.challenge {
        parameters.push(("code_challenge", challenge.as_str()));
        parameters.push(("code_challenge_method", "S256"));
    }
    if let Some(resource) = &resource {
        parameters.push(("resource", resource));
    }
    parameters.extend(provider.parameters);
    Ok(Begun {
        location: with_missing(&endpoints.authorization_url, &parameters),
        cookie: begun.cookie,
    })
}

/// What the provider is asked for: the scopes in the configured URL, else the client's, else the server's own; with
/// the one that the provider wants for a refresh token.
pub(super) fn scope(asked: &Asked<'_>, judged: &Judged, endpoints: &UpstreamEndpoints) -> Option<String> {
    let url = &endpoints.authorization_url;
    let written: Vec<_> = url.query_pairs().filter(|(name, _)| name == "scope").collect();
    if !written.is_empty() {
        let scopes: Vec<_> = written.iter().map(|(_, scope)| scope.as_ref()).collect();
        return Some(scopes.join(" "));
    }
    let ours = || {
        let configured = &asked.sign_in.scopes;
        let scopes = if configured.is_empty() {
            &endpoints.scopes
        } else {
            configured
        };
        (!scopes.is_empty()).then(|| scopes.join(" "))
    };
    let mut scope = judged.scope.clone().or_else(ours)?;
    if let Some(refresh) = providers::defaults(url).refresh_scope
        && !scope.split(' ').any(|token| token == refresh)
    {
        scope.push(' ');
        scope.push_str(refresh);
    }
    Some(scope)
}

/// The configured URL with the parameters that it does not have itself: what the operator wrote there wins, except
/// over what holds the exchange together, and over a `resource` of ours.
fn with_missing(url: &Url, parameters: &[(&str, &str)]) -> String {
    const OURS: [&str; 6] = [
        "response_type",
        "client_id",
        "redirect_uri",
        "state",
        "code_challenge",
        "code_challenge_method",
    ];
    let resource = parameters.iter().any(|(name, _)| *name == "resource");
    let ours = |name: &str| OURS.contains(&name) || name == "resource" && resource;
    let mut url = url.clone();
    let written: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !ours(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    let text = url.as_str().to_owned();
    let own = written
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let missing = parameters
        .iter()
        .copied()
        .filter(|(name, _)| !written.iter().any(|(other, _)| other == name));
    redirect_uri::with_parameters(&text, &own.chain(missing).collect::<Vec<_>>())
}

/// LiteLLM's body; what is wrong stands in the log, where only the operator reads it.
fn invalid_request() -> Response<Body> {
    json::no_store(StatusCode::BAD_REQUEST, r#"{"detail":"invalid_request"}"#)
}

/// For whoever is at an address from which too many sign-ins begin.
pub(super) fn too_many(asked: &Asked<'_>) -> Response<Body> {
    tracing::info!(request_id = %asked.id, server = %asked.server.name, "too many sign-ins begin at one address");
    let text = "Too many sign-ins were begun from your network just now.";
    note::step("authorize");
    note::failed("temporarily_unavailable", Some(text));
    let step = "Wait a minute, then start the sign-in again from your MCP client.";
    let mut response = page::failure("temporarily_unavailable", Some(text), &[step], asked.id);
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let after = HeaderValue::from_static("10");
    response.headers_mut().insert(header::RETRY_AFTER, after);
    response
}

/// Clients that keep a registration of another gateway do not notice by themselves (there is no such answer in
/// RFC 6749), so the person is told how to make them register again.
fn unknown_client(asked: &Asked<'_>) -> Response<Body> {
    let text = format!(
        "This gateway does not know the client that asks to use {}. Its registration is another gateway's, or was made with keys that are gone.",
        asked.server.name
    );
    page::failure(
        "invalid_client",
        Some(&text),
        &[
            "Let your MCP client register again:",
            "Claude Code: /mcp, choose the server, Clear authentication, then Authenticate.",
            "Cursor: Settings, MCP, log out of the server, then connect again.",
            "VS Code: run \"Authentication: Remove Dynamic Authentication Providers\", then start the server again.",
            "mcp-remote: delete ~/.mcp-auth.",
        ],
        asked.id,
    )
}

//! `POST {identifier}/token` (RFC 6749 section 3.2): a client's code or refresh token, exchanged at the provider by
//! our client there, with our own callback as redirect URI and the client's verifier.

use super::Asked;
use super::clients::Client;
use super::codes::client_digest;
use super::refresh_tokens::StandsFor;
use super::registrations::UpstreamClient;
use super::upstream::UpstreamEndpoints;
use crate::admission::server_session::Holder;
use crate::admission::{Admission, Principal, Targets};
use crate::audit::note;
use crate::config::Passthrough;
use crate::credentials::passthrough::{Envelope, NoEnvelope, refresh_holder};
use crate::credentials::person::{NoToken, Person, Redeemed, Redemption};
use crate::policy::access;
use crate::web::body::Body;
use crate::web::json::no_store;
use crate::web::parameters::Parameters;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::sync::Arc;
use url::form_urlencoded;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{
    InvalidClient, InvalidGrant, InvalidRequest, ServerError, TemporarilyUnavailable, UnsupportedGrantType,
};
use vestibule_oauth::pkce::{CodeChallenge, is_code_verifier};
use vestibule_oauth::registration::ClientMetadata;
use vestibule_oauth::token_request::{CodeRequest, RefreshRequest};
use vestibule_oauth::{Mismatch, TokenResponse};
use vestibule_store::StoreError;

/// The grant that a client presents.
enum Presented {
    Code {
        code: SecretString,
        verifier: Option<SecretString>,
    },
    Refresh {
        token: SecretString,
        scope: Option<String>,
    },
}

/// Answers a token request.
pub(super) async fn token(asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, OAuthError> {
    let parameters = Parameters::parse(body).map_err(|repeated| {
        let text = format!("The parameter {} stands several times.", repeated.0);
        OAuthError::new(InvalidRequest, text)
    })?;
    for name in ["code", "code_verifier", "refresh_token", "client_secret"] {
        note::secret(parameters.get(name));
    }
    let bridge = bridged(asked)?;
    let (client_id, client) = proved(asked, &parameters)?;
    note::client_name(client.name.as_deref());
    let client = Proved {
        bridge,
        id: &client_id,
        client: &client,
    };
    match presented(&parameters)? {
        Presented::Code { code, verifier } => {
            note::grant("authorization_code");
            by_code(asked, &client, &parameters, &code, verifier).await
        }
        Presented::Refresh { token, scope } => {
            note::grant("refresh_token");
            let refresh_tokens = &asked.people.issuer.refresh_tokens;
            match refresh_tokens.open(&asked.server.id, client.id, &client.holder(), &token) {
                Some(StandsFor::Kept(holder, name)) if client.bridge.is_none() => {
                    by_kept(asked, &holder, &name, &token).await
                }
                Some(StandsFor::Carried { token, authority }) => {
                    by_carried(asked, &client, token, &authority, scope).await
                }
                // Where tokens are passed through nothing is kept that one could stand for.
                Some(StandsFor::Kept(..)) | None => Err(OAuthError::new(
                    InvalidGrant,
                    "The refresh token is none that this gateway gave to this client for this server; sign in again.",
                )),
            }
        }
    }
}

/// A client that has proved itself.
struct Proved<'c> {
    id: &'c str,
    client: &'c Client,
    /// How its tokens are passed through, and who asks, at a passthrough server.
    bridge: Option<(Passthrough, Principal)>,
}

impl Proved<'_> {
    fn holder(&self) -> Vec<u8> {
        self.bridge
            .as_ref()
            .map(|(mode, principal)| refresh_holder(*mode, principal))
            .unwrap_or_default()
    }

    /// The person for whom tokens are kept; of what is passed through nothing is.
    fn person(&self, asked: &Asked<'_>) -> Option<Person> {
        match &self.bridge {
            Some(_) => None,
            None => Person::of(asked.worker, asked.server, asked.headers),
        }
    }

    /// That person, and the gateway key that the request shows.
    fn keeper(&self, asked: &Asked<'_>) -> Option<Holder> {
        let person = self.person(asked)?;
        let gate = &asked.worker.app.gate;
        gate.holder(&gate.admit(asked.headers).ok()?, person.id())
    }
}

/// Whom the tokens of a passthrough server are sealed for. Asked before a code is touched, which counts once.
fn bridged(asked: &Asked<'_>) -> Result<Option<(Passthrough, Principal)>, OAuthError> {
    let Some(mode) = asked.server.passthrough() else {
        return Ok(None);
    };
    if !mode.asks_for_key() {
        return Ok(Some((mode, Principal::Delegated)));
    }
    let gate = &asked.worker.app.gate;
    let admission = gate.admit_to(asked.headers, Targets::one(Some(asked.server)));
    let admission = admission.map_err(|refusal| {
        let text = format!(
            "The request needs the gateway key, in the header x-litellm-api-key: {}",
            refusal.message
        );
        OAuthError::new(InvalidRequest, text)
    })?;
    Ok(Some((mode, admission.principal)))
}

/// A code, which counts for the client, redirect URI and challenge that it was bound to, and once.
async fn by_code(
    asked: &Asked<'_>,
    client: &Proved<'_>,
    parameters: &Parameters,
    code: &SecretString,
    verifier: Option<SecretString>,
) -> Result<Response<Body>, OAuthError> {
    let shown = Shown {
        client_id: client.id,
        metadata: &client.client.metadata,
        redirect_uri: parameters.get("redirect_uri"),
        code,
        verifier,
        person: client.person(asked),
    };
    let redemption = redemption(asked, shown).await?;
    redeem(asked, client, redemption, None).await
}

/// A code with what its client shows beside it.
pub(super) struct Shown<'s> {
    /// Which client it is.
    pub(super) client_id: &'s str,
    /// What the client is.
    pub(super) metadata: &'s ClientMetadata,
    /// The redirect URI, if the client repeats it.
    pub(super) redirect_uri: Option<&'s str>,
    /// The code.
    pub(super) code: &'s SecretString,
    /// What meets the challenge.
    pub(super) verifier: Option<SecretString>,
    /// Whose tokens they become, if that is known.
    pub(super) person: Option<Person>,
}

/// Takes the code, once, and says what is asked for it at the provider.
pub(super) async fn redemption(asked: &Asked<'_>, shown: Shown<'_>) -> Result<Redemption, OAuthError> {
    let now = asked.worker.app.clock.unix_seconds();
    let codes = &asked.people.issuer.codes;
    let taken = codes
        .take(&asked.server.id, shown.code.expose_secret(), now)
        .await;
    let bound = taken.map_err(|error| store_failed(asked, &error))?;
    if let Some(bound) = &bound {
        note::flow(&bound.flow);
    }
    let bound = bound
        .filter(|bound| bound.client == client_digest(shown.client_id))
        .ok_or_else(|| {
            let text = "The code is none that this gateway passed on to this client, or it was used already.";
            OAuthError::new(InvalidGrant, text)
        })?;
    if shown.redirect_uri.is_some_and(|uri| uri != bound.redirect_uri) {
        let text = "The redirect_uri is not the one of the authorization request.";
        return Err(OAuthError::new(InvalidGrant, text));
    }
    if let Some(person) = &shown.person {
        note::person(person);
    }
    let verifier = verified(bound.challenge.as_deref(), shown.verifier)?;
    let (upstream, endpoints, resource) = at_the_provider(asked, shown.metadata, &bound.authority).await?;
    if bound.place != asked.server.endpoint.place() {
        let text = "The server is not known to be where it was when this sign-in began; sign in again.";
        return Err(OAuthError::new(InvalidGrant, text));
    }
    let request = CodeRequest {
        client: upstream.client.clone(),
        code: shown.code.clone(),
        redirect_uri: asked.callback(),
        code_verifier: verifier,
        resource,
    };
    let redemption = Redemption {
        request: request.encode(),
        secrets: request.sent_secrets(),
        endpoints,
        sign_in: Arc::clone(asked.sign_in),
        upstream,
        person: shown.person,
        server: Arc::clone(asked.server),
        live: Some(Arc::clone(&asked.worker.live)),
        flow: Some(bound.flow),
    };
    if let Some(person) = &redemption.person {
        note::person(person);
    }
    Ok(redemption)
}

/// RFC 7636 section 4.6, checked here whatever the provider does. A verifier for a request that had no challenge is
/// somebody else's.
fn verified(
    challenge: Option<&str>,
    verifier: Option<SecretString>,
) -> Result<Option<SecretString>, OAuthError> {
    let refuse = |code, text: &str| Err(OAuthError::new(code, text));
    match (challenge, verifier) {
        (None, None) => Ok(None),
        (None, Some(_)) => refuse(
            InvalidGrant,
            "There was no code_challenge for this code_verifier.",
        ),
        (Some(_), None) => refuse(InvalidRequest, "code_verifier is missing."),
        (Some(challenge), Some(verifier)) => {
            let met = CodeChallenge::s256(challenge)
                .is_ok_and(|challenge| challenge.is_met_by(verifier.expose_secret()));
            if met {
                Ok(Some(verifier))
            } else {
                refuse(
                    InvalidGrant,
                    "The code_verifier does not meet the code_challenge.",
                )
            }
        }
    }
}

/// A refresh token of ours for what is kept: the gateway renews it, and several processes of a client may ask at once.
async fn by_kept(
    asked: &Asked<'_>,
    holder: &Holder,
    name: &str,
    token: &SecretString,
) -> Result<Response<Body>, OAuthError> {
    let persons = &asked.people.persons;
    let refused = || {
        let text = "The gateway key of the sign-in does not count for this server any more; sign in again.";
        OAuthError::new(InvalidGrant, text)
    };
    let (principal, user) = asked.worker.app.gate.behind(holder).ok_or_else(refused)?;
    let admission = Admission::of_session(principal, Some(user.clone()));
    access::permit(&admission, asked.server).map_err(|_| refused())?;
    let person = &Person::kept_under(user);
    note::person(person);
    let grant = match persons.refresh(person, asked.server, asked.sign_in, name).await {
        Ok(grant) => grant,
        Err(NoToken::SignIn) => {
            return Err(OAuthError::new(
                InvalidGrant,
                "The sign-in has ended; sign in again.",
            ));
        }
        Err(NoToken::Renewal(fault)) => return Err(fault.for_client(&asked.server.name)),
        Err(NoToken::Store(error)) => return Err(store_failed(asked, &error)),
    };
    if let Some(flow) = grant.flow() {
        note::flow(flow);
    }
    let now = asked.worker.app.clock.unix_seconds();
    Ok(answer(&Issued {
        access_token: grant.access_token(),
        expires_in: grant.ends_at().map(|end| end.saturating_sub(now)),
        refresh_token: Some(token),
        scope: grant.scope(),
    }))
}

/// The provider's own refresh token, which goes back to nobody but who issued it.
async fn by_carried(
    asked: &Asked<'_>,
    client: &Proved<'_>,
    token: SecretString,
    authority: &str,
    scope: Option<String>,
) -> Result<Response<Body>, OAuthError> {
    let (upstream, endpoints, resource) = at_the_provider(asked, &client.client.metadata, authority).await?;
    let request = RefreshRequest {
        client: upstream.client.clone(),
        refresh_token: token.clone(),
        scope,
        resource,
    };
    let redemption = Redemption {
        request: request.encode(),
        secrets: request.sent_secrets(),
        endpoints,
        sign_in: Arc::clone(asked.sign_in),
        upstream,
        person: None,
        server: Arc::clone(asked.server),
        live: None,
        flow: None,
    };
    redeem(asked, client, redemption, Some(token)).await
}

/// What is shown there was issued by `authority`. Where the server's authorization server is another one by now, it is
/// shown nothing, and no client of ours is made there.
async fn at_the_provider(
    asked: &Asked<'_>,
    metadata: &ClientMetadata,
    authority: &str,
) -> Result<(UpstreamClient, Arc<UpstreamEndpoints>, Option<String>), OAuthError> {
    let endpoints = asked.endpoints().await?;
    if endpoints.authority() != authority {
        let text = "The server's authorization server is another one by now; sign in again.";
        return Err(OAuthError::new(InvalidGrant, text));
    }
    let upstream = asked.upstream_client(metadata, &endpoints).await?;
    let resource = asked.resource(&endpoints);
    Ok((upstream, endpoints, resource))
}

/// What the provider gives.
pub(super) async fn redeemed(asked: &Asked<'_>, redemption: Redemption) -> Result<Redeemed, OAuthError> {
    let registration = redemption.upstream.registration.clone();
    match (asked.people.persons.redeem(redemption).await, registration) {
        (Ok(redeemed), _) => Ok(redeemed),
        (Err(fault), Some(key)) if fault.is_unknown_client() => {
            // The next sign-in registers anew (RFC 7591 has no way to ask beforehand).
            let registrations = &asked.people.issuer.registrations;
            let forgotten = registrations.forget(&asked.server.store_id, &key).await;
            tracing::warn!(request_id = %asked.id, server = %asked.server.name, ?forgotten, "the authorization server has forgotten our client");
            let text = "The authorization server has forgotten the gateway's registration; sign in again.";
            Err(OAuthError::new(InvalidGrant, text))
        }
        (Err(fault), _) => Err(fault.for_client(&asked.server.name)),
    }
}

/// `before` is the provider's refresh token that was shown: one that does not rotate stays good.
async fn redeem(
    asked: &Asked<'_>,
    client: &Proved<'_>,
    redemption: Redemption,
    before: Option<SecretString>,
) -> Result<Response<Body>, OAuthError> {
    let authority = redemption.endpoints.authority();
    let (tokens, kept) = match redeemed(asked, redemption).await? {
        Redeemed::Tokens(tokens, kept) => (tokens, kept),
        Redeemed::RuleBroken(mismatch) => return Ok(refused_by_rule(asked, &mismatch)),
    };
    let refresh_token = tokens.refresh_token.clone().or(before).and_then(|token| {
        let stands_for = match kept {
            // The provider's is the gateway's own by now.
            Some(name) => StandsFor::Kept(client.keeper(asked)?, name),
            None => StandsFor::Carried { token, authority },
        };
        let refresh_tokens = &asked.people.issuer.refresh_tokens;
        let issued = refresh_tokens.issue(&asked.server.id, client.id, &client.holder(), &stands_for);
        if issued.is_none() {
            tracing::warn!(request_id = %asked.id, server = %asked.server.name, "a refresh token is too long to be passed on");
        }
        issued
    });
    let envelope = client
        .bridge
        .as_ref()
        .map(|(mode, principal)| enveloped(asked, &tokens, (*mode, principal)));
    let envelope = envelope.transpose()?;
    let shown = envelope.as_ref();
    Ok(answer(&Issued {
        access_token: shown.map_or(tokens.access_token.secret(), |envelope| &envelope.text),
        expires_in: shown.map_or(tokens.expires_in, |envelope| Some(envelope.expires_in)),
        refresh_token: refresh_token.as_ref(),
        scope: tokens.scope.as_deref(),
    }))
}

/// The provider's token, sealed for the one who asks.
fn enveloped(
    asked: &Asked<'_>,
    tokens: &TokenResponse,
    holder: (Passthrough, &Principal),
) -> Result<Envelope, OAuthError> {
    let app = &asked.worker.app;
    let token = tokens.access_token.secret();
    let now = app.clock.unix_seconds();
    let made = app
        .envelopes
        .seal(token, tokens.expires_in, &asked.server.id, holder, now);
    made.map_err(|fault| {
        let why = match fault {
            NoEnvelope::Ended => "has ended as it comes",
            NoEnvelope::TooLong => "is too long to be passed through sealed",
        };
        let text = format!(
            "The access token of {}'s authorization server {why}.",
            asked.server.name
        );
        OAuthError::new(ServerError, text).with_status(502)
    })
}

fn store_failed(asked: &Asked<'_>, error: &StoreError) -> OAuthError {
    tracing::error!(request_id = %asked.id, server = %asked.server.name, %error, "the store failed");
    OAuthError::new(TemporarilyUnavailable, "The gateway's database does not answer.")
}

/// The client, once it has proved itself: by `client_secret_basic`, by `client_secret_post`, or by nothing.
fn proved(asked: &Asked<'_>, parameters: &Parameters) -> Result<(String, Client), OAuthError> {
    let refuse = |text: &str| Err(OAuthError::new(InvalidClient, text));
    let basic = match asked.headers.get(header::AUTHORIZATION).map(HeaderValue::to_str) {
        Some(Ok(value)) => match value.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => match basic(rest) {
                Some(basic) => Some(basic),
                None => return refuse("The Authorization header is not well-formed Basic."),
            },
            // A gateway key, which says who the person is, not which client this is.
            _ => None,
        },
        _ => None,
    };
    let posted = parameters.get("client_secret");
    let (id, secret) = match &basic {
        Some(_) if posted.is_some() => {
            return Err(OAuthError::new(
                InvalidRequest,
                "The client authenticates in two ways at once.",
            ));
        }
        Some((id, _)) if parameters.get("client_id").is_some_and(|other| other != id) => {
            return Err(OAuthError::new(
                InvalidRequest,
                "The client ids in header and body differ.",
            ));
        }
        Some((id, secret)) => (id.as_str(), Some(secret.as_str())),
        None => match parameters.get("client_id") {
            Some(id) => (id, posted),
            None => return refuse("client_id is missing."),
        },
    };
    match asked.client(id) {
        Some(client) if client.is_proved_by(secret) => Ok((id.to_owned(), client)),
        Some(_) => refuse("The client secret is missing or wrong."),
        None => refuse("This gateway does not know the client; register again."),
    }
}

/// RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |part: &str| {
        let one = part.replace('&', "%26").replace('=', "%3D");
        form_urlencoded::parse(one.as_bytes())
            .next()
            .map(|(name, _)| name.into_owned())
            .unwrap_or_default()
    };
    Some((plain(id), plain(secret)))
}

fn presented(parameters: &Parameters) -> Result<Presented, OAuthError> {
    let missing = |name: &str| OAuthError::new(InvalidRequest, format!("{name} is missing."));
    match parameters.get("grant_type") {
        None => Err(missing("grant_type")),
        Some("authorization_code") => {
            let code = parameters.get("code").ok_or_else(|| missing("code"))?;
            let verifier = parameters.get("code_verifier");
            if verifier.is_some_and(|verifier| !is_code_verifier(verifier)) {
                let text = "The code_verifier is none: 43 to 128 unreserved characters (RFC 7636).";
                return Err(OAuthError::new(InvalidGrant, text));
            }
            Ok(Presented::Code {
                code: code.into(),
                verifier: verifier.map(Into::into),
            })
        }
        Some("refresh_token") => {
            let token = parameters
                .get("refresh_token")
                .ok_or_else(|| missing("refresh_token"))?;
            Ok(Presented::Refresh {
                token: token.into(),
                scope: parameters.get("scope").map(str::to_owned),
            })
        }
        Some(_) => Err(OAuthError::new(
            UnsupportedGrantType,
            "The grant_type has to be authorization_code or refresh_token.",
        )),
    }
}

/// What a client is given.
struct Issued<'i> {
    access_token: &'i SecretString,
    /// In seconds, if the provider told.
    expires_in: Option<u64>,
    refresh_token: Option<&'i SecretString>,
    scope: Option<&'i str>,
}

/// RFC 6749 section 5.1, with what the provider said and nothing made up.
fn answer(issued: &Issued<'_>) -> Response<Body> {
    // Slack calls it user or bot; to the client it is what it is used as.
    let mut document = json!({
        "access_token": issued.access_token.expose_secret(),
        "token_type": "Bearer",
    });
    if let Some(expires_in) = issued.expires_in {
        document["expires_in"] = json!(expires_in);
    }
    if let Some(refresh) = issued.refresh_token {
        document["refresh_token"] = json!(refresh.expose_secret());
    }
    if let Some(scope) = issued.scope {
        document["scope"] = json!(scope);
    }
    no_store(StatusCode::OK, document.to_string())
}

/// LiteLLM's body of a token that breaks the operator's rule.
fn refused_by_rule(asked: &Asked<'_>, mismatch: &Mismatch) -> Response<Body> {
    tracing::warn!(request_id = %asked.id, server = %asked.server.name, field = mismatch.field, "token_validation refused a token: {mismatch}");
    note::failed("token_validation_failed", Some(&mismatch.to_string()));
    let document = json!({"detail": {
        "error": "token_validation_failed",
        "server_id": asked.server.id,
        "field": mismatch.field,
        "message": mismatch.to_string(),
        "request_id": asked.id.as_str(),
    }});
    no_store(StatusCode::FORBIDDEN, document.to_string())
}

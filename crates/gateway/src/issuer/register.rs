//! `POST {identifier}/register` (RFC 7591 section 3): the client gets an id of ours, with its own redirect URIs; at
//! the provider one client of ours stands for all that say the same of themselves.

use super::Asked;
use super::authorize::SHOWN;
use crate::web::body::Body;
use crate::web::error::shown;
use crate::web::json;
use http::{Response, StatusCode};
use serde_json::json;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{InvalidClientMetadata, InvalidRedirectUri};
use vestibule_oauth::registration::ClientMetadata;

/// The largest registration that is read.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// Registers a client.
pub(super) async fn register(asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, OAuthError> {
    let mut metadata = ClientMetadata::parse(body)?;
    let issuer = &asked.people.issuer;
    let mut refused = None;
    metadata.redirect_uris.retain(|uri| {
        match issuer.rules.judge(uri, &asked.origin) {
            Ok(_) => true,
            Err(rejection) => {
                tracing::warn!(request_id = %asked.id, server = %asked.server.name, redirect_uri = %shown(uri, SHOWN), "MCP OAuth: rejecting redirect_uri at registration: {rejection}");
                refused = Some(rejection);
                false
            }
        }
    });
    if let (true, Some(rejection)) = (metadata.redirect_uris.is_empty(), refused) {
        let setting = rejection
            .setting()
            .map(|setting| format!(" {setting} of the gateway would allow it."))
            .unwrap_or_default();
        return Err(OAuthError::new(
            InvalidRedirectUri,
            format!("{}{setting}", rejection.public_text()),
        ));
    }
    // Before an id is given out: a client that cannot sign in is told so here, where its developer looks.
    asked.upstream_client(&metadata).await?;
    let with_secret = matches!(
        metadata.token_endpoint_auth_method.as_deref(),
        Some("client_secret_post" | "client_secret_basic")
    );
    let made = issuer
        .clients
        .issue(&asked.server.id, &metadata, with_secret)
        .ok_or_else(|| OAuthError::new(InvalidClientMetadata, "The metadata is too long."))?;
    let method = if with_secret {
        metadata.token_endpoint_auth_method.as_deref()
    } else {
        Some("none")
    };
    let mut answer = json!({
        "client_id": made.id,
        "client_id_issued_at": asked.worker.app.clock.unix_seconds(),
        "redirect_uris": metadata.redirect_uris,
        "token_endpoint_auth_method": method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if let Some(secret) = made.secret {
        answer["client_secret"] = json!(secret);
        answer["client_secret_expires_at"] = json!(0);
    }
    for (name, value) in [
        ("client_name", &metadata.client_name),
        ("client_uri", &metadata.client_uri),
        ("logo_uri", &metadata.logo_uri),
        ("scope", &metadata.scope),
        ("software_id", &metadata.software_id),
        ("software_version", &metadata.software_version),
        ("application_type", &metadata.application_type),
    ] {
        if let Some(value) = value {
            answer[name] = json!(value);
        }
    }
    Ok(json::no_store(StatusCode::CREATED, answer.to_string()))
}

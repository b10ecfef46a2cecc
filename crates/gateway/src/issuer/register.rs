//! `POST {identifier}/register` (RFC 7591 section 3): the client gets an id of ours, with its own redirect URIs; at
//! the provider one client of ours stands for all that say the same of themselves.

use super::Asked;
use super::authorize::SHOWN;
use super::clients::Clients;
use crate::app::Worker;
use crate::audit::note;
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::shown;
use crate::web::json;
use http::{Response, StatusCode};
use serde_json::json;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{InvalidClientMetadata, InvalidRedirectUri};
use vestibule_oauth::origin::Origin;
use vestibule_oauth::redirect_uri::JudgedRedirectUri;
use vestibule_oauth::registration::ClientMetadata;

/// The largest registration that is read.
pub(super) const BODY_LIMIT: usize = 64 * 1024;

/// Why a trusted redirect URI does not fit.
const LOOPBACK_ONLY: &str = "The redirect URI has to be a loopback address for this MCP server.";

/// Registers a client.
pub(super) async fn register(asked: &Asked<'_>, body: &[u8]) -> Result<Response<Body>, OAuthError> {
    let registering = Registering {
        worker: asked.worker,
        server: asked.server,
        origin: &asked.origin,
        id: asked.id,
    };
    let metadata = registering.judged(body, |_| true)?;
    note::client_name(metadata.client_name.as_deref());
    // Before an id is given out: a client that cannot sign in is told so here, where its developer looks.
    if asked.sign_in.client.is_none() {
        let endpoints = asked.endpoints().await?;
        asked.upstream_client(&metadata, &endpoints).await?;
    }
    let with_secret = matches!(
        metadata.token_endpoint_auth_method.as_deref(),
        Some("client_secret_post" | "client_secret_basic")
    );
    let grants = ["authorization_code", "refresh_token"];
    registering.issued(&asked.people.issuer.clients, metadata, with_secret, &grants)
}

/// A registration at one server.
pub(super) struct Registering<'a> {
    pub(super) worker: &'a Worker,
    pub(super) server: &'a Server,
    pub(super) origin: &'a Origin,
    pub(super) id: RequestId,
}

impl Registering<'_> {
    /// The client's metadata with those of its redirect URIs that are trusted, and `fit` the server.
    pub(super) fn judged(
        &self,
        body: &[u8],
        fits: impl Fn(&JudgedRedirectUri) -> bool,
    ) -> Result<ClientMetadata, OAuthError> {
        let mut metadata = ClientMetadata::parse(body)?;
        let mut refused = None;
        metadata.redirect_uris.retain(|uri| {
            let why = match self.worker.app.redirects.judge(uri, self.origin) {
                Ok(judged) if fits(&judged) => return true,
                Ok(_) => (LOOPBACK_ONLY.to_owned(), LOOPBACK_ONLY.to_owned()),
                Err(rejection) => {
                    let setting = rejection
                        .setting()
                        .map(|setting| format!(" {setting} of the gateway would allow it."))
                        .unwrap_or_default();
                    (rejection.to_string(), format!("{}{setting}", rejection.public_text()))
                }
            };
            let (rejection, public) = why;
            tracing::warn!(request_id = %self.id, server = %self.server.name, redirect_uri = %shown(uri, SHOWN), "MCP OAuth: rejecting redirect_uri at registration: {rejection}");
            refused = Some(public);
            false
        });
        match refused {
            Some(public) if metadata.redirect_uris.is_empty() => {
                Err(OAuthError::new(InvalidRedirectUri, public))
            }
            _ => Ok(metadata),
        }
    }

    /// The client's id, and what it was registered with.
    pub(super) fn issued(
        &self,
        clients: &Clients,
        metadata: ClientMetadata,
        with_secret: bool,
        grants: &[&str],
    ) -> Result<Response<Body>, OAuthError> {
        let made = clients
            .issue(&self.server.id, &metadata, with_secret)
            .ok_or_else(|| OAuthError::new(InvalidClientMetadata, "The metadata is too long."))?;
        let method = if with_secret {
            metadata.token_endpoint_auth_method.as_deref()
        } else {
            Some("none")
        };
        let mut answer = json!({
            "client_id": made.id,
            "client_id_issued_at": self.worker.app.clock.unix_seconds(),
            "redirect_uris": metadata.redirect_uris,
            "token_endpoint_auth_method": method,
            "grant_types": grants,
            "response_types": ["code"],
        });
        if let Some(secret) = made.secret {
            answer["client_secret"] = json!(secret);
            answer["client_secret_expires_at"] = json!(0);
        }
        for (name, value) in [
            ("client_name", metadata.client_name),
            ("client_uri", metadata.client_uri),
            ("logo_uri", metadata.logo_uri),
            ("scope", metadata.scope),
            ("software_id", metadata.software_id),
            ("software_version", metadata.software_version),
            ("application_type", metadata.application_type),
        ] {
            if let Some(value) = value {
                answer[name] = json!(value);
            }
        }
        Ok(json::no_store(StatusCode::CREATED, answer.to_string()))
    }
}

//! The console as a client of our own: a person connects a server from a page. It goes the way of every client (our
//! client at the provider, the sealed flow, the code that counts once), and what comes of it is kept for the person.
//! Consent is not asked: the answer stays on this gateway.

use super::authorize::{self, Judged};
use super::clients::Client;
use super::token::{Shown, redeemed, redemption};
use super::{Asked, Identifier, Named};
use crate::app::Worker;
use crate::audit::note;
use crate::credentials::person::{Person, Redeemed};
use crate::ids::{RequestId, random_hex};
use crate::registry::Server;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::sync::Arc;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{
    AccessDenied, InvalidRequest, ServerError, TemporarilyUnavailable,
};
use vestibule_oauth::origin::Origin;
use vestibule_oauth::pkce::challenge_of;
use vestibule_oauth::registration::ClientMetadata;

/// Where the browser comes back to.
pub(crate) const REDIRECT_PATH: &str = "/ui/mcp/oauth/callback";
/// The console as a client. No name of a server and no sealed id is like it.
const CLIENT_ID: &str = "/ui";
const CLIENT_NAME: &str = "Vestibule";

/// A person's request to connect a server, or the end of it.
pub(crate) struct Connect<'c> {
    /// The gateway.
    pub(crate) worker: &'c Worker,
    /// The server.
    pub(crate) server: &'c Arc<Server>,
    /// By what name the browser calls the gateway.
    pub(crate) origin: &'c Origin,
    /// Of the request.
    pub(crate) headers: &'c HeaderMap,
    /// The request's id.
    pub(crate) id: RequestId,
}

/// A sign-in that has begun.
pub(crate) struct Begun {
    /// Where the browser goes.
    pub(crate) location: String,
    /// The flow, for the way back.
    pub(crate) cookie: HeaderValue,
    /// What comes back as `state`.
    pub(crate) state: String,
    /// What proves that it was begun here.
    pub(crate) verifier: SecretString,
}

impl Connect<'_> {
    fn asked(&self) -> Result<Asked<'_>, OAuthError> {
        let (Some(people), Some(sign_in)) = (&self.worker.app.people, self.server.sign_in()) else {
            return Err(OAuthError::new(InvalidRequest, "Nobody signs in to this server."));
        };
        Ok(Asked {
            worker: self.worker,
            people,
            server: self.server,
            sign_in,
            identifier: Identifier {
                path: "",
                named: Named::Id(&self.server.id),
            },
            origin: self.origin.clone(),
            base: self.origin.to_string(),
            headers: self.headers,
            person: None,
            id: self.id,
        })
    }

    fn redirect_uri(&self) -> String {
        format!("{}{REDIRECT_PATH}", self.origin)
    }

    /// What `iss` says in the answer (RFC 9207).
    pub(crate) fn issuer(&self) -> Option<String> {
        Some(self.asked().ok()?.issuer())
    }

    /// Finds the provider and makes the address there, for `person`. `address` is theirs, of whose requests only so many
    /// count.
    pub(crate) async fn begin(&self, person: Person, address: IpAddr) -> Result<Begun, OAuthError> {
        self.step("authorize");
        self.begun(person, address).await.inspect_err(noted)
    }

    fn step(&self, name: &'static str) {
        note::step(name);
        note::server(self.server);
        note::client_name(Some(CLIENT_NAME));
    }

    async fn begun(&self, person: Person, address: IpAddr) -> Result<Begun, OAuthError> {
        let asked = Asked {
            person: Some(person),
            ..self.asked()?
        };
        if !asked.people.issuer.flood.admits_sign_in(address) {
            let text = "Too many sign-ins were begun from your network just now; wait a minute.";
            return Err(OAuthError::new(TemporarilyUnavailable, text));
        }
        let redirect_uri = self.redirect_uri();
        let redirects = &self.worker.app.redirects;
        let judged_uri = redirects
            .judge(&redirect_uri, self.origin)
            .map_err(|rejection| OAuthError::new(InvalidRequest, rejection.to_string()))?;
        let verifier = SecretString::from(format!("{}{}", random_hex(), random_hex()));
        let state = random_hex();
        let judged = Judged {
            client_id: CLIENT_ID.to_owned(),
            client: Client::own(metadata(redirect_uri)),
            redirect_uri: judged_uri,
            state: Some(state.clone()),
            scope: None,
            challenge: Some(challenge_of(verifier.expose_secret())),
        };
        let endpoints = asked.endpoints().await?;
        let scope = authorize::scope(&asked, &judged, &endpoints);
        let flow = self.id.as_str().to_owned();
        let browser = asked.browser();
        let begun = authorize::begin(&asked, &judged, &endpoints, scope.as_deref(), browser, flow).await?;
        Ok(Begun {
            location: begun.location,
            cookie: begun.cookie,
            state,
            verifier,
        })
    }

    /// Redeems the code and keeps what comes of it for `person`. It is on disk when this returns.
    pub(crate) async fn finish(
        &self,
        code: &SecretString,
        verifier: SecretString,
        person: Person,
    ) -> Result<(), OAuthError> {
        self.step("token");
        note::grant("authorization_code");
        note::secret(Some(code.expose_secret()));
        self.finished(code, verifier, person).await.inspect_err(noted)
    }

    async fn finished(
        &self,
        code: &SecretString,
        verifier: SecretString,
        person: Person,
    ) -> Result<(), OAuthError> {
        let asked = self.asked()?;
        let redirect_uri = self.redirect_uri();
        let shown = Shown {
            client_id: CLIENT_ID,
            metadata: &metadata(redirect_uri.clone()),
            redirect_uri: Some(&redirect_uri),
            code,
            verifier: Some(verifier),
            person: Some(person),
        };
        let redemption = redemption(&asked, shown).await?;
        match redeemed(&asked, redemption).await? {
            Redeemed::Tokens(_, Some(_)) => Ok(()),
            Redeemed::Tokens(_, None) => Err(OAuthError::new(
                ServerError,
                "The gateway's database did not keep the sign-in.",
            )),
            Redeemed::RuleBroken(mismatch) => Err(OAuthError::new(
                AccessDenied,
                format!("The token breaks token_validation of this server: {mismatch}"),
            )),
        }
    }
}

fn noted(error: &OAuthError) {
    note::failed(error.code.name(), Some(&error.description));
}

fn metadata(redirect_uri: String) -> ClientMetadata {
    ClientMetadata {
        redirect_uris: vec![redirect_uri],
        client_name: Some(CLIENT_NAME.to_owned()),
        token_endpoint_auth_method: Some("none".to_owned()),
        grant_types: vec!["authorization_code".to_owned(), "refresh_token".to_owned()],
        response_types: vec!["code".to_owned()],
        ..ClientMetadata::default()
    }
}

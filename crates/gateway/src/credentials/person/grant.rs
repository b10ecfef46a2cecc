//! A person's tokens for one server, as they are kept and as they are used.

use crate::config::SignIn;
use crate::ids;
use crate::issuer::registrations::{RegistrationKey, UpstreamClient};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vestibule_oauth::TokenResponse;
use vestibule_oauth::client_auth::{Client, ClientAuthMethod};
use vestibule_oauth::token_request::RefreshRequest;
use vestibule_store::{Grant as Row, Version};

/// How long before its end a token is no longer used.
const MARGIN: u64 = 60;
/// The longest that a renewal begins before it must.
const RENEWAL_LEAD: u64 = 300;

/// Tokens with the client that they were issued to: a refresh token counts with no other.
pub struct Grant {
    /// Names the sign-in that it goes back to, over all renewals.
    name: String,
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    scope: Option<String>,
    /// When the access token was issued, in seconds since 1970.
    issued_at: u64,
    /// When it ends, if the provider said so.
    ends_at: Option<u64>,
    client: Client,
    registration: Option<RegistrationKey>,
    /// Who issued it, and alone may see it again; see [`UpstreamEndpoints::authority`].
    authority: String,
    /// By what id the record has the sign-in.
    flow: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// The format's version.
    v: u8,
    name: String,
    access_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    issued_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<u64>,
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    auth_method: String,
    authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration: Option<RegistrationKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
}

/// A token in use.
#[derive(Debug)]
pub struct PersonToken {
    header: HeaderValue,
    /// Which writing of the row it is.
    pub(super) version: Version,
    /// Renewed from this second since 1970 on, in the background.
    pub(super) renew_from: u64,
    /// Not used from this second on without a try to renew it.
    pub(super) use_until: u64,
    /// Not used at all from this second on.
    pub(super) over_from: u64,
}

impl PersonToken {
    /// `Bearer <token>`, marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl Grant {
    /// What a token endpoint just issued to `upstream`, in the sign-in `flow`.
    pub fn new(
        tokens: &TokenResponse,
        upstream: &UpstreamClient,
        authority: String,
        flow: Option<String>,
        now: u64,
    ) -> Self {
        Self {
            name: ids::random_hex(),
            access_token: tokens.access_token.secret().clone(),
            refresh_token: tokens.refresh_token.clone(),
            scope: tokens.scope.clone(),
            issued_at: now,
            ends_at: end(tokens, now),
            client: upstream.client.clone(),
            registration: upstream.registration.clone(),
            authority,
            flow,
        }
    }

    /// What a caller brought itself, to be refreshed by `client`.
    pub fn brought(
        access_token: SecretString,
        refresh_token: Option<SecretString>,
        scope: Option<String>,
        ends_at: Option<u64>,
        upstream: UpstreamClient,
        authority: String,
        now: u64,
    ) -> Self {
        Self {
            name: ids::random_hex(),
            access_token,
            refresh_token,
            scope,
            issued_at: now,
            ends_at,
            client: upstream.client,
            registration: upstream.registration,
            authority,
            flow: None,
        }
    }

    /// The grant after a renewal: a provider that does not rotate says nothing of the refresh token or the scope,
    /// and both stay (RFC 6749 section 6).
    #[must_use]
    pub fn renewed(&self, tokens: &TokenResponse, now: u64) -> Self {
        Self {
            name: self.name.clone(),
            access_token: tokens.access_token.secret().clone(),
            refresh_token: tokens
                .refresh_token
                .clone()
                .or_else(|| self.refresh_token.clone()),
            scope: tokens.scope.clone().or_else(|| self.scope.clone()),
            issued_at: now,
            ends_at: end(tokens, now),
            client: self.client.clone(),
            registration: self.registration.clone(),
            authority: self.authority.clone(),
            flow: self.flow.clone(),
        }
    }

    /// The same tokens as a further sign-in of the person's: what clients hold of the earlier ones stays good.
    #[must_use]
    pub fn under_the_name(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// The bytes that the store seals.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        let stored = Stored {
            v: 1,
            name: self.name.clone(),
            access_token: text(&self.access_token),
            refresh_token: self.refresh_token.as_ref().map(text),
            scope: self.scope.clone(),
            issued_at: self.issued_at,
            ends_at: self.ends_at,
            client_id: self.client.id.clone(),
            client_secret: self.client.secret.as_ref().map(text),
            auth_method: self.client.auth_method.name().to_owned(),
            authority: self.authority.clone(),
            registration: self.registration.clone(),
            flow: self.flow.clone(),
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// The grant of a row. `None` for one that a later version of this program wrote.
    pub fn from_row(row: &Row) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(row.payload.expose_secret()).ok()?;
        if stored.v != 1 {
            return None;
        }
        Some(Self {
            name: stored.name,
            access_token: stored.access_token.into(),
            refresh_token: stored.refresh_token.map(Into::into),
            scope: stored.scope,
            issued_at: stored.issued_at,
            ends_at: stored.ends_at,
            client: Client {
                id: stored.client_id,
                secret: stored.client_secret.map(Into::into),
                auth_method: ClientAuthMethod::from_name(&stored.auth_method)?,
            },
            registration: stored.registration,
            authority: stored.authority,
            flow: stored.flow,
        })
    }

    /// When what is kept ends for good: never by itself, while it can be renewed.
    pub fn expires_at(&self) -> Option<u64> {
        self.refresh_token.is_none().then_some(self.ends_at).flatten()
    }

    /// By what id the record has the sign-in.
    pub fn flow(&self) -> Option<&str> {
        self.flow.as_deref()
    }

    /// Names the sign-in that it goes back to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a header can carry the access token.
    pub fn fits_a_header(&self) -> bool {
        let token = self.access_token.expose_secret();
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Whether it can be renewed.
    pub fn is_renewable(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// The access token, for the client whose person this is.
    pub fn access_token(&self) -> &SecretString {
        &self.access_token
    }

    /// The scope, if the provider told it.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// When the access token was issued, in seconds since 1970.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When the access token ends, in seconds since 1970.
    pub fn ends_at(&self) -> Option<u64> {
        self.ends_at
    }

    /// Our client that it was issued to came from this registration.
    pub(super) fn registration(&self) -> Option<&RegistrationKey> {
        self.registration.as_ref()
    }

    /// Who issued it.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// How to renew it, if that is possible. `configured` is the client of the configuration, whose secret may be
    /// another one by now.
    pub(super) fn refresh(
        &self,
        configured: Option<&Client>,
        resource: Option<String>,
    ) -> Option<RefreshRequest> {
        let configured = configured.filter(|client| client.id == self.client.id);
        Some(RefreshRequest {
            client: configured.unwrap_or(&self.client).clone(),
            refresh_token: self.refresh_token.clone()?,
            scope: None,
            resource,
        })
    }

    /// What is to be revoked: the refresh token, which takes the access tokens along, or else the access token.
    pub(super) fn revocable(&self) -> (&Client, &SecretString, &'static str) {
        match &self.refresh_token {
            Some(token) => (&self.client, token, "refresh_token"),
            None => (&self.client, &self.access_token, "access_token"),
        }
    }

    /// The token in use. `None` when no header can carry it.
    pub(super) fn token(&self, version: Version, sign_in: &SignIn) -> Option<PersonToken> {
        let mut header =
            HeaderValue::from_str(&format!("Bearer {}", self.access_token.expose_secret())).ok()?;
        header.set_sensitive(true);
        let [renew_from, use_until, over_from] = self.span(sign_in.storage_ttl);
        Some(PersonToken {
            header,
            version,
            renew_from,
            use_until,
            over_from,
        })
    }

    /// From when on the access token is renewed, not used unless it cannot be renewed, and not used. A configured
    /// time counts instead of the provider's; without either it is used until the server refuses it.
    fn span(&self, configured: Option<Duration>) -> [u64; 3] {
        let after = |life: u64| self.issued_at.saturating_add(life);
        let (whole, used) = match (configured, self.ends_at) {
            (Some(life), _) => (life.as_secs(), life.as_secs()),
            (None, Some(end)) => {
                let life = end.saturating_sub(self.issued_at);
                // A token that lives less than the margin is used for half its life.
                (life, life.saturating_sub(MARGIN).max(life.min(MARGIN) / 2))
            }
            (None, None) => return [u64::MAX; 3],
        };
        if !self.is_renewable() {
            return [after(whole); 3];
        }
        let lead = (used / 5).min(RENEWAL_LEAD);
        [after(used - lead), after(used), after(whole)]
    }
}

/// When the access token ends. A life of nothing is a provider's way to say that it does not say.
fn end(tokens: &TokenResponse, now: u64) -> Option<u64> {
    let life = tokens.expires_in.filter(|seconds| *seconds > 0)?;
    Some(now.saturating_add(life))
}

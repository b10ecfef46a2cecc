//! The fields of `auth_type: oauth2_token_exchange` and `oauth2_id_jag`: whose token is exchanged where, by which client,
//! for what.

use super::oauth::{auth_method, is_issuer, scopes};
use super::reader::{Reader, Section};
use super::settings::{
    AssertionAudience, Auth, ClientKey, Exchange, ExchangeClient, ExchangeProfile, MachineRequest,
    SubjectSettings, TokenEndpoint,
};
use super::yaml::Position;
use secrecy::SecretString;
use std::sync::Arc;
use url::{Origin, Url};
use vestibule_oauth::ClientAuthMethod;
use vestibule_oauth::client_assertion::AssertionKey;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::jwt::{Algorithm, ClaimRules};
use vestibule_oauth::token_exchange::{ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE};
use vestibule_oauth::token_request::ClientCredentialsRequest;

/// Fields of both.
pub(super) const SHARED_FIELDS: &[&str] = &[
    "token_exchange_endpoint",
    "subject_token_type",
    "subject_token_issuer",
    "subject_token_audience",
    "subject_token_jwks_url",
];
/// Fields of a client that proves itself with a key, which both have, and machines.
pub(super) const KEY_FIELDS: &[&str] = &[
    "client_private_key",
    "client_private_key_id",
    "client_assertion_signing_alg",
    "client_assertion_audience",
];
/// Fields of `oauth2_token_exchange` alone.
pub(super) const EXCHANGE_FIELDS: &[&str] = &[
    "token_exchange_profile",
    "actor_token",
    "actor_token_type",
    "allow_client_credentials_fallback",
];
/// Fields of `oauth2_id_jag` alone.
pub(super) const ID_JAG_FIELDS: &[&str] = &[
    "id_jag_resource_token_endpoint",
    "id_jag_resource",
    "id_jag_subject_source",
    "id_jag_resource_client_id",
    "id_jag_resource_client_secret",
];

impl Reader<'_> {
    /// RFC 8693, or Entra's on-behalf-of flow.
    pub(super) fn token_exchange(
        &mut self,
        section: &Section,
        at: Position,
        url: Option<&Url>,
    ) -> Option<Auth> {
        let entra = section.text("token_exchange_profile") == Some("entra_obo");
        if entra {
            for name in [
                "subject_token_type",
                "actor_token",
                "actor_token_type",
                "audience",
                "resource",
                "upstream_resource",
            ] {
                self.ineffective(section, name, "token_exchange_profile: entra_obo");
            }
            if section.list("scopes").is_empty() {
                let message = "token_exchange_profile: entra_obo needs scopes, which name the API that the token is for";
                self.findings.error(at, &section.path, message);
            }
        }
        let profile = if entra {
            ExchangeProfile::EntraObo
        } else {
            ExchangeProfile::Rfc8693 {
                actor: self.actor(section),
            }
        };
        let fallback = self.fallback(section, at, url);
        if section.has("token_url") && section.has("token_exchange_endpoint") && fallback.is_none() {
            let message = "has no effect beside token_exchange_endpoint, unless allow_client_credentials_fallback is true";
            self.findings
                .error(section.at("token_url"), section.path_of("token_url"), message);
        }
        let resource = self.resource(section, url);
        let exchange = self.exchange(section, at, url, ACCESS_TOKEN_TYPE)?;
        Some(Auth::Exchange(Arc::new(Exchange {
            auth_type: "oauth2_token_exchange",
            profile,
            resource,
            fallback,
            ..exchange
        })))
    }

    /// The identity assertion grant (draft-ietf-oauth-identity-assertion-authz-grant).
    pub(super) fn id_jag(&mut self, section: &Section, at: Position, url: Option<&Url>) -> Option<Auth> {
        for name in ["resource", "upstream_resource"] {
            if section.has(name) {
                let message = "has no effect with auth_type: oauth2_id_jag; the resource of the grant is id_jag_resource";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        if section.text("id_jag_subject_source") == Some("refresh_token") {
            let message = "refresh_token is not supported yet; it belongs to sign-in at the gateway itself, without which there is no refresh token to start from";
            self.findings.error(
                section.at("id_jag_subject_source"),
                section.path_of("id_jag_subject_source"),
                message,
            );
        }
        let missing: Vec<&str> = ["id_jag_resource_token_endpoint", "audience"]
            .into_iter()
            .filter(|name| !section.has(name))
            .collect();
        if !missing.is_empty() {
            let message = format!(
                "auth_type: oauth2_id_jag needs {}; audience is the issuer of the server's authorization server",
                missing.join(" and ")
            );
            self.findings.error(at, &section.path, message);
        }
        if section.has("token_url") && section.has("token_exchange_endpoint") {
            let message = "has no effect beside token_exchange_endpoint; drop one of them";
            self.findings
                .error(section.at("token_url"), section.path_of("token_url"), message);
        }
        if let Some(endpoint) = section.url("id_jag_resource_token_endpoint") {
            let name = "id_jag_resource_token_endpoint";
            self.clear_text(endpoint, "the grant", section.at(name), &section.path_of(name));
        }
        let resource = self.uri(section, "id_jag_resource", url);
        let own = self.resource_client(section);
        let exchange = self.exchange(section, at, url, ID_TOKEN_TYPE)?;
        let elsewhere = section
            .url("id_jag_resource_token_endpoint")
            .is_some_and(|endpoint| exchange.endpoint.origin().as_ref() != Some(&endpoint.origin()));
        let half = section.has("id_jag_resource_client_id") || section.has("id_jag_resource_client_secret");
        if elsewhere && !half && matches!(exchange.client, ExchangeClient::Shared(_)) {
            let message = "needs id_jag_resource_client_id and id_jag_resource_client_secret: client_secret is for the identity provider and does not go to another origin";
            let name = "id_jag_resource_token_endpoint";
            self.findings
                .error(section.at(name), section.path_of(name), message);
        }
        let client = own.unwrap_or_else(|| match &exchange.client {
            // The other authorization server has another issuer.
            ExchangeClient::Key(client) => ExchangeClient::Key(ClientKey {
                audience: AssertionAudience::TokenEndpoint,
                ..client.clone()
            }),
            shared @ ExchangeClient::Shared(_) => shared.clone(),
        });
        Some(Auth::Exchange(Arc::new(Exchange {
            auth_type: "oauth2_id_jag",
            profile: ExchangeProfile::IdJag {
                endpoint: section.url("id_jag_resource_token_endpoint")?.clone(),
                client,
            },
            resource,
            ..exchange
        })))
    }

    /// What both have.
    fn exchange(
        &mut self,
        section: &Section,
        at: Position,
        url: Option<&Url>,
        subject_token_type: &str,
    ) -> Option<Exchange> {
        self.scopes_and_url(section, url);
        for name in ["token_exchange_endpoint", "token_url"] {
            if let Some(url) = section.url(name) {
                self.clear_text(
                    url,
                    "the caller's token",
                    section.at(name),
                    &section.path_of(name),
                );
            }
        }
        let issuer = self.issuer(section, "issuer");
        let subject = self.subject(section);
        let endpoint = section
            .url("token_exchange_endpoint")
            .or_else(|| section.url("token_url"));
        let subject_issuer = subject.as_ref().map(|subject| subject.rules.issuer.clone());
        // Whose metadata would name the endpoint is who the assertion is for.
        let known_issuer = match endpoint {
            Some(_) => issuer.clone(),
            None => issuer.clone().or(subject_issuer),
        };
        let endpoint = match (endpoint, &known_issuer) {
            (Some(url), _) => Some(TokenEndpoint::Configured(url.clone())),
            (None, Some(issuer)) => Some(TokenEndpoint::OfIssuer(issuer.clone())),
            (None, None) => {
                let message = "needs token_exchange_endpoint, or issuer, whose metadata names it";
                self.findings.error(at, &section.path, message);
                None
            }
        };
        if issuer.is_some()
            && matches!(endpoint, Some(TokenEndpoint::Configured(_)))
            && !section.has("client_private_key")
        {
            let message = "has no effect beside a configured endpoint, unless client_private_key is set";
            self.findings
                .error(section.at("issuer"), section.path_of("issuer"), message);
        }
        let client = self.client(section, at, known_issuer);
        Some(Exchange {
            auth_type: "oauth2_token_exchange",
            profile: ExchangeProfile::EntraObo,
            endpoint: endpoint?,
            client: client?,
            subject_token_type: section
                .text("subject_token_type")
                .unwrap_or(subject_token_type)
                .to_owned(),
            subject,
            scopes: scopes(section),
            audience: section.text("audience").map(str::to_owned),
            resource: None,
            fallback: None,
        })
    }

    /// RFC 8693 section 2.1: neither without the other.
    fn actor(&mut self, section: &Section) -> Option<(SecretString, String)> {
        match (section.text("actor_token"), section.text("actor_token_type")) {
            (Some(token), kind) => Some((token.into(), kind.unwrap_or(ACCESS_TOKEN_TYPE).to_owned())),
            (None, Some(_)) => {
                let message = "has no effect without actor_token";
                let name = "actor_token_type";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
                None
            }
            (None, None) => None,
        }
    }

    /// The client credentials grant for callers without a token of their own.
    fn fallback(
        &mut self,
        section: &Section,
        at: Position,
        url: Option<&Url>,
    ) -> Option<(Url, MachineRequest)> {
        if !section.bool("allow_client_credentials_fallback").unwrap_or(false) {
            return None;
        }
        let missing: Vec<&str> = ["token_url", "client_id", "client_secret"]
            .into_iter()
            .filter(|name| !section.has(name))
            .collect();
        if !missing.is_empty() {
            let message = format!("allow_client_credentials_fallback needs {}", missing.join(", "));
            self.findings.error(at, &section.path, message);
            return None;
        }
        Some((
            section.url("token_url")?.clone(),
            MachineRequest {
                client: ExchangeClient::Shared(Client {
                    id: section.text("client_id")?.to_owned(),
                    secret: Some(section.text("client_secret")?.into()),
                    auth_method: auth_method(section),
                }),
                grant: ClientCredentialsRequest {
                    scopes: scopes(section),
                    audience: section.text("audience").map(str::to_owned),
                    resource: self.resource(section, url),
                },
            },
        ))
    }

    /// What the caller's token must be. An issuer without an audience would let tokens for other services in.
    fn subject(&mut self, section: &Section) -> Option<SubjectSettings> {
        let issuer = self.issuer(section, "subject_token_issuer");
        if !section.has("subject_token_issuer") {
            for name in ["subject_token_audience", "subject_token_jwks_url"] {
                if section.has(name) {
                    let message = "has no effect without subject_token_issuer";
                    self.findings
                        .error(section.at(name), section.path_of(name), message);
                }
            }
            return None;
        }
        if let Some(url) = section.url("subject_token_jwks_url") {
            let name = "subject_token_jwks_url";
            self.clear_text(
                url,
                "the keys that tokens are judged by",
                section.at(name),
                &section.path_of(name),
            );
        }
        let Some(audience) = section.text("subject_token_audience") else {
            let message = "needs subject_token_audience: a token for another service would count too";
            let name = "subject_token_issuer";
            self.findings
                .error(section.at(name), section.path_of(name), message);
            return None;
        };
        Some(SubjectSettings {
            rules: ClaimRules {
                issuer: issuer?,
                audience: audience.to_owned(),
            },
            jwks_url: section.url("subject_token_jwks_url").cloned(),
        })
    }

    /// Who the gateway is at the token endpoint. A key comes before a secret.
    pub(super) fn client(
        &mut self,
        section: &Section,
        at: Position,
        issuer: Option<String>,
    ) -> Option<ExchangeClient> {
        let id = section.text("client_id");
        if id.is_none() {
            let message = "client_id is missing; it is the gateway's own at the authorization server";
            self.findings.error(at, &section.path, message);
        }
        let Some(pem) = section.text("client_private_key") else {
            for name in [
                "client_private_key_id",
                "client_assertion_signing_alg",
                "client_assertion_audience",
            ] {
                if section.has(name) {
                    let message = "has no effect without client_private_key";
                    self.findings
                        .error(section.at(name), section.path_of(name), message);
                }
            }
            let Some(secret) = section.text("client_secret") else {
                let message = "needs client_secret or client_private_key: whoever has a person's token could exchange it otherwise";
                self.findings.error(at, &section.path, message);
                return None;
            };
            return Some(ExchangeClient::Shared(Client {
                id: id?.to_owned(),
                secret: Some(secret.into()),
                auth_method: auth_method(section),
            }));
        };
        if section.has("client_secret") && !section.bool("allow_client_credentials_fallback").unwrap_or(false)
        {
            let message = "is not used: client_private_key comes first";
            self.findings.warn(
                section.at("client_secret"),
                section.path_of("client_secret"),
                message,
            );
        }
        let algorithm = section
            .text("client_assertion_signing_alg")
            .and_then(Algorithm::from_name)
            .unwrap_or(Algorithm::Rs256);
        let key_id = section.text("client_private_key_id").map(str::to_owned);
        let key = match AssertionKey::from_pem(pem, algorithm, key_id) {
            Ok(key) => key,
            Err(fault) => {
                let name = "client_private_key";
                self.findings
                    .error(section.at(name), section.path_of(name), fault.to_string());
                return None;
            }
        };
        let audience = match (section.text("client_assertion_audience"), issuer) {
            (Some("token_endpoint"), _) | (None, None) => AssertionAudience::TokenEndpoint,
            (_, Some(issuer)) => AssertionAudience::Issuer(issuer),
            (_, None) => {
                let message = "issuer needs the field issuer";
                let name = "client_assertion_audience";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
                return None;
            }
        };
        Some(ExchangeClient::Key(ClientKey {
            id: id?.to_owned(),
            key: Arc::new(key),
            audience,
        }))
    }

    /// Who the gateway is at the server's own authorization server, where that is somebody else than before.
    fn resource_client(&mut self, section: &Section) -> Option<ExchangeClient> {
        let (id, secret) = ("id_jag_resource_client_id", "id_jag_resource_client_secret");
        match (section.text(id), section.text(secret)) {
            (Some(id), Some(secret)) => Some(ExchangeClient::Shared(Client {
                id: id.to_owned(),
                secret: Some(secret.into()),
                auth_method: auth_method(section),
            })),
            (None, None) => None,
            (given, _) => {
                let (there, missing) = if given.is_some() {
                    (id, secret)
                } else {
                    (secret, id)
                };
                self.findings.error(
                    section.at(there),
                    section.path_of(there),
                    format!("needs {missing} beside it"),
                );
                None
            }
        }
    }

    pub(super) fn issuer(&mut self, section: &Section, name: &str) -> Option<String> {
        let issuer = section.text(name)?;
        if !is_issuer(issuer) {
            let message = "takes an http or https URL without query and fragment (RFC 8414 section 2)";
            self.findings
                .error(section.at(name), section.path_of(name), message);
            return None;
        }
        if let Ok(url) = Url::parse(issuer) {
            self.clear_text(
                &url,
                "metadata and keys",
                section.at(name),
                &section.path_of(name),
            );
        }
        Some(issuer.to_owned())
    }

    fn ineffective(&mut self, section: &Section, name: &str, beside: &str) {
        if section.has(name) {
            self.findings.error(
                section.at(name),
                section.path_of(name),
                format!("has no effect with {beside}"),
            );
        }
    }
}

impl TokenEndpoint {
    /// Where the token requests go, or where the document is that says so.
    fn origin(&self) -> Option<Origin> {
        match self {
            Self::Configured(url) => Some(url.origin()),
            Self::OfIssuer(issuer) => Url::parse(issuer).ok().map(|url| url.origin()),
        }
    }
}

impl ExchangeClient {
    /// Everything that a token depends on of it.
    pub fn parts(&self) -> Vec<Vec<u8>> {
        use secrecy::ExposeSecret;
        match self {
            Self::Shared(Client {
                id,
                secret,
                auth_method,
            }) => {
                let secret = secret.as_ref().filter(|_| *auth_method != ClientAuthMethod::None);
                vec![
                    b"secret".into(),
                    id.clone().into(),
                    auth_method.name().into(),
                    secret.map_or_else(Vec::new, |secret| secret.expose_secret().into()),
                ]
            }
            Self::Key(ClientKey { id, audience, key }) => vec![
                b"key".into(),
                id.clone().into(),
                format!("{audience:?}").into(),
                key.public_key().into(),
            ],
        }
    }

    /// `client_id`.
    pub fn id(&self) -> &str {
        match self {
            Self::Shared(client) => &client.id,
            Self::Key(client) => &client.id,
        }
    }

    /// The name of how it proves itself (RFC 7591 section 2).
    pub fn auth_method(&self) -> &'static str {
        match self {
            Self::Shared(client) => client.auth_method.name(),
            Self::Key(_) => "private_key_jwt",
        }
    }
}

#[cfg(test)]
mod tests;

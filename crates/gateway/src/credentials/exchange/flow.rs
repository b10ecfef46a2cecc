//! What is said to the authorization server: one token request, or the two of the identity assertion grant. The
//! answer is judged here; who has to mend a refusal is decided here.

use super::issuer::IssuerDocuments;
use super::{Door, SEARCHED};
use crate::clock::Clock;
use crate::config::{Exchange, ExchangeClient, ExchangeProfile, TokenEndpoint};
use crate::credentials::client_proof::proof;
use crate::net::guarded::{Guarded, GuardedFault};
use crate::net::token_endpoint::{TokenAnswer, TokenClient, TokenFault};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::Arc;
use url::Url;
use vestibule_oauth::token_exchange::{ExchangeRequest, ID_JAG_TYPE, JwtBearerRequest, claims_challenge};
use vestibule_oauth::token_response::{Issued, parse_id_jag};
use vestibule_oauth::{EncodedTokenRequest, ErrorResponse, TokenResponse, TokenResponseFault};

/// Codes of RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 8707 section 2 and `OpenID` Connect Core 1.0 section
/// 3.1.2.6. Another one is not repeated: it could be anything.
const KNOWN_ERRORS: [&str; 13] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "consent_required",
];
const UNKNOWN_ERROR: &str = "an unregistered error";

/// One server's exchange, without what is kept of it.
pub(super) struct Flow {
    pub(super) server: String,
    pub(super) settings: Arc<Exchange>,
    /// Where the token endpoint is looked up, unless it is configured.
    pub(super) endpoint: Option<Arc<IssuerDocuments>>,
    pub(super) client: TokenClient,
    pub(super) guarded: Guarded,
    pub(super) clock: Clock,
}

/// Which request it is that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// RFC 8693.
    Exchange,
    /// Entra's on-behalf-of flow.
    OnBehalfOf,
    /// A grant of the identity provider's at the server's own authorization server.
    Redemption,
}

impl Flow {
    /// A token for the server, in place of `subject`.
    pub(super) async fn token(&self, subject: &SecretString) -> Result<TokenResponse, TokenFault> {
        let settings = &self.settings;
        let door = self.door().await?;
        let proof = proof(&settings.client, door.url(), &self.clock)?;
        // A provider that hands back what it was sent would have it sent to the server.
        let response = match &settings.profile {
            ExchangeProfile::Rfc8693 { actor } => {
                let request = ExchangeRequest {
                    actor: actor.as_ref().map(|(token, kind)| (token, kind.as_str())),
                    ..self.exchange(subject)
                };
                let answer = self.post(&door, &request.encode(&proof)).await?;
                let secrets = request.sent_secrets(&proof);
                access_token(Leg::Exchange, &answer, &secrets)?
            }
            ExchangeProfile::EntraObo => {
                let request = JwtBearerRequest {
                    assertion: subject,
                    scopes: &settings.scopes,
                    on_behalf_of: true,
                };
                let answer = self.post(&door, &request.encode(&proof)).await?;
                let secrets = request.sent_secrets(&proof);
                access_token(Leg::OnBehalfOf, &answer, &secrets)?
            }
            ExchangeProfile::IdJag { endpoint, client } => {
                let request = ExchangeRequest {
                    requested_token_type: Some(ID_JAG_TYPE),
                    ..self.exchange(subject)
                };
                let answer = self.post(&door, &request.encode(&proof)).await?;
                let secrets = request.sent_secrets(&proof);
                let grant = judged(Leg::Exchange, &answer, &secrets, |secrets| {
                    parse_id_jag(
                        answer.status,
                        answer.content_type.as_deref(),
                        &answer.body,
                        secrets,
                    )
                })?;
                not_what_was_sent(&grant, &secrets)?;
                let response = self.redeem(&grant, endpoint, client).await?;
                not_what_was_sent(response.access_token.secret(), &secrets)?;
                response
            }
        };
        self.note_scope(&response);
        Ok(response)
    }

    /// The second leg: the identity provider's grant for the server's access token.
    pub(super) async fn redeem(
        &self,
        grant: &SecretString,
        endpoint: &Url,
        client: &ExchangeClient,
    ) -> Result<TokenResponse, TokenFault> {
        let proof = proof(client, endpoint, &self.clock)?;
        let request = JwtBearerRequest {
            assertion: grant,
            scopes: &self.settings.scopes,
            on_behalf_of: false,
        };
        let answer = self.client.post(endpoint, &request.encode(&proof)).await?;
        access_token(Leg::Redemption, &answer, &request.sent_secrets(&proof))
    }

    fn exchange<'r>(&'r self, subject: &'r SecretString) -> ExchangeRequest<'r> {
        ExchangeRequest {
            subject_token: subject,
            subject_token_type: &self.settings.subject_token_type,
            requested_token_type: None,
            actor: None,
            audience: self.settings.audience.as_deref(),
            resource: self.settings.resource.as_deref(),
            scopes: &self.settings.scopes,
        }
    }

    pub(super) async fn door(&self) -> Result<Door, TokenFault> {
        match (&self.settings.endpoint, &self.endpoint) {
            (TokenEndpoint::Configured(url), _) => Ok(Door::Configured(url.clone())),
            (TokenEndpoint::OfIssuer(issuer), Some(documents)) => {
                let found = documents.current().await;
                let found = found.map_err(|error| TokenFault::Undiscovered(error.to_string()))?;
                let (url, reach) = found.token_endpoint.clone().ok_or_else(|| {
                    TokenFault::Undiscovered(format!("the metadata of {issuer} names no token endpoint"))
                })?;
                Ok(Door::Learned(url, reach))
            }
            (TokenEndpoint::OfIssuer(issuer), None) => Err(TokenFault::Undiscovered(format!(
                "nobody looks for the metadata of {issuer}"
            ))),
        }
    }

    async fn post(&self, door: &Door, encoded: &EncodedTokenRequest) -> Result<TokenAnswer, TokenFault> {
        match door {
            Door::Configured(url) => self.client.post(url, encoded).await,
            Door::Learned(url, reach) => {
                let answer = self.guarded.post_form(url, encoded, reach).await.map_err(fault)?;
                Ok(TokenAnswer {
                    status: answer.status,
                    content_type: answer.content_type,
                    body: answer.body,
                })
            }
        }
    }

    /// Fewer scopes than were asked for are allowed (RFC 6749 section 3.3), and the first thing to look at when a
    /// call is then refused. `…/.default` stands for whatever was granted.
    fn note_scope(&self, response: &TokenResponse) {
        let Some(granted) = &response.scope else { return };
        let missing: Vec<&str> = self
            .settings
            .scopes
            .iter()
            .map(String::as_str)
            .filter(|wanted| !wanted.ends_with("/.default") && !granted.split(' ').any(|got| got == *wanted))
            .collect();
        if !missing.is_empty() {
            tracing::warn!(server = %self.server, missing = missing.join(" "), "the exchanged token has fewer scopes than were asked for");
        }
    }
}

impl Door {
    pub(super) fn url(&self) -> &Url {
        match self {
            Self::Configured(url) | Self::Learned(url, _) => url,
        }
    }
}

fn access_token(
    leg: Leg,
    answer: &TokenAnswer,
    secrets: &[SecretString],
) -> Result<TokenResponse, TokenFault> {
    let issued = match leg {
        Leg::Exchange => Issued::AccessToken,
        Leg::OnBehalfOf | Leg::Redemption => Issued::Unsaid,
    };
    let response = judged(leg, answer, secrets, |secrets| {
        let content_type = answer.content_type.as_deref();
        TokenResponse::parse_exchange(answer.status, content_type, &answer.body, secrets, issued)
    })?;
    not_what_was_sent(response.access_token.secret(), secrets)?;
    Ok(response)
}

fn judged<T>(
    leg: Leg,
    answer: &TokenAnswer,
    secrets: &[SecretString],
    parse: impl FnOnce(&[&str]) -> Result<T, TokenResponseFault>,
) -> Result<T, TokenFault> {
    let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    parse(&secrets).map_err(|fault| match fault {
        TokenResponseFault::Refused(said) => refusal(leg, answer, &said),
        fault => TokenFault::Response(fault),
    })
}

/// A refusal because of the subject token is the caller's to mend; every other one is the operator's. Of what was said
/// only a registered code is kept.
fn refusal(leg: Leg, answer: &TokenAnswer, said: &ErrorResponse) -> TokenFault {
    let error = KNOWN_ERRORS.into_iter().find(|known| *known == said.error);
    let subjects = match (leg, error) {
        // RFC 8693 section 2.2.2 has invalid_request for a subject token that is not accepted.
        (Leg::Exchange, Some("invalid_grant" | "invalid_request" | "interaction_required" | "login_required" | "consent_required"))
        // In a JWT bearer grant invalid_request is about the request itself (RFC 7523 section 3.1).
        | (Leg::OnBehalfOf, Some("invalid_grant" | "interaction_required" | "login_required" | "consent_required")) => true,
        // The grant was made a moment ago: that it is not accepted is between the two authorization servers.
        _ => false,
    };
    match error {
        Some(error) if subjects && answer.status < 500 => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            TokenFault::Subject {
                error,
                claims: claims_challenge(&body).filter(|_| leg == Leg::OnBehalfOf),
            }
        }
        error => TokenFault::Response(TokenResponseFault::Refused(ErrorResponse {
            error: error.unwrap_or(UNKNOWN_ERROR).to_owned(),
            description: None,
        })),
    }
}

/// An answer that holds what was sent is not a token for somebody else's eyes. A secret that is too short to be told
/// from other text has to be all of it.
fn not_what_was_sent(token: &SecretString, sent: &[SecretString]) -> Result<(), TokenFault> {
    let token = token.expose_secret();
    let repeats = |sent: &SecretString| {
        let sent = sent.expose_secret();
        token == sent || sent.len() >= SEARCHED && token.contains(sent)
    };
    if sent.iter().any(repeats) {
        return Err(TokenFault::Response(TokenResponseFault::UnusableToken));
    }
    Ok(())
}

fn fault(fault: GuardedFault) -> TokenFault {
    match fault {
        GuardedFault::Timeout => TokenFault::Timeout,
        GuardedFault::TooLarge => TokenFault::TooLarge,
        GuardedFault::Truncated => TokenFault::Truncated,
        GuardedFault::Redirected(status) => TokenFault::Response(TokenResponseFault::Redirect(status)),
        GuardedFault::Unreachable(why) => TokenFault::Unreachable(why),
        GuardedFault::BadUrl | GuardedFault::NotAllowed => TokenFault::Unreachable(fault.to_string()),
    }
}

//! What is said to a provider for a person: a code or refresh token exchanged, a token revoked; and what each
//! failure means.

use super::Parts;
use super::grant::Grant;
use crate::audit::{Kind, Step, Trace};
use crate::issuer::upstream::{UpstreamConfig, UpstreamEndpoints};
use crate::net::guarded::{Guarded, GuardedFault};
use crate::web::error::shown;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use vestibule_oauth::error::{OAuthError, OAuthErrorCode};
use vestibule_oauth::token_request::{EncodedTokenRequest, RevocationRequest};
use vestibule_oauth::{TokenResponse, TokenResponseFault};
use vestibule_store::{AuditEntry, UserId};

/// Why an exchange gave no tokens. Nothing of it holds a secret or a body.
#[derive(Debug, Clone, Error)]
pub enum ExchangeFault {
    /// No answer.
    #[error("the token endpoint: {0}")]
    Unanswered(#[from] GuardedFault),
    /// An answer without tokens.
    #[error("{0}")]
    Answered(#[from] TokenResponseFault),
    /// Tokens that break the operator's rules.
    #[error("the new token breaks a rule of token_validation: {0}")]
    Rule(String),
    /// The server's authorization server is another one than the one that issued what is kept.
    #[error("the tokens were issued by another authorization server")]
    AnotherAuthority,
    /// The server is elsewhere than when the person agreed to it.
    #[error("the server was moved while its authorization server was asked; sign in again")]
    Moved,
    /// Where people sign in could not be found.
    #[error("{0}")]
    NoEndpoints(String),
}

impl ExchangeFault {
    /// `error` of the provider's answer (RFC 6749 section 5.2).
    fn code(&self) -> Option<&str> {
        match self {
            Self::Answered(TokenResponseFault::Refused(said)) => Some(&said.error),
            _ => None,
        }
    }

    /// The provider does not know our client (any more).
    pub fn is_unknown_client(&self) -> bool {
        self.code() == Some("invalid_client")
    }

    /// The grant has ended: no later try brings it back (RFC 6749 section 5.2, or a provider's own word for the same),
    /// or what came of it may not be used and the refresh token is spent. A time-out, a 5xx or any other code says
    /// nothing about the grant.
    pub fn ends_the_grant(&self) -> bool {
        // GitHub's, and Slack's.
        const ENDED: [&str; 5] = [
            "invalid_grant",
            "bad_refresh_token",
            "invalid_refresh_token",
            "token_expired",
            "token_revoked",
        ];
        matches!(self, Self::Rule(_)) || self.code().is_some_and(|code| ENDED.contains(&code))
    }

    /// The provider refuses to renew, as far as its word goes for good: once the access token is over, only a person
    /// gets another one.
    pub fn needs_a_sign_in(&self) -> bool {
        const FOR_GOOD: [&str; 6] = [
            "invalid_request",
            "unauthorized_client",
            "unsupported_grant_type",
            "invalid_scope",
            "invalid_target",
            "access_denied",
        ];
        matches!(self, Self::AnotherAuthority) || self.code().is_some_and(|code| FOR_GOOD.contains(&code))
    }

    /// The error that a client sees: the provider's for what is the client's own, the gateway's for the rest. The
    /// provider's code decides, not its status.
    pub fn for_client(&self, server: &str) -> OAuthError {
        let ours = |code, text: &str| OAuthError::new(code, format!("{server}: {text}"));
        match self {
            Self::Answered(TokenResponseFault::Refused(said)) => {
                let code = match said.error.as_str() {
                    "invalid_request" => OAuthErrorCode::InvalidRequest,
                    "invalid_scope" => OAuthErrorCode::InvalidScope,
                    "access_denied" => OAuthErrorCode::AccessDenied,
                    "temporarily_unavailable" | "slow_down" => OAuthErrorCode::TemporarilyUnavailable,
                    "server_error" => OAuthErrorCode::ServerError,
                    "unsupported_grant_type" => OAuthErrorCode::UnsupportedGrantType,
                    "invalid_target" => {
                        let text = "the authorization server refuses the resource that the gateway asks for; whoever runs the gateway has to check resource and send_resource";
                        return ours(OAuthErrorCode::ServerError, text);
                    }
                    "invalid_client" | "unauthorized_client" => {
                        let text = "the authorization server refuses the gateway's own client; whoever runs the gateway has to check client_id, client_secret and token_endpoint_auth_method";
                        return ours(OAuthErrorCode::ServerError, text);
                    }
                    // A code of the provider's own (GitHub: bad_verification_code) is about what the client sent.
                    _ => OAuthErrorCode::InvalidGrant,
                };
                let said = match &said.description {
                    Some(description) => format!("{}: {description}", said.error),
                    None => said.error.clone(),
                };
                OAuthError::new(code, said)
            }
            Self::Moved => ours(OAuthErrorCode::InvalidGrant, &self.to_string()),
            Self::Unanswered(GuardedFault::Timeout) | Self::NoEndpoints(_) => {
                ours(OAuthErrorCode::TemporarilyUnavailable, &self.to_string())
            }
            _ => ours(OAuthErrorCode::ServerError, &self.to_string()),
        }
    }
}

/// One POST to the token endpoint; `secrets` never come back in a description.
pub(super) async fn exchange(
    guarded: &Guarded,
    endpoints: &UpstreamEndpoints,
    request: &EncodedTokenRequest,
    secrets: &[SecretString],
) -> Result<TokenResponse, ExchangeFault> {
    let answer = guarded
        .post_form(&endpoints.token_url, request, &endpoints.reach)
        .await?;
    let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    Ok(TokenResponse::parse_interactive(
        answer.status,
        answer.content_type.as_deref(),
        &answer.body,
        &secrets,
    )?)
}

/// As much of a description as a row has.
const DESCRIBED: usize = 500;

/// What a step came to that did not succeed.
pub(super) struct Failure<'f> {
    error: &'f str,
    description: &'f str,
}

impl Parts {
    /// Records a step that nobody's request was waiting for.
    pub(super) fn record(
        &self,
        step: &str,
        grant: &Grant,
        user: &UserId,
        server: &str,
        failure: Option<&Failure<'_>>,
    ) {
        let (outcome, description) = match failure {
            None => ("ok", None),
            Some(failure) => (failure.error, Some(shown(failure.description, DESCRIBED))),
        };
        let trace = Trace {
            sign_in: Some(Step {
                step: step.to_owned(),
                description,
                ..Step::default()
            }),
            ..Trace::default()
        };
        self.audit.record(AuditEntry {
            kind: Kind::SignIn.name().to_owned(),
            user_id: Some(user.as_str().to_owned()),
            server: Some(server.to_owned()),
            outcome: Some(shown(outcome, DESCRIBED)),
            flow: grant.flow().map(str::to_owned),
            trace: serde_json::to_string(&trace).ok(),
            ..AuditEntry::default()
        });
    }

    /// Records what a renewal came to.
    pub(super) fn record_renewal(
        &self,
        grant: &Grant,
        user: &UserId,
        server: &str,
        fault: Option<&ExchangeFault>,
    ) {
        let description = fault.map(ToString::to_string).unwrap_or_default();
        let failure = fault.map(|fault| Failure {
            error: fault.code().unwrap_or("renewal_failed"),
            description: &description,
        });
        self.record("renewal", grant, user, server, failure.as_ref());
    }

    /// Tells the provider that a grant is over (RFC 7009), where it can be told.
    pub(super) async fn revoke(&self, upstream: &UpstreamConfig, user: &UserId, grant: &Grant) {
        let told = self.tell_of_the_end(upstream, grant).await;
        let failure = told.as_ref().err().map(|description| Failure {
            error: "not_revoked",
            description,
        });
        self.record("revocation", grant, user, &upstream.name, failure.as_ref());
    }

    async fn tell_of_the_end(&self, upstream: &UpstreamConfig, grant: &Grant) -> Result<(), String> {
        if grant.authority().is_empty() {
            return Err(
                "The token was brought by hand, and it is not known where it could be revoked; it is forgotten here.".to_owned(),
            );
        }
        let endpoints = self.discovery.endpoints(upstream).await;
        let endpoints = endpoints.map_err(|error| error.to_string())?;
        if endpoints.authority() != grant.authority() {
            return Err(ExchangeFault::AnotherAuthority.to_string());
        }
        let Some(url) = &endpoints.revocation_url else {
            return Err(
                "The authorization server takes no revocations; the tokens are forgotten here.".to_owned(),
            );
        };
        if !upstream.may_be_told_at(url, grant.authority()) {
            return Err(
                "The revocation endpoint is not at the origin of the authorization server that issued the tokens; they are forgotten here.".to_owned(),
            );
        }
        let (client, token, hint) = grant.revocable();
        let request = RevocationRequest {
            client: client.clone(),
            token: token.clone(),
            token_type_hint: hint,
        };
        match self
            .guarded
            .post_form(url, &request.encode(), &endpoints.reach)
            .await
        {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => {
                tracing::warn!(
                    server = upstream.name,
                    status = answer.status,
                    "a revocation was refused"
                );
                Err(format!(
                    "The authorization server answered with status {}.",
                    answer.status
                ))
            }
            Err(fault) => {
                tracing::warn!(server = upstream.name, %fault, "a revocation did not reach the authorization server");
                Err(fault.to_string())
            }
        }
    }
}

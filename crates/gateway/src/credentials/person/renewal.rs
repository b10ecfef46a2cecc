//! What is said to a provider for a person: a code or refresh token exchanged, a token revoked; and what each
//! failure means.

use super::Parts;
use super::grant::Grant;
use crate::issuer::upstream::{UpstreamConfig, UpstreamEndpoints};
use crate::net::guarded::{Guarded, GuardedFault};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use vestibule_oauth::error::{OAuthError, OAuthErrorCode};
use vestibule_oauth::token_request::{EncodedTokenRequest, RevocationRequest};
use vestibule_oauth::{TokenResponse, TokenResponseFault};

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
    /// Where people sign in could not be found.
    #[error("{0}")]
    NoEndpoints(String),
}

impl ExchangeFault {
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

impl Parts {
    /// Tells the provider that a grant is over (RFC 7009), where it can be told.
    pub(super) async fn revoke(&self, upstream: &UpstreamConfig, grant: &Grant) {
        let Ok(endpoints) = self.discovery.endpoints(upstream).await else {
            return;
        };
        let Some(url) = &endpoints.revocation_url else {
            return;
        };
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
            Ok(answer) if (200..300).contains(&answer.status) => {}
            Ok(answer) => {
                tracing::warn!(
                    server = upstream.name,
                    status = answer.status,
                    "a revocation was refused"
                );
            }
            Err(fault) => {
                tracing::warn!(server = upstream.name, %fault, "a revocation did not reach the authorization server");
            }
        }
    }
}

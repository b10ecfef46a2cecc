//! A message on a person's behalf: the caller's token is exchanged, and the server sees what came of it. A caller
//! without one is challenged, whatever the message is.

use super::forward::{Answer, Bearer, Call, no_token};
use crate::config::fields::REALM;
use crate::credentials::CredentialSource;
use crate::credentials::exchange::{Exchanger, SubjectFault, SubjectToken};
use crate::credentials::per_request::PerRequest;
use crate::diagnosis::AuthResolution;
use crate::net::token_endpoint::TokenFault;
use crate::web::error::{ErrorCode, Refusal, Wanted};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use vestibule_oauth::jwt::JwtFault;

impl Call<'_> {
    /// With the token that the caller's own was exchanged for, or with the machine's where the operator allows that for
    /// callers that bring none.
    pub(super) async fn on_behalf(
        &self,
        exchange: &Exchanger,
        brought: &PerRequest,
    ) -> Result<Answer, Refusal> {
        let Some(authorization) = self.subject_value(brought) else {
            let Some(slot) = &exchange.fallback else {
                return Err(self.challenge(exchange, Refusal::new(ErrorCode::SubjectTokenRequired), None));
            };
            if self.has_callers_authorization() {
                return Err(self.challenge(exchange, self.not_the_machine(), None));
            }
            let answer = self.with_token(slot, brought, no_token).await?;
            return Ok(Answer {
                resolution: AuthResolution::MachineToken,
                ..answer
            });
        };
        let slot = match SubjectToken::of(&authorization) {
            Some(subject) => exchange.slot(&subject, &self.admission.principal).await,
            None => Err(SubjectFault::Refused(JwtFault::NotAJwt)),
        };
        let slot = slot.map_err(|fault| self.not_exchanged(exchange, &fault))?;
        self.with_token(&slot, brought, |error| match &error.fault {
            TokenFault::Subject { claims, .. } => {
                let message = format!("No token on the caller's behalf: {}.", error.fault);
                let code = match claims {
                    Some(_) => ErrorCode::InsufficientClaims,
                    None => ErrorCode::SubjectTokenRefused,
                };
                self.challenge(exchange, Refusal::because(code, message), claims.as_deref())
            }
            _ => no_token(error),
        })
        .await
    }

    /// Where the caller's token stands: in the header that names this server, else in `Authorization`.
    fn subject_value(&self, brought: &PerRequest) -> Option<HeaderValue> {
        let named = brought.subject().cloned();
        named.or_else(|| self.own_credential().map(|credential| credential.value))
    }

    /// Whether `Authorization` holds something of the caller's own, for this server or not.
    fn has_callers_authorization(&self) -> bool {
        let gate = &self.worker.app.gate;
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        values.any(|value| !value.is_empty() && !gate.carries_key(self.admission, value))
    }

    /// Whoever brings a token of their own does not act as the machine, whatever keeps the token from being exchanged.
    fn not_the_machine(&self) -> Refusal {
        match self.bearer {
            Bearer::ForThisServer | Bearer::ForTheOnlyTaker => Refusal::new(ErrorCode::SubjectTokenRequired),
            Bearer::Withheld => Refusal::because(
                ErrorCode::AmbiguousAuthorization,
                format!(
                    "The Authorization of the request is not for {} alone, so it did not get it.",
                    self.server.name
                ),
            ),
        }
    }

    /// The token that is to be exchanged, where this server's are.
    pub(super) fn subject_token(&self) -> Option<SubjectToken> {
        match self.server.credential {
            CredentialSource::OnBehalf(_) => SubjectToken::of(&self.subject_value(&self.brought().ok()?)?),
            _ => None,
        }
    }

    /// The refusal of a session id that does not open. A caller that brings no token where one is needed is told that
    /// first: a new session would not help it.
    pub(super) fn unknown_session(&self) -> Refusal {
        match &self.server.credential {
            CredentialSource::OnBehalf(exchange)
                if exchange.fallback.is_none() && self.subject_token().is_none() =>
            {
                self.challenge(exchange, Refusal::new(ErrorCode::SubjectTokenRequired), None)
            }
            _ => Refusal::new(ErrorCode::UnknownSession),
        }
    }

    fn not_exchanged(&self, exchange: &Exchanger, fault: &SubjectFault) -> Refusal {
        match fault {
            SubjectFault::Refused(_) => {
                let refusal = Refusal::because(ErrorCode::SubjectTokenRefused, fault.to_string());
                self.challenge(exchange, refusal, None)
            }
            SubjectFault::Undecided(error) => {
                let mut refusal = Refusal::because(ErrorCode::SubjectKeysUnavailable, fault.to_string());
                refusal.retry_after = Some(error.retry_after);
                refusal
            }
        }
    }

    /// With a challenge (RFC 6750 section 3). It names metadata where there is some: without a configured issuer nobody
    /// here knows where the caller's tokens come from.
    fn challenge(&self, exchange: &Exchanger, refusal: Refusal, claims: Option<&str>) -> Refusal {
        let error = match refusal.code {
            ErrorCode::SubjectTokenRequired | ErrorCode::AmbiguousAuthorization => None,
            ErrorCode::InsufficientClaims => Some("insufficient_claims"),
            _ => Some("invalid_token"),
        };
        refusal.with_sign_in(Wanted {
            server: self.server.name.clone(),
            error,
            claims: claims.map(|claims| BASE64_STANDARD.encode(claims)),
            realm: Some(REALM),
            undocumented: exchange.subject_issuer().is_none(),
            ..Wanted::default()
        })
    }
}

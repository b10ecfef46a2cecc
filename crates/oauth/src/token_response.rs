//! The answer of a token endpoint (RFC 6749 sections 5.1 and 5.2), judged before any of it is used. What
//! odd providers send is read for the grants that a person takes part in; a machine's grant is strict.

mod document;

use crate::error::ErrorResponse;
use crate::token_exchange::{ACCESS_TOKEN_TYPE, ID_JAG_TYPE, JWT_TYPE};
pub use document::TokenDocument;
use secrecy::SecretString;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// The longest access token that is accepted, in bytes. It has to fit in a header that servers take.
pub const ACCESS_TOKEN_LIMIT: usize = 16 * 1024;

/// The longest lifetime that is believed.
pub const LIFETIME_LIMIT: Duration = Duration::from_hours(24);

/// An access token whose characters are safe in a header: `1*VCHAR` (RFC 6749 appendix A.12).
#[derive(Debug, Clone)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// The token itself.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

/// What `expires_in` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Seconds from now, at most [`LIFETIME_LIMIT`]. Zero when the token is past already.
    Known(Duration),
    /// Absent, or nothing that is a number.
    Unknown,
}

/// A usable answer.
#[derive(Debug, Clone)]
pub struct TokenResponse {
    /// `access_token`.
    pub access_token: AccessToken,
    /// `expires_in`, for use.
    pub lifetime: Lifetime,
    /// `expires_in` in whole seconds, for repeating; `None` when it was absent or no number.
    pub expires_in: Option<u64>,
    /// `token_type` as sent; `Bearer` when it was absent.
    pub token_type: String,
    /// `refresh_token`.
    pub refresh_token: Option<SecretString>,
    /// `scope` as sent.
    pub scope: Option<String>,
    /// The whole answer, for validation.
    pub document: TokenDocument,
}

/// Why an answer is not usable. None of the variants carries the body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenResponseFault {
    /// The server refused and said why.
    #[error("the authorization server refused: {}{}", .0.error, .0.description.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused(ErrorResponse),
    /// A redirect. It is not followed: the request carries a secret.
    #[error("the token endpoint answered with a redirect ({0}), which is not followed")]
    Redirect(u16),
    /// An error status without RFC 6749 error fields.
    #[error("the token endpoint answered {status} with {content_type}, and no OAuth error in it")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The media type, for the reader.
        content_type: String,
    },
    /// Success, but not a JSON object that RFC 6749 knows.
    #[error("the token endpoint answered {status} with {content_type} that is no token response")]
    NotATokenResponse {
        /// The HTTP status.
        status: u16,
        /// The media type, for the reader.
        content_type: String,
    },
    /// `access_token` is missing, empty, too long, or holds characters that no header may carry.
    #[error("the token response has no usable access_token")]
    UnusableToken,
    /// A token type other than Bearer.
    #[error("the token response has a token_type other than Bearer")]
    UnsupportedTokenType,
    /// `issued_token_type` is missing or names something else than what was asked for (RFC 8693 section 2.2.1).
    #[error("the token response does not say that it issued {0}")]
    IssuedType(&'static str),
}

/// What a token exchange has to have issued (RFC 8693 section 2.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    /// An access token, said in so many words.
    AccessToken,
    /// An access token. A grant other than RFC 8693's does not say so; one that says something else is refused.
    Unsaid,
}

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// A JSON object with a Bearer token.
    Strict,
    /// Also a form-encoded body, Slack's token types, and its token within `authed_user`.
    Tolerant,
}

/// `token_type` values that mean Bearer: the RFC's, and those of Slack for the grants of a person.
const BEARER: &str = "Bearer";
const LIKE_BEARER: [&str; 2] = ["user", "bot"];

impl TokenResponse {
    /// Judges the answer to a client credentials grant by its status and body; `content_type` is only
    /// repeated to the reader. `secrets` never come back in a description.
    ///
    /// A missing `token_type` is read as Bearer: the field is required, and left out by providers in use.
    pub fn parse(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        secrets: &[&str],
    ) -> Result<Self, TokenResponseFault> {
        judge(status, content_type, body, secrets, Manners::Strict)
    }

    /// Judges the answer to a code's exchange or a refresh like [`TokenResponse::parse`]. Beyond that the
    /// body may be form-encoded (GitHub's default), `token_type` may be `user` or `bot`, and where there is
    /// no `access_token` the one within `authed_user` counts, with what stands beside it (Slack).
    pub fn parse_interactive(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        secrets: &[&str],
    ) -> Result<Self, TokenResponseFault> {
        judge(status, content_type, body, secrets, Manners::Tolerant)
    }

    /// Judges the answer to a token exchange or a JWT bearer grant like [`TokenResponse::parse`], and whether an access
    /// token is what was issued (RFC 8693 section 2.2.1).
    pub fn parse_exchange(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        secrets: &[&str],
        issued: Issued,
    ) -> Result<Self, TokenResponseFault> {
        let response = judge(status, content_type, body, secrets, Manners::Strict)?;
        let kind = response.document.value().get("issued_token_type");
        let named = kind.is_some_and(|kind| kind == ACCESS_TOKEN_TYPE || kind == JWT_TYPE);
        if named || issued == Issued::Unsaid && kind.is_none_or(Value::is_null) {
            Ok(response)
        } else {
            Err(TokenResponseFault::IssuedType("an access token"))
        }
    }
}

/// Judges the answer to a request for an identity assertion authorization grant: `issued_token_type` and `token_type`
/// have to say that it is one (draft-ietf-oauth-identity-assertion-authz-grant section 4.3.3).
pub fn parse_id_jag(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    secrets: &[&str],
) -> Result<SecretString, TokenResponseFault> {
    let document = read(status, content_type, body, secrets, Manners::Strict)?;
    let fields = document.value();
    if text(fields, "issued_token_type") != Some(ID_JAG_TYPE) {
        return Err(TokenResponseFault::IssuedType("an identity assertion grant"));
    }
    if !text(fields, "token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("N_A")) {
        return Err(TokenResponseFault::UnsupportedTokenType);
    }
    let grant = text(fields, "access_token").filter(|grant| is_token(grant));
    grant
        .map(SecretString::from)
        .ok_or(TokenResponseFault::UnusableToken)
}

/// The members of a success; everything else is a fault.
fn read(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    secrets: &[&str],
    manners: Manners,
) -> Result<TokenDocument, TokenResponseFault> {
    if (300..400).contains(&status) {
        return Err(TokenResponseFault::Redirect(status));
    }
    let content_type = media_type(content_type);
    let form = manners == Manners::Tolerant && content_type == "application/x-www-form-urlencoded";
    let document = TokenDocument::from_json(body).or_else(|| TokenDocument::from_form(body).filter(|_| form));
    let field = |name| {
        document
            .as_ref()
            .and_then(|document| document.value().get(name)?.as_str())
    };
    let refusal = match field("error") {
        Some(error) => ErrorResponse::from_fields(error, field("error_description"), secrets),
        None => ErrorResponse::parse(body, secrets),
    };
    if let Some(refusal) = refusal
        && !(manners == Manners::Tolerant && status >= 500 && !is_registered(&refusal.error))
    {
        return Err(TokenResponseFault::Refused(refusal));
    }
    if !(200..300).contains(&status) {
        return Err(TokenResponseFault::Status { status, content_type });
    }
    document.ok_or(TokenResponseFault::NotATokenResponse { status, content_type })
}

fn judge(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    secrets: &[&str],
    manners: Manners,
) -> Result<TokenResponse, TokenResponseFault> {
    let document = read(status, content_type, body, secrets, manners)?;
    let fields = match manners {
        Manners::Strict => document.value(),
        Manners::Tolerant => document.around_the_token(),
    };
    let token_type = text(fields, "token_type").unwrap_or(BEARER);
    let like_bearer = manners == Manners::Tolerant && LIKE_BEARER.contains(&token_type);
    if !(token_type.eq_ignore_ascii_case(BEARER) || like_bearer)
        || fields
            .get("token_type")
            .is_some_and(|kind| !kind.is_string() && !kind.is_null())
    {
        return Err(TokenResponseFault::UnsupportedTokenType);
    }
    let token = text(fields, "access_token").filter(|token| is_token(token));
    let token = token.ok_or(TokenResponseFault::UnusableToken)?;
    let refresh_token = text(fields, "refresh_token").filter(|token| is_token(token));
    let seconds = fields.get("expires_in").and_then(seconds);
    Ok(TokenResponse {
        access_token: AccessToken(token.into()),
        lifetime: seconds.map_or(Lifetime::Unknown, |s| Lifetime::Known(s.min(LIFETIME_LIMIT))),
        expires_in: seconds.map(|s| s.as_secs()),
        token_type: token_type.to_owned(),
        refresh_token: refresh_token.map(SecretString::from),
        scope: text(fields, "scope")
            .filter(|scope| is_printable(scope))
            .map(str::to_owned),
        document,
    })
}

/// A failing server's own code says nothing about the grant; the RFC's do whatever the status (RFC 6749 section 5.2
/// and 4.1.2.1, RFC 8707 section 2).
fn is_registered(error: &str) -> bool {
    matches!(
        error,
        "invalid_request"
            | "invalid_client"
            | "invalid_grant"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"
            | "access_denied"
            | "server_error"
            | "temporarily_unavailable"
            | "slow_down"
    )
}

fn text<'a>(fields: &'a Value, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// `1*VCHAR`, not longer than [`ACCESS_TOKEN_LIMIT`].
fn is_token(token: &str) -> bool {
    (1..=ACCESS_TOKEN_LIMIT).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

fn is_printable(scope: &str) -> bool {
    (1..=ACCESS_TOKEN_LIMIT).contains(&scope.len()) && scope.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Reads `expires_in`: a JSON number, or text that is one. A fraction counts down, what is negative is
/// past, what is huge is cut.
fn seconds(value: &Value) -> Option<Duration> {
    /// Some thousand years; more is not a lifetime but a mistake.
    const MOST: f64 = 1e11;
    let seconds: f64 = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (!seconds.is_nan()).then(|| Duration::from_secs_f64(seconds.floor().clamp(0.0, MOST)))
}

/// The media type alone, shortened, or "no content type".
pub(crate) fn media_type(content_type: Option<&str>) -> String {
    let name = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim)
        .unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(60).collect();
    if name.is_empty() {
        "no content type".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests;

//! The error response of a token or registration endpoint (RFC 6749 section 5.2, RFC 7591 section 3.2.2):
//! an upstream's, read for its registered fields only, and our own, written.

use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// The longest `error_description` that is kept, in characters.
const DESCRIPTION_LIMIT: usize = 300;

/// What an authorization server said when it refused. Both fields hold only characters that RFC 6749
/// allows there, so they can be shown and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// `error`, one of the registered codes or an extension's.
    pub error: String,
    /// `error_description`, shortened.
    pub description: Option<String>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
    #[serde(borrow, default)]
    error_description: Option<Cow<'a, str>>,
}

impl ErrorResponse {
    /// Reads a body. `None` when it is not JSON or has no usable `error`.
    /// `secrets` are values that must not come back in the description: a server that echoes one gets
    /// its whole description dropped.
    pub fn parse(body: &[u8], secrets: &[&str]) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_slice(body).ok().filter(|_| is_object(body))?;
        Self::from_fields(&wire.error, wire.error_description.as_deref(), secrets)
    }

    /// The same from the two fields, for bodies and queries that are form-encoded
    /// (RFC 6749 section 4.1.2.1).
    pub fn from_fields(error: &str, description: Option<&str>, secrets: &[&str]) -> Option<Self> {
        let code = allowed(error, 64);
        if code.is_empty() || reveals(error, secrets) {
            return None;
        }
        let description = description
            .filter(|text| !reveals(text, secrets))
            .map(|text| allowed(text, DESCRIPTION_LIMIT))
            .filter(|text| !text.is_empty());
        Some(Self {
            error: code,
            description,
        })
    }
}

/// A registered error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OAuthErrorCode {
    /// A parameter is missing, repeated or malformed (RFC 6749 section 5.2).
    InvalidRequest,
    /// The client is unknown or did not prove itself (RFC 6749 section 5.2).
    InvalidClient,
    /// The code or refresh token is invalid, expired, revoked or another client's (RFC 6749 section 5.2).
    InvalidGrant,
    /// The client may not use this grant (RFC 6749 section 5.2).
    UnauthorizedClient,
    /// The grant type is not offered (RFC 6749 section 5.2).
    UnsupportedGrantType,
    /// The response type is not offered (RFC 6749 section 4.1.2.1).
    UnsupportedResponseType,
    /// The scope is invalid or exceeds what was granted (RFC 6749 section 5.2).
    InvalidScope,
    /// The resource is not one that tokens are issued for (RFC 8707 section 2).
    InvalidTarget,
    /// A redirect URI cannot be registered (RFC 7591 section 3.2.2).
    InvalidRedirectUri,
    /// Other client metadata cannot be registered (RFC 7591 section 3.2.2).
    InvalidClientMetadata,
    /// The person or the server said no (RFC 6749 section 4.1.2.1).
    AccessDenied,
    /// Something behind us failed (RFC 6749 section 4.1.2.1).
    ServerError,
    /// Overloaded or rate-limited; later it works (RFC 6749 section 4.1.2.1).
    TemporarilyUnavailable,
}

impl OAuthErrorCode {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidRedirectUri => "invalid_redirect_uri",
            Self::InvalidClientMetadata => "invalid_client_metadata",
            Self::AccessDenied => "access_denied",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    /// The HTTP status: 400 but for `invalid_client`, which is 401 (RFC 6749 section 5.2), and for what is
    /// not the caller's fault: `server_error` means an upstream failed.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidClient => 401,
            Self::AccessDenied => 403,
            Self::ServerError => 502,
            Self::TemporarilyUnavailable => 503,
            Self::InvalidRequest
            | Self::InvalidGrant
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::UnsupportedResponseType
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::InvalidRedirectUri
            | Self::InvalidClientMetadata => 400,
        }
    }
}

impl fmt::Display for OAuthErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error that our own token or registration endpoint answers with (RFC 6749 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {description}")]
pub struct OAuthError {
    /// `error`.
    pub code: OAuthErrorCode,
    /// `error_description`, in the characters that RFC 6749 allows there.
    pub description: String,
    status: Option<u16>,
}

impl OAuthError {
    /// An error with a sentence for a developer; characters that RFC 6749 section 5.2 does not allow in it
    /// are left out.
    pub fn new(code: OAuthErrorCode, description: impl AsRef<str>) -> Self {
        Self {
            code,
            description: allowed(description.as_ref(), DESCRIPTION_LIMIT),
            status: None,
        }
    }

    /// The same with another HTTP status, such as 429 for `temporarily_unavailable` (RFC 6585 section 4).
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.code.status())
    }

    /// The body, to be sent as JSON with `Cache-Control: no-store` (RFC 6749 section 5.2).
    pub fn to_json(&self) -> Value {
        json!({"error": self.code.name(), "error_description": self.description})
    }
}

/// Whether JSON is an object: a derived reader takes a list as well, member by member.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

fn reveals(text: &str, secrets: &[&str]) -> bool {
    secrets
        .iter()
        .any(|secret| !secret.is_empty() && text.contains(secret))
}

/// `%x20-21 / %x23-5B / %x5D-7E`: printable ASCII without the quote and the backslash.
fn allowed(text: &str, limit: usize) -> String {
    text.chars()
        .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_fields_are_kept_and_nothing_else() {
        let body = br#"{"error":"invalid_client","error_description":"no such client","hint":"internal"}"#;
        assert_eq!(
            ErrorResponse::parse(body, &[]),
            Some(ErrorResponse {
                error: "invalid_client".into(),
                description: Some("no such client".into())
            })
        );
    }

    #[test]
    fn a_list_is_no_error() {
        assert_eq!(ErrorResponse::parse(br#"["internal", "detail"]"#, &[]), None);
    }

    #[test]
    fn control_characters_and_length_are_cut() {
        let long = "x".repeat(1000);
        let body = format!(r#"{{"error":"a\nb\u001b[31m","error_description":"{long}"}}"#);
        let parsed = ErrorResponse::parse(body.as_bytes(), &[]).expect("parsed");
        assert_eq!(parsed.error, "ab[31m");
        assert_eq!(parsed.description.map(|d| d.len()), Some(DESCRIPTION_LIMIT));
    }

    #[test]
    fn an_echoed_secret_is_dropped() {
        let body = br#"{"error":"invalid_client","error_description":"bad secret s3cret-value"}"#;
        let parsed = ErrorResponse::parse(body, &["s3cret-value"]).expect("parsed");
        assert_eq!(parsed.description, None);
        assert_eq!(
            ErrorResponse::parse(br#"{"error":"s3cret-value"}"#, &["s3cret-value"]),
            None
        );
    }

    #[test]
    fn other_bodies_are_no_error_response() {
        for body in [
            &b"<html>"[..],
            b"{}",
            b"[]",
            br#"{"error":""}"#,
            br#"{"error":{"code":1}}"#,
            b"",
        ] {
            assert_eq!(
                ErrorResponse::parse(body, &[]),
                None,
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn our_own_errors() {
        let error = OAuthError::new(OAuthErrorCode::InvalidClient, "No client \"x\"\n\u{fc}.");
        assert_eq!(error.status(), 401);
        assert_eq!(
            error.to_json().to_string(),
            r#"{"error":"invalid_client","error_description":"No client x."}"#
        );
        assert_eq!(error.to_string(), "invalid_client: No client x.");
        let busy = OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, "Too many.");
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.with_status(429).status(), 429);
    }
}

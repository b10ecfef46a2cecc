//! The error response of a token endpoint (RFC 6749 section 5.2), read for its registered fields only.

use serde::Deserialize;
use std::borrow::Cow;

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
        let wire: Wire<'_> = serde_json::from_slice(body).ok()?;
        let error = allowed(&wire.error, 64);
        if error.is_empty() || reveals(&wire.error, secrets) {
            return None;
        }
        let description = wire
            .error_description
            .filter(|text| !reveals(text, secrets))
            .map(|text| allowed(&text, DESCRIPTION_LIMIT))
            .filter(|text| !text.is_empty());
        Some(Self { error, description })
    }
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
}

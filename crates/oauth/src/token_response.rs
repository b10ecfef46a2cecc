//! The answer of a token endpoint (RFC 6749 sections 5.1 and 5.2), judged before any of it is used.

use crate::error::ErrorResponse;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
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
    /// `expires_in`.
    pub lifetime: Lifetime,
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
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    access_token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    expires_in: Option<&'a RawValue>,
}

impl TokenResponse {
    /// Judges an answer by its status and body; `content_type` is only repeated to the reader.
    /// `secrets` never come back in a description.
    ///
    /// A missing `token_type` is read as Bearer: the field is required, and left out by providers in use.
    pub fn parse(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        secrets: &[&str],
    ) -> Result<Self, TokenResponseFault> {
        if (300..400).contains(&status) {
            return Err(TokenResponseFault::Redirect(status));
        }
        if let Some(refusal) = ErrorResponse::parse(body, secrets) {
            return Err(TokenResponseFault::Refused(refusal));
        }
        let content_type = media_type(content_type);
        if !(200..300).contains(&status) {
            return Err(TokenResponseFault::Status { status, content_type });
        }
        let wire: Wire<'_> = serde_json::from_slice(body)
            .map_err(|_| TokenResponseFault::NotATokenResponse { status, content_type })?;
        if wire
            .token_type
            .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
        {
            return Err(TokenResponseFault::UnsupportedTokenType);
        }
        let token = wire.access_token.unwrap_or_default();
        if token.is_empty()
            || token.len() > ACCESS_TOKEN_LIMIT
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(TokenResponseFault::UnusableToken);
        }
        Ok(Self {
            access_token: AccessToken(token.into_owned().into()),
            lifetime: lifetime(wire.expires_in.map(RawValue::get)),
        })
    }
}

/// Reads `expires_in`: a JSON number, or text that is one. A fraction counts down, what is negative is
/// past, what is huge is cut to [`LIFETIME_LIMIT`].
fn lifetime(raw: Option<&str>) -> Lifetime {
    let Some(raw) = raw else { return Lifetime::Unknown };
    let seconds: Option<f64> = match serde_json::from_str::<Cow<'_, str>>(raw) {
        Ok(text) => text.trim().parse().ok(),
        Err(_) => raw.parse().ok(),
    };
    match seconds {
        Some(s) if s.is_nan() => Lifetime::Unknown,
        Some(s) => Lifetime::Known(Duration::from_secs_f64(
            s.floor().clamp(0.0, LIFETIME_LIMIT.as_secs_f64()),
        )),
        None => Lifetime::Unknown,
    }
}

/// The media type alone, shortened, or "no content type".
fn media_type(content_type: Option<&str>) -> String {
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn parse(status: u16, body: &str) -> Result<TokenResponse, TokenResponseFault> {
        TokenResponse::parse(
            status,
            Some("application/json; charset=utf-8"),
            body.as_bytes(),
            &["the-secret"],
        )
    }

    fn lifetime_of(expires_in: &str) -> Lifetime {
        parse(
            200,
            &format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{expires_in}}}"#),
        )
        .expect("usable")
        .lifetime
    }

    #[test]
    fn expires_in_in_every_shape() {
        let known = |s| Lifetime::Known(Duration::from_secs(s));
        for (text, expected) in [
            ("3600", known(3600)),
            ("3599.9", known(3599)),
            ("\"3600\"", known(3600)),
            ("\" 60 \"", known(60)),
            ("0", known(0)),
            ("-5", known(0)),
            ("\"-5\"", known(0)),
            ("1e99", Lifetime::Known(LIFETIME_LIMIT)),
            ("99999999999999999999999", Lifetime::Known(LIFETIME_LIMIT)),
            ("\"inf\"", Lifetime::Known(LIFETIME_LIMIT)),
            ("\"NaN\"", Lifetime::Unknown),
            ("\"soon\"", Lifetime::Unknown),
            ("null", Lifetime::Unknown),
            ("true", Lifetime::Unknown),
            ("{}", Lifetime::Unknown),
            ("[3600]", Lifetime::Unknown),
        ] {
            assert_eq!(lifetime_of(text), expected, "{text}");
        }
        assert_eq!(
            parse(200, r#"{"access_token":"t"}"#).expect("usable").lifetime,
            Lifetime::Unknown
        );
    }

    #[test]
    fn a_good_answer() {
        let got = parse(
            200,
            r#"{"access_token":"abc","token_type":"bearer","expires_in":60,"x":[1]}"#,
        );
        assert_eq!(got.expect("usable").access_token.secret().expose_secret(), "abc");
    }

    #[test]
    fn unusable_answers() {
        use TokenResponseFault as Fault;
        let json = || "application/json".to_owned();
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(ACCESS_TOKEN_LIMIT + 1));
        let cases = [
            (302, r#"{"access_token":"t"}"#, Fault::Redirect(302)),
            (
                500,
                "<html>",
                Fault::Status {
                    status: 500,
                    content_type: json(),
                },
            ),
            (
                401,
                "{}",
                Fault::Status {
                    status: 401,
                    content_type: json(),
                },
            ),
            (
                200,
                "<html>",
                Fault::NotATokenResponse {
                    status: 200,
                    content_type: json(),
                },
            ),
            (
                200,
                r#"[{"access_token":"t"}]"#,
                Fault::NotATokenResponse {
                    status: 200,
                    content_type: json(),
                },
            ),
            (
                200,
                r#"{"access_token":"a","access_token":"b"}"#,
                Fault::NotATokenResponse {
                    status: 200,
                    content_type: json(),
                },
            ),
            (200, "{}", Fault::UnusableToken),
            (200, r#"{"access_token":""}"#, Fault::UnusableToken),
            (200, r#"{"access_token":"a b"}"#, Fault::UnusableToken),
            (200, r#"{"access_token":"a\r\nX: y"}"#, Fault::UnusableToken),
            (200, long.as_str(), Fault::UnusableToken),
            (
                200,
                r#"{"access_token":"a","token_type":"DPoP"}"#,
                Fault::UnsupportedTokenType,
            ),
        ];
        for (status, body, expected) in cases {
            assert_eq!(parse(status, body).expect_err(body), expected);
        }
    }

    #[test]
    fn a_refusal_is_read_whatever_the_status() {
        for status in [200, 400, 401, 503] {
            let fault = parse(
                status,
                r#"{"error":"invalid_client","error_description":"unknown client"}"#,
            );
            assert_eq!(
                fault.expect_err("refused").to_string(),
                "the authorization server refused: invalid_client (unknown client)"
            );
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic_or_leak(status in 100u16..600, body in any::<Vec<u8>>()) {
            let mut with_secret = body.clone();
            with_secret.extend_from_slice(b"the-secret");
            for body in [body, with_secret] {
                if let Err(fault) = TokenResponse::parse(status, None, &body, &["the-secret"]) {
                    let shown = format!("{fault} {fault:?}");
                    prop_assert!(!shown.contains("the-secret"));
                }
            }
        }

        #[test]
        fn every_accepted_token_fits_a_header(token in "\\PC*") {
            let body = serde_json::json!({"access_token": token}).to_string();
            if let Ok(parsed) = TokenResponse::parse(200, None, body.as_bytes(), &[]) {
                prop_assert!(parsed.access_token.secret().expose_secret().bytes().all(|b| (0x21..0x7f).contains(&b)));
            }
        }
    }
}

//! The token endpoint's rules (RFC 6749 sections 2.3.1, 4.4 and 5.2) and the tokens it handed out.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};
use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::Instant;
use url::form_urlencoded;

use crate::{Mock, credentials, only};

/// Memory stays bounded however often tokens are asked for; the token closest to its end goes first.
const MAX_TOKENS: usize = 1024;

/// A request for a token that may be granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scope: Option<String>,
}

/// An error response of RFC 6749 section 5.2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: &'static str,
    pub(crate) description: &'static str,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        if self.error == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        }
    }
}

fn refuse<T>(error: &'static str, description: &'static str) -> Result<T, Refusal> {
    Err(Refusal { error, description })
}

/// Judges a request to the token endpoint.
pub(crate) fn grant(mock: &Mock, headers: &HeaderMap, body: &[u8]) -> Result<Grant, Refusal> {
    let form = form(headers, body)?;
    authenticate(mock, headers, &form)?;
    match form.get("grant_type").map(String::as_str) {
        None => refuse("invalid_request", "The parameter grant_type is missing."),
        Some("client_credentials") => {
            let scope = form.get("scope").cloned();
            if scope.as_ref().is_some_and(|scope| !is_scope(scope)) {
                return refuse(
                    "invalid_scope",
                    "The scope has characters that no scope may have.",
                );
            }
            Ok(Grant { scope })
        }
        Some(_) => refuse("unsupported_grant_type", "Only client_credentials is supported."),
    }
}

/// The parameters that have a value; RFC 6749 section 3.2: empty ones are omitted ones, and none may come twice.
fn form(headers: &HeaderMap, body: &[u8]) -> Result<HashMap<String, String>, Refusal> {
    let media_type = only(headers, &header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .unwrap_or("");
    if !media_type
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return refuse(
            "invalid_request",
            "The body must be application/x-www-form-urlencoded.",
        );
    }
    let mut form = HashMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        if !value.is_empty() && form.insert(name.into_owned(), value.into_owned()).is_some() {
            return refuse("invalid_request", "A parameter is there more than once.");
        }
    }
    Ok(form)
}

fn authenticate(mock: &Mock, headers: &HeaderMap, form: &HashMap<String, String>) -> Result<(), Refusal> {
    let posted = (form.get("client_id"), form.get("client_secret"));
    let (id, secret) = if headers.contains_key(header::AUTHORIZATION) {
        // RFC 6749 section 2.3: one method of authentication a request.
        if posted.1.is_some() {
            return refuse(
                "invalid_request",
                "The client authenticates in the header and in the body.",
            );
        }
        let Some((id, secret)) = credentials(headers, "Basic").and_then(basic) else {
            return refuse(
                "invalid_client",
                "The Authorization header is not well-formed Basic.",
            );
        };
        if posted.0.is_some_and(|posted| *posted != id) {
            return refuse(
                "invalid_request",
                "The client ids in the header and in the body differ.",
            );
        }
        (id, secret)
    } else {
        match posted {
            (Some(id), Some(secret)) => (id.clone(), secret.clone()),
            _ => return refuse("invalid_client", "The request carries no client credentials."),
        }
    };
    let secret_is_right = verify_slices_are_equal(secret.as_bytes(), mock.client_secret.as_bytes()).is_ok();
    if id != mock.client_id || !secret_is_right {
        return refuse("invalid_client", "The client id or secret is wrong.");
    }
    Ok(())
}

/// RFC 6749 section 2.3.1: id and secret are form-encoded first, then joined and encoded as Basic.
fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decode(id), form_decode(secret)))
}

/// One form-encoded value. A client that forgot to encode `&` or `=` is understood all the same.
fn form_decode(value: &str) -> String {
    let one_name = value.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(one_name.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    scope
        .bytes()
        .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\')
}

/// The tokens handed out, and when each ends.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, Instant>>);

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn issue(&self, now: Instant, lifetime: Duration) -> String {
        let mut tokens = self.lock();
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, end| *end > now);
        }
        if tokens.len() >= MAX_TOKENS {
            let first = tokens
                .iter()
                .min_by_key(|(_, end)| **end)
                .map(|(token, _)| token.clone());
            first.and_then(|token| tokens.remove(&token));
        }
        let token = random_token();
        tokens.insert(token.clone(), now + lifetime);
        token
    }

    pub(crate) fn accepts(&self, token: &str, now: Instant) -> bool {
        self.lock().get(token).is_some_and(|end| *end > now)
    }
}

fn random_token() -> String {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().fold(String::from("tk_"), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_when_its_lifetime_does() {
        let (tokens, now, hour) = (Tokens::default(), Instant::now(), Duration::from_hours(1));
        let token = tokens.issue(now, hour);
        assert!(tokens.accepts(&token, now));
        assert!(!tokens.accepts(&token, now + hour));
        assert!(!tokens.accepts("tk_0", now));
    }

    #[test]
    fn tokens_are_bounded_and_the_oldest_goes_first() {
        let (tokens, now, hour) = (Tokens::default(), Instant::now(), Duration::from_hours(1));
        let first = tokens.issue(now, hour);
        let second = tokens.issue(now + Duration::from_secs(1), hour);
        for _ in 2..=MAX_TOKENS {
            tokens.issue(now + Duration::from_secs(2), hour);
        }
        assert_eq!(tokens.lock().len(), MAX_TOKENS);
        assert!(!tokens.accepts(&first, now));
        assert!(tokens.accepts(&second, now));
        tokens.issue(now + hour + hour, hour);
        assert_eq!(tokens.lock().len(), 1);
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let header = STANDARD.encode("a%3Ab+c:p%25+%26&=+x");
        assert_eq!(basic(&header), Some(("a:b c".to_owned(), "p% &&= x".to_owned())));
        assert_eq!(basic(&STANDARD.encode(":")), Some((String::new(), String::new())));
        assert_eq!(basic(&STANDARD.encode("no colon")), None);
        assert_eq!(basic("***"), None);
    }
}

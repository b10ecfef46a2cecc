//! The `x-mcp-debug-*` headers: what came in, what was shown to the server, and where it went, masked so that
//! no secret can be read from them. Only admitted callers get them.

mod mask;

pub use mask::mask;

use crate::admission::LITELLM_API_KEY;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

const MCP_DEBUG: &str = "x-litellm-mcp-debug";
const MCP_AUTH: &str = "x-mcp-auth";

/// What was shown to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResolution {
    /// The caller's own `Authorization`.
    OAuth2Passthrough,
    /// A machine token.
    MachineToken,
    /// The token that is kept for the person behind the caller.
    StoredUserToken,
    /// The configured credential.
    StaticToken,
    /// Nothing.
    NoAuth,
}

impl AuthResolution {
    /// As in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::OAuth2Passthrough => "oauth2-passthrough",
            Self::MachineToken => "m2m-client-credentials",
            Self::StoredUserToken => "stored-user-token",
            Self::StaticToken => "static-token",
            Self::NoAuth => "no-auth",
        }
    }
}

/// What the caller sent, masked, kept until the answer is there.
#[derive(Debug)]
pub struct DebugReport {
    inbound_auth: String,
    oauth2_token: String,
}

impl DebugReport {
    /// `None` unless the caller asked with `x-litellm-mcp-debug: true` (or `1`, `yes`).
    /// `authorization_is_key` says whether `Authorization` holds the gateway key.
    pub fn begin(
        headers: &HeaderMap,
        authorization_is_key: impl FnOnce(&HeaderValue) -> bool,
    ) -> Option<Self> {
        let asked = headers.get(MCP_DEBUG)?.to_str().ok()?.trim();
        if !["true", "1", "yes"]
            .iter()
            .any(|yes| asked.eq_ignore_ascii_case(yes))
        {
            return None;
        }
        let inbound: Vec<String> = [
            LITELLM_API_KEY,
            header::AUTHORIZATION,
            HeaderName::from_static(MCP_AUTH),
        ]
        .into_iter()
        .filter_map(|name| {
            headers
                .get(&name)
                .map(|value| format!("{name}={}", mask(value.as_bytes())))
        })
        .collect();
        let oauth2_token = match headers.get(header::AUTHORIZATION) {
            None => "(none)".to_owned(),
            Some(value) if authorization_is_key(value) => {
                format!(
                    "{} (SAME_AS_LITELLM_KEY - likely misconfigured)",
                    mask(value.as_bytes())
                )
            }
            Some(value) => mask(value.as_bytes()),
        };
        let inbound_auth = if inbound.is_empty() {
            "(none)".into()
        } else {
            inbound.join("; ")
        };
        Some(Self {
            inbound_auth,
            oauth2_token,
        })
    }

    /// Adds the five headers.
    pub fn finish(self, resolution: AuthResolution, url: &Url, auth_type: &str, headers: &mut HeaderMap) {
        let url = shown(url);
        let values = [
            ("x-mcp-debug-inbound-auth", self.inbound_auth.as_str()),
            ("x-mcp-debug-oauth2-token", &self.oauth2_token),
            ("x-mcp-debug-auth-resolution", resolution.name()),
            ("x-mcp-debug-outbound-url", &url),
            ("x-mcp-debug-server-auth-type", auth_type),
        ];
        for (name, value) in values {
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("(unprintable)"));
            headers.insert(name, value);
        }
    }
}

/// Scheme, authority and path: a query may hold keys, as may a user name.
fn shown(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    let query = if url.query().is_some() { "?..." } else { "" };
    format!("{origin}{}{query}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Bearer sk-litellm-0123456789-1234";
    const TOKEN: &str = "Bearer upstream-access-token-abcdef01";

    fn report(pairs: &[(&str, &str)], resolution: AuthResolution) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("name");
            headers.insert(name, HeaderValue::from_str(value).expect("value"));
        }
        let report = DebugReport::begin(&headers, |value| value == KEY).expect("asked for");
        let mut out = HeaderMap::new();
        let url = Url::parse("https://mcp.atlassian.com/v1/mcp").expect("url");
        report.finish(resolution, &url, "oauth2", &mut out);
        out.iter()
            .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
            .collect()
    }

    fn expected(lines: &str) -> Vec<(String, String)> {
        lines
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn the_seeds_healthy_example() {
        let got = report(
            &[
                ("x-litellm-mcp-debug", "true"),
                ("x-litellm-api-key", KEY),
                ("authorization", TOKEN),
            ],
            AuthResolution::OAuth2Passthrough,
        );
        assert_eq!(
            got,
            expected(
                "x-mcp-debug-inbound-auth: x-litellm-api-key=Bearer****1234; authorization=Bearer****ef01
                 x-mcp-debug-oauth2-token: Bearer****ef01
                 x-mcp-debug-auth-resolution: oauth2-passthrough
                 x-mcp-debug-outbound-url: https://mcp.atlassian.com/v1/mcp
                 x-mcp-debug-server-auth-type: oauth2"
            )
        );
    }

    #[test]
    fn the_seeds_leaking_example() {
        let got = report(
            &[("x-litellm-mcp-debug", "YES"), ("authorization", KEY)],
            AuthResolution::OAuth2Passthrough,
        );
        assert_eq!(
            got,
            expected(
                "x-mcp-debug-inbound-auth: authorization=Bearer****1234
                 x-mcp-debug-oauth2-token: Bearer****1234 (SAME_AS_LITELLM_KEY - likely misconfigured)
                 x-mcp-debug-auth-resolution: oauth2-passthrough
                 x-mcp-debug-outbound-url: https://mcp.atlassian.com/v1/mcp
                 x-mcp-debug-server-auth-type: oauth2"
            )
        );
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        for (url, expected) in [
            (
                "https://user:pass@x.example:8443/a/mcp?key=k#f",
                "https://x.example:8443/a/mcp?...",
            ),
            ("http://127.0.0.1:1/mcp", "http://127.0.0.1:1/mcp"),
        ] {
            assert_eq!(shown(&Url::parse(url).expect("url")), expected);
        }
    }

    #[test]
    fn nothing_is_named_none_and_only_the_asked_is_answered() {
        let got = report(&[("x-litellm-mcp-debug", "1")], AuthResolution::NoAuth);
        assert_eq!((got[0].1.as_str(), got[1].1.as_str()), ("(none)", "(none)"));
        for value in ["false", "0", "", "tru"] {
            let mut headers = HeaderMap::new();
            headers.insert(MCP_DEBUG, HeaderValue::from_static(value));
            assert!(DebugReport::begin(&headers, |_| false).is_none(), "{value}");
        }
        assert!(DebugReport::begin(&HeaderMap::new(), |_| false).is_none());
    }
}

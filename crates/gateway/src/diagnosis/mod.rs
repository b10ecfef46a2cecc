//! The `x-mcp-debug-*` headers: what came in, what was shown to the server, and where it went, masked so that
//! no secret can be read from them. Only admitted callers get them. The walk of `vestibule doctor` is in [`doctor`].

pub mod doctor;
mod mask;
mod several;

pub use mask::mask;
pub use several::Resolutions;

use crate::admission::LITELLM_API_KEY;
use crate::config::{CallerHeaders, per_server};
use http::{HeaderMap, HeaderName, HeaderValue, header};

const MCP_DEBUG: &str = "x-litellm-mcp-debug";
/// What stands behind a value that holds the gateway key.
const SAME: &str = " (SAME_AS_LITELLM_KEY - likely misconfigured)";
/// Headers for single servers that are listed.
const MOST_SHOWN: usize = 8;

/// What was shown to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthResolution {
    /// The caller's own `Authorization`.
    OAuth2Passthrough,
    /// A machine token.
    MachineToken,
    /// The token that is kept for the person behind the caller.
    StoredUserToken,
    /// The key that the person behind the caller brought.
    StoredUserKey,
    /// The configured credential.
    StaticToken,
    /// What the caller sent for this server alone.
    PerRequestHeader,
    /// A token that the caller's was exchanged for (RFC 8693, or Entra's dialect).
    TokenExchange,
    /// A token of the identity assertion grant.
    IdJag,
    /// A signature.
    AwsSigV4,
    /// Request headers that the configuration passes on.
    ExtraHeaders,
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
            Self::StoredUserKey => "stored-user-key",
            Self::StaticToken => "static-token",
            Self::PerRequestHeader => "per-request-header",
            Self::TokenExchange => "token-exchange",
            Self::IdJag => "id-jag",
            Self::AwsSigV4 => "aws-sigv4",
            Self::ExtraHeaders => "extra-headers",
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
    /// Whether the caller wants the headers.
    pub fn is_asked_for(headers: &HeaderMap) -> bool {
        let value = headers.get(MCP_DEBUG).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| {
            ["true", "1", "yes"]
                .iter()
                .any(|yes| value.trim().eq_ignore_ascii_case(yes))
        })
    }

    /// `None` unless the caller asked with `x-litellm-mcp-debug: true` (or `1`, `yes`).
    /// `carries_key` says whether a value holds a gateway key, which is told of `Authorization`, of what the caller
    /// sends for servers by name, and of the headers that are `forwarded`: each of them is meant for a server.
    pub fn begin(
        headers: &HeaderMap,
        callers: &CallerHeaders,
        forwarded: &[HeaderName],
        carries_key: impl Fn(&HeaderValue) -> bool,
    ) -> Option<Self> {
        if !Self::is_asked_for(headers) {
            return None;
        }
        let mark = |value: &HeaderValue| if carries_key(value) { SAME } else { "" };
        let mut inbound = Vec::new();
        for name in callers
            .key
            .iter()
            .chain([&LITELLM_API_KEY, &header::AUTHORIZATION])
        {
            if let Some(value) = headers.get(name) {
                inbound.push(format!("{name}={}", mask(value.as_bytes())));
            }
        }
        // These are for servers, so the key has no business in them.
        let for_servers = headers.iter().filter(|(name, _)| {
            let shared = **name == callers.credential && **name != header::AUTHORIZATION;
            shared || per_server(name).is_some_and(|(_, header)| header == header::AUTHORIZATION.as_str())
        });
        for (name, value) in for_servers.take(MOST_SHOWN) {
            inbound.push(format!("{name}={}{}", mask(value.as_bytes()), mark(value)));
        }
        let named = [&header::AUTHORIZATION, &callers.credential]
            .into_iter()
            .chain(forwarded)
            .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
        let mut meant_for_servers =
            named.chain(headers.iter().filter(|(name, _)| per_server(name).is_some()));
        let leak = meant_for_servers.find(|(_, value)| carries_key(value));
        let oauth2_token = match (leak, headers.get(header::AUTHORIZATION)) {
            (Some((name, value)), _) if *name == header::AUTHORIZATION => {
                format!("{}{SAME}", mask(value.as_bytes()))
            }
            (Some((name, value)), _) => format!("{name}={}{SAME}", mask(value.as_bytes())),
            (None, Some(value)) => mask(value.as_bytes()),
            (None, None) => "(none)".to_owned(),
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

    /// Adds the five headers. `outbound` is [`crate::net::transport::Endpoint::shown`].
    pub fn finish(
        self,
        resolution: AuthResolution,
        outbound: &str,
        auth_type: &str,
        headers: &mut HeaderMap,
    ) {
        self.write(resolution.name(), outbound, auth_type, headers);
    }

    fn write(self, resolution: &str, outbound: &str, auth_type: &str, headers: &mut HeaderMap) {
        let values = [
            ("x-mcp-debug-inbound-auth", self.inbound_auth.as_str()),
            ("x-mcp-debug-oauth2-token", &self.oauth2_token),
            ("x-mcp-debug-auth-resolution", resolution),
            ("x-mcp-debug-outbound-url", outbound),
            ("x-mcp-debug-server-auth-type", auth_type),
        ];
        for (name, value) in values {
            let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("(unprintable)"));
            headers.insert(name, value);
        }
    }
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
        let forwarded = [HeaderName::from_static("x-custom")];
        let report = DebugReport::begin(&headers, &CallerHeaders::default(), &forwarded, |value| {
            value == KEY
        })
        .expect("asked for");
        let mut out = HeaderMap::new();
        report.finish(resolution, "https://mcp.atlassian.com/v1/mcp", "oauth2", &mut out);
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
    fn the_key_is_told_wherever_a_server_could_get_it() {
        for (name, token) in [
            ("x-mcp-auth", None),
            ("x-custom", None),
            ("x-custom", Some(TOKEN)),
        ] {
            let mut pairs = vec![("x-litellm-mcp-debug", "true"), (name, KEY)];
            pairs.extend(token.map(|token| ("authorization", token)));
            let got = report(&pairs, AuthResolution::NoAuth);
            let expected = format!("{name}=Bearer****1234 (SAME_AS_LITELLM_KEY - likely misconfigured)");
            assert_eq!(got[1].1, expected);
        }
    }

    #[test]
    fn nothing_is_named_none_and_only_the_asked_is_answered() {
        let got = report(&[("x-litellm-mcp-debug", "1")], AuthResolution::NoAuth);
        assert_eq!((got[0].1.as_str(), got[1].1.as_str()), ("(none)", "(none)"));
        for value in ["false", "0", "", "tru"] {
            let mut headers = HeaderMap::new();
            headers.insert(MCP_DEBUG, HeaderValue::from_static(value));
            assert!(
                DebugReport::begin(&headers, &CallerHeaders::default(), &[], |_| false).is_none(),
                "{value}"
            );
        }
        assert!(DebugReport::begin(&HeaderMap::new(), &CallerHeaders::default(), &[], |_| false).is_none());
    }
}

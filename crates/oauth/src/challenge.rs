//! `WWW-Authenticate: Bearer …`, written and read in one place (RFC 6750 section 3, RFC 9728 section 5.1).

use std::fmt;

/// A Bearer challenge. Every value is written as a quoted string; characters that a quoted string
/// cannot carry are left out, so a challenge is always a valid header value.
#[derive(Debug, Clone, Default)]
pub struct BearerChallenge<'a> {
    /// The protection space, shown to nobody but logs (RFC 9110 section 11.5).
    pub realm: Option<&'a str>,
    /// `invalid_token` and the like; absent when the request carried no credential (RFC 6750 section 3.1).
    pub error: Option<&'a str>,
    /// A sentence for a developer.
    pub error_description: Option<&'a str>,
    /// Where the protected resource's metadata is (RFC 9728 section 5.1).
    pub resource_metadata: Option<&'a str>,
    /// The scopes that a request needs, with spaces (RFC 6750 section 3).
    pub scope: Option<&'a str>,
}

impl fmt::Display for BearerChallenge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")?;
        let parameters = [
            ("realm", self.realm),
            ("error", self.error),
            ("error_description", self.error_description),
            ("resource_metadata", self.resource_metadata),
            ("scope", self.scope),
        ];
        let mut separator = " ";
        for (name, value) in parameters {
            let Some(value) = value else { continue };
            write!(f, "{separator}{name}=\"")?;
            for c in value.chars().filter(|c| matches!(c, ' '..='~')) {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// What an upstream's Bearer challenge says. The values are as sent and not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamChallenge {
    /// `resource_metadata` (RFC 9728 section 5.1).
    pub resource_metadata: Option<String>,
    /// `scope` (RFC 6750 section 3).
    pub scope: Option<String>,
    /// `error` (RFC 6750 section 3.1).
    pub error: Option<String>,
}

/// The first Bearer challenge of an answer that names `resource_metadata`, else the first one.
pub fn parse_bearer(values: &[&str]) -> Option<UpstreamChallenge> {
    let found = bearer_challenges(values.iter().copied());
    let best = found
        .iter()
        .position(|challenge| challenge.resource_metadata.is_some());
    found.into_iter().nth(best.unwrap_or_default())
}

/// Reads the values of all `WWW-Authenticate` headers of an answer (RFC 9110 section 11.6.1), which may each
/// hold several challenges, and gives every Bearer challenge. It forgives what servers get wrong: a missing comma,
/// spaces around `=`, values without quotes. Of a parameter that stands twice the first counts.
pub(crate) fn bearer_challenges<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<UpstreamChallenge> {
    let mut found: Vec<UpstreamChallenge> = Vec::new();
    for value in values {
        let mut rest = value;
        let mut in_bearer = false;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let Some((name, after)) = token(rest) else {
                // What fits nowhere is passed over, one character at a time.
                let mut characters = rest.chars();
                if characters.next().is_none() {
                    break;
                }
                rest = characters.as_str();
                continue;
            };
            let Some(assigned) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
                in_bearer = name.eq_ignore_ascii_case("bearer");
                if in_bearer {
                    found.push(UpstreamChallenge::default());
                }
                rest = after;
                continue;
            };
            let (text, after) = parameter_value(assigned.trim_start_matches([' ', '\t']));
            rest = after;
            let Some(challenge) = found.last_mut().filter(|_| in_bearer) else {
                continue;
            };
            let slot = match name.to_ascii_lowercase().as_str() {
                "resource_metadata" => &mut challenge.resource_metadata,
                "scope" => &mut challenge.scope,
                "error" => &mut challenge.error,
                _ => continue,
            };
            slot.get_or_insert(text);
        }
    }
    found
}

/// `1*tchar` (RFC 9110 section 5.6.2) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !tchar(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A quoted string without its quotes and escapes (RFC 9110 section 5.6.4), or everything up to a comma or
/// a space, which takes in URLs that someone forgot to quote.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => value.extend(characters.next()),
            c => value.push(c),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_quoted_and_separated() {
        let challenge = BearerChallenge {
            realm: Some("vestibule"),
            error: Some("invalid_token"),
            error_description: Some("say \"please\""),
            ..Default::default()
        };
        assert_eq!(
            challenge.to_string(),
            r#"Bearer realm="vestibule", error="invalid_token", error_description="say \"please\"""#
        );
        assert_eq!(BearerChallenge::default().to_string(), "Bearer");
    }

    #[test]
    fn a_line_break_cannot_enter_the_header() {
        let challenge = BearerChallenge {
            realm: Some("a\r\nSet-Cookie: x\u{e9}"),
            ..Default::default()
        };
        assert_eq!(challenge.to_string(), r#"Bearer realm="aSet-Cookie: x""#);
    }

    #[test]
    fn metadata_and_scope_are_told() {
        let challenge = BearerChallenge {
            resource_metadata: Some("https://gw.example/.well-known/oauth-protected-resource/a/mcp"),
            scope: Some("mcp:read mcp:write"),
            ..Default::default()
        };
        let shown = challenge.to_string();
        assert_eq!(
            shown,
            r#"Bearer resource_metadata="https://gw.example/.well-known/oauth-protected-resource/a/mcp", scope="mcp:read mcp:write""#
        );
        let read = parse_bearer(&[&shown]).expect("Bearer");
        assert_eq!(read.resource_metadata.as_deref(), challenge.resource_metadata);
        assert_eq!(read.scope.as_deref(), challenge.scope);
    }

    #[test]
    fn challenges_of_upstreams() {
        for (values, expected) in [
            (&[][..], None),
            (&["", "  ,, "], None),
            (&["Basic realm=\"x\""], None),
            (&["Basic realm=\"Bearer resource_metadata=evil\""], None),
            (&["Negotiate abc==, NTLM"], None),
            (&["Bearer"], Some((None, None, None))),
            (&["bearer realm=x"], Some((None, None, None))),
            (
                &[r#"Bearer error="invalid_token", resource_metadata="https://a/b?c=d,e", scope="r w""#],
                Some((Some("https://a/b?c=d,e"), Some("r w"), Some("invalid_token"))),
            ),
            (
                &["Bearer resource_metadata=https://a/b, scope=r"],
                Some((Some("https://a/b"), Some("r"), None)),
            ),
            (
                &[
                    r#"Basic realm="a\"b, c", Bearer resource_metadata = "https://a/\"b" , DPoP algs="ES256", scope="no""#,
                ],
                Some((Some("https://a/\"b"), None, None)),
            ),
            (
                &[
                    "Bearer error=\"invalid_token\"",
                    "BEARER Resource_Metadata=\"https://a\"",
                ],
                Some((Some("https://a"), None, None)),
            ),
            (
                &[r#"Bearer realm="x" resource_metadata="https://a" scope="s""#],
                Some((Some("https://a"), Some("s"), None)),
            ),
            (
                &[r#"Bearer scope="first", scope="second""#],
                Some((None, Some("first"), None)),
            ),
            (&[r#"Bearer scope="open"#], Some((None, Some("open"), None))),
            (&[r#"Bearer scope="open\"#], Some((None, Some("open"), None))),
            (&["Bearer scope="], Some((None, Some(""), None))),
            (&["Bearer \u{fc}, scope=\"s\""], Some((None, Some("s"), None))),
        ] {
            let expected = expected.map(
                |(resource_metadata, scope, error): (Option<&str>, Option<&str>, Option<&str>)| {
                    UpstreamChallenge {
                        resource_metadata: resource_metadata.map(str::to_owned),
                        scope: scope.map(str::to_owned),
                        error: error.map(str::to_owned),
                    }
                },
            );
            assert_eq!(parse_bearer(values), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(url in "[ -~]{0,40}", scope in "[ -~]{0,20}") {
            let challenge = BearerChallenge {
                realm: Some(&scope),
                resource_metadata: Some(&url),
                scope: Some(&scope),
                ..Default::default()
            };
            let read = parse_bearer(&["Basic realm=\"x\"", &challenge.to_string()]).expect("Bearer");
            prop_assert_eq!(read.resource_metadata, Some(url));
            prop_assert_eq!(read.scope, Some(scope));
        }

        #[test]
        fn no_value_makes_it_panic(value in any::<String>()) {
            let _ = parse_bearer(&[&value]);
        }
    }
}

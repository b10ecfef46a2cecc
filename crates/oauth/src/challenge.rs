//! `WWW-Authenticate: Bearer …`, written and read in one place (RFC 6750 section 3, RFC 9728 section 5.1).

use std::fmt;
use std::ops::Range;

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
    /// What Entra wants the client to bring to its authorization endpoint, in base64.
    pub claims: Option<&'a str>,
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
            ("claims", self.claims),
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
/// hold several challenges, and gives every Bearer challenge. Of a parameter that stands twice the first counts.
pub(crate) fn bearer_challenges<'v>(values: impl IntoIterator<Item = &'v str>) -> Vec<UpstreamChallenge> {
    let mut found: Vec<UpstreamChallenge> = Vec::new();
    for value in values {
        let mut in_bearer = false;
        for part in parts(value) {
            let (name, text) = match part {
                Part::Scheme { name, .. } => {
                    in_bearer = name.eq_ignore_ascii_case("bearer");
                    if in_bearer {
                        found.push(UpstreamChallenge::default());
                    }
                    continue;
                }
                Part::Parameter { name, value, .. } => (name, value),
            };
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

/// One `WWW-Authenticate` value with `resource_metadata` (RFC 9728 section 5.1) naming `url`: in every challenge that
/// has the parameter, and in every Bearer challenge. All other bytes stay as they are.
pub fn with_resource_metadata(value: &str, url: &str) -> String {
    let parameter = BearerChallenge {
        resource_metadata: Some(url),
        ..Default::default()
    }
    .to_string();
    let parameter = parameter.trim_start_matches("Bearer");
    let quoted = parameter.trim_start_matches(" resource_metadata=");
    let parts = parts(value);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Parameter { name, at, .. } if is_metadata(name) => {
                edits.push((at.clone(), quoted.to_owned()));
            }
            Part::Scheme { name, end } if name.eq_ignore_ascii_case("bearer") => {
                let own = || {
                    let behind = parts.iter().skip(index + 1);
                    behind.map_while(|part| match part {
                        Part::Parameter { name, .. } => Some(*name),
                        Part::Scheme { .. } => None,
                    })
                };
                if !own().any(is_metadata) {
                    let comma = if own().next().is_some() { "," } else { "" };
                    edits.push((*end..*end, format!("{parameter}{comma}")));
                }
            }
            _ => {}
        }
    }
    let mut whole = value.to_owned();
    for (at, text) in edits.into_iter().rev() {
        whole.replace_range(at, &text);
    }
    whole
}

fn is_metadata(name: &str) -> bool {
    name.eq_ignore_ascii_case("resource_metadata")
}

/// What a `WWW-Authenticate` value is made of.
enum Part<'v> {
    /// The name of a scheme, and where it ends.
    Scheme { name: &'v str, end: usize },
    /// A parameter, with its value and where that stands as written.
    Parameter {
        name: &'v str,
        value: String,
        at: Range<usize>,
    },
}

/// The parts of one value, in order. It forgives what servers get wrong: a missing comma, spaces around `=`, values
/// without quotes. What fits nowhere is passed over.
fn parts(value: &str) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(rest) else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return found;
            }
            rest = characters.as_str();
            continue;
        };
        let Some(assigned) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            found.push(Part::Scheme {
                name,
                end: value.len() - after.len(),
            });
            rest = after;
            continue;
        };
        let written = assigned.trim_start_matches([' ', '\t']);
        let (text, after) = parameter_value(written);
        found.push(Part::Parameter {
            name,
            value: text,
            at: value.len() - written.len()..value.len() - after.len(),
        });
        rest = after;
    }
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

    #[test]
    fn a_relayed_challenge_names_our_document_and_keeps_the_rest() {
        const OURS: &str = "https://gw/.well-known/oauth-protected-resource/n/mcp";
        for (value, expected) in [
            ("Bearer", r#"Bearer resource_metadata="OURS""#),
            (
                r#"Bearer realm="x", error="invalid_token", scope="a  b""#,
                r#"Bearer resource_metadata="OURS", realm="x", error="invalid_token", scope="a  b""#,
            ),
            (
                r#"Bearer error="e",resource_metadata="https://up/x?a=b,c" , error_description="say \"no\", \u{e9}""#,
                r#"Bearer error="e",resource_metadata="OURS" , error_description="say \"no\", \u{e9}""#,
            ),
            (
                "bearer Resource_Metadata = https://up/x, scope=a",
                r#"bearer Resource_Metadata = "OURS", scope=a"#,
            ),
            // Any scheme may name the document; what another scheme says of itself stays.
            (
                r#"DPoP algs="ES256", resource_metadata="https://up", Basic realm="Bearer, resource_metadata=x""#,
                r#"DPoP algs="ES256", resource_metadata="OURS", Basic realm="Bearer, resource_metadata=x""#,
            ),
            (
                r#"Basic realm="a", Bearer, Negotiate abc=="#,
                r#"Basic realm="a", Bearer resource_metadata="OURS", Negotiate abc=="#,
            ),
            (r#"Basic realm="a""#, r#"Basic realm="a""#),
            // Whatever counts of two, it is ours; and ours stands before what only another reader would find.
            (
                r#"Bearer resource_metadata="https://a", resource_metadata=https://b"#,
                r#"Bearer resource_metadata="OURS", resource_metadata="OURS""#,
            ),
            (
                r#"Bearer x="y resource_metadata="https://evil""#,
                r#"Bearer resource_metadata="OURS", x="y resource_metadata="https://evil""#,
            ),
            ("", ""),
        ] {
            let expected = expected.replace("OURS", OURS);
            assert_eq!(with_resource_metadata(value, OURS), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_relayed_challenge_is_read_as_ours(value in any::<String>()) {
            let ours = "https://gw/x";
            let relayed = with_resource_metadata(&value, ours);
            for challenge in bearer_challenges([relayed.as_str()]) {
                prop_assert_eq!(challenge.resource_metadata.as_deref(), Some(ours));
            }
        }

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

//! `WWW-Authenticate: Bearer …`, written in one place (RFC 6750 section 3, RFC 9728 section 5.1).

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
}

impl fmt::Display for BearerChallenge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")?;
        let parameters = [
            ("realm", self.realm),
            ("error", self.error),
            ("error_description", self.error_description),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_quoted_and_separated() {
        let challenge = BearerChallenge {
            realm: Some("vestibule"),
            error: Some("invalid_token"),
            error_description: Some("say \"please\""),
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
}

//! Proof Key for Code Exchange (RFC 7636): challenges and verifiers, method S256 only. A `plain`
//! challenge shows its verifier to everyone who sees the request, so there is none here.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::fmt;
use thiserror::Error;

/// The one `code_challenge_method` (RFC 7636 section 4.2).
pub const METHOD: &str = "S256";

/// An S256 challenge: 43 characters, the base64url form of a SHA-256 digest (RFC 7636 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeChallenge(String);

/// The text is no S256 challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("code_challenge is not the base64url form of a SHA-256 digest (43 characters, no padding)")]
pub struct NotAChallenge;

impl CodeChallenge {
    /// Takes a client's `code_challenge` of method S256 (RFC 7636 section 4.2). Anything but 43 characters
    /// that decode to 32 bytes is refused: no verifier could ever match it.
    pub fn s256(text: &str) -> Result<Self, NotAChallenge> {
        match BASE64_URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(NotAChallenge),
        }
    }

    /// The text, as it goes into an authorization request.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a verifier belongs to this challenge (RFC 7636 section 4.6). The challenge is public, so the
    /// comparison may take its time.
    pub fn is_met_by(&self, verifier: &str) -> bool {
        is_code_verifier(verifier) && challenge_of(verifier) == *self
    }
}

impl fmt::Display for CodeChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a `code_verifier`: 43 to 128 unreserved characters (RFC 7636 section 4.1).
pub fn is_code_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

/// The challenge of a verifier: `BASE64URL(SHA256(ASCII(code_verifier)))` (RFC 7636 section 4.2).
pub fn challenge_of(verifier: &str) -> CodeChallenge {
    CodeChallenge(BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_rfc_example() {
        assert_eq!(challenge_of(VERIFIER).as_str(), CHALLENGE);
        let challenge = CodeChallenge::s256(CHALLENGE).expect("challenge");
        assert!(challenge.is_met_by(VERIFIER));
        assert!(!challenge.is_met_by(&VERIFIER.replace('d', "e")));
        assert!(!challenge.is_met_by(CHALLENGE));
        assert!(!challenge.is_met_by(""));
    }

    #[test]
    fn challenges_are_43_characters_of_base64url() {
        let padded = format!("{CHALLENGE}=");
        let longer = format!("{CHALLENGE}A");
        for text in [
            "",
            &CHALLENGE[..42],
            &padded,
            &longer,
            &CHALLENGE.replace('-', "+"),
            &CHALLENGE.replace('-', "~"),
            // The last character carries four bits; the other two have to be zero.
            &CHALLENGE.replace("cM", "cN"),
            &"\u{e9}".repeat(43),
        ] {
            assert_eq!(CodeChallenge::s256(text), Err(NotAChallenge), "{text}");
        }
    }

    #[test]
    fn verifiers() {
        for (text, good) in [
            (VERIFIER.to_owned(), true),
            ("a".repeat(43), true),
            ("~".repeat(128), true),
            ("a".repeat(42), false),
            ("a".repeat(129), false),
            (VERIFIER.replace('d', "+"), false),
            (VERIFIER.replace('d', " "), false),
            ("\u{e9}".repeat(43), false),
        ] {
            assert_eq!(is_code_verifier(&text), good, "{text}");
        }
    }
}

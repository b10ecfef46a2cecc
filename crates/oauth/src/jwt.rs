//! Signed JSON Web Tokens (RFC 7519) in the compact form (RFC 7515 section 7.1): read, and judged against an issuer's
//! keys and rules (RFC 8725). Nothing that a token says about its own key is believed, and encrypted tokens are not
//! read.

mod keys;

pub use keys::{KeySet, KeySetFault};

use crate::token_response::TokenDocument;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use thiserror::Error;

/// The longest token that is read, in bytes.
pub const TOKEN_LIMIT: usize = 16 * 1024;

/// How far an issuer's clock may be ahead of ours, in seconds.
const LEEWAY: u64 = 60;

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037). There is no `none`, and no algorithm with a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "registered names")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// Every algorithm with its registered name.
    pub const ALL: [(&'static str, Self); 10] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("EdDSA", Self::EdDsa),
    ];

    /// The algorithm of a registered name, which is compared as it is.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, algorithm)| algorithm)
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == self)
            .map_or("", |(name, _)| name)
    }
}

/// Why a token does not count. No text holds anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JwtFault {
    /// Not three parts of base64url with JSON objects, or claims of the wrong type.
    #[error("it is no signed JSON Web Token")]
    NotAJwt,
    /// `alg` is not in [`Algorithm`], or not one that the key it names is for.
    #[error("its signature algorithm is not accepted")]
    Algorithm,
    /// `typ` names another kind of token (RFC 8725 section 3.11).
    #[error("its type is not one of an access token or an identity token")]
    Type,
    /// `crit` is there: no extension is understood (RFC 7515 section 4.1.11).
    #[error("it wants extensions that are not understood")]
    Critical,
    /// No key of the set is the one that it names.
    #[error("its key is not one of the issuer's")]
    UnknownKey,
    /// The signature is not of the key that it names.
    #[error("its signature does not hold")]
    Signature,
    /// `iss` differs.
    #[error("it is of another issuer")]
    Issuer,
    /// `aud` does not have the expected value.
    #[error("it is for another audience")]
    Audience,
    /// `sub` is missing or empty.
    #[error("it names no subject")]
    NoSubject,
    /// `exp` is missing.
    #[error("it has no end")]
    NoExpiry,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` has not come yet.
    #[error("it is not valid yet")]
    NotYet,
}

/// What a token claims (RFC 7519 section 4.1).
#[derive(Clone, Default)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, one or several.
    pub audience: Vec<String>,
    /// `exp`, in seconds since 1970, rounded down.
    pub expires: Option<u64>,
    /// `nbf`, likewise.
    pub not_before: Option<u64>,
    /// `iat`, likewise.
    pub issued: Option<u64>,
}

/// What a token must claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRules {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of `aud`, exactly.
    pub audience: String,
}

/// A token that was read and not yet judged.
pub struct Jwt<'t> {
    algorithm: Option<Algorithm>,
    key_id: Option<String>,
    kind: Option<String>,
    critical: bool,
    /// What it claims. True only after [`Jwt::judge`].
    pub claims: Claims,
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Jwt<'t> {
    /// Reads a token. `None` for anything else: an opaque one, say.
    pub fn read(token: &'t str) -> Option<Self> {
        if token.len() > TOKEN_LIMIT {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        // An object in which a name stands twice is none: two readers must not see two values.
        let header = TokenDocument::from_json(&decode(header)?)?;
        let claims = TokenDocument::from_json(&decode(claims)?)?;
        let text = |name| optional(header.value(), name, Value::as_str);
        Some(Self {
            algorithm: Algorithm::from_name(header.value().get("alg")?.as_str()?),
            key_id: text("kid").ok()?.map(str::to_owned),
            kind: text("typ").ok()?.map(str::to_owned),
            critical: header.value().get("crit").is_some(),
            claims: Claims::read(claims.value())?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// What the header alone says against it. Asked before any key is looked for.
    pub fn header_fault(&self) -> Option<JwtFault> {
        const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];
        let known = |kind: &String| KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known));
        if self.algorithm.is_none() {
            Some(JwtFault::Algorithm)
        } else if self.critical {
            Some(JwtFault::Critical)
        } else if !self.kind.as_ref().is_none_or(known) {
            Some(JwtFault::Type)
        } else {
            None
        }
    }

    /// What the claims say against it at `now`, in seconds since 1970.
    pub fn claims_fault(&self, rules: &ClaimRules, now: u64) -> Option<JwtFault> {
        let claims = &self.claims;
        let ahead = |time: Option<u64>| time.is_some_and(|time| time > now.saturating_add(LEEWAY));
        if claims.issuer.as_ref() != Some(&rules.issuer) {
            Some(JwtFault::Issuer)
        } else if !claims.audience.contains(&rules.audience) {
            Some(JwtFault::Audience)
        } else if claims.subject.as_ref().is_none_or(String::is_empty) {
            Some(JwtFault::NoSubject)
        } else if claims.expires.is_none() {
            Some(JwtFault::NoExpiry)
        } else if claims.expires.is_some_and(|end| end <= now) {
            Some(JwtFault::Expired)
        } else if ahead(claims.not_before) || ahead(claims.issued) {
            Some(JwtFault::NotYet)
        } else {
            None
        }
    }

    /// Header, claims and signature: the whole judgement.
    ///
    /// # Errors
    /// What speaks against it; [`JwtFault::UnknownKey`] may be cured by a newer key set.
    pub fn judge(&self, keys: &KeySet, rules: &ClaimRules, now: u64) -> Result<(), JwtFault> {
        match self.header_fault().or_else(|| self.claims_fault(rules, now)) {
            Some(fault) => Err(fault),
            None => keys.verify(self),
        }
    }
}

impl Claims {
    fn read(claims: &Value) -> Option<Self> {
        let text = |name| Some(optional(claims, name, Value::as_str).ok()?.map(str::to_owned));
        let time = |name| optional(claims, name, seconds).ok();
        let audience = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several
                .iter()
                .map(|one| one.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            Some(_) => return None,
        };
        Some(Self {
            issuer: text("iss")?,
            subject: text("sub")?,
            audience,
            expires: time("exp")?,
            not_before: time("nbf")?,
            issued: time("iat")?,
        })
    }
}

/// The member `name`, or its absence; an error when it is of the wrong type.
fn optional<'v, T>(
    object: &'v Value,
    name: &str,
    read: impl Fn(&'v Value) -> Option<T>,
) -> Result<Option<T>, JwtFault> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => read(value).map(Some).ok_or(JwtFault::NotAJwt),
    }
}

/// A `NumericDate` (RFC 7519 section 2), rounded down; what lies before 1970 is 1970.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float is cut at the ends of the whole number's range"
)]
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().map(|time| time as u64))
}

#[cfg(test)]
mod tests;

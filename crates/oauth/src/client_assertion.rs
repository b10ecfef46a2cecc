//! `private_key_jwt`: a client that proves itself with a signature instead of a secret (RFC 7523 section 2.2).

use crate::jwt::Algorithm;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::json;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// `client_assertion_type` (RFC 7523 section 2.2).
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion counts, in seconds.
pub const ASSERTION_LIFETIME: u64 = 60;

/// A client's signing key.
pub struct AssertionKey {
    material: Material,
    algorithm: Algorithm,
    key_id: Option<String>,
}

enum Material {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Why a text is no signing key. Nothing of the text is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AssertionKeyFault {
    /// No PEM, or one that holds something else.
    #[error("is no private key in PEM (BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY)")]
    NotPem,
    /// The key is encrypted.
    #[error("is encrypted with a passphrase; give the key without one")]
    Encrypted,
    /// The key is of another kind than the algorithm needs, or broken.
    #[error("is no key for {}", .0.name())]
    NotForAlgorithm(Algorithm),
    /// RSA with fewer than 2048 bits (RFC 7518 section 3.3).
    #[error("is an RSA key of fewer than 2048 bits")]
    TooShort,
}

impl AssertionKey {
    /// Reads a key: PKCS #8, or the older forms of RSA and EC keys. Line breaks may be written `\n`, as they often are
    /// in environment variables.
    ///
    /// # Errors
    /// When the text is not such a key, or not one for `algorithm`.
    pub fn from_pem(
        pem: &str,
        algorithm: Algorithm,
        key_id: Option<String>,
    ) -> Result<Self, AssertionKeyFault> {
        let (label, der) = decode(pem)?;
        let wrong = |_| AssertionKeyFault::NotForAlgorithm(algorithm);
        let ecdsa = |curve: &'static EcdsaSigningAlgorithm| {
            let read = match label {
                Label::Pkcs8 => EcdsaKeyPair::from_pkcs8(curve, &der),
                Label::Ec => EcdsaKeyPair::from_private_key_der(curve, &der),
                Label::Rsa => return Err(AssertionKeyFault::NotForAlgorithm(algorithm)),
            };
            Ok(Material::Ecdsa(Box::new(read.map_err(wrong)?)))
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let read = match label {
                Label::Pkcs8 => RsaKeyPair::from_pkcs8(&der),
                Label::Rsa => RsaKeyPair::from_der(&der),
                Label::Ec => return Err(AssertionKeyFault::NotForAlgorithm(algorithm)),
            };
            let key = read.map_err(wrong)?;
            if key.public_modulus_len() < 256 {
                return Err(AssertionKeyFault::TooShort);
            }
            Ok(Material::Rsa(Box::new(key), encoding))
        };
        let material = match algorithm {
            Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_SHA256)?,
            Algorithm::Rs384 => rsa(&signature::RSA_PKCS1_SHA384)?,
            Algorithm::Rs512 => rsa(&signature::RSA_PKCS1_SHA512)?,
            Algorithm::Ps256 => rsa(&signature::RSA_PSS_SHA256)?,
            Algorithm::Ps384 => rsa(&signature::RSA_PSS_SHA384)?,
            Algorithm::Ps512 => rsa(&signature::RSA_PSS_SHA512)?,
            Algorithm::Es256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::Es384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::Es512 => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING)?,
            Algorithm::EdDsa => Material::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(&der).map_err(wrong)?)),
        };
        Ok(Self {
            material,
            algorithm,
            key_id,
        })
    }

    /// An assertion of `client_id` for `audience` (RFC 7523 section 3), good for [`ASSERTION_LIFETIME`] from `now`.
    /// `jti` must be new each time. `None` when the cryptography fails.
    pub fn assertion(&self, client_id: &str, audience: &str, jti: &str, now: u64) -> Option<SecretString> {
        let mut header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        if let Some(key_id) = &self.key_id {
            header["kid"] = json!(key_id);
        }
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": jti,
            "iat": now,
            "exp": now + ASSERTION_LIFETIME,
        });
        let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let made = self.sign(signed.as_bytes())?;
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(made)).into())
    }

    /// The public half, as the key's own algorithm writes it: to tell one key from another.
    pub fn public_key(&self) -> &[u8] {
        match &self.material {
            Material::Rsa(key, _) => key.public_key().as_ref(),
            Material::Ecdsa(key) => key.public_key().as_ref(),
            Material::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Rsa(key, encoding) => {
                let mut made = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut made).ok()?;
                Some(made)
            }
            Material::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Material::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

#[derive(Clone, Copy)]
enum Label {
    Pkcs8,
    Rsa,
    Ec,
}

/// The first private key of a PEM text (RFC 7468).
fn decode(pem: &str) -> Result<(Label, Zeroizing<Vec<u8>>), AssertionKeyFault> {
    const LABELS: [(&str, Label); 3] = [
        ("PRIVATE KEY", Label::Pkcs8),
        ("RSA PRIVATE KEY", Label::Rsa),
        ("EC PRIVATE KEY", Label::Ec),
    ];
    let pem = Zeroizing::new(pem.replace("\\n", "\n"));
    if pem.contains("ENCRYPTED") {
        return Err(AssertionKeyFault::Encrypted);
    }
    let found = LABELS.into_iter().find_map(|(name, label)| {
        let (_, rest) = pem.split_once(&format!("-----BEGIN {name}-----"))?;
        let (body, _) = rest.split_once(&format!("-----END {name}-----"))?;
        let body: Zeroizing<String> =
            Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        Some((
            label,
            Zeroizing::new(BASE64_STANDARD.decode(body.as_bytes()).ok()?),
        ))
    });
    found.ok_or(AssertionKeyFault::NotPem)
}

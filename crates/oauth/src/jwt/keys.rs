//! An issuer's public keys (RFC 7517), and whether one of them made a signature.

use super::{Algorithm, Jwt, JwtFault};
use crate::token_response::TokenDocument;
use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use thiserror::Error;

/// The most keys of one set that are kept.
const KEY_LIMIT: usize = 100;
/// The most keys that are tried for a token that names none.
const TRIED: usize = 8;

/// A JWK set (RFC 7517 section 5). Keys that cannot verify a signature of [`Algorithm`] are left out.
#[derive(Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

/// A document is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the document is no JSON Web Key Set")]
pub struct KeySetFault;

#[derive(Debug)]
struct PublicKey {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    Ec(Curve, Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl KeySet {
    /// Reads a document (RFC 7517 section 5).
    ///
    /// # Errors
    /// When it is no JSON object with a list `keys`.
    pub fn parse(body: &[u8]) -> Result<Self, KeySetFault> {
        let document = TokenDocument::from_json(body).ok_or(KeySetFault)?;
        let keys = document.value().get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(KeySetFault)?.iter().filter_map(PublicKey::read);
        Ok(Self(keys.take(KEY_LIMIT).collect()))
    }

    /// Whether there is no key of use.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys of use there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The algorithms that some key of the set can verify, in the order of [`Algorithm::ALL`].
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> + '_ {
        let all = Algorithm::ALL.into_iter().map(|(_, algorithm)| algorithm);
        all.filter(|algorithm| self.0.iter().any(|key| key.fits(*algorithm)))
    }

    /// Whether the key that `jwt` names made its signature.
    pub(super) fn verify(&self, jwt: &Jwt<'_>) -> Result<(), JwtFault> {
        let algorithm = jwt.algorithm.ok_or(JwtFault::Algorithm)?;
        let candidates = self
            .0
            .iter()
            .filter(|key| key.fits(algorithm) && (jwt.key_id.is_none() || key.id == jwt.key_id));
        let mut tried = false;
        for key in candidates.take(TRIED) {
            if key.material.verifies(algorithm, jwt.signed, &jwt.signature) {
                return Ok(());
            }
            tried = true;
        }
        if jwt.key_id.is_some() && !tried && self.0.iter().any(|key| key.id == jwt.key_id) {
            return Err(JwtFault::Algorithm);
        }
        // Without a key id nobody knows whether the right key was among those.
        Err(if tried && jwt.key_id.is_some() {
            JwtFault::Signature
        } else {
            JwtFault::UnknownKey
        })
    }
}

impl PublicKey {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if key.get("use").is_some() && text("use") != Some("sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops")
            && !operations
                .as_array()?
                .iter()
                .any(|operation| operation == "verify")
        {
            return None;
        }
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa {
                n: without_zeros(&bytes("n")?),
                e: without_zeros(&bytes("e")?),
            },
            ("EC", Some(name)) => {
                let (curve, size) = match name {
                    "P-256" => (Curve::P256, 32),
                    "P-384" => (Curve::P384, 48),
                    "P-521" => (Curve::P521, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                Material::Ec(curve, [&[4][..], &x, &y].concat())
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x")?),
            _ => return None,
        };
        let algorithm = match key.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::from_name(name.as_str()?)?),
        };
        Some(Self {
            id: text("kid").map(str::to_owned),
            algorithm,
            material,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let fits = match &self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Material::Ec(Curve::P256, _) => algorithm == Es256,
            Material::Ec(Curve::P384, _) => algorithm == Es384,
            Material::Ec(Curve::P521, _) => algorithm == Es512,
            Material::Ed25519(_) => algorithm == EdDsa,
        };
        fits && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

impl Material {
    fn verifies(&self, algorithm: Algorithm, signed: &[u8], made: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { n, e } => {
                let Some(parameters) = rsa(algorithm) else {
                    return false;
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, made)
            }
            Self::Ec(curve, point) => {
                let parameters = match curve {
                    Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED,
                    Curve::P521 => &signature::ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(parameters, point).verify(signed, made)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, made),
        };
        verified.is_ok()
    }
}

/// Keys of fewer than 2048 bits verify nothing.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

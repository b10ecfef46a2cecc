//! Keys that sign JSON Web Tokens, well or as badly as a test wants.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// A key pair with an id.
pub struct SigningKey {
    /// `kid`.
    pub kid: String,
    material: Material,
    pkcs8: Vec<u8>,
}

enum Material {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// RSA with 2048 bits.
    ///
    /// # Panics
    /// When no key can be made, as in all of these.
    pub fn rsa(kid: &str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let pkcs8 = key.as_der().expect("PKCS #8").as_ref().to_vec();
        Self::new(kid, Material::Rsa(key), pkcs8)
    }

    /// ECDSA on the curve `P-256`, `P-384` or `P-521`.
    ///
    /// # Panics
    /// When there is no such curve.
    pub fn ec(kid: &str, curve: &'static str) -> Self {
        let algorithm: &'static EcdsaSigningAlgorithm = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            "P-521" => &ECDSA_P521_SHA512_FIXED_SIGNING,
            other => panic!("{other}"),
        };
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("a key");
        Self::new(kid, Material::Ec(key, curve), pkcs8.as_ref().to_vec())
    }

    /// Ed25519.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn ed25519(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
        Self::new(kid, Material::Ed25519(key), pkcs8.as_ref().to_vec())
    }

    fn new(kid: &str, material: Material, pkcs8: Vec<u8>) -> Self {
        Self {
            kid: kid.to_owned(),
            material,
            pkcs8,
        }
    }

    /// The algorithm that it signs with unless told otherwise.
    pub fn algorithm(&self) -> &'static str {
        match &self.material {
            Material::Rsa(_) => "RS256",
            Material::Ec(_, "P-256") => "ES256",
            Material::Ec(_, "P-384") => "ES384",
            Material::Ec(..) => "ES512",
            Material::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half as a JWK.
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match &self.material {
            Material::Rsa(key) => {
                // RSAPublicKey of 2048 bits: nine bytes of frame, the modulus, and an exponent of three bytes.
                let der = key.public_key().as_ref();
                json!({"kty": "RSA", "kid": self.kid, "use": "sig", "n": encode(&der[9..265]), "e": encode(&der[267..])})
            }
            Material::Ec(key, curve) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "kid": self.kid, "x": encode(x), "y": encode(y)})
            }
            Material::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": encode(key.public_key().as_ref())})
            }
        }
    }

    /// The private half in PEM.
    pub fn pem(&self) -> String {
        let body = BASE64_STANDARD.encode(&self.pkcs8);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap_or_default())
            .collect();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        )
    }

    /// A token with these claims, as a decent issuer signs it.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"});
        self.token_with(&header, claims)
    }

    /// A token with this header, signed as its `alg` says; an `alg` that the key cannot do is signed with its own.
    ///
    /// # Panics
    /// When the signature fails.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let random = SystemRandom::new();
        let signature = match &self.material {
            Material::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match header["alg"].as_str() {
                    Some("RS384") => &RSA_PKCS1_SHA384,
                    Some("RS512") => &RSA_PKCS1_SHA512,
                    Some("PS256") => &RSA_PSS_SHA256,
                    Some("PS384") => &RSA_PSS_SHA384,
                    Some("PS512") => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut made = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, signed.as_bytes(), &mut made)
                    .expect("a signature");
                made
            }
            Material::Ec(key, _) => {
                let made = key.sign(&random, signed.as_bytes()).expect("a signature");
                made.as_ref().to_vec()
            }
            Material::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What a part of a token says, unverified: 0 is the header, 1 the claims.
///
/// # Panics
/// When it is no such token.
pub fn decoded(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).expect("a part");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

use super::*;
use crate::client_assertion::{AssertionKey, AssertionKeyFault};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;
use vestibule_testkit::{SigningKey, jose::decoded};

const NOW: u64 = 1_800_000_000;

fn rules() -> ClaimRules {
    ClaimRules {
        issuer: "https://idp.example".into(),
        audience: "api".into(),
    }
}

fn claims() -> Value {
    json!({"iss": "https://idp.example", "aud": "api", "sub": "alice", "iat": NOW, "nbf": NOW, "exp": NOW + 60})
}

/// `claims()` with some replaced; null takes one away.
fn with(edits: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in edits.as_object().expect("an object") {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn published(keys: &[&SigningKey]) -> KeySet {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).expect("keys")
}

fn judge(token: &str, keys: &KeySet) -> Result<(), JwtFault> {
    let jwt = Jwt::read(token).ok_or(JwtFault::NotAJwt)?;
    jwt.judge(keys, &rules(), NOW)
}

#[test]
fn every_algorithm_verifies_with_its_own_kind_of_key_alone() {
    let keys = [
        (
            SigningKey::rsa("r"),
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..],
        ),
        (SigningKey::ec("e2", "P-256"), &["ES256"]),
        (SigningKey::ec("e3", "P-384"), &["ES384"]),
        (SigningKey::ec("e5", "P-521"), &["ES512"]),
        (SigningKey::ed25519("d"), &["EdDSA"]),
    ];
    let all = published(&keys.each_ref().map(|(key, _)| key));
    for (key, does) in &keys {
        for (name, _) in Algorithm::ALL {
            let token = key.token_with(&json!({"alg": name, "kid": key.kid}), &claims());
            let expected = if does.contains(&name) {
                Ok(())
            } else {
                Err(JwtFault::Algorithm)
            };
            assert_eq!(judge(&token, &all), expected, "{name} with {}", key.kid);
        }
    }
    // Without a key id every key of the kind is tried.
    let token = keys[0].0.token_with(&json!({"alg": "RS256"}), &claims());
    assert_eq!(judge(&token, &all), Ok(()));
    let stranger = SigningKey::ed25519("d").token_with(&json!({"alg": "EdDSA"}), &claims());
    assert_eq!(judge(&stranger, &all), Err(JwtFault::UnknownKey));
}

#[test]
fn claims_that_do_not_count() {
    let key = SigningKey::ed25519("k");
    let keys = published(&[&key]);
    for (edits, expected) in [
        (json!({}), Ok(())),
        (json!({"aud": ["other", "api"]}), Ok(())),
        (json!({"nbf": null, "iat": null}), Ok(())),
        (json!({"nbf": NOW + 60, "iat": NOW + 60}), Ok(())),
        (json!({"exp": NOW + 1}), Ok(())),
        (json!({"exp": f64::from(u32::MAX) + 0.5}), Ok(())),
        (json!({"iss": "https://idp.example/"}), Err(JwtFault::Issuer)),
        (json!({"iss": "https://IDP.example"}), Err(JwtFault::Issuer)),
        (json!({"iss": null}), Err(JwtFault::Issuer)),
        (json!({"aud": "apis"}), Err(JwtFault::Audience)),
        (json!({"aud": ["ap", "i"]}), Err(JwtFault::Audience)),
        (json!({"aud": []}), Err(JwtFault::Audience)),
        (json!({"aud": null}), Err(JwtFault::Audience)),
        (json!({"sub": null}), Err(JwtFault::NoSubject)),
        (json!({"sub": ""}), Err(JwtFault::NoSubject)),
        (json!({"exp": null}), Err(JwtFault::NoExpiry)),
        (json!({"exp": NOW}), Err(JwtFault::Expired)),
        (json!({"exp": -1}), Err(JwtFault::Expired)),
        (json!({"nbf": NOW + 61}), Err(JwtFault::NotYet)),
        (json!({"iat": NOW + 61}), Err(JwtFault::NotYet)),
        // Of the wrong type: no claims at all.
        (json!({"exp": "2099"}), Err(JwtFault::NotAJwt)),
        (json!({"iss": ["https://idp.example"]}), Err(JwtFault::NotAJwt)),
        (json!({"sub": {"a": 1}}), Err(JwtFault::NotAJwt)),
        (json!({"aud": ["api", 1]}), Err(JwtFault::NotAJwt)),
    ] {
        assert_eq!(judge(&key.token(&with(&edits)), &keys), expected, "{edits}");
    }
}

#[test]
fn headers_and_signatures_that_do_not_count() {
    let (key, evil) = (SigningKey::rsa("k"), SigningKey::rsa("k"));
    let keys = published(&[&key]);
    let header = |edits: Value| {
        let mut header = json!({"alg": "RS256", "kid": "k"});
        for (name, value) in edits.as_object().expect("an object") {
            header[name] = value.clone();
        }
        header
    };
    for (edits, expected) in [
        (json!({"typ": "at+jwt"}), Ok(())),
        (json!({"typ": "application/AT+JWT"}), Ok(())),
        (json!({"alg": "none"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "NONE"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "HS256"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "HS512"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "rs256"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "ES256K"}), Err(JwtFault::Algorithm)),
        (json!({"kid": "other"}), Err(JwtFault::UnknownKey)),
        (json!({"crit": ["b64"], "b64": false}), Err(JwtFault::Critical)),
        (json!({"typ": "dpop+jwt"}), Err(JwtFault::Type)),
        (json!({"typ": "logout+jwt"}), Err(JwtFault::Type)),
        (json!({"typ": "oauth-id-jag+jwt"}), Err(JwtFault::Type)),
        (json!({"alg": 5}), Err(JwtFault::NotAJwt)),
        (json!({"kid": 5}), Err(JwtFault::NotAJwt)),
    ] {
        let token = key.token_with(&header(edits.clone()), &claims());
        assert_eq!(judge(&token, &keys), expected, "{edits}");
    }
    // What a token says about its own key is not looked at.
    let embedded = header(
        json!({"jwk": evil.jwk(), "jku": "https://evil.example/jwks", "x5u": "https://evil.example/c"}),
    );
    assert_eq!(
        judge(&evil.token_with(&embedded, &claims()), &keys),
        Err(JwtFault::Signature)
    );
    // The signature of another token, of nothing, and of fewer claims.
    let good = key.token(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (other, _) = signed.split_once('.').expect("three parts");
    let promoted = key.token(&with(&json!({"sub": "root"})));
    let claimed = promoted.split('.').nth(1).expect("claims");
    for (forged, expected) in [
        (format!("{other}.{claimed}.{signature}"), JwtFault::Signature),
        (format!("{signed}."), JwtFault::Signature),
        (format!("{signed}.{signature}="), JwtFault::NotAJwt),
        (signed.to_owned(), JwtFault::NotAJwt),
        (format!("{good}.x"), JwtFault::NotAJwt),
        (format!("{good}.x.y"), JwtFault::NotAJwt),
        (String::new(), JwtFault::NotAJwt),
        ("opaque".to_owned(), JwtFault::NotAJwt),
    ] {
        assert_eq!(judge(&forged, &keys), Err(expected), "{forged}");
    }
    // A name that stands twice.
    let twice = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","alg":"none"}"#);
    assert_eq!(
        judge(&format!("{twice}.{claimed}."), &keys),
        Err(JwtFault::NotAJwt)
    );
    let long = key.token(&with(&json!({"x": "x".repeat(TOKEN_LIMIT)})));
    assert_eq!(judge(&long, &keys), Err(JwtFault::NotAJwt));
}

#[test]
fn keys_that_verify_nothing() {
    let key = SigningKey::rsa("k");
    let token = key.token(&claims());
    let edited = |edits: Value| {
        let mut jwk = key.jwk();
        for (name, value) in edits.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("a set")
    };
    for (edits, expected) in [
        (json!({}), Ok(())),
        (json!({"alg": "RS256", "key_ops": ["verify"]}), Ok(())),
        (json!({"use": "enc"}), Err(JwtFault::UnknownKey)),
        (json!({"key_ops": ["sign"]}), Err(JwtFault::UnknownKey)),
        (json!({"alg": "PS256"}), Err(JwtFault::Algorithm)),
        (json!({"alg": "RSA-OAEP"}), Err(JwtFault::UnknownKey)),
        (json!({"kty": "oct", "k": "AAAA"}), Err(JwtFault::UnknownKey)),
        (json!({"n": "AQAB"}), Err(JwtFault::Signature)),
        (json!({"n": 1}), Err(JwtFault::UnknownKey)),
    ] {
        assert_eq!(judge(&token, &edited(edits.clone())), expected, "{edits}");
    }
    for body in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(KeySet::parse(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn client_assertions_are_what_a_token_endpoint_wants() {
    for (key, name) in [
        (SigningKey::rsa("k"), "RS256"),
        (SigningKey::rsa("k"), "PS384"),
        (SigningKey::ec("k", "P-256"), "ES256"),
        (SigningKey::ec("k", "P-521"), "ES512"),
        (SigningKey::ed25519("k"), "EdDSA"),
    ] {
        let algorithm = Algorithm::from_name(name).expect("known");
        // As it often is in an environment variable.
        let pem = key.pem().replace('\n', "\\n");
        let signer = AssertionKey::from_pem(&pem, algorithm, Some("k".into())).expect("a key");
        let made = signer
            .assertion("gw", "https://idp.example", "once", NOW)
            .expect("signed");
        let made = made.expose_secret();
        assert_eq!(decoded(made, 0), json!({"alg": name, "typ": "JWT", "kid": "k"}));
        assert_eq!(
            decoded(made, 1),
            json!({"iss": "gw", "sub": "gw", "aud": "https://idp.example", "jti": "once", "iat": NOW, "exp": NOW + 60})
        );
        let rules = ClaimRules {
            issuer: "gw".into(),
            audience: "https://idp.example".into(),
        };
        let jwt = Jwt::read(made).expect("a token");
        assert_eq!(jwt.judge(&published(&[&key]), &rules, NOW + 59), Ok(()), "{name}");
        assert_eq!(
            jwt.judge(&published(&[&key]), &rules, NOW + 60),
            Err(JwtFault::Expired)
        );
        assert!(!format!("{signer:?}").contains("BEGIN"));
    }
}

#[test]
fn texts_that_are_no_signing_key() {
    let (rsa, ec) = (SigningKey::rsa("k"), SigningKey::ec("k", "P-256"));
    let read = |pem: &str, algorithm| AssertionKey::from_pem(pem, algorithm, None).err();
    let wrong = |algorithm| Some(AssertionKeyFault::NotForAlgorithm(algorithm));
    for (pem, algorithm, fault) in [
        (rsa.pem(), Algorithm::Es256, wrong(Algorithm::Es256)),
        (ec.pem(), Algorithm::Rs256, wrong(Algorithm::Rs256)),
        (ec.pem(), Algorithm::Es384, wrong(Algorithm::Es384)),
        (ec.pem(), Algorithm::EdDsa, wrong(Algorithm::EdDsa)),
        ("canary".into(), Algorithm::Rs256, Some(AssertionKeyFault::NotPem)),
        (
            rsa.pem().replace("PRIVATE", "PUBLIC"),
            Algorithm::Rs256,
            Some(AssertionKeyFault::NotPem),
        ),
        (
            rsa.pem().replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"),
            Algorithm::Rs256,
            Some(AssertionKeyFault::Encrypted),
        ),
    ] {
        assert_eq!(read(&pem, algorithm), fault, "{}", algorithm.name());
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[A-Za-z0-9_.-]{0,60}", raw in any::<String>()) {
        for token in [&text, &raw] {
            if let Some(jwt) = Jwt::read(token) {
                prop_assert!(jwt.judge(&KeySet::default(), &rules(), NOW).is_err());
            }
        }
    }
}

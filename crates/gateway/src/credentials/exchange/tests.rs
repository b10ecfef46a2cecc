//! What keys of the cache are made of.

use super::*;
use proptest::prelude::*;

fn subject(text: &str) -> SubjectToken {
    SubjectToken::of(&HeaderValue::from_str(text).expect("value")).expect("a token")
}

#[test]
fn what_is_a_subject_token() {
    for (value, token) in [
        ("Bearer abc", Some("abc")),
        ("bearer  abc ", Some("abc")),
        ("abc", Some("abc")),
        ("a.b.c", Some("a.b.c")),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("bearer bearer", None),
        ("Basic abc", None),
        ("Bearer a b", None),
    ] {
        let read = SubjectToken::of(&HeaderValue::from_str(value).expect("value"));
        assert_eq!(
            read.as_ref().map(|read| read.0.expose_secret()),
            token,
            "{value:?}"
        );
    }
    let long = HeaderValue::from_str(&"x".repeat(TOKEN_LIMIT + 1)).expect("value");
    assert!(SubjectToken::of(&long).is_none());
    assert!(!format!("{:?}", subject("canary")).contains("canary"));
    let value = HeaderValue::from_static;
    let (short, usual) = (subject("json"), subject("canary-0123456789"));
    assert!(!short.stands_in(&value("application/json")) && short.stands_in(&value("Bearer json")));
    assert!(usual.stands_in(&value("x=canary-0123456789;y")) && !usual.stands_in(&value("canary-012345678")));
}

#[test]
fn an_identity_is_issuer_and_subject() {
    let key = vestibule_testkit::SigningKey::ed25519("k");
    let of = |claims: serde_json::Value| subject(&key.token(&claims)).identity();
    let alice = of(serde_json::json!({"iss": "i", "sub": "alice", "jti": "1"}));
    assert!(alice.is_some());
    assert_eq!(
        alice,
        of(serde_json::json!({"iss": "i", "sub": "alice", "jti": "2"}))
    );
    let others = [("i", "bob"), ("i2", "alice"), ("ial", "ice")];
    for (iss, sub) in others {
        assert_ne!(alice, of(serde_json::json!({"iss": iss, "sub": sub})));
    }
    for nobody in [
        serde_json::json!({"iss": "i"}),
        serde_json::json!({"sub": "alice"}),
        serde_json::json!({"iss": "i", "sub": ""}),
    ] {
        assert_eq!(of(nobody), None);
    }
    assert_eq!(subject("opaque").identity(), None);
}

proptest! {
    /// Equal keys mean an equal caller and token; the parts cannot slide into each other.
    #[test]
    fn equal_keys_mean_equal_everything(one in ("[ab]{0,3}", "[ab]{1,4}"), two in ("[ab]{0,3}", "[ab]{1,4}")) {
        let made = |(principal, token): &(String, String)| key(principal.as_bytes(), &subject(token));
        prop_assert_eq!(made(&one) == made(&two), one == two);
    }
}

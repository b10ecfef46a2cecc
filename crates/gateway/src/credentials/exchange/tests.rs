//! What keys of the cache are made of.

use super::*;
use crate::config::{AssertionAudience, ClientKey, ExchangeClient};
use proptest::prelude::*;
use vestibule_oauth::client_assertion::AssertionKey;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::{ClientAuthMethod, jwt::Algorithm};

fn client(id: &str, secret: &str) -> ExchangeClient {
    ExchangeClient::Shared(Client {
        id: id.to_owned(),
        secret: Some(secret.into()),
        auth_method: ClientAuthMethod::ClientSecretPost,
    })
}

fn settings() -> Exchange {
    Exchange {
        auth_type: "oauth2_token_exchange",
        profile: ExchangeProfile::Rfc8693 { actor: None },
        endpoint: TokenEndpoint::Configured(url::Url::parse("https://as/t").expect("url")),
        client: client("id", "secret"),
        subject_token_type: "type".into(),
        subject: None,
        scopes: vec!["a".into(), "b".into()],
        audience: None,
        resource: None,
        fallback: None,
    }
}

type Edit = Box<dyn Fn(&mut Exchange)>;

fn subject(text: &str) -> SubjectToken {
    SubjectToken::of(&HeaderValue::from_str(text).expect("value")).expect("a token")
}

#[test]
fn a_fingerprint_differs_with_everything_a_token_depends_on() {
    let url = |text: &str| url::Url::parse(text).expect("url");
    let id_jag = move |endpoint: &str, id: &str| ExchangeProfile::IdJag {
        endpoint: url(endpoint),
        client: client(id, "secret"),
    };
    let key = |audience| {
        let pem = vestibule_testkit::SigningKey::ed25519("k").pem();
        ExchangeClient::Key(ClientKey {
            id: "id".into(),
            key: Arc::new(AssertionKey::from_pem(&pem, Algorithm::EdDsa, None).expect("key")),
            audience,
        })
    };
    let actor = |token: &str, kind: &str| ExchangeProfile::Rfc8693 {
        actor: Some((token.into(), kind.into())),
    };
    let edits: Vec<Edit> = vec![
        Box::new(|_| {}),
        Box::new(move |e| e.endpoint = TokenEndpoint::Configured(url("https://as/t2"))),
        Box::new(|e| e.endpoint = TokenEndpoint::OfIssuer("https://as/t".into())),
        Box::new(|e| e.client = client("id2", "secret")),
        Box::new(|e| e.client = client("ids", "ecret")),
        Box::new(|e| e.client = client("id", "secret2")),
        Box::new(move |e| e.client = key(AssertionAudience::TokenEndpoint)),
        Box::new(move |e| e.client = key(AssertionAudience::Issuer("i".into()))),
        Box::new(|e| e.subject_token_type = "type2".into()),
        Box::new(move |e| e.profile = actor("token", "type")),
        Box::new(move |e| e.profile = actor("token", "type2")),
        Box::new(move |e| e.profile = actor("token2", "type")),
        Box::new(|e| e.profile = ExchangeProfile::EntraObo),
        Box::new(move |e| e.profile = id_jag("https://as/t", "id")),
        Box::new(move |e| e.profile = id_jag("https://as/t", "id2")),
        Box::new(move |e| e.profile = id_jag("https://as/t2", "id")),
        Box::new(|e| e.audience = Some("x".into())),
        Box::new(|e| e.audience = Some(String::new())),
        Box::new(|e| e.resource = Some("x".into())),
        Box::new(|e| e.scopes = vec!["a b".into()]),
        Box::new(|e| e.scopes = vec!["b".into(), "a".into()]),
    ];
    let mut seen = Vec::new();
    for edit in &edits {
        for server in ["s", "s2"] {
            let mut edited = settings();
            edit(&mut edited);
            let made = fingerprint(server, &edited);
            assert!(!seen.contains(&made), "number {} is not unique", seen.len());
            seen.push(made);
        }
    }
    assert_eq!(fingerprint("s", &settings()), seen[0]);
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
    /// Equal keys mean an equal configuration, caller and token; the parts cannot slide into each other.
    #[test]
    fn equal_keys_mean_equal_everything(
        one in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{1,4}", proptest::option::of("[ab]{0,2}"), proptest::collection::vec("[ab]{1,2}", 0..3)),
        two in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{1,4}", proptest::option::of("[ab]{0,2}"), proptest::collection::vec("[ab]{1,2}", 0..3)),
    ) {
        let made = |(server, principal, token, audience, scopes): &(String, String, String, Option<String>, Vec<String>)| {
            let settings = Exchange { audience: audience.clone(), scopes: scopes.clone(), ..settings() };
            key(&fingerprint(server, &settings), principal.as_bytes(), &subject(token))
        };
        prop_assert_eq!(made(&one) == made(&two), one == two);
    }
}

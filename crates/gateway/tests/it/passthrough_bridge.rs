//! Passthrough servers that people sign in to through the gateway: what clients get is the provider's token under our
//! seal, for one server, one caller and a time; nothing of it lasts here, and no server ever sees it.

use crate::browser::{Browser, Registered};
use crate::delegation::{DELEGATED, bearer, call, calls, challenge};
use crate::harness::{
    Got, KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed, personal,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use vestibule_testkit::{Provider, TokenMode, Upstream};

const PREFIX: &str = "vestibule_token_";

struct Setup {
    provider: Provider,
    upstream: Upstream,
    gateway: TestGateway,
}

impl Setup {
    /// `one` with the key beside the token, `open` without; `two` like `one`, and neighbours without a bridge.
    async fn start() -> Self {
        let provider = Provider::start().await;
        let upstream = provider.upstream().await;
        let servers: String = [
            ("one", "auth_type: oauth_delegate\ndcr_bridge: true"),
            ("two", "auth_type: oauth_delegate\ndcr_bridge: true"),
            ("open", "auth_type: true_passthrough\ndcr_bridge: true"),
            ("delegated", DELEGATED),
            ("kept", "auth_type: oauth_delegate"),
            ("listed", "extra_headers: [Authorization, X-Custom]"),
            ("person", "auth_type: oauth2"),
        ]
        .iter()
        .map(|(name, fields)| entry(name, &format!("url: {}\n{fields}", upstream.url())))
        .collect();
        // The master key is a person, whose tokens would be kept if any were.
        let gateway = Start::new(personal(&servers, "")).start().await;
        Self {
            provider,
            upstream,
            gateway,
        }
    }

    /// The token answer of a sign-in at `name`.
    async fn signed_in(&self, name: &str) -> (Registered, Value) {
        let client = Registered::at(&self.gateway, &format!("/{name}")).await;
        let code = client.code(&self.gateway, &Browser::new()).await;
        let request = client.exchange(&self.gateway, &code, &[]);
        let answer = got(request.header("x-litellm-api-key", KEY)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (client, answer.body)
    }

    async fn call(&self, name: &str, headers: &[(&str, &str)]) -> Got {
        got(call(&self.gateway, &format!("/{name}/mcp"), headers)).await
    }
}

fn token(answer: &Value) -> String {
    let token = answer["access_token"].as_str().expect("a token");
    assert!(token.starts_with(PREFIX), "{token}");
    bearer(token)
}

#[tokio::test]
async fn a_client_signs_in_here_and_the_server_sees_the_providers_token() {
    let setup = Setup::start().await;
    for (name, key) in [("one", vec![("x-litellm-api-key", KEY)]), ("open", vec![])] {
        let first = setup.call(name, &key).await;
        assert_eq!(first.status, 401);
        let document = setup
            .gateway
            .url(&format!("/.well-known/oauth-protected-resource/{name}/mcp"));
        assert!(
            challenge(&first)
                .concat()
                .contains(&format!("resource_metadata=\"{document}\""))
        );
        let told = got(setup.gateway.http.get(&document)).await;
        let issuer = setup.gateway.url(&format!("/{name}"));
        assert_eq!(told.body["authorization_servers"], json!([issuer]));
        let (client, answer) = setup.signed_in(name).await;
        let shown = token(&answer);
        let providers = setup.provider.tokens().pop().expect("a token");
        let headers = [&key[..], &[("authorization", &*shown)]].concat();
        let answered = setup.call(name, &headers).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        // What is for any server gives way to it.
        let with_shared = [&headers[..], &[("x-mcp-auth", "Bearer canary-for-any")]].concat();
        assert_eq!(setup.call(name, &with_shared).await.status, 200);
        let seen = calls(&setup.upstream);
        assert_eq!(
            seen.last().expect("a call").header("authorization"),
            Some(&*bearer(&providers))
        );
        // The provider is told of the server, not of us (RFC 8707).
        let exchanged = setup.provider.requests_to("/token").pop().expect("a request");
        assert!(
            exchanged
                .form()
                .contains(&("resource".into(), setup.upstream.url()))
        );

        // Refreshed at the provider, sealed anew.
        let refresh = answer["refresh_token"].as_str().expect("a refresh token");
        let request = client.refresh(&setup.gateway, refresh);
        let renewed = got(request.header("x-litellm-api-key", KEY)).await;
        assert_eq!(renewed.status, 200, "{renewed:?}");
        let again = token(&renewed.body);
        assert_ne!(again, shown);
        let headers = [&key[..], &[("authorization", &*again)]].concat();
        assert_eq!(setup.call(name, &headers).await.status, 200);
        // When the server refuses what is in it, its challenge leads here.
        let renewed = setup.provider.tokens().pop().expect("a token");
        setup.upstream.revoke(&renewed);
        let refused = setup.call(name, &headers).await;
        let expected = format!("Bearer resource_metadata=\"{document}\", error=\"invalid_token\"");
        assert_eq!((refused.status, challenge(&refused)), (401, vec![&*expected]));
    }
    let listed = setup
        .gateway
        .http
        .get(setup.gateway.url("/v1/mcp/user-credentials"));
    let listed = got(listed.header("x-litellm-api-key", KEY)).await;
    assert_eq!((listed.status, listed.body), (200, json!([])), "nothing is kept");
    setup.upstream.assert_never_seen(PREFIX);
    setup.upstream.assert_never_seen(KEY);
    setup.provider.assert_never_seen(PREFIX);
    let tokens = setup.provider.tokens();
    assert_nothing_secret_logged(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_envelope_counts_nowhere_else_and_never_leaves() {
    let setup = Setup::start().await;
    let (one, open) = (
        token(&setup.signed_in("one").await.1),
        token(&setup.signed_in("open").await.1),
    );
    let before = calls(&setup.upstream).len();
    let key = ("x-litellm-api-key", KEY);
    let cut = &one[..one.len() - 4];
    let inside = one.replace(PREFIX, "x vestibule_token_");
    for (name, headers, status, code) in [
        (
            "two",
            vec![key, ("authorization", &*one)],
            401,
            "callers_token_required",
        ),
        (
            "open",
            vec![("authorization", &one)],
            401,
            "callers_token_required",
        ),
        (
            "one",
            vec![key, ("authorization", &open)],
            401,
            "callers_token_required",
        ),
        (
            "one",
            vec![key, ("authorization", cut)],
            401,
            "callers_token_required",
        ),
        (
            "one",
            vec![key, ("authorization", &inside)],
            401,
            "callers_token_required",
        ),
        // The key is wanted where it was wanted for the token.
        ("one", vec![("authorization", &one)], 401, "wrong_key"),
        (
            "one",
            vec![("x-litellm-api-key", "sk-wrong"), ("authorization", &one)],
            401,
            "wrong_key",
        ),
        (
            "kept",
            vec![key, ("authorization", &one)],
            401,
            "callers_token_required",
        ),
        (
            "person",
            vec![key, ("authorization", &one)],
            401,
            "sign_in_required",
        ),
    ] {
        let answer = setup.call(name, &headers).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{name} {headers:?}"
        );
        if code == "callers_token_required" && name != "kept" {
            let told = challenge(&answer).concat();
            assert!(
                told.contains("error=\"invalid_token\"") && told.contains("resource_metadata="),
                "{told}"
            );
        }
    }
    assert_eq!(calls(&setup.upstream).len(), before);
    // What goes on goes without it.
    for (name, header) in [
        ("delegated", "authorization"),
        ("listed", "authorization"),
        ("listed", "x-custom"),
    ] {
        let mut headers = vec![(header, &*one)];
        headers.extend((name == "listed").then_some(key));
        let answer = setup.call(name, &headers).await;
        assert!(matches!(answer.status, 401 | 502), "{name}: {answer:?}");
    }
    // A token that the client got elsewhere is passed on as it is.
    let providers = bearer(&setup.provider.tokens().pop().expect("a token"));
    assert_eq!(
        setup.call("open", &[("authorization", &providers)]).await.status,
        200
    );
    setup.upstream.assert_never_seen(PREFIX);
    // An hour is what the provider gives.
    assert_eq!(
        setup.call("one", &[key, ("authorization", &one)]).await.status,
        200
    );
    setup.gateway.advance(3601);
    let late = setup.call("one", &[key, ("authorization", &one)]).await;
    assert_eq!((late.status, late.code()), (401, "callers_token_required"));
}

#[tokio::test]
async fn without_the_key_a_code_is_not_touched() {
    let setup = Setup::start().await;
    let client = Registered::at(&setup.gateway, "/one").await;
    let code = client.code(&setup.gateway, &Browser::new()).await;
    for (name, value) in [
        ("x-other", "x"),
        ("x-litellm-api-key", "sk-wrong"),
        ("authorization", &*bearer(KEY)),
    ] {
        let request = client.exchange(&setup.gateway, &code, &[]).header(name, value);
        let answer = got(request).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (400, &json!("invalid_request")),
            "{name}"
        );
    }
    assert!(setup.provider.requests_to("/token").is_empty());
    let request = client.exchange(&setup.gateway, &code, &[]);
    let answer = got(request.header("x-litellm-api-key", KEY)).await;
    assert_eq!(answer.status, 200);
    let refresh = answer.body["refresh_token"].as_str().expect("a refresh token");
    let refused = got(client.refresh(&setup.gateway, refresh)).await;
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (400, &json!("invalid_request"))
    );
    assert_eq!(setup.provider.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn tokens_that_no_client_could_show_are_not_passed_through() {
    let setup = Setup::start().await;
    let client = Registered::at(&setup.gateway, "/open").await;
    for (mode, status, expires_in) in [
        (
            TokenMode::With(json!({"access_token": "x".repeat(4000)})),
            502,
            Value::Null,
        ),
        (TokenMode::ExpiresIn(json!(0)), 502, Value::Null),
        (TokenMode::ExpiresIn(Value::Null), 200, json!(3600)),
        (TokenMode::ExpiresIn(json!(60 * 60 * 24 * 365)), 200, json!(86400)),
        (TokenMode::ExpiresIn(json!(90)), 200, json!(90)),
    ] {
        setup.provider.set(|modes| modes.token = mode.clone());
        let code = client.code(&setup.gateway, &Browser::new()).await;
        let answer = got(client.exchange(&setup.gateway, &code, &[])).await;
        assert_eq!(
            (answer.status, &answer.body["expires_in"]),
            (status, &expires_in),
            "{answer:?}"
        );
        if status == 502 {
            assert_eq!(answer.body["error"], "server_error");
        }
    }
}

#[tokio::test]
async fn another_replica_opens_it_and_another_gateway_does_not() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let fields = format!(
        "url: {}\nauth_type: true_passthrough\ndcr_bridge: true",
        upstream.url()
    );
    let servers = entry("open", &fields);
    let keys = tempfile::tempdir().expect("a directory");
    let file = |name: &str, digit: u8| {
        let path = keys.path().join(name);
        std::fs::write(&path, BASE64_STANDARD.encode([digit; 32])).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let (same, other) = (file("a", 1), file("b", 2));
    let start = |keys: &str| {
        let start = Start::new(keyed(&servers)).environment("VESTIBULE_MASTER_KEY_FILE", keys);
        start.start()
    };
    let (first, second, third) = (start(&same).await, start(&same).await, start(&other).await);
    let client = Registered::at(&first, "/open").await;
    let shown = token(&client.tokens(&first).await);
    for (gateway, status) in [(&first, 200), (&second, 200), (&third, 401)] {
        let answer = got(call(gateway, "/open/mcp", &[("authorization", &shown)])).await;
        assert_eq!(answer.status, status);
    }
    upstream.assert_never_seen(PREFIX);
}

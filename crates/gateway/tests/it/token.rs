//! The token endpoint: codes and refresh tokens exchanged at the provider in the gateway's name, and what becomes
//! of everything that a provider may answer.

use crate::browser::{Browser, REDIRECT, Registered, SHARED_ID, VERIFIER, metadata, registering, shared};
use crate::by_hand::{ask, head};
use crate::harness::{
    CLIENT_SECRET, Got, KEY, Start, TestGateway, answer, assert_nothing_secret_logged, echo, got, keyed,
    personal,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use url::form_urlencoded::byte_serialize;
use vestibule_testkit::{Provider, Request, TokenMode, Upstream};

struct Setup {
    provider: Provider,
    upstream: Upstream,
    gateway: TestGateway,
    client: Registered,
}

impl Setup {
    /// A server where our client is registered as the first client asks.
    async fn registering(more: &str) -> Self {
        let provider = Provider::start().await;
        let upstream = provider.upstream().await;
        let gateway = Start::new(personal(&registering("one", &upstream, more), ""))
            .start()
            .await;
        let client = Registered::at(&gateway, "/one").await;
        Self {
            provider,
            upstream,
            gateway,
            client,
        }
    }

    async fn code(&self) -> String {
        self.client.code(&self.gateway, &Browser::new()).await
    }

    /// A code's exchange.
    async fn exchanged(&self, changes: &[(&str, &str)]) -> Got {
        let code = self.code().await;
        got(self.client.exchange(&self.gateway, &code, changes)).await
    }

    /// The call of a tool with this token and the gateway key.
    async fn call(&self, token: &str) -> u16 {
        got(self.gateway.post("/one/mcp", &echo("hi")).bearer_auth(token))
            .await
            .status
    }

    fn last_token_request(&self) -> Request {
        self.provider
            .requests_to("/token")
            .pop()
            .expect("a token request")
    }
}

/// An error of RFC 6749 section 5.2, which nobody keeps.
fn is_error(got: &Got, status: u16, error: &str) -> String {
    assert_eq!(
        (got.status, &got.body["error"], got.header("content-type")),
        (status, &json!(error), "application/json"),
        "{got:?}"
    );
    assert_eq!(
        (got.header("cache-control"), got.header("pragma")),
        ("no-store", "no-cache")
    );
    assert_eq!(got.body["request_id"], got.header("x-request-id"));
    let description = got.body["error_description"].as_str().expect("a description");
    let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
    assert!(
        !description.is_empty() && description.chars().all(allowed),
        "{description}"
    );
    description.to_owned()
}

#[tokio::test]
async fn a_code_is_exchanged_in_the_gateways_name() {
    let setup = Setup::registering("").await;
    let code = setup.code().await;
    let got = got(setup.client.exchange(&setup.gateway, &code, &[])).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert_eq!(
        (got.header("cache-control"), got.header("pragma")),
        ("no-store", "no-cache")
    );
    assert_eq!(got.header("access-control-allow-origin"), "*");
    let access = setup.provider.tokens().pop().expect("a token");
    let refresh = got.body["refresh_token"].clone();
    let expected = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": refresh,
        "scope": "mcp:read",
    });
    assert_eq!(got.body, expected);

    let sent = setup.last_token_request();
    let form: Vec<(String, String)> = sent.form();
    let callback = setup.gateway.url("/callback");
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", &callback),
        ("code_verifier", VERIFIER),
        ("resource", &setup.upstream.url()),
    ] {
        assert_eq!(sent.form_value(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(form.len(), 6, "and the client_id: {form:?}");
    assert!(
        sent.form_value("client_id")
            .expect("ours")
            .starts_with("registered-")
    );
    setup.provider.assert_never_seen("60108");
    assert_eq!(setup.call(&access).await, 200);
    assert_eq!(setup.call("another").await, 401);
    let refresh = refresh.as_str().expect("a token");
    assert_nothing_secret_logged(&[&access, refresh, &code, VERIFIER]);
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_and_rotates() {
    let setup = Setup::registering("").await;
    let tokens = setup.client.tokens(&setup.gateway).await;
    let first = tokens["refresh_token"].as_str().expect("a token");
    let request = setup.client.token_request(
        &setup.gateway,
        &[
            ("grant_type", "refresh_token"),
            ("refresh_token", first),
            ("scope", "mcp:read"),
        ],
    );
    let renewed = got(request).await;
    assert_eq!(
        (renewed.status, renewed.header("cache-control")),
        (200, "no-store"),
        "{renewed:?}"
    );
    let sent = setup.last_token_request();
    let mut names: Vec<String> = sent.form().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["client_id", "grant_type", "refresh_token", "resource", "scope"]
    );
    assert_eq!(sent.form_value("scope").as_deref(), Some("mcp:read"));
    let second = renewed.body["refresh_token"].as_str().expect("a token");
    assert_ne!(first, second);
    assert_eq!(setup.call(&setup.provider.tokens()[1]).await, 200);
    // The provider's word about one that was used before is passed on.
    let again = got(setup.client.refresh(&setup.gateway, first)).await;
    let description = is_error(&again, 400, "invalid_grant");
    assert!(description.contains("was used before"), "{description}");
    is_error(
        &got(setup.client.refresh(&setup.gateway, second)).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn our_client_proves_itself_in_the_way_that_the_provider_takes() {
    for (offered, wished, used) in [
        (&["client_secret_basic"][..], "none", "basic"),
        (&["client_secret_post"], "none", "post"),
        (
            &["client_secret_post", "client_secret_basic"],
            "client_secret_post",
            "post",
        ),
        (&["none"], "client_secret_basic", "none"),
    ] {
        let provider = Provider::start().await;
        provider.set(|modes| modes.auth_methods = offered.iter().map(|name| (*name).to_owned()).collect());
        let upstream = provider.upstream().await;
        let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
        let mut metadata = metadata(&[REDIRECT]);
        metadata["token_endpoint_auth_method"] = json!(wished);
        let client = Registered::with(&gateway, "/one", &metadata).await;
        let tokens = client.tokens(&gateway).await;
        let refresh = tokens["refresh_token"].as_str().expect("a token");
        assert_eq!(answer(client.refresh(&gateway, refresh)).await.0, 200);
        for sent in provider.requests_to("/token") {
            let basic = sent.header("authorization").is_some();
            let secret = sent.form_value("client_secret").is_some();
            let id = sent.form_value("client_id").is_some();
            assert_eq!(
                (basic, secret, id),
                (used == "basic", used == "post", used != "basic"),
                "{offered:?} {wished}"
            );
        }
    }
    // A configured one whose secret needs every kind of encoding.
    let nasty = "s:e%c+r e=t&%2F\"ü/?";
    for method in ["client_secret_post", "client_secret_basic"] {
        let provider = Provider::start().await;
        let more = format!("consent: never\ntoken_endpoint_auth_method: {method}");
        let text = keyed(&shared("one", &provider, &more));
        let text = text.replace(CLIENT_SECRET, "'s:e%c+r e=t&%2F\"ü/?'");
        provider.add_client(SHARED_ID, Some(nasty));
        let gateway = Start::new(text).start().await;
        let client = Registered::at(&gateway, "/one").await;
        client.tokens(&gateway).await;
        assert_nothing_secret_logged(&[nasty]);
    }
}

#[tokio::test]
async fn clients_prove_themselves_by_post_by_basic_or_by_nothing() {
    let setup = Setup::registering("").await;
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let basic =
        |id: &str, secret: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    let bare = [("client_id", ""), ("client_secret", "")];
    for method in ["client_secret_post", "client_secret_basic"] {
        let mut metadata = metadata(&[REDIRECT]);
        metadata["token_endpoint_auth_method"] = json!(method);
        let client = Registered::with(&setup.gateway, "/one", &metadata).await;
        let (id, secret) = (client.id.clone(), client.secret.clone().expect("a secret"));
        let code = client.code(&setup.gateway, &Browser::new()).await;
        let seen = setup.provider.requests_to("/token").len();
        // What does not prove it.
        for (changes, header) in [
            (&[("client_secret", "")][..], None),
            (&[("client_secret", "wrong")], None),
            (&bare, Some(basic(&id, "wrong"))),
            (&bare, Some(basic(&id, ""))),
            (&bare, Some("Basic ###".to_owned())),
            (
                &bare,
                Some(format!("Basic {}", BASE64_STANDARD.encode("no-colon"))),
            ),
            (&bare, Some(basic("nobody", &secret))),
        ] {
            let mut request = client.exchange(&setup.gateway, &code, changes);
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let refused = got(request).await;
            is_error(&refused, 401, "invalid_client");
            assert!(
                refused.header("www-authenticate").starts_with("Basic "),
                "{header:?}"
            );
        }
        // Two ways at once, or two names.
        for (changes, id) in [(&[][..], id.as_str()), (&[("client_secret", "")], "other")] {
            let request = client.exchange(&setup.gateway, &code, changes);
            let refused = got(request.header("authorization", basic(id, &secret))).await;
            is_error(&refused, 400, "invalid_request");
        }
        assert_eq!(setup.provider.requests_to("/token").len(), seen);
        // What does: whatever was registered, either way; encoded as RFC 6749 has it, or as it is.
        let request = client.exchange(&setup.gateway, &code, &[]);
        assert_eq!(got(request).await.status, 200, "{method} by post");
        for (id, secret) in [(id.clone(), secret.clone()), (encoded(&id), encoded(&secret))] {
            let code = client.code(&setup.gateway, &Browser::new()).await;
            let request = client.exchange(&setup.gateway, &code, &bare);
            let request = request.header("authorization", basic(&id, &secret));
            assert_eq!(got(request).await.status, 200, "{method} by basic");
        }
        setup.provider.assert_never_seen(&secret);
        assert_nothing_secret_logged(&[&secret]);
    }
    // A public client needs no secret; LiteLLM's dummy does no harm.
    assert_eq!(setup.exchanged(&[]).await.status, 200);
    assert_eq!(setup.exchanged(&[("client_secret", "dummy")]).await.status, 200);
    let code = setup.code().await;
    let request = setup.client.exchange(&setup.gateway, &code, &bare);
    let request = request.header("authorization", basic(&setup.client.id, ""));
    assert_eq!(got(request).await.status, 200);
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said_before_anybody_is_asked() {
    let setup = Setup::registering("").await;
    let (long, short) = ("v".repeat(129), "v".repeat(42));
    for (changes, error) in [
        (&[("grant_type", "")][..], "invalid_request"),
        (&[("grant_type", "password")], "unsupported_grant_type"),
        (&[("grant_type", "client_credentials")], "unsupported_grant_type"),
        (&[("code", "")], "invalid_request"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("code_verifier", "")], "invalid_request"),
        (&[("code_verifier", &short)], "invalid_grant"),
        (&[("code_verifier", &long)], "invalid_grant"),
        (&[("code_verifier", &format!("{short} "))], "invalid_grant"),
        (&[("redirect_uri", "https://evil.example/cb")], "invalid_grant"),
        (
            &[("redirect_uri", "http://127.0.0.1:60108/other")],
            "invalid_grant",
        ),
    ] {
        let code = setup.code().await;
        let got = got(setup.client.exchange(&setup.gateway, &code, changes)).await;
        is_error(&got, 400, error);
    }
    for body in [
        format!(
            "client_id={0}&client_id={0}&grant_type=authorization_code",
            setup.client.id
        ),
        format!("client_id={}&code=a&code=b", setup.client.id),
    ] {
        let request = setup
            .gateway
            .http
            .post(setup.gateway.url("/one/token"))
            .body(body);
        is_error(&got(request).await, 400, "invalid_request");
    }
    // The head is enough, so that the answer meets nobody who is still sending.
    let huge = head("POST", "/one/token", "Content-Length: 65537\r\n");
    let huge = ask(&setup.gateway, huge).await;
    assert_eq!(
        (huge.status, &huge.json()["error"]),
        (413, &json!("invalid_request"))
    );
    let json = setup.gateway.http.post(setup.gateway.url("/one/token"));
    is_error(
        &got(json.json(&json!({"client_id": "x"}))).await,
        401,
        "invalid_client",
    );
    assert!(setup.provider.requests_to("/token").is_empty());
    // The redirect URI is the one of the authorization request, port and all, or left out (OAuth 2.1).
    let elsewhere = [("redirect_uri", "http://127.0.0.1:1/callback")];
    let code = setup.code().await;
    let other = got(setup.client.exchange(&setup.gateway, &code, &elsewhere)).await;
    is_error(&other, 400, "invalid_grant");
    let code = setup.code().await;
    let without = got(setup
        .client
        .exchange(&setup.gateway, &code, &[("redirect_uri", "")]))
    .await;
    assert_eq!(without.status, 200, "{without:?}");
    // A code counts once, and for the verifier of its challenge alone.
    let again = got(setup.client.exchange(&setup.gateway, &code, &[])).await;
    is_error(&again, 400, "invalid_grant");
    let code = setup.code().await;
    let other = [("code_verifier", "another-verifier-that-is-long-enough-0123456789")];
    is_error(
        &got(setup.client.exchange(&setup.gateway, &code, &other)).await,
        400,
        "invalid_grant",
    );
    assert_eq!(setup.provider.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn odd_answers_that_hold_a_token_work() {
    let setup = Setup::registering("").await;
    for (mode, expires_in) in [
        (TokenMode::NoTokenType, json!(3600)),
        (TokenMode::Nested, json!(3600)),
        (TokenMode::ExpiresIn(json!("43200")), json!(43200)),
        (TokenMode::ExpiresIn(json!(1.5)), json!(1)),
        (TokenMode::ExpiresIn(json!("soon")), Value::Null),
        (TokenMode::ExpiresIn(Value::Null), Value::Null),
        (TokenMode::With(json!({"expires_in": null})), Value::Null),
        (
            TokenMode::With(json!({"token_type": "bearer", "id_token": "canary-id-token"})),
            json!(3600),
        ),
        (
            TokenMode::With(json!({"token_type": "bot", "scope": ["x"]})),
            json!(3600),
        ),
    ] {
        setup.provider.set(|modes| modes.token = mode.clone());
        let got = setup.exchanged(&[]).await;
        assert_eq!(got.status, 200, "{mode:?}: {got:?}");
        assert_eq!(
            (&got.body["token_type"], &got.body["expires_in"]),
            (&json!("Bearer"), &expires_in),
            "{mode:?}"
        );
        let members = got.body.as_object().expect("an object");
        assert_eq!(
            members.contains_key("expires_in"),
            !expires_in.is_null(),
            "{mode:?}"
        );
        let access = setup.provider.tokens().pop().expect("a token");
        assert_eq!(got.body["access_token"], access, "{mode:?}");
        assert!(got.body["refresh_token"].is_string(), "{mode:?}");
        for name in members.keys() {
            let known = [
                "access_token",
                "token_type",
                "expires_in",
                "refresh_token",
                "scope",
            ];
            assert!(known.contains(&name.as_str()), "{mode:?}: {name}");
        }
        assert_eq!(setup.call(&access).await, 200, "{mode:?}");
        let refresh = got.body["refresh_token"].as_str().expect("a token");
        assert_eq!(
            answer(setup.client.refresh(&setup.gateway, refresh)).await.0,
            200,
            "{mode:?}"
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn answers_without_a_token_fail_cleanly_and_are_never_repeated() {
    let setup = Setup::registering("").await;
    let canary = "canary-internal-detail";
    let json = |status: u16, body: Value| TokenMode::Json(status, body);
    for (mode, status, error) in [
        (TokenMode::Html500(canary.into()), 502, "server_error"),
        (TokenMode::LoginPage, 502, "server_error"),
        (
            TokenMode::Redirect(format!("https://evil.example/{canary}")),
            502,
            "server_error",
        ),
        (TokenMode::Close, 502, "server_error"),
        (
            TokenMode::ErrorWith200("bad_verification_code".into()),
            400,
            "invalid_grant",
        ),
        (
            TokenMode::ErrorWith200("invalid_grant".into()),
            400,
            "invalid_grant",
        ),
        (json(200, json!({})), 502, "server_error"),
        (json(200, json!([canary])), 502, "server_error"),
        (
            json(200, json!({"access_token": "", "x": canary})),
            502,
            "server_error",
        ),
        (
            json(200, json!({"access_token": "a b", "x": canary})),
            502,
            "server_error",
        ),
        (
            json(200, json!({"access_token": 7, "x": canary})),
            502,
            "server_error",
        ),
        (
            json(200, json!({"access_token": "x".repeat(20_000)})),
            502,
            "server_error",
        ),
        (
            json(
                200,
                json!({"access_token": "a", "token_type": "mac", "x": canary}),
            ),
            502,
            "server_error",
        ),
        (
            json(200, json!({"ok": false, "error": "invalid_code", "x": canary})),
            400,
            "invalid_grant",
        ),
        (json(400, json!({"message": canary})), 502, "server_error"),
        (json(400, json!({"error": {"code": canary}})), 502, "server_error"),
        (
            json(400, json!({"error": "invalid_request", "x": canary})),
            400,
            "invalid_request",
        ),
        (json(400, json!({"error": "invalid_scope"})), 400, "invalid_scope"),
        (
            json(400, json!({"error": "unauthorized_client", "x": canary})),
            502,
            "server_error",
        ),
        (json(403, json!({"error": "access_denied"})), 403, "access_denied"),
        (
            json(429, json!({"error": "slow_down"})),
            503,
            "temporarily_unavailable",
        ),
        (
            json(503, json!({"error": "temporarily_unavailable"})),
            503,
            "temporarily_unavailable",
        ),
        (
            json(503, json!({"error": "server_error", "x": canary})),
            502,
            "server_error",
        ),
        (
            json(500, json!({"error": "server_error", "x": canary})),
            502,
            "server_error",
        ),
        (
            json(500, json!({"error": "internal_error", "x": canary})),
            502,
            "server_error",
        ),
        (json(500, json!({"error": "invalid_grant"})), 400, "invalid_grant"),
        (
            json(400, json!({"error": "invalid_target", "x": canary})),
            502,
            "server_error",
        ),
        (
            json(400, json!({"error": "unsupported_grant_type"})),
            400,
            "unsupported_grant_type",
        ),
    ] {
        setup.provider.set(|modes| modes.token = TokenMode::Standard);
        let refresh = setup.client.tokens(&setup.gateway).await["refresh_token"].clone();
        setup.provider.set(|modes| modes.token = mode.clone());
        for got in [
            setup.exchanged(&[]).await,
            got(setup
                .client
                .refresh(&setup.gateway, refresh.as_str().expect("a token")))
            .await,
        ] {
            is_error(&got, status, error);
            let text = got.body.to_string();
            for part in [canary, "<html", "password", "evil.example"] {
                assert!(!text.contains(part), "{mode:?}: {text}");
            }
            assert_eq!(got.body["access_token"], Value::Null);
        }
    }
    assert_nothing_secret_logged(&[canary]);
}

#[tokio::test]
async fn what_was_sent_does_not_come_back_in_a_description() {
    let setup = Setup::registering("").await;
    let code = setup.code().await;
    let body = json!({"error": "invalid_grant", "error_description": format!("no code {code} here")});
    setup
        .provider
        .set(|modes| modes.token = TokenMode::Json(400, body));
    let refused = got(setup.client.exchange(&setup.gateway, &code, &[])).await;
    is_error(&refused, 400, "invalid_grant");
    assert!(!refused.body.to_string().contains(&code), "{refused:?}");
    assert_nothing_secret_logged(&[&code]);
}

#[tokio::test]
async fn a_provider_that_is_slow_is_waited_for_and_one_that_never_answers_is_not() {
    let setup = Setup::registering("").await;
    let gate = Arc::new(Semaphore::new(0));
    setup.provider.set(|modes| modes.token_gate = Some(gate.clone()));
    let code = setup.code().await;
    let seen = setup.provider.requests().len();
    let opened = async {
        setup.provider.wait_for(seen + 1).await;
        // Others are served meanwhile.
        let page = got(setup
            .gateway
            .http
            .get(setup.gateway.url("/one/.well-known/oauth-authorization-server")));
        assert_eq!(page.await.status, 200);
        gate.add_permits(1);
    };
    let (slow, ()) = tokio::join!(got(setup.client.exchange(&setup.gateway, &code, &[])), opened);
    assert_eq!(slow.status, 200);

    let text = keyed(&registering("one", &setup.upstream, "")) + "vestibule: {limits: {token_timeout: 1}}\n";
    let hasty = Start::new(text).start().await;
    let client = Registered::at(&hasty, "/one").await;
    let code = client.code(&hasty, &Browser::new()).await;
    let late = got(client.exchange(&hasty, &code, &[])).await;
    is_error(&late, 503, "temporarily_unavailable");
    assert_eq!(late.header("retry-after"), "10");
}

#[tokio::test]
async fn a_configured_client_that_the_provider_refuses_is_the_operators_to_mend() {
    let provider = Provider::start().await;
    let text = keyed(&shared("one", &provider, "consent: never"));
    let gateway = Start::new(text).start().await;
    let client = Registered::at(&gateway, "/one").await;
    let code = client.code(&gateway, &Browser::new()).await;
    provider.add_client(SHARED_ID, Some("changed"));
    let got = got(client.exchange(&gateway, &code, &[])).await;
    let description = is_error(&got, 502, "server_error");
    assert!(
        description.contains("client_secret") && description.contains("one"),
        "{description}"
    );
    assert!(!description.contains("wrong credentials"), "{description}");
    assert_eq!(got.header("www-authenticate"), "");
}

#[tokio::test]
async fn a_token_that_breaks_the_rule_is_neither_given_nor_kept() {
    let rule = "token_validation: {'team.enterprise_id': T12345, 'ok': true}";
    let setup = Setup::registering(rule).await;
    for (members, field) in [
        (json!({"ok": true}), Some("team.enterprise_id")),
        (
            json!({"ok": true, "team": {"enterprise_id": "T9"}}),
            Some("team.enterprise_id"),
        ),
        (
            json!({"ok": true, "team": {"enterprise_id": null}}),
            Some("team.enterprise_id"),
        ),
        (
            json!({"ok": false, "team": {"enterprise_id": "T12345"}}),
            Some("ok"),
        ),
        (json!({"ok": true, "team": {"enterprise_id": "T12345"}}), None),
        (json!({"ok": "true", "team.enterprise_id": "T12345"}), None),
    ] {
        setup
            .provider
            .set(|modes| modes.token = TokenMode::With(members.clone()));
        let code = setup.code().await;
        let request = setup.client.exchange(&setup.gateway, &code, &[]);
        let got = got(request.header("x-litellm-api-key", KEY)).await;
        let with_key = answer(setup.gateway.post("/one/mcp", &echo("hi"))).await;
        let Some(field) = field else {
            assert_eq!((got.status, with_key.0), (200, 200), "{members}: {got:?}");
            continue;
        };
        assert_eq!(
            (got.status, got.header("cache-control"), with_key.0),
            (403, "no-store", 401),
            "{members}: {got:?}"
        );
        let detail = &got.body["detail"];
        assert_eq!(
            (&detail["error"], &detail["field"]),
            (&json!("token_validation_failed"), &json!(field)),
            "{members}"
        );
        assert!(detail["server_id"].is_string() && detail["message"].is_string());
        let text = got.body.to_string();
        for secret in ["canary-access", "canary-refresh", "T9", "T12345"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn with_the_gateway_key_the_tokens_are_kept_and_without_it_they_are_not() {
    for (name, value) in [
        ("x-litellm-api-key", format!("Bearer {KEY}")),
        ("x-litellm-api-key", KEY.to_owned()),
        ("authorization", format!("Bearer {KEY}")),
    ] {
        let setup = Setup::registering("").await;
        assert_eq!(setup.exchanged(&[]).await.status, 200);
        let call = || answer(setup.gateway.post("/one/mcp", &echo("hi")));
        assert_eq!(call().await.0, 401, "nobody was named");
        let wrong = setup.client.exchange(&setup.gateway, &setup.code().await, &[]);
        let wrong = got(wrong.header("x-litellm-api-key", "sk-wrong")).await;
        assert_eq!((wrong.status, call().await.0), (200, 401), "nobody is known");
        let request = setup.client.exchange(&setup.gateway, &setup.code().await, &[]);
        assert_eq!(got(request.header(name, &value)).await.status, 200, "{name}");
        assert_eq!(call().await.0, 200, "{name}: {value}");
        setup.provider.assert_never_seen(KEY);
        setup.upstream.assert_never_seen(KEY);
        assert_nothing_secret_logged(&[]);
    }
}

#[tokio::test]
async fn a_code_of_one_server_is_of_no_use_at_another() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let (one, two) = (first.upstream().await, second.upstream().await);
    let servers = registering("one", &one, "") + &registering("two", &two, "");
    let gateway = TestGateway::with_servers(&servers).await;
    let client = Registered::at(&gateway, "/one").await;
    let other = Registered::at(&gateway, "/two").await;
    let code = client.code(&gateway, &Browser::new()).await;
    // With the client of the first, and with one of the second's own.
    let stolen = Registered {
        path: "/two".into(),
        ..client
    };
    is_error(
        &got(stolen.exchange(&gateway, &code, &[])).await,
        401,
        "invalid_client",
    );
    assert!(second.requests_to("/token").is_empty());
    is_error(
        &got(other.exchange(&gateway, &code, &[])).await,
        400,
        "invalid_grant",
    );
    assert!(first.requests_to("/token").is_empty() && second.tokens().is_empty());
    // It is still good where it belongs.
    let client = Registered {
        path: "/one".into(),
        ..stolen
    };
    assert_eq!(got(client.exchange(&gateway, &code, &[])).await.status, 200);
    // And once.
    is_error(
        &got(client.exchange(&gateway, &code, &[])).await,
        400,
        "invalid_grant",
    );
}

//! A person's own tokens at LiteLLM's management addresses: shown without a secret, kept by hand, forgotten and revoked.

use crate::browser::{Browser, Registered, registering, shared};
use crate::harness::{Got, KEY, Start, TestGateway, answer, echo, got, keyed, personal};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Provider, Upstream};

const ONE: &str = "/v1/mcp/server/one/oauth-user-credential";
const LIST: &str = "/v1/mcp/user-credentials";

async fn start() -> (Provider, Upstream, TestGateway) {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = Start::new(personal(&registering("one", &upstream, ""), ""))
        .start()
        .await;
    (provider, upstream, gateway)
}

/// Signs in with the key on the token request, so that the tokens are kept.
async fn sign_in(gateway: &TestGateway, path: &str) {
    let client = Registered::at(gateway, path).await;
    let code = client.code(gateway, &Browser::new()).await;
    let request = client
        .exchange(gateway, &code, &[])
        .header("x-litellm-api-key", KEY);
    assert_eq!(got(request).await.status, 200);
}

async fn ask(gateway: &TestGateway, method: Method, path: &str, body: Option<Value>) -> Got {
    let request = gateway
        .http
        .request(method, gateway.url(path))
        .header("x-litellm-api-key", KEY);
    got(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

async fn status(gateway: &TestGateway) -> Value {
    let got = ask(gateway, Method::GET, &format!("{ONE}/status"), None).await;
    assert_eq!((got.status, got.header("cache-control")), (200, "no-store"));
    got.body
}

#[tokio::test]
async fn what_is_kept_is_shown_without_a_secret_and_forgotten_and_revoked() {
    let (provider, _upstream, gateway) = start().await;
    assert_eq!(status(&gateway).await["has_credential"], false);
    assert_eq!(ask(&gateway, Method::GET, LIST, None).await.body, json!([]));
    sign_in(&gateway, "/one").await;
    let shown = status(&gateway).await;
    assert_eq!(
        (
            &shown["has_credential"],
            &shown["is_expired"],
            &shown["is_renewable"]
        ),
        (&json!(true), &json!(false), &json!(true))
    );
    // The test's clock begins at 2001-09-09T01:46:40Z.
    assert_eq!(shown["connected_at"], "2001-09-09T01:46:40Z");
    assert_eq!(shown["expires_at"], "2001-09-09T02:46:40Z");
    let list = ask(&gateway, Method::GET, LIST, None).await.body;
    assert_eq!(
        (&list[0]["server_name"], &list[0]["credential_type"], &list[1]),
        (&json!("one"), &json!("oauth2"), &Value::Null)
    );
    for text in [shown.to_string(), list.to_string()] {
        assert!(
            provider.tokens().iter().all(|token| !text.contains(token)),
            "{text}"
        );
    }
    gateway.advance(3601);
    assert_eq!(status(&gateway).await["is_expired"], true);

    let gone = ask(&gateway, Method::DELETE, ONE, None).await;
    assert_eq!((gone.status, &gone.body["has_credential"]), (200, &json!(false)));
    let revoked = provider.requests_to("/revoke");
    assert_eq!(revoked.len(), 1);
    assert_eq!(
        revoked[0].form_value("token_type_hint").as_deref(),
        Some("refresh_token")
    );
    // The refresh token takes the access tokens along (RFC 7009 section 2.1).
    let token = revoked[0].form_value("token").expect("a token");
    assert!(token.starts_with("canary-refresh-"), "{token}");
    provider.assert_never_seen(KEY);
    assert_eq!(answer(gateway.post("/one/mcp", &echo("a"))).await.0, 401);
    let again = ask(&gateway, Method::DELETE, ONE, None).await;
    assert_eq!(
        (again.status, &again.body["error"]["code"]),
        (404, &json!("no_credential"))
    );
}

/// A day and an hour: what is known of where people sign in is looked up anew before it is used.
const LATER: u64 = 25 * 60 * 60;

#[tokio::test]
async fn nothing_is_revoked_where_another_authorization_server_says() {
    let (provider, upstream, gateway) = start().await;
    let evil = Provider::start().await;
    let forget = async || {
        gateway.advance(LATER);
        let gone = ask(&gateway, Method::DELETE, ONE, None).await;
        assert_eq!((gone.status, &gone.body["has_credential"]), (200, &json!(false)));
    };

    // The right authorization server, but for where it takes revocations.
    sign_in(&gateway, "/one").await;
    let elsewhere = json!({"revocation_endpoint": format!("{}/revoke", evil.issuer())});
    provider.set(|modes| modes.metadata = elsewhere);
    forget().await;
    assert_eq!(evil.requests().len(), 0);

    // Another one altogether.
    provider.set(|modes| modes.metadata = json!({}));
    gateway.advance(LATER);
    sign_in(&gateway, "/one").await;
    upstream.describe(&json!({"resource": upstream.url(), "authorization_servers": [evil.issuer()]}));
    forget().await;
    assert!(!evil.requests().is_empty(), "its metadata is read");
    assert!(evil.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(provider.requests_to("/revoke").len(), 0);

    // The one that issued them is told.
    upstream.describe(&json!({"resource": upstream.url(), "authorization_servers": [provider.issuer()]}));
    gateway.advance(LATER);
    sign_in(&gateway, "/one").await;
    forget().await;
    assert_eq!(provider.requests_to("/revoke").len(), 1);
}

#[tokio::test]
async fn one_server_is_forgotten_and_the_others_are_not() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let servers = registering("one", &upstream, "") + &registering("two", &upstream, "");
    let gateway = Start::new(personal(&servers, "")).start().await;
    sign_in(&gateway, "/one").await;
    sign_in(&gateway, "/two").await;
    let call = |path: &'static str| answer(gateway.post(path, &echo("a")));
    assert_eq!((call("/one/mcp").await.0, call("/two/mcp").await.0), (200, 200));
    assert_eq!(ask(&gateway, Method::DELETE, ONE, None).await.status, 200);
    assert_eq!((call("/one/mcp").await.0, call("/two/mcp").await.0), (401, 200));
}

#[tokio::test]
async fn tokens_from_elsewhere_are_kept_too() {
    let (provider, upstream, gateway) = start().await;
    // Somebody else's way to a token of this provider: a client that signed in without the key.
    let elsewhere = Registered::at(&gateway, "/one").await.tokens(&gateway).await;
    let brought = json!({"access_token": elsewhere["access_token"], "expires_in": 60, "scopes": ["a", "b"]});
    let kept = ask(&gateway, Method::POST, ONE, Some(brought)).await;
    assert_eq!(
        (
            kept.status,
            &kept.body["has_credential"],
            &kept.body["is_renewable"]
        ),
        (200, &json!(true), &json!(false)),
        "{kept:?}"
    );
    assert_eq!(answer(gateway.post("/one/mcp", &echo("a"))).await.0, 200);
    upstream.assert_never_seen(KEY);
    for wrong in [
        json!({}),
        json!({"access_token": 1}),
        json!({"access_token": ""}),
        json!({"access_token": "a\nb"}),
        // A token response as it is: its scope would be lost without a word.
        json!({"access_token": "a", "token_type": "Bearer", "scope": "a b"}),
        // There is no client that it could be refreshed with.
        json!({"access_token": "a", "refresh_token": "b"}),
    ] {
        let refused = ask(&gateway, Method::POST, ONE, Some(wrong.clone())).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (400, &json!("missing_parameter")),
            "{wrong}"
        );
    }
    // With a configured client a refresh token is renewed like any other.
    let servers = shared("one", &provider, "");
    let shared = Start::new(personal(&servers, "")).start().await;
    let brought = json!({"access_token": "over", "refresh_token": "unknown", "expires_in": 1});
    let kept = ask(&shared, Method::POST, ONE, Some(brought)).await;
    assert_eq!(kept.body["is_renewable"], true, "{kept:?}");
    shared.advance(2);
    assert_eq!(answer(shared.post("/one/mcp", &echo("a"))).await.0, 401);
    let asked = provider.requests_to("/token");
    assert_eq!(
        asked
            .last()
            .and_then(|request| request.form_value("refresh_token"))
            .as_deref(),
        Some("unknown")
    );
}

#[tokio::test]
async fn a_token_from_elsewhere_is_revoked_by_the_configured_client() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let bring = async |more: &str| {
        let servers = registering("one", &upstream, more);
        let gateway = Start::new(personal(&servers, "")).start().await;
        let brought = json!({"access_token": "canary-from-elsewhere", "expires_in": 600});
        let kept = ask(&gateway, Method::POST, ONE, Some(brought)).await;
        assert_eq!(kept.status, 200, "{kept:?}");
        assert_eq!(ask(&gateway, Method::DELETE, ONE, None).await.status, 200);
        gateway.row("kind=sign_in").await
    };
    // There is nobody who could revoke it.
    let row = bring("").await;
    assert_eq!(
        (&row["outcome"], &row["trace"]["sign_in"]["step"]),
        (&json!("not_revoked"), &json!("revocation"))
    );
    let said = row["trace"]["sign_in"]["description"]
        .as_str()
        .expect("a sentence");
    assert!(said.contains("brought by hand"), "{said}");
    assert!(provider.requests_to("/revoke").is_empty());

    provider.add_client("ours", Some("canary-secret"));
    let row = bring("client_id: ours\nclient_secret: canary-secret").await;
    assert_eq!(row["outcome"], "ok", "{row:#}");
    let revoked = provider.requests_to("/revoke");
    assert_eq!(revoked.len(), 1);
    assert_eq!(
        (
            revoked[0].form_value("token").as_deref(),
            revoked[0].form_value("token_type_hint").as_deref()
        ),
        (Some("canary-from-elsewhere"), Some("access_token"))
    );
}

#[tokio::test]
async fn who_has_no_key_or_is_nobody_in_particular_is_told_so() {
    let (_provider, upstream, gateway) = start().await;
    for (method, path) in [
        (Method::GET, LIST),
        (Method::GET, "/v1/mcp/server/one/oauth-user-credential/status"),
        (Method::POST, ONE),
        (Method::DELETE, ONE),
    ] {
        let request = gateway.http.request(method.clone(), gateway.url(path));
        assert_eq!(got(request).await.status, 401, "{method} {path}");
    }
    for path in [
        "/v1/mcp/server/nobody/oauth-user-credential",
        "/v1/mcp/server/nobody/oauth-user-credential/status",
    ] {
        let got = ask(&gateway, Method::GET, path, None).await;
        assert!(matches!(got.status, 404 | 405), "{path}: {got:?}");
    }
    // A key that several people share is nobody's in particular.
    let shared = Start::new(keyed(&registering("one", &upstream, "")))
        .start()
        .await;
    for (method, path) in [(Method::GET, LIST), (Method::DELETE, ONE)] {
        let refused = ask(&shared, method, path, None).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (400, &json!("no_person"))
        );
    }
    sign_in(&shared, "/one").await;
    assert_eq!(answer(shared.post("/one/mcp", &echo("a"))).await.0, 401);
}

//! Token endpoints that are slow, down, lost, or say no. Each time: a JSON-RPC error under the request's own id
//! with a stable code, nothing of the body in it, nothing kept, no storm, and a recovery.

use crate::harness::{
    CLIENT_SECRET, Got, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, got, keyed, machine,
    wire_post,
};
use crate::tokens::trio;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use vestibule_testkit::{Idp, RawClient, Reply, Upstream, free_addr};

const BODY_CANARY: &str = "canary-in-the-body-of-the-token-endpoint";

fn raw(status: u16, content_type: &str, body: &str) -> Reply {
    Reply::Raw {
        status,
        content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
        headers: vec![],
        body: body.as_bytes().to_vec(),
    }
}

fn token_with(extra: Value) -> Reply {
    let Value::Object(extra) = extra else {
        panic!("an object")
    };
    Reply::Token {
        expires_in: Some(json!(3600)),
        extra,
    }
}

async fn call(gateway: &TestGateway) -> Got {
    got(gateway.post("/one/mcp", &echo("x"))).await
}

/// What holds for every refusal for want of a token.
fn assert_refused(refusal: &Got, status: u16, code: &str, what: &str) {
    assert_eq!(
        (refusal.status, refusal.code()),
        (status, code),
        "{what}: {}",
        refusal.body
    );
    assert_eq!(
        (&refusal.body["jsonrpc"], &refusal.body["id"]),
        (&json!("2.0"), &json!(7)),
        "{what}"
    );
    assert!(
        refusal.body["error"]["code"].is_i64() && refusal.body["error"]["message"].is_string(),
        "{what}"
    );
    assert_eq!(refusal.header("content-type"), "application/json", "{what}");
    assert_eq!(
        refusal.header("x-request-id"),
        refusal.body["error"]["data"]["request_id"],
        "{what}"
    );
    assert_eq!(refusal.header("retry-after"), "1", "{what}");
    let text = format!("{:?}{}", refusal.headers, refusal.body);
    for secret in [BODY_CANARY, CLIENT_SECRET, KEY, "password", "tk-canary"] {
        assert!(!text.contains(secret), "{what}: {secret} came through: {text}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of faults")]
async fn every_fault_is_a_refusal_with_its_code_and_is_followed_by_a_back_off_and_a_recovery() {
    let body = |text: &str| raw(200, "application/json", text);
    let answers_nothing = "token_response_invalid";
    let faults = [
        ("a dropped connection", Reply::Drop, "token_endpoint_unreachable"),
        ("a login page", Reply::Html, answers_nothing),
        ("a page", raw(200, "text/html", BODY_CANARY), answers_nothing),
        (
            "a server error",
            raw(500, "text/plain", BODY_CANARY),
            answers_nothing,
        ),
        ("a not found", raw(404, "", BODY_CANARY), answers_nothing),
        ("an empty answer", body(""), answers_nothing),
        (
            "a list",
            body(r#"[{"access_token":"tk-canary"}]"#),
            answers_nothing,
        ),
        ("a huge answer", Reply::Huge { mebibytes: 1 }, answers_nothing),
        ("a truncated answer", Reply::Truncated, answers_nothing),
        ("a refusal", Reply::error(401, "invalid_client"), "token_refused"),
        (
            "an overload",
            Reply::error(503, "temporarily_unavailable"),
            "token_refused",
        ),
        (
            "an error with status 200",
            Reply::Json(json!({"error": "invalid_scope", "hint": BODY_CANARY})),
            "token_refused",
        ),
        (
            "an error beside a token",
            token_with(json!({"error": "invalid_scope"})),
            "token_refused",
        ),
        (
            "another type of token",
            token_with(json!({"token_type": "DPoP"})),
            answers_nothing,
        ),
        (
            "a type that is no text",
            token_with(json!({"token_type": 1})),
            answers_nothing,
        ),
        (
            "no token",
            token_with(json!({"access_token": null})),
            answers_nothing,
        ),
        (
            "an empty token",
            token_with(json!({"access_token": ""})),
            answers_nothing,
        ),
        (
            "a token that is no text",
            token_with(json!({"access_token": {"x": BODY_CANARY}})),
            answers_nothing,
        ),
        (
            "a line break in a token",
            token_with(json!({"access_token": "tk-canary\r\nx: y"})),
            answers_nothing,
        ),
        (
            "a zero byte in a token",
            token_with(json!({"access_token": "tk-canary\u{0}"})),
            answers_nothing,
        ),
        (
            "a space in a token",
            token_with(json!({"access_token": "tk canary"})),
            answers_nothing,
        ),
        (
            "a token that fits no header",
            token_with(json!({"access_token": "x".repeat(17 * 1024)})),
            answers_nothing,
        ),
    ];
    for (what, fault, code) in faults {
        let (idp, upstream, gateway) = trio("").await;
        idp.push(fault);
        assert_refused(&call(&gateway).await, 502, code, what);
        for _ in 0..3 {
            assert_refused(&call(&gateway).await, 502, code, what);
        }
        assert_eq!(
            idp.requests().len(),
            1,
            "{what}: within the back-off nothing is asked for"
        );
        assert!(upstream.requests().is_empty(), "{what}: no token, no call");
        gateway.advance(1);
        assert_eq!(call(&gateway).await.status, 200, "{what}");
        assert_eq!(call(&gateway).await.status, 200, "{what}");
        assert_eq!(idp.requests().len(), 2, "{what}");
        assert_nothing_secret_logged(&[BODY_CANARY]);
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (idp, upstream, gateway) = trio("").await;
        let elsewhere = Idp::start().await;
        idp.push(Reply::Redirect {
            status,
            location: elsewhere.url(),
        });
        let refusal = call(&gateway).await;
        assert_refused(&refusal, 502, "token_endpoint_redirect", "a redirect");
        assert!(!refusal.body.to_string().contains(&elsewhere.base()));
        assert_eq!(elsewhere.connections(), 0, "{status}");
        assert!(upstream.requests().is_empty());
        gateway.advance(1);
        assert_eq!(call(&gateway).await.status, 200);
    }
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_named_unreachable() {
    let upstream = Upstream::start().await;
    let token_url = format!("http://{}/token", free_addr());
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &token_url, "")).await;
    assert_refused(&call(&gateway).await, 502, "token_endpoint_unreachable", "down");
    assert_refused(&call(&gateway).await, 502, "token_endpoint_unreachable", "down");
    let failed = r#"vestibule_token_requests_total{server="one",result="failed"}"#;
    assert_eq!(gateway.metric(failed).await, 1);
    gateway.advance(1);
    assert_eq!(call(&gateway).await.status, 502);
    assert_eq!(gateway.metric(failed).await, 2);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_slow_token_endpoint_is_given_up_in_time() {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    let text = keyed(&machine("one", &upstream.url(), &idp.url(), ""));
    let gateway = Start::new(format!("{text}vestibule:\n  limits:\n    token_timeout: 0.2\n"))
        .start()
        .await;
    idp.push(Reply::Hang);
    assert_refused(&call(&gateway).await, 504, "token_endpoint_timeout", "silence");
    idp.wait_for_abandoned(1).await;
    assert_refused(&call(&gateway).await, 504, "token_endpoint_timeout", "silence");
    assert_eq!(idp.requests().len(), 1);
    gateway.advance(1);
    assert_eq!(call(&gateway).await.status, 200);
    assert!(idp.requests().len() == 2 && upstream.requests().len() == 1);
}

#[tokio::test]
async fn the_wait_after_a_fault_doubles_and_ends_with_a_success() {
    let (idp, _upstream, gateway) = trio("").await;
    for _ in 0..3 {
        idp.push(Reply::error(400, "invalid_scope"));
    }
    for (moved, requests, retry_after) in [(0, 1, "1"), (1, 2, "2"), (1, 2, "1"), (1, 3, "4"), (3, 3, "1")] {
        gateway.advance(moved);
        let refusal = call(&gateway).await;
        assert_eq!(
            (idp.requests().len(), refusal.header("retry-after")),
            (requests, retry_after)
        );
    }
    gateway.advance(1);
    assert_eq!(call(&gateway).await.status, 200);
    // The next fault begins at one second again.
    gateway.advance(3600);
    idp.push(Reply::error(400, "invalid_scope"));
    assert_eq!(call(&gateway).await.header("retry-after"), "1");
}

#[tokio::test]
async fn what_the_authorization_server_said_comes_through() {
    let (idp, _upstream, gateway) = trio("").await;
    let description = Some("The scope mcp:admin is not \"yours\".\u{1b}[31m".to_owned());
    idp.push(Reply::OAuthError {
        status: 400,
        error: "invalid_scope".into(),
        description,
    });
    let refusal = call(&gateway).await;
    assert_refused(&refusal, 502, "token_refused", "a refusal");
    let error = &refusal.body["error"];
    assert_eq!(error["data"]["oauth_error"], "invalid_scope");
    assert_eq!(
        error["data"]["oauth_error_description"],
        "The scope mcp:admin is not yours.[31m"
    );
    let message = error["message"].as_str().expect("text");
    assert!(
        message.contains("invalid_scope (The scope mcp:admin is not yours.[31m)"),
        "{message}"
    );

    gateway.advance(1);
    idp.push(Reply::error(401, "invalid_client"));
    let refusal = call(&gateway).await;
    assert_eq!(refusal.body["error"]["data"]["oauth_error"], "invalid_client");
    assert_eq!(refusal.body["error"]["data"].get("oauth_error_description"), None);
}

#[tokio::test]
async fn a_secret_that_the_authorization_server_repeats_stops_here() {
    let secret = "s3cret+canary/0123456789%=";
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let pair = BASE64_STANDARD.encode(format!("canary-id:{encoded}"));
    for method in ["client_secret_post", "client_secret_basic"] {
        for repeated in [secret, encoded.as_str(), pair.as_str()] {
            let idp = Idp::start().await;
            let upstream = Upstream::start().await;
            let server = format!(
                "  one:\n    url: {}\n    auth_type: oauth2\n    client_id: canary-id\n    client_secret: '{secret}'\n    \
                 token_url: {}\n    token_endpoint_auth_method: {method}\n",
                upstream.url(),
                idp.url()
            );
            let gateway = Start::new(keyed(&server)).start().await;
            let description = Some(format!("no client with {repeated} here"));
            idp.push(Reply::OAuthError {
                status: 401,
                error: "invalid_client".into(),
                description,
            });
            let refusal = call(&gateway).await;
            assert_eq!((refusal.status, refusal.code()), (502, "token_refused"));
            assert_eq!(refusal.body["error"]["data"]["oauth_error"], "invalid_client");
            let shown = refusal.body.to_string();
            assert!(!shown.contains(repeated), "{method}: {shown}");

            gateway.advance(1);
            idp.push(Reply::error(401, &format!("bad_{repeated}")));
            let refusal = call(&gateway).await;
            assert_eq!(refusal.code(), "token_response_invalid");
            assert!(
                !refusal.body.to_string().contains(repeated),
                "{method}: {}",
                refusal.body
            );
            assert_nothing_secret_logged(&[repeated]);
        }
    }
}

#[tokio::test]
async fn every_kind_of_id_comes_back_and_a_notification_gets_none() {
    let (idp, _upstream, gateway) = trio("").await;
    idp.set_default(Reply::error(400, "invalid_scope"));
    for id in [
        json!(0),
        json!("a \"b\""),
        json!(9_007_199_254_740_993_u64),
        json!(""),
    ] {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
        let refusal = got(gateway.post("/one/mcp", &message)).await;
        assert_eq!((refusal.code(), &refusal.body["id"]), ("token_refused", &id));
    }
    let message = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let refusal = got(gateway.post("/one/mcp", &message)).await;
    assert_eq!((refusal.code(), refusal.body.get("id")), ("token_refused", None));
    // GET and DELETE carry no message; their refusal is plain.
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = gateway.http.request(method, gateway.url("/one/mcp"));
        let refusal = got(request.header("x-litellm-api-key", KEY)).await;
        assert_eq!((refusal.status, refusal.code()), (502, "token_refused"));
        assert_eq!(refusal.body.get("jsonrpc"), None);
    }
}

#[tokio::test]
async fn everybody_who_waited_gets_the_same_refusal() {
    let (idp, upstream, gateway) = trio("").await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    idp.push(Reply::error(400, "invalid_scope").behind(&gate));
    let mut callers = Vec::new();
    for _ in 0..50 {
        let mut caller = RawClient::connect(gateway.address).await.expect("connected");
        caller
            .write(wire_post("/one/mcp", &echo("x")))
            .await
            .expect("written");
        callers.push(caller);
    }
    idp.wait_for(1).await;
    gate.add_permits(1);
    for caller in &mut callers {
        let response = caller.read_response().await.expect("answered");
        assert_eq!(
            (response.status, &response.json()["error"]["data"]["oauth_error"]),
            (502, &json!("invalid_scope"))
        );
    }
    assert_eq!(idp.requests().len(), 1);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn the_rest_facade_says_the_same() {
    let (idp, _upstream, gateway) = trio("").await;
    idp.set_default(Reply::OAuthError {
        status: 400,
        error: "invalid_scope".into(),
        description: Some("Not this one.".into()),
    });
    let list = gateway
        .http
        .get(gateway.url("/mcp-rest/tools/list"))
        .header("x-litellm-api-key", KEY);
    let list = got(list).await;
    assert_eq!(
        (list.status, &list.body["error"]),
        (502, &json!("partial_failure")),
        "{}",
        list.body
    );
    assert_eq!(list.body["server_outcomes"]["one"]["status"], "token_refused");
    let call = gateway.post(
        "/mcp-rest/tools/call",
        &json!({"name": "echo", "arguments": {}, "server_id": "one"}),
    );
    let call = got(call).await;
    assert_eq!((call.status, call.code()), (502, "token_refused"));
    let message = call.body["detail"]["message"].as_str().expect("text");
    assert!(message.contains("invalid_scope"), "{message}");
    assert_eq!(call.header("x-request-id"), call.body["detail"]["request_id"]);
}

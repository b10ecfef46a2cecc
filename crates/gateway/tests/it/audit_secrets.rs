//! What is in no row and in no export: keys, tokens, codes, states, verifiers, client secrets, arguments. And texts from
//! outside stay texts.

use crate::audit_harness::{Kept, only};
use crate::browser::{Browser, Registered, STATE, VERIFIER, registering};
use crate::harness::{CLIENT_SECRET, KEY, TestGateway, echo, entry, got, machine, personal};
use serde_json::{Value, json};
use vestibule_testkit::{Idp, Provider, Upstream};

/// Calls with every kind of credential, and arguments that nobody is to keep.
async fn calls(gateway: &TestGateway, key: &str) {
    for path in ["/one/mcp", "/two/mcp", "/four/mcp", "/mcp"] {
        let call = gateway
            .http
            .post(gateway.url(path))
            .header("x-litellm-api-key", key);
        let call = call.header("accept", "application/json, text/event-stream");
        got(call.json(&echo("canary-argument"))).await;
    }
    got(gateway
        .http
        .post(gateway.url("/three/mcp"))
        .bearer_auth("canary-own-token")
        .header("accept", "application/json, text/event-stream")
        .json(&echo("canary-argument")))
    .await;
    got(gateway
        .post("/four/mcp?token=canary-in-the-query", &echo("canary-argument"))
        .header("x-mcp-four-authorization", "Bearer canary-per-request"))
    .await;
    let rest = json!({"server_id": "four", "name": "echo", "arguments": {"message": "canary-argument"}});
    got(gateway.post("/mcp-rest/tools/call", &rest)).await;
    got(gateway
        .http
        .post(gateway.url("/one/mcp"))
        .bearer_auth("canary-wrong-key")
        .json(&echo("canary-argument")))
    .await;
}

#[tokio::test]
async fn no_row_and_no_export_has_a_secret() {
    let (provider, idp, open) = (
        Provider::start().await,
        Idp::start().await,
        Upstream::start().await,
    );
    let people = provider.upstream().await;
    let machines = Upstream::start().await;
    machines.accept_if(idp.issued());
    let servers = registering("one", &people, "")
        + &machine("two", &machines.url(), &format!("{}/token", idp.url()), "")
        + &entry(
            "three",
            &format!("url: {}\nauth_type: true_passthrough", open.url()),
        )
        + &entry(
            "four",
            &format!(
                "url: {}\nauth_type: bearer_token\nauthentication_token: canary-static-token",
                open.url()
            ),
        );
    let kept = Kept::new();
    let key = kept
        .key("ann", Some("ann"), &only(&["one", "two", "three", "four"]))
        .await;
    let gateway = kept.start(personal(&servers, "")).start().await;
    let client = Registered::at(&gateway, "/one").await;
    let code = client.code(&gateway, &Browser::new()).await;
    let exchanged = got(client
        .exchange(&gateway, &code, &[])
        .header("x-litellm-api-key", &key))
    .await;
    assert_eq!(exchanged.status, 200, "{exchanged:?}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let refresh_token = text(&exchanged.body["refresh_token"]);
    got(client
        .refresh(&gateway, &refresh_token)
        .header("x-litellm-api-key", &key))
    .await;
    got(client.exchange(&gateway, &code, &[])).await;
    calls(&gateway, &key).await;
    let last = got(gateway.post("/none/mcp", &echo("canary-argument"))).await;
    gateway
        .row(&format!("request_id={}", last.header("x-request-id")))
        .await;

    let export = gateway
        .get_with(KEY, "/v1/audit/export")
        .send()
        .await
        .expect("answered");
    let export = export.text().await.expect("a body");
    assert!(export.lines().count() >= 10, "{export}");
    let rows = gateway.rows("limit=500").await;
    let rows = json!(rows).to_string();
    let database = String::from_utf8_lossy(&kept.bytes()).into_owned();
    let mut secrets: Vec<String> = [KEY, CLIENT_SECRET, &key, &code, &refresh_token, STATE, VERIFIER]
        .map(str::to_owned)
        .to_vec();
    secrets.extend(provider.tokens());
    secrets.extend(idp.tokens());
    secrets.push(text(&exchanged.body["access_token"]));
    let canaries = [
        "canary-argument",
        "canary-static-token",
        "canary-own-token",
        "canary-in-the-query",
        "canary-per-request",
        "canary-wrong-key",
    ];
    secrets.extend(canaries.map(str::to_owned));
    for secret in &secrets {
        for (place, text) in [
            ("an export", &export),
            ("a row", &rows),
            ("the database", &database),
        ] {
            assert!(!text.contains(secret.as_str()), "{secret} is in {place}");
        }
    }
}

#[tokio::test]
async fn texts_from_outside_stay_texts() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let nasty = "<img src=x onerror=alert(1)>\u{1b}[2J\n{\"outcome\":\"ok\"}\u{0}\u{202e}";
    let mut call = echo("x");
    call["params"]["name"] = json!(nasty);
    let agent = "<b>\u{9}agent\u{9b}31m é";
    let agent = reqwest::header::HeaderValue::from_bytes(agent.as_bytes()).expect("a value");
    got(gateway.post("/one/mcp", &call).header("user-agent", agent)).await;
    let row = gateway.row("kind=call").await;
    assert_eq!(row["tool"], "<img src=x onerror=alert(1)>[2J{\"outcome\":\"ok\"}");
    assert_eq!(row["client"], "<b>agent31m é");
    // An export stays one line a row.
    let export = gateway
        .get_with(KEY, "/v1/audit/export")
        .send()
        .await
        .expect("answered");
    let export = export.text().await.expect("a body");
    let lines: Vec<Value> = export
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["tool"], row["tool"]);
    // Long names are cut, and a message that says two things is said to.
    let mut call = echo("x");
    call["params"]["name"] = json!("long ".repeat(1000));
    let first = got(gateway.post("/one/mcp", &call)).await;
    let row = gateway
        .row(&format!("request_id={}", first.header("x-request-id")))
        .await;
    assert!(
        row["tool"]
            .as_str()
            .is_some_and(|tool| tool.len() < 210 && tool.ends_with("..."))
    );
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"good","name":"bad"}}"#;
    let request = gateway.post("/one/mcp", &Value::Null).body(twice);
    let second = got(request).await;
    let row = gateway
        .row(&format!("request_id={}", second.header("x-request-id")))
        .await;
    assert_eq!(
        (&row["tool"], &row["trace"]["target"]["unreadable"]),
        (&Value::Null, &json!(true))
    );
}

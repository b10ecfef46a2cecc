//! The debug headers show where a call went and with what, and no secret.

use crate::by_hand::Watched;
use crate::harness::{Got, KEY, TestGateway, echo, entry, got};
use vestibule_testkit::Answer;

/// `tools/call echo` with the debug headers asked for and this `Authorization`.
async fn debugged(gateway: &TestGateway, authorization: &str) -> Got {
    let call = gateway.http.post(gateway.url("/one/mcp")).json(&echo("x"));
    let call = call.header("x-litellm-api-key", KEY);
    let call = call.header("x-litellm-mcp-debug", "true");
    got(call.header("authorization", authorization)).await
}

#[tokio::test]
async fn the_query_of_a_servers_url_is_not_shown() {
    let server = Watched::start().await;
    let fields = format!("url: {}?api_key=canary-in-the-query", server.url());
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let answer = debugged(&gateway, "Bearer short").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-mcp-debug-outbound-url"), server.url() + "?...");
    assert!(!format!("{:?}", answer.headers).contains("canary"));
}

#[tokio::test]
async fn of_a_password_nothing_is_shown() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for authorization in [
        "Basic dXNlcm5hbWUtdGhhdC1pcy1sb25nOmFiYw==",
        "username-that-is-quite-long:abc",
    ] {
        let answer = debugged(&gateway, authorization).await;
        let shown = answer.header("x-mcp-debug-oauth2-token");
        assert!(shown.ends_with("****"), "{shown}");
    }
}

#[tokio::test]
async fn a_refusal_beside_a_key_of_ours_is_about_ours() {
    let server = Watched::start().await;
    let more = "auth_type: api_key\nauthentication_token: configured\nextra_headers: [Authorization]";
    let gateway = TestGateway::with_servers(&server.entry("one", more)).await;
    let answer = debugged(&gateway, "Bearer the-callers-own").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "static-token");
    for (status, code) in [(401, "upstream_refused_credential"), (403, "upstream_forbidden")] {
        server.push(Answer::raw(status, &[], ""));
        let answer = debugged(&gateway, "Bearer the-callers-own").await;
        assert_eq!((answer.status, answer.code()), (502, code));
    }
    let seen = server.requests();
    assert_eq!(seen[0].header("authorization"), Some("Bearer the-callers-own"));
    assert_eq!(seen[0].header("x-api-key"), Some("configured"));
}

//! The debug headers show where a call went and with what, and no secret.

use crate::by_hand::Watched;
use crate::harness::{Got, KEY, TestGateway, echo, entry, got};

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

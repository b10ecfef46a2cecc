//! Client connections that end otherwise than by a response to a request.

use crate::by_hand::{Watched, code, echo_body, head, post, sent};
use crate::harness::{Start, keyed};
use vestibule_testkit::RawClient;

const TOO_MANY: &str = r#"vestibule_refusals_total{code="too_many_connections"}"#;
const TOO_SLOW: &str = r#"vestibule_refusals_total{code="header_timeout"}"#;

#[tokio::test]
async fn one_connection_too_many_hears_so_though_it_sent_a_request_at_once() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {max_connections: 1}}\n";
    let gateway = Start::new(text).start().await;
    // The connection that asks for the metrics is the one that may be there.
    assert_eq!(gateway.metric(TOO_MANY).await, 0);
    for turned_away in 1..=20 {
        let mut client = sent(&gateway, post("", echo_body(&"x".repeat(40_000)))).await;
        let response = client.read_response().await.expect("a response");
        let body = response.json();
        assert_eq!(
            (response.status, code(&body)),
            (503, "too_many_connections"),
            "{body}"
        );
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(
            response.header("x-request-id"),
            body["error"]["request_id"].as_str()
        );
        assert_eq!(client.read_to_close().await.expect("closed"), b"");
        assert_eq!(gateway.metric(TOO_MANY).await, turned_away);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn slow_headers_are_told_so_and_counted() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {header_timeout: 0.2}}\n";
    let gateway = Start::new(text).start().await;
    let half = head("POST", "/one/mcp", "X-Long: ");
    let mut client = RawClient::connect(gateway.address).await.expect("a connection");
    client.write(half.trim_end()).await.expect("written");
    let response = client.read_response().await.expect("a response");
    assert_eq!((response.status, code(&response.json())), (408, "header_timeout"));
    assert_eq!(client.read_to_close().await.expect("closed"), b"");
    assert_eq!(gateway.metric(TOO_SLOW).await, 1);
}

//! Client connections that end otherwise than by a response to a request.

use crate::by_hand::{Watched, code, echo_body, head, post, sent};
use crate::harness::{Start, keyed, logged};
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

#[tokio::test]
async fn what_is_no_request_is_counted_and_logged_by_its_code() {
    let server = Watched::start().await;
    let gateway = Start::new(keyed(&server.entry("one", ""))).start().await;
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let (health, long) = ("/health/liveliness", "y".repeat(100_000));
    for (bytes, status, code) in [
        (
            "\u{16}\u{3}\u{1} no HTTP\r\n\r\n".to_owned(),
            400,
            "malformed_request",
        ),
        (head("GET", health, "no colon\r\n"), 400, "malformed_request"),
        (head("GET", health, &many), 431, "headers_too_large"),
        (
            head("GET", health, &format!("X: {long}\r\n")),
            431,
            "headers_too_large",
        ),
        (head("GET", &format!("/{long}"), ""), 414, "headers_too_large"),
    ] {
        let series = format!("vestibule_refusals_total{{code=\"{code}\"}}");
        let before = gateway.metric(&series).await;
        let mut client = RawClient::connect(gateway.address).await.expect("a connection");
        // The gateway may close before it has read all.
        let _ = client.write(&bytes).await;
        if let Ok(response) = client.read_response().await {
            assert_eq!(response.status, status, "{bytes:.60}");
        }
        gateway.until_metric(&series, |now| now == before + 1).await;
    }
    assert!(
        logged()
            .lines()
            .any(|line| line.contains("request_id=") && line.contains("malformed_request"))
    );
}

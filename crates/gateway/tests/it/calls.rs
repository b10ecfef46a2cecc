//! How many calls one server may have under way.

use crate::by_hand::{Watched, ask, code, echo_body, post, sent};
use crate::harness::{Start, got, keyed};
use serde_json::json;
use vestibule_testkit::{Answer, Upstream};

#[tokio::test]
async fn a_server_that_never_answers_leaves_room_for_the_others() {
    let (server, other) = (Watched::start().await, Upstream::start().await);
    let servers = server.entry("one", "") + &crate::harness::entry("two", &format!("url: {}", other.url()));
    let text = keyed(&servers) + "vestibule: {limits: {max_connections: 4}}\n";
    let gateway = Start::new(text).start().await;
    let (stream, handle) = Answer::sse();
    server.push(stream);
    server.push(Answer::Hang);
    let mut streaming = sent(&gateway, post("", echo_body("a stream"))).await;
    assert_eq!(streaming.read_head().await.expect("a head").status, 200);
    let waiting = sent(&gateway, post("", echo_body("never"))).await;
    server.wait_for(2).await;

    let response = ask(&gateway, post("", echo_body("one more"))).await;
    let body = response.json();
    assert_eq!(
        (response.status, code(&body), &body["id"]),
        (503, "too_many_calls", &json!(7)),
        "{body}"
    );
    let call = json!({"server_id": "one", "name": "echo"});
    assert_eq!(
        got(gateway.post("/mcp-rest/tools/call", &call)).await.code(),
        "too_many_calls"
    );
    assert_eq!(gateway.echo("/two/mcp", "x").await.0, 200);
    assert_eq!(server.requests().len(), 2);

    // What has ended, or was left, counts no more.
    handle.finish().await.expect("finished");
    assert!(streaming.read_until("0\r\n\r\n").await.is_ok());
    drop(waiting);
    server.wait_for_abandoned(1).await;
    for _ in 0..3 {
        assert_eq!(gateway.echo("/one/mcp", "x").await.0, 200);
    }
}

//! What a client hears of a stream on which nothing is said to it: something, often enough that nobody between cuts it.

use crate::aggregate_sessions::call as named;
use crate::bridge_harness::{Client, call};
use crate::by_hand::Watched;
use crate::harness::{Start, TestGateway, keyed};
use crate::stdio_peer::{entry, program};
use std::time::Duration;
use tokio::time::timeout;
use vestibule_testkit::Answer;

/// Nothing is heard within this, and something within the double.
const HALF: Duration = Duration::from_secs(9);
const COMMENT: &[u8] = b":\n\n";

async fn chunk(response: &mut reqwest::Response) -> Vec<u8> {
    let chunk = timeout(2 * HALF, response.chunk()).await.expect("in time");
    chunk.expect("readable").expect("more").to_vec()
}

/// Comments of the server's, which are not passed on, do not put it off.
async fn among_several() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let called = gateway.post("/mcp", &named("a-echo", "x")).send();
    let mut response = called.await.expect("answered");
    let early = timeout(HALF, response.chunk()).await;
    assert!(early.is_err(), "nothing was said");
    handle.send(": here\n\n").await.expect("sent");
    let heard = timeout(HALF, chunk(&mut response)).await.expect("in time");
    assert_eq!(heard, COMMENT);
}

async fn behind_a_bridge() {
    let gateway = Start::new(keyed(&entry("one", "")))
        .environment("VESTIBULE_ENABLE_STDIO", "true")
        .environment("VESTIBULE_STDIO_EXTRA_COMMANDS", &program())
        .environment("PATH", "/usr/bin:/bin");
    let gateway = gateway.start().await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    // It asks, and waits for an answer that never comes.
    let mut asking = client.send(&call(1, "ask", "")).await;
    let question = chunk(&mut asking).await;
    assert!(String::from_utf8_lossy(&question).contains("roots/list"));
    let heard = async { chunk(&mut asking).await };
    let listened = async { chunk(&mut client.listen().await).await };
    let (heard, listened) = tokio::join!(heard, listened);
    assert_eq!((heard.as_slice(), listened.as_slice()), (COMMENT, COMMENT));
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_there() {
    tokio::join!(among_several(), behind_a_bridge());
}

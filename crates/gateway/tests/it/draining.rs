//! A stop loses no request that a client had reason to send.

use crate::by_hand::{Watched, echo_body, post, sent};
use crate::harness::{Start, keyed};
use std::io::Write as _;
use vestibule_testkit::{Answer, RawClient};

#[tokio::test]
async fn a_new_connection_is_served_though_the_stop_came_before_its_first_byte() {
    let server = Watched::start().await;
    let mut gateway = Start::new(keyed(&server.entry("one", "")))
        .one_worker()
        .start()
        .await;
    let mut used = sent(&gateway, post("", echo_body("used"))).await;
    assert_eq!(used.read_response().await.expect("a response").status, 200);
    let mut new = RawClient::connect(gateway.address).await.expect("a connection");
    // Until the gateway holds it too, beside the one that asks.
    gateway
        .until_metric("vestibule_connections", |open| open >= 3)
        .await;
    let stopped = gateway.stop();
    assert_eq!(
        used.read_to_close().await.expect("closed"),
        b"",
        "an idle one is closed"
    );
    new.write(post("", echo_body("new"))).await.expect("written");
    let response = new.read_response().await.expect("a response");
    assert_eq!(
        (response.status, response.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(new.read_to_close().await.expect("closed"), b"");
    assert!(stopped.await.expect("stopped"));
}

#[tokio::test]
async fn what_the_kernel_took_before_the_stop_is_answered() {
    let server = Watched::start().await;
    let mut gateway = Start::new(keyed(&server.entry("one", ""))).start().await;
    // No await between connecting and stopping: the gateway's acceptor shares this thread.
    let mut stream = std::net::TcpStream::connect(gateway.address).expect("a connection");
    stream.write_all(&post("", echo_body("x"))).expect("written");
    let stopped = gateway.stop();
    let answer = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).map(|_| text)
    });
    let answer = answer.await.expect("joined").expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(stopped.await.expect("stopped"));
}

#[tokio::test]
async fn a_new_connection_that_stays_silent_does_not_hold_the_stop_up() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {header_timeout: 0.2}}\n";
    let mut gateway = Start::new(text).start().await;
    let mut new = RawClient::connect(gateway.address).await.expect("a connection");
    gateway
        .until_metric("vestibule_connections", |open| open >= 2)
        .await;
    let stopped = gateway.stop();
    assert_eq!(new.read_to_close().await.expect("closed"), b"");
    assert!(stopped.await.expect("stopped"));
}

#[tokio::test]
async fn a_stop_that_cut_a_call_says_so() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {drain_timeout: 0.3}}\n";
    let mut gateway = Start::new(text).start().await;
    server.push(Answer::Hang);
    let mut client = sent(&gateway, post("", echo_body("x"))).await;
    server.wait_for(1).await;
    assert!(!gateway.stop().await.expect("stopped"));
    assert_eq!(client.read_to_close().await.unwrap_or_default(), b"");
}

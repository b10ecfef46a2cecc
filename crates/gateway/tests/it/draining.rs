//! A stop loses no request that a client had reason to send.

use crate::by_hand::{Watched, echo_body, post, sent};
use crate::harness::{Start, keyed};
use vestibule_testkit::RawClient;

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

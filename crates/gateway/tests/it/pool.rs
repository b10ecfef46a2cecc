//! Connections to a server that are kept, and end while nobody looks.

use crate::by_hand::{ByHand, echo_body, post, result, sent};
use crate::harness::{Start, keyed};

/// More than the reads that a task may do before it has to yield (tokio's budget is 128).
const MANY: usize = 150;

#[tokio::test]
async fn a_call_after_many_kept_connections_were_closed_gets_a_new_one() {
    let server = ByHand::start().await;
    let gateway = Start::new(keyed(&server.entry("one", ""))).one_worker();
    let gateway = gateway.start().await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(sent(&gateway, post("", echo_body("x"))).await);
    }
    let mut kept = Vec::new();
    for _ in 0..MANY {
        let mut connection = server.accept().await;
        connection.request().await;
        kept.push(connection);
    }
    for connection in &mut kept {
        connection.answer(&result("x")).await;
    }
    for client in &mut clients {
        assert_eq!(client.read_response().await.expect("a response").status, 200);
    }
    drop(kept);
    clients[0].write(post("", echo_body("y"))).await.expect("written");
    let mut fresh = server.accept().await;
    fresh.request().await;
    fresh.answer(&result("y")).await;
    let response = clients[0].read_response().await.expect("a response");
    assert_eq!((response.status, response.json()), (200, result("y")));
    server.nobody_else_came().await;
}

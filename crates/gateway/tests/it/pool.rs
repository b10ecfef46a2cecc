//! Connections to a server: kept ones that end while nobody looks, and those that never come to be.

use crate::by_hand::{ByHand, ask, code, echo_body, post, result, sent};
use crate::harness::{Start, entry, keyed};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

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

#[tokio::test]
async fn a_server_that_takes_no_connection_is_a_connect_timeout_however_many_addresses_it_has() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("address"))
        .expect("binds");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("an address");
    // The kernel drops what comes once its queue is full.
    let mut queued = Vec::new();
    while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        queued.push(connected.expect("a connection"));
    }
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("url: http://{host}:{}/mcp", address.port());
        let text = keyed(&entry("one", &url)) + "vestibule: {limits: {connect_timeout: 0.5}}\n";
        let gateway = Start::new(text).start().await;
        let response = ask(&gateway, post("", echo_body("x"))).await;
        let body = response.json();
        assert_eq!(
            (response.status, code(&body)),
            (504, "upstream_connect_timeout"),
            "{body}"
        );
    }
}

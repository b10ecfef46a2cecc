//! Servers of the HTTP+SSE transport (MCP 2024-11-05) behind the gateway: what every bridge does, where messages
//! and credentials may go, and how streams fail.

use crate::bridge_harness::{Client, Messages, behaves_as_streamable_http, call, initialize, text};
use crate::harness::{
    CLIENT_SECRET, KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed, machine,
};
use serde_json::json;
use vestibule_testkit::{Idp, Opening, SseServer, Upstream, free_addr};

async fn gateway_and_server(more: &str) -> (TestGateway, SseServer) {
    let server = SseServer::start().await;
    let fields = format!("url: {}\ntransport: sse\n{more}", server.url());
    (TestGateway::with_servers(&entry("one", &fields)).await, server)
}

#[tokio::test]
async fn a_server_of_2024_behaves_as_one_of_streamable_http() {
    let (gateway, server) = gateway_and_server("").await;
    behaves_as_streamable_http(&gateway).await;
    server.assert_never_seen(KEY);
    for request in server.requests() {
        assert_eq!(request.header("mcp-session-id"), None);
        let accept = request.header("accept").unwrap_or_default();
        if request.method == "GET" {
            assert_eq!(
                (accept, request.header("content-type")),
                ("text/event-stream", None)
            );
        } else {
            assert_eq!(request.header("content-type"), Some("application/json"));
        }
    }
    assert_nothing_secret_logged(&[]);
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled_and_its_late_answer_dropped() {
    let (gateway, server) = gateway_and_server("").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let seen = server.requests().len();
    let mut asking = Messages::new(client.send(&call(4, "ask", "")).await);
    let question = asking.next().await.expect("a question");
    drop(asking);
    let cancelled = server.wait_for(seen + 2).await.pop().expect("a request").json();
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], 4);
    let told = json!({"jsonrpc": "2.0", "id": question["id"], "result": {}});
    assert_eq!(client.send(&told).await.status(), 202);
    // The late answer to it is nobody's.
    assert_eq!(text(&client.ask(&call(40, "echo", "new")).await), "new");

    // One that waits for its first message.
    let seen = server.requests().len();
    let waiting = tokio::spawn(client.post(&call(5, "hang", "")).send());
    server.wait_for(seen + 1).await;
    waiting.abort();
    let cancelled = server.wait_for(seen + 2).await.pop().expect("a request").json();
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &json!(5))
    );

    // The client's own cancellation ends the stream, since the server answers no more.
    let mut asking = Messages::new(client.send(&call(6, "ask", "")).await);
    asking.next().await.expect("a question");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}});
    assert_eq!(client.send(&cancel).await.status(), 202);
    assert_eq!(asking.next().await, None);
}

#[tokio::test]
async fn the_credential_goes_along_with_every_message_and_nowhere_else() {
    let other = Upstream::start().await;
    let (idp, server) = (Idp::start().await, SseServer::start().await);
    let one = machine("one", &server.url(), &idp.url(), "transport: sse");
    let gateway = TestGateway::with_servers(&one).await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    assert_eq!(text(&client.ask(&call(2, "echo", "hi")).await), "hi");
    let requests = server.requests();
    assert!(requests.len() >= 4);
    assert!(
        requests.iter().all(|request| request.bearer().is_some()),
        "{requests:#?}"
    );

    for foreign in [
        format!("{}/messages", other.base()),
        format!("//{}/messages", other.addr()),
        "https://mcp.example/messages".to_owned(),
    ] {
        server.set_opening(Opening::Endpoint(foreign));
        let refused = got(gateway.post("/one/mcp", &initialize())).await;
        assert_eq!(
            (refused.status, refused.code()),
            (502, "foreign_endpoint"),
            "{}",
            refused.body
        );
    }
    let location = format!("{}/sse", other.base());
    for status in [302, 307] {
        let redirect = format!("HTTP/1.1 {status} \r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        server.set_opening(Opening::Raw(redirect.clone().into()));
        let refused = got(gateway.post("/one/mcp", &initialize())).await;
        assert_eq!(
            (refused.status, refused.code()),
            (502, "upstream_redirect"),
            "{}",
            refused.body
        );
        server.answer_messages(Some(redirect.into()));
        let refused = got(client.post(&call(3, "echo", ""))).await;
        assert_eq!(
            (refused.status, refused.code()),
            (502, "upstream_redirect"),
            "{}",
            refused.body
        );
        server.answer_messages(None);
    }
    assert_eq!(other.requests().len(), 0);
    server.assert_never_seen(CLIENT_SECRET);
    server.assert_never_seen(KEY);
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 1)
        .await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_a_missing_credential_is_said() {
    let (idp, server) = (Idp::start().await, SseServer::start().await);
    let one = machine("one", &server.url(), &idp.url(), "transport: sse");
    let two = entry("two", &format!("url: {}\ntransport: sse", server.url()));
    let gateway = TestGateway::with_servers(&format!("{one}{two}")).await;
    server.accept("never-given");
    let refused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_refused_token"));
    assert_eq!(idp.requests().len(), 2);
    let refused = got(gateway.post("/two/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_wants_credential")
    );
}

#[tokio::test]
async fn what_nobody_reads_waits_within_bounds() {
    let (gateway, server) = gateway_and_server("").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let seen = server.requests().len();
    let note = |number: usize| json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": number}});
    server.say(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x".repeat(1_100_000)}}));
    for number in 0..20 {
        server.say(&note(number));
    }
    server.say(&json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}));
    // A question without room is answered; so everything before it has been read.
    let answer = server.wait_for(seen + 1).await.pop().expect("a request").json();
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!("q"), &json!(-32000))
    );
    let mut listener = Messages::new(client.listen().await);
    for number in 0..16 {
        assert_eq!(listener.next().await, Some(note(number)));
    }
    server.say(&note(21));
    assert_eq!(listener.next().await, Some(note(21)));
    // Who leaves makes room for another listener.
    drop(listener);
    let mut again = client.listen().await;
    while again.status() == 409 {
        again = client.listen().await;
    }
    server.say(&note(22));
    assert_eq!(Messages::new(again).next().await, Some(note(22)));
}

#[tokio::test]
async fn a_stream_that_ends_ends_the_session() {
    let (gateway, server) = gateway_and_server("").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let refused = got(client.post(&call(2, "drop", ""))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_ended"),
        "{}",
        refused.body
    );
    let gone = got(client.post(&call(3, "echo", ""))).await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_session"));

    // In the middle of an answer the client gets an error for its request, not a stream that just stops.
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let mut asking = Messages::new(client.send(&call(4, "ask", "")).await);
    asking.next().await.expect("a question");
    server.forget();
    let error = asking.next().await.expect("an error");
    assert_eq!(
        (&error["id"], &error["error"]["code"]),
        (&json!(4), &json!(-32000))
    );
    assert_eq!(asking.next().await, None);

    // A server that has forgotten the session and keeps its stream.
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    server.answer_messages(Some(b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n".to_vec()));
    let gone = got(client.post(&call(5, "echo", ""))).await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_session"));
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;
}

#[tokio::test]
async fn streams_that_are_none_are_refused_in_time() {
    let server = SseServer::start().await;
    let nobody = free_addr();
    let servers = [
        entry(
            "one",
            &format!("url: {}\ntransport: sse\ntimeout: 2", server.url()),
        ),
        entry("two", &format!("url: http://{nobody}/sse\ntransport: sse")),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    for (opening, status, code) in [
        (Opening::Silent, 504, "upstream_timeout"),
        (Opening::Hang, 504, "upstream_timeout"),
        (
            Opening::Raw(b"HTTP/1.1 200 \r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
            502,
            "upstream_not_mcp",
        ),
        (
            Opening::Raw(
                b"HTTP/1.1 200 \r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: x\n\n"
                    .to_vec(),
            ),
            502,
            "upstream_not_mcp",
        ),
        (
            Opening::Raw(b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n".to_vec()),
            502,
            "upstream_not_mcp",
        ),
        (
            Opening::Raw(b"nonsense\r\n\r\n".to_vec()),
            502,
            "upstream_not_mcp",
        ),
    ] {
        server.set_opening(opening.clone());
        let refused = got(gateway.post("/one/mcp", &initialize())).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{opening:?} {}",
            refused.body
        );
    }
    let refused = got(gateway.post("/two/mcp", &initialize())).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_unreachable"));
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;
}

#[tokio::test]
async fn a_stream_that_names_no_address_is_given_up() {
    let (gateway, server) = gateway_and_server("").await;
    server.set_opening(Opening::Silent);
    let refused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code()),
        (504, "endpoint_timeout"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn sessions_are_bounded_and_the_idle_ones_end() {
    let server = SseServer::start().await;
    let fields = format!("url: {}\ntransport: sse", server.url());
    let text = format!(
        "{}vestibule:\n  limits:\n    max_bridge_sessions: 3\n",
        keyed(&format!("{}{}", entry("one", &fields), entry("two", &fields)))
    );
    let gateway = Start::new(text).start().await;
    let idle = Client::open(&gateway, "/one/mcp", &[]).await;
    let listens = Client::open(&gateway, "/one/mcp", &[]).await;
    let _listener = listens.listen().await;
    let refused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code(), refused.header("retry-after")),
        (503, "too_many_sessions", "5")
    );
    // Half of them are for others.
    let other = Client::open(&gateway, "/two/mcp", &[]).await;
    let refused = got(gateway.post("/two/mcp", &initialize())).await;
    assert_eq!(refused.code(), "too_many_sessions");
    assert_eq!(other.delete().await, 204);

    gateway.advance(31 * 60);
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 1)
        .await;
    let gone = got(idle.post(&call(2, "echo", ""))).await;
    assert_eq!((gone.status, gone.code()), (404, "unknown_session"));
    assert_eq!(
        crate::bridge_harness::text(&listens.ask(&call(3, "echo", "still")).await),
        "still"
    );
}

#[tokio::test]
async fn a_session_is_of_its_server_and_gateway_alone() {
    let server = SseServer::start().await;
    let fields = format!("url: {}\ntransport: sse", server.url());
    let servers = format!("{}{}", entry("one", &fields), entry("two", &fields));
    let gateway = TestGateway::with_servers(&servers).await;
    let another = TestGateway::with_servers(&servers).await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    for (gateway, path) in [(&gateway, "/two/mcp"), (&another, "/one/mcp")] {
        let stolen = gateway
            .post(path, &call(2, "echo", ""))
            .header("mcp-session-id", &client.session);
        let refused = got(stolen).await;
        assert_eq!((refused.status, refused.code()), (404, "unknown_session"));
    }
}

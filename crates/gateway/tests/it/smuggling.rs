//! Bytes that two readers could take for different requests: each is refused and the connection closed, or is one
//! request for both. The server never sees what hides in a body. And connections on which nothing is said.

use crate::by_hand::{
    ByHand, Watched, ask, code, echo_body, gateway_and_server, head, post, rest, result, sent,
};
use crate::harness::{KEY, Start, TestGateway, keyed};
use vestibule_testkit::{Answer, RawClient, Response};

/// A whole request that must not be read as one.
fn hidden() -> String {
    String::from_utf8(post("", echo_body("smuggled"))).expect("text")
}

/// A POST to `/one/mcp` with exactly these header lines beside host and key.
fn odd(lines: &str, body: &str) -> String {
    head("POST", "/one/mcp", lines) + body
}

/// The answer to bytes after which the gateway has to close, with nothing after it.
async fn last_answer(gateway: &TestGateway, bytes: &str) -> Response {
    let mut client = sent(gateway, bytes).await;
    let response = client
        .read_response()
        .await
        .unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    let rest = rest(&mut client).await;
    assert_eq!(rest, "", "one answer to {bytes:?}");
    response
}

async fn echoed(client: &mut RawClient, text: &str) {
    let response = client.read_response().await.expect("a response");
    assert_eq!(
        response.json()["result"]["content"][0]["text"],
        text,
        "{response:?}"
    );
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (gateway, server) = gateway_and_server().await;
    let hidden = hidden();
    let heads = [
        "Content-Length: 0\r\nContent-Length: 7\r\n",
        "Content-Length: 7\r\nContent-Length: 0\r\n",
        "Content-Length: 0, 7\r\n",
        "Content-Length: 7, 7\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x7\r\n",
        "Content-Length: 0 7\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 0\nContent-Length: 7\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 0\r\n",
        "Content-Length : 0\r\n",
        "Content-Length\t: 0\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Content-Length: 0\r\n",
        "X-Folded: a\r\n Content-Length: 0\r\n",
        "X-Folded: a\r\n\tTransfer-Encoding: chunked\r\n",
        "X-Nul: a\0b\r\n",
        "X-N\0l: a\r\n",
        "X-Cr: a\rContent-Length: 0\r\n",
        "X-Cr: a\r\r\n",
        "X-Del: a\u{7f}b\r\n",
        ": no name\r\n",
        "no colon\r\n",
        "X(Odd): a\r\n",
    ];
    for lines in heads {
        let response = last_answer(&gateway, &odd(lines, &hidden)).await;
        assert_eq!(response.status, 400, "{lines:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused_and_the_connection_closed() {
    let (gateway, server) = gateway_and_server().await;
    let more = format!("Host: localhost\r\nx-litellm-api-key: {KEY}\r\nContent-Length: 0\r\n\r\n");
    for line in [
        "POST /one/mcp\r\n",
        "POST /one/mcp HTTP/1.2\r\n",
        "POST /one/mcp HTTP/2.0\r\n",
        "POST /one/mcp http/1.1\r\n",
        "POST  /one/mcp HTTP/1.1\r\n",
        "POST /one/mcp  HTTP/1.1\r\n",
        "POST /one/mcp HTTP/1.1 \r\n",
        "POST /one /mcp HTTP/1.1\r\n",
        "POST /one/mcp\tHTTP/1.1\r\n",
        "POST /one/\0mcp HTTP/1.1\r\n",
        "PO(T /one/mcp HTTP/1.1\r\n",
        " POST /one/mcp HTTP/1.1\r\n",
        "\u{16}\u{3}\u{1}\r\n",
    ] {
        let response = last_answer(&gateway, &format!("{line}{more}{}", hidden())).await;
        assert_eq!(response.status, 400, "{line:?}");
    }
    // A client of HTTP/2 gets no answer that it could not read.
    let mut client = sent(&gateway, format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{}", hidden())).await;
    let answer = rest(&mut client).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed_and_the_connection_closed() {
    let (gateway, server) = gateway_and_server().await;
    let body = echo_body("in chunks");
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n{}", body.len(), hidden());
    let length = chunks.len();
    for lines in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Content-Length: 3\r\nTransfer-Encoding: CHUNKED\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\nConnection: keep-alive\r\n".to_owned(),
    ] {
        let before = server.requests().len();
        let response = last_answer(&gateway, &odd(&lines, &chunks)).await;
        assert_eq!(response.status, 200, "{lines:?}");
        let seen = &server.requests()[before..];
        assert_eq!(seen.len(), 1, "{lines:?}");
        assert_eq!(seen[0].body, body.as_bytes());
        assert_eq!(
            (
                seen[0].header("content-length"),
                seen[0].header("transfer-encoding")
            ),
            (Some(body.len().to_string().as_str()), None)
        );
    }
}

#[tokio::test]
async fn broken_chunks_are_a_400_and_nothing_reaches_the_server() {
    let (gateway, server) = gateway_and_server().await;
    let hidden = hidden();
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(20_000));
    for chunks in [
        "zz\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\ra\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
        "1\r\na\r\n0\r\nno colon\r\n\r\n",
        &long_extension,
    ] {
        let bytes = odd("Transfer-Encoding: chunked\r\n", &format!("{chunks}{hidden}"));
        let response = last_answer(&gateway, &bytes).await;
        assert_eq!(
            (response.status, code(&response.json())),
            (400, "body_broken"),
            "{chunks:.60?}"
        );
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn lines_that_end_with_a_bare_line_feed_are_lines() {
    let (gateway, server) = gateway_and_server().await;
    let mut client = sent(&gateway, "").await;
    for text in ["one", "two"] {
        let bytes = String::from_utf8(post("", echo_body(text))).expect("text");
        client.write(bytes.replace('\r', "")).await.expect("written");
        echoed(&mut client, text).await;
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() {
    let (gateway, server) = gateway_and_server().await;
    let nobody = "POST /one/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    let mut all = Vec::new();
    for number in 0..20 {
        all.extend(post("", echo_body(&number.to_string())));
        all.extend_from_slice(nobody.as_bytes());
    }
    let mut client = sent(&gateway, &all).await;
    for number in 0..20 {
        echoed(&mut client, &number.to_string()).await;
        assert_eq!(client.read_response().await.expect("a response").status, 401);
    }
    let seen: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.json()["params"]["arguments"]["message"].clone())
        .collect();
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_the_next_request() {
    let (gateway, server) = gateway_and_server().await;
    // One body that came along with its head, and one of which most is still on its way.
    for padding in [0, 3 * 1024 * 1024] {
        let body = hidden() + &hidden() + &"x".repeat(padding);
        let length = body.len();
        let key = format!("Host: localhost\r\nx-litellm-api-key: {KEY}\r\n");
        for (status, line, lines) in [
            (401, "POST /one/mcp", "Host: localhost\r\n"),
            (
                401,
                "POST /one/mcp",
                "Host: localhost\r\nAuthorization: Bearer wrong\r\n",
            ),
            (403, "POST /one/mcp", "Host: evil.example\r\n"),
            (404, "POST /nowhere/mcp", key.as_str()),
            (404, "POST /nothing/at/all", key.as_str()),
            (404, "POST /mcp/sse", key.as_str()),
            (404, "POST /one/mcp", &format!("{key}Mcp-Session-Id: x\r\n")),
            (405, "PUT /one/mcp", key.as_str()),
            (405, "POST /metrics", key.as_str()),
            (401, "POST /mcp-rest/tools/call", "Host: localhost\r\n"),
            (200, "GET /health/liveliness", "Host: localhost\r\n"),
        ] {
            let head = format!("{line} HTTP/1.1\r\n{lines}Content-Length: {length}\r\n\r\n");
            let mut client = sent(&gateway, head + &body[..length - padding]).await;
            let response = client.read_response().await.expect("a response");
            assert_eq!(response.status, status, "{line} {lines}");
            // Whether the connection goes on is the gateway's choice; what it may not do is answer the body.
            let on = client.write(&body[length - padding..]).await.is_ok()
                && client.write(post("", echo_body("next"))).await.is_ok();
            if let (true, Ok(next)) = (on, client.read_response().await) {
                assert_eq!(
                    next.json()["result"]["content"][0]["text"],
                    "next",
                    "{line} {lines}: {next:?}"
                );
            }
        }
    }
    server.assert_never_seen("smuggled");
}

#[tokio::test]
async fn a_body_where_none_is_wanted_is_dropped() {
    let (gateway, server) = gateway_and_server().await;
    let hidden = hidden();
    for method in ["GET", "DELETE"] {
        let before = server.requests().len();
        let lines = format!("Content-Length: {}\r\n", hidden.len());
        let mut client = sent(&gateway, head(method, "/one/mcp", &lines) + &hidden).await;
        assert_eq!(client.read_response().await.expect("a response").status, 405);
        let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let bytes = head(method, "/one/mcp", "Transfer-Encoding: chunked\r\n") + &chunked;
        assert_eq!(ask(&gateway, bytes).await.status, 405);
        let seen = &server.requests()[before..];
        assert_eq!(seen.len(), 2);
        for request in seen {
            assert_eq!(
                (request.body.len(), request.header("transfer-encoding")),
                (0, None),
                "{request:?}"
            );
        }
    }
    server.assert_never_seen("smuggled");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read_and_not_read_as_requests() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {max_body_bytes: 100}}\n";
    let gateway = Start::new(text).start().await;
    let body = hidden() + &hidden();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for bytes in [
        odd(&format!("Content-Length: {}\r\n", body.len()), &body),
        odd("Transfer-Encoding: chunked\r\n", &chunked),
        odd("Content-Length: 4611686018427387904\r\n", &body),
    ] {
        let mut client = sent(&gateway, bytes).await;
        let response = client.read_response().await.expect("a response");
        assert_eq!((response.status, code(&response.json())), (413, "body_too_large"));
        drop(client);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_client_that_waits_for_continue_is_told_to_or_refused_at_once() {
    let (gateway, server) = gateway_and_server().await;
    let body = echo_body("after continue");
    let lines = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    let mut client = sent(&gateway, odd(&lines, "")).await;
    assert_eq!(client.read_head().await.expect("a head").status, 100);
    client.write(&body).await.expect("written");
    echoed(&mut client, "after continue").await;
    assert_eq!(server.requests()[0].header("expect"), None);

    // Refused on its head, it may send the body or not: nothing that follows is a request.
    let refused = format!("POST /one/mcp HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let response = last_answer(&gateway, &refused).await;
    assert_eq!(response.status, 401);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks_and_a_close() {
    let (gateway, server) = gateway_and_server().await;
    let old = |lines: &str, body: &str| {
        let head = head("POST", "/one/mcp", lines).replace("HTTP/1.1", "HTTP/1.0");
        format!("{head}{body}")
    };
    let body = echo_body("old");
    let length = format!("Content-Length: {}\r\n", body.len());
    let response = last_answer(&gateway, &old(&length, &body)).await;
    assert_eq!(response.json()["result"]["content"][0]["text"], "old");

    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let response = last_answer(&gateway, &old("Transfer-Encoding: chunked\r\n", &chunks)).await;
    assert_eq!(response.status, 400, "HTTP/1.0 has no chunks");

    let (stream, handle) = Answer::sse();
    server.push(stream);
    let mut client = sent(&gateway, old(&length, &body)).await;
    let head = client.read_head().await.expect("a head");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    handle.send("data: 1\n\n").await.expect("sent");
    client.read_until("data: 1\n\n").await.expect("the event");
    handle.finish().await.expect("finished");
    assert_eq!(rest(&mut client).await, "");

    let kept = format!("{length}Connection: keep-alive\r\n");
    let mut client = sent(&gateway, old(&kept, &body)).await;
    echoed(&mut client, "old").await;
    client.write(old(&length, &body)).await.expect("written");
    echoed(&mut client, "old").await;
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn the_authority_of_a_target_counts_as_much_as_the_host() {
    let (gateway, server) = gateway_and_server().await;
    let with = |target: &str, host: &str| {
        let body = echo_body("x");
        format!(
            "POST {target} HTTP/1.1\r\n{host}x-litellm-api-key: {KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for target in [
        "http://localhost/one/mcp",
        "http://127.0.0.1:1/mcp/one",
        "https://localhost/one/mcp?x=1",
    ] {
        let response = ask(&gateway, with(target, "Host: localhost\r\n")).await;
        assert_eq!(response.status, 200, "{target}: {}", response.text());
    }
    assert_eq!(server.requests().len(), 3);
    assert!(server.requests().iter().all(|request| request.target == "/mcp"));
    for (target, host) in [
        ("http://evil.example/one/mcp", "Host: localhost\r\n"),
        ("http://localhost@evil.example/one/mcp", "Host: localhost\r\n"),
        ("http://localhost/one/mcp", "Host: evil.example\r\n"),
        ("/one/mcp", "Host: localhost\r\nHost: localhost\r\n"),
        ("/one/mcp", "Host: localhost\r\nHost: evil.example\r\n"),
        ("/one/mcp", "Host: localhost, evil.example\r\n"),
        ("/one/mcp", "Host: localhost/@evil.example\r\n"),
        ("/one/mcp", "Host:\r\n"),
        ("/one/mcp", ""),
    ] {
        let response = ask(&gateway, with(target, host)).await;
        assert_eq!(
            (response.status, code(&response.json())),
            (403, "host_not_allowed"),
            "{target} {host:?}"
        );
    }
    for (target, status) in [
        ("*", 404),
        ("http://localhost", 404),
        ("//one/mcp", 404),
        ("/one/mcp/../../two/mcp", 404),
        ("/./one/mcp", 404),
        ("/one%2fmcp", 404),
    ] {
        let response = ask(&gateway, with(target, "Host: localhost\r\n")).await;
        assert_eq!(response.status, status, "{target}");
    }
    let connect = "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let response = ask(&gateway, connect).await;
    assert!(response.status >= 400, "no tunnel: {response:?}");
    let upgrade = odd("Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n", "");
    assert_ne!(ask(&gateway, upgrade).await.status, 101);
}

#[tokio::test]
async fn bytes_nobody_asked_for_end_an_idle_connection_to_a_server() {
    let server = ByHand::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let forged = result("forged").to_string();
    let forged = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{forged}",
        forged.len()
    );
    let mut client = sent(&gateway, "").await;
    for number in 0..20 {
        client.write(post("", echo_body("x"))).await.expect("written");
        let mut connection = server.accept().await;
        connection.request().await;
        let text = number.to_string();
        // Some with the answer they follow, some later.
        if number % 2 == 0 {
            let answer = result(&text).to_string();
            let both = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}{forged}",
                answer.len()
            );
            connection.write(both).await.expect("written");
            echoed(&mut client, &text).await;
        } else {
            connection.answer(&result(&text)).await;
            echoed(&mut client, &text).await;
            connection.write(&forged).await.expect("written");
        }
    }
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time_and_busy_ones_are_not() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {keep_alive_timeout: 0.5}}\n";
    let gateway = Start::new(text).start().await;
    let (stream, handle) = Answer::sse();
    server.push(stream);
    let mut streaming = sent(&gateway, post("", echo_body("x"))).await;
    assert_eq!(streaming.read_head().await.expect("a head").status, 200);
    server.push(Answer::Hang);
    let waiting = sent(&gateway, post("", echo_body("x"))).await;
    server.wait_for(2).await;

    let mut silent = sent(&gateway, "").await;
    assert_eq!(rest(&mut silent).await, "", "one that never asked");
    let mut asked = sent(&gateway, post("", echo_body("x"))).await;
    echoed(&mut asked, "x").await;
    assert_eq!(rest(&mut asked).await, "", "one that asked once");
    let (short, its_handle) = Answer::sse();
    server.push(short);
    let mut streamed = sent(&gateway, post("", echo_body("x"))).await;
    its_handle.finish().await.expect("finished");
    assert_eq!(streamed.read_response().await.expect("a response").text(), "");
    assert_eq!(rest(&mut streamed).await, "", "one whose stream has ended");

    handle.send("data: 1\n\n").await.expect("sent");
    streaming.read_until("data: 1\n\n").await.expect("the event");
    handle.finish().await.expect("finished");
    streaming.read_until("0\r\n\r\n").await.expect("the end");
    assert_eq!(rest(&mut streaming).await, "", "one that became idle");
    drop(waiting);
    server.wait_for_abandoned(1).await;
}

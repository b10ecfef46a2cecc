//! Event streams over their life: pieces as they come, silence, readers that stall or leave, many at once, and
//! what a stop does to them and to calls.

use crate::by_hand::{Watched, ask, echo_body, gateway_and_server, head, post, rest, result, sent};
use crate::harness::{Start, TestGateway, echo, keyed, logged};
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use vestibule_testkit::{Answer, DEADLINE, RawClient, SseHandle};

const MEBIBYTE: usize = 1024 * 1024;
/// More than the kernel's buffers of both connections hold together, and less than is sent.
const BUFFERS: usize = 128 * MEBIBYTE;

/// A gateway with these limits and one server, `one`.
async fn limited(limits: &str) -> (TestGateway, Watched) {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + &format!("vestibule: {{limits: {{{limits}}}}}\n");
    (Start::new(text).start().await, server)
}

/// A client that has read the head of an event stream, and the server's end of it. Gives the request id too.
async fn open(gateway: &TestGateway, server: &Watched) -> (RawClient, SseHandle, String) {
    let (stream, handle) = Answer::sse();
    server.push(stream);
    let mut client = sent(gateway, post("", echo_body("stream"))).await;
    let head = client.read_head().await.expect("a head");
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    let id = head.header("x-request-id").expect("an id").to_owned();
    (client, handle, id)
}

#[tokio::test]
async fn every_piece_arrives_as_it_was_sent_before_the_next_is_sent() {
    let (gateway, server) = gateway_and_server().await;
    for method in ["POST", "GET"] {
        let (stream, handle) = Answer::sse();
        server.push(stream);
        let bytes = match method {
            "POST" => post("", echo_body("x")),
            _ => head("GET", "/one/mcp", "Accept: text/event-stream\r\n").into_bytes(),
        };
        let mut client = sent(&gateway, bytes).await;
        assert_eq!(client.read_head().await.expect("a head").status, 200);
        let long = format!("data: {}\n\n", "x".repeat(20_000));
        let pieces: [&[u8]; 10] = [
            b": a comment before anything\n\n",
            b"id: 1\nretry: 100\ndata:\n\n",
            b"da",
            b"ta: half a line",
            b"\r\n",
            b"\r",
            b"\n\xc3",
            b"\xa9\n\n",
            b"event: of-tomorrow\ndata: {}\n\ndata: two at once\n\n",
            long.as_bytes(),
        ];
        for piece in pieces {
            handle.send(piece).await.expect("sent");
            let mut came = Vec::new();
            while came.len() < piece.len() {
                let line = client.read_until("\r\n").await.expect("the size of a chunk");
                let size = usize::from_str_radix(line.trim_end(), 16).expect("hexadecimal");
                came.extend(client.read_exactly(size).await.expect("a chunk"));
                assert_eq!(client.read_exactly(2).await.expect("its end"), b"\r\n");
            }
            assert!(came == piece, "{method}: {:?}", String::from_utf8_lossy(&came));
        }
        handle.finish().await.expect("finished");
        assert_eq!(client.read_until("\r\n\r\n").await.expect("the end"), "0\r\n\r\n");
        // The end of a stream is not the end of the connection.
        client.write(post("", echo_body("next"))).await.expect("written");
        assert_eq!(client.read_response().await.expect("a response").status, 200);
    }
    assert!(server.connections() <= 2, "both connections were kept");
}

#[tokio::test]
async fn a_stream_that_stays_silent_is_cut_on_both_sides_and_logged() {
    let (gateway, server) = limited("stream_idle_timeout: 0.2").await;
    let (mut client, handle, id) = open(&gateway, &server).await;
    handle.send("data: 1\n\n").await.expect("sent");
    client.read_until("data: 1\n\n").await.expect("the event");
    handle.closed().await;
    let rest = rest(&mut client).await;
    assert!(!rest.contains("0\r\n\r\n"), "a cut is no end: {rest:?}");
    let log = logged();
    let line = log
        .lines()
        .find(|line| line.contains("upstream_truncated") && line.contains(&id))
        .expect("the cut is logged under the request's id");
    assert!(line.contains("one") && line.contains("silent"), "{line}");
    assert_eq!(
        ask(&gateway, post("", echo_body("x"))).await.status,
        200,
        "others go on"
    );
    gateway.until_metric("vestibule_streams", |open| open == 0).await;
}

#[tokio::test]
async fn a_stream_that_speaks_lives_longer_than_the_limit_on_silence() {
    let (gateway, server) = limited("stream_idle_timeout: 2").await;
    let (mut client, handle, _) = open(&gateway, &server).await;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        handle.send(": still here\n\n").await.expect("sent");
        client.read_until(": still here\n\n").await.expect("the comment");
    }
    handle.finish().await.expect("finished");
    client.read_until("0\r\n\r\n").await.expect("the end");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_stops_the_server_and_is_cut() {
    let (gateway, server) = limited("stream_idle_timeout: 1").await;
    let (client, handle, _) = open(&gateway, &server).await;
    let frame = vec![b':'; MEBIBYTE];
    let mut taken = 0;
    let fault = loop {
        match handle.send(&frame).await {
            Ok(()) => taken += frame.len(),
            Err(fault) => break fault,
        }
        assert!(
            taken < BUFFERS,
            "the gateway holds back what its client does not read"
        );
    };
    assert_eq!(fault.kind(), ErrorKind::BrokenPipe, "after {taken} bytes");
    gateway.until_metric("vestibule_streams", |open| open == 0).await;
    drop(client);
}

#[tokio::test]
async fn a_reader_that_pauses_slows_nobody_else_and_misses_nothing() {
    let (gateway, server) = gateway_and_server().await;
    let (mut client, handle, _) = open(&gateway, &server).await;
    let size = 64 * MEBIBYTE;
    let flood = tokio::spawn(async move {
        let frame: Vec<u8> = (b'a'..=b'w').cycle().take(MEBIBYTE).collect();
        for _ in 0..size / MEBIBYTE {
            handle.send(&frame).await.expect("sent");
        }
        handle.finish().await.expect("finished");
        frame
    });
    // Connections go to the two workers in turn, so half of these share the stalled one's thread.
    for number in 0..20 {
        let text = number.to_string();
        let response = ask(&gateway, post("", echo_body(&text))).await;
        assert_eq!(
            response.json()["result"]["content"][0]["text"],
            text.as_str(),
            "{response:?}"
        );
    }
    let mut came = 0;
    let frame: Vec<u8> = (b'a'..=b'w').cycle().take(MEBIBYTE).collect();
    loop {
        let line = client.read_until("\r\n").await.expect("the size of a chunk");
        let length = usize::from_str_radix(line.trim_end(), 16).expect("hexadecimal");
        let chunk = client.read_exactly(length + 2).await.expect("a chunk");
        if length == 0 {
            break;
        }
        let right = chunk[..length]
            .iter()
            .enumerate()
            .all(|(index, byte)| *byte == frame[(came + index) % MEBIBYTE]);
        assert!(right, "the chunk at {came} is another");
        came += length;
    }
    assert_eq!(came, size);
    flood.await.expect("everything was taken");
}

#[tokio::test]
async fn two_hundred_streams_each_deliver_their_own_event() {
    const STREAMS: u64 = 200;
    let (gateway, server) = gateway_and_server().await;
    let mut handles = Vec::new();
    for number in 0..STREAMS {
        let (stream, handle) = Answer::sse();
        let text = number.to_string();
        server.push_when(
            move |request| request.json()["params"]["arguments"]["message"] == *text,
            stream,
        );
        handles.push(handle);
    }
    let calls: Vec<_> = (0..STREAMS)
        .map(|number| {
            let call = gateway.post("/one/mcp", &echo(&number.to_string()));
            tokio::spawn(async move { call.send().await.expect("answered").text().await.expect("whole") })
        })
        .collect();
    server.wait_for(200).await;
    gateway
        .until_metric("vestibule_streams", |open| open == STREAMS)
        .await;
    for (number, handle) in handles.into_iter().enumerate().rev() {
        handle.event(&json!({"of": number})).await.expect("sent");
        handle.finish().await.expect("finished");
    }
    for (number, call) in calls.into_iter().enumerate() {
        let expected = format!("event: message\ndata: {}\n\n", json!({"of": number}));
        assert_eq!(call.await.expect("joined"), expected);
    }
    gateway.until_metric("vestibule_streams", |open| open == 0).await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_own_stream_and_no_other() {
    let (gateway, server) = gateway_and_server().await;
    let (leaving, its_handle, _) = open(&gateway, &server).await;
    let (mut other, other_handle, _) = open(&gateway, &server).await;
    let (mut third, third_handle, _) = open(&gateway, &server).await;
    drop(leaving);
    its_handle.closed().await;
    for (client, handle) in [(&mut other, other_handle), (&mut third, third_handle)] {
        handle.send("data: 1\n\n").await.expect("sent");
        client.read_until("data: 1\n\n").await.expect("the event");
        handle.finish().await.expect("finished");
        client.read_until("0\r\n\r\n").await.expect("the end");
    }
    server.wait_for_abandoned(1).await;
}

#[tokio::test]
async fn the_drain_timeout_cuts_a_stream_that_does_not_end() {
    let (mut gateway, server) = limited("drain_timeout: 0.3").await;
    let (mut client, handle, _) = open(&gateway, &server).await;
    let stopped = gateway.stop();
    let all = timeout(DEADLINE, stopped)
        .await
        .expect("in time")
        .expect("joined");
    assert!(!all, "a stream was cut, and that is said");
    handle.closed().await;
    let rest = rest(&mut client).await;
    assert!(!rest.contains("0\r\n\r\n"), "a cut is no end: {rest:?}");
    assert!(RawClient::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_for_nobody_who_asked_for_nothing() {
    let (mut gateway, _server) = gateway_and_server().await;
    let mut kept = sent(&gateway, post("", echo_body("x"))).await;
    assert_eq!(kept.read_response().await.expect("a response").status, 200);
    let mut silent = sent(&gateway, "").await;
    gateway
        .until_metric("vestibule_connections", |open| open >= 3)
        .await;
    // Far less than the limits on idle connections and on draining.
    let all = timeout(DEADLINE, gateway.stop()).await.expect("in time");
    assert!(all.expect("joined"), "nothing was cut");
    assert_eq!(rest(&mut kept).await + &rest(&mut silent).await, "");
}

#[tokio::test]
async fn no_request_that_was_sent_before_a_stop_is_lost() {
    let (mut gateway, server) = gateway_and_server().await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut client = sent(&gateway, post("", echo_body("first"))).await;
        assert_eq!(client.read_response().await.expect("a response").status, 200);
        kept.push(client);
    }
    for client in &mut kept {
        client
            .write(post("", echo_body("second")))
            .await
            .expect("written");
    }
    // From here to the stop nothing is awaited, so that the gateway has accepted none of these itself.
    let new: Vec<std::net::TcpStream> = (0..8)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(gateway.address).expect("a connection");
            stream.write_all(&post("", echo_body("new"))).expect("written");
            stream.set_nonblocking(true).expect("a mode");
            stream
        })
        .collect();
    let stopped = gateway.stop();
    for client in &mut kept {
        let response = client.read_response().await.expect("a response");
        assert_eq!(response.json()["result"]["content"][0]["text"], "second");
    }
    for stream in new {
        let mut stream = TcpStream::from_std(stream).expect("a stream");
        let mut came = Vec::new();
        let end = timeout(DEADLINE, stream.read_to_end(&mut came)).await;
        end.expect("in time").expect("no reset");
        let came = String::from_utf8_lossy(&came);
        assert!(
            came.starts_with("HTTP/1.1 200 ") && came.contains("new"),
            "{came:?}"
        );
    }
    assert!(stopped.await.expect("joined"), "nothing was cut");
    assert_eq!(server.requests().len(), 24);
}

#[tokio::test]
async fn what_is_counted_as_open_is_open() {
    let (gateway, server) = gateway_and_server().await;
    let page = || gateway.until_metric("vestibule_connections", |open| open == 1);
    page().await;
    let mut clients = Vec::new();
    for start in [
        "",
        "POST /one/mcp HTT",
        "POST /one/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        "no HTTP at all\r\n\r\n",
    ] {
        clients.push(sent(&gateway, start).await);
    }
    server.push(Answer::Hang);
    clients.push(sent(&gateway, post("", echo_body("waits"))).await);
    server.wait_for(1).await;
    let (reading, handle, _) = open(&gateway, &server).await;
    clients.push(reading);
    let half = format!("{}{{", head("POST", "/one/mcp", "Content-Length: 9\r\n"));
    clients.push(sent(&gateway, half).await);
    assert_eq!(gateway.metric("vestibule_streams").await, 1);
    drop(clients);
    page().await;
    handle.closed().await;
    gateway.until_metric("vestibule_streams", |open| open == 0).await;

    // A server that breaks a stream off ends it as well.
    let (mut client, handle, _) = open(&gateway, &server).await;
    handle.abort().await.expect("cut off");
    assert_eq!(rest(&mut client).await, "");
    server.push(Answer::json(200, &result("x")));
    assert_eq!(ask(&gateway, post("", echo_body("x"))).await.status, 200);
    gateway.until_metric("vestibule_streams", |open| open == 0).await;
    page().await;
}

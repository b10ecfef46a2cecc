//! `Mcp-Session-Id` toward the client: which ids open, and that no other reaches the server in any spelling.

use crate::by_hand::{Watched, ask, code, echo_body, head, post, rest, sent};
use crate::harness::{Start, TestGateway, echo, entry, keyed};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process;
use vestibule_testkit::{Answer, Response};

const FIRST: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const SECOND: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
/// The server's own id, which no client sees.
const INNER: &str = "canary-session-0123456789";

/// A file with master keys, gone with the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vestibule-{}-{name}", process::id()));
        std::fs::write(&path, text).expect("writable");
        Self(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn with_sessions() -> Watched {
    let server = Watched::start().await;
    server.set_session(Some(INNER));
    server
}

/// A gateway with this configuration and the master keys of this file.
async fn with_keys(text: &str, file: &KeyFile) -> TestGateway {
    let path = file.0.to_str().expect("text");
    Start::new(text)
        .environment("VESTIBULE_MASTER_KEY_FILE", path)
        .start()
        .await
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}})
}

/// Begins a session with `one` and gives the client's id of it.
async fn begun(gateway: &TestGateway) -> String {
    let response = ask(gateway, post("", initialize().to_string())).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("mcp-session-id").expect("an id").to_owned()
}

async fn echo_in(gateway: &TestGateway, session: &str) -> Response {
    ask(
        gateway,
        post(&format!("Mcp-Session-Id: {session}\r\n"), echo_body("x")),
    )
    .await
}

#[track_caller]
fn refused(response: &Response, why: &str) {
    assert_eq!(
        (response.status, code(&response.json())),
        (404, "unknown_session"),
        "{why}: {}",
        response.text()
    );
}

#[tokio::test]
async fn a_session_of_another_caller_does_not_open() {
    let server = with_sessions().await;
    let file = KeyFile::new("callers", FIRST);
    let servers = server.entry("one", "");
    let keyed = with_keys(&keyed(&servers), &file).await;
    let open = with_keys(&format!("mcp_servers:\n{servers}"), &file).await;
    let (masters, anyones) = (begun(&keyed).await, begun(&open).await);
    assert_eq!(echo_in(&keyed, &masters).await.status, 200);
    assert_eq!(echo_in(&open, &anyones).await.status, 200);
    let seen = server.requests().len();
    refused(&echo_in(&keyed, &anyones).await, "anybody's at the master's");
    refused(&echo_in(&open, &masters).await, "the master's at anybody's");
    assert_eq!(server.requests().len(), seen);
}

#[tokio::test]
async fn a_rotated_key_ring_opens_what_it_still_holds() {
    let server = with_sessions().await;
    let text = keyed(&server.entry("one", ""));
    let start = async |name: &str, keys: &str| with_keys(&text, &KeyFile::new(name, keys)).await;
    let old = start("old", FIRST).await;
    let rotated = start("rotated", &format!("# newest first\n{SECOND}\n\n{FIRST}\n")).await;
    let new = start("new", SECOND).await;
    let (before, after) = (begun(&old).await, begun(&rotated).await);
    assert_eq!(
        echo_in(&rotated, &before).await.status,
        200,
        "sealed by the second key"
    );
    assert_eq!(echo_in(&new, &after).await.status, 200, "the first key seals");
    let seen = server.requests().len();
    refused(&echo_in(&new, &before).await, "its key is gone");
    refused(&echo_in(&old, &after).await, "its key is not there yet");
    let alone = TestGateway::with_servers(&server.entry("one", "")).await;
    refused(&echo_in(&alone, &before).await, "made-up keys open nothing");
    assert_eq!(server.requests().len(), seen);
}

#[tokio::test]
async fn no_other_spelling_of_an_id_opens() {
    let server = with_sessions().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let id = begun(&gateway).await;
    let seen = server.requests().len();
    let mut wrong: Vec<String> = (0..id.len())
        .map(|index| {
            let other = if &id[index..=index] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &id[..index], &id[index + 1..])
        })
        .collect();
    wrong.extend((0..id.len()).map(|length| id[..length].to_owned()));
    wrong.extend([
        format!("{id}A"),
        format!("{id}="),
        format!("{id}=="),
        format!("{id}{id}"),
        format!("{id}, {id}"),
        format!("{id},"),
        format!("\"{id}\""),
        format!("Bearer {id}"),
        format!("={id}"),
        id.to_ascii_lowercase(),
        id.to_ascii_uppercase(),
        id.replace(['-', '_'], "+"),
        format!("{}%{:02x}{}", &id[..5], id.as_bytes()[5], &id[6..]),
        "x".repeat(5000),
        "AQ".to_owned(),
        INNER.to_owned(),
        "\u{e9}".to_owned(),
    ]);
    wrong.retain(|other| *other != id);
    let mut client = sent(&gateway, "").await;
    for other in &wrong {
        let lines = format!("Mcp-Session-Id: {other}\r\n");
        client.write(post(&lines, echo_body("x"))).await.expect("written");
        refused(&client.read_response().await.expect("a response"), other);
    }
    assert_eq!(server.requests().len(), seen, "the server saw none of them");
    assert_eq!(echo_in(&gateway, &format!(" \t{id} \t")).await.status, 200);
}

#[tokio::test]
async fn an_id_opens_nothing_under_any_other_method_path_or_gateway() {
    let (server, other) = (with_sessions().await, with_sessions().await);
    let servers = server.entry("one", "alias: uno") + &other.entry("two", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let id = begun(&gateway).await;
    let seen = server.requests().len();
    let session = format!("Mcp-Session-Id: {id}\r\n");
    for method in ["POST", "GET", "DELETE"] {
        for path in ["/two/mcp", "/mcp/two/"] {
            let response = ask(&gateway, head(method, path, &session)).await;
            refused(&response, path);
        }
        let wrong = head(method, "/one/mcp", &format!("Mcp-Session-Id: {}\r\n", &id[1..]));
        refused(&ask(&gateway, wrong).await, method);
    }
    assert_eq!((server.requests().len(), other.requests().len()), (seen, 0));
    // The same server under its other path and by every method: the same session.
    for (method, path, status) in [
        ("GET", "/one/mcp", 405),
        ("GET", "/mcp/one", 405),
        ("DELETE", "/mcp/one/", 204),
    ] {
        let response = ask(&gateway, head(method, path, &session)).await;
        assert_eq!(response.status, status, "{method} {path}");
        let requests = server.requests();
        let last = requests.last().expect("seen");
        assert_eq!(
            (last.method.as_str(), last.header("mcp-session-id")),
            (method, Some(INNER))
        );
    }
}

#[tokio::test]
async fn an_id_that_stands_twice_is_refused() {
    let server = with_sessions().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let (first, second) = (begun(&gateway).await, begun(&gateway).await);
    let seen = server.requests().len();
    for (a, b) in [(&first, &first), (&first, &second)] {
        let lines = format!("Mcp-Session-Id: {a}\r\nmcp-session-id: {b}\r\n");
        let response = ask(&gateway, post(&lines, echo_body("x"))).await;
        assert_eq!(
            (response.status, code(&response.json())),
            (400, "repeated_header")
        );
    }
    assert_eq!(server.requests().len(), seen);
}

#[tokio::test]
async fn an_id_is_told_once_and_stays_the_same() {
    let server = with_sessions().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let (first, second) = (begun(&gateway).await, begun(&gateway).await);
    assert_ne!(first, second, "two sessions are told apart");
    // The server repeats its id in every answer; the client hears the spelling it knows.
    for id in [&first, &second] {
        let response = echo_in(&gateway, id).await;
        assert_eq!(response.header("mcp-session-id"), Some(id.as_str()));
    }
    // A server that moves a client to another session: the new id is sealed too.
    let moved = Answer::raw(
        200,
        &[
            ("Content-Type", "application/json"),
            ("Mcp-Session-Id", "canary-moved"),
        ],
        "{}",
    );
    server.push(moved);
    let response = echo_in(&gateway, &first).await;
    let third = response.header("mcp-session-id").expect("an id").to_owned();
    assert!(third != first && !third.contains("canary"));
    server.push(Answer::json(200, &json!({})));
    assert_eq!(echo_in(&gateway, &third).await.status, 200);
    let requests = server.requests();
    let last = requests.last().expect("seen");
    assert_eq!(last.header("mcp-session-id"), Some("canary-moved"));
}

#[tokio::test]
async fn a_stream_carries_a_sealed_id_and_a_refusal_none() {
    let server = with_sessions().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let (stream, handle) = Answer::sse();
    server.push(stream);
    let mut client = sent(&gateway, post("Connection: close\r\n", initialize().to_string())).await;
    let head = client.read_head().await.expect("a head");
    let id = head.header("mcp-session-id").expect("an id").to_owned();
    assert!(!id.contains("canary"));
    handle.event(&echo("x")).await.expect("sent");
    handle.finish().await.expect("finished");
    assert!(rest(&mut client).await.ends_with("0\r\n\r\n"));
    assert_eq!(echo_in(&gateway, &id).await.status, 200);
    server.push(Answer::raw(
        200,
        &[("Content-Type", "text/html"), ("Mcp-Session-Id", INNER)],
        "a page",
    ));
    let response = echo_in(&gateway, &id).await;
    assert_eq!((response.status, response.header("mcp-session-id")), (502, None));
}

#[tokio::test]
async fn the_servers_own_404_for_a_session_comes_through() {
    let server = with_sessions().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let id = begun(&gateway).await;
    server.set_session(Some("canary-after-a-restart"));
    let response = echo_in(&gateway, &id).await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (404, "no such session")
    );
}

#[tokio::test]
async fn an_id_too_long_to_seal_is_not_passed_on() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", server.url()))).await;
    for (length, sealed) in [(2000, true), (2900, true), (4000, false)] {
        let inner = "i".repeat(length);
        server.set_session(Some(&inner));
        let response = ask(&gateway, post("", initialize().to_string())).await;
        assert_eq!(response.status, 200);
        let Some(id) = response.header("mcp-session-id") else {
            assert!(!sealed, "{length}");
            continue;
        };
        assert!(sealed && !id.contains("iiii"), "{length}");
        assert_eq!(echo_in(&gateway, id).await.status, 200, "{length}");
    }
}

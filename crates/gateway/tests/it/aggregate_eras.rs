//! Which era a server is spoken to in, where it speaks more than one, and what says so.

use crate::aggregate_modern::{MODERN, modern, sent};
use crate::aggregate_sessions::{begun, call, count, within};
use crate::aggregate_streams::Events;
use crate::aggregate_targets::names;
use crate::by_hand::Watched;
use crate::harness::{TestGateway, entry};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Request, Upstream};

const DISCOVERED: &str =
    r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#;

fn is_modern(request: &Request) -> bool {
    request.header("mcp-protocol-version") == Some(MODERN)
}

fn error(code: i64) -> Value {
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": "No."}})
}

/// As the answer to a first request of the gateway's own.
fn numbered(mut error: Value) -> Value {
    error["id"] = json!(1);
    error
}

/// A server of both eras, beside one that is away.
async fn dual() -> (Watched, TestGateway) {
    let server = Watched::start().await;
    server.set_session(None);
    server.answer_with("server/discover", DISCOVERED);
    let other = entry("b", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&(server.entry("a", "") + &other)).await;
    (server, gateway)
}

#[tokio::test]
async fn a_server_of_both_eras_asks_each_client_in_the_clients_own() {
    let (server, gateway) = dual().await;
    // The legacy client comes first, so that what is remembered of its handshake could mislead the other.
    let session = begun(&gateway, "/mcp", &json!({"elicitation": {}})).await;
    let (answer, handle) = Answer::sse();
    server.push_when(
        |request| !is_modern(request) && request.json()["method"] == "tools/call",
        answer,
    );
    let request = gateway
        .post("/mcp", &call("a-echo", "x"))
        .header("mcp-session-id", &session);
    let question =
        json!({"jsonrpc": "2.0", "id": 4, "method": "elicitation/create", "params": {"message": "Sure?"}});
    let (mut events, ()) = tokio::join!(Events::of(request), async {
        handle.event(&question).await.expect("sent");
    });
    let asked = events.next().await;
    assert_eq!(
        (&asked["method"], &asked["params"]),
        (&json!("elicitation/create"), &question["params"])
    );
    let seen = server.requests().len();
    let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}});
    assert_eq!(within(&gateway, "/mcp", &session, &reply).await.status, 202);
    let heard = server.wait_for(seen + 1).await.pop().expect("a request").json();
    assert_eq!(
        (&heard["id"], &heard["result"]["action"]),
        (&json!(4), &json!("accept"))
    );
    handle
        .event(&json!({"jsonrpc": "2.0", "id": 7, "result": {"content": []}}))
        .await
        .expect("sent");
    handle.finish().await.expect("finished");
    assert_eq!(events.next().await["result"], json!({"content": []}));
    assert_eq!(count(&server, "server/discover"), 0);

    let seen = server.requests().len();
    let asks = json!({"jsonrpc": "2.0", "id": 7, "result": {"resultType": "input_required", "requestState": "st/4+=",
        "inputRequests": {"k": {"method": "elicitation/create", "params": {"message": "Sure?"}}}}});
    server.push_when(
        |request| is_modern(request) && request.json()["method"] == "tools/call",
        Answer::json(200, &asks),
    );
    let first = sent(
        &gateway,
        &modern(
            "tools/call",
            json!({"name": "a-echo", "arguments": {"message": "y"}}),
        ),
    )
    .await;
    assert_eq!(first.body, asks);
    let again = json!({"name": "a-echo", "arguments": {"message": "y"}, "requestState": "st/4+=",
        "inputResponses": {"k": {"action": "accept", "content": {}}}});
    let second = sent(&gateway, &modern("tools/call", again)).await;
    assert_eq!(second.body["result"]["content"][0]["text"], "y");
    let heard = server.requests();
    let methods: Vec<Value> = heard[seen..]
        .iter()
        .map(|request| request.json()["method"].clone())
        .collect();
    assert_eq!(
        methods,
        ["server/discover", "tools/call", "tools/call"],
        "the era is remembered"
    );
    assert!(heard[seen..].iter().all(is_modern));
    let params = &heard.last().expect("a request").json()["params"];
    assert_eq!(
        (&params["requestState"], &params["inputResponses"]["k"]["action"]),
        (&json!("st/4+="), &json!("accept"))
    );

    // And the legacy client goes on in its own.
    assert_eq!(
        within(&gateway, "/mcp", &session, &call("a-echo", "z"))
            .await
            .status,
        200
    );
    assert!(!server.requests().last().is_some_and(is_modern));
}

#[tokio::test]
async fn what_says_something_of_the_era_and_what_does_not() {
    let result = |result: Value| Answer::json(200, &json!({"jsonrpc": "2.0", "id": 1, "result": result}));
    // The answer to the first `server/discover`; then the versions of the requests that follow it.
    let cases: Vec<(&str, Answer, &[&str])> = vec![
        (
            "modern",
            result(json!({"supportedVersions": [MODERN]})),
            &[MODERN],
        ),
        (
            "other versions",
            result(json!({"supportedVersions": ["2027-01-01"]})),
            &["2025-11-25"],
        ),
        ("no versions", result(json!({})), &["2025-11-25"]),
        ("header mismatch", Answer::json(400, &error(-32020)), &[MODERN]),
        ("capability", Answer::json(400, &error(-32021)), &[MODERN]),
        ("unsupported", Answer::json(400, &error(-32022)), &["2025-11-25"]),
        (
            "unknown method",
            Answer::json(404, &error(-32601)),
            &["2025-11-25"],
        ),
        (
            "unknown method, 200",
            Answer::json(200, &numbered(error(-32601))),
            &["2025-11-25"],
        ),
        ("no session", Answer::raw(400, &[], "no session"), &["2025-11-25"]),
        ("not found", Answer::raw(404, &[], ""), &["2025-11-25"]),
        ("401", Answer::raw(401, &[], ""), &[]),
        ("403", Answer::raw(403, &[], ""), &[]),
        ("429", Answer::raw(429, &[], ""), &[]),
        ("500", Answer::json(500, &error(-32601)), &[]),
        ("503", Answer::raw(503, &[], ""), &[]),
        ("closed", Answer::CloseWithoutAnswer, &[]),
        ("hangs", Answer::Hang, &[]),
        ("a page", Answer::Html, &[]),
    ];
    for (name, answer, versions) in cases {
        let server = Watched::start().await;
        server.push_for("server/discover", answer);
        server.answer_with("server/discover", DISCOVERED);
        let entries = server.entry("a", "timeout: 1") + &entry("b", "url: http://127.0.0.1:9/mcp");
        let gateway = TestGateway::with_servers(&entries).await;
        let message = modern(
            "tools/call",
            json!({"name": "a-echo", "arguments": {"message": "x"}}),
        );
        let called = sent(&gateway, &message).await;
        let calls = |server: &Upstream| {
            let requests = server.requests();
            let calls = requests
                .iter()
                .filter(|request| request.json()["method"] == "tools/call");
            let versions = calls.map(|request| {
                request
                    .header("mcp-protocol-version")
                    .unwrap_or_default()
                    .to_owned()
            });
            versions.collect::<Vec<_>>()
        };
        assert_eq!(calls(&server), versions, "{name}: {}", called.body);
        if versions.is_empty() {
            assert!(called.body["error"].is_object(), "{name}: {}", called.body);
            assert_eq!(count(&server, "initialize"), 0, "{name}");
            // Nothing was learnt: the next call asks again, and finds the newer era.
            let called = sent(&gateway, &message).await;
            assert_eq!(
                called.body["result"]["content"][0]["text"], "x",
                "{name}: {}",
                called.body
            );
            assert_eq!(calls(&server), [MODERN], "{name}");
        } else {
            sent(&gateway, &message).await;
            assert_eq!(count(&server, "server/discover"), 1, "{name}");
        }
    }
}

#[tokio::test]
async fn what_a_client_brings_a_server_to_say_is_not_its_era() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    for code in [-32602, -32601, -32022] {
        let from = b.requests().len();
        // Once for the greeting, once for the call.
        for _ in 0..2 {
            b.push_for("initialize", Answer::json(400, &numbered(error(code))));
        }
        let session = begun(&gateway, "/mcp", &json!({"sampling": {"tools": 1}})).await;
        let called = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
        assert_eq!(
            called.body["error"]["data"]["code"], "upstream_error",
            "{}",
            called.body
        );
        // It was the client's doing, and the next try of the same client is another one.
        let called = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
        assert_eq!(
            called.body["result"]["content"][0]["text"], "x",
            "{}",
            called.body
        );
        let other = begun(&gateway, "/mcp", &json!({})).await;
        let called = within(&gateway, "/mcp", &other, &call("b-echo", "y")).await;
        assert_eq!(
            called.body["result"]["content"][0]["text"], "y",
            "{}",
            called.body
        );
        let calls = b.requests().split_off(from);
        let mut calls = calls
            .iter()
            .filter(|request| request.json()["method"] == "tools/call");
        assert!(calls.all(|call| !is_modern(call)), "{code}");
    }
    // A server that says so itself is believed.
    b.answer_with("server/discover", DISCOVERED);
    b.push_for("initialize", Answer::json(400, &numbered(error(-32602))));
    let session = begun(&gateway, "/mcp", &json!({"sampling": {}})).await;
    let called = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
    assert_eq!(
        called.body["result"]["content"][0]["text"], "x",
        "{}",
        called.body
    );
    assert!(b.requests().last().is_some_and(is_modern));
}

#[tokio::test]
async fn a_server_that_changes_its_era_is_asked_again() {
    let (server, gateway) = dual().await;
    let message = modern(
        "tools/call",
        json!({"name": "a-echo", "arguments": {"message": "x"}}),
    );
    assert_eq!(sent(&gateway, &message).await.status, 200);
    // Put back to an older version: it knows no request without a session.
    server.answer_with("server/discover", r#"{"odd":true}"#);
    server.push_for("tools/call", Answer::json(400, &error(-32600)));
    assert_eq!(sent(&gateway, &message).await.status, 400);
    let called = sent(&gateway, &message).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "x");
    assert_eq!(
        (count(&server, "server/discover"), count(&server, "initialize")),
        (2, 1)
    );

    // A list that fails is doubted as a call is.
    server.answer_with("server/discover", DISCOVERED);
    server.push_for("tools/list", Answer::Html);
    let listed = sent(&gateway, &modern("tools/list", json!({}))).await;
    assert!(listed.body["error"].is_object(), "{}", listed.body);
    let listed = sent(&gateway, &modern("tools/list", json!({}))).await;
    assert_eq!(names(&listed.body, "tools"), ["a-echo"]);
    assert!(server.requests().last().is_some_and(is_modern));
}

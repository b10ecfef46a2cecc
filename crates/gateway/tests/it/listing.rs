//! `/mcp-rest` with servers that are silent, endless or hard to tell apart.

use crate::by_hand::{ByHand, Watched};
use crate::harness::{KEY, Start, TestGateway, got, keyed, logged};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::Answer;

/// Keeps the time of a listing short where a test waits for its end.
const SHORT: &str = "vestibule: {limits: {listing_timeout: 0.5}}\n";

fn list(gateway: &TestGateway, query: &str) -> reqwest::RequestBuilder {
    let list = gateway.http.get(gateway.url("/mcp-rest/tools/list") + query);
    list.header("x-litellm-api-key", KEY)
}

#[tokio::test]
async fn a_silent_server_is_named_and_the_others_are_listed() {
    let (server, silent) = (Watched::start().await, ByHand::start().await);
    let servers = server.entry("one", "") + &silent.entry("two", "");
    let gateway = Start::new(keyed(&servers) + SHORT).start().await;
    let all = got(list(&gateway, "")).await;
    assert_eq!((all.status, &all.body["tools"][0]["name"]), (200, &json!("echo")));
    let outcomes = &all.body["server_outcomes"];
    assert_eq!(
        (&outcomes["one"]["status"], &outcomes["two"]["status"]),
        (&json!("ok"), &json!("listing_timeout")),
        "{}",
        all.body
    );
    let one = got(list(&gateway, "?server_id=two")).await;
    assert_eq!((one.status, one.code()), (504, "listing_timeout"));
    assert!(one.body.to_string().contains("MCP server two"), "{}", one.body);
}

#[tokio::test]
async fn a_server_that_never_ends_a_session_holds_no_answer_up() {
    let server = Watched::start().await;
    server.set_session(Some("s"));
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let gate = Arc::new(Semaphore::new(0));
    for _ in 0..2 {
        server.push_when(
            |request| request.method == "DELETE",
            Answer::Gate(Arc::clone(&gate)),
        );
    }
    assert_eq!(got(list(&gateway, "")).await.status, 200);
    let call = json!({"server_id": "one", "name": "echo", "arguments": {"message": "x"}});
    let call = got(gateway.post("/mcp-rest/tools/call", &call)).await;
    assert_eq!(call.body["content"][0]["text"], "x");
    // Both sessions are ended all the same: initialize, initialized, the request, DELETE.
    let requests = server.wait_for(8).await;
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.method == "DELETE")
            .count(),
        2
    );
}

#[tokio::test]
async fn a_session_ends_though_its_beginning_failed_or_its_caller_left() {
    let server = Watched::start().await;
    server.set_session(Some("s"));
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    server.push_for("notifications/initialized", Answer::CloseWithoutAnswer);
    assert_eq!(
        got(list(&gateway, "?server_id=one")).await.code(),
        "upstream_closed"
    );
    assert_eq!(server.wait_for(3).await[2].method, "DELETE");

    server.push_for("tools/list", Answer::Hang);
    let leaving = tokio::spawn(got(list(&gateway, "")));
    server.wait_for(6).await;
    leaving.abort();
    assert_eq!(server.wait_for(7).await[6].method, "DELETE");
}

#[tokio::test]
async fn what_a_caller_names_cannot_write_lines_or_floods_into_answers_and_logs() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let forged = "forged-name\n2026-01-01 INFO forged-line\u{2028}\u{202e}";
    for call in [
        json!({"name": forged}),
        json!({"name": forged.repeat(10_000)}),
        json!({"name": {(forged): 1}}),
        json!(forged),
    ] {
        let refused = got(gateway.post("/mcp-rest/tools/call", &call)).await;
        let text = refused.body["detail"]["message"].as_str().expect("a message");
        assert!(
            text.len() < 400 && !text.contains(['\n', '\u{2028}', '\u{202e}']),
            "{text:?}"
        );
    }
    assert!(logged().contains("forged-name"), "the name is in the log");
    assert!(
        !logged()
            .lines()
            .any(|line| line.starts_with("2026-01-01 INFO forged"))
    );
}

#[tokio::test]
async fn a_list_of_tools_ends_at_a_bound_however_small_its_pages() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let filler = "x".repeat(3 * 1024 * 1024);
    for id in 2..8 {
        let page = json!({"tools": [{"name": "echo", "description": filler}], "nextCursor": "more"});
        let page = json!({"jsonrpc": "2.0", "id": id, "result": page});
        server.push_for("tools/list", Answer::json(200, &page));
    }
    let refused = got(list(&gateway, "?server_id=one")).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_not_mcp"),
        "{}",
        refused.body
    );
    assert!(refused.body.to_string().contains("too large"), "{}", refused.body);
}

#[tokio::test]
async fn while_a_server_is_silent_a_bare_name_is_nobodys_and_a_full_one_is_its_owners() {
    let (server, silent) = (Watched::start().await, ByHand::start().await);
    let servers = server.entry("one", "") + &silent.entry("two", "");
    let gateway = Start::new(keyed(&servers) + SHORT).start().await;
    let call = |name: &str| {
        let call = json!({"name": name, "arguments": {"message": "x"}});
        got(gateway.post("/mcp-rest/tools/call", &call))
    };
    let refused = call("echo").await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "ambiguous_tool"),
        "{}",
        refused.body
    );
    let text = refused.body["detail"]["message"].as_str().expect("a message");
    assert!(text.contains("two") && text.contains("server_id"), "{text}");
    assert_eq!(call("one-echo").await.body["content"][0]["text"], "x");
    assert_eq!(call("nothing").await.code(), "unknown_tool");
    let asked: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.json()["method"].clone())
        .collect();
    assert_eq!(asked.iter().filter(|method| **method == "tools/call").count(), 1);
}

#[tokio::test]
async fn the_conversation_that_found_a_tool_calls_it() {
    let (one, two) = (Watched::start().await, Watched::start().await);
    two.set_tools(&["other"]);
    let gateway = TestGateway::with_servers(&(one.entry("one", "") + &two.entry("two", ""))).await;
    let call = json!({"name": "other", "arguments": {"message": "x"}});
    let called = got(gateway.post("/mcp-rest/tools/call", &call)).await;
    assert_eq!(called.body["content"][0]["text"], "x", "{}", called.body);
    assert_eq!((one.requests().len(), two.requests().len()), (3, 4));
}

#[tokio::test]
async fn a_tool_that_is_called_like_its_server_is_found_by_its_whole_name() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let call = |name: &str| json!({"server_id": "one", "name": name, "arguments": {}});
    for (tools, name, called) in [
        (&["one-echo", "echo"][..], "one-echo", "one-echo"),
        (&["echo"], "one-echo", "echo"),
        (&["echo"], "echo", "echo"),
    ] {
        server.set_tools(tools);
        assert_eq!(
            got(gateway.post("/mcp-rest/tools/call", &call(name)))
                .await
                .status,
            200
        );
        let last = server.requests().last().expect("a request").json();
        assert_eq!(
            (&last["method"], &last["params"]["name"]),
            (&json!("tools/call"), &json!(called))
        );
    }
}

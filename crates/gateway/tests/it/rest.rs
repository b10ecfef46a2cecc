//! `/mcp-rest` as scripts use it: servers of every revision and habit behind it, lists in pages, servers that fail,
//! and requests that are none.

use crate::by_hand::Watched;
use crate::harness::{Got, Start, TestGateway, entry, got, keyed};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, free_addr};

const LIST: &str = "/mcp-rest/tools/list";
const CALL: &str = "/mcp-rest/tools/call";

async fn list(gateway: &TestGateway, query: &str) -> Got {
    let url = gateway.url(&format!("{LIST}{query}"));
    got(gateway
        .http
        .get(url)
        .header("x-litellm-api-key", crate::harness::KEY))
    .await
}

async fn call(gateway: &TestGateway, body: &Value) -> Got {
    got(gateway.post(CALL, body)).await
}

fn names(got: &Got) -> Vec<&str> {
    let tools = got.body["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("{}", got.body));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name"))
        .collect()
}

fn message(got: &Got) -> &str {
    got.body["detail"]["message"].as_str().unwrap_or_default()
}

/// What `server` was asked since the first `from` requests: the JSON-RPC method, or the HTTP method without one.
fn asked(server: &Watched, from: usize) -> Vec<String> {
    let requests = server.requests();
    let method = |request: &vestibule_testkit::Request| match request.json()["method"].as_str() {
        Some(method) => method.to_owned(),
        None => request.method.clone(),
    };
    requests[from..].iter().map(method).collect()
}

fn page(tools: &[&str], next: Option<&str>) -> Value {
    let tools: Vec<Value> = tools
        .iter()
        .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
        .collect();
    let mut result = json!({"tools": tools, "resultType": "complete", "ttlMs": 0});
    if let Some(next) = next {
        result["nextCursor"] = json!(next);
    }
    result
}

/// Answers the next request of that method with this result; request ids count up from one in a conversation.
fn result_of(server: &Watched, method: &str, id: u64, result: &Value) {
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
    server.push_for(method, Answer::json(200, &answer));
}

#[tokio::test]
async fn a_server_without_initialize_is_spoken_to_in_its_own_revision() {
    let server = Watched::start().await;
    server.set_tools(&["größe"]);
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for (status, code, id) in [
        (400, -32602, Some(1)),
        (400, -32020, Some(1)),
        (400, -32022, Some(1)),
        (404, -32601, Some(1)),
        (200, -32601, Some(1)),
        // One that does not read the body of what it cannot serve.
        (400, -32020, None),
    ] {
        let mut no = json!({"jsonrpc": "2.0", "error": {"code": code, "message": "no initialize here"}});
        if let Some(id) = id {
            no["id"] = json!(id);
        }
        let from = server.requests().len();
        server.push_for("initialize", Answer::json(status, &no));
        let listed = list(&gateway, "?server_id=one").await;
        assert_eq!((listed.status, names(&listed)), (200, vec!["größe"]), "{code}");
        server.push_for("initialize", Answer::json(status, &no));
        let called = call(
            &gateway,
            &json!({"server_id": "one", "name": "größe", "arguments": {"message": "x"}}),
        )
        .await;
        assert_eq!(
            (called.status, &called.body["content"][0]["text"]),
            (200, &json!("x")),
            "{code}: {}",
            called.body
        );
        assert_eq!(
            asked(&server, from),
            ["initialize", "tools/list", "initialize", "tools/call"],
            "{code}: no session is confirmed or ended"
        );
        for (index, name) in [(1, None), (3, Some("=?base64?Z3LDtsOfZQ==?="))] {
            let request = &server.requests()[from + index];
            let body = request.json();
            let meta = &body["params"]["_meta"];
            assert_eq!(
                (
                    request.header("mcp-protocol-version"),
                    request.header("mcp-method"),
                    request.header("mcp-name"),
                    request.header("mcp-session-id"),
                ),
                (Some("2026-07-28"), body["method"].as_str(), name, None)
            );
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
            assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
            assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "vestibule");
            assert_eq!(
                request.header("accept"),
                Some("application/json, text/event-stream")
            );
        }
    }
}

#[tokio::test]
async fn another_error_to_initialize_is_no_other_revision() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for (status, code) in [(400, -32600), (500, -32603), (200, -32000), (403, -32001)] {
        let from = server.requests().len();
        let no = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "not today"}});
        server.push_for("initialize", Answer::json(status, &no));
        let listed = list(&gateway, "?server_id=one").await;
        assert_eq!((listed.status, listed.code()), (502, "upstream_error"), "{code}");
        assert!(message(&listed).contains("not today") && message(&listed).contains("one"));
        assert_eq!(asked(&server, from), ["initialize"]);
    }
}

#[tokio::test]
async fn a_session_is_begun_used_and_ended_also_when_the_call_fails() {
    let server = Watched::start().await;
    server.set_session(Some("s-1"));
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for (name, status) in [("echo", 200), ("nothing", 502)] {
        let from = server.requests().len();
        let called = call(
            &gateway,
            &json!({"server_id": "one", "name": name, "arguments": {}}),
        )
        .await;
        assert_eq!(called.status, status, "{}", called.body);
        // The session ends behind the answer.
        server.wait_for(from + 4).await;
        assert_eq!(
            asked(&server, from),
            ["initialize", "notifications/initialized", "tools/call", "DELETE"]
        );
        for request in &server.requests()[from + 1..] {
            assert_eq!(
                (
                    request.header("mcp-session-id"),
                    request.header("mcp-protocol-version")
                ),
                (Some("s-1"), Some("2025-11-25"))
            );
            assert_eq!(request.header("mcp-method"), None);
        }
    }
}

#[tokio::test]
async fn an_answer_in_an_event_stream_is_found_among_what_else_is_said() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let older = json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-03-26"}});
    let stream = [("Content-Type", "text/event-stream; charset=utf-8")];
    let begin = format!("id: 0\nretry: 100\ndata:\n\n: hello\n\ndata: {older}\n\n");
    server.push_for("initialize", Answer::raw(200, &stream, begin));
    let said = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\r\n\r\n\
        data: {\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"roots/list\"}\n\n\
        data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{\"content\":[\"another's\"]}}\n\n\
        event: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":2,\"result\":{\"content\":[\"ours\"],\"n\":0.10}}\n\n";
    server.push_for("tools/call", Answer::raw(200, &stream, said));
    let called = call(&gateway, &json!({"server_id": "one", "name": "echo"})).await;
    assert_eq!((called.status, &called.body["content"][0]), (200, &json!("ours")));
    let requests = server.requests();
    assert_eq!(requests[2].header("mcp-protocol-version"), Some("2025-03-26"));

    let ended = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    server.push_for("tools/call", Answer::raw(200, &stream, ended));
    let called = call(&gateway, &json!({"server_id": "one", "name": "echo"})).await;
    assert_eq!((called.status, called.code()), (502, "upstream_truncated"));
}

#[tokio::test]
async fn a_list_in_pages_is_read_to_its_end() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let cursor = "an opaque \"cursor\" é/=+ \u{1f600}";
    result_of(&server, "tools/list", 2, &page(&["a", "b"], Some("2")));
    result_of(&server, "tools/list", 3, &page(&[], Some(cursor)));
    result_of(&server, "tools/list", 4, &page(&["c"], None));
    let listed = list(&gateway, "?server_id=one").await;
    assert_eq!((listed.status, names(&listed)), (200, vec!["a", "b", "c"]));
    let requests = server.requests();
    let cursors: Vec<Value> = requests[2..]
        .iter()
        .map(|request| request.json()["params"]["cursor"].clone())
        .collect();
    assert_eq!(cursors, [Value::Null, json!("2"), json!(cursor)]);

    // The tool of a later page is found by its name as well.
    result_of(&server, "tools/list", 2, &page(&["a"], Some("2")));
    result_of(&server, "tools/list", 3, &page(&["echo"], None));
    let called = call(&gateway, &json!({"name": "echo", "arguments": {"message": "x"}})).await;
    assert_eq!(called.body["content"][0]["text"], "x", "{}", called.body);
}

#[tokio::test]
async fn tools_are_listed_as_the_server_wrote_them_and_what_is_none_is_left_out() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "disallowed_tools: [hidden]")).await;
    let items = r#"{}, 1, null, ["a"], {"name":7}, {"name":null}, {"title":"a"}, {"name":"a","name":"hidden"},
        {"name":"hidden"}, { "name" : "b", "n":1.00,"big":12345678901234567890123 , "a":1e400, "_meta":{"x":1,"x":2} },
        {"name":"d","\u006dcp_info": null, "x":"\u00e9"}, {"name":"e","mcp_info":{},"mcp_info":{}}"#;
    let answer = format!(r#"{{"jsonrpc":"2.0","id":2,"result":{{"tools":[{items}]}}}}"#);
    server.push_for(
        "tools/list",
        Answer::raw(200, &[("Content-Type", "application/json")], answer),
    );
    let listed = gateway.http.get(gateway.url(&format!("{LIST}?server_id=one")));
    let listed = listed.header("x-litellm-api-key", crate::harness::KEY);
    let listed = listed.send().await.expect("answered");
    let text = listed.text().await.expect("a body");
    let tools = text
        .strip_prefix(r#"{"tools":["#)
        .and_then(|rest| Some(rest.rsplit_once("],")?.0));
    let info = tools.and_then(|tools| tools.split_once(r#""mcp_info":"#)?.1.split_once("},"));
    let info = info.unwrap_or_else(|| panic!("mcp_info in {text}")).0;
    assert!(info.contains(r#""server_name":"one""#), "{info}");
    let expected = format!(
        r#"{{ "name" : "b", "n":1.00,"big":12345678901234567890123 , "a":1e400, "_meta":{{"x":1,"x":2}} ,"mcp_info":{info}}},{{"name":"d","\u006dcp_info": {info}, "x":"\u00e9"}}"#
    );
    assert_eq!(tools, Some(expected.as_str()));
}

#[tokio::test]
async fn a_list_of_too_many_tools_is_given_up() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for (more, status) in [(5000, 200), (5001, 502)] {
        result_of(&server, "tools/list", 2, &page(&vec!["a"; 5000], Some("2")));
        result_of(&server, "tools/list", 3, &page(&vec!["b"; more], None));
        let listed = list(&gateway, "?server_id=one").await;
        assert_eq!(listed.status, status, "{more}");
        if status == 200 {
            assert_eq!(names(&listed).len(), 10_000);
        } else {
            assert_eq!(listed.code(), "upstream_not_mcp");
            assert!(message(&listed).contains("too large"), "{}", listed.body);
        }
    }
    // What is no tool takes no place among them.
    let answer = json!({"jsonrpc": "2.0", "id": 2, "result": {"tools": vec![json!({}); 100_000]}});
    server.push_for("tools/list", Answer::json(200, &answer));
    let listed = list(&gateway, "?server_id=one").await;
    assert_eq!((listed.status, names(&listed).len()), (200, 0));
}

#[tokio::test]
async fn headers_in_the_place_of_arguments_reach_no_server() {
    let server = Watched::start().await;
    let rules = "allowed_params: {echo: [message]}";
    let gateway = TestGateway::with_servers(&server.entry("one", rules)).await;
    for body in [
        json!({"server_id": "one", "name": "echo", "arguments": {"message": "x"}}),
        json!({"name": "echo", "arguments": {"message": "x"}}),
    ] {
        let no = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}});
        server.push_for("initialize", Answer::json(404, &no));
        let called = gateway
            .post(CALL, &body)
            .header("mcp-param-force", "canary-force");
        let called = got(called).await;
        assert_eq!(called.body["content"][0]["text"], "x", "{}", called.body);
        let requests = server.requests();
        let sent = requests.last().expect("seen");
        assert_eq!(sent.header("mcp-protocol-version"), Some("2026-07-28"));
    }
    server.assert_never_seen("canary-force");
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let (endless, other) = (Watched::start().await, Watched::start().await);
    let servers = endless.entry("endless", "") + &other.entry("other", "");
    let gateway = TestGateway::with_servers(&servers).await;
    for id in 2..1200 {
        result_of(&endless, "tools/list", id, &page(&["again"], Some("the same")));
    }
    let listed = list(&gateway, "").await;
    assert_eq!((listed.status, names(&listed)), (200, vec!["echo"]));
    let outcome = &listed.body["server_outcomes"]["endless"];
    assert_eq!(outcome["status"], "upstream_not_mcp", "{outcome}");
    assert!(
        outcome["message"]
            .as_str()
            .is_some_and(|text| text.contains("endless") && text.contains("does not end")),
        "{outcome}"
    );
    assert_eq!(endless.requests().len(), 2 + 1000);
}

#[tokio::test]
async fn servers_that_fail_are_named_and_the_others_listed() {
    let (good, page, wants) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    wants.accept_if(|_| false);
    page.push_for("initialize", Answer::Html);
    let servers = entry("dead", &format!("url: http://{}/mcp", free_addr()))
        + &good.entry("good", "")
        + &page.entry("page", "")
        + &wants.entry("wants", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let listed = list(&gateway, "").await;
    assert_eq!((listed.status, names(&listed)), (200, vec!["echo"]));
    assert_eq!(listed.body["error"], Value::Null);
    assert_eq!(listed.body["tools"][0]["mcp_info"]["server_name"], "good");
    let outcomes = &listed.body["server_outcomes"];
    for (name, status) in [
        ("dead", "upstream_unreachable"),
        ("good", "ok"),
        ("page", "upstream_not_mcp"),
        ("wants", "upstream_wants_credential"),
    ] {
        assert_eq!(outcomes[name]["status"], status, "{outcomes}");
    }
    assert_eq!(outcomes["good"]["tool_count"], 1);

    let of_dead = list(&gateway, "?server_id=dead").await;
    assert_eq!((of_dead.status, of_dead.code()), (502, "upstream_unreachable"));
    // A name that one living server has may be a dead one's too; with its server's name it is called.
    page.push_for("initialize", Answer::Html);
    let called = call(&gateway, &json!({"name": "echo", "arguments": {"message": "x"}})).await;
    assert_eq!((called.status, called.code()), (400, "ambiguous_tool"));
    page.push_for("initialize", Answer::Html);
    let called = call(
        &gateway,
        &json!({"name": "good-echo", "arguments": {"message": "x"}}),
    )
    .await;
    assert_eq!(called.body["content"][0]["text"], "x", "{}", called.body);
    // A name that nobody has may be a dead server's.
    page.push_for("initialize", Answer::Html);
    let called = call(&gateway, &json!({"name": "lost"})).await;
    assert_eq!((called.status, called.code()), (404, "unknown_tool"));
    let text = message(&called);
    assert!(
        ["lost", "dead: ", "page: ", "wants: "]
            .iter()
            .all(|part| text.contains(part))
            && !text.contains("good"),
        "{text}"
    );
}

#[tokio::test]
async fn where_every_server_fails_the_list_is_an_error_and_each_is_named() {
    let page = Watched::start().await;
    page.push_for("initialize", Answer::Html);
    let servers = entry("dead", &format!("url: http://{}/mcp", free_addr())) + &page.entry("page", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let listed = list(&gateway, "").await;
    assert_eq!(
        (listed.status, &listed.body["error"], &listed.body["tools"]),
        (502, &json!("partial_failure"), &json!([])),
        "{}",
        listed.body
    );
    let text = listed.body["message"].as_str().expect("a message");
    assert!(text.contains("dead: ") && text.contains("page: "), "{text}");
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_only_who_asks_for_it() {
    let (hanging, good) = (Watched::start().await, Watched::start().await);
    let gate = Arc::new(Semaphore::new(0));
    hanging.push_for("initialize", Answer::Gate(Arc::clone(&gate)));
    let servers = hanging.entry("hanging", "") + &good.entry("good", "");
    let gateway = Arc::new(TestGateway::with_servers(&servers).await);
    let all = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { list(&gateway, "").await }
    });
    hanging.wait_for(1).await;
    good.wait_for(3).await;
    let one = list(&gateway, "?server_id=good").await;
    assert_eq!((one.status, names(&one)), (200, vec!["echo"]));
    let called = call(
        &gateway,
        &json!({"server_id": "good", "name": "echo", "arguments": {"message": "x"}}),
    )
    .await;
    assert_eq!(called.status, 200);
    assert!(!all.is_finished(), "the whole list waits");
    gate.add_permits(1);
    assert_eq!(names(&all.await.expect("joined")), ["echo", "echo"]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_its_time() {
    let (hanging, good) = (Watched::start().await, Watched::start().await);
    hanging.push_for("initialize", Answer::Hang);
    let servers = hanging.entry("hanging", "timeout: 0.3") + &good.entry("good", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let listed = list(&gateway, "").await;
    assert_eq!((listed.status, names(&listed)), (200, vec!["echo"]));
    assert_eq!(
        listed.body["server_outcomes"]["hanging"]["status"],
        "upstream_timeout"
    );
    hanging.wait_for_abandoned(1).await;
}

#[tokio::test]
async fn what_a_tool_says_comes_back_as_it_came_errors_included() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let body = json!({"server_id": "one", "name": "echo"});
    let odd = r#"{ "isError":true,"content":[{"type":"text","text":"\u00e9"}], "n":0.10,"big":12345678901234567890123,"a":1e400}"#;
    let answer = format!(r#"{{"result":{odd},"id":2,"jsonrpc":"2.0"}}"#);
    server.push_for(
        "tools/call",
        Answer::raw(200, &[("Content-Type", "application/json")], answer),
    );
    let response = gateway.post(CALL, &body).send().await.expect("answered");
    assert_eq!(response.status(), 200, "a tool that fails has answered");
    assert_eq!(response.text().await.expect("a body"), odd);

    for status in [200, 400, 500] {
        let error = json!({"code": -32602, "message": format!("no such\u{7}\ncity {}", "x".repeat(2000))});
        let error = json!({"jsonrpc": "2.0", "id": 2, "error": error});
        server.push_for("tools/call", Answer::json(status, &error));
        let called = call(&gateway, &body).await;
        assert_eq!((called.status, called.code()), (502, "upstream_error"));
        let text = message(&called);
        assert!(
            text.contains("one") && text.contains("-32602: no suchcity x") && text.len() < 700,
            "{text}"
        );
        assert!(!called.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn arguments_reach_the_tool_as_they_were_written() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let arguments = r#"{"z":1,"a":0.10,"big":12345678901234567890123,"huge":1e400,"u":"\u00e9"}"#;
    for modern in [false, true] {
        if modern {
            let no = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}});
            server.push_for("initialize", Answer::json(404, &no));
        }
        // The fake reads numbers as 64 bits, and this message not at all.
        let answer = json!({"jsonrpc": "2.0", "id": 2, "result": {"content": []}});
        server.push_when(
            |request| request.contains("tools/call"),
            Answer::json(200, &answer),
        );
        let body = format!(r#"{{"server_id":"one","name":"echo","arguments":{arguments}}}"#);
        let called = got(gateway.post(CALL, &Value::Null).body(body)).await;
        assert_eq!(called.status, 200, "{}", called.body);
        let requests = server.requests();
        let sent = requests.last().expect("seen");
        assert!(
            sent.contains(&format!(r#""arguments":{arguments}"#)),
            "{}",
            String::from_utf8_lossy(&sent.body)
        );
    }
}

#[tokio::test]
async fn missing_and_null_arguments_are_an_empty_object() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    for body in [
        json!({"server_id": "one", "name": "echo"}),
        json!({"server_id": "one", "name": "echo", "arguments": null}),
        json!({"server_id": "one", "name": "echo", "arguments": {}}),
        json!({"name": "echo", "server_id": null}),
        json!({"name": "echo", "server_id": "", "of": "tomorrow"}),
    ] {
        let called = call(&gateway, &body).await;
        assert_eq!(called.body["content"][0]["text"], "{}", "{body}: {}", called.body);
    }
}

#[tokio::test]
async fn a_name_that_two_servers_have_is_refused_and_both_are_named() {
    let (one, two, three) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    one.set_tools(&["shared", "three-own"]);
    two.set_tools(&["shared"]);
    three.set_tools(&["own"]);
    let servers = one.entry("one", "") + &two.entry("two", "alias: second") + &three.entry("three", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let called = call(&gateway, &json!({"name": "shared"})).await;
    assert_eq!((called.status, called.code()), (400, "ambiguous_tool"));
    assert!(message(&called).contains("shared: one, two."), "{}", called.body);
    // `three-own` is a tool of `one`, and the tool `own` of `three`.
    let called = call(&gateway, &json!({"name": "three-own"})).await;
    assert_eq!((called.status, called.code()), (400, "ambiguous_tool"));
    assert!(message(&called).contains("one, three"), "{}", called.body);
    for server in [&one, &two, &three] {
        assert!(!asked(server, 0).contains(&"tools/call".to_owned()));
    }
    for (body, server) in [
        (json!({"name": "shared", "server_id": "second"}), &two),
        (json!({"name": "second-shared"}), &two),
        (json!({"name": "two-shared"}), &two),
        (json!({"name": "three-own", "server_id": "three"}), &three),
        (json!({"name": "own"}), &three),
    ] {
        let called = call(&gateway, &body).await;
        assert_eq!(called.status, 200, "{body}: {}", called.body);
        let requests = server.requests();
        assert_eq!(requests.last().expect("seen").json()["method"], "tools/call");
    }
}

#[tokio::test]
async fn unknown_servers_and_tools_and_requests_that_are_none_have_their_code() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")) + "vestibule: {limits: {max_body_bytes: 1000}}\n";
    let gateway = Start::new(text).start().await;
    for query in [
        "?server_id=nowhere",
        "?server_id=ONE",
        "?server_id=one%20",
        "?server_id=one,one",
    ] {
        let listed = list(&gateway, query).await;
        assert_eq!((listed.status, listed.code()), (404, "unknown_server"), "{query}");
    }
    let called = call(&gateway, &json!({"server_id": "nowhere", "name": "echo"})).await;
    assert_eq!((called.status, called.code()), (404, "unknown_server"));
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(2000));
    for (body, status, code) in [
        ("", 400, "missing_parameter"),
        ("no JSON", 400, "missing_parameter"),
        (r#"{"name":"echo""#, 400, "missing_parameter"),
        (r#"{"name":"echo"}{}"#, 400, "missing_parameter"),
        ("[]", 400, "missing_parameter"),
        ("null", 400, "missing_parameter"),
        ("{}", 400, "missing_parameter"),
        (r#"{"name":7}"#, 400, "missing_parameter"),
        (r#"{"name":""}"#, 400, "missing_parameter"),
        (
            r#"{"name":"echo","name":"echo","server_id":"one"}"#,
            400,
            "missing_parameter",
        ),
        (r#"{"name":"echo","server_id":7}"#, 400, "missing_parameter"),
        (
            r#"{"name":"echo","server_id":"one","arguments":[]}"#,
            400,
            "missing_parameter",
        ),
        (
            r#"{"name":"echo","server_id":"one","arguments":"x"}"#,
            400,
            "missing_parameter",
        ),
        (
            r#"{"name":"echo","server_id":"one","arguments":7}"#,
            400,
            "missing_parameter",
        ),
        (long.as_str(), 413, "body_too_large"),
    ] {
        let called = got(gateway.post(CALL, &Value::Null).body(body.to_owned())).await;
        assert_eq!(
            (called.status, called.code()),
            (status, code),
            "{body}: {}",
            called.body
        );
        assert_eq!(
            called.body["detail"]["request_id"],
            called.header("x-request-id"),
            "{body}"
        );
    }
    assert!(server.requests().is_empty());
    let called = call(&gateway, &json!({"name": "nothing"})).await;
    assert_eq!((called.status, called.code()), (404, "unknown_tool"));
    assert!(message(&called).contains("nothing"));
    let called = call(&gateway, &json!({"server_id": "one", "name": "nothing"})).await;
    assert_eq!((called.status, called.code()), (502, "upstream_error"));
    assert!(message(&called).contains("Unknown tool: nothing"));

    for (request, status, code) in [
        (gateway.http.get(gateway.url(LIST)), 401, "missing_key"),
        (
            gateway.http.post(gateway.url(CALL)).body("no JSON"),
            401,
            "missing_key",
        ),
        (gateway.post(LIST, &json!({})), 405, "method_not_allowed"),
        (gateway.http.get(gateway.url(CALL)), 405, "method_not_allowed"),
    ] {
        let refused = got(request).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{}",
            refused.body
        );
        assert_eq!(status == 405, !refused.header("allow").is_empty());
    }
}

//! Calls behind an endpoint with several servers: to whom they go, and that nothing but the name is touched.

use crate::aggregate_sessions::{begun, call, count, within};
use crate::aggregate_targets::request;
use crate::by_hand::Watched;
use crate::harness::{Got, KEY, Start, TestGateway, got, keyed};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Request};

async fn pair() -> (Watched, Watched, TestGateway) {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    (a, b, gateway)
}

fn raw(gateway: &TestGateway, body: impl Into<String>) -> reqwest::RequestBuilder {
    gateway
        .http
        .post(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body.into())
}

#[tokio::test]
async fn what_a_server_has_is_known_for_each_credential_by_itself() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    b.set_tools(&["other"]);
    let text = keyed(&(a.entry("a", "auth_type: oauth_delegate") + &b.entry("b", "")));
    let gateway = Start::new(text).start().await;
    for (credential, lists) in [("canary-alice", 1), ("canary-alice", 1), ("canary-bob", 2)] {
        let request = gateway.post("/mcp", &call("echo", "x"));
        let called = got(request.bearer_auth(credential)).await;
        assert_eq!(called.status, 200, "{}", called.body);
        assert_eq!(count(&a, "tools/list"), lists, "{credential}");
    }
}

#[tokio::test]
async fn arguments_and_results_keep_every_byte() {
    let (a, b, gateway) = pair().await;
    let arguments = r#"{"n":12345678901234567890.000, "s" : "\u00e9\/", "deep":[[ ]], "name":"a-echo"}"#;
    let meta = r#"{"progressToken" : 1.0,"x/y":{ }}"#;
    let result = r#"{"content":[ ],"n" : 1.00,"resultType":"mine"}"#;
    let answer = format!(r#"{{"jsonrpc":"2.0", "id":"caf\u00e9","result":{result} }}"#);
    b.push_for(
        "tools/call",
        Answer::raw(
            200,
            &[("Content-Type", "application/json; charset=utf-8")],
            &answer,
        ),
    );
    let body = format!(
        r#"{{"method":"tools/call","id":"caf\u00e9","params":{{"name":"b-echo","arguments":{arguments},"_meta":{meta},"later":1.50}},"jsonrpc":"2.0"}}"#
    );
    let response = raw(&gateway, body).send().await.expect("answered");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.expect("a body"), answer);
    let requests = b.requests();
    let sent = String::from_utf8(requests.last().expect("a request").body.clone()).expect("text");
    for part in [
        r#""id":"caf\u00e9""#,
        r#""name":"echo""#,
        &format!(r#""arguments":{arguments}"#),
        &format!(r#""_meta":{meta}"#),
        r#""later":1.50"#,
    ] {
        assert!(sent.contains(part), "{part}\n{sent}");
    }
    assert_eq!(count(&a, "tools/call"), 0);
}

#[tokio::test]
async fn a_servers_own_errors_come_through_and_what_is_no_answer_does_not() {
    let (a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let error =
        json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32050, "message": "no", "data": {"x": 1}}});
    a.push_for("tools/call", Answer::json(200, &error));
    let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
    assert_eq!((refused.status, &refused.body), (200, &error));
    for (answer, status, code) in [
        (Answer::Html, 502, "upstream_not_mcp"),
        (Answer::CloseWithoutAnswer, 502, "upstream_closed"),
        (Answer::raw(429, &[], "slow down"), 503, "upstream_rate_limited"),
        (Answer::raw(401, &[], ""), 502, "upstream_wants_credential"),
        (
            Answer::Truncated {
                content_length: 100,
                body: b"{".to_vec(),
            },
            502,
            "upstream_truncated",
        ),
        (
            Answer::raw(
                200,
                &[("Content-Type", "application/json"), ("Connection", "close")],
                "{\"jsonrpc\"",
            ),
            502,
            "upstream_truncated",
        ),
    ] {
        a.push_for("tools/call", answer);
        let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{}",
            refused.body
        );
        assert_eq!(refused.body["id"], 7);
    }
}

#[tokio::test]
async fn a_stream_flows_as_it_comes_and_a_broken_one_ends_in_an_error() {
    let (a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    for whole in [true, false] {
        let (stream, handle) = Answer::sse();
        a.push_for("tools/call", stream);
        let mut message = call("a-echo", "x");
        message["params"]["_meta"] = json!({"progressToken": 1});
        let post = gateway.post("/mcp", &message).header("mcp-session-id", &session);
        let mut response = post.send().await.expect("answered");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        handle.send("id: 1\nretry: 5\ndata:\n\n").await.expect("sent");
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
        handle.event(&progress).await.expect("sent");
        let chunk = response.chunk().await.expect("a chunk").expect("bytes");
        assert_eq!(chunk, format!("event: message\ndata: {progress}\n\n"));
        if whole {
            handle
                .send("data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{}}\n\n")
                .await
                .expect("sent");
            handle.finish().await.expect("finished");
            let rest = response.text().await.expect("the rest");
            assert_eq!(
                rest,
                "event: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{}}\n\n"
            );
        } else {
            handle.abort().await.expect("cut off");
            let rest = response.text().await.expect("the rest");
            let data = rest.strip_prefix("event: message\ndata: ").expect("an event");
            let error: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(
                (&error["id"], &error["error"]["data"]["code"]),
                (&json!(7), &json!("upstream_truncated"))
            );
        }
    }
}

#[tokio::test]
async fn a_large_answer_is_relayed_whole() {
    let (a, _b, gateway) = pair().await;
    a.set_session(Some("canary-session"));
    let text = "x".repeat(3_000_000);
    let called = got(gateway.post("/mcp", &call("a-echo", &text))).await;
    assert_eq!(called.body["result"]["content"][0]["text"], json!(text));
    // The session of this request alone ends after its answer.
    let requests = a.wait_for(4).await;
    assert_eq!(requests[3].method, "DELETE");
}

#[tokio::test]
async fn prompts_and_completions_go_to_the_server_of_their_prefix() {
    let (a, b, gateway) = pair().await;
    b.answer_with("prompts/get", r#"{"messages":[]}"#);
    b.answer_with("completion/complete", r#"{"completion":{"values":["x"]}}"#);
    let get = request("prompts/get", &json!({"name": "b-ask", "arguments": {"q": "1"}}));
    let answered = got(gateway.post("/mcp", &get)).await;
    assert_eq!(answered.body["result"], json!({"messages": []}));
    let sent = b.requests().last().expect("a request").json();
    assert_eq!(sent["params"], json!({"name": "ask", "arguments": {"q": "1"}}));
    let complete = request(
        "completion/complete",
        &json!({"ref": {"type": "ref/prompt", "name": "b-ask", "title": "b-ask"}, "argument": {"name": "q", "value": "1"}}),
    );
    let answered = got(gateway.post("/mcp", &complete)).await;
    assert_eq!(answered.body["result"]["completion"]["values"][0], "x");
    let sent = b.requests().last().expect("a request").json();
    assert_eq!(
        sent["params"]["ref"],
        json!({"type": "ref/prompt", "name": "ask", "title": "b-ask"})
    );
    assert_eq!(count(&a, "prompts/get") + count(&a, "completion/complete"), 0);
}

#[tokio::test]
async fn a_resource_is_its_owners() {
    let (a, b, gateway) = pair().await;
    a.answer_with(
        "resources/list",
        r#"{"resources":[{"uri":"file:///both","name":"x"},{"uri":"file:///a","name":"x"}]}"#,
    );
    b.answer_with(
        "resources/list",
        r#"{"resources":[{"uri":"file:///both","name":"x"}]}"#,
    );
    b.answer_with(
        "resources/templates/list",
        r#"{"resourceTemplates":[{"uriTemplate":"db://{table}/rows","name":"t"}]}"#,
    );
    for (server, text) in [(&a, "of a"), (&b, "of b")] {
        server.answer_with(
            "resources/read",
            &format!(r#"{{"contents":[{{"uri":"x","text":"{text}"}}]}}"#),
        );
        server.answer_with("resources/subscribe", "{}");
        server.answer_with("completion/complete", r#"{"completion":{"values":[]}}"#);
    }
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let read = |uri: &str| request("resources/read", &json!({"uri": uri}));
    for (uri, text) in [("file:///a", "of a"), ("db://users/rows", "of b")] {
        let answered = within(&gateway, "/mcp", &session, &read(uri)).await;
        assert_eq!(
            answered.body["result"]["contents"][0]["text"], text,
            "{}",
            answered.body
        );
    }
    assert_eq!((count(&a, "resources/read"), count(&b, "resources/read")), (1, 1));
    // What was listed for the first is known for the second.
    assert_eq!(count(&a, "resources/list"), 1);
    let refused = within(&gateway, "/mcp", &session, &read("file:///both")).await;
    assert_eq!((refused.status, refused.code()), (400, "ambiguous_name"));
    let text = refused.body.to_string();
    assert!(text.contains("a, b") && text.contains("/{server}/mcp"), "{text}");
    let subscribe = request("resources/subscribe", &json!({"uri": "db://users/rows"}));
    assert_eq!(
        within(&gateway, "/mcp", &session, &subscribe).await.body["result"],
        json!({})
    );
    assert_eq!(
        (count(&a, "resources/subscribe"), count(&b, "resources/subscribe")),
        (0, 1)
    );
    let complete = request(
        "completion/complete",
        &json!({"ref": {"type": "ref/resource", "uri": "db://{table}/rows"}, "argument": {"name": "table", "value": ""}}),
    );
    assert_eq!(within(&gateway, "/mcp", &session, &complete).await.status, 200);
    assert_eq!(count(&b, "completion/complete"), 1);
}

#[tokio::test]
async fn a_resource_that_nobody_lists_is_asked_for_and_may_be_nowhere() {
    let (a, b, gateway) = pair().await;
    let c = Watched::start().await;
    let more = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", "") + &c.entry("c", ""))).await;
    for server in [&a, &b] {
        server.answer_with(
            "resources/list",
            r#"{"resources":[{"uri":"file:///x","name":"x"}]}"#,
        );
    }
    let session = begun(&more, "/mcp", &json!({})).await;
    let read = request("resources/read", &json!({"uri": "file:///hidden"}));
    let refused = within(&more, "/mcp", &session, &read).await;
    assert_eq!(
        (refused.status, &refused.body["error"]["code"]),
        (200, &json!(-32002)),
        "{}",
        refused.body
    );
    b.answer_with("resources/read", r#"{"contents":[]}"#);
    let answered = within(&more, "/mcp", &session, &read).await;
    assert_eq!(answered.body["result"], json!({"contents": []}));
    assert_eq!(count(&c, "resources/read"), 0, "it has no resources at all");
    // What is not safe to ask everybody is asked of nobody.
    let subscribe = request("resources/subscribe", &json!({"uri": "file:///hidden"}));
    let refused = within(&more, "/mcp", &session, &subscribe).await;
    assert_eq!(refused.body["error"]["code"], -32002);
    assert_eq!(count(&b, "resources/subscribe"), 0);
    drop(gateway);
}

#[tokio::test]
async fn the_log_level_reaches_open_servers_and_those_that_open_later() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    b.push_for("initialize", Answer::Html);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let level = request("logging/setLevel", &json!({"level": "debug"}));
    assert_eq!(
        within(&gateway, "/mcp", &session, &level).await.body["result"],
        json!({})
    );
    assert_eq!(
        (count(&a, "logging/setLevel"), count(&b, "logging/setLevel")),
        (1, 0)
    );
    within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
    assert_eq!(count(&b, "logging/setLevel"), 1);
    let requests = b.requests();
    let sent = requests
        .iter()
        .find(|request| request.json()["method"] == "logging/setLevel");
    assert_eq!(sent.expect("sent").json()["params"]["level"], "debug");
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_the_first_search_for_a_resource_and_no_other() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let text = keyed(&(a.entry("a", "") + &b.entry("b", ""))) + "vestibule: {limits: {listing_timeout: 1}}\n";
    let gateway = Start::new(text).start().await;
    a.answer_with(
        "resources/list",
        r#"{"resources":[{"uri":"file:///a","name":"x"}]}"#,
    );
    a.answer_with("resources/read", r#"{"contents":[]}"#);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    b.push_for("resources/list", Answer::Hang);
    let read = request("resources/read", &json!({"uri": "file:///a"}));
    for _ in 0..3 {
        let answered = within(&gateway, "/mcp", &session, &read).await;
        assert_eq!(
            answered.body["result"],
            json!({"contents": []}),
            "{}",
            answered.body
        );
    }
    assert_eq!(count(&b, "resources/list"), 1);
    // A call by its name goes to it all the same.
    let called = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
    assert_eq!(called.status, 200);
    gateway.advance(6);
    assert_eq!(within(&gateway, "/mcp", &session, &read).await.status, 200);
    assert_eq!(count(&b, "resources/list"), 2);
}

#[tokio::test]
async fn a_server_that_lists_has_rested_enough() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    a.answer_with(
        "resources/list",
        r#"{"resources":[{"uri":"file:///a","name":"x"}]}"#,
    );
    a.answer_with("resources/read", r#"{"contents":[]}"#);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let read = request("resources/read", &json!({"uri": "file:///a"}));
    let list = request("tools/list", &json!({}));
    for failures in 1..=4 {
        b.push_for("resources/list", Answer::CloseWithoutAnswer);
        for _ in 0..2 {
            assert_eq!(within(&gateway, "/mcp", &session, &read).await.status, 200);
            assert_eq!(count(&b, "resources/list"), failures, "asked once, then it rests");
        }
        assert_eq!(within(&gateway, "/mcp", &session, &list).await.status, 200);
    }
    // Each failure was a first one.
    b.push_for("resources/list", Answer::CloseWithoutAnswer);
    within(&gateway, "/mcp", &session, &read).await;
    gateway.advance(6);
    within(&gateway, "/mcp", &session, &read).await;
    assert_eq!(count(&b, "resources/list"), 6);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_not_looked_for_again_at_once() {
    let (a, b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let listed = || (count(&a, "tools/list"), count(&b, "tools/list"));
    for _ in 0..3 {
        let refused = within(&gateway, "/mcp", &session, &call("nobodys", "x")).await;
        assert_eq!(refused.body["error"]["code"], -32602, "{}", refused.body);
        assert_eq!(listed(), (2, 2), "looked up, and asked anew once");
    }
    within(&gateway, "/mcp", &session, &call("another", "x")).await;
    assert_eq!(listed(), (3, 3));
    // Somebody has it now, which a new look finds.
    b.set_tools(&["echo", "nobodys"]);
    gateway.advance(11);
    let found = within(&gateway, "/mcp", &session, &call("nobodys", "x")).await;
    assert_eq!(found.body["result"]["content"][0]["text"], "x", "{}", found.body);
    assert_eq!(listed(), (4, 4));
    // A server that did not answer may have it.
    a.push_for("tools/list", Answer::Html);
    for expected in [5, 6] {
        within(&gateway, "/mcp", &session, &call("whoever", "x")).await;
        assert_eq!(count(&a, "tools/list"), expected);
    }
    // The same for a resource.
    let subscribe = request("resources/subscribe", &json!({"uri": "no:body"}));
    for _ in 0..3 {
        within(&gateway, "/mcp", &session, &subscribe).await;
        assert_eq!(count(&a, "resources/list"), 2);
    }
}

#[tokio::test]
async fn what_nobody_lists_is_read_from_the_first_that_has_it_and_not_from_the_fastest() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let text = keyed(&(a.entry("a", "") + &b.entry("b", ""))) + "vestibule: {limits: {listing_timeout: 1}}\n";
    let gateway = Start::new(text).start().await;
    for (server, name) in [(&a, "a"), (&b, "b")] {
        server.answer_with("resources/list", r#"{"resources":[{"uri":"x:y","name":"x"}]}"#);
        let result = json!({"contents": [{"uri": "no:body", "text": name}]});
        server.answer_with("resources/read", &result.to_string());
    }
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let read = request("resources/read", &json!({"uri": "no:body"}));
    let gate = Arc::new(Semaphore::new(0));
    let refused = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32002, "message": "no"}});
    // The first is slow, and is waited for although the other has answered.
    a.push_for("resources/read", Answer::Gate(Arc::clone(&gate)));
    let (slow, ()) = tokio::join!(within(&gateway, "/mcp", &session, &read), async {
        let is_read = |request: &Request| request.json()["method"] == "resources/read";
        let mut known = b.requests();
        while !known.iter().any(is_read) {
            known = b.wait_for(known.len() + 1).await;
        }
        gate.add_permits(1);
    });
    let text = |got: &Got| got.body["result"]["contents"][0]["text"].clone();
    assert_eq!(text(&slow), "a", "{}", slow.body);
    // It does not have it; it says nothing at all.
    for answer in [Answer::json(400, &refused), Answer::Hang] {
        a.push_for("resources/read", answer);
        let other = within(&gateway, "/mcp", &session, &read).await;
        assert_eq!(text(&other), "b", "{}", other.body);
    }
}

#[tokio::test]
async fn an_id_is_the_same_in_another_spelling_and_comes_back_in_the_clients() {
    let (a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let asked = r#"{"jsonrpc":"2.0","id":"\u00e9","method":"tools/call","params":{"name":"a-echo"}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":"é","result":{}}"#;
    for (kind, text) in [
        ("application/json", answer.to_owned()),
        ("text/event-stream", format!("data: {answer}\n\n")),
    ] {
        a.push_for("tools/call", Answer::raw(200, &[("Content-Type", kind)], text));
        let post = gateway
            .post("/mcp", &json!(null))
            .header("mcp-session-id", &session);
        let response = post.body(asked).send().await.expect("answered");
        assert_eq!(response.status(), 200);
        let text = response.text().await.expect("text");
        assert!(
            text.contains(r#"{"jsonrpc":"2.0","id":"\u00e9","result":{}}"#),
            "{text}"
        );
    }
}

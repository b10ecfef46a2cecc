//! Questions that a server may not ask: refused to it in every form and on every stream, and never heard by the client.

use crate::aggregate_sessions::{begun, call};
use crate::aggregate_streams::{Events, posted};
use crate::by_hand::Watched;
use crate::harness::{KEY, TestGateway, got};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Request};

#[tokio::test]
async fn a_server_that_may_not_ask_is_refused_though_the_client_could_answer() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let servers = a.entry("a", "") + &b.entry("b", "allow_sampling: false");
    let gateway = TestGateway::with_servers(&servers).await;
    let capabilities = json!({"sampling": {}, "elicitation": {}});
    let session = begun(&gateway, "/mcp", &capabilities).await;
    let (answer, handle) = Answer::sse();
    b.push_for("tools/call", answer);
    let seen = b.requests().len();
    let (mut events, ()) = tokio::join!(
        Events::of(posted(&gateway, &session, &call("b-echo", "x"))),
        async {
            for (id, method) in [(3, "sampling/createMessage"), (4, "elicitation/create")] {
                let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}});
                handle.event(&question).await.expect("sent");
            }
        }
    );
    let question = events.next().await;
    assert_eq!(
        question["method"], "elicitation/create",
        "what it may ask still comes"
    );
    let requests = b.wait_for(seen + 2).await;
    let refused = requests.last().expect("an answer").json();
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!(3), &json!(-32601))
    );
    // At its own endpoint a declaration that can be read in two ways does not slip through.
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"sampling":{}},"capabilities":{"sampling":{}}}}"#;
    let request = gateway.http.post(gateway.url("/b/mcp"));
    let request = request
        .header("x-litellm-api-key", KEY)
        .header("content-type", "application/json");
    let answer = got(request.body(twice)).await;
    assert_eq!((answer.status, answer.code()), (400, "unreadable_message"));
}

/// The answers that a server got to its own requests, as soon as there are so many.
async fn answers_to(server: &Watched, count: usize) -> Vec<Value> {
    let mut known = server.requests();
    loop {
        let posted = known.iter().filter(|request| request.method == "POST");
        let answers = posted.map(Request::json).filter(|body| body["method"].is_null());
        let answers: Vec<Value> = answers.collect();
        if answers.len() >= count {
            return answers;
        }
        known = server.wait_for(known.len() + 1).await;
    }
}

#[tokio::test]
async fn what_a_server_may_not_ask_is_refused_to_it_on_every_stream_and_never_heard() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    let servers = a.entry("a", "allow_sampling: false") + &b.entry("b", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let question =
        |id: u32, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}});
    let (no, yes) = ("sampling/createMessage", "elicitation/create");
    let mut asked = 0;
    for (path, name) in [("/mcp", "a-echo"), ("/a/mcp", "echo")] {
        let session = begun(&gateway, path, &json!({"sampling": {}, "elicitation": {}})).await;
        let (get, to_get) = Answer::sse();
        a.push_when(|request| request.method == "GET", get);
        let (answer, to_call) = Answer::sse();
        a.push_for("tools/call", answer);
        let listened = gateway
            .http
            .get(gateway.url(path))
            .header("x-litellm-api-key", KEY);
        let listened = listened.header("mcp-session-id", &session);
        let called = gateway
            .post(path, &call(name, "x"))
            .header("mcp-session-id", &session);
        let (mut listened, mut called, ()) = tokio::join!(Events::of(listened), Events::of(called), async {
            for (handle, id) in [(&to_get, 10), (&to_call, 20)] {
                handle.event(&question(id, no)).await.expect("sent");
                handle.event(&question(id + 1, yes)).await.expect("sent");
            }
        });
        for events in [&mut listened, &mut called] {
            assert_eq!(events.next().await["method"], yes, "{path}");
        }
        asked += 2;
        let answers = answers_to(&a, asked).await;
        for answer in &answers[asked - 2..] {
            assert_eq!(answer["error"]["code"], -32601, "{path}");
            assert!(
                [10, 20].contains(&answer["id"].as_u64().expect("a number")),
                "{answer}"
            );
        }
    }
    let last = a.requests().pop().expect("an answer");
    assert_eq!(last.header("mcp-session-id"), Some("canary-session-a"));
    b.assert_never_seen("createMessage");
}

#[tokio::test]
async fn no_form_of_a_question_slips_through_at_a_servers_own_endpoint() {
    let a = Watched::start().await;
    let gateway = TestGateway::with_servers(&a.entry("a", "allow_sampling: false")).await;
    let done = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
    let no = json!({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage"});
    let yes = json!({"jsonrpc": "2.0", "id": 2, "method": "elicitation/create"});
    // A batch loses what may not be asked, and nothing else.
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let (mut events, ()) = tokio::join!(Events::of(gateway.post("/a/mcp", &call("echo", "x"))), async {
        handle.event(&json!([no, yes])).await.expect("sent");
        handle.event(&json!([no])).await.expect("sent");
        handle.event(&done).await.expect("sent");
    });
    assert_eq!(events.next().await, json!([yes]));
    assert_eq!(events.next().await, done);
    assert_eq!(answers_to(&a, 2).await.len(), 2);
    // What only some readers find, and what cannot be answered, ends the stream or is no answer.
    let kind = [("Content-Type", "application/json")];
    let input =
        json!({"resultType": "input_required", "inputRequests": {"k": {"method": "sampling/createMessage"}}});
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"sampling/createMessage"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"Method":"sampling/createMessage"}"#.to_owned(),
        format!("[[{no}]]"),
        json!({"jsonrpc": "2.0", "id": 7, "result": input}).to_string(),
    ] {
        let (answer, handle) = Answer::sse();
        a.push_for("tools/call", answer);
        let called = gateway.post("/a/mcp", &call("echo", "x"));
        let (response, ()) = tokio::join!(called.send(), async {
            let sent = handle.send(format!("data: {text}\n\n")).await;
            sent.expect("sent");
            handle.closed().await;
        });
        let read = match response {
            Ok(response) => response.text().await.unwrap_or_default(),
            // The stream ended before its head was sent.
            Err(_) => String::new(),
        };
        assert!(!read.contains("createMessage"), "{text}");
        a.push_for("tools/call", Answer::raw(200, &kind, &text));
        let refused = got(gateway.post("/a/mcp", &call("echo", "x"))).await;
        assert_eq!(
            (refused.status, refused.code()),
            (502, "upstream_not_mcp"),
            "{text}"
        );
    }
    a.push_for("tools/call", Answer::json(200, &no));
    let refused = got(gateway.post("/a/mcp", &call("echo", "x"))).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_not_mcp"));
    // Behind the endpoint with several it is the same.
    let text = json!({"jsonrpc": "2.0", "id": 7, "result": input}).to_string();
    let events = [("Content-Type", "text/event-stream")];
    a.push_for("tools/call", Answer::raw(200, &kind, &text));
    a.push_for(
        "tools/call",
        Answer::raw(200, &events, format!("data: {text}\n\n")),
    );
    for _ in 0..2 {
        let called = gateway
            .post("/mcp", &call("a-echo", "x"))
            .send()
            .await
            .expect("answered");
        let text = called.text().await.expect("text");
        assert!(
            text.contains("upstream_not_mcp") && !text.contains("createMessage"),
            "{text}"
        );
    }
    // And what asks nothing is as it came.
    a.push_for(
        "tools/call",
        Answer::raw(200, &kind, r#"{"id" :7, "result":{"x":1.00}}"#),
    );
    let whole = gateway
        .post("/a/mcp", &call("echo", "x"))
        .send()
        .await
        .expect("answered");
    assert_eq!(
        whole.text().await.expect("text"),
        r#"{"id" :7, "result":{"x":1.00}}"#
    );
}

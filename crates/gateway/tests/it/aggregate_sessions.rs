//! The session of a legacy client with several servers: what it holds, whose it is, and how it heals.

use crate::aggregate_targets::{list, names, request};
use crate::by_hand::{Nobody, Watched};
use crate::exchange::{exchanging, issued};
use crate::harness::{Got, KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Idp, Upstream};

pub(crate) fn initialize(capabilities: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": capabilities,
        "clientInfo": {"name": "t", "version": "1"}}})
}

/// Begins a session and gives its id.
pub(crate) async fn begun(gateway: &TestGateway, path: &str, capabilities: &Value) -> String {
    let hello = got(gateway.post(path, &initialize(capabilities))).await;
    assert_eq!(hello.status, 200, "{}", hello.body);
    hello.header("mcp-session-id").to_owned()
}

pub(crate) async fn within(gateway: &TestGateway, path: &str, session: &str, message: &Value) -> Got {
    got(gateway.post(path, message).header("mcp-session-id", session)).await
}

pub(crate) fn call(name: &str, text: &str) -> Value {
    request(
        "tools/call",
        &json!({"name": name, "arguments": {"message": text}}),
    )
}

/// How many requests of this method the server saw.
pub(crate) fn count(server: &Upstream, method: &str) -> usize {
    let requests = server.requests();
    let of_it = requests
        .iter()
        .filter(|request| request.json()["method"] == method);
    of_it.count()
}

async fn pair() -> (Watched, Watched, TestGateway) {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    b.set_session(Some("canary-session-b"));
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    (a, b, gateway)
}

#[tokio::test]
async fn one_session_for_the_client_and_one_with_each_server() {
    let (a, b, gateway) = pair().await;
    let hello = got(gateway.post("/mcp", &initialize(&json!({})))).await;
    let result = &hello.body["result"];
    assert_eq!(
        (
            &result["protocolVersion"],
            &result["serverInfo"]["name"],
            &result["capabilities"]
        ),
        (&json!("2025-11-25"), &json!("vestibule"), &json!({"tools": {}}))
    );
    assert!(result["_meta"].is_null(), "{result}");
    let session = hello.header("mcp-session-id").to_owned();
    assert!(!session.is_empty() && !session.contains("canary"));
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(within(&gateway, "/mcp", &session, &initialized).await.status, 202);
    let listed = within(&gateway, "/mcp", &session, &request("tools/list", &json!({}))).await;
    assert_eq!(names(&listed.body, "tools"), ["a-echo", "b-echo"]);
    let called = within(&gateway, "/mcp", &session, &call("b-echo", "hello")).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "hello");
    let pong = within(&gateway, "/mcp", &session, &request("ping", &json!({}))).await;
    assert_eq!(pong.body, json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    for (server, inner) in [(&a, "canary-session-a"), (&b, "canary-session-b")] {
        assert_eq!(
            (
                count(server, "initialize"),
                count(server, "notifications/initialized")
            ),
            (1, 1)
        );
        let requests = server.requests();
        let last = requests.last().expect("a request");
        assert_eq!(last.header("mcp-session-id"), Some(inner));
        assert_eq!(last.header("mcp-protocol-version"), Some("2025-11-25"));
    }
    assert_eq!((count(&a, "tools/call"), count(&b, "tools/call")), (0, 1));
    let ended = gateway
        .http
        .delete(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("mcp-session-id", &session);
    assert_eq!(got(ended).await.status, 204);
    for server in [&a, &b] {
        let requests = server.wait_for(server.requests().len()).await;
        let deleted = |request: &vestibule_testkit::Request| request.method == "DELETE";
        if !requests.iter().any(deleted) {
            let requests = server.wait_for(requests.len() + 1).await;
            assert!(requests.iter().any(deleted));
        }
    }
    let after = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
    assert_eq!((after.status, after.code()), (404, "unknown_session"));
    assert_nothing_secret_logged(&["canary-session-a", &session]);
}

#[tokio::test]
async fn a_session_is_its_callers_and_its_endpoints_alone_and_any_replica_opens_it() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    let servers = a.entry("a", "access_groups: [g]") + &b.entry("b", "");
    let keys = [(
        "VESTIBULE_MASTER_KEY",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    )];
    let start = |text: String| Start::new(text).environment(keys[0].0, keys[0].1);
    let first = start(keyed(&servers)).start().await;
    let second = start(keyed(&servers)).start().await;
    let open = start(format!("mcp_servers:\n{servers}")).start().await;
    let session = begun(&first, "/a,b/mcp", &json!({})).await;
    let seen = a.requests().len();
    for (gateway, path) in [
        (&first, "/mcp"),
        (&first, "/b,a/mcp"),
        (&first, "/a/mcp"),
        (&first, "/g/mcp"),
        (&open, "/a,b/mcp"),
    ] {
        let refused = within(gateway, path, &session, &call("a-echo", "x")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (404, "unknown_session"),
            "{path}"
        );
    }
    for wrong in ["x", &session[1..], &format!("{session}A")] {
        let refused = within(&first, "/a,b/mcp", wrong, &request("ping", &json!({}))).await;
        assert_eq!(refused.code(), "unknown_session");
    }
    assert_eq!(a.requests().len(), seen);
    // The other spelling of the same endpoint, and the other replica, without a further handshake.
    for (gateway, path) in [(&first, "/mcp/a,b"), (&second, "/a,b/mcp")] {
        let called = within(gateway, path, &session, &call("a-echo", "x")).await;
        assert_eq!(called.status, 200, "{}", called.body);
    }
    assert_eq!((count(&a, "initialize"), a.requests().len()), (1, seen + 2));
    first.advance(31 * 24 * 60 * 60);
    assert_eq!(
        within(&first, "/a,b/mcp", &session, &call("a-echo", "x"))
            .await
            .code(),
        "unknown_session"
    );
}

#[tokio::test]
async fn a_session_that_a_server_lost_is_opened_again_and_the_request_sent_once_more() {
    let dialects = [
        Answer::raw(404, &[], "no such session"),
        Answer::json(
            404,
            &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32001, "message": "Session not found"}}),
        ),
        Answer::json(
            400,
            &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "Bad Request: No valid session ID provided"}}),
        ),
        Answer::json(400, &json!({"error": "Bad Request: Server not initialized"})),
    ];
    for dialect in dialects {
        let (a, _b, gateway) = pair().await;
        let session = begun(&gateway, "/mcp", &json!({})).await;
        a.push_for("tools/call", dialect);
        a.set_session(Some("canary-after-restart"));
        let called = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
        assert_eq!(
            (called.status, &called.body["result"]["content"][0]["text"]),
            (200, &json!("x"))
        );
        assert_eq!((count(&a, "initialize"), count(&a, "tools/call")), (2, 2));
        // The new session counts over the sealed one.
        let listed = within(&gateway, "/mcp", &session, &request("tools/list", &json!({}))).await;
        assert_eq!(names(&listed.body, "tools"), ["a-echo", "b-echo"]);
        assert_eq!(count(&a, "initialize"), 2);
    }
    let (a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    // A 400 about something else is the answer, and nothing is sent twice.
    a.push_for(
        "tools/call",
        Answer::json(
            400,
            &json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "bad arguments"}}),
        ),
    );
    let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
    assert_eq!(
        (refused.status, &refused.body["error"]["message"]),
        (400, &json!("bad arguments"))
    );
    // A server that loses every session is told of once.
    for _ in 0..2 {
        a.push_for("tools/call", Answer::raw(404, &[], "gone"));
    }
    let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_not_mcp"));
    assert_eq!((count(&a, "initialize"), count(&a, "tools/call")), (2, 3));
}

#[tokio::test]
async fn one_persons_slow_token_does_not_make_a_server_rest() {
    let (a, server, idp) = (Watched::start().await, Watched::start().await, Idp::start().await);
    let gate = Arc::new(Semaphore::new(0));
    idp.push(issued(Some(json!(3600))).behind(&gate));
    idp.set_default(issued(Some(json!(3600))));
    let text = keyed(&(a.entry("a", "") + &exchanging(&server, &idp, "")))
        + "vestibule: {limits: {open_timeout: 1}}\n";
    let gateway = Start::new(text).start().await;
    for (subject, code) in [
        ("canary-slow-subject", json!("open_timeout")),
        ("canary-other", Value::Null),
    ] {
        let hello = gateway.post("/mcp", &initialize(&json!({})));
        let hello = got(hello.bearer_auth(subject)).await;
        let outcomes = &hello.body["result"]["_meta"]["litellm.ai/server_outcomes"];
        assert_eq!(outcomes["one"]["code"], code, "{subject}: {}", hello.body);
    }
    assert_eq!(count(&server, "initialize"), 1);
}

#[tokio::test]
async fn who_is_late_or_away_holds_nobody_up_and_is_opened_when_needed() {
    let (a, slow, nobody) = (Watched::start().await, Watched::start().await, Nobody::new());
    slow.set_session(Some("canary-session-slow"));
    let gate = Arc::new(Semaphore::new(0));
    slow.push_for("initialize", Answer::Gate(Arc::clone(&gate)));
    let servers =
        a.entry("a", "") + &slow.entry("slow", "") + &entry("down", &format!("url: {}", nobody.url()));
    let text = keyed(&servers) + "vestibule: {limits: {open_timeout: 1}}\n";
    let gateway = Start::new(text).start().await;
    let hello = got(gateway.post("/mcp", &initialize(&json!({})))).await;
    let session = hello.header("mcp-session-id").to_owned();
    let outcomes = &hello.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    assert_eq!(
        (
            &outcomes["slow"]["code"],
            &outcomes["down"]["code"],
            &outcomes["a"]
        ),
        (
            &json!("open_timeout"),
            &json!("upstream_unreachable"),
            &Value::Null
        ),
        "{}",
        hello.body
    );
    assert_eq!(
        hello.body["result"]["capabilities"]["prompts"]["listChanged"],
        true
    );
    // A moment later nobody waits for them: the slow one would not answer this either.
    let again = got(gateway.post("/mcp", &initialize(&json!({})))).await;
    let outcomes = &again.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    assert_eq!(
        (&outcomes["slow"]["code"], &outcomes["down"]["code"]),
        (&json!("server_resting"), &json!("server_resting"))
    );
    assert_eq!(count(&slow, "initialize"), 1);
    // A call tries it all the same, and the session is kept beside the sealed one.
    for text in ["x", "y"] {
        let called = within(&gateway, "/mcp", &session, &call("slow-echo", text)).await;
        assert_eq!(called.body["result"]["content"][0]["text"], text);
    }
    assert_eq!(count(&slow, "initialize"), 2);
    // After its rest it is waited for again.
    gateway.advance(6);
    let hello = got(gateway.post("/mcp", &initialize(&json!({})))).await;
    let outcomes = &hello.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    assert_eq!(
        (&outcomes["slow"], outcomes["down"]["code"].as_str()),
        (&Value::Null, Some("upstream_unreachable"))
    );
}

#[tokio::test]
async fn without_a_session_a_request_has_its_own_and_a_server_without_sessions_costs_one_round_trip() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    for text in ["x", "y"] {
        for name in ["a-echo", "b-echo"] {
            let called = got(gateway.post("/mcp", &call(name, text))).await;
            assert_eq!(called.body["result"]["content"][0]["text"], text);
            assert_eq!(called.header("mcp-session-id"), "");
        }
    }
    let requests = a.wait_for(8).await;
    let deleted = requests.iter().filter(|request| request.method == "DELETE");
    assert_eq!((deleted.count(), count(&a, "initialize")), (2, 2));
    assert_eq!((count(&b, "initialize"), b.requests().len()), (1, 4));
    // One that has sessions after all is asked properly, at once.
    b.set_session(Some("canary-session-b"));
    let called = got(gateway.post("/mcp", &call("b-echo", "z"))).await;
    assert_eq!(
        called.body["result"]["content"][0]["text"], "z",
        "{}",
        called.body
    );
    assert_eq!(count(&b, "initialize"), 2);
}

#[tokio::test]
async fn what_was_answered_is_not_sent_again_though_it_speaks_of_sessions() {
    let (a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let said = "the browser session id 7 could not be closed: session not found";
    for answer in [
        Answer::json(
            400,
            &json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32603, "message": said}}),
        ),
        Answer::json(
            400,
            &json!({"error": "the transfer is done, the session could not be closed"}),
        ),
    ] {
        let before = count(&a, "tools/call");
        a.push_for("tools/call", answer);
        within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
        assert_eq!(count(&a, "tools/call"), before + 1);
    }
}

#[tokio::test]
async fn capabilities_go_up_as_far_as_the_client_has_them_and_the_server_may() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let servers = a.entry("a", "") + &b.entry("b", "allow_sampling: false\nallow_elicitation: false");
    let gateway = TestGateway::with_servers(&servers).await;
    let declared = json!({"sampling": {"tools": {}}, "elicitation": {}, "roots": {"listChanged": true}, "experimental": {"x": {}}});
    begun(&gateway, "/mcp", &declared).await;
    let said = |server: &Watched| server.requests()[0].json()["params"]["capabilities"].clone();
    assert_eq!(
        said(&a),
        json!({"sampling": {"tools": {}}, "elicitation": {}, "roots": {"listChanged": true}})
    );
    assert_eq!(said(&b), json!({"roots": {"listChanged": true}}));
    // A server's own endpoint is a relay; there too one that may not ask learns of nobody to ask.
    let last = |server: &Watched| server.requests().last().expect("a request").clone();
    let hello = initialize(&declared);
    got(gateway.post("/a/mcp", &hello)).await;
    assert_eq!(last(&a).body, hello.to_string().into_bytes());
    got(gateway.post("/b/mcp", &hello)).await;
    assert_eq!(
        last(&b).json()["params"]["capabilities"],
        json!({"experimental": {"x": {}}, "roots": {"listChanged": true}})
    );
    let key = "io.modelcontextprotocol/clientCapabilities";
    let modern = request("tools/list", &json!({"_meta": {(key): declared, "x": 1}}));
    got(gateway.post("/b/mcp", &modern)).await;
    assert_eq!(
        last(&b).json()["params"]["_meta"],
        json!({(key): {"experimental": {"x": {}}, "roots": {"listChanged": true}}, "x": 1})
    );
}

#[tokio::test]
async fn instructions_are_the_configured_ones_or_the_servers_own() {
    let (a, b, c) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    let says = |text: &str| {
        Answer::json(
            200,
            &json!({"jsonrpc": "2.0", "id": 1, "result": {
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}, "instructions": text}}),
        )
    };
    let servers =
        a.entry("a", "alias: first") + &b.entry("b", "instructions: Ours counts.") + &c.entry("c", "");
    let gateway = TestGateway::with_servers(&servers).await;
    for (path, expected) in [
        ("/mcp", "[first]\nOwn A.\n\n---\n\n[b]\nOurs counts."),
        ("/mcp/a,c", "Own A."),
        ("/mcp/b,c", "Ours counts."),
    ] {
        a.push_for("initialize", says("Own A."));
        b.push_for("initialize", says("Own B."));
        let hello = got(gateway.post(path, &initialize(&json!({})))).await;
        assert_eq!(hello.body["result"]["instructions"], expected, "{path}");
        for server in [&a, &b] {
            // What was not asked for is asked for now.
            let body = initialize(&json!({}));
            let _ = gateway.http.post(server.url()).json(&body).send().await;
        }
    }
    let hello = got(gateway.post("/mcp/c,x", &initialize(&json!({})))).await;
    assert_eq!(hello.body["result"]["instructions"], Value::Null);
}

#[tokio::test]
async fn many_long_session_ids_are_left_out_and_opened_again() {
    let mut servers = Vec::new();
    let mut text = String::new();
    for index in 0..6 {
        let server = Watched::start().await;
        server.set_session(Some(&format!("{index}{}", "s".repeat(900))));
        text += &server.entry(&format!("s{index}"), "");
        servers.push(server);
    }
    let keys = (
        "VESTIBULE_MASTER_KEY",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    );
    let first = Start::new(keyed(&text)).environment(keys.0, keys.1).start().await;
    let second = Start::new(keyed(&text)).environment(keys.0, keys.1).start().await;
    let session = begun(&first, "/mcp", &json!({})).await;
    assert!(session.len() <= 4096, "{}", session.len());
    let listed = within(&second, "/mcp", &session, &request("tools/list", &json!({}))).await;
    assert_eq!(names(&listed.body, "tools").len(), 6);
    let opened: usize = servers.iter().map(|server| count(server, "initialize")).sum();
    assert!(
        (7..12).contains(&opened),
        "some were in the id and some were not: {opened}"
    );
}

#[tokio::test]
async fn what_is_no_message_for_several_servers() {
    let (_a, _b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    for (body, status, code) in [
        (json!([request("ping", &json!({}))]), 400, json!(40030)),
        (json!("x"), 400, json!(40030)),
        (
            json!({"jsonrpc": "2.0", "id": {}, "method": "ping"}),
            400,
            json!(40030),
        ),
        (request("sampling/createMessage", &json!({})), 200, json!(-32601)),
        (request("server/discover", &json!({})), 200, json!(-32601)),
        (request("tools/call", &json!({})), 200, json!(-32602)),
        (request("tools/call", &json!([])), 200, json!(-32602)),
        (call("nothing", "x"), 200, json!(-32602)),
        (call("c-echo", "x"), 200, json!(-32602)),
    ] {
        let refused = within(&gateway, "/mcp", &session, &body).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (status, &code),
            "{body} {}",
            refused.body
        );
    }
    for (method, status) in [("GET", 405), ("DELETE", 405), ("PUT", 405)] {
        let request = gateway
            .http
            .request(method.parse().expect("a method"), gateway.url("/mcp"))
            .header("x-litellm-api-key", KEY);
        let refused = got(request).await;
        assert_eq!((refused.status, refused.code()), (status, "method_not_allowed"));
        assert!(refused.header("allow").contains("POST"));
    }
    let odd = gateway
        .post("/mcp", &request("ping", &json!({})))
        .header("mcp-session-id", &session)
        .header("mcp-session-id", &session);
    assert_eq!(got(odd).await.code(), "repeated_header");
    assert_eq!(list(&gateway, "/mcp", "tools/list").await.status, 200);
}

#[tokio::test]
async fn many_calls_at_once_open_one_session() {
    let (a, _b, gateway) = pair().await;
    a.push_for("initialize", Answer::Html);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let gate = Arc::new(Semaphore::new(0));
    a.push_for("initialize", Answer::Gate(Arc::clone(&gate)));
    let message = call("a-echo", "x");
    let calls = (0..20).map(|_| within(&gateway, "/mcp", &session, &message));
    let opening = async {
        a.wait_for(2).await;
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), opening);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((count(&a, "initialize"), count(&a, "tools/call")), (2, 20));
}

#[tokio::test]
async fn the_revision_is_the_clients_or_the_newest_with_sessions_and_servers_hear_it() {
    let (a, _b, gateway) = pair().await;
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-06-18", "2025-06-18"),
        ("2026-07-28", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ] {
        let mut hello = initialize(&json!({}));
        hello["params"]["protocolVersion"] = json!(asked);
        let answered = got(gateway.post("/mcp", &hello)).await;
        assert_eq!(answered.body["result"]["protocolVersion"], agreed);
        let requests = a.requests();
        let heard = requests
            .iter()
            .rev()
            .find(|request| request.json()["method"] == "initialize");
        assert_eq!(heard.expect("heard").json()["params"]["protocolVersion"], agreed);
        let session = answered.header("mcp-session-id").to_owned();
        assert_eq!(
            within(&gateway, "/mcp", &session, &call("a-echo", "x"))
                .await
                .status,
            200
        );
        let last = a.requests().last().cloned().expect("a request");
        assert_eq!(last.header("mcp-protocol-version"), Some(agreed));
    }
}

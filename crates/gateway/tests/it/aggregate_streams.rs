//! What servers ask of a client behind an endpoint with several, and the way back.

use crate::aggregate_sessions::{begun, call, count, within};
use crate::by_hand::Watched;
use crate::harness::{KEY, TestGateway, got};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Request};

/// An open stream, read event by event.
pub(crate) struct Events {
    pub(crate) response: reqwest::Response,
    read: String,
}

impl Events {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("answered");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            read: String::new(),
        }
    }

    /// Resolves when the client is told that the stream is there.
    pub(crate) async fn comment(&mut self) {
        let heard = async {
            while !self.read.contains(":\n\n") {
                let chunk = self.response.chunk().await.expect("a chunk").expect("more");
                self.read.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        };
        let deadline = 2 * vestibule_testkit::DEADLINE;
        tokio::time::timeout(deadline, heard).await.expect("a comment");
    }

    /// The data of the next event.
    pub(crate) async fn next(&mut self) -> Value {
        let deadline = vestibule_testkit::DEADLINE;
        tokio::time::timeout(deadline, async {
            loop {
                if let Some((event, rest)) = self.read.split_once("\n\n") {
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let data = data.map(|data| serde_json::from_str(data).expect("JSON"));
                    let rest = rest.to_owned();
                    self.read = rest;
                    match data {
                        Some(data) => return data,
                        None => continue,
                    }
                }
                let chunk = self.response.chunk().await.expect("a chunk").expect("more");
                self.read.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        })
        .await
        .expect("an event")
    }
}

pub(crate) async fn pair() -> (Watched, Watched, TestGateway, String) {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    b.set_session(Some("canary-session-b"));
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {}});
    let session = begun(&gateway, "/mcp", &capabilities).await;
    (a, b, gateway, session)
}

pub(crate) fn posted(gateway: &TestGateway, session: &str, message: &Value) -> reqwest::RequestBuilder {
    gateway.post("/mcp", message).header("mcp-session-id", session)
}

pub(crate) fn stream(gateway: &TestGateway, session: &str) -> reqwest::RequestBuilder {
    gateway
        .http
        .get(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("accept", "text/event-stream")
        .header("mcp-session-id", session)
}

#[tokio::test]
async fn a_servers_question_reaches_the_client_and_the_answer_that_server() {
    let (a, b, gateway, session) = pair().await;
    for (server, name, id) in [(&a, "a-echo", json!(3)), (&b, "b-echo", json!("three \"3\""))] {
        let (answer, handle) = Answer::sse();
        server.push_for("tools/call", answer);
        let (mut events, ()) = tokio::join!(
            Events::of(posted(&gateway, &session, &call(name, "x"))),
            async {
                let question = json!({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {"messages": [], "id": 3}});
                handle.event(&question).await.expect("sent");
            }
        );
        let question = events.next().await;
        assert_eq!(question["method"], "sampling/createMessage");
        assert_eq!(question["params"], json!({"messages": [], "id": 3}));
        assert_ne!(question["id"], id);
        let seen = server.requests().len();
        let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"role": "assistant", "id": question["id"]}});
        assert_eq!(within(&gateway, "/mcp", &session, &reply).await.status, 202);
        let requests = server.wait_for(seen + 1).await;
        let heard = requests.last().expect("a request");
        assert_eq!(heard.json()["id"], id);
        assert_eq!(
            heard.json()["result"],
            json!({"role": "assistant", "id": question["id"]})
        );
        assert!(
            heard
                .header("mcp-session-id")
                .is_some_and(|id| id.starts_with("canary-session"))
        );
        handle
            .event(&json!({"jsonrpc": "2.0", "id": 7, "result": {}}))
            .await
            .expect("sent");
        handle.finish().await.expect("finished");
        assert_eq!(events.next().await["result"], json!({}));
    }
}

#[tokio::test]
async fn a_server_answers_its_own_requests_alone_and_its_cancellation_and_progress_lead_back() {
    let (a, _b, gateway, session) = pair().await;
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let request = posted(&gateway, &session, &call("a-echo", "x"));
    let (mut events, ()) = tokio::join!(Events::of(request), async {
        for message in [
            // An answer to what another server may be working on.
            json!({"jsonrpc": "2.0", "id": 8, "result": {"forged": true}}),
            json!({"jsonrpc": "2.0", "id": "1", "method": "elicitation/create", "params": {"_meta": {"progressToken": "1"}}}),
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "1"}}),
            json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
        ] {
            handle.event(&message).await.expect("sent");
        }
    });
    let question = events.next().await;
    let token = &question["params"]["_meta"]["progressToken"];
    assert_eq!(question["method"], "elicitation/create");
    assert!(token.as_str().expect("text").starts_with("vestibule:"));
    let cancelled = events.next().await;
    assert_eq!(cancelled["params"]["requestId"], question["id"]);
    assert_eq!(events.next().await["id"], 7);
    let seen = a.requests().len();
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    assert_eq!(within(&gateway, "/mcp", &session, &progress).await.status, 202);
    let heard = a.wait_for(seen + 1).await.last().expect("a request").json();
    assert_eq!(heard["params"], json!({"progressToken": "1", "progress": 1}));
    let forged = json!({"jsonrpc": "2.0", "id": 8, "result": {"forged": true}});
    a.push_for("tools/call", Answer::json(200, &forged));
    let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_not_mcp"));
}

#[tokio::test]
async fn an_answer_to_nobodys_question_goes_nowhere() {
    let (a, b, gateway, session) = pair().await;
    let seen = (a.requests().len(), b.requests().len());
    let answer = json!({"jsonrpc": "2.0", "id": "vestibule:nobody:1", "result": {}});
    for id in [
        json!(1),
        json!("1"),
        json!("vestibule:nobody:1"),
        json!("vestibule:"),
    ] {
        let mut answer = answer.clone();
        answer["id"] = id;
        let refused = within(&gateway, "/mcp", &session, &answer).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_message"));
    }
    // An id that a server gave, made into something else by the client: nothing but an id comes out of it.
    let (events, handle) = Answer::sse();
    a.push_for("tools/call", events);
    let (mut events, ()) = tokio::join!(
        Events::of(posted(&gateway, &session, &call("a-echo", "x"))),
        async {
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
            handle.event(&ping).await.expect("sent");
        }
    );
    let ping = events.next().await;
    let id = ping["id"].as_str().expect("text");
    for forged in [
        format!("{id},\"method\":\"tools/call\""),
        id.replace(":1", ":{}"),
        id.replace(":1", ":"),
        id.replace(":1", ":null"),
    ] {
        let mut answer = answer.clone();
        answer["id"] = forged.into();
        let refused = within(&gateway, "/mcp", &session, &answer).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
    let mut outside = answer.clone();
    outside["id"] = id.into();
    // Without the session, or in another, nobody is asked.
    assert_eq!(got(gateway.post("/mcp", &outside)).await.status, 400);
    let other = begun(&gateway, "/mcp", &json!({})).await;
    assert_eq!(within(&gateway, "/mcp", &other, &outside).await.status, 202);
    let last = a.requests().last().expect("a request").json();
    assert_eq!(last["id"], 1);
    assert_eq!((a.requests().len(), b.requests().len()), (seen.0 + 4, seen.1 + 2));
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_not_asked() {
    let (a, _b, gateway, _session) = pair().await;
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let (mut events, ()) = tokio::join!(Events::of(gateway.post("/mcp", &call("a-echo", "x"))), async {
        for (id, method) in [(1, "ping"), (2, "elicitation/create")] {
            let question = json!({"jsonrpc": "2.0", "id": id, "method": method});
            handle.event(&question).await.expect("sent");
        }
        handle
            .event(&json!({"jsonrpc": "2.0", "id": 7, "result": {}}))
            .await
            .expect("sent");
    });
    assert_eq!(events.next().await["result"], json!({}));
    let answers = |requests: &[Request]| {
        let bodies = requests.iter().map(Request::json);
        bodies
            .filter(|body| body["method"].is_null() && body["id"].is_number())
            .collect::<Vec<_>>()
    };
    let mut known = a.requests();
    while answers(&known).len() < 2 {
        known = a.wait_for(known.len() + 1).await;
    }
    let answers = answers(&known);
    let of = |id: i32| {
        answers
            .iter()
            .find(|answer| answer["id"] == id)
            .expect("an answer")
    };
    assert_eq!(
        (&of(1)["result"], &of(2)["error"]["code"]),
        (&json!({}), &json!(-32601))
    );
}

#[tokio::test]
async fn a_cancellation_reaches_the_server_that_works_and_changed_roots_reach_all() {
    let (a, b, gateway, session) = pair().await;
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let (_events, ()) = tokio::join!(
        Events::of(posted(&gateway, &session, &call("a-echo", "x"))),
        async {
            handle.send(": here\n\n").await.expect("sent");
            handle
                .event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))
                .await
                .expect("sent");
        }
    );
    let seen = (a.requests().len(), b.requests().len());
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7, "reason": "enough"}});
    assert_eq!(within(&gateway, "/mcp", &session, &cancelled).await.status, 202);
    let requests = a.wait_for(seen.0 + 1).await;
    assert_eq!(requests.last().expect("a request").json(), cancelled);
    let roots = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(within(&gateway, "/mcp", &session, &roots).await.status, 202);
    a.wait_for(seen.0 + 2).await;
    b.wait_for(seen.1 + 1).await;
    assert_eq!(count(&b, "notifications/cancelled"), 0);
    // Of a request that nobody here knows all hear.
    let mut elsewhere = cancelled.clone();
    elsewhere["params"]["requestId"] = json!("of another replica");
    assert_eq!(within(&gateway, "/mcp", &session, &elsewhere).await.status, 202);
    a.wait_for(seen.0 + 3).await;
    b.wait_for(seen.1 + 2).await;
}

#[tokio::test]
async fn a_request_that_is_over_takes_no_others_place_by_its_id() {
    let (a, b, gateway, session) = pair().await;
    let mut streams = Vec::new();
    for (server, name) in [(&a, "a-echo"), (&b, "b-echo")] {
        let (answer, handle) = Answer::sse();
        server.push_for("tools/call", answer);
        // Both have the id 7.
        let (mut events, ()) =
            tokio::join!(Events::of(posted(&gateway, &session, &call(name, "x"))), async {
                let here = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
                handle.event(&here).await.expect("sent");
            });
        events.next().await;
        streams.push((events, handle));
    }
    let (mut first, handle) = streams.remove(0);
    handle
        .event(&json!({"jsonrpc": "2.0", "id": 7, "result": {}}))
        .await
        .expect("sent");
    assert_eq!(first.next().await["result"], json!({}));
    handle.finish().await.expect("finished");
    assert_eq!(first.response.chunk().await.expect("an end"), None);
    let seen = b.requests().len();
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    assert_eq!(within(&gateway, "/mcp", &session, &cancelled).await.status, 202);
    b.wait_for(seen + 1).await;
    let roots = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let seen = a.requests().len();
    assert_eq!(within(&gateway, "/mcp", &session, &roots).await.status, 202);
    a.wait_for(seen + 1).await;
    assert_eq!(
        (
            count(&a, "notifications/cancelled"),
            count(&b, "notifications/cancelled")
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn a_client_with_a_session_cancels_at_a_server_without() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Unknown method"}});
    // For each of the two sessions.
    for _ in 0..2 {
        b.push_for("initialize", Answer::json(404, &unknown));
    }
    b.answer_with(
        "server/discover",
        r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}"#,
    );
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let cancelled = |id: Value| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    // In the middle of its stream.
    let (answer, handle) = Answer::sse();
    b.push_for("tools/call", answer);
    let here = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    let request = posted(&gateway, &session, &call("b-echo", "x"));
    let (mut events, sent) = tokio::join!(Events::of(request), handle.event(&here));
    sent.expect("sent");
    events.next().await;
    // Another session's word, and another id, are nobody's.
    let other = begun(&gateway, "/mcp", &json!({})).await;
    assert_eq!(
        within(&gateway, "/mcp", &other, &cancelled(json!(7)))
            .await
            .status,
        202
    );
    assert_eq!(
        within(&gateway, "/mcp", &session, &cancelled(json!("7")))
            .await
            .status,
        202
    );
    handle.event(&here).await.expect("still there");
    events.next().await;
    assert_eq!(
        within(&gateway, "/mcp", &session, &cancelled(json!(7)))
            .await
            .status,
        202
    );
    handle.closed().await;
    assert_eq!(events.next().await["error"]["data"]["code"], "request_cancelled");
    // After its answer, which is the only one.
    let (answer, handle) = Answer::sse();
    b.push_for("tools/call", answer);
    let done = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
    let request = posted(&gateway, &session, &call("b-echo", "x"));
    let (mut events, sent) = tokio::join!(Events::of(request), handle.event(&done));
    sent.expect("sent");
    assert_eq!(events.next().await["result"], json!({}));
    assert_eq!(
        within(&gateway, "/mcp", &session, &cancelled(json!(7)))
            .await
            .status,
        202
    );
    handle.closed().await;
    let rest = events.response.text().await.expect("the rest");
    assert_eq!(rest, ":\n\n");
    // Before it has said anything.
    b.push_for("tools/call", Answer::Hang);
    let seen = b.requests().len();
    let (answered, ()) = tokio::join!(got(posted(&gateway, &session, &call("b-echo", "x"))), async {
        b.wait_for(seen + 1).await;
        let cancelled = within(&gateway, "/mcp", &session, &cancelled(json!(7.0))).await;
        assert_eq!(cancelled.status, 202);
    });
    assert_eq!((answered.status, answered.code()), (400, "request_cancelled"));
    b.wait_for_abandoned(1).await;
    assert_eq!(count(&b, "notifications/cancelled"), 0);
}

#[tokio::test]
async fn the_clients_stream_has_what_all_servers_say_and_who_opens_later_joins() {
    let (a, b, c) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    let servers = a.entry("a", "") + &b.entry("b", "") + &c.entry("c", "");
    let gateway = TestGateway::with_servers(&servers).await;
    b.push_for("initialize", Answer::Html);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let is_get = |request: &Request| request.method == "GET";
    let (first, to_first) = Answer::sse();
    let (second, to_second) = Answer::sse();
    a.push_when(is_get, first);
    b.push_when(is_get, second);
    let mut events = Events::of(stream(&gateway, &session)).await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    to_first.send("id: 9\nretry: 1\n").await.expect("sent");
    to_first.event(&changed).await.expect("sent");
    assert_eq!(events.next().await, changed);
    assert!(!events.read.contains("id: 9"));
    let roots = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
    to_first.event(&roots).await.expect("sent");
    let asked = events.next().await;
    let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}});
    assert_eq!(within(&gateway, "/mcp", &session, &reply).await.status, 202);
    assert_eq!(
        a.requests().last().expect("a request").json(),
        json!({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}})
    );
    // Opened by a call.
    assert_eq!(
        within(&gateway, "/mcp", &session, &call("b-echo", "x"))
            .await
            .status,
        200
    );
    to_second.event(&changed).await.expect("sent");
    assert_eq!(events.next().await, changed);
    // Who has no stream was asked once.
    let asked = c.requests().into_iter().filter(is_get).count();
    assert_eq!(asked, 1);
    drop(events);
    to_first.closed().await;
    to_second.closed().await;
}

#[tokio::test]
async fn progress_is_told_on_the_stream_of_its_own_request_alone() {
    let (a, b, gateway, session) = pair().await;
    let (get, to_get) = Answer::sse();
    a.push_when(|request| request.method == "GET", get);
    let (answer, to_first) = Answer::sse();
    a.push_for("tools/call", answer);
    let (answer, to_second) = Answer::sse();
    b.push_for("tools/call", answer);
    let with_token = |name: &str, id: u32, token: &str| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{{}},"_meta":{{"progressToken":{token}}}}}}}"#
        );
        posted(&gateway, &session, &json!(null)).body(text)
    };
    let progress = |token: Value| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let (mut listened, mut first, mut second, ()) = tokio::join!(
        Events::of(stream(&gateway, &session)),
        Events::of(with_token("a-echo", 1, r#""\u00e9""#)),
        Events::of(with_token("b-echo", 2, "5")),
        async {
            to_get.event(&progress(json!("é"))).await.expect("sent");
            to_get.event(&progress(json!(5))).await.expect("sent");
            to_get.event(&changed).await.expect("sent");
            for token in [json!(5), json!("5"), json!(null), json!("é")] {
                to_first.event(&progress(token)).await.expect("sent");
            }
            for token in [json!("é"), json!(5)] {
                to_second.event(&progress(token)).await.expect("sent");
            }
            let unmarked =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
            to_second.event(&unmarked).await.expect("sent");
            for (handle, id) in [(&to_first, 1), (&to_second, 2)] {
                let done = json!({"jsonrpc": "2.0", "id": id, "result": {}});
                handle.event(&done).await.expect("sent");
            }
        }
    );
    assert_eq!(listened.next().await, changed);
    for (events, token) in [(&mut first, json!("é")), (&mut second, json!(5))] {
        assert_eq!(events.next().await["params"]["progressToken"], token);
        assert_eq!(events.next().await["result"], json!({}));
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_stream_and_of_no_other() {
    let (a, _b, gateway, session) = pair().await;
    let other = begun(&gateway, "/mcp", &json!({})).await;
    let is_get = |request: &Request| request.method == "GET";
    let (first, to_first) = Answer::sse();
    let (second, to_second) = Answer::sse();
    a.push_when(is_get, first);
    let mut ended = Events::of(stream(&gateway, &session)).await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    to_first.event(&changed).await.expect("sent");
    assert_eq!(ended.next().await, changed);
    a.push_when(is_get, second);
    let mut stays = Events::of(stream(&gateway, &other)).await;
    let delete = gateway
        .http
        .delete(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("mcp-session-id", &session);
    assert_eq!(got(delete).await.status, 204);
    let rest = tokio::time::timeout(vestibule_testkit::DEADLINE, ended.response.chunk());
    assert_eq!(rest.await.expect("in time").expect("an end"), None);
    to_first.closed().await;
    to_second.event(&changed).await.expect("sent");
    assert_eq!(stays.next().await, changed);
}

#[tokio::test]
async fn a_stream_is_its_callers_alone() {
    let (a, _b, gateway, session) = pair().await;
    let seen = a.requests().len();
    let wrong = got(stream(&gateway, &session[1..])).await;
    assert_eq!((wrong.status, wrong.code()), (404, "unknown_session"));
    let nobody = gateway
        .http
        .get(gateway.url("/mcp"))
        .header("mcp-session-id", &session);
    assert_eq!(got(nobody).await.status, 401);
    assert_eq!(a.requests().len(), seen);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_call_along_and_no_other() {
    let (a, b, gateway, session) = pair().await;
    let (answer, to_first) = Answer::sse();
    a.push_for("tools/call", answer);
    let (answer, to_second) = Answer::sse();
    b.push_for("tools/call", answer);
    let here = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
    let first = posted(&gateway, &session, &call("a-echo", "x"));
    let (mut first, sent) = tokio::join!(Events::of(first), to_first.event(&here));
    sent.expect("sent");
    first.next().await;
    let second = posted(&gateway, &session, &call("b-echo", "x"));
    let (mut second, sent) = tokio::join!(Events::of(second), to_second.event(&here));
    sent.expect("sent");
    second.next().await;
    drop(first);
    to_first.closed().await;
    to_second
        .event(&json!({"jsonrpc": "2.0", "id": 7, "result": {}}))
        .await
        .expect("still there");
    assert_eq!(second.next().await["result"], json!({}));
}

#[tokio::test]
async fn tool_rules_hold_for_answers_and_notifications_too() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.set_session(Some("canary-session-a"));
    let servers = a.entry("a", "disallowed_tools: [drop]") + &b.entry("b", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let session = begun(&gateway, "/mcp", &json!({"sampling": {}})).await;
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let (mut events, ()) = tokio::join!(
        Events::of(posted(&gateway, &session, &call("a-echo", "x"))),
        async {
            let question = json!({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {"_meta": {"progressToken": 2}}});
            handle.event(&question).await.expect("sent");
        }
    );
    let question = events.next().await;
    let id = question["id"].to_string();
    let token = question["params"]["_meta"]["progressToken"].to_string();
    let call =
        r#""Method":"tools/call","Params":{"name":"drop"},"METHOD":"tools/call","PARAMS":{"name":"drop"}"#;
    let escaped = r#""\u004dethod":"tools/call","\u0050arams":{"name":"drop"}"#;
    // What every reader sees in the message, and what only some find in it.
    for (seen, clean) in [
        (
            format!(r#""id":{id},"result":{{"role":"user"}}"#),
            json!({"jsonrpc": "2.0", "id": 1, "result": {"role": "user"}}),
        ),
        (
            format!(r#""id":{id},"error":{{"code":1,"message":"no"}}"#),
            json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}),
        ),
        (
            format!(r#""method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}"#),
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 2, "progress": 1}}),
        ),
        (
            r#""method":"notifications/cancelled","params":{"requestId":9}"#.to_owned(),
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}),
        ),
        (
            r#""method":"notifications/roots/list_changed""#.to_owned(),
            json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}),
        ),
    ] {
        for hidden in [call, escaped, r#""ID":4,"Id":5"#] {
            for text in [
                format!(r#"{{"jsonrpc":"2.0",{seen},{hidden}}}"#),
                format!(r#"{{{hidden},{seen},"jsonrpc":"2.0"}}"#),
            ] {
                let known = a.requests().len();
                let sent = gateway
                    .post("/mcp", &json!(null))
                    .header("mcp-session-id", &session)
                    .body(text.clone());
                assert_eq!(got(sent).await.status, 202, "{text}");
                let heard = a.wait_for(known + 1).await.last().expect("a request").json();
                assert_eq!(heard, clean, "{text}");
            }
        }
    }
    // What is an answer and a failure at once, or neither, is no answer.
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":{id},{call}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"error":{{}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"result":{{}}}}"#),
    ] {
        let known = a.requests().len();
        let sent = gateway
            .post("/mcp", &json!(null))
            .header("mcp-session-id", &session)
            .body(text.clone());
        assert_eq!(got(sent).await.status, 400, "{text}");
        assert_eq!(a.requests().len(), known);
    }
}

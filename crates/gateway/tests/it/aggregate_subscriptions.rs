//! `subscriptions/listen` behind an endpoint with several servers, and that streams end with their clients.

use crate::aggregate_modern::{MODERN, modern, sent};
use crate::aggregate_sessions::{begun, count};
use crate::aggregate_streams::{Events, stream};
use crate::by_hand::Watched;
use crate::harness::{KEY, TestGateway, entry};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Request, SseHandle};

const OUTCOMES: &str = "litellm.ai/server_outcomes";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A server of the newer revisions, with this resource.
pub(crate) async fn server(uri: &str) -> Watched {
    let server = Watched::start().await;
    let discovered = json!({"resultType": "complete", "supportedVersions": [MODERN],
        "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}}});
    server.answer_with("server/discover", &discovered.to_string());
    let resources = json!({"resources": [{"name": "r", "uri": uri}]});
    server.answer_with("resources/list", &resources.to_string());
    server
}

pub(crate) fn listens(server: &Watched) -> SseHandle {
    let (answer, handle) = Answer::sse();
    server.push_for("subscriptions/listen", answer);
    handle
}

fn filter(notifications: &Value) -> Value {
    let mut message = modern("subscriptions/listen", json!({"notifications": notifications}));
    message["id"] = json!("the client's");
    message
}

pub(crate) fn listening(gateway: &TestGateway, notifications: &Value) -> reqwest::RequestBuilder {
    gateway
        .http
        .post(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "subscriptions/listen")
        .json(&filter(notifications))
}

pub(crate) fn acknowledged(notifications: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": {"notifications": notifications, "_meta": {(SUBSCRIPTION): 1}}})
}

fn notification(method: &str, mut params: Value, subscription: &Value) -> Value {
    params["_meta"][SUBSCRIPTION] = subscription.clone();
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn of_method(server: &Watched, method: &str) -> Request {
    let requests = server.requests();
    let mut of_it = requests
        .into_iter()
        .filter(|request| request.json()["method"] == method);
    of_it.next().expect("a request")
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one stream from its beginning to its end")]
async fn two_modern_servers_and_a_legacy_one_are_one_stream() {
    let (a, b, c) = (
        server("a://1").await,
        server("b://1").await,
        Watched::start().await,
    );
    c.set_session(Some("canary-session-c"));
    c.answer_with("initialize", r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}}}"#);
    c.answer_with("resources/list", r#"{"resources":[{"name":"r","uri":"c://1"}]}"#);
    c.answer_with("resources/subscribe", "{}");
    let (answer, from_c) = Answer::sse();
    c.push_when(|request| request.method == "GET", answer);
    let servers = [("a", &a), ("b", &b), ("c", &c)].map(|(name, server)| server.entry(name, ""));
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    let discovered = sent(&gateway, &modern("server/discover", json!({}))).await;
    assert_eq!(
        discovered.body["result"]["capabilities"],
        json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}})
    );

    let (from_a, from_b) = (listens(&a), listens(&b));
    let asked = json!({"toolsListChanged": true, "promptsListChanged": true, "taskIds": ["t"],
        "resourceSubscriptions": ["a://1", "b://1", "c://1", "nobodys://1"]});
    let (mut events, ()) = tokio::join!(Events::of(listening(&gateway, &asked)), async {
        let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1", "not-asked://1"]});
        from_a.event(&acknowledged(&honoured)).await.expect("sent");
        let honoured = json!({"resourceSubscriptions": ["b://1"]});
        from_b.event(&acknowledged(&honoured)).await.expect("sent");
    });
    let first = events.next().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let params = &first["params"];
    assert_eq!(
        params["notifications"],
        json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1", "b://1", "c://1"]})
    );
    assert_eq!(params["_meta"][SUBSCRIPTION], "the client's");
    assert_eq!(
        params["_meta"][OUTCOMES]["b"],
        json!({"status": "ok", "notifications": {"resourceSubscriptions": ["b://1"]}})
    );
    // A resource is asked for where it is, and nowhere else.
    for (server, uri) in [(&a, "a://1"), (&b, "b://1")] {
        let request = of_method(server, "subscriptions/listen");
        assert_eq!(
            request.json()["params"]["notifications"],
            json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": [uri]})
        );
        assert_eq!(request.header("mcp-method"), Some("subscriptions/listen"));
    }
    assert_eq!(
        of_method(&c, "resources/subscribe").json()["params"],
        json!({"uri": "c://1"})
    );

    let tools = "notifications/tools/list_changed";
    let updated = "notifications/resources/updated";
    let mine = json!("the client's");
    // What was not asked for, not honoured, another server's, or no message of a subscription at all, stays out.
    for message in [
        notification("notifications/prompts/list_changed", json!({}), &json!(1)),
        notification(updated, json!({"uri": "b://1"}), &json!(1)),
        notification(updated, json!({"uri": "not-asked://1"}), &json!(1)),
        notification("notifications/message", json!({"level": "info"}), &json!(1)),
        json!({"jsonrpc": "2.0", "id": 3, "method": "sampling/createMessage", "params": {}}),
        notification(updated, json!({"uri": "a://1", "title": "A"}), &json!("forged")),
    ] {
        from_a.event(&message).await.expect("sent");
    }
    assert_eq!(
        events.next().await,
        notification(updated, json!({"uri": "a://1", "title": "A"}), &mine)
    );
    from_b
        .event(&notification(tools, json!({}), &json!(1)))
        .await
        .expect("sent");
    from_b
        .event(&notification(updated, json!({"uri": "b://1"}), &json!(1)))
        .await
        .expect("sent");
    assert_eq!(
        events.next().await,
        notification(updated, json!({"uri": "b://1"}), &mine)
    );
    from_c
        .event(&json!({"jsonrpc": "2.0", "id": 9, "result": {}}))
        .await
        .expect("sent");
    from_c
        .event(&json!({"jsonrpc": "2.0", "method": tools}))
        .await
        .expect("sent");
    assert_eq!(events.next().await, notification(tools, json!({}), &mine));
    from_c
        .event(&json!({"jsonrpc": "2.0", "method": updated, "params": {"uri": "c://1"}}))
        .await
        .expect("sent");
    assert_eq!(
        events.next().await,
        notification(updated, json!({"uri": "c://1"}), &mine)
    );

    // The client leaves, and takes all of it along.
    let seen = c.requests().len();
    drop(events);
    for handle in [&from_a, &from_b, &from_c] {
        handle.closed().await;
    }
    let last = c.wait_for(seen + 1).await.pop().expect("a request");
    assert_eq!(
        (&*last.method, last.header("mcp-session-id")),
        ("DELETE", Some("canary-session-c"))
    );
}

#[tokio::test]
async fn the_end_of_one_servers_stream_is_the_end_of_the_clients() {
    let (a, b) = (server("a://1").await, server("b://1").await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    let asked = json!({"toolsListChanged": true});
    for graceful in [true, false] {
        let (from_a, from_b) = (listens(&a), listens(&b));
        let (mut events, ()) = tokio::join!(Events::of(listening(&gateway, &asked)), async {
            for handle in [&from_a, &from_b] {
                handle.event(&acknowledged(&asked)).await.expect("sent");
            }
        });
        assert_eq!(events.next().await["params"]["notifications"], asked);
        if graceful {
            let result = json!({"resultType": "complete", "_meta": {(SUBSCRIPTION): 1}});
            from_b
                .event(&json!({"jsonrpc": "2.0", "id": 1, "result": result}))
                .await
                .expect("sent");
        } else {
            from_b.abort().await.expect("cut");
        }
        assert_eq!(
            events.next().await,
            json!({"jsonrpc": "2.0", "id": "the client's",
                "result": {"resultType": "complete", "_meta": {(SUBSCRIPTION): "the client's"}}})
        );
        from_a.closed().await;
    }
}

#[tokio::test]
async fn what_is_not_honoured_is_not_acknowledged() {
    let (a, b) = (server("a://1").await, Watched::start().await);
    let away = entry("away", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", "") + &away)).await;
    let from_a = listens(&a);
    let asked = json!({"toolsListChanged": true, "resourcesListChanged": true});
    let (mut events, ()) = tokio::join!(Events::of(listening(&gateway, &asked)), async {
        from_a
            .event(&acknowledged(&json!({"toolsListChanged": true})))
            .await
            .expect("sent");
    });
    let params = events.next().await["params"].clone();
    assert_eq!(params["notifications"], json!({"toolsListChanged": true}));
    let outcomes = &params["_meta"][OUTCOMES];
    assert_eq!(
        outcomes["b"],
        json!({"status": "ok", "notifications": {}}),
        "it says nothing of changes"
    );
    assert_eq!(outcomes["away"]["code"], "upstream_unreachable");
    assert!(b.requests().iter().all(|request| request.method != "GET"));
    drop(events);
    from_a.closed().await;

    // A server that knows no subscriptions is one that honours nothing; no filter and too much of one are refused.
    let many: Vec<String> = (0..65).map(|number| format!("a://{number}")).collect();
    for (asked, code) in [
        (json!([]), json!(-32602)),
        (json!({"resourceSubscriptions": [1]}), json!(-32602)),
        (json!({"resourceSubscriptions": many}), json!(40090)),
    ] {
        let refused = sent(&gateway, &filter(&asked)).await;
        assert_eq!(refused.body["error"]["code"], code, "{}", refused.body);
    }
    assert_eq!(count(&a, "subscriptions/listen"), 1);
    let mut events = Events::of(listening(&gateway, &json!({"toolsListChanged": true}))).await;
    assert_eq!(events.next().await["params"]["notifications"], json!({}));
}

#[tokio::test]
async fn if_no_server_can_be_listened_to_the_answer_is_an_error() {
    let a = server("a://1").await;
    let away = entry("away", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &away)).await;
    a.push_for("subscriptions/listen", Answer::raw(503, &[], ""));
    let refused = sent(&gateway, &filter(&json!({"toolsListChanged": true}))).await;
    assert_eq!((refused.status, refused.code()), (502, "no_server_answered"));
}

#[tokio::test]
async fn two_hundred_vanished_clients_leave_no_stream_open() {
    let a = Watched::start().await;
    a.set_session(Some("canary-session-a"));
    let b = server("b://1").await;
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let asked = json!({"toolsListChanged": true});
    let (mut handles, mut clients) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let (answer, handle) = Answer::sse();
        if number % 2 == 0 {
            a.push_when(|request| request.method == "GET", answer);
            let client = Events::of(stream(&gateway, &session)).await;
            handle.send(":\n\n").await.expect("taken");
            clients.push(client);
        } else {
            b.push_for("subscriptions/listen", answer);
            let (client, ()) = tokio::join!(Events::of(listening(&gateway, &asked)), async {
                handle.event(&acknowledged(&asked)).await.expect("sent");
            });
            clients.push(client);
        }
        handles.push(handle);
    }
    drop(clients);
    for handle in &handles {
        handle.closed().await;
    }
    a.wait_for_abandoned(100).await;
    b.wait_for_abandoned(100).await;
    gateway
        .until_metric("vestibule_connections", |open| open < 100)
        .await;
}

//! Tool rules, on every road to a tool: what is hidden is in no list, and no call of it reaches the server, however it
//! is spelled, wrapped or smuggled.

use crate::harness::{Got, KEY, TestGateway, assert_nothing_secret_logged, entry, got, logged};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, RawClient, Upstream};

const CALL: &str = "/mcp-rest/tools/call";
const LIST: &str = "/mcp-rest/tools/list";

/// A server with the tools echo, drop and Wipe, of which echo may be called with `message` alone.
async fn start(rules: &str) -> (TestGateway, Upstream) {
    let server = Upstream::start().await;
    server.set_tools(&["echo", "drop", "Wipe"]);
    let fields = format!("url: {}\nalias: first\n{rules}", server.url());
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    (gateway, server)
}

const ONLY_ECHO: &str = "allowed_tools: [Echo]\nallowed_params: {one-echo: [message]}";
const NOT_DROP: &str = "disallowed_tools: [first-DROP, wipe]";

async fn send(gateway: &TestGateway, path: &str, body: &str) -> Got {
    let request = gateway.http.post(gateway.url(path));
    let request = request
        .header("x-litellm-api-key", KEY)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json");
    got(request.body(body.to_owned())).await
}

fn call(name: &str, arguments: &Value) -> String {
    let params = json!({"name": name, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()
}

fn names(list: &Value) -> Vec<&str> {
    let tools = list["tools"].as_array().unwrap_or_else(|| panic!("{list}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn calls_by_every_road_and_spelling() {
    for rules in [ONLY_ECHO, NOT_DROP] {
        let (gateway, server) = start(rules).await;
        for path in ["/one/mcp", "/mcp/one", "/first/mcp/", "/mcp/first"] {
            let fine = send(&gateway, path, &call("echo", &json!({"message": "hello"}))).await;
            assert_eq!(fine.body["result"]["content"][0]["text"], "hello", "{path}");
            for hidden in ["drop", "DROP", "one-drop", "first-Drop", "wipe", "Wipe", " drop"] {
                let before = server.requests().len();
                let refused = send(&gateway, path, &call(hidden, &json!({"message": "canary-arg"}))).await;
                let error = &refused.body["error"];
                // A 200, because to a client a 403 is about its authorization.
                assert_eq!(
                    (
                        refused.status,
                        refused.code(),
                        &error["code"],
                        &refused.body["id"]
                    ),
                    (200, "tool_not_allowed", &json!(40330), &json!(7)),
                    "{path} {hidden}: {}",
                    refused.body
                );
                assert_eq!(server.requests().len(), before, "{path} {hidden}");
            }
        }
        for hidden in ["drop", "one-drop", "first-Wipe", "WIPE"] {
            let body = json!({"server_id": "one", "name": hidden, "arguments": {}}).to_string();
            let refused = send(&gateway, CALL, &body).await;
            assert_eq!(
                (refused.status, refused.code()),
                (403, "tool_not_allowed"),
                "{hidden}"
            );
            let body = json!({"name": hidden, "arguments": {}}).to_string();
            let refused = send(&gateway, CALL, &body).await;
            assert_eq!(
                (refused.status, refused.code()),
                (404, "unknown_tool"),
                "{hidden}"
            );
        }
        for body in [
            json!({"server_id": "first", "name": "one-echo", "arguments": {"message": "hello"}}),
            json!({"name": "echo", "arguments": {"message": "hello"}}),
        ] {
            let fine = send(&gateway, CALL, &body.to_string()).await;
            assert_eq!(fine.body["content"][0]["text"], "hello", "{body}");
        }
        for request in server.requests() {
            let asked = request.json();
            assert!(
                asked["method"] != "tools/call" || asked["params"]["name"] == "echo",
                "{asked}"
            );
        }
        server.assert_never_seen("canary-arg");
        assert_nothing_secret_logged(&["canary-arg"]);
    }
}

#[tokio::test]
async fn parameters_that_are_not_allowed_are_named() {
    let (gateway, server) = start(ONLY_ECHO).await;
    let body = call("echo", &json!({"message": "m", "force": "canary-force"}));
    let refused = send(&gateway, "/one/mcp", &body).await;
    let error = &refused.body["error"];
    assert_eq!((refused.status, &error["code"]), (200, &json!(40331)));
    let text = error["message"].as_str().expect("text");
    assert!(
        text.starts_with("The tool echo may not be called with force. Allowed: message."),
        "{text}"
    );
    for body in [
        json!({"server_id": "one", "name": "one-echo", "arguments": {"force": 1}}),
        json!({"server_id": "one", "name": "echo", "arguments": {"force": 1}}),
        json!({"name": "echo", "arguments": {"force": 1}}),
    ] {
        let refused = send(&gateway, CALL, &body.to_string()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "parameter_not_allowed"),
            "{body}"
        );
    }
    server.assert_never_seen("force");
    assert!(!logged().contains("canary-force"));
    // A task around a call changes nothing (MCP 2025-11-25, "Tasks").
    let task = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"task":{"ttl":1},"name":"echo","arguments":{"force":1}}}"#;
    assert_eq!(
        send(&gateway, "/one/mcp", task).await.code(),
        "parameter_not_allowed"
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn messages_that_could_mean_something_else_to_the_server() {
    let (gateway, server) = start(NOT_DROP).await;
    let long_s = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\"},\"param\u{17f}\":{\"name\":\"drop\"}}";
    for (body, code) in [
        (
            r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}]"#,
            "batch_not_allowed",
        ),
        (
            r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            "batch_not_allowed",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":null,"params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (long_s, "unreadable_message"),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","n\u0061me":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["drop"]}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["drop"]}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/call","params":{"n\u0061me":"\u0064rop"}}"#,
            "tool_not_allowed",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"drop"}}"#,
            "tool_not_allowed",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"drop"}}"#,
            "unreadable_message",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping",/*"x":*/"y":NaN}"#,
            "unreadable_message",
        ),
        (
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
            "unreadable_message",
        ),
        ("", "unreadable_message"),
    ] {
        let refused = send(&gateway, "/one/mcp", body).await;
        assert_eq!(refused.code(), code, "{body}: {}", refused.body);
        assert!(refused.body.get("result").is_none(), "{body}");
    }
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for (name, value, code) in [
        ("mcp-method", "tools/call", "header_mismatch"),
        (
            "content-type",
            "application/json; charset=utf-7",
            "unreadable_message",
        ),
    ] {
        let mut request = gateway.post("/one/mcp", &ping).build().expect("a request");
        request
            .headers_mut()
            .insert(name, value.parse().expect("a value"));
        let response = gateway.http.execute(request).await.expect("answered");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["data"]["code"], code, "{name}");
    }
    let named = gateway
        .post(
            "/one/mcp",
            &serde_json::from_str(&call("echo", &json!({}))).expect("JSON"),
        )
        .header("mcp-method", "tools/call")
        .header("mcp-name", "drop");
    assert_eq!(got(named).await.code(), "header_mismatch");
    assert_eq!(server.requests().len(), 0, "nothing reached the server");
    // What is none of these goes through as it came.
    let odd = r#"{ "id" : 1.0, "jsonrpc":"2.0","method":"x/y","params":[1,{"a":1,"a":2}] , "other":{} }"#;
    send(&gateway, "/one/mcp", odd).await;
    assert_eq!(server.requests()[0].body, odd.as_bytes());
}

/// As a server might write it: odd spaces, escapes, numbers that no type holds.
const RESULT: &str = "{ \"tools\" : [ {\"n\\u0061me\":\"dr\\u006fp\",\"x\":1} , {\"name\":\"echo\",\"x\":1.0, \"big\":123456789012345678901234567890},\n {\"title\":\"W\",\"name\":\"Wipe\"} ], \"nextCursor\":\"c\" }";
const SHOWN: &str = "{ \"tools\" : [ {\"name\":\"echo\",\"x\":1.0, \"big\":123456789012345678901234567890} ], \"nextCursor\":\"c\" }";

fn list() -> Value {
    json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
}

async fn text(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("answered");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

#[tokio::test]
async fn lists_lose_what_is_hidden_and_keep_every_other_byte() {
    for rules in [ONLY_ECHO, NOT_DROP] {
        let (gateway, server) = start(rules).await;
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{RESULT}, \"_x\":0}}");
        let expected = answer.replace(RESULT, SHOWN);
        server.push(Answer::raw(
            200,
            &[
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store"),
            ],
            &answer,
        ));
        let response = gateway.post("/one/mcp", &list()).send().await.expect("answered");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(
            response.headers()["content-length"],
            expected.len().to_string().as_str()
        );
        assert_eq!(response.text().await.expect("a body"), expected);

        // The same in a stream, split over data lines, among other events.
        let (head, tail) = answer.split_once('\n').expect("two lines");
        let stream = format!(
            ": hello\r\n\r\nid: 1\r\ndata:\r\n\r\nid: 2\nevent: message\ndata: {head}\ndata: {tail}\n\ndata: {{\"method\":\"x\"}}\n\n"
        );
        server.push(Answer::raw(
            200,
            &[("Content-Type", "text/event-stream")],
            &stream,
        ));
        let (status, found) = text(gateway.post("/one/mcp", &list())).await;
        assert_eq!(status, 200);
        let (before, rest) = found.split_once("id: 2\n").expect("the event");
        assert_eq!(before, ": hello\r\n\r\nid: 1\r\ndata:\r\n\r\n");
        let (event, after) = rest.split_once("\n\n").expect("its end");
        assert_eq!(after, "data: {\"method\":\"x\"}\n\n");
        let data = event.strip_prefix("event: message\n").expect("its other lines");
        let data: Vec<&str> = data
            .lines()
            .map(|line| line.strip_prefix("data: ").expect("data"))
            .collect();
        let data: Value = serde_json::from_str(&data.join("\n")).expect("JSON");
        assert_eq!(names(&data["result"]), ["echo"]);

        let listed = got(gateway
            .http
            .get(gateway.url(LIST))
            .header("x-litellm-api-key", KEY))
        .await;
        assert_eq!(names(&listed.body), ["echo"]);
        assert_eq!(listed.body["server_outcomes"]["one"]["tool_count"], 1);
    }
}

#[tokio::test]
async fn a_resumed_stream_is_filtered_as_it_flows() {
    let (gateway, server) = start(NOT_DROP).await;
    let (answer, handle) = Answer::sse();
    server.push(answer);
    let mut client = RawClient::connect(gateway.address).await.expect("connects");
    let request = format!(
        "GET /one/mcp HTTP/1.1\r\nhost: localhost\r\nx-litellm-api-key: {KEY}\r\naccept: text/event-stream\r\nlast-event-id: 4\r\n\r\n"
    );
    client.write(&request).await.expect("sent");
    handle
        .send(format!(
            "data: {{\"id\":3,\"result\":{}}}\n\n",
            RESULT.replace('\n', "")
        ))
        .await
        .expect("sent");
    let event = client.read_until("\n\n").await.expect("an event");
    assert!(
        event.contains("echo") && !event.contains("Wipe") && !event.contains("dr\\u006fp"),
        "{event}"
    );
    assert_eq!(server.requests()[0].header("last-event-id"), Some("4"));
    // What cannot be read ends the stream.
    handle
        .send("data: {\"id\":3,\"result\":{},\"result\":{\"tools\":[{\"name\":\"Wipe\"}]}}\n\n")
        .await
        .expect("sent");
    handle.closed().await;
    gateway.until_metric("vestibule_streams", |open| open == 0).await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_an_error() {
    let (gateway, server) = start(NOT_DROP).await;
    let json = ("Content-Type", "application/json");
    let hidden = r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"drop"}]}}"#;
    for (headers, body) in [
        (&[json, ("Content-Encoding", "gzip")][..], hidden),
        (
            &[json],
            r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"echo","name":"drop"}]}}"#,
        ),
        (
            &[json],
            r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[]},"Result":{"tools":[{"name":"drop"}]}}"#,
        ),
        (
            &[json],
            r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"drop"}]}} x"#,
        ),
        (
            &[json],
            r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"drop","x":NaN}]}}"#,
        ),
        (
            &[json],
            r#"{"jsonrpc":"2.0","id":3,"result":{"tools":{"drop":{"name":"drop"}}}}"#,
        ),
        (&[json], "drop"),
        (
            &[("Content-Type", "text/event-stream"), ("Content-Encoding", "br")],
            hidden,
        ),
    ] {
        server.push(Answer::raw(200, headers, body));
        let (status, found) = text(gateway.post("/one/mcp", &list())).await;
        let found: Value = serde_json::from_str(&found).expect("JSON");
        assert_eq!(
            (status, &found["error"]["data"]["code"]),
            (502, &json!("upstream_not_mcp")),
            "{body}"
        );
        assert!(!found.to_string().contains("drop"), "{found}");
    }
    // Without a content type there is nothing to be passed on but nothing.
    server.push(Answer::raw(200, &[], hidden));
    let nameless = json!({"jsonrpc": "2.0", "id": null, "method": "tools/list"});
    let (_, found) = text(gateway.post("/one/mcp", &nameless)).await;
    assert!(!found.contains("drop"), "{found}");
    // A batch of answers, which servers of 2025-03-26 may send.
    server.push(Answer::raw(
        200,
        &[json],
        format!("[{hidden},{{\"method\":\"x\"}}]"),
    ));
    let (_, found) = text(gateway.post("/one/mcp", &list())).await;
    assert_eq!(
        found,
        format!(
            "[{},{{\"method\":\"x\"}}]",
            hidden.replace(r#"{"name":"drop"}"#, "")
        )
    );
    for request in server.requests() {
        assert_eq!(request.header("accept-encoding"), None);
    }
}

#[tokio::test]
async fn a_server_without_rules_is_not_read() {
    let (gateway, server) = start("").await;
    for body in [
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#,
        "not json",
    ] {
        send(&gateway, "/one/mcp", body).await;
        let requests = server.requests();
        assert_eq!(requests.last().expect("a request").body, body.as_bytes());
    }
    let odd = r#"{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"drop"}],"tools":[]}}"#;
    server.push(Answer::raw(200, &[("Content-Type", "application/json")], odd));
    assert_eq!(
        text(gateway.post("/one/mcp", &list())).await,
        (200, odd.to_owned())
    );
}

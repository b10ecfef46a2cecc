//! Revision 2026-07-28 behind an endpoint with several servers, and both eras at once; a client that is not ours.

use crate::aggregate_sessions::{begun, call, count, within};
use crate::aggregate_targets::{names, request};
use crate::by_hand::Watched;
use crate::harness::{CLIENT_SECRET, Got, KEY, TestGateway, got, machine};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use vestibule_mock::{DEFAULT_CLIENT_ID, Mock};
use vestibule_testkit::Answer;

pub(crate) const MODERN: &str = "2026-07-28";

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/logLevel": "debug",
        "progressToken": 5,
    })
}

pub(crate) fn modern(method: &str, mut params: Value) -> Value {
    params["_meta"] = meta();
    request(method, &params)
}

pub(crate) async fn posted(gateway: &TestGateway, message: &Value, headers: &[(&str, &str)]) -> Got {
    let mut post = gateway
        .http
        .post(gateway.url("/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("accept", "application/json, text/event-stream")
        .json(message);
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    got(post).await
}

/// With the headers that belong to the message.
pub(crate) async fn sent(gateway: &TestGateway, message: &Value) -> Got {
    let params = &message["params"];
    let name = params["name"].as_str().or(params["uri"].as_str());
    let mut headers = vec![
        ("mcp-protocol-version", MODERN),
        ("mcp-method", message["method"].as_str().expect("a method")),
    ];
    headers.extend(name.map(|name| ("mcp-name", name)));
    posted(gateway, message, &headers).await
}

/// `a` speaks revisions with `initialize`, `b` the newer one alone.
async fn pair() -> (Watched, Watched, TestGateway) {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Unknown method"}});
    b.push_for("initialize", Answer::json(404, &unknown));
    b.answer_with("server/discover", r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"prompts":{"listChanged":true}},"instructions":"B."}"#);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    (a, b, gateway)
}

#[tokio::test]
async fn a_modern_client_is_served_without_sessions_from_servers_of_both_eras() {
    let (a, b, gateway) = pair().await;
    let found = sent(&gateway, &modern("server/discover", json!({}))).await;
    let result = &found.body["result"];
    assert_eq!(
        (
            &result["supportedVersions"],
            &result["capabilities"],
            &result["cacheScope"],
            &result["ttlMs"],
            &result["resultType"]
        ),
        (
            &json!([MODERN]),
            &json!({"tools": {}, "prompts": {"listChanged": true}}),
            &json!("private"),
            &json!(0),
            &json!("complete")
        ),
        "{}",
        found.body
    );
    assert_eq!(result["instructions"], "B.");
    assert_eq!(found.header("mcp-session-id"), "");
    let listed = sent(&gateway, &modern("tools/list", json!({}))).await;
    assert_eq!(names(&listed.body, "tools"), ["a-echo", "b-echo"]);
    let result = &listed.body["result"];
    assert_eq!(
        (&result["cacheScope"], &result["ttlMs"], &result["resultType"]),
        (&json!("private"), &json!(0), &json!("complete"))
    );

    let called = sent(
        &gateway,
        &modern(
            "tools/call",
            json!({"name": "a-echo", "arguments": {"message": "x"}}),
        ),
    )
    .await;
    assert_eq!(
        (
            &called.body["result"]["resultType"],
            &called.body["result"]["content"][0]["text"]
        ),
        (&json!("complete"), &json!("x"))
    );
    let last = a.requests().last().cloned().expect("a request");
    assert_eq!(last.json()["params"]["_meta"], json!({"progressToken": 5}));
    assert_eq!(
        (
            last.header("mcp-protocol-version"),
            last.header("mcp-method"),
            last.header("mcp-name")
        ),
        (Some("2025-11-25"), None, None)
    );

    b.answer_with(
        "tools/call",
        r#"{"resultType":"input_required", "requestState":"st\u00e4te","inputRequests":{}}"#,
    );
    let params = json!({"name": "b-echo", "arguments": {}, "requestState": "earlier", "inputResponses": {"k": {"action": "accept"}}});
    let message = modern("tools/call", params);
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?Yi1lY2hv?="),
        ("mcp-param-region", "eu"),
    ];
    let called = posted(&gateway, &message, &headers).await;
    assert_eq!(
        called.body["result"],
        json!({"resultType": "input_required", "requestState": "st\u{e4}te", "inputRequests": {}})
    );
    let last = b.requests().last().cloned().expect("a request");
    let params = &last.json()["params"];
    assert_eq!(
        (
            &params["requestState"],
            &params["inputResponses"]["k"]["action"],
            &params["_meta"]
        ),
        (&json!("earlier"), &json!("accept"), &meta())
    );
    for (name, value) in [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("mcp-param-region", "eu"),
    ] {
        assert_eq!(last.header(name), Some(value), "{name}");
    }
    assert_eq!((count(&b, "server/discover"), count(&b, "initialize")), (1, 0));
}

#[tokio::test]
async fn headers_that_repeat_arguments_go_with_the_call_alone() {
    let (b, c) = (Watched::start().await, Watched::start().await);
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Unknown method"}});
    for server in [&b, &c] {
        server.push_for("initialize", Answer::json(404, &unknown));
    }
    let gateway = TestGateway::with_servers(&(b.entry("b", "") + &c.entry("c", ""))).await;
    // A name without a server's is looked up at both.
    c.answer_with("tools/list", r#"{"tools":[{"name":"other"}]}"#);
    let message = modern(
        "tools/call",
        json!({"name": "echo", "arguments": {"region": "canary-region"}}),
    );
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("mcp-param-region", "canary-region"),
    ];
    let called = posted(&gateway, &message, &headers).await;
    assert_eq!(called.status, 200, "{}", called.body);
    c.assert_never_seen("canary-region");
    assert_eq!(count(&c, "tools/list"), 1);
    for request in b.requests() {
        let is_call = request.json()["method"] == "tools/call";
        let expected = is_call.then_some("canary-region");
        assert_eq!(request.header("mcp-param-region"), expected);
    }
    assert_eq!((count(&b, "tools/call"), count(&b, "tools/list")), (1, 1));
}

#[tokio::test]
async fn a_legacy_client_reaches_a_modern_server() {
    let (_a, b, gateway) = pair().await;
    let session = begun(&gateway, "/mcp", &json!({"sampling": {}})).await;
    b.answer_with(
        "tools/call",
        r#"{"resultType":"complete","ttlMs":3,"content":[ ]}"#,
    );
    let called = within(&gateway, "/mcp", &session, &call("b-echo", "x")).await;
    assert_eq!(called.body["result"], json!({"content": []}));
    let last = b.requests().last().cloned().expect("a request");
    assert_eq!(
        last.json()["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"],
        MODERN
    );
    assert_eq!(
        last.json()["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"],
        json!({})
    );
    assert_eq!(
        (
            last.header("mcp-session-id"),
            last.header("mcp-name"),
            last.header("mcp-protocol-version")
        ),
        (None, Some("echo"), Some(MODERN))
    );
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let (a, b, gateway) = pair().await;
    let listing = modern("tools/list", json!({}));
    let calling = modern("tools/call", json!({"name": "a-echo", "arguments": {}}));
    let mut without = listing.clone();
    without["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": MODERN});
    let mut later = listing.clone();
    later["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2027-01-01");
    let version = ("mcp-protocol-version", MODERN);
    for (message, headers, status, code) in [
        (&listing, &[][..], 400, -32020),
        (&listing, &[version], 400, -32020),
        (&listing, &[version, ("mcp-method", "tools/call")], 400, -32020),
        (
            &listing,
            &[version, version, ("mcp-method", "tools/list")],
            400,
            -32020,
        ),
        (
            &listing,
            &[
                ("mcp-protocol-version", "2025-11-25"),
                ("mcp-method", "tools/list"),
            ],
            400,
            -32020,
        ),
        (&calling, &[version, ("mcp-method", "tools/call")], 400, -32020),
        (
            &calling,
            &[version, ("mcp-method", "tools/call"), ("mcp-name", "b-echo")],
            400,
            -32020,
        ),
        (
            &calling,
            &[
                version,
                ("mcp-method", "tools/call"),
                ("mcp-name", "=?base64?!?="),
            ],
            400,
            -32020,
        ),
        (&without, &[version, ("mcp-method", "tools/list")], 400, -32602),
        (
            &request("tools/list", &json!({})),
            &[version, ("mcp-method", "tools/list")],
            400,
            -32602,
        ),
        (
            &later,
            &[
                ("mcp-protocol-version", "2027-01-01"),
                ("mcp-method", "tools/list"),
            ],
            400,
            -32022,
        ),
        (
            &request("tools/list", &json!({})),
            &[("mcp-protocol-version", "2020-01-01")],
            400,
            -32022,
        ),
        (
            &modern("ping", json!({})),
            &[version, ("mcp-method", "ping")],
            404,
            -32601,
        ),
        (
            &modern("subscriptions/listen", json!({})),
            &[version, ("mcp-method", "subscriptions/listen")],
            200,
            -32602,
        ),
        (
            &modern("tasks/get", json!({})),
            &[version, ("mcp-method", "tasks/get")],
            404,
            -32601,
        ),
    ] {
        let refused = posted(&gateway, message, headers).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (status, &json!(code)),
            "{message} {headers:?} {}",
            refused.body
        );
        assert_eq!(refused.body["id"], 7);
    }
    assert!(a.requests().is_empty() && b.requests().is_empty());
}

#[tokio::test]
async fn rmcp_lists_and_calls_in_both_eras() {
    let mut servers = String::new();
    for name in ["one", "two"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let mock = Mock::new().client(DEFAULT_CLIENT_ID, CLIENT_SECRET);
        tokio::spawn(mock.serve(listener, std::future::pending()));
        servers += &machine(name, &format!("{base}/mcp"), &format!("{base}/oauth/token"), "");
    }
    let gateway = TestGateway::with_servers(&servers.replace("canary-id", DEFAULT_CLIENT_ID)).await;
    for lifecycle in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
    ] {
        let config = StreamableHttpClientTransportConfig::with_uri(gateway.url("/mcp")).auth_header(KEY);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("a handshake");
        let tools = client.list_all_tools().await.expect("a list");
        let listed: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
        assert_eq!(listed.len(), 4, "{listed:?}");
        let arguments = json!({"a": 1, "b": 2}).as_object().expect("an object").clone();
        for name in ["one-add", "two-add"] {
            let params = CallToolRequestParams::new(name).with_arguments(arguments.clone());
            let result = client.call_tool(params).await.expect("a result");
            assert_eq!(result.structured_content, Some(json!({"sum": 3})));
        }
        client.cancel().await.expect("an end");
    }
}

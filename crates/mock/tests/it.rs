//! The mock over sockets, as a client sees it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt,
    model::{CallToolRequestParams, ProtocolVersion},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use vestibule_mock::{Event, Mock, config_yaml};

const FORM: &str = "application/x-www-form-urlencoded";
const GOOD: &str = "grant_type=client_credentials&client_id=test-client&client_secret=test-secret";
const MODERN: &str = "2026-07-28";

struct Running {
    address: SocketAddr,
    client: Client,
    events: Arc<Mutex<Vec<Event>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(mock: Mock) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let mock = mock.observer(Arc::new(move |event| seen.lock().expect("the list").push(event)));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(mock.serve(listener, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        client: Client::new(),
        events,
        stop,
        task,
    }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn token_request(&self, body: &str) -> RequestBuilder {
        self.client
            .post(self.url("/oauth/token"))
            .header("content-type", FORM)
            .body(body.to_owned())
    }

    async fn token(&self) -> String {
        let answer: Value = send(self.token_request(GOOD)).await.json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    fn mcp(&self, token: &str, body: impl Into<String>) -> RequestBuilder {
        self.client
            .post(self.url("/mcp"))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.into())
    }

    /// A request of the legacy era, answered with 200.
    async fn rpc(&self, token: &str, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let response = send(self.mcp(token, body.to_string())).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().get("mcp-session-id").is_none());
        assert_eq!(header(&response, "content-type"), "application/json");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer["id"], 7);
        answer
    }

    fn last_event(&self) -> Event {
        self.events
            .lock()
            .expect("the list")
            .last()
            .expect("an event")
            .clone()
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

async fn json_of(response: Response, status: u16) -> Value {
    assert_eq!(response.status().as_u16(), status);
    response.json().await.expect("JSON")
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no {name}"))
        .to_str()
        .expect("text")
}

#[tokio::test]
async fn token_endpoint_grants() {
    let mock = start(Mock::new()).await;
    let response = send(mock.token_request(&format!("{GOOD}&scope=mcp%3Aread+mcp%3Awrite&resource="))).await;
    assert_eq!(header(&response, "cache-control"), "no-store");
    let answer = json_of(response, 200).await;
    let token = answer["access_token"].as_str().expect("a token");
    assert!(token.len() == 35 && token.starts_with("tk_"), "{token}");
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["scope"], "mcp:read mcp:write");
    assert_eq!(
        mock.last_event(),
        Event::TokenIssued {
            client_id: "test-client".into(),
            scope: Some("mcp:read mcp:write".into())
        }
    );
    assert_ne!(mock.token().await, token);
}

#[tokio::test]
async fn token_endpoint_takes_form_encoded_basic() {
    let mock = start(Mock::new().client("a:b", "p% &ü").token_lifetime(5)).await;
    let request = mock.token_request("grant_type=client_credentials&client_id=a%3Ab");
    let answer = json_of(
        send(request.basic_auth("a%3Ab", Some("p%25+%26%C3%BC"))).await,
        200,
    )
    .await;
    assert_eq!(answer["expires_in"], 5);
    assert_eq!(answer.get("scope"), None);
}

#[tokio::test]
async fn token_endpoint_refuses() {
    let mock = start(Mock::new()).await;
    let client = "client_id=test-client&client_secret=test-secret";
    for (body, status, error) in [
        (client.to_owned(), 400, "invalid_request"),
        (format!("{GOOD}&scope=a&scope=b"), 400, "invalid_request"),
        (format!("{GOOD}&scope=a%22b"), 400, "invalid_scope"),
        (
            format!("{client}&grant_type=password"),
            400,
            "unsupported_grant_type",
        ),
        ("grant_type=client_credentials".to_owned(), 401, "invalid_client"),
        (
            "grant_type=client_credentials&client_id=test-client".to_owned(),
            401,
            "invalid_client",
        ),
        (GOOD.replace("test-secret", "other"), 401, "invalid_client"),
        (GOOD.replace("test-client", "other"), 401, "invalid_client"),
    ] {
        let response = send(mock.token_request(&body)).await;
        assert_eq!(header(&response, "cache-control"), "no-store");
        if status == 401 {
            assert!(header(&response, "www-authenticate").starts_with("Basic "));
        }
        assert_eq!(json_of(response, status).await["error"], error, "{body}");
        assert_eq!(mock.last_event(), Event::TokenRefused { error });
    }

    let not_a_form = mock
        .client
        .post(mock.url("/oauth/token"))
        .header("content-type", "application/json");
    assert_eq!(
        json_of(send(not_a_form.body("{}")).await, 400).await["error"],
        "invalid_request"
    );
    assert_eq!(
        send(mock.client.get(mock.url("/oauth/token"))).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );

    let grant = "grant_type=client_credentials";
    for (request, status, error) in [
        (
            mock.token_request(grant).basic_auth("test-client", Some("wrong")),
            401,
            "invalid_client",
        ),
        (mock.token_request(grant).bearer_auth("x"), 401, "invalid_client"),
        (
            mock.token_request(GOOD)
                .basic_auth("test-client", Some("test-secret")),
            400,
            "invalid_request",
        ),
        (
            mock.token_request(&format!("{grant}&client_id=other"))
                .basic_auth("test-client", Some("test-secret")),
            400,
            "invalid_request",
        ),
    ] {
        assert_eq!(json_of(send(request).await, status).await["error"], error);
    }
}

#[tokio::test]
async fn metadata_names_the_server_as_the_caller_does() {
    let mock = start(Mock::new()).await;
    let base = format!("http://localhost:{}", mock.address.port());
    for (host, base) in [
        (base.trim_start_matches("http://"), &base),
        ("a\"b", &mock.url("")),
    ] {
        let get = |path| mock.client.get(mock.url(path)).header("host", host);
        let server = json_of(send(get("/.well-known/oauth-authorization-server")).await, 200).await;
        assert_eq!(
            server,
            json!({
                "issuer": base,
                "token_endpoint": format!("{base}/oauth/token"),
                "response_types_supported": [],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            })
        );
        let resource = json_of(send(get("/.well-known/oauth-protected-resource/mcp")).await, 200).await;
        assert_eq!(
            resource,
            json!({
                "resource": format!("{base}/mcp"),
                "authorization_servers": [base],
                "bearer_methods_supported": ["header"],
            })
        );
    }
}

#[tokio::test]
async fn mcp_wants_a_good_token() {
    let mock = start(Mock::new().token_lifetime(0)).await;
    let metadata = mock.url("/.well-known/oauth-protected-resource/mcp");
    let response = send(mock.client.post(mock.url("/mcp")).body("{}")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        header(&response, "www-authenticate"),
        format!("Bearer resource_metadata=\"{metadata}\"")
    );
    assert_eq!(mock.last_event(), Event::McpRefused);

    let expired = mock.token().await;
    for token in ["tk_0", &expired] {
        let response = send(mock.mcp(token, "{}")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            header(&response, "www-authenticate"),
            format!("Bearer resource_metadata=\"{metadata}\", error=\"invalid_token\"")
        );
        assert_eq!(mock.last_event(), Event::McpRefused);
    }
}

#[tokio::test]
async fn mcp_judges_origin_and_method() {
    let mock = start(Mock::new()).await;
    let token = mock.token().await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let own = mock.url("");
    for (origin, status) in [
        ("http://localhost:3000", 200),
        (own.as_str(), 200),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        assert_eq!(
            send(mock.mcp(&token, ping).header("origin", origin))
                .await
                .status()
                .as_u16(),
            status,
            "{origin}"
        );
    }
    for request in [
        mock.client.get(mock.url("/mcp")),
        mock.client.delete(mock.url("/mcp")),
    ] {
        let response = send(request.bearer_auth(&token)).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(header(&response, "allow"), "POST");
    }
}

#[tokio::test]
async fn legacy_handshake() {
    let mock = start(Mock::new()).await;
    let token = mock.token().await;
    for (asked, answered) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let answer = mock
            .rpc(&token, "initialize", json!({ "protocolVersion": asked }))
            .await;
        assert_eq!(answer["result"]["protocolVersion"], answered);
        assert!(answer["result"]["capabilities"]["tools"].is_object());
        assert_eq!(answer["result"]["serverInfo"]["name"], "vestibule-mock");
    }
    assert_eq!(
        mock.rpc(&token, "initialize", json!({})).await["error"]["code"],
        -32602
    );

    for accepted in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        let response = send(mock.mcp(&token, accepted)).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.text().await.expect("a body"), "");
    }
    assert_eq!(
        mock.last_event(),
        Event::McpRequest {
            method: "notifications/initialized".into(),
            tool: None
        }
    );
    assert_eq!(mock.rpc(&token, "ping", json!({})).await["result"], json!({}));
    assert_eq!(
        mock.rpc(&token, "resources/list", json!({})).await["error"]["code"],
        -32601
    );
    assert_eq!(
        mock.rpc(&token, "server/discover", json!({})).await["error"]["code"],
        -32601
    );
}

#[tokio::test]
async fn legacy_tools() {
    let mock = start(Mock::new()).await;
    let token = mock.token().await;
    let list = mock.rpc(&token, "tools/list", json!({})).await;
    assert_eq!(list["result"]["tools"][0]["name"], "echo");
    assert_eq!(list["result"]["tools"][1]["name"], "add");
    assert_eq!(list["result"].get("resultType"), None);

    let call = |name: &str, arguments: Value| {
        mock.rpc(
            &token,
            "tools/call",
            json!({ "name": name, "arguments": arguments }),
        )
    };
    let echoed = call("echo", json!({ "message": "hello" })).await;
    assert_eq!(
        echoed["result"]["content"],
        json!([{ "type": "text", "text": "hello" }])
    );
    assert_eq!(
        mock.last_event(),
        Event::McpRequest {
            method: "tools/call".into(),
            tool: Some("echo".into())
        }
    );
    let added = call("add", json!({ "a": 20, "b": 22 })).await;
    assert_eq!(added["result"]["structuredContent"], json!({ "sum": 42 }));
    assert_eq!(added["result"]["content"][0]["text"], r#"{"sum":42}"#);

    assert_eq!(
        call("echo", json!({ "message": 1 })).await["result"]["isError"],
        true
    );
    assert_eq!(call("add", json!({ "a": 1 })).await["result"]["isError"], true);
    assert_eq!(call("nope", json!({})).await["error"]["code"], -32602);
    assert_eq!(call("echo", json!([])).await["error"]["code"], -32602);
    assert_eq!(
        mock.rpc(&token, "tools/call", json!({})).await["error"]["code"],
        -32602
    );
}

#[tokio::test]
async fn messages_that_are_none() {
    let mock = start(Mock::new()).await;
    let token = mock.token().await;
    for (body, code) in [
        ("{", -32700),
        ("[]", -32600),
        ("1", -32600),
        (r#"{"id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, -32600),
    ] {
        let answer = json_of(send(mock.mcp(&token, body)).await, 400).await;
        assert_eq!(answer["error"]["code"], code, "{body}");
        assert_eq!(answer.get("id"), Some(&Value::Null));
        let modern = mock.mcp(&token, body).header("mcp-protocol-version", MODERN);
        assert_eq!(json_of(send(modern).await, 400).await.get("id"), None);
    }
}

#[tokio::test]
async fn modern_wire() {
    let mock = start(Mock::new()).await;
    let token = mock.token().await;
    let modern = |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params });
        mock.mcp(&token, body.to_string())
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", method)
    };
    let meta = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": MODERN } });

    let found = json_of(send(modern("server/discover", meta)).await, 200).await;
    assert_eq!(found["result"]["supportedVersions"], json!([MODERN]));
    assert_eq!(found["result"]["resultType"], "complete");
    let info = &found["result"]["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(info["name"], "vestibule-mock");

    let list = json_of(send(modern("tools/list", json!({}))).await, 200).await;
    assert_eq!(list["result"]["resultType"], "complete");
    assert!(list["result"]["ttlMs"].is_u64());
    assert_eq!(list["result"]["cacheScope"], "public");

    let echo = json!({ "name": "echo", "arguments": { "message": "hi" } });
    for name in ["echo", "=?base64?ZWNobw==?="] {
        let request = modern("tools/call", echo.clone()).header("mcp-name", name);
        let answer = json_of(send(request).await, 200).await;
        assert_eq!(answer["result"]["content"][0]["text"], "hi");
        assert_eq!(answer["result"]["resultType"], "complete");
        assert_eq!(answer["result"].get("ttlMs"), None);
    }
    for request in [
        modern("tools/call", echo.clone()).header("mcp-name", "add"),
        modern("tools/call", echo.clone()).header("mcp-name", "=?base64?*?="),
        mock.mcp(&token, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", "tools/call"),
        modern(
            "tools/list",
            json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2025-11-25" } }),
        ),
    ] {
        assert_eq!(json_of(send(request).await, 400).await["error"]["code"], -32020);
    }
    for method in ["ping", "resources/list"] {
        assert_eq!(
            json_of(send(modern(method, json!({}))).await, 404).await["error"]["code"],
            -32601
        );
    }
    let unknown = mock
        .mcp(&token, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
        .header("mcp-protocol-version", "2099-01-01");
    let refused = json_of(send(unknown).await, 400).await;
    assert_eq!(refused["error"]["code"], -32022);
    assert_eq!(refused["error"]["data"]["requested"], "2099-01-01");
    assert_eq!(refused["error"]["data"]["supported"][0], MODERN);
}

#[tokio::test]
async fn a_real_client_of_either_era() {
    let mock = start(Mock::new()).await;
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    for lifecycle in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover {
            preferred_versions: preferred_versions.clone(),
        },
        ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: None,
        },
    ] {
        let config =
            StreamableHttpClientTransportConfig::with_uri(mock.url("/mcp")).auth_header(mock.token().await);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("a handshake");
        assert_eq!(client.list_all_tools().await.expect("a list").len(), 2);
        let arguments = json!({ "a": 1, "b": 2 }).as_object().expect("an object").clone();
        let call = CallToolRequestParams::new("add").with_arguments(arguments);
        let result = client.call_tool(call).await.expect("a result");
        assert_eq!(result.structured_content, Some(json!({ "sum": 3 })));
        client.cancel().await.expect("an end");
    }
}

#[tokio::test]
async fn stops_when_told() {
    let mock = start(Mock::new()).await;
    mock.token().await;
    mock.stop.send(()).expect("it runs");
    mock.task.await.expect("no panic").expect("no error");
}

#[test]
fn config_is_the_one_of_the_documentation() {
    assert_eq!(
        config_yaml("http://localhost:8765/"),
        r#"mcp_servers:
  test_oauth2:
    url: "http://localhost:8765/mcp"
    auth_type: oauth2
    client_id: "test-client"
    client_secret: "test-secret"
    token_url: "http://localhost:8765/oauth/token"
"#
    );
}

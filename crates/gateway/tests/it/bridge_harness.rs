//! What the tests of bridged servers have in common: a client of Streamable HTTP that sees every message.

use crate::harness::{KEY, TestGateway, answer};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use vestibule_testkit::DEADLINE;

/// The event stream of an answer, read message by message.
pub(crate) struct Messages {
    response: reqwest::Response,
    read: String,
}

impl Messages {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let kind = response.headers()["content-type"].to_str().expect("text");
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self {
            response,
            read: String::new(),
        }
    }

    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.strip_prefix("event: message\ndata: ").expect("a message");
                let message = serde_json::from_str(data).expect("JSON");
                self.read = rest.into();
                return Some(message);
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.expect("in time");
            let chunk = chunk.expect("readable")?;
            self.read.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// All that is left.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
        }
        all
    }
}

/// A client with a session.
pub(crate) struct Client<'g> {
    pub(crate) gateway: &'g TestGateway,
    pub(crate) path: String,
    pub(crate) session: String,
}

pub(crate) fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {"roots": {}}, "clientInfo": {"name": "it", "version": "0"},
    }})
}

/// `tools/call` of this tool.
pub(crate) fn call(id: u64, tool: &str, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": tool, "arguments": {"message": message}, "_meta": {"progressToken": format!("p{id}")},
    }})
}

/// The text that a tool gave back.
pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

impl<'g> Client<'g> {
    /// Opens a session; `headers` go with every `initialize`.
    pub(crate) async fn open(gateway: &'g TestGateway, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = gateway.post(path, &initialize());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("answered");
        let status = response.status();
        let session = response.headers().get("mcp-session-id").cloned();
        let body = response.text().await.expect("a body");
        assert_eq!(status, 200, "{body}");
        let session = session.expect("a session").to_str().expect("text").to_owned();
        let client = Self {
            gateway,
            path: path.to_owned(),
            session,
        };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.send(&initialized).await.status(), 202);
        client
    }

    pub(crate) fn post(&self, message: &Value) -> reqwest::RequestBuilder {
        self.gateway
            .post(&self.path, message)
            .header("mcp-session-id", &self.session)
    }

    pub(crate) async fn send(&self, message: &Value) -> reqwest::Response {
        self.post(message).send().await.expect("answered")
    }

    /// The answer to a request that gets nothing but its answer.
    pub(crate) async fn ask(&self, message: &Value) -> Value {
        let response = self.send(message).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        response.json().await.expect("JSON")
    }

    /// The stream of messages that belong to no request.
    pub(crate) async fn listen(&self) -> reqwest::Response {
        self.with(reqwest::Method::GET).send().await.expect("answered")
    }

    pub(crate) async fn delete(&self) -> u16 {
        let response = self.with(reqwest::Method::DELETE).send().await.expect("answered");
        response.status().as_u16()
    }

    fn with(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        self.gateway
            .http
            .request(method, self.gateway.url(&self.path))
            .header("x-litellm-api-key", format!("Bearer {KEY}"))
            .header("accept", "text/event-stream")
            .header("mcp-session-id", &self.session)
    }
}

/// Everything that every transport behind a bridge does alike, at `/one/mcp`.
pub(crate) async fn behaves_as_streamable_http(gateway: &TestGateway) {
    let client = Client::open(gateway, "/one/mcp", &[]).await;
    let listed = client
        .ask(&json!({"jsonrpc": "2.0", "id": "a\u{e9}", "method": "tools/list"}))
        .await;
    assert_eq!(
        (&listed["id"], &listed["result"]["tools"][0]["name"]),
        (&json!("a\u{e9}"), &json!("echo"))
    );
    assert_eq!(text(&client.ask(&call(2, "echo", "hi")).await), "hi");

    let messages = Messages::new(client.send(&call(3, "progress", "done")).await)
        .rest()
        .await;
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(
        messages[1]["params"],
        json!({"progressToken": "p3", "progress": 2, "total": 2})
    );
    assert_eq!(text(&messages[2]), "done");

    // The server asks in the middle of a call, and the answer travels in a request of its own.
    let mut asking = Messages::new(client.send(&call(4, "ask", "")).await);
    let question = asking.next().await.expect("a question");
    assert_eq!(question["method"], "roots/list");
    // While it waits, another call goes on, and an id in use is refused.
    assert_eq!(
        text(&client.ask(&call(5, "echo", "meanwhile")).await),
        "meanwhile"
    );
    let twice = client.send(&call(4, "echo", "")).await;
    assert_eq!(twice.status(), 400);
    let told = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": ["r"]}});
    assert_eq!(client.send(&told).await.status(), 202);
    assert_eq!(
        text(&asking.next().await.expect("an answer")),
        r#"{"roots":["r"]}"#
    );
    assert_eq!(asking.next().await, None);

    let logged = Messages::new(client.send(&call(6, "log", "said")).await)
        .rest()
        .await;
    assert_eq!(
        (&logged[0]["params"]["data"], text(&logged[1])),
        (&json!("said"), "said")
    );

    // What belongs to no request waits for a listener, of whom there is one.
    assert_eq!(text(&client.ask(&call(7, "later", "")).await), "");
    let mut listener = Messages::new(client.listen().await);
    let second = client.listen().await;
    assert_eq!(second.status(), 409);
    let changed = listener.next().await.expect("a notification");
    assert_eq!(changed["method"], "notifications/tools/list_changed");

    for (body, status) in [
        ("[]", 400),
        ("{", 400),
        (r#"{"jsonrpc":"2.0"}"#, 400),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, 400),
        (
            "{\n\"jsonrpc\":\"2.0\",\r\n\"id\":8,\n\"method\":\"ping\"\n}",
            200,
        ),
    ] {
        let response = client
            .post(&Value::Null)
            .body(body)
            .send()
            .await
            .expect("answered");
        assert_eq!(response.status(), status, "{body}");
    }

    assert_eq!(client.delete().await, 204);
    let gone = client.send(&call(9, "echo", "")).await;
    assert_eq!(gone.status(), 404);
    assert_eq!(
        timeout(Duration::from_secs(5), listener.next())
            .await
            .expect("ended"),
        None
    );
    serves_who_has_no_session(gateway).await;
}

/// Clients that send one request, and the REST facade.
async fn serves_who_has_no_session(gateway: &TestGateway) {
    let (status, alone) = gateway.echo("/one/mcp", "alone").await;
    assert_eq!((status, text(&alone)), (200, "alone"));
    let (_, refused) = answer(gateway.post("/one/mcp", &call(1, "ask", ""))).await;
    assert!(text(&refused).contains("-32601"), "{refused}");
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = gateway.http.request(method, gateway.url("/one/mcp"));
        let request = request
            .header("x-litellm-api-key", KEY)
            .send()
            .await
            .expect("answered");
        assert_eq!(request.status(), 400);
    }
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(
        gateway
            .post("/one/mcp", &note)
            .send()
            .await
            .expect("answered")
            .status(),
        400
    );
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;

    // The REST facade opens a session of its own.
    let tools = gateway
        .http
        .get(gateway.url("/mcp-rest/tools/list"))
        .header("x-litellm-api-key", KEY);
    let tools: Value = tools.send().await.expect("answered").json().await.expect("JSON");
    assert_eq!(tools["tools"][0]["name"], "echo", "{tools}");
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;
}

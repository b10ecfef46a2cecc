//! What a small MCP server says to what it hears, without a transport: for servers that speak over a pipe of messages.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Something that the server does.
#[derive(Debug, Clone, PartialEq)]
pub enum Say {
    /// It sends this message.
    Message(Value),
    /// It goes away.
    End,
}

/// One session of the server. Its tools: `echo`; `progress`, which tells its progress twice; `ask`, which asks for the
/// client's roots and gives back what the client said; `log`, which logs before it answers; `later`, which announces new
/// tools after it has answered; `hang`, which never answers; `drop`, which goes away instead.
#[derive(Debug, Default)]
pub struct Conversation {
    asked: HashMap<String, Value>,
    count: u32,
}

impl Conversation {
    /// What the server does when it hears `message`.
    pub fn hear(&mut self, message: &Value) -> Vec<Say> {
        let id = &message["id"];
        let Some(method) = message["method"].as_str() else {
            let waiting = id.as_str().and_then(|id| self.asked.remove(id));
            let text = message.get("result").or(message.get("error"));
            return waiting
                .map(|call| result(&call, &text.cloned().unwrap_or_default().to_string()))
                .into_iter()
                .collect();
        };
        if id.is_null() {
            return Vec::new();
        }
        let params = &message["params"];
        let answer = |result: Value| Say::Message(json!({"jsonrpc": "2.0", "id": id, "result": result}));
        match method {
            "initialize" => vec![answer(json!({
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "testkit", "version": "0"},
            }))],
            "ping" => vec![answer(json!({}))],
            "tools/list" => {
                let tool = json!({"name": "echo", "inputSchema": {"type": "object"}});
                vec![answer(json!({"tools": [tool]}))]
            }
            "tools/call" => self.call(id, params),
            _ => {
                let error = json!({"code": -32601, "message": format!("Unknown method: {method}")});
                vec![Say::Message(json!({"jsonrpc": "2.0", "id": id, "error": error}))]
            }
        }
    }

    fn call(&mut self, id: &Value, params: &Value) -> Vec<Say> {
        let text = params["arguments"]["message"].as_str().unwrap_or_default();
        let done = result(id, text);
        let note = |method: &str, params: Value| {
            Say::Message(json!({"jsonrpc": "2.0", "method": method, "params": params}))
        };
        match params["name"].as_str().unwrap_or_default() {
            "echo" => vec![done],
            "progress" => {
                let token = &params["_meta"]["progressToken"];
                let progress = |step: u32| {
                    note(
                        "notifications/progress",
                        json!({"progressToken": token, "progress": step, "total": 2}),
                    )
                };
                vec![progress(1), progress(2), done]
            }
            "ask" => {
                self.count += 1;
                let own = format!("server-{}", self.count);
                self.asked.insert(own.clone(), id.clone());
                vec![Say::Message(
                    json!({"jsonrpc": "2.0", "id": own, "method": "roots/list"}),
                )]
            }
            "log" => vec![
                note("notifications/message", json!({"level": "info", "data": text})),
                done,
            ],
            "later" => vec![done, note("notifications/tools/list_changed", json!({}))],
            "hang" => Vec::new(),
            "drop" => vec![Say::End],
            other => {
                let error = json!({"code": -32602, "message": format!("Unknown tool: {other}")});
                vec![Say::Message(json!({"jsonrpc": "2.0", "id": id, "error": error}))]
            }
        }
    }
}

/// The answer of a tool.
pub fn result(id: &Value, text: &str) -> Say {
    let content = json!([{"type": "text", "text": text}]);
    Say::Message(json!({"jsonrpc": "2.0", "id": id, "result": {"content": content, "isError": false}}))
}

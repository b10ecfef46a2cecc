//! `vestibule demo`: everything in one process, two calls to see it work, then whatever you paste.

use super::serve::{serve, start};
use super::{fail, say};
use crate::config;
use crate::live::Source;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use vestibule_mock::{Event, Mock};

/// The demo's gateway key.
const KEY: &str = "sk-1234";
/// How many ports after the asked one are tried.
const TRIES: u16 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The gateway's port on 127.0.0.1; one of the next is taken when it is in use.
    #[arg(long, short, default_value_t = 4000)]
    port: u16,
}

pub(super) fn run(arguments: &Arguments, environment: &HashMap<String, String>) -> ExitCode {
    // The mock prints from here; the gateway's threads are its own.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        match prepare(arguments, environment).await {
            Ok((gateway, listener, base)) => {
                // The walk runs beside the server it talks to.
                tokio::spawn(async move {
                    if let Err(error) = walk(&base).await {
                        fail(&format!("the demo's own calls failed: {error}"));
                    }
                });
                serve(gateway, listener).await
            }
            Err(line) => fail(&line),
        }
    })
}

async fn prepare(
    arguments: &Arguments,
    environment: &HashMap<String, String>,
) -> Result<(crate::http::Gateway, TcpListener, String), String> {
    let mock = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(|error| format!("no port: {error}"))?;
    let upstream = address_of(&mock)?;
    let observer = Arc::new(|event| say(&told(&event)));
    tokio::spawn(Mock::new().observer(observer).serve(mock, std::future::pending()));

    let listener = first_free(arguments.port)
        .await
        .map_err(|error| format!("no port: {error}"))?;
    let base = address_of(&listener)?;
    let text = format!(
        "general_settings:\n  master_key: {KEY}\n{}",
        vestibule_mock::config_yaml(&upstream)
    );
    let loaded = config::load(&text, environment);
    let mut settings = loaded
        .settings
        .ok_or_else(|| format!("the demo's configuration is wrong: {:?}", loaded.findings))?;
    settings.database_url = Some("sqlite::memory:".into());
    let source = Source {
        path: None,
        text,
        // What this machine has for a real gateway is none of the demo's.
        environment: HashMap::new(),
    };
    let gateway = start(settings, source, true, None).await?;
    if arguments.port != 0 && !base.ends_with(&format!(":{}", arguments.port)) {
        say(&format!(
            "Port {} is taken; the gateway is at {base}.",
            arguments.port
        ));
    }
    say(&format!(
        "Authorization server and MCP server: {upstream} (it takes only its own tokens)"
    ));
    say(&format!(
        "Gateway:                             {base} (it takes the key {KEY})\n"
    ));
    Ok((gateway, listener, base))
}

fn address_of(listener: &TcpListener) -> Result<String, String> {
    listener
        .local_addr()
        .map(|address| format!("http://{address}"))
        .map_err(|error| error.to_string())
}

async fn first_free(port: u16) -> io::Result<TcpListener> {
    for port in port..=port.saturating_add(TRIES) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Two calls through the gateway with nothing but its key.
async fn walk(base: &str) -> Result<(), reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let rpc = |id: u32, method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        client
            .post(format!("{base}/test_oauth2/mcp"))
            .header("x-litellm-api-key", format!("Bearer {KEY}"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&body)
            .send()
    };
    say("1. tools/list with the gateway key alone");
    let list: Value = rpc(1, "tools/list", json!({})).await?.json().await?;
    let tools = list["result"]["tools"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    say(&format!("   client                tools: {}\n", names.join(", ")));
    say("2. tools/call echo: the token is in hand, so there is one hop");
    let call = rpc(
        2,
        "tools/call",
        json!({"name": "echo", "arguments": {"message": "hello"}}),
    )
    .await?;
    let call: Value = call.json().await?;
    say(&format!(
        "   client                echo: {}\n",
        call["result"]["content"][0]["text"].as_str().unwrap_or_default()
    ));
    say("Paste these:\n");
    say(&format!(
        "  curl {base}/mcp-rest/tools/list -H \"Authorization: Bearer {KEY}\"\n"
    ));
    say(&format!(
        "  curl {base}/mcp-rest/tools/call -H \"Content-Type: application/json\" \\\n    \
         -H \"Authorization: Bearer {KEY}\" -d '{{\"name\": \"echo\", \"arguments\": {{\"message\": \"hello\"}}}}'\n"
    ));
    say(&format!(
        "  curl -i {base}/test_oauth2/mcp -H \"x-litellm-api-key: Bearer {KEY}\" -H \"x-litellm-mcp-debug: true\" \\\n    \
         -H \"Content-Type: application/json\" -H \"Accept: application/json, text/event-stream\" \\\n    \
         -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{{}}}}'\n"
    ));
    say(&format!(
        "  claude mcp add --transport http demo {base}/test_oauth2/mcp --header \"x-litellm-api-key: Bearer {KEY}\"\n"
    ));
    say("Serving until Ctrl-C.");
    Ok(())
}

/// One hop as a line. The names in events are the caller's words.
fn told(event: &Event) -> String {
    match event {
        Event::TokenIssued { client_id, .. } => {
            format!(
                "   authorization server  token issued to {} (fetched, now cached)",
                printable(client_id)
            )
        }
        Event::TokenRefused { error } => format!("   authorization server  refused: {error}"),
        Event::McpRequest {
            method,
            tool: Some(tool),
        } => {
            format!(
                "   mcp server            {} {} with the cached token",
                printable(method),
                printable(tool)
            )
        }
        Event::McpRequest { method, tool: None } => {
            format!(
                "   mcp server            {} with the gateway's token",
                printable(method)
            )
        }
        Event::McpRefused => "   mcp server            refused: no token of ours".into(),
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

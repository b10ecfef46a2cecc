//! The Rust SDK's client, which is not ours, through the gateway with a machine token: both eras.

use crate::harness::{KEY, TestGateway, machine};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::ServiceError;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::json;
use tokio::net::TcpListener;
use vestibule_mock::{DEFAULT_CLIENT_ID, Mock};

/// A gateway before the small MCP server with the tools add and echo.
async fn gateway(more: &str) -> TestGateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let mock = Mock::new().client(DEFAULT_CLIENT_ID, crate::harness::CLIENT_SECRET);
    tokio::spawn(mock.serve(listener, std::future::pending()));
    let servers = machine(
        "one",
        &format!("{base}/mcp"),
        &format!("{base}/oauth/token"),
        more,
    );
    let servers = servers.replace("canary-id", DEFAULT_CLIENT_ID);
    TestGateway::with_servers(&servers).await
}

/// Both eras.
fn lifecycles() -> [ClientLifecycleMode; 2] {
    let modern = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    };
    [ClientLifecycleMode::Initialize, modern]
}

fn transport(gateway: &TestGateway) -> StreamableHttpClientTransport<reqwest::Client> {
    let config = StreamableHttpClientTransportConfig::with_uri(gateway.url("/one/mcp")).auth_header(KEY);
    StreamableHttpClientTransport::from_config(config)
}

fn add() -> CallToolRequestParams {
    let arguments = json!({"a": 1, "b": 2}).as_object().expect("an object").clone();
    CallToolRequestParams::new("add").with_arguments(arguments)
}

#[tokio::test]
async fn rmcp_lists_and_calls_through_the_gateway() {
    let gateway = gateway("").await;
    for lifecycle in lifecycles() {
        let client = ().serve_with_lifecycle(transport(&gateway), lifecycle).await;
        let client = client.expect("a handshake");
        assert_eq!(client.list_all_tools().await.expect("a list").len(), 2);
        let result = client.call_tool(add()).await;
        assert_eq!(
            result.expect("a result").structured_content,
            Some(json!({"sum": 3}))
        );
        client.cancel().await.expect("an end");
    }
}

#[tokio::test]
async fn to_rmcp_a_hidden_tool_is_an_error_and_the_session_goes_on() {
    let hidden = gateway("disallowed_tools: [add]").await;
    let limited = gateway("allowed_params: {add: [a]}").await;
    for (gateway, tools, code) in [(&hidden, 1, 40330), (&limited, 2, 40331)] {
        for lifecycle in lifecycles() {
            let client = ().serve_with_lifecycle(transport(gateway), lifecycle).await;
            let client = client.expect("a handshake");
            for _ in 0..2 {
                assert_eq!(client.list_all_tools().await.expect("a list").len(), tools);
                match client.call_tool(add()).await {
                    Err(ServiceError::McpError(error)) => assert_eq!(error.code.0, code),
                    other => panic!("{other:?}"),
                }
            }
            client.cancel().await.expect("an end");
        }
    }
}

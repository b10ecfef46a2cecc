//! The Rust SDK's client, which is not ours, through the gateway with a machine token: both eras.

use crate::harness::{KEY, TestGateway, machine};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::json;
use tokio::net::TcpListener;
use vestibule_mock::{DEFAULT_CLIENT_ID, Mock};

#[tokio::test]
async fn rmcp_lists_and_calls_through_the_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let mock = Mock::new().client(DEFAULT_CLIENT_ID, crate::harness::CLIENT_SECRET);
    tokio::spawn(mock.serve(listener, std::future::pending()));
    let servers = machine("one", &format!("{base}/mcp"), &format!("{base}/oauth/token"), "");
    let servers = servers.replace("canary-id", DEFAULT_CLIENT_ID);
    let gateway = TestGateway::with_servers(&servers).await;
    for lifecycle in [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
    ] {
        let config = StreamableHttpClientTransportConfig::with_uri(gateway.url("/one/mcp")).auth_header(KEY);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("a handshake");
        assert_eq!(client.list_all_tools().await.expect("a list").len(), 2);
        let arguments = json!({"a": 1, "b": 2}).as_object().expect("an object").clone();
        let result = client
            .call_tool(CallToolRequestParams::new("add").with_arguments(arguments))
            .await;
        assert_eq!(
            result.expect("a result").structured_content,
            Some(json!({"sum": 3}))
        );
        client.cancel().await.expect("an end");
    }
}

//! `/metrics`: who may read it, and that what is answered is counted.

use crate::by_hand::gateway_and_server;
use crate::harness::{KEY, Start, got};

#[tokio::test]
async fn only_who_has_a_key_reads_the_names_of_the_servers() {
    let (gateway, _server) = gateway_and_server().await;
    let page = |key: Option<&str>| {
        let page = gateway.http.get(gateway.url("/metrics"));
        got(key.into_iter().fold(page, reqwest::RequestBuilder::bearer_auth))
    };
    for (key, code) in [(None, "missing_key"), (Some("sk-another"), "wrong_key")] {
        let refused = page(key).await;
        assert_eq!((refused.status, refused.code()), (401, code));
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
        assert!(!refused.body.to_string().contains("server="), "{}", refused.body);
    }
    let page = page(Some(KEY)).await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(page.body.as_str().expect("text").contains("server=\"one\""));
    for path in ["/health/liveliness", "/health/readiness"] {
        assert_eq!(got(gateway.http.get(gateway.url(path))).await.status, 200);
    }

    let open = Start::new("mcp_servers: {}\n").start().await;
    assert_eq!(got(open.http.get(open.url("/metrics"))).await.status, 200);
}

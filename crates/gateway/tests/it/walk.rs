//! The main job, end to end: a key comes in, a token goes out, the answer comes back.

use crate::harness::{CLIENT_SECRET, KEY, TestGateway, assert_nothing_secret_logged, machine};
use vestibule_testkit::{Idp, Upstream};

#[tokio::test]
async fn a_gateway_key_becomes_a_machine_token() {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    upstream.accept_if(idp.issued());
    let gateway = TestGateway::with_servers(&machine(
        "one",
        &upstream.url(),
        &idp.url(),
        "scopes: [mcp:read, mcp:write]",
    ))
    .await;

    for path in ["/one/mcp", "/one/mcp/", "/mcp/one", "/mcp/one/"] {
        let (status, body) = gateway.echo(path, "hello").await;
        assert_eq!(
            (status, &body["result"]["content"][0]["text"]),
            (200, &"hello".into()),
            "{path}: {body}"
        );
    }

    let asked = idp.requests();
    assert_eq!(asked.len(), 1, "one token for every call");
    assert_eq!(
        asked[0].form_value("grant_type").as_deref(),
        Some("client_credentials")
    );
    assert_eq!(
        asked[0].form_value("scope").as_deref(),
        Some("mcp:read mcp:write")
    );
    assert_eq!(
        asked[0].form_value("client_secret").as_deref(),
        Some(CLIENT_SECRET)
    );
    for request in upstream.requests() {
        assert_eq!(request.bearer(), Some(idp.last_token().as_str()));
    }
    assert_eq!(upstream.requests().len(), 4, "one round trip a call");
    for canary in [KEY, CLIENT_SECRET] {
        upstream.assert_never_seen(canary);
    }
    idp.assert_never_seen(KEY);
    assert_nothing_secret_logged(&[&idp.last_token()]);
}

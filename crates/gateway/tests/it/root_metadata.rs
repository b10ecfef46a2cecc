//! The well-known documents without a path: whom they are about where several servers could be meant.

use crate::delegation::{DELEGATED, strict};
use crate::harness::{TestGateway, entry, got};
use vestibule_testkit::{Issuer, SigningKey};

const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn the_root_is_about_the_only_server_with_metadata_of_any_kind() {
    let server = strict().await;
    let issuer = Issuer::start(SigningKey::ec("k1", "P-256")).await;
    let sign_in = |name: &str| {
        let fields =
            "url: http://127.0.0.1:1/mcp\nauth_type: oauth2\nauthorization_url: http://127.0.0.1:1/a";
        entry(
            name,
            &format!("{fields}\ntoken_url: http://127.0.0.1:1/t\nclient_id: id"),
        )
    };
    let exchange = format!(
        "url: http://127.0.0.1:1/mcp\nauth_type: oauth2_token_exchange\nclient_id: id\nclient_secret: secret\n\
         token_exchange_endpoint: http://127.0.0.1:1/t\nsubject_token_issuer: {}\nsubject_token_audience: gateway",
        issuer.issuer()
    );
    let exchange = entry("exchange", &exchange);
    let passed = server.entry("passed", DELEGATED);
    let keyed_passed = server.entry(
        "flagged",
        "oauth_passthrough: true\nextra_headers: [Authorization]",
    );
    let bare = entry("bare", "url: http://127.0.0.1:1/mcp");
    let sign_in_alone = sign_in("sign_in");
    let cases: [(&[&str], Option<&str>); 10] = [
        (&[&sign_in_alone], Some("sign_in")),
        (&[&sign_in_alone, &bare], Some("sign_in")),
        (&[&passed, &bare], Some("passed")),
        (&[&exchange, &bare], Some("exchange")),
        (&[&sign_in_alone, &sign_in("other")], None),
        (&[&sign_in_alone, &passed], None),
        (&[&sign_in_alone, &exchange], None),
        (&[&exchange, &passed], None),
        (&[&keyed_passed, &exchange], None),
        (&[&bare], None),
    ];
    for (servers, expected) in cases {
        let gateway = TestGateway::with_servers(&servers.concat()).await;
        let about = got(gateway.http.get(gateway.url(RESOURCE))).await;
        match expected {
            Some(name) => {
                assert_eq!(about.status, 200, "{servers:?} {about:?}");
                assert_eq!(about.body["resource"], gateway.url(&format!("/{name}/mcp")));
            }
            None => assert_eq!((about.status, about.code()), (404, "no_sign_in"), "{servers:?}"),
        }
        // We are an authorization server for the first kind alone, and at the root under the same rule.
        let ours = got(gateway.http.get(gateway.url(AUTHORIZATION_SERVER))).await;
        let is_ours = expected == Some("sign_in");
        assert_eq!(ours.status, if is_ours { 200 } else { 404 }, "{servers:?}");
        if servers.contains(&&*sign_in_alone) {
            // By name nothing changes.
            for document in [
                format!("{RESOURCE}/sign_in/mcp"),
                format!("{AUTHORIZATION_SERVER}/sign_in"),
            ] {
                let named = got(gateway.http.get(gateway.url(&document))).await;
                assert_eq!(named.status, 200, "{servers:?} {document}");
            }
        }
    }
}

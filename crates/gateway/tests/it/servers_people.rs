//! Who is connected to a server, as an admin sees and ends it, and what becomes of it when the server changes.

use crate::browser::{Browser, Registered};
use crate::harness::{Got, KEY, Start, TestGateway, got, personal};
use crate::servers_harness::{SERVERS, Site, add, ask, ask_as, change, until};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Provider, Upstream};

const ME: &str = "default_user_id";

async fn sign_in(gateway: &TestGateway, path: &str) {
    let client = Registered::at(gateway, path).await;
    let code = client.code(gateway, &Browser::new()).await;
    let request = client.exchange(gateway, &code, &[]);
    assert_eq!(got(request.header("x-litellm-api-key", KEY)).await.status, 200);
}

fn interactive(name: &str, upstream: &Upstream) -> Value {
    // As LiteLLM's form sends an interactive server whose endpoints are found.
    json!({"server_name": name, "alias": name, "url": upstream.url(), "transport": "http", "auth_type": "oauth2",
        "credentials": {}, "authorization_url": null, "token_url": null, "registration_url": null,
        "server_id": format!("id-{name}")})
}

async fn connected(gateway: &TestGateway, name: &str) -> Got {
    ask(
        gateway,
        Method::GET,
        &format!("{SERVERS}/id-{name}/user-credentials"),
        None,
    )
    .await
}

#[tokio::test]
async fn an_admin_sees_who_is_connected_and_ends_it() {
    let site = Site::new();
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = site.gateway(personal("", "")).start().await;
    let added = add(&gateway, &interactive("one", &upstream)).await;
    assert_eq!(added["oauth2_flow"], "authorization_code");
    assert_eq!(connected(&gateway, "one").await.body, json!([]));
    sign_in(&gateway, "/one").await;
    let seen = connected(&gateway, "one").await;
    assert_eq!(
        (
            &seen.body[0]["user_id"],
            &seen.body[0]["connected_at"],
            &seen.body[0]["is_expired"]
        ),
        (&json!(ME), &json!("2001-09-09T01:46:40Z"), &json!(false))
    );
    let text = seen.body.to_string();
    assert!(
        provider.tokens().iter().all(|token| !text.contains(token)),
        "{text}"
    );

    let member = site
        .key(&gateway, ("ada", "member"), &json!({"mcp_servers": ["one"]}))
        .await;
    let list = format!("{SERVERS}/id-one/user-credentials");
    let end = |user: &str| format!("{SERVERS}/id-one/oauth-user-credential?user_id={user}");
    for (method, path) in [(Method::GET, list), (Method::DELETE, end(ME))] {
        let refused = ask_as(&gateway, &member, method, &path, None).await;
        assert_eq!((refused.status, refused.code()), (403, "admin_required"));
    }
    let own = ask_as(&gateway, &member, Method::DELETE, &end("ada"), None).await;
    assert_eq!((own.status, own.code()), (404, "no_credential"));
    assert_eq!(provider.requests_to("/revoke").len(), 0);
    let nobody = ask(&gateway, Method::DELETE, &end("nobody"), None).await;
    assert_eq!((nobody.status, nobody.code()), (404, "no_credential"));
    let ended = ask(&gateway, Method::DELETE, &end(ME), None).await;
    assert_eq!(
        (ended.status, &ended.body["has_credential"]),
        (200, &json!(false))
    );
    assert_eq!(provider.requests_to("/revoke").len(), 1);
    assert_eq!(connected(&gateway, "one").await.body, json!([]));
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 401);
    let unknown = connected(&gateway, "nobody").await;
    assert_eq!((unknown.status, unknown.code()), (404, "server_not_found"));
}

#[tokio::test]
async fn with_a_server_go_the_sign_ins_at_it() {
    let provider = Provider::start().await;
    let (upstream, elsewhere) = (provider.upstream().await, provider.upstream().await);
    let gateway = Start::new(personal("", "")).start().await;
    add(&gateway, &interactive("one", &upstream)).await;
    sign_in(&gateway, "/one").await;
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    // Another name, and they stay.
    change(
        &gateway,
        &json!({"server_id": "id-one", "server_name": "uno", "alias": null}),
    )
    .await;
    assert_eq!(gateway.echo("/uno/mcp", "a").await.0, 200);
    // Another origin: nobody's token is shown there.
    change(&gateway, &json!({"server_id": "id-one", "url": elsewhere.url()})).await;
    assert_eq!(gateway.echo("/uno/mcp", "a").await.0, 401);
    assert_eq!(connected(&gateway, "one").await.body, json!([]));
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|request| request.bearer().is_none())
    );
    until("revoked", || async { provider.requests_to("/revoke").len() == 1 }).await;

    sign_in(&gateway, "/uno").await;
    assert_eq!(gateway.echo("/uno/mcp", "a").await.0, 200);
    let path = format!("{SERVERS}/id-one");
    assert_eq!(ask(&gateway, Method::DELETE, &path, None).await.status, 202);
    until("revoked too", || async {
        provider.requests_to("/revoke").len() == 2
    })
    .await;
    // The same server anew begins with nobody.
    add(&gateway, &interactive("one", &elsewhere)).await;
    assert_eq!(connected(&gateway, "one").await.body, json!([]));
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 401);
}

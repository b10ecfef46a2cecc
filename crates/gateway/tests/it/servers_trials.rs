//! Servers that are tried before they are saved: what an admin can do with one, and that nobody else sees it.

use crate::browser::{Browser, Registered, parameter};
use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed, personal};
use crate::servers_harness::{SERVERS, Site, add, ask, ask_as, fixed, problems};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Idp, Provider, Upstream, free_addr};

const SESSION: &str = "/v1/mcp/server/oauth/session";
const CONNECTION: &str = "/mcp-rest/test/connection";
const TOOLS: &str = "/mcp-rest/test/tools/list";
const SECRET: &str = "canary-trial-0123456789";

async fn begin(gateway: &TestGateway, body: &Value) -> Value {
    let begun = ask(gateway, Method::POST, SESSION, Some(body)).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    begun.body
}

/// A client of the gateway's own page, at a server by its id.
async fn page(gateway: &TestGateway, id: &str) -> Registered {
    let path = format!("/v1/mcp/server/oauth/{id}");
    let redirect_uri = gateway.url("/ui/mcp/oauth/callback");
    let body = crate::browser::metadata(&[&redirect_uri]);
    let registered = ask(gateway, Method::POST, &format!("{path}/register"), Some(&body)).await;
    assert_eq!(registered.status, 201, "{}", registered.body);
    Registered {
        path,
        id: registered.body["client_id"].as_str().expect("an id").to_owned(),
        secret: None,
        redirect_uri,
    }
}

#[tokio::test]
async fn somebody_signs_in_at_a_server_that_is_not_saved_yet() {
    let site = Site::new();
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = site.gateway(personal("", "")).start().await;
    // As LiteLLM's form sends it.
    let form = json!({"server_name": "hub", "alias": "hub", "url": upstream.url(), "transport": "http",
        "auth_type": "oauth2", "credentials": {}, "mcp_access_groups": ["team"], "allow_all_keys": true});
    let tried = begin(&gateway, &form).await;
    let id = tried["server_id"].as_str().expect("an id");
    assert_eq!(
        (id.len(), &tried["credentials"], &tried["expires_at"]),
        (32, &Value::Null, &json!("2001-09-09T01:51:40Z"))
    );
    let client = page(&gateway, id).await;
    let browser = Browser::with_key(KEY);
    let back = client.sign_in(&gateway, &browser).await;
    let code = parameter(back.header("location"), "code").expect("a code");
    let tokens = got(client
        .exchange(&gateway, &code, &[])
        .header("x-litellm-api-key", KEY))
    .await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    let token = tokens.body["access_token"].as_str().expect("a token");
    // The form previews the tools with the token that it got.
    let request = gateway
        .http
        .post(gateway.url(TOOLS))
        .header("x-litellm-api-key", KEY)
        .header("authorization", format!("Bearer {token}"))
        .json(&form);
    let tools = got(request).await;
    assert_eq!(
        (tools.status, &tools.body["tools"][0]["name"]),
        (200, &json!("echo")),
        "{tools:?}"
    );

    // Nobody else sees it, on no list and under no name.
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    let name = tried["server_name"].as_str().expect("a name");
    for path in [
        format!("{SERVERS}/{id}"),
        format!("/{id}/mcp"),
        format!("/{name}/mcp"),
        "/team/mcp".into(),
    ] {
        for key in [KEY, &member] {
            assert_eq!(
                ask_as(&gateway, key, Method::GET, &path, None).await.status,
                404,
                "{path}"
            );
        }
    }
    for path in [
        SERVERS,
        "/v1/mcp/server/health",
        "/v1/mcp/access_groups",
        "/mcp-rest/tools/list",
        "/v1/mcp/tools",
    ] {
        let seen = ask(&gateway, Method::GET, path, None).await.body.to_string();
        assert!(
            !seen.contains(id) && !seen.contains("hub") && !seen.contains("team"),
            "{path}: {seen}"
        );
    }
    let endpoint =
        format!("/v1/mcp/server/oauth/{id}/authorize?client_id=x&redirect_uri=http://localhost/cb");
    let nobody = got(gateway.http.get(gateway.url(&endpoint))).await;
    assert_eq!((nobody.status, nobody.code()), (401, "missing_key"));
    let other = ask_as(&gateway, &member, Method::GET, &endpoint, None).await;
    assert_eq!((other.status, other.code()), (403, "admin_required"));

    gateway.advance(300);
    assert_eq!(ask(&gateway, Method::GET, &endpoint, None).await.status, 404);
    let store = site.store().await;
    let gone = async { while !store.servers().await.expect("answers").is_empty() {} };
    tokio::time::timeout(vestibule_testkit::DEADLINE, gone)
        .await
        .expect("the row goes by itself");
    provider.assert_never_seen(KEY);
}

#[tokio::test]
async fn who_tries_a_server_takes_no_name_and_manages_the_gateway() {
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let upstream = Upstream::start().await;
    let one = add(&gateway, &fixed("one", &upstream, SECRET)).await;
    begin(&gateway, &fixed("one", &upstream, SECRET)).await;
    begin(&gateway, &fixed("two", &upstream, SECRET)).await;
    add(&gateway, &fixed("two", &upstream, SECRET)).await;
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    for path in [SESSION, CONNECTION, TOOLS] {
        let body = fixed("three", &upstream, SECRET);
        let refused = ask_as(&gateway, &member, Method::POST, path, Some(&body)).await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "admin_required"),
            "{path}"
        );
        let wrong = ask(
            &gateway,
            Method::POST,
            path,
            Some(&json!({"server_name": "x", "urll": 1})),
        )
        .await;
        assert_eq!(problems(&wrong), ["urll: unknown field; did you mean url?"]);
    }
    // Real servers by id are for whoever may use them.
    let id = one["server_id"].as_str().expect("an id");
    for method in [Method::GET, Method::DELETE] {
        let path = format!("{SERVERS}/{id}");
        let refused = ask_as(&gateway, &member, method, &path, None).await;
        assert_eq!(refused.status, 403);
    }
}

#[tokio::test]
async fn a_preview_says_what_failed_and_shows_kept_secrets_to_no_other_origin() {
    let gateway = Start::new(keyed("")).start().await;
    let (here, there) = (Upstream::start().await, Upstream::start().await);
    here.accept(SECRET);
    let added = add(&gateway, &fixed("one", &here, SECRET)).await;
    let id = &added["server_id"];
    let test = |path: &'static str, body: Value| {
        let gateway = &gateway;
        async move { ask(gateway, Method::POST, path, Some(&body)).await }
    };
    // Unsaved, with a secret of its own.
    let ok = test(CONNECTION, fixed("new", &here, SECRET)).await;
    assert_eq!(
        (ok.status, &ok.body["status"]),
        (200, &json!("ok")),
        "{}",
        ok.body
    );
    let wrong = test(CONNECTION, fixed("new", &here, "canary-wrong")).await;
    assert_eq!(
        (
            wrong.status,
            &wrong.body["status"],
            &wrong.body["error"],
            &wrong.body["code"]
        ),
        (
            200,
            &json!("error"),
            &json!(true),
            &json!("upstream_refused_credential")
        )
    );
    let down = json!({"server_name": "new", "url": format!("http://{}/mcp", free_addr())});
    assert_eq!(test(CONNECTION, down.clone()).await.body["step"], "connect");
    let tools = test(TOOLS, down).await;
    assert_eq!(
        (tools.status, &tools.body["tools"], &tools.body["error"]),
        (200, &json!([]), &json!("upstream_unreachable"))
    );
    // Saved, with what is kept, at the same origin.
    let kept = test(TOOLS, json!({"server_id": id, "description": "new"})).await;
    assert_eq!(kept.body["tools"][0]["name"], "echo", "{}", kept.body);
    let elsewhere = test(CONNECTION, json!({"server_id": id, "url": there.url()})).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (400, "invalid_server"));
    assert!(there.requests().is_empty());
    // A machine's.
    let idp = Idp::start().await;
    here.accept_if(idp.issued());
    let machine = json!({"server_name": "m", "url": here.url(), "auth_type": "oauth2", "token_url": idp.url(),
        "credentials": {"client_id": "id", "client_secret": SECRET}});
    let tools = test(TOOLS, machine).await;
    assert_eq!(tools.body["tools"][0]["name"], "echo", "{}", tools.body);
    let list = ask(&gateway, Method::GET, SERVERS, None).await;
    assert_eq!(list.body.as_array().map(Vec::len), Some(1), "nothing was written");
    assert_nothing_secret_logged(&[SECRET, "canary-wrong"]);
}

#[tokio::test]
async fn the_way_by_id_asks_for_a_key_that_is_for_the_server() {
    let site = Site::new();
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let fields = format!(
        "url: {}\nserver_id: s1\nauth_type: oauth2\noauth2_flow: authorization_code",
        upstream.url()
    );
    let gateway = site.gateway(personal(&entry("one", &fields), "")).start().await;
    let stranger = site.key(&gateway, ("ada", "member"), &json!({})).await;
    let guest = site
        .key(&gateway, ("bob", "member"), &json!({"mcp_servers": ["one"]}))
        .await;
    for (name, status) in [("s1", 403), ("nobody", 404)] {
        for (method, end) in [
            (Method::GET, "authorize"),
            (Method::POST, "token"),
            (Method::POST, "register"),
        ] {
            let path = format!("/v1/mcp/server/oauth/{name}/{end}");
            let without = got(gateway.http.request(method.clone(), gateway.url(&path))).await;
            assert_eq!((without.status, without.code()), (401, "missing_key"), "{path}");
            let refused = ask_as(&gateway, &stranger, method.clone(), &path, None).await;
            assert_eq!(refused.status, status, "{path}");
            let answered = ask_as(&gateway, &guest, method, &path, None).await;
            assert!(
                name == "nobody" || answered.body["error"].is_string() || answered.status == 400,
                "{path}: {}",
                answered.body
            );
        }
    }
    // Clients' own way asks for none.
    assert!(Registered::at(&gateway, "/one").await.id.len() > 10);
}

//! What there is, as groups, tools, an address and the registry document; and what is not there, by name.

use crate::harness::{KEY, Start, entry, got, keyed};
use crate::servers_harness::{SERVERS, Site, add, ask, ask_as, fixed};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Upstream, free_addr};

#[tokio::test]
async fn groups_and_tools_are_those_of_the_servers_that_one_may_use() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    upstream.set_tools(&["echo", "add"]);
    let (url, down) = (upstream.url(), free_addr());
    let servers = [
        entry(
            "open",
            &format!("url: {url}\nalias: op\nallow_all_keys: true\naccess_groups: [zeta, alpha]"),
        ),
        entry("shut", &format!("url: {url}\naccess_groups: [secret]")),
        entry("down", &format!("url: http://{down}/mcp")),
    ];
    let gateway = site.gateway(keyed(&servers.concat())).start().await;
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    let groups = ask(&gateway, Method::GET, "/v1/mcp/access_groups", None).await;
    assert_eq!(groups.body, json!({"access_groups": ["alpha", "secret", "zeta"]}));
    let groups = ask_as(&gateway, &member, Method::GET, "/v1/mcp/access_groups", None).await;
    assert_eq!(groups.body, json!({"access_groups": ["alpha", "zeta"]}));
    let names = |body: &Value| {
        let tools = body["tools"].as_array().expect("tools").iter();
        tools
            .map(|tool| tool["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    let all = ask(&gateway, Method::GET, "/v1/mcp/tools", None).await;
    assert_eq!(names(&all.body), ["op-echo", "op-add", "shut-echo", "shut-add"]);
    assert_eq!(
        all.body["server_outcomes"]["down"]["status"],
        "upstream_unreachable"
    );
    let refused = ask(&gateway, Method::GET, "/v1/mcp/tools?colour=red", None).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_field"));
    let id = refused.header("x-request-id").to_owned();
    let row = gateway.row(&format!("request_id={id}")).await;
    assert_eq!(row["key_alias"], "master key", "{row:#}");
    let own = ask_as(&gateway, &member, Method::GET, "/v1/mcp/tools", None).await;
    assert_eq!(names(&own.body), ["op-echo", "op-add"]);
    let address = ask(&gateway, Method::GET, "/v1/mcp/network/client-ip", None).await;
    assert_eq!(address.body, json!({"ip": "127.0.0.1"}));
    for path in [
        "/v1/mcp/access_groups",
        "/v1/mcp/tools",
        "/v1/mcp/network/client-ip",
        SERVERS,
    ] {
        assert_eq!(
            got(gateway.http.get(gateway.url(path))).await.status,
            401,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_registry_document_is_there_where_the_operator_says_so() {
    let url = Upstream::start().await.url();
    let servers = [
        entry("zebra", &format!("url: {url}\ndescription: stripes")),
        entry("long_name", &format!("url: {url}\nalias: ant")),
        entry(
            "inner",
            &format!("url: {url}\navailable_on_public_internet: false"),
        ),
    ];
    let text = |more: &str| {
        format!(
            "general_settings:\n  master_key: {KEY}\n{more}  mcp_internal_ip_ranges: [10.0.0.0/8]\nmcp_servers:\n{}",
            servers.concat()
        )
    };
    let path = "/v1/mcp/registry.json";
    let closed = Start::new(text("")).start().await;
    let refused = got(closed.http.get(closed.url(path))).await;
    assert_eq!((refused.status, refused.code()), (404, "registry_disabled"));
    let gateway = Start::new(text("  enable_mcp_registry: true\n")).start().await;
    let refused = got(gateway.http.get(gateway.url(&format!("{path}?colour=red")))).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_field"));
    let document = got(gateway.http.get(gateway.url(path))).await;
    assert_eq!(document.status, 200);
    let listed: Vec<_> = document.body["servers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            let server = &entry["server"];
            assert_eq!(server["version"], "1.0.0");
            assert_eq!(server["remotes"][0]["type"], "streamable-http");
            let remote = server["remotes"][0]["url"].as_str().expect("a URL").to_owned();
            (server["name"].as_str().expect("a name").to_owned(), remote)
        })
        .collect();
    let expected = [
        ("vestibule", "/mcp"),
        ("ant", "/ant/mcp"),
        ("zebra", "/zebra/mcp"),
    ];
    let expected: Vec<_> = expected
        .map(|(name, path)| (name.to_owned(), gateway.url(path)))
        .into();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_query_that_nobody_reads_is_refused() {
    let gateway = Start::new(keyed("")).start().await;
    let path = format!("{SERVERS}/one");
    for (method, path) in [
        (Method::POST, SERVERS),
        (Method::PUT, SERVERS),
        (Method::POST, "/key/generate"),
        (Method::POST, "/user/new"),
        (Method::GET, "/v1/mcp/user-credentials"),
        (Method::GET, &format!("{path}/oauth-user-credential/status")),
        (Method::POST, &format!("{path}/oauth-user-credential")),
        (Method::DELETE, &format!("{path}/oauth-user-credential")),
        (Method::POST, &format!("{path}/user-credential")),
        (Method::DELETE, &format!("{path}/user-credential")),
    ] {
        let refused = ask(
            &gateway,
            method.clone(),
            &format!("{path}?colour=red"),
            Some(&json!({})),
        )
        .await;
        let said = (
            refused.status,
            refused.code(),
            refused.body.to_string().contains("colour"),
        );
        assert_eq!(said, (400, "invalid_field", true), "{method} {path} {refused:?}");
    }
    assert_eq!(
        ask(&gateway, Method::GET, "/key/list", None).await.body["total_count"],
        0
    );
}

#[tokio::test]
async fn what_is_not_supported_says_so_by_name() {
    let gateway = Start::new(keyed("")).start().await;
    for (method, path, says) in [
        (Method::POST, "/v1/mcp/toolset", "Toolsets"),
        (Method::GET, "/v1/mcp/toolset/1", "Toolsets"),
        (Method::POST, "/v1/mcp/server/register", "Submitting"),
        (Method::GET, "/v1/mcp/server/submissions", "Submitting"),
        (Method::PUT, "/v1/mcp/server/1/approve", "Submitting"),
        (Method::PUT, "/v1/mcp/server/1/reject", "Submitting"),
        (Method::GET, "/v1/mcp/discover", "catalogue"),
        (Method::GET, "/v1/mcp/openapi-registry", "OpenAPI"),
        (Method::POST, "/v1/mcp/make_public", "public_mcp_servers"),
        (Method::POST, "/v1/mcp/server/import", "Importing"),
        (Method::GET, "/v1/mcp/sessions", "Sessions"),
        (Method::POST, "/v1/mcp/server/1/pin", "Pinning"),
        (Method::GET, "/v1/mcp/server/1/user-env-vars", "Variables"),
        (Method::GET, "/v1/mcp/user-env-vars/status", "Variables"),
    ] {
        let refused = ask(&gateway, method.clone(), path, None).await;
        assert_eq!((refused.status, refused.code()), (404, "not_supported"), "{path}");
        let message = refused.body["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains(says), "{path}: {message}");
        let nobody = got(gateway.http.request(method, gateway.url(path))).await;
        assert_eq!(nobody.status, 401, "{path}");
    }
}

#[tokio::test]
async fn an_operator_can_do_without_servers_of_the_database() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    let first = site.gateway(keyed("")).start().await;
    add(&first, &fixed("one", &upstream, "canary-fixed")).await;
    drop(first);
    let text = keyed("").replace(
        "general_settings:\n",
        "general_settings:\n  store_model_in_db: false\n",
    );
    let gateway = site.gateway(text).start().await;
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 404);
    assert_eq!(ask(&gateway, Method::GET, SERVERS, None).await.body, json!([]));
    let body = fixed("two", &upstream, "canary-fixed");
    for (method, path) in [
        (Method::POST, SERVERS.to_owned()),
        (Method::PUT, SERVERS.to_owned()),
        (Method::DELETE, format!("{SERVERS}/one")),
        (Method::POST, format!("{SERVERS}/oauth/session")),
    ] {
        let mut body = body.clone();
        body["server_id"] = json!("one");
        let refused = ask(&gateway, method, &path, Some(&body)).await;
        assert_eq!((refused.status, refused.code()), (403, "servers_fixed"), "{path}");
    }
}

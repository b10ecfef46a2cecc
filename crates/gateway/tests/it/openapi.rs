//! The description of the management API, and the routes that there really are.

use crate::api_keys::{ask, get, made, post};
use crate::harness::{KEY, TestGateway, entry, got};
use crate::servers_harness::{SERVERS, add, ask_as};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::Upstream;

async fn described(gateway: &TestGateway) -> Value {
    let got = get(gateway, "/openapi.json").await;
    assert_eq!(got.status, 200);
    got.body
}

#[tokio::test]
async fn what_is_described_is_there_and_nothing_else() {
    let gateway = TestGateway::with_servers("").await;
    let document = described(&gateway).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/key/generate",
        "/key/info",
        "/key/list",
        "/key/update",
        "/key/delete",
        "/key/block",
        "/key/unblock",
        "/key/regenerate",
        "/key/{key}/regenerate",
        "/user/new",
        "/user/info",
        "/user/list",
        "/user/update",
        "/user/delete",
        "/v1/audit",
        "/v1/audit/export",
        "/v1/mcp/user-credentials",
        "/v1/mcp/server",
        "/v1/mcp/server/health",
        "/v1/mcp/server/{server_id}",
        "/v1/mcp/server/{server_id}/user-credentials",
        "/v1/mcp/server/oauth/session",
        "/v1/mcp/tools",
        "/v1/mcp/access_groups",
        "/v1/mcp/network/client-ip",
        "/v1/mcp/registry.json",
        "/mcp-rest/test/connection",
        "/mcp-rest/test/tools/list",
        "/openapi.json",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for (path, methods) in paths {
        let url = gateway.url(&path.replace("{key}", "x").replace(['{', '}'], ""));
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ] {
            let is_described = methods.get(method.as_str().to_lowercase()).is_some();
            let stranger = got(gateway.http.request(method.clone(), &url)).await;
            let is_open = methods["get"]["security"] == json!([]);
            let expected = match (is_described, is_open) {
                (true, false) => (401, "missing_key"),
                (true, true) => (404, "registry_disabled"),
                (false, _) => (405, "method_not_allowed"),
            };
            assert_eq!((stranger.status, stranger.code()), expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn any_key_may_read_it_and_strangers_may_not() {
    let gateway = TestGateway::with_servers("").await;
    let (member, _) = made(&gateway, json!({"user_id": "ada"})).await;
    assert_eq!(
        ask(&gateway, &member, Method::GET, "/openapi.json", Value::Null)
            .await
            .status,
        200
    );
    assert_eq!(
        got(gateway.http.get(gateway.url("/openapi.json"))).await.code(),
        "missing_key"
    );
    assert!(!described(&gateway).await.to_string().contains(KEY));
}

/// The schema of what an operation answers.
fn answer_of<'d>(document: &'d Value, path: &str, method: &str) -> &'d Value {
    let responses = document["paths"][path][method]["responses"].as_object();
    let mut responses = responses.expect("answers").iter();
    let (_, done) = responses.find(|(status, _)| *status != "default").expect("one");
    let schema = &done["content"]["application/json"]["schema"];
    let name = schema["$ref"]
        .as_str()
        .expect("a name")
        .rsplit('/')
        .next()
        .expect("a name");
    &document["components"]["schemas"][name]
}

/// Every member that an answer has is described, and every one that has to be there is.
fn conforms(schema: &Value, found: &Value) {
    if let Some(items) = found.as_array() {
        assert!(!items.is_empty());
        return items.iter().for_each(|one| conforms(&schema["items"], one));
    }
    let described = &schema["properties"];
    for name in found.as_object().expect("an object").keys() {
        assert!(
            described.get(name).is_some(),
            "{name} is not described\n{schema:#}"
        );
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(
            found.get(name.as_str().expect("a name")).is_some(),
            "{name} is missing\n{found:#}"
        );
    }
}

#[tokio::test]
async fn answers_about_servers_have_the_members_that_are_described() {
    let upstream = Upstream::start().await;
    let down = entry("down", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&down).await;
    let document = described(&gateway).await;
    let one = json!({"server_name": "one", "url": upstream.url(), "description": "text", "mcp_access_groups": ["g"],
        "auth_type": "bearer_token", "auth_value": "canary-fixed", "static_headers": {"X-A": "b"}});
    let id = add(&gateway, &one).await["server_id"].clone();
    let (server, path) = (id.as_str().expect("an id"), "/v1/mcp/server/{server_id}");
    let change = json!({"server_id": id, "description": "another"});
    for (method, path, body, status) in [
        (Method::PUT, SERVERS, Some(&change), 202),
        (Method::GET, SERVERS, None, 200),
        (Method::GET, "/v1/mcp/server/health", None, 200),
        (Method::GET, path, None, 200),
        (Method::POST, "/v1/mcp/server/oauth/session", Some(&one), 200),
        (Method::POST, "/mcp-rest/test/connection", Some(&one), 200),
        (Method::POST, "/mcp-rest/test/connection", Some(&change), 200),
        (Method::POST, "/mcp-rest/test/tools/list", Some(&one), 200),
        (Method::GET, "/v1/mcp/tools", None, 200),
        (Method::GET, "/v1/mcp/access_groups", None, 200),
        (Method::GET, "/v1/mcp/network/client-ip", None, 200),
    ] {
        let done = ask_as(
            &gateway,
            KEY,
            method.clone(),
            &path.replace("{server_id}", server),
            body,
        )
        .await;
        assert_eq!(done.status, status, "{method} {path} {done:?}");
        let schema = answer_of(&document, path, &method.as_str().to_lowercase());
        conforms(schema, &done.body);
    }
    conforms(
        answer_of(&document, SERVERS, "post"),
        &add(&gateway, &json!({"alias": "two", "url": upstream.url()})).await,
    );
    let gone = ask_as(
        &gateway,
        KEY,
        Method::DELETE,
        &path.replace("{server_id}", server),
        None,
    )
    .await;
    assert_eq!((gone.status, gone.body), (202, json!("")));
    assert_eq!(
        document["paths"][path]["delete"]["responses"]["202"]["content"],
        Value::Null
    );
}

#[tokio::test]
async fn what_is_sent_about_servers_is_described_by_name() {
    let gateway = TestGateway::with_servers("").await;
    let document = described(&gateway).await;
    for (name, required) in [
        ("ServerChange", json!(["server_id"])),
        ("TriedServer", Value::Null),
    ] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["required"], required, "{name}");
        let properties = schema["properties"].as_object().expect("properties");
        for field in [
            "server_name",
            "url",
            "auth_type",
            "credentials",
            "version",
            "auth_value",
        ] {
            assert!(properties.contains_key(field), "{name}: {field}");
        }
        assert_eq!(schema["additionalProperties"], false);
        // What the description forbids is refused, and not passed over.
        let unknown = json!({"server_name": "one", "url": "http://localhost:1/mcp", "colour": "red"});
        let refused = ask(&gateway, KEY, Method::POST, SERVERS, unknown).await;
        assert_eq!(refused.code(), "invalid_server", "{refused:?}");
    }
}

#[tokio::test]
async fn answers_have_the_members_that_are_described() {
    let gateway = TestGateway::with_servers("").await;
    let document = described(&gateway).await;
    let key = post(&gateway, "/key/generate", json!({"user_id": "ada"}))
        .await
        .body;
    conforms(answer_of(&document, "/key/generate", "post"), &key);
    let id = &key["key_id"];
    for (path, body) in [
        ("/key/update", json!({"key": id, "rpm_limit": 3})),
        ("/key/block", json!({"key": id})),
        ("/key/unblock", json!({"key": id})),
        ("/key/regenerate", json!({"key": id})),
        ("/user/update", json!({"user_id": "ada", "user_alias": "Ada"})),
        ("/key/delete", json!({"keys": [id]})),
        ("/user/delete", json!({"user_ids": ["ada"]})),
    ] {
        let done = post(&gateway, path, body).await;
        assert_eq!(done.status, 200, "{path} {done:?}");
        conforms(answer_of(&document, path, "post"), &done.body);
    }
    made(&gateway, json!({"user_id": "bob"})).await;
    for (path, query) in [
        ("/key/list", "?return_full_object=true"),
        ("/user/list", ""),
        ("/user/info", "?user_id=bob"),
        ("/v1/audit", ""),
    ] {
        let done = get(&gateway, &format!("{path}{query}")).await;
        assert_eq!(done.status, 200, "{path} {done:?}");
        conforms(answer_of(&document, path, "get"), &done.body);
    }
}

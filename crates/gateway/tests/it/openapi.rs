//! The description of the management API, and the routes that there really are.

use crate::api_keys::{ask, get, made, post};
use crate::harness::{KEY, TestGateway, got};
use reqwest::Method;
use serde_json::{Value, json};

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
            let expected = if is_described {
                (401, "missing_key")
            } else {
                (405, "method_not_allowed")
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
    let schema =
        &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
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

//! Which servers a request with several is for: paths, groups, `x-mcp-servers`, and what the configuration refuses.

use crate::by_hand::Watched;
use crate::harness::{Got, KEY, Start, TestGateway, answer, echo, entry, got, keyed};
use serde_json::{Value, json};
use std::collections::HashMap;
use vestibule::config;

pub(crate) fn request(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
}

/// The names of a list's items.
pub(crate) fn names(body: &Value, member: &str) -> Vec<String> {
    let items = body["result"][member].as_array();
    let items = items.unwrap_or_else(|| panic!("a list in {body}"));
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.iter().map(name).collect()
}

pub(crate) async fn list(gateway: &TestGateway, path: &str, method: &str) -> Got {
    got(gateway.post(path, &request(method, &json!({})))).await
}

#[tokio::test]
async fn every_spelling_of_a_target_leads_to_its_servers_in_its_order() {
    let (a, b, c) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    let servers = a.entry("a", "access_groups: [pair]")
        + &b.entry("b", "alias: bee\nmcp_access_groups: [pair, solo]")
        + &c.entry("c", "");
    let gateway = TestGateway::with_servers(&servers).await;
    for (path, header, expected) in [
        ("/mcp", None, &["a-echo", "bee-echo", "c-echo"][..]),
        ("/mcp/", None, &["a-echo", "bee-echo", "c-echo"]),
        ("/mcp/mcp", None, &["a-echo", "bee-echo", "c-echo"]),
        ("/c,a/mcp", None, &["c-echo", "a-echo"]),
        ("/mcp/bee,a/", None, &["bee-echo", "a-echo"]),
        ("/b,bee,pair/mcp", None, &["bee-echo", "a-echo"]),
        ("/pair/mcp", None, &["a-echo", "bee-echo"]),
        ("/mcp/pair", None, &["a-echo", "bee-echo"]),
        ("/solo/mcp", None, &["bee-echo"]),
        ("/mcp", Some("c, pair"), &["c-echo", "a-echo", "bee-echo"]),
        ("/mcp", Some(""), &[]),
        // What the path names counts alone.
        ("/a,c/mcp", Some("b"), &["a-echo", "c-echo"]),
        ("/pair/mcp", Some("c"), &["a-echo", "bee-echo"]),
        ("/a/mcp", Some("c"), &["echo"]),
    ] {
        let mut post = gateway.post(path, &request("tools/list", &json!({})));
        if let Some(header) = header {
            post = post.header("x-mcp-servers", header);
        }
        let listed = got(post).await;
        assert_eq!(listed.status, 200, "{path} {}", listed.body);
        assert_eq!(names(&listed.body, "tools"), expected, "{path} {header:?}");
    }
}

#[tokio::test]
async fn names_that_lead_nowhere() {
    let a = Watched::start().await;
    let gateway = TestGateway::with_servers(&a.entry("a", "access_groups: [g]")).await;
    for path in ["/x,y/mcp", "/mcp/x,y", "/x/mcp", "/mcp/,"] {
        let post = gateway.post(path, &request("tools/list", &json!({})));
        let (status, body) = answer(post).await;
        if path == "/mcp/," {
            assert_eq!((status, &body["result"]["tools"]), (200, &json!([])), "{body}");
        } else {
            assert_eq!(
                (status, &body["error"]["code"]),
                (404, &json!("unknown_server")),
                "{path}"
            );
        }
    }
    assert!(a.requests().is_empty());
    let listed = list(&gateway, "/a,x/mcp", "tools/list").await;
    let outcomes = &listed.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    assert_eq!(names(&listed.body, "tools"), ["a-echo"]);
    assert_eq!(
        (&outcomes["a"]["status"], &outcomes["x"]["status"]),
        (&json!("ok"), &json!("unknown_server"))
    );
    let many: Vec<String> = (0..17).map(|index| format!("s{index}")).collect();
    let path = format!("/{}/mcp", many.join(","));
    assert_eq!(list(&gateway, &path, "tools/list").await.code(), "too_many_names");
    let repeated = ["a"; 40].join(",");
    let path = format!("/{repeated}/mcp");
    assert_eq!(list(&gateway, &path, "tools/list").await.status, 200);
    let twice = gateway
        .post("/mcp", &request("tools/list", &json!({})))
        .header("x-mcp-servers", "a")
        .header("x-mcp-servers", "g");
    assert_eq!(got(twice).await.code(), "repeated_header");
}

#[tokio::test]
async fn who_has_no_key_learns_nothing() {
    let a = Watched::start().await;
    let gateway = TestGateway::with_servers(&a.entry("a", "access_groups: [g]")).await;
    for path in ["/mcp", "/a,b/mcp", "/x,y/mcp", "/g/mcp"] {
        for (key, code) in [(None, "missing_key"), (Some("sk-wrong-0123456789"), "wrong_key")] {
            let mut post = gateway.http.post(gateway.url(path)).json(&echo("x"));
            if let Some(key) = key {
                post = post.header("x-litellm-api-key", key);
            }
            let refused = got(post).await;
            assert_eq!((refused.status, refused.code()), (401, code), "{path}");
        }
    }
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn an_explicit_scope_can_be_demanded() {
    let a = Watched::start().await;
    let text = format!(
        "general_settings:\n  master_key: {KEY}\n  mcp_require_explicit_server_scope: true\nmcp_servers:\n{}",
        a.entry("a", "")
    );
    let gateway = Start::new(text).start().await;
    let refused = list(&gateway, "/mcp", "tools/list").await;
    assert_eq!((refused.status, refused.code()), (400, "server_scope_required"));
    let named = gateway
        .post("/mcp", &request("tools/list", &json!({})))
        .header("x-mcp-servers", "a");
    assert_eq!(got(named).await.status, 200);
    assert_eq!(list(&gateway, "/a/mcp", "tools/list").await.status, 200);
}

#[test]
fn what_would_make_a_name_ambiguous_is_refused_in_the_configuration() {
    let server = |name: &str, more: &str| entry(name, &format!("url: http://127.0.0.1:1/mcp\n{more}"));
    for (servers, expected) in [
        (
            server("a.b", "") + &server("a_b", ""),
            "would both be called a_b-…",
        ),
        (
            server("a", "alias: x.y") + &server("x_y", ""),
            "would both be called x_y-…",
        ),
        (
            server("a", "access_groups: [b]") + &server("b", ""),
            "the group b has a name of mcp_servers.b",
        ),
        (
            server("a", "access_groups: [a]"),
            "the group a has a name of mcp_servers.a",
        ),
        (
            server("a", "access_groups: [g]\nmcp_access_groups: [h]"),
            "are the same setting; keep one",
        ),
        (
            server("a", "access_groups: ['a,b']"),
            "a group's name takes 1 to 64",
        ),
        (server("a", "access_groups: [mcp]"), "is a path of the gateway"),
    ] {
        let loaded = config::load(&keyed(&servers), &HashMap::new());
        let found = format!("{:?}", loaded.findings);
        assert!(
            loaded.settings.is_none() && found.contains(expected),
            "{expected}: {found}"
        );
    }
    let fine = server("a.b", "alias: ab\naccess_groups: [g-1]") + &server("c", "access_groups: [g-1]");
    assert!(config::load(&keyed(&fine), &HashMap::new()).settings.is_some());
}

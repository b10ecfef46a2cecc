//! Lists of several servers as one: names, bytes, outcomes, pages.

use crate::aggregate_sessions::{begun, call, count, initialize, within};
use crate::aggregate_targets::{list, names, request};
use crate::by_hand::Watched;
use crate::harness::{KEY, TestGateway, got, logged};
use serde_json::{Value, json};
use vestibule_testkit::Answer;

async fn pair() -> (Watched, Watched, TestGateway) {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(a.entry("a", "") + &b.entry("b", ""))).await;
    (a, b, gateway)
}

#[tokio::test]
async fn items_come_as_they_are_but_for_their_names() {
    let (a, _b, gateway) = pair().await;
    a.answer_with("tools/list", r#"{"tools":[
        {"inputSchema" : {"type":"object", "x":1.00,"x2":12345678901234567890.5}, "name" : "plain" , "name2":"plain"},
        {"name":"with space","description":"\u00e9 /\/ \ud83d\ude00"},
        {"name":"plain","description":"a second one"},
        {"name":"twice","name":"twice again"},
        {"description":"nameless"},
        {"name":7},
        {"name":"\u0070\u0072\u0065"}
    ],"ttlMs":5}"#);
    let response = gateway
        .post("/mcp", &request("tools/list", &json!({})))
        .send()
        .await
        .expect("answered");
    let text = response.text().await.expect("a body");
    for part in [
        r#"{"inputSchema" : {"type":"object", "x":1.00,"x2":12345678901234567890.5}, "name" : "a-plain" , "name2":"plain"}"#,
        r#"{"name":"a-with_space_"#,
        r#""description":"\u00e9 /\/ \ud83d\ude00"}"#,
        r#"{"name":"a-pre"}"#,
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let body: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(names(&body, "tools").len(), 4, "{text}");
    assert_eq!(
        body["result"]["_meta"]["litellm.ai/server_outcomes"],
        json!({"a": {"status": "ok", "tool_count": 3, "skipped": 4}, "b": {"status": "ok", "tool_count": 1}})
    );
    assert!(body["result"]["ttlMs"].is_null());
}

#[tokio::test]
async fn prompts_and_resources_are_listed_and_who_has_none_is_fine() {
    let (a, b, gateway) = pair().await;
    a.answer_with("prompts/list", r#"{"prompts":[{"name":"ask"}]}"#);
    b.answer_with("prompts/list", r#"{"prompts":[{"name":"ask"}]}"#);
    b.answer_with(
        "resources/list",
        r#"{"resources":[{"uri":"file:///x","name":"x y"}]}"#,
    );
    b.answer_with(
        "resources/templates/list",
        r#"{"resourceTemplates":[{"uriTemplate":"db://{t}","name":"t"}]}"#,
    );
    for (method, member, expected) in [
        ("prompts/list", "prompts", &["a-ask", "b-ask"][..]),
        ("resources/list", "resources", &["b-x y"]),
        ("resources/templates/list", "resourceTemplates", &["b-t"]),
    ] {
        let listed = list(&gateway, "/mcp", method).await;
        assert_eq!(names(&listed.body, member), expected);
        assert_eq!(
            listed.body["result"]["_meta"]["litellm.ai/server_outcomes"]["a"]["status"],
            "ok"
        );
    }
    let listed = list(&gateway, "/mcp", "resources/list").await;
    assert_eq!(listed.body["result"]["resources"][0]["uri"], "file:///x");
}

#[tokio::test]
async fn pages_are_asked_of_those_that_have_more_and_cursors_are_nobody_elses() {
    let (a, b, gateway) = pair().await;
    a.answer_with(
        "tools/list",
        r#"{"tools":[{"name":"one"}],"nextCursor":"canary-cursor"}"#,
    );
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let listed = within(&gateway, "/mcp", &session, &request("tools/list", &json!({}))).await;
    assert_eq!(names(&listed.body, "tools"), ["a-one", "b-echo"]);
    let cursor = listed.body["result"]["nextCursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    assert!(!cursor.contains("canary"));
    let seen = b.requests().len();
    a.answer_with("tools/list", r#"{"tools":[{"name":"two"}]}"#);
    let more = request("tools/list", &json!({"cursor": cursor}));
    let listed = within(&gateway, "/mcp", &session, &more).await;
    assert_eq!(names(&listed.body, "tools"), ["a-two"]);
    assert!(listed.body["result"]["nextCursor"].is_null());
    assert_eq!(
        a.requests().last().expect("a request").json()["params"]["cursor"],
        "canary-cursor"
    );
    assert_eq!(b.requests().len(), seen, "the other has no more");
    let seen = a.requests().len();
    for (path, message) in [
        ("/mcp", request("prompts/list", &json!({"cursor": cursor}))),
        ("/a,b/mcp", more.clone()),
        ("/mcp", request("tools/list", &json!({"cursor": "canary-cursor"}))),
        ("/mcp", request("tools/list", &json!({"cursor": ""}))),
    ] {
        let refused = got(gateway.post(path, &message)).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (200, &json!(-32602)),
            "{path} {message} {}",
            refused.body
        );
    }
    gateway.advance(601);
    let refused = within(&gateway, "/mcp", &session, &more).await;
    assert_eq!(refused.body["error"]["code"], -32602);
    assert_eq!(a.requests().len(), seen);
}

#[tokio::test]
async fn a_cursor_too_long_to_carry_is_named_and_not_lost_in_silence() {
    let (a, _b, gateway) = pair().await;
    let long = "c".repeat(5000);
    a.answer_with(
        "tools/list",
        &format!(r#"{{"tools":[{{"name":"one"}}],"nextCursor":"{long}"}}"#),
    );
    let listed = list(&gateway, "/mcp", "tools/list").await;
    let outcomes = &listed.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    assert_eq!(names(&listed.body, "tools"), ["a-one", "b-echo"]);
    assert_eq!(outcomes["a"]["code"], "upstream_not_mcp");
    assert!(listed.body["result"]["nextCursor"].is_null());
}

#[tokio::test]
async fn long_and_odd_names_are_served_short_and_lead_back() {
    let a = Watched::start().await;
    let long = "a_rather_long_prefix_for_a_server";
    let gateway = TestGateway::with_servers(&(a.entry(long, "") + &a.entry("b", ""))).await;
    let tools = [
        "x".repeat(100),
        "snow \u{2603}".to_owned(),
        "_c8687a08".to_owned(),
        "fine".to_owned(),
    ];
    a.set_tools(&tools.iter().map(String::as_str).collect::<Vec<_>>());
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let listed = within(&gateway, "/mcp", &session, &request("tools/list", &json!({}))).await;
    let served = names(&listed.body, "tools");
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    assert!(
        served
            .iter()
            .all(|name| name.len() <= 64 && name.chars().all(valid)),
        "{served:?}"
    );
    for (name, own) in served.iter().zip(tools.iter().chain(&tools)) {
        let called = within(&gateway, "/mcp", &session, &call(name, "x")).await;
        assert_eq!(called.status, 200, "{name} {}", called.body);
        let last = a.requests().last().expect("a request").json();
        assert_eq!(
            (&last["method"], &last["params"]["name"]),
            (&json!("tools/call"), &json!(own)),
            "{name}"
        );
    }
    // One list for each server was enough for all of them.
    assert_eq!(count(&a, "tools/list"), 4);
    let unknown = within(&gateway, "/mcp", &session, &call("b-nothing_01234567", "x")).await;
    assert_eq!(unknown.body["error"]["code"], -32602);
}

#[tokio::test]
async fn every_spelling_of_a_prefix_calls_the_tool_and_a_bare_name_if_it_is_one_servers() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let servers = a.entry("a.one", "alias: al\nserver_id: id-1") + &b.entry("b", "");
    b.set_tools(&["echo", "only"]);
    let gateway = TestGateway::with_servers(&servers).await;
    for name in ["al-echo", "a.one-echo", "id-1-echo"] {
        let called = got(gateway.post("/mcp", &call(name, "x"))).await;
        assert_eq!(
            called.body["result"]["content"][0]["text"], "x",
            "{name} {}",
            called.body
        );
    }
    assert_eq!((count(&a, "tools/call"), count(&b, "tools/call")), (3, 0));
    let called = got(gateway.post("/mcp", &call("only", "x"))).await;
    assert_eq!((called.status, count(&b, "tools/call")), (200, 1));
    let refused = got(gateway.post("/mcp", &call("echo", "x"))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "ambiguous_name"),
        "{}",
        refused.body
    );
    assert!(refused.body.to_string().contains("a.one, b"));
    // One target: its tools by their own names.
    let called = got(gateway
        .post("/mcp", &call("echo", "x"))
        .header("x-mcp-servers", "b"))
    .await;
    assert_eq!(called.status, 200);
    assert_eq!(count(&b, "tools/call"), 2);
}

#[tokio::test]
async fn if_nobody_answers_it_is_an_error() {
    let (a, b, gateway) = pair().await;
    let fail = |server: &Watched| server.push_for("tools/list", Answer::Html);
    fail(&a);
    fail(&b);
    let refused = list(&gateway, "/mcp", "tools/list").await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "no_server_answered"),
        "{}",
        refused.body
    );
    let outcomes = &refused.body["error"]["data"]["_meta"]["litellm.ai/server_outcomes"];
    for name in ["a", "b"] {
        assert_eq!(
            (&outcomes[name]["status"], &outcomes[name]["code"]),
            (&json!("upstream_error"), &json!("upstream_not_mcp"))
        );
    }
    fail(&a);
    let listed = list(&gateway, "/mcp", "tools/list").await;
    assert_eq!(names(&listed.body, "tools"), ["b-echo"]);
    fail(&a);
    let one = got(gateway
        .post("/mcp", &request("tools/list", &json!({})))
        .header("x-mcp-servers", "a"))
    .await;
    assert_eq!((one.status, one.code()), (502, "upstream_not_mcp"));
}

fn sign_in(name: &str, server: &Watched) -> String {
    server.entry(
        name,
        "auth_type: oauth2\nclient_id: c\nclient_secret: canary-client-secret-0123456789\nauthorization_url: http://127.0.0.1:1/a\ntoken_url: http://127.0.0.1:1/t\n",
    )
}

#[tokio::test]
async fn one_authorization_is_shown_to_the_one_server_that_takes_it_and_never_to_two() {
    let (a, b, c) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    a.accept("canary-token-a");
    let one = TestGateway::with_servers(&(sign_in("a", &a) + &c.entry("c", ""))).await;
    let two = TestGateway::with_servers(&(sign_in("a", &a) + &sign_in("b", &b) + &c.entry("c", ""))).await;
    let three =
        TestGateway::with_servers(&(sign_in("a", &a) + &c.entry("c", "extra_headers: [Authorization]")))
            .await;
    let post = |gateway: &TestGateway, path: &str, message: &Value| {
        gateway
            .post(path, message)
            .header("authorization", "Bearer canary-token-a")
    };
    let listing = request("tools/list", &json!({}));
    let listed = got(post(&one, "/mcp", &listing)).await;
    assert_eq!(names(&listed.body, "tools"), ["a-echo", "c-echo"]);
    let called = got(post(&one, "/mcp", &call("a-echo", "x"))).await;
    assert_eq!(called.status, 200, "{}", called.body);
    a.set_tools(&["echo"]);
    for gateway in [&two, &three] {
        let seen = a.requests().len();
        let listed = got(post(gateway, "/mcp", &listing)).await;
        let outcome = &listed.body["result"]["_meta"]["litellm.ai/server_outcomes"]["a"];
        assert_eq!(
            (&outcome["status"], &outcome["code"]),
            (&json!("auth_required"), &json!("ambiguous_authorization")),
            "{}",
            listed.body
        );
        assert_eq!(
            outcome["resource_metadata"],
            format!(
                "http://{}/.well-known/oauth-protected-resource/a/mcp",
                gateway.address
            )
        );
        let refused = got(post(gateway, "/mcp", &call("a-echo", "x"))).await;
        assert_eq!((refused.status, refused.code()), (401, "ambiguous_authorization"));
        assert!(refused.header("www-authenticate").contains("/a/mcp"));
        assert_eq!(a.requests().len(), seen);
        // Among those that the request names it is the only one.
        let called = got(post(gateway, "/mcp", &call("a-echo", "x")).header("x-mcp-servers", "a")).await;
        assert_eq!(called.status, 200);
    }
    for server in [&b, &c] {
        server.assert_never_seen("canary-token-a");
    }
}

#[tokio::test]
async fn a_missing_sign_in_is_a_challenge_on_calls_and_an_outcome_in_lists() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(sign_in("a", &a) + &b.entry("b", ""))).await;
    let metadata = format!(
        "http://{}/.well-known/oauth-protected-resource/a/mcp",
        gateway.address
    );
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let listed = within(&gateway, "/mcp", &session, &request("tools/list", &json!({}))).await;
    let outcome = &listed.body["result"]["_meta"]["litellm.ai/server_outcomes"]["a"];
    assert_eq!(
        (
            &outcome["status"],
            &outcome["code"],
            &outcome["resource_metadata"]
        ),
        (
            &json!("auth_required"),
            &json!("sign_in_required"),
            &json!(metadata)
        )
    );
    assert_eq!(names(&listed.body, "tools"), ["b-echo"]);
    let refused = within(&gateway, "/mcp", &session, &call("a-echo", "x")).await;
    assert_eq!((refused.status, refused.code()), (401, "sign_in_required"));
    assert_eq!(
        refused.header("www-authenticate"),
        format!("Bearer resource_metadata=\"{metadata}\"")
    );
    assert_eq!(refused.body["id"], 7);
    // It alone, or together with nobody who answers.
    for message in [initialize(&json!({})), request("tools/list", &json!({}))] {
        let refused = got(gateway.post("/mcp", &message).header("x-mcp-servers", "a")).await;
        assert_eq!((refused.status, refused.code()), (401, "sign_in_required"));
        assert!(refused.header("www-authenticate").contains(&metadata));
    }
    assert!(a.requests().is_empty());
    assert!(!logged().contains(&format!("Bearer {KEY}")));
}

#[tokio::test]
async fn over_rest_one_server_gets_the_callers_token_and_all_together_do_not() {
    let (a, b) = (Watched::start().await, Watched::start().await);
    a.accept("canary-token-a");
    let gateway = TestGateway::with_servers(&(sign_in("a", &a) + &sign_in("b", &b))).await;
    let ask = |query: &str| {
        let list = gateway.http.get(gateway.url("/mcp-rest/tools/list") + query);
        let list = list.header("x-litellm-api-key", KEY);
        got(list.header("authorization", "Bearer canary-token-a"))
    };
    let all = ask("").await;
    assert!(all.status == 401 && a.requests().is_empty(), "{}", all.body);
    let one = ask("?server_id=a").await;
    assert_eq!(
        (one.status, &one.body["tools"][0]["name"]),
        (200, &json!("echo")),
        "{}",
        one.body
    );
    b.assert_never_seen("canary-token-a");
}

//! What the record says about calls: who, what, by what right, with which credential, and how it ended.

use crate::audit_harness::{Kept, only};
use crate::harness::{KEY, Start, TestGateway, echo, entry, got, keyed, machine};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Idp, Upstream};

/// The parts of a row that a person looks at first.
fn seen(row: &Value) -> Value {
    let parts = ["kind", "key_alias", "server", "tool", "outcome", "status"];
    parts.iter().map(|part| row[*part].clone()).collect()
}

#[tokio::test]
async fn a_call_is_one_row_with_its_trace() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    upstream.accept_if(idp.issued());
    let servers = machine("one", &upstream.url(), &format!("{}/token", idp.url()), "");
    let gateway = TestGateway::with_servers(&servers).await;
    let call = gateway
        .post("/one/mcp?x=1", &echo("hello"))
        .header("user-agent", "probe/1");
    let answer = got(call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let row = gateway
        .row(&format!("request_id={}", answer.header("x-request-id")))
        .await;
    assert_eq!(
        seen(&row),
        json!(["call", "master key", "one", "echo", "ok", 200])
    );
    assert_eq!(
        (&row["client"], &row["address"]),
        (&json!("probe/1"), &json!("127.0.0.1"))
    );
    assert_eq!((&row["user_id"], &row["key_id"]), (&Value::Null, &Value::Null));
    let mut trace = row["trace"].clone();
    let timings = trace["timings"].take();
    assert_eq!(
        trace,
        json!({
            "target": {"method": "POST", "path": "/one/mcp", "message": "tools/call", "name": "echo"},
            "admission": {"by": "master_key", "header": "x-litellm-api-key"},
            "policy": {"by": "master_key"},
            "credential": {"resolution": "m2m-client-credentials", "token": "fetched"},
            "upstream": {"status": 200, "requests": 1},
            "timings": null,
        })
    );
    for part in ["admitted", "sent", "first_byte", "total"] {
        assert!(timings[part].is_u64(), "{timings}");
    }
    // The line of a refusal and its row are found by one id.
    gateway.echo("/one/mcp", "again").await;
    let rows = gateway.until_rows("kind=call", 2).await;
    assert_eq!(rows[1]["trace"]["credential"]["token"], "in_hand");
    // A token that the server no longer takes is replaced, once.
    upstream.revoke(&idp.last_token());
}

#[tokio::test]
async fn who_called_and_what_let_them() {
    let kept = Kept::new();
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let servers = entry("one", &format!("url: {url}"))
        + &entry("two", &format!("url: {url}\nallow_all_keys: true"))
        + &entry("three", &format!("url: {url}\naccess_groups: [team]"));
    let ann = kept.key("k-ann", Some("ann"), &only(&["one"])).await;
    let team = json!({"object_permission": {"mcp_access_groups": ["team"]}});
    let bob = kept.key("k-bob", None, &team).await;
    let tools = json!({"object_permission": {"mcp_tool_permissions": {"one": ["other"]}}});
    let eve = kept.key("k-eve", Some("eve"), &tools).await;
    let gateway = kept.start(keyed(&servers)).start().await;
    let call = |key: &str, path: &str| {
        let request = gateway.http.post(gateway.url(path)).bearer_auth(key);
        got(request
            .header("accept", "application/json, text/event-stream")
            .json(&echo("x")))
    };
    for (key, path, user, by, outcome, status) in [
        (&ann, "/one/mcp", json!("ann"), "mcp_servers", "ok", 200),
        (&ann, "/two/mcp", json!("ann"), "allow_all_keys", "ok", 200),
        (
            &ann,
            "/three/mcp",
            json!("ann"),
            "nothing",
            "server_not_allowed",
            403,
        ),
        (&bob, "/three/mcp", Value::Null, "mcp_access_groups", "ok", 200),
        (
            &eve,
            "/one/mcp",
            json!("eve"),
            "mcp_tool_permissions",
            "tool_not_allowed",
            200,
        ),
    ] {
        let answer = call(key, path).await;
        let row = gateway
            .row(&format!("request_id={}", answer.header("x-request-id")))
            .await;
        assert_eq!(row["user_id"], user, "{row:#}");
        assert_eq!(
            row["key_alias"],
            format!("alias of {}", row["key_id"].as_str().expect("a key"))
        );
        assert_eq!(row["trace"]["policy"]["by"], by, "{row:#}");
        assert_eq!(
            (&row["outcome"], &row["status"]),
            (&json!(outcome), &json!(status)),
            "{row:#}"
        );
        assert_eq!(
            row["trace"]["admission"],
            json!({"by": "key", "header": "authorization"})
        );
        let says_why = !row["trace"]["refusal"]["message"].is_null();
        assert_eq!(says_why, outcome != "ok", "{row:#}");
    }
    // A key that is known and blocked is named; one that is not known is nobody's.
    kept.behind("UPDATE api_keys SET blocked = TRUE, version = version + 1 WHERE id = 'k-bob'")
        .await;
    let blocked = async { while call(&bob, "/three/mcp").await.status != 403 {} };
    let blocked = tokio::time::timeout(vestibule_testkit::DEADLINE, blocked).await;
    assert!(blocked.is_ok(), "never blocked");
    let row = gateway.until_rows("outcome=key_blocked", 1).await.remove(0);
    assert_eq!(
        (&row["key_id"], &row["kind"], &row["trace"]["admission"]["by"]),
        (&json!("k-bob"), &json!("call"), &json!("refused"))
    );
    let answer = call("sk-unknown", "/one/mcp").await;
    let row = gateway
        .row(&format!("request_id={}", answer.header("x-request-id")))
        .await;
    assert_eq!(row["outcome"], "wrong_key");
    assert!(row["key_id"].is_null() && row["user_id"].is_null() && row["trace"]["admission"].is_null());
}

#[tokio::test]
async fn callers_whom_only_the_server_knows_have_no_name() {
    let upstream = Upstream::start().await;
    let fields = format!("url: {}\nauth_type: true_passthrough", upstream.url());
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let request = gateway
        .http
        .post(gateway.url("/one/mcp"))
        .bearer_auth("canary-own-token");
    let answer = got(request
        .header("accept", "application/json, text/event-stream")
        .json(&echo("x")))
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let row = gateway.row("kind=call").await;
    for part in ["user_id", "key_id", "key_alias"] {
        assert!(row[part].is_null(), "{row:#}");
    }
    assert_eq!(row["trace"]["admission"], json!({"by": "delegated"}));
    assert_eq!(row["trace"]["policy"]["by"], "delegated");
    assert_eq!(
        row["trace"]["credential"],
        json!({"resolution": "oauth2-passthrough"})
    );
    assert!(!row.to_string().contains("canary"));
}

#[tokio::test]
async fn failures_say_what_they_were() {
    let upstream = Upstream::start().await;
    let servers =
        entry("one", &format!("url: {}", upstream.url())) + &entry("gone", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&servers).await;
    let failing = json!({"jsonrpc": "2.0", "id": 7, "result": {"isError": true, "content": []}});
    upstream.push(Answer::json(200, &failing));
    let error = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "canary"}});
    upstream.push(Answer::json(200, &error));
    upstream.push(Answer::json(500, &error));
    for _ in 0..3 {
        gateway.echo("/one/mcp", "x").await;
    }
    gateway.echo("/gone/mcp", "x").await;
    gateway.echo("/none/mcp", "x").await;
    got(gateway.http.get(gateway.url("/nothing"))).await;
    got(gateway.get_with(KEY, "/one/mcp")).await;
    let rows = gateway.until_rows("", 7).await;
    let seen: Vec<Value> = rows.iter().map(seen).collect();
    let master = "master key";
    assert_eq!(
        json!(seen),
        json!([
            ["call", master, "one", "echo", "tool_error", 200],
            ["call", master, "one", "echo", "tool_error", 200],
            ["call", master, "one", "echo", "tool_error", 500],
            ["call", master, "gone", "echo", "upstream_unreachable", 502],
            ["call", master, null, null, "unknown_server", 404],
            ["refusal", null, null, null, "not_found", 404],
            ["call", master, "one", null, "ok", 405],
        ])
    );
    assert!(
        rows[3]["trace"]["upstream"] == json!({"requests": 1}),
        "{:#}",
        rows[3]
    );
    assert!(
        rows[3]["trace"]["refusal"]["next_step"]
            .as_str()
            .is_some_and(|step| step.contains("url"))
    );
    assert!(rows.iter().all(|row| !row.to_string().contains("canary")));
}

#[tokio::test]
async fn each_server_of_a_list_has_its_row() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let servers = entry("a", &format!("url: {}", a.url()))
        + &entry("b", &format!("url: {}", b.url()))
        + &entry("gone", "url: http://127.0.0.1:9/mcp");
    let gateway = TestGateway::with_servers(&servers).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = got(gateway.post("/mcp", &list)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let rows = gateway
        .until_rows(&format!("request_id={}", answer.header("x-request-id")), 4)
        .await;
    let whole = rows
        .iter()
        .find(|row| row["server"].is_null())
        .expect("the whole");
    assert_eq!(whole["trace"]["target"]["servers"], json!(["a", "b", "gone"]));
    assert_eq!(whole["outcome"], "ok");
    for (server, outcome) in [("a", "ok"), ("b", "ok"), ("gone", "upstream_unreachable")] {
        let row = rows.iter().find(|row| row["server"] == server).expect("a row");
        assert_eq!(row["outcome"], outcome, "{row:#}");
        assert_eq!(row["trace"]["target"]["message"], "tools/list");
        assert_eq!(row["key_alias"], "master key");
    }
    // A call is one row, under the server's own name for the tool.
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "a-echo", "arguments": {}}});
    let answer = got(gateway.post("/mcp", &call)).await;
    let row = gateway
        .row(&format!("request_id={}", answer.header("x-request-id")))
        .await;
    assert_eq!(seen(&row), json!(["call", "master key", "a", "echo", "ok", 200]));
    assert_eq!(row["trace"]["target"]["name"], "a-echo");
}

#[tokio::test]
async fn the_rest_facade_is_recorded_alike() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let call = json!({"server_id": "one", "name": "echo", "arguments": {"message": "canary-argument"}});
    let answer = got(gateway.post("/mcp-rest/tools/call", &call)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let row = gateway.row("kind=call").await;
    assert_eq!(
        seen(&row),
        json!(["call", "master key", "one", "echo", "ok", 200])
    );
    assert_eq!(row["trace"]["target"]["path"], "/mcp-rest/tools/call");
    let list = got(gateway.get_with(KEY, "/mcp-rest/tools/list")).await;
    let rows = gateway
        .until_rows(&format!("request_id={}", list.header("x-request-id")), 2)
        .await;
    assert!(
        rows.iter()
            .any(|row| row["server"] == "one" && row["outcome"] == "ok")
    );
}

#[tokio::test]
async fn a_caller_who_leaves_is_a_row() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    upstream.push(Answer::Hang);
    let call = gateway.post("/one/mcp", &echo("x")).send();
    let call = tokio::spawn(call);
    upstream.wait_for(1).await;
    call.abort();
    let row = gateway.row("outcome=client_left").await;
    assert_eq!(
        seen(&row),
        json!(["call", "master key", "one", "echo", "client_left", null])
    );
}

#[tokio::test]
async fn what_is_recorded_is_the_operators_to_say() {
    let upstream = Upstream::start().await;
    let servers = entry("one", &format!("url: {}", upstream.url()));
    let audit = "vestibule:\n  audit: {calls: false}\n";
    let gateway = Start::new(keyed(&servers) + audit).start().await;
    gateway.echo("/one/mcp", "x").await;
    gateway.echo("/none/mcp", "x").await;
    let row = gateway.row("").await;
    assert_eq!(row["outcome"], "unknown_server");

    let audit = "vestibule:\n  audit: {arguments: true}\n";
    let gateway = Start::new(keyed(&servers) + audit).start().await;
    gateway.echo("/one/mcp", "short").await;
    gateway.echo("/one/mcp", &"long ".repeat(2000)).await;
    let rows = gateway.until_rows("kind=call", 2).await;
    assert_eq!(rows[0]["trace"]["arguments"], r#"{"message":"short"}"#);
    assert_eq!(rows[1]["trace"]["arguments"].as_str().map(str::len), Some(4096));
    assert_eq!(rows[1]["tool"], "echo");

    // Nothing is kept without a key, so there is nothing to read.
    let open = Start::new(format!("mcp_servers:\n{servers}")).start().await;
    assert_eq!(open.echo("/one/mcp", "x").await.0, 200);
    let answer = got(open.get_with(KEY, "/v1/audit")).await;
    assert_eq!((answer.status, answer.code()), (403, "admin_required"));
}

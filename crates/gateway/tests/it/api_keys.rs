//! Virtual keys through LiteLLM's addresses: every field, every verb, and who may not.

use crate::harness::{Got, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::Upstream;

/// A gateway with the servers `one` and `two`, of which `two` is in the group `tools`.
async fn start() -> (Upstream, TestGateway) {
    let upstream = Upstream::start().await;
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    (upstream, gateway)
}

fn servers(upstream: &Upstream) -> String {
    let url = upstream.url();
    entry("one", &format!("url: {url}")) + &entry("two", &format!("url: {url}\naccess_groups: [tools]"))
}

/// A request to the management API with this key.
pub(crate) async fn ask(gateway: &TestGateway, key: &str, method: Method, path: &str, body: Value) -> Got {
    let request = gateway
        .http
        .request(method, gateway.url(path))
        .header("x-litellm-api-key", key);
    got(match body {
        Value::Null => request,
        body => request.json(&body),
    })
    .await
}

pub(crate) async fn post(gateway: &TestGateway, path: &str, body: Value) -> Got {
    ask(gateway, KEY, Method::POST, path, body).await
}

pub(crate) async fn get(gateway: &TestGateway, path: &str) -> Got {
    ask(gateway, KEY, Method::GET, path, Value::Null).await
}

/// Makes a key, and gives its text and its id.
pub(crate) async fn made(gateway: &TestGateway, body: Value) -> (String, String) {
    let made = post(gateway, "/key/generate", body).await;
    assert_eq!(made.status, 200, "{made:?}");
    let text = |name: &str| made.body[name].as_str().expect("text").to_owned();
    (text("key"), text("key_id"))
}

/// The status of a call of `echo` with this key.
pub(crate) async fn call(gateway: &TestGateway, key: &str, path: &str) -> u16 {
    called(gateway, key, path).await.status
}

/// A call of `echo` with this key.
pub(crate) async fn called(gateway: &TestGateway, key: &str, path: &str) -> Got {
    let request = gateway
        .http
        .post(gateway.url(path))
        .header("x-litellm-api-key", key);
    let request = request.header("accept", "application/json, text/event-stream");
    got(request.json(&echo("a"))).await
}

#[tokio::test]
async fn a_key_is_made_shown_once_and_used() {
    let (upstream, gateway) = start().await;
    let body = json!({
        "key_alias": "ci", "user_id": "ada", "duration": "30d", "rpm_limit": 100, "metadata": {"ticket": 7},
        "object_permission": {"mcp_servers": ["one"], "mcp_access_groups": ["tools"], "mcp_tool_permissions": {"two": ["echo"]}},
        // What LiteLLM's clients send beside.
        "models": [], "max_budget": null, "team_id": "", "aliases": {}, "send_invite_email": false,
    });
    let made = post(&gateway, "/key/generate", body).await;
    assert_eq!(
        (made.status, made.header("cache-control")),
        (200, "no-store"),
        "{made:?}"
    );
    let key = made.body["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("sk-") && key.len() == 46, "{key}");
    let id = made.body["key_id"].as_str().expect("an id").to_owned();
    let hint = format!("sk-...{}", &key[key.len() - 4..]);
    let same = |body: &Value| {
        assert_eq!(body["token_id"], id.as_str());
        assert_eq!(body["key_name"], hint.as_str());
        assert_eq!(body["key_alias"], "ci");
        assert_eq!(
            (&body["user_id"], &body["user_role"]),
            (&json!("ada"), &json!("internal_user"))
        );
        // The test's clock begins at 2001-09-09T01:46:40Z.
        assert_eq!(body["created_at"], "2001-09-09T01:46:40Z");
        assert_eq!(
            (&body["expires"], &body["created_by"]),
            (&json!("2001-10-09T01:46:40Z"), &json!("master key"))
        );
        assert_eq!(
            (&body["rpm_limit"], &body["metadata"]),
            (&json!(100), &json!({"ticket": 7}))
        );
        assert_eq!(
            (&body["blocked"], &body["user_blocked"], &body["unreadable"]),
            (&json!(false), &json!(false), &json!(false))
        );
        let permission = json!({"mcp_servers": ["one"], "mcp_access_groups": ["tools"], "mcp_tool_permissions": {"two": ["echo"]}});
        assert_eq!(body["object_permission"], permission);
    };
    same(&made.body);
    assert_eq!(made.body["last_used"], Value::Null);

    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);
    upstream.assert_never_seen(&key);
    for asked in [&id, &key] {
        let shown = get(&gateway, &format!("/key/info?key={asked}")).await;
        assert_eq!((shown.status, &shown.body["key"]), (200, &json!(id)));
        same(&shown.body["info"]);
        assert_eq!(shown.body["info"]["last_used"], "2001-09-09T01:46:40Z");
        assert!(!shown.body.to_string().contains(&key), "it is shown once");
    }
    assert_eq!(
        get(&gateway, "/user/info?user_id=ada").await.body["user_info"]["key_count"],
        1
    );
    assert_nothing_secret_logged(&[&key]);
}

#[tokio::test]
async fn what_a_key_cannot_be_is_refused_by_name() {
    let (_upstream, gateway) = start().await;
    made(&gateway, json!({"key_alias": "taken"})).await;
    for (body, code, named) in [
        (json!({"colour": "red"}), "invalid_field", "`colour`"),
        (json!({"key_alias": 7}), "invalid_field", "key_alias"),
        (json!({"duration": "5y"}), "invalid_field", "duration"),
        (json!({"duration": "0d"}), "invalid_field", "duration"),
        (json!({"rpm_limit": 0}), "invalid_field", "rpm_limit"),
        (json!({"rpm_limit": -1}), "invalid_field", "rpm_limit"),
        (json!({"metadata": []}), "invalid_field", "metadata"),
        (json!({"user_id": "a\u{0}b"}), "invalid_field", "user_id"),
        (json!({"key_alias": "a\u{0}b"}), "invalid_field", "alias"),
        (json!({"key_alias": "taken"}), "alias_taken", "alias"),
        (json!({"models": ["gpt-4"]}), "field_not_supported", "models"),
        (json!({"max_budget": 0}), "field_not_supported", "max_budget"),
        (json!({"team_id": "t"}), "field_not_supported", "team_id"),
        // Nobody chooses the text of a key.
        (
            json!({"key": "sk-1234567890123456"}),
            "field_not_supported",
            "key",
        ),
        (
            json!({"object_permission": {"mcp_servers": ["onee"]}}),
            "unknown_name",
            "(`one` is the nearest name)",
        ),
        (
            json!({"object_permission": {"mcp_access_groups": ["tool"]}}),
            "unknown_name",
            "`tools`",
        ),
        (
            json!({"object_permission": {"mcp_tool_permissions": {"three": []}}}),
            "unknown_name",
            "`three`",
        ),
        (
            json!({"object_permission": {"mcp_tool_permissions": {"one": ["*"]}}}),
            "invalid_field",
            "*",
        ),
        (
            json!({"object_permission": {"mcp_toolsets": ["a"]}}),
            "field_not_supported",
            "mcp_toolsets",
        ),
        (
            json!({"object_permission": {"servers": ["one"]}}),
            "invalid_field",
            "`servers`",
        ),
        (json!(["sk-"]), "body_not_an_object", "JSON object"),
    ] {
        let refused = post(&gateway, "/key/generate", body.clone()).await;
        assert_eq!(refused.code(), code, "{body} {refused:?}");
        assert_eq!(refused.status, if code == "alias_taken" { 409 } else { 400 });
        let message = refused.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(named), "{body}: {message}");
    }
    // A secret in the wrong member is repeated nowhere.
    let refused = post(
        &gateway,
        "/key/generate",
        json!({"rpm_limit": "canary-misplaced"}),
    )
    .await;
    assert_eq!(refused.code(), "invalid_field");
    assert!(
        !refused.body.to_string().contains("canary-misplaced"),
        "{refused:?}"
    );
    assert_nothing_secret_logged(&["canary-misplaced"]);
    assert_eq!(get(&gateway, "/key/list").await.body["total_count"], 1);
    let kept = post(
        &gateway,
        "/key/generate",
        json!({"object_permission": {"mcp_tool_permissions": {"one": []}, "agents": []}}),
    )
    .await;
    assert_eq!(kept.status, 200);
}

#[tokio::test]
async fn a_key_is_changed_field_by_field() {
    let (_upstream, gateway) = start().await;
    let body = json!({
        "key_alias": "a", "user_id": "ada", "duration": "1d", "rpm_limit": 5, "metadata": {"a": 1},
        "object_permission": {"mcp_servers": ["one"], "mcp_access_groups": ["tools"]},
    });
    let (key, id) = made(&gateway, body).await;
    let before = get(&gateway, &format!("/key/info?key={id}")).await.body["info"].clone();
    for (field, value, after) in [
        ("key_alias", json!("b"), json!("b")),
        ("key_alias", Value::Null, Value::Null),
        ("user_id", json!("bob"), json!("bob")),
        ("user_id", Value::Null, Value::Null),
        ("rpm_limit", json!(6), json!(6)),
        ("rpm_limit", Value::Null, Value::Null),
        ("metadata", json!({"b": 2}), json!({"b": 2})),
        ("metadata", Value::Null, json!({})),
        ("blocked", json!(true), json!(true)),
        ("blocked", json!(false), json!(false)),
        (
            "object_permission",
            json!({"mcp_servers": ["two"]}),
            json!({"mcp_servers": ["two"], "mcp_access_groups": ["tools"], "mcp_tool_permissions": {}}),
        ),
        (
            "object_permission",
            json!({"mcp_access_groups": null}),
            json!({"mcp_servers": ["two"], "mcp_access_groups": [], "mcp_tool_permissions": {}}),
        ),
        (
            "object_permission",
            Value::Null,
            json!({"mcp_servers": [], "mcp_access_groups": [], "mcp_tool_permissions": {}}),
        ),
    ] {
        let shown = get(&gateway, &format!("/key/info?key={id}")).await.body["info"].clone();
        let changed = post(&gateway, "/key/update", json!({"key": key, field: value})).await;
        assert_eq!(
            (changed.status, &changed.body[field]),
            (200, &after),
            "{field} {changed:?}"
        );
        for other in [
            "key_alias",
            "user_id",
            "rpm_limit",
            "metadata",
            "blocked",
            "object_permission",
            "expires",
            "created_at",
        ] {
            if other != field {
                assert_eq!(changed.body[other], shown[other], "{other} with {field}");
            }
        }
    }
    gateway.advance(10);
    let longer = post(&gateway, "/key/update", json!({"key": id, "duration": "2h"})).await;
    assert_eq!(longer.body["expires"], "2001-09-09T03:46:50Z");
    assert_eq!(longer.body["updated_at"], "2001-09-09T01:46:50Z");
    let for_ever = post(&gateway, "/key/update", json!({"key": id, "duration": null})).await;
    assert_eq!(for_ever.body["expires"], Value::Null);
    assert_eq!(before["expires"], "2001-09-10T01:46:40Z");
    for (body, status) in [
        (json!({"key": "nobody"}), 404),
        (json!({"key": "sk-nobody"}), 404),
        (json!({"key_alias": "x"}), 400),
        (
            json!({"key": id, "object_permission": {"mcp_servers": ["three"]}}),
            400,
        ),
        (json!({"key": id, "models": ["a"]}), 400),
    ] {
        assert_eq!(
            post(&gateway, "/key/update", body.clone()).await.status,
            status,
            "{body}"
        );
    }
}

#[tokio::test]
async fn keys_are_listed_in_parts_and_found() {
    let (_upstream, gateway) = start().await;
    for number in 0..12 {
        let owner = if number % 2 == 0 { "ada" } else { "bob" };
        made(
            &gateway,
            json!({"key_alias": format!("Key {number:02}"), "user_id": owner}),
        )
        .await;
        gateway.advance(1);
    }
    let aliases = |page: &Value| -> Vec<String> {
        let keys = page["keys"].as_array().expect("keys").iter();
        keys.map(|key| key["key_alias"].as_str().expect("an alias").to_owned())
            .collect()
    };
    let first = get(&gateway, "/key/list?return_full_object=true").await.body;
    assert_eq!(
        (
            &first["total_count"],
            &first["total_pages"],
            &first["current_page"]
        ),
        (&json!(12), &json!(2), &json!(1))
    );
    assert_eq!(
        (aliases(&first).len(), aliases(&first)[0].as_str()),
        (10, "Key 11")
    );
    let second = get(&gateway, "/key/list?return_full_object=true&page=2&sort_by=")
        .await
        .body;
    assert_eq!(aliases(&second), ["Key 01", "Key 00"]);
    assert_eq!(get(&gateway, "/key/list?page=9").await.body["keys"], json!([]));
    let adas = get(&gateway, "/key/list?user_id=ada&size=3&return_full_object=true")
        .await
        .body;
    assert_eq!(
        (&adas["total_count"], aliases(&adas)),
        (&json!(6), vec!["Key 10".into(), "Key 08".into(), "Key 06".into()])
    );
    let one = get(&gateway, "/key/list?key_alias=Key+03").await.body;
    assert_eq!(
        (&one["total_count"], one["keys"][0].as_str().map(str::len)),
        (&json!(1), Some(32))
    );
    for (search, count) in [("key 1", 2), ("BOB", 6), ("nothing", 0)] {
        let found = get(&gateway, &format!("/key/list?search={search}")).await.body;
        assert_eq!(found["total_count"], count, "{search}");
    }
    for wrong in [
        "page=0",
        "page=",
        "return_full_object=",
        "size=0",
        "size=101",
        "size=x",
        "colour=red",
        "page=1&page=2",
        "team_id=t",
        "return_full_object=perhaps",
    ] {
        let refused = get(&gateway, &format!("/key/list?{wrong}")).await;
        assert_eq!(refused.status, 400, "{wrong} {refused:?}");
    }
}

#[tokio::test]
async fn a_rotated_key_has_another_text_and_nothing_else_new() {
    let (_upstream, gateway) = start().await;
    let (old, id) = made(
        &gateway,
        json!({"key_alias": "a", "object_permission": {"mcp_servers": ["one"]}}),
    )
    .await;
    assert_eq!(call(&gateway, &old, "/one/mcp").await, 200);
    let rotated = post(&gateway, "/key/regenerate", json!({"key": old})).await;
    let new = rotated.body["key"].as_str().expect("a key").to_owned();
    assert_eq!(
        (&rotated.body["key_id"], &rotated.body["key_alias"]),
        (&json!(id), &json!("a"))
    );
    assert_eq!(
        (
            call(&gateway, &old, "/one/mcp").await,
            call(&gateway, &new, "/one/mcp").await
        ),
        (401, 200)
    );
    let newer = post(&gateway, &format!("/key/{id}/regenerate"), Value::Null).await;
    let newer = newer.body["key"].as_str().expect("a key").to_owned();
    assert_eq!(
        (
            call(&gateway, &new, "/one/mcp").await,
            call(&gateway, &newer, "/one/mcp").await
        ),
        (401, 200)
    );
    for (path, body) in [
        ("/key/nobody/regenerate", json!({})),
        ("/key/regenerate", json!({"key": old})),
    ] {
        assert_eq!(post(&gateway, path, body).await.code(), "unknown_key");
    }
    let other = post(
        &gateway,
        &format!("/key/{id}/regenerate"),
        json!({"key": "another"}),
    )
    .await;
    assert_eq!(other.code(), "invalid_field");
    let more = post(&gateway, "/key/regenerate", json!({"key": id, "max_budget": 5})).await;
    assert_eq!(more.code(), "field_not_supported");
    assert_eq!(call(&gateway, &newer, "/one/mcp").await, 200);
    assert_nothing_secret_logged(&[&old, &new, &newer]);
}

#[tokio::test]
async fn a_blocked_key_is_refused_until_it_is_not() {
    let (_upstream, gateway) = start().await;
    let (key, id) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
    let blocked = post(&gateway, "/key/block", json!({"key": id})).await;
    assert_eq!((blocked.status, &blocked.body["blocked"]), (200, &json!(true)));
    let refused = called(&gateway, &key, "/one/mcp").await;
    assert_eq!((refused.status, refused.code()), (403, "key_blocked"));
    assert_eq!(
        post(&gateway, "/key/unblock", json!({"key": key})).await.body["blocked"],
        false
    );
    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);
    let (born_blocked, _) = made(
        &gateway,
        json!({"blocked": true, "object_permission": {"mcp_servers": ["one"]}}),
    )
    .await;
    assert_eq!(call(&gateway, &born_blocked, "/one/mcp").await, 403);
}

#[tokio::test]
async fn keys_are_deleted_all_or_none() {
    let (_upstream, gateway) = start().await;
    let permission = json!({"mcp_servers": ["one"]});
    let (first, first_id) = made(
        &gateway,
        json!({"key_alias": "first", "object_permission": permission}),
    )
    .await;
    let (second, _) = made(
        &gateway,
        json!({"key_alias": "second", "object_permission": permission}),
    )
    .await;
    for body in [
        json!({"keys": [first, "nobody"]}),
        json!({"keys": [first], "key_aliases": ["nobody"]}),
    ] {
        assert_eq!(post(&gateway, "/key/delete", body).await.code(), "unknown_key");
    }
    assert_eq!(
        post(&gateway, "/key/delete", json!({"keys": []})).await.code(),
        "invalid_field"
    );
    assert_eq!(call(&gateway, &first, "/one/mcp").await, 200);
    let deleted = post(&gateway, "/key/delete", json!({"keys": [first, first_id]})).await;
    assert_eq!(deleted.body, json!({"deleted_keys": [first_id]}));
    assert_eq!(
        (
            call(&gateway, &first, "/one/mcp").await,
            call(&gateway, &second, "/one/mcp").await
        ),
        (401, 200)
    );
    assert_eq!(
        post(&gateway, "/key/delete", json!({"key_aliases": ["second"]}))
            .await
            .status,
        200
    );
    assert_eq!(call(&gateway, &second, "/one/mcp").await, 401);
    assert_eq!(
        get(&gateway, &format!("/key/info?key={first_id}")).await.code(),
        "unknown_key"
    );
    // The alias is free again.
    made(&gateway, json!({"key_alias": "first"})).await;
}

#[tokio::test]
async fn only_admins_manage_and_a_key_knows_itself() {
    let (_upstream, gateway) = start().await;
    let (member, member_id) = made(&gateway, json!({"user_id": "ada"})).await;
    let (machine, machine_id) = made(&gateway, json!({})).await;
    let admin = post(
        &gateway,
        "/user/new",
        json!({"user_id": "root", "user_role": "proxy_admin"}),
    )
    .await;
    let admin = admin.body["key"].as_str().expect("a key").to_owned();
    let (narrow, narrow_id) = made(
        &gateway,
        json!({"user_id": "root", "object_permission": {"mcp_servers": ["one"]}}),
    )
    .await;
    let operations = [
        (Method::POST, "/key/generate", json!({})),
        (Method::GET, "/key/list", Value::Null),
        (
            Method::POST,
            "/key/update",
            json!({"key": member_id, "duration": null}),
        ),
        (Method::POST, "/key/delete", json!({"keys": [member_id]})),
        (Method::POST, "/key/block", json!({"key": member_id})),
        (Method::POST, "/key/unblock", json!({"key": member_id})),
        (Method::POST, "/key/regenerate", json!({"key": member_id})),
        (Method::POST, "/key/x/regenerate", json!({})),
        (Method::POST, "/user/new", json!({})),
        (Method::GET, "/user/list", Value::Null),
        (Method::GET, "/user/info?user_id=root", Value::Null),
        (
            Method::POST,
            "/user/update",
            json!({"user_id": "ada", "user_role": "proxy_admin"}),
        ),
        (Method::POST, "/user/delete", json!({"user_ids": ["root"]})),
    ];
    for key in [&member, &machine, &narrow] {
        for (method, path, body) in operations.clone() {
            if (key, path) == (&narrow, "/user/info?user_id=root") {
                continue;
            }
            let refused = ask(&gateway, key, method, path, body).await;
            assert_eq!(
                (refused.status, refused.code()),
                (403, "admin_required"),
                "{path}"
            );
        }
    }
    for (method, path, body) in operations {
        let request = gateway.http.request(method, gateway.url(path)).json(&body);
        assert_eq!(got(request).await.code(), "missing_key", "{path}");
    }
    // Of others nothing is said, whether or not there are such keys.
    for other in [
        &machine_id,
        &machine,
        &narrow_id,
        &"nobody".to_owned(),
        &"sk-nobody".to_owned(),
    ] {
        let refused = ask(
            &gateway,
            &member,
            Method::GET,
            &format!("/key/info?key={other}"),
            Value::Null,
        )
        .await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "admin_required"),
            "{other}"
        );
    }
    for path in [
        "/key/info".to_owned(),
        format!("/key/info?key={member_id}"),
        format!("/key/info?key={member}"),
        "/key/info?key=".to_owned(),
    ] {
        let own = ask(&gateway, &member, Method::GET, &path, Value::Null).await;
        assert_eq!((own.status, &own.body["key"]), (200, &json!(member_id)), "{path}");
    }
    assert_eq!(get(&gateway, "/key/info").await.code(), "invalid_field");
    assert_eq!(
        ask(&gateway, &admin, Method::GET, "/key/list", Value::Null)
            .await
            .status,
        200
    );
    let made_by = ask(&gateway, &admin, Method::POST, "/key/generate", json!({})).await;
    assert_eq!(made_by.body["created_by"], "root");
}

#[tokio::test]
async fn without_a_master_key_there_is_nothing_to_manage() {
    let upstream = Upstream::start().await;
    let gateway = Start::new(format!("mcp_servers:\n{}", servers(&upstream)))
        .start()
        .await;
    for path in ["/key/list", "/user/list"] {
        let refused = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "admin_required"),
            "{path}"
        );
    }
}

//! Documents after changes: what stays, what goes, and what a secret may not follow.

use super::*;
use serde_json::json;

fn change(body: &Value) -> Change {
    Change::read(body.as_object().expect("an object").clone()).expect("readable")
}

fn applied(before: &Value, body: &Value) -> Changed {
    let before = before.as_object().expect("an object");
    change(body).applied_to(before).expect("applies")
}

fn faults(body: &Value) -> Vec<String> {
    let read = Change::read(body.as_object().expect("an object").clone());
    let problems = read.expect_err("faults");
    problems
        .iter()
        .map(|one| format!("{}: {}", one.path, one.message))
        .collect()
}

#[test]
fn everything_wrong_with_a_body_is_said_at_once() {
    assert_eq!(
        faults(&json!({
            "server_name": "a-b", "urll": 1, "version": "1", "credentials": {"client_secrett": "x", "url": "y"},
            "auth_value": "1", "authentication_token": "2",
        })),
        [
            "urll: unknown field; did you mean url?",
            "version: takes a whole number",
            "credentials.client_secrett: unknown field; did you mean client_secret?",
            "credentials.url: unknown field",
            "authentication_token: authentication_token stands twice, by whatever name; keep one",
            "server_name: Server name cannot contain '-'. Use an alternative character instead Found: a-b",
        ]
    );
    assert_eq!(
        faults(&json!({"credentials": "x"})),
        ["credentials: takes an object"]
    );
    assert_eq!(faults(&json!({"server_name": 1})), ["server_name: takes text"]);
}

#[test]
fn what_is_left_out_stays_and_null_removes() {
    let before = json!({"url": "https://a.example/mcp", "auth_type": "api_key", "authentication_token": "old", "alias": "x",
        "static_headers": {"A": "1", "B": "2"}, "args": ["one", "two"]});
    for body in [
        json!({}),
        json!({"authentication_token": ""}),
        json!({"auth_value": MASK}),
        json!({"credentials": {"auth_value": ""}}),
        json!({"static_headers": {"A": MASK, "B": MASK}, "args": [MASK, MASK]}),
        json!({"spec_path": "", "pinned_tools": null}),
    ] {
        let changed = applied(&before, &body);
        assert_eq!(Value::Object(changed.document), before, "{body}");
        assert!(!changed.moved && changed.dropped.is_empty());
    }
    let changed = applied(
        &before,
        &json!({"authentication_token": null, "alias": "", "static_headers": {"A": "3"}, "allowed_tools": []}),
    );
    assert_eq!(
        Value::Object(changed.document),
        json!({"url": "https://a.example/mcp", "auth_type": "api_key", "static_headers": {"A": "3"},
            "args": ["one", "two"], "allowed_tools": []})
    );
}

#[test]
fn a_mask_without_a_value_behind_it_is_refused() {
    let body =
        json!({"static_headers": {"A": MASK}, "args": [MASK], "env_vars": [{"name": "A", "value": MASK}]});
    let problems = change(&body).applied_to(&Document::new()).expect_err("faults");
    let paths: Vec<_> = problems.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["static_headers.A", "args[0]", "env_vars[0].value"]);
}

#[test]
fn no_secret_follows_to_another_place() {
    let before = json!({"url": "https://a.example/mcp", "auth_type": "oauth2", "oauth2_flow": "client_credentials",
        "client_id": "id", "client_secret": "old", "token_url": "https://idp.example/token",
        "static_headers": {"A": "1", "B": "2"}, "env_vars": [{"name": "V", "value": "old"}]});
    let path = applied(&before, &json!({"url": "https://a.example/other"}));
    assert!(path.dropped.is_empty() && !path.moved);
    for body in [
        json!({"url": "https://b.example/mcp"}),
        json!({"url": "http://a.example/mcp"}),
        json!({"url": "https://a.example:8443/mcp", "static_headers": {"A": MASK, "B": MASK}}),
    ] {
        let changed = applied(&before, &body);
        let dropped = [
            "client_secret",
            "static_headers.A",
            "static_headers.B",
            "env_vars",
        ];
        assert_eq!(changed.dropped, dropped, "{body}");
        assert!(changed.moved, "{body}");
        assert!(
            !Value::Object(changed.document).to_string().contains("old"),
            "{body}"
        );
    }
    for body in [
        json!({"token_url": "https://evil.example/token"}),
        json!({"issuer": "https://evil.example"}),
        json!({"token_url": null}),
    ] {
        let changed = applied(&before, &body);
        assert_eq!(
            (&*changed.dropped, changed.moved),
            (&["client_secret".to_owned()][..], false),
            "{body}"
        );
        assert_eq!(changed.document["static_headers"], before["static_headers"]);
    }
    let sent = applied(
        &before,
        &json!({"url": "https://b.example/mcp", "client_secret": "new", "static_headers": {"A": "3", "B": MASK}}),
    );
    assert_eq!(sent.dropped, ["static_headers.B", "env_vars"]);
    assert_eq!(
        (&sent.document["client_secret"], &sent.document["static_headers"]),
        (&json!("new"), &json!({"A": "3"}))
    );
    let program = json!({"transport": "stdio", "command": "npx", "args": ["a"], "env": {"K": "old"}});
    assert_eq!(applied(&program, &json!({"args": ["b"]})).dropped, ["env.K"]);
    assert_eq!(
        applied(&program, &json!({"args": [MASK]})).dropped,
        Vec::<String>::new()
    );
}

#[test]
fn arguments_that_are_kept_go_to_no_other_program() {
    let program = json!({"transport": "stdio", "command": "npx", "args": ["--token", "secret"]});
    let before = program.as_object().expect("an object");
    for (body, path) in [
        (json!({"command": "echo", "args": ["-n", MASK]}), "args[1]"),
        (json!({"args": ["--print", MASK]}), "args[1]"),
        (json!({"args": [MASK, "other"]}), "args[0]"),
        (json!({"args": ["--token", MASK, "--verbose"]}), "args[1]"),
    ] {
        let problems = change(&body).applied_to(before).expect_err("refused");
        let paths: Vec<_> = problems.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, [path], "{body}");
    }
    let same = json!({"command": "npx", "args": ["--token", MASK]});
    assert_eq!(Value::Object(applied(&program, &same).document), program);

    // Nor when the body says nothing of them; what it brings itself stays.
    let program =
        json!({"transport": "stdio", "command": "a:npx", "args": ["--token", "secret"], "env": {"K": "old"}});
    let other = applied(&program, &json!({"command": "a:echo"}));
    assert_eq!(other.dropped, ["env.K", "args"]);
    assert_eq!(
        Value::Object(other.document),
        json!({"transport": "stdio", "command": "a:echo"})
    );
    let brought = applied(
        &program,
        &json!({"command": "echo", "args": ["hello"], "env": {"K": "new"}}),
    );
    assert_eq!(brought.dropped, Vec::<String>::new());
    assert_eq!(brought.document["args"], json!(["hello"]));
    let described = applied(&program, &json!({"description": "Mine."}));
    assert_eq!(described.document["args"], program["args"]);
}

#[test]
fn another_mode_leaves_the_credentials_of_the_old_one_behind() {
    let machine = json!({"url": "https://a.example/mcp", "auth_type": "oauth2", "oauth2_flow": "client_credentials",
        "client_id": "id", "client_secret": "old", "token_url": "https://idp.example/token", "audience": "x"});
    let fixed = applied(
        &machine,
        &json!({"auth_type": "api_key", "credentials": {"auth_value": "new"}}),
    );
    assert_eq!(
        Value::Object(fixed.document),
        json!({"url": "https://a.example/mcp", "auth_type": "api_key", "authentication_token": "new"})
    );
    let bearer = applied(
        &json!({"auth_type": "api_key", "authentication_token": "old"}),
        &json!({"auth_type": "bearer_token"}),
    );
    assert_eq!(bearer.document["authentication_token"], "old");
    let people = applied(&machine, &json!({"oauth2_flow": "authorization_code"}));
    assert!(people.document.get("audience").is_none());
    assert_eq!(people.document["client_secret"], "old");
    let program = applied(
        &machine,
        &json!({"transport": "stdio", "auth_type": "none", "command": "npx"}),
    );
    assert_eq!(
        Value::Object(program.document),
        json!({"auth_type": "none", "transport": "stdio", "command": "npx"})
    );
}

#[test]
fn the_flow_is_written_down_and_stays() {
    let flow = |body: Value| applied(&json!({}), &body).document.get("oauth2_flow").cloned();
    let machine = json!({"auth_type": "oauth2", "token_url": "https://i.example/t",
        "credentials": {"client_id": "a", "client_secret": "b"}});
    assert_eq!(flow(machine.clone()), Some(json!("client_credentials")));
    assert_eq!(
        flow(json!({"auth_type": "oauth2"})),
        Some(json!("authorization_code"))
    );
    assert_eq!(
        flow(json!({"auth_type": "oauth2", "delegate_auth_to_upstream": true})),
        None
    );
    assert_eq!(flow(json!({"auth_type": "none"})), None);
    let stored = applied(&json!({}), &machine).document;
    let later = applied(
        &Value::Object(stored),
        &json!({"authorization_url": "https://i.example/a"}),
    );
    assert_eq!(later.document["oauth2_flow"], "client_credentials");
}

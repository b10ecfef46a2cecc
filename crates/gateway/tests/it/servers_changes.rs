//! Servers added, changed and deleted at run time: what is served then, what the server is shown, and what is refused.

use crate::harness::{KEY, Start, assert_nothing_secret_logged, entry, keyed};
use crate::servers_harness::{SERVERS, Site, add, ask, ask_as, change, fixed, problems, row, shown};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Idp, Upstream};

const SECRET: &str = "canary-fixed-0123456789";
const OTHER: &str = "canary-other-0123456789";
const MASK: &str = "********";

#[tokio::test]
async fn a_server_is_served_from_the_moment_it_is_added_until_it_is_deleted() {
    let gateway = Start::new(keyed("")).start().await;
    let upstream = Upstream::start().await;
    let added = add(&gateway, &fixed("one", &upstream, SECRET)).await;
    let id = added["server_id"].as_str().expect("an id");
    assert_eq!(id.len(), 32);
    assert_eq!(
        (&added["server_name"], &added["auth_type"], &added["credentials"]),
        (&json!("one"), &json!("bearer_token"), &Value::Null)
    );
    assert_eq!(
        (&added["source"], &added["read_only"], &added["secrets"]),
        (
            &json!("database"),
            &json!(false),
            &json!(["authentication_token"])
        )
    );
    assert_eq!(
        (&added["created_at"], &added["created_by"]),
        (&json!("2001-09-09T01:46:40Z"), &json!("master key"))
    );
    assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 200);
    assert_eq!(shown(&upstream), format!("Bearer {SECRET}"));
    let listed = row(&gateway, id).await;
    assert_eq!(
        (&listed["version"], &listed["secrets"], &listed["url"]),
        (&added["version"], &added["secrets"], &json!(upstream.url()))
    );

    let renamed = change(
        &gateway,
        &json!({"server_id": id, "server_name": "two", "description": "text"}),
    )
    .await;
    assert_eq!(renamed["description"], "text");
    assert_ne!(renamed["version"], added["version"]);
    assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 404);
    assert_eq!(gateway.echo("/two/mcp", "hello").await.0, 200);
    assert_eq!(shown(&upstream), format!("Bearer {SECRET}"));

    let path = format!("{SERVERS}/{id}");
    let deleted = ask(&gateway, Method::DELETE, &path, None).await;
    assert_eq!((deleted.status, deleted.body), (202, json!("")));
    assert_eq!(gateway.echo("/two/mcp", "hello").await.0, 404);
    assert_eq!(row(&gateway, id).await, Value::Null);
    for method in [Method::DELETE, Method::GET] {
        let gone = ask(&gateway, method, &path, None).await;
        assert_eq!((gone.status, gone.code()), (404, "server_not_found"));
    }
    assert_nothing_secret_logged(&[SECRET]);
}

#[tokio::test]
async fn a_secret_stays_until_it_is_sent_removed_or_would_travel() {
    let gateway = Start::new(keyed("")).start().await;
    let (here, there) = (Upstream::start().await, Upstream::start().await);
    let mut body = fixed("one", &here, SECRET);
    body["static_headers"] = json!({"X-Team": "canary-team"});
    let added = add(&gateway, &body).await;
    let id = &added["server_id"];
    assert_eq!(added["static_headers"], json!({"X-Team": MASK}));
    for kept in [
        json!({"server_id": id, "description": "a"}),
        json!({"server_id": id, "credentials": {"auth_value": ""}}),
        json!({"server_id": id, "authentication_token": "", "credentials": null}),
        json!({"server_id": id, "static_headers": {"X-Team": MASK}, "auth_type": "bearer_token"}),
    ] {
        change(&gateway, &kept).await;
        assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
        assert_eq!(shown(&here), format!("Bearer {SECRET}"), "{kept}");
        let requests = here.requests();
        assert_eq!(
            requests.last().expect("one").header("x-team"),
            Some("canary-team")
        );
    }
    change(
        &gateway,
        &json!({"server_id": id, "credentials": {"auth_value": OTHER}}),
    )
    .await;
    gateway.echo("/one/mcp", "a").await;
    assert_eq!(shown(&here), format!("Bearer {OTHER}"));

    // To another origin with nothing sent again: refused, since no credential would be left, and nothing changed.
    let moved = json!({"server_id": id, "url": there.url()});
    let refused = ask(&gateway, Method::PUT, SERVERS, Some(&moved)).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_server"));
    assert!(
        problems(&refused)
            .iter()
            .any(|one| one.contains("do not follow a server to another place")),
        "{:?}",
        problems(&refused)
    );
    gateway.echo("/one/mcp", "a").await;
    assert_eq!(there.requests().len(), 0);

    let moved = json!({"server_id": id, "url": there.url(), "authentication_token": SECRET});
    let row = change(&gateway, &moved).await;
    assert_eq!(row["dropped_secrets"], json!(["static_headers.X-Team"]));
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    assert_eq!(shown(&there), format!("Bearer {SECRET}"));
    assert_eq!(there.requests().last().expect("one").header("x-team"), None);

    let removed = json!({"server_id": id, "authentication_token": null, "auth_type": "none"});
    assert_eq!(change(&gateway, &removed).await["secrets"], json!([]));
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    assert_eq!(shown(&there), "");
    assert_nothing_secret_logged(&[SECRET, OTHER, "canary-team"]);
}

#[tokio::test]
async fn everything_wrong_is_said_at_once_and_nothing_is_written() {
    let gateway = Start::new(keyed(""))
        .environment("VESTIBULE_ENABLE_STDIO", "true")
        .start()
        .await;
    let url = "http://localhost:1/mcp";
    for (body, expected) in [
        (
            json!({"server_name": "one", "urll": url}),
            vec!["urll: unknown field; did you mean url?"],
        ),
        (json!({"url": url}), vec!["server_name: is missing"]),
        (
            json!({"server_name": "a-b", "url": url}),
            vec![
                "server_name: Server name cannot contain '-'. Use an alternative character instead Found: a-b",
            ],
        ),
        (
            json!({"server_name": "one", "url": "ftp://a", "transport": "openapi", "auth_type": "api_key"}),
            vec![
                "url: takes an http or https URL, and this begins with ftp:",
                "transport: takes one of http, sse, stdio",
                ": auth_type: api_key needs authentication_token",
            ],
        ),
        (
            json!({"server_name": "one", "url": "os.environ/PATH"}),
            vec!["url: only the configuration file may refer to the environment"],
        ),
        (
            json!({"server_name": "one", "spec_path": "https://a.example/openapi.json", "url": url}),
            vec!["spec_path: not supported yet; it belongs to OpenAPI servers"],
        ),
        (
            json!({"server_name": "one", "transport": "stdio", "command": "npx", "args": ["x"]}),
            vec!["transport: only the configuration file starts programs"],
        ),
    ] {
        let refused = ask(&gateway, Method::POST, SERVERS, Some(&body)).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "invalid_server"),
            "{body}"
        );
        let problems = problems(&refused);
        for problem in &expected {
            assert!(problems.iter().any(|one| one == problem), "{body}: {problems:?}");
        }
        assert!(
            !problems.is_empty() && problems.len() >= expected.len(),
            "{body}: {problems:?}"
        );
    }
    for body in ["[]", "{", "1"] {
        let request = gateway
            .http
            .post(gateway.url(SERVERS))
            .header("x-litellm-api-key", KEY)
            .body(body);
        let refused = crate::harness::got(request).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "body_not_an_object"),
            "{body}"
        );
    }
    assert_eq!(ask(&gateway, Method::GET, SERVERS, None).await.body, json!([]));
}

#[tokio::test]
async fn names_and_ids_are_nobody_elses() {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let gateway = Start::new(keyed(&entry(
        "filed",
        &format!("url: {url}\nserver_id: f1\nalias: also"),
    )))
    .start()
    .await;
    add(
        &gateway,
        &json!({"server_name": "one", "server_id": "s1", "url": url}),
    )
    .await;
    for (body, status, code) in [
        (json!({"server_name": "filed", "url": url}), 400, "invalid_server"),
        (
            json!({"server_name": "two", "alias": "also", "url": url}),
            400,
            "invalid_server",
        ),
        (
            json!({"server_name": "two", "server_id": "f1", "url": url}),
            400,
            "invalid_server",
        ),
        (
            json!({"server_name": "two", "server_id": "s1", "url": url}),
            409,
            "server_taken",
        ),
        (json!({"server_name": "one", "url": url}), 400, "invalid_server"),
        (json!({"server_name": "ONE", "url": url}), 409, "server_taken"),
    ] {
        let refused = ask(&gateway, Method::POST, SERVERS, Some(&body)).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{body}: {}",
            refused.body
        );
    }
    // Where a change would take a name from a server that has it, the latter keeps it.
    add(
        &gateway,
        &json!({"server_name": "two", "server_id": "a0", "url": url}),
    )
    .await;
    let body = json!({"server_id": "a0", "alias": "one"});
    let refused = ask(&gateway, Method::PUT, SERVERS, Some(&body)).await;
    assert_eq!(problems(&refused), [": the name one already belongs to one"]);
}

#[tokio::test]
async fn servers_of_the_file_are_read_only() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    let text = keyed(&entry(
        "filed",
        &format!(
            "url: {}\nserver_id: f1\nauth_type: api_key\nauth_value: {SECRET}",
            upstream.url()
        ),
    ));
    let file = site.path("gateway.yaml");
    std::fs::write(&file, &text).expect("written");
    let gateway = site.gateway(text).file(file).start().await;
    let seen = row(&gateway, "f1").await;
    assert_eq!(
        (
            &seen["source"],
            &seen["read_only"],
            &seen["version"],
            &seen["secrets"]
        ),
        (
            &json!("file"),
            &json!(true),
            &Value::Null,
            &json!(["authentication_token"])
        )
    );
    assert!(!seen.to_string().contains(SECRET));
    let body = json!({"server_id": "f1", "description": "mine"});
    for refused in [
        ask(&gateway, Method::PUT, SERVERS, Some(&body)).await,
        ask(&gateway, Method::DELETE, &format!("{SERVERS}/f1"), None).await,
    ] {
        assert_eq!((refused.status, refused.code()), (409, "server_read_only"));
        let message = refused.body["error"]["message"].to_string();
        assert!(
            message.contains("gateway.yaml") && message.contains("mcp_servers.filed"),
            "{message}"
        );
    }
    assert_eq!(gateway.echo("/filed/mcp", "a").await.0, 200);
}

#[tokio::test]
async fn of_two_changes_at_once_one_is_refused() {
    let gateway = Start::new(keyed("")).start().await;
    let added = add(
        &gateway,
        &json!({"server_name": "one", "url": "http://localhost:1/mcp"}),
    )
    .await;
    let (id, version) = (&added["server_id"], &added["version"]);
    let first = json!({"server_id": id, "version": version, "description": "first"});
    let second = json!({"server_id": id, "version": version, "description": "second"});
    assert_eq!(change(&gateway, &first).await["description"], "first");
    let refused = ask(&gateway, Method::PUT, SERVERS, Some(&second)).await;
    assert_eq!((refused.status, refused.code()), (409, "server_changed"));
    let with_header = |version: &str| {
        gateway
            .http
            .put(gateway.url(SERVERS))
            .header("x-litellm-api-key", KEY)
            .header("if-match", version)
            .json(&json!({"server_id": id, "description": "third"}))
    };
    let stale = crate::harness::got(with_header(&format!("\"{version}\""))).await;
    assert_eq!((stale.status, stale.code()), (409, "server_changed"));
    let odd = crate::harness::got(with_header("W/\"x\"")).await;
    assert_eq!((odd.status, odd.code()), (409, "server_changed"));
    let now = &row(&gateway, id.as_str().expect("text")).await["version"];
    assert_eq!(
        crate::harness::got(with_header(&format!("\"{now}\"")))
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn a_machine_token_comes_from_where_the_change_says() {
    let gateway = Start::new(keyed("")).start().await;
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    upstream.accept_if(idp.issued());
    // As LiteLLM's form sends it.
    let form = json!({"server_name": "m2m", "alias": "m2m", "description": null, "transport": "http",
        "url": upstream.url(), "auth_type": "oauth2", "token_url": idp.url(), "allowed_tools": null,
        "credentials": {"client_id": "canary-id", "client_secret": SECRET, "scopes": ["a", "b"]},
        "mcp_info": {"server_name": "m2m", "description": ""}, "static_headers": {}, "extra_headers": [],
        "mcp_access_groups": [], "allow_all_keys": false, "available_on_public_internet": true,
        "delegate_auth_to_upstream": false, "is_byok": false});
    let added = add(&gateway, &form).await;
    assert_eq!(added["oauth2_flow"], "client_credentials");
    assert_eq!(gateway.echo("/m2m/mcp", "a").await.0, 200);
    let body = String::from_utf8_lossy(&idp.requests()[0].body).into_owned();
    assert!(body.contains(SECRET) && body.contains("scope=a+b"), "{body}");
    // Credentials are merged one by one.
    let id = &added["server_id"];
    change(
        &gateway,
        &json!({"server_id": id, "credentials": {"scopes": ["c"]}}),
    )
    .await;
    assert_eq!(gateway.echo("/m2m/mcp", "a").await.0, 200);
    let body = String::from_utf8_lossy(&idp.requests()[1].body).into_owned();
    assert!(body.contains(SECRET) && body.contains("scope=c"), "{body}");
    // To another token endpoint the secret does not go.
    let elsewhere = Idp::start().await;
    let body = json!({"server_id": id, "token_url": elsewhere.url()});
    let refused = ask(&gateway, Method::PUT, SERVERS, Some(&body)).await;
    assert_eq!(refused.code(), "invalid_server", "{}", refused.body);
    assert!(elsewhere.requests().is_empty());
    assert_nothing_secret_logged(&[SECRET]);
}

#[tokio::test]
async fn who_manages_nothing_sees_what_it_may_use_and_no_more() {
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let upstream = Upstream::start().await;
    let mut body = fixed("open", &upstream, SECRET);
    for (field, value) in [
        ("allow_all_keys", json!(true)),
        ("static_headers", json!({"X-A": "canary"})),
        ("extra_headers", json!(["X-Visible"])),
        ("mcp_access_groups", json!(["team"])),
        ("allowed_tools", json!(["echo"])),
        ("description", json!("words")),
    ] {
        body[field] = value;
    }
    let open = add(&gateway, &body).await;
    add(&gateway, &fixed("closed", &upstream, SECRET)).await;
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    let narrow = site
        .key(
            &gateway,
            ("bob", "admin"),
            &json!({"mcp_servers": ["closed", "open"]}),
        )
        .await;
    let admin = site.key(&gateway, ("eve", "admin"), &json!({})).await;
    let list = |key: String| {
        let gateway = &gateway;
        async move { ask_as(gateway, &key, Method::GET, SERVERS, None).await.body }
    };
    let all = list(admin.clone()).await;
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    let seen = list(member.clone()).await;
    assert_eq!(seen.as_array().map(Vec::len), Some(1));
    let seen = &seen[0];
    assert_eq!(
        (
            &seen["server_id"],
            &seen["description"],
            &seen["allowed_tools"],
            &seen["mcp_access_groups"]
        ),
        (
            &open["server_id"],
            &json!("words"),
            &json!(["echo"]),
            &json!(["team"])
        )
    );
    let nulled = [
        "url",
        "spec_path",
        "command",
        "authorization_url",
        "token_url",
        "registration_url",
    ];
    assert!(nulled.iter().all(|field| seen[field] == Value::Null), "{seen}");
    assert_eq!(
        (
            &seen["static_headers"],
            &seen["extra_headers"],
            &seen["secrets"],
            &seen["created_by"]
        ),
        (&json!({}), &json!([]), &json!([]), &Value::Null)
    );
    let strict = list(narrow.clone()).await;
    let strict = strict.as_array().expect("a list");
    assert_eq!(strict.len(), 2);
    for row in strict {
        assert_eq!(
            (&row["allowed_tools"], &row["mcp_access_groups"], &row["url"]),
            (&json!([]), &json!([]), &Value::Null)
        );
    }
    assert_nothing_secret_logged(&[SECRET]);
}

#[tokio::test]
async fn who_manages_nothing_changes_nothing() {
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let upstream = Upstream::start().await;
    let mut body = fixed("open", &upstream, SECRET);
    body["allow_all_keys"] = json!(true);
    let open = add(&gateway, &body).await;
    let closed = add(&gateway, &fixed("closed", &upstream, SECRET)).await;
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    let narrow = site
        .key(
            &gateway,
            ("bob", "admin"),
            &json!({"mcp_servers": ["closed", "open"]}),
        )
        .await;
    let admin = site.key(&gateway, ("eve", "admin"), &json!({})).await;
    let path = |row: &Value| format!("{SERVERS}/{}", row["server_id"].as_str().expect("an id"));
    assert_eq!(
        ask_as(&gateway, &member, Method::GET, &path(&open), None)
            .await
            .status,
        200
    );
    let refused = ask_as(&gateway, &member, Method::GET, &path(&closed), None).await;
    assert_eq!((refused.status, refused.code()), (403, "server_not_allowed"));
    let new = json!({"server_name": "mine", "url": upstream.url()});
    for key in [&member, &narrow] {
        for (method, path, body) in [
            (Method::POST, SERVERS.to_owned(), Some(&new)),
            (Method::PUT, SERVERS.to_owned(), Some(&new)),
            (Method::DELETE, path(&open), None),
        ] {
            let refused = ask_as(&gateway, key, method, &path, body).await;
            assert_eq!((refused.status, refused.code()), (403, "admin_required"));
        }
    }
    for key in ["", "sk-unknown"] {
        assert_eq!(
            ask_as(&gateway, key, Method::GET, SERVERS, None).await.status,
            401
        );
        assert_eq!(
            ask_as(&gateway, key, Method::POST, SERVERS, Some(&new))
                .await
                .status,
            401
        );
    }
    let added = ask_as(&gateway, &admin, Method::POST, SERVERS, Some(&new)).await;
    assert_eq!((added.status, &added.body["created_by"]), (201, &json!("eve")));
}

#[tokio::test]
async fn without_a_master_key_the_file_alone_manages() {
    let gateway = Start::new(format!(
        "mcp_servers:\n{}",
        entry("one", "url: http://localhost:1/mcp")
    ))
    .start()
    .await;
    let list = ask(&gateway, Method::GET, SERVERS, None).await;
    assert_eq!((list.status, &list.body[0]["server_name"]), (200, &json!("one")));
    let body = json!({"server_name": "two", "url": "http://localhost:1/mcp"});
    let refused = ask(&gateway, Method::POST, SERVERS, Some(&body)).await;
    assert_eq!((refused.status, refused.code()), (403, "admin_required"));
}

//! People through LiteLLM's addresses: every field, what goes with them, and that nobody gets at another's tokens.

use crate::api_keys::{ask, call, called, get, made, post};
use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed};
use crate::kept_harness::{Door, Site};
use crate::people::{NOW, Town};
use reqwest::Method;
use secrecy::SecretSlice;
use serde_json::{Value, json};
use vestibule_store::{ServerId, UserId};
use vestibule_testkit::Upstream;

async fn start() -> (Upstream, TestGateway) {
    let upstream = Upstream::start().await;
    let fields = format!("url: {}\nallow_all_keys: true", upstream.url());
    let gateway = Start::new(keyed(&entry("one", &fields))).start().await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_person_is_written_down_with_a_key() {
    let (_upstream, gateway) = start().await;
    let body = json!({
        "user_id": "ada", "user_role": "proxy_admin", "user_alias": "Ada", "user_email": "ada@example.com",
        "key_alias": "ada's", "duration": "1d", "models": [], "teams": null, "auto_create_key": true,
    });
    let new = post(&gateway, "/user/new", body).await;
    assert_eq!(new.status, 200, "{new:?}");
    let key = new.body["key"].as_str().expect("a key").to_owned();
    assert_eq!(
        (&new.body["user_id"], &new.body["user_role"]),
        (&json!("ada"), &json!("proxy_admin"))
    );
    assert_eq!(
        (&new.body["key_alias"], &new.body["expires"]),
        (&json!("ada's"), &json!("2001-09-10T01:46:40Z"))
    );
    assert_eq!(
        (&new.body["user_alias"], &new.body["user_email"]),
        (&json!("Ada"), &json!("ada@example.com"))
    );
    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);
    assert_eq!(
        ask(&gateway, &key, Method::GET, "/user/list", Value::Null)
            .await
            .status,
        200
    );

    let shown = get(&gateway, "/user/info?user_id=ada").await.body;
    assert_eq!(
        (
            &shown["user_info"]["user_email"],
            &shown["user_info"]["key_count"]
        ),
        (&json!("ada@example.com"), &json!(1))
    );
    assert_eq!(shown["keys"][0]["key_alias"], "ada's");
    assert!(!shown.to_string().contains(&key));

    let bare = post(&gateway, "/user/new", json!({"auto_create_key": false}))
        .await
        .body;
    assert_eq!(
        (&bare["key"], &bare["user_role"], &bare["key_count"]),
        (&Value::Null, &json!("internal_user"), &json!(0))
    );
    assert_eq!(bare["user_id"].as_str().map(str::len), Some(32));
    for (body, code) in [
        (json!({"user_id": "ada"}), "user_exists"),
        (json!({"user_id": "new", "key_alias": "ada's"}), "alias_taken"),
        (json!({"user_id": "new", "user_role": "emperor"}), "invalid_field"),
        (json!({"user_id": "new", "duration": "5y"}), "invalid_field"),
        (json!({"user_id": "new", "max_budget": 3}), "field_not_supported"),
        (json!({"user_id": "new", "colour": "red"}), "invalid_field"),
        (json!({"user_id": "a\u{0}"}), "invalid_field"),
    ] {
        assert_eq!(
            post(&gateway, "/user/new", body.clone()).await.code(),
            code,
            "{body}"
        );
    }
    // What could not be done whole left nothing behind.
    assert_eq!(
        get(&gateway, "/user/info?user_id=new").await.code(),
        "unknown_user"
    );
    assert_nothing_secret_logged(&[&key]);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one walk")]
async fn people_are_listed_changed_blocked_and_deleted() {
    let (_upstream, gateway) = start().await;
    for (id, role) in [("ada", "admin"), ("bob", "member"), ("eve", "internal_user")] {
        let body = json!({"user_id": id, "user_role": role, "user_email": format!("{id}@example.com"), "auto_create_key": false});
        assert_eq!(post(&gateway, "/user/new", body).await.status, 200);
    }
    for (query, ids) in [
        ("", &["ada", "bob", "eve"][..]),
        ("?role=proxy_admin", &["ada"]),
        ("?role=internal_user", &["bob", "eve"]),
        ("?user_ids=ada,eve", &["ada", "eve"]),
        ("?user_email=BOB%40", &["bob"]),
        ("?search=ev", &["eve"]),
        ("?page=2&page_size=2", &["eve"]),
    ] {
        let page = get(&gateway, &format!("/user/list{query}")).await.body;
        let found: Vec<_> = page["users"]
            .as_array()
            .expect("users")
            .iter()
            .map(|user| user["user_id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found, ids, "{query}");
    }
    for wrong in [
        "?page=0",
        "?page_size=101",
        "?role=x",
        "?colour=red",
        "?sort_by=spend",
    ] {
        assert_eq!(
            get(&gateway, &format!("/user/list{wrong}")).await.status,
            400,
            "{wrong}"
        );
    }
    let (key, _) = made(&gateway, json!({"user_id": "bob"})).await;
    let manages = || ask(&gateway, &key, Method::GET, "/key/list", Value::Null);
    assert_eq!(manages().await.status, 403);
    let promoted = post(
        &gateway,
        "/user/update",
        json!({"user_id": "bob", "user_role": "admin", "user_alias": "Bob"}),
    )
    .await;
    assert_eq!(
        (
            &promoted.body["data"]["user_role"],
            &promoted.body["data"]["user_email"]
        ),
        (&json!("proxy_admin"), &json!("bob@example.com"))
    );
    assert_eq!(manages().await.status, 200);
    let demoted = post(
        &gateway,
        "/user/update",
        json!({"user_id": "bob", "user_role": "member", "user_email": null}),
    )
    .await;
    assert_eq!(
        (
            &demoted.body["data"]["user_alias"],
            &demoted.body["data"]["user_email"]
        ),
        (&json!("Bob"), &Value::Null)
    );
    assert_eq!(manages().await.status, 403);

    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);
    post(
        &gateway,
        "/user/update",
        json!({"user_id": "bob", "blocked": true}),
    )
    .await;
    let refused = called(&gateway, &key, "/one/mcp").await;
    assert_eq!((refused.status, refused.code()), (403, "key_blocked"));
    assert_eq!(
        get(&gateway, "/user/info?user_id=bob").await.body["keys"][0]["user_blocked"],
        true
    );
    post(
        &gateway,
        "/user/update",
        json!({"user_id": "bob", "blocked": false}),
    )
    .await;
    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);

    assert_eq!(
        post(&gateway, "/user/delete", json!({"user_ids": ["bob", "nobody"]}))
            .await
            .code(),
        "unknown_user"
    );
    assert_eq!(call(&gateway, &key, "/one/mcp").await, 200);
    let gone = post(
        &gateway,
        "/user/delete",
        json!({"user_ids": ["bob", "ada", "bob"]}),
    )
    .await
    .body;
    assert_eq!(
        (
            &gone["deleted_users"],
            gone["deleted_keys"].as_array().map(Vec::len)
        ),
        (&json!(["ada", "bob"]), Some(1))
    );
    assert_eq!(call(&gateway, &key, "/one/mcp").await, 401);
    assert_eq!(
        post(&gateway, "/user/update", json!({"user_id": "bob"}))
            .await
            .code(),
        "unknown_user"
    );
}

#[tokio::test]
async fn whoever_holds_a_key_sees_its_owner_and_nobody_else() {
    let (_upstream, gateway) = start().await;
    let (ada, _) = made(&gateway, json!({"user_id": "ada"})).await;
    made(&gateway, json!({"user_id": "bob"})).await;
    let (machine, _) = made(&gateway, json!({})).await;
    for path in ["/user/info", "/user/info?user_id=ada"] {
        let own = ask(&gateway, &ada, Method::GET, path, Value::Null).await;
        assert_eq!((own.status, &own.body["user_id"]), (200, &json!("ada")), "{path}");
    }
    for other in ["bob", "nobody"] {
        let refused = ask(
            &gateway,
            &ada,
            Method::GET,
            &format!("/user/info?user_id={other}"),
            Value::Null,
        )
        .await;
        assert_eq!(refused.code(), "admin_required", "{other}");
    }
    assert_eq!(
        ask(&gateway, &machine, Method::GET, "/user/info", Value::Null)
            .await
            .code(),
        "invalid_field"
    );
}

#[tokio::test]
async fn a_narrowed_key_sees_itself_alone_and_nothing_of_the_operators() {
    let (_upstream, gateway) = start().await;
    let narrow = json!({
        "user_id": "ada",
        "metadata": {"note": "watch her"},
        "object_permission": {"mcp_servers": ["one"]},
    });
    let (narrow, narrow_id) = made(&gateway, narrow).await;
    let (whole, _) = made(&gateway, json!({"user_id": "ada"})).await;
    let keys_seen_by = async |key: &str| {
        let shown = ask(&gateway, key, Method::GET, "/user/info", Value::Null).await;
        assert_eq!(shown.status, 200);
        shown.body["keys"].as_array().expect("keys").clone()
    };
    assert_eq!(keys_seen_by(&whole).await.len(), 2);
    let own = keys_seen_by(&narrow).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["key_id"], json!(narrow_id));
    let info = ask(&gateway, &narrow, Method::GET, "/key/info", Value::Null).await;
    for view in [&own[0], &info.body["info"]] {
        assert_eq!(
            (&view["metadata"], &view["created_by"]),
            (&json!({}), &Value::Null)
        );
    }
    let shown = get(&gateway, &format!("/key/info?key={narrow_id}")).await.body;
    assert_eq!(shown["info"]["metadata"]["note"], "watch her");
}

/// Signs `key`'s owner in at the server `one`.
async fn sign_in(site: &Site, gateway: &TestGateway, key: &str) {
    let door = Door::of(gateway);
    let code = door.signed_in(&site.provider).await;
    let answer = got(door.token(&code).header("x-litellm-api-key", key)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_refresh_token_counts_as_long_as_its_key_does() {
    let site = Site::start().await;
    let servers = site.provider.configured("one", &site.upstream, "");
    let gateway = Start::new(keyed(&servers)).start().await;
    let door = Door::of(&gateway);
    let body = |user: &str| json!({"user_id": user, "object_permission": {"mcp_servers": ["one"]}});
    for (path, change) in [
        ("/key/update", json!({"blocked": true})),
        ("/key/update", json!({"object_permission": {"mcp_servers": []}})),
        ("/key/regenerate", json!({})),
        ("/key/delete", json!({})),
    ] {
        let (key, id) = made(&gateway, body("ada")).await;
        let code = door.signed_in(&site.provider).await;
        let tokens = got(door.token(&code).header("x-litellm-api-key", &key)).await;
        let refresh_token = tokens.body["refresh_token"].as_str().expect("a refresh token");
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", code.client_id.as_str()),
        ];
        let refreshed = async || got(gateway.http.post(gateway.url("/one/token")).form(&form)).await;
        assert_eq!(refreshed().await.status, 200, "{path} {change}");

        let asked = site.provider.counts().asked;
        let mut change = change;
        if path == "/key/delete" {
            change["keys"] = json!([id]);
        } else {
            change["key"] = json!(id);
        }
        let changed = post(&gateway, path, change.clone()).await;
        assert_eq!(changed.status, 200, "{path} {change}: {changed:?}");
        let refused = refreshed().await;
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (400, &json!("invalid_grant")),
            "{path} {change}"
        );
        assert_eq!(site.provider.counts().asked, asked, "{path} {change}");
    }
}

#[tokio::test]
async fn tokens_are_the_owners_and_go_with_them() {
    let site = Site::start().await;
    let servers = site.provider.configured("one", &site.upstream, "");
    let gateway = Start::new(keyed(&servers)).start().await;
    let permission = json!({"mcp_servers": ["one"]});
    let body = |user: &str| json!({"user_id": user, "object_permission": permission});
    let (ada, _) = made(&gateway, body("ada")).await;
    let (adas_other, _) = made(&gateway, body("ada")).await;
    let (bob, bob_id) = made(&gateway, body("bob")).await;
    let (machine, _) = made(&gateway, json!({"object_permission": permission})).await;
    let (elsewhere, _) = made(
        &gateway,
        json!({"user_id": "ada", "object_permission": {"mcp_access_groups": []}}),
    )
    .await;
    sign_in(&site, &gateway, &ada).await;
    assert_eq!(
        (
            call(&gateway, &ada, "/one/mcp").await,
            call(&gateway, &adas_other, "/one/mcp").await
        ),
        (200, 200)
    );
    // Another person, a machine, and a key of hers that is not for the server.
    assert_eq!(
        (
            call(&gateway, &bob, "/one/mcp").await,
            call(&gateway, &machine, "/one/mcp").await
        ),
        (401, 401)
    );
    let not_for_it = called(&gateway, &elsewhere, "/one/mcp").await;
    assert_eq!(
        (not_for_it.status, not_for_it.code()),
        (403, "server_not_allowed")
    );
    let status = "/v1/mcp/server/one/oauth-user-credential/status";
    for (key, code, has) in [
        (&ada, 200, json!(true)),
        (&bob, 200, json!(false)),
        (&elsewhere, 403, Value::Null),
        (&machine, 400, Value::Null),
    ] {
        let shown = ask(&gateway, key, Method::GET, status, Value::Null).await;
        assert_eq!(
            (shown.status, &shown.body["has_credential"]),
            (code, &has),
            "{shown:?}"
        );
    }
    // A forged name changes nothing, wherever it stands.
    let forged = |query: &str| {
        let request = gateway.http.get(gateway.url(&format!("{status}{query}")));
        request
            .header("x-litellm-api-key", &bob)
            .header("x-litellm-end-user-id", "ada")
            .header("x-user-id", "ada")
    };
    assert_eq!(got(forged("")).await.body["has_credential"], false);
    assert_eq!(got(forged("?user_id=ada")).await.status, 400);
    let path = "/v1/mcp/server/one/oauth-user-credential";
    assert_eq!(
        ask(&gateway, &bob, Method::DELETE, path, Value::Null)
            .await
            .code(),
        "no_credential"
    );
    // A token request with a key that is not for the server keeps nothing for anybody.
    let door = Door::of(&gateway);
    let code = door.signed_in(&site.provider).await;
    got(door.token(&code).header("x-litellm-api-key", &elsewhere)).await;
    assert_eq!(
        ask(&gateway, &bob, Method::GET, status, Value::Null).await.body["has_credential"],
        false
    );

    sign_in(&site, &gateway, &bob).await;
    assert_eq!(call(&gateway, &bob, "/one/mcp").await, 200);
    // A key that becomes somebody else's leaves the tokens where they are.
    post(&gateway, "/key/update", json!({"key": bob_id, "user_id": "ada"})).await;
    assert_eq!(call(&gateway, &bob, "/one/mcp").await, 200);
    let gone = post(&gateway, "/user/delete", json!({"user_ids": ["ada"]}))
        .await
        .body;
    assert_eq!(
        (
            gone["deleted_keys"].as_array().map(Vec::len),
            &gone["forgotten_sign_ins"]
        ),
        (Some(4), &json!(1))
    );
    let (again, _) = made(&gateway, body("ada")).await;
    assert_eq!(call(&gateway, &again, "/one/mcp").await, 401);
    let (bobs, _) = made(&gateway, body("bob")).await;
    assert_eq!(call(&gateway, &bobs, "/one/mcp").await, 200);
    for key in [&ada, &adas_other, &bob, &machine, &elsewhere, KEY] {
        site.upstream.assert_never_seen(key);
    }
}

#[tokio::test]
async fn who_cannot_be_written_down_keeps_what_they_had() {
    let town = Town::new().await;
    let gateway = town.start(keyed("")).start().await;
    made(&gateway, json!({"key_alias": "taken"})).await;
    let (ada, one) = (
        UserId::new("ada").expect("an id"),
        ServerId::new("one").expect("an id"),
    );
    let put = town.store.put_grant(&ada, &one, b"x", None, NOW);
    put.await.expect("put");
    let secret = SecretSlice::from(b"own key".to_vec());
    let put = town.store.put_user_secret(&ada, &one, &secret, NOW);
    put.await.expect("put");
    let (key, _) = made(&gateway, json!({"key_alias": "theirs"})).await;
    let refused = post(
        &gateway,
        "/user/new",
        json!({"user_id": "ada", "key_alias": "taken"}),
    )
    .await;
    assert_eq!(refused.code(), "alias_taken");
    assert_eq!(town.store.user(&ada).await.expect("answers"), None);
    assert_eq!(town.store.grants_of(&ada).await.expect("answers").len(), 1);
    assert_eq!(town.store.user_secrets_of(&ada).await.expect("answers").len(), 1);
    // Neither is a key given to somebody whom the same change cannot write down.
    let refused = post(
        &gateway,
        "/key/update",
        json!({"key": key, "user_id": "ada", "key_alias": "taken"}),
    )
    .await;
    assert_eq!(refused.code(), "alias_taken");
    assert_eq!(town.store.user(&ada).await.expect("answers"), None);
}

#[tokio::test]
async fn no_key_is_of_somebody_who_was_deleted_meanwhile() {
    let town = Town::new().await;
    let (first, second) = (
        town.start(keyed("")).start().await,
        town.start(keyed("")).start().await,
    );
    for round in 0..8 {
        let user = format!("u{round}");
        let (_, spare) = made(&first, json!({})).await;
        let (generated, updated, new, deleted, again) = tokio::join!(
            post(&first, "/key/generate", json!({"user_id": user})),
            post(&second, "/key/update", json!({"key": spare, "user_id": user})),
            post(&second, "/user/new", json!({"user_id": user})),
            post(&first, "/user/delete", json!({"user_ids": [user]})),
            post(&second, "/user/delete", json!({"user_ids": [user]})),
        );
        for (done, allowed) in [
            // Whoever asks for a key that was deleted before it could be shown, is told so.
            (&generated, &[200, 404][..]),
            (&updated, &[200, 404, 409]),
            (&new, &[200, 404, 409]),
            (&deleted, &[200, 404]),
            (&again, &[200, 404]),
        ] {
            assert!(allowed.contains(&done.status), "{done:?}");
        }
        let owner = UserId::new(user.as_str()).expect("an id");
        let keys = town.store.api_keys_of(&owner).await.expect("answers");
        let written = town.store.user(&owner).await.expect("answers");
        assert!(written.is_some() || keys.is_empty(), "{keys:?}");
    }
}

#[tokio::test]
async fn a_member_asks_for_no_rows_but_their_own() {
    let upstream = Upstream::start().await;
    let town = Town::new().await;
    let gateway = town.start(keyed("")).start().await;
    let server = json!({"server_name": "one", "url": upstream.url(), "allow_all_keys": true});
    let added = post(&gateway, "/v1/mcp/server", server).await.body;
    let (ann, id) = made(&gateway, json!({"user_id": "ann"})).await;
    assert_eq!(call(&gateway, &ann, "/one/mcp").await, 200);
    let one = format!("/v1/mcp/server/{}", added["server_id"].as_str().expect("an id"));
    // Whoever reads all keys, or a stored server, fails.
    town.behind(
        "PRAGMA ignore_check_constraints = ON; \
         INSERT INTO api_keys (id, digest, hint, document, blocked, created_at, updated_at, version) \
         VALUES ('bad', x'00', 'h', '{}', 0, 1, 1, 1); \
         ALTER TABLE servers RENAME TO away",
    )
    .await;
    for path in ["/key/list", "/v1/mcp/server", &one] {
        assert_eq!(get(&gateway, path).await.code(), "store_unavailable", "{path}");
    }
    let own = async |path: &str| {
        let got = ask(&gateway, &ann, Method::GET, path, Value::Null).await;
        assert_eq!(got.status, 200, "{path}: {got:?}");
        got.body
    };
    for path in [
        "/key/info".to_owned(),
        format!("/key/info?key={id}"),
        format!("/key/info?key={ann}"),
    ] {
        assert_eq!(own(&path).await["key"], json!(id));
    }
    assert_eq!(own("/user/info").await["keys"][0]["key_id"], json!(id));
    for shown in [own("/v1/mcp/server").await[0].clone(), own(&one).await] {
        for field in ["server_id", "version", "created_at", "updated_at"] {
            assert_eq!(shown[field], added[field], "{field}");
        }
        assert_eq!(shown["created_by"], Value::Null);
    }
}

//! What a key may use, through every door, against a model that is written down once more; its limits and its end; and
//! that its text goes nowhere.

use crate::api_keys::{ask, call, called, get, made, post};
use crate::by_hand::Watched;
use crate::console_harness::{Person, attribute, count};
use crate::harness::{Got, KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed};
use crate::kept_harness::Lasting;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;
use vestibule_testkit::{Answer, DEADLINE, Upstream};

const SERVERS: [&str; 4] = ["a", "b", "c", "d"];
const TOOLS: [&str; 2] = ["echo", "write"];

/// `a` is in no group, `b` in one, `c` in two, and `d` is for every key.
fn servers(upstream: &Upstream) -> String {
    let url = upstream.url();
    entry("a", &format!("url: {url}\nserver_id: id-a"))
        + &entry("b", &format!("url: {url}\naccess_groups: [g1]"))
        + &entry("c", &format!("url: {url}\naccess_groups: [g1, g2]\nalias: cc"))
        + &entry("d", &format!("url: {url}\nallow_all_keys: true"))
}

/// What a key says, and what its owner is: said at all, an admin's key has no more than a member's.
#[derive(Debug, Clone)]
struct Case {
    servers: Vec<&'static str>,
    groups: Vec<&'static str>,
    tools: BTreeMap<&'static str, Vec<&'static str>>,
    is_admin: bool,
}

impl Case {
    /// The tools of `server` that the key may use, if it may use the server.
    fn of(&self, server: &str) -> Option<BTreeSet<&'static str>> {
        let all = || Some(TOOLS.into_iter().collect());
        let is_it = |name: &str| match name {
            "id-a" => server == "a",
            "cc" => server == "c",
            name => name == server,
        };
        let groups: &[&str] = match server {
            "b" => &["g1"],
            "c" => &["g1", "g2"],
            _ => &[],
        };
        let tools = self
            .tools
            .iter()
            .find(|(name, _)| is_it(name))
            .map(|(_, tools)| tools);
        let named = self.servers.iter().any(|name| is_it(name));
        let grouped = self.groups.iter().any(|group| groups.contains(group));
        if !(named || grouped || tools.is_some() || server == "d") {
            return None;
        }
        tools.map_or_else(all, |tools| Some(tools.iter().copied().collect()))
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let name = select(vec!["id-a", "a", "b", "c", "cc", "d"]);
    let tools = btree_map(
        select(vec!["id-a", "b", "cc", "d"]),
        vec(select(TOOLS.to_vec()), 0..2),
        0..3,
    );
    let groups = vec(select(vec!["g1", "g2"]), 0..2);
    (vec(name, 0..3), groups, tools, any::<bool>()).prop_map(|(servers, groups, tools, is_admin)| Case {
        servers,
        groups,
        tools,
        is_admin,
    })
}

async fn rpc(gateway: &TestGateway, key: &str, path: &str, method: &str, params: Value) -> Got {
    let request = gateway
        .http
        .post(gateway.url(path))
        .header("x-litellm-api-key", key)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25");
    got(request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))).await
}

fn names(list: &Value) -> BTreeSet<String> {
    let tools = list.as_array().into_iter().flatten();
    tools
        .map(|tool| tool["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// Every door, for one key.
async fn holds(gateway: &TestGateway, key: &str, case: &Case) {
    let mut everything = BTreeSet::new();
    for server in SERVERS {
        let allowed = case.of(server);
        let path = format!("/{server}/mcp");
        let listed = rpc(gateway, key, &path, "tools/list", json!({})).await;
        let rest = ask(
            gateway,
            key,
            Method::GET,
            &format!("/mcp-rest/tools/list?server_id={server}"),
            Value::Null,
        )
        .await;
        let Some(allowed) = allowed else {
            assert_eq!(
                (listed.status, listed.code()),
                (403, "server_not_allowed"),
                "{server} {case:?}"
            );
            assert_eq!(rest.status, 403, "{server} {case:?}");
            for tool in TOOLS {
                let refused = rpc(
                    gateway,
                    key,
                    &path,
                    "tools/call",
                    json!({"name": tool, "arguments": {"message": "x"}}),
                )
                .await;
                assert_eq!(refused.code(), "server_not_allowed", "{server} {case:?}");
                let rest = ask(
                    gateway,
                    key,
                    Method::POST,
                    "/mcp-rest/tools/call",
                    json!({"server_id": server, "name": tool, "arguments": {}}),
                )
                .await;
                assert_eq!(rest.status, 403, "{server} {case:?} {rest:?}");
                let shared = rpc(
                    gateway,
                    key,
                    "/mcp",
                    "tools/call",
                    json!({"name": format!("{server}-{tool}"), "arguments": {"message": "x"}}),
                )
                .await;
                assert!(shared.body["result"].is_null(), "{server} {case:?} {shared:?}");
            }
            let stream = gateway
                .http
                .get(gateway.url(&path))
                .header("x-litellm-api-key", key)
                .header("accept", "text/event-stream");
            assert_eq!(got(stream).await.status, 403);
            continue;
        };
        let allowed: BTreeSet<String> = allowed.into_iter().map(str::to_owned).collect();
        assert_eq!(
            names(&listed.body["result"]["tools"]),
            allowed,
            "{server} {case:?} {listed:?}"
        );
        assert_eq!(names(&rest.body["tools"]), allowed, "{server} {case:?} {rest:?}");
        for tool in TOOLS {
            let may = allowed.contains(tool);
            let params = json!({"name": tool, "arguments": {"message": "x"}});
            let direct = rpc(gateway, key, &path, "tools/call", params).await;
            assert_eq!(
                direct.body["result"].is_object(),
                may,
                "{server} {tool} {case:?} {direct:?}"
            );
            let body = json!({"server_id": server, "name": tool, "arguments": {"message": "x"}});
            let rest = ask(gateway, key, Method::POST, "/mcp-rest/tools/call", body).await;
            assert_eq!(
                rest.status,
                if may { 200 } else { 403 },
                "{server} {tool} {case:?} {rest:?}"
            );
            let params = json!({"name": format!("{}-{tool}", if server == "c" { "cc" } else { server }), "arguments": {"message": "x"}});
            let shared = rpc(gateway, key, "/mcp", "tools/call", params).await;
            assert_eq!(
                shared.body["result"].is_object(),
                may,
                "{server} {tool} {case:?} {shared:?}"
            );
            if may {
                everything.insert(format!("{}-{tool}", if server == "c" { "cc" } else { server }));
            }
        }
    }
    let shared = rpc(gateway, key, "/mcp", "tools/list", json!({})).await;
    assert_eq!(
        names(&shared.body["result"]["tools"]),
        everything,
        "{case:?} {shared:?}"
    );
}

#[tokio::test]
async fn every_door_holds_what_the_key_says() {
    let upstream = Upstream::start().await;
    upstream.set_tools(&TOOLS);
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    for (id, role) in [("root", "admin"), ("ada", "member")] {
        post(
            &gateway,
            "/user/new",
            json!({"user_id": id, "user_role": role, "auto_create_key": false}),
        )
        .await;
    }
    let mut runner = TestRunner::deterministic();
    let nothing = |is_admin| Case {
        servers: vec![],
        groups: vec![],
        tools: BTreeMap::new(),
        is_admin,
    };
    let mut all = vec![nothing(true), nothing(false)];
    for _ in 0..24 {
        all.push(cases().new_tree(&mut runner).expect("a case").current());
    }
    for case in all {
        let body = json!({
            "user_id": if case.is_admin { "root" } else { "ada" },
            "object_permission": {
                "mcp_servers": case.servers, "mcp_access_groups": case.groups, "mcp_tool_permissions": case.tools,
            },
        });
        let (key, _) = made(&gateway, body).await;
        holds(&gateway, &key, &case).await;
        upstream.assert_never_seen(&key);
    }
}

#[tokio::test]
async fn an_admins_key_for_nothing_manages_nothing() {
    let upstream = Upstream::start().await;
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    let root = json!({"user_id": "root", "user_role": "admin", "auto_create_key": false});
    post(&gateway, "/user/new", root).await;
    let manages = async |key: &str| {
        let listed = ask(&gateway, key, Method::GET, "/key/list", Value::Null).await;
        let (a, d) = (
            call(&gateway, key, "/a/mcp").await,
            call(&gateway, key, "/d/mcp").await,
        );
        assert_eq!(d, 200);
        assert_eq!(listed.status == 200, a == 200, "{listed:?}");
        listed.status == 200
    };
    let (whole, whole_id) = made(&gateway, json!({"user_id": "root"})).await;
    assert!(manages(&whole).await);
    for nothing in [
        json!({}),
        json!({"mcp_servers": []}),
        json!({"mcp_servers": [], "mcp_access_groups": [], "mcp_tool_permissions": {}}),
        json!({"mcp_servers": null}),
    ] {
        let body = json!({"user_id": "root", "object_permission": nothing});
        let (key, id) = made(&gateway, body).await;
        assert!(!manages(&key).await, "{nothing}");
        let info = get(&gateway, &format!("/key/info?key={id}")).await;
        assert_eq!(info.body["info"]["narrowed"], true);
        for (field, value) in [
            ("key_alias", json!(id)),
            ("rpm_limit", json!(1000)),
            ("user_id", json!("root")),
            ("metadata", json!({"a": 1})),
            ("blocked", json!(false)),
            ("object_permission", json!({})),
        ] {
            assert_eq!(
                post(&gateway, "/key/update", json!({"key": id, field: value}))
                    .await
                    .status,
                200
            );
            assert!(!manages(&key).await, "{nothing} {field}");
        }
        // It does not let itself out.
        let out = json!({"key": id, "object_permission": null});
        let refused = ask(&gateway, &key, Method::POST, "/key/update", out.clone()).await;
        assert_eq!(refused.code(), "admin_required");
        assert_eq!(post(&gateway, "/key/update", out).await.status, 200);
        assert!(manages(&key).await);
    }
    let narrowed = json!({"key": whole_id, "object_permission": {}});
    assert_eq!(post(&gateway, "/key/update", narrowed).await.status, 200);
    assert!(!manages(&whole).await);
}

#[tokio::test]
async fn a_key_for_a_deleted_server_stays_narrowed() {
    let upstream = Upstream::start().await;
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    let root = json!({"user_id": "root", "user_role": "admin", "auto_create_key": false});
    post(&gateway, "/user/new", root).await;
    let added = json!({"server_name": "late", "url": upstream.url()});
    let added = post(&gateway, "/v1/mcp/server", added).await;
    assert_eq!(added.status, 201, "{added:?}");
    let only = json!({"user_id": "root", "object_permission": {"mcp_servers": ["late"]}});
    let (key, id) = made(&gateway, only).await;
    let path = format!(
        "/v1/mcp/server/{}",
        added.body["server_id"].as_str().expect("an id")
    );
    assert_eq!(
        ask(&gateway, KEY, Method::DELETE, &path, Value::Null)
            .await
            .status,
        202
    );
    // The admin says what is left of it, which is nothing.
    for body in [
        json!({"key": id, "key_alias": "x"}),
        json!({"key": id, "object_permission": {"mcp_servers": []}}),
    ] {
        assert_eq!(post(&gateway, "/key/update", body).await.status, 200);
        let refused = ask(&gateway, &key, Method::GET, "/key/list", Value::Null).await;
        assert_eq!(refused.code(), "admin_required");
        assert_eq!(call(&gateway, &key, "/a/mcp").await, 403);
    }
    // The form keeps it so, and says so.
    let operator = Person::operator(&gateway).await;
    let edit = format!("/ui/keys/{id}/edit");
    for (box_, status) in [(Some(("narrowed", "yes")), 403), (None, 200)] {
        let form = operator.page(&edit).await;
        assert_eq!(count(&form, "input[name=narrowed][checked]"), 1);
        let version = attribute(&form, "input[name=version]", "value");
        let mut filled = vec![
            ("version", version.as_str()),
            ("alias", "y"),
            ("user", "root"),
            ("duration", "keep"),
        ];
        filled.extend(box_);
        operator.done(&edit, &filled).await;
        assert_eq!(call(&gateway, &key, "/a/mcp").await, status);
    }
}

#[tokio::test]
async fn a_key_has_so_many_requests_a_minute() {
    let upstream = Upstream::start().await;
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    let (key, id) = made(&gateway, json!({"rpm_limit": 3})).await;
    for _ in 0..3 {
        assert_eq!(call(&gateway, &key, "/d/mcp").await, 200);
    }
    let refused = called(&gateway, &key, "/d/mcp").await;
    assert_eq!(
        (refused.status, refused.code(), refused.header("retry-after")),
        (429, "key_rate_limited", "20")
    );
    // Every door counts, and the limit is the key's alone.
    let rest = ask(&gateway, &key, Method::GET, "/mcp-rest/tools/list", Value::Null).await;
    assert_eq!((rest.status, call(&gateway, KEY, "/d/mcp").await), (429, 200));
    gateway.advance(20);
    assert_eq!(
        (
            call(&gateway, &key, "/d/mcp").await,
            call(&gateway, &key, "/d/mcp").await
        ),
        (200, 429)
    );
    // A change of something else leaves the count as it is; a new limit begins anew.
    post(&gateway, "/key/update", json!({"key": id, "key_alias": "b"})).await;
    assert_eq!(call(&gateway, &key, "/d/mcp").await, 429);
    post(&gateway, "/key/update", json!({"key": id, "rpm_limit": 1})).await;
    assert_eq!(
        (
            call(&gateway, &key, "/d/mcp").await,
            call(&gateway, &key, "/d/mcp").await
        ),
        (200, 429)
    );
    post(&gateway, "/key/update", json!({"key": id, "rpm_limit": null})).await;
    for _ in 0..5 {
        assert_eq!(call(&gateway, &key, "/d/mcp").await, 200);
    }
}

#[tokio::test]
async fn a_key_ends_when_it_was_to() {
    let upstream = Upstream::start().await;
    let gateway = Start::new(keyed(&servers(&upstream))).start().await;
    let (key, id) = made(&gateway, json!({"duration": "1h"})).await;
    gateway.advance(3599);
    // The clock jumped; a change makes the gateway hear its store.
    made(&gateway, json!({})).await;
    assert_eq!(call(&gateway, &key, "/d/mcp").await, 200);
    gateway.advance(1);
    let over = called(&gateway, &key, "/d/mcp").await;
    assert_eq!((over.status, over.code()), (401, "key_expired"));
    // It is a key, and no token for a server that lets callers in by itself.
    upstream.assert_never_seen(&key);
    post(&gateway, "/key/update", json!({"key": id, "duration": "1h"})).await;
    assert_eq!(call(&gateway, &key, "/d/mcp").await, 200);
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    for end in ["block", "delete", "narrow", "rotate"] {
        let server = Watched::start().await;
        let gateway = Start::new(keyed(&server.entry("one", ""))).start().await;
        let (key, id) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
        let (stream, handle) = Answer::sse();
        server.push(stream);
        let request = gateway
            .http
            .get(gateway.url("/one/mcp"))
            .header("x-litellm-api-key", &key);
        let mut open = request
            .header("accept", "text/event-stream")
            .send()
            .await
            .expect("answered");
        assert_eq!(open.status(), 200);
        handle.send(b"data: {}\n\n").await.expect("sent");
        assert!(open.chunk().await.expect("a piece").is_some());
        let done = match end {
            "block" => post(&gateway, "/key/block", json!({"key": id})).await,
            "delete" => post(&gateway, "/key/delete", json!({"keys": [id]})).await,
            "narrow" => {
                post(
                    &gateway,
                    "/key/update",
                    json!({"key": id, "object_permission": null}),
                )
                .await
            }
            _ => post(&gateway, "/key/regenerate", json!({"key": id})).await,
        };
        assert_eq!(done.status, 200, "{done:?}");
        let over = timeout(DEADLINE, async {
            while matches!(open.chunk().await, Ok(Some(_))) {}
        })
        .await;
        assert!(over.is_ok(), "{end}: the stream goes on");
    }
}

#[tokio::test]
async fn a_key_in_any_place_goes_to_no_server() {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let names = "[X-Custom, X-Other, Authorization]";
    let servers = entry(
        "open",
        &format!("url: {url}\nallow_all_keys: true\nextra_headers: {names}"),
    ) + &entry("own", &format!("url: {url}\nauth_type: true_passthrough"));
    let gateway = Start::new(keyed(&servers)).start().await;
    let (key, _) = made(&gateway, json!({})).await;
    let (other, other_id) = made(&gateway, json!({"user_id": "ada"})).await;
    post(&gateway, "/key/block", json!({"key": other_id})).await;
    let basic = |text: &str| {
        use base64::{Engine, prelude::BASE64_STANDARD};
        format!("Basic {}", BASE64_STANDARD.encode(format!("ada:{text}")))
    };
    for secret in [&key, &other] {
        for (header, value) in [
            ("x-custom", secret.clone()),
            ("x-custom", format!("Bearer {secret}")),
            ("x-custom", format!("a={secret}; b=c")),
            ("x-custom", basic(secret)),
            ("x-other", secret.clone()),
            ("authorization", format!("Bearer {secret}")),
            ("authorization", basic(secret)),
            ("x-mcp-auth", secret.clone()),
            ("x-mcp-own-authorization", format!("Bearer {secret}")),
            ("x-mcp-open-x-custom", secret.clone()),
            ("cookie", format!("a={secret}")),
            ("mcp-session-id", secret.clone()),
            ("mcp-protocol-version", secret.clone()),
            ("last-event-id", secret.clone()),
        ] {
            for path in ["/open/mcp", "/own/mcp", "/mcp"] {
                let request = gateway
                    .http
                    .post(gateway.url(path))
                    .header("x-litellm-api-key", &key)
                    .header(header, &value);
                let request = request.header("accept", "application/json, text/event-stream");
                got(request.json(&crate::harness::echo("a"))).await;
            }
        }
    }
    // And alone, where no key is needed.
    for value in [format!("Bearer {key}"), basic(&key)] {
        let request = gateway
            .http
            .post(gateway.url("/own/mcp"))
            .header("authorization", value);
        got(request.json(&crate::harness::echo("a"))).await;
    }
    for secret in [&key, &other] {
        upstream.assert_never_seen(secret);
        for request in upstream.requests() {
            assert!(
                request
                    .headers
                    .iter()
                    .all(|(_, value)| !value.contains(&basic(secret)[6..])),
                "{request:?}"
            );
        }
    }
    assert_nothing_secret_logged(&[&key, &other]);
}

#[tokio::test]
async fn what_cannot_be_read_grants_nothing() {
    let upstream = Upstream::start().await;
    let lasting = Lasting::new();
    let gateway = lasting.gateway(&servers(&upstream)).await;
    post(
        &gateway,
        "/user/new",
        json!({"user_id": "root", "user_role": "admin", "auto_create_key": false}),
    )
    .await;
    let (key, id) = made(&gateway, json!({"user_id": "root"})).await;
    assert_eq!(
        (
            call(&gateway, &key, "/a/mcp").await,
            call(&gateway, &key, "/d/mcp").await
        ),
        (200, 200)
    );
    assert_eq!(
        lasting
            .behind("UPDATE api_keys SET document = '{\"object_permission\":7}', version = version + 1")
            .await,
        1
    );
    // Any change makes the gateway look.
    made(&gateway, json!({})).await;
    assert_eq!(
        (
            call(&gateway, &key, "/a/mcp").await,
            call(&gateway, &key, "/d/mcp").await
        ),
        (403, 200)
    );
    assert_eq!(
        ask(&gateway, &key, Method::GET, "/key/list", Value::Null)
            .await
            .code(),
        "admin_required"
    );
    let shown = get(&gateway, &format!("/key/info?key={id}")).await.body;
    assert_eq!(
        (&shown["info"]["unreadable"], &shown["info"]["user_role"]),
        (&json!(true), &json!("internal_user"))
    );
    // Nothing that would make it readable again by the way.
    let refused = post(&gateway, "/key/update", json!({"key": id, "rpm_limit": 5})).await;
    assert_eq!(refused.code(), "invalid_field");
    assert_eq!(
        post(&gateway, "/key/update", json!({"key": id, "key_alias": "x"}))
            .await
            .status,
        200
    );
    assert_eq!(call(&gateway, &key, "/a/mcp").await, 403);
    let mended = post(
        &gateway,
        "/key/update",
        json!({"key": id, "object_permission": {"mcp_servers": ["a"]}}),
    )
    .await;
    assert_eq!((mended.status, call(&gateway, &key, "/a/mcp").await), (200, 200));
}

#[tokio::test]
async fn a_store_that_is_silent_too_long_stops_keys_and_not_the_master_key() {
    let upstream = Upstream::start().await;
    let lasting = Lasting::new();
    let gateway = lasting.gateway(&servers(&upstream)).await;
    let (key, _) = made(&gateway, json!({})).await;
    assert_eq!(call(&gateway, &key, "/d/mcp").await, 200);
    lasting.behind("ALTER TABLE changes RENAME TO hidden").await;
    // Whether the gateway looks a last time before is not known; after this, the last answer is too old either way.
    let stopped = async {
        loop {
            gateway.advance(301);
            let refused = called(&gateway, &key, "/d/mcp").await;
            if refused.status != 200 {
                return refused;
            }
        }
    };
    let refused = timeout(DEADLINE, stopped).await.expect("in time");
    assert_eq!((refused.status, refused.code()), (503, "keys_unavailable"));
    assert_eq!(call(&gateway, KEY, "/d/mcp").await, 200);
    let unwritten = post(&gateway, "/key/generate", json!({})).await;
    assert_eq!((unwritten.status, unwritten.code()), (503, "store_unavailable"));
    lasting.behind("ALTER TABLE hidden RENAME TO changes").await;
    let again = async { while call(&gateway, &key, "/d/mcp").await != 200 {} };
    assert!(timeout(DEADLINE, again).await.is_ok(), "keys count again");
}

#[tokio::test]
async fn a_change_is_seen_by_the_other_replica_within_a_second() {
    let upstream = Upstream::start().await;
    let lasting = Lasting::new();
    let (first, second) = (
        lasting.gateway(&servers(&upstream)).await,
        lasting.gateway(&servers(&upstream)).await,
    );
    let reaches = async |key: &str, status: u16| {
        let reached = async { while call(&second, key, "/d/mcp").await != status {} };
        assert!(
            timeout(Duration::from_secs(1), reached).await.is_ok(),
            "{status} within a second"
        );
    };
    let (key, id) = made(&first, json!({"user_id": "ada"})).await;
    reaches(&key, 200).await;
    post(&first, "/key/block", json!({"key": id})).await;
    assert_eq!(call(&first, &key, "/d/mcp").await, 403);
    reaches(&key, 403).await;
    post(&first, "/key/unblock", json!({"key": id})).await;
    reaches(&key, 200).await;
    post(&first, "/user/update", json!({"user_id": "ada", "blocked": true})).await;
    reaches(&key, 403).await;
    post(&first, "/user/delete", json!({"user_ids": ["ada"]})).await;
    reaches(&key, 401).await;
    // Both at once: each change is written whole, and none is lost.
    let (shared, id) = made(&first, json!({})).await;
    reaches(&shared, 200).await;
    let changes = (0..6).map(|number| {
        let gateway = if number % 2 == 0 { &first } else { &second };
        let body = if number < 3 {
            json!({"key": id, "rpm_limit": 100 + number})
        } else {
            json!({"key": id, "metadata": {"number": number}})
        };
        post(gateway, "/key/update", body)
    });
    let done = futures_util::future::join_all(changes).await;
    assert!(
        done.iter().any(|done| done.status == 200)
            && done.iter().all(|done| matches!(done.status, 200 | 409)),
        "{done:?}"
    );
    let row = get(&second, &format!("/key/info?key={id}")).await.body;
    let last = |of: &str| done.iter().any(|done| done.body[of] == row["info"][of]);
    assert!(last("rpm_limit") && last("metadata"), "{row}");
}

//! Keys when servers get other names and ids: limits stay with their servers, and nobody inherits a grant with a name.

use crate::api_keys::{ask, get, made, post};
use crate::console_forms::Form;
use crate::console_harness::{Person, count, html, text};
use crate::harness::{TestGateway, entry, got, keyed};
use crate::people::Town;
use crate::servers_harness::{SERVERS, Site, add, change, until};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use vestibule_testkit::Upstream;

async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.set_tools(&["echo", "write"]);
    upstream
}

/// The tools of a server that a key may use, which are the same through every door; nothing where it may not use the
/// server.
async fn tools(gateway: &TestGateway, key: &str, server: &str) -> Option<BTreeSet<String>> {
    let rpc = |method: &'static str, params: Value| {
        let request = gateway
            .http
            .post(gateway.url(&format!("/{server}/mcp")))
            .header("x-litellm-api-key", key)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25");
        got(request.json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})))
    };
    let listed = rpc("tools/list", json!({})).await;
    if listed.status != 200 {
        assert_eq!(listed.code(), "server_not_allowed", "{listed:?}");
        return None;
    }
    let list = listed.body["result"]["tools"].as_array().expect("a list");
    let found: BTreeSet<String> = list
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name").to_owned())
        .collect();
    for tool in ["echo", "write"] {
        let params = json!({"name": tool, "arguments": {"message": "x"}});
        let called = rpc("tools/call", params).await;
        assert_eq!(
            called.body["result"].is_object(),
            found.contains(tool),
            "{called:?}"
        );
        let body = json!({"server_id": server, "name": tool, "arguments": {"message": "x"}});
        let rest = ask(gateway, key, Method::POST, "/mcp-rest/tools/call", body).await;
        assert_eq!(rest.status == 200, found.contains(tool), "{rest:?}");
    }
    Some(found)
}

fn only(tools: &[&str]) -> BTreeSet<String> {
    tools.iter().map(|tool| (*tool).to_owned()).collect()
}

async fn said(gateway: &TestGateway, id: &str) -> Value {
    let info = get(gateway, &format!("/key/info?key={id}")).await;
    info.body["info"]["object_permission"].clone()
}

fn server(name: &str, upstream: &Upstream) -> Value {
    json!({"server_name": name, "url": upstream.url(), "mcp_access_groups": ["team"]})
}

#[tokio::test]
async fn a_renamed_server_keeps_its_limit_and_leaves_nobody_its_grant() {
    let upstream = upstream().await;
    let site = Site::new();
    let (gateway, other) = (
        site.gateway(keyed("")).start().await,
        site.gateway(keyed("")).start().await,
    );
    let added = add(&gateway, &server("one", &upstream)).await;
    let id = added["server_id"].as_str().expect("an id").to_owned();
    let by_group = json!({"mcp_access_groups": ["team"], "mcp_tool_permissions": {"one": ["echo"]}});
    let (grouped, grouped_id) = made(&gateway, json!({"object_permission": by_group})).await;
    let (named, named_id) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
    let (limited, _) = made(
        &gateway,
        json!({"object_permission": {"mcp_tool_permissions": {"one": ["echo"]}}}),
    )
    .await;
    assert_eq!(
        said(&gateway, &grouped_id).await["mcp_tool_permissions"],
        json!({"one": ["echo"]})
    );
    assert_eq!(tools(&gateway, &grouped, "one").await, Some(only(&["echo"])));

    change(&gateway, &json!({"server_id": id, "server_name": "two"})).await;
    // The other replica takes the new name at once, and the one that is gone no more.
    let (_, late) = made(&other, json!({"object_permission": {"mcp_servers": ["two"]}})).await;
    assert_eq!(said(&gateway, &late).await["mcp_servers"], json!(["two"]));
    let gone = post(
        &other,
        "/key/generate",
        json!({"object_permission": {"mcp_servers": ["one"]}}),
    )
    .await;
    assert_eq!(gone.code(), "unknown_name");
    for (key, found) in [
        (&grouped, Some(only(&["echo"]))),
        (&named, Some(only(&["echo", "write"]))),
        (&limited, Some(only(&["echo"]))),
    ] {
        assert_eq!(tools(&gateway, key, "two").await, found);
        assert_eq!(tools(&other, key, "two").await, found);
    }
    // It is said in the names of now, so that saying it again means the same.
    let now = said(&gateway, &grouped_id).await;
    assert_eq!(now["mcp_tool_permissions"], json!({"two": ["echo"]}));
    assert_eq!(said(&gateway, &named_id).await["mcp_servers"], json!(["two"]));

    // Whoever takes the name takes neither the grant, nor freedom from the limit.
    add(&gateway, &server("one", &upstream)).await;
    assert_eq!(tools(&gateway, &named, "one").await, None);
    assert_eq!(tools(&gateway, &limited, "one").await, None);
    assert_eq!(tools(&gateway, &grouped, "two").await, Some(only(&["echo"])));
    assert_eq!(tools(&gateway, &grouped, "one").await, Some(only(&["echo"])));
    assert_eq!(said(&gateway, &named_id).await["mcp_servers"], json!(["two"]));
    // An update of something else changes nothing about that; saying it again does.
    post(
        &gateway,
        "/key/update",
        json!({"key": named_id, "key_alias": "named"}),
    )
    .await;
    assert_eq!(tools(&gateway, &named, "one").await, None);
    let anew = json!({"key": grouped_id, "object_permission": {"mcp_tool_permissions": {"two": ["write"]}}});
    post(&gateway, "/key/update", anew).await;
    assert_eq!(tools(&gateway, &grouped, "two").await, Some(only(&["write"])));
    assert_eq!(
        tools(&gateway, &grouped, "one").await,
        Some(only(&["echo", "write"]))
    );
}

#[tokio::test]
async fn names_that_are_exchanged_take_no_limit_along() {
    let upstream = upstream().await;
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let added = add(&gateway, &server(name, &upstream)).await;
        ids.push(added["server_id"].as_str().expect("an id").to_owned());
    }
    let limits = json!({"one": ["echo"], "two": ["write"]});
    let both = json!({"mcp_access_groups": ["team"], "mcp_tool_permissions": limits});
    let (key, id) = made(&gateway, json!({"object_permission": both})).await;
    for (server, name) in [(0, "three"), (1, "one"), (0, "two")] {
        change(&gateway, &json!({"server_id": ids[server], "server_name": name})).await;
    }
    assert_eq!(tools(&gateway, &key, "two").await, Some(only(&["echo"])));
    assert_eq!(tools(&gateway, &key, "one").await, Some(only(&["write"])));
    let limits = json!({"one": ["write"], "two": ["echo"]});
    assert_eq!(said(&gateway, &id).await["mcp_tool_permissions"], limits);
}

#[tokio::test]
async fn a_server_that_takes_the_name_of_a_deleted_one_is_granted_to_nobody() {
    let upstream = upstream().await;
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let added = add(&gateway, &server("one", &upstream)).await;
    let gone = added["server_id"].as_str().expect("an id").to_owned();
    let by_group = json!({"mcp_access_groups": ["team"], "mcp_tool_permissions": {"one": ["echo"]}});
    let (grouped, grouped_id) = made(&gateway, json!({"object_permission": by_group})).await;
    let (named, named_id) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
    let limited = json!({"mcp_tool_permissions": {"one": ["echo"]}});
    let (limited, limited_id) = made(&gateway, json!({"object_permission": limited})).await;
    let path = format!("{SERVERS}/{gone}");
    assert_eq!(
        ask(&gateway, crate::harness::KEY, Method::DELETE, &path, Value::Null)
            .await
            .status,
        202
    );
    assert_eq!(said(&gateway, &named_id).await["mcp_servers"], json!(["one"]));

    // A limit that limits nothing is said where an admin looks for what is wrong.
    let operator = Person::operator(&gateway).await;
    let page = operator.page("/ui/health").await;
    assert!(text(&page, "section[aria-labelledby=limits]").contains(": one"));

    add(&gateway, &server("one", &upstream)).await;
    assert_eq!(tools(&gateway, &named, "one").await, None);
    assert_eq!(tools(&gateway, &grouped, "one").await, Some(only(&["echo"])));
    assert_eq!(
        count(
            &operator.page("/ui/health").await,
            "section[aria-labelledby=limits]"
        ),
        0
    );
    // The name would say another server, so the id says which one was meant; the form does not tick the other one.
    assert_eq!(said(&gateway, &named_id).await["mcp_servers"], json!([gone]));
    // A limit is said of the server that it limits, and where there is none, it says no server that it would grant.
    let now = said(&gateway, &grouped_id).await["mcp_tool_permissions"].clone();
    assert_eq!(now, json!({"one": ["echo"]}));
    assert_eq!(tools(&gateway, &limited, "one").await, None);
    let of_gone = said(&gateway, &limited_id).await["mcp_tool_permissions"].clone();
    assert_eq!(of_gone, json!({(gone.as_str()): ["echo"]}));
    let again = json!({"key": grouped_id, "object_permission": {"mcp_tool_permissions": now}});
    assert_eq!(post(&gateway, "/key/update", again).await.status, 200);
    assert_eq!(tools(&gateway, &grouped, "one").await, Some(only(&["echo"])));
    let form = operator.page(&format!("/ui/keys/{named_id}/edit")).await;
    let ticked = format!("input[name=gone][checked][value='{gone}']");
    assert_eq!(
        (count(&form, "input[name=server][checked]"), count(&form, &ticked)),
        (0, 1)
    );
}

#[tokio::test]
async fn a_form_grants_the_servers_that_it_showed_whatever_they_are_called_when_it_is_saved() {
    let upstream = upstream().await;
    let site = Site::new();
    let gateway = site.gateway(keyed("")).start().await;
    let added = add(&gateway, &server("one", &upstream)).await;
    let id = added["server_id"].as_str().expect("an id").to_owned();
    let both = json!({"mcp_servers": ["one"], "mcp_tool_permissions": {"one": ["echo"]}});
    let (kept, kept_id) = made(&gateway, json!({"object_permission": both})).await;
    let (ticked, ticked_id) = made(&gateway, json!({"object_permission": {}})).await;
    let (late, late_id) = made(&gateway, json!({"object_permission": {}})).await;
    let operator = Person::operator(&gateway).await;
    let form = async |id: &str| Form::with(operator.page(&format!("/ui/keys/{id}/edit")).await, "Save");
    let (same, tick, tick_late) = (
        form(&kept_id).await.fill("Alias", "kept"),
        form(&ticked_id).await.tick("one"),
        form(&late_id).await.tick("one"),
    );

    change(&gateway, &json!({"server_id": id, "server_name": "two"})).await;
    add(&gateway, &server("one", &upstream)).await;
    let (_, page) = same.done(&operator).await;
    assert!(text(&page, "dl").contains("For two, two Tools two: echo"));
    let (_, page) = tick.done(&operator).await;
    assert!(text(&page, "dl").contains("For two Tools"));
    for (key, found) in [(&kept, only(&["echo"])), (&ticked, only(&["echo", "write"]))] {
        assert_eq!(tools(&gateway, key, "one").await, None);
        assert_eq!(tools(&gateway, key, "two").await, Some(found));
    }

    // What is gone can stay, but is not granted anew.
    let path = format!("{SERVERS}/{id}");
    let deleted = ask(&gateway, crate::harness::KEY, Method::DELETE, &path, Value::Null).await;
    assert_eq!(deleted.status, 202);
    assert_eq!(tick_late.send(&operator).await.status, 400);
    assert_eq!(tools(&gateway, &late, "one").await, None);
    let (same, more) = (form(&ticked_id).await, form(&ticked_id).await.tick("one"));
    add(&gateway, &server("two", &upstream)).await;
    let refused = more.send(&operator).await;
    assert_eq!(refused.status, 400);
    assert!(text(&html(&refused), "[role=alert]").contains("not there any more"));
    same.done(&operator).await;
    for server in ["one", "two"] {
        assert_eq!(tools(&gateway, &ticked, server).await, None);
    }
}

#[tokio::test]
async fn a_server_of_the_file_keeps_limit_and_grant_at_another_url() {
    let site = Site::new();
    let (here, there) = (upstream().await, upstream().await);
    let text = |upstream: &Upstream| {
        keyed(&entry(
            "one",
            &format!("url: {}\naccess_groups: [team]", upstream.url()),
        ))
    };
    let file = site.path("gateway.yaml");
    std::fs::write(&file, text(&here)).expect("written");
    let gateway = site.gateway(text(&here)).file(&file).start().await;
    let list = get(&gateway, SERVERS).await;
    let id = list.body[0]["server_id"].as_str().expect("an id").to_owned();
    let limited = |name: &str| {
        let limits = json!({name: ["echo"]});
        json!({"object_permission": {"mcp_access_groups": ["team"], "mcp_tool_permissions": limits}})
    };
    let (by_name, _) = made(&gateway, limited("one")).await;
    let (by_id, limited_id) = made(&gateway, limited(&id)).await;
    let (named, _) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
    let (of_id, of_id_id) = made(&gateway, json!({"object_permission": {"mcp_servers": [id]}})).await;
    assert_eq!(said(&gateway, &of_id_id).await["mcp_servers"], json!([id]));

    std::fs::write(&file, text(&there)).expect("written");
    until("moved", || async {
        get(&gateway, SERVERS).await.body[0]["server_id"] != json!(id)
    })
    .await;
    for key in [&by_name, &by_id] {
        assert_eq!(tools(&gateway, key, "one").await, Some(only(&["echo"])));
    }
    for key in [&named, &of_id] {
        assert_eq!(tools(&gateway, key, "one").await, Some(only(&["echo", "write"])));
    }
    assert!(!there.requests().is_empty(), "the other one is asked");
    assert_eq!(said(&gateway, &of_id_id).await["mcp_servers"], json!(["one"]));
    assert_eq!(
        said(&gateway, &limited_id).await["mcp_tool_permissions"],
        json!({"one": ["echo"]})
    );

    // A stored server of the name is another one.
    std::fs::write(&file, keyed("")).expect("written");
    until("gone", || async {
        get(&gateway, SERVERS).await.body == json!([])
    })
    .await;
    add(&gateway, &server("one", &here)).await;
    for key in [&named, &of_id] {
        assert_eq!(tools(&gateway, key, "one").await, None);
    }
    assert_eq!(tools(&gateway, &by_name, "one").await, Some(only(&["echo"])));
}

/// A server of the file whose entry is written anew, with a key that is limited, and one that is granted it.
struct Filed {
    gateway: TestGateway,
    file: std::path::PathBuf,
    upstream: Upstream,
    grouped: String,
    named: String,
    _site: Site,
}

impl Filed {
    async fn start() -> Self {
        let (site, upstream) = (Site::new(), upstream().await);
        let file = site.path("gateway.yaml");
        let text = keyed(&Self::entry("one", "", &upstream));
        std::fs::write(&file, &text).expect("written");
        let gateway = site.gateway(text).file(&file).start().await;
        let limited = json!({"mcp_access_groups": ["team"], "mcp_tool_permissions": {"one": ["echo"]}});
        let (grouped, _) = made(&gateway, json!({"object_permission": limited})).await;
        let (named, _) = made(&gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
        Self {
            gateway,
            file,
            upstream,
            grouped,
            named,
            _site: site,
        }
    }

    fn entry(name: &str, more: &str, upstream: &Upstream) -> String {
        let fields = format!("url: {}\naccess_groups: [team]\n{more}", upstream.url());
        entry(name, &fields)
    }

    async fn id(&self) -> String {
        let list = get(&self.gateway, SERVERS).await;
        list.body[0]["server_id"].as_str().expect("an id").to_owned()
    }

    fn write(&self, servers: &str) {
        std::fs::write(&self.file, keyed(servers)).expect("written");
    }

    /// Writes the entry, and waits until the server is there by this name and id.
    async fn becomes(&self, name: &str, id: &str, upstream: &Upstream) {
        self.write(&Self::entry(name, &format!("server_id: {id}"), upstream));
        until("written anew", || async {
            let list = get(&self.gateway, SERVERS).await.body;
            list[0]["server_id"] == id && list[0]["server_name"] == name && list[0]["url"] == upstream.url()
        })
        .await;
    }

    async fn holds(&self, name: &str) {
        let limited = Some(only(&["echo"]));
        assert_eq!(tools(&self.gateway, &self.grouped, name).await, limited);
        let both = Some(only(&["echo", "write"]));
        assert_eq!(tools(&self.gateway, &self.named, name).await, both);
    }
}

#[tokio::test]
async fn a_server_of_the_file_keeps_limit_and_grant_with_a_server_id() {
    let filed = Filed::start().await;
    filed.becomes("one", "own", &filed.upstream).await;
    filed.holds("one").await;
    // At another URL there is no saying whether it is the one that was meant: the limit stays, and the grant does not.
    let there = upstream().await;
    filed.becomes("one", "own", &there).await;
    let (gateway, limited) = (&filed.gateway, Some(only(&["echo"])));
    assert_eq!(tools(gateway, &filed.grouped, "one").await, limited);
    assert_eq!(tools(gateway, &filed.named, "one").await, None);
}

#[tokio::test]
async fn a_server_of_the_file_keeps_limit_and_grant_under_a_new_name_with_the_id_that_it_had() {
    let filed = Filed::start().await;
    let id = filed.id().await;
    for name in ["one", "two"] {
        filed.becomes(name, &id, &filed.upstream).await;
        filed.holds(name).await;
    }
    // Whoever takes the old name with an id of its own inherits nothing but the limit.
    let (renamed, there) = (format!("server_id: {id}"), upstream().await);
    let two = Filed::entry("two", &renamed, &filed.upstream);
    filed.write(&(two + &Filed::entry("one", "server_id: own", &there)));
    until("two of them", || async {
        get(&filed.gateway, SERVERS)
            .await
            .body
            .as_array()
            .is_some_and(|all| all.len() == 2)
    })
    .await;
    filed.holds("two").await;
    assert_eq!(tools(&filed.gateway, &filed.named, "one").await, None);
    assert_eq!(
        tools(&filed.gateway, &filed.grouped, "one").await,
        Some(only(&["echo"]))
    );
}

#[tokio::test]
async fn saying_the_id_that_a_server_of_the_file_has_anyway_changes_nothing() {
    let filed = Filed::start().await;
    let (before, there) = (filed.id().await, upstream().await);
    filed.write(&Filed::entry("one", "", &there));
    until("moved", || async { filed.id().await != before }).await;
    filed.holds("one").await;
    filed.becomes("one", &filed.id().await, &there).await;
    filed.holds("one").await;
}

#[tokio::test]
async fn of_several_limits_each_one_holds() {
    let upstream = upstream().await;
    let town = Town::new().await;
    let url = upstream.url();
    let text = keyed(&entry(
        "one",
        &format!("url: {url}\nserver_id: id-one\nalias: first"),
    ));
    let gateway = town.start(text).start().await;
    for (key, limits, found) in [
        (
            "a",
            json!({"id-one": ["echo", "write"], "one": ["write"]}),
            Some(only(&["write"])),
        ),
        (
            "b",
            json!({"first": ["Echo"], "one": ["one-echo", "write"]}),
            Some(only(&["echo"])),
        ),
        (
            "c",
            json!({"first": ["echo"], "id-one": ["write"]}),
            Some(only(&[])),
        ),
    ] {
        let document = json!({"object_permission": {"mcp_tool_permissions": limits}});
        let key = town.key_with(key, "ada", &document).await;
        gateway.looks().await;
        assert_eq!(tools(&gateway, &key, "one").await, found);
    }
}

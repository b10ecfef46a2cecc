//! Open streams while the configuration changes: which of them end with a server, or with the master key, and that no
//! other notices.

use crate::aggregate_sessions::{begun, call};
use crate::aggregate_streams::{Events, posted, stream};
use crate::aggregate_subscriptions::{acknowledged, listening, listens, server};
use crate::api_keys::made;
use crate::by_hand::Watched;
use crate::harness::{KEY, Start, TestGateway, echo, keyed};
use crate::live::{Site, open as entry};
use crate::servers_harness::{SERVERS, add, ask, change};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use vestibule_testkit::{Answer, DEADLINE, Request, SseHandle};

const CHANGED: &[u8] = b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

fn is_get(request: &Request) -> bool {
    request.method == "GET"
}

fn changed() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
}

/// A stream of one server's, on which something came already.
struct Open {
    response: reqwest::Response,
    handle: SseHandle,
}

impl Open {
    async fn of(server: &Watched, request: reqwest::RequestBuilder) -> Self {
        let (answer, handle) = Answer::sse();
        server.push(answer);
        let request = request.header("accept", "application/json, text/event-stream");
        let (response, sent) = tokio::join!(request.send(), handle.send(CHANGED));
        sent.expect("sent");
        let mut response = response.expect("answered");
        assert_eq!(response.status(), 200);
        assert_eq!(response.chunk().await.expect("a piece").expect("more"), CHANGED);
        Self { response, handle }
    }

    /// Nothing more comes, and the server learns it.
    async fn ends(mut self) {
        ended(&mut self.response).await;
        self.handle.closed().await;
    }

    async fn goes_on(&mut self) {
        self.handle.send(CHANGED).await.expect("sent");
        let piece = timeout(DEADLINE, self.response.chunk()).await.expect("in time");
        assert_eq!(piece.expect("a piece").expect("more"), CHANGED);
    }
}

async fn ended(response: &mut reqwest::Response) {
    let over = async { while matches!(response.chunk().await, Ok(Some(_))) {} };
    timeout(DEADLINE, over).await.expect("the stream goes on");
}

fn get(gateway: &TestGateway, path: &str) -> reqwest::RequestBuilder {
    gateway.http.get(gateway.url(path))
}

async fn stored(gateway: &TestGateway, name: &str, server: &Watched) -> String {
    let added = add(
        gateway,
        &json!({"server_name": name, "url": server.url(), "auth_type": "none"}),
    )
    .await;
    added["server_id"].as_str().expect("an id").to_owned()
}

async fn delete(gateway: &TestGateway, id: &str) {
    let deleted = ask(gateway, Method::DELETE, &format!("{SERVERS}/{id}"), None).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
}

#[tokio::test]
async fn the_streams_of_a_server_end_with_it_and_with_its_configuration() {
    for is_deleted in [true, false] {
        let (one, two) = (Watched::start().await, Watched::start().await);
        let text = format!("{}vestibule: {{limits: {{drain_timeout: 3}}}}\n", keyed(""));
        let gateway = Start::new(text).start().await;
        let id = stored(&gateway, "one", &one).await;
        stored(&gateway, "two", &two).await;
        let keyed = |path: &str| get(&gateway, path).header("x-litellm-api-key", KEY);
        let listening = Open::of(&one, keyed("/one/mcp")).await;
        let subscribe = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {}});
        let subscribed = Open::of(&one, gateway.post("/one/mcp", &subscribe)).await;
        let mut calling = Open::of(&one, gateway.post("/one/mcp", &echo("x"))).await;
        let mut others = Open::of(&two, keyed("/two/mcp")).await;
        if is_deleted {
            delete(&gateway, &id).await;
        } else {
            change(&gateway, &json!({"server_id": id, "description": "another"})).await;
        }
        listening.ends().await;
        subscribed.ends().await;
        if !is_deleted {
            // An answer may come to its end, within the time that a stop gives.
            calling.goes_on().await;
        }
        calling.ends().await;
        others.goes_on().await;
        if is_deleted {
            assert_eq!(gateway.echo("/one/mcp", "x").await.0, 404);
        } else {
            Open::of(&one, keyed("/one/mcp")).await.goes_on().await;
        }
    }
}

#[tokio::test]
async fn a_file_server_at_another_address_is_the_same_server_configured_otherwise() {
    let (one, moved) = (Watched::start().await, Watched::start().await);
    one.set_session(Some("canary-session"));
    let text = |at: &Watched| {
        let limits = "vestibule: {limits: {drain_timeout: 3}}\n";
        format!("{}{limits}", keyed(&entry("one", at)))
    };
    let site = Site::start(&text(&one)).await;
    let gateway = &site.gateway;
    let session = begun(gateway, "/mcp", &json!({})).await;
    let (answer, to_all) = Answer::sse();
    one.push_when(is_get, answer);
    let mut all = Events::of(stream(gateway, &session)).await;
    to_all.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());
    let mut calling = Open::of(&one, gateway.post("/one/mcp", &echo("x"))).await;

    site.takes(&text(&moved)).await;
    // Whoever listens comes again, and an answer may come to its end.
    ended(&mut all.response).await;
    to_all.closed().await;
    calling.goes_on().await;
    calling.ends().await;

    let mut calling = Open::of(&moved, gateway.post("/one/mcp", &echo("x"))).await;
    calling.goes_on().await;
    site.takes(&text(&moved).replace("one:", "other:")).await;
    calling.ends().await;
}

#[tokio::test]
async fn who_comes_in_without_a_key_loses_the_stream_too() {
    let one = Watched::start().await;
    let passthrough = one.entry("one", "auth_type: true_passthrough");
    let site = Site::start(&keyed(&passthrough)).await;
    let token = |path: &str| get(&site.gateway, path).bearer_auth("canary-token-of-the-upstreams-own");
    let mut stream = Open::of(&one, token("/one/mcp")).await;
    // The master key was not what they came in with.
    site.takes(&keyed(&passthrough).replace(KEY, "sk-canary-another-master-key-0123"))
        .await;
    stream.goes_on().await;
    site.takes(&keyed("")).await;
    stream.ends().await;
}

#[tokio::test]
async fn streams_of_the_master_key_end_with_it_and_no_others() {
    let (one, two) = (Watched::start().await, Watched::start().await);
    one.set_session(Some("canary-session-one"));
    let servers = entry("one", &one);
    let site = Site::start(&keyed(&servers)).await;
    let gateway = &site.gateway;
    let (key, _) = made(gateway, json!({"object_permission": {"mcp_servers": ["one"]}})).await;
    let opened = |key: &str| {
        let request = get(gateway, "/one/mcp").header("x-litellm-api-key", key);
        Open::of(&one, request)
    };
    let (mut masters, mut somebodys) = (opened(KEY).await, opened(&key).await);
    let session = begun(gateway, "/mcp", &json!({})).await;
    let (answer, to_all) = Answer::sse();
    one.push_when(is_get, answer);
    let mut all = Events::of(stream(gateway, &session)).await;
    to_all.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());

    // What concerns neither key nor server.
    let more = format!("{servers}{}", entry("two", &two));
    site.takes(&format!(
        "{}vestibule:\n  limits:\n    max_body_bytes: 100000\n",
        keyed(&more)
    ))
    .await;
    masters.goes_on().await;
    somebodys.goes_on().await;
    to_all.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());

    let other = "sk-canary-another-master-key-0123";
    site.takes(&keyed(&more).replace(KEY, other)).await;
    masters.ends().await;
    ended(&mut all.response).await;
    to_all.closed().await;
    somebodys.goes_on().await;
    opened(other).await.goes_on().await;
}

#[tokio::test]
async fn a_gateway_that_begins_to_ask_for_keys_ends_the_streams_of_before() {
    let one = Watched::start().await;
    let servers = entry("one", &one);
    let site = Site::start(&format!("mcp_servers:\n{servers}")).await;
    let stream = Open::of(&one, get(&site.gateway, "/one/mcp")).await;
    site.takes(&keyed(&servers)).await;
    stream.ends().await;
}

#[tokio::test]
async fn of_several_servers_the_removed_ones_part_ends_and_the_rest_goes_on() {
    let (a, b, c) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    let gateway = Start::new(keyed("")).start().await;
    let mut ids = Vec::new();
    for (name, server) in [("a", &a), ("b", &b), ("c", &c)] {
        server.set_session(Some("canary-session"));
        ids.push(stored(&gateway, name, server).await);
    }
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let [to_a, to_b, to_c] = [&a, &b, &c].map(|server| {
        let (answer, handle) = Answer::sse();
        server.push_when(is_get, answer);
        handle
    });
    let mut all = Events::of(stream(&gateway, &session)).await;
    for handle in [&to_a, &to_b, &to_c] {
        handle.event(&changed()).await.expect("sent");
        assert_eq!(all.next().await, changed());
    }
    let (answer, handle) = Answer::sse();
    a.push_for("tools/call", answer);
    let request = posted(&gateway, &session, &call("a-echo", "x"));
    let news = changed();
    let (mut calling, sent) = tokio::join!(Events::of(request), handle.event(&news));
    sent.expect("sent");
    assert_eq!(calling.next().await, news);

    // The stream of the one is over already, and would be opened again; the other's is open.
    to_c.finish().await.expect("finished");
    delete(&gateway, &ids[2]).await;
    delete(&gateway, &ids[0]).await;
    to_a.closed().await;
    let cut = calling.next().await;
    assert_eq!(cut["error"]["data"]["code"], "upstream_truncated", "{cut}");
    handle.closed().await;
    to_b.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());
    all.comment().await;
    to_b.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());
    let asked = |server: &Watched| server.requests().iter().filter(|one| is_get(one)).count();
    assert_eq!([asked(&a), asked(&b), asked(&c)], [1, 1, 1]);

    // Whoever comes again hears the server as it is now.
    change(&gateway, &json!({"server_id": ids[1], "description": "another"})).await;
    let rest = timeout(DEADLINE, all.response.chunk()).await;
    assert_eq!(rest.expect("in time").expect("an end"), None);
    to_b.closed().await;
    let (answer, to_b) = Answer::sse();
    b.push_when(is_get, answer);
    let mut all = Events::of(stream(&gateway, &session)).await;
    to_b.event(&changed()).await.expect("sent");
    assert_eq!(all.next().await, changed());
    delete(&gateway, &ids[1]).await;
    ended(&mut all.response).await;
}

#[tokio::test]
async fn subscriptions_outlive_one_server_and_not_the_last() {
    let (a, b) = (server("a://1").await, server("b://1").await);
    let gateway = Start::new(keyed("")).start().await;
    let ids = [stored(&gateway, "a", &a).await, stored(&gateway, "b", &b).await];
    let asked = json!({"toolsListChanged": true});
    for is_deleted in [false, true] {
        let (from_a, from_b) = (listens(&a), listens(&b));
        let (mut events, ()) = tokio::join!(Events::of(listening(&gateway, &asked)), async {
            for handle in [&from_a, &from_b] {
                handle.event(&acknowledged(&asked)).await.expect("sent");
            }
        });
        assert_eq!(events.next().await["params"]["notifications"], asked);
        if is_deleted {
            delete(&gateway, &ids[0]).await;
            from_a.closed().await;
            from_b.event(&changed()).await.expect("sent");
            assert_eq!(events.next().await["method"], changed()["method"]);
            delete(&gateway, &ids[1]).await;
        } else {
            change(&gateway, &json!({"server_id": ids[0], "description": "another"})).await;
        }
        let last = events.next().await;
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
        from_a.closed().await;
        from_b.closed().await;
    }
}

//! What is managed at one gateway, and when the other knows: two of them on one PostgreSQL, as behind a load balancer.
//! Time is measured from the commit. The tests are in real time, but for the gateways' own clocks.

use crate::harness::{Got, KEY, TestGateway, echo, entry, got, keyed};
use crate::live::{rewrite, stored};
use crate::people::{NOW, Town};
use crate::replicas::Shared;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use vestibule_store::ServerId;
use vestibule_testkit::{Answer, DEADLINE, Upstream};

/// Within this everybody knows.
const SOON: Duration = Duration::from_secs(1);

/// A database, what is in it, and two gateways with the server `one`.
struct Site {
    shared: Shared,
    town: Town,
    one: Upstream,
    gateways: [TestGateway; 2],
}

impl Site {
    async fn start() -> Self {
        let shared = Shared::new().await;
        let directory = tempfile::tempdir().expect("a directory");
        let town = Town::at(directory, shared.url().to_owned()).await;
        let one = Upstream::start().await;
        let text = keyed(&entry("one", &format!("url: {}", one.url())));
        let gateways = [town.start(&*text).start().await, town.start(&*text).start().await];
        Self {
            shared,
            town,
            one,
            gateways,
        }
    }

    async fn end(self) {
        drop(self.gateways);
        drop(self.town);
        self.shared.remove().await;
    }

    /// Until both answer so, within [`SOON`] of `since`.
    async fn soon(&self, since: Instant, what: &str, path: &str, key: &str, is: impl Fn(&Got) -> bool) {
        for gateway in &self.gateways {
            until(gateway, what, path, key, &is).await;
        }
        assert!(since.elapsed() < SOON, "{what} took {:?}", since.elapsed());
    }
}

async fn call(gateway: &TestGateway, path: &str, key: &str) -> Got {
    let request = gateway.http.post(gateway.url(path));
    let request = request.header("accept", "application/json, text/event-stream");
    got(request.header("x-litellm-api-key", key).json(&echo("hello"))).await
}

async fn until(gateway: &TestGateway, what: &str, path: &str, key: &str, is: impl Fn(&Got) -> bool) {
    let reached = async { while !is(&call(gateway, path, key).await) {} };
    assert!(timeout(DEADLINE, reached).await.is_ok(), "never {what}");
}

#[tokio::test]
async fn a_key_counts_and_is_blocked_everywhere_within_a_second() {
    let site = Site::start().await;
    let key = site.town.key("alices", "alice", &["one"]).await;
    let made = Instant::now();
    site.soon(made, "known", "/one/mcp", &key, |answer| answer.status == 200)
        .await;
    // A stream of each, which the server would never end.
    let mut streams = Vec::new();
    for gateway in &site.gateways {
        let (answer, handle) = Answer::sse();
        site.one.push_for("tools/call", answer);
        let request = gateway.http.post(gateway.url("/one/mcp"));
        let request = request.header("accept", "application/json, text/event-stream");
        let stream = request.header("x-litellm-api-key", &key).json(&echo("on"));
        let stream = stream.send().await.expect("answered");
        assert_eq!(stream.status(), 200);
        streams.push((stream, handle));
    }
    site.town.block("alices").await;
    let blocked = Instant::now();
    site.soon(blocked, "blocked", "/one/mcp", &key, |answer| {
        answer.code() == "key_blocked"
    })
    .await;
    for (stream, handle) in streams {
        timeout(SOON, handle.closed())
            .await
            .expect("the server's side is over");
        // However it ends, it ends.
        let _ = timeout(SOON, stream.bytes())
            .await
            .expect("the client's side is over");
    }
    assert!(site.town.store.delete_api_key("alices").await.expect("deleted"));
    let deleted = Instant::now();
    site.soon(deleted, "unknown", "/one/mcp", &key, |answer| {
        answer.code() == "wrong_key"
    })
    .await;
    site.end().await;
}

#[tokio::test]
async fn a_server_of_the_store_is_the_same_everywhere_within_a_second() {
    let site = Site::start().await;
    let two = Upstream::start().await;
    let at = |upstream: &Upstream| stored("two", &json!({"url": upstream.url()}), None);
    let version = site.town.store.put_server(&at(&two), NOW).await;
    version.expect("put");
    let added = Instant::now();
    site.soon(added, "there", "/two/mcp", KEY, |answer| answer.status == 200)
        .await;
    two.take_requests();
    rewrite(&site.town, &at(&site.one)).await;
    let edited = Instant::now();
    for gateway in &site.gateways {
        let moved = async {
            loop {
                site.one.take_requests();
                assert_eq!(call(gateway, "/two/mcp", KEY).await.status, 200);
                if !site.one.requests().is_empty() {
                    break;
                }
            }
        };
        timeout(DEADLINE, moved).await.expect("moved");
    }
    assert!(edited.elapsed() < SOON, "{:?}", edited.elapsed());
    let id = ServerId::new("two-id").expect("an id");
    assert!(site.town.store.delete_server(&id).await.expect("deleted"));
    let deleted = Instant::now();
    site.soon(deleted, "gone", "/two/mcp", KEY, |answer| answer.status == 404)
        .await;
    site.end().await;
}

#[tokio::test]
async fn without_the_database_known_keys_count_for_five_minutes() {
    let site = Site::start().await;
    let key = site.town.key("alices", "alice", &["one"]).await;
    for gateway in &site.gateways {
        gateway.looks().await;
        assert_eq!(call(gateway, "/one/mcp", &key).await.status, 200);
    }
    site.shared.goes().await;
    for gateway in &site.gateways {
        let silent = async {
            while gateway.live.status().store_fault.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, silent).await.expect("the silence is noticed");
        gateway.advance(299);
        assert_eq!(call(gateway, "/one/mcp", &key).await.status, 200);
        gateway.advance(2);
        let answer = call(gateway, "/one/mcp", &key).await;
        assert_eq!(
            (answer.status, answer.code()),
            (503, "keys_unavailable"),
            "{answer:?}"
        );
        assert_eq!(
            call(gateway, "/one/mcp", KEY).await.status,
            200,
            "the master key is the file's"
        );
    }
    site.shared.comes_back().await;
    for gateway in &site.gateways {
        until(gateway, "known again", "/one/mcp", &key, |answer| {
            answer.status == 200
        })
        .await;
        assert!(gateway.live.status().store_fault.is_none());
    }
    let again = async { while site.town.store.api_key("alices").await.is_err() {} };
    timeout(DEADLINE, again).await.expect("the database answers");
    site.town.block("alices").await;
    let blocked = Instant::now();
    site.soon(blocked, "blocked", "/one/mcp", &key, |answer| {
        answer.code() == "key_blocked"
    })
    .await;
    site.end().await;
}

//! Machine tokens: one request however many wait, kept for as long as they are good, renewed ahead of that,
//! replaced once when the server refuses them.

use crate::harness::{CLIENT_SECRET, KEY, Start, TestGateway, echo, keyed, machine, wire_post};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vestibule_testkit::{Idp, RawClient, Reply, Upstream};

const FETCHED: &str = r#"vestibule_token_requests_total{server="one",result="ok"}"#;
const CONNECTIONS: &str = "vestibule_connections";

/// An identity provider, a server that takes its tokens, and a gateway before it with that server as `one`.
pub(crate) async fn trio(more: &str) -> (Idp, Upstream, TestGateway) {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    upstream.accept_if(idp.issued());
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), more)).await;
    (idp, upstream, gateway)
}

async fn works(gateway: &TestGateway) -> bool {
    let (status, body) = gateway.echo("/one/mcp", "hello").await;
    status == 200 && body["result"]["content"][0]["text"] == "hello"
}

fn last_bearer(upstream: &Upstream) -> String {
    let requests = upstream.requests();
    let last = requests.last().expect("a request");
    last.bearer().expect("a token").to_owned()
}

#[tokio::test]
async fn two_hundred_callers_wait_for_one_request_and_the_one_that_began_it_may_leave() {
    let (idp, upstream, gateway) = trio("").await;
    let gate = Arc::new(Semaphore::new(0));
    idp.set_default(Reply::token().behind(&gate));

    let mut first = RawClient::connect(gateway.address).await.expect("connected");
    first
        .write(wire_post("/one/mcp", &echo("first")))
        .await
        .expect("written");
    idp.wait_for(1).await;
    let mut others = Vec::new();
    for _ in 0..200 {
        let mut other = RawClient::connect(gateway.address).await.expect("connected");
        other
            .write(wire_post("/one/mcp", &echo("other")))
            .await
            .expect("written");
        others.push(other);
    }
    gateway.until_metric(CONNECTIONS, |open| open >= 202).await;
    drop(first);
    gateway.until_metric(CONNECTIONS, |open| open <= 201).await;

    // More permits than needed: a second request would be answered, and seen.
    gate.add_permits(300);
    for other in &mut others {
        let response = other.read_response().await.expect("answered");
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["result"]["content"][0]["text"], "other");
    }
    assert_eq!(idp.requests().len(), 1);
    assert_eq!(
        upstream.requests().len(),
        200,
        "the caller that left is not called for"
    );
}

#[tokio::test]
async fn a_request_runs_on_after_every_caller_left() {
    let (idp, upstream, gateway) = trio("").await;
    let gate = Arc::new(Semaphore::new(0));
    idp.set_default(Reply::token().behind(&gate));
    let mut only = RawClient::connect(gateway.address).await.expect("connected");
    only.write(wire_post("/one/mcp", &echo("x")))
        .await
        .expect("written");
    idp.wait_for(1).await;
    drop(only);
    // Only the connection that asks for the metrics is left.
    gateway.until_metric(CONNECTIONS, |open| open == 1).await;
    gate.add_permits(1);
    gateway.until_metric(FETCHED, |fetched| fetched == 1).await;
    assert!(upstream.requests().is_empty());
    assert!(works(&gateway).await);
    assert_eq!(
        idp.requests().len(),
        1,
        "the token that nobody waited for is used"
    );
}

#[tokio::test]
async fn a_token_is_used_until_a_minute_before_its_end() {
    let (idp, upstream, gateway) = trio("").await;
    assert!(works(&gateway).await);
    // Before the last tenth, five minutes at most, nothing is asked for.
    gateway.advance(3239);
    assert!(works(&gateway).await);
    assert_eq!(idp.requests().len(), 1);

    // In it a renewal begins, and calls go on with the old token while it hangs.
    let gate = Arc::new(Semaphore::new(0));
    idp.set_default(Reply::token().behind(&gate));
    gateway.advance(1);
    assert!(works(&gateway).await);
    idp.wait_for(2).await;
    gateway.advance(3600 - 61 - 3240);
    assert!(works(&gateway).await);
    assert_eq!(last_bearer(&upstream), idp.tokens()[0], "61 s before its end");
    assert_eq!((idp.tokens().len(), idp.requests().len()), (1, 2));

    // After it the renewal is waited for.
    gateway.advance(2);
    let mut late = RawClient::connect(gateway.address).await.expect("connected");
    late.write(wire_post("/one/mcp", &echo("late")))
        .await
        .expect("written");
    gateway.until_metric(CONNECTIONS, |open| open >= 2).await;
    assert_eq!(
        upstream.requests().len(),
        4,
        "59 s before its end the old token is not shown"
    );
    gate.add_permits(5);
    assert_eq!(late.read_response().await.expect("answered").status, 200);
    assert_eq!(last_bearer(&upstream), idp.tokens()[1]);
    assert_eq!(idp.requests().len(), 2, "the renewal under way was joined");
}

#[tokio::test]
async fn a_renewal_replaces_the_token_as_soon_as_it_lands() {
    let (idp, upstream, gateway) = trio("").await;
    assert!(works(&gateway).await);
    let gate = Arc::new(Semaphore::new(0));
    idp.set_default(Reply::token().behind(&gate));
    gateway.advance(3300);
    for _ in 0..10 {
        assert!(works(&gateway).await);
        assert_eq!(last_bearer(&upstream), idp.tokens()[0]);
    }
    assert_eq!(idp.wait_for(2).await.len(), 2, "ten calls, one renewal");
    gate.add_permits(5);
    gateway.until_metric(FETCHED, |fetched| fetched == 2).await;
    assert!(works(&gateway).await);
    assert_eq!(last_bearer(&upstream), idp.tokens()[1]);
    assert_eq!(idp.requests().len(), 2);
}

#[tokio::test]
async fn a_renewal_that_fails_disturbs_no_call_and_is_tried_again_after_the_back_off() {
    let (idp, _upstream, gateway) = trio("").await;
    assert!(works(&gateway).await);
    idp.push(Reply::error(503, "temporarily_unavailable"));
    gateway.advance(3300);
    assert!(works(&gateway).await);
    let failed = r#"vestibule_token_requests_total{server="one",result="failed"}"#;
    gateway.until_metric(failed, |failed| failed == 1).await;
    for _ in 0..5 {
        assert!(works(&gateway).await);
    }
    assert_eq!(
        idp.requests().len(),
        2,
        "within the back-off nothing is asked for"
    );
    gateway.advance(1);
    assert!(works(&gateway).await);
    gateway.until_metric(FETCHED, |fetched| fetched == 2).await;
    assert_eq!(idp.requests().len(), 3);
}

#[tokio::test]
async fn a_lifetime_of_every_shape_has_a_meaning() {
    for (expires_in, used_for) in [
        (None, 240),
        (Some(Value::Null), 240),
        (Some(json!("soon")), 240),
        (Some(json!(true)), 240),
        (Some(json!(3600)), 3540),
        (Some(json!("3600")), 3540),
        (Some(json!(90.9)), 30),
        (Some(json!(30)), 10),
        (Some(json!(5)), 5),
        (Some(json!(86_400)), 86_340),
        (Some(json!(1_000_000_000_000_u64)), 86_340),
        (Some(json!(1e300)), 86_340),
    ] {
        let (idp, _upstream, gateway) = trio("").await;
        idp.push(Reply::Token {
            expires_in: expires_in.clone(),
            extra: serde_json::Map::new(),
        });
        // Renewals fail, so that the token's own end is what is seen.
        idp.set_default(Reply::error(400, "invalid_grant"));
        assert!(works(&gateway).await, "{expires_in:?}");
        gateway.advance(used_for - 1);
        assert!(works(&gateway).await, "{expires_in:?}: not for {used_for} s");
        gateway.advance(1);
        let (status, body) = gateway.echo("/one/mcp", "x").await;
        assert_eq!(status, 502, "{expires_in:?}: longer than {used_for} s");
        assert_eq!(body["error"]["data"]["code"], "token_refused");
    }
}

#[tokio::test]
async fn a_token_without_a_life_serves_the_call_that_waited_and_no_other() {
    for expires_in in [json!(0), json!(-5), json!("-5"), json!(0.9)] {
        let (idp, upstream, gateway) = trio("").await;
        idp.set_default(Reply::expiring(expires_in.clone()));
        for call in 1..=3 {
            assert!(works(&gateway).await, "{expires_in}");
            assert_eq!(idp.requests().len(), call, "{expires_in}");
            assert_eq!(last_bearer(&upstream), idp.last_token());
        }
    }
}

#[tokio::test]
async fn a_refused_token_is_dropped_and_the_call_repeated_once_with_a_new_one() {
    let (idp, upstream, gateway) = trio("").await;
    assert!(works(&gateway).await);
    upstream.revoke(&idp.last_token());
    assert!(works(&gateway).await);
    let shown: Vec<_> = upstream
        .requests()
        .iter()
        .map(|r| r.bearer().map(str::to_owned))
        .collect();
    let [old, new] = &idp.tokens()[..] else {
        panic!("two tokens")
    };
    assert_eq!(shown, [Some(old.clone()), Some(old.clone()), Some(new.clone())]);
    let [_, refused, repeated] = &upstream.requests()[..] else {
        panic!("three requests")
    };
    assert_eq!(refused.body, repeated.body);
    assert!(works(&gateway).await);
    assert_eq!(idp.requests().len(), 2, "the new token is kept");
    // It is one like any other: revoked in its turn it is replaced at once.
    upstream.revoke(&idp.last_token());
    assert!(works(&gateway).await);
    assert_eq!(idp.requests().len(), 3);
}

#[tokio::test]
async fn a_hundred_calls_with_a_revoked_token_make_one_request_and_all_succeed() {
    let (idp, upstream, gateway) = trio("").await;
    assert!(works(&gateway).await);
    upstream.revoke(&idp.last_token());
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let call = gateway.post("/one/mcp", &echo("x"));
        calls.spawn(async move { call.send().await.expect("answered").status().as_u16() });
    }
    let statuses = calls.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(idp.requests().len(), 2);
}

#[tokio::test]
async fn a_server_that_refuses_every_token_gets_one_fresh_one_a_back_off() {
    let (idp, upstream, gateway) = trio("").await;
    let nobody = Upstream::start().await;
    nobody.accept("a token that nobody hands out");
    drop(upstream);
    let gateway = {
        drop(gateway);
        TestGateway::with_servers(&machine("one", &nobody.url(), &idp.url(), "")).await
    };
    let (status, body) = gateway.echo("/one/mcp", "x").await;
    assert_eq!(
        (status, &body["error"]["data"]["code"]),
        (502, &json!("upstream_refused_token")),
        "{body}"
    );
    assert_eq!(body["id"], 7);
    assert_eq!(
        (idp.requests().len(), nobody.requests().len()),
        (2, 2),
        "one extra token, one repetition"
    );

    let mut storm = JoinSet::new();
    for _ in 0..50 {
        let call = gateway.post("/one/mcp", &echo("x"));
        storm.spawn(async move { call.send().await.expect("answered").status().as_u16() });
    }
    assert!(storm.join_all().await.iter().all(|status| *status == 502));
    assert_eq!(
        idp.requests().len(),
        2,
        "a storm of calls is no storm of token requests"
    );

    // The wait is 1 s, then 2 s, and after each one fresh token is tried.
    for (wait, fetched) in [(1, 3), (1, 3), (1, 4)] {
        gateway.advance(wait);
        for _ in 0..3 {
            assert_eq!(gateway.echo("/one/mcp", "x").await.0, 502);
        }
        assert_eq!(idp.requests().len(), fetched);
    }

    // And the server that comes to its senses is served.
    gateway.advance(30);
    nobody.accept_if(idp.issued());
    assert!(works(&gateway).await);
    assert!(works(&gateway).await);
    assert_eq!(idp.requests().len(), 4, "the token in hand was good after all");
}

#[tokio::test]
async fn a_server_that_takes_only_newer_tokens_is_served_after_the_back_off() {
    let (idp, upstream, gateway) = trio("").await;
    // Tokens that are made before the server has the new keys stay useless.
    let issued = idp.issued();
    let picky = Upstream::start().await;
    picky.accept_if(move |token| {
        issued(token) && !token.starts_with("tk-canary-1-") && !token.starts_with("tk-canary-2-")
    });
    drop((upstream, gateway));
    let gateway = TestGateway::with_servers(&machine("one", &picky.url(), &idp.url(), "")).await;
    assert_eq!(gateway.echo("/one/mcp", "x").await.0, 502);
    assert_eq!(gateway.echo("/one/mcp", "x").await.0, 502);
    gateway.advance(1);
    assert!(works(&gateway).await, "the third token is good");
    assert_eq!(idp.requests().len(), 3);
}

#[tokio::test]
async fn two_servers_with_the_same_credentials_never_share_a_token() {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    let servers = ["one", "two"].map(|name| machine(name, &upstream.url(), &idp.url(), "scopes: [a]"));
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    for path in ["/one/mcp", "/two/mcp", "/one/mcp", "/two/mcp"] {
        assert_eq!(gateway.echo(path, "x").await.0, 200);
    }
    let shown: Vec<_> = upstream
        .requests()
        .iter()
        .map(|r| r.bearer().expect("a token").to_owned())
        .collect();
    assert_eq!(idp.requests().len(), 2);
    let [first, second] = &idp.tokens()[..] else {
        panic!("two tokens")
    };
    assert_eq!(shown, [first, second, first, second].map(Clone::clone));
}

#[tokio::test]
async fn a_dead_identity_provider_slows_no_other_server() {
    let (dead, alive) = (Idp::start().await, Idp::start().await);
    dead.set_default(Reply::Hang);
    let upstream = Upstream::start().await;
    let servers = [
        machine("one", &upstream.url(), &dead.url(), ""),
        machine("two", &upstream.url(), &alive.url(), ""),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut caller = RawClient::connect(gateway.address).await.expect("connected");
        caller
            .write(wire_post("/one/mcp", &echo("x")))
            .await
            .expect("written");
        waiting.push(caller);
    }
    dead.wait_for(1).await;
    for _ in 0..10 {
        assert_eq!(gateway.echo("/two/mcp", "x").await.0, 200);
    }
    assert_eq!((dead.requests().len(), upstream.requests().len()), (1, 10));
}

#[tokio::test]
async fn the_form_carries_client_scopes_audience_and_resource() {
    let (idp, upstream, gateway) = trio("scopes: [a, 'b:c']\naudience: api & co\nresource: auto").await;
    assert!(works(&gateway).await);
    let request = &idp.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("POST", "/oauth/token")
    );
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(request.header("authorization"), None);
    let expected = [
        ("grant_type", "client_credentials"),
        ("client_id", "canary-id"),
        ("client_secret", CLIENT_SECRET),
        ("scope", "a b:c"),
        ("audience", "api & co"),
        ("resource", &upstream.url()),
    ];
    assert_eq!(
        request.form(),
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[tokio::test]
async fn a_resource_is_sent_as_written_under_both_of_its_names() {
    for name in ["resource", "upstream_resource"] {
        let (idp, _upstream, gateway) = trio(&format!("{name}: 'https://api.example/x?y=1'")).await;
        assert!(works(&gateway).await);
        let request = &idp.requests()[0];
        assert_eq!(
            request.form_value("resource").as_deref(),
            Some("https://api.example/x?y=1")
        );
        assert_eq!(
            (request.form_value("scope"), request.form_value("audience")),
            (None, None)
        );
    }
}

#[tokio::test]
async fn client_secret_basic_encodes_reserved_characters_before_joining() {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    let server = format!(
        "  one:\n    url: {}\n    auth_type: oauth2\n    client_id: 'me:too / ü'\n    client_secret: 'p%ss+w&rd=:'\n    \
         token_url: {}\n    token_endpoint_auth_method: client_secret_basic\n",
        upstream.url(),
        idp.url()
    );
    let gateway = Start::new(keyed(&server)).start().await;
    assert!(works(&gateway).await);
    let request = &idp.requests()[0];
    let basic = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "));
    let pair = BASE64_STANDARD.decode(basic.expect("Basic")).expect("base64");
    assert_eq!(
        String::from_utf8(pair).expect("text"),
        "me%3Atoo+%2F+%C3%BC:p%25ss%2Bw%26rd%3D%3A"
    );
    assert_eq!(
        request.form(),
        [("grant_type".to_owned(), "client_credentials".to_owned())]
    );
}

#[tokio::test]
async fn the_credentials_of_a_machine_token_go_to_the_token_endpoint_alone() {
    for more in ["", "token_endpoint_auth_method: client_secret_basic"] {
        let (idp, upstream, gateway) = trio(more).await;
        assert!(works(&gateway).await);
        upstream.revoke(&idp.last_token());
        assert!(works(&gateway).await);
        for canary in [KEY, CLIENT_SECRET, "canary-id"] {
            upstream.assert_never_seen(canary);
        }
        idp.assert_never_seen(KEY);
        for token in idp.tokens() {
            idp.assert_never_seen(&token);
        }
    }
}

#[tokio::test]
async fn a_refusal_during_a_renewal_is_not_held_against_the_one_after() {
    let (idp, upstream, _) = trio("").await;
    let text = keyed(&machine("one", &upstream.url(), &idp.url(), ""));
    let gateway = Start::new(text).one_worker().start().await;
    assert!(works(&gateway).await);
    let gate = Arc::new(Semaphore::new(0));
    idp.push(Reply::token().behind(&gate));
    gateway.advance(3600 - 60 - 100);
    assert!(
        works(&gateway).await,
        "with the old token, while the next is under way"
    );
    idp.wait_for(2).await;
    upstream.revoke(&idp.tokens()[0]);
    let message = echo("hello");
    let call = tokio::spawn(gateway.post("/one/mcp", &message).send());
    upstream.wait_for(3).await;
    // The one worker that answers these has read the refusal before.
    for _ in 0..3 {
        assert_eq!(gateway.metric(FETCHED).await, 1);
    }
    gate.add_permits(1);
    assert_eq!(call.await.expect("joined").expect("answered").status(), 200);

    // The next renewal's token is revoked before its first use: a first refusal, and so worth another.
    gateway.advance(3600 - 60 - 100);
    assert!(works(&gateway).await);
    gateway.until_metric(FETCHED, |fetched| fetched == 3).await;
    upstream.revoke(&idp.tokens()[2]);
    assert!(works(&gateway).await);
    assert_eq!(idp.requests().len(), 4);
}

#[tokio::test]
async fn tokens_that_live_for_no_time_and_are_refused_cost_one_request_a_back_off() {
    let idp = Idp::start().await;
    idp.set_default(Reply::expiring(0));
    let server = Upstream::start().await;
    server.accept("a token that nobody hands out");
    let gateway = TestGateway::with_servers(&machine("one", &server.url(), &idp.url(), "")).await;
    for (wait, fetched) in [(0, 2), (1, 3), (1, 3), (1, 4)] {
        gateway.advance(wait);
        for _ in 0..3 {
            let (status, body) = gateway.echo("/one/mcp", "x").await;
            assert_eq!(
                (status, &body["error"]["data"]["code"]),
                (502, &json!("upstream_refused_token"))
            );
        }
        assert_eq!(idp.requests().len(), fetched);
    }
    gateway.advance(30);
    server.accept_if(idp.issued());
    for _ in 0..3 {
        assert!(works(&gateway).await);
    }
    assert_eq!(idp.requests().len(), 7, "one a call again");
}

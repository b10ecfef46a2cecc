//! People's tokens, kept at sign-in for whoever calls later with nothing but the gateway key: used, renewed, ended.

use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, personal};
use crate::kept_harness::{Door, Fault, Lasting, Site, Stage};
use serde_json::json;
use vestibule_testkit::{Answer, RawClient};

async fn site() -> (Site, TestGateway, Door) {
    with("").await
}

async fn with(more: &str) -> (Site, TestGateway, Door) {
    let site = Site::start().await;
    let servers = site.provider.registered("one", &site.upstream, more);
    let gateway = Start::new(personal(&servers, "")).start().await;
    let door = Door::of(&gateway);
    (site, gateway, door)
}

#[tokio::test]
async fn a_later_call_with_only_the_key_uses_what_was_kept() {
    let (site, _gateway, door) = site().await;
    door.wants_sign_in(None).await;
    assert_eq!(
        site.upstream.requests().len(),
        0,
        "nothing goes out without a token"
    );
    let tokens = door.sign_in(&site.provider).await;
    assert_eq!(tokens["access_token"], site.provider.last());
    door.works().await;
    assert_eq!(site.shown(), [site.provider.last()]);
    site.upstream.assert_never_seen(KEY);
    let secrets: Vec<String> = [site.provider.issued(), site.provider.refresh_tokens()].concat();
    assert_nothing_secret_logged(&secrets.iter().map(String::as_str).collect::<Vec<_>>());

    // A second sign-in replaces the first.
    door.sign_in(&site.provider).await;
    door.works().await;
    assert_eq!(site.shown()[1], site.provider.issued()[1]);
}

#[tokio::test]
async fn nothing_is_kept_without_the_key() {
    let (site, _gateway, door) = site().await;
    for key in [None, Some("Bearer sk-another"), Some("")] {
        let code = door.signed_in(&site.provider).await;
        let mut request = door.token(&code);
        if let Some(key) = key {
            request = request.header("x-litellm-api-key", key);
        }
        let answer = got(request).await;
        assert_eq!(
            (answer.status, &answer.body["access_token"]),
            (200, &json!(site.provider.last())),
            "{key:?}"
        );
        door.wants_sign_in(None).await;
    }
    // The key where the client's own secret does not stand.
    let code = door.signed_in(&site.provider).await;
    let answer = got(door.token(&code).header("authorization", format!("Bearer {KEY}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    door.works().await;
}

#[tokio::test]
async fn an_open_gateway_keeps_nothing() {
    let site = Site::start().await;
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = Start::new(format!("mcp_servers:\n{servers}")).start().await;
    let door = Door::of(&gateway);
    door.sign_in(&site.provider).await;
    door.wants_sign_in(None).await;
    let own = got(door.post(&echo("hello")).bearer_auth(site.provider.last())).await;
    assert_eq!(own.status, 200, "{own:?}");
}

#[tokio::test]
async fn the_callers_own_authorization_wins() {
    let (site, _gateway, door) = site().await;
    door.sign_in(&site.provider).await;
    site.upstream.accept("canary-own-token");
    let own = |token: &str| got(door.call().bearer_auth(token));
    assert_eq!(own("canary-own-token").await.status, 200);
    // Another one of its own is not made good by what is kept.
    let refused = own("canary-wrong-token").await;
    door.is_challenge(&refused, Some("invalid_token"));
    assert_eq!(site.shown(), ["canary-own-token", "canary-wrong-token"]);
    assert_eq!(site.provider.counts().refreshing, 0);
    door.works().await;
    assert_eq!(site.shown()[2], site.provider.last());
}

#[tokio::test]
async fn a_refused_token_is_renewed_and_shown_once() {
    let (site, _gateway, door) = site().await;
    door.sign_in(&site.provider).await;
    door.works().await;
    site.provider.end_access();
    door.works().await;
    let issued = site.provider.issued();
    assert_eq!(site.shown(), [0, 0, 1].map(|index| issued[index].clone()));

    // The server refuses the new one as well: one renewal, one retry, and then it is the person's turn.
    for _ in 0..2 {
        site.upstream.push(Answer::raw(
            401,
            &[(
                "WWW-Authenticate",
                "Bearer resource_metadata=\"http://evil.example/\", scope=\"more\"",
            )],
            "",
        ));
    }
    let answer = door.wants_sign_in(Some("invalid_token")).await;
    let challenge = answer.header("www-authenticate");
    assert!(
        challenge.contains("scope=\"more\"") && !challenge.contains("evil"),
        "{challenge}"
    );
    assert_eq!((site.shown().len(), site.provider.counts().refreshed), (5, 2));

    // Nothing renews it any more.
    site.provider.end_grants();
    door.wants_sign_in(Some("invalid_token")).await;
    let seen = site.shown().len();
    assert_eq!(seen, 6);
    door.wants_sign_in(None).await;
    assert_eq!(site.shown().len(), seen, "what has ended is not shown again");
    let counts = site.provider.counts();
    assert_eq!((counts.refreshing, counts.refreshed, counts.reused), (3, 2, 0));
    door.sign_in(&site.provider).await;
    door.works().await;
}

#[tokio::test]
async fn the_challenge_comes_before_the_first_byte_of_a_stream() {
    let (site, gateway, door) = site().await;
    door.sign_in(&site.provider).await;
    site.provider.end_access();
    let (answer, stream) = Answer::sse();
    let fresh = |request: &vestibule_testkit::Request| {
        request.bearer().is_some_and(|token| token.ends_with("2-of-0"))
    };
    site.upstream.push_when(fresh, answer);
    let mut client = RawClient::connect(gateway.address).await.expect("a connection");
    let request = crate::harness::wire_post("/one/mcp", &echo("hello"));
    client.write(&request).await.expect("written");
    let head = client.read_head().await.expect("a head");
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    stream.event(&json!({"a": 1})).await.expect("sent");
    client.read_until("data: {\"a\":1}\n\n").await.expect("the event");
    stream.finish().await.expect("finished");
    assert_eq!(site.provider.counts().refreshed, 1);

    site.provider.end_grants();
    let answer = door.wants_sign_in(Some("invalid_token")).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.body["id"], 7);
}

#[tokio::test]
async fn renewal_goes_on_behind_the_calls() {
    let (site, gateway, door) = site().await;
    door.sign_in(&site.provider).await;
    site.advance(&[&gateway], 190);
    door.works().await;
    assert_eq!(
        site.provider.counts().refreshing,
        0,
        "not before four fifths of its life"
    );
    site.advance(&[&gateway], 10);
    let hold = site.provider.hold(Stage::Before);
    door.works().await;
    hold.arrived().await;
    for _ in 0..3 {
        door.works().await;
    }
    let first = site.provider.last();
    assert!(
        site.shown().iter().all(|shown| *shown == first),
        "nobody waits for it"
    );
    hold.open();
    site.provider
        .until("refreshed", |counts| counts.refreshed == 1)
        .await;
    let second = site.provider.last();
    door.until("the new token in use", |_| site.shown().last() == Some(&second))
        .await;
    let counts = site.provider.counts();
    assert_eq!((counts.refreshing, counts.reused), (1, 0));
}

/// What a call comes to once the access token is over and cannot be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// A sign-in; the provider is not asked again.
    Ended,
    /// A sign-in, but should the provider change its mind, what is kept is still good.
    SignIn,
    /// Try again later.
    Later,
}

#[tokio::test]
async fn what_each_refresh_error_does_to_a_grant() {
    let table = [
        ("invalid_grant", Fault::Error(400, "invalid_grant"), Then::Ended),
        (
            "GitHub's invalid_grant",
            Fault::Error(200, "bad_refresh_token"),
            Then::Ended,
        ),
        (
            "Slack's invalid_grant",
            Fault::Error(200, "invalid_refresh_token"),
            Then::Ended,
        ),
        (
            "no refresh at all",
            Fault::Error(400, "unsupported_grant_type"),
            Then::SignIn,
        ),
        (
            "not this client",
            Fault::Error(400, "unauthorized_client"),
            Then::SignIn,
        ),
        ("its own word", Fault::Error(400, "ratelimited"), Then::Later),
        (
            "temporarily",
            Fault::Error(503, "temporarily_unavailable"),
            Then::Later,
        ),
        ("server_error", Fault::Error(500, "server_error"), Then::Later),
        ("500", Fault::Page(500), Then::Later),
        ("503", Fault::Page(503), Then::Later),
        ("429", Fault::Page(429), Then::Later),
        ("a page", Fault::Page(200), Then::Later),
        ("a redirect", Fault::Page(302), Then::Later),
        ("a refused page", Fault::Page(400), Then::Later),
        ("no answer", Fault::Hang, Then::Later),
        ("invalid_client", Fault::Error(401, "invalid_client"), Then::Later),
    ];
    for (name, fault, then) in table {
        let site = Site::start().await;
        let servers = site.provider.configured("one", &site.upstream, "");
        let limits = match fault {
            Fault::Hang => "  limits:\n    token_timeout: 0.5\n",
            _ => "",
        };
        let gateway = Start::new(personal(&servers, limits)).start().await;
        let door = Door::of(&gateway);
        sign_in_as_shared(&door, &site).await;
        door.works().await;
        site.provider.set(|manners| manners.fault = Some(fault));

        // Within the minute before its end there is a try, and what is in hand serves all the same.
        site.advance(&[&gateway], 250);
        let early = door.called().await;
        let expected = if then == Then::Ended { 401 } else { 200 };
        assert_eq!(early.status, expected, "{name}: {early:?}");
        assert_eq!(site.provider.counts().refreshing, 1, "{name}");

        site.advance(&[&gateway], 51);
        let over = door.called().await;
        let asked = site.provider.counts().refreshing;
        match then {
            Then::Ended | Then::SignIn => door.is_challenge(&over, None),
            Then::Later => {
                assert_eq!(
                    (over.status, over.code()),
                    (503, "renewal_failed"),
                    "{name}: {over:?}"
                );
                assert_eq!(over.header("retry-after"), "10", "{name}");
            }
        }
        assert_eq!(asked, if then == Then::Ended { 1 } else { 2 }, "{name}");
        assert_eq!(door.called().await.status, over.status, "{name}");
        assert_eq!(site.provider.counts().refreshing, asked, "{name}: backed off");

        site.provider.set(|manners| manners.fault = None);
        site.advance(&[&gateway], 10);
        if then == Then::Ended {
            door.wants_sign_in(None).await;
            sign_in_as_shared(&door, &site).await;
        }
        door.works().await;
        assert_eq!(site.provider.counts().reused, 0, "{name}");
    }
}

async fn sign_in_as_shared(door: &Door, site: &Site) {
    let away = door.authorize("canary-id").await;
    let code = door.back(&away, &site.provider.approve(&away.location)).await;
    let answer = got(door.keyed_token(&code)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_registration_that_the_provider_forgot_is_made_anew() {
    let (site, gateway, door) = site().await;
    door.sign_in(&site.provider).await;
    door.sign_in(&site.provider).await;
    assert_eq!(
        site.provider.counts().registered,
        1,
        "equal metadata is one registration"
    );
    site.provider.forget_clients();
    site.advance(&[&gateway], 301);
    door.wants_sign_in(None).await;
    door.wants_sign_in(None).await;
    assert_eq!(site.provider.counts().refreshing, 1);
    door.sign_in(&site.provider).await;
    assert_eq!(site.provider.counts().registered, 2);
    door.works().await;
}

#[tokio::test]
async fn a_provider_that_does_not_rotate_keeps_its_refresh_token() {
    let (site, gateway, door) = site().await;
    site.provider.set(|manners| manners.rotates = false);
    door.sign_in(&site.provider).await;
    for renewals in 1..=3 {
        site.advance(&[&gateway], 301);
        door.works().await;
        assert_eq!(site.provider.counts().refreshed, renewals);
    }
    assert_eq!(site.provider.refresh_tokens().len(), 1);
}

#[tokio::test]
async fn without_a_refresh_token_it_lasts_as_long_as_it_lasts() {
    let (site, gateway, door) = site().await;
    site.provider.set(|manners| manners.refresh_tokens = false);
    door.sign_in(&site.provider).await;
    site.advance(&[&gateway], 299);
    door.works().await;
    site.advance(&[&gateway], 1);
    door.wants_sign_in(None).await;
    assert_eq!(site.upstream.requests().len(), 1, "what is over is not shown");

    door.sign_in(&site.provider).await;
    site.provider.end_access();
    door.wants_sign_in(Some("invalid_token")).await;
    door.wants_sign_in(None).await;
    assert_eq!(site.upstream.requests().len(), 2);
    assert_eq!(site.provider.counts().refreshing, 0);
}

#[tokio::test]
async fn a_token_of_unknown_life_is_used_until_it_is_refused() {
    for life in [None, Some(json!(0)), Some(json!(-1)), Some(json!("soon"))] {
        let (site, gateway, door) = site().await;
        site.provider.set(|manners| manners.expires_in = life.clone());
        door.sign_in(&site.provider).await;
        site.advance(&[&gateway], 365 * 24 * 60 * 60);
        door.works().await;
        door.works().await;
        assert_eq!(site.provider.counts().refreshing, 0, "{life:?}");
        site.provider.end_access();
        door.works().await;
        assert_eq!(site.provider.counts().refreshed, 1, "{life:?}");
    }
}

#[tokio::test]
async fn a_token_that_hardly_lives_is_renewed_once_a_call() {
    let (site, _gateway, door) = site().await;
    site.provider.set(|manners| manners.expires_in = Some(json!(1)));
    door.sign_in(&site.provider).await;
    for calls in 1..=3 {
        door.works().await;
        assert_eq!(site.provider.counts().refreshed, calls);
    }
}

#[tokio::test]
async fn a_configured_storage_time_counts_instead_of_the_tokens() {
    let (site, gateway, door) = with("token_storage_ttl_seconds: 100").await;
    site.provider
        .set(|manners| manners.expires_in = Some(json!(3600)));
    door.sign_in(&site.provider).await;
    site.advance(&[&gateway], 79);
    door.works().await;
    assert_eq!(site.provider.counts().refreshing, 0);
    site.advance(&[&gateway], 21);
    door.works().await;
    assert_eq!(site.provider.counts().refreshed, 1);
    assert_eq!(site.shown(), site.provider.issued());

    site.provider.set(|manners| manners.refresh_tokens = false);
    door.sign_in(&site.provider).await;
    site.advance(&[&gateway], 100);
    door.wants_sign_in(None).await;
}

#[tokio::test]
async fn the_operators_rule_counts_at_a_refresh_too() {
    let (site, gateway, door) = with("token_validation:\n  team.id: T1").await;
    let team = |id: &'static str| {
        move |manners: &mut crate::kept_harness::Manners| {
            manners.extra.insert("team".into(), json!({"id": id}));
        }
    };
    site.provider.set(team("T2"));
    let code = door.signed_in(&site.provider).await;
    let refused = got(door.keyed_token(&code)).await;
    assert_eq!(
        (refused.status, &refused.body["detail"]["error"]),
        (403, &json!("token_validation_failed"))
    );
    door.wants_sign_in(None).await;
    site.provider.set(team("T1"));
    door.sign_in(&site.provider).await;
    door.works().await;
    site.provider.set(team("T2"));
    site.advance(&[&gateway], 301);
    door.wants_sign_in(None).await;
    let other = site.provider.last();
    door.wants_sign_in(None).await;
    assert!(
        !site.shown().contains(&other),
        "a token that breaks the rule is not used"
    );
    let counts = site.provider.counts();
    assert_eq!((counts.refreshing, counts.reused), (1, 0));
}

#[tokio::test]
async fn the_rest_facade_does_the_same() {
    let (site, gateway, door) = site().await;
    let list = || {
        gateway
            .http
            .get(gateway.url("/mcp-rest/tools/list?server_id=one"))
            .header("x-litellm-api-key", KEY)
    };
    let call = || {
        gateway
            .http
            .post(gateway.url("/mcp-rest/tools/call"))
            .header("x-litellm-api-key", KEY)
            .json(&json!({"server_id": "one", "name": "echo", "arguments": {"message": "hello"}}))
    };
    for request in [list(), call()] {
        let answer = got(request).await;
        door.is_challenge(&answer, None);
    }
    door.sign_in(&site.provider).await;
    assert_eq!(got(list()).await.body["tools"][0]["name"], "echo");
    site.provider.end_access();
    let answer = got(call()).await;
    assert_eq!(
        (answer.status, &answer.body["content"][0]["text"]),
        (200, &json!("hello")),
        "{answer:?}"
    );
    site.advance(&[&gateway], 301);
    assert_eq!(got(list()).await.body["tools"][0]["name"], "echo");
    let counts = site.provider.counts();
    assert_eq!((counts.refreshed, counts.reused), (2, 0));
    site.provider
        .set(|manners| manners.fault = Some(Fault::Page(502)));
    site.advance(&[&gateway], 301);
    let answer = got(call()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (503, "renewal_failed"),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), "10");
    site.provider.set(|manners| manners.fault = None);
    site.provider.end_grants();
    site.advance(&[&gateway], 10);
    door.is_challenge(&got(call()).await, None);
    assert!(
        site.shown()
            .iter()
            .all(|token| token.starts_with("canary-access-"))
    );
}

#[tokio::test]
async fn a_database_that_fails_concerns_only_who_needs_it() {
    let (site, lasting) = (Site::start().await, Lasting::new());
    let servers = site.provider.registered("one", &site.upstream, "")
        + &entry(
            "two",
            &format!(
                "url: {}\nauth_type: bearer_token\nauthentication_token: t",
                site.upstream.url()
            ),
        );
    let gateway = lasting.gateway(&servers).await;
    let door = Door::of(&gateway);
    site.upstream.accept("t");
    door.sign_in(&site.provider).await;
    door.works().await;
    lasting.behind("ALTER TABLE grants RENAME TO gone").await;

    door.works().await;
    door.to("two").works().await;
    // In the minute before its end, and beyond.
    site.advance(&[&gateway], 250);
    door.works().await;
    site.advance(&[&gateway], 51);
    let answer = door.called().await;
    assert_eq!(
        (answer.status, answer.code()),
        (503, "store_unavailable"),
        "{answer:?}"
    );
    door.to("two").works().await;
    assert_eq!(
        site.provider.counts().refreshing,
        0,
        "no refresh token is spent that cannot be kept"
    );
    // Who signs in now gets tokens all the same.
    let code = door.signed_in(&site.provider).await;
    let tokens = got(door.keyed_token(&code)).await;
    assert_eq!(
        (tokens.status, tokens.body["access_token"].is_string()),
        (200, true)
    );

    lasting.behind("ALTER TABLE gone RENAME TO grants").await;
    door.works().await;
    assert_eq!(site.provider.counts().refreshed, 1);
}

#[tokio::test]
async fn a_new_refresh_token_that_cannot_be_saved_at_once_is_saved_later() {
    let (site, lasting) = (Site::start().await, Lasting::new());
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = lasting.gateway(&servers).await;
    let door = Door::of(&gateway);
    door.sign_in(&site.provider).await;
    site.advance(&[&gateway], 301);
    let hold = site.provider.hold(Stage::After);
    let failing = async {
        hold.arrived().await;
        lasting.behind("ALTER TABLE grants RENAME TO gone").await;
        site.provider.hold_no_more();
        hold.open();
    };
    let (answer, ()) = tokio::join!(door.called(), failing);
    assert_eq!(answer.status, 200, "{answer:?}");
    door.works().await;
    assert_eq!(site.shown(), [site.provider.last(), site.provider.last()]);

    lasting.behind("ALTER TABLE gone RENAME TO grants").await;
    site.advance(&[&gateway], 301);
    door.works().await;
    let next = lasting.gateway(&servers).await;
    next.advance(602);
    Door::of(&next).works().await;
    let counts = site.provider.counts();
    assert_eq!((counts.refreshed, counts.reused), (2, 0));
}

#[tokio::test]
async fn a_row_that_does_not_open_is_a_sign_in() {
    let (site, lasting) = (Site::start().await, Lasting::new());
    let servers = site.provider.registered("one", &site.upstream, "")
        + &site.provider.registered("two", &site.upstream, "");
    let doors = |gateway: &TestGateway| [Door::of(gateway), Door::of(gateway).to("two")];
    let swap = "CREATE TEMP TABLE before AS SELECT server_id, sealed, version FROM grants; \
         UPDATE grants SET (sealed, version) = \
         (SELECT b.sealed, b.version FROM before b WHERE b.server_id <> grants.server_id)";
    for damage in [
        swap,
        "UPDATE grants SET sealed = X'00'",
        "UPDATE grants SET sealed = X''",
        "UPDATE grants SET version = version + 1",
    ] {
        let gateway = lasting.gateway(&servers).await;
        for door in doors(&gateway) {
            door.sign_in(&site.provider).await;
            door.works().await;
        }
        assert!(lasting.behind(damage).await >= 2, "{damage}");
        // What is in memory goes with its process.
        let gateway = lasting.gateway(&servers).await;
        let shown = site.shown().len();
        for door in doors(&gateway) {
            door.wants_sign_in(None).await;
        }
        assert_eq!(site.shown().len(), shown, "{damage}");
        for door in doors(&gateway) {
            door.sign_in(&site.provider).await;
            door.works().await;
        }
    }
}

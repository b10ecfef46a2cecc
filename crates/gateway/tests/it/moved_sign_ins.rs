//! Servers whose authorization server becomes another one while somebody signs in: nothing of the sign-in reaches the
//! other one, neither code and verifier nor a client of ours (RFC 9700 section 4.4).

use crate::browser::{Browser, Registered, VERIFIER, parameter, shared};
use crate::console_harness::{Person, text};
use crate::harness::{CLIENT_SECRET, Got, KEY, Start, TestGateway, got, personal};
use crate::servers_harness::{Site, add, change, until};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use vestibule_store::ServerId;
use vestibule_testkit::{DEADLINE, Provider, Upstream};

/// A stored server that people sign in to at one provider, and another provider with a server that it may move to.
struct Move {
    provider: Provider,
    other: Provider,
    upstreams: [Upstream; 2],
    gateway: TestGateway,
    client: Registered,
    site: Site,
}

impl Move {
    /// The other place has a provider of its own.
    async fn start() -> Self {
        let [provider, other] = [Provider::start().await, Provider::start().await];
        let upstreams = [provider.upstream().await, other.upstream().await];
        Self::between(provider, other, upstreams).await
    }

    /// The other place trusts the same provider.
    async fn within_one_provider() -> Self {
        let [provider, other] = [Provider::start().await, Provider::start().await];
        let upstreams = [provider.upstream().await, provider.upstream().await];
        Self::between(provider, other, upstreams).await
    }

    async fn between(provider: Provider, other: Provider, upstreams: [Upstream; 2]) -> Self {
        let site = Site::new();
        let gateway = site.gateway(personal("", "")).start().await;
        let server = json!({"server_name": "one", "server_id": "id-one", "url": upstreams[0].url(),
            "transport": "http", "auth_type": "oauth2"});
        add(&gateway, &server).await;
        let client = Registered::at(&gateway, "/one").await;
        Self {
            provider,
            other,
            upstreams,
            gateway,
            client,
            site,
        }
    }

    async fn moves_to(&self, upstream: &Upstream) {
        change(
            &self.gateway,
            &json!({"server_id": "id-one", "url": upstream.url()}),
        )
        .await;
    }

    /// The other provider was asked where it is, and nothing else.
    fn assert_nothing_went(&self, code: &str) {
        let requests = self.other.requests();
        assert!(
            requests.iter().all(|request| request.method == "GET"),
            "{requests:#?}"
        );
        assert_eq!(self.other.clients(), 0);
        for secret in [code, VERIFIER] {
            self.other.assert_never_seen(secret);
            self.upstreams[1].assert_never_seen(secret);
        }
        assert!(self.provider.requests_to("/token").is_empty());
    }
}

async fn exchange(gateway: &TestGateway, client: &Registered, code: &str) -> Got {
    let request = client.exchange(gateway, code, &[]);
    got(request.header("x-litellm-api-key", KEY)).await
}

fn assert_ended(answer: &Got) {
    assert_eq!(
        (answer.status, &answer.body["error"]),
        (400, &json!("invalid_grant")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_code_for_a_server_that_moved_before_the_callback_goes_nowhere() {
    let site = Move::start().await;
    let browser = Browser::new();
    let away = browser.open(&site.client.authorize_url(&site.gateway, &[])).await;
    let back = browser.open(away.header("location")).await;
    let code = parameter(back.header("location"), "code").expect("a code");
    site.moves_to(&site.upstreams[1]).await;
    let end = browser.open(back.header("location")).await;
    let page = end.body.as_str().expect("a page");
    assert_eq!((end.status, end.header("location")), (400, ""), "{end:?}");
    assert!(
        page.contains("another one than when this sign-in began"),
        "{page}"
    );
    assert!(!page.contains(&code), "{page}");
    // Nor is it bound to anything that a client could show it for.
    assert_ended(&exchange(&site.gateway, &site.client, &code).await);
    site.assert_nothing_went(&code);
}

#[tokio::test]
async fn a_code_for_a_server_that_moved_after_the_callback_goes_nowhere() {
    let site = Move::start().await;
    let code = site.client.code(&site.gateway, &Browser::new()).await;
    site.moves_to(&site.upstreams[1]).await;
    let refused = exchange(&site.gateway, &site.client, &code).await;
    assert_ended(&refused);
    let said = refused.body["error_description"].as_str().expect("a sentence");
    assert!(said.contains("another one by now"), "{said}");
    // It counted once, wherever the server is next.
    site.moves_to(&site.upstreams[0]).await;
    assert_ended(&exchange(&site.gateway, &site.client, &code).await);
    site.assert_nothing_went(&code);
    // A sign-in that begins now is one at the place where the server is.
    site.moves_to(&site.upstreams[1]).await;
    let code = site.client.code(&site.gateway, &Browser::new()).await;
    assert_eq!(exchange(&site.gateway, &site.client, &code).await.status, 200);
    assert_eq!(site.other.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn the_console_ends_a_connection_that_the_server_moved_under() {
    for late in [false, true] {
        let site = Move::start().await;
        let person = Person::operator(&site.gateway).await;
        let mut next = person.at_the_provider("/ui/connect/id-one").await;
        let code = parameter(&next, "code").expect("a code");
        if late {
            let path = next.strip_prefix(&person.origin).expect("ours").to_owned();
            person.open(&path).await.header("location").clone_into(&mut next);
        }
        site.moves_to(&site.upstreams[1]).await;
        let page = person.follow(&next).await;
        let said = text(&page, ".note.bad[role=status]");
        assert!(said.contains("authorization server is another one"), "{said}");
        assert_eq!(text(&page, "main .chip"), "not connected");
        site.assert_nothing_went(&code);
    }
}

#[tokio::test]
async fn what_was_agreed_to_for_one_place_is_redeemed_for_no_other_of_the_same_provider() {
    for late in [false, true] {
        let site = Move::within_one_provider().await;
        let browser = Browser::new();
        let away = browser.open(&site.client.authorize_url(&site.gateway, &[])).await;
        let back = browser.open(away.header("location")).await;
        let code = parameter(back.header("location"), "code").expect("a code");
        if late {
            assert_eq!(browser.open(back.header("location")).await.status, 302);
        }
        site.moves_to(&site.upstreams[1]).await;
        if !late {
            let end = browser.open(back.header("location")).await;
            let page = end.body.as_str().expect("a page");
            assert_eq!((end.status, end.header("location")), (400, ""), "{end:?}");
            assert!(page.contains("not known to be where it was"), "{page}");
            assert!(!page.contains(&code), "{page}");
        }
        let refused = exchange(&site.gateway, &site.client, &code).await;
        assert_ended(&refused);
        if late {
            let said = refused.body["error_description"].as_str().expect("a sentence");
            assert!(said.contains("not known to be where it was"), "{said}");
        }
        site.assert_nothing_went(&code);
        assert!(site.provider.tokens().is_empty());
        // Who signs in now agrees to where it is now.
        let code = site.client.code(&site.gateway, &Browser::new()).await;
        assert_eq!(exchange(&site.gateway, &site.client, &code).await.status, 200);
    }
}

#[tokio::test]
async fn a_walk_through_the_console_ends_where_the_server_moved_within_one_provider() {
    let site = Move::within_one_provider().await;
    let person = Person::operator(&site.gateway).await;
    let next = person.at_the_provider("/ui/connect/id-one").await;
    site.moves_to(&site.upstreams[1]).await;
    let page = person.follow(&next).await;
    let said = text(&page, ".note.bad[role=status]");
    assert!(said.contains("not known to be where it was"), "{said}");
    assert_eq!(text(&page, "main .chip"), "not connected");
}

#[tokio::test]
async fn tokens_that_come_after_the_server_moved_are_nobodys() {
    let site = Move::within_one_provider().await;
    let gate = Arc::new(Semaphore::new(0));
    site.provider
        .set(|modes| modes.token_gate = Some(Arc::clone(&gate)));
    let code = site.client.code(&site.gateway, &Browser::new()).await;
    let (answer, ()) = tokio::join!(exchange(&site.gateway, &site.client, &code), async {
        let asked = || async { !site.provider.requests_to("/token").is_empty() };
        until("the provider is asked", asked).await;
        site.moves_to(&site.upstreams[1]).await;
        gate.add_permits(1);
    });
    assert_ended(&answer);
    let said = answer.body["error_description"].as_str().expect("a sentence");
    assert!(said.contains("moved while"), "{said}");
    let store = site.site.store().await;
    let server = ServerId::new("id-one").expect("an id");
    assert!(store.grants_of_server(&server).await.expect("answers").is_empty());
    // Whoever signs in at the new place is connected there.
    site.provider.set(|modes| modes.token_gate = None);
    let code = site.client.code(&site.gateway, &Browser::new()).await;
    assert_eq!(exchange(&site.gateway, &site.client, &code).await.status, 200);
    assert_eq!(store.grants_of_server(&server).await.expect("answers").len(), 1);
}

/// A file in the place of another, taken.
async fn takes(gateway: &TestGateway, path: &Path, text: &str) {
    let before = gateway.live.app();
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
    let taken = async {
        while gateway.live.is_current(&before) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, taken).await.expect("the file is taken");
}

#[tokio::test]
async fn a_configured_client_is_shown_to_no_provider_that_a_sign_in_did_not_begin_at() {
    let [provider, other] = [Provider::start().await, Provider::start().await];
    // Both know the client, by the same secret: the worst that an edit can do.
    let text = |provider: &Provider| {
        let more = "server_id: id-one\nconsent: never";
        personal(&shared("one", provider, more), "")
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, text(&provider)).expect("written");
    let gateway = Start::new(text(&provider)).file(&path).start().await;
    let client = Registered::at(&gateway, "/one").await;
    let refresh_token = |tokens: &Value| tokens["refresh_token"].as_str().expect("a token").to_owned();
    // One that carries the provider's, one for what is kept, and a code.
    let carried = refresh_token(&client.tokens(&gateway).await);
    let code = client.code(&gateway, &Browser::new()).await;
    let kept = refresh_token(&exchange(&gateway, &client, &code).await.body);
    let code = client.code(&gateway, &Browser::new()).await;
    let asked = provider.requests_to("/token").len();
    // Else what was just issued is as good as new.
    gateway.advance(60);

    takes(&gateway, &path, &text(&other)).await;
    assert_ended(&exchange(&gateway, &client, &code).await);
    for token in [&carried, &kept] {
        assert_ended(&got(client.refresh(&gateway, token)).await);
    }
    assert!(other.requests().is_empty(), "{:#?}", other.requests());
    assert_eq!(provider.requests_to("/token").len(), asked);
    other.assert_never_seen(CLIENT_SECRET);

    // Back at the one that issued them they count.
    takes(&gateway, &path, &text(&provider)).await;
    for token in [&carried, &kept] {
        assert_eq!(got(client.refresh(&gateway, token)).await.status, 200);
    }
}

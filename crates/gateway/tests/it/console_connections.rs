//! Connecting servers from the console: the way there and back, every way that it fails, and what others cannot do
//! with it.

use crate::browser::{parameter, registering, shared};
use crate::console_harness::{Person, Place, count, html, put_key, put_user, text};
use crate::harness::{KEY, TestGateway, answer, assert_nothing_secret_logged, echo, keyed};
use scraper::Html;
use serde_json::json;
use vestibule_store::UserId;
use vestibule_testkit::{Iss, Provider, TokenMode, Upstream};

const PATH: &str = "/ui/connections";

/// A provider with one server, and a gateway with a key of ada's for it.
struct Site {
    provider: Provider,
    _upstream: Upstream,
    place: Place,
    gateway: TestGateway,
    key: String,
}

impl Site {
    async fn start() -> Self {
        let provider = Provider::start().await;
        let upstream = provider.upstream().await;
        let place = Place::new();
        let store = place.store().await;
        put_user(&store, "ada", "admin").await;
        let key = put_key(&store, "adas", Some("ada"), "{}").await;
        let servers = registering("one", &upstream, "");
        let gateway = place.start(keyed(&servers)).start().await;
        Self {
            provider,
            _upstream: upstream,
            place,
            gateway,
            key,
        }
    }

    async fn ada(&self) -> Person<'_> {
        Person::signed_in(&self.gateway, &self.key, "").await
    }

    /// A call with ada's key.
    async fn call(&self) -> u16 {
        let request = self
            .gateway
            .http
            .post(self.gateway.url("/one/mcp"))
            .header("x-litellm-api-key", &self.key)
            .header("accept", "application/json, text/event-stream")
            .json(&echo("hello"));
        answer(request).await.0
    }

    async fn grants(&self) -> usize {
        let ada = UserId::new("ada").expect("an id");
        self.place
            .store()
            .await
            .grants_of(&ada)
            .await
            .expect("read")
            .len()
    }
}

/// The path of the server's Connect link.
fn connect(page: &Html) -> String {
    let link = scraper::Selector::parse("main section a[href^='/ui/connect/']").expect("selector");
    let link = page.select(&link).next().expect("a link");
    link.value().attr("href").expect("a path").to_owned()
}

#[tokio::test]
async fn a_server_is_connected_used_and_disconnected() {
    let site = Site::start().await;
    let ada = site.ada().await;
    assert_eq!(site.call().await, 401);
    let page = ada.page(PATH).await;
    assert_eq!(text(&page, "main .chip"), "not connected");
    let page = ada.follow(&connect(&page)).await;
    assert_eq!(text(&page, "[role=status]"), "one is connected.");
    assert_eq!(text(&page, "main .chip"), "connected");
    assert!(text(&page, "dl").contains("by itself"), "{}", text(&page, "dl"));
    assert_eq!(site.call().await, 200);
    // What is kept is ada's alone.
    let operator = Person::operator(&site.gateway).await;
    assert_eq!(text(&operator.page(PATH).await, "main .chip"), "not connected");

    let again = ada.follow(&connect(&ada.page(PATH).await)).await;
    assert_eq!(text(&again, "[role=status]"), "one is connected.");
    assert_eq!(site.grants().await, 1);

    let page = ada.page(PATH).await;
    let link = scraper::Selector::parse("a.danger").expect("selector");
    let link = page
        .select(&link)
        .next()
        .expect("a link")
        .value()
        .attr("href")
        .expect("a path");
    let question = ada.page(link).await;
    assert_eq!(
        count(&question, "form[method=post] button"),
        2,
        "the question, and signing out"
    );
    assert_eq!(site.grants().await, 1, "a question ends nothing");
    let page = ada.done(link, &[]).await;
    assert_eq!(text(&page, "[role=status]"), "one is disconnected.");
    assert_eq!((site.grants().await, site.call().await), (0, 401));
    assert_eq!(site.provider.requests_to("/revoke").len(), 1);
    let page = ada.done(link, &[]).await;
    assert_eq!(text(&page, "[role=status]"), "one was not connected.");
    let tokens = site.provider.tokens();
    assert_nothing_secret_logged(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_way_there_has_what_it_needs() {
    let site = Site::start().await;
    let ada = site.ada().await;
    let got = ada.open(&connect(&ada.page(PATH).await)).await;
    assert_eq!(got.status, 302);
    let location = got.header("location");
    assert_eq!(
        parameter(location, "code_challenge_method").as_deref(),
        Some("S256")
    );
    let callback = format!("{}/callback", ada.origin);
    assert_eq!(parameter(location, "redirect_uri"), Some(callback));
    for cookie in got.headers.get_all("set-cookie") {
        let cookie = cookie.to_str().expect("text");
        assert!(cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
        assert!(cookie.contains("; Path=/callback;") || cookie.contains("; Path=/ui/mcp/oauth/callback;"));
    }
}

/// The page that the person ends on after `spoil` did what it does to the address that the provider sends them to.
async fn failed(site: &Site, spoil: impl Fn(&str) -> String) -> String {
    let ada = site.ada().await;
    let back = ada.at_the_provider(&connect(&ada.page(PATH).await)).await;
    let page = ada.follow(&spoil(&back)).await;
    let said = text(&page, ".note.bad[role=status]");
    assert!(said.contains("Request id: "), "{said}");
    assert_eq!(site.grants().await, 0);
    assert_eq!(text(&page, "main .chip"), "not connected");
    said
}

#[tokio::test]
async fn every_failure_comes_back_to_the_page() {
    let site = Site::start().await;
    let whole = |back: &str| back.to_owned();
    site.provider
        .set(|modes| modes.refuses_people = Some(("access_denied".into(), None)));
    let said = failed(&site, whole).await;
    assert!(
        said.contains("one is not connected") && said.contains("access_denied"),
        "{said}"
    );
    site.provider.set(|modes| modes.refuses_people = None);

    // Markup and length in the provider's words.
    let nasty = |back: &str| {
        let state = parameter(back, "state").expect("a state");
        let iss = parameter(back, "iss").expect("an issuer");
        let words = "<script>alert(1)</script>".repeat(100);
        let query = crate::browser::encoded(&[
            ("error", "<b>bad</b>"),
            ("error_description", &words),
            ("state", &state),
            ("iss", &iss),
        ]);
        format!("{}?{query}", back.split('?').next().expect("an address"))
    };
    let said = failed(&site, nasty).await;
    assert!(
        said.contains("<script>alert(1)</script>") && said.contains("<b>bad</b>"),
        "as text: {said}"
    );

    site.provider
        .set(|modes| modes.iss = Some(Iss::Other("https://evil.example".into())));
    let said = failed(&site, whole).await;
    assert!(
        said.contains("RFC 9207") && said.contains("invalid_issuer"),
        "{said}"
    );
    site.provider.set(|modes| modes.iss = Some(Iss::Right));

    for (mode, expected) in [
        (
            TokenMode::Json(400, json!({"error": "invalid_grant"})),
            "invalid_grant",
        ),
        (TokenMode::Html500("canary page".into()), "one"),
        (TokenMode::Close, "one"),
    ] {
        site.provider.set(|modes| modes.token = mode.clone());
        let said = failed(&site, whole).await;
        assert!(
            said.contains(expected) && !said.contains("canary"),
            "{mode:?}: {said}"
        );
    }
    site.provider.set(|modes| modes.token = TokenMode::Standard);
    let ada = site.ada().await;
    let page = ada.follow(&connect(&ada.page(PATH).await)).await;
    assert_eq!(text(&page, "main .chip"), "connected");
}

#[tokio::test]
async fn what_was_begun_counts_for_its_browser_its_person_and_ten_minutes() {
    let site = Site::start().await;
    let store = site.place.store().await;
    put_user(&store, "bob", "admin").await;
    let of_bob = put_key(&store, "bobs", Some("bob"), "{}").await;
    let ada = site.ada().await;
    let path = connect(&ada.page(PATH).await);
    let to_console = async |person: &Person<'_>| {
        let back = person.at_the_provider(&path).await;
        let got = person
            .open(back.strip_prefix(&person.origin).expect("ours"))
            .await;
        let location = got.header("location").to_owned();
        assert!(location.contains("/ui/mcp/oauth/callback?"), "{location}");
        location.strip_prefix(&person.origin).expect("ours").to_owned()
    };
    // In another browser of the same person's.
    let end = to_console(&ada).await;
    let phone = site.ada().await;
    let page = phone.follow(&end).await;
    assert!(text(&page, "[role=status]").contains("another browser"));
    // As somebody else in the same browser.
    let login = ada.sign_in(&of_bob, "").await;
    assert_eq!(login.status, 303, "{login:?}");
    let page = ada.follow(&end).await;
    assert!(
        text(&page, "[role=status]").contains("Somebody else"),
        "{}",
        text(&page, "main")
    );
    assert_eq!(site.grants().await, 0);
    let bob = UserId::new("bob").expect("an id");
    assert_eq!(store.grants_of(&bob).await.expect("read").len(), 0);
    // It was ended by that.
    ada.sign_in(&site.key, "").await;
    let page = ada.follow(&end).await;
    assert!(text(&page, "[role=status]").contains("ended already"));
    // Twice with a good end.
    let end = to_console(&ada).await;
    let cookies = ada.browser.cookies();
    assert_eq!(
        text(&ada.follow(&end).await, "[role=status]"),
        "one is connected."
    );
    ada.browser.set_cookies(cookies);
    let page = ada.follow(&end).await;
    assert!(
        text(&page, "[role=status]").contains("used already"),
        "{}",
        text(&page, "main")
    );
    // Another state, and none.
    for query in [
        "?state=0123456789abcdef0123456789abcdef&code=c",
        "?code=c",
        "?state=%00&error=e",
        "",
    ] {
        let page = ada.follow(&format!("/ui/mcp/oauth/callback{query}")).await;
        assert!(text(&page, "[role=status]").contains("not known here"), "{query}");
    }
    // Ten minutes are over.
    let end = to_console(&ada).await;
    site.gateway.advance(600);
    let late = async {
        loop {
            let got = ada.open(&end).await;
            if got.status == 303 {
                return got;
            }
        }
    };
    let got = tokio::time::timeout(vestibule_testkit::DEADLINE, late)
        .await
        .expect("keys are believed");
    let page = ada.follow(got.header("location")).await;
    assert!(text(&page, "[role=status]").contains("took too long"));
}

#[tokio::test]
async fn a_link_on_another_site_asks_first() {
    let site = Site::start().await;
    let ada = site.ada().await;
    let path = connect(&ada.page(PATH).await);
    for (path, site) in [
        (path.as_str(), "cross-site"),
        (&path, "same-site"),
        ("/ui/connect", "cross-site"),
    ] {
        let got = ada.open_from(path, site).await;
        assert_eq!(got.status, 200, "{path} {site}");
        let question = format!("main form[method=post][action='{path}']");
        assert_eq!(count(&html(&got), &question), 1);
    }
    assert!(site.provider.requests_to("/authorize").is_empty());
    let nothing_said = ada.browser.open(&site.gateway.url(&path)).await;
    assert_eq!(nothing_said.status, 200, "nobody says where it came from");
    assert_eq!(ada.open_from(&path, "none").await.status, 302, "typed in");
    let referer = format!("{}/ui/connections", ada.origin);
    let url = site.gateway.url(&path);
    let got = ada.browser.open_with(&url, &[("referer", &referer)]).await;
    assert_eq!(got.status, 302);
}

/// Plain http, and nothing is said of where a link was: a form's `Origin` is all that there is.
#[tokio::test]
async fn a_browser_that_says_little_is_asked_once() {
    let site = Site::start().await;
    let ada = site.ada().await;
    let path = connect(&ada.page(PATH).await);
    for path in [path.as_str(), "/ui/connect"] {
        let url = site.gateway.url(path);
        let asked = ada.browser.open(&url).await;
        assert_eq!(asked.status, 200, "{asked:?}");
        assert_eq!(
            count(&html(&asked), &format!("main form[action='{path}'] button")),
            1
        );
        let before = site.provider.requests_to("/authorize").len();
        for headers in [
            vec![],
            vec![("origin", "null")],
            vec![("origin", "http://evil.example")],
        ] {
            let refused = ada.browser.submit(&url, &[], &headers).await;
            assert_eq!(refused.status, 403, "{headers:?}");
        }
        let answer = ada
            .browser
            .submit(&url, &[], &[("origin", ada.origin.as_str())])
            .await;
        // No redirect: browsers would hold it against form-action.
        assert_eq!((answer.status, answer.header("location")), (200, ""));
        let to = answer
            .header("refresh")
            .strip_prefix("0; url=")
            .expect("a way on");
        assert!(to.starts_with(&site.provider.authorization_url()), "{to}");
        assert_eq!(count(&html(&answer), "main a.primary"), 1);
        // The next pages say as little.
        let back = ada.browser.open(to).await;
        let end = ada.browser.open(back.header("location")).await;
        let mut next = ada.browser.open(end.header("location")).await;
        if path == "/ui/connect" {
            assert_eq!(next.header("refresh"), "0; url=/ui/connect");
            next = ada
                .browser
                .submit(&url, &[], &[("origin", ada.origin.as_str())])
                .await;
        }
        assert_eq!((next.status, next.header("location")), (303, PATH));
        assert_eq!(text(&ada.page(PATH).await, "main .chip"), "connected");
        assert_eq!(site.provider.requests_to("/authorize").len(), before + 1);
        let id = connect(&ada.page(PATH).await);
        let id = id.strip_prefix("/ui/connect/").expect("an id");
        ada.done(&format!("{PATH}/{id}/disconnect"), &[]).await;
    }
}

#[tokio::test]
async fn nobody_is_connected_by_a_link_to_the_sign_in_page() {
    let site = Site::start().await;
    let ada = site.ada().await;
    let path = connect(&ada.page(PATH).await);
    let dotted = format!("/ui/x/..{}", path.strip_prefix("/ui").expect("a path"));
    for next in [
        path.as_str(),
        "/ui/connect",
        "/ui/connect?a=b",
        &dotted,
        "/ui/mcp/oauth/callback?state=x",
        "/one/authorize?client_id=x",
    ] {
        let query = crate::browser::encoded(&[("next", next)]);
        for from in ["cross-site", "same-origin", "none"] {
            let got = ada.open_from(&format!("/ui/login?{query}"), from).await;
            assert_eq!((got.status, got.header("location")), (200, ""), "{next} {from}");
            assert_eq!(count(&html(&got), &format!("main a[href='{next}']")), 1, "{next}");
        }
    }
    assert!(site.provider.requests_to("/authorize").is_empty());
    assert_eq!(site.grants().await, 0);
}

#[tokio::test]
async fn all_are_connected_in_one_walk() {
    let [good, bad] = [Provider::start().await, Provider::start().await];
    let [first, third] = [good.upstream().await, good.upstream().await];
    let second = bad.upstream().await;
    let servers = [("one", &first), ("two", &second), ("three", &third)]
        .map(|(name, upstream)| registering(name, upstream, ""))
        .concat();
    let gateway = TestGateway::with_servers(&servers).await;
    bad.set(|modes| modes.refuses_people = Some(("access_denied".into(), None)));
    let operator = Person::operator(&gateway).await;
    let page = operator.page(PATH).await;
    assert_eq!(text(&page, "a.primary[href='/ui/connect']"), "Connect all (3)");
    let page = operator.follow("/ui/connect").await;
    let said = text(&page, "[role=status]");
    assert!(said.contains("2 of 3 connected"), "{said}");
    assert_eq!(
        text(&page, "[role=status] li"),
        "one: connected two: access_denied three: connected"
    );
    bad.set(|modes| modes.refuses_people = None);
    let page = operator.follow("/ui/connect").await;
    assert_eq!(text(&page, "[role=status] li"), "two: connected");
    assert_eq!(count(&page, ".chip.good"), 3);
    let page = operator.follow("/ui/connect").await;
    assert!(text(&page, "[role=status]").contains("Everything is connected"));
}

#[tokio::test]
async fn it_works_behind_an_ingress_or_says_why_not() {
    let provider = Provider::start().await;
    let servers = shared("one", &provider, "");
    let trusted = format!(
        "general_settings:\n  master_key: {KEY}\n  use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: [127.0.0.1/32]\n\
         mcp_servers:\n{servers}"
    );
    let https = "https://gateway.example";
    let forwarded = vec![
        ("x-forwarded-proto", "https".to_owned()),
        ("x-forwarded-host", "gateway.example".to_owned()),
    ];
    for (start, proxied) in [
        (
            crate::harness::Start::new(keyed(&servers)).environment("PROXY_BASE_URL", https),
            Vec::new(),
        ),
        (crate::harness::Start::new(trusted), forwarded.clone()),
    ] {
        let gateway = start.start().await;
        let mut person = Person::at(&gateway);
        person.origin = https.into();
        person.proxied = proxied;
        let got = person.sign_in(KEY, "ada").await;
        assert_eq!(got.status, 303, "{got:?}");
        let page = person.follow(&connect(&person.page(PATH).await)).await;
        assert_eq!(text(&page, "[role=status]"), "one is connected.");
        let asked = provider.requests_to("/authorize").pop().expect("asked");
        assert!(
            asked.target.contains("https%3A%2F%2Fgateway.example%2Fcallback"),
            "{}",
            asked.target
        );
    }
    // Neither is right: the gateway takes the proxy's name for http, or its own for the public one.
    let gateway = TestGateway::with_servers(&servers).await;
    let mut person = Person::at(&gateway);
    person.origin = https.into();
    person.proxied = forwarded;
    let got = person.sign_in(KEY, "ada").await;
    assert_eq!(got.status, 400);
    let said = text(&html(&got), "main");
    assert!(said.contains("PROXY_BASE_URL=https://gateway.example"), "{said}");
    assert!(
        said.contains("mcp_trusted_proxy_ranges") && said.contains("origin_mismatch"),
        "{said}"
    );
    // A session of before: the link is judged too.
    let person = Person::operator(&gateway).await;
    let url = gateway.url(&connect(&person.page(PATH).await));
    let headers = [
        ("referer", "https://gateway.example/ui"),
        ("x-forwarded-host", "gateway.example"),
    ];
    let got = person.browser.open_with(&url, &headers).await;
    assert_eq!(got.status, 400);
    assert!(text(&html(&got), "main").contains("PROXY_BASE_URL=https://gateway.example"));
}

#[tokio::test]
async fn what_one_replica_begins_another_ends() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let place = Place::new();
    let name = "http://gateway.test";
    let text_of = keyed(&registering("one", &upstream, ""));
    let start = || place.start(&text_of).environment("PROXY_BASE_URL", name).start();
    let [first, second] = [start().await, start().await];
    let mut person = Person::at(&first);
    person.origin = name.into();
    assert_eq!(person.sign_in(KEY, "ada").await.status, 303);
    let back = person.at_the_provider(&connect(&person.page(PATH).await)).await;
    let person = person.moved_to(&second);
    let to = person
        .open(back.strip_prefix(name).expect("ours"))
        .await
        .header("location")
        .to_owned();
    let person = person.moved_to(&first);
    let flash = person.open(to.strip_prefix(name).expect("ours")).await;
    assert_eq!(flash.header("location"), PATH);
    let person = person.moved_to(&second);
    let page = person.page(PATH).await;
    assert_eq!(text(&page, "[role=status]"), "one is connected.");
    assert_eq!(text(&page, "main .chip"), "connected");
    assert_eq!(person.send("/ui/logout", &[]).await.status, 303);
    let person = person.moved_to(&first);
    assert_eq!(person.open(PATH).await.status, 303, "signed out everywhere");
}

#[tokio::test]
async fn a_member_connects_what_their_key_is_for() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "bob", "member").await;
    let only = r#"{"object_permission":{"mcp_servers":["two"]}}"#;
    let key = put_key(&store, "bobs", Some("bob"), only).await;
    let nobodys = put_key(&store, "nobodys", None, only).await;
    let servers = ["one", "two"]
        .map(|name| registering(name, &upstream, ""))
        .concat();
    let gateway = place.start(keyed(&servers)).start().await;
    let operator = Person::operator(&gateway).await;
    let page = operator.page(PATH).await;
    let to_one = connect(&page);
    let bob = Person::signed_in(&gateway, &key, "").await;
    let page = bob.page(PATH).await;
    assert_eq!(text(&page, "main section h2"), "two");
    assert_eq!(text(&page, "nav.nav"), "Servers My connections Activity");
    let one = to_one.strip_prefix("/ui/connect/").expect("an id");
    for path in [to_one.clone(), format!("{PATH}/{one}/disconnect")] {
        let got = bob.open(&path).await;
        assert_eq!(got.status, 403, "{path}");
        assert!(text(&html(&got), "main").contains("server_not_allowed"));
    }
    assert_eq!(
        bob.send(&format!("{PATH}/{one}/disconnect"), &[]).await.status,
        403
    );
    assert_eq!(bob.open("/ui/connect/nothing").await.status, 404);
    let page = bob.follow("/ui/connect").await;
    assert_eq!(text(&page, "[role=status] li"), "two: connected");
    // A key of nobody's, and a master key of nobody's.
    let nobody = Person::signed_in(&gateway, &nobodys, "").await;
    assert!(text(&nobody.page(PATH).await, ".note.warn").contains("belongs to nobody"));
    let page = nobody.follow(&connect(&bob.page(PATH).await)).await;
    assert!(text(&page, "[role=status]").contains("does not say who you are"));
    let master = Person::signed_in(&gateway, KEY, "").await;
    assert!(text(&master.page(PATH).await, ".note.warn").contains("with your user id"));
}

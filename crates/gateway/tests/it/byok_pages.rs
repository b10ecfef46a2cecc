//! People's own keys in a browser that is signed in at the console: the page for clients takes its session, the console
//! has cards for them, and neither takes anything from other sites, for others, or for a server elsewhere.

use crate::audit_harness::only;
use crate::browser::parameter;
use crate::byok::{ALICES, REDIRECT, Site, VERIFIER, place, wish};
use crate::console_harness::{Person, count, html, text};
use crate::harness::{Got, KEY, TestGateway, assert_nothing_secret_logged, echo, got, keyed};
use crate::people::Town;
use crate::servers_harness::{add, change};
use scraper::{Html, Selector};
use serde_json::json;
use url::Url;
use vestibule_testkit::Upstream;

/// What browsers send for a page.
const PAGE: [(&str, &str); 1] = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];

/// The form of the second step as the page has it, with this key.
fn filled(gateway: &TestGateway, key: &str) -> Vec<(&'static str, String)> {
    let mut form: Vec<_> = wish(|_| {}).into_iter().collect();
    form.push(("api_key", key.to_owned()));
    form.push(("place", place(gateway)));
    form
}

async fn send(person: &Person<'_>, path: &str, key: &str) -> Got {
    let form = filled(person.gateway, key);
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    person.send(path, &form).await
}

/// The token request for the code of an answer.
async fn redeem(site: &Site, answer: &Got) -> Got {
    assert_eq!(answer.status, 302, "{answer:?}");
    let location = answer.header("location");
    assert!(location.starts_with(REDIRECT), "{location}");
    let code = parameter(location, "code").expect("a code");
    got(site.token("/one/token", &code, |_| {})).await
}

fn value(page: &Html, selector: &str, attribute: &str) -> String {
    let selector = Selector::parse(selector).expect("a selector");
    let element = page.select(&selector).next().expect("an element");
    element.value().attr(attribute).expect("an attribute").to_owned()
}

#[tokio::test]
async fn a_browser_signs_in_at_the_console_and_comes_back_to_the_page() {
    let site = Site::start().await;
    for path in ["/one/authorize", "/v1/mcp/oauth/authorize"] {
        let person = Person::at(&site.gateway);
        let url = site.authorize(path, |_| {});
        let wanted = url.strip_prefix(&person.origin).expect("ours").to_owned();
        let script = got(site.gateway.http.get(&url)).await;
        assert_eq!((script.status, script.header("location")), (401, ""));
        let to_login = person.browser.open_with(&url, &PAGE).await;
        let login = to_login.header("location").to_owned();
        assert_eq!(to_login.status, 303, "{to_login:?}");
        assert!(login.starts_with("/ui/login?next=%2F"), "{login}");
        let form = person.page(&login).await;
        assert_eq!(value(&form, "input[name=next]", "value"), wanted);
        let answer = person
            .send("/ui/login", &[("key", &site.alice), ("next", &wanted)])
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(value(&html(&answer), "main a.primary", "href"), wanted);
        let page = person.browser.open_with(&url, &PAGE).await;
        assert_eq!(text(&html(&page), "p strong:nth-of-type(2)"), "alice");
        let second = person.browser.open_with(&format!("{url}&step=key"), &PAGE).await;
        assert_eq!(count(&html(&second), "form[method=post] input[name=api_key]"), 1);
        let tokens = redeem(&site, &send(&person, path, ALICES).await).await;
        assert_eq!(tokens.status, 200, "{tokens:?}");
        assert_eq!(site.call(&site.alice).await.status, 200);
        assert_eq!(site.shown().as_deref(), Some(ALICES));
    }
    assert_nothing_secret_logged(&[ALICES]);
}

#[tokio::test]
async fn a_session_brings_a_key_for_its_own_person_from_a_page_of_ours_alone() {
    let site = Site::start().await;
    let path = "/one/authorize";
    let alice = Person::signed_in(&site.gateway, &site.alice, "").await;
    let form = filled(&site.gateway, "canary-planted");
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let url = site.gateway.url(path);
    let other_port = format!("http://127.0.0.1:{}", site.gateway.address.port() ^ 1);
    for headers in [
        vec![],
        vec![("origin", "https://evil.example")],
        vec![("origin", other_port.as_str())],
        vec![("origin", "null")],
        vec![("sec-fetch-site", "same-site")],
        vec![("sec-fetch-site", "none")],
        vec![
            ("origin", alice.origin.as_str()),
            ("x-litellm-api-key", "sk-no-such-key"),
        ],
        vec![
            ("origin", alice.origin.as_str()),
            ("authorization", "Bearer sk-no-such-key"),
        ],
    ] {
        let answer = alice.browser.submit(&url, &form, &headers).await;
        assert!(
            (400..500).contains(&answer.status) && answer.header("location").is_empty(),
            "{headers:?}: {answer:?}"
        );
    }
    // A key on the request says who it is, whoever is signed in.
    let as_bob = [
        ("origin", alice.origin.as_str()),
        ("x-litellm-api-key", site.bob.as_str()),
    ];
    let answer = alice.browser.submit(&url, &form, &as_bob).await;
    assert_eq!(redeem(&site, &answer).await.status, 200);
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");
    assert_eq!(site.call(&site.bob).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-planted"));
    // Nor does anything in the form.
    let claimed = [&form[..], &[("user_id", "bob"), ("api_key_of", "bob")]].concat();
    let claimed: Vec<_> = claimed
        .into_iter()
        .map(|(name, value)| (name, if name == "api_key" { ALICES } else { value }))
        .collect();
    redeem(&site, &alice.send(path, &claimed).await).await;
    assert_eq!(site.call(&site.bob).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-planted"));
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));

    // A server that the key is not for, nobody in particular, and a session that ended.
    let carols = site.town.key_with("carols", "carol", &only(&["two"])).await;
    site.gateway.looks().await;
    let carol = Person::signed_in(&site.gateway, &carols, "").await;
    assert_eq!(send(&carol, path, ALICES).await.status, 403);
    let master = Person::signed_in(&site.gateway, KEY, "").await;
    assert_eq!(send(&master, path, ALICES).await.status, 400);
    let cookies = alice.browser.cookies();
    alice.send("/ui/logout", &[]).await;
    alice.browser.set_cookies(cookies);
    assert_eq!(send(&alice, path, "canary-late").await.status, 401);
    // The session is for the page alone: it admits to nothing beside it.
    let bob = Person::signed_in(&site.gateway, &site.bob, "").await;
    for other in [
        "/one/token",
        "/one/register",
        "/one/mcp",
        "/v1/mcp/user-credentials",
    ] {
        let answer = bob.browser.open_with(&site.gateway.url(other), &PAGE).await;
        assert!(matches!(answer.status, 401 | 404 | 405), "{other}: {answer:?}");
    }
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));
}

#[tokio::test]
async fn my_connections_have_a_card_for_each_server_that_wants_a_key() {
    let site = Site::start().await;
    let alice = Person::signed_in(&site.gateway, &site.alice, "").await;
    let path = "/ui/connections/one-id/key";
    let place = place(&site.gateway);
    let place = ("place", place.as_str());
    let page = alice.page("/ui/connections").await;
    assert_eq!(
        (text(&page, "main section h2"), text(&page, "main .chip")),
        ("one".to_owned(), "no key".to_owned())
    );
    assert_eq!(value(&page, "main section a.primary", "href"), path);
    let form = alice.page(path).await;
    assert_eq!(text(&form, "main li"), "Read your mail <script>alert(1)</script>");
    assert_eq!(
        count(&form, "main a[target=_blank][rel='noopener noreferrer']"),
        1
    );
    let page = alice.done(path, &[("api_key", ALICES), place]).await;
    assert_eq!(text(&page, "[role=status]"), "Your key for one is kept.");
    assert_eq!(text(&page, "main .chip"), "key kept");
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));
    let page = alice.done(path, &[("api_key", "canary-newer"), place]).await;
    assert!(!page.html().contains("canary"), "no page repeats a key");
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));

    // One that does not fit is asked for again and not repeated, and nothing changes.
    for wrong in ["canary\u{1}bad", "", " "] {
        let again = alice.send(path, &[("api_key", wrong), place]).await;
        assert_eq!(again.status, 400);
        let page = html(&again);
        assert_eq!(count(&page, "input[name=api_key][aria-invalid=true]"), 1);
        assert!(!page.html().contains("canary"), "{}", page.html());
    }
    assert_eq!(site.call(&site.alice).await.status, 200);

    // Others have their own; other sites' forms and servers that it is not for are refused.
    let bob = Person::signed_in(&site.gateway, &site.bob, "").await;
    assert_eq!(text(&bob.page("/ui/connections").await, "main .chip"), "no key");
    let remove = format!("{path}/remove");
    let page = bob.done(&remove, &[]).await;
    assert_eq!(text(&page, "[role=status]"), "There was no key for one.");
    for path in [path, &remove] {
        let url = site.gateway.url(path);
        let foreign = [("origin", "https://evil.example")];
        let answer = alice
            .browser
            .submit(&url, &[("api_key", "canary-planted"), place], &foreign)
            .await;
        assert_eq!(answer.status, 403, "{path}");
    }
    let carols = site.town.key("carols", "carol", &["two"]).await;
    site.gateway.looks().await;
    let carol = Person::signed_in(&site.gateway, &carols, "").await;
    assert!(text(&carol.page("/ui/connections").await, "main").contains("Nothing to connect"));
    assert_eq!(
        carol
            .send(path, &[("api_key", "canary-planted"), place])
            .await
            .status,
        403
    );
    assert_eq!(carol.open(path).await.status, 403);
    for other in ["two", "nothing"] {
        let path = format!("/ui/connections/{other}/key");
        let answer = alice.send(&path, &[("api_key", "canary-planted"), place]).await;
        assert_eq!(answer.status, 400, "{other}");
    }
    let master = Person::signed_in(&site.gateway, KEY, "").await;
    assert_eq!(
        master
            .send(path, &[("api_key", "canary-planted"), place])
            .await
            .status,
        400
    );
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));

    // A question removes nothing.
    let question = alice.page(&remove).await;
    assert_eq!(value(&question, "main form", "action"), remove);
    assert_eq!(site.call(&site.alice).await.status, 200);
    let page = alice.done(&remove, &[]).await;
    assert_eq!(text(&page, "[role=status]"), "Your key for one is removed.");
    assert_eq!(text(&page, "main .chip"), "no key");
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");
    let changes = site.gateway.until_rows("kind=change&user_id=alice", 4).await;
    let outcomes: Vec<_> = changes.iter().map(|row| row["outcome"].clone()).collect();
    assert_eq!(
        outcomes,
        [
            "session.begin",
            "user_credential.keep",
            "user_credential.keep",
            "user_credential.forget"
        ]
    );
    assert_nothing_secret_logged(&[ALICES, "canary-newer"]);
}

#[tokio::test]
async fn a_key_for_a_server_that_moved_is_not_kept_for_where_it_is_now() {
    let town = Town::new().await;
    let alice = town.key("alices", "alice", &["one"]).await;
    let gateway = town.start(keyed("")).start().await;
    let [here, there] = [Upstream::start().await, Upstream::start().await];
    let server = json!({"server_name": "one", "server_id": "one-id", "url": here.url(), "transport": "http",
        "auth_type": "api_key", "is_byok": true});
    add(&gateway, &server).await;
    gateway.looks().await;
    let form = filled(&gateway, ALICES);
    let page = gateway.http.post(gateway.url("/one/authorize")).form(&form);
    let answer = got(page.header("x-litellm-api-key", &alice)).await;
    let code = parameter(answer.header("location"), "code").expect("a code");
    change(&gateway, &json!({"server_id": "one-id", "url": there.url()})).await;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    let refused = got(gateway.http.post(gateway.url("/one/token")).form(&form)).await;
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (400, &json!("invalid_grant")),
        "{refused:?}"
    );
    let call = gateway.http.post(gateway.url("/one/mcp"));
    let call = got(call.header("x-litellm-api-key", &alice).json(&echo("hello"))).await;
    assert_eq!(call.code(), "byok_auth_required");
    there.assert_never_seen(ALICES);
    assert!(there.requests().is_empty());
}

#[tokio::test]
async fn a_form_that_was_opened_before_the_server_moved_keeps_nothing() {
    let town = Town::new().await;
    let key = town.key("alices", "alice", &["one"]).await;
    let gateway = town.start(keyed("")).start().await;
    let [here, there] = [Upstream::start().await, Upstream::start().await];
    let server = json!({"server_name": "one", "server_id": "one-id", "url": here.url(), "transport": "http",
        "auth_type": "api_key", "is_byok": true});
    add(&gateway, &server).await;
    gateway.looks().await;
    let alice = Person::signed_in(&gateway, &key, "").await;
    let query: Vec<_> = wish(|_| {})
        .into_iter()
        .chain([("step", "key".to_owned())])
        .collect();
    let second = Url::parse_with_params(&gateway.url("/one/authorize"), query).expect("a URL");
    let own = "/ui/connections/one-id/key";
    let second_page = alice.browser.open_with(second.as_str(), &PAGE).await;
    let opened = [html(&second_page), alice.page(own).await];
    let opened = opened.map(|page| value(&page, "input[name=place]", "value"));
    change(&gateway, &json!({"server_id": "one-id", "url": there.url()})).await;
    for (path, place) in ["/one/authorize", own].into_iter().zip(&opened) {
        let mut form: Vec<_> = wish(|_| {}).into_iter().collect();
        form.push(("api_key", ALICES.to_owned()));
        for said in [Some(place), None] {
            let mut form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            form.extend(said.map(|place| ("place", place.as_str())));
            let again = alice.send(path, &form).await;
            assert_eq!(
                (again.status, again.header("location")),
                (409, ""),
                "{path}: {again:?}"
            );
            let page = html(&again);
            assert!(
                page.html().contains("was moved since this form was opened"),
                "{}",
                page.html()
            );
            assert!(!page.html().contains(ALICES), "{}", page.html());
            // What is shown now is for where the server is now.
            let now = value(&page, "input[name=place]", "value");
            assert_ne!(&now, place);
        }
        assert_eq!(text(&alice.page("/ui/connections").await, "main .chip"), "no key");
    }
    there.assert_never_seen(ALICES);
    // Whoever means the new place types the key in once more.
    let again = alice.page(own).await;
    let now = value(&again, "input[name=place]", "value");
    let page = alice.done(own, &[("api_key", ALICES), ("place", &now)]).await;
    assert_eq!(text(&page, "main .chip"), "key kept");
}

#[tokio::test]
async fn a_form_that_arrives_after_the_session_leads_to_the_sign_in_and_back() {
    let site = Site::start().await;
    let alice = Person::signed_in(&site.gateway, &site.alice, "").await;
    alice.send("/ui/logout", &[]).await;
    let form = filled(&site.gateway, ALICES);
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let origin = ("origin", alice.origin.as_str());
    for path in ["/one/authorize", "/v1/mcp/oauth/authorize"] {
        let url = site.gateway.url(path);
        let script = alice.browser.submit(&url, &form, &[origin]).await;
        assert_eq!((script.status, script.header("location")), (401, ""));
        let sent = alice.browser.submit(&url, &form, &[origin, PAGE[0]]).await;
        let login = sent.header("location");
        assert_eq!(sent.status, 303, "{sent:?}");
        assert!(
            login.starts_with("/ui/login?") && !login.contains(ALICES),
            "{login}"
        );
        let page = alice.page(login).await;
        assert!(text(&page, "[role=alert]").contains("nothing of what you sent was saved"));
        let next = value(&page, "input[name=next]", "value");
        assert!(next.starts_with(&format!("{path}?")), "{next}");
        let other = Person::signed_in(&site.gateway, &site.alice, "").await;
        let back = other.browser.open_with(&site.gateway.url(&next), &PAGE).await;
        assert_eq!(
            count(&html(&back), "form[method=post] input[name=api_key]"),
            1,
            "{back:?}"
        );
    }
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");
    assert_nothing_secret_logged(&[ALICES]);
}

#[tokio::test]
async fn a_session_of_a_person_who_is_blocked_counts_no_longer() {
    let site = Site::start().await;
    let ada = Person::signed_in(&site.gateway, KEY, "ada").await;
    let tokens = redeem(&site, &send(&ada, "/one/authorize", ALICES).await).await;
    let session = tokens.body["access_token"].as_str().expect("a token").to_owned();
    let later = send(&ada, "/one/authorize", ALICES).await;
    assert_eq!(site.call_with(&session, "/one/mcp").await.status, 200);
    let block = |blocked: bool| {
        let body = json!({"user_id": "ada", "blocked": blocked});
        let request = site.gateway.http.post(site.gateway.url("/user/update"));
        got(request.bearer_auth(KEY).json(&body))
    };
    assert_eq!(block(true).await.status, 200);
    let call = site.call_with(&session, "/one/mcp").await;
    assert_eq!((call.status, call.code()), (401, "server_session_ended"));
    let refused = redeem(&site, &later).await;
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (400, &json!("invalid_grant"))
    );
    // Others are who they were.
    let bob = Person::signed_in(&site.gateway, KEY, "bob-the-operator").await;
    assert_eq!(
        redeem(&site, &send(&bob, "/one/authorize", ALICES).await)
            .await
            .status,
        200
    );
    assert_eq!(block(false).await.status, 200);
    assert_eq!(site.call_with(&session, "/one/mcp").await.status, 200);
}

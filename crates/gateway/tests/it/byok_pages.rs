//! People's own keys in a browser that is signed in at the console: the page for clients takes its session, the console
//! has cards for them, and neither takes anything from other sites, for others, or for a server elsewhere.

use crate::audit_harness::only;
use crate::browser::parameter;
use crate::byok::{ALICES, REDIRECT, Site, VERIFIER, wish};
use crate::console_harness::{Person, count, html, text};
use crate::harness::{Got, KEY, assert_nothing_secret_logged, echo, got, keyed};
use crate::people::Town;
use crate::servers_harness::{add, change};
use scraper::{Html, Selector};
use serde_json::json;
use vestibule_testkit::Upstream;

/// What browsers send for a page.
const PAGE: [(&str, &str); 1] = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];

/// The form of the second step as the page has it, with this key.
fn filled(key: &str) -> Vec<(&'static str, String)> {
    let mut form: Vec<_> = wish(|_| {}).into_iter().collect();
    form.push(("api_key", key.to_owned()));
    form
}

async fn send(person: &Person<'_>, path: &str, key: &str) -> Got {
    let form = filled(key);
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
    let form = filled("canary-planted");
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
    let page = alice.done(path, &[("api_key", ALICES)]).await;
    assert_eq!(text(&page, "[role=status]"), "Your key for one is kept.");
    assert_eq!(text(&page, "main .chip"), "key kept");
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));
    let page = alice.done(path, &[("api_key", "canary-newer")]).await;
    assert!(!page.html().contains("canary"), "no page repeats a key");
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));

    // One that does not fit is asked for again and not repeated, and nothing changes.
    for wrong in ["canary\u{1}bad", "", " "] {
        let again = alice.send(path, &[("api_key", wrong)]).await;
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
            .submit(&url, &[("api_key", "canary-planted")], &foreign)
            .await;
        assert_eq!(answer.status, 403, "{path}");
    }
    let carols = site.town.key("carols", "carol", &["two"]).await;
    site.gateway.looks().await;
    let carol = Person::signed_in(&site.gateway, &carols, "").await;
    assert!(text(&carol.page("/ui/connections").await, "main").contains("Nothing to connect"));
    assert_eq!(
        carol.send(path, &[("api_key", "canary-planted")]).await.status,
        403
    );
    assert_eq!(carol.open(path).await.status, 403);
    for other in ["two", "nothing"] {
        let path = format!("/ui/connections/{other}/key");
        let answer = alice.send(&path, &[("api_key", "canary-planted")]).await;
        assert_eq!(answer.status, 400, "{other}");
    }
    let master = Person::signed_in(&site.gateway, KEY, "").await;
    assert_eq!(
        master.send(path, &[("api_key", "canary-planted")]).await.status,
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
    let form = filled(ALICES);
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

//! Signing in to the console and out: what a session is good for, how it ends, and who may not begin one.

use crate::browser::{Browser, Cookie};
use crate::console_forms::Form;
use crate::console_harness::{Person, Place, count, html, put_key, put_user, text};
use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed, machine};
use vestibule_store::UserId;
use vestibule_testkit::{Idp, Upstream};

const SERVER: &str = "  one:\n    url: http://127.0.0.1:9/mcp\n";

async fn with_place(place: &Place) -> TestGateway {
    place.start(keyed(SERVER)).start().await
}

/// Until the gateway has seen what the test wrote beside it.
async fn until_signed_out(person: &Person<'_>) -> String {
    let gone = async {
        loop {
            let got = person.open("/ui/sessions").await;
            if got.status == 303 {
                return got.header("location").to_owned();
            }
        }
    };
    tokio::time::timeout(vestibule_testkit::DEADLINE, gone)
        .await
        .expect("the session ends")
}

/// Until the gateway takes the key no more.
async fn until_refused(gateway: &TestGateway, key: &str) {
    let refused = async {
        loop {
            let request = gateway.http.get(gateway.url("/mcp-rest/tools/list"));
            let got = got(request.header("x-litellm-api-key", key)).await;
            if matches!(got.status, 401 | 403) {
                return;
            }
        }
    };
    tokio::time::timeout(vestibule_testkit::DEADLINE, refused)
        .await
        .expect("the key is refused");
}

#[tokio::test]
async fn the_operator_signs_in_and_out() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let person = Person::at(&gateway);
    let to_login = person.open("/ui/health?a=b").await;
    assert_eq!(to_login.status, 303);
    assert_eq!(
        to_login.header("location"),
        "/ui/login?next=%2Fui%2Fhealth%3Fa%3Db"
    );
    let page = person.page(to_login.header("location")).await;
    assert_eq!(count(&page, "input[type=password][name=key][required]"), 1);

    let form = [("key", KEY), ("user_id", "ada"), ("next", "/ui/health?a=b")];
    let got = person.send("/ui/login", &form).await;
    assert_eq!((got.status, got.header("location")), (303, "/ui/health?a=b"));
    let cookie = got.header("set-cookie");
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert_eq!(
        attributes,
        ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Lax"]
    );
    let value = cookie.split_once('=').expect("a value").1;
    assert!(value.split('.').next().expect("a part").len() >= 43, "32 bytes");
    assert!(!cookie.contains(KEY));

    let page = person.page("/ui/health").await;
    assert_eq!(text(&page, ".who a"), "ada (admin)");
    let again = person.open("/ui/login?next=/ui/sessions").await;
    assert_eq!((again.status, again.header("location")), (303, "/ui/sessions"));

    let stolen = person.browser.cookies();
    let out = person.send("/ui/logout", &[]).await;
    assert_eq!(
        (out.status, out.header("location")),
        (303, "/ui/login?ended=signed_out")
    );
    assert!(
        person.browser.cookies().is_empty(),
        "the browser has forgotten it"
    );
    person.browser.set_cookies(stolen);
    assert_eq!(
        person.open("/ui/health").await.status,
        303,
        "and so has the store"
    );
    assert_nothing_secret_logged(&[]);
}

#[tokio::test]
async fn over_https_the_cookie_is_of_this_host_alone() {
    let gateway = Start::new(keyed(SERVER))
        .environment("PROXY_BASE_URL", "https://gw.example")
        .start()
        .await;
    let browser = Browser::new();
    let headers = [("origin", "https://gw.example")];
    let got = browser
        .submit(&gateway.url("/ui/login"), &[("key", KEY)], &headers)
        .await;
    assert_eq!(got.status, 303, "{got:?}");
    let cookie = got.header("set-cookie");
    assert!(cookie.starts_with("__Host-vestibule_session="), "{cookie}");
    assert!(
        cookie.contains("; Path=/;") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
    // One without the prefix is somebody else's.
    let value = cookie.split(['=', ';']).nth(1).expect("a value").to_owned();
    let planted = Cookie {
        name: "vestibule_session".into(),
        value,
        path: "/".into(),
    };
    assert_eq!(browser.open(&gateway.url("/ui/health")).await.status, 200);
    browser.set_cookies(vec![planted]);
    assert_eq!(browser.open(&gateway.url("/ui/health")).await.status, 303);
}

#[tokio::test]
async fn forms_of_other_pages_are_refused() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let person = Person::operator(&gateway).await;
    let own = format!("http://{}", gateway.address);
    let port = gateway.address.port();
    let https = format!("https://127.0.0.1:{port}");
    let other_port = format!("http://127.0.0.1:{}", port ^ 1);
    for (headers, status, code) in [
        (vec![], 403, "foreign_form"),
        (vec![("origin", "null")], 403, "foreign_form"),
        (vec![("origin", "https://evil.example")], 403, "foreign_form"),
        (vec![("origin", other_port.as_str())], 403, "foreign_form"),
        (vec![("sec-fetch-site", "cross-site")], 403, "foreign_form"),
        (vec![("sec-fetch-site", "same-site")], 403, "foreign_form"),
        (vec![("origin", https.as_str())], 400, "origin_mismatch"),
    ] {
        for path in ["/ui/logout", "/ui/login", "/ui/sessions/x/end", "/ui/nothing"] {
            let got = person
                .browser
                .submit(&gateway.url(path), &[("key", KEY)], &headers)
                .await;
            assert_eq!(got.status, status, "{path} {headers:?}");
            let page = html(&got);
            assert!(text(&page, "main").contains(code), "{path} {headers:?}");
            assert!(got.headers.get("set-cookie").is_none());
        }
    }
    // The reason names what to set.
    let got = person
        .browser
        .submit(&gateway.url("/ui/logout"), &[], &[("origin", &https)])
        .await;
    let page = text(&html(&got), "main");
    assert!(
        page.contains(&format!("PROXY_BASE_URL={https}")) && page.contains(&own),
        "{page}"
    );
    assert_eq!(
        person.open("/ui/health").await.status,
        200,
        "nobody was signed out"
    );
    let got = person
        .browser
        .submit(
            &gateway.url("/ui/logout"),
            &[],
            &[("sec-fetch-site", "same-origin")],
        )
        .await;
    assert_eq!(got.status, 303);
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "ada", "admin").await;
    put_user(&store, "bob", "member").await;
    let [rotated, blocked, deleted, of_bob] = ["rotated", "blocked", "deleted", "bobs"];
    let mut keys = Vec::new();
    for (id, user) in [
        (rotated, "ada"),
        (blocked, "ada"),
        (deleted, "ada"),
        (of_bob, "bob"),
    ] {
        keys.push(put_key(&store, id, Some(user), "{}").await);
    }
    let gateway = with_place(&place).await;
    let mut people = Vec::new();
    for key in &keys {
        people.push(Person::signed_in(&gateway, key, "").await);
    }
    assert_eq!(
        text(&people[3].page("/ui/sessions").await, ".who a"),
        "bob (member)"
    );

    let row = store.api_key(rotated).await.expect("read").expect("there");
    let digest = vestibule::admission::keys::digest_of(b"sk-another");
    store
        .replace_api_key_digest(rotated, row.version, &digest, "sk-…", 2)
        .await
        .expect("replaced");
    assert_eq!(
        until_signed_out(&people[0]).await,
        "/ui/login?next=%2Fui%2Fsessions"
    );
    let mut row = store.api_key(blocked).await.expect("read").expect("there");
    row.blocked = true;
    store.update_api_key(&row, 2).await.expect("blocked");
    let to = until_signed_out(&people[1]).await;
    assert!(to.contains("ended=key_blocked"), "{to}");
    assert!(text(&people[1].page(&to).await, "[role=status]").contains("is blocked"));
    store.delete_api_key(deleted).await.expect("deleted");
    until_signed_out(&people[2]).await;
    let id = UserId::new("bob").expect("an id");
    let mut bob = store.user(&id).await.expect("read").expect("there");
    bob.blocked = true;
    store.update_user(&bob, 2).await.expect("blocked");
    until_signed_out(&people[3]).await;
    for key in &keys {
        until_refused(&gateway, key).await;
    }
    // Blocked keys are told why; unknown ones are not told anything else than wrong ones.
    let got = Person::at(&gateway).sign_in(&keys[1], "").await;
    assert_eq!(got.status, 403);
    let page = text(&html(&got), "[role=alert]");
    assert!(page.contains("blocked"), "{page}");
    let unknown = Person::at(&gateway).sign_in(&keys[2], "").await;
    let wrong = Person::at(&gateway).sign_in("nonsense", "").await;
    assert_eq!((unknown.status, wrong.status), (401, 401));
    let say = |got| text(&html(got), "[role=alert]");
    assert_eq!(say(&unknown), say(&wrong));
    // The key of a blocked person, and a blocked person with the master key.
    assert_eq!(Person::at(&gateway).sign_in(&keys[3], "").await.status, 403);
    assert_eq!(Person::at(&gateway).sign_in(KEY, "bob").await.status, 403);
}

#[tokio::test]
async fn a_session_is_over_after_twelve_hours_and_with_its_keys_end() {
    let place = Place::new();
    let store = place.store().await;
    let key = put_key(&store, "short", None, "{}").await;
    let gateway = with_place(&place).await;
    let person = Person::operator(&gateway).await;
    let other = Person::signed_in(&gateway, &key, "").await;
    gateway.advance(12 * 3600 - 1);
    assert_eq!(person.open("/ui/sessions").await.status, 200);
    gateway.advance(1);
    assert_eq!(person.open("/ui/sessions").await.status, 303);
    until_signed_out(&other).await;
    // Whoever signs in next sweeps.
    let person = Person::operator(&gateway).await;
    assert_eq!(count(&person.page("/ui/sessions").await, "tbody tr"), 1);
}

#[tokio::test]
async fn of_a_form_that_comes_after_the_session_it_is_said_that_it_was_not_saved() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let person = Person::operator(&gateway).await;
    gateway.advance(12 * 60 * 60 + 1);
    let from = async |referer: &str| {
        let headers = [("origin", person.origin.as_str()), ("referer", referer)];
        let form = [("alias", "canary-late")];
        let got = person
            .browser
            .submit(&gateway.url("/ui/keys"), &form, &headers)
            .await;
        assert_eq!(got.status, 303, "{got:?}");
        got.header("location").to_owned()
    };
    for other in [
        "https://evil.example/ui/keys/new",
        &format!("{}/uievil", person.origin),
        &format!("{}//evil.example/ui", person.origin),
        "",
    ] {
        assert_eq!(from(other).await, "/ui/login?unsent=1", "{other}");
    }
    let to = from(&format!("{}/ui/keys/new?user=ada", person.origin)).await;
    assert_eq!(to, "/ui/login?unsent=1&next=%2Fui%2Fkeys%2Fnew%3Fuser%3Dada");
    let page = person.page(&to).await;
    assert!(text(&page, "[role=alert]").contains("nothing of what you sent was saved"));
    // A wrong key forgets none of it.
    let wrong = Form::with(page, "Sign in").fill("Gateway key", "sk-wrong");
    let got = wrong.send(&person).await;
    assert_eq!(got.status, 401);
    let right = Form::with(html(&got), "Sign in").fill("Gateway key", KEY);
    let (path, page) = right.done(&person).await;
    assert_eq!(path, "/ui/keys/new?user=ada");
    assert!(text(&page, ".note.warn[role=status]").contains("was not saved"));
    assert!(!person.page("/ui/keys").await.html().contains("canary-late"));
    // Whoever only opened a page lost nothing.
    gateway.advance(12 * 60 * 60 + 1);
    let got = person.open("/ui/keys").await;
    assert_eq!(got.header("location"), "/ui/login?next=%2Fui%2Fkeys");
    let page = person.page(got.header("location")).await;
    assert_eq!(count(&page, ".note"), 0);
}

#[tokio::test]
async fn nobody_comes_in_by_a_session_that_was_planted_or_altered() {
    let place = Place::new();
    let store = place.store().await;
    let key = put_key(&store, "bobs", Some("bob"), "{}").await;
    let gateway = with_place(&place).await;
    // A session that was there before the sign-in is another than the one after it.
    let person = Person::signed_in(&gateway, &key, "").await;
    let before = person.browser.cookies();
    person.sign_in(KEY, "ada").await;
    let after = person.browser.cookies();
    assert_ne!(before, after);
    let thief = Person::at(&gateway);
    thief.browser.set_cookies(before.clone());
    assert_eq!(
        thief.open("/ui/sessions").await.status,
        303,
        "left with the new one"
    );
    // The key id in the cookie is part of what is looked up: a member's session is no admin's.
    let member = Person::signed_in(&gateway, &key, "").await;
    let mut cookie = member.browser.cookies().remove(0);
    let value = cookie.value.clone();
    let (secret, _) = value.split_once('.').expect("two parts");
    for other in ["", "YWRh", "!!", "AA=="] {
        cookie.value = format!("{secret}.{other}");
        member.browser.set_cookies(vec![cookie.clone()]);
        assert_eq!(member.open("/ui/sessions").await.status, 303, "{other}");
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let place = Place::new();
    let store = place.store().await;
    let [ada, bob] = [
        put_key(&store, "adas", Some("ada"), "{}").await,
        put_key(&store, "bobs", Some("bob"), "{}").await,
    ];
    let gateway = with_place(&place).await;
    let phone = Person::signed_in(&gateway, &ada, "").await;
    let ada = Person::signed_in(&gateway, &ada, "").await;
    let bob = Person::signed_in(&gateway, &bob, "").await;
    let operator = Person::operator(&gateway).await;
    assert_eq!(count(&ada.page("/ui/sessions").await, "tbody tr"), 2);
    assert_eq!(count(&bob.page("/ui/sessions").await, "tbody tr"), 1);
    let page = operator.page("/ui/sessions").await;
    assert_eq!(count(&page, "tbody tr"), 4);

    let action = |page: &scraper::Html, who: &str| {
        let rows = scraper::Selector::parse("tbody tr").expect("selector");
        let form = scraper::Selector::parse("form").expect("selector");
        let mut rows = page.select(&rows);
        let row =
            rows.find(|row| row.text().collect::<String>().contains(who) && row.select(&form).count() == 1);
        let form = row.expect("a row").select(&form).next().expect("a form");
        form.value().attr("action").expect("an action").to_owned()
    };
    let of_phone = action(&ada.page("/ui/sessions").await, "adas");
    // Somebody else's session is as good as none.
    let got = bob.send(&of_phone, &[]).await;
    assert_eq!(got.status, 404);
    assert_eq!(phone.open("/ui/sessions").await.status, 200);
    let page = ada.done(&of_phone, &[]).await;
    assert!(text(&page, "[role=status]").contains("has ended"), "a flash");
    assert_eq!(
        text(&ada.page("/ui/sessions").await, "[role=status]"),
        "",
        "which is said once"
    );
    assert_eq!(phone.open("/ui/sessions").await.status, 303);
    let of_bob = action(&page_of(&operator).await, "bobs");
    operator.done(&of_bob, &[]).await;
    assert_eq!(bob.open("/ui/sessions").await.status, 303);
    let again = operator.send(&of_bob, &[]).await;
    assert_eq!(again.status, 404, "it has ended already");
}

async fn page_of(person: &Person<'_>) -> scraper::Html {
    person.page("/ui/sessions").await
}

#[tokio::test]
async fn members_do_not_manage() {
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "bob", "member").await;
    put_user(&store, "ada", "admin").await;
    let narrow = r#"{"object_permission":{"mcp_servers":["one"]}}"#;
    let [bob, narrowed, ada] = [
        put_key(&store, "bobs", Some("bob"), "{}").await,
        put_key(&store, "narrowed", Some("ada"), narrow).await,
        put_key(&store, "adas", Some("ada"), "{}").await,
    ];
    let gateway = with_place(&place).await;
    for (key, status) in [(&bob, 403), (&narrowed, 403), (&ada, 200)] {
        let person = Person::signed_in(&gateway, key, "").await;
        for path in ["/ui/health"] {
            let got = person.open(path).await;
            assert_eq!(got.status, status, "{path}");
            assert_eq!(
                text(&html(&got), "main").contains("admin_required"),
                status == 403
            );
            let links = count(&html(&got), &format!("nav a[href='{path}']"));
            assert_eq!(links == 1, status == 200, "{path}");
        }
    }
    // A key's owner is its own; nobody becomes somebody else with it.
    let got = Person::at(&gateway).sign_in(&bob, "ada").await;
    assert_eq!(got.status, 400);
}

#[tokio::test]
async fn tries_to_sign_in_are_limited() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let mut refused = 0;
    for _ in 0..40 {
        let got = Person::at(&gateway).sign_in("sk-guess", "").await;
        assert!(matches!(got.status, 401 | 429), "{}", got.status);
        refused += usize::from(got.status == 429);
    }
    assert!((10..=21).contains(&refused), "{refused}");
    // A right key is never refused, and costs nothing.
    for _ in 0..30 {
        assert_eq!(Person::at(&gateway).sign_in(KEY, "").await.status, 303);
    }
}

#[tokio::test]
async fn the_way_on_names_no_server_that_one_may_not_use() {
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "ada", "member").await;
    let only = r#"{"object_permission": {"mcp_servers": ["hub_server"]}}"#;
    let key = put_key(&store, "adas", Some("ada"), only).await;
    let server = |name: &str| {
        let fields = format!("url: http://127.0.0.1:9/mcp\nauth_type: oauth2\nserver_id: id-{name}");
        entry(&format!("{name}_server"), &fields)
    };
    let gateway = place
        .start(keyed(&format!("{}{}", server("hub"), server("vault"))))
        .start()
        .await;
    for (id, told) in [("id-hub", "connect hub_server"), ("id-vault", "connect id-vault")] {
        let person = Person::at(&gateway);
        let next = format!("/ui/connect/{id}");
        let got = person.send("/ui/login", &[("key", &key), ("next", &next)]).await;
        let again = person.open(&format!("/ui/login?next={next}")).await;
        for got in [got, again] {
            let said = text(&html(&got), "main");
            assert!(got.status == 200 && said.contains(told), "{said}");
            assert!(!said.contains("vault_server"), "{said}");
        }
    }
}

#[tokio::test]
async fn no_sign_in_redirects_into_another() {
    let gateway =
        TestGateway::with_servers(&entry("hub", "url: http://127.0.0.1:9/mcp\nauth_type: oauth2")).await;
    for (next, what) in [
        ("/ui/connect", "Go on: connect all servers"),
        ("/ui/connect/hub?a=b", "Go on: connect hub"),
        ("/ui/x/../connect/hub", "Go on: connect hub"),
        ("/ui/x/%2e%2e/connect/<b>", "Go on: connect"),
        (
            "/ui/mcp/oauth/callback?state=a",
            "Go on: the sign-in that was under way",
        ),
    ] {
        let person = Person::at(&gateway);
        let form = [("key", KEY), ("user_id", "ada"), ("next", next)];
        let got = person.send("/ui/login", &form).await;
        assert_eq!((got.status, got.header("location")), (200, ""), "{next}");
        let page = html(&got);
        assert!(
            text(&page, "main").contains(what),
            "{next}: {}",
            text(&page, "main")
        );
        assert_eq!(count(&page, "main b"), 0);
        assert_eq!(person.open("/ui/sessions").await.status, 200, "signed in");
        // From elsewhere the link asks first, from this page it starts.
        let asked = person.open_from("/ui/connect", "cross-site").await;
        assert!(text(&html(&asked), "main").contains("You came here from another site"));
    }
    let person = Person::at(&gateway);
    let form = [("key", KEY), ("next", "/ui/connections")];
    assert_eq!(person.send("/ui/login", &form).await.status, 303);
}

#[tokio::test]
async fn without_a_master_key_the_console_is_closed() {
    let gateway = Start::new(format!("mcp_servers:\n{SERVER}")).start().await;
    let person = Person::at(&gateway);
    for got in [person.open("/ui/login").await, person.sign_in("sk-any", "").await] {
        assert_eq!(got.status, 403);
        assert!(text(&html(&got), "main").contains("general_settings.master_key"));
    }
    assert_eq!(person.open("/ui/health").await.status, 303);
}

#[tokio::test]
async fn every_answer_has_the_policy() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let nobody = Person::at(&gateway);
    let person = Person::operator(&gateway).await;
    let mut answers = vec![
        nobody.open("/ui").await,
        nobody.open("/ui/login").await,
        nobody.open("/ui/nothing").await,
        nobody.sign_in("wrong", "").await,
        nobody.browser.submit(&gateway.url("/ui/login"), &[], &[]).await,
    ];
    for path in [
        "/ui",
        "/ui/",
        "/ui/health",
        "/ui/sessions",
        "/ui/nothing",
        "/ui/mcp",
        "/ui/logout",
    ] {
        answers.push(person.open(path).await);
    }
    for got in &answers {
        let policy = got.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{got:?}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(got.header("x-frame-options"), "DENY");
        assert_eq!(got.header("cache-control"), "no-store");
        assert_eq!(got.header("referrer-policy"), "same-origin");
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        assert!(!got.header("x-request-id").is_empty());
    }
    assert_eq!(person.open("/ui/nothing").await.status, 404);
    assert_eq!(person.open("/ui/logout").await.status, 405);
}

#[tokio::test]
async fn pages_keep_to_the_policy_and_have_their_landmarks() {
    let gateway = TestGateway::with_servers(SERVER).await;
    let person = Person::operator(&gateway).await;
    for path in ["/ui/health", "/ui/sessions", "/ui/nothing"] {
        let page = html(&person.open(path).await);
        for none in [
            "script:not([src])",
            "style",
            "[style]",
            "[onclick]",
            "[onload]",
            "iframe",
            "object",
        ] {
            assert_eq!(count(&page, none), 0, "{path} {none}");
        }
        assert_eq!(count(&page, "html[lang=en]"), 1);
        for one in [
            "main#main",
            "h1",
            "header nav[aria-label]",
            "a.skip[href='#main']",
            "title",
        ] {
            assert_eq!(count(&page, one), 1, "{path} {one}");
        }
        assert_eq!(
            count(&page, "table"),
            count(&page, "[role=region][aria-label][tabindex='0'] > table")
        );
        for (selector, attribute) in [("link[href]", "href"), ("script[src]", "src")] {
            let all = scraper::Selector::parse(selector).expect("selector");
            for element in page.select(&all) {
                let name = element.value().attr(attribute).expect("a path");
                let got = person.open(name).await;
                assert_eq!(got.status, 200, "{name}");
                let kept = got.header("cache-control");
                assert!(kept.contains("immutable"), "{name}");
            }
        }
    }
    assert_eq!(
        person
            .open("/ui/assets/console-0000000000000000.css")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn health_says_how_the_gateway_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.yaml");
    let text_of = keyed(SERVER);
    std::fs::write(&path, &text_of).expect("written");
    let gateway = Start::new(&text_of).file(&path).start().await;
    let person = Person::operator(&gateway).await;
    let there = async {
        while !text(&person.page("/ui/health").await, "table").contains(&gateway.address.to_string()) {}
    };
    tokio::time::timeout(vestibule_testkit::DEADLINE, there)
        .await
        .expect("it says that it is there");
    let page = person.page("/ui/health").await;
    assert!(text(&page, ".head").contains("in order"));
    let main = text(&page, "main");
    for part in [
        "SQLite",
        env!("CARGO_PKG_VERSION"),
        "vestibule doctor SERVER",
        "seals",
    ] {
        assert!(main.contains(part), "{part}: {main}");
    }
    std::fs::write(&path, format!("{text_of}    nonsense<script>: 1\n")).expect("written");
    let told =
        async { while !text(&person.page("/ui/health").await, ".note.bad").contains("stays in use") {} };
    tokio::time::timeout(vestibule_testkit::DEADLINE, told)
        .await
        .expect("a bad file is told");
    let page = person.page("/ui/health").await;
    assert!(text(&page, ".note.warn").contains("nonsense<script>"), "as text");
    assert!(text(&page, ".head").contains("problems"));
}

#[tokio::test]
async fn health_says_how_token_endpoints_answer() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let servers = machine("good", &upstream.url(), &format!("{}/token", idp.url()), "")
        + &machine("bad", &upstream.url(), "http://127.0.0.1:9/token", "")
        + &machine("new", &upstream.url(), &format!("{}/token", idp.url()), "");
    let gateway = TestGateway::with_servers(&servers).await;
    gateway.echo("/good/mcp", "x").await;
    gateway.echo("/bad/mcp", "x").await;
    let page = Person::operator(&gateway).await.page("/ui/health").await;
    let rows = text(&page, "[aria-label='Token endpoints'] tbody");
    assert!(rows.starts_with("good gave a token bad failed"), "{rows}");
    assert!(rows.ends_with("new none yet"), "{rows}");
}

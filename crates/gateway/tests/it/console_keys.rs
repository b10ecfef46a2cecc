//! Keys and people in the console: made, changed, rotated, blocked and deleted by forms, and what members cannot do.

use crate::browser::registering;
use crate::console_forms::Form;
use crate::console_harness::{Person, Place, attribute, count, html, text};
use crate::harness::{Got, KEY, TestGateway, answer, assert_nothing_secret_logged, echo, entry, keyed};
use scraper::Selector;
use vestibule_testkit::{Provider, Upstream};

async fn call(gateway: &TestGateway, server: &str, key: &str) -> u16 {
    let request = gateway
        .http
        .post(gateway.url(&format!("/{server}/mcp")))
        .header("x-litellm-api-key", key)
        .header("accept", "application/json, text/event-stream")
        .json(&echo("hello"));
    answer(request).await.0
}

/// The text of the key on the page that was answered, and where the key's page is.
fn made(got: &Got) -> (String, String) {
    assert_eq!(got.status, 200, "{got:?}");
    let page = html(got);
    let key = text(&page, "#key-text");
    assert!(key.starts_with("sk-") && key.len() > 40, "{key}");
    let snippet = text(&page, "#key-snippet");
    assert!(
        snippet.contains(&key) && snippet.starts_with("claude mcp add"),
        "{snippet}"
    );
    (key, attribute(&page, "main a[href^='/ui/keys/']", "href"))
}

#[tokio::test]
async fn a_key_is_made_used_changed_rotated_blocked_and_deleted() {
    let upstream = Upstream::start().await;
    let servers = ["one", "two"]
        .map(|name| entry(name, &format!("url: {}", upstream.url())))
        .concat();
    let gateway = TestGateway::with_servers(&servers).await;
    let operator = Person::operator(&gateway).await;
    let page = operator.page("/ui/keys").await;
    assert_eq!(count(&page, ".empty a[href='/ui/keys/new']"), 1);
    let form = operator.page("/ui/keys/new").await;
    assert_eq!(count(&form, "input[name=server]"), 2);
    let filled = [
        ("alias", "ci"),
        ("user", "ada"),
        ("duration", "7d"),
        ("rpm", "600"),
        ("server", "one"),
        ("tools", ""),
    ];
    let (key, path) = made(&operator.send("/ui/keys", &filled).await);
    assert_eq!(
        (
            call(&gateway, "one", &key).await,
            call(&gateway, "two", &key).await
        ),
        (200, 403)
    );
    let page = operator.page(&path).await;
    let facts = text(&page, "dl");
    for part in ["ada", "one", "600", "in 7 days"] {
        assert!(facts.contains(part), "{part}: {facts}");
    }
    let whole = page.html() + &operator.page("/ui/keys").await.html();
    assert!(!whole.contains(&key), "shown once");

    // The form is filled in with what is there, and saves the same.
    let edit = format!("{path}/edit");
    let form = operator.page(&edit).await;
    assert_eq!(attribute(&form, "input[name=alias]", "value"), "ci");
    assert_eq!(attribute(&form, "option[selected]", "value"), "keep");
    let version = attribute(&form, "input[name=version]", "value");
    Form::with(form, "Save").untick("one");
    let filled = [
        ("version", version.as_str()),
        ("alias", "build"),
        ("user", "ada"),
        ("duration", "keep"),
        ("server", "two"),
        ("tools", "one: echo"),
    ];
    let page = operator.done(&edit, &filled).await;
    let facts = text(&page, "dl");
    assert!(
        facts.contains("in 7 days") && facts.contains("no limit") && facts.contains("one: echo"),
        "{facts}"
    );
    assert_eq!(
        (
            call(&gateway, "one", &key).await,
            call(&gateway, "two", &key).await
        ),
        (200, 200)
    );

    let question = operator.page(&format!("{path}/rotate")).await;
    assert!(text(&question, "h1").contains("build"));
    let (rotated, _) = made(&operator.send(&format!("{path}/rotate"), &[]).await);
    assert_eq!(
        (
            call(&gateway, "two", &key).await,
            call(&gateway, "two", &rotated).await
        ),
        (401, 200)
    );
    let page = operator.done(&format!("{path}/block"), &[]).await;
    assert_eq!(text(&page, "main .head .chip"), "blocked");
    assert_eq!(call(&gateway, "two", &rotated).await, 403);
    let page = operator.done(&format!("{path}/unblock"), &[]).await;
    assert_eq!(text(&page, "main .head .chip"), "counts");
    assert_eq!(call(&gateway, "two", &rotated).await, 200);
    operator.page(&format!("{path}/delete")).await;
    assert_eq!(
        call(&gateway, "two", &rotated).await,
        200,
        "a question deletes nothing"
    );
    let page = operator.done(&format!("{path}/delete"), &[]).await;
    assert_eq!(text(&page, "[role=status]"), "The key is deleted.");
    assert_eq!(call(&gateway, "two", &rotated).await, 401);
    assert_eq!(operator.open(&path).await.status, 404);
    assert_nothing_secret_logged(&[&key, &rotated]);
}

#[tokio::test]
async fn a_form_comes_back_with_what_was_wrong_and_what_was_filled_in() {
    let gateway = TestGateway::with_servers("  one:\n    url: http://127.0.0.1:9/mcp\n").await;
    let operator = Person::operator(&gateway).await;
    made(&operator.send("/ui/keys", &[("alias", "taken")]).await);
    for (field, value, status) in [
        ("alias", "taken", 409),
        ("rpm", "many", 400),
        ("rpm", "0", 400),
        ("duration", "soon", 400),
        ("server", "nothing", 400),
        ("tools", "no colon", 400),
        ("tools", "nothing: a", 400),
    ] {
        let got = operator
            .send("/ui/keys", &[("user", "<b>ada</b>"), (field, value)])
            .await;
        assert_eq!(got.status, status, "{field}={value}");
        let page = html(&got);
        assert!(!text(&page, "[role=alert]").is_empty(), "{field}={value}");
        assert_eq!(attribute(&page, "input[name=user]", "value"), "<b>ada</b>");
    }
    assert_eq!(count(&operator.page("/ui/keys").await, "tbody tr"), 1);
    let got = operator
        .send("/ui/users", &[("user_id", "ada"), ("role", "king")])
        .await;
    assert_eq!(got.status, 400);
    assert_eq!(attribute(&html(&got), "input[name=user_id]", "value"), "ada");
}

#[tokio::test]
async fn a_form_that_is_older_than_the_key_saves_nothing() {
    let upstream = Upstream::start().await;
    let servers = ["one", "two"]
        .map(|name| entry(name, &format!("url: {}", upstream.url())))
        .concat();
    let gateway = TestGateway::with_servers(&servers).await;
    let (ada, bob) = (
        Person::operator(&gateway).await,
        Person::signed_in(&gateway, KEY, "bob").await,
    );
    let filled = [("alias", "ci"), ("server", "one"), ("server", "two")];
    let (key, path) = made(&ada.send("/ui/keys", &filled).await);
    let edit = format!("{path}/edit");
    let bobs = Form::with(bob.page(&edit).await, "Save").fill("Alias", "<b>build</b>");
    let narrowing = Form::with(ada.page(&edit).await, "Save").untick("two");
    narrowing.done(&ada).await;
    assert_eq!(call(&gateway, "two", &key).await, 403);

    let got = bobs.send(&bob).await;
    assert_eq!((got.status, call(&gateway, "two", &key).await), (409, 403));
    let page = html(&got);
    assert!(text(&page, ".note.warn").contains("Somebody else changed this key meanwhile"));
    let rows = text(&page, "tbody");
    assert_eq!(rows, "Alias ci <b>build</b> Servers one one, two");
    // Nothing that was written is lost, and to save it now is a decision.
    let again = Form::with(page, "Save");
    assert_eq!(again.value("Alias"), "<b>build</b>");
    // Of two at the same moment one is first.
    let ours = Form::with(ada.page(&edit).await, "Save").fill("Alias", "ours");
    let (one, other) = tokio::join!(again.send(&bob), ours.send(&ada));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 409]);
    let nameless = ada.send(&edit, &[("alias", "taken over")]).await;
    assert_eq!(nameless.status, 409);
    assert!(!text(&ada.page(&path).await, "h1").contains("taken over"));
}

#[tokio::test]
async fn a_key_that_cannot_be_read_manages_nothing_when_its_form_is_saved_as_it_came() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let store = place.store().await;
    crate::console_harness::put_user(&store, "root", "admin").await;
    let unreadable = r#"{"object_permission":7}"#;
    let key = crate::console_harness::put_key(&store, "roots", Some("root"), unreadable).await;
    let servers = entry("one", &format!("url: {}", upstream.url()));
    let gateway = place.start(keyed(&servers)).start().await;
    let operator = Person::operator(&gateway).await;
    let page = operator.page("/ui/keys/roots/edit").await;
    assert_eq!(count(&page, "input[name=narrowed][checked]"), 1);
    let (_, page) = Form::with(page, "Save").done(&operator).await;
    assert_eq!(text(&page, "main .head .chip"), "counts", "it can be read again");
    assert!(text(&page, "dl").contains("For servers for all keys"));
    assert_eq!(call(&gateway, "one", &key).await, 403);
    let list = gateway
        .http
        .get(gateway.url("/key/list"))
        .header("x-litellm-api-key", &key);
    assert_eq!(answer(list).await.0, 403);
}

#[tokio::test]
async fn a_form_that_is_older_than_the_user_saves_nothing() {
    let gateway = TestGateway::with_servers("  one:\n    url: http://127.0.0.1:9/mcp\n").await;
    let (ada, bob) = (
        Person::operator(&gateway).await,
        Person::signed_in(&gateway, KEY, "bob").await,
    );
    ada.done("/ui/users", &[("user_id", "eve"), ("role", "admin")])
        .await;
    let edit = "/ui/users/edit?user=eve";
    let bobs = Form::with(bob.page(edit).await, "Save").fill("Name", "Eve");
    let narrowing = Form::with(ada.page(edit).await, "Save").choose("Role", "Member");
    narrowing.done(&ada).await;
    let got = bobs.send(&bob).await;
    assert_eq!(got.status, 409);
    let page = html(&got);
    assert_eq!(text(&page, "tbody"), "Name not set Eve Role member admin");
    assert!(text(&bob.page("/ui/users/one?user=eve").await, "dl").contains("Role member"));
    let again = Form::with(page, "Save");
    assert_eq!(again.value("Name"), "Eve");
    let (_, page) = again.choose("Role", "Member").done(&bob).await;
    assert!(text(&page, "dl").contains("Role member") && text(&page, ".head").contains("Eve"));
    assert_eq!(ada.send(edit, &[("role", "admin")]).await.status, 409);
}

#[tokio::test]
async fn keys_are_found() {
    let gateway = TestGateway::with_servers("  one:\n    url: http://127.0.0.1:9/mcp\n").await;
    let operator = Person::operator(&gateway).await;
    for (alias, user) in [("alpha", "ada"), ("beta", "bob")] {
        made(
            &operator
                .send("/ui/keys", &[("alias", alias), ("user", user)])
                .await,
        );
    }
    for (search, rows) in [("", 2), ("ALP", 1), ("bob", 1), ("a", 2), ("<script>", 0)] {
        let query = crate::browser::encoded(&[("search", search)]);
        let page = operator.page(&format!("/ui/keys?{query}")).await;
        assert_eq!(count(&page, "tbody tr"), rows, "{search}");
        assert_eq!(attribute(&page, "input[name=search]", "value"), search);
    }
}

#[tokio::test]
async fn people_are_written_down_changed_blocked_and_deleted() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "allow_all_keys: true")).await;
    let operator = Person::operator(&gateway).await;
    let id = "a/d a+<b>&?#";
    let filled = [
        ("user_id", id),
        ("alias", "Ada"),
        ("email", "ada@example.com"),
        ("role", "member"),
        ("key", "yes"),
    ];
    let (key, _) = made(&operator.send("/ui/users", &filled).await);
    let page = operator.page("/ui/users").await;
    assert_eq!(count(&page, "tbody tr"), 2, "with the operator");
    let links = Selector::parse("tbody a").expect("selector");
    let links: Vec<&str> = page
        .select(&links)
        .filter_map(|link| link.value().attr("href"))
        .collect();
    let mut links = links.into_iter();
    let path = links.find(|link| link.contains("%3Cb%3E")).expect("a link");
    let ada = Person::signed_in(&gateway, &key, "").await;
    ada.follow("/ui/connect").await;
    let page = operator.page(path).await;
    assert_eq!(text(&page, "main h1"), id);
    assert!(
        text(&page, "#connections ~ div").contains("one"),
        "{}",
        text(&page, "main")
    );
    assert_eq!(count(&page, "table"), 2);

    let edit = path.replace("/one?", "/edit?");
    let form = operator.page(&edit).await;
    assert_eq!(attribute(&form, "option[selected]", "value"), "member");
    let version = attribute(&form, "input[name=version]", "value");
    let filled = [
        ("version", version.as_str()),
        ("alias", ""),
        ("email", ""),
        ("role", "admin"),
    ];
    let page = operator.done(&edit, &filled).await;
    assert!(
        text(&page, "dl").contains("Role admin Address none"),
        "{}",
        text(&page, "dl")
    );
    assert_eq!(ada.open("/ui/health").await.status, 200, "an admin from now on");

    let block = path.replace("/one?", "/block?");
    operator.page(&block).await;
    let page = operator.done(&block, &[]).await;
    assert_eq!(text(&page, "main > .head .chip"), "blocked");
    assert_eq!(ada.open("/ui/connections").await.status, 303);
    assert_eq!(call(&gateway, "one", &key).await, 403);
    let page = operator.done(&block.replace("/block?", "/unblock?"), &[]).await;
    assert_eq!(text(&page, "main > .head .chip"), "active");
    assert_eq!(call(&gateway, "one", &key).await, 200);

    let delete = path.replace("/one?", "/delete?");
    operator.page(&delete).await;
    let page = operator.done(&delete, &[]).await;
    assert!(text(&page, "[role=status]").contains("is deleted"));
    assert_eq!(call(&gateway, "one", &key).await, 401);
    assert_eq!(provider.requests_to("/revoke").len(), 1);
    assert_eq!(operator.open(path).await.status, 404);
}

#[tokio::test]
async fn an_admin_revokes_a_connection_of_a_user() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let place = Place::new();
    let store = place.store().await;
    crate::console_harness::put_user(&store, "ada", "member").await;
    let only = r#"{"object_permission":{"mcp_servers":["one"]}}"#;
    let adas = crate::console_harness::put_key(&store, "adas", Some("ada"), only).await;
    let gateway = place
        .start(keyed(&registering("one", &upstream, "")))
        .start()
        .await;
    let ada = Person::signed_in(&gateway, &adas, "").await;
    let connect = attribute(
        &ada.page("/ui/connections").await,
        "main section a.primary",
        "href",
    );
    ada.follow(connect.as_str()).await;
    let operator = Person::operator(&gateway).await;
    operator.follow(connect.as_str()).await;
    assert_eq!(call(&gateway, "one", &adas).await, 200);

    let one = "/ui/users/one?user=ada";
    let link = attribute(&operator.page(one).await, "main td a.danger", "href");
    let question = operator.page(&link).await;
    assert_eq!(attribute(&question, "main form", "action"), link);
    assert!(text(&question, "h1").contains("ada at one"));
    let member = ada.send(&link, &[]).await;
    assert_eq!(member.status, 403, "not even one's own");
    let url = gateway.url(&link);
    for headers in [
        vec![],
        vec![("origin", "https://evil.example")],
        vec![("sec-fetch-site", "same-site")],
    ] {
        let refused = operator.browser.submit(&url, &[], &headers).await;
        assert_eq!(refused.status, 403, "{headers:?}");
    }
    assert_eq!(call(&gateway, "one", &adas).await, 200, "a question ends nothing");

    let page = operator.done(&link, &[]).await;
    assert_eq!(
        text(&page, "[role=status]"),
        "The sign-in of ada at one is revoked."
    );
    assert!(text(&page, "main").contains("connected to nothing"));
    assert_eq!(call(&gateway, "one", &adas).await, 401);
    assert_eq!(provider.requests_to("/revoke").len(), 1);
    let page = operator.page("/ui/connections").await;
    assert_eq!(text(&page, "main .chip"), "connected", "ada's alone");
    let row = gateway.row("kind=change&outcome=grant.revoke").await;
    assert_eq!(
        (row["user_id"].as_str(), row["key_alias"].as_str()),
        (Some("operator"), Some("master key"))
    );
    let subject = row["trace"]["subject"].as_str().expect("a subject");
    assert!(subject.starts_with("ada at "), "{subject}");
    assert_eq!(
        operator.send(&link, &[]).await.status,
        404,
        "there is nothing left"
    );
    for wrong in ["/ui/users/revoke?user=ada&server=nothing", "/ui/users/revoke"] {
        assert_eq!(operator.open(wrong).await.status, 404, "{wrong}");
        assert_eq!(operator.send(wrong, &[]).await.status, 404, "{wrong}");
    }
}

#[tokio::test]
async fn members_reach_neither_pages_nor_forms() {
    let place = Place::new();
    let store = place.store().await;
    crate::console_harness::put_user(&store, "bob", "member").await;
    let bob = crate::console_harness::put_key(&store, "bobs", Some("bob"), "{}").await;
    let gateway = place
        .start(keyed("  one:\n    url: http://127.0.0.1:9/mcp\n"))
        .start()
        .await;
    let bob = Person::signed_in(&gateway, &bob, "").await;
    for path in [
        "/ui/keys",
        "/ui/keys/new",
        "/ui/keys/bobs",
        "/ui/keys/bobs/edit",
        "/ui/keys/bobs/rotate",
        "/ui/keys/bobs/delete",
        "/ui/users",
        "/ui/users/new",
        "/ui/users/one?user=bob",
        "/ui/users/edit?user=bob",
        "/ui/users/block?user=bob",
        "/ui/users/delete?user=bob",
        "/ui/users/revoke?user=bob&server=one",
        "/ui/activity/export",
    ] {
        let got = bob.open(path).await;
        assert_eq!(got.status, 403, "{path}");
        assert!(text(&html(&got), "main").contains("admin_required"), "{path}");
    }
    for path in [
        "/ui/keys",
        "/ui/keys/bobs/edit",
        "/ui/keys/bobs/rotate",
        "/ui/keys/bobs/block",
        "/ui/keys/bobs/unblock",
        "/ui/keys/bobs/delete",
        "/ui/users",
        "/ui/users/edit?user=bob",
        "/ui/users/block?user=bob",
        "/ui/users/unblock?user=bob",
        "/ui/users/delete?user=bob",
        "/ui/users/revoke?user=bob&server=one",
    ] {
        let form = [("role", "admin"), ("user_id", "eve"), ("alias", "x")];
        assert_eq!(bob.send(path, &form).await.status, 403, "{path}");
    }
    let key = store.api_key("bobs").await.expect("read").expect("there");
    assert!(!key.blocked);
    assert_eq!(key.alias.as_deref(), Some("bobs alias"));
    assert_eq!(store.users().await.expect("read").len(), 1);
    assert_eq!(Person::at(&gateway).sign_in(KEY, "").await.status, 303);
}

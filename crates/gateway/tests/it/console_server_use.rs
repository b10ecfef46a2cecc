//! Using servers from the console: as whom a page asks, with which headers, and what is recorded of it.

use crate::console_activity::until;
use crate::console_forms::{Form, link};
use crate::console_harness::{Person, Place, html, put_key, put_user, text};
use crate::console_servers::{body_of, with_place};
use crate::harness::{TestGateway, entry, keyed};
use vestibule_testkit::{Provider, Upstream};

#[tokio::test]
async fn an_admin_calls_as_a_key_and_is_told_what_it_may_not() {
    let upstream = Upstream::start().await;
    upstream.set_tools(&["read", "write"]);
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "mia", "member").await;
    let permission =
        r#"{"object_permission": {"mcp_servers": ["one"], "mcp_tool_permissions": {"one": ["read"]}}}"#;
    put_key(&store, "narrow", Some("mia"), permission).await;
    put_key(&store, "nothing", Some("mia"), "{}").await;
    let gateway = with_place(&place, &entry("one", &format!("url: {}", upstream.url()))).await;
    let person = Person::operator(&gateway).await;
    let path = format!("{}/tools", link(&person.page("/ui/servers").await, "one"));
    assert_eq!(text(&person.page(&path).await, "#tools"), "read write");
    let form = Form::with(person.page(&path).await, "List tools").choose("Run as", "narrow alias");
    assert_eq!(text(&form.answered(&person).await, "#tools"), "read");
    let form = Form::with(person.page(&path).await, "List tools").choose("Run as", "nothing alias");
    let page = form.answered(&person).await;
    assert!(
        text(&page, ".note.bad").contains("server_not_allowed"),
        "{}",
        text(&page, "main")
    );
    let unknown = html(&person.send(&path, &[("as", "no-such-key")]).await);
    assert!(text(&unknown, ".note.bad").contains("key_not_yours"));
}

#[tokio::test]
async fn headers_for_one_call_are_asked_for_and_kept_sealed() {
    let upstream = Upstream::start().await;
    let fields = format!(
        "url: {}\nauth_type: true_passthrough\nextra_headers: [X-Tenant]",
        upstream.url()
    );
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let person = Person::operator(&gateway).await;
    let path = format!("{}/tools", link(&person.page("/ui/servers").await, "one"));
    let form = Form::with(person.page(&path).await, "List tools")
        .fill("x-tenant", "canary-tenant")
        .fill("authorization", "canary-token");
    let page = form.answered(&person).await;
    assert!(!page.html().contains("canary"), "{}", page.html());
    let page = Form::with(page, "echo").answered(&person).await;
    let called = Form::with(page, "Call Tool").answered(&person).await;
    assert!(!called.html().contains("canary"), "{}", text(&called, "main"));
    let requests = upstream.requests();
    let last = requests
        .iter()
        .rev()
        .find(|request| body_of(request).contains("tools/call"))
        .expect("called");
    assert_eq!(last.header("authorization"), Some("Bearer canary-token"));
    assert_eq!(last.header("x-tenant"), Some("canary-tenant"));
    // Of another session's the seal opens nothing.
    let kept = page_value(&called, "kept_headers");
    let other = Person::operator(&gateway).await;
    let before = upstream.requests().len();
    other.send(&path, &[("kept_headers", &kept)]).await;
    for request in &upstream.requests()[before..] {
        assert_eq!(
            (request.header("authorization"), request.header("x-tenant")),
            (None, None)
        );
    }
}

fn page_value(page: &scraper::Html, name: &str) -> String {
    let selector = scraper::Selector::parse(&format!("[name={name}]")).expect("a selector");
    let found = page.select(&selector).next().expect("there");
    found.value().attr("value").expect("a value").to_owned()
}

#[tokio::test]
async fn where_a_sign_in_is_missing_the_page_says_so() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let fields = format!("url: {}\nauth_type: oauth2", upstream.url());
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let person = Person::operator(&gateway).await;
    let list = person.page("/ui/servers").await;
    assert!(text(&list, "#servers").contains("sign-in needed"));
    let path = link(&list, "one");
    for tab in ["tools", "prompts"] {
        let page = person.page(&format!("{path}/{tab}")).await;
        assert!(
            text(&page, ".note.warn").contains("Sign in to this server first"),
            "{}",
            text(&page, "main")
        );
        assert!(link(&page, "Connect").starts_with("/ui/connect/"));
    }
    let people = person.page(&format!("{path}/people")).await;
    assert!(text(&people, "main").contains("Nobody is connected"));
}

#[tokio::test]
async fn prompts_and_resources_are_listed_got_and_read() {
    let upstream = Upstream::start().await;
    upstream.answer_with(
        "initialize",
        r#"{"protocolVersion": "2025-11-25", "capabilities": {"prompts": {}, "resources": {}}, "serverInfo": {"name": "s", "version": "1"}}"#,
    );
    upstream.answer_with(
        "prompts/list",
        r#"{"prompts": [{"name": "greet", "arguments": [{"name": "who", "required": true}]}]}"#,
    );
    upstream.answer_with(
        "prompts/get",
        r#"{"messages": [{"role": "user", "content": {"type": "text", "text": "Greet them."}}]}"#,
    );
    upstream.answer_with(
        "resources/list",
        r#"{"resources": [{"uri": "memo://1", "name": "memo"}]}"#,
    );
    upstream.answer_with("resources/templates/list", r#"{"resourceTemplates": []}"#);
    upstream.answer_with(
        "resources/read",
        r#"{"contents": [{"uri": "memo://1", "text": "Milk."}]}"#,
    );
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let person = Person::operator(&gateway).await;
    let path = format!("{}/prompts", link(&person.page("/ui/servers").await, "one"));
    let page = person.page(&path).await;
    let got = Form::with(page, "Get greet")
        .fill("who required", "Mia")
        .answered(&person)
        .await;
    assert!(
        text(&got, "#result").contains("Greet them."),
        "{}",
        text(&got, "main")
    );
    let asked = upstream
        .requests()
        .into_iter()
        .rev()
        .find(|request| body_of(request).contains("prompts/get"));
    assert!(body_of(&asked.expect("asked")).contains(r#""arguments":{"who":"Mia"}"#));
    let read = Form::with(got, "Read memo://1").answered(&person).await;
    assert!(
        text(&read, "#result").contains("Milk."),
        "{}",
        text(&read, "main")
    );
    assert!(text(&read, "main").contains("no templates of resources"));
}

#[tokio::test]
async fn a_narrow_key_is_not_lifted_to_a_wide_one() {
    let upstream = Upstream::start().await;
    upstream.set_tools(&["read", "write"]);
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "mia", "member").await;
    let read = r#"{"object_permission": {"mcp_tool_permissions": {"one": ["read"]}}}"#;
    let wide = r#"{"object_permission": {"mcp_servers": ["one"]}}"#;
    let narrow = put_key(&store, "narrow", Some("mia"), read).await;
    put_key(&store, "wide", Some("mia"), wide).await;
    let open = put_key(&store, "open", Some("mia"), "{}").await;
    let servers = [
        entry("one", &format!("url: {}", upstream.url())),
        entry("two", &format!("url: {}\nallow_all_keys: true", upstream.url())),
    ];
    let gateway = with_place(&place, &servers.concat()).await;
    let person = Person::signed_in(&gateway, &narrow, "").await;
    let path = format!("{}/tools", link(&person.page("/ui/servers").await, "one"));
    let page = html(&person.send(&path, &[("as", "wide")]).await);
    assert!(
        text(&page, ".note.bad").contains("key_not_yours"),
        "{}",
        text(&page, "main")
    );
    assert!(!text(&person.page(&path).await, "#as").contains("wide"));
    let itself = html(&person.send(&path, &[("as", "narrow")]).await);
    assert_eq!(text(&itself, "#tools"), "read");
    let person = Person::signed_in(&gateway, &open, "").await;
    let path = format!("{}/tools", link(&person.page("/ui/servers").await, "two"));
    let page = html(&person.send(&path, &[("as", "wide")]).await);
    assert_eq!(text(&page, "#tools"), "read write");
}

#[tokio::test]
async fn a_call_as_somebodys_key_is_recorded_with_who_made_it() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "alice", "member").await;
    let wide = r#"{"object_permission": {"mcp_servers": ["one"]}}"#;
    put_key(&store, "alices", Some("alice"), wide).await;
    let servers = entry("one", &format!("url: {}", upstream.url()));
    let gateway = place.start(keyed(&servers)).start().await;
    let person = Person::operator(&gateway).await;
    let path = format!("{}/tools", link(&person.page("/ui/servers").await, "one"));
    person.send(&path, &[("as", "alices")]).await;
    let page = until(&person, "/ui/activity?kind=call&user_id=alice", 1).await;
    assert!(
        text(&page, "tbody").contains("as alice's key, by operator in the console"),
        "{}",
        text(&page, "tbody")
    );
    let one = person.page(&link(&page, &format!("POST {path}"))).await;
    assert!(
        text(&one, "main").contains("operator, with master key"),
        "{}",
        text(&one, "main")
    );
}

#[tokio::test]
async fn what_a_person_keeps_for_a_server_is_theirs_alone() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "alice", "member").await;
    let wide = r#"{"object_permission": {"mcp_servers": ["people", "own_keys"]}}"#;
    put_key(&store, "alices", Some("alice"), wide).await;
    put_key(&store, "nobodys", None, wide).await;
    let servers = [
        entry("people", &format!("url: {}\nauth_type: oauth2", upstream.url())),
        entry(
            "own_keys",
            &format!("url: {}\nis_byok: true\nauth_type: api_key", upstream.url()),
        ),
    ];
    let gateway = with_place(&place, &servers.concat()).await;
    let person = Person::operator(&gateway).await;
    for name in ["people", "own_keys"] {
        let path = format!("{}/tools", link(&person.page("/ui/servers").await, name));
        assert!(
            !text(&person.page(&path).await, "#as").contains("alices"),
            "{name}"
        );
        for tab in ["tools", "prompts"] {
            let path = path.replace("tools", tab);
            let page = html(&person.send(&path, &[("as", "alices")]).await);
            let said = text(&page, ".note.bad");
            assert!(
                said.contains("Nobody else acts with that"),
                "{name}: {}",
                text(&page, "main")
            );
        }
        let page = html(&person.send(&path, &[("as", "nobodys")]).await);
        assert!(
            !text(&page, "main").contains("Nobody else acts with that"),
            "{name}"
        );
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.header("x-api-key").is_none())
    );
}

#[tokio::test]
async fn what_is_read_beside_tools_is_recorded_by_its_name() {
    let upstream = Upstream::start().await;
    upstream.answer_with(
        "resources/read",
        r#"{"contents": [{"uri": "memo://1", "text": "Milk."}]}"#,
    );
    upstream.answer_with("prompts/get", r#"{"messages": []}"#);
    let place = Place::new();
    let servers = entry("one", &format!("url: {}", upstream.url()));
    let gateway = place.start(keyed(&servers)).start().await;
    let person = Person::operator(&gateway).await;
    let path = format!("{}/prompts", link(&person.page("/ui/servers").await, "one"));
    person
        .send(&path, &[("action", "read"), ("uri", "memo://1")])
        .await;
    let page = until(&person, "/ui/activity?kind=call", 1).await;
    let one = person.page(&link(&page, "resources/read")).await;
    assert!(text(&one, "main").contains("memo://1"), "{}", text(&one, "main"));
}

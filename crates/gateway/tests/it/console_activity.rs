//! Activity in the console: calls and sign-ins as they happen, a call with its way, a sign-in with its steps, and
//! nobody else's.

use crate::browser::registering;
use crate::console_harness::{Person, Place, count, html, put_key, put_user, text};
use crate::harness::{KEY, TestGateway, answer, echo, entry, got, keyed};
use scraper::{Html, Selector};
use std::time::Duration;
use vestibule_testkit::{DEADLINE, Provider, Upstream};

async fn call(gateway: &TestGateway, server: &str, key: &str) -> u16 {
    let request = gateway
        .http
        .post(gateway.url(&format!("/{server}/mcp")))
        .header("x-litellm-api-key", key)
        .header("accept", "application/json, text/event-stream")
        .header("user-agent", "client <img src=x>")
        .json(&echo("hello"));
    answer(request).await.0
}

/// The page once it has so many rows: what is recorded waits in memory for a moment.
pub(crate) async fn until(person: &Person<'_>, path: &str, rows: usize) -> Html {
    let looked = async {
        loop {
            let page = person.page(path).await;
            if count(&page, "tbody tr") >= rows {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE.max(Duration::from_secs(1)), looked)
        .await
        .expect("recorded")
}

fn links(page: &Html) -> Vec<String> {
    let links = Selector::parse("tbody a[href^='/ui/activity/']").expect("selector");
    let links = page.select(&links);
    links
        .filter_map(|link| link.value().attr("href"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_call_opens_to_its_way() {
    let upstream = Upstream::start().await;
    let servers = ["one", "two"]
        .map(|name| entry(name, &format!("url: {}", upstream.url())))
        .concat();
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "ada", "member").await;
    let only = r#"{"object_permission":{"mcp_servers":["one"]}}"#;
    let key = put_key(&store, "adas", Some("ada"), only).await;
    let gateway = place.start(keyed(&servers)).start().await;
    let operator = Person::operator(&gateway).await;
    assert_eq!(call(&gateway, "one", &key).await, 200);
    assert_eq!(call(&gateway, "two", &key).await, 403);
    let page = until(&operator, "/ui/activity?user_id=ada", 2).await;
    assert_eq!(count(&page, "tbody tr"), 2);
    assert!(text(&page, "tbody").contains("server_not_allowed"));
    let all = links(&page);
    // The newest first.
    let refused = operator.page(&all[0]).await;
    assert!(
        text(&refused, ".note.bad").contains("not for the MCP server two"),
        "{}",
        text(&refused, "main")
    );
    let good = operator.page(&all[1]).await;
    let facts = text(&good, "dl");
    for part in [
        "ada",
        "adas alias",
        "echo",
        "POST /one/mcp",
        "tools/call",
        "mcp_servers",
        "200",
        "client <img src=x>",
    ] {
        assert!(facts.contains(part), "{part}: {facts}");
    }
    // Each filter finds what it names, and nothing where there is nothing.
    for (query, rows) in [
        ("server=one&user_id=ada", 1),
        ("outcome=server_not_allowed", 1),
        ("kind=call&user_id=ada", 2),
        ("tool=echo&user_id=ada&outcome=ok", 1),
        ("kind=sign_in", 0),
        ("user_id=bob", 0),
        ("server=%3Cscript%3E", 0),
    ] {
        let page = operator.page(&format!("/ui/activity?{query}")).await;
        assert_eq!(count(&page, "tbody tr"), rows, "{query}");
        let fragment = operator.page(&format!("/ui/activity/rows?{query}")).await;
        assert_eq!(count(&fragment, "tbody tr"), rows, "{query}");
        assert_eq!(count(&fragment, "header, nav, main"), 0, "a fragment");
        assert_eq!(count(&page, "[data-live]"), 1);
    }
    assert_eq!(operator.open("/ui/activity?kind=nonsense").await.status, 400);
    assert_eq!(operator.open("/ui/activity/0000000000000000").await.status, 404);
    let export = operator.open("/ui/activity/export?user_id=ada&kind=").await;
    assert_eq!(export.status, 200);
    assert_eq!(export.header("content-type"), "application/jsonl; charset=utf-8");
    assert_eq!(export.body.as_str().expect("lines").lines().count(), 2);
}

#[tokio::test]
async fn a_sign_in_opens_to_its_steps() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    let operator = Person::operator(&gateway).await;
    operator.follow("/ui/connect").await;
    let page = until(&operator, "/ui/activity?kind=sign_in", 3).await;
    let newest = &links(&page)[0];
    let page = operator.page(newest).await;
    assert_eq!(text(&page, "ol.steps .chip"), "ok ok ok");
    let steps = text(&page, "ol.steps");
    for step in ["authorize", "callback", "token"] {
        assert!(steps.contains(step), "{step}: {steps}");
    }
    assert!(text(&page, "dl").contains("operator"), "{}", text(&page, "dl"));
    // One that failed says where.
    provider
        .set(|modes| modes.refuses_people = Some(("access_denied".into(), Some("not <b>you</b>".into()))));
    let id = operator.page("/ui/connections").await;
    let link = Selector::parse("a[href^='/ui/connect/']").expect("selector");
    let link = id
        .select(&link)
        .next()
        .expect("a link")
        .value()
        .attr("href")
        .expect("a path")
        .to_owned();
    operator.follow(&link).await;
    let page = until(&operator, "/ui/activity?outcome=access_denied", 1).await;
    let page = operator.page(&links(&page)[0]).await;
    assert!(
        text(&page, "ol.steps").contains("not <b>you</b>"),
        "{}",
        text(&page, "main")
    );
    assert_eq!(text(&page, "ol.steps .chip.bad"), "access_denied");
}

#[tokio::test]
async fn members_see_their_own() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "ada", "member").await;
    put_user(&store, "bob", "member").await;
    let [ada, bob, nobody] = [("adas", Some("ada")), ("bobs", Some("bob")), ("nobodys", None)];
    let ada = put_key(&store, ada.0, ada.1, "{}").await;
    let bob = put_key(&store, bob.0, bob.1, "{}").await;
    let nobody = put_key(&store, nobody.0, nobody.1, "{}").await;
    let servers = entry("one", &format!("url: {}\nallow_all_keys: true", upstream.url()));
    let gateway = place.start(keyed(&servers)).start().await;
    let operator = Person::operator(&gateway).await;
    for key in [&ada, &bob, &nobody] {
        assert_eq!(call(&gateway, "one", key).await, 200);
    }
    let page = until(&operator, "/ui/activity?kind=call", 3).await;
    let all = links(&page);
    for (key, own) in [(&ada, "ada"), (&bob, "bob"), (&nobody, "nobodys alias")] {
        let person = Person::signed_in(&gateway, key, "").await;
        let page = person.page("/ui/activity?kind=call").await;
        assert_eq!(text(&page, "tbody [data-label=Who]"), own);
        assert_eq!(count(&page, "input[name=user_id]"), 0);
        let mut seen = 0;
        for link in &all {
            let got = person.open(link).await;
            assert!(matches!(got.status, 200 | 404), "{link}");
            seen += usize::from(got.status == 200);
        }
        assert_eq!(seen, 1);
    }
    let person = Person::signed_in(&gateway, &ada, "").await;
    for path in ["/ui/activity?user_id=bob", "/ui/activity/rows?user_id=bob"] {
        let got = person.open(path).await;
        assert_eq!(got.status, 403, "{path}");
        assert!(!got.body.as_str().expect("a page").contains("bobs"));
    }
    // A refusal's page leads to its own entry, for who may see it.
    let refused = operator.open("/ui/keys/nothing").await;
    let id = refused.header("x-request-id").to_owned();
    assert_eq!(count(&html(&refused), &format!("a[href='/ui/activity/{id}']")), 1);
    let gone = got(gateway.http.get(gateway.url("/ui/activity/rows"))).await;
    assert_eq!(gone.status, 303);
    assert!(!gone.header("location").contains(KEY));
}

//! Servers that are tried from their form before they are saved: what they answer, or why they do not, and that neither
//! a server nor a secret stays anywhere.

use crate::console_forms::{Form, link};
use crate::console_harness::{Person, Place, count, html, put_key, put_user, text};
use crate::console_servers::{body_of, with_place};
use crate::harness::{CLIENT_SECRET, TestGateway, assert_nothing_secret_logged, entry};
use scraper::Html;
use vestibule_testkit::{Idp, Provider, Reply, Upstream};

const NEW: &str = "/ui/servers/new";

/// The form of a new server with these choices.
async fn new_form(person: &Person<'_>, authentication: &str, flow: Option<&str>) -> Form {
    let form = Form::with(person.page(NEW).await, "Try it").choose("Authentication", authentication);
    let mut page = form.press(person, "Show fields").await;
    if let Some(flow) = flow {
        let form = Form::with(page, "Try it").tick(flow);
        page = form.press(person, "Show fields").await;
    }
    Form::with(page, "Try it")
}

fn tried(page: &Html) -> String {
    text(page, "#tried")
}

async fn servers_there(person: &Person<'_>) -> usize {
    count(&person.page("/ui/servers").await, "main article")
}

#[tokio::test]
async fn a_server_is_tried_before_it_is_saved() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept_if(idp.issued());
    upstream.set_tools(&["read", "<b>write</b>"]);
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;
    let form = new_form(&person, "OAuth", Some("Machine-to-Machine (M2M)"))
        .await
        .fill("MCP Server Name", "tried")
        .fill("MCP Server URL", &upstream.url())
        .fill("Client ID", "canary-id")
        .fill("Client Secret", CLIENT_SECRET)
        .fill("Token URL", &idp.url());
    let page = form.answered(&person).await;
    let said = tried(&page);
    assert!(
        said.contains("lists 2 tools") && said.contains("<b>write</b>"),
        "{said}"
    );
    assert!(body_of(idp.requests().last().expect("asked")).contains("client_credentials"));
    // What was typed is there still, but for the secret, which no page shows.
    assert!(!page.html().contains(CLIENT_SECRET) && said.contains("write them once more"));
    assert_eq!(servers_there(&person).await, 0);
    let form = Form::with(page, "Try it");
    assert_eq!(form.value("Client ID"), "canary-id");

    // Why not, in the words of who refuses.
    idp.set_default(Reply::error(401, "invalid_client"));
    let form = form.fill("Client Secret", CLIENT_SECRET);
    let said = tried(&form.answered(&person).await);
    assert!(
        ["invalid_client", "What is at its address", "Request id: "]
            .iter()
            .all(|words| said.contains(words)),
        "{said}"
    );
    idp.set_default(Reply::token());
    let (path, _) = Form::with(form.answered(&person).await, "Create MCP Server")
        .fill("Client Secret", CLIENT_SECRET)
        .done(&person)
        .await;
    assert!(path.starts_with("/ui/servers/"), "{path}");
    assert_eq!(servers_there(&person).await, 1);
    assert_nothing_secret_logged(&[CLIENT_SECRET]);
}

#[tokio::test]
async fn what_nobody_can_try_is_looked_at_and_what_is_wrong_is_said() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers("  taken: {url: 'http://127.0.0.1:9/mcp'}\n").await;
    let person = Person::operator(&gateway).await;
    let form = new_form(&person, "OAuth", Some("Interactive (PKCE)"))
        .await
        .fill("MCP Server Name", "wiki")
        .fill("MCP Server URL", &upstream.url());
    let said = tried(&form.answered(&person).await);
    for words in ["People sign in to this server", "registers clients by itself"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let form = form.fill("MCP Server URL", "").fill("MCP Server Name", "a-b");
    let got = form.send(&person).await;
    assert_eq!(got.status, 422);
    let page = html(&got);
    assert!(
        text(&page, "#server-summary").contains("MCP Server URL is required"),
        "{}",
        text(&page, "main")
    );
    assert_eq!(tried(&page), "");
    let form = form.fill("MCP Server URL", &upstream.url());
    let got = form.send(&person).await;
    assert_eq!(got.status, 422);
    assert!(text(&html(&got), "#server-summary").contains("cannot contain '-'"));
    assert_eq!(servers_there(&person).await, 1);
}

#[tokio::test]
async fn a_kept_secret_is_tried_where_it_belongs_and_nowhere_else() {
    let (upstream, elsewhere) = (Upstream::start().await, Upstream::start().await);
    upstream.accept("canary-kept-0123");
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;
    let form = new_form(&person, "Bearer Token", None)
        .await
        .fill("MCP Server Name", "one")
        .fill("MCP Server URL", &upstream.url())
        .fill("Authentication Value", "canary-kept-0123");
    let (path, _) = Form::with(form.answered(&person).await, "Create MCP Server")
        .fill("Authentication Value", "canary-kept-0123")
        .done(&person)
        .await;
    let settings = format!("{path}/settings");
    let form = Form::with(person.page(&settings).await, "Try it").fill("Description", "Not saved.");
    let page = form.answered(&person).await;
    assert!(tried(&page).contains("lists 1 tool"), "{}", tried(&page));
    let kept = Form::with(person.page(&settings).await, "Save changes");
    assert_eq!(kept.value("Description"), "");
    let form = form.fill("MCP Server URL", &elsewhere.url());
    let got = form.send(&person).await;
    assert!(matches!(got.status, 200 | 422), "{got:?}");
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn members_try_nothing() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "mia", "member").await;
    let key = put_key(&store, "mias", Some("mia"), "{}").await;
    let gateway = with_place(
        &place,
        &entry("one", &format!("url: {}\nallow_all_keys: true", upstream.url())),
    )
    .await;
    let mia = Person::signed_in(&gateway, &key, "").await;
    let path = link(&mia.page("/ui/servers").await, "one");
    let url = upstream.url();
    let form = [
        ("show", "try"),
        ("server_name", "mine"),
        ("url", url.as_str()),
        ("transport", "http"),
    ];
    for path in [NEW.to_owned(), format!("{path}/settings")] {
        let before = upstream.requests().len();
        assert_eq!(mia.send(&path, &form).await.status, 403, "{path}");
        assert_eq!(upstream.requests().len(), before, "{path}");
    }
}

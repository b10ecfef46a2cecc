//! The gateway's own consent, where one client at the provider serves many: who is asked, what the page says, what
//! an answer counts for.

use crate::browser::{
    Browser, REDIRECT, Registered, SHARED_ID, STATE, metadata, names, parameter, registering, shared,
};
use crate::by_hand::{ask, head};
use crate::harness::{Got, Start, TestGateway, assert_nothing_secret_logged, keyed};
use serde_json::json;
use vestibule_testkit::Provider;

async fn provider_and_gateway(more: &str) -> (Provider, TestGateway) {
    let provider = Provider::start().await;
    let text = keyed(&shared("one", &provider, more));
    let gateway = Start::new(text)
        .environment("MCP_TRUSTED_REDIRECT_ORIGINS", "app.example.com,b.example.com")
        .start()
        .await;
    (provider, gateway)
}

/// A page: its text, and the ticket in its form.
fn page(got: &Got) -> (&str, String) {
    assert_eq!(
        (got.status, got.header("content-type")),
        (200, "text/html; charset=utf-8"),
        "{got:?}"
    );
    let text = got.body.as_str().expect("a page");
    let field = text.split("name=\"ticket\" value=\"").nth(1).expect("a ticket");
    (text, field.split('"').next().expect("an end").to_owned())
}

/// Whether a browser is asked for this request, or sent on.
async fn is_asked(
    gateway: &TestGateway,
    browser: &Browser,
    client: &Registered,
    changes: &[(&str, &str)],
) -> bool {
    let got = browser.open(&client.authorize_url(gateway, changes)).await;
    match got.status {
        200 => true,
        302 => {
            assert!(
                parameter(got.header("location"), "client_id").is_some(),
                "{got:?}"
            );
            false
        }
        other => panic!("{other}: {got:?}"),
    }
}

/// Opens the page and approves.
async fn approve(gateway: &TestGateway, browser: &Browser, client: &Registered) -> Got {
    let url = client.authorize_url(gateway, &[]);
    let asked = browser.open(&url).await;
    let (_, ticket) = page(&asked);
    let form = [("ticket", ticket.as_str()), ("decision", "approve")];
    browser.submit(&url, &form, &[]).await
}

async fn named(gateway: &TestGateway, name: &str, redirect_uri: &str) -> Registered {
    let mut metadata = metadata(&[redirect_uri]);
    metadata["client_name"] = json!(name);
    Registered::with(gateway, "/one", &metadata).await
}

#[tokio::test]
async fn the_page_names_everything_and_is_safe_to_show() {
    let (provider, gateway) = provider_and_gateway("scopes: ['mcp:read']").await;
    let client = named(
        &gateway,
        "<script>alert(1)</script> & \"Friends'\"",
        "https://app.example.com:443/cb",
    )
    .await;
    let state = "<img src=x onerror=alert(2)>\"'&";
    let url = client.authorize_url(&gateway, &[("scope", "read <b>write"), ("state", state)]);
    let asked = Browser::new().open(&url).await;
    let (text, _) = page(&asked);
    for part in [
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;Friends&#x27;&quot;",
        "<strong>app.example.com:443</strong>",
        "<dd>one</dd>",
        "<code>read &lt;b&gt;write</code>",
        "value=\"approve\"",
        "value=\"deny\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    for part in ["<script", "<img", "onerror=", "<b>", "javascript:", "http-equiv"] {
        assert!(!text.contains(part), "{part}\n{text}");
    }
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(asked.header(name), value);
    }
    let policy = asked.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("script-src"), "{policy}");
    let cookie = asked.header("set-cookie");
    assert!(
        cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"),
        "{cookie}"
    );
    // Nobody at the provider knows of it yet.
    assert!(provider.requests().is_empty());
    // A client without a name, and a server without scopes.
    let silent = Registered {
        path: "/one".into(),
        id: "one".into(),
        secret: None,
        redirect_uri: REDIRECT.into(),
    };
    let asked = Browser::new().open(&silent.authorize_url(&gateway, &[])).await;
    let (text, _) = page(&asked);
    assert!(
        text.contains("without a name") && text.contains("127.0.0.1:60108"),
        "{text}"
    );
}

#[tokio::test]
async fn an_approval_goes_on_to_the_provider_and_is_remembered() {
    let (provider, gateway) = provider_and_gateway("").await;
    let client = Registered::at(&gateway, "/one").await;
    let browser = Browser::new();
    let approved = approve(&gateway, &browser, &client).await;
    assert_eq!(approved.status, 303, "{approved:?}");
    let location = approved.header("location");
    assert!(location.starts_with(&provider.authorization_url()), "{location}");
    assert_eq!(parameter(location, "client_id").as_deref(), Some(SHARED_ID));
    assert!(provider.requests().is_empty());
    // The sign-in comes to its end.
    let back = browser.open(location).await;
    let end = browser.open(back.header("location")).await;
    assert!(parameter(end.header("location"), "code").is_some(), "{end:?}");
    assert_eq!(parameter(end.header("location"), "state").as_deref(), Some(STATE));

    // Asked once: not for another state, not for another port, not for a registration anew.
    assert!(!is_asked(&gateway, &browser, &client, &[("state", "other")]).await);
    let port = [("redirect_uri", "http://127.0.0.1:50123/callback")];
    assert!(!is_asked(&gateway, &browser, &client, &port).await);
    let again = Registered::at(&gateway, "/one").await;
    assert_ne!(again.id, client.id);
    assert!(!is_asked(&gateway, &browser, &again, &[]).await);
    // In the other spelling it is the same server.
    let spelled = Registered {
        path: "/mcp/one".into(),
        ..again
    };
    assert!(!is_asked(&gateway, &browser, &spelled, &[]).await);
    // Half a year later it is asked again.
    gateway.advance(180 * 24 * 60 * 60);
    assert!(is_asked(&gateway, &browser, &client, &[]).await);
}

#[tokio::test]
async fn another_client_host_server_or_browser_is_asked() {
    let provider = Provider::start().await;
    let servers = shared("one", &provider, "") + &shared("two", &provider, "alias: zwei");
    let gateway = Start::new(keyed(&servers))
        .environment("MCP_TRUSTED_REDIRECT_ORIGINS", "app.example.com,b.example.com")
        .start()
        .await;
    let browser = Browser::new();
    let known = named(&gateway, "Known", "https://app.example.com/cb").await;
    approve(&gateway, &browser, &known).await;
    assert!(!is_asked(&gateway, &browser, &known, &[]).await);
    assert!(is_asked(&gateway, &Browser::new(), &known, &[]).await);
    for (name, uri) in [
        ("Other", "https://app.example.com/cb"),
        ("Known", "https://b.example.com/cb"),
        ("Known", "https://app.example.com/other"),
        ("Known", "http://localhost:1/cb"),
        ("Known", "https://app.example.com:443/cb"),
    ] {
        let client = named(&gateway, name, uri).await;
        assert!(is_asked(&gateway, &browser, &client, &[]).await, "{name} {uri}");
    }
    let mut other = metadata(&["https://app.example.com/cb"]);
    other["client_name"] = json!("Known");
    let other = Registered::with(&gateway, "/two", &other).await;
    assert!(is_asked(&gateway, &browser, &other, &[]).await);

    // A memory of a stranger's making counts for nothing.
    let mut cookies = browser.cookies();
    for cookie in &mut cookies {
        if cookie.name == "vestibule_consents" {
            let middle = cookie.value.len() / 2;
            let changed = if &cookie.value[middle..=middle] == "A" {
                "B"
            } else {
                "A"
            };
            cookie.value.replace_range(middle..=middle, changed);
        }
    }
    assert_ne!(cookies, browser.cookies());
    let forged = Browser::new();
    forged.set_cookies(cookies);
    assert!(is_asked(&gateway, &forged, &known, &[]).await);
}

#[tokio::test]
async fn a_denial_is_told_to_the_client_and_not_remembered() {
    let (provider, gateway) = provider_and_gateway("").await;
    let client = Registered::at(&gateway, "/one").await;
    let browser = Browser::new();
    for decision in ["deny", "", "Approve", "yes"] {
        let url = client.authorize_url(&gateway, &[]);
        let asked = browser.open(&url).await;
        let (_, ticket) = page(&asked);
        let form = [("ticket", ticket.as_str()), ("decision", decision)];
        let denied = browser.submit(&url, &form, &[]).await;
        assert_eq!(denied.status, 303, "{decision}: {denied:?}");
        let location = denied.header("location");
        assert!(
            location.starts_with(&format!("{REDIRECT}?error=access_denied&")),
            "{location}"
        );
        assert_eq!(names(location), ["error", "error_description", "state", "iss"]);
        assert_eq!(parameter(location, "state").as_deref(), Some(STATE));
        assert_eq!(parameter(location, "iss"), Some(gateway.url("/one")));
        assert!(is_asked(&gateway, &browser, &client, &[]).await);
    }
    assert!(provider.requests().is_empty());
}

/// A page of the gateway's that says that the answer is none, and nothing more.
fn is_refused(got: &Got) {
    assert_eq!(got.status, 400, "{got:?}");
    let text = got.body.as_str().expect("a page");
    assert!(
        text.contains("Authentication failed") && text.contains("Request id"),
        "{text}"
    );
    assert_eq!(
        (got.header("location"), got.header("set-cookie")),
        ("", ""),
        "{got:?}"
    );
}

fn form(ticket: &str) -> [(&str, &str); 2] {
    [("ticket", ticket), ("decision", "approve")]
}

#[tokio::test]
async fn a_ticket_counts_in_its_browser_for_its_request_and_ten_minutes() {
    let (provider, gateway) = provider_and_gateway("").await;
    let client = Registered::at(&gateway, "/one").await;
    let other = named(&gateway, "Other", REDIRECT).await;
    let (mine, theirs) = (Browser::new(), Browser::new());
    let url = client.authorize_url(&gateway, &[]);
    let (_, ticket) = page(&mine.open(&url).await);
    let (_, their_ticket) = page(&theirs.open(&url).await);
    // Another's ticket, none, one of nobody's; and mine for another request, or without my cookie.
    for ticket in [their_ticket.as_str(), "", "x", &ticket[..ticket.len() - 1]] {
        is_refused(&mine.submit(&url, &form(ticket), &[]).await);
    }
    for changed in [
        client.authorize_url(&gateway, &[("scope", "everything")]),
        client.authorize_url(&gateway, &[("redirect_uri", "http://127.0.0.1:1/callback")]),
        other.authorize_url(&gateway, &[]),
        format!("{url}&x=y"),
    ] {
        is_refused(&mine.submit(&changed, &form(&ticket), &[]).await);
    }
    is_refused(&Browser::new().submit(&url, &form(&ticket), &[]).await);
    is_refused(&theirs.submit(&url, &form(&ticket), &[]).await);
    gateway.advance(599);
    assert_eq!(mine.submit(&url, &form(&ticket), &[]).await.status, 303);
    gateway.advance(1);
    is_refused(&mine.submit(&url, &form(&ticket), &[]).await);
    assert!(provider.requests().is_empty());
    assert_nothing_secret_logged(&[&ticket]);
}

#[tokio::test]
async fn other_sites_approve_nothing() {
    let (provider, gateway) = provider_and_gateway("").await;
    let client = Registered::at(&gateway, "/one").await;
    let browser = Browser::new();
    let url = client.authorize_url(&gateway, &[]);
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "same-origin"),
        ],
    ] {
        // Even with a ticket that is right and every cookie.
        let (_, ticket) = page(&browser.open(&url).await);
        let form = [("ticket", ticket.as_str()), ("decision", "approve")];
        let got = browser.submit(&url, &form, headers).await;
        let location = got.header("location");
        assert!(
            location.starts_with(&format!("{REDIRECT}?error=access_denied&")),
            "{headers:?}: {got:?}"
        );
        assert!(is_asked(&gateway, &browser, &client, &[]).await, "{headers:?}");
    }
    let own = gateway.url("");
    let (_, ticket) = page(&browser.open(&url).await);
    let form = [("ticket", ticket.as_str()), ("decision", "approve")];
    let headers = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    let got = browser.submit(&url, &form, &headers).await;
    assert!(
        got.header("location").starts_with(&provider.authorization_url()),
        "{got:?}"
    );
}

#[tokio::test]
async fn an_answer_to_a_request_that_is_wrong_is_judged_like_the_request() {
    let (provider, gateway) = provider_and_gateway("").await;
    let client = Registered::at(&gateway, "/one").await;
    let browser = Browser::new();
    let url = client.authorize_url(&gateway, &[]);
    let (_, ticket) = page(&browser.open(&url).await);
    let form = [("ticket", ticket.as_str()), ("decision", "approve")];
    let evil = client.authorize_url(&gateway, &[("redirect_uri", "https://evil.example/cb")]);
    let got = browser.submit(&evil, &form, &[]).await;
    assert_eq!(
        (got.status, &got.body),
        (400, &json!({"detail": "invalid_request"}))
    );
    let unknown = url.replace(&client.id, "unknown");
    assert_eq!(browser.submit(&unknown, &form, &[]).await.status, 400);
    let plain = client.authorize_url(&gateway, &[("code_challenge_method", "plain")]);
    let got = browser.submit(&plain, &form, &[]).await;
    assert_eq!(
        parameter(got.header("location"), "error").as_deref(),
        Some("invalid_request")
    );
    let target = url.strip_prefix(&gateway.url("")).expect("the gateway's");
    let huge = ask(&gateway, head("POST", target, "Content-Length: 100000\r\n")).await;
    assert_eq!(
        (huge.status, &huge.json()["error"]),
        (400, &json!("invalid_request"))
    );
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn nobody_is_asked_where_it_is_not_the_gateways_to_ask() {
    // The operator vouches for the clients.
    let (_provider, gateway) = provider_and_gateway("consent: never").await;
    let client = Registered::at(&gateway, "/one").await;
    assert!(!is_asked(&gateway, &Browser::new(), &client, &[]).await);

    // The answer stays on the gateway's own origin.
    let (_provider, gateway) = provider_and_gateway("").await;
    let own = gateway.url("/ui/mcp/oauth/callback");
    let page = Registered {
        path: "/one".into(),
        id: SHARED_ID.into(),
        secret: None,
        redirect_uri: own,
    };
    assert!(!is_asked(&gateway, &Browser::new(), &page, &[]).await);
    let elsewhere = [("redirect_uri", REDIRECT)];
    assert!(is_asked(&gateway, &Browser::new(), &page, &elsewhere).await);

    // Each kind of client has a client of its own at the provider, which asks for itself.
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    let client = Registered::at(&gateway, "/one").await;
    assert!(!is_asked(&gateway, &Browser::new(), &client, &[]).await);
}

#[tokio::test]
async fn approvals_of_several_clients_are_kept_side_by_side() {
    let (_provider, gateway) = provider_and_gateway("").await;
    let browser = Browser::new();
    let mut clients = Vec::new();
    for number in 0..5 {
        let client = named(&gateway, &format!("Client {number}"), REDIRECT).await;
        assert_eq!(approve(&gateway, &browser, &client).await.status, 303);
        clients.push(client);
    }
    for client in &clients {
        assert!(!is_asked(&gateway, &browser, client, &[]).await);
    }
    let cookies: Vec<_> = browser
        .cookies()
        .into_iter()
        .filter(|cookie| cookie.name == "vestibule_consents")
        .collect();
    assert_eq!(cookies.len(), 1);
}

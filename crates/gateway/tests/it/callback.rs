//! Where providers send people back to: the seed's six cases byte for byte, and everything that must not pass for
//! one of them.

use crate::browser::{
    Browser, Cookie, REDIRECT, Registered, STATE, encoded, names, parameter, registering, shared,
};
use crate::by_hand::ask;
use crate::harness::{Got, KEY, Start, TestGateway, got, keyed, logged};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::collections::HashMap;
use vestibule_store::MasterKeys;
use vestibule_testkit::{Iss, Provider, Upstream};

/// A provider with a sign-in under way: the browser was sent there and did not come back.
struct UnderWay {
    provider: Provider,
    _upstream: Upstream,
    gateway: TestGateway,
    client: Registered,
    browser: Browser,
    state: String,
}

impl UnderWay {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(modes: impl FnOnce(&Provider)) -> Self {
        let provider = Provider::start().await;
        modes(&provider);
        let upstream = provider.upstream().await;
        let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
        let client = Registered::at(&gateway, "/one").await;
        let browser = Browser::new();
        let mut under_way = Self {
            provider,
            _upstream: upstream,
            gateway,
            client,
            browser,
            state: String::new(),
        };
        under_way.begin().await;
        under_way
    }

    /// Begins one more sign-in in the same browser.
    async fn begin(&mut self) -> String {
        let to = self
            .browser
            .open(&self.client.authorize_url(&self.gateway, &[]))
            .await;
        self.state = parameter(to.header("location"), "state").expect("a state");
        to.header("location").to_owned()
    }

    /// The browser comes back with these parameters; `iss` is added unless one is there.
    async fn back(&self, parameters: &[(&str, &str)]) -> Got {
        let issuer = self.provider.issuer();
        let mut all = parameters.to_vec();
        if !all.iter().any(|(name, _)| *name == "iss") {
            all.push(("iss", &issuer));
        }
        self.raw(&encoded(&all)).await
    }

    async fn raw(&self, query: &str) -> Got {
        self.browser
            .open(&self.gateway.url(&format!("/callback?{query}")))
            .await
    }

    /// The end of the client's `Location`: our issuer.
    fn iss(&self) -> String {
        format!("&{}", encoded(&[("iss", &self.gateway.url("/one"))]))
    }
}

const START_AGAIN: &str =
    "Start the sign-in again from your MCP client, and finish it in the same browser within ten minutes.";
const ASK: &str = "If it happens again, give this page&#x27;s request id to whoever runs the gateway.";

/// The whole page: the seed's lines, then what to do and the request id.
fn is_page(got: &Got, error: &str, said: Option<&str>, steps: &[&str]) {
    assert_eq!(
        (got.status, got.header("content-type"), got.header("location")),
        (400, "text/html; charset=utf-8", ""),
        "{got:?}"
    );
    let said = said.map(|said| format!("<p>{said}</p>\n")).unwrap_or_default();
    let steps: String = steps.iter().map(|step| format!("<p>{step}</p>\n")).collect();
    let expected = format!(
        "<html><body><h2>Authentication failed</h2>\n<p><strong>Error:</strong> {error}</p>\n{said}\
         <p>You can close this window and try again.</p>\n{steps}<p>Request id: {}</p>\n\
         <html lang=\"en\"><title>Authentication failed</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n</body></html>",
        got.header("x-request-id")
    );
    assert_eq!(got.body, json!(expected));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(got.header(name), value);
    }
    assert!(
        got.header("content-security-policy")
            .contains("default-src 'none'")
    );
}

#[tokio::test]
async fn seed_1_an_error_without_state_is_a_page() {
    let signing_in = UnderWay::start().await;
    let got = signing_in
        .raw("error=access_denied&error_description=User+declined+access")
        .await;
    is_page(
        &got,
        "access_denied",
        Some("User declined access"),
        &[START_AGAIN, ASK],
    );
    let got = signing_in.raw("error=server_error").await;
    is_page(&got, "server_error", None, &[START_AGAIN, ASK]);
}

#[tokio::test]
async fn seed_2_an_error_goes_back_to_the_client_with_its_own_state() {
    let mut signing_in = UnderWay::start().await;
    let state = signing_in.state.clone();
    let got = signing_in
        .back(&[
            ("error", "access_denied"),
            ("error_description", "User declined access"),
            ("state", &state),
        ])
        .await;
    let expected = format!(
        "{REDIRECT}?error=access_denied&error_description=User+declined+access&state={STATE}{}",
        signing_in.iss()
    );
    assert_eq!((got.status, got.header("location")), (302, expected.as_str()));
    assert!(!got.header("location").contains(&state));
    assert_eq!((got.header("cache-control"), &got.body), ("no-store", &json!("")));

    // With a page of the provider's, and as the provider itself sends it.
    let state = {
        signing_in.begin().await;
        signing_in.state.clone()
    };
    let got = signing_in
        .back(&[
            ("error", "invalid_scope"),
            ("error_uri", "https://idp.example/e?a=b"),
            ("state", &state),
        ])
        .await;
    assert_eq!(
        got.header("location"),
        format!(
            "{REDIRECT}?error=invalid_scope&error_uri=https%3A%2F%2Fidp.example%2Fe%3Fa%3Db&state={STATE}{}",
            signing_in.iss()
        )
    );
    signing_in
        .provider
        .set(|modes| modes.refuses_people = Some(("access_denied".into(), Some("Not in the group".into()))));
    let end = signing_in
        .client
        .sign_in(&signing_in.gateway, &signing_in.browser)
        .await;
    assert_eq!(
        parameter(end.header("location"), "error_description").as_deref(),
        Some("Not in the group")
    );
}

#[tokio::test]
async fn seed_3_nothing_is_a_page_and_no_422() {
    let signing_in = UnderWay::start().await;
    let both = "Missing authorization &#x27;code&#x27; and &#x27;state&#x27; parameters.";
    let code = "Missing authorization &#x27;code&#x27; parameter.";
    let state = "Missing authorization &#x27;state&#x27; parameter.";
    let known = signing_in.state.clone();
    for (query, said) in [
        (String::new(), both),
        ("code=&state=".into(), both),
        ("x=y".into(), both),
        ("iss=https://idp.example".into(), both),
        ("code=abc".into(), state),
        ("code=abc&state=".into(), state),
        ("state=abc".into(), code),
        (format!("state={known}"), code),
        (format!("code=&state={known}"), code),
    ] {
        let got = signing_in.raw(&query).await;
        is_page(&got, "invalid_request", Some(said), &[START_AGAIN]);
    }
    let bare = signing_in
        .browser
        .open(&signing_in.gateway.url("/callback"))
        .await;
    is_page(&bare, "invalid_request", Some(both), &[START_AGAIN]);
    // A description alone: some providers forget the error.
    let got = signing_in.raw("error_description=Something+broke").await;
    is_page(
        &got,
        "unknown_error",
        Some("Something broke"),
        &[START_AGAIN, ASK],
    );
    let got = signing_in.raw("error=&error_description=x&code=").await;
    is_page(&got, "unknown_error", Some("x"), &[START_AGAIN, ASK]);
}

#[tokio::test]
async fn seed_4_a_code_goes_back_to_the_client_with_its_own_state() {
    let signing_in = UnderWay::start().await;
    let got = signing_in
        .back(&[("code", "auth-code-abc"), ("state", &signing_in.state)])
        .await;
    let expected = format!("{REDIRECT}?code=auth-code-abc&state={STATE}{}", signing_in.iss());
    assert_eq!((got.status, got.header("location")), (302, expected.as_str()));
    assert!(!expected.contains(&signing_in.state));
    // The cookie of the flow is gone.
    let cookie = got.header("set-cookie");
    assert!(
        cookie.contains("Max-Age=0") && cookie.contains("Path=/callback"),
        "{cookie}"
    );
    assert!(signing_in.browser.cookies().is_empty());
}

#[tokio::test]
async fn the_clients_own_query_and_state_come_back_as_they_were() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    let uri = "http://localhost:3118/callback?kept=a%20b&x";
    let client = Registered::with(&gateway, "/one", &crate::browser::metadata(&[uri])).await;
    for state in ["a b&c=d#e%+\"'<>", "\u{e9}\u{1f600}", "", "{\"json\":[1,2]}"] {
        let browser = Browser::new();
        let to = browser
            .open(&client.authorize_url(&gateway, &[("state", state)]))
            .await;
        let back = browser.open(to.header("location")).await;
        let end = browser.open(back.header("location")).await;
        let location = end.header("location");
        assert!(
            location.starts_with(&format!("{uri}&code=canary-code-")),
            "{location}"
        );
        let expected = (!state.is_empty()).then(|| state.to_owned());
        assert_eq!(parameter(location, "state"), expected);
        assert_eq!(names(location).last().map(String::as_str), Some("iss"));
    }
}

#[tokio::test]
async fn seed_5_a_redirect_that_is_not_trusted_any_more_is_a_page() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
    keys.write_to(&file).expect("written");
    let start = |trusted: &str| {
        Start::new(keyed(&registering("one", &upstream, "")))
            .environment("VESTIBULE_MASTER_KEY_FILE", &file.display().to_string())
            .environment("PROXY_BASE_URL", "http://localhost:4000")
            .environment("MCP_TRUSTED_REDIRECT_ORIGINS", trusted)
            .start()
    };
    let before = start("attacker.example.com").await;
    let after = start("other.example.com").await;
    let uri = "https://attacker.example.com/steal";
    let client = Registered::with(&before, "/one", &crate::browser::metadata(&[uri])).await;
    let issuer = provider.issuer();
    for (answer, error, said) in [
        (
            ("code", "c"),
            "invalid_request",
            "The client&#x27;s redirect URI is not trusted any more.",
        ),
        (
            ("error", "access_denied"),
            "access_denied",
            "User declined access",
        ),
    ] {
        let browser = Browser::new();
        let to = browser.open(&client.authorize_url(&before, &[])).await;
        let state = parameter(to.header("location"), "state").expect("a state");
        let query = encoded(&[
            answer,
            ("error_description", "User declined access"),
            ("state", &state),
            ("iss", &issuer),
        ]);
        let got = browser.open(&after.url(&format!("/callback?{query}"))).await;
        is_page(&got, error, Some(said), &[ASK]);
        assert!(!got.body.to_string().contains("attacker"), "{got:?}");
        let log = logged();
        let line = log
            .lines()
            .find(|line| line.contains(got.header("x-request-id")) && line.contains("rejecting redirect_uri"))
            .expect("the rejection is logged");
        for part in [uri, "http://localhost:4000", "MCP_TRUSTED_REDIRECT_ORIGINS"] {
            assert!(line.contains(part), "{line}");
        }
    }
}

#[tokio::test]
async fn seed_6_what_the_provider_says_is_escaped() {
    let signing_in = UnderWay::start().await;
    let query = encoded(&[
        ("error", "<script>alert(1)</script>"),
        ("error_description", "<img src=x onerror=alert(2)>"),
    ]);
    let got = signing_in.raw(&query).await;
    is_page(
        &got,
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        Some("&lt;img src=x onerror=alert(2)&gt;"),
        &[START_AGAIN, ASK],
    );
    for payload in [
        "\"'><svg/onload=alert(1)>",
        "</p></body><script>x</script>",
        "javascript:alert(1)",
        "&lt;script&gt;",
        "{{7*7}}${7*7}<%= 7 %>",
        "\u{0}\u{8}\u{202e}<b>",
        "+ADw-script+AD4-",
    ] {
        for (name, state) in [("error", ""), ("error_description", "x"), ("error_uri", "x")] {
            let query = encoded(&[("error", "e"), (name, payload), ("state", state)]);
            // `error` stands twice in the first of them.
            let query = if name == "error" {
                encoded(&[(name, payload)])
            } else {
                query
            };
            let got = signing_in.raw(&query).await;
            let text = got.body.as_str().expect("a page");
            assert_eq!(got.status, 400);
            assert_eq!(text.matches("</body>").count(), 1, "{text}");
            for tag in ["<script", "<svg", "<img", "<b>"] {
                assert!(!text.contains(tag), "{text}");
            }
        }
    }
    // The names of parameters too.
    let got = signing_in.raw("%3Cscript%3E=1&%3Cscript%3E=2").await;
    assert!(
        got.body.as_str().expect("a page").contains("&lt;script&gt;"),
        "{got:?}"
    );
}

#[tokio::test]
async fn a_state_counts_in_its_browser_once_and_for_ten_minutes() {
    let mut signing_in = UnderWay::start().await;
    let unknown =
        "This sign-in is not known here: it was begun in another browser, ended already, or took too long.";
    let refused = |got: Got| is_page(&got, "invalid_request", Some(unknown), &[START_AGAIN]);
    let state = signing_in.state.clone();
    let issuer = signing_in.provider.issuer();
    let query = encoded(&[("code", "c"), ("state", &state), ("iss", &issuer)]);
    let url = signing_in.gateway.url(&format!("/callback?{query}"));

    // Another browser, with a sign-in of its own.
    let other = Browser::new();
    refused(other.open(&url).await);
    other
        .open(&signing_in.client.authorize_url(&signing_in.gateway, &[]))
        .await;
    assert_eq!(other.cookies().len(), 1);
    refused(other.open(&url).await);
    // The same cookie for a state that only begins alike, and a tampered cookie.
    let mine = signing_in.browser.cookies();
    for position in [16, 42] {
        let mut near = state.clone();
        let swapped = if &near[position..=position] == "A" {
            "B"
        } else {
            "A"
        };
        near.replace_range(position..=position, swapped);
        other.set_cookies(mine.clone());
        refused(other.open(&url.replace(&state, &near)).await);
    }
    for position in [0, 10, mine[0].value.len() / 2, mine[0].value.len() - 1] {
        let mut value = mine[0].value.clone();
        let swapped = if &value[position..=position] == "A" {
            "B"
        } else {
            "A"
        };
        value.replace_range(position..=position, swapped);
        other.set_cookies(vec![Cookie {
            value,
            ..mine[0].clone()
        }]);
        refused(other.open(&url).await);
    }
    // Mine, and then again.
    assert_eq!(signing_in.browser.open(&url).await.status, 302);
    refused(signing_in.browser.open(&url).await);

    // Ten minutes, not more.
    for (wait, good) in [(599, true), (600, false)] {
        signing_in.begin().await;
        signing_in.gateway.advance(wait);
        let got = signing_in
            .back(&[("code", "c"), ("state", &signing_in.state)])
            .await;
        if good {
            assert_eq!(got.status, 302, "{got:?}");
        } else {
            refused(got);
        }
    }
    // An error for a sign-in that is over is still shown to the person.
    let got = signing_in
        .back(&[("error", "access_denied"), ("state", &state)])
        .await;
    is_page(&got, "access_denied", None, &[START_AGAIN, ASK]);
}

#[tokio::test]
async fn sign_ins_in_one_browser_do_not_disturb_each_other() {
    let mut signing_in = UnderWay::start().await;
    let mut states = vec![signing_in.state.clone()];
    for _ in 0..3 {
        signing_in.begin().await;
        states.push(signing_in.state.clone());
    }
    states.swap(0, 2);
    for state in states {
        let got = signing_in.back(&[("code", "c"), ("state", &state)]).await;
        assert_eq!(got.status, 302, "{got:?}");
    }
}

#[tokio::test]
async fn the_providers_issuer_is_compared() {
    let text = "The answer does not come from the authorization server that was asked (RFC 9207).";
    let wrong = || Some(Iss::Other("https://evil.example".into()));
    for (promises, iss, good) in [
        (true, Some(Iss::Right), true),
        (true, None, false),
        (true, wrong(), false),
        (false, Some(Iss::Right), true),
        (false, None, true),
        (false, wrong(), false),
    ] {
        let provider = |provider: &Provider| {
            provider.set(|modes| (modes.promises_iss, modes.iss) = (promises, iss.clone()));
        };
        let signing_in = UnderWay::with(provider).await;
        let got = signing_in
            .client
            .sign_in(&signing_in.gateway, &signing_in.browser)
            .await;
        if good {
            assert_eq!(got.status, 302, "{promises} {iss:?}: {got:?}");
            assert_eq!(
                parameter(got.header("location"), "iss"),
                Some(signing_in.gateway.url("/one"))
            );
        } else {
            is_page(&got, "invalid_issuer", Some(text), &[ASK]);
            // Not even an error of a stranger's reaches the client, and the flow is over.
            assert_eq!(
                signing_in.browser.cookies().len(),
                1,
                "the first one is still under way"
            );
        }
    }
    // The twin with a slash, another case, an error from elsewhere: no.
    for iss in ["/", "/x"] {
        let mut signing_in = UnderWay::start().await;
        let near = format!("{}{iss}", signing_in.provider.issuer());
        for answer in [("code", "c"), ("error", "access_denied")] {
            let got = signing_in
                .back(&[answer, ("state", &signing_in.state), ("iss", &near)])
                .await;
            is_page(&got, "invalid_issuer", Some(text), &[ASK]);
            signing_in.begin().await;
        }
    }
}

#[tokio::test]
async fn an_issuer_that_nobody_knows_is_not_compared() {
    let provider = Provider::start().await;
    let text = |more: &str| keyed(&shared("one", &provider, &format!("consent: never\n{more}")));
    for (more, status) in [
        (String::new(), 302),
        ("issuer: https://other.example".to_owned(), 400),
        (format!("issuer: {}", provider.issuer()), 302),
    ] {
        let gateway = Start::new(text(&more)).start().await;
        let client = Registered::at(&gateway, "/one").await;
        let got = client.sign_in(&gateway, &Browser::new()).await;
        assert_eq!(got.status, status, "{more}: {got:?}");
    }
}

#[tokio::test]
async fn nothing_may_stand_twice() {
    let signing_in = UnderWay::start().await;
    let state = signing_in.state.clone();
    for query in [
        format!("code=a&code=b&state={state}"),
        format!("code=a&state={state}&state={state}"),
        format!("code=a&state={state}&iss=x&iss=y"),
        format!("error=a&error=b&state={state}"),
        format!("code=a&state={state}&foreign=1&foreign=2"),
    ] {
        let got = signing_in.raw(&query).await;
        let text = got.body.as_str().expect("a page");
        assert!(
            got.status == 400 && text.contains("stands several times"),
            "{query}: {got:?}"
        );
        assert_eq!(got.header("location"), "");
    }
    // The sign-in is still under way.
    let got = signing_in.back(&[("code", "a"), ("state", &state)]).await;
    assert_eq!(got.status, 302);
}

#[tokio::test]
async fn long_queries_arrive_whole() {
    for length in [2 * 1024, 20 * 1024] {
        let signing_in = UnderWay::start().await;
        let code = "c".repeat(length);
        let got = signing_in
            .back(&[("code", &code), ("state", &signing_in.state)])
            .await;
        assert_eq!(got.status, 302);
        assert_eq!(parameter(got.header("location"), "code"), Some(code));
        // What a person reads is cut, at a character.
        let long = "\u{e9}".repeat(length / 8);
        let got = signing_in
            .raw(&encoded(&[("error", "e"), ("error_description", &long)]))
            .await;
        let text = got.body.as_str().expect("a page");
        assert_eq!(text.matches('\u{e9}').count(), (length / 8).min(1000));
    }
    // Past the limit of all headers it is an answer all the same.
    let signing_in = UnderWay::start().await;
    let got = signing_in.raw(&format!("code={}", "c".repeat(40_000))).await;
    assert_eq!(
        (got.status, got.header("content-type")),
        (431, "application/json")
    );
}

#[tokio::test]
async fn no_credential_is_asked_for_and_none_does_harm() {
    let signing_in = UnderWay::start().await;
    for (name, value) in [
        ("x-litellm-api-key", KEY),
        ("authorization", "Bearer sk-wrong"),
        ("origin", "https://idp.example"),
        (
            "cookie",
            "vestibule_signin_=x; =; ;;; vestibule_signin_aaaaaaaaaaaaaaaa",
        ),
        ("cookie", "\u{e9}"),
    ] {
        let request = signing_in.gateway.http.get(
            signing_in
                .gateway
                .url("/callback?code=a&state=aaaaaaaaaaaaaaaaaaaa"),
        );
        let got = got(request.header(name, value)).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (400, "text/html; charset=utf-8"),
            "{name}: {value}"
        );
    }
}

#[test]
fn no_query_makes_it_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let signing_in = runtime.block_on(UnderWay::start());
    let state = signing_in.state.clone();
    let cookie = &signing_in.browser.cookies()[0];
    let cookie = format!("{}={}", cookie.name, cookie.value);
    let part = prop_oneof![
        "[a-z_]{0,12}=[a-zA-Z0-9!$'()*+,./:;=?@_~-]{0,40}",
        "(code|state|error|error_description|error_uri|iss)=(%[0-9a-fA-F]{2}|[a-zA-Z0-9!$'()*+,./:;=?@_~&-]){0,60}",
        Just(format!("state={state}")),
        Just("code=abc".to_owned()),
        "(%[0-9A-Fa-f]?){0,20}",
    ];
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let queries = proptest::collection::vec(part, 0..6);
    let outcome = runner.run(&queries, |parts| {
        let query = parts.join("&");
        let request = format!(
            "GET /callback?{query} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        );
        let response = runtime.block_on(ask(&signing_in.gateway, request));
        let location = response.header("location").unwrap_or_default();
        match response.status {
            302 => prop_assert!(location.starts_with(REDIRECT), "{location}"),
            400 => {
                prop_assert!(location.is_empty());
                prop_assert!(response.text().starts_with("<html><body><h2>Authentication failed</h2>\n"));
            }
            other => prop_assert!(false, "{other} for {query}"),
        }
        Ok(())
    });
    outcome.expect("every query is answered");
}

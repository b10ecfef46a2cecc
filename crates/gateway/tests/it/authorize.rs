//! The authorization endpoint: whom a browser may be sent back to, what has to be right before it is sent on, and
//! what the provider is asked.

use crate::browser::{
    Browser, REDIRECT, Registered, SHARED_ID, STATE, VERIFIER, encoded, names, parameter, registering, shared,
};
use crate::console_harness::{Person, Place, put_key, put_user};
use crate::harness::{KEY, Start, TestGateway, echo, entry, got, keyed, logged};
use serde_json::json;
use vestibule_testkit::{Provider, ResourceRule, Upstream, s256};

const BAD: &str = r#"{"detail":"invalid_request"}"#;

/// A shared client that asks no consent of its own: what is tested here comes before or after it.
async fn shared_gateway(provider: &Provider, more: &str, environment: &[(&str, &str)]) -> TestGateway {
    let text = keyed(&shared("one", provider, &format!("consent: never\n{more}")));
    let start = environment.iter().fold(Start::new(text), |start, (name, value)| {
        start.environment(name, value)
    });
    start.start().await
}

/// The holder of LiteLLM's placeholder id, who may use any redirect URI that the rules accept.
fn placeholder(redirect_uri: &str) -> Registered {
    Registered {
        path: "/one".into(),
        id: "one".into(),
        secret: None,
        redirect_uri: redirect_uri.into(),
    }
}

/// Whether a redirect URI is accepted; how a refusal looks is checked here.
async fn accepts(gateway: &TestGateway, uri: &str, headers: &[(&str, &str)]) -> bool {
    let mut request = gateway.http.get(placeholder(uri).authorize_url(gateway, &[]));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("answered");
    let status = response.status().as_u16();
    let location = response.headers().get("location").cloned();
    let cookies = response.headers().get_all("set-cookie").iter().count();
    let content_type = response.headers().get("content-type").cloned();
    let body = response.text().await.expect("a body");
    if status == 302 {
        assert!(location.is_some() && cookies == 1 && body.is_empty(), "{uri}");
        return true;
    }
    assert_eq!((status, body.as_str()), (400, BAD), "{uri}");
    assert!(location.is_none() && cookies == 0, "{uri}");
    assert_eq!(content_type.expect("a type"), "application/json", "{uri}");
    false
}

#[tokio::test]
async fn redirect_uris_by_the_table_of_the_settings() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(
        &provider,
        "",
        &[
            (
                "MCP_TRUSTED_REDIRECT_ORIGINS",
                "app.example.com,*.tools.example.com,with.example.com:8443",
            ),
            ("MCP_TRUSTED_NATIVE_REDIRECT_URIS", "vscode://vscode.mcp/callback"),
        ],
    )
    .await;
    let own = gateway.url("/ui/mcp/oauth/callback");
    for (uri, expected) in [
        (own.as_str(), true),
        ("https://app.example.com/cb", true),
        ("https://APP.example.com/cb", true),
        ("https://app.example.com:443/cb", true),
        ("https://app.example.com/cb?kept=1", true),
        ("http://app.example.com/cb", false),
        ("https://app.example.com:8443/cb", false),
        ("https://with.example.com:8443/cb", true),
        ("https://with.example.com/cb", false),
        ("https://a.tools.example.com/cb", true),
        ("https://a.b.tools.example.com/cb", true),
        ("https://tools.example.com/cb", false),
        ("https://eviltools.example.com/cb", false),
        ("https://app.example.com.evil.example/cb", false),
        ("https://evil.example/app.example.com", false),
        ("https://app.example.com@evil.example/cb", false),
        ("https://evil.example\\@app.example.com/cb", false),
        ("https://app.example.com/cb#x", false),
        ("http://localhost:1/cb", true),
        ("http://127.0.0.1/cb", true),
        ("http://127.255.255.254:65535/cb", true),
        ("http://[::1]:1/cb", true),
        ("https://localhost:1/cb", true),
        ("http://127.0.0.1.evil.example/cb", false),
        ("http://localhost.evil.example/cb", false),
        ("http://128.0.0.1/cb", false),
        ("http://0.0.0.0/cb", false),
        ("http://[::ffff:8.8.8.8]/cb", false),
        ("cursor://anysphere.cursor-mcp/oauth/callback", true),
        ("vscode://vscode.mcp/callback", true),
        ("vscode://evil.ext/callback", false),
        ("javascript:alert(1)", false),
        ("data:text/html,x", false),
        ("//app.example.com/cb", false),
        ("/cb", false),
        ("", false),
        ("https://app.example.com/cb\r\nSet-Cookie: x=y", false),
        ("https://app.example.com/%zz", false),
        ("https://app.example.com/a/../cb", false),
    ] {
        assert_eq!(accepts(&gateway, uri, &[]).await, expected, "{uri}");
    }
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn the_log_says_what_was_refused_and_how_to_allow_it() {
    let provider = Provider::start().await;
    let base = "https://llm.example.com";
    let gateway = shared_gateway(&provider, "", &[("PROXY_BASE_URL", base)]).await;
    for (uri, parts) in [
        (
            "https://logged-a.example:8443/steal",
            &[
                "https://logged-a.example:8443",
                base,
                "MCP_TRUSTED_REDIRECT_ORIGINS",
                "PROXY_BASE_URL",
            ][..],
        ),
        (
            "http://logged-b.example/cb",
            &["https only", base, "PROXY_BASE_URL"],
        ),
        ("logged-c://app/cb", &[base, "MCP_TRUSTED_NATIVE_REDIRECT_URIS"]),
        ("https://logged-d.example/cb#x", &["fragment"]),
    ] {
        let refused = got(gateway.http.get(placeholder(uri).authorize_url(&gateway, &[]))).await;
        assert_eq!(refused.status, 400);
        let log = logged();
        let id = refused.header("x-request-id");
        let line = log
            .lines()
            .find(|line| line.contains(id) && line.contains("rejecting redirect_uri"))
            .unwrap_or_else(|| panic!("no line for {uri}"));
        for part in parts.iter().chain(&[uri]) {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    // A text that would write lines of its own does not.
    let forged = "https://x.example/\n2026 WARN forged-line";
    got(gateway.http.get(placeholder(forged).authorize_url(&gateway, &[]))).await;
    assert!(
        !logged()
            .lines()
            .any(|line| line.starts_with("2026 WARN forged-line"))
    );
}

#[tokio::test]
async fn behind_an_ingress_the_public_origin_decides() {
    let provider = Provider::start().await;
    let own = "https://llm.example.com/ui/mcp/oauth/callback";
    let with_port = "https://llm.example.com:443/ui/mcp/oauth/callback";
    let elsewhere = "https://llm.example.com:8443/ui/mcp/oauth/callback";
    let plain = "http://llm.example.com/ui/mcp/oauth/callback";
    let set = shared_gateway(&provider, "", &[("PROXY_BASE_URL", "https://llm.example.com")]).await;
    for (uri, expected) in [(own, true), (with_port, true), (elsewhere, false), (plain, false)] {
        assert_eq!(accepts(&set, uri, &[]).await, expected, "{uri}");
    }
    let unset = shared_gateway(&provider, "", &[]).await;
    assert!(!accepts(&unset, own, &[]).await);

    let forwarded = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "llm.example.com"),
    ];
    for (settings, expected) in [
        (
            "use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: ['127.0.0.0/8']",
            true,
        ),
        (
            "use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: ['10.0.0.0/8']",
            false,
        ),
        ("use_x_forwarded_for: true", false),
    ] {
        let text = keyed(&shared("one", &provider, "consent: never"));
        let text = text.replace("mcp_servers:", &format!("  {settings}\nmcp_servers:"));
        let gateway = Start::new(text).start().await;
        assert_eq!(accepts(&gateway, own, &forwarded).await, expected, "{settings}");
        assert!(!accepts(&gateway, elsewhere, &forwarded).await, "{settings}");
        if expected {
            let to = gateway.http.get(placeholder(own).authorize_url(&gateway, &[]));
            let to = got(to
                .header("x-forwarded-proto", "https")
                .header("x-forwarded-host", "llm.example.com"));
            let to = to.await;
            assert_eq!(
                parameter(to.header("location"), "redirect_uri").as_deref(),
                Some("https://llm.example.com/callback")
            );
            assert!(to.header("set-cookie").ends_with("; Secure"), "{to:?}");
        }
    }
}

#[tokio::test]
async fn a_client_returns_where_it_registered() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(
        &provider,
        "",
        &[("MCP_TRUSTED_REDIRECT_ORIGINS", "app.example.com")],
    )
    .await;
    let metadata = crate::browser::metadata(&[
        "http://localhost:3118/callback",
        "http://127.0.0.1/x",
        "https://app.example.com/cb",
    ]);
    let client = Registered::with(&gateway, "/one", &metadata).await;
    for (uri, expected) in [
        ("http://localhost:3118/callback", 302),
        ("http://localhost:50000/callback", 302),
        ("http://127.0.0.1:1/x", 302),
        ("https://app.example.com/cb", 302),
        ("http://127.0.0.1:3118/callback", 400),
        ("http://localhost:3118/other", 400),
        ("http://localhost:3118/callback?x", 400),
        ("https://app.example.com/cb/", 400),
        ("https://app.example.com/", 400),
    ] {
        let url = client.authorize_url(&gateway, &[("redirect_uri", uri)]);
        let got = got(gateway.http.get(url)).await;
        assert_eq!(got.status, expected, "{uri}: {got:?}");
        if expected == 400 {
            assert_eq!(got.body, json!({"detail": "invalid_request"}), "{uri}");
        }
    }
}

/// The error that came back to the client, with its state and our issuer.
async fn error_at_client(gateway: &TestGateway, client: &Registered, changes: &[(&str, &str)]) -> String {
    let got = got(gateway.http.get(client.authorize_url(gateway, changes))).await;
    assert_eq!(got.status, 302, "{changes:?}: {got:?}");
    let location = got.header("location");
    assert!(location.starts_with(&format!("{REDIRECT}?error=")), "{location}");
    assert_eq!(names(location), ["error", "error_description", "state", "iss"]);
    assert_eq!(parameter(location, "state").as_deref(), Some(STATE));
    assert_eq!(parameter(location, "iss"), Some(gateway.url("/one")));
    assert_eq!(got.header("set-cookie"), "");
    parameter(location, "error").expect("an error")
}

#[tokio::test]
async fn what_is_wrong_otherwise_goes_back_to_the_client() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(&provider, "", &[]).await;
    let client = Registered::at(&gateway, "/one").await;
    let padded = format!("{}=", s256(VERIFIER));
    for (changes, error) in [
        (
            &[("code_challenge", ""), ("code_challenge_method", "")][..],
            "invalid_request",
        ),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("code_challenge_method", "s256")], "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("code_challenge", &padded)], "invalid_request"),
        (
            &[("code_challenge", VERIFIER), ("code_challenge_method", "plain")],
            "invalid_request",
        ),
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("response_type", "code id_token")], "unsupported_response_type"),
        (&[("scope", "a \"b\"")], "invalid_scope"),
        (&[("scope", "a\u{e9}")], "invalid_scope"),
    ] {
        assert_eq!(
            error_at_client(&gateway, &client, changes).await,
            error,
            "{changes:?}"
        );
    }
    assert!(provider.requests().is_empty());
    // Without a state none is made up.
    let url = client.authorize_url(&gateway, &[("state", ""), ("response_type", "token")]);
    let got = got(gateway.http.get(url)).await;
    assert_eq!(
        names(got.header("location")),
        ["error", "error_description", "iss"]
    );
}

#[tokio::test]
async fn nothing_may_stand_twice() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(&provider, "", &[]).await;
    let client = Registered::at(&gateway, "/one").await;
    for twice in [
        "redirect_uri=https://evil.example",
        "client_id=one",
        "state=x",
        "scope=a",
        "response_type=code",
        "code_challenge_method=S256",
        "code_challenge=",
    ] {
        let name = twice.split('=').next().expect("a name");
        let first = format!("{}&scope=b", client.query(&[]));
        for query in [format!("{first}&{twice}"), format!("{twice}&{first}")] {
            let got = got(gateway.http.get(gateway.url(&format!("/one/authorize?{query}")))).await;
            assert_eq!(
                (got.status, got.body),
                (400, json!({"detail": "invalid_request"})),
                "{name}"
            );
        }
    }
    // RFC 8707 section 2 lets resource stand several times, and nothing of it goes on.
    let query = format!(
        "{}&resource=https://a.example&resource=https://b.example",
        client.query(&[])
    );
    let got = got(gateway.http.get(gateway.url(&format!("/one/authorize?{query}")))).await;
    assert_eq!(got.status, 302, "{got:?}");
    assert_eq!(parameter(got.header("location"), "resource"), None);
}

/// Where the provider is asked.
async fn asked(gateway: &TestGateway, client: &Registered, changes: &[(&str, &str)]) -> String {
    let got = got(gateway.http.get(client.authorize_url(gateway, changes))).await;
    assert_eq!(
        (got.status, got.header("cache-control")),
        (302, "no-store"),
        "{got:?}"
    );
    assert_eq!(got.header("referrer-policy"), "no-referrer");
    got.header("location").to_owned()
}

#[tokio::test]
async fn the_provider_is_asked_in_the_gateways_name() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(&provider, "scopes: ['mcp:read', 'mcp:write']", &[]).await;
    let client = Registered::at(&gateway, "/one").await;
    let gateway_url = gateway.url("/one/mcp");
    let changes = [
        ("resource", gateway_url.as_str()),
        ("unknown", "x"),
        ("prompt", "none"),
    ];
    let location = asked(&gateway, &client, &changes).await;
    assert!(location.starts_with(&format!("{}?", provider.authorization_url())));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", SHARED_ID),
        ("redirect_uri", &gateway.url("/callback")),
        ("scope", "mcp:read mcp:write"),
        ("code_challenge", &s256(VERIFIER)),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&location, name).as_deref(), Some(value), "{name}");
    }
    let mut found = names(&location);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "client_id",
            "code_challenge",
            "code_challenge_method",
            "redirect_uri",
            "response_type",
            "scope",
            "state"
        ]
    );
    let state = parameter(&location, "state").expect("a state");
    assert!(state.len() == 43 && state.is_ascii(), "{state}");
    assert!(!location.contains(STATE) && !location.contains(&client.id));
    let again = asked(&gateway, &client, &changes).await;
    assert_ne!(parameter(&again, "state"), Some(state));
    // The client's scopes are its own wish.
    let location = asked(&gateway, &client, &[("scope", "one two")]).await;
    assert_eq!(parameter(&location, "scope").as_deref(), Some("one two"));
}

#[tokio::test]
async fn providers_that_limit_the_state_take_ours() {
    let provider = Provider::start().await;
    provider.set(|modes| modes.state_limit = Some(64));
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    let client = Registered::at(&gateway, "/one").await;
    let browser = Browser::new();
    let long = "s".repeat(1500);
    let to = browser
        .open(&client.authorize_url(&gateway, &[("state", &long)]))
        .await;
    let back = browser.open(to.header("location")).await;
    let end = browser.open(back.header("location")).await;
    assert_eq!(parameter(end.header("location"), "state"), Some(long));
    // One that fits in no cookie is refused before anybody is asked.
    let seen = provider.requests().len();
    let too_long = "s".repeat(4000);
    let to = browser
        .open(&client.authorize_url(&gateway, &[("state", &too_long)]))
        .await;
    assert_eq!(
        parameter(to.header("location"), "error").as_deref(),
        Some("invalid_request")
    );
    assert_eq!(provider.requests().len(), seen);
}

#[tokio::test]
async fn the_query_of_the_configured_url_is_kept_and_takes_over_nothing() {
    let provider = Provider::start().await;
    provider.add_client(SHARED_ID, None);
    let fields = format!(
        "url: http://127.0.0.1:9/mcp\nauth_type: oauth2\nclient_id: {SHARED_ID}\nconsent: never\n\
         authorization_url: '{}?audience=api%20x&prompt=consent&scope=fixed&state=evil&redirect_uri=https://evil.example'\n\
         token_url: {}",
        provider.authorization_url(),
        provider.token_url(),
    );
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let location = asked(&gateway, &placeholder(REDIRECT), &[("scope", "mine")]).await;
    for (name, value) in [
        ("audience", "api x"),
        ("prompt", "consent"),
        ("scope", "fixed"),
        ("redirect_uri", &gateway.url("/callback")),
    ] {
        assert_eq!(parameter(&location, name).as_deref(), Some(value), "{location}");
    }
    assert_eq!(location.matches('?').count(), 1);
    let mut found = names(&location);
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), count, "{location}");
    assert!(!location.contains("evil"), "{location}");
}

#[tokio::test]
async fn scopes_are_learned_from_the_server_unless_configured_or_asked_for() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let servers = registering("one", &upstream, "") + &registering("two", &upstream, "scopes: [mine]");
    let gateway = TestGateway::with_servers(&servers).await;
    for (path, changes, expected) in [
        ("/one", &[][..], "mcp:read mcp:write"),
        ("/two", &[], "mine"),
        ("/two", &[("scope", "theirs")], "theirs"),
    ] {
        let client = Registered::at(&gateway, path).await;
        let location = asked(&gateway, &client, changes).await;
        assert_eq!(parameter(&location, "scope").as_deref(), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn resource_goes_along_as_configured_and_is_never_the_gateways_own() {
    let provider = Provider::start().await;
    let upstream: Upstream = provider.upstream().await;
    let own = "https://api.example/mcp";
    let learned = upstream.url();
    for (more, expected) in [
        ("", Some(learned.as_str())),
        ("send_resource: auto", Some(&learned)),
        ("send_resource: always", Some(&learned)),
        ("send_resource: never", None),
        ("resource: https://api.example/mcp", Some(own)),
        (
            "send_resource: always\nresource: https://api.example/mcp",
            Some(own),
        ),
        ("send_resource: never\nresource: https://api.example/mcp", None),
        ("resource: auto", Some(&learned)),
    ] {
        let gateway = TestGateway::with_servers(&registering("one", &upstream, more)).await;
        let client = Registered::at(&gateway, "/one").await;
        let browser = Browser::new();
        let url = client.authorize_url(&gateway, &[("resource", &gateway.url("/one/mcp"))]);
        let to = browser.open(&url).await;
        assert_eq!(
            parameter(to.header("location"), "resource").as_deref(),
            expected,
            "{more}"
        );
        // The same value at the token endpoint, for the code and for the refresh.
        let back = browser.open(to.header("location")).await;
        let end = browser.open(back.header("location")).await;
        let code = parameter(end.header("location"), "code").expect("a code");
        let own_url = gateway.url("/one/mcp");
        let tokens = got(client.exchange(&gateway, &code, &[("resource", &own_url)])).await;
        assert_eq!(tokens.status, 200, "{tokens:?}");
        let refresh = tokens.body["refresh_token"].as_str().expect("a token");
        assert_eq!(got(client.refresh(&gateway, refresh)).await.status, 200);
        let requests = provider.requests_to("/token");
        for request in &requests[requests.len() - 2..] {
            assert_eq!(request.form_value("resource").as_deref(), expected, "{more}");
        }
        provider.assert_never_seen(&own_url.replace(':', "%3A").replace('/', "%2F"));
    }
    // A configured client whose server says nothing of itself: nothing is made up, unless it always has to be there.
    for (more, expected) in [
        ("", None),
        ("send_resource: always", Some("http://127.0.0.1:9/mcp")),
    ] {
        let gateway = shared_gateway(&provider, more, &[]).await;
        let client = placeholder(REDIRECT);
        let location = asked(&gateway, &client, &[]).await;
        assert_eq!(parameter(&location, "resource").as_deref(), expected, "{more}");
    }
}

#[tokio::test]
async fn providers_that_refuse_resource_and_those_that_demand_it() {
    for (rule, more) in [
        (ResourceRule::Refused, "send_resource: never"),
        (ResourceRule::Demanded, ""),
        (ResourceRule::Demanded, "send_resource: always"),
    ] {
        let provider = Provider::start().await;
        provider.set(|modes| modes.resource = rule);
        let upstream = provider.upstream().await;
        let gateway = TestGateway::with_servers(&registering("one", &upstream, more)).await;
        let client = Registered::at(&gateway, "/one").await;
        let tokens = client.tokens(&gateway).await;
        let refresh = tokens["refresh_token"].as_str().expect("a token");
        assert_eq!(got(client.refresh(&gateway, refresh)).await.status, 200, "{more}");
        let access = provider.tokens().pop().expect("a token");
        let call = gateway.post("/one/mcp", &echo("hi")).bearer_auth(access);
        assert_eq!(got(call).await.status, 200);
    }
}

#[tokio::test]
async fn pkce_is_required_unless_a_server_opts_out() {
    let provider = Provider::start().await;
    let gateway = shared_gateway(&provider, "require_pkce: false", &[]).await;
    let client = Registered::at(&gateway, "/one").await;
    let none = [("code_challenge", ""), ("code_challenge_method", "")];
    let location = asked(&gateway, &client, &none).await;
    assert_eq!(parameter(&location, "code_challenge"), None);
    assert_eq!(parameter(&location, "code_challenge_method"), None);
    // What is sent has to be right all the same.
    let wrong = [("code_challenge_method", "plain")];
    assert_eq!(
        error_at_client(&gateway, &client, &wrong).await,
        "invalid_request"
    );
    let half = [("code_challenge", "")];
    assert_eq!(error_at_client(&gateway, &client, &half).await, "invalid_request");

    let browser = Browser::new();
    let to = browser.open(&client.authorize_url(&gateway, &none)).await;
    let back = browser.open(to.header("location")).await;
    let end = browser.open(back.header("location")).await;
    let code = parameter(end.header("location"), "code").expect("a code");
    let tokens = got(client.exchange(&gateway, &code, &[("code_verifier", "")])).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
}

#[tokio::test]
async fn litellms_management_route_is_the_same_endpoint() {
    let provider = Provider::start().await;
    let more = "consent: never\nserver_id: 0123-abc\nalias: eins";
    let gateway = TestGateway::with_servers(&shared("one", &provider, more)).await;
    let mut client = Registered::at(&gateway, "/one").await;
    for path in ["0123-abc", "one", "eins"] {
        client.path = format!("/v1/mcp/server/oauth/{path}");
        let browser = Browser::with_key(KEY);
        let back = client.sign_in(&gateway, &browser).await;
        assert_eq!(
            parameter(back.header("location"), "iss"),
            Some(gateway.url("/one")),
            "{path}"
        );
        let code = parameter(back.header("location"), "code").expect("a code");
        let tokens = got(client
            .exchange(&gateway, &code, &[])
            .header("x-litellm-api-key", KEY))
        .await;
        assert_eq!(tokens.status, 200, "{path}: {tokens:?}");
    }
    // LiteLLM's page signs in with the server's id as client id, from the gateway's own origin.
    let own = gateway.url("/ui/mcp/oauth/callback");
    let page = Registered {
        path: "/v1/mcp/server/oauth/0123-abc".into(),
        id: "0123-abc".into(),
        secret: None,
        redirect_uri: own.clone(),
    };
    let code = page.code(&gateway, &Browser::with_key(KEY)).await;
    let (status, tokens) = crate::harness::answer(
        page.exchange(&gateway, &code, &[])
            .header("x-litellm-api-key", KEY),
    )
    .await;
    assert_eq!(status, 200, "{tokens}");
    provider.assert_never_seen(KEY);
}

#[tokio::test]
async fn the_way_by_id_takes_the_session_of_the_console() {
    let provider = Provider::start().await;
    let more = "consent: never\nserver_id: 0123-abc";
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "bob", "member").await;
    let only = r#"{"object_permission":{"mcp_servers":["two"]}}"#;
    let bobs = put_key(&store, "bobs", Some("bob"), only).await;
    let servers = shared("one", &provider, more) + &shared("two", &provider, "");
    let gateway = place.start(keyed(&servers)).start().await;
    let mut client = Registered::at(&gateway, "/one").await;
    client.path = "/v1/mcp/server/oauth/0123-abc".into();
    let url = client.authorize_url(&gateway, &[]);
    let nobody = Person::at(&gateway);
    assert_eq!(nobody.browser.open(&url).await.code(), "missing_key", "a script");
    let page = [("accept", "text/html")];
    let to = nobody.browser.open_with(&url, &page).await;
    let next = encoded(&[("next", url.strip_prefix(&nobody.origin).expect("ours"))]);
    assert_eq!(
        (to.status, to.header("location")),
        (303, format!("/ui/login?{next}").as_str())
    );
    let bob = Person::signed_in(&gateway, &bobs, "").await;
    let refused = bob.browser.open_with(&url, &page).await;
    assert_eq!((refused.status, refused.code()), (403, "server_not_allowed"));
    assert!(provider.requests_to("/authorize").is_empty());

    let operator = Person::operator(&gateway).await;
    let code = client.code(&gateway, &operator.browser).await;
    // What is no page takes no session.
    let token = gateway.url(&format!("{}/token", client.path));
    let form = [("grant_type", "authorization_code"), ("code", code.as_str())];
    let origin = [("origin", operator.origin.as_str())];
    let refused = operator.browser.submit(&token, &form, &origin).await;
    assert_eq!((refused.status, refused.code()), (401, "missing_key"));
    let tokens = client.exchange(&gateway, &code, &[]);
    assert_eq!(got(tokens.header("x-litellm-api-key", KEY)).await.status, 200);
    // Nor does a form of another page's.
    let refused = operator
        .browser
        .submit(
            &url,
            &[("decision", "approve")],
            &[("origin", "https://evil.example")],
        )
        .await;
    assert_eq!((refused.status, refused.code()), (403, "foreign_form"));
}

#[tokio::test]
async fn a_provider_that_cannot_be_found_is_told_to_the_client() {
    let upstream = Upstream::start().await;
    upstream.accept("nobody-has-this");
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "client_id: x")).await;
    let got = got(gateway
        .http
        .get(placeholder(&gateway.url("/ui")).authorize_url(&gateway, &[])))
    .await;
    let location = got.header("location");
    assert_eq!(got.status, 302);
    assert_eq!(
        parameter(location, "error").as_deref(),
        Some("temporarily_unavailable")
    );
    let said = parameter(location, "error_description").expect("a description");
    assert!(
        said.contains("authorization_url") && said.contains("'one'"),
        "{said}"
    );
    assert!(!said.contains(&upstream.addr().port().to_string()), "{said}");
    let log = logged();
    let tried = format!("{}/.well-known/oauth-authorization-server", upstream.base());
    assert!(log.contains(&tried), "the log lists what was tried");
}

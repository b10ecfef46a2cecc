//! Registration (RFC 7591): what clients send and get, what goes to the provider for them, and what an id outlives.

use crate::browser::{Browser, REDIRECT, Registered, metadata, parameter, register, registering, shared};
use crate::by_hand::{ask, head};
use crate::harness::{KEY, Start, TestGateway, answer, assert_nothing_secret_logged, got, keyed, logged};
use crate::postgres::Postgres;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use vestibule_store::{DatabaseUrl, MasterKeys};
use vestibule_testkit::{Provider, Upstream};

async fn provider_and_gateway() -> (Provider, Upstream, TestGateway) {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    (provider, upstream, gateway)
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[tokio::test]
async fn recorded_registrations_register_as_they_are() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let servers = registering("one", &upstream, "") + &shared("two", &provider, "");
    let plain = Start::new(keyed(&servers)).start().await;
    let trusting = Start::new(keyed(&servers))
        .environment("MCP_TRUSTED_REDIRECT_ORIGINS", "claude.ai,chatgpt.com")
        .start()
        .await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oauth/tests/fixtures/registrations");
    let mut seen = 0;
    for (name, kept, hosted) in [
        (
            "chatgpt",
            &["https://chatgpt.com/connector_platform_oauth_redirect"][..],
            true,
        ),
        ("claude-ai", &["https://claude.ai/api/mcp/auth_callback"], true),
        ("claude-code", &["http://localhost:3118/callback"], false),
        ("codex", &["http://127.0.0.1:53021/callback"], false),
        (
            "cursor",
            &[
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "http://localhost:8787/callback",
            ],
            false,
        ),
        ("goose", &["http://localhost:51234/oauth_callback"], false),
        ("inspector", &["http://localhost:6274/oauth/callback"], false),
        ("mcp-remote", &["http://localhost:14232/oauth/callback"], false),
        ("vscode", &["http://127.0.0.1/", "http://127.0.0.1:33418/"], false),
        ("zed", &["http://127.0.0.1:49321/callback"], false),
    ] {
        let body = std::fs::read_to_string(directory.join(format!("{name}.json"))).expect("a fixture");
        let sent: Value = serde_json::from_str(&body).expect("JSON");
        for (gateway, path, trusted) in [
            (&plain, "/one", false),
            (&plain, "/two", false),
            (&trusting, "/one", true),
            (&trusting, "/mcp/two", true),
        ] {
            let request = gateway.http.post(gateway.url(&format!("{path}/register")));
            let request = request
                .header("content-type", "application/json")
                .body(body.clone());
            let got = got(request).await;
            if hosted && !trusted {
                let description = got.body["error_description"].as_str().expect("a description");
                assert_eq!(
                    (got.status, &got.body["error"]),
                    (400, &json!("invalid_redirect_uri")),
                    "{name}"
                );
                assert!(
                    description.contains("MCP_TRUSTED_REDIRECT_ORIGINS"),
                    "{description}"
                );
                continue;
            }
            assert_eq!(got.status, 201, "{name}: {got:?}");
            assert_eq!(got.header("cache-control"), "no-store");
            assert_eq!(texts(&got.body["redirect_uris"]), kept, "{name}");
            assert_eq!(got.body["client_name"], sent["client_name"], "{name}");
            assert_eq!(
                got.body["token_endpoint_auth_method"], sent["token_endpoint_auth_method"],
                "{name}"
            );
            let with_secret = sent["token_endpoint_auth_method"] != "none";
            assert_eq!(got.body["client_secret"].is_string(), with_secret, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8 * 4 + 2 * 2);
    assert_eq!(
        std::fs::read_dir(directory).expect("fixtures").count(),
        10,
        "every fixture has a line above"
    );
}

#[tokio::test]
async fn the_provider_gets_the_callback_and_the_name_and_nothing_of_the_gateways() {
    let (provider, upstream, gateway) = provider_and_gateway().await;
    let mut body = metadata(&[REDIRECT, "http://localhost:6274/x"]);
    for (name, value) in [
        ("client_uri", "https://client.example"),
        ("logo_uri", "https://client.example/logo.png"),
        ("software_id", "soft"),
        ("software_version", "1.2"),
        ("scope", "mcp:read offline_access"),
        ("jwks_uri", "https://client.example/jwks"),
    ] {
        body[name] = json!(value);
    }
    let request = gateway
        .http
        .post(gateway.url("/one/register"))
        .header("x-litellm-api-key", format!("Bearer {KEY}"))
        .bearer_auth(KEY)
        .header("cookie", "canary-cookie=1")
        .json(&body);
    let got = got(request).await;
    assert_eq!(got.status, 201, "{got:?}");
    assert_eq!(
        texts(&got.body["redirect_uris"]),
        [REDIRECT, "http://localhost:6274/x"]
    );
    let [sent] = &provider.requests_to("/register")[..] else {
        panic!("one registration")
    };
    let expected = json!({
        "redirect_uris": [gateway.url("/callback")],
        "client_name": "Claude Code (one)",
        "client_uri": "https://client.example",
        "logo_uri": "https://client.example/logo.png",
        "software_id": "soft",
        "software_version": "1.2",
        "scope": "mcp:read offline_access",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    });
    assert_eq!(sent.json(), expected);
    // Neither the key nor the client's own addresses, and the client gets neither id nor secret of ours there.
    for peer in [&*provider, &*upstream] {
        for canary in [KEY, "60108", "6274", "canary-cookie", "jwks"] {
            peer.assert_never_seen(canary);
        }
    }
    assert!(!got.body.to_string().contains("registered-"), "{}", got.body);
}

#[tokio::test]
async fn equal_metadata_is_one_registration_however_often_it_comes() {
    let (provider, _upstream, gateway) = provider_and_gateway().await;
    let ask = async |body: Value, path: &str| {
        let got = register(&gateway, path, &body).await;
        assert_eq!(got.status, 201, "{got:?}");
        got.body["client_id"].as_str().expect("an id").to_owned()
    };
    let first = metadata(&[REDIRECT]);
    let many = (0..20).map(|_| ask(first.clone(), "/one"));
    let ids = futures_util::future::join_all(many).await;
    assert_eq!(provider.clients(), 1);
    // Another port, another spelling of the server: the same kind of client.
    ask(metadata(&["http://127.0.0.1:5555/callback"]), "/mcp/one").await;
    let client = Registered::at(&gateway, "/one").await;
    client.tokens(&gateway).await;
    assert_eq!(provider.requests_to("/register").len(), 1);
    assert!(ids.iter().all(|id| !id.is_empty()));
    // Another name is another client.
    let mut other = first;
    other["client_name"] = json!("Cursor");
    ask(other, "/one").await;
    assert_eq!(provider.requests_to("/register").len(), 2);
}

#[tokio::test]
async fn two_gateways_on_one_database_register_once_and_finish_each_others_sign_ins() {
    let database = Postgres::new().await;
    let keys = KeyFile::new();
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    // Behind one name, as replicas are; the browser reaches either of them.
    let base = "http://localhost:4000";
    let start = || {
        keys.on(Start::new(keyed(&registering("one", &upstream, ""))))
            .environment("PROXY_BASE_URL", base)
            .database(database.url())
            .start()
    };
    let (one, two) = (start().await, start().await);
    let ask = async |gateway: &TestGateway| {
        let got = register(gateway, "/one", &metadata(&[REDIRECT])).await;
        assert_eq!(got.status, 201, "{got:?}");
    };
    let both = [&one, &two];
    futures_util::future::join_all((0..20).map(|at| ask(both[at % 2]))).await;
    assert_eq!(provider.requests_to("/register").len(), 1);

    // Authorize on the one, callback on the other, token on the first again.
    let client = Registered::at(&two, "/one").await;
    let browser = Browser::new();
    let away = browser.open(&client.authorize_url(&one, &[])).await;
    let back = browser.open(away.header("location")).await;
    let location = back.header("location");
    assert!(location.starts_with(&format!("{base}/callback?")), "{location}");
    let done = browser.open(&two.url(&location[base.len()..])).await;
    let code = parameter(done.header("location"), "code").expect("a code");
    let (status, tokens) = answer(client.exchange(&one, &code, &[])).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(provider.requests_to("/register").len(), 1);
    drop((one, two));
    database.remove().await;
}

/// Master keys in a file, as replicas and restarts share them.
struct KeyFile(tempfile::TempDir);

impl KeyFile {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().expect("a directory"));
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(Path::new(&directory.path())).expect("written");
        directory
    }

    fn path(&self) -> String {
        self.0.path().join("keys").display().to_string()
    }

    fn on(&self, start: Start) -> Start {
        start.environment("VESTIBULE_MASTER_KEY_FILE", &self.path())
    }

    /// A new key that seals; the old one still opens.
    fn rotate(&self) {
        let environment = HashMap::from([("VESTIBULE_MASTER_KEY_FILE".to_owned(), self.path())]);
        let database = DatabaseUrl::parse("sqlite::memory:").expect("a database");
        let keys = MasterKeys::load(&environment, &database).expect("keys");
        keys.rotate().expect("rotated");
    }
}

#[tokio::test]
async fn an_id_outlives_a_restart_an_empty_database_and_a_rotated_key() {
    let keys = KeyFile::new();
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let text = keyed(&registering("one", &upstream, ""));
    let mut first = keys.on(Start::new(&*text)).start().await;
    let mut confidential = metadata(&[REDIRECT]);
    confidential["token_endpoint_auth_method"] = json!("client_secret_post");
    let clients = [
        Registered::at(&first, "/one").await,
        Registered::with(&first, "/one", &confidential).await,
    ];
    assert!(clients[1].secret.is_some());
    assert!(first.stop().await.expect("stopped"));
    for round in 0..2 {
        keys.rotate();
        let gateway = keys.on(Start::new(&*text)).start().await;
        for client in &clients {
            let tokens = client.tokens(&gateway).await;
            assert!(tokens["access_token"].is_string(), "{round}: {tokens}");
        }
    }
    // With other keys it is nobody's.
    let stranger = Start::new(&*text).start().await;
    let page = Browser::new()
        .open(&clients[0].authorize_url(&stranger, &[]))
        .await;
    assert_eq!(page.status, 400);
}

#[tokio::test]
async fn an_id_that_is_not_ours_gets_no_further() {
    let (provider, _upstream, gateway) = provider_and_gateway().await;
    let mut client = Registered::at(&gateway, "/one").await;
    let known = provider.requests().len();
    let good = client.id.clone();
    let middle = good.len() / 2;
    let swapped = if &good[middle..=middle] == "A" { "B" } else { "A" };
    let changed = format!("{}{swapped}{}", &good[..middle], &good[middle + 1..]);
    let long = "x".repeat(5000);
    for id in [
        changed.as_str(),
        &good[..good.len() - 1],
        "one",
        "dummy_client",
        "é\u{202e}<script>",
        &long,
    ] {
        id.clone_into(&mut client.id);
        let page = Browser::new().open(&client.authorize_url(&gateway, &[])).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (400, "text/html; charset=utf-8"),
            "{id}"
        );
        let text = page.body.as_str().expect("a page");
        for step in ["invalid_client", "Claude Code", "Cursor", "VS Code", "mcp-remote"] {
            assert!(text.contains(step), "{text}");
        }
        assert!(!text.contains("<script"), "{text}");
        let refused = got(client.exchange(&gateway, "code", &[])).await;
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (401, &json!("invalid_client")),
            "{id}"
        );
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"vestibule\"");
        assert_eq!(refused.header("cache-control"), "no-store");
    }
    let (status, body) = answer(client.exchange(&gateway, "code", &[("client_id", "")])).await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));
    assert_eq!(provider.requests().len(), known);
}

#[tokio::test]
async fn another_servers_id_is_nobodys_here() {
    let provider = Provider::start().await;
    let (first, second) = (provider.upstream().await, provider.upstream().await);
    let servers = registering("one", &first, "") + &registering("two", &second, "");
    let gateway = TestGateway::with_servers(&servers).await;
    let mut client = Registered::at(&gateway, "/one").await;
    let code = client.code(&gateway, &Browser::new()).await;
    "/two".clone_into(&mut client.path);
    let page = Browser::new().open(&client.authorize_url(&gateway, &[])).await;
    assert_eq!(page.status, 400);
    let (status, body) = answer(client.exchange(&gateway, &code, &[])).await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));
    assert!(provider.requests_to("/token").is_empty());
    "/mcp/one".clone_into(&mut client.path);
    assert_eq!(answer(client.exchange(&gateway, &code, &[])).await.0, 200);
}

#[tokio::test]
async fn redirect_uris_are_judged_one_by_one() {
    let provider = Provider::start().await;
    let text = keyed(&shared("one", &provider, ""));
    let gateway = Start::new(text)
        .environment(
            "MCP_TRUSTED_REDIRECT_ORIGINS",
            "app.example.com,*.tools.example.com",
        )
        .environment("MCP_TRUSTED_NATIVE_REDIRECT_URIS", "vscode://vscode.mcp/callback")
        .start()
        .await;
    let good = [
        "http://localhost:1/a",
        "http://127.9.9.9/a?b=c",
        "http://[::1]:5/",
        "https://localhost/cb",
        "https://app.example.com/cb",
        "https://a.tools.example.com/cb",
        "vscode://vscode.mcp/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        &gateway.url("/ui/mcp/oauth/callback"),
    ];
    let bad = [
        ("http://app.example.com/cb", "PROXY_BASE_URL"),
        ("https://tools.example.com/cb", "MCP_TRUSTED_REDIRECT_ORIGINS"),
        ("https://app.example.com:8443/cb", "MCP_TRUSTED_REDIRECT_ORIGINS"),
        (
            "https://app.example.com.evil.example/cb",
            "MCP_TRUSTED_REDIRECT_ORIGINS",
        ),
        (
            "https://127.0.0.1.evil.example/cb",
            "MCP_TRUSTED_REDIRECT_ORIGINS",
        ),
        ("windsurf://x/cb", "MCP_TRUSTED_NATIVE_REDIRECT_URIS"),
        ("https://user@app.example.com/cb", ""),
        ("https://app.example.com/cb#fragment", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("file:///etc/passwd", ""),
        ("/relative", ""),
    ];
    for uri in good {
        let got = register(&gateway, "/one", &metadata(&[uri])).await;
        assert_eq!(
            (got.status, texts(&got.body["redirect_uris"])),
            (201, vec![uri]),
            "{got:?}"
        );
    }
    for (uri, setting) in bad {
        let refused = register(&gateway, "/one", &metadata(&[uri])).await;
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (400, &json!("invalid_redirect_uri")),
            "{uri}"
        );
        let description = refused.body["error_description"].as_str().expect("a description");
        assert!(description.contains(setting), "{uri}: {description}");
        let named = description.contains("MCP_") || description.contains("PROXY_");
        assert_eq!(named, !setting.is_empty(), "{uri}: {description}");
        assert_eq!(refused.header("content-type"), "application/json");
        // Beside good ones it is dropped, and takes none with it.
        let mixed = metadata(&[good[0], uri, good[4]]);
        let kept = register(&gateway, "/one", &mixed).await;
        assert_eq!(
            (kept.status, texts(&kept.body["redirect_uris"])),
            (201, vec![good[0], good[4]]),
            "{uri}"
        );
    }
    let log = logged();
    assert!(
        log.contains("https://app.example.com.evil.example/cb"),
        "the operator reads what was dropped"
    );
}

#[tokio::test]
async fn bodies_that_are_no_registration() {
    let provider = Provider::start().await;
    let gateway = TestGateway::with_servers(&shared("one", &provider, "")).await;
    let post = |body: String| {
        let request = gateway.http.post(gateway.url("/one/register"));
        got(request.header("content-type", "application/json").body(body))
    };
    for (body, error) in [
        ("", "invalid_client_metadata"),
        ("{", "invalid_client_metadata"),
        ("[]", "invalid_client_metadata"),
        ("\"x\"", "invalid_client_metadata"),
        ("redirect_uris=http%3A%2F%2Flocalhost", "invalid_client_metadata"),
        ("{}", "invalid_redirect_uri"),
        (r#"{"redirect_uris":[]}"#, "invalid_redirect_uri"),
        (r#"{"redirect_uris":[1,null,""]}"#, "invalid_redirect_uri"),
        (r#"{"redirect_uris":"http://localhost/"}"#, "invalid_redirect_uri"),
    ] {
        let got = post(body.to_owned()).await;
        assert_eq!(
            (got.status, &got.body["error"], got.header("content-type")),
            (400, &json!(error), "application/json"),
            "{body}"
        );
        assert_eq!(got.header("x-request-id"), got.body["request_id"]);
    }
    // Past 64 KB nothing is read.
    let body = |length: usize| {
        let empty = r#"{"redirect_uris":["http://localhost/"],"x":""}"#;
        empty.replace("\"\"", &format!("\"{}\"", "x".repeat(length - empty.len())))
    };
    assert_eq!(post(body(64 * 1024)).await.status, 201);
    let huge = head("POST", "/one/register", "Content-Length: 65537\r\n");
    let huge = ask(&gateway, huge).await;
    assert_eq!(
        (huge.status, &huge.json()["error"]),
        (413, &json!("invalid_request"))
    );
    // An id travels in addresses: metadata that does not fit is refused, not cut.
    let long: Vec<String> = (0..60)
        .map(|port| format!("http://localhost:{}/{}", 1000 + port, "x".repeat(100)))
        .collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let got = register(&gateway, "/one", &metadata(&long)).await;
    assert_eq!(
        (got.status, &got.body["error"]),
        (400, &json!("invalid_client_metadata"))
    );
}

#[tokio::test]
async fn a_flood_is_told_to_wait_and_the_token_endpoint_is_not() {
    let provider = Provider::start().await;
    let gateway = TestGateway::with_servers(&shared("one", &provider, "")).await;
    let body = metadata(&[REDIRECT]);
    let mut taken = 0;
    let refused = loop {
        let got = register(&gateway, "/one", &body).await;
        if got.status != 201 {
            break got;
        }
        taken += 1;
        assert!(taken < 5000, "no end of registrations");
    };
    assert!(taken >= 100, "{taken}");
    assert_eq!(
        (
            refused.status,
            &refused.body["error"],
            refused.header("retry-after")
        ),
        (429, &json!("temporarily_unavailable"), "10"),
        "{refused:?}"
    );
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    assert!(refused.body["error_description"].is_string());
    for _ in 0..200 {
        let answered = got(gateway.http.post(gateway.url("/one/token"))).await;
        assert_eq!(answered.status, 401);
    }
}

#[tokio::test]
async fn what_a_provider_refuses_is_told_without_its_body() {
    let (provider, _upstream, gateway) = provider_and_gateway().await;
    let canary = "canary-internal-detail";
    for (status, body, expected, error, said) in [
        (
            400,
            json!({"error": "invalid_client_metadata", "error_description": "no logo please", "x": canary}),
            400,
            "invalid_client_metadata",
            "no logo please",
        ),
        (
            400,
            json!({"error": "invalid_redirect_uri", "x": canary}),
            502,
            "server_error",
            "invalid_redirect_uri",
        ),
        (
            403,
            json!({"error": "access_denied", "x": canary}),
            502,
            "server_error",
            "access_denied",
        ),
        (500, json!({"message": canary}), 502, "server_error", "500"),
        (401, json!(canary), 502, "server_error", "401"),
        (
            200,
            json!({"secret": canary}),
            502,
            "server_error",
            "no client information",
        ),
        (200, json!([canary]), 502, "server_error", "no client information"),
        (403, json!([canary]), 502, "server_error", "403"),
        (201, json!({"client_id": ""}), 502, "server_error", "one"),
        (302, json!({}), 502, "server_error", "302"),
    ] {
        provider.set(|modes| modes.register_answer = Some((status, body.clone())));
        let got = register(&gateway, "/one", &metadata(&[REDIRECT])).await;
        let description = got.body["error_description"].as_str().expect("a description");
        assert_eq!(
            (got.status, &got.body["error"]),
            (expected, &json!(error)),
            "{body}"
        );
        assert!(
            description.contains(said) && description.contains("one"),
            "{body}: {description}"
        );
        assert!(!got.body.to_string().contains(canary), "{got:?}");
        assert_eq!(got.body["client_id"], Value::Null);
    }
    assert!(!logged().contains(canary));
    // No failure is remembered.
    provider.set(|modes| modes.register_answer = None);
    assert_eq!(
        register(&gateway, "/one", &metadata(&[REDIRECT])).await.status,
        201
    );
}

#[tokio::test]
async fn a_provider_without_registration_needs_a_configured_client() {
    let provider = Provider::start().await;
    provider.set(|modes| modes.registration = false);
    let upstream = provider.upstream().await;
    let configured = registering(
        "two",
        &upstream,
        "client_id: by-hand\nclient_secret: canary-by-hand-secret",
    );
    provider.add_client("by-hand", Some("canary-by-hand-secret"));
    let gateway = TestGateway::with_servers(&(registering("one", &upstream, "") + &configured)).await;
    let got = register(&gateway, "/one", &metadata(&[REDIRECT])).await;
    let description = got.body["error_description"].as_str().expect("a description");
    assert_eq!((got.status, &got.body["error"]), (502, &json!("server_error")));
    assert!(
        description.contains("client_id") && description.contains("client_secret"),
        "{description}"
    );
    let client = Registered::at(&gateway, "/two").await;
    assert_ne!(client.id, "by-hand");
    let page = Browser::new().open(&client.authorize_url(&gateway, &[])).await;
    assert_eq!(page.status, 200, "the gateway asks first: {page:?}");
    assert_nothing_secret_logged(&["canary-by-hand-secret"]);
}

#[tokio::test]
async fn a_provider_that_forgot_us_is_registered_with_once_more() {
    let (provider, _upstream, gateway) = provider_and_gateway().await;
    let client = Registered::at(&gateway, "/one").await;
    let tokens = client.tokens(&gateway).await;
    provider.forget_clients();
    let refresh = tokens["refresh_token"].as_str().expect("a refresh token");
    let (status, body) = answer(client.refresh(&gateway, refresh)).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")), "{body}");
    assert_eq!(provider.requests_to("/register").len(), 1);
    client.tokens(&gateway).await;
    client.tokens(&gateway).await;
    assert_eq!(provider.requests_to("/register").len(), 2);
}

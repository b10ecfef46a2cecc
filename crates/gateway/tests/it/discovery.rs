//! What clients read before they sign in: every spelling of every document, the challenge that leads there, and
//! what the gateway is called in them.

use crate::browser::{REDIRECT, metadata, parameter, register};
use crate::harness::{KEY, Start, TestGateway, echo, entry, got, keyed, machine};
use reqwest::Method;
use serde_json::{Value, json};

const DOORS: [&str; 4] = ["/one/mcp", "/one/mcp/", "/mcp/one", "/mcp/one/"];
const ISSUERS: [&str; 3] = ["/one", "/one/mcp", "/mcp/one"];
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const SERVER_DOCUMENTS: [&str; 2] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
];
/// Nobody is asked there.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A server to which people sign in; its provider is never asked for what is read here.
fn interactive(name: &str, more: &str) -> String {
    let fields = format!(
        "url: {NOWHERE}/mcp\nauth_type: oauth2\nclient_id: shared\nauthorization_url: {NOWHERE}/authorize\n\
         token_url: {NOWHERE}/token\n{more}"
    );
    entry(name, &fields)
}

async fn gateway() -> TestGateway {
    let servers = interactive("one", "alias: eins\nscopes: ['mcp:read', 'mcp:write']");
    TestGateway::with_servers(&servers).await
}

/// Gets a document as anybody does: status 200, JSON, no cookie.
async fn document(gateway: &TestGateway, path: &str) -> Value {
    let got = got(gateway.http.get(gateway.url(path))).await;
    assert_eq!(
        (got.status, got.header("content-type")),
        (200, "application/json"),
        "{path}: {got:?}"
    );
    assert_eq!(got.header("set-cookie"), "", "{path}");
    assert_eq!(got.header("access-control-allow-origin"), "*", "{path}");
    got.body
}

#[tokio::test]
async fn protected_resource_metadata_is_about_the_url_that_was_used() {
    let gateway = gateway().await;
    let alias = ["/eins/mcp", "/mcp/eins"];
    for door in DOORS.into_iter().chain(alias) {
        let inserted = document(&gateway, &format!("{RESOURCE}{door}")).await;
        assert_eq!(inserted["resource"], gateway.url(door), "{door}");
        assert_eq!(
            inserted["authorization_servers"],
            json!([gateway.url("/one")]),
            "{door}"
        );
        assert_eq!(
            inserted["scopes_supported"],
            json!(["mcp:read", "mcp:write"]),
            "{door}"
        );
        assert_eq!(inserted["bearer_methods_supported"], json!(["header"]), "{door}");
        let appended = document(&gateway, &format!("{}{RESOURCE}", door.trim_end_matches('/'))).await;
        assert_eq!(appended["resource"], gateway.url(door.trim_end_matches('/')));
        if !door.ends_with('/') {
            assert_eq!(appended, inserted, "{door}");
        }
    }
    let root = document(&gateway, RESOURCE).await;
    assert_eq!(root, document(&gateway, &format!("{RESOURCE}/one/mcp")).await);
}

#[tokio::test]
async fn the_issuer_is_the_identifier_that_the_url_was_built_from() {
    let gateway = gateway().await;
    for identifier in ISSUERS.into_iter().chain(["", "/eins"]) {
        let issuer = gateway.url(identifier);
        let mut all = Vec::new();
        for name in SERVER_DOCUMENTS {
            all.push(document(&gateway, &format!("{name}{identifier}")).await);
            all.push(document(&gateway, &format!("{identifier}{name}")).await);
        }
        let first = all.remove(0);
        assert_eq!(first["issuer"], issuer);
        for (member, endpoint) in [
            ("authorization_endpoint", "authorize"),
            ("token_endpoint", "token"),
            ("registration_endpoint", "register"),
        ] {
            assert_eq!(first[member], format!("{issuer}/{endpoint}"), "{identifier}");
        }
        assert_eq!(first["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(first["authorization_response_iss_parameter_supported"], true);
        for other in all {
            assert_eq!(other, first, "{identifier}");
        }
    }
}

#[tokio::test]
async fn what_the_documents_name_is_there_and_answers_as_that_issuer() {
    let gateway = gateway().await;
    for identifier in ISSUERS.into_iter().chain([""]) {
        let server = document(&gateway, &format!("{}{identifier}", SERVER_DOCUMENTS[0])).await;
        let endpoint = |name: &str| server[name].as_str().expect("an endpoint").to_owned();
        let registered = got(gateway
            .http
            .post(endpoint("registration_endpoint"))
            .json(&metadata(&[REDIRECT])))
        .await;
        assert_eq!(registered.status, 201, "{registered:?}");
        let id = registered.body["client_id"].as_str().expect("an id");
        let query = crate::browser::encoded(&[
            ("client_id", id),
            ("redirect_uri", REDIRECT),
            ("response_type", "token"),
        ]);
        let url = format!("{}?{query}", endpoint("authorization_endpoint"));
        let refused = got(gateway.http.get(url)).await;
        assert_eq!(refused.status, 302, "{refused:?}");
        let location = refused.header("location");
        assert_eq!(
            parameter(location, "error").as_deref(),
            Some("unsupported_response_type")
        );
        assert_eq!(parameter(location, "iss").as_deref(), server["issuer"].as_str());
        let token = got(gateway.http.post(endpoint("token_endpoint"))).await;
        assert_eq!(
            (token.status, &token.body["error"]),
            (401, &json!("invalid_client"))
        );
    }
}

/// An answer without what differs from request to request.
fn without_id(mut body: Value) -> Value {
    let id = body["error"]["request_id"].take();
    assert_eq!(id.as_str().map(str::len), Some(16), "{body}");
    body
}

#[tokio::test]
async fn servers_that_are_not_there_and_servers_without_sign_in_are_one_404() {
    let servers = [
        interactive("one", ""),
        machine(
            "robot",
            &format!("{NOWHERE}/mcp"),
            &format!("{NOWHERE}/token"),
            "",
        ),
        entry("open", &format!("url: {NOWHERE}/mcp")),
        entry(
            "static",
            &format!("url: {NOWHERE}/mcp\nauth_type: api_key\nauthentication_token: x"),
        ),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    let mut bodies = Vec::new();
    for name in ["nobody", "robot", "open", "static", "One", "o%6ee", "one,robot"] {
        let mut requests = vec![
            (Method::GET, format!("/{name}/authorize?redirect_uri={REDIRECT}")),
            (Method::POST, format!("/{name}/token")),
            (Method::POST, format!("/{name}/register")),
            (
                Method::GET,
                format!("/v1/mcp/server/oauth/{name}/authorize?redirect_uri={REDIRECT}"),
            ),
            (Method::POST, format!("/v1/mcp/server/oauth/{name}/token")),
        ];
        if !name.contains(',') {
            requests.push((Method::GET, format!("{RESOURCE}/{name}/mcp")));
            requests.push((Method::GET, format!("{RESOURCE}/mcp/{name}/")));
            requests.push((Method::GET, format!("/{name}/mcp{RESOURCE}")));
        }
        for document in SERVER_DOCUMENTS {
            requests.push((Method::GET, format!("{document}/{name}")));
            requests.push((Method::GET, format!("/{name}{document}")));
        }
        for (method, path) in requests {
            let mut request = gateway.http.request(method, gateway.url(&path));
            if path.starts_with("/v1/") {
                request = request.header("x-litellm-api-key", KEY);
            }
            let got = got(request).await;
            assert_eq!(
                (got.status, got.header("content-type"), got.code()),
                (404, "application/json", "no_sign_in"),
                "{path}"
            );
            bodies.push(without_id(got.body));
        }
    }
    for body in &bodies {
        assert_eq!(body, &bodies[0]);
    }
}

#[tokio::test]
async fn the_root_speaks_for_one_server_and_for_no_two() {
    let gateway = TestGateway::with_servers(&(interactive("first", "") + &interactive("second", ""))).await;
    for path in [
        RESOURCE,
        SERVER_DOCUMENTS[0],
        SERVER_DOCUMENTS[1],
        "/authorize",
        "/.well-known/oauth-protected-resource/",
    ] {
        let got = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!((got.status, got.code()), (404, "no_sign_in"), "{path}");
    }
    let got = register(&gateway, "", &metadata(&[REDIRECT])).await;
    assert_eq!((got.status, got.code()), (404, "no_sign_in"));
    // Each document is about its own server.
    for (name, other) in [("first", "second"), ("second", "first")] {
        for path in [
            format!("{RESOURCE}/{name}/mcp"),
            format!("{}/{name}", SERVER_DOCUMENTS[0]),
        ] {
            let document = document(&gateway, &path).await.to_string();
            assert!(
                document.contains(&format!("/{name}")) && !document.contains(other),
                "{document}"
            );
        }
    }
}

#[tokio::test]
async fn no_credential_and_no_cookie_changes_what_is_public() {
    let gateway = gateway().await;
    let paths = [
        format!("{RESOURCE}/one/mcp"),
        format!("{RESOURCE}/mcp/one/"),
        RESOURCE.to_owned(),
        format!("{}/one", SERVER_DOCUMENTS[0]),
        format!("/one{}", SERVER_DOCUMENTS[1]),
        format!("{RESOURCE}/nobody/mcp"),
        format!("{RESOURCE}/nobody"),
        format!("{RESOURCE}/mcp"),
        format!("{}/nobody", SERVER_DOCUMENTS[0]),
        format!("{}/a/b/c", SERVER_DOCUMENTS[0]),
    ];
    for path in &paths {
        let plain = got(gateway.http.get(gateway.url(path))).await;
        let expected = if path.contains("nobody")
            || path.contains("/a/")
            || path.ends_with("/mcp") && !path.contains("one")
        {
            404
        } else {
            200
        };
        assert_eq!(plain.status, expected, "{path}");
        for (name, value) in [
            ("x-litellm-api-key", KEY),
            ("x-litellm-api-key", "sk-wrong"),
            ("authorization", "Bearer sk-wrong"),
            ("authorization", "Basic eDp5"),
            ("cookie", "token=x; vestibule_browser=y; vestibule_consents=z"),
            ("origin", "https://inspector.example"),
            ("origin", "null"),
        ] {
            let other = got(gateway.http.get(gateway.url(path)).header(name, value)).await;
            assert_eq!(
                (other.status, other.header("content-type")),
                (plain.status, "application/json"),
                "{path} {name}: {value}"
            );
            assert_eq!(
                other.header("access-control-allow-origin"),
                "*",
                "{path} {name}: {value}"
            );
            assert_eq!(other.header("access-control-allow-credentials"), "", "{path}");
            assert_eq!(other.header("set-cookie"), "", "{path}");
            if plain.status == 200 {
                assert_eq!(other.body, plain.body, "{path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn pages_of_any_origin_may_ask() {
    let gateway = gateway().await;
    for (path, wanted) in [
        (format!("{RESOURCE}/one/mcp"), "GET"),
        (format!("{RESOURCE}/nobody/mcp"), "GET"),
        (format!("{RESOURCE}/one"), "GET"),
        (SERVER_DOCUMENTS[0].to_owned(), "GET"),
        (format!("{}/one", SERVER_DOCUMENTS[1]), "GET"),
        ("/one/register".to_owned(), "POST"),
        ("/one/token".to_owned(), "POST"),
        ("/mcp/one/token".to_owned(), "POST"),
    ] {
        let preflight = gateway
            .http
            .request(Method::OPTIONS, gateway.url(&path))
            .header("origin", "https://inspector.example")
            .header("access-control-request-method", wanted)
            .header(
                "access-control-request-headers",
                "authorization, content-type, mcp-protocol-version",
            );
        let got = got(preflight).await;
        assert_eq!(
            (got.status, got.header("access-control-allow-origin")),
            (204, "*"),
            "{path}: {got:?}"
        );
        assert!(
            got.header("access-control-allow-methods").contains(wanted),
            "{path}"
        );
        let headers = got.header("access-control-allow-headers");
        for name in ["authorization", "content-type", "mcp-protocol-version"] {
            assert!(headers.contains(name), "{path}: {headers}");
        }
        assert_eq!(got.header("access-control-allow-credentials"), "", "{path}");
    }
    let origin = "https://inspector.example";
    for (path, body, status) in [
        ("/one/register", metadata(&[REDIRECT]), 201),
        ("/one/register", json!([]), 400),
        ("/one/token", json!({}), 401),
    ] {
        let request = gateway
            .http
            .post(gateway.url(path))
            .header("origin", origin)
            .json(&body);
        let got = got(request).await;
        assert_eq!(
            (got.status, got.header("access-control-allow-origin")),
            (status, "*"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_405_in_json() {
    let gateway = gateway().await;
    for (path, wrong, allowed) in [
        (format!("{RESOURCE}/one/mcp"), Method::POST, "GET, HEAD, OPTIONS"),
        (
            format!("{}/one", SERVER_DOCUMENTS[0]),
            Method::DELETE,
            "GET, HEAD, OPTIONS",
        ),
        ("/one/register".to_owned(), Method::GET, "POST, OPTIONS"),
        ("/one/token".to_owned(), Method::GET, "POST, OPTIONS"),
        ("/one/authorize".to_owned(), Method::PUT, "GET, POST"),
        ("/callback".to_owned(), Method::POST, "GET"),
    ] {
        let got = got(gateway.http.request(wrong, gateway.url(&path))).await;
        assert_eq!(
            (got.status, got.header("allow"), got.code()),
            (405, allowed, "method_not_allowed"),
            "{path}"
        );
    }
    let head = gateway.http.head(gateway.url(&format!("{RESOURCE}/one/mcp")));
    let head = got(head).await;
    assert_eq!((head.status, head.body), (200, json!("")));
}

/// The address of the metadata in a challenge, and the challenge.
fn challenged(got: &crate::harness::Got) -> (String, String) {
    let challenge = got.header("www-authenticate").to_owned();
    let rest = challenge.strip_prefix("Bearer ").expect("a Bearer challenge");
    let link = rest.split("resource_metadata=\"").nth(1).expect("a link");
    (
        link.split('"').next().expect("an end").to_owned(),
        challenge.clone(),
    )
}

#[tokio::test]
async fn a_call_without_a_sign_in_is_told_where_in_its_own_spelling() {
    let gateway = gateway().await;
    for door in DOORS.into_iter().chain(["/eins/mcp", "/mcp/eins"]) {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let mut request = gateway
                .http
                .request(method.clone(), gateway.url(door))
                .header("x-litellm-api-key", KEY)
                .header("accept", "application/json, text/event-stream");
            if method == Method::POST {
                request = request.json(&echo("x"));
            }
            let refused = got(request).await;
            assert_eq!(
                (refused.status, refused.code()),
                (401, "sign_in_required"),
                "{method} {door}"
            );
            let (link, challenge) = challenged(&refused);
            assert!(
                challenge.contains("scope=\"mcp:read mcp:write\"") && !challenge.contains("error="),
                "{challenge}"
            );
            let document = got(gateway.http.get(&link)).await;
            assert_eq!(
                (document.status, &document.body["resource"]),
                (200, &json!(gateway.url(door))),
                "{method} {door}: {link}"
            );
        }
    }
    // Without configured scopes none are named.
    let gateway = TestGateway::with_servers(&interactive("one", "")).await;
    let refused = got(gateway.post("/one/mcp", &echo("x"))).await;
    assert!(!challenged(&refused).1.contains("scope"), "{refused:?}");
    let document = document(&gateway, &format!("{RESOURCE}/one/mcp")).await;
    // Nor are there none, which an empty list would say (RFC 9728 section 3.2).
    assert_eq!(document.get("scopes_supported"), None, "{document}");
}

#[tokio::test]
async fn pages_that_may_call_can_read_the_challenge() {
    let gateway = gateway().await;
    let origin = "http://localhost:6274";
    for door in DOORS {
        let preflight = |origin: &str| {
            let request = gateway.http.request(Method::OPTIONS, gateway.url(door));
            let request = request
                .header("origin", origin)
                .header("access-control-request-method", "POST");
            request.header(
                "access-control-request-headers",
                "x-litellm-api-key, mcp-protocol-version, mcp-method, mcp-name",
            )
        };
        let allowed = got(preflight(origin)).await;
        assert_eq!(
            (allowed.status, allowed.header("access-control-allow-origin")),
            (204, origin),
            "{door}: {allowed:?}"
        );
        let headers = allowed.header("access-control-allow-headers");
        assert!(
            headers.contains("x-litellm-api-key") && headers.contains("mcp-name"),
            "{headers}"
        );
        let refused = got(preflight("https://evil.example")).await;
        assert_eq!(
            (refused.status, refused.header("access-control-allow-origin")),
            (403, ""),
            "{door}"
        );

        let call = got(gateway.post(door, &echo("x")).header("origin", origin)).await;
        assert_eq!(
            (call.status, call.header("access-control-allow-origin")),
            (401, origin),
            "{door}"
        );
        assert!(
            call.header("access-control-expose-headers")
                .contains("www-authenticate"),
            "{door}"
        );
        assert_eq!(call.header("vary"), "origin");
        challenged(&call);
    }
}

#[tokio::test]
async fn the_public_origin_is_the_configured_one() {
    let base = "https://llm.example.com";
    let text = keyed(&interactive("one", ""));
    let gateway = Start::new(text).environment("PROXY_BASE_URL", base).start().await;
    let lies = [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
    ];
    let mut texts = Vec::new();
    for path in [
        format!("{RESOURCE}/one/mcp"),
        RESOURCE.to_owned(),
        format!("{}/one", SERVER_DOCUMENTS[0]),
    ] {
        let mut request = gateway.http.get(gateway.url(&path));
        for (name, value) in lies {
            request = request.header(name, value);
        }
        let got = got(request).await;
        assert_eq!(got.status, 200, "{path}");
        texts.push(got.body.to_string());
    }
    let refused = got(gateway.post("/one/mcp", &echo("x"))).await;
    let (link, challenge) = challenged(&refused);
    assert_eq!(link, format!("{base}{RESOURCE}/one/mcp"));
    texts.push(challenge);
    for text in texts {
        assert!(
            text.contains(base) && !text.contains("127.0.0.1") && !text.contains("evil"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn forwarded_headers_count_from_trusted_peers_alone() {
    let forwarded = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "llm.example.com"),
        ("x-forwarded-port", "443"),
    ];
    for (settings, trusted) in [
        (
            "use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: ['127.0.0.0/8']",
            true,
        ),
        (
            "use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: ['10.0.0.0/8']",
            false,
        ),
        ("use_x_forwarded_for: true", false),
        ("mcp_trusted_proxy_ranges: ['127.0.0.0/8']", false),
    ] {
        let text = keyed(&interactive("one", ""));
        let text = text.replace("mcp_servers:", &format!("  {settings}\nmcp_servers:"));
        let gateway = Start::new(text).start().await;
        let base = if trusted {
            "https://llm.example.com".to_owned()
        } else {
            gateway.url("")
        };
        let with = |mut request: reqwest::RequestBuilder| {
            for (name, value) in forwarded {
                request = request.header(name, value);
            }
            request
        };
        let document = got(with(
            gateway
                .http
                .get(gateway.url(&format!("{}/one", SERVER_DOCUMENTS[0]))),
        ))
        .await;
        assert_eq!(document.body["issuer"], format!("{base}/one"), "{settings}");
        let refused = got(with(gateway.post("/one/mcp", &echo("x")))).await;
        assert_eq!(
            challenged(&refused).0,
            format!("{base}{RESOURCE}/one/mcp"),
            "{settings}"
        );
    }
}

//! Every route in every spelling and method, what stands on each answer, which labels metrics may have, and which
//! header a static credential arrives in.

use crate::by_hand::{Nobody, Watched, ask, code, head, post};
use crate::harness::{KEY, Start, TestGateway, echo, entry, got, keyed, machine};
use std::collections::HashSet;
use vestibule_testkit::{Answer, Idp, RawClient, Reply, Response, Upstream};

const SPELLINGS: [&str; 4] = ["/one/mcp", "/one/mcp/", "/mcp/one", "/mcp/one/"];

async fn gateway() -> (TestGateway, Watched) {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    (gateway, server)
}

/// A request without a body and with these further header lines.
fn bare(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{more}\r\n")
}

#[tokio::test]
async fn every_spelling_of_a_server_takes_every_method_without_a_redirect() {
    let (gateway, server) = gateway().await;
    let body = echo("x").to_string();
    for path in SPELLINGS {
        let call = head(
            "POST",
            path,
            &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
        );
        let response = ask(&gateway, call + &body).await;
        assert_eq!(
            (response.status, &response.json()["result"]["content"][0]["text"]),
            (200, &"x".into()),
            "{path}"
        );
        let events = [("Content-Type", "text/event-stream")];
        server.push(Answer::raw(200, &events, "data: 1\n\n"));
        let response = ask(&gateway, head("GET", path, "Accept: text/event-stream\r\n")).await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "data: 1\n\n"),
            "{path}"
        );
        server.push(Answer::raw(204, &[], ""));
        let response = ask(&gateway, head("DELETE", path, "")).await;
        assert_eq!(response.status, 204, "{path}");
    }
    let seen = server.requests();
    let seen: Vec<_> = seen
        .iter()
        .map(|request| (request.method.as_str(), request.target.as_str()))
        .collect();
    let expected = ["POST", "GET", "DELETE"].map(|method| (method, "/mcp"));
    assert_eq!(seen, expected.repeat(SPELLINGS.len()));
}

#[tokio::test]
async fn other_methods_on_other_routes_are_405_with_the_ones_that_work() {
    let (gateway, server) = gateway().await;
    for (path, allowed, wrong) in [
        (
            "/mcp-rest/tools/list",
            "GET,HEAD",
            &["POST", "DELETE", "PUT", "OPTIONS"][..],
        ),
        (
            "/mcp-rest/tools/call",
            "POST",
            &["GET", "DELETE", "PUT", "OPTIONS"],
        ),
        ("/health/liveliness", "GET,HEAD", &["POST", "DELETE"]),
        ("/health/liveness", "GET,HEAD", &["POST"]),
        ("/health/readiness", "GET,HEAD", &["POST"]),
        ("/metrics", "GET,HEAD", &["POST", "DELETE", "PROPFIND"]),
    ] {
        for method in wrong {
            let response = ask(&gateway, bare(method, path, "")).await;
            assert_eq!(
                (response.status, response.header("allow"), code(&response.json())),
                (405, Some(allowed), "method_not_allowed"),
                "{method} {path}"
            );
        }
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn everywhere_else_is_a_404_in_json_and_never_a_redirect() {
    let (gateway, server) = gateway().await;
    for path in [
        "/",
        "/one",
        "/one/",
        "/one/mcp//",
        "/one//mcp",
        "//one/mcp",
        "//mcp",
        "/one/mcp/tools",
        "/one/MCP",
        "/one/sse",
        "/mcp//one",
        "/mcp/one/two",
        "/mcp/../one",
        "/mcp-rest",
        "/mcp-rest/",
        "/mcp-rest/tools/list/",
        "/mcp-rest/tools",
        "/health",
        "/health/",
        "/health/liveliness/",
        "/metrics/",
        "/v1/chat/completions",
        "/.well-known/openid",
        "/favicon.ico",
        "/%2e%2e/etc/passwd",
        "/one/mcp%2f",
        "/?x=/one/mcp",
    ] {
        for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS"] {
            for key in ["", &format!("x-litellm-api-key: {KEY}\r\n")] {
                let response = ask(&gateway, bare(method, path, key)).await;
                let body = response.json();
                assert_eq!(
                    (response.status, code(&body)),
                    (404, "not_found"),
                    "{method} {path}"
                );
                assert_eq!(response.header("content-type"), Some("application/json"));
                assert_eq!(response.header("location"), None);
                assert_eq!(
                    body["error"]["request_id"],
                    response.header("x-request-id").expect("an id")
                );
            }
        }
    }
    for path in ["/mcp/sse", "/mcp/messages", "/toolset/one/mcp"] {
        let response = ask(&gateway, bare("POST", path, "")).await;
        assert_eq!(
            (response.status, code(&response.json())),
            (404, "not_supported"),
            "{path}"
        );
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn every_response_has_a_request_id_of_its_own() {
    let server = Watched::start().await;
    let nobody = Nobody::new();
    let down = entry("down", &format!("url: {}", nobody.url()));
    let limits = "vestibule: {limits: {max_body_bytes: 1000}}\n";
    let text = keyed(&(server.entry("one", "") + &down)) + limits;
    let gateway = Start::new(text).start().await;
    let own = "X-Request-Id: 00000000chosen00\r\n";
    let mut answers: Vec<(u16, Response)> = Vec::new();
    for (status, request) in [
        (200, post("", echo("x").to_string())),
        (200, post(own, echo("x").to_string())),
        (405, head("GET", "/one/mcp", own).into_bytes()),
        (405, head("PUT", "/one/mcp", "").into_bytes()),
        (401, bare("POST", "/one/mcp", own).into_bytes()),
        (404, head("POST", "/nowhere/mcp", "").into_bytes()),
        (404, head("POST", "/mcp/sse", "").into_bytes()),
        (404, head("GET", "/nothing", own).into_bytes()),
        (404, post("Mcp-Session-Id: x\r\n", echo("x").to_string())),
        (502, head("GET", "/down/mcp", "").into_bytes()),
        (413, post("", "x".repeat(2000))),
        (
            431,
            head("GET", "/one/mcp", &format!("A: {}\r\n", "x".repeat(33_000))).into_bytes(),
        ),
        (
            403,
            head("GET", "/one/mcp", "Origin: https://evil.example\r\n").into_bytes(),
        ),
        (
            200,
            head("GET", "/mcp-rest/tools/list?server_id=one", own).into_bytes(),
        ),
        (
            404,
            head("GET", "/mcp-rest/tools/list?server_id=x", "").into_bytes(),
        ),
        (401, bare("GET", "/mcp-rest/tools/list", "").into_bytes()),
        (405, bare("GET", "/mcp-rest/tools/call", "").into_bytes()),
        (200, bare("GET", "/health/liveliness", own).into_bytes()),
        (200, bare("GET", "/health/readiness", "").into_bytes()),
        (200, head("GET", "/metrics", own).into_bytes()),
    ] {
        answers.push((status, ask(&gateway, request).await));
    }
    // A server's own id is not the gateway's.
    let foreign = [("Content-Type", "application/json"), ("X-Request-Id", "foreign")];
    server.push(Answer::raw(
        200,
        &foreign,
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
    ));
    answers.push((200, ask(&gateway, post("", echo("x").to_string())).await));

    let mut ids = HashSet::new();
    for (status, answer) in &answers {
        assert_eq!(answer.status, *status, "{answer:?}");
        let found: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))
            .collect();
        let [(_, id)] = found[..] else {
            panic!("one x-request-id in {answer:?}")
        };
        assert!(
            id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{id}"
        );
        assert!(ids.insert(id), "{id} was given twice");
    }
}

/// The names and labels of `/metrics`, without the values.
async fn series(gateway: &TestGateway) -> Vec<String> {
    let page = gateway.http.get(gateway.url("/metrics")).bearer_auth(KEY);
    let page = page.send().await;
    let page = page.expect("answered").text().await.expect("a page");
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let mut series: Vec<_> = lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .collect();
    series.sort();
    series
}

#[tokio::test]
async fn nothing_that_a_caller_sends_makes_a_label() {
    let (gateway, _server) = gateway().await;
    let client_and_key = format!("x-litellm-api-key: {KEY}\r\n");
    // Once each kind of answer: from then on there is nothing new to count.
    let round = |mark: &str| {
        let mut requests: Vec<Vec<u8>> = vec![
            head("GET", &format!("/{mark}/mcp"), "").into(),
            head("GET", &format!("/{mark}"), "").into(),
            head("GET", &format!("/{mark},x/mcp"), "").into(),
            head(&mark.to_uppercase(), "/one/mcp", "").into(),
            bare(&mark.to_uppercase(), "/metrics", "").into(),
            head("GET", "/one/mcp", &format!("Mcp-Session-Id: {mark}\r\n")).into(),
            head("GET", "/one/mcp", &format!("Origin: http://{mark}.example\r\n")).into(),
            bare("GET", "/one/mcp", &format!("Authorization: Bearer {mark}\r\n")).into(),
            bare(
                "GET",
                &format!("/mcp-rest/tools/list?server_id={mark}"),
                &client_and_key,
            )
            .into(),
        ];
        let method = echo("x").to_string().replace("tools/call", mark);
        requests.push(post("", method));
        requests.push(post("", echo("x").to_string().replace("echo", mark)));
        requests
    };
    for request in round("first") {
        ask(&gateway, request).await;
    }
    let before = series(&gateway).await;
    for mark in ["second", "third", "fourth"] {
        for request in round(mark) {
            ask(&gateway, request).await;
        }
    }
    let after = series(&gateway).await;
    assert_eq!(after, before);
    for series in &after {
        assert!(
            !series.contains("first") && !series.contains("nowhere"),
            "{series}"
        );
    }
    for expected in [
        r#"vestibule_requests_total{server="one",class="4xx"}"#,
        r#"vestibule_refusals_total{code="unknown_server"}"#,
        r#"vestibule_refusals_total{code="method_not_allowed"}"#,
        "vestibule_connections",
    ] {
        assert!(
            after.iter().any(|series| series == expected),
            "{expected}\n{after:#?}"
        );
    }
}

#[tokio::test]
async fn static_credentials_arrive_in_their_header() {
    let server = Watched::start().await;
    // user:pass in base64.
    let encoded = "dXNlcjpwYXNz";
    for (auth_type, token, header, expected) in [
        ("api_key", "k-1", "x-api-key", "k-1"),
        ("api_key", "Bearer k-1", "x-api-key", "Bearer k-1"),
        ("bearer_token", "t-1", "authorization", "Bearer t-1"),
        ("bearer_token", "Bearer t-1", "authorization", "Bearer t-1"),
        ("bearer_token", "bearer t-1", "authorization", "Bearer t-1"),
        ("token", "t-1", "authorization", "token t-1"),
        ("token", "token t-1", "authorization", "token t-1"),
        ("authorization", "Digest a=b", "authorization", "Digest a=b"),
        ("basic", "user:pass", "authorization", "Basic dXNlcjpwYXNz"),
        ("basic", encoded, "authorization", "Basic dXNlcjpwYXNz"),
        (
            "basic",
            "Basic dXNlcjpwYXNz",
            "authorization",
            "Basic dXNlcjpwYXNz",
        ),
    ] {
        for field in ["authentication_token", "auth_value"] {
            let fields = format!("auth_type: {auth_type}\n{field}: '{token}'");
            let gateway = TestGateway::with_servers(&server.entry("one", &fields)).await;
            // What the caller shows does not replace it.
            let more = "Authorization: Bearer mine\r\nX-Api-Key: mine\r\n";
            let response = ask(&gateway, post(more, echo("x").to_string())).await;
            assert_eq!(response.status, 200, "{auth_type} {token}");
            let seen = server.requests().pop().expect("a request");
            let shown: Vec<_> = seen
                .headers
                .iter()
                .filter(|(name, _)| {
                    name.eq_ignore_ascii_case("authorization") || name.eq_ignore_ascii_case("x-api-key")
                })
                .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
                .collect();
            assert_eq!(shown, [(header.to_owned(), expected)], "{auth_type} {token}");
        }
    }
}

const DEBUG: [&str; 5] = [
    "x-mcp-debug-inbound-auth",
    "x-mcp-debug-oauth2-token",
    "x-mcp-debug-auth-resolution",
    "x-mcp-debug-outbound-url",
    "x-mcp-debug-server-auth-type",
];

/// Resolution, URL and auth type as the debug headers tell them.
fn told(response: &Response) -> [&str; 3] {
    [DEBUG[2], DEBUG[3], DEBUG[4]].map(|name| response.header(name).unwrap_or("(missing)"))
}

/// A POST to `path` that asks for debug headers, with the key in its own header.
fn debugged(path: &str, more: &str) -> String {
    let body = echo("x").to_string();
    let more = format!(
        "x-litellm-mcp-debug: true\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}",
        body.len()
    );
    head("POST", path, &more) + &body
}

#[tokio::test]
async fn debug_headers_tell_what_each_auth_type_shows() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    let secret = "canary-static-credential:0123456789";
    let mut servers = machine("to_oauth2", &server.url(), &idp.url(), "");
    servers += &server.entry("to_none", "extra_headers: [Authorization]");
    let types = ["api_key", "bearer_token", "token", "authorization", "basic"];
    for auth_type in types {
        let fields = format!("auth_type: {auth_type}\nauthentication_token: '{secret}'");
        servers += &server.entry(&format!("to_{auth_type}"), &fields);
    }
    let gateway = TestGateway::with_servers(&servers).await;
    let url = server.url();
    let resolutions = types.map(|auth_type| (auth_type, "static-token"));
    let others = [("oauth2", "m2m-client-credentials"), ("none", "no-auth")];
    for (auth_type, resolution) in resolutions.into_iter().chain(others) {
        let response = ask(&gateway, debugged(&format!("/to_{auth_type}/mcp"), "")).await;
        assert_eq!(response.status, 200);
        assert_eq!(told(&response), [resolution, &url, auth_type]);
        assert_eq!(
            response.header(DEBUG[0]),
            Some("x-litellm-api-key=Bearer****6789")
        );
        assert_eq!(response.header(DEBUG[1]), Some("(none)"));
        let all = format!("{:?}", response.headers);
        assert!(!all.contains(secret) && !all.contains(KEY), "{all}");
    }
    assert!(!idp.tokens().is_empty());

    let mine = "Authorization: Bearer the-callers-own-token-0123456789\r\nx-mcp-auth: abc\r\n";
    let response = ask(&gateway, debugged("/to_none/mcp", mine)).await;
    assert_eq!(told(&response), ["oauth2-passthrough", &url, "none"]);
    assert_eq!(
        response.header(DEBUG[0]),
        Some("x-litellm-api-key=Bearer****6789; authorization=Bearer****6789; x-mcp-auth=****")
    );
    assert_eq!(response.header(DEBUG[1]), Some("Bearer****6789"));
}

#[tokio::test]
async fn debug_headers_stand_on_error_answers_of_admitted_callers_alone() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    let nowhere = Nobody::new();
    let nobody = nowhere.url();
    let refusing = Upstream::start().await;
    refusing.accept_if(|_| false);
    let servers = [
        server.entry("one", ""),
        machine("no_token", &server.url(), &idp.url(), ""),
        machine("refused", &refusing.url(), &idp.url(), ""),
        entry(
            "down",
            &format!("url: {nobody}\nauth_type: api_key\nauthentication_token: x"),
        ),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    idp.push(Reply::error(401, "invalid_client"));
    let (url, elsewhere) = (server.url(), refusing.url());
    let session = "Mcp-Session-Id: x\r\n";
    for (path, more, status, expected) in [
        (
            "/no_token/mcp",
            "",
            502,
            ["m2m-client-credentials", &url, "oauth2"],
        ),
        (
            "/refused/mcp",
            "",
            502,
            ["m2m-client-credentials", &elsewhere, "oauth2"],
        ),
        ("/down/mcp", "", 502, ["static-token", &nobody, "api_key"]),
        ("/one/mcp", session, 404, ["no-auth", &url, "none"]),
    ] {
        let response = ask(&gateway, debugged(path, more)).await;
        assert_eq!((response.status, told(&response)), (status, expected), "{path}");
        assert_eq!(
            response.header(DEBUG[0]),
            Some("x-litellm-api-key=Bearer****6789")
        );
    }
    server.push(Answer::json(
        500,
        &serde_json::json!({"jsonrpc": "2.0", "id": 7, "error": {}}),
    ));
    let response = ask(&gateway, debugged("/one/mcp", "")).await;
    assert_eq!(
        (response.status, told(&response)),
        (500, ["no-auth", &url, "none"])
    );
    let method = head("PUT", "/one/mcp", "x-litellm-mcp-debug: true\r\n");
    let response = ask(&gateway, method).await;
    assert_eq!(
        (response.status, told(&response)),
        (405, ["no-auth", &url, "none"])
    );

    for key in ["", "Authorization: Bearer sk-wrong\r\n"] {
        for path in ["/one/mcp", "/nowhere/mcp"] {
            let more = format!("x-litellm-mcp-debug: true\r\n{key}");
            let response = ask(&gateway, bare("POST", path, &more)).await;
            assert_eq!(response.status, 401);
            for name in DEBUG {
                assert_eq!(response.header(name), None, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn health_needs_no_key_and_head_has_no_body() {
    let (gateway, _server) = gateway().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (path, content_type) in [
        ("/health/liveliness", "application/json"),
        ("/health/liveness", "application/json"),
        ("/health/readiness", "application/json"),
        ("/metrics", kind),
    ] {
        let get = gateway.http.get(gateway.url(path));
        let (get, key) = if path == "/metrics" {
            (get.bearer_auth(KEY), format!("x-litellm-api-key: {KEY}\r\n"))
        } else {
            (get, String::new())
        };
        let got = got(get).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, content_type),
            "{path}"
        );
        let mut client = RawClient::connect(gateway.address).await.expect("connected");
        client
            .write(bare("HEAD", path, &format!("Connection: close\r\n{key}")))
            .await
            .expect("written");
        assert_eq!(client.read_head().await.expect("a head").status, 200, "{path}");
        assert_eq!(client.read_to_close().await.expect("an end"), b"", "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_in_the_gateways_words() {
    let (gateway, _) = gateway().await;
    let key = format!("x-litellm-api-key: {KEY}\r\n");
    for path in [
        "/v1/mcp/server/%FF",
        "/v1/mcp/server/%ff/user-credential",
        "/ui/servers/%C3%28",
        "/v1/audit/%FF",
        "/%FF",
    ] {
        let response = ask(&gateway, bare("GET", path, &key)).await;
        assert_eq!(
            (response.status, code(&response.json())),
            (404, "not_found"),
            "{path}"
        );
    }
}

//! One message to one server and its answer back: every byte, the headers that may cross, statuses.

use crate::by_hand::{Watched, ask, echo_body, gateway_and_server, head, post, result, sent};
use crate::harness::{KEY, TestGateway, keyed};
use serde_json::json;
use vestibule_testkit::Answer;

/// Messages that a relay which re-models JSON would change.
const ODD: &[&str] = &[
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
    " \t\r\n{ \"method\" :\"ping\",\n\n\"id\"\t: 1 , \"jsonrpc\":\"2.0\" } \n",
    r#"{"z":1,"a":2,"id":12345678901234567890123,"method":"m","params":{"n":0.10,"m":1e400,"big":18446744073709551617}}"#,
    r#"{"id":"\u00e9\ud83d\ude00\/","method":"tools\/call","params":{"a":"\u0000","a":"é😀"}}"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]"#,
    r#"{"jsonrpc":"3.0","id":{"of":"tomorrow"},"method":"things/unheard","_new":[[[]]]}"#,
    r#"{"jsonrpc":"2.0","id":4,"result":{"action":"accept","content":{}}}"#,
    r#"{"jsonrpc":"2.0","id":"srv-1","error":{"code":-1,"message":"declined"}}"#,
    "not JSON at all \u{feff}",
    "\u{feff}{}",
];

#[tokio::test]
async fn requests_reach_the_server_byte_for_byte() {
    let (gateway, server) = gateway_and_server().await;
    for (index, body) in ODD.iter().enumerate() {
        server.push(Answer::json(200, &result("x")));
        let response = ask(&gateway, post("", body)).await;
        assert_eq!(response.status, 200, "{body}");
        assert_eq!(server.requests()[index].body, body.as_bytes(), "{body}");
    }
    let raw: Vec<u8> = (0..=255).collect();
    server.push(Answer::json(200, &result("x")));
    assert_eq!(ask(&gateway, post("", &raw)).await.status, 200);
    assert_eq!(server.requests()[ODD.len()].body, raw);
}

#[tokio::test]
async fn a_chunked_request_reaches_the_server_with_its_length() {
    let (gateway, server) = gateway_and_server().await;
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let body = echo_body("in pieces");
    let (one, two) = body.split_at(20);
    let bytes = format!(
        "{}14;ext=1\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\nTrailer: x\r\n\r\n",
        head("POST", "/one/mcp", chunked),
        two.len()
    );
    let response = ask(&gateway, bytes).await;
    assert_eq!(
        response.json()["result"]["content"][0]["text"],
        "in pieces",
        "{response:?}"
    );
    let seen = &server.requests()[0];
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(
        seen.header("content-length"),
        Some(body.len().to_string().as_str())
    );
    assert_eq!(
        (seen.header("transfer-encoding"), seen.header("trailer")),
        (None, None)
    );
}

#[tokio::test]
async fn a_body_of_three_megabytes_goes_both_ways_unchanged() {
    let (gateway, server) = gateway_and_server().await;
    let text: String = ('a'..='z').cycle().take(3 * 1024 * 1024).collect();
    let response = ask(&gateway, post("", echo_body(&text))).await;
    assert_eq!(response.status, 200);
    assert!(
        response.json()["result"]["content"][0]["text"] == text.as_str(),
        "the answer is another"
    );
    assert!(
        server.requests()[0].body == echo_body(&text).as_bytes(),
        "the request is another"
    );
}

#[tokio::test]
async fn answers_reach_the_client_byte_for_byte() {
    let (gateway, server) = gateway_and_server().await;
    let long = format!(" {{\"id\":7,\"result\":\"{}\"}}\n", "\\u0041".repeat(60_000));
    for body in ODD.iter().copied().chain([long.as_str()]) {
        server.push(Answer::raw(
            200,
            &[("Content-Type", "Application/JSON; v=1")],
            body,
        ));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert_eq!(response.status, 200);
        assert!(response.body == body.as_bytes(), "{:.200}", response.text());
        assert_eq!(
            response.header("content-length"),
            Some(body.len().to_string().as_str())
        );
        assert_eq!(response.header("content-type"), Some("Application/JSON; v=1"));

        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let headers = [
            ("Content-Type", "application/json"),
            ("Transfer-Encoding", "chunked"),
        ];
        server.push(Answer::raw(200, &headers, chunks));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert!(response.body == body.as_bytes(), "{:.200}", response.text());
    }
}

#[tokio::test]
async fn exactly_the_allowed_request_headers_reach_the_server() {
    let server = Watched::start().await;
    let more = "static_headers: {X-Static: fixed, X-Both: ours}\nextra_headers: [X-Extra, X-Both]";
    let gateway = TestGateway::with_servers(&server.entry("one", more)).await;
    let allowed = [
        ("accept", "application/json, text/event-stream"),
        ("baggage", "k=v"),
        ("content-type", "application/json"),
        ("last-event-id", "41"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?w6k=?="),
        ("mcp-of-tomorrow", "yes"),
        ("mcp-param-region", "eu"),
        ("mcp-protocol-version", "2026-07-28"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "a=1"),
        ("x-extra", "one"),
        ("x-extra", "two"),
    ];
    let kept_out = [
        "Accept-Encoding: gzip",
        "Accept-Language: de",
        "Authorization: Bearer the-callers-own",
        "Cache-Control: no-cache",
        "Connection: keep-alive",
        "Cookie: a=canary-cookie",
        "Forwarded: for=1.2.3.4",
        "If-None-Match: x",
        "Keep-Alive: timeout=9",
        "Origin: http://localhost:1",
        "Pragma: no-cache",
        "Proxy-Authorization: Basic canary",
        "Proxy-Connection: close",
        "Range: bytes=0-1",
        "Referer: http://localhost/",
        "TE: trailers",
        "User-Agent: a-client/1",
        "Via: 1.1 x",
        "X-Api-Key: canary",
        "X-Both: the client's",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: https",
        "X-LiteLLM-End-User-Id: someone",
        "x-litellm-mcp-debug: false",
        "X-Mcp-Access-Groups: one",
        "X-Mcp-Two-Authorization: Bearer canary",
        "X-Mcp-Servers: one",
        "X-Real-Ip: 1.2.3.4",
        "X-Static: the client's",
        "X-Unheard: of",
    ];
    let body = echo_body("x");
    let mut more: String = allowed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    more.extend(kept_out.iter().map(|line| format!("{line}\r\n")));
    more.push_str(&format!("Content-Length: {}\r\n", body.len()));
    let response = ask(&gateway, head("POST", "/one/mcp", &more) + &body).await;
    assert_eq!(response.status, 200, "{}", response.text());

    let length = body.len().to_string();
    let address = server.addr().to_string();
    let agent = concat!("vestibule/", env!("CARGO_PKG_VERSION"));
    let mut expected = allowed.to_vec();
    expected.extend([
        ("content-length", length.as_str()),
        ("host", &address),
        ("user-agent", agent),
        ("x-both", "ours"),
        ("x-static", "fixed"),
    ]);
    let requests = server.requests();
    let mut found: Vec<(String, &str)> = requests[0]
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    found.sort();
    expected.sort_unstable();
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_header_that_connection_names_ends_at_the_gateway() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "extra_headers: [X-Extra]")).await;
    let hop = "Connection: keep-alive, Mcp-Hop ,x-extra\r\nMcp-Hop: canary-hop\r\nX-Extra: canary-hop\r\nMcp-Name: stays\r\n";
    assert_eq!(ask(&gateway, post(hop, echo_body("x"))).await.status, 200);
    server.assert_never_seen("canary-hop");
    assert_eq!(server.requests()[0].header("mcp-name"), Some("stays"));
}

#[tokio::test]
async fn a_configured_user_agent_replaces_the_gateways_own() {
    let (fixed, passed) = (Watched::start().await, Watched::start().await);
    let servers = fixed.entry("one", "static_headers: {User-Agent: configured/1}")
        + &passed.entry("two", "extra_headers: [User-Agent]");
    let gateway = TestGateway::with_servers(&servers).await;
    for (path, server, expected) in [
        ("/one/mcp", &fixed, "configured/1"),
        ("/two/mcp", &passed, "client/2"),
    ] {
        let message = crate::harness::echo("x");
        let call = gateway.post(path, &message).header("user-agent", "client/2");
        assert_eq!(crate::harness::answer(call).await.0, 200);
        let requests = server.requests();
        let agents: Vec<&str> = requests[0]
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(agents, [expected], "{path}");
    }
}

#[tokio::test]
async fn the_gateway_key_stays_out_of_headers_that_are_passed_on() {
    let server = Watched::start().await;
    let fields = "extra_headers: [X-Extra, Authorization, X-Api-Key]";
    let gateway = TestGateway::with_servers(&server.entry("one", fields)).await;
    let leaks = format!(
        "X-Extra: {KEY}\r\nX-Extra: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\nX-Api-Key: {KEY}\r\nMcp-Name: {KEY}\r\nbaggage: k={KEY}\r\nX-Extra: harmless\r\n"
    );
    assert_eq!(ask(&gateway, post(&leaks, echo_body("x"))).await.status, 200);
    server.assert_never_seen(KEY);
    assert_eq!(server.requests()[0].header("x-extra"), Some("harmless"));
}

#[tokio::test]
async fn exactly_the_allowed_response_headers_reach_the_client() {
    let (gateway, server) = gateway_and_server().await;
    let allowed = [
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("mcp-of-tomorrow", "yes"),
        ("mcp-protocol-version", "2025-11-25"),
        ("retry-after", "3"),
    ];
    let kept_out = [
        "Access-Control-Allow-Origin",
        "Alt-Svc",
        "Keep-Alive",
        "Location",
        "Proxy-Authenticate",
        "Server",
        "Set-Cookie",
        "Strict-Transport-Security",
        "Via",
        "WWW-Authenticate",
        "X-LiteLLM-Anything",
        "X-Mcp-Debug-Outbound-Url",
        "X-Powered-By",
        "X-Request-Id",
    ];
    let headers: Vec<_> = allowed
        .into_iter()
        .chain(kept_out.map(|name| (name, "canary")))
        .collect();
    for status in [200, 400] {
        server.push(Answer::raw(status, &headers, "{}"));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert_eq!(response.status, status);
        let mut found: Vec<(String, &str)> = response
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .collect();
        found.retain(|(name, _)| !matches!(name.as_str(), "date" | "content-length" | "x-request-id"));
        found.sort();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        assert_eq!(found, allowed);
        assert!(
            !format!("{:?}", response.headers).contains("canary"),
            "{:?}",
            response.headers
        );
    }
}

#[tokio::test]
async fn statuses_and_error_bodies_are_the_servers_own() {
    let (gateway, server) = gateway_and_server().await;
    let error = r#" {"error":{"message":"no","code":-32020},"jsonrpc":"2.0", "id":7}"#;
    for status in [200, 201, 400, 404, 405, 406, 409, 415, 422, 429, 500, 503] {
        server.push(Answer::raw(
            status,
            &[("Content-Type", "application/json")],
            error,
        ));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert_eq!((response.status, response.text()), (status, error.to_owned()));
    }
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
    for status in [202, 204] {
        server.push(Answer::raw(status, &[], ""));
        let response = ask(&gateway, post("", &notification)).await;
        assert_eq!((response.status, response.body.len()), (status, 0));
    }
    // Some servers acknowledge a notification so.
    server.push(Answer::raw(200, &[], ""));
    assert_eq!(ask(&gateway, post("", &notification)).await.status, 200);
    for status in [400, 404, 405] {
        server.push(Answer::raw(status, &[], ""));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert_eq!((response.status, response.body.len()), (status, 0));
        server.push(Answer::raw(
            status,
            &[("Content-Type", "text/plain")],
            "a sentence",
        ));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (status, "a sentence")
        );
    }
}

#[tokio::test]
async fn a_server_without_get_and_delete_says_so_itself() {
    let (gateway, server) = gateway_and_server().await;
    for method in ["GET", "DELETE"] {
        let response = ask(
            &gateway,
            head(method, "/one/mcp", "Accept: text/event-stream\r\n"),
        )
        .await;
        assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
        let requests = server.requests();
        let seen = requests.last().expect("seen");
        assert_eq!((seen.method.as_str(), seen.body.len()), (method, 0));
    }
    server.push(Answer::raw(200, &[], ""));
    assert_eq!(
        ask(&gateway, head("DELETE", "/one/mcp", "")).await.status,
        200,
        "an empty 200 ends a session"
    );
}

#[tokio::test]
async fn other_methods_are_refused_with_the_list_of_those_that_work() {
    let (gateway, server) = gateway_and_server().await;
    for method in ["PUT", "PATCH", "OPTIONS", "PROPFIND"] {
        let response = ask(&gateway, head(method, "/one/mcp", "")).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some("POST, GET, DELETE")),
            "{method}"
        );
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn the_servers_path_and_query_are_its_configured_ones() {
    let server = Watched::start().await;
    let entry = crate::harness::entry("one", &format!("url: {}/a%20b/mcp?tenant=x%26y", server.base()));
    let gateway = crate::harness::Start::new(keyed(&entry)).start().await;
    server.push(Answer::json(200, &result("x")));
    let bytes = String::from_utf8(post("", echo_body("x"))).expect("text");
    let response = ask(&gateway, bytes.replacen("/one/mcp", "/mcp/one/?evil=1", 1)).await;
    assert_eq!(response.status, 200);
    assert_eq!(server.requests()[0].target, "/a%20b/mcp?tenant=x%26y");
}

#[tokio::test]
async fn fifty_calls_of_a_client_take_one_connection_to_the_server() {
    let (gateway, server) = gateway_and_server().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(sent(&gateway, "").await);
    }
    for number in 0..50 {
        for client in &mut clients {
            let text = number.to_string();
            client.write(post("", echo_body(&text))).await.expect("written");
            let response = client.read_response().await.expect("a response");
            assert_eq!(
                response.json()["result"]["content"][0]["text"],
                text.as_str(),
                "{response:?}"
            );
        }
    }
    assert_eq!(server.requests().len(), 100, "one round trip a call");
    assert_eq!(server.connections(), 2, "one for each of the two workers");
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_to_the_server_open() {
    let (gateway, server) = gateway_and_server().await;
    let mut client = sent(&gateway, "").await;
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/cancelled"}).to_string();
    for _ in 0..5 {
        server.push(Answer::Redirect {
            status: 307,
            location: "/mcp".into(),
        });
        for (bytes, expected) in [
            (post("", &notification), 202),
            (post("", echo_body("x")), 200),
            (head("GET", "/one/mcp", "").into_bytes(), 405),
        ] {
            client.write(bytes).await.expect("written");
            assert_eq!(client.read_response().await.expect("a response").status, expected);
        }
    }
    assert_eq!((server.requests().len(), server.connections()), (20, 1));
}

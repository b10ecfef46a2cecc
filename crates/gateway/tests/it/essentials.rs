//! What must never break: one token request for many callers, a refused token replaced once, failures with a
//! code, no key upstream, sealed sessions, streams, limits, a drain that loses nothing.

use crate::harness::{
    KEY, Start, TestGateway, answer, assert_nothing_secret_logged, echo, entry, keyed, machine,
};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Idp, RawClient, Reply, Upstream, free_addr};

async fn pair() -> (Idp, Upstream) {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    upstream.accept_if(idp.issued());
    (idp, upstream)
}

#[tokio::test]
async fn many_callers_wait_for_one_token_request() {
    let (idp, upstream) = pair().await;
    let gate = Arc::new(Semaphore::new(0));
    idp.push(Reply::token().behind(&gate));
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    let calls: Vec<_> = (0..100)
        .map(|n| tokio::spawn(answer(gateway.post("/one/mcp", &echo(&n.to_string())))))
        .collect();
    idp.wait_for(1).await;
    // The caller that started the request hangs up; the others still get their token.
    calls[0].abort();
    gate.add_permits(1);
    for (n, call) in calls.into_iter().enumerate().skip(1) {
        let (status, body) = call.await.expect("joined");
        assert_eq!(
            (status, &body["result"]["content"][0]["text"]),
            (200, &n.to_string().into())
        );
    }
    assert_eq!(idp.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_and_not_used_past_its_margin() {
    let (idp, upstream) = pair().await;
    idp.set_default(Reply::expiring(3600));
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    gateway.advance(3600 - 60 - 301);
    assert_eq!(gateway.echo("/one/mcp", "b").await.0, 200);
    assert_eq!(idp.requests().len(), 1, "no renewal before the last 300 s of use");
    let gate = Arc::new(Semaphore::new(0));
    idp.push(Reply::expiring(3600).behind(&gate));
    gateway.advance(2);
    assert_eq!(
        gateway.echo("/one/mcp", "c").await.0,
        200,
        "a call goes on with the old token"
    );
    idp.wait_for(2).await;
    assert_eq!(upstream.requests()[2].bearer(), Some(idp.tokens()[0].as_str()));
    gateway.advance(300);
    let waiting = tokio::spawn(answer(gateway.post("/one/mcp", &echo("d"))));
    gate.add_permits(1);
    assert_eq!(waiting.await.expect("joined").0, 200);
    assert_eq!(upstream.requests()[3].bearer(), Some(idp.tokens()[1].as_str()));
    assert_eq!(idp.requests().len(), 2);
}

#[tokio::test]
async fn expires_in_decides_how_long_a_token_is_kept() {
    for (expires_in, kept) in [
        (Some(json!(3600)), 3540),
        (Some(json!("3600")), 3540),
        (Some(json!(30)), 10),
        (Some(json!(1e12)), 86_340),
        (Some(json!("soon")), 240),
        (None, 240),
    ] {
        let (idp, upstream) = pair().await;
        idp.set_default(Reply::Token {
            expires_in: expires_in.clone(),
            extra: serde_json::Map::new(),
        });
        let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
        gateway.echo("/one/mcp", "a").await;
        gateway.advance(kept * 8 / 10);
        gateway.echo("/one/mcp", "b").await;
        assert_eq!(idp.requests().len(), 1, "{expires_in:?} is kept");
        gateway.advance(kept - kept * 8 / 10);
        gateway.echo("/one/mcp", "c").await;
        assert_eq!(idp.requests().len(), 2, "{expires_in:?} ends");
    }
    for expires_in in [json!(0), json!(-5)] {
        let (idp, upstream) = pair().await;
        idp.set_default(Reply::expiring(expires_in));
        let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
        for text in ["a", "b"] {
            assert_eq!(gateway.echo("/one/mcp", text).await.0, 200);
        }
        assert_eq!(idp.requests().len(), 2, "never cached");
    }
}

#[tokio::test]
async fn a_revoked_token_is_replaced_once_and_a_server_that_refuses_all_is_named() {
    let (idp, upstream) = pair().await;
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    gateway.echo("/one/mcp", "a").await;
    upstream.revoke(&idp.last_token());
    assert_eq!(gateway.echo("/one/mcp", "b").await.0, 200);
    assert_eq!(idp.requests().len(), 2);

    let refusing = Upstream::start().await;
    refusing.accept_if(|_| false);
    let gateway = TestGateway::with_servers(&machine("one", &refusing.url(), &idp.url(), "")).await;
    let before = idp.requests().len();
    for n in 0..5 {
        let (status, body) = gateway.echo("/one/mcp", "c").await;
        assert_eq!(
            (status, &body["error"]["data"]["code"], &body["id"]),
            (502, &"upstream_refused_token".into(), &7.into()),
            "call {n}"
        );
    }
    assert_eq!(
        idp.requests().len(),
        before + 2,
        "calls do not storm the authorization server"
    );
}

#[tokio::test]
async fn every_failure_of_the_token_endpoint_has_its_code() {
    let cases = [
        (Reply::error(401, "invalid_client"), 502, "token_refused"),
        (Reply::Html, 502, "token_response_invalid"),
        (Reply::Huge { mebibytes: 1 }, 502, "token_response_invalid"),
        (Reply::Truncated, 502, "token_response_invalid"),
        (Reply::Drop, 502, "token_endpoint_unreachable"),
        (Reply::Hang, 504, "token_endpoint_timeout"),
        (
            Reply::Json(json!({"access_token": "t", "token_type": "DPoP"})),
            502,
            "token_response_invalid",
        ),
        (
            Reply::Json(json!({"error": "invalid_scope"})),
            502,
            "token_refused",
        ),
    ];
    for (reply, status, code) in cases {
        let (idp, upstream) = pair().await;
        idp.push(reply);
        let text = keyed(&machine("one", &upstream.url(), &idp.url(), ""))
            + "vestibule: {limits: {token_timeout: 0.3}}\n";
        let gateway = Start::new(text).start().await;
        for _ in 0..2 {
            let (got, body) = gateway.echo("/one/mcp", "a").await;
            assert_eq!(
                (got, &body["error"]["data"]["code"], &body["id"]),
                (status, &code.into(), &7.into()),
                "{body}"
            );
        }
        assert_eq!(
            idp.requests().len(),
            1,
            "{code}: the second call is within the back-off"
        );
        assert!(upstream.requests().is_empty());
        gateway.advance(2);
        assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200, "{code}: it recovers");
    }
    let (idp, upstream) = pair().await;
    let elsewhere = Upstream::start().await;
    idp.push(Reply::Redirect {
        status: 307,
        location: elsewhere.url(),
    });
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    assert_eq!(
        gateway.echo("/one/mcp", "a").await.1["error"]["data"]["code"],
        "token_endpoint_redirect"
    );
    assert!(elsewhere.requests().is_empty());
    let down = format!("http://{}/token", free_addr());
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &down, "")).await;
    assert_eq!(
        gateway.echo("/one/mcp", "a").await.1["error"]["data"]["code"],
        "token_endpoint_unreachable"
    );
}

#[tokio::test]
async fn no_gateway_key_reaches_a_server_under_any_header_in_any_mode() {
    let (idp, upstream) = pair().await;
    let mut servers = machine(
        "oauth2",
        &upstream.url(),
        &idp.url(),
        "extra_headers: [authorization, x-custom]",
    );
    servers += &entry(
        "none",
        &format!(
            "url: {}\nextra_headers: [authorization, x-custom]",
            upstream.url()
        ),
    );
    for auth_type in ["api_key", "bearer_token", "token", "authorization", "basic"] {
        let fields = format!(
            "url: {}\nauth_type: {auth_type}\nauthentication_token: 'u:p'\nextra_headers: [authorization, x-custom]",
            upstream.url()
        );
        servers += &entry(&format!("static_{auth_type}"), &fields);
    }
    upstream.accept_if(|_| true);
    let gateway = TestGateway::with_servers(&servers).await;
    for server in [
        "oauth2",
        "none",
        "static_api_key",
        "static_bearer_token",
        "static_token",
        "static_authorization",
        "static_basic",
    ] {
        for method in ["POST", "GET", "DELETE"] {
            let path = format!("/{server}/mcp");
            let mut request = gateway
                .http
                .request(method.parse().expect("method"), gateway.url(&path));
            for name in [
                "authorization",
                "x-custom",
                "mcp-name",
                "mcp-param-x",
                "traceparent",
                "last-event-id",
                "cookie",
                "x-mcp-auth",
            ] {
                request = request.header(name, format!("Bearer {KEY}"));
            }
            let request = request
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream");
            let _ = request
                .body(echo("a").to_string())
                .send()
                .await
                .expect("answered");
        }
        let rest = gateway
            .http
            .get(gateway.url(&format!("/mcp-rest/tools/list?server_id={server}")));
        let _ = rest
            .header("authorization", format!("Bearer {KEY}"))
            .send()
            .await
            .expect("answered");
    }
    assert!(upstream.requests().len() >= 21);
    upstream.assert_never_seen(KEY);
    idp.assert_never_seen(KEY);
    assert_nothing_secret_logged(&[&idp.last_token()]);
}

#[tokio::test]
async fn who_has_no_key_learns_nothing() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    for path in ["/one/mcp", "/nowhere/mcp"] {
        let response = gateway
            .http
            .post(gateway.url(path))
            .json(&echo("a"))
            .send()
            .await
            .expect("answered");
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()["www-authenticate"],
            r#"Bearer realm="vestibule""#
        );
        let id = response.headers()["x-request-id"]
            .to_str()
            .expect("text")
            .to_owned();
        let body: serde_json::Value = response.json().await.expect("json");
        assert_eq!(body["error"]["code"], "missing_key");
        assert_eq!(body["error"]["request_id"], id.as_str());
        assert!(
            body["error"]["next_step"]
                .as_str()
                .is_some_and(|text| text.contains("x-litellm-api-key"))
        );
    }
    assert_eq!(
        gateway.echo("/nowhere/mcp", "a").await.1["error"]["code"],
        "unknown_server"
    );
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_session_is_sealed_to_its_server_and_opens_on_every_replica() {
    let upstream = Upstream::start().await;
    upstream.set_session(Some("upstream-session-1"));
    let servers = entry("one", &format!("url: {}", upstream.url()))
        + &entry("two", &format!("url: {}", upstream.url()));
    let ring = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let replica = || {
        Start::new(keyed(&servers))
            .environment("VESTIBULE_MASTER_KEY", ring)
            .start()
    };
    let (first, second) = (replica().await, replica().await);
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let response = first
        .post("/one/mcp", &initialize)
        .send()
        .await
        .expect("answered");
    let sealed = response.headers()["mcp-session-id"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(!sealed.contains("upstream"));
    let with = |gateway: &TestGateway, path: &str, id: &str| {
        answer(gateway.post(path, &echo("a")).header("mcp-session-id", id))
    };
    assert_eq!(
        with(&second, "/one/mcp", &sealed).await.0,
        200,
        "any replica opens it"
    );
    assert_eq!(
        upstream
            .requests()
            .last()
            .and_then(|r| r.header("mcp-session-id").map(str::to_owned))
            .as_deref(),
        Some("upstream-session-1")
    );
    let seen = upstream.requests().len();
    let mut changed = sealed.clone().into_bytes();
    changed[30] = if changed[30] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("text");
    for (path, id) in [
        ("/two/mcp", sealed.as_str()),
        ("/one/mcp", &changed),
        ("/one/mcp", "upstream-session-1"),
        ("/one/mcp", &sealed[..40]),
    ] {
        let (status, body) = with(&first, path, id).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (404, &"unknown_session".into()),
            "{path} {body}"
        );
    }
    first.advance(31 * 24 * 3600);
    assert_eq!(with(&first, "/one/mcp", &sealed).await.0, 404, "it ends");
    assert_eq!(upstream.requests().len(), seen, "the server saw none of them");
}

#[tokio::test]
async fn a_stream_comes_frame_by_frame_and_ends_upstream_when_the_client_leaves() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let (stream, handle) = Answer::sse();
    upstream.push(stream);
    let mut response = gateway
        .post("/one/mcp", &echo("a"))
        .send()
        .await
        .expect("answered");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    for frame in ["data: 1\n\n", "data: 2\n\n", ": still here\n\n"] {
        handle.send(frame).await.expect("sent");
        assert_eq!(
            response.chunk().await.expect("a frame").as_deref(),
            Some(frame.as_bytes())
        );
    }
    drop(response);
    handle.closed().await;

    // A server that breaks off does not look like one that is done.
    let (stream, handle) = Answer::sse();
    upstream.push(stream);
    let response = gateway
        .post("/one/mcp", &echo("a"))
        .send()
        .await
        .expect("answered");
    handle.send("data: 1\n\n").await.expect("sent");
    handle.abort().await.expect("aborted");
    assert!(response.text().await.is_err());
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_ends_the_servers_work() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    upstream.push(Answer::Hang);
    let call = tokio::spawn(answer(gateway.post("/one/mcp", &echo("a"))));
    upstream.wait_for(1).await;
    call.abort();
    upstream.wait_for_abandoned(1).await;
}

#[tokio::test]
async fn answers_that_are_not_mcp_say_what_came() {
    let html = || Answer::raw(400, &[("content-type", "text/html")], "<p>secret page</p>");
    let cases = [
        (Answer::Html, "upstream_not_mcp"),
        (html(), "upstream_not_mcp"),
        (
            Answer::raw(200, &[("content-type", "text/plain")], "hello"),
            "upstream_not_mcp",
        ),
        (
            Answer::Truncated {
                content_length: 100,
                body: b"{\"jsonrpc\":".to_vec(),
            },
            "upstream_truncated",
        ),
        (Answer::CloseWithoutAnswer, "upstream_closed"),
        (
            Answer::Verbatim(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            "upstream_not_mcp",
        ),
        (
            Answer::Redirect {
                status: 302,
                location: "/elsewhere".into(),
            },
            "upstream_redirect",
        ),
    ];
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    for (answer, code) in cases {
        let before = upstream.requests().len();
        upstream.push(answer);
        let (status, body) = gateway.echo("/one/mcp", "a").await;
        assert_eq!(
            (status, &body["error"]["data"]["code"], &body["id"]),
            (502, &code.into(), &7.into()),
            "{body}"
        );
        assert!(!body.to_string().contains("secret page"));
        assert_eq!(
            upstream.requests().len(),
            before + 1,
            "{code}: a call is never repeated"
        );
    }
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_only() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    for status in [307, 308] {
        upstream.push(Answer::Redirect {
            status,
            location: upstream.url(),
        });
        let (status, body) = gateway.echo("/one/mcp", "kept").await;
        assert_eq!(
            (status, &body["result"]["content"][0]["text"]),
            (200, &"kept".into())
        );
        upstream.push(Answer::Redirect {
            status: 307,
            location: other.url() + "?token=x",
        });
        let (status, body) = gateway.echo("/one/mcp", "kept").await;
        assert_eq!(
            (status, &body["error"]["data"]["code"]),
            (502, &"upstream_redirect".into())
        );
        assert!(!body.to_string().contains("token=x"));
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn bodies_and_allowed_headers_pass_as_they_are_and_others_do_not() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry(
        "one",
        &format!("url: {}\nstatic_headers: {{x-static: s}}", upstream.url()),
    ))
    .await;
    let odd = r#" {"method" : "future/thing", "id":1.0,"jsonrpc":"2.0","params":{"b":1,"a":12345678901234567890,"u":"\u00e9"} } "#;
    let reply = br#"{ "jsonrpc":"2.0","id":1.0, "result":{"z":1,"a":1e400} }"#;
    upstream.push(Answer::raw(
        200,
        &[
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("www-authenticate", "Basic"),
            ("mcp-new", "1"),
        ],
        reply,
    ));
    let request = gateway.post("/one/mcp", &json!(null)).body(odd);
    let request = request
        .header("cookie", "c=d")
        .header("x-forwarded-for", "1.2.3.4")
        .header("mcp-tomorrow", "yes");
    let response = request.send().await.expect("answered");
    assert_eq!(response.headers()["mcp-new"], "1");
    for name in ["set-cookie", "www-authenticate"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(response.bytes().await.expect("body").as_ref(), reply);
    let seen = &upstream.requests()[0];
    assert_eq!(seen.body, odd.as_bytes());
    let mut names: Vec<String> = seen
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "mcp-protocol-version",
            "mcp-tomorrow",
            "user-agent",
            "x-static"
        ]
    );
}

#[tokio::test]
async fn limits_answer_with_their_code() {
    let upstream = Upstream::start().await;
    let text = keyed(&entry("one", &format!("url: {}\ntimeout: 0.2", upstream.url())))
        + "vestibule: {limits: {max_body_bytes: 1000, max_header_bytes: 8192, header_timeout: 0.2, body_timeout: 0.2}}\n";
    let gateway = Start::new(text).start().await;
    upstream.push(Answer::Hang);
    assert_eq!(
        gateway.echo("/one/mcp", "a").await.1["error"]["data"]["code"],
        "upstream_timeout"
    );
    assert_eq!(
        gateway.echo("/one/mcp", &"x".repeat(2000)).await.1["error"]["code"],
        "body_too_large"
    );
    let (status, body) = answer(
        gateway
            .post("/one/mcp", &echo("a"))
            .header("mcp-x", "x".repeat(9000)),
    )
    .await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (431, &"headers_too_large".into())
    );

    let mut slow = RawClient::connect(gateway.address).await.expect("connected");
    slow.write("GET /health/liveliness HTTP/1.1\r\nHost: local")
        .await
        .expect("written");
    let slow_answer = slow.read_response().await.expect("answered");
    assert_eq!(
        (slow_answer.status, slow_answer.json()["error"]["code"].clone()),
        (408, "header_timeout".into())
    );
    let mut slow = RawClient::connect(gateway.address).await.expect("connected");
    let head = format!(
        "POST /one/mcp HTTP/1.1\r\nHost: localhost\r\nx-litellm-api-key: {KEY}\r\ncontent-length: 9\r\n\r\n{{"
    );
    slow.write(head).await.expect("written");
    assert_eq!(
        slow.read_response().await.expect("answered").json()["error"]["code"],
        "body_timeout"
    );
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let upstream = Upstream::start().await;
    let text = keyed(&entry("one", &format!("url: {}", upstream.url())))
        + "vestibule: {limits: {max_connections: 1}}\n";
    let gateway = Start::new(text).start().await;
    let mut first = RawClient::connect(gateway.address).await.expect("connected");
    let ask = "GET /health/liveliness HTTP/1.1\r\nHost: localhost\r\n\r\n";
    first.write(ask).await.expect("written");
    assert_eq!(
        first.read_response().await.expect("answered").text(),
        "\"I'm alive!\""
    );
    let mut second = RawClient::connect(gateway.address).await.expect("connected");
    let turned_away = second.read_response().await.expect("answered");
    assert_eq!(
        (turned_away.status, turned_away.json()["error"]["code"].clone()),
        (503, "too_many_connections".into())
    );
}

#[tokio::test]
async fn a_graceful_stop_lets_calls_and_streams_finish() {
    let upstream = Upstream::start().await;
    let mut gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let (stream, handle) = Answer::sse();
    upstream.push(stream);
    let response = gateway
        .post("/one/mcp", &echo("a"))
        .send()
        .await
        .expect("answered");
    let gate = Arc::new(Semaphore::new(0));
    upstream.push(Answer::Gate(Arc::clone(&gate)));
    let call = tokio::spawn(answer(gateway.post("/one/mcp", &echo("late"))));
    upstream.wait_for(2).await;
    let stopped = gateway.stop();
    handle.send("data: 1\n\n").await.expect("sent");
    handle.finish().await.expect("finished");
    gate.add_permits(1);
    assert_eq!(response.text().await.expect("whole"), "data: 1\n\n");
    assert_eq!(
        call.await.expect("joined").1["result"]["content"][0]["text"],
        "late"
    );
    assert!(stopped.await.expect("stopped"), "everything came to its end");
}

#[tokio::test]
async fn routes_and_what_is_no_route() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    for (path, status, code) in [
        ("/", 404, "not_found"),
        ("/one", 404, "not_found"),
        ("/one/mcp/x", 404, "not_found"),
        ("/mcp/sse", 404, "not_supported"),
        ("/a,b/mcp", 404, "unknown_server"),
        ("/%6fne/mcp", 404, "unknown_server"),
        ("/ONE/mcp", 404, "unknown_server"),
    ] {
        let (got, body) = gateway.echo(path, "a").await;
        assert_eq!(
            (got, &body["error"]["code"]),
            (status, &code.into()),
            "{path} {body}"
        );
    }
    let put = gateway
        .http
        .put(gateway.url("/one/mcp"))
        .header("x-litellm-api-key", KEY)
        .send()
        .await
        .expect("answered");
    assert_eq!(
        (
            put.status().as_u16(),
            put.headers()["allow"].to_str().expect("text")
        ),
        (405, "POST, GET, DELETE")
    );
    let foreign = gateway
        .post("/one/mcp", &echo("a"))
        .header("origin", "https://evil.example");
    assert_eq!(answer(foreign).await.1["error"]["code"], "origin_not_allowed");
    let foreign = gateway
        .post("/one/mcp", &echo("a"))
        .header("host", "evil.example");
    assert_eq!(answer(foreign).await.1["error"]["code"], "host_not_allowed");
    gateway.echo("/one/mcp", "a").await;
    let page = gateway
        .http
        .get(gateway.url("/metrics"))
        .header("x-litellm-api-key", KEY)
        .send()
        .await
        .expect("answered")
        .text()
        .await
        .expect("text");
    assert!(
        page.contains(r#"vestibule_requests_total{server="one",class="2xx"} 1"#),
        "{page}"
    );
    assert_eq!(
        answer(gateway.http.get(gateway.url("/health/readiness"))).await.1["status"],
        "healthy"
    );
}

#[tokio::test]
async fn the_debug_headers_tell_a_machine_token_and_a_misplaced_key() {
    let (idp, upstream) = pair().await;
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    let request = gateway
        .http
        .post(gateway.url("/one/mcp"))
        .header("authorization", format!("Bearer {KEY}"));
    let response = request
        .header("X-LiteLLM-MCP-Debug", "TRUE")
        .json(&echo("a"))
        .send()
        .await
        .expect("answered");
    let shown = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(shown("x-mcp-debug-inbound-auth"), "authorization=Bearer****6789");
    assert_eq!(
        shown("x-mcp-debug-oauth2-token"),
        "Bearer****6789 (SAME_AS_LITELLM_KEY - likely misconfigured)"
    );
    assert_eq!(shown("x-mcp-debug-auth-resolution"), "m2m-client-credentials");
    assert_eq!(shown("x-mcp-debug-outbound-url"), upstream.url());
    assert_eq!(shown("x-mcp-debug-server-auth-type"), "oauth2");
    let plain = gateway
        .post("/one/mcp", &echo("a"))
        .send()
        .await
        .expect("answered");
    assert!(
        plain
            .headers()
            .keys()
            .all(|name| !name.as_str().starts_with("x-mcp-debug"))
    );
}

#[tokio::test]
async fn the_rest_facade_finds_the_one_server_or_names_both() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.set_tools(&["echo", "only_one"]);
    second.set_tools(&["echo"]);
    second.set_session(Some("s"));
    let servers =
        entry("one", &format!("url: {}", first.url())) + &entry("two", &format!("url: {}", second.url()));
    let gateway = TestGateway::with_servers(&servers).await;
    let call = |body: serde_json::Value| answer(gateway.post("/mcp-rest/tools/call", &body));
    let (status, body) = call(json!({"name": "echo", "arguments": {"message": "x"}})).await;
    assert_eq!(
        (status, &body["detail"]["error"]),
        (400, &"ambiguous_tool".into())
    );
    assert!(
        body["detail"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("one, two")),
        "{body}"
    );
    for body in [
        json!({"name": "echo", "server_id": "two", "arguments": {"message": "x"}}),
        json!({"name": "two-echo", "arguments": {"message": "x"}}),
    ] {
        assert_eq!(call(body).await.1["content"][0]["text"], "x");
    }
    assert_eq!(call(json!({"name": "nothing"})).await.0, 404);
    assert_eq!(
        call(json!({"arguments": {}})).await.1["detail"]["error"],
        "missing_parameter"
    );
    let list = gateway
        .http
        .get(gateway.url("/mcp-rest/tools/list"))
        .header("authorization", format!("Bearer {KEY}"));
    let (status, body) = answer(list).await;
    assert_eq!(
        (status, body["tools"].as_array().map(Vec::len), &body["error"]),
        (200, Some(3), &json!(null))
    );
    assert_eq!(body["tools"][0]["mcp_info"]["server_name"], "one");
}

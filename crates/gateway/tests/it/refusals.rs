//! What a server does instead of answering in MCP: redirects, broken and foreign answers, closed connections.

use crate::by_hand::{ByHand, Watched, ask, code, echo_body, gateway_and_server, head, post, result, sent};
use crate::harness::{TestGateway, entry};
use serde_json::json;
use vestibule_testkit::{Answer, Response, free_addr};

fn redirect(status: u16, location: impl Into<String>) -> Answer {
    Answer::Redirect {
        status,
        location: location.into(),
    }
}

/// Checks a refusal of request 7 and gives its text.
fn refused(response: &Response, status: u16, expected: &str) -> String {
    let body = response.json();
    assert_eq!((response.status, code(&body)), (status, expected), "{body}");
    assert_eq!(
        (&body["jsonrpc"], &body["id"]),
        (&json!("2.0"), &json!(7)),
        "{body}"
    );
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(
        response.header("x-request-id"),
        body["error"]["data"]["request_id"].as_str()
    );
    body["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn redirects_within_the_origin_keep_method_headers_and_body() {
    let (gateway, server) = gateway_and_server().await;
    for status in [307, 308] {
        for location in ["/v2/mcp?x=1".to_owned(), format!("{}/v2/mcp?x=1", server.base())] {
            let before = server.requests().len();
            server.push(redirect(status, &location));
            server.push(Answer::json(200, &result("moved")));
            let response = ask(&gateway, post("Mcp-Name: echo\r\n", echo_body("x"))).await;
            assert_eq!(
                response.json()["result"]["content"][0]["text"],
                "moved",
                "{response:?}"
            );
            let seen = &server.requests()[before..];
            assert_eq!(seen.len(), 2);
            assert_eq!(
                (seen[1].method.as_str(), seen[1].target.as_str()),
                ("POST", "/v2/mcp?x=1")
            );
            assert_eq!(
                (&seen[1].body, &seen[1].headers),
                (&seen[0].body, &seen[0].headers)
            );
        }
    }
    for method in ["GET", "DELETE"] {
        server.push(redirect(307, "/v2/mcp"));
        server.push(Answer::raw(405, &[], ""));
        assert_eq!(ask(&gateway, head(method, "/one/mcp", "")).await.status, 405);
        let requests = server.requests();
        let last = requests.last().expect("seen");
        assert_eq!((last.method.as_str(), last.path()), (method, "/v2/mcp"));
    }
}

#[tokio::test]
async fn a_relative_redirect_starts_from_where_the_last_one_led() {
    let (gateway, server) = gateway_and_server().await;
    server.push(redirect(307, "/v2/deep/mcp"));
    server.push(redirect(308, "other?x=1"));
    server.push(redirect(307, "../up"));
    server.push(Answer::json(200, &result("x")));
    assert_eq!(ask(&gateway, post("", echo_body("x"))).await.status, 200);
    let requests = server.requests();
    let targets: Vec<&str> = requests.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/mcp", "/v2/deep/mcp", "/v2/deep/other?x=1", "/v2/up"]);
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_loop_ends() {
    let (gateway, server) = gateway_and_server().await;
    for _ in 0..3 {
        server.push(redirect(307, "/mcp"));
    }
    assert_eq!(ask(&gateway, post("", echo_body("x"))).await.status, 200);
    assert_eq!(server.requests().len(), 4);
    for _ in 0..4 {
        server.push(redirect(307, "/mcp"));
    }
    let response = ask(&gateway, post("", echo_body("x"))).await;
    refused(&response, 502, "upstream_redirect");
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn redirects_to_another_origin_are_not_followed_and_named_by_origin_alone() {
    let (gateway, server) = gateway_and_server().await;
    let other = Watched::start().await;
    let port = server.addr().port();
    let path = "secret-path/mcp?token=secret-query";
    let cases = [
        (format!("{}/{path}", other.base()), other.base()),
        (format!("//{}/{path}", other.addr()), other.base()),
        (
            format!("http://localhost:{port}/{path}"),
            format!("http://localhost:{port}"),
        ),
        (
            format!("https://127.0.0.1:{port}/{path}"),
            format!("https://127.0.0.1:{port}"),
        ),
        (
            format!("http://secret-user:secret-pass@{}/{path}", other.addr()),
            other.base(),
        ),
        (format!("http://127.0.0.1/{path}"), "http://127.0.0.1,".to_owned()),
        ("file:///etc/secret-path".to_owned(), "(307)".to_owned()),
    ];
    for (index, (location, named)) in cases.into_iter().enumerate() {
        server.push(redirect(307, &location));
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_redirect",
        );
        assert!(text.contains(&named) && !text.contains("secret"), "{text}");
        assert_eq!(server.requests().len(), index + 1);
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn redirects_that_change_the_method_are_not_followed() {
    let (gateway, server) = gateway_and_server().await;
    for status in [300, 301, 302, 303, 304, 305] {
        server.push(redirect(status, "/secret-path"));
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_redirect",
        );
        assert!(
            text.contains(&status.to_string()) && !text.contains("secret"),
            "{text}"
        );
    }
    for headers in [&[][..], &[("Location", "http://[")]] {
        server.push(Answer::raw(307, headers, ""));
        refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_redirect",
        );
    }
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn what_is_not_mcp_is_a_502_that_says_what_came_and_not_the_body() {
    let (gateway, server) = gateway_and_server().await;
    let page = "<html>canary-body</html>";
    let html = |status| {
        (
            Answer::raw(status, &[("Content-Type", "text/html; charset=utf-8")], page),
            vec!["text/html".to_owned(), status.to_string()],
        )
    };
    let of_type = |content_type: &str, says: &str| {
        (
            Answer::raw(200, &[("Content-Type", content_type)], page),
            vec![says.to_owned()],
        )
    };
    let cases = [
        html(200),
        html(400),
        html(500),
        html(403),
        of_type("text/plain", "plain text"),
        of_type("application/octet-stream", "application/octet-stream"),
        of_type("application/jsonx", "application/jsonx"),
        (
            Answer::raw(200, &[], "{\"canary-body\":1}"),
            vec!["no content type".to_owned()],
        ),
    ];
    let asked = cases.len();
    for (answer, says) in cases {
        server.push(answer);
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_not_mcp",
        );
        assert!(says.iter().all(|word| text.contains(word)), "{says:?}: {text}");
        assert!(!text.contains("canary-body"), "{text}");
    }
    server.push(Answer::json(200, &json!({"canary-body": 1})));
    let response = ask(&gateway, head("GET", "/one/mcp", "Accept: text/event-stream\r\n")).await;
    assert_eq!(
        (response.status, code(&response.json())),
        (502, "upstream_not_mcp")
    );
    assert!(!response.text().contains("canary-body"));
    assert_eq!(server.requests().len(), asked + 1, "no call is repeated");
}

#[tokio::test]
async fn statuses_that_mcp_gives_a_meaning_pass_without_their_page() {
    let (gateway, server) = gateway_and_server().await;
    for (method, status) in [
        ("GET", 404),
        ("GET", 405),
        ("DELETE", 404),
        ("DELETE", 405),
        ("POST", 404),
    ] {
        let headers = [
            ("Content-Type", "text/html"),
            ("Content-Encoding", "identity"),
            ("Allow", "POST"),
        ];
        server.push(Answer::raw(status, &headers, "<html>canary-body</html>"));
        let more = format!("Content-Length: 2\r\n{}", "Content-Type: application/json\r\n");
        let response = ask(&gateway, head(method, "/one/mcp", &more) + "{}").await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (status, ""),
            "{method}"
        );
        assert_eq!(response.header("allow"), Some("POST"));
        assert_eq!(response.header("content-type"), None);
        assert_eq!(response.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn a_content_type_cannot_write_into_the_message() {
    let (gateway, server) = gateway_and_server().await;
    let kind = format!("x/\u{e9}\t<script>{}", "y".repeat(500));
    server.push(Answer::raw(200, &[("Content-Type", kind.as_str())], ""));
    let text = refused(
        &ask(&gateway, post("", echo_body("x"))).await,
        502,
        "upstream_not_mcp",
    );
    assert!(text.len() < 300 && text.is_ascii(), "{text}");
}

#[tokio::test]
async fn answers_that_end_early_are_502_and_not_half_an_answer() {
    let (gateway, server) = gateway_and_server().await;
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        Answer::Truncated {
            content_length: 100,
            body: b"{\"canary-body\":".to_vec(),
        },
        Answer::Truncated {
            content_length: 100,
            body: Vec::new(),
        },
        Answer::Verbatim(format!("{chunked}f\r\n{{\"canary-body\":\r\n").into_bytes()),
        Answer::Verbatim(format!("{chunked}ff\r\n{{\"canary").into_bytes()),
        Answer::Verbatim(format!("{chunked}zz\r\n{{\"canary").into_bytes()),
        Answer::Verbatim(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"canary-body\":".to_vec(),
        ),
        Answer::Verbatim(
            b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"canary-body\":[\"".to_vec(),
        ),
    ];
    let asked = cases.len();
    for answer in cases {
        server.push(answer);
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_truncated",
        );
        assert!(text.contains("ended before its end"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
    assert_eq!(server.requests().len(), asked, "no call is repeated");
}

#[tokio::test]
async fn an_answer_that_the_end_of_the_connection_ends_is_whole() {
    let (gateway, server) = gateway_and_server().await;
    server.push(Answer::Verbatim(
        format!(
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
            result("old")
        )
        .into_bytes(),
    ));
    let response = ask(&gateway, post("", echo_body("x"))).await;
    assert_eq!((response.status, response.json()), (200, result("old")));
}

#[tokio::test]
async fn a_long_answer_that_ends_early_is_cut_and_not_ended() {
    let (gateway, server) = gateway_and_server().await;
    server.push(Answer::Truncated {
        content_length: 1_000_000,
        body: vec![b' '; 500_000],
    });
    let mut client = sent(&gateway, post("", echo_body("x"))).await;
    assert!(client.read_response().await.is_err());
}

#[tokio::test]
async fn what_is_not_http_says_so() {
    let (gateway, server) = gateway_and_server().await;
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        "\0\0\0\0\0\0\r\n\r\n",
    ] {
        server.push(Answer::Verbatim(answer.as_bytes().to_vec()));
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_not_mcp",
        );
        assert!(text.contains("not HTTP"), "{answer:?}: {text}");
    }
    assert_eq!(server.requests().len(), 7, "no call is repeated");
}

#[tokio::test]
async fn a_response_head_has_a_limit() {
    let (gateway, server) = gateway_and_server().await;
    let long = "x".repeat(300 * 1024);
    server.push(Answer::raw(
        200,
        &[("Content-Type", "application/json"), ("X-Long", long.as_str())],
        "{}",
    ));
    let many: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    server.push(Answer::Verbatim(
        format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes(),
    ));
    for _ in 0..2 {
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_not_mcp",
        );
        assert!(text.contains("not HTTP") && text.len() < 400, "{text}");
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_answer_with_two_framings_is_read_by_its_chunks_or_not_at_all() {
    let (gateway, server) = gateway_and_server().await;
    for kind in ["application/json", "text/event-stream"] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        server.push(Answer::Verbatim(
            format!("{head}8\r\n{{\"a\": 1}}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nsmuggled").into_bytes(),
        ));
        let response = ask(&gateway, post("", echo_body("x"))).await;
        if response.status == 200 {
            assert_eq!(response.text(), "{\"a\": 1}", "{response:?}");
            assert_ne!(response.header("content-length"), Some("3"));
        } else {
            refused(&response, 502, "upstream_not_mcp");
        }
        let response = ask(&gateway, post("", echo_body("next"))).await;
        assert_eq!(response.json()["result"]["content"][0]["text"], "next");
    }
}

#[tokio::test]
async fn a_server_that_only_ever_says_continue_runs_into_the_timeout() {
    let server = ByHand::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "timeout: 0.3")).await;
    let flood = async {
        let mut connection = server.accept().await;
        connection.request().await;
        while connection
            .write("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))
            .await
            .is_ok()
        {}
    };
    let (response, ()) = tokio::join!(ask(&gateway, post("", echo_body("x"))), flood);
    refused(&response, 504, "upstream_timeout");
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_502_and_the_call_runs_once() {
    let (gateway, server) = gateway_and_server().await;
    server.push(Answer::CloseWithoutAnswer);
    server.push(Answer::Verbatim(b"HTTP/1.1 200".to_vec()));
    for _ in 0..2 {
        let text = refused(
            &ask(&gateway, post("", echo_body("x"))).await,
            502,
            "upstream_closed",
        );
        assert!(text.contains("may have been carried out"), "{text}");
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_call_does_not_run_it_again() {
    let server = ByHand::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let mut client = sent(&gateway, post("", echo_body("1"))).await;
    let mut kept = server.accept().await;
    kept.request().await;
    kept.answer(&result("1")).await;
    assert_eq!(client.read_response().await.expect("a response").status, 200);
    client.write(post("", echo_body("2"))).await.expect("written");
    kept.request().await;
    drop(kept);
    refused(
        &client.read_response().await.expect("a response"),
        502,
        "upstream_closed",
    );
    server.nobody_else_came().await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_while_idle_is_replaced_and_the_call_runs_once() {
    let server = ByHand::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let mut client = sent(&gateway, post("", echo_body("0"))).await;
    for number in 1..20 {
        let mut connection = server.accept().await;
        connection.request().await;
        connection.answer(&result(&number.to_string())).await;
        let response = client.read_response().await.expect("a response");
        assert_eq!(
            response.json()["result"]["content"][0]["text"],
            number.to_string(),
            "{response:?}"
        );
        connection.close().await;
        client
            .write(post("", echo_body(&number.to_string())))
            .await
            .expect("written");
    }
    let mut last = server.accept().await;
    last.request().await;
    server.nobody_else_came().await;
}

#[tokio::test]
async fn a_server_that_says_close_gets_a_new_connection_for_the_next_call() {
    let server = ByHand::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let mut client = sent(&gateway, "").await;
    for header in ["Connection: close", "Keep-Alive: timeout=1"] {
        client.write(post("", echo_body("x"))).await.expect("written");
        let mut connection = server.accept().await;
        connection.request().await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{header}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        connection.write(answer).await.expect("written");
        assert_eq!(client.read_response().await.expect("a response").text(), "{}");
        connection.closed().await;
    }
}

#[tokio::test]
async fn nobody_at_the_servers_address_is_a_502_with_the_reason() {
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: http://{}/mcp", free_addr()))).await;
    let text = refused(
        &ask(&gateway, post("", echo_body("x"))).await,
        502,
        "upstream_unreachable",
    );
    assert!(text.contains("refused") && text.contains("one"), "{text}");
}

#[tokio::test]
async fn a_refusal_carries_the_requests_own_id_as_it_was_written() {
    let (gateway, server) = gateway_and_server().await;
    for id in [
        "0",
        "-7",
        "\"server-discover-probe-1\"",
        "\"\\u00e9\"",
        "18446744073709551615",
        "123456789012345678901234567890",
        "1.0",
        "1e2",
    ] {
        server.push(Answer::Html);
        let body = format!(r#"{{"method":"tools/call","params":{{"id":99}},"id":{id},"jsonrpc":"2.0"}}"#);
        let response = ask(&gateway, post("", body)).await;
        assert_eq!(response.status, 502);
        let text = response.text();
        assert!(text.contains(&format!(r#""id":{id},"#)), "{text}");
        assert!(response.json()["error"]["code"].is_number(), "{text}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/x"}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"x"}]"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
        "no JSON",
    ] {
        server.push(Answer::Html);
        let response = ask(&gateway, post("", body)).await;
        assert_eq!(
            (response.status, response.json().get("id")),
            (502, None),
            "{}",
            response.text()
        );
    }
}

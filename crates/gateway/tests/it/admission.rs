//! Who is let in: every place and spelling of the gateway key, what a refusal says and what it does not, and
//! that the key stays here whatever a server is shown.

use crate::by_hand::{ask, code};
use crate::harness::{
    CLIENT_SECRET, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, machine,
};
use serde_json::Value;
use vestibule_testkit::{Answer, Idp, Response, Upstream};

const X: &str = "X-LiteLLM-API-Key";
const AUTHORIZATION: &str = "Authorization";

/// A POST of `tools/call echo` to `path` with these header lines and no others that matter.
fn request(path: &str, headers: &[(&str, &[u8])]) -> Vec<u8> {
    let body = echo("in").to_string();
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend([b"\r\n", body.as_bytes()].concat());
    bytes
}

async fn open_and_keyed() -> (Upstream, TestGateway) {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    (upstream, gateway)
}

/// The key with something before and after it.
fn around(before: &str, after: &str) -> Vec<u8> {
    [before, KEY, after].concat().into_bytes()
}

#[tokio::test]
async fn the_key_is_taken_in_every_place_and_spelling() {
    let (upstream, gateway) = open_and_keyed().await;
    let mut cases: Vec<Vec<(&str, Vec<u8>)>> = Vec::new();
    for place in [
        X,
        "x-litellm-api-key",
        "X-LITELLM-API-KEY",
        AUTHORIZATION,
        "authorization",
    ] {
        for (before, after) in [
            ("", ""),
            ("Bearer ", ""),
            ("bearer ", ""),
            ("BEARER ", ""),
            ("bEaReR   ", ""),
            ("  ", "  "),
            ("Bearer ", " \t "),
        ] {
            cases.push(vec![(place, around(before, after))]);
        }
    }
    let (bare, bearer) = (around("", ""), around("Bearer ", ""));
    cases.push(vec![(X, bare.clone()), (AUTHORIZATION, bearer.clone())]);
    cases.push(vec![(AUTHORIZATION, bearer.clone()), (X, bare.clone())]);
    // The dedicated header counts alone; what stands in the other one is not judged.
    cases.push(vec![
        (X, bare),
        (AUTHORIZATION, b"Bearer something-else".to_vec()),
    ]);
    cases.push(vec![
        (X, bearer.clone()),
        (AUTHORIZATION, b"Bearer \xff\xfe".to_vec()),
    ]);
    // Empty is as good as absent.
    cases.push(vec![(X, Vec::new()), (AUTHORIZATION, bearer.clone())]);
    cases.push(vec![(X, bearer), (AUTHORIZATION, Vec::new())]);
    for case in &cases {
        let headers: Vec<_> = case
            .iter()
            .map(|(name, value)| (*name, value.as_slice()))
            .collect();
        for path in ["/one/mcp", "/mcp/one/"] {
            let response = ask(&gateway, request(path, &headers)).await;
            assert_eq!(response.status, 200, "{case:?}: {}", response.text());
        }
    }
    assert_eq!(upstream.requests().len(), cases.len() * 2);
    upstream.assert_never_seen(KEY);
}

/// What a refusal at the door must be; gives back its code.
fn refused(response: &Response) -> String {
    let body = response.json();
    let error = &body["error"];
    let fields: Vec<_> = error.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["code", "next_step", "request_id", "message"], "{body}");
    assert_eq!(
        error["request_id"],
        response.header("x-request-id").expect("an id")
    );
    for text in ["message", "next_step"] {
        assert!(error[text].as_str().is_some_and(|text| text.len() > 10), "{body}");
    }
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    code(&body).to_owned()
}

#[tokio::test]
async fn what_is_not_the_key_is_refused_and_the_challenge_says_which_way() {
    let (upstream, gateway) = open_and_keyed().await;
    let shorter = &KEY.as_bytes()[..KEY.len() - 1];
    let upper = KEY.to_uppercase().into_bytes();
    let long = "k".repeat(20_000).into_bytes();
    let wrong: Vec<(&[u8], &str)> = vec![
        (b"sk-wrong", "another"),
        (shorter, "all but its end"),
        (&KEY.as_bytes()[1..], "all but its beginning"),
        (&upper, "another case"),
        (b"Bearer", "a scheme alone"),
        (b"Bearer  ", "a scheme and nothing"),
        (&long, "a very long one"),
        (b"\xc3\xbc\xe2\x82\xac", "not ASCII"),
        (b"\xff\xfe\x80", "not UTF-8"),
        (b"%73k-canary-gateway-key-0123456789", "percent-encoded"),
    ];
    let wrong = wrong.into_iter().map(|(value, what)| (value.to_vec(), what));
    let built = [
        (around("", "x"), "more after it"),
        (around("x", ""), "more before it"),
        (around("Basic ", ""), "another scheme"),
        (around("Token ", ""), "another scheme"),
        (around("Bearer\t", ""), "a tab after the scheme"),
        (around("Bearer Bearer ", ""), "the scheme twice"),
        (around("Bearer,", ""), "a comma"),
        (around("\"", "\""), "quotes"),
        (around("", &format!(", {KEY}")), "a list"),
        ([KEY.as_bytes(), b"\xff"].concat(), "bytes after it"),
    ];
    for (value, what) in wrong.chain(built) {
        for place in [X, AUTHORIZATION] {
            let response = ask(&gateway, request("/one/mcp", &[(place, &value)])).await;
            assert_eq!(
                (response.status, refused(&response).as_str()),
                (401, "wrong_key"),
                "{what}"
            );
            // In Authorization it may be a server's token, which a new sign-in would not make a key.
            let challenge = if place == X {
                r#"Bearer realm="vestibule", error="invalid_token""#
            } else {
                r#"Bearer realm="vestibule""#
            };
            assert_eq!(response.header("www-authenticate"), Some(challenge), "{what}");
            let shown = format!("{:?}{}", response.headers, response.text());
            assert!(
                !shown.contains("canary") && !shown.contains("kkk"),
                "{what}: {shown}"
            );
        }
        // In the dedicated header it counts, whatever stands in the other.
        let key = around("Bearer ", "");
        let both = request("/one/mcp", &[(AUTHORIZATION, &key), (X, &value)]);
        assert_eq!(refused(&ask(&gateway, both).await), "wrong_key", "{what}");
    }
    for absent in [&[][..], &[(X, &b""[..])], &[(X, b"  "), (AUTHORIZATION, b"")]] {
        let response = ask(&gateway, request("/one/mcp", absent)).await;
        assert_eq!(
            (response.status, refused(&response).as_str()),
            (401, "missing_key")
        );
        assert_eq!(
            response.header("www-authenticate"),
            Some(r#"Bearer realm="vestibule""#)
        );
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_key_header_that_stands_twice_is_refused_even_when_both_are_right() {
    let (upstream, gateway) = open_and_keyed().await;
    let (bare, bearer) = (around("", ""), around("Bearer ", ""));
    for (first, second) in [
        ((X, &bare), (X, &bare)),
        ((X, &bare), ("x-litellm-api-key", &bearer)),
        ((AUTHORIZATION, &bearer), (AUTHORIZATION, &bearer)),
        ((AUTHORIZATION, &bearer), ("authorization", &b"Bearer x".to_vec())),
        ((X, &Vec::new()), (X, &bare)),
        ((X, &bare), (X, &Vec::new())),
    ] {
        let headers = [(first.0, first.1.as_slice()), (second.0, second.1.as_slice())];
        let response = ask(&gateway, request("/one/mcp", &headers)).await;
        assert_eq!(
            (response.status, refused(&response).as_str()),
            (400, "repeated_header")
        );
        // A right key beside it does not help.
        let other = if first.0 == X { AUTHORIZATION } else { X };
        let headers = [headers[0], headers[1], (other, bearer.as_slice())];
        let response = ask(&gateway, request("/one/mcp", &headers)).await;
        assert_eq!(refused(&response), "repeated_header");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_key_past_the_limit_of_headers_is_refused_for_its_length() {
    let (upstream, gateway) = open_and_keyed().await;
    let long = format!("Bearer {}", "k".repeat(33 * 1024));
    let response = ask(&gateway, request("/one/mcp", &[(X, long.as_bytes())])).await;
    assert_eq!(
        (response.status, refused(&response).as_str()),
        (431, "headers_too_large")
    );
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn the_rest_facade_is_guarded_by_the_same_key() {
    let (upstream, gateway) = open_and_keyed().await;
    let list = |headers: &str| {
        let request = format!("GET /mcp-rest/tools/list HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        ask(&gateway, request)
    };
    for (headers, status, error) in [
        (String::new(), 401, "missing_key"),
        ("Authorization: Bearer sk-wrong\r\n".to_owned(), 401, "wrong_key"),
        (
            format!("{X}: sk-wrong\r\nAuthorization: Bearer {KEY}\r\n"),
            401,
            "wrong_key",
        ),
        (format!("{X}: {KEY}\r\n{X}: {KEY}\r\n"), 400, "repeated_header"),
    ] {
        let response = list(&headers).await;
        let body = response.json();
        assert_eq!((response.status, code(&body)), (status, error), "{headers}");
        let challenged = response.header("www-authenticate").is_some();
        assert_eq!(challenged, status == 401, "{headers}");
        let id = response.header("x-request-id").expect("an id");
        assert_eq!(body["detail"]["request_id"], id);
    }
    let arguments = r#"{"name":"echo","arguments":{"message":"in"}}"#;
    let call = format!(
        "POST /mcp-rest/tools/call HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{arguments}",
        arguments.len()
    );
    assert_eq!(ask(&gateway, call).await.status, 401);
    assert!(upstream.requests().is_empty());
    for headers in [
        format!("{X}: {KEY}\r\n"),
        format!("authorization: bearer {KEY}\r\n"),
    ] {
        assert_eq!(list(&headers).await.status, 200, "{headers}");
    }
    upstream.assert_never_seen(KEY);
}

/// A response without what differs from one to the next anyway.
fn anonymous(response: &Response) -> (u16, Vec<(String, String)>, Value) {
    let mut headers = response.headers.clone();
    headers.retain(|(name, _)| name != "x-request-id" && name != "date");
    let mut body = response.json();
    assert!(body["error"]["request_id"].take().is_string(), "{body}");
    (response.status, headers, body)
}

#[tokio::test]
async fn before_admission_a_server_looks_like_none() {
    let upstream = Upstream::start().await;
    let servers = entry("one", &format!("url: {}\nalias: uno", upstream.url()));
    let gateway = TestGateway::with_servers(&servers).await;
    for key in ["", "Authorization: Bearer sk-wrong\r\n"] {
        for method in ["POST", "GET", "DELETE", "PUT", "OPTIONS"] {
            let mut answers = Vec::new();
            for name in ["one", "uno", "nowhere", "%6fne", "on"] {
                for more in ["", "Mcp-Session-Id: x\r\n", "x-litellm-mcp-debug: true\r\n"] {
                    let request = format!(
                        "{method} /{name}/mcp HTTP/1.1\r\nHost: localhost\r\n{key}{more}Content-Length: 1\r\n\r\n{{"
                    );
                    answers.push(anonymous(&ask(&gateway, request).await));
                }
            }
            assert_eq!(answers[0].0, 401, "{method}");
            for answer in &answers {
                assert_eq!(answer, &answers[0], "{method}");
            }
        }
        let mut bodies = Vec::new();
        for id in ["one", "uno", "nowhere"] {
            let request =
                format!("GET /mcp-rest/tools/list?server_id={id} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n");
            let response = ask(&gateway, request).await;
            let mut body = response.json();
            assert!(body["detail"]["request_id"].take().is_string(), "{body}");
            bodies.push((response.status, body));
        }
        assert_eq!(bodies[0].0, 401);
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    }
    // Who is admitted is told.
    for (name, status) in [("one", 200), ("uno", 200), ("nowhere", 404), ("%6fne", 404)] {
        let path = format!("/{name}/mcp");
        let response = ask(&gateway, request(&path, &[(X, KEY.as_bytes())])).await;
        assert_eq!(response.status, status, "{name}");
        assert!(status == 200 || refused(&response) == "unknown_server");
    }
}

#[tokio::test]
async fn a_server_gets_its_own_credential_and_never_the_callers_key() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let types = [
        ("none", None),
        ("api_key", Some(("x-api-key", "user:pass"))),
        ("bearer_token", Some(("authorization", "Bearer user:pass"))),
        ("token", Some(("authorization", "token user:pass"))),
        ("authorization", Some(("authorization", "user:pass"))),
        ("basic", Some(("authorization", "Basic dXNlcjpwYXNz"))),
    ];
    let mut servers = machine(
        "to_oauth2",
        &upstream.url(),
        &idp.url(),
        "extra_headers: [Authorization]",
    );
    for (auth_type, shown) in types {
        let mut fields = format!(
            "url: {}\nauth_type: {auth_type}\nextra_headers: [Authorization]",
            upstream.url()
        );
        if shown.is_some() {
            fields += "\nauthentication_token: 'user:pass'";
        }
        servers += &entry(&format!("to_{auth_type}"), &fields);
    }
    // A gateway that asks for no key keeps one that is presented all the same.
    let keyed = TestGateway::with_servers(&servers).await;
    let open = Start::new(format!("mcp_servers:\n{servers}")).start().await;
    let (bare, bearer) = (around("", ""), around("Bearer ", ""));
    let lower = around("bearer ", "");
    let places: [&[(&str, &[u8])]; 5] = [
        &[(X, &bare)],
        &[(X, &bearer)],
        &[(X, &bare), (AUTHORIZATION, &bearer)],
        &[(X, &lower), (AUTHORIZATION, &bare)],
        &[(AUTHORIZATION, &bearer)],
    ];
    let machine = ("oauth2", Some(("authorization", "")));
    for (auth_type, shown) in types.into_iter().chain([machine]) {
        for (gateway, places) in [(&keyed, &places[..]), (&open, &places[..4])] {
            for place in places {
                let path = format!("/to_{auth_type}/mcp");
                assert_eq!(
                    ask(gateway, request(&path, place)).await.status,
                    200,
                    "{auth_type}"
                );
                let seen = upstream.requests().pop().expect("a request");
                let token = (auth_type == "oauth2").then(|| format!("Bearer {}", idp.last_token()));
                for header in ["authorization", "x-api-key", "x-litellm-api-key"] {
                    let expected = shown.filter(|(name, _)| *name == header);
                    let expected = expected.map(|(_, value)| token.as_deref().unwrap_or(value));
                    assert_eq!(seen.header(header), expected, "{auth_type} {header} {place:?}");
                }
            }
        }
        let list = keyed
            .http
            .get(keyed.url(&format!("/mcp-rest/tools/list?server_id=to_{auth_type}")));
        assert_eq!(got(list.bearer_auth(KEY)).await.status, 200, "{auth_type}");
    }
    upstream.assert_never_seen(KEY);
    upstream.assert_never_seen(CLIENT_SECRET);
    idp.assert_never_seen(KEY);
    assert_nothing_secret_logged(&[&idp.last_token()]);
}

#[tokio::test]
async fn what_a_caller_shows_a_server_goes_along_and_the_key_beside_it_does_not() {
    let upstream = Upstream::start().await;
    let fields = format!("url: {}\nextra_headers: [Authorization, X-Mine]", upstream.url());
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let mine = b"Bearer the-callers-own-token";
    let key = around("", "");
    for (value, passed) in [
        (mine.to_vec(), true),
        (around("", ""), false),
        (around("Basic ", ""), false),
        (around("a=", "; b=c"), false),
    ] {
        upstream.push(Answer::json(
            200,
            &serde_json::json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
        ));
        let headers: [(&str, &[u8]); 3] = [(X, &key), (AUTHORIZATION, &value), ("X-Mine", &value)];
        assert_eq!(ask(&gateway, request("/one/mcp", &headers)).await.status, 200);
        let seen = upstream.requests().pop().expect("a request");
        for name in ["authorization", "x-mine"] {
            let expected = passed.then_some("Bearer the-callers-own-token");
            assert_eq!(seen.header(name), expected, "{name}");
        }
    }
    upstream.assert_never_seen(KEY);
}

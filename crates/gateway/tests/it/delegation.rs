//! Servers that judge their callers themselves: who comes in without a gateway key and how far, what the server's
//! challenge becomes, and where its metadata is found.

use crate::by_hand::Watched;
use crate::harness::{
    Got, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed, logged, machine,
    personal,
};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Idp, Provider, Upstream};

const TOKEN: &str = "canary-token-of-the-upstreams-own";
pub(crate) const DELEGATED: &str = "auth_type: oauth2\ndelegate_auth_to_upstream: true";

type Lines<'l> = &'l [&'l str];

/// An upstream that takes [`TOKEN`] and says that people sign in at `https://as.example`.
pub(crate) async fn strict() -> Watched {
    let server = Watched::start().await;
    server.accept(TOKEN);
    server.describe(&json!({
        "resource": server.url(),
        "authorization_servers": ["https://as.example", "https://as.example/"],
        "scopes_supported": ["read"],
        "signed_metadata": "a.b.c",
    }));
    server
}

/// A gateway that wants a key, with `strict` as `notion`.
async fn delegated() -> (TestGateway, Watched) {
    let server = strict().await;
    let gateway = TestGateway::with_servers(&server.entry("notion", DELEGATED)).await;
    (gateway, server)
}

/// `tools/call echo` with these headers and no others that matter.
pub(crate) fn call(gateway: &TestGateway, path: &str, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let request = gateway
        .http
        .post(gateway.url(path))
        .header("accept", "application/json, text/event-stream");
    let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| request.header(*name, *value);
    headers.iter().fold(request, add).json(&echo("hello"))
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub(crate) fn challenge(answer: &Got) -> Vec<&str> {
    let values = answer.headers.get_all("www-authenticate").iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

/// The calls among what a server has seen, without the search for its metadata.
pub(crate) fn calls(server: &Upstream) -> Vec<vestibule_testkit::Request> {
    let mut requests = server.requests();
    requests.retain(|request| request.json()["method"] == "tools/call");
    requests
}

#[tokio::test]
async fn a_caller_without_a_key_signs_in_at_the_upstreams_own() {
    let (gateway, server) = delegated().await;
    for path in ["/notion/mcp", "/mcp/notion", "/notion/mcp/"] {
        let first = got(call(&gateway, path, &[])).await;
        let document = gateway.url(&format!("/.well-known/oauth-protected-resource{path}"));
        assert_eq!(first.status, 401);
        assert_eq!(
            challenge(&first),
            [format!("Bearer resource_metadata=\"{document}\"")]
        );
        // What the client is told is about the URL that it used, in its own spelling.
        let told = got(gateway.http.get(&document)).await;
        assert_eq!(told.status, 200);
        assert_eq!(
            told.body,
            json!({
                "resource": gateway.url(path),
                "authorization_servers": ["https://as.example", "https://as.example/"],
                "scopes_supported": ["read"],
            })
        );
        assert_eq!(told.header("access-control-allow-origin"), "*");
        let refused = got(call(&gateway, path, &[("authorization", "Bearer stale")])).await;
        assert_eq!(
            challenge(&refused),
            [format!(
                "Bearer resource_metadata=\"{document}\", error=\"invalid_token\""
            )]
        );
        let answer = got(call(&gateway, path, &[("authorization", &bearer(TOKEN))])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["result"]["content"][0]["text"], "hello");
        let seen = calls(&server);
        assert_eq!(
            seen.last().expect("a call").header("authorization"),
            Some(&*bearer(TOKEN))
        );
    }
    assert_nothing_secret_logged(&[TOKEN]);
}

#[tokio::test]
async fn the_metadata_is_found_wherever_clients_look_and_nothing_else_is() {
    let (gateway, _server) = delegated().await;
    for (path, resource) in [
        ("/.well-known/oauth-protected-resource/notion/mcp", "/notion/mcp"),
        ("/notion/mcp/.well-known/oauth-protected-resource", "/notion/mcp"),
        ("/.well-known/oauth-protected-resource/mcp/notion", "/mcp/notion"),
        ("/.well-known/oauth-protected-resource", "/notion/mcp"),
    ] {
        let answer = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!(answer.body["resource"], gateway.url(resource), "{path}");
    }
    // The client talks to the provider itself.
    for path in [
        "/.well-known/oauth-authorization-server/notion",
        "/.well-known/oauth-authorization-server/notion/mcp",
        "/.well-known/openid-configuration/notion",
        "/.well-known/oauth-authorization-server",
        "/notion/authorize",
        "/.well-known/oauth-protected-resource/other/mcp",
    ] {
        let answer = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!((answer.status, answer.code()), (404, "no_sign_in"), "{path}");
    }
    for path in ["/notion/register", "/notion/token", "/notion/mcp/token"] {
        let answer = got(gateway.http.post(gateway.url(path)).json(&json!({}))).await;
        assert_eq!((answer.status, answer.code()), (404, "no_sign_in"), "{path}");
    }
    let document = gateway.url("/.well-known/oauth-protected-resource/notion/mcp");
    let answer = got(gateway.http.post(document)).await;
    assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn a_server_from_before_its_metadata_is_its_own_authorization_server() {
    let provider = Provider::start().await;
    let server = Watched::start().await;
    server.accept(TOKEN);
    let fields = format!("url: {}/mcp\n{DELEGATED}", provider.base());
    let old = entry("old", &fields);
    let gateway = TestGateway::with_servers(&format!("{old}{}", server.entry("none", DELEGATED))).await;
    let document = |name| gateway.url(&format!("/.well-known/oauth-protected-resource/{name}/mcp"));
    let answer = got(gateway.http.get(document("old"))).await;
    assert_eq!(
        answer.body,
        json!({"resource": gateway.url("/old/mcp"), "authorization_servers": [provider.issuer()]})
    );
    // Neither: the challenge comes as it came, and the document says why it is not there.
    let answer = got(gateway.http.get(document("none"))).await;
    assert_eq!((answer.status, answer.code()), (503, "metadata_unavailable"));
    assert!(!answer.header("retry-after").is_empty());
    let theirs = r#"Bearer realm="up", resource_metadata="https://up.example/.well-known/x""#;
    server.push_for(
        "tools/call",
        Answer::raw(401, &[("WWW-Authenticate", theirs)], "sign in"),
    );
    let answer = got(call(&gateway, "/none/mcp", &[])).await;
    assert_eq!((answer.status, challenge(&answer)), (401, vec![theirs]));
    assert_eq!(answer.body, "sign in");
}

#[tokio::test]
async fn the_servers_challenge_is_kept_but_for_the_place_of_the_metadata() {
    let (gateway, server) = delegated().await;
    let ours = gateway.url("/.well-known/oauth-protected-resource/notion/mcp");
    for (status, theirs, expected) in [
        (
            401,
            &[][..] as Lines,
            &["Bearer resource_metadata=\"OURS\""][..] as Lines,
        ),
        (
            401,
            &[r#"Bearer realm="a b", error="invalid_token", error_description="it \"ended\"", scope="r  w""#],
            &[
                r#"Bearer resource_metadata="OURS", realm="a b", error="invalid_token", error_description="it \"ended\"", scope="r  w""#,
            ],
        ),
        (
            401,
            &[
                r#"DPoP algs="ES256", resource_metadata=https://evil.example/x"#,
                "Basic realm=\"x\"",
            ],
            &[
                r#"DPoP algs="ES256", resource_metadata="OURS""#,
                "Basic realm=\"x\"",
            ],
        ),
        (
            403,
            &[
                r#"Bearer error="insufficient_scope", scope="admin", resource_metadata="https://up.example/y""#,
            ],
            &[r#"Bearer error="insufficient_scope", scope="admin", resource_metadata="OURS""#],
        ),
        (403, &[], &[]),
        (500, &[], &[]),
    ] {
        for body in [r#"{"error":"theirs"}"#, "plain"] {
            let kind = if body.starts_with('{') {
                "application/json"
            } else {
                "text/plain"
            };
            let mut headers: Vec<_> = theirs.iter().map(|line| ("WWW-Authenticate", *line)).collect();
            headers.push(("Content-Type", kind));
            headers.push(("Set-Cookie", "no=1"));
            server.push_for("tools/call", Answer::raw(status, &headers, body));
            let answer = got(call(&gateway, "/notion/mcp", &[("authorization", "Bearer x")])).await;
            let expected: Vec<String> = expected.iter().map(|line| line.replace("OURS", &ours)).collect();
            assert_eq!(
                (answer.status, challenge(&answer)),
                (status, expected.iter().map(String::as_str).collect())
            );
            let body = serde_json::from_str(body).unwrap_or(Value::String(body.into()));
            assert_eq!(answer.body, body, "the server's own");
            assert!(answer.header("set-cookie").is_empty());
        }
    }
    // A page of somebody else's is not shown under the gateway's name; what it means is.
    let html = [("Content-Type", "text/html"), ("WWW-Authenticate", "Bearer")];
    server.push_for("tools/call", Answer::raw(401, &html, "<script>1</script>"));
    let answer = got(call(&gateway, "/notion/mcp", &[])).await;
    assert_eq!((answer.status, answer.body), (401, json!("")));
    assert_eq!(
        answer.headers["www-authenticate"],
        format!("Bearer resource_metadata=\"{ours}\"")
    );
}

#[tokio::test]
async fn a_key_takes_the_normal_way_and_stays_here() {
    let (gateway, server) = delegated().await;
    let token = bearer(TOKEN);
    let key = bearer(KEY);
    for (headers, status, forwarded) in [
        // With an identity, and the token beside it.
        (
            vec![("x-litellm-api-key", KEY), ("authorization", &token)],
            200,
            Some(&*token),
        ),
        (vec![("x-litellm-api-key", KEY)], 401, None),
        // A wrong key is wrong, whatever else there is.
        (
            vec![("x-litellm-api-key", "sk-wrong"), ("authorization", &token)],
            401,
            Some("nothing"),
        ),
        (vec![("x-litellm-api-key", "sk-wrong")], 401, Some("nothing")),
        // Unmistakably ours.
        (vec![("authorization", &*key)], 401, None),
        (vec![("authorization", KEY)], 401, None),
        // Not the key, and yet it holds it.
        (vec![("authorization", &format!("Token {KEY}"))], 401, None),
        (
            vec![(
                "authorization",
                "Basic dTpzay1jYW5hcnktZ2F0ZXdheS1rZXktMDEyMzQ1Njc4OQ==",
            )],
            401,
            None,
        ),
        (
            vec![("x-litellm-api-key", ""), ("authorization", &token)],
            200,
            Some(&*token),
        ),
    ] {
        let before = calls(&server).len();
        let answer = got(call(&gateway, "/notion/mcp", &headers)).await;
        assert_eq!(answer.status, status, "{headers:?}");
        let seen = calls(&server);
        if forwarded == Some("nothing") {
            assert_eq!(answer.code(), "wrong_key");
            assert_eq!(seen.len(), before, "{headers:?}");
        } else {
            assert_eq!(seen[before].header("authorization"), forwarded, "{headers:?}");
        }
    }
    let twice = [("authorization", &*token), ("authorization", &*token)];
    let answer = got(call(&gateway, "/notion/mcp", &twice)).await;
    assert_eq!((answer.status, answer.code()), (400, "repeated_header"));
    server.assert_never_seen("dTpzay1jYW5hcnk");
    assert_nothing_secret_logged(&[TOKEN]);
}

#[tokio::test]
async fn nothing_else_opens_without_a_key() {
    let (open, closed, idp) = (strict().await, strict().await, Idp::start().await);
    let mut servers = open.entry("notion", DELEGATED);
    servers += &closed.entry("plain", "extra_headers: [Authorization]");
    servers += &closed.entry(
        "static",
        "auth_type: bearer_token\nauthentication_token: canary-static",
    );
    servers += &closed.entry(
        "signed",
        "auth_type: oauth2\nauthorization_url: http://127.0.0.1:1/a\ntoken_url: http://127.0.0.1:1/t",
    );
    servers += &closed.entry("kept", "auth_type: oauth_delegate");
    servers += &closed.entry("flagged", "auth_type: none\noauth_passthrough: true");
    servers += &machine("machine", &closed.url(), &idp.url(), "");
    let gateway = Start::new(keyed(&servers)).start().await;
    let id = json!({"server_id": "notion", "name": "echo", "arguments": {}});
    for headers in [
        vec![],
        vec![("authorization", "Bearer made-up")],
        vec![
            ("x-mcp-servers", "notion,static"),
            ("authorization", "Bearer made-up"),
        ],
    ] {
        for name in [
            "plain", "static", "signed", "kept", "flagged", "machine", "unknown",
        ] {
            for path in [format!("/{name}/mcp"), format!("/mcp/{name}")] {
                let answer = got(call(&gateway, &path, &headers)).await;
                assert!(
                    matches!((answer.status, answer.code()), (401, "missing_key" | "wrong_key")),
                    "{path} {answer:?}"
                );
            }
        }
        for path in [
            "/metrics",
            "/mcp-rest/tools/list",
            "/mcp-rest/tools/list?server_id=notion",
            "/v1/mcp/user-credentials",
        ] {
            let request = gateway.http.get(gateway.url(path));
            let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
                request.header(*name, *value)
            };
            let answer = got(headers.iter().fold(request, add)).await;
            assert_eq!(answer.status, 401, "{path}");
        }
        let request = gateway.http.post(gateway.url("/mcp-rest/tools/call")).json(&id);
        let answer = got(request.header("authorization", "Bearer made-up")).await;
        assert_eq!(answer.status, 401);
        // One that wants a key among several targets closes all of them, and so does a request that names none.
        for path in ["/notion,static/mcp", "/mcp/notion,static", "/mcp"] {
            let answer = got(call(&gateway, path, &headers)).await;
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
        }
    }
    assert!(closed.requests().is_empty() && open.requests().is_empty());
    assert_eq!(idp.requests().len(), 0);
}

#[tokio::test]
async fn a_session_outlives_a_token_and_belongs_to_nobody_else() {
    let (one, two) = (strict().await, strict().await);
    for server in [&one, &two] {
        server.accept("rotated");
        server.set_session(Some("upstream-session"));
    }
    let servers = format!("{}{}", one.entry("one", DELEGATED), two.entry("two", DELEGATED));
    let gateway = TestGateway::with_servers(&servers).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}});
    let begun = got(gateway
        .http
        .post(gateway.url("/one/mcp"))
        .bearer_auth(TOKEN)
        .json(&initialize))
    .await;
    let session = begun.header("mcp-session-id");
    assert!(!session.is_empty() && !session.contains("upstream"));
    let with = |path, headers: &[(&str, &str)]| {
        let headers = [headers, &[("mcp-session-id", session)]].concat();
        call(&gateway, path, &headers)
    };
    assert_eq!(
        got(with("/one/mcp", &[("authorization", "Bearer rotated")]))
            .await
            .status,
        200
    );
    // The server is the judge of its own sessions; of others' this gateway is.
    let other = got(with("/two/mcp", &[("authorization", "Bearer rotated")])).await;
    assert_eq!((other.status, other.code()), (404, "unknown_session"));
    let keyed = got(with(
        "/one/mcp",
        &[("authorization", "Bearer rotated"), ("x-litellm-api-key", KEY)],
    ))
    .await;
    assert_eq!((keyed.status, keyed.code()), (404, "unknown_session"));
    one.set_session(Some("another"));
    assert_eq!(
        got(with("/one/mcp", &[("authorization", "Bearer rotated")]))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_debug_headers_tell_an_unknown_caller_about_its_own_request() {
    let server = strict().await;
    let fields = format!("{DELEGATED}\nextra_headers: [X-Custom]");
    let gateway = TestGateway::with_servers(&server.entry("notion", &fields)).await;
    let token = bearer("canary-long-enough-to-be-shown-ef01");
    server.accept("canary-long-enough-to-be-shown-ef01");
    let key = bearer(KEY);
    let same = "SAME_AS_LITELLM_KEY - likely misconfigured";
    for (headers, resolution, shown) in [
        (
            vec![("authorization", &*token)],
            "oauth2-passthrough",
            "Bearer****ef01".to_owned(),
        ),
        (vec![], "no-auth", "(none)".to_owned()),
        (
            vec![("authorization", &key)],
            "no-auth",
            format!("Bearer****6789 ({same})"),
        ),
        (
            vec![("authorization", &format!("bEARER   {KEY}"))],
            "no-auth",
            format!("bEARER****6789 ({same})"),
        ),
        (
            vec![("authorization", &format!(" {KEY} "))],
            "no-auth",
            format!("****6789 ({same})"),
        ),
        (
            vec![("authorization", &format!("Token {KEY}"))],
            "no-auth",
            format!("Token****6789 ({same})"),
        ),
        (
            vec![("authorization", &format!("DPoP {KEY}"))],
            "no-auth",
            format!("DPoP****6789 ({same})"),
        ),
        (
            vec![("authorization", &token), ("x-mcp-auth", &key)],
            "oauth2-passthrough",
            format!("x-mcp-auth=Bearer****6789 ({same})"),
        ),
        (
            vec![("authorization", &token), ("x-custom", KEY)],
            "oauth2-passthrough",
            format!("x-custom=****6789 ({same})"),
        ),
        (
            vec![("authorization", &token), ("x-litellm-api-key", KEY)],
            "oauth2-passthrough",
            "Bearer****ef01".to_owned(),
        ),
    ] {
        let headers = [&headers[..], &[("x-litellm-mcp-debug", "true")]].concat();
        let answer = got(call(&gateway, "/notion/mcp", &headers)).await;
        assert_eq!(
            answer.header("x-mcp-debug-auth-resolution"),
            resolution,
            "{headers:?}"
        );
        assert_eq!(answer.header("x-mcp-debug-oauth2-token"), shown, "{headers:?}");
        assert_eq!(answer.header("x-mcp-debug-server-auth-type"), "oauth2");
        // Where the server is within the network is for those with a key.
        let with_key = headers.iter().any(|(name, value)| {
            let value = value.trim();
            let bare = match value.split_once(' ') {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
                _ => value,
            };
            matches!(*name, "x-litellm-api-key" | "authorization") && bare == KEY
        });
        let outbound = if with_key { server.url() } else { "(hidden)".into() };
        assert_eq!(answer.header("x-mcp-debug-outbound-url"), outbound, "{headers:?}");
        assert_eq!(answer.status, if resolution == "no-auth" { 401 } else { 200 });
    }
    // `Watched` looks for the key in everything that the server was sent.
    assert!(
        calls(&server)
            .iter()
            .all(|call| call.header("x-custom").is_none())
    );
}

#[tokio::test]
async fn a_callers_token_follows_no_redirect_elsewhere() {
    let (gateway, server) = delegated().await;
    let elsewhere = Watched::start().await;
    for status in [301, 302, 303, 307, 308] {
        for (location, same_origin) in [
            ("/mcp".to_owned(), true),
            (server.url(), true),
            (elsewhere.url(), false),
            (elsewhere.url().replace("http:", "https:"), false),
            (server.url().replace("127.0.0.1", "localhost"), false),
        ] {
            server.push_for(
                "tools/call",
                Answer::Redirect {
                    status,
                    location: location.clone(),
                },
            );
            let before = calls(&server).len();
            let answer = got(call(
                &gateway,
                "/notion/mcp",
                &[("authorization", &bearer(TOKEN))],
            ))
            .await;
            let followed = same_origin && matches!(status, 307 | 308);
            let expected = if followed {
                (200, "")
            } else {
                (502, "upstream_redirect")
            };
            assert_eq!((answer.status, answer.code()), expected, "{status} {location}");
            assert_eq!(calls(&server).len(), before + 1 + usize::from(followed));
        }
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn an_open_gateway_delegates_too() {
    let server = strict().await;
    let text = format!("mcp_servers:\n{}", server.entry("notion", DELEGATED));
    let gateway = Start::new(text).start().await;
    let answer = got(call(
        &gateway,
        "/notion/mcp",
        &[("authorization", &bearer(TOKEN))],
    ))
    .await;
    assert_eq!(answer.status, 200);
    let key = [
        ("authorization", &*bearer(TOKEN)),
        ("x-litellm-api-key", "anything"),
    ];
    assert_eq!(got(call(&gateway, "/notion/mcp", &key)).await.status, 200);
    server.assert_never_seen("anything");
    assert!(!logged().contains(TOKEN));
}

#[tokio::test]
async fn a_challenge_does_not_wait_for_metadata_that_does_not_come() {
    let (gateway, server) = delegated().await;
    let asks = |request: &vestibule_testkit::Request| request.path().starts_with("/.well-known/");
    server.push_when(asks, Answer::Hang);
    let answer = got(call(&gateway, "/notion/mcp", &[])).await;
    let theirs = format!(
        "Bearer resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"",
        server.base()
    );
    assert_eq!((answer.status, challenge(&answer)), (401, vec![&*theirs]));
}

#[tokio::test]
async fn what_is_kept_for_a_person_is_shown_for_nobody_else() {
    let server = strict().await;
    server.accept("canary-kept-token");
    let sign_in =
        "auth_type: oauth2\nauthorization_url: http://127.0.0.1:1/a\ntoken_url: http://127.0.0.1:1/t";
    let servers = server.entry("notion", DELEGATED) + &server.entry("person", sign_in);
    let gateway = Start::new(personal(&servers, "")).start().await;
    let path = gateway.url("/v1/mcp/server/person/oauth-user-credential");
    let keep = gateway.http.post(path).header("x-litellm-api-key", KEY);
    let kept = got(keep.json(&json!({"access_token": "canary-kept-token"}))).await;
    assert_eq!(kept.status, 200, "{kept:?}");
    let key = [("x-litellm-api-key", KEY)];
    assert_eq!(got(call(&gateway, "/person/mcp", &key)).await.status, 200);
    let before = calls(&server).len();
    for headers in [&key[..], &[]] {
        assert_eq!(got(call(&gateway, "/notion/mcp", headers)).await.status, 401);
    }
    let seen = calls(&server);
    assert_eq!(seen.len(), before + 2);
    assert!(
        seen[before..]
            .iter()
            .all(|call| call.header("authorization").is_none())
    );
    let nobody = got(call(&gateway, "/person/mcp", &[])).await;
    assert_eq!((nobody.status, nobody.code()), (401, "missing_key"));
}

#[tokio::test]
async fn one_search_serves_all_who_are_challenged() {
    let (gateway, server) = delegated().await;
    let answers =
        futures_util::future::join_all((0..20).map(|_| got(call(&gateway, "/notion/mcp", &[])))).await;
    assert!(
        answers
            .iter()
            .all(|answer| challenge(answer)[0].contains("/notion/mcp"))
    );
    let asked = |path: &str| {
        server
            .requests()
            .iter()
            .filter(|request| request.path() == path)
            .count()
    };
    assert_eq!(asked("/.well-known/oauth-protected-resource/mcp"), 1);
    assert_eq!(calls(&server).len(), 20);
}

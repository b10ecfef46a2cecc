//! Headers by which a caller brings something for one server: they reach that server, as that header, and no other.

use crate::by_hand::Watched;
use crate::harness::{
    Got, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed, logged, personal,
};
use serde_json::json;
use vestibule_testkit::{Answer, Idp, Reply, Upstream};

type Headers<'h> = &'h [(&'h str, &'h str)];

async fn call(gateway: &TestGateway, path: &str, headers: Headers<'_>) -> Got {
    let mut request = gateway
        .http
        .post(gateway.url(path))
        .header("x-litellm-api-key", KEY)
        .header("x-litellm-mcp-debug", "true")
        .json(&echo("x"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    got(request).await
}

#[tokio::test]
async fn only_headers_that_name_the_server_reach_it() {
    let (one, two) = (Watched::start().await, Watched::start().await);
    let servers = one.entry("Git.Hub", "alias: gh") + &two.entry("two", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let for_both = [
        ("x-mcp-two-authorization", "Bearer canary-two"),
        ("x-mcp-gh-authorization", "Bearer canary-one"),
        ("x-mcp-gh-x-tenant", "acme"),
        ("x-mcp-unknown-authorization", "Bearer canary-nobody"),
        ("x-mcp-servers", "two"),
        ("x-mcp-access-groups", "g"),
    ];
    for path in ["/Git.Hub/mcp", "/mcp/gh", "/two/mcp"] {
        assert_eq!(call(&gateway, path, &for_both).await.status, 200, "{path}");
    }
    for seen in one.requests() {
        assert_eq!(seen.header("authorization"), Some("Bearer canary-one"));
        assert_eq!(seen.header("x-tenant"), Some("acme"));
    }
    assert_eq!(
        two.requests()[0].header("authorization"),
        Some("Bearer canary-two")
    );
    for (server, foreign) in [(&one, "canary-two"), (&two, "canary-one"), (&two, "acme")] {
        server.assert_never_seen(foreign);
        server.assert_never_seen("canary-nobody");
    }
    // Name, alias and LiteLLM's spelling of the name all mean the server.
    for name in ["git.hub", "GH", "git_hub"] {
        let before = one.requests().len();
        let header = format!("x-mcp-{name}-authorization");
        call(&gateway, "/gh/mcp", &[(&header, "Bearer mine")]).await;
        assert_eq!(
            one.requests()[before].header("authorization"),
            Some("Bearer mine"),
            "{name}"
        );
    }
    assert_nothing_secret_logged(&["canary-one", "canary-two", "canary-nobody"]);
}

#[tokio::test]
async fn a_name_that_two_servers_share_but_for_case_is_neithers() {
    let (one, two) = (Watched::start().await, Watched::start().await);
    let gateway = TestGateway::with_servers(&(one.entry("Jira", "") + &two.entry("jira", ""))).await;
    for path in ["/Jira/mcp", "/jira/mcp"] {
        let answer = call(&gateway, path, &[("x-mcp-jira-authorization", "Bearer canary")]).await;
        assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "no-auth");
    }
    one.assert_never_seen("canary");
    two.assert_never_seen("canary");
}

#[tokio::test]
async fn what_stands_twice_or_does_not_fit_is_refused() {
    let server = Watched::start().await;
    let basic = "auth_type: basic\nauthentication_token: u:p";
    let servers = server.entry("one", "alias: uno") + &server.entry("two", basic);
    let gateway = TestGateway::with_servers(&servers).await;
    let cases: [(&str, Headers, &str); 6] = [
        (
            "/one/mcp",
            &[("x-mcp-one-x-a", "1"), ("x-mcp-uno-x-a", "2")],
            "repeated_header",
        ),
        (
            "/one/mcp",
            &[("x-mcp-one-x-a", "1"), ("x-mcp-one-x-a", "1")],
            "repeated_header",
        ),
        (
            "/one/mcp",
            &[("x-mcp-one-x-a", KEY), ("x-mcp-uno-x-a", "2")],
            "repeated_header",
        ),
        (
            "/one/mcp",
            &[("x-mcp-auth", "1"), ("x-mcp-auth", "2")],
            "repeated_header",
        ),
        ("/two/mcp", &[("x-mcp-auth", "no-colon")], "credential_malformed"),
        (
            "/two/mcp",
            &[("x-mcp-auth", "sch\u{f6}n:x")],
            "credential_malformed",
        ),
    ];
    for (path, headers, code) in cases {
        let answer = call(&gateway, path, headers).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{headers:?}");
        assert!(!answer.body.to_string().contains("no-colon"));
    }
    assert_eq!(server.requests().len(), 0);
    // Somebody else's headers are somebody else's business.
    let others = [("x-mcp-two-x-a", "1"), ("x-mcp-two-x-a", "2")];
    assert_eq!(call(&gateway, "/one/mcp", &others).await.status, 200);
}

#[tokio::test]
async fn the_transport_and_the_gateway_keep_their_headers() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let reserved = [
        ("x-mcp-one-host", "evil.example"),
        ("x-mcp-one-proxy", "evil.example"),
        ("x-mcp-one-x_user", "evil.example"),
        ("x-mcp-one-x_forwarded_for", "evil.example"),
        ("x-mcp-one-mcp_session_id", "evil.example"),
        ("x-mcp-one-x_litellm_api_key", "evil.example"),
        ("x-mcp-one-x_api_key", "evil.example"),
        ("x-mcp-one-content-length", "1"),
        ("x-mcp-one-transfer-encoding", "chunked"),
        ("x-mcp-one-connection", "close"),
        ("x-mcp-one-mcp-session-id", "forged"),
        ("x-mcp-one-mcp-protocol-version", "forged"),
        ("x-mcp-one-accept", "forged"),
        ("x-mcp-one-content-type", "forged"),
        ("x-mcp-one-x-litellm-api-key", "forged"),
        ("x-mcp-one-x-forwarded-user", "forged"),
        ("x-mcp-one-forwarded", "forged"),
        ("x-mcp-one-", "forged"),
        ("x-mcp-one-x-empty", ""),
    ];
    assert_eq!(call(&gateway, "/one/mcp", &reserved).await.status, 200);
    let seen = &server.requests()[0];
    assert!(!seen.contains("forged") && !seen.contains("evil"), "{seen:?}");
    assert_eq!(seen.header("x-empty"), None);
    assert!(logged().contains("a header that callers may not set was not set for the server"));
}

#[tokio::test]
async fn the_gateway_key_crosses_under_no_name() {
    let server = Watched::start().await;
    let configured = "auth_type: bearer_token\nauthentication_token: configured";
    let servers = server.entry("one", "") + &server.entry("two", configured);
    let gateway = TestGateway::with_servers(&servers).await;
    let bearer = format!("Bearer {KEY}");
    let hidden = format!("token={KEY};");
    for name in ["one", "two"] {
        for header in ["authorization", "x-api-key", "x-other"] {
            let header = format!("x-mcp-{name}-{header}");
            for value in [KEY, &bearer, &hidden] {
                let answer = call(&gateway, &format!("/{name}/mcp"), &[(&header, value)]).await;
                assert_eq!(answer.status, 200, "{header}");
            }
        }
        for value in [KEY, &bearer, &hidden] {
            let answer = call(&gateway, &format!("/{name}/mcp"), &[("x-mcp-auth", value)]).await;
            assert_eq!(answer.status, 200);
        }
    }
    // The key of base64 and a colon would be another text than the key, and is found before it is encoded.
    let basic = "auth_type: basic\nauthentication_token: u:p";
    let gateway = TestGateway::with_servers(&server.entry("three", basic)).await;
    let pair = format!("user:{KEY}");
    assert_eq!(
        call(&gateway, "/three/mcp", &[("x-mcp-auth", &pair)])
            .await
            .status,
        200
    );
    let seen = server.requests();
    assert_eq!(
        seen.last().and_then(|request| request.header("authorization")),
        Some("Basic dTpw")
    );
    assert_nothing_secret_logged(&[]);
}

#[tokio::test]
async fn the_debug_headers_show_what_was_brought_and_warn_of_the_key() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")).replace(
        "mcp_servers:",
        "  mcp_client_side_auth_header_name: x-our-auth\n  litellm_key_header_name: X-Our-Key\nmcp_servers:",
    );
    let gateway = Start::new(text).start().await;
    let long = "Bearer upstream-token-0123456789-abcd";
    let answer = call(
        &gateway,
        "/one/mcp",
        &[("x-our-auth", long), ("x-mcp-two-authorization", KEY)],
    )
    .await;
    let inbound = answer.header("x-mcp-debug-inbound-auth");
    assert!(
        inbound.starts_with("x-litellm-api-key=****6789; x-our-auth=Bearer****abcd; ")
            && inbound
                .contains("x-mcp-two-authorization=****6789 (SAME_AS_LITELLM_KEY - likely misconfigured)"),
        "{inbound}"
    );
    assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "per-request-header");
    let key = call(&gateway, "/one/mcp", &[("x-our-auth", KEY), ("x-our-key", KEY)]).await;
    let inbound = key.header("x-mcp-debug-inbound-auth");
    assert!(
        inbound.starts_with("x-our-key=****6789; x-litellm-api-key=****6789; x-our-auth=****6789 (SAME"),
        "{inbound}"
    );
    assert_eq!(key.header("x-mcp-debug-auth-resolution"), "no-auth");
    // The old name means nothing any more.
    let old = call(&gateway, "/one/mcp", &[("x-mcp-auth", long)]).await;
    assert_eq!(old.header("x-mcp-debug-auth-resolution"), "no-auth");
}

#[tokio::test]
async fn an_api_key_that_is_passed_on_is_named() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "extra_headers: [Api-Key]")).await;
    let answer = call(&gateway, "/one/mcp", &[("api-key", "mine")]).await;
    assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "extra-headers");
    assert_eq!(server.requests()[0].header("api-key"), Some("mine"));
    server.push(Answer::json(401, &json!({"error": "who?"})));
    let refused = call(&gateway, "/one/mcp", &[("api-key", "mine")]).await;
    assert_eq!((refused.status, &refused.body["error"]), (401, &json!("who?")));
}

#[tokio::test]
async fn a_refusal_of_what_the_caller_brought_is_the_callers_to_read() {
    let server = Watched::start().await;
    let configured = "auth_type: bearer_token\nauthentication_token: configured";
    let gateway = TestGateway::with_servers(&server.entry("one", configured)).await;
    for (status, headers) in [
        (401, [("x-mcp-one-authorization", "Bearer mine")]),
        (403, [("x-mcp-auth", "mine")]),
    ] {
        server.push(Answer::json(status, &json!({"error": "not you"})));
        let answer = call(&gateway, "/one/mcp", &headers).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (status, &json!("not you"))
        );
    }
    server.assert_never_seen("configured");
}

#[tokio::test]
async fn the_shared_header_may_be_authorization_and_the_variable_says_so_first() {
    let server = Watched::start().await;
    let configured = "auth_type: api_key\nauthentication_token: configured";
    let text = keyed(&server.entry("one", configured)).replace(
        "mcp_servers:",
        "  mcp_client_side_auth_header_name: x-nobody\nmcp_servers:",
    );
    let gateway = Start::new(text)
        .environment("LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME", "Authorization")
        .start()
        .await;
    call(&gateway, "/one/mcp", &[("authorization", "mine")]).await;
    call(
        &gateway,
        "/one/mcp",
        &[("authorization", &format!("Bearer {KEY}"))],
    )
    .await;
    call(&gateway, "/one/mcp", &[("x-nobody", "canary")]).await;
    let shown: Vec<Option<String>> = server
        .requests()
        .iter()
        .map(|request| request.header("x-api-key").map(str::to_owned))
        .collect();
    let expected = ["mine", "configured", "configured"];
    assert_eq!(shown, expected.map(|value| Some(value.to_owned())));
    server.assert_never_seen("canary");
}

#[tokio::test]
async fn where_authorization_has_a_meaning_the_shared_header_is_not_it() {
    let (server, idp) = (Watched::start().await, Idp::start().await);
    let exchange = format!(
        "auth_type: oauth2_token_exchange\ntoken_exchange_endpoint: {}\nclient_id: id\nclient_secret: s\n\
         upstream_token_header: X-Up",
        idp.url()
    );
    let token = json!({"access_token": "exchanged", "token_type": "Bearer", "expires_in": 60,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"});
    idp.set_default(Reply::Json(token));
    let servers = server.entry("person", "auth_type: oauth2")
        + &server.entry("through", "auth_type: oauth_delegate")
        + &server.entry("exchange", &exchange);
    let text = personal(&servers, "").replace(
        "mcp_servers:",
        "  mcp_client_side_auth_header_name: Authorization\nmcp_servers:",
    );
    let gateway = Start::new(text).start().await;
    for (name, resolution) in [
        ("person", "oauth2-passthrough"),
        ("through", "oauth2-passthrough"),
        ("exchange", "token-exchange"),
    ] {
        let answer = call(
            &gateway,
            &format!("/{name}/mcp"),
            &[("authorization", "Bearer mine")],
        )
        .await;
        assert_eq!(
            (answer.status, answer.header("x-mcp-debug-auth-resolution")),
            (200, resolution),
            "{name}: {}",
            answer.body
        );
    }
    let last = server.requests().pop().expect("a request");
    assert_eq!(
        (last.header("x-up"), last.header("authorization")),
        (Some("Bearer exchanged"), None)
    );
}

#[tokio::test]
async fn the_operators_own_header_for_the_key_counts_first_and_goes_nowhere() {
    let server = Watched::start().await;
    let text = keyed(&server.entry("one", "")).replace(
        "mcp_servers:",
        "  litellm_key_header_name: X-Our-Key\nmcp_servers:",
    );
    let gateway = Start::new(text).start().await;
    let bearer = format!("Bearer {KEY}");
    for (headers, status) in [
        (vec![("x-our-key", KEY)], 200),
        (vec![("X-OUR-KEY", bearer.as_str())], 200),
        (vec![("x-our-key", KEY), ("x-litellm-api-key", "wrong")], 200),
        (vec![("x-our-key", ""), ("x-litellm-api-key", KEY)], 200),
        (vec![("x-our-key", KEY), ("authorization", "Bearer other")], 200),
        (vec![("x-our-key", "wrong"), ("x-litellm-api-key", KEY)], 401),
        (vec![("x-our-key", KEY), ("x-our-key", KEY)], 400),
        (vec![("x-another-key", KEY)], 401),
    ] {
        let mut request = gateway.http.post(gateway.url("/one/mcp")).json(&echo("x"));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        assert_eq!(got(request).await.status, status, "{headers:?}");
    }
    assert!(
        server
            .requests()
            .iter()
            .all(|seen| seen.header("x-our-key").is_none())
    );
}

#[tokio::test]
async fn the_rest_facade_takes_headers_that_name_a_server() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let servers =
        entry("one", &format!("url: {}", one.url())) + &entry("two", &format!("url: {}", two.url()));
    let gateway = TestGateway::with_servers(&servers).await;
    let listed = gateway
        .http
        .get(gateway.url("/mcp-rest/tools/list"))
        .header("x-litellm-api-key", KEY)
        .header("x-mcp-one-authorization", "Bearer canary-one")
        .header("x-mcp-two-authorization", "Bearer canary-two")
        .header("x-mcp-auth", "canary-everybody");
    assert_eq!(got(listed).await.status, 200);
    for (server, own, foreign) in [
        (&one, "Bearer canary-one", "canary-two"),
        (&two, "Bearer canary-two", "canary-one"),
    ] {
        let seen = server.requests();
        assert!(!seen.is_empty());
        assert!(seen.iter().all(|seen| seen.header("authorization") == Some(own)));
        server.assert_never_seen(foreign);
        server.assert_never_seen("canary-everybody");
    }
}

#[tokio::test]
async fn callers_at_the_same_time_each_show_their_own() {
    let server = Watched::start().await;
    let configured = "auth_type: bearer_token\nauthentication_token: configured";
    let text = keyed(&server.entry("one", configured));
    let gateway = Start::new(text).one_worker().start().await;
    let calls = (0..60).map(|caller| {
        let mine = format!("Bearer of-caller-{caller}-");
        let request = gateway
            .post("/one/mcp", &echo(&format!("by-caller-{caller}-")))
            .header("x-mcp-one-authorization", mine);
        // Every third one brings nothing and is shown as the gateway.
        got(if caller % 3 == 0 {
            gateway.post("/one/mcp", &echo(&format!("by-caller-{caller}-")))
        } else {
            request
        })
    });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200);
    }
    let seen = server.requests();
    assert_eq!(seen.len(), 60);
    for request in seen {
        let body = String::from_utf8(request.body.clone()).expect("text");
        let (_, rest) = body.split_once("by-caller-").expect("a caller");
        let (caller, _) = rest.split_once('-').expect("a number");
        let expected = if caller.parse::<u8>().expect("a number") % 3 == 0 {
            "Bearer configured".to_owned()
        } else {
            format!("Bearer of-caller-{caller}-")
        };
        assert_eq!(request.header("authorization"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn streams_and_farewells_carry_what_names_the_server_too() {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    let (answer, stream) = Answer::sse();
    server.push(answer);
    server.push(Answer::raw(200, &[], ""));
    let request = |method: reqwest::Method| {
        gateway
            .http
            .request(method, gateway.url("/one/mcp"))
            .header("x-litellm-api-key", KEY)
            .header("accept", "text/event-stream")
            .header("x-mcp-one-authorization", "Bearer mine")
    };
    let listening = request(reqwest::Method::GET).send().await.expect("a head");
    stream.finish().await.expect("finished");
    assert_eq!(listening.text().await.expect("an end"), "");
    assert_eq!(got(request(reqwest::Method::DELETE)).await.status, 200);
    let seen = server.requests();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization") == Some("Bearer mine"))
    );
}

#[tokio::test]
async fn under_rest_a_credential_that_is_not_taken_is_that_servers_fault_alone() {
    let server = Watched::start().await;
    let signed = "auth_type: aws_sigv4\naws_access_key_id: AKID\naws_secret_access_key: canary-aws";
    let servers = server.entry("one", signed) + &server.entry("two", "");
    let gateway = TestGateway::with_servers(&servers).await;
    let list = |path: &str| {
        gateway
            .http
            .get(gateway.url(path))
            .header("x-litellm-api-key", KEY)
            .header("x-mcp-one-authorization", "Bearer canary-mine")
    };
    let all = got(list("/mcp-rest/tools/list")).await;
    assert_eq!(all.status, 200);
    assert!(
        all.body["tools"]
            .as_array()
            .is_some_and(|tools| !tools.is_empty()),
        "{all:?}"
    );
    let one = got(list("/mcp-rest/tools/list?server_id=one")).await;
    assert!(
        one.body
            .to_string()
            .contains("x-mcp-one-authorization brings a credential"),
        "{one:?}"
    );
    server.assert_never_seen("canary-mine");
}

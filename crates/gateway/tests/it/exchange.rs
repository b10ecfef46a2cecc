//! `oauth2_token_exchange` from end to end: what the authorization server is asked, what the MCP server sees, and that
//! the caller's own token stays between the two.

use crate::by_hand::Watched;
use crate::harness::{
    CLIENT_SECRET, Got, KEY, TestGateway, assert_nothing_secret_logged, echo, entry, got, wire_post,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Idp, RawClient, Reply, Request};

pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(crate) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// An opaque subject token; nobody but the authorization server may see it.
pub(crate) const SUBJECT: &str = "canary-subject-token-0123456789";

/// An access token that says what it is.
pub(crate) fn issued(expires_in: Option<Value>) -> Reply {
    let mut extra = Map::new();
    extra.insert("issued_token_type".into(), ACCESS_TOKEN.into());
    Reply::Token { expires_in, extra }
}

/// A token that names the subject that it was issued for.
pub(crate) fn issued_for(request: &Request) -> Reply {
    let subject = request.form_value("subject_token").unwrap_or_default();
    let name = subject.rsplit('-').next().unwrap_or_default().to_owned();
    Reply::Json(json!({
        "access_token": format!("tk-for-{name}"),
        "token_type": "Bearer",
        "issued_token_type": ACCESS_TOKEN,
        "expires_in": 3600,
    }))
}

/// An entry whose callers' tokens are exchanged at `idp`; `more` are further fields, one a line.
pub(crate) fn exchanging(server: &Watched, idp: &Idp, more: &str) -> String {
    let fields = format!(
        "auth_type: oauth2_token_exchange\ntoken_exchange_endpoint: {}\nclient_id: canary-id\n\
         client_secret: {CLIENT_SECRET}\n{more}",
        idp.url()
    );
    server.entry("one", &fields)
}

pub(crate) struct Trio {
    pub(crate) gateway: TestGateway,
    pub(crate) idp: Idp,
    pub(crate) server: Watched,
}

pub(crate) async fn trio(more: &str) -> Trio {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let gateway = TestGateway::with_servers(&exchanging(&server, &idp, more)).await;
    Trio { gateway, idp, server }
}

/// A call with this `Authorization`.
pub(crate) async fn call_as(gateway: &TestGateway, authorization: &str) -> Got {
    let call = gateway.post("/one/mcp", &echo("x"));
    got(call.header("authorization", authorization)).await
}

pub(crate) async fn call(gateway: &TestGateway, subject: &str) -> Got {
    call_as(gateway, &format!("Bearer {subject}")).await
}

/// A 401 with a challenge and nothing more.
pub(crate) fn assert_challenged(got: &Got, code: &str, challenge: &str, what: &str) {
    assert_eq!((got.status, got.code()), (401, code), "{what}: {}", got.body);
    assert_eq!(got.header("www-authenticate"), challenge, "{what}");
    assert_eq!(got.header("retry-after"), "", "{what}");
}

#[tokio::test]
async fn a_callers_token_is_exchanged_once_and_never_reaches_the_server() {
    let Trio { gateway, idp, server } = trio("audience: api://mcp\nscopes: [a, b]\nupstream_resource: auto\nextra_headers: [x-more, authorization]").await;
    let bearer = format!("Bearer {SUBJECT}");
    for message in [
        echo("x"),
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": {"uri": "x:y"}}),
        json!({"jsonrpc": "2.0", "id": 4, "method": "prompts/get", "params": {"name": "p"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ] {
        let request = gateway
            .post("/one/mcp", &message)
            .header("authorization", &bearer);
        // Even where the operator passes the header on and the client puts the token there.
        let request = request
            .header("x-more", format!("t={SUBJECT}"))
            .header("x-litellm-mcp-debug", "true");
        let answer = got(request).await;
        assert!(answer.status < 300, "{message}: {}", answer.body);
        assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "token-exchange");
        assert_eq!(
            answer.header("x-mcp-debug-server-auth-type"),
            "oauth2_token_exchange"
        );
    }
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = gateway.http.request(method, gateway.url("/one/mcp"));
        got(request
            .header("x-litellm-api-key", KEY)
            .header("authorization", &bearer))
        .await;
    }
    let seen = server.wait_for(8).await;
    assert!(
        seen.iter()
            .all(|request| request.bearer() == Some(&idp.last_token()))
    );
    server.assert_never_seen(SUBJECT);
    let asked = idp.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
    let expected = [
        ("grant_type", GRANT),
        ("client_id", "canary-id"),
        ("client_secret", CLIENT_SECRET),
        ("subject_token", SUBJECT),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", "api://mcp"),
        ("resource", &server.url()),
        ("scope", "a b"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked[0].form(), expected);
    idp.assert_never_seen(KEY);
    assert_nothing_secret_logged(&[SUBJECT, &idp.last_token()]);
}

#[tokio::test]
async fn the_token_may_stand_bare_and_the_client_may_use_basic() {
    let Trio {
        gateway,
        idp,
        server: _server,
    } = trio("token_endpoint_auth_method: client_secret_basic").await;
    for authorization in [
        SUBJECT.to_owned(),
        format!("bearer   {SUBJECT}"),
        format!("Bearer {SUBJECT}"),
    ] {
        assert_eq!(
            call_as(&gateway, &authorization).await.status,
            200,
            "{authorization}"
        );
    }
    let asked = idp.requests();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0]
            .header("authorization")
            .is_some_and(|value| value.starts_with("Basic "))
    );
    assert_eq!(asked[0].form_value("client_secret"), None);
    assert_eq!(asked[0].form_value("subject_token").as_deref(), Some(SUBJECT));
}

#[tokio::test]
async fn without_a_token_every_message_is_challenged_and_nobody_is_asked() {
    let Trio { gateway, idp, server } = trio("").await;
    let bare = r#"Bearer realm="vestibule""#;
    let invalid = r#"Bearer realm="vestibule", error="invalid_token""#;
    for method in [
        "initialize",
        "tools/list",
        "tools/call",
        "resources/read",
        "prompts/get",
        "ping",
    ] {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": {}});
        let answer = got(gateway.post("/one/mcp", &message)).await;
        assert_challenged(&answer, "subject_token_required", bare, method);
        assert_eq!(answer.body["id"], 7);
    }
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let request = gateway.http.request(method.clone(), gateway.url("/one/mcp"));
        let answer = got(request
            .header("x-litellm-api-key", KEY)
            .header("mcp-session-id", "x"))
        .await;
        assert_challenged(&answer, "subject_token_required", bare, method.as_str());
    }
    // A gateway key is nobody's token, wherever it stands.
    for authorization in [
        KEY.to_owned(),
        format!("Bearer {KEY}"),
        format!("Bearer x.{KEY}.y"),
    ] {
        let answer = call_as(&gateway, &authorization).await;
        assert_challenged(&answer, "subject_token_required", bare, &authorization);
    }
    for authorization in [
        "Basic dXNlcjpwYXNz",
        "DPoP abc",
        "Bearer",
        "Bearer a b",
        "Bearer \u{e9}",
    ] {
        let answer = call_as(&gateway, authorization).await;
        assert_challenged(&answer, "subject_token_refused", invalid, authorization);
    }
    for path in ["/mcp-rest/tools/list?server_id=one", "/mcp-rest/tools/list"] {
        let request = gateway
            .http
            .get(gateway.url(path))
            .header("x-litellm-api-key", KEY);
        let answer = got(request).await;
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
    }
    assert_eq!((idp.requests().len(), server.requests().len()), (0, 0));
}

#[tokio::test]
async fn a_machine_token_stands_in_only_where_the_operator_says_so() {
    let (idp, server, machines) = (Idp::start().await, Watched::start().await, Idp::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let more = format!(
        "allow_client_credentials_fallback: true\ntoken_url: {}\nscopes: [s]",
        machines.url()
    );
    let gateway = TestGateway::with_servers(&exchanging(&server, &idp, &more)).await;
    let debugged = |request: reqwest::RequestBuilder| got(request.header("x-litellm-mcp-debug", "1"));
    let answer = debugged(gateway.post("/one/mcp", &echo("x"))).await;
    assert_eq!(
        (answer.status, answer.header("x-mcp-debug-auth-resolution")),
        (200, "m2m-client-credentials")
    );
    let request = gateway
        .post("/one/mcp", &echo("x"))
        .header("authorization", SUBJECT);
    let answer = debugged(request).await;
    assert_eq!(
        (answer.status, answer.header("x-mcp-debug-auth-resolution")),
        (200, "token-exchange")
    );
    let seen: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.bearer().map(str::to_owned))
        .collect();
    assert_eq!(seen, [Some(machines.last_token()), Some(idp.last_token())]);
    assert_eq!(
        machines.requests()[0].form_value("grant_type").as_deref(),
        Some("client_credentials")
    );
    machines.assert_never_seen(SUBJECT);
    // A token that is refused is not made up for by the machine's.
    idp.set_default(Reply::error(400, "invalid_grant"));
    assert_eq!(call(&gateway, "canary-other").await.status, 401);
    assert_eq!((server.requests().len(), machines.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_token_that_is_withheld_does_not_make_its_bearer_the_machine() {
    let (idp, server, machines) = (Idp::start().await, Watched::start().await, Idp::start().await);
    let other = Watched::start().await;
    let more = format!(
        "allow_client_credentials_fallback: true\ntoken_url: {}",
        machines.url()
    );
    let servers = exchanging(&server, &idp, &more) + &other.entry("other", "extra_headers: [Authorization]");
    let gateway = TestGateway::with_servers(&servers).await;
    let mut call = echo("x");
    call["params"]["name"] = json!("one-echo");
    let by_rest = json!({"name": "one-echo", "arguments": {"message": "x"}});
    let bearer = format!("Bearer {SUBJECT}");
    let as_person = |request: reqwest::RequestBuilder| got(request.header("authorization", &bearer));
    let list = || {
        let request = gateway.http.get(gateway.url("/mcp-rest/tools/list"));
        request.header("x-litellm-api-key", KEY)
    };
    let refused = as_person(gateway.post("/mcp", &call)).await;
    assert_eq!((refused.status, refused.code()), (401, "ambiguous_authorization"));
    let listed = as_person(list()).await;
    let outcome = &listed.body["server_outcomes"]["one"]["status"];
    assert_eq!(outcome, "ambiguous_authorization", "{}", listed.body);
    let refused = as_person(gateway.post("/mcp-rest/tools/call", &by_rest)).await;
    assert_ne!(refused.status, 200, "{}", refused.body);
    // An envelope of another server's is a person's too.
    let sealed = got(gateway
        .post("/one/mcp", &echo("x"))
        .header("authorization", "Bearer vestibule_token_canary"));
    let sealed = sealed.await;
    assert_eq!((sealed.status, sealed.code()), (401, "subject_token_required"));
    assert_eq!((machines.requests().len(), server.requests().len()), (0, 0));
    server.assert_never_seen(SUBJECT);
    // Without a token of their own callers are the machine, and the key in Authorization is none.
    let listed = got(list().header("authorization", format!("Bearer {KEY}"))).await;
    assert_eq!(listed.body["server_outcomes"]["one"]["status"], "ok");
    assert_eq!(machines.requests().len(), 1);
}

#[tokio::test]
async fn what_is_for_any_server_gives_way_to_the_callers_authorization() {
    let Trio { gateway, idp, server } = trio("").await;
    idp.judge(|request| Some(issued_for(request)));
    for (authorization, shared, shown) in [
        (
            Some("Bearer canary-subject-alice"),
            "canary-subject-bob",
            "tk-for-alice",
        ),
        (None, "canary-subject-bob", "tk-for-bob"),
        (Some(KEY), "canary-subject-bob", "tk-for-bob"),
    ] {
        let mut call = gateway.post("/one/mcp", &echo("x")).header("x-mcp-auth", shared);
        if let Some(authorization) = authorization {
            call = call.header("authorization", authorization);
        }
        assert_eq!(got(call).await.status, 200);
        let last = server.requests().pop().expect("a request");
        assert_eq!(last.bearer(), Some(shown), "{authorization:?}");
    }
}

#[tokio::test]
async fn people_never_share() {
    let (idp, server) = (Arc::new(Idp::start().await), Watched::start().await);
    idp.judge(|request| Some(issued_for(request)));
    let gateway = Arc::new(TestGateway::with_servers(&exchanging(&server, &idp, "")).await);
    let people = 20;
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..25 {
        for person in 0..people {
            let gateway = Arc::clone(&gateway);
            calls.spawn(async move {
                // Long common beginnings and ends.
                let subject = format!("canary-{}-{person}", "s".repeat(200));
                let call = gateway.post("/one/mcp", &echo(&format!("of-{person}-{round}")));
                let answer = got(call.header("authorization", format!("Bearer {subject}"))).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                assert!(answer.body.to_string().contains(&format!("of-{person}-{round}")));
            });
        }
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no panic");
    }
    for request in server.requests() {
        let text = request.json()["params"]["arguments"]["message"].to_string();
        let person = text.split('-').nth(1).expect("a name").to_owned();
        assert_eq!(request.bearer(), Some(format!("tk-for-{person}").as_str()));
    }
    assert_eq!(idp.requests().len(), people);
}

#[tokio::test]
async fn one_exchange_is_in_flight_whoever_waits_or_leaves() {
    let Trio {
        gateway,
        idp,
        server: _server,
    } = trio("").await;
    let gate = Arc::new(Semaphore::new(0));
    idp.set_default(issued(Some(json!(3600))).behind(&gate));
    // The one who starts it hangs up.
    let mut first = RawClient::connect(gateway.address).await.expect("a connection");
    let request = wire_post("/one/mcp", &echo("x")).replacen(
        "\r\n\r\n",
        &format!("\r\nauthorization: {SUBJECT}\r\n\r\n"),
        1,
    );
    first.write(&request).await.expect("written");
    idp.wait_for(1).await;
    drop(first);
    let gateway = Arc::new(gateway);
    let callers: Vec<_> = (0..30)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { call(&gateway, SUBJECT).await.status })
        })
        .collect();
    gate.add_permits(100);
    for caller in callers {
        assert_eq!(caller.await.expect("no panic"), 200);
    }
    assert_eq!((idp.requests().len(), idp.tokens().len()), (1, 1));
}

#[tokio::test]
async fn who_has_to_mend_a_refusal_is_told_and_nobody_is_told_more() {
    const BODY: &str = "canary-in-the-body-of-the-provider";
    let error = |status, error: &str| Reply::OAuthError {
        status,
        error: error.into(),
        description: Some(BODY.into()),
    };
    let json = |value: Value| Reply::Json(value);
    let typed =
        |kind: &str| json(json!({"access_token": BODY, "token_type": "Bearer", "issued_token_type": kind}));
    for (reply, status, code) in [
        (error(400, "invalid_grant"), 401, "subject_token_refused"),
        (error(400, "invalid_request"), 401, "subject_token_refused"),
        (error(400, "interaction_required"), 401, "subject_token_refused"),
        (error(401, "invalid_client"), 502, "token_refused"),
        (error(400, "unauthorized_client"), 502, "token_refused"),
        (error(400, "unsupported_grant_type"), 502, "token_refused"),
        (error(400, "invalid_scope"), 502, "token_refused"),
        (error(400, "invalid_target"), 502, "token_refused"),
        (error(403, "access_denied"), 502, "token_refused"),
        (error(500, "invalid_grant"), 502, "token_refused"),
        (error(400, BODY), 502, "token_refused"),
        (Reply::Drop, 502, "token_endpoint_unreachable"),
        (
            Reply::Redirect {
                status: 307,
                location: "/elsewhere".into(),
            },
            502,
            "token_endpoint_redirect",
        ),
        (Reply::Html, 502, "token_response_invalid"),
        (Reply::Truncated, 502, "token_response_invalid"),
        (Reply::Huge { mebibytes: 1 }, 502, "token_response_invalid"),
        (Reply::token(), 502, "token_response_invalid"),
        (
            typed("urn:ietf:params:oauth:token-type:id_token"),
            502,
            "token_response_invalid",
        ),
        (
            typed("urn:ietf:params:oauth:token-type:refresh_token"),
            502,
            "token_response_invalid",
        ),
        (
            json(json!({"access_token": BODY, "token_type": "N_A", "issued_token_type": ACCESS_TOKEN})),
            502,
            "token_response_invalid",
        ),
        (
            json(json!({"access_token": "a b", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN})),
            502,
            "token_response_invalid",
        ),
        // A provider that hands the caller's token back, as it is or within another.
        (
            json(json!({"access_token": SUBJECT, "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN})),
            502,
            "token_response_invalid",
        ),
        (
            json(
                json!({"access_token": format!("x{SUBJECT}"), "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN}),
            ),
            502,
            "token_response_invalid",
        ),
    ] {
        let Trio { gateway, idp, server } = trio("").await;
        let what = format!("{reply:?}");
        idp.push(reply);
        let refused = call(&gateway, SUBJECT).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{what}: {}",
            refused.body
        );
        let challenge = if status == 401 {
            r#"Bearer realm="vestibule", error="invalid_token""#
        } else {
            ""
        };
        assert_eq!(refused.header("www-authenticate"), challenge, "{what}");
        let text = format!("{:?}{}", refused.headers, refused.body);
        for secret in [BODY, SUBJECT, CLIENT_SECRET, "tk-canary", "password"] {
            assert!(!text.contains(secret), "{what}: {secret} in {text}");
        }
        // The next caller is not answered by this one's failure, nor is the first asked for again at once.
        assert_eq!(
            call(&gateway, "canary-another-person").await.status,
            200,
            "{what}"
        );
        assert_eq!(call(&gateway, SUBJECT).await.status, status, "{what}");
        assert_eq!(idp.requests().len(), 2, "{what}");
        gateway.advance(2);
        assert_eq!(call(&gateway, SUBJECT).await.status, 200, "{what}");
        server.assert_never_seen(SUBJECT);
    }
    assert_nothing_secret_logged(&[BODY, SUBJECT]);
}

#[tokio::test]
async fn a_silent_provider_is_not_waited_for_for_ever() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.set_default(Reply::Hang);
    let text =
        crate::harness::keyed(&exchanging(&server, &idp, "")) + "vestibule: {limits: {token_timeout: 0.2}}\n";
    let gateway = crate::harness::Start::new(text).start().await;
    let refused = call(&gateway, SUBJECT).await;
    assert_eq!((refused.status, refused.code()), (504, "token_endpoint_timeout"));
}

#[tokio::test]
async fn a_token_is_used_for_its_life_less_the_margin() {
    for (expires_in, still, over) in [
        (Some(json!(600)), 539, 541),
        (Some(json!("600")), 539, 541),
        (None, 239, 241),
        (Some(json!("soon")), 239, 241),
        (Some(json!(20)), 9, 11),
    ] {
        let Trio {
            gateway,
            idp,
            server: _server,
        } = trio("").await;
        idp.set_default(issued(expires_in.clone()));
        assert_eq!(call(&gateway, SUBJECT).await.status, 200);
        // Before the last tenth nothing is asked; then one renewal at most; at the end a new one for certain.
        gateway.advance(still * 9 / 10 - 1);
        assert_eq!(call(&gateway, SUBJECT).await.status, 200);
        assert_eq!(idp.requests().len(), 1, "{expires_in:?}");
        gateway.advance(over - (still * 9 / 10 - 1));
        assert_eq!(call(&gateway, SUBJECT).await.status, 200);
        assert_eq!(idp.requests().len(), 2, "{expires_in:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_token_gets_one_fresh_one() {
    let Trio { gateway, idp, server } = trio("").await;
    server.accept_if(idp.issued());
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    server.revoke(&idp.last_token());
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    assert_eq!((idp.tokens().len(), server.requests().len()), (2, 3));
    // It refuses whatever it is shown: one more exchange, then the refusal, and no storm.
    server.accept("nothing");
    for token in 0..2 {
        server.revoke(&idp.tokens()[token]);
    }
    server.push(Answer::raw(401, &[], ""));
    server.push(Answer::raw(401, &[], ""));
    let refused = call(&gateway, SUBJECT).await;
    assert_eq!((refused.status, refused.code()), (502, "upstream_refused_token"));
    assert_eq!(refused.header("www-authenticate"), "");
    assert_eq!(idp.tokens().len(), 3);
}

#[tokio::test]
async fn a_403_is_the_persons_unless_it_is_about_scopes() {
    let Trio {
        gateway,
        server,
        idp: _idp,
    } = trio("").await;
    let body = json!({"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "not yours"}});
    server.push(Answer::json(403, &body));
    let answer = call(&gateway, SUBJECT).await;
    assert_eq!((answer.status, &answer.body), (403, &body));
    let challenge = (
        "WWW-Authenticate",
        r#"Bearer error="insufficient_scope", scope="more""#,
    );
    server.push(Answer::raw(403, &[challenge], ""));
    let answer = call(&gateway, SUBJECT).await;
    assert_eq!((answer.status, answer.code()), (502, "upstream_forbidden"));
}

#[tokio::test]
async fn two_servers_never_share_a_token() {
    let (idp, one, two) = (Idp::start().await, Watched::start().await, Watched::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let second = exchanging(&two, &idp, "").replacen("  one:", "  two:", 1);
    let gateway = TestGateway::with_servers(&(exchanging(&one, &idp, "") + &second)).await;
    for path in ["/one/mcp", "/two/mcp", "/one/mcp", "/two/mcp"] {
        let call = gateway.post(path, &echo("x")).header("authorization", SUBJECT);
        assert_eq!(got(call).await.status, 200);
    }
    let tokens = idp.tokens();
    assert_eq!(tokens.len(), 2);
    two.assert_never_seen(&tokens[0]);
    one.assert_never_seen(&tokens[1]);
}

#[tokio::test]
async fn fewer_scopes_than_asked_for_are_used_and_noted() {
    let Trio {
        gateway,
        idp,
        server: _server,
    } = trio("scopes: [canary-kept, canary-lost]").await;
    idp.push(Reply::Json(json!({"access_token": "t", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN, "scope": "canary-kept"})));
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    let log = crate::harness::logged();
    let line = log
        .lines()
        .find(|line| line.contains("fewer scopes"))
        .expect("a line");
    assert!(line.contains(r#"missing="canary-lost""#), "{line}");
}

#[tokio::test]
async fn a_server_without_an_exchange_is_not_touched_by_one() {
    let (idp, server, plain) = (Idp::start().await, Watched::start().await, Watched::start().await);
    let both = exchanging(&server, &idp, "")
        + &entry(
            "two",
            &format!("url: {}\nextra_headers: [authorization]", plain.url()),
        );
    let gateway = TestGateway::with_servers(&both).await;
    let call = gateway
        .post("/two/mcp", &echo("x"))
        .header("authorization", SUBJECT);
    assert_eq!(got(call).await.status, 200);
    assert_eq!(plain.requests()[0].header("authorization"), Some(SUBJECT));
    assert!(idp.requests().is_empty());
}

#[tokio::test]
async fn exchanges_under_way_are_bounded_and_who_comes_too_much_is_told_when_to_come_back() {
    let Trio { gateway, idp, server } = trio("").await;
    let gate = Arc::new(Semaphore::new(0));
    for _ in 0..100 {
        idp.push(issued(Some(json!(3600))).behind(&gate));
    }
    let gateway = Arc::new(gateway);
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { call(&gateway, &format!("{SUBJECT}-{number}")).await })
        })
        .collect();
    idp.wait_for(100).await;
    let refused = call(&gateway, &format!("{SUBJECT}-late")).await;
    assert_eq!(
        (refused.status, refused.code(), refused.header("retry-after")),
        (503, "too_many_exchanges", "1"),
        "{}",
        refused.body
    );
    assert_eq!(idp.requests().len(), 100, "nothing was asked for it");
    // One that is under way already has its place.
    let again = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { call(&gateway, &format!("{SUBJECT}-0")).await }
    });
    gate.add_permits(100);
    for waiting in waiting.into_iter().chain([again]) {
        assert_eq!(waiting.await.expect("joined").status, 200);
    }
    gateway.advance(2);
    assert_eq!(call(&gateway, &format!("{SUBJECT}-late")).await.status, 200);
    assert_eq!(idp.requests().len(), 101);
    server.assert_never_seen(SUBJECT);
}

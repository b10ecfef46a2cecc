//! Whose token it is: judged before the exchange by the issuer's keys, told to clients, and what sessions are bound to.

use crate::by_hand::Watched;
use crate::exchange::{Trio, assert_challenged, call, exchanging, issued, trio};
use crate::harness::{TestGateway, echo, got};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vestibule_testkit::{Idp, Issuer, SigningKey};

/// What the gateway's clock says first, in seconds since 1970.
const START: u64 = 1_000_000_000;

struct Judged {
    gateway: TestGateway,
    idp: Idp,
    server: Watched,
    issuer: Issuer,
}

async fn judged() -> Judged {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let issuer = Issuer::start(SigningKey::ec("k1", "P-256")).await;
    let more = format!(
        "subject_token_issuer: {}\nsubject_token_audience: gateway",
        issuer.issuer()
    );
    let gateway = TestGateway::with_servers(&exchanging(&server, &idp, &more)).await;
    Judged {
        gateway,
        idp,
        server,
        issuer,
    }
}

/// `alice`, with some claims replaced.
fn claims(edits: &Value) -> Value {
    let mut claims = json!({"sub": "alice", "aud": "gateway", "iat": START, "exp": START + 36_000});
    for (name, value) in edits.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn a_token_that_does_not_count_is_not_exchanged() {
    let Judged {
        gateway,
        idp,
        server,
        issuer,
    } = judged().await;
    let good = issuer.token(&claims(&json!({})));
    assert_eq!(call(&gateway, &good).await.status, 200);
    let (key, evil) = (issuer.key(), SigningKey::ec("k1", "P-256"));
    let own = claims(&json!({"iss": issuer.issuer()}));
    let header = |alg: &str| json!({"alg": alg, "kid": "k1"});
    let challenge = format!(
        r#"Bearer realm="vestibule", error="invalid_token", resource_metadata="{}/.well-known/oauth-protected-resource/one/mcp""#,
        gateway.url("")
    );
    let (signed, _) = good.rsplit_once('.').expect("three parts");
    for (what, token) in [
        ("opaque", "canary-opaque".to_owned()),
        ("no signature", format!("{signed}.")),
        ("another issuer", issuer.token(&claims(&json!({"iss": "https://evil.example"})))),
        ("another audience", issuer.token(&claims(&json!({"aud": "other"})))),
        ("expired", issuer.token(&claims(&json!({"exp": START})))),
        ("not yet", issuer.token(&claims(&json!({"nbf": START + 100})))),
        ("no subject", issuer.token(&claims(&json!({"sub": ""})))),
        ("alg none", key.token_with(&header("none"), &own)),
        ("HS256 with the public key", key.token_with(&header("HS256"), &own)),
        ("RS256 with an EC key", key.token_with(&header("RS256"), &own)),
        ("another key", evil.token(&own)),
        ("its own key", evil.token_with(&json!({"alg": "ES256", "kid": "k1", "jwk": evil.jwk(), "jku": format!("{}/evil", issuer.base())}), &own)),
        ("another type", key.token_with(&json!({"alg": "ES256", "kid": "k1", "typ": "dpop+jwt"}), &own)),
        ("critical", key.token_with(&json!({"alg": "ES256", "kid": "k1", "crit": ["x"]}), &own)),
    ] {
        // An issuer's answer of long ago is asked for again where a newer one could help; none of these is.
        assert_challenged(&call(&gateway, &token).await, "subject_token_refused", &challenge, what);
    }
    assert_eq!((idp.requests().len(), server.requests().len()), (1, 1));
    assert!(issuer.requests().iter().all(|request| request.path() != "/evil"));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_fetches_once_a_window() {
    let Judged {
        gateway,
        issuer,
        idp,
        server: _server,
    } = judged().await;
    assert_eq!(
        call(&gateway, &issuer.token(&claims(&json!({})))).await.status,
        200
    );
    assert_eq!(issuer.key_fetches(), 1);
    let gateway = Arc::new(gateway);
    for window in 0..3 {
        let mut calls = tokio::task::JoinSet::new();
        let now = START + window * 31;
        for number in 0..50 {
            let key = SigningKey::ed25519(&format!("unknown-{window}-{number}"));
            let token = key.token(&claims(&json!({"iss": issuer.issuer(), "iat": now})));
            let gateway = Arc::clone(&gateway);
            calls.spawn(async move { call(&gateway, &token).await.status });
        }
        while let Some(status) = calls.join_next().await {
            // Said only of tokens that were held against keys that were fetched for them; the others try again.
            assert!(matches!(status.expect("no panic"), 401 | 503));
        }
        assert!(
            issuer.key_fetches() <= 1 + usize::try_from(window).expect("small"),
            "{window}"
        );
        gateway.advance(31);
    }
    // What does not say when it was issued is not waited for.
    let unknown = |number: i64, edits: Value| {
        let mut edits = edits;
        edits["iss"] = json!(issuer.issuer());
        SigningKey::ed25519(&format!("later-{number}")).token(&claims(&edits))
    };
    let now = START + 3 * 31;
    let fresh = unknown(0, json!({"iat": now}));
    assert_eq!(
        call(&gateway, &fresh).await.status,
        401,
        "held against keys fetched for it"
    );
    let mut undated = claims(&json!({"iss": issuer.issuer()}));
    undated.as_object_mut().expect("an object").remove("iat");
    let undated = SigningKey::ed25519("later-1").token(&undated);
    assert_eq!(call(&gateway, &unknown(2, json!({"iat": now}))).await.status, 503);
    let refused = call(&gateway, &undated).await;
    assert_eq!((refused.status, refused.code()), (401, "subject_token_refused"));
    // What was issued before the keys were fetched is refused without another fetch.
    let old =
        SigningKey::ed25519("gone").token(&claims(&json!({"iss": issuer.issuer(), "iat": START - 1000})));
    assert_eq!(call(&gateway, &old).await.status, 401);
    assert_eq!(call(&gateway, &(old + "")).await.status, 401);
    assert_eq!(idp.requests().len(), 1);
}

#[tokio::test]
async fn keys_rotate_under_load_without_one_refusal() {
    let Judged {
        gateway,
        issuer,
        idp: _idp,
        server: _server,
    } = judged().await;
    let (gateway, issuer) = (Arc::new(gateway), Arc::new(issuer));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (gateway, issuer, stop) = (Arc::clone(&gateway), Arc::clone(&issuer), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut statuses, mut number) = (Vec::new(), 0);
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let sub = format!("person-{caller}-{number}");
                    let token = issuer.token(&claims(&json!({"sub": sub})));
                    statuses.push(call(&gateway, &token).await.status);
                }
                statuses
            })
        })
        .collect();
    for round in 2..7 {
        // The keys in use were fetched before, so their window ends with this.
        let known = issuer.token(&claims(&json!({"sub": format!("before-{round}")})));
        assert_eq!(call(&gateway, &known).await.status, 200);
        gateway.advance(31);
        issuer.rotate(SigningKey::ec(&format!("k{round}"), "P-256"));
        let fresh = issuer.token(&claims(&json!({"sub": format!("after-{round}")})));
        assert_eq!(call(&gateway, &fresh).await.status, 200);
        assert_eq!(issuer.key_fetches(), round);
    }
    stop.store(true, Ordering::SeqCst);
    let mut calls = 0;
    for caller in callers {
        let statuses = caller.await.expect("no panic");
        calls += statuses.len();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
    assert!(calls > 20, "{calls}");
}

#[tokio::test]
async fn known_keys_outlive_an_outage_of_the_issuer_and_end_with_it() {
    let Judged {
        gateway,
        issuer,
        idp: _idp,
        server: _server,
    } = judged().await;
    let person = |name: &str| issuer.token(&claims(&json!({"sub": name})));
    issuer.break_down(true);
    let refused = call(&gateway, &person("a")).await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "subject_keys_unavailable")
    );
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(refused.header("www-authenticate"), "");
    issuer.break_down(false);
    gateway.advance(6);
    assert_eq!(call(&gateway, &person("b")).await.status, 200);
    issuer.break_down(true);
    // Looked up again in the background, and used while that fails.
    gateway.advance(3000);
    assert_eq!(call(&gateway, &person("c")).await.status, 200);
    gateway.advance(700);
    assert_eq!(call(&gateway, &person("d")).await.status, 503);
}

#[tokio::test]
async fn a_document_about_another_issuer_is_not_believed() {
    let Judged {
        gateway,
        issuer,
        idp,
        server: _server,
    } = judged().await;
    issuer.describe("issuer", "https://evil.example");
    let refused = call(&gateway, &issuer.token(&claims(&json!({})))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "subject_keys_unavailable")
    );
    assert_eq!((issuer.key_fetches(), idp.requests().len()), (0, 0));
}

#[tokio::test]
async fn keys_come_from_where_the_operator_says() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let issuer = Issuer::start(SigningKey::rsa("k1")).await;
    let more = format!(
        "subject_token_issuer: https://idp.example\nsubject_token_audience: gateway\nsubject_token_jwks_url: {}/jwks",
        issuer.base()
    );
    let gateway = TestGateway::with_servers(&exchanging(&server, &idp, &more)).await;
    let token = issuer.token(&claims(&json!({"iss": "https://idp.example"})));
    assert_eq!(call(&gateway, &token).await.status, 200);
    assert_eq!(issuer.requests().len(), 1);
}

#[tokio::test]
async fn a_token_ends_with_the_one_that_it_was_exchanged_for() {
    // Judged or not: what a token says of its own end counts.
    let Trio {
        gateway,
        idp,
        server: _server,
    } = trio("").await;
    let key = SigningKey::ed25519("k");
    let token = key.token(&json!({"iss": "x", "sub": "y", "exp": START + 100}));
    for (advance, status, asked) in [(0, 200, 1), (99, 200, 1), (1, 401, 1)] {
        gateway.advance(advance);
        let answer = call(&gateway, &token).await;
        assert_eq!(
            (answer.status, idp.requests().len()),
            (status, asked),
            "{advance}: {}",
            answer.body
        );
    }
    let expired = key.token(&json!({"iss": "x", "sub": "y", "exp": START - 1}));
    assert_eq!(call(&gateway, &expired).await.code(), "subject_token_refused");
    assert_eq!(idp.requests().len(), 1);
}

#[tokio::test]
async fn clients_are_told_where_tokens_come_from() {
    let Judged {
        gateway,
        issuer,
        idp: _idp,
        server: _server,
    } = judged().await;
    let answer = got(gateway.post("/mcp/one", &echo("x"))).await;
    let path = "/.well-known/oauth-protected-resource/mcp/one";
    let challenge = format!(
        r#"Bearer realm="vestibule", resource_metadata="{}""#,
        gateway.url(path)
    );
    assert_challenged(&answer, "subject_token_required", &challenge, "no token");
    for (path, resource) in [
        (path, "/mcp/one"),
        ("/.well-known/oauth-protected-resource/one/mcp", "/one/mcp"),
        ("/one/mcp/.well-known/oauth-protected-resource", "/one/mcp"),
        ("/.well-known/oauth-protected-resource", "/one/mcp"),
    ] {
        let document = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!(document.status, 200, "{path}");
        let expected = json!({
            "resource": gateway.url(resource),
            "authorization_servers": [issuer.issuer()],
            "bearer_methods_supported": ["header"],
        });
        assert_eq!(document.body, expected, "{path}");
        assert_eq!(document.header("access-control-allow-origin"), "*");
    }
    // We are nobody's authorization server there.
    for path in [
        "/.well-known/oauth-authorization-server/one",
        "/one/authorize",
        "/one/register",
    ] {
        let answer = got(gateway.http.get(gateway.url(path))).await;
        assert_eq!((answer.status, answer.code()), (404, "no_sign_in"), "{path}");
    }
    assert!(issuer.requests().is_empty());
    let Trio {
        gateway,
        idp: _idp,
        server: _server,
    } = trio("").await;
    let answer = got(gateway.http.get(gateway.url(path))).await;
    assert_eq!((answer.status, answer.code()), (404, "no_sign_in"));
}

#[tokio::test]
async fn a_session_is_its_persons() {
    let Judged {
        gateway,
        issuer,
        server,
        idp: _idp,
    } = judged().await;
    server.set_session(Some("canary-inner-session"));
    let token = |sub: &str, jti: &str| issuer.token(&claims(&json!({"sub": sub, "jti": jti})));
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}});
    let request = gateway
        .post("/one/mcp", &initialize)
        .bearer_auth(token("alice", "1"));
    let begun = got(request).await;
    let session = begun.header("mcp-session-id").to_owned();
    assert!(begun.status == 200 && !session.is_empty(), "{}", begun.body);
    let within = |token: Option<String>| {
        let call = gateway
            .post("/one/mcp", &echo("x"))
            .header("mcp-session-id", &session);
        got(match token {
            Some(token) => call.bearer_auth(token),
            None => call,
        })
    };
    assert_eq!(within(Some(token("alice", "1"))).await.status, 200);
    // A renewed token of the same person keeps it, on this and any other gateway with the keys.
    assert_eq!(within(Some(token("alice", "2"))).await.status, 200);
    let stranger = within(Some(token("bob", "1"))).await;
    assert_eq!((stranger.status, stranger.code()), (404, "unknown_session"));
    let opaque = within(Some("canary-opaque".into())).await;
    assert_eq!((opaque.status, opaque.code()), (404, "unknown_session"));
    // A token that only says it is hers opens the session and is refused for itself.
    let forged = SigningKey::ec("k1", "P-256").token(&claims(&json!({"iss": issuer.issuer()})));
    assert_eq!(within(Some(forged)).await.code(), "subject_token_refused");
    assert_eq!(within(None).await.code(), "subject_token_required");
    let seen = server.requests();
    assert_eq!(seen.len(), 3);
}

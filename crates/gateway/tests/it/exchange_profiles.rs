//! The dialects of an exchange, each against a provider that checks every parameter: RFC 8693 with an actor, Entra's
//! on-behalf-of flow, the identity assertion grant; and the ways in which the gateway proves who it is.

use crate::by_hand::Watched;
use crate::exchange::{ACCESS_TOKEN, GRANT, SUBJECT, Trio, assert_challenged, call, issued, trio};
use crate::harness::{CLIENT_SECRET, TestGateway, assert_nothing_secret_logged, echo, got};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::collections::HashSet;
use vestibule_testkit::jose::decoded;
use vestibule_testkit::{Idp, Issuer, Reply, Request, SigningKey};

const BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const START: u64 = 1_000_000_000;

/// Refuses a request whose form is not exactly this one.
fn strict(idp: &Idp, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    idp.judge(move |request: &Request| {
        (request.form() != expected).then(|| Reply::error(400, "unsupported_grant_type"))
    });
}

async fn entra() -> Trio {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    strict(
        &idp,
        &[
            ("grant_type", BEARER_GRANT),
            ("client_id", "canary-id"),
            ("client_secret", CLIENT_SECRET),
            ("assertion", SUBJECT),
            ("requested_token_use", "on_behalf_of"),
            ("scope", "api://mcp/.default"),
        ],
    );
    let more = "token_exchange_profile: entra_obo\nscopes: [api://mcp/.default]";
    let gateway = TestGateway::with_servers(&crate::exchange::exchanging(&server, &idp, more)).await;
    Trio { gateway, idp, server }
}

#[tokio::test]
async fn entras_dialect() {
    let Trio { gateway, idp, server } = entra().await;
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    assert_eq!(server.requests()[0].bearer(), Some(idp.last_token().as_str()));
    server.assert_never_seen(SUBJECT);
}

#[tokio::test]
async fn entras_claims_reach_the_client_and_nothing_else_does() {
    let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
    let body = |claims: Value| {
        json!({"error": "interaction_required", "error_description": "AADSTS50076: canary-description", "error_codes": [50076],
            "trace_id": "canary-trace", "suberror": "basic_action", "claims": claims})
    };
    let encoded = BASE64_STANDARD.encode(claims);
    let with_claims = format!(r#"Bearer realm="vestibule", error="insufficient_claims", claims="{encoded}""#);
    let without = r#"Bearer realm="vestibule", error="invalid_token""#;
    for (claims, code, challenge) in [
        (json!(claims), "insufficient_claims", with_claims.as_str()),
        (json!("\r\nSet-Cookie: x"), "subject_token_refused", without),
        (json!([1]), "subject_token_refused", without),
        (Value::Null, "subject_token_refused", without),
    ] {
        let Trio {
            gateway,
            idp,
            server: _server,
        } = entra().await;
        idp.push(Reply::Raw {
            status: 400,
            content_type: Some("application/json".into()),
            headers: vec![],
            body: body(claims.clone()).to_string().into_bytes(),
        });
        let refused = call(&gateway, SUBJECT).await;
        assert_challenged(&refused, code, challenge, &claims.to_string());
        assert!(!refused.body.to_string().contains("canary"), "{}", refused.body);
    }
    assert_nothing_secret_logged(&["canary-description", "canary-trace", "AADSTS50076"]);
    // In the dialect of RFC 8693 nobody asks for claims.
    let Trio {
        gateway,
        idp,
        server: _server,
    } = trio("").await;
    idp.push(Reply::Raw {
        status: 400,
        content_type: None,
        headers: vec![],
        body: body(json!(claims)).to_string().into_bytes(),
    });
    assert_challenged(
        &call(&gateway, SUBJECT).await,
        "subject_token_refused",
        without,
        "rfc8693",
    );
    // And in Entra's invalid_request is about the request.
    let Trio {
        gateway,
        idp,
        server: _server,
    } = entra().await;
    idp.push(Reply::error(400, "invalid_request"));
    assert_eq!(call(&gateway, SUBJECT).await.code(), "token_refused");
}

#[tokio::test]
async fn an_actor_goes_along() {
    let more = "actor_token: canary-actor-token\nactor_token_type: urn:ietf:params:oauth:token-type:jwt\nsubject_token_type: urn:ietf:params:oauth:token-type:jwt";
    let Trio { gateway, idp, server } = trio(more).await;
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    strict(
        &idp,
        &[
            ("grant_type", GRANT),
            ("client_id", "canary-id"),
            ("client_secret", CLIENT_SECRET),
            ("subject_token", SUBJECT),
            ("subject_token_type", jwt),
            ("actor_token", "canary-actor-token"),
            ("actor_token_type", jwt),
        ],
    );
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    server.assert_never_seen("canary-actor-token");
    assert_nothing_secret_logged(&["canary-actor-token"]);
}

#[tokio::test]
async fn the_gateway_proves_itself_with_a_key() {
    let issuer = Issuer::start(SigningKey::ed25519("i")).await;
    let base = issuer.base();
    for (key, algorithm, more, to_issuer) in [
        (SigningKey::rsa("g"), "RS256", String::new(), false),
        (SigningKey::rsa("g"), "PS256", format!("issuer: {base}"), true),
        (
            SigningKey::ec("g", "P-256"),
            "ES256",
            format!("issuer: {base}\nclient_assertion_audience: token_endpoint"),
            false,
        ),
        (
            SigningKey::ed25519("g"),
            "EdDSA",
            format!("issuer: {base}\nclient_assertion_audience: issuer"),
            true,
        ),
    ] {
        let (idp, server) = (Idp::start().await, Watched::start().await);
        idp.set_default(issued(Some(json!(3600))));
        let pem = key.pem().replace('\n', "\\n");
        let fields = format!(
            "auth_type: oauth2_token_exchange\ntoken_exchange_endpoint: {}\nclient_id: gw\nclient_private_key: '{pem}'\n\
             client_private_key_id: g\nclient_assertion_signing_alg: {algorithm}\n{more}",
            idp.url()
        );
        let gateway = TestGateway::with_servers(&server.entry("one", &fields)).await;
        for subject in [SUBJECT, "canary-second-subject"] {
            assert_eq!(call(&gateway, subject).await.status, 200, "{algorithm}");
        }
        let mut ids = HashSet::new();
        for request in idp.requests() {
            assert_eq!(
                request.form_value("client_assertion_type").as_deref(),
                Some(ASSERTION_TYPE)
            );
            assert_eq!(
                (
                    request.form_value("client_secret"),
                    request.header("authorization")
                ),
                (None, None)
            );
            assert_eq!(request.form_value("client_id").as_deref(), Some("gw"));
            let assertion = request.form_value("client_assertion").expect("an assertion");
            assert_eq!(
                decoded(&assertion, 0),
                json!({"alg": algorithm, "typ": "JWT", "kid": "g"})
            );
            let claims = decoded(&assertion, 1);
            let audience = if to_issuer { base.clone() } else { idp.url() };
            assert_eq!(
                (&claims["iss"], &claims["sub"], &claims["aud"]),
                (&json!("gw"), &json!("gw"), &json!(audience))
            );
            assert_eq!(
                (&claims["iat"], &claims["exp"]),
                (&json!(START), &json!(START + 60))
            );
            ids.insert(claims["jti"].to_string());
            assert_nothing_secret_logged(&[&assertion]);
        }
        assert_eq!(ids.len(), 2);
    }
    assert!(issuer.requests().is_empty());
}

#[tokio::test]
async fn the_endpoint_may_be_found_in_the_issuers_metadata() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.set_default(issued(Some(json!(3600))));
    let issuer = Issuer::start(SigningKey::ed25519("i")).await;
    let key = SigningKey::ed25519("g");
    let fields = format!(
        "auth_type: oauth2_token_exchange\nissuer: {}\nclient_id: gw\nclient_private_key: '{}'\nclient_assertion_signing_alg: EdDSA",
        issuer.issuer(),
        key.pem().replace('\n', "\\n"),
    );
    let entry = server.entry("one", &fields);
    for (name, value) in [
        ("registration_endpoint", idp.url()),
        ("token_endpoint", "ftp://idp.example/token".to_owned()),
        ("token_endpoint", idp.url()),
    ] {
        if value == idp.url() && name == "token_endpoint" {
            issuer.describe("issuer", "https://evil.example");
        }
        issuer.describe(name, value);
        let gateway = TestGateway::with_servers(&entry).await;
        let refused = call(&gateway, SUBJECT).await;
        assert_eq!((refused.status, refused.code()), (502, "token_endpoint_unknown"));
    }
    assert!(idp.requests().is_empty());
    issuer.describe("issuer", issuer.issuer());
    let gateway = TestGateway::with_servers(&entry).await;
    let answer = call(&gateway, SUBJECT).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let assertion = idp.requests()[0]
        .form_value("client_assertion")
        .expect("an assertion");
    assert_eq!(decoded(&assertion, 1)["aud"], issuer.issuer());
    // A redirect of the token request is not followed either.
    idp.push(Reply::Redirect {
        status: 308,
        location: idp.url(),
    });
    assert_eq!(
        call(&gateway, "canary-another").await.code(),
        "token_endpoint_redirect"
    );
}

/// Who the gateway is at the server's own authorization server.
const OWN_CLIENT: &str =
    "id_jag_resource_client_id: at-the-resource\nid_jag_resource_client_secret: canary-second-secret";

struct Jag {
    gateway: TestGateway,
    provider: Idp,
    resource: Idp,
    server: Watched,
}

/// An identity provider that gives grants, and the server's own authorization server that takes them.
async fn id_jag(more: &str) -> Jag {
    let (provider, resource, server) = (Idp::start().await, Idp::start().await, Watched::start().await);
    provider.set_default(Reply::Json(json!({
        "access_token": "canary-the-grant", "token_type": "N_A", "issued_token_type": ID_JAG, "expires_in": 300,
    })));
    let fields = format!(
        "auth_type: oauth2_id_jag\ntoken_exchange_endpoint: {}\nclient_id: canary-id\nclient_secret: {CLIENT_SECRET}\n\
         audience: https://as.example\nid_jag_resource: auto\nid_jag_resource_token_endpoint: {}\nscopes: [mcp]\n{more}",
        provider.url(),
        resource.url()
    );
    let gateway = TestGateway::with_servers(&server.entry("one", &fields)).await;
    Jag {
        gateway,
        provider,
        resource,
        server,
    }
}

#[tokio::test]
async fn the_identity_assertion_grant() {
    let Jag {
        gateway,
        provider,
        resource,
        server,
    } = id_jag(OWN_CLIENT).await;
    strict(
        &provider,
        &[
            ("grant_type", GRANT),
            ("client_id", "canary-id"),
            ("client_secret", CLIENT_SECRET),
            ("subject_token", SUBJECT),
            ("subject_token_type", ID_TOKEN),
            ("requested_token_type", ID_JAG),
            ("audience", "https://as.example"),
            ("resource", &server.url()),
            ("scope", "mcp"),
        ],
    );
    strict(
        &resource,
        &[
            ("grant_type", BEARER_GRANT),
            ("client_id", "at-the-resource"),
            ("client_secret", "canary-second-secret"),
            ("assertion", "canary-the-grant"),
            ("scope", "mcp"),
        ],
    );
    for _ in 0..2 {
        let call = gateway.post("/one/mcp", &echo("x")).bearer_auth(SUBJECT);
        let answer = got(call.header("x-litellm-mcp-debug", "true")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "id-jag");
    }
    assert_eq!((provider.requests().len(), resource.requests().len()), (1, 1));
    // The grant is for one use: a new access token begins with a new one.
    gateway.advance(3600);
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    assert_eq!((provider.requests().len(), resource.requests().len()), (2, 2));
    for canary in [SUBJECT, "canary-the-grant", "canary-second-secret"] {
        server.assert_never_seen(canary);
        assert_nothing_secret_logged(&[canary]);
    }
    resource.assert_never_seen(SUBJECT);
    resource.assert_never_seen(CLIENT_SECRET);
    provider.assert_never_seen("canary-second-secret");
    let none = got(gateway.post("/one/mcp", &echo("x"))).await;
    assert_challenged(
        &none,
        "subject_token_required",
        r#"Bearer realm="vestibule""#,
        "no subject",
    );
}

#[tokio::test]
async fn each_leg_refuses_in_its_own_way() {
    let grant = |kind: &str, token_type: &str| {
        Reply::Json(json!({"access_token": "canary-g", "token_type": token_type, "issued_token_type": kind}))
    };
    let echoed = |token: &str| Reply::Json(json!({"access_token": token, "token_type": "Bearer"}));
    for (first, second, status, code) in [
        (
            Some(Reply::error(400, "invalid_grant")),
            None,
            401,
            "subject_token_refused",
        ),
        (
            Some(Reply::error(401, "invalid_client")),
            None,
            502,
            "token_refused",
        ),
        (
            Some(grant(ACCESS_TOKEN, "Bearer")),
            None,
            502,
            "token_response_invalid",
        ),
        (Some(grant(ID_JAG, "Bearer")), None, 502, "token_response_invalid"),
        (
            Some(grant(ACCESS_TOKEN, "N_A")),
            None,
            502,
            "token_response_invalid",
        ),
        (
            Some(Reply::Json(
                json!({"access_token": SUBJECT, "token_type": "N_A", "issued_token_type": ID_JAG}),
            )),
            None,
            502,
            "token_response_invalid",
        ),
        // That a fresh grant is refused is between the two servers: no new sign-in mends it.
        (
            None,
            Some(Reply::error(400, "invalid_grant")),
            502,
            "token_refused",
        ),
        (
            None,
            Some(Reply::error(401, "invalid_client")),
            502,
            "token_refused",
        ),
        (None, Some(Reply::Drop), 502, "token_endpoint_unreachable"),
        (
            None,
            Some(echoed("canary-the-grant")),
            502,
            "token_response_invalid",
        ),
        (None, Some(echoed(SUBJECT)), 502, "token_response_invalid"),
        (
            None,
            Some(echoed("canary-second-secret")),
            502,
            "token_response_invalid",
        ),
    ] {
        let Jag {
            gateway,
            provider,
            resource,
            server,
        } = id_jag(OWN_CLIENT).await;
        let what = format!("{first:?} {second:?}");
        let reaches = usize::from(second.is_some());
        if let Some(reply) = first {
            provider.push(reply);
        }
        if let Some(reply) = second {
            resource.push(reply);
        }
        let refused = call(&gateway, SUBJECT).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{what}: {}",
            refused.body
        );
        assert!(!refused.body.to_string().contains("canary"), "{what}");
        assert_eq!(
            (resource.requests().len(), server.requests().len()),
            (reaches, 0),
            "{what}"
        );
    }
}

#[tokio::test]
async fn one_key_serves_both_legs_of_the_grant() {
    let (provider, resource, server) = (Idp::start().await, Idp::start().await, Watched::start().await);
    provider.set_default(Reply::Json(
        json!({"access_token": "g", "token_type": "N_A", "issued_token_type": ID_JAG}),
    ));
    let key = SigningKey::ec("g", "P-256");
    let fields = format!(
        "auth_type: oauth2_id_jag\ntoken_exchange_endpoint: {}\nissuer: https://idp.example\nclient_id: gw\n\
         client_private_key: '{}'\nclient_assertion_signing_alg: ES256\naudience: https://as.example\n\
         id_jag_resource_token_endpoint: {}",
        provider.url(),
        key.pem().replace('\n', "\\n"),
        resource.url()
    );
    let gateway = TestGateway::with_servers(&server.entry("one", &fields)).await;
    assert_eq!(call(&gateway, SUBJECT).await.status, 200);
    let audience = |idp: &Idp| {
        let assertion = idp.requests()[0]
            .form_value("client_assertion")
            .expect("an assertion");
        decoded(&assertion, 1)["aud"].clone()
    };
    assert_eq!(audience(&provider), "https://idp.example");
    assert_eq!(audience(&resource), resource.url());
}

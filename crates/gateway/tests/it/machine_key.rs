//! Machines that prove themselves with a key in place of a secret (RFC 7523 section 2.2).

use crate::by_hand::Watched;
use crate::harness::{TestGateway, assert_nothing_secret_logged, echo, entry, got};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use vestibule::config::load;
use vestibule_testkit::jose::decoded;
use vestibule_testkit::{Idp, Reply, SigningKey};

const START: u64 = 1_000_000_000;

fn one_line(key: &SigningKey) -> String {
    key.pem().replace('\n', "\\n")
}

fn fields(url: &str, token_url: &str, key: &SigningKey, more: &str) -> String {
    format!(
        "url: {url}\nauth_type: oauth2\ntoken_url: {token_url}\nclient_id: gateway\nscopes: [a]\n\
         client_private_key: '{}'\nclient_private_key_id: k1\nclient_assertion_signing_alg: ES256\n{more}",
        one_line(key)
    )
}

/// Whether the assertion is signed by the key of this JWK.
fn is_genuine(assertion: &str, jwk: &Value) -> bool {
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url");
    let coordinate = |name: &str| decode(jwk[name].as_str().expect("a coordinate"));
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = assertion.rsplit_once('.').expect("a JWT");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decode(signature))
        .is_ok()
}

#[tokio::test]
async fn a_machine_token_is_asked_for_with_an_assertion_of_its_own() {
    let issuer = "issuer: https://as.example/tenant";
    let to_endpoint = "issuer: https://as.example/tenant\nclient_assertion_audience: token_endpoint";
    for (more, audience) in [
        ("", None),
        (issuer, Some("https://as.example/tenant")),
        (to_endpoint, None),
    ] {
        let (idp, server) = (Idp::start().await, Watched::start().await);
        server.accept_if(idp.issued());
        let key = SigningKey::ec("k1", "P-256");
        let (jwk, other) = (key.jwk(), SigningKey::ec("k1", "P-256").jwk());
        // It gives tokens to this client alone.
        idp.judge(move |request| {
            let assertion = request.form_value("client_assertion").expect("an assertion");
            (!is_genuine(&assertion, &jwk)).then(|| Reply::error(401, "invalid_client"))
        });
        let text = fields(&server.url(), &idp.url(), &key, more);
        let gateway = TestGateway::with_servers(&entry("one", &text)).await;
        for _ in 0..2 {
            assert_eq!(
                got(gateway.post("/one/mcp", &echo("x"))).await.status,
                200,
                "{more}"
            );
            gateway.advance(3600);
        }
        let requests = idp.requests();
        assert_eq!(requests.len(), 2);
        let mut ids = Vec::new();
        for (request, now) in requests.iter().zip([START, START + 3600]) {
            let assertion = request.form_value("client_assertion").expect("an assertion");
            assert!(!is_genuine(&assertion, &other));
            assert_eq!(
                decoded(&assertion, 0),
                json!({"alg": "ES256", "typ": "JWT", "kid": "k1"})
            );
            let mut claims = decoded(&assertion, 1);
            ids.push(claims["jti"].take());
            let audience = audience.map_or_else(|| idp.url(), str::to_owned);
            assert_eq!(
                claims,
                json!({"iss": "gateway", "sub": "gateway", "aud": audience, "jti": null, "iat": now, "exp": now + 60})
            );
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", "gateway"),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ),
                ("client_assertion", &assertion),
                ("scope", "a"),
            ];
            let form: Vec<(String, String)> = form.map(|(name, value)| (name.into(), value.into())).into();
            assert_eq!(request.form(), form);
            assert_eq!(request.header("authorization"), None);
            server.assert_never_seen(&assertion);
            assert_nothing_secret_logged(&[&assertion, &one_line(&key)]);
        }
        assert!(ids[0] != ids[1] && ids[0].is_string(), "{ids:?}");
    }
}

#[tokio::test]
async fn an_answer_that_repeats_the_assertion_is_no_token() {
    let (idp, server) = (Idp::start().await, Watched::start().await);
    idp.judge(|request| {
        let assertion = request.form_value("client_assertion")?;
        Some(Reply::OAuthError {
            status: 400,
            error: "invalid_client".into(),
            description: Some(format!("no {assertion}")),
        })
    });
    let key = SigningKey::ec("k1", "P-256");
    let text = fields(&server.url(), &idp.url(), &key, "oauth2_flow: client_credentials");
    let gateway = TestGateway::with_servers(&entry("one", &text)).await;
    let answer = got(gateway.post("/one/mcp", &echo("x"))).await;
    assert_eq!((answer.status, answer.code()), (502, "token_refused"));
    let assertion = idp.requests()[0]
        .form_value("client_assertion")
        .expect("an assertion");
    assert!(!answer.body.to_string().contains(&assertion), "{answer:?}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn what_has_no_effect_beside_or_without_a_key_is_an_error() {
    let key = SigningKey::ec("k1", "P-256");
    let with_key = |more: &str| fields("https://a.example/mcp", "https://a.example/t", &key, more);
    let without =
        "url: https://a.example/mcp\nauth_type: oauth2\ntoken_url: https://a.example/t\nclient_id: id\n";
    for (text, expected) in [
        (
            with_key("token_endpoint_auth_method: client_secret_basic"),
            "error: mcp_servers.one.token_endpoint_auth_method: has no effect beside client_private_key",
        ),
        (
            with_key("authorization_url: https://a.example/a"),
            "error: mcp_servers.one.client_private_key: has no effect with oauth2_flow: authorization_code",
        ),
        (
            with_key("client_secret: s3cret"),
            "warning: mcp_servers.one.client_secret: is not used: client_private_key comes first",
        ),
        (
            with_key("client_assertion_audience: issuer"),
            "error: mcp_servers.one.client_assertion_audience: issuer needs the field issuer",
        ),
        (
            format!("{without}client_secret: s3cret\nclient_private_key_id: k1"),
            "error: mcp_servers.one.client_private_key_id: has no effect without client_private_key",
        ),
        (
            format!("{without}client_secret: s3cret\nissuer: https://a.example"),
            "error: mcp_servers.one.issuer: has no effect with oauth2_flow: client_credentials",
        ),
        (
            format!("{without}oauth2_flow: client_credentials"),
            "error: mcp_servers.one: oauth2_flow: client_credentials needs client_secret",
        ),
        (
            format!("{without}client_private_key: s3cret"),
            "error: mcp_servers.one.client_private_key: is no private key in PEM",
        ),
        (
            "url: https://a.example/mcp\nauth_type: true_passthrough\nclient_private_key_id: k1".to_owned(),
            "error: mcp_servers.one.client_private_key_id: has no effect with auth_type: true_passthrough",
        ),
    ] {
        let loaded = load(
            &format!("mcp_servers:\n{}", entry("one", &text)),
            &std::collections::HashMap::new(),
        );
        let lines: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{expected}\n{lines:#?}"
        );
        assert!(!lines.join("").contains("s3cret"));
        assert_eq!(
            loaded.settings.is_none(),
            expected.starts_with("error"),
            "{lines:#?}"
        );
    }
}

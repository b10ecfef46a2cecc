//! Registration requests and responses, plain and odd.

use super::*;
use proptest::prelude::*;
use secrecy::ExposeSecret;

const CALLBACK: &str = "https://gw.example/callback";

fn parse(body: &Value) -> Result<ClientMetadata, RegistrationRefusal> {
    ClientMetadata::parse(body.to_string().as_bytes())
}

#[test]
fn unknown_and_odd_members_do_not_stop_a_registration() {
    let client = parse(&json!({
        "redirect_uris": ["http://localhost/cb", 7, "", null, "not a uri"],
        "client_name": "A\u{0}\u{202e}\u{200b}\nB ",
        "client_uri": "javascript:alert(1)",
        "logo_uri": {"not": "text"},
        "scope": ["a b", "c", 1, "d\"e"],
        "grant_types": "authorization_code",
        "response_types": null,
        "token_endpoint_auth_method": 5,
        "contacts": ["a@b.example", {}],
        "software_id": "x".repeat(1000),
        "software_version": "",
        "application_type": "web",
        "jwks": {"keys": []},
    }))
    .expect("registers");
    assert_eq!(
        client,
        ClientMetadata {
            redirect_uris: vec!["http://localhost/cb".into(), "not a uri".into()],
            client_name: Some("AB".into()),
            scope: Some("a b c".into()),
            grant_types: vec!["authorization_code".into()],
            contacts: vec!["a@b.example".into()],
            software_id: Some("x".repeat(NAME_LIMIT)),
            application_type: Some("web".into()),
            ..Default::default()
        }
    );
}

#[test]
fn what_is_refused() {
    let many = vec!["http://localhost/"; REDIRECT_URI_LIMIT + 1];
    for (body, error) in [
        (json!({}), "invalid_redirect_uri"),
        (
            json!({"redirect_uris": "http://localhost/"}),
            "invalid_redirect_uri",
        ),
        (json!({"redirect_uris": null}), "invalid_redirect_uri"),
        (json!({"redirect_uris": {}}), "invalid_redirect_uri"),
        (json!({"redirect_uris": 1}), "invalid_redirect_uri"),
        (json!({"redirect_uris": []}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["", 1]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": many}), "invalid_redirect_uri"),
        (json!([]), "invalid_client_metadata"),
        (json!("x"), "invalid_client_metadata"),
    ] {
        assert_eq!(parse(&body).expect_err("refused").error, error, "{body}");
    }
    for body in [&b""[..], b"redirect_uris=x", b"{", b"\xff"] {
        let refusal = ClientMetadata::parse(body).expect_err("refused");
        assert_eq!(refusal.error, "invalid_client_metadata");
    }
}

#[test]
fn what_goes_upstream() {
    let client = parse(&json!({
        "redirect_uris": ["cursor://anysphere.cursor-mcp/oauth/callback"],
        "client_name": "Cursor", "scope": "a", "application_type": "native",
        "grant_types": ["implicit"], "token_endpoint_auth_method": "none",
        "software_id": "s", "contacts": ["c@d.example"],
    }))
    .expect("registers");
    assert_eq!(
        client.upstream_request(CALLBACK, Some(&["none".to_owned()])),
        json!({
            "redirect_uris": [CALLBACK], "client_name": "Cursor", "software_id": "s", "scope": "a",
            "contacts": ["c@d.example"], "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "token_endpoint_auth_method": "none",
        })
    );
    let local = client.upstream_request("http://127.0.0.1:4000/callback", None);
    assert_eq!(local["application_type"], "native");
}

#[test]
fn the_authentication_method_upstream() {
    use ClientAuthMethod as Method;
    for (asked, supported, expected) in [
        (Some("none"), None, Method::None),
        (Some("client_secret_post"), None, Method::ClientSecretPost),
        (None, None, Method::ClientSecretBasic),
        (Some("private_key_jwt"), None, Method::ClientSecretBasic),
        (
            Some("none"),
            Some(vec!["client_secret_post"]),
            Method::ClientSecretPost,
        ),
        (
            Some("client_secret_post"),
            Some(vec!["none", "client_secret_post"]),
            Method::ClientSecretPost,
        ),
        (
            Some("client_secret_jwt"),
            Some(vec!["none", "client_secret_post"]),
            Method::ClientSecretPost,
        ),
        (Some("client_secret_post"), Some(vec!["none"]), Method::None),
        (None, Some(vec!["private_key_jwt"]), Method::ClientSecretBasic),
    ] {
        let client = ClientMetadata {
            token_endpoint_auth_method: asked.map(str::to_owned),
            ..Default::default()
        };
        let names: Option<Vec<String>> =
            supported.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(
            client.upstream_auth_method(names.as_deref()),
            expected,
            "{asked:?} {names:?}"
        );
    }
}

#[test]
fn canonical_bytes_are_those_of_what_is_sent() {
    let base = json!({
        "redirect_uris": ["http://localhost/a"], "client_name": "N", "scope": "a b",
        "software_id": "1", "contacts": ["x"], "token_endpoint_auth_method": "none",
    });
    let bytes = |edit: Value| {
        let mut body = base.clone();
        for (name, value) in edit.as_object().expect("object") {
            body[name] = value.clone();
        }
        parse(&body).expect("registers").canonical_bytes()
    };
    let plain = bytes(json!({}));
    for same in [
        json!({"redirect_uris": ["http://localhost:2/b", "http://localhost/a"]}),
        json!({"scope": "b a"}),
        json!({"grant_types": ["implicit"], "unknown": 1}),
    ] {
        assert_eq!(bytes(same), plain);
    }
    for other in [
        json!({"client_name": "M"}),
        json!({"client_name": "N1", "software_id": ""}),
        json!({"client_uri": "https://n.example"}),
        json!({"scope": "a"}),
        json!({"contacts": ["x", "y"]}),
        json!({"token_endpoint_auth_method": "client_secret_post"}),
    ] {
        assert_ne!(bytes(other.clone()), plain, "{other}");
    }
}

#[test]
fn what_an_upstream_answers() {
    use ClientAuthMethod as Method;
    for (body, asked, secret, method, expires) in [
        (json!({"client_id": "c"}), Method::None, None, Method::None, None),
        (
            json!({"client_id": "c"}),
            Method::ClientSecretPost,
            None,
            Method::None,
            None,
        ),
        (
            json!({"client_id": "c", "client_secret": "s", "client_secret_expires_at": 0}),
            Method::ClientSecretPost,
            Some("s"),
            Method::ClientSecretPost,
            None,
        ),
        (
            json!({"client_id": "c", "client_secret": "s", "client_secret_expires_at": 1_900_000_000,
                   "token_endpoint_auth_method": "client_secret_basic", "registration_access_token": "r"}),
            Method::None,
            Some("s"),
            Method::ClientSecretBasic,
            Some(1_900_000_000),
        ),
        (
            json!({"client_id": "c", "client_secret": "s", "client_secret_expires_at": "1900000000",
                   "token_endpoint_auth_method": "none"}),
            Method::None,
            Some("s"),
            Method::None,
            Some(1_900_000_000),
        ),
        (
            json!({"client_id": "c", "client_secret": "", "client_secret_expires_at": {}}),
            Method::ClientSecretPost,
            None,
            Method::None,
            None,
        ),
    ] {
        let client =
            RegistrationResponse::parse(201, None, body.to_string().as_bytes(), asked).expect("a client");
        assert_eq!(client.client_id, "c");
        assert_eq!(
            client.client_secret.as_ref().map(ExposeSecret::expose_secret),
            secret
        );
        assert_eq!(
            (client.auth_method, client.secret_expires_at),
            (method, expires),
            "{body}"
        );
        assert!(!format!("{client:?}").contains("\"s\""));
    }
}

#[test]
fn what_no_upstream_may_answer() {
    use RegistrationFault as Fault;
    let parse = |status, body: &str| {
        RegistrationResponse::parse(
            status,
            Some("text/html; x"),
            body.as_bytes(),
            ClientAuthMethod::None,
        )
    };
    let not = |status| Fault::NotAClient {
        status,
        content_type: "text/html".into(),
    };
    for (status, body, fault) in [
        (302, r#"{"client_id":"c"}"#, Fault::Redirect(302)),
        (
            403,
            "<html>",
            Fault::Status {
                status: 403,
                content_type: "text/html".into(),
            },
        ),
        (200, "<html>", not(200)),
        (201, "{}", not(201)),
        (201, r#"{"client_id":5}"#, not(201)),
        (201, r#"{"client_id":"a","client_id":"b"}"#, not(201)),
        (201, r#"{"client_id":""}"#, Fault::UnusableClient),
        (201, r#"{"client_id":"a\nb"}"#, Fault::UnusableClient),
        (
            201,
            r#"{"client_id":"a","client_secret":"\u00fc"}"#,
            Fault::UnusableClient,
        ),
        (
            201,
            r#"{"client_id":"a","token_endpoint_auth_method":"private_key_jwt"}"#,
            Fault::UnsupportedAuthMethod,
        ),
    ] {
        assert_eq!(parse(status, body).expect_err(body), fault, "{body}");
    }
    let refused = parse(
        400,
        r#"{"error":"invalid_redirect_uri","error_description":"no"}"#,
    );
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "the authorization server refused to register a client: invalid_redirect_uri (no)"
    );
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body in any::<Vec<u8>>(), name in any::<String>(), status in 100u16..600) {
        let _ = ClientMetadata::parse(&body);
        let _ = RegistrationResponse::parse(status, None, &body, ClientAuthMethod::None);
        let client = parse(&json!({"redirect_uris": ["x"], "client_name": name, "client_uri": name, "scope": name}));
        if let Ok(client) = client {
            prop_assert!(client.client_name.unwrap_or_default().chars().all(|c| !c.is_control()));
        }
    }
}

//! Answers of token endpoints, plain and odd.

use super::*;
use proptest::prelude::*;
use secrecy::ExposeSecret;

fn parse(status: u16, body: &str) -> Result<TokenResponse, TokenResponseFault> {
    TokenResponse::parse(
        status,
        Some("application/json; charset=utf-8"),
        body.as_bytes(),
        &["the-secret"],
    )
}

fn lifetime_of(expires_in: &str) -> Lifetime {
    parse(
        200,
        &format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{expires_in}}}"#),
    )
    .expect("usable")
    .lifetime
}

#[test]
fn expires_in_in_every_shape() {
    let known = |s| Lifetime::Known(Duration::from_secs(s));
    for (text, expected) in [
        ("3600", known(3600)),
        ("3599.9", known(3599)),
        ("\"3600\"", known(3600)),
        ("\" 60 \"", known(60)),
        ("0", known(0)),
        ("-5", known(0)),
        ("\"-5\"", known(0)),
        ("1e99", Lifetime::Known(LIFETIME_LIMIT)),
        ("99999999999999999999999", Lifetime::Known(LIFETIME_LIMIT)),
        ("\"inf\"", Lifetime::Known(LIFETIME_LIMIT)),
        ("\"NaN\"", Lifetime::Unknown),
        ("\"soon\"", Lifetime::Unknown),
        ("null", Lifetime::Unknown),
        ("true", Lifetime::Unknown),
        ("{}", Lifetime::Unknown),
        ("[3600]", Lifetime::Unknown),
    ] {
        assert_eq!(lifetime_of(text), expected, "{text}");
    }
    assert_eq!(
        parse(200, r#"{"access_token":"t"}"#).expect("usable").lifetime,
        Lifetime::Unknown
    );
}

#[test]
fn a_good_answer() {
    let got = parse(
        200,
        r#"{"access_token":"abc","token_type":"bearer","expires_in":60,"x":[1]}"#,
    );
    assert_eq!(got.expect("usable").access_token.secret().expose_secret(), "abc");
}

#[test]
fn unusable_answers() {
    use TokenResponseFault as Fault;
    let json = || "application/json".to_owned();
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(ACCESS_TOKEN_LIMIT + 1));
    let cases = [
        (302, r#"{"access_token":"t"}"#, Fault::Redirect(302)),
        (
            500,
            "<html>",
            Fault::Status {
                status: 500,
                content_type: json(),
            },
        ),
        (
            401,
            "{}",
            Fault::Status {
                status: 401,
                content_type: json(),
            },
        ),
        (
            200,
            "<html>",
            Fault::NotATokenResponse {
                status: 200,
                content_type: json(),
            },
        ),
        (
            200,
            r#"[{"access_token":"t"}]"#,
            Fault::NotATokenResponse {
                status: 200,
                content_type: json(),
            },
        ),
        (
            200,
            r#"{"access_token":"a","access_token":"b"}"#,
            Fault::NotATokenResponse {
                status: 200,
                content_type: json(),
            },
        ),
        (200, "{}", Fault::UnusableToken),
        (200, r#"{"access_token":""}"#, Fault::UnusableToken),
        (200, r#"{"access_token":"a b"}"#, Fault::UnusableToken),
        (200, r#"{"access_token":"a\r\nX: y"}"#, Fault::UnusableToken),
        (200, long.as_str(), Fault::UnusableToken),
        (
            200,
            r#"{"access_token":"a","token_type":"DPoP"}"#,
            Fault::UnsupportedTokenType,
        ),
    ];
    for (status, body, expected) in cases {
        assert_eq!(parse(status, body).expect_err(body), expected);
    }
}

#[test]
fn a_refusal_is_read_whatever_the_status() {
    for status in [200, 400, 401, 503] {
        let fault = parse(
            status,
            r#"{"error":"invalid_client","error_description":"unknown client"}"#,
        );
        assert_eq!(
            fault.expect_err("refused").to_string(),
            "the authorization server refused: invalid_client (unknown client)"
        );
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic_or_leak(status in 100u16..600, body in any::<Vec<u8>>()) {
        let mut with_secret = body.clone();
        with_secret.extend_from_slice(b"the-secret");
        for body in [body, with_secret] {
            if let Err(fault) = TokenResponse::parse(status, None, &body, &["the-secret"]) {
                let shown = format!("{fault} {fault:?}");
                prop_assert!(!shown.contains("the-secret"));
            }
        }
    }

    #[test]
    fn every_accepted_token_fits_a_header(token in "\\PC*") {
        let body = serde_json::json!({"access_token": token}).to_string();
        if let Ok(parsed) = TokenResponse::parse(200, None, body.as_bytes(), &[]) {
            prop_assert!(parsed.access_token.secret().expose_secret().bytes().all(|b| (0x21..0x7f).contains(&b)));
        }
    }
}

fn interactive(content_type: &str, body: &str) -> Result<TokenResponse, TokenResponseFault> {
    TokenResponse::parse_interactive(200, Some(content_type), body.as_bytes(), &["the-secret"])
}

#[test]
fn every_field_is_kept() {
    let got = interactive(
        "application/json",
        r#"{"access_token":"a","token_type":"bearer","expires_in":"3600","refresh_token":"r","scope":"x,y",
            "team":{"id":"T1"}}"#,
    )
    .expect("usable");
    assert_eq!(got.access_token.secret().expose_secret(), "a");
    assert_eq!(
        got.refresh_token.as_ref().map(ExposeSecret::expose_secret),
        Some("r")
    );
    assert_eq!(
        (got.token_type.as_str(), got.scope.as_deref(), got.expires_in),
        ("bearer", Some("x,y"), Some(3600))
    );
    assert_eq!(got.document.value()["team"]["id"], "T1");
    let shown = format!("{got:?}");
    assert!(!shown.contains("\"r\"") && !shown.contains("T1"), "{shown}");

    let bare = interactive(
        "application/json",
        r#"{"access_token":"a","expires_in":1e9,"refresh_token":""}"#,
    );
    let bare = bare.expect("usable");
    assert_eq!(bare.token_type, "Bearer");
    assert_eq!(bare.expires_in, Some(1_000_000_000));
    assert_eq!(bare.lifetime, Lifetime::Known(LIFETIME_LIMIT));
    assert!(bare.refresh_token.is_none() && bare.scope.is_none());
}

#[test]
fn slack_for_a_person_and_not_for_a_machine() {
    let nested = r#"{"ok":true,"app_id":"A","authed_user":{"id":"U","scope":"chat:write","access_token":"xoxp-1",
        "token_type":"user","refresh_token":"xoxe-1","expires_in":43200},"team":{"id":"T"}}"#;
    let got = interactive("application/json", nested).expect("usable");
    assert_eq!(got.access_token.secret().expose_secret(), "xoxp-1");
    assert_eq!(
        got.refresh_token.as_ref().map(ExposeSecret::expose_secret),
        Some("xoxe-1")
    );
    assert_eq!(
        (got.token_type.as_str(), got.scope.as_deref(), got.expires_in),
        ("user", Some("chat:write"), Some(43200))
    );
    assert_eq!(got.document.value()["team"]["id"], "T");
    assert_eq!(
        parse(200, nested).expect_err("strict"),
        TokenResponseFault::UnusableToken
    );

    let both = r#"{"ok":true,"access_token":"xoxb-1","token_type":"bot","scope":"s","authed_user":{"access_token":"xoxp-1"}}"#;
    let got = interactive("application/json", both).expect("usable");
    assert_eq!(got.access_token.secret().expose_secret(), "xoxb-1");
    assert_eq!(
        parse(200, both).expect_err("strict"),
        TokenResponseFault::UnsupportedTokenType
    );

    let fault = interactive("application/json", r#"{"ok":false,"error":"bad_redirect_uri"}"#);
    assert!(
        matches!(fault, Err(TokenResponseFault::Refused(refusal)) if refusal.error == "bad_redirect_uri")
    );
}

#[test]
fn a_form_is_read_for_a_person() {
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let body = "access_token=gho_1&scope=repo%2Cgist&token_type=bearer&expires_in=28800&refresh_token=ghr_1";
    let got = interactive(form, body).expect("usable");
    assert_eq!(got.access_token.secret().expose_secret(), "gho_1");
    assert_eq!(
        (got.scope.as_deref(), got.expires_in),
        (Some("repo,gist"), Some(28800))
    );
    let fault = interactive(
        form,
        "error=bad_verification_code&error_description=The+code+the-secret",
    );
    assert!(matches!(fault, Err(TokenResponseFault::Refused(refusal)) if refusal.description.is_none()));
    for body in ["access_token=a&access_token=b", "access_token=%FF", "", "<html>"] {
        let fault = interactive(form, body).expect_err(body);
        assert!(
            matches!(
                fault,
                TokenResponseFault::NotATokenResponse { .. } | TokenResponseFault::UnusableToken
            ),
            "{body}: {fault}"
        );
    }
    assert!(interactive("text/html", body).is_err());
    assert!(TokenResponse::parse(200, Some(form), body.as_bytes(), &[]).is_err());
}

#[test]
fn a_key_twice_is_refused_wherever_it_stands() {
    for body in [
        r#"{"access_token":"a","expires_in":1,"expires_in":2}"#,
        r#"{"access_token":"a","team":{"id":"T1","id":"T2"}}"#,
        r#"{"authed_user":{"access_token":"a","access_token":"b"}}"#,
        r#"{"access_token":"a","x":[{"y":1,"y":2}]}"#,
    ] {
        let fault = interactive("application/json", body).expect_err(body);
        assert!(
            matches!(fault, TokenResponseFault::NotATokenResponse { .. }),
            "{body}"
        );
    }
}

#[test]
fn odd_token_types() {
    for kind in ["\"DPoP\"", "\"mac\"", "\"\"", "5", "\"User\""] {
        let body = format!(r#"{{"access_token":"a","token_type":{kind}}}"#);
        let fault = interactive("application/json", &body).expect_err(kind);
        assert_eq!(fault, TokenResponseFault::UnsupportedTokenType, "{kind}");
    }
}

#[test]
fn a_failing_servers_own_code_is_no_refusal_of_a_grant() {
    let parse = |status, error: &str| {
        let body = format!(r#"{{"error":"{error}"}}"#);
        TokenResponse::parse_interactive(status, Some("application/json"), body.as_bytes(), &[])
            .expect_err("no token")
    };
    assert!(matches!(
        parse(500, "internal_error"),
        TokenResponseFault::Status { status: 500, .. }
    ));
    assert!(matches!(
        parse(500, "invalid_grant"),
        TokenResponseFault::Refused(_)
    ));
    assert!(matches!(
        parse(400, "internal_error"),
        TokenResponseFault::Refused(_)
    ));
}

#[test]
fn what_an_exchange_issued_is_looked_at() {
    let answer = |fields: &str| format!(r#"{{"access_token":"t",{fields}}}"#);
    let kind = |name: &str| {
        format!(r#""token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:{name}""#)
    };
    let wrong = Some(TokenResponseFault::IssuedType("an access token"));
    let not_bearer = Some(TokenResponseFault::UnsupportedTokenType);
    for (fields, exchange, bearer) in [
        (kind("access_token"), None, None),
        (kind("jwt"), None, None),
        (kind("id_token"), wrong.clone(), wrong.clone()),
        (kind("refresh_token"), wrong.clone(), wrong.clone()),
        (kind("id-jag"), wrong.clone(), wrong.clone()),
        (r#""token_type":"Bearer""#.to_owned(), wrong.clone(), None),
        (
            r#""token_type":"Bearer","issued_token_type":null"#.to_owned(),
            wrong.clone(),
            None,
        ),
        (
            r#""token_type":"Bearer","issued_token_type":1"#.to_owned(),
            wrong.clone(),
            wrong.clone(),
        ),
        (
            r#""token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:access_token""#
                .to_owned(),
            not_bearer.clone(),
            not_bearer.clone(),
        ),
        (
            r#""token_type":"DPoP""#.to_owned(),
            not_bearer.clone(),
            not_bearer.clone(),
        ),
    ] {
        for (issued, expected) in [(Issued::AccessToken, exchange), (Issued::Unsaid, bearer)] {
            let got = TokenResponse::parse_exchange(200, None, answer(&fields).as_bytes(), &[], issued);
            assert_eq!(got.err(), expected, "{fields} {issued:?}");
        }
    }
}

#[test]
fn a_grant_is_a_grant_in_every_field() {
    let grant = r#"{"access_token":"g","token_type":"N_A","issued_token_type":"urn:ietf:params:oauth:token-type:id-jag"}"#;
    let parse = |body: &str| parse_id_jag(200, None, body.as_bytes(), &[]);
    assert_eq!(parse(grant).expect("a grant").expose_secret(), "g");
    assert_eq!(
        parse(&grant.replace("N_A", "n_a"))
            .expect("a grant")
            .expose_secret(),
        "g"
    );
    for (from, to, fault) in [
        ("N_A", "Bearer", TokenResponseFault::UnsupportedTokenType),
        (
            "id-jag",
            "access_token",
            TokenResponseFault::IssuedType("an identity assertion grant"),
        ),
        (
            "issued_token_type",
            "other",
            TokenResponseFault::IssuedType("an identity assertion grant"),
        ),
        ("\"g\"", "\"\"", TokenResponseFault::UnusableToken),
        ("\"g\"", "\"a b\"", TokenResponseFault::UnusableToken),
    ] {
        assert_eq!(parse(&grant.replace(from, to)).err(), Some(fault), "{to}");
    }
    let refused = parse_id_jag(400, None, br#"{"error":"invalid_grant"}"#, &[]);
    assert!(matches!(refused, Err(TokenResponseFault::Refused(_))));
}

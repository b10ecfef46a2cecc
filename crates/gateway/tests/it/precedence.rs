//! Who wins: each way of showing something to a server, beside each credential of the gateway's own.

use crate::by_hand::Watched;
use crate::harness::{Got, KEY, Start, TestGateway, echo, entry, got, personal};
use serde_json::json;
use vestibule_testkit::{Idp, Request};

/// A server of the table, and what it is shown in each case. `(refused)` means that nothing reaches it.
struct Mode {
    name: &'static str,
    fields: &'static str,
    /// With the gateway key alone.
    alone: &'static str,
    /// With the caller's `Authorization: Bearer mine`.
    authorization: &'static str,
    /// With `x-mcp-auth: a:b`.
    shared: &'static str,
    /// With both.
    both: &'static str,
    /// With `x-mcp-{server}-authorization: Named x`, too.
    named: &'static str,
    /// With `x-mcp-{server}-x-api-key: named-key` and the caller's `Authorization`.
    api_key: &'static str,
}

/// What of a request may be a credential, on one line.
const SHOWN: [&str; 4] = ["authorization", "x-api-key", "x-up", "x-amz-date"];

const MODES: &[Mode] = &[
    Mode {
        name: "none",
        fields: "",
        alone: "no-auth",
        authorization: "no-auth",
        shared: "authorization=a:b per-request-header",
        both: "authorization=a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "passing_on",
        fields: "extra_headers: [Authorization, X-API-Key]",
        alone: "no-auth",
        authorization: "authorization=Bearer mine oauth2-passthrough",
        shared: "authorization=a:b per-request-header",
        both: "authorization=Bearer mine oauth2-passthrough",
        named: "authorization=Named x per-request-header",
        api_key: "authorization=Bearer mine x-api-key=named-key per-request-header",
    },
    Mode {
        name: "fixed",
        fields: "static_headers: {AUTHORIZATION: Fixed f}\nextra_headers: [authorization]",
        alone: "authorization=Fixed f no-auth",
        authorization: "authorization=Fixed f no-auth",
        shared: "(refused)",
        both: "(refused)",
        named: "(refused)",
        api_key: "authorization=Fixed f x-api-key=named-key per-request-header",
    },
    Mode {
        name: "api_key",
        fields: "auth_type: api_key\nauthentication_token: configured",
        alone: "x-api-key=configured static-token",
        authorization: "x-api-key=configured static-token",
        shared: "x-api-key=a:b per-request-header",
        both: "x-api-key=a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "api_key_passing_on",
        fields: "auth_type: api_key\nauthentication_token: configured\nextra_headers: [Authorization, x-api-key]",
        alone: "x-api-key=configured static-token",
        authorization: "authorization=Bearer mine x-api-key=configured static-token",
        shared: "x-api-key=a:b per-request-header",
        both: "authorization=Bearer mine x-api-key=a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "authorization=Bearer mine x-api-key=named-key per-request-header",
    },
    Mode {
        name: "bearer_token",
        fields: "auth_type: bearer_token\nauthentication_token: configured\nextra_headers: [Authorization]",
        alone: "authorization=Bearer configured static-token",
        authorization: "authorization=Bearer configured static-token",
        shared: "authorization=Bearer a:b per-request-header",
        both: "authorization=Bearer a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "bearer_elsewhere",
        fields: "auth_type: bearer_token\nauthentication_token: configured\nupstream_token_header: X-Up",
        alone: "x-up=Bearer configured static-token",
        authorization: "x-up=Bearer configured static-token",
        shared: "x-up=Bearer a:b per-request-header",
        both: "x-up=Bearer a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "basic",
        fields: "auth_type: basic\nauthentication_token: u:p",
        alone: "authorization=Basic dTpw static-token",
        authorization: "authorization=Basic dTpw static-token",
        shared: "authorization=Basic YTpi per-request-header",
        both: "authorization=Basic YTpi per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "verbatim",
        fields: "auth_type: authorization\nauthentication_token: Odd o",
        alone: "authorization=Odd o static-token",
        authorization: "authorization=Odd o static-token",
        shared: "authorization=a:b per-request-header",
        both: "authorization=a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "token_scheme",
        fields: "auth_type: token\nauth_value: configured",
        alone: "authorization=token configured static-token",
        authorization: "authorization=token configured static-token",
        shared: "authorization=token a:b per-request-header",
        both: "authorization=token a:b per-request-header",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key per-request-header",
    },
    Mode {
        name: "machine",
        fields: "MACHINE\nextra_headers: [Authorization]",
        alone: "authorization=Bearer (machine) m2m-client-credentials",
        authorization: "authorization=Bearer (machine) m2m-client-credentials",
        shared: "(refused)",
        both: "(refused)",
        named: "(refused)",
        api_key: "authorization=Bearer (machine) x-api-key=named-key m2m-client-credentials",
    },
    Mode {
        name: "machine_elsewhere",
        fields: "MACHINE\nupstream_token_header: x-up\nextra_headers: [Authorization]\nstatic_headers: {Authorization: Fixed f}",
        alone: "authorization=Fixed f x-up=Bearer (machine) m2m-client-credentials",
        authorization: "authorization=Fixed f x-up=Bearer (machine) m2m-client-credentials",
        shared: "(refused)",
        both: "(refused)",
        named: "(refused)",
        api_key: "authorization=Fixed f x-api-key=named-key x-up=Bearer (machine) m2m-client-credentials",
    },
    Mode {
        name: "person",
        fields: "PERSON\nextra_headers: [Authorization]",
        alone: "authorization=Bearer kept stored-user-token",
        authorization: "authorization=Bearer mine oauth2-passthrough",
        shared: "authorization=Bearer a:b per-request-header",
        both: "authorization=Bearer mine oauth2-passthrough",
        named: "authorization=Named x per-request-header",
        api_key: "authorization=Bearer mine x-api-key=named-key oauth2-passthrough",
    },
    Mode {
        name: "person_elsewhere",
        fields: "PERSON\nupstream_token_header: X-Up",
        alone: "x-up=Bearer kept stored-user-token",
        authorization: "x-up=Bearer mine oauth2-passthrough",
        shared: "x-up=Bearer a:b per-request-header",
        both: "x-up=Bearer mine oauth2-passthrough",
        named: "authorization=Named x per-request-header",
        api_key: "x-api-key=named-key x-up=Bearer mine oauth2-passthrough",
    },
    Mode {
        name: "aws",
        fields: "auth_type: aws_sigv4\naws_access_key_id: AKID\naws_secret_access_key: canary-aws-secret\nextra_headers: [x-other]",
        alone: "authorization=(signature) x-amz-date=20010909T014640Z aws-sigv4",
        authorization: "authorization=(signature) x-amz-date=20010909T014640Z aws-sigv4",
        shared: "(refused)",
        both: "(refused)",
        named: "(refused)",
        api_key: "authorization=(signature) x-api-key=named-key x-amz-date=20010909T014640Z aws-sigv4",
    },
];

fn of(request: &Request, resolution: &str, machine: &str) -> String {
    let mut line = String::new();
    for name in SHOWN {
        let values: Vec<&str> = request
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(values.len() < 2, "{name} stands several times: {request:?}");
        if let [value] = values[..] {
            let value = if value.starts_with("AWS4-HMAC-SHA256 ") {
                "(signature)".to_owned()
            } else if machine.is_empty() {
                value.to_owned()
            } else {
                value.replace(machine, "(machine)")
            };
            line.push_str(&format!("{name}={value} "));
        }
    }
    line + resolution
}

async fn table() -> (Watched, Idp, TestGateway) {
    let (server, idp) = (Watched::start().await, Idp::start().await);
    let machine = format!(
        "auth_type: oauth2\nclient_id: id\nclient_secret: s\ntoken_url: {}",
        idp.url()
    );
    let provider = server.base();
    let person = format!(
        "auth_type: oauth2\nclient_id: id\nauthorization_url: {provider}/authorize\ntoken_url: {provider}/token"
    );
    let servers: String = MODES
        .iter()
        .map(|mode| {
            let fields = mode
                .fields
                .replace("MACHINE", &machine)
                .replace("PERSON", &person);
            entry(mode.name, &format!("url: {}\n{fields}", server.url()))
        })
        .collect();
    let gateway = Start::new(personal(&servers, "")).start().await;
    for mode in MODES.iter().filter(|mode| mode.fields.contains("PERSON")) {
        let path = format!("/v1/mcp/server/{}/oauth-user-credential", mode.name);
        let kept = gateway
            .http
            .post(gateway.url(&path))
            .header("x-litellm-api-key", KEY)
            .json(&json!({"access_token": "kept", "expires_in": 3600}));
        assert_eq!(got(kept).await.status, 200);
    }
    (server, idp, gateway)
}

async fn call(gateway: &TestGateway, name: &str, headers: &[(&str, &str)]) -> Got {
    let mut request = gateway
        .http
        .post(gateway.url(&format!("/{name}/mcp")))
        .header("x-litellm-api-key", KEY)
        .header("x-litellm-mcp-debug", "true")
        .json(&echo("x"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    got(request).await
}

#[tokio::test]
async fn every_source_beside_every_auth_type() {
    let (server, idp, gateway) = table().await;
    for mode in MODES {
        let named = format!("x-mcp-{}-authorization", mode.name);
        let named_key = format!("X-MCP-{}-X-Api-Key", mode.name.to_uppercase());
        let mine = ("authorization", "Bearer mine");
        let shared = ("x-mcp-auth", "a:b");
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], mode.alone),
            (&[mine], mode.authorization),
            (&[shared], mode.shared),
            (&[mine, shared], mode.both),
            (&[mine, shared, (&named, "Named x")], mode.named),
            (&[mine, (&named_key, "named-key")], mode.api_key),
        ];
        for (headers, expected) in cases {
            let before = server.requests().len();
            let answer = call(&gateway, mode.name, headers).await;
            let seen = server.requests().split_off(before);
            if expected == "(refused)" {
                assert_eq!(
                    (answer.status, answer.code(), seen.len()),
                    (400, "credential_not_taken", 0),
                    "{} with {headers:?}",
                    mode.name
                );
                continue;
            }
            assert_eq!(
                (answer.status, seen.len()),
                (200, 1),
                "{} with {headers:?}: {answer:?}",
                mode.name
            );
            let machine = idp.tokens().last().cloned().unwrap_or_default();
            assert_eq!(
                of(&seen[0], answer.header("x-mcp-debug-auth-resolution"), &machine),
                expected,
                "{} with {headers:?}",
                mode.name
            );
            assert!(
                !seen[0].contains("x-mcp-"),
                "the gateway's own headers stay here: {:?}",
                seen[0]
            );
        }
    }
    crate::harness::assert_nothing_secret_logged(&[
        "canary-aws-secret",
        "Bearer mine",
        "Named x",
        "named-key",
    ]);
}

#[tokio::test]
async fn one_value_of_each_header_and_the_fixed_one_wins() {
    let server = Watched::start().await;
    let fields = "static_headers: {X-Fixed: fixed}\nextra_headers: [x-fixed, X-Extra, X-Other]";
    let gateway = TestGateway::with_servers(&server.entry("one", fields)).await;
    let headers = [
        ("X-FIXED", "the client's"),
        ("x-extra", "the client's"),
        ("x-other", "the client's"),
        ("x-mcp-one-x-fixed", "named"),
        ("x-mcp-ONE-X-Extra", "named"),
        ("x-mcp-one-x-new", "named"),
    ];
    assert_eq!(call(&gateway, "one", &headers).await.status, 200);
    let seen = &server.requests()[0];
    for (name, expected) in [
        ("x-fixed", "fixed"),
        ("x-extra", "named"),
        ("x-other", "the client's"),
        ("x-new", "named"),
    ] {
        let values: Vec<&str> = seen
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(values, [expected], "{name}");
    }
}

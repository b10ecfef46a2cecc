//! What an exchange needs in a file, and what is said where it lacks something.

use crate::config::{
    AssertionAudience, Auth, ClientKey, Exchange, ExchangeClient, ExchangeProfile, TokenEndpoint, load,
};
use std::collections::HashMap;
use std::sync::Arc;
use vestibule_testkit::SigningKey;

const EXCHANGE: &str = "auth_type: oauth2_token_exchange\n";
const CLIENT: &str = "client_id: id\nclient_secret: s3cret\n";
const ENDPOINT: &str = "token_exchange_endpoint: https://as.example/token\n";
const ID_JAG: &str = "auth_type: oauth2_id_jag\naudience: https://rs.example\nid_jag_resource_token_endpoint: https://rs.example/token\n";

fn file(fields: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    format!("mcp_servers:\n  one:\n    url: https://mcp.example/mcp\n{fields}")
}

fn lines(fields: &str) -> String {
    let found = load(&file(fields), &HashMap::new()).findings;
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn exchange(fields: &str) -> Arc<Exchange> {
    let loaded = load(&file(fields), &HashMap::new());
    let settings = loaded
        .settings
        .unwrap_or_else(|| panic!("{:#?}", loaded.findings));
    match &settings.servers[0].auth {
        Auth::Exchange(exchange) => Arc::clone(exchange),
        other => panic!("{other:?}"),
    }
}

fn key() -> String {
    let pem = SigningKey::ed25519("k").pem().replace('\n', "\\n");
    format!("client_id: id\nclient_assertion_signing_alg: EdDSA\nclient_private_key: '{pem}'\n")
}

#[test]
fn litellms_example_is_read() {
    let read = exchange(&format!(
        "{EXCHANGE}{CLIENT}{ENDPOINT}audience: api://mcp\nscopes: [a, b]"
    ));
    assert!(matches!(read.profile, ExchangeProfile::Rfc8693 { actor: None }));
    assert_eq!(
        read.subject_token_type,
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(
        (read.audience.as_deref(), read.resource.as_deref()),
        (Some("api://mcp"), None)
    );
    assert!(read.subject.is_none() && read.fallback.is_none());
    // Its fallback of the endpoint, and both places that metadata may name it in.
    for (fields, expected) in [
        ("token_url: https://as.example/t", "https://as.example/t"),
        ("issuer: https://i.example", "https://i.example"),
        (
            "subject_token_issuer: https://s.example\nsubject_token_audience: a",
            "https://s.example",
        ),
    ] {
        let found = match &exchange(&format!("{EXCHANGE}{CLIENT}{fields}")).endpoint {
            TokenEndpoint::Configured(url) => url.to_string(),
            TokenEndpoint::OfIssuer(issuer) => issuer.clone(),
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn whom_an_assertion_is_for() {
    let audience = |more: &str| match &exchange(&format!("{EXCHANGE}{}{more}", key())).client {
        ExchangeClient::Key(ClientKey { audience, .. }) => audience.clone(),
        ExchangeClient::Shared(_) => panic!("a key"),
    };
    let issuer = |text: &str| AssertionAudience::Issuer(text.to_owned());
    let subject = "subject_token_issuer: https://s.example\nsubject_token_audience: a\n";
    for (more, expected) in [
        (ENDPOINT.to_owned(), AssertionAudience::TokenEndpoint),
        (
            format!("{ENDPOINT}issuer: https://i.example"),
            issuer("https://i.example"),
        ),
        (
            format!("{ENDPOINT}issuer: https://i.example\nclient_assertion_audience: token_endpoint"),
            AssertionAudience::TokenEndpoint,
        ),
        // Who issues the caller's token need not be who exchanges it.
        (format!("{ENDPOINT}{subject}"), AssertionAudience::TokenEndpoint),
        (subject.to_owned(), issuer("https://s.example")),
    ] {
        assert_eq!(audience(&more), expected, "{more}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_missing_or_has_no_effect_is_said() {
    let base = format!("{EXCHANGE}{CLIENT}{ENDPOINT}");
    let jag = format!("{ID_JAG}{CLIENT}{ENDPOINT}");
    for (fields, expected) in [
        (EXCHANGE.to_owned(), "needs token_exchange_endpoint, or issuer"),
        (EXCHANGE.to_owned(), "client_id is missing"),
        (EXCHANGE.to_owned(), "needs client_secret or client_private_key"),
        (
            format!("{base}token_exchange_profile: entra_obo"),
            "entra_obo needs scopes",
        ),
        (
            format!("{base}token_exchange_profile: entra_obo\nscopes: [a]\naudience: x"),
            "audience: has no effect with token_exchange_profile: entra_obo",
        ),
        (
            format!("{base}token_exchange_profile: entra"),
            "token_exchange_profile: takes one of",
        ),
        (
            format!("{base}token_url: https://as.example/t"),
            "token_url: has no effect beside token_exchange_endpoint",
        ),
        (
            format!("{base}issuer: https://i.example"),
            "issuer: has no effect beside a configured endpoint",
        ),
        (
            format!("{base}issuer: 'https://i.example?x'"),
            "without query and fragment",
        ),
        (
            format!("{base}subject_token_issuer: https://i.example"),
            "needs subject_token_audience",
        ),
        (
            format!("{base}subject_token_audience: x"),
            "subject_token_audience: has no effect without subject_token_issuer",
        ),
        (
            format!("{base}subject_token_jwks_url: https://i.example/k"),
            "subject_token_jwks_url: has no effect without",
        ),
        (
            format!("{base}actor_token_type: x"),
            "actor_token_type: has no effect without actor_token",
        ),
        (
            format!("{base}client_private_key_id: x"),
            "client_private_key_id: has no effect without client_private_key",
        ),
        (
            format!("{base}client_private_key: canary"),
            "client_private_key: is no private key in PEM",
        ),
        (
            format!("{base}{}", key()).replacen("client_id: id\n", "", 1),
            "warning: mcp_servers.one.client_secret: is not used",
        ),
        (
            format!("{EXCHANGE}{ENDPOINT}{}client_assertion_audience: issuer", key()),
            "needs the field issuer",
        ),
        (
            format!("{base}allow_client_credentials_fallback: true"),
            "allow_client_credentials_fallback needs token_url",
        ),
        (format!("{base}scopes: ['a b']"), "a scope is one word"),
        (
            format!("{base}oauth2_flow: client_credentials"),
            "oauth2_flow: has no effect with auth_type: oauth2_token_exchange",
        ),
        (
            format!("{base}consent: never"),
            "consent: has no effect with auth_type: oauth2_token_exchange",
        ),
        (
            format!("{base}id_jag_resource: x:y"),
            "id_jag_resource: has no effect with auth_type: oauth2_token_exchange; it belongs to auth_type: oauth2_id_jag",
        ),
        (
            format!("{base}static_headers: {{Authorization: x}}"),
            "would replace the credential",
        ),
        (
            format!("{EXCHANGE}{CLIENT}token_exchange_endpoint: http://as.example/t"),
            "http sends the caller's token",
        ),
        (
            format!("auth_type: oauth2\n{ENDPOINT}"),
            "token_exchange_endpoint: has no effect with auth_type: oauth2;",
        ),
        (
            format!("auth_type: oauth2\n{}", key()),
            "client_private_key: has no effect with oauth2_flow: authorization_code; it belongs to oauth2_flow: client_credentials",
        ),
        (
            "subject_token_type: x".to_owned(),
            "subject_token_type: has no effect with auth_type: none",
        ),
        (
            format!("auth_type: oauth2_id_jag\n{CLIENT}{ENDPOINT}"),
            "needs id_jag_resource_token_endpoint and audience",
        ),
        (
            format!("{jag}id_jag_subject_source: refresh_token"),
            "refresh_token is not supported yet",
        ),
        (
            format!("{jag}id_jag_resource_client_id: x"),
            "needs id_jag_resource_client_secret beside it",
        ),
        (
            format!("{jag}id_jag_resource_client_secret: x"),
            "needs id_jag_resource_client_id beside it",
        ),
        (
            format!("{jag}resource: x:y"),
            "the resource of the grant is id_jag_resource",
        ),
        (
            format!("{jag}id_jag_resource: not-a-uri"),
            "id_jag_resource: takes auto, or an absolute URI",
        ),
        (
            format!("{jag}actor_token: x"),
            "actor_token: has no effect with auth_type: oauth2_id_jag",
        ),
    ] {
        let found = lines(&fields);
        assert!(found.contains(expected), "{expected}\n{fields}\n{found}");
        assert!(!found.contains("canary") && !found.contains("s3cret"), "{found}");
        let errors = found.contains("error: ");
        assert_eq!(
            load(&file(&fields), &HashMap::new()).settings.is_none(),
            errors,
            "{found}"
        );
    }
}

#[test]
fn the_grants_second_client_is_the_first_unless_there_is_another() {
    let id_of = |fields: &str| {
        let read = exchange(fields);
        assert_eq!(
            read.subject_token_type,
            "urn:ietf:params:oauth:token-type:id_token"
        );
        let ExchangeProfile::IdJag { client, .. } = &read.profile else {
            panic!("a grant");
        };
        match client {
            ExchangeClient::Shared(client) => client.id.clone(),
            ExchangeClient::Key(client) => {
                assert_eq!(client.audience, AssertionAudience::TokenEndpoint);
                client.id.clone()
            }
        }
    };
    let shared = format!("{ID_JAG}{CLIENT}{ENDPOINT}id_jag_subject_source: login_assertion\n");
    // One secret for both only where both are one authorization server's.
    let refusal =
        "id_jag_resource_token_endpoint: needs id_jag_resource_client_id and id_jag_resource_client_secret";
    let of_issuer = format!("{ID_JAG}{CLIENT}issuer: https://as.example");
    for elsewhere in [&shared, &of_issuer] {
        assert!(lines(elsewhere).contains(refusal), "{elsewhere}");
    }
    assert_eq!(
        id_of(&shared.replace("https://rs.example/token", "https://as.example/rs")),
        "id"
    );
    let other = "id_jag_resource_client_id: other\nid_jag_resource_client_secret: x\n";
    assert_eq!(id_of(&format!("{shared}{other}")), "other");
    assert_eq!(
        id_of(&format!("{ID_JAG}{}{ENDPOINT}issuer: https://i.example", key())),
        "id"
    );
}

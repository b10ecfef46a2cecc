//! What makes a passthrough server, what cannot stand beside it, and what is warned about.

use crate::config::tests::{lines, load_with, server, settings};
use crate::config::{Auth, Passthrough, Severity};

#[test]
fn passthrough_is_for_servers_without_a_credential_of_their_own() {
    use Passthrough::{Delegated, Flagged, OAuthDelegate, TruePassthrough};
    for (fields, expected, auth_type) in [
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true",
            Delegated,
            "oauth2",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: True\noauth2_flow: authorization_code",
            Delegated,
            "oauth2",
        ),
        ("auth_type: true_passthrough", TruePassthrough, "true_passthrough"),
        ("auth_type: oauth_delegate", OAuthDelegate, "oauth_delegate"),
        ("oauth_passthrough: true", Flagged, "none"),
        (
            "auth_type: none\noauth_passthrough: true\nextra_headers: [Authorization]",
            Flagged,
            "none",
        ),
    ] {
        let settings = settings(&server(fields));
        let auth = &settings.servers[0].auth;
        assert!(
            matches!(auth, Auth::Passthrough { mode, bridge: None } if *mode == expected),
            "{fields}"
        );
        assert_eq!(auth.auth_type(), auth_type);
        assert!(!settings.has_sign_in());
    }
}

#[test]
fn what_cannot_stand_beside_passthrough() {
    for (fields, path, expected) in [
        (
            "delegate_auth_to_upstream: true",
            "delegate_auth_to_upstream",
            "has no effect with auth_type: none; it belongs to auth_type: oauth2",
        ),
        (
            "auth_type: true_passthrough\ndelegate_auth_to_upstream: true",
            "delegate_auth_to_upstream",
            "has no effect with auth_type: true_passthrough",
        ),
        (
            "auth_type: oauth2\noauth_passthrough: true",
            "oauth_passthrough",
            "has no effect with auth_type: oauth2; it belongs to auth_type: none",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: \"true\"",
            "delegate_auth_to_upstream",
            "takes true or false as written here",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: os.environ/FLAG",
            "delegate_auth_to_upstream",
            "neither in quotes nor from the environment",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: yes",
            "delegate_auth_to_upstream",
            "takes true or false",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true\noauth2_flow: client_credentials\nclient_id: a\nclient_secret: b\ntoken_url: http://localhost:1/t",
            "delegate_auth_to_upstream",
            "cannot stand beside a machine token",
        ),
        // The shape of a machine token counts, whatever flow it is said to be.
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true\noauth2_flow: authorization_code\nclient_id: a\nclient_secret: b\ntoken_url: http://localhost:1/t",
            "delegate_auth_to_upstream",
            "cannot stand beside a machine token",
        ),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true\nclient_id: a",
            "client_id",
            "has no effect with delegate_auth_to_upstream: true: the client brings a token that it got by itself",
        ),
        (
            "auth_type: true_passthrough\nauthentication_token: x",
            "authentication_token",
            "has no effect with auth_type: true_passthrough",
        ),
        (
            "auth_type: oauth_delegate\nissuer: https://as",
            "issuer",
            "has no effect with auth_type: oauth_delegate",
        ),
        (
            "oauth_passthrough: true\nstatic_headers: {Authorization: x}",
            "static_headers.Authorization",
            "would replace the credential",
        ),
    ] {
        let text = server(fields);
        let loaded = load_with(&text, &[("FLAG", "true")]);
        let path = format!("mcp_servers.one.{path}: ");
        let found = loaded.findings.iter().find(|problem| {
            let line = problem.to_string();
            problem.severity == Severity::Error && line.contains(&path) && line.contains(expected)
        });
        assert!(
            found.is_some_and(|problem| problem.at.is_some()) && loaded.settings.is_none(),
            "{fields}: {:#?}",
            loaded.findings
        );
    }
}

#[test]
fn a_bridge_is_for_two_modes_and_keeps_nothing() {
    for (fields, wanted) in [
        ("auth_type: true_passthrough\ndcr_bridge: true", None),
        (
            "auth_type: oauth_delegate\ndcr_bridge: true\nclient_id: a\nclient_secret: b\ntoken_url: http://localhost:1/t\nscopes: [r]",
            Some("a"),
        ),
    ] {
        let settings = settings(&server(fields));
        let Auth::Passthrough {
            bridge: Some(bridge), ..
        } = &settings.servers[0].auth
        else {
            panic!("{fields}")
        };
        assert_eq!(bridge.client.as_ref().map(|client| client.id.as_str()), wanted);
        assert!(bridge.require_pkce && settings.has_sign_in());
    }
    settings(&server("auth_type: oauth_delegate\ndcr_bridge: false"));
    let elsewhere =
        "mcp_servers.one.dcr_bridge: belongs to auth_type: true_passthrough and auth_type: oauth_delegate";
    for (fields, expected) in [
        ("dcr_bridge: true", elsewhere),
        ("auth_type: oauth2\ndcr_bridge: true", elsewhere),
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true\ndcr_bridge: true",
            elsewhere,
        ),
        ("oauth_passthrough: true\ndcr_bridge: true", elsewhere),
        (
            "auth_type: api_key\nauthentication_token: x\ndcr_bridge: true",
            elsewhere,
        ),
        (
            "auth_type: oauth_delegate\ndcr_bridge: true\ntoken_storage_ttl_seconds: 60",
            "token_storage_ttl_seconds: has no effect with dcr_bridge: true",
        ),
        (
            "auth_type: oauth_delegate\ndcr_bridge: true\nauthentication_token: x",
            "authentication_token: has no effect with dcr_bridge: true",
        ),
        (
            "auth_type: oauth_delegate\ndcr_bridge: true\nrequire_pkce: false",
            "require_pkce: dcr_bridge: true always requires a PKCE challenge",
        ),
        (
            "auth_type: oauth_delegate\ndcr_bridge: true\nscopes: [\"a b\"]",
            "scopes: a scope is one word",
        ),
    ] {
        let found = lines(&server(fields)).join("\n");
        assert!(
            found.contains("error: mcp_servers.one.") && found.contains(expected),
            "{fields}: {found}"
        );
    }
}

#[test]
fn an_internal_server_that_judges_its_callers_itself_is_warned_about() {
    for (fields, expected) in [
        ("auth_type: oauth2\ndelegate_auth_to_upstream: true", true),
        ("auth_type: true_passthrough", true),
        ("auth_type: oauth_delegate", false),
        ("auth_type: oauth2\ndelegate_auth_to_upstream: false", false),
    ] {
        for (flag, internal) in [("false", true), ("true", false)] {
            let text = server(&format!("{fields}\navailable_on_public_internet: {flag}"));
            let found = lines(&text).join("\n");
            let warned = found.contains("warning: mcp_servers.one.available_on_public_internet: callers without a gateway key come in all the same");
            assert_eq!(warned, expected && internal, "{fields} {flag}: {found}");
        }
    }
}

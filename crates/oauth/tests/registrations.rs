//! The registrations that well-known clients send: each has to be readable, and its redirect URIs judged
//! as stated.

use vestibule_oauth::{ClientMetadata, Origin, RedirectRules};

/// A client, its body, how many of its redirect URIs pass without a setting, and with its sites trusted.
const CLIENTS: &[(&str, &[u8], usize, usize)] = &[
    (
        "Claude Code (github_mcp)",
        include_bytes!("fixtures/registrations/claude-code.json"),
        1,
        1,
    ),
    (
        "Claude",
        include_bytes!("fixtures/registrations/claude-ai.json"),
        0,
        1,
    ),
    (
        "ChatGPT",
        include_bytes!("fixtures/registrations/chatgpt.json"),
        0,
        1,
    ),
    (
        "Cursor",
        include_bytes!("fixtures/registrations/cursor.json"),
        2,
        3,
    ),
    (
        "Visual Studio Code",
        include_bytes!("fixtures/registrations/vscode.json"),
        2,
        4,
    ),
    (
        "MCP Inspector",
        include_bytes!("fixtures/registrations/inspector.json"),
        1,
        1,
    ),
    (
        "MCP CLI Proxy",
        include_bytes!("fixtures/registrations/mcp-remote.json"),
        1,
        1,
    ),
    ("Codex", include_bytes!("fixtures/registrations/codex.json"), 1, 1),
    ("goose", include_bytes!("fixtures/registrations/goose.json"), 1, 1),
    ("Zed", include_bytes!("fixtures/registrations/zed.json"), 1, 1),
];

#[test]
fn well_known_clients_register() {
    let public = Origin::parse("https://gateway.example").expect("origin");
    let (trusting, warnings) = RedirectRules::parse(
        "claude.ai,claude.com,chatgpt.com,www.cursor.com,vscode.dev,insiders.vscode.dev",
        "",
    );
    assert!(warnings.is_empty());
    for (name, body, by_default, when_trusted) in CLIENTS {
        let client = ClientMetadata::parse(body).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(client.client_name.as_deref(), Some(*name));
        let passing = |rules: &RedirectRules| {
            let judged = client.redirect_uris.iter().map(|uri| rules.judge(uri, &public));
            judged.flatten().count()
        };
        assert_eq!(passing(&RedirectRules::default()), *by_default, "{name}");
        assert_eq!(passing(&trusting), *when_trusted, "{name}");

        let sent = client.upstream_request("https://gateway.example/callback", None);
        assert_eq!(
            sent["redirect_uris"],
            serde_json::json!(["https://gateway.example/callback"])
        );
        assert_eq!(sent["client_name"], *name);
        assert_eq!(
            sent["token_endpoint_auth_method"],
            client.token_endpoint_auth_method.as_deref().expect("a method"),
            "{name}"
        );
    }
}

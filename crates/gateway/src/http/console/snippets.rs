//! What people paste into their clients to use a server through the gateway. The gateway key is a placeholder and has a
//! header of its own, so that `Authorization` stays free for the server's token.

use crate::registry::Server;
use serde_json::{Value, json};

/// Stands for the key.
pub(crate) const PLACEHOLDER: &str = "sk-YOUR_KEY";
/// Stands for a token of the caller's.
const TOKEN: &str = "YOUR_TOKEN";
const KEY_HEADER: &str = "x-litellm-api-key";

/// Text to paste.
pub(crate) struct Snippet {
    /// Which client it is for.
    pub(crate) client: &'static str,
    /// Where it goes.
    pub(crate) place: &'static str,
    /// It.
    pub(crate) text: String,
}

/// What a client has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shows {
    /// A gateway key.
    key: bool,
    /// A token that no sign-in of the client's gets: one that it brings.
    token: bool,
}

impl Shows {
    fn at(server: &Server, asks_for_keys: bool) -> Self {
        let exchanged = matches!(server.auth_type, "oauth2_token_exchange" | "oauth2_id_jag");
        Self {
            key: asks_for_keys && !server.admits_by_itself(),
            token: exchanged || server.passthrough().is_some(),
        }
    }
}

/// The snippets for `server`, at the gateway's public `origin`.
pub(crate) fn of(server: &Server, origin: &str, asks_for_keys: bool) -> Vec<Snippet> {
    all(&server.name, origin, Shows::at(server, asks_for_keys))
}

fn all(name: &str, origin: &str, shows: Shows) -> Vec<Snippet> {
    let url = format!("{origin}/{name}/mcp");
    vec![
        Snippet {
            client: "Claude Code",
            place: "In a terminal.",
            text: claude_code(name, &url, shows),
        },
        Snippet {
            client: "Cursor",
            place: "In ~/.cursor/mcp.json, or .cursor/mcp.json of a project.",
            text: cursor(name, &url, shows),
        },
        Snippet {
            client: "VS Code",
            place: "In .vscode/mcp.json. It asks for the key and keeps it.",
            text: vs_code(name, &url, shows),
        },
        Snippet {
            client: "curl",
            place: "In a terminal.",
            text: curl(name, origin, shows),
        },
    ]
}

fn claude_code(name: &str, url: &str, shows: Shows) -> String {
    // Names of Claude Code's have no dots.
    let name = quoted(&name.replace('.', "_"));
    let mut text = format!("claude mcp add --transport http {name} {}", quoted(url));
    if shows.key {
        text += &format!(
            " \\\n  --header {}",
            always_quoted(&format!("{KEY_HEADER}: Bearer {PLACEHOLDER}"))
        );
    }
    text
}

fn cursor(name: &str, url: &str, shows: Shows) -> String {
    let mut entry = json!({"url": url});
    if shows.key {
        entry["headers"] = json!({KEY_HEADER: format!("Bearer {PLACEHOLDER}")});
    }
    written(&json!({"mcpServers": {name: entry}}))
}

fn vs_code(name: &str, url: &str, shows: Shows) -> String {
    let mut document = json!({"servers": {name: {"type": "http", "url": url}}});
    if shows.key {
        document["servers"][name]["headers"] = json!({KEY_HEADER: "Bearer ${input:gateway-key}"});
        document["inputs"] = json!([
            {"type": "promptString", "id": "gateway-key", "description": "Gateway key (sk-...)", "password": true}
        ]);
    }
    written(&document)
}

/// With a key, the list of tools; without one, the handshake, which is all that a client can begin with.
fn curl(name: &str, origin: &str, shows: Shows) -> String {
    let mut lines = Vec::new();
    if shows.key {
        lines.push(format!(
            "curl {}",
            quoted(&format!("{origin}/mcp-rest/tools/list?server_id={name}"))
        ));
        lines.push(format!(
            "-H {}",
            always_quoted(&format!("{KEY_HEADER}: Bearer {PLACEHOLDER}"))
        ));
    } else {
        let hello = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "curl", "version": "1"}},
        });
        lines.push(format!("curl {}", quoted(&format!("{origin}/{name}/mcp"))));
        lines.push("-H \"Content-Type: application/json\"".into());
        lines.push("-H \"Accept: application/json, text/event-stream\"".into());
        lines.push(format!("-d {}", always_quoted(&hello.to_string())));
    }
    if shows.token {
        lines.push(format!("-H \"Authorization: Bearer {TOKEN}\""));
    }
    lines.join(" \\\n  ")
}

fn written(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | '@' | '%' | '+')
    };
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        always_quoted(text)
    }
}

/// In double quotes, which Windows knows as well.
fn always_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    const KEYED: Shows = Shows {
        key: true,
        token: false,
    };

    fn snippet(shows: Shows, client: &str) -> String {
        let found = all("a.b_c", "https://gateway.test:8443", shows);
        found
            .into_iter()
            .find(|one| one.client == client)
            .expect("there")
            .text
    }

    #[test]
    fn the_key_has_a_header_of_its_own() {
        assert_eq!(
            snippet(KEYED, "Claude Code"),
            "claude mcp add --transport http a_b_c https://gateway.test:8443/a.b_c/mcp \\\n  --header \"x-litellm-api-key: Bearer sk-YOUR_KEY\""
        );
        let cursor: Value = serde_json::from_str(&snippet(KEYED, "Cursor")).expect("JSON");
        assert_eq!(
            cursor["mcpServers"]["a.b_c"]["headers"]["x-litellm-api-key"],
            "Bearer sk-YOUR_KEY"
        );
        let code: Value = serde_json::from_str(&snippet(KEYED, "VS Code")).expect("JSON");
        assert_eq!(code["inputs"][0]["id"], "gateway-key");
        assert_eq!(
            code["servers"]["a.b_c"]["url"],
            "https://gateway.test:8443/a.b_c/mcp"
        );
        for shows in [
            KEYED,
            Shows {
                key: true,
                token: true,
            },
        ] {
            for snippet in all("one", "http://localhost:4000", shows) {
                assert!(
                    !snippet.text.contains("Authorization: Bearer sk-"),
                    "{}",
                    snippet.text
                );
            }
        }
    }

    #[test]
    fn a_server_that_judges_its_callers_gets_no_key() {
        let shows = Shows {
            key: false,
            token: true,
        };
        for snippet in all("one", "http://localhost:4000", shows) {
            assert!(
                !snippet.text.contains("sk-") && !snippet.text.contains(KEY_HEADER),
                "{}",
                snippet.text
            );
        }
        assert!(snippet(shows, "curl").contains("-H \"Authorization: Bearer YOUR_TOKEN\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_shell_reads_what_was_quoted(text in "[ -~ä]{0,20}") {
            for word in [quoted(&text), always_quoted(&text)] {
                let out = Command::new("sh").args(["-c", &format!("printf %s {word}")]).output().expect("a shell");
                prop_assert_eq!(String::from_utf8_lossy(&out.stdout), text.as_str());
            }
        }
    }
}

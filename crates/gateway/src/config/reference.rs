//! The reference page and the JSON Schema, made from the tables of fields. Tests keep the files in `docs/`
//! equal to what is made here.

use super::fields::{self, Field, Kind, Support};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The JSON Schema (draft 2020-12) of the configuration file, for editors.
pub fn json_schema() -> Value {
    let mut limits = section(fields::LIMITS);
    limits["additionalProperties"] = json!(false);
    let mut own = section(fields::VESTIBULE);
    own["additionalProperties"] = json!(false);
    own["properties"]["limits"] = limits;
    let mut audit = section(fields::AUDIT);
    audit["additionalProperties"] = json!(false);
    own["properties"]["audit"] = audit;
    let mut server = server();
    server["anyOf"] = json!([{"required": ["url"]}, {"required": ["command"]}]);
    let mut properties = Map::new();
    for (name, doc) in fields::SECTIONS {
        let mut schema = match *name {
            "mcp_servers" => json!({"type": "object", "additionalProperties": server}),
            "general_settings" => section(fields::GENERAL),
            "litellm_settings" => section(fields::LITELLM),
            "vestibule" => own.clone(),
            _ => json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
        };
        schema["description"] = json!(doc);
        properties.insert((*name).into(), schema);
    }
    for name in fields::PASSED_OVER {
        properties.insert(
            (*name).into(),
            json!({"description": "LiteLLM's own; passed over."}),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vestibule configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// One server.
pub(super) fn server() -> Value {
    let mut server = section(fields::SERVER);
    server["additionalProperties"] = json!(false);
    let mut variable = section(fields::ENV_VAR);
    variable["additionalProperties"] = json!(false);
    server["properties"]["env_vars"]["type"] = json!("array");
    server["properties"]["env_vars"]["items"] = variable;
    server
}

/// A section's properties. Fields that are not supported yet are left out, so an editor marks them.
fn section(table: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in table {
        let mut schema = match field.support {
            Support::NotYet(_) => continue,
            Support::Only(value, _) => json!({"const": value == "true"}),
            Support::Yes => schema_of(field.kind),
        };
        schema["description"] = json!(field.doc);
        properties.insert(field.name.into(), schema);
    }
    json!({"type": "object", "properties": properties})
}

fn schema_of(kind: Kind) -> Value {
    let text = json!({"type": ["string", "number", "boolean"]});
    match kind {
        Kind::Text | Kind::Secret => text,
        Kind::Url => json!({"type": "string", "pattern": "^(https?://|os\\.environ/)"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Seconds => json!({"type": ["number", "string"], "exclusiveMinimum": 0}),
        Kind::Count => json!({"type": ["integer", "string"], "minimum": 1}),
        Kind::TextList => json!({"type": "array", "items": text}),
        Kind::Headers | Kind::TextMap => json!({"type": "object", "additionalProperties": text}),
        Kind::Choice(words) => json!({"anyOf": [{"enum": words}, {"pattern": "^os\\.environ/"}]}),
        Kind::Any => json!({"type": "object"}),
    }
}

/// `docs/reference/config.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# The configuration file\n\n\
         <!-- Made from crates/gateway/src/config/fields.rs. `UPDATE=1 cargo test -p vestibule reference` writes it. -->\n\n\
         LiteLLM's YAML as it is. `vestibule check --config FILE` judges a file without starting anything and\n\
         names every problem with its line. An editor can use [config.schema.json](config.schema.json)\n\
         (`vestibule schema` prints it).\n\n\
         Any value may be `os.environ/NAME`: the environment variable of that name. One that is not set is an\n\
         error. Fields that later versions will obey are refused by name today; none is accepted and ignored.\n\n\
         ## Sections\n\n| section | meaning |\n|---|---|\n",
    );
    for (name, doc) in fields::SECTIONS {
        let _ = writeln!(page, "| `{name}` | {doc} |");
    }
    let _ = writeln!(
        page,
        "\nPassed over with one line in the log: `{}`.",
        fields::PASSED_OVER.join("`, `")
    );
    for (name, what) in fields::SECTIONS_NOT_YET {
        let _ = writeln!(page, "Not supported yet: `{name}` ({what}).");
    }
    let tables: [(&str, &[Field]); 7] = [
        ("`mcp_servers.<name>`", fields::SERVER),
        ("An entry of `env_vars`", fields::ENV_VAR),
        ("`general_settings`", fields::GENERAL),
        ("`litellm_settings`", fields::LITELLM),
        ("`vestibule`", fields::VESTIBULE),
        ("`vestibule.limits`", fields::LIMITS),
        ("`vestibule.audit`", fields::AUDIT),
    ];
    for (title, table) in tables {
        let _ = writeln!(page, "\n## {title}\n\n| field | takes | meaning |\n|---|---|---|");
        for field in table.iter().filter(|field| field.support == Support::Yes) {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} |",
                field.name,
                field.kind.describe(),
                field.doc
            );
        }
        let refused: Vec<String> = table
            .iter()
            .filter_map(|field| match field.support {
                Support::Yes => None,
                Support::NotYet(what) => Some(format!("`{}` ({what})", field.name)),
                Support::Only(value, what) => Some(format!("`{}` other than `{value}` ({what})", field.name)),
            })
            .collect();
        if !refused.is_empty() {
            let _ = writeln!(page, "\nNot supported yet, and refused: {}.", refused.join(", "));
        }
    }
    page.push_str(NOTES);
    page
}

const NOTES: &str = "
## How a machine token's lifetime is read

| `expires_in` | the token is used for |
|---|---|
| a number, or text that is one | `expires_in` − 60 s, at least the smaller of `expires_in` and 10 s |
| above one day | one day − 60 s |
| 0 or negative | the calls that were waiting for it; it is not cached |
| absent, `null`, or anything else | 300 s − 60 s |

A token is renewed in the background during the last tenth of that time (at most 5 minutes), while calls go on
with the one in hand. A failed request is not repeated before a back-off of 1 s, doubled each time up to 30 s.

## Environment variables

| name | meaning |
|---|---|
| `LITELLM_MASTER_KEY` | the master key, when `general_settings.master_key` is left out |
| `LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME` | another name for `x-mcp-auth`; counts before `general_settings.mcp_client_side_auth_header_name` |
| `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | the access key of `auth_type: aws_sigv4`, where the server's entry has none |
| `PROXY_BASE_URL` | the public origin: scheme, host and port; its host and origin may call a gateway that listens on a loopback address |
| `MCP_TRUSTED_REDIRECT_ORIGINS` | further https hosts that a sign-in may end at: `host`, `host:port` or `*.suffix`, separated by commas |
| `MCP_TRUSTED_NATIVE_REDIRECT_URIS` | further redirect URIs with an application's own scheme, separated by commas; `*` at the end covers what is below |
| `DATABASE_URL` | where what lasts is kept: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME`; `general_settings.database_url` when it is left out |
| `VESTIBULE_DATA_DIR` | the directory of `vestibule.db`, when no database is named; without it that file is beside the configuration file |
| `VESTIBULE_MASTER_KEY_FILE` | a file with one base64 key of 32 bytes a line: the first seals, all open. It is read again when it changes |
| `VESTIBULE_MASTER_KEY` | the same keys, separated by commas, when no file is named |
| `LITELLM_SALT_KEY` | a passphrase that a key is derived from (PBKDF2-HMAC-SHA256, 600,000 rounds), when neither is set |
| `VESTIBULE_ENABLE_STDIO` | `true` allows `transport: stdio`, as `LITELLM_ENABLE_MCP_STDIO=true` does |
| `VESTIBULE_STDIO_EXTRA_COMMANDS` | further programs that `transport: stdio` may run, names or whole paths, separated by commas; `LITELLM_MCP_STDIO_EXTRA_COMMANDS` adds to them |
| `MCP_NPM_CACHE_DIR` | `NPM_CONFIG_CACHE` of those programs; a directory of the gateway's own when it is not set |
| `VESTIBULE_LOG` | what is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`; default `info` |

Without a key a SQLite file gets one of its own: `vestibule.db.key` beside `vestibule.db`, made with it, mode 0600. Back both
up, apart from each other. PostgreSQL is not used without a key that somebody set. `vestibule keys` shows keys and changes them.
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn is_up_to_date(file: &str, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/reference")
            .join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, expected).expect("writable");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "docs/reference/{file} is stale; run UPDATE=1 cargo test -p vestibule reference"
        );
    }

    #[test]
    fn the_reference_page_is_what_the_tables_say() {
        is_up_to_date("config.md", &markdown());
    }

    #[test]
    fn the_schema_is_what_the_tables_say() {
        let schema = serde_json::to_string_pretty(&json_schema()).expect("serializes") + "\n";
        is_up_to_date("config.schema.json", &schema);
    }

    #[test]
    fn no_table_names_a_field_twice() {
        for table in [
            fields::SERVER,
            fields::ENV_VAR,
            fields::GENERAL,
            fields::LITELLM,
            fields::VESTIBULE,
            fields::LIMITS,
            fields::AUDIT,
        ] {
            for (index, field) in table.iter().enumerate() {
                assert!(
                    !table[..index].iter().any(|other| other.name == field.name),
                    "{}",
                    field.name
                );
                assert!(field.doc.ends_with('.'), "{}", field.name);
            }
        }
    }
}

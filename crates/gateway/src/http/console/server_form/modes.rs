//! Which settings of a server are on its form, and with which choices each has a meaning. What a setting is, and the
//! text about it, is in [`crate::config::fields`].

use crate::config::fields::{self, Field, Kind};

/// How a server is reached: the word of the configuration, and the one for people.
pub(super) const TRANSPORTS: &[(&str, &str)] = &[
    ("http", "HTTP (Streamable HTTP, recommended)"),
    ("sse", "SSE (HTTP+SSE of 2024-11-05)"),
    (
        "stdio",
        "stdio (a program on the gateway's machine; only in the configuration file)",
    ),
];

/// What the gateway shows a server.
#[derive(Debug)]
pub(super) struct Mode {
    /// The choice under Authentication.
    pub(super) auth: &'static str,
    /// The choice under OAuth Flow Type.
    pub(super) flow: Option<&'static str>,
    /// What the choice is called: the flow's name, or the authentication's.
    pub(super) label: &'static str,
    /// What the configuration says of it.
    pub(super) sets: &'static [(&'static str, Set)],
    /// Its settings: those that most servers need.
    pub(super) main: &'static [&'static str],
    /// The others.
    pub(super) more: &'static [&'static str],
    /// Those without which it cannot work.
    pub(super) required: &'static [&'static str],
    /// What it means.
    pub(super) note: &'static str,
    /// What to beware of.
    pub(super) warning: Option<&'static str>,
}

/// A value that a choice stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Word(&'static str),
    Yes,
}

/// The word of the form for `auth_type: none` with `oauth_passthrough`.
pub(super) const FLAGGED: &str = "oauth_passthrough";
/// The word of the form for `auth_type: oauth2` with `delegate_auth_to_upstream`.
pub(super) const DELEGATED: &str = "delegate_auth_to_upstream";

const OAUTH2: &str = "oauth2";
const MACHINE: &str = "client_credentials";
const PERSON: &str = "authorization_code";
/// The flow that is chosen where nothing is said, as in the configuration.
pub(super) const DEFAULT_FLOW: &str = PERSON;

const fn fixed(auth: &'static str, label: &'static str, sets: &'static [(&'static str, Set)]) -> Mode {
    Mode {
        auth,
        flow: None,
        label,
        sets,
        main: &["authentication_token"],
        more: OWN_KEYS,
        required: &[],
        note: "Every caller reaches the server with this one credential, or with a key of their own that they bring.",
        warning: None,
    }
}

/// Where people bring keys of their own instead of the one credential.
const OWN_KEYS: &[&str] = &["is_byok", "byok_description", "byok_api_key_help_url"];

const SIGN_IN: &[&str] = &[
    "client_id",
    "client_secret",
    "scopes",
    "authorization_url",
    "token_url",
    "registration_url",
    "issuer",
];

/// What the gateway cannot promise where the server alone decides who comes in.
const NO_KEY: &str = "Nobody needs a gateway key here: whoever reaches the gateway reaches this server, and the gateway \
                      does not know who it is. Limits and tools of keys do not hold. Only for a server whose own \
                      authorization server decides who may use it; marking it internal does not ask callers for a key.";

/// Every choice, in the order of the form.
pub(super) const MODES: &[Mode] = &[
    Mode {
        auth: "none",
        flow: None,
        label: "None",
        sets: &[("auth_type", Set::Word("none"))],
        main: &[],
        more: &[],
        required: &[],
        note: "The server is shown no credential.",
        warning: None,
    },
    fixed("api_key", "API Key", &[("auth_type", Set::Word("api_key"))]),
    Mode {
        more: &[
            "upstream_token_header",
            "is_byok",
            "byok_description",
            "byok_api_key_help_url",
        ],
        ..fixed(
            "bearer_token",
            "Bearer Token",
            &[("auth_type", Set::Word("bearer_token"))],
        )
    },
    fixed("token", "Token", &[("auth_type", Set::Word("token"))]),
    fixed("basic", "Basic Auth", &[("auth_type", Set::Word("basic"))]),
    fixed(
        "authorization",
        "Authorization (raw header)",
        &[("auth_type", Set::Word("authorization"))],
    ),
    Mode {
        auth: OAUTH2,
        flow: Some(MACHINE),
        label: "Machine-to-Machine (M2M)",
        sets: &[
            ("auth_type", Set::Word(OAUTH2)),
            ("oauth2_flow", Set::Word(MACHINE)),
        ],
        main: &["client_id", "client_secret", "token_url", "scopes"],
        more: &[
            "token_endpoint_auth_method",
            "audience",
            "resource",
            "upstream_token_header",
            "issuer",
            "client_private_key",
            "client_private_key_id",
            "client_assertion_signing_alg",
            "client_assertion_audience",
        ],
        required: &["client_id", "client_secret", "token_url"],
        note: "The gateway fetches a token with the client credentials grant. No person signs in.",
        warning: Some(
            "Every caller acts with the gateway's own token, never with a person's. If people are to use their own \
             accounts, choose Interactive (PKCE).",
        ),
    },
    Mode {
        auth: OAUTH2,
        flow: Some(PERSON),
        label: "Interactive (PKCE)",
        sets: &[
            ("auth_type", Set::Word(OAUTH2)),
            ("oauth2_flow", Set::Word(PERSON)),
        ],
        main: SIGN_IN,
        more: &[
            "token_endpoint_auth_method",
            "consent",
            "require_pkce",
            "resource",
            "send_resource",
            "token_validation",
            "token_storage_ttl_seconds",
            "upstream_token_header",
        ],
        required: &[],
        note: "Each person signs in with a browser, and the gateway keeps their tokens. What is left blank is discovered; \
               without a Client ID the authorization server has to register clients by itself (RFC 7591).",
        warning: Some(
            "Clients send the gateway key in x-litellm-api-key. With the key in Authorization, Claude Code and others \
             never begin to sign in.",
        ),
    },
    Mode {
        auth: OAUTH2,
        flow: Some(DELEGATED),
        label: "Delegated to the server (PKCE passthrough)",
        sets: &[("auth_type", Set::Word(OAUTH2)), (DELEGATED, Set::Yes)],
        main: &[],
        more: &[],
        required: &[],
        note: "Clients sign in at the server's own authorization server, and the gateway passes their token on.",
        warning: Some(NO_KEY),
    },
    Mode {
        auth: "oauth2_token_exchange",
        flow: None,
        label: "OAuth Token Exchange (OBO)",
        sets: &[("auth_type", Set::Word("oauth2_token_exchange"))],
        main: &[
            "token_exchange_profile",
            "token_exchange_endpoint",
            "client_id",
            "client_secret",
            "audience",
            "scopes",
        ],
        more: &[
            "subject_token_type",
            "subject_token_issuer",
            "subject_token_audience",
            "subject_token_jwks_url",
            "resource",
            "issuer",
            "token_endpoint_auth_method",
            "actor_token",
            "actor_token_type",
            "allow_client_credentials_fallback",
            "token_url",
            "client_private_key",
            "client_private_key_id",
            "client_assertion_signing_alg",
            "client_assertion_audience",
            "upstream_token_header",
        ],
        required: &[],
        note: "The caller's own token, in Authorization, is exchanged for one of the server's (RFC 8693).",
        warning: Some(
            "Callers send two things: the gateway key in x-litellm-api-key, and their token in Authorization.",
        ),
    },
    Mode {
        auth: "oauth2_id_jag",
        flow: None,
        label: "ID-JAG (Cross App Access)",
        sets: &[("auth_type", Set::Word("oauth2_id_jag"))],
        main: &[
            "token_exchange_endpoint",
            "id_jag_resource_token_endpoint",
            "audience",
            "client_id",
            "client_secret",
            "scopes",
        ],
        more: &[
            "id_jag_resource",
            "id_jag_subject_source",
            "id_jag_resource_client_id",
            "id_jag_resource_client_secret",
            "subject_token_type",
            "subject_token_issuer",
            "subject_token_audience",
            "subject_token_jwks_url",
            "issuer",
            "token_endpoint_auth_method",
            "token_url",
            "client_private_key",
            "client_private_key_id",
            "client_assertion_signing_alg",
            "client_assertion_audience",
            "upstream_token_header",
        ],
        required: &["id_jag_resource_token_endpoint", "audience"],
        note: "The caller's identity token, in Authorization, becomes a grant at the identity provider and a token at the \
               server's authorization server.",
        warning: Some(
            "Callers send two things: the gateway key in x-litellm-api-key, and their token in Authorization.",
        ),
    },
    Mode {
        auth: FLAGGED,
        flow: None,
        label: "Passthrough (gateway key and the caller's token)",
        sets: &[("auth_type", Set::Word("none")), (FLAGGED, Set::Yes)],
        main: &[],
        more: &[],
        required: &[],
        note: "The server is shown the caller's own Authorization, and its challenge reaches the caller.",
        warning: Some("Clients send the gateway key in x-litellm-api-key, so that Authorization stays free."),
    },
    Mode {
        auth: "true_passthrough",
        flow: None,
        label: "True Passthrough (no gateway key)",
        sets: &[("auth_type", Set::Word("true_passthrough"))],
        main: &["dcr_bridge"],
        more: BRIDGED,
        required: &[],
        note: "The server is shown the caller's own Authorization and nothing else.",
        warning: Some(NO_KEY),
    },
    Mode {
        auth: "oauth_delegate",
        flow: None,
        label: "OAuth Delegate (client-supplied upstream token)",
        sets: &[("auth_type", Set::Word("oauth_delegate"))],
        main: &["dcr_bridge"],
        more: BRIDGED,
        required: &[],
        note: "The server is shown the caller's own Authorization; the gateway key comes in x-litellm-api-key.",
        warning: Some(
            "A client that sends the gateway key in Authorization has no place left for its token.",
        ),
    },
    Mode {
        auth: "aws_sigv4",
        flow: None,
        label: "AWS SigV4",
        sets: &[("auth_type", Set::Word("aws_sigv4"))],
        main: &[
            "aws_region_name",
            "aws_service_name",
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ],
        more: &["aws_role_name", "aws_session_name", "aws_sts_endpoint"],
        required: &[],
        note: "Each request is signed. Without an access key, that of the gateway's environment signs.",
        warning: None,
    },
];

/// What `dcr_bridge` has use for.
const BRIDGED: &[&str] = &[
    "client_id",
    "client_secret",
    "scopes",
    "authorization_url",
    "token_url",
    "registration_url",
    "issuer",
    "token_endpoint_auth_method",
    "consent",
    "resource",
    "send_resource",
    "token_validation",
];

/// A part of the form whose settings every mode has.
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) fields: &'static [&'static str],
}

/// Settings that only a server has that is reached over HTTP, or as a program.
pub(super) const OVER_HTTP: &[&str] = &["url", "static_headers", "extra_headers", "env_vars"];
pub(super) const OF_PROGRAMS: &[&str] = &["command", "args", "env"];

pub(super) const IDENTITY: &[&str] = &["alias", "description", "source_url"];
pub(super) const CONNECTION: &[&str] = &["url", "command", "args", "env"];
pub(super) const PARTS: &[Part] = &[
    Part {
        title: "Permission Management / Access Control",
        fields: &["allow_all_keys", "available_on_public_internet", "access_groups"],
    },
    Part {
        title: "Tool Configuration",
        fields: &["allowed_tools", "disallowed_tools", "allowed_params"],
    },
    Part {
        title: "Headers",
        fields: &["static_headers", "extra_headers", "env_vars"],
    },
    Part {
        title: "More",
        fields: &[
            "timeout",
            "instructions",
            "mcp_info",
            "allow_sampling",
            "allow_elicitation",
        ],
    },
];

/// Settings that follow from the choices of the form.
pub(super) const CHOICES: &[&str] = &["transport", "auth_type", "oauth2_flow", DELEGATED, FLAGGED];

/// What a setting is; every name here is one of the table's.
pub(super) fn field(name: &str) -> Option<&'static Field> {
    fields::SERVER.iter().find(|field| field.name == name)
}

/// Whether what is kept of it is shown to nobody.
pub(super) fn is_write_only(name: &str) -> bool {
    let kind = field(name).map(|field| field.kind);
    matches!(kind, Some(Kind::Secret | Kind::Headers | Kind::TextMap)) || matches!(name, "args" | "env_vars")
}

/// What people call a setting.
pub(super) fn label(name: &str) -> String {
    match name {
        "url" => return "MCP Server URL".into(),
        "mcp_info" => return "MCP Info".into(),
        "authentication_token" => return "Authentication Value".into(),
        "id_jag_resource" => return "ID-JAG Resource".into(),
        _ => {}
    }
    let words = name.split('_').map(|word| match word {
        "id" | "url" | "aws" | "sts" | "pkce" | "jwks" | "dcr" | "ttl" => word.to_uppercase(),
        "oauth" => "OAuth".into(),
        "allowlist" => "Allowlist".into(),
        word => {
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters).collect()
        }
    });
    words.collect::<Vec<_>>().join(" ").replace("ID Jag", "ID-JAG")
}

impl Mode {
    /// Names the mode in the form's attributes.
    pub(super) fn key(&self) -> String {
        match self.flow {
            Some(flow) => format!("{}.{flow}", self.auth),
            None => self.auth.to_owned(),
        }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.main.contains(&field) || self.more.contains(&field)
    }

    /// All its settings.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.main.iter().chain(self.more).copied()
    }

    /// The choice of these words.
    pub(super) fn of(auth: &str, flow: &str) -> Option<&'static Self> {
        MODES
            .iter()
            .find(|mode| mode.auth == auth && mode.flow.is_none_or(|own| own == flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields::{AUTH_TYPES, Support};

    /// Settings that the form has nothing for: other names of a setting, and what is not to be chosen.
    const LEFT_OUT: &[&str] = &[
        "server_id",
        "auth_value",
        "upstream_resource",
        "mcp_access_groups",
    ];

    /// All fields of the form, each once.
    fn on_the_form() -> Vec<&'static str> {
        let parts = PARTS.iter().flat_map(|part| part.fields);
        let of_modes = MODES.iter().flat_map(Mode::fields);
        let mut all: Vec<_> = IDENTITY
            .iter()
            .chain(CONNECTION)
            .chain(parts)
            .copied()
            .chain(of_modes)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn every_setting_has_its_field_and_no_field_is_without_a_setting() {
        let form = on_the_form();
        for setting in fields::SERVER
            .iter()
            .filter(|field| field.support == Support::Yes)
        {
            let named = form.contains(&setting.name);
            let left_out = CHOICES.contains(&setting.name) || LEFT_OUT.contains(&setting.name);
            assert!(named != left_out, "{}", setting.name);
        }
        for name in form.iter().chain(CHOICES).chain(OVER_HTTP).chain(OF_PROGRAMS) {
            assert!(
                field(name).is_some_and(|field| field.support == Support::Yes),
                "{name}"
            );
        }
    }

    #[test]
    fn every_auth_type_is_a_choice() {
        for auth_type in AUTH_TYPES {
            let set = ("auth_type", Set::Word(auth_type));
            assert!(MODES.iter().any(|mode| mode.sets.contains(&set)), "{auth_type}");
        }
        for mode in MODES {
            assert!(
                mode.required.iter().all(|name| mode.main.contains(name)),
                "{}",
                mode.label
            );
            let twice = mode.main.iter().any(|name| mode.more.contains(name));
            assert!(!twice, "{}", mode.label);
        }
    }

    #[test]
    fn labels_are_the_words_of_the_walk_through() {
        for (name, expected) in [
            ("client_id", "Client ID"),
            ("client_secret", "Client Secret"),
            ("token_url", "Token URL"),
            ("scopes", "Scopes"),
            ("url", "MCP Server URL"),
            ("aws_access_key_id", "AWS Access Key ID"),
            ("id_jag_resource_client_id", "ID-JAG Resource Client ID"),
        ] {
            assert_eq!(label(name), expected);
        }
    }
}

//! The settings that concern all servers, and the file's top level.

use super::{Field, INTERACTIVE, KEYS, Kind, POLICY, not_yet, only, yes};

/// `general_settings`: what concerns MCP. Other keys are LiteLLM's own business and passed over.
pub const GENERAL: &[Field] = &[
    yes(
        "master_key",
        Kind::Secret,
        "The gateway key that callers present. `LITELLM_MASTER_KEY` is read when it is left out. Without one the gateway binds loopback addresses only and admits everybody.",
    ),
    yes(
        "database_url",
        Kind::Secret,
        "Where people's tokens are kept: `sqlite:PATH` or `postgres://…`. The environment variable `DATABASE_URL` counts first. Left out, a SQLite file `vestibule.db` beside the configuration file.",
    ),
    yes(
        "store_model_in_db",
        Kind::Bool,
        "Whether servers may be added, changed and deleted at run time. Default `true`. With `false` those that are in the database are not served either.",
    ),
    yes(
        "use_x_forwarded_for",
        Kind::Bool,
        "Whether forwarded headers of the peers in `mcp_trusted_proxy_ranges` count: `X-Forwarded-Proto`, `-Host` and `-Port` say what the public origin is (`PROXY_BASE_URL` counts first), `X-Forwarded-For` whose the request is. Default `false`.",
    ),
    yes(
        "mcp_trusted_proxy_ranges",
        Kind::TextList,
        "Addresses or CIDR ranges of the proxies whose forwarded headers count. Without them none do.",
    ),
    yes(
        "mcp_xff_num_trusted_hops",
        Kind::Count,
        "How many trusted proxies there are between client and gateway: the client's address is the one so many places from the right of `X-Forwarded-For`. Left out, the last one that is not in `mcp_trusted_proxy_ranges`.",
    ),
    yes(
        "mcp_internal_ip_ranges",
        Kind::TextList,
        "Addresses or CIDR ranges of the clients that may use servers with `available_on_public_internet: false`. Default 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 127.0.0.0/8, ::1 and fc00::/7, which a list here replaces.",
    ),
    yes(
        "mcp_client_side_auth_header_name",
        Kind::Text,
        "Another name for `x-mcp-auth`, by which a caller brings a credential for the one server of a request; `Authorization` is possible. The environment variable `LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME` counts first.",
    ),
    yes(
        "litellm_key_header_name",
        Kind::Text,
        "A further header for the gateway key. It counts before `x-litellm-api-key` and `Authorization`, and goes to no server.",
    ),
    yes(
        "enable_mcp_registry",
        Kind::Bool,
        "Whether `/v1/mcp/registry.json` tells everybody, without a key, which servers there are. Default `false`.",
    ),
    not_yet("mcp_required_fields", Kind::TextList, KEYS, "Submission rules."),
    not_yet("user_mcp_management_mode", Kind::Text, KEYS, "Who sees servers."),
    only(
        "require_end_user_mcp_access_defined",
        Kind::Bool,
        "false",
        KEYS,
        "End-user permissions.",
    ),
    only(
        "require_key_mcp_access_defined",
        Kind::Bool,
        "false",
        KEYS,
        "Key permissions.",
    ),
    only(
        "mcp_allow_all_keys_respects_mcp_scope",
        Kind::Bool,
        "false",
        KEYS,
        "Key permissions.",
    ),
    yes(
        "mcp_require_explicit_server_scope",
        Kind::Bool,
        "Whether a request to `/mcp`, which names no server, must say in `x-mcp-servers` which ones it is for. Default `false`: it is for all.",
    ),
    not_yet("mcp_allowed_clients", Kind::Any, KEYS, "Client allow list."),
    not_yet("mcp_client_id_header", Kind::Text, KEYS, "Names the client."),
    not_yet(
        "mcp_advertised_versions",
        Kind::TextList,
        "translation between MCP revisions",
        "Revisions offered.",
    ),
    not_yet(
        "mcp_disabled_capabilities",
        Kind::TextList,
        "hiding capabilities",
        "Capabilities hidden.",
    ),
    only(
        "mcp_prefer_client_id_metadata_document",
        Kind::Bool,
        "false",
        INTERACTIVE,
        "Client id metadata documents.",
    ),
    not_yet(
        "mcp_session_token_signing",
        Kind::Any,
        INTERACTIVE,
        "Session token keys.",
    ),
];

/// `litellm_settings`: what concerns MCP. Other keys are LiteLLM's own business and passed over.
pub const LITELLM: &[Field] = &[
    yes(
        "mcp_aliases",
        Kind::TextMap,
        "Alias to server name; gives a server without `alias` a second name.",
    ),
    yes(
        "public_mcp_servers",
        Kind::TextList,
        "Ids, names or aliases of servers that are for every client, whatever their `available_on_public_internet` says.",
    ),
    not_yet(
        "mcp_semantic_tool_filter",
        Kind::Any,
        POLICY,
        "Filters tools by meaning.",
    ),
    not_yet("mcp_tool_search", Kind::Any, POLICY, "Searches tools."),
];

/// `vestibule`: settings that LiteLLM does not have and passes over.
pub const VESTIBULE: &[Field] = &[
    yes(
        "keep_tokens_for_master_key",
        Kind::Bool,
        "Whether the master key is one person's. What that person signs in for is then kept, and calls with nothing but the key use it. Default `false`: whoever shares the key would act with the tokens of whoever signed in last.",
    ),
    yes(
        "limits",
        Kind::Any,
        "Bounds on what clients and servers may take; see below.",
    ),
    yes(
        "audit",
        Kind::Any,
        "What is recorded of calls and sign-ins, and for how long; see below.",
    ),
    yes(
        "allowed_hosts",
        Kind::TextList,
        "Further `Host` names to answer when listening on a loopback address, beside loopback names and the host of `PROXY_BASE_URL`.",
    ),
    yes(
        "allowed_origins",
        Kind::TextList,
        "Further `Origin`s whose pages may call MCP endpoints and `/mcp-rest` and read the answers (CORS, never with cookies), beside loopback origins and that of `PROXY_BASE_URL`. What sign-in needs is open to every page.",
    ),
];

/// `vestibule.limits`.
pub const LIMITS: &[Field] = &[
    yes(
        "max_connections",
        Kind::Count,
        "Open client connections. Default 4096. One more is answered 503 and closed.",
    ),
    yes(
        "max_calls_per_server",
        Kind::Count,
        "Calls and streams under way to one server. Default half of `max_connections`, so that a server that never answers leaves room for the others. One more is answered 503.",
    ),
    yes(
        "max_header_bytes",
        Kind::Count,
        "A request's line and headers. Default 32768, at least 8192. More is answered 431.",
    ),
    yes(
        "max_body_bytes",
        Kind::Count,
        "A request's body. Default 4194304. More is answered 413.",
    ),
    yes(
        "header_timeout",
        Kind::Seconds,
        "From the first byte of a request to the end of its headers. Default 10. Then 408.",
    ),
    yes(
        "body_timeout",
        Kind::Seconds,
        "From the end of the headers to the end of the body. Default 30. Then 408.",
    ),
    yes(
        "keep_alive_timeout",
        Kind::Seconds,
        "How long a client connection may be idle between requests. Default 90.",
    ),
    yes(
        "connect_timeout",
        Kind::Seconds,
        "Connecting to a server, TLS included. Default 5. Then 504.",
    ),
    yes(
        "first_byte_timeout",
        Kind::Seconds,
        "From the end of the request to the first byte of the server's answer. Default 120. Then 504.",
    ),
    yes(
        "stream_idle_timeout",
        Kind::Seconds,
        "How long an answer may stay silent, or its reader may take nothing, before it is cut. Default 600.",
    ),
    yes(
        "listing_timeout",
        Kind::Seconds,
        "How long one server's part of a list may take, under `/mcp-rest` and behind endpoints with several servers; the others' are given without. Default 10. Then 504.",
    ),
    yes(
        "open_timeout",
        Kind::Seconds,
        "How long `initialize` at an endpoint with several servers waits for theirs. Default 2. Who is later is asked when it is needed.",
    ),
    yes(
        "token_timeout",
        Kind::Seconds,
        "A whole token request. Default 10. Then 504.",
    ),
    yes(
        "drain_timeout",
        Kind::Seconds,
        "How long calls and streams may go on after the signal to stop. Default 30.",
    ),
    yes(
        "max_bridge_sessions",
        Kind::Count,
        "Open sessions with servers of `transport: sse` and `stdio`, all servers together; one server gets half. Default 1024. One more is answered 503.",
    ),
    yes(
        "max_stdio_processes",
        Kind::Count,
        "Running programs of `transport: stdio`, all servers together. Default 32. One more is answered 503.",
    ),
];

/// `vestibule.audit`.
pub const AUDIT: &[Field] = &[
    yes(
        "calls",
        Kind::Bool,
        "Whether every call is recorded. Default `true`; with `false` only calls that failed are. Sign-ins, changes and refusals always are.",
    ),
    yes(
        "arguments",
        Kind::Bool,
        "Whether the arguments of `tools/call` are recorded too, up to 4 KiB of them. Default `false`: they can hold anything.",
    ),
    yes(
        "retention_days",
        Kind::Text,
        "For how many days rows are kept, or `forever`. Default 30.",
    ),
];

/// Top-level sections that are read.
pub const SECTIONS: &[(&str, &str)] = &[
    (
        "mcp_servers",
        "The MCP servers: a mapping from name to the fields below.",
    ),
    (
        "general_settings",
        "Of these the ones that concern MCP; others are passed over with a line in the log.",
    ),
    (
        "litellm_settings",
        "Of these the ones that concern MCP; others are passed over with a line in the log.",
    ),
    (
        "environment_variables",
        "Names to values, seen by `os.environ/NAME` before the process environment.",
    ),
    (
        "vestibule",
        "Settings that LiteLLM does not have; LiteLLM passes this section over.",
    ),
];

/// Top-level sections that are LiteLLM's other business.
pub const PASSED_OVER: &[&str] = &[
    "agent_list",
    "assistant_settings",
    "callback_settings",
    "credential_list",
    "files_settings",
    "finetune_settings",
    "guardrails",
    "model_list",
    "policies",
    "policy_attachments",
    "prompts",
    "router_settings",
    "search_tools",
    "vector_store_registry",
    "vector_stores",
    "worker_registry",
];

/// Top-level sections that would change what this program does, and are not supported.
pub const SECTIONS_NOT_YET: &[(&str, &str)] = &[
    ("mcp_tools", "tools that are Python functions"),
    ("include", "configuration split over several files"),
];

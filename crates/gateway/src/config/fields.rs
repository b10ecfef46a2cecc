//! Every key that the configuration file may hold, with its type, its meaning and whether it is obeyed.
//! The reader, the JSON Schema and `docs/reference/config.md` are all made from these tables.

/// A key of one section.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As written in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it is obeyed.
    pub support: Support,
    /// What it does, for the reference; one sentence or two.
    pub doc: &'static str,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that is never printed.
    Secret,
    /// An absolute `http` or `https` URL.
    Url,
    /// `true` or `false`.
    Bool,
    /// A number of seconds, fractions allowed.
    Seconds,
    /// A whole number above zero.
    Count,
    /// A list of texts.
    TextList,
    /// Header names to values.
    Headers,
    /// Names to texts.
    TextMap,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Anything; passed on.
    Any,
}

/// Whether a field is obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is.
    Yes,
    /// Not yet; the text names what it belongs to. Setting it is an error.
    NotYet(&'static str),
    /// Only this value, which is the same as leaving it out; any other belongs to what the text names.
    Only(&'static str, &'static str),
}

const fn yes(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        name,
        kind,
        support: Support::Yes,
        doc,
    }
}

const fn not_yet(name: &'static str, kind: Kind, what: &'static str, doc: &'static str) -> Field {
    Field {
        name,
        kind,
        support: Support::NotYet(what),
        doc,
    }
}

const fn only(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    what: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        name,
        kind,
        support: Support::Only(value, what),
        doc,
    }
}

/// The protection space in challenges.
pub const REALM: &str = "vestibule";

const INTERACTIVE: &str = "interactive sign-in";
const EXCHANGE: &str = "token exchange";
const DELEGATION: &str = "delegation to the upstream";
const SIGV4: &str = "AWS request signing";
const STDIO: &str = "servers run as child processes";
const POLICY: &str = "tool rules";
const KEYS: &str = "virtual keys";
const NETWORK: &str = "visibility by client address";
const AGGREGATE: &str = "several servers behind one endpoint";

/// The values of `auth_type` that are obeyed.
pub const AUTH_TYPES: &[&str] = &[
    "none",
    "api_key",
    "bearer_token",
    "basic",
    "authorization",
    "token",
    "oauth2",
];

/// The values of `auth_type` that are known and belong to something that is not built.
pub const AUTH_TYPES_NOT_YET: &[(&str, &str)] = &[
    ("oauth2_token_exchange", EXCHANGE),
    ("oauth2_id_jag", "the identity assertion grant"),
    ("aws_sigv4", SIGV4),
    ("true_passthrough", DELEGATION),
    ("oauth_delegate", DELEGATION),
];

/// `mcp_servers.<name>`.
pub const SERVER: &[Field] = &[
    yes("url", Kind::Url, "The MCP server's endpoint. Required."),
    yes(
        "transport",
        Kind::Choice(&["http"]),
        "`http`, the default: Streamable HTTP. `sse` and `stdio` are not supported yet.",
    ),
    yes(
        "auth_type",
        Kind::Choice(AUTH_TYPES),
        "What the gateway shows the server. Default `none`. `oauth2_token_exchange`, `oauth2_id_jag`, `aws_sigv4`, `true_passthrough` and `oauth_delegate` are not supported yet.",
    ),
    yes(
        "alias",
        Kind::Text,
        "A second name; the server answers under both.",
    ),
    yes(
        "description",
        Kind::Text,
        "For people; part of `mcp_info` in `/mcp-rest/tools/list`.",
    ),
    yes(
        "server_id",
        Kind::Text,
        "Pins the server's id. Without it the id is derived from name, url, transport, auth_type and alias as LiteLLM does.",
    ),
    yes(
        "authentication_token",
        Kind::Secret,
        "The credential of the static types: `api_key` sends it as `X-API-Key`, `bearer_token` as `Authorization: Bearer …`, `token` as `Authorization: token …`, `authorization` as it is, `basic` takes `user:password` (or that in base64).",
    ),
    yes(
        "auth_value",
        Kind::Secret,
        "Another name of `authentication_token`.",
    ),
    yes(
        "oauth2_flow",
        Kind::Choice(&["client_credentials", "authorization_code"]),
        "`client_credentials` fetches a machine token; with `authorization_code` a person signs in. Left out, it is inferred: `authorization_url` present means `authorization_code`; only `token_url`, `client_id` and `client_secret` mean `client_credentials`; anything else means `authorization_code`. The inference is logged.",
    ),
    yes(
        "client_id",
        Kind::Text,
        "The OAuth client identifier. Required for `client_credentials`. Of interactive sign-in it is the one client at the authorization server that all MCP clients share; left out, each kind of client is registered there (RFC 7591).",
    ),
    yes(
        "client_secret",
        Kind::Secret,
        "The OAuth client secret. Required for `client_credentials`; left out beside a `client_id` of interactive sign-in, the client is public.",
    ),
    yes(
        "token_url",
        Kind::Url,
        "The token endpoint. Required for `client_credentials`; discovered for interactive sign-in when it is left out.",
    ),
    yes(
        "token_endpoint_auth_method",
        Kind::Choice(&["client_secret_post", "client_secret_basic"]),
        "How the configured client proves itself at the token endpoint (RFC 6749 section 2.3.1). Default `client_secret_post`.",
    ),
    yes(
        "scopes",
        Kind::TextList,
        "Scopes to ask for; joined with spaces into `scope`. In interactive sign-in they are what clients are told to ask for, and what is asked for a client that names none.",
    ),
    yes(
        "audience",
        Kind::Text,
        "Sent as `audience` in the token request of `client_credentials`.",
    ),
    yes(
        "resource",
        Kind::Text,
        "Sent as `resource` (RFC 8707) in the token request, and in interactive sign-in in the authorization request too; `auto` stands for the server's url.",
    ),
    yes("upstream_resource", Kind::Text, "LiteLLM's name of `resource`."),
    yes(
        "send_resource",
        Kind::Choice(&["auto", "always", "never"]),
        "Whether interactive sign-in sends `resource` (RFC 8707). `auto`, the default, sends it to an authorization server that the MCP server's own metadata names, except to providers known to refuse it; a `resource` of the configuration is always sent under `auto`.",
    ),
    yes(
        "authorization_url",
        Kind::Url,
        "The authorization endpoint of interactive sign-in; discovered when it is left out. Accepted beside an explicit `oauth2_flow: client_credentials`, which has no use for it.",
    ),
    yes(
        "registration_url",
        Kind::Url,
        "The dynamic client registration endpoint (RFC 7591) of interactive sign-in; discovered when it is left out. Not used beside a `client_id`.",
    ),
    yes(
        "issuer",
        Kind::Text,
        "The authorization server's issuer identifier. Endpoints that are not configured then come from that issuer's metadata alone, which must name it exactly.",
    ),
    yes(
        "require_pkce",
        Kind::Bool,
        "Whether a client must bring a PKCE challenge with S256. Default `true`.",
    ),
    yes(
        "consent",
        Kind::Choice(&["ask", "never"]),
        "Whether the gateway asks a person before a client gets its code through the shared `client_id`. Default `ask`. `never` means that you vouch for every client that can be redirected to: see docs/sign-in.md for what that gives up.",
    ),
    yes(
        "token_validation",
        Kind::Any,
        "Rules that a token response must meet: names, or paths with dots, to values. A response that breaks one is refused with 403 `token_validation_failed` and nothing is kept.",
    ),
    yes(
        "token_storage_ttl_seconds",
        Kind::Count,
        "How long a person's kept access token is used before it is renewed, instead of until a minute before its end; without a refresh token the person then signs in again.",
    ),
    yes(
        "static_headers",
        Kind::Headers,
        "Headers that every request to the server carries. They win over `extra_headers`.",
    ),
    yes(
        "extra_headers",
        Kind::TextList,
        "Names of request headers that are passed on from the client. `Authorization` is passed on unless it carries a gateway key or the server has a credential of its own.",
    ),
    yes(
        "timeout",
        Kind::Seconds,
        "How long the server may take until the first byte of its answer; overrides `vestibule.limits.first_byte_timeout`.",
    ),
    yes(
        "mcp_info",
        Kind::Any,
        "Passed on as `mcp_info` in `/mcp-rest/tools/list`.",
    ),
    not_yet(
        "dcr_bridge",
        Kind::Bool,
        INTERACTIVE,
        "Bridged client registration.",
    ),
    not_yet(
        "per_server_oauth_discovery",
        Kind::Bool,
        INTERACTIVE,
        "Per-server metadata.",
    ),
    not_yet(
        "oauth_identity_binding",
        Kind::Any,
        INTERACTIVE,
        "Ties the upstream identity to the caller.",
    ),
    not_yet(
        "token_exchange_endpoint",
        Kind::Url,
        EXCHANGE,
        "RFC 8693 endpoint.",
    ),
    not_yet(
        "subject_token_type",
        Kind::Text,
        EXCHANGE,
        "Type of the subject token.",
    ),
    not_yet(
        "token_exchange_profile",
        Kind::Text,
        EXCHANGE,
        "Dialect of the exchange.",
    ),
    not_yet(
        "id_jag_resource_token_endpoint",
        Kind::Url,
        EXCHANGE,
        "Second leg of the identity assertion grant.",
    ),
    not_yet("id_jag_resource", Kind::Text, EXCHANGE, "Its resource."),
    not_yet("id_jag_subject_source", Kind::Text, EXCHANGE, "Its subject."),
    not_yet("id_jag_resource_client_id", Kind::Text, EXCHANGE, "Its client."),
    not_yet(
        "id_jag_resource_client_secret",
        Kind::Secret,
        EXCHANGE,
        "Its client's secret.",
    ),
    not_yet(
        "client_private_key",
        Kind::Secret,
        "private_key_jwt client authentication",
        "Signing key.",
    ),
    not_yet(
        "client_private_key_id",
        Kind::Text,
        "private_key_jwt client authentication",
        "Key id.",
    ),
    not_yet(
        "client_assertion_signing_alg",
        Kind::Text,
        "private_key_jwt client authentication",
        "Algorithm.",
    ),
    only(
        "delegate_auth_to_upstream",
        Kind::Bool,
        "false",
        DELEGATION,
        "Lets the upstream decide who may call.",
    ),
    only(
        "oauth_passthrough",
        Kind::Bool,
        "false",
        DELEGATION,
        "Passes the caller's token on.",
    ),
    not_yet(
        "upstream_token_header",
        Kind::Text,
        DELEGATION,
        "Header that carries the token.",
    ),
    only(
        "available_on_public_internet",
        Kind::Bool,
        "true",
        NETWORK,
        "Whether callers from outside may use the server.",
    ),
    only(
        "allow_all_keys",
        Kind::Bool,
        "false",
        KEYS,
        "Every key may use the server.",
    ),
    not_yet(
        "access_groups",
        Kind::TextList,
        KEYS,
        "Groups that may use the server.",
    ),
    not_yet(
        "mcp_access_groups",
        Kind::TextList,
        KEYS,
        "Groups that may use the server.",
    ),
    not_yet(
        "is_byok",
        Kind::Bool,
        KEYS,
        "Callers bring their own upstream key.",
    ),
    not_yet("byok_description", Kind::TextList, KEYS, "Text for that."),
    not_yet("byok_api_key_help_url", Kind::Url, KEYS, "Help for that."),
    not_yet("env_vars", Kind::Any, KEYS, "Per-user header variables."),
    not_yet("rpm", Kind::Count, KEYS, "Requests a minute."),
    not_yet("max_concurrent_requests", Kind::Count, KEYS, "Concurrent calls."),
    not_yet(
        "allowed_tools",
        Kind::TextList,
        POLICY,
        "The only tools that may be used.",
    ),
    not_yet(
        "disallowed_tools",
        Kind::TextList,
        POLICY,
        "Tools that may not be used.",
    ),
    not_yet("allowed_params", Kind::Any, POLICY, "Arguments that may be used."),
    not_yet("pinned_tools", Kind::Any, POLICY, "Approved tool definitions."),
    not_yet(
        "tool_name_to_display_name",
        Kind::TextMap,
        POLICY,
        "Renamed tools.",
    ),
    not_yet(
        "tool_name_to_description",
        Kind::TextMap,
        POLICY,
        "Redescribed tools.",
    ),
    not_yet("instructions", Kind::Text, AGGREGATE, "Shown in `initialize`."),
    not_yet(
        "protocol_version",
        Kind::Text,
        "translation between MCP revisions",
        "Pins the revision.",
    ),
    only(
        "allow_sampling",
        Kind::Bool,
        "false",
        AGGREGATE,
        "Relays sampling requests.",
    ),
    only(
        "allow_elicitation",
        Kind::Bool,
        "false",
        AGGREGATE,
        "Relays elicitation requests.",
    ),
    not_yet("spec_path", Kind::Text, "OpenAPI servers", "An OpenAPI document."),
    not_yet("command", Kind::Text, STDIO, "The program."),
    not_yet("args", Kind::TextList, STDIO, "Its arguments."),
    not_yet("env", Kind::TextMap, STDIO, "Its environment."),
    not_yet("aws_access_key_id", Kind::Secret, SIGV4, "Credential."),
    not_yet("aws_secret_access_key", Kind::Secret, SIGV4, "Credential."),
    not_yet("aws_session_token", Kind::Secret, SIGV4, "Credential."),
    not_yet("aws_region_name", Kind::Text, SIGV4, "Region."),
    not_yet("aws_service_name", Kind::Text, SIGV4, "Service."),
    not_yet("aws_role_name", Kind::Text, SIGV4, "Role."),
    not_yet("aws_session_name", Kind::Text, SIGV4, "Session."),
];

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
    only(
        "store_model_in_db",
        Kind::Bool,
        "false",
        "servers and keys kept in a database",
        "Servers from the database.",
    ),
    yes(
        "use_x_forwarded_for",
        Kind::Bool,
        "Whether `X-Forwarded-Proto`, `-Host` and `-Port` of the peers in `mcp_trusted_proxy_ranges` say what the public origin is. `PROXY_BASE_URL` counts first. Default `false`.",
    ),
    yes(
        "mcp_trusted_proxy_ranges",
        Kind::TextList,
        "Addresses or CIDR ranges of the proxies whose forwarded headers count. Without them none do.",
    ),
    not_yet("mcp_xff_num_trusted_hops", Kind::Count, NETWORK, "Hops to trust."),
    not_yet(
        "mcp_internal_ip_ranges",
        Kind::TextList,
        NETWORK,
        "Internal addresses.",
    ),
    not_yet(
        "mcp_client_side_auth_header_name",
        Kind::Text,
        "per-request credentials",
        "Renames `x-mcp-auth`.",
    ),
    not_yet(
        "litellm_key_header_name",
        Kind::Text,
        KEYS,
        "Another header for the key.",
    ),
    only(
        "enable_mcp_registry",
        Kind::Bool,
        "false",
        "the registry document",
        "Serves `registry.json`.",
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
    only(
        "mcp_require_explicit_server_scope",
        Kind::Bool,
        "false",
        AGGREGATE,
        "Asks for `x-mcp-servers`.",
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
        AGGREGATE,
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
    not_yet(
        "public_mcp_servers",
        Kind::TextList,
        NETWORK,
        "Servers visible from outside.",
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
        "How long one server's tools may take to list under `/mcp-rest`; the others' are given without. Default 10. Then 504.",
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

//! The fields of one MCP server.

use super::{Field, INTERACTIVE, KEYS, Kind, POLICY, not_yet, yes};

/// The values of `auth_type` that are obeyed.
pub const AUTH_TYPES: &[&str] = &[
    "none",
    "api_key",
    "bearer_token",
    "basic",
    "authorization",
    "token",
    "oauth2",
    "true_passthrough",
    "oauth_delegate",
    "aws_sigv4",
    "oauth2_token_exchange",
    "oauth2_id_jag",
];

/// The values of `client_assertion_signing_alg`.
const ASSERTION_ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

/// `mcp_servers.<name>`.
pub const SERVER: &[Field] = &[
    yes(
        "url",
        Kind::Url,
        "The MCP server's endpoint. Required, but for `transport: stdio`.",
    ),
    yes(
        "transport",
        Kind::Choice(&["http", "sse", "stdio"]),
        "`http`, the default: Streamable HTTP. `sse`: HTTP+SSE of revision 2024-11-05. `stdio`: a program on this machine, one for each session; in the configuration file alone, and off unless `VESTIBULE_ENABLE_STDIO=true`. See docs/transports.md.",
    ),
    yes(
        "command",
        Kind::Text,
        "The program of `transport: stdio`: npx, uvx, python, python3, node, docker, deno, or one that `VESTIBULE_STDIO_EXTRA_COMMANDS` lists. No shell reads it.",
    ),
    yes("args", Kind::TextList, "Its arguments."),
    yes(
        "env",
        Kind::TextMap,
        "Its environment, beside PATH, HOME, TMPDIR, LANG and NPM_CONFIG_CACHE; it gets nothing else of the gateway's. `${X-HEADER-NAME}` in a value stands for that header of the request that opens the session.",
    ),
    yes(
        "auth_type",
        Kind::Choice(AUTH_TYPES),
        "What the gateway shows the server. Default `none`. `true_passthrough` and `oauth_delegate` show it the caller's own `Authorization`; the latter asks for a gateway key in `x-litellm-api-key` too. `aws_sigv4` signs each request. `oauth2_token_exchange` and `oauth2_id_jag` exchange the caller's token for one of the server's.",
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
        "source_url",
        Kind::Url,
        "Where the server's program or its documentation is; for people.",
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
        "Sent as `audience` in the token request of `client_credentials` and of an exchange. Required for `oauth2_id_jag`: the issuer of the server's authorization server.",
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
        "The authorization server's issuer identifier. Endpoints that are not configured then come from that issuer's metadata alone, which must name it exactly. Of an exchange, it is also whom client assertions are for.",
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
        "Headers that every request to the server carries. They win over `extra_headers` and over headers of the caller's; see docs/credentials.md.",
    ),
    yes(
        "extra_headers",
        Kind::TextList,
        "Names of request headers that are passed on from the client. `Authorization` is passed on unless it carries a gateway key or the server has a credential of its own.",
    ),
    yes(
        "env_vars",
        Kind::Any,
        "Variables of `static_headers`: a list of `name`, `value`, `scope` and `description`. A value of `static_headers` may hold `${NAME}`, which is replaced when the configuration is read. Only `scope: global`, the default, is supported yet.",
    ),
    yes(
        "upstream_token_header",
        Kind::Text,
        "The header that carries the bearer token instead of `Authorization`, as `Bearer <token>`. For `bearer_token` and `oauth2`.",
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
    yes(
        "dcr_bridge",
        Kind::Bool,
        "With `auth_type: true_passthrough` or `oauth_delegate`: people sign in through the gateway, which hands clients the provider's token sealed and keeps nothing. Takes the fields of interactive sign-in. Default `false`: clients sign in at the provider themselves.",
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
    yes(
        "token_exchange_endpoint",
        Kind::Url,
        "Where the caller's token is exchanged (`oauth2_token_exchange`), or the identity provider's token endpoint (`oauth2_id_jag`). Left out, it is `token_url`, or what the metadata of `issuer` or `subject_token_issuer` names.",
    ),
    yes(
        "token_exchange_profile",
        Kind::Choice(&["rfc8693", "entra_obo"]),
        "The dialect of the exchange: `rfc8693`, the default, or `entra_obo`, Entra's on-behalf-of flow, which needs `scopes`.",
    ),
    yes(
        "subject_token_type",
        Kind::Text,
        "Sent as `subject_token_type`. Default `urn:ietf:params:oauth:token-type:access_token`, with `oauth2_id_jag` `urn:ietf:params:oauth:token-type:id_token`.",
    ),
    yes(
        "subject_token_issuer",
        Kind::Text,
        "Who issues callers' tokens. They are then judged before the exchange: JSON Web Tokens signed with this issuer's keys, for `subject_token_audience`, neither expired nor early. Clients find the issuer in the server's protected resource metadata.",
    ),
    yes(
        "subject_token_audience",
        Kind::Text,
        "The audience that a caller's token must have. Required with `subject_token_issuer`.",
    ),
    yes(
        "subject_token_jwks_url",
        Kind::Url,
        "Where the keys of `subject_token_issuer` are; found in its metadata when left out.",
    ),
    yes(
        "actor_token",
        Kind::Secret,
        "Sent as `actor_token` (RFC 8693 section 2.1): who acts for the person.",
    ),
    yes(
        "actor_token_type",
        Kind::Text,
        "Sent as `actor_token_type`. Default `urn:ietf:params:oauth:token-type:access_token`.",
    ),
    yes(
        "allow_client_credentials_fallback",
        Kind::Bool,
        "Whether a caller that brings no token is served with a machine token of `token_url`. Default `false`: it is challenged.",
    ),
    yes(
        "id_jag_resource_token_endpoint",
        Kind::Url,
        "The token endpoint of the server's own authorization server, where the grant is redeemed. Required for `oauth2_id_jag`.",
    ),
    yes(
        "id_jag_resource",
        Kind::Text,
        "Sent as `resource` in the request for the grant; `auto` stands for the server's url.",
    ),
    yes(
        "id_jag_subject_source",
        Kind::Choice(&["login_assertion", "refresh_token"]),
        "Where the subject comes from: `login_assertion`, the default, is the identity token in the caller's `Authorization`. `refresh_token` is not supported yet.",
    ),
    yes(
        "id_jag_resource_client_id",
        Kind::Text,
        "The gateway's client at `id_jag_resource_token_endpoint`, where it differs from `client_id`.",
    ),
    yes(
        "id_jag_resource_client_secret",
        Kind::Secret,
        "The secret of `id_jag_resource_client_id`.",
    ),
    yes(
        "client_private_key",
        Kind::Secret,
        "A private key in PEM with which the client of an exchange or of `client_credentials` proves itself (`private_key_jwt`, RFC 7523 section 2.2). It comes before `client_secret`.",
    ),
    yes(
        "client_private_key_id",
        Kind::Text,
        "`kid` in the header of client assertions.",
    ),
    yes(
        "client_assertion_signing_alg",
        Kind::Choice(ASSERTION_ALGORITHMS),
        "How client assertions are signed. Default `RS256`.",
    ),
    yes(
        "client_assertion_audience",
        Kind::Choice(&["issuer", "token_endpoint"]),
        "`aud` of client assertions. Default: `issuer` where `issuer` is set or names the endpoint, else `token_endpoint`.",
    ),
    yes(
        "delegate_auth_to_upstream",
        Kind::Bool,
        "With `auth_type: oauth2`: callers need no gateway key, and the server judges the token that they got from its own authorization server. Default `false`. Only a literal `true` counts, and beside another `auth_type` or a machine token it is an error: see docs/delegation.md.",
    ),
    yes(
        "oauth_passthrough",
        Kind::Bool,
        "With `auth_type: none`: the server is shown the caller's own `Authorization`, and its challenge reaches the caller, who needs a gateway key as well. Default `false`.",
    ),
    yes(
        "available_on_public_internet",
        Kind::Bool,
        "Whether clients outside `mcp_internal_ip_ranges` may use the server. Default `true`. With `false` it does not exist for them, on no path.",
    ),
    yes(
        "allow_all_keys",
        Kind::Bool,
        "Whether every gateway key may use the server, whatever it is given. Default `false`: a key uses what its permissions name.",
    ),
    yes(
        "access_groups",
        Kind::TextList,
        "Groups that the server belongs to. A group's name stands for its servers in `/{group}/mcp`, `/mcp/{group}` and `x-mcp-servers`; no server may have the same name.",
    ),
    yes(
        "mcp_access_groups",
        Kind::TextList,
        "Another name of `access_groups`.",
    ),
    yes(
        "is_byok",
        Kind::Bool,
        "With a static `auth_type` and instead of `authentication_token`: each person brings a key of their own for the server once, which is kept sealed and sent as `auth_type` says. Default `false`. See docs/credentials.md.",
    ),
    yes(
        "byok_description",
        Kind::TextList,
        "What the person's key is used for, line by line, on the page that asks for it.",
    ),
    yes(
        "byok_api_key_help_url",
        Kind::Url,
        "Where that page says that a key is to be had; https.",
    ),
    not_yet("rpm", Kind::Count, KEYS, "Requests a minute."),
    not_yet("max_concurrent_requests", Kind::Count, KEYS, "Concurrent calls."),
    yes(
        "allowed_tools",
        Kind::TextList,
        "The only tools that are shown and may be called. Names are compared without the server's before them (`{server}-{tool}`), and capital letters count as small ones.",
    ),
    yes(
        "disallowed_tools",
        Kind::TextList,
        "Tools that are not shown and may not be called. Has no effect beside `allowed_tools`.",
    ),
    yes(
        "allowed_params",
        Kind::Any,
        "A mapping from tools to lists of their parameters: the only ones with which the tool may be called. A tool that is not here takes any.",
    ),
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
    yes(
        "instructions",
        Kind::Text,
        "What endpoints with several servers say about this one in `instructions`, instead of its own text.",
    ),
    not_yet(
        "protocol_version",
        Kind::Text,
        "translation between MCP revisions",
        "Pins the revision.",
    ),
    yes(
        "allow_sampling",
        Kind::Bool,
        "Whether the server learns that the client takes sampling requests, where it does. Default `true`; with `false` that capability is left out of what the client declares, and the server's requests for it are refused.",
    ),
    yes("allow_elicitation", Kind::Bool, "The same for elicitation."),
    not_yet("spec_path", Kind::Text, "OpenAPI servers", "An OpenAPI document."),
    yes(
        "aws_access_key_id",
        Kind::Secret,
        "The access key of `aws_sigv4`. Left out together with the secret, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` are read when the gateway starts.",
    ),
    yes("aws_secret_access_key", Kind::Secret, "Its secret."),
    yes(
        "aws_session_token",
        Kind::Secret,
        "The session token of a temporary access key.",
    ),
    yes(
        "aws_region_name",
        Kind::Text,
        "The region that requests are signed for. Default `us-east-1`.",
    ),
    yes(
        "aws_service_name",
        Kind::Text,
        "The service that requests are signed for. Default `bedrock-agentcore`.",
    ),
    yes(
        "aws_role_name",
        Kind::Text,
        "The ARN of a role that signs requests: the access key only assumes it, at AWS STS in `aws_region_name`. See docs/credentials.md.",
    ),
    yes(
        "aws_session_name",
        Kind::Text,
        "`RoleSessionName`, which AWS's own logs show. Default: `vestibule-` and the time in seconds.",
    ),
    yes(
        "aws_sts_endpoint",
        Kind::Url,
        "Where AWS STS is, for a private endpoint or another partition. Default: `AWS_ENDPOINT_URL_STS` as it is when the gateway starts, else `https://sts.{region}.amazonaws.com/`, with `.cn` behind it for a role in `aws-cn`.",
    ),
];

/// An entry of `env_vars`.
pub const ENV_VAR: &[Field] = &[
    yes("name", Kind::Text, "The name."),
    yes("value", Kind::Secret, "The value."),
    yes("scope", Kind::Choice(&["global", "user"]), "Whose value it is."),
    yes("description", Kind::Text, "For people."),
];

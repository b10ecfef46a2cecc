//! Every refusal that a caller can see: one table of codes, and the one place that maps an error to a
//! status and a body. Bodies hold the code, a sentence, the next step and the request id; never a secret.

use crate::audit::note;
use crate::ids::RequestId;
use crate::web::body::Body;
use crate::web::json::no_store;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;
use vestibule_oauth::ErrorResponse;

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $rpc:literal $meaning:literal $next:literal;)*) => {
        /// A stable code. Its JSON-RPC number stays outside the range that JSON-RPC reserves.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the table gives each its meaning")]
        pub enum ErrorCode { $($variant,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in bodies and logs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                let number = match self { $(Self::$variant => $status,)* };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// `error.code` in a JSON-RPC answer.
            pub fn rpc(self) -> i64 {
                match self { $(Self::$variant => $rpc,)* }
            }

            /// What it means, for the reference.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What the reader can do.
            pub fn next_step(self) -> &'static str {
                match self { $(Self::$variant => $next,)* }
            }
        }
    };
}

codes! {
    MissingKey "missing_key" 401 40101 "The request carries no gateway key."
        "Send the gateway key in the header x-litellm-api-key (Bearer <key>), or in Authorization.";
    WrongKey "wrong_key" 401 40102 "The gateway does not know the key."
        "Check the key in the header x-litellm-api-key (it counts before Authorization), or ask whoever runs the gateway for one.";
    RepeatedHeader "repeated_header" 400 40001 "A header that may stand once stands several times."
        "Send the header once.";
    HostNotAllowed "host_not_allowed" 403 40301 "The Host header names no host of this gateway, which listens on a loopback address."
        "Call it as localhost or 127.0.0.1, or add the name to vestibule.allowed_hosts.";
    OriginNotAllowed "origin_not_allowed" 403 40302 "A page of another origin makes the call."
        "Add the origin to vestibule.allowed_origins if its pages may use this gateway.";
    NotFound "not_found" 404 40401 "The gateway has nothing at this path."
        "MCP servers are at /{server}/mcp and /mcp/{server}, several of them at /mcp.";
    NoSignIn "no_sign_in" 404 40406 "There is no MCP server of this name to which people sign in."
        "Check the name in the URL. Only servers with auth_type: oauth2 and interactive sign-in have these documents and endpoints, and those with available_on_public_internet: false for internal addresses alone.";
    NoCredential "no_credential" 404 40407 "Nothing is kept for this person and server."
        "There is nothing to forget.";
    BadQuery "bad_query" 400 40020 "A parameter of the query is unknown, or its value cannot be read."
        "The message names it; docs/audit.md has all of them.";
    NoSuchEntry "no_such_entry" 404 40417 "The record has nothing of this request that the caller may see."
        "Check the request id; rows are kept for vestibule.audit.retention_days, and written a moment after the answer.";
    NoPerson "no_person" 400 40008 "The request carries no key that says whose tokens are meant."
        "A gateway without keys keeps nobody's tokens, and a master key is one person's only with vestibule.keep_tokens_for_master_key: true.";
    NoOrigin "no_origin" 400 40007 "The Host header names no host, so the gateway cannot say by what name it was called."
        "Send one Host header, or set PROXY_BASE_URL for the gateway.";
    CallersTokenRequired "callers_token_required" 401 40120 "The MCP server wants a token of its own authorization server, and the request brings none that it takes."
        "Sign in: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header. The token goes into Authorization, and a gateway key into x-litellm-api-key.";
    KeyInTheWay "key_in_the_way" 401 40121 "The gateway key stands in Authorization, where this MCP server's own token belongs."
        "Send the key in the header x-litellm-api-key, and leave Authorization to the client's sign-in.";
    MetadataUnavailable "metadata_unavailable" 503 50361 "What the MCP server says about its authorization server could not be found."
        "Try again shortly; whoever runs the gateway finds in its log what was tried.";
    KeyExpired "key_expired" 401 40150 "The gateway key is over."
        "Ask whoever gave it to you for a new one.";
    KeyBlocked "key_blocked" 403 40350 "The gateway key is blocked."
        "Ask whoever gave it to you why.";
    ByokAuthRequired "byok_auth_required" 401 40160 "The MCP server wants a key of the person's own, and none is kept for whoever calls."
        "Bring the key: an MCP client opens the page for it by itself, from the resource_metadata of the WWW-Authenticate header; a script sends it to POST /v1/mcp/server/{server_id}/user-credential.";
    ByokKeyRefused "byok_key_refused" 401 40161 "The MCP server does not take the key that the person brought."
        "Bring another one, as you brought this one.";
    ServerSessionEnded "server_session_ended" 401 40162 "What the client shows in place of a gateway key counts no longer, or not for this MCP server."
        "Sign in again: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header.";
    NotByok "not_byok" 400 40086 "This is no MCP server to which people bring keys of their own."
        "Only servers with is_byok: true take them; GET /v1/mcp/user-credentials lists what is kept.";
    ByokKeyMalformed "byok_key_malformed" 400 40087 "The key does not fit the MCP server."
        "Copy it again, whole: with auth_type: basic it is user:password, and it has at most 8192 characters.";
    ServerNotAllowed "server_not_allowed" 403 40351 "The gateway key is not for this MCP server."
        "Ask whoever gave you the key to add the server to it; servers with allow_all_keys: true need no such entry.";
    AdminRequired "admin_required" 403 40352 "This is for admins of the gateway."
        "Use the master key, or an admin's key that is not narrowed down to some servers.";
    KeyRateLimited "key_rate_limited" 429 42950 "The gateway key has made as many requests as it may for now."
        "Come back after Retry-After; whoever gave you the key can raise its rpm_limit.";
    KeysUnavailable "keys_unavailable" 503 50353 "Whether the gateway key still counts cannot be said: the gateway's database has been silent for too long."
        "Try again shortly; whoever runs the gateway finds the reason in its log.";
    ToolNotAllowed "tool_not_allowed" 403 40330 "The rules of the MCP server's entry, or of the gateway key, do not let this tool be used."
        "List the tools to see which there are. allowed_tools and disallowed_tools of the server are the rules.";
    ParameterNotAllowed "parameter_not_allowed" 403 40331 "The rules of the MCP server's entry do not let the tool be called with this parameter."
        "Call the tool without it. allowed_params of the server has the rule.";
    BatchNotAllowed "batch_not_allowed" 400 40050 "The MCP server has tool rules, and batches are not taken for such servers."
        "Send the messages one by one.";
    UnreadableMessage "unreadable_message" 400 40051 "The gateway has to judge the message for this MCP server, and it can be read in more than one way."
        "Send one JSON object in UTF-8, each member once and in the spelling of the specification.";
    HeaderMismatch "header_mismatch" 400 40052 "The MCP server has tool rules, and a header names another method, tool or argument than the body."
        "Send Mcp-Method, Mcp-Name and Mcp-Param-* as the body has them, or leave them out.";
    SignInRequired "sign_in_required" 401 40103 "The MCP server wants a person's sign-in."
        "Sign in: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header.";
    SignInEnded "sign_in_ended" 401 40104 "The MCP server does not accept the person's token any more."
        "Sign in again: an MCP client does it by itself, from the resource_metadata of the WWW-Authenticate header.";
    ScopeMissing "scope_missing" 403 40303 "The person's token lacks a scope that this request needs."
        "Sign in again with the scope of the WWW-Authenticate header.";
    SubjectTokenRequired "subject_token_required" 401 40110 "The MCP server is called on a person's behalf, and the request carries no token of theirs."
        "Send the person's token in Authorization (Bearer <token>), and the gateway key in x-litellm-api-key.";
    SubjectTokenRefused "subject_token_refused" 401 40111 "The token in Authorization is not accepted, so there is no token on the person's behalf."
        "Get a fresh token from the identity provider and send it in Authorization; if that does not help, compare its issuer and audience with this server's configuration.";
    InsufficientClaims "insufficient_claims" 401 40112 "The identity provider wants more of the person before it gives a token on their behalf."
        "Sign in again with the claims of the WWW-Authenticate header (base64), and send the new token.";
    SubjectKeysUnavailable "subject_keys_unavailable" 503 50330 "The keys that the token in Authorization is judged by cannot be had now."
        "Try again shortly; whoever runs the gateway finds the reason in its log.";
    TooManyExchanges "too_many_exchanges" 503 50391 "As many callers' tokens are being exchanged for the MCP server as may be at once."
        "Try again after the time in Retry-After.";
    TokenEndpointUnknown "token_endpoint_unknown" 502 50230 "The metadata that would name the token endpoint cannot be had."
        "Check issuer and subject_token_issuer of this server, or set token_exchange_endpoint.";
    RenewalFailed "renewal_failed" 503 50304 "The person's token could not be renewed, and the sign-in may still be good."
        "Try again shortly.";
    StoreUnavailable "store_unavailable" 503 50305 "The gateway's database does not answer."
        "Try again shortly; whoever runs the gateway finds the reason in its log.";
    UnknownServer "unknown_server" 404 40402 "No MCP server has this name."
        "Check the name in the URL against mcp_servers in the gateway's configuration. Servers with available_on_public_internet: false are there for internal addresses alone.";
    NotSupported "not_supported" 404 40403 "The path exists in LiteLLM and is not supported here yet."
        "MCP servers are at /{server}/mcp and /mcp; docs/servers.md has what can be managed.";
    MethodNotAllowed "method_not_allowed" 405 40501 "The path takes other methods."
        "Use one of the methods in the Allow header.";
    UnknownSession "unknown_session" 404 40404 "The Mcp-Session-Id is not one that this gateway gave to this caller for this server, or it has expired."
        "Start a new session with initialize and no Mcp-Session-Id.";
    MalformedRequest "malformed_request" 400 40005 "What was sent is not HTTP/1.1."
        "Speak clear-text HTTP/1.1 to the gateway.";
    HeadersTooLarge "headers_too_large" 431 43101 "The request's headers are larger than the gateway takes."
        "Send fewer or shorter headers; vestibule.limits.max_header_bytes is the limit.";
    BodyTooLarge "body_too_large" 413 41301 "The request's body is larger than the gateway takes."
        "Send less at once; vestibule.limits.max_body_bytes is the limit.";
    BodyTimeout "body_timeout" 408 40801 "The request's body did not arrive in time."
        "Send it again; vestibule.limits.body_timeout is the limit.";
    BodyBroken "body_broken" 400 40002 "The request's body ended before its end."
        "Send it again.";
    HeaderTimeout "header_timeout" 408 40802 "The request's headers did not arrive in time."
        "Send it again; vestibule.limits.header_timeout is the limit.";
    TooManyConnections "too_many_connections" 503 50301 "The gateway holds as many connections as it may."
        "Try again shortly; vestibule.limits.max_connections is the limit.";
    TooManyCalls "too_many_calls" 503 50302 "The MCP server has as many calls under way as it may."
        "Try again shortly, and look whether the server answers; vestibule.limits.max_calls_per_server is the limit.";
    UpstreamUnreachable "upstream_unreachable" 502 50201 "The MCP server cannot be reached."
        "Check that the server runs and that its url is right in the gateway's configuration. `vestibule doctor SERVER` says what to change.";
    UpstreamConnectTimeout "upstream_connect_timeout" 504 50401 "The MCP server did not take a connection in time."
        "Check that the server runs and is reachable from the gateway; vestibule.limits.connect_timeout is the limit. `vestibule doctor SERVER` says what to change.";
    UpstreamTimeout "upstream_timeout" 504 50402 "The MCP server did not begin its answer in time."
        "Try again, or raise timeout for this server. The call may have been carried out.";
    UpstreamClosed "upstream_closed" 502 50202 "The MCP server closed the connection without an answer."
        "Look at the server's log. The call may have been carried out.";
    UpstreamTruncated "upstream_truncated" 502 50203 "The MCP server's answer ended before its end."
        "Look at the server's log. The call may have been carried out.";
    UpstreamNotMcp "upstream_not_mcp" 502 50204 "What came from the MCP server is not MCP."
        "Check the server's url; it must be its MCP endpoint. `vestibule doctor SERVER` says what to change.";
    UpstreamRedirect "upstream_redirect" 502 50205 "The MCP server answered with a redirect that is not followed."
        "Put the address it redirects to into the server's url, if you trust it. Only 307 and 308 within one origin are followed. `vestibule doctor SERVER` says what to change.";
    UpstreamRefusedToken "upstream_refused_token" 502 50206 "The MCP server refused our token, a fresh one included."
        "Check that token_url belongs to this server, and its scopes, audience and resource. `vestibule doctor SERVER` says what to change.";
    UpstreamRefusedCredential "upstream_refused_credential" 502 50207 "The MCP server refused the gateway's configured credential."
        "Check auth_type and authentication_token of this server. `vestibule doctor SERVER` says what to change.";
    UpstreamWantsCredential "upstream_wants_credential" 502 50208 "The MCP server wants a credential, and the gateway has none for it."
        "Set auth_type for this server. `vestibule doctor SERVER` says what to change.";
    UpstreamRefusedSignature "upstream_refused_signature" 502 50270 "The MCP server refused the gateway's signed request."
        "Check the access key, aws_region_name and aws_service_name of this server, what the key may do, and the gateway's clock.";
    RoleRefused "role_refused" 502 50280 "AWS STS does not let the gateway assume the MCP server's role."
        "Check aws_role_name, the role's trust policy, that the access key may do sts:AssumeRole, and the gateway's clock.";
    StsUnreachable "sts_unreachable" 502 50281 "AWS STS cannot be reached."
        "Check aws_region_name and aws_sts_endpoint of this server, and that the gateway can reach the address.";
    StsAnswerInvalid "sts_answer_invalid" 502 50282 "What AWS STS answered is no access key of the role."
        "Check aws_sts_endpoint of this server; it must be an STS that answers in XML.";
    StsTimeout "sts_timeout" 504 50460 "AWS STS did not answer in time."
        "Try again; vestibule.limits.token_timeout is the limit.";
    SigningFailed "signing_failed" 500 50020 "The request cannot be signed."
        "Report the request id to whoever runs the gateway.";
    CredentialNotTaken "credential_not_taken" 400 40060 "The request brings a credential for an MCP server that takes none from callers."
        "Leave out the header that the message names. docs/credentials.md says which servers take a caller's credential.";
    CredentialMalformed "credential_malformed" 400 40061 "The credential that the request brings does not fit the MCP server's auth_type."
        "Send it as the server's auth_type wants it, or in x-mcp-{server}-authorization as it is.";
    UpstreamForbidden "upstream_forbidden" 502 50209 "The MCP server accepts the gateway's credential and forbids this request."
        "Check what the credential may do: scopes for a machine token, permissions for a static one. `vestibule doctor SERVER` says what to change.";
    TokenRefused "token_refused" 502 50220 "The authorization server refused the token request."
        "Check client_id, client_secret, scopes, audience and resource of this server. `vestibule doctor SERVER` says what to change.";
    TokenEndpointUnreachable "token_endpoint_unreachable" 502 50221 "The token endpoint cannot be reached."
        "Check token_url, and that it is reachable from the gateway. `vestibule doctor SERVER` says what to change.";
    TokenEndpointTimeout "token_endpoint_timeout" 504 50420 "The token endpoint did not answer in time."
        "Try again; vestibule.limits.token_timeout is the limit. `vestibule doctor SERVER` says what to change.";
    TokenEndpointRedirect "token_endpoint_redirect" 502 50222 "The token endpoint answered with a redirect, which is never followed."
        "Set token_url to the address of the token endpoint itself. `vestibule doctor SERVER` says what to change.";
    TokenResponseInvalid "token_response_invalid" 502 50223 "What the token endpoint answered is no token response."
        "Check token_url; it must be the token endpoint (RFC 6749 section 3.2). `vestibule doctor SERVER` says what to change.";
    UpstreamEnded "upstream_ended" 502 50250 "The MCP server ended its session before the answer."
        "Start a new session, and look at the server's log. The call may have been carried out.";
    ServerNotStarted "server_not_started" 502 50251 "The MCP server's program could not be started."
        "Check command and PATH of this server where the gateway runs.";
    ForeignEndpoint "foreign_endpoint" 502 50252 "The MCP server wants messages sent to another origin than its own, where its credential must not go."
        "Check the server's url; over HTTP+SSE both addresses have one origin.";
    TooManySessions "too_many_sessions" 503 50350 "There are as many sessions with servers of transport sse and stdio as there may be."
        "Try again later, and end sessions with DELETE; vestibule.limits.max_bridge_sessions is the limit, and half of it for one server.";
    TooManyProcesses "too_many_processes" 503 50351 "There are as many programs of transport stdio as there may be."
        "Try again later, and end sessions with DELETE; vestibule.limits.max_stdio_processes is the limit.";
    ServerRestarting "server_restarting" 503 50352 "The MCP server's program keeps ending soon after its start."
        "Look at its standard error in the gateway's log. Retry-After says when it is started again.";
    EndpointTimeout "endpoint_timeout" 504 50450 "The MCP server did not say in time where messages go."
        "Check that url is the server's HTTP+SSE address; one of Streamable HTTP needs transport: http.";
    MissingServerHeader "missing_server_header" 400 40070 "The MCP server needs a header that the request does not carry once, or that holds a gateway key."
        "Send the header that env of this server names in the request that opens the session.";
    MissingParameter "missing_parameter" 400 40003 "A parameter is missing or has the wrong type."
        "Send a JSON object with name, arguments and, where needed, server_id.";
    UnknownTool "unknown_tool" 404 40405 "No MCP server has a tool of this name."
        "List the tools with GET /mcp-rest/tools/list.";
    ListingTimeout "listing_timeout" 504 50403 "The MCP server did not list its tools in time."
        "Try again; vestibule.limits.listing_timeout is the limit.";
    AmbiguousTool "ambiguous_tool" 400 40004 "Several MCP servers have a tool of this name."
        "Say which one with server_id.";
    UpstreamError "upstream_error" 502 50210 "The MCP server answered with an error."
        "The message is the server's.";
    InvalidMessage "invalid_message" 400 40030 "What was sent is not one JSON-RPC message."
        "Send one JSON-RPC request, notification or answer; endpoints with several servers take no batches.";
    TooManyNames "too_many_names" 400 40031 "The request names more servers than one endpoint may have."
        "Name at most 16 servers and groups, or put the servers into a group.";
    ServerScopeRequired "server_scope_required" 400 40032 "The request does not say which MCP servers it is for."
        "Name servers or groups in the header x-mcp-servers or in the path; the gateway's configuration has mcp_require_explicit_server_scope.";
    AmbiguousName "ambiguous_name" 400 40033 "Several MCP servers have what is asked for, or it is not known whether they do."
        "Use the name as the list gives it, with the server's prefix, or call the server itself at /{server}/mcp.";
    RequestCancelled "request_cancelled" 400 40091 "The client cancelled the request."
        "There is nothing to do. The MCP server may have done what was asked before it heard of it.";
    TooManySubscriptions "too_many_subscriptions" 400 40090 "The request subscribes to more resources than one stream may have."
        "Subscribe to at most 64 resources in one subscriptions/listen.";
    AmbiguousAuthorization "ambiguous_authorization" 401 40130 "The Authorization header could be meant for several MCP servers, so none of them got it."
        "Send the token for one server in x-mcp-{alias}-authorization, or call the server itself at /{server}/mcp.";
    NoServerAnswered "no_server_answered" 502 50240 "None of the MCP servers answered."
        "The reason of each is in data._meta of the error.";
    UpstreamRateLimited "upstream_rate_limited" 503 50340 "The MCP server says that it gets too many requests."
        "Try again later.";
    ServerResting "server_resting" 503 50341 "The MCP server failed a moment ago and was not waited for."
        "Use it all the same: a list or a call tries it again.";
    OpenTimeout "open_timeout" 504 50440 "The MCP server did not open a session in time."
        "Use it all the same: a list or a call tries it again. vestibule.limits.open_timeout is the limit.";
    NoPage "no_page" 404 40419 "The console has no such page."
        "Go to /ui and on from there.";
    OriginMismatch "origin_mismatch" 400 40025 "The gateway does not know the name by which your browser calls it."
        "Set PROXY_BASE_URL to that name, or let the gateway trust the forwarded headers of its proxy (use_x_forwarded_for, mcp_trusted_proxy_ranges).";
    FormUnreadable "form_unreadable" 400 40026 "The form cannot be read."
        "Go back, correct it, and send it again.";
    KeyNotYours "key_not_yours" 400 40080 "There is no such key that you may act as."
        "Choose one of the keys in the list. Admins may act as any key, others as their own.";
    ForeignForm "foreign_form" 403 40360 "The form does not come from a page of this gateway."
        "Open the console by its own address and do it there.";
    ConsoleClosed "console_closed" 403 40361 "The console is closed: the gateway has no master key, so it cannot tell who is there."
        "Set general_settings.master_key and start the gateway again.";
    TooManySignIns "too_many_sign_ins" 429 42940 "There were too many tries to sign in just now."
        "Wait a minute and try again.";
    AuditBusy "audit_busy" 429 42910 "The caller reads the record already: one read at a time, of which an export is one."
        "Come back after Retry-After, when the other read is over or broken off.";
    InvalidField "invalid_field" 400 40034 "A field of the request is unknown, missing, or has a value that it cannot have."
        "Correct the field that the message names; GET /openapi.json describes all of them.";
    FieldNotSupported "field_not_supported" 400 40035 "The field exists in LiteLLM and not here, and it says something."
        "Leave the field out, or empty.";
    UnknownName "unknown_name" 400 40036 "The permissions name MCP servers or groups that there are not."
        "Correct the names in object_permission, or add the servers first.";
    UnknownKey "unknown_key" 404 40408 "There is no such gateway key."
        "List the keys with GET /key/list.";
    UnknownUser "unknown_user" 404 40409 "There is no such user."
        "List the users with GET /user/list.";
    AliasTaken "alias_taken" 409 40901 "Another gateway key has this alias."
        "Choose another alias.";
    UserExists "user_exists" 409 40902 "There is a user with this id already."
        "Choose another id, or change the user with POST /user/update.";
    ChangedMeanwhile "changed_meanwhile" 409 40903 "What is to be changed keeps being changed by others."
        "Look at it again, and repeat the change if it is still wanted.";
    InvalidServer "invalid_server" 400 40010 "The MCP server cannot be configured so."
        "Correct the fields that problems names and send it again; nothing was changed.";
    BodyNotAnObject "body_not_an_object" 400 40011 "The body is not a JSON object."
        "Send one JSON object.";
    ServerNotFound "server_not_found" 404 40413 "No MCP server has this id."
        "GET /v1/mcp/server lists the servers with their ids.";
    RegistryDisabled "registry_disabled" 404 40414 "MCP registry is not enabled."
        "Set general_settings.enable_mcp_registry: true.";
    ServersFixed "servers_fixed" 403 40346 "The gateway takes no servers at run time."
        "Add the server to the configuration file, or drop general_settings.store_model_in_db: false.";
    FormOutdated "form_outdated" 409 40920 "Somebody else has changed it since the form was opened."
        "Compare what is there now with what you wrote, and save again.";
    ServerReadOnly "server_read_only" 409 40910 "The MCP server is configured in the configuration file."
        "Change it there; the gateway picks the change up.";
    ServerChanged "server_changed" 409 40911 "Somebody else has changed the MCP server."
        "Read it again, and send the change with its new version.";
    ServerTaken "server_taken" 409 40912 "There is an MCP server with this name or id."
        "Choose another name. Names do not differ by case.";
    ServerSealed "server_sealed" 409 40913 "What is kept of the MCP server cannot be opened with the gateway's keys."
        "Bring back the key that it was sealed with (`vestibule keys status` names it), or delete the server and add it anew.";
    Internal "internal" 500 50001 "The gateway failed."
        "Report the request id to whoever runs the gateway.";
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its code.
    pub code: ErrorCode,
    /// One sentence about this case. Never a secret, never a body of an identity provider.
    pub message: Cow<'static, str>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// A further header: `WWW-Authenticate`, `Allow`.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
    /// What an authorization server said (RFC 6749 section 5.2).
    pub oauth: Option<Box<ErrorResponse>>,
    /// A sign-in would help; the challenge says where.
    pub sign_in: Option<Box<Wanted>>,
    /// Everything that is wrong with what was sent, where that is known field by field.
    pub flaws: Box<[Flaw]>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Flaw {
    /// Which one; empty for the whole.
    pub field: String,
    /// A sentence without the field.
    pub message: String,
}

/// What a challenge asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The server's name.
    pub server: String,
    /// `error`, when a token was shown (RFC 6750 section 3.1).
    pub error: Option<&'static str>,
    /// `scope`, when it is known.
    pub scope: Option<String>,
    /// `realm`, where it is said.
    pub realm: Option<&'static str>,
    /// `claims`, in base64, where an authorization server wants some.
    pub claims: Option<String>,
    /// There is no metadata document to name.
    pub undocumented: bool,
    /// The server's id, where programs are told which server it is.
    pub server_id: Option<String>,
}

impl Refusal {
    /// With the code's own sentence.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            message: code.meaning().into(),
            retry_after: None,
            header: None,
            oauth: None,
            sign_in: None,
            flaws: Box::default(),
        }
    }

    /// With a sentence about this case.
    pub fn because(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
            ..Self::new(code)
        }
    }

    /// With a further header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// With a challenge to come, once it is known by what name the gateway was called.
    #[must_use]
    pub fn with_sign_in(mut self, wanted: Wanted) -> Self {
        self.sign_in = Some(Box::new(wanted));
        self
    }

    /// What the reader sees first: the sentence and the next step.
    fn text(&self) -> String {
        format!("{} {}", self.message, self.code.next_step())
    }

    /// `{"error": {…}}`, for everything that is not a JSON-RPC request.
    pub fn plain_json(&self, id: RequestId) -> serde_json::Value {
        let mut error = self.data(id);
        error["message"] = json!(self.message);
        json!({"error": error})
    }

    /// [`Refusal::plain_json`] as a response.
    pub fn into_plain(self, id: RequestId) -> Response<Body> {
        let body = self.plain_json(id).to_string();
        self.into_response(body, id)
    }

    /// A JSON-RPC error for the request `rpc`; without one, an error without an id.
    pub fn into_json_rpc(self, rpc: Option<&vestibule_mcp::RequestId>, id: RequestId) -> Response<Body> {
        let data = self.data(id);
        self.json_rpc(rpc, id, &data)
    }

    fn json_rpc(
        self,
        rpc: Option<&vestibule_mcp::RequestId>,
        id: RequestId,
        data: &serde_json::Value,
    ) -> Response<Body> {
        let error = json!({"code": self.code.rpc(), "message": self.text(), "data": data});
        // The id goes back as it was written: a number may have more digits than any type of ours.
        let body = match rpc {
            Some(rpc) => format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, rpc.as_json()),
            None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
        };
        self.into_response(body, id)
    }

    /// [`Refusal::into_json_rpc`], with `_meta` in the error's data.
    pub fn into_json_rpc_with(
        self,
        rpc: Option<&vestibule_mcp::RequestId>,
        id: RequestId,
        meta: &serde_json::Value,
    ) -> Response<Body> {
        let mut data = self.data(id);
        data["_meta"] = meta.clone();
        self.json_rpc(rpc, id, &data)
    }

    /// LiteLLM's shape of `/mcp-rest` errors, with ours beside it.
    pub fn into_rest(self, id: RequestId) -> Response<Body> {
        let mut detail = json!({
            "error": self.code.name(),
            "message": self.text(),
            "request_id": id.as_str(),
        });
        self.name_server(&mut detail);
        self.into_response(json!({"detail": detail}).to_string(), id)
    }

    fn name_server(&self, document: &mut serde_json::Value) {
        if let Some(wanted) = &self.sign_in
            && let Some(id) = &wanted.server_id
        {
            document["server_id"] = json!(id);
            document["server_name"] = json!(wanted.server);
        }
    }

    /// For programs: the code, and what an authorization server said.
    fn data(&self, id: RequestId) -> serde_json::Value {
        let mut data = json!({
            "code": self.code.name(),
            "next_step": self.code.next_step(),
            "request_id": id.as_str(),
        });
        self.name_server(&mut data);
        if !self.flaws.is_empty() {
            data["problems"] = json!(self.flaws);
        }
        if let Some(oauth) = &self.oauth {
            data["oauth_error"] = json!(oauth.error);
            if let Some(description) = &oauth.description {
                data["oauth_error_description"] = json!(description);
            }
        }
        data
    }

    fn into_response(self, body: String, id: RequestId) -> Response<Body> {
        note::refused(&self);
        let mut response = no_store(self.code.status(), body);
        let headers = response.headers_mut();
        headers.insert("x-request-id", id.header());
        if let Some(after) = self.retry_after {
            // Rounded up: who comes back on the second is not early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        response
    }
}

/// Ends the next steps of failures that `vestibule doctor` looks into.
const DOCTOR: &str = " `vestibule doctor SERVER` says what to change.";

impl ErrorCode {
    /// The next step for whoever has asked `vestibule doctor` already.
    pub fn remedy(self) -> &'static str {
        let step = self.next_step();
        step.strip_suffix(DOCTOR).unwrap_or(step)
    }
}

/// Text of somebody else's for a message: at most `limit` characters, and none that could start a line or turn
/// the direction of reading. The one road by which foreign text gets into answers and logs.
pub fn shown(text: &str, limit: usize) -> String {
    let marks = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut plain = text.chars().filter(|c| !c.is_control() && !marks(*c));
    let mut shown: String = plain.by_ref().take(limit).collect();
    if plain.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// `docs/errors.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         <!-- Made from crates/gateway/src/web/error.rs. `UPDATE=1 cargo test -p vestibule error_codes` writes it. -->\n\n\
         Every refusal carries its code, a sentence, the next step and a request id, which finds the line in the\n\
         gateway's log and stands in `x-request-id`. On an MCP route the answer to a request is a JSON-RPC error\n\
         with the number below and `data.code`, and `tool_not_allowed` and `parameter_not_allowed` come with status\n\
         200 there, since to clients a 403 is about their authorization; elsewhere it is `{\"error\": {\"code\", \"message\", \"next_step\",\n\
         \"request_id\"}}`, and under `/mcp-rest` it is `{\"detail\": {\"error\", \"message\", \"request_id\"}}`.\n\n\
         An exception: what cannot be read as a request is answered without a body and an id, though its line in\n\
         the log has both code and id. Those answers are 400 (`malformed_request`), and 414 or 431\n\
         (`headers_too_large`) for a head of more than 128 lines or more than twice `max_header_bytes`.\n\n\
         | code | HTTP | JSON-RPC | meaning | next step |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let row = format!(
            "| `{}` | {} | {} | {} | {} |\n",
            code.name(),
            code.status().as_u16(),
            code.rpc(),
            code.meaning(),
            code.next_step()
        );
        page.push_str(&row);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn error_codes_are_distinct_and_outside_the_reserved_range() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert!(!(-32768..=-32000).contains(&code.rpc()));
            assert_eq!(
                code.rpc() / 100,
                i64::from(code.status().as_u16()),
                "{}",
                code.name()
            );
            for other in &ErrorCode::ALL[..index] {
                assert!(
                    other.name() != code.name() && other.rpc() != code.rpc(),
                    "{}",
                    code.name()
                );
            }
        }
    }

    #[test]
    fn what_doctor_looks_into_names_it() {
        let named = |code: &&ErrorCode| code.next_step().contains("vestibule doctor");
        let named: Vec<_> = ErrorCode::ALL.iter().filter(named).collect();
        assert_eq!(named.len(), 13);
        for code in named {
            assert!(code.next_step().ends_with(DOCTOR), "{}", code.name());
            assert!(!code.remedy().contains("vestibule doctor") && !code.remedy().is_empty());
        }
    }

    #[test]
    fn foreign_text_is_short_and_on_one_line() {
        assert_eq!(shown("a\r\nb\u{2028}c\u{202e}d\u{1b}[31m", 20), "abcd[31m");
        assert_eq!(
            (shown("12345", 5), shown("123456", 5)),
            ("12345".into(), "12345...".into())
        );
    }

    #[test]
    fn retry_after_is_never_too_early() {
        for (milliseconds, seconds) in [(0, "1"), (200, "1"), (1000, "1"), (1001, "2"), (29_900, "30")] {
            let mut refusal = Refusal::new(ErrorCode::TokenRefused);
            refusal.retry_after = Some(Duration::from_millis(milliseconds));
            let response = refusal.into_plain(crate::ids::RequestIds::new().next());
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds, "{milliseconds}");
        }
    }

    #[test]
    fn error_codes_page_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, reference()).expect("writable");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == reference(),
            "docs/errors.md is stale; run UPDATE=1 cargo test -p vestibule error_codes"
        );
    }
}

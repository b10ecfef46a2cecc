//! The management of servers as JSON, at LiteLLM's addresses.

use super::health::{self, HealthRow};
use super::people::{self, ConnectedRow};
use super::trial::{self, Preview};
use super::view::ServerRow;
use crate::config;
use crate::http::admin::api::{Answer, Call, Input, Media, Nothing, Operation, Who};
use crate::http::relay::rest::{self, ToolList};
use crate::http::relay::upstream_client::Caller;
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, Method, StatusCode, header};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;

type Result<T> = std::result::Result<T, Refusal>;

/// The operations, and who may ask for them.
pub(crate) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/mcp/server";
    const ONE: &str = "/v1/mcp/server/{server_id}";
    let (get, post) = (Method::GET, Method::POST);
    vec![
        Operation::new(
            get.clone(),
            ALL,
            Who::AnyKey,
            "List the servers that the caller may use; for admins all of them.",
            list,
        ),
        Operation::new(post.clone(), ALL, Who::Admin, "Add a server.", create),
        Operation::new(
            Method::PUT,
            ALL,
            Who::Admin,
            "Change a server. What is left out stays, null takes away; version, or If-Match, names the writing that the \
             change goes out from.",
            update,
        ),
        Operation::new(
            get.clone(),
            "/v1/mcp/server/health",
            Who::AnyKey,
            "Look at servers: at these, or at all that the caller may use.",
            looked_at,
        ),
        Operation::new(
            get.clone(),
            ONE,
            Who::AnyKey,
            "Show a server, by id or name, and look at it.",
            one,
        ),
        Operation::new(
            Method::DELETE,
            ONE,
            Who::Admin,
            "Delete a server with what people signed in for.",
            remove,
        ),
        Operation::new(
            get,
            "/v1/mcp/server/{server_id}/user-credentials",
            Who::Admin,
            "Who is connected to a server.",
            connected,
        ),
        Operation::new(
            post.clone(),
            "/v1/mcp/server/oauth/session",
            Who::Admin,
            "Have a server for five minutes, so that somebody can sign in to it before it is saved.",
            begin_trial,
        ),
        Operation::new(
            post.clone(),
            "/mcp-rest/test/connection",
            Who::Admin,
            "Try whether a server opens a session, before it is saved.",
            test_connection,
        ),
        Operation::new(
            post,
            "/mcp-rest/test/tools/list",
            Who::Admin,
            "Try what tools a server has, before it is saved.",
            test_tools,
        ),
    ]
}

/// A server's fields, in LiteLLM's words or in those of `mcp_servers`. They are judged as the configuration's are.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Fields(Map<String, Value>);

impl JsonSchema for Fields {
    fn schema_name() -> Cow<'static, str> {
        "ServerFields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(config::Change::schema()).unwrap_or_default()
    }
}

/// A server to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("anyOf" = [{"required": ["server_name"]}, {"required": ["alias"]}]))]
struct NewServer(Fields);

impl Input for NewServer {}

/// What becomes of a server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("required" = ["server_id"]))]
struct ServerChange(Fields);

impl Input for ServerChange {}

/// A server to be tried; of a saved one that it names, what it leaves out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct TriedServer(Fields);

impl Input for TriedServer {}

/// Whose servers; this gateway has no teams.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhichServers {}

impl Input for WhichServers {
    const FOREIGN: &'static [&'static [&'static str]] = &[&["team_id", "user_id"]];
}

/// Which servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LookedAt {
    /// Those with these ids; without one all.
    #[serde(default)]
    server_ids: Vec<String>,
}

impl Input for LookedAt {}

impl Answer for ServerRow {}

/// A server that was added.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
struct AddedServer(ServerRow);

impl Answer for AddedServer {
    const STATUS: StatusCode = StatusCode::CREATED;
}

/// A server that was changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
struct ChangedServer(ServerRow);

impl Answer for ChangedServer {
    const STATUS: StatusCode = StatusCode::ACCEPTED;
}

/// A server was deleted.
#[derive(Debug, Serialize, JsonSchema)]
struct DeletedServer;

impl Answer for DeletedServer {
    const STATUS: StatusCode = StatusCode::ACCEPTED;
    const MEDIA: Media = Media::Nothing;
}

impl Answer for HealthRow {}
impl Answer for ConnectedRow {}

/// What came of a trial.
#[derive(Debug, Serialize, JsonSchema)]
struct TriedConnection {
    /// `ok` or `error`.
    status: &'static str,
    error: bool,
    message: String,
    /// The code of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The step that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
}

impl Answer for TriedConnection {}

/// The tools of a server that is tried.
#[derive(Debug, Serialize, JsonSchema)]
struct TriedTools {
    #[serde(flatten)]
    list: ToolList,
    /// The step that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
}

impl Answer for TriedTools {}

async fn list(call: Call, _: WhichServers) -> Result<Vec<ServerRow>> {
    let views = super::list(&call.worker, call.asker()).await?;
    Ok(views.into_iter().map(ServerRow::from).collect())
}

async fn one(call: Call, _: Nothing) -> Result<ServerRow> {
    let view = super::get(&call.worker, call.asker(), call.in_path("server_id")).await?;
    Ok(view.into())
}

async fn create(call: Call, NewServer(Fields(fields)): NewServer) -> Result<AddedServer> {
    let view = super::create(&call.worker, &call.actor(), fields, call.id).await?;
    Ok(AddedServer(view.into()))
}

async fn update(call: Call, ServerChange(Fields(fields)): ServerChange) -> Result<ChangedServer> {
    let version = if_match(&call.parts.headers)?;
    let view = super::update(&call.worker, &call.actor(), fields, version, call.id).await?;
    Ok(ChangedServer(view.into()))
}

async fn remove(call: Call, _: Nothing) -> Result<DeletedServer> {
    let server = call.in_path("server_id");
    super::delete(&call.worker, &call.actor(), server, call.id).await?;
    Ok(DeletedServer)
}

async fn looked_at(call: Call, asked: LookedAt) -> Result<Vec<HealthRow>> {
    health::list(&call.worker, call.asker(), &asked.server_ids).await
}

async fn connected(call: Call, _: Nothing) -> Result<Vec<ConnectedRow>> {
    let (server, people) = people::connected(&call.worker, call.in_path("server_id")).await?;
    let now = call.worker.app.clock.unix_seconds();
    Ok(people.into_iter().map(|one| one.row(&server, now)).collect())
}

async fn begin_trial(call: Call, TriedServer(Fields(fields)): TriedServer) -> Result<ServerRow> {
    let view = trial::begin(&call.worker, &call.actor(), fields, call.id).await?;
    Ok(view.into())
}

/// LiteLLM answers 200 whatever comes of it.
async fn test_connection(call: Call, tried: TriedServer) -> Result<TriedConnection> {
    let (caller, preview) = prepared(call, tried).await?;
    let opened = health::opens(&caller, &preview.server).await;
    Ok(match opened.map_err(health::fault_of) {
        Ok(()) => TriedConnection {
            status: "ok",
            error: false,
            message: "The server opened a session.".into(),
            code: None,
            step: None,
        },
        Err(fault) => TriedConnection {
            status: "error",
            error: true,
            message: fault.message,
            code: Some(fault.code.name()),
            step: Some(fault.step.name()),
        },
    })
}

async fn test_tools(call: Call, tried: TriedServer) -> Result<TriedTools> {
    let (caller, preview) = prepared(call, tried).await?;
    let tools = rest::tools_tried(&caller, &preview.server).await;
    Ok(match tools.map_err(health::fault_of) {
        Ok(list) => TriedTools { list, step: None },
        Err(fault) => TriedTools {
            list: ToolList {
                tools: Vec::new(),
                error: Some(fault.code.name().to_owned()),
                message: fault.message,
                server_outcomes: None,
            },
            step: Some(fault.step.name()),
        },
    })
}

/// What a form says, to be tried with what the caller shows for the server.
async fn prepared(call: Call, TriedServer(Fields(fields)): TriedServer) -> Result<(Caller, Preview)> {
    let preview = trial::preview(&call.worker, fields).await?;
    let admission = Arc::new(call.admission);
    let caller = Caller::new(&preview.worker, &admission, &call.parts.headers).without_mirrored();
    Ok((caller, preview))
}

/// The version that `If-Match` names.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.trim_matches('"').parse();
    // What is no version of ours is not the last one.
    version
        .map(Some)
        .map_err(|_| Refusal::new(ErrorCode::ServerChanged))
}

//! `/mcp-rest`: tools listed and called with plain HTTP and JSON, for scripts. Tool names are the servers' own.

use super::forward::Bearer;
use super::upstream_client::{Caller, Hello, UpstreamClient};
use super::{challenged, listed_in_time, read_body};
use crate::app::Worker;
use crate::audit::note;
use crate::http::admin::api::{Nothing, queried};
use crate::http::router::{id_of, peer_of};
use crate::ids::RequestId;
use crate::policy::access;
use crate::policy::tools::Rules;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::body::Body;
use axum::extract::State;
use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use url::form_urlencoded;
use vestibule_mcp::naming;
use vestibule_mcp::raw::{quoted, replaced};

/// The most pages of one list, and the most bytes of all of them.
const MAX_PAGES: usize = 1000;
const MAX_LIST: usize = 16 * 1024 * 1024;

/// As much of a tool's name as a message repeats.
const NAME_SHOWN: usize = 100;

/// The most tools of one server.
const MAX_TOOLS: usize = 10_000;

/// A tool of a list.
pub(super) struct Tool {
    name: String,
    /// As the server wrote it, with `mcp_info` as LiteLLM gives it.
    pub(super) json: String,
}

impl Tool {
    /// By its name at endpoints with several servers.
    fn prefixed(&self, server: &Server) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Item<'i> {
            #[serde(borrow)]
            name: &'i RawValue,
        }
        let item: Item<'_> = serde_json::from_str(&self.json).ok()?;
        let name = naming::served(&server.prefix, &self.name);
        let json = replaced(&self.json, item.name.get(), &quoted(&name));
        Some(Self { name, json })
    }
}

/// Tools, as answers have them.
#[derive(Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct ToolList {
    /// As the servers describe them, with `mcp_info`.
    pub(crate) tools: Vec<Value>,
    /// What went wrong, where something did.
    pub(crate) error: Option<String>,
    pub(crate) message: String,
    /// What became of each server, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_outcomes: Option<Map<String, Value>>,
}

/// `GET /mcp-rest/tools/list`, of one server (`server_id`) or of all.
pub(crate) async fn list(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    note::call();
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let wanted = parts.uri.query().and_then(|query| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, value)| name == "server_id" && !value.is_empty())
            .map(|(_, value)| value.into_owned())
    });
    let result = async {
        let admission = Arc::new(worker.app.gate.admit(&parts.headers)?);
        note::admitted(&worker.app, &admission);
        let caller = Caller::new(&worker, &admission, &parts.headers).without_mirrored();
        match wanted {
            Some(wanted) => {
                let server = find(&worker, &parts, &wanted)?;
                note::server(server);
                let (_, tools) = tools_of(&caller, server, Bearer::ForThisServer).await?;
                Ok(listing(&tools, None, None))
            }
            None => Ok(list_all(&caller, &parts, id, Named::AsTheServersDo).await),
        }
    }
    .await;
    answer(&worker, result, &parts, id)
}

/// `GET /v1/mcp/tools`: those of every server, by the names that they have at endpoints with several.
pub(crate) async fn list_prefixed(
    State(worker): State<Arc<Worker>>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let admission = Arc::new(worker.app.gate.admit(&parts.headers)?);
        note::admitted(&worker.app, &admission);
        queried::<Nothing>(&parts)?;
        let caller = Caller::new(&worker, &admission, &parts.headers).without_mirrored();
        Ok(list_all(&caller, &parts, id, Named::WithPrefixes).await)
    }
    .await;
    answer(&worker, result, &parts, id)
}

/// The tools of a server that is only tried.
pub(crate) async fn tools_tried(caller: &Caller, server: &Arc<Server>) -> Result<ToolList, Refusal> {
    let (_, tools) = tools_of(caller, server, Bearer::ForThisServer).await?;
    let listing = listing(&tools, None, None).body;
    serde_json::from_str(&listing).map_err(|_| Refusal::new(ErrorCode::UpstreamNotMcp))
}

/// By which names tools are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    AsTheServersDo,
    WithPrefixes,
}

/// What every server has. One that fails is named; an empty list never hides an error.
async fn list_all(caller: &Caller, parts: &Parts, id: RequestId, named: Named) -> Reply {
    let worker = &caller.worker;
    let servers = worker
        .app
        .servers_for(&parts.headers, peer_of(parts))
        .servers_of(&caller.admission);
    let lists = servers.iter().map(|server| {
        let tools = tools_of(caller, server, Bearer::Withheld);
        note::of_server(server, tools)
    });
    let lists = join_all(lists).await;
    let mut tools = Vec::new();
    let mut outcomes = Map::new();
    let mut failures = Vec::new();
    let mut status = StatusCode::BAD_GATEWAY;
    for (server, list) in servers.iter().zip(lists) {
        let outcome = match list {
            Ok((_, list)) => {
                let outcome = json!({"status": "ok", "tool_count": list.len()});
                match named {
                    Named::AsTheServersDo => tools.extend(list),
                    Named::WithPrefixes => tools.extend(list.iter().filter_map(|tool| tool.prefixed(server))),
                }
                outcome
            }
            Err(refusal) => {
                let refusal = worker.refuse(refusal, Some(server), id);
                status = refusal.code.status();
                failures.push(format!("{}: {}", server.name, refusal.message));
                json!({"status": refusal.code.name(), "message": refusal.message})
            }
        };
        outcomes.insert(server.name.clone(), outcome);
    }
    let error = (!failures.is_empty() && failures.len() == servers.len())
        .then(|| format!("Failed to get tools from servers: {}", failures.join("; ")));
    let failed = error.is_some();
    let mut reply = listing(&tools, Some(outcomes), error);
    if failed {
        reply.status = status;
    }
    reply
}

fn listing(tools: &[Tool], outcomes: Option<Map<String, Value>>, error: Option<String>) -> Reply {
    let mut rest = json!({
        "error": error.as_ref().map(|_| "partial_failure"),
        "message": error.unwrap_or_else(|| "Successfully retrieved tools".into()),
    });
    if let Some(outcomes) = outcomes {
        rest["server_outcomes"] = outcomes.into();
    }
    let rest = rest.to_string();
    let length = tools.iter().map(|tool| tool.json.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(length + rest.len() + 16);
    body.push_str("{\"tools\":[");
    for (index, tool) in tools.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&tool.json);
    }
    body.push_str("],");
    body.push_str(&rest[1..]);
    Reply {
        status: StatusCode::OK,
        body,
    }
}

#[derive(serde::Deserialize)]
struct CallRequest {
    #[serde(default)]
    server_id: Option<String>,
    name: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

/// `POST /mcp-rest/tools/call`. Without `server_id` the tool must be of exactly one server.
pub(crate) async fn call(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    note::call();
    let id = id_of(&request, &worker);
    let (parts, body) = request.into_parts();
    let result = async {
        let admission = Arc::new(worker.app.gate.admit(&parts.headers)?);
        note::admitted(&worker.app, &admission);
        let caller = Caller::new(&worker, &admission, &parts.headers).without_mirrored();
        let limits = &worker.app.limits;
        let body = read_body(body, limits.max_body_bytes, limits.body_timeout).await?;
        let call = parsed(&body)?;
        let arguments = call.arguments.as_deref();
        note::tool_call(&call.name, arguments.map(RawValue::get));
        let wanted = call.server_id.as_deref().filter(|wanted| !wanted.is_empty());
        let (server, client, name) = if let Some(wanted) = wanted {
            let server = find(&worker, &parts, wanted)?;
            note::server(server);
            // Where the name has no prefix to be settled, a refusal asks the server nothing.
            if own_name(server, &call.name) == call.name {
                access::permit(&admission, server)?.judge_call(&call.name, arguments)?;
            }
            let client = opened(&caller, server, Bearer::ForThisServer).await?;
            let name = name_there(&caller, &client, server, &call.name).await?;
            (server, client, name)
        } else {
            owner(&caller, &parts, &call.name, id).await?
        };
        note::tool(server, name);
        access::permit(&admission, server)?.judge_call(name, arguments)?;
        let mut params = json!({"name": name});
        if call.arguments.is_none() {
            params["arguments"] = json!({});
        }
        let result = client.request("tools/call", params, arguments).await?;
        note::result(result.get());
        Ok(Reply {
            status: StatusCode::OK,
            body: result.get().to_owned(),
        })
    }
    .await;
    answer(&worker, result, &parts, id)
}

fn parsed(body: &[u8]) -> Result<CallRequest, Refusal> {
    let missing = |what| Refusal::because(ErrorCode::MissingParameter, what);
    // serde's own text would repeat what was sent.
    let call: CallRequest = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            missing("The request body is not an object with name, and perhaps arguments and server_id.")
        }
        _ => missing("The request body is not JSON."),
    })?;
    match call.arguments.as_deref().map(|raw| raw.get().as_bytes().first()) {
        _ if call.name.is_empty() => Err(missing("name is empty.")),
        Some(Some(b'{' | b'n')) | None => Ok(call),
        _ => Err(missing("arguments takes a JSON object.")),
    }
}

fn find<'w>(worker: &'w Worker, parts: &Parts, wanted: &str) -> Result<&'w Arc<Server>, Refusal> {
    worker
        .app
        .servers_for(&parts.headers, peer_of(parts))
        .by_id_or_name(wanted)
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownServer))
}

/// The tool's name at the one server that was asked. `{server}-{tool}` is the tool, unless the server has a tool
/// that is really called so.
async fn name_there<'n>(
    caller: &Caller,
    client: &UpstreamClient,
    server: &Server,
    name: &'n str,
) -> Result<&'n str, Refusal> {
    let own = own_name(server, name);
    if own == name {
        return Ok(name);
    }
    let rules = access::permit(&caller.admission, server)?;
    let tools = listed_in_time(&caller.worker, server, all_pages(client, server, &rules)).await?;
    Ok(if has(&tools, name) { name } else { own })
}

/// The one server that has the tool `name`, and the tool's name there. `{server}-{tool}` names the server too.
/// While a server is silent nobody knows whether a bare name is its tool's as well.
async fn owner<'w, 'n>(
    caller: &'w Caller,
    parts: &Parts,
    name: &'n str,
    id: RequestId,
) -> Result<(&'w Arc<Server>, UpstreamClient, &'n str), Refusal> {
    let worker = &caller.worker;
    let servers = worker
        .app
        .servers_for(&parts.headers, peer_of(parts))
        .servers_of(&caller.admission);
    let lists = servers
        .iter()
        .map(|server| note::apart(tools_of(caller, server, Bearer::Withheld)));
    let lists = join_all(lists).await;
    let mut owners = Vec::new();
    let mut failures = Vec::new();
    for (&server, list) in servers.iter().zip(lists) {
        match list {
            Ok((client, tools)) => {
                let own = own_name(server, name);
                if has(&tools, name) {
                    owners.push((server, client, name));
                } else if own != name && has(&tools, own) {
                    owners.push((server, client, own));
                }
            }
            Err(refusal) => failures.push((server, refusal)),
        }
    }
    let asked_for = shown(name, NAME_SHOWN);
    let silent = failures
        .iter()
        .map(|(server, refusal)| format!("{}: {}", server.name, refusal.message))
        .collect::<Vec<_>>()
        .join("; ");
    let sure = |own: &str| failures.is_empty() || own != name;
    match &owners[..] {
        [(_, _, own)] if sure(own) => {
            for (server, refusal) in failures {
                worker.refuse(refusal, Some(server), id);
            }
            owners.pop().ok_or_else(|| Refusal::new(ErrorCode::UnknownTool))
        }
        [(server, ..)] => {
            let message = format!(
                "{} has a tool named {asked_for}, and it is not known who else has: {silent}",
                server.name
            );
            Err(Refusal::because(ErrorCode::AmbiguousTool, message))
        }
        [] if failures.is_empty() => Err(Refusal::because(
            ErrorCode::UnknownTool,
            format!("No MCP server has a tool named {asked_for}."),
        )),
        [] if servers.len() == 1 => Err(failures.remove(0).1),
        [] => {
            let message = format!(
                "No MCP server that answered has a tool named {asked_for}. These did not answer: {silent}"
            );
            Err(Refusal::because(ErrorCode::UnknownTool, message))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(server, ..)| server.name.as_str()).collect();
            let message = format!(
                "Several MCP servers have a tool named {asked_for}: {}.",
                names.join(", ")
            );
            Err(Refusal::because(ErrorCode::AmbiguousTool, message))
        }
    }
}

fn has(tools: &[Tool], wanted: &str) -> bool {
    tools.iter().any(|tool| tool.name == wanted)
}

/// A tool's name without the server's before it.
fn own_name<'n>(server: &Server, name: &'n str) -> &'n str {
    let prefixes = [
        server.alias.as_deref(),
        Some(server.name.as_str()),
        Some(server.id.as_str()),
    ];
    prefixes
        .into_iter()
        .flatten()
        .find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('-'))
        .unwrap_or(name)
}

/// A server's tools, within the time that a listing has, and the conversation that they came from.
pub(super) async fn tools_of(
    caller: &Caller,
    server: &Arc<Server>,
    bearer: Bearer,
) -> Result<(UpstreamClient, Vec<Tool>), Refusal> {
    let listing = async {
        let client = opened(caller, server, bearer).await?;
        let rules = access::permit(&caller.admission, server)?;
        let tools = all_pages(&client, server, &rules).await?;
        Ok((client, tools))
    };
    listed_in_time(&caller.worker, server, listing).await
}

async fn opened(caller: &Caller, server: &Arc<Server>, bearer: Bearer) -> Result<UpstreamClient, Refusal> {
    let (client, _) = UpstreamClient::open(caller, server, bearer, &Hello::default()).await?;
    Ok(client)
}

async fn all_pages(client: &UpstreamClient, server: &Server, rules: &Rules) -> Result<Vec<Tool>, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page<'p> {
        #[serde(borrow)]
        tools: &'p RawValue,
        #[serde(default)]
        next_cursor: Option<String>,
    }
    let too_large = || {
        let message = format!("The tool list of the MCP server {} is too large.", server.name);
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    };
    let no_list = |_| {
        let message = format!("The tool list of the MCP server {} is not one.", server.name);
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    };
    let mut reader = ToolReader::of(server, rules.clone());
    let mut cursor: Option<String> = None;
    let mut bytes = 0;
    for _ in 0..MAX_PAGES {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
        let result = client.request("tools/list", params, None).await?;
        bytes += result.get().len();
        if bytes > MAX_LIST {
            return Err(too_large());
        }
        let page: Page<'_> = serde_json::from_str(result.get()).map_err(no_list)?;
        serde_json::Deserializer::from_str(page.tools.get())
            .deserialize_seq(&mut reader)
            .map_err(no_list)?;
        if reader.tools.len() > MAX_TOOLS {
            return Err(too_large());
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(reader.tools);
        }
    }
    let message = format!("The tool list of the MCP server {} does not end.", server.name);
    Err(Refusal::because(ErrorCode::UpstreamNotMcp, message))
}

/// Reads the items of tool lists one by one: what is kept is their text. A list of many small things would be many
/// times as large as values.
struct ToolReader {
    rules: Rules,
    /// `mcp_info`, as LiteLLM gives it.
    info: String,
    tools: Vec<Tool>,
}

impl ToolReader {
    /// For a caller with these rules.
    fn of(server: &Server, rules: Rules) -> Self {
        let mut info = server.info.clone();
        info.insert("server_id".into(), server.id.clone().into());
        info.insert("alias".into(), server.alias.clone().into());
        Self {
            rules,
            info: Value::from(info).to_string(),
            tools: Vec::new(),
        }
    }

    /// The tool of an item. `None` for what nobody could call, or whose name or `mcp_info` stands twice, and for what
    /// is hidden.
    fn tool(&self, item: &RawValue) -> Option<Tool> {
        #[derive(serde::Deserialize)]
        struct Item<'i> {
            #[serde(borrow)]
            name: Cow<'i, str>,
            #[serde(borrow, default, deserialize_with = "there")]
            mcp_info: Option<&'i RawValue>,
        }
        // `null` is there too.
        fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
            <&RawValue>::deserialize(deserializer).map(Some)
        }
        // A derived reader would take a list as well.
        let open = item.get().strip_prefix('{')?.strip_suffix('}')?;
        let Item { name, mcp_info } = serde_json::from_str(item.get()).ok()?;
        self.rules.permit(&name).then(|| Tool {
            name: name.into_owned(),
            json: match mcp_info {
                Some(of_the_server) => replaced(item.get(), of_the_server.get(), &self.info),
                None => format!("{{{open},\"mcp_info\":{}}}", self.info),
            },
        })
    }
}

impl<'de> Visitor<'de> for &mut ToolReader {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of tools")
    }

    /// Stops keeping at one more than there may be.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            if self.tools.len() <= MAX_TOOLS
                && let Some(tool) = self.tool(item)
            {
                self.tools.push(tool);
            }
        }
        Ok(())
    }
}

struct Reply {
    status: StatusCode,
    body: String,
}

fn answer(worker: &Worker, result: Result<Reply, Refusal>, parts: &Parts, id: RequestId) -> Response<Body> {
    match result {
        Ok(reply) => {
            let mut response = Response::new(Body::from(reply.body));
            *response.status_mut() = reply.status;
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(refusal) => {
            let refusal = challenged(worker, refusal, parts, peer_of(parts), None);
            worker.refuse(refusal, None, id).into_rest(id).map(Body::new)
        }
    }
}

//! Lists of several servers as one: asked in parallel, each within its time, each item as it came but for its name.
//! A page of ours is one page of each server that has more.

use super::handshake;
use super::outcome::{self, OUTCOMES};
use super::{Context, Stop, part};
use crate::digest::sha256_of_parts;
use crate::http::relay::listed_in_time;
use crate::http::relay::upstream_client::{ANSWER_LIMIT, Fault, RpcError, UpstreamClient};
use crate::policy::access;
use crate::policy::tools::Rules;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use futures_util::future::join_all;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use vestibule_mcp::members::{Members, text};
use vestibule_mcp::naming;
use vestibule_mcp::raw::{quoted, replaced};

/// The most pages of one server's list.
const MAX_PAGES: u32 = 1000;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl Kind {
    /// The kind that a method lists.
    pub(super) fn of(method: &str) -> Option<Self> {
        [Self::Tools, Self::Prompts, Self::Resources, Self::Templates]
            .into_iter()
            .find(|kind| kind.method() == method)
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of the result that has the items.
    fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an item that a request refers to.
    fn handle(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The name that is served.
    fn served(self, server: &Server, name: &str) -> String {
        match self {
            Self::Tools | Self::Prompts => naming::served(&server.prefix, name),
            // Nobody refers to a resource by its name, so it is only marked.
            Self::Resources | Self::Templates => format!("{}-{name}", server.prefix),
        }
    }
}

/// Where each server is in a list.
#[derive(Serialize, Deserialize)]
struct Cursor {
    #[serde(rename = "p")]
    page: u32,
    #[serde(rename = "s")]
    servers: BTreeMap<String, String>,
}

/// One page of one server.
#[derive(Default)]
struct Page {
    items: Vec<String>,
    skipped: usize,
    next: Option<String>,
}

/// The result of a list request, as JSON.
pub(super) async fn list(ctx: &Context, kind: Kind, cursor: Option<&str>) -> Result<String, Stop> {
    let place = match cursor {
        None => None,
        Some(text) => Some(opened(ctx, kind, text)?),
    };
    let asked: Vec<&Arc<Server>> = match &place {
        None => ctx.scope.servers.iter().collect(),
        Some(place) => {
            let servers = ctx.scope.servers.iter();
            servers
                .filter(|server| place.servers.contains_key(&server.id))
                .collect()
        }
    };
    ctx.concerns(asked.iter().copied());
    let pages = join_all(asked.iter().map(|server| {
        let cursor = place.as_ref().and_then(|place| place.servers.get(&server.id));
        let page = page(ctx, server, kind, cursor.map(String::as_str));
        part(ctx, server, in_time(ctx, server, page))
    }))
    .await;
    let mut items = Vec::new();
    let mut outcomes = Map::new();
    let mut failures = Vec::new();
    let mut next = Cursor {
        page: place.map_or(1, |place| place.page + 1),
        servers: BTreeMap::new(),
    };
    for (server, page) in asked.iter().zip(pages) {
        let page = page.and_then(|page| match page.next {
            Some(_) if next.page >= MAX_PAGES => Err(not_a_list(server, kind, "does not end")),
            _ => Ok(page),
        });
        match page {
            Ok(page) => {
                outcomes.insert(server.name.clone(), outcome::ok(page.items.len(), page.skipped));
                items.extend(page.items);
                if let Some(cursor) = page.next {
                    next.servers.insert(server.id.clone(), cursor);
                }
            }
            Err(refusal) => {
                handshake::doubt(ctx, server);
                let refusal = ctx.judged(server, refusal);
                outcomes.insert(server.name.clone(), outcome::failed(ctx, server, &refusal));
                failures.push((Arc::clone(server), refusal));
            }
        }
    }
    outcome::unknown(ctx, &mut outcomes);
    if !failures.is_empty() && failures.len() == asked.len() {
        return Err(nobody(ctx, failures, outcomes));
    }
    outcome::tell(ctx, &failures);
    let next = sealed(ctx, kind, &next, &mut outcomes)?;
    Ok(result(ctx, kind, &items, next, &outcomes))
}

/// No server answered. One that wants a sign-in says so itself, if it is the only one.
pub(super) fn nobody(
    ctx: &Context,
    mut failures: Vec<(Arc<Server>, Refusal)>,
    outcomes: Map<String, Value>,
) -> Stop {
    if failures.len() == 1 {
        let (server, refusal) = failures.remove(0);
        return Stop::of(&server, refusal);
    }
    outcome::tell(ctx, &failures);
    let reasons = failures
        .iter()
        .map(|(server, refusal)| format!("{}: {}", server.name, refusal.message));
    let reasons: Vec<String> = reasons.collect();
    let message = format!("No MCP server answered. {}", reasons.join(" "));
    Stop::Outcomes(
        Box::new(Refusal::because(ErrorCode::NoServerAnswered, message)),
        outcomes,
    )
}

fn result(
    ctx: &Context,
    kind: Kind,
    items: &[String],
    next: Option<String>,
    outcomes: &Map<String, Value>,
) -> String {
    let mut more = Vec::new();
    if let Some(next) = next {
        more.push(("nextCursor", quoted(&next)));
    }
    if ctx.modern {
        more.push(("resultType", quoted("complete")));
        more.push(("ttlMs", "0".into()));
        more.push(("cacheScope", quoted("private")));
    }
    more.push(("_meta", json!({(OUTCOMES): outcomes}).to_string()));
    let length = items.iter().map(|item| item.len() + 1).sum::<usize>();
    let mut result = String::with_capacity(length + 1024);
    result.push_str("{\"");
    result.push_str(kind.member());
    result.push_str("\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            result.push(',');
        }
        result.push_str(item);
    }
    result.push(']');
    for (name, value) in more {
        result.push_str(&format!(",\"{name}\":{value}"));
    }
    result.push('}');
    result
}

fn opened(ctx: &Context, kind: Kind, text: &str) -> Result<Cursor, Stop> {
    let app = &ctx.caller.worker.app;
    let payload =
        app.aggregates
            .open_cursor(text, app.clock.unix_seconds(), &ctx.cursor_context(kind.method()));
    payload
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .ok_or_else(|| {
            let message =
                "The cursor is not one that this gateway gave for this list, or it has expired. List again.";
            Stop::rpc(-32602, message)
        })
}

/// The client's cursor; `None` at the end of the list. Servers whose own cursors are too long to be sealed end
/// their lists here, and say so.
fn sealed(
    ctx: &Context,
    kind: Kind,
    next: &Cursor,
    outcomes: &mut Map<String, Value>,
) -> Result<Option<String>, Stop> {
    let app = &ctx.caller.worker.app;
    let mut next = Cursor {
        page: next.page,
        servers: next.servers.clone(),
    };
    while !next.servers.is_empty() {
        let payload = serde_json::to_vec(&next).map_err(|_| Stop::from(Refusal::new(ErrorCode::Internal)))?;
        let now = app.clock.unix_seconds();
        let context = ctx.cursor_context(kind.method());
        if let Some(text) = app.aggregates.seal_cursor(&payload, now, &context) {
            return Ok(Some(text));
        }
        let longest = next.servers.iter().max_by_key(|(_, cursor)| cursor.len());
        let Some(longest) = longest.map(|(id, _)| id.clone()) else {
            break;
        };
        next.servers.remove(&longest);
        if let Some(server) = ctx.scope.servers.iter().find(|server| server.id == longest) {
            let refusal = not_a_list(server, kind, "goes on at a cursor that is too long");
            outcomes.insert(server.name.clone(), outcome::failed(ctx, server, &refusal));
            outcome::tell(ctx, &[(Arc::clone(server), refusal)]);
        }
    }
    Ok(None)
}

/// One page, its items renamed. A server that does not know the method has nothing to list.
async fn page(
    ctx: &Context,
    server: &Arc<Server>,
    kind: Kind,
    cursor: Option<&str>,
) -> Result<Page, Refusal> {
    let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
    let mut client = ctx.client(server).await?;
    let Some(result) = asked(ctx, server, &mut client, kind, params).await? else {
        return Ok(Page::default());
    };
    let (items, next) = taken_apart(server, kind, &result)?;
    let rules = access::permit(&ctx.caller.admission, server)?;
    let mut page = Page {
        next,
        ..Page::default()
    };
    let mut seen = HashSet::new();
    for item in items {
        if kind == Kind::Tools && !shown(&rules, item) {
            continue;
        }
        // A name that stands twice is the first one's: a second could not be called.
        let renamed = Members::parse(item.get()).and_then(|members| {
            let name = members.get("name")?;
            let whole = kind.served(server, &text(name)?);
            let handle = match kind {
                Kind::Tools | Kind::Prompts => whole.clone(),
                _ => members.text(kind.handle())?.into_owned(),
            };
            seen.insert(handle)
                .then(|| replaced(item.get(), name.get(), &quoted(&whole)))
        });
        match renamed {
            Some(item) => page.items.push(item),
            None => page.skipped += 1,
        }
    }
    Ok(page)
}

/// Whether a tool of the list is one that may be used.
fn shown(rules: &Rules, tool: &RawValue) -> bool {
    let permitted = || {
        let members = Members::parse(tool.get());
        let name = members.as_ref().and_then(|members| members.text("name"));
        name.is_some_and(|name| rules.permit(&name))
    };
    rules.are_none() || permitted()
}

type Items<'r> = (Vec<&'r RawValue>, Option<String>);

fn taken_apart<'r>(server: &Server, kind: Kind, result: &'r RawValue) -> Result<Items<'r>, Refusal> {
    let members = Members::parse(result.get());
    let items = members.as_ref().and_then(|members| {
        let items = members.get(kind.member())?;
        serde_json::from_str(items.get()).ok()
    });
    let (Some(members), Some(items)) = (members, items) else {
        return Err(not_a_list(server, kind, "is not one"));
    };
    let next = members.text("nextCursor").map(std::borrow::Cow::into_owned);
    Ok((items, next.filter(|cursor| !cursor.is_empty())))
}

/// The result of one list request. `None` from a server that does not know the method.
async fn asked(
    ctx: &Context,
    server: &Arc<Server>,
    client: &mut UpstreamClient,
    kind: Kind,
    params: Value,
) -> Result<Option<Box<RawValue>>, Refusal> {
    let method = kind.method();
    let answer = match client.ask(method, params.clone(), None).await {
        Err(Fault::SessionGone) => {
            *client = ctx.reopened(server, client).await?;
            client.ask(method, params, None).await
        }
        answer => answer,
    };
    known(client, answer)
}

fn known(
    client: &UpstreamClient,
    answer: Result<Box<RawValue>, Fault>,
) -> Result<Option<Box<RawValue>>, Refusal> {
    match answer {
        Ok(result) => Ok(Some(result)),
        Err(Fault::Rpc(RpcError { code: -32601, .. })) => Ok(None),
        Err(fault) => Err(client.refusal(fault)),
    }
}

fn not_a_list(server: &Server, kind: Kind, what: &str) -> Refusal {
    let message = format!(
        "What the MCP server {} answers to {} {what}.",
        server.name,
        kind.method()
    );
    Refusal::because(ErrorCode::UpstreamNotMcp, message)
}

/// Within the time that a listing has. A server that lists is there, whatever failed before.
async fn in_time<T>(
    ctx: &Context,
    server: &Server,
    listing: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let worker = &ctx.caller.worker;
    let listed = listed_in_time(worker, server, listing).await;
    if listed.is_ok() {
        worker.app.aggregates.succeeded(server);
    }
    listed
}

/// What this server has of `kind`, by the names that it gives itself, for this caller. `fresh` asks it again.
pub(super) async fn catalog(
    ctx: &Context,
    server: &Arc<Server>,
    kind: Kind,
    fresh: bool,
) -> Result<Arc<Vec<String>>, Refusal> {
    let catalogs = &ctx.caller.worker.app.aggregates.catalogs;
    let key = key(ctx, server, kind.method());
    if !fresh && let Some(known) = catalogs.get(&key) {
        return Ok(known);
    }
    // Boxed: the future of a call by name does not carry the room for a listing.
    let names = in_time(ctx, server, Box::pin(all_pages(ctx, server, kind))).await?;
    let names = Arc::new(names);
    catalogs.insert(key, Arc::clone(&names));
    Ok(names)
}

async fn all_pages(ctx: &Context, server: &Arc<Server>, kind: Kind) -> Result<Vec<String>, Refusal> {
    let mut client = ctx.client(server).await?;
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    let mut bytes = 0;
    for _ in 0..MAX_PAGES {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
        let Some(result) = asked(ctx, server, &mut client, kind, params).await? else {
            return Ok(names);
        };
        bytes += result.get().len();
        if bytes > ANSWER_LIMIT {
            return Err(not_a_list(server, kind, "is too large"));
        }
        let (items, next) = taken_apart(server, kind, &result)?;
        let handles = items.iter().filter_map(|item| {
            let members = Members::parse(item.get())?;
            members.text(kind.handle()).map(std::borrow::Cow::into_owned)
        });
        names.extend(handles);
        cursor = next;
        if cursor.is_none() {
            return Ok(names);
        }
    }
    Err(not_a_list(server, kind, "does not end"))
}

/// Of everything that what a server shows can depend on: the caller, and every header that may hold a credential.
pub(super) fn key(ctx: &Context, server: &Server, what: &str) -> [u8; 32] {
    let principal = ctx.caller.admission.principal.id();
    let mut parts = vec![principal, server.id.as_bytes(), what.as_bytes()];
    let credential = &ctx.caller.worker.app.caller_headers.credential;
    for (name, value) in &ctx.headers {
        if name == header::AUTHORIZATION
            || name == credential
            || name.as_str().starts_with("x-mcp-")
            || server.extra_headers.contains(name)
        {
            parts.push(name.as_str().as_bytes());
            parts.push(value.as_bytes());
        }
    }
    sha256_of_parts(&parts)
}

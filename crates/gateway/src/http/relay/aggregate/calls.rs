//! Requests that are for one server: found by the name, the resource or the template that they are about, and
//! relayed with nothing changed but that name.

use super::lists::{Kind, catalog, key};
use super::session::{InFlight, locked};
use super::streams::{Asked, told};
use super::{Context, Stop, era, fault, handshake, streams, success};
use crate::audit::note;
use crate::digest::sha256_of_parts;
use crate::http::relay::capabilities::may_result;
use crate::http::relay::upstream_client::{Fault, Opened, Posted, tells_the_era};
use crate::policy::{self, access};
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal, shown};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesOrdered;
use http::Response;
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::time::timeout;
use vestibule_mcp::RequestId as RpcId;
use vestibule_mcp::members::Members;
use vestibule_mcp::naming::{self, Local};
use vestibule_mcp::raw::{quoted, replaced};
use vestibule_mcp::template;

/// As much of a name as a message repeats.
const NAME_SHOWN: usize = 100;
/// As many templates of a server are compared with a URI.
const MAX_TEMPLATES: usize = 1000;

/// Routes and relays a request.
pub(super) async fn call(
    ctx: &Context,
    rpc: &RpcId,
    method: &str,
    params: &Members<'_>,
) -> Result<Response<Body>, Stop> {
    match method {
        "tools/call" => named(ctx, rpc, method, params, Kind::Tools).await,
        "prompts/get" => named(ctx, rpc, method, params, Kind::Prompts).await,
        "resources/read" => read(ctx, rpc, params).await,
        "resources/subscribe" | "resources/unsubscribe" if !ctx.modern => {
            let uri = wanted(params, "uri")?;
            let Some(server) = listed_owner(ctx, &uri).await? else {
                return Err(no_resource(ctx, &uri));
            };
            relayed(ctx, &server, rpc, method, params, None, &[]).await
        }
        "completion/complete" => complete(ctx, rpc, params).await,
        "logging/setLevel" if !ctx.modern => set_level(ctx, rpc, params).await,
        _ => {
            let message = format!("Method not found: {}", shown(method, NAME_SHOWN));
            Err(Stop::rpc(-32601, message))
        }
    }
}

/// A tool or a prompt. The one place that every call by name goes through.
async fn named(
    ctx: &Context,
    rpc: &RpcId,
    method: &str,
    params: &Members<'_>,
    kind: Kind,
) -> Result<Response<Body>, Stop> {
    let name = wanted(params, "name")?;
    let (server, name) = owner_of_name(ctx, kind, &name).await?;
    let changed = [("name", quoted(&name))];
    relayed(ctx, &server, rpc, method, params, Some(&name), &changed).await
}

async fn read(ctx: &Context, rpc: &RpcId, params: &Members<'_>) -> Result<Response<Body>, Stop> {
    let uri = wanted(params, "uri")?;
    if let Some(server) = owner_of(ctx, &uri, false).await? {
        return relayed(ctx, &server, rpc, "resources/read", params, Some(&uri), &[]).await;
    }
    // Nobody lists it. Reading changes nothing, so those that have resources at all are asked; the first of them counts,
    // whoever is the fastest.
    let patience = ctx.caller.worker.app.limits.listing_timeout;
    let servers = ctx.scope.servers.iter();
    let mut answers: FuturesOrdered<_> = servers
        .map(|server| timeout(patience, read_at(ctx, server, &uri)))
        .collect();
    while let Some(answer) = answers.next().await {
        if let Ok(Some(result)) = answer {
            return Ok(success(rpc, result.get()));
        }
    }
    Err(no_resource(ctx, &uri))
}

/// What a server that has resources answers for one that it does not list.
async fn read_at(ctx: &Context, server: &Arc<Server>, uri: &str) -> Option<Box<RawValue>> {
    let known = quick_catalog(ctx, server, Kind::Resources, false).await.ok()?;
    let templates = quick_catalog(ctx, server, Kind::Templates, false).await.ok()?;
    if known.is_empty() && templates.is_empty() {
        return None;
    }
    let client = ctx.client(server).await.ok()?;
    let answer = client.request("resources/read", json!({"uri": uri}), None);
    let result = answer.await.ok()?;
    may_result(server, &result).then_some(result)
}

async fn complete(ctx: &Context, rpc: &RpcId, params: &Members<'_>) -> Result<Response<Body>, Stop> {
    let reference = params.get("ref").map(RawValue::get);
    let Some((whole, reference)) = reference.and_then(|text| Some((text, Members::parse(text)?))) else {
        return Err(Stop::rpc(-32602, "ref is missing"));
    };
    let method = "completion/complete";
    if reference.text("type").as_deref() == Some("ref/prompt") {
        let name = wanted(&reference, "name")?;
        let (server, name) = owner_of_name(ctx, Kind::Prompts, &name).await?;
        let part = reference.get("name").map_or("", |part| part.get());
        let changed = [("ref", replaced(whole, part, &quoted(&name)))];
        return relayed(ctx, &server, rpc, method, params, None, &changed).await;
    }
    let uri = wanted(&reference, "uri")?;
    match listed_owner(ctx, &uri).await? {
        Some(server) => relayed(ctx, &server, rpc, method, params, None, &[]).await,
        None => Err(no_resource(ctx, &uri)),
    }
}

/// For all servers with an open session, and remembered for those that are opened later.
async fn set_level(ctx: &Context, rpc: &RpcId, params: &Members<'_>) -> Result<Response<Body>, Stop> {
    let level = shown(&wanted(params, "level")?, 20);
    let level = level.as_str();
    let Some(session) = &ctx.session else {
        // Without a session there is nobody whose level it could be.
        return Ok(success(rpc, "{}"));
    };
    let patience = ctx.caller.worker.app.limits.open_timeout;
    *locked(&session.live.level) = Some(level.to_owned());
    let open = ctx
        .scope
        .servers
        .iter()
        .filter_map(|server| Some((server, session.opened(server)?)));
    let asked = open
        .filter(|(_, opened)| !opened.modern)
        .map(|(server, opened)| async move {
            let client = ctx.resumed(server, opened);
            // A server without logging, or one that is away, has no level.
            let asking = client.ask("logging/setLevel", json!({"level": level}), None);
            if let Ok(Err(Fault::SessionGone)) = timeout(patience, asking).await {
                session.forget(server, client.opened());
            }
        });
    join_all(asked).await;
    Ok(success(rpc, "{}"))
}

/// The server of a tool or a prompt, and the name there.
async fn owner_of_name(ctx: &Context, kind: Kind, name: &str) -> Result<(Arc<Server>, String), Stop> {
    if let Some((server, rest)) = ctx.scope.split(name) {
        let found = match naming::read(rest) {
            Local::Plain(name) => Some(name.to_owned()),
            Local::Encoded(local) => decoded(ctx, server, kind, local)
                .await
                .map_err(|refusal| Stop::of(server, refusal))?,
        };
        if let Some(found) = found {
            return Ok((Arc::clone(server), found));
        }
    }
    if let [server] = &ctx.scope.servers[..] {
        return Ok((Arc::clone(server), name.to_owned()));
    }
    let mut lists = catalogs(ctx, kind, false).await;
    let has = |names: &Arc<Vec<String>>| names.iter().any(|other| other == name);
    let miss = miss_key(ctx, kind, name);
    let app = &ctx.caller.worker.app;
    let nobody = |lists: &Catalogs<'_>| !lists.iter().any(|(_, list)| list.as_ref().is_ok_and(has));
    if nobody(&lists) && !app.aggregates.missed(&miss, app.clock.now()) {
        lists = catalogs(ctx, kind, true).await;
        if nobody(&lists) && lists.iter().all(|(_, list)| list.is_ok()) {
            app.aggregates.miss(miss, app.clock.now());
        }
    }
    let owners: Vec<&Arc<Server>> = lists
        .iter()
        .filter(|(_, list)| list.as_ref().is_ok_and(has))
        .map(|(server, _)| *server)
        .collect();
    let silent: Vec<String> = lists
        .iter()
        .filter_map(|(server, list)| {
            let refusal = list.as_ref().err()?;
            Some(format!("{}: {}", server.name, refusal.message))
        })
        .collect();
    let name_shown = shown(name, NAME_SHOWN);
    match &owners[..] {
        [owner] if silent.is_empty() => Ok((Arc::clone(owner), name.to_owned())),
        [] if silent.is_empty() => Err(Stop::rpc(-32602, format!("Unknown name: {name_shown}"))),
        [] => Err(Stop::rpc(
            -32602,
            format!(
                "Unknown name: {name_shown}. These servers did not answer: {}",
                silent.join("; ")
            ),
        )),
        [owner] => {
            let message = format!(
                "{} has {name_shown}, and it is not known who else has: {}",
                owner.name,
                silent.join("; ")
            );
            Err(Refusal::because(ErrorCode::AmbiguousName, message).into())
        }
        several => Err(ambiguous(&name_shown, several)),
    }
}

/// The name that a shortened one stands for. What the server has may have changed since it was listed.
async fn decoded(
    ctx: &Context,
    server: &Arc<Server>,
    kind: Kind,
    local: &str,
) -> Result<Option<String>, Refusal> {
    for fresh in [false, true] {
        let names = catalog(ctx, server, kind, fresh).await?;
        let found = names
            .iter()
            .find(|name| naming::local(&server.prefix, name) == local);
        if let Some(found) = found {
            return Ok(Some(found.clone()));
        }
    }
    Ok(None)
}

/// Of a name that is looked for among these servers for this caller.
fn miss_key(ctx: &Context, kind: Kind, name: &str) -> [u8; 32] {
    let servers = ctx.scope.servers.iter();
    let keys: Vec<[u8; 32]> = servers.map(|server| key(ctx, server, kind.method())).collect();
    let mut parts: Vec<&[u8]> = keys.iter().map(<[u8; 32]>::as_slice).collect();
    parts.push(name.as_bytes());
    sha256_of_parts(&parts)
}

type Catalogs<'c> = Vec<(&'c Arc<Server>, Result<Arc<Vec<String>>, Refusal>)>;

async fn catalogs(ctx: &Context, kind: Kind, fresh: bool) -> Catalogs<'_> {
    let servers = ctx.scope.servers.iter();
    let lists = servers.map(|server| async move {
        let list = note::apart(quick_catalog(ctx, server, kind, fresh)).await;
        (server, list)
    });
    join_all(lists).await
}

/// [`catalog`], where others are looked at beside this server: one that was away a moment ago holds nobody up.
async fn quick_catalog(
    ctx: &Context,
    server: &Arc<Server>,
    kind: Kind,
    fresh: bool,
) -> Result<Arc<Vec<String>>, Refusal> {
    handshake::not_resting(ctx, server)?;
    catalog(ctx, server, kind, fresh)
        .await
        .inspect_err(|refusal| handshake::note(ctx, server, refusal))
}

/// [`owner_of`], with servers asked again for a resource that is new.
async fn listed_owner(ctx: &Context, uri: &str) -> Result<Option<Arc<Server>>, Stop> {
    let found = owner_of(ctx, uri, false).await?;
    let (app, miss) = (&ctx.caller.worker.app, miss_key(ctx, Kind::Resources, uri));
    if found.is_some() || app.aggregates.missed(&miss, app.clock.now()) {
        return Ok(found);
    }
    let found = owner_of(ctx, uri, true).await?;
    if found.is_none() {
        app.aggregates.miss(miss, app.clock.now());
    }
    Ok(found)
}

/// The one server that lists the resource, or else has a template for it.
pub(super) async fn owner_of(ctx: &Context, uri: &str, fresh: bool) -> Result<Option<Arc<Server>>, Stop> {
    if let [server] = &ctx.scope.servers[..] {
        return Ok(Some(Arc::clone(server)));
    }
    for kind in [Kind::Resources, Kind::Templates] {
        let is_it = |name: &String| match kind {
            Kind::Templates => name == uri || template::matches(name, uri),
            _ => name == uri,
        };
        let most = match kind {
            Kind::Templates => MAX_TEMPLATES,
            _ => usize::MAX,
        };
        let lists = catalogs(ctx, kind, fresh).await;
        let owners: Vec<&Arc<Server>> = lists
            .iter()
            .filter(|(_, list)| {
                list.as_ref()
                    .is_ok_and(|names| names.iter().take(most).any(is_it))
            })
            .map(|(server, _)| *server)
            .collect();
        match &owners[..] {
            [] => {}
            [owner] => return Ok(Some(Arc::clone(owner))),
            several => return Err(ambiguous(&shown(uri, NAME_SHOWN), several)),
        }
    }
    Ok(None)
}

fn ambiguous(what: &str, owners: &[&Arc<Server>]) -> Stop {
    let names: Vec<&str> = owners.iter().map(|server| server.name.as_str()).collect();
    let message = format!("Several MCP servers have {what}: {}.", names.join(", "));
    Refusal::because(ErrorCode::AmbiguousName, message).into()
}

/// Revisions with `initialize` have a number of their own for this.
fn no_resource(ctx: &Context, uri: &str) -> Stop {
    let code = if ctx.modern { -32602 } else { -32002 };
    Stop::rpc(code, format!("Resource not found: {}", shown(uri, NAME_SHOWN)))
}

fn wanted<'p>(params: &Members<'p>, name: &str) -> Result<std::borrow::Cow<'p, str>, Stop> {
    let text = params.text(name).filter(|text| !text.is_empty());
    text.ok_or_else(|| Stop::rpc(-32602, format!("{name} is missing or no text")))
}

/// Sends the request to its server and its answer back, unless the client cancels it.
async fn relayed(
    ctx: &Context,
    server: &Arc<Server>,
    rpc: &RpcId,
    method: &str,
    params: &Members<'_>,
    name: Option<&str>,
    changed: &[(&str, String)],
) -> Result<Response<Body>, Stop> {
    let app = &ctx.caller.worker.app;
    let started = app.clock.now();
    match name {
        Some(name) if method == "tools/call" => note::tool(server, name),
        _ => note::server(server),
    }
    let refused = |refusal| Stop::of(server, refusal);
    let rules = access::permit(&ctx.caller.admission, server).map_err(refused)?;
    if !rules.are_none() {
        // Judged as the server gets it, so that nothing in it can be read in two ways.
        let sent = era::message(false, false, Some(rpc.as_json()), method, params, changed);
        policy::message::judge(&rules, ctx.caller.mirrored(), &sent).map_err(refused)?;
    }
    let session = ctx.session.as_ref();
    let in_flight = session.and_then(|session| InFlight::begin(&session.live, rpc.value(), server));
    let cancelled = in_flight.as_ref().map(InFlight::cancelled);
    let asked = Asked { rpc, method, params };
    let response = tokio::select! {
        biased;
        () = told(cancelled.as_deref()) => Err(refused(Refusal::new(ErrorCode::RequestCancelled))),
        answer = answered(ctx, server, asked, name, changed, in_flight) => answer,
    }?;
    server
        .metrics
        .answered(response.status(), started.until(app.clock.now()));
    Ok(response)
}

/// The server's answer. It is asked once more if it lost the session in between: then it did nothing.
async fn answered(
    ctx: &Context,
    server: &Arc<Server>,
    asked: Asked<'_>,
    name: Option<&str>,
    changed: &[(&str, String)],
    in_flight: Option<InFlight>,
) -> Result<Response<Body>, Stop> {
    let Asked { rpc, method, params } = asked;
    let refused = |refusal| Stop::of(server, refusal);
    let message = |opened: &Opened| {
        let id = Some(rpc.as_json());
        era::message(opened.modern, ctx.modern, id, method, params, changed)
    };
    let mirrored = Some(ctx.caller.mirrored());
    let mut client = ctx.client(server).await.map_err(refused)?;
    let mut posted = client
        .post(method, name, mirrored, message(client.opened()))
        .await;
    if let Err(Fault::SessionGone) = posted {
        client = ctx.reopened(server, &client).await.map_err(refused)?;
        posted = client
            .post(method, name, mirrored, message(client.opened()))
            .await;
    }
    let posted: Posted = posted.map_err(|found| {
        handshake::doubt(ctx, server);
        fault(server, &client, found)
    })?;
    if tells_the_era(posted.head.status) {
        handshake::doubt(ctx, server);
    }
    let response = streams::answer(ctx, server, asked, client, posted, in_flight).await;
    response.map_err(refused)
}

//! `initialize` and `server/discover`: what the gateway says for all its servers, after asking them for a moment.

use super::era::{Era, LEGACY_VERSIONS};
use super::lists;
use super::outcome::{self, OUTCOMES};
use super::session::{Session, capabilities, locked};
use super::{Context, Stop, part, success};
use crate::http::relay::upstream_client::{LEGACY, MODERN, Opened, UpstreamClient, Welcome, client_info};
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use futures_util::future::join_all;
use http::Response;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::time::timeout;
use vestibule_mcp::RequestId as RpcId;
use vestibule_mcp::headers::MCP_SESSION_ID;
use vestibule_mcp::members::Members;

/// What a server can have, as it stands in its capabilities, with everything that it can say of it.
const CAPABILITIES: &[(&str, &[&str])] = &[
    ("tools", &["listChanged"]),
    ("prompts", &["listChanged"]),
    ("resources", &["subscribe", "listChanged"]),
    ("completions", &[]),
    ("logging", &[]),
];

/// In the place of a method, where a digest is of a server's era.
const ERA: &str = "era";

/// Begins a session with the client and, as far as they answer in time, with the servers.
pub(super) async fn initialize(
    ctx: &mut Context,
    rpc: &RpcId,
    params: &Members<'_>,
) -> Result<Response<Body>, Stop> {
    let app = Arc::clone(&ctx.caller.worker.app);
    let asked = params.text("protocolVersion");
    let version = asked.as_deref().filter(|asked| LEGACY_VERSIONS.contains(asked));
    let version = version.unwrap_or(LEGACY).to_owned();
    let declared = params.get("capabilities").map(RawValue::get);
    let declared = capabilities(declared);
    ctx.session = Some(app.aggregates.begin(&ctx.owner, version.clone(), declared));
    let said = greet(ctx).await?;
    let mut result = json!({
        "protocolVersion": version,
        "capabilities": union(&said, true),
        "serverInfo": client_info(),
    });
    if let Some(text) = instructions(ctx, &said) {
        result["instructions"] = text.into();
    }
    add_failures(ctx, said, &mut result);
    let mut response = success(rpc, &result.to_string());
    let sealed = ctx.session.as_ref().and_then(|session| {
        let now = app.clock.unix_seconds();
        app.aggregates.seal(session, &ctx.owner, &ctx.scope.named, now)
    });
    let sealed = sealed.ok_or_else(|| Refusal::new(ErrorCode::Internal))?;
    response.headers_mut().insert(MCP_SESSION_ID, sealed);
    Ok(response)
}

/// What revisions without sessions ask instead.
pub(super) async fn discover(ctx: &Context, rpc: &RpcId) -> Result<Response<Body>, Stop> {
    let said = greet(ctx).await?;
    let mut result = json!({
        "resultType": "complete",
        "supportedVersions": [MODERN],
        "capabilities": union(&said, false),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": client_info()},
    });
    if let Some(text) = instructions(ctx, &said) {
        result["instructions"] = text.into();
    }
    add_failures(ctx, said, &mut result);
    Ok(success(rpc, &result.to_string()))
}

type Said = Vec<Result<Welcome, Refusal>>;

/// Every server's word for itself, in their order. An only server that wants a sign-in gets it first.
async fn greet(ctx: &Context) -> Result<Said, Stop> {
    ctx.concerns(&ctx.scope.servers);
    let greetings = ctx.scope.servers.iter();
    let greetings = greetings.map(|server| part(ctx, server, greeting(ctx, server)));
    let mut said = join_all(greetings).await;
    if let ([server], [Err(refusal)]) = (&ctx.scope.servers[..], &said[..])
        && refusal.sign_in.is_some()
    {
        let refusal = refusal.clone();
        said.clear();
        return Err(Stop::of(server, refusal));
    }
    Ok(said)
}

/// Within the time that a handshake has. A server that failed a moment ago is not waited for.
async fn greeting(ctx: &Context, server: &Arc<Server>) -> Result<Welcome, Refusal> {
    let app = &ctx.caller.worker.app;
    not_resting(ctx, server)?;
    let patience = app.limits.open_timeout;
    let opening = async {
        let (mut client, welcome) = opened(ctx, server).await?;
        let welcome = match welcome {
            Some(welcome) => welcome,
            None => client.discover().await?,
        };
        if let Some(session) = &ctx.session {
            let _ = session.slot(server).set(client.keep());
        }
        Ok(welcome)
    };
    let answer = timeout(patience, opening).await.unwrap_or_else(|_| {
        let message = format!(
            "The MCP server {} did not open a session within {} s.",
            server.name,
            patience.as_secs_f64()
        );
        Err(Refusal::because(ErrorCode::OpenTimeout, message))
    });
    if let Err(refusal) = &answer {
        note(ctx, server, refusal);
    }
    answer.map_err(|refusal| ctx.judged(server, refusal))
}

/// A session with a server for a client that has one already.
pub(super) async fn open_in(
    ctx: &Context,
    session: &Session,
    server: &Arc<Server>,
) -> Result<Opened, Refusal> {
    let (mut client, _) = opened(ctx, server)
        .await
        .inspect_err(|refusal| note(ctx, server, refusal))?;
    let level = locked(&session.live.level).clone();
    if let (Some(level), false) = (level, client.opened().modern) {
        // A server without logging has no level.
        let _ = client
            .ask("logging/setLevel", json!({"level": level}), None)
            .await;
    }
    Ok(client.keep())
}

async fn opened(ctx: &Context, server: &Arc<Server>) -> Result<(UpstreamClient, Option<Welcome>), Refusal> {
    let aggregates = &ctx.caller.worker.app.aggregates;
    let (client, welcome) = begun(ctx, server).await?;
    aggregates.succeeded(server);
    Ok((client, welcome))
}

/// A conversation in the client's own era where the server speaks it, in the other one else. Of a server that speaks
/// both, clients of the newer revisions would lose `input_required` in the older ones.
pub(super) async fn begun(
    ctx: &Context,
    server: &Arc<Server>,
) -> Result<(UpstreamClient, Option<Welcome>), Refusal> {
    let aggregates = &ctx.caller.worker.app.aggregates;
    let bearer = ctx.bearer(server);
    let key = ctx.prefers_modern(server).then(|| lists::key(ctx, server, ERA));
    if let Some(key) = key {
        match aggregates.era(&key) {
            Some(Era::Modern) => {
                let client = UpstreamClient::resume(&ctx.caller, server, bearer, Opened::modern());
                return Ok((client, None));
            }
            Some(Era::Legacy) => {}
            None => {
                if let Some((client, welcome)) = UpstreamClient::probe(&ctx.caller, server, bearer).await? {
                    aggregates.learn_era(key, Era::Modern);
                    return Ok((client, Some(welcome)));
                }
            }
        }
    }
    let (client, welcome) = UpstreamClient::open(&ctx.caller, server, bearer, &ctx.hello(server)).await?;
    let spoken = client.opened();
    // What a server said to one client's capabilities says nothing about it to others.
    if ctx.session.is_none() {
        aggregates.learn(server, spoken);
    }
    if let Some(key) = key {
        aggregates.learn_era(key, if spoken.modern { Era::Modern } else { Era::Legacy });
    }
    Ok((client, welcome))
}

/// The next conversation finds out again what the server speaks.
pub(super) fn doubt(ctx: &Context, server: &Server) {
    if ctx.prefers_modern(server) {
        let aggregates = &ctx.caller.worker.app.aggregates;
        aggregates.unlearn_era(&lists::key(ctx, server, ERA));
    }
}

/// What is known of the server's era, for a client of the newer revisions.
pub(super) fn known_era(ctx: &Context, server: &Server) -> Option<Era> {
    let aggregates = &ctx.caller.worker.app.aggregates;
    aggregates.era(&lists::key(ctx, server, ERA))
}

/// Refuses to wait for a server that failed a moment ago.
pub(super) fn not_resting(ctx: &Context, server: &Server) -> Result<(), Refusal> {
    let app = &ctx.caller.worker.app;
    if !app.aggregates.rests(server, app.clock.now()) {
        return Ok(());
    }
    let message = format!(
        "The MCP server {} failed a moment ago and was not waited for.",
        server.name
    );
    Err(Refusal::because(ErrorCode::ServerResting, message))
}

/// A server that is away is not waited for by the next `initialize`; one that refuses is there.
pub(super) fn note(ctx: &Context, server: &Arc<Server>, refusal: &Refusal) {
    let app = &ctx.caller.worker.app;
    let away = match refusal.code {
        // In this time a token was got or tried too: one caller's slow one says nothing about the server.
        ErrorCode::OpenTimeout | ErrorCode::ListingTimeout => !ctx.depends_on_the_caller(server),
        ErrorCode::UpstreamUnreachable
        | ErrorCode::UpstreamConnectTimeout
        | ErrorCode::UpstreamTimeout
        | ErrorCode::UpstreamClosed => true,
        _ => false,
    };
    if away {
        app.aggregates.failed(server, app.clock.now());
    }
}

/// What any of them has. Of one that did not answer nobody knows, so it may have everything.
fn union(said: &Said, legacy: bool) -> Value {
    let silent = said.iter().any(Result::is_err);
    let mut union = Map::new();
    for (name, flags) in CAPABILITIES {
        let declared: Vec<&Value> = said
            .iter()
            .flatten()
            .map(|welcome| &welcome.capabilities[*name])
            .filter(|declared| declared.is_object())
            .collect();
        // Revisions without sessions have no `logging/setLevel`.
        if (declared.is_empty() && !silent) || (!legacy && *name == "logging") {
            continue;
        }
        let mut capability = Map::new();
        for flag in *flags {
            if silent || declared.iter().any(|declared| declared[*flag] == true) {
                capability.insert((*flag).to_owned(), true.into());
            }
        }
        union.insert((*name).to_owned(), capability.into());
    }
    union.into()
}

/// The configured text of each server, or else its own.
fn instructions(ctx: &Context, said: &Said) -> Option<String> {
    let texts = ctx.scope.servers.iter().zip(said).filter_map(|(server, said)| {
        let own = said
            .as_ref()
            .ok()
            .and_then(|welcome| welcome.instructions.as_deref());
        let text = server.shared.instructions.as_deref().or(own)?;
        Some((&server.prefix, text))
    });
    let texts: Vec<_> = texts.collect();
    match &texts[..] {
        [] => None,
        [(_, text)] => Some((*text).to_owned()),
        several => {
            let blocks = several.iter().map(|(label, text)| format!("[{label}]\n{text}"));
            Some(blocks.collect::<Vec<_>>().join("\n\n---\n\n"))
        }
    }
}

/// Names who did not answer.
fn add_failures(ctx: &Context, said: Said, result: &mut Value) {
    let mut outcomes = Map::new();
    let mut failures = Vec::new();
    for (server, said) in ctx.scope.servers.iter().zip(said) {
        if let Err(refusal) = said {
            outcomes.insert(server.name.clone(), outcome::failed(ctx, server, &refusal));
            failures.push((Arc::clone(server), refusal));
        }
    }
    outcome::unknown(ctx, &mut outcomes);
    outcome::tell(ctx, &failures);
    if !outcomes.is_empty() {
        result["_meta"][OUTCOMES] = outcomes.into();
    }
}

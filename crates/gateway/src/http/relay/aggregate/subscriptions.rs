//! `subscriptions/listen` (MCP 2026-07-28) for several servers: one stream of what changes at any of them. Servers of
//! the newer revisions are listened to in the same way, those of the older ones by their GET streams.
//!
//! Nothing is kept for a client that is away: a stream that a server ends is the end of the client's too, so that it
//! knows that it may have missed something, and listens again.

use super::calls::owner_of;
use super::handshake;
use super::lists;
use super::outcome::{self, OUTCOMES};
use super::streams::{event, event_stream};
use super::{Context, Stop};
use crate::http::relay::capabilities::refuse;
use crate::http::relay::stream::{COMMENT, KEEP_ALIVE};
use crate::http::relay::upstream_client::{
    ANSWER_LIMIT, Fault, Posted, Reply, UpstreamClient, Welcome, answer_to, is,
};
use crate::ids::RequestId;
use crate::net::stream::UpstreamBody;
use crate::registry::{End, Server, UnderWay};
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, SelectAll, once, unfold};
use futures_util::{FutureExt, Stream, StreamExt};
use http::{Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use tokio::time::timeout;
use vestibule_mcp::members::Members;
use vestibule_mcp::raw::quoted;
use vestibule_mcp::sse::EventReader;
use vestibule_mcp::{Envelope, RequestId as RpcId};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const UPDATED: &str = "notifications/resources/updated";
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// The most resources of one stream.
const MAX_URIS: usize = 64;

/// What can change: the member of a filter, the message, and the capability of a server that says it.
const LISTS: [(&str, &str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed", "tools"),
    (
        "promptsListChanged",
        "notifications/prompts/list_changed",
        "prompts",
    ),
    (
        "resourcesListChanged",
        "notifications/resources/list_changed",
        "resources",
    ),
];

/// What is listened for.
#[derive(Debug, Clone, Default)]
struct Filter {
    /// As in [`LISTS`].
    lists: [bool; 3],
    uris: BTreeSet<String>,
}

impl Filter {
    /// Reads `notifications` of a request or an acknowledgement. What is not known is left out, and so not honoured.
    fn of(params: &Members<'_>) -> Option<Self> {
        let members = Members::parse(params.get("notifications")?.get())?;
        let uris = match members.get("resourceSubscriptions") {
            None => BTreeSet::new(),
            Some(uris) => serde_json::from_str(uris.get()).ok()?,
        };
        let asked = |name| members.get(name).is_some_and(|value| value.get() == "true");
        Some(Self {
            lists: LISTS.map(|(name, ..)| asked(name)),
            uris,
        })
    }

    fn json(&self) -> Value {
        let lists = LISTS.iter().zip(self.lists).filter(|(_, asked)| *asked);
        let mut json: Map<_, _> = lists
            .map(|((name, ..), _)| ((*name).to_owned(), true.into()))
            .collect();
        if !self.uris.is_empty() {
            json.insert("resourceSubscriptions".into(), json!(self.uris));
        }
        json.into()
    }

    fn is_empty(&self) -> bool {
        self.lists == [false; 3] && self.uris.is_empty()
    }

    /// What both have.
    fn and(&self, other: &Self) -> Self {
        Self {
            lists: std::array::from_fn(|index| self.lists[index] && other.lists[index]),
            uris: self.uris.intersection(&other.uris).cloned().collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.lists = std::array::from_fn(|index| self.lists[index] || other.lists[index]);
        self.uris.extend(other.uris.iter().cloned());
    }

    fn passes(&self, method: &str, params: &Members<'_>) -> bool {
        if method == UPDATED {
            return params.text("uri").is_some_and(|uri| self.uris.contains(&*uri));
        }
        let mut lists = LISTS.iter().zip(self.lists);
        lists.any(|((_, message, _), asked)| asked && *message == method)
    }
}

/// A server that is listened to.
struct Source {
    honoured: Filter,
    body: Box<UpstreamBody>,
    events: EventReader,
    /// Of a server of the older revisions it has the session, and ends it.
    client: Arc<UpstreamClient>,
    call: UnderWay<Arc<Server>>,
}

/// Answers `subscriptions/listen`.
pub(super) async fn listen(ctx: &Context, rpc: &RpcId, params: &Members<'_>) -> Result<Response<Body>, Stop> {
    let wrong = "notifications is missing, or not a filter of subscriptions/listen";
    let asked = Filter::of(params).ok_or_else(|| Stop::rpc(-32602, wrong))?;
    if asked.uris.len() > MAX_URIS {
        let message = format!("The request subscribes to {} resources.", asked.uris.len());
        return Err(Refusal::because(ErrorCode::TooManySubscriptions, message).into());
    }
    let wanted = shared_out(ctx, &asked).await;
    ctx.concerns(wanted.iter().map(|(server, _)| *server));
    let opened = join_all(wanted.iter().map(|(server, wanted)| opened(ctx, server, wanted))).await;
    let mut honoured = Filter::default();
    let (mut sources, mut failures, mut outcomes) = (Vec::new(), Vec::new(), Map::new());
    for ((server, _), opened) in wanted.iter().zip(opened) {
        let outcome = match opened {
            Ok(source) => {
                let own = source.as_ref().map(|source| &source.honoured);
                let outcome = json!({"status": "ok", "notifications": own.map_or(json!({}), Filter::json)});
                if let Some(own) = own {
                    honoured.add(own);
                }
                sources.extend(source);
                outcome
            }
            Err(refusal) => {
                handshake::doubt(ctx, server);
                let refusal = ctx.judged(server, refusal);
                let outcome = outcome::failed(ctx, server, &refusal);
                failures.push((Arc::clone(server), refusal));
                outcome
            }
        };
        outcomes.insert(server.name.clone(), outcome);
    }
    outcome::unknown(ctx, &mut outcomes);
    if !failures.is_empty() && failures.len() == wanted.len() {
        return Err(lists::nobody(ctx, failures, outcomes));
    }
    outcome::tell(ctx, &failures);
    let mut meta = json!({(OUTCOMES): outcomes});
    meta[SUBSCRIPTION] = serde_json::from_str(rpc.as_json()).unwrap_or_default();
    let acknowledged = json!({
        "jsonrpc": "2.0",
        "method": ACKNOWLEDGED,
        "params": {"notifications": honoured.json(), "_meta": meta},
    });
    let first = event(&acknowledged.to_string());
    let first = once(async move { Ok(Frame::data(first)) });
    Ok(event_stream(first.chain(merged(sources, rpc.clone(), ctx.id))))
}

/// Which server is asked for what: for its lists each, for a resource the one that has it. A resource that is no
/// server's, or several servers', is nobody's.
async fn shared_out<'c>(ctx: &'c Context, asked: &Filter) -> Vec<(&'c Arc<Server>, Filter)> {
    let of_lists = Filter {
        lists: asked.lists,
        uris: BTreeSet::new(),
    };
    let mut wanted: Vec<_> = ctx
        .scope
        .servers
        .iter()
        .map(|server| (server, of_lists.clone()))
        .collect();
    // The first that is not known has the servers asked again, which is enough for the others.
    let mut fresh = true;
    for uri in &asked.uris {
        let mut owner = owner_of(ctx, uri, false).await;
        if fresh && matches!(owner, Ok(None)) {
            fresh = false;
            owner = owner_of(ctx, uri, true).await;
        }
        let Ok(Some(owner)) = owner else { continue };
        let place = wanted.iter_mut().find(|(server, _)| server.index == owner.index);
        if let Some((_, filter)) = place {
            filter.uris.insert(uri.clone());
        }
    }
    wanted.retain(|(_, filter)| !filter.is_empty());
    wanted
}

/// Begins to listen to a server, in the time that a handshake has. `None` when it gives nothing of what is wanted.
async fn opened(ctx: &Context, server: &Arc<Server>, wanted: &Filter) -> Result<Option<Source>, Refusal> {
    let patience = ctx.caller.worker.app.limits.open_timeout;
    let opening = async {
        let (client, welcome) = handshake::begun(ctx, server).await?;
        if client.opened().modern {
            modern(client, server, wanted).await
        } else {
            legacy(client, server, wanted, &welcome.unwrap_or_default()).await
        }
    };
    timeout(patience, opening).await.unwrap_or_else(|_| {
        let message = format!(
            "The MCP server {} did not begin to say what changes within {} s.",
            server.name,
            patience.as_secs_f64()
        );
        Err(Refusal::because(ErrorCode::OpenTimeout, message))
    })
}

async fn modern(
    client: UpstreamClient,
    server: &Arc<Server>,
    wanted: &Filter,
) -> Result<Option<Source>, Refusal> {
    let method = "subscriptions/listen";
    let (id, body) = client.message(method, json!({"notifications": wanted.json()}), None)?;
    let posted = client.post(method, None, None, body).await;
    let Posted { head, read, mut rest } = posted.map_err(|fault| client.refusal(fault))?;
    let kind = head.headers.get(header::CONTENT_TYPE);
    if !head.status.is_success() || !kind.is_some_and(|kind| is(kind, b"text/event-stream")) {
        let posted = Posted { head, read, rest };
        return not_listening(&client, client.reply(posted, &id).await?);
    }
    let mut events = EventReader::new(ANSWER_LIMIT);
    events.push(&read);
    loop {
        while let Some(found) = events
            .next_event()
            .map_err(|fault| client.not_mcp(&fault.to_string()))?
        {
            let message = found.data.as_bytes();
            if let Some(reply) = answer_to(&id, message) {
                return not_listening(&client, reply);
            }
            let Some(envelope) = Envelope::parse(message) else {
                continue;
            };
            if envelope.method.as_deref() != Some(ACKNOWLEDGED) {
                continue;
            }
            let params = envelope.params.and_then(|params| Members::parse(params.get()));
            let said = params.as_ref().and_then(Filter::of);
            let said = said.ok_or_else(|| client.not_mcp("an acknowledgement without its notifications"))?;
            let honoured = said.and(wanted);
            if honoured.is_empty() {
                return Ok(None);
            }
            return Ok(Some(Source {
                honoured,
                body: Box::new(rest),
                events,
                client: Arc::new(client),
                call: UnderWay::begin(Arc::clone(server)),
            }));
        }
        let frame = rest.frame().await.and_then(Result::ok);
        let frame = frame.ok_or_else(|| Refusal::new(ErrorCode::UpstreamTruncated))?;
        if let Ok(data) = frame.into_data() {
            events.push(&data);
        }
    }
}

/// The server answered where it should have begun a stream. One that does not know the method has nothing to say.
fn not_listening(client: &UpstreamClient, reply: Reply) -> Result<Option<Source>, Refusal> {
    match reply {
        Reply::Error(error) if error.code != -32601 => Err(client.refusal(Fault::Rpc(error))),
        Reply::Error(_) | Reply::Result(_) => Ok(None),
    }
}

async fn legacy(
    client: UpstreamClient,
    server: &Arc<Server>,
    wanted: &Filter,
    welcome: &Welcome,
) -> Result<Option<Source>, Refusal> {
    let says = |capability: &str, flag: &str| welcome.capabilities[capability][flag] == true;
    let mut honoured = wanted.and(&Filter {
        lists: LISTS.map(|(_, _, capability)| says(capability, "listChanged")),
        uris: if says("resources", "subscribe") {
            wanted.uris.clone()
        } else {
            BTreeSet::new()
        },
    });
    if honoured.is_empty() {
        return Ok(None);
    }
    let body = client.listen().await.map_err(|fault| client.refusal(fault))?;
    let Some(body) = body else {
        return Ok(None);
    };
    let asked = std::mem::take(&mut honoured.uris);
    let answers = asked
        .iter()
        .map(|uri| client.ask("resources/subscribe", json!({"uri": uri}), None));
    for (uri, answer) in asked.iter().zip(join_all(answers).await) {
        match answer {
            Ok(_) => {
                honoured.uris.insert(uri.clone());
            }
            Err(Fault::Rpc(_)) => {}
            Err(fault) => return Err(client.refusal(fault)),
        }
    }
    Ok((!honoured.is_empty()).then(|| Source {
        honoured,
        body: Box::new(body),
        events: EventReader::new(ANSWER_LIMIT),
        client: Arc::new(client),
        call: UnderWay::begin(Arc::clone(server)),
    }))
}

impl Source {
    /// What the client hears next; `None` at the end.
    async fn next(&mut self, subscription: &str) -> Option<Bytes> {
        loop {
            while let Some(found) = self.events.next_event().ok()? {
                if let Some(bytes) = self.passed(&found.data, subscription)? {
                    return Some(bytes);
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.events.push(&data);
            }
        }
    }

    /// The client's message for the server's, if it is one that is listened for. The outer `None` is the end: a stream
    /// of subscriptions has one request, so an answer is to that.
    #[expect(
        clippy::option_option,
        reason = "the end and a message for nobody are two things"
    )]
    fn passed(&self, data: &str, subscription: &str) -> Option<Option<Bytes>> {
        let Some(envelope) = Envelope::parse(data.as_bytes()) else {
            return Some(None);
        };
        let Some(method) = envelope.method.as_deref() else {
            return (!self.client.opened().modern).then_some(None);
        };
        if envelope.id.is_some() {
            refuse(&self.client, data);
            return Some(None);
        }
        let params = match envelope.params.map(RawValue::get) {
            None => Members::default(),
            Some(params) => match Members::parse(params) {
                None => return Some(None),
                Some(params) => params,
            },
        };
        let passes = self.honoured.passes(method, &params);
        Some(passes.then(|| tagged(method, &params, subscription)))
    }
}

/// A message of the client's subscription, whichever it was of.
fn tagged(method: &str, params: &Members<'_>, subscription: &str) -> Bytes {
    let meta = params.get("_meta").and_then(|meta| Members::parse(meta.get()));
    let meta = meta
        .unwrap_or_default()
        .rebuilt(|name| name != SUBSCRIPTION, &[(SUBSCRIPTION, subscription)]);
    let params = params.rebuilt(|name| name != "_meta", &[("_meta", &meta)]);
    event(&format!(
        r#"{{"jsonrpc":"2.0","method":{},"params":{params}}}"#,
        quoted(method)
    ))
}

/// All servers' messages, until one of them ends its stream or is configured otherwise; of a server that is removed
/// the part ends, and with the last of them all. Dropped, it drops every server's stream.
fn merged(
    sources: Vec<Source>,
    rpc: RpcId,
    id: RequestId,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    let nobody = sources.is_empty();
    let streams = sources.into_iter().map(|source| {
        let rpc = rpc.clone();
        let ending = source.call.server().ending.heard().boxed();
        unfold(Some((source, ending, rpc)), move |state| async move {
            let (mut source, mut ending, rpc) = state?;
            let heard = tokio::select! {
                biased;
                how = &mut ending => return (how == End::Replaced).then_some((None, None)),
                heard = source.next(rpc.as_json()) => heard,
            };
            if let Some(bytes) = heard {
                return Some((Some(bytes), Some((source, ending, rpc))));
            }
            let server = source.call.server();
            tracing::info!(request_id = %id, server = %server.name, "the server ended its subscription");
            Some((None, None))
        })
        .boxed()
    });
    let streams: SelectAll<BoxStream<'static, Option<Bytes>>> = streams.collect();
    unfold(Some((streams, rpc)), move |state| async move {
        let (mut streams, rpc) = state?;
        let heard = async {
            match streams.next().await {
                Some(heard) => heard,
                // The client was told.
                None if nobody => std::future::pending().await,
                None => None,
            }
        };
        Some(match timeout(KEEP_ALIVE, heard).await {
            Err(_) => (Ok(Frame::data(Bytes::from_static(COMMENT))), Some((streams, rpc))),
            Ok(Some(bytes)) => (Ok(Frame::data(bytes)), Some((streams, rpc))),
            Ok(None) => (Ok(Frame::data(end(&rpc))), None),
        })
    })
}

/// The answer to the request, which ends the stream.
fn end(rpc: &RpcId) -> Bytes {
    let id = rpc.as_json();
    event(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":{id}}}}}}}"#
    ))
}

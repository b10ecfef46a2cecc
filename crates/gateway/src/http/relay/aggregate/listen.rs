//! The client's GET stream: the streams of all servers with an open session as one, event by event. A server that
//! is opened later joins; one that has no stream is left out. Of one that is removed the part ends; where one is configured
//! otherwise all of it does, so that the client comes again and hears that one too.

use super::Context;
use super::session::Session;
use super::streams::{PROGRESS, event, marked};
use crate::app::Worker;
use crate::http::relay::capabilities::{may_ask, refuse};
use crate::http::relay::forward::Bearer;
use crate::http::relay::stream::{COMMENT, KEEP_ALIVE};
use crate::http::relay::upstream_client::{ANSWER_LIMIT, Caller, UpstreamClient};
use crate::net::stream::UpstreamBody;
use crate::registry::{End, Server, ServerIndex, UnderWay};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll, unfold};
use futures_util::{FutureExt, Stream, StreamExt};
use http_body::Frame;
use http_body_util::BodyExt;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use vestibule_mcp::Envelope;
use vestibule_mcp::sse::EventReader;

/// What comes from one server.
enum Heard {
    Event(Bytes),
    /// The stream is over; it is opened again later where there was one.
    Over(ServerIndex, bool),
}

struct Listener {
    worker: Arc<Worker>,
    caller: Caller,
    servers: Vec<(Arc<Server>, Bearer)>,
    session: Session,
    joined: HashSet<usize>,
    /// Servers whose streams were there and are over.
    ended: Vec<usize>,
    streams: SelectAll<BoxStream<'static, Heard>>,
    /// Of the servers, those that are no longer there as they were.
    endings: FuturesUnordered<BoxFuture<'static, (ServerIndex, End)>>,
    /// When the client hears that the stream is there, whatever else it hears.
    pulse: Interval,
}

/// The merged stream. Dropped, it drops every server's.
pub(super) fn merged(
    ctx: &Context,
    session: Session,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    let servers = &ctx.scope.servers;
    let ending = |server: &Arc<Server>| {
        let index = server.index;
        server.ending.heard().map(move |how| (index, how)).boxed()
    };
    let mut pulse = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener {
        worker: Arc::clone(&ctx.caller.worker),
        caller: ctx.caller.clone(),
        endings: servers.iter().map(ending).collect(),
        servers: servers
            .iter()
            .map(|server| (Arc::clone(server), ctx.bearer(server)))
            .collect(),
        session,
        joined: HashSet::new(),
        ended: Vec::new(),
        streams: SelectAll::new(),
        pulse,
    };
    // The head goes out with the first bytes, and a client waits for it.
    let hello = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(COMMENT))) });
    hello.chain(unfold(listener, |mut listener| async {
        let bytes = listener.next().await?;
        Some((Ok(Frame::data(bytes)), listener))
    }))
}

impl Listener {
    /// `None` once the client has ended the session, or has to come again.
    async fn next(&mut self) -> Option<Bytes> {
        let live = Arc::clone(&self.session.live);
        loop {
            // Before the look, so that no server joins and no session ends unseen between the two.
            let joined = live.joined.notified();
            if self.session.has_ended() {
                return None;
            }
            self.join();
            tokio::select! {
                // These first: a busy server always has something to say.
                biased;
                Some((server, how)) = self.endings.next(), if !self.endings.is_empty() => {
                    self.servers.retain(|(one, _)| one.index != server);
                    if how == End::Replaced || self.servers.is_empty() {
                        return None;
                    }
                }
                _ = self.pulse.tick() => {
                    self.worker.app.aggregates.touch(&self.session);
                    for server in self.ended.drain(..) {
                        self.joined.remove(&server);
                    }
                    return Some(Bytes::from_static(COMMENT));
                }
                Some(heard) = self.streams.next(), if !self.streams.is_empty() => match heard {
                    Heard::Event(bytes) => return Some(bytes),
                    Heard::Over(_, false) => {}
                    // Not opened again at once: a server may end its streams as fast as they are opened.
                    Heard::Over(server, true) => self.ended.push(server.0),
                },
                () = joined => {}
            }
        }
    }

    fn join(&mut self) {
        for (server, bearer) in &self.servers {
            let Some(opened) = self.session.opened(server).filter(|opened| !opened.modern) else {
                continue;
            };
            if self.joined.insert(server.index.0) {
                let client = UpstreamClient::resume(&self.caller, server, *bearer, opened);
                let heard = heard(client, Arc::clone(server)).take_until(server.ending.heard());
                self.streams.push(heard.boxed());
            }
        }
    }
}

enum State {
    Opening(UpstreamClient),
    Reading(Arc<UpstreamClient>, Box<UpstreamBody>, EventReader),
    Over,
}

/// The messages of one server.
fn heard(client: UpstreamClient, server: Arc<Server>) -> impl Stream<Item = Heard> + Send {
    let index = server.index;
    let call = UnderWay::begin(server);
    unfold((State::Opening(client), call), move |(state, call)| async move {
        let (client, mut body, mut events) = match state {
            State::Over => return None,
            State::Reading(client, body, events) => (client, body, events),
            State::Opening(client) => match client.listen().await {
                Ok(Some(body)) => (Arc::new(client), Box::new(body), EventReader::new(ANSWER_LIMIT)),
                Ok(None) | Err(_) => return Some((Heard::Over(index, false), (State::Over, call))),
            },
        };
        loop {
            match events.next_event() {
                Err(_) => break,
                Ok(Some(found)) => {
                    // An answer here would be one to another request, perhaps another server's.
                    let Some(envelope) = Envelope::parse(found.data.as_bytes()) else {
                        continue;
                    };
                    // Progress is told where the request is answered.
                    let method = envelope.method.as_deref().filter(|method| *method != PROGRESS);
                    let Some(method) = method else { continue };
                    if !may_ask(call.server(), method) {
                        refuse(&client, &found.data);
                        continue;
                    }
                    let data = marked(call.server(), found.data);
                    let reading = State::Reading(client, body, events);
                    return Some((Heard::Event(event(&data)), (reading, call)));
                }
                Ok(None) => match body.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            events.push(&data);
                        }
                    }
                    _ => break,
                },
            }
        }
        Some((Heard::Over(index, true), (State::Over, call)))
    })
}

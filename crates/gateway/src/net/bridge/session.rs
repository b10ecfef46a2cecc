//! One MCP session over a pipe of messages: which answer belongs to which request, where everything else goes,
//! and its end. It knows nothing of what the pipe is made of.

use super::message::{self, Id, Kind};
use super::{BridgeFault, Pipe, Places};
use crate::clock::{Clock, Moment};
use bytes::Bytes;
use http::HeaderMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Messages that wait for a reader of one stream. Who reads slower slows the session down.
const QUEUE: usize = 4;
/// Messages of no request that wait for a listener, and no larger than this one each.
const BACKLOG: usize = 16;
const UNRELATED_LIMIT: usize = 1024 * 1024;
/// Cancellations on their way at the same time.
const CANCELLATIONS: usize = 64;
/// How long a cancellation may take to be written; nobody waits for it.
const CANCELLATION: Duration = Duration::from_secs(5);
/// What SDKs say when a connection is gone in the middle of a request.
const CONNECTION_CLOSED: i64 = -32000;
/// JSON-RPC 2.0 section 5.1.
const METHOD_NOT_FOUND: i64 = -32601;

/// A session.
pub(super) struct Session {
    pub(super) id: String,
    server: String,
    clock: Clock,
    runtime: Handle,
    pipe: Pipe,
    /// The headers of the request that opened it.
    opening: HeaderMap,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    cancellations: Arc<Semaphore>,
    _places: Places,
}

struct State {
    /// In the order of their beginning.
    in_flight: Vec<InFlight>,
    listener: Option<mpsc::Sender<Bytes>>,
    backlog: VecDeque<Bytes>,
    used: Moment,
    /// The client has no id to come back with, so it cannot answer the server.
    one_request: bool,
}

struct InFlight {
    id: Id,
    progress: Option<Id>,
    stream: mpsc::Sender<Item>,
}

/// A message of a request's stream.
pub(crate) enum Item {
    /// There is more to come.
    Message(Bytes),
    /// It answers the request.
    Last(Bytes),
}

/// What becomes of a session when a request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes on.
    Nothing,
    /// It ends when the request is given up: nobody has its id.
    EndUnlessAnswered,
    /// It ends in any case.
    End,
}

/// A request under way. Dropped before its answer, it cancels.
pub(crate) struct Exchange {
    session: Arc<Session>,
    id: Id,
    items: mpsc::Receiver<Item>,
    then: Then,
    /// Something of it may have reached the server.
    written: bool,
    answered: bool,
    headers: HeaderMap,
}

impl Session {
    pub(super) fn new(
        id: String,
        server: String,
        (clock, runtime): (Clock, Handle),
        pipe: Pipe,
        opening: HeaderMap,
        places: Places,
    ) -> Self {
        Self {
            id,
            server,
            state: Mutex::new(State {
                in_flight: Vec::new(),
                listener: None,
                backlog: VecDeque::new(),
                used: clock.now(),
                one_request: false,
            }),
            clock,
            runtime,
            pipe,
            opening,
            ended: watch::Sender::new(false),
            cancellations: Arc::new(Semaphore::new(CANCELLATIONS)),
            _places: places,
        }
    }

    /// The server's name.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The gateway's clock.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether it is over.
    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves when it is over.
    pub(super) async fn ended(&self) {
        // The sender is in `self`, so there is no other error than the end.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends it; everything that waits for it learns so.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
        let mut state = self.state();
        state.in_flight.clear();
        state.listener = None;
        state.backlog.clear();
    }

    /// Since when nobody has used it; `None` while somebody does.
    pub(super) fn idle_since(&self) -> Option<Moment> {
        let state = self.state();
        let listens = state
            .listener
            .as_ref()
            .is_some_and(|listener| !listener.is_closed());
        (state.in_flight.is_empty() && !listens).then_some(state.used)
    }

    /// Begins a request. Nothing is written yet.
    pub(super) fn begin(
        self: &Arc<Self>,
        id: &Id,
        message: &[u8],
        then: Then,
    ) -> Result<Exchange, BridgeFault> {
        let (stream, items) = mpsc::channel(QUEUE);
        let progress = message::wanted_progress(message);
        let mut state = self.state();
        if self.has_ended() {
            return Err(BridgeFault::UnknownSession);
        }
        if state.in_flight.iter().any(|other| other.id == *id) {
            return Err(BridgeFault::RepeatedId);
        }
        state.used = self.clock.now();
        state.one_request |= then == Then::End;
        state.in_flight.push(InFlight {
            id: id.clone(),
            progress,
            stream,
        });
        Ok(Exchange {
            session: Arc::clone(self),
            id: id.clone(),
            items,
            then,
            written: false,
            answered: false,
            headers: HeaderMap::new(),
        })
    }

    /// Passes on what wants no answer. A cancellation ends the stream of what it cancels, since its server
    /// answers no more.
    pub(super) async fn post(
        self: &Arc<Self>,
        kind: &Kind<'_>,
        message: Bytes,
        headers: HeaderMap,
    ) -> Result<(), BridgeFault> {
        let cancels = matches!(kind, Kind::Notification { method } if method == "notifications/cancelled");
        let cancelled = cancels.then(|| message::cancelled_request(&message)).flatten();
        self.state().used = self.clock.now();
        if self.has_ended() {
            return Err(BridgeFault::UnknownSession);
        }
        self.write(message, headers).await?;
        if let Some(id) = cancelled {
            self.state().in_flight.retain(|other| other.id != id);
        }
        Ok(())
    }

    /// The stream of messages that belong to no request.
    pub(super) fn listen(&self) -> Result<mpsc::Receiver<Bytes>, BridgeFault> {
        let mut state = self.state();
        if self.has_ended() {
            return Err(BridgeFault::UnknownSession);
        }
        if state
            .listener
            .as_ref()
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(BridgeFault::SecondListener);
        }
        let (listener, messages) = mpsc::channel(BACKLOG);
        for message in std::mem::take(&mut state.backlog) {
            // There is room for all of them.
            let _ = listener.try_send(message);
        }
        state.used = self.clock.now();
        state.listener = Some(listener);
        Ok(messages)
    }

    /// Takes a message of the server's, which is one line. Waits for a reader that is slow.
    pub(super) async fn received(self: &Arc<Self>, message: Bytes) {
        match Kind::of(&message) {
            None => {
                tracing::debug!(server = %self.server, bytes = message.len(), "what the server wrote is no message");
            }
            Some(Kind::Response { id }) => {
                let stream = {
                    let mut state = self.state();
                    state.used = self.clock.now();
                    let found = state.in_flight.iter().position(|other| other.id == id);
                    found.map(|index| state.in_flight.remove(index).stream)
                };
                match stream {
                    Some(stream) => self.hand_over(&stream, Item::Last(message)).await,
                    None => {
                        tracing::debug!(server = %self.server, "an answer that nobody waits for was dropped");
                    }
                }
            }
            Some(Kind::Notification { method }) if method == "notifications/progress" => {
                let stream = message::told_progress(&message).and_then(|token| {
                    let state = self.state();
                    let found = state
                        .in_flight
                        .iter()
                        .find(|other| other.progress.as_ref() == Some(&token));
                    found.map(|found| found.stream.clone())
                });
                // Of a request that is over there is nobody to tell.
                if let Some(stream) = stream {
                    self.hand_over(&stream, Item::Message(message)).await;
                }
            }
            Some(kind) => {
                let asked = match kind {
                    Kind::Request { method, id } => Some((id, method == "ping")),
                    _ => None,
                };
                self.unrelated(asked, message).await;
            }
        }
    }

    /// Servers say things in the middle of a call that belong to it, and the pipe does not say to which: the
    /// youngest request under way gets it, or else whoever listens, now or later.
    async fn unrelated(self: &Arc<Self>, asked: Option<(Id, bool)>, message: Bytes) {
        let (stream, one_request) = {
            let state = self.state();
            let youngest = state.in_flight.last();
            (
                youngest.map(|youngest| youngest.stream.clone()),
                state.one_request,
            )
        };
        if let (true, Some((id, is_ping))) = (one_request, &asked) {
            let answer = if *is_ping {
                message::pong(id)
            } else {
                message::error(
                    Some(id),
                    METHOD_NOT_FOUND,
                    "This client has no session to answer in.",
                )
            };
            return self.write_behind(answer, self.opening.clone());
        }
        if let Some(stream) = stream {
            return self.hand_over(&stream, Item::Message(message)).await;
        }
        let placed = {
            let mut state = self.state();
            let State {
                listener, backlog, ..
            } = &mut *state;
            match listener.as_ref().filter(|listener| !listener.is_closed()) {
                _ if message.len() > UNRELATED_LIMIT => false,
                Some(listener) => listener.try_send(message).is_ok(),
                None if backlog.len() < BACKLOG && !self.has_ended() => {
                    backlog.push_back(message);
                    true
                }
                None => false,
            }
        };
        if placed {
            return;
        }
        tracing::debug!(server = %self.server, "a message that nobody reads was dropped");
        if let Some((id, _)) = asked {
            let answer = message::error(Some(&id), CONNECTION_CLOSED, "The client does not listen.");
            self.write_behind(answer, self.opening.clone());
        }
    }

    async fn hand_over(&self, stream: &mpsc::Sender<Item>, item: Item) {
        tokio::select! {
            // A reader that left has had its request cancelled.
            _ = stream.send(item) => {}
            () = self.ended() => {}
        }
    }

    async fn write(self: &Arc<Self>, message: Bytes, headers: HeaderMap) -> Result<(), BridgeFault> {
        Writing::start(self, message, headers).await
    }

    /// Writes what nobody waits for.
    fn write_behind(self: &Arc<Self>, message: Bytes, headers: HeaderMap) {
        let Ok(place) = Arc::clone(&self.cancellations).try_acquire_owned() else {
            return;
        };
        let session = Arc::clone(self);
        self.runtime.spawn(async move {
            let _ = timeout(CANCELLATION, session.pipe.write(message, headers)).await;
            drop(place);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Writes the request and gives the first message that comes for it; `None` when the client cancelled it.
    pub(super) async fn first(
        &mut self,
        message: Bytes,
        headers: HeaderMap,
    ) -> Result<Option<Item>, BridgeFault> {
        self.written = true;
        self.headers.clone_from(&headers);
        let mut writing = Writing::start(&self.session, message, headers);
        // A server may answer before it has taken the whole request.
        let first = tokio::select! {
            biased;
            written = &mut writing => {
                if let Err(fault) = written {
                    // What the server refused it has not begun.
                    let refused = matches!(
                        fault,
                        BridgeFault::Credential(..) | BridgeFault::Redirect(..) | BridgeFault::Status(_)
                    );
                    self.written = !refused;
                    return Err(fault);
                }
                self.items.recv().await
            }
            first = self.items.recv() => {
                match first {
                    Some(_) => writing.let_go(),
                    // What the writing came to says why.
                    None => writing.await?,
                }
                first
            }
        };
        match &first {
            Some(Item::Message(_)) => {}
            None if self.session.has_ended() => return Err(BridgeFault::Ended),
            Some(Item::Last(_)) | None => self.answered = true,
        }
        Ok(first)
    }

    /// The answer alone; what comes before it is left out.
    pub(super) async fn answer(&mut self, message: Bytes, headers: HeaderMap) -> Result<Bytes, BridgeFault> {
        let mut item = self.first(message, headers).await?;
        loop {
            match item {
                Some(Item::Last(answer)) => {
                    self.answered = true;
                    return Ok(answer);
                }
                Some(Item::Message(_)) => item = self.items.recv().await,
                None => return Err(BridgeFault::Ended),
            }
        }
    }

    /// The next message.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let polled = self.items.poll_recv(cx);
        if let Poll::Ready(Some(Item::Last(_)) | None) = polled {
            self.answered = true;
        }
        polled
    }

    /// What the client is told when the messages stopped before the answer; nothing when it cancelled.
    pub(super) fn interrupted(&self) -> Option<Bytes> {
        let message = "The MCP server ended before its answer. The call may have been carried out.";
        self.session
            .has_ended()
            .then(|| message::error(Some(&self.id), CONNECTION_CLOSED, message))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        match self.then {
            Then::End => return self.session.end(),
            Then::EndUnlessAnswered if !self.answered => return self.session.end(),
            _ if self.answered || self.session.has_ended() => return,
            _ => {}
        }
        self.session.state().in_flight.retain(|other| other.id != self.id);
        if self.written {
            let reason = "The client went away, or did not wait any longer.";
            let headers = std::mem::take(&mut self.headers);
            self.session
                .write_behind(message::cancelled(&self.id, reason), headers);
        }
    }
}

/// A message on its way into the pipe, on the runtime that the pipe lives on. Dropped, it is given up.
struct Writing(Option<JoinHandle<Result<(), BridgeFault>>>);

impl Writing {
    fn start(session: &Arc<Session>, message: Bytes, headers: HeaderMap) -> Self {
        let writer = Arc::clone(session);
        Self(Some(session.runtime.spawn(async move {
            tokio::select! {
                written = writer.pipe.write(message, headers) => {
                    if let Err(BridgeFault::UnknownSession) = written {
                        writer.end();
                    }
                    written
                }
                () = writer.ended() => Err(BridgeFault::Ended),
            }
        })))
    }

    /// Lets it come to its end without anybody waiting.
    fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Future for Writing {
    type Output = Result<(), BridgeFault>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.0 else {
            return Poll::Ready(Err(BridgeFault::Ended));
        };
        let done = std::task::ready!(std::pin::Pin::new(task).poll(cx));
        self.0 = None;
        // A task of a runtime that is shutting down.
        Poll::Ready(done.unwrap_or(Err(BridgeFault::Ended)))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

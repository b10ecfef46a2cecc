//! What the fakes share: a listener that records every request and then does what a script says.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    DEADLINE,
    upstream::SseFeed,
    wire::{Request, read_request},
};

/// A running fake: where it listens and what it has seen. Dropping it closes its port and its connections.
pub struct Peer {
    addr: SocketAddr,
    seen: watch::Sender<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    connections: usize,
    abandoned: usize,
}

/// What to do with a request.
pub(crate) enum Action {
    /// Send these bytes, then wait for the next request.
    Answer(Vec<u8>),
    /// Send these bytes, which need not be HTTP, then close.
    AnswerThenClose(Vec<u8>),
    /// Send `start`, that many MiB of filler and `end`.
    Flood {
        start: Vec<u8>,
        mebibytes: usize,
        end: Vec<u8>,
    },
    /// Wait for a permit, then decide.
    Gate(Arc<Semaphore>, Box<dyn FnOnce() -> Action + Send>),
    /// Never answer.
    Hang,
    /// Close without a byte.
    Close,
    /// Let the test send the events.
    Sse(Vec<u8>, SseFeed),
}

/// Decides on each request, before it counts as seen.
pub(crate) type Script = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

impl Peer {
    pub(crate) async fn start(script: impl FnOnce(SocketAddr) -> Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let seen = watch::Sender::default();
        let task = tokio::spawn(accept(listener, script(addr), seen.clone()));
        Self { addr, seen, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a URL without a path.
    pub fn base(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.borrow().requests.clone()
    }

    /// Every request since this was called last, in the order of arrival; the record begins anew.
    pub fn take_requests(&self) -> Vec<Request> {
        let mut taken = Vec::new();
        self.seen
            .send_modify(|seen| taken = std::mem::take(&mut seen.requests));
        taken
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.borrow().connections
    }

    /// Resolves with all requests once there are `count`.
    ///
    /// # Panics
    /// When they do not arrive within [`DEADLINE`].
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        self.wait("requests", count, |seen| seen.requests.len()).await;
        self.requests()
    }

    /// Resolves once `count` requests were given up: the other side went away before it had the whole answer.
    ///
    /// # Panics
    /// When that does not happen within [`DEADLINE`].
    pub async fn wait_for_abandoned(&self, count: usize) {
        self.wait("abandoned requests", count, |seen| seen.abandoned)
            .await;
    }

    async fn wait(&self, what: &str, count: usize, measure: impl Fn(&Seen) -> usize) {
        let mut seen = self.seen.subscribe();
        let arrived = timeout(DEADLINE, seen.wait_for(|seen| measure(seen) >= count))
            .await
            .is_ok();
        assert!(
            arrived,
            "{}: waited {DEADLINE:?} for {count} {what}, got {}",
            self.addr,
            measure(&self.seen.borrow())
        );
    }

    /// Proves that no request line, header or body had `canary` in it, as these bytes; encoded forms are not looked for.
    ///
    /// # Panics
    /// When one had, or when the canary is empty.
    pub fn assert_never_seen(&self, canary: &str) {
        assert!(!canary.is_empty(), "an empty canary is in everything");
        for (index, request) in self.seen.borrow().requests.iter().enumerate() {
            assert!(
                !request.contains(canary),
                "{}: request {index} ({} {}) contains the canary {canary}:\n{request:#?}",
                self.addr,
                request.method,
                request.target,
            );
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The set of connections lives in this task, so that they end with it.
async fn accept(listener: TcpListener, script: Script, seen: watch::Sender<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                seen.send_modify(|seen| seen.connections += 1);
                connections.spawn(serve(stream, script.clone(), seen.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, script: Script, seen: watch::Sender<Seen>) {
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Ok(Some(request)) = read_request(&mut reader).await {
        let action = script(&request);
        seen.send_modify(|seen| seen.requests.push(request));
        match perform(action, &mut reader, &mut writer).await {
            Ok(Next::Request) => {}
            Ok(Next::Close) => return,
            Err(_) => return seen.send_modify(|seen| seen.abandoned += 1),
        }
    }
}

enum Next {
    Request,
    Close,
}

/// An error means that the other side went away first.
async fn perform(
    mut action: Action,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<Next> {
    while let Action::Gate(gate, then) = action {
        tokio::select! {
            error = gone(reader) => return Err(error),
            permit = gate.acquire() => if let Ok(permit) = permit { permit.forget() },
        }
        action = then();
    }
    match action {
        Action::Answer(bytes) => writer.write_all(&bytes).await.map(|()| Next::Request),
        Action::AnswerThenClose(bytes) => writer.write_all(&bytes).await.map(|()| Next::Close),
        Action::Flood {
            start,
            mebibytes,
            end,
        } => {
            writer.write_all(&start).await?;
            let filler = vec![b'a'; 1024 * 1024];
            for _ in 0..mebibytes {
                writer.write_all(&filler).await?;
            }
            writer.write_all(&end).await.map(|()| Next::Request)
        }
        Action::Hang | Action::Gate(..) => Err(gone(reader).await),
        Action::Close => Ok(Next::Close),
        Action::Sse(head, feed) => {
            writer.write_all(&head).await?;
            let finished = feed.run(gone(reader), writer).await?;
            Ok(if finished { Next::Request } else { Next::Close })
        }
    }
}

/// Resolves when the other side closed. One that sends more instead is there.
async fn gone(reader: &mut BufReader<OwnedReadHalf>) -> io::Error {
    match reader.fill_buf().await {
        Ok([]) => io::ErrorKind::ConnectionAborted.into(),
        Ok(_) => std::future::pending().await,
        Err(error) => error,
    }
}

//! The way in: one acceptor, one worker thread a core with its own runtime and its own connections to servers.
//! No connection moves between threads, so a call wakes nobody elsewhere.

pub(crate) mod admin;
mod connection;
pub(crate) mod console;
pub mod relay;
pub(crate) mod router;
mod user_credentials;
pub(crate) mod user_keys;

use crate::app::Worker;
use crate::live::Live;
use crate::web::error::ErrorCode;
use connection::Slot;
use router::Front;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often idle connections to servers are looked through.
const REAP_EVERY: Duration = Duration::from_secs(5);
/// Connections beyond the limit that are answered at the same time.
const MAX_PARTINGS: usize = 256;
/// How long to wait after an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A gateway that takes connections.
pub struct Gateway {
    live: Arc<Live>,
    workers: Vec<WorkerThread>,
    stop: watch::Sender<bool>,
    /// Places for those who are told that there is no place.
    partings: Arc<Semaphore>,
}

struct WorkerThread {
    connections: mpsc::UnboundedSender<Accepted>,
    /// Gives whether everything came to its end.
    thread: thread::JoinHandle<bool>,
}

/// A connection on its way to a worker.
struct Accepted {
    stream: std::net::TcpStream,
    slot: Slot,
}

impl Gateway {
    /// Starts `workers` threads; none takes work before [`Gateway::serve`].
    pub fn start(live: Arc<Live>, workers: usize) -> io::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let workers = (0..workers.max(1))
            .map(|number| {
                let (connections, accepted) = mpsc::unbounded_channel();
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let front = Arc::new(Front::new(Worker::new(Arc::clone(&live))));
                let stopping = stopping.clone();
                let thread = thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || {
                        let ended = runtime.block_on(work(front, accepted, stopping));
                        // A name that is still being looked up holds nobody up.
                        runtime.shutdown_background();
                        ended
                    })?;
                Ok(WorkerThread { connections, thread })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            live,
            workers,
            stop,
            partings: Arc::new(Semaphore::new(MAX_PARTINGS)),
        })
    }

    /// Takes connections until `until` resolves, then lets calls and streams end within the drain timeout.
    /// Gives back whether all of them did.
    pub async fn serve(self, listener: TcpListener, until: impl Future<Output = ()>) -> bool {
        let address = listener
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default();
        tokio::select! {
            () = self.accept(&listener) => {}
            () = Arc::clone(&self.live).watch(address) => {}
            () = until => {}
        }
        self.live.app().draining.store(true, Ordering::SeqCst);
        // What the kernel has accepted for us already is served, not reset.
        while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
            self.hand_over(stream, 0);
        }
        drop(listener);
        let app = self.live.app();
        let open = app.metrics.connections.get();
        tracing::info!(
            connections = open,
            "stopping: no new connections, those open may finish"
        );
        let Self {
            live, workers, stop, ..
        } = self;
        let _ = stop.send(true);
        let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
        let joined = tokio::task::spawn_blocking(move || {
            let mut whole = true;
            for thread in threads {
                // A worker that panicked did not let its connections end.
                whole &= thread.join().unwrap_or(false);
            }
            whole
        });
        let whole = joined.await.unwrap_or(false);
        app.bridges.shut_down().await;
        live.leave().await;
        app.audit.flush().await;
        whole
    }

    async fn accept(&self, listener: &TcpListener) {
        let mut next = 0;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.hand_over(stream, next);
                    next = (next + 1) % self.workers.len();
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Workers get connections in turn: calls are alike, so equal numbers are equal load.
    fn hand_over(&self, stream: TcpStream, to: usize) {
        let app = self.live.app();
        let Some(slot) = Slot::take(&app) else {
            // Who comes in greater numbers than can be told so is closed without a word.
            if let Ok(place) = Arc::clone(&self.partings).try_acquire_owned() {
                tokio::spawn(async move {
                    connection::turn_away(&app, stream, ErrorCode::TooManyConnections).await;
                    drop(place);
                });
            }
            return;
        };
        let Ok(stream) = stream.into_std() else { return };
        // The worker is gone only when the process is going.
        let _ = self.workers[to].connections.send(Accepted { stream, slot });
    }
}

/// A worker thread's whole life. Gives back whether all of its connections came to their end.
async fn work(
    front: Arc<Front>,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let mut connections = JoinSet::new();
    let mut reap = interval(REAP_EVERY);
    reap.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            next = accepted.recv() => match next {
                Some(Accepted { stream, slot }) => {
                    connections.spawn(connection::serve(Arc::clone(&front), stream, slot, stop.clone()));
                }
                None => break,
            },
            // Ended connections are forgotten as they end.
            Some(_) = connections.join_next() => {}
            _ = reap.tick() => front.worker().reap(),
            Ok(()) = stop.changed() => break,
        }
    }
    while let Ok(Accepted { stream, slot }) = accepted.try_recv() {
        connections.spawn(connection::serve(Arc::clone(&front), stream, slot, stop.clone()));
    }
    let all = async { while connections.join_next().await.is_some() {} };
    let ended = timeout(front.worker().app.limits.drain_timeout, all)
        .await
        .is_ok();
    if !ended {
        tracing::warn!(
            connections = connections.len(),
            "the drain timeout is over; what is still open is cut"
        );
    }
    ended
}

/// Binds the address, or says why not.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

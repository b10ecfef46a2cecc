//! Writes rows to the store, many at a time, and removes those that are too old. It has a task of its own; where the
//! store does not answer, rows are lost and that is said, and no call notices.

use super::trace::{Kind, Trace};
use super::{Row, Shared};
use prometheus_client::metrics::counter::Counter;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use vestibule_store::{AuditEntry, Store};

/// Rows of one write.
const BATCH: usize = 500;
/// How long the first row of a write waits for others: each write is a commit.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked whether something is to be said or removed.
const LOOK: Duration = Duration::from_secs(1);
/// How often old rows are removed, in milliseconds.
const PRUNE_EVERY: u64 = 60 * 60 * 1000;
/// Rows that are removed at once, and how often so before other rows have their turn.
const PRUNED: u32 = 1000;
const ROUNDS: usize = 20;
const DAY: u64 = 24 * 60 * 60 * 1000;

/// The task's own state.
pub(super) struct Writer {
    store: Arc<Store>,
    /// Weak, so that the task ends with the gateway.
    shared: Weak<Shared>,
    lost: Counter,
    /// Lost rows that were told of.
    told: u64,
    /// When old rows are looked for again, in milliseconds since 1970.
    prune_at: u64,
    /// The store did not take the last write.
    failing: bool,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, shared: &Arc<Shared>) -> Self {
        Self {
            store,
            shared: Arc::downgrade(shared),
            lost: shared.lost.clone(),
            told: 0,
            prune_at: 0,
            failing: false,
        }
    }

    /// Runs until nobody can record anything any more.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Row>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                got = waiting.recv_many(&mut batch, BATCH) => {
                    if got == 0 {
                        break;
                    }
                    self.take(&mut batch, &mut waiting).await;
                }
                _ = look.tick() => {
                    self.tell_of_lost().await;
                    self.prune().await;
                }
            }
        }
    }

    /// Writes what is there, and what comes in the next moment.
    async fn take(&mut self, batch: &mut Vec<Row>, waiting: &mut mpsc::Receiver<Row>) {
        let is_flush = |row: &Row| matches!(row, Row::Flush(_));
        if batch.len() < BATCH && !batch.iter().any(is_flush) {
            sleep(GATHER).await;
        }
        loop {
            while batch.len() < BATCH
                && let Ok(row) = waiting.try_recv()
            {
                batch.push(row);
            }
            if batch.is_empty() {
                return;
            }
            self.write(batch.drain(..)).await;
        }
    }

    async fn write(&mut self, rows: impl Iterator<Item = Row>) {
        let mut entries = Vec::new();
        let mut flushes: Vec<oneshot::Sender<()>> = Vec::new();
        for row in rows {
            match row {
                Row::Entry(entry) => entries.push(*entry),
                Row::Note(note, at_ms) => entries.push(note.into_entry(at_ms)),
                Row::Flush(done) => flushes.push(done),
            }
        }
        if !entries.is_empty() {
            let written = self.append(&entries).await;
            if !written {
                self.lost.inc_by(entries.len() as u64);
            }
        }
        for done in flushes {
            // Who asked may be gone.
            let _ = done.send(());
        }
    }

    /// Says once when the store stops taking rows, and once when it takes them again.
    async fn append(&mut self, entries: &[AuditEntry]) -> bool {
        let written = self.store.append_audit(entries).await;
        match &written {
            Err(error) if !self.failing => {
                tracing::error!(%error, "the record of what happened cannot be written; calls go on, and their rows are lost");
            }
            Ok(()) if self.failing => tracing::info!("the record of what happened is written again"),
            _ => {}
        }
        self.failing = written.is_err();
        written.is_ok()
    }

    /// A row that says how many there are not.
    async fn tell_of_lost(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let lost = self.lost.get();
        if lost == self.told {
            return;
        }
        let trace = Trace {
            lost: Some(lost - self.told),
            ..Trace::default()
        };
        let entry = AuditEntry {
            at_ms: shared.clock.unix_milliseconds(),
            kind: Kind::Lost.name().to_owned(),
            outcome: Some("entries_lost".to_owned()),
            trace: serde_json::to_string(&trace).ok(),
            ..AuditEntry::default()
        };
        if self.append(&[entry]).await {
            tracing::warn!(
                lost = lost - self.told,
                "rows of the record of what happened were lost"
            );
            self.told = lost;
        }
    }

    /// Removes what is older than the operator wants it. Every replica does, a few rows at a time; what is gone is gone.
    async fn prune(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let (now, days) = (
            shared.clock.unix_milliseconds(),
            shared.retention_days.load(Ordering::Relaxed),
        );
        if now < self.prune_at || days == 0 {
            return;
        }
        let before = now.saturating_sub(days.saturating_mul(DAY));
        for _ in 0..ROUNDS {
            match self.store.prune_audit(before, PRUNED).await {
                Ok(removed) if removed >= u64::from(PRUNED) => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "old rows of the record could not be removed"),
            }
            self.prune_at = now + PRUNE_EVERY;
            return;
        }
    }
}

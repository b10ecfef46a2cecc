//! The record of what happened: calls, sign-ins, changes and refusals, with who, what and how it ended. What is recorded
//! waits in memory for a moment and is then written to the store; nobody waits for that. Never a secret.

mod entry;
mod message;
pub(crate) mod note;
mod reads;
mod trace;
mod writer;

pub(crate) use reads::Turn;
pub use trace::{
    Admitted, AuditView, ClientInfo, Kind, Permitted, Refused, Shown, Step, Target, Timings, Trace, Upstream,
    Visitor,
};

use crate::clock::Clock;
use crate::config::AuditSettings;
use crate::ids::RequestId;
use crate::web::error::Refusal;
use note::Note;
use prometheus_client::metrics::counter::Counter;
use reads::Reads;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use vestibule_store::{AuditEntry, Store};
use writer::Writer;

/// Rows that wait to be written. More than that are counted and lost.
const WAITING: usize = 10_000;
/// As many of them are not about calls that went well: whoever makes many of those hides nothing else.
const RESERVED: usize = WAITING / 4;
/// Rows a second about callers that were not let in. More than that are counted and lost: whoever knocks without a
/// key does not fill the database.
const STRANGERS: u64 = 100;
/// How long the last rows may take when the gateway stops.
const LAST: Duration = Duration::from_secs(5);

/// Takes down what happened.
#[derive(Clone)]
pub struct Audit {
    /// What is recorded, as it is configured now.
    settings: AuditSettings,
    /// There with a store.
    shared: Option<Arc<Shared>>,
    lost: Counter,
    reads: Reads,
}

/// What outlives a configuration.
struct Shared {
    clock: Clock,
    rows: mpsc::Sender<Row>,
    lost: Counter,
    /// For how many days rows are kept; zero is for ever.
    retention_days: AtomicU64,
    /// The second, and how many rows about strangers it had: 40 bits and 24.
    strangers: AtomicU64,
}

/// What the writer gets.
enum Row {
    Entry(Box<AuditEntry>),
    /// A request that was answered, and when, in milliseconds since 1970.
    Note(Box<Note>, u64),
    /// Everything before this is to be written.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Kept in `store`; without one nothing is recorded. Writes run on `runtime`; `lost` counts what could not be kept.
    pub fn new(
        settings: AuditSettings,
        store: Option<&Arc<Store>>,
        clock: Clock,
        runtime: &Handle,
        lost: Counter,
    ) -> Self {
        let shared = store.map(|store| {
            let (rows, waiting) = mpsc::channel(WAITING);
            let shared = Arc::new(Shared {
                clock,
                rows,
                lost: lost.clone(),
                retention_days: AtomicU64::new(settings.retention_days),
                strangers: AtomicU64::new(0),
            });
            runtime.spawn(Writer::new(Arc::clone(store), &shared).run(waiting));
            shared
        });
        Self {
            settings,
            shared,
            lost,
            reads: Reads::default(),
        }
    }

    /// The same record under another configuration.
    #[must_use]
    pub fn configured(&self, settings: AuditSettings) -> Self {
        if let Some(shared) = &self.shared {
            shared
                .retention_days
                .store(settings.retention_days, Ordering::Relaxed);
        }
        Self {
            settings,
            ..self.clone()
        }
    }

    /// Records an entry; its time is now.
    pub fn record(&self, mut entry: AuditEntry) {
        if let Some(shared) = &self.shared {
            entry.at_ms = shared.clock.unix_milliseconds();
            shared.send(Row::Entry(Box::new(entry)));
        }
    }

    /// Records that `by` changed something: `what` is like `key.create`, `subject` is what was changed.
    pub fn changed(&self, by: &Actor, what: &str, subject: &str, id: RequestId) {
        let trace = Trace {
            subject: Some(subject.to_owned()),
            ..Trace::default()
        };
        self.record(AuditEntry {
            kind: Kind::Change.name().into(),
            request_id: Some(id.as_str().to_owned()),
            user_id: by.user.clone(),
            key_id: by.key.clone(),
            key_alias: Some(by.name.clone()),
            outcome: Some(what.to_owned()),
            trace: serde_json::to_string(&trace).ok(),
            ..AuditEntry::default()
        });
    }

    /// Records a refusal of what never became a request.
    pub(crate) fn refused_early(&self, refusal: &Refusal, address: IpAddr, id: RequestId) {
        let Some(shared) = &self.shared else { return };
        if !shared.admits_stranger(shared.clock.unix_seconds()) {
            shared.lost.inc();
            return;
        }
        let trace = Trace {
            refusal: Some(Refused {
                message: refusal.message.clone().into_owned(),
                next_step: refusal.code.next_step().to_owned(),
                ..Refused::default()
            }),
            ..Trace::default()
        };
        self.record(AuditEntry {
            kind: Kind::Refusal.name().into(),
            request_id: Some(id.as_str().to_owned()),
            address: Some(address.to_string()),
            outcome: Some(refusal.code.name().to_owned()),
            status: Some(refusal.code.status().as_u16()),
            trace: serde_json::to_string(&trace).ok(),
            ..AuditEntry::default()
        });
    }

    /// Rows that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Whose turn it is to read.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// What is recorded.
    pub fn settings(&self) -> AuditSettings {
        self.settings
    }

    /// Resolves when what was recorded before is written, or when that takes too long.
    pub async fn flush(&self) {
        let Some(shared) = &self.shared else { return };
        let whole = async {
            let (done, written) = oneshot::channel();
            if shared.rows.send(Row::Flush(done)).await.is_ok() {
                // The writer is gone only when the runtime is.
                let _ = written.await;
            }
        };
        if timeout(LAST, whole).await.is_err() {
            tracing::error!("the last rows of the record could not be written in time");
        }
    }
}

impl Shared {
    fn send(&self, row: Row) {
        if self.rows.try_send(row).is_err() {
            self.lost.inc();
        }
    }

    /// Whether a call that went well may take one of the places.
    fn has_place_for_ordinary(&self) -> bool {
        self.rows.capacity() > RESERVED
    }

    /// A note that is over.
    fn take(note: Box<Note>) {
        let is_row = match note.kind {
            Kind::Call => note.with_calls || note.is_failure(),
            Kind::SignIn => true,
            Kind::Refusal => note.refusal.is_some(),
            Kind::Change | Kind::Lost => false,
        };
        if !is_row {
            return;
        }
        let shared = Arc::clone(&note.shared);
        let is_ordinary = note.kind == Kind::Call && !note.is_failure();
        if is_ordinary && !shared.has_place_for_ordinary() {
            shared.lost.inc();
            return;
        }
        let at_ms = shared.clock.unix_milliseconds();
        let is_stranger = note.principal.is_none() && note.key.is_none();
        if is_stranger && !shared.admits_stranger(at_ms / 1000) {
            shared.lost.inc();
            return;
        }
        shared.send(Row::Note(note, at_ms));
    }

    /// Whether this second has room for another row about somebody who was not let in.
    fn admits_stranger(&self, second: u64) -> bool {
        const COUNT: u64 = (1 << 24) - 1;
        let counted = self
            .strangers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let so_far = if word >> 24 == second { word & COUNT } else { 0 };
                (so_far < STRANGERS).then_some(second << 24 | (so_far + 1))
            });
        counted.is_ok()
    }
}

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// For people: `master key`, or the key's alias or id.
    pub name: String,
    /// The person, where one is known.
    pub user: Option<String>,
    /// The key's id; nothing for the master key.
    pub key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use vestibule_store::{AuditFilter, DatabaseUrl, MasterKeys};

    #[tokio::test]
    async fn what_finds_no_place_is_counted_and_told() {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let url = DatabaseUrl::parse("sqlite::memory:").expect("a database");
        let store = Arc::new(Store::open(&url, &keys).await.expect("opens"));
        let (clock, _) = Clock::manual();
        let (settings, lost) = (AuditSettings::default(), Counter::default());
        let audit = Audit::new(settings, Some(&store), clock, &Handle::current(), lost);
        let entry = || AuditEntry {
            kind: "change".into(),
            ..AuditEntry::default()
        };
        // The writer has this thread's other task, so nothing is taken out in between.
        let shared = audit.shared.clone().expect("a store");
        for _ in RESERVED..WAITING {
            assert!(shared.has_place_for_ordinary());
            audit.record(entry());
        }
        assert!(!shared.has_place_for_ordinary(), "the rest is reserved");
        for _ in 0..RESERVED + 7 {
            audit.record(entry());
        }
        assert_eq!(audit.lost(), 7);
        audit.flush().await;
        let changes = AuditFilter {
            kinds: vec!["change".into()],
            ..AuditFilter::default()
        };
        let kept = store.audit(&changes, u32::MAX).await.expect("answers");
        assert_eq!(kept.len(), WAITING);
        let told = AuditFilter {
            kinds: vec!["lost".into()],
            ..AuditFilter::default()
        };
        let row = loop {
            if let Some(row) = store.audit(&told, 1).await.expect("answers").pop() {
                break AuditView::from(row);
            }
        };
        assert_eq!(row.trace.lost, Some(7));
    }
}

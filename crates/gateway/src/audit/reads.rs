//! Turns to read the record. A read may be long and an export is, so a caller has one at a time: they share what few the
//! store has.

use crate::web::error::{ErrorCode, Refusal};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// So long a page waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(2);
/// When a caller may ask again.
const AGAIN: Duration = Duration::from_secs(1);

/// Who reads just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Arc<Mutex<HashMap<Vec<u8>, Weak<Semaphore>>>>);

/// A caller's turn. It is over when nobody holds it any more: neither the answer nor a statement under way.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    _held: Arc<OwnedSemaphorePermit>,
}

impl Reads {
    /// A turn of this caller's.
    ///
    /// # Errors
    /// [`ErrorCode::AuditBusy`] while there is another one.
    pub(crate) fn begin(&self, caller: &[u8]) -> Result<Turn, Refusal> {
        let held = self.of(caller).try_acquire_owned();
        held.map(Turn::new).map_err(|_| busy())
    }

    /// A turn of this caller's, after the one that will be over in a moment.
    ///
    /// # Errors
    /// [`ErrorCode::AuditBusy`] when it is not.
    pub(crate) async fn soon(&self, caller: &[u8]) -> Result<Turn, Refusal> {
        match timeout(PATIENCE, self.of(caller).acquire_owned()).await {
            Ok(Ok(held)) => Ok(Turn::new(held)),
            _ => Err(busy()),
        }
    }

    fn of(&self, caller: &[u8]) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(caller).and_then(Weak::upgrade) {
            return turns;
        }
        all.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(1));
        all.insert(caller.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

impl Turn {
    fn new(held: OwnedSemaphorePermit) -> Self {
        Self {
            _held: Arc::new(held),
        }
    }
}

fn busy() -> Refusal {
    let mut refusal = Refusal::new(ErrorCode::AuditBusy);
    refusal.retry_after = Some(AGAIN);
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_has_one_turn_at_a_time_and_nobody_waits_for_another_caller() {
        let reads = Reads::default();
        let first = reads.begin(b"a").expect("a turn");
        let statement = first.clone();
        let busy = reads.begin(b"a").expect_err("one at a time");
        assert_eq!((busy.code, busy.retry_after), (ErrorCode::AuditBusy, Some(AGAIN)));
        drop(reads.begin(b"b").expect("another's turn"));
        let (waited, ()) = tokio::join!(reads.soon(b"a"), async {
            drop(first);
            assert!(reads.begin(b"a").is_err(), "the statement goes on");
            drop(statement);
        });
        drop(waited.expect("after that"));
        drop(reads.begin(b"a").expect("a turn"));
        drop(reads.begin(b"c").expect("a turn"));
        assert_eq!(reads.0.lock().expect("locked").len(), 1, "nobody is remembered");
    }
}

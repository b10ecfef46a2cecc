//! Time as an argument. Nothing else in this crate asks the system what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's clocks.
    System {
        /// The zero of [`Clock::now`].
        started: Instant,
    },
    /// A clock that a test moves; milliseconds since its zero.
    Manual(Arc<AtomicU64>),
}

/// A point on the monotonic clock, as the distance from the clock's zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// `self` moved on by `distance`.
    #[must_use]
    pub fn plus(self, distance: Duration) -> Self {
        Self(self.0.saturating_add(distance))
    }

    /// How far `other` is ahead of `self`; zero when it is not.
    pub fn until(self, other: Self) -> Duration {
        other.0.saturating_sub(self.0)
    }
}

impl Clock {
    /// The system's clocks, with now as zero.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn system() -> Self {
        Self::System {
            started: Instant::now(),
        }
    }

    /// A clock that stands still until its counter is moved.
    pub fn manual() -> (Self, Arc<AtomicU64>) {
        let counter = Arc::new(AtomicU64::new(0));
        (Self::Manual(Arc::clone(&counter)), counter)
    }

    /// Monotonic time, for everything that is kept in memory.
    pub fn now(&self) -> Moment {
        match self {
            Self::System { started } => Moment(started.elapsed()),
            Self::Manual(counter) => Moment(Duration::from_millis(counter.load(Ordering::SeqCst))),
        }
    }

    /// Seconds since 1970, for what outlives the process.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_milliseconds() / 1000
    }

    /// Milliseconds since 1970, for leases between processes.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn unix_milliseconds(&self) -> u64 {
        match self {
            Self::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Self::Manual(counter) => 1_000_000_000_000 + counter.load(Ordering::SeqCst),
        }
    }
}

//! What this process knows about whether a server answers: the outcome of the last look, when a call last came back,
//! and why one last did not. It ends with the server's configuration. Looking is done elsewhere.

use crate::web::error::ErrorCode;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// For so long a call says whether the server answers.
const RECENT: u64 = 300;

/// The state of one server.
#[derive(Default)]
pub struct Health {
    /// When a call last came back with success, in seconds since 1970.
    answered: AtomicU64,
    /// When a call last failed on its way.
    failed: ArcSwapOption<Look>,
    last: ArcSwapOption<Look>,
    /// One look at a time.
    looking: Mutex<()>,
}

/// A look at a server, or a call that was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When, in seconds since 1970.
    at: u64,
    /// Since when the status is this one.
    since: u64,
    fault: Option<HealthFault>,
}

/// Why a server is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthFault {
    /// Its code.
    pub code: ErrorCode,
    /// The step that failed.
    pub step: Step,
    /// A sentence.
    pub message: String,
}

/// A step on the way to a session with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Getting what the server is shown.
    Credential,
    /// Reaching the server.
    Connect,
    /// Opening the session.
    Session,
}

/// Whether a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Healthy,
    /// It does not.
    Unhealthy,
    /// Nobody looked, or nobody but a person can.
    Unknown,
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether it answers.
    pub status: Status,
    /// When that was last seen, in seconds since 1970.
    pub seen: Option<u64>,
    /// Since when it is so, as far as that is known.
    pub since: Option<u64>,
    /// Why it is not healthy.
    pub fault: Option<HealthFault>,
}

impl Health {
    /// A call came back with success.
    pub fn answered(&self, now: u64) {
        self.answered.store(now, Ordering::Relaxed);
    }

    /// A call failed on its way to the server, or at the server itself. It keeps nobody from looking.
    pub fn failed(&self, fault: HealthFault, now: u64) {
        let before = self.failed.load();
        let answered = self.answered.load(Ordering::Relaxed);
        let since = before
            .as_ref()
            .filter(|before| before.at > answered && now.saturating_sub(before.at) < RECENT)
            .map_or(now, |before| before.since);
        self.failed.store(Some(Arc::new(Look {
            at: now,
            since,
            fault: Some(fault),
        })));
    }

    /// Waits until nobody else looks.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// Whether something was seen within so many seconds.
    pub fn seen_within(&self, seconds: u64, now: u64) -> bool {
        let looked = self.last.load().as_ref().map(|look| look.at);
        let answered = Some(self.answered.load(Ordering::Relaxed)).filter(|at| *at > 0);
        looked
            .max(answered)
            .is_some_and(|at| now.saturating_sub(at) < seconds)
    }

    /// Notes the outcome of a look.
    pub fn looked(&self, fault: Option<HealthFault>, now: u64) {
        let before = self.last.load();
        let since = before
            .as_ref()
            .filter(|before| before.fault.is_none() == fault.is_none())
            .map_or(now, |before| before.since);
        self.last.store(Some(Arc::new(Look {
            at: now,
            since,
            fault,
        })));
    }

    /// What is known at `now`.
    pub fn report(&self, now: u64) -> Report {
        let answered = self.answered.load(Ordering::Relaxed);
        let is_recent = |at: u64| now.saturating_sub(at) < RECENT;
        let answers = answered > 0 && is_recent(answered);
        let failed = self.failed.load_full().filter(|failed| is_recent(failed.at));
        // The later one; of two at once the look, which asks nothing special.
        let seen = [failed, self.last.load_full()].into_iter().flatten();
        let look = seen.max_by_key(|look| look.at);
        let look = look.as_deref();
        match look {
            Some(look) if !answers || look.at > answered || look.fault.is_none() => Report {
                status: if look.fault.is_none() {
                    Status::Healthy
                } else {
                    Status::Unhealthy
                },
                seen: Some(look.at.max(if answers && look.fault.is_none() {
                    answered
                } else {
                    0
                })),
                since: Some(look.since),
                fault: look.fault.clone(),
            },
            _ if answers => Report {
                status: Status::Healthy,
                seen: Some(answered),
                since: None,
                fault: None,
            },
            _ => Report {
                status: Status::Unknown,
                seen: None,
                since: None,
                fault: None,
            },
        }
    }
}

impl Status {
    /// As LiteLLM has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

impl Step {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Connect => "connect",
            Self::Session => "session",
        }
    }

    /// The step that a refusal with this code broke off.
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::TokenRefused
            | ErrorCode::TokenEndpointUnreachable
            | ErrorCode::TokenEndpointTimeout
            | ErrorCode::TokenEndpointRedirect
            | ErrorCode::TokenResponseInvalid
            | ErrorCode::TokenEndpointUnknown
            | ErrorCode::SigningFailed
            | ErrorCode::RoleRefused
            | ErrorCode::StsUnreachable
            | ErrorCode::StsAnswerInvalid
            | ErrorCode::StsTimeout => Self::Credential,
            ErrorCode::UpstreamUnreachable
            | ErrorCode::UpstreamConnectTimeout
            | ErrorCode::ServerNotStarted
            | ErrorCode::ServerRestarting
            | ErrorCode::TooManySessions
            | ErrorCode::TooManyProcesses => Self::Connect,
            _ => Self::Session,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> HealthFault {
        HealthFault {
            code: ErrorCode::UpstreamUnreachable,
            step: Step::Connect,
            message: "The server cannot be reached.".into(),
        }
    }

    #[test]
    fn the_latest_news_counts_and_since_stays_while_nothing_changes() {
        let health = Health::default();
        assert_eq!(health.report(1000).status, Status::Unknown);
        assert!(!health.seen_within(10, 1000));
        health.looked(Some(fault()), 1000);
        health.looked(Some(fault()), 1010);
        let report = health.report(1011);
        assert_eq!(
            (report.status, report.seen, report.since, report.fault),
            (Status::Unhealthy, Some(1010), Some(1000), Some(fault()))
        );
        assert!(health.seen_within(10, 1019) && !health.seen_within(10, 1020));
        // A call came back: that is later news than the look.
        health.answered(1020);
        assert_eq!(health.report(1021).status, Status::Healthy);
        health.looked(Some(fault()), 1030);
        assert_eq!(health.report(1030).since, Some(1000));
        assert_eq!(health.report(1030).status, Status::Unhealthy);
        health.looked(None, 1040);
        health.answered(1050);
        let report = health.report(1051);
        assert_eq!(
            (report.status, report.seen, report.since),
            (Status::Healthy, Some(1050), Some(1040))
        );
    }

    #[test]
    fn a_call_that_failed_is_news_for_a_while_and_stands_in_for_no_look() {
        let health = Health::default();
        health.failed(fault(), 1000);
        health.failed(fault(), 1005);
        let report = health.report(1006);
        assert_eq!(
            (report.status, report.seen, report.since, report.fault),
            (Status::Unhealthy, Some(1005), Some(1000), Some(fault()))
        );
        assert!(!health.seen_within(10, 1006));
        health.answered(1010);
        assert_eq!(health.report(1010).status, Status::Healthy);
        health.failed(fault(), 1020);
        assert_eq!(health.report(1020).since, Some(1020));
        health.looked(None, 1030);
        assert_eq!(health.report(1030).status, Status::Healthy);
        health.failed(fault(), 1040);
        assert_eq!(health.report(1339).status, Status::Unhealthy);
        // What was looked at is what is left.
        assert_eq!(health.report(1340).status, Status::Healthy);
    }

    #[test]
    fn an_old_call_says_nothing() {
        let health = Health::default();
        health.answered(1000);
        assert_eq!(health.report(1299).status, Status::Healthy);
        assert_eq!(health.report(1300).status, Status::Unknown);
    }
}

//! `vestibule doctor`: the walk to one MCP server, step by step as a call or a sign-in takes it, and what to change
//! where it fails. Steps and findings are data; printing is the command's. The command line alone calls this, so it
//! may look at every part of the gateway.

mod advice;
mod brought;
mod endpoint;
mod event_stream;
mod exchange;
mod metadata;
mod mode;
mod network;
mod program;
mod registration;
mod signed;
mod talk;
mod token;
mod walk;

pub use advice::Advice;
pub use walk::{Examined, Options, Unusable, examine};

use serde::Serialize;
use std::time::Duration;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It could not be taken, for want of something that is no fault.
    Skipped,
    /// As it should be.
    Ok,
    /// It works, and may not for everybody or for ever.
    Warning,
    /// It does not work.
    Fault,
}

/// A step that was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Its stable name.
    pub name: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// What was seen. No secret, no query of a URL, nothing that could start a line.
    pub seen: String,
    /// How long it took.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds")]
    pub took: Duration,
    /// Single requests with what came of each, where there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<Advice>,
}

fn milliseconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// What a step found, before its name and time.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    seen: String,
    tried: Vec<String>,
    advice: Vec<Advice>,
}

impl Finding {
    fn new(verdict: Verdict, seen: impl Into<String>) -> Self {
        Self {
            verdict,
            seen: seen.into(),
            tried: Vec::new(),
            advice: Vec::new(),
        }
    }

    fn ok(seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, seen)
    }

    fn warning(seen: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, seen)
    }

    fn fault(seen: impl Into<String>) -> Self {
        Self::new(Verdict::Fault, seen)
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, why)
    }

    fn tried(mut self, tried: Vec<String>) -> Self {
        self.tried = tried;
        self
    }

    fn advise(mut self, advice: impl IntoIterator<Item = Advice>) -> Self {
        for one in advice {
            if !self.advice.contains(&one) {
                self.advice.push(one);
            }
        }
        self
    }
}

/// A whole walk.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The server's name.
    pub server: String,
    /// Its endpoint, without query; of a program `stdio:` and its name.
    pub url: String,
    /// `auth_type`, of `oauth2` the flow, and the transport where that is not `http`.
    pub mode: String,
    /// The steps in their order.
    pub steps: Vec<Step>,
}

impl Report {
    /// How many steps came to `verdict`.
    pub fn count(&self, verdict: Verdict) -> usize {
        let all = self.steps.iter();
        all.filter(|step| step.verdict == verdict).count()
    }

    /// Whether anything does not work.
    pub fn failed(&self) -> bool {
        self.count(Verdict::Fault) > 0
    }
}

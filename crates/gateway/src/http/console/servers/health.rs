//! Whether a server answers, in words: since when, and why not. Whether people are signed in is another matter.

use crate::http::admin::servers::health::HealthView;
use crate::http::console::parts::{Tone, chip, time};
use crate::registry::health::Status;
use maud::{Markup, html};

/// The state alone.
pub(super) fn state(health: &HealthView) -> Markup {
    match health.report.status {
        Status::Healthy => chip(Tone::Good, "healthy"),
        Status::Unhealthy => chip(Tone::Bad, "unhealthy"),
        Status::Unknown => chip(Tone::Plain, "health unknown"),
    }
}

/// The state with its cause. `cause` says whether the sentence is for these eyes: addresses may stand in it.
pub(super) fn told(health: &HealthView, cause: bool, now: u64) -> Markup {
    let report = &health.report;
    html! {
        div.stack {
            div.row {
                (state(health))
                @if let Some(since) = report.since { span.quiet { "since " (time(now, since)) } }
                @if let Some(seen) = report.seen { span.quiet { "seen " (time(now, seen)) } }
            }
            @if let Some(fault) = &report.fault {
                p {
                    code { (fault.code.name()) }
                    @if cause { " " (fault.message) " " (fault.code.next_step()) }
                }
            } @else if report.status == Status::Unknown {
                p.quiet { (health.unseen.unwrap_or("Nobody has looked yet.")) }
            }
        }
    }
}

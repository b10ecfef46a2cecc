//! A server as its form has it, tried once before it is saved: its tools, or why they cannot be had. Nothing of it is
//! kept.

use super::probe::{Probed, address, probe};
use crate::admission::Admission;
use crate::audit::Actor;
use crate::http::admin::servers::health::HealthView;
use crate::http::admin::servers::trial::{Preview, preview};
use crate::http::console::parts::{Tone, note};
use crate::http::console::session::Visit;
use crate::http::relay::rest;
use crate::http::relay::upstream_client::Caller;
use crate::ids::RequestId;
use crate::registry::health::Step;
use crate::web::error::{Refusal, shown};
use http::HeaderMap;
use maud::{Markup, html};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The most tools that are named, and the longest names.
const TOOLS_SHOWN: usize = 100;
const NAME_SHOWN: usize = 200;

/// What a try came to.
pub(super) struct Tried {
    outcome: Outcome,
    /// What is at its address, where that tells more.
    probed: Option<Probed>,
}

enum Outcome {
    /// The names of its tools.
    Listed(Vec<String>),
    /// Nobody asks it with what the gateway has.
    Unasked(&'static str),
    Failed(Refusal, RequestId),
    TooMany,
}

/// Tries the server that `body` describes, with what the gateway itself has for it.
///
/// # Errors
/// What is wrong with `body`.
pub(super) async fn attempt(
    visit: &Visit,
    actor: &Actor,
    body: Map<String, Value>,
) -> Result<Tried, Refusal> {
    let app = &visit.worker.app;
    if !app.console.probes.admits() {
        return Ok(Outcome::TooMany.into());
    }
    let url = body.get("url").and_then(Value::as_str).and_then(address);
    let preview = preview(&visit.worker, body).await?;
    app.audit
        .changed(actor, "server.try", &preview.server.name, visit.id);
    let outcome = asked(visit, &preview).await;
    let probed = match (&outcome, url) {
        (Outcome::Unasked(_) | Outcome::Failed(..), Some(url)) => Some(probe(app, &url).await),
        _ => None,
    };
    Ok(Tried { outcome, probed })
}

async fn asked(visit: &Visit, preview: &Preview) -> Outcome {
    if let Some(why) = HealthView::of(&preview.server, visit.now()).unseen {
        return Outcome::Unasked(why);
    }
    let admission = Admission::of_session(visit.admission.principal.clone(), visit.user().cloned());
    let caller = Caller::new(&preview.worker, &Arc::new(admission), &HeaderMap::new()).without_mirrored();
    match rest::tools_tried(&caller, &preview.server).await {
        Ok(listing) => {
            let names = listing.tools.iter().filter_map(|tool| tool["name"].as_str());
            Outcome::Listed(names.map(|name| shown(name, NAME_SHOWN)).collect())
        }
        Err(refusal) => {
            let refusal = visit.worker.refuse(refusal, Some(&preview.server), visit.id);
            Outcome::Failed(refusal, visit.id)
        }
    }
}

impl From<Outcome> for Tried {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            probed: None,
        }
    }
}

impl Tried {
    /// For the page.
    pub(super) fn html(&self) -> Markup {
        html! {
            section.card aria-labelledby="tried-title" {
                h2 #tried-title { "Tried" }
                (self.outcome.html())
                @if let Some(probed) = &self.probed {
                    h3 { "What is at its address" }
                    (probed.html())
                }
                p.quiet { "Nothing of this was saved." }
            }
        }
    }
}

impl Outcome {
    fn html(&self) -> Markup {
        match self {
            Self::Listed(names) => {
                let more = names.len().saturating_sub(TOOLS_SHOWN);
                note(
                    if names.is_empty() { Tone::Warn } else { Tone::Good },
                    &html! {
                        p { "The server answered and lists " (names.len()) @if names.len() == 1 { " tool" } @else { " tools" } "." }
                        @if !names.is_empty() {
                            ul {
                                @for name in names.iter().take(TOOLS_SHOWN) { li { code { (name) } } }
                                @if more > 0 { li { "and " (more) " more" } }
                            }
                        }
                    },
                )
            }
            Self::Unasked(why) => note(
                Tone::Plain,
                &html! { p { (why) " Its tools can be tried when it is saved." } },
            ),
            Self::Failed(refusal, id) => note(
                Tone::Bad,
                &html! {
                    p { (refusal.message) }
                    p { (refusal.code.next_step()) }
                    p.quiet { code { (refusal.code.name()) } ", in the step " (Step::of(refusal.code).name()) }
                    p.quiet { "Request id: " code { (id) } }
                },
            ),
            Self::TooMany => note(
                Tone::Warn,
                &html! { p { "Too many tries at once; wait some seconds and try again." } },
            ),
        }
    }
}

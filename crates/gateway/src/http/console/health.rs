//! How the gateway is: processes, database, keys that rows are sealed with, token endpoints, configuration.

use super::Answer;
use super::layout::Section;
use super::parts::{Tone, chip, encoded, facts, note, table, time};
use super::session::{AdminVisit, Visit};
use crate::config::{LeftOut, Problem, Severity};
use crate::credentials::CredentialSource;
use crate::credentials::machine::Standing;
use crate::live::Status;
use crate::web::error::Refusal;
use maud::{Markup, html};
use vestibule_store::reseal::KeyUse;
use vestibule_store::{Instance, StoreError};

/// A process that was silent for so many seconds is not there.
const SILENT: u64 = 30;

/// What the store says.
struct Kept {
    kind: &'static str,
    instances: Vec<Instance>,
    keys: Vec<KeyUse>,
    source: String,
    seals: Option<String>,
}

/// `GET /ui/health`.
pub(super) async fn page(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let now = visit.now();
    let kept = visit
        .store(move |store| async move {
            let ring = store.ring();
            Ok::<_, StoreError>(Kept {
                kind: store.kind(),
                instances: store.instances(now, SILENT).await?,
                source: ring.source().to_string(),
                seals: ring.ids().first().map(ToString::to_string),
                keys: store.keys_in_use().await?,
            })
        })
        .await;
    let judged = visit.worker.live.judged_with(|_| {}).await;
    let status = visit.worker.live.status();
    let content = html! {
        div.head { h1 { "Health" } (overall(&status, &kept, &judged.left_out)) }
        (configuration(&visit, &status, &judged.findings, &judged.left_out))
        (idle_limits(&visit))
        div.cards {
            (gateway(&visit).await)
            (database(&status, &kept))
            (key_ring(&kept))
        }
        (token_endpoints(&visit))
        (replicas(&visit, &kept))
        p.quiet {
            "One server that does not work is looked into with " code { "vestibule doctor SERVER" }
            " where the gateway runs; it says what to change."
        }
    };
    visit.page(Section::Health, "Health", &content)
}

fn overall(status: &Status, kept: &Result<Kept, Refusal>, left_out: &[LeftOut]) -> Markup {
    if kept.is_err() || status.store_fault.is_some() {
        chip(Tone::Bad, "database does not answer")
    } else if status.fault.is_some() || !left_out.is_empty() {
        chip(Tone::Warn, "configuration has problems")
    } else {
        chip(Tone::Good, "in order")
    }
}

async fn gateway(visit: &Visit) -> Markup {
    let live = &visit.worker.live;
    let metrics = &visit.worker.app.metrics;
    html! {
        section.card aria-labelledby="gateway" {
            h2 #gateway { "This process" }
            (facts([
                ("Version", html! { (env!("CARGO_PKG_VERSION")) }),
                ("Called as", html! { code { (visit.origin) } }),
                ("Servers", html! { (visit.worker.app.registry.all().len()) }),
                ("Open connections", html! { (metrics.connections.get()) }),
                ("Open streams", html! { (metrics.streams.get()) }),
                ("Configuration", html! { code { (live.revision().await) } }),
                ("In use since", time(visit.now(), live.status().since)),
                ("Lost audit entries", html! { (visit.worker.app.audit.lost()) }),
            ]))
        }
    }
}

fn database(status: &Status, kept: &Result<Kept, Refusal>) -> Markup {
    html! {
        section.card aria-labelledby="database" {
            div.row.between {
                h2 #database { "Database" }
                @if kept.is_ok() && status.store_fault.is_none() { (chip(Tone::Good, "answers")) }
                @else { (chip(Tone::Bad, "does not answer")) }
            }
            @if let Ok(kept) = kept { (facts([("Kind", html! { (kept.kind) })])) }
            @if let Some(fault) = &status.store_fault { p { (fault) } }
        }
    }
}

fn key_ring(kept: &Result<Kept, Refusal>) -> Markup {
    html! {
        section.card aria-labelledby="ring" {
            h2 #ring { "Key ring" }
            @if let Ok(kept) = kept {
                (facts([("Source", html! { (kept.source) })]))
                ul {
                    @for key in &kept.keys {
                        @let name = key.key.map_or_else(|| "unknown key".to_owned(), |key| key.to_string());
                        li {
                            code { (name) } ": " (key.rows) @if key.rows == 1 { " row" } @else { " rows" }
                            @if kept.seals.as_ref() == Some(&name) { ", seals" }
                        }
                    }
                }
                p.quiet { code { "vestibule keys rotate" } " puts a new key first; " code { "vestibule keys retire" }
                    " drops those that no row needs." }
            } @else { p { "The database does not answer." } }
        }
    }
}

/// Of the servers that the gateway itself signs in to.
fn token_endpoints(visit: &Visit) -> Markup {
    let servers = visit.worker.app.registry.all().iter();
    let slots = servers.filter_map(|server| match &server.credential {
        CredentialSource::Machine(slot) => Some((&server.name, slot.standing())),
        _ => None,
    });
    let slots: Vec<_> = slots.collect();
    let rows = html! {
        @for (name, standing) in &slots {
            tr {
                td.wrap data-label="Server" { (name) }
                td data-label="Last request" {
                    @match standing {
                        Standing::NotAsked => (chip(Tone::Plain, "none yet")),
                        Standing::Good => (chip(Tone::Good, "gave a token")),
                        Standing::Failed(_) => (chip(Tone::Bad, "failed")),
                    }
                }
                td.wrap data-label="Why" { @if let Standing::Failed(fault) = standing { (fault) } }
            }
        }
    };
    html! {
        @if !slots.is_empty() {
            section.stack aria-labelledby="endpoints" {
                h2 #endpoints { "Token endpoints" }
                (table("Token endpoints", &["Server", "Last request of this process", "Why"], &rows))
            }
        }
    }
}

fn replicas(visit: &Visit, kept: &Result<Kept, Refusal>) -> Markup {
    let Ok(kept) = kept else { return html! {} };
    let now = visit.now();
    let revisions: Vec<&str> = kept
        .instances
        .iter()
        .map(|one| one.config_revision.as_str())
        .collect();
    let differ = revisions.windows(2).any(|pair| pair[0] != pair[1]);
    let rows = html! {
        @for one in &kept.instances {
            tr {
                td data-label="Address" {
                    code { (one.address) }
                    @if one.id == visit.worker.live.instance() { " " (chip(Tone::Plain, "this one")) }
                }
                td data-label="Version" { (one.version) }
                td data-label="Configuration" { code { (one.config_revision) } }
                td data-label="Started" { (time(now, one.started_at)) }
                td data-label="Last heard" { (time(now, one.seen_at)) }
            }
        }
    };
    html! {
        section.stack aria-labelledby="replicas" {
            h2 #replicas { "Replicas" }
            @if differ {
                (note(Tone::Warn, &html! { p { "Not all replicas have the same configuration." } }))
            }
            (table("Replicas", &["Address", "Version", "Configuration", "Started", "Last heard"], &rows))
        }
    }
}

/// Limits of keys that were for servers which are gone, or called otherwise in the file.
fn idle_limits(visit: &Visit) -> Markup {
    let app = visit.worker.live.app();
    let mut keys = app.keys.all();
    keys.retain(|key| !key.document.idle_limits(&app.registry).is_empty());
    keys.sort_by(|a, b| (&a.alias, &a.id).cmp(&(&b.alias, &b.id)));
    html! {
        @if !keys.is_empty() {
            section.note.warn aria-labelledby="limits" {
                h2 #limits { "Tool limits for no server" }
                p { "These keys have tool limits for servers that there are not. A server that has another name and id now \
                    is not limited by them; say the limits again for it, or take them away." }
                ul {
                    @for key in &keys {
                        li {
                            a href={ "/ui/keys/" (encoded(&key.id)) } { (key.alias.as_deref().unwrap_or(&key.id)) }
                            ": " (key.document.idle_limits(&app.registry).join(", "))
                        }
                    }
                }
            }
        }
    }
}

fn configuration(visit: &Visit, status: &Status, findings: &[Problem], left_out: &[LeftOut]) -> Markup {
    // With a fault the findings are those of the text that is not in use.
    let findings = if status.fault.is_some() {
        &status.findings
    } else {
        findings
    };
    let mut worth: Vec<&Problem> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Note)
        .collect();
    worth.sort_by_key(|finding| finding.severity);
    html! {
        @if let Some(fault) = &status.fault {
            div.note.bad { p { strong { (fault) } } }
        }
        @if !worth.is_empty() {
            section.note.warn aria-labelledby="findings" {
                h2 #findings { "What the configuration file says" }
                @if let Some(path) = visit.worker.live.path() { p.quiet { (path.display()) } }
                ul { @for finding in worth { li { (finding) } } }
            }
        }
        @for server in left_out {
            section.note.bad {
                h2 { "The stored server " (server.name) " is left out" }
                ul { @for problem in &server.problems { li { (problem) } } }
            }
        }
    }
}

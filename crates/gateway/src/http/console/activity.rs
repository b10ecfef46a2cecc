//! What happened: the record of calls, sign-ins, changes and refusals as it grows; one request with the way it took, one
//! sign-in with its steps. Admins see everybody's, others their own.

use super::Answer;
use super::forms::Fields;
use super::layout::{Section, fragment};
use super::parts::{Field, Tone, chip, empty, encoded, facts, table, time};
use super::session::{AdminVisit, Visit};
use crate::audit::{AuditView, Kind, Trace, Visitor};
use crate::http::admin::audit::{self, Page, Query, Reader, Scope};
use crate::web::error::{ErrorCode, Refusal};
use axum::body::Body;
use axum::extract::Path;
use http::Response;
use maud::{Markup, html};
use vestibule_store::AuditFilter;

/// How often the script looks for more, in milliseconds.
const EVERY: u32 = 3000;
/// What can be asked for, in the order of the form: what people call it, and what it is called in the query.
const FILTERS: [(&str, &str); 4] = [
    ("Person", "user_id"),
    ("Server", "server"),
    ("Tool", "tool"),
    ("Outcome or code", "outcome"),
];
/// Every parameter of the page but `before`, which is another page.
const PARAMETERS: [&str; 9] = [
    "kind", "user_id", "server", "tool", "outcome", "flow", "key_id", "since", "until",
];
/// Kinds with what people call them.
const KINDS: [(&str, &str); 5] = [
    ("", "everything"),
    ("call", "calls"),
    ("sign_in", "sign-ins"),
    ("change", "changes"),
    ("refusal", "refusals"),
];

/// `GET /ui/activity`.
pub(super) async fn page(visit: Visit) -> Answer {
    let asked = visit.query();
    let content = rows(&visit, &asked).await;
    let content = content.map(|found| whole(&visit, &asked, &found));
    visit.show(Section::Activity, "Activity", content)
}

/// `GET /ui/activity/rows`: the same rows, for the script.
pub(super) async fn live(visit: Visit) -> Answer {
    match rows(&visit, &visit.query()).await {
        Ok(found) => fragment(list(&visit, &found)),
        Err(refusal) => visit.refusal(refusal),
    }
}

/// `GET /ui/activity/export`.
pub(super) async fn export(AdminVisit { visit, .. }: AdminVisit) -> Response<Body> {
    let exported = async {
        let query = read(&visit.query())?;
        let principal = &visit.admission.principal;
        let reader = Reader::now(&visit.worker, principal, Scope::All)?;
        audit::exported_by(&visit.worker, principal, reader, query).await
    };
    match exported.await {
        Ok(response) => response,
        Err(refusal) => visit.refusal(refusal),
    }
}

/// `GET /ui/activity/{request}`.
pub(super) async fn one(visit: Visit, Path(request): Path<String>) -> Answer {
    let content = shown(&visit, &request).await;
    visit.show(Section::Activity, "One request", content)
}

/// Whose rows they see. A page waits for the one before it, as when the script has just looked for more.
async fn reader(visit: &Visit) -> Result<Reader, Refusal> {
    let scope = Scope::of(&visit.admission, !visit.is_admin())?;
    Reader::soon(&visit.worker, &visit.admission.principal, scope).await
}

/// What the page was asked for.
fn read(asked: &Fields) -> Result<Query, Refusal> {
    let before = asked.filled("before").map(|before| ("before", before));
    Query::parse(&query_with(asked, before))
}

/// The query of the page, without what is empty, and with one parameter more.
fn query_with(asked: &Fields, more: Option<(&str, &str)>) -> String {
    let filled = PARAMETERS
        .into_iter()
        .filter_map(|name| Some((name, asked.filled(name)?)));
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(filled.chain(more))
        .finish()
}

async fn rows(visit: &Visit, asked: &Fields) -> Result<Page, Refusal> {
    let query = read(asked)?;
    audit::page(&visit.worker, &reader(visit).await?, &query).await
}

fn whole(visit: &Visit, asked: &Fields, found: &Page) -> Markup {
    let query = visit.parts.uri.query().unwrap_or_default();
    let first = asked.filled("before").is_none();
    html! {
        div.head {
            div {
                h1 { "Activity" }
                p.quiet {
                    @if visit.is_admin() { "Calls, sign-ins, changes and refusals, the newest first." }
                    @else { "What you did, the newest first." }
                }
            }
            div.row {
                @if first { button type="button" data-pause aria-pressed="false" hidden { "Pause" } }
                @if visit.is_admin() {
                    a.button href={ "/ui/activity/export?" (query) } { "Export as JSON lines" }
                }
            }
        }
        (filters(visit, asked))
        @if first {
            section data-live={ "/ui/activity/rows?" (query) } data-every=(EVERY) aria-label="Entries" {
                (list(visit, found))
            }
        } @else {
            section aria-label="Entries" { (list(visit, found)) }
        }
        @if let Some(before) = found.next {
            a.button href={ "/ui/activity?" (query_with(asked, Some(("before", &before.to_string())))) } { "Older entries" }
        }
    }
}

fn filters(visit: &Visit, asked: &Fields) -> Markup {
    let field = |label, name| Field {
        label,
        name,
        value: asked.get(name),
        ..Field::default()
    };
    html! {
        form.card method="get" action="/ui/activity" role="search" aria-label="Filter" {
            div.filters {
                (field("Kind", "kind").choice(&KINDS))
                @for (label, name) in FILTERS {
                    @if visit.is_admin() || name != "user_id" { (field(label, name).html()) }
                }
                div.row { button type="submit" { "Show" } a.button href="/ui/activity" { "Everything" } }
            }
        }
    }
}

fn list(visit: &Visit, found: &Page) -> Markup {
    if found.entries.is_empty() {
        return empty(
            "Nothing here",
            "Nothing is recorded that fits. Entries appear here as soon as servers are called or people sign in.",
            &html! {},
        );
    }
    let now = visit.now();
    let rows = html! { @for entry in &found.entries { (row(entry, now)) } };
    table(
        "Entries",
        &["When", "Kind", "Who", "Server", "What", "Outcome", "Took"],
        &rows,
    )
}

fn row(entry: &AuditView, now: u64) -> Markup {
    html! {
        tr {
            td.nowrap data-label="When" { (time(now, entry.at_ms / 1000)) }
            td data-label="Kind" { (kind(entry)) }
            td data-label="Who" { (who(entry)) }
            td data-label="Server" { (entry.server.as_deref().unwrap_or("")) }
            td.wrap data-label="What" { (link(entry)) }
            td data-label="Outcome" { (outcome(entry)) }
            td.number data-label="Took" {
                @if let Some(timings) = &entry.trace.timings { (took(timings.total)) }
            }
        }
    }
}

fn kind(entry: &AuditView) -> &str {
    KINDS
        .iter()
        .find(|(name, _)| *name == entry.kind)
        .map_or(entry.kind.as_str(), |(_, text)| text.trim_end_matches('s'))
}

fn who(entry: &AuditView) -> Markup {
    html! {
        @if let Some(visitor) = &entry.trace.visitor {
            "as " (entry.user_id.as_ref().or(entry.key_alias.as_ref()).or(entry.key_id.as_ref()).map_or("nobody", String::as_str))
            "'s key, by " (visitor.user_id.as_ref().unwrap_or(&visitor.name)) " in the console"
        } @else {
            (caller(entry))
        }
    }
}

fn caller(entry: &AuditView) -> Markup {
    html! {
        @match (&entry.user_id, &entry.key_alias) {
            (Some(user), _) => (user),
            (None, Some(alias)) => (alias),
            (None, None) => span.quiet { "nobody known" },
        }
    }
}

/// What it was, in the words of its kind, leading to the whole.
fn link(entry: &AuditView) -> Markup {
    let text = what(entry);
    html! {
        @if let Some(request) = &entry.request_id {
            a href={ "/ui/activity/" (encoded(request)) } { (text) }
        } @else { (text) }
    }
}

fn what(entry: &AuditView) -> String {
    let trace = &entry.trace;
    if let Some(step) = &trace.sign_in {
        return step.step.clone();
    }
    if let Some(tool) = &entry.tool {
        return tool.clone();
    }
    if entry.kind == Kind::Change.name() {
        return trace.subject.clone().unwrap_or_else(|| "change".to_owned());
    }
    let target = trace.target.as_ref();
    let message = target.and_then(|target| target.message.clone());
    let path = || target.map(|target| format!("{} {}", target.method, target.path));
    message.or_else(path).unwrap_or_else(|| "request".to_owned())
}

fn outcome(entry: &AuditView) -> Markup {
    let text = entry.outcome.as_deref().unwrap_or("ok");
    let tone = match (entry.failed(), entry.kind == Kind::Change.name()) {
        (true, _) => Tone::Bad,
        (false, true) => Tone::Plain,
        (false, false) => Tone::Good,
    };
    chip(tone, text)
}

/// Microseconds for people.
fn took(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

async fn shown(visit: &Visit, request: &str) -> Result<Markup, Refusal> {
    let reader = reader(visit).await?;
    let entries = audit::of_request(&visit.worker, &reader, request).await?;
    let Some(first) = entries.first() else {
        return Err(Refusal::new(ErrorCode::NoSuchEntry));
    };
    let flow = entries.iter().find_map(|entry| entry.flow.clone());
    let steps = match &flow {
        Some(flow) => steps_of(visit, &reader, flow).await?,
        None => Vec::new(),
    };
    let now = visit.now();
    Ok(html! {
        div.head {
            div {
                h1 { (what(first)) @if let Some(server) = &first.server { " at " (server) } }
                p.quiet { (time(now, first.at_ms / 1000)) ", request " code { (request) } }
            }
            (outcome(first))
        }
        @if !steps.is_empty() { (sign_in(&steps, request, now)) }
        @for entry in &entries { (whole_entry(entry)) }
        a.button href="/ui/activity" { "All activity" }
    })
}

/// The steps of a sign-in, the oldest first.
async fn steps_of(visit: &Visit, reader: &Reader, flow: &str) -> Result<Vec<AuditView>, Refusal> {
    let query = Query {
        filter: AuditFilter {
            flow: Some(flow.to_owned()),
            after: Some(0),
            ..AuditFilter::default()
        },
        ..Query::default()
    };
    Ok(audit::page(&visit.worker, reader, &query).await?.entries)
}

fn sign_in(steps: &[AuditView], request: &str, now: u64) -> Markup {
    html! {
        section.card aria-labelledby="steps" {
            h2 #steps { "This sign-in" }
            ol.steps {
                @for step in steps {
                    li {
                        div.row {
                            @if step.request_id.as_deref() == Some(request) { strong { (what(step)) } }
                            @else { (link(step)) }
                            (outcome(step))
                            span.quiet { (time(now, step.at_ms / 1000)) }
                        }
                        @if let Some(said) = step.trace.sign_in.as_ref().and_then(|step| step.description.as_ref()) {
                            p { (said) }
                        }
                    }
                }
            }
        }
    }
}

fn whole_entry(entry: &AuditView) -> Markup {
    let trace = &entry.trace;
    html! {
        section.card {
            h2 { (kind(entry)) @if let Some(server) = &entry.server { ": " (server) } }
            @if let Some(refused) = &trace.refusal {
                div.note.bad {
                    p { strong { (refused.message) } }
                    @if !refused.next_step.is_empty() { p { (refused.next_step) } }
                    @if let Some(error) = &refused.oauth_error {
                        p { "The authorization server says: " (error)
                            @if let Some(said) = &refused.oauth_error_description { ", " (said) } }
                    }
                }
            }
            (facts(rows_of(entry)))
            @if let Some(arguments) = &trace.arguments {
                details { summary { "Arguments" } pre tabindex="0" { (arguments) } }
            }
        }
    }
}

/// The way that a request took, in its order.
fn rows_of(entry: &AuditView) -> Vec<(&'static str, Markup)> {
    let mut rows = Vec::new();
    let mut say = |name: &'static str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((name, html! { (value) }));
        }
    };
    say("Outcome", entry.outcome.clone());
    say("Status", entry.status.map(|status| status.to_string()));
    say("Person", entry.user_id.clone());
    say("Key", entry.key_alias.clone().or_else(|| entry.key_id.clone()));
    say(
        "Acted as it in the console",
        entry.trace.visitor.as_ref().map(visitor),
    );
    say("Client", entry.client.clone());
    say("Address", entry.address.clone());
    say("Tool", entry.tool.clone());
    for (name, value) in way(&entry.trace) {
        say(name, value);
    }
    rows
}

fn visitor(visitor: &Visitor) -> String {
    match &visitor.user_id {
        Some(user) => format!("{user}, with {}", visitor.name),
        None => visitor.name.clone(),
    }
}

fn way(trace: &Trace) -> Vec<(&'static str, Option<String>)> {
    let target = trace.target.as_ref();
    let sign_in = trace.sign_in.as_ref();
    let timings = trace.timings.as_ref();
    let credential = trace.credential.as_ref().map(|shown| {
        let token = shown.token.as_deref().map(|token| format!(", token {token}"));
        let retried = if shown.retried {
            ", a second token after a 401"
        } else {
            ""
        };
        format!("{}{}{retried}", shown.resolution, token.unwrap_or_default())
    });
    let upstream = trace.upstream.as_ref().map(|upstream| {
        let status = upstream
            .status
            .map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        format!(
            "{status} ({} requests, {} redirects)",
            upstream.requests, upstream.redirects
        )
    });
    let admission = trace.admission.as_ref().map(|admitted| match &admitted.header {
        Some(header) => format!("{}, from {header}", admitted.by),
        None => admitted.by.clone(),
    });
    vec![
        (
            "Target",
            target.map(|target| format!("{} {}", target.method, target.path)),
        ),
        ("Message", target.and_then(|target| target.message.clone())),
        ("Name", target.and_then(|target| target.name.clone())),
        (
            "Servers",
            target
                .filter(|target| !target.servers.is_empty())
                .map(|target| target.servers.join(", ")),
        ),
        (
            "Client calls itself",
            target
                .and_then(|target| target.client_info.as_ref())
                .map(|client| format!("{} {}", client.name, client.version)),
        ),
        ("Admission", admission),
        (
            "Policy",
            trace.policy.as_ref().map(|permitted| permitted.by.clone()),
        ),
        ("Credential", credential),
        ("Server's answer", upstream),
        ("Step", sign_in.map(|step| step.step.clone())),
        ("MCP client", sign_in.and_then(|step| step.client.clone())),
        ("Grant", sign_in.and_then(|step| step.grant.clone())),
        (
            "What went wrong",
            sign_in.and_then(|step| step.description.clone()),
        ),
        ("Changed", trace.subject.clone()),
        (
            "Until admitted",
            timings.and_then(|timings| timings.admitted).map(took),
        ),
        ("Until sent", timings.and_then(|timings| timings.sent).map(took)),
        (
            "Until the first byte",
            timings.and_then(|timings| timings.first_byte).map(took),
        ),
        ("In all", timings.map(|timings| took(timings.total))),
        (
            "Entries that are missing",
            trace.lost.map(|lost| lost.to_string()),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        for (micros, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1500, "1.5 ms"),
            (2_340_000, "2.3 s"),
        ] {
            assert_eq!(took(micros), text);
        }
    }
}

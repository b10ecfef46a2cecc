//! All servers, each with how it is, and apart from that, how one's own sign-in is.

use super::frame::asker;
use super::{HERE, health, path_of};
use crate::credentials::person::Person;
use crate::http::admin::servers;
use crate::http::admin::servers::view::{ServerView, Source};
use crate::http::console::Answer;
use crate::http::console::forms::Fields;
use crate::http::console::layout::Section;
use crate::http::console::parts::{Tone, button, chip, empty};
use crate::http::console::server_form;
use crate::http::console::session::Visit;
use crate::registry::health::Status;
use crate::web::error::Refusal;
use maud::{Markup, html};
use std::collections::HashMap;

/// Until when somebody is connected to servers; `None` stands for no end that is known.
pub(super) type Connected = HashMap<String, Option<u64>>;

/// `GET /ui/servers`.
pub(super) async fn page(visit: Visit) -> Answer {
    let content = content(&visit).await;
    visit.show(Section::Servers, "MCP Servers", content)
}

/// `POST /ui/servers/check`: looks at every server now.
pub(super) async fn check(visit: Visit, _: Fields) -> Answer {
    let looked = servers::health::list(&visit.worker, asker(&visit), &[]).await;
    visit.then(
        HERE,
        looked.map(|all| format!("Looked at {} servers.", all.len())),
    )
}

async fn content(visit: &Visit) -> Result<Markup, Refusal> {
    let query = visit.query();
    let wanted = query.get("q").to_lowercase();
    let all = servers::list(&visit.worker, asker(visit)).await?;
    let connected = connected(visit).await?;
    let total = all.len();
    let matching = |view: &ServerView| wanted.split_whitespace().all(|word| text_of(view).contains(word));
    let shown: Vec<_> = all.into_iter().filter(matching).collect();
    Ok(html! {
        div.head {
            h1 { "MCP Servers" }
            @if visit.is_admin() { a.button.primary href={ (HERE) "/new" } { "+ Add New MCP Server" } }
        }
        @if total > 0 {
            form.row role="search" method="get" action=(HERE) {
                label.hidden-label for="q" { "Search servers" }
                input type="search" id="q" name="q" value=(query.get("q")) placeholder="Name, alias, URL, id" data-filter="servers";
                button type="submit" { "Search" }
                p.quiet id="servers-count" role="status" { (shown.len()) " of " (total) }
            }
            (button(&format!("{HERE}/check"), "", "Check health"))
        }
        @if total == 0 { (nothing(visit)) }
        div.cards #servers { @for view in &shown { (card(visit, view, &connected)) } }
    })
}

fn nothing(visit: &Visit) -> Markup {
    if visit.is_admin() {
        let add = html! { a.button.primary href={ (HERE) "/new" } { "Add the first one" } };
        empty(
            "No MCP servers yet",
            "A server that you add here can be used at once, without a restart.",
            &add,
        )
    } else {
        let text = "Your key is for no server yet. Ask whoever gave it to you to add some.";
        empty("No MCP servers for you", text, &html! {})
    }
}

/// What a search looks through.
fn text_of(view: &ServerView) -> String {
    let fields = ["alias", "url", "description", "command"];
    let fields = fields.into_iter().filter_map(|field| view.text(field));
    let all: Vec<&str> = [view.name.as_str(), view.id.as_str()]
        .into_iter()
        .chain(fields)
        .collect();
    all.join(" ").to_lowercase()
}

fn card(visit: &Visit, view: &ServerView, connected: &Connected) -> Markup {
    let server = visit.worker.app.registry.by_id(&view.id);
    let signs_in = server.is_some_and(|server| server.sign_in().is_some());
    html! {
        article.card data-text=(text_of(view)) {
            div.row.between {
                h2 { a href=(path_of(&view.id)) { (view.name) } }
                @if !view.problems.is_empty() { (chip(Tone::Bad, "cannot be used")) }
                @else if let Some(health) = &view.health { (health::state(health)) }
            }
            @if let Some(alias) = view.text("alias").filter(|alias| *alias != view.name) { p.quiet { "Also " (alias) } }
            @if let Some(text) = view.text("description") { p { (text) } }
            div.row {
                (chip(Tone::Plain, server_form::transport_of(&view.fields)))
                (chip(Tone::Plain, server_form::authentication_of(&view.fields)))
                @if signs_in { (sign_in(visit.now(), connected.get(&view.id))) }
                @if view.fields.get("available_on_public_internet") == Some(&false.into()) { (chip(Tone::Plain, "internal")) }
                (chip(Tone::Plain, source(view.source)))
            }
            @if let Some(health) = view.health.as_ref().filter(|health| health.report.status == Status::Unhealthy) {
                (health::told(health, visit.is_admin(), visit.now()))
            }
            @for problem in &view.problems { p.wrong { (problem.field) " " (problem.message) } }
            @if !view.warnings.is_empty() {
                p.quiet { (view.warnings.len()) " " @if view.warnings.len() == 1 { "warning" } @else { "warnings" } }
            }
        }
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::File => "file, read-only",
        Source::Database => "database",
    }
}

/// How one's own sign-in is.
pub(super) fn sign_in(now: u64, connected: Option<&Option<u64>>) -> Markup {
    match connected {
        None => chip(Tone::Warn, "sign-in needed"),
        Some(Some(end)) if *end <= now => chip(Tone::Plain, "token over; renewed when used"),
        Some(_) => chip(Tone::Good, "connected"),
    }
}

/// The servers that the visitor is connected to.
pub(super) async fn connected(visit: &Visit) -> Result<Connected, Refusal> {
    let app = &visit.worker.app;
    let (Some(person), Some(people)) = (Person::admitted(app, &visit.admission), &app.people) else {
        return Ok(Connected::new());
    };
    let kept = people.persons.list(&person).await;
    let kept = kept.map_err(servers::refused)?;
    Ok(kept
        .into_iter()
        .map(|grant| (grant.server_id.as_str().to_owned(), grant.expires_at))
        .collect())
}

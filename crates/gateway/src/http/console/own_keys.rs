//! A person's own keys for servers with `is_byok`: brought, replaced and forgotten on pages. What clients are sent to
//! for the same is [`crate::issuer`]'s.

use super::Answer;
use super::forms::Fields;
use super::layout::{Flash, Section};
use super::parts::{Field, Question, Tone, chip, encoded, facts, time};
use super::session::{Visit, unavailable};
use crate::config::ByokPage;
use crate::credentials::person::Person;
use crate::http::user_keys::{self, PLACE};
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::extract::Path;
use maud::{Markup, html};
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::Arc;
use vestibule_store::ServerId;

/// Since when keys are kept.
type Kept = HashMap<ServerId, u64>;

/// The cards of the servers that somebody brings keys for.
pub(super) async fn cards(visit: &Visit, person: &Person) -> Result<Vec<Markup>, Refusal> {
    let servers = visit.servers().servers_of(&visit.admission);
    let brought: Vec<_> = servers
        .into_iter()
        .filter(|server| server.byok().is_some())
        .collect();
    if brought.is_empty() {
        return Ok(Vec::new());
    }
    let kept = kept(visit, person).await?;
    let now = visit.now();
    let card = |server: &&Arc<Server>| card(server, kept.get(&server.store_id).copied(), now);
    Ok(brought.iter().map(card).collect())
}

async fn kept(visit: &Visit, person: &Person) -> Result<Kept, Refusal> {
    let rows = visit.people()?.own_keys.list(person).await;
    let rows = rows.map_err(|error| unavailable(&error))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.server_id, row.updated_at))
        .collect())
}

fn card(server: &Server, since: Option<u64>, now: u64) -> Markup {
    let key = path(server);
    let name = &server.name;
    html! {
        section.card {
            div.row.between {
                h2 { (name) }
                @if since.is_some() { (chip(Tone::Good, "key kept")) } @else { (chip(Tone::Plain, "no key")) }
            }
            @match since {
                None => p.quiet { "This server wants a key of your own, and none is kept." },
                Some(since) => (facts([("Key kept", time(now, since))])),
            }
            div.row {
                @if since.is_none() {
                    a.button.primary href=(key) aria-label={ "Add your key for " (name) } { "Add key" }
                } @else {
                    a.button href=(key) aria-label={ "Replace your key for " (name) } { "Replace key" }
                    a.button.danger href={ (key) "/remove" } aria-label={ "Remove your key for " (name) } { "Remove key" }
                }
            }
        }
    }
}

fn path(server: &Server) -> String {
    format!("/ui/connections/{}/key", encoded(&server.id))
}

/// A server that they may use and bring a key for.
fn brought_one<'v>(visit: &'v Visit, id: &str) -> Result<(&'v Arc<Server>, &'v ByokPage), Refusal> {
    let server = visit.servers().by_id_or_name(id);
    let server = server.ok_or_else(|| Refusal::new(ErrorCode::NotByok))?;
    access::permit(&visit.admission, server)?;
    let page = server.byok().ok_or_else(|| Refusal::new(ErrorCode::NotByok))?;
    Ok((server, page))
}

/// `GET /ui/connections/{server}/key`.
pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Answer {
    let content = visit
        .person()
        .and_then(|_| brought_one(&visit, &id))
        .map(|(server, page)| form(server, page, ""));
    visit.show(Section::Connections, "Your key", content)
}

/// `POST /ui/connections/{server}/key`.
pub(super) async fn keep(visit: Visit, Path(id): Path<String>, fields: Fields) -> Answer {
    match kept_now(&visit, &id, &fields).await {
        Ok(flash) => visit.done(Section::Connections.path(), &flash),
        Err(refusal) => match refusal.code {
            ErrorCode::ByokKeyMalformed | ErrorCode::FormOutdated => corrected(&visit, &id, refusal),
            _ => visit.refusal(refusal),
        },
    }
}

async fn kept_now(visit: &Visit, id: &str, fields: &Fields) -> Result<Flash, Refusal> {
    let person = visit.person()?;
    let (server, _) = brought_one(visit, id)?;
    user_keys::judge_place(server, fields.get(PLACE))?;
    let key = SecretString::from(fields.get("api_key"));
    user_keys::judge(server, &key)?;
    user_keys::keep(&visit.worker, &visit.admission, &person, server, &key, visit.id).await?;
    let text = format!("Your key for {} is kept.", server.name);
    Ok(Flash::new(Tone::Good, text))
}

/// The form once more, with what is wrong, and without the key.
fn corrected(visit: &Visit, id: &str, refusal: Refusal) -> Answer {
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let content = brought_one(visit, id).map(|(server, page)| form(server, page, &refusal.message));
    let mut response = visit.show(Section::Connections, "Your key", content);
    *response.status_mut() = refusal.code.status();
    response
}

fn form(server: &Server, page: &ByokPage, wrong: &str) -> Markup {
    let key = Field {
        label: "Key",
        name: "api_key",
        kind: "password",
        hint: "It is kept encrypted, and sent to this MCP server alone, for your calls alone.",
        wrong,
        required: true,
        ..Field::default()
    };
    html! {
        form.card method="post" action=(path(server)) {
            h1 { "Your key for " (server.name) }
            @if !page.description.is_empty() {
                p { "The key is used to:" }
                ul { @for line in &page.description { li { (line) } } }
            }
            @if let Some(help) = &page.help {
                p { a href=(help) target="_blank" rel="noopener noreferrer" { "Where to get a key" } }
            }
            input type="hidden" name=(PLACE) value=(server.place_digest());
            (key.html())
            div.row {
                button.primary type="submit" { "Save" }
                a.button href=(Section::Connections.path()) { "Cancel" }
            }
        }
    }
}

/// `GET /ui/connections/{server}/key/remove`.
pub(super) async fn ask(visit: Visit, Path(id): Path<String>) -> Answer {
    let content = brought_one(&visit, &id).map(|(server, _)| {
        let question = Question {
            title: &format!("Remove your key for {}?", server.name),
            text: "The gateway forgets the key. Whoever issued it does not hear of that: revoke it there if it is not \
                   wanted any more.",
            action: &format!("{}/remove", path(server)),
            yes: "Remove",
            back: Section::Connections.path(),
        };
        question.html()
    });
    visit.show(Section::Connections, "Remove your key", content)
}

/// `POST /ui/connections/{server}/key/remove`.
pub(super) async fn remove(visit: Visit, Path(id): Path<String>) -> Answer {
    match forgotten(&visit, &id).await {
        Ok(flash) => visit.done(Section::Connections.path(), &flash),
        Err(refusal) => visit.refusal(refusal),
    }
}

async fn forgotten(visit: &Visit, id: &str) -> Result<Flash, Refusal> {
    let person = visit.person()?;
    let (server, _) = brought_one(visit, id)?;
    let name = &server.name;
    let was_there = user_keys::forget(&visit.worker, &visit.admission, &person, server, visit.id).await?;
    Ok(if was_there {
        Flash::new(Tone::Good, format!("Your key for {name} is removed."))
    } else {
        Flash::new(Tone::Plain, format!("There was no key for {name}."))
    })
}

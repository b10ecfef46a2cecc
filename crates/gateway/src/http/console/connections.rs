//! What somebody is connected to: every server that wants a person's sign-in or key, how it stands, and its end.

use super::Answer;
use super::layout::{Flash, Section};
use super::own_keys;
use super::parts::{Question, Tone, chip, empty, encoded, facts, note, time};
use super::session::{Visit, unavailable};
use crate::app::People;
use crate::config::SignIn;
use crate::credentials::person::{Grant, Person};
use crate::http::admin::actor;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use axum::extract::Path;
use maud::{Markup, html};
use std::sync::Arc;
use vestibule_store::StoreError;

/// How a person stands with a server.
enum Standing {
    /// Nothing is kept.
    None,
    /// Something is kept that no key of the ring opens.
    Unreadable,
    /// Something is kept, since this time.
    Kept(Box<Grant>, u64),
}

impl Standing {
    /// Whether a call would work, as far as that is known without one.
    fn is_good(&self, now: u64) -> bool {
        match self {
            Self::Kept(grant, _) => grant.is_renewable() || grant.ends_at().is_none_or(|end| end > now),
            Self::None | Self::Unreadable => false,
        }
    }
}

/// One server that somebody signs in to.
pub(super) struct Wanted<'v> {
    pub(super) server: &'v Arc<Server>,
    pub(super) sign_in: &'v Arc<SignIn>,
}

impl Visit {
    /// Whose connections they are.
    pub(super) fn person(&self) -> Result<Person, Refusal> {
        let person = Person::admitted(&self.worker.app, &self.admission);
        person.ok_or_else(|| Refusal::because(ErrorCode::NoPerson, "Your key does not say who you are."))
    }

    pub(super) fn people(&self) -> Result<&People, Refusal> {
        let people = self.worker.app.people.as_deref();
        people.ok_or_else(|| Refusal::new(ErrorCode::StoreUnavailable))
    }

    /// The servers that they may use and that want their sign-in.
    pub(super) fn wanted(&self) -> Vec<Wanted<'_>> {
        let servers = self.servers().servers_of(&self.admission).into_iter();
        servers
            .filter_map(|server| {
                let sign_in = server.sign_in()?;
                Some(Wanted { server, sign_in })
            })
            .collect()
    }

    /// One of [`Visit::wanted`].
    pub(super) fn wanted_one(&self, id: &str) -> Result<Wanted<'_>, Refusal> {
        let none = || Refusal::new(ErrorCode::NoSignIn);
        let server = self.servers().by_id_or_name(id).ok_or_else(none)?;
        access::permit(&self.admission, server)?;
        let sign_in = server.sign_in().ok_or_else(none)?;
        Ok(Wanted { server, sign_in })
    }

    /// The servers to which they are not connected.
    pub(super) async fn unconnected(&self, person: &Person) -> Result<Vec<Wanted<'_>>, Refusal> {
        let now = self.now();
        let mut all = Vec::new();
        for wanted in self.wanted() {
            if !standing(self, person, wanted.server).await?.is_good(now) {
                all.push(wanted);
            }
        }
        Ok(all)
    }
}

async fn standing(visit: &Visit, person: &Person, server: &Server) -> Result<Standing, Refusal> {
    match visit.people()?.persons.kept(person, server).await {
        Ok(Some((grant, since))) => Ok(Standing::Kept(Box::new(grant), since)),
        Ok(None) => Ok(Standing::None),
        Err(StoreError::Undecryptable { .. }) => Ok(Standing::Unreadable),
        Err(error) => Err(unavailable(&error)),
    }
}

/// `GET /ui/connections`.
pub(super) async fn page(visit: Visit) -> Answer {
    let content = content(&visit).await;
    visit.show(Section::Connections, "My connections", content)
}

async fn content(visit: &Visit) -> Result<Markup, Refusal> {
    let wanted = visit.wanted();
    let Ok(person) = visit.person() else {
        return Ok(html! { div.head { h1 { "My connections" } } (nobody(visit)) });
    };
    let keys = own_keys::cards(visit, &person).await?;
    if wanted.is_empty() && keys.is_empty() {
        return Ok(html! {
            div.head { h1 { "My connections" } }
            (empty(
                "Nothing to connect",
                "None of the servers that you may use wants your own sign-in or key: the gateway signs in for you.",
                &html! {},
            ))
        });
    }
    let now = visit.now();
    let mut cards = Vec::new();
    let mut missing = 0;
    for wanted in &wanted {
        let standing = standing(visit, &person, wanted.server).await?;
        missing += usize::from(!standing.is_good(now));
        cards.push(card(wanted.server, &standing, now));
    }
    Ok(html! {
        div.head {
            div {
                h1 { "My connections" }
                p.quiet { "Servers that want your own sign-in or key, kept for " strong { (person.id()) } "." }
            }
            @if missing > 0 {
                a.button.primary href="/ui/connect" { "Connect all (" (missing) ")" }
            }
        }
        div.cards { @for card in cards.iter().chain(&keys) { (card) } }
    })
}

/// What somebody reads of whom nothing can be kept.
fn nobody(visit: &Visit) -> Markup {
    let text = if visit.admission.user().is_none() && visit.session.key_id.is_some() {
        "The key that you signed in with belongs to nobody, so nothing is kept for it. Ask whoever gave it to you to \
         make you its owner."
    } else {
        "The master key does not say who you are. Sign out, and sign in again with your user id."
    };
    note(Tone::Warn, &html! { p { (text) } })
}

fn card(server: &Server, standing: &Standing, now: u64) -> Markup {
    let id = encoded(&server.id);
    let (connect, disconnect) = (
        format!("/ui/connect/{id}"),
        format!("/ui/connections/{id}/disconnect"),
    );
    html! {
        section.card {
            div.row.between { h2 { (server.name) } (state(standing, now)) }
            @match standing {
                Standing::None => p.quiet { "You are not connected, or the sign-in was ended by the provider." }
                Standing::Unreadable => {
                    p { "What was kept cannot be opened with the gateway's keys. Connect again." }
                }
                Standing::Kept(grant, since) => (kept(grant, *since, now))
            }
            div.row {
                @if matches!(standing, Standing::None) {
                    a.button.primary href=(connect) aria-label={ "Connect " (server.name) } { "Connect" }
                } @else {
                    a.button href=(connect) aria-label={ "Reconnect " (server.name) } { "Reconnect" }
                    a.button.danger href=(disconnect) aria-label={ "Disconnect " (server.name) } { "Disconnect" }
                }
            }
        }
    }
}

fn state(standing: &Standing, now: u64) -> Markup {
    match standing {
        Standing::None => chip(Tone::Plain, "not connected"),
        Standing::Unreadable => chip(Tone::Bad, "cannot be opened"),
        Standing::Kept(..) if standing.is_good(now) => chip(Tone::Good, "connected"),
        Standing::Kept(..) => chip(Tone::Warn, "needs sign-in"),
    }
}

fn kept(grant: &Grant, since: u64, now: u64) -> Markup {
    let ends = match grant.ends_at() {
        None => html! { "the provider does not say" },
        Some(end) if end <= now && grant.is_renewable() => {
            html! { (time(now, end)) ", renewed when it is used" }
        }
        Some(end) => time(now, end),
    };
    let renewal = if grant.is_renewable() {
        "by itself"
    } else {
        "not possible: sign in again at its end"
    };
    let refreshed = if grant.issued_at() > since {
        time(now, grant.issued_at())
    } else {
        html! { "not yet" }
    };
    html! {
        (facts([
            ("Connected", time(now, since)),
            ("Token ends", ends),
            ("Renewal", html! { (renewal) }),
            ("Last renewed", refreshed),
            ("Scopes", html! { (grant.scope().unwrap_or("the provider does not say")) }),
        ]))
    }
}

/// `GET /ui/connections/{server}/disconnect`.
pub(super) async fn ask(visit: Visit, Path(id): Path<String>) -> Answer {
    let content = visit.wanted_one(&id).map(|wanted| {
        let question = Question {
            title: &format!("Disconnect {}?", wanted.server.name),
            text: "The gateway forgets your tokens for this server and revokes them where the provider lets it. Your MCP \
                   clients have to sign in again.",
            action: &format!("/ui/connections/{}/disconnect", encoded(&wanted.server.id)),
            yes: "Disconnect",
            back: Section::Connections.path(),
        };
        question.html()
    });
    visit.show(Section::Connections, "Disconnect", content)
}

/// `POST /ui/connections/{server}/disconnect`.
pub(super) async fn disconnect(visit: Visit, Path(id): Path<String>) -> Answer {
    match end(&visit, &id).await {
        Ok(flash) => visit.done(Section::Connections.path(), &flash),
        Err(refusal) => visit.refusal(refusal),
    }
}

async fn end(visit: &Visit, id: &str) -> Result<Flash, Refusal> {
    let person = visit.person()?;
    let wanted = visit.wanted_one(id)?;
    let persons = &visit.people()?.persons;
    let name = &wanted.server.name;
    let forgotten = persons.forget(&person, wanted.server, wanted.sign_in).await;
    if !forgotten.map_err(|error| unavailable(&error))? {
        return Ok(Flash::new(Tone::Plain, format!("{name} was not connected.")));
    }
    let audit = &visit.worker.app.audit;
    audit.changed(&actor(&visit.admission), "connection.end", name, visit.id);
    Ok(Flash::new(Tone::Good, format!("{name} is disconnected.")))
}

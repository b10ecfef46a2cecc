//! Which browsers somebody is signed in with, and the end of one of them. Admins see everybody's.

use super::Answer;
use super::layout::Section;
use super::parts::{Tone, button, chip, table, time};
use super::session::Visit;
use crate::web::error::{ErrorCode, Refusal};
use axum::extract::Path;
use maud::{Markup, html};
use vestibule_store::ConsoleSession;

/// `GET /ui/sessions`.
pub(super) async fn page(visit: Visit) -> Answer {
    let now = visit.now();
    let sessions = visit
        .store(move |store| async move { store.sessions(now).await })
        .await;
    let content = sessions.map(|sessions| list(&visit, &sessions));
    visit.show(Section::Sessions, "Sessions", content)
}

/// `POST /ui/sessions/{session}/end`.
pub(super) async fn end(visit: Visit, Path(named): Path<String>) -> Answer {
    let done = end_one(&visit, &named).await;
    visit.then(Section::Sessions.path(), done)
}

async fn end_one(visit: &Visit, named: &str) -> Result<String, Refusal> {
    let now = visit.now();
    let sessions = visit
        .store(move |store| async move { store.sessions(now).await })
        .await?;
    let mut own = sessions.into_iter().filter(|session| is_shown(visit, session));
    let found = own.find(|session| name(session) == named);
    let session =
        found.ok_or_else(|| Refusal::because(ErrorCode::NoPage, "This session has ended already."))?;
    let digest = session.digest;
    visit
        .store(move |store| async move { store.delete_session(&digest).await })
        .await?;
    let audit = &visit.worker.app.audit;
    audit.changed(&visit.actor(), "session.end", &session.holder, visit.id);
    Ok(format!("The session of {} has ended.", session.holder))
}

/// Own ones, and to admins all.
fn is_shown(visit: &Visit, session: &ConsoleSession) -> bool {
    let own = &visit.session;
    visit.is_admin() || (session.key_id == own.key_id && session.user_id == own.user_id)
}

/// How a session is called in forms: the row's digest, which opens nothing.
fn name(session: &ConsoleSession) -> String {
    session.digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list(visit: &Visit, sessions: &[ConsoleSession]) -> Markup {
    let now = visit.now();
    let rows = html! {
        @for session in sessions.iter().filter(|session| is_shown(visit, session)) {
            tr {
                td data-label="Who" {
                    (session.holder)
                    @if let Some(user) = &session.user_id { " " span.quiet { (user) } }
                }
                td.wrap data-label="Browser" { (session.agent.as_deref().unwrap_or("unknown")) }
                td data-label="Begun" { (time(now, session.created_at)) }
                td data-label="Ends" { (time(now, session.expires_at)) }
                td {
                    @if session.digest == visit.session.digest {
                        (chip(Tone::Good, "this one"))
                    } @else {
                        (button(&format!("/ui/sessions/{}/end", name(session)), "danger", "End"))
                    }
                }
            }
        }
    };
    let whose = if visit.is_admin() {
        "Everybody's sessions"
    } else {
        "Your sessions"
    };
    html! {
        div.head { div {
            h1 { (whose) }
            p.quiet { "A session ends after twelve hours, and with the key that it was begun with." }
        } }
        (table("Sessions", &["Who", "Browser", "Begun", "Ends", ""], &rows))
    }
}

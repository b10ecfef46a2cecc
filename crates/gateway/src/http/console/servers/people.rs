//! Who signed in to a server, and the end of that.

use super::frame::{Opened, Tab};
use crate::http::admin::servers::people;
use crate::http::console::Answer;
use crate::http::console::forms::Fields;
use crate::http::console::parts::{Question, empty, table, time, time_or};
use crate::http::console::session::AdminVisit;
use crate::web::error::Refusal;
use axum::extract::Path;
use maud::{Markup, html};
use url::form_urlencoded;

/// `GET /ui/servers/{id}/people`.
pub(super) async fn page(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = content(&opened).await;
    opened.show_or(Tab::People, content)
}

async fn content(opened: &Opened) -> Result<Markup, Refusal> {
    let (_, connected) = people::connected(&opened.visit.worker, &opened.view.id).await?;
    let now = opened.visit.now();
    if connected.is_empty() {
        return Ok(empty(
            "Nobody is connected",
            "People appear here once they have signed in to this server.",
            &html! {},
        ));
    }
    let rows = html! {
        @for person in &connected {
            @let query = form_urlencoded::Serializer::new(String::new()).append_pair("user", &person.user).finish();
            tr {
                td.wrap data-label="Person" { (person.user) }
                td data-label="Connected" { (time(now, person.since)) }
                td data-label="Last written" { (time(now, person.updated_at)) }
                td data-label="Token ends" { (time_or(now, person.expires_at, "not known")) }
                td { a.button.danger href={ (opened.path_to(Tab::People)) "/revoke?" (query) } { "Revoke" } }
            }
        }
    };
    Ok(table(
        "People who are connected",
        &["Person", "Connected", "Last written", "Token ends", ""],
        &rows,
    ))
}

/// `GET /ui/servers/{id}/people/revoke?user=`.
pub(super) async fn ask_revoke(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let user = visit.query().get("user").to_owned();
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("user", &user)
        .finish();
    let back = opened.path_to(Tab::People);
    let question = Question {
        title: &format!("Revoke the sign-in of {user}?"),
        text: "Their tokens for this server are forgotten, and revoked at the provider where it offers that. They can sign in again.",
        action: &format!("{back}/revoke?{query}"),
        yes: "Revoke",
        back: &back,
    };
    opened.show(Tab::People, &question.html())
}

/// `POST /ui/servers/{id}/people/revoke?user=`.
pub(super) async fn revoke(
    AdminVisit { visit, actor }: AdminVisit,
    Path(id): Path<String>,
    _: Fields,
) -> Answer {
    let user = visit.query().get("user").to_owned();
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let visit = &opened.visit;
    let done = people::disconnect(&visit.worker, &actor, &opened.view.id, &user, visit.id).await;
    let path = opened.path_to(Tab::People);
    visit.then(&path, done.map(|_| format!("The sign-in of {user} is revoked.")))
}

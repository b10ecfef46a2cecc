//! What to paste into clients.

use super::frame::{Opened, Tab};
use crate::http::console::Answer;
use crate::http::console::parts::Tone;
use crate::http::console::parts::note;
use crate::http::console::session::Visit;
use crate::http::console::snippets::{self, PLACEHOLDER};
use crate::web::error::Refusal;
use axum::extract::Path;
use maud::{Markup, html};

/// `GET /ui/servers/{id}/connect`.
pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = content(&opened);
    opened.show_or(Tab::Connect, content)
}

fn content(opened: &Opened) -> Result<Markup, Refusal> {
    let server = opened.served()?;
    let app = &opened.visit.worker.app;
    let all = snippets::of(server, &opened.visit.origin.to_string(), app.gate.asks_for_keys());
    Ok(html! {
        @if server.admits_by_itself() {
            (note(Tone::Warn, &html! {
                p { "This server takes no gateway key: its own authorization server decides who may use it." }
            }))
        } @else {
            p {
                "Put your gateway key in the place of " code { (PLACEHOLDER) } ". It goes into "
                code { "x-litellm-api-key" } ": in " code { "Authorization" }
                " it would keep clients from signing in to the server."
            }
        }
        @for (index, snippet) in all.iter().enumerate() {
            @let id = format!("snippet-{index}");
            section.card aria-labelledby={ (id) "-title" } {
                div.row.between {
                    h2 id={ (id) "-title" } { (snippet.client) }
                    button type="button" data-copy=(id) hidden { "Copy" }
                }
                p.quiet { (snippet.place) }
                pre id=(id) tabindex="0" { (snippet.text) }
            }
        }
    })
}

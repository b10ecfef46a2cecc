//! A server at a glance: where it is, how it is reached and shown a credential, and what is wrong or missing.

use super::frame::{Opened, Tab};
use super::health;
use super::list::{connected, sign_in};
use crate::http::admin::servers::health as looks;
use crate::http::admin::servers::view::{Source, Written};
use crate::http::console::Answer;
use crate::http::console::parts::{Tone, copied, encoded, facts, note, time};
use crate::http::console::server_form;
use crate::http::console::session::Visit;
use crate::web::error::{Flaw, Refusal};
use axum::extract::Path;
use maud::{Markup, html};

/// `GET /ui/servers/{id}`.
pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = content(&opened).await;
    opened.show_or(Tab::Overview, content)
}

async fn content(opened: &Opened) -> Result<Markup, Refusal> {
    let signed_in = own_sign_in(opened).await?;
    let health = match &opened.server {
        Some(server) => Some(looks::look(&opened.visit.worker, server).await),
        None => None,
    };
    let view = &opened.view;
    let endpoint = format!("{}/{}/mcp", opened.visit.origin, view.name);
    Ok(html! {
        (flaws(Tone::Bad, "The server cannot be used:", &view.problems))
        (flaws(Tone::Warn, "Worth a look:", &view.warnings))
        section.card aria-labelledby="address" {
            h2 #address { "Address for clients" }
            (copied("endpoint", &endpoint))
        }
        @if let Some(health) = &health {
            section.card aria-labelledby="health" {
                h2 #health { "Health" }
                (health::told(health, opened.visit.is_admin(), opened.visit.now()))
            }
        }
        @if let Some(signed_in) = &signed_in { (signed_in) }
        section.card aria-labelledby="about" {
            h2 #about { "About" }
            (facts(about(opened)))
        }
        @if opened.visit.is_admin() && view.source == Source::Database {
            div.row { a.button.danger href={ (opened.path()) "/delete" } { "Delete" } }
        }
    })
}

fn flaws(tone: Tone, heading: &str, flaws: &[Flaw]) -> Markup {
    html! {
        @if !flaws.is_empty() {
            (note(tone, &html! {
                p { (heading) }
                ul {
                    @for flaw in flaws {
                        li { @if !flaw.field.is_empty() { (server_form::name_of(&flaw.field)) ": " } (flaw.message) }
                    }
                }
            }))
        }
    }
}

fn about(opened: &Opened) -> Vec<(&'static str, Markup)> {
    let view = &opened.view;
    let now = opened.visit.now();
    let mut rows: Vec<(&str, Markup)> = Vec::new();
    let mut text = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value {
            rows.push((name, html! { (value) }));
        }
    };
    text("Server ID", Some(&view.id));
    text("Alias", view.text("alias"));
    text("Description", view.text("description"));
    text("Transport", Some(server_form::transport_of(&view.fields)));
    text("URL", view.text("url"));
    text("Command", view.text("command"));
    text(
        "Authentication",
        Some(server_form::authentication_of(&view.fields)),
    );
    text("Token URL", view.text("token_url"));
    let internal = view.fields.get("available_on_public_internet") == Some(&false.into());
    text(
        "Network access",
        Some(if internal { "internal" } else { "public" }),
    );
    let file = opened.visit.worker.live.file_name();
    let configured = match view.source {
        Source::File => format!(
            "{}, as mcp_servers.{}; read-only here",
            file.as_deref().unwrap_or("the configuration file"),
            view.name
        ),
        Source::Database => "database".to_owned(),
    };
    text("Configured in", Some(&configured));
    if let Some(groups) = view
        .fields
        .get("access_groups")
        .and_then(|groups| groups.as_array())
    {
        let groups: Vec<&str> = groups.iter().filter_map(|group| group.as_str()).collect();
        rows.push(("Access groups", html! { (groups.join(", ")) }));
    }
    let mut written = |name: &'static str, written: &Option<Written>| {
        if let Some(written) = written {
            let by = written.by.as_deref();
            rows.push((
                name,
                html! { (time(now, written.at)) @if let Some(by) = by { " by " (by) } },
            ));
        }
    };
    written("Added", &view.created);
    written("Changed", &view.updated);
    rows
}

/// The visitor's own sign-in, where the server wants one.
async fn own_sign_in(opened: &Opened) -> Result<Option<Markup>, Refusal> {
    let Some(server) = opened.server.as_ref().filter(|server| server.sign_in().is_some()) else {
        return Ok(None);
    };
    let connected = connected(&opened.visit).await?;
    let state = connected.get(&server.id);
    Ok(Some(html! {
        section.card aria-labelledby="sign-in" {
            h2 #sign-in { "Your sign-in" }
            div.row {
                (sign_in(opened.visit.now(), state))
                a.button href=(connect_path(&server.id)) {
                    @if state.is_some() { "Reconnect" } @else { "Connect" }
                }
            }
        }
    }))
}

/// Where one signs in to a server.
pub(super) fn connect_path(id: &str) -> String {
    format!("/ui/connect/{}", encoded(id))
}

//! A server is added, changed and deleted with a form. Nothing that was filled in is lost when something is wrong, and
//! no secret comes back to the page.

use super::frame::{Opened, Tab};
use super::probe::{Probed, address, probe};
use super::trial::attempt;
use super::{HERE, path_of};
use crate::audit::Actor;
use crate::http::admin::servers::{
    self,
    view::{ServerView, Source},
};
use crate::http::console::Answer;
use crate::http::console::forms::{Errors, Fields};
use crate::http::console::layout::{Flash, Section, fragment};
use crate::http::console::parts::{Question, Tone, facts, meanwhile, note};
use crate::http::console::server_form::{self, ServerForm};
use crate::http::console::session::{AdminVisit, Visit};
use crate::web::error::{ErrorCode, Refusal};
use axum::extract::Path;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Map, Value};

/// Which writing of the server the form shows.
const VERSION: &str = "version";

/// What a form is shown with.
#[derive(Default)]
struct Beside {
    errors: Errors,
    /// What is at its address.
    probed: Option<Markup>,
    /// What a try came to.
    tried: Option<Markup>,
}

impl Beside {
    fn errors(errors: Errors) -> Self {
        Self {
            errors,
            ..Self::default()
        }
    }

    fn probed(probed: &Probed) -> Self {
        Self {
            probed: Some(probed.html()),
            ..Self::default()
        }
    }
}

/// `GET /ui/servers/new`.
pub(super) async fn new(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let form = ServerForm::new(Fields::default());
    new_page(&visit, &form, &Beside::default())
}

/// `POST /ui/servers/new`.
pub(super) async fn create(AdminVisit { visit, actor }: AdminVisit, fields: Fields) -> Answer {
    let mut form = ServerForm::new(fields);
    match form.values().get("show") {
        "probe" => {
            let probed = look(&visit, &actor, form.values().get("url")).await;
            form.fill(&probed.fill);
            return new_page(&visit, &form, &Beside::probed(&probed));
        }
        "fields" => return new_page(&visit, &form, &Beside::default()),
        _ => {}
    }
    let again = |beside: Beside| new_page(&visit, &form, &beside);
    let entered = match form.read() {
        Ok(entered) => entered,
        Err(errors) => return unusable(again(Beside::errors(errors))),
    };
    let mut body = entered.fields;
    body.insert("server_name".into(), entered.name.into());
    if form.values().get("show") == "try" {
        return tried(&visit, &actor, body, again).await;
    }
    match servers::create(&visit.worker, &actor, body, visit.id).await {
        Ok(view) => {
            let flash = Flash::new(
                Tone::Good,
                format!("The server {} is there. Try its tools.", view.name),
            );
            visit.done(&path_of(&view.id), &flash)
        }
        Err(refusal) => refused(&visit, refusal, again),
    }
}

/// The form with what became of the server that it describes.
async fn tried(
    visit: &Visit,
    actor: &Actor,
    body: Map<String, Value>,
    again: impl Fn(Beside) -> Answer,
) -> Answer {
    match attempt(visit, actor, body).await {
        Ok(tried) => again(Beside {
            tried: Some(tried.html()),
            ..Beside::default()
        }),
        Err(refusal) => refused(visit, refusal, again),
    }
}

/// The form with what is wrong with it, or the refusal where that is about no field.
fn refused(visit: &Visit, refusal: Refusal, again: impl Fn(Beside) -> Answer) -> Answer {
    match errors_of(&refusal) {
        Some(errors) => unusable(again(Beside::errors(errors))),
        None => visit.refusal(refusal),
    }
}

/// `POST /ui/servers/probe`: what is at an address, for the script of the form.
pub(super) async fn probed(AdminVisit { visit, actor }: AdminVisit, fields: Fields) -> Answer {
    fragment(look(&visit, &actor, fields.get("url")).await.html())
}

async fn look(visit: &Visit, actor: &Actor, text: &str) -> Probed {
    let app = &visit.worker.app;
    let Some(url) = address(text) else {
        return Probed::no_address();
    };
    if !app.console.probes.admits() {
        return Probed::too_many();
    }
    let origin = url.origin().ascii_serialization();
    app.audit.changed(actor, "server.probe", &origin, visit.id);
    probe(app, &url).await
}

/// What is wrong, by the form's fields; `None` for a refusal that is about no field.
fn errors_of(refusal: &Refusal) -> Option<Errors> {
    let of_the_form = matches!(refusal.code, ErrorCode::InvalidServer | ErrorCode::ServerTaken);
    if !of_the_form {
        return None;
    }
    let mut errors = Errors::default();
    for flaw in &refusal.flaws {
        errors.add(server_form::field_of(&flaw.field), flaw.message.clone());
    }
    if errors.is_empty() {
        errors.add("", refusal.message.to_string());
    }
    Some(errors)
}

fn unusable(mut answer: Answer) -> Answer {
    *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    answer
}

fn new_page(visit: &Visit, form: &ServerForm, beside: &Beside) -> Answer {
    let content = html! {
        div.head { div { p.quiet { a href=(HERE) { "Servers" } } h1 { "Add New MCP Server" } } }
        (whole_form(form, beside, &format!("{HERE}/new"), "Create MCP Server", None))
    };
    visit.page(Section::Servers, "Add New MCP Server", &content)
}

fn whole_form(
    form: &ServerForm,
    beside: &Beside,
    action: &str,
    submit: &str,
    version: Option<i64>,
) -> Markup {
    let nothing = html! {};
    html! {
        div #server-summary aria-live="polite" { (summary(form, &beside.errors)) }
        form.stack #server-form method="post" action=(action) data-server-form novalidate {
            @if let Some(version) = version { input type="hidden" name=(VERSION) value=(version); }
            // What the Enter key presses is the first button.
            button.hidden-label type="submit" tabindex="-1" aria-hidden="true" { (submit) }
            (form.render(&beside.errors, beside.probed.as_ref().unwrap_or(&nothing)))
            div #tried aria-live="polite" {
                @if let Some(tried) = &beside.tried {
                    (tried)
                    @if form.has_secrets() { (secrets_once_more()) }
                }
            }
            div.row {
                button.primary type="submit" { (submit) }
                button type="submit" name="show" value="try" data-try { "Try it" }
                a.button href=(HERE) { "Cancel" }
            }
        }
    }
}

/// With a script the form stays as it is, and so do they.
fn secrets_once_more() -> Markup {
    html! { p data-without-script { "Secrets are not shown again: write them once more." } }
}

fn summary(form: &ServerForm, errors: &Errors) -> Markup {
    html! {
        @if !errors.is_empty() {
            (note(Tone::Bad, &html! {
                p { "Nothing was saved:" }
                ul {
                    @for (name, message) in errors.iter() {
                        li {
                            @if name.is_empty() { (message) }
                            @else { a href={ "#" (name) } { (server_form::name_of(name)) } " " (message) }
                        }
                    }
                }
                @if form.has_secrets() { (secrets_once_more()) }
            }))
        }
    }
}

/// `GET /ui/servers/{id}/settings`.
pub(super) async fn settings(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = match opened.view.source {
        Source::File => read_only(&opened),
        Source::Database => {
            let form = form_of(&opened.view);
            settings_form(&opened, &form, &Beside::default(), opened.view.version)
        }
    };
    opened.show(Tab::Settings, &content)
}

fn form_of(view: &ServerView) -> ServerForm {
    ServerForm::of(&view.name, &view.fields, &view.secrets)
}

fn settings_form(opened: &Opened, form: &ServerForm, beside: &Beside, version: Option<i64>) -> Markup {
    let action = opened.path_to(Tab::Settings);
    html! {
        (whole_form(form, beside, &action, "Save changes", version))
        div.row { a.button.danger href={ (opened.path()) "/delete" } { "Delete" } }
    }
}

/// A server of the file, with what the file says but for secrets.
fn read_only(opened: &Opened) -> Markup {
    let view = &opened.view;
    let file = opened.visit.worker.live.file_name();
    let rows = view
        .fields
        .iter()
        .map(|(name, value)| (server_form::name_of(name), shown(value)));
    let secrets = view
        .secrets
        .iter()
        .map(|name| (server_form::name_of(name), "set".to_owned()));
    let rows: Vec<(String, String)> = rows.chain(secrets).collect();
    html! {
        (note(Tone::Plain, &html! {
            p {
                "This server is read-only here: it is configured in " code { (file.as_deref().unwrap_or("the configuration file")) }
                ", as " code { "mcp_servers." (view.name) } ". Changes to the file are picked up without a restart."
            }
        }))
        section.card { (facts(rows.iter().map(|(name, value)| (name.as_str(), html! { code { (value) } })))) }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `POST /ui/servers/{id}/settings`.
pub(super) async fn update(
    AdminVisit { visit, actor }: AdminVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let version = fields.get(VERSION).parse::<i64>().ok();
    let mut form = form_of(&opened.view).submitted(fields);
    let shown = |form: &ServerForm, beside: &Beside| {
        opened.show(Tab::Settings, &settings_form(&opened, form, beside, version))
    };
    match form.values().get("show") {
        "probe" => {
            let probed = look(&opened.visit, &actor, form.values().get("url")).await;
            form.fill(&probed.fill);
            return shown(&form, &Beside::probed(&probed));
        }
        "fields" => return shown(&form, &Beside::default()),
        _ => {}
    }
    let again = |beside: Beside| shown(&form, &beside);
    let Some(version) = version else {
        return opened.visit.refusal(Refusal::because(
            ErrorCode::ServerChanged,
            "The form does not say which version of the server it shows.",
        ));
    };
    let entered = match form.read() {
        Ok(entered) => entered,
        Err(errors) => return unusable(again(Beside::errors(errors))),
    };
    let mut body = entered.fields.clone();
    body.insert("server_id".into(), opened.view.id.clone().into());
    let visit = &opened.visit;
    if form.values().get("show") == "try" {
        return tried(visit, &actor, body, again).await;
    }
    match servers::update(&visit.worker, &actor, body, Some(version), visit.id).await {
        Ok(view) if view.dropped_secrets.is_empty() => visit.done(
            &path_of(&view.id),
            &Flash::new(Tone::Good, format!("{} is saved.", view.name)),
        ),
        Ok(view) => {
            let text = format!(
                "{} is saved. It is at another place now, so these secrets were not taken along: {}.",
                view.name,
                view.dropped_secrets.join(", ")
            );
            visit.done(&path_of(&view.id), &Flash::new(Tone::Warn, text))
        }
        Err(refusal) if refusal.code == ErrorCode::ServerChanged => {
            changed_meanwhile(&opened, &form, &entered.fields, refusal)
        }
        Err(refusal) => refused(visit, refusal, again),
    }
}

/// Somebody else was faster: what is kept now and what was written here, side by side. The form goes out from what is
/// kept now, so that saving it again is a decision.
fn changed_meanwhile(
    opened: &Opened,
    form: &ServerForm,
    entered: &Map<String, Value>,
    refusal: Refusal,
) -> Answer {
    let visit = &opened.visit;
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let kept = &opened.view.fields;
    let nothing = Value::Null;
    let names = entered
        .keys()
        .chain(kept.keys().filter(|name| !entered.contains_key(*name)));
    let differing: Vec<_> = names
        .filter(|name| !server_form::is_write_only(name))
        .map(|name| {
            (
                name,
                kept.get(name).unwrap_or(&nothing),
                entered.get(name).unwrap_or(&nothing),
            )
        })
        .filter(|(_, theirs, yours)| theirs != yours)
        .map(|(name, theirs, yours)| (server_form::name_of(name), shown(theirs), shown(yours)))
        .collect();
    let by = opened
        .view
        .updated
        .as_ref()
        .and_then(|written| written.by.as_deref());
    let said = html! { (refusal.message) @if let Some(by) = by { " It was saved by " (by) "." } };
    let content = html! {
        (meanwhile("server", &said, &opened.path_to(Tab::Settings), &differing))
        (settings_form(opened, form, &Beside::default(), opened.view.version))
    };
    let mut answer = opened.show(Tab::Settings, &content);
    *answer.status_mut() = StatusCode::CONFLICT;
    answer
}

/// `GET /ui/servers/{id}/delete`.
pub(super) async fn ask_delete(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let view = &opened.view;
    let place = view.text("url").or(view.text("command")).unwrap_or_default();
    let question = Question {
        title: &format!("Delete {}?", view.name),
        text: &format!(
            "The server {} ({place}, id {}) is deleted with its settings and everybody's sign-ins. This is permanent.",
            view.name, view.id
        ),
        action: &format!("{}/delete", opened.path()),
        yes: "Delete",
        back: &opened.path(),
    };
    opened
        .visit
        .page(Section::Servers, "Delete a server", &question.html())
}

/// `POST /ui/servers/{id}/delete`.
pub(super) async fn delete(
    AdminVisit { visit, actor }: AdminVisit,
    Path(id): Path<String>,
    _: Fields,
) -> Answer {
    let done = servers::delete(&visit.worker, &actor, &id, visit.id).await;
    visit.then(HERE, done.map(|()| "The server is deleted.".to_owned()))
}

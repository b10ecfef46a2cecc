//! The tools of a server, each with a form, and what a call of one came to.

use super::acting::{self, Acting};
use super::frame::{Opened, Tab};
use super::overview::connect_path;
use crate::http::console::Answer;
use crate::http::console::forms::{Errors, Fields};
use crate::http::console::parts::{Tone, chip, empty, note};
use crate::http::console::schema_form::SchemaForm;
use crate::http::console::session::Visit;
use crate::http::console::tool_result::{is_error, tool_result};
use crate::http::relay::direct::Direct;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::extract::Path;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded;

/// The longest texts of a tool that are shown, in characters.
const NAME_SHOWN: usize = 200;
const TEXT_SHOWN: usize = 2000;

/// A tool, as far as the page has use for it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'t> {
    #[serde(borrow)]
    name: Cow<'t, str>,
    #[serde(borrow, default)]
    title: Option<Cow<'t, str>>,
    #[serde(borrow, default)]
    description: Option<Cow<'t, str>>,
    #[serde(borrow, default)]
    input_schema: Option<&'t RawValue>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

/// What a server says that a tool does; nobody has to believe it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: Option<bool>,
    destructive_hint: Option<bool>,
}

/// A call that was made.
struct Called {
    result: Result<Box<RawValue>, Refusal>,
    took: Duration,
    credential: Option<&'static str>,
}

/// `GET /ui/servers/{id}/tools`.
pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Answer {
    let fields = visit.query();
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = content(&opened, &fields, false).await;
    opened.show_or(Tab::Tools, content)
}

/// `POST /ui/servers/{id}/tools`: with other headers, or a call.
pub(super) async fn act(visit: Visit, Path(id): Path<String>, fields: Fields) -> Answer {
    let opened = match Opened::of(visit, &id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = content(&opened, &fields, fields.get("action") == "call").await;
    opened.show_or(Tab::Tools, content)
}

async fn content(opened: &Opened, fields: &Fields, calls: bool) -> Result<Markup, Refusal> {
    let server = opened.served()?;
    let visit = &opened.visit;
    let acting = match Acting::of(visit, server, fields) {
        Ok(acting) => acting,
        Err(refusal) => return Ok(failed(opened, server, None, refusal)),
    };
    let direct = Direct::new(&visit.worker, &acting.admission, &acting.headers, server);
    let listed = match direct.tools().await {
        Ok(listed) => listed,
        Err(refusal) => return Ok(failed(opened, server, Some(&acting), refusal)),
    };
    let tools: Vec<Tool<'_>> = listed
        .iter()
        .filter_map(|json| serde_json::from_str(json).ok())
        .collect();
    let wanted = fields.raw("tool");
    let chosen = tools.iter().find(|tool| tool.name == wanted);
    let mut errors = Errors::default();
    let mut called = None;
    if let (true, Some(tool)) = (calls, chosen) {
        match SchemaForm::of(tool.input_schema).read(fields) {
            Err(wrong) => errors = wrong,
            Ok(arguments) => called = Some(call(visit, &direct, &tool.name, &arguments).await),
        }
    }
    let submitted = calls.then_some(fields);
    Ok(html! {
        (run_as(opened, server, Some(&acting)))
        @if tools.is_empty() {
            (empty("No tools", "The server lists no tools for this caller.", &html! {}))
        } @else {
            div.split {
                (list(opened, server, &acting, &tools, chosen))
                div.stack {
                    @match chosen {
                        Some(tool) => {
                            (form(opened, server, &acting, tool, submitted, &errors))
                            @if let Some(called) = called { (outcome(opened, server, called)) }
                        }
                        None if !wanted.is_empty() => {
                            (note(Tone::Warn, &html! { p { "The server has no tool " code { (shown(wanted, NAME_SHOWN)) } " for this caller." } }))
                        }
                        None => p.quiet { "Select a tool to try it." },
                    }
                }
            }
        }
    })
}

async fn call(visit: &Visit, direct: &Direct, name: &str, arguments: &RawValue) -> Called {
    let clock = &visit.worker.app.clock;
    let began = clock.now();
    let result = direct.call(name, arguments).await;
    Called {
        result,
        took: began.until(clock.now()),
        credential: direct.credential(),
    }
}

/// As whom the page is seen, and with which headers.
fn run_as(opened: &Opened, server: &Server, acting: Option<&Acting>) -> Markup {
    html! {
        details.card open[acting.is_none_or(|acting| !acting.is_plain())] {
            summary { "Run as, and additional headers" }
            form.stack method="post" action=(opened.path_to(Tab::Tools)) {
                (acting::fields(&opened.visit, server, acting))
                div.row { button type="submit" { "List tools" } }
            }
        }
    }
}

/// Nothing can be listed; never an empty list.
fn failed(opened: &Opened, server: &Arc<Server>, acting: Option<&Acting>, refusal: Refusal) -> Markup {
    html! {
        (run_as(opened, server, acting))
        (refused(opened, server, refusal))
    }
}

/// Why nothing came, and the way to sign in where that is what is missing.
pub(super) fn refused(opened: &Opened, server: &Arc<Server>, refusal: Refusal) -> Markup {
    let visit = &opened.visit;
    let refusal = visit.worker.refuse(refusal, Some(server), visit.id);
    let signs_in = matches!(
        refusal.code,
        ErrorCode::SignInRequired | ErrorCode::SignInEnded | ErrorCode::ScopeMissing
    ) && server.sign_in().is_some();
    note(
        if signs_in { Tone::Warn } else { Tone::Bad },
        &html! {
            @if signs_in { h2 { "Sign in to this server first" } }
            p { (refusal.message) }
            @if signs_in {
                p { a.button.primary href=(connect_path(&server.id)) { "Connect" } }
            } @else {
                p { (refusal.code.next_step()) }
            }
            p.quiet { code { (refusal.code.name()) } " · request " code { (visit.id) } }
        },
    )
}

fn list(
    opened: &Opened,
    server: &Server,
    acting: &Acting,
    tools: &[Tool<'_>],
    chosen: Option<&Tool<'_>>,
) -> Markup {
    let path = opened.path_to(Tab::Tools);
    html! {
        section.stack aria-label="Tools" {
            label.hidden-label for="tool-filter" { "Search tools" }
            input type="search" id="tool-filter" placeholder="Search tools" data-filter="tools";
            p.quiet id="tools-count" role="status" { (tools.len()) " tools" }
            form method="post" action=(path) {
                (acting.hidden(&opened.visit, server))
                ul.picks #tools {
                    @for tool in tools {
                        @let current = chosen.is_some_and(|chosen| chosen.name == tool.name);
                        @let name = shown(&tool.name, NAME_SHOWN);
                        li data-text={ (name) " " (tool.title.as_deref().unwrap_or_default()) " " (tool.description.as_deref().unwrap_or_default()) } {
                            @if acting.is_plain() {
                                @let query = form_urlencoded::Serializer::new(String::new())
                                    .append_pair("as", acting.key()).append_pair("tool", &tool.name).finish();
                                a href={ (path) "?" (query) } aria-current=[current.then_some("true")] { (name) }
                            } @else {
                                button.plain type="submit" name="tool" value=(tool.name) aria-current=[current.then_some("true")] { (name) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn form(
    opened: &Opened,
    server: &Server,
    acting: &Acting,
    tool: &Tool<'_>,
    submitted: Option<&Fields>,
    errors: &Errors,
) -> Markup {
    let schema = SchemaForm::of(tool.input_schema);
    html! {
        section.card aria-labelledby="tool" {
            div.row.between {
                h2 #tool { (shown(&tool.name, NAME_SHOWN)) }
                @if let Some(annotations) = &tool.annotations { (hints(annotations)) }
            }
            @if let Some(title) = &tool.title { p { strong { (shown(title, NAME_SHOWN)) } } }
            @if let Some(text) = &tool.description { p.lines { (text.chars().take(TEXT_SHOWN).collect::<String>()) } }
            @if !errors.is_empty() {
                (note(Tone::Bad, &html! {
                    p { "Nothing was sent:" }
                    ul {
                        @for (key, message) in errors.iter() {
                            li {
                                @match schema.element(key) {
                                    Some(id) => a href={ "#" (id) } { (shown(key.trim_start_matches("arg/"), NAME_SHOWN)) " " (message) },
                                    None => (message),
                                }
                            }
                        }
                    }
                }))
            }
            form.stack method="post" action=(opened.path_to(Tab::Tools)) {
                (acting.hidden(&opened.visit, server))
                input type="hidden" name="tool" value=(tool.name);
                (schema.render(submitted, errors))
                div.row { button.primary type="submit" name="action" value="call" { "Call Tool" } }
            }
        }
    }
}

fn hints(annotations: &Annotations) -> Markup {
    html! {
        @if annotations.read_only_hint == Some(true) {
            (chip(Tone::Plain, "says it only reads"))
        } @else if annotations.destructive_hint == Some(true) {
            (chip(Tone::Warn, "says it may destroy"))
        }
    }
}

fn outcome(opened: &Opened, server: &Arc<Server>, called: Called) -> Markup {
    let state = match &called.result {
        Ok(result) if is_error(result) => chip(Tone::Bad, "tool failed"),
        Ok(_) => chip(Tone::Good, "answered"),
        Err(_) => chip(Tone::Bad, "refused"),
    };
    html! {
        section.card #result aria-labelledby="result-title" aria-live="polite" {
            div.row.between {
                h2 #result-title { "Result" }
                (state)
            }
            p.quiet {
                "In " (called.took.as_millis()) " ms"
                @if let Some(credential) = called.credential {
                    ". Shown to the server: " (words(credential)) " (" code { (credential) } ")"
                }
                "."
            }
            @match called.result {
                Ok(result) => (tool_result(&result)),
                Err(refusal) => (refused(opened, server, refusal)),
            }
        }
    }
}

/// What a server was shown, for people.
fn words(credential: &str) -> &'static str {
    match credential {
        "oauth2-passthrough" => "the caller's own token",
        "m2m-client-credentials" => "the gateway's machine token",
        "stored-user-token" => "the token that is kept for the person",
        "static-token" => "the configured credential",
        "per-request-header" => "what was sent for this server alone",
        "token-exchange" | "id-jag" => "a token that the caller's was exchanged for",
        "aws-sigv4" => "a signature",
        "extra-headers" => "headers that are passed on",
        "no-auth" => "no credential",
        _ => "no credential could be had",
    }
}

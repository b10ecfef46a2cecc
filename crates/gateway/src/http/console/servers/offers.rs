//! The prompts and resources of a server: listed, got and read.

use super::acting::{self, Acting};
use super::frame::{Opened, Tab};
use super::tools::refused;
use crate::http::console::Answer;
use crate::http::console::forms::Fields;
use crate::http::console::session::Visit;
use crate::http::console::tool_result;
use crate::http::relay::direct::{Direct, Talk};
use crate::registry::Server;
use crate::web::error::{Refusal, shown};
use axum::extract::Path;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const NAME_SHOWN: usize = 200;
const TEXT_SHOWN: usize = 500;
/// The most arguments of a prompt that have a field.
const MOST_ARGUMENTS: usize = 50;
/// Before the name of a prompt's argument.
const ARGUMENT: &str = "argument:";

#[derive(Deserialize)]
struct Prompt {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    arguments: Vec<Argument>,
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    required: bool,
}

/// A resource, or a template of resources.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(alias = "uriTemplate")]
    uri: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    mime_type: Option<String>,
}

/// One list, or why there is none. `None` when the server says that it has no such things.
type Listed<T> = Option<Result<Vec<T>, Refusal>>;

/// All that a server offers beside tools.
struct Offers {
    prompts: Listed<Prompt>,
    resources: Listed<Resource>,
    templates: Listed<Resource>,
}

/// What the form asks for.
enum Wanted<'f> {
    Prompt(&'f str),
    Resource(&'f str),
    Nothing,
}

/// `GET /ui/servers/{id}/prompts`.
pub(super) async fn page(visit: Visit, Path(id): Path<String>) -> Answer {
    let fields = visit.query();
    answer(visit, &id, &fields, Wanted::Nothing).await
}

/// `POST /ui/servers/{id}/prompts`: get a prompt, read a resource, or list with other headers.
pub(super) async fn act(visit: Visit, Path(id): Path<String>, fields: Fields) -> Answer {
    let wanted = match (fields.get("action"), fields.raw("name"), fields.get("uri")) {
        ("get", name, _) => Wanted::Prompt(name),
        ("read", _, uri) => Wanted::Resource(uri),
        _ => Wanted::Nothing,
    };
    answer(visit, &id, &fields, wanted).await
}

async fn answer(visit: Visit, id: &str, fields: &Fields, wanted: Wanted<'_>) -> Answer {
    let opened = match Opened::of(visit, id).await {
        Ok(opened) => opened,
        Err(answer) => return answer,
    };
    let content = async {
        let server = opened.served()?;
        let acting = Acting::of(&opened.visit, server, fields);
        let shown = match &acting {
            Ok(acting) => content(&opened, server, acting, fields, &wanted).await,
            Err(_) => Ok(html! {}),
        };
        let run_as = html! {
            details.card {
                summary { "Run as, and additional headers" }
                form.stack method="post" action=(opened.path_to(Tab::Offers)) {
                    (acting::fields(&opened.visit, server, acting.as_ref().ok()))
                    div.row { button type="submit" { "List" } }
                }
            }
        };
        let failed = acting.err().or_else(|| shown.as_ref().err().cloned());
        Ok(html! {
            (run_as)
            @match failed {
                Some(refusal) => (refused(&opened, server, refusal)),
                None => (shown.unwrap_or_default()),
            }
        })
    };
    let content = content.await;
    opened.show_or(Tab::Offers, content)
}

async fn content(
    opened: &Opened,
    server: &Arc<Server>,
    acting: &Acting,
    fields: &Fields,
    wanted: &Wanted<'_>,
) -> Result<Markup, Refusal> {
    let direct = Direct::new(&opened.visit.worker, &acting.admission, &acting.headers, server);
    let talk = direct.open().await?;
    let offers = Offers {
        prompts: listed(&talk, "prompts", "prompts/list", "prompts").await,
        resources: listed(&talk, "resources", "resources/list", "resources").await,
        templates: listed(
            &talk,
            "resources",
            "resources/templates/list",
            "resourceTemplates",
        )
        .await,
    };
    let result = match wanted {
        Wanted::Nothing => None,
        Wanted::Prompt(name) => {
            let params = json!({"name": name, "arguments": arguments(fields)});
            Some((
                *name,
                talk.ask("prompts/get", name, params).await,
                tool_result::prompt as fn(&RawValue) -> Markup,
            ))
        }
        Wanted::Resource(uri) => {
            let asked = talk.ask("resources/read", uri, json!({"uri": uri})).await;
            Some((*uri, asked, tool_result::resource as fn(&RawValue) -> Markup))
        }
    };
    talk.end().await;
    let hidden = acting.hidden(&opened.visit, server);
    let action = opened.path_to(Tab::Offers);
    Ok(html! {
        @if let Some((title, result, show)) = result {
            section.card #result aria-labelledby="result-title" {
                h2 #result-title { (shown(title, NAME_SHOWN)) }
                @match result {
                    Ok(result) => (show(&result)),
                    Err(refusal) => (refused(opened, server, refusal)),
                }
            }
        }
        section.stack aria-labelledby="prompts" {
            h2 #prompts { "Prompts" }
            (list(opened, server, offers.prompts, "The server has no prompts.", |prompt| prompt_card(prompt, &action, &hidden)))
        }
        section.stack aria-labelledby="resources" {
            h2 #resources { "Resources" }
            (list(opened, server, offers.resources, "The server has no resources.", |resource| resource_card(resource, &action, &hidden)))
        }
        section.stack aria-labelledby="templates" {
            h2 #templates { "Resource templates" }
            (list(opened, server, offers.templates, "The server has no templates of resources.", |resource| template_card(resource, &action, &hidden)))
        }
    })
}

async fn listed<T: for<'de> Deserialize<'de>>(
    talk: &Talk<'_>,
    what: &str,
    method: &str,
    member: &str,
) -> Listed<T> {
    if !talk.offers(what) {
        return None;
    }
    let items = talk.items(method, member).await;
    Some(items.map(|items| {
        items
            .iter()
            .filter_map(|item| serde_json::from_str(item.get()).ok())
            .collect()
    }))
}

fn list<T>(
    opened: &Opened,
    server: &Arc<Server>,
    items: Listed<T>,
    none: &str,
    card: impl Fn(&T) -> Markup,
) -> Markup {
    match items {
        None => html! { p.quiet { (none) } },
        Some(Ok(items)) if items.is_empty() => html! { p.quiet { (none) } },
        Some(Ok(items)) => html! { div.cards { @for item in &items { (card(item)) } } },
        Some(Err(refusal)) => refused(opened, server, refusal),
    }
}

/// What was filled in of a prompt's arguments; they are all texts.
fn arguments(fields: &Fields) -> Map<String, Value> {
    let named = fields
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(ARGUMENT)?, value)));
    named
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

fn prompt_card(prompt: &Prompt, action: &str, hidden: &Markup) -> Markup {
    html! {
        article.card {
            h3 { (shown(&prompt.name, NAME_SHOWN)) }
            @if let Some(text) = &prompt.description { p { (shown(text, TEXT_SHOWN)) } }
            form.stack method="post" action=(action) {
                (hidden)
                input type="hidden" name="name" value=(prompt.name);
                @for argument in prompt.arguments.iter().take(MOST_ARGUMENTS) {
                    label.field {
                        span { (shown(&argument.name, NAME_SHOWN)) @if argument.required { " " span.required { "required" } } }
                        @if let Some(text) = &argument.description { span.hint { (shown(text, TEXT_SHOWN)) } }
                        input type="text" name={ (ARGUMENT) (argument.name) } required[argument.required] autocomplete="off";
                    }
                }
                div.row { button type="submit" name="action" value="get" { "Get" span.hidden-label { " " (shown(&prompt.name, NAME_SHOWN)) } } }
            }
        }
    }
}

fn resource_card(resource: &Resource, action: &str, hidden: &Markup) -> Markup {
    html! {
        article.card {
            (about(resource))
            form method="post" action=(action) {
                (hidden)
                input type="hidden" name="uri" value=(resource.uri);
                button type="submit" name="action" value="read" { "Read" span.hidden-label { " " (shown(&resource.uri, NAME_SHOWN)) } }
            }
        }
    }
}

fn template_card(resource: &Resource, action: &str, hidden: &Markup) -> Markup {
    html! {
        article.card {
            (about(resource))
            form.stack method="post" action=(action) {
                (hidden)
                label.field {
                    span { "URI" }
                    input type="text" name="uri" value=(resource.uri) required autocomplete="off";
                }
                div.row { button type="submit" name="action" value="read" { "Read" } }
            }
        }
    }
}

fn about(resource: &Resource) -> Markup {
    html! {
        h3 { (shown(resource.name.as_deref().unwrap_or(&resource.uri), NAME_SHOWN)) }
        p { code { (shown(&resource.uri, TEXT_SHOWN)) } @if let Some(kind) = &resource.mime_type { " " span.quiet { (shown(kind, NAME_SHOWN)) } } }
        @if let Some(text) = &resource.description { p { (shown(text, TEXT_SHOWN)) } }
    }
}

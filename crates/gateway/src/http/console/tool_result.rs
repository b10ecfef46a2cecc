//! What a tool, a prompt or a resource gave, as HTML. Everything in it is somebody else's: text is text, pictures are
//! of four known kinds, and what is long is cut short with a word about it.

use super::pretty::pretty;
use crate::web::error::shown;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The most that is shown of one text, in characters, and of one picture or sound, in bytes of Base64.
const TEXT_LIMIT: usize = 100_000;
const DATA_LIMIT: usize = 6 * 1024 * 1024;
/// The most of all data together.
const ALL_DATA_LIMIT: usize = 12 * 1024 * 1024;
/// The most parts.
const PART_LIMIT: usize = 100;
const NAME_SHOWN: usize = 300;

/// The pictures that are shown. SVG is none: it can hold scripts.
const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// `CallToolResult`, as far as it is understood.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallToolResult<'r> {
    #[serde(borrow, default)]
    content: Option<Vec<&'r RawValue>>,
    #[serde(borrow, default)]
    structured_content: Option<&'r RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
}

/// One part of a result, of a prompt's message, or of a resource.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Part<'r> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'r, str>>,
    #[serde(borrow)]
    text: Option<Cow<'r, str>>,
    #[serde(borrow)]
    data: Option<Cow<'r, str>>,
    #[serde(borrow)]
    blob: Option<Cow<'r, str>>,
    #[serde(borrow)]
    mime_type: Option<Cow<'r, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'r, str>>,
    #[serde(borrow)]
    name: Option<Cow<'r, str>>,
    #[serde(borrow)]
    description: Option<Cow<'r, str>>,
    #[serde(borrow)]
    resource: Option<&'r RawValue>,
}

/// Whether a result says that the tool failed.
pub(crate) fn is_error(result: &RawValue) -> bool {
    serde_json::from_str::<CallToolResult<'_>>(result.get())
        .ok()
        .and_then(|result| result.is_error)
        .unwrap_or(false)
}

/// A `CallToolResult`.
pub(crate) fn tool_result(result: &RawValue) -> Markup {
    let parsed: Option<CallToolResult<'_>> = serde_json::from_str(result.get()).ok();
    let mut budget = ALL_DATA_LIMIT;
    html! {
        @match &parsed {
            None => p class="wrong" { "What came is no result of a tool." },
            Some(parsed) => {
                @if parsed.is_error == Some(true) {
                    p class="wrong" role="alert" { "The tool says that it failed." }
                }
                (parts(parsed.content.iter().flatten().copied(), &mut budget))
                @if let Some(structured) = parsed.structured_content {
                    details class="structured" open {
                        summary { "Structured content" }
                        pre tabindex="0" { (pretty(structured.get())) }
                    }
                }
                @if parsed.content.as_ref().is_none_or(Vec::is_empty) && parsed.structured_content.is_none() {
                    p class="quiet" { "The result is empty." }
                }
            },
        }
        (raw("JSON as it came", result))
    }
}

/// The messages of a prompt.
pub(crate) fn prompt(result: &RawValue) -> Markup {
    #[derive(Deserialize)]
    struct Prompt<'r> {
        #[serde(borrow, default)]
        messages: Vec<Message<'r>>,
    }
    #[derive(Deserialize)]
    struct Message<'r> {
        #[serde(borrow)]
        role: Cow<'r, str>,
        #[serde(borrow)]
        content: &'r RawValue,
    }
    let parsed: Option<Prompt<'_>> = serde_json::from_str(result.get()).ok();
    let mut budget = ALL_DATA_LIMIT;
    html! {
        @match &parsed {
            None => p class="wrong" { "What came is no prompt." },
            Some(parsed) => @for message in parsed.messages.iter().take(PART_LIMIT) {
                h4 { (shown(&message.role, NAME_SHOWN)) }
                (parts([message.content], &mut budget))
            },
        }
        (raw("JSON as it came", result))
    }
}

/// The contents of a resource.
pub(crate) fn resource(result: &RawValue) -> Markup {
    #[derive(Deserialize)]
    struct Contents<'r> {
        #[serde(borrow, default)]
        contents: Vec<&'r RawValue>,
    }
    let parsed: Option<Contents<'_>> = serde_json::from_str(result.get()).ok();
    let mut budget = ALL_DATA_LIMIT;
    html! {
        @match &parsed {
            None => p class="wrong" { "What came is no resource." },
            Some(parsed) => @for content in parsed.contents.iter().take(PART_LIMIT) {
                (embedded(content, &mut budget))
            },
        }
        (raw("JSON as it came", result))
    }
}

fn raw(title: &str, json: &RawValue) -> Markup {
    html! {
        details class="raw" {
            summary { (title) }
            pre tabindex="0" { (pretty(json.get())) }
        }
    }
}

fn parts<'r>(all: impl IntoIterator<Item = &'r RawValue>, budget: &mut usize) -> Markup {
    let mut all = all.into_iter();
    let shown: Vec<Markup> = all
        .by_ref()
        .take(PART_LIMIT)
        .map(|part| one(part, budget))
        .collect();
    let left = all.count();
    html! {
        @for part in shown { (part) }
        @if left > 0 { p class="quiet" { (left) " further parts are in the JSON below." } }
    }
}

fn one(json: &RawValue, budget: &mut usize) -> Markup {
    let part: Part<'_> = serde_json::from_str(json.get()).unwrap_or_default();
    match part.kind.as_deref() {
        Some("text") => text(part.text.as_deref().unwrap_or_default()),
        Some("image" | "audio") => data(
            part.mime_type.as_deref().unwrap_or_default(),
            part.data.as_deref().unwrap_or_default(),
            budget,
        ),
        Some("resource_link") => html! {
            div class="resource" {
                p { (link(&part)) }
                @if let Some(text) = &part.description { p class="quiet" { (shown(text, NAME_SHOWN)) } }
            }
        },
        Some("resource") if part.resource.is_some() => html! {
            @if let Some(resource) = part.resource { (embedded(resource, budget)) }
        },
        _ => html! { pre tabindex="0" { (pretty(json.get())) } },
    }
}

fn embedded(json: &RawValue, budget: &mut usize) -> Markup {
    let part: Part<'_> = serde_json::from_str(json.get()).unwrap_or_default();
    let kind = part.mime_type.as_deref().unwrap_or_default();
    html! {
        div class="resource" {
            p { (link(&part)) }
            @if let Some(own) = &part.text { (text(own)) }
            @if let Some(blob) = &part.blob { (data(kind, blob, budget)) }
        }
    }
}

/// The name of a resource. Only an address of the web is a link.
fn link(part: &Part<'_>) -> Markup {
    let uri = part.uri.as_deref().unwrap_or_default();
    let name = part.name.as_deref().unwrap_or(uri);
    let is_web = url::Url::parse(uri).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    html! {
        @if is_web {
            a href=(uri) rel="noopener noreferrer" target="_blank" { (shown(name, NAME_SHOWN)) }
        } @else {
            span { (shown(name, NAME_SHOWN)) }
        }
        @if name != uri { " " code { (shown(uri, NAME_SHOWN)) } }
        @if let Some(kind) = &part.mime_type { " " span class="quiet" { (shown(kind, NAME_SHOWN)) } }
    }
}

fn text(text: &str) -> Markup {
    let mut characters = text.char_indices();
    let cut = characters.nth(TEXT_LIMIT).map(|(at, _)| at);
    let whole = text.len();
    html! {
        pre tabindex="0" { (&text[..cut.unwrap_or(whole)]) }
        @if let Some(cut) = cut {
            p class="quiet" { "The first " (cut) " of " (whole) " bytes." }
        }
    }
}

/// A picture, or something to save. `budget` is what is left for the page.
fn data(kind: &str, base64: &str, budget: &mut usize) -> Markup {
    let kind = kind.trim().to_ascii_lowercase();
    let size = base64.len() / 4 * 3;
    let is_base64 = base64
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    if !is_base64 {
        return html! { p class="wrong" { "Data that is not Base64: " (shown(&kind, NAME_SHOWN)) } };
    }
    if base64.len() > DATA_LIMIT.min(*budget) {
        return html! {
            p class="quiet" { (shown(&kind, NAME_SHOWN)) ", " (size) " bytes: too large for this page." }
        };
    }
    *budget -= base64.len();
    if PICTURES.contains(&kind.as_str()) {
        return html! {
            figure {
                img src={ "data:" (kind) ";base64," (base64) } alt={ "The tool's picture, " (kind) ", " (size) " bytes" };
            }
        };
    }
    // A browser saves what it is told to save; the kind only gives the file its name.
    let (saved_as, extension) = match kind.as_str() {
        "audio/wav" | "audio/x-wav" => ("audio/wav", "wav"),
        "audio/mpeg" | "audio/mp3" => ("audio/mpeg", "mp3"),
        "audio/ogg" => ("audio/ogg", "ogg"),
        _ => ("application/octet-stream", "bin"),
    };
    html! {
        p {
            a href={ "data:" (saved_as) ";base64," (base64) } download={ "result." (extension) } {
                "Save " @if kind.is_empty() { "data" } @else { (shown(&kind, NAME_SHOWN)) } " (" (size) " bytes)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(result: &Value) -> String {
        let raw = RawValue::from_string(result.to_string()).expect("JSON");
        tool_result(&raw).into_string()
    }

    fn part(part: &Value) -> String {
        let html = of(&json!({"content": [part]}));
        html.split("<details").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_kind_of_content() {
        assert!(part(&json!({"type": "text", "text": "a <b>\n c"})).contains("a &lt;b&gt;\n c</pre>"));
        let image = part(&json!({"type": "image", "mimeType": "image/PNG", "data": "AAAA"}));
        assert!(
            image.contains("<img src=\"data:image/png;base64,AAAA\" alt="),
            "{image}"
        );
        let audio = part(&json!({"type": "audio", "mimeType": "audio/wav", "data": "AAAA"}));
        assert!(
            audio.contains("href=\"data:audio/wav;base64,AAAA\" download=\"result.wav\""),
            "{audio}"
        );
        let link =
            part(&json!({"type": "resource_link", "uri": "https://example.test/a?b=\"c", "name": "A"}));
        assert!(
            link.contains("href=\"https://example.test/a?b=&quot;c\" rel=\"noopener noreferrer\""),
            "{link}"
        );
        let other = part(&json!({"type": "resource_link", "uri": "javascript:alert(1)", "name": "A"}));
        assert!(
            !other.contains("href") && other.contains("<code>javascript:alert(1)</code>"),
            "{other}"
        );
        let embedded = part(&json!({"type": "resource", "resource": {"uri": "file:///x", "text": "in <i>"}}));
        assert!(embedded.contains("in &lt;i&gt;</pre>"), "{embedded}");
        let unknown = part(&json!({"type": "hologram", "shape": "<cube>"}));
        assert!(unknown.contains("&lt;cube&gt;"), "{unknown}");
    }

    #[test]
    fn svg_and_what_pretends_to_be_a_picture_are_only_saved() {
        for kind in [
            "image/svg+xml",
            "text/html",
            "image/png;x=<b>",
            "image/png\" onload=\"x",
            "",
        ] {
            let html = part(&json!({"type": "image", "mimeType": kind, "data": "PHN2Zz4="}));
            assert!(
                !html.contains("<img") && html.contains("data:application/octet-stream;base64,"),
                "{html}"
            );
        }
        let broken =
            part(&json!({"type": "image", "mimeType": "image/png", "data": "\" onerror=\"alert(1)"}));
        assert!(
            !broken.contains("<img") && !broken.contains("onerror"),
            "{broken}"
        );
    }

    #[test]
    fn errors_structures_and_nonsense() {
        let html =
            of(&json!({"content": [], "isError": true, "structuredContent": {"a": 1.50, "<b>": "</pre>"}}));
        assert!(html.contains("says that it failed"), "{html}");
        assert!(html.contains("&lt;b&gt;") && !html.contains("</pre>\""), "{html}");
        assert!(of(&json!({})).contains("The result is empty."));
        assert!(of(&json!([1])).contains("no result of a tool"));
        let failed = RawValue::from_string(r#"{"isError": true}"#.into()).expect("JSON");
        assert!(is_error(&failed));
    }

    #[test]
    fn what_is_long_is_cut_with_a_word_about_it() {
        let html = part(&json!({"type": "text", "text": "ä".repeat(TEXT_LIMIT + 1)}));
        assert!(html.contains(&format!(
            "The first {} of {} bytes.",
            TEXT_LIMIT * 2,
            TEXT_LIMIT * 2 + 2
        )));
        let html =
            part(&json!({"type": "image", "mimeType": "image/png", "data": "A".repeat(DATA_LIMIT + 4)}));
        assert!(html.contains("too large for this page"));
        let picture = json!({"type": "image", "mimeType": "image/png", "data": "A".repeat(DATA_LIMIT)});
        let html = of(&json!({"content": [picture, picture, picture]}));
        assert_eq!(html.matches("<img").count(), 2);
        let many: Vec<Value> = (0..150)
            .map(|i| json!({"type": "text", "text": format!("part {i}.")}))
            .collect();
        let html = of(&json!({"content": many}));
        assert!(html.contains("50 further parts") && !html.contains("part 100.</pre>"));
    }

    #[test]
    fn prompts_and_resources() {
        let raw = |value: Value| RawValue::from_string(value.to_string()).expect("JSON");
        let html = prompt(&raw(
            json!({"messages": [{"role": "user<", "content": {"type": "text", "text": "hi"}}]}),
        ));
        assert!(html.into_string().contains("user&lt;</h4>"));
        let html = resource(&raw(
            json!({"contents": [{"uri": "x:y", "text": "body"}, {"uri": "x:z", "blob": "AA=="}]}),
        ));
        let html = html.into_string();
        assert!(html.contains("body</pre>") && html.contains("download"), "{html}");
    }
}

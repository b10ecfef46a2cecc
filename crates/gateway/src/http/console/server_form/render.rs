//! The form as HTML. Every field is there; those without a meaning for what is chosen are hidden, so that what was
//! written in them survives another choice.

use super::modes::{
    CONNECTION, IDENTITY, MODES, Mode, OF_PROGRAMS, OVER_HTTP, PARTS, TRANSPORTS, field, label,
};
use super::{AUTH, Chosen, FLOW, NAME, REMOVE, ServerForm, TRANSPORT};
use crate::config::fields::Kind;
use crate::http::console::forms::Errors;
use maud::{Markup, html};

/// In the place of a secret that is kept.
const KEPT: &str = "kept; leave blank to keep it";

impl ServerForm {
    /// All fields, without the form around them and its buttons.
    pub(crate) fn render(&self, errors: &Errors, probed: &Markup) -> Markup {
        let chosen = self.chosen();
        let kept = self.kept.is_some();
        html! {
            section.card {
                h2 { "Server" }
                div class="field" {
                    label for=(NAME) { "MCP Server Name" " " span class="required" { "required" } }
                    p class="hint" id="server_name-hint" {
                        "Letters, digits, " code { "_" } " and " code { "." } ". It is part of the server's address: "
                        code { "/name/mcp" } "."
                        @if kept { " A server keeps its name." }
                    }
                    input type="text" id=(NAME) name=(NAME) value=(self.text(NAME)) required readonly[kept]
                        autocomplete="off" aria-describedby="server_name-hint" aria-invalid=[invalid(errors, NAME)];
                    (error(errors, NAME, "The name"))
                }
                @for name in IDENTITY { (self.field(name, chosen, errors)) }
            }
            section.card {
                h2 { "Connection" }
                (choice(TRANSPORT, "Transport Type", TRANSPORTS, chosen.transport))
                @for name in CONNECTION { (self.field(name, chosen, errors)) }
                div data-transports="http sse" hidden[chosen.transport == "stdio"] {
                    button type="submit" name="show" value="probe" data-probe { "Probe" }
                }
                div #probe data-transports="http sse" aria-live="polite" { (probed) }
            }
            section.card {
                h2 { "Authentication" }
                (choice(AUTH, "Authentication", &authentications(), chosen.mode.auth))
                (self.flow(chosen))
                div data-without-script { button type="submit" name="show" value="fields" { "Show fields" } }
                @for mode in MODES { (notes(mode, chosen)) }
                @for name in of_modes(|mode| mode.main) { (self.field(name, chosen, errors)) }
                @let more = of_modes(|mode| mode.more);
                @let more: Vec<_> = more.into_iter().filter(|name| !of_modes(|mode| mode.main).contains(name)).collect();
                details open[more.iter().any(|name| errors.of(name).is_some())] {
                    summary { "Further settings of this authentication" }
                    @for name in more { (self.field(name, chosen, errors)) }
                }
            }
            @for part in PARTS {
                details class="card" open[part.fields.iter().any(|name| errors.of(name).is_some())] {
                    summary { (part.title) }
                    @for name in part.fields { (self.field(name, chosen, errors)) }
                }
            }
        }
    }

    fn text(&self, name: &str) -> &str {
        self.values.raw(name)
    }

    /// Radio buttons, so that the three are compared at a glance.
    fn flow(&self, chosen: Chosen) -> Markup {
        let flows = MODES.iter().filter_map(|mode| Some((mode, mode.flow?)));
        let written = self.values.filled(FLOW).unwrap_or(super::DEFAULT_FLOW);
        let oauth2 = chosen.mode.flow.is_some();
        let current = chosen.mode.flow.unwrap_or(written);
        let keys: Vec<String> = MODES
            .iter()
            .filter(|mode| mode.flow.is_some())
            .map(Mode::key)
            .collect();
        html! {
            div class="field" data-modes=(keys.join(" ")) hidden[!oauth2] {
                fieldset id=(FLOW) {
                    legend { "OAuth Flow Type" }
                    @for (mode, flow) in flows {
                        @let id = format!("{FLOW}-{flow}");
                        p class="check" {
                            input type="radio" id=(id) name=(FLOW) value=(flow) checked[flow == current];
                            label for=(id) { (mode.label) }
                        }
                    }
                }
            }
        }
    }

    fn field(&self, name: &str, chosen: Chosen, errors: &Errors) -> Markup {
        let Some(setting) = field(name) else {
            return html! {};
        };
        let title = label(name);
        let transports = if OVER_HTTP.contains(&name) {
            Some("http sse")
        } else if OF_PROGRAMS.contains(&name) {
            Some("stdio")
        } else {
            None
        };
        let modes: Vec<String> = MODES
            .iter()
            .filter(|mode| mode.has(name))
            .map(Mode::key)
            .collect();
        let modes = (!modes.is_empty()).then(|| modes.join(" "));
        let needing: Vec<String> = MODES
            .iter()
            .filter(|mode| mode.required.contains(&name))
            .map(Mode::key)
            .collect();
        let required = matches!(name, "url" | "command");
        let wrong = errors.of(name).is_some();
        let described = if wrong {
            format!("{name}-hint {name}-error")
        } else {
            format!("{name}-hint")
        };
        html! {
            div class="field" data-modes=[modes] data-transports=[transports] hidden[!chosen.has(name)] {
                label for=(name) {
                    (title)
                    @if required || !needing.is_empty() {
                        " " span class="required" data-modes=[(!required).then(|| needing.join(" "))]
                            hidden[!required && !chosen.mode.required.contains(&name)] { "required" }
                    }
                }
                p class="hint" id={ (name) "-hint" } { (documented(setting.doc)) (shape(name, setting.kind)) }
                (self.input(name, setting.kind, wrong, &described))
                @if self.keeps(name) {
                    p class="check" {
                        input type="checkbox" id={ "remove-" (name) } name={ (REMOVE) (name) } value="on"
                            checked[self.removes(name)];
                        label for={ "remove-" (name) } { "Remove what is kept" }
                    }
                }
                (error(errors, name, &title))
            }
        }
    }

    fn input(&self, name: &str, kind: Kind, wrong: bool, described: &str) -> Markup {
        let text = self.text(name);
        let invalid = wrong.then_some("true");
        let kept = self.keeps(name).then_some(KEPT);
        match kind {
            Kind::Secret if name == "client_private_key" => html! {
                textarea id=(name) name=(name) rows="4" spellcheck="false" class="mono" autocomplete="off" placeholder=[kept]
                    aria-invalid=[invalid] aria-describedby=(described) {}
            },
            // What was typed is not sent back to the page.
            Kind::Secret => html! {
                input type="password" id=(name) name=(name) autocomplete="new-password" placeholder=[kept]
                    aria-invalid=[invalid] aria-describedby=(described);
            },
            Kind::Bool => self.select(name, &[("true", "Yes"), ("false", "No")], invalid, described),
            Kind::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| (*word, *word)).collect();
                self.select(name, &words, invalid, described)
            }
            Kind::TextList | Kind::Headers | Kind::TextMap | Kind::Any => html! {
                textarea id=(name) name=(name) rows="3" spellcheck="false" class="mono" placeholder=[kept] aria-invalid=[invalid]
                    aria-describedby=(described) { "\n" (text) }
            },
            Kind::Text if name == "instructions" || name == "description" => html! {
                textarea id=(name) name=(name) rows="2" aria-invalid=[invalid] aria-describedby=(described) { "\n" (text) }
            },
            Kind::Text | Kind::Url | Kind::Seconds | Kind::Count => html! {
                input type=(if kind == Kind::Url { "url" } else { "text" }) id=(name) name=(name) value=(text) autocomplete="off"
                    spellcheck="false" aria-invalid=[invalid] aria-describedby=(described);
            },
        }
    }

    fn select(&self, name: &str, choices: &[(&str, &str)], invalid: Option<&str>, described: &str) -> Markup {
        let text = self.text(name);
        html! {
            select id=(name) name=(name) aria-invalid=[invalid] aria-describedby=(described) {
                option value="" { "Default" }
                @for (word, title) in choices { option value=(word) selected[*word == text] { (title) } }
            }
        }
    }
}

fn choice(name: &str, title: &str, choices: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        div class="field" {
            label for=(name) { (title) }
            select id=(name) name=(name) {
                @for (word, text) in choices { option value=(word) selected[*word == chosen] { (text) } }
            }
        }
    }
}

fn invalid(errors: &Errors, name: &str) -> Option<&'static str> {
    errors.of(name).map(|_| "true")
}

fn error(errors: &Errors, name: &str, title: &str) -> Markup {
    html! {
        @if let Some(message) = errors.of(name) { p class="wrong" id={ (name) "-error" } { (title) " " (message) "." } }
    }
}

/// The choices under Authentication: the flows of OAuth are one.
fn authentications() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for mode in MODES {
        let text = if mode.flow.is_some() { "OAuth" } else { mode.label };
        if all.last().is_none_or(|(word, _)| *word != mode.auth) {
            all.push((mode.auth, text));
        }
    }
    all
}

/// Settings of any mode, each once.
fn of_modes(which: impl Fn(&'static Mode) -> &'static [&'static str]) -> Vec<&'static str> {
    let mut all = Vec::new();
    for name in MODES.iter().flat_map(which) {
        if !all.contains(name) {
            all.push(*name);
        }
    }
    all
}

fn notes(mode: &Mode, chosen: Chosen) -> Markup {
    let hidden = mode.key() != chosen.mode.key();
    html! {
        div data-modes=(mode.key()) hidden[hidden] {
            p class="hint" { (mode.note) }
            @if let Some(warning) = mode.warning { div class="note warn" { p { (warning) } } }
        }
    }
}

/// How a field is written, where that is not plain.
fn shape(name: &str, kind: Kind) -> &'static str {
    match kind {
        Kind::TextList if name == "scopes" => " Separated by spaces.",
        Kind::TextList => " One a line.",
        Kind::Headers => " One a line: Name: value.",
        Kind::TextMap => " One a line: NAME=value.",
        Kind::Any => " JSON.",
        _ => "",
    }
}

/// The reference's text, its code marked.
fn documented(doc: &str) -> Markup {
    html! {
        @for (index, part) in doc.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

//! Fields as HTML: with labels, hints, and what is wrong with them.

use super::schema::label_of;
use super::{Errors, Field, Fields, Kind, NAME_SHOWN, Text, WHOLE};
use crate::web::error::shown;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::HashSet;

/// The one field for all arguments.
pub(super) fn whole_field(text: &str, errors: &Errors, beside_fields: bool) -> Markup {
    let error = errors.of(WHOLE);
    html! {
        div class="field" {
            label for="arguments-json" { @if beside_fields { "JSON" } @else { "Arguments (JSON)" } }
            textarea id="arguments-json" name=(WHOLE) rows="6" spellcheck="false" class="mono"
                aria-invalid=[error.map(|_| "true")] aria-describedby=[error.map(|_| "arguments-json-error")] {
                "\n" (text)
            }
            @if let Some(error) = error {
                p class="wrong" id="arguments-json-error" { "This " (error) "." }
            }
        }
    }
}

impl Field {
    pub(super) fn render(&self, values: Option<&Fields>, errors: &Errors, asked: bool) -> Markup {
        let asked = asked && self.required;
        let error = errors.of(&self.key);
        let notes = !self.hints.is_empty() || self.description.is_some();
        let described = match (notes, error) {
            (false, None) => None,
            (true, None) => Some(format!("{}-hint", self.id)),
            (false, Some(_)) => Some(format!("{}-error", self.id)),
            (true, Some(_)) => Some(format!("{0}-hint {0}-error", self.id)),
        };
        let name = shown(&self.name, NAME_SHOWN);
        let heading = html! {
            (name)
            @if let Some(title) = self.title.as_ref().filter(|title| **title != name) { " " span class="title" { (title) } }
            @if asked { " " span class="required" { "required" } }
        };
        let notes = html! {
            @if notes {
                p class="hint" id={ (self.id) "-hint" } {
                    @if let Some(text) = &self.description { (text) " " }
                    @for hint in &self.hints { (hint) " " }
                }
            }
            @if let Some(error) = error { p class="wrong" id={ (self.id) "-error" } { (name) " " (error) "." } }
        };
        let grouped = matches!(self.kind, Kind::Object(_) | Kind::Several(..));
        html! {
            @if grouped {
                fieldset id=(self.id) tabindex="-1" aria-describedby=[described.as_deref()] {
                    legend { (heading) }
                    (notes)
                    (self.group(values, errors, asked))
                }
            } @else {
                div class="field" {
                    label for=(self.id) { (heading) }
                    (notes)
                    (self.input(values, asked, error.is_some(), described.as_deref()))
                }
            }
        }
    }

    fn group(&self, values: Option<&Fields>, errors: &Errors, asked: bool) -> Markup {
        match &self.kind {
            Kind::Object(members) => html! {
                @for member in members { (member.render(values, errors, asked)) }
            },
            Kind::Several(choices, _) => {
                let chosen = self.chosen(values);
                html! {
                    @for (index, choice) in choices.iter().enumerate() {
                        @let text = choice.to_string();
                        @let id = format!("{}-{index}", self.id);
                        p class="check" {
                            input type="checkbox" id=(id) name=(self.key) value=(text) checked[chosen.contains(&text)];
                            label for=(id) { (label_of(choice)) }
                        }
                    }
                }
            }
            _ => html! {},
        }
    }

    /// Which choices are ticked.
    fn chosen(&self, values: Option<&Fields>) -> HashSet<String> {
        if let Some(values) = values {
            return values.all(&self.key).map(str::to_owned).collect();
        }
        let default = self.default.as_ref().filter(|_| self.required);
        let items = default.and_then(Value::as_array).into_iter().flatten();
        items.map(Value::to_string).collect()
    }

    fn input(&self, values: Option<&Fields>, asked: bool, wrong: bool, described: Option<&str>) -> Markup {
        let text = values.map_or_else(|| self.prefilled(), |all| all.raw(&self.key).to_owned());
        let invalid = wrong.then_some("true");
        match &self.kind {
            Kind::Text(Text { input: "lines", .. }) => html! {
                textarea id=(self.id) name=(self.key) rows="2" required[asked && !self.nullable]
                    aria-invalid=[invalid] aria-describedby=[described] { "\n" (text) }
            },
            Kind::Text(kind) => html! {
                input type=(kind.input) id=(self.id) name=(self.key) value=(text) required[asked && !self.nullable]
                    autocomplete="off" aria-invalid=[invalid] aria-describedby=[described];
            },
            Kind::Number(bounds) => html! {
                input type="text" inputmode=(if bounds.integer { "numeric" } else { "decimal" }) id=(self.id) name=(self.key)
                    value=(text) required[asked && !self.nullable] autocomplete="off" aria-invalid=[invalid]
                    aria-describedby=[described];
            },
            Kind::Flag => select(
                self,
                &[Value::Bool(true), Value::Bool(false)],
                &text,
                invalid,
                described,
            ),
            Kind::Choice(choices) => select(self, choices, &text, invalid, described),
            Kind::Constant(value) => html! {
                input type="text" id=(self.id) value=(label_of(value)) readonly aria-describedby=[described];
            },
            Kind::Lines(..) | Kind::Json(_) => html! {
                textarea id=(self.id) name=(self.key) rows="3" spellcheck="false" class="mono" aria-invalid=[invalid]
                    aria-describedby=[described] { "\n" (text) }
            },
            Kind::Object(_) | Kind::Several(..) => html! {},
        }
    }

    /// What stands in the field at first: an optional one stays out of the call, so it is empty.
    fn prefilled(&self) -> String {
        let Some(default) = self.default.as_ref().filter(|_| self.required) else {
            return String::new();
        };
        match (&self.kind, default) {
            (Kind::Text(_), Value::String(text)) => text.clone(),
            (Kind::Lines(..), Value::Array(items)) => {
                let lines = items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                lines.collect::<Vec<_>>().join("\n")
            }
            (_, value) => value.to_string(),
        }
    }
}

fn select(
    field: &Field,
    choices: &[Value],
    text: &str,
    invalid: Option<&str>,
    described: Option<&str>,
) -> Markup {
    html! {
        select id=(field.id) name=(field.key) aria-invalid=[invalid] aria-describedby=[described] {
            option value="" { @if field.required { "Choose" } @else { "Not set" } }
            @for choice in choices {
                @let value = choice.to_string();
                option value=(value) selected[value == text] { (label_of(choice)) }
            }
        }
    }
}

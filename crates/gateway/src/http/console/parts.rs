//! What pages are made of: chips, notes, times, facts, fields, tables. Every text is escaped by the template.

use jiff::Timestamp;
use maud::{Markup, html};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// It does not work.
    Bad,
    /// Neither good nor bad.
    Plain,
}

impl Tone {
    /// The class of the style sheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Plain => "",
        }
    }
}

/// A state in a word or two.
pub(crate) fn chip(tone: Tone, text: &str) -> Markup {
    html! { span class={ "chip " (tone.class()) } { (text) } }
}

/// Something that has to be said beside the page's own content.
pub(crate) fn note(tone: Tone, content: &Markup) -> Markup {
    html! { div class={ "note " (tone.class()) } { (content) } }
}

/// In the place of a list that is empty: why, and what to do.
pub(crate) fn empty(title: &str, text: &str, action: &Markup) -> Markup {
    html! {
        div.card.empty {
            h2 { (title) }
            p.quiet { (text) }
            (action)
        }
    }
}

/// A time in seconds since 1970 as its distance from `now`, with the whole of it as the title.
pub(crate) fn time(now: u64, at: u64) -> Markup {
    let Some(stamp) = i64::try_from(at)
        .ok()
        .and_then(|at| Timestamp::from_second(at).ok())
    else {
        return html! { "never" };
    };
    html! {
        time datetime=(stamp) title=(stamp.strftime("%Y-%m-%d %H:%M:%S UTC")) data-age { (distance(now, at)) }
    }
}

/// [`time`], or a word where there is none.
pub(crate) fn time_or(now: u64, at: Option<u64>, none: &str) -> Markup {
    at.map_or_else(|| html! { (none) }, |at| time(now, at))
}

/// [`time_or`] of an RFC 3339 text.
pub(crate) fn at(now: u64, text: Option<&str>, none: &str) -> Markup {
    time_or(now, text.and_then(seconds), none)
}

/// Whether an RFC 3339 time has come.
pub(crate) fn is_over(now: u64, text: Option<&str>) -> bool {
    text.and_then(seconds).is_some_and(|end| end <= now)
}

fn seconds(text: &str) -> Option<u64> {
    let stamp: Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_second()).ok()
}

/// "3 minutes ago", "in 2 hours".
pub(crate) fn distance(now: u64, at: u64) -> String {
    let seconds = now.abs_diff(at);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    match (seconds, at > now) {
        (0, _) => "now".to_owned(),
        (_, true) => format!("in {count} {unit}{plural}"),
        (_, false) => format!("{count} {unit}{plural} ago"),
    }
}

/// A list of names with what they stand for.
pub(crate) fn facts<'f>(rows: impl IntoIterator<Item = (&'f str, Markup)>) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in rows { dt { (name) } dd { (value) } }
        }
    }
}

/// A table that scrolls by itself where it is too wide; `label` is what it is about.
pub(crate) fn table(label: &str, heads: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" {
            table.cards-on-phone {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// Says that somebody else saved a thing while a form of it was open, and shows where the two differ: setting, theirs,
/// yours. `page` is where the thing is as it is now.
pub(crate) fn meanwhile<N: AsRef<str>>(
    thing: &str,
    said: &Markup,
    page: &str,
    differences: &[(N, String, String)],
) -> Markup {
    let value = |text: &str| html! { @if text.is_empty() { "not set" } @else { code { (text) } } };
    let rows = html! {
        @for (name, theirs, yours) in differences {
            tr {
                td data-label="Setting" { (name.as_ref()) }
                td.wrap data-label="Saved meanwhile" { (value(theirs)) }
                td.wrap data-label="Yours" { (value(yours)) }
            }
        }
    };
    html! {
        div.note.warn role="alert" {
            h2 { "Somebody else changed this " (thing) " meanwhile" }
            p { (said) }
            p {
                "Nothing of yours was saved. Compare, and save again to put yours in the place of theirs; "
                a href=(page) { "drop yours" } " to go on with theirs."
            }
        }
        @if differences.is_empty() { p { "What the form below has is the same as what was saved." } }
        @else { (table("Differences", &["Setting", "Saved meanwhile", "Yours"], &rows)) }
    }
}

/// A field of a form.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Field<'f> {
    /// What people call it.
    pub(crate) label: &'f str,
    /// What the form calls it.
    pub(crate) name: &'f str,
    /// What is in it.
    pub(crate) value: &'f str,
    /// `text` when empty.
    pub(crate) kind: &'f str,
    /// What helps to fill it in.
    pub(crate) hint: &'f str,
    /// What is wrong with it; empty for nothing.
    pub(crate) wrong: &'f str,
    /// `autocomplete`; `off` when empty.
    pub(crate) autocomplete: &'f str,
    /// It cannot be empty.
    pub(crate) required: bool,
}

impl Field<'_> {
    /// With its label, hint and fault.
    pub(crate) fn html(&self) -> Markup {
        let kind = if self.kind.is_empty() { "text" } else { self.kind };
        let autocomplete = if self.autocomplete.is_empty() {
            "off"
        } else {
            self.autocomplete
        };
        let control = html! {
            input id=(self.name) name=(self.name) type=(kind) value=(self.value) autocomplete=(autocomplete)
                spellcheck="false" required[self.required] aria-describedby=[self.described_by()]
                aria-invalid=[(!self.wrong.is_empty()).then_some("true")];
        };
        self.around(&control)
    }

    /// A choice: values with what people call them.
    pub(crate) fn choice(&self, options: &[(&str, &str)]) -> Markup {
        let control = html! {
            select id=(self.name) name=(self.name) aria-describedby=[self.described_by()] {
                @for (value, text) in options {
                    option value=(value) selected[*value == self.value] { (text) }
                }
            }
        };
        self.around(&control)
    }

    /// Several lines.
    pub(crate) fn lines(&self) -> Markup {
        let control = html! {
            textarea.mono id=(self.name) name=(self.name) spellcheck="false" required[self.required]
                aria-describedby=[self.described_by()] aria-invalid=[(!self.wrong.is_empty()).then_some("true")]
                { "\n" (self.value) }
        };
        self.around(&control)
    }

    /// The ids of hint and fault.
    fn described_by(&self) -> Option<String> {
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.name));
        let wrong = (!self.wrong.is_empty()).then(|| format!("{}-wrong", self.name));
        let both: Vec<String> = [hint, wrong].into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join(" "))
    }

    fn around(&self, control: &Markup) -> Markup {
        html! {
            div.field {
                label for=(self.name) { (self.label) }
                (control)
                @if !self.hint.is_empty() { p.hint id={ (self.name) "-hint" } { (self.hint) } }
                @if !self.wrong.is_empty() { p.wrong id={ (self.name) "-wrong" } { (self.wrong) } }
            }
        }
    }
}

/// A box to tick.
pub(crate) fn check(name: &str, value: &str, label: &str, checked: bool) -> Markup {
    html! {
        label.check { input type="checkbox" name=(name) value=(value) checked[checked]; (label) }
    }
}

/// What is asked before something cannot be undone.
pub(crate) struct Question<'q> {
    /// The question itself.
    pub(crate) title: &'q str,
    /// What follows from a yes.
    pub(crate) text: &'q str,
    /// Where the yes goes.
    pub(crate) action: &'q str,
    /// The words of the yes.
    pub(crate) yes: &'q str,
    /// Where the no goes.
    pub(crate) back: &'q str,
}

impl Question<'_> {
    /// The question as a page's content.
    pub(crate) fn html(&self) -> Markup {
        html! {
            div.card {
                h1 { (self.title) }
                p { (self.text) }
                form.row method="post" action=(self.action) {
                    button.danger.primary type="submit" { (self.yes) }
                    a.button href=(self.back) { "Cancel" }
                }
            }
        }
    }
}

/// A text as one segment of a path, or one value of a query.
pub(crate) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// A form of one button, for what needs no question.
pub(crate) fn button(action: &str, class: &str, label: &str) -> Markup {
    html! {
        form method="post" action=(action) { button class=(class) type="submit" { (label) } }
    }
}

/// A text that is copied, with a button where there is a script.
pub(crate) fn copied(id: &str, text: &str) -> Markup {
    html! {
        div.secret {
            code id=(id) { (text) }
            button type="button" data-copy=(id) hidden { "Copy" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (at, expected) in [
            (1000, "now"),
            (999, "1 second ago"),
            (1059, "in 59 seconds"),
            (1060, "in 1 minute"),
            (1000 + 7200, "in 2 hours"),
            (1000 + 86400, "in 1 day"),
        ] {
            assert_eq!(distance(1000, at), expected, "{at}");
        }
        assert_eq!(distance(90_000, 0), "1 day ago");
    }

    #[test]
    fn a_segment_is_one() {
        assert_eq!(encoded("a b/c?d#e%+é"), "a%20b%2Fc%3Fd%23e%25%2B%C3%A9");
    }

    #[test]
    fn markup_in_a_value_stays_text() {
        let nasty = "\"><script>alert(1)</script>";
        let field = Field {
            label: nasty,
            name: "n",
            value: nasty,
            hint: nasty,
            wrong: nasty,
            ..Field::default()
        };
        let whole = [
            field.html(),
            field.lines(),
            field.choice(&[(nasty, nasty)]),
            chip(Tone::Bad, nasty),
            check(nasty, nasty, nasty, true),
            copied(nasty, nasty),
        ];
        for markup in whole {
            assert!(!markup.into_string().contains("<script"), "escaped");
        }
    }
}

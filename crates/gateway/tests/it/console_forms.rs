//! Forms of pages as people use them: a field is found by its label, a button by its words, and what is sent is what a
//! browser would send, hidden fields and all.

use crate::console_harness::{Person, html};
use crate::harness::Got;
use scraper::{ElementRef, Html, Selector};

/// A form with what is filled in.
pub(crate) struct Form {
    page: Html,
    action: String,
    pairs: Vec<(String, String)>,
    pub(crate) button: Option<(String, String)>,
}

fn all<'p>(page: &'p Html, selector: &str) -> Vec<ElementRef<'p>> {
    page.select(&Selector::parse(selector).expect("a selector"))
        .collect()
}

/// The words of an element, one blank between them.
pub(crate) fn words(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn parent_form(element: ElementRef<'_>) -> Option<ElementRef<'_>> {
    element
        .ancestors()
        .filter_map(ElementRef::wrap)
        .find(|above| above.value().name() == "form")
}

fn attribute(element: ElementRef<'_>, name: &str) -> String {
    element.value().attr(name).unwrap_or_default().to_owned()
}

/// What a browser sends of one control.
fn value_of(control: ElementRef<'_>) -> Option<String> {
    let inside = |selector: &str| {
        control
            .select(&Selector::parse(selector).expect("a selector"))
            .next()
    };
    match control.value().name() {
        "textarea" => {
            let text: String = control.text().collect();
            Some(text.strip_prefix('\n').unwrap_or(&text).to_owned())
        }
        "select" => inside("option[selected]")
            .or_else(|| inside("option"))
            .map(|option| attribute(option, "value")),
        _ => match attribute(control, "type").as_str() {
            "checkbox" | "radio" => control
                .value()
                .attr("checked")
                .map(|_| attribute(control, "value")),
            "submit" => None,
            _ => Some(attribute(control, "value")),
        },
    }
}

impl Form {
    /// The form that has a button with these words.
    pub(crate) fn with(page: Html, button: &str) -> Self {
        let buttons = all(&page, "button:not([aria-hidden])");
        let named = buttons.into_iter().find(|found| words(*found) == button);
        let named = named.unwrap_or_else(|| panic!("no button {button}: {}", page.html()));
        let form = parent_form(named).expect("a button of a form");
        let controls = Selector::parse("input[name], select[name], textarea[name]").expect("a selector");
        let pairs = form
            .select(&controls)
            .filter_map(|control| Some((attribute(control, "name"), value_of(control)?)))
            .collect();
        let button = named
            .value()
            .attr("name")
            .map(|name| (name.to_owned(), attribute(named, "value")));
        Self {
            action: attribute(form, "action"),
            pairs,
            button,
            page,
        }
    }

    /// The control that the label with these words is for.
    fn labelled(&self, label: &str) -> ElementRef<'_> {
        let labels = all(&self.page, "label");
        let said = |found: &ElementRef<'_>| {
            let said = words(*found);
            said == label || said.strip_prefix(label).is_some_and(|rest| rest == " required")
        };
        let found = labels.into_iter().find(said);
        let found = found.unwrap_or_else(|| panic!("no label {label}"));
        let inside = Selector::parse("input, select, textarea").expect("a selector");
        if let Some(control) = found.select(&inside).next() {
            return control;
        }
        let id = attribute(found, "for");
        let control = all(&self.page, "[id]")
            .into_iter()
            .find(|element| attribute(*element, "id") == id);
        control.unwrap_or_else(|| panic!("nothing has the id {id}"))
    }

    /// Whether the field is there to be filled in.
    pub(crate) fn shows(&self, label: &str) -> bool {
        let control = self.labelled(label);
        let mut around = control.ancestors().filter_map(ElementRef::wrap);
        !around.any(|above| above.value().attr("hidden").is_some())
    }

    /// What stands in a field.
    pub(crate) fn value(&self, label: &str) -> String {
        let name = attribute(self.labelled(label), "name");
        let found = self.pairs.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Fills a field in; it has to be visible.
    pub(crate) fn fill(mut self, label: &str, value: &str) -> Self {
        assert!(self.shows(label), "{label} is hidden");
        let name = attribute(self.labelled(label), "name");
        self.pairs.retain(|(own, _)| *own != name);
        self.pairs.push((name, value.to_owned()));
        self
    }

    /// Chooses from a list, or ticks a button with this label.
    pub(crate) fn choose(mut self, label: &str, option: &str) -> Self {
        let control = self.labelled(label);
        let options = Selector::parse("option").expect("a selector");
        let chosen = control
            .select(&options)
            .find(|found| words(*found).starts_with(option));
        let value = attribute(
            chosen.unwrap_or_else(|| panic!("{label} has no {option}")),
            "value",
        );
        let name = attribute(control, "name");
        self.pairs.retain(|(own, _)| *own != name);
        self.pairs.push((name, value));
        self
    }

    /// Ticks a box or a radio button.
    pub(crate) fn tick(mut self, label: &str) -> Self {
        let control = self.labelled(label);
        let (name, value) = (attribute(control, "name"), attribute(control, "value"));
        self.pairs.retain(|(own, _)| *own != name);
        self.pairs.push((name, value));
        self
    }

    /// Takes the tick from the box with this label.
    pub(crate) fn untick(mut self, label: &str) -> Self {
        let control = self.labelled(label);
        let pair = (attribute(control, "name"), attribute(control, "value"));
        assert!(self.pairs.contains(&pair), "{label} is not ticked");
        self.pairs.retain(|own| *own != pair);
        self
    }

    /// Sends the form with the button it was found by.
    pub(crate) async fn send(&self, person: &Person<'_>) -> Got {
        let pairs = self.pairs.iter().chain(&self.button);
        let pairs: Vec<(&str, &str)> = pairs
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        person.send(&self.action, &pairs).await
    }

    /// Sends the form with another of its buttons.
    pub(crate) async fn press(mut self, person: &Person<'_>, button: &str) -> Html {
        let other = Self::with(self.page.clone(), button);
        self.button = other.button;
        html(&self.send(person).await)
    }

    /// Sends the form, and gives the page that answers it.
    pub(crate) async fn answered(&self, person: &Person<'_>) -> Html {
        let got = self.send(person).await;
        assert_eq!(got.status, 200, "{got:?}");
        html(&got)
    }

    /// Sends the form, and follows to the page after it.
    pub(crate) async fn done(&self, person: &Person<'_>) -> (String, Html) {
        let got = self.send(person).await;
        assert_eq!(
            got.status,
            303,
            "{}",
            crate::console_harness::text(&html(&got), ".note")
        );
        let path = got.header("location").to_owned();
        let page = person.page(&path).await;
        (path, page)
    }
}

/// Where the link with these words leads.
pub(crate) fn link(page: &Html, text: &str) -> String {
    let links = all(page, "a");
    let found = links.into_iter().find(|link| words(*link) == text);
    attribute(
        found.unwrap_or_else(|| panic!("no link {text}: {}", page.html())),
        "href",
    )
}

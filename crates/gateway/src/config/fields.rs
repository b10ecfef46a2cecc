//! Every key that the configuration file may hold, with its type, its meaning and whether it is obeyed.
//! The reader, the JSON Schema and `docs/reference/config.md` are all made from these tables.

mod general;
mod server;

pub use general::{AUDIT, GENERAL, LIMITS, LITELLM, PASSED_OVER, SECTIONS, SECTIONS_NOT_YET, VESTIBULE};
pub use server::{AUTH_TYPES, ENV_VAR, SERVER};

/// A key of one section.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As written in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it is obeyed.
    pub support: Support,
    /// What it does, for the reference; one sentence or two.
    pub doc: &'static str,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that is never printed.
    Secret,
    /// An absolute `http` or `https` URL.
    Url,
    /// `true` or `false`.
    Bool,
    /// A number of seconds, fractions allowed.
    Seconds,
    /// A whole number above zero.
    Count,
    /// A list of texts.
    TextList,
    /// Header names to values.
    Headers,
    /// Names to texts.
    TextMap,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Anything; passed on.
    Any,
}

/// Whether a field is obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is.
    Yes,
    /// Not yet; the text names what it belongs to. Setting it is an error.
    NotYet(&'static str),
    /// Only this value, which is the same as leaving it out; any other belongs to what the text names.
    Only(&'static str, &'static str),
}

const fn yes(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field {
        name,
        kind,
        support: Support::Yes,
        doc,
    }
}

const fn not_yet(name: &'static str, kind: Kind, what: &'static str, doc: &'static str) -> Field {
    Field {
        name,
        kind,
        support: Support::NotYet(what),
        doc,
    }
}

const fn only(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    what: &'static str,
    doc: &'static str,
) -> Field {
    Field {
        name,
        kind,
        support: Support::Only(value, what),
        doc,
    }
}

/// The protection space in challenges.
pub const REALM: &str = "vestibule";

const INTERACTIVE: &str = "interactive sign-in";
const POLICY: &str = "tool rules";
const KEYS: &str = "virtual keys";

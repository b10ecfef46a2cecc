//! What is wrong with a configuration, or worth a line: place, path, sentence, next step.

use super::yaml::Position;
use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, and somebody should look.
    Warning,
    /// It is used, and this is how it was understood.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// Where in the file; `None` for what the file leaves out.
    pub at: Option<Position>,
    /// `mcp_servers.github.url` and the like; empty for the whole file.
    pub path: String,
    /// One sentence. Never a secret's value.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        })?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    /// Whether it is about this entry of `mcp_servers`.
    pub fn is_about(&self, server: &str) -> bool {
        self.field(server).is_some()
    }

    /// The field of this entry of `mcp_servers` that it is about; empty for the whole entry.
    pub fn field(&self, server: &str) -> Option<&str> {
        let rest = self.path.strip_prefix("mcp_servers.")?.strip_prefix(server)?;
        match rest.strip_prefix('.') {
            Some(field) => Some(field),
            None => rest.is_empty().then_some(rest),
        }
    }
}

/// Everything found in one file, and the path of the file for its lines.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Problem>);

impl Findings {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        at: Option<Position>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.0.push(Problem {
            severity,
            at,
            path: path.into(),
            message: message.into(),
        });
    }

    /// Adds an error.
    pub(super) fn error(&mut self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, Some(at), path, message);
    }

    /// Adds a note.
    pub(super) fn note(&mut self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Note, Some(at), path, message);
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, Some(at), path, message);
    }

    /// In the order of the file.
    pub(super) fn sorted(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|problem| problem.at);
        self.0
    }

    /// Whether any finding forbids use.
    pub(super) fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// The candidate that `word` was probably meant to be: at most two edits away, and less than half of it.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

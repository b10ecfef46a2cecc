//! Which servers a request with several is for, and whose the caller's `Authorization` is among them.

use crate::admission::Admission;
use crate::http::relay::target::{self, MAX_NAMES, Target};
use crate::policy::access;
use crate::registry::{Server, View};
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderName};
use std::sync::Arc;

/// Names servers and groups where the path names none.
const X_MCP_SERVERS: HeaderName = HeaderName::from_static("x-mcp-servers");

/// What is named where nothing is.
const EVERY: &str = "*";

/// The servers of a request.
#[derive(Default)]
pub(super) struct Scope {
    /// In the order in which they were named, each once.
    pub(super) servers: Vec<Arc<Server>>,
    /// Names that lead to nothing.
    pub(super) unknown: Vec<String>,
    /// Whether every name was found, and there was one.
    pub(super) all_resolved: bool,
    /// What was named. Sessions and cursors count for these words alone.
    pub(super) named: String,
}

impl Scope {
    /// Reads path and headers. `explicit` says that a request has to name its servers.
    pub(super) fn of(
        view: View<'_>,
        explicit: bool,
        target: Target<'_>,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        match target {
            Target::Server(names) | Target::Several(names) => Self::named(view, names),
            _ => match listed(headers)? {
                Some(names) => Self::named(view, &names),
                None if explicit => Err(Refusal::new(ErrorCode::ServerScopeRequired)),
                // Whoever names no server comes in with a key, whatever the servers are.
                None => Ok(Self {
                    servers: view.servers().into_iter().cloned().collect(),
                    unknown: Vec::new(),
                    all_resolved: false,
                    named: EVERY.into(),
                }),
            },
        }
    }

    /// A server's name counts before a group's.
    fn named(view: View<'_>, list: &str) -> Result<Self, Refusal> {
        let names = target::names(list);
        if names.len() > MAX_NAMES {
            let message = format!("The request names {} servers and groups.", names.len());
            return Err(Refusal::because(ErrorCode::TooManyNames, message));
        }
        let mut scope = Self {
            named: names.join(","),
            ..Self::default()
        };
        for name in names {
            if let Some(server) = view.by_name(name) {
                scope.add(server);
            } else if let Some(group) = view.group(name) {
                for server in group {
                    scope.add(server);
                }
            } else {
                scope.unknown.push(name.to_owned());
            }
        }
        scope.all_resolved = scope.unknown.is_empty() && !scope.servers.is_empty();
        Ok(scope)
    }

    fn add(&mut self, server: &Arc<Server>) {
        if !self.servers.iter().any(|other| other.index == server.index) {
            self.servers.push(Arc::clone(server));
        }
    }

    /// Without what this caller may not use, where other servers are left or none was named; a request for nothing
    /// that the caller may use is refused with the reason.
    pub(super) fn narrowed(mut self, admission: &Admission) -> Result<Self, Refusal> {
        let refused = self
            .servers
            .iter()
            .find_map(|server| access::permit(admission, server).err());
        self.servers.retain(|server| access::may_use(admission, server));
        match refused {
            Some(refusal) if self.servers.is_empty() && self.named != EVERY => Err(refusal),
            _ => Ok(self),
        }
    }

    /// Whether the request has one server and names no other.
    pub(super) fn is_one(&self) -> bool {
        self.servers.len() == 1 && self.unknown.is_empty()
    }

    /// Whether the caller's `Authorization` would be shown to more than one party, so that nobody knows whose it is.
    pub(super) fn is_ambiguous(&self) -> bool {
        let mut parties = self
            .servers
            .iter()
            .filter_map(|server| server.takes_authorization());
        let first = parties.next();
        parties.any(|other| Some(other) != first)
    }

    /// The server whose prefix begins `name`, and what stands after it. Any of its names counts as its prefix.
    pub(super) fn split<'n>(&self, name: &'n str) -> Option<(&Arc<Server>, &'n str)> {
        let after = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix('-');
        let by_name = self.servers.iter().find_map(|server| {
            let names = [
                Some(&*server.prefix),
                server.alias.as_deref(),
                Some(&*server.name),
            ];
            let rest = names.into_iter().flatten().find_map(after)?;
            Some((server, rest))
        });
        by_name.or_else(|| {
            let mut servers = self.servers.iter();
            servers.find_map(|server| Some((server, after(&server.id)?)))
        })
    }
}

/// `x-mcp-servers`; empty names nothing at all.
fn listed(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(X_MCP_SERVERS).iter();
    let first = values.next();
    if values.next().is_some() {
        let message = "The header x-mcp-servers stands several times.";
        return Err(Refusal::because(ErrorCode::RepeatedHeader, message));
    }
    Ok(first.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

//! The debug headers of an endpoint with several servers: what became of the credential of each server that the
//! request came to. Kept for the one request that asks for it.

use super::{AuthResolution, DebugReport};
use crate::admission::Admission;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Servers that are listed.
const MOST_SERVERS: usize = 32;

/// What became of one server's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// It was shown, or would have been to a server that can be reached.
    Shown(AuthResolution),
    /// There is none that could be shown.
    Failed,
    /// The server was not asked, or nothing came back from it in the time that it has.
    Unresolved,
}

impl Became {
    fn name(self) -> &'static str {
        match self {
            Self::Shown(resolution) => resolution.name(),
            Self::Failed => "resolution-failed",
            Self::Unresolved => "unresolved",
        }
    }
}

/// What became of the credentials of a request, in the order of the configuration.
#[derive(Default)]
pub struct Resolutions(Mutex<BTreeMap<usize, (Arc<Server>, Became)>>);

impl Resolutions {
    /// The request concerns the server, which was not asked yet.
    pub fn concerns(&self, server: &Arc<Server>) {
        self.update(|known| {
            known
                .entry(server.index.0)
                .or_insert_with(|| (Arc::clone(server), Became::Unresolved));
        });
    }

    /// The server answered what it was shown.
    pub fn shown(&self, server: &Arc<Server>, resolution: AuthResolution) {
        self.note(server, Became::Shown(resolution));
    }

    /// The server was not reached, or not asked for want of a credential; else it would have been shown `intended`.
    pub fn refused(&self, server: &Arc<Server>, refusal: &Refusal, intended: AuthResolution) {
        let became = if is_of_the_credential(refusal.code) {
            Became::Failed
        } else {
            Became::Shown(intended)
        };
        self.note(server, became);
    }

    /// What became of one server's credential, where it was asked.
    pub fn of(&self, server: &Server) -> Option<&'static str> {
        self.update(|known| known.get(&server.index.0).map(|(_, became)| became.name()))
    }

    fn note(&self, server: &Arc<Server>, became: Became) {
        self.update(|known| {
            known.insert(server.index.0, (Arc::clone(server), became));
        });
    }

    fn update<T>(&self, change: impl FnOnce(&mut BTreeMap<usize, (Arc<Server>, Became)>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Refusals in whose case no credential was there to be shown.
fn is_of_the_credential(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::SignInRequired
            | ErrorCode::CallersTokenRequired
            | ErrorCode::SubjectTokenRequired
            | ErrorCode::SubjectTokenRefused
            | ErrorCode::TokenEndpointUnknown
            | ErrorCode::TokenEndpointUnreachable
            | ErrorCode::TokenEndpointTimeout
            | ErrorCode::TokenEndpointRedirect
            | ErrorCode::TokenRefused
            | ErrorCode::TokenResponseInvalid
            | ErrorCode::RenewalFailed
            | ErrorCode::StoreUnavailable
            | ErrorCode::SigningFailed
            | ErrorCode::MissingKey
    )
}

impl DebugReport {
    /// [`DebugReport::finish`] for a request to any number of servers. One server is told as at its own endpoint; of
    /// several the headers say `multiple`, with a further one that has each.
    pub fn finish_several(self, resolutions: &Resolutions, admission: &Admission, headers: &mut HeaderMap) {
        let known = resolutions.update(std::mem::take);
        let mut servers = known.values();
        match (servers.next(), servers.next()) {
            (None, _) => self.write("not-applicable", "(unknown)", "(none)", headers),
            (Some((server, became)), None) => {
                let address = admission.address_of(server);
                self.write(became.name(), &address, server.auth_type, headers);
            }
            (Some(_), Some(_)) => {
                self.write("multiple", "(multiple)", "(multiple)", headers);
                let listed = known.values().take(MOST_SERVERS);
                let listed = listed.map(|(server, became)| (server.id.clone(), Value::from(became.name())));
                let listed = Value::from(listed.collect::<Map<_, _>>()).to_string();
                if let Ok(value) = HeaderValue::from_str(&listed) {
                    headers.insert("x-mcp-debug-auth-resolutions", value);
                }
                if known.len() > MOST_SERVERS {
                    let yes = HeaderValue::from_static("true");
                    headers.insert("x-mcp-debug-auth-resolutions-truncated", yes);
                }
            }
        }
    }
}

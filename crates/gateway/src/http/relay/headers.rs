//! The headers of a request to a server, built up from nothing.
//!
//! From low to high: what `extra_headers` pass on, the credential, what the caller brings for this server alone, and
//! the fixed ones. The order says which value of one name is sent; a configured credential and one that the caller
//! brings are never both sent.

use super::forward::{Bearer, Call};
use crate::credentials::OutboundCredential;
use crate::credentials::passthrough;
use crate::credentials::per_request::{PerRequest, is_api_key};
use crate::web::error::Refusal;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use vestibule_mcp::headers::{MCP_SESSION_ID, crosses_upstream};

/// What of the caller's own went along by `extra_headers`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PassedOn {
    /// `Authorization`.
    pub(super) authorization: bool,
    /// A header that carries an API key.
    pub(super) api_key: bool,
}

impl Call<'_> {
    /// What the caller brings for this server alone.
    pub(super) fn brought(&self) -> Result<PerRequest, Refusal> {
        let app = &self.worker.app;
        let shared = match self.bearer {
            Bearer::ForThisServer => Some(&app.caller_headers.credential),
            Bearer::ForTheOnlyTaker | Bearer::Withheld => None,
        };
        PerRequest::read(self.headers, self.server, shared, |value| self.holds_key(value))
    }

    /// Whether `value` holds what only this gateway can read: a gateway key, or an envelope. Such a value goes to no
    /// server.
    pub(super) fn holds_key(&self, value: &HeaderValue) -> bool {
        self.worker.app.gate.carries_key(self.admission, value) || passthrough::is_in(value)
    }

    /// The headers for the server. A gateway key has no way in, and a value that holds one stays out.
    pub(super) fn headers(
        &self,
        credential: Option<&OutboundCredential>,
        brought: &PerRequest,
    ) -> (HeaderMap, PassedOn) {
        let server = self.server;
        let mut headers = HeaderMap::with_capacity(server.base_headers.len() + self.headers.len() + 2);
        headers.extend(
            server
                .base_headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let mut passed_on = PassedOn::default();
        let subject = self.subject_token();
        let named = self.headers.contains_key(header::CONNECTION);
        for (name, value) in self.headers {
            let allowed = crosses_upstream(name) || server.extra_headers.contains(name);
            let withheld = self.bearer == Bearer::Withheld && name == header::AUTHORIZATION;
            if !allowed || withheld || server.base_headers.contains_key(name) || brought.get(name).is_some() {
                continue;
            }
            if named && is_named_by_connection(name, self.headers) {
                continue;
            }
            if self.holds_key(value) {
                tracing::warn!(server = %server.name, header = %name, "a header that holds the gateway key was not passed on");
                continue;
            }
            if subject.as_ref().is_some_and(|subject| subject.stands_in(value)) {
                tracing::warn!(server = %server.name, header = %name, "a header that holds the caller's token was not passed on");
                continue;
            }
            passed_on.authorization |= name == header::AUTHORIZATION;
            passed_on.api_key |= is_api_key(name);
            headers.append(name.clone(), value.clone());
        }
        if let Some(session) = self.session {
            headers.insert(MCP_SESSION_ID, session.clone());
        }
        if let Some(credential) = credential {
            headers.insert(credential.name.clone(), credential.value.clone());
        }
        for (name, value) in brought.headers() {
            let is_subject = subject.as_ref().is_some_and(|subject| subject.stands_in(value));
            if !is_subject && !server.base_headers.contains_key(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        (headers, passed_on)
    }
}

/// Whether the client meant the header for the gateway alone (RFC 9110 section 7.6.1).
fn is_named_by_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    lines.any(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',');
        names.any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

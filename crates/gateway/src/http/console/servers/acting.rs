//! As whom a page asks a server, and with which headers of theirs. Header values are kept between two pages only sealed
//! for the session.

use crate::admission::keys::VirtualKey;
use crate::admission::{Admission, Principal};
use crate::audit::note;
use crate::credentials::CredentialSource;
use crate::credentials::person::Person;
use crate::http::console::forms::Fields;
use crate::http::console::session::Visit;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of fields.
const AS: &str = "as";
const KEPT: &str = "kept_headers";
const HEADER: &str = "header:";
/// How long written headers are kept for the next page, in seconds.
const KEPT_FOR: u64 = 15 * 60;

/// Who asks, and with what.
pub(super) struct Acting {
    pub(super) admission: Arc<Admission>,
    pub(super) headers: HeaderMap,
    /// The id of the key that is acted as; empty for the visitor.
    key: String,
    written: BTreeMap<String, String>,
}

impl Acting {
    /// As the fields say.
    ///
    /// # Errors
    /// For a key that is not the visitor's to use, or does not count.
    pub(super) fn of(visit: &Visit, server: &Server, fields: &Fields) -> Result<Self, Refusal> {
        let key = fields.get(AS).to_owned();
        let (principal, holder) = if key.is_empty() {
            (visit.admission.principal.clone(), visit.user().cloned())
        } else {
            let found = visit
                .worker
                .app
                .keys
                .by_id(&key)
                .filter(|key| may_act_as(visit, key));
            let found = found.ok_or_else(|| Refusal::new(ErrorCode::KeyNotYours))?;
            if takes_what_is_kept(visit, server, &found) {
                let message = format!(
                    "The key belongs to somebody else, and {} is asked with what that person signed in for or brought. \
                     Nobody else acts with that.",
                    server.name
                );
                return Err(Refusal::because(ErrorCode::KeyNotYours, message));
            }
            (Principal::Key(found), None)
        };
        if let Principal::Key(key) = &principal {
            visit.worker.app.keys.take(key)?;
        }
        let admission = Admission::of_session(principal, holder);
        access::permit(&admission, server)?;
        if !key.is_empty() {
            note::visitor(&visit.actor());
        }
        let written = written(visit, server, fields);
        let mut headers = HeaderMap::new();
        for (name, value) in &written {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable(name))?;
            let text = if name == header::AUTHORIZATION && !value.contains(' ') {
                format!("Bearer {value}")
            } else {
                value.clone()
            };
            let mut value = HeaderValue::from_str(&text).map_err(|_| unusable(name.as_str()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self {
            admission: Arc::new(admission),
            headers,
            key,
            written,
        })
    }

    /// What a further page has to send to act as this one.
    pub(super) fn hidden(&self, visit: &Visit, server: &Server) -> Markup {
        html! {
            input type="hidden" name=(AS) value=(self.key);
            @if let Some(sealed) = self.sealed(visit, server) { input type="hidden" name=(KEPT) value=(sealed); }
        }
    }

    /// Whether a page with these fields can be had by a link.
    pub(super) fn is_plain(&self) -> bool {
        self.written.is_empty()
    }

    /// The id of the key that is acted as, for a query.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    fn sealed(&self, visit: &Visit, server: &Server) -> Option<String> {
        if self.written.is_empty() {
            return None;
        }
        let payload = serde_json::to_vec(&self.written).ok()?;
        let ring = &visit.worker.app.console.headers;
        ring.seal(
            &payload,
            visit.now() + KEPT_FOR,
            &[&visit.session.digest, server.id.as_bytes()],
        )
    }
}

fn unusable(name: &str) -> Refusal {
    let message = format!(
        "The value of {} has a character that no header may carry.",
        shown(name, 100)
    );
    Refusal::because(ErrorCode::CredentialMalformed, message)
}

/// Admins act as any key; others as keys of their own, unless the key that they signed in with is for less than all that
/// is theirs: it would not be any more.
fn may_act_as(visit: &Visit, key: &VirtualKey) -> bool {
    let is_narrowed = match &visit.admission.principal {
        Principal::Key(own) => own.id != key.id && own.is_narrowed(),
        _ => false,
    };
    let is_own = key.user.is_some() && key.user.as_ref() == visit.user();
    visit.is_admin() || (is_own && !is_narrowed)
}

/// Whether what another person keeps for this server would be used: their sign-in, or their own key.
fn takes_what_is_kept(visit: &Visit, server: &Server, key: &VirtualKey) -> bool {
    let keeps = matches!(
        server.credential,
        CredentialSource::Person(_) | CredentialSource::Byok(_)
    );
    let visitor = Person::admitted(&visit.worker.app, &visit.admission);
    let is_visitor = |user| visitor.as_ref().is_some_and(|visitor| visitor.id() == user);
    keeps && key.user.as_ref().is_some_and(|user| !is_visitor(user))
}

/// The headers that a person may write down for a server.
fn wanted(server: &Server) -> Vec<HeaderName> {
    let mut all = server.extra_headers.clone();
    let takes_token = matches!(
        server.credential,
        CredentialSource::Caller(..) | CredentialSource::OnBehalf(_)
    );
    if takes_token && !all.contains(&header::AUTHORIZATION) {
        all.push(header::AUTHORIZATION);
    }
    all
}

/// What was written now, and what was written on the page before and is left blank now.
fn written(visit: &Visit, server: &Server, fields: &Fields) -> BTreeMap<String, String> {
    let ring = &visit.worker.app.console.headers;
    let context: &[&[u8]] = &[&visit.session.digest, server.id.as_bytes()];
    let kept = fields
        .filled(KEPT)
        .and_then(|sealed| ring.open(sealed.as_bytes(), visit.now(), context));
    let mut all: BTreeMap<String, String> = kept
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or_default();
    for name in wanted(server) {
        if let Some(value) = fields.filled(&format!("{HEADER}{name}")) {
            all.insert(name.as_str().to_owned(), value.to_owned());
        }
    }
    all
}

/// The fields: as whom, and with which headers. `now` is how it is at present.
pub(super) fn fields(visit: &Visit, server: &Server, now: Option<&Acting>) -> Markup {
    let current = now.map_or("", |now| now.key.as_str());
    let mut keys: Vec<_> = visit.worker.app.keys.all();
    keys.retain(|key| may_act_as(visit, key) && !takes_what_is_kept(visit, server, key));
    keys.sort_by_key(|key| name_of(key));
    let headers = wanted(server);
    html! {
        div.field {
            label for="as" { "Run as" }
            select id="as" name=(AS) {
                option value="" { "Me" }
                @for key in &keys { option value=(key.id) selected[key.id == current] { (name_of(key)) } }
            }
            @if keys.iter().any(|key| key.user.as_ref() != visit.user()) {
                p.hint { "As a key of somebody else, a call has that key's rules, and is recorded as that key's, by you. Where people sign in or bring keys of their own, nobody acts as somebody else." }
            }
        }
        @if !headers.is_empty() {
            fieldset {
                legend { "Additional headers" }
                @for name in &headers {
                    @let id = format!("header-{name}");
                    @let kept = now.is_some_and(|now| now.written.contains_key(name.as_str()));
                    div.field {
                        label for=(id) { (name) }
                        @if *name == header::AUTHORIZATION { p.hint { "Your own token for this server. The gateway does not keep it." } }
                        input type="password" id=(id) name={ (HEADER) (name) } autocomplete="off"
                            placeholder=[kept.then_some("written; leave blank to use it again")];
                    }
                }
            }
        }
    }
}

fn name_of(key: &VirtualKey) -> String {
    let name = key.alias.clone().unwrap_or_else(|| key.id.clone());
    match &key.user {
        Some(user) => format!("{name} ({user})"),
        None => name,
    }
}

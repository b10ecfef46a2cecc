//! Who is in front of a page. A session is a random cookie and a row; the row is found by a digest of the cookie and of
//! the key that the session was begun with, so that it ends when that key is another, and nothing in the store tells of
//! either. Whether the key still counts is asked at every page.

use super::guard::{Here, check_form, page_before, see_other};
use super::layout::{self, Flash, Section};
use super::{Answer, parts::Tone};
use crate::admission::{Admission, Principal};
use crate::app::{App, Worker};
use crate::audit::{Actor, note};
use crate::digest::sha256_of_parts;
use crate::http::admin::{actor, manager};
use crate::http::router::peer_of;
use crate::ids::RequestId;
use crate::registry::View;
use crate::web::cookie;
use crate::web::error::{ErrorCode, Refusal, shown};
use aws_lc_rs::rand;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use maud::Markup;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vestibule_oauth::origin::{Origin, Scheme};
use vestibule_store::{ConsoleSession, Store, StoreError, UserId};

/// The cookie.
const NAME: &str = "vestibule_session";
/// Says of a sign-in that a form came before it.
pub(super) const UNSENT: &str = "unsent";
/// How long a session is good.
pub(super) const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// As much of what a browser says of itself as is kept.
const AGENT: usize = 200;

/// A person who is signed in, before one page.
pub(crate) struct Visit {
    /// The gateway.
    pub(crate) worker: Arc<Worker>,
    /// Of the request.
    pub(crate) parts: Parts,
    /// The request's id.
    pub(crate) id: RequestId,
    /// By what name the browser calls the gateway.
    pub(crate) origin: Origin,
    /// Who it is.
    pub(crate) admission: Admission,
    /// The session.
    pub(crate) session: ConsoleSession,
}

/// Why nobody is signed in.
pub(super) enum NoVisit {
    /// There is no session, or not any more.
    SignIn(Option<ErrorCode>),
    /// Nobody can say.
    Refused(Refusal),
}

/// What a browser keeps of a session.
struct Token {
    secret: [u8; 32],
    /// Empty for the master key.
    key_id: String,
}

impl Token {
    fn read(headers: &HeaderMap, secure: bool) -> Option<Self> {
        let text = cookie::get(headers, &cookie::of_this_host(NAME, secure))?;
        let (secret, key_id) = text.split_once('.')?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret).ok()?;
        let key_id = BASE64_URL_SAFE_NO_PAD.decode(key_id).ok()?;
        Some(Self {
            secret: secret.try_into().ok()?,
            key_id: String::from_utf8(key_id).ok()?,
        })
    }

    fn text(&self) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(self.secret);
        format!("{secret}.{}", BASE64_URL_SAFE_NO_PAD.encode(&self.key_id))
    }

    /// What the row is found by; `key` is the digest of the key as it is now.
    fn digest(&self, key: &[u8; 32]) -> [u8; 32] {
        sha256_of_parts(&[&self.secret, self.key_id.as_bytes(), key])
    }
}

/// Begins a session; gives its row, and the `Set-Cookie` that the browser keeps it by.
///
/// # Panics
/// When the system gives no random bytes.
#[expect(clippy::expect_used, reason = "without randomness no session is one")]
pub(super) fn begin(
    app: &App,
    admission: &Admission,
    headers: &HeaderMap,
    secure: bool,
) -> Option<(ConsoleSession, HeaderValue)> {
    let mut secret = [0; 32];
    rand::fill(&mut secret).expect("the system gives random bytes");
    let key_id = match &admission.principal {
        Principal::Key(key) => Some(key.id.clone()),
        _ => None,
    };
    let token = Token {
        secret,
        key_id: key_id.clone().unwrap_or_default(),
    };
    let now = app.clock.unix_seconds();
    let agent = headers.get(header::USER_AGENT);
    let session = ConsoleSession {
        digest: token.digest(app.gate.digest_of(&admission.principal)?),
        holder: actor(admission).name,
        user_id: admission.user().cloned(),
        key_id,
        created_at: now,
        expires_at: now + LIFE.as_secs(),
        agent: agent.map(|agent| shown(&String::from_utf8_lossy(agent.as_bytes()), AGENT)),
    };
    let name = cookie::of_this_host(NAME, secure);
    let line = cookie::set(&name, &token.text(), "/", LIFE, secure)?;
    Some((session, line))
}

/// The `Set-Cookie` that ends a session in the browser.
pub(super) fn forget(secure: bool) -> Option<HeaderValue> {
    cookie::set(
        &cookie::of_this_host(NAME, secure),
        "",
        "/",
        Duration::ZERO,
        secure,
    )
}

/// The session of a request, if it is good, with who it is.
pub(super) async fn of(
    worker: &Worker,
    headers: &HeaderMap,
    secure: bool,
) -> Result<(Admission, ConsoleSession), NoVisit> {
    let app = &worker.app;
    let token = Token::read(headers, secure).ok_or(NoVisit::SignIn(None))?;
    let principal = if token.key_id.is_empty() {
        Principal::Master
    } else {
        let key = app.keys.by_id(&token.key_id).ok_or(NoVisit::SignIn(None))?;
        match app.keys.judge(&key) {
            Ok(()) => Principal::Key(key),
            Err(refusal) if refusal.code.status().is_server_error() => {
                return Err(NoVisit::Refused(refusal));
            }
            Err(refusal) => return Err(NoVisit::SignIn(Some(refusal.code))),
        }
    };
    let key = app.gate.digest_of(&principal).ok_or(NoVisit::SignIn(None))?;
    let (digest, now) = (token.digest(key), app.clock.unix_seconds());
    let found = worker.live.on_store(move |store| find(store, digest, now)).await;
    let found = found.map_err(|error| NoVisit::Refused(unavailable(&error)))?;
    let (session, blocked) = found.ok_or(NoVisit::SignIn(None))?;
    if blocked {
        return Err(NoVisit::SignIn(Some(ErrorCode::KeyBlocked)));
    }
    let holder = session.user_id.clone();
    Ok((Admission::of_session(principal, holder), session))
}

/// The row, and whether its person is blocked.
async fn find(
    store: Arc<Store>,
    digest: [u8; 32],
    now: u64,
) -> Result<Option<(ConsoleSession, bool)>, StoreError> {
    let Some(session) = store.session(&digest, now).await? else {
        return Ok(None);
    };
    let person = match &session.user_id {
        Some(user) => store.user(user).await?,
        None => None,
    };
    Ok(Some((session, person.is_some_and(|person| person.blocked))))
}

/// The store's failure, for people.
pub(super) fn unavailable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the store failed");
    Refusal::new(ErrorCode::StoreUnavailable)
}

impl FromRequestParts<Arc<Worker>> for Visit {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, worker: &Arc<Worker>) -> Result<Self, Answer> {
        let id = parts
            .extensions
            .get()
            .copied()
            .unwrap_or_else(|| worker.ids.next());
        let Some(Here(origin)) = parts.extensions.get::<Here>().cloned() else {
            return Err(layout::bare_refusal(
                worker,
                Refusal::new(ErrorCode::NoOrigin),
                id,
            ));
        };
        let secure = origin.scheme() == Scheme::Https;
        match of(worker, &parts.headers, secure).await {
            Ok((admission, session)) => {
                note::admitted(&worker.app, &admission);
                Ok(Self {
                    worker: Arc::clone(worker),
                    parts: parts.clone(),
                    id,
                    origin,
                    admission,
                    session,
                })
            }
            Err(NoVisit::SignIn(why)) => Err(to_sign_in(parts, &origin, why)),
            Err(NoVisit::Refused(refusal)) => Err(layout::bare_refusal(worker, refusal, id)),
        }
    }
}

/// Why nobody is there in front of a page of the gateway's beside the console.
pub(crate) enum NoVisitor {
    /// They sign in at this page of the console first.
    SignIn(String),
    /// They may not, or nobody can say.
    Refused(Refusal),
}

impl From<Refusal> for NoVisitor {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Who is in front of a page of the gateway's beside the console: whose key stands on the request, and else who is signed
/// in at the console with this browser. A key that does not count is no reason to look for a session. Browsers add the
/// session by themselves, so with it a form counts only when it comes from a page of ours. `before` is the page that a
/// form stood on, where one may be sent again from there.
///
/// # Errors
/// When it is nobody.
pub(crate) async fn visitor(
    worker: &Worker,
    parts: &Parts,
    origin: &Origin,
    before: Option<String>,
) -> Result<Admission, NoVisitor> {
    let refusal = match worker.app.gate.admit(&parts.headers) {
        Ok(admission) => {
            note::admitted(&worker.app, &admission);
            return Ok(admission);
        }
        Err(refusal) if refusal.code != ErrorCode::MissingKey => return Err(refusal.into()),
        Err(refusal) => refusal,
    };
    match of(worker, &parts.headers, origin.scheme() == Scheme::Https).await {
        Ok((admission, _)) => {
            if !matches!(parts.method, Method::GET | Method::HEAD) {
                check_form(&parts.headers, origin)?;
            }
            note::admitted(&worker.app, &admission);
            Ok(admission)
        }
        Err(NoVisit::SignIn(why)) if wants_a_page(parts, before.is_some()) => {
            Err(NoVisitor::SignIn(sign_in_path(parts, why, || before)))
        }
        Err(NoVisit::SignIn(_)) => Err(refusal.into()),
        Err(NoVisit::Refused(refusal)) => Err(refusal.into()),
    }
}

/// Whether somebody opens a page, or sends a form from one, and no script asks.
fn wants_a_page(parts: &Parts, is_form: bool) -> bool {
    let accepted = parts.headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    (is_form || parts.method == Method::GET) && accepted.any(|kinds| kinds.contains("text/html"))
}

/// To the page where people sign in, and from there back: to the page, or to the one that the form stood on. What the
/// form said goes nowhere.
fn to_sign_in(parts: &Parts, ours: &Origin, why: Option<ErrorCode>) -> Answer {
    see_other(&sign_in_path(parts, why, || page_before(&parts.headers, ours))).into_response()
}

/// `before` is the page that a form stood on.
fn sign_in_path(parts: &Parts, why: Option<ErrorCode>, before: impl FnOnce() -> Option<String>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if let Some(why) = why {
        query.append_pair("ended", why.name());
    }
    let next = if matches!(parts.method, Method::GET | Method::HEAD) {
        parts.uri.path_and_query().map(ToString::to_string)
    } else {
        query.append_pair(UNSENT, "1");
        before()
    };
    if let Some(next) = next {
        query.append_pair("next", &next);
    }
    format!("/ui/login?{}", query.finish())
}

/// [`Visit`] of somebody who manages the gateway; others get a page that says so.
pub(crate) struct AdminVisit {
    /// The visit.
    pub(crate) visit: Visit,
    /// Who it is, for the record.
    pub(crate) actor: Actor,
}

impl FromRequestParts<Arc<Worker>> for AdminVisit {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, worker: &Arc<Worker>) -> Result<Self, Answer> {
        let visit = Visit::from_request_parts(parts, worker).await?;
        match manager(&visit.admission) {
            Ok(actor) => Ok(Self { visit, actor }),
            Err(refusal) => Err(visit.refusal(refusal)),
        }
    }
}

impl Visit {
    /// Whether they manage the gateway.
    pub(crate) fn is_admin(&self) -> bool {
        manager(&self.admission).is_ok()
    }

    /// Who it is, for the record.
    pub(crate) fn actor(&self) -> Actor {
        actor(&self.admission)
    }

    /// The time, in seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.worker.app.clock.unix_seconds()
    }

    /// The other end of the connection.
    pub(crate) fn peer(&self) -> IpAddr {
        peer_of(&self.parts)
    }

    /// The servers that there are for them.
    pub(crate) fn servers(&self) -> View<'_> {
        self.worker.app.servers_for(&self.parts.headers, self.peer())
    }

    /// Whether the browser speaks https with us.
    pub(crate) fn secure(&self) -> bool {
        self.origin.scheme() == Scheme::Https
    }

    /// What the query says.
    pub(crate) fn query(&self) -> super::forms::Fields {
        super::forms::Fields::parse(self.parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// Work on the store.
    ///
    /// # Errors
    /// [`ErrorCode::StoreUnavailable`].
    pub(crate) async fn store<T, F>(&self, work: impl FnOnce(Arc<Store>) -> F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let done = self.worker.live.on_store(work).await;
        done.map_err(|error| unavailable(&error))
    }

    /// A page.
    pub(crate) fn page(&self, here: Section, title: &str, content: &Markup) -> Answer {
        layout::page(self, Some(here), title, content)
    }

    /// A page, or why there is none.
    pub(crate) fn show(&self, here: Section, title: &str, content: Result<Markup, Refusal>) -> Answer {
        match content {
            Ok(content) => self.page(here, title, &content),
            Err(refusal) => self.refusal(refusal),
        }
    }

    /// Why something is refused, as a page.
    pub(crate) fn refusal(&self, refusal: Refusal) -> Answer {
        let refusal = self.worker.refuse(refusal, None, self.id);
        layout::refusal(self, &refusal)
    }

    /// After a form: on to a page that says what came of it.
    pub(crate) fn done(&self, path: &str, flash: &Flash) -> Answer {
        let mut response = see_other(path);
        if let Some(cookie) = flash.cookie(self) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response.into_response()
    }

    /// [`Visit::done`], or why it was not done.
    pub(crate) fn then(&self, path: &str, done: Result<String, Refusal>) -> Answer {
        match done {
            Ok(text) => self.done(path, &Flash::new(Tone::Good, text)),
            Err(refusal) => self.refusal(refusal),
        }
    }

    /// The person, where one is known.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.admission.user()
    }
}

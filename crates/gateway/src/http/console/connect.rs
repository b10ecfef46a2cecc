//! Connecting a server, or one after the other all that are not connected: to the provider, back, and to the list with
//! what came of it. What has begun is sealed into a cookie, so any replica can end it, and it counts for the person and
//! the browser that began it.

use super::Answer;
use super::guard::{Came, check_link};
use super::layout::{Flash, Section};
use super::parts::{Tone, encoded};
use super::session::Visit;
use crate::issuer::connect::{Begun, Connect, REDIRECT_PATH};
use crate::registry::Server;
use crate::web::cookie;
use crate::web::error::{Refusal, shown};
use crate::web::parameters::Parameters;
use axum::extract::Path;
use axum::response::IntoResponse;
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use vestibule_oauth::error::OAuthError;

/// How long a person may take at the provider.
const LIFE: Duration = Duration::from_secs(600);
/// Connects all servers that are not connected.
const ALL: &str = "/ui/connect";
/// What came of the servers of a walk, between two of them.
const WALK: &str = "vestibule_walk";
/// The most servers of one walk: what came of each has to fit into a cookie.
const LONGEST: usize = 16;
/// As much as is kept of why one of several failed.
const REASON: usize = 60;
/// As much as is shown of a provider's text.
const TEXT: usize = 300;

/// A connection between here and the provider.
#[derive(Serialize, Deserialize)]
struct Pending {
    server: String,
    person: String,
    verifier: String,
    /// What came of the servers before it, where all are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Walk>,
}

/// What came of each server of a walk.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Walk(Vec<Outcome>);

/// What came of a server of a walk.
#[derive(Clone, Serialize, Deserialize)]
struct Outcome {
    server: String,
    /// Why it failed; nothing when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Why somebody comes back without a connection: for the page, and short.
struct Failure {
    text: String,
    reason: String,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            reason: shown(&text, REASON),
            text,
        }
    }
}

impl From<OAuthError> for Failure {
    fn from(error: OAuthError) -> Self {
        Self {
            text: format!("{} ({})", error.description, error.code.name()),
            reason: error.code.name().to_owned(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            text: format!("{} ({})", refusal.message, refusal.code.name()),
            reason: refusal.code.name().to_owned(),
        }
    }
}

/// `GET /ui/connect/{server}`.
pub(super) async fn begin(visit: Visit, Path(id): Path<String>) -> Answer {
    let server = match visit.wanted_one(&id) {
        Ok(wanted) => wanted.server,
        Err(refusal) => return visit.refusal(refusal),
    };
    match check_link(&visit.parts.headers, &visit.origin) {
        Err(refusal) => visit.refusal(refusal),
        Ok(Came::FromElsewhere) => {
            let link = format!("/ui/connect/{}", encoded(&server.id));
            visit.page(Section::Connections, "Connect", &asked_first(&server.name, &link))
        }
        Ok(Came::FromHere) => match start(&visit, server, None).await {
            Ok(response) => response,
            Err(failure) => one_failed(&visit, &server.name, &failure),
        },
    }
}

/// `GET /ui/connect`: the beginning of a walk, and every further step of it.
pub(super) async fn begin_all(visit: Visit) -> Answer {
    match check_link(&visit.parts.headers, &visit.origin) {
        Err(refusal) => visit.refusal(refusal),
        Ok(Came::FromElsewhere) => {
            visit.page(Section::Connections, "Connect", &asked_first("all servers", ALL))
        }
        Ok(Came::FromHere) => walk(&visit).await,
    }
}

/// A step of the walk.
async fn walk(visit: &Visit) -> Answer {
    let walk = Walk::of(visit).unwrap_or_default();
    let mut response = walk_on(visit, walk).await;
    // What goes on makes a cookie of its own.
    if response.status() != StatusCode::OK
        && let Some(cookie) = cookie::set(WALK, "", ALL, Duration::ZERO, visit.secure())
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The link was on another site's page, or nobody says where it was: only a person's own answer goes on, which says where
/// it comes from as every form does.
fn asked_first(what: &str, path: &str) -> Markup {
    html! {
        div.card {
            h1 { "Connect " (what) "?" }
            p {
                "You came here from another site, or your browser does not say from where. Go on only if you want to sign \
                 in to connect " (what) "."
            }
            form.row method="post" action=(path) {
                button.primary type="submit" { "Connect" }
                a.button href=(Section::Connections.path()) { "Cancel" }
            }
        }
    }
}

/// `POST /ui/connect/{server}`: the answer to the question.
pub(super) async fn go_on(visit: Visit, Path(id): Path<String>) -> Answer {
    let server = match visit.wanted_one(&id) {
        Ok(wanted) => wanted.server,
        Err(refusal) => return visit.refusal(refusal),
    };
    match start(&visit, server, None).await {
        Ok(response) => by_page(&visit, response),
        Err(failure) => one_failed(&visit, &server.name, &failure),
    }
}

/// `POST /ui/connect`: the answer to the question.
pub(super) async fn go_on_with_all(visit: Visit) -> Answer {
    let response = walk(&visit).await;
    by_page(&visit, response)
}

/// A redirect to a provider as a page that goes there by itself: browsers hold `form-action` of the policy against every
/// redirect that the answer to a form makes.
fn by_page(visit: &Visit, redirect: Answer) -> Answer {
    let to = redirect.headers().get(header::LOCATION);
    let to = to.and_then(|to| to.to_str().ok().map(str::to_owned));
    let (StatusCode::FOUND, Some(to)) = (redirect.status(), to) else {
        return redirect;
    };
    let Ok(refresh) = HeaderValue::from_str(&format!("0; url={to}")) else {
        return redirect;
    };
    let content = html! {
        div.card {
            h1 { "To the sign-in" }
            div.row {
                a.button.primary href=(to) { "Go on" }
                a.button href=(Section::Connections.path()) { "Cancel" }
            }
        }
    };
    let mut response = visit.page(Section::Connections, "Connecting", &content);
    let headers = response.headers_mut();
    headers.insert(header::REFRESH, refresh);
    for cookie in redirect.headers().get_all(header::SET_COOKIE) {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    response
}

/// Sends the browser to the provider.
async fn start(visit: &Visit, server: &Arc<Server>, walk: Option<Walk>) -> Result<Answer, Failure> {
    let person = visit.person()?;
    let address = visit
        .worker
        .app
        .addresses
        .of(&visit.parts.headers, visit.peer())
        .counted();
    let begun = connect(visit, server).begin(person.clone(), address).await?;
    let pending = Pending {
        server: server.id.clone(),
        person: person.id().as_str().to_owned(),
        verifier: begun.verifier.expose_secret().to_owned(),
        walk,
    };
    let cookie = pending.cookie(visit, &begun);
    let cookie = cookie.ok_or_else(|| Failure::new("The sign-in does not fit into a cookie."))?;
    let mut response = StatusCode::FOUND.into_response();
    let headers = response.headers_mut();
    let location = HeaderValue::from_str(&begun.location);
    let location =
        location.map_err(|_| Failure::new("The provider's address cannot be sent in a header."))?;
    headers.insert(header::LOCATION, location);
    headers.append(header::SET_COOKIE, begun.cookie);
    headers.append(header::SET_COOKIE, cookie);
    Ok(response)
}

fn connect<'v>(visit: &'v Visit, server: &'v Arc<Server>) -> Connect<'v> {
    Connect {
        worker: &visit.worker,
        server,
        origin: &visit.origin,
        headers: &visit.parts.headers,
        id: visit.id,
    }
}

/// `GET /ui/mcp/oauth/callback`.
pub(super) async fn come_back(visit: Visit) -> Answer {
    let parameters = Parameters::parse(visit.parts.uri.query().unwrap_or_default().as_bytes());
    let parameters = parameters.unwrap_or_default();
    let state = parameters.get("state").unwrap_or_default();
    let Some(pending) = Pending::of(&visit, state) else {
        let text = "This sign-in is not known here: it was begun in another browser, ended already, or took too long.";
        return back(
            &visit,
            &failed(&visit, "Nothing was connected", &Failure::new(text)),
        );
    };
    let name = visit
        .wanted_one(&pending.server)
        .ok()
        .map(|wanted| wanted.server.name.clone());
    let name = name.unwrap_or_else(|| pending.server.clone());
    let done = finish(&visit, &pending, &parameters).await;
    if done.is_ok() {
        let audit = &visit.worker.app.audit;
        audit.changed(&visit.actor(), "connection.begin", &name, visit.id);
    }
    let mut response = match (pending.walk, done) {
        (Some(mut walk), done) => {
            walk.push(pending.server, done.err().map(|failure| failure.reason));
            walk.pause(&visit)
        }
        (None, Ok(())) => back(&visit, &Flash::new(Tone::Good, format!("{name} is connected."))),
        (None, Err(failure)) => one_failed(&visit, &name, &failure),
    };
    if let Some(cookie) = end(&visit, state) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn finish(visit: &Visit, pending: &Pending, parameters: &Parameters) -> Result<(), Failure> {
    let person = visit.person()?;
    if person.id().as_str() != pending.person {
        return Err(Failure::new(
            "Somebody else began this sign-in. Sign in to the console as the same person, and begin again.",
        ));
    }
    let server = visit.wanted_one(&pending.server)?.server;
    let connect = connect(visit, server);
    if let Some(error) = parameters.get("error") {
        let (error, said) = (shown(error, REASON), parameters.get("error_description"));
        let text = match said {
            Some(said) => format!("The provider says: {} ({error})", shown(said, TEXT)),
            None => format!("The provider says: {error}"),
        };
        return Err(Failure { text, reason: error });
    }
    if parameters.get("iss") != connect.issuer().as_deref() {
        return Err(Failure::new("The answer is not this gateway's own."));
    }
    let code = parameters.get("code").map(SecretString::from);
    let code = code.ok_or_else(|| Failure::new("The answer has no code."))?;
    connect
        .finish(&code, pending.verifier.clone().into(), person)
        .await?;
    Ok(())
}

/// On to the next server that is not connected, or back with what came of all.
async fn walk_on(visit: &Visit, mut walk: Walk) -> Answer {
    let next = match next(visit, &walk).await {
        Ok(Some(next)) => next,
        Ok(None) => return back(visit, &walk.summary(visit)),
        Err(refusal) => return visit.refusal(refusal),
    };
    match start(visit, &next, Some(walk.clone())).await {
        Ok(response) => response,
        Err(failure) => {
            walk.push(next.id.clone(), Some(failure.reason));
            walk.pause(visit)
        }
    }
}

async fn next(visit: &Visit, walk: &Walk) -> Result<Option<Arc<Server>>, Refusal> {
    if walk.0.len() >= LONGEST {
        return Ok(None);
    }
    let person = visit.person()?;
    let left = visit.unconnected(&person).await?;
    let mut untried = left
        .into_iter()
        .filter(|wanted| walk.0.iter().all(|outcome| outcome.server != wanted.server.id));
    Ok(untried.next().map(|wanted| Arc::clone(wanted.server)))
}

impl Walk {
    fn of(visit: &Visit) -> Option<Self> {
        let sealed = cookie::get(&visit.parts.headers, WALK)?;
        let ring = &visit.worker.app.console.connecting;
        let payload = ring.open(sealed.as_bytes(), visit.now(), &[&visit.session.digest])?;
        serde_json::from_slice(&payload).ok()
    }

    fn push(&mut self, server: String, failed: Option<String>) {
        self.0.push(Outcome { server, failed });
    }

    /// What came of each so far, as a page that goes on by itself: browsers follow twenty redirects and no more, and
    /// providers that ask nothing make four for each server.
    fn pause(&self, visit: &Visit) -> Answer {
        let ring = &visit.worker.app.console.connecting;
        let end = visit.now() + LIFE.as_secs();
        let payload = serde_json::to_vec(self).ok();
        let sealed = payload.and_then(|payload| ring.seal(&payload, end, &[&visit.session.digest]));
        let cookie = sealed.and_then(|sealed| cookie::set(WALK, &sealed, ALL, LIFE, visit.secure()));
        let Some(cookie) = cookie else {
            return back(visit, &self.summary(visit));
        };
        let content = html! {
            div.card {
                h1 { "Connecting all servers" }
                ul { @for line in self.lines(visit) { li { (line) } } }
                div.row { a.button.primary href=(ALL) { "Go on" } a.button href=(Section::Connections.path()) { "Stop" } }
            }
        };
        let mut response = visit.page(Section::Connections, "Connecting", &content);
        let headers = response.headers_mut();
        headers.insert(header::REFRESH, HeaderValue::from_static("0; url=/ui/connect"));
        headers.append(header::SET_COOKIE, cookie);
        response
    }

    fn lines(&self, visit: &Visit) -> Vec<String> {
        let servers = visit.servers();
        let line = |outcome: &Outcome| {
            let name = servers
                .by_id_or_name(&outcome.server)
                .map_or(outcome.server.as_str(), |server| server.name.as_str());
            let came = outcome.failed.as_deref().unwrap_or("connected");
            format!("{name}: {came}")
        };
        self.0.iter().map(line).collect()
    }

    fn summary(&self, visit: &Visit) -> Flash {
        let all = self.0.len();
        let failed = self.0.iter().filter(|outcome| outcome.failed.is_some()).count();
        let flash = match (all, failed) {
            (0, _) => Flash::new(Tone::Good, "Everything is connected already."),
            (_, 0) => Flash::new(Tone::Good, format!("{all} connected.")),
            _ => {
                let text = format!(
                    "{} of {all} connected. Connect the others one by one to see more (request id {}).",
                    all - failed,
                    visit.id
                );
                Flash::new(Tone::Warn, text)
            }
        };
        flash.with_lines(self.lines(visit))
    }
}

fn failed(visit: &Visit, what: &str, failure: &Failure) -> Flash {
    tracing::info!(request_id = %visit.id, "{what}: {}", failure.text);
    Flash::new(
        Tone::Bad,
        format!("{what}. {} Request id: {}", failure.text, visit.id),
    )
}

fn one_failed(visit: &Visit, name: &str, failure: &Failure) -> Answer {
    back(
        visit,
        &failed(visit, &format!("{name} is not connected"), failure),
    )
}

fn back(visit: &Visit, flash: &Flash) -> Answer {
    visit.done(Section::Connections.path(), flash)
}

impl Pending {
    fn cookie(&self, visit: &Visit, begun: &Begun) -> Option<HeaderValue> {
        let ring = &visit.worker.app.console.connecting;
        let payload = serde_json::to_vec(self).ok()?;
        let sealed = ring.seal(&payload, visit.now() + LIFE.as_secs(), &[begun.state.as_bytes()])?;
        cookie::set(&name(&begun.state)?, &sealed, REDIRECT_PATH, LIFE, visit.secure())
    }

    fn of(visit: &Visit, state: &str) -> Option<Self> {
        let sealed = cookie::get(&visit.parts.headers, &name(state)?)?;
        let ring = &visit.worker.app.console.connecting;
        let payload = ring.open(sealed.as_bytes(), visit.now(), &[state.as_bytes()])?;
        serde_json::from_slice(&payload).ok()
    }
}

/// The `Set-Cookie` that ends it, so that it counts once.
fn end(visit: &Visit, state: &str) -> Option<HeaderValue> {
    cookie::set(&name(state)?, "", REDIRECT_PATH, Duration::ZERO, visit.secure())
}

/// A name of its own for each, so that several run at once.
fn name(state: &str) -> Option<String> {
    let name = state.get(..16)?;
    let plain = name.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| format!("vestibule_connect_{name}"))
}

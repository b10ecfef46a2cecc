//! The frame of every page: navigation, who is signed in, what the last form came to; and pages that say why there is
//! no page.

use super::session::{self, Visit};
use super::{Answer, assets, parts};
use crate::app::{App, Worker};
use crate::http::router::id_of;
use crate::ids::RequestId;
use crate::web::cookie;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::body::Body;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use http::{HeaderValue, Request, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use parts::Tone;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What the last form came to.
const FLASH: &str = "vestibule_flash";
/// How long a browser may take to the next page.
const FLASH_LIFE: Duration = Duration::from_secs(60);
/// As much as is said there: a cookie has to hold it.
const FLASH_TEXT: usize = 500;
const FLASH_LINES: usize = 16;

/// The parts of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// The servers, and each of them.
    Servers,
    /// What somebody is connected to.
    Connections,
    /// Gateway keys.
    Keys,
    /// People.
    Users,
    /// What happened.
    Activity,
    /// How the gateway is.
    Health,
    /// The person's own browsers; it is reached by their name.
    Sessions,
}

impl Section {
    /// In the order of the navigation.
    const NAVIGATION: &[Self] = &[
        Self::Servers,
        Self::Connections,
        Self::Keys,
        Self::Users,
        Self::Activity,
        Self::Health,
    ];

    /// Where somebody begins.
    pub(super) fn first(admin: bool) -> Self {
        let mut all = Self::NAVIGATION.iter().copied();
        all.find(|section| admin || !section.is_for_admins())
            .unwrap_or(Self::Sessions)
    }

    /// Its first page.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Servers => "/ui/servers",
            Self::Connections => "/ui/connections",
            Self::Keys => "/ui/keys",
            Self::Users => "/ui/users",
            Self::Activity => "/ui/activity",
            Self::Health => "/ui/health",
            Self::Sessions => "/ui/sessions",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Servers => "Servers",
            Self::Connections => "My connections",
            Self::Keys => "Keys",
            Self::Users => "Users",
            Self::Activity => "Activity",
            Self::Health => "Health",
            Self::Sessions => "Sessions",
        }
    }

    fn is_for_admins(self) -> bool {
        match self {
            Self::Keys | Self::Users | Self::Health => true,
            Self::Servers | Self::Connections | Self::Activity | Self::Sessions => false,
        }
    }
}

/// What is said once, on the page after a form. Sealed for the session, so that nobody else writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flash {
    tone: Tone,
    text: String,
    /// What came of each, where it was several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
}

impl Flash {
    /// Of this tone.
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            tone,
            text: shown(&text.into(), FLASH_TEXT),
            lines: Vec::new(),
        }
    }

    /// With what came of each.
    pub(crate) fn with_lines(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        let short = |line: String| shown(&line, FLASH_TEXT / 4);
        self.lines = lines.into_iter().take(FLASH_LINES).map(short).collect();
        self
    }

    /// The `Set-Cookie` that takes it to the next page.
    pub(super) fn cookie(&self, visit: &Visit) -> Option<HeaderValue> {
        self.cookie_of(&visit.worker.app, &visit.session.digest, visit.secure())
    }

    /// The same for the session with this digest.
    pub(super) fn cookie_of(&self, app: &App, session: &[u8; 32], secure: bool) -> Option<HeaderValue> {
        let end = app.clock.unix_seconds() + FLASH_LIFE.as_secs();
        let payload = serde_json::to_vec(self).ok()?;
        let sealed = app.console.flashes.seal(&payload, end, &[session])?;
        cookie::set(FLASH, &sealed, "/ui", FLASH_LIFE, secure)
    }

    fn of(visit: &Visit) -> Option<Self> {
        let sealed = cookie::get(&visit.parts.headers, FLASH)?;
        let ring = &visit.worker.app.console.flashes;
        let payload = ring.open(sealed.as_bytes(), visit.now(), &[&visit.session.digest])?;
        serde_json::from_slice(&payload).ok()
    }

    fn html(&self) -> Markup {
        html! {
            div class={ "note " (self.tone.class()) } role="status" {
                p { (self.text) }
                @if !self.lines.is_empty() { ul { @for line in &self.lines { li { (line) } } } }
            }
        }
    }
}

/// A page of somebody who is signed in.
pub(super) fn page(visit: &Visit, here: Option<Section>, title: &str, content: &Markup) -> Answer {
    let flash = Flash::of(visit);
    let body = html! {
        header.top {
            div.top-in {
                (brand())
                nav.nav aria-label="Console" {
                    ul {
                        @for section in Section::NAVIGATION {
                            @if visit.is_admin() || !section.is_for_admins() {
                                li {
                                    a href=(section.path()) aria-current=[(here == Some(*section)).then_some("page")] {
                                        (section.title())
                                    }
                                }
                            }
                        }
                    }
                }
                div.who {
                    a href="/ui/sessions" title="Your sessions" { (who(visit)) }
                    (parts::button("/ui/logout", "plain", "Sign out"))
                }
            }
        }
        main id="main" tabindex="-1" {
            @if let Some(flash) = &flash { (flash.html()) }
            (content)
        }
        footer { "Vestibule " (env!("CARGO_PKG_VERSION")) }
    };
    let mut response = Html(whole(title, &body).into_string()).into_response();
    if flash.is_some()
        && let Some(cookie) = cookie::set(FLASH, "", "/ui", Duration::ZERO, visit.secure())
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Who is signed in, as what.
fn who(visit: &Visit) -> String {
    let role = if visit.is_admin() { "admin" } else { "member" };
    match visit.user() {
        Some(user) => format!("{user} ({role})"),
        None => format!("{} ({role})", visit.actor().name),
    }
}

/// A page of somebody who is not signed in.
pub(super) fn bare(status: StatusCode, title: &str, content: &Markup) -> Answer {
    let body = html! {
        header.top { div.top-in { (brand()) } }
        main.narrow id="main" tabindex="-1" { (content) }
    };
    (status, Html(whole(title, &body).into_string())).into_response()
}

fn brand() -> Markup {
    html! {
        a.brand href="/ui" {
            svg viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2" {
                path d="M6 21V9a6 6 0 0 1 12 0v12M3 21h18" {}
                circle cx="14.2" cy="14.5" r=".8" fill="currentColor" {}
            }
            "Vestibule"
        }
    }
}

fn whole(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Vestibule" }
                link rel="stylesheet" href=(assets::STYLE.path);
                link rel="icon" type="image/svg+xml" href=(assets::ICON.path);
                script src=(assets::SCRIPT.path) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// Some of a page, for the script that puts it into one.
pub(crate) fn fragment(content: Markup) -> Answer {
    let PreEscaped(text) = content;
    Html(text).into_response()
}

/// Why something is refused: what, what to do, and what finds the line in the log.
fn why(refusal: &Refusal, id: RequestId, linked: bool) -> Markup {
    let request = html! {
        code {
            @if linked { a href={ "/ui/activity/" (id) } { (id) } } @else { (id) }
        }
    };
    html! {
        div.card {
            h1 { (headline(refusal.code)) }
            p { (refusal.message) }
            p { (refusal.code.next_step()) }
            (parts::facts([
                ("Code", html! { code { (refusal.code.name()) } }),
                ("Request id", request),
            ]))
        }
    }
}

fn headline(code: ErrorCode) -> &'static str {
    match code.status().as_u16() {
        401 => "Sign in first",
        403 => "Not allowed",
        404 => "Not found",
        409 => "Changed meanwhile",
        429 => "Too many requests",
        500.. => "This did not work",
        _ => "This request cannot be used",
    }
}

/// A refusal for somebody who is signed in, who has been told to the log already.
pub(super) fn refusal(visit: &Visit, refusal: &Refusal) -> Answer {
    let mut response = page(
        visit,
        None,
        headline(refusal.code),
        &why(refusal, visit.id, visit.is_admin()),
    );
    *response.status_mut() = refusal.code.status();
    response
}

/// A refusal for somebody who is not known.
pub(super) fn bare_refusal(worker: &Worker, refusal: Refusal, id: RequestId) -> Answer {
    let refusal = worker.refuse(refusal, None, id);
    let why = why(&refusal, id, false);
    bare(refusal.code.status(), headline(refusal.code), &why)
}

/// No page has this path.
pub(super) async fn not_found(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Answer {
    missing(&worker, request, ErrorCode::NoPage).await
}

/// The page takes other methods.
pub(super) async fn method_not_allowed(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Answer {
    missing(&worker, request, ErrorCode::MethodNotAllowed).await
}

async fn missing(worker: &Arc<Worker>, request: Request<Body>, code: ErrorCode) -> Answer {
    use axum::extract::FromRequestParts;
    let id = id_of(&request, worker);
    let (mut parts, _) = request.into_parts();
    match session::Visit::from_request_parts(&mut parts, worker).await {
        Ok(visit) => visit.refusal(Refusal::new(code)),
        Err(_) => bare_refusal(worker, Refusal::new(code), id),
    }
}

//! Signing in with a key, and out. The key is looked at once and not kept: from then on the session counts.

use super::forms::Fields;
use super::guard::{Here, see_other};
use super::layout::Flash;
use super::parts::{Field, Tone, note};
use super::session::{self, NoVisit, UNSENT};
use super::{Answer, layout};
use crate::admission::keys::Role;
use crate::admission::{Admission, Principal};
use crate::app::Worker;
use crate::http::admin::actor;
use crate::http::router::peer_of;
use crate::ids::RequestId;
use crate::issuer::{self, connect::REDIRECT_PATH};
use crate::policy::access;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::extract::{Extension, State};
use axum::response::IntoResponse;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use std::sync::Arc;
use url::Url;
use vestibule_oauth::origin::{Origin, Scheme};
use vestibule_store::{NewUser, Store, StoreError, UserId};

/// As much as is shown of what should be a server's id.
const NAME_SHOWN: usize = 100;

/// `GET /ui/login`.
pub(super) async fn page(
    State(worker): State<Arc<Worker>>,
    Extension(Here(origin)): Extension<Here>,
    Extension(id): Extension<RequestId>,
    parts: Parts,
) -> Answer {
    if !worker.app.gate.asks_for_keys() {
        return layout::bare_refusal(&worker, Refusal::new(ErrorCode::ConsoleClosed), id);
    }
    let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let next = next_of(&query);
    match session::of(&worker, &parts.headers, is_secure(&origin)).await {
        Ok((admission, _)) => return onward(&worker, &parts, &admission, next),
        Err(NoVisit::Refused(refusal)) => return layout::bare_refusal(&worker, refusal, id),
        Err(NoVisit::SignIn(_)) => {}
    }
    let ended = match query.get("ended") {
        "signed_out" => Some("You are signed out."),
        "key_blocked" => Some("The key that you signed in with, or its owner, is blocked."),
        "key_expired" => Some("The key that you signed in with is over."),
        _ => None,
    };
    let unsent = query.filled(UNSENT).is_some();
    let said = html! {
        @if let Some(text) = ended { (note(Tone::Plain, &html! { p role="status" { (text) } })) }
        @if unsent {
            (note(Tone::Warn, &html! {
                p role="alert" {
                    "Your session was over when the form arrived: nothing of what you sent was saved. Sign in to go back to \
                     the page and send it again."
                }
            }))
        }
    };
    layout::bare(StatusCode::OK, "Sign in", &form(next, "", unsent, &said))
}

/// `POST /ui/login`.
pub(super) async fn sign_in(
    State(worker): State<Arc<Worker>>,
    Extension(Here(origin)): Extension<Here>,
    Extension(id): Extension<RequestId>,
    parts: Parts,
    fields: Fields,
) -> Answer {
    let next = next_of(&fields);
    let user = fields.get("user_id");
    let unsent = fields.filled(UNSENT).is_some();
    match begin(&worker, &origin, &parts, &fields, id).await {
        Ok(Begun {
            admission,
            cookie,
            session,
        }) => {
            let mut response = onward(&worker, &parts, &admission, next);
            response.headers_mut().append(header::SET_COOKIE, cookie);
            if unsent {
                let flash = Flash::new(
                    Tone::Warn,
                    "What you sent before you signed in was not saved. Fill it in and send it again.",
                );
                let flash = flash.cookie_of(&worker.app, &session, is_secure(&origin));
                if let Some(cookie) = flash {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
            }
            response
        }
        Err(refusal) if refusal.code == ErrorCode::ConsoleClosed => {
            layout::bare_refusal(&worker, refusal, id)
        }
        Err(refusal) => {
            let refusal = worker.refuse(refusal, None, id);
            let said = note(
                Tone::Bad,
                &html! {
                    p role="alert" { (refusal.message) }
                    p.quiet { "Request id: " code { (id) } }
                },
            );
            let content = form(next, user, unsent, &said);
            layout::bare(refusal.code.status(), "Sign in", &content)
        }
    }
}

/// A session that has begun.
struct Begun {
    /// Whose.
    admission: Admission,
    /// Its `Set-Cookie`.
    cookie: HeaderValue,
    /// What the store finds it by.
    session: [u8; 32],
}

/// Begins a session.
async fn begin(
    worker: &Worker,
    origin: &Origin,
    parts: &Parts,
    fields: &Fields,
    id: RequestId,
) -> Result<Begun, Refusal> {
    let app = &worker.app;
    if !app.gate.asks_for_keys() {
        return Err(Refusal::new(ErrorCode::ConsoleClosed));
    }
    // Keys are random: what is limited is the noise of guesses. A right key is taken however many came before it.
    let address = app.addresses.of(&parts.headers, peer_of(parts)).counted();
    let key = fields.raw("key").into();
    let principal = app.gate.holder_of(&key).map_err(|refusal| match refusal.code {
        _ if !app.console.failures.admits(address) => Refusal::new(ErrorCode::TooManySignIns),
        ErrorCode::WrongKey => Refusal::because(
            ErrorCode::WrongKey,
            "The gateway does not know this key. Check it, or ask whoever runs the gateway for one.",
        ),
        _ => refusal,
    })?;
    let holder = holder(&principal, fields)?;
    let admission = Admission::of_session(principal, holder.clone());
    let secure = is_secure(origin);
    let begun = session::begin(app, &admission, &parts.headers, secure);
    let (row, cookie) = begun.ok_or_else(|| Refusal::new(ErrorCode::Internal))?;
    // Whoever signs in again in a browser has left the session before.
    let before = session::of(worker, &parts.headers, secure).await.ok();
    let before = before.map(|(_, session)| session.digest);
    let digest = row.digest;
    let now = app.clock.unix_seconds();
    let work = |store: Arc<Store>| async move {
        if let Some(user) = holder
            && !is_there(&store, user, now).await?
        {
            return Ok(false);
        }
        store.drop_expired_sessions(now).await?;
        if let Some(before) = before {
            store.delete_session(&before).await?;
        }
        store.put_session(&row).await?;
        Ok(true)
    };
    let done = worker.live.on_store(work).await;
    if !done.map_err(|error| session::unavailable(&error))? {
        return Err(Refusal::because(
            ErrorCode::KeyBlocked,
            "The person of this user id is blocked.",
        ));
    }
    worker
        .live
        .look()
        .await
        .map_err(|error| session::unavailable(&error))?;
    let actor = actor(&admission);
    app.audit.changed(&actor, "session.begin", &actor.name, id);
    Ok(Begun {
        admission,
        cookie,
        session: digest,
    })
}

/// On to `next`, or to the question whether to.
fn onward(worker: &Worker, parts: &Parts, admission: &Admission, next: &str) -> Answer {
    match connecting(worker, parts, admission, next) {
        Some(what) => go_on(next, &what),
        None => see_other(next).into_response(),
    }
}

/// What `next` would connect, where it leads to a provider. No redirect does: a link on any page leads here, and a
/// person's own click is what asks first. Nor could the answer to a form, since browsers hold `form-action` of the policy
/// against every redirect.
fn connecting(worker: &Worker, parts: &Parts, admission: &Admission, next: &str) -> Option<String> {
    // As a browser reads it, without dots.
    let url = Url::parse("http://here").ok()?.join(next).ok()?;
    if url.path() == REDIRECT_PATH || issuer::paths::is_authorize(url.path()) {
        return Some("the sign-in that was under way".to_owned());
    }
    match url.path().strip_prefix("/ui/connect")? {
        "" | "/" => Some("connect all servers".to_owned()),
        rest => {
            let id = rest.strip_prefix('/')?;
            let servers = worker.app.servers_for(&parts.headers, peer_of(parts));
            let server = servers.by_id_or_name(id);
            // Of others not even the names are told.
            let server = server.filter(|server| access::permit(admission, server).is_ok());
            let name = server.map_or_else(|| shown(id, NAME_SHOWN), |server| server.name.clone());
            Some(format!("connect {name}"))
        }
    }
}

/// A page whose link leads on.
fn go_on(next: &str, what: &str) -> Answer {
    let content = html! {
        div.card {
            h1 { "You are signed in" }
            div.row {
                a.button.primary href=(next) { "Go on: " (what) }
                a.button href="/ui" { "To the console" }
            }
        }
    };
    layout::bare(StatusCode::OK, "Signed in", &content)
}

/// Who holds the master key says so; every other key says it itself.
fn holder(principal: &Principal, fields: &Fields) -> Result<Option<UserId>, Refusal> {
    let Some(text) = fields.filled("user_id") else {
        return Ok(None);
    };
    if matches!(principal, Principal::Key(_)) {
        return Err(Refusal::because(
            ErrorCode::FormUnreadable,
            "Leave the user id empty: your key says whose it is. Only the master key does not.",
        ));
    }
    let user = UserId::new(text)
        .map_err(|_| Refusal::because(ErrorCode::FormUnreadable, "A user id has 1 to 512 bytes."))?;
    Ok(Some(user))
}

/// Whether this person may come in; who holds the master key and was not written down yet is an admin.
async fn is_there(store: &Store, id: UserId, now: u64) -> Result<bool, StoreError> {
    if let Some(user) = store.user(&id).await? {
        return Ok(!user.blocked);
    }
    let user = NewUser {
        id,
        role: Role::Admin.name().to_owned(),
        alias: None,
        email: None,
        blocked: false,
    };
    match store.put_user(&user, now).await {
        // Somebody wrote them down in between.
        Ok(_) | Err(StoreError::Taken(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `POST /ui/logout`.
pub(super) async fn sign_out(
    State(worker): State<Arc<Worker>>,
    Extension(Here(origin)): Extension<Here>,
    Extension(id): Extension<RequestId>,
    parts: Parts,
) -> Answer {
    let secure = is_secure(&origin);
    if let Ok((admission, session)) = session::of(&worker, &parts.headers, secure).await {
        let digest = session.digest;
        let ended = worker
            .live
            .on_store(move |store| async move { store.delete_session(&digest).await });
        if let Err(error) = ended.await {
            return layout::bare_refusal(&worker, session::unavailable(&error), id);
        }
        let actor = actor(&admission);
        worker.app.audit.changed(&actor, "session.end", &actor.name, id);
    }
    let mut response = see_other("/ui/login?ended=signed_out");
    if let Some(cookie) = session::forget(secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response.into_response()
}

fn is_secure(origin: &Origin) -> bool {
    origin.scheme() == Scheme::Https
}

/// Where somebody wanted to go, if that is a page of ours: of the console, or one where people authorize a client.
fn next_of(fields: &Fields) -> &str {
    let next = fields.get("next");
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let path = next.split(['?', '#']).next().unwrap_or_default();
    // Browsers read what two slashes begin as another host.
    let ours = super::owns(path) || (!path.starts_with("//") && issuer::paths::is_authorize(path));
    if plain && ours { next } else { "/ui" }
}

fn form(next: &str, user: &str, unsent: bool, said: &Markup) -> Markup {
    let key = Field {
        label: "Gateway key",
        name: "key",
        kind: "password",
        autocomplete: "current-password",
        hint: "The master key, or a key that somebody gave you (sk-…).",
        required: true,
        ..Field::default()
    };
    let user = Field {
        label: "Your user id (with the master key only)",
        name: "user_id",
        value: user,
        autocomplete: "username",
        hint: "Says who you are, so that you can connect servers for yourself. Leave it empty to only manage the gateway.",
        ..Field::default()
    };
    html! {
        form.card method="post" action="/ui/login" {
            h1 { "Sign in" }
            (said)
            input type="hidden" name="next" value=(next);
            @if unsent { input type="hidden" name=(UNSENT) value="1"; }
            (key.html())
            (user.html())
            button.primary type="submit" { "Sign in" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_is_a_page_of_ours() {
        for (next, expected) in [
            ("/ui/health?a=b", "/ui/health?a=b"),
            ("/ui", "/ui"),
            ("", "/ui"),
            ("//evil.example/ui", "/ui"),
            ("https://evil.example/ui", "/ui"),
            ("/ui\\evil", "/ui"),
            ("/\\evil.example", "/ui"),
            ("/uievil", "/ui"),
            ("/ui/ö", "/ui"),
            ("/one/authorize?a=b&c=http://d", "/one/authorize?a=b&c=http://d"),
            ("/v1/mcp/oauth/authorize", "/v1/mcp/oauth/authorize"),
            (
                "/v1/mcp/server/oauth/one/authorize",
                "/v1/mcp/server/oauth/one/authorize",
            ),
            ("//evil.example/authorize", "/ui"),
            ("//evil.example/mcp/authorize", "/ui"),
            ("///evil.example/authorize", "/ui"),
            ("https://evil.example/one/authorize", "/ui"),
            ("https:/one/authorize", "/ui"),
            ("one/authorize", "/ui"),
            ("/\\evil.example/authorize", "/ui"),
            ("/one/authorize/../../../x", "/ui"),
            ("/one/token", "/ui"),
            ("/metrics", "/ui"),
            ("/ui/a\r\nset-cookie: x=y", "/ui"),
        ] {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("next", next)
                .finish();
            assert_eq!(next_of(&Fields::parse(query.as_bytes())), expected, "{next}");
        }
    }
}

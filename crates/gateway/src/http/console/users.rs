//! People: listed, written down, changed, blocked, deleted; one of them with their keys and connections, which end here.

use super::Answer;
use super::forms::Fields;
use super::keys as key_pages;
use super::layout::{Flash, Section};
use super::parts::{
    Field, Question, Tone, at, chip, empty, encoded, facts, meanwhile, note, table, time, time_or,
};
use super::session::{AdminVisit, Visit};
use crate::admission::keys::Role;
use crate::credentials::person::Person;
use crate::http::admin::api::Change;
use crate::http::admin::keys::KeyView;
use crate::http::admin::servers::people;
use crate::http::admin::users::{self, NewUser, UserChange, UserView};
use crate::web::error::{ErrorCode, Refusal};
use maud::{Markup, html};
use vestibule_store::{GrantSummary, UserId};

/// Which writing of somebody the form shows.
const VERSION: &str = "version";

const ROLES: [(&str, &str); 2] = [
    ("member", "Member: their own connections"),
    ("admin", "Admin: manages the gateway"),
];

/// `GET /ui/users`.
pub(super) async fn page(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let found = users::list(&visit.worker).await;
    let content = found.map(|found| {
        html! {
            div.head {
                div { h1 { "Users" } p.quiet { "People whose keys and sign-ins the gateway keeps apart." } }
                a.button.primary href="/ui/users/new" { "New user" }
            }
            @if found.is_empty() {
                (empty(
                    "No users yet",
                    "A user owns keys and connections. Whoever is named as the owner of a key becomes one, too.",
                    &html! { a.button.primary href="/ui/users/new" { "New user" } },
                ))
            } @else { (list(&visit, &found)) }
        }
    });
    visit.show(Section::Users, "Users", content)
}

fn list(visit: &Visit, found: &[UserView]) -> Markup {
    let now = visit.now();
    let rows = html! {
        @for user in found {
            tr {
                td.wrap data-label="User" {
                    a href=(path("one", &user.user_id)) { (user.user_id) }
                    @if let Some(alias) = &user.user_alias { " " span.quiet { (alias) } }
                }
                td data-label="Role" { (role(user).name()) }
                td data-label="State" { (state(user)) }
                td.number data-label="Keys" { (user.key_count) }
                td data-label="Since" { (at(now, user.created_at.as_deref(), "unknown")) }
            }
        }
    };
    table("Users", &["User", "Role", "State", "Keys", "Since"], &rows)
}

/// A page about one person, whose id may have any character.
fn path(what: &str, id: &str) -> String {
    format!("/ui/users/{what}?user={}", encoded(id))
}

fn role(user: &UserView) -> Role {
    Role::named(user.user_role).unwrap_or_default()
}

fn state(user: &UserView) -> Markup {
    if user.blocked {
        chip(Tone::Bad, "blocked")
    } else {
        chip(Tone::Good, "active")
    }
}

/// `GET /ui/users/new`.
pub(super) async fn new(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let content = form("/ui/users", &Fields::default(), true, &html! {});
    visit.page(Section::Users, "New user", &content)
}

/// `POST /ui/users`.
pub(super) async fn create(AdminVisit { visit, actor }: AdminVisit, fields: Fields) -> Answer {
    let text = |name| fields.filled(name).map(str::to_owned);
    let new = NewUser {
        user_id: text("user_id"),
        user_role: text("role"),
        user_alias: text("alias"),
        user_email: text("email"),
        auto_create_key: Some(fields.filled("key").is_some()),
        ..NewUser::default()
    };
    match users::create(&visit.worker, &actor, visit.id, new).await {
        Ok((_, Some(key))) => visit.page(Section::Users, "New user", &key_pages::once(&visit, &key)),
        Ok((user, None)) => {
            let flash = Flash::new(Tone::Good, format!("{} is written down.", user.user_id));
            visit.done(&path("one", &user.user_id), &flash)
        }
        Err(refusal) => corrected(&visit, "/ui/users", &fields, true, refusal),
    }
}

/// `GET /ui/users/one`.
pub(super) async fn one(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let content = whole(&visit, &asked(&visit)).await;
    visit.show(Section::Users, "User", content)
}

fn asked(visit: &Visit) -> String {
    visit.query().get("user").to_owned()
}

async fn whole(visit: &Visit, id: &str) -> Result<Markup, Refusal> {
    let (user, keys) = users::get(&visit.worker, id).await?;
    let person = UserId::new(id).map_err(|_| Refusal::new(ErrorCode::UnknownUser))?;
    let persons = &visit.people()?.persons;
    let grants = persons.list(&Person::kept_under(person)).await;
    let grants = grants.map_err(|error| super::session::unavailable(&error))?;
    Ok(shown(visit, &user, &keys, &grants))
}

fn shown(visit: &Visit, user: &UserView, keys: &[KeyView], grants: &[GrantSummary]) -> Markup {
    let now = visit.now();
    let id = &user.user_id;
    let block = if user.blocked { "Unblock" } else { "Block" };
    html! {
        div.head {
            div { h1 { (id) } @if let Some(alias) = &user.user_alias { p.quiet { (alias) } } }
            (state(user))
        }
        section.card {
            (facts([
                ("Role", html! { (role(user).name()) }),
                ("Address", html! { (user.user_email.as_deref().unwrap_or("none")) }),
                ("Since", at(now, user.created_at.as_deref(), "unknown")),
                ("Changed", at(now, user.updated_at.as_deref(), "never")),
            ]))
            div.row {
                a.button href=(path("edit", id)) { "Edit" }
                a.button href=(path("block", id)) { (block) }
                a.button.danger href=(path("delete", id)) { "Delete" }
                a.button href={ "/ui/activity?user_id=" (encoded(id)) } { "Activity" }
            }
        }
        section.stack aria-labelledby="keys" {
            div.head {
                h2 #keys { "Keys" }
                a.button href={ "/ui/keys/new?user=" (encoded(id)) } { "New key" }
            }
            (key_pages::list(visit, keys))
        }
        section.stack aria-labelledby="connections" {
            h2 #connections { "Connections" }
            (connections(visit, id, grants, now))
        }
    }
}

fn connections(visit: &Visit, user: &str, grants: &[GrantSummary], now: u64) -> Markup {
    if grants.is_empty() {
        return html! { p.quiet { "They are connected to nothing." } };
    }
    let servers = visit.servers();
    let rows = html! {
        @for grant in grants {
            @let id = grant.server_id.as_str();
            tr {
                td.wrap data-label="Server" { (servers.by_id_or_name(id).map_or(id, |server| server.name.as_str())) }
                td data-label="Connected" { (time(now, grant.connected_at)) }
                td data-label="Last renewed" { (time(now, grant.updated_at)) }
                td data-label="Ends" { (time_or(now, grant.expires_at, "renewed by itself")) }
                td {
                    @if let Some(server) = servers.by_id_or_name(id) {
                        a.button.danger href=(revoke_path(user, id)) aria-label={ "Revoke the sign-in at " (server.name) }
                            { "Revoke" }
                    }
                }
            }
        }
    };
    table(
        "Connections",
        &["Server", "Connected", "Last renewed", "Ends", ""],
        &rows,
    )
}

fn revoke_path(user: &str, server: &str) -> String {
    format!("{}&server={}", path("revoke", user), encoded(server))
}

/// `GET /ui/users/revoke`.
pub(super) async fn ask_revoke(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let (user, server) = (asked(&visit), visit.query().get("server").to_owned());
    let name = visit.servers().by_id_or_name(&server);
    let content = name.map(|name| {
        Question {
            title: &format!("Revoke the sign-in of {user} at {}?", name.name),
            text: "Their tokens for this server are forgotten, and revoked at the provider where it offers that. They \
                   can sign in again.",
            action: &revoke_path(&user, &server),
            yes: "Revoke",
            back: &path("one", &user),
        }
        .html()
    });
    let content = content.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound));
    visit.show(Section::Users, "Revoke", content)
}

/// `POST /ui/users/revoke`.
pub(super) async fn revoke(AdminVisit { visit, actor }: AdminVisit) -> Answer {
    let (user, server) = (asked(&visit), visit.query().get("server").to_owned());
    let done = people::disconnect(&visit.worker, &actor, &server, &user, visit.id).await;
    let done = done.map(|server| format!("The sign-in of {user} at {} is revoked.", server.name));
    visit.then(&path("one", &user), done)
}

/// `GET /ui/users/edit`.
pub(super) async fn edit(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let id = asked(&visit);
    let found = users::get(&visit.worker, &id).await;
    let content = found.map(|(user, _)| form(&path("edit", &id), &filled_with(&user), false, &html! {}));
    visit.show(Section::Users, "Edit user", content)
}

/// The form's fields as somebody is written down.
fn filled_with(user: &UserView) -> Fields {
    let mut fields = Fields::default();
    fields.set("alias", user.user_alias.as_deref().unwrap_or_default());
    fields.set("email", user.user_email.as_deref().unwrap_or_default());
    fields.set("role", role(user).name());
    fields.set(VERSION, user.version.to_string());
    fields
}

/// `POST /ui/users/edit`.
pub(super) async fn update(AdminVisit { visit, actor }: AdminVisit, fields: Fields) -> Answer {
    let id = asked(&visit);
    let set = |name| {
        fields
            .filled(name)
            .map_or(Change::Clear, |text| Change::Set(text.to_owned()))
    };
    let Ok(version) = fields.get(VERSION).parse() else {
        let message = "The form does not say which writing it shows.";
        let refusal = Refusal::because(ErrorCode::FormOutdated, message);
        return changed_meanwhile(&visit, fields, &id, refusal).await;
    };
    let change = UserChange {
        user_id: id.clone(),
        user_role: fields.filled("role").map(str::to_owned),
        user_alias: set("alias"),
        user_email: set("email"),
        version: Some(version),
        ..UserChange::default()
    };
    match users::update(&visit.worker, &actor, visit.id, change).await {
        Ok(_) => visit.done(
            &path("one", &id),
            &Flash::new(Tone::Good, format!("{id} is changed.")),
        ),
        Err(refusal) if refusal.code == ErrorCode::FormOutdated => {
            changed_meanwhile(&visit, fields, &id, refusal).await
        }
        Err(refusal) => corrected(&visit, &path("edit", &id), &fields, false, refusal),
    }
}

/// `GET /ui/users/block`.
pub(super) async fn ask_block(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let id = asked(&visit);
    let found = users::get(&visit.worker, &id).await;
    let content = found.map(|(user, _)| {
        if user.blocked {
            question(&id, "unblock", "Unblock", "Their keys count again.")
        } else {
            let text = "All their keys are refused and their console sessions end, until they are unblocked.";
            question(&id, "block", "Block", text)
        }
    });
    visit.show(Section::Users, "Block", content)
}

/// `POST /ui/users/block`.
pub(super) async fn block(admin: AdminVisit) -> Answer {
    set_blocked(&admin, true).await
}

/// `POST /ui/users/unblock`.
pub(super) async fn unblock(admin: AdminVisit) -> Answer {
    set_blocked(&admin, false).await
}

async fn set_blocked(AdminVisit { visit, actor }: &AdminVisit, blocked: bool) -> Answer {
    let id = asked(visit);
    let change = UserChange {
        user_id: id.clone(),
        blocked: Some(blocked),
        ..UserChange::default()
    };
    let done = users::update(&visit.worker, actor, visit.id, change).await;
    let state = if blocked {
        "blocked"
    } else {
        "not blocked any more"
    };
    visit.then(&path("one", &id), done.map(|_| format!("{id} is {state}.")))
}

/// `GET /ui/users/delete`.
pub(super) async fn ask_delete(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let id = asked(&visit);
    let found = users::get(&visit.worker, &id).await;
    let content = found.map(|(user, _)| {
        let text = format!(
            "{} keys go with them, and everything that they signed in for, which is revoked where the provider lets it.",
            user.key_count
        );
        question(&id, "delete", "Delete", &text)
    });
    visit.show(Section::Users, "Delete", content)
}

/// `POST /ui/users/delete`.
pub(super) async fn delete(AdminVisit { visit, actor }: AdminVisit) -> Answer {
    let id = asked(&visit);
    let done = users::delete(&visit.worker, &actor, visit.id, std::slice::from_ref(&id)).await;
    visit.then(Section::Users.path(), done.map(|_| format!("{id} is deleted.")))
}

fn question(id: &str, what: &str, yes: &str, text: &str) -> Markup {
    Question {
        title: &format!("{yes} {id}?"),
        text,
        action: &path(what, id),
        yes,
        back: &path("one", id),
    }
    .html()
}

/// The form once more, with what is wrong.
fn corrected(visit: &Visit, action: &str, fields: &Fields, new: bool, refusal: Refusal) -> Answer {
    if !matches!(refusal.code.status().as_u16(), 400 | 409) {
        return visit.refusal(refusal);
    }
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let wrong = note(Tone::Bad, &html! { p role="alert" { (refusal.message) } });
    let mut response = visit.page(Section::Users, "User", &form(action, fields, new, &wrong));
    *response.status_mut() = refusal.code.status();
    response
}

/// Somebody else was faster: the form with what was written here, for the person as they are now.
async fn changed_meanwhile(visit: &Visit, mut fields: Fields, id: &str, refusal: Refusal) -> Answer {
    let user = match users::get(&visit.worker, id).await {
        Ok((user, _)) => user,
        Err(refusal) => return visit.refusal(refusal),
    };
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let theirs = filled_with(&user);
    let differences: Vec<_> = [("Name", "alias"), ("E-mail", "email"), ("Role", "role")]
        .into_iter()
        .map(|(title, name)| (title, theirs.get(name).to_owned(), fields.get(name).to_owned()))
        .filter(|(_, theirs, yours)| theirs != yours)
        .collect();
    fields.set(VERSION, theirs.get(VERSION));
    let said = meanwhile(
        "user",
        &html! { (refusal.message) },
        &path("one", id),
        &differences,
    );
    let content = form(&path("edit", id), &fields, false, &said);
    let mut response = visit.page(Section::Users, "Edit user", &content);
    *response.status_mut() = refusal.code.status();
    response
}

/// `said` stands before the fields.
fn form(action: &str, fields: &Fields, new: bool, said: &Markup) -> Markup {
    let field = |label, name, hint| Field {
        label,
        name,
        value: fields.get(name),
        hint,
        ..Field::default()
    };
    html! {
        form.card method="post" action=(action) {
            h1 { @if new { "New user" } @else { "Edit user" } }
            (said)
            @if let Some(version) = fields.filled(VERSION) { input type="hidden" name=(VERSION) value=(version); }
            @if new {
                (Field { required: true, ..field("User id", "user_id", "Such as their address. It cannot be changed later.") }.html())
            }
            (field("Name", "alias", "What people call them.").html())
            (Field { kind: "email", ..field("E-mail", "email", "") }.html())
            (field("Role", "role", "").choice(&ROLES))
            @if new { (super::parts::check("key", "yes", "Make them a key at once", true)) }
            div.row { button.primary type="submit" { "Save" } a.button href="/ui/users" { "Cancel" } }
        }
    }
}

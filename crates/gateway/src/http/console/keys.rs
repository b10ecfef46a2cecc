//! Gateway keys: listed, made, changed, rotated, blocked, deleted. A key's text is on the one page that answers its
//! making, and nowhere else.

use super::Answer;
use super::forms::Fields;
use super::layout::{Flash, Section};
use super::parts::{
    Field, Question, Tone, at, button, check, chip, copied, empty, encoded, facts, meanwhile, note, table,
};
use super::session::{AdminVisit, Visit};
use crate::admission::permissions::Permissions;
use crate::http::admin::api::Change;
use crate::http::admin::keys::{self, KeyChange, KeyFilter, KeyView, MadeKey, NewKey, PermissionChange};
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::extract::Path;
use maud::{Markup, html};
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, BTreeSet};

/// How long keys usually count, with what people call it.
const DURATIONS: [(&str, &str); 6] = [
    ("", "no end"),
    ("1d", "a day"),
    ("7d", "a week"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("365d", "a year"),
];
/// As much of a name as a message repeats.
const NAME_SHOWN: usize = 100;
/// The value of a duration that leaves the end as it is.
const KEEP: &str = "keep";

/// What the form is filled in with.
struct Form {
    alias: String,
    user: String,
    duration: String,
    rpm: String,
    /// By id, since names change hands.
    servers: Vec<String>,
    /// Those of them that are there no more.
    gone: Vec<String>,
    groups: Vec<String>,
    tools: String,
    /// What is the same as before is not said again.
    before: Before,
    /// Only what is named, be it nothing.
    narrowed: bool,
    /// Which writing of the key is shown; empty for a new one.
    version: String,
}

/// What the key has that the form is about.
#[derive(Default)]
struct Before {
    servers: Vec<String>,
    tools: String,
}

/// `GET /ui/keys`.
pub(super) async fn page(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let asked = visit.query();
    let filter = KeyFilter {
        search: asked.filled("search").map(str::to_owned),
        ..KeyFilter::default()
    };
    let found = keys::list(&visit.worker, &filter).await;
    let content = found.map(|found| {
        html! {
            div.head {
                div {
                    h1 { "Keys" }
                    p.quiet { "What clients show to the gateway, each with what it is for." }
                }
                a.button.primary href="/ui/keys/new" { "New key" }
            }
            form.card method="get" action="/ui/keys" role="search" {
                div.filters {
                    (Field {
                        label: "Search",
                        name: "search",
                        kind: "search",
                        value: asked.get("search"),
                        hint: "Alias, owner, id or last characters.",
                        ..Field::default()
                    }.html())
                    div.row { button type="submit" { "Search" } }
                }
            }
            @if found.is_empty() && asked.filled("search").is_none() {
                (empty(
                    "No keys yet",
                    "Make one for each person and each machine, so that one can be taken away without the others.",
                    &html! { a.button.primary href="/ui/keys/new" { "New key" } },
                ))
            } @else { (list(&visit, &found)) }
        }
    });
    visit.show(Section::Keys, "Keys", content)
}

/// A table of keys.
pub(super) fn list(visit: &Visit, found: &[KeyView]) -> Markup {
    let now = visit.now();
    let rows = html! {
        @for key in found {
            tr {
                td.wrap data-label="Key" {
                    a href={ "/ui/keys/" (encoded(&key.key_id)) } { (name(key)) }
                    " " span.quiet { (key.key_name) }
                }
                td.wrap data-label="Owner" { (key.user_id.as_deref().unwrap_or("nobody")) }
                td.wrap data-label="For" { (scope(visit, key)) }
                td data-label="State" { (state(key, now)) }
                td data-label="Last used" { (at(now, key.last_used.as_deref(), "never")) }
                td data-label="Ends" { (at(now, key.expires.as_deref(), "never")) }
            }
        }
    };
    html! {
        @if found.is_empty() { p.quiet { "No key fits." } }
        @else { (table("Keys", &["Key", "Owner", "For", "State", "Last used", "Ends"], &rows)) }
    }
}

fn name(key: &KeyView) -> &str {
    key.key_alias.as_deref().unwrap_or(&key.key_id)
}

/// What a key is for, in a few words.
fn scope(visit: &Visit, key: &KeyView) -> String {
    let Permissions {
        mcp_servers,
        mcp_access_groups,
        mcp_tool_permissions,
    } = &key.object_permission;
    let app = visit.worker.live.app();
    let called = |said: &String| {
        let server = app.registry.named(said);
        server.map_or_else(|| said.clone(), |server| server.name.clone())
    };
    let mut names: Vec<String> = mcp_servers.iter().map(called).collect();
    names.extend(mcp_access_groups.iter().cloned());
    names.extend(mcp_tool_permissions.keys().map(called));
    match (names.is_empty(), key.user_role) {
        (true, "proxy_admin") if !key.narrowed => "everything (admin)".to_owned(),
        (true, _) => "servers for all keys".to_owned(),
        (false, _) => names.join(", "),
    }
}

fn state(key: &KeyView, now: u64) -> Markup {
    if key.unreadable {
        chip(Tone::Bad, "cannot be read")
    } else if key.blocked {
        chip(Tone::Bad, "blocked")
    } else if key.user_blocked {
        chip(Tone::Bad, "owner blocked")
    } else if super::parts::is_over(now, key.expires.as_deref()) {
        chip(Tone::Warn, "over")
    } else {
        chip(Tone::Good, "counts")
    }
}

/// `GET /ui/keys/new`.
pub(super) async fn new(AdminVisit { visit, .. }: AdminVisit) -> Answer {
    let empty = Form::empty(visit.query().get("user"));
    let content = form(&visit, &empty, "/ui/keys", "New key", &html! {});
    visit.page(Section::Keys, "New key", &content)
}

/// `POST /ui/keys`.
pub(super) async fn create(AdminVisit { visit, actor }: AdminVisit, fields: Fields) -> Answer {
    let form_ = Form::read(&fields);
    let made = async {
        let new = NewKey {
            key_alias: filled(&form_.alias),
            user_id: filled(&form_.user),
            duration: filled(&form_.duration),
            object_permission: form_.permissions()?,
            rpm_limit: form_.rpm()?,
            ..NewKey::default()
        };
        keys::create(&visit.worker, &actor, visit.id, new).await
    };
    match made.await {
        Ok(made) => visit.page(Section::Keys, "New key", &once(&visit, &made)),
        Err(refusal) => corrected(&visit, &form_, "/ui/keys", "New key", refusal),
    }
}

/// The page that has the key's text.
pub(super) fn once(visit: &Visit, made: &MadeKey) -> Markup {
    let text = made.key.expose_secret();
    let claude = format!(
        "claude mcp add --transport http vestibule {}/mcp --header \"x-litellm-api-key: Bearer {text}\"",
        visit.origin
    );
    html! {
        div.head { h1 { "Key " (name(&made.view)) } }
        section.card aria-labelledby="text" {
            h2 #text { "The key" }
            p { strong { "It is shown this once." } " Copy it now; the gateway keeps only a digest of it." }
            (copied("key-text", text))
        }
        section.card aria-labelledby="snippet" {
            h2 #snippet { "Claude Code, with all servers that the key is for" }
            (copied("key-snippet", &claude))
        }
        div.row {
            a.button href={ "/ui/keys/" (encoded(&made.view.key_id)) } { "To the key" }
            a.button href="/ui/keys" { "All keys" }
        }
    }
}

/// `GET /ui/keys/{key}`.
pub(super) async fn one(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let found = keys::get(&visit.worker, &id).await;
    let content = found.map(|key| whole(&visit, &key));
    visit.show(Section::Keys, "Key", content)
}

fn whole(visit: &Visit, key: &KeyView) -> Markup {
    let now = visit.now();
    let path = format!("/ui/keys/{}", encoded(&key.key_id));
    let tools: Vec<String> = key
        .object_permission
        .mcp_tool_permissions
        .iter()
        .map(tool_line)
        .collect();
    let owner = key.user_id.as_ref().map(|user| {
        html! { a href={ "/ui/users/one?user=" (encoded(user)) } { (user) } " (" (key.user_role) ")" }
    });
    html! {
        div.head {
            div { h1 { "Key " (name(key)) } p.quiet { (key.key_name) } }
            (state(key, now))
        }
        section.card {
            (facts([
                ("Owner", owner.unwrap_or_else(|| html! { "nobody" })),
                ("For", html! { (scope(visit, key)) }),
                ("Tools", html! { (if tools.is_empty() { "all of its servers".to_owned() } else { tools.join("; ") }) }),
                ("Requests a minute", html! { (key.rpm_limit.map_or_else(|| "no limit".to_owned(), |rpm| rpm.to_string())) }),
                ("Ends", at(now, key.expires.as_deref(), "never")),
                ("Last used", at(now, key.last_used.as_deref(), "never")),
                ("Made", html! {
                    (at(now, key.created_at.as_deref(), "unknown"))
                    @if let Some(by) = &key.created_by { " by " (by) }
                }),
                ("Changed", at(now, key.updated_at.as_deref(), "never")),
                ("Id", html! { code { (key.key_id) } }),
            ]))
            div.row {
                a.button href={ (path) "/edit" } { "Edit" }
                a.button href={ (path) "/rotate" } { "Rotate" }
                @if key.blocked { (button(&format!("{path}/unblock"), "", "Unblock")) }
                @else { (button(&format!("{path}/block"), "danger", "Block")) }
                a.button.danger href={ (path) "/delete" } { "Delete" }
                a.button href={ "/ui/activity?key_id=" (encoded(&key.key_id)) } { "Activity" }
            }
        }
    }
}

/// `GET /ui/keys/{key}/edit`.
pub(super) async fn edit(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let found = keys::get(&visit.worker, &id).await;
    let content = found.map(|key| {
        let action = format!("/ui/keys/{}/edit", encoded(&key.key_id));
        form(&visit, &Form::of(&visit, &key), &action, "Edit key", &html! {})
    });
    visit.show(Section::Keys, "Edit key", content)
}

/// `POST /ui/keys/{key}/edit`.
pub(super) async fn update(
    AdminVisit { visit, actor }: AdminVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let form_ = Form::read(&fields);
    let changed = async {
        let set = |text: &str| filled(text).map_or(Change::Clear, Change::Set);
        let change = KeyChange {
            key: id.clone(),
            key_alias: set(&form_.alias),
            user_id: set(&form_.user),
            duration: match form_.duration.as_str() {
                KEEP => Change::Keep,
                duration => set(duration),
            },
            object_permission: form_.permissions()?.map_or(Change::Clear, Change::Set),
            rpm_limit: form_.rpm()?.map_or(Change::Clear, Change::Set),
            version: Some(form_.version()?),
            ..KeyChange::default()
        };
        keys::update(&visit.worker, &actor, visit.id, change).await
    };
    let path = format!("/ui/keys/{}", encoded(&id));
    match changed.await {
        Ok(key) => visit.done(
            &path,
            &Flash::new(Tone::Good, format!("Key {} is changed.", name(&key))),
        ),
        Err(refusal) if refusal.code == ErrorCode::FormOutdated => {
            changed_meanwhile(&visit, form_, &id, refusal).await
        }
        Err(refusal) => corrected(&visit, &form_, &format!("{path}/edit"), "Edit key", refusal),
    }
}

/// `POST /ui/keys/{key}/block`.
pub(super) async fn block(admin: AdminVisit, Path(id): Path<String>) -> Answer {
    set_blocked(&admin, &id, true).await
}

/// `POST /ui/keys/{key}/unblock`.
pub(super) async fn unblock(admin: AdminVisit, Path(id): Path<String>) -> Answer {
    set_blocked(&admin, &id, false).await
}

async fn set_blocked(AdminVisit { visit, actor }: &AdminVisit, id: &str, blocked: bool) -> Answer {
    let done = keys::block(&visit.worker, actor, visit.id, id, blocked).await;
    let done = done.map(|key| {
        let state = if blocked {
            "blocked"
        } else {
            "not blocked any more"
        };
        format!("Key {} is {state}.", name(&key))
    });
    visit.then(&format!("/ui/keys/{}", encoded(id)), done)
}

/// `GET /ui/keys/{key}/rotate`.
pub(super) async fn ask_rotate(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let text = "The key gets another text, which is shown once. The one before it counts no longer, and console sessions \
                that were begun with it are over.";
    ask(&visit, &id, "rotate", "Rotate", text).await
}

/// `POST /ui/keys/{key}/rotate`.
pub(super) async fn rotate(AdminVisit { visit, actor }: AdminVisit, Path(id): Path<String>) -> Answer {
    let made = keys::rotate(&visit.worker, &actor, visit.id, &id).await;
    let content = made.map(|made| once(&visit, &made));
    visit.show(Section::Keys, "Rotated key", content)
}

/// `GET /ui/keys/{key}/delete`.
pub(super) async fn ask_delete(AdminVisit { visit, .. }: AdminVisit, Path(id): Path<String>) -> Answer {
    let text = "Whoever uses it is refused from then on. What its owner signed in for stays.";
    ask(&visit, &id, "delete", "Delete", text).await
}

/// `POST /ui/keys/{key}/delete`.
pub(super) async fn delete(AdminVisit { visit, actor }: AdminVisit, Path(id): Path<String>) -> Answer {
    let done = keys::delete(&visit.worker, &actor, visit.id, &[id], &[]).await;
    visit.then(
        Section::Keys.path(),
        done.map(|_| "The key is deleted.".to_owned()),
    )
}

async fn ask(visit: &Visit, id: &str, what: &str, yes: &str, text: &str) -> Answer {
    let found = keys::get(&visit.worker, id).await;
    let content = found.map(|key| {
        let path = format!("/ui/keys/{}", encoded(&key.key_id));
        Question {
            title: &format!("{yes} the key {}?", name(&key)),
            text,
            action: &format!("{path}/{what}"),
            yes,
            back: &path,
        }
        .html()
    });
    visit.show(Section::Keys, yes, content)
}

impl Form {
    fn empty(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..Self::read(&Fields::default())
        }
    }

    fn read(fields: &Fields) -> Self {
        let text = |name| fields.get(name).to_owned();
        let all = |name| -> Vec<String> { fields.all(name).map(str::to_owned).collect() };
        let gone = all("gone");
        Self {
            alias: text("alias"),
            user: text("user"),
            duration: text("duration"),
            rpm: text("rpm"),
            servers: [all("server"), gone.clone()].concat(),
            gone,
            groups: all("group"),
            tools: text("tools"),
            before: Before {
                servers: all("server_before"),
                tools: text("tools_before"),
            },
            narrowed: fields.has("narrowed"),
            version: text("version"),
        }
    }

    fn of(visit: &Visit, key: &KeyView) -> Self {
        let app = visit.worker.live.app();
        let id = |said: &String| {
            let server = app.registry.named(said);
            server.map_or_else(|| said.clone(), |server| server.id.clone())
        };
        let servers: Vec<String> = key.object_permission.mcp_servers.iter().map(id).collect();
        let tools: Vec<String> = key
            .object_permission
            .mcp_tool_permissions
            .iter()
            .map(tool_line)
            .collect();
        let tools = tools.join("\n");
        Self {
            alias: key.key_alias.clone().unwrap_or_default(),
            user: key.user_id.clone().unwrap_or_default(),
            duration: KEEP.to_owned(),
            rpm: key.rpm_limit.map(|rpm| rpm.to_string()).unwrap_or_default(),
            servers: servers.clone(),
            gone: Vec::new(),
            groups: key.object_permission.mcp_access_groups.clone(),
            tools: tools.clone(),
            before: Before { servers, tools },
            narrowed: key.narrowed,
            version: key.version.to_string(),
        }
    }

    fn version(&self) -> Result<i64, Refusal> {
        let nameless = |_| {
            Refusal::because(
                ErrorCode::FormOutdated,
                "The form does not say which writing it shows.",
            )
        };
        self.version.parse().map_err(nameless)
    }

    /// What it says, setting by setting; servers by the names that they have now.
    fn settings(&self, visit: &Visit) -> [(&'static str, String); 8] {
        let servers = visit.servers().servers();
        let named = |name: &String| {
            let found = servers.iter().find(|server| server.goes_by(name));
            found.map_or_else(|| name.clone(), |server| server.name.clone())
        };
        let joined = |mut names: Vec<String>| {
            names.sort_unstable();
            names.join(", ")
        };
        let duration = DURATIONS.iter().find(|(value, _)| *value == self.duration);
        [
            ("Alias", self.alias.clone()),
            ("Owner", self.user.clone()),
            (
                "Counts for",
                duration.map_or("as it is", |(_, text)| text).to_owned(),
            ),
            ("Requests a minute", self.rpm.clone()),
            ("Servers", joined(self.servers.iter().map(named).collect())),
            ("Groups of servers", joined(self.groups.clone())),
            (
                "Only what is ticked",
                if self.narrowed { "yes" } else { "no" }.to_owned(),
            ),
            (
                "Only these tools",
                joined(self.tools.lines().map(str::to_owned).collect()),
            ),
        ]
    }

    fn rpm(&self) -> Result<Option<u32>, Refusal> {
        let wrong = |_| Refusal::because(ErrorCode::FormUnreadable, "Requests a minute is a whole number.");
        filled(&self.rpm)
            .map(|text| text.parse().map_err(wrong))
            .transpose()
    }

    /// Everything that the form says: what is not ticked is not meant. `None` where that narrows nothing down. Servers and
    /// tools that stay keep the servers that they meant, whatever those are called by now.
    fn permissions(&self) -> Result<Option<PermissionChange>, Refusal> {
        let tools = read_tools(&self.tools)?;
        let says_nothing = self.servers.is_empty() && self.groups.is_empty() && tools.is_empty();
        if says_nothing && !self.narrowed {
            return Ok(None);
        }
        Ok(Some(PermissionChange {
            mcp_servers: self.servers_after()?,
            mcp_access_groups: Change::Set(self.groups.clone()),
            mcp_tool_permissions: if read_tools(&self.before.tools).is_ok_and(|before| before == tools) {
                Change::Keep
            } else {
                Change::Set(tools)
            },
            ..PermissionChange::default()
        }))
    }

    /// One that is gone can stay with all others, and be said anew with none: another one may have its name.
    fn servers_after(&self) -> Result<Change<Vec<String>>, Refusal> {
        let set = |servers: &[String]| -> BTreeSet<String> { servers.iter().cloned().collect() };
        if set(&self.servers) == set(&self.before.servers) {
            return Ok(Change::Keep);
        }
        match self.gone.first() {
            None => Ok(Change::Set(self.servers.clone())),
            Some(gone) => Err(Refusal::because(
                ErrorCode::UnknownName,
                format!(
                    "The MCP server {} is not there any more.",
                    shown(gone, NAME_SHOWN)
                ),
            )),
        }
    }
}

/// `server: tool, tool`, one server a line.
fn read_tools(text: &str) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
    let mut all = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (server, tools) = line.split_once(':').ok_or_else(|| {
            let message = "Tools: each line is a server, a colon, and the names of its tools.";
            Refusal::because(ErrorCode::FormUnreadable, message)
        })?;
        let tools = tools.split(',').map(str::trim).filter(|tool| !tool.is_empty());
        let tools: Vec<String> = tools.map(str::to_owned).collect();
        if all.insert(server.trim().to_owned(), tools).is_some() {
            let message = "Tools: a server stands in several lines.";
            return Err(Refusal::because(ErrorCode::FormUnreadable, message));
        }
    }
    Ok(all)
}

fn tool_line((server, tools): (&String, &Vec<String>)) -> String {
    format!("{server}: {}", tools.join(", "))
}

fn filled(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// The form once more, with what is wrong.
fn corrected(visit: &Visit, form_: &Form, action: &str, title: &str, refusal: Refusal) -> Answer {
    if !matches!(refusal.code.status().as_u16(), 400 | 409) {
        return visit.refusal(refusal);
    }
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let wrong = note(Tone::Bad, &html! { p role="alert" { (refusal.message) } });
    let mut response = visit.page(Section::Keys, title, &form(visit, form_, action, title, &wrong));
    *response.status_mut() = refusal.code.status();
    response
}

/// Somebody else was faster: the form with what was written here, for the key as it is now.
async fn changed_meanwhile(visit: &Visit, form_: Form, id: &str, refusal: Refusal) -> Answer {
    let key = match keys::get(&visit.worker, id).await {
        Ok(key) => key,
        Err(refusal) => return visit.refusal(refusal),
    };
    let refusal = visit.worker.refuse(refusal, None, visit.id);
    let theirs = Form::of(visit, &key);
    let both = theirs.settings(visit).into_iter().zip(form_.settings(visit));
    let differences: Vec<_> = both
        .map(|((name, theirs), (_, yours))| (name, theirs, yours))
        .filter(|(_, theirs, yours)| theirs != yours)
        .collect();
    let path = format!("/ui/keys/{}", encoded(id));
    let said = meanwhile("key", &html! { (refusal.message) }, &path, &differences);
    let form_ = Form {
        version: theirs.version,
        before: theirs.before,
        ..form_
    };
    let content = form(visit, &form_, &format!("{path}/edit"), "Edit key", &said);
    let mut response = visit.page(Section::Keys, "Edit key", &content);
    *response.status_mut() = refusal.code.status();
    response
}

/// `said` stands before the fields.
fn form(visit: &Visit, form_: &Form, action: &str, title: &str, said: &Markup) -> Markup {
    let servers = visit.servers().servers();
    let mut groups: Vec<&str> = servers
        .iter()
        .flat_map(|server| server.shared.groups.iter().map(String::as_str))
        .chain(form_.groups.iter().map(String::as_str))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let now = |name: &String| visit.servers().by_id_or_name(name);
    let named = |server: &Server| {
        form_
            .servers
            .iter()
            .filter_map(now)
            .any(|one| one.id == server.id)
    };
    let app = visit.worker.live.app();
    let others = form_.servers.iter().filter(|name| now(name).is_none());
    let mut durations = DURATIONS.to_vec();
    if action != "/ui/keys" {
        durations.insert(0, (KEEP, "as it is"));
    }
    let field = |label, name, value, hint| Field {
        label,
        name,
        value,
        hint,
        ..Field::default()
    };
    html! {
        form.card method="post" action=(action) {
            h1 { (title) }
            (said)
            @if !form_.version.is_empty() {
                input type="hidden" name="version" value=(form_.version);
                @for id in &form_.before.servers { input type="hidden" name="server_before" value=(id); }
                input type="hidden" name="tools_before" value=(form_.before.tools);
            }
            (field("Alias", "alias", &form_.alias, "What people call the key.").html())
            (field("Owner", "user", &form_.user,
                "The user id of the person whose key it is: their sign-ins are used with it. Empty for a machine.").html())
            (Field { label: "Counts for", name: "duration", value: &form_.duration, ..Field::default() }.choice(&durations))
            (Field { kind: "number", ..field("Requests a minute", "rpm", &form_.rpm, "Empty for no limit.") }.html())
            fieldset {
                legend { "Servers" }
                p.quiet { "With nothing ticked here and below: the servers that are for all keys; for an admin everything." }
                (check("narrowed", "yes", "Only what is ticked, be it nothing: an admin's key then manages nothing", form_.narrowed))
                @for server in &servers {
                    @let ticked = named(server);
                    (check("server", &server.id, &server.name, ticked))
                }
                @for said in others {
                    @match app.registry.named(said) {
                        Some(server) => { (check("server", &server.id, &server.name, true)) }
                        None => { (check("gone", said, &format!("{said} (not there any more)"), true)) }
                    }
                }
            }
            @if !groups.is_empty() {
                fieldset {
                    legend { "Groups of servers" }
                    @for group in groups {
                        (check("group", group, group, form_.groups.iter().any(|name| name == group)))
                    }
                }
            }
            (Field {
                label: "Only these tools",
                name: "tools",
                value: &form_.tools,
                hint: "One server a line: github: search, get_issue. A server that stands here may be used, with these tools alone.",
                ..Field::default()
            }.lines())
            div.row { button.primary type="submit" { "Save" } a.button href="/ui/keys" { "Cancel" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(text: &str) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("tools", text)
            .finish();
        read_tools(&Form::read(&Fields::parse(query.as_bytes())).tools)
    }

    #[test]
    fn tools_are_read_line_by_line() {
        let read = tools("a: x, y\r\n\r\n b : z,\nc:").expect("read");
        let expected = [("a", vec!["x", "y"]), ("b", vec!["z"]), ("c", vec![])];
        let expected = expected.map(|(server, tools)| {
            (
                server.to_owned(),
                tools.into_iter().map(str::to_owned).collect::<Vec<_>>(),
            )
        });
        assert_eq!(read, BTreeMap::from(expected));
        for wrong in ["a", "a: x\na: y"] {
            assert!(tools(wrong).is_err(), "{wrong}");
        }
    }
}

//! `vestibule api-keys`: the operations of `http::admin::keys` for a terminal.

use super::managing::{Bench, Common, json, run as managing, table};
use crate::http::admin::api::Change;
use crate::http::admin::keys::{self, KeyFilter, KeyView, MadeKey, NewKey, PermissionChange};
use crate::web::error::Refusal;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key. Its text is shown this once.
    Create(Create),
    /// List keys, the newest first.
    List(List),
    /// Show a key.
    Show(One),
    /// Give a key another text, which is shown this once; the old one counts no longer.
    Rotate(One),
    /// Refuse a key until it is unblocked.
    Block(One),
    /// Let a key that was blocked count again.
    Unblock(One),
    /// Delete a key.
    Delete(One),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    common: Common,
    /// What people call it.
    #[arg(long)]
    alias: Option<String>,
    /// Whose it is; without one it is a machine's.
    #[arg(long)]
    user: Option<String>,
    /// How long it counts, like 12h or 30d.
    #[arg(long)]
    duration: Option<String>,
    /// A server that it is for, by name, alias or id; may stand several times.
    #[arg(long = "server")]
    servers: Vec<String>,
    /// A group of servers that it is for; may stand several times.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// The only tools of a server; may stand several times.
    #[arg(long = "tool", value_name = "SERVER/TOOL", value_parser = tool)]
    tools: Vec<(String, String)>,
    /// Requests a minute, for each replica of the gateway.
    #[arg(long)]
    rpm_limit: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// Only this person's.
    #[arg(long)]
    user: Option<String>,
    /// Only those with this text in id, alias, owner or last characters.
    #[arg(long)]
    search: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    #[command(flatten)]
    common: Common,
    /// The key's id. A key's text would stay in the shell's history.
    id: String,
}

fn tool(text: &str) -> Result<(String, String), String> {
    let (server, tool) = text.split_once('/').ok_or("it is SERVER/TOOL")?;
    Ok((server.to_owned(), tool.to_owned()))
}

pub(super) fn run(command: Command, environment: &HashMap<String, String>) -> ExitCode {
    match command {
        Command::Create(asked) => {
            let (common, new) = (asked.common.clone(), asked.into_new());
            managing(&common.clone(), environment, |bench| create(bench, common, new))
        }
        Command::List(asked) => {
            let common = asked.common.clone();
            managing(&common, environment, |bench| list(bench, asked))
        }
        Command::Show(one) => with_one(one, environment, |bench, one| async move {
            let view = keys::get(&bench.worker, &one.id).await?;
            Ok(shown(&view, &one.common))
        }),
        Command::Rotate(one) => with_one(one, environment, |bench, one| async move {
            let id = bench.worker.ids.next();
            let made = keys::rotate(&bench.worker, &bench.by, id, &one.id).await?;
            Ok(made_text(&made, &one.common))
        }),
        Command::Block(one) => with_one(one, environment, |bench, one| block(bench, one, true)),
        Command::Unblock(one) => with_one(one, environment, |bench, one| block(bench, one, false)),
        Command::Delete(one) => with_one(one, environment, |bench, one| async move {
            let id = bench.worker.ids.next();
            let deleted = keys::delete(&bench.worker, &bench.by, id, &[one.id], &[]).await?;
            Ok(if one.common.json {
                json(&serde_json::json!({"deleted_keys": deleted}))
            } else {
                "deleted".to_owned()
            })
        }),
    }
}

fn with_one<F>(
    one: One,
    environment: &HashMap<String, String>,
    work: impl FnOnce(Arc<Bench>, One) -> F,
) -> ExitCode
where
    F: Future<Output = Result<String, Refusal>>,
{
    managing(&one.common.clone(), environment, |bench| work(bench, one))
}

impl Create {
    fn into_new(self) -> NewKey {
        let says_nothing = self.servers.is_empty() && self.groups.is_empty() && self.tools.is_empty();
        let mut tools: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (server, tool) in self.tools {
            tools.entry(server).or_default().push(tool);
        }
        NewKey {
            key_alias: self.alias,
            user_id: self.user,
            duration: self.duration,
            object_permission: (!says_nothing).then(|| PermissionChange {
                mcp_servers: Change::Set(self.servers),
                mcp_access_groups: Change::Set(self.groups),
                mcp_tool_permissions: Change::Set(tools),
                ..PermissionChange::default()
            }),
            rpm_limit: self.rpm_limit,
            ..NewKey::default()
        }
    }
}

async fn create(bench: Arc<Bench>, common: Common, new: NewKey) -> Result<String, Refusal> {
    let id = bench.worker.ids.next();
    let made = keys::create(&bench.worker, &bench.by, id, new).await?;
    Ok(made_text(&made, &common))
}

async fn block(bench: Arc<Bench>, one: One, blocked: bool) -> Result<String, Refusal> {
    let id = bench.worker.ids.next();
    let view = keys::block(&bench.worker, &bench.by, id, &one.id, blocked).await?;
    Ok(shown(&view, &one.common))
}

async fn list(bench: Arc<Bench>, asked: List) -> Result<String, Refusal> {
    let filter = KeyFilter {
        user_id: asked.user,
        search: asked.search,
        ..KeyFilter::default()
    };
    let all = keys::list(&bench.worker, &filter).await?;
    if asked.common.json {
        return Ok(json(&all));
    }
    let rows = all.into_iter().map(|key| {
        let state = state(&key).to_owned();
        let (alias, user) = (key.key_alias.unwrap_or_default(), key.user_id.unwrap_or_default());
        let (expires, last_used) = (key.expires.unwrap_or_default(), key.last_used.unwrap_or_default());
        [key.key_id, key.key_name, alias, user, state, expires, last_used]
    });
    Ok(table(
        ["ID", "KEY", "ALIAS", "USER", "STATE", "EXPIRES", "LAST USED"],
        rows,
    ))
}

fn state(key: &KeyView) -> &'static str {
    match key {
        KeyView { unreadable: true, .. } => "unreadable",
        KeyView { blocked: true, .. } => "blocked",
        KeyView {
            user_blocked: true, ..
        } => "user blocked",
        _ => "active",
    }
}

fn made_text(made: &MadeKey, common: &Common) -> String {
    if common.json {
        return json(made);
    }
    format!(
        "{}\n\nThe key is shown this once. Its id is {}.",
        made.key.expose_secret(),
        made.view.key_id
    )
}

fn shown(key: &KeyView, common: &Common) -> String {
    if common.json {
        return json(key);
    }
    let permission = &key.object_permission;
    let tools = permission.mcp_tool_permissions.iter();
    let tools: Vec<_> = tools
        .map(|(server, tools)| format!("{server}: {}", tools.join(", ")))
        .collect();
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    let rows = [
        ("id", key.key_id.clone()),
        ("key", key.key_name.clone()),
        ("alias", or_none(&key.key_alias)),
        ("user", or_none(&key.user_id)),
        ("role", key.user_role.to_owned()),
        ("state", state(key).to_owned()),
        ("servers", permission.mcp_servers.join(", ")),
        ("groups", permission.mcp_access_groups.join(", ")),
        ("tools", tools.join("; ")),
        (
            "requests a minute",
            key.rpm_limit.map(|limit| limit.to_string()).unwrap_or_default(),
        ),
        ("expires", or_none(&key.expires)),
        ("created", or_none(&key.created_at)),
        ("created by", or_none(&key.created_by)),
        ("last used", or_none(&key.last_used)),
    ];
    table(
        ["FIELD", "VALUE"],
        rows.map(|(name, value)| [name.to_owned(), value]),
    )
}

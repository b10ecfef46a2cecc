//! `vestibule users`: the operations of `http::admin::users` for a terminal.

use super::managing::{Bench, Common, json, run as managing, table};
use crate::http::admin::users::{self, NewUser, UserChange, UserView};
use crate::web::error::Refusal;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a person down, and make them a key.
    Create(Create),
    /// List people, by id.
    List(Common),
    /// Refuse a person with all their keys until they are unblocked.
    Block(One),
    /// Let a person who was blocked come in again.
    Unblock(One),
    /// Delete a person with their keys and sign-ins.
    Delete(One),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    common: Common,
    /// Who it is; without one, random.
    #[arg(long)]
    id: Option<String>,
    /// admin or member.
    #[arg(long, default_value = "member")]
    role: String,
    /// What people call them.
    #[arg(long)]
    alias: Option<String>,
    /// Their address.
    #[arg(long)]
    email: Option<String>,
    /// Make no key.
    #[arg(long)]
    without_key: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct One {
    #[command(flatten)]
    common: Common,
    /// The person's id.
    id: String,
}

pub(super) fn run(command: Command, environment: &HashMap<String, String>) -> ExitCode {
    match command {
        Command::Create(asked) => managing(&asked.common.clone(), environment, |bench| create(bench, asked)),
        Command::List(common) => managing(&common.clone(), environment, |bench| list(bench, common)),
        Command::Block(one) => managing(&one.common.clone(), environment, |bench| block(bench, one, true)),
        Command::Unblock(one) => managing(&one.common.clone(), environment, |bench| block(bench, one, false)),
        Command::Delete(one) => managing(&one.common.clone(), environment, |bench| delete(bench, one)),
    }
}

async fn create(bench: Arc<Bench>, asked: Create) -> Result<String, Refusal> {
    let new = NewUser {
        user_id: asked.id,
        user_role: Some(asked.role),
        user_alias: asked.alias,
        user_email: asked.email,
        auto_create_key: Some(!asked.without_key),
        ..NewUser::default()
    };
    let id = bench.worker.ids.next();
    let (user, key) = users::create(&bench.worker, &bench.by, id, new).await?;
    Ok(match (key, asked.common.json) {
        (Some(key), true) => json(&key),
        (None, true) => json(&user),
        (None, false) => shown(&[user]),
        (Some(key), false) => format!(
            "{}\n\nThe key is shown this once; it is {}'s.",
            key.key.expose_secret(),
            user.user_id
        ),
    })
}

async fn list(bench: Arc<Bench>, common: Common) -> Result<String, Refusal> {
    let all = users::list(&bench.worker).await?;
    Ok(if common.json { json(&all) } else { shown(&all) })
}

async fn block(bench: Arc<Bench>, one: One, blocked: bool) -> Result<String, Refusal> {
    let change = UserChange {
        user_id: one.id,
        blocked: Some(blocked),
        ..UserChange::default()
    };
    let id = bench.worker.ids.next();
    let user = users::update(&bench.worker, &bench.by, id, change).await?;
    Ok(if one.common.json {
        json(&user)
    } else {
        shown(&[user])
    })
}

async fn delete(bench: Arc<Bench>, one: One) -> Result<String, Refusal> {
    let id = bench.worker.ids.next();
    let deleted = users::delete(&bench.worker, &bench.by, id, &[one.id]).await?;
    Ok(if one.common.json {
        json(&deleted)
    } else {
        format!(
            "deleted, with {} keys and {} sign-ins",
            deleted.deleted_keys.len(),
            deleted.forgotten_sign_ins
        )
    })
}

fn shown(users: &[UserView]) -> String {
    let rows = users.iter().map(|user| {
        let state = if user.blocked { "blocked" } else { "active" };
        [
            user.user_id.clone(),
            user.user_role.to_owned(),
            user.user_alias.clone().unwrap_or_default(),
            user.user_email.clone().unwrap_or_default(),
            state.to_owned(),
            user.key_count.to_string(),
        ]
    });
    table(["ID", "ROLE", "ALIAS", "EMAIL", "STATE", "KEYS"], rows)
}

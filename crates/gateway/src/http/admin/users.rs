//! People: written down, shown, changed, blocked and deleted. Whose tokens are kept is [`crate::credentials::person`]'s
//! business.

mod api;

pub(crate) use api::operations;

use super::api::Change;
use super::keys::{self, Draft, KeyFilter, KeyView, MadeKey, NewKey};
use super::{changed, last_writing, stored, utc};
use crate::admission::keys::Role;
use crate::app::Worker;
use crate::audit::Actor;
use crate::ids::{RequestId, random_hex};
use crate::web::error::{ErrorCode, Refusal, shown};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vestibule_store::{self as store, Store, StoreError, UserId};

/// How often a change begins anew because somebody else was faster.
const ATTEMPTS: usize = 5;
/// As much of a role's name as a message repeats.
const ROLE_SHOWN: usize = 100;

/// Who shall be written down.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Who it is; without one, random.
    pub(crate) user_id: Option<String>,
    /// `admin` or `member`; LiteLLM's `proxy_admin` and `internal_user` count too. A member without one.
    pub(crate) user_role: Option<String>,
    /// What people call them.
    pub(crate) user_alias: Option<String>,
    /// Their address.
    pub(crate) user_email: Option<String>,
    /// Whether they are blocked from the start.
    pub(crate) blocked: Option<bool>,
    /// Whether they get a key at once, as they do unless this is false.
    pub(crate) auto_create_key: Option<bool>,
    /// What the key is called.
    pub(crate) key_alias: Option<String>,
    /// How long the key counts, like 30d.
    pub(crate) duration: Option<String>,
}

/// What of a person shall be otherwise: what is left out stays, null takes away.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UserChange {
    /// Who.
    pub(crate) user_id: String,
    /// `admin` or `member`; LiteLLM's `proxy_admin` and `internal_user` count too.
    pub(crate) user_role: Option<String>,
    /// What people call them.
    pub(crate) user_alias: Change<String>,
    /// Their address.
    pub(crate) user_email: Change<String>,
    /// Whether they are refused, with all their keys.
    pub(crate) blocked: Option<bool>,
    /// Which writing the change goes out from, where that counts.
    #[serde(skip)]
    pub(crate) version: Option<i64>,
}

/// A person, as they are written down.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct UserView {
    pub(crate) user_id: String,
    /// By LiteLLM's name.
    pub(crate) user_role: &'static str,
    pub(crate) user_alias: Option<String>,
    pub(crate) user_email: Option<String>,
    pub(crate) blocked: bool,
    pub(crate) created_at: Option<String>,
    pub(crate) updated_at: Option<String>,
    /// How many keys they have.
    pub(crate) key_count: usize,
    /// Which writing this is.
    #[serde(skip)]
    pub(crate) version: i64,
}

/// Who was deleted, and what with them.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "LiteLLM's name")]
pub(crate) struct DeletedUsers {
    /// The people.
    pub(crate) deleted_users: Vec<String>,
    /// The ids of their keys.
    pub(crate) deleted_keys: Vec<String>,
    /// How many of their sign-ins were forgotten, and revoked where the provider offers that.
    pub(crate) forgotten_sign_ins: usize,
}

/// LiteLLM's name of a role.
pub(super) fn litellm_role(role: Role) -> &'static str {
    match role {
        Role::Admin => "proxy_admin",
        Role::Member => "internal_user",
    }
}

/// An id from outside.
pub(super) fn user_id(id: String) -> Result<UserId, Refusal> {
    UserId::new(id).map_err(|error| Refusal::because(ErrorCode::InvalidField, format!("user_id: {error}.")))
}

/// Everybody who is written down, by id.
pub(crate) async fn list(worker: &Worker) -> Result<Vec<UserView>, Refusal> {
    let (users, keys) = stored(worker, |store| async move {
        Ok((store.users().await?, store.api_keys().await?))
    })
    .await?;
    let count = |id: &UserId| keys.iter().filter(|key| key.user_id.as_ref() == Some(id)).count();
    Ok(users.iter().map(|user| view(user, count(&user.id))).collect())
}

/// One person, and their keys.
pub(crate) async fn get(worker: &Worker, id: &str) -> Result<(UserView, Vec<KeyView>), Refusal> {
    let user = user_id(id.to_owned())?;
    let found = stored(worker, move |store| async move { store.user(&user).await }).await?;
    let user = found.ok_or_else(|| Refusal::new(ErrorCode::UnknownUser))?;
    let filter = KeyFilter {
        user_id: Some(id.to_owned()),
        ..KeyFilter::default()
    };
    let keys = keys::list(worker, &filter).await?;
    Ok((view(&user, keys.len()), keys))
}

/// Writes a person down, and makes them a key where one is wanted.
pub(crate) async fn create(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    new: NewUser,
) -> Result<(UserView, Option<MadeKey>), Refusal> {
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let user = user_id(named(new.user_id).unwrap_or_else(random_hex))?;
    let role = named(new.user_role).map_or(Ok(Role::default()), |name| role(&name))?;
    let row = store::NewUser {
        id: user.clone(),
        role: role.name().to_owned(),
        alias: named(new.user_alias),
        email: named(new.user_email),
        blocked: new.blocked.unwrap_or(false),
    };
    let now = worker.app.clock.unix_seconds();
    let draft = if new.auto_create_key.unwrap_or(true) {
        let key = NewKey {
            key_alias: new.key_alias,
            duration: new.duration,
            user_id: Some(user.as_str().to_owned()),
            ..NewKey::default()
        };
        Some(Draft::of(worker, by, key).await?)
    } else {
        None
    };
    let key = draft.as_ref().map(|draft| draft.row.clone());
    let put = move |store: Arc<Store>| async move {
        match key {
            Some(key) => store.put_user_with_key(&row, &key, now).await,
            None => store.put_user(&row, now).await,
        }
    };
    stored(worker, put).await?;
    changed(worker, by, "user.create", user.as_str(), id).await?;
    let key = match draft {
        Some(draft) => Some(draft.made(worker, by, id).await?),
        None => None,
    };
    Ok((get(worker, user.as_str()).await?.0, key))
}

/// Changes a person. Whoever is blocked has no console session any more.
pub(crate) async fn update(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    change: UserChange,
) -> Result<UserView, Refusal> {
    let user = user_id(change.user_id.clone())?;
    let new_role = change.user_role.as_deref().map(role).transpose()?;
    let now = worker.app.clock.unix_seconds();
    for _ in 0..ATTEMPTS {
        let asked = user.clone();
        let found = stored(worker, move |store| async move { store.user(&asked).await }).await?;
        let mut row = found.ok_or_else(|| Refusal::new(ErrorCode::UnknownUser))?;
        last_writing(change.version, row.version)?;
        if let Some(role) = new_role {
            role.name().clone_into(&mut row.role);
        }
        row.alias = change.user_alias.clone().over(row.alias);
        row.email = change.user_email.clone().over(row.email);
        row.blocked = change.blocked.unwrap_or(row.blocked);
        if stored(worker, move |store| write(store, row, now)).await? {
            changed(worker, by, "user.update", user.as_str(), id).await?;
            return Ok(get(worker, user.as_str()).await?.0);
        }
    }
    Err(Refusal::new(ErrorCode::ChangedMeanwhile))
}

async fn write(store: Arc<Store>, row: store::User, now: u64) -> Result<bool, StoreError> {
    let written = store.update_user(&row, now).await?.is_some();
    if written && row.blocked {
        store.delete_sessions_of_user(&row.id).await?;
    }
    Ok(written)
}

/// Deletes people with their keys, console sessions and sign-ins. Either all are known, or nobody is deleted.
pub(crate) async fn delete(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    users: &[String],
) -> Result<DeletedUsers, Refusal> {
    let mut ids = users
        .iter()
        .map(|id| user_id(id.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort();
    ids.dedup();
    let known = stored(worker, |store| async move { store.users().await }).await?;
    if !ids.iter().all(|id| known.iter().any(|user| user.id == *id)) {
        return Err(Refusal::new(ErrorCode::UnknownUser));
    }
    let mut deleted = DeletedUsers::default();
    for user in ids {
        let asked = user.clone();
        let gone = stored(
            worker,
            move |store| async move { store.delete_user(&asked).await },
        )
        .await?;
        let Some(gone) = gone else { continue };
        changed(worker, by, "user.delete", user.as_str(), id).await?;
        deleted.deleted_keys.extend(gone.keys);
        deleted.forgotten_sign_ins += gone.grants.len();
        if let Some(people) = &worker.app.people {
            let registry = &worker.live.app().registry;
            people.persons.revoke(&user, gone.grants, registry).await;
        }
        deleted.deleted_users.push(user.as_str().to_owned());
    }
    Ok(deleted)
}

/// Somebody of whom nothing is known yet.
pub(super) fn member(id: UserId) -> store::NewUser {
    store::NewUser {
        id,
        role: Role::Member.name().to_owned(),
        alias: None,
        email: None,
        blocked: false,
    }
}

fn role(name: &str) -> Result<Role, Refusal> {
    Role::named(name).ok_or_else(|| {
        let message = format!(
            "user_role: it is admin or member (LiteLLM's proxy_admin and internal_user), not {}.",
            shown(name, ROLE_SHOWN)
        );
        Refusal::because(ErrorCode::InvalidField, message)
    })
}

fn view(user: &store::User, key_count: usize) -> UserView {
    UserView {
        user_id: user.id.as_str().to_owned(),
        user_role: litellm_role(Role::named(&user.role).unwrap_or_default()),
        user_alias: user.alias.clone(),
        user_email: user.email.clone(),
        blocked: user.blocked,
        created_at: utc(user.created_at),
        updated_at: utc(user.updated_at),
        key_count,
        version: user.version.to_number(),
    }
}

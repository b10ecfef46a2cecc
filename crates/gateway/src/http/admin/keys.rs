//! Virtual keys: made, shown, changed, rotated, blocked and deleted. What a call does with them is
//! [`crate::admission::keys`]'.

mod api;
mod duration;
mod permissions;

pub(crate) use api::operations;
pub(crate) use permissions::PermissionChange;

use super::api::Change;
use super::users::{self, litellm_role, user_id};
use super::{changed, last_writing, of_store, stored, utc};
use crate::admission::keys::{PREFIX, Role, digest_of};
use crate::admission::permissions::{KeyDocument, Meaning, Permissions};
use crate::app::Worker;
use crate::audit::Actor;
use crate::ids::{RequestId, random_hex};
use crate::web::error::{ErrorCode, Refusal};
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use vestibule_store::{ApiKey, NewApiKey, NewUser, Store, StoreError, User, UserId};

/// So many of a key's last characters are shown.
const HINT: usize = 4;
/// How often a change begins anew because somebody else was faster.
const ATTEMPTS: usize = 5;

/// What a new key shall be.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewKey {
    /// What people call it; no two keys have the same.
    pub(crate) key_alias: Option<String>,
    /// Whose it is. Who is not known yet becomes a member; without one the key is a machine's.
    pub(crate) user_id: Option<String>,
    /// How long it counts: 30s, 15m, 12h, 30d, 4w or 1mo. Without one it has no end.
    pub(crate) duration: Option<String>,
    /// Which servers and tools it is for. Without it: those with `allow_all_keys`; for an admin everything. With it, be
    /// it empty, an admin's key manages nothing.
    pub(crate) object_permission: Option<PermissionChange>,
    /// Requests a minute, for each replica of the gateway.
    #[schemars(range(min = 1))]
    pub(crate) rpm_limit: Option<u32>,
    /// The operator's own notes.
    pub(crate) metadata: Option<Map<String, Value>>,
    /// Whether it is blocked from the start.
    pub(crate) blocked: Option<bool>,
}

/// What of a key shall be otherwise: what is left out stays, null takes away.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    /// The key: its id, or its text.
    pub(crate) key: String,
    /// See [`NewKey`].
    #[serde(default)]
    pub(crate) key_alias: Change<String>,
    /// Whose it is from now on.
    #[serde(default)]
    pub(crate) user_id: Change<String>,
    /// How long it counts from now on.
    #[serde(default)]
    pub(crate) duration: Change<String>,
    /// Which servers and tools it is for; members that are left out stay. Null makes it a key for nothing in particular.
    #[serde(default)]
    pub(crate) object_permission: Change<PermissionChange>,
    /// Requests a minute, for each replica of the gateway.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) rpm_limit: Change<u32>,
    /// The operator's own notes.
    #[serde(default)]
    pub(crate) metadata: Change<Map<String, Value>>,
    /// Whether it is blocked.
    #[serde(default)]
    pub(crate) blocked: Option<bool>,
    /// Which writing the change goes out from, where that counts.
    #[serde(skip)]
    pub(crate) version: Option<i64>,
}

/// Which keys are meant, and which part of them; everything for everybody by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyFilter {
    /// Whose.
    pub(crate) user_id: Option<String>,
    /// With this alias.
    pub(crate) key_alias: Option<String>,
    /// With this text in the id, the alias, the owner or the last characters, whatever the case.
    pub(crate) search: Option<String>,
}

/// A key without what is secret about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of its own")]
pub(crate) struct KeyView {
    /// Its id, which stays when it is rotated.
    pub(crate) key_id: String,
    /// The same, as LiteLLM calls it.
    pub(crate) token_id: String,
    /// The key's last characters.
    pub(crate) key_name: String,
    pub(crate) key_alias: Option<String>,
    pub(crate) user_id: Option<String>,
    /// The owner's role, by LiteLLM's name.
    pub(crate) user_role: &'static str,
    pub(crate) object_permission: Permissions,
    /// Whether `object_permission` was given, be it empty: the key is for what it names, and manages nothing. So is one
    /// that cannot be read.
    pub(crate) narrowed: bool,
    pub(crate) rpm_limit: Option<u32>,
    pub(crate) metadata: Map<String, Value>,
    /// When it is over.
    pub(crate) expires: Option<String>,
    pub(crate) blocked: bool,
    /// Whether its owner is blocked, and with them the key.
    pub(crate) user_blocked: bool,
    pub(crate) created_at: Option<String>,
    pub(crate) created_by: Option<String>,
    pub(crate) updated_at: Option<String>,
    /// When it was last used, at most a second late for other replicas.
    pub(crate) last_used: Option<String>,
    /// What is kept about the key cannot be read; it is for nothing until its permissions are set anew.
    pub(crate) unreadable: bool,
    /// Which writing this is.
    #[serde(skip)]
    pub(crate) version: i64,
}

impl KeyView {
    /// What its holder sees, who does not manage: nothing of the operator's own.
    pub(crate) fn for_holder(self) -> Self {
        Self {
            metadata: Map::new(),
            created_by: None,
            ..self
        }
    }
}

/// A key that was just made or rotated. Its text is shown this once.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MadeKey {
    /// The key.
    #[serde(serialize_with = "exposed")]
    #[schemars(with = "String")]
    pub(crate) key: SecretString,
    #[serde(flatten)]
    pub(crate) view: KeyView,
}

fn exposed<S: Serializer>(key: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose_secret())
}

/// A new key's text.
struct Fresh {
    text: SecretString,
    digest: [u8; 32],
    hint: String,
}

impl Fresh {
    fn random() -> Result<Self, Refusal> {
        let mut bytes = [0_u8; 32];
        rand::fill(&mut bytes)
            .map_err(|_| Refusal::because(ErrorCode::Internal, "The system gives no random bytes."))?;
        let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        Ok(Self {
            digest: digest_of(text.as_bytes()),
            hint: text[text.len() - HINT..].to_owned(),
            text: text.into(),
        })
    }
}

/// Rows of keys with what belongs to them.
struct Rows {
    keys: Vec<ApiKey>,
    owners: HashMap<UserId, User>,
    /// When they were used, in seconds since 1970, by id.
    uses: HashMap<String, u64>,
}

impl Rows {
    async fn all(store: Arc<Store>) -> Result<Self, StoreError> {
        let owners = store.users().await?.into_iter();
        let uses = store.key_uses().await?.into_iter();
        Ok(Self {
            keys: store.api_keys().await?,
            owners: owners.map(|user| (user.id.clone(), user)).collect(),
            uses: uses.map(|used| (used.id, used.at)).collect(),
        })
    }

    /// These few keys, and nobody else's rows.
    async fn few(store: &Store, keys: Vec<ApiKey>) -> Result<Self, StoreError> {
        let (mut owners, mut uses) = (HashMap::new(), HashMap::new());
        for key in &keys {
            if let Some(id) = key.user_id.as_ref().filter(|id| !owners.contains_key(*id))
                && let Some(owner) = store.user(id).await?
            {
                owners.insert(id.clone(), owner);
            }
            if let Some(at) = store.key_used(&key.id).await? {
                uses.insert(key.id.clone(), at);
            }
        }
        Ok(Self { keys, owners, uses })
    }

    fn view(&self, worker: &Worker, row: &ApiKey) -> KeyView {
        let owner = row.user_id.as_ref().and_then(|id| self.owners.get(id));
        let role = owner
            .and_then(|owner| Role::named(&owner.role))
            .unwrap_or_default();
        let parsed = serde_json::from_str(&row.document);
        let unreadable = parsed.is_err();
        let document: KeyDocument = parsed.unwrap_or_default();
        let registry = &worker.live.app().registry;
        let here = worker.app.keys.by_id(&row.id).and_then(|key| key.last_used());
        let last_used = here.max(self.uses.get(&row.id).copied());
        KeyView {
            key_id: row.id.clone(),
            token_id: row.id.clone(),
            key_name: format!("{PREFIX}...{}", row.hint),
            key_alias: row.alias.clone(),
            user_id: row.user_id.as_ref().map(UserId::to_string),
            user_role: litellm_role(if unreadable { Role::Member } else { role }),
            object_permission: document.said_now(registry),
            narrowed: unreadable || document.is_narrowed(),
            rpm_limit: document.rpm_limit.map(NonZeroU32::get),
            metadata: document.metadata,
            expires: row.expires_at.and_then(utc),
            blocked: row.blocked,
            user_blocked: owner.is_some_and(|owner| owner.blocked),
            created_at: utc(row.created_at),
            created_by: row.created_by.clone(),
            updated_at: utc(row.updated_at),
            last_used: last_used.and_then(utc),
            unreadable,
            version: row.version.to_number(),
        }
    }
}

impl KeyFilter {
    fn fits(&self, row: &ApiKey) -> bool {
        let owner = row.user_id.as_ref().map(UserId::as_str);
        let has = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        has(&self.user_id, owner)
            && has(&self.key_alias, row.alias.as_deref())
            && self.search.as_ref().is_none_or(|text| {
                let text = text.to_lowercase();
                let places = [Some(&*row.id), row.alias.as_deref(), owner, Some(&*row.hint)];
                places
                    .into_iter()
                    .flatten()
                    .any(|place| place.to_lowercase().contains(&text))
            })
    }
}

/// The keys that fit, the newest first.
pub(crate) async fn list(worker: &Worker, filter: &KeyFilter) -> Result<Vec<KeyView>, Refusal> {
    let rows = match filter.user_id.clone().map(user_id).transpose()? {
        Some(user) => {
            let of_user = move |store: Arc<Store>| async move {
                let keys = store.api_keys_of(&user).await?;
                Rows::few(&store, keys).await
            };
            stored(worker, of_user).await?
        }
        None => stored(worker, Rows::all).await?,
    };
    let mut found: Vec<_> = rows.keys.iter().filter(|row| filter.fits(row)).collect();
    found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    Ok(found.into_iter().map(|row| rows.view(worker, row)).collect())
}

/// One key, by its id or its text.
pub(crate) async fn get(worker: &Worker, key: &str) -> Result<KeyView, Refusal> {
    let id = id_of(worker, key).await?;
    let one = move |store: Arc<Store>| async move {
        let keys = store.api_key(&id).await?.into_iter().collect();
        Rows::few(&store, keys).await
    };
    let rows = stored(worker, one).await?;
    let row = rows.keys.first();
    row.map(|row| rows.view(worker, row))
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownKey))
}

/// Makes a key.
pub(crate) async fn create(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    new: NewKey,
) -> Result<MadeKey, Refusal> {
    let draft = Draft::of(worker, by, new).await?;
    let (now, row) = (worker.app.clock.unix_seconds(), draft.row.clone());
    let put = move |store: Arc<Store>| async move {
        match row.user_id.clone().map(users::member) {
            Some(owner) => store.put_api_key_of(&owner, &row, now).await,
            None => store.put_api_key(&row, now).await,
        }
    };
    stored(worker, put).await?;
    draft.made(worker, by, id).await
}

/// A key that is yet to be kept.
pub(super) struct Draft {
    text: SecretString,
    /// What is to be kept.
    pub(super) row: NewApiKey,
}

impl Draft {
    /// What is asked for, judged.
    pub(super) async fn of(worker: &Worker, by: &Actor, new: NewKey) -> Result<Self, Refusal> {
        let now = worker.app.clock.unix_seconds();
        let mut document = KeyDocument {
            rpm_limit: new.rpm_limit.map(rpm_limit).transpose()?,
            metadata: new.metadata.unwrap_or_default(),
            ..KeyDocument::default()
        };
        if let Some(permissions) = new.object_permission {
            look(worker).await?;
            permissions.put_into(&mut document, &worker.live.app().registry)?;
        }
        let text = Fresh::random()?;
        let row = NewApiKey {
            id: random_hex(),
            digest: text.digest,
            hint: text.hint,
            alias: named(new.key_alias),
            user_id: named(new.user_id).map(user_id).transpose()?,
            document: written(&document)?,
            blocked: new.blocked.unwrap_or(false),
            expires_at: named(new.duration)
                .map(|text| duration::end(&text, now))
                .transpose()?
                .flatten(),
            created_by: Some(by.user.clone().unwrap_or_else(|| by.name.clone())),
        };
        Ok(Self { text: text.text, row })
    }

    /// What it is now that it is kept.
    pub(super) async fn made(self, worker: &Worker, by: &Actor, id: RequestId) -> Result<MadeKey, Refusal> {
        changed(worker, by, "key.create", &self.row.id, id).await?;
        Ok(MadeKey {
            key: self.text,
            view: get(worker, &self.row.id).await?,
        })
    }
}

/// Changes a key; what began with it ends.
pub(crate) async fn update(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    change: KeyChange,
) -> Result<KeyView, Refusal> {
    let now = worker.app.clock.unix_seconds();
    let key_id = id_of(worker, &change.key).await?;
    if change.object_permission.value().is_some() {
        look(worker).await?;
    }
    let expires_at = match &change.duration {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(text) => duration::end(text, now)?.map_or(Change::Clear, Change::Set),
    };
    let owner = change.user_id.clone().try_map(user_id)?;
    let new_owner = owner.value().cloned().map(users::member);
    edit(worker, &key_id, new_owner, |row| {
        last_writing(change.version, row.version)?;
        row.alias = change.key_alias.clone().over(row.alias.take());
        row.user_id = owner.clone().over(row.user_id.take());
        row.expires_at = expires_at.clone().over(row.expires_at);
        row.blocked = change.blocked.unwrap_or(row.blocked);
        if let Some(document) = document_after(worker, &row.document, &change)? {
            row.document = document;
        }
        Ok(())
    })
    .await?;
    changed(worker, by, "key.update", &key_id, id).await?;
    get(worker, &key_id).await
}

/// Blocks a key, or lets it count again.
pub(crate) async fn block(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    key: &str,
    blocked: bool,
) -> Result<KeyView, Refusal> {
    let key_id = id_of(worker, key).await?;
    edit(worker, &key_id, None, |row| {
        row.blocked = blocked;
        Ok(())
    })
    .await?;
    let what = if blocked { "key.block" } else { "key.unblock" };
    changed(worker, by, what, &key_id, id).await?;
    get(worker, &key_id).await
}

/// Gives a key another text. The old one counts no longer, and console sessions that were begun with it are over.
pub(crate) async fn rotate(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    key: &str,
) -> Result<MadeKey, Refusal> {
    let key_id = id_of(worker, key).await?;
    let now = worker.app.clock.unix_seconds();
    let text = Fresh::random()?;
    for _ in 0..ATTEMPTS {
        let row = row(worker, &key_id).await?;
        let (digest, hint) = (text.digest, text.hint.clone());
        let replace = move |store: Arc<Store>| async move {
            store
                .replace_api_key_digest(&row.id, row.version, &digest, &hint, now)
                .await
        };
        if stored(worker, replace).await?.is_some() {
            changed(worker, by, "key.rotate", &key_id, id).await?;
            return Ok(MadeKey {
                key: text.text,
                view: get(worker, &key_id).await?,
            });
        }
    }
    Err(Refusal::new(ErrorCode::ChangedMeanwhile))
}

/// Deletes keys, by id or text and by alias, with the console sessions that were begun with them. Either all are
/// known, or none is deleted. Gives their ids.
pub(crate) async fn delete(
    worker: &Worker,
    by: &Actor,
    id: RequestId,
    keys: &[String],
    aliases: &[String],
) -> Result<Vec<String>, Refusal> {
    let mut ids = Vec::new();
    for key in keys {
        ids.push(id_of(worker, key).await?);
    }
    let rows = stored(worker, |store| async move { store.api_keys().await }).await?;
    for alias in aliases {
        let found = rows.iter().find(|row| row.alias.as_ref() == Some(alias));
        ids.push(
            found
                .ok_or_else(|| Refusal::new(ErrorCode::UnknownKey))?
                .id
                .clone(),
        );
    }
    if !ids.iter().all(|id| rows.iter().any(|row| row.id == *id)) {
        return Err(Refusal::new(ErrorCode::UnknownKey));
    }
    ids.sort();
    ids.dedup();
    for key_id in &ids {
        let key_id = key_id.clone();
        let subject = key_id.clone();
        stored(
            worker,
            move |store| async move { store.delete_api_key(&key_id).await },
        )
        .await?;
        changed(worker, by, "key.delete", &subject, id).await?;
    }
    Ok(ids)
}

/// Names mean the servers that have them now, whichever replica gave them those.
async fn look(worker: &Worker) -> Result<(), Refusal> {
    worker.live.look().await.map_err(of_store)
}

/// The id of the key that has this text; else the text is an id itself.
async fn id_of(worker: &Worker, key: &str) -> Result<String, Refusal> {
    if !key.starts_with(PREFIX) {
        return Ok(key.to_owned());
    }
    let digest = digest_of(key.as_bytes());
    let found = move |store: Arc<Store>| async move { store.api_key_with_digest(&digest).await };
    stored(worker, found)
        .await?
        .map(|row| row.id)
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownKey))
}

async fn row(worker: &Worker, key_id: &str) -> Result<ApiKey, Refusal> {
    let key_id = key_id.to_owned();
    let found = stored(worker, move |store| async move { store.api_key(&key_id).await }).await?;
    found.ok_or_else(|| Refusal::new(ErrorCode::UnknownKey))
}

/// Changes a row, whoever else does. `owner` is whom it is given to.
async fn edit(
    worker: &Worker,
    key_id: &str,
    owner: Option<NewUser>,
    change: impl Fn(&mut ApiKey) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let now = worker.app.clock.unix_seconds();
    for _ in 0..ATTEMPTS {
        let mut row = row(worker, key_id).await?;
        change(&mut row)?;
        let owner = owner.clone();
        let write = move |store: Arc<Store>| async move {
            match owner {
                Some(owner) => store.update_api_key_of(&owner, &row, now).await,
                None => store.update_api_key(&row, now).await,
            }
        };
        if stored(worker, write).await?.is_some() {
            return Ok(());
        }
    }
    Err(Refusal::new(ErrorCode::ChangedMeanwhile))
}

/// The document after `change`, where that says anything about it.
fn document_after(worker: &Worker, before: &str, change: &KeyChange) -> Result<Option<String>, Refusal> {
    if (&change.object_permission, &change.rpm_limit, &change.metadata)
        == (&Change::Keep, &Change::Keep, &Change::Keep)
    {
        return Ok(None);
    }
    let mut document: KeyDocument = match (serde_json::from_str(before), &change.object_permission) {
        (Ok(document), _) => document,
        // What nobody can read grants nothing; naming no permissions would make of it whatever there is for such keys.
        (Err(_), Change::Keep) => {
            return Err(Refusal::because(
                ErrorCode::InvalidField,
                "object_permission: what the key was for cannot be read any more, so say it anew.",
            ));
        }
        (Err(_), _) => KeyDocument::default(),
    };
    let app = worker.live.app();
    match change.object_permission.clone() {
        Change::Keep => {}
        Change::Clear => {
            document.object_permission = Permissions::default();
            document.meaning = Meaning::default();
            document.narrowed = false;
        }
        Change::Set(permissions) => permissions.put_into(&mut document, &app.registry)?,
    }
    document.rpm_limit = change
        .rpm_limit
        .clone()
        .try_map(rpm_limit)?
        .over(document.rpm_limit);
    document.metadata = change
        .metadata
        .clone()
        .over(Some(document.metadata))
        .unwrap_or_default();
    written(&document).map(Some)
}

fn written(document: &KeyDocument) -> Result<String, Refusal> {
    serde_json::to_string(document).map_err(|error| {
        tracing::error!(%error, "a key's document cannot be written");
        Refusal::new(ErrorCode::Internal)
    })
}

fn rpm_limit(limit: u32) -> Result<NonZeroU32, Refusal> {
    NonZeroU32::new(limit).ok_or_else(|| {
        Refusal::because(
            ErrorCode::InvalidField,
            "rpm_limit: it is 1 or more; a key that may make no request is blocked.",
        )
    })
}

/// LiteLLM's clients send an empty text for none.
fn named(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

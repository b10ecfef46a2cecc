//! Virtual keys, each known by its digest: who made them, whose they are, how long they count, and the gateway's own
//! text about what they may do. The keys that rows are sealed with are in [`crate::keys`].

use crate::changes::{Kind, hold};
use crate::database::{Transaction, execute_in, rows};
use crate::error::StoreError;
use crate::ids::{UserId, name, optional, text};
use crate::store::{Store, Version, digest, integer, time};
use crate::users::{self, NewUser};
use std::collections::BTreeMap;

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public name.
    pub id: String,
    /// The key's digest.
    pub digest: [u8; 32],
    /// The key's last characters.
    pub hint: String,
    /// What people call it; no two keys have the same.
    pub alias: Option<String>,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// What it may do, in the gateway's words.
    pub document: String,
    /// It is refused until it is unblocked.
    pub blocked: bool,
    /// When it is over, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// When it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was last written.
    pub updated_at: u64,
    /// Which writing it is.
    pub version: Version,
}

/// A key to be kept. The fields are those of [`ApiKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "see ApiKey")]
pub struct NewApiKey {
    pub id: String,
    pub digest: [u8; 32],
    pub hint: String,
    pub alias: Option<String>,
    pub user_id: Option<UserId>,
    pub document: String,
    pub blocked: bool,
    pub expires_at: Option<u64>,
    pub created_by: Option<String>,
}

/// When a key was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsed {
    /// The key.
    pub id: String,
    /// The time, in seconds since 1970.
    pub at: u64,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, digest, hint, alias, user_id, document, blocked, expires_at, created_at, created_by, \
             updated_at, version FROM api_keys ",
            $rest
        )
    };
}

type Row = (
    String,
    Vec<u8>,
    String,
    Option<String>,
    Option<String>,
    String,
    bool,
    Option<i64>,
    i64,
    Option<String>,
    i64,
    i64,
);

fn api_key(row: Row) -> Result<ApiKey, StoreError> {
    let (
        id,
        known_by,
        hint,
        alias,
        user_id,
        document,
        blocked,
        expires_at,
        created_at,
        created_by,
        updated_at,
        version,
    ) = row;
    Ok(ApiKey {
        id,
        digest: digest(&known_by)?,
        hint,
        alias,
        user_id: user_id.map(UserId),
        document,
        blocked,
        expires_at: expires_at.map(time),
        created_at: time(created_at),
        created_by,
        updated_at: time(updated_at),
        version: Version(version),
    })
}

fn alias(alias: Option<&String>) -> Result<Option<&str>, StoreError> {
    alias.map(|alias| name("alias", alias)).transpose()
}

/// Puts a new row.
pub(crate) async fn insert(
    within: &mut Transaction,
    key: &NewApiKey,
    now: u64,
) -> Result<Version, StoreError> {
    let version = Version::first(now)?;
    let sql = "INSERT INTO api_keys (id, digest, hint, alias, user_id, document, blocked, expires_at, \
         created_at, created_by, updated_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $9, $11)";
    execute_in!(
        within,
        sql,
        name("key id", &key.id)?,
        &key.digest[..],
        text("hint", &key.hint)?,
        alias(key.alias.as_ref())?,
        key.user_id.as_ref().map(UserId::as_str),
        text("document", &key.document)?,
        key.blocked,
        key.expires_at.map(integer),
        integer(now),
        optional("maker", key.created_by.as_ref())?,
        version.0
    )?;
    Ok(version)
}

/// Writes over the version that `key` names, if that is there.
async fn update(within: &mut Transaction, key: &ApiKey, now: u64) -> Result<Option<Version>, StoreError> {
    let next = key.version.next();
    let sql = "UPDATE api_keys SET alias = $1, user_id = $2, document = $3, blocked = $4, expires_at = $5, \
         updated_at = $6, version = $7 WHERE id = $8 AND version = $9";
    let done = execute_in!(
        within,
        sql,
        alias(key.alias.as_ref())?,
        key.user_id.as_ref().map(UserId::as_str),
        text("document", &key.document)?,
        key.blocked,
        key.expires_at.map(integer),
        integer(now),
        next.0,
        text("key id", &key.id)?,
        key.version.0
    )?;
    Ok((done == 1).then_some(next))
}

impl Store {
    /// Every key, by id.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let found = rows!(reader, &self.database, Row, select!(""))?;
        let mut keys = found.into_iter().map(api_key).collect::<Result<Vec<_>, _>>()?;
        // Here, since the databases' collations differ.
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// One key.
    pub async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = text("key id", id)?;
        let found = rows!(reader, &self.database, Row, select!("WHERE id = $1"), id)?;
        found.into_iter().next().map(api_key).transpose()
    }

    /// The key with this digest.
    pub async fn api_key_with_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        let sql = select!("WHERE digest = $1");
        let found = rows!(reader, &self.database, Row, sql, &digest[..])?;
        found.into_iter().next().map(api_key).transpose()
    }

    /// A person's keys, by id.
    pub async fn api_keys_of(&self, user: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        let sql = select!("WHERE user_id = $1");
        let found = rows!(reader, &self.database, Row, sql, user.as_str())?;
        let mut keys = found.into_iter().map(api_key).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// Keeps a new key, whether or not its owner is written down. [`StoreError::Taken`] when there is one with its id,
    /// digest or alias.
    pub async fn put_api_key(&self, key: &NewApiKey, now: u64) -> Result<Version, StoreError> {
        let mut transaction = self.database.begin().await?;
        let version = insert(&mut transaction, key, now).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// [`Store::put_api_key`] for `owner`, who is written down with the same commit unless they are already: nobody
    /// deletes them in between and leaves the key.
    pub async fn put_api_key_of(
        &self,
        owner: &NewUser,
        key: &NewApiKey,
        now: u64,
    ) -> Result<Version, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Users, Kind::Keys]).await?;
        users::ensure(within, owner, now).await?;
        let version = insert(within, key, now).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// Writes the alias, owner, document, block and end of a key, if it is still at the version that `key` names.
    /// `None` when it is not, and then nothing is written. [`StoreError::Taken`] when another key has the alias.
    pub async fn update_api_key(&self, key: &ApiKey, now: u64) -> Result<Option<Version>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let next = update(&mut transaction, key, now).await?;
        transaction.commit().await?;
        Ok(next)
    }

    /// [`Store::update_api_key`] of a key that is given to `owner`, who is written down with the same commit unless they
    /// are already.
    pub async fn update_api_key_of(
        &self,
        owner: &NewUser,
        key: &ApiKey,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Users, Kind::Keys]).await?;
        let Some(next) = update(within, key, now).await? else {
            return Ok(None);
        };
        users::ensure(within, owner, now).await?;
        transaction.commit().await?;
        Ok(Some(next))
    }

    /// Puts another key in the place of the one with this id, which ends with it and with the console sessions that were
    /// begun with it, if the row is still at `version`. `None` when it is not, and then nothing is written.
    pub async fn replace_api_key_digest(
        &self,
        id: &str,
        version: Version,
        digest: &[u8; 32],
        hint: &str,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let next = version.next();
        let sql = "UPDATE api_keys SET digest = $1, hint = $2, updated_at = $3, version = $4 \
             WHERE id = $5 AND version = $6";
        let (id, hint) = (text("key id", id)?, text("hint", hint)?);
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Keys, Kind::Sessions]).await?;
        let done = execute_in!(
            within,
            sql,
            &digest[..],
            hint,
            integer(now),
            next.0,
            id,
            version.0
        )?;
        if done == 0 {
            return Ok(None);
        }
        execute_in!(within, "DELETE FROM sessions WHERE key_id = $1", id)?;
        transaction.commit().await?;
        Ok(Some(next))
    }

    /// Removes a key, with the console sessions that were begun with it and the note of its use. Says whether there
    /// was one.
    pub async fn delete_api_key(&self, id: &str) -> Result<bool, StoreError> {
        let id = text("key id", id)?;
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Keys, Kind::Sessions]).await?;
        let done = execute_in!(within, "DELETE FROM api_keys WHERE id = $1", id)?;
        execute_in!(within, "DELETE FROM key_uses WHERE key_id = $1", id)?;
        execute_in!(within, "DELETE FROM sessions WHERE key_id = $1", id)?;
        transaction.commit().await?;
        Ok(done == 1)
    }

    /// Notes when keys were used. The latest time of a key stays; a key that is gone is passed over.
    pub async fn note_key_uses(&self, uses: &[(String, u64)]) -> Result<(), StoreError> {
        if uses.is_empty() {
            return Ok(());
        }
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, at) in uses {
            let known = latest.entry(text("key id", id)?).or_default();
            *known = (*known).max(*at);
        }
        let sql = "INSERT INTO key_uses (key_id, used_at) \
             SELECT $1, $2 WHERE EXISTS (SELECT 1 FROM api_keys WHERE id = $1) \
             ON CONFLICT (key_id) DO UPDATE SET used_at = excluded.used_at \
             WHERE excluded.used_at > key_uses.used_at";
        let mut transaction = self.database.begin().await?;
        // No key goes meanwhile, so no note outlives its key.
        hold(&mut transaction, &[Kind::Keys]).await?;
        for (id, at) in latest {
            execute_in!(&mut transaction, sql, id, integer(at))?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// When a key was last used, in seconds since 1970, if it was.
    pub async fn key_used(&self, id: &str) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT used_at FROM key_uses WHERE key_id = $1";
        let found = rows!(reader, &self.database, (i64,), sql, text("key id", id)?)?;
        Ok(found.first().map(|(at,)| time(*at)))
    }

    /// When keys were last used, for those that were, by id.
    pub async fn key_uses(&self) -> Result<Vec<KeyUsed>, StoreError> {
        let sql = "SELECT key_id, used_at FROM key_uses";
        let found = rows!(reader, &self.database, (String, i64), sql)?;
        let mut uses: Vec<_> = found
            .into_iter()
            .map(|(id, at)| KeyUsed { id, at: time(at) })
            .collect();
        uses.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(uses)
    }
}

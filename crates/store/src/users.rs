//! People, as far as somebody wrote them down: a role and what they are called. A person may have grants and keys
//! without being here.

use crate::api_keys::{self, NewApiKey};
use crate::changes::{Kind, hold};
use crate::database::{Transaction, execute, execute_in, rows, rows_in};
use crate::error::StoreError;
use crate::grants::Grant;
use crate::ids::{ServerId, UserId, optional, text};
use crate::store::{Store, Version, integer, time};

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who it is.
    pub id: UserId,
    /// What they may do, in the gateway's words.
    pub role: String,
    /// What people call them.
    pub alias: Option<String>,
    /// Their address.
    pub email: Option<String>,
    /// They are refused until they are unblocked.
    pub blocked: bool,
    /// When the row was made, in seconds since 1970.
    pub created_at: u64,
    /// When it was last written.
    pub updated_at: u64,
    /// Which writing it is.
    pub version: Version,
}

/// A person to be written down. The fields are those of [`User`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "see User")]
pub struct NewUser {
    pub id: UserId,
    pub role: String,
    pub alias: Option<String>,
    pub email: Option<String>,
    pub blocked: bool,
}

/// What went with a person.
#[derive(Debug)]
pub struct DeletedUser {
    /// The ids of their keys.
    pub keys: Vec<String>,
    /// Their grants, to be revoked; an error where one cannot be opened.
    pub grants: Vec<(ServerId, Result<Grant, StoreError>)>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, role, alias, email, blocked, created_at, updated_at, version FROM users ",
            $rest
        )
    };
}

type Row = (
    String,
    String,
    Option<String>,
    Option<String>,
    bool,
    i64,
    i64,
    i64,
);

fn user(row: Row) -> User {
    let (id, role, alias, email, blocked, created_at, updated_at, version) = row;
    User {
        id: UserId(id),
        role,
        alias,
        email,
        blocked,
        created_at: time(created_at),
        updated_at: time(updated_at),
        version: Version(version),
    }
}

macro_rules! insert {
    ($rest:literal) => {
        concat!(
            "INSERT INTO users (id, role, alias, email, blocked, created_at, updated_at, version) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7) ",
            $rest
        )
    };
}

async fn insert(
    within: &mut Transaction,
    sql: &'static str,
    user: &NewUser,
    now: u64,
) -> Result<Version, StoreError> {
    let version = Version::first(now)?;
    execute_in!(
        within,
        sql,
        user.id.as_str(),
        text("role", &user.role)?,
        optional("alias", user.alias.as_ref())?,
        optional("email", user.email.as_ref())?,
        user.blocked,
        integer(now),
        version.0
    )?;
    Ok(version)
}

/// Writes a person down who is not yet.
pub(crate) async fn ensure(within: &mut Transaction, user: &NewUser, now: u64) -> Result<(), StoreError> {
    let sql = insert!("ON CONFLICT (id) DO NOTHING");
    insert(within, sql, user, now).await.map(drop)
}

impl Store {
    /// Every person, by id.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let found = rows!(reader, &self.database, Row, select!(""))?;
        let mut users: Vec<_> = found.into_iter().map(user).collect();
        // Here, since the databases' collations differ.
        users.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(users)
    }

    /// One person.
    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let found = rows!(reader, &self.database, Row, select!("WHERE id = $1"), id.as_str())?;
        Ok(found.into_iter().next().map(user))
    }

    /// Writes a person down. [`StoreError::Taken`] when they are.
    pub async fn put_user(&self, user: &NewUser, now: u64) -> Result<Version, StoreError> {
        let mut transaction = self.database.begin().await?;
        let version = insert(&mut transaction, insert!(""), user, now).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// [`Store::put_user`] with a first key, both or neither.
    pub async fn put_user_with_key(
        &self,
        user: &NewUser,
        key: &NewApiKey,
        now: u64,
    ) -> Result<Version, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Users, Kind::Keys]).await?;
        let version = insert(within, insert!(""), user, now).await?;
        api_keys::insert(within, key, now).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// Writes the role, alias, email and block of a person, if the row is still at the version that `user` names.
    /// `None` when it is not, and then nothing is written.
    pub async fn update_user(&self, user: &User, now: u64) -> Result<Option<Version>, StoreError> {
        let next = user.version.next();
        let sql = "UPDATE users SET role = $1, alias = $2, email = $3, blocked = $4, updated_at = $5, version = $6 \
             WHERE id = $7 AND version = $8";
        let done = execute!(
            &self.database,
            sql,
            text("role", &user.role)?,
            optional("alias", user.alias.as_ref())?,
            optional("email", user.email.as_ref())?,
            user.blocked,
            integer(now),
            next.0,
            user.id.as_str(),
            user.version.0
        )?;
        Ok((done == 1).then_some(next))
    }

    /// Removes a person with their keys, console sessions, grants and secrets, all or nothing. `None` when they are
    /// not written down, and then nothing is removed.
    pub async fn delete_user(&self, id: &UserId) -> Result<Option<DeletedUser>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Users, Kind::Grants, Kind::Keys, Kind::Sessions]).await?;
        let user = id.as_str();
        if execute_in!(within, "DELETE FROM users WHERE id = $1", user)? == 0 {
            return Ok(None);
        }
        let grants = self.delete_grants_of(within, id).await?;
        execute_in!(within, "DELETE FROM user_secrets WHERE user_id = $1", user)?;
        let sql = "DELETE FROM key_uses WHERE key_id IN (SELECT id FROM api_keys WHERE user_id = $1)";
        execute_in!(within, sql, user)?;
        let sql = "DELETE FROM sessions WHERE user_id = $1 \
             OR key_id IN (SELECT id FROM api_keys WHERE user_id = $1)";
        execute_in!(within, sql, user)?;
        let sql = "DELETE FROM api_keys WHERE user_id = $1 RETURNING id";
        let mut keys: Vec<_> = rows_in!(within, (String,), sql, user)?
            .into_iter()
            .map(|(id,)| id)
            .collect();
        keys.sort();
        transaction.commit().await?;
        Ok(Some(DeletedUser { keys, grants }))
    }
}

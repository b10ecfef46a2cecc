//! Keys of people's own for servers, brought by themselves: opaque bytes, sealed to their row, the last one written
//! wins. What people sign in for is in [`crate::grants`].

use crate::database::{execute, rows};
use crate::error::StoreError;
use crate::ids::{ServerId, UserId};
use crate::store::{RowContext, Store, Version, context, integer, time};
use secrecy::{ExposeSecret, SecretSlice};

const TABLE: &str = "user_secrets";

/// A secret, opened.
#[derive(Debug)]
pub struct UserSecret {
    /// What was put there.
    pub payload: SecretSlice<u8>,
    /// When there first was one, in seconds since 1970.
    pub created_at: u64,
    /// When it was last written.
    pub updated_at: u64,
}

/// A secret without what is secret about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSecretSummary {
    /// The person.
    pub user_id: UserId,
    /// The server.
    pub server_id: ServerId,
    /// When there first was one, in seconds since 1970.
    pub created_at: u64,
    /// When it was last written.
    pub updated_at: u64,
}

type Summary = (String, String, i64, i64);

fn summary((user_id, server_id, created_at, updated_at): Summary) -> UserSecretSummary {
    UserSecretSummary {
        user_id: UserId(user_id),
        server_id: ServerId(server_id),
        created_at: time(created_at),
        updated_at: time(updated_at),
    }
}

fn row_context<'a>(user: &'a UserId, server: &'a ServerId, version: Version) -> RowContext<'a> {
    context(TABLE, user.as_str(), server.as_str(), version)
}

impl Store {
    /// Puts a person's secret for a server in the place of what was there.
    pub async fn put_user_secret(
        &self,
        user: &UserId,
        server: &ServerId,
        payload: &SecretSlice<u8>,
        now: u64,
    ) -> Result<(), StoreError> {
        let version = Version::first(now)?;
        let sealed = self.seal(payload.expose_secret(), &row_context(user, server, version))?;
        let sql = "INSERT INTO user_secrets (user_id, server_id, sealed, version, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5) \
             ON CONFLICT (user_id, server_id) DO UPDATE \
             SET sealed = excluded.sealed, version = excluded.version, updated_at = excluded.updated_at";
        let (user_id, server_id, now) = (user.as_str(), server.as_str(), integer(now));
        execute!(&self.database, sql, user_id, server_id, &sealed, version.0, now)?;
        Ok(())
    }

    /// A person's secret for a server.
    pub async fn user_secret(
        &self,
        user: &UserId,
        server: &ServerId,
    ) -> Result<Option<UserSecret>, StoreError> {
        let sql = "SELECT sealed, version, created_at, updated_at FROM user_secrets \
             WHERE user_id = $1 AND server_id = $2";
        let (user_id, server_id) = (user.as_str(), server.as_str());
        let found = rows!(
            reader,
            &self.database,
            (Vec<u8>, i64, i64, i64),
            sql,
            user_id,
            server_id
        )?;
        let Some((sealed, version, created_at, updated_at)) = found.into_iter().next() else {
            return Ok(None);
        };
        let row = row_context(user, server, Version(version));
        Ok(Some(UserSecret {
            payload: self.unseal(&sealed, &row, server_id)?,
            created_at: time(created_at),
            updated_at: time(updated_at),
        }))
    }

    /// Removes a person's secret for a server. Says whether there was one.
    pub async fn delete_user_secret(&self, user: &UserId, server: &ServerId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM user_secrets WHERE user_id = $1 AND server_id = $2";
        Ok(execute!(&self.database, sql, user.as_str(), server.as_str())? == 1)
    }

    /// Which servers a person has secrets for, by server id. Nothing is opened.
    pub async fn user_secrets_of(&self, user: &UserId) -> Result<Vec<UserSecretSummary>, StoreError> {
        let sql = "SELECT user_id, server_id, created_at, updated_at FROM user_secrets WHERE user_id = $1";
        let found = rows!(reader, &self.database, Summary, sql, user.as_str())?;
        let mut summaries: Vec<_> = found.into_iter().map(summary).collect();
        // Here, since the databases' collations differ.
        summaries.sort_by(|a, b| a.server_id.cmp(&b.server_id));
        Ok(summaries)
    }

    /// Who has secrets for a server, by user id. Nothing is opened.
    pub async fn user_secrets_of_server(
        &self,
        server: &ServerId,
    ) -> Result<Vec<UserSecretSummary>, StoreError> {
        let sql = "SELECT user_id, server_id, created_at, updated_at FROM user_secrets WHERE server_id = $1";
        let found = rows!(reader, &self.database, Summary, sql, server.as_str())?;
        let mut summaries: Vec<_> = found.into_iter().map(summary).collect();
        summaries.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        Ok(summaries)
    }
}

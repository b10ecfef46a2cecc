//! What a person has been granted at a server: opaque bytes, sealed to their row, replaced by compare-and-swap
//! under a lease, so that of many processes one refreshes. What is in the bytes is the gateway's business.

use crate::database::{Transaction, execute, rows, rows_in};
use crate::error::StoreError;
use crate::ids::{ServerId, UserId};
use crate::store::{RowContext, Store, Version, context, integer, time};
use secrecy::SecretSlice;

const TABLE: &str = "grants";
/// A grant, opened.
#[derive(Debug)]
pub struct Grant {
    /// What was put there.
    pub payload: SecretSlice<u8>,
    /// Which writing it is.
    pub version: Version,
    /// When it is over, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// When the person signed in.
    pub connected_at: u64,
    /// When it was last written.
    pub updated_at: u64,
}

/// A grant without what is secret about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSummary {
    /// The person.
    pub user_id: UserId,
    /// The server.
    pub server_id: ServerId,
    /// When it is over, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// When the person signed in.
    pub connected_at: u64,
    /// When it was last written.
    pub updated_at: u64,
}

/// The answer to who may write a grant next.
#[derive(Debug)]
pub enum Lease {
    /// The asker, until the time it named. This is the grant as it is now.
    Held(Grant),
    /// Somebody else.
    Busy {
        /// When the lease ends by itself, in milliseconds since 1970.
        until_ms: u64,
    },
    /// There is no grant.
    Gone,
}

/// sealed, version, `expires_at`, `connected_at`, `updated_at`
type Row = (Vec<u8>, i64, Option<i64>, i64, i64);

/// `user_id`, `server_id`, `expires_at`, `connected_at`, `updated_at`
type Summary = (String, String, Option<i64>, i64, i64);

fn summary((user_id, server_id, expires_at, connected_at, updated_at): Summary) -> GrantSummary {
    GrantSummary {
        user_id: UserId(user_id),
        server_id: ServerId(server_id),
        expires_at: expires_at.map(time),
        connected_at: time(connected_at),
        updated_at: time(updated_at),
    }
}

fn row_context<'a>(user: &'a UserId, server: &'a ServerId, version: Version) -> RowContext<'a> {
    context(TABLE, user.as_str(), server.as_str(), version)
}

impl Store {
    /// The grant of `user` for `server`. One that is over is still there.
    pub async fn grant(&self, user: &UserId, server: &ServerId) -> Result<Option<Grant>, StoreError> {
        let sql = "SELECT sealed, version, expires_at, connected_at, updated_at FROM grants \
             WHERE user_id = $1 AND server_id = $2";
        let found = rows!(reader, &self.database, Row, sql, user.as_str(), server.as_str())?;
        found
            .into_iter()
            .next()
            .map(|row| self.opened(row, user, server))
            .transpose()
    }

    /// Puts a grant in the place of what was there. Whoever holds a lease loses it.
    pub async fn put_grant(
        &self,
        user: &UserId,
        server: &ServerId,
        payload: &[u8],
        expires_at: Option<u64>,
        now: u64,
    ) -> Result<Version, StoreError> {
        let (user_id, server_id) = (user.as_str(), server.as_str());
        let (expires_at, now_column) = (expires_at.map(integer), integer(now));
        let seal = |version| self.seal(payload, &row_context(user, server, version));
        // Whoever comes in between makes one more round necessary, and has itself come through.
        loop {
            let sql = "SELECT version FROM grants WHERE user_id = $1 AND server_id = $2";
            let found = rows!(writer, &self.database, (i64,), sql, user_id, server_id)?;
            let (version, done) = if let Some((before,)) = found.first() {
                let version = Version(*before).next();
                let sql = "UPDATE grants SET sealed = $1, version = $2, expires_at = $3, connected_at = $4, \
                     updated_at = $4, lease_holder = NULL, lease_until = NULL \
                     WHERE user_id = $5 AND server_id = $6 AND version = $7";
                let sealed = seal(version)?;
                let database = &self.database;
                let done = execute!(
                    database, sql, &sealed, version.0, expires_at, now_column, user_id, server_id, before
                )?;
                (version, done)
            } else {
                let version = Version::first(now)?;
                let sql = "INSERT INTO grants \
                     (user_id, server_id, sealed, version, expires_at, connected_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (user_id, server_id) DO NOTHING";
                let sealed = seal(version)?;
                let database = &self.database;
                let done = execute!(
                    database, sql, user_id, server_id, &sealed, version.0, expires_at, now_column
                )?;
                (version, done)
            };
            if done == 1 {
                return Ok(version);
            }
        }
    }

    /// Asks to be the one that writes the grant next, until `until_ms`. `holder` names this attempt: the same
    /// name does not get a lease twice. A lease ends with [`Store::finish_grant`], [`Store::release_grant`], a
    /// new grant, or at its time.
    pub async fn lease_grant(
        &self,
        user: &UserId,
        server: &ServerId,
        holder: &str,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<Lease, StoreError> {
        let (user_id, server_id) = (user.as_str(), server.as_str());
        loop {
            let sql = "UPDATE grants SET lease_holder = $1, lease_until = $2 \
                 WHERE user_id = $3 AND server_id = $4 AND (lease_until IS NULL OR lease_until <= $5) \
                 RETURNING sealed, version, expires_at, connected_at, updated_at";
            let (until, now) = (integer(until_ms), integer(now_ms));
            let database = &self.database;
            let taken = rows!(writer, database, Row, sql, holder, until, user_id, server_id, now)?;
            if let Some(row) = taken.into_iter().next() {
                let opened = self.opened(row, user, server);
                if opened.is_err() {
                    self.release_grant(user, server, holder).await?;
                }
                return opened.map(Lease::Held);
            }
            let sql = "SELECT lease_until FROM grants WHERE user_id = $1 AND server_id = $2";
            let found = rows!(writer, database, (Option<i64>,), sql, user_id, server_id)?;
            match found.first() {
                None => return Ok(Lease::Gone),
                Some((Some(until),)) if *until > now => {
                    return Ok(Lease::Busy {
                        until_ms: time(*until),
                    });
                }
                // It became free in between.
                Some(_) => {}
            }
        }
    }

    /// Writes what came of a lease and ends it, if `holder` still has it and the grant is still at `version`.
    /// `None` when it is not, and then nothing is written.
    #[expect(clippy::too_many_arguments, reason = "a row and the two conditions on it")]
    pub async fn finish_grant(
        &self,
        user: &UserId,
        server: &ServerId,
        holder: &str,
        version: Version,
        payload: &[u8],
        expires_at: Option<u64>,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let next = version.next();
        let sealed = self.seal(payload, &row_context(user, server, next))?;
        let sql = "UPDATE grants SET sealed = $1, version = $2, expires_at = $3, updated_at = $4, \
             lease_holder = NULL, lease_until = NULL \
             WHERE user_id = $5 AND server_id = $6 AND lease_holder = $7 AND version = $8";
        let (expires_at, now) = (expires_at.map(integer), integer(now));
        let (user_id, server_id) = (user.as_str(), server.as_str());
        let database = &self.database;
        let done = execute!(
            database, sql, &sealed, next.0, expires_at, now, user_id, server_id, holder, version.0
        )?;
        Ok((done == 1).then_some(next))
    }

    /// Ends a lease without a result. Nothing happens when `holder` has none.
    pub async fn release_grant(
        &self,
        user: &UserId,
        server: &ServerId,
        holder: &str,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE grants SET lease_holder = NULL, lease_until = NULL \
             WHERE user_id = $1 AND server_id = $2 AND lease_holder = $3";
        execute!(&self.database, sql, user.as_str(), server.as_str(), holder)?;
        Ok(())
    }

    /// Removes a grant and gives it back, so that it can be revoked. It is gone even when it cannot be opened.
    pub async fn delete_grant(&self, user: &UserId, server: &ServerId) -> Result<Option<Grant>, StoreError> {
        let sql = "DELETE FROM grants WHERE user_id = $1 AND server_id = $2 \
             RETURNING sealed, version, expires_at, connected_at, updated_at";
        let found = rows!(writer, &self.database, Row, sql, user.as_str(), server.as_str())?;
        found
            .into_iter()
            .next()
            .map(|row| self.opened(row, user, server))
            .transpose()
    }

    /// Removes a grant if it is still at `version`. Says whether it was.
    pub async fn delete_grant_if(
        &self,
        user: &UserId,
        server: &ServerId,
        version: Version,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM grants WHERE user_id = $1 AND server_id = $2 AND version = $3";
        let (user_id, server_id) = (user.as_str(), server.as_str());
        let done = execute!(&self.database, sql, user_id, server_id, version.0)?;
        Ok(done == 1)
    }

    /// What a person is connected to, by server id. Nothing is opened.
    pub async fn grants_of(&self, user: &UserId) -> Result<Vec<GrantSummary>, StoreError> {
        let sql = "SELECT user_id, server_id, expires_at, connected_at, updated_at FROM grants \
             WHERE user_id = $1";
        let found = rows!(reader, &self.database, Summary, sql, user.as_str())?;
        let mut summaries: Vec<_> = found.into_iter().map(summary).collect();
        // Here, since the databases' collations differ.
        summaries.sort_by(|a, b| a.server_id.cmp(&b.server_id));
        Ok(summaries)
    }

    /// Who is connected to a server, by user id. Nothing is opened.
    pub async fn grants_of_server(&self, server: &ServerId) -> Result<Vec<GrantSummary>, StoreError> {
        let sql = "SELECT user_id, server_id, expires_at, connected_at, updated_at FROM grants \
             WHERE server_id = $1";
        let found = rows!(reader, &self.database, Summary, sql, server.as_str())?;
        let mut summaries: Vec<_> = found.into_iter().map(summary).collect();
        summaries.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        Ok(summaries)
    }

    /// Removes a person's grants and gives them back, by server id, each opened where it can be.
    pub(crate) async fn delete_grants_of(
        &self,
        within: &mut Transaction,
        user: &UserId,
    ) -> Result<Vec<(ServerId, Result<Grant, StoreError>)>, StoreError> {
        type Deleted = (String, Vec<u8>, i64, Option<i64>, i64, i64);
        let sql = "DELETE FROM grants WHERE user_id = $1 \
             RETURNING server_id, sealed, version, expires_at, connected_at, updated_at";
        let found = rows_in!(within, Deleted, sql, user.as_str())?;
        let mut grants: Vec<_> = found
            .into_iter()
            .map(
                |(server, sealed, version, expires_at, connected_at, updated_at)| {
                    let (server, row) = (
                        ServerId(server),
                        (sealed, version, expires_at, connected_at, updated_at),
                    );
                    let grant = self.opened(row, user, &server);
                    (server, grant)
                },
            )
            .collect();
        grants.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(grants)
    }

    fn opened(&self, row: Row, user: &UserId, server: &ServerId) -> Result<Grant, StoreError> {
        let (sealed, version, expires_at, connected_at, updated_at) = row;
        let version = Version(version);
        Ok(Grant {
            payload: self.unseal(&sealed, &row_context(user, server, version), server.as_str())?,
            version,
            expires_at: expires_at.map(time),
            connected_at: time(connected_at),
            updated_at: time(updated_at),
        })
    }
}

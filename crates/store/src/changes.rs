//! How whoever keeps copies of rows learns that they are old: each kind of row has a revision, which triggers raise
//! in the transaction of the change itself. What a change was, only grants say.

use crate::database::{Transaction, rows};
use crate::error::StoreError;
use crate::ids::{ServerId, UserId};
use crate::store::Store;

/// How often each kind of row has changed. Read before the rows: with the revision come, at the least, all changes
/// up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revisions {
    /// API keys. Their use is no change.
    pub keys: i64,
    /// Users.
    pub users: i64,
    /// Servers.
    pub servers: i64,
    /// Sessions of the console.
    pub sessions: i64,
    /// Grants and users' secrets. A renewal is no change.
    pub grants: i64,
}

/// A grant or secret that came, went, or was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantChange {
    /// The person.
    pub user_id: UserId,
    /// The server.
    pub server_id: ServerId,
    /// [`Revisions::grants`] after the last such change.
    pub revision: i64,
}

/// A kind of row with a revision, in the order in which a transaction that changes several takes them.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Servers,
    Users,
    Grants,
    Keys,
    Sessions,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Users => "users",
            Self::Grants => "grants",
            Self::Keys => "keys",
            Self::Sessions => "sessions",
        }
    }
}

/// Waits for everybody else who changes rows of these kinds and keeps them waiting until the transaction ends, so
/// that its next statement sees all there is. In SQLite a transaction is alone from its beginning.
pub(crate) async fn hold(transaction: &mut Transaction, kinds: &[Kind]) -> Result<(), StoreError> {
    if let Transaction::Postgres(transaction) = transaction {
        for kind in kinds {
            let sql = "SELECT revision FROM changes WHERE kind = $1 FOR UPDATE";
            let query = sqlx::query(sql).bind(kind.name());
            query.execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

impl Store {
    /// The revisions, all of one moment.
    pub async fn revisions(&self) -> Result<Revisions, StoreError> {
        let sql = "SELECT kind, revision FROM changes";
        let mut revisions = Revisions::default();
        for (kind, revision) in rows!(reader, &self.database, (String, i64), sql)? {
            match kind.as_str() {
                "keys" => revisions.keys = revision,
                "users" => revisions.users = revision,
                "servers" => revisions.servers = revision,
                "sessions" => revisions.sessions = revision,
                "grants" => revisions.grants = revision,
                _ => {}
            }
        }
        Ok(revisions)
    }

    /// The grants and secrets that came, went or were replaced after `revision`, the latest last. Each is there
    /// once, with its last change, for as long as the database lasts: there are never more than there ever were
    /// pairs of a person and a server, so nobody can come too late for one.
    pub async fn grant_changes_since(&self, revision: i64) -> Result<Vec<GrantChange>, StoreError> {
        let sql =
            "SELECT user_id, server_id, revision FROM grant_changes WHERE revision > $1 ORDER BY revision";
        let found = rows!(reader, &self.database, (String, String, i64), sql, revision)?;
        Ok(found
            .into_iter()
            .map(|(user_id, server_id, revision)| GrantChange {
                user_id: UserId(user_id),
                server_id: ServerId(server_id),
                revision,
            })
            .collect())
    }
}

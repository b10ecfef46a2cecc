//! What goes wrong with a database, in words that may be logged: no password, no payload, no key.

use crate::ids::Unfit;
use crate::key_source::KeySource;
use crate::keys::{KeyId, RowFault};
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use thiserror::Error;

/// What the database said. Statements and values stay out of it.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct DatabaseFault(String);

impl DatabaseFault {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<sqlx::Error> for DatabaseFault {
    fn from(error: sqlx::Error) -> Self {
        // The details of PostgreSQL's errors hold values of rows; its message does not.
        match error {
            sqlx::Error::Database(error) => Self(match error.code() {
                Some(code) => format!("{} (code {code})", error.message()),
                None => error.message().to_owned(),
            }),
            sqlx::Error::PoolTimedOut => Self("no connection was to be had in time".to_owned()),
            sqlx::Error::Configuration(_) => Self("the connection cannot be configured so".to_owned()),
            other => Self(other.to_string()),
        }
    }
}

/// Why an operation was not done.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database did not do it.
    #[error("the database did not answer as it should: {0}")]
    Database(#[from] DatabaseFault),
    /// A row is there and does not open.
    #[error("a row of the table {table} for the server {server} cannot be opened: {fault}")]
    Undecryptable {
        /// The table.
        table: &'static str,
        /// The server that the row is about.
        server: String,
        /// Why.
        fault: RowFault,
    },
    /// Another row has what only one can have.
    #[error("there is another {0}")]
    Taken(Unique),
    /// A text cannot be kept.
    #[error("the {field} cannot be kept: {fault}")]
    Unfit {
        /// Which text.
        field: &'static str,
        /// Why.
        fault: Unfit,
    },
    /// Nothing can be sealed.
    #[error("the system gives no random bytes to seal with")]
    Sealing,
    /// There is no store to ask.
    #[error("there is no database")]
    Absent,
    /// The work broke off, so that it is not known whether it was done.
    #[error("the work broke off")]
    Interrupted,
}

/// What only one row can have.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Unique {
    /// A key's id.
    #[error("key with this id")]
    ApiKeyId,
    /// A key's digest: it is the same key.
    #[error("key with this digest")]
    ApiKeyDigest,
    /// A key's alias.
    #[error("key with this alias")]
    ApiKeyAlias,
    /// A person's id.
    #[error("user with this id")]
    UserId,
    /// A server's id.
    #[error("server with this id")]
    ServerId,
    /// A server's name, in whatever case.
    #[error("server with this name")]
    ServerName,
    /// A session's digest.
    #[error("session with this digest")]
    Session,
}

/// How the databases name each: the columns in SQLite's message, the constraint in PostgreSQL's.
const UNIQUE: &[(&str, &str, Unique)] = &[
    ("api_keys.id", "api_keys_pkey", Unique::ApiKeyId),
    ("api_keys.digest", "api_keys_digest_key", Unique::ApiKeyDigest),
    ("api_keys.alias", "api_keys_alias_key", Unique::ApiKeyAlias),
    ("users.id", "users_pkey", Unique::UserId),
    ("servers.id", "servers_pkey", Unique::ServerId),
    ("servers.folded", "servers_folded_key", Unique::ServerName),
    ("sessions.digest", "sessions_pkey", Unique::Session),
];

fn taken(error: &dyn DatabaseError) -> Option<Unique> {
    if !error.is_unique_violation() {
        return None;
    }
    let (_, _, unique) = UNIQUE.iter().find(|(columns, constraint, _)| {
        error.constraint() == Some(constraint) || error.message().ends_with(columns)
    })?;
    Some(*unique)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(taken) {
            Some(unique) => Self::Taken(unique),
            None => Self::Database(error.into()),
        }
    }
}

/// Why there is no store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The SQLite file cannot be made or used.
    #[error("the database file {path} cannot be used: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No connection, or not the rights that are needed.
    #[error("the database {database} cannot be used: {fault}")]
    Unreachable {
        /// The database, without its password.
        database: String,
        /// What it said.
        fault: DatabaseFault,
    },
    /// Another program's tables, or those of a newer Vestibule.
    #[error("the tables of {database} cannot be brought up to date: {reason}")]
    Migration {
        /// The database, without its password.
        database: String,
        /// Why.
        reason: String,
    },
    /// The master keys do not open the data.
    #[error(
        "the data in {database} is sealed with the master key {missing}, and the keys at hand ({source_of_keys}) \
         are {}: set the key that was used before, as the first or a further one; nothing was changed",
        list(.at_hand)
    )]
    WrongKey {
        /// The database, without its password.
        database: String,
        /// The key that is missing.
        missing: KeyId,
        /// Where the keys at hand come from.
        source_of_keys: KeySource,
        /// The keys at hand.
        at_hand: Vec<KeyId>,
    },
    /// The row that the keys are tried on is damaged.
    #[error("the check value in {database} cannot be opened: {fault}; nothing was changed")]
    Damaged {
        /// The database, without its password.
        database: String,
        /// Why.
        fault: RowFault,
    },
    /// Nothing can be sealed.
    #[error("the system gives no random bytes to seal with")]
    Sealing,
}

fn list(ids: &[KeyId]) -> String {
    let ids: Vec<String> = ids.iter().map(KeyId::to_string).collect();
    ids.join(", ")
}

/// A migration's failure without the statement.
pub(crate) fn migration(database: String, error: MigrateError) -> OpenError {
    let reason = match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            DatabaseFault::from(error).to_string()
        }
        MigrateError::VersionMissing(version) => {
            format!("a newer Vestibule has used it (migration {version}); use that version")
        }
        other => other.to_string(),
    };
    OpenError::Migration { database, reason }
}

//! The store: opened once, asked by all. What it keeps is in a module for each table or two, codes to users.

use crate::audit;
use crate::database::{Database, execute, rows};
use crate::error::{DatabaseFault, OpenError, StoreError};
use crate::keys::{KeyRing, MasterKeys, RowFault};
use crate::url::DatabaseUrl;
use aws_lc_rs::rand;
use secrecy::SecretSlice;
use tokio::sync::Semaphore;

/// The purpose of the ring that rows are sealed with.
pub const PURPOSE: &str = "store";
/// The row of `meta` that the keys are tried on.
const CHECK: &str = "check";
/// A version begins at the time in seconds, times this, plus chance.
const VERSIONS_A_SECOND: u64 = 1 << 20;

/// An open database with the keys to it.
pub struct Store {
    pub(crate) database: Database,
    pub(crate) ring: KeyRing,
    /// Turns to read the audit.
    pub(crate) audit_reads: Semaphore,
}

/// Which writing of a row it is. A later one is greater, and a row that is deleted and made again does not begin
/// at a version it had: it begins with the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(crate) i64);

impl Version {
    /// As a number, to be kept elsewhere.
    pub fn to_number(self) -> i64 {
        self.0
    }

    /// From [`Version::to_number`].
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// For a new row.
    pub(crate) fn first(now: u64) -> Result<Self, StoreError> {
        let mut chance = [0; 4];
        rand::fill(&mut chance).map_err(|_| StoreError::Sealing)?;
        let chance = u64::from(u32::from_be_bytes(chance)) % VERSIONS_A_SECOND;
        Ok(Self(integer(
            now.saturating_mul(VERSIONS_A_SECOND).saturating_add(chance),
        )))
    }

    /// For the next writing of the same row.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Store {
    /// Connects, tries the keys on what is there, and brings the tables up to date.
    ///
    /// Connections belong to the runtime they are made on: open and use a store on one that outlives it.
    pub async fn open(url: &DatabaseUrl, keys: &MasterKeys) -> Result<Self, OpenError> {
        let store = Self {
            database: Database::connect(url).await?,
            ring: keys.ring(PURPOSE),
            audit_reads: Semaphore::new(audit::READS),
        };
        // Before anything is changed.
        if store
            .database
            .has_tables()
            .await
            .map_err(|error| unreachable(url, error))?
        {
            store.check(url, keys).await?;
        }
        store.database.migrate(url).await?;
        // Of several first starts with different keys one is right, and the others find out here.
        let sealed = store
            .ring
            .seal_row(
                CHECK.as_bytes(),
                &context("meta", CHECK, CHECK, Version(0)).parts(),
            )
            .ok_or(OpenError::Sealing)?;
        let sql = "INSERT INTO meta (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        execute!(&store.database, sql, CHECK, &sealed).map_err(|error| unreachable(url, error))?;
        store.check(url, keys).await?;
        Ok(store)
    }

    /// Closes every connection, after what is under way.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// What kind of database it is.
    pub fn kind(&self) -> &'static str {
        match self.database {
            Database::Sqlite { .. } => "SQLite",
            Database::Postgres(_) => "PostgreSQL",
        }
    }

    /// The ring that rows are sealed with.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    async fn check(&self, url: &DatabaseUrl, keys: &MasterKeys) -> Result<(), OpenError> {
        let sql = "SELECT sealed FROM meta WHERE name = $1";
        let found =
            rows!(writer, &self.database, (Vec<u8>,), sql, CHECK).map_err(|error| unreachable(url, error))?;
        let Some((sealed,)) = found.first() else {
            return Ok(());
        };
        let opened = self
            .ring
            .open_row(sealed, &context("meta", CHECK, CHECK, Version(0)).parts());
        opened.map(drop).map_err(|fault| match fault {
            RowFault::UnknownKey(missing) => OpenError::WrongKey {
                database: url.to_string(),
                missing,
                source_of_keys: keys.source().clone(),
                at_hand: self.ring.ids(),
            },
            fault => OpenError::Damaged {
                database: url.to_string(),
                fault,
            },
        })
    }

    pub(crate) fn seal(&self, payload: &[u8], context: &RowContext<'_>) -> Result<Vec<u8>, StoreError> {
        self.ring
            .seal_row(payload, &context.parts())
            .ok_or(StoreError::Sealing)
    }

    /// Opens a row about `server`.
    pub(crate) fn unseal(
        &self,
        sealed: &[u8],
        context: &RowContext<'_>,
        server: &str,
    ) -> Result<SecretSlice<u8>, StoreError> {
        self.ring
            .open_row(sealed, &context.parts())
            .map_err(|fault| StoreError::Undecryptable {
                table: context.table,
                server: server.to_owned(),
                fault,
            })
    }
}

fn unreachable(url: &DatabaseUrl, error: sqlx::Error) -> OpenError {
    OpenError::Unreachable {
        database: url.to_string(),
        fault: error.into(),
    }
}

/// What sealed data is bound to: its table, its primary key and its version.
pub(crate) struct RowContext<'a> {
    table: &'static str,
    first: &'a str,
    second: &'a str,
    version: [u8; 8],
}

impl RowContext<'_> {
    pub(crate) fn parts(&self) -> [&[u8]; 4] {
        [
            self.table.as_bytes(),
            self.first.as_bytes(),
            self.second.as_bytes(),
            &self.version,
        ]
    }
}

pub(crate) fn context<'a>(
    table: &'static str,
    first: &'a str,
    second: &'a str,
    version: Version,
) -> RowContext<'a> {
    RowContext {
        table,
        first,
        second,
        version: version.0.to_be_bytes(),
    }
}

/// Text, so that every primary key is.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time for the database, which has no unsigned numbers.
pub(crate) fn integer(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// A time of the database.
pub(crate) fn time(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

/// A digest of the database, which keeps those of no other length.
pub(crate) fn digest(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Database(DatabaseFault::new("a digest has another length")))
}

//! The two databases behind one handle: connections, migrations, and the one place where they part ways in a
//! statement. The text of a statement is the same for both.

use crate::error::{OpenError, migration};
use crate::key_source::sync_directory;
use crate::url::{DatabaseUrl, Place};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres, SqlSafeStr, Sqlite, SqlitePool,
};
use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;
/// How often a switch to WAL is tried against another process that does the same, and `SQLite` says busy at once.
const WAL_TRIES: usize = 100;

/// The tables are in a schema of their own: `DATABASE_URL` may name the database of `LiteLLM`, whose migrations
/// drop tables that they do not know. Durability is not less than `on`, whatever the server's default is.
const POSTGRES_SESSION: &str = "SELECT set_config('search_path', 'vestibule', false), \
     set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
     WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

/// An open database.
pub(crate) enum Database {
    /// One connection writes, a few read.
    Sqlite {
        /// The one that writes.
        writer: SqlitePool,
        /// Those that read; the writer itself for a database in memory.
        reader: SqlitePool,
    },
    /// All connections are equal.
    Postgres(PgPool),
}

/// Runs a statement that writes; gives how many rows it touched.
macro_rules! execute {
    ($database:expr, $sql:expr $(, $argument:expr)* $(,)?) => {
        match $database {
            $crate::database::Database::Sqlite { writer, .. } => sqlx::query::<sqlx::Sqlite>($sql)
                $(.bind($argument))*
                .execute(writer)
                .await
                .map(|done| done.rows_affected()),
            $crate::database::Database::Postgres(pool) => sqlx::query::<sqlx::Postgres>($sql)
                $(.bind($argument))*
                .execute(pool)
                .await
                .map(|done| done.rows_affected()),
        }
    };
}

/// Runs a statement that gives rows, on the side (`reader` or `writer`) that it needs. All rows are fetched, also
/// where there is one at most: the statement, and with it its commit, is over only after the last one.
macro_rules! rows {
    ($side:ident, $database:expr, $row:ty, $sql:expr $(, $argument:expr)* $(,)?) => {
        match $database {
            $crate::database::Database::Sqlite { $side, .. } => {
                sqlx::query_as::<sqlx::Sqlite, $row>($sql)
                    $(.bind($argument))*
                    .fetch_all($side)
                    .await
            }
            $crate::database::Database::Postgres(pool) => {
                sqlx::query_as::<sqlx::Postgres, $row>($sql)
                    $(.bind($argument))*
                    .fetch_all(pool)
                    .await
            }
        }
    };
}

/// What `execute` does, as part of a transaction.
macro_rules! execute_in {
    ($transaction:expr, $sql:expr $(, $argument:expr)* $(,)?) => {
        match $transaction {
            $crate::database::Transaction::Sqlite(transaction) => sqlx::query::<sqlx::Sqlite>($sql)
                $(.bind($argument))*
                .execute(&mut **transaction)
                .await
                .map(|done| done.rows_affected()),
            $crate::database::Transaction::Postgres(transaction) => sqlx::query::<sqlx::Postgres>($sql)
                $(.bind($argument))*
                .execute(&mut **transaction)
                .await
                .map(|done| done.rows_affected()),
        }
    };
}

/// What `rows` does, as part of a transaction.
macro_rules! rows_in {
    ($transaction:expr, $row:ty, $sql:expr $(, $argument:expr)* $(,)?) => {
        match $transaction {
            $crate::database::Transaction::Sqlite(transaction) => {
                sqlx::query_as::<sqlx::Sqlite, $row>($sql)
                    $(.bind($argument))*
                    .fetch_all(&mut **transaction)
                    .await
            }
            $crate::database::Transaction::Postgres(transaction) => {
                sqlx::query_as::<sqlx::Postgres, $row>($sql)
                    $(.bind($argument))*
                    .fetch_all(&mut **transaction)
                    .await
            }
        }
    };
}

pub(crate) use {execute, execute_in, rows, rows_in};

/// Several statements that are done together or not at all. Dropped, it is not done.
pub(crate) enum Transaction {
    /// On the connection that writes.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    /// On one of the connections.
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}

impl Database {
    /// Connects. The tables may not be there yet.
    pub(crate) async fn connect(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let unreachable = |error: sqlx::Error| OpenError::Unreachable {
            database: url.to_string(),
            fault: error.into(),
        };
        match &url.0 {
            Place::File(path) => {
                create(path).map_err(|source| OpenError::File {
                    path: path.display().to_string(),
                    source,
                })?;
                sqlite_file(path).await.map_err(unreachable)
            }
            Place::Memory => sqlite_memory().await.map_err(unreachable),
            Place::Postgres(options) => postgres(options).await.map_err(unreachable),
        }
    }

    /// Whether [`Database::migrate`] ever ran.
    pub(crate) async fn has_tables(&self) -> Result<bool, sqlx::Error> {
        let (count,): (i64,) = match self {
            Self::Sqlite { writer, .. } => {
                let sql = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'";
                sqlx::query_as::<Sqlite, (i64,)>(sql).fetch_one(writer).await?
            }
            Self::Postgres(pool) => {
                let sql =
                    "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'vestibule' AND tablename = 'meta'";
                sqlx::query_as::<Postgres, (i64,)>(sql).fetch_one(pool).await?
            }
        };
        Ok(count > 0)
    }

    /// Brings the tables up to date. Of several processes that start at once, one does it and the others wait.
    pub(crate) async fn migrate(&self, url: &DatabaseUrl) -> Result<(), OpenError> {
        let failed = |error| migration(url.to_string(), error);
        match self {
            Self::Sqlite { writer, .. } => {
                let migrator = migrator(&[include_str!("../migrations/sqlite/0001_store.sql")]);
                // sqlx takes no lock on SQLite; the transaction around all of it is one.
                let mut connection = writer.acquire().await.map_err(|error| failed(error.into()))?;
                let begun = connection.begin_with("BEGIN IMMEDIATE").await;
                let mut transaction = begun.map_err(|error| failed(error.into()))?;
                // `run` is not `Send` in here: its bounds are not general enough for the compiler.
                migrator
                    .run_direct(None, &mut *transaction, false)
                    .await
                    .map_err(failed)?;
                transaction.commit().await.map_err(|error| failed(error.into()))
            }
            Self::Postgres(pool) => {
                let mut migrator = migrator(&[include_str!("../migrations/postgres/0001_store.sql")]);
                migrator.create_schema("vestibule");
                let mut connection = pool.acquire().await.map_err(|error| failed(error.into()))?;
                migrator
                    .run_direct(None, &mut *connection, false)
                    .await
                    .map_err(failed)
            }
        }
    }

    /// Begins a transaction. In SQLite nobody else writes until it ends.
    pub(crate) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite { writer, .. } => {
                let begun = writer.begin_with("BEGIN IMMEDIATE").await;
                begun.map(Transaction::Sqlite)
            }
            Self::Postgres(pool) => pool.begin().await.map(Transaction::Postgres),
        }
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// The migrations, numbered from one.
fn migrator(texts: &[&'static str]) -> Migrator {
    let migrations = (1..).zip(texts).map(|(version, text)| {
        let kind = MigrationType::Simple;
        Migration::new(version, Cow::Borrowed("store"), kind, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Makes the file with mode 0600 when it is not there; SQLite gives the files beside it the same mode.
fn create(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => file.sync_all().and_then(|()| sync_directory(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sqlite_options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        // With NORMAL a power cut may take the last commit: a refresh token that was just rotated.
        .synchronous(SqliteSynchronous::Full)
        // What a statement of many rows would take back is kept here, and not in a file.
        .pragma("temp_store", "MEMORY")
}

fn one_connection() -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

async fn sqlite_file(path: &Path) -> Result<Database, sqlx::Error> {
    let options = sqlite_options().filename(path);
    let writer = one_connection().connect_with(options.clone()).await?;
    let mut tries = 0;
    loop {
        // The file remembers it. SQLite does not wait for another process that switches at the same moment.
        match writer.execute("PRAGMA journal_mode = WAL").await {
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("5" | "261")) && tries < WAL_TRIES =>
            {
                tries += 1;
            }
            other => {
                other?;
                break;
            }
        }
    }
    let reader = PoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Database::Sqlite { writer, reader })
}

async fn sqlite_memory() -> Result<Database, sqlx::Error> {
    let writer = one_connection()
        .connect_with(sqlite_options().in_memory(true))
        .await?;
    Ok(Database::Sqlite {
        reader: writer.clone(),
        writer,
    })
}

async fn postgres(options: &PgConnectOptions) -> Result<Database, sqlx::Error> {
    let options = options.clone().application_name("vestibule");
    // One by itself first: its error says what is wrong, where a pool tries again until its time is over.
    tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect())
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??
        .close()
        .await?;
    let pool = PoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection: &mut PgConnection, _| {
            Box::pin(async move { connection.execute(POSTGRES_SESSION).await.map(drop) })
        });
    Ok(Database::Postgres(pool.connect_lazy_with(options)))
}

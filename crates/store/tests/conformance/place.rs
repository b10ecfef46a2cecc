//! A database for one test, its keys, and a back door to its rows.

use aws_lc_rs::rand;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, QueryBuilder};
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use tempfile::TempDir;
use tokio::sync::oneshot;
use vestibule_store::{DatabaseUrl, MasterKeys, ServerId, Store, UserId};

/// Where a test's database is. Removed when dropped; [`Place::remove`] does it for PostgreSQL.
pub(crate) struct Place {
    directory: TempDir,
    postgres: Option<(PgConnectOptions, String)>,
    url: DatabaseUrl,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Self {
            url: DatabaseUrl::sqlite(&directory.path().join("v.db")),
            directory,
            postgres: None,
        };
        place.new_key();
        place
    }

    pub(crate) async fn postgres() -> Self {
        let server = std::env::var_os("VESTIBULE_TEST_POSTGRES")
            .expect("VESTIBULE_TEST_POSTGRES names no PostgreSQL server; run scripts/test unit, or scripts/test.d/postgres.sh cargo test -p vestibule-store")
            .into_string()
            .expect("text");
        let name = format!("vestibule_test_{}", random());
        let options = PgConnectOptions::from_str(&server).expect("a PostgreSQL URL");
        let mut admin = options.connect().await.expect("the PostgreSQL server answers");
        let mut create = QueryBuilder::<sqlx::Postgres>::new("CREATE DATABASE ");
        create.push(&name);
        admin.execute(create.build()).await.expect("created");
        admin.close().await.expect("closed");
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let (base, _) = base.rsplit_once('/').expect("a database name");
        let place = Self {
            url: DatabaseUrl::parse(&format!("{base}/{name}?{query}")).expect("a URL"),
            directory: tempfile::tempdir().expect("a directory"),
            postgres: Some((options, name)),
        };
        place.new_key();
        place
    }

    pub(crate) async fn remove(&self) {
        let Some((options, name)) = &self.postgres else {
            return;
        };
        let mut admin = options.connect().await.expect("the PostgreSQL server answers");
        let mut drop = QueryBuilder::<sqlx::Postgres>::new("DROP DATABASE ");
        drop.push(name).push(" WITH (FORCE)");
        admin.execute(drop.build()).await.expect("dropped");
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// Puts another key in the place of those there are.
    pub(crate) fn new_key(&self) {
        let path = self.key_file();
        let _ = std::fs::remove_file(&path);
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&path).expect("written");
    }

    pub(crate) fn keep_keys(&self) -> String {
        std::fs::read_to_string(self.key_file()).expect("read")
    }

    pub(crate) fn put_keys(&self, text: &str) {
        std::fs::write(self.key_file(), text).expect("written");
    }

    /// The keys, as a process reads them at its start.
    pub(crate) fn keys(&self) -> MasterKeys {
        let path = self.key_file().display().to_string();
        let environment = HashMap::from([("VESTIBULE_MASTER_KEY_FILE".to_owned(), path)]);
        MasterKeys::load(&environment, &self.url).expect("keys")
    }

    /// A store of its own, as another process has it.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url, &self.keys()).await.expect("opens")
    }

    /// Runs a statement past the store; gives how many rows it touched.
    pub(crate) async fn behind(&self, sql: &'static str) -> u64 {
        if let Some(mut connection) = self.raw_postgres().await {
            connection.execute(sql).await.expect("done").rows_affected()
        } else {
            let mut connection = self.raw_sqlite().await;
            connection.execute(sql).await.expect("done").rows_affected()
        }
    }

    /// Runs a statement past the store in a transaction, says so, and commits: in PostgreSQL once somebody waits for
    /// it, in SQLite, which does not tell, at once.
    pub(crate) async fn behind_until_waited_for(&self, sql: &'static str, done: oneshot::Sender<()>) {
        if let Some(mut connection) = self.raw_postgres().await {
            let mut transaction = connection.begin().await.expect("begun");
            transaction.execute(sql).await.expect("done");
            done.send(()).expect("awaited");
            let mut watch = self.raw_postgres().await.expect("connects");
            let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
                 WHERE wait_event_type = 'Lock' AND datname = current_database()";
            while sqlx::query_scalar::<_, i64>(waiting)
                .fetch_one(&mut watch)
                .await
                .expect("found")
                == 0
            {}
            transaction.commit().await.expect("committed");
        } else {
            let mut connection = self.raw_sqlite().await;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.expect("begun");
            transaction.execute(sql).await.expect("done");
            done.send(()).expect("awaited");
            transaction.commit().await.expect("committed");
        }
    }

    /// The tables with a column `sealed`, as the database knows them.
    pub(crate) async fn tables_with_sealed(&self) -> Vec<String> {
        let found: Vec<(String,)> = if let Some(mut connection) = self.raw_postgres().await {
            let sql = "SELECT table_name::text FROM information_schema.columns \
                 WHERE table_schema = 'vestibule' AND column_name LIKE '%sealed%'";
            sqlx::query_as(sql)
                .fetch_all(&mut connection)
                .await
                .expect("found")
        } else {
            let sql = "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c \
                 WHERE m.type = 'table' AND c.name LIKE '%sealed%'";
            let mut connection = self.raw_sqlite().await;
            sqlx::query_as(sql)
                .fetch_all(&mut connection)
                .await
                .expect("found")
        };
        let mut names: Vec<String> = found.into_iter().map(|(name,)| name).collect();
        names.sort();
        names
    }

    async fn raw_postgres(&self) -> Option<sqlx::PgConnection> {
        let (options, name) = self.postgres.as_ref()?;
        let options = options
            .clone()
            .database(name)
            .options([("search_path", "vestibule")]);
        Some(options.connect().await.expect("connects"))
    }

    async fn raw_sqlite(&self) -> sqlx::SqliteConnection {
        let path = self.url.sqlite_file().expect("a file");
        let options = SqliteConnectOptions::new().filename(path);
        options.connect().await.expect("connects")
    }
}

fn random() -> String {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).expect("random");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("an id")
}

pub(crate) fn server(id: &str) -> ServerId {
    ServerId::new(id).expect("an id")
}

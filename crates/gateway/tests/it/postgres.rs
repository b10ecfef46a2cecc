//! A PostgreSQL database for one test.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, QueryBuilder};
use std::str::FromStr;
use vestibule_testkit::random_hex;

/// An empty database of its own.
pub(crate) struct Postgres {
    server: PgConnectOptions,
    name: String,
    url: String,
}

impl Postgres {
    pub(crate) async fn new() -> Self {
        let server = std::env::var_os("VESTIBULE_TEST_POSTGRES")
            .expect("VESTIBULE_TEST_POSTGRES names no PostgreSQL server; run scripts/test unit, or scripts/test.d/postgres.sh cargo test -p vestibule")
            .into_string()
            .expect("text");
        let name = format!("vestibule_it_{}", random_hex());
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let (base, _) = base.rsplit_once('/').expect("a database name");
        let database = Self {
            server: PgConnectOptions::from_str(&server).expect("a PostgreSQL URL"),
            url: format!("{base}/{name}?{query}"),
            name,
        };
        database.run("CREATE DATABASE ", "").await;
        database
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn remove(&self) {
        self.run("DROP DATABASE ", " WITH (FORCE)").await;
    }

    async fn run(&self, before: &str, after: &str) {
        let mut admin = self
            .server
            .connect()
            .await
            .expect("the PostgreSQL server answers");
        let mut statement = QueryBuilder::<sqlx::Postgres>::new(before);
        statement.push(&self.name).push(after);
        admin.execute(statement.build()).await.expect("done");
        admin.close().await.expect("closed");
    }
}

//! People with keys of their own, servers and keys in a database that gateways share: written past the gateways, as
//! another replica writes.

use crate::harness::{Start, TestGateway};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::collections::HashMap;
use tempfile::TempDir;
use vestibule::admission::keys::digest_of;
use vestibule_store::{DatabaseUrl, MasterKeys, NewApiKey, Store, UserId};

/// When everything was written, by the tests' clock.
pub(crate) const NOW: u64 = 1_000_000_000;

/// A database of a test's own.
pub(crate) struct Town {
    directory: TempDir,
    url: String,
    pub(crate) store: Store,
}

impl Town {
    /// In a SQLite file.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", directory.path().join("v.db").display());
        Self::at(directory, url).await
    }

    /// In this database. The keys are in `directory`.
    pub(crate) async fn at(directory: TempDir, url: String) -> Self {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&directory.path().join("keys")).expect("written");
        let database = DatabaseUrl::parse(&url).expect("a database");
        let store = Store::open(&database, &keys).await.expect("opens");
        Self {
            directory,
            url,
            store,
        }
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A gateway on this database, to be started.
    pub(crate) fn start(&self, text: impl Into<String>) -> Start {
        let keys = self.directory.path().join("keys").display().to_string();
        Start::new(text)
            .database(&self.url)
            .environment("VESTIBULE_MASTER_KEY_FILE", &keys)
    }

    /// Gives `user` a key for these servers; its text.
    pub(crate) async fn key(&self, id: &str, user: &str, servers: &[&str]) -> String {
        self.key_with(id, user, &json!({"object_permission": {"mcp_servers": servers}}))
            .await
    }

    /// The same, with a whole document.
    pub(crate) async fn key_with(&self, id: &str, user: &str, document: &Value) -> String {
        let text = format!("sk-canary-{id}-0123456789abcdef");
        let key = NewApiKey {
            id: id.into(),
            digest: digest_of(text.as_bytes()),
            hint: "cdef".into(),
            alias: None,
            user_id: Some(UserId::new(user).expect("an id")),
            document: document.to_string(),
            blocked: false,
            expires_at: None,
            created_by: None,
        };
        self.store.put_api_key(&key, NOW).await.expect("put");
        text
    }

    /// Runs a statement past the gateways, in SQLite.
    pub(crate) async fn behind(&self, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("v.db"));
        let mut connection = options.connect().await.expect("connects");
        connection.execute(sql).await.expect("done");
        connection.close().await.expect("closed");
    }

    /// Blocks a key.
    pub(crate) async fn block(&self, id: &str) {
        let mut key = self.store.api_key(id).await.expect("read").expect("a key");
        key.blocked = true;
        let written = self.store.update_api_key(&key, NOW).await.expect("written");
        assert!(written.is_some());
    }
}

impl TestGateway {
    /// What was written so far counts here when this returns.
    pub(crate) async fn looks(&self) {
        self.live.look().await.expect("the store answers");
    }
}

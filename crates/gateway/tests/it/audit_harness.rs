//! A gateway whose record is read, with keys in its store, and a back door to the database.

use crate::harness::{KEY, Start, TestGateway, got};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::collections::HashMap;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::time::timeout;
use vestibule_store::{DatabaseUrl, MasterKeys, NewApiKey, Store, UserId};
use vestibule_testkit::DEADLINE;

/// A SQLite file of a test's own.
pub(crate) struct Kept(TempDir);

impl Kept {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&directory.path().join("keys")).expect("written");
        Self(directory)
    }

    fn environment(&self) -> HashMap<String, String> {
        let keys = self.0.path().join("keys").display().to_string();
        HashMap::from([("VESTIBULE_MASTER_KEY_FILE".to_owned(), keys)])
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("v.db")
    }

    /// A gateway with this configuration.
    pub(crate) fn start(&self, text: impl Into<String>) -> Start {
        let start = Start::new(text).database(format!("sqlite:{}", self.file().display()));
        let environment = self.environment();
        start.environment(
            "VESTIBULE_MASTER_KEY_FILE",
            &environment["VESTIBULE_MASTER_KEY_FILE"],
        )
    }

    /// The store behind the gateway's back.
    pub(crate) async fn store(&self) -> Store {
        let url = DatabaseUrl::sqlite(&self.file());
        let keys = MasterKeys::from_environment(&self.environment()).expect("keys");
        Store::open(&url, &keys).await.expect("opens")
    }

    /// Keeps a key, before the gateway starts; its text is `sk-canary-` and its id.
    pub(crate) async fn key(&self, id: &str, user: Option<&str>, document: &Value) -> String {
        let store = self.store().await;
        let text = format!("sk-canary-{id}");
        let key = NewApiKey {
            id: id.to_owned(),
            digest: vestibule::admission::keys::digest_of(text.as_bytes()),
            hint: "test".into(),
            alias: Some(format!("alias of {id}")),
            user_id: user.map(|user| UserId::new(user).expect("an id")),
            document: document.to_string(),
            blocked: false,
            expires_at: None,
            created_by: None,
        };
        store.put_api_key(&key, 1).await.expect("put");
        text
    }

    /// Runs a statement past the gateway; gives how many rows it touched.
    pub(crate) async fn behind(&self, sql: &'static str) -> u64 {
        let options = SqliteConnectOptions::new().filename(self.file());
        let mut connection = options.connect().await.expect("connects");
        let done = connection.execute(sql).await.expect("done");
        connection.close().await.expect("closed");
        done.rows_affected()
    }

    /// Every byte of the database's files.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.0.path()).expect("a directory");
        let files = files.map(|file| file.expect("a file").path());
        let files = files.filter(|path| path.display().to_string().contains("v.db"));
        let bytes = files.map(|path| std::fs::read(path).expect("read"));
        bytes.collect::<Vec<_>>().concat()
    }
}

impl TestGateway {
    /// A GET with this key.
    pub(crate) fn get_with(&self, key: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path)).header("x-litellm-api-key", key)
    }

    /// The rows of `/v1/audit?{query}`, the oldest first.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Value> {
        let answer = got(self.get_with(KEY, &format!("/v1/audit?{query}"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut rows = answer.body["entries"].as_array().expect("rows").clone();
        rows.sort_by_key(|row| row["id"].as_i64());
        rows
    }

    /// The same, once there are so many.
    pub(crate) async fn until_rows(&self, query: &str, count: usize) -> Vec<Value> {
        let reached = async {
            loop {
                let rows = self.rows(query).await;
                if rows.len() >= count {
                    return rows;
                }
            }
        };
        let rows = timeout(DEADLINE, reached).await;
        let Ok(rows) = rows else {
            panic!("never {count} rows of {query}: {:#?}", self.rows("").await)
        };
        assert_eq!(rows.len(), count, "{rows:#?}");
        rows
    }

    /// The one row of `query`.
    pub(crate) async fn row(&self, query: &str) -> Value {
        self.until_rows(query, 1).await.remove(0)
    }
}

/// Permissions for these servers.
pub(crate) fn only(servers: &[&str]) -> Value {
    json!({"object_permission": {"mcp_servers": servers}})
}

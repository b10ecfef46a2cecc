//! Servers that are managed while the gateway runs: requests of an admin, and of people who are none.

use crate::harness::{Got, KEY, Start, TestGateway, got};
use aws_lc_rs::digest;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::time::timeout;
use vestibule_store::{DatabaseUrl, MasterKeys, NewApiKey, NewUser, Store, UserId};
use vestibule_testkit::{DEADLINE, Upstream, random_hex};

pub(crate) const SERVERS: &str = "/v1/mcp/server";

/// A request with the master key.
pub(crate) async fn ask(gateway: &TestGateway, method: Method, path: &str, body: Option<&Value>) -> Got {
    ask_as(gateway, KEY, method, path, body).await
}

/// A request with this key.
pub(crate) async fn ask_as(
    gateway: &TestGateway,
    key: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Got {
    let request = gateway
        .http
        .request(method, gateway.url(path))
        .header("x-litellm-api-key", key);
    got(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

/// Adds a server, which has to work.
pub(crate) async fn add(gateway: &TestGateway, body: &Value) -> Value {
    let got = ask(gateway, Method::POST, SERVERS, Some(body)).await;
    assert_eq!(got.status, 201, "{}", got.body);
    got.body
}

/// Changes a server, which has to work.
pub(crate) async fn change(gateway: &TestGateway, body: &Value) -> Value {
    let got = ask(gateway, Method::PUT, SERVERS, Some(body)).await;
    assert_eq!(got.status, 202, "{}", got.body);
    got.body
}

/// What an admin sees of this server.
pub(crate) async fn row(gateway: &TestGateway, id: &str) -> Value {
    let list = ask(gateway, Method::GET, SERVERS, None).await;
    let rows = list.body.as_array().expect("a list").clone();
    let found = rows.into_iter().find(|row| row["server_id"] == id);
    found.unwrap_or_default()
}

/// The fields and sentences of a refusal.
pub(crate) fn problems(got: &Got) -> Vec<String> {
    let list = got.body["error"]["problems"].as_array().cloned();
    let text = |problem: &Value| format!("{}: {}", problem["field"], problem["message"]).replace('"', "");
    list.unwrap_or_default().iter().map(text).collect()
}

/// Asks until the answer is as it should be, or the test has failed.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let reached = async {
        while !is().await {
            tokio::task::yield_now().await;
        }
    };
    let reached = timeout(DEADLINE, reached).await;
    assert!(reached.is_ok(), "never {what}");
}

/// A server with a fixed key.
pub(crate) fn fixed(name: &str, upstream: &Upstream, secret: &str) -> Value {
    json!({"server_name": name, "url": upstream.url(), "transport": "http", "auth_type": "bearer_token",
        "credentials": {"auth_value": secret}})
}

/// What the server was shown last in `Authorization`.
pub(crate) fn shown(upstream: &Upstream) -> String {
    let requests = upstream.requests();
    let last = requests.last().expect("a request");
    last.header("authorization").unwrap_or_default().to_owned()
}

/// A database with the keys to it, so that others than one gateway can look into it.
pub(crate) struct Site {
    directory: TempDir,
    url: String,
}

impl Site {
    /// With a database in a file.
    pub(crate) fn new() -> Self {
        let site = Self::at(String::new());
        let url = format!("sqlite:{}", site.path("vestibule.db").display());
        Self { url, ..site }
    }

    /// With the database at this address.
    pub(crate) fn at(url: impl Into<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&directory.path().join("keys")).expect("written");
        Self {
            directory,
            url: url.into(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A gateway of this site's, with this configuration.
    pub(crate) fn gateway(&self, text: impl Into<String>) -> Start {
        let keys = self.path("keys");
        Start::new(text)
            .database(&self.url)
            .environment("VESTIBULE_MASTER_KEY_FILE", keys.to_str().expect("text"))
    }

    /// The store behind the gateway's back.
    pub(crate) async fn store(&self) -> Store {
        let keys = self.path("keys").display().to_string();
        let environment = HashMap::from([("VESTIBULE_MASTER_KEY_FILE".to_owned(), keys)]);
        let keys = MasterKeys::from_environment(&environment).expect("keys");
        let url = DatabaseUrl::parse(&self.url).expect("a database");
        Store::open(&url, &keys).await.expect("opens")
    }

    /// The key of a person in this role, with these permissions, once the gateway knows it.
    pub(crate) async fn key(
        &self,
        gateway: &TestGateway,
        (user, role): (&str, &str),
        permissions: &Value,
    ) -> String {
        let text = format!("sk-canary-{user}-{}", random_hex());
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        let key = NewApiKey {
            id: format!("key-{user}"),
            digest,
            hint: "sk-...".into(),
            alias: Some(format!("key of {user}")),
            user_id: Some(UserId::new(user).expect("an id")),
            document: json!({"object_permission": permissions}).to_string(),
            blocked: false,
            expires_at: None,
            created_by: None,
        };
        let store = self.store().await;
        let user = NewUser {
            id: UserId::new(user).expect("an id"),
            role: role.into(),
            alias: None,
            email: None,
            blocked: false,
        };
        store.put_user(&user, 1).await.expect("put");
        store.put_api_key(&key, 1).await.expect("put");
        let known = async { while ask_as(gateway, &text, Method::GET, SERVERS, None).await.status == 401 {} };
        timeout(DEADLINE, known).await.expect("the key is known");
        text
    }
}

//! An issuer of signed tokens: its metadata and its keys, which a test can change at any time.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    SigningKey,
    idp::json_response,
    lock,
    peer::{Action, Peer},
    wire::response,
};

/// A running issuer.
pub struct Issuer {
    peer: Peer,
    state: Arc<Mutex<State>>,
}

struct State {
    metadata: Value,
    keys: Vec<Arc<SigningKey>>,
    broken: bool,
}

impl Deref for Issuer {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Issuer {
    /// Starts with one key.
    pub async fn start(key: SigningKey) -> Self {
        let state = Arc::new(Mutex::new(State {
            metadata: Value::Null,
            keys: vec![Arc::new(key)],
            broken: false,
        }));
        let shared = state.clone();
        let peer = Peer::start(|addr| {
            let base = format!("http://{addr}");
            lock(&shared).metadata = json!({"issuer": base, "jwks_uri": format!("{base}/jwks")});
            Arc::new(move |request| {
                let state = lock(&shared);
                if state.broken {
                    return Action::Answer(response(503, &[], b""));
                }
                Action::Answer(match request.path() {
                    "/.well-known/oauth-authorization-server" => json_response(200, &state.metadata),
                    "/jwks" => {
                        let keys: Vec<Value> = state.keys.iter().map(|key| key.jwk()).collect();
                        json_response(200, &json!({"keys": keys}))
                    }
                    _ => response(404, &[], b""),
                })
            })
        })
        .await;
        Self { peer, state }
    }

    /// Its identifier.
    pub fn issuer(&self) -> String {
        self.base()
    }

    /// Adds or replaces a member of the metadata.
    pub fn describe(&self, name: &str, value: impl Into<Value>) {
        lock(&self.state).metadata[name] = value.into();
    }

    /// Signs with `key` from now on, and publishes it beside the seven before.
    pub fn rotate(&self, key: SigningKey) {
        let keys = &mut lock(&self.state).keys;
        keys.insert(0, Arc::new(key));
        keys.truncate(8);
    }

    /// Whether it answers with 503 from now on.
    pub fn break_down(&self, broken: bool) {
        lock(&self.state).broken = broken;
    }

    /// The key that signs now.
    ///
    /// # Panics
    /// Never: there always is one.
    pub fn key(&self) -> Arc<SigningKey> {
        lock(&self.state).keys[0].clone()
    }

    /// A token of this issuer with these claims beside `iss`.
    pub fn token(&self, claims: &Value) -> String {
        let mut claims = claims.clone();
        if claims.get("iss").is_none() {
            claims["iss"] = json!(self.issuer());
        }
        self.key().token(&claims)
    }

    /// How often the keys were fetched.
    pub fn key_fetches(&self) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.path() == "/jwks")
            .count()
    }
}

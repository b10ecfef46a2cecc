//! A token endpoint that does what the test says. It checks nothing: what was sent is in the record.

use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::{
    lock,
    peer::{Action, Peer},
    random_hex,
    wire::{Request, response},
};

/// How the token endpoint answers a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A new token.
    Token {
        /// The member `expires_in`, of any type; absent when `None`.
        expires_in: Option<Value>,
        /// Further members; they replace the usual ones.
        extra: Map<String, Value>,
    },
    /// Status 200 and this body as JSON.
    Json(Value),
    /// Anything that is HTTP.
    Raw {
        /// The status.
        status: u16,
        /// The content type; absent when `None`.
        content_type: Option<String>,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// An error of RFC 6749 section 5.2.
    OAuthError {
        /// The status.
        status: u16,
        /// The member `error`.
        error: String,
        /// The member `error_description`; absent when `None`.
        description: Option<String>,
    },
    /// A redirect.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// Status 200 and a login page.
    Html,
    /// No answer for as long as the other side waits. To answer later, use [`Reply::Gate`].
    Hang,
    /// The reply inside, as soon as the gate has a permit; each answer uses one up.
    Gate(Arc<Semaphore>, Box<Reply>),
    /// The connection closes without an answer.
    Drop,
    /// A JSON answer whose token is this many MiB long.
    Huge {
        /// How many.
        mebibytes: usize,
    },
    /// A token answer that breaks off in the middle.
    Truncated,
}

impl Reply {
    /// A new token that lives an hour.
    pub fn token() -> Self {
        Self::expiring(3600)
    }

    /// A new token with this `expires_in`.
    pub fn expiring(expires_in: impl Into<Value>) -> Self {
        Self::Token {
            expires_in: Some(expires_in.into()),
            extra: Map::new(),
        }
    }

    /// An error of RFC 6749 section 5.2 without a description.
    pub fn error(status: u16, error: &str) -> Self {
        Self::OAuthError {
            status,
            error: error.to_owned(),
            description: None,
        }
    }

    /// `self`, held back until `gate` has a permit.
    #[must_use]
    pub fn behind(self, gate: &Arc<Semaphore>) -> Self {
        Self::Gate(gate.clone(), Box::new(self))
    }
}

/// A running token endpoint. Answers every path and method alike.
pub struct Idp {
    peer: Peer,
    shared: Arc<Mutex<Shared>>,
}

type Judge = Box<dyn Fn(&Request) -> Option<Reply> + Send>;

struct Shared {
    judge: Option<Judge>,
    queue: VecDeque<Reply>,
    default: Reply,
    tokens: Vec<String>,
}

impl Deref for Idp {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Idp {
    /// Starts; every request gets a new token until told otherwise.
    pub async fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            judge: None,
            queue: VecDeque::new(),
            default: Reply::token(),
            tokens: Vec::new(),
        }));
        let state = shared.clone();
        let peer = Peer::start(|_| {
            Arc::new(move |request| {
                let mut locked = lock(&state);
                let judged = locked.judge.as_ref().and_then(|judge| judge(request));
                let reply = judged
                    .or_else(|| locked.queue.pop_front())
                    .unwrap_or_else(|| locked.default.clone());
                drop(locked);
                act(reply, &state)
            })
        })
        .await;
        Self { peer, shared }
    }

    /// The token endpoint.
    pub fn url(&self) -> String {
        format!("{}/oauth/token", self.base())
    }

    /// Answers the next request that has no reply yet with `reply`.
    pub fn push(&self, reply: Reply) {
        lock(&self.shared).queue.push_back(reply);
    }

    /// Answers with `reply` from now on, whenever the queue is empty.
    pub fn set_default(&self, reply: Reply) {
        lock(&self.shared).default = reply;
    }

    /// Has `judge` look at every request first; what it gives is the answer.
    pub fn judge(&self, judge: impl Fn(&Request) -> Option<Reply> + Send + 'static) {
        lock(&self.shared).judge = Some(Box::new(judge));
    }

    /// Every token handed out, oldest first. One behind a gate does not exist before the gate opens.
    pub fn tokens(&self) -> Vec<String> {
        lock(&self.shared).tokens.clone()
    }

    /// The newest token.
    ///
    /// # Panics
    /// When there is none.
    pub fn last_token(&self) -> String {
        self.tokens()
            .pop()
            .expect("the identity provider has handed out no token")
    }

    /// Whether a token is one of this endpoint's, now and later: for [`crate::Upstream::accept_if`].
    pub fn issued(&self) -> impl Fn(&str) -> bool + Send + Sync + use<> {
        let shared = self.shared.clone();
        move |token| lock(&shared).tokens.iter().any(|issued| issued == token)
    }
}

fn act(reply: Reply, shared: &Arc<Mutex<Shared>>) -> Action {
    match reply {
        Reply::Token { expires_in, extra } => {
            Action::Answer(json_response(200, &token_body(shared, expires_in, extra)))
        }
        Reply::Json(body) => Action::Answer(json_response(200, &body)),
        Reply::Raw {
            status,
            content_type,
            headers,
            body,
        } => {
            let content_type = content_type.iter().map(|value| ("Content-Type", value.as_str()));
            let further = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            Action::Answer(response(
                status,
                &content_type.chain(further).collect::<Vec<_>>(),
                &body,
            ))
        }
        Reply::OAuthError {
            status,
            error,
            description,
        } => {
            let mut body = json!({ "error": error });
            if let Some(description) = description {
                body["error_description"] = json!(description);
            }
            Action::Answer(json_response(status, &body))
        }
        Reply::Redirect { status, location } => {
            Action::Answer(response(status, &[("Location", &location)], b""))
        }
        Reply::Html => Action::Answer(login_page()),
        Reply::Hang => Action::Hang,
        Reply::Gate(gate, reply) => {
            let shared = shared.clone();
            Action::Gate(gate, Box::new(move || act(*reply, &shared)))
        }
        Reply::Drop => Action::Close,
        Reply::Huge { mebibytes } => {
            let (start, end) = (br#"{"access_token":""#.as_slice(), br#""}"#.as_slice());
            let length = start.len() + mebibytes * 1024 * 1024 + end.len();
            let headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", &length.to_string()),
            ];
            Action::Flood {
                start: response(200, &headers, start),
                mebibytes,
                end: end.to_vec(),
            }
        }
        Reply::Truncated => {
            let mut bytes = json_response(200, &token_body(shared, Some(json!(3600)), Map::new()));
            bytes.truncate(bytes.len() - 10);
            Action::AnswerThenClose(bytes)
        }
    }
}

fn token_body(shared: &Mutex<Shared>, expires_in: Option<Value>, extra: Map<String, Value>) -> Value {
    let tokens = &mut lock(shared).tokens;
    let token = format!("tk-canary-{}-{}", tokens.len() + 1, random_hex());
    tokens.push(token.clone());
    let mut body = Map::new();
    body.insert("access_token".to_owned(), token.into());
    body.insert("token_type".to_owned(), "Bearer".into());
    body.extend(expires_in.map(|value| ("expires_in".to_owned(), value)));
    body.extend(extra);
    body.into()
}

pub(crate) fn json_response(status: u16, body: &Value) -> Vec<u8> {
    let headers = [
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
    ];
    response(status, &headers, body.to_string().as_bytes())
}

pub(crate) fn login_page() -> Vec<u8> {
    let page = b"<!doctype html><title>Sign in</title><form method=post><input name=password></form>\n";
    response(200, &[("Content-Type", "text/html; charset=utf-8")], page)
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, redirect::Policy};

    use super::*;
    use crate::{RawClient, Upstream};

    async fn ask(idp: &Idp) -> reqwest::Result<reqwest::Response> {
        let client = Client::builder().redirect(Policy::none()).build()?;
        client
            .post(idp.url())
            .form(&[("grant_type", "client_credentials"), ("scope", "a b")])
            .send()
            .await
    }

    async fn answer(idp: &Idp) -> (u16, Value) {
        let response = ask(idp).await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    #[tokio::test]
    async fn tokens_are_unique_and_requests_recorded() {
        let idp = Idp::start().await;
        let (first, second) = (answer(&idp).await, answer(&idp).await);
        assert_eq!(first.0, 200);
        assert_eq!(first.1["expires_in"], 3600);
        assert!(idp.tokens()[0].starts_with("tk-canary-1-"));
        assert_eq!(first.1["access_token"], idp.tokens()[0]);
        assert_eq!(second.1["access_token"], idp.last_token());
        assert_ne!(idp.tokens()[0], idp.tokens()[1]);
        assert!((idp.issued())(&idp.last_token()) && !(idp.issued())("tk"));

        let seen = &idp.wait_for(2).await[0];
        assert_eq!((seen.method.as_str(), seen.path()), ("POST", "/oauth/token"));
        assert_eq!(seen.form_value("scope").as_deref(), Some("a b"));
        assert_eq!(seen.body, b"grant_type=client_credentials&scope=a+b");
        assert_eq!(idp.connections(), 2);
    }

    #[tokio::test]
    async fn replies_are_queued_before_the_default() {
        let idp = Idp::start().await;
        let extra = json!({ "token_type": "mac", "x": 1 });
        let extra = extra.as_object().expect("an object").clone();
        idp.push(Reply::Token {
            expires_in: None,
            extra,
        });
        idp.push(Reply::expiring("60"));
        idp.push(Reply::Json(json!(["no object"])));
        idp.set_default(Reply::error(401, "invalid_client"));
        let (_, body) = answer(&idp).await;
        assert_eq!(
            (body.get("expires_in"), &body["token_type"], &body["x"]),
            (None, &json!("mac"), &json!(1))
        );
        assert_eq!(answer(&idp).await.1["expires_in"], "60");
        assert_eq!(answer(&idp).await, (200, json!(["no object"])));
        assert_eq!(answer(&idp).await, (401, json!({ "error": "invalid_client" })));
        idp.set_default(Reply::OAuthError {
            status: 400,
            error: "e".into(),
            description: Some("d".into()),
        });
        assert_eq!(
            answer(&idp).await,
            (400, json!({ "error": "e", "error_description": "d" }))
        );
    }

    #[tokio::test]
    async fn other_answers() {
        let idp = Idp::start().await;
        idp.push(Reply::Redirect {
            status: 307,
            location: "http://127.0.0.1/x".into(),
        });
        let response = ask(&idp).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["location"]),
            (307, &"http://127.0.0.1/x".parse().expect("a value"))
        );
        idp.push(Reply::Html);
        assert!(
            ask(&idp)
                .await
                .expect("an answer")
                .text()
                .await
                .expect("text")
                .contains("password")
        );
        idp.push(Reply::Raw {
            status: 503,
            content_type: None,
            headers: vec![("Retry-After".into(), "7".into())],
            body: b"later".to_vec(),
        });
        let response = ask(&idp).await.expect("an answer");
        assert_eq!(response.headers()["retry-after"], "7");
        assert!(!response.headers().contains_key("content-type"));
        assert_eq!(response.text().await.expect("text"), "later");
    }

    #[tokio::test]
    async fn faults_of_the_connection() {
        let idp = Idp::start().await;
        idp.push(Reply::Drop);
        assert!(ask(&idp).await.is_err());
        idp.push(Reply::Truncated);
        assert!(ask(&idp).await.expect("a head").bytes().await.is_err());
        idp.push(Reply::Huge { mebibytes: 3 });
        let body: Value = ask(&idp).await.expect("a head").json().await.expect("JSON");
        assert_eq!(body["access_token"].as_str().map(str::len), Some(3 * 1024 * 1024));
        idp.push(Reply::Huge { mebibytes: 64 });
        drop(ask(&idp).await.expect("a head"));
        idp.wait_for_abandoned(1).await;
    }

    #[tokio::test]
    async fn a_hanging_request_ends_with_its_client() {
        let idp = Idp::start().await;
        idp.push(Reply::Hang);
        let mut client = RawClient::connect(idp.addr()).await.expect("a connection");
        client.write("GET / HTTP/1.1\r\n\r\n").await.expect("written");
        idp.wait_for(1).await;
        drop(client);
        idp.wait_for_abandoned(1).await;
    }

    #[tokio::test]
    async fn a_gate_holds_replies_in_flight() {
        let idp = Arc::new(Idp::start().await);
        let gate = Arc::new(Semaphore::new(0));
        idp.set_default(Reply::token().behind(&gate));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let idp = idp.clone();
                tokio::spawn(async move { answer(&idp).await })
            })
            .collect();
        idp.wait_for(3).await;
        assert!(idp.tokens().is_empty());
        gate.add_permits(3);
        for caller in callers {
            assert_eq!(caller.await.expect("no panic").0, 200);
        }
        assert_eq!(idp.tokens().len(), 3);
    }

    #[tokio::test]
    async fn dropping_closes_everything() {
        let idp = Idp::start().await;
        idp.push(Reply::Hang);
        let addr = idp.addr();
        let mut client = RawClient::connect(addr).await.expect("a connection");
        client.write("GET / HTTP/1.1\r\n\r\n").await.expect("written");
        idp.wait_for(1).await;
        drop(idp);
        assert_eq!(client.read_to_close().await.unwrap_or_default(), b"");
        assert!(RawClient::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn an_upstream_can_accept_its_tokens() {
        let (idp, upstream) = (Idp::start().await, Upstream::start().await);
        upstream.accept_if(idp.issued());
        let call = |token: String| {
            Client::new()
                .post(upstream.url())
                .bearer_auth(token)
                .body("{}")
                .send()
        };
        assert_eq!(call("other".into()).await.expect("an answer").status(), 401);
        answer(&idp).await;
        assert_ne!(call(idp.last_token()).await.expect("an answer").status(), 401);
        upstream.revoke(&idp.last_token());
        assert_eq!(call(idp.last_token()).await.expect("an answer").status(), 401);
    }
}

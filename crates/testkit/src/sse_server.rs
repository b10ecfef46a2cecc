//! A recording MCP server of the HTTP+SSE transport (MCP 2024-11-05): an event stream at `/sse`, which names the address
//! for messages. What it says is [`Conversation`]'s.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    Answer, SseHandle,
    conversation::{Conversation, Say},
    lock,
    peer::{Action, Peer},
    wire::{Request, response},
};

/// How the event stream begins.
#[derive(Debug, Clone)]
pub enum Opening {
    /// With this address for messages, where `{id}` stands for the session.
    Endpoint(String),
    /// Without naming an address.
    Silent,
    /// With this answer instead of a stream.
    Raw(Vec<u8>),
    /// Not at all.
    Hang,
}

/// A running server, open to everybody until [`SseServer::accept`].
pub struct SseServer {
    peer: Peer,
    state: Arc<Mutex<State>>,
}

struct State {
    opening: Opening,
    accepts: Option<String>,
    sessions: HashMap<String, Session>,
    opened: usize,
    post: Option<Vec<u8>>,
}

struct Session {
    conversation: Conversation,
    said: mpsc::UnboundedSender<Say>,
}

impl Deref for SseServer {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl SseServer {
    /// Starts.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            opening: Opening::Endpoint("/messages?session_id={id}".to_owned()),
            accepts: None,
            sessions: HashMap::new(),
            opened: 0,
            post: None,
        }));
        let script = Arc::clone(&state);
        let peer = Peer::start(|_| Arc::new(move |request| lock(&script).act(request))).await;
        Self { peer, state }
    }

    /// The address of its event stream.
    pub fn url(&self) -> String {
        format!("{}/sse", self.base())
    }

    /// How streams begin from now on.
    pub fn set_opening(&self, opening: Opening) {
        lock(&self.state).opening = opening;
    }

    /// Answers every message like this from now on.
    pub fn answer_messages(&self, answer: Option<Vec<u8>>) {
        lock(&self.state).post = answer;
    }

    /// Demands this token from now on.
    pub fn accept(&self, token: &str) {
        lock(&self.state).accepts = Some(token.to_owned());
    }

    /// Says something over every stream that is open.
    pub fn say(&self, message: &Value) {
        for session in lock(&self.state).sessions.values() {
            let _ = session.said.send(Say::Message(message.clone()));
        }
    }

    /// Forgets every session and ends its stream.
    pub fn forget(&self) {
        lock(&self.state).sessions.clear();
    }
}

impl State {
    fn act(&mut self, request: &Request) -> Action {
        let refused = self
            .accepts
            .as_deref()
            .is_some_and(|token| request.bearer() != Some(token));
        match (request.method.as_str(), request.path()) {
            _ if refused => {
                let challenge = [("WWW-Authenticate", "Bearer error=\"invalid_token\"")];
                Action::Answer(response(401, &challenge, b""))
            }
            ("GET", "/sse") => self.open(),
            ("POST", "/messages") => Action::Answer(self.hear(request)),
            _ => Action::Answer(response(404, &[], b"nothing here")),
        }
    }

    fn open(&mut self) -> Action {
        let first = match &self.opening {
            Opening::Raw(bytes) => return Action::Answer(bytes.clone()),
            Opening::Hang => return Action::Hang,
            Opening::Silent => ": hello\n\n".to_owned(),
            Opening::Endpoint(address) => {
                let address = address.replace("{id}", &self.opened.to_string());
                format!("event: endpoint\r\ndata: {address}\r\n\r\n")
            }
        };
        let (answer, handle) = Answer::sse();
        let Answer::Sse(feed) = answer else {
            return Action::Close;
        };
        let (said, saying) = mpsc::unbounded_channel();
        let conversation = Conversation::default();
        self.sessions
            .insert(self.opened.to_string(), Session { conversation, said });
        self.opened += 1;
        tokio::spawn(speak(handle, first, saying));
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Transfer-Encoding", "chunked"),
        ];
        Action::Sse(response(200, &headers, b""), feed)
    }

    fn hear(&mut self, request: &Request) -> Vec<u8> {
        if let Some(answer) = &self.post {
            return answer.clone();
        }
        let session = request
            .query_value("session_id")
            .and_then(|id| self.sessions.get_mut(&id));
        let Some(session) = session else {
            return response(404, &[], b"Could not find session");
        };
        for say in session.conversation.hear(&request.json()) {
            let _ = session.said.send(say);
        }
        response(202, &[], b"Accepted")
    }
}

/// Says what there is to say until the server forgets the session or the other side is gone.
async fn speak(handle: SseHandle, first: String, mut saying: mpsc::UnboundedReceiver<Say>) {
    if handle.send(first).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = handle.left() => return,
            say = saying.recv() => match say {
                Some(Say::Message(message)) if handle.event(&message).await.is_ok() => {}
                _ => return,
            },
        }
    }
}

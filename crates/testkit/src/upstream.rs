//! A recording MCP server: a small one that works, until the test scripts an answer.
//! It speaks the revisions with `initialize`, answers in JSON, and refuses no protocol version.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    ops::Deref,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    DEADLINE,
    idp::{json_response, login_page},
    lock,
    peer::{Action, Peer},
    wire::{Request, response},
};

/// How the upstream answers a request instead of as an MCP server. Tokens and sessions are not looked at.
pub enum Answer {
    /// Anything that is HTTP. Content-Length is added unless the headers frame the body themselves.
    Raw {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// These bytes, which need not be HTTP; then the connection closes.
    Verbatim(Vec<u8>),
    /// Status 200 and events that the test sends; from [`Answer::sse`].
    Sse(SseFeed),
    /// A redirect.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// The MCP server's answer, as soon as the gate has a permit; each answer uses one up.
    Gate(Arc<Semaphore>),
    /// No answer for as long as the other side waits; see [`Peer::wait_for_abandoned`].
    Hang,
    /// A body shorter than the Content-Length; then the connection closes.
    Truncated {
        /// What is announced.
        content_length: usize,
        /// What is sent.
        body: Vec<u8>,
    },
    /// Status 200 and a login page.
    Html,
    /// The connection closes without an answer.
    CloseWithoutAnswer,
}

impl Answer {
    /// [`Answer::Raw`] from borrowed parts.
    pub fn raw(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self::Raw {
            status,
            headers,
            body: body.as_ref().to_vec(),
        }
    }

    /// A JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, &[("Content-Type", "application/json")], body.to_string())
    }

    /// An event stream, and the handle that drives it.
    pub fn sse() -> (Self, SseHandle) {
        let (commands, received) = mpsc::channel(1);
        let (gone, is_gone) = watch::channel(false);
        (
            Self::Sse(SseFeed {
                commands: received,
                gone,
            }),
            SseHandle {
                commands,
                gone: is_gone,
            },
        )
    }
}

/// A running upstream, open to everybody until [`Upstream::accept`] or [`Upstream::accept_if`] is called.
pub struct Upstream {
    peer: Peer,
    state: Arc<Mutex<State>>,
}

type Matches = Box<dyn Fn(&Request) -> bool + Send>;
type Accepts = Box<dyn Fn(&str) -> bool + Send>;

#[derive(Default)]
struct State {
    base: String,
    tools: Vec<String>,
    session: Option<String>,
    queue: VecDeque<(Matches, Answer)>,
    description: Option<Value>,
    results: HashMap<String, String>,
    accepts: Vec<Accepts>,
    revoked: HashSet<String>,
}

impl Deref for Upstream {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Upstream {
    /// Starts with one tool, `echo`, without sessions, asking for no token.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            tools: vec!["echo".to_owned()],
            ..State::default()
        }));
        let peer = Peer::start(|addr| {
            lock(&state).base = format!("http://{addr}");
            let state = state.clone();
            Arc::new(move |request| {
                let scripted = lock(&state).take(request);
                match scripted {
                    Some(Answer::Gate(gate)) => {
                        let (state, request) = (state.clone(), request.clone());
                        Action::Gate(
                            gate,
                            Box::new(move || Action::Answer(lock(&state).serve(&request))),
                        )
                    }
                    Some(answer) => lock(&state).act(answer),
                    None => Action::Answer(lock(&state).serve(request)),
                }
            })
        })
        .await;
        Self { peer, state }
    }

    /// The MCP endpoint.
    pub fn url(&self) -> String {
        format!("{}/mcp", self.base())
    }

    /// The tools it has. Each of them echoes `message`, or its arguments where there is none.
    pub fn set_tools(&self, names: &[&str]) {
        lock(&self.state).tools = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// The `Mcp-Session-Id` that `initialize` gives and every other request must carry; `None` for no sessions.
    pub fn set_session(&self, id: Option<&str>) {
        lock(&self.state).session = id.map(str::to_owned);
    }

    /// Answers every request of that JSON-RPC method with these bytes as its result, from now on.
    pub fn answer_with(&self, method: &str, result: &str) {
        lock(&self.state)
            .results
            .insert(method.to_owned(), result.to_owned());
    }

    /// Demands a token from now on, and accepts this one.
    pub fn accept(&self, token: &str) {
        lock(&self.state).revoked.remove(token);
        let token = token.to_owned();
        self.accept_if(move |presented| presented == token);
    }

    /// Demands a token from now on, and accepts these; also [`crate::Idp::issued`].
    pub fn accept_if(&self, accepts: impl Fn(&str) -> bool + Send + 'static) {
        lock(&self.state).accepts.push(Box::new(accepts));
    }

    /// Serves this as its metadata (RFC 9728), at the place that its challenge names.
    pub fn describe(&self, metadata: &Value) {
        lock(&self.state).description = Some(metadata.clone());
    }

    /// Refuses this token from now on.
    pub fn revoke(&self, token: &str) {
        lock(&self.state).revoked.insert(token.to_owned());
    }

    /// Answers the next request that has no answer yet with `answer`, whatever it is.
    pub fn push(&self, answer: Answer) {
        self.push_when(|_| true, answer);
    }

    /// Answers the next request of that JSON-RPC method with `answer`.
    pub fn push_for(&self, method: &str, answer: Answer) {
        let method = method.to_owned();
        self.push_when(move |request| request.json()["method"] == *method, answer);
    }

    /// Answers the next request for which `matches` holds with `answer`.
    pub fn push_when(&self, matches: impl Fn(&Request) -> bool + Send + 'static, answer: Answer) {
        lock(&self.state).queue.push_back((Box::new(matches), answer));
    }
}

impl State {
    fn take(&mut self, request: &Request) -> Option<Answer> {
        let position = self.queue.iter().position(|(matches, _)| matches(request))?;
        self.queue.remove(position).map(|(_, answer)| answer)
    }

    fn act(&self, answer: Answer) -> Action {
        match answer {
            Answer::Raw {
                status,
                headers,
                body,
            } => {
                let headers: Vec<_> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                Action::Answer(response(status, &headers, &body))
            }
            Answer::Verbatim(bytes) => Action::AnswerThenClose(bytes),
            Answer::Sse(feed) => {
                let headers = [
                    ("Content-Type", "text/event-stream"),
                    ("Cache-Control", "no-cache"),
                    ("Transfer-Encoding", "chunked"),
                ];
                Action::Sse(self.respond(200, &headers, b""), feed)
            }
            Answer::Redirect { status, location } => {
                Action::Answer(response(status, &[("Location", &location)], b""))
            }
            Answer::Hang | Answer::Gate(_) => Action::Hang,
            Answer::Truncated { content_length, body } => {
                let length = content_length.to_string();
                let headers = [("Content-Type", "application/json"), ("Content-Length", &length)];
                Action::AnswerThenClose(response(200, &headers, &body))
            }
            Answer::Html => Action::Answer(login_page()),
            Answer::CloseWithoutAnswer => Action::Close,
        }
    }

    /// The MCP server.
    fn serve(&self, request: &Request) -> Vec<u8> {
        if request.path() == "/.well-known/oauth-protected-resource/mcp"
            && let Some(description) = &self.description
        {
            return json_response(200, description);
        }
        if request.path() != "/mcp" {
            return response(404, &[], b"");
        }
        if !self.admits(request.bearer()) {
            let error = if request.bearer().is_some() {
                ", error=\"invalid_token\""
            } else {
                ""
            };
            let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", self.base);
            let challenge = format!("Bearer resource_metadata=\"{metadata}\"{error}");
            return response(401, &[("WWW-Authenticate", &challenge)], b"");
        }
        let message = request.json();
        let method = message["method"].as_str().unwrap_or_default();
        if method != "initialize" && self.session.is_some() {
            match request.header("mcp-session-id") {
                None => return response(400, &[], b"no Mcp-Session-Id"),
                id if id != self.session.as_deref() => return response(404, &[], b"no such session"),
                Some(_) => {}
            }
        }
        match request.method.as_str() {
            "POST" => {}
            "DELETE" if self.session.is_some() => return response(204, &[], b""),
            _ => return response(405, &[("Allow", "POST")], b""),
        }
        if !message.is_object() {
            return response(400, &[], b"the body is no JSON object");
        }
        if message.get("id").is_none() || message.get("method").is_none() {
            return self.respond(202, &[], b"");
        }
        let kind = [("Content-Type", "application/json")];
        if let Some(result) = self.results.get(method) {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, message["id"]);
            return self.respond(200, &kind, answer.as_bytes());
        }
        let mut answer = json!({ "jsonrpc": "2.0", "id": message["id"] });
        match self.result(method, &message["params"]) {
            Ok(result) => answer["result"] = result,
            Err((code, message)) => answer["error"] = json!({ "code": code, "message": message }),
        }
        self.respond(200, &kind, answer.to_string().as_bytes())
    }

    fn admits(&self, token: Option<&str>) -> bool {
        match token {
            Some(token) if self.revoked.contains(token) => false,
            Some(token) => self.accepts.is_empty() || self.accepts.iter().any(|accepts| accepts(token)),
            None => self.accepts.is_empty(),
        }
    }

    fn respond(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let session = self.session.iter().map(|id| ("Mcp-Session-Id", id.as_str()));
        response(
            status,
            &headers.iter().copied().chain(session).collect::<Vec<_>>(),
            body,
        )
    }

    fn result(&self, method: &str, params: &Value) -> Result<Value, (i32, String)> {
        let name = params["name"].as_str().unwrap_or_default();
        match method {
            "initialize" => Ok(json!({
                "protocolVersion": params["protocolVersion"],
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "testkit", "version": "0" },
            })),
            "ping" => Ok(json!({})),
            "tools/list" => {
                let describe = |name| {
                    json!({
                        "name": name,
                        "description": "Gives the message back.",
                        "inputSchema": { "type": "object", "properties": { "message": { "type": "string" } } },
                    })
                };
                Ok(json!({ "tools": self.tools.iter().map(describe).collect::<Vec<_>>() }))
            }
            "tools/call" if self.tools.iter().any(|tool| tool == name) => {
                let arguments = &params["arguments"];
                let text = arguments["message"]
                    .as_str()
                    .map_or_else(|| arguments.to_string(), str::to_owned);
                Ok(json!({ "content": [{ "type": "text", "text": text }], "isError": false }))
            }
            "tools/call" => Err((-32602, format!("Unknown tool: {name}"))),
            _ => Err((-32601, format!("Unknown method: {method}"))),
        }
    }
}

enum Command {
    Send(Vec<u8>),
    Finish,
    Abort,
}

/// Drives one event stream. Dropped before [`SseHandle::finish`], it cuts the stream off.
pub struct SseHandle {
    commands: mpsc::Sender<(Command, oneshot::Sender<()>)>,
    gone: watch::Receiver<bool>,
}

impl SseHandle {
    /// Sends bytes as one chunk; resolves when the operating system has taken them, which waits for a slow reader. Fails
    /// with `BrokenPipe` when the other side is gone and with `TimedOut` after [`DEADLINE`].
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.command(Command::Send(bytes.as_ref().to_vec())).await
    }

    /// Sends a message as one event.
    pub async fn event(&self, message: &Value) -> io::Result<()> {
        self.send(format!("event: message\ndata: {message}\n\n")).await
    }

    /// Ends the stream as HTTP wants it; the connection stays open for the next request.
    pub async fn finish(self) -> io::Result<()> {
        self.command(Command::Finish).await
    }

    /// Cuts the stream off in the middle.
    pub async fn abort(self) -> io::Result<()> {
        self.command(Command::Abort).await
    }

    /// Resolves when the other side went away while the stream was open.
    ///
    /// # Panics
    /// When it does not within [`DEADLINE`].
    pub async fn closed(&self) {
        let mut gone = self.gone.clone();
        let outcome = timeout(DEADLINE, gone.wait_for(|gone| *gone)).await;
        assert!(
            matches!(outcome, Ok(Ok(_))),
            "the reader of an event stream did not go away within {DEADLINE:?}"
        );
    }

    /// Resolves when the other side went away, however long that takes.
    pub(crate) async fn left(&self) {
        let mut gone = self.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
    }

    async fn command(&self, command: Command) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        let work = async {
            self.commands
                .send((command, done))
                .await
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
            is_done.await.map_err(|_| io::ErrorKind::BrokenPipe)
        };
        Ok(timeout(DEADLINE, work)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??)
    }
}

/// The receiving end of an [`SseHandle`].
pub struct SseFeed {
    commands: mpsc::Receiver<(Command, oneshot::Sender<()>)>,
    gone: watch::Sender<bool>,
}

impl SseFeed {
    /// Writes what the handle sends; `false` when the stream was cut off, an error when the other side went away.
    pub(crate) async fn run(
        mut self,
        gone: impl Future<Output = io::Error>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<bool> {
        let outcome = tokio::select! {
            error = gone => Err(error),
            finished = write_events(&mut self.commands, writer) => finished,
        };
        if outcome.is_err() {
            self.gone.send_replace(true);
        }
        outcome
    }
}

async fn write_events(
    commands: &mut mpsc::Receiver<(Command, oneshot::Sender<()>)>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    while let Some((command, done)) = commands.recv().await {
        match command {
            // A chunk of no bytes would end the stream.
            Command::Send(bytes) if bytes.is_empty() => {}
            Command::Send(bytes) => {
                let size = format!("{:x}\r\n", bytes.len());
                writer
                    .write_all(&[size.as_bytes(), &bytes, b"\r\n"].concat())
                    .await?;
            }
            Command::Finish => {
                writer.write_all(b"0\r\n\r\n").await?;
                let _ = done.send(());
                return Ok(true);
            }
            Command::Abort => {
                let _ = done.send(());
                break;
            }
        }
        let _ = done.send(());
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, Response, redirect::Policy};

    use super::*;
    use crate::RawClient;

    async fn try_post(upstream: &Upstream, token: &str, body: &Value) -> reqwest::Result<Response> {
        let client = Client::builder().redirect(Policy::none()).build()?;
        client
            .post(upstream.url())
            .bearer_auth(token)
            .body(body.to_string())
            .send()
            .await
    }

    async fn post(upstream: &Upstream, token: &str, body: &Value) -> Response {
        try_post(upstream, token, body).await.expect("an answer")
    }

    fn call(method: &str, params: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    async fn result(upstream: &Upstream, method: &str, params: Value) -> Value {
        post(upstream, "t", &call(method, &params))
            .await
            .json()
            .await
            .expect("JSON")
    }

    #[tokio::test]
    async fn a_small_mcp_server() {
        let upstream = Upstream::start().await;
        upstream.set_tools(&["one", "two"]);
        let version = json!({ "protocolVersion": "2025-06-18" });
        let answer = result(&upstream, "initialize", version).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
        let note = post(
            &upstream,
            "t",
            &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        )
        .await;
        assert_eq!(note.status(), 202);
        let list = result(&upstream, "tools/list", json!({})).await;
        assert_eq!(
            (
                &list["result"]["tools"][0]["name"],
                &list["result"]["tools"][1]["name"]
            ),
            (&json!("one"), &json!("two"))
        );
        let echo = result(
            &upstream,
            "tools/call",
            json!({ "name": "two", "arguments": { "message": "hi" } }),
        )
        .await;
        assert_eq!(echo["result"]["content"][0]["text"], "hi");
        let echo = result(
            &upstream,
            "tools/call",
            json!({ "name": "two", "arguments": { "a": 1 } }),
        )
        .await;
        assert_eq!(echo["result"]["content"][0]["text"], r#"{"a":1}"#);
        assert_eq!(
            result(&upstream, "tools/call", json!({ "name": "no" })).await["error"]["code"],
            -32602
        );
        assert_eq!(result(&upstream, "no", json!({})).await["error"]["code"], -32601);
        assert_eq!(result(&upstream, "ping", json!({})).await["result"], json!({}));
        assert_eq!(post(&upstream, "t", &json!([])).await.status(), 400);
        let get = |url: String| async { reqwest::get(url).await.expect("an answer").status() };
        assert_eq!(get(upstream.url()).await, 405);
        assert_eq!(get(upstream.base()).await, 404);
        assert_eq!(upstream.wait_for(8).await[0].json()["method"], "initialize");
    }

    #[tokio::test]
    async fn sessions() {
        let upstream = Upstream::start().await;
        upstream.set_session(Some("s1"));
        let answer = post(&upstream, "t", &call("initialize", &json!({}))).await;
        assert_eq!(answer.headers()["mcp-session-id"], "s1");
        assert_eq!(
            post(&upstream, "t", &call("ping", &json!({}))).await.status(),
            400
        );
        let client = Client::new();
        let ping = |id| {
            client
                .post(upstream.url())
                .header("mcp-session-id", id)
                .body(call("ping", &json!({})).to_string())
        };
        assert_eq!(ping("s2").send().await.expect("an answer").status(), 404);
        assert_eq!(ping("s1").send().await.expect("an answer").status(), 200);
        let delete = client.delete(upstream.url()).header("mcp-session-id", "s1");
        assert_eq!(delete.send().await.expect("an answer").status(), 204);
    }

    #[tokio::test]
    async fn tokens_are_demanded_accepted_and_revoked() {
        let upstream = Upstream::start().await;
        let ping = call("ping", &json!({}));
        assert_eq!(post(&upstream, "a", &ping).await.status(), 200);
        upstream.accept("a");
        assert_eq!(post(&upstream, "a", &ping).await.status(), 200);
        let refused = post(&upstream, "b", &ping).await;
        assert_eq!(refused.status(), 401);
        let challenge = refused.headers()["www-authenticate"].to_str().expect("text");
        assert!(
            challenge.starts_with("Bearer resource_metadata=\"http://127.0.0.1:")
                && challenge.ends_with("\"invalid_token\"")
        );
        let nobody = Client::new()
            .post(upstream.url())
            .body("{}")
            .send()
            .await
            .expect("an answer");
        assert!(
            !nobody.headers()["www-authenticate"]
                .to_str()
                .expect("text")
                .contains("error")
        );
        upstream.accept("b");
        assert_eq!(post(&upstream, "b", &ping).await.status(), 200);
        upstream.revoke("b");
        assert_eq!(post(&upstream, "b", &ping).await.status(), 401);
    }

    #[tokio::test]
    async fn canaries() {
        let upstream = Upstream::start().await;
        post(&upstream, "in-header", &json!({ "x": "in-body" })).await;
        reqwest::get(format!("{}?in-query", upstream.url()))
            .await
            .expect("an answer");
        upstream.assert_never_seen("nowhere");
        for canary in ["in-header", "in-body", "in-query"] {
            let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                upstream.assert_never_seen(canary);
            }));
            assert!(check.is_err(), "{canary}");
        }
    }

    #[tokio::test]
    async fn scripted_answers() {
        let upstream = Upstream::start().await;
        let ping = call("ping", &json!({}));
        upstream.push_for("tools/list", Answer::json(500, &json!({ "later": true })));
        upstream.push(Answer::raw(418, &[("X-Odd", "1")], "tea"));
        let odd = post(&upstream, "t", &ping).await;
        assert_eq!(
            (odd.status().as_u16(), &odd.headers()["x-odd"]),
            (418, &"1".parse().expect("a value"))
        );
        assert_eq!(post(&upstream, "t", &ping).await.status(), 200);
        assert_eq!(
            post(&upstream, "t", &call("tools/list", &json!({})))
                .await
                .status(),
            500
        );

        upstream.push(Answer::Redirect {
            status: 308,
            location: "http://127.0.0.1/elsewhere".into(),
        });
        let redirect = post(&upstream, "t", &ping).await;
        assert_eq!(
            (redirect.status().as_u16(), redirect.headers()["location"].len()),
            (308, 26)
        );
        upstream.push(Answer::Html);
        assert!(
            post(&upstream, "t", &ping)
                .await
                .text()
                .await
                .expect("text")
                .contains("password")
        );
        upstream.push(Answer::Truncated {
            content_length: 100,
            body: b"{".to_vec(),
        });
        assert!(post(&upstream, "t", &ping).await.bytes().await.is_err());
        upstream.push(Answer::CloseWithoutAnswer);
        assert!(try_post(&upstream, "t", &ping).await.is_err());
        upstream.push(Answer::Verbatim(b"no HTTP".to_vec()));
        assert!(try_post(&upstream, "t", &ping).await.is_err());

        let gate = Arc::new(Semaphore::new(0));
        upstream.push(Answer::Gate(gate.clone()));
        let seen = upstream.requests().len();
        let opened = async {
            upstream.wait_for(seen + 1).await;
            gate.add_permits(1);
        };
        assert_eq!(tokio::join!(post(&upstream, "t", &ping), opened).0.status(), 200);
    }

    #[tokio::test]
    async fn a_hanging_request_ends_with_its_client() {
        let upstream = Upstream::start().await;
        upstream.push(Answer::Hang);
        let mut client = RawClient::connect(upstream.addr()).await.expect("a connection");
        client
            .write("POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .expect("written");
        upstream.wait_for(1).await;
        drop(client);
        upstream.wait_for_abandoned(1).await;
    }

    #[tokio::test]
    async fn event_streams_are_driven_finished_and_cut_off() {
        let upstream = Upstream::start().await;
        let mut client = RawClient::connect(upstream.addr()).await.expect("a connection");
        let request = "POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let (answer, stream) = Answer::sse();
        upstream.push(answer);
        client.write(request).await.expect("written");
        let head = client.read_head().await.expect("a head");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        stream.send(": hi\n\n").await.expect("sent");
        client.read_until(": hi\n\n").await.expect("the comment");
        stream.send("").await.expect("nothing sent");
        stream.event(&json!({ "a": 1 })).await.expect("sent");
        client
            .read_until("event: message\ndata: {\"a\":1}\n\n")
            .await
            .expect("the event");
        stream.finish().await.expect("finished");
        client.read_until("0\r\n\r\n").await.expect("the end");

        let (answer, stream) = Answer::sse();
        upstream.push(answer);
        client.write(request).await.expect("the same connection");
        stream.send("data: 1\n\n").await.expect("sent");
        stream.abort().await.expect("cut off");
        assert_eq!(
            client.read_response().await.expect_err("no end").kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(upstream.connections(), 1);
    }

    #[tokio::test]
    async fn event_streams_feel_a_slow_reader_and_one_that_left() {
        let upstream = Upstream::start().await;
        let (answer, stream) = Answer::sse();
        upstream.push(answer);
        let response = post(&upstream, "t", &json!({})).await;
        let more_than_buffers_hold = vec![b':'; 64 * 1024 * 1024];
        let reader = async {
            drop(response);
            stream.closed().await;
        };
        let (sent, ()) = tokio::join!(stream.send(more_than_buffers_hold), reader);
        assert_eq!(sent.expect_err("nobody reads").kind(), io::ErrorKind::BrokenPipe);
        upstream.wait_for_abandoned(1).await;
        assert_eq!(
            stream.send("x").await.expect_err("nobody reads").kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}

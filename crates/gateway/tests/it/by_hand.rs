//! Requests written byte by byte, an upstream that must never see the gateway key, and one whose every byte and
//! close the test decides.

use crate::harness::{KEY, TestGateway, entry};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use vestibule_testkit::{DEADLINE, RawClient, Response, Upstream};

/// An upstream that fails its test if any request held the gateway key.
pub(crate) struct Watched(Upstream);

impl Watched {
    pub(crate) async fn start() -> Self {
        Self(Upstream::start().await)
    }

    /// Its entry in `mcp_servers`, without a credential; `more` are further fields, one a line.
    pub(crate) fn entry(&self, name: &str, more: &str) -> String {
        entry(name, &format!("url: {}\n{more}", self.url()))
    }
}

impl Deref for Watched {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.assert_never_seen(KEY);
        }
    }
}

/// A gateway with one server, `one`, and that server.
pub(crate) async fn gateway_and_server() -> (TestGateway, Watched) {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", "")).await;
    (gateway, server)
}

/// `tools/call echo` of this text, as bytes.
pub(crate) fn echo_body(text: &str) -> String {
    crate::harness::echo(text).to_string()
}

/// A request head with the gateway key; `more` are whole lines. Ends with the empty line.
pub(crate) fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nx-litellm-api-key: Bearer {KEY}\r\n{more}\r\n")
}

/// A POST to `/one/mcp` with the gateway key; `more` are whole lines.
pub(crate) fn post(more: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let more = format!(
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {}\r\n{more}",
        body.len()
    );
    [head("POST", "/one/mcp", &more).as_bytes(), body].concat()
}

/// A connection to the gateway on which these bytes were sent.
pub(crate) async fn sent(gateway: &TestGateway, bytes: impl AsRef<[u8]>) -> RawClient {
    let mut client = RawClient::connect(gateway.address).await.expect("a connection");
    client.write(bytes).await.expect("written");
    client
}

/// The answer to these bytes on a connection of their own.
pub(crate) async fn ask(gateway: &TestGateway, bytes: impl AsRef<[u8]>) -> Response {
    sent(gateway, bytes)
        .await
        .read_response()
        .await
        .expect("a response")
}

/// What comes until the end of the connection; whether it ends with a reset does not matter.
pub(crate) async fn rest(client: &mut RawClient) -> String {
    match client.read_to_close().await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    }
}

/// The code of a refusal, in each of its three shapes.
pub(crate) fn code(body: &Value) -> &str {
    [
        &body["error"]["data"]["code"],
        &body["error"]["code"],
        &body["detail"]["error"],
    ]
    .into_iter()
    .find_map(Value::as_str)
    .unwrap_or("no code")
}

/// An answer to request 7.
pub(crate) fn result(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": text}]}})
}

/// A port that stays taken and at which nobody listens: no other test can move in.
pub(crate) struct Nobody(TcpSocket);

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("a free port");
        Self(socket)
    }

    /// A URL there.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.0.local_addr().expect("an address"))
    }
}

/// A server whose connections the test accepts and answers itself.
pub(crate) struct ByHand {
    listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

impl ByHand {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        Self { listener, addr }
    }

    pub(crate) fn entry(&self, name: &str, more: &str) -> String {
        entry(name, &format!("url: http://{}/mcp\n{more}", self.addr))
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Connection {
        let (stream, _) = timeout(DEADLINE, self.listener.accept())
            .await
            .expect("a connection in time")
            .expect("accepted");
        Connection(stream)
    }

    /// Fails if a connection is waiting to be accepted.
    pub(crate) async fn nobody_else_came(&self) {
        let waiting = timeout(Duration::ZERO, self.listener.accept()).await;
        assert!(waiting.is_err(), "another connection came");
    }
}

/// A connection of [`ByHand`].
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Reads one request with a Content-Length, whole.
    pub(crate) async fn request(&mut self) -> String {
        let mut text = Vec::new();
        let whole = async {
            loop {
                if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
                    if text.len() >= end + 4 + length {
                        return;
                    }
                }
                assert!(
                    self.0.read_buf(&mut text).await.expect("readable") > 0,
                    "the gateway closed within a request"
                );
            }
        };
        timeout(DEADLINE, whole).await.expect("a request in time");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Closes, and waits until the gateway's side of the machine knows: a busy kernel may deliver what another
    /// connection sends first.
    pub(crate) async fn close(mut self) {
        /// `FIN_WAIT2`: the other side has acknowledged the end (`include/net/tcp_states.h`).
        const ACKNOWLEDGED: &str = "05";
        let port = |address: io::Result<SocketAddr>| format!(":{:04X}", address.expect("an address").port());
        let (local, remote) = (port(self.0.local_addr()), port(self.0.peer_addr()));
        self.0.shutdown().await.expect("shut down");
        let known = async {
            loop {
                let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
                let found = table.lines().skip(1).any(|line| {
                    let mut words = line.split_ascii_whitespace().skip(1);
                    let mut next = || words.next().unwrap_or_default();
                    next().ends_with(&local) && next().ends_with(&remote) && next() == ACKNOWLEDGED
                });
                if found {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, known).await.expect("acknowledged in time");
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(DEADLINE, self.0.write_all(bytes.as_ref()))
            .await
            .expect("written in time")
    }

    /// Answers with JSON and a Content-Length.
    pub(crate) async fn answer(&mut self, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.write(answer).await.expect("written");
    }

    /// Resolves once the gateway has closed; what it sends before is dropped.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, self.0.read_to_end(&mut rest))
            .await
            .expect("closed in time");
    }
}

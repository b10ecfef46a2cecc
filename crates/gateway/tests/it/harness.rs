//! A gateway in this process on a port of its own, with a clock that the test moves and a log that is searched
//! for secrets; and what tests send to it.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing_subscriber::fmt::MakeWriter;
use vestibule::app::App;
use vestibule::clock::Clock;
use vestibule::config;
use vestibule::http::Gateway;
use vestibule::live::{Live, Source};
use vestibule_store::{DatabaseUrl, MasterKeys, Store};

/// The gateway key of every test; nothing but the gateway may ever see it.
pub(crate) const KEY: &str = "sk-canary-gateway-key-0123456789";
/// The OAuth client secret of every test; only the identity provider may see it.
pub(crate) const CLIENT_SECRET: &str = "canary-client-secret-0123456789";

/// A gateway that is running. Dropped, it is told to stop and not waited for.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) live: Arc<Live>,
    clock: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<bool>>,
}

/// How a gateway is started; `text` is its configuration file.
pub(crate) struct Start {
    text: String,
    environment: HashMap<String, String>,
    database: Option<String>,
    path: Option<PathBuf>,
    workers: usize,
}

impl Start {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            environment: HashMap::new(),
            database: None,
            path: None,
            workers: 2,
        }
    }

    /// Where what lasts is kept; in memory unless a test says otherwise.
    pub(crate) fn database(mut self, url: impl Into<String>) -> Self {
        self.database = Some(url.into());
        self
    }

    /// Read from this file, which is looked at again and again.
    pub(crate) fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// With one worker thread, so that all connections share its connections to servers.
    pub(crate) fn one_worker(mut self) -> Self {
        self.workers = 1;
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    pub(crate) async fn start(self) -> TestGateway {
        captured_log();
        let loaded = config::load(&self.text, &self.environment);
        let settings = loaded
            .settings
            .unwrap_or_else(|| panic!("{:#?}\n{}", loaded.findings, self.text));
        let keys = MasterKeys::from_environment(&self.environment).expect("keys");
        let (clock, counter) = Clock::manual();
        let store = if settings.has_sign_in() || settings.master_key.is_some() {
            let url = self.database.unwrap_or_else(|| "sqlite::memory:".to_owned());
            let url = DatabaseUrl::parse(&url).expect("a database");
            Some(Arc::new(Store::open(&url, &keys).await.expect("opens")))
        } else {
            None
        };
        let runtime = Handle::current();
        let app = App::build(settings, &keys, clock, runtime.clone(), true, store).expect("builds");
        let source = Source {
            path: self.path,
            text: self.text,
            environment: self.environment,
        };
        let live = Live::new(app, source, runtime);
        live.look().await.expect("the store answers");
        let gateway = Gateway::start(Arc::clone(&live), self.workers).expect("starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(gateway.serve(listener, async {
            let _ = stopped.await;
        }));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let http = http.timeout(Duration::from_secs(20)).build().expect("client");
        TestGateway {
            address,
            http,
            live,
            clock: counter,
            stop: Some(stop),
            served: Some(served),
        }
    }
}

impl TestGateway {
    /// Starts a gateway that wants [`KEY`], with these entries below `mcp_servers`.
    pub(crate) async fn with_servers(servers: &str) -> Self {
        Start::new(keyed(servers)).start().await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Moves the clock on.
    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// A POST of `message` to the server `one` with the gateway key, as an MCP client sends it.
    pub(crate) fn post(&self, path: &str, message: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(path))
            .header("x-litellm-api-key", format!("Bearer {KEY}"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(message)
    }

    /// `tools/call echo` on `path`, and its status with the body.
    pub(crate) async fn echo(&self, path: &str, text: &str) -> (u16, Value) {
        answer(self.post(path, &echo(text))).await
    }

    /// Begins to stop; resolves to whether everything under way came to its end.
    pub(crate) fn stop(&mut self) -> JoinHandle<bool> {
        drop(self.stop.take());
        self.served.take().expect("stopped once")
    }
}

/// `tools/call echo`.
pub(crate) fn echo(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": text}}})
}

/// Sends, and gives status and JSON body.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("answered");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    (status, body)
}

/// A configuration with the key and these servers.
pub(crate) fn keyed(servers: &str) -> String {
    format!("general_settings:\n  master_key: {KEY}\nmcp_servers:\n{servers}")
}

/// [`keyed`], where the master key is one person's, whose tokens are kept; `more` are further lines of the section.
pub(crate) fn personal(servers: &str, more: &str) -> String {
    format!(
        "{}vestibule:\n  keep_tokens_for_master_key: true\n{more}",
        keyed(servers)
    )
}

/// An entry of `mcp_servers` with a machine token; `more` are further fields, one a line.
pub(crate) fn machine(name: &str, url: &str, token_url: &str, more: &str) -> String {
    let fields = format!(
        "url: {url}\nauth_type: oauth2\nclient_id: canary-id\nclient_secret: {CLIENT_SECRET}\ntoken_url: {token_url}\n{more}"
    );
    entry(name, &fields)
}

/// An entry of `mcp_servers` with these fields, one a line.
pub(crate) fn entry(name: &str, fields: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    format!("  {name}:\n{fields}")
}

/// Everything that was logged in this process so far.
pub(crate) fn logged() -> String {
    String::from_utf8_lossy(&captured_log().0.lock().expect("log")).into_owned()
}

/// Fails if a secret stands in the log of any test so far.
pub(crate) fn assert_nothing_secret_logged(secrets: &[&str]) {
    let log = logged();
    for secret in [KEY, CLIENT_SECRET].iter().chain(secrets) {
        assert!(!log.contains(secret), "{secret} was logged");
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

fn captured_log() -> &'static Captured {
    static LOG: OnceLock<Captured> = OnceLock::new();
    LOG.get_or_init(|| {
        let captured = Captured::default();
        let _ = tracing_subscriber::fmt()
            .with_env_filter("trace")
            .with_writer(captured.clone())
            .with_ansi(false)
            .try_init();
        captured
    })
}

impl<'w> MakeWriter<'w> for Captured {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .map_err(|_| io::ErrorKind::Other)?
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

/// Sends, and reads the whole answer.
pub(crate) async fn got(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.expect("answered");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Got {
        status,
        headers,
        body,
    }
}

impl Got {
    /// A header's first value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// The stable code of a refusal, in whichever of its three shapes.
    pub(crate) fn code(&self) -> &str {
        let body = &self.body;
        let places = [
            &body["error"]["data"]["code"],
            &body["error"]["code"],
            &body["detail"]["error"],
        ];
        places.into_iter().find_map(Value::as_str).unwrap_or_default()
    }
}

impl TestGateway {
    /// The value of a line of `/metrics`; zero when there is none.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let page = self
            .http
            .get(self.url("/metrics"))
            .header("x-litellm-api-key", KEY)
            .send()
            .await
            .expect("answered");
        let page = page.text().await.expect("a page");
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Asks for a line of `/metrics` until it satisfies `enough`, or the test has failed.
    pub(crate) async fn until_metric(&self, series: &str, enough: impl Fn(u64) -> bool) {
        let reached = async { while !enough(self.metric(series).await) {} };
        let reached = tokio::time::timeout(vestibule_testkit::DEADLINE, reached).await;
        assert!(reached.is_ok(), "{series} never came to what was waited for");
    }
}

/// A POST of `message` as bytes on the wire.
pub(crate) fn wire_post(path: &str, message: &Value) -> String {
    let body = message.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-litellm-api-key: {KEY}\r\n\
         accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

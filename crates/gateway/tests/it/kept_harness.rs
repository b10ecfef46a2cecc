//! A small identity provider that people sign in at, strict about what a gateway may do wrong: every refresh token
//! counts once, and a second use ends its family (RFC 9700 section 4.14.2). Its answers can be held at a gate, before
//! or after they count, and fail on request. And a client that signs in and calls with nothing but the gateway key.

use crate::harness::{CLIENT_SECRET, Got, KEY, Start, TestGateway, echo, entry, got, personal};
use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use url::Url;
use vestibule_store::MasterKeys;
use vestibule_testkit::{DEADLINE, Upstream};

/// The client's own redirect URI.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:50000/cb";
const VERIFIER: &str = "canary-verifier-0123456789-0123456789-0123456789";

/// What happened at the provider so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Token requests that arrived.
    pub(crate) asked: usize,
    /// Refresh requests among them.
    pub(crate) refreshing: usize,
    /// Codes that became tokens.
    pub(crate) exchanged: usize,
    /// Refresh tokens that became tokens.
    pub(crate) refreshed: usize,
    /// Refresh tokens that were shown a second time.
    pub(crate) reused: usize,
    /// Clients that were registered.
    pub(crate) registered: usize,
}

/// What goes wrong at the token endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// An error of RFC 6749, or of the provider's own.
    Error(u16, &'static str),
    /// A status and a page.
    Page(u16),
    /// No answer.
    Hang,
}

/// Where an answer is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before anything counts.
    Before,
    /// When it counts, and is not sent yet.
    After,
}

/// An answer that waits.
#[derive(Clone)]
pub(crate) struct Hold {
    stage: Stage,
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Hold {
    /// Resolves once a request waits here.
    pub(crate) async fn arrived(&self) {
        let permit = timeout(DEADLINE, self.arrived.acquire()).await;
        permit.expect("a request in time").expect("open").forget();
    }

    /// Lets it go, and all that come.
    pub(crate) fn open(&self) {
        self.open.add_permits(10_000);
    }
}

struct Access {
    family: usize,
    until: Option<u64>,
}

struct Issued {
    client: String,
    redirect_uri: String,
    challenge: String,
}

/// How the provider behaves; a test sets what differs.
pub(crate) struct Manners {
    pub(crate) expires_in: Option<Value>,
    pub(crate) refresh_tokens: bool,
    pub(crate) rotates: bool,
    pub(crate) fault: Option<Fault>,
    /// Further members of a token answer.
    pub(crate) extra: Map<String, Value>,
    /// The configured client too is refused.
    pub(crate) knows_nobody: bool,
}

struct State {
    manners: Manners,
    now: u64,
    codes: HashMap<String, Issued>,
    clients: HashSet<String>,
    access: HashMap<String, Access>,
    /// Refresh tokens with their family, and whether they were used.
    refresh: HashMap<String, (usize, bool)>,
    ended: HashSet<usize>,
    families: usize,
    issued: Vec<String>,
    hold: Option<Hold>,
    /// What the MCP server was shown last.
    shown: String,
}

struct Shared {
    state: Mutex<State>,
    counts: watch::Sender<Counts>,
}

/// A running provider.
pub(crate) struct Provider {
    base: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// Starts one that rotates refresh tokens and gives tokens for five minutes.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                manners: Manners {
                    expires_in: Some(json!(300)),
                    refresh_tokens: true,
                    rotates: true,
                    fault: None,
                    extra: Map::new(),
                    knows_nobody: false,
                },
                now: 0,
                codes: HashMap::new(),
                clients: HashSet::new(),
                access: HashMap::new(),
                refresh: HashMap::new(),
                ended: HashSet::new(),
                families: 0,
                issued: Vec::new(),
                hold: None,
                shown: String::new(),
            }),
            counts: watch::Sender::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { base, shared, task }
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Resolves once the counts are so.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Counts) -> bool) {
        let mut counts = self.shared.counts.subscribe();
        let reached = timeout(DEADLINE, counts.wait_for(is)).await.is_ok();
        assert!(reached, "never {what}: {:?}", self.counts());
    }

    /// Changes how it behaves.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.shared.state().manners);
    }

    /// Token requests wait from now on.
    pub(crate) fn hold(&self, stage: Stage) -> Hold {
        let hold = Hold {
            stage,
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        };
        self.shared.state().hold = Some(hold.clone());
        hold
    }

    /// Token requests that come from now on do not wait.
    pub(crate) fn hold_no_more(&self) {
        self.shared.state().hold = None;
    }

    /// Time goes on.
    pub(crate) fn advance(&self, seconds: u64) {
        self.shared.state().now += seconds;
    }

    /// Access tokens so far count no more; refresh tokens do.
    pub(crate) fn end_access(&self) {
        self.shared.state().access.clear();
    }

    /// All that anybody was granted so far is over.
    pub(crate) fn end_grants(&self) {
        let mut state = self.shared.state();
        let families = 0..state.families;
        state.ended.extend(families);
    }

    /// Registrations so far are forgotten.
    pub(crate) fn forget_clients(&self) {
        self.shared.state().clients.clear();
    }

    /// Every access token so far, oldest first.
    pub(crate) fn issued(&self) -> Vec<String> {
        self.shared.state().issued.clone()
    }

    pub(crate) fn last(&self) -> String {
        self.issued().pop().expect("a token")
    }

    /// What the MCP server was shown last.
    pub(crate) fn shown(&self) -> String {
        self.shared.state().shown.clone()
    }

    /// Every refresh token so far.
    pub(crate) fn refresh_tokens(&self) -> Vec<String> {
        self.shared.state().refresh.keys().cloned().collect()
    }

    /// Whether an access token counts now.
    pub(crate) fn accepts(&self) -> impl Fn(&str) -> bool + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move |token| {
            let mut state = shared.state();
            token.clone_into(&mut state.shown);
            state.access.get(token).is_some_and(|access| {
                !state.ended.contains(&access.family) && access.until.is_none_or(|until| state.now < until)
            })
        }
    }

    /// What a person does who is sent to `location`: the path and query that the browser comes back with.
    pub(crate) fn approve(&self, location: &str) -> String {
        let url = Url::parse(location).expect("a URL");
        assert!(
            location.starts_with(&format!("{}/authorize", self.base)),
            "{location}"
        );
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let mut state = self.shared.state();
        let code = format!("code-{}", state.codes.len() + 1);
        let client = query["client_id"].clone();
        assert!(state.knows(&client), "{client}");
        assert_eq!(query["code_challenge_method"], "S256");
        let back = Url::parse(&query["redirect_uri"]).expect("a URL");
        state.codes.insert(
            code.clone(),
            Issued {
                client,
                redirect_uri: query["redirect_uri"].clone(),
                challenge: query["code_challenge"].clone(),
            },
        );
        format!("{}?code={code}&state={}", back.path(), query["state"])
    }

    /// An entry of `mcp_servers` whose clients are registered; `more` are further fields, one a line.
    pub(crate) fn registered(&self, name: &str, upstream: &Upstream, more: &str) -> String {
        let (base, url) = (&self.base, upstream.url());
        let fields = format!(
            "url: {url}\nauth_type: oauth2\nauthorization_url: {base}/authorize\ntoken_url: {base}/token\n\
             registration_url: {base}/register\n{more}"
        );
        entry(name, &fields)
    }

    /// An entry with a configured client.
    pub(crate) fn configured(&self, name: &str, upstream: &Upstream, more: &str) -> String {
        let (base, url) = (&self.base, upstream.url());
        let fields = format!(
            "url: {url}\nauth_type: oauth2\nauthorization_url: {base}/authorize\ntoken_url: {base}/token\n\
             client_id: canary-id\nclient_secret: {CLIENT_SECRET}\nconsent: never\n{more}"
        );
        entry(name, &fields)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        match path.as_str() {
            "/register" => {
                let mut state = self.state();
                let id = format!("client-{}", self.counts.borrow().registered + 1);
                state.clients.insert(id.clone());
                drop(state);
                self.count(|counts| counts.registered += 1);
                json_answer(
                    201,
                    &json!({"client_id": id, "token_endpoint_auth_method": "none"}),
                )
            }
            "/token" => self.token(&body).await,
            _ => json_answer(404, &json!({})),
        }
    }

    async fn token(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let refreshes = form
            .get("grant_type")
            .is_some_and(|grant| grant == "refresh_token");
        self.count(|counts| {
            counts.asked += 1;
            counts.refreshing += usize::from(refreshes);
        });
        let hold = self.state().hold.clone();
        self.held(hold.as_ref(), Stage::Before).await;
        let fault = self.state().manners.fault;
        match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Page(status)) => {
                let mut page = Response::new(Full::from("<html>not now</html>"));
                *page.status_mut() = status.try_into().expect("a status");
                let kind = http::HeaderValue::from_static("text/html");
                page.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                page
            }
            Some(Fault::Error(status, error)) => json_answer(status, &json!({"error": error})),
            None => {
                let (status, document) = self.grant(&form);
                self.held(hold.as_ref(), Stage::After).await;
                json_answer(status, &document)
            }
        }
    }

    async fn held(&self, hold: Option<&Hold>, stage: Stage) {
        let Some(hold) = hold.filter(|hold| hold.stage == stage) else {
            return;
        };
        hold.arrived.add_permits(1);
        hold.open.acquire().await.expect("open").forget();
    }

    fn grant(&self, form: &HashMap<String, String>) -> (u16, Value) {
        let mut state = self.state();
        let refuse = |status, error: &str| (status, json!({"error": error}));
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if !state.knows(field("client_id")) {
            return refuse(401, "invalid_client");
        }
        if field("client_id") == "canary-id" && field("client_secret") != CLIENT_SECRET {
            return refuse(401, "invalid_client");
        }
        let (family, refreshed) = match field("grant_type") {
            "authorization_code" => {
                let Some(code) = state.codes.remove(field("code")) else {
                    return refuse(400, "invalid_grant");
                };
                let sum = digest::digest(&digest::SHA256, field("code_verifier").as_bytes());
                let right = code.challenge == BASE64_URL_SAFE_NO_PAD.encode(sum)
                    && code.client == field("client_id")
                    && code.redirect_uri == field("redirect_uri");
                if !right {
                    return refuse(400, "invalid_grant");
                }
                state.families += 1;
                (state.families - 1, None)
            }
            "refresh_token" => match state.refresh.get(field("refresh_token")).copied() {
                Some((family, _)) if state.ended.contains(&family) => return refuse(400, "invalid_grant"),
                Some((family, true)) => {
                    state.ended.insert(family);
                    drop(state);
                    self.count(|counts| counts.reused += 1);
                    return refuse(400, "invalid_grant");
                }
                Some((family, false)) => (family, Some(field("refresh_token").to_owned())),
                None => return refuse(400, "invalid_grant"),
            },
            _ => return refuse(400, "unsupported_grant_type"),
        };
        let document = state.issue(family, refreshed.as_deref());
        drop(state);
        self.count(|counts| match refreshed {
            Some(_) => counts.refreshed += 1,
            None => counts.exchanged += 1,
        });
        (200, document)
    }
}

impl State {
    fn knows(&self, client: &str) -> bool {
        !self.manners.knows_nobody && (client == "canary-id" || self.clients.contains(client))
    }

    fn issue(&mut self, family: usize, spent: Option<&str>) -> Value {
        let number = self.issued.len() + 1;
        let (access, refresh) = (
            format!("canary-access-{number}-of-{family}"),
            format!("canary-refresh-{number}-of-{family}"),
        );
        let life = self.manners.expires_in.as_ref().and_then(Value::as_u64);
        let until = life.filter(|life| *life > 0).map(|life| self.now + life);
        self.access.insert(access.clone(), Access { family, until });
        self.issued.push(access.clone());
        let mut document = json!({"access_token": access, "token_type": "Bearer", "scope": "mcp"});
        if let Some(life) = &self.manners.expires_in {
            document["expires_in"] = life.clone();
        }
        if self.manners.refresh_tokens && (spent.is_none() || self.manners.rotates) {
            self.refresh.insert(refresh.clone(), (family, false));
            document["refresh_token"] = refresh.into();
            if let Some(spent) = spent {
                self.refresh.insert(spent.to_owned(), (family, true));
            }
        }
        for (name, value) in &self.manners.extra {
            document[name] = value.clone();
        }
        document
    }
}

fn json_answer(status: u16, document: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(document.to_string()));
    *answer.status_mut() = status.try_into().expect("a status");
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(shared.answer(request).await) }
                    });
                    let stream = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A gateway as its clients reach it; it may be a process of its own.
#[derive(Clone)]
pub(crate) struct Door {
    http: reqwest::Client,
    base: String,
    /// By what name it is called, where that is not `base`.
    public: String,
    server: String,
}

/// A browser at the provider.
pub(crate) struct Away {
    /// Where it is.
    pub(crate) location: String,
    cookie: String,
    client_id: String,
}

/// A sign-in that came back to the client.
pub(crate) struct Code {
    code: String,
    pub(crate) client_id: String,
}

impl Door {
    pub(crate) fn new(base: impl Into<String>, server: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let base = base.into();
        Self {
            http: http.timeout(Duration::from_secs(60)).build().expect("client"),
            public: base.clone(),
            base,
            server: server.to_owned(),
        }
    }

    /// The door to the server `one`.
    pub(crate) fn of(gateway: &TestGateway) -> Self {
        Self::new(gateway.url(""), "one")
    }

    /// For a gateway that has `PROXY_BASE_URL`.
    pub(crate) fn called_as(self, public: &str) -> Self {
        Self {
            public: public.to_owned(),
            ..self
        }
    }

    pub(crate) fn to(&self, server: &str) -> Self {
        Self {
            server: server.to_owned(),
            ..self.clone()
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{}{path}", self.base, self.server)
    }

    /// Registers a client; its id.
    pub(crate) async fn register(&self) -> String {
        let metadata = json!({"client_name": "test", "redirect_uris": [REDIRECT]});
        let made = got(self.http.post(self.url("/register")).json(&metadata)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["client_id"].as_str().expect("an id").to_owned()
    }

    /// Sends a browser off.
    pub(crate) async fn authorize(&self, client_id: &str) -> Away {
        let sum = digest::digest(&digest::SHA256, VERIFIER.as_bytes());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(sum);
        let query = [
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT),
            ("state", "the-clients-state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let url = Url::parse_with_params(&self.url("/authorize"), query).expect("a URL");
        let answer = got(self.http.get(url)).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let cookie = answer.header("set-cookie").split(';').next().expect("a pair");
        Away {
            location: answer.header("location").to_owned(),
            cookie: cookie.to_owned(),
            client_id: client_id.to_owned(),
        }
    }

    /// The browser comes back with `callback`, from [`Provider::approve`].
    pub(crate) async fn back(&self, away: &Away, callback: &str) -> Code {
        let request = self.http.get(format!("{}{callback}", self.base));
        let answer = got(request.header("cookie", &away.cookie)).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = Url::parse(answer.header("location")).expect("a URL");
        assert!(location.as_str().starts_with(REDIRECT), "{location}");
        let query: HashMap<String, String> = location.query_pairs().into_owned().collect();
        assert_eq!(query["state"], "the-clients-state");
        Code {
            code: query["code"].clone(),
            client_id: away.client_id.clone(),
        }
    }

    /// The token request for a code, without a gateway key.
    pub(crate) fn token(&self, code: &Code) -> reqwest::RequestBuilder {
        self.http.post(self.url("/token")).form(&[
            ("grant_type", "authorization_code"),
            ("code", &code.code),
            ("redirect_uri", REDIRECT),
            ("client_id", &code.client_id),
            ("code_verifier", VERIFIER),
        ])
    }

    /// The token request with the gateway key.
    pub(crate) fn keyed_token(&self, code: &Code) -> reqwest::RequestBuilder {
        self.token(code)
            .header("x-litellm-api-key", format!("Bearer {KEY}"))
    }

    /// Up to the code.
    pub(crate) async fn signed_in(&self, provider: &Provider) -> Code {
        let client_id = self.register().await;
        let away = self.authorize(&client_id).await;
        self.back(&away, &provider.approve(&away.location)).await
    }

    /// A whole sign-in with the gateway key: its token answer.
    pub(crate) async fn sign_in(&self, provider: &Provider) -> Value {
        let code = self.signed_in(provider).await;
        let answer = got(self.keyed_token(&code)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// A POST of `message` without a key.
    pub(crate) fn post(&self, message: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(self.url("/mcp"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(message)
    }

    /// `tools/call echo` with nothing but the key.
    pub(crate) fn call(&self) -> reqwest::RequestBuilder {
        self.post(&echo("hello"))
            .header("x-litellm-api-key", format!("Bearer {KEY}"))
    }

    /// The answer to it.
    pub(crate) async fn called(&self) -> Got {
        got(self.call()).await
    }

    /// A call that works, or the test fails.
    pub(crate) async fn works(&self) {
        let answer = self.called().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["result"]["content"][0]["text"], "hello", "{answer:?}");
    }

    /// A call that is answered with the challenge to sign in.
    pub(crate) async fn wants_sign_in(&self, error: Option<&str>) -> Got {
        let answer = self.called().await;
        self.is_challenge(&answer, error);
        answer
    }

    /// Whether an answer is our challenge.
    pub(crate) fn is_challenge(&self, answer: &Got, error: Option<&str>) {
        assert_eq!(answer.status, 401, "{answer:?}");
        let challenge = answer.header("www-authenticate");
        let metadata = format!(
            "resource_metadata=\"{}/.well-known/oauth-protected-resource/{}/mcp\"",
            self.public, self.server
        );
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        assert!(challenge.contains(&metadata), "{challenge}");
        match error {
            Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{challenge}"),
            None => assert!(!challenge.contains("error="), "{challenge}"),
        }
        let code = if error.is_some() {
            "sign_in_ended"
        } else {
            "sign_in_required"
        };
        assert_eq!(answer.code(), code);
    }

    /// Calls until one is answered so; each call before must be answered somehow.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Got) -> bool) {
        let reached = async { while !is(&self.called().await) {} };
        assert!(timeout(DEADLINE, reached).await.is_ok(), "never {what}");
    }
}

/// A provider, its MCP server that takes only tokens that count, and a gateway before them.
pub(crate) struct Site {
    pub(crate) provider: Provider,
    pub(crate) upstream: Upstream,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let provider = Provider::start().await;
        let upstream = Upstream::start().await;
        upstream.accept_if(provider.accepts());
        Self { provider, upstream }
    }

    /// Time goes on for everybody.
    pub(crate) fn advance(&self, gateways: &[&TestGateway], seconds: u64) {
        self.provider.advance(seconds);
        for gateway in gateways {
            gateway.advance(seconds);
        }
    }

    /// The tokens that the MCP server was shown so far.
    pub(crate) fn shown(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        let tokens = requests.iter().filter_map(|request| request.bearer());
        tokens.map(str::to_owned).collect()
    }
}

/// A SQLite file with its keys, that gateways come and go on, and a back door to it.
pub(crate) struct Lasting(TempDir);

impl Lasting {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        keys.write_to(&directory.path().join("keys")).expect("written");
        Self(directory)
    }

    pub(crate) fn keys(&self) -> String {
        self.0.path().join("keys").display().to_string()
    }

    pub(crate) async fn gateway(&self, servers: &str) -> TestGateway {
        let database = format!("sqlite:{}", self.0.path().join("v.db").display());
        let start = Start::new(personal(servers, "")).database(database);
        start
            .environment("VESTIBULE_MASTER_KEY_FILE", &self.keys())
            .start()
            .await
    }

    /// Runs a statement past the gateway; gives how many rows it touched.
    pub(crate) async fn behind(&self, sql: &'static str) -> u64 {
        let options = SqliteConnectOptions::new().filename(self.0.path().join("v.db"));
        let mut connection = options.connect().await.expect("connects");
        let done = connection.execute(sql).await.expect("done");
        connection.close().await.expect("closed");
        done.rows_affected()
    }
}

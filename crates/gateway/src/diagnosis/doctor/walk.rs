//! The walk: what one step leaves for the next, what may be printed, and the limits of the whole.

use super::metadata::Learned;
use super::mode::{Mode, Stage, Way};
use super::{Finding, Report, Step, Verdict, advice::you};
use crate::app::{App, BuildError, Worker};
use crate::clock::Clock;
use crate::config::{
    Auth, Endpoint, ExchangeClient, ExchangeProfile, Problem, Program, ServerSettings, Settings, Severity,
};
use crate::diagnosis::mask;
use crate::http::relay::upstream_client::UpstreamClient;
use crate::issuer::upstream::{Discovery, Patience};
use crate::live::Live;
use crate::net::guarded::Guarded;
use crate::net::pool::Pool;
use crate::net::token_endpoint::TokenClient;
use crate::registry::Server;
use crate::web::error::shown;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use url::Url;
use vestibule_oauth::ClientSecret;
use vestibule_store::MasterKeys;

/// The longest that one step waits for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a step of several requests takes.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// The longest that a walk takes.
const WALK: Duration = Duration::from_secs(50);
/// The longest text that a finding repeats, in characters.
const SHOWN: usize = 600;
/// Below this many characters a secret is not looked for in what is shown, and below the second only as a word of its
/// own: it would stand everywhere.
const SECRET_FROM: (usize, usize) = (4, 8);

/// What a walk is asked to do beside looking.
#[derive(Debug, Default)]
pub struct Options {
    /// A person's access token: for the server, or to be exchanged.
    pub token: Option<SecretString>,
    /// Register a client at the provider.
    pub register: bool,
}

impl Options {
    /// An option without effect is refused.
    fn fit(&self, mode: &Mode) -> Result<(), Unusable> {
        let takes_token = matches!(mode, Mode::Person(_) | Mode::Brought(_) | Mode::Exchanged(_));
        if self.token.is_some() && !takes_token {
            return Err(Unusable::Option(
                "--token-env is for servers that people sign in to, and for those that the caller's token is for; this \
                 one has a credential of its own, or none",
            ));
        }
        let client = match mode {
            Mode::Person(sign_in) => sign_in.client.as_ref(),
            _ if self.register => {
                return Err(Unusable::Option(
                    "--register is for servers that people sign in to through the gateway",
                ));
            }
            _ => None,
        };
        if self.register && client.is_some() {
            return Err(Unusable::Option(
                "--register has nothing to try: this server has a configured client_id",
            ));
        }
        if let Some(token) = &self.token {
            HeaderValue::from_str(token.expose_secret()).map_err(|_| Unusable::Token)?;
        }
        Ok(())
    }
}

/// A walk cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no server of that name.
    #[error("no MCP server of this name")]
    NoServer,
    /// The parts cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The client for learned URLs cannot be made.
    #[error("the client for learned URLs cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// An option does not go with the server's mode.
    #[error("{0}")]
    Option(&'static str),
    /// The token cannot stand in a header.
    #[error("the token has a character that no header may carry")]
    Token,
}

/// What the server's endpoint said to a request without a credential.
#[derive(Debug, Default)]
pub(super) struct Unasked {
    pub(super) status: u16,
    pub(super) challenges: Vec<String>,
    /// Its `Date`, in seconds since 1970.
    pub(super) date: Option<u64>,
}

/// A walk under way.
pub(super) struct Walk {
    pub(super) mode: Mode,
    pub(super) way: Way,
    pub(super) options: Options,
    pub(super) worker: Arc<Worker>,
    pub(super) server: Arc<Server>,
    /// Its address with connections to it; none of a program's.
    pub(super) address: Option<(Url, Arc<Pool>)>,
    pub(super) guarded: Guarded,
    pub(super) tokens: TokenClient,
    pub(super) discovery: Discovery,
    /// Where the provider sends people back to, as far as the configuration says.
    pub(super) callback: Option<String>,
    /// The server has configured headers, which a request without a credential leaves out.
    pub(super) has_static_headers: bool,
    notes: Vec<(Severity, String)>,
    secrets: Vec<SecretString>,
    /// The gateway's own key, which admits the walk.
    pub(super) master_key: Option<HeaderValue>,
    pub(super) addresses: Vec<SocketAddr>,
    /// A connection was made.
    pub(super) reached: bool,
    pub(super) unasked: Option<Unasked>,
    pub(super) learned: Option<Learned>,
    /// There is no token to show.
    pub(super) token_failed: bool,
    /// The program's own.
    pub(super) program: Option<Arc<Program>>,
    pub(super) client: Option<UpstreamClient>,
}

/// A walk's report.
pub type Examined = Result<Report, Unusable>;

/// Walks to the server `name`. `findings` are those of the configuration.
pub async fn examine(
    settings: Settings,
    findings: &[Problem],
    keys: &MasterKeys,
    clock: Clock,
    name: &str,
    options: Options,
) -> Examined {
    let (mut walk, mut report) = Walk::begin(settings, findings, keys, clock.clone(), name, options)?;
    let stages = walk.mode.stages(walk.way);
    let mut under_way = Stage::Configuration;
    let mut began = clock.now();
    let whole = async {
        for stage in stages {
            under_way = stage;
            began = clock.now();
            if let Some(finding) = walk.take(stage).await {
                let took = began.until(clock.now());
                report.steps.push(walk.step(stage, finding, took));
            }
        }
        if let Some(client) = walk.client.take() {
            client.close().await;
        }
    };
    if timeout(WALK, whole).await.is_err() {
        let seen = format!("given up: the whole walk took more than {} s", WALK.as_secs());
        let took = began.until(clock.now());
        report.steps.push(Step {
            name: under_way.name(),
            verdict: Verdict::Fault,
            seen,
            took,
            tried: Vec::new(),
            advice: vec![you(
                "look at the steps before this one: what is slow there is slow for every call",
            )],
        });
    }
    // No program outlives the walk.
    walk.worker.app.bridges.shut_down().await;
    Ok(report)
}

impl Walk {
    fn begin(
        mut settings: Settings,
        findings: &[Problem],
        keys: &MasterKeys,
        clock: Clock,
        name: &str,
        options: Options,
    ) -> Result<(Self, Report), Unusable> {
        settings.servers.retain(|server| {
            server.name == name || server.alias.as_deref() == Some(name) || server.id == name
        });
        let server = settings.servers.first().ok_or(Unusable::NoServer)?;
        let mode = Mode::of(server);
        options.fit(&mode)?;
        let path = format!("mcp_servers.{}", server.name);
        let mine = |problem: &&Problem| {
            let rest = problem.path.strip_prefix(&path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let notes = findings.iter().filter(mine);
        let notes = notes.map(|problem| {
            let field = problem.path[path.len()..].trim_start_matches('.');
            let colon = if field.is_empty() { "" } else { ": " };
            (problem.severity, format!("{field}{colon}{}", problem.message))
        });
        let (url, program) = match &server.endpoint {
            Endpoint::Http(url) | Endpoint::Sse(url) => (Some(url.clone()), None),
            Endpoint::Stdio(program) => (None, Some(Arc::clone(program))),
        };
        let way = Way::of(&server.endpoint);
        let (shown_mode, server_name) = (mode.name(server), server.name.clone());
        let notes = notes.collect();
        let secrets = secrets(&settings, server, url.as_ref(), &options);
        let callback = settings
            .origin
            .base
            .as_ref()
            .map(|base| format!("{base}/callback"));
        let has_static_headers = !server.static_headers.is_empty();
        let master_key = settings
            .master_key
            .as_ref()
            .and_then(|key| HeaderValue::from_str(key.expose_secret()).ok());
        let master_key = master_key.map(|mut key| {
            key.set_sensitive(true);
            key
        });
        // Its own limits, so that a walk ends although operation may wait for long.
        settings.limits.connect_timeout = settings.limits.connect_timeout.min(PATIENCE);
        settings.limits.token_timeout = settings.limits.token_timeout.min(PATIENCE);
        let patience = settings.limits.token_timeout;
        let runtime = Handle::current();
        let app = App::build(settings, keys, clock.clone(), runtime.clone(), true, None)?;
        let worker = Arc::new(Worker::new(Live::fixed(app, runtime.clone())));
        let server = Arc::clone(worker.app.registry.all().first().ok_or(Unusable::NoServer)?);
        let report = Report {
            server: server_name,
            url: server.endpoint.shown(),
            mode: shown_mode,
            steps: Vec::new(),
        };
        let address = url.zip(server.endpoint.address()).map(|(url, address)| {
            let (origin, limits) = (address.origin.clone(), &worker.app.limits);
            let pool = Pool::new(origin, worker.app.tls.clone(), limits.connect_timeout);
            (url, Arc::new(pool))
        });
        let guarded = Guarded::new(patience, &worker.app.tls)?;
        let tokens = TokenClient::new(patience, worker.app.tls.clone())?;
        let discovery = Discovery::new(guarded.clone(), clock, runtime, Patience::default());
        let walk = Self {
            mode,
            way,
            options,
            worker,
            server,
            address,
            program,
            guarded,
            tokens,
            discovery,
            callback,
            has_static_headers,
            notes,
            secrets,
            master_key,
            addresses: Vec::new(),
            reached: false,
            unasked: None,
            learned: None,
            token_failed: false,
            client: None,
        };
        Ok((walk, report))
    }

    /// One step; `None` where there is nothing to take.
    async fn take(&mut self, stage: Stage) -> Option<Finding> {
        match stage {
            Stage::Configuration => Some(self.configuration()),
            Stage::Program => self.program(),
            Stage::Dns => self.dns().await,
            Stage::Connect => Some(self.connect().await),
            Stage::Tls => self.tls().await,
            Stage::Endpoint => self.endpoint().await,
            Stage::EventStream => self.event_stream().await,
            Stage::Challenge => self.challenge(),
            Stage::ResourceMetadata => self.resource_metadata().await,
            Stage::AuthorizationServer => self.authorization_server(),
            Stage::Endpoints => self.endpoints(),
            Stage::Grants => self.grants(),
            Stage::Pkce => self.pkce(),
            Stage::IssuerParameter => self.issuer_parameter(),
            Stage::Scopes => self.scopes(),
            Stage::ClientAuthentication => self.client_authentication(),
            Stage::Registration => self.registration().await,
            Stage::SubjectIssuer => self.subject_issuer().await,
            Stage::TokenEndpoint => self.token_endpoint().await,
            Stage::ResourceTokenEndpoint => self.resource_token_endpoint().await,
            Stage::SubjectToken => self.subject_token().await,
            Stage::Token => self.token().await,
            Stage::Initialize => Some(self.initialize().await),
            Stage::Tools => self.tools().await,
        }
    }

    fn configuration(&self) -> Finding {
        let warned = self
            .notes
            .iter()
            .any(|(severity, _)| *severity == Severity::Warning);
        let all: Vec<&str> = self.notes.iter().map(|(_, text)| text.as_str()).collect();
        match all.join("; ") {
            text if warned => Finding::warning(text),
            text if text.is_empty() => Finding::ok("read and judged"),
            text => Finding::ok(text),
        }
    }

    /// What may be printed of a finding: nothing secret, whoever said it.
    fn step(&self, stage: Stage, finding: Finding, took: Duration) -> Step {
        use super::Advice::{Configuration, Upstream, You};
        let fit = |text: &str| self.without_secrets(&shown(text, SHOWN));
        let advice = finding.advice.into_iter().map(|advice| match advice {
            Configuration { line, why } => Configuration {
                line: fit(&line),
                why: fit(&why),
            },
            Upstream { what } => Upstream { what: fit(&what) },
            You { what } => You { what: fit(&what) },
        });
        Step {
            name: stage.name(),
            verdict: finding.verdict,
            seen: fit(&finding.seen),
            took,
            tried: finding.tried.iter().map(|text| fit(text)).collect(),
            advice: advice.collect(),
        }
    }

    /// A server may repeat what it was shown in anything that it says.
    fn without_secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = masked(&text, secret.expose_secret());
        }
        text
    }

    /// Where the provider sends people back to; without a configured public origin that of a gateway on this machine.
    pub(super) fn callback(&self) -> String {
        let unknown = || "http://localhost:4000/callback".to_owned();
        self.callback.clone().unwrap_or_else(unknown)
    }

    /// From now on this is masked in whatever is shown.
    pub(super) fn keep_secret(&mut self, secret: &str) {
        remember(&mut self.secrets, secret);
    }
}

/// `text` without `secret`.
fn masked(text: &str, secret: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let (_, anywhere) = SECRET_FROM;
    let anywhere = secret.chars().count() >= anywhere;
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let (before, found) = rest.split_at(at);
        let after = &found[secret.len()..];
        let inside = before
            .chars()
            .next_back()
            .or(clean.chars().next_back())
            .is_some_and(word)
            || after.chars().next().is_some_and(word);
        clean.push_str(before);
        if anywhere || !inside {
            clean.push_str(&mask(secret.as_bytes()));
        } else {
            clean.push_str(secret);
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

fn remember(secrets: &mut Vec<SecretString>, secret: &str) {
    let parts = secret
        .split(' ')
        .filter(|part| !part.eq_ignore_ascii_case("bearer"));
    for part in std::iter::once(secret).chain(parts) {
        if part.chars().count() >= SECRET_FROM.0 {
            secrets.push(part.to_owned().into());
        }
    }
    // The longest first: one that stands within another must not cut it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
}

fn secrets(
    settings: &Settings,
    server: &ServerSettings,
    url: Option<&Url>,
    options: &Options,
) -> Vec<SecretString> {
    let mut secrets = Vec::new();
    for key in [&settings.master_key, &options.token].into_iter().flatten() {
        remember(&mut secrets, key.expose_secret());
    }
    // These need not be secrets, and a short one may stand in any URL.
    let headers = server.static_headers.iter();
    let headers = headers.filter_map(|(_, value)| value.to_str().ok().map(str::to_owned));
    let query = url
        .into_iter()
        .flat_map(|url| url.query_pairs().map(|(_, value)| value.into_owned()));
    let whole = url.and_then(|url| url.query().map(str::to_owned));
    let password = url.and_then(|url| url.password().map(str::to_owned));
    for value in headers.chain(query).chain(whole).chain(password) {
        if value.chars().count() >= SECRET_FROM.1 {
            remember(&mut secrets, &value);
        }
    }
    if let Endpoint::Stdio(program) = &server.endpoint {
        let values = program.env.iter().flat_map(|(_, value)| &value.0);
        let values = values.map(|(text, _)| text).chain(&program.args);
        for value in values.map(ExposeSecret::expose_secret) {
            if value.chars().count() >= SECRET_FROM.1 {
                remember(&mut secrets, value);
            }
        }
    }
    for secret in of_auth(&server.auth) {
        remember(&mut secrets, secret.expose_secret());
    }
    secrets
}

/// What the gateway shows the server or a token endpoint, as it is sent.
fn of_auth(auth: &Auth) -> Vec<SecretString> {
    let sent = |id: &str, secret: Option<&SecretString>| {
        let client = secret.map(|secret| ClientSecret {
            id: id.to_owned(),
            secret: secret.clone(),
        });
        client
            .map(|client| client.sent_secrets().to_vec())
            .unwrap_or_default()
    };
    let of_client = |client: &ExchangeClient| match client {
        ExchangeClient::Shared(client) => sent(&client.id, client.secret.as_ref()),
        // An assertion is made for one request, and is good for no other.
        ExchangeClient::Key(_) => Vec::new(),
    };
    match auth {
        Auth::None | Auth::Byok { .. } | Auth::Passthrough { bridge: None, .. } => Vec::new(),
        Auth::Static { value, .. } => vec![value.to_str().unwrap_or_default().to_owned().into()],
        Auth::ClientCredentials { request, .. } => of_client(&request.client),
        Auth::AuthorizationCode(sign_in)
        | Auth::Passthrough {
            bridge: Some(sign_in),
            ..
        } => match &sign_in.client {
            Some(client) => sent(&client.id, client.secret.as_ref()),
            None => Vec::new(),
        },
        Auth::AwsSigV4(settings) => {
            let token = settings.session_token.iter().cloned();
            token.chain([settings.secret_access_key.clone()]).collect()
        }
        Auth::Exchange(exchange) => {
            let mut secrets = of_client(&exchange.client);
            match &exchange.profile {
                ExchangeProfile::Rfc8693 {
                    actor: Some((token, _)),
                } => secrets.push(token.clone()),
                ExchangeProfile::IdJag { client, .. } => secrets.extend(of_client(client)),
                ExchangeProfile::Rfc8693 { actor: None } | ExchangeProfile::EntraObo => {}
            }
            if let Some((_, request)) = &exchange.fallback {
                secrets.extend(of_client(&request.client));
            }
            secrets
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_and_words_that_look_like_one_are_not() {
        for (text, secret, expected) in [
            (
                "you sent canary-0123456789 twice: canary-0123456789",
                "canary-0123456789",
                "you sent **** twice: ****",
            ),
            ("xcanary-0123456789x", "canary-0123456789", "x****x"),
            ("client_secret: secret", "secret", "client_secret: ****"),
            ("secret", "secret", "****"),
            ("secrets, (secret)", "secret", "secrets, (****)"),
        ] {
            assert_eq!(masked(text, secret), expected);
        }
        let mut secrets = Vec::new();
        remember(&mut secrets, "Bearer abcdefgh");
        remember(&mut secrets, "abc");
        let all: Vec<_> = secrets.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(all, ["Bearer abcdefgh", "abcdefgh"]);
    }
}

//! `vestibule doctor`, the real binary: what it says about servers that are well and servers that are not, and that
//! the line it advises mends the configuration.

use crate::by_hand::{ByHand, Nobody};
use crate::child::{ConfigFile, Finished, run};
use crate::harness::{CLIENT_SECRET, KEY, entry, keyed, machine};
use serde_json::{Value, json};
use vestibule_testkit::{Answer, Idp, Provider, Reply, Upstream};

/// The access token of a person, in the variable `PERSON`.
pub(crate) const PERSON: &str = "canary-persons-token-0123456789";

/// One run with its document.
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    pub(crate) document: Value,
    pub(crate) whole: String,
}

impl Seen {
    pub(crate) fn step(&self, name: &str) -> &Value {
        let steps = self.document["steps"].as_array().expect("steps");
        let found = steps.iter().find(|step| step["name"] == name);
        found.unwrap_or_else(|| panic!("no step {name}\n{}", self.whole))
    }

    pub(crate) fn verdict(&self, name: &str) -> &str {
        self.step(name)["verdict"].as_str().expect("a verdict")
    }

    pub(crate) fn seen(&self, name: &str) -> &str {
        self.step(name)["seen"].as_str().expect("what was seen")
    }

    /// The lines of the configuration that a step advises.
    pub(crate) fn lines(&self, name: &str) -> Vec<&str> {
        let advice = self.step(name)["advice"].as_array();
        let advice = advice.into_iter().flatten();
        advice.filter_map(|advice| advice["line"].as_str()).collect()
    }

    /// Fails unless this step is the first fault, and advises this line.
    pub(crate) fn fault(&self, name: &str, line: &str) {
        let steps = self.document["steps"].as_array().expect("steps");
        let first = steps.iter().find(|step| step["verdict"] == "fault");
        let first = first.map(|step| step["name"].as_str().expect("a name"));
        assert_eq!((self.code, first), (Some(1), Some(name)), "{}", self.whole);
        assert_eq!(self.document["ok"], false);
        assert!(self.lines(name).contains(&line), "{line}\n{}", self.whole);
    }

    pub(crate) fn well(&self) {
        assert_eq!(self.code, Some(0), "{}", self.whole);
        assert_eq!(self.document["ok"], true, "{}", self.whole);
    }
}

/// Fails if anything that is nobody's business is in there.
pub(crate) fn nothing_secret(said: &Finished) {
    for secret in [
        KEY,
        CLIENT_SECRET,
        PERSON,
        "canary-access",
        "canary-registered",
        "canary-query",
    ] {
        assert!(
            !said.out.contains(secret) && !said.err.contains(secret),
            "{secret}\n{said:?}"
        );
    }
}

pub(crate) async fn doctor(config: &str, more: &[&str]) -> Finished {
    let file = ConfigFile::new(config);
    let arguments = [&["doctor", "--config", file.path()], more].concat();
    let said = run(&arguments, &[("PERSON", PERSON), ("MCP_CLIENT_ID", "by-hand")]).await;
    nothing_secret(&said);
    said
}

pub(crate) async fn examined(entry: &str, more: &[&str]) -> Seen {
    let said = doctor(&keyed(entry), &[&["one", "--json"], more].concat()).await;
    let document = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}\n{said:?}"));
    Seen {
        code: said.code,
        document,
        whole: said.out,
    }
}

/// The entry with this line, in place of one of the same name.
pub(crate) fn with(entry: &str, line: &str) -> String {
    let name = format!("    {}:", line.split(':').next().expect("a name"));
    let mut kept: String = entry
        .split_inclusive('\n')
        .filter(|old| !old.starts_with(&name))
        .collect();
    kept.push_str(&format!("    {line}\n"));
    kept
}

pub(crate) fn without(entry: &str, name: &str) -> String {
    let name = format!("    {name}:");
    entry
        .split_inclusive('\n')
        .filter(|old| !old.starts_with(&name))
        .collect()
}

/// A server that takes the tokens of this token endpoint alone.
pub(crate) async fn machines() -> (Idp, Upstream, String) {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept_if(idp.issued());
    let entry = machine("one", &upstream.url(), &idp.url(), "");
    (idp, upstream, entry)
}

/// A server to which people sign in at this provider, and its entry with a configured client; `PROVIDER` in `more` is
/// the provider's issuer.
pub(crate) async fn people(more: &str) -> (Provider, Upstream, String) {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    upstream.accept(PERSON);
    provider.add_client("shared", Some(CLIENT_SECRET));
    let more = more.replace("PROVIDER", &provider.issuer());
    let fields = format!(
        "url: {}\nauth_type: oauth2\nclient_id: shared\nclient_secret: {CLIENT_SECRET}\n{more}",
        upstream.url()
    );
    (provider, upstream, entry("one", &fields))
}

/// Without a configured client.
pub(crate) fn unregistered(upstream: &Upstream, more: &str) -> String {
    entry(
        "one",
        &format!("url: {}\nauth_type: oauth2\n{more}", upstream.url()),
    )
}

pub(crate) fn at(upstream: &Upstream, path: &'static str, answer: impl Fn() -> Answer, times: usize) {
    for _ in 0..times {
        upstream.push_when(move |request| request.path() == path, answer());
    }
}

#[tokio::test]
async fn a_machines_server_that_is_well() {
    let (idp, upstream, entry) = machines().await;
    upstream.set_session(Some("session-1"));
    let seen = examined(&entry, &[]).await;
    seen.well();
    for step in [
        "dns",
        "connect",
        "endpoint",
        "challenge",
        "token",
        "initialize",
        "tools",
    ] {
        assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
    }
    assert_eq!(seen.seen("token"), "a Bearer token for 3600 s");
    assert_eq!(
        seen.seen("initialize"),
        "revision 2025-11-25, testkit 0, with a session"
    );
    assert_eq!(seen.seen("tools"), "1");
    for token in idp.tokens() {
        assert!(!seen.whole.contains(&token));
    }
    upstream.assert_never_seen(KEY);
    // The session that the walk began is ended.
    let requests = upstream.requests();
    let last = requests.last().expect("requests");
    assert_eq!(
        (last.method.as_str(), last.header("mcp-session-id")),
        ("DELETE", Some("session-1"))
    );
}

#[tokio::test]
async fn a_server_of_people_that_is_well_with_and_without_a_token() {
    let (provider, upstream, entry) = people("scopes: ['mcp:read']\nissuer: PROVIDER").await;
    let seen = examined(&entry, &[]).await;
    seen.well();
    for step in [
        "resource_metadata",
        "authorization_server",
        "endpoints",
        "pkce",
        "issuer_parameter",
        "scopes",
        "client_authentication",
        "registration",
        "token",
    ] {
        assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
    }
    assert_eq!(seen.verdict("initialize"), "skipped");
    assert!(seen.seen("initialize").contains("--token-env"), "{}", seen.whole);
    upstream.assert_never_seen(PERSON);

    let seen = examined(&entry, &["--token-env", "PERSON"]).await;
    seen.well();
    assert_eq!((seen.verdict("initialize"), seen.seen("tools")), ("ok", "1"));
    for peer in [&*provider, &*upstream] {
        peer.assert_never_seen(KEY);
    }
    provider.assert_never_seen(PERSON);
    upstream.assert_never_seen(CLIENT_SECRET);
    assert_eq!(provider.tokens(), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_listens_and_nobody_is_known_by_that_name() {
    let seen = examined(&entry("one", &format!("url: {}", Nobody::new().url())), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("connect")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(
        seen.seen("connect").contains("connection refused"),
        "{}",
        seen.whole
    );
    assert_eq!(seen.verdict("initialize"), "skipped");

    let seen = examined(&entry("one", "url: https://nowhere.invalid/mcp"), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("dns")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn who_never_answers_is_not_waited_for_longer_than_operation_waits() {
    let limits = "vestibule:\n  limits: {connect_timeout: 0.2, token_timeout: 0.2}\n";
    let silent = ByHand::start().await;
    let secure = format!("url: https://127.0.0.1:{}/mcp", silent.addr.port());
    let mute = Idp::start().await;
    mute.set_default(Reply::Hang);
    let upstream = Upstream::start().await;
    let slow = Upstream::start().await;
    slow.push_for("tools/list", Answer::Hang);
    for (entry, step) in [
        (entry("one", &secure), "tls"),
        (silent.entry("one", "auth_type: oauth2\ntimeout: 0.2"), "endpoint"),
        (machine("one", &upstream.url(), &mute.url(), ""), "token"),
        (
            entry("one", &format!("url: {}\ntimeout: 0.2", slow.url())),
            "tools",
        ),
    ] {
        let said = doctor(&format!("{}{limits}", keyed(&entry)), &["one", "--json"]).await;
        let document: Value = serde_json::from_str(&said.out).expect("a document");
        let steps = document["steps"].as_array().expect("steps");
        let first = steps
            .iter()
            .find(|step| step["verdict"] == "fault")
            .expect("a fault");
        assert_eq!(
            (said.code, &first["name"]),
            (Some(1), &json!(step)),
            "{}",
            said.out
        );
        let spent: u64 = steps
            .iter()
            .filter_map(|step| step["milliseconds"].as_u64())
            .sum();
        assert!(spent < 5_000, "{spent}\n{}", said.out);
    }
}

#[tokio::test]
async fn a_redirect_to_elsewhere_and_the_line_that_goes_there() {
    let (real, moved) = (Upstream::start().await, Upstream::start().await);
    let location = real.url();
    let redirect = || Answer::Redirect {
        status: 308,
        location: location.clone(),
    };
    at(&moved, "/mcp", redirect, 8);
    let entry = entry("one", &format!("url: {}", moved.url()));
    let seen = examined(&entry, &[]).await;
    let line = format!("url: {location}");
    seen.fault("endpoint", &line);
    examined(&with(&entry, &line), &[]).await.well();

    // Within the origin it works, at a price.
    let slash = Upstream::start().await;
    at(
        &slash,
        "/mcp/",
        || Answer::Redirect {
            status: 307,
            location: "/mcp".into(),
        },
        8,
    );
    let seen = examined(
        &crate::harness::entry("one", &format!("url: {}/", slash.url())),
        &[],
    )
    .await;
    seen.well();
    assert_eq!(seen.verdict("endpoint"), "warning");
    assert_eq!(seen.lines("endpoint"), [format!("url: {}", slash.url())]);
}

#[tokio::test]
async fn a_page_for_people_is_no_endpoint() {
    let upstream = Upstream::start().await;
    at(&upstream, "/mcp", || Answer::Html, 8);
    let seen = examined(&entry("one", &format!("url: {}", upstream.url())), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("endpoint")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(seen.seen("endpoint").contains("not MCP"), "{}", seen.whole);
    let seen = examined(&entry("one", &format!("url: {}/nothing", upstream.base())), &[]).await;
    assert!(seen.seen("endpoint").contains("404"), "{}", seen.whole);
    assert_eq!((seen.code, seen.verdict("endpoint")), (Some(1), "fault"));
}

#[tokio::test]
async fn a_server_that_wants_what_nobody_configured() {
    let (_provider, upstream, _) = people("").await;
    let entry = entry("one", &format!("url: {}", upstream.url()));
    let seen = examined(&entry, &[]).await;
    seen.fault("initialize", "auth_type: oauth2");
    let seen = examined(&with(&entry, "auth_type: oauth2"), &["--token-env", "PERSON"]).await;
    seen.well();

    // Without metadata it is a credential by hand.
    let upstream = Upstream::start().await;
    upstream.accept("by-hand");
    let entry = crate::harness::entry("one", &format!("url: {}", upstream.url()));
    let seen = examined(&entry, &[]).await;
    seen.fault("initialize", "auth_type: bearer_token");
    let mended = with(&entry, "auth_type: bearer_token");
    examined(
        &with(&mended, "authentication_token: os.environ/MCP_CLIENT_ID"),
        &[],
    )
    .await
    .well();
    let seen = examined(
        &with(&mended, "authentication_token: canary-query-wrong-token"),
        &[],
    )
    .await;
    assert_eq!((seen.code, seen.verdict("initialize")), (Some(1), "fault"));
    assert!(
        seen.seen("initialize").starts_with("upstream_refused_credential"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn a_key_in_the_url_is_shown_nowhere() {
    let upstream = Upstream::start().await;
    upstream.accept(PERSON);
    let key = "canary-query-0123456789";
    upstream.describe(&json!({"resource": format!("{}?key={key}", upstream.base())}));
    let fields = format!(
        "url: {}?key={key}\nauth_type: oauth2\nclient_id: x",
        upstream.url()
    );
    let config = keyed(&entry("one", &fields));
    for more in [&["one"][..], &["one", "--json"]] {
        let said = doctor(&config, more).await;
        assert_eq!(said.code, Some(1), "{said:?}");
    }
    let told = upstream
        .requests()
        .iter()
        .filter(|request| request.query().iter().any(|(_, value)| value == key))
        .count();
    assert!(told > 0, "the endpoint is asked as configured");
}

#[tokio::test]
async fn a_machines_client_that_is_refused() {
    // It takes the secret by Basic alone, and says so in an error only.
    let (upstream, endpoint) = (Upstream::start().await, Upstream::start().await);
    upstream.accept("canary-access-machine");
    for _ in 0..8 {
        let basic = |request: &vestibule_testkit::Request| request.header("authorization").is_some();
        let token =
            json!({"access_token": "canary-access-machine", "token_type": "Bearer", "expires_in": 60});
        endpoint.push_when(basic, Answer::json(200, &token));
        let refused = json!({"error": "invalid_client", "error_description": format!("not {CLIENT_SECRET}")});
        endpoint.push_when(move |request| !basic(request), Answer::json(401, &refused));
    }
    let entry = machine("one", &upstream.url(), &format!("{}/token", endpoint.base()), "");
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "token_endpoint_auth_method: client_secret_basic");
    assert_eq!(seen.verdict("initialize"), "skipped");
    examined(
        &with(&entry, "token_endpoint_auth_method: client_secret_basic"),
        &[],
    )
    .await
    .well();
}

#[tokio::test]
async fn a_machines_scopes_and_resource() {
    let (idp, upstream, entry) = machines().await;
    upstream.describe(&json!({"resource": upstream.url(), "scopes_supported": ["mcp:read"]}));
    let mistaken = with(&entry, "scopes: [mcp-read]");
    idp.push(Reply::error(400, "invalid_scope"));
    let seen = examined(&mistaken, &[]).await;
    seen.fault("token", "scopes: ['mcp:read']");
    assert_eq!(seen.verdict("scopes"), "warning");
    examined(&with(&mistaken, "scopes: ['mcp:read']"), &[])
        .await
        .well();

    idp.push(Reply::error(400, "invalid_target"));
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "resource: auto");
    idp.push(Reply::error(400, "unauthorized_client"));
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "oauth2_flow: authorization_code");
}

#[tokio::test]
async fn a_machine_token_that_the_server_refuses() {
    let idp = Idp::start().await;
    let upstream = Upstream::start().await;
    upstream.accept("another's");
    upstream.describe(&json!({"resource": upstream.url(), "scopes_supported": ["mcp:read"]}));
    let entry = machine("one", &upstream.url(), &idp.url(), "");
    let seen = examined(&entry, &[]).await;
    seen.fault("initialize", "scopes: ['mcp:read']");
    assert!(
        seen.lines("initialize").contains(&"resource: auto"),
        "{}",
        seen.whole
    );
    for token in idp.tokens() {
        assert!(!seen.whole.contains(&token), "{}", seen.whole);
    }
}

#[tokio::test]
async fn a_machines_token_url_that_is_none() {
    let (idp, upstream, _) = machines().await;
    let base = upstream.base();
    let document = json!({"issuer": base, "authorization_endpoint": format!("{base}/authorize"), "token_endpoint": idp.url()});
    at(
        &upstream,
        "/.well-known/oauth-authorization-server",
        || Answer::json(200, &document),
        4,
    );
    let entry = machine("one", &upstream.url(), &format!("{base}/wrong"), "");
    let seen = examined(&entry, &[]).await;
    let line = format!("token_url: {}", idp.url());
    seen.fault("token", &line);
    examined(&with(&entry, &line), &[]).await.well();

    idp.set_default(Reply::Html);
    let seen = examined(&with(&entry, &line), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("token")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn a_server_that_repeats_what_it_was_shown() {
    let upstream = Upstream::start().await;
    upstream.accept(PERSON);
    let loud = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {
            "name": format!("I know {PERSON}\n\u{1b}[31mFAULT"), "version": PERSON,
        }},
    });
    let shown = |request: &vestibule_testkit::Request| {
        request.json()["method"] == "initialize" && request.bearer() == Some(PERSON)
    };
    upstream.push_when(shown, Answer::json(200, &loud));
    let fields = format!(
        "url: {}\nauth_type: bearer_token\nauthentication_token: {PERSON}",
        upstream.url()
    );
    let seen = examined(&entry("one", &fields), &[]).await;
    seen.well();
    assert_eq!(
        seen.seen("initialize"),
        "revision 2025-11-25, I know ****6789[31mFAULT ****6789, without a session"
    );
}

#[tokio::test]
async fn usage_and_configuration_are_another_exit_code() {
    let two = keyed(
        &[
            entry("github", "url: http://localhost:1/mcp"),
            entry("jira", "url: http://localhost:1/mcp\nalias: tickets"),
        ]
        .concat(),
    );
    for (arguments, expected) in [
        (
            &["githb"][..],
            "no MCP server is called githb; did you mean github? There are: github, jira, tickets",
        ),
        (
            &["github", "--token-env", "NOWHERE"],
            "the environment variable NOWHERE of --token-env is not set",
        ),
        (
            &["github", "--token-env", "PERSON"],
            "--token-env is for servers that people sign in to",
        ),
        (
            &["github", "--register"],
            "--register is for servers that people sign in to",
        ),
        (&[], "<SERVER>"),
    ] {
        let said = doctor(&two, arguments).await;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.err.contains(expected), "{expected}\n{said:?}");
    }
    let said = doctor(
        "mcp_servers:\n  one:\n    url: https://x.example/mcp\n    tokn_url: x\n",
        &["one"],
    )
    .await;
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
    assert!(
        said.err.contains(":4:5: error: mcp_servers.one.tokn_url"),
        "{said:?}"
    );
    let said = run(&["doctor", "--config", "/nowhere/config.yaml", "one"], &[]).await;
    assert_eq!(said.code, Some(2), "{said:?}");

    let (_provider, _upstream, entry) = people("").await;
    let said = doctor(&keyed(&entry), &["one", "--register"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[tokio::test]
async fn the_text_is_a_line_a_step_with_advice_below() {
    let (provider, upstream, entry) = people("").await;
    let slashed = format!("{}/", provider.issuer());
    upstream.describe(&json!({"resource": upstream.url(), "authorization_servers": [slashed]}));
    let said = doctor(&keyed(&entry), &["one"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[0],
        format!("mcp_servers.one (oauth2, authorization_code), {}", upstream.url())
    );
    let fault = lines
        .iter()
        .position(|line| line.starts_with("FAULT    authorization_server  "));
    let fault = fault.unwrap_or_else(|| panic!("{}", said.out));
    let advised = format!("> issuer: {}", provider.issuer());
    let below: Vec<_> = lines[fault + 1..]
        .iter()
        .take_while(|line| line.starts_with(' '))
        .collect();
    assert!(below.iter().any(|line| line.trim() == advised), "{}", said.out);
    assert!(said.out.contains("\n1 fault, "), "{}", said.out);
    assert!(
        said.out
            .ends_with("A line after > belongs into mcp_servers.one.\n"),
        "{}",
        said.out
    );
    assert!(!said.out.contains('\u{1b}'), "{}", said.out);
    // It binds nothing and keeps nothing.
    assert!(!said.err.contains("listening"), "{said:?}");
}

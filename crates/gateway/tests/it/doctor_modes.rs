//! `vestibule doctor` at servers of the other modes and transports: what is no fault there, what is, and the line that
//! mends it.

use crate::child::{ConfigFile, Finished, run};
use crate::doctor::{PERSON, Seen, at, examined, nothing_secret, people, with, without};
use crate::exchange::{SUBJECT, issued};
use crate::harness::{CLIENT_SECRET, KEY, entry, keyed};
use crate::stdio_peer;
use serde_json::{Value, json};
use vestibule::clock::Clock;
use vestibule_testkit::{Answer, Idp, Issuer, Opening, Provider, Reply, SigningKey, SseServer, Upstream};

/// By the clock of the program that is run, in seconds since 1970.
fn now() -> u64 {
    Clock::system().unix_seconds()
}

/// A run with more in the environment.
async fn examined_in(entry: &str, more: &[&str], environment: &[(&str, &str)]) -> Seen {
    let file = ConfigFile::new(&keyed(entry));
    let arguments = [&["doctor", "--config", file.path(), "one", "--json"], more].concat();
    let said: Finished = run(&arguments, environment).await;
    nothing_secret(&said);
    let document = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}\n{said:?}"));
    Seen {
        code: said.code,
        document,
        whole: said.out,
    }
}

/// Fails unless this step is a fault that somebody else has to mend.
fn theirs(seen: &Seen, step: &str, what: &str) {
    assert_eq!(
        (seen.code, seen.verdict(step)),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(seen.seen(step).contains(what), "{}", seen.whole);
    let advice = seen.step(step)["advice"].as_array().expect("advice");
    assert!(
        advice.iter().any(|one| one["who"] == "upstream"),
        "{}",
        seen.whole
    );
    assert_eq!(seen.lines(step), Vec::<&str>::new(), "{}", seen.whole);
}

async fn delegated(fields: &str) -> (Provider, Upstream, String) {
    let (provider, upstream, _) = people("").await;
    let entry = entry("one", &format!("url: {}\n{fields}", upstream.url()));
    (provider, upstream, entry)
}

#[tokio::test]
async fn a_401_is_what_a_passthrough_server_should_say() {
    for (fields, mode) in [
        (
            "auth_type: oauth2\ndelegate_auth_to_upstream: true",
            "oauth2, delegate_auth_to_upstream",
        ),
        ("auth_type: true_passthrough", "true_passthrough"),
        ("auth_type: oauth_delegate", "oauth_delegate"),
        (
            "auth_type: none\noauth_passthrough: true",
            "none, oauth_passthrough",
        ),
    ] {
        let (provider, upstream, entry) = delegated(fields).await;
        let seen = examined(&entry, &[]).await;
        seen.well();
        assert_eq!(seen.document["mode"], mode);
        for step in [
            "endpoint",
            "challenge",
            "authorization_server",
            "pkce",
            "registration",
        ] {
            assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
        }
        let copy = "the gateway's copy says resource http://localhost:4000/one/mcp";
        assert!(seen.seen("resource_metadata").contains(copy), "{}", seen.whole);
        assert_eq!(seen.verdict("initialize"), "skipped");
        let seen = examined(&entry, &["--token-env", "PERSON"]).await;
        seen.well();
        assert_eq!(seen.seen("tools"), "1");
        for peer in [&*provider, &*upstream] {
            peer.assert_never_seen(KEY);
        }
    }
}

#[tokio::test]
async fn what_the_operator_of_a_passthrough_server_has_to_mend() {
    let (provider, upstream, entry) = delegated("auth_type: true_passthrough").await;
    provider.set(|modes| modes.metadata = json!({"code_challenge_methods_supported": ["plain"]}));
    theirs(&examined(&entry, &[]).await, "pkce", "S256");
    provider.set(|modes| modes.metadata = json!({"code_challenge_methods_supported": null}));
    theirs(&examined(&entry, &[]).await, "pkce", "MCP clients stop there");
    provider.set(|modes| modes.metadata = json!({}));

    let slashed = format!("{}/", provider.issuer());
    upstream.describe(&json!({"resource": upstream.url(), "authorization_servers": [slashed]}));
    theirs(
        &examined(&entry, &[]).await,
        "authorization_server",
        "letter by letter",
    );
    upstream.describe(
        &json!({"resource": "https://elsewhere.example/mcp", "authorization_servers": [provider.issuer()]}),
    );
    let seen = examined(&entry, &[]).await;
    theirs(
        &seen,
        "resource_metadata",
        "it is about https://elsewhere.example/mcp",
    );
    assert!(
        seen.seen("resource_metadata")
            .contains("503 metadata_unavailable"),
        "{}",
        seen.whole
    );

    // No metadata, no challenge worth the name.
    let bare = Upstream::start().await;
    bare.accept(PERSON);
    for _ in 0..12 {
        bare.push_when(
            |request| request.bearer().is_none() && request.path() == "/mcp",
            Answer::raw(401, &[], b""),
        );
    }
    let seen = examined(
        &crate::harness::entry(
            "one",
            &format!("url: {}\nauth_type: true_passthrough", bare.url()),
        ),
        &[],
    )
    .await;
    theirs(&seen, "resource_metadata", "503 metadata_unavailable");
    assert_eq!(seen.verdict("challenge"), "warning", "{}", seen.whole);

    // A token that the server does not take is not a fault of the configuration.
    let (_provider, _upstream, entry) = delegated("auth_type: oauth_delegate").await;
    let seen = examined_in(
        &entry,
        &["--token-env", "OTHER"],
        &[("OTHER", "canary-query-other-token")],
    )
    .await;
    assert_eq!(
        (seen.code, seen.verdict("initialize")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(
        seen.seen("initialize").starts_with("callers_token_required"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn a_provider_without_registration_and_the_bridge() {
    let (provider, _upstream, entry) = delegated("auth_type: true_passthrough").await;
    provider.set(|modes| modes.registration = false);
    let seen = examined(&entry, &[]).await;
    seen.well();
    assert_eq!(seen.verdict("registration"), "warning");
    let lines = seen.lines("registration");
    assert_eq!(
        lines[..2],
        ["dcr_bridge: true", "client_id: os.environ/MCP_CLIENT_ID"]
    );
    provider.add_client("by-hand", None);
    let mended = lines[..2].iter().fold(entry, |entry, line| with(&entry, line));
    let seen = examined(&mended, &["--token-env", "PERSON"]).await;
    seen.well();
    assert_eq!(seen.document["mode"], "true_passthrough, dcr_bridge");
    for step in ["registration", "token", "initialize"] {
        assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
    }
}

/// How `idp` answers a token that nobody issued.
fn nobodys_get(idp: &Idp, reply: Reply) {
    idp.judge(move |request| {
        let shown = ["subject_token", "assertion"].map(|name| request.form_value(name).unwrap_or_default());
        let nobodys = shown.iter().any(|token| token.contains("doctor"));
        nobodys.then(|| reply.clone())
    });
}

struct Exchanging {
    idp: Idp,
    issuer: Issuer,
    upstream: Upstream,
    entry: String,
}

impl Exchanging {
    async fn start(more: &str) -> Self {
        let (idp, upstream) = (Idp::start().await, Upstream::start().await);
        upstream.accept_if(idp.issued());
        idp.set_default(issued(Some(json!(3600))));
        nobodys_get(&idp, Reply::error(400, "invalid_request"));
        let issuer = Issuer::start(SigningKey::ec("k1", "P-256")).await;
        let entry = entry(
            "one",
            &format!(
                "url: {}\nauth_type: oauth2_token_exchange\ntoken_exchange_endpoint: {}\nclient_id: canary-id\n\
                 client_secret: {CLIENT_SECRET}\nsubject_token_issuer: {}\nsubject_token_audience: gateway\n{more}",
                upstream.url(),
                idp.url(),
                issuer.issuer()
            ),
        );
        Self {
            idp,
            issuer,
            upstream,
            entry,
        }
    }

    fn token(&self, edits: &Value) -> String {
        let mut claims = json!({"sub": "alice", "aud": "gateway", "iat": now(), "exp": now() + 3600});
        for (name, value) in edits.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        self.issuer.token(&claims)
    }

    async fn examined(&self, entry: &str, token: &str) -> Seen {
        let seen = examined_in(entry, &["--token-env", "SUBJECT"], &[("SUBJECT", token)]).await;
        assert!(!seen.whole.contains(token), "{}", seen.whole);
        self.upstream.assert_never_seen(token);
        seen
    }
}

#[tokio::test]
async fn an_exchange_that_is_well() {
    let all = Exchanging::start("").await;
    let seen = examined(&all.entry, &[]).await;
    seen.well();
    assert!(
        seen.seen("subject_issuer").ends_with(": 1 key of use, for ES256"),
        "{}",
        seen.whole
    );
    assert!(
        seen.seen("token_endpoint")
            .ends_with("as it should (invalid_request)"),
        "{}",
        seen.whole
    );
    for step in ["subject_token", "initialize"] {
        assert_eq!(seen.verdict(step), "skipped");
    }
    let seen = all.examined(&all.entry, &all.token(&json!({}))).await;
    seen.well();
    for step in ["subject_token", "token", "initialize", "tools"] {
        assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
    }
    for token in all.idp.tokens() {
        assert!(!seen.whole.contains(&token), "{}", seen.whole);
    }
    assert_eq!(all.idp.tokens().len(), 1);
    all.upstream.assert_never_seen(KEY);
}

#[tokio::test]
async fn a_callers_token_that_does_not_count() {
    let all = Exchanging::start("").await;
    let other = all.token(&json!({"aud": "others"}));
    let seen = all.examined(&all.entry, &other).await;
    seen.fault("subject_token", "subject_token_audience: others");
    all.examined(&with(&all.entry, "subject_token_audience: others"), &other)
        .await
        .well();

    let slashed = with(
        &all.entry,
        &format!("subject_token_issuer: {}/", all.issuer.issuer()),
    );
    let seen = all.examined(&slashed, &all.token(&json!({}))).await;
    let line = format!("subject_token_issuer: {}", all.issuer.issuer());
    seen.fault("subject_issuer", &line);
    assert!(
        seen.lines("subject_token").contains(&line.as_str()),
        "{}",
        seen.whole
    );
    all.examined(&with(&slashed, &line), &all.token(&json!({})))
        .await
        .well();

    for (edits, what) in [
        (json!({"exp": now() - 5}), "it has expired"),
        (json!({"nbf": now() + 3600}), "it is not valid yet"),
    ] {
        let seen = all.examined(&all.entry, &all.token(&edits)).await;
        assert_eq!(
            (seen.code, seen.verdict("subject_token")),
            (Some(1), "fault"),
            "{}",
            seen.whole
        );
        assert!(seen.seen("subject_token").contains(what), "{}", seen.whole);
        assert_eq!(seen.verdict("initialize"), "skipped");
    }
    let evil = SigningKey::ec("k1", "P-256");
    let claims = json!({"iss": all.issuer.issuer(), "sub": "alice", "aud": "gateway", "exp": now() + 60});
    let seen = all.examined(&all.entry, &evil.token(&claims)).await;
    seen.fault("subject_token", "subject_token_jwks_url: 'https://…'");
    assert!(
        seen.seen("subject_token").contains("its signature does not hold"),
        "{}",
        seen.whole
    );
    let seen = all.examined(&all.entry, SUBJECT).await;
    assert!(
        seen.seen("subject_token").contains("no signed JSON Web Token"),
        "{}",
        seen.whole
    );
    let seen = all
        .examined(
            &without(
                &without(&all.entry, "subject_token_issuer"),
                "subject_token_audience",
            ),
            KEY,
        )
        .await;
    assert!(
        seen.seen("subject_token").contains("the gateway's own key"),
        "{}",
        seen.whole
    );
    all.idp.assert_never_seen(KEY);
    all.issuer.break_down(true);
    let seen = examined(&all.entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("subject_issuer")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn a_token_endpoint_that_does_not_exchange() {
    let all = Exchanging::start("").await;
    for (error, line) in [
        (
            "invalid_client",
            "token_endpoint_auth_method: client_secret_basic",
        ),
        ("unsupported_grant_type", "token_exchange_profile: entra_obo"),
    ] {
        nobodys_get(&all.idp, Reply::error(400, error));
        let seen = examined(&all.entry, &[]).await;
        seen.fault("token_endpoint", line);
        assert!(seen.seen("token_endpoint").contains(error), "{}", seen.whole);
        assert_eq!(seen.verdict("initialize"), "skipped");
    }
    nobodys_get(&all.idp, issued(Some(json!(60))));
    theirs(
        &examined(&all.entry, &[]).await,
        "token_endpoint",
        "one that nobody issued",
    );

    nobodys_get(&all.idp, Reply::error(400, "invalid_request"));

    // What answers is a page, and the issuer's metadata knows better.
    let page = Upstream::start().await;
    at(
        &page,
        "/login",
        || Answer::raw(200, &[("Content-Type", "text/html")], b"<html>"),
        4,
    );
    all.issuer.describe("token_endpoint", all.idp.url());
    let mistaken = with(
        &all.entry,
        &format!("token_exchange_endpoint: {}/login", page.base()),
    );
    let line = format!("token_exchange_endpoint: {}", all.idp.url());
    let seen = examined(&mistaken, &[]).await;
    seen.fault("token_endpoint", &line);
    all.examined(&with(&mistaken, &line), &all.token(&json!({})))
        .await
        .well();
    // Left out, the metadata names it.
    let seen = examined(&without(&all.entry, "token_exchange_endpoint"), &[]).await;
    seen.well();
    assert!(
        seen.seen("token_endpoint").contains("as the metadata of"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn entra_and_the_identity_assertion_grant() {
    let all = Exchanging::start("token_exchange_profile: entra_obo\nscopes: [api://mcp/.default]").await;
    let seen = examined(&all.entry, &[]).await;
    seen.well();
    assert_eq!(seen.document["mode"], "oauth2_token_exchange, entra_obo");
    nobodys_get(&all.idp, Reply::error(400, "unsupported_grant_type"));
    let seen = examined(&all.entry, &[]).await;
    seen.fault("token_endpoint", "# token_exchange_profile: (remove this line)");

    let (first, second, upstream) = (Idp::start().await, Idp::start().await, Upstream::start().await);
    first.set_default(Reply::error(400, "invalid_request"));
    second.set_default(Reply::error(400, "invalid_grant"));
    let entry = entry(
        "one",
        &format!(
            "url: {}\nauth_type: oauth2_id_jag\ntoken_exchange_endpoint: {}\nid_jag_resource_token_endpoint: {}\n\
             audience: https://as.example\nclient_id: canary-id\nclient_secret: {CLIENT_SECRET}\n\
             id_jag_resource_client_id: canary-there\nid_jag_resource_client_secret: {CLIENT_SECRET}",
            upstream.url(),
            first.url(),
            second.url()
        ),
    );
    let seen = examined(&entry, &[]).await;
    seen.well();
    assert_eq!(
        (
            seen.verdict("token_endpoint"),
            seen.verdict("resource_token_endpoint")
        ),
        ("ok", "ok")
    );
    second.set_default(Reply::error(401, "invalid_client"));
    let seen = examined(&entry, &[]).await;
    seen.fault(
        "resource_token_endpoint",
        "token_endpoint_auth_method: client_secret_basic",
    );
    assert!(seen.whole.contains("id_jag_resource_client_id"), "{}", seen.whole);
}

#[tokio::test]
async fn a_signature_that_is_refused() {
    let secret = "canary-query-aws-secret-0123456789";
    let signed = |upstream: &Upstream, id: &str| {
        let fields =
            format!("auth_type: aws_sigv4\naws_access_key_id: {id}\naws_secret_access_key: {secret}");
        entry("one", &format!("url: {}\n{fields}", upstream.url()))
    };
    let upstream = Upstream::start().await;
    // As AWS does: a 403 to whoever does not sign, and to a temporary key without what comes with it.
    for _ in 0..8 {
        let refused = |request: &vestibule_testkit::Request| request.header("x-amz-security-token").is_none();
        upstream.push_when(refused, Answer::json(403, &json!({"message": "Forbidden"})));
    }
    let entry = signed(&upstream, "ASIAEXAMPLE");
    let seen = examined(&entry, &[]).await;
    assert_eq!(seen.verdict("endpoint"), "ok", "{}", seen.whole);
    seen.fault("initialize", "aws_session_token: os.environ/AWS_SESSION_TOKEN");
    for part in [
        "upstream_refused_signature",
        "aws_region_name is us-east-1",
        "aws_service_name",
        "aws_secret_access_key",
    ] {
        assert!(seen.whole.contains(part), "{part}\n{}", seen.whole);
    }
    let mended = with(&entry, "aws_session_token: os.environ/AWS_SESSION_TOKEN");
    let token = ("AWS_SESSION_TOKEN", "canary-query-session-token");
    examined_in(&mended, &[], &[token]).await.well();

    // The server's clock is another one.
    let late = Upstream::start().await;
    for _ in 0..8 {
        let head = [
            ("Date", "Sat, 21 Nov 2009 19:17:55 GMT"),
            ("Content-Type", "application/json"),
        ];
        late.push(Answer::raw(403, &head, b"{}"));
    }
    let seen = examined(&signed(&late, "AKIAEXAMPLE"), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("initialize")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(seen.whole.contains("set this machine's clock"), "{}", seen.whole);
    upstream.assert_never_seen(secret);
}

#[tokio::test]
async fn event_streams_and_the_other_transport() {
    let server = SseServer::start().await;
    let sse = entry("one", &format!("url: {}\ntransport: sse", server.url()));
    let seen = examined(&sse, &[]).await;
    seen.well();
    assert_eq!(
        (seen.verdict("event_stream"), seen.seen("tools")),
        ("ok", "1"),
        "{}",
        seen.whole
    );

    // Each taken for the other.
    let http = without(&sse, "transport");
    examined(&http, &[]).await.fault("endpoint", "transport: sse");
    examined(&with(&http, "transport: sse"), &[]).await.well();
    let upstream = Upstream::start().await;
    let mistaken = entry("one", &format!("url: {}\ntransport: sse", upstream.url()));
    examined(&mistaken, &[])
        .await
        .fault("event_stream", "transport: http");
    examined(&with(&mistaken, "transport: http"), &[]).await.well();

    server.set_opening(Opening::Endpoint("https://elsewhere.example/messages".into()));
    let seen = examined(&sse, &[]).await;
    theirs(&seen, "event_stream", "another origin, https://elsewhere.example");
    assert_eq!(seen.verdict("initialize"), "skipped");

    // With a credential neither shows before initialize.
    let server = SseServer::start().await;
    server.accept(PERSON);
    let fields = format!(
        "url: {}\nauth_type: bearer_token\nauthentication_token: {PERSON}",
        server.url()
    );
    let seen = examined(&entry("one", &fields), &[]).await;
    seen.fault("initialize", "transport: sse");
    examined(&with(&entry("one", &fields), "transport: sse"), &[])
        .await
        .well();
}

fn programs(command: &str) -> [(&'static str, &str); 3] {
    [
        ("VESTIBULE_ENABLE_STDIO", "true"),
        ("VESTIBULE_STDIO_EXTRA_COMMANDS", command),
        ("PATH", "/usr/bin:/bin"),
    ]
}

#[tokio::test]
async fn a_program_that_serves_and_one_that_does_not() {
    let command = stdio_peer::program();
    let marker = format!("canary-query-{}", vestibule_testkit::random_hex());
    let entry = stdio_peer::entry(
        "one",
        &format!("env: {{CANARY_TOKEN: {marker}, PEER_MODE: parent}}"),
    );
    let seen = examined_in(&entry, &[], &programs(&command)).await;
    seen.well();
    for step in ["program", "initialize", "tools"] {
        assert_eq!(seen.verdict(step), "ok", "{step}\n{}", seen.whole);
    }
    assert!(
        seen.document["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("stdio:"))
    );
    assert_eq!(running_with(&marker), Vec::<String>::new());

    let entry = stdio_peer::entry(
        "one",
        &format!("env: {{CANARY_TOKEN: {marker}, PEER_MODE: exits}}"),
    );
    let seen = examined_in(&entry, &[], &programs(&command)).await;
    assert_eq!(
        (seen.code, seen.verdict("initialize")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    let tail = seen.step("initialize")["tried"].to_string();
    assert!(
        tail.contains("standard error: started with token") && tail.contains("****"),
        "{tail}"
    );

    let entry = stdio_peer::entry(
        "one",
        &format!("timeout: 1\nenv: {{CANARY_TOKEN: {marker}, PEER_MODE: deaf}}"),
    );
    let seen = examined_in(&entry, &[], &programs(&command)).await;
    assert_eq!(
        (seen.code, seen.verdict("initialize")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert_eq!(running_with(&marker), Vec::<String>::new());

    let entry = stdio_peer::entry("one", "env: {CANARY_TOKEN: '${X-One-Token}'}");
    let seen = examined_in(&entry, &[], &programs(&command)).await;
    assert_eq!(
        (seen.code, seen.verdict("initialize")),
        (Some(0), "skipped"),
        "{}",
        seen.whole
    );
    assert!(seen.seen("initialize").contains("x-one-token"), "{}", seen.whole);
}

/// Processes with `marker` in their environment.
fn running_with(marker: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("processes");
    let all = all.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    all.filter(|path| {
        std::fs::read(path.join("environ"))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(marker))
    })
    .map(|path| path.display().to_string())
    .collect()
}

#[tokio::test]
async fn a_program_that_is_not_to_be_found_or_not_to_be_run() {
    // Installed below the home directory, where the gateway's PATH does not lead.
    let home = tempfile::tempdir().expect("a directory");
    let bin = home.path().join(".local/bin");
    std::fs::create_dir_all(&bin).expect("a directory");
    let installed = bin.join("peer-server");
    std::os::unix::fs::symlink(stdio_peer::program(), &installed).expect("a link");
    let installed = installed.to_str().expect("text");
    let entry = with(&stdio_peer::entry("one", ""), "command: peer-server");
    let place = home.path().to_str().expect("text");
    let allowed = format!("peer-server,{installed}");
    let environment = [&programs(&allowed)[..], &[("HOME", place)]].concat();
    let seen = examined_in(&entry, &[], &environment).await;
    let line = format!("command: '{installed}'");
    seen.fault("program", &line);
    assert_eq!(seen.verdict("initialize"), "skipped");
    examined_in(&with(&entry, &line), &[], &environment).await.well();

    // The switch and the list are the configuration's to judge, before anything is asked.
    let file = ConfigFile::new(&keyed(&entry));
    for (environment, expected) in [
        (&[][..], "VESTIBULE_ENABLE_STDIO=true"),
        (&programs("other")[..], "peer-server may not be run"),
    ] {
        let said = run(&["doctor", "--config", file.path(), "one"], environment).await;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.err.contains(expected), "{expected}\n{said:?}");
    }
}

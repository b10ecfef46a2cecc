//! Searches against servers on 127.0.0.1, which say what the test lets them say.

use super::*;
use crate::net::guarded::Zone;
use crate::net::tls;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Upstream, free_addr};

const INSERTED: &str = "/.well-known/oauth-authorization-server";
const OIDC: &str = "/.well-known/openid-configuration";
const RESOURCE: &str = "/.well-known/oauth-protected-resource/mcp";

fn discovery() -> (Discovery, Arc<AtomicU64>) {
    let tls = tls::client_config(false).expect("tls");
    let guarded = Guarded::new(Duration::from_secs(10), &tls).expect("client");
    let (clock, counter) = Clock::manual();
    let patience = Patience {
        probe: Duration::from_millis(400),
        search: Duration::from_secs(10),
    };
    (
        Discovery::new(guarded, clock, Handle::current(), patience),
        counter,
    )
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("url")
}

fn config(server: &Upstream) -> UpstreamConfig {
    UpstreamConfig {
        name: "git".into(),
        url: url(&server.url()),
        issuer: None,
        authorization_url: None,
        token_url: None,
        registration_url: None,
        scopes: Vec::new(),
        wants_registration: false,
    }
}

fn at(server: &Upstream, path: &str, answer: Answer) {
    let path = path.to_owned();
    server.push_when(move |request| request.path() == path, answer);
}

/// A document with every endpoint at `server`.
fn document(server: &Upstream, issuer: &str) -> Value {
    let at = |path: &str| format!("{}{path}", server.base());
    json!({
        "issuer": issuer,
        "authorization_endpoint": at("/authorize?audience=x"),
        "token_endpoint": at("/token"),
        "registration_endpoint": at("/register"),
        "revocation_endpoint": at("/revoke"),
        "scopes_supported": ["everything"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true,
    })
}

/// A server that demands a token, with metadata that names `issuer`.
async fn protected(issuer: &str) -> Upstream {
    let server = Upstream::start().await;
    server.accept("some-token");
    name_issuer(&server, issuer);
    server
}

fn name_issuer(server: &Upstream, issuer: &str) {
    let metadata = json!({
        "resource": server.url(), "authorization_servers": [issuer], "scopes_supported": ["read"],
    });
    at(server, RESOURCE, Answer::json(200, &metadata));
}

fn notes(error: &DiscoveryError) -> String {
    error
        .trace
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn a_challenge_leads_to_the_endpoints() {
    let identity = Upstream::start().await;
    let issuer = format!("{}/realms/one", identity.base());
    let server = protected(&issuer).await;
    at(
        &identity,
        &format!("{INSERTED}/realms/one"),
        Answer::json(200, &document(&identity, &issuer)),
    );
    let (discovery, _) = discovery();
    let found = discovery.endpoints(&config(&server)).await.expect("found");
    let at = |path: &str| url(&format!("{}{path}", identity.base()));
    let reach = config(&server).reach().named_from(Zone::Loopback);
    let expected = UpstreamEndpoints {
        issuer: Some(issuer),
        authorization_url: at("/authorize?audience=x"),
        token_url: at("/token"),
        registration_url: Some(at("/register")),
        revocation_url: Some(at("/revoke")),
        scopes: vec!["read".into()],
        iss_promised: true,
        auth_methods: Some(vec!["none".into()]),
        s256_supported: Some(true),
        resource: Some(server.url()),
        reach,
    };
    assert_eq!(*found, expected);
    // The second time is free, and the searched server saw no credential of anybody.
    let requests = server.requests().len() + identity.requests().len();
    discovery.endpoints(&config(&server)).await.expect("found");
    assert_eq!(server.requests().len() + identity.requests().len(), requests);
    assert!(server.requests().iter().all(|request| request.bearer().is_none()));
}

#[tokio::test]
async fn the_challenge_decides_over_metadata_and_the_operator_over_both() {
    for (configured, expected) in [(vec![], vec!["a", "b"]), (vec!["mine".to_owned()], vec!["mine"])] {
        let server = Upstream::start().await;
        let elsewhere = format!("{}/elsewhere", server.base());
        let challenge = format!("Bearer scope=\"a b\", resource_metadata=\"{elsewhere}\"");
        at(
            &server,
            "/mcp",
            Answer::raw(401, &[("WWW-Authenticate", &challenge)], ""),
        );
        let issuer = server.base();
        let metadata = json!({"authorization_servers": [issuer], "scopes_supported": ["read"]});
        at(&server, "/elsewhere", Answer::json(200, &metadata));
        at(&server, INSERTED, Answer::json(200, &document(&server, &issuer)));
        let config = UpstreamConfig {
            scopes: configured,
            ..config(&server)
        };
        let (discovery, _) = discovery();
        let found = discovery.endpoints(&config).await.expect("found");
        assert_eq!(found.scopes, expected);
    }
}

#[tokio::test]
async fn wherever_the_document_is() {
    // Where it is, behind what, and how it is served.
    let good = |server: &Upstream, issuer: &str| document(server, issuer).to_string();
    for place in [
        format!("{INSERTED}/p"),
        format!("{OIDC}/p"),
        format!("/p{OIDC}"),
        INSERTED.into(),
        OIDC.into(),
    ] {
        let identity = Upstream::start().await;
        let issuer = format!("{}/p", identity.base());
        let server = protected(&issuer).await;
        at(&identity, &place, Answer::raw(200, &[], good(&identity, &issuer)));
        let (discovery, _) = discovery();
        let found = discovery.endpoints(&config(&server)).await;
        assert!(found.is_ok(), "{place}: {}", notes(&found.expect_err("none")));
    }
    let huge = vec![b' '; 10 * 1024 * 1024];
    let plain = [("Content-Type", "text/plain")];
    for first in [
        Answer::json(200, &json!({})),
        Answer::json(200, &json!([])),
        Answer::Html,
        Answer::raw(200, &plain, huge),
        Answer::raw(401, &[("WWW-Authenticate", "Basic")], "{}"),
        Answer::raw(500, &[], "oops"),
        Answer::Redirect {
            status: 302,
            location: "https://login.example/".into(),
        },
        Answer::CloseWithoutAnswer,
    ] {
        let identity = Upstream::start().await;
        let issuer = identity.base();
        let server = protected(&issuer).await;
        // A closed connection counts as a host that is not there; the next search has better luck.
        let gone = matches!(first, Answer::CloseWithoutAnswer);
        at(&identity, INSERTED, first);
        at(
            &identity,
            OIDC,
            Answer::Redirect {
                status: 307,
                location: "/moved".into(),
            },
        );
        at(
            &identity,
            "/moved",
            Answer::raw(200, &plain, good(&identity, &issuer)),
        );
        let (discovery, _) = discovery();
        let found = discovery.endpoints(&config(&server)).await;
        assert_eq!(found.is_err(), gone, "{found:?}");
    }
}

#[tokio::test]
async fn an_issuer_is_equal_or_is_not() {
    let identity = Upstream::start().await;
    let base = identity.base();
    for (named, said) in [
        (base.clone(), format!("{base}/")),
        (format!("{base}/"), base.clone()),
        (format!("{base}/p"), format!("{base}/p/")),
        (base.clone(), "https://elsewhere.example".to_owned()),
    ] {
        let server = protected(&named).await;
        let path = named.strip_prefix(&base).expect("there").trim_end_matches('/');
        at(
            &identity,
            &format!("{INSERTED}{path}"),
            Answer::json(200, &document(&identity, &said)),
        );
        let (discovery, _) = discovery();
        let error = discovery.endpoints(&config(&server)).await.expect_err("skipped");
        let expected = format!("200, skipped: its issuer is {said}");
        assert!(notes(&error).contains(&expected), "{}", notes(&error));
    }
}

#[tokio::test]
async fn a_configured_issuer_is_the_only_one() {
    let (identity, hostile) = (Upstream::start().await, Upstream::start().await);
    let server = protected(&hostile.base()).await;
    let issuer = identity.base();
    at(
        &identity,
        INSERTED,
        Answer::json(200, &document(&identity, &issuer)),
    );
    let mut config = UpstreamConfig {
        issuer: Some(issuer.clone()),
        ..config(&server)
    };
    let (discovery, _) = discovery();
    let found = discovery.endpoints(&config).await.expect("found");
    assert_eq!(found.issuer.as_ref(), Some(&issuer));
    assert_eq!(found.scopes, ["read"]);
    assert_eq!(hostile.connections(), 0);

    config.issuer = Some(format!("{issuer}/"));
    at(
        &identity,
        INSERTED,
        Answer::json(200, &document(&identity, &issuer)),
    );
    let error = discovery.endpoints(&config).await.expect_err("not equal");
    assert!(error.issuer_configured && error.next_step().contains("change `issuer`"));
    assert_eq!(hostile.connections(), 0);
}

#[tokio::test]
async fn configured_values_win_each_on_its_own() {
    let identity = Upstream::start().await;
    let issuer = identity.base();
    let mine = url(&format!("{issuer}/my-token"));
    for issuer_configured in [false, true] {
        let server = protected(&issuer).await;
        at(
            &identity,
            INSERTED,
            Answer::json(200, &document(&identity, &issuer)),
        );
        let config = UpstreamConfig {
            token_url: Some(mine.clone()),
            issuer: issuer_configured.then(|| issuer.clone()),
            ..config(&server)
        };
        let (discovery, _) = discovery();
        let found = discovery.endpoints(&config).await.expect("found");
        assert_eq!(found.token_url, mine);
        assert_eq!(found.authorization_url.path(), "/authorize");
    }
    // Half of one authorization server and half of another is neither.
    let server = protected(&issuer).await;
    at(
        &identity,
        INSERTED,
        Answer::json(200, &document(&identity, &issuer)),
    );
    let config = UpstreamConfig {
        token_url: Some(url("https://other.example/token")),
        ..config(&server)
    };
    let (discovery, _) = discovery();
    let error = discovery.endpoints(&config).await.expect_err("not one server");
    assert!(notes(&error).contains("token_endpoint is not at the configured origin"));
}

#[tokio::test]
async fn nothing_is_fetched_that_is_configured() {
    let server = protected("https://hostile.example").await;
    let configured = UpstreamConfig {
        authorization_url: Some(url("https://idp.example/a")),
        token_url: Some(url("https://idp.example/t")),
        issuer: Some("https://idp.example".into()),
        ..config(&server)
    };
    let (discovery, clock) = discovery();
    let found = discovery.endpoints(&configured).await.expect("configured");
    assert_eq!(found.issuer.as_deref(), Some("https://idp.example"));
    assert!(!found.iss_promised && found.s256_supported.is_none());
    assert_eq!(server.connections(), 0);

    // A registration endpoint is worth a search, and no reason to fail.
    let identity = Upstream::start().await;
    let wanting = UpstreamConfig {
        authorization_url: Some(url(&format!("{}/authorize", identity.base()))),
        token_url: Some(url(&format!("{}/token", identity.base()))),
        wants_registration: true,
        issuer: Some(identity.base()),
        scopes: vec!["a".into()],
        ..configured
    };
    let found = discovery.endpoints(&wanting).await.expect("configured");
    assert_eq!(found.registration_url, None);
    let asked = identity.requests().len();
    discovery.endpoints(&wanting).await.expect("configured");
    assert_eq!(identity.requests().len(), asked);
    at(
        &identity,
        INSERTED,
        Answer::json(200, &document(&identity, &identity.base())),
    );
    clock.fetch_add(5_000, Ordering::SeqCst);
    discovery.endpoints(&wanting).await.expect("configured");
    identity.wait_for(asked + 1).await;
    let mut found = discovery.endpoints(&wanting).await.expect("configured");
    while found.registration_url.is_none() {
        tokio::task::yield_now().await;
        found = discovery.endpoints(&wanting).await.expect("configured");
    }
    assert!(found.iss_promised);
}

#[tokio::test]
async fn an_origin_is_its_own_authorization_server_in_either_spelling() {
    for end in ["", "/"] {
        let server = Upstream::start().await;
        let issuer = format!("{}{end}", server.base());
        at(&server, INSERTED, Answer::json(200, &document(&server, &issuer)));
        let (discovery, _) = discovery();
        let found = discovery.endpoints(&config(&server)).await.expect("found");
        assert_eq!(found.issuer, Some(issuer));
        assert!(found.scopes.is_empty());
    }
}

#[tokio::test]
async fn metadata_leads_to_no_forbidden_place() {
    for hostile in [
        "http://169.254.169.254",
        "http://[fe80::1]",
        "http://[::ffff:169.254.169.254]/x",
        "http://0.0.0.0:1",
        "http://[fd00:ec2::254]",
    ] {
        let server = protected(hostile).await;
        let (discovery, _) = discovery();
        let error = discovery.endpoints(&config(&server)).await.expect_err("refused");
        assert!(
            notes(&error).contains("the address is not a public one"),
            "{}",
            notes(&error)
        );
        // The sentence is for strangers.
        let sentence = format!("{error} {}", error.next_step());
        assert!(sentence.contains("'git'") && !sentence.contains("169") && !sentence.contains("http"));
    }
    for hostile in ["javascript:alert(1)", "file:///etc/passwd", "https://h?x"] {
        // Not an issuer at all: as if the document had none.
        let server = protected(hostile).await;
        let (discovery, _) = discovery();
        assert!(discovery.endpoints(&config(&server)).await.is_err());
    }
}

#[tokio::test]
async fn endpoints_that_are_no_web_address_are_not_used() {
    let server = Upstream::start().await;
    let mut document = document(&server, &server.base());
    document["authorization_endpoint"] = json!("javascript:alert(1)");
    at(&server, INSERTED, Answer::json(200, &document));
    let (discovery, _) = discovery();
    let error = discovery.endpoints(&config(&server)).await.expect_err("unfit");
    assert!(notes(&error).contains("no usable authorization_endpoint"));
}

#[tokio::test]
async fn metadata_about_another_server_is_skipped() {
    let server = Upstream::start().await;
    let metadata =
        json!({"resource": "https://other.example/mcp", "authorization_servers": ["https://h.example"]});
    at(&server, RESOURCE, Answer::json(200, &metadata));
    let (discovery, _) = discovery();
    let error = discovery.endpoints(&config(&server)).await.expect_err("skipped");
    assert!(notes(&error).contains("skipped: its resource is https://other.example/mcp"));
    assert!(!notes(&error).contains("h.example/"), "{}", notes(&error));
}

#[tokio::test]
async fn one_that_hangs_is_left_after_its_time_and_delays_no_other() {
    let (slow, quick) = (Upstream::start().await, Upstream::start().await);
    let (answer, _feed) = Answer::sse();
    at(&slow, INSERTED, answer);
    at(
        &quick,
        INSERTED,
        Answer::json(200, &document(&quick, &quick.base())),
    );
    let (discovery, _) = discovery();
    let slow_config = UpstreamConfig {
        name: "slow".into(),
        ..config(&slow)
    };
    let quick_config = config(&quick);
    let (slow_one, quick_one) = tokio::join!(
        biased;
        async {
            let outcome = discovery.endpoints(&slow_config).await;
            (outcome, tokio::time::Instant::now())
        },
        async {
            let outcome = discovery.endpoints(&quick_config).await;
            (outcome, tokio::time::Instant::now())
        },
    );
    assert!(quick_one.0.is_ok() && quick_one.1 < slow_one.1);
    let error = slow_one.0.expect_err("too slow");
    assert!(notes(&error).contains("did not answer in time"));

    let nobody = UpstreamConfig {
        url: url(&format!("http://{}/mcp", free_addr())),
        ..quick_config
    };
    let error = discovery.endpoints(&nobody).await.expect_err("nobody there");
    assert!(error.trace[0].note.contains("cannot be reached"));
    assert!(error.trace[1].note.contains("not asked"));
}

#[tokio::test]
async fn many_callers_are_one_search_and_none_of_them_ends_it() {
    let server = Upstream::start().await;
    let gate = Arc::new(Semaphore::new(0));
    server.push(Answer::Gate(Arc::clone(&gate)));
    at(
        &server,
        INSERTED,
        Answer::json(200, &document(&server, &server.base())),
    );
    let (mut discovery, _) = discovery();
    if let Some(shared) = Arc::get_mut(&mut discovery.shared) {
        shared.patience.probe = Duration::from_secs(10);
    }
    let (discovery, config) = (Arc::new(discovery), Arc::new(config(&server)));
    let call = || {
        let (discovery, config) = (Arc::clone(&discovery), Arc::clone(&config));
        tokio::spawn(async move { discovery.endpoints(&config).await })
    };
    let first = call();
    server.wait_for(1).await;
    first.abort();
    let callers: Vec<_> = (0..50).map(|_| call()).collect();
    gate.add_permits(1);
    for caller in callers {
        caller.await.expect("runs").expect("found");
    }
    let documents = server.requests();
    let documents = documents.iter().filter(|request| request.path() == INSERTED);
    assert_eq!(documents.count(), 1);
}

#[tokio::test]
async fn what_is_known_is_kept_renewed_and_outlives_a_failure() {
    let server = Upstream::start().await;
    let config = config(&server);
    let (discovery, clock) = discovery();
    let forward = |seconds: u64| clock.fetch_add(seconds * 1000, Ordering::SeqCst);

    // Nothing: 5 s, then 10 s without another search.
    for wait in [5, 10] {
        let error = discovery.endpoints(&config).await.expect_err("nothing");
        assert_eq!(error.retry_after, Duration::from_secs(wait));
        let asked = server.requests().len();
        forward(wait - 1);
        let error = discovery.endpoints(&config).await.expect_err("waiting");
        assert_eq!(error.retry_after, Duration::from_secs(1));
        assert!(!error.trace.is_empty());
        assert_eq!(server.requests().len(), asked);
        forward(1);
    }
    let good = || Answer::json(200, &document(&server, &server.base()));
    at(&server, INSERTED, good());
    let first = discovery.endpoints(&config).await.expect("found");

    // An hour later it is renewed behind the caller's back; the search finds nothing, and nothing is lost.
    forward(3600);
    let asked = server.requests().len();
    let again = discovery.endpoints(&config).await.expect("kept");
    assert!(Arc::ptr_eq(&first, &again));
    server.wait_for(asked + 1).await;
    let slot = discovery.slot_in(&discovery.slots, &config);
    let landed = || async {
        while slot.state().in_flight.is_some() {
            tokio::task::yield_now().await;
        }
    };
    landed().await;
    let asked = server.requests().len();
    assert!(discovery.endpoints(&config).await.is_ok());
    assert_eq!(server.requests().len(), asked);

    at(&server, INSERTED, good());
    forward(5);
    discovery.endpoints(&config).await.expect("kept");
    landed().await;
    let renewed = discovery.endpoints(&config).await.expect("renewed");
    assert!(!Arc::ptr_eq(&first, &renewed));

    // Not for ever: a day without a look is a search that the caller waits for.
    forward(24 * 3600);
    assert!(discovery.endpoints(&config).await.is_err());

    // Another configuration is another search.
    at(&server, INSERTED, good());
    let edited = UpstreamConfig {
        scopes: vec!["a".into()],
        ..config.clone()
    };
    assert!(discovery.endpoints(&edited).await.is_ok());
}

#[tokio::test]
async fn a_tool_sees_every_step() {
    let server = Upstream::start().await;
    at(
        &server,
        OIDC,
        Answer::json(200, &document(&server, &server.base())),
    );
    let config = UpstreamConfig {
        url: url(&format!("{}?key=canary", server.url())),
        ..config(&server)
    };
    let (discovery, _) = discovery();
    let examined = discovery.examine(&config).await;
    assert!(examined.endpoints.is_some());
    let trace: Vec<_> = examined
        .trace
        .iter()
        .map(|probe| probe.to_string().replace(&server.base(), ""))
        .collect();
    assert_eq!(
        trace,
        [
            "/mcp: 200, no challenge",
            "/mcp: 405, no challenge",
            "/.well-known/oauth-protected-resource/mcp: 404, no document",
            "/.well-known/oauth-protected-resource: 404, no document",
            "/.well-known/oauth-authorization-server: 404, no document",
            "/.well-known/openid-configuration: 200, used: the authorization server's metadata",
        ]
    );
}

#[tokio::test]
async fn what_https_named_is_https_unless_configured() {
    let server = Upstream::start().await;
    let (discovery, _) = discovery();
    let config = config(&server);
    let search = Search::new(&discovery.shared.guarded, &config, Duration::from_secs(1));
    for (https, target, expected) in [
        (true, "http://idp.example/token", true),
        (true, "https://idp.example/token", false),
        (true, server.base().as_str(), false),
        (false, "http://idp.example/token", false),
    ] {
        assert_eq!(search.reach.downgrades(&url(target), https), expected, "{target}");
    }
}

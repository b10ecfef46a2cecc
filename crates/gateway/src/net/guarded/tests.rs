//! The client against sockets, with names that resolve as the test says.

use super::*;
use crate::net::tls;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use vestibule_testkit::{Answer, Upstream};

const LOOPBACK: [&str; 1] = ["127.0.0.1"];

/// What a name resolves to, how far a request may go, and what is left to dial.
type Case = (&'static [&'static str], Zone, Option<&'static [&'static str]>);

/// Answers lookups with these lists in turn, the last one for ever, and counts them.
fn lookup(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let parse = |list: &&[&str]| -> Vec<SocketAddr> {
        let parsed = list
            .iter()
            .map(|at| SocketAddr::new(at.parse().expect("address"), 0));
        parsed.collect()
    };
    let mut answers: Vec<_> = answers.iter().map(parse).collect();
    answers.reverse();
    let answers = Mutex::new(answers);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let lookup: Lookup = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut answers = answers.lock().expect("lock");
        let answer = if answers.len() > 1 {
            answers.pop()
        } else {
            answers.last().cloned()
        };
        Box::pin(async move { Ok(answer.unwrap_or_default()) })
    });
    (lookup, count)
}

fn guarded(lookup: &Lookup, timeout: Duration) -> Guarded {
    let tls = tls::client_config(false).expect("tls");
    Guarded::with_lookup(timeout, &tls, lookup).expect("client")
}

fn plain() -> Guarded {
    guarded(&system_lookup(), Duration::from_secs(10))
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("url")
}

fn within(zone: Zone) -> Reach {
    Reach::PublicOnly.named_from(zone)
}

async fn addresses(lookup: &Lookup, bound: Bound) -> Option<Vec<String>> {
    let resolver = GuardedResolver {
        lookup: Arc::clone(lookup),
        bound,
    };
    let found = resolver.addresses("name.test".into()).await.ok()?;
    Some(found.iter().map(|at| at.ip().to_string()).collect())
}

#[tokio::test]
async fn a_name_leads_only_to_allowed_addresses() {
    let cases: [Case; 7] = [
        (&["8.8.8.8"], Zone::Public, Some(&["8.8.8.8"])),
        (&["10.0.0.1", "8.8.8.8", "::1"], Zone::Public, Some(&["8.8.8.8"])),
        (&["10.0.0.1", "::ffff:127.0.0.1"], Zone::Public, None),
        (&["10.0.0.1", "127.0.0.1"], Zone::Private, Some(&["10.0.0.1"])),
        (&["127.0.0.1"], Zone::Loopback, Some(&["127.0.0.1"])),
        (&["169.254.169.254", "fe80::1"], Zone::Loopback, None),
        (&[], Zone::Public, Some(&[])),
    ];
    for (answer, limit, expected) in cases {
        let (lookup, _) = lookup(&[answer]);
        let found = addresses(&lookup, Bound::Within(limit)).await;
        let expected = expected.map(|list| list.iter().map(|at| (*at).to_owned()).collect());
        assert_eq!(found, expected, "{answer:?} {limit:?}");
    }
    let (lookup, _) = lookup(&[&["169.254.169.254"]]);
    assert!(addresses(&lookup, Bound::Anywhere).await.is_some());
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_judged_each_time() {
    let (lookup, count) = lookup(&[&["8.8.8.8"], &LOOPBACK]);
    let public = Bound::Within(Zone::Public);
    assert_eq!(addresses(&lookup, public).await, Some(vec!["8.8.8.8".into()]));
    assert_eq!(addresses(&lookup, public).await, None);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_judged_is_what_is_dialled() {
    let server = Upstream::start().await;
    let (lookup, count) = lookup(&[&LOOPBACK]);
    let guarded = guarded(&lookup, Duration::from_secs(10));
    let named = url(&format!("http://rebind.test:{}/x", server.addr().port()));
    let fetched = guarded
        .get_json(&named, &within(Zone::Loopback))
        .await
        .expect("ok");
    assert_eq!((fetched.status, fetched.zone), (404, Zone::Loopback));
    // One lookup a connection, and none that is not judged.
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // The open connection is not for a request that may not go there.
    for reach in [Reach::PublicOnly, within(Zone::Public), within(Zone::Private)] {
        let fault = guarded.get_json(&named, &reach).await.expect_err("refused");
        assert_eq!(fault, GuardedFault::NotAllowed);
    }
    assert_eq!(server.connections(), 1);
    // What the operator wrote is the operator's business; another port is another origin.
    let configured = Reach::configured([&named]);
    assert!(guarded.get_json(&named, &configured).await.is_ok());
    let other = url("http://rebind.test:1/x");
    let fault = guarded.get_json(&other, &configured).await.expect_err("refused");
    assert_eq!(fault, GuardedFault::NotAllowed);
}

#[tokio::test]
async fn literal_addresses_are_judged_too() {
    let server = Upstream::start().await;
    let port = server.addr().port();
    let guarded = plain();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "169.254.169.254",
        "localhost",
    ];
    for host in hosts {
        let target = url(&format!("http://{host}:{port}/"));
        let fault = guarded
            .get_json(&target, &Reach::PublicOnly)
            .await
            .expect_err(host);
        assert_eq!(fault, GuardedFault::NotAllowed, "{host}");
    }
    let metadata = url("http://169.254.169.254/latest/meta-data/");
    let fault = guarded.get_json(&metadata, &within(Zone::Loopback)).await;
    assert_eq!(fault.expect_err("refused"), GuardedFault::NotAllowed);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn only_plain_web_addresses_are_requested() {
    for bad in ["ftp://h/", "file:///etc/passwd", "http://u:p@8.8.8.8/", "data:,x"] {
        let fault = plain().get_json(&url(bad), &Reach::PublicOnly).await;
        assert_eq!(fault.expect_err(bad), GuardedFault::BadUrl);
    }
}

#[tokio::test]
async fn redirects_stay_within_their_origin() {
    let (server, other) = (Upstream::start().await, Upstream::start().await);
    let guarded = plain();
    let reach = within(Zone::Loopback);
    let start = url(&format!("{}/a", server.base()));
    let redirect = |to: &str| Answer::Redirect {
        status: 302,
        location: to.to_owned(),
    };

    server.push(redirect("/b"));
    server.push(redirect(&format!("{}/c", server.base())));
    server.push(Answer::json(200, &json!({"found": true})));
    let fetched = guarded.get_json(&start, &reach).await.expect("followed");
    assert_eq!(fetched.body, r#"{"found":true}"#);

    server.push(redirect(&format!("{}/x", other.base())));
    let fault = guarded.get_json(&start, &reach).await.expect_err("crosses");
    assert_eq!(fault, GuardedFault::Redirected(302));
    assert_eq!(other.connections(), 0);

    for _ in 0..=REDIRECT_LIMIT {
        server.push(redirect("/a"));
    }
    let fault = guarded.get_json(&start, &reach).await.expect_err("a circle");
    assert_eq!(fault, GuardedFault::Redirected(302));

    server.push(redirect("/b"));
    let fault = guarded
        .post_json(&start, &json!({}), &reach)
        .await
        .expect_err("a body");
    assert_eq!(fault, GuardedFault::Redirected(302));
}

#[tokio::test]
async fn a_form_goes_with_its_credentials_and_nowhere_else() {
    let server = Upstream::start().await;
    let guarded = plain();
    let target = url(&format!("{}/token", server.base()));
    let form = || EncodedTokenRequest {
        body: "grant_type=refresh_token&refresh_token=canary".to_owned().into(),
        authorization: Some("Basic canary".to_owned().into()),
    };
    server.push(Answer::json(400, &json!({"error": "invalid_grant"})));
    let fetched = guarded
        .post_form(&target, &form(), &within(Zone::Loopback))
        .await
        .expect("answered");
    assert_eq!(fetched.status, 400);
    assert!(!format!("{fetched:?}").contains("invalid_grant"));
    let request = &server.requests()[0];
    assert_eq!(request.header("authorization"), Some("Basic canary"));
    assert_eq!(request.form_value("refresh_token").as_deref(), Some("canary"));

    server.push(Answer::Redirect {
        status: 307,
        location: "/elsewhere".into(),
    });
    let fault = guarded
        .post_form(&target, &form(), &within(Zone::Loopback))
        .await
        .expect_err("redirected");
    assert_eq!(fault, GuardedFault::Redirected(307));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let server = Upstream::start().await;
    let guarded = guarded(&system_lookup(), Duration::from_millis(400));
    let target = url(&server.base());
    let reach = within(Zone::Loopback);
    let huge = vec![b'a'; 10 * 1024 * 1024];
    let cases = [
        (Answer::raw(200, &[], &huge), GuardedFault::TooLarge),
        (
            Answer::Truncated {
                content_length: 100,
                body: b"{".to_vec(),
            },
            GuardedFault::Truncated,
        ),
        (Answer::Hang, GuardedFault::Timeout),
    ];
    for (answer, expected) in cases {
        server.push(answer);
        let fault = guarded.get_json(&target, &reach).await.expect_err("no answer");
        assert_eq!(fault, expected);
    }
    // A head, and then nothing for ever.
    let (answer, _feed) = Answer::sse();
    server.push(answer);
    let fault = guarded.get_json(&target, &reach).await.expect_err("slow");
    assert_eq!(fault, GuardedFault::Timeout);
    let (answer, _feed) = Answer::sse();
    server.push(answer);
    let probed = guarded.probe_get(&target, &reach).await.expect("only its head");
    assert_eq!((probed.status, probed.body.len()), (200, 0));

    let nobody = url(&format!("http://{}/", vestibule_testkit::free_addr()));
    let fault = guarded.get_json(&nobody, &reach).await.expect_err("nobody");
    assert!(matches!(fault, GuardedFault::Unreachable(_)), "{fault:?}");
}

//! Requests signed for an AWS role: an STS that verifies who asks, what it gives out, and when it is asked again.

use crate::by_hand::Watched;
use crate::harness::{Got, KEY, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed};
use crate::sigv4::{ID, SECRET, Signed};
use jiff::Timestamp;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use vestibule_testkit::{Answer, Idp, Reply, Request};

const ROLE: &str = "arn:aws:iam::123456789012:role/mcp/caller";
const ROLE_SECRET: &str = "canary-role-secret-";
const ROLE_TOKEN: &str = "canary-role-token-";
/// What nobody but STS says; it must not get out.
const MESSAGE: &str = "canary-message-of-sts";

/// An STS that gives out the keys 1, 2, … of an hour each to whoever signs with [`SECRET`].
struct Sts {
    idp: Idp,
    next: Arc<Mutex<VecDeque<Reply>>>,
}

impl Sts {
    async fn start() -> Self {
        let (idp, next) = (Idp::start().await, Arc::<Mutex<VecDeque<Reply>>>::default());
        let (queue, given) = (Arc::clone(&next), Mutex::new(0));
        idp.judge(move |request| {
            let signed = Signed::of(request);
            if !signed.is_genuine(SECRET) {
                return Some(xml(403, &refusal("SignatureDoesNotMatch")));
            }
            if let Some(reply) = queue.lock().expect("queue").pop_front() {
                return Some(reply);
            }
            let mut given = given.lock().expect("given");
            *given += 1;
            Some(xml(200, &access_key(*given, &ends_after(request, 3600))))
        });
        Self { idp, next }
    }

    fn push(&self, reply: Reply) {
        self.next.lock().expect("queue").push_back(reply);
    }

    fn asked(&self) -> usize {
        self.idp.requests().len()
    }
}

fn xml(status: u16, body: &str) -> Reply {
    Reply::Raw {
        status,
        content_type: Some("text/xml".into()),
        headers: Vec::new(),
        body: body.into(),
    }
}

fn refusal(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{MESSAGE}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    )
}

fn access_key(number: usize, ends: &str) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n<AssumeRoleResult>\
         <AssumedRoleUser><Arn>a</Arn><AssumedRoleId>b</AssumedRoleId></AssumedRoleUser><Credentials>\
         <AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>{ROLE_SECRET}{number}</SecretAccessKey>\
         <SessionToken>{ROLE_TOKEN}{number}</SessionToken><Expiration>{ends}</Expiration></Credentials>\
         </AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>"
    )
}

/// A time so many seconds after the request's own.
fn ends_after(request: &Request, seconds: i64) -> String {
    let date = Signed::of(request).header("x-amz-date").expect("a date");
    let date: Timestamp = date.parse().expect("a time");
    let end = Timestamp::from_second(date.as_second() + seconds);
    end.expect("a time").to_string()
}

fn fields(sts: &str, more: &str) -> String {
    format!(
        "auth_type: aws_sigv4\naws_access_key_id: {ID}\naws_secret_access_key: {SECRET}\n\
         aws_region_name: eu-central-1\naws_role_name: {ROLE}\n{sts}{more}"
    )
}

struct Trio {
    gateway: TestGateway,
    sts: Sts,
    server: Watched,
}

async fn trio(more: &str) -> Trio {
    let (sts, server) = (Sts::start().await, Watched::start().await);
    let place = format!("aws_sts_endpoint: {}\n", sts.idp.url());
    let gateway = TestGateway::with_servers(&server.entry("one", &fields(&place, more))).await;
    Trio { gateway, sts, server }
}

impl Trio {
    /// The number of the key that the server's last request is signed with, which it is.
    fn signed_with(&self) -> usize {
        let requests = self.server.requests();
        let signed = Signed::of(requests.last().expect("a request"));
        let credential = signed.part("Credential");
        let number = credential.strip_prefix("ASIA").expect("the role's key");
        let (number, scope) = number.split_once('/').expect("a scope");
        assert!(
            scope.ends_with("/eu-central-1/bedrock-agentcore/aws4_request"),
            "{scope}"
        );
        assert!(signed.is_genuine(&format!("{ROLE_SECRET}{number}")));
        assert_eq!(
            signed.header("x-amz-security-token"),
            Some(format!("{ROLE_TOKEN}{number}"))
        );
        number.parse().expect("a number")
    }

    async fn call(&self) -> Got {
        got(self.gateway.post("/one/mcp", &echo("x"))).await
    }
}

#[tokio::test]
async fn the_access_key_assumes_the_role_and_the_role_signs() {
    let trio = trio("aws_session_token: canary-own-token").await;
    let calls = (0..20).map(|_| trio.call());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(trio.signed_with(), 1);
    assert_eq!(trio.server.requests().len(), 20);
    // However many callers wait, STS is asked once, by the configured key and with its token.
    let asked = trio.sts.idp.requests();
    assert_eq!(asked.len(), 1);
    let form = [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", ROLE),
        ("RoleSessionName", "vestibule-1000000000"),
    ];
    let form: Vec<(String, String)> = form.map(|(name, value)| (name.into(), value.into())).into();
    assert_eq!(asked[0].form(), form);
    let signed = Signed::of(&asked[0]);
    assert_eq!(
        signed.part("Credential"),
        format!("{ID}/20010909/eu-central-1/sts/aws4_request")
    );
    assert_eq!(
        signed.part("SignedHeaders"),
        "accept;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
    );
    assert_eq!(
        signed.header("x-amz-security-token").as_deref(),
        Some("canary-own-token")
    );
    for secret in [SECRET, "canary-own-token", ROLE_SECRET] {
        trio.server.assert_never_seen(secret);
    }
    for secret in [SECRET, ROLE_SECRET, KEY] {
        trio.sts.idp.assert_never_seen(secret);
    }
    assert_nothing_secret_logged(&[SECRET, "canary-own-token", ROLE_SECRET, ROLE_TOKEN]);
}

#[tokio::test]
async fn a_key_is_replaced_before_its_end_without_a_call_that_waits() {
    let trio = trio("aws_session_name: ci@example").await;
    assert_eq!(trio.call().await.status, 200);
    assert_eq!(
        trio.sts.idp.requests()[0]
            .form_value("RoleSessionName")
            .as_deref(),
        Some("ci@example")
    );
    // It is used for a minute less than its life, and renewed from five minutes before that.
    for (advance, key, asked) in [(3239, 1, 1), (2, 1, 2)] {
        trio.gateway.advance(advance);
        assert_eq!(trio.call().await.status, 200);
        assert_eq!(trio.signed_with(), key, "{advance}");
        assert_eq!(trio.sts.idp.wait_for(asked).await.len(), asked, "{advance}");
    }
    let fetched = r#"vestibule_token_requests_total{server="one",result="ok"}"#;
    trio.gateway.until_metric(fetched, |count| count == 2).await;
    assert_eq!(trio.call().await.status, 200);
    assert_eq!(trio.signed_with(), 2);
    // A key whose time is over is not shown any more.
    trio.gateway.advance(3600);
    assert_eq!(trio.call().await.status, 200);
    assert_eq!((trio.signed_with(), trio.sts.asked()), (3, 3));
}

#[tokio::test]
async fn a_key_that_the_server_calls_ended_is_replaced_once() {
    let header = [(
        "x-amzn-errortype",
        "ExpiredTokenException:http://internal.amazon.com/",
    )];
    let json = json!({"__type": "ExpiredTokenException", "message": MESSAGE}).to_string();
    let document = "<Error><Code>ExpiredToken</Code></Error>";
    let ended: [(&[(&str, &str)], &str); 3] = [(&header, "{}"), (&[], &json), (&[], document)];
    for (headers, body) in ended {
        let trio = trio("").await;
        assert_eq!(trio.call().await.status, 200);
        trio.server.push(Answer::raw(403, headers, body));
        assert_eq!(trio.call().await.status, 200, "{body}");
        assert_eq!((trio.signed_with(), trio.sts.asked()), (2, 2), "{body}");
        // One that refuses fresh keys too is not answered with more of them.
        for _ in 0..2 {
            trio.server.push(Answer::raw(403, headers, body));
        }
        let answer = trio.call().await;
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_refused_signature"),
            "{body}"
        );
        assert!(!answer.body.to_string().contains(MESSAGE));
        assert_eq!(trio.sts.asked(), 3, "{body}");
        trio.server.push(Answer::raw(403, headers, body));
        assert_eq!(trio.call().await.code(), "upstream_refused_signature");
        assert_eq!(trio.sts.asked(), 3, "{body}");
    }
}

#[tokio::test]
async fn another_refusal_is_the_roles_and_asks_for_no_key() {
    let trio = trio("").await;
    for (status, body) in [
        (
            403,
            json!({"__type": "AccessDeniedException", "message": "ExpiredToken"}),
        ),
        (403, json!({})),
        (401, json!({"__type": "ExpiredTokenException"})),
    ] {
        trio.server.push(Answer::json(status, &body));
        let answer = trio.call().await;
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_refused_signature"),
            "{body}"
        );
        assert_eq!(trio.sts.asked(), 1);
    }
}

#[tokio::test]
async fn without_a_key_of_the_role_nothing_is_sent_and_the_reason_is_named() {
    let whole = access_key(1, "2001-09-09T02:46:40Z");
    for (reply, status, code, said) in [
        (
            xml(403, &refusal("AccessDenied")),
            502,
            "role_refused",
            "(AccessDenied)",
        ),
        (
            xml(400, &refusal("Throttling")),
            502,
            "role_refused",
            "(Throttling)",
        ),
        (
            xml(403, &refusal(&format!("{MESSAGE} {SECRET}"))),
            502,
            "sts_answer_invalid",
            "without a code",
        ),
        (
            xml(200, &access_key(1, "2001-09-09T01:46:40Z")),
            502,
            "sts_answer_invalid",
            "ended already",
        ),
        (
            xml(200, &whole.replace("SessionToken", "Session")),
            502,
            "sts_answer_invalid",
            "SessionToken is missing",
        ),
        (
            xml(200, &whole.replace("<Credentials>", "<!-- --><Credentials>")),
            502,
            "sts_answer_invalid",
            "not the XML",
        ),
        (Reply::Html, 502, "sts_answer_invalid", "not the XML"),
        (
            Reply::Redirect {
                status: 307,
                location: "http://127.0.0.1:1/".into(),
            },
            502,
            "sts_answer_invalid",
            "STS",
        ),
        (Reply::Huge { mebibytes: 1 }, 502, "sts_answer_invalid", "STS"),
        (Reply::Truncated, 502, "sts_answer_invalid", "STS"),
        (Reply::Drop, 502, "sts_unreachable", "STS"),
        (Reply::Hang, 504, "sts_timeout", "STS"),
    ] {
        let (sts, server) = (Sts::start().await, Watched::start().await);
        let place = format!("aws_sts_endpoint: {}\n", sts.idp.url());
        let text = keyed(&server.entry("one", &fields(&place, "")));
        let text = format!("{text}vestibule:\n  limits:\n    token_timeout: 1\n");
        let trio = Trio {
            gateway: Start::new(text).start().await,
            sts,
            server,
        };
        trio.sts.push(reply.clone());
        let answer = trio.call().await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{reply:?} {answer:?}"
        );
        let text = answer.body.to_string();
        assert!(text.contains(said), "{said}: {text}");
        assert!(!text.contains(MESSAGE) && !text.contains(ROLE_SECRET), "{text}");
        assert!(!answer.header("retry-after").is_empty(), "{reply:?}");
        assert_eq!(trio.server.requests().len(), 0, "{reply:?}");
        // Who comes at once waits for nobody and asks nobody; later the role is assumed.
        assert_eq!(trio.call().await.code(), code);
        assert_eq!(trio.sts.asked(), 1, "{reply:?}");
        trio.gateway.advance(2);
        assert_eq!(trio.call().await.status, 200, "{reply:?}");
        assert_eq!(trio.signed_with(), 1);
    }
    assert_nothing_secret_logged(&[SECRET, MESSAGE, ROLE_SECRET, ROLE_TOKEN]);
}

#[tokio::test]
async fn the_environment_says_where_sts_is_and_who_asks() {
    let (sts, server) = (Sts::start().await, Watched::start().await);
    let text = format!(
        "url: {}\nauth_type: aws_sigv4\naws_region_name: eu-central-1\naws_role_name: {ROLE}",
        server.url()
    );
    let gateway = Start::new(keyed(&entry("one", &text)))
        .environment("AWS_ACCESS_KEY_ID", ID)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET)
        .environment("AWS_ENDPOINT_URL_STS", &sts.idp.url())
        .start()
        .await;
    let trio = Trio { gateway, sts, server };
    assert_eq!(trio.call().await.status, 200);
    assert_eq!((trio.signed_with(), trio.sts.asked()), (1, 1));
}

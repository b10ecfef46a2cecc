//! Requests signed with AWS Signature Version 4, judged by a verifier of this file's own, which AWS's published
//! examples judge.

use crate::by_hand::Watched;
use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, echo, got, keyed};
use aws_lc_rs::{digest, hmac};
use serde_json::json;
use vestibule_testkit::{Answer, Request};

pub(crate) const ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const FIELDS: &str = "auth_type: aws_sigv4\naws_access_key_id: AKIDEXAMPLE\n\
                      aws_secret_access_key: wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request as a verifier sees it.
pub(crate) struct Signed<'r> {
    method: &'r str,
    target: &'r str,
    headers: Vec<(String, String)>,
    body: &'r [u8],
}

impl<'r> Signed<'r> {
    pub(crate) fn of(request: &'r Request) -> Self {
        Self {
            method: &request.method,
            target: &request.target,
            headers: request.headers.clone(),
            body: &request.body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<String> = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// A part of `Authorization`.
    pub(crate) fn part(&self, name: &str) -> String {
        let authorization = self.header("authorization").expect("signed");
        let parts = authorization
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .expect("the scheme");
        let found = parts
            .split(", ")
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name}")).to_owned()
    }

    /// The signature that these parts ought to have (AWS, "Create a signed AWS API request").
    fn signature(&self, secret: &str, scope: &str, date: &str, names: &str) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let mut query: Vec<&str> = query.split('&').collect();
        query.sort_unstable();
        let headers: String = names
            .split(';')
            .map(|name| format!("{name}:{}\n", self.header(name).expect("a signed header")))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{names}\n{}",
            self.method,
            encoded(path),
            query.join("&"),
            hex(&sha256(self.body))
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(&sha256(canonical.as_bytes()))
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part.as_bytes());
        }
        hex(&mac(&key, text.as_bytes()))
    }

    pub(crate) fn is_genuine(&self, secret: &str) -> bool {
        let credential = self.part("Credential");
        let (_, scope) = credential.split_once('/').expect("a scope");
        let date = self.header("x-amz-date").expect("a date");
        self.signature(secret, scope, &date, &self.part("SignedHeaders")) == self.part("Signature")
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes)
        .as_ref()
        .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path that is encoded already, encoded once more, as every service but S3 wants it.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[test]
fn the_verifier_agrees_with_the_published_examples() {
    let scope = "20150830/us-east-1/service/aws4_request";
    for (method, expected) in [
        (
            "GET",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "POST",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
    ] {
        let request = Signed {
            method,
            target: "/",
            headers: vec![
                ("Host".into(), "example.amazonaws.com".into()),
                ("X-Amz-Date".into(), "20150830T123600Z".into()),
            ],
            body: b"",
        };
        let found = request.signature(SECRET, scope, "20150830T123600Z", "host;x-amz-date");
        assert_eq!(found, expected, "{method}");
    }
}

async fn start(more: &str) -> (Watched, TestGateway) {
    let server = Watched::start().await;
    let gateway = TestGateway::with_servers(&server.entry("one", &format!("{FIELDS}\n{more}"))).await;
    (server, gateway)
}

/// Every request that the server saw is signed, over everything that travels.
fn all_genuine(server: &Watched) {
    let requests = server.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        let signed = Signed::of(request);
        assert!(signed.is_genuine(SECRET), "{request:?}");
        assert!(!signed.is_genuine("another"), "{request:?}");
        assert_eq!(
            signed.header("x-amz-content-sha256"),
            Some(hex(&sha256(&request.body)))
        );
        let names = signed.part("SignedHeaders");
        let names: Vec<&str> = names.split(';').collect();
        // `Authorization` is the signature, the length is the body's, and `User-Agent` is what proxies change.
        let unsigned = ["authorization", "content-length", "user-agent"];
        for (name, _) in &request.headers {
            let name = name.to_ascii_lowercase();
            assert!(
                names.contains(&name.as_str()) || unsigned.contains(&name.as_str()),
                "{name} is not signed"
            );
        }
    }
    server.assert_never_seen(SECRET);
}

#[tokio::test]
async fn posts_streams_and_farewells_are_signed_as_they_are_sent() {
    let more = "static_headers: {X-Static: '  two   spaces '}\nextra_headers: [X-Extra]";
    let (server, gateway) = start(more).await;
    for text in ["a", "b", "\u{e9}\u{1f600}", ""] {
        let request = gateway
            .post("/one/mcp", &echo(text))
            .header("x-extra", "one")
            .header("x-extra", "two")
            .header("mcp-param-x", "  a   b ")
            .header("x-mcp-one-x-named", "named");
        assert_eq!(got(request).await.status, 200);
    }
    let (answer, stream) = Answer::sse();
    server.push(answer);
    let listening = gateway
        .http
        .get(gateway.url("/one/mcp"))
        .header("x-litellm-api-key", KEY)
        .header("accept", "text/event-stream");
    let response = listening.send().await.expect("a head");
    assert_eq!(response.status(), 200);
    stream.finish().await.expect("finished");
    assert_eq!(response.text().await.expect("an end"), "");
    server.push(Answer::raw(200, &[], ""));
    let farewell = gateway.http.delete(gateway.url("/one/mcp"));
    assert_eq!(got(farewell.header("x-litellm-api-key", KEY)).await.status, 200);

    all_genuine(&server);
    let requests = server.requests();
    let methods: Vec<&str> = requests.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["POST", "POST", "POST", "POST", "GET", "DELETE"]);
    let signatures: Vec<String> = requests
        .iter()
        .map(|request| Signed::of(request).part("Signature"))
        .collect();
    assert_ne!(signatures[0], signatures[1], "the body is signed");
    assert_eq!(
        Signed::of(&requests[0]).part("Credential"),
        format!("{ID}/20010909/us-east-1/bedrock-agentcore/aws4_request")
    );
    // What the verifier must notice, or it verifies nothing.
    let request = &requests[0];
    for change in 0..3 {
        let mut changed = Signed::of(request);
        match change {
            0 => changed.body = b"another",
            1 => changed.target = "/another",
            _ => changed
                .headers
                .iter_mut()
                .filter(|(name, _)| name.eq_ignore_ascii_case("x-static"))
                .for_each(|(_, value)| value.push('!')),
        }
        assert!(!changed.is_genuine(SECRET), "{change}");
    }
    assert_nothing_secret_logged(&[SECRET]);
}

#[tokio::test]
async fn the_path_is_signed_as_aws_reads_it_and_the_time_is_the_clocks() {
    let server = Watched::start().await;
    let url = format!(
        "{}/runtimes/arn%3Aaws%3Abedrock/invocations?qualifier=DEFAULT&a=b%2Fc",
        server.base()
    );
    let fields = format!(
        "url: {url}\nauth_type: aws_sigv4\naws_region_name: eu-central-1\naws_service_name: execute-api"
    );
    let gateway = Start::new(keyed(&crate::harness::entry("one", &fields)))
        .environment("AWS_ACCESS_KEY_ID", ID)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET)
        .environment("AWS_SESSION_TOKEN", "canary-session-token")
        .start()
        .await;
    for expected in ["20010909T014640Z", "20010910T014640Z"] {
        server.push(Answer::json(
            200,
            &json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
        ));
        assert_eq!(got(gateway.post("/one/mcp", &echo("x"))).await.status, 200);
        let requests = server.requests();
        let signed = Signed::of(requests.last().expect("a request"));
        assert_eq!(signed.header("x-amz-date").as_deref(), Some(expected));
        assert_eq!(
            signed.part("Credential"),
            format!("{ID}/{}/eu-central-1/execute-api/aws4_request", &expected[..8])
        );
        assert_eq!(
            signed.header("x-amz-security-token").as_deref(),
            Some("canary-session-token")
        );
        assert!(
            signed
                .part("SignedHeaders")
                .ends_with("x-amz-content-sha256;x-amz-date;x-amz-security-token"),
            "{}",
            signed.part("SignedHeaders")
        );
        gateway.advance(24 * 3600);
    }
    all_genuine(&server);
    assert_nothing_secret_logged(&[SECRET, "canary-session-token"]);
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_signed_anew() {
    let (server, gateway) = start("").await;
    server.push(Answer::Redirect {
        status: 307,
        location: "/elsewhere?x=1".into(),
    });
    server.push(Answer::Redirect {
        status: 308,
        location: "again".into(),
    });
    server.push(Answer::json(
        200,
        &json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
    ));
    assert_eq!(got(gateway.post("/one/mcp", &echo("x"))).await.status, 200);
    all_genuine(&server);
    let requests = server.requests();
    let targets: Vec<&str> = requests.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/mcp", "/elsewhere?x=1", "/again"]);
}

#[tokio::test]
async fn a_caller_can_neither_sign_nor_unsign() {
    let (server, gateway) = start("extra_headers: [X-Amz-Meta]").await;
    for header in [
        "x-mcp-one-x-amz-date",
        "x-mcp-one-x-amz-security-token",
        "x-mcp-one-x-amz-content-sha256",
        "x-mcp-one-authorization",
    ] {
        let forged = gateway.post("/one/mcp", &echo("x")).header(header, "forged");
        let answer = got(forged).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "credential_not_taken"),
            "{header}"
        );
    }
    assert_eq!(server.requests().len(), 0);
    let plain = gateway
        .post("/one/mcp", &echo("x"))
        .header("x-amz-date", "forged")
        .header("authorization", "AWS4-HMAC-SHA256 forged")
        .header("x-amz-meta", "allowed");
    assert_eq!(got(plain).await.status, 200);
    server.assert_never_seen("forged");
    all_genuine(&server);
}

#[tokio::test]
async fn a_refused_signature_is_the_gateways_and_says_what_to_check() {
    let (server, gateway) = start("").await;
    for (status, body) in [
        (
            403,
            json!({"message": "The security token included in the request is invalid."}),
        ),
        (401, json!({})),
    ] {
        server.push(Answer::json(status, &body));
        let answer = got(gateway
            .post("/one/mcp", &echo("x"))
            .header("x-litellm-mcp-debug", "1"))
        .await;
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_refused_signature")
        );
        assert_eq!(answer.header("x-mcp-debug-auth-resolution"), "aws-sigv4");
        assert_eq!(answer.header("x-mcp-debug-server-auth-type"), "aws_sigv4");
        assert!(!answer.body.to_string().contains("security token"));
    }
}

//! TLS toward servers and token endpoints, with a certificate authority that the program is told of by
//! `SSL_CERT_FILE`: whom it trusts is found out, and anybody else is refused before a secret is sent.

use crate::by_hand::ByHand;
use crate::child::{ConfigFile, Program, run};
use crate::harness::{CLIENT_SECRET, Got, KEY, echo, got, keyed, machine};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion, version};
use vestibule_testkit::{Idp, Upstream};

/// A certificate authority of one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// As `SSL_CERT_FILE`.
    fn file(&self) -> ConfigFile {
        ConfigFile::new(&self.0.pem())
    }

    /// A server's configuration with a certificate for `name`.
    fn server(&self, name: &str) -> ServerConfig {
        self.signed(&params(name), &EITHER)
    }

    fn signed(
        &self,
        params: &CertificateParams,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a configuration")
    }
}

static EITHER: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// TLS in front of a fake: what comes in is decrypted and handed on. Dropped, it closes.
struct Front {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Front {
    async fn start(of: SocketAddr, config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // Who does not like the certificate leaves here.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut inside = TcpStream::connect(of).await.expect("the fake");
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { address, task }
    }

    /// `https`, this name, its port and this path.
    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An identity provider and an MCP server that takes its tokens alone.
async fn fakes() -> (Idp, Upstream) {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept_if(idp.issued());
    (idp, upstream)
}

/// Calls the server `one` of a gateway with these URLs, which trusts this file alone, `times` over.
async fn call(url: &str, token_url: &str, trusted: &ConfigFile, times: usize) -> Got {
    let config = ConfigFile::new(&keyed(&machine("one", url, token_url, "")));
    let mut gateway = Program::serve(&config, &[("SSL_CERT_FILE", trusted.path())]);
    let base = gateway.base().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = || {
        let call = client
            .post(format!("{base}/one/mcp"))
            .header("x-litellm-api-key", KEY);
        got(call.json(&echo("over TLS")))
    };
    for _ in 1..times {
        ask().await;
    }
    let answer = ask().await;
    drop(client);
    let ended = gateway.terminated().await;
    assert_eq!(ended.code, Some(0));
    for secret in [KEY, CLIENT_SECRET] {
        assert!(!ended.err.contains(secret), "{}", ended.err);
    }
    answer
}

#[tokio::test]
async fn servers_and_token_endpoints_of_a_trusted_authority_are_used() {
    let authority = Authority::new("ours");
    let file = authority.file();
    for (host, versions) in [
        ("localhost", &EITHER[..]),
        ("127.0.0.1", &EITHER),
        ("localhost", &[&version::TLS12]),
        ("localhost", &[&version::TLS13]),
    ] {
        let (idp, upstream) = fakes().await;
        let server = Front::start(upstream.addr(), authority.signed(&params(host), versions)).await;
        let tokens = Front::start(idp.addr(), authority.signed(&params(host), versions)).await;
        let (url, token_url) = (server.url(host, "/mcp"), tokens.url(host, "/oauth/token"));
        let answer = call(&url, &token_url, &file, 3).await;
        assert_eq!(
            (answer.status, &answer.body["result"]["content"][0]["text"]),
            (200, &json!("over TLS")),
            "{answer:?}"
        );
        assert_eq!(
            (idp.requests().len(), upstream.requests().len()),
            (1, 3),
            "{host}"
        );
        assert_eq!(upstream.requests()[2].bearer(), Some(idp.last_token().as_str()));
        let host = format!("{host}:{}", server.address.port());
        assert_eq!(upstream.requests()[0].header("host"), Some(host.as_str()));
    }
}

/// Certificates that must not be taken, and what the refusal names.
fn untrusted(authority: &Authority) -> Vec<(&'static str, ServerConfig, &'static str)> {
    let mut expired = params("localhost");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let mut early = params("localhost");
    early.not_before = date_time_ymd(3001, 1, 1);
    early.not_after = date_time_ymd(3002, 1, 1);
    let mut client = params("localhost");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    vec![
        (
            "of another authority",
            Authority::new("theirs").server("localhost"),
            "UnknownIssuer",
        ),
        (
            "of another authority by the same name",
            Authority::new("ours").server("localhost"),
            "BadSignature",
        ),
        (
            "of another name",
            authority.server("elsewhere.example"),
            "localhost",
        ),
        ("of another address", authority.server("127.0.0.1"), "localhost"),
        ("of a name below", authority.server("*.localhost"), "localhost"),
        ("that is over", authority.signed(&expired, &EITHER), "expired"),
        (
            "that is not yet",
            authority.signed(&early, &EITHER),
            "not valid yet",
        ),
        ("of a client", authority.signed(&client, &EITHER), "certificate"),
    ]
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_gets_neither_token_nor_call() {
    let authority = Authority::new("ours");
    let file = authority.file();
    for (what, config, named) in untrusted(&authority) {
        let (idp, upstream) = fakes().await;
        let server = Front::start(upstream.addr(), config).await;
        let answer = call(&server.url("localhost", "/mcp"), &idp.url(), &file, 1).await;
        assert_eq!(
            (answer.status, answer.code()),
            (502, "upstream_unreachable"),
            "{what}"
        );
        assert_eq!(answer.body["id"], 7);
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(named), "{what}: {message}");
        assert!(upstream.requests().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_cannot_prove_its_name_gets_no_secret() {
    let authority = Authority::new("ours");
    let file = authority.file();
    for (what, config, named) in untrusted(&authority) {
        let (idp, upstream) = fakes().await;
        let tokens = Front::start(idp.addr(), config).await;
        let token_url = tokens.url("localhost", "/oauth/token");
        let answer = call(&upstream.url(), &token_url, &file, 1).await;
        assert_eq!(
            (answer.status, answer.code()),
            (502, "token_endpoint_unreachable"),
            "{what}"
        );
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(named), "{what}: {message}");
        assert!(
            idp.requests().is_empty() && upstream.requests().is_empty(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn without_the_authority_its_certificates_are_worth_nothing() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (idp, upstream) = fakes().await;
    let server = Front::start(upstream.addr(), authority.server("localhost")).await;
    let url = server.url("localhost", "/mcp");
    let answer = call(&url, &idp.url(), &other.file(), 1).await;
    assert_eq!((answer.status, answer.code()), (502, "upstream_unreachable"));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn https_to_a_server_without_tls_and_http_to_one_with_it_are_told() {
    let authority = Authority::new("ours");
    let file = authority.file();
    let (idp, upstream) = fakes().await;
    let plain = ByHand::start().await;
    let url = format!("https://localhost:{}/mcp", plain.addr.port());
    let no_tls = tokio::spawn(async move {
        let mut connection = plain.accept().await;
        connection
            .write("HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("written");
        connection.closed().await;
    });
    let answer = call(&url, &idp.url(), &file, 1).await;
    assert_eq!(
        (answer.status, answer.code()),
        (502, "upstream_unreachable"),
        "{answer:?}"
    );
    no_tls.await.expect("refused by the gateway");
    let server = Front::start(upstream.addr(), authority.server("localhost")).await;
    let clear = server.url("localhost", "/mcp").replace("https://", "http://");
    let answer = call(&clear, &idp.url(), &file, 1).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(
        ["upstream_not_mcp", "upstream_closed"].contains(&answer.code()),
        "{answer:?}"
    );
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn doctor_names_what_is_wrong_with_a_certificate() {
    let (trusted, stranger) = (Authority::new("trusted"), Authority::new("stranger"));
    let (idp, upstream) = fakes().await;
    for (authority, host, code, verdict) in [
        (&trusted, "localhost", 0, "ok"),
        (&stranger, "localhost", 1, "FAULT"),
        (&trusted, "elsewhere.example", 1, "FAULT"),
    ] {
        let front = Front::start(upstream.addr(), authority.server(host)).await;
        let config = machine("one", &front.url("localhost", "/mcp"), &idp.url(), "");
        let (config, file) = (ConfigFile::new(&keyed(&config)), trusted.file());
        let arguments = ["doctor", "--config", config.path(), "one"];
        let said = run(&arguments, &[("SSL_CERT_FILE", file.path())]).await;
        assert_eq!(said.code, Some(code), "{said:?}");
        let line = said.out.lines().find(|line| line.contains("  tls  "));
        let line = line.unwrap_or_else(|| panic!("{said:?}"));
        assert!(line.starts_with(verdict), "{said:?}");
        assert!(line.contains("certificate"), "{said:?}");
    }
}

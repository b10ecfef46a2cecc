//! Which servers are there for whom, by the address of the client: on every path, from inside and outside, through
//! proxies and with forged headers.

use crate::browser::{Browser, Registered, registering};
use crate::harness::{Got, KEY, Start, TestGateway, echo, entry, got, logged, personal};
use reqwest::Method;
use serde_json::{Value, json};
use vestibule_testkit::{Provider, Upstream};

const OUTSIDE: &[&str] = &["203.0.113.9"];
const INSIDE: &[&str] = &["10.1.2.3"];
const PRIVATE: &str = "available_on_public_internet: false\n";
const TRUSTED: &str = "  use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: [127.0.0.1]\n";

/// A server that everybody sees and one that is for internal clients, to both of which people sign in, and two more
/// without sign-in.
struct Site {
    gateway: TestGateway,
    plain: Upstream,
    _kept: (Provider, Upstream),
}

async fn site(general: &str) -> Site {
    let provider = Provider::start().await;
    let people = provider.upstream().await;
    let plain = Upstream::start().await;
    plain.set_tools(&["secret"]);
    let fields = format!("url: {}\nserver_id: id-plain\nalias: p2\n{PRIVATE}", plain.url());
    let servers = registering("shop", &people, "")
        + &registering(
            "vault",
            &people,
            &format!("{PRIVATE}server_id: id-vault\nalias: v2\n"),
        )
        + &entry("plain", &fields);
    let text = personal(&servers, "").replacen("mcp_servers:", &format!("{general}mcp_servers:"), 1);
    Site {
        gateway: Start::new(text).start().await,
        plain,
        _kept: (provider, people),
    }
}

async fn ask(gateway: &TestGateway, method: &str, path: &str, body: Option<&Value>, from: &[&str]) -> Got {
    let method: Method = method.parse().expect("a method");
    let mut request = gateway
        .http
        .request(method, gateway.url(path))
        .header("x-litellm-api-key", KEY)
        .header("accept", "application/json, text/event-stream");
    for line in from {
        request = request.header("x-forwarded-for", *line);
    }
    got(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

/// Whether a client that says this of itself sees the server.
async fn sees(gateway: &TestGateway, from: &[&str]) -> bool {
    let answer = ask(gateway, "POST", "/plain/mcp", Some(&echo("x")), from).await;
    match (answer.status, answer.code()) {
        (200, "") => true,
        (404, "unknown_server") => false,
        other => panic!("{other:?} {}", answer.body),
    }
}

#[tokio::test]
async fn whose_word_counts_about_an_address() {
    let usual = site(TRUSTED).await;
    let gateway = &usual.gateway;
    for (lines, inside) in [
        (&[][..], true),
        (OUTSIDE, false),
        (INSIDE, true),
        (&["203.0.113.9, 10.1.2.3"], true),
        // What the client wrote itself stands on the left.
        (&["10.1.2.3, 203.0.113.9"], false),
        (&["10.1.2.3", "203.0.113.9"], false),
        (&["127.0.0.1, 203.0.113.9"], false),
        (&["203.0.113.9", "127.0.0.1"], false),
        (&["10.1.2.3, 127.0.0.1"], true),
        (&["10.1.2.3, unknown"], false),
        (&["unknown"], false),
        (&[""], false),
        (&["10.1.2.3,"], false),
        (&["::ffff:10.1.2.3"], true),
        (&["::ffff:203.0.113.9"], false),
        (&["172.31.255.255"], true),
        (&["172.32.0.0"], false),
        (&["192.168.7.7:5000"], true),
        (&["fc00::1"], true),
        (&["[fdff::1]:443"], true),
        (&["2001:db8::1"], false),
        // Link-local and shared addresses are nobody's network until somebody says so.
        (&["169.254.1.1"], false),
        (&["fe80::1"], false),
        (&["100.64.0.1"], false),
    ] {
        assert_eq!(sees(gateway, lines).await, inside, "{lines:?}");
    }
    // No other header says where a client is.
    for (name, value) in [
        ("forwarded", "for=10.1.2.3"),
        ("x-real-ip", "10.1.2.3"),
        ("x-client-ip", "10.1.2.3"),
        ("true-client-ip", "10.1.2.3"),
    ] {
        let request = gateway
            .post("/plain/mcp", &echo("x"))
            .header("x-forwarded-for", OUTSIDE[0])
            .header(name, value);
        assert_eq!(got(request).await.code(), "unknown_server", "{name}");
    }

    let peer_outside = "  mcp_internal_ip_ranges: [10.0.0.0/8]\n";
    let two_hops = format!("{TRUSTED}  mcp_xff_num_trusted_hops: 2\n");
    let stranger = "  use_x_forwarded_for: true\n  mcp_trusted_proxy_ranges: [192.0.2.1]\n";
    let public = format!("{peer_outside}litellm_settings:\n  public_mcp_servers: [id-plain]\n");
    for (general, lines, inside) in [
        // Without a trusted proxy the peer's own address counts, whatever it writes.
        (peer_outside, &[][..], false),
        (peer_outside, INSIDE, false),
        (stranger, OUTSIDE, true),
        (&format!("{stranger}{peer_outside}"), INSIDE, false),
        (
            &format!("{TRUSTED}  mcp_internal_ip_ranges: [203.0.113.0/24]\n"),
            OUTSIDE,
            true,
        ),
        (
            &format!("{TRUSTED}  mcp_internal_ip_ranges: [203.0.113.0/24]\n"),
            INSIDE,
            false,
        ),
        (&two_hops, &["10.1.2.3, 203.0.113.9"], true),
        (&two_hops, &["10.9.9.9, 203.0.113.9, 10.1.2.3"], false),
        (&two_hops, INSIDE, false),
        (&two_hops, &[], false),
        (&public, OUTSIDE, true),
    ] {
        let site = site(general).await;
        assert_eq!(sees(&site.gateway, lines).await, inside, "{general} {lines:?}");
    }
}

/// Every path that names a server, in every spelling.
const ROUTES: &[(&str, &str)] = &[
    ("POST", "/{}/mcp"),
    ("POST", "/{}/mcp/"),
    ("POST", "/mcp/{}"),
    ("POST", "/mcp/{}/"),
    ("GET", "/{}/mcp"),
    ("DELETE", "/mcp/{}"),
    ("PUT", "/{}/mcp"),
    ("GET", "/mcp-rest/tools/list?server_id={}"),
    ("POST", "/mcp-rest/tools/call"),
    ("GET", "/v1/mcp/server/{}/oauth-user-credential/status"),
    ("POST", "/v1/mcp/server/{}/oauth-user-credential"),
    ("DELETE", "/v1/mcp/server/{}/oauth-user-credential"),
    ("GET", "/.well-known/oauth-protected-resource/{}/mcp"),
    ("GET", "/.well-known/oauth-protected-resource/mcp/{}"),
    ("GET", "/{}/mcp/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-authorization-server/{}"),
    ("GET", "/.well-known/oauth-authorization-server/{}/mcp"),
    ("GET", "/.well-known/oauth-authorization-server/mcp/{}"),
    ("GET", "/.well-known/openid-configuration/{}"),
    ("GET", "/{}/.well-known/openid-configuration"),
    ("OPTIONS", "/{}/register"),
    (
        "GET",
        "/{}/authorize?client_id=x&redirect_uri=http://localhost/cb&state=s",
    ),
    ("GET", "/mcp/{}/authorize"),
    ("POST", "/{}/authorize"),
    ("POST", "/{}/token"),
    ("POST", "/{}/mcp/token"),
    ("POST", "/{}/register"),
    ("GET", "/v1/mcp/server/oauth/{}/authorize"),
    ("POST", "/v1/mcp/server/oauth/{}/token"),
    ("POST", "/v1/mcp/server/oauth/{}/register"),
];

/// What a client sees of an answer, without what names the request and without the name it asked for.
fn seen(answer: &Got, name: &str) -> (u16, Vec<String>, String) {
    let id = answer.header("x-request-id").to_owned();
    let plain = |text: &str| text.replace(&id, "<id>").replace(name, "<name>");
    let headers = answer.headers.iter().filter(|(header, _)| *header != "date");
    let headers = headers.map(|(header, value)| plain(&format!("{header}: {value:?}")));
    (answer.status, headers.collect(), plain(&answer.body.to_string()))
}

#[tokio::test]
async fn a_server_that_is_not_for_a_client_does_not_exist_on_any_path() {
    let site = site(TRUSTED).await;
    let (gateway, plain) = (&site.gateway, &site.plain);
    for (method, path) in ROUTES {
        let mut differs = false;
        for name in ["vault", "v2", "id-vault", "plain", "p2", "id-plain"] {
            // As long as the other, so that lengths tell nothing either.
            let nobody = "q".repeat(name.len());
            let mut answers = Vec::new();
            for (name, from) in [(name, OUTSIDE), (nobody.as_str(), OUTSIDE), (name, INSIDE)] {
                let body = match *path {
                    "/mcp-rest/tools/call" => json!({"server_id": name, "name": "secret", "arguments": {}}),
                    _ => echo("x"),
                };
                let body = (*method == "POST").then_some(&body);
                let answer = ask(gateway, method, &path.replace("{}", name), body, from).await;
                answers.push(seen(&answer, name));
            }
            assert_eq!(answers[0], answers[1], "{method} {path} {name}");
            differs |= answers[0] != answers[2];
        }
        assert!(differs, "{method} {path}: from inside it is there");
    }
    let before = plain.requests().len();
    assert!(before > 0, "from inside calls arrive");

    let all = "/mcp-rest/tools/list";
    let outside = ask(gateway, "GET", all, None, OUTSIDE).await;
    let outcomes = outside.body["server_outcomes"].as_object().expect("outcomes");
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["shop"]);
    let call = json!({"name": "secret", "arguments": {}});
    for name in ["secret", "plain-secret", "p2-secret"] {
        let call = json!({"name": name, "arguments": {}});
        let refused = ask(gateway, "POST", "/mcp-rest/tools/call", Some(&call), OUTSIDE).await;
        assert_ne!(refused.status, 200);
        assert!(
            !refused.body.to_string().replace(name, "").contains("plain"),
            "{}",
            refused.body
        );
    }
    assert_eq!(plain.requests().len(), before, "nothing from outside arrived");
    let inside = ask(gateway, "GET", all, None, INSIDE).await;
    assert_eq!(inside.body["server_outcomes"]["plain"]["status"], "ok");
    let called = ask(gateway, "POST", "/mcp-rest/tools/call", Some(&call), INSIDE).await;
    assert_ne!(called.code(), "unknown_tool", "{}", called.body);
    assert!(logged().contains("asked for from outside the internal networks"));
}

#[tokio::test]
async fn the_only_server_to_sign_in_at_is_the_only_one_that_the_client_sees() {
    let site = site(TRUSTED).await;
    let gateway = &site.gateway;
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        let outside = ask(gateway, "GET", path, None, OUTSIDE).await;
        assert_eq!(outside.status, 200, "{path}");
        assert!(!outside.body.to_string().contains("vault"), "{path}");
        assert_eq!(
            ask(gateway, "GET", path, None, INSIDE).await.status,
            404,
            "{path}"
        );
    }
    for (method, path) in [("GET", "/authorize"), ("POST", "/token"), ("POST", "/register")] {
        let outside = ask(gateway, method, path, None, OUTSIDE).await;
        assert_ne!(outside.status, 404, "{path}");
        assert_eq!(
            ask(gateway, method, path, None, INSIDE).await.code(),
            "no_sign_in",
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_kept_for_a_hidden_server_is_not_shown_outside() {
    let site = site(TRUSTED).await;
    let gateway = &site.gateway;
    for path in ["/vault", "/shop"] {
        let client = Registered::at(gateway, path).await;
        let code = client.code(gateway, &Browser::new()).await;
        let request = client.exchange(gateway, &code, &[]);
        assert_eq!(got(request.header("x-litellm-api-key", KEY)).await.status, 200);
    }
    for (from, expected) in [(INSIDE, &["shop", "vault"][..]), (OUTSIDE, &["shop"])] {
        let list = ask(gateway, "GET", "/v1/mcp/user-credentials", None, from)
            .await
            .body;
        let rows = list.as_array().expect("a list");
        let mut names: Vec<_> = rows
            .iter()
            .filter_map(|row| row["server_name"].as_str())
            .collect();
        names.sort_unstable();
        assert_eq!((names.as_slice(), rows.len()), (expected, expected.len()));
        assert_eq!(list.to_string().contains("id-vault"), expected.len() == 2);
    }
}

#[tokio::test]
async fn a_session_does_not_outlast_the_way_in() {
    let site = site(TRUSTED).await;
    let (gateway, plain) = (&site.gateway, &site.plain);
    plain.set_session(Some("upstream-session"));
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}});
    let opened = ask(gateway, "POST", "/plain/mcp", Some(&initialize), INSIDE).await;
    let session = opened.header("mcp-session-id");
    for (from, status) in [(INSIDE, 200), (OUTSIDE, 404)] {
        let request = gateway
            .post("/plain/mcp", &echo("x"))
            .header("mcp-session-id", session)
            .header("x-forwarded-for", from[0]);
        assert_eq!(got(request).await.status, status, "{from:?}");
    }
}

#[tokio::test]
async fn a_provider_may_send_a_person_back_from_anywhere() {
    let site = site(TRUSTED).await;
    let gateway = &site.gateway;
    let path = "/callback?code=c&state=s";
    let [outside, inside] = [
        ask(gateway, "GET", path, None, OUTSIDE).await,
        ask(gateway, "GET", path, None, INSIDE).await,
    ];
    assert_eq!(seen(&outside, "-"), seen(&inside, "-"));
    assert_eq!(outside.status, 400);
}

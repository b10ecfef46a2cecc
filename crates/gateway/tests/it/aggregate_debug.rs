//! The debug headers of endpoints with several servers: what was shown to each, and no secret.

use crate::aggregate_sessions::{call, initialize};
use crate::aggregate_targets::request;
use crate::by_hand::Watched;
use crate::harness::{
    CLIENT_SECRET, Got, KEY, TestGateway, assert_nothing_secret_logged, entry, got, machine,
};
use serde_json::{Map, Value, json};
use vestibule_testkit::Idp;

const FIVE: [&str; 5] = [
    "x-mcp-debug-inbound-auth",
    "x-mcp-debug-oauth2-token",
    "x-mcp-debug-auth-resolution",
    "x-mcp-debug-outbound-url",
    "x-mcp-debug-server-auth-type",
];
const EACH: &str = "x-mcp-debug-auth-resolutions";
const STATIC: &str = "auth_type: bearer_token\nauthentication_token: canary-static-token";

async fn debugged(gateway: &TestGateway, path: &str, message: &Value, headers: &[(&str, &str)]) -> Got {
    let mut post = gateway.post(path, message).header("x-litellm-mcp-debug", "Yes");
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    let answer = got(post).await;
    let shown = format!("{:?}", answer.headers);
    for secret in [KEY, CLIENT_SECRET, "canary-static-token", "canary-of-the-caller"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for name in FIVE {
        assert!(!answer.header(name).is_empty(), "{name}: {shown}");
    }
    answer
}

/// What the headers say of each server's id, by the names of their entries.
fn each(answer: &Got) -> Value {
    let said: Map<String, Value> = serde_json::from_str(answer.header(EACH)).expect("JSON");
    assert!(!answer.header(EACH).contains(' '), "compact");
    let by_name = said.into_iter().map(|(id, word)| {
        let name = id.strip_prefix("id-of-").expect("the id of a server");
        (name.to_owned(), word)
    });
    by_name.collect::<Map<_, _>>().into()
}

/// One server for each way that a credential can go.
struct Servers {
    gateway: TestGateway,
    fixed: Watched,
    token: Watched,
    open: Watched,
    idp: Idp,
}

async fn servers() -> Servers {
    let (fixed, token, open) = (
        Watched::start().await,
        Watched::start().await,
        Watched::start().await,
    );
    let idp = Idp::start().await;
    let away = "url: http://127.0.0.1:9/mcp\nserver_id: id-of-away";
    let text = entry("away", &format!("{away}\n{STATIC}"))
        + &fixed.entry("fixed", &format!("server_id: id-of-fixed\n{STATIC}"))
        + &open.entry("open", "server_id: id-of-open\nextra_headers: [X-Custom]")
        + &machine("minted", &token.url(), &idp.url(), "server_id: id-of-minted")
        + &machine(
            "unminted",
            &token.url(),
            "http://127.0.0.1:9/token",
            "server_id: id-of-unminted",
        );
    Servers {
        gateway: TestGateway::with_servers(&text).await,
        fixed,
        token,
        open,
        idp,
    }
}

fn all(away: &str) -> Value {
    json!({"away": away, "fixed": "static-token", "open": "no-auth",
        "minted": "m2m-client-credentials", "unminted": "resolution-failed"})
}

#[tokio::test]
async fn lists_and_handshakes_tell_what_became_of_each_server() {
    let servers = servers().await;
    let listing = request("tools/list", &json!({}));
    let lists = debugged(&servers.gateway, "/mcp", &listing, &[]).await;
    assert_eq!(each(&lists), all("static-token"));
    for (name, value) in FIVE.into_iter().skip(2).zip(["multiple"; 3]) {
        assert_eq!(lists.header(name).trim_matches(['(', ')']), value, "{name}");
    }
    assert_eq!(lists.header("x-mcp-debug-auth-resolutions-truncated"), "");
    let hello = debugged(&servers.gateway, "/mcp", &initialize(&json!({})), &[]).await;
    assert_eq!((hello.status, each(&hello)), (200, all("static-token")));
    // It was away a moment ago, and is not asked.
    let hello = debugged(&servers.gateway, "/mcp", &initialize(&json!({})), &[]).await;
    assert_eq!(each(&hello), all("unresolved"));
    let headers = [
        ("authorization", "Bearer canary-of-the-caller"),
        ("x-mcp-servers", "fixed,open"),
    ];
    let some = debugged(&servers.gateway, "/mcp", &listing, &headers).await;
    assert_eq!(each(&some), json!({"fixed": "static-token", "open": "no-auth"}));
    assert_eq!(some.header("x-mcp-debug-oauth2-token"), "Bearer****");
    for token in servers.idp.tokens() {
        assert!(!format!("{:?}{:?}", lists.headers, hello.headers).contains(&token));
    }
    assert_nothing_secret_logged(&["canary-static-token", "canary-of-the-caller"]);
}

#[tokio::test]
async fn a_call_tells_of_its_one_server_as_the_servers_own_endpoint_does() {
    let servers = servers().await;
    let gateway = &servers.gateway;
    let own = ("x-mcp-open-authorization", "Bearer canary-of-the-caller");
    for (name, headers, status, url, resolution, auth_type) in [
        (
            "fixed-echo",
            &[][..],
            200,
            servers.fixed.url(),
            "static-token",
            "bearer_token",
        ),
        (
            "minted-echo",
            &[],
            200,
            servers.token.url(),
            "m2m-client-credentials",
            "oauth2",
        ),
        (
            "unminted-echo",
            &[],
            502,
            servers.token.url(),
            "resolution-failed",
            "oauth2",
        ),
        (
            "away-echo",
            &[],
            502,
            "http://127.0.0.1:9/mcp".into(),
            "static-token",
            "bearer_token",
        ),
        ("open-echo", &[], 200, servers.open.url(), "no-auth", "none"),
        (
            "open-echo",
            &[own],
            200,
            servers.open.url(),
            "per-request-header",
            "none",
        ),
    ] {
        let answer = debugged(gateway, "/mcp", &call(name, "x"), headers).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.header("x-mcp-debug-auth-resolution"), resolution, "{name}");
        assert_eq!(answer.header("x-mcp-debug-outbound-url"), url, "{name}");
        let shown = answer.header("x-mcp-debug-server-auth-type");
        assert_eq!(shown.trim_matches(['(', ')']), auth_type, "{name}");
        assert_eq!(answer.header(EACH), "", "{name}");
    }
    // What concerns no server.
    let nothing = [
        request("ping", &json!({})),
        request("no/such", &json!({})),
        json!({"jsonrpc": "2.0", "id": 1}),
    ];
    for message in nothing {
        let answer = debugged(gateway, "/mcp", &message, &[]).await;
        assert_eq!(
            answer.header("x-mcp-debug-auth-resolution"),
            "not-applicable",
            "{message}"
        );
        assert_eq!(answer.header("x-mcp-debug-outbound-url"), "(unknown)");
        assert_eq!(answer.header(EACH), "");
    }
    // Whoever does not ask gets none, and whoever may not come in neither.
    let silent = got(gateway.post("/mcp", &call("fixed-echo", "x"))).await;
    let stranger = gateway
        .http
        .post(gateway.url("/mcp"))
        .header("x-litellm-mcp-debug", "true");
    let stranger = got(stranger.json(&call("fixed-echo", "x"))).await;
    assert_eq!((silent.status, stranger.status), (200, 401));
    for answer in [silent, stranger] {
        assert!(
            answer
                .headers
                .keys()
                .all(|name| !name.as_str().starts_with("x-mcp-debug"))
        );
    }
}

#[tokio::test]
async fn the_gateway_key_is_told_wherever_it_could_reach_a_server() {
    let servers = servers().await;
    let key = format!("Bearer {KEY}");
    for name in [
        "authorization",
        "x-mcp-auth",
        "x-mcp-open-authorization",
        "x-custom",
    ] {
        for message in [
            request("tools/list", &json!({})),
            call("open-echo", "x"),
            initialize(&json!({})),
        ] {
            let answer = debugged(&servers.gateway, "/mcp", &message, &[(name, &key)]).await;
            let shown = answer.header("x-mcp-debug-oauth2-token");
            assert!(shown.contains("SAME_AS_LITELLM_KEY"), "{name} {message}: {shown}");
        }
    }
}

#[tokio::test]
async fn at_most_thirty_two_servers_are_told() {
    let server = Watched::start().await;
    for (count, truncated) in [(32, ""), (33, "true")] {
        let text: String = (0..count)
            .map(|number| server.entry(&format!("s{number}"), ""))
            .collect();
        let gateway = TestGateway::with_servers(&text).await;
        let answer = debugged(&gateway, "/mcp", &request("tools/list", &json!({})), &[]).await;
        let said: Map<String, Value> = serde_json::from_str(answer.header(EACH)).expect("JSON");
        assert_eq!(said.len(), 32);
        assert!(said.values().all(|word| word == "no-auth"));
        assert_eq!(answer.header("x-mcp-debug-auth-resolutions-truncated"), truncated);
    }
}

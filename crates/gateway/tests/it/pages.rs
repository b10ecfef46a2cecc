//! What pages in a browser may ask and read: documents of sign-in all of them, MCP endpoints and `/mcp-rest` those of
//! admitted origins, and never with cookies.

use crate::harness::{Got, KEY, Start, TestGateway, echo, entry, got, keyed};
use reqwest::Method;
use vestibule_testkit::{Answer, Upstream};

const EVIL: &str = "https://evil.example";
const LOCAL: &str = "http://localhost:6274";
const LISTED: &str = "https://inspector.example";
const DOORS: [(&str, &str); 6] = [
    ("/one/mcp", "POST"),
    ("/one/mcp/", "POST"),
    ("/mcp/one", "POST"),
    ("/mcp/one/", "GET"),
    ("/mcp-rest/tools/list", "GET"),
    ("/mcp-rest/tools/call", "POST"),
];

async fn start() -> (Upstream, TestGateway) {
    let upstream = Upstream::start().await;
    let servers = keyed(&entry("one", &format!("url: {}", upstream.url())));
    let own = format!("{servers}vestibule:\n  allowed_origins: [\"{LISTED}\"]\n");
    (upstream, Start::new(own).start().await)
}

async fn preflight(gateway: &TestGateway, path: &str, origin: &str, method: &str) -> Got {
    let request = gateway.http.request(Method::OPTIONS, gateway.url(path));
    let request = request
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "x-litellm-api-key");
    got(request).await
}

#[track_caller]
fn assert_readable(answer: &Got, origin: &str, what: &str) {
    assert_eq!(
        answer.header("access-control-allow-origin"),
        origin,
        "{what}: {answer:?}"
    );
    assert!(
        !answer.headers.contains_key("access-control-allow-credentials"),
        "{what}: {answer:?}"
    );
    let exposed = answer.header("access-control-expose-headers");
    for name in [
        "www-authenticate",
        "mcp-session-id",
        "mcp-protocol-version",
        "retry-after",
        "x-request-id",
    ] {
        assert!(
            exposed.split(", ").any(|other| other == name),
            "{what}: {exposed}"
        );
    }
    let varies = answer.headers.get_all("vary").iter().any(|vary| vary == "origin");
    assert_eq!(varies, origin != "*", "{what}: {answer:?}");
}

#[tokio::test]
async fn where_no_document_is_every_page_reads_the_same() {
    let (_upstream, gateway) = start().await;
    for document in [
        "oauth-protected-resource",
        "oauth-authorization-server",
        "openid-configuration",
    ] {
        for path in [
            format!("/.well-known/{document}/"),
            format!("/.well-known/{document}/a/b/c"),
            format!("/.well-known/{document}/mcp"),
            format!("/.well-known/{document}/toolset/x/mcp"),
            format!("/one/.well-known/{document}/mcp"),
            format!("/one/.well-known/{document}/"),
            format!("/toolset/x/.well-known/{document}"),
            format!("/mcp/one,two/.well-known/{document}"),
            format!("/.well-known/{document}/nobody/mcp"),
        ] {
            let answer = got(gateway.http.get(gateway.url(&path)).header("origin", EVIL)).await;
            assert_eq!(
                (answer.status, answer.header("content-type"), answer.code()),
                (404, "application/json", "no_sign_in"),
                "{path}"
            );
            assert_readable(&answer, "*", &path);
            let allowed = preflight(&gateway, &path, EVIL, "GET").await;
            assert_eq!(allowed.status, 204, "{path}: {allowed:?}");
            assert_readable(&allowed, "*", &path);
        }
    }
    let other = gateway.http.get(gateway.url("/.well-known/security.txt"));
    let other = got(other.header("origin", EVIL)).await;
    assert_eq!((other.status, other.code()), (403, "origin_not_allowed"));
}

#[tokio::test]
async fn a_browser_may_ask_before_it_shows_a_key() {
    let (upstream, gateway) = start().await;
    for (door, method) in DOORS {
        for origin in [LOCAL, LISTED] {
            let allowed = preflight(&gateway, door, origin, method).await;
            assert_eq!(allowed.status, 204, "{door}: {allowed:?}");
            assert_readable(&allowed, origin, door);
            let methods = allowed.header("access-control-allow-methods");
            assert!(methods.contains(method), "{door}: {methods}");
            let headers = allowed.header("access-control-allow-headers");
            assert!(headers.contains("x-litellm-api-key"), "{door}: {headers}");
        }
        let refused = preflight(&gateway, door, EVIL, method).await;
        assert_eq!(
            (refused.status, refused.header("access-control-allow-origin")),
            (403, ""),
            "{door}"
        );
        // Not a browser's question.
        let plain = gateway.http.request(Method::OPTIONS, gateway.url(door));
        let plain = got(plain.header("origin", LOCAL)).await;
        assert!(matches!(plain.status, 401 | 405), "{door}: {plain:?}");
        assert_readable(&plain, LOCAL, door);
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn pages_that_may_call_read_answers_and_refusals() {
    let (upstream, gateway) = start().await;
    let key = format!("Bearer {KEY}");
    for origin in [LOCAL, LISTED] {
        for door in ["/one/mcp", "/mcp/one/", "/nobody/mcp", "/mcp"] {
            let bare = gateway.http.post(gateway.url(door)).json(&echo("x"));
            assert_readable(&got(bare.header("origin", origin)).await, origin, door);
            let call = gateway.post(door, &echo("x")).header("origin", origin);
            assert_readable(&got(call).await, origin, door);
        }
        for (path, with_key) in [
            ("/mcp-rest/tools/list", true),
            ("/mcp-rest/tools/list", false),
            ("/mcp-rest/nothing", true),
        ] {
            let mut request = gateway.http.get(gateway.url(path)).header("origin", origin);
            if with_key {
                request = request.header("x-litellm-api-key", &key);
            }
            assert_readable(&got(request).await, origin, path);
        }
        // A server's own word on who may read does not count.
        let own = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("content-type", "application/json"),
        ];
        upstream.push(Answer::raw(200, &own, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#));
        let call = got(gateway.post("/one/mcp", &echo("x")).header("origin", origin)).await;
        assert_eq!(call.status, 200, "{call:?}");
        assert_readable(&call, origin, "the server's own");
    }
    let call = got(gateway.post("/one/mcp", &echo("x"))).await;
    assert_eq!(call.status, 200);
    assert!(
        !call.headers.contains_key("access-control-allow-origin"),
        "{call:?}"
    );
    let refused = got(gateway.post("/one/mcp", &echo("x")).header("origin", EVIL)).await;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (403, "")
    );
}

//! Whether servers answer, as the management says it: what was seen, by which step it failed, and no more than is known.

use crate::harness::{
    CLIENT_SECRET, Start, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed, machine,
    personal,
};
use crate::servers_harness::{SERVERS, Site, ask, ask_as};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Idp, Reply, Upstream, free_addr};

async fn health(gateway: &TestGateway, query: &str) -> Vec<Value> {
    let path = format!("{SERVERS}/health{query}");
    let got = ask(gateway, Method::GET, &path, None).await;
    assert_eq!(got.status, 200, "{}", got.body);
    got.body.as_array().expect("a list").clone()
}

#[tokio::test]
async fn each_fault_is_told_with_its_step_and_nothing_is_claimed() {
    let (up, refusing, broken) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    refusing.accept("another-token");
    broken.push_for("initialize", Answer::json(500, &json!({})));
    let idp = Idp::start().await;
    idp.set_default(Reply::error(401, "invalid_client"));
    let servers = [
        entry("up", &format!("url: {}\nserver_id: up", up.url())),
        entry(
            "down",
            &format!("url: http://{}/mcp\nserver_id: down", free_addr()),
        ),
        entry(
            "refused",
            &format!(
                "url: {}\nserver_id: refused\nauth_type: bearer_token\nauth_value: canary-wrong",
                refusing.url()
            ),
        ),
        entry("broken", &format!("url: {}\nserver_id: broken", broken.url())),
        machine("tokenless", &up.url(), &idp.url(), "server_id: tokenless"),
        entry(
            "people",
            &format!(
                "url: {}\nserver_id: people\nauth_type: oauth2\noauth2_flow: authorization_code",
                up.url()
            ),
        ),
        entry(
            "callers",
            &format!(
                "url: {}\nserver_id: callers\nextra_headers: [X-Api-Key]",
                up.url()
            ),
        ),
        entry(
            "through",
            &format!(
                "url: {}\nserver_id: through\nauth_type: true_passthrough",
                up.url()
            ),
        ),
    ];
    let gateway = Start::new(personal(&servers.concat(), "")).start().await;
    let rows = health(&gateway, "").await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {}",
                text("server_id"),
                text("status"),
                text("health_check_step"),
                text("health_check_code")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "up healthy - -",
            "down unhealthy connect upstream_unreachable",
            "refused unhealthy session upstream_refused_credential",
            "broken unhealthy session upstream_not_mcp",
            "tokenless unhealthy credential token_refused",
            "people unknown - -",
            "callers unknown - -",
            "through unknown - -",
        ]
    );
    for row in &rows {
        let error = row["health_check_error"].as_str();
        assert_eq!(error.is_none(), row["status"] == "healthy", "{row}");
        let looked = row["status"] != "unknown";
        assert_eq!(row["last_health_check"].is_string(), looked, "{row}");
        assert_eq!(row["status_since"].is_string(), looked, "{row}");
    }
    let two = health(&gateway, "?server_ids=up&server_ids=down&server_ids=nobody").await;
    assert_eq!(two.len(), 2);
    assert_nothing_secret_logged(&["canary-wrong", CLIENT_SECRET]);
}

#[tokio::test]
async fn looks_are_ten_seconds_apart_and_calls_count_too() {
    let upstream = Upstream::start().await;
    let gateway =
        TestGateway::with_servers(&entry("one", &format!("url: {}\nserver_id: one", upstream.url()))).await;
    let opened = || {
        let requests = upstream.requests();
        requests
            .iter()
            .filter(|request| request.contains("\"initialize\""))
            .count()
    };
    let status = |rows: Vec<Value>| rows[0]["status"].as_str().expect("text").to_owned();
    assert_eq!(status(health(&gateway, "").await), "healthy");
    assert_eq!(opened(), 1);
    // Looked at a moment ago, by whichever door.
    health(&gateway, "").await;
    ask(&gateway, Method::GET, &format!("{SERVERS}/one"), None).await;
    assert_eq!(opened(), 1);
    gateway.advance(11);
    upstream.push_for("initialize", Answer::json(500, &json!({})));
    let row = ask(&gateway, Method::GET, &format!("{SERVERS}/one"), None)
        .await
        .body;
    assert_eq!((&row["status"], opened()), (&json!("unhealthy"), 2));
    // A call that came back is the later news.
    gateway.advance(1);
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    assert_eq!(status(health(&gateway, "").await), "healthy");
    assert_eq!(opened(), 2);
    // A list looks at nothing.
    gateway.advance(1000);
    let list = ask(&gateway, Method::GET, SERVERS, None).await.body;
    assert_eq!((&list[0]["status"], opened()), (&json!("unhealthy"), 2));
}

#[tokio::test]
async fn a_call_that_failed_on_its_way_is_a_sign_until_one_comes_back() {
    let (broken, silent) = (Upstream::start().await, Upstream::start().await);
    let servers = [
        entry("broken", &format!("url: {}\nserver_id: broken", broken.url())),
        entry(
            "down",
            &format!("url: http://{}/mcp\nserver_id: down", free_addr()),
        ),
        entry(
            "silent",
            &format!("url: {}\nserver_id: silent\ntimeout: 0.2", silent.url()),
        ),
        // Nobody looks at it, and calls are all that there is to go by.
        entry(
            "people",
            &format!(
                "url: http://{}/mcp\nserver_id: people\nauth_type: true_passthrough",
                free_addr()
            ),
        ),
        entry(
            "refusing",
            &format!(
                "url: {}\nserver_id: refusing\nauth_type: true_passthrough",
                broken.url()
            ),
        ),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    let listed = async || {
        let list = ask(&gateway, Method::GET, SERVERS, None).await.body;
        let rows = list.as_array().expect("a list").clone();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let told = |row: &Value| {
            let columns = ["server_id", "status", "health_check_step", "health_check_code"];
            columns.map(|name| text(row, name)).join(" ")
        };
        rows.iter().map(told).collect::<Vec<_>>()
    };
    let unknown = ["broken", "down", "silent", "people", "refusing"].map(|id| format!("{id} unknown - -"));
    assert_eq!(listed().await, unknown);
    broken.push(Answer::raw(503, &[("Content-Type", "text/plain")], b"not now"));
    silent.push(Answer::Gate(Arc::new(Semaphore::new(0))));
    let by_a_stranger = async |path: &str| {
        let request = gateway.http.post(gateway.url(path));
        let request = request.header("accept", "application/json, text/event-stream");
        got(request.bearer_auth("canary-token").json(&echo("a")))
            .await
            .status
    };
    // What one sees who has no key may be of their own making, unless there is no connection.
    assert_eq!(by_a_stranger("/refusing/mcp").await, 503);
    assert_eq!(by_a_stranger("/people/mcp").await, 502);
    broken.push(Answer::raw(503, &[("Content-Type", "text/plain")], b"not now"));
    for name in ["broken", "down", "silent"] {
        let (status, body) = gateway.echo(&format!("/{name}/mcp"), "a").await;
        assert!(status >= 500, "{name}: {status} {body}");
    }
    // What the caller shows is no sign of the server's.
    broken.accept("another-token");
    assert_eq!(gateway.echo("/refusing/mcp", "a").await.0, 401);
    assert_eq!(
        listed().await,
        [
            "broken unhealthy session upstream_error",
            "down unhealthy connect upstream_unreachable",
            "silent unhealthy session upstream_timeout",
            "people unhealthy connect upstream_unreachable",
            "refusing unknown - -",
        ]
    );
    assert_eq!(gateway.echo("/silent/mcp", "a").await.0, 200);
    gateway.advance(299);
    assert_eq!(listed().await[2], "silent healthy - -");
    assert_eq!(listed().await[3], "people unhealthy connect upstream_unreachable");
    gateway.advance(1);
    assert_eq!(listed().await, unknown);
}

#[tokio::test]
async fn whoever_manages_nothing_learns_no_address() {
    let site = Site::new();
    let address = free_addr();
    let text = keyed(&entry(
        "one",
        &format!("url: http://{address}/mcp\nserver_id: one\nallow_all_keys: true"),
    ));
    let gateway = site.gateway(text).start().await;
    let member = site.key(&gateway, ("ada", "member"), &json!({})).await;
    for path in [
        format!("{SERVERS}/health"),
        format!("{SERVERS}/one"),
        SERVERS.to_owned(),
    ] {
        let seen = ask_as(&gateway, &member, Method::GET, &path, None).await;
        assert_eq!(seen.status, 200);
        let text = seen.body.to_string();
        assert!(
            text.contains("unhealthy") && !text.contains(&address.port().to_string()),
            "{text}"
        );
    }
    let admin = health(&gateway, "").await;
    assert!(admin[0]["health_check_error"].is_string(), "{}", admin[0]);
}

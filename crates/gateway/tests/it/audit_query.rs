//! How the record is read, by whom, and for how long there is something to read.

use crate::audit_harness::{Kept, only};
use crate::console_harness::Person;
use crate::harness::{KEY, TestGateway, echo, entry, got, keyed};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::time::timeout;
use vestibule_store::AuditEntry;
use vestibule_testkit::{DEADLINE, Upstream};

async fn pair(kept: &Kept, more: &str) -> (Upstream, TestGateway) {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let servers = entry("one", &format!("url: {url}")) + &entry("two", &format!("url: {url}"));
    let gateway = kept.start(keyed(&servers) + more).start().await;
    (upstream, gateway)
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter()
        .map(|row| row["id"].as_i64().expect("a number"))
        .collect()
}

#[tokio::test]
async fn rows_are_found_by_what_they_say() {
    let kept = Kept::new();
    let ann = kept.key("k-ann", Some("ann"), &only(&["one", "two"])).await;
    let (_upstream, gateway) = pair(&kept, "").await;
    gateway.echo("/one/mcp", "x").await;
    gateway.advance(60);
    let second = got(gateway
        .http
        .post(gateway.url("/two/mcp"))
        .bearer_auth(&ann)
        .header("accept", "application/json, text/event-stream")
        .json(&echo("x")))
    .await;
    gateway.echo("/none/mcp", "x").await;
    let all = gateway.until_rows("", 3).await;
    let at = |index: usize| all[index]["at"].as_str().expect("a time").to_owned();
    for (query, expected) in [
        ("server=one".to_owned(), &[0][..]),
        ("tool=echo".to_owned(), &[0, 1]),
        ("user_id=ann".to_owned(), &[1]),
        ("key_id=k-ann".to_owned(), &[1]),
        ("outcome=ok".to_owned(), &[0, 1]),
        ("outcome=unknown_server".to_owned(), &[2]),
        ("kind=call,change".to_owned(), &[0, 1, 2]),
        ("kind=change".to_owned(), &[]),
        (format!("request_id={}", second.header("x-request-id")), &[1]),
        (format!("since={}", at(1)), &[1, 2]),
        (format!("until={}", at(1)), &[0]),
        (format!("server=two&user_id=ann&since={}", at(0)), &[1]),
        ("server=one&user_id=ann".to_owned(), &[]),
    ] {
        let found: Vec<i64> = ids(&gateway.rows(&query).await);
        let expected: Vec<i64> = expected.iter().map(|index| ids(&all)[*index]).collect();
        assert_eq!(found, expected, "{query}");
    }
    let refused = got(gateway.get_with(KEY, "/v1/audit?colour=red")).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_query"));
    let one = got(gateway.get_with(KEY, &format!("/v1/audit/{}", second.header("x-request-id")))).await;
    assert_eq!(one.body["entries"][0]["id"], all[1]["id"]);
    let none = got(gateway.get_with(KEY, "/v1/audit/0000000000000000")).await;
    assert_eq!((none.status, none.code()), (404, "no_such_entry"));
}

#[tokio::test]
async fn pages_and_tails_miss_nothing() {
    let kept = Kept::new();
    let (_upstream, gateway) = pair(&kept, "").await;
    for _ in 0..7 {
        gateway.echo("/one/mcp", "x").await;
    }
    let all = ids(&gateway.until_rows("", 7).await);
    let page = |query: String| {
        let gateway = &gateway;
        async move {
            got(gateway.get_with(KEY, &format!("/v1/audit?{query}")))
                .await
                .body
        }
    };
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let page = page(format!("limit=3{before}")).await;
        found.extend(ids(page["entries"].as_array().expect("rows")));
        match page["next"].as_i64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    found.reverse();
    assert_eq!(found, all);
    // A tail begins behind what was seen, and goes forward.
    let tail = page(format!("after={}&limit=2", all[3])).await;
    assert_eq!(ids(tail["entries"].as_array().expect("rows")), all[4..6]);
}

#[tokio::test]
async fn everybody_reads_their_own_and_admins_read_all() {
    let kept = Kept::new();
    let ann = kept.key("k-ann", Some("ann"), &only(&["one"])).await;
    let second = kept.key("k-second", Some("ann"), &only(&["one"])).await;
    let whole = kept.key("k-whole", Some("ann"), &json!({})).await;
    let robot = kept.key("k-robot", None, &only(&["one"])).await;
    let (_upstream, gateway) = pair(&kept, "").await;
    for key in [&ann, &second, &robot] {
        let call = gateway.http.post(gateway.url("/one/mcp")).bearer_auth(key);
        let call = call
            .header("accept", "application/json, text/event-stream")
            .json(&echo("x"));
        assert_eq!(got(call).await.status, 200);
    }
    let all = gateway.until_rows("kind=call", 3).await;
    let read = |key: &str, query: &str| got(gateway.get_with(key, &format!("/v1/audit{query}")));
    for query in ["", "?user_id=ann", "/export"] {
        let refused = read(&ann, query).await;
        assert_eq!(
            (refused.status, refused.code()),
            (403, "admin_required"),
            "{query}"
        );
    }
    let keys_read_by = async |key: &str| -> BTreeSet<String> {
        let own = read(key, "?mine=true&kind=call").await.body;
        let rows = own["entries"].as_array().expect("rows").clone();
        let keys = rows.iter().map(|row| row["key_id"].as_str().expect("a key"));
        keys.map(str::to_owned).collect()
    };
    let both = BTreeSet::from(["k-ann".to_owned(), "k-second".to_owned()]);
    assert_eq!(keys_read_by(&whole).await, both);
    assert_eq!(keys_read_by(&ann).await, BTreeSet::from(["k-ann".to_owned()]));
    let own = read(&robot, "?mine=true&kind=call").await.body;
    assert_eq!(ids(own["entries"].as_array().expect("rows")), [ids(&all)[2]]);
    // Nobody reads another's by naming them.
    for (key, query) in [(&whole, "user_id=bob"), (&ann, "key_id=k-second")] {
        let refused = read(key, &format!("?mine=true&{query}")).await;
        assert_eq!(refused.status, 403, "{query}");
    }
    let id = all[2]["request_id"].as_str().expect("an id");
    assert_eq!(read(&ann, &format!("/{id}?mine=true")).await.status, 404);
    assert_eq!(read(&robot, &format!("/{id}?mine=true")).await.status, 200);
    assert_eq!(read("sk-nobody", "?mine=true").await.status, 401);
    let nobody = read(KEY, "?mine=true").await;
    assert_eq!((nobody.status, nobody.code()), (400, "no_person"));
}

#[tokio::test]
async fn an_export_is_every_row_as_a_line() {
    let kept = Kept::new();
    let (_upstream, gateway) = pair(&kept, "").await;
    gateway.echo("/one/mcp", "x").await;
    gateway.row("").await;
    // More than an export has in memory at once.
    kept.behind(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1400) \
         INSERT INTO audit (at_ms, kind, server, outcome, trace) \
         SELECT 1000000000000 + i, 'call', 'two', 'ok', '{\"lost\":' || i || '}' FROM n",
    )
    .await;
    let export = gateway.get_with(KEY, "/v1/audit/export?server=two");
    let response = export.send().await.expect("answered");
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "application/jsonl; charset=utf-8"
    );
    assert!(
        response.headers()["content-disposition"]
            .to_str()
            .expect("text")
            .contains("audit.jsonl")
    );
    let text = response.text().await.expect("a body");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 1400);
    assert!(ids(&rows).is_sorted());
    assert_eq!(rows[1399]["trace"]["lost"], 1400);
    let until = "/v1/audit/export?server=two&until=2001-09-09T01:46:40.101Z";
    let part = gateway.get_with(KEY, until).send().await.expect("answered");
    assert_eq!(part.text().await.expect("a body").lines().count(), 100);
    let limited = got(gateway.get_with(KEY, "/v1/audit/export?limit=5")).await;
    assert_eq!((limited.status, limited.code()), (400, "bad_query"));
}

#[tokio::test]
async fn rows_are_kept_as_long_as_the_operator_wants() {
    const DAY: u64 = 24 * 60 * 60;
    let (kept, forever) = (Kept::new(), Kept::new());
    let (_a, gateway) = pair(&kept, "vestibule:\n  audit: {retention_days: 2}\n").await;
    let (_b, other) = pair(&forever, "vestibule:\n  audit: {retention_days: forever}\n").await;
    for gateway in [&gateway, &other] {
        gateway.echo("/one/mcp", "old").await;
        gateway.row("").await;
        gateway.advance(DAY);
        gateway.echo("/two/mcp", "new").await;
        gateway.until_rows("", 2).await;
        gateway.advance(DAY + 60);
    }
    let pruned = async { while gateway.rows("").await.len() > 1 {} };
    let pruned = tokio::time::timeout(vestibule_testkit::DEADLINE, pruned).await;
    assert!(pruned.is_ok(), "never pruned");
    assert_eq!(gateway.row("").await["server"], "two");
    assert_eq!(other.rows("").await.len(), 2);
}

#[tokio::test]
async fn a_store_that_takes_no_rows_stops_no_call_and_what_is_lost_is_told() {
    let kept = Kept::new();
    let (_upstream, gateway) = pair(&kept, "").await;
    kept.behind("ALTER TABLE audit RENAME TO elsewhere").await;
    for _ in 0..5 {
        assert_eq!(gateway.echo("/one/mcp", "x").await.0, 200);
    }
    gateway
        .until_metric("vestibule_audit_entries_lost_total", |lost| lost == 5)
        .await;
    kept.behind("ALTER TABLE elsewhere RENAME TO audit").await;
    let row = gateway.row("kind=lost").await;
    assert_eq!(
        (&row["outcome"], &row["trace"]["lost"]),
        (&json!("entries_lost"), &json!(5))
    );
    gateway.echo("/one/mcp", "x").await;
    gateway.row("kind=call").await;
}

#[tokio::test]
async fn what_was_recorded_is_written_before_the_gateway_ends() {
    let kept = Kept::new();
    let (_upstream, mut gateway) = pair(&kept, "").await;
    for _ in 0..20 {
        assert_eq!(gateway.echo("/one/mcp", "x").await.0, 200);
    }
    assert!(gateway.stop().await.expect("stopped"));
    assert_eq!(
        kept.behind("UPDATE audit SET server = 'seen' WHERE kind = 'call'")
            .await,
        20
    );
}

#[tokio::test]
async fn strangers_do_not_fill_the_record() {
    let kept = Kept::new();
    let (_upstream, gateway) = pair(&kept, "").await;
    // Time stands still, so all of it is one second.
    for _ in 0..130 {
        let knock = gateway.http.post(gateway.url("/one/mcp")).json(&echo("x"));
        assert_eq!(got(knock).await.status, 401);
    }
    gateway
        .until_metric("vestibule_audit_entries_lost_total", |lost| lost == 30)
        .await;
    assert_eq!(
        gateway
            .until_rows("outcome=missing_key&limit=500", 100)
            .await
            .len(),
        100
    );
    // Who has a key is recorded all the same.
    gateway.echo("/one/mcp", "x").await;
    gateway.row("outcome=ok").await;
}

/// So many rows that an export does not fit into what is on the way to a client that reads nothing.
async fn much(kept: &Kept) {
    let row = AuditEntry {
        at_ms: 1,
        kind: "change".into(),
        user_id: Some("x".repeat(500)),
        key_alias: Some("x".repeat(500)),
        client: Some("x".repeat(500)),
        tool: Some("x".repeat(500)),
        outcome: Some("x".repeat(500)),
        flow: Some("x".repeat(500)),
        ..AuditEntry::default()
    };
    let rows = vec![row; 10_000];
    kept.store().await.append_audit(&rows).await.expect("kept");
}

#[tokio::test]
async fn a_caller_reads_one_thing_at_a_time() {
    let kept = Kept::new();
    let ann = kept.key("k-ann", Some("ann"), &only(&["one"])).await;
    let (_upstream, gateway) = pair(&kept, "").await;
    much(&kept).await;
    let status = async |key: &str, path: &str| got(gateway.get_with(key, path)).await.status;
    let export = gateway
        .get_with(KEY, "/v1/audit/export")
        .send()
        .await
        .expect("answered");
    assert_eq!(export.status(), 200);
    for path in ["/v1/audit?limit=1", "/v1/audit/export", "/v1/audit/none"] {
        let busy = got(gateway.get_with(KEY, path)).await;
        assert_eq!(
            (busy.status, busy.code(), busy.header("retry-after")),
            (429, "audit_busy", "1"),
            "{path}"
        );
    }
    // Nobody waits for another caller; and whoever asks for nothing that there is has no turn to lose.
    assert_eq!(status(&ann, "/v1/audit?mine=true").await, 200);
    assert_eq!(status(KEY, "/v1/audit?colour=red").await, 400);
    // With the client goes its turn.
    drop(export);
    let again = async { while status(KEY, "/v1/audit?limit=1").await != 200 {} };
    assert!(timeout(DEADLINE, again).await.is_ok(), "never free again");
    // What is over when the client has it is over for the gateway.
    for _ in 0..20 {
        assert_eq!(status(KEY, "/v1/audit?limit=1").await, 200);
        assert_eq!(status(&ann, "/v1/audit/export?mine=true").await, 200);
    }
    // A page of the console comes after what the same person reads, if that is soon over.
    let operator = Person::operator(&gateway).await;
    let (page, rows) = tokio::join!(operator.open("/ui/activity"), operator.open("/ui/activity/rows"));
    assert_eq!((page.status, rows.status), (200, 200));
}

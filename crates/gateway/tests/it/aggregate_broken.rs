//! Twenty servers of which seven are broken, each in its own way.

use crate::aggregate_sessions::{begun, call, within};
use crate::aggregate_targets::{list, names, request};
use crate::by_hand::{Nobody, Watched};
use crate::harness::{Start, entry, keyed, logged};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use vestibule_testkit::{Answer, Upstream};

#[tokio::test]
async fn thirteen_of_twenty_are_served_in_time_and_seven_are_named() {
    let nobody = Nobody::new();
    let mut text = String::new();
    let mut fine = Vec::new();
    for index in 0..13 {
        let server = Watched::start().await;
        text += &server.entry(&format!("fine{index}"), "");
        fine.push(server);
    }
    text += &entry("refusing", &format!("url: {}", nobody.url()));
    let mut broken: Vec<Upstream> = Vec::new();
    for name in ["hanging", "closing", "wanting", "failing", "html", "huge"] {
        let server = Upstream::start().await;
        text += &entry(name, &format!("url: {}", server.url()));
        broken.push(server);
    }
    broken[2].accept("nobody has it");
    // Huge is read by hand below: its list has no end in sight.
    let flood = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"{}"}}]}}}}"#,
        "x".repeat(100 * 1024 * 1024)
    );
    let listing = Duration::from_secs(2);
    let text = keyed(&text) + "vestibule: {limits: {listing_timeout: 2, open_timeout: 1}}\n";
    let gateway = Start::new(text).start().await;
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let (stream, handle) = Answer::sse();
    broken[0].push_for("tools/list", Answer::Hang);
    broken[1].push_for("tools/list", stream);
    broken[3].push_for("tools/list", Answer::json(500, &json!({"oops": true})));
    broken[4].push_for("tools/list", Answer::Html);
    broken[5].push_for(
        "tools/list",
        Answer::raw(200, &[("Content-Type", "application/json")], flood),
    );
    let closing = async {
        handle.send("data: {\"jsonrpc\":\"2.0\",").await.expect("sent");
        handle.abort().await.expect("cut off");
    };
    let started = Instant::now();
    let message = request("tools/list", &json!({}));
    let (listed, ()) = tokio::join!(within(&gateway, "/mcp", &session, &message), closing);
    let took = started.elapsed();
    assert!(
        took < listing.mul_f64(1.1) + Duration::from_millis(400),
        "{took:?}"
    );
    let served = names(&listed.body, "tools");
    let expected: Vec<String> = (0..13).map(|index| format!("fine{index}-echo")).collect();
    assert_eq!(served, expected);
    let outcomes = &listed.body["result"]["_meta"]["litellm.ai/server_outcomes"];
    for (name, status, code) in [
        ("refusing", "unreachable", "upstream_unreachable"),
        ("hanging", "timeout", "listing_timeout"),
        ("closing", "upstream_error", "upstream_truncated"),
        ("wanting", "auth_required", "upstream_wants_credential"),
        ("failing", "upstream_error", "upstream_not_mcp"),
        ("html", "upstream_error", "upstream_not_mcp"),
        ("huge", "upstream_error", "upstream_not_mcp"),
    ] {
        let outcome = &outcomes[name];
        assert_eq!(
            (&outcome["status"], &outcome["code"]),
            (&json!(status), &json!(code)),
            "{name}: {outcome}"
        );
        assert!(outcome["next_step"].as_str().is_some_and(|text| !text.is_empty()));
        let line = format!("server=\"{name}\" code=\"{code}\"");
        assert!(logged().contains(&line), "{line}");
    }
    assert_eq!(outcomes.as_object().expect("outcomes").len(), 20);
    // None of them is in the way of a call.
    let called = within(&gateway, "/mcp", &session, &call("fine7-echo", "x")).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "x");
}

#[tokio::test]
async fn a_list_without_an_end_ends_at_a_bound() {
    let server = Watched::start().await;
    let gateway = Start::new(keyed(&(server.entry("a", "") + &server.entry("b", ""))))
        .start()
        .await;
    // Looking for a shortened name reads all pages, and each has a next one.
    server.answer_with("tools/list", r#"{"tools":[{"name":"x"}],"nextCursor":"on"}"#);
    let session = begun(&gateway, "/mcp", &json!({})).await;
    let message = call("a-x_01234567", "x");
    let looking = within(&gateway, "/mcp", &session, &message);
    let refused = timeout(Duration::from_secs(15), looking).await.expect("an end");
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_not_mcp"),
        "{}",
        refused.body
    );
    assert!(refused.body.to_string().contains("does not end"));
    assert_eq!(list(&gateway, "/mcp", "tools/list").await.status, 200);
}

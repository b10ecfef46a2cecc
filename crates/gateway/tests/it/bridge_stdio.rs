//! Programs as MCP servers behind the gateway: what every bridge does, what a program gets to see, and that none
//! is left behind, however it or its client behaves.

use crate::bridge_harness::{Client, Messages, behaves_as_streamable_http, call, initialize, text};
use crate::harness::{
    CLIENT_SECRET, KEY, Start, TestGateway, assert_nothing_secret_logged, got, keyed, logged,
};
use crate::live::Site;
use crate::stdio_peer::{entry, program};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use vestibule_testkit::{DEADLINE, random_hex};

fn start(servers: &str, limits: &str) -> Start {
    start_with(&format!("{}{limits}", keyed(servers)))
}

fn start_with(text: &str) -> Start {
    Start::new(text)
        .environment("VESTIBULE_ENABLE_STDIO", "true")
        .environment("VESTIBULE_STDIO_EXTRA_COMMANDS", &program())
        .environment("PATH", "/usr/bin:/bin")
        .environment("LITELLM_SALT_KEY", "canary-salt-0123456789")
        .environment("CLIENT_SECRET", CLIENT_SECRET)
}

async fn gateway(more: &str) -> TestGateway {
    start(&entry("one", more), "").start().await
}

/// Waits until there is no process of this number, not even a dead one that nobody has asked about.
async fn gone(pid: &str) {
    let place = Path::new("/proc").join(pid);
    let gone = async {
        while place.exists() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        timeout(DEADLINE, gone).await.is_ok(),
        "process {pid} is still there"
    );
}

async fn pid(client: &Client<'_>) -> String {
    text(&client.ask(&call(1, "pid", "")).await).to_owned()
}

#[tokio::test]
async fn a_program_behaves_as_a_server_of_streamable_http() {
    let gateway = gateway("").await;
    behaves_as_streamable_http(&gateway).await;
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    let debug = gateway
        .post("/one/mcp", &call(1, "echo", ""))
        .header("x-litellm-mcp-debug", "true");
    let debug = got(debug).await;
    let name = Path::new(&program())
        .file_name()
        .expect("a name")
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(debug.header("x-mcp-debug-outbound-url"), format!("stdio:{name}"));
}

#[tokio::test]
async fn a_program_sees_its_own_environment_alone() {
    let token = format!("canary-{}", random_hex());
    let gateway = gateway("env: {CANARY_TOKEN: '${X-One-Token}', FIXED: os.environ/CLIENT_SECRET}").await;
    let client = Client::open(
        &gateway,
        "/one/mcp",
        &[("x-one-token", &token), ("x-other", "not-named")],
    )
    .await;
    let answer = client.ask(&call(2, "environment", "")).await;
    let environment = text(&answer);
    let mut names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    names.sort_unstable();
    let get = |name: &str| {
        names
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    };
    assert_eq!(get("CANARY_TOKEN"), Some(token.as_str()));
    assert_eq!(get("FIXED"), Some(CLIENT_SECRET));
    assert_eq!(get("PATH"), Some("/usr/bin:/bin"));
    assert!(get("NPM_CONFIG_CACHE").is_some_and(|path| path.starts_with("/tmp/vestibule-npm-")));
    // Nothing of this process, whose environment is full.
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(!environment.contains(KEY) && !environment.contains("canary-salt"));

    // It said its token on standard error, and the log does not repeat it.
    assert!(logged().contains(r#"stderr="started with token Some(\"****\")""#));
    assert_nothing_secret_logged(&[&token]);
}

#[tokio::test]
async fn a_header_that_is_missing_or_holds_the_key_is_no_empty_value() {
    let gateway = gateway("env: {CANARY_TOKEN: 'Bearer ${X-One-Token}'}").await;
    let key = format!("Bearer {KEY}");
    for values in [&[][..], &[""], &[key.as_str()], &["a", "b"], &["caf\u{e9}"]] {
        let mut request = gateway.post("/one/mcp", &initialize());
        for value in values {
            request = request.header("x-one-token", *value);
        }
        let refused = got(request).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "missing_server_header"),
            "{values:?}"
        );
        assert!(
            refused.body.to_string().contains("x-one-token"),
            "{}",
            refused.body
        );
    }
    assert_eq!(gateway.metric("vestibule_stdio_processes").await, 0);
    assert_eq!(gateway.metric("vestibule_bridge_sessions").await, 0);
}

#[tokio::test]
async fn two_people_never_meet() {
    let gateway = gateway("env: {CANARY_TOKEN: '${X-One-Token}'}").await;
    let one = Client::open(&gateway, "/one/mcp", &[("x-one-token", "token-of-one")]).await;
    let two = Client::open(&gateway, "/one/mcp", &[("x-one-token", "token-of-two")]).await;
    assert_ne!(pid(&one).await, pid(&two).await);
    for (client, own, other) in [
        (&one, "token-of-one", "token-of-two"),
        (&two, "token-of-two", "token-of-one"),
    ] {
        let environment = client.ask(&call(2, "environment", "")).await.to_string();
        assert!(environment.contains(own) && !environment.contains(other));
    }
    // The same ids at the same time, with progress under the same tokens.
    let run = |client: &Client<'_>, who: &str| {
        let (post, who) = (
            (0..250_u64)
                .map(|id| {
                    client.post(&call(
                        id,
                        if id % 5 == 0 { "progress" } else { "echo" },
                        &format!("{who}-{id}"),
                    ))
                })
                .collect::<Vec<_>>(),
            who.to_owned(),
        );
        tokio::spawn(async move {
            for (id, request) in post.into_iter().enumerate() {
                let body = request
                    .send()
                    .await
                    .expect("answered")
                    .text()
                    .await
                    .expect("a body");
                assert!(body.contains(&format!("{who}-{id}\"")), "{who} {id}: {body}");
            }
        })
    };
    let (first, second) = (run(&one, "one"), run(&two, "two"));
    first.await.expect("the first person's answers");
    second.await.expect("the second person's answers");
}

#[tokio::test]
async fn a_crash_is_an_error_then_an_unknown_session_then_a_pause() {
    let gateway = gateway("").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let process = pid(&client).await;
    let refused = got(client.post(&call(2, "crash", ""))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_ended"),
        "{}",
        refused.body
    );
    let again = got(client.post(&call(3, "echo", ""))).await;
    assert_eq!((again.status, again.code()), (404, "unknown_session"));
    gone(&process).await;
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;

    // Each quick end doubles the pause; a session that its client ended begins anew.
    for (pause, next) in [("1", 1), ("2", 2), ("4", 4)] {
        let paused = got(gateway.post("/one/mcp", &initialize())).await;
        assert_eq!(
            (paused.status, paused.code(), paused.header("retry-after")),
            (503, "server_restarting", pause)
        );
        gateway.advance(next);
        let client = Client::open(&gateway, "/one/mcp", &[]).await;
        assert_eq!(
            got(client.post(&call(2, "crash", ""))).await.code(),
            "upstream_ended"
        );
        gateway
            .until_metric("vestibule_stdio_processes", |count| count == 0)
            .await;
    }
    gateway.advance(8);
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    assert_eq!(client.delete().await, 204);
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    assert_eq!(
        got(client.post(&call(2, "crash", ""))).await.code(),
        "upstream_ended"
    );
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    let paused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!(paused.header("retry-after"), "1");
}

#[tokio::test]
async fn the_pause_is_for_the_environment_that_the_program_ended_in() {
    let gateway = gateway("env: {CANARY_TOKEN: '${X-One-Token}'}").await;
    let with = |token: &'static str| [("x-one-token", token)];
    let client = Client::open(&gateway, "/one/mcp", &with("token-of-one")).await;
    let refused = got(client.post(&call(2, "crash", ""))).await;
    assert_eq!(refused.code(), "upstream_ended");
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    let again = gateway.post("/one/mcp", &initialize());
    let again = got(again.header("x-one-token", "token-of-one")).await;
    assert_eq!((again.status, again.code()), (503, "server_restarting"));
    let other = Client::open(&gateway, "/one/mcp", &with("token-of-two")).await;
    assert_eq!(text(&other.ask(&call(2, "echo", "hi")).await), "hi");
    // That the other's went well does not end the pause.
    assert_eq!(other.delete().await, 204);
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    let again = gateway.post("/one/mcp", &initialize());
    let again = got(again.header("x-one-token", "token-of-one")).await;
    assert_eq!((again.status, again.code()), (503, "server_restarting"));
}

#[tokio::test]
async fn what_stands_in_arguments_is_not_logged() {
    let (alone, option) = (
        format!("canary-{}", random_hex()),
        format!("canary-{}", random_hex()),
    );
    let program = program();
    let fields = format!(
        "transport: stdio\ncommand: {program}\nargs: [--exact, 'stdio_peer::serves_until_its_input_ends', \
         --ignored, --nocapture, --test-threads=1, {alone}, --skip={option}]"
    );
    let gateway = start(&crate::harness::entry("one", &fields), "").start().await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    assert_eq!(text(&client.ask(&call(2, "say-arguments", "")).await), "said");
    // The line stands in the log before the next one, and the end of the program is behind both.
    assert_eq!(client.delete().await, 204);
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    assert!(logged().contains(r#"\"--skip=****\""#), "it said its arguments");
    assert_nothing_secret_logged(&[&alone, &option]);
}

#[tokio::test]
async fn a_session_with_several_servers_heals_when_a_program_has_ended() {
    let gateway = start(&[entry("one", ""), entry("two", "")].concat(), "")
        .start()
        .await;
    let client = Client::open(&gateway, "/mcp", &[]).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let listed = client.ask(&list).await;
    let first = text(&client.ask(&call(2, "one-pid", "")).await).to_owned();
    for by_a_list in [true, false] {
        // Late enough that the end is no failure to start.
        gateway.advance(60);
        let ended = client.ask(&call(3, "one-crash", "")).await;
        assert!(ended["error"].to_string().contains("upstream_ended"), "{ended}");
        gateway
            .until_metric("vestibule_stdio_processes", |count| count == 1)
            .await;
        if by_a_list {
            assert_eq!(client.ask(&list).await, listed);
        }
        assert_eq!(text(&client.ask(&call(4, "one-echo", "again")).await), "again");
        assert_ne!(text(&client.ask(&call(5, "one-pid", "")).await), first);
    }
}

#[tokio::test]
async fn a_program_that_cannot_start_or_ends_at_once_is_told() {
    let servers = [
        entry("one", "env: {PEER_MODE: exits}"),
        crate::harness::entry("two", "transport: stdio\ncommand: /nowhere/at-all"),
    ];
    let listed = format!("{},/nowhere/at-all", program());
    let gateway = start(&servers.concat(), "").environment("VESTIBULE_STDIO_EXTRA_COMMANDS", &listed);
    let gateway = gateway.start().await;
    let refused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_ended"),
        "{}",
        refused.body
    );
    let refused = got(gateway.post("/two/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "server_not_started"),
        "{}",
        refused.body
    );
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;
}

#[tokio::test]
async fn no_program_outlives_its_session() {
    let servers = [
        entry("one", "env: {PEER_MODE: stubborn}"),
        entry("two", "env: {PEER_MODE: deaf}\ntimeout: 0.5"),
        entry("three", ""),
    ];
    let gateway = start(&servers.concat(), "").start().await;
    // It ignores the end of its input and SIGTERM.
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let stubborn = pid(&client).await;
    assert_eq!(client.delete().await, 204);
    gone(&stubborn).await;
    // It never answers.
    let refused = got(gateway.post("/two/mcp", &initialize())).await;
    assert_eq!((refused.status, refused.code()), (504, "upstream_timeout"));
    // Its client never comes back.
    let client = Client::open(&gateway, "/three/mcp", &[]).await;
    let forgotten = pid(&client).await;
    drop(client);
    gateway.advance(31 * 60);
    gone(&forgotten).await;
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 0)
        .await;
    gateway
        .until_metric("vestibule_bridge_sessions", |count| count == 0)
        .await;
}

#[tokio::test]
async fn what_a_program_started_ends_with_it() {
    let gateway = gateway("env: {PEER_MODE: parent}").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let process = pid(&client).await;
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    let mut children = children.unwrap_or_default();
    for thread in threads {
        let path = thread.expect("a thread").path().join("children");
        children.push_str(&std::fs::read_to_string(path).unwrap_or_default());
    }
    let child = children
        .split_whitespace()
        .next()
        .expect("a child of the program")
        .to_owned();
    assert_eq!(
        got(client.post(&call(2, "crash", ""))).await.code(),
        "upstream_ended"
    );
    gone(&process).await;
    gone(&child).await;
}

#[tokio::test]
async fn floods_stay_where_they_come_from() {
    let gateway = start(&[entry("one", ""), entry("two", "")].concat(), "")
        .start()
        .await;
    let noisy = Client::open(&gateway, "/one/mcp", &[]).await;
    let quiet = Client::open(&gateway, "/two/mcp", &[]).await;
    let before = logged().len();
    let flooding = tokio::spawn(noisy.post(&call(2, "flood", "")).send());
    assert_eq!(text(&quiet.ask(&call(2, "echo", "hi")).await), "hi");
    let answer = flooding.await.expect("joined").expect("answered");
    assert_eq!(text(&answer.json().await.expect("JSON")), "flooded");
    // Fifty lines of standard error are logged, of a thousand bytes each.
    let lines = logged()[before..].matches(&"x".repeat(1000)).count();
    assert!((1..=50).contains(&lines), "{lines} lines of a flood were logged");
    // A line without an end is the end of the session.
    let refused = got(noisy.post(&call(3, "endless", ""))).await;
    assert_eq!(
        (refused.status, refused.code()),
        (502, "upstream_ended"),
        "{}",
        refused.body
    );
    gateway
        .until_metric("vestibule_stdio_processes", |count| count == 1)
        .await;
}

#[tokio::test]
async fn programs_are_bounded_and_end_with_the_gateway() {
    let limits = "vestibule:\n  limits:\n    max_stdio_processes: 1\n";
    let mut gateway = start(&entry("one", ""), limits).start().await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let process = pid(&client).await;
    let refused = got(gateway.post("/one/mcp", &initialize())).await;
    assert_eq!(
        (refused.status, refused.code(), refused.header("retry-after")),
        (503, "too_many_processes", "5")
    );
    let stopped = gateway.stop();
    assert!(stopped.await.expect("stopped"));
    // It is gone by the time the gateway is.
    assert!(!Path::new("/proc").join(&process).exists());
}

#[tokio::test]
async fn a_call_that_is_given_up_is_cancelled_in_the_program() {
    let gateway = gateway("timeout: 4").await;
    let client = Client::open(&gateway, "/one/mcp", &[]).await;
    let late = got(client.post(&call(2, "hang", ""))).await;
    assert_eq!((late.status, late.code()), (504, "upstream_timeout"));
    // The session goes on, and the id is free again.
    assert_eq!(text(&client.ask(&call(2, "echo", "again")).await), "again");
    let mut asking = Messages::new(client.send(&call(3, "ask", "")).await);
    let question = asking.next().await.expect("a question");
    drop(asking);
    let told = json!({"jsonrpc": "2.0", "id": question["id"], "result": {}});
    assert_eq!(client.send(&told).await.status(), 202);
    assert_eq!(text(&client.ask(&call(30, "echo", "mine")).await), "mine");
    assert!(timeout(Duration::from_secs(5), client.delete()).await.is_ok());
}

#[tokio::test]
async fn a_call_comes_to_its_end_where_its_program_is_configured_otherwise() {
    let config = |more: &str| {
        let limits = "vestibule: {limits: {drain_timeout: 3}}\n";
        format!("{}{limits}", keyed(&entry("one", more)))
    };
    let before = config("");
    let site = Site::begin(start_with(&before), &before).await;
    let client = Client::open(&site.gateway, "/one/mcp", &[]).await;
    let old = pid(&client).await;
    let teller = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = teller.local_addr().expect("an address").to_string();
    let calling = tokio::spawn(client.post(&call(2, "told", &address)).send());
    let (mut stream, _) = teller.accept().await.expect("called");
    site.takes(&config("description: another")).await;
    let next = Client::open(&site.gateway, "/one/mcp", &[]).await;
    let new = pid(&next).await;
    assert_ne!(new, old);
    stream.write_all(b"the end").await.expect("said");
    drop(stream);
    let answer = calling.await.expect("no panic").expect("answered");
    let answer = answer.json().await.expect("JSON");
    assert_eq!(text(&answer), "the end");
    gone(&old).await;
    // Of a server that is there no more nothing goes on.
    let waiting = tokio::spawn(next.post(&call(2, "told", &address)).send());
    let (_stream, _) = teller.accept().await.expect("called");
    site.takes(&keyed("")).await;
    gone(&new).await;
    assert_eq!(waiting.await.expect("no panic").expect("answered").status(), 502);
}

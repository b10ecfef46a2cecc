//! Servers at run time beside everything else: the file, other replicas, calls under way, rows that nobody can open.

use crate::harness::{TestGateway, entry, keyed, machine};
use crate::postgres::Postgres;
use crate::servers_harness::{SERVERS, Site, add, ask, change, fixed, row, shown, until};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::task::JoinSet;
use vestibule_store::AuditFilter;
use vestibule_testkit::{Idp, Upstream};

const SECRET: &str = "canary-lasting-0123456789";

#[tokio::test]
async fn the_file_wins_and_what_it_pushes_aside_comes_back() {
    let site = Site::new();
    let (stored, filed) = (Upstream::start().await, Upstream::start().await);
    let file = site.path("gateway.yaml");
    std::fs::write(&file, keyed("")).expect("written");
    let gateway = site.gateway(keyed("")).file(&file).start().await;
    let added = add(&gateway, &fixed("one", &stored, SECRET)).await;
    let id = added["server_id"].as_str().expect("an id");
    std::fs::write(
        &file,
        keyed(&entry("one", &format!("url: {}\nserver_id: f1", filed.url()))),
    )
    .expect("written");
    until("left out", || async {
        row(&gateway, id).await["problems"] != json!([])
    })
    .await;
    let seen = row(&gateway, id).await;
    assert_eq!(
        (&seen["problems"][0]["message"], &seen["status"], &seen["url"]),
        (
            &json!("the name one already belongs to one"),
            &json!("unknown"),
            &json!(stored.url())
        )
    );
    assert_eq!(row(&gateway, "f1").await["source"], "file");
    assert_eq!(gateway.echo("/one/mcp", "a").await.0, 200);
    assert_eq!((stored.requests().len(), shown(&filed)), (0, String::new()));
    // One can be looked at, and mended.
    let one = ask(&gateway, Method::GET, &format!("{SERVERS}/{id}"), None).await;
    assert_eq!((one.status, &one.body["problems"]), (200, &seen["problems"]));
    let mended = change(&gateway, &json!({"server_id": id, "server_name": "two"})).await;
    assert_eq!(mended["problems"], json!([]));
    assert_eq!(gateway.echo("/two/mcp", "a").await.0, 200);
    // Back to its name by itself, once the file lets it.
    std::fs::write(&file, keyed(&entry("two", &format!("url: {}", filed.url())))).expect("written");
    until("left out again", || async {
        row(&gateway, id).await["problems"] != json!([])
    })
    .await;
    std::fs::write(&file, keyed("")).expect("written");
    until("back", || async { gateway.echo("/two/mcp", "a").await.0 == 200 }).await;
    assert_eq!(shown(&stored), format!("Bearer {SECRET}"));
}

#[tokio::test]
async fn what_one_gateway_changes_the_other_serves() {
    let database = Postgres::new().await;
    let site = Site::at(database.url());
    let (one, two) = (
        site.gateway(keyed("")).start().await,
        site.gateway(keyed("")).start().await,
    );
    let (here, there) = (Upstream::start().await, Upstream::start().await);
    let added = add(&one, &fixed("one", &here, SECRET)).await;
    let id = added["server_id"].as_str().expect("an id");
    let calls = |status: u16| {
        let two = &two;
        async move { two.echo("/one/mcp", "a").await.0 == status }
    };
    until("served by the other", || calls(200)).await;
    assert_eq!(shown(&here), format!("Bearer {SECRET}"));
    change(
        &one,
        &json!({"server_id": id, "url": there.url(), "authentication_token": "canary-new"}),
    )
    .await;
    until("moved for the other", || async {
        two.echo("/one/mcp", "a").await;
        !there.requests().is_empty()
    })
    .await;
    assert_eq!(shown(&there), "Bearer canary-new");
    // The other's version is the one that counts.
    let stale = json!({"server_id": id, "version": added["version"], "description": "x"});
    assert_eq!(
        ask(&two, Method::PUT, SERVERS, Some(&stale)).await.code(),
        "server_changed"
    );
    let taken = ask(&two, Method::POST, SERVERS, Some(&fixed("One", &here, SECRET))).await;
    assert_eq!((taken.status, taken.code()), (409, "server_taken"));
    assert_eq!(
        ask(&two, Method::DELETE, &format!("{SERVERS}/{id}"), None)
            .await
            .status,
        202
    );
    let gone = || async { one.echo("/one/mcp", "a").await.0 == 404 };
    until("gone for the first", gone).await;
    drop((one, two));
    database.remove().await;
}

#[tokio::test]
async fn a_change_of_one_server_is_nothing_to_the_others() {
    let site = Site::new();
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    upstream.accept_if(idp.issued());
    upstream.set_session(Some("session"));
    let text = keyed(&machine("steady", &upstream.url(), &idp.url(), ""));
    let gateway = site.gateway(text).start().await;
    let session = open(&gateway, "/steady/mcp").await;
    let added = add(
        &gateway,
        &json!({"server_name": "other", "url": "http://localhost:1/mcp"}),
    )
    .await;
    let id = &added["server_id"];
    let calls = async {
        for number in 0..200 {
            let message = crate::harness::echo(&number.to_string());
            let call = gateway
                .post("/steady/mcp", &message)
                .header("mcp-session-id", &session);
            assert_eq!(crate::harness::got(call).await.status, 200, "{number}");
        }
    };
    let changes = async {
        for number in 0..20 {
            change(
                &gateway,
                &json!({"server_id": id, "description": number.to_string()}),
            )
            .await;
        }
    };
    tokio::join!(calls, changes);
    let opened = upstream.requests().into_iter();
    let opened = opened
        .filter(|request| request.contains("\"initialize\""))
        .count();
    assert_eq!((opened, idp.requests().len()), (1, 1));
}

/// The id of a session with the server at `path`.
async fn open(gateway: &TestGateway, path: &str) -> String {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let opened = crate::harness::got(gateway.post(path, &message)).await;
    assert_eq!(opened.status, 200, "{}", opened.body);
    opened.header("mcp-session-id").to_owned()
}

#[tokio::test]
async fn a_row_that_nobody_can_open_is_listed_and_can_be_deleted() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    let gateway = site.gateway(keyed("")).start().await;
    let broken = add(&gateway, &fixed("broken", &upstream, SECRET)).await;
    add(&gateway, &fixed("fine", &upstream, SECRET)).await;
    let id = broken["server_id"].as_str().expect("an id");
    let options = SqliteConnectOptions::new().filename(site.path("vestibule.db"));
    let mut database = options.connect().await.expect("connects");
    let damage = "UPDATE servers SET sealed = x'00', version = version + 1 WHERE name = 'broken'";
    database.execute(damage).await.expect("done");
    database.close().await.expect("closed");
    until("left out", || async {
        gateway.echo("/broken/mcp", "a").await.0 == 404
    })
    .await;
    assert_eq!(gateway.echo("/fine/mcp", "a").await.0, 200);
    let seen = row(&gateway, id).await;
    let message = seen["problems"][0]["message"].as_str().expect("a sentence");
    assert!(message.contains("cannot be opened"), "{message}");
    let refused = ask(&gateway, Method::PUT, SERVERS, Some(&json!({"server_id": id}))).await;
    assert_eq!((refused.status, refused.code()), (409, "server_sealed"));
    let path = format!("{SERVERS}/{id}");
    assert_eq!(ask(&gateway, Method::DELETE, &path, None).await.status, 202);
    assert_eq!(row(&gateway, id).await, Value::Null);
}

#[tokio::test]
async fn two_hundred_servers_are_added_in_no_order_and_all_are_there() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    let gateway = std::sync::Arc::new(site.gateway(keyed("")).start().await);
    let mut adding = JoinSet::new();
    for lane in 0..8 {
        let (gateway, url) = (gateway.clone(), upstream.url());
        adding.spawn(async move {
            for number in (lane..200).step_by(8) {
                add(
                    &gateway,
                    &json!({"server_name": format!("s{number}"), "url": url}),
                )
                .await;
            }
        });
    }
    while let Some(done) = adding.join_next().await {
        done.expect("added");
    }
    let list = ask(&gateway, Method::GET, SERVERS, None).await;
    let rows = list.body.as_array().expect("a list");
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().all(|row| row["problems"] == json!([])));
    for name in ["s0", "s99", "s199"] {
        assert_eq!(gateway.echo(&format!("/{name}/mcp"), "a").await.0, 200);
    }
}

#[tokio::test]
async fn every_change_is_on_record_and_no_secret_is() {
    let site = Site::new();
    let upstream = Upstream::start().await;
    let gateway = site.gateway(keyed("")).start().await;
    let mut added = fixed("one", &upstream, SECRET);
    added["static_headers"] = json!({"X-A": "canary-header"});
    added["server_id"] = json!("s1");
    add(&gateway, &added).await;
    change(&gateway, &json!({"server_id": "s1", "description": "text"})).await;
    ask(
        &gateway,
        Method::POST,
        "/v1/mcp/server/oauth/session",
        Some(&fixed("two", &upstream, SECRET)),
    )
    .await;
    ask(&gateway, Method::DELETE, &format!("{SERVERS}/s1"), None).await;
    let store = site.store().await;
    let recorded = || async {
        let rows = store.audit(&AuditFilter::default(), 100).await.expect("answers");
        let changes = rows.iter().filter(|row| row.entry.kind == "change");
        changes.map(|row| row.entry.clone()).collect::<Vec<_>>()
    };
    until("recorded", || async { recorded().await.len() == 4 }).await;
    let mut outcomes: Vec<_> = recorded()
        .await
        .iter()
        .filter_map(|entry| entry.outcome.clone())
        .collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        ["server.create", "server.delete", "server.try", "server.update"]
    );
    for entry in recorded().await {
        let text = format!("{entry:?}");
        assert!(!text.contains("canary") && text.contains("master key"), "{text}");
        assert!(entry.request_id.is_some());
        let subject = entry.trace.expect("a subject");
        assert!(
            entry.outcome.as_deref() == Some("server.try") || subject.contains("s1"),
            "{subject}"
        );
    }
}

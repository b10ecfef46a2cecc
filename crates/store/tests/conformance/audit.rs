//! The audit: appended whole, found by any of its columns, read page by page or followed, pruned.

use crate::place::Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;
use vestibule_store::{AuditEntry, AuditFilter, Store};

const NOW_MS: u64 = 1_800_000_000_000;

#[expect(clippy::unnecessary_wraps, reason = "what the fields hold")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn entry(kind: &str, at_ms: u64) -> AuditEntry {
    AuditEntry {
        at_ms,
        kind: kind.to_owned(),
        ..AuditEntry::default()
    }
}

fn full(kind: &str, at_ms: u64) -> AuditEntry {
    AuditEntry {
        request_id: text("r1"),
        user_id: text("ada"),
        key_id: text("k1"),
        key_alias: text("ci"),
        client: text("Client'); DROP TABLE audit; --"),
        address: text("203.0.113.1"),
        server: text("git"),
        tool: text("find"),
        outcome: text("ok"),
        status: Some(200),
        flow: text("f1"),
        trace: text(r#"{"steps":[]}"#),
        ..entry(kind, at_ms)
    }
}

async fn entries(store: &Store, filter: AuditFilter) -> Vec<AuditEntry> {
    let rows = store.audit(&filter, 100).await.expect("answers");
    rows.into_iter().map(|row| row.entry).collect()
}

pub(crate) async fn entries_are_found_by_each_column(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let all = [
        full("call", NOW_MS),
        entry("sign-in", NOW_MS + 1),
        full("change", NOW_MS + 2),
    ];
    store.append_audit(&all).await.expect("appended");
    store.append_audit(&[]).await.expect("nothing to append");
    let [call, sign_in, change] = all;
    assert_eq!(
        entries(&other, AuditFilter::default()).await,
        [change.clone(), sign_in.clone(), call.clone()]
    );
    let conditions: [fn(&str) -> AuditFilter; 7] = [
        |value| AuditFilter {
            user_id: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            key_id: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            server: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            tool: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            outcome: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            flow: text(value),
            ..AuditFilter::default()
        },
        |value| AuditFilter {
            request_id: text(value),
            ..AuditFilter::default()
        },
    ];
    for (condition, value) in conditions
        .into_iter()
        .zip(["ada", "k1", "git", "find", "ok", "f1", "r1"])
    {
        let found = entries(&other, condition(value)).await;
        assert_eq!(found, [change.clone(), call.clone()], "{value}");
        for other_value in ["x", "' OR '1' = '1", "a\0", ""] {
            assert_eq!(entries(&other, condition(other_value)).await, [], "{value}");
        }
    }
    let filter = AuditFilter {
        kinds: vec![
            "call".to_owned(),
            "sign-in".to_owned(),
            "x') OR ('1' = '1".to_owned(),
        ],
        ..AuditFilter::default()
    };
    assert_eq!(
        entries(&other, filter.clone()).await,
        [sign_in.clone(), call.clone()]
    );
    let filter = AuditFilter {
        user_id: text("ada"),
        ..filter
    };
    assert_eq!(
        entries(&other, filter).await,
        std::slice::from_ref(&call),
        "every condition counts"
    );
    let filter = AuditFilter {
        since_ms: Some(NOW_MS + 1),
        until_ms: Some(NOW_MS + 2),
        ..AuditFilter::default()
    };
    assert_eq!(entries(&other, filter).await, [sign_in]);
}

pub(crate) async fn entries_are_read_in_pages(place: &Place) {
    let store = place.open().await;
    // More than one statement takes.
    let many: Vec<_> = (0..2500).map(|index| full("call", NOW_MS + index)).collect();
    store.append_audit(&many).await.expect("appended");
    for oldest_first in [false, true] {
        let mut seen: Vec<AuditEntry> = Vec::new();
        let mut filter = AuditFilter {
            after: oldest_first.then_some(0),
            ..AuditFilter::default()
        };
        loop {
            let page = store.audit(&filter, 999).await.expect("answers");
            let Some(last) = page.last() else { break };
            if oldest_first {
                filter.after = Some(last.id);
            } else {
                filter.before = Some(last.id);
            }
            seen.extend(page.into_iter().map(|row| row.entry));
        }
        if !oldest_first {
            seen.reverse();
        }
        assert_eq!(seen, many);
    }
    let ids: Vec<_> = store.audit(&AuditFilter::default(), 3).await.expect("answers");
    let between = AuditFilter {
        after: Some(ids[2].id),
        before: Some(ids[0].id),
        ..AuditFilter::default()
    };
    let found = store.audit(&between, 10).await.expect("answers");
    assert_eq!(found, [ids[1].clone()]);
    assert_eq!(
        store.audit(&AuditFilter::default(), 0).await.expect("answers"),
        []
    );
}

pub(crate) async fn late_entries_are_found_at_their_time(place: &Place) {
    let store = place.open().await;
    let at = [5, 3, 9, 3, 1].map(|index| full(if index == 9 { "change" } else { "call" }, NOW_MS + index));
    store.append_audit(&at).await.expect("appended");
    let times = async |filter: &AuditFilter| {
        let rows = store.audit(filter, 2).await.expect("answers");
        let times: Vec<_> = rows.iter().map(|row| row.entry.at_ms - NOW_MS).collect();
        (times, rows.last().map(|row| row.id))
    };
    for kinds in [&[][..], &["call", "change"]] {
        let mut filter = AuditFilter {
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            user_id: text("ada"),
            ..AuditFilter::default()
        };
        for expected in [&[9, 5][..], &[3, 3], &[1], &[]] {
            let (page, last) = times(&filter).await;
            assert_eq!(page, expected);
            filter.before = last;
        }
        // In the order in which they came, whatever else is asked.
        filter = AuditFilter {
            before: None,
            after: Some(0),
            ..filter
        };
        for expected in [&[5, 3][..], &[9, 3], &[1], &[]] {
            let (page, last) = times(&filter).await;
            assert_eq!(page, expected);
            filter.after = last.or(filter.after);
        }
    }
    let between = AuditFilter {
        since_ms: Some(NOW_MS + 3),
        until_ms: Some(NOW_MS + 9),
        ..AuditFilter::default()
    };
    assert_eq!(times(&between).await.0, [5, 3]);
    let followed = AuditFilter {
        after: Some(0),
        ..between
    };
    assert_eq!(times(&followed).await.0, [5, 3]);
    let gone = AuditFilter {
        before: Some(i64::MAX),
        ..AuditFilter::default()
    };
    assert_eq!(times(&gone).await, (vec![], None));
}

/// Nothing that a client can put into a name keeps a batch from being written.
pub(crate) async fn a_name_loses_no_entry(place: &Place) {
    let store = place.open().await;
    let long = "\u{fc}".repeat(300);
    let hostile = AuditEntry {
        tool: text(&format!("{long}\0")),
        client: text("a\0b"),
        user_id: text(&"u".repeat(100_000)),
        trace: text(&format!("{{\0{long}}}")),
        ..entry("call", NOW_MS)
    };
    store
        .append_audit(&[entry("before", NOW_MS), hostile, entry("after", u64::MAX)])
        .await
        .expect("appended");
    let found = entries(&store, AuditFilter::default()).await;
    let kinds: Vec<_> = found.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["after", "call", "before"]);
    let kept = &found[1];
    assert_eq!(kept.tool.as_deref(), Some(&long[..512]));
    assert_eq!(kept.client.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(kept.trace, text(&format!("{{\u{fffd}{long}}}")));
    // A search is cut in the same way.
    for tool in [format!("{long}\0"), long] {
        let filter = AuditFilter {
            tool: Some(tool),
            ..AuditFilter::default()
        };
        assert_eq!(entries(&store, filter).await.len(), 1);
    }
}

/// Two that append while a third follows by number: it sees every entry once.
pub(crate) async fn whoever_follows_misses_nothing(place: &Place) {
    const WRITERS: usize = 6;
    const BATCHES: usize = 15;
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let reader = place.open().await;
    let running = Arc::new(AtomicUsize::new(WRITERS));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, running) = (Arc::clone(&stores[writer % 2]), Arc::clone(&running));
        tasks.spawn(async move {
            for batch in 0..BATCHES {
                let batch: Vec<_> = (0..=batch % 3)
                    .map(|index| entry(&format!("{writer}-{batch}-{index}"), NOW_MS))
                    .collect();
                store.append_audit(&batch).await.expect("appended");
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let mut followed = Vec::new();
    let mut filter = AuditFilter {
        after: Some(0),
        ..AuditFilter::default()
    };
    loop {
        let ended = running.load(Ordering::SeqCst) == 0;
        let news = reader.audit(&filter, 1000).await.expect("answers");
        filter.after = news.last().map(|row| row.id).or(filter.after);
        followed.extend(news);
        if ended {
            break;
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("joined");
    }
    filter.after = Some(0);
    assert_eq!(followed, reader.audit(&filter, 10_000).await.expect("answers"));
    assert_eq!(followed.len(), WRITERS * BATCHES * 2);
}

pub(crate) async fn old_entries_are_pruned(place: &Place) {
    let store = place.open().await;
    let batch: Vec<_> = (0..10).map(|index| entry("call", NOW_MS + index)).collect();
    store.append_audit(&batch).await.expect("appended");
    let last = store.audit(&AuditFilter::default(), 1).await.expect("answers")[0].id;
    assert_eq!(store.prune_audit(NOW_MS + 5, 3).await.expect("answers"), 3);
    assert_eq!(
        entries(&store, AuditFilter::default()).await.last(),
        Some(&batch[3]),
        "the oldest go first"
    );
    assert_eq!(store.prune_audit(NOW_MS + 5, 100).await.expect("answers"), 2);
    assert_eq!(store.prune_audit(NOW_MS + 5, 100).await.expect("answers"), 0);
    assert_eq!(store.prune_audit(u64::MAX, 100).await.expect("answers"), 5);
    store.append_audit(&batch[..1]).await.expect("appended");
    let next = store.audit(&AuditFilter::default(), 1).await.expect("answers")[0].id;
    assert!(next > last, "no number is used twice");
}

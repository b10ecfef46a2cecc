//! People's grants: kept, leased, swapped.

use crate::place::{Place, server, user};
use secrecy::ExposeSecret;
use std::sync::Arc;
use tokio::task::JoinSet;
use vestibule_store::{Grant, GrantSummary, Lease, RowFault, ServerId, Store, StoreError, UserId};

/// A time in seconds, and the same in milliseconds.
const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000;

fn payload(grant: &Grant) -> &[u8] {
    grant.payload.expose_secret()
}

async fn held(store: &Store, who: (&UserId, &ServerId), holder: &str, now_ms: u64, until_ms: u64) -> Grant {
    match store
        .lease_grant(who.0, who.1, holder, now_ms, until_ms)
        .await
        .expect("answers")
    {
        Lease::Held(grant) => grant,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_grant_is_kept_replaced_and_deleted(place: &Place) {
    let store = place.open().await;
    let (ada, eve, one, two) = (user("ada"), user("eve"), server("one"), server("two"));
    assert!(store.grant(&ada, &one).await.expect("answers").is_none());
    assert!(store.delete_grant(&ada, &one).await.expect("answers").is_none());
    let large = vec![7; 100_000];
    let first = store
        .put_grant(&ada, &one, &large, Some(NOW + 60), NOW)
        .await
        .expect("put");
    store
        .put_grant(&ada, &two, b"", None, NOW + 1)
        .await
        .expect("put");
    store
        .put_grant(&eve, &one, b"eve's", None, NOW)
        .await
        .expect("put");

    // Another process, later.
    store.close().await;
    let store = place.open().await;
    let grant = store.grant(&ada, &one).await.expect("answers").expect("there");
    assert_eq!(payload(&grant), large);
    assert_eq!(
        (
            grant.version,
            grant.expires_at,
            grant.connected_at,
            grant.updated_at
        ),
        (first, Some(NOW + 60), NOW, NOW)
    );
    let summary = |server_id: &ServerId, expires_at, connected_at| GrantSummary {
        user_id: ada.clone(),
        server_id: server_id.clone(),
        expires_at,
        connected_at,
        updated_at: connected_at,
    };
    assert_eq!(
        store.grants_of(&ada).await.expect("answers"),
        [summary(&one, Some(NOW + 60), NOW), summary(&two, None, NOW + 1)]
    );
    let second = store
        .put_grant(&ada, &one, b"new", None, NOW + 2)
        .await
        .expect("put");
    assert!(second > first);
    let grant = store.grant(&ada, &one).await.expect("answers").expect("there");
    assert_eq!(
        (payload(&grant), grant.expires_at, grant.connected_at),
        (&b"new"[..], None, NOW + 2)
    );
    assert!(!format!("{grant:?}").contains("110"), "a payload does not print");

    assert!(!store.delete_grant_if(&ada, &one, first).await.expect("answers"));
    assert!(store.delete_grant_if(&ada, &one, second).await.expect("answers"));
    let gone = store
        .delete_grant(&ada, &two)
        .await
        .expect("answers")
        .expect("was there");
    assert_eq!(payload(&gone), b"");
    assert_eq!(store.grants_of(&ada).await.expect("answers"), []);
    assert_eq!(store.grants_of(&eve).await.expect("answers").len(), 1);
}

pub(crate) async fn one_of_many_gets_the_lease(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let (ada, one) = (user("ada"), server("one"));
    let lease = async |round: u64| {
        let mut tasks = JoinSet::new();
        for index in 0..100 {
            let (store, ada, one) = (Arc::clone(&stores[index % 2]), ada.clone(), one.clone());
            tasks.spawn(async move {
                let holder = format!("{round}-{index}");
                store
                    .lease_grant(&ada, &one, &holder, NOW_MS + round, NOW_MS + round + 1)
                    .await
            });
        }
        let mut counts = [0; 3];
        while let Some(lease) = tasks.join_next().await {
            match lease.expect("joined").expect("answers") {
                Lease::Held(grant) => {
                    assert_eq!(payload(&grant), b"tokens");
                    counts[0] += 1;
                }
                Lease::Busy { until_ms } => {
                    assert_eq!(until_ms, NOW_MS + round + 1);
                    counts[1] += 1;
                }
                Lease::Gone => counts[2] += 1,
            }
        }
        counts
    };
    assert_eq!(lease(0).await, [0, 0, 100]);
    stores[0]
        .put_grant(&ada, &one, b"tokens", None, NOW)
        .await
        .expect("put");
    assert_eq!(lease(0).await, [1, 99, 0]);
    assert_eq!(lease(1).await, [1, 99, 0], "the last one ended at its time");
}

pub(crate) async fn a_lease_ends(place: &Place) {
    let store = place.open().await;
    let (ada, one) = (user("ada"), server("one"));
    let who = (&ada, &one);
    store
        .put_grant(&ada, &one, b"tokens", None, NOW)
        .await
        .expect("put");
    let busy = async |now_ms| {
        matches!(
            store
                .lease_grant(&ada, &one, "late", now_ms, now_ms + 1)
                .await
                .expect("answers"),
            Lease::Busy { .. }
        )
    };
    held(&store, who, "a", NOW_MS, NOW_MS + 1000).await;
    assert!(busy(NOW_MS + 999).await);
    store
        .release_grant(&ada, &one, "somebody else")
        .await
        .expect("nothing");
    assert!(busy(NOW_MS + 999).await);
    store.release_grant(&ada, &one, "a").await.expect("released");
    held(&store, who, "b", NOW_MS, NOW_MS + 1000).await;
    held(&store, who, "c", NOW_MS + 1000, NOW_MS + 2000).await;
    // A new sign-in wins over a refresh under way.
    store
        .put_grant(&ada, &one, b"newer", None, NOW)
        .await
        .expect("put");
    held(&store, who, "d", NOW_MS, NOW_MS + 1000).await;
}

pub(crate) async fn only_the_holder_finishes_and_only_the_version_it_saw(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let (ada, one) = (user("ada"), server("one"));
    let who = (&ada, &one);
    let put = store
        .put_grant(&ada, &one, b"old", Some(NOW), NOW)
        .await
        .expect("put");
    let finish = async |store: &Store, holder, version, text: &'static [u8]| {
        let finished = store.finish_grant(&ada, &one, holder, version, text, Some(NOW + 9), NOW + 5);
        finished.await.expect("answers")
    };
    assert_eq!(finish(&store, "a", put, b"no lease").await, None);
    let grant = held(&store, who, "a", NOW_MS, NOW_MS + 1000).await;
    assert_eq!(grant.version, put);
    assert_eq!(finish(&other, "b", put, b"another's lease").await, None);
    let finished = finish(&store, "a", put, b"fresh").await.expect("finished");
    assert!(finished > put);
    let grant = other.grant(&ada, &one).await.expect("answers").expect("there");
    assert_eq!(
        (payload(&grant), grant.version, grant.expires_at),
        (&b"fresh"[..], finished, Some(NOW + 9))
    );
    assert_eq!((grant.connected_at, grant.updated_at), (NOW, NOW + 5));
    assert_eq!(finish(&store, "a", finished, b"released already").await, None);

    // One whose lease ran out, and was taken by nobody, still saves a refresh token that is spent upstream.
    let version = held(&store, who, "late", NOW_MS, NOW_MS).await.version;
    let version = finish(&store, "late", version, b"late").await.expect("finished");
    // One that was overtaken writes nothing.
    held(&store, who, "slow", NOW_MS, NOW_MS).await;
    held(&other, who, "quick", NOW_MS, NOW_MS + 1000).await;
    assert_eq!(finish(&store, "slow", version, b"slow").await, None);
    assert!(finish(&other, "quick", version, b"quick").await.is_some());
    held(&store, who, "overtaken", NOW_MS, NOW_MS + 1000).await;
    store.delete_grant(&ada, &one).await.expect("deleted");
    assert_eq!(
        finish(&store, "overtaken", version.max(finished), b"back").await,
        None
    );
    assert!(store.grant(&ada, &one).await.expect("answers").is_none());
}

pub(crate) async fn a_grant_made_again_is_another(place: &Place) {
    let store = place.open().await;
    let (ada, one) = (user("ada"), server("one"));
    let first = store.put_grant(&ada, &one, b"1", None, NOW).await.expect("put");
    store.delete_grant(&ada, &one).await.expect("deleted");
    let second = store
        .put_grant(&ada, &one, b"2", None, NOW + 1)
        .await
        .expect("put");
    assert!(second > first);
    assert!(!store.delete_grant_if(&ada, &one, first).await.expect("answers"));
}

pub(crate) async fn concurrent_puts_all_succeed(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let mut tasks = JoinSet::new();
    for index in 0..24 {
        let store = Arc::clone(&stores[index % 2]);
        tasks.spawn(async move {
            store
                .put_grant(&user("ada"), &server("one"), b"x", None, NOW)
                .await
        });
    }
    let mut versions = Vec::new();
    while let Some(version) = tasks.join_next().await {
        versions.push(version.expect("joined").expect("put"));
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 24);
    let grant = stores[0]
        .grant(&user("ada"), &server("one"))
        .await
        .expect("answers")
        .expect("there");
    assert_eq!(Some(&grant.version), versions.last());
}

pub(crate) async fn a_row_of_somebody_else_does_not_open(place: &Place) {
    let store = place.open().await;
    let (ada, eve, one) = (user("ada"), user("eve"), server("one"));
    store
        .put_grant(&ada, &one, b"ada's", None, NOW)
        .await
        .expect("put");
    store
        .put_grant(&eve, &one, b"eve's", None, NOW)
        .await
        .expect("put");
    let swap = "UPDATE grants SET sealed = (SELECT sealed FROM grants WHERE user_id = 'ada'), \
         version = (SELECT version FROM grants WHERE user_id = 'ada') WHERE user_id = 'eve'";
    assert_eq!(place.behind(swap).await, 1);
    let altered = |error: StoreError| {
        let text = error.to_string();
        assert!(
            text.contains("grants") && text.contains("one") && !text.contains("ada's"),
            "{text}"
        );
        matches!(
            error,
            StoreError::Undecryptable {
                table: "grants",
                fault: RowFault::Altered,
                ..
            }
        )
    };
    assert!(altered(store.grant(&eve, &one).await.expect_err("altered")));
    for _ in 0..2 {
        let lease = store.lease_grant(&eve, &one, "a", NOW_MS, NOW_MS + 1000).await;
        assert!(
            altered(lease.expect_err("altered")),
            "and no lease is left behind"
        );
    }
    assert!(altered(
        store.delete_grant(&eve, &one).await.expect_err("altered")
    ));
    assert!(
        store.grant(&eve, &one).await.expect("answers").is_none(),
        "it is gone all the same"
    );
    assert_eq!(place.behind("UPDATE grants SET version = version - 1").await, 1);
    assert!(altered(
        store.grant(&ada, &one).await.expect_err("another version")
    ));
}

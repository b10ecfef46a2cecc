//! Registrations upstream: one, whoever asks.

use crate::place::{Place, server};
use secrecy::ExposeSecret;
use std::sync::Arc;
use tokio::task::JoinSet;
use vestibule_store::RegistrationLease;

const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000;
const DIGEST: [u8; 32] = [0xab; 32];

pub(crate) async fn one_of_many_registers(place: &Place) {
    let (one, two) = (server("one"), server("two"));
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let mut tasks = JoinSet::new();
    for index in 0..50 {
        let store = Arc::clone(&stores[index % 2]);
        tasks.spawn(async move {
            let (holder, one) = (index.to_string(), server("one"));
            let lease = store.lease_registration(&one, &DIGEST, &holder, NOW_MS, NOW_MS + 1000);
            (holder.clone(), lease.await.expect("answers"))
        });
    }
    let mut holders = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        match answer.expect("joined") {
            (holder, RegistrationLease::Held) => holders.push(holder),
            (_, RegistrationLease::Busy { until_ms }) => assert_eq!(until_ms, NOW_MS + 1000),
            (_, other @ RegistrationLease::Registered(_)) => panic!("{other:?}"),
        }
    }
    let [holder] = &holders[..] else {
        panic!("{holders:?}")
    };
    assert!(
        stores[0]
            .registration(&one, &DIGEST)
            .await
            .expect("answers")
            .is_none(),
        "a lease is no registration"
    );
    let put = stores[0].put_registration(&one, &DIGEST, holder, b"client", NOW);
    let generation = put.await.expect("answers").expect("put");
    let lease = stores[1].lease_registration(&one, &DIGEST, "late", NOW_MS, NOW_MS + 1);
    match lease.await.expect("answers") {
        RegistrationLease::Registered(found) => {
            assert_eq!(found.payload.expose_secret(), b"client");
            assert_eq!((found.generation, found.created_at), (generation, NOW));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        stores[1]
            .registration(&two, &DIGEST)
            .await
            .expect("answers")
            .is_none()
    );
    assert!(
        stores[1]
            .registration(&one, &[1; 32])
            .await
            .expect("answers")
            .is_none()
    );
}

pub(crate) async fn a_registration_is_renewed_once(place: &Place) {
    let store = place.open().await;
    let one = server("one");
    let lease = async |holder| {
        let lease = store.lease_registration(&one, &DIGEST, holder, NOW_MS, NOW_MS + 1000);
        lease.await.expect("answers")
    };
    let put = async |holder| {
        let put = store.put_registration(&one, &DIGEST, holder, holder.as_bytes(), NOW);
        put.await.expect("answers")
    };
    assert!(matches!(lease("a").await, RegistrationLease::Held));
    let first = put("a").await.expect("put");
    assert!(
        store
            .delete_registration_if(&one, &DIGEST, first)
            .await
            .expect("answers")
    );
    assert!(
        !store
            .delete_registration_if(&one, &DIGEST, first)
            .await
            .expect("answers")
    );
    assert!(matches!(lease("b").await, RegistrationLease::Held));
    let second = put("b").await.expect("put");
    assert_ne!(first, second);
    assert!(
        !store
            .delete_registration_if(&one, &DIGEST, first)
            .await
            .expect("answers"),
        "renewed already"
    );
    let found = store
        .registration(&one, &DIGEST)
        .await
        .expect("answers")
        .expect("there");
    assert_eq!(
        (found.payload.expose_secret(), found.generation),
        (&b"b"[..], second)
    );
}

pub(crate) async fn a_lease_that_ended_writes_nothing(place: &Place) {
    let store = place.open().await;
    let one = server("one");
    let held = async |holder, now_ms| {
        let lease = store.lease_registration(&one, &DIGEST, holder, now_ms, now_ms + 10);
        matches!(lease.await.expect("answers"), RegistrationLease::Held)
    };
    let put = async |holder| {
        let put = store.put_registration(&one, &DIGEST, holder, b"client", NOW);
        put.await.expect("answers")
    };
    assert!(held("a", NOW_MS).await);
    assert!(!held("a", NOW_MS + 9).await, "a name gets no second lease");
    assert!(held("b", NOW_MS + 10).await, "it ended at its time");
    assert_eq!(put("a").await, None);
    store
        .release_registration(&one, &DIGEST, "a")
        .await
        .expect("nothing");
    assert!(!held("c", NOW_MS + 11).await);
    store
        .release_registration(&one, &DIGEST, "b")
        .await
        .expect("released");
    assert!(held("c", NOW_MS + 11).await);
    assert!(put("c").await.is_some());
    store
        .release_registration(&one, &DIGEST, "c")
        .await
        .expect("nothing");
    assert_eq!(put("c").await, None);
    assert!(
        store
            .registration(&one, &DIGEST)
            .await
            .expect("answers")
            .is_some()
    );
}

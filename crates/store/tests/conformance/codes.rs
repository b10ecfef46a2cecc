//! Authorization codes: bound once, taken once.

use crate::place::Place;
use std::sync::Arc;
use tokio::task::JoinSet;

const NOW: u64 = 1_800_000_000;
const DIGEST: [u8; 32] = [0xcd; 32];
const OTHER: [u8; 32] = [0xce; 32];

pub(crate) async fn a_code_is_taken_once(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let bind = |bound: &'static str| stores[0].bind_code(&DIGEST, bound, NOW + 60, NOW);
    bind("first").await.expect("bound");
    bind("second").await.expect("answers");
    let mut tasks = JoinSet::new();
    for index in 0..50 {
        let store = Arc::clone(&stores[index % 2]);
        tasks.spawn(async move { store.take_code(&DIGEST, NOW).await.expect("answers") });
    }
    let mut taken = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        taken.extend(answer.expect("joined"));
    }
    assert_eq!(taken, ["first"]);
}

pub(crate) async fn a_code_ends(place: &Place) {
    let store = place.open().await;
    store.bind_code(&DIGEST, "a", NOW + 60, NOW).await.expect("bound");
    store.bind_code(&OTHER, "b", NOW + 120, NOW).await.expect("bound");
    assert_eq!(store.take_code(&DIGEST, NOW + 60).await.expect("answers"), None);
    // What is over is forgotten when the next one comes.
    store
        .bind_code(&DIGEST, "c", NOW + 300, NOW + 120)
        .await
        .expect("bound");
    assert_eq!(store.take_code(&OTHER, NOW).await.expect("answers"), None);
    assert_eq!(
        store
            .take_code(&DIGEST, NOW + 120)
            .await
            .expect("answers")
            .as_deref(),
        Some("c")
    );
}

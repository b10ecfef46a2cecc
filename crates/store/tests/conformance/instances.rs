//! Processes that share a database see each other.

use crate::place::Place;
use vestibule_store::{Instance, StoreError, Unfit};

const NOW: u64 = 1_800_000_000;

fn instance(id: &str, seen_at: u64) -> Instance {
    Instance {
        id: id.to_owned(),
        version: "0.1.0".to_owned(),
        address: "127.0.0.1:4000".to_owned(),
        started_at: NOW,
        seen_at,
        config_revision: "abc".to_owned(),
    }
}

pub(crate) async fn processes_see_each_other(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    store.beat(&instance("a", NOW)).await.expect("beats");
    other.beat(&instance("b", NOW + 5)).await.expect("beats");
    let (a, b) = (instance("a", NOW), instance("b", NOW + 5));
    let now = NOW + 10;
    assert_eq!(store.instances(now, 10).await.expect("answers"), [a, b.clone()]);
    assert_eq!(
        store.instances(now, 9).await.expect("answers"),
        std::slice::from_ref(&b)
    );
    let again = Instance {
        config_revision: "def".to_owned(),
        ..instance("a", NOW + 9)
    };
    store.beat(&again).await.expect("beats");
    assert_eq!(
        other.instances(now, 5).await.expect("answers"),
        [again.clone(), b]
    );
    assert_eq!(other.forget_old_instances(now, 4).await.expect("answers"), 1);
    assert_eq!(other.instances(now, u64::MAX).await.expect("answers"), [again]);
    other.forget_instance("a").await.expect("forgotten");
    assert_eq!(other.instances(now, u64::MAX).await.expect("answers"), []);
    assert!(matches!(
        store.beat(&instance("a\0", NOW)).await,
        Err(StoreError::Unfit {
            fault: Unfit::Nul,
            ..
        })
    ));
}

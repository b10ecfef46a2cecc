//! Opening, refusing to, and changing keys under a store that is in use.

use crate::place::{Place, server, user};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use vestibule_store::store::PURPOSE;
use vestibule_store::{KeyUse, OpenError, RegistrationLease, Resealed, RowFault, Store, StoreError};

const NOW: u64 = 1_800_000_000;

pub(crate) async fn many_first_starts_make_one_database(place: &Place) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (url, keys) = (place.url().clone(), place.keys());
        tasks.spawn(async move { Store::open(&url, &keys).await });
    }
    let mut stores = Vec::new();
    while let Some(store) = tasks.join_next().await {
        stores.push(store.expect("joined").expect("opens"));
    }
    for (index, store) in stores.iter().enumerate() {
        let (who, one) = (user(&index.to_string()), server("one"));
        let put = store.put_grant(&who, &one, b"x", None, NOW).await;
        put.expect("put");
    }
    assert_eq!(stores[0].keys_in_use().await.expect("answers")[0].rows, 9);
}

async fn refused(place: &Place) -> OpenError {
    match Store::open(place.url(), &place.keys()).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

pub(crate) async fn another_key_is_refused(place: &Place) {
    let store = place.open().await;
    store
        .put_grant(&user("ada"), &server("one"), b"x", None, NOW)
        .await
        .expect("put");
    let used = store.ring().ids()[0];
    store.close().await;
    let right = place.keep_keys();
    place.new_key();
    let at_hand = place.keys().ring(PURPOSE).ids()[0];
    let error = refused(place).await;
    let text = error.to_string();
    assert!(
        matches!(error, OpenError::WrongKey { missing, .. } if missing == used),
        "{text}"
    );
    for part in [
        &used.to_string(),
        &at_hand.to_string(),
        "VESTIBULE_MASTER_KEY_FILE",
        "nothing was changed",
    ] {
        assert!(text.contains(part), "{text}");
    }
    place.put_keys(&right);
    let store = place.open().await;
    assert!(
        store
            .grant(&user("ada"), &server("one"))
            .await
            .expect("answers")
            .is_some()
    );
    assert_eq!(
        store.keys_in_use().await.expect("answers"),
        [KeyUse {
            key: Some(used),
            rows: 2
        }]
    );
}

pub(crate) async fn a_damaged_check_value_is_refused(place: &Place) {
    place.open().await.close().await;
    let damage = "UPDATE meta SET sealed = substr(sealed, 1, 20)";
    assert_eq!(place.behind(damage).await, 1);
    assert!(matches!(
        refused(place).await,
        OpenError::Damaged {
            fault: RowFault::Altered,
            ..
        }
    ));
}

pub(crate) async fn rotation_beside_a_live_store(place: &Place) {
    let live = Arc::new(place.open().await);
    let keys = place.keys();
    let command = Store::open(place.url(), &keys).await.expect("opens");
    for index in 0..250 {
        let (who, one) = (user(&format!("u{index}")), server("one"));
        let put = live.put_grant(&who, &one, b"old", None, NOW).await;
        put.expect("put");
    }
    let lease = live
        .lease_registration(&server("one"), &[1; 32], "a", 0, 10)
        .await
        .expect("answers");
    assert!(matches!(lease, RegistrationLease::Held));
    let put = live
        .put_registration(&server("one"), &[1; 32], "a", b"client", NOW)
        .await;
    put.expect("answers").expect("put");
    let lease = live
        .lease_registration(&server("two"), &[1; 32], "a", 0, 10)
        .await
        .expect("answers");
    assert!(
        matches!(lease, RegistrationLease::Held),
        "a row with nothing sealed in it"
    );

    let old = command.ring().ids()[0];
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn({
        let (live, stop) = (Arc::clone(&live), Arc::clone(&stop));
        async move {
            let mut index = 0;
            while !stop.load(Ordering::SeqCst) {
                let who = user(&format!("u{}", index % 250));
                live.grant(&who, &server("one"))
                    .await
                    .expect("answers")
                    .expect("there");
                live.put_grant(&who, &server("one"), b"new", None, NOW)
                    .await
                    .expect("put");
                index += 7;
            }
        }
    });
    keys.rotate().expect("rotated");
    let resealed = command.reseal().await.expect("resealed");
    stop.store(true, Ordering::SeqCst);
    traffic.await.expect("joined");

    let new = command.ring().ids()[0];
    assert_ne!(old, new);
    assert!(resealed.rows > 0 && resealed.unreadable == 0, "{resealed:?}");
    assert_eq!(
        command.keys_in_use().await.expect("answers"),
        [KeyUse {
            key: Some(new),
            rows: 252
        }]
    );
    assert_eq!(command.reseal().await.expect("nothing left"), Resealed::default());
    assert_eq!(keys.retire(PURPOSE, &[new]).expect("retired"), 1);
    for store in [&*live, &place.open().await] {
        for index in 0..250 {
            let grant = store
                .grant(&user(&format!("u{index}")), &server("one"))
                .await
                .expect("answers");
            assert!(matches!(
                grant.expect("there").payload.expose_secret(),
                b"old" | b"new"
            ));
        }
        assert!(
            store
                .registration(&server("one"), &[1; 32])
                .await
                .expect("answers")
                .is_some()
        );
        store.ring().refresh();
        assert_eq!(store.ring().ids(), [new]);
    }
}

pub(crate) async fn reseal_knows_every_sealed_column(place: &Place) {
    place.open().await.close().await;
    let mut known: Vec<&str> = Store::sealed_tables().collect();
    known.sort_unstable();
    assert_eq!(place.tables_with_sealed().await, known);
}

pub(crate) async fn an_unreadable_row_is_counted_and_stays(place: &Place) {
    let store = place.open().await;
    let (ada, eve, one) = (user("ada"), user("eve"), server("one"));
    store.put_grant(&ada, &one, b"x", None, NOW).await.expect("put");
    store.put_grant(&eve, &one, b"x", None, NOW).await.expect("put");
    assert_eq!(
        place
            .behind("UPDATE grants SET version = 1 WHERE user_id = 'eve'")
            .await,
        1
    );
    place.keys().rotate().expect("rotated");
    let resealed = store.reseal().await.expect("resealed");
    assert_eq!(
        resealed,
        Resealed {
            rows: 2,
            unreadable: 1
        }
    );
    assert!(store.grant(&ada, &one).await.expect("answers").is_some());
    assert!(matches!(
        store.grant(&eve, &one).await,
        Err(StoreError::Undecryptable {
            fault: RowFault::Altered,
            ..
        })
    ));
    assert_eq!(store.keys_in_use().await.expect("answers").len(), 2);
}

pub(crate) async fn a_database_of_a_newer_program_is_refused(place: &Place) {
    place.open().await.close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations";
    assert_eq!(place.behind(newer).await, 1);
    let error = refused(place).await;
    assert!(matches!(error, OpenError::Migration { .. }));
    assert!(error.to_string().contains("newer Vestibule"), "{error}");
}

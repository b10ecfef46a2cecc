//! Servers that were added at run time: sealed, named once, changed by compare-and-swap, deleted whole.

use crate::place::{Place, server, user};
use secrecy::{ExposeSecret, SecretSlice};
use vestibule_store::{
    RegistrationLease, RowFault, ServerRecord, Store, StoreError, StoredServer, Unfit, Unique,
};

const NOW: u64 = 1_800_000_000;

fn record(id: &str, name: &str) -> ServerRecord {
    ServerRecord {
        id: server(id),
        name: name.to_owned(),
        document: SecretSlice::from(format!("canary {id}").into_bytes()),
        by: Some("ada".to_owned()),
        expires_at: None,
    }
}

async fn get(store: &Store, id: &str) -> StoredServer {
    store.server(&server(id)).await.expect("answers").expect("there")
}

fn document(stored: &StoredServer) -> String {
    let document = stored.document.as_ref().expect("opens");
    String::from_utf8(document.expose_secret().to_vec()).expect("text")
}

fn taken<T>(answer: Result<T, StoreError>) -> Unique {
    match answer {
        Err(StoreError::Taken(unique)) => unique,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("written"),
    }
}

pub(crate) async fn a_server_is_kept_and_changed(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert!(store.server(&server("s1")).await.expect("answers").is_none());
    let new = ServerRecord {
        expires_at: Some(NOW + 60),
        ..record("s1", "Git'); DROP TABLE servers; --")
    };
    let version = store.put_server(&new, NOW).await.expect("put");
    let kept = get(&other, "s1").await;
    assert_eq!(document(&kept), "canary s1");
    assert!(
        !format!("{kept:?} {new:?}").contains("canary"),
        "a document does not print"
    );
    assert_eq!(
        (kept.name.as_str(), kept.version, kept.expires_at),
        (new.name.as_str(), version, Some(NOW + 60))
    );
    assert_eq!(
        (
            kept.created_at,
            kept.created_by.as_deref(),
            kept.updated_at,
            kept.updated_by.as_deref()
        ),
        (NOW, Some("ada"), NOW, Some("ada"))
    );
    let changed = ServerRecord {
        name: "git".to_owned(),
        document: SecretSlice::from(b"new".to_vec()),
        by: Some("eve".to_owned()),
        ..record("s1", "")
    };
    let next = store
        .update_server(&changed, version, NOW + 1)
        .await
        .expect("answers");
    let next = next.expect("written");
    assert!(next > version);
    let stale = other
        .update_server(&new, version, NOW + 2)
        .await
        .expect("answers");
    assert_eq!(stale, None, "somebody else was quicker");
    let kept = get(&other, "s1").await;
    assert_eq!(
        (
            document(&kept).as_str(),
            kept.name.as_str(),
            kept.version,
            kept.expires_at
        ),
        ("new", "git", next, None)
    );
    assert_eq!(
        (
            kept.created_at,
            kept.created_by.as_deref(),
            kept.updated_at,
            kept.updated_by.as_deref()
        ),
        (NOW, Some("ada"), NOW + 1, Some("eve"))
    );
    let missing = store.update_server(&record("s2", "x"), next, NOW).await;
    assert_eq!(missing.expect("answers"), None);
}

pub(crate) async fn no_two_servers_share_an_id_or_name(place: &Place) {
    let store = place.open().await;
    store.put_server(&record("a", "Größe"), NOW).await.expect("put");
    let version = store.put_server(&record("b", "git"), NOW).await.expect("put");
    assert_eq!(
        taken(store.put_server(&record("a", "other"), NOW).await),
        Unique::ServerId
    );
    for name in ["git", "GIT", "grÖße"] {
        assert_eq!(
            taken(store.put_server(&record("c", name), NOW).await),
            Unique::ServerName,
            "{name}"
        );
    }
    let renamed = store.update_server(&record("b", "GRÖßE"), version, NOW).await;
    assert_eq!(taken(renamed), Unique::ServerName);
    let same = store.update_server(&record("b", "Git"), version, NOW).await;
    assert!(same.expect("its own name is free to it").is_some());
    for (name, expected) in [("", Unfit::Length), ("a\0b", Unfit::Nul)] {
        assert!(matches!(
            store.put_server(&record("c", name), NOW).await,
            Err(StoreError::Unfit { field: "server name", fault }) if fault == expected
        ));
    }
}

pub(crate) async fn a_server_that_does_not_open_hides_no_other(place: &Place) {
    let store = place.open().await;
    for id in ["a", "b", "c"] {
        store.put_server(&record(id, id), NOW).await.expect("put");
    }
    let swap = "UPDATE servers SET sealed = (SELECT sealed FROM servers WHERE id = 'a'), \
         version = (SELECT version FROM servers WHERE id = 'a') WHERE id = 'b'";
    assert_eq!(place.behind(swap).await, 1);
    let servers = store.servers().await.expect("answers");
    let opened: Vec<_> = servers
        .iter()
        .map(|stored| (stored.id.as_str(), stored.document.is_ok()))
        .collect();
    assert_eq!(opened, [("a", true), ("b", false), ("c", true)]);
    let fault = |stored: &StoredServer| *stored.document.as_ref().expect_err("another's");
    assert_eq!(fault(&servers[1]), RowFault::Altered);
    assert_eq!(fault(&get(&store, "b").await), RowFault::Altered);

    // A rotation takes the others along, and what it writes is no change.
    let before = store.revisions().await.expect("answers");
    place.keys().rotate().expect("rotated");
    let resealed = store.reseal().await.expect("resealed");
    assert_eq!((resealed.rows, resealed.unreadable), (3, 1));
    assert_eq!(store.revisions().await.expect("answers"), before);
    assert_eq!(document(&get(&store, "c").await), "canary c");
    // What does not open can be written anew, and deleted.
    let version = get(&store, "b").await.version;
    let written = store.update_server(&record("b", "b"), version, NOW).await;
    assert!(written.expect("answers").is_some());
    assert_eq!(document(&get(&store, "b").await), "canary b");
}

/// A grant, a secret and a registration for a server.
async fn furnish(store: &Store, id: &str) {
    let (ada, one) = (user("ada"), server(id));
    store.put_grant(&ada, &one, b"x", None, NOW).await.expect("put");
    let secret = SecretSlice::from(b"own key".to_vec());
    store
        .put_user_secret(&ada, &one, &secret, NOW)
        .await
        .expect("put");
    let lease = store.lease_registration(&one, &[1; 32], "a", 0, 10).await;
    assert!(matches!(lease.expect("answers"), RegistrationLease::Held));
    let put = store.put_registration(&one, &[1; 32], "a", b"client", NOW).await;
    put.expect("answers").expect("put");
}

async fn left(store: &Store, id: &str) -> [bool; 4] {
    let one = server(id);
    [
        store.server(&one).await.expect("answers").is_some(),
        !store.grants_of_server(&one).await.expect("answers").is_empty(),
        !store
            .user_secrets_of_server(&one)
            .await
            .expect("answers")
            .is_empty(),
        store
            .registration(&one, &[1; 32])
            .await
            .expect("answers")
            .is_some(),
    ]
}

pub(crate) async fn a_server_inherits_nothing(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    for id in ["a", "file"] {
        furnish(&store, id).await;
    }
    store.put_server(&record("a", "a"), NOW).await.expect("put");
    assert_eq!(left(&other, "a").await, [true, false, false, false]);
    assert_eq!(left(&other, "file").await, [false, true, true, true]);
    // Whoever is not the first takes nothing away.
    furnish(&store, "a").await;
    let again = store.put_server(&record("a", "b"), NOW).await;
    assert_eq!(taken(again), Unique::ServerId);
    assert_eq!(left(&other, "a").await, [true; 4]);
}

pub(crate) async fn a_server_is_deleted_whole(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    for id in ["a", "b"] {
        store.put_server(&record(id, id), NOW).await.expect("put");
    }
    for id in ["a", "b", "file"] {
        furnish(&store, id).await;
    }
    assert!(store.delete_server(&server("a")).await.expect("answers"));
    assert!(!store.delete_server(&server("a")).await.expect("answers"));
    assert_eq!(left(&other, "a").await, [false; 4]);
    assert_eq!(left(&other, "b").await, [true; 4]);
    // A server that is not here may be one of the configuration file.
    assert!(!store.delete_server(&server("file")).await.expect("answers"));
    assert_eq!(left(&other, "file").await, [false, true, true, true]);
}

pub(crate) async fn a_server_goes_at_its_time(place: &Place) {
    let store = place.open().await;
    for (id, expires_at) in [("a", Some(NOW + 60)), ("b", Some(NOW + 61)), ("c", None)] {
        let server = ServerRecord {
            expires_at,
            ..record(id, id)
        };
        store.put_server(&server, NOW).await.expect("put");
        furnish(&store, id).await;
    }
    let before = store.revisions().await.expect("answers");
    assert_eq!(store.drop_expired_servers(NOW + 59).await.expect("answers"), []);
    assert_eq!(
        store.revisions().await.expect("answers"),
        before,
        "nothing went, so nothing changed"
    );
    assert_eq!(
        store.drop_expired_servers(NOW + 60).await.expect("answers"),
        [server("a")]
    );
    assert_eq!(left(&store, "a").await, [false; 4]);
    assert_eq!(left(&store, "b").await, [true; 4]);
    assert_eq!(left(&store, "c").await, [true; 4]);
}

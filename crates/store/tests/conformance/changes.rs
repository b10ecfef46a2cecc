//! Revisions: what raises them, what does not, and that a change and its revision are one.

use crate::api_keys::new_key;
use crate::place::{Place, server, user};
use secrecy::SecretSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;
use vestibule_store::{
    ApiKey, ConsoleSession, GrantChange, Lease, NewUser, Revisions, ServerRecord, Store, User, Version,
};

const NOW: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000;

async fn raised(store: &Store, last: &mut Revisions) -> Revisions {
    let now = store.revisions().await.expect("answers");
    let raised = Revisions {
        keys: now.keys - last.keys,
        users: now.users - last.users,
        servers: now.servers - last.servers,
        sessions: now.sessions - last.sessions,
        grants: now.grants - last.grants,
    };
    *last = now;
    raised
}

pub(crate) async fn each_kind_has_its_revision(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let mut last = Revisions::default();
    let none = Revisions::default();
    assert_eq!(raised(&other, &mut last).await, none);

    let version = store.put_api_key(&new_key("k", 1), NOW).await.expect("put");
    let keys = Revisions { keys: 1, ..none };
    assert_eq!(raised(&other, &mut last).await, keys);
    let key = store.api_key("k").await.expect("answers").expect("there");
    let version = {
        let replaced = store.replace_api_key_digest("k", version, &[2; 32], "h", NOW);
        replaced.await.expect("answers").expect("written")
    };
    assert_eq!(raised(&other, &mut last).await, keys);
    assert_eq!(store.update_api_key(&key, NOW).await.expect("answers"), None);
    assert_eq!(raised(&other, &mut last).await, none, "nothing was written");
    let key = ApiKey { version, ..key };
    store
        .update_api_key(&key, NOW)
        .await
        .expect("answers")
        .expect("written");
    assert_eq!(raised(&other, &mut last).await, keys);
    store.delete_api_key("k").await.expect("answers");
    assert_eq!(raised(&other, &mut last).await, keys);

    let users = Revisions { users: 1, ..none };
    let new = NewUser {
        id: user("ada"),
        role: "member".to_owned(),
        alias: None,
        email: None,
        blocked: false,
    };
    store.put_user(&new, NOW).await.expect("put");
    assert_eq!(raised(&other, &mut last).await, users);
    let ada = store.user(&user("ada")).await.expect("answers").expect("there");
    let blocked = User { blocked: true, ..ada };
    store
        .update_user(&blocked, NOW)
        .await
        .expect("answers")
        .expect("written");
    assert_eq!(raised(&other, &mut last).await, users);
    store
        .delete_user(&user("ada"))
        .await
        .expect("answers")
        .expect("deleted");
    assert_eq!(raised(&other, &mut last).await, users);

    let servers = Revisions { servers: 1, ..none };
    let record = ServerRecord {
        id: server("s"),
        name: "s".to_owned(),
        document: SecretSlice::from(vec![1]),
        by: None,
        expires_at: None,
    };
    let version = store.put_server(&record, NOW).await.expect("put");
    assert_eq!(raised(&other, &mut last).await, servers);
    let written = store.update_server(&record, version, NOW).await;
    written.expect("answers").expect("written");
    assert_eq!(raised(&other, &mut last).await, servers);
    assert!(store.delete_server(&server("s")).await.expect("answers"));
    assert_eq!(raised(&other, &mut last).await, servers);

    let sessions = Revisions { sessions: 1, ..none };
    let session = ConsoleSession {
        digest: [1; 32],
        holder: String::new(),
        user_id: None,
        key_id: None,
        created_at: NOW,
        expires_at: NOW + 1,
        agent: None,
    };
    store.put_session(&session).await.expect("put");
    assert_eq!(raised(&other, &mut last).await, sessions);
    store.drop_expired_sessions(NOW).await.expect("answers");
    assert_eq!(raised(&other, &mut last).await, none, "nothing went");
    store.drop_expired_sessions(NOW + 1).await.expect("answers");
    assert_eq!(raised(&other, &mut last).await, sessions);
}

async fn renew(store: &Store, version: Version) {
    let (ada, one) = (user("ada"), server("one"));
    let lease = store.lease_grant(&ada, &one, "a", NOW_MS, NOW_MS + 1000).await;
    assert!(matches!(lease.expect("answers"), Lease::Held(_)));
    let finished = store.finish_grant(&ada, &one, "a", version, b"fresh", None, NOW + 5);
    finished.await.expect("answers").expect("finished");
}

pub(crate) async fn a_sign_in_is_news_and_a_renewal_is_not(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let (ada, eve, one, two) = (user("ada"), user("eve"), server("one"), server("two"));
    let mut last = 0;
    let mut news = async || {
        let changes = other.grant_changes_since(last).await.expect("answers");
        let reached = other.revisions().await.expect("answers").grants;
        assert_eq!(changes.last().map_or(last, |change| change.revision), reached);
        assert!(changes.is_sorted_by_key(|change| change.revision));
        last = reached;
        let pair = |change: GrantChange| (change.user_id, change.server_id);
        changes.into_iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(news().await, []);
    let put = async |who, server| store.put_grant(who, server, b"x", None, NOW).await.expect("put");
    put(&ada, &one).await;
    put(&eve, &one).await;
    let version = put(&ada, &one).await;
    let (adas, eves) = ((ada.clone(), one.clone()), (eve.clone(), one.clone()));
    assert_eq!(
        news().await,
        [eves.clone(), adas.clone()],
        "each once, at its last change"
    );
    renew(&store, version).await;
    store.release_grant(&ada, &one, "a").await.expect("released");
    place.keys().rotate().expect("rotated");
    assert!(store.reseal().await.expect("resealed").rows > 0);
    assert_eq!(news().await, []);
    store.delete_grant(&ada, &one).await.expect("deleted");
    assert_eq!(news().await, std::slice::from_ref(&adas));
    store.delete_grant(&ada, &one).await.expect("nothing to delete");
    assert!(!store.delete_grant_if(&eve, &one, version).await.expect("answers"));
    assert_eq!(news().await, []);
    let version = put(&eve, &one).await;
    assert!(store.delete_grant_if(&eve, &one, version).await.expect("answers"));
    assert_eq!(news().await, [eves]);

    let secret = SecretSlice::from(vec![1]);
    for _ in 0..2 {
        store
            .put_user_secret(&ada, &two, &secret, NOW)
            .await
            .expect("put");
        assert_eq!(news().await, [(ada.clone(), two.clone())]);
    }
    assert!(store.delete_user_secret(&ada, &two).await.expect("answers"));
    assert_eq!(news().await, [(ada.clone(), two)]);
    assert!(!store.delete_user_secret(&ada, &one).await.expect("answers"));
    assert_eq!(news().await, []);
}

/// Whoever sees a revision sees the changes that it counts, however many write.
pub(crate) async fn a_change_and_its_revision_are_one(place: &Place) {
    const WRITERS: u8 = 8;
    const EACH: u8 = 12;
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let reader = place.open().await;
    let running = Arc::new(AtomicUsize::new(usize::from(WRITERS)));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, running) = (Arc::clone(&stores[usize::from(writer % 2)]), Arc::clone(&running));
        tasks.spawn(async move {
            for index in 0..EACH {
                let key = new_key(&format!("{writer}-{index}"), writer * EACH + index);
                store.put_api_key(&key, NOW).await.expect("put");
                let who = user(&key.id);
                store
                    .put_grant(&who, &server("one"), b"x", None, NOW)
                    .await
                    .expect("put");
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let mut last = Revisions::default();
    loop {
        let ended = running.load(Ordering::SeqCst) == 0;
        let revisions = reader.revisions().await.expect("answers");
        assert!(revisions.keys >= last.keys && revisions.grants >= last.grants);
        let keys = reader.api_keys().await.expect("answers").len();
        let grants = reader
            .grants_of_server(&server("one"))
            .await
            .expect("answers")
            .len();
        let changes = reader.grant_changes_since(0).await.expect("answers").len();
        for (counted, seen) in [
            (revisions.keys, keys),
            (revisions.grants, grants),
            (revisions.grants, changes),
        ] {
            assert!(
                usize::try_from(counted).expect("positive") <= seen,
                "{counted} {seen}"
            );
        }
        last = revisions;
        if ended {
            break;
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("joined");
    }
    let all = i64::from(WRITERS) * i64::from(EACH);
    assert_eq!((last.keys, last.grants), (all, all));
}

//! People: written down, changed by compare-and-swap, deleted with all that is theirs.

use crate::api_keys::new_key;
use crate::place::{Place, server, user};
use secrecy::{ExposeSecret, SecretSlice};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use vestibule_store::{ConsoleSession, NewApiKey, NewUser, RowFault, Store, StoreError, Unfit, Unique, User};

const NOW: u64 = 1_800_000_000;

fn new_user(id: &str) -> NewUser {
    NewUser {
        id: user(id),
        role: "member".to_owned(),
        alias: None,
        email: None,
        blocked: false,
    }
}

async fn get(store: &Store, id: &str) -> User {
    store.user(&user(id)).await.expect("answers").expect("there")
}

pub(crate) async fn a_person_is_written_down_and_changed(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.user(&user("ada")).await.expect("answers"), None);
    let ada = NewUser {
        alias: Some("Ada \"); --".to_owned()),
        email: Some("ada@example.com".to_owned()),
        ..new_user("ada")
    };
    let version = store.put_user(&ada, NOW).await.expect("put");
    store.put_user(&new_user("Eve"), NOW).await.expect("put");
    assert!(matches!(
        other.put_user(&ada, NOW).await,
        Err(StoreError::Taken(Unique::UserId))
    ));
    let kept = get(&other, "ada").await;
    let expected = User {
        id: ada.id.clone(),
        role: ada.role.clone(),
        alias: ada.alias.clone(),
        email: ada.email.clone(),
        blocked: false,
        created_at: NOW,
        updated_at: NOW,
        version,
    };
    assert_eq!(kept, expected);
    let ids: Vec<_> = store
        .users()
        .await
        .expect("answers")
        .into_iter()
        .map(|user| user.id)
        .collect();
    assert_eq!(ids, [user("Eve"), user("ada")]);

    let changed = User {
        role: "admin".to_owned(),
        alias: None,
        email: None,
        blocked: true,
        ..kept.clone()
    };
    let next = store.update_user(&changed, NOW + 1).await.expect("answers");
    let next = next.expect("written");
    let stale = other.update_user(&kept, NOW + 2).await.expect("answers");
    assert_eq!(stale, None, "somebody else was quicker");
    let expected = User {
        updated_at: NOW + 1,
        version: next,
        ..changed
    };
    assert_eq!(get(&other, "ada").await, expected);

    let nul = NewUser {
        email: Some("a\0b".to_owned()),
        ..new_user("nul")
    };
    assert!(matches!(
        store.put_user(&nul, NOW).await,
        Err(StoreError::Unfit {
            field: "email",
            fault: Unfit::Nul
        })
    ));
}

/// All that a person can have, and the same for another.
async fn furnish(store: &Store, id: &str, byte: u8) {
    let who = user(id);
    store.put_user(&new_user(id), NOW).await.expect("put");
    for name in ["one", "two"] {
        let server = server(name);
        let put = store.put_grant(&who, &server, id.as_bytes(), None, NOW);
        put.await.expect("put");
    }
    let secret = SecretSlice::from(b"own key".to_vec());
    let one = server("one");
    let put = store.put_user_secret(&who, &one, &secret, NOW);
    put.await.expect("put");
    let key = NewApiKey {
        user_id: Some(who.clone()),
        ..new_key(&format!("{id}-key"), byte)
    };
    store.put_api_key(&key, NOW).await.expect("put");
    store
        .note_key_uses(&[(key.id.clone(), NOW)])
        .await
        .expect("noted");
    for (session, user_id, key_id) in [(byte, Some(who), None), (byte + 100, None, Some(key.id))] {
        let session = ConsoleSession {
            digest: [session; 32],
            holder: id.to_owned(),
            user_id,
            key_id,
            created_at: NOW,
            expires_at: NOW + 60,
            agent: None,
        };
        store.put_session(&session).await.expect("put");
    }
}

/// How many rows of each kind a person has.
async fn left(store: &Store, id: &str) -> [usize; 6] {
    let who = user(id);
    let keys = store.api_keys().await.expect("answers");
    let uses = store.key_uses().await.expect("answers");
    let sessions = store.sessions(NOW).await.expect("answers");
    [
        usize::from(store.user(&who).await.expect("answers").is_some()),
        store.grants_of(&who).await.expect("answers").len(),
        store.user_secrets_of(&who).await.expect("answers").len(),
        keys.iter()
            .filter(|key| key.user_id.as_ref() == Some(&who))
            .count(),
        uses.iter().filter(|used| used.id.starts_with(id)).count(),
        sessions.iter().filter(|session| session.holder == id).count(),
    ]
}

pub(crate) async fn a_person_is_deleted_whole(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    furnish(&store, "ada", 1).await;
    furnish(&store, "eve", 2).await;
    let all = [1, 2, 1, 1, 1, 2];
    assert_eq!((left(&store, "ada").await, left(&store, "eve").await), (all, all));
    let damage = "UPDATE grants SET version = 1 WHERE user_id = 'ada' AND server_id = 'two'";
    assert_eq!(place.behind(damage).await, 1);

    let deleted = store
        .delete_user(&user("ada"))
        .await
        .expect("answers")
        .expect("there");
    assert_eq!(deleted.keys, ["ada-key"]);
    let [(one, grant), (two, fault)] = &deleted.grants[..] else {
        panic!("{deleted:?}");
    };
    assert_eq!((one, two), (&server("one"), &server("two")));
    assert_eq!(grant.as_ref().expect("opens").payload.expose_secret(), b"ada");
    assert!(matches!(
        fault,
        Err(StoreError::Undecryptable {
            fault: RowFault::Altered,
            ..
        })
    ));
    assert_eq!(
        (left(&other, "ada").await, left(&other, "eve").await),
        ([0; 6], all)
    );
    assert!(other.delete_user(&user("ada")).await.expect("answers").is_none());
}

pub(crate) async fn somebody_unknown_is_not_deleted(place: &Place) {
    let store = place.open().await;
    let (ada, one) = (user("ada"), server("one"));
    store.put_grant(&ada, &one, b"x", None, NOW).await.expect("put");
    assert!(store.delete_user(&ada).await.expect("answers").is_none());
    assert!(store.grant(&ada, &one).await.expect("answers").is_some());
    // The transaction is over.
    store.put_user(&new_user("ada"), NOW).await.expect("put");
}

/// A failure in the middle leaves everything.
pub(crate) async fn a_deletion_that_fails_deletes_nothing(place: &Place) {
    let store = place.open().await;
    furnish(&store, "ada", 1).await;
    place.behind("ALTER TABLE sessions RENAME TO away").await;
    assert!(matches!(
        store.delete_user(&user("ada")).await,
        Err(StoreError::Database(_))
    ));
    place.behind("ALTER TABLE away RENAME TO sessions").await;
    assert_eq!(left(&place.open().await, "ada").await, [1, 2, 1, 1, 1, 2]);
}

/// Whoever adds to a person while they go: what was acknowledged before the deletion is gone with it, and nothing
/// waits for itself.
pub(crate) async fn people_are_deleted_beside_writers(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    for round in 0..10_u8 {
        let id = format!("u{round}");
        furnish(&stores[0], &id, round + 1).await;
        let mut tasks = JoinSet::new();
        for index in 0..6_u8 {
            let (store, who) = (Arc::clone(&stores[usize::from(index % 2)]), user(&id));
            tasks.spawn(async move {
                let server = server(if index < 3 { "one" } else { "two" });
                let secret = SecretSlice::from(vec![index]);
                store
                    .put_user_secret(&who, &server, &secret, NOW)
                    .await
                    .expect("put");
                store
                    .put_grant(&who, &server, &[index], None, NOW)
                    .await
                    .expect("put");
                store.delete_grant(&who, &server).await.expect("deleted");
                store.delete_user_secret(&who, &server).await.expect("deleted");
                false
            });
        }
        for store in &stores {
            let (store, who) = (Arc::clone(store), user(&id));
            tasks.spawn(async move { store.delete_user(&who).await.expect("answers").is_some() });
        }
        let mut deletions = 0;
        while let Some(deleted) = tasks.join_next().await {
            deletions += usize::from(deleted.expect("joined"));
        }
        assert_eq!(deletions, 1);
        assert_eq!(left(&stores[0], &id).await, [0; 6]);
    }
}

/// What is acknowledged before a deletion is, goes with it, also when the deletion had begun.
pub(crate) async fn what_came_while_a_deletion_waited_goes_too(place: &Place) {
    let store = place.open().await;
    furnish(&store, "ada", 1).await;
    let late = "INSERT INTO grants (user_id, server_id, sealed, version, connected_at, updated_at) \
         SELECT user_id, 'late', sealed, version, connected_at, updated_at FROM grants WHERE server_id = 'one'";
    let (done, begun) = oneshot::channel();
    let deletion = async {
        begun.await.expect("begun");
        let deleted = store.delete_user(&user("ada")).await;
        deleted.expect("answers").expect("there")
    };
    let ((), deleted) = tokio::join!(place.behind_until_waited_for(late, done), deletion);
    assert_eq!(deleted.grants.len(), 3);
    assert_eq!(left(&store, "ada").await, [0; 6]);
}

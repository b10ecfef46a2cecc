//! People: written down, changed by compare-and-swap, deleted with all that is theirs.

use crate::api_keys::new_key;
use crate::place::{Place, server, user};
use secrecy::{ExposeSecret, SecretSlice};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use vestibule_store::{
    ApiKey, ConsoleSession, NewApiKey, NewUser, RowFault, Store, StoreError, Unfit, Unique, User,
};

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

fn key_of(id: &str, byte: u8, owner: &str) -> NewApiKey {
    NewApiKey {
        user_id: Some(user(owner)),
        ..new_key(id, byte)
    }
}

fn named(key: NewApiKey, alias: &str) -> NewApiKey {
    NewApiKey {
        alias: Some(alias.to_owned()),
        ..key
    }
}

pub(crate) async fn a_key_and_its_owner_come_together_or_not_at_all(place: &Place) {
    let store = place.open().await;
    let other = named(new_key("other", 9), "taken");
    store.put_api_key(&other, NOW).await.expect("put");

    // Who was something already stays what they were.
    let root = NewUser {
        role: "admin".to_owned(),
        blocked: true,
        ..new_user("root")
    };
    let version = store.put_user(&root, NOW).await.expect("put");
    let put = store
        .put_api_key_of(&new_user("root"), &key_of("a", 1, "root"), NOW + 1)
        .await;
    put.expect("put");
    let kept = get(&store, "root").await;
    assert_eq!(
        (&*kept.role, kept.blocked, kept.version),
        ("admin", true, version)
    );
    let put = store
        .put_api_key_of(&new_user("new"), &key_of("b", 2, "new"), NOW)
        .await;
    put.expect("put");
    assert_eq!(left(&store, "new").await, [1, 0, 0, 1, 0, 0]);

    // Neither, and nothing of what a person has who is not written down.
    let (ada, one) = (user("ada"), server("one"));
    store.put_grant(&ada, &one, b"x", None, NOW).await.expect("put");
    let secret = SecretSlice::from(b"own key".to_vec());
    store
        .put_user_secret(&ada, &one, &secret, NOW)
        .await
        .expect("put");
    let clashing = named(key_of("c", 3, "ada"), "taken");
    for refused in [
        store.put_api_key_of(&new_user("ada"), &clashing, NOW).await,
        store.put_user_with_key(&new_user("ada"), &clashing, NOW).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Taken(Unique::ApiKeyAlias))));
        assert_eq!(left(&store, "ada").await, [0, 1, 1, 0, 0, 0]);
    }
    let put = store
        .put_user_with_key(&new_user("root"), &key_of("d", 4, "root"), NOW)
        .await;
    assert!(matches!(put, Err(StoreError::Taken(Unique::UserId))));
    assert_eq!(store.api_key("d").await.expect("answers"), None);
    let put = store
        .put_user_with_key(&new_user("ada"), &key_of("d", 4, "ada"), NOW)
        .await;
    put.expect("put");
    assert_eq!(left(&store, "ada").await, [1, 1, 1, 1, 0, 0]);

    // Given to somebody else.
    let row = store.api_key("d").await.expect("answers").expect("there");
    let given = ApiKey {
        user_id: Some(user("eve")),
        ..row.clone()
    };
    let written = store.update_api_key_of(&new_user("eve"), &given, NOW).await;
    assert!(written.expect("answers").is_some());
    let stale = ApiKey {
        user_id: Some(user("bob")),
        ..row
    };
    let written = store.update_api_key_of(&new_user("bob"), &stale, NOW).await;
    assert_eq!(written.expect("answers"), None);
    assert_eq!(
        (left(&store, "eve").await, left(&store, "bob").await),
        ([1, 0, 0, 1, 0, 0], [0; 6])
    );
    let of_eve = store.api_keys_of(&user("eve")).await.expect("answers");
    let found = store.api_key_with_digest(&[4; 32]).await.expect("answers");
    assert_eq!((of_eve.len(), of_eve.first()), (1, found.as_ref()));
    assert_eq!(store.api_key_with_digest(&[7; 32]).await.expect("answers"), None);
    assert_eq!(store.key_used("d").await.expect("answers"), None);
    store
        .note_key_uses(&[("d".to_owned(), NOW)])
        .await
        .expect("noted");
    assert_eq!(store.key_used("d").await.expect("answers"), Some(NOW));
}

/// Keys are made and given away at two replicas while their owner is deleted at both: whichever is first, there is no key
/// of somebody who is not written down.
pub(crate) async fn no_key_outlives_its_owner(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    for round in 0..12_u8 {
        let owner = format!("u{round}");
        stores[0].put_user(&new_user(&owner), NOW).await.expect("put");
        let spare = format!("{owner}-spare");
        let put = stores[0].put_api_key(&new_key(&spare, round * 8 + 7), NOW).await;
        put.expect("put");
        let mut tasks = JoinSet::new();
        for index in 0..4_u8 {
            let (store, owner) = (Arc::clone(&stores[usize::from(index % 2)]), owner.clone());
            let key = key_of(&format!("{owner}-{index}"), round * 8 + index, &owner);
            tasks.spawn(async move {
                let new = new_user(&owner);
                match index {
                    0 | 1 => drop(store.put_api_key_of(&new, &key, NOW).await.expect("put")),
                    // Taken, unless the person is gone just then.
                    2 => drop(store.put_user_with_key(&new, &key, NOW).await),
                    _ => {
                        let row = store.api_key(&format!("{owner}-spare")).await.expect("answers");
                        let given = ApiKey {
                            user_id: Some(user(&owner)),
                            ..row.expect("there")
                        };
                        store.update_api_key_of(&new, &given, NOW).await.expect("answers");
                    }
                }
            });
        }
        for store in &stores {
            let (store, who) = (Arc::clone(store), user(&owner));
            tasks.spawn(async move { drop(store.delete_user(&who).await.expect("answers")) });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("joined");
        }
        let [written, .., keys, _, _] = left(&stores[0], &owner).await;
        assert!(written == 1 || keys == 0, "{keys} keys of nobody");
    }
}

//! Virtual keys: kept, changed by compare-and-swap, replaced, deleted whole; their use is noted apart.

use crate::place::{Place, user};
use std::sync::Arc;
use tokio::task::JoinSet;
use vestibule_store::{ApiKey, ConsoleSession, KeyUsed, NewApiKey, Store, StoreError, Unfit, Unique};

const NOW: u64 = 1_800_000_000;

pub(crate) fn new_key(id: &str, byte: u8) -> NewApiKey {
    NewApiKey {
        id: id.to_owned(),
        digest: [byte; 32],
        hint: "wxyz".to_owned(),
        alias: None,
        user_id: None,
        document: "{}".to_owned(),
        blocked: false,
        expires_at: None,
        created_by: None,
    }
}

async fn get(store: &Store, id: &str) -> ApiKey {
    store.api_key(id).await.expect("answers").expect("there")
}

fn taken<T>(answer: Result<T, StoreError>) -> Unique {
    match answer {
        Err(StoreError::Taken(unique)) => unique,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("written"),
    }
}

pub(crate) async fn a_key_is_kept_and_changed(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.api_keys().await.expect("answers"), []);
    let new = NewApiKey {
        alias: Some("ci'); DROP TABLE api_keys; --".to_owned()),
        user_id: Some(user("ada")),
        document: r#"{"servers":["a\u0000b"]}"#.to_owned(),
        blocked: true,
        expires_at: Some(NOW + 60),
        created_by: Some("eve \u{1f511}".to_owned()),
        ..new_key("k1", 1)
    };
    let version = store.put_api_key(&new, NOW).await.expect("put");
    store.put_api_key(&new_key("K0", 2), NOW).await.expect("put");
    let kept = get(&other, "k1").await;
    assert_eq!(
        kept,
        ApiKey {
            id: new.id.clone(),
            digest: new.digest,
            hint: new.hint.clone(),
            alias: new.alias.clone(),
            user_id: new.user_id.clone(),
            document: new.document.clone(),
            blocked: true,
            expires_at: Some(NOW + 60),
            created_at: NOW,
            created_by: new.created_by.clone(),
            updated_at: NOW,
            version,
        }
    );
    let ids = |keys: Vec<ApiKey>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(store.api_keys().await.expect("answers")), ["K0", "k1"]);

    let changed = ApiKey {
        alias: None,
        user_id: None,
        document: "new".to_owned(),
        blocked: false,
        expires_at: None,
        ..kept.clone()
    };
    let next = store.update_api_key(&changed, NOW + 1).await.expect("answers");
    let next = next.expect("written");
    assert!(next > version);
    let expected = ApiKey {
        updated_at: NOW + 1,
        version: next,
        ..changed
    };
    assert_eq!(get(&other, "k1").await, expected);
    let stale = other.update_api_key(&kept, NOW + 2).await.expect("answers");
    assert_eq!(stale, None, "somebody else was quicker");
    assert_eq!(get(&other, "k1").await, expected);
}

pub(crate) async fn no_two_keys_share_an_id_digest_or_alias(place: &Place) {
    let store = place.open().await;
    let named = |id, byte, alias: &str| NewApiKey {
        alias: Some(alias.to_owned()),
        ..new_key(id, byte)
    };
    store.put_api_key(&named("a", 1, "ci"), NOW).await.expect("put");
    store.put_api_key(&named("b", 2, "CI"), NOW).await.expect("put");
    store.put_api_key(&new_key("c", 3), NOW).await.expect("put");
    store
        .put_api_key(&new_key("d", 4), NOW)
        .await
        .expect("many have no alias");
    let put = async |key| taken(store.put_api_key(&key, NOW).await);
    assert_eq!(put(new_key("a", 9)).await, Unique::ApiKeyId);
    assert_eq!(put(new_key("e", 1)).await, Unique::ApiKeyDigest);
    assert_eq!(put(named("e", 9, "ci")).await, Unique::ApiKeyAlias);
    let renamed = ApiKey {
        alias: Some("ci".to_owned()),
        ..get(&store, "b").await
    };
    assert_eq!(
        taken(store.update_api_key(&renamed, NOW).await),
        Unique::ApiKeyAlias
    );
    let b = get(&store, "b").await;
    let replaced = store.replace_api_key_digest("b", b.version, &[1; 32], "h", NOW);
    assert_eq!(taken(replaced.await), Unique::ApiKeyDigest);
    assert_eq!(get(&store, "b").await, b);
    assert_eq!(store.api_keys().await.expect("answers").len(), 4);
    let text = StoreError::Taken(Unique::ApiKeyAlias).to_string();
    assert_eq!(text, "there is another key with this alias");
}

pub(crate) async fn one_of_many_rotates(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let version = stores[0].put_api_key(&new_key("k", 1), NOW).await.expect("put");
    let mut tasks = JoinSet::new();
    for byte in 10..40 {
        let store = Arc::clone(&stores[usize::from(byte) % 2]);
        tasks.spawn(async move {
            let digest = [byte; 32];
            let replaced = store.replace_api_key_digest("k", version, &digest, "abcd", NOW + 1);
            replaced.await.expect("answers").map(|version| (byte, version))
        });
    }
    let mut won = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        won.extend(answer.expect("joined"));
    }
    let [(byte, version)] = won[..] else {
        panic!("{won:?}");
    };
    let key = get(&stores[1], "k").await;
    assert_eq!(
        (key.digest, key.hint.as_str(), key.version, key.updated_at),
        ([byte; 32], "abcd", version, NOW + 1)
    );
}

pub(crate) async fn uses_are_noted_and_go_with_the_key(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    for (id, byte) in [("a", 1), ("b", 2)] {
        store.put_api_key(&new_key(id, byte), NOW).await.expect("put");
    }
    let before = store.revisions().await.expect("answers");
    let used = |id: &str, at| (id.to_owned(), at);
    let batch = [
        used("b", NOW + 5),
        used("gone", NOW),
        used("a", NOW),
        used("b", NOW + 3),
    ];
    store.note_key_uses(&batch).await.expect("noted");
    other
        .note_key_uses(&[used("b", NOW + 4), used("a", NOW + 1)])
        .await
        .expect("noted");
    other.note_key_uses(&[]).await.expect("nothing to note");
    let noted = |id: &str, at| KeyUsed {
        id: id.to_owned(),
        at,
    };
    assert_eq!(
        store.key_uses().await.expect("answers"),
        [noted("a", NOW + 1), noted("b", NOW + 5)]
    );
    assert_eq!(
        store.revisions().await.expect("answers"),
        before,
        "a use is no change"
    );

    let session = |byte, key: &str| ConsoleSession {
        digest: [byte; 32],
        holder: "h".to_owned(),
        user_id: None,
        key_id: Some(key.to_owned()),
        created_at: NOW,
        expires_at: NOW + 60,
        agent: None,
    };
    for (byte, key) in [(1, "a"), (2, "b")] {
        store.put_session(&session(byte, key)).await.expect("put");
    }
    assert!(store.delete_api_key("b").await.expect("answers"));
    assert!(!store.delete_api_key("b").await.expect("answers"));
    assert_eq!(other.key_uses().await.expect("answers"), [noted("a", NOW + 1)]);
    assert_eq!(other.sessions(NOW).await.expect("answers"), [session(1, "a")]);
}

/// Batches in all orders, and keys that go meanwhile: no deadlock, and no note without its key.
pub(crate) async fn uses_are_noted_beside_deletions(place: &Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    let ids: Vec<String> = (0..20).map(|index| format!("k{index}")).collect();
    for (id, byte) in ids.iter().zip(1..) {
        stores[0].put_api_key(&new_key(id, byte), NOW).await.expect("put");
    }
    let mut tasks = JoinSet::new();
    for round in 0..20_u64 {
        let (store, id) = (
            Arc::clone(&stores[usize::from(round % 2 == 0)]),
            ids[usize::try_from(round).expect("small")].clone(),
        );
        let mut batch: Vec<_> = ids.iter().map(|id| (id.clone(), NOW + round)).collect();
        if round % 3 == 0 {
            batch.reverse();
        }
        tasks.spawn(async move {
            store.note_key_uses(&batch).await.expect("noted");
            if round % 2 == 0 {
                assert!(store.delete_api_key(&id).await.expect("answers"));
            }
        });
    }
    while let Some(answer) = tasks.join_next().await {
        answer.expect("joined");
    }
    let known: Vec<_> = stores[0].api_keys().await.expect("answers");
    let noted: Vec<_> = stores[0].key_uses().await.expect("answers");
    assert_eq!(known.len(), 10);
    assert_eq!(
        noted.iter().map(|noted| &noted.id).collect::<Vec<_>>(),
        known.iter().map(|key| &key.id).collect::<Vec<_>>()
    );
    assert!(noted.iter().all(|noted| noted.at == NOW + 19), "{noted:?}");
}

pub(crate) async fn a_text_that_cannot_be_kept_is_refused(place: &Place) {
    let store = place.open().await;
    let put = async |change: fn(&mut NewApiKey)| {
        let mut key = new_key("k", 1);
        change(&mut key);
        match store.put_api_key(&key, NOW).await {
            Err(StoreError::Unfit { field, fault }) => (field, fault),
            other => panic!("{other:?}"),
        }
    };
    let nul = || "a\0b".to_owned();
    assert_eq!(put(|key| key.id = String::new()).await, ("key id", Unfit::Length));
    assert_eq!(
        put(|key| key.id = "k".repeat(513)).await,
        ("key id", Unfit::Length)
    );
    assert_eq!(put(|key| key.id.push('\0')).await, ("key id", Unfit::Nul));
    assert_eq!(
        put(|key| key.alias = Some(String::new())).await,
        ("alias", Unfit::Length)
    );
    assert_eq!(
        put(|key| key.alias = Some("\0".to_owned())).await,
        ("alias", Unfit::Nul)
    );
    assert_eq!(put(|key| key.hint.push('\0')).await, ("hint", Unfit::Nul));
    assert_eq!(put(|key| key.document.push('\0')).await, ("document", Unfit::Nul));
    assert_eq!(
        put(|key| key.created_by = Some("\0".to_owned())).await,
        ("maker", Unfit::Nul)
    );
    let unfit = |answer| {
        matches!(
            answer,
            Err(StoreError::Unfit {
                fault: Unfit::Nul,
                ..
            })
        )
    };
    assert!(unfit(store.api_key(&nul()).await.map(drop)));
    assert!(unfit(store.delete_api_key(&nul()).await.map(drop)));
    assert!(unfit(store.note_key_uses(&[(nul(), NOW)]).await));
    assert_eq!(store.api_keys().await.expect("answers"), []);
}

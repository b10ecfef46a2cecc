//! People's own keys for servers: sealed to their row, the last one wins.

use crate::place::{Place, server, user};
use secrecy::{ExposeSecret, SecretSlice};
use vestibule_store::{RowFault, StoreError, UserSecretSummary};

const NOW: u64 = 1_800_000_000;

fn secret(text: &str) -> SecretSlice<u8> {
    SecretSlice::from(text.as_bytes().to_vec())
}

pub(crate) async fn a_secret_is_kept_replaced_and_deleted(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let (ada, eve, one, two) = (user("ada"), user("eve"), server("one"), server("two"));
    assert!(store.user_secret(&ada, &one).await.expect("answers").is_none());
    for (who, server, text, now) in [
        (&ada, &one, "first", NOW),
        (&ada, &two, "two", NOW),
        (&eve, &one, "eve's", NOW + 1),
        (&ada, &one, "canary", NOW + 2),
    ] {
        let secret = secret(text);
        let put = store.put_user_secret(who, server, &secret, now);
        put.await.expect("put");
    }
    let kept = other
        .user_secret(&ada, &one)
        .await
        .expect("answers")
        .expect("there");
    assert_eq!(kept.payload.expose_secret(), b"canary");
    assert_eq!((kept.created_at, kept.updated_at), (NOW, NOW + 2));
    assert!(!format!("{kept:?}").contains("canary"), "a secret does not print");
    let summary =
        |who: &vestibule_store::UserId, server: &vestibule_store::ServerId, created_at, updated_at| {
            UserSecretSummary {
                user_id: who.clone(),
                server_id: server.clone(),
                created_at,
                updated_at,
            }
        };
    let adas = [summary(&ada, &one, NOW, NOW + 2), summary(&ada, &two, NOW, NOW)];
    assert_eq!(other.user_secrets_of(&ada).await.expect("answers"), adas);
    assert_eq!(
        other.user_secrets_of_server(&one).await.expect("answers"),
        [adas[0].clone(), summary(&eve, &one, NOW + 1, NOW + 1)]
    );
    assert!(store.delete_user_secret(&ada, &one).await.expect("answers"));
    assert!(!store.delete_user_secret(&ada, &one).await.expect("answers"));
    assert!(other.user_secret(&ada, &one).await.expect("answers").is_none());
    assert!(other.user_secret(&eve, &one).await.expect("answers").is_some());
}

pub(crate) async fn a_secret_of_somebody_else_does_not_open(place: &Place) {
    let store = place.open().await;
    let (ada, eve, one) = (user("ada"), user("eve"), server("one"));
    for who in [&ada, &eve] {
        let secret = secret("x");
        let put = store.put_user_secret(who, &one, &secret, NOW);
        put.await.expect("put");
    }
    store.put_grant(&ada, &one, b"x", None, NOW).await.expect("put");
    let fault = async |who| match store.user_secret(who, &one).await {
        Err(StoreError::Undecryptable {
            table: "user_secrets",
            fault,
            ..
        }) => fault,
        other => panic!("{other:?}"),
    };
    let swap = "UPDATE user_secrets SET sealed = (SELECT sealed FROM user_secrets WHERE user_id = 'ada'), \
         version = (SELECT version FROM user_secrets WHERE user_id = 'ada') WHERE user_id = 'eve'";
    assert_eq!(place.behind(swap).await, 1);
    assert_eq!(fault(&eve).await, RowFault::Altered);
    // Nor does a grant, put in its place.
    let swap = "UPDATE user_secrets SET sealed = (SELECT sealed FROM grants), \
         version = (SELECT version FROM grants) WHERE user_id = 'ada'";
    assert_eq!(place.behind(swap).await, 1);
    assert_eq!(fault(&ada).await, RowFault::Altered);
    store
        .put_user_secret(&eve, &one, &secret("new"), NOW)
        .await
        .expect("put");
    assert!(store.user_secret(&eve, &one).await.expect("answers").is_some());
}

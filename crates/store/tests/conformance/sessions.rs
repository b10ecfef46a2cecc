//! Sessions of the console: begun, found until their time, ended one by one or together.

use crate::api_keys::new_key;
use crate::place::{Place, user};
use vestibule_store::{ConsoleSession, StoreError, Unfit, Unique};

const NOW: u64 = 1_800_000_000;

fn session(byte: u8, user_id: Option<&str>, key_id: Option<&str>) -> ConsoleSession {
    ConsoleSession {
        digest: [byte; 32],
        holder: "the master key".to_owned(),
        user_id: user_id.map(user),
        key_id: key_id.map(str::to_owned),
        created_at: NOW + u64::from(byte),
        expires_at: NOW + 1000 + u64::from(byte),
        agent: Some("Browser'); DROP TABLE sessions; --".to_owned()),
    }
}

pub(crate) async fn a_session_is_found_until_its_time(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let first = session(1, Some("ada"), Some("k"));
    store.put_session(&first).await.expect("put");
    assert!(matches!(
        other.put_session(&session(1, Some("eve"), None)).await,
        Err(StoreError::Taken(Unique::Session))
    ));
    let find = async |byte, now| other.session(&[byte; 32], now).await.expect("answers");
    assert_eq!(find(1, NOW).await, Some(first.clone()));
    assert_eq!(find(1, NOW + 1000).await, Some(first.clone()));
    assert_eq!(find(1, NOW + 1001).await, None);
    assert_eq!(find(2, NOW).await, None);
    let second = session(2, None, None);
    store.put_session(&second).await.expect("put");
    assert_eq!(
        other.sessions(NOW).await.expect("answers"),
        [second.clone(), first]
    );
    assert_eq!(
        other.sessions(NOW + 1001).await.expect("answers"),
        std::slice::from_ref(&second)
    );
    assert_eq!(other.drop_expired_sessions(NOW + 1001).await.expect("answers"), 1);
    assert_eq!(other.sessions(NOW).await.expect("answers"), [second]);
    assert!(store.delete_session(&[2; 32]).await.expect("answers"));
    assert!(!store.delete_session(&[2; 32]).await.expect("answers"));
    let nul = ConsoleSession {
        agent: Some("\0".to_owned()),
        ..session(3, None, None)
    };
    assert!(matches!(
        store.put_session(&nul).await,
        Err(StoreError::Unfit {
            field: "agent",
            fault: Unfit::Nul
        })
    ));
}

pub(crate) async fn sessions_of_a_key_or_person_end_together(place: &Place) {
    let store = place.open().await;
    let all = [
        session(1, Some("ada"), Some("k")),
        session(2, Some("ada"), None),
        session(3, Some("eve"), Some("k")),
        session(4, None, None),
        session(5, Some("eve"), Some("l")),
    ];
    for session in &all {
        store.put_session(session).await.expect("put");
    }
    assert_eq!(
        store
            .delete_sessions_of_user(&user("ada"))
            .await
            .expect("answers"),
        2
    );
    assert_eq!(store.delete_sessions_of_key("k").await.expect("answers"), 1);
    // Another text for a key ends what was begun with the old one, and only where it is written.
    let version = store.put_api_key(&new_key("l", 1), NOW).await.expect("put");
    for (version, left) in [(version.next(), 2), (version, 1)] {
        let replaced = store.replace_api_key_digest("l", version, &[2; 32], "h", NOW);
        replaced.await.expect("answers");
        assert_eq!(store.sessions(NOW).await.expect("answers").len(), left);
    }
    assert_eq!(
        store
            .delete_sessions_of_key("' OR 1=1 --")
            .await
            .expect("answers"),
        0
    );
    assert_eq!(store.sessions(NOW).await.expect("answers"), [all[3].clone()]);
}

//! SQLite alone: what was acknowledged is there after kill -9, and how the file is.

use crate::place::{Place, server, user};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use vestibule_store::{DatabaseUrl, MasterKeys, Store};

const NOW: u64 = 1_800_000_000;
const CHILD: &str = "VESTIBULE_TEST_STORE_CHILD";

/// The test and, run again with [`CHILD`] set to a database, the process that it kills.
#[tokio::test]
async fn what_was_acknowledged_survives_kill() {
    if let Some(path) = std::env::var_os(CHILD) {
        return child(Path::new(&path)).await;
    }
    for acknowledged in [1, 2, 25] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("v.db");
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "crash::what_was_acknowledged_survives_kill",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let count = lines
            .filter(|line| line.as_ref().expect("text").contains("acknowledged"))
            .take(acknowledged)
            .count();
        process.kill().expect("killed");
        process.wait().expect("ended");
        assert_eq!(count, acknowledged);
        let url = DatabaseUrl::sqlite(&path);
        let keys = MasterKeys::load(&std::collections::HashMap::new(), &url).expect("keys");
        let store = Store::open(&url, &keys).await.expect("opens");
        for index in 0..acknowledged {
            let grant = store.grant(&user(&index.to_string()), &server("one")).await;
            assert!(grant.expect("answers").is_some(), "row {index}");
        }
    }
}

async fn child(path: &Path) {
    let url = DatabaseUrl::sqlite(path);
    let keys = MasterKeys::load(&std::collections::HashMap::new(), &url).expect("keys");
    let store = Store::open(&url, &keys).await.expect("opens");
    for index in 0..10_000 {
        let who = user(&index.to_string());
        store
            .put_grant(&who, &server("one"), b"tokens", None, NOW)
            .await
            .expect("put");
        writeln!(std::io::stdout(), "acknowledged").expect("read");
    }
}

#[tokio::test]
async fn the_file_is_private_and_its_journal_whole() {
    let place = Place::sqlite();
    let store = place.open().await;
    store
        .put_grant(&user("ada"), &server("one"), b"canary-token", None, NOW)
        .await
        .expect("put");
    let path = place.url().sqlite_file().expect("a file");
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", path.display());
        let file = std::fs::metadata(&path).expect("there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{path}");
        let bytes = std::fs::read(&path).expect("read");
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{path}");
    }
}

#[tokio::test]
async fn memory_lasts_as_long_as_the_store() {
    let url = DatabaseUrl::parse("sqlite::memory:").expect("a url");
    let keys = MasterKeys::load(&std::collections::HashMap::new(), &url).expect("keys");
    let (store, other) = (
        Store::open(&url, &keys).await.expect("opens"),
        Store::open(&url, &keys).await.expect("opens"),
    );
    store
        .put_grant(&user("ada"), &server("one"), b"x", None, NOW)
        .await
        .expect("put");
    assert!(
        store
            .grant(&user("ada"), &server("one"))
            .await
            .expect("answers")
            .is_some()
    );
    assert!(
        other
            .grant(&user("ada"), &server("one"))
            .await
            .expect("answers")
            .is_none()
    );
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let url = DatabaseUrl::parse("sqlite:/nowhere/v.db").expect("a url");
    let keys = MasterKeys::from_environment(&std::collections::HashMap::new()).expect("keys");
    let error = Store::open(&url, &keys).await.err().expect("refused").to_string();
    assert!(error.contains("/nowhere/v.db"), "{error}");
}

#[tokio::test]
async fn no_password_is_printed_when_a_server_is_away() {
    let url = DatabaseUrl::parse("postgres://ada:canary@127.0.0.1:1/d").expect("a url");
    let keys = MasterKeys::from_environment(&std::collections::HashMap::new()).expect("keys");
    let error = Store::open(&url, &keys).await.err().expect("refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains("127.0.0.1:1") && !text.contains("canary"), "{text}");
}

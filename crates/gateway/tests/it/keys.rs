//! `vestibule keys` as a program, beside a store that is open.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use vestibule_store::{DatabaseUrl, MasterKeys, ServerId, Store, UserId};

fn keys(arguments: &[&str], directory: &Path, environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .arg("keys")
        .args(arguments)
        .arg("--config")
        .arg(directory.join("config.yaml"))
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.success(), text)
}

#[tokio::test]
async fn keys_are_rotated_and_retired_beside_an_open_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path();
    std::fs::write(
        here.join("config.yaml"),
        "mcp_servers:\n  one:\n    url: https://a.example/mcp\n",
    )
    .expect("written");
    let run = |arguments: &[&str]| keys(arguments, here, &[]);
    let (done, text) = run(&["status"]);
    assert!(!done && text.contains("vestibule.db does not exist"), "{text}");

    let url = DatabaseUrl::sqlite(&here.join("vestibule.db"));
    let made = MasterKeys::load(&HashMap::new(), &url).expect("keys");
    let store = Store::open(&url, &made).await.expect("opens");
    let ada = UserId::new("ada").expect("an id");
    let one = ServerId::new("one").expect("an id");
    store
        .put_grant(&ada, &one, b"tokens", None, 1)
        .await
        .expect("put");
    let old = store.ring().ids()[0];

    let (done, text) = run(&["status"]);
    assert!(done && text.contains(&format!("{old}  seals, 2 rows")), "{text}");
    let (done, text) = run(&["retire"]);
    assert!(done && text.contains("nothing to drop"), "{text}");
    let (done, text) = run(&["rotate"]);
    assert!(
        done && text.contains("2 rows sealed with the first key"),
        "{text}"
    );
    assert!(store.grant(&ada, &one).await.expect("answers").is_some());
    let (done, text) = run(&["status"]);
    assert!(done && text.contains(&format!("{old}  opens, 0 rows")), "{text}");
    let (done, text) = run(&["retire"]);
    assert!(done && text.contains("1 key dropped"), "{text}");
    let (_, text) = run(&["status"]);
    assert!(
        !text.contains(&old.to_string()) && text.contains("seals, 2 rows"),
        "{text}"
    );
    assert!(store.grant(&ada, &one).await.expect("answers").is_some());

    // The same keys from the environment: moved to a file, since nothing else can be done to them.
    let file = std::fs::read_to_string(here.join("vestibule.db.key")).expect("read");
    let key = file.lines().find(|line| !line.starts_with('#')).expect("a key");
    let variable = [("VESTIBULE_MASTER_KEY", key)];
    let (done, text) = keys(&["rotate"], here, &variable);
    assert!(!done && text.contains("--to FILE"), "{text}");
    assert!(!text.contains(key), "no key is printed");
    let moved = here.join("moved");
    let (done, text) = keys(
        &["rotate", "--to", moved.to_str().expect("text")],
        here,
        &variable,
    );
    assert!(done && text.contains("VESTIBULE_MASTER_KEY_FILE="), "{text}");
    assert!(std::fs::read_to_string(&moved).expect("read").contains(key));

    let other = [("LITELLM_SALT_KEY", "another")];
    let (done, text) = keys(&["status"], here, &other);
    assert!(
        !done && text.contains("nothing was changed") && text.contains("LITELLM_SALT_KEY"),
        "{text}"
    );
    let postgres = [("DATABASE_URL", "postgres://ada:canary@127.0.0.1:1/d")];
    let (done, text) = keys(&["status"], here, &postgres);
    assert!(
        !done && text.contains("set VESTIBULE_MASTER_KEY_FILE") && !text.contains("canary"),
        "{text}"
    );
}

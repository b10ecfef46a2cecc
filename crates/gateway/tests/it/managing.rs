//! `vestibule api-keys` and `vestibule users` as programs, beside a gateway that runs on the same database.

use crate::child::{ConfigFile, Finished, Program, run};
use crate::harness::{KEY, echo, got};
use serde_json::Value;
use vestibule_testkit::Upstream;

/// A gateway with the server `one`, and where it keeps things.
struct Place {
    config: ConfigFile,
    directory: tempfile::TempDir,
}

impl Place {
    fn new(upstream: &Upstream, general: &str) -> Self {
        let text = format!("{general}mcp_servers:\n  one:\n    url: {}\n", upstream.url());
        Self {
            config: ConfigFile::new(&text),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn data(&self) -> &str {
        self.directory.path().to_str().expect("text")
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        let arguments = [arguments, &["--config", self.config.path()]].concat();
        run(&arguments, &[("VESTIBULE_DATA_DIR", self.data())]).await
    }

    /// What a command says in JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str(&done.out).expect("JSON")
    }

    async fn refused(&self, arguments: &[&str], with: &str) {
        let done = self.run(arguments).await;
        assert!(
            done.code == Some(1) && done.err.contains(with),
            "{arguments:?} {done:?}"
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one walk")]
async fn keys_and_people_are_managed_beside_a_running_gateway() {
    let upstream = Upstream::start().await;
    let place = Place::new(&upstream, &format!("general_settings: {{master_key: {KEY}}}\n"));
    place.refused(&["api-keys", "list"], "does not exist").await;
    let mut gateway = Program::serve(&place.config, &[("VESTIBULE_DATA_DIR", place.data())]);
    let url = format!("{}/one/mcp", gateway.base().await);
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let call = async |key: &str| {
        let request = http.post(&url).header("x-litellm-api-key", key).json(&echo("a"));
        got(request.header("accept", "application/json, text/event-stream"))
            .await
            .status
    };
    let reaches = async |key: &str, status: u16| {
        let reached = async { while call(key).await != status {} };
        let reached = tokio::time::timeout(vestibule_testkit::DEADLINE, reached).await;
        assert!(reached.is_ok(), "never {status}");
    };

    let create = [
        "api-keys",
        "create",
        "--alias",
        "ci",
        "--user",
        "ada",
        "--server",
        "one",
        "--tool",
        "one/echo",
        "--duration",
        "30d",
        "--rpm-limit",
        "1000",
    ];
    let made = place.json(&create).await;
    let (key, id) = (
        made["key"].as_str().expect("a key"),
        made["key_id"].as_str().expect("an id"),
    );
    assert_eq!(
        (&made["created_by"], &made["user_id"], &made["rpm_limit"]),
        (&"command line".into(), &"ada".into(), &1000.into())
    );
    assert_eq!(
        made["object_permission"]["mcp_tool_permissions"]["one"][0],
        "echo"
    );
    reaches(key, 200).await;
    place.refused(&create, "alias_taken").await;
    place
        .refused(
            &["api-keys", "create", "--server", "onee"],
            "`one` is the nearest name",
        )
        .await;
    place
        .refused(&["api-keys", "create", "--duration", "5y"], "duration")
        .await;
    place
        .refused(&["api-keys", "show", "nobody"], "unknown_key")
        .await;

    let table = place.run(&["api-keys", "list"]).await.out;
    let line = table.lines().find(|line| line.starts_with(id)).expect("a line");
    assert!(
        table.starts_with("ID ") && line.contains("ci") && line.contains("active"),
        "{table}"
    );
    assert!(!table.contains(key));
    let shown = place.run(&["api-keys", "show", id]).await.out;
    assert!(
        shown.contains("one: echo") && shown.contains("command line"),
        "{shown}"
    );
    place.json(&["api-keys", "block", id]).await;
    reaches(key, 403).await;
    assert_eq!(place.json(&["api-keys", "unblock", id]).await["blocked"], false);
    reaches(key, 200).await;
    let rotated = place.run(&["api-keys", "rotate", id]).await.out;
    let new = rotated.lines().next().expect("a key");
    assert!(new.starts_with("sk-"), "{rotated}");
    reaches(new, 200).await;
    assert_eq!(call(key).await, 401);

    place.json(&["users", "block", "ada"]).await;
    reaches(new, 403).await;
    place.json(&["users", "unblock", "ada"]).await;
    reaches(new, 200).await;
    let admin = place
        .json(&[
            "users",
            "create",
            "--id",
            "root",
            "--role",
            "admin",
            "--email",
            "root@example.com",
        ])
        .await;
    let admin = admin["key"].as_str().expect("a key");
    let people = place.run(&["users", "list"]).await.out;
    assert!(
        people.contains("root@example.com") && people.contains("proxy_admin"),
        "{people}"
    );
    // What the command line did is in the record.
    let audit = format!("{}/v1/audit?kind=change", url.trim_end_matches("/one/mcp"));
    reaches(admin, 200).await;
    let record = got(http.get(&audit).header("x-litellm-api-key", admin))
        .await
        .body;
    let entries = record["entries"].as_array().expect("entries");
    for what in [
        "key.create",
        "key.block",
        "key.unblock",
        "key.rotate",
        "user.update",
        "user.create",
    ] {
        let found = entries
            .iter()
            .any(|entry| entry["outcome"] == what && entry["key_alias"] == "command line");
        assert!(found, "{what} {record}");
    }
    let deleted = place.run(&["users", "delete", "ada"]).await.out;
    assert!(deleted.contains("1 keys"), "{deleted}");
    reaches(new, 401).await;
    assert_eq!(
        place.json(&["api-keys", "list"]).await.as_array().map(Vec::len),
        Some(1)
    );
    let finished = gateway.terminated().await;
    for text in [key, new, admin] {
        assert!(!finished.err.contains(text) && !finished.out.contains(text));
    }
}

#[tokio::test]
async fn without_a_master_key_keys_would_count_for_nothing() {
    let upstream = Upstream::start().await;
    let place = Place::new(&upstream, "");
    let other = Place::new(&upstream, &format!("general_settings: {{master_key: {KEY}}}\n"));
    let mut gateway = Program::serve(&other.config, &[("VESTIBULE_DATA_DIR", place.data())]);
    gateway.base().await;
    place
        .refused(&["api-keys", "create"], "general_settings.master_key")
        .await;
}

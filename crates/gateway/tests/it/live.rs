//! The configuration while the gateway runs: what of a changed file counts, when, and for whom; what does not; and that
//! nothing else notices.

use crate::harness::{CLIENT_SECRET, KEY, Start, TestGateway, echo, entry, got, keyed, logged, machine};
use crate::people::{NOW, Town};
use secrecy::SecretSlice;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use vestibule::live::Status;
use vestibule_store::{ServerId, ServerRecord};
use vestibule_testkit::{Answer, DEADLINE, Idp, Upstream};

/// A configuration file, and a gateway that looks at it.
pub(crate) struct Site {
    directory: TempDir,
    pub(crate) gateway: TestGateway,
}

impl Site {
    pub(crate) async fn start(text: &str) -> Self {
        Self::begin(Start::new(text), text).await
    }

    /// `start` has the same text.
    pub(crate) async fn begin(start: Start, text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, text).expect("written");
        let gateway = start.file(&path).start().await;
        Self { directory, gateway }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    /// As an editor does it, who writes a new file and puts it in the old one's place.
    fn write(&self, text: &str) {
        replace(&self.path(), text);
    }

    /// Until the status is so.
    async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        let reached = async {
            while !is(&self.gateway.live.status()) {
                tokio::task::yield_now().await;
            }
        };
        let reached = timeout(DEADLINE, reached).await.is_ok();
        assert!(reached, "never {what}: {:?}", self.gateway.live.status());
    }

    /// Writes, and waits until that is what is in use.
    pub(crate) async fn takes(&self, text: &str) {
        let before = self.gateway.live.app();
        self.write(text);
        let taken = async {
            while self.gateway.live.is_current(&before) {
                tokio::task::yield_now().await;
            }
        };
        let taken = timeout(DEADLINE, taken).await.is_ok();
        assert!(taken, "never taken: {:?}", self.gateway.live.status());
    }

    async fn status(&self, server: &str) -> u16 {
        self.gateway.echo(&format!("/{server}/mcp"), "hello").await.0
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

pub(crate) fn open(name: &str, upstream: &Upstream) -> String {
    entry(name, &format!("url: {}", upstream.url()))
}

#[tokio::test]
async fn servers_come_and_go_and_move_with_the_file() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let site = Site::start(&keyed(&open("one", &one))).await;
    assert_eq!((site.status("one").await, site.status("two").await), (200, 404));
    site.takes(&keyed(&format!("{}{}", open("one", &one), open("two", &two))))
        .await;
    assert_eq!((site.status("one").await, site.status("two").await), (200, 200));

    // A call that is under way ends well, though its server is gone by then.
    let gate = Arc::new(Semaphore::new(0));
    one.push(Answer::Gate(Arc::clone(&gate)));
    one.take_requests();
    let call = tokio::spawn(got(site.gateway.post("/one/mcp", &echo("late"))));
    one.wait_for(1).await;
    site.takes(&keyed(&open("two", &two))).await;
    assert_eq!((site.status("one").await, site.status("two").await), (404, 200));
    gate.add_permits(1);
    let answer = call.await.expect("answered");
    assert_eq!(answer.body["result"]["content"][0]["text"], "late", "{answer:?}");

    // The same name at another address.
    one.take_requests();
    two.take_requests();
    site.takes(&keyed(&open("two", &one))).await;
    assert_eq!(site.status("two").await, 200);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 0));
}

#[tokio::test]
async fn who_did_not_change_notices_nothing() {
    let (idp, one, two) = (
        Idp::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    one.accept_if(idp.issued());
    one.set_session(Some("the-servers-session"));
    let of_one = machine("one", &one.url(), &idp.url(), "");
    let site = Site::start(&keyed(&of_one)).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let opened = got(site.gateway.post("/one/mcp", &initialize)).await;
    let session = opened.header("mcp-session-id").to_owned();
    let call = || {
        let request = site.gateway.post("/one/mcp", &echo("hello"));
        got(request.header("mcp-session-id", &session))
    };
    assert_eq!(call().await.status, 200);
    let (tokens, connections) = (idp.requests().len(), one.connections());
    for round in 0..3 {
        let more = format!("description: number {round}\nurl: {}", two.url());
        site.takes(&keyed(&format!("{of_one}{}", entry("two", &more))))
            .await;
        let answer = call().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(site.status("two").await, 200);
    }
    assert_eq!(idp.requests().len(), tokens, "the token is the one from before");
    // Each of the two workers may have had its first call in between.
    assert!(one.connections() <= connections + 1, "{}", one.connections());
}

#[tokio::test]
async fn a_file_with_errors_changes_nothing_and_says_why() {
    let one = Upstream::start().await;
    let good = keyed(&open("one", &one));
    let site = Site::start(&good).await;
    for (bad, part) in [
        (keyed(&entry("one", "url: not a url")), "mcp_servers.one.url"),
        (
            keyed(&entry("one", "urll: http://localhost:1/")),
            "mcp_servers.one.urll",
        ),
        ("mcp_servers: [".to_owned(), ""),
    ] {
        site.write(&bad);
        site.until("refused", |status| {
            status.findings.iter().any(|finding| finding.path.contains(part)) && status.fault.is_some()
        })
        .await;
        assert_eq!(site.status("one").await, 200, "{bad}");
    }
    assert!(logged().contains("the configuration file has errors; the one before it stays in use"));
    // What was before is no change, and no fault either.
    site.write(&good);
    site.until("as it was", |status| {
        status.fault.is_none() && status.findings.is_empty()
    })
    .await;
    site.write("mcp_servers: [");
    site.until("refused again", |status| status.fault.is_some()).await;
    site.takes(&keyed(&open("mended", &one))).await;
    site.until("mended", |status| {
        status.fault.is_none() && status.findings.is_empty()
    })
    .await;
    assert_eq!(
        (site.status("one").await, site.status("mended").await),
        (404, 200)
    );
}

#[tokio::test]
async fn a_gateway_that_asks_for_keys_does_not_stop_with_its_file() {
    let one = Upstream::start().await;
    let servers = open("one", &one);
    let site = Site::start(&keyed(&servers)).await;
    let without_key = || {
        got(site
            .gateway
            .http
            .post(site.gateway.url("/one/mcp"))
            .json(&echo("x")))
    };
    // Emptied, as by who writes it in place, and cut off before the key.
    for text in [
        String::new(),
        format!("mcp_servers:\n{servers}"),
        "# nothing yet\n".to_owned(),
    ] {
        std::fs::write(site.path(), text).expect("written");
        site.until("refused", |status| {
            status
                .fault
                .as_ref()
                .is_some_and(|fault| fault.contains("no master key any more"))
        })
        .await;
        assert_eq!((without_key().await.status, site.status("one").await), (401, 200));
        site.write(&keyed(&servers));
        site.until("as it was", |status| status.fault.is_none()).await;
    }
    // Another key is another matter.
    let other = "sk-canary-another-master-key-0123";
    site.takes(&keyed(&servers).replace(KEY, other)).await;
    let with = |key: &str| {
        let request = site.gateway.http.post(site.gateway.url("/one/mcp"));
        got(request.header("x-litellm-api-key", key).json(&echo("x")))
    };
    assert_eq!(
        (with(KEY).await.code(), with(other).await.status),
        ("wrong_key", 200)
    );
}

#[tokio::test]
async fn a_file_that_vanishes_is_waited_for() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let good = keyed(&open("one", &one));
    let site = Site::start(&good).await;
    let missing = |status: &Status| {
        status
            .fault
            .as_ref()
            .is_some_and(|fault| fault.contains("cannot be read"))
    };
    std::fs::remove_file(site.path()).expect("removed");
    site.until("missing", missing).await;
    assert_eq!(site.status("one").await, 200);
    site.write(&good);
    site.until("back", |status| status.fault.is_none()).await;
    // Back as another one; and a directory in its place is no file either.
    std::fs::remove_file(site.path()).expect("removed");
    std::fs::create_dir(site.path()).expect("made");
    site.until("missing", missing).await;
    std::fs::remove_dir(site.path()).expect("removed");
    site.takes(&keyed(&open("two", &two))).await;
    assert_eq!((site.status("one").await, site.status("two").await), (404, 200));
    assert!(!missing(&site.gateway.live.status()));
}

#[tokio::test]
async fn a_mount_is_followed_where_kubernetes_swaps_it() {
    use std::os::unix::fs::symlink;
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (revision, text) in [
        ("..1", keyed(&open("one", &one))),
        ("..2", keyed(&open("two", &two))),
    ] {
        std::fs::create_dir(at(revision)).expect("made");
        std::fs::write(at(revision).join("config.yaml"), text).expect("written");
    }
    symlink("..1", at("..data")).expect("linked");
    symlink("..data/config.yaml", at("config.yaml")).expect("linked");
    let text = std::fs::read_to_string(at("config.yaml")).expect("read");
    let gateway = Start::new(text).file(at("config.yaml")).start().await;
    let before = gateway.live.app();
    symlink("..2", at("..data_tmp")).expect("linked");
    std::fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
    std::fs::remove_dir_all(at("..1")).expect("removed");
    let taken = async {
        while gateway.live.is_current(&before) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, taken).await.expect("taken");
    assert_eq!(gateway.echo("/two/mcp", "hello").await.0, 200);
    assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 404);
}

#[tokio::test]
async fn limits_hold_for_new_requests_and_some_for_the_next_start() {
    let one = Upstream::start().await;
    let site = Site::start(&keyed(&open("one", &one))).await;
    let long = "x".repeat(2000);
    assert_eq!(site.gateway.echo("/one/mcp", &long).await.0, 200);
    let limits = "vestibule:\n  limits:\n    max_body_bytes: 1000\n    token_timeout: 3\n";
    site.takes(&format!("{}{limits}", keyed(&open("one", &one))))
        .await;
    assert_eq!(site.gateway.echo("/one/mcp", &long).await.0, 413);
    assert_eq!(site.status("one").await, 200);
    let status = site.gateway.live.status();
    let told = status
        .findings
        .iter()
        .find(|finding| finding.path == "vestibule.limits.token_timeout");
    assert_eq!(told.expect("told").message, "changes with the next start");
    assert!(
        status
            .findings
            .iter()
            .all(|finding| !finding.path.contains("max_body_bytes"))
    );
}

/// A server of the store, as another replica writes it.
pub(crate) fn stored(name: &str, document: &Value, expires_at: Option<u64>) -> ServerRecord {
    ServerRecord {
        id: ServerId::new(format!("{name}-id")).expect("an id"),
        name: name.into(),
        document: SecretSlice::from(document.to_string().into_bytes()),
        by: None,
        expires_at,
    }
}

/// Writes it anew, whichever writing is there.
pub(crate) async fn rewrite(town: &Town, record: &ServerRecord) {
    let found = town
        .store
        .server(&record.id)
        .await
        .expect("read")
        .expect("a server");
    let written = town.store.update_server(record, found.version, NOW).await;
    assert!(written.expect("written").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_edits_under_load_lose_no_call_and_leave_nothing_behind() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let idp = Idp::start().await;
    let town = Town::new().await;
    let at = |round: usize| {
        let described = json!({"url": two.url(), "description": format!("number {round}")});
        let token_url = format!("{}?round={round}", idp.url());
        let machine = json!({"url": two.url(), "auth_type": "oauth2", "client_id": "canary-id",
            "client_secret": CLIENT_SECRET, "token_url": token_url});
        [stored("two", &described, None), stored("edited", &machine, None)]
    };
    for record in at(0) {
        town.store.put_server(&record, NOW).await.expect("put");
    }
    let gateway = Arc::new(town.start(keyed(&open("one", &one))).start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = ["one", "two", "one", "two"]
        .map(|name| {
            let (gateway, stop) = (Arc::clone(&gateway), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = gateway.echo(&format!("/{name}/mcp"), "hello").await;
                    assert_eq!(status, 200, "{body}");
                    calls += 1;
                }
                calls
            })
        })
        .into();
    let mut gone = Vec::new();
    for round in 1..=100 {
        let app = gateway.live.app();
        for server in app.registry.all().iter().filter(|server| server.name != "one") {
            gone.push(Arc::downgrade(server));
        }
        drop(app);
        for record in at(round) {
            rewrite(&town, &record).await;
        }
        gateway.looks().await;
        assert_eq!(gateway.echo("/edited/mcp", "hello").await.0, 200);
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.expect("no call was lost") > 0);
    }
    assert_eq!(gone.len(), 200);
    // Each worker goes over to the newest with its next request.
    let left = || gone.iter().filter(|server| server.strong_count() > 0).count();
    let reached = async {
        while left() > 0 {
            assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 200);
        }
    };
    assert!(
        timeout(DEADLINE, reached).await.is_ok(),
        "{} are still there",
        left()
    );
}

#[tokio::test]
async fn a_trial_is_over_when_its_time_is_whatever_the_store_says() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let town = Town::new().await;
    let trial = stored("trial", &json!({"url": two.url()}), Some(NOW + 300));
    town.store.put_server(&trial, NOW).await.expect("put");
    let gateway = town.start(keyed(&open("one", &one))).start().await;
    let is_there = || {
        let app = gateway.live.app();
        app.registry.all().iter().any(|server| server.name == "trial")
    };
    assert!(is_there());
    // Nobody can drop the row.
    town.behind("ALTER TABLE servers RENAME TO elsewhere").await;
    gateway.advance(299);
    assert!(is_there());
    gateway.advance(1);
    let over = async {
        while is_there() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(DEADLINE, over).await.is_ok(), "it is still there");
    assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 200);
    town.behind("ALTER TABLE elsewhere RENAME TO servers").await;
}

#[tokio::test]
async fn a_stored_server_that_cannot_be_used_keeps_no_other_from_changing() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let town = Town::new().await;
    let endless = json!({"url": format!("http://localhost:1/{}", "x".repeat(70_000))});
    town.store
        .put_server(&stored("endless", &endless, None), NOW)
        .await
        .expect("put");
    let gateway = town.start(keyed(&open("one", &one))).start().await;
    let left_out = gateway.live.status();
    let problem = &left_out.left_out[0].problems[0];
    assert!(problem.message.contains("longer than 8192"), "{problem}");
    let good = stored("two", &json!({"url": two.url()}), None);
    town.store.put_server(&good, NOW).await.expect("put");
    gateway.looks().await;
    assert_eq!(gateway.echo("/two/mcp", "hello").await.0, 200);
}

#[tokio::test]
async fn a_refused_file_stays_refused_while_stored_servers_change() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let town = Town::new().await;
    let path = town.directory().join("config.yaml");
    let good = keyed(&open("one", &one));
    replace(&path, &good);
    let gateway = town.start(&*good).file(&path).start().await;
    replace(&path, "mcp_servers: [");
    let refused = async {
        while gateway.live.status().fault.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("refused");
    let two = stored("two", &json!({"url": two.url()}), None);
    town.store.put_server(&two, NOW).await.expect("put");
    gateway.looks().await;
    assert_eq!(gateway.echo("/two/mcp", "hello").await.0, 200);
    let status = gateway.live.status();
    assert!(
        status.fault.is_some() && !status.findings.is_empty(),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_look_that_breaks_off_is_made_up_for() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let town = Town::new().await;
    let gateway = town.start(keyed(&open("one", &one))).start().await;
    let key = town.key("alices", "alice", &["two"]).await;
    let record = stored("two", &json!({"url": two.url()}), None);
    town.store.put_server(&record, NOW).await.expect("put");
    // The keys can be read, the servers cannot.
    town.behind("ALTER TABLE servers RENAME TO elsewhere").await;
    assert!(gateway.live.look().await.is_err());
    assert_eq!(gateway.echo("/one/mcp", "hello").await.0, 200);
    town.behind("ALTER TABLE elsewhere RENAME TO servers").await;
    gateway.looks().await;
    let request = gateway.http.post(gateway.url("/two/mcp"));
    let answer = got(request.header("x-litellm-api-key", key).json(&echo("hello"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_database_that_the_file_asks_for_later_is_told_of() {
    let one = Upstream::start().await;
    let text = format!("mcp_servers:\n{}", open("one", &one));
    let site = Site::start(&text).await;
    site.takes(&keyed(&open("one", &one))).await;
    let status = site.gateway.live.status();
    let told = status
        .findings
        .iter()
        .find(|finding| finding.path == "general_settings.master_key");
    assert!(
        told.expect("told").message.contains("with the next start"),
        "{status:?}"
    );
    assert_eq!(site.status("one").await, 200);
    let nobody = site
        .gateway
        .http
        .post(site.gateway.url("/one/mcp"))
        .json(&echo("x"));
    assert_eq!(got(nobody).await.status, 401, "the key counts at once");
}

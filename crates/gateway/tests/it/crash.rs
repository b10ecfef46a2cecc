//! The real program killed with SIGKILL at each step of a sign-in and of a refresh, started again on the same SQLite
//! file, and gone on with: what was acknowledged is there, nothing is a 500, and at worst a person signs in anew.

use crate::child::Program;
use crate::harness::{Got, KEY, got, personal};
use crate::kept_harness::{Code, Door, Site, Stage};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A directory with a configuration, in which programs come and go; database and keys are made beside it.
struct Home {
    directory: TempDir,
    site: Site,
}

impl Home {
    async fn new() -> Self {
        let site = Site::start().await;
        site.provider
            .set(|manners| manners.expires_in = Some(json!(3600)));
        let directory = tempfile::tempdir().expect("a directory");
        let servers = site.provider.registered("one", &site.upstream, "");
        // A short limit, so that the lease of whoever was killed is short.
        let limits = "  limits:\n    token_timeout: 4\n";
        let text = personal(&servers, limits);
        std::fs::write(directory.path().join("config.yaml"), text).expect("written");
        Self { directory, site }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program, and the door to it by a name that stays the same.
    async fn start(&self) -> (Program, Door) {
        let config = self.path("config.yaml").display().to_string();
        let arguments = [
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--workers",
            "2",
            "--config",
        ];
        let arguments = [&arguments[..], &[&config]].concat();
        let public = "http://gateway.test";
        let mut program = Program::start(&arguments, &[("PROXY_BASE_URL", public)]);
        let door = Door::new(program.base().await, "one").called_as(public);
        (program, door)
    }

    /// Ends one as a power cut does, and starts the next.
    async fn again(&self, program: Program) -> (Program, Door) {
        program.signal("KILL").await;
        let ended = program.finished().await;
        assert_eq!(ended.code, None, "{ended:?}");
        self.start().await
    }

    /// A request that waits at the provider when its program is killed.
    async fn killed_at(
        &self,
        stage: Stage,
        program: Program,
        request: reqwest::RequestBuilder,
    ) -> (Program, Door) {
        let hold = self.site.provider.hold(stage);
        let asked = tokio::spawn(request.send());
        hold.arrived().await;
        self.site.provider.hold_no_more();
        let next = self.again(program).await;
        asked.await.expect("no panic").expect_err("nobody answers");
        next
    }

    /// Works, or is asked to sign in, does, and works.
    async fn goes_on(&self, door: &Door) -> Got {
        let answer = door.called().await;
        if answer.status != 200 {
            door.is_challenge(&answer, None);
            door.sign_in(&self.site.provider).await;
        }
        door.works().await;
        answer
    }
}

#[tokio::test]
async fn killed_after_each_answer_of_a_sign_in() {
    let home = Home::new().await;
    let provider = &home.site.provider;
    let (program, door) = home.start().await;
    let client = door.register().await;
    let (program, door) = home.again(program).await;
    let away = door.authorize(&client).await;
    let (program, door) = home.again(program).await;
    let code = door.back(&away, &provider.approve(&away.location)).await;
    let (program, door) = home.again(program).await;
    let answer = got(door.keyed_token(&code)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (program, door) = home.again(program).await;
    door.works().await;
    let counts = provider.counts();
    assert_eq!(
        (counts.registered, counts.exchanged, counts.refreshing),
        (1, 1, 0)
    );
    provider.end_access();
    door.works().await;
    let (_program, door) = home.again(program).await;
    door.works().await;
    let counts = provider.counts();
    assert_eq!((counts.refreshed, counts.reused), (1, 0));
    home.site.upstream.assert_never_seen(KEY);
}

/// A sign-in up to the code, and what came before it.
async fn with_code(home: &Home) -> (Program, Door, Code) {
    let (program, door) = home.start().await;
    let code = door.signed_in(&home.site.provider).await;
    (program, door, code)
}

#[tokio::test]
async fn killed_while_a_code_is_exchanged() {
    for stage in [Stage::Before, Stage::After] {
        let home = Home::new().await;
        let (program, door, code) = with_code(&home).await;
        let (_program, door) = home.killed_at(stage, program, door.keyed_token(&code)).await;
        // The client asks again, as clients do; a code counts once, whether or not the provider has seen it.
        let answer = got(door.keyed_token(&code)).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (400, &json!("invalid_grant")),
            "{answer:?}"
        );
        let answer = home.goes_on(&door).await;
        assert_eq!(answer.status, 401);
        assert_eq!(home.site.provider.counts().registered, 1);
    }
}

#[tokio::test]
async fn killed_while_a_token_is_refreshed() {
    for stage in [Stage::Before, Stage::After] {
        let home = Home::new().await;
        let (program, door) = home.start().await;
        let provider = &home.site.provider;
        door.sign_in(provider).await;
        door.works().await;
        provider.end_access();
        let (program, door) = home.killed_at(stage, program, door.call()).await;
        // The lease of the one that was killed is waited for, and then the refresh is done again.
        let answer = door.called().await;
        match stage {
            Stage::Before => assert_eq!(answer.status, 200, "{answer:?}"),
            // The provider has taken the refresh token, and nobody has the next one.
            Stage::After => door.is_challenge(&answer, Some("invalid_token")),
        }
        home.goes_on(&door).await;
        let counts = provider.counts();
        let reused = usize::from(stage == Stage::After);
        assert_eq!(
            (counts.refreshed, counts.reused, counts.registered),
            (1, reused, 1)
        );
        // What was gone on with lasts.
        let (_program, door) = home.again(program).await;
        door.works().await;
    }
}

#[tokio::test]
async fn killed_at_any_moment_of_many_refreshes() {
    let home = Home::new().await;
    let provider = &home.site.provider;
    let (mut program, mut door) = home.start().await;
    door.sign_in(provider).await;
    let mut prompts = 0;
    for round in 0..6 {
        provider.end_access();
        let calls: Vec<_> = (0..4).map(|_| tokio::spawn(door.call().send())).collect();
        // Later each time: with the request, with the refresh, with what follows it.
        let reached = provider.counts().refreshing + round % 2;
        provider
            .until("that far", |counts| counts.refreshing >= reached)
            .await;
        (program, door) = home.again(program).await;
        for call in calls {
            if let Ok(answer) = call.await.expect("no panic") {
                assert!(matches!(answer.status().as_u16(), 200 | 401), "{answer:?}");
            }
        }
        let answer = door.called().await;
        if answer.status != 200 {
            assert_eq!(answer.status, 401, "{answer:?}");
            prompts += 1;
            door.sign_in(provider).await;
        }
        door.works().await;
    }
    let counts = provider.counts();
    assert_eq!(counts.exchanged, 1 + prompts, "each prompt is one sign-in");
    assert_eq!(counts.registered, 1);
    drop(program);
}

#[tokio::test]
async fn the_keys_beside_the_database_are_used_again() {
    let home = Home::new().await;
    let (mut program, door) = home.start().await;
    let line = program.logs("what lasts is kept").await;
    assert!(line.contains("vestibule.db"), "{line}");
    door.sign_in(&home.site.provider).await;
    let files: Vec<PathBuf> = std::fs::read_dir(home.directory.path())
        .expect("read")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let keys: Vec<&PathBuf> = files
        .iter()
        .filter(|path| path.display().to_string().contains("key"))
        .collect();
    let [keys] = keys[..] else { panic!("{files:?}") };
    let text = std::fs::read(keys).expect("read");
    let mode = std::fs::metadata(keys).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (program, door) = home.again(program).await;
    door.works().await;
    assert_eq!(std::fs::read(keys).expect("read"), text);

    // Without them the program does not start over what it cannot read.
    program.signal("KILL").await;
    program.finished().await;
    std::fs::rename(keys, home.path("elsewhere")).expect("moved");
    let config = home.path("config.yaml").display().to_string();
    let refused = crate::child::run(
        &["serve", "--host", "127.0.0.1", "--port", "0", "--config", &config],
        &[],
    )
    .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    std::fs::rename(home.path("elsewhere"), keys).expect("moved");
    let (_program, door) = home.start().await;
    door.works().await;
}

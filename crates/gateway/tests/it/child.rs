//! The real binary as a child process with an environment of its own: what it prints is collected, what it says
//! is waited for, and it ends with its test.

use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a program may take to say or do what is waited for; beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `vestibule`. Dropped, it is killed.
pub(crate) struct Program {
    child: Child,
    out: Output,
    err: Output,
}

type Output = watch::Receiver<String>;

/// What is left of a program that came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    /// Starts `vestibule` with these arguments and no other environment than `environment`.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let out = collected(child.stdout.take().expect("piped"));
        let err = collected(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    /// `serve` on a free port of 127.0.0.1.
    pub(crate) fn serve(config: &ConfigFile, environment: &[(&str, &str)]) -> Self {
        let arguments = ["serve", "--host", "127.0.0.1", "--port", "0", "--workers", "2"];
        let arguments = [&arguments[..], &["--config", config.path()]].concat();
        Self::start(&arguments, environment)
    }

    /// Where it says that it listens, as a URL without a path.
    pub(crate) async fn base(&mut self) -> String {
        let line = self.line("listening on ").await;
        line.trim_start_matches("listening on ").to_owned()
    }

    /// The first line on standard output that begins like this.
    pub(crate) async fn line(&mut self, start: &str) -> String {
        first_line(&mut self.out, start, |line| line.starts_with(start)).await
    }

    /// Waits until a line on standard error has `part` in it.
    pub(crate) async fn logs(&mut self, part: &str) -> String {
        first_line(&mut self.err, part, |line| line.contains(part)).await
    }

    /// Standard output so far.
    pub(crate) fn printed(&self) -> String {
        self.out.borrow().clone()
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("still running");
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()
            .await;
        assert!(sent.expect("sh").success(), "{name} was not sent");
    }

    /// Waits for its end.
    pub(crate) async fn finished(mut self) -> Finished {
        let ended = async {
            let status = self.child.wait().await.expect("a status");
            for output in [&mut self.out, &mut self.err] {
                while output.changed().await.is_ok() {}
            }
            status.code()
        };
        let Ok(code) = timeout(PATIENCE, ended).await else {
            panic!(
                "the program does not end; it said\n{}",
                self.err.borrow().as_str()
            )
        };
        Finished {
            code,
            out: self.out.borrow().clone(),
            err: self.err.borrow().clone(),
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminated(self) -> Finished {
        self.signal("TERM").await;
        self.finished().await
    }
}

/// Runs to the end.
pub(crate) async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    Program::start(arguments, environment).finished().await
}

fn collected(stream: impl AsyncRead + Send + Unpin + 'static) -> Output {
    let (text, output) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            text.send_modify(|text| text.extend([line.as_str(), "\n"]));
        }
    });
    output
}

async fn first_line(output: &mut Output, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let found = output.wait_for(|text| text.split_inclusive('\n').any(&wanted));
    let found = timeout(PATIENCE, found).await.is_ok_and(|found| found.is_ok());
    let text = output.borrow().clone();
    assert!(found, "it never said {what:?}, but\n{text}");
    text.lines().find(|line| wanted(line)).expect("found").to_owned()
}

/// A file for one test, gone with it.
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    pub(crate) fn new(text: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("config-{}-{number}.yaml", process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).expect("writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

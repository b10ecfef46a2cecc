//! A program as the other end of a session: started with an environment of its own, read and written line by
//! line within bounds, and ended for certain, with everything that it started in its group.

use super::session::Session;
use super::{BridgeFault, MESSAGE_LIMIT, message};
use crate::clock::Clock;
use crate::config::Program;
use crate::digest::sha256_of_parts;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prometheus_client::metrics::gauge::Gauge;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use secrecy::{ExposeSecret, SecretString};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal as signals};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

/// How long a program has after its input is closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long what a program wrote before its end may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is read of a line on standard error, and what of it is logged: a value that is masked is masked whole.
const COMPLAINT: usize = 8 * 1024;
const LOGGED: usize = 1024;
/// So many lines of standard error are logged in a [`WINDOW`]; the others are counted.
const COMPLAINTS: usize = 50;
const WINDOW: Duration = Duration::from_secs(10);
/// Shorter values stand everywhere by chance.
const MASKED_FROM: usize = 6;

/// So many lines of standard error are kept of all programs of a server.
const KEPT: usize = 10;

/// The last lines that a server's programs wrote on standard error, without what is secret.
#[derive(Default)]
pub(super) struct LastWords(Mutex<VecDeque<String>>);

impl LastWords {
    /// The lines, the oldest first.
    pub(super) fn all(&self) -> Vec<String> {
        self.lines().iter().cloned().collect()
    }

    fn keep(&self, line: &str) {
        let mut lines = self.lines();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the running programs.
pub(super) struct ProcessPlace {
    _permit: OwnedSemaphorePermit,
    running: Gauge,
}

impl ProcessPlace {
    pub(super) fn new(permit: OwnedSemaphorePermit, running: &Gauge) -> Self {
        running.inc();
        Self {
            _permit: permit,
            running: running.clone(),
        }
    }
}

impl Drop for ProcessPlace {
    fn drop(&mut self) {
        self.running.dec();
    }
}

/// A program with everything in its group. Dropped before it is over, all of it is killed.
struct Group {
    leader: Child,
    id: Pid,
    /// What may be the leader's end.
    children: SignalStream,
}

/// A program that was started. Dropped, it is killed.
pub(super) struct Process {
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// What it was given that no log may show.
    secrets: Vec<SecretString>,
    place: ProcessPlace,
}

impl Process {
    /// Starts `program` for the session that a request with `headers` opens.
    pub(super) fn start(
        program: &Program,
        headers: &HeaderMap,
        npm_cache: &Path,
        place: ProcessPlace,
    ) -> Result<Self, BridgeFault> {
        program
            .rules
            .judge(&program.command)
            .map_err(BridgeFault::NotStarted)?;
        let configured = environment(program, headers)?;
        let mut command = Command::new(&program.command);
        command
            .args(program.args.iter().map(ExposeSecret::expose_secret))
            .env_clear()
            .envs(program.inherited.iter().map(|(name, value)| (name, value)))
            .env("NPM_CONFIG_CACHE", npm_cache)
            .envs(
                configured
                    .iter()
                    .map(|(name, value)| (name, value.expose_secret())),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let failed = |error: io::Error| BridgeFault::NotStarted(error.kind().to_string());
        let mut group = Group::spawn(&mut command).map_err(failed)?;
        let leader = &mut group.leader;
        let pipes = (leader.stdin.take(), leader.stdout.take(), leader.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(BridgeFault::NotStarted("it has no pipes".into()));
        };
        Ok(Self {
            group,
            stdin,
            stdout,
            stderr,
            secrets: secrets(program, configured),
            place,
        })
    }

    /// Serves the session until either of them is over, then ends the other. True when the program went first;
    /// its place is free again when it is dropped.
    pub(super) async fn serve(
        self,
        session: Arc<Session>,
        outgoing: mpsc::Receiver<Bytes>,
        last_words: Arc<LastWords>,
        clock: Clock,
    ) -> (bool, ProcessPlace) {
        let Self {
            mut group,
            stdin,
            stdout,
            stderr,
            secrets,
            place,
        } = self;
        let server = session.server().to_owned();
        let writing = tokio::spawn(write(stdin, outgoing, Arc::clone(&session)));
        let mut reading = tokio::spawn(read(stdout, Arc::clone(&session), server.clone()));
        let complaint = complain(stderr, server.clone(), secrets, last_words, clock);
        let mut complaining = tokio::spawn(complaint);
        let by_itself = tokio::select! {
            () = group.ended() => {
                let _ = timeout(LAST_WORDS, &mut reading).await;
                true
            }
            _ = &mut reading => false,
            () = session.ended() => false,
        };
        let went_first = !session.has_ended();
        session.end();
        let status = group.stop(&server).await;
        if let (true, Ok(status)) = (by_itself, status) {
            tracing::info!(server = %server, %status, "a server's program ended");
        }
        let _ = timeout(LAST_WORDS, writing).await;
        reading.abort();
        // Why a program ended is often the last that it says.
        let _ = timeout(LAST_WORDS, &mut complaining).await;
        complaining.abort();
        (went_first, place)
    }
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let children = signals(SignalKind::child())?;
        let leader = command.spawn()?;
        let id = leader.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { leader, id, children })
    }

    /// Resolves when the leader has ended. It is not collected: for as long as it is not, its number is nobody else's.
    async fn ended(&mut self) {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error is that there is no such child.
        while let Ok(None) | Err(Errno::INTR) = waitid(WaitId::Pid(self.id), look) {
            if self.children.recv().await.is_none() {
                return;
            }
        }
    }

    /// Its input is closed by now; then SIGTERM, then SIGKILL, each for the whole group. What the leader left behind is
    /// killed before the leader is collected.
    async fn stop(mut self, server: &str) -> io::Result<ExitStatus> {
        if timeout(GRACE, self.ended()).await.is_err() {
            self.signal(Signal::TERM);
            if timeout(GRACE, self.ended()).await.is_err() {
                tracing::warn!(server, "a server's program did not heed SIGTERM and was killed");
            }
        }
        self.signal(Signal::KILL);
        self.leader.wait().await
    }

    fn signal(&self, signal: Signal) {
        // A group without members is what is wanted.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that was collected has no number any more.
        if self.leader.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// A digest of what the headers bring into the program's environment.
pub(super) fn brought(program: &Program, headers: &HeaderMap) -> [u8; 32] {
    let values = program.headers().flat_map(|name| headers.get_all(name));
    let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    sha256_of_parts(&values)
}

/// What no log may show: the values of the environment, and of the arguments all but the names of options. The longest
/// come first, since one may stand in another.
fn secrets(program: &Program, configured: Vec<(String, SecretString)>) -> Vec<SecretString> {
    let values = configured.into_iter().map(|(_, value)| value);
    let arguments = program.args.iter().filter_map(|arg| {
        let arg = arg.expose_secret();
        let value = if arg.starts_with('-') {
            arg.split_once('=')?.1
        } else {
            arg
        };
        Some(value.into())
    });
    let mut secrets: Vec<SecretString> = values.chain(arguments).collect();
    secrets.retain(|value| value.expose_secret().len() >= MASKED_FROM);
    secrets.sort_by_key(|value| Reverse(value.expose_secret().len()));
    secrets
}

/// The configured environment, filled in from the headers.
fn environment(program: &Program, headers: &HeaderMap) -> Result<Vec<(String, SecretString)>, BridgeFault> {
    let fill = |(name, value): &(String, crate::config::EnvValue)| {
        let mut filled = String::new();
        for (text, header) in &value.0 {
            filled.push_str(text.expose_secret());
            let Some(header) = header else { continue };
            let mut values = headers.get_all(header).iter();
            let only = values.next().filter(|_| values.next().is_none());
            let text = only
                .and_then(|value| value.to_str().ok())
                .filter(|text| !text.is_empty());
            filled.push_str(text.ok_or_else(|| BridgeFault::MissingHeader(header.clone()))?);
        }
        Ok((name.clone(), filled.into()))
    };
    program.env.iter().map(fill).collect()
}

/// Writes messages, one a line, and closes the program's input at the end.
async fn write(mut stdin: ChildStdin, mut outgoing: mpsc::Receiver<Bytes>, session: Arc<Session>) {
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            if stdin.write_all(&message).await.is_err() || stdin.write_all(b"\n").await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = session.ended() => {}
    }
}

/// Hands the program's messages over until its output ends.
async fn read(stdout: ChildStdout, session: Arc<Session>, server: String) {
    let mut stdout = BufReader::new(stdout);
    loop {
        match line(&mut stdout, MESSAGE_LIMIT).await {
            Ok(Some(Line::Whole(bytes))) if bytes.trim_ascii().is_empty() => {}
            Ok(Some(Line::Whole(bytes))) => session.received(message::one_line(bytes.into())).await,
            Ok(Some(Line::TooLong(_))) => {
                tracing::warn!(server = %server, limit = MESSAGE_LIMIT, "a server's program wrote a message that is too long");
                return;
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Logs what the program says on standard error, within bounds and without what is secret.
async fn complain(
    stderr: ChildStderr,
    server: String,
    secrets: Vec<SecretString>,
    last_words: Arc<LastWords>,
    clock: Clock,
) {
    let mut stderr = BufReader::new(stderr);
    let (mut window, mut logged, mut left_out) = (clock.now(), 0, 0_u64);
    let mut within = false;
    while let Ok(Some(line)) = line(&mut stderr, COMPLAINT).await {
        // The rest of a line whose beginning has been logged is left out.
        let (bytes, rest) = match line {
            Line::Whole(bytes) => (bytes, std::mem::replace(&mut within, false)),
            Line::TooLong(bytes) => (bytes, std::mem::replace(&mut within, true)),
        };
        if rest {
            continue;
        }
        let now = clock.now();
        if window.until(now) > WINDOW {
            if left_out > 0 {
                tracing::info!(server = %server, lines = left_out, "standard error was not logged in full");
            }
            (window, logged, left_out) = (now, 0, 0);
        }
        if logged == COMPLAINTS {
            left_out += 1;
            continue;
        }
        logged += 1;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in &secrets {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), "****");
            }
        }
        let text = &text[..text.floor_char_boundary(LOGGED)];
        last_words.keep(text.trim_end());
        // As Debug writes it: a control character cannot forge a line of the log.
        tracing::info!(server = %server, stderr = ?text.trim_end(), "a server's program says");
    }
}

enum Line {
    Whole(Vec<u8>),
    /// The beginning; the rest has not been read.
    TooLong(Vec<u8>),
}

/// The next line without its end, of at most `limit` bytes. `None` at the end.
async fn line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>, limit: usize) -> io::Result<Option<Line>> {
    let mut found = Vec::new();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!found.is_empty()).then_some(Line::Whole(found)));
        }
        let end = memchr::memchr(b'\n', chunk);
        let taken = end.unwrap_or(chunk.len()).min(limit - found.len());
        found.extend_from_slice(&chunk[..taken]);
        if end == Some(taken) {
            reader.consume(taken + 1);
            return Ok(Some(Line::Whole(found)));
        }
        reader.consume(taken);
        if found.len() == limit {
            return Ok(Some(Line::TooLong(found)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_given_up_takes_along_what_it_started() {
        let shell = "/bin/sh";
        let program = Program {
            command: shell.into(),
            args: ["-c", "sleep 1000 & echo $!; wait"].map(Into::into).into(),
            env: Vec::new(),
            inherited: vec![("PATH".into(), "/usr/bin:/bin".into())],
            npm_cache: None,
            temporary: "/tmp".into(),
            rules: crate::config::ProgramRules {
                listed: vec![shell.into()],
            },
        };
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned();
        let place = ProcessPlace::new(permit.expect("a place"), &Gauge::default());
        let process = Process::start(&program, &HeaderMap::new(), Path::new("/tmp"), place);
        let mut process = process.expect("started");
        let mut stdout = BufReader::new(&mut process.stdout);
        let Ok(Some(Line::Whole(child))) = line(&mut stdout, 100).await else {
            panic!("the shell says whom it started");
        };
        let child = Path::new("/proc").join(String::from_utf8(child).expect("a number"));
        assert!(child.exists());
        drop(process);
        let gone = async {
            while child.exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.expect("gone");
    }

    #[test]
    fn options_have_names_that_are_no_secret() {
        let program = Program {
            command: "x".into(),
            args: ["--verbose", "--token=canary-1", "-y", "canary-12", "short"]
                .map(Into::into)
                .into(),
            env: Vec::new(),
            inherited: Vec::new(),
            npm_cache: None,
            temporary: "/tmp".into(),
            rules: crate::config::ProgramRules::default(),
        };
        let secrets = secrets(&program, vec![("A".into(), "canary".into())]);
        let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(secrets, ["canary-12", "canary-1", "canary"]);
    }

    #[tokio::test]
    async fn lines_are_bounded_and_none_is_lost() {
        let input = b"ab\n\nabcdefgh\nabcd\nx";
        let mut reader = BufReader::with_capacity(3, &input[..]);
        let mut found = Vec::new();
        while let Some(line) = line(&mut reader, 5).await.expect("readable") {
            found.push(match line {
                Line::Whole(bytes) => String::from_utf8(bytes).expect("text"),
                Line::TooLong(bytes) => format!("{}~", String::from_utf8(bytes).expect("text")),
            });
        }
        assert_eq!(found, ["ab", "", "abcde~", "fgh", "abcd", "x"]);
    }
}

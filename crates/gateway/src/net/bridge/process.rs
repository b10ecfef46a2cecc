//! A program as the other end of a session: started with an environment of its own, read and written line by
//! line within bounds, and ended for certain, with everything that it started in its group.

use super::session::Session;
use super::{BridgeFault, MESSAGE_LIMIT, message};
use crate::clock::Clock;
use crate::config::Program;
use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
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

/// A program that was started. Dropped, it is killed.
pub(super) struct Process {
    child: Child,
    group: Pid,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// Values of its environment that no log may show.
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
        let mut child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(group), (Some(stdin), Some(stdout), Some(stderr))) = (group, pipes) else {
            return Err(BridgeFault::NotStarted("it has no pipes".into()));
        };
        let secrets = configured.into_iter().map(|(_, value)| value);
        let secrets = secrets.filter(|value| value.expose_secret().len() >= MASKED_FROM);
        Ok(Self {
            child,
            group,
            stdin,
            stdout,
            stderr,
            secrets: secrets.collect(),
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
            mut child,
            group,
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
        tokio::select! {
            status = child.wait() => {
                if let Ok(status) = status {
                    tracing::info!(server = %server, %status, "a server's program ended");
                }
                let _ = timeout(LAST_WORDS, &mut reading).await;
            }
            _ = &mut reading => {}
            () = session.ended() => {}
        }
        let went_first = !session.has_ended();
        session.end();
        stop(&mut child, group, &server).await;
        let _ = timeout(LAST_WORDS, writing).await;
        reading.abort();
        // Why a program ended is often the last that it says.
        let _ = timeout(LAST_WORDS, &mut complaining).await;
        complaining.abort();
        (went_first, place)
    }
}

/// Its input is closed by now; then SIGTERM, then SIGKILL, each for the whole group.
async fn stop(child: &mut Child, group: Pid, server: &str) {
    if timeout(GRACE, child.wait()).await.is_err() {
        signal(group, Signal::TERM);
        if timeout(GRACE, child.wait()).await.is_err() {
            tracing::warn!(server, "a server's program did not heed SIGTERM and was killed");
            signal(group, Signal::KILL);
            let _ = child.wait().await;
        }
    }
    // What it left behind. The number is the group's for as long as the group has a member.
    signal(group, Signal::KILL);
}

fn signal(group: Pid, signal: Signal) {
    // A group without members is what is wanted.
    let _ = kill_process_group(group, signal);
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

/// Logs what the program says on standard error, within bounds and without the values of its environment.
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

//! A server that is a program: whether it is there to be started, and what it said on standard error when it did not
//! serve. The program itself is started by the steps that follow, as a call starts it.

use super::Finding;
use super::advice::{line, you};
use super::walk::Walk;
use crate::config::Program;
use crate::net::transport::Transport;
use secrecy::ExposeSecret;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Where installers put programs, outside of many services' `PATH`. Below the home directory where they are relative.
const INSTALLED: [&str; 5] = [
    "/usr/local/bin",
    "/opt/homebrew/bin",
    ".local/bin",
    ".cargo/bin",
    ".deno/bin",
];

impl Walk {
    pub(super) fn program(&mut self) -> Option<Finding> {
        let program = self.program.clone()?;
        let command = &program.command;
        let places = places(&program);
        let mut found = None;
        let mut not_executable = None;
        for place in &places {
            match executable(place) {
                Some(true) => {
                    found = Some(place);
                    break;
                }
                Some(false) => not_executable = Some(place),
                None => {}
            }
        }
        if let Some(found) = found {
            self.reached = true;
            return Some(Finding::ok(format!(
                "{}; programs may run, and this one is allowed",
                found.display()
            )));
        }
        if let Some(place) = not_executable {
            return Some(
                Finding::fault(format!("{} may not be executed", place.display())).advise([you(
                    "make the file executable for the user that the gateway runs as",
                )]),
            );
        }
        if command.contains('/') {
            return Some(
                Finding::fault(format!("there is no file {command}"))
                    .advise([you("install the program there, or correct command")]),
            );
        }
        let finding = Finding::fault(format!(
            "{command} is not in the PATH that it would be started with"
        ));
        let home = variable(&program, "HOME").unwrap_or_default();
        let elsewhere = INSTALLED
            .iter()
            .map(|place| Path::new(&home).join(place).join(command))
            .find(|place| place.is_absolute() && executable(place) == Some(true));
        Some(match elsewhere {
            Some(place) => {
                let place = place.display().to_string();
                finding.advise([
                    line("command", &place, "where it is installed, if that is the one you mean"),
                    you(format!(
                        "with it, set VESTIBULE_STDIO_EXTRA_COMMANDS={place} in the gateway's environment: a path counts \
                         only when it is listed. Or add its directory to the gateway's PATH"
                    )),
                ])
            }
            None => finding.advise([you(format!(
                "install {command} where the gateway runs, or add its directory to the gateway's PATH"
            ))]),
        })
    }

    /// The headers of a client's request without which the program is not started.
    pub(super) fn wanted_headers(&self) -> Vec<String> {
        let program = self.program.iter();
        let headers = program.flat_map(|program| program.headers());
        headers
            .map(|name| format!("{name:?}").trim_matches('"').to_owned())
            .collect()
    }

    /// Ends the program, and says what it wrote on standard error.
    pub(super) async fn last_words(&self) -> Vec<String> {
        let Some(Transport::Bridge(bridge)) = self.worker.transport(&self.server) else {
            return Vec::new();
        };
        self.worker.app.bridges.shut_down().await;
        let words = bridge.last_words();
        words
            .into_iter()
            .map(|line| format!("standard error: {line}"))
            .collect()
    }
}

/// Where the system looks for the program, in order.
fn places(program: &Program) -> Vec<PathBuf> {
    if program.command.contains('/') {
        return vec![PathBuf::from(&program.command)];
    }
    let path = variable(program, "PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
    std::env::split_paths(&path)
        .map(|place| place.join(&program.command))
        .collect()
}

/// A variable as the program gets it.
fn variable(program: &Program, name: &str) -> Option<String> {
    let configured = program.env.iter().find(|(known, _)| known == name);
    if let Some((_, value)) = configured {
        return Some(value.0.iter().map(|(text, _)| text.expose_secret()).collect());
    }
    let inherited = program.inherited.iter().find(|(known, _)| known == name);
    inherited.map(|(_, value)| value.clone())
}

/// Whether a file may be executed by anybody; `None` where there is none.
fn executable(path: &Path) -> Option<bool> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(metadata.permissions().mode() & 0o111 != 0)
}

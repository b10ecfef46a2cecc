//! `vestibule doctor`: walks to one server as a call or a sign-in does, and says what to change where it fails.

use super::{ConfigFile, load, located, say};
use crate::clock::Clock;
use crate::config::nearest;
use crate::diagnosis::doctor::{self, Advice, Options, Report, Step, Verdict};
use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use tokio::runtime::Builder;
use vestibule_store::MasterKeys;

/// Of usage and configuration, as clap has it.
const USAGE: u8 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The server: its name below `mcp_servers`, its alias or its id.
    #[arg(value_name = "SERVER")]
    server: String,
    /// One JSON document on standard output instead of text.
    #[arg(long)]
    json: bool,
    /// The environment variable with a person's access token: for the server, or to be exchanged.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Register a client at the provider. It stays there.
    #[arg(long)]
    register: bool,
}

pub(super) fn run(arguments: &Arguments, environment: &HashMap<String, String>) -> ExitCode {
    match examined(arguments, environment) {
        Ok(report) => {
            if arguments.json {
                say(&json(&report));
            } else {
                for line in text(&report) {
                    say(&line);
                }
            }
            ExitCode::from(u8::from(report.failed()))
        }
        Err(lines) => {
            for line in lines {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
            ExitCode::from(USAGE)
        }
    }
}

/// The walk, or why there is none.
fn examined(arguments: &Arguments, environment: &HashMap<String, String>) -> Result<Report, Vec<String>> {
    let path = &arguments.file.config;
    let one = |line: String| vec![format!("vestibule: {line}")];
    // `load` has said why.
    let loaded = load(path, environment).map_err(|_| Vec::new())?;
    let Some(settings) = loaded.settings else {
        let findings = loaded.findings.iter();
        let mut lines: Vec<String> = findings.map(|finding| located(path, finding)).collect();
        lines.extend(one(format!(
            "{} cannot be used; nothing was asked",
            path.display()
        )));
        return Err(lines);
    };
    let names = settings.servers.iter();
    let names = names.flat_map(|server| [Some(server.name.as_str()), server.alias.as_deref()]);
    let names: Vec<&str> = names.flatten().collect();
    let known = names.contains(&arguments.server.as_str())
        || settings
            .servers
            .iter()
            .any(|server| server.id == arguments.server);
    if !known {
        let meant = nearest(&arguments.server, names.iter().copied());
        let meant = meant
            .map(|name| format!("; did you mean {name}?"))
            .unwrap_or_default();
        let names = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let wanted = crate::web::error::shown(&arguments.server, 100);
        return Err(one(format!(
            "no MCP server is called {wanted}{meant} There are: {names}"
        )));
    }
    let token = match &arguments.token_env {
        None => None,
        Some(name) => match environment.get(name).map(|token| token.trim()) {
            Some(token) if !token.is_empty() => Some(token.to_owned().into()),
            _ => {
                return Err(one(format!(
                    "the environment variable {name} of --token-env is not set"
                )));
            }
        },
    };
    let keys = MasterKeys::from_environment(environment).map_err(|fault| one(fault.to_string()))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| one(format!("no runtime: {error}")))?;
    let options = Options {
        token,
        register: arguments.register,
    };
    let walk = doctor::examine(
        settings,
        &loaded.findings,
        &keys,
        Clock::system(),
        &arguments.server,
        options,
    );
    let report = runtime.block_on(walk);
    // A lookup that never ends must not keep the program.
    runtime.shutdown_background();
    report.map_err(|error| one(error.to_string()))
}

fn json(report: &Report) -> String {
    let mut document = serde_json::to_value(report).unwrap_or_default();
    document["ok"] = (!report.failed()).into();
    format!("{document:#}")
}

/// One line a step; what to do stands below it.
fn text(report: &Report) -> Vec<String> {
    let mut lines = vec![
        format!("mcp_servers.{} ({}), {}", report.server, report.mode, report.url),
        String::new(),
    ];
    let width = report.steps.iter().map(|step| step.name.len()).max();
    let width = width.unwrap_or_default();
    for step in &report.steps {
        lines.push(format!(
            "{:<7}  {:<width$}  {}{}",
            label(step.verdict),
            step.name,
            step.seen,
            took(step)
        ));
        let indent = " ".repeat(7 + 2 + width + 2);
        if matches!(step.verdict, Verdict::Warning | Verdict::Fault) {
            lines.extend(step.tried.iter().map(|tried| format!("{indent}- {tried}")));
        }
        for advice in &step.advice {
            lines.push(match advice {
                Advice::Configuration { line, why } => format!("{indent}> {line}\n{indent}    {why}"),
                Advice::Upstream { what } => format!("{indent}the server's side: {what}"),
                Advice::You { what } => format!("{indent}{what}"),
            });
        }
    }
    let count = |verdict, one: &str| {
        let count = report.count(verdict);
        format!("{count} {one}{}", if count == 1 { "" } else { "s" })
    };
    let skipped = match report.count(Verdict::Skipped) {
        0 => String::new(),
        count => format!(", {count} skipped"),
    };
    lines.push(String::new());
    lines.push(format!(
        "{}, {}{skipped}",
        count(Verdict::Fault, "fault"),
        count(Verdict::Warning, "warning")
    ));
    if report.steps.iter().any(|step| step.advice.iter().any(is_line)) {
        lines.push(format!(
            "A line after > belongs into mcp_servers.{}.",
            report.server
        ));
    }
    lines
}

fn is_line(advice: &Advice) -> bool {
    matches!(advice, Advice::Configuration { .. })
}

fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Fault => "FAULT",
        Verdict::Skipped => "skipped",
    }
}

/// Said where it is long enough to matter.
fn took(step: &Step) -> String {
    match step.took.as_millis() {
        0 => String::new(),
        milliseconds => format!(" ({milliseconds} ms)"),
    }
}

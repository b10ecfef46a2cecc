//! The command line: one file a command.

mod api_keys;
mod check;
pub(crate) mod database;
mod demo;
mod doctor;
mod keys;
mod managing;
mod mock;
mod serve;
mod users;

use crate::config::{self, Loaded, Severity};
use crate::telemetry::logs::{self, LogFormat};
use clap::{Parser, Subcommand};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const LONG_ABOUT: &str = "\
Vestibule stands between MCP clients and MCP servers that want OAuth. It gets, keeps and renews the tokens, and \
relays the calls. It reads LiteLLM's configuration file and answers at LiteLLM's MCP gateway's URLs.";

const EXAMPLES: &str = "\
Try it, without any other service:
  vestibule demo

A configuration file for one server with machine tokens:
  general_settings:
    master_key: os.environ/LITELLM_MASTER_KEY
  mcp_servers:
    my_server:
      url: https://mcp.example.com/mcp
      auth_type: oauth2
      client_id: os.environ/MCP_CLIENT_ID
      client_secret: os.environ/MCP_CLIENT_SECRET
      token_url: https://auth.example.com/oauth/token

Judge it, then serve it:
  vestibule check --config config.yaml
  vestibule doctor --config config.yaml my_server
  vestibule serve --config config.yaml --port 4000

Then clients use http://HOST:4000/my_server/mcp with the header
  x-litellm-api-key: Bearer <master key>";

/// A gateway for the Model Context Protocol that handles sign-in.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, about, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
struct Cli {
    /// How log lines on standard error look.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "VESTIBULE_LOG_FORMAT"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the MCP servers of a configuration file.
    Serve(serve::Arguments),
    /// Read and judge a configuration file without binding a port. Exit code 1 when it cannot be used.
    Check(ConfigFile),
    /// Walk to one MCP server of a configuration file as calls and sign-ins do, and say what to change where that fails.
    /// Exit code 1 for a fault, 2 when nothing was asked.
    Doctor(doctor::Arguments),
    /// Start a gateway with an authorization server and an MCP server to try, make two calls, and serve.
    Demo(demo::Arguments),
    /// Start the demo's authorization server and MCP server alone.
    Mock(mock::Arguments),
    /// Look at the master keys that what lasts is sealed with, and change them.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make, list and change the keys that callers have. It works beside a running gateway, which takes a change up
    /// within a second.
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
    /// Write down, list and change people, whose keys and sign-ins they are.
    #[command(subcommand)]
    Users(users::Command),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
}

#[derive(Debug, Clone, clap::Args)]
struct ConfigFile {
    /// The configuration file (LiteLLM's YAML).
    #[arg(long, short, value_name = "FILE", env = "VESTIBULE_CONFIG")]
    config: PathBuf,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = readable(std::env::vars_os());
    logs::init(
        cli.log_format,
        environment.get("VESTIBULE_LOG").map(String::as_str),
    );
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments, &environment),
        Command::Check(file) => check::run(&file, &environment),
        Command::Doctor(arguments) => doctor::run(&arguments, &environment),
        Command::Demo(arguments) => demo::run(&arguments, &environment),
        Command::Mock(arguments) => mock::run(&arguments),
        Command::Keys(command) => keys::run(&command, &environment),
        Command::ApiKeys(command) => api_keys::run(command, &environment),
        Command::Users(command) => users::run(command, &environment),
        Command::Schema => {
            let schema = config::reference::json_schema();
            say(&format!("{schema:#}"));
            ExitCode::SUCCESS
        }
    }
}

/// The variables that are text; another cannot be meant for this program.
fn readable(variables: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    variables.filter_map(text).collect()
}

/// A line on standard output. A reader that went away is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error, and the exit code for a command that did not do its work.
fn fail(line: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "vestibule: {line}");
    ExitCode::FAILURE
}

/// Reads and judges a file.
fn load(path: &Path, environment: &HashMap<String, String>) -> Result<Loaded, ExitCode> {
    Ok(config::load(&read(path)?, environment))
}

fn read(path: &Path) -> Result<String, ExitCode> {
    std::fs::read_to_string(path)
        .map_err(|error| fail(&format!("{} cannot be read: {error}", path.display())))
}

/// A finding with the file before it, as editors and people jump to it.
fn located(path: &Path, finding: &config::Problem) -> String {
    let colon = if finding.at.is_some() { ":" } else { ": " };
    format!("{}{colon}{finding}", path.display())
}

/// Findings as log lines, or as one line each on standard error when the file cannot be used.
fn report(path: &Path, loaded: &Loaded) {
    let usable = loaded.settings.is_some();
    for finding in &loaded.findings {
        let line = located(path, finding);
        match finding.severity {
            _ if !usable => {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
            Severity::Error => tracing::error!("{line}"),
            Severity::Warning => tracing::warn!("{line}"),
            Severity::Note => tracing::info!("{line}"),
        }
    }
    if !loaded.passed_over.is_empty() {
        tracing::info!(
            "passed over, being LiteLLM's other business: {}",
            loaded.passed_over.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_variable_that_is_no_text_is_passed_over() {
        let odd = || OsString::from_vec(vec![b'a', 0xff]);
        let variables = [("A".into(), "1".into()), ("B".into(), odd()), (odd(), "2".into())];
        let found = readable(variables.into_iter());
        assert_eq!(found, HashMap::from([("A".to_owned(), "1".to_owned())]));
    }
}

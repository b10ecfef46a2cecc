//! `vestibule check`: what is wrong with a file, a line each; nothing is bound or called.

use super::{ConfigFile, load, located, say};
use crate::config::Severity;
use std::collections::HashMap;
use std::process::ExitCode;
use vestibule_store::MasterKeys;

pub(super) fn run(file: &ConfigFile, environment: &HashMap<String, String>) -> ExitCode {
    let loaded = match load(&file.config, environment) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for finding in &loaded.findings {
        say(&located(&file.config, finding));
    }
    if !loaded.passed_over.is_empty() {
        say(&format!(
            "{}: note: passed over, being LiteLLM's other business: {}",
            file.config.display(),
            loaded.passed_over.join(", ")
        ));
    }
    let keys = MasterKeys::from_environment(environment);
    if let Err(fault) = &keys {
        say(&format!("error: {fault}"));
    }
    let errors = loaded
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    match (&loaded.settings, keys) {
        (Some(settings), Ok(_)) => {
            let servers = settings.servers.len();
            say(&format!(
                "{}: ok, {servers} MCP server{}",
                file.config.display(),
                if servers == 1 { "" } else { "s" }
            ));
            ExitCode::SUCCESS
        }
        (None, _) => {
            say(&format!(
                "{}: {errors} error{}",
                file.config.display(),
                if errors == 1 { "" } else { "s" }
            ));
            ExitCode::FAILURE
        }
        _ => ExitCode::FAILURE,
    }
}

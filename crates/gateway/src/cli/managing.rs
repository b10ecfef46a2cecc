//! What `api-keys` and `users` have in common: the gateway's own operations on the database that the configuration file
//! names, whether or not a gateway runs beside them; and tables.

use super::keys::{Opened, open};
use super::{ConfigFile, fail, say};
use crate::app::{App, Worker};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::live::{Live, Source};
use crate::web::error::Refusal;
use serde::Serialize;
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(super) json: bool,
}

/// A command's place to work at.
pub(super) struct Bench {
    pub(super) worker: Worker,
    /// In whose name the record has it.
    pub(super) by: Actor,
}

/// Does `work`, and says what came of it.
pub(super) fn run<F>(
    common: &Common,
    environment: &HashMap<String, String>,
    work: impl FnOnce(Arc<Bench>) -> F,
) -> ExitCode
where
    F: Future<Output = Result<String, Refusal>>,
{
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let opened = match open(&common.file, environment).await {
            Ok(opened) => opened,
            Err(code) => return code,
        };
        let bench = match bench(opened, common, environment).await {
            Ok(bench) => Arc::new(bench),
            Err(line) => return fail(&line),
        };
        let done = work(Arc::clone(&bench)).await;
        bench.worker.app.audit.flush().await;
        if let Some(store) = &bench.worker.app.store {
            store.close().await;
        }
        match done {
            Ok(text) => {
                say(text.trim_end());
                ExitCode::SUCCESS
            }
            Err(refusal) => fail(&format!("{} ({})", refusal.message, refusal.code.name())),
        }
    })
}

async fn bench(
    opened: Opened,
    common: &Common,
    environment: &HashMap<String, String>,
) -> Result<Bench, String> {
    if opened.settings.master_key.is_none() {
        return Err(
            "keys count only where general_settings.master_key is set; nothing was changed".to_owned(),
        );
    }
    let path = &common.file.config;
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let store = Some(Arc::new(opened.store));
    let runtime = Handle::current();
    let app = App::build(
        opened.settings,
        &opened.keys,
        Clock::system(),
        runtime.clone(),
        true,
        store,
    );
    let app = app.map_err(|error| error.to_string())?;
    let source = Source {
        path: None,
        text,
        environment: environment.clone(),
    };
    let live = Live::new(app, source, runtime);
    live.look().await.map_err(|error| error.to_string())?;
    Ok(Bench {
        worker: Worker::new(live),
        by: Actor {
            name: "command line".into(),
            user: None,
            key: None,
        },
    })
}

/// As JSON.
pub(super) fn json(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// As a table: columns as wide as what is in them, and nothing that a terminal would take for a command.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| {
        row.map(|cell| {
            let plain = crate::web::error::shown(&cell, 60);
            if plain.is_empty() { "-".to_owned() } else { plain }
        })
    }));
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_no_cell_leaves_its_line() {
        let row = ["a\nb\u{1b}[31m".to_owned(), String::new(), "c".to_owned()];
        assert_eq!(
            table(["ID", "ALIAS", "X"], [row]),
            "ID      ALIAS  X\nab[31m  -      c\n"
        );
    }
}

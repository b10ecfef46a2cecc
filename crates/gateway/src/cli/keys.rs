//! `vestibule keys`: the master keys that what lasts is sealed with: which there are, a new one, and the old ones
//! away. It works beside a running gateway, which takes up a changed key file by itself.

use super::database::database_url;
use super::{ConfigFile, fail, load, report, say};
use crate::config::Settings;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Builder;
use vestibule_store::store::PURPOSE;
use vestibule_store::{DatabaseUrl, KeySource, KeyUse, MasterKeys, Store};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Where the keys come from, which they are, and how many rows each one seals.
    Status(ConfigFile),
    /// Put a new key before the others in the key file and seal every row with it. The old keys stay and open
    /// what clients hold, so nobody is signed out, and a running gateway takes up the new key without a restart.
    Rotate(Rotate),
    /// Seal every row with the first key: after the keys were changed by hand.
    Reseal(ConfigFile),
    /// Drop the keys that no row is sealed with from the key file, the first one excepted. What clients hold
    /// sealed with them (MCP session ids, client ids) opens no longer: they register and start again.
    Retire(ConfigFile),
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    file: ConfigFile,
    /// With PostgreSQL: every replica reads this very key file, not a copy of it.
    #[arg(long)]
    shared_file: bool,
    /// With keys from the environment: write them to this new file (mode 0600), which can be rotated.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// What every one of the commands works on.
pub(super) struct Opened {
    pub(super) settings: Settings,
    pub(super) url: DatabaseUrl,
    pub(super) keys: MasterKeys,
    pub(super) store: Store,
}

pub(super) fn run(command: &Command, environment: &HashMap<String, String>) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let (Command::Status(file)
        | Command::Rotate(Rotate { file, .. })
        | Command::Reseal(file)
        | Command::Retire(file)) = command;
        let opened = match open(file, environment).await {
            Ok(opened) => opened,
            Err(code) => return code,
        };
        let done = match command {
            Command::Status(_) => status(&opened).await,
            Command::Rotate(arguments) => rotate(&opened, arguments).await,
            Command::Reseal(_) => reseal(&opened).await,
            Command::Retire(_) => retire(&opened).await,
        };
        opened.store.close().await;
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(line) => fail(&line),
        }
    })
}

/// Opens the database that the configuration file names. It is there already, and so are its keys.
pub(super) async fn open(
    file: &ConfigFile,
    environment: &HashMap<String, String>,
) -> Result<Opened, ExitCode> {
    let mut loaded = load(&file.config, environment)?;
    let Some(settings) = loaded.settings.take() else {
        report(&file.config, &loaded);
        return Err(fail(&format!(
            "{} cannot be used; nothing was changed",
            file.config.display()
        )));
    };
    let found = database_url(environment, &file.config, settings.database_url.as_ref());
    let url = found.map_err(|line| fail(&line))?;
    match url.sqlite_file() {
        // These commands make neither a database nor a key.
        Some(path) if !path.exists() => Err(fail(&format!(
            "{} does not exist; vestibule serve makes it, with its key",
            path.display()
        ))),
        None if !url.is_postgres() => Err(fail(&format!(
            "{url} is gone with its process; there are no keys to look after"
        ))),
        _ => {
            let keys = MasterKeys::load(environment, &url).map_err(|fault| fail(&fault.to_string()))?;
            let store = Store::open(&url, &keys).await;
            let store = store.map_err(|error| fail(&error.to_string()))?;
            Ok(Opened {
                settings,
                url,
                keys,
                store,
            })
        }
    }
}

async fn status(opened: &Opened) -> Result<(), String> {
    say(&format!("database: {}", opened.url));
    say(&format!("keys from: {}", opened.keys.source()));
    let ids = opened.store.ring().ids();
    let uses = opened.store.keys_in_use().await;
    let uses = uses.map_err(|error| error.to_string())?;
    for (index, id) in ids.iter().enumerate() {
        let rows = rows_of(&uses, |used| used.key == Some(*id));
        let role = if index == 0 { "seals" } else { "opens" };
        say(&format!("  {id}  {role}, {}", counted(rows)));
    }
    for used in uses {
        match used.key {
            Some(id) if ids.contains(&id) => {}
            Some(id) => say(&format!("  {id}  not at hand, {}", counted(used.rows))),
            None => say(&format!("  no key    damaged, {}", counted(used.rows))),
        }
    }
    Ok(())
}

async fn rotate(opened: &Opened, arguments: &Rotate) -> Result<(), String> {
    let source = opened.keys.source();
    match (source.file(), &arguments.to) {
        (Some(_), None) if opened.url.is_postgres() && !arguments.shared_file => Err(format!(
            "nothing was changed: other replicas may read copies of {source}, and a replica without the new key \
             reads no row that is sealed with it. When all read this very file, say --shared-file. Otherwise: add \
             a new key (openssl rand -base64 32) as the last line of every copy, then make it the first line of \
             every copy, then run vestibule keys reseal; no replica has to be restarted"
        )),
        (Some(_), Some(_)) => Err(format!(
            "nothing was changed: the keys are in a file already ({source}); leave out --to"
        )),
        (Some(_), None) => {
            opened.keys.rotate().map_err(|fault| fault.to_string())?;
            opened.store.ring().refresh();
            if let Some(id) = opened.store.ring().ids().first() {
                say(&format!(
                    "key {id} is the first in {source} and seals from now on"
                ));
            }
            reseal(opened).await?;
            say("A running gateway that reads this file takes up the key by itself.");
            say("The old keys stay and open what clients hold; vestibule keys retire drops them.");
            Ok(())
        }
        (None, Some(path)) => {
            opened.keys.write_to(path).map_err(|fault| fault.to_string())?;
            let variable = variable(source);
            let path = path.display();
            say(&format!(
                "{path} holds the keys of {variable} now; none is new yet"
            ));
            say(&format!(
                "Give every replica VESTIBULE_MASTER_KEY_FILE={path} instead of {variable}, restart it, and run \
                 vestibule keys rotate again."
            ));
            Ok(())
        }
        (None, None) => Err(format!(
            "nothing was changed: the keys come from {variable}, which no command can change. Move them to a file \
             with vestibule keys rotate --to FILE. Or stay with VESTIBULE_MASTER_KEY: append a new key (openssl \
             rand -base64 32) after a comma at every replica, restart, put it first at every replica, restart, \
             then run vestibule keys reseal",
            variable = variable(source)
        )),
    }
}

/// The variable to take away.
fn variable(source: &KeySource) -> &'static str {
    match source {
        KeySource::Passphrase { .. } => "LITELLM_SALT_KEY",
        _ => "VESTIBULE_MASTER_KEY",
    }
}

async fn reseal(opened: &Opened) -> Result<(), String> {
    let done = opened.store.reseal().await;
    let done = done.map_err(|error| error.to_string())?;
    say(&format!("{} sealed with the first key", counted(done.rows)));
    if done.unreadable > 0 {
        return Err(format!(
            "{} cannot be opened with any of the keys and stayed as they are; vestibule keys status says which \
             keys are missing",
            counted(done.unreadable)
        ));
    }
    Ok(())
}

async fn retire(opened: &Opened) -> Result<(), String> {
    let source = opened.keys.source();
    if source.file().is_none() {
        return Err(format!(
            "nothing was changed: the keys come from {}, which no command can change; vestibule keys status says \
             which are not used",
            variable(source)
        ));
    }
    let uses = opened.store.keys_in_use().await;
    let uses = uses.map_err(|error| error.to_string())?;
    let ids = opened.store.ring().ids();
    let old = ids.get(1..).unwrap_or_default();
    for id in old {
        let rows = rows_of(&uses, |used| used.key == Some(*id));
        if rows > 0 {
            return Err(format!(
                "nothing was changed: key {id} still seals {}, which vestibule keys reseal puts under the first key",
                counted(rows)
            ));
        }
    }
    let keep: Vec<_> = uses.iter().filter_map(|used| used.key).collect();
    let retired = opened.keys.retire(PURPOSE, &keep);
    let dropped = retired.map_err(|fault| fault.to_string())?;
    say(&match dropped {
        0 => format!("{source} holds one key, and it is used; there is nothing to drop"),
        1 => format!("1 key dropped from {source}"),
        dropped => format!("{dropped} keys dropped from {source}"),
    });
    if dropped > 0 && opened.url.is_postgres() {
        say("Drop them from the copies of other replicas too.");
    }
    Ok(())
}

fn rows_of(uses: &[KeyUse], which: impl Fn(&KeyUse) -> bool) -> u64 {
    uses.iter().filter(|used| which(used)).map(|used| used.rows).sum()
}

fn counted(rows: u64) -> String {
    if rows == 1 {
        "1 row".to_owned()
    } else {
        format!("{rows} rows")
    }
}

//! The gateway as it is configured now. The file and the store are looked at again and again; what changed there becomes
//! a new [`App`] that requests from then on use, while those under way end under the one they began with. What cannot be
//! used changes nothing, and says why.

use crate::app::App;
use crate::config::{self, LeftOut, Loaded, Problem, Severity, StoredEntry};
use crate::digest::sha256;
use crate::ids;
use crate::registry::{End, Server};
use arc_swap::ArcSwap;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use vestibule_store::{Instance, Revisions, Store, StoreError};

/// How often the store is asked whether anything changed there; a change is everywhere within a second.
const LOOK: Duration = Duration::from_millis(250);
/// After so many looks the file is read again, and what is only written now and then is written.
const SELDOM: u32 = 4;
/// After so many looks this process says that it is there.
const BEAT: u32 = 20;
/// A process that was silent for so many seconds is forgotten.
const FORGOTTEN: u64 = 60 * 60;

/// So long a file has to say the same before it counts: whoever writes it may be half way.
const SETTLED: Duration = Duration::from_millis(100);
/// So long the store may take for one look. A connection into nowhere must not keep the file from being looked at.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the configuration comes from.
pub struct Source {
    /// The file; nothing for a text that never changes.
    pub path: Option<PathBuf>,
    /// What it says.
    pub text: String,
    /// The process environment.
    pub environment: HashMap<String, String>,
}

/// What became of the last look at file and store.
#[derive(Debug, Default)]
pub struct Status {
    /// What is wrong with the file that was found last; the one before it is in use while there is an error.
    pub findings: Vec<Problem>,
    /// Stored servers that cannot be used.
    pub left_out: Vec<LeftOut>,
    /// Why the file could not be read or used at all.
    pub fault: Option<String>,
    /// Why the store could not be asked.
    pub store_fault: Option<String>,
    /// When the configuration in use began, in seconds since 1970.
    pub since: u64,
}

/// The gateway whose configuration changes.
pub struct Live {
    current: ArcSwap<App>,
    status: ArcSwap<Status>,
    runtime: Handle,
    environment: HashMap<String, String>,
    path: Option<PathBuf>,
    /// What this process is called among those that share the store.
    instance: String,
    started_at: u64,
    /// One look at a time.
    seen: Mutex<Seen>,
}

/// What was seen last.
struct Seen {
    /// The text that is in use.
    text: String,
    /// The text that was refused last, and why.
    refused: Option<(String, String)>,
    servers: Vec<StoredEntry>,
    revisions: Option<Revisions>,
}

impl Live {
    /// Begins with `app`, made from `source`. Looks run on `runtime`, where the store's connections live.
    pub fn new(app: App, source: Source, runtime: Handle) -> Arc<Self> {
        let since = app.clock.unix_seconds();
        Arc::new(Self {
            current: ArcSwap::from_pointee(app),
            status: ArcSwap::from_pointee(Status {
                since,
                ..Status::default()
            }),
            runtime,
            environment: source.environment,
            path: source.path,
            instance: ids::random_hex(),
            started_at: since,
            seen: Mutex::new(Seen {
                text: source.text,
                refused: None,
                servers: Vec::new(),
                revisions: None,
            }),
        })
    }

    /// A gateway whose configuration never changes.
    pub fn fixed(app: App, runtime: Handle) -> Arc<Self> {
        let source = Source {
            path: None,
            text: String::new(),
            environment: HashMap::new(),
        };
        Self::new(app, source, runtime)
    }

    /// The parts as they are now.
    pub fn app(&self) -> Arc<App> {
        self.current.load_full()
    }

    /// Whether `app` is what is in use.
    pub fn is_current(&self, app: &Arc<App>) -> bool {
        Arc::ptr_eq(&self.current.load(), app)
    }

    /// The configuration file's name, where there is a file.
    pub fn file_name(&self) -> Option<String> {
        let name = self.path.as_ref()?.file_name()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// What became of the last look.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Judges the configuration as it would be with these stored servers.
    pub async fn judged_with(&self, change: impl FnOnce(&mut Vec<StoredEntry>)) -> Loaded {
        let seen = self.seen.lock().await;
        let mut servers = seen.servers.clone();
        change(&mut servers);
        config::load_with(&seen.text, &self.environment, &servers)
    }

    /// Looks at the store now. When this returns, what was written before it counts in this process.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look(self: &Arc<Self>) -> Result<(), StoreError> {
        let live = Arc::clone(self);
        let looked = self
            .runtime
            .spawn(async move { live.look_at_store().await })
            .await;
        looked.unwrap_or(Err(StoreError::Interrupted))
    }

    /// Whether `server`, which a request began with, is there and in its place now; see
    /// [`Endpoint::place`](crate::net::transport::Endpoint::place).
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn is_in_place(self: &Arc<Self>, server: &Server) -> Result<bool, StoreError> {
        self.look().await?;
        let app = self.app();
        let now = app.registry.by_id(&server.id);
        Ok(now.is_some_and(|now| now.endpoint.place() == server.endpoint.place()))
    }

    /// Does work with the store on the runtime where its connections live. What has begun comes to its end, whoever
    /// hangs up.
    ///
    /// # Errors
    /// Those of the work; [`StoreError::Absent`] where there is no store.
    pub async fn on_store<T, F>(&self, work: impl FnOnce(Arc<Store>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let store = self.app().store.clone().ok_or(StoreError::Absent)?;
        let done = self.runtime.spawn(work(store)).await;
        done.unwrap_or(Err(StoreError::Interrupted))
    }

    /// The name of this process among those that share the store.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The file that the configuration is read from, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Looks again and again, and says that this process listens at `address`; ends with the future.
    pub async fn watch(self: Arc<Self>, address: String) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks: u32 = 0;
        loop {
            tick.tick().await;
            self.note_store(self.look_at_store().await.err());
            if looks.is_multiple_of(SELDOM) {
                self.look_at_file().await;
                self.end_trials().await;
                // Before the next look whatever the store does.
                let _ = timeout(PATIENCE, self.note_uses()).await;
            }
            if looks.is_multiple_of(BEAT) {
                self.beat(&address).await;
            }
            looks = looks.wrapping_add(1);
        }
    }

    /// This process ends in good order.
    pub async fn leave(&self) {
        let instance = self.instance.clone();
        let left = self.on_store(move |store| async move { store.forget_instance(&instance).await });
        if let Err(error) = left.await {
            tracing::debug!(%error, "that this process ends was not written down");
        }
    }

    async fn beat(&self, address: &str) {
        let app = self.app();
        let Some(store) = &app.store else { return };
        let now = app.clock.unix_seconds();
        let instance = Instance {
            id: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: address.to_owned(),
            started_at: self.started_at,
            seen_at: now,
            config_revision: self.revision().await,
        };
        let said = async {
            store.beat(&instance).await?;
            store.forget_old_instances(now, FORGOTTEN).await
        };
        if let Err(error) = said.await {
            tracing::debug!(%error, "that this process is there was not written down");
        }
    }

    /// Tells one configuration in use from another: the beginning of a digest of the file, and the number of the last
    /// change of a stored server.
    pub async fn revision(&self) -> String {
        let seen = self.seen.lock().await;
        let file: String = sha256(seen.text.as_bytes())[..3]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let servers = seen.revisions.as_ref().map_or(0, |revisions| revisions.servers);
        format!("{file}-{servers}")
    }

    fn note_store(&self, fault: Option<StoreError>) {
        let fault = fault.map(|fault| fault.to_string());
        let before = self.status();
        if before.store_fault == fault {
            return;
        }
        if let Some(fault) = &fault {
            tracing::error!(%fault, "the store does not answer; what changed there is not known");
        } else {
            tracing::info!("the store answers again");
        }
        self.set_status(|status| status.store_fault = fault);
    }

    fn set_status(&self, change: impl FnOnce(&mut Status)) {
        let before = self.status();
        let mut status = Status {
            findings: before.findings.clone(),
            left_out: before.left_out.clone(),
            fault: before.fault.clone(),
            store_fault: before.store_fault.clone(),
            since: before.since,
        };
        change(&mut status);
        self.status.store(Arc::new(status));
    }

    async fn look_at_store(&self) -> Result<(), StoreError> {
        let looked = timeout(PATIENCE, self.read_store()).await;
        looked.unwrap_or(Err(StoreError::Interrupted))
    }

    /// What was read counts as known when all of it is in use, so a look that broke off is made up for by the next.
    async fn read_store(&self) -> Result<(), StoreError> {
        let app = self.app();
        let Some(store) = &app.store else { return Ok(()) };
        let mut seen = self.seen.lock().await;
        let asked_at = app.clock.now();
        let mut now = store.revisions().await?;
        let before = seen.revisions;
        let changed = |of: fn(&Revisions) -> i64| before.as_ref().is_none_or(|before| of(before) != of(&now));
        if changed(|all| all.keys) || changed(|all| all.users) {
            app.keys.replace(store.api_keys().await?, &store.users().await?);
        }
        if let (Some(before), Some(people)) = (&before, &app.people)
            && before.grants != now.grants
        {
            for change in store.grant_changes_since(before.grants).await? {
                people.persons.doubt(&change.user_id, &change.server_id);
                people.own_keys.doubt(&change.user_id, &change.server_id);
            }
        }
        if changed(|all| all.servers) {
            seen.servers = stored_servers(store).await?;
            // What is in use at the start has none.
            let is_taken = before.is_none() && seen.servers.is_empty() || self.take_servers(&mut seen);
            if let (false, Some(before)) = (is_taken, &before) {
                now.servers = before.servers;
            }
        }
        seen.revisions = Some(now);
        app.keys.heard(asked_at);
        Ok(())
    }

    async fn look_at_file(&self) {
        let Some(path) = &self.path else { return };
        let mut read = tokio::fs::read_to_string(path).await;
        let known = |seen: &Seen, text: &str| {
            seen.text == text || seen.refused.as_ref().is_some_and(|(refused, _)| refused == text)
        };
        if let Ok(text) = &read
            && !known(&*self.seen.lock().await, text)
        {
            sleep(SETTLED).await;
            let again = tokio::fs::read_to_string(path).await;
            if again.as_ref().is_ok_and(|again| again != text) {
                return;
            }
            read = again;
        }
        let mut seen = self.seen.lock().await;
        match read {
            Ok(text) if text == seen.text => {
                let taken_back = seen.refused.take().is_some();
                if taken_back {
                    let loaded = config::load_with(&text, &self.environment, &seen.servers);
                    self.set_status(|status| status.findings = loaded.findings);
                }
                self.note_file(None);
            }
            Ok(text) => match &seen.refused {
                Some((refused, fault)) if *refused == text => self.note_file(Some(fault.clone())),
                _ => self.take_file(&mut seen, text),
            },
            Err(error) => {
                let fault = format!(
                    "{} cannot be read: {error}; the configuration before it stays in use",
                    path.display()
                );
                self.note_file(Some(fault));
            }
        }
    }

    /// Says once what is wrong with the file, and that it is no longer.
    fn note_file(&self, fault: Option<String>) {
        if self.status().fault == fault {
            return;
        }
        if let Some(fault) = &fault {
            tracing::error!("{fault}");
        } else {
            tracing::info!("the configuration file is as it is used");
        }
        self.set_status(|status| status.fault = fault);
    }

    /// Puts the file's new text into use, if it can be.
    fn take_file(&self, seen: &mut Seen, text: String) {
        let taken = self.take(&text, &seen.servers);
        for finding in &taken.loaded.findings {
            if finding.severity != Severity::Note {
                tracing::warn!("configuration: {finding}");
            }
        }
        self.note_file(taken.fault.clone());
        self.set_status(|status| status.findings.clone_from(&taken.loaded.findings));
        if let Some(fault) = taken.fault {
            seen.refused = Some((text, fault));
        } else {
            self.note_taken(taken.loaded);
            seen.text = text;
            seen.refused = None;
        }
    }

    /// Puts the stored servers into use beside the file's, whatever became of a newer file.
    fn take_servers(&self, seen: &mut Seen) -> bool {
        let now = self.app().clock.unix_seconds();
        seen.servers.retain(|server| !is_over(server, now));
        let taken = self.take(&seen.text, &seen.servers);
        match &taken.fault {
            None => {
                self.note_taken(taken.loaded);
                true
            }
            Some(fault) => {
                tracing::error!("stored servers changed, and cannot be used: {fault}");
                false
            }
        }
    }

    /// Puts this text with these stored servers into use, if it can be.
    fn take(&self, text: &str, servers: &[StoredEntry]) -> Taken {
        let app = self.app();
        let mut loaded = config::load_with(text, &self.environment, servers);
        let fault = match loaded.settings.take() {
            None => Some("the configuration file has errors; the one before it stays in use".to_owned()),
            Some(settings) => {
                loaded.findings.extend(app.with_the_next_start(&settings));
                match app.next(settings) {
                    Ok(next) => {
                        self.install(&app, next);
                        None
                    }
                    Err(error) => Some(format!("{error}; the configuration before it stays in use")),
                }
            }
        };
        Taken { loaded, fault }
    }

    fn note_taken(&self, loaded: Loaded) {
        for server in &loaded.left_out {
            for problem in &server.problems {
                tracing::warn!(server = %server.name, "a stored server is left out: {problem}");
            }
        }
        tracing::info!("the configuration changed");
        let since = self.app().clock.unix_seconds();
        self.set_status(|status| {
            status.left_out = loaded.left_out;
            status.since = since;
        });
    }

    /// Servers whose trial is over are there no more, whether or not the store answers.
    async fn end_trials(&self) {
        let now = self.app().clock.unix_seconds();
        let mut seen = self.seen.lock().await;
        if seen.servers.iter().any(|server| is_over(server, now)) {
            self.take_servers(&mut seen);
        }
    }

    /// Streams that began under the configuration `before` end where it changed for them.
    fn install(&self, before: &Arc<App>, next: App) {
        self.current.store(Arc::new(next));
        let now = self.app();
        before.gate.give_way_to(&now.gate);
        for server in before.registry.all() {
            let how = match now.registry.successor(server) {
                Some(same) if Arc::ptr_eq(same, server) => continue,
                Some(_) => End::Replaced,
                None => End::Removed,
            };
            server.ending.say(how);
            if let Some(bridge) = server.bridged.clone() {
                let over = server.over(before.limits.drain_timeout);
                self.runtime.spawn(async move {
                    over.await;
                    bridge.end_all();
                });
            }
        }
    }

    /// Writes down when keys were last used, and drops servers whose trial is over.
    async fn note_uses(&self) {
        let app = self.app();
        let Some(store) = &app.store else { return };
        let uses = app.keys.unnoted();
        let noted = async {
            if !uses.is_empty() {
                store.note_key_uses(&uses).await?;
            }
            store
                .drop_expired_servers(app.clock.unix_seconds())
                .await
                .map(drop)
        };
        if let Err(error) = noted.await {
            tracing::debug!(%error, "the last uses of keys were not written down");
        }
    }
}

/// What became of a configuration that was tried.
struct Taken {
    /// What was found in it; its settings are in use, or nowhere.
    loaded: Loaded,
    /// Why it is not in use.
    fault: Option<String>,
}

fn is_over(server: &StoredEntry, now: u64) -> bool {
    server.expires_at.is_some_and(|end| end <= now)
}

async fn stored_servers(store: &Store) -> Result<Vec<StoredEntry>, StoreError> {
    let rows = store.servers().await?;
    let entries = rows.into_iter().filter_map(|row| {
        let document = match &row.document {
            Ok(document) => std::str::from_utf8(document.expose_secret()).ok()?,
            Err(fault) => {
                tracing::error!(server = row.name, %fault, "a stored server cannot be read");
                return None;
            }
        };
        Some(StoredEntry {
            id: row.id.as_str().to_owned(),
            document: document.into(),
            name: row.name,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            expires_at: row.expires_at,
        })
    });
    Ok(entries.collect())
}

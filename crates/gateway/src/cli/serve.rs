//! `vestibule serve`: configuration, parts, port, then calls until a signal.

use super::database::database_url;
use super::{ConfigFile, fail, read, report, say};
use crate::app::App;
use crate::clock::Clock;
use crate::config::transport::stdio_is_enabled;
use crate::config::{self, Settings};
use crate::http::{self, Gateway};
use crate::live::{Live, Source};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use vestibule_store::{MasterKeys, Store};

/// Descriptors beside connections: logs, runtimes, token requests.
const OWN_FILES: u64 = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The address to listen on. Without a master key only loopback addresses are taken, and the default is
    /// 127.0.0.1; with one it is 0.0.0.0.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// The port; 0 takes a free one and says which.
    #[arg(long, short, default_value_t = 4000, env = "PORT")]
    port: u16,
    /// Worker threads; one a core when left out.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

pub(super) fn run(arguments: &Arguments, environment: &HashMap<String, String>) -> ExitCode {
    let path = &arguments.file.config;
    let text = match read(path) {
        Ok(text) => text,
        Err(code) => return code,
    };
    let loaded = config::load(&text, environment);
    report(path, &loaded);
    let Some(settings) = loaded.settings else {
        return fail(&format!("{} cannot be used; nothing was started", path.display()));
    };
    let host = match host(arguments.host, &settings) {
        Ok(host) => host,
        Err(line) => return fail(&line),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let address = SocketAddr::new(host, arguments.port);
        let listener = match http::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return fail(&format!("{address} cannot be bound: {error}")),
        };
        let source = Source {
            path: Some(path.clone()),
            text,
            environment: environment.clone(),
        };
        let gateway = match start(settings, source, host.is_loopback(), arguments.workers).await {
            Ok(gateway) => gateway,
            Err(line) => return fail(&line),
        };
        serve(gateway, listener).await
    })
}

/// Where to listen. Without a key anybody who reaches the gateway may use it, so it stays on this machine.
fn host(asked: Option<IpAddr>, settings: &Settings) -> Result<IpAddr, String> {
    match (asked, &settings.master_key) {
        (Some(host), None) if !host.is_loopback() => Err(format!(
            "without general_settings.master_key the gateway binds loopback addresses only, and {host} is none"
        )),
        (Some(host), _) => Ok(host),
        (None, Some(_)) => Ok(Ipv4Addr::UNSPECIFIED.into()),
        (None, None) => Ok(Ipv4Addr::LOCALHOST.into()),
    }
}

/// The parts and the worker threads. Token requests and the store run on the runtime that calls this. What lasts is
/// kept beside the file that `source` names, unless the settings say otherwise.
pub(super) async fn start(
    settings: Settings,
    source: Source,
    loopback: bool,
    workers: Option<usize>,
) -> Result<Gateway, String> {
    if settings.master_key.is_none() {
        tracing::warn!(
            "no master key is configured: whoever reaches this loopback address may call every server"
        );
    }
    if let Some(allowed) = getrlimit(Resource::Nofile).current
        && let Some(warning) = too_few_files(allowed, settings.limits.max_connections)
    {
        tracing::warn!("{warning}");
    }
    if stdio_is_enabled(&source.environment) {
        keep_memory_private();
    }
    let (keys, store) = lasting(&settings, &source).await?;
    let app = App::build(
        settings,
        &keys,
        Clock::system(),
        Handle::current(),
        loopback,
        store,
    )
    .map_err(|error| error.to_string())?;
    let workers = workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let live = Live::new(app, source, Handle::current());
    live.look().await.map_err(|error| error.to_string())?;
    Gateway::start(live, workers).map_err(|error| format!("the workers cannot be started: {error}"))
}

/// The keys, and the store: for people's tokens and our registrations, and where a master key manages the gateway, for
/// keys, servers and the record of calls. The latter can be done without, and then is.
async fn lasting(settings: &Settings, source: &Source) -> Result<(MasterKeys, Option<Arc<Store>>), String> {
    let environment = &source.environment;
    let is_needed = settings.has_sign_in();
    if !is_needed && settings.master_key.is_none() {
        return without_store(environment);
    }
    let config = source.path.as_deref().unwrap_or(Path::new(""));
    let url = database_url(environment, config, settings.database_url.as_ref())?;
    let is_chosen = settings.database_url.is_some() || environment.contains_key("DATABASE_URL");
    let keys = match MasterKeys::load(environment, &url) {
        Err(fault) if !is_needed => return nothing_lasts(&fault, environment),
        keys => keys.map_err(|fault| fault.to_string())?,
    };
    let store = match Store::open(&url, &keys).await {
        // A database that somebody chose is there to be used.
        Err(fault) if !is_needed && !is_chosen => return nothing_lasts(&fault, environment),
        store => store.map_err(|error| error.to_string())?,
    };
    tracing::info!(database = %url, keys = %keys.source(), "what lasts is kept");
    Ok((keys, Some(Arc::new(store))))
}

fn nothing_lasts(
    fault: &dyn std::fmt::Display,
    environment: &HashMap<String, String>,
) -> Result<(MasterKeys, Option<Arc<Store>>), String> {
    tracing::warn!(
        "{fault}; so there are no keys beside the master key, no servers beside the file's, and no record of calls"
    );
    without_store(environment)
}

fn without_store(environment: &HashMap<String, String>) -> Result<(MasterKeys, Option<Arc<Store>>), String> {
    let keys = MasterKeys::from_environment(environment).map_err(|fault| fault.to_string())?;
    if keys.ephemeral {
        tracing::info!(
            "MCP sessions end with this process; set VESTIBULE_MASTER_KEY_FILE to keep them across restarts and replicas"
        );
    }
    Ok((keys, None))
}

/// Programs of `transport: stdio` run as the same user. Linux lets them read this process's environment and memory,
/// where the keys are, unless it is told otherwise.
fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::warn!(%error, "programs of transport stdio may read the gateway's memory");
        }
    }
    #[cfg(not(target_os = "linux"))]
    tracing::warn!("programs of transport stdio run as the gateway's user and may read its memory");
}

/// A call holds two descriptors, the client's connection and the server's.
fn too_few_files(allowed: u64, max_connections: usize) -> Option<String> {
    let wanted = u64::try_from(max_connections)
        .unwrap_or(u64::MAX)
        .saturating_mul(2);
    let wanted = wanted.saturating_add(OWN_FILES);
    (allowed < wanted).then(|| {
        format!(
            "vestibule.limits.max_connections is {max_connections}, which can take {wanted} file descriptors, and \
             this process may have {allowed}: raise the limit (ulimit -n, LimitNOFILE) or lower max_connections"
        )
    })
}

/// Serves until a signal, and says so.
pub(super) async fn serve(gateway: Gateway, listener: TcpListener) -> ExitCode {
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(error) => return fail(&format!("no address: {error}")),
    };
    let stopped = match stopped() {
        Ok(stopped) => stopped,
        Err(error) => return fail(&format!("signals cannot be received: {error}")),
    };
    say(&format!("listening on http://{address}"));
    tracing::info!(%address, "listening");
    if gateway.serve(listener, stopped).await {
        tracing::info!("stopped");
    }
    ExitCode::SUCCESS
}

/// Resolves at SIGTERM or Ctrl-C. Signals count from this call on, so it comes before the line that says
/// that all is ready.
pub(super) fn stopped() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_files_below_two_a_connection_is_told() {
        assert_eq!(too_few_files(4096 * 2 + 64, 4096), None);
        let warning = too_few_files(1024, 4096).expect("a warning");
        assert!(warning.contains("8256") && warning.contains("1024"), "{warning}");
        assert!(too_few_files(u64::MAX - 1, usize::MAX).is_some());
    }
}

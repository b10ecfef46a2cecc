//! `vestibule mock`: the demo's authorization server and MCP server alone.

use super::serve::stopped;
use super::{fail, say};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use vestibule_mock::Mock;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port on 127.0.0.1; 0 takes a free one and says which.
    #[arg(long, short, default_value_t = 8765)]
    port: u16,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    runtime.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return fail(&format!("{address} cannot be bound: {error}")),
        };
        let base = match listener.local_addr() {
            Ok(address) => format!("http://localhost:{}", address.port()),
            Err(error) => return fail(&format!("no address: {error}")),
        };
        let stopped = match stopped() {
            Ok(stopped) => stopped,
            Err(error) => return fail(&format!("signals cannot be received: {error}")),
        };
        say(&format!("listening on {base}"));
        say("An authorization server (/oauth/token) and an MCP server (/mcp) that takes only its tokens.");
        say("A config.yaml for `vestibule serve --config config.yaml --port 4000`:\n");
        say(&vestibule_mock::config_yaml(&base));
        match Mock::new().serve(listener, stopped).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the mock stopped: {error}")),
        }
    })
}

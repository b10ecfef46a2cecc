//! The way to the server: its name, a connection, TLS.

use super::Finding;
use super::advice::{upstream, you};
use super::walk::{PATIENCE, Walk};
use crate::net::address::{Zone, zone};
use crate::net::guarded::system_lookup;
use crate::net::pool::SendFault;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Host;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

impl Walk {
    pub(super) async fn dns(&mut self) -> Option<Finding> {
        let (url, _) = self.address.as_ref()?;
        let port = url.port_or_known_default().unwrap_or_default();
        let name = match url.host() {
            Some(Host::Ipv4(address)) => return Some(self.found(vec![(address, port).into()], "no name")),
            Some(Host::Ipv6(address)) => return Some(self.found(vec![(address, port).into()], "no name")),
            Some(Host::Domain(name)) => name.to_owned(),
            None => return Some(Finding::fault("the url has no host")),
        };
        Some(match timeout(PATIENCE, system_lookup()(name.clone())).await {
            Ok(Ok(found)) if !found.is_empty() => {
                let found = found.iter().map(|at| SocketAddr::new(at.ip(), port)).collect();
                self.found(found, &name)
            }
            Ok(_) => Finding::fault(format!("the name {name} has no address")).advise([you(
                "check the host in url, and that this machine's resolver knows the name",
            )]),
            Err(_) => Finding::fault(format!("no answer about {name} within {} s", PATIENCE.as_secs()))
                .advise([you("check this machine's resolver")]),
        })
    }

    fn found(&mut self, mut addresses: Vec<SocketAddr>, name: &str) -> Finding {
        addresses.dedup();
        let shown: Vec<String> = addresses
            .iter()
            .map(|at| {
                let zone = match zone(at.ip()) {
                    Some(Zone::Public) => "public",
                    Some(Zone::Private) => "private",
                    Some(Zone::Loopback) => "this machine",
                    None => "reserved",
                };
                format!("{} ({zone})", at.ip())
            })
            .collect();
        self.addresses = addresses;
        Finding::ok(format!("{name}: {}", shown.join(", ")))
    }

    pub(super) async fn connect(&mut self) -> Finding {
        let mut tried = Vec::new();
        let count = u32::try_from(self.addresses.len().clamp(1, ADDRESSES)).unwrap_or(1);
        let limit = self.worker.app.limits.connect_timeout / count;
        for address in self.addresses.iter().take(ADDRESSES) {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(_)) => {
                    self.reached = true;
                    let finding = if tried.is_empty() {
                        Finding::ok(address.to_string())
                    } else {
                        Finding::warning(format!("{address}, after addresses that did not answer"))
                    };
                    return finding.tried(tried);
                }
                Ok(Err(error)) => tried.push(format!("{address}: {}", error.kind())),
                Err(_) => tried.push(format!("{address}: no answer in time")),
            }
        }
        if tried.is_empty() {
            return Finding::skipped("there is no address");
        }
        Finding::fault(tried.join("; ")).advise([you(
            "check that the server runs, the port in url, and that firewalls let this machine through",
        )])
    }

    pub(super) async fn tls(&mut self) -> Option<Finding> {
        let (url, pool) = self.address.clone()?;
        if url.scheme() != "https" || !self.reached {
            return None;
        }
        Some(match timeout(PATIENCE, pool.try_connect()).await {
            Ok(Ok(())) => Finding::ok("the certificate is trusted"),
            Ok(Err(SendFault::Unreachable(why))) => {
                self.reached = false;
                Finding::fault(why).advise([
                    upstream("serve a certificate for the host in url, with its whole chain"),
                    you(
                        "if the certificate is of your own authority, add that to this machine's trust store, or name \
                         it with SSL_CERT_FILE",
                    ),
                ])
            }
            Ok(Err(_)) | Err(_) => {
                self.reached = false;
                Finding::fault("no handshake in time").advise([you(
                    "check that the port speaks TLS, and what stands between this machine and the server",
                )])
            }
        })
    }
}

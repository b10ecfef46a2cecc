//! Which servers are there for whom, by the client's address: a server that is not for the public internet does not
//! exist for a client outside. The registry asks here for every lookup.

use crate::registry::Server;
use crate::web::client_address::ClientAddress;
use ipnet::IpNet;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the operator's networks.
    Internal,
    /// Anywhere else, or nobody knows.
    External,
}

/// The networks that count as internal.
#[derive(Debug)]
pub struct InternalNetworks(Vec<IpNet>);

impl InternalNetworks {
    /// These, as they are configured.
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self(ranges)
    }

    /// Where a client at this address is.
    pub fn place(&self, client: ClientAddress) -> Whereabouts {
        let inside = client
            .known()
            .is_some_and(|address| self.0.iter().any(|range| range.contains(&address)));
        if inside {
            Whereabouts::Internal
        } else {
            Whereabouts::External
        }
    }
}

/// Whether there is such a server for a client there.
pub fn visible(server: &Server, client: Whereabouts) -> bool {
    server.is_public || client == Whereabouts::Internal
}

//! Fakes for tests: an identity provider's token endpoint, a whole provider, an MCP upstream and a raw HTTP client, all real sockets on
//! 127.0.0.1, all able to misbehave on request. Nothing here sleeps: what a test waits for is an event with a deadline.
//! Development only; knows nothing of the gateway.

pub mod conversation;
pub mod idp;
pub mod issuer;
pub mod jose;
mod peer;
pub mod provider;
pub mod raw;
pub mod sse_server;
pub mod upstream;
mod wire;

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use conversation::{Conversation, Say};
pub use idp::{Idp, Reply};
pub use issuer::Issuer;
pub use jose::SigningKey;
pub use peer::Peer;
pub use provider::{Iss, Modes, Provider, ResourceRule, TokenMode, s256};
pub use raw::{RawClient, Response};
pub use sse_server::{Opening, SseServer};
pub use upstream::{Answer, SseHandle, Upstream};
pub use wire::Request;

/// How long any wait in this crate lasts before it fails the test.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// An address at which nobody listens.
///
/// # Panics
/// When no port is free.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sixteen digits that nobody else has.
///
/// # Panics
/// When the operating system gives no random bytes.
pub fn random_hex() -> String {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_listens_at_a_free_address() {
        assert!(RawClient::connect(free_addr()).await.is_err());
    }
}

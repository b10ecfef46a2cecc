//! The way out: pooled connections to configured MCP servers, bridges to those of other transports, and the client
//! for token endpoints. Nothing
//! here knows what a credential is for.

pub mod address;
pub mod bridge;
pub(crate) mod gather;
pub mod guarded;
pub mod pool;
pub mod stream;
pub mod tls;
pub mod token_endpoint;
pub mod transport;

//! The Model Context Protocol's wire: the JSON-RPC envelope read by borrowing, server-sent events, the
//! headers of the Streamable HTTP transport. There is no I/O here and no model of any method's content.

pub mod envelope;
pub mod headers;
pub mod sse;

pub use envelope::{Envelope, RequestId};

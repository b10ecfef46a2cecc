//! The Model Context Protocol's wire: the JSON-RPC envelope read by borrowing, server-sent events, the
//! headers of the Streamable HTTP transport, names for what several servers have. There is no I/O here and no model
//! of any method's content.

pub mod envelope;
pub mod headers;
pub mod members;
pub mod naming;
pub mod raw;
pub mod splice;
pub mod sse;
pub mod template;

pub use envelope::{Envelope, RequestId, id_value};

//! Logs and metrics. What is never logged: headers, bodies, keys, tokens, queries, and the text of an
//! identity provider beyond its RFC 6749 fields.

pub mod logs;
pub mod metrics;

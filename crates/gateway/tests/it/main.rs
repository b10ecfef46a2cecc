//! The gateway as its callers and servers see it: black box, over sockets, against the testkit's identity
//! provider and MCP servers. Time stands still unless a test moves it.

mod by_hand;
mod connections;
mod debug_headers;
mod draining;
mod essentials;
mod harness;
mod listing;
mod metrics;
mod pool;
mod refusals;
mod relay;
mod rmcp_client;
mod token_faults;
mod tokens;
mod walk;

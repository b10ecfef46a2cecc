//! The gateway as its callers and servers see it: black box, over sockets, against the testkit's identity
//! provider and MCP servers. Time stands still unless a test moves it.

mod admission;
mod bare_machine;
mod by_hand;
mod calls;
mod child;
mod connections;
mod debug_headers;
mod draining;
mod essentials;
mod harness;
mod listing;
mod metrics;
mod pool;
mod program;
mod refusals;
mod relay;
mod rest;
mod rmcp_client;
mod routes;
mod sessions;
mod smuggling;
mod streams;
mod tls;
mod token_faults;
mod tokens;
mod walk;

//! Vestibule: a gateway for the Model Context Protocol that handles sign-in.
//!
//! The parts and who calls whom are in `ARCHITECTURE.md`; calls go downwards only.

pub mod admission;
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod diagnosis;
pub mod digest;
pub mod ending;
pub mod http;
pub mod ids;
pub mod issuer;
pub mod live;
pub mod net;
pub mod policy;
pub mod registry;
pub mod telemetry;
pub mod web;

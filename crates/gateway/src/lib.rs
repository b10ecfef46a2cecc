//! Vestibule: a gateway for the Model Context Protocol that handles sign-in.

pub mod config;

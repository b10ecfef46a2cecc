//! What an admitted caller may use: [`access`] says which servers and tools, [`visibility`] says which servers are there for a client's address, [`tools`] which
//! of a server's tools and arguments, and [`message`] reads what a client sends as the server will read it. Who the
//! caller is, is not asked here.

pub mod access;
pub mod message;
pub mod tools;
pub mod visibility;

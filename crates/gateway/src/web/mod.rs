//! What every handler needs: bodies, refusals, pages, cookies, the public origin, the client's address, and the judge of `Host` and
//! `Origin`. No routes.

pub mod body;
pub mod client_address;
pub mod cookie;
pub mod cors;
pub mod error;
pub mod guard;
pub mod json;
pub mod limits;
pub mod origin;
pub mod page;
pub mod parameters;

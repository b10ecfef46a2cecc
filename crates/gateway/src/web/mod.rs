//! What every handler needs: bodies, refusals, and the judge of `Host` and `Origin`. No routes.

pub mod body;
pub mod error;
pub mod guard;

//! What lasts: people's tokens and the gateway's registrations, in SQLite or PostgreSQL behind one [`Store`], and
//! the key ring that everything in them is sealed with. It knows no OAuth: what it keeps is bytes.
//!
//! An answer comes after the commit. Time is an argument.

mod codes;
mod database;
pub mod error;
pub mod grants;
pub mod key_source;
pub mod keys;
pub mod registrations;
pub mod reseal;
pub mod store;
pub mod url;

pub use error::{OpenError, StoreError};
pub use grants::{Grant, GrantSummary, Lease, ServerId, UserId};
pub use key_source::{KeyFault, KeySource};
pub use keys::{KeyId, KeyRing, MasterKeys, RowFault, join};
pub use registrations::{Registration, RegistrationLease};
pub use reseal::{KeyUse, Resealed};
pub use store::{Store, Version};
pub use url::{DatabaseUrl, InvalidUrl};

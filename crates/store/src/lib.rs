//! What lasts: people and their tokens, keys to the gateway, servers added at run time, the gateway's registrations,
//! the console's sessions, the audit, in SQLite or PostgreSQL behind one [`Store`], and the key ring that every
//! secret in them is sealed with. It knows no OAuth: what it keeps is bytes.
//!
//! An answer comes after the commit. Time is an argument.

pub mod api_keys;
pub mod audit;
pub mod changes;
mod codes;
mod database;
pub mod error;
pub mod grants;
pub mod ids;
pub mod instances;
pub mod key_source;
pub mod keys;
pub mod registrations;
pub mod reseal;
pub mod servers;
pub mod sessions;
pub mod store;
pub mod url;
pub mod user_secrets;
pub mod users;

pub use api_keys::{ApiKey, KeyUsed, NewApiKey};
pub use audit::{AuditEntry, AuditFilter, AuditRow};
pub use changes::{GrantChange, Revisions};
pub use error::{OpenError, StoreError, Unique};
pub use grants::{Grant, GrantSummary, Lease};
pub use ids::{InvalidId, ServerId, Unfit, UserId};
pub use instances::Instance;
pub use key_source::{KeyFault, KeySource};
pub use keys::{KeyId, KeyRing, MasterKeys, RowFault, join};
pub use registrations::{Registration, RegistrationLease};
pub use reseal::{KeyUse, Resealed};
pub use servers::{ServerRecord, StoredServer};
pub use sessions::ConsoleSession;
pub use store::{Store, Version};
pub use url::{DatabaseUrl, InvalidUrl};
pub use user_secrets::{UserSecret, UserSecretSummary};
pub use users::{DeletedUser, NewUser, User};

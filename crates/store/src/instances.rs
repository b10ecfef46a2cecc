//! Which processes share the database. Each says that it is there; nothing else is decided by it.

use crate::database::{execute, rows};
use crate::error::StoreError;
use crate::ids::{name, text};
use crate::store::{Store, integer, time};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name, of this start.
    pub id: String,
    /// The version of the program.
    pub version: String,
    /// Where it listens.
    pub address: String,
    /// When it was started, in seconds since 1970.
    pub started_at: u64,
    /// When it last said so, in seconds since 1970.
    pub seen_at: u64,
    /// Which configuration it has.
    pub config_revision: String,
}

type Row = (String, String, String, i64, i64, String);

impl Store {
    /// Says that a process is there.
    pub async fn beat(&self, instance: &Instance) -> Result<(), StoreError> {
        let sql = "INSERT INTO instances (id, version, address, started_at, seen_at, config_revision) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (id) DO UPDATE SET version = excluded.version, address = excluded.address, \
             started_at = excluded.started_at, seen_at = excluded.seen_at, \
             config_revision = excluded.config_revision";
        execute!(
            &self.database,
            sql,
            name("instance id", &instance.id)?,
            text("version", &instance.version)?,
            text("address", &instance.address)?,
            integer(instance.started_at),
            integer(instance.seen_at),
            text("configuration revision", &instance.config_revision)?
        )?;
        Ok(())
    }

    /// The processes that were there in the last `max_age` seconds, those that were started first at the front.
    pub async fn instances(&self, now: u64, max_age: u64) -> Result<Vec<Instance>, StoreError> {
        let sql = "SELECT id, version, address, started_at, seen_at, config_revision FROM instances \
             WHERE seen_at >= $1";
        let since = integer(now.saturating_sub(max_age));
        let found = rows!(reader, &self.database, Row, sql, since)?;
        let mut instances: Vec<_> = found
            .into_iter()
            .map(
                |(id, version, address, started_at, seen_at, config_revision)| Instance {
                    id,
                    version,
                    address,
                    started_at: time(started_at),
                    seen_at: time(seen_at),
                    config_revision,
                },
            )
            .collect();
        instances.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
        Ok(instances)
    }

    /// Forgets a process that ends in good order.
    pub async fn forget_instance(&self, id: &str) -> Result<(), StoreError> {
        let id = text("instance id", id)?;
        execute!(&self.database, "DELETE FROM instances WHERE id = $1", id)?;
        Ok(())
    }

    /// Forgets the processes that were not there in the last `max_age` seconds. Says how many.
    pub async fn forget_old_instances(&self, now: u64, max_age: u64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM instances WHERE seen_at < $1";
        let before = integer(now.saturating_sub(max_age));
        Ok(execute!(&self.database, sql, before)?)
    }
}

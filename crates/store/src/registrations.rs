//! The gateway's own registrations at upstream authorization servers: one for each server and digest of metadata,
//! however many replicas and clients ask. What is in the bytes is the gateway's business.

use crate::database::{execute, rows};
use crate::error::StoreError;
use crate::ids::ServerId;
use crate::store::{RowContext, Store, Version, context, hex, integer, time};
use secrecy::SecretSlice;

const TABLE: &str = "registrations";

/// A registration, opened.
#[derive(Debug)]
pub struct Registration {
    /// What was put there.
    pub payload: SecretSlice<u8>,
    /// Which one it is, of those there have been for this server and digest.
    pub generation: Version,
    /// When it was put there, in seconds since 1970.
    pub created_at: u64,
}

/// The answer to who registers.
#[derive(Debug)]
pub enum RegistrationLease {
    /// Nobody has to: there is one.
    Registered(Registration),
    /// The asker, until the time it named.
    Held,
    /// Somebody else.
    Busy {
        /// When the lease ends by itself, in milliseconds since 1970.
        until_ms: u64,
    },
}

/// sealed, generation, `created_at`
type Row = (Vec<u8>, i64, i64);

fn row_context<'a>(server: &'a ServerId, digest: &'a str, generation: Version) -> RowContext<'a> {
    context(TABLE, server.as_str(), digest, generation)
}

impl Store {
    /// The registration at the server's authorization server for the metadata with this digest.
    pub async fn registration(
        &self,
        server: &ServerId,
        digest: &[u8; 32],
    ) -> Result<Option<Registration>, StoreError> {
        let digest = hex(digest);
        let sql = "SELECT sealed, generation, created_at FROM registrations \
             WHERE server_id = $1 AND digest = $2 AND sealed IS NOT NULL";
        let found = rows!(reader, &self.database, Row, sql, server.as_str(), &digest)?;
        found
            .into_iter()
            .next()
            .map(|row| self.registered(&row, server, &digest))
            .transpose()
    }

    /// Asks to be the one that registers, until `until_ms`. `holder` names this attempt: the same name does not
    /// get a lease twice. A lease ends with [`Store::put_registration`], [`Store::release_registration`], or at
    /// its time.
    pub async fn lease_registration(
        &self,
        server: &ServerId,
        digest: &[u8; 32],
        holder: &str,
        now_ms: u64,
        until_ms: u64,
    ) -> Result<RegistrationLease, StoreError> {
        type Found = (Option<Vec<u8>>, i64, i64, Option<i64>);
        let digest = hex(digest);
        let (server_id, now, until) = (server.as_str(), integer(now_ms), integer(until_ms));
        let database = &self.database;
        loop {
            let sql = "INSERT INTO registrations \
                 (server_id, digest, generation, created_at, lease_holder, lease_until) \
                 VALUES ($1, $2, 0, 0, $3, $4) \
                 ON CONFLICT (server_id, digest) DO UPDATE \
                 SET lease_holder = excluded.lease_holder, lease_until = excluded.lease_until \
                 WHERE registrations.sealed IS NULL \
                 AND (registrations.lease_until IS NULL OR registrations.lease_until <= $5)";
            if execute!(database, sql, server_id, &digest, holder, until, now)? == 1 {
                return Ok(RegistrationLease::Held);
            }
            let sql = "SELECT sealed, generation, created_at, lease_until FROM registrations \
                 WHERE server_id = $1 AND digest = $2";
            let found = rows!(writer, database, Found, sql, server_id, &digest)?;
            match found.into_iter().next() {
                Some((Some(sealed), generation, created_at, _)) => {
                    let row = (sealed, generation, created_at);
                    let registration = self.registered(&row, server, &digest)?;
                    return Ok(RegistrationLease::Registered(registration));
                }
                Some((None, _, _, Some(until))) if until > now => {
                    return Ok(RegistrationLease::Busy {
                        until_ms: time(until),
                    });
                }
                // It went away or became free in between.
                _ => {}
            }
        }
    }

    /// Keeps a registration and ends the lease, if `holder` still has it. `None` when it has not, and then
    /// nothing is written: somebody else registers, or has.
    pub async fn put_registration(
        &self,
        server: &ServerId,
        digest: &[u8; 32],
        holder: &str,
        payload: &[u8],
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let digest = hex(digest);
        let generation = Version::first(now)?;
        let sealed = self.seal(payload, &row_context(server, &digest, generation))?;
        let sql = "UPDATE registrations SET sealed = $1, generation = $2, created_at = $3, \
             lease_holder = NULL, lease_until = NULL \
             WHERE server_id = $4 AND digest = $5 AND lease_holder = $6 AND sealed IS NULL";
        let (database, server_id) = (&self.database, server.as_str());
        let done = execute!(
            database,
            sql,
            &sealed,
            generation.0,
            integer(now),
            server_id,
            &digest,
            holder
        )?;
        Ok((done == 1).then_some(generation))
    }

    /// Ends a lease without a result. Nothing happens when `holder` has none.
    pub async fn release_registration(
        &self,
        server: &ServerId,
        digest: &[u8; 32],
        holder: &str,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM registrations \
             WHERE server_id = $1 AND digest = $2 AND lease_holder = $3 AND sealed IS NULL";
        execute!(&self.database, sql, server.as_str(), hex(digest), holder)?;
        Ok(())
    }

    /// Removes a registration that the authorization server does not know any more, if it is still this one.
    /// Says whether it was.
    pub async fn delete_registration_if(
        &self,
        server: &ServerId,
        digest: &[u8; 32],
        generation: Version,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM registrations \
             WHERE server_id = $1 AND digest = $2 AND generation = $3 AND sealed IS NOT NULL";
        let (database, server_id) = (&self.database, server.as_str());
        let done = execute!(database, sql, server_id, hex(digest), generation.0)?;
        Ok(done == 1)
    }

    fn registered(&self, row: &Row, server: &ServerId, digest: &str) -> Result<Registration, StoreError> {
        let (sealed, generation, created_at) = row;
        let generation = Version(*generation);
        Ok(Registration {
            payload: self.unseal(sealed, &row_context(server, digest, generation), server.as_str())?,
            generation,
            created_at: time(*created_at),
        })
    }
}

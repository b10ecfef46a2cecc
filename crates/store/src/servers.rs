//! Servers that were added at run time: a name, and what the gateway knows of them as sealed bytes, since there are
//! secrets in it. Servers of the configuration file are not here.

use crate::changes::{Kind, hold};
use crate::database::{Transaction, execute_in, rows, rows_in};
use crate::error::StoreError;
use crate::ids::{ServerId, name, optional};
use crate::keys::RowFault;
use crate::store::{RowContext, Store, Version, context, integer, time};
use secrecy::{ExposeSecret, SecretSlice};

/// A server.
#[derive(Debug)]
pub struct StoredServer {
    /// Which one it is.
    pub id: ServerId,
    /// Its name; no two differ in case alone.
    pub name: String,
    /// What was put there, or why it does not open.
    pub document: Result<SecretSlice<u8>, RowFault>,
    /// Which writing it is.
    pub version: Version,
    /// When it was added, in seconds since 1970.
    pub created_at: u64,
    /// Who added it.
    pub created_by: Option<String>,
    /// When it was last written.
    pub updated_at: u64,
    /// Who wrote it.
    pub updated_by: Option<String>,
    /// When it goes by itself, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// What is written of a server.
#[derive(Debug)]
pub struct ServerRecord {
    /// Which one it is.
    pub id: ServerId,
    /// Its name; no two differ in case alone.
    pub name: String,
    /// What to keep of it, sealed.
    pub document: SecretSlice<u8>,
    /// Who writes it.
    pub by: Option<String>,
    /// When it goes by itself, in seconds since 1970.
    pub expires_at: Option<u64>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, sealed, version, created_at, created_by, updated_at, updated_by, expires_at \
             FROM servers ",
            $rest
        )
    };
}

type Row = (
    String,
    String,
    Vec<u8>,
    i64,
    i64,
    Option<String>,
    i64,
    Option<String>,
    Option<i64>,
);

fn row_context(id: &ServerId, version: Version) -> RowContext<'_> {
    context("servers", id.as_str(), id.as_str(), version)
}

impl Store {
    /// Every server, by id.
    pub async fn servers(&self) -> Result<Vec<StoredServer>, StoreError> {
        let found = rows!(reader, &self.database, Row, select!(""))?;
        let mut servers: Vec<_> = found.into_iter().map(|row| self.stored(row)).collect();
        // Here, since the databases' collations differ.
        servers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(servers)
    }

    /// One server.
    pub async fn server(&self, id: &ServerId) -> Result<Option<StoredServer>, StoreError> {
        let found = rows!(reader, &self.database, Row, select!("WHERE id = $1"), id.as_str())?;
        Ok(found.into_iter().next().map(|row| self.stored(row)))
    }

    /// Adds a server. [`StoreError::Taken`] when there is one with its id or name. Grants, secrets and registrations that
    /// are left under its id are another server's, and go with the same commit.
    pub async fn put_server(&self, server: &ServerRecord, now: u64) -> Result<Version, StoreError> {
        let version = Version::first(now)?;
        let sealed = self.seal(server.document.expose_secret(), &row_context(&server.id, version))?;
        let sql = "INSERT INTO servers (id, name, folded, sealed, version, created_at, created_by, updated_at, \
             updated_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $6, $7, $8)";
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Servers, Kind::Grants]).await?;
        execute_in!(
            within,
            sql,
            server.id.as_str(),
            name("server name", &server.name)?,
            server.name.to_lowercase(),
            &sealed,
            version.0,
            integer(now),
            optional("maker", server.by.as_ref())?,
            server.expires_at.map(integer)
        )?;
        delete_what_is_for(within, &server.id).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// Writes a server, if it is still at `version`. `None` when it is not, and then nothing is written.
    /// [`StoreError::Taken`] when another server has the name.
    pub async fn update_server(
        &self,
        server: &ServerRecord,
        version: Version,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let next = self.write_server(&mut transaction, server, version, now).await?;
        transaction.commit().await?;
        Ok(next)
    }

    /// [`Store::update_server`] of a server that is somewhere else from now on: the grants, secrets and registrations
    /// for it go with the same commit.
    pub async fn move_server(
        &self,
        server: &ServerRecord,
        version: Version,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Servers, Kind::Grants]).await?;
        let Some(next) = self.write_server(within, server, version, now).await? else {
            return Ok(None);
        };
        delete_what_is_for(within, &server.id).await?;
        transaction.commit().await?;
        Ok(Some(next))
    }

    async fn write_server(
        &self,
        within: &mut Transaction,
        server: &ServerRecord,
        version: Version,
        now: u64,
    ) -> Result<Option<Version>, StoreError> {
        let next = version.next();
        let sealed = self.seal(server.document.expose_secret(), &row_context(&server.id, next))?;
        let sql = "UPDATE servers SET name = $1, folded = $2, sealed = $3, version = $4, updated_at = $5, \
             updated_by = $6, expires_at = $7 WHERE id = $8 AND version = $9";
        let done = execute_in!(
            within,
            sql,
            name("server name", &server.name)?,
            server.name.to_lowercase(),
            &sealed,
            next.0,
            integer(now),
            optional("writer", server.by.as_ref())?,
            server.expires_at.map(integer),
            server.id.as_str(),
            version.0
        )?;
        Ok((done == 1).then_some(next))
    }

    /// Removes a server with the grants, secrets and registrations for it, all or nothing. Says whether there was
    /// one; when not, nothing is removed.
    pub async fn delete_server(&self, id: &ServerId) -> Result<bool, StoreError> {
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Servers, Kind::Grants]).await?;
        if execute_in!(within, "DELETE FROM servers WHERE id = $1", id.as_str())? == 0 {
            return Ok(false);
        }
        delete_what_is_for(within, id).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes the servers that are over by `now`, as [`Store::delete_server`] does. These they were.
    pub async fn drop_expired_servers(&self, now: u64) -> Result<Vec<ServerId>, StoreError> {
        let sql = "SELECT COUNT(*) FROM servers WHERE expires_at <= $1";
        if rows!(reader, &self.database, (i64,), sql, integer(now))? == [(0,)] {
            return Ok(Vec::new());
        }
        let mut transaction = self.database.begin().await?;
        let within = &mut transaction;
        hold(within, &[Kind::Servers, Kind::Grants]).await?;
        let sql = "DELETE FROM servers WHERE expires_at <= $1 RETURNING id";
        let mut dropped = Vec::new();
        for (id,) in rows_in!(within, (String,), sql, integer(now))? {
            let id = ServerId(id);
            delete_what_is_for(within, &id).await?;
            dropped.push(id);
        }
        transaction.commit().await?;
        dropped.sort();
        Ok(dropped)
    }

    fn stored(&self, row: Row) -> StoredServer {
        let (id, name, sealed, version, created_at, created_by, updated_at, updated_by, expires_at) = row;
        let (id, version) = (ServerId(id), Version(version));
        StoredServer {
            document: self.ring.open_row(&sealed, &row_context(&id, version).parts()),
            id,
            name,
            version,
            created_at: time(created_at),
            created_by,
            updated_at: time(updated_at),
            updated_by,
            expires_at: expires_at.map(time),
        }
    }
}

async fn delete_what_is_for(within: &mut Transaction, id: &ServerId) -> Result<(), StoreError> {
    let id = id.as_str();
    execute_in!(within, "DELETE FROM grants WHERE server_id = $1", id)?;
    execute_in!(within, "DELETE FROM user_secrets WHERE server_id = $1", id)?;
    execute_in!(within, "DELETE FROM registrations WHERE server_id = $1", id)?;
    Ok(())
}

//! Sessions of the console: each is known by the digest of its cookie. Sessions of MCP are kept nowhere.

use crate::database::{execute, rows};
use crate::error::StoreError;
use crate::ids::{UserId, optional, text};
use crate::store::{Store, digest, integer, time};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSession {
    /// The cookie's digest.
    pub digest: [u8; 32],
    /// Who it is, in the gateway's words.
    pub holder: String,
    /// The person, where it is one.
    pub user_id: Option<UserId>,
    /// The key that it was begun with.
    pub key_id: Option<String>,
    /// When it was begun, in seconds since 1970.
    pub created_at: u64,
    /// When it is over, in seconds since 1970.
    pub expires_at: u64,
    /// What the browser says of itself.
    pub agent: Option<String>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT digest, holder, user_id, key_id, created_at, expires_at, agent FROM sessions ",
            $rest
        )
    };
}

type Row = (
    Vec<u8>,
    String,
    Option<String>,
    Option<String>,
    i64,
    i64,
    Option<String>,
);

fn session(row: Row) -> Result<ConsoleSession, StoreError> {
    let (known_by, holder, user_id, key_id, created_at, expires_at, agent) = row;
    Ok(ConsoleSession {
        digest: digest(&known_by)?,
        holder,
        user_id: user_id.map(UserId),
        key_id,
        created_at: time(created_at),
        expires_at: time(expires_at),
        agent,
    })
}

impl Store {
    /// Keeps a new session. [`StoreError::Taken`] when there is one with its digest.
    pub async fn put_session(&self, session: &ConsoleSession) -> Result<(), StoreError> {
        let sql = "INSERT INTO sessions (digest, holder, user_id, key_id, created_at, expires_at, agent) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        execute!(
            &self.database,
            sql,
            &session.digest[..],
            text("holder", &session.holder)?,
            session.user_id.as_ref().map(UserId::as_str),
            optional("key id", session.key_id.as_ref())?,
            integer(session.created_at),
            integer(session.expires_at),
            optional("agent", session.agent.as_ref())?
        )?;
        Ok(())
    }

    /// The session with this digest, if it is not over by `now`.
    pub async fn session(&self, digest: &[u8; 32], now: u64) -> Result<Option<ConsoleSession>, StoreError> {
        let sql = select!("WHERE digest = $1 AND expires_at > $2");
        let found = rows!(reader, &self.database, Row, sql, &digest[..], integer(now))?;
        found.into_iter().next().map(session).transpose()
    }

    /// The sessions that are not over by `now`, the newest first.
    pub async fn sessions(&self, now: u64) -> Result<Vec<ConsoleSession>, StoreError> {
        let sql = select!("WHERE expires_at > $1 ORDER BY created_at DESC, digest");
        let found = rows!(reader, &self.database, Row, sql, integer(now))?;
        found.into_iter().map(session).collect()
    }

    /// Ends a session. Says whether there was one.
    pub async fn delete_session(&self, digest: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = "DELETE FROM sessions WHERE digest = $1";
        Ok(execute!(&self.database, sql, &digest[..])? == 1)
    }

    /// Ends the sessions that were begun with a key. Says how many.
    pub async fn delete_sessions_of_key(&self, key_id: &str) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sessions WHERE key_id = $1";
        Ok(execute!(&self.database, sql, text("key id", key_id)?)?)
    }

    /// Ends a person's sessions. Says how many.
    pub async fn delete_sessions_of_user(&self, user: &UserId) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sessions WHERE user_id = $1";
        Ok(execute!(&self.database, sql, user.as_str())?)
    }

    /// Forgets the sessions that are over by `now`. Says how many.
    pub async fn drop_expired_sessions(&self, now: u64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sessions WHERE expires_at <= $1";
        Ok(execute!(&self.database, sql, integer(now))?)
    }
}

//! What authorization codes are bound to, from the callback to the one token request that may use them. A code is
//! known here by its digest alone, and nothing of this is secret.

use crate::database::{execute, rows};
use crate::error::StoreError;
use crate::store::{Store, hex, integer};

impl Store {
    /// Binds the code of this digest until `expires_at`, in seconds since 1970. A code that is bound already stays as
    /// it is. Codes that are over by `now` are forgotten.
    pub async fn bind_code(
        &self,
        digest: &[u8; 32],
        bound: &str,
        expires_at: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM codes WHERE expires_at <= $1";
        execute!(&self.database, sql, integer(now))?;
        let sql = "INSERT INTO codes (digest, bound, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (digest) DO NOTHING";
        execute!(&self.database, sql, hex(digest), bound, integer(expires_at))?;
        Ok(())
    }

    /// What the code is bound to, once: of any number who ask, one gets it.
    pub async fn take_code(&self, digest: &[u8; 32], now: u64) -> Result<Option<String>, StoreError> {
        let sql = "DELETE FROM codes WHERE digest = $1 RETURNING bound, expires_at";
        let found = rows!(writer, &self.database, (String, i64), sql, hex(digest))?;
        let found = found.into_iter().next();
        Ok(found
            .filter(|(_, expires_at)| *expires_at > integer(now))
            .map(|(bound, _)| bound))
    }
}

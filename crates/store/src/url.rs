//! Where a database is, as people write it. Nothing here opens one, and nothing prints a password.

use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;

/// Where the database is.
#[derive(Clone)]
pub struct DatabaseUrl(pub(crate) Place);

#[derive(Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Memory,
    Postgres(Box<PgConnectOptions>),
}

/// A database URL that is none of those accepted. The text itself is not printed: it may hold a password.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidUrl {
    /// Another scheme, or none.
    #[error("a database is sqlite:PATH, sqlite::memory: or postgres://USER:PASSWORD@HOST:PORT/NAME")]
    Scheme,
    /// No path.
    #[error("sqlite: takes a path (sqlite:PATH, sqlite::memory:)")]
    NoPath,
    /// `?` in a path.
    #[error("sqlite:PATH takes no parameters after a question mark")]
    Parameters,
    /// PostgreSQL's part cannot be read.
    #[error(
        "the PostgreSQL URL cannot be read; it is postgres://USER:PASSWORD@HOST:PORT/NAME, with /?#@% in the \
         password written as %2F %3F %23 %40 %25, and sslmode one of disable, allow, prefer, require, verify-ca, \
         verify-full"
    )]
    Postgres,
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite::memory:`, `postgres://…` or `postgresql://…`.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.trim().split_once(':').ok_or(InvalidUrl::Scheme)?;
        match scheme {
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                ":memory:" => Ok(Self(Place::Memory)),
                "" => Err(InvalidUrl::NoPath),
                path if path.contains('?') => Err(InvalidUrl::Parameters),
                path => Ok(Self::sqlite(Path::new(path))),
            },
            "postgres" | "postgresql" if rest.starts_with("//") => PgConnectOptions::from_str(text.trim())
                .map(|options| Self(Place::Postgres(Box::new(options))))
                .map_err(|_| InvalidUrl::Postgres),
            _ => Err(InvalidUrl::Scheme),
        }
    }

    /// A SQLite file.
    pub fn sqlite(path: &Path) -> Self {
        Self(Place::File(path.to_owned()))
    }

    /// The SQLite file, when it is one.
    pub fn sqlite_file(&self) -> Option<&Path> {
        match &self.0 {
            Place::File(path) => Some(path),
            Place::Memory | Place::Postgres(_) => None,
        }
    }

    /// Replicas may share it.
    pub fn is_postgres(&self) -> bool {
        matches!(self.0, Place::Postgres(_))
    }
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => write!(f, "sqlite:{}", path.display()),
            Place::Memory => f.write_str("sqlite::memory:"),
            Place::Postgres(options) => {
                let host = options.get_socket().map_or_else(
                    || options.get_host().to_owned(),
                    |socket| socket.display().to_string(),
                );
                let name = options.get_database().unwrap_or(options.get_username());
                let (user, port) = (options.get_username(), options.get_port());
                write!(f, "postgres://{user}@{host}:{port}/{name}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_passwords_not_printed() {
        let shown = |text: &str| DatabaseUrl::parse(text).map(|url| format!("{url} {url:?}"));
        let same = |text: &str| Ok(format!("{text} {text}"));
        assert_eq!(shown("sqlite:a/b.db"), same("sqlite:a/b.db"));
        assert_eq!(shown("sqlite:///a/b.db"), same("sqlite:/a/b.db"));
        assert_eq!(shown("sqlite::memory:"), same("sqlite::memory:"));
        for scheme in ["postgres", "postgresql"] {
            assert_eq!(
                shown(&format!(
                    "{scheme}://ada:canary@db.example:6000/v?sslmode=require"
                )),
                same("postgres://ada@db.example:6000/v")
            );
        }
        assert_eq!(shown("sqlite:"), Err(InvalidUrl::NoPath));
        assert_eq!(shown("sqlite:a.db?mode=ro"), Err(InvalidUrl::Parameters));
        for text in ["mysql://ada:canary@h/d", "a.db", "", "postgres:x", "Sqlite:x"] {
            assert_eq!(shown(text), Err(InvalidUrl::Scheme), "{text}");
        }
        for text in [
            "postgres://ada:canary@h:port/d",
            "postgres://ada:canary@h/d?sslmode=canary",
        ] {
            let fault = DatabaseUrl::parse(text).expect_err("invalid");
            assert!(!format!("{fault} {fault:?}").contains("canary"));
        }
    }
}

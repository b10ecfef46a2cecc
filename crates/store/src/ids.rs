//! Ids and other texts, as far as both databases keep them: PostgreSQL has no NUL in a text, and limits what is in
//! an index. What they mean is the gateway's business.

use crate::error::StoreError;
use std::fmt;
use thiserror::Error;

/// What is part of an index has no more bytes: PostgreSQL limits its rows.
pub(crate) const NAME_LIMIT: usize = 512;

/// An id that cannot be one.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("an id has 1 to 512 bytes, none of them NUL")]
pub struct InvalidId;

/// Which person a row is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub(crate) String);

/// Which server a row is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub(crate) String);

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// An id of 1 to 512 bytes, none of them NUL.
            pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
                let id = id.into();
                match fit(&id) {
                    Ok(()) => Ok(Self(id)),
                    Err(_) => Err(InvalidId),
                }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(UserId);
id!(ServerId);

/// Why a text cannot be kept.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It has a NUL in it.
    #[error("it has a NUL in it")]
    Nul,
    /// It is part of an index, and empty or too long for it.
    #[error("it has 1 to 512 bytes")]
    Length,
}

fn fit(name: &str) -> Result<(), Unfit> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        Err(Unfit::Length)
    } else if name.contains('\0') {
        Err(Unfit::Nul)
    } else {
        Ok(())
    }
}

/// A text that is part of an index.
pub(crate) fn name<'a>(field: &'static str, name: &'a str) -> Result<&'a str, StoreError> {
    fit(name)
        .map(|()| name)
        .map_err(|fault| StoreError::Unfit { field, fault })
}

/// A text that is in no index.
pub(crate) fn text<'a>(field: &'static str, text: &'a str) -> Result<&'a str, StoreError> {
    let fault = Unfit::Nul;
    if text.contains('\0') {
        Err(StoreError::Unfit { field, fault })
    } else {
        Ok(text)
    }
}

/// A text that is in no index, where there is one.
pub(crate) fn optional<'a>(
    field: &'static str,
    found: Option<&'a String>,
) -> Result<Option<&'a str>, StoreError> {
    found.map(|found| text(field, found)).transpose()
}

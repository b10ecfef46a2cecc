//! Every sealed column, and its way under another key beside a running gateway. A table with a column `sealed`
//! that is missing here fails a test.

use crate::database::{Database, execute, rows};
use crate::error::StoreError;
use crate::keys::{HEAD_LENGTH, KeyId};
use crate::store::{Store, Version, context};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;

/// How many rows are read at once.
const PAGE: i64 = 100;
/// How often rows that changed while they were re-sealed are looked for again.
const PASSES: usize = 10;

/// A table with sealed rows: its name and the statements on it, with the two parts of its primary key (the same
/// one twice where there is one) and its version.
struct SealedTable {
    name: &'static str,
    /// head, rows
    count: &'static str,
    /// first, second, version, sealed: those after ($2, $3) that do not begin with $1
    page: &'static str,
    /// sealed = $1 where the key is ($2, $3) and sealed is $4
    swap: &'static str,
}

macro_rules! sealed_table {
    ($name:literal, $first:literal, $second:literal, $version:literal) => {
        SealedTable {
            name: $name,
            count: concat!(
                "SELECT substr(sealed, 1, 5), COUNT(*) FROM ",
                $name,
                " WHERE sealed IS NOT NULL GROUP BY substr(sealed, 1, 5)"
            ),
            page: concat!(
                "SELECT ",
                $first,
                ", ",
                $second,
                ", ",
                $version,
                ", sealed FROM ",
                $name,
                " WHERE substr(sealed, 1, 5) <> $1 AND (",
                $first,
                ", ",
                $second,
                ") > ($2, $3) ORDER BY ",
                $first,
                ", ",
                $second,
                " LIMIT $4"
            ),
            swap: concat!(
                "UPDATE ",
                $name,
                " SET sealed = $1 WHERE ",
                $first,
                " = $2 AND ",
                $second,
                " = $3 AND sealed = $4"
            ),
        }
    };
}

const TABLES: &[SealedTable] = &[
    sealed_table!("meta", "name", "name", "CAST(0 AS BIGINT)"),
    sealed_table!("grants", "user_id", "server_id", "version"),
    sealed_table!("registrations", "server_id", "digest", "generation"),
    sealed_table!("servers", "id", "id", "version"),
    sealed_table!("user_secrets", "user_id", "server_id", "version"),
];

/// What [`Store::reseal`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resealed {
    /// Rows that are under the first key now and were not.
    pub rows: u64,
    /// Rows that no key opens; they stay as they are.
    pub unreadable: u64,
}

/// How many rows are sealed with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    /// The key; `None` for rows that do not say.
    pub key: Option<KeyId>,
    /// The rows.
    pub rows: u64,
}

impl Store {
    /// The tables with sealed rows.
    pub fn sealed_tables() -> impl Iterator<Item = &'static str> {
        TABLES.iter().map(|table| table.name)
    }

    /// Seals every row with the first key that is not. A row that somebody changes meanwhile is left to them and
    /// looked at again; nothing waits for anybody.
    pub async fn reseal(&self) -> Result<Resealed, StoreError> {
        self.ring.refresh();
        let mut resealed = Resealed::default();
        for table in TABLES {
            for _ in 0..PASSES {
                let pass = self.pass(table, &mut resealed.rows).await?;
                if pass.overtaken == 0 {
                    resealed.unreadable += pass.unreadable;
                    break;
                }
            }
        }
        Ok(resealed)
    }

    /// Which keys rows are sealed with, in the order of their ids.
    pub async fn keys_in_use(&self) -> Result<Vec<KeyUse>, StoreError> {
        let mut uses: BTreeMap<Option<KeyId>, u64> = BTreeMap::new();
        for table in TABLES {
            for (head, count) in rows!(writer, &self.database, (Vec<u8>, i64), table.count)? {
                *uses.entry(KeyId::of(&head)).or_default() += u64::try_from(count).unwrap_or(0);
            }
        }
        Ok(uses.into_iter().map(|(key, rows)| KeyUse { key, rows }).collect())
    }

    async fn pass(&self, table: &SealedTable, done: &mut u64) -> Result<Pass, StoreError> {
        type Row = (String, String, i64, Vec<u8>);
        let mut pass = Pass::default();
        let head = self.ring.ids().first().map_or(Vec::new(), |id| id.head());
        debug_assert_eq!(head.len(), HEAD_LENGTH);
        let (mut first, mut second) = (String::new(), String::new());
        loop {
            let database: &Database = &self.database;
            let page = rows!(writer, database, Row, table.page, &head, &first, &second, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(pass);
            };
            (first, second) = (last.0.clone(), last.1.clone());
            for (first, second, version, sealed) in page {
                let row = context(table.name, &first, &second, Version(version));
                let Ok(payload) = self.ring.open_row(&sealed, &row.parts()) else {
                    pass.unreadable += 1;
                    continue;
                };
                let fresh = self.seal(payload.expose_secret(), &row)?;
                match execute!(database, table.swap, &fresh, &first, &second, &sealed)? {
                    0 => pass.overtaken += 1,
                    _ => *done += 1,
                }
            }
        }
    }
}

#[derive(Default)]
struct Pass {
    unreadable: u64,
    overtaken: u64,
}

//! What was done, by whom, and what became of it: rows that are appended, read and pruned, and never changed. What
//! is said in them is the gateway's business, which puts no secret there.

use crate::database::{Database, Transaction, execute};
use crate::error::StoreError;
use crate::ids::NAME_LIMIT;
use crate::store::{Store, integer, time};
use sqlx::{Postgres, QueryBuilder, Sqlite};
use std::borrow::Cow;

/// How many rows one statement writes.
const ROWS: usize = 100;

/// How many reads go on at once, of which each may be long. Fewer than there are connections: what the gateway has to
/// learn, like that a key is blocked, does not wait for them.
pub(crate) const READS: usize = 2;

/// Something that was done. Texts are cut to 512 bytes, the trace apart, and a NUL becomes U+FFFD: what a client
/// writes into a name cannot keep the entry, or others of its batch, from being written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEntry {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it was.
    pub kind: String,
    /// The request.
    pub request_id: Option<String>,
    /// The person.
    pub user_id: Option<String>,
    /// The key.
    pub key_id: Option<String>,
    /// What the key was called.
    pub key_alias: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// Where the client was.
    pub address: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// What became of it.
    pub outcome: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The sign-in that it is a step of.
    pub flow: Option<String>,
    /// How it went, in the gateway's words.
    pub trace: Option<String>,
}

/// An entry as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; a later one is greater, and none is used twice.
    pub id: i64,
    /// What was done.
    pub entry: AuditEntry,
}

/// Which entries are asked for: those that meet every condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// One of these; any, when there are none.
    pub kinds: Vec<String>,
    /// Of this person.
    pub user_id: Option<String>,
    /// Of this key.
    pub key_id: Option<String>,
    /// About this server.
    pub server: Option<String>,
    /// About this tool.
    pub tool: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// Steps of this sign-in.
    pub flow: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// From this time on, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Before this time.
    pub until_ms: Option<u64>,
    /// That come, newest first, after the entry with this number.
    pub before: Option<i64>,
    /// With a greater number than this. It turns the order round.
    pub after: Option<i64>,
}

impl AuditFilter {
    fn texts(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        [
            ("user_id", &self.user_id),
            ("key_id", &self.key_id),
            ("server", &self.server),
            ("tool", &self.tool),
            ("outcome", &self.outcome),
            ("flow", &self.flow),
            ("request_id", &self.request_id),
        ]
        .into_iter()
        .filter_map(|(column, text)| Some((column, short(text.as_deref()?))))
    }

    /// The column that the fewest entries have in common, where one of those is asked for. Its index finds them: what a
    /// member may ask for costs no more than there is of the member's own.
    fn leading(&self) -> Option<&'static str> {
        [
            ("request_id", &self.request_id),
            ("flow", &self.flow),
            ("key_id", &self.key_id),
            ("user_id", &self.user_id),
        ]
        .into_iter()
        .find_map(|(column, text)| text.is_some().then_some(column))
    }

    fn times(&self) -> impl Iterator<Item = (&'static str, i64)> {
        [("at_ms >= ", self.since_ms), ("at_ms < ", self.until_ms)]
            .into_iter()
            .filter_map(|(condition, time)| Some((condition, integer(time?))))
    }
}

/// What most entries are; the indexes of kinds and outcomes leave these out.
const ORDINARY_KIND: &str = "call";
const ORDINARY_OUTCOME: &str = "ok";

/// A text that is part of an index, or might be.
fn short(text: &str) -> Cow<'_, str> {
    whole(&text[..text.floor_char_boundary(NAME_LIMIT)])
}

/// A text without NUL, which PostgreSQL does not keep.
fn whole(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

macro_rules! insert {
    ($database:ty, $entries:expr) => {{
        let mut insert = QueryBuilder::<$database>::new(
            "INSERT INTO audit (at_ms, kind, request_id, user_id, key_id, key_alias, client, address, server, \
             tool, outcome, status, flow, trace) ",
        );
        insert.push_values($entries, |mut row, entry: &AuditEntry| {
            row.push_bind(integer(entry.at_ms))
                .push_bind(short(&entry.kind))
                .push_bind(entry.request_id.as_deref().map(short))
                .push_bind(entry.user_id.as_deref().map(short))
                .push_bind(entry.key_id.as_deref().map(short))
                .push_bind(entry.key_alias.as_deref().map(short))
                .push_bind(entry.client.as_deref().map(short))
                .push_bind(entry.address.as_deref().map(short))
                .push_bind(entry.server.as_deref().map(short))
                .push_bind(entry.tool.as_deref().map(short))
                .push_bind(entry.outcome.as_deref().map(short))
                .push_bind(entry.status.map(i64::from))
                .push_bind(entry.flow.as_deref().map(short))
                .push_bind(entry.trace.as_deref().map(whole));
        });
        insert
    }};
}

/// `$unindexed` before a column keeps `SQLite`, which knows nothing of how many rows there are, from its index. With a
/// leading column the entries are found by that and sorted; without one they are read in the order that is asked for.
macro_rules! select {
    ($database:ty, $unindexed:literal, $filter:expr, $limit:expr) => {{
        let filter: &AuditFilter = $filter;
        let unindexed = |hide: bool| if hide { $unindexed } else { "" };
        let follows = filter.after.is_some();
        let leading = filter.leading();
        let in_order = follows && leading.is_none();
        let mut select = QueryBuilder::<$database>::new(
            "SELECT id, at_ms, kind, request_id, user_id, key_id, key_alias, client, address, server, tool, \
             outcome, status, flow, trace FROM audit WHERE TRUE",
        );
        if !filter.kinds.is_empty() {
            let column = select
                .push(" AND ")
                .push(unindexed(follows || leading.is_some() || filter.kinds.len() > 1));
            let mut kinds = column.push("kind IN (").separated(", ");
            for kind in &filter.kinds {
                kinds.push_bind(short(kind));
            }
            kinds.push_unseparated(")");
            if filter.kinds.iter().all(|kind| kind != ORDINARY_KIND) {
                select.push(" AND kind <> '").push(ORDINARY_KIND).push("'");
            }
        }
        if filter
            .outcome
            .as_ref()
            .is_some_and(|outcome| outcome != ORDINARY_OUTCOME)
        {
            select.push(" AND outcome <> '").push(ORDINARY_OUTCOME).push("'");
        }
        for (column, text) in filter.texts() {
            let hide = leading.map_or(follows, |leading| leading != column);
            let column = select.push(" AND ").push(unindexed(hide)).push(column);
            column.push(" = ").push_bind(text);
        }
        for (condition, time) in filter.times() {
            let hide = in_order || leading == Some("request_id");
            let condition = select.push(" AND ").push(unindexed(hide)).push(condition);
            condition.push_bind(time);
        }
        if let Some(after) = filter.after {
            let id = select.push(" AND ").push(unindexed(!in_order));
            id.push("id > ").push_bind(after);
        }
        if let Some(before) = filter.before {
            let entry = select.push(" AND (at_ms, id) < (SELECT at_ms, id FROM audit WHERE id = ");
            entry.push_bind(before).push(")");
        }
        select.push(if in_order {
            " ORDER BY id LIMIT "
        } else if follows {
            concat!(" ORDER BY ", $unindexed, "id LIMIT ")
        } else {
            " ORDER BY at_ms DESC, id DESC LIMIT "
        });
        select.push_bind(i64::from($limit));
        select
    }};
}

type Row = (
    i64,
    i64,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

fn audit_row(row: Row) -> AuditRow {
    let (
        id,
        at_ms,
        kind,
        request_id,
        user_id,
        key_id,
        key_alias,
        client,
        address,
        server,
        tool,
        outcome,
        status,
        flow,
        trace,
    ) = row;
    AuditRow {
        id,
        entry: AuditEntry {
            at_ms: time(at_ms),
            kind,
            request_id,
            user_id,
            key_id,
            key_alias,
            client,
            address,
            server,
            tool,
            outcome,
            status: status.and_then(|status| status.try_into().ok()),
            flow,
            trace,
        },
    }
}

impl Store {
    /// Appends entries in their order, all or none.
    pub async fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.begin().await?;
        for entries in entries.chunks(ROWS) {
            match &mut transaction {
                Transaction::Sqlite(within) => {
                    let mut insert = insert!(Sqlite, entries);
                    insert.build().persistent(false).execute(&mut **within).await?;
                }
                Transaction::Postgres(within) => {
                    let mut insert = insert!(Postgres, entries);
                    insert.build().persistent(false).execute(&mut **within).await?;
                }
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// At most `limit` entries, the newest first by their time; the next page has the last number of this one as its
    /// `before`. With `after` they come in the order of their numbers, which become visible in that order, whoever
    /// appends: the last number seen as the next `after` misses nothing.
    pub async fn audit(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let _turn = self
            .audit_reads
            .acquire()
            .await
            .map_err(|_| StoreError::Interrupted)?;
        let found: Vec<Row> = match &self.database {
            Database::Sqlite { reader, .. } => {
                let mut select = select!(Sqlite, "+", filter, limit);
                let select = select.build_query_as().persistent(false);
                select.fetch_all(reader).await?
            }
            Database::Postgres(pool) => {
                let mut select = select!(Postgres, "", filter, limit);
                let select = select.build_query_as().persistent(false);
                select.fetch_all(pool).await?
            }
        };
        Ok(found.into_iter().map(audit_row).collect())
    }

    /// Removes at most `limit` entries from before a time, the oldest first. Says how many.
    pub async fn prune_audit(&self, before_ms: u64, limit: u32) -> Result<u64, StoreError> {
        let sql = "DELETE FROM audit WHERE id IN \
             (SELECT id FROM audit WHERE at_ms < $1 ORDER BY at_ms, id LIMIT $2)";
        Ok(execute!(
            &self.database,
            sql,
            integer(before_ms),
            i64::from(limit)
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKeys;
    use crate::url::DatabaseUrl;
    use sqlx::Row as _;
    use std::collections::HashMap;
    use std::sync::Arc;
    use tokio::task::JoinSet;

    async fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::sqlite(&directory.path().join("audit.db"));
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let store = Store::open(&url, &keys).await.expect("opens");
        (directory, store)
    }

    async fn plan(store: &Store, filter: &AuditFilter) -> String {
        let Database::Sqlite { reader, .. } = &store.database else {
            panic!("a file");
        };
        let mut select = select!(Sqlite, "+", filter, 100_u32);
        let sql = format!(
            "EXPLAIN QUERY PLAN {}",
            sqlx::Execute::sql(select.build()).as_str()
        );
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(reader).await;
        let rows = rows.expect("a plan");
        let lines = rows.iter().map(|row| row.get::<String, _>("detail"));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn what_few_entries_have_in_common_is_found_by_its_index() {
        let (_directory, store) = store().await;
        let other = AuditFilter {
            user_id: Some("ada".to_owned()),
            server: Some("git".to_owned()),
            tool: Some("find".to_owned()),
            outcome: Some("ok".to_owned()),
            kinds: vec!["call".to_owned()],
            since_ms: Some(1),
            until_ms: Some(2),
            ..AuditFilter::default()
        };
        let by_key = AuditFilter {
            key_id: Some("k".to_owned()),
            ..other.clone()
        };
        let by_flow = AuditFilter {
            flow: Some("f".to_owned()),
            ..by_key.clone()
        };
        let by_request = AuditFilter {
            request_id: Some("r".to_owned()),
            ..by_flow.clone()
        };
        for (filter, index) in [
            (other, "audit_by_user "),
            (by_key, "audit_by_key "),
            (by_flow, "audit_by_flow "),
            (by_request, "audit_by_request "),
        ] {
            for (after, before) in [(None, None), (Some(0), None), (None, Some(9))] {
                let filter = AuditFilter {
                    before,
                    after,
                    ..filter.clone()
                };
                let plan = plan(&store, &filter).await;
                assert!(
                    plan.contains(&format!("SEARCH audit USING INDEX {index}")),
                    "{plan}"
                );
            }
        }
        for (kinds, outcome, index) in [
            (&["sign_in"][..], None, "INDEX audit_by_kind "),
            (&[], Some("key_blocked"), "INDEX audit_by_outcome "),
            (&["call"], Some("ok"), "INDEX audit_by_time"),
        ] {
            let filter = AuditFilter {
                kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
                outcome: outcome.map(str::to_owned),
                ..AuditFilter::default()
            };
            let plan = plan(&store, &filter).await;
            assert!(plan.contains(index), "{plan}");
        }
        let everything = AuditFilter {
            after: Some(0),
            server: Some("git".to_owned()),
            ..AuditFilter::default()
        };
        let plan = plan(&store, &everything).await;
        assert!(!plan.contains("B-TREE") && plan.contains("PRIMARY KEY"), "{plan}");
    }

    #[tokio::test]
    async fn revisions_do_not_wait_for_reads_of_the_audit() {
        let (_directory, store) = store().await;
        let store = Arc::new(store);
        let turns = store.audit_reads.acquire_many(u32::try_from(READS).expect("few"));
        let turns = turns.await.expect("turns");
        let mut reads = JoinSet::new();
        for _ in 0..50 {
            let store = Arc::clone(&store);
            reads.spawn(async move { store.audit(&AuditFilter::default(), 1).await });
        }
        tokio::task::yield_now().await;
        assert!(store.revisions().await.is_ok());
        assert!(reads.try_join_next().is_none(), "no read was without its turn");
        drop(turns);
        for read in reads.join_all().await {
            assert_eq!(read.expect("answers"), []);
        }
    }
}

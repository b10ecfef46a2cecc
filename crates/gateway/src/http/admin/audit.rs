//! The record of what happened, as it is read: by admins all of it, by everybody else what they did themselves. Pages
//! take [`page`] and [`of_request`]; the JSON API is around them.

use super::answer;
use super::api::{Answer, Input, Media, Operation, Who, written};
use crate::admission::{Admission, Principal};
use crate::app::Worker;
use crate::audit::{AuditView, Kind, Turn, note};
use crate::http::router::id_of;
use crate::web::body as web;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::routing::get;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use url::form_urlencoded;
use vestibule_store::{AuditFilter, AuditRow, StoreError};

/// Rows of a page, where nobody says how many, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 500;
/// Rows that an export has in memory at once.
const EXPORTED: u32 = 500;
/// Rows of one request that are shown: an endpoint with several servers has one for each.
const OF_ONE: u32 = 100;

/// The operations, and who may ask for them.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::by_hand::<Parameters, Listed>(
            Method::GET,
            "/v1/audit",
            Who::AnyKey,
            "What happened, the newest first. Admins read everything, others their own rows with mine=true.",
            get(list),
        ),
        Operation::by_hand::<Parameters, AuditView>(
            Method::GET,
            "/v1/audit/export",
            Who::AnyKey,
            "The same as JSON lines, the oldest first.",
            get(export),
        ),
        Operation::by_hand::<Mine, OfOne>(
            Method::GET,
            "/v1/audit/{request_id}",
            Who::AnyKey,
            "What became of one request.",
            get(show),
        ),
    ]
}

/// The parameters that [`Query::parse`] reads, described.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it is there to be described")]
struct Parameters {
    /// `call`, `sign_in`, `change`, `refusal` and `lost`, with commas between them.
    kind: Option<String>,
    user_id: Option<String>,
    key_id: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    outcome: Option<String>,
    /// Of this sign-in.
    flow: Option<String>,
    request_id: Option<String>,
    /// From this time on, in RFC 3339.
    since: Option<String>,
    /// Up to this time, in RFC 3339.
    until: Option<String>,
    /// Older than the row with this number.
    before: Option<i64>,
    /// Newer than the row with this number, the oldest first.
    after: Option<i64>,
    /// Rows of a page, 1 to 500; not for exports.
    limit: Option<u32>,
    /// The caller's own rows alone.
    mine: Option<bool>,
}

impl Input for Parameters {}

/// The one parameter beside the path.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it is there to be described")]
struct Mine {
    /// The caller's own rows alone.
    mine: Option<bool>,
}

impl Input for Mine {}

/// A page, as the API writes it.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    entries: Vec<AuditView>,
    /// The `before` of the page behind this one, if there is one.
    next: Option<i64>,
    /// Rows that could not be kept, since the start.
    lost: u64,
}

impl Answer for Listed {}
impl Answer for AuditView {
    const MEDIA: Media = Media::JsonLines;
}

/// The rows of one request.
#[derive(Debug, Serialize, JsonSchema)]
struct OfOne {
    /// The oldest first.
    entries: Vec<AuditView>,
}

impl Answer for OfOne {}

/// Whose rows somebody may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everybody's.
    All,
    /// A person's.
    User(String),
    /// Those of a key that is nobody's, or for some servers alone.
    Key {
        /// Its id.
        id: String,
        /// Whose it is.
        user: Option<String>,
    },
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Which rows.
    pub(crate) filter: AuditFilter,
    /// How many; [`PAGE`] when nothing is said.
    pub(crate) limit: Option<u32>,
    /// Only the caller's own, whoever the caller is.
    pub(crate) mine: bool,
}

/// Some rows.
#[derive(Debug)]
pub(crate) struct Page {
    /// The newest first; with `after`, the oldest first.
    pub(crate) entries: Vec<AuditView>,
    /// The `before` of the page behind this one, if there is one.
    pub(crate) next: Option<i64>,
}

impl Scope {
    /// What the caller may read; `mine` is for those who may read more than they want.
    ///
    /// # Errors
    /// [`ErrorCode::AdminRequired`] for whoever is nobody in particular, and for those who ask for more than is theirs.
    pub(crate) fn of(admission: &Admission, mine: bool) -> Result<Self, Refusal> {
        if !mine {
            return super::manager(admission).map(|_| Self::All);
        }
        match (&admission.principal, admission.user()) {
            (Principal::Key(key), user) if user.is_none() || key.is_narrowed() => Ok(Self::Key {
                id: key.id.clone(),
                user: user.map(|user| user.as_str().to_owned()),
            }),
            (_, Some(user)) => Ok(Self::User(user.as_str().to_owned())),
            _ => Err(Refusal::because(
                ErrorCode::NoPerson,
                "The caller is nobody in particular, so no rows are the caller's own.",
            )),
        }
    }

    /// The filter that finds nothing else. `None` where it asks for somebody else's.
    fn narrow(&self, mut filter: AuditFilter) -> Option<AuditFilter> {
        let (place, own) = match self {
            Self::All => return Some(filter),
            Self::User(user) => (&mut filter.user_id, user),
            Self::Key { user: Some(user), .. }
                if filter.user_id.as_ref().is_some_and(|asked| asked != user) =>
            {
                return None;
            }
            Self::Key { id, .. } => (&mut filter.key_id, id),
        };
        if place.as_ref().is_some_and(|asked| asked != own) {
            return None;
        }
        *place = Some(own.clone());
        Some(filter)
    }
}

/// Somebody whose turn it is to read.
pub(crate) struct Reader {
    scope: Scope,
    turn: Turn,
}

impl Reader {
    /// Whose turn it is now.
    ///
    /// # Errors
    /// [`ErrorCode::AuditBusy`] for who reads already.
    pub(crate) fn now(worker: &Worker, principal: &Principal, scope: Scope) -> Result<Self, Refusal> {
        let turn = worker.app.audit.reads().begin(principal.id())?;
        Ok(Self { scope, turn })
    }

    /// Whose turn it is as soon as their read under way is over.
    ///
    /// # Errors
    /// [`ErrorCode::AuditBusy`] where that takes long.
    pub(crate) async fn soon(worker: &Worker, principal: &Principal, scope: Scope) -> Result<Self, Refusal> {
        let turn = worker.app.audit.reads().soon(principal.id()).await?;
        Ok(Self { scope, turn })
    }

    async fn rows(&self, worker: &Worker, filter: AuditFilter, limit: u32) -> Result<Vec<AuditRow>, Refusal> {
        let turn = self.turn.clone();
        let found = worker.live.on_store(move |store| async move {
            // What has begun goes on when the caller hangs up, and is theirs until it ends.
            let _turn = turn;
            store.audit(&filter, limit).await
        });
        found.await.map_err(|error| unavailable(&error))
    }
}

impl Query {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// [`ErrorCode::BadQuery`], with the parameter's name.
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut read = Self::default();
        let mut seen = HashSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !seen.insert(name.clone().into_owned()) {
                return Err(bad(&name, "stands several times"));
            }
            if !value.is_empty() {
                read.take(&name, &value)?;
            }
        }
        Ok(read)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let filter = &mut self.filter;
        let text = Some(value.to_owned());
        match name {
            "kind" => filter.kinds = kinds(value)?,
            "user_id" => filter.user_id = text,
            "key_id" => filter.key_id = text,
            "server" => filter.server = text,
            "tool" => filter.tool = text,
            "outcome" => filter.outcome = text,
            "flow" => filter.flow = text,
            "request_id" => filter.request_id = text,
            "since" => filter.since_ms = Some(moment(name, value)?),
            "until" => filter.until_ms = Some(moment(name, value)?),
            "before" => filter.before = Some(number(name, value)?),
            "after" => filter.after = Some(number(name, value)?),
            "limit" => {
                let limit = number(name, value)?;
                let limit = u32::try_from(limit).ok();
                let limit = limit.filter(|limit| (1..=LARGEST_PAGE).contains(limit));
                self.limit = Some(limit.ok_or_else(|| bad(name, "takes a number from 1 to 500"))?);
            }
            "mine" => {
                self.mine = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(bad(name, "takes true or false")),
                }
            }
            _ => return Err(bad(name, "is unknown")),
        }
        Ok(())
    }
}

fn kinds(value: &str) -> Result<Vec<String>, Refusal> {
    let known = |name: &str| Kind::named(name).map(|kind| kind.name().to_owned());
    let kinds: Option<Vec<String>> = value.split(',').map(known).collect();
    kinds.ok_or_else(|| {
        bad(
            "kind",
            "takes call, sign_in, change, refusal and lost, with commas between them",
        )
    })
}

fn moment(name: &str, value: &str) -> Result<u64, Refusal> {
    let at = value.parse::<Timestamp>().ok();
    let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.ok_or_else(|| bad(name, "takes a time like 2026-01-31T12:00:00Z"))
}

fn number(name: &str, value: &str) -> Result<i64, Refusal> {
    value.parse().map_err(|_| bad(name, "takes a number"))
}

fn bad(name: &str, why: &str) -> Refusal {
    let name = shown(name, 60);
    Refusal::because(ErrorCode::BadQuery, format!("The parameter {name} {why}."))
}

/// Rows that `reader` may see.
pub(crate) async fn page(worker: &Worker, reader: &Reader, query: &Query) -> Result<Page, Refusal> {
    let limit = query.limit.unwrap_or(PAGE);
    let ascending = query.filter.after.is_some();
    let Some(filter) = reader.scope.narrow(query.filter.clone()) else {
        return Err(Refusal::because(
            ErrorCode::AdminRequired,
            "Other people's rows are for admins of the gateway.",
        ));
    };
    // One more than is wanted says whether there are more.
    let mut rows = reader.rows(worker, filter, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().map(|row| row.id).filter(|_| is_more && !ascending);
    Ok(Page {
        entries: rows.into_iter().map(AuditView::from).collect(),
        next,
    })
}

/// Every row of one request, the oldest first.
pub(crate) async fn of_request(
    worker: &Worker,
    reader: &Reader,
    request_id: &str,
) -> Result<Vec<AuditView>, Refusal> {
    let filter = AuditFilter {
        request_id: Some(request_id.to_owned()),
        after: Some(0),
        ..AuditFilter::default()
    };
    let Some(filter) = reader.scope.narrow(filter) else {
        return Ok(Vec::new());
    };
    let rows = reader.rows(worker, filter, OF_ONE).await?;
    Ok(rows.into_iter().map(AuditView::from).collect())
}

fn unavailable(error: &StoreError) -> Refusal {
    if matches!(error, StoreError::Absent) {
        let message = "Nothing is recorded: without a master key the gateway keeps nothing.";
        return Refusal::because(ErrorCode::StoreUnavailable, message);
    }
    tracing::error!(%error, "the store failed");
    Refusal::new(ErrorCode::StoreUnavailable)
}

/// The caller, whose turn it is, and what is asked for.
fn asked(worker: &Worker, parts: &Parts) -> Result<(Principal, Reader, Query), Refusal> {
    let admission = worker.app.gate.admit(&parts.headers)?;
    note::admitted(&worker.app, &admission);
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let scope = Scope::of(&admission, query.mine)?;
    let reader = Reader::now(worker, &admission.principal, scope)?;
    Ok((admission.principal, reader, query))
}

/// `GET /v1/audit`: a page of rows.
pub(crate) async fn list(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let (_, reader, query) = asked(&worker, &parts)?;
        let page = page(&worker, &reader, &query).await?;
        written(&Listed {
            entries: page.entries,
            next: page.next,
            lost: worker.app.audit.lost(),
        })
    };
    answer(&worker, result.await, id)
}

/// `GET /v1/audit/{request_id}`: what became of one request.
pub(crate) async fn show(
    State(worker): State<Arc<Worker>>,
    Path(request_id): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let (_, reader, query) = asked(&worker, &parts)?;
        let plain = Query {
            mine: query.mine,
            ..Query::default()
        };
        if query != plain {
            return Err(Refusal::because(
                ErrorCode::BadQuery,
                "One request has no other parameter than mine.",
            ));
        }
        let entries = of_request(&worker, &reader, &request_id).await?;
        if entries.is_empty() {
            return Err(Refusal::new(ErrorCode::NoSuchEntry));
        }
        written(&OfOne { entries })
    };
    answer(&worker, result.await, id)
}

/// `GET /v1/audit/export`: rows as JSON lines, the oldest first, as many as there are when they are read.
pub(crate) async fn export(State(worker): State<Arc<Worker>>, request: Request<Body>) -> Response<Body> {
    let id = id_of(&request, &worker);
    let (parts, _) = request.into_parts();
    let result = async {
        let (principal, reader, query) = asked(&worker, &parts)?;
        exported_by(&worker, &principal, reader, query).await
    };
    match result.await {
        Ok(response) => response,
        Err(refusal) => worker.refuse(refusal, None, id).into_plain(id).map(Body::new),
    }
}

/// Rows that `reader` may see as JSON lines, the oldest first. It breaks off when `principal` counts no longer.
pub(crate) async fn exported_by(
    worker: &Arc<Worker>,
    principal: &Principal,
    reader: Reader,
    query: Query,
) -> Result<Response<Body>, Refusal> {
    if query.limit.is_some() {
        return Err(bad("limit", "is not for exports; say since and until"));
    }
    let filter = reader.scope.narrow(query.filter).ok_or_else(|| {
        Refusal::because(
            ErrorCode::AdminRequired,
            "Other people's rows are for admins of the gateway.",
        )
    })?;
    let from = filter.after.unwrap_or(0);
    // Before the head, so that a store that does not answer is a refusal and not an empty file.
    let first = exported(worker, &reader, &filter, from).await?;
    let over = worker.app.gate.over(principal, worker.app.clock.unix_seconds());
    let worker = Arc::clone(worker);
    // The reader goes with the last part, before the client has it.
    let lines = stream::try_unfold(Some((first, reader)), move |part| {
        let (worker, filter) = (Arc::clone(&worker), filter.clone());
        async move {
            let Some((Part { lines, next }, reader)) = part else {
                return Ok(None);
            };
            let part = match next {
                None => None,
                Some(next) => {
                    let part = exported(&worker, &reader, &filter, next).await;
                    let part = part.map_err(|refusal| io::Error::other(refusal.message))?;
                    Some((part, reader))
                }
            };
            Ok::<_, io::Error>(Some((lines, part)))
        }
    });
    let mut response = Response::new(cut(Body::from_stream(lines), over));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/jsonl; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"audit.jsonl\"",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The same body, which breaks off when `over` resolves.
fn cut(body: Body, over: impl Future<Output = ()> + Send + 'static) -> Body {
    let mut body = web::Body::frames(body.map_err(io::Error::other));
    body.cut_at(over);
    Body::new(body)
}

/// Some lines of an export.
struct Part {
    lines: Bytes,
    /// The `after` of the lines behind these.
    next: Option<i64>,
}

async fn exported(
    worker: &Worker,
    reader: &Reader,
    filter: &AuditFilter,
    after: i64,
) -> Result<Part, Refusal> {
    let filter = AuditFilter {
        after: Some(after),
        ..filter.clone()
    };
    let rows = reader.rows(worker, filter, EXPORTED).await?;
    let last = rows.last().map(|row| row.id);
    let next = last.filter(|_| rows.len() == EXPORTED as usize);
    let mut lines = String::new();
    for row in rows {
        let view = AuditView::from(row);
        lines.push_str(&serde_json::to_string(&view).map_err(|_| Refusal::new(ErrorCode::Internal))?);
        lines.push('\n');
    }
    Ok(Part {
        lines: lines.into(),
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn an_export_breaks_off_when_its_key_is_over() {
        let lines = || Body::from("{}");
        let whole = cut(lines(), pending()).collect().await.expect("whole");
        assert_eq!(whole.to_bytes(), "{}");
        assert!(cut(lines(), ready(())).collect().await.is_err());
    }

    #[test]
    fn a_query_is_read_whole_or_refused_by_name() {
        let read =
            Query::parse("kind=call,sign_in&server=a&since=1970-01-01T00:00:01Z&limit=5&after=7&mine=true");
        let read = read.expect("read");
        assert_eq!(read.filter.kinds, ["call", "sign_in"]);
        assert_eq!((read.filter.since_ms, read.filter.after), (Some(1000), Some(7)));
        assert_eq!((read.limit, read.mine), (Some(5), true));
        for (query, name) in [
            ("colour=red", "colour"),
            ("kind=call,none", "kind"),
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("since=yesterday", "since"),
            ("before=x", "before"),
            ("mine=1", "mine"),
            ("server=a&server=b", "server"),
        ] {
            let refusal = Query::parse(query).expect_err("refused");
            assert_eq!(refusal.code, ErrorCode::BadQuery);
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
    }

    #[test]
    fn nobody_widens_what_is_theirs() {
        let scope = Scope::User("ann".into());
        let other = AuditFilter {
            user_id: Some("bob".into()),
            ..AuditFilter::default()
        };
        assert_eq!(scope.narrow(other), None);
        let own = scope.narrow(AuditFilter::default()).expect("theirs");
        assert_eq!(own.user_id.as_deref(), Some("ann"));
        let key = |user: &str| Scope::Key {
            id: "k".into(),
            user: Some(user.into()),
        };
        assert_eq!(key("bob").narrow(own.clone()), None);
        let key = key("ann").narrow(own).expect("theirs");
        assert_eq!(
            (key.user_id.as_deref(), key.key_id.as_deref()),
            (Some("ann"), Some("k"))
        );
    }
}

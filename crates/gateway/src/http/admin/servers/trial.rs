//! Servers before they are saved: one that is there for five minutes, by its id and for whoever manages the gateway
//! alone, so that somebody can sign in to it; and one that is there for a single look and written nowhere.

use super::view::{Eyes, Record, ServerView, flaws};
use super::{
    Result, changeable, document_of, entry, invalid, judge, judged, random_hex, record, refused, server_id,
};
use crate::app::Worker;
use crate::audit::Actor;
use crate::config::{Change, Changed, Document, StoredEntry};
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Flaw, Refusal};
use serde_json::{Map, Value};
use std::sync::Arc;

/// How long a server that is tried is there, in seconds.
const LIFE: u64 = 300;
/// As much of a name stands in that of a trial.
const NAME: usize = 40;

/// Begins to try a server.
///
/// # Errors
/// [`ErrorCode::InvalidServer`] with everything that is wrong with it.
pub(crate) async fn begin(
    worker: &Worker,
    actor: &Actor,
    body: Map<String, Value>,
    id: RequestId,
) -> Result<ServerView> {
    let now = worker.app.clock.unix_seconds();
    let tried = prepared(worker, body, now + LIFE).await?;
    judge(worker, &tried.entry, &tried.dropped).await?;
    let added = server_id(&tried.entry.id)?;
    let record = record(&tried.entry, added.clone(), actor);
    let put = worker
        .live
        .on_store(move |store| async move { store.put_server(&record, now).await });
    put.await.map_err(refused)?;
    worker.app.audit.changed(actor, "server.try", added.as_str(), id);
    worker.live.look().await.map_err(refused)?;
    let app = worker.live.app();
    let server = app.registry.by_id(added.as_str());
    let server = server.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))?;
    let mut view = ServerView::of(server, Record::Known(server.provenance), Eyes::Manager, now);
    view.dropped_secrets = tried.dropped;
    view.expires_at = Some(now + LIFE);
    Ok(view)
}

/// A server that nobody else sees, with a worker that knows it. Over when dropped.
pub(crate) struct Preview {
    /// The worker.
    pub(crate) worker: Arc<Worker>,
    /// The server.
    pub(crate) server: Arc<Server>,
}

impl Drop for Preview {
    fn drop(&mut self) {
        if let Some(bridge) = &self.server.bridged {
            bridge.end_all();
        }
    }
}

/// The server that `body` describes, as it would be.
///
/// # Errors
/// [`ErrorCode::InvalidServer`] with everything that is wrong with it.
pub(crate) async fn preview(worker: &Worker, body: Map<String, Value>) -> Result<Preview> {
    let tried = prepared(worker, body, 0).await?;
    let settings = judged(worker, &tried.entry, &tried.dropped).await?;
    let unusable = |why: String| {
        invalid(&[Flaw {
            field: String::new(),
            message: why,
        }])
    };
    let app = worker
        .app
        .next(settings)
        .map_err(|error| unusable(error.to_string()))?;
    let server = app.registry.by_id(&tried.entry.id).cloned();
    Ok(Preview {
        server: server.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))?,
        worker: Arc::new(worker.next(Arc::new(app))),
    })
}

/// A server to be tried, under an id that nobody can guess.
struct Tried {
    entry: StoredEntry,
    dropped: Vec<String>,
}

/// What `body` describes; of the saved server that it names, what it leaves out.
async fn prepared(worker: &Worker, body: Map<String, Value>, expires_at: u64) -> Result<Tried> {
    changeable(worker)?;
    let mut change = Change::read(body).map_err(|problems| invalid(&flaws(&problems, "")))?;
    let (saved, saved_name) = match &change.id {
        Some(id) => saved(worker, id).await?,
        None => (Document::new(), None),
    };
    let name = change.name_or_alias().map(str::to_owned).or(saved_name);
    let name: String = name.as_deref().unwrap_or("trial").chars().take(NAME).collect();
    // Under no name and in no group, it can take neither from anybody.
    change.without(&["alias", "access_groups"]);
    let changed = change.applied_to(&saved);
    let Changed {
        mut document,
        dropped,
        ..
    } = changed.map_err(|problems| invalid(&flaws(&problems, "")))?;
    document.remove("alias");
    document.remove("access_groups");
    let name = format!("{name}.{}", &random_hex()?[..16]);
    Ok(Tried {
        entry: entry(&server_id(&random_hex()?)?, &name, &document, Some(expires_at)),
        dropped,
    })
}

/// What is kept of the server that is tried anew. Of one of the file, which is not kept, nothing.
async fn saved(worker: &Worker, id: &str) -> Result<(Document, Option<String>)> {
    if worker.app.store.is_none() {
        return Ok((Document::new(), None));
    }
    let id = server_id(id)?;
    let found = worker
        .live
        .on_store(move |store| async move { store.server(&id).await });
    match found.await.map_err(refused)? {
        Some(row) => Ok((document_of(&row)?, Some(row.name))),
        None => Ok((Document::new(), None)),
    }
}

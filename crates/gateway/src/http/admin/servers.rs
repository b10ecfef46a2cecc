//! Servers at run time: listed, added, changed and deleted. What is in the database can be changed, what is in the
//! configuration file cannot.

pub(crate) mod api;
pub(crate) mod health;
pub(crate) mod people;
pub(crate) mod trial;
pub(crate) mod view;

use crate::admission::Admission;
use crate::app::{App, Worker};
use crate::audit::Actor;
use crate::config::{Change, Document, Problem, Settings, Severity, StoredEntry};
use crate::credentials::person::Farewell;
use crate::ids::RequestId;
use crate::policy::access;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Flaw, Refusal};
use aws_lc_rs::rand;
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use vestibule_store::{ServerId, ServerRecord, StoreError, StoredServer, Unique, Version};
use view::{Eyes, Record, ServerView, flaws, row};

/// What stands where ids do in paths of the management API.
const PATHS: [&str; 5] = ["health", "oauth", "register", "submissions", "import"];

type Result<T> = std::result::Result<T, Refusal>;

/// Who asks to see servers, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// Who.
    pub(crate) admission: &'a Admission,
    /// The request's headers, in which its address may stand.
    pub(crate) headers: &'a HeaderMap,
    /// Whom the connection is from.
    pub(crate) peer: IpAddr,
}

/// The servers that the asker may see: for whoever manages the gateway all of them, those too that cannot be served.
pub(crate) async fn list(worker: &Worker, asker: Asker<'_>) -> Result<Vec<ServerView>> {
    let eyes = Eyes::of(asker.admission);
    let rows = match eyes {
        Eyes::Manager => rows(worker).await?,
        Eyes::Member | Eyes::Narrow => Vec::new(),
    };
    let app = worker.live.app();
    let now = app.clock.unix_seconds();
    let seen = servers_for(&app, asker, eyes);
    let view = |server: &Arc<Server>| {
        let known = || Record::Known(app.registry.provenance(server));
        let record = row(&rows, &server.store_id).map_or_else(known, Record::Row);
        ServerView::of(server, record, eyes, now)
    };
    let mut views: Vec<_> = seen.iter().map(view).collect();
    if eyes == Eyes::Manager {
        let unserved = rows
            .iter()
            .filter(|row| app.registry.by_id(row.id.as_str()).is_none());
        views.extend(unserved.map(|row| left_out(worker, row)));
    }
    Ok(views)
}

/// One server, by id or name, looked at now.
///
/// # Errors
/// [`ErrorCode::ServerNotFound`], and [`ErrorCode::ServerNotAllowed`] for whoever may not use it.
pub(crate) async fn get(worker: &Arc<Worker>, asker: Asker<'_>, id: &str) -> Result<ServerView> {
    let (mut view, server) = find(worker, asker, id).await?;
    if let Some(server) = server {
        view.health = Some(health::look(worker, &server).await);
    }
    Ok(view)
}

/// [`get`] without a look at the server, and the server as it is served; `None` for one that cannot be.
///
/// # Errors
/// See there.
pub(crate) async fn find(
    worker: &Worker,
    asker: Asker<'_>,
    id: &str,
) -> Result<(ServerView, Option<Arc<Server>>)> {
    let eyes = Eyes::of(asker.admission);
    let app = worker.live.app();
    let now = app.clock.unix_seconds();
    let server = server_for(&app, asker, eyes, id)?;
    if eyes != Eyes::Manager {
        let server = server.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))?;
        let record = Record::Known(app.registry.provenance(&server));
        return Ok((ServerView::of(&server, record, eyes, now), Some(server)));
    }
    let stored = server
        .as_ref()
        .map_or_else(|| ServerId::new(id).ok(), |server| Some(server.store_id.clone()));
    let row = match stored {
        Some(id) => row_of(worker, id).await?,
        None => None,
    };
    match (server, row) {
        (Some(server), row) => {
            let known = || Record::Known(app.registry.provenance(&server));
            let record = row.as_ref().map_or_else(known, Record::Row);
            Ok((ServerView::of(&server, record, eyes, now), Some(server)))
        }
        (None, Some(row)) => Ok((left_out(worker, &row), None)),
        (None, None) => Err(Refusal::new(ErrorCode::ServerNotFound)),
    }
}

/// Adds a server.
///
/// # Errors
/// [`ErrorCode::InvalidServer`] with everything that is wrong with it, [`ErrorCode::ServersFixed`] where none may be
/// added.
pub(crate) async fn create(
    worker: &Worker,
    actor: &Actor,
    body: Map<String, Value>,
    id: RequestId,
) -> Result<ServerView> {
    changeable(worker)?;
    let change = Change::read(body).map_err(|problems| invalid(&flaws(&problems, "")))?;
    let nameless = || Flaw {
        field: "server_name".into(),
        message: "is missing".into(),
    };
    let name = change
        .name_or_alias()
        .ok_or_else(|| invalid(&[nameless()]))?
        .to_owned();
    let server_id = match &change.id {
        Some(given) => chosen_id(given)?,
        None => server_id(&random_hex()?)?,
    };
    let document = change.applied_to(&Document::new());
    let document = document
        .map_err(|problems| invalid(&flaws(&problems, "")))?
        .document;
    let entry = entry(&server_id, &name, &document, None);
    judge(worker, &entry, &[]).await?;
    let record = record(&entry, server_id.clone(), actor);
    let now = worker.app.clock.unix_seconds();
    let added = worker
        .live
        .on_store(move |store| async move { store.put_server(&record, now).await });
    added.await.map_err(refused)?;
    done(worker, actor, "server.create", &server_id, id).await
}

/// Changes a server: what the body leaves out stays. `version` is the writing that the change goes out from, where the
/// body does not say.
///
/// # Errors
/// [`ErrorCode::ServerChanged`] when that is not the last one, [`ErrorCode::ServerReadOnly`] for a server of the file,
/// [`ErrorCode::InvalidServer`] with everything that would be wrong.
pub(crate) async fn update(
    worker: &Worker,
    actor: &Actor,
    body: Map<String, Value>,
    version: Option<i64>,
    id: RequestId,
) -> Result<ServerView> {
    let change = Change::read(body).map_err(|problems| invalid(&flaws(&problems, "")))?;
    let nameless = || Flaw {
        field: "server_id".into(),
        message: "is missing".into(),
    };
    let given = change.id.as_deref().ok_or_else(|| invalid(&[nameless()]))?;
    let row = stored(worker, given).await?;
    let wanted = change.version.or(version);
    if wanted.is_some_and(|wanted| wanted != row.version.to_number()) {
        return Err(Refusal::new(ErrorCode::ServerChanged));
    }
    let before = document_of(&row)?;
    let changed = change.applied_to(&before);
    let changed = changed.map_err(|problems| invalid(&flaws(&problems, "")))?;
    let name = change.name.clone().unwrap_or_else(|| row.name.clone());
    let entry = entry(&row.id, &name, &changed.document, None);
    judge(worker, &entry, &changed.dropped).await?;
    let farewell = if changed.moved {
        farewell(worker, &row.id).await?
    } else {
        None
    };
    let record = record(&entry, row.id.clone(), actor);
    let (now, moved, before) = (worker.app.clock.unix_seconds(), changed.moved, row.version);
    let written = worker.live.on_store(move |store| async move {
        if moved {
            store.move_server(&record, before, now).await
        } else {
            store.update_server(&record, before, now).await
        }
    });
    let written: Option<Version> = written.await.map_err(refused)?;
    written.ok_or_else(|| Refusal::new(ErrorCode::ServerChanged))?;
    let mut view = done(worker, actor, "server.update", &row.id, id).await?;
    view.dropped_secrets = changed.dropped;
    if let Some(farewell) = farewell {
        farewell.say();
    }
    Ok(view)
}

/// Deletes a server with what people signed in for, which is revoked where that is offered.
///
/// # Errors
/// [`ErrorCode::ServerReadOnly`] for a server of the file.
pub(crate) async fn delete(worker: &Worker, actor: &Actor, server_id: &str, id: RequestId) -> Result<()> {
    let row = stored(worker, server_id).await?;
    let farewell = farewell(worker, &row.id).await?;
    let gone = row.id.clone();
    let deleted = worker
        .live
        .on_store(move |store| async move { store.delete_server(&gone).await });
    if !deleted.await.map_err(refused)? {
        return Err(Refusal::new(ErrorCode::ServerNotFound));
    }
    worker.live.look().await.map_err(refused)?;
    worker
        .app
        .audit
        .changed(actor, "server.delete", row.id.as_str(), id);
    if let Some(farewell) = farewell {
        farewell.say();
    }
    Ok(())
}

/// The servers that `asker` sees.
pub(crate) fn servers_for(app: &App, asker: Asker<'_>, eyes: Eyes) -> Vec<Arc<Server>> {
    let all = app.registry.all().iter();
    if eyes == Eyes::Manager {
        let kept = all.filter(|server| !server.provenance.is_trial());
        return kept.cloned().collect();
    }
    let view = app.servers_for(asker.headers, asker.peer);
    view.servers_of(asker.admission).into_iter().cloned().collect()
}

/// The server with this id or name, for `asker`.
pub(crate) fn server_for(app: &App, asker: Asker<'_>, eyes: Eyes, id: &str) -> Result<Option<Arc<Server>>> {
    if eyes == Eyes::Manager {
        return Ok(for_manager(app, id));
    }
    let Some(server) = app.servers_for(asker.headers, asker.peer).by_id_or_name(id) else {
        return Ok(None);
    };
    access::permit(asker.admission, server)?;
    Ok(Some(Arc::clone(server)))
}

/// The server with this id or name, wherever whoever manages the gateway is.
fn for_manager(app: &App, id: &str) -> Option<Arc<Server>> {
    let by_id = app.registry.by_id(id);
    let found = by_id.or_else(|| app.registry.all().iter().find(|server| server.goes_by(id)));
    found.filter(|server| !server.provenance.is_trial()).cloned()
}

/// What the store has, without what is only tried.
async fn rows(worker: &Worker) -> Result<Vec<StoredServer>> {
    if worker.app.store.is_none() || !worker.live.app().management.stored_servers {
        return Ok(Vec::new());
    }
    let found = worker.live.on_store(|store| async move { store.servers().await });
    let mut rows = found.await.map_err(refused)?;
    rows.retain(|row| row.expires_at.is_none());
    Ok(rows)
}

/// The store's row of a server that is not only tried.
async fn row_of(worker: &Worker, id: ServerId) -> Result<Option<StoredServer>> {
    if worker.app.store.is_none() || !worker.live.app().management.stored_servers {
        return Ok(None);
    }
    let found = worker
        .live
        .on_store(move |store| async move { store.server(&id).await });
    let row = found.await.map_err(refused)?;
    Ok(row.filter(|row| row.expires_at.is_none()))
}

/// The row of a server that can be changed.
async fn stored(worker: &Worker, id: &str) -> Result<StoredServer> {
    changeable(worker)?;
    let app = worker.live.app();
    if let Some(server) = app.registry.by_id(id)
        && view::Source::of(server.provenance) == view::Source::File
    {
        let file = worker
            .live
            .file_name()
            .unwrap_or_else(|| "the configuration file".into());
        let message = format!(
            "The MCP server {} is configured in {file}, as mcp_servers.{}.",
            server.name, server.name
        );
        return Err(Refusal::because(ErrorCode::ServerReadOnly, message));
    }
    let row = row_of(worker, server_id(id)?).await?;
    row.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))
}

/// Whether the operator lets servers be changed at run time.
fn changeable(worker: &Worker) -> Result<()> {
    if worker.live.app().management.stored_servers {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::ServersFixed))
    }
}

fn left_out(worker: &Worker, row: &StoredServer) -> ServerView {
    let status = worker.live.status();
    let found = status.left_out.iter().find(|left| left.id == row.id.as_str());
    ServerView::left_out(row, found)
}

fn document_of(row: &StoredServer) -> Result<Document> {
    let Ok(document) = &row.document else {
        return Err(Refusal::new(ErrorCode::ServerSealed));
    };
    Ok(serde_json::from_slice(document.expose_secret()).unwrap_or_default())
}

/// Refuses an entry that could not be served. `dropped` are secrets that are not taken along to where it goes now.
async fn judge(worker: &Worker, entry: &StoredEntry, dropped: &[String]) -> Result<()> {
    judged(worker, entry, dropped).await.map(drop)
}

/// The whole configuration with this entry in it, if it can be served.
async fn judged(worker: &Worker, entry: &StoredEntry, dropped: &[String]) -> Result<Settings> {
    let (id, added) = (entry.id.clone(), entry.clone());
    let judged = worker.live.judged_with(|entries| {
        entries.retain(|entry| entry.id != added.id);
        // At the end: where names clash, those that are there already keep theirs.
        entries.push(added);
    });
    let loaded = judged.await;
    let Some(left_out) = loaded.left_out.into_iter().find(|left| left.id == id) else {
        return loaded.settings.ok_or_else(|| Refusal::new(ErrorCode::Internal));
    };
    let mut found = flaws(&errors(left_out.problems), &entry.name);
    if !dropped.is_empty() {
        found.push(Flaw {
            field: dropped[0].clone(),
            message: format!(
                "kept secrets do not follow a server to another place: send {} again, or null",
                dropped.join(", ")
            ),
        });
    }
    Err(invalid(&found))
}

fn errors(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.retain(|problem| problem.severity == Severity::Error);
    problems
}

/// Everything that is wrong with what was sent; the first of it in the sentence.
pub(crate) fn invalid(flaws: &[Flaw]) -> Refusal {
    let message = match flaws {
        [] => ErrorCode::InvalidServer.meaning().to_owned(),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let field = if first.field.is_empty() {
                String::new()
            } else {
                format!("{}: ", first.field)
            };
            format!(
                "The MCP server cannot be configured so: {field}{}{more}.",
                first.message
            )
        }
    };
    let mut refusal = Refusal::because(ErrorCode::InvalidServer, message);
    refusal.flaws = flaws.into();
    refusal
}

fn entry(id: &ServerId, name: &str, document: &Document, expires_at: Option<u64>) -> StoredEntry {
    let document = Value::Object(document.clone()).to_string();
    StoredEntry {
        id: id.as_str().to_owned(),
        name: name.to_owned(),
        document: SecretString::from(document),
        version: Version::from_number(0),
        created_at: 0,
        updated_at: 0,
        expires_at,
    }
}

fn record(entry: &StoredEntry, id: ServerId, actor: &Actor) -> ServerRecord {
    let document = entry.document.expose_secret().as_bytes().to_vec();
    ServerRecord {
        id,
        name: entry.name.clone(),
        document: SecretSlice::from(document),
        by: Some(actor.user.clone().unwrap_or_else(|| actor.name.clone())),
        expires_at: entry.expires_at,
    }
}

/// Makes what was written count, and shows it.
async fn done(
    worker: &Worker,
    actor: &Actor,
    what: &str,
    server: &ServerId,
    id: RequestId,
) -> Result<ServerView> {
    worker.app.audit.changed(actor, what, server.as_str(), id);
    worker.live.look().await.map_err(refused)?;
    let row = row_of(worker, server.clone()).await?;
    let row = row.ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))?;
    let app = worker.live.app();
    let now = app.clock.unix_seconds();
    Ok(match app.registry.by_id(server.as_str()) {
        Some(server) => ServerView::of(server, Record::Row(&row), Eyes::Manager, now),
        None => left_out(worker, &row),
    })
}

async fn farewell(worker: &Worker, id: &ServerId) -> Result<Option<Farewell>> {
    let app = worker.live.app();
    let Some(server) = app.registry.by_id(id.as_str()) else {
        return Ok(None);
    };
    let (Some(sign_in), Some(people)) = (server.sign_in(), &app.people) else {
        return Ok(None);
    };
    people
        .persons
        .farewell(server, sign_in)
        .await
        .map(Some)
        .map_err(refused)
}

fn server_id(text: &str) -> Result<ServerId> {
    ServerId::new(text).map_err(|invalid_id| {
        invalid(&[Flaw {
            field: "server_id".into(),
            message: invalid_id.to_string(),
        }])
    })
}

/// An id that whoever adds a server chose: it has to stand in a path, and mean the server there.
fn chosen_id(text: &str) -> Result<ServerId> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let message = if PATHS.contains(&text) {
        "is a path of the management API; choose another"
    } else if text.len() > 128 || text.starts_with('.') || !text.chars().all(fits) {
        "takes 1 to 128 letters, digits, '_', '-', '.' and ':', and does not begin with '.'"
    } else {
        return server_id(text);
    };
    Err(invalid(&[Flaw {
        field: "server_id".into(),
        message: message.into(),
    }]))
}

/// Thirty-two digits that nobody can guess.
fn random_hex() -> Result<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Refusal::new(ErrorCode::Internal))?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// The store's failure, as a refusal.
pub(crate) fn refused(error: StoreError) -> Refusal {
    match error {
        StoreError::Taken(Unique::ServerId | Unique::ServerName) => Refusal::new(ErrorCode::ServerTaken),
        StoreError::Absent => Refusal::because(
            ErrorCode::StoreUnavailable,
            "There is no database: a gateway without a master key is managed by its configuration file alone.",
        ),
        error => {
            tracing::error!(%error, "the store failed");
            Refusal::new(ErrorCode::StoreUnavailable)
        }
    }
}

//! Who is connected to a server, for whoever manages the gateway, who may end it.

use super::{Result, refused};
use crate::app::Worker;
use crate::audit::Actor;
use crate::credentials::person::Person;
use crate::http::admin::time::utc;
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use vestibule_store::{GrantSummary, UserId};

/// A person's sign-in at a server.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    /// The person.
    pub(crate) user: String,
    /// When what is kept is over, in seconds since 1970. A token that can be renewed is then renewed.
    pub(crate) expires_at: Option<u64>,
    /// When the person signed in.
    pub(crate) since: u64,
    /// When it was last renewed or written.
    pub(crate) updated_at: u64,
}

impl Connected {
    /// As LiteLLM writes it.
    pub(crate) fn row(self, server: &Server, now: u64) -> ConnectedRow {
        ConnectedRow {
            user_id: self.user,
            server_id: server.id.clone(),
            credential_type: "oauth2",
            has_credential: true,
            expires_at: self.expires_at.and_then(utc),
            is_expired: self.expires_at.is_some_and(|end| end <= now),
            connected_at: utc(self.since),
            updated_at: utc(self.updated_at),
        }
    }
}

/// [`Connected`] as LiteLLM's row.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectedRow {
    user_id: String,
    server_id: String,
    credential_type: &'static str,
    has_credential: bool,
    expires_at: Option<String>,
    is_expired: bool,
    connected_at: Option<String>,
    updated_at: Option<String>,
}

/// Who is connected to the server with this id or name.
///
/// # Errors
/// [`ErrorCode::ServerNotFound`].
pub(crate) async fn connected(worker: &Worker, id: &str) -> Result<(Arc<Server>, Vec<Connected>)> {
    let server = found(worker, id)?;
    let Some(people) = &worker.app.people else {
        return Ok((server, Vec::new()));
    };
    let grants = people.persons.at(&server.store_id).await.map_err(refused)?;
    let shown = |grant: GrantSummary| Connected {
        user: grant.user_id.as_str().to_owned(),
        expires_at: grant.expires_at,
        since: grant.connected_at,
        updated_at: grant.updated_at,
    };
    Ok((server, grants.into_iter().map(shown).collect()))
}

/// Forgets what a person has there, and revokes it where that is offered; gives the server.
///
/// # Errors
/// [`ErrorCode::NoCredential`] when there is nothing.
pub(crate) async fn disconnect(
    worker: &Worker,
    actor: &Actor,
    server: &str,
    user: &str,
    id: RequestId,
) -> Result<Arc<Server>> {
    let server = found(worker, server)?;
    let nothing = || Refusal::new(ErrorCode::NoCredential);
    let (Some(people), Some(sign_in)) = (&worker.app.people, server.sign_in()) else {
        return Err(Refusal::new(ErrorCode::NoSignIn));
    };
    let person = Person::kept_under(UserId::new(user).map_err(|_| nothing())?);
    let forgotten = people.persons.forget(&person, &server, sign_in).await;
    if !forgotten.map_err(refused)? {
        return Err(nothing());
    }
    let subject = format!("{user} at {}", server.id);
    worker.app.audit.changed(actor, "grant.revoke", &subject, id);
    Ok(server)
}

fn found(worker: &Worker, id: &str) -> Result<Arc<Server>> {
    let app = worker.live.app();
    super::for_manager(&app, id).ok_or_else(|| Refusal::new(ErrorCode::ServerNotFound))
}

//! Whether servers answer: a session is opened with what the gateway itself has for them, and ended again. Where only a
//! person's or a caller's credential would do, nothing is tried and nothing is claimed.

use super::{Asker, Result, servers_for, view::Eyes};
use crate::admission::{Admission, Principal};
use crate::app::Worker;
use crate::credentials::CredentialSource;
use crate::http::admin::time::utc;
use crate::http::relay::forward::Bearer;
use crate::http::relay::upstream_client::{Caller, Hello, UpstreamClient};
use crate::net::transport::Endpoint;
use crate::registry::Server;
use crate::registry::health::{HealthFault, Report, Status, Step};
use crate::web::error::{ErrorCode, Refusal};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a session may take to open.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was seen so many seconds ago is not looked at again.
const FRESH: u64 = 10;
/// Looks at once.
const AT_ONCE: usize = 16;

/// What is known of a server's health, and why no more is.
#[derive(Debug, Clone)]
pub(crate) struct HealthView {
    /// What is known.
    pub(crate) report: Report,
    /// Why nobody looks.
    pub(crate) unseen: Option<&'static str>,
}

impl HealthView {
    /// As far as it is known without a look.
    pub(crate) fn of(server: &Server, now: u64) -> Self {
        Self {
            report: server.health.report(now),
            unseen: out_of_reach(server),
        }
    }

    /// As rows have it. Others than managers learn no sentence: there are addresses in them.
    pub(crate) fn columns(&self, eyes: Eyes) -> HealthColumns {
        let Report {
            status,
            seen,
            since,
            fault,
        } = &self.report;
        let told = fault.as_ref().filter(|_| eyes == Eyes::Manager);
        let unseen = self.unseen.filter(|_| *status == Status::Unknown);
        let error = told.map(|fault| fault.message.as_str()).or(unseen);
        HealthColumns {
            status: status.name(),
            last_health_check: seen.and_then(utc),
            health_check_error: error.map(str::to_owned),
            status_since: since.and_then(utc),
            health_check_code: fault.as_ref().map(|fault| fault.code.name()),
            health_check_step: fault.as_ref().map(|fault| fault.step.name()),
        }
    }
}

/// LiteLLM's columns, and more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthColumns {
    /// `healthy`, `unhealthy` or `unknown`.
    status: &'static str,
    last_health_check: Option<String>,
    health_check_error: Option<String>,
    /// Since when it is so, as far as that is known.
    status_since: Option<String>,
    /// The code of what went wrong.
    health_check_code: Option<&'static str>,
    /// The step that failed.
    health_check_step: Option<&'static str>,
}

impl HealthColumns {
    /// Those of a server that nobody can look at.
    pub(crate) fn unknown(why: &str) -> Self {
        Self {
            status: Status::Unknown.name(),
            last_health_check: None,
            health_check_error: Some(why.to_owned()),
            status_since: None,
            health_check_code: None,
            health_check_step: None,
        }
    }
}

/// The health of one server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthRow {
    server_id: String,
    server_name: String,
    #[serde(flatten)]
    health: HealthColumns,
}

/// The health of the servers that the asker may see: of these, or of all.
pub(crate) async fn list(worker: &Arc<Worker>, asker: Asker<'_>, ids: &[String]) -> Result<Vec<HealthRow>> {
    let eyes = Eyes::of(asker.admission);
    let mut servers = servers_for(&worker.app, asker, eyes);
    servers.retain(|server| ids.is_empty() || ids.contains(&server.id));
    let looks = stream::iter(servers).map(|server| async move {
        let health = look(worker, &server).await;
        HealthRow {
            server_id: server.id.clone(),
            server_name: server.name.clone(),
            health: health.columns(eyes),
        }
    });
    Ok(looks.buffered(AT_ONCE).collect().await)
}

/// Looks at a server, unless something was seen of it a moment ago.
pub(crate) async fn look(worker: &Arc<Worker>, server: &Arc<Server>) -> HealthView {
    let clock = &worker.app.clock;
    let is_ours = || {
        let ours = worker.app.registry.by_id(&server.id);
        ours.is_some_and(|ours| Arc::ptr_eq(ours, server))
    };
    if out_of_reach(server).is_none() && is_ours() {
        let _turn = server.health.turn().await;
        if !server.health.seen_within(FRESH, clock.unix_seconds()) {
            let fault = open(worker, server).await.err().map(fault_of);
            server.health.looked(fault, clock.unix_seconds());
        }
    }
    HealthView::of(server, clock.unix_seconds())
}

async fn open(worker: &Arc<Worker>, server: &Arc<Server>) -> Result<()> {
    let admission = Arc::new(Admission::of_session(Principal::Master, None));
    opens(&Caller::new(worker, &admission, &HeaderMap::new()), server).await
}

/// Opens a session with a server for `caller`, and ends it.
pub(crate) async fn opens(caller: &Caller, server: &Arc<Server>) -> Result<()> {
    let hello = Hello::default();
    let opening = UpstreamClient::open(caller, server, Bearer::ForThisServer, &hello);
    let opened = timeout(PATIENCE, opening).await.unwrap_or_else(|_| {
        let message = format!(
            "The MCP server {} did not open a session within {} s.",
            server.name,
            PATIENCE.as_secs()
        );
        Err(Refusal::because(ErrorCode::UpstreamTimeout, message))
    });
    opened.map(drop)
}

/// Which step broke off, and why.
pub(crate) fn fault_of(refusal: Refusal) -> HealthFault {
    HealthFault {
        code: refusal.code,
        step: Step::of(refusal.code),
        message: refusal.message.into_owned(),
    }
}

/// Why the gateway cannot look by itself.
fn out_of_reach(server: &Server) -> Option<&'static str> {
    const CREDENTIAL_HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "apikey"];
    match &server.credential {
        CredentialSource::Person(_) => {
            return Some("People sign in to this server, and nobody's sign-in is used to look at it.");
        }
        CredentialSource::Byok(_) => {
            return Some(
                "People bring their own keys for this server, and nobody's key is used to look at it.",
            );
        }
        CredentialSource::OnBehalf(_) => {
            return Some("The server is called on a person's behalf, with a token that callers bring.");
        }
        CredentialSource::Caller(..) => {
            return Some("The server is shown its callers' own tokens, and the gateway has none.");
        }
        CredentialSource::None
        | CredentialSource::Static(_)
        | CredentialSource::Machine(_)
        | CredentialSource::AwsSigV4(_) => {}
    }
    let brought = server
        .extra_headers
        .iter()
        .any(|name| CREDENTIAL_HEADERS.contains(&name.as_str()));
    if matches!(server.credential, CredentialSource::None) && brought {
        return Some("The server takes its callers' credentials, and the gateway has none.");
    }
    match &server.endpoint {
        Endpoint::Stdio(program) if program.headers().next().is_some() => {
            Some("The server's program needs headers of a caller.")
        }
        _ => None,
    }
}

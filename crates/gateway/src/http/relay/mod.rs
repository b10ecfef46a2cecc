//! MCP in: target, admission, session, body, then one server's answer out. The message itself is relayed, not
//! re-modelled: its envelope is read only where an error has to name the request.

pub mod aggregate;
mod bridged;
mod capabilities;
mod challenge;
pub(crate) mod direct;
mod filter;
pub(crate) mod forward;
mod headers;
mod on_behalf;
pub mod outcome;
pub mod rest;
pub mod session;
mod signed;
mod stream;
pub mod target;
pub(crate) mod upstream_client;

use crate::admission::{Admission, Targets};
use crate::app::{App, Worker};
use crate::audit::note;
use crate::diagnosis::DebugReport;
use crate::ids::RequestId;
use crate::net::gather::Gathered;
use crate::policy::{self, access, message::Asks};
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use forward::{Bearer, Call};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::timeout;
use upstream_client::{Caller, UpstreamClient};
use vestibule_mcp::headers::MCP_SESSION_ID;
use vestibule_oauth::BearerChallenge;

/// Answers a request to `server`, which is `None` when its name is unknown. Who may not come in does not
/// learn whether there is such a server.
pub async fn handle<B>(
    worker: &Arc<Worker>,
    server: Option<&Arc<Server>>,
    request: Request<B>,
    peer: IpAddr,
    id: RequestId,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes>,
{
    let app = &worker.app;
    let started = app.clock.now();
    note::call();
    let (parts, body) = request.into_parts();
    let admission = match app.gate.admit_to(&parts.headers, Targets::one(server)) {
        Ok(admission) => Arc::new(admission),
        Err(refusal) => {
            let refusal = challenged(worker, refusal, &parts, peer, Some(parts.uri.path()));
            return worker.refuse(refusal, None, id).into_plain(id);
        }
    };
    note::admitted(app, &admission);
    let Some(server) = server else {
        return worker
            .refuse(Refusal::new(ErrorCode::UnknownServer), None, id)
            .into_plain(id);
    };
    note::server(server);
    let report = DebugReport::begin(
        &parts.headers,
        &app.caller_headers,
        &server.extra_headers,
        |value| app.gate.carries_key(&admission, value),
    );
    let mut resolution = crate::diagnosis::AuthResolution::NoAuth;
    let mut message = Bytes::new();
    let result = async {
        let sealed = method_and_session(&parts)?;
        let rules = access::permit(&admission, server)?;
        let mut call = Call {
            worker,
            server,
            admission: &admission,
            bearer: Bearer::ForThisServer,
            method: &parts.method,
            headers: &parts.headers,
            session: None,
            body: Bytes::new(),
        };
        let session = match sealed {
            None => None,
            Some(sealed) => {
                let now = app.clock.unix_seconds();
                let opened = app.sessions.open(sealed, &call.session_owner(), &server.id, now);
                Some(opened.ok_or_else(|| call.unknown_session())?)
            }
        };
        if parts.method == Method::POST {
            message = read_body(body, app.limits.max_body_bytes, app.limits.body_timeout).await?;
            note::message(&message);
        }
        let asks = if parts.method == Method::POST && !rules.are_none() {
            policy::message::judge(&rules, &parts.headers, &message)?
        } else {
            Asks::ForSomethingElse
        };
        let _under_way = server.begin_call(app.limits.max_calls_per_server)?;
        call.session = session.as_ref();
        call.body = capabilities::withheld(server, &message)?;
        if report.is_some() {
            resolution = call.intended();
        }
        let answer = call.forward().await?;
        resolution = answer.resolution;
        let asker = capabilities::withholds(server).then(|| {
            let caller = Caller::new(worker, &admission, &parts.headers);
            Arc::new(UpstreamClient::answering(&caller, &call))
        });
        let mut response = call.outcome(answer, sealed, &rules, asks, asker, id).await?;
        challenge::told(worker, server, &parts, peer, id, &mut response).await;
        Ok(response)
    }
    .await;
    let mut response = result.unwrap_or_else(|refusal| {
        let refusal = challenged(worker, refusal, &parts, peer, Some(parts.uri.path()));
        refused(worker, server, refusal, &message, id)
    });
    if let Some(report) = report {
        report.finish(
            resolution,
            &admission.address_of(server),
            server.auth_type,
            response.headers_mut(),
        );
    }
    server
        .metrics
        .answered(response.status(), started.until(app.clock.now()));
    bind(&mut response, &admission, app);
    response
}

/// A stream ends when the key of whoever asked for it does.
fn bind(response: &mut Response<Body>, admission: &Admission, app: &App) {
    let body = response.body_mut();
    if body.is_stream() {
        body.cut_at(app.gate.over(&admission.principal, app.clock.unix_seconds()));
    }
}

/// With the challenge that a refusal asks for (RFC 9728 section 5.1): it names the metadata of the endpoint at
/// `path`, in the client's spelling, or of the server's endpoint where the client used another door.
pub(crate) fn challenged(
    worker: &Worker,
    refusal: Refusal,
    parts: &Parts,
    peer: IpAddr,
    path: Option<&str>,
) -> Refusal {
    let Some(wanted) = refusal.sign_in.clone() else {
        return refusal;
    };
    let door = path.map_or_else(|| format!("/{}/mcp", wanted.server), str::to_owned);
    let metadata = metadata_of(worker, parts, peer, &door).filter(|_| !wanted.undocumented);
    let challenge = BearerChallenge {
        resource_metadata: metadata.as_deref(),
        realm: wanted.realm,
        error: wanted.error,
        scope: wanted.scope.as_deref(),
        claims: wanted.claims.as_deref(),
        ..Default::default()
    };
    match HeaderValue::from_str(&challenge.to_string()) {
        Ok(value) => refusal.with_header(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
}

/// The address of the metadata of the endpoint at `door`.
fn metadata_of(worker: &Worker, parts: &Parts, peer: IpAddr, door: &str) -> Option<String> {
    let origin = worker.app.origin.of(&parts.uri, &parts.headers, peer)?;
    Some(format!("{origin}/.well-known/oauth-protected-resource{door}"))
}

/// A refusal as the answer to what was asked: a JSON-RPC error once there is a message, else a plain one.
fn refused(
    worker: &Worker,
    server: &Arc<Server>,
    refusal: Refusal,
    message: &[u8],
    id: RequestId,
) -> Response<Body> {
    let refusal = worker.refuse(refusal, Some(server), id);
    if message.is_empty() {
        return refusal.into_plain(id);
    }
    let request = vestibule_mcp::RequestId::of_request(message);
    // Of the message and not of the session or the connection: clients show the error of a 200 and take a 403 for a want
    // of authorization.
    let of_the_call = matches!(
        refusal.code,
        ErrorCode::ToolNotAllowed | ErrorCode::ParameterNotAllowed
    );
    let in_band = of_the_call && request.is_some();
    let mut response = refusal.into_json_rpc(request.as_ref(), id);
    if in_band {
        *response.status_mut() = StatusCode::OK;
    }
    response
}

/// The client's session id, after a look at the method.
fn method_and_session(parts: &Parts) -> Result<Option<&HeaderValue>, Refusal> {
    if !matches!(parts.method, Method::POST | Method::GET | Method::DELETE) {
        let allow = HeaderValue::from_static("POST, GET, DELETE");
        return Err(Refusal::new(ErrorCode::MethodNotAllowed).with_header(header::ALLOW, allow));
    }
    let mut sessions = parts.headers.get_all(MCP_SESSION_ID).iter();
    let first = sessions.next();
    if sessions.next().is_some() {
        return Err(Refusal::because(
            ErrorCode::RepeatedHeader,
            "The header mcp-session-id stands several times.",
        ));
    }
    Ok(first)
}

/// The whole body, within its limits.
pub(crate) async fn read_body<B>(
    body: B,
    limit: usize,
    patience: std::time::Duration,
) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes>,
{
    let too_large = || {
        Refusal::because(
            ErrorCode::BodyTooLarge,
            format!("The request's body is larger than {limit} bytes."),
        )
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut body = pin!(body);
        let mut gathered = Gathered::default();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|_| Refusal::new(ErrorCode::BodyBroken))?;
            let Ok(data) = frame.into_data() else { continue };
            if gathered.len() + data.len() > limit {
                return Err(too_large());
            }
            gathered.push(data);
        }
        Ok(gathered.whole())
    };
    timeout(patience, reading)
        .await
        .unwrap_or(Err(Refusal::new(ErrorCode::BodyTimeout)))
}

/// A listing of `server`, within the time that one has.
async fn listed_in_time<T>(
    worker: &Worker,
    server: &Server,
    listing: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let patience = worker.app.limits.listing_timeout;
    timeout(patience, listing).await.unwrap_or_else(|_| {
        let message = format!(
            "The MCP server {} did not list within {} s.",
            server.name,
            patience.as_secs_f64()
        );
        Err(Refusal::because(ErrorCode::ListingTimeout, message))
    })
}

//! MCP in: target, admission, session, body, then one server's answer out. The message itself is relayed, not
//! re-modelled: its envelope is read only where an error has to name the request.

mod forward;
pub mod outcome;
pub mod rest;
pub mod session;
mod stream;
pub mod target;
mod upstream_client;

use crate::app::Worker;
use crate::diagnosis::DebugReport;
use crate::ids::RequestId;
use crate::net::gather::Gathered;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use forward::Call;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as HttpBody;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::timeout;
use vestibule_mcp::headers::MCP_SESSION_ID;
use vestibule_oauth::BearerChallenge;

/// Answers a request to `server`, which is `None` when its name is unknown. Who may not come in does not
/// learn whether there is such a server.
pub async fn handle<B>(
    worker: &Worker,
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
    let (parts, body) = request.into_parts();
    let admission = match app.gate.admit(&parts.headers) {
        Ok(admission) => admission,
        Err(refusal) => return worker.refuse(refusal, None, id).into_plain(id),
    };
    let Some(server) = server else {
        return worker
            .refuse(Refusal::new(ErrorCode::UnknownServer), None, id)
            .into_plain(id);
    };
    let report = DebugReport::begin(&parts.headers, |value| app.gate.is_key(&admission, value));
    let mut resolution = crate::diagnosis::AuthResolution::NoAuth;
    let mut message = Bytes::new();
    let result = async {
        let sealed = method_and_session(&parts)?;
        let session = match sealed {
            None => None,
            Some(sealed) => {
                let now = app.clock.unix_seconds();
                let opened = app.sessions.open(sealed, admission.principal, &server.id, now);
                Some(opened.ok_or_else(|| Refusal::new(ErrorCode::UnknownSession))?)
            }
        };
        if parts.method == Method::POST {
            message = read_body(body, app.limits.max_body_bytes, app.limits.body_timeout).await?;
        }
        let _under_way = server.begin_call(app.limits.max_calls_per_server)?;
        let call = Call {
            worker,
            server,
            admission: &admission,
            method: &parts.method,
            headers: &parts.headers,
            session: session.as_ref(),
            body: message.clone(),
        };
        resolution = call.intended();
        let answer = call.forward().await?;
        resolution = answer.resolution;
        call.outcome(answer.response, answer.resolution, sealed, id).await
    }
    .await;
    let mut response = result.unwrap_or_else(|refusal| {
        let refusal = challenged(worker, refusal, &parts, peer, Some(parts.uri.path()));
        refused(worker, server, refusal, &message, id)
    });
    if let Some(report) = report {
        report.finish(resolution, &server.url, server.auth_type, response.headers_mut());
    }
    server
        .metrics
        .answered(response.status(), started.until(app.clock.now()));
    response
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
    let origin = worker.app.origin.of(&parts.uri, &parts.headers, peer);
    let metadata = origin.map(|origin| {
        let door = path.map_or_else(|| format!("/{}/mcp", wanted.server), str::to_owned);
        format!("{origin}/.well-known/oauth-protected-resource{door}")
    });
    let challenge = BearerChallenge {
        resource_metadata: metadata.as_deref(),
        error: wanted.error,
        scope: wanted.scope.as_deref(),
        ..Default::default()
    };
    match HeaderValue::from_str(&challenge.to_string()) {
        Ok(value) => refusal.with_header(header::WWW_AUTHENTICATE, value),
        Err(_) => refusal,
    }
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
        refusal.into_plain(id)
    } else {
        refusal.into_json_rpc(vestibule_mcp::RequestId::of_request(message).as_ref(), id)
    }
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

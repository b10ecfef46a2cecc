//! Several servers behind one endpoint: one session for the client, lists of all of them as one, each call to the
//! server that it is for. A request to one server by its own name never comes here.

mod calls;
mod era;
mod handshake;
mod listen;
mod lists;
mod outcome;
mod scope;
mod session;
mod streams;
mod subscriptions;

pub use session::Aggregates;

use super::forward::{Bearer, Call};
use super::session::Owner;
use super::target::Target;
use super::upstream_client::{Caller, Fault, Hello, Opened, UpstreamClient};
use super::{challenged, metadata_of, method_and_session, read_body};
use crate::admission::{Admission, Targets};
use crate::app::Worker;
use crate::audit::note;
use crate::credentials::CredentialSource;
use crate::diagnosis::{DebugReport, Resolutions};
use crate::digest::sha256_of_parts;
use crate::ids::RequestId;
use crate::net::transport::Endpoint;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use era::Era;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use lists::Kind;
use scope::Scope;
use serde_json::{Map, Value, json};
use session::{Session, capabilities_for};
use std::net::IpAddr;
use std::sync::Arc;
use vestibule_mcp::members::Members;
use vestibule_mcp::{Envelope, RequestId as RpcId};

/// Everything about one request.
pub(super) struct Context {
    caller: Caller,
    scope: Scope,
    /// The client's headers.
    headers: HeaderMap,
    parts: Parts,
    peer: IpAddr,
    /// The caller's `Authorization` could be meant for several parties, so none gets it.
    ambiguous: bool,
    /// Whom sessions and cursors count for.
    owner: Owner,
    session: Option<Session>,
    /// The client speaks a revision without sessions.
    modern: bool,
    /// What servers were shown, for debug headers.
    resolutions: Option<Arc<Resolutions>>,
    id: RequestId,
}

/// Why a request has no result.
enum Stop {
    /// A refusal, and the server that it concerns.
    Refused(Option<Arc<Server>>, Box<Refusal>),
    /// A refusal that says what became of each server.
    Outcomes(Box<Refusal>, Map<String, Value>),
    /// A JSON-RPC error of the protocol's own.
    Rpc {
        status: StatusCode,
        code: i64,
        message: String,
        data: Option<Value>,
    },
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(None, Box::new(refusal))
    }
}

impl Stop {
    fn rpc(code: i64, message: impl Into<String>) -> Self {
        Self::Rpc {
            status: StatusCode::OK,
            code,
            message: message.into(),
            data: None,
        }
    }

    fn of(server: &Arc<Server>, refusal: Refusal) -> Self {
        Self::Refused(Some(Arc::clone(server)), Box::new(refusal))
    }
}

/// Answers a request to the servers that `target` and headers name.
pub async fn handle<B>(
    worker: &Arc<Worker>,
    target: Target<'_>,
    request: Request<B>,
    peer: IpAddr,
    id: RequestId,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes>,
{
    note::call();
    let view = worker.app.servers_for(request.headers(), peer);
    let scope = Scope::of(view, worker.app.require_explicit_scope, target, request.headers());
    let (parts, body) = request.into_parts();
    let targets = scope.as_ref().map_or(Targets::NONE, |scope| Targets {
        servers: &scope.servers,
        all_resolved: scope.all_resolved,
    });
    let admission = match worker.app.gate.admit_to(&parts.headers, targets) {
        Ok(admission) => Arc::new(admission),
        Err(refusal) => {
            let refusal = challenged(worker, refusal, &parts, peer, None);
            return worker.refuse(refusal, None, id).into_plain(id);
        }
    };
    note::admitted(&worker.app, &admission);
    let scope = match scope.and_then(|scope| scope.narrowed(&admission)) {
        Ok(scope) if scope.servers.is_empty() && !scope.unknown.is_empty() => {
            Err(Refusal::new(ErrorCode::UnknownServer))
        }
        scope => scope,
    };
    let scope = match scope {
        Ok(scope) => scope,
        Err(refusal) => return worker.refuse(refusal, None, id).into_plain(id),
    };
    note::servers(&scope.servers);
    let report = reported(worker, &admission, &scope, &parts.headers);
    let resolutions = report.as_ref().map(|_| Arc::<Resolutions>::default());
    let mut ctx = Context {
        caller: Caller::new(worker, &admission, &parts.headers).noting(resolutions.as_ref()),
        ambiguous: scope.is_ambiguous(),
        owner: Owner::from(admission.principal.clone()),
        scope,
        headers: parts.headers.clone(),
        parts,
        peer,
        session: None,
        modern: false,
        resolutions,
        id,
    };
    ctx.owner.subject = ctx.subject();
    let mut message = Bytes::new();
    let mut response = match Box::pin(ctx.answer(body, &mut message)).await {
        Ok(response) => response,
        Err(stop) => ctx.stopped(stop, RpcId::of_request(&message).as_ref(), message.is_empty()),
    };
    if let (Some(report), Some(resolutions)) = (report, &ctx.resolutions) {
        report.finish_several(resolutions, &ctx.caller.admission, response.headers_mut());
    }
    super::bind(&mut response, &admission, &worker.app);
    response
}

/// One server's part of a request: recorded by itself where the request is for several.
async fn part<T>(
    ctx: &Context,
    server: &Arc<Server>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    if ctx.scope.is_one() {
        work.await
    } else {
        note::of_server(server, work).await
    }
}

/// What the caller sent, if it asked for it. A header that any of the servers gets is looked at.
fn reported(
    worker: &Worker,
    admission: &Admission,
    scope: &Scope,
    headers: &HeaderMap,
) -> Option<DebugReport> {
    if !DebugReport::is_asked_for(headers) {
        return None;
    }
    let app = &worker.app;
    let forwarded = scope
        .servers
        .iter()
        .flat_map(|server| server.extra_headers.iter());
    let mut forwarded: Vec<HeaderName> = forwarded.cloned().collect();
    forwarded.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    forwarded.dedup();
    DebugReport::begin(headers, &app.caller_headers, &forwarded, |value| {
        app.gate.carries_key(admission, value)
    })
}

impl Context {
    async fn answer<B>(&mut self, body: B, message: &mut Bytes) -> Result<Response<Body>, Stop>
    where
        B: HttpBody<Data = Bytes>,
    {
        let app = Arc::clone(&self.caller.worker.app);
        let sealed = method_and_session(&self.parts)?.cloned();
        if let Some(sealed) = sealed
            && !era::says_modern(&self.headers)
        {
            let now = app.clock.unix_seconds();
            let session = app.aggregates.open(&sealed, &self.owner, &self.scope.named, now);
            self.session = Some(session.ok_or_else(|| Refusal::new(ErrorCode::UnknownSession))?);
        }
        if self.parts.method == Method::POST {
            *message = read_body(body, app.limits.max_body_bytes, app.limits.body_timeout).await?;
            note::message(message);
        }
        let envelope = Envelope::parse(message);
        let params = envelope.as_ref().and_then(|envelope| envelope.params);
        let params = match params {
            None => Members::default(),
            Some(params) => Members::parse(params.get())
                .ok_or_else(|| Stop::rpc(-32602, "params is not an object whose members stand once"))?,
        };
        let method = envelope.as_ref().and_then(|envelope| envelope.method.as_deref());
        self.modern = match era::of(&self.headers, method, &params)? {
            Era::Legacy => false,
            Era::Modern => true,
        };
        if self.modern {
            self.session = None;
        }
        match (&self.parts.method, envelope) {
            (&Method::GET, _) => streams::listen(self),
            (&Method::DELETE, _) => self.delete(),
            (_, Some(envelope)) => self.message(message, envelope, &params).await,
            (_, None) => Err(Refusal::new(ErrorCode::InvalidMessage).into()),
        }
    }

    async fn message(
        &mut self,
        message: &Bytes,
        envelope: Envelope<'_>,
        params: &Members<'_>,
    ) -> Result<Response<Body>, Stop> {
        let Some(method) = envelope.method.as_deref() else {
            return streams::client_answered(self, &envelope).await;
        };
        let Some(rpc) = RpcId::of_request(message) else {
            if envelope.id.is_some() {
                return Err(Refusal::new(ErrorCode::InvalidMessage).into());
            }
            streams::client_notified(self, method, params);
            return Ok(accepted());
        };
        let cursor = params.text("cursor");
        match (method, Kind::of(method)) {
            ("initialize", _) => handshake::initialize(self, &rpc, params).await,
            ("server/discover", _) if self.modern => handshake::discover(self, &rpc).await,
            ("subscriptions/listen", _) if self.modern => subscriptions::listen(self, &rpc, params).await,
            ("ping", _) if !self.modern => Ok(success(&rpc, "{}")),
            (_, Some(kind)) => {
                let result = lists::list(self, kind, cursor.as_deref()).await?;
                Ok(success(&rpc, &result))
            }
            _ => calls::call(self, &rpc, method, params).await,
        }
    }

    /// Ends the servers' sessions behind the answer's back.
    fn delete(&self) -> Result<Response<Body>, Stop> {
        let Some(session) = &self.session else {
            return Err(no_stream());
        };
        for server in &self.scope.servers {
            if let Some(opened) = session.opened(server) {
                session::ended(self.resumed(server, opened));
            }
        }
        session.end();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// Whether this server gets the caller's `Authorization`.
    fn bearer(&self, server: &Server) -> Bearer {
        if self.scope.is_one() {
            Bearer::ForThisServer
        } else if !self.ambiguous && server.takes_authorization().is_some() {
            Bearer::ForTheOnlyTaker
        } else {
            Bearer::Withheld
        }
    }

    /// Whether what this server is shown is the caller's own, or got for the caller.
    fn depends_on_the_caller(&self, server: &Arc<Server>) -> bool {
        match server.credential {
            CredentialSource::OnBehalf(_)
            | CredentialSource::Person(_)
            | CredentialSource::Byok(_)
            | CredentialSource::Caller(..) => true,
            CredentialSource::None
            | CredentialSource::Static(_)
            | CredentialSource::Machine(_)
            | CredentialSource::AwsSigV4(_) => {
                let brought = self.call_of(server).brought();
                brought.map_or(true, |brought| brought.has_credential())
                    || server.extra_headers.contains(&header::AUTHORIZATION) && self.brings_a_token()
            }
        }
    }

    /// A message for this server that nothing is in yet.
    fn call_of<'c>(&'c self, server: &'c Arc<Server>) -> Call<'c> {
        Call {
            worker: &self.caller.worker,
            server,
            admission: &self.caller.admission,
            bearer: self.bearer(server),
            method: &self.parts.method,
            headers: &self.headers,
            session: None,
            body: Bytes::new(),
        }
    }

    /// A digest of the people whose tokens are exchanged for these servers; `None` where none is.
    fn subject(&self) -> Option<[u8; 32]> {
        let mut people: Vec<[u8; 32]> = Vec::new();
        for server in &self.scope.servers {
            if !matches!(server.credential, CredentialSource::OnBehalf(_)) {
                continue;
            }
            let call = self.call_of(server);
            people.extend(call.subject_token().and_then(|subject| subject.identity()));
        }
        let parts: Vec<&[u8]> = people.iter().map(<[u8; 32]>::as_slice).collect();
        (!people.is_empty()).then(|| sha256_of_parts(&parts))
    }

    /// A refusal for want of a credential, where the caller brought one that could be several servers'.
    fn judged(&self, server: &Server, refusal: Refusal) -> Refusal {
        let wanting = matches!(
            refusal.code,
            ErrorCode::SignInRequired
                | ErrorCode::UpstreamWantsCredential
                | ErrorCode::CallersTokenRequired
                | ErrorCode::SubjectTokenRequired
        );
        let taker = server.takes_authorization().is_some();
        if !self.ambiguous || !wanting || !taker || !self.brings_a_token() {
            return refusal;
        }
        let message = format!(
            "The request is for several MCP servers that take its Authorization, so {} did not get it.",
            server.name
        );
        Refusal {
            sign_in: refusal.sign_in,
            ..Refusal::because(ErrorCode::AmbiguousAuthorization, message)
        }
    }

    /// Whether `Authorization` holds something that is not the gateway key.
    fn brings_a_token(&self) -> bool {
        let gate = &self.caller.worker.app.gate;
        let value = self.headers.get(header::AUTHORIZATION);
        value.is_some_and(|value| !value.is_empty() && !gate.carries_key(&self.caller.admission, value))
    }

    fn hello(&self, server: &Server) -> Hello {
        match &self.session {
            Some(session) => Hello {
                version: session.version.clone(),
                capabilities: capabilities_for(server, &session.capabilities),
            },
            None => Hello::default(),
        }
    }

    /// Says in the debug headers that the request concerns these servers, asked or not.
    fn concerns<'s>(&self, servers: impl IntoIterator<Item = &'s Arc<Server>>) {
        if let Some(resolutions) = &self.resolutions {
            servers
                .into_iter()
                .for_each(|server| resolutions.concerns(server));
        }
    }

    /// Whether the server is asked for the newer revisions first. Programs and servers of HTTP+SSE are not: there is
    /// no `server/discover` without a process or a stream that was opened for the older ones.
    fn prefers_modern(&self, server: &Server) -> bool {
        self.modern && matches!(server.endpoint, Endpoint::Http(_))
    }

    fn resumed(&self, server: &Arc<Server>, opened: Opened) -> UpstreamClient {
        UpstreamClient::resume(&self.caller, server, self.bearer(server), opened)
            .with_ids(format!("vestibule-{}", self.id))
    }

    /// A conversation with a server: the session's, or one of this request's own.
    async fn client(&self, server: &Arc<Server>) -> Result<UpstreamClient, Refusal> {
        let aggregates = &self.caller.worker.app.aggregates;
        if let Some(session) = &self.session {
            let slot = session.slot(server);
            let was_open = slot.initialized();
            let opened = slot.get_or_try_init(|| handshake::open_in(self, session, server));
            let opened = opened.await?.clone();
            if !was_open {
                session.live.joined.notify_waiters();
            }
            return Ok(self.resumed(server, opened));
        }
        if let Some(opened) = aggregates.stateless(server)
            && (opened.modern
                || !self.prefers_modern(server)
                || handshake::known_era(self, server) == Some(Era::Legacy))
        {
            return Ok(self.resumed(server, opened));
        }
        Ok(handshake::begun(self, server).await?.0)
    }

    /// A new conversation in the place of one that the server does not know any more.
    async fn reopened(
        &self,
        server: &Arc<Server>,
        stale: &UpstreamClient,
    ) -> Result<UpstreamClient, Refusal> {
        let aggregates = &self.caller.worker.app.aggregates;
        aggregates.unlearn(server);
        if let Some(session) = &self.session {
            session.forget(server, stale.opened());
        }
        tracing::debug!(server = %server.name, "the server does not know its session any more");
        self.client(server).await
    }

    fn cursor_context<'c>(&'c self, method: &'c str) -> [&'c [u8]; 4] {
        let [principal, subject] = self.owner.parts();
        [principal, subject, self.scope.named.as_bytes(), method.as_bytes()]
    }

    /// Where a client finds out how to sign in to one server.
    fn metadata_of(&self, server: &Server) -> Option<String> {
        let door = format!("/{}/mcp", server.name);
        metadata_of(&self.caller.worker, &self.parts, self.peer, &door)
    }

    /// The answer that a stop comes to.
    fn stopped(&self, stop: Stop, rpc: Option<&RpcId>, plain: bool) -> Response<Body> {
        let worker = &self.caller.worker;
        match stop {
            Stop::Refused(server, refusal) => {
                let refusal = match &server {
                    Some(server) => self.judged(server, *refusal),
                    None => *refusal,
                };
                let refusal = challenged(worker, refusal, &self.parts, self.peer, None);
                let refusal = worker.refuse(refusal, server.as_ref(), self.id);
                if plain {
                    refusal.into_plain(self.id)
                } else {
                    refusal.into_json_rpc(rpc, self.id)
                }
            }
            Stop::Outcomes(refusal, outcomes) => {
                let refusal = worker.refuse(*refusal, None, self.id);
                refusal.into_json_rpc_with(rpc, self.id, &json!({(outcome::OUTCOMES): outcomes}))
            }
            Stop::Rpc {
                status,
                code,
                message,
                data,
            } => {
                tracing::info!(request_id = %self.id, code, "{message}");
                note::rpc_error(code);
                let mut error = json!({"code": code, "message": message});
                if let Some(data) = data {
                    error["data"] = data;
                }
                let mut response = match rpc {
                    Some(rpc) => json(&format!(
                        r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#,
                        rpc.as_json()
                    )),
                    None => json(&format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#)),
                };
                // Revisions without sessions put this into the status as well.
                let unknown_method = self.modern && code == -32601;
                *response.status_mut() = if unknown_method {
                    StatusCode::NOT_FOUND
                } else {
                    status
                };
                response
            }
        }
    }
}

/// The result of a request, which is JSON already.
fn success(rpc: &RpcId, result: &str) -> Response<Body> {
    json(&format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
        rpc.as_json()
    ))
}

fn json(body: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(body.as_bytes())));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Without a session there is nothing to listen to or to end.
fn no_stream() -> Stop {
    let allow = HeaderValue::from_static("POST");
    Refusal::new(ErrorCode::MethodNotAllowed)
        .with_header(header::ALLOW, allow)
        .into()
}

/// What the caller hears of a fault of `server`.
fn fault(server: &Arc<Server>, client: &UpstreamClient, fault: Fault) -> Stop {
    Stop::of(server, client.refusal(fault))
}

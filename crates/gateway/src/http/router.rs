//! All routes on one page, by who calls them.

use super::admin;
use super::console;
use super::relay::aggregate;
use super::relay::rest;
use super::relay::target::{self, Target};
use crate::app::Worker;
use crate::audit::note;
use crate::ids::RequestId;
use crate::issuer;
use crate::web::body::Body;
use crate::web::cors;
use crate::web::error::{ErrorCode, Refusal};
use crate::web::json::no_store;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tower::ServiceExt;

type Answer = axum::response::Response;

/// Every route but the MCP endpoints, which [`target::of`] reads.
fn routes(worker: &Arc<Worker>) -> Router<Arc<Worker>> {
    routes_of_programs()
        // People with a browser.
        .merge(console::routes(worker))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// Those that are no pages.
pub(super) fn routes_of_programs() -> Router<Arc<Worker>> {
    Router::new()
        // Scripts and LiteLLM's own clients.
        .route("/mcp-rest/tools/list", get(rest::list))
        .route("/mcp-rest/tools/call", post(rest::call))
        // Whoever manages the gateway, and people with their own tokens.
        .merge(admin::routes())
        // Load balancers and orchestrators.
        .route("/health/liveliness", get(alive))
        .route("/health/liveness", get(alive))
        .route("/health/readiness", get(ready))
        // Prometheus.
        .route("/metrics", get(metrics))
}

/// A worker's thread, whose configuration changes between requests.
pub(super) struct Front {
    desk: ArcSwap<Desk>,
}

/// A worker with its routes.
struct Desk {
    worker: Arc<Worker>,
    routes: Router,
}

impl Front {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            desk: ArcSwap::from_pointee(Desk::new(worker)),
        }
    }

    /// The worker with the configuration as it is now.
    pub(super) fn worker(&self) -> Arc<Worker> {
        Arc::clone(&self.desk().worker)
    }

    fn desk(&self) -> Arc<Desk> {
        let desk = self.desk.load();
        let live = &desk.worker.live;
        if live.is_current(&desk.worker.app) {
            return Arc::clone(&desk);
        }
        let next = Arc::new(Desk::new(desk.worker.next(live.app())));
        self.desk.store(Arc::clone(&next));
        next
    }

    /// Answers one request, whatever it is.
    pub(super) async fn respond(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        self.desk().respond(request, peer).await
    }
}

impl Desk {
    fn new(worker: Worker) -> Self {
        let worker = Arc::new(worker);
        Self {
            routes: routes(&worker).with_state(Arc::clone(&worker)),
            worker,
        }
    }

    async fn respond(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let id = self.worker.ids.next();
        let beginning = note::begin(&self.worker.app, &request, peer, id);
        let answering = pin!(async {
            let answered = AssertUnwindSafe(self.answer(request, peer, id)).catch_unwind();
            answered.await.unwrap_or_else(|_| {
                // The panic's own text is on standard error; it may name anything and is not repeated.
                self.refuse(ErrorCode::Internal, id)
            })
        });
        let mut response = note::taken_along(beginning, answering).await;
        response
            .headers_mut()
            .entry("x-request-id")
            .or_insert_with(|| id.header());
        response
    }

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr, id: RequestId) -> Response<Body> {
        if let Err(refusal) = admissible(&self.worker, &request) {
            return self.worker.refuse(refusal, None, id).into_plain(id);
        }
        let path = request.uri().path();
        // Pages judge by themselves which origin their forms may come from.
        if console::owns(path) {
            return self.dispatch(request, peer, id).await;
        }
        let target = target::of(path);
        let document = !matches!(target, Target::Server(_)) && issuer::paths::names_document(path);
        if document || target == Target::Other {
            let path = path.to_owned();
            if let Some(route) = issuer::paths::of(&path) {
                return issuer::handle(&self.worker, route, request, peer, id).await;
            }
            if document {
                return issuer::no_document(&self.worker, &request, id);
            }
        }
        // What is public is open to every page; the rest is not.
        let page = match self.worker.app.guard.check_origin(request.headers()) {
            Ok(None) => return self.route(request, peer, id).await,
            Ok(Some(origin)) => origin.clone(),
            Err(refusal) => return self.worker.refuse(refusal, None, id).into_plain(id),
        };
        let path = request.uri().path();
        let for_pages = target::of(path) != Target::Other || path.starts_with("/mcp-rest/");
        if !for_pages {
            return self.route(request, peer, id).await;
        }
        // A browser asks without the key; what it asks for comes with it.
        if cors::is_preflight(&request) {
            return cors::preflight(page);
        }
        let mut response = self.route(request, peer, id).await;
        cors::allow(response.headers_mut(), page);
        response
    }

    async fn route(&self, request: Request<Incoming>, peer: IpAddr, id: RequestId) -> Response<Body> {
        match target::of(request.uri().path()) {
            Target::Server(name) => {
                let servers = self.worker.app.servers_for(request.headers(), peer);
                let server = servers.by_name(name).cloned();
                if server.is_none() && servers.group(name).is_some() {
                    return self.aggregate(request, peer, id).await;
                }
                super::relay::handle(&self.worker, server.as_ref(), request, peer, id).await
            }
            Target::Several(_) | Target::All => self.aggregate(request, peer, id).await,
            Target::NotSupported => self.refuse(ErrorCode::NotSupported, id),
            Target::Other => self.dispatch(request, peer, id).await,
        }
    }

    /// To the handler of the path.
    async fn dispatch(&self, request: Request<Incoming>, peer: IpAddr, id: RequestId) -> Response<Body> {
        // The framework would refuse it in its own words.
        if percent_decode_str(request.uri().path()).decode_utf8().is_err() {
            let refusal = Refusal::because(ErrorCode::NotFound, "The path is not text.");
            return self.worker.refuse(refusal, None, id).into_plain(id);
        }
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(Peer(peer));
        let Ok(response) = self.routes.clone().oneshot(request).await;
        response.map(|body| Body::frames(HandlerBody(body)))
    }

    async fn aggregate(&self, request: Request<Incoming>, peer: IpAddr, id: RequestId) -> Response<Body> {
        let path = request.uri().path().to_owned();
        aggregate::handle(&self.worker, target::of(&path), request, peer, id).await
    }

    fn refuse(&self, code: ErrorCode, id: RequestId) -> Response<Body> {
        self.worker.refuse(Refusal::new(code), None, id).into_plain(id)
    }
}

/// What holds for every path: the size of the headers, `Host`, `Origin`.
fn admissible(worker: &Worker, request: &Request<Incoming>) -> Result<(), Refusal> {
    let line = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    if line + headers.sum::<usize>() > worker.app.limits.max_header_bytes {
        return Err(Refusal::new(ErrorCode::HeadersTooLarge));
    }
    worker.app.guard.check_host(request.uri(), request.headers())
}

/// Who is at the other end of the connection, for handlers.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// See [`Peer`]. Every request has one; the unspecified address is nobody's proxy.
pub(crate) fn peer_of(parts: &Parts) -> IpAddr {
    parts
        .extensions
        .get::<Peer>()
        .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0)
}

/// The request's id, for handlers.
pub(crate) fn id_of<B>(request: &Request<B>, worker: &Worker) -> RequestId {
    request
        .extensions()
        .get()
        .copied()
        .unwrap_or_else(|| worker.ids.next())
}

async fn alive() -> Answer {
    json(StatusCode::OK, "\"I'm alive!\"".into())
}

async fn ready(State(worker): State<Arc<Worker>>) -> Answer {
    if worker.app.draining.load(Ordering::SeqCst) {
        json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"draining"}"#.into())
    } else {
        json(StatusCode::OK, r#"{"status":"healthy"}"#.into())
    }
}

/// The page names all servers, so it is for whoever may know them all.
async fn metrics(State(worker): State<Arc<Worker>>, request: Request<axum::body::Body>) -> Answer {
    let id = id_of(&request, &worker);
    let admission = worker.app.gate.admit(request.headers());
    if let Err(refusal) = admission.and_then(|admission| admin::may_look(&admission)) {
        let refusal = worker.refuse(refusal, None, id);
        return refusal.into_plain(id).map(axum::body::Body::new);
    }
    let mut response = json(StatusCode::OK, worker.app.metrics.text());
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn not_found(State(worker): State<Arc<Worker>>, request: Request<axum::body::Body>) -> Answer {
    let id = id_of(&request, &worker);
    worker
        .refuse(Refusal::new(ErrorCode::NotFound), None, id)
        .into_plain(id)
        .map(axum::body::Body::new)
}

async fn method_not_allowed(State(worker): State<Arc<Worker>>, request: Request<axum::body::Body>) -> Answer {
    let id = id_of(&request, &worker);
    worker
        .refuse(Refusal::new(ErrorCode::MethodNotAllowed), None, id)
        .into_plain(id)
        .map(axum::body::Body::new)
}

fn json(status: StatusCode, body: String) -> Answer {
    no_store(status, body).map(axum::body::Body::new)
}

/// A framework body with this crate's error.
struct HandlerBody(axum::body::Body);

impl HttpBody for HandlerBody {
    type Data = bytes::Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<http_body::Frame<bytes::Bytes>>>> {
        std::pin::Pin::new(&mut self.0)
            .poll_frame(cx)
            .map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

//! We as the authorization server toward clients: metadata, registration, authorization, callback, token. What
//! people sign in with is the provider's. No client is asked for a gateway key; the management's own way, by a server's
//! id, is. Nothing here admits to a server.

mod authorize;
mod byok;
mod callback;
mod clients;
mod codes;
pub(crate) mod connect;
mod consent;
mod flood;
mod flow;
mod metadata;
pub mod paths;
mod providers;
mod refresh_tokens;
mod register;
pub mod registrations;
mod token;
pub mod upstream;

use crate::app::{People, Worker};
use crate::audit::note;
use crate::config::{SendResource, SignIn};
use crate::credentials::person::Person;
use crate::http::admin;
use crate::http::console::{self, NoVisitor};
use crate::http::relay::read_body;
use crate::ids::RequestId;
use crate::policy::access;
use crate::registry::{Server, View};
use crate::web::body::Body;
use crate::web::cors;
use crate::web::error::{ErrorCode, Refusal};
use crate::web::json;
use byok::{BroughtKeys, Door};
use bytes::Bytes;
use clients::{Client, Clients};
use codes::Codes;
use consent::{Browser, Consents, Decision};
use flood::Flood;
use flow::Flows;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use paths::{Document, Endpoint, Identifier, Named, Route};
use refresh_tokens::RefreshTokens;
use registrations::{RegistrationError, Registrations, UpstreamClient};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use upstream::{Discovery, UpstreamConfig, UpstreamEndpoints};
use vestibule_oauth::error::{OAuthError, OAuthErrorCode};
use vestibule_oauth::origin::{Origin, Scheme};
use vestibule_oauth::registration::ClientMetadata;
use vestibule_store::Store;
use vestibule_store::keys::MasterKeys;

/// The parts that sign-ins need, one for the process.
pub struct Issuer {
    clients: Clients,
    flows: Flows,
    consents: Consents,
    codes: Codes,
    brought_keys: BroughtKeys,
    refresh_tokens: RefreshTokens,
    flood: Flood,
    /// Where people sign in.
    pub discovery: Arc<Discovery>,
    /// Our clients there.
    pub registrations: Registrations,
}

impl Issuer {
    /// With rings of its own.
    pub fn new(
        keys: &MasterKeys,
        discovery: Arc<Discovery>,
        registrations: Registrations,
        store: Arc<Store>,
        runtime: Handle,
    ) -> Self {
        Self {
            clients: Clients::new(keys),
            flows: Flows::new(keys),
            consents: Consents::new(keys),
            codes: Codes::new(store, runtime),
            brought_keys: BroughtKeys::new(keys),
            refresh_tokens: RefreshTokens::new(keys),
            flood: Flood::new(),
            discovery,
            registrations,
        }
    }
}

/// One request about one server's sign-in.
struct Asked<'a> {
    worker: &'a Worker,
    people: &'a People,
    server: &'a Arc<Server>,
    sign_in: &'a Arc<SignIn>,
    identifier: Identifier<'a>,
    origin: Origin,
    /// `origin` as text.
    base: String,
    headers: &'a HeaderMap,
    /// Who asks, where it is known before there are tokens.
    person: Option<Person>,
    id: RequestId,
}

impl Asked<'_> {
    /// The issuer identifier under which the client speaks to us.
    fn issuer(&self) -> String {
        match self.identifier.named {
            Named::Id(_) => format!("{}/{}", self.base, self.server.name),
            _ => format!("{}{}", self.base, self.identifier.path),
        }
    }

    /// Where the provider sends people back to.
    fn callback(&self) -> String {
        format!("{}/callback", self.base)
    }

    /// The client of `client_id`: registered here, or the shared client by a name that LiteLLM gave it.
    fn client(&self, client_id: &str) -> Option<Client> {
        let server = self.server;
        if let Some(shared) = &self.sign_in.client {
            let placeholders = [&server.name, &server.id, &shared.id];
            if placeholders
                .into_iter()
                .chain(&server.alias)
                .any(|known| known == client_id)
            {
                return Some(Client::placeholder());
            }
        }
        self.people.issuer.clients.open(&server.id, client_id)
    }

    fn browser(&self) -> Browser<'_> {
        Browser {
            headers: self.headers,
            now: self.worker.app.clock.unix_seconds(),
            secure: self.origin.scheme() == Scheme::Https,
        }
    }

    async fn endpoints(&self) -> Result<Arc<UpstreamEndpoints>, OAuthError> {
        let discovery = &self.people.issuer.discovery;
        let upstream = self.sign_in.upstream(self.server);
        discovery.endpoints(&upstream).await.map_err(|error| {
            for probe in error.trace.iter() {
                tracing::warn!(request_id = %self.id, server = %self.server.name, %probe, "looking for the authorization server");
            }
            let text = format!("{error}; whoever runs the gateway can {}.", error.next_step());
            OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, text)
        })
    }

    /// Our client at the provider with these endpoints for MCP clients with this metadata.
    async fn upstream_client(
        &self,
        metadata: &ClientMetadata,
        endpoints: &Arc<UpstreamEndpoints>,
    ) -> Result<UpstreamClient, OAuthError> {
        if let Some(client) = &self.sign_in.client {
            return Ok(UpstreamClient {
                client: client.clone(),
                registration: None,
            });
        }
        let registrations = &self.people.issuer.registrations;
        registrations
            .client(&self.server.store_id, endpoints, metadata, &self.callback())
            .await
            .map_err(|error| self.not_registered(&error))
    }

    fn not_registered(&self, error: &RegistrationError) -> OAuthError {
        tracing::warn!(request_id = %self.id, server = %self.server.name, %error, "no client at the authorization server");
        let text = format!("{}: {error}", self.server.name);
        match error {
            RegistrationError::Refused(vestibule_oauth::RegistrationFault::Refused(said)) => {
                // The redirect URI that the provider judges is the gateway's own: no fault of the client's.
                let code = match said.error.as_str() {
                    "invalid_client_metadata" => OAuthErrorCode::InvalidClientMetadata,
                    _ => OAuthErrorCode::ServerError,
                };
                OAuthError::new(code, text)
            }
            RegistrationError::TooMany => {
                OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, text).with_status(429)
            }
            RegistrationError::Slow | RegistrationError::Store(_) => {
                let text = format!(
                    "{}: the registration did not come to an end; try again.",
                    self.server.name
                );
                OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, text)
            }
            _ => OAuthError::new(OAuthErrorCode::ServerError, text),
        }
    }

    /// `resource` toward the provider (RFC 8707): never the gateway's own URL, which the provider does not know.
    fn resource(&self, endpoints: &UpstreamEndpoints) -> Option<String> {
        resource(self.sign_in, endpoints)
    }
}

/// The value of `resource` for this server, if it is sent.
pub(crate) fn resource(sign_in: &SignIn, endpoints: &UpstreamEndpoints) -> Option<String> {
    let learned = || endpoints.resource.clone();
    match &sign_in.resource {
        SendResource::Never => None,
        SendResource::Always(value) => value
            .clone()
            .or_else(learned)
            .or_else(|| Some(sign_in.server_url.as_str().to_owned())),
        SendResource::Auto(Some(value)) => Some(value.clone()),
        SendResource::Auto(None) if providers::defaults(&endpoints.authorization_url).refuses_resource => {
            None
        }
        SendResource::Auto(None) => learned(),
    }
}

impl SignIn {
    /// What the search for `server`'s authorization server starts from.
    pub(crate) fn upstream(&self, server: &Server) -> UpstreamConfig {
        UpstreamConfig {
            name: server.name.clone(),
            url: self.server_url.clone(),
            issuer: self.issuer.clone(),
            authorization_url: self.authorization_url.clone(),
            token_url: self.token_url.clone(),
            registration_url: self.registration_url.clone(),
            scopes: self.scopes.clone(),
            wants_registration: self.client.is_none(),
        }
    }
}

/// Answers a request on a public OAuth route: no gateway key, any page's origin.
pub(crate) async fn handle<B>(
    worker: &Worker,
    route: Route<'_>,
    request: Request<B>,
    peer: IpAddr,
    id: RequestId,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes>,
{
    // Whether or not there is such a server: a page that may not ask cannot read the 404 either. Browsers go to the
    // authorization endpoint and the callback by themselves; no page asks there.
    let for_pages = !matches!(
        route,
        Route::Callback | Route::Endpoint(Endpoint::Authorize, _) | Route::OwnKeys(Endpoint::Authorize)
    );
    if for_pages && cors::is_preflight(&request) {
        return cors::preflight(HeaderValue::from_static("*"));
    }
    let (parts, body) = request.into_parts();
    let Some(origin) = worker.app.origin.of(&parts.uri, &parts.headers, peer) else {
        return worker
            .refuse(Refusal::new(ErrorCode::NoOrigin), None, id)
            .into_plain(id);
    };
    if let (Route::Callback, Some(people)) = (route, &worker.app.people) {
        return match parts.method {
            Method::GET => {
                callback::callback(
                    worker,
                    &people.issuer,
                    &origin,
                    parts.uri.query().unwrap_or_default(),
                    &parts.headers,
                    id,
                )
                .await
            }
            _ => wrong_method(worker, "GET", id),
        };
    }
    let view = worker.app.servers_for(&parts.headers, peer);
    let door = worker.app.people.as_ref().map(|people| Door {
        worker,
        people,
        view,
        origin: &origin,
        parts: &parts,
        peer,
        id,
    });
    let public = |mut response: Response<Body>| {
        if for_pages {
            cors::allow(response.headers_mut(), HeaderValue::from_static("*"));
        }
        response
    };
    let (Route::Metadata(_, identifier) | Route::Endpoint(_, identifier)) = route else {
        return match (route, door) {
            (Route::OwnKeys(endpoint), Some(door)) => public(door.anywhere(endpoint, body).await),
            _ => not_found(worker, id),
        };
    };
    let body = match door {
        None => body,
        Some(door) => match door.of_server(route, identifier, body).await {
            Ok(response) => return public(response),
            Err(body) => body,
        },
    };
    let found = signed_in_at(worker, view, route, &parts, &origin, identifier.named).await;
    let exchanged = match route {
        Route::Metadata(Document::ProtectedResource, _) => view.exchanged_at(identifier.named),
        _ => None,
    };
    let response = match (found, &worker.app.people) {
        (Err(NoVisitor::SignIn(path)), _) => callback::to(StatusCode::SEE_OTHER, &path),
        (Err(NoVisitor::Refused(refusal)), _) => worker.refuse(refusal, None, id).into_plain(id),
        _ if let Some((server, issuer)) = exchanged => match parts.method {
            Method::GET | Method::HEAD => metadata::of_exchange(&origin, identifier, server, issuer),
            Method::OPTIONS => cors::preflight(HeaderValue::from_static("*")),
            _ => wrong_method(worker, "GET, HEAD, OPTIONS", id),
        },
        (Ok(Some((server, sign_in, person))), Some(people)) => {
            note::server(server);
            let asked = Asked {
                worker,
                people,
                server,
                sign_in,
                identifier,
                base: origin.to_string(),
                origin,
                headers: &parts.headers,
                person,
                id,
            };
            match route {
                Route::Metadata(document, _) => describe(&asked, &parts, document),
                Route::Endpoint(Endpoint::Authorize, _) => authorization(&asked, &parts, body, peer).await,
                Route::Endpoint(Endpoint::Register, _) => registration(&asked, &parts, body, peer).await,
                _ => tokens(&asked, &parts, body).await,
            }
        }
        _ => of_passthrough(worker, view, route, &parts, &origin.to_string(), id).await,
    };
    public(response)
}

/// A server, how people sign in to it, and who asks, where that is known.
type SignedInAt<'v> = (&'v Arc<Server>, &'v Arc<SignIn>, Option<Person>);

async fn signed_in_at<'v>(
    worker: &'v Worker,
    view: View<'v>,
    route: Route<'_>,
    parts: &Parts,
    origin: &Origin,
    named: Named<'_>,
) -> Result<Option<SignedInAt<'v>>, NoVisitor> {
    if let Named::Id(id) = named {
        return by_id(worker, view, route, parts, origin, id).await;
    }
    let found = view.signed_in_at(named);
    Ok(found.map(|(server, sign_in)| (server, sign_in, None)))
}

/// The server with this id for the management's own way to the endpoints, on which no client stands: who takes it has a
/// key, or a browser that is signed in at the console, or the server asks for none. One that is only tried is for whoever
/// manages the gateway.
async fn by_id<'v>(
    worker: &'v Worker,
    view: View<'v>,
    route: Route<'_>,
    parts: &Parts,
    origin: &Origin,
    id: &str,
) -> Result<Option<SignedInAt<'v>>, NoVisitor> {
    let tried = worker.app.registry.trial(id, worker.app.clock.unix_seconds());
    let server = tried.or_else(|| view.by_id_or_name(id));
    let mut person = None;
    if !server.is_some_and(|server| server.admits_by_itself()) {
        let admission = match route {
            Route::Endpoint(Endpoint::Authorize, _) => console::visitor(worker, parts, origin, None).await?,
            _ => worker.app.gate.admit(&parts.headers)?,
        };
        if tried.is_some() {
            admin::manager(&admission)?;
        } else if let Some(server) = server {
            access::permit(&admission, server)?;
        }
        person = Person::admitted(&worker.app, &admission);
    }
    Ok(server.and_then(|server| Some((server, server.signed_in_through_us()?, person))))
}

/// What there is about a server whose clients sign in at its own authorization server: its metadata and nothing else.
async fn of_passthrough(
    worker: &Worker,
    view: View<'_>,
    route: Route<'_>,
    parts: &Parts,
    base: &str,
    id: RequestId,
) -> Response<Body> {
    let Route::Metadata(Document::ProtectedResource, identifier) = route else {
        return not_found(worker, id);
    };
    let Some(server) = view.passed_through_at(identifier.named) else {
        return not_found(worker, id);
    };
    match parts.method {
        Method::GET | Method::HEAD => metadata::of_server(worker, server, identifier, base)
            .await
            .unwrap_or_else(|refusal| worker.refuse(refusal, Some(server), id).into_plain(id)),
        Method::OPTIONS => cors::preflight(HeaderValue::from_static("*")),
        _ => wrong_method(worker, "GET, HEAD, OPTIONS", id),
    }
}

fn describe(asked: &Asked<'_>, parts: &Parts, document: Document) -> Response<Body> {
    match parts.method {
        Method::GET | Method::HEAD => metadata::document(asked, document),
        Method::OPTIONS => cors::preflight(HeaderValue::from_static("*")),
        _ => wrong_method(asked.worker, "GET, HEAD, OPTIONS", asked.id),
    }
}

async fn authorization<B: HttpBody<Data = Bytes>>(
    asked: &Asked<'_>,
    parts: &Parts,
    body: B,
    peer: IpAddr,
) -> Response<Body> {
    let address = asked.worker.app.addresses.of(asked.headers, peer).counted();
    if !asked.people.issuer.flood.admits_sign_in(address) {
        return authorize::too_many(asked);
    }
    let query = parts.uri.query().unwrap_or_default();
    match parts.method {
        Method::GET => authorize::authorize(asked, query, None).await,
        Method::POST => {
            let Ok(body) = asked.body(body).await else {
                note::step("consent");
                return oauth_error(
                    asked,
                    &OAuthError::new(OAuthErrorCode::InvalidRequest, "The body cannot be read."),
                );
            };
            let form = crate::web::parameters::Parameters::parse(&body).unwrap_or_default();
            let decision = match form.get("decision") {
                Some("approve") if asked.is_own_page() => Decision::Approve,
                _ => Decision::Deny,
            };
            authorize::authorize(
                asked,
                query,
                Some((decision, form.get("ticket").unwrap_or_default())),
            )
            .await
        }
        _ => wrong_method(asked.worker, "GET, POST", asked.id),
    }
}

async fn registration<B: HttpBody<Data = Bytes>>(
    asked: &Asked<'_>,
    parts: &Parts,
    body: B,
    peer: IpAddr,
) -> Response<Body> {
    match parts.method {
        Method::POST => {}
        Method::OPTIONS => return cors::preflight(HeaderValue::from_static("*")),
        _ => return wrong_method(asked.worker, "POST, OPTIONS", asked.id),
    }
    note::step("register");
    let result = async {
        asked
            .people
            .issuer
            .flood
            .admit_registration(asked.worker.app.addresses.of(asked.headers, peer).counted())?;
        let body = asked.body(body).await?;
        register::register(asked, &body).await
    };
    result.await.unwrap_or_else(|error| oauth_error(asked, &error))
}

async fn tokens<B: HttpBody<Data = Bytes>>(asked: &Asked<'_>, parts: &Parts, body: B) -> Response<Body> {
    match parts.method {
        Method::POST => {}
        Method::OPTIONS => return cors::preflight(HeaderValue::from_static("*")),
        _ => return wrong_method(asked.worker, "POST, OPTIONS", asked.id),
    }
    note::step("token");
    let result = async {
        let body = asked.body(body).await?;
        token::token(asked, &body).await
    };
    result.await.unwrap_or_else(|error| oauth_error(asked, &error))
}

impl Asked<'_> {
    async fn body<B: HttpBody<Data = Bytes>>(&self, body: B) -> Result<Bytes, OAuthError> {
        let limits = &self.worker.app.limits;
        read_body(body, register::BODY_LIMIT, limits.body_timeout)
            .await
            .map_err(|refusal| {
                OAuthError::new(OAuthErrorCode::InvalidRequest, &refusal.message)
                    .with_status(refusal.code.status().as_u16())
            })
    }

    fn is_own_page(&self) -> bool {
        is_own_page(self.headers, &self.origin)
    }
}

/// Whether a form comes from a page of this gateway's, as far as the browser says.
fn is_own_page(headers: &HeaderMap, own: &Origin) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let site = header("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let origin = header("origin").is_none_or(|text| Origin::parse(text).is_ok_and(|origin| origin == *own));
    site && origin
}

/// The one 404 for servers that are not there and servers that have no sign-in.
fn not_found(worker: &Worker, id: RequestId) -> Response<Body> {
    worker
        .refuse(Refusal::new(ErrorCode::NoSignIn), None, id)
        .into_plain(id)
}

/// The same, for a path that names a document and no identifier of ours.
pub(crate) fn no_document<B>(worker: &Worker, request: &Request<B>, id: RequestId) -> Response<Body> {
    let every_page = HeaderValue::from_static("*");
    if cors::is_preflight(request) {
        return cors::preflight(every_page);
    }
    let mut response = not_found(worker, id);
    cors::allow(response.headers_mut(), every_page);
    response
}

fn wrong_method(worker: &Worker, allow: &'static str, id: RequestId) -> Response<Body> {
    let refusal =
        Refusal::new(ErrorCode::MethodNotAllowed).with_header(header::ALLOW, HeaderValue::from_static(allow));
    worker.refuse(refusal, None, id).into_plain(id)
}

/// An error of the token or registration endpoint (RFC 6749 section 5.2), with the request id beside it.
fn oauth_error(asked: &Asked<'_>, error: &OAuthError) -> Response<Body> {
    oauth_error_of(&asked.server.name, asked.id, error)
}

/// The same; `server` is empty where none is known.
fn oauth_error_of(server: &str, id: RequestId, error: &OAuthError) -> Response<Body> {
    tracing::info!(request_id = %id, server, error = error.code.name(), "{}", error.description);
    note::failed(error.code.name(), Some(&error.description));
    let mut document = error.to_json();
    document["request_id"] = id.as_str().into();
    let status = error.status();
    let known = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = json::no_store(known, document.to_string());
    let headers = response.headers_mut();
    match status {
        // RFC 6749 section 5.2: a client that used the Authorization header is told the scheme.
        401 => {
            let challenge = HeaderValue::from_static("Basic realm=\"vestibule\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        429 | 503 => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        _ => {}
    }
    response
}

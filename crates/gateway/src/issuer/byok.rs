//! How an OAuth client gets to a server to which people bring keys of their own (`is_byok`): instead of a provider's
//! page, the person sees one of ours, and instead of a provider's token the client gets a session of the gateway's that
//! counts for this person and server ([`crate::admission::server_session`]). Who the person is, the browser's request
//! says, and never `client_id`.

mod code;
mod pages;

use super::callback::{redirect, to};
use super::codes::client_digest;
use super::metadata::resource;
use super::paths::{Document, Endpoint, Identifier, Named, Route};
use super::register::{self, Registering};
use super::{is_own_page, wrong_method};
use crate::admission::{Admission, server_session};
use crate::app::{People, Worker};
use crate::config::ByokPage;
use crate::credentials::person::Person;
use crate::http::console::{self, NoVisitor};
use crate::http::relay::read_body;
use crate::http::user_keys::{self, PLACE};
use crate::ids::RequestId;
use crate::policy::access;
use crate::registry::{Server, View};
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal, shown};
use crate::web::parameters::Parameters;
use crate::web::{cors, json, page};
use bytes::Bytes;
pub(super) use code::BroughtKeys;
use code::{NoCode, Record};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body as HttpBody;
use pages::{Ask, Step};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use url::form_urlencoded;
use vestibule_oauth::Trust;
use vestibule_oauth::error::OAuthError;
use vestibule_oauth::error::OAuthErrorCode::{
    InvalidGrant, InvalidRequest, ServerError, TemporarilyUnavailable, UnsupportedGrantType,
};
use vestibule_oauth::metadata::{OwnEndpoints, authorization_server_document, protected_resource_document};
use vestibule_oauth::origin::Origin;
use vestibule_oauth::pkce::CodeChallenge;
use vestibule_oauth::redirect_uri::JudgedRedirectUri;

const START_AGAIN: &str = "Start again from your MCP client.";

/// One request, at whichever address.
pub(super) struct Door<'a> {
    pub(super) worker: &'a Worker,
    pub(super) people: &'a People,
    pub(super) view: View<'a>,
    pub(super) origin: &'a Origin,
    pub(super) parts: &'a Parts,
    pub(super) peer: IpAddr,
    pub(super) id: RequestId,
}

/// A server to which people bring keys, and how it is spoken of.
#[derive(Clone, Copy)]
struct Known<'a> {
    server: &'a Arc<Server>,
    page: &'a ByokPage,
}

/// What a client wants, as far as it is right.
struct Wish {
    client_id: String,
    redirect_uri: JudgedRedirectUri,
    challenge: CodeChallenge,
    state: Option<String>,
}

/// Somebody in front of a browser.
struct Visitor {
    admission: Admission,
    person: Person,
}

impl<'a> Door<'a> {
    /// Answers at a server's own addresses; The body comes back where people bring no keys to what
    /// the identifier names.
    pub(super) async fn of_server<B>(
        &self,
        route: Route<'a>,
        identifier: Identifier<'a>,
        body: B,
    ) -> Result<Response<Body>, B>
    where
        B: HttpBody<Data = Bytes>,
    {
        let Some((server, page)) = self.view.brought_keys_at(identifier.named) else {
            return Err(body);
        };
        let known = Known { server, page };
        Ok(match route {
            Route::Metadata(document, _) => self.describe(known, identifier, document),
            Route::Endpoint(Endpoint::Authorize, _) => {
                let issuer = self.issuer(known, identifier);
                self.authorization(Some(known), Some(issuer), body).await
            }
            Route::Endpoint(Endpoint::Register, _) => self.registration(known, body).await,
            _ => self.tokens(Some(known), body).await,
        })
    }

    /// Answers at LiteLLM's addresses, where the request names the server.
    pub(super) async fn anywhere<B>(&self, endpoint: Endpoint, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        match endpoint {
            Endpoint::Authorize => self.authorization(None, None, body).await,
            Endpoint::Token | Endpoint::Register => self.tokens(None, body).await,
        }
    }

    /// The issuer identifier under which the client speaks to us.
    fn issuer(&self, known: Known<'_>, identifier: Identifier<'_>) -> String {
        match identifier.named {
            Named::Id(_) => format!("{}/{}", self.origin, known.server.name),
            _ => format!("{}{}", self.origin, identifier.path),
        }
    }

    fn describe(&self, known: Known<'_>, identifier: Identifier<'_>, document: Document) -> Response<Body> {
        match self.parts.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return cors::preflight(HeaderValue::from_static("*")),
            _ => return wrong_method(self.worker, "GET, HEAD, OPTIONS", self.id),
        }
        let document = match document {
            Document::ProtectedResource => {
                let resource = resource(known.server, identifier, &self.origin.to_string());
                let authorization_server = format!("{}/{}", self.origin, known.server.name);
                protected_resource_document(&resource, &authorization_server, &[])
            }
            Document::AuthorizationServer => {
                let issuer = self.issuer(known, identifier);
                let endpoints = OwnEndpoints {
                    authorization: &format!("{issuer}/authorize"),
                    token: &format!("{issuer}/token"),
                    registration: &format!("{issuer}/register"),
                    revocation: None,
                };
                let mut document = authorization_server_document(&issuer, &endpoints, &[]);
                document["grant_types_supported"] = json!(["authorization_code"]);
                document["token_endpoint_auth_methods_supported"] = json!(["none"]);
                document
            }
        };
        json::no_store(StatusCode::OK, document.to_string())
    }

    async fn registration<B>(&self, known: Known<'_>, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        match self.parts.method {
            Method::POST => {}
            Method::OPTIONS => return cors::preflight(HeaderValue::from_static("*")),
            _ => return wrong_method(self.worker, "POST, OPTIONS", self.id),
        }
        let result = async {
            let issuer = &self.people.issuer;
            issuer.flood.admit_registration(self.address())?;
            let body = self.body(body).await?;
            let registering = Registering {
                worker: self.worker,
                server: known.server,
                origin: self.origin,
                id: self.id,
            };
            let metadata = registering.judged(&body, |uri| uri.trust() == Trust::Loopback)?;
            registering.issued(&issuer.clients, metadata, false, &["authorization_code"])
        };
        result.await.unwrap_or_else(|error| self.oauth_error(&error))
    }

    fn address(&self) -> IpAddr {
        self.worker
            .app
            .addresses
            .of(&self.parts.headers, self.peer)
            .counted()
    }

    async fn body<B: HttpBody<Data = Bytes>>(&self, body: B) -> Result<Bytes, OAuthError> {
        let limits = &self.worker.app.limits;
        read_body(body, register::BODY_LIMIT, limits.body_timeout)
            .await
            .map_err(|refusal| {
                OAuthError::new(InvalidRequest, &refusal.message).with_status(refusal.code.status().as_u16())
            })
    }

    fn oauth_error(&self, error: &OAuthError) -> Response<Body> {
        super::oauth_error_of("", self.id, error)
    }

    /// The page, and what the person says on it.
    async fn authorization<B>(
        &self,
        known: Option<Known<'a>>,
        issuer: Option<String>,
        body: B,
    ) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        if !self.people.issuer.flood.admits_sign_in(self.address()) {
            return self.failure(
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "Too many sign-ins were begun from your network just now.",
                "Wait a minute, then start again from your MCP client.",
            );
        }
        let answered = self.parts.method == Method::POST;
        let text = match self.parts.method {
            Method::GET => Bytes::copy_from_slice(self.parts.uri.query().unwrap_or_default().as_bytes()),
            Method::POST => match self.body(body).await {
                Ok(body) => body,
                Err(error) => return self.invalid(&error.description),
            },
            _ => return wrong_method(self.worker, "GET, POST", self.id),
        };
        let Ok(parameters) = Parameters::parse(&text) else {
            return self.invalid("A parameter stands several times.");
        };
        let wish = match self.wish(&parameters) {
            Ok(wish) => wish,
            Err(text) => return self.invalid(text),
        };
        let visitor = match self.visitor(&text).await {
            Ok(visitor) => visitor,
            Err(NoVisitor::SignIn(path)) => return to(StatusCode::SEE_OTHER, &path),
            Err(NoVisitor::Refused(refusal)) => return self.refused(&refusal),
        };
        let named = || {
            let (server, page) = self
                .view
                .brought_keys_at(Named::Id(parameters.get("server_id")?))?;
            Some(Known { server, page })
        };
        let Some(known) = known.or_else(named) else {
            return self.refused(&Refusal::new(ErrorCode::NotByok));
        };
        if let Err(refusal) = access::permit(&visitor.admission, known.server) {
            return self.refused(&refusal);
        }
        let has_key = match self.people.own_keys.has(&visitor.person, known.server).await {
            Ok(has_key) => has_key,
            Err(error) => {
                tracing::error!(request_id = %self.id, %error, "the store failed");
                return self.refused(&Refusal::new(ErrorCode::StoreUnavailable));
            }
        };
        let ask = Ask {
            server: known.server,
            page: known.page,
            wish: &wish,
            person: visitor.person.id().as_str(),
            has_key,
        };
        if !answered {
            let step = Step::named(parameters.get("step"));
            return page::respond(StatusCode::OK, ask.html(step, None));
        }
        if !is_own_page(&self.parts.headers, self.origin) {
            return self.invalid("The form comes from another site.");
        }
        let place = parameters.get(PLACE).unwrap_or_default();
        if let Err(refusal) = user_keys::judge_place(known.server, place) {
            let refusal = self.worker.refuse(refusal, Some(known.server), self.id);
            let html = ask.html(Step::Key, Some(&refusal.message));
            return page::respond(refusal.code.status(), html);
        }
        let key = parameters.get("api_key").map(SecretString::from);
        match &key {
            None if has_key => {}
            None => {
                return page::respond(
                    StatusCode::BAD_REQUEST,
                    ask.html(Step::Key, Some("There is no key.")),
                );
            }
            Some(key) => {
                if let Err(refusal) = user_keys::judge(known.server, key) {
                    let html = ask.html(Step::Key, Some(&refusal.message));
                    return page::respond(StatusCode::BAD_REQUEST, html);
                }
            }
        }
        let issuer = issuer.unwrap_or_else(|| format!("{}/{}", self.origin, known.server.name));
        self.give_code(known, &wish, &visitor, key, &issuer).await
    }

    async fn give_code(
        &self,
        known: Known<'_>,
        wish: &Wish,
        visitor: &Visitor,
        key: Option<SecretString>,
        issuer: &str,
    ) -> Response<Body> {
        let app = &self.worker.app;
        let Some(holder) = app.gate.holder(&visitor.admission, visitor.person.id()) else {
            return self.refused(&Refusal::new(ErrorCode::NoPerson));
        };
        let record = Record {
            server: known.server.id.clone(),
            place: known.server.endpoint.place(),
            holder,
            redirect_uri: wish.redirect_uri.as_str().to_owned(),
            challenge: wish.challenge.as_str().to_owned(),
            client: client_digest(&wish.client_id),
            key: key.map(|key| key.expose_secret().to_owned()),
        };
        let own = &self.people.issuer;
        let now = app.clock.unix_seconds();
        match own.brought_keys.give(&own.codes, &record, now).await {
            Ok(code) => redirect(
                StatusCode::FOUND,
                &wish.redirect_uri,
                &[
                    ("code", Some(code.as_str())),
                    ("state", wish.state.as_deref()),
                    ("iss", Some(issuer)),
                ],
            ),
            Err(NoCode::TooMany) => self.failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "Too many people are connecting just now.",
                "Wait a few minutes, then start again from your MCP client.",
            ),
            Err(NoCode::Store(error)) => {
                tracing::error!(request_id = %self.id, %error, "a code could not be kept");
                self.refused(&Refusal::new(ErrorCode::StoreUnavailable))
            }
        }
    }

    /// What has to be right before anything is shown, and long before a browser is sent anywhere.
    fn wish(&self, parameters: &Parameters) -> Result<Wish, &'static str> {
        let uri = parameters.get("redirect_uri").unwrap_or_default();
        let judged = self.worker.app.redirects.judge(uri, self.origin);
        let redirect_uri = judged
            .ok()
            .filter(|judged| judged.trust() == Trust::Loopback)
            .ok_or_else(|| {
                tracing::warn!(request_id = %self.id, redirect_uri = %shown(uri, 300), "a redirect URI that is not of the person's own machine");
                "The redirect_uri has to be a loopback address."
            })?;
        if parameters.get("response_type").unwrap_or("code") != "code" {
            return Err("The response_type has to be code.");
        }
        if parameters.get("code_challenge_method") != Some("S256") {
            return Err("The code_challenge_method has to be S256.");
        }
        let challenge = parameters.get("code_challenge").unwrap_or_default();
        let challenge =
            CodeChallenge::s256(challenge).map_err(|_| "The code_challenge is no S256 challenge.")?;
        let client_id = parameters.get("client_id").ok_or("client_id is missing.")?;
        Ok(Wish {
            client_id: client_id.to_owned(),
            redirect_uri,
            challenge,
            state: parameters.get("state").map(str::to_owned),
        })
    }

    /// Whoever sits in front of the browser, as its own request says. `form` is what was filled in, if it was.
    async fn visitor(&self, form: &[u8]) -> Result<Visitor, NoVisitor> {
        let before = (self.parts.method == Method::POST).then(|| self.page_of(form));
        let admission = console::visitor(self.worker, self.parts, self.origin, before).await?;
        let person = Person::admitted(&self.worker.app, &admission)
            .ok_or_else(|| NoVisitor::Refused(Refusal::new(ErrorCode::NoPerson)))?;
        Ok(Visitor { admission, person })
    }

    /// The page that a form stood on, without the key.
    fn page_of(&self, form: &[u8]) -> String {
        const ITS_OWN: [&str; 3] = ["api_key", PLACE, "step"];
        let fields = form_urlencoded::parse(form).filter(|(name, _)| !ITS_OWN.contains(&name.as_ref()));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .append_pair("step", "key")
            .finish();
        format!("{}?{query}", self.parts.uri.path())
    }

    fn invalid(&self, text: &str) -> Response<Body> {
        self.failure(StatusCode::BAD_REQUEST, "invalid_request", text, START_AGAIN)
    }

    fn refused(&self, refusal: &Refusal) -> Response<Body> {
        let refusal = self.worker.refuse(refusal.clone(), None, self.id);
        let code = refusal.code;
        self.failure(code.status(), code.name(), &refusal.message, code.next_step())
    }

    fn failure(&self, status: StatusCode, error: &str, text: &str, step: &str) -> Response<Body> {
        let mut response = page::failure(error, Some(text), &[step], self.id);
        *response.status_mut() = status;
        response
    }

    /// `known` is the server at whose address the code is shown, if it is one's own.
    async fn tokens<B>(&self, known: Option<Known<'_>>, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        match self.parts.method {
            Method::POST => {}
            Method::OPTIONS => return cors::preflight(HeaderValue::from_static("*")),
            _ => return wrong_method(self.worker, "POST, OPTIONS", self.id),
        }
        let result = async {
            let body = self.body(body).await?;
            self.token(known, &body).await
        };
        result.await.unwrap_or_else(|error| self.oauth_error(&error))
    }

    async fn token(&self, known: Option<Known<'_>>, body: &[u8]) -> Result<Response<Body>, OAuthError> {
        let parameters = Parameters::parse(body).map_err(|repeated| {
            let text = format!("The parameter {} stands several times.", shown(&repeated.0, 40));
            OAuthError::new(InvalidRequest, text)
        })?;
        let wanted = |name: &'static str| {
            let missing = || OAuthError::new(InvalidRequest, format!("{name} is missing."));
            parameters.get(name).ok_or_else(missing)
        };
        if wanted("grant_type")? != "authorization_code" {
            let text = "The grant_type has to be authorization_code.";
            return Err(OAuthError::new(UnsupportedGrantType, text));
        }
        let (code, verifier) = (wanted("code")?, wanted("code_verifier")?);
        let own = &self.people.issuer;
        let app = &self.worker.app;
        let record = own
            .brought_keys
            .take(&own.codes, code, app.clock.unix_seconds())
            .await;
        let refused = || {
            let text = "The code is none that this gateway gave to this client, or it was used already.";
            OAuthError::new(InvalidGrant, text)
        };
        let record = record
            .map_err(|error| self.unavailable(&error))?
            .ok_or_else(refused)?;
        let is_bound = |name, bound: &str| parameters.get(name).is_none_or(|text| text == bound);
        let met = CodeChallenge::s256(&record.challenge).is_ok_and(|challenge| challenge.is_met_by(verifier));
        let same_client = parameters
            .get("client_id")
            .is_none_or(|id| client_digest(id) == record.client);
        if !met || !same_client || !is_bound("redirect_uri", &record.redirect_uri) {
            return Err(refused());
        }
        let server = self.view.by_id_or_name(&record.server).filter(|server| {
            let at_its_own = known.is_none_or(|known| Arc::ptr_eq(known.server, server));
            let in_its_place = server.endpoint.place() == record.place;
            server.id == record.server && server.byok().is_some() && in_its_place && at_its_own
        });
        let (Some(server), Some((principal, user))) = (server, app.gate.behind(&record.holder)) else {
            return Err(refused());
        };
        let admission = Admission::of_session(principal, Some(user.clone()));
        access::permit(&admission, server).map_err(|_| refused())?;
        if let Some(key) = record.key {
            let (key, person) = (SecretString::from(key), Person::kept_under(user));
            user_keys::judge(server, &key).map_err(|_| refused())?;
            user_keys::keep(self.worker, &admission, &person, server, &key, self.id)
                .await
                .map_err(|refusal| match refusal.code {
                    ErrorCode::ServerChanged => OAuthError::new(InvalidGrant, &refusal.message),
                    _ => OAuthError::new(TemporarilyUnavailable, &refusal.message).with_status(503),
                })?;
        }
        let session = app
            .gate
            .session(&record.holder, server)
            .ok_or_else(|| OAuthError::new(ServerError, "The session is too long."))?;
        let answer = json!({
            "access_token": session.expose_secret(),
            "token_type": "Bearer",
            "expires_in": server_session::LIFE,
        });
        Ok(json::no_store(StatusCode::OK, answer.to_string()))
    }

    fn unavailable(&self, error: &vestibule_store::StoreError) -> OAuthError {
        tracing::error!(request_id = %self.id, %error, "the store failed");
        let text = "The gateway's database does not answer; try again.";
        OAuthError::new(TemporarilyUnavailable, text).with_status(503)
    }
}

//! One message to one server: headers built up from an allow-list, the credential resolved for this call,
//! redirects within the origin followed, a refused machine token replaced once.

use crate::admission::Admission;
use crate::app::Worker;
use crate::config::SignIn;
use crate::credentials::machine::{AfterRefusal, Slot, TokenError};
use crate::credentials::person::{NoToken, Person};
use crate::credentials::{CredentialSource, OutboundCredential};
use crate::diagnosis::AuthResolution;
use crate::net::pool::SendFault;
use crate::net::stream::UpstreamBody;
use crate::net::token_endpoint::TokenFault;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, Wanted};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;
use vestibule_mcp::headers::{MCP_SESSION_ID, crosses_upstream};
use vestibule_oauth::TokenResponseFault;

/// Redirects followed for one call.
const MAX_REDIRECTS: usize = 3;

/// A message for a server.
pub(super) struct Call<'c> {
    pub(super) worker: &'c Worker,
    pub(super) server: &'c Arc<Server>,
    pub(super) admission: &'c Admission,
    pub(super) method: &'c Method,
    /// The client's headers, of which the allowed ones go along.
    pub(super) headers: &'c HeaderMap,
    /// The server's own session id.
    pub(super) session: Option<&'c HeaderValue>,
    pub(super) body: Bytes,
}

/// What came back, and what was shown to get it.
pub(super) struct Answer {
    pub(super) response: Response<UpstreamBody>,
    pub(super) resolution: AuthResolution,
}

impl Call<'_> {
    /// What this server is shown, as far as it is known before anything is sent.
    pub(super) fn intended(&self) -> AuthResolution {
        match self.server.credential {
            CredentialSource::None => AuthResolution::NoAuth,
            CredentialSource::Static(_) => AuthResolution::StaticToken,
            CredentialSource::Machine(_) => AuthResolution::MachineToken,
            CredentialSource::Person(_) => AuthResolution::StoredUserToken,
        }
    }

    /// Sends the message.
    pub(super) async fn forward(&self) -> Result<Answer, Refusal> {
        match &self.server.credential {
            CredentialSource::None => self.send(None).await,
            CredentialSource::Static(credential) => self.send(Some(credential)).await,
            CredentialSource::Machine(slot) => self.with_token(slot).await,
            CredentialSource::Person(sign_in) => self.for_person(sign_in).await,
        }
    }

    /// With a machine token. If the server refuses it, another one is asked for, and shown, once.
    async fn with_token(&self, slot: &Slot) -> Result<Answer, Refusal> {
        let mut retried = false;
        loop {
            let token = slot.token().await.map_err(no_token)?;
            let answer = self
                .send(Some(&OutboundCredential::authorization(token.header())))
                .await?;
            if answer.response.status() != StatusCode::UNAUTHORIZED {
                slot.accepted(&token);
                return Ok(answer);
            }
            if slot.refused(&token) != AfterRefusal::Retry || retried {
                return Err(Refusal::new(ErrorCode::UpstreamRefusedToken));
            }
            retried = true;
        }
    }

    /// With the token that the caller brought, or else the one that is kept for the person behind it. If the server
    /// refuses the latter, another one is got, and shown, once.
    async fn for_person(&self, sign_in: &Arc<SignIn>) -> Result<Answer, Refusal> {
        let app = &self.worker.app;
        if let Some(credential) = self.own_credential() {
            let response = self.send(Some(&credential)).await?.response;
            if let (StatusCode::UNAUTHORIZED, Some(people)) = (response.status(), &app.people) {
                people.persons.note_refusal(&credential.value);
            }
            return Ok(Answer {
                response,
                resolution: AuthResolution::OAuth2Passthrough,
            });
        }
        let (Some(person), Some(people)) = (Person::admitted(app, self.admission), &app.people) else {
            return Err(self.sign_in_required(sign_in));
        };
        let persons = &people.persons;
        let no_token = |error| match error {
            NoToken::SignIn => self.sign_in_required(sign_in),
            error => not_now(error),
        };
        let token = persons
            .token(&person, self.server, sign_in)
            .await
            .map_err(no_token)?;
        let answer = self
            .send(Some(&OutboundCredential::authorization(token.header())))
            .await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let token = persons.after_refusal(&person, self.server, sign_in, &token).await;
        match token {
            Ok(token) => {
                self.send(Some(&OutboundCredential::authorization(token.header())))
                    .await
            }
            // There is no other one, so the server's refusal is the answer, and says which scope it wants.
            Err(NoToken::SignIn) => Ok(answer),
            Err(error) => Err(not_now(error)),
        }
    }

    /// The scope is the configured one, or the one that the server is known to ask for.
    fn sign_in_required(&self, sign_in: &SignIn) -> Refusal {
        let learned = || {
            let people = self.worker.app.people.as_ref()?;
            let known = people.issuer.discovery.known(&sign_in.upstream(self.server))?;
            (!known.scopes.is_empty()).then(|| known.scopes.join(" "))
        };
        let configured = (!sign_in.scopes.is_empty()).then(|| sign_in.scopes.join(" "));
        Refusal::new(ErrorCode::SignInRequired).with_sign_in(Wanted {
            server: self.server.name.clone(),
            error: None,
            scope: configured.or_else(learned),
        })
    }

    /// The caller's `Authorization`, unless it holds a gateway key.
    fn own_credential(&self) -> Option<OutboundCredential> {
        let value = self
            .headers
            .get(header::AUTHORIZATION)
            .filter(|value| !value.is_empty())?;
        let is_ours = self.worker.app.gate.carries_key(self.admission, value);
        (!is_ours).then(|| {
            let mut value = value.clone();
            value.set_sensitive(true);
            OutboundCredential::authorization(&value)
        })
    }

    /// The headers for the server, and whether the caller's `Authorization` is among them. Built up from
    /// nothing: a gateway key has no way in, and a value that holds one stays out.
    fn headers(&self, credential: Option<&OutboundCredential>) -> (HeaderMap, bool) {
        let server = self.server;
        let mut headers = HeaderMap::with_capacity(server.base_headers.len() + self.headers.len() + 2);
        headers.extend(
            server
                .base_headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let mut passed_on = false;
        let named = self.headers.contains_key(header::CONNECTION);
        for (name, value) in self.headers {
            let allowed = crosses_upstream(name) || server.extra_headers.contains(name);
            if !allowed || server.base_headers.contains_key(name) {
                continue;
            }
            if named && is_named_by_connection(name, self.headers) {
                continue;
            }
            if self.worker.app.gate.carries_key(self.admission, value) {
                tracing::warn!(server = %server.name, header = %name, "a header that holds the gateway key was not passed on");
                continue;
            }
            passed_on |= name == header::AUTHORIZATION;
            headers.append(name.clone(), value.clone());
        }
        if let Some(session) = self.session {
            headers.insert(MCP_SESSION_ID, session.clone());
        }
        if let Some(credential) = credential {
            headers.insert(credential.name.clone(), credential.value.clone());
        }
        (headers, passed_on)
    }

    async fn send(&self, credential: Option<&OutboundCredential>) -> Result<Answer, Refusal> {
        let mut target = self.server.target.clone();
        let mut base = None;
        for hop in 0..=MAX_REDIRECTS {
            let (headers, passed_on) = self.headers(credential);
            let response = self.send_to(target, headers).await?;
            let status = response.status();
            if !status.is_redirection() {
                // Beside a credential of ours the server's 401 or 403 is about ours.
                let resolution = if passed_on && matches!(self.server.credential, CredentialSource::None) {
                    AuthResolution::OAuth2Passthrough
                } else {
                    self.intended()
                };
                return Ok(Answer { response, resolution });
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location =
                location.and_then(|text| base.as_ref().unwrap_or(&self.server.url).join(text).ok());
            target = match location {
                Some(url)
                    if hop < MAX_REDIRECTS
                        && keeps_method(status)
                        && url.origin() == self.server.url.origin() =>
                {
                    let path = path_of(&url).ok_or_else(|| redirected(status, Some(&url)))?;
                    base = Some(url);
                    path
                }
                other => return Err(redirected(status, other.as_ref())),
            };
        }
        Err(Refusal::new(ErrorCode::UpstreamRedirect))
    }

    async fn send_to(&self, target: Uri, headers: HeaderMap) -> Result<Response<UpstreamBody>, Refusal> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        let pool = self.worker.pool(self.server);
        match timeout(self.server.first_byte_timeout, pool.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(fault)) => Err(self.no_answer(fault)),
            Err(_) => Err(Refusal::because(
                ErrorCode::UpstreamTimeout,
                format!(
                    "The MCP server {} did not begin its answer within {} s.",
                    self.server.name,
                    self.server.first_byte_timeout.as_secs_f64()
                ),
            )),
        }
    }

    fn no_answer(&self, fault: SendFault) -> Refusal {
        let name = &self.server.name;
        match fault {
            SendFault::Unreachable(why) => Refusal::because(
                ErrorCode::UpstreamUnreachable,
                format!("The MCP server {name} cannot be reached ({why})."),
            ),
            SendFault::ConnectTimeout => Refusal::because(
                ErrorCode::UpstreamConnectTimeout,
                format!("The MCP server {name} did not take a connection in time."),
            ),
            SendFault::NotHttp(why) => Refusal::because(
                ErrorCode::UpstreamNotMcp,
                format!("What came from the MCP server {name} is not HTTP ({why})."),
            ),
            SendFault::Closed(why) => Refusal::because(
                ErrorCode::UpstreamClosed,
                format!("The MCP server {name} closed the connection without an answer ({why})."),
            ),
        }
    }
}

/// Whether the client meant the header for the gateway alone (RFC 9110 section 7.6.1).
fn is_named_by_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    lines.any(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',');
        names.any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// 307 and 308 keep method and body (RFC 9110 sections 15.4.8 and 15.4.9).
fn keeps_method(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    )
}

fn path_of(url: &Url) -> Option<Uri> {
    url[url::Position::BeforePath..url::Position::AfterQuery]
        .parse()
        .ok()
}

/// Names the origin of the redirect, not its path or query, which may hold secrets.
fn redirected(status: StatusCode, location: Option<&Url>) -> Refusal {
    let to = location.map_or_else(|| "nowhere".to_owned(), |url| url.origin().ascii_serialization());
    let message = format!(
        "The MCP server answered with a redirect ({}) to {to}, which is not followed.",
        status.as_u16()
    );
    Refusal::because(ErrorCode::UpstreamRedirect, message)
}

fn not_now(error: NoToken) -> Refusal {
    match error {
        NoToken::SignIn => Refusal::new(ErrorCode::SignInRequired),
        NoToken::Renewal(fault) => {
            tracing::debug!(%fault, "no renewal");
            let mut refusal = Refusal::new(ErrorCode::RenewalFailed);
            refusal.retry_after = Some(Duration::from_secs(10));
            refusal
        }
        NoToken::Store(error) => {
            tracing::error!(%error, "the store failed");
            Refusal::new(ErrorCode::StoreUnavailable)
        }
    }
}

fn no_token(error: TokenError) -> Refusal {
    let code = match &error.fault {
        TokenFault::Unreachable(_) => ErrorCode::TokenEndpointUnreachable,
        TokenFault::Timeout => ErrorCode::TokenEndpointTimeout,
        TokenFault::Response(TokenResponseFault::Refused(_)) => ErrorCode::TokenRefused,
        TokenFault::Response(TokenResponseFault::Redirect(_)) => ErrorCode::TokenEndpointRedirect,
        TokenFault::TooLarge | TokenFault::Truncated | TokenFault::Response(_) => {
            ErrorCode::TokenResponseInvalid
        }
    };
    let mut refusal = Refusal::because(code, format!("No token for this MCP server: {}.", error.fault));
    refusal.retry_after = Some(error.retry_after);
    if let TokenFault::Response(TokenResponseFault::Refused(response)) = error.fault {
        refusal.oauth = Some(Box::new(response));
    }
    refusal
}

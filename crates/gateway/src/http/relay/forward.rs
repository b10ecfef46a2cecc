//! One message to one server: headers built up from an allow-list, the credential resolved for this call,
//! redirects within the origin followed, a refused machine token replaced once.

use super::bridged::not_bridged;
use super::headers::PassedOn;
use crate::admission::{Admission, Principal};
use crate::app::Worker;
use crate::audit::note;
use crate::config::{Passthrough, SignIn};
use crate::credentials::aws_sigv4::Unsignable;
use crate::credentials::machine::{AfterRefusal, Slot, TokenError};
use crate::credentials::per_request::PerRequest;
use crate::credentials::person::{NoToken, Person};
use crate::credentials::{CredentialSource, OutboundCredential, passthrough};
use crate::diagnosis::AuthResolution;
use crate::net::bridge::BridgeFault;
use crate::net::pool::SendFault;
use crate::net::stream::UpstreamBody;
use crate::net::token_endpoint::TokenFault;
use crate::net::transport::Endpoint;
use crate::policy::access;
use crate::registry::Server;
use crate::registry::health::{HealthFault, Step};
use crate::web::error::{ErrorCode, Refusal, Wanted};
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;
use vestibule_oauth::TokenResponseFault;

/// Redirects followed for one call.
const MAX_REDIRECTS: usize = 3;

/// Whose the caller's `Authorization` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// The request is for this server alone, so the token is meant for it, and `x-mcp-auth` too.
    ForThisServer,
    /// The request has several servers, and among them only one party takes the token. `x-mcp-auth`, which each of them
    /// would take, is nobody's.
    ForTheOnlyTaker,
    /// The request has several servers: a token for one of them must not reach another.
    Withheld,
}

/// A message for a server.
pub(super) struct Call<'c> {
    pub(super) worker: &'c Worker,
    pub(super) server: &'c Arc<Server>,
    pub(super) admission: &'c Admission,
    pub(super) bearer: Bearer,
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
        if self.brought().is_ok_and(|brought| brought.has_credential()) {
            return AuthResolution::PerRequestHeader;
        }
        self.configured()
    }

    fn configured(&self) -> AuthResolution {
        match self.server.credential {
            CredentialSource::None => AuthResolution::NoAuth,
            CredentialSource::Static(_) => AuthResolution::StaticToken,
            CredentialSource::Machine(_) => AuthResolution::MachineToken,
            CredentialSource::Byok(_) => AuthResolution::StoredUserKey,
            CredentialSource::Person(_) => AuthResolution::StoredUserToken,
            CredentialSource::Caller(mode, ref bridge) => match self.callers_token(mode, bridge.is_some()) {
                Ok(Some(_)) => AuthResolution::OAuth2Passthrough,
                Ok(None) | Err(_) => AuthResolution::NoAuth,
            },
            CredentialSource::AwsSigV4(_) => AuthResolution::AwsSigV4,
            CredentialSource::OnBehalf(ref exchange) => exchange.resolution(),
        }
    }

    /// Sends the message.
    pub(super) async fn forward(&self) -> Result<Answer, Refusal> {
        let answer = self.forwarded().await;
        match &answer {
            Ok(answer) => {
                note::resolution(answer.resolution);
                let status = answer.response.status();
                if status.is_success() {
                    self.server.health.answered(self.worker.app.clock.unix_seconds());
                } else if status.is_server_error() && self.method == Method::POST {
                    // Not every server that has no stream to GET says so with 405.
                    let message = format!(
                        "The MCP server {} answered with status {status}.",
                        self.server.name
                    );
                    self.did_not_get_there(ErrorCode::UpstreamError, message);
                }
            }
            Err(refusal) => {
                note::resolution(self.intended());
                if is_on_the_way(refusal.code) {
                    self.did_not_get_there(refusal.code, refusal.message.clone().into_owned());
                }
            }
        }
        answer
    }

    /// What the call came to is a sign of the server's health. Of whoever comes without a key only that there is no
    /// connection: anything else may be of their own making.
    fn did_not_get_there(&self, code: ErrorCode, message: String) {
        let has_key = matches!(self.admission.principal, Principal::Master | Principal::Key(_));
        let no_connection = matches!(
            code,
            ErrorCode::UpstreamUnreachable | ErrorCode::UpstreamConnectTimeout
        );
        if !has_key && !no_connection {
            return;
        }
        let step = Step::of(code);
        let fault = HealthFault { code, step, message };
        self.server
            .health
            .failed(fault, self.worker.app.clock.unix_seconds());
    }

    async fn forwarded(&self) -> Result<Answer, Refusal> {
        access::permit(self.admission, self.server)?;
        let brought = self.brought()?;
        if brought.has_credential() {
            return self.with_the_callers(&brought).await;
        }
        match &self.server.credential {
            CredentialSource::None => self.send(None, &brought).await,
            CredentialSource::AwsSigV4(signer) => self.signed(signer, &brought).await,
            CredentialSource::Static(credential) => self.send(Some(credential), &brought).await,
            CredentialSource::Byok(_) => self.with_own_key(&brought).await,
            CredentialSource::Machine(slot) => self.with_token(slot, &brought, no_token).await,
            CredentialSource::OnBehalf(exchange) => self.on_behalf(exchange, &brought).await,
            CredentialSource::Person(sign_in) => self.for_person(sign_in, &brought).await,
            CredentialSource::Caller(mode, bridge) => {
                let token = self.callers_token(*mode, bridge.is_some())?;
                if token.is_none() && mode.always_has_token() {
                    return Err(self.token_required(None));
                }
                self.send(token.as_ref(), &brought).await
            }
        }
    }

    /// With the credential that the caller brought for this server, and none of ours.
    async fn with_the_callers(&self, brought: &PerRequest) -> Result<Answer, Refusal> {
        let response = self.send(None, brought).await?.response;
        if let (StatusCode::UNAUTHORIZED, Some(people), Some(token)) = (
            response.status(),
            &self.worker.app.people,
            brought.get(&self.server.token_header),
        ) {
            people.persons.note_refusal(token);
        }
        Ok(Answer {
            response,
            resolution: AuthResolution::PerRequestHeader,
        })
    }

    /// What the caller brought for the server: its `Authorization`, out of its envelope where it came in one. What is
    /// kept for anybody is out of reach here.
    fn callers_token(&self, mode: Passthrough, bridged: bool) -> Result<Option<OutboundCredential>, Refusal> {
        let value = self.headers.get(header::AUTHORIZATION);
        let sealed =
            value.filter(|value| bridged && self.bearer != Bearer::Withheld && passthrough::is_in(value));
        let Some(sealed) = sealed else {
            return Ok(self.own_credential());
        };
        let app = &self.worker.app;
        let holder = (mode, &self.admission.principal);
        let opened = app
            .envelopes
            .open(sealed, &self.server.id, holder, app.clock.unix_seconds());
        match opened {
            Some(value) => Ok(Some(self.server.bearer(&value))),
            None => Err(self.token_required(Some("invalid_token"))),
        }
    }

    /// The caller has to bring another token, or one at all; `error` as in RFC 6750 section 3.1.
    pub(super) fn token_required(&self, error: Option<&'static str>) -> Refusal {
        let scopes = self.server.bridge().map(|sign_in| sign_in.scopes.join(" "));
        Refusal::new(ErrorCode::CallersTokenRequired).with_sign_in(Wanted {
            server: self.server.name.clone(),
            error,
            scope: scopes.filter(|scopes| !scopes.is_empty()),
            ..Wanted::default()
        })
    }

    /// With the slot's token. If the server refuses it, another one is asked for, and shown, once.
    pub(super) async fn with_token(
        &self,
        slot: &Slot,
        brought: &PerRequest,
        no_token: impl Fn(TokenError) -> Refusal,
    ) -> Result<Answer, Refusal> {
        let mut retried = false;
        loop {
            let token = slot.token().await.map_err(&no_token)?;
            let answer = self
                .send(Some(&self.server.bearer(token.header())), brought)
                .await?;
            if answer.response.status() != StatusCode::UNAUTHORIZED {
                slot.accepted(&token);
                return Ok(answer);
            }
            if slot.refused(&token) != AfterRefusal::Retry || retried {
                return Err(Refusal::new(ErrorCode::UpstreamRefusedToken));
            }
            note::retried();
            retried = true;
        }
    }

    /// With the key that the person behind the caller brought once.
    async fn with_own_key(&self, brought: &PerRequest) -> Result<Answer, Refusal> {
        let app = &self.worker.app;
        let wanted = || self.own_key_wanted(ErrorCode::ByokAuthRequired, None);
        let (Some(person), Some(people)) = (Person::admitted(app, self.admission), &app.people) else {
            return Err(wanted());
        };
        let key = people.own_keys.credential(&person, self.server).await;
        let key = key.map_err(|error| not_now(error.into()))?;
        self.send(Some(&key.ok_or_else(wanted)?), brought).await
    }

    /// The person has to bring a key, or another one; `error` as in RFC 6750 section 3.1.
    pub(super) fn own_key_wanted(&self, code: ErrorCode, error: Option<&'static str>) -> Refusal {
        Refusal::new(code).with_sign_in(Wanted {
            server: self.server.name.clone(),
            server_id: Some(self.server.id.clone()),
            error,
            ..Wanted::default()
        })
    }

    /// With the token that the caller brought, or else the one that is kept for the person behind it. If the server
    /// refuses the latter, another one is got, and shown, once.
    async fn for_person(&self, sign_in: &Arc<SignIn>, brought: &PerRequest) -> Result<Answer, Refusal> {
        let app = &self.worker.app;
        if let Some(credential) = self.own_credential() {
            let response = self.send(Some(&credential), brought).await?.response;
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
            .send(Some(&self.server.bearer(token.header())), brought)
            .await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let token = persons.after_refusal(&person, self.server, sign_in, &token).await;
        match token {
            Ok(token) => {
                note::retried();
                self.send(Some(&self.server.bearer(token.header())), brought)
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
            scope: configured.or_else(learned),
            ..Wanted::default()
        })
    }

    /// The caller's `Authorization`, unless it holds a gateway key.
    pub(super) fn own_credential(&self) -> Option<OutboundCredential> {
        if self.bearer == Bearer::Withheld {
            return None;
        }
        let value = self
            .headers
            .get(header::AUTHORIZATION)
            .filter(|value| !value.is_empty())?;
        (!self.holds_key(value)).then(|| {
            let mut value = value.clone();
            value.set_sensitive(true);
            self.server.bearer(&value)
        })
    }

    async fn send(
        &self,
        credential: Option<&OutboundCredential>,
        brought: &PerRequest,
    ) -> Result<Answer, Refusal> {
        self.send_with(credential, None, brought).await
    }

    /// With a credential, or signed with `key` where requests are.
    pub(super) async fn send_with(
        &self,
        credential: Option<&OutboundCredential>,
        key: Option<&Credentials>,
        brought: &PerRequest,
    ) -> Result<Answer, Refusal> {
        let address = match &self.server.endpoint {
            Endpoint::Http(address) => address,
            // A bridge knows itself where to; a redirect is a refusal there.
            Endpoint::Sse(_) | Endpoint::Stdio(_) => {
                let (headers, passed_on) = self.headers(credential, brought);
                let response = self.send_to(Uri::default(), headers).await?;
                return Ok(self.answered(response, credential, passed_on));
            }
        };
        let mut target = address.target.clone();
        let mut base = None;
        for hop in 0..=MAX_REDIRECTS {
            let (mut headers, passed_on) = self.headers(credential, brought);
            if let CredentialSource::AwsSigV4(signer) = &self.server.credential {
                let url = base.as_ref().unwrap_or(&address.url);
                let now = self.worker.app.clock.unix_seconds();
                // Nothing goes to such a server unsigned.
                key.ok_or(Unsignable)
                    .and_then(|key| signer.sign(key, self.method, url, &mut headers, &self.body, now))
                    .map_err(|_| Refusal::new(ErrorCode::SigningFailed))?;
            }
            let response = self.send_to(target, headers).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(self.answered(response, credential, passed_on));
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.and_then(|text| base.as_ref().unwrap_or(&address.url).join(text).ok());
            target = match location {
                Some(url)
                    if hop < MAX_REDIRECTS
                        && keeps_method(status)
                        && url.origin() == address.url.origin() =>
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

    fn answered(
        &self,
        response: Response<UpstreamBody>,
        shown: Option<&OutboundCredential>,
        passed_on: PassedOn,
    ) -> Answer {
        // Beside a credential of ours the server's 401 or 403 is about ours.
        let resolution = match (&self.server.credential, shown) {
            (CredentialSource::None, _) if passed_on.authorization => AuthResolution::OAuth2Passthrough,
            (CredentialSource::None, _) if passed_on.api_key => AuthResolution::ExtraHeaders,
            (CredentialSource::Caller(..), Some(_)) => AuthResolution::OAuth2Passthrough,
            (CredentialSource::Caller(..), None) => AuthResolution::NoAuth,
            _ => self.configured(),
        };
        Answer { response, resolution }
    }

    async fn send_to(&self, target: Uri, headers: HeaderMap) -> Result<Response<UpstreamBody>, Refusal> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        let transport = self.worker.transport(self.server);
        let transport = transport.ok_or_else(|| Refusal::new(ErrorCode::Internal))?;
        note::sent();
        match timeout(self.server.first_byte_timeout, transport.send(request)).await {
            Ok(Ok(response)) => {
                note::first_byte(response.status());
                Ok(response)
            }
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
            SendFault::Bridge(BridgeFault::Send(fault)) => self.no_answer(*fault),
            SendFault::Bridge(BridgeFault::Redirect(status, location)) => {
                redirected(status, location.as_ref())
            }
            SendFault::Bridge(fault) => not_bridged(name, fault),
        }
    }
}

/// Whether a refusal says that the server is not there, or not well: none that comes of what the caller shows.
fn is_on_the_way(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UpstreamUnreachable
            | ErrorCode::UpstreamConnectTimeout
            | ErrorCode::UpstreamTimeout
            | ErrorCode::UpstreamClosed
            | ErrorCode::ServerNotStarted
    )
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

pub(super) fn no_token(error: TokenError) -> Refusal {
    let code = match &error.fault {
        TokenFault::Unreachable(_) => ErrorCode::TokenEndpointUnreachable,
        TokenFault::Timeout => ErrorCode::TokenEndpointTimeout,
        TokenFault::Subject { .. } => ErrorCode::SubjectTokenRefused,
        TokenFault::Undiscovered(_) => ErrorCode::TokenEndpointUnknown,
        TokenFault::Crowded => ErrorCode::TooManyExchanges,
        TokenFault::Unsigned => ErrorCode::Internal,
        TokenFault::Role(_) => ErrorCode::RoleRefused,
        TokenFault::NoAccessKey(_) => ErrorCode::StsAnswerInvalid,
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

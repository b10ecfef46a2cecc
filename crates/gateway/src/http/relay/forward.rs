//! One message to one server: headers built up from an allow-list, the credential resolved for this call,
//! redirects within the origin followed, a refused machine token replaced once.

use crate::admission::Admission;
use crate::app::Worker;
use crate::credentials::machine::{AfterRefusal, MachineToken, Slot, TokenError};
use crate::credentials::{CredentialSource, OutboundCredential};
use crate::diagnosis::AuthResolution;
use crate::net::pool::SendFault;
use crate::net::stream::UpstreamBody;
use crate::net::token_endpoint::TokenFault;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use std::sync::Arc;
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
        }
    }

    /// Sends the message.
    pub(super) async fn forward(&self) -> Result<Answer, Refusal> {
        let (mut headers, passed_on) = self.headers();
        let slot = match &self.server.credential {
            CredentialSource::None => {
                let resolution = if passed_on {
                    AuthResolution::OAuth2Passthrough
                } else {
                    AuthResolution::NoAuth
                };
                return Ok(Answer {
                    response: self.send(headers).await?,
                    resolution,
                });
            }
            CredentialSource::Static(credential) => {
                headers.insert(credential.name.clone(), credential.value.clone());
                let response = self.send(headers).await?;
                return Ok(Answer {
                    response,
                    resolution: AuthResolution::StaticToken,
                });
            }
            CredentialSource::Machine(slot) => slot,
        };
        let token = slot.token().await.map_err(no_token)?;
        let mut response = self.with_token(headers.clone(), &token).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            response = self.again(headers, slot, &token).await?;
        } else {
            slot.accepted(&token);
        }
        Ok(Answer {
            response,
            resolution: AuthResolution::MachineToken,
        })
    }

    /// The server refused `token`: another one is asked for, and shown, once.
    async fn again(
        &self,
        headers: HeaderMap,
        slot: &Slot,
        token: &Arc<MachineToken>,
    ) -> Result<Response<UpstreamBody>, Refusal> {
        if slot.refused(token) == AfterRefusal::Retry {
            let token = slot.token().await.map_err(no_token)?;
            let response = self.with_token(headers, &token).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                slot.accepted(&token);
                return Ok(response);
            }
            slot.refused(&token);
        }
        Err(Refusal::new(ErrorCode::UpstreamRefusedToken))
    }

    async fn with_token(
        &self,
        mut headers: HeaderMap,
        token: &MachineToken,
    ) -> Result<Response<UpstreamBody>, Refusal> {
        let credential = OutboundCredential::from(token);
        headers.insert(credential.name, credential.value);
        self.send(headers).await
    }

    /// The headers for the server, without its credential, and whether the caller's `Authorization` is among
    /// them. Built up from nothing: a gateway key has no way in, and a value that holds one stays out.
    fn headers(&self) -> (HeaderMap, bool) {
        let server = self.server;
        let mut headers = server.base_headers.clone();
        let mut passed_on = false;
        let named = self.headers.contains_key(header::CONNECTION);
        for (name, value) in self.headers {
            let extra = !crosses_upstream(name) && server.extra_headers.contains(name);
            if !(extra || crosses_upstream(name)) || server.base_headers.contains_key(name) {
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
        (headers, passed_on)
    }

    async fn send(&self, headers: HeaderMap) -> Result<Response<UpstreamBody>, Refusal> {
        let mut target = self.server.target.clone();
        let mut base = None;
        let mut headers = Some(headers);
        for hop in 0..=MAX_REDIRECTS {
            let last = hop == MAX_REDIRECTS;
            let kept = if last { None } else { headers.clone() };
            let response = self.send_to(target, headers.take().unwrap_or_default()).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location =
                location.and_then(|text| base.as_ref().unwrap_or(&self.server.url).join(text).ok());
            target = match location {
                Some(url) if !last && keeps_method(status) && url.origin() == self.server.url.origin() => {
                    let path = path_of(&url).ok_or_else(|| redirected(status, Some(&url)))?;
                    base = Some(url);
                    path
                }
                other => return Err(redirected(status, other.as_ref())),
            };
            headers = kept;
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

//! What becomes of a server's answer: passed on as it came, or a refusal that says what came instead.

use super::capabilities::withholds;
use super::forward::{Answer, Call};
use super::session::Owner;
use super::stream::RelayedBody;
use super::upstream_client::UpstreamClient;
use crate::audit::note;
use crate::config::SignIn;
use crate::credentials::CredentialSource;
use crate::diagnosis::AuthResolution;
use crate::ids::RequestId;
use crate::net::stream::UpstreamBody;
use crate::net::transport::Endpoint;
use crate::policy::message::Asks;
use crate::policy::tools::Rules;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal, Wanted};
use bytes::Bytes;
use futures_util::FutureExt;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use memchr::memmem;
use serde::de::IgnoredAny;
use std::sync::Arc;
use std::time::Duration;
use vestibule_mcp::Envelope;
use vestibule_mcp::headers::{MCP_SESSION_ID, crosses_downstream};
use vestibule_oauth::parse_bearer;

/// Up to this many bytes an answer in JSON is read whole before its head is passed on, so that one that ends
/// early is an error and not half an answer.
const BUFFERED: u64 = 64 * 1024;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a response says it holds.
enum Content {
    Json,
    EventStream,
    Text,
    /// No content type: an empty body, as far as anybody says.
    Untyped,
    Other(String),
}

impl Call<'_> {
    /// Judges the answer and makes the client's. By `asker` a server that may not ask everything is told so.
    pub(super) async fn outcome(
        &self,
        answer: Answer,
        sealed_session: Option<&HeaderValue>,
        rules: &Rules,
        asks: Asks,
        asker: Option<Arc<UpstreamClient>>,
        id: RequestId,
    ) -> Result<Response<Body>, Refusal> {
        let Answer { response, resolution } = answer;
        let (head, body) = response.into_parts();
        let callers = self.server.passthrough().is_some();
        if !callers {
            self.credential_was_taken(head.status, &head.headers, resolution)?;
        }
        let content = content(&head.headers);
        let filters = !rules.are_none();
        let withholds = withholds(self.server);
        let may_ask = withholds && matches!(content, Content::Json);
        let may_list = matches!(content, Content::Json) || head.status.is_success();
        let stream = match (head.status, content) {
            (StatusCode::ACCEPTED | StatusCode::NO_CONTENT, _) => {
                return Ok(self.answer(&head, Body::empty(), sealed_session, true));
            }
            (status, Content::EventStream) if !status.is_redirection() => true,
            (status, Content::Json) if !(status.is_success() && self.method == Method::GET) => false,
            (status, Content::Text | Content::Untyped)
                if status.is_client_error() || status.is_server_error() =>
            {
                false
            }
            (status, Content::Text | Content::Untyped)
                if status.is_success() && self.method == Method::DELETE =>
            {
                false
            }
            // Some servers acknowledge a notification with an empty 200.
            (StatusCode::OK, Content::Untyped) if self.is_notification() => false,
            // Statuses with a meaning of their own (no such session, no such method, sign in); the page is somebody
            // else's, and is not shown under the gateway's name.
            (status, Content::Other(_)) if means_something_alone(status, callers) => {
                let mut head = head;
                head.headers.remove(header::CONTENT_TYPE);
                head.headers.remove(header::CONTENT_ENCODING);
                return Ok(self.answer(&head, Body::empty(), sealed_session, true));
            }
            (status, content) => return Err(self.not_mcp(status, &content)),
        };
        if stream {
            let mut events = self.relayed_body(Bytes::new(), body, id);
            // A server behind a bridge cannot say itself that it is there.
            if !matches!(self.server.endpoint, Endpoint::Http(_)) {
                events = events.kept_alive();
            }
            let read = filters || withholds;
            let mut events = if read {
                Body::frames(self.filtered_events(rules, &head.headers, events, asker, id)?)
            } else {
                Body::frames(events)
            };
            events.cut_at(self.server.over(self.grace()).map(drop));
            let mut response = self.answer(&head, events, sealed_session, read);
            // A buffering proxy in front of us would hold events back.
            response
                .headers_mut()
                .entry(X_ACCEL_BUFFERING)
                .or_insert(HeaderValue::from_static("no"));
            return Ok(response);
        }
        let lists = filters && may_list && asks == Asks::ForTools;
        if lists || may_ask {
            let whole = self.filtered(lists.then_some(rules), &head.headers, body).await?;
            return Ok(self.answer(&head, Body::full(whole), sealed_session, true));
        }
        self.whole(head, body, sealed_session, id).await
    }

    /// How long its stream goes on where the server is configured otherwise: an answer may come to its end, and who only
    /// listens may come again.
    fn grace(&self) -> Duration {
        if self.method == Method::POST && !self.subscribes() {
            self.worker.app.limits.drain_timeout
        } else {
            Duration::ZERO
        }
    }

    /// Whether it is `subscriptions/listen`. Only a message in which the word stands is read.
    fn subscribes(&self) -> bool {
        memmem::find(&self.body, b"listen").is_some()
            && Envelope::parse(&self.body)
                .is_some_and(|message| message.method.as_deref() == Some("subscriptions/listen"))
    }

    /// 401 and 403 speak of the gateway's own credential, or of a person's, whose client can get another one.
    pub(super) fn credential_was_taken(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        resolution: AuthResolution,
    ) -> Result<(), Refusal> {
        let code = match (status, &self.server.credential) {
            (StatusCode::UNAUTHORIZED, CredentialSource::Caller(..)) => {
                let brought = resolution == AuthResolution::OAuth2Passthrough;
                return Err(self.token_required(brought.then_some("invalid_token")));
            }
            (_, CredentialSource::Caller(..)) => return Ok(()),
            // It is the caller's, who knows better than we where another one is to be had.
            _ if resolution == AuthResolution::PerRequestHeader => return Ok(()),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, CredentialSource::Person(sign_in)) => {
                return self.persons_token_was_taken(status, headers, sign_in);
            }
            _ if matches!(
                resolution,
                AuthResolution::OAuth2Passthrough | AuthResolution::ExtraHeaders
            ) =>
            {
                return Ok(());
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, CredentialSource::AwsSigV4(_)) => {
                ErrorCode::UpstreamRefusedSignature
            }
            (StatusCode::FORBIDDEN, CredentialSource::OnBehalf(_))
                if resolution == AuthResolution::MachineToken || wants_scope(headers) =>
            {
                ErrorCode::UpstreamForbidden
            }
            (StatusCode::UNAUTHORIZED, CredentialSource::Byok(_)) => {
                return Err(self.own_key_wanted(ErrorCode::ByokKeyRefused, Some("invalid_token")));
            }
            (StatusCode::UNAUTHORIZED, CredentialSource::None) => ErrorCode::UpstreamWantsCredential,
            (StatusCode::UNAUTHORIZED, CredentialSource::Machine(_) | CredentialSource::OnBehalf(_)) => {
                ErrorCode::UpstreamRefusedToken
            }
            (StatusCode::UNAUTHORIZED, CredentialSource::Static(_)) => ErrorCode::UpstreamRefusedCredential,
            (StatusCode::FORBIDDEN, CredentialSource::Machine(_) | CredentialSource::Static(_)) => {
                ErrorCode::UpstreamForbidden
            }
            _ => return Ok(()),
        };
        Err(Refusal::new(code))
    }

    /// The server's 401, and its 403 for want of a scope (RFC 6750 section 3.1), become our challenge with the
    /// server's scopes; its own would name addresses that the client must not go to.
    fn persons_token_was_taken(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        sign_in: &SignIn,
    ) -> Result<(), Refusal> {
        let lines: Vec<&str> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let said = parse_bearer(&lines).unwrap_or_default();
        let (code, error) = match status {
            StatusCode::UNAUTHORIZED => (ErrorCode::SignInEnded, "invalid_token"),
            _ if said.error.as_deref() == Some("insufficient_scope") => {
                (ErrorCode::ScopeMissing, "insufficient_scope")
            }
            _ => return Ok(()),
        };
        let configured = (!sign_in.scopes.is_empty()).then(|| sign_in.scopes.join(" "));
        Err(Refusal::new(code).with_sign_in(Wanted {
            server: self.server.name.clone(),
            error: Some(error),
            scope: said.scope.or(configured),
            ..Wanted::default()
        }))
    }

    /// An answer that is not a stream: whole if it is small, else its beginning and the rest as it comes.
    async fn whole(
        &self,
        head: Parts,
        mut body: UpstreamBody,
        sealed_session: Option<&HeaderValue>,
        id: RequestId,
    ) -> Result<Response<Body>, Refusal> {
        if body.size_hint().lower() > BUFFERED {
            return Ok(self.answer(&head, self.relayed(Bytes::new(), body, id), sealed_session, false));
        }
        let limit = usize::try_from(BUFFERED).unwrap_or(usize::MAX);
        let (bytes, complete) = body
            .buffer(limit, self.server.first_byte_timeout)
            .await
            .map_err(|_| self.truncated("the connection broke"))?;
        if !complete {
            return Ok(self.answer(&head, self.relayed(bytes, body, id), sealed_session, false));
        }
        // Where only the end of the connection ends the body, a broken connection looks like an end.
        let framed = head.headers.contains_key(header::CONTENT_LENGTH)
            || head.headers.contains_key(header::TRANSFER_ENCODING);
        if !framed
            && !bytes.is_empty()
            && serde_json::from_slice::<IgnoredAny>(&bytes).is_err_and(|error| error.is_eof())
        {
            return Err(self.truncated("the JSON is not complete"));
        }
        note::answer(&bytes);
        Ok(self.answer(&head, Body::full(bytes), sealed_session, true))
    }

    fn relayed(&self, read: Bytes, rest: UpstreamBody, id: RequestId) -> Body {
        Body::frames(self.relayed_body(read, rest, id))
    }

    fn relayed_body(&self, read: Bytes, rest: UpstreamBody, id: RequestId) -> RelayedBody {
        let app = &self.worker.app;
        let under_way = app.metrics.streams.clone();
        let idle = app.limits.stream_idle_timeout;
        RelayedBody::new(read, rest, idle, Arc::clone(self.server), id, under_way)
    }

    /// The client's head: allowed headers, and the session id sealed. `whole` bodies say their own length.
    fn answer(&self, head: &Parts, body: Body, sealed: Option<&HeaderValue>, whole: bool) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        let headers = response.headers_mut();
        // A length beside chunks says nothing (RFC 9112 section 6.3).
        let no_length = whole || head.headers.contains_key(header::TRANSFER_ENCODING);
        for (name, value) in &head.headers {
            if crosses_downstream(name) && !(no_length && name == header::CONTENT_LENGTH) {
                headers.append(name.clone(), value.clone());
            }
        }
        // The challenge of the only one who judges the caller's token.
        if self.server.passthrough().is_some() {
            for value in head.headers.get_all(header::WWW_AUTHENTICATE) {
                headers.append(header::WWW_AUTHENTICATE, value.clone());
            }
        }
        if let Some(upstream) = head.headers.get(MCP_SESSION_ID)
            && let Some(session) = self.session_for_client(upstream, sealed)
        {
            headers.insert(MCP_SESSION_ID, session);
        }
        response
    }

    /// A server that repeats its session id gets the client's own spelling of it repeated.
    fn session_for_client(
        &self,
        upstream: &HeaderValue,
        sealed: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        if self.session == Some(upstream)
            && let Some(sealed) = sealed
        {
            return Some(sealed.clone());
        }
        let app = &self.worker.app;
        app.sessions.seal(
            upstream,
            &self.session_owner(),
            &self.server.id,
            app.clock.unix_seconds(),
        )
    }

    /// Whom a session of this call's is made for.
    pub(super) fn session_owner(&self) -> Owner {
        Owner {
            principal: self.admission.principal.clone(),
            subject: self.subject_token().and_then(|subject| subject.identity()),
        }
    }

    fn is_notification(&self) -> bool {
        self.method == Method::POST && vestibule_mcp::RequestId::of_request(&self.body).is_none()
    }

    pub(super) fn truncated(&self, why: &str) -> Refusal {
        let message = format!(
            "The answer of the MCP server {} ended before its end: {why}.",
            self.server.name
        );
        Refusal::because(ErrorCode::UpstreamTruncated, message)
    }

    fn not_mcp(&self, status: StatusCode, content: &Content) -> Refusal {
        let what = match content {
            Content::Json => "JSON where an event stream was asked for",
            Content::EventStream => "an event stream",
            Content::Text => "plain text",
            Content::Untyped => "no content type",
            Content::Other(media_type) => media_type,
        };
        let message = format!(
            "What came from the MCP server {} is not MCP: status {} with {what}.",
            self.server.name,
            status.as_u16()
        );
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    }
}

/// Whether a status is passed on although its body is not; `callers` are those who are judged by the server alone.
fn means_something_alone(status: StatusCode, callers: bool) -> bool {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => true,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => callers,
        _ => false,
    }
}

/// A 403 for want of a scope (RFC 6750 section 3.1), which is the operator's to configure; every other one is about
/// what the person may do, and theirs to read.
fn wants_scope(headers: &HeaderMap) -> bool {
    let mut lines = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines.any(|line| {
        parse_bearer(&[line]).is_some_and(|said| said.error.as_deref() == Some("insufficient_scope"))
    })
}

fn content(headers: &HeaderMap) -> Content {
    let value = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let name = value
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if name.eq_ignore_ascii_case(b"application/json") {
        Content::Json
    } else if name.eq_ignore_ascii_case(b"text/event-stream") {
        Content::EventStream
    } else if name.eq_ignore_ascii_case(b"text/plain") {
        Content::Text
    } else if name.is_empty() {
        Content::Untyped
    } else {
        let shown = name
            .iter()
            .copied()
            .filter(u8::is_ascii_graphic)
            .take(60)
            .map(char::from);
        Content::Other(shown.collect())
    }
}

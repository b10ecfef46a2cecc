//! The HTTP+SSE transport of MCP 2024-11-05, as a client: one event stream for what the server says, and an
//! address, which the stream names, for what it is told.

use super::session::Session;
use super::{BridgeFault, MESSAGE_LIMIT, message};
use crate::net::pool::Pool;
use crate::net::stream::UpstreamBody;
use crate::net::transport::HttpEndpoint;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;
use vestibule_mcp::headers::MCP_SESSION_ID;
use vestibule_mcp::sse::{Event, EventReader};

/// From the head of the event stream to its `endpoint` event.
const ENDPOINT_WAIT: Duration = Duration::from_secs(10);
/// What is read of the answer to a message, so that its connection can be used again.
const ACKNOWLEDGEMENT: usize = 64 * 1024;
const ACKNOWLEDGEMENT_WAIT: Duration = Duration::from_secs(1);

/// Where messages go.
pub(super) struct Outgoing {
    pool: Arc<Pool>,
    /// The stream's own address.
    base: Url,
    target: Uri,
    /// Until the answer's head.
    patience: Duration,
}

/// Where messages come from.
pub(super) struct Incoming {
    body: UpstreamBody,
    events: EventReader,
}

/// Opens the stream with these headers and learns where messages go.
pub(super) async fn open(
    endpoint: &HttpEndpoint,
    pool: &Arc<Pool>,
    headers: &HeaderMap,
    patience: Duration,
) -> Result<(Outgoing, Incoming), BridgeFault> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = endpoint.target.clone();
    let sent = request.headers_mut();
    sent.clone_from(headers);
    sent.remove(header::CONTENT_TYPE);
    sent.remove(MCP_SESSION_ID);
    sent.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    let response = pool.send(request).await.map_err(Box::new)?;
    let (head, body) = response.into_parts();
    judge(head.status, &head.headers, &endpoint.url)?;
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with(b"text/event-stream") {
        return Err(BridgeFault::NotSse);
    }
    let mut incoming = Incoming {
        body,
        events: EventReader::new(MESSAGE_LIMIT),
    };
    let named = timeout(ENDPOINT_WAIT, incoming.endpoint());
    let named = named.await.map_err(|_| BridgeFault::NoEndpoint)??;
    let target = same_origin(&endpoint.url, &named).ok_or(BridgeFault::ForeignEndpoint)?;
    let outgoing = Outgoing {
        pool: Arc::clone(pool),
        base: endpoint.url.clone(),
        target,
        patience,
    };
    Ok((outgoing, incoming))
}

/// The address for messages. On another origin the credential would go to somebody else.
pub(crate) fn same_origin(base: &Url, named: &str) -> Option<Uri> {
    let url = base.join(named).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    let same = url.origin().is_tuple() && url.origin() == base.origin();
    HttpEndpoint::new(url)
        .filter(|_| plain && same)
        .map(|endpoint| endpoint.target)
}

/// What a status other than success comes to. 401 and 403 are the relay's to judge, as everywhere.
fn judge(status: StatusCode, headers: &HeaderMap, base: &Url) -> Result<(), BridgeFault> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let mut said = HeaderMap::new();
            for value in headers.get_all(header::WWW_AUTHENTICATE) {
                said.append(header::WWW_AUTHENTICATE, value.clone());
            }
            Err(BridgeFault::Credential(status, said))
        }
        status if status.is_redirection() => {
            let location = headers
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.and_then(|text| base.join(text).ok());
            Err(BridgeFault::Redirect(status, location))
        }
        status => Err(BridgeFault::Status(status)),
    }
}

impl Outgoing {
    /// Posts one message.
    pub(super) async fn post(&self, message: Bytes, headers: HeaderMap) -> Result<(), BridgeFault> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = headers;
        let sent = request.headers_mut();
        sent.remove(MCP_SESSION_ID);
        sent.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = timeout(self.patience, self.pool.send(request));
        let response = response
            .await
            .map_err(|_| BridgeFault::Silent)?
            .map_err(Box::new)?;
        let (head, mut body) = response.into_parts();
        // The stream is there, and the server does not know it any more.
        if matches!(head.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Err(BridgeFault::UnknownSession);
        }
        judge(head.status, &head.headers, &self.base)?;
        // The answer comes over the stream; what stands here is an acknowledgement.
        let _ = body.buffer(ACKNOWLEDGEMENT, ACKNOWLEDGEMENT_WAIT).await;
        Ok(())
    }
}

impl Incoming {
    /// Hands the server's messages over until the stream or the session ends.
    pub(super) async fn read(mut self, session: &Arc<Session>) {
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = session.ended() => return,
            };
            match event {
                Ok(event) if is_message(&event) => {
                    session.received(message::one_line(event.data.into())).await;
                }
                Ok(_) => {}
                Err(why) => {
                    tracing::info!(%why, "an event stream of a server ended, and its session with it");
                    return;
                }
            }
        }
    }

    async fn endpoint(&mut self) -> Result<String, BridgeFault> {
        loop {
            let event = self.next().await.map_err(|_| BridgeFault::NotSse)?;
            if event.event.as_deref() == Some("endpoint") {
                return Ok(event.data);
            }
        }
    }

    async fn next(&mut self) -> Result<Event, String> {
        loop {
            if let Some(event) = self.events.next_event().map_err(|fault| fault.to_string())? {
                return Ok(event);
            }
            match self.body.frame().await {
                None => return Err("the server closed it".into()),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.events.push(data);
                    }
                }
            }
        }
    }
}

fn is_message(event: &Event) -> bool {
    event
        .event
        .as_deref()
        .is_none_or(|kind| kind.is_empty() || kind == "message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_servers_own_origin_alone() {
        let base = Url::parse("https://mcp.example/base/sse?key=1").expect("url");
        for (named, target) in [
            ("/messages?session_id=1", "/messages?session_id=1"),
            ("messages", "/base/messages"),
            ("?session_id=1", "/base/sse?session_id=1"),
            ("https://mcp.example/m", "/m"),
            ("https://mcp.example:443/m", "/m"),
            ("", "/base/sse?key=1"),
        ] {
            assert_eq!(
                same_origin(&base, named).map(|uri| uri.to_string()).as_deref(),
                Some(target),
                "{named}"
            );
        }
        for named in [
            "//evil.example/m",
            "/\\evil.example/m",
            "\\\\evil.example/m",
            "http://mcp.example/m",
            "https://mcp.example:8443/m",
            "https://mcp.example@evil.example/m",
            "https://user@mcp.example/m",
            "https://mcp.example.evil.example/m",
            "file:///etc/passwd",
            "data:text/plain,x",
            "javascript:1",
        ] {
            assert_eq!(same_origin(&base, named), None, "{named}");
        }
    }
}

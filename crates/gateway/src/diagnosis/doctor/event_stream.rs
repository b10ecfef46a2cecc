//! The endpoint of a server of transport `sse`: its event stream, asked for without a credential, and the `endpoint`
//! event that names where messages go (MCP 2024-11-05).

use super::Finding;
use super::advice::{upstream, you};
use super::endpoint::{answered, kind, not_followed, other_transport, redirected};
use super::walk::{PATIENCE, Walk};
use crate::net::bridge::same_origin;
use crate::net::stream::UpstreamBody;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use url::Url;
use vestibule_mcp::sse::EventReader;

/// The largest beginning of a stream that is read for the `endpoint` event.
const BEGINNING: usize = 64 * 1024;

impl Walk {
    pub(super) async fn event_stream(&mut self) -> Option<Finding> {
        let (url, _) = self.address.clone().filter(|_| self.reached)?;
        let (head, body) = match self.open_stream(&url).await {
            Ok(opened) => opened,
            Err(why) => return Some(self.unanswered(why)),
        };
        self.note(&head);
        let seen = answered(head.status, kind(&head));
        if head.status.is_redirection() {
            self.reached = false;
            let finding = not_followed(&head, &url, redirected(&head, &url));
            return Some(finding.advise([upstream("serve the event stream without a redirect")]));
        }
        let streams = head.status.is_success() && kind(&head).starts_with("text/event-stream");
        let named = if streams { named_endpoint(body).await } else { None };
        Some(match (head.status.as_u16(), named) {
            (_, Some(named)) if same_origin(&url, &named).is_some() => {
                Finding::ok(format!("{seen}, and messages go to the same origin"))
            }
            (_, Some(named)) => {
                self.reached = false;
                let origin = url.join(&named).map(|named| named.origin().ascii_serialization());
                Finding::fault(format!(
                    "{seen}, and its endpoint event names another origin, {}: a credential must not go there",
                    origin.as_deref().unwrap_or("none")
                ))
                .advise([
                    upstream(
                        "name an address of the event stream's own origin; behind a proxy, a relative one",
                    ),
                    you("check that url has the scheme, host and port by which the server knows itself"),
                ])
            }
            (401, None) => Finding::ok(format!("{seen}: it asks for a credential")),
            _ if self.is_streamable_http(&url).await => {
                self.reached = false;
                other_transport(&seen, "http")
            }
            _ if streams => self
                .unless_asked_again(format!(
                    "{seen}, without an endpoint event within {} s",
                    PATIENCE.as_secs()
                ))
                .advise([upstream(
                    "begin the stream with the endpoint event (MCP 2024-11-05)",
                )]),
            _ => self
                .unless_asked_again(format!("{seen}, which is no event stream"))
                .advise([you(
                    "check that url is the address of the server's event stream, often /sse",
                )]),
        })
    }

    /// Whether the url is an event stream that names an address for messages.
    pub(super) async fn is_event_stream(&self, url: &Url) -> bool {
        match self.open_stream(url).await {
            Ok((head, body)) if head.status.is_success() && kind(&head).starts_with("text/event-stream") => {
                named_endpoint(body).await.is_some()
            }
            _ => false,
        }
    }

    async fn open_stream(&self, url: &Url) -> Result<(Parts, UpstreamBody), String> {
        let mut request = Request::new(Full::new(Bytes::new()));
        let accept = HeaderValue::from_static("text/event-stream");
        request.headers_mut().insert(header::ACCEPT, accept);
        Ok(self.send(url, request).await?.into_parts())
    }
}

/// What the `endpoint` event says, if it is the first.
async fn named_endpoint(mut body: UpstreamBody) -> Option<String> {
    let first = async {
        let mut events = EventReader::new(BEGINNING);
        loop {
            if let Some(event) = events.next_event().ok()? {
                return (event.event.as_deref() == Some("endpoint")).then_some(event.data);
            }
            let frame = body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                events.push(&data);
            }
        }
    };
    timeout(PATIENCE, first).await.ok().flatten()
}

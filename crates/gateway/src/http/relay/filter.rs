//! What a server with rules says, without the tools that are hidden and without the questions that it may not ask: in a
//! JSON body, and in each event of a stream, since a resumed stream may carry any answer. Everything else passes byte for
//! byte; what cannot be read does not pass.

use super::capabilities::{Heard, refuse, withholds};
use super::forward::Call;
use super::stream::RelayedBody;
use super::upstream_client::{ANSWER_LIMIT, UpstreamClient};
use crate::ids::RequestId;
use crate::net::stream::UpstreamBody;
use crate::policy::tools::{Rules, Unreadable};
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use vestibule_mcp::members::Members;
use vestibule_mcp::raw::replaced;
use vestibule_mcp::sse::{WholeEvent, WholeEvents};

impl Call<'_> {
    /// A whole answer that asks nothing it may not; of `tools/list`, which comes with `rules`, filtered.
    pub(super) async fn filtered(
        &self,
        rules: Option<&Rules>,
        headers: &HeaderMap,
        mut body: UpstreamBody,
    ) -> Result<Bytes, Refusal> {
        self.not_compressed(headers)?;
        let (bytes, complete) = body
            .buffer(ANSWER_LIMIT, self.server.first_byte_timeout)
            .await
            .map_err(|_| self.truncated("the connection broke"))?;
        if !complete {
            return Err(self.unreadable("it is too large or too slow to be read"));
        }
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| self.unreadable("it is not UTF-8"))?;
        if withholds(self.server) {
            let heard = Heard::of(self.server, text).map_err(|fault| self.unreadable(&fault.to_string()))?;
            if !heard.refused.is_empty() {
                return Err(self.unreadable("it asks what this server may not ask"));
            }
        }
        let Some(rules) = rules else { return Ok(bytes) };
        match message(rules, text).map_err(|fault| self.unreadable(&fault.to_string()))? {
            Cow::Borrowed(_) => Ok(bytes),
            Cow::Owned(text) => Ok(text.into()),
        }
    }

    /// An event stream, filtered. By `asker` the server hears that it has asked in vain.
    pub(super) fn filtered_events(
        &self,
        rules: &Rules,
        headers: &HeaderMap,
        body: RelayedBody,
        asker: Option<Arc<UpstreamClient>>,
        id: RequestId,
    ) -> Result<FilteredEvents, Refusal> {
        self.not_compressed(headers)?;
        Ok(FilteredEvents {
            server: Arc::clone(self.server),
            rules: rules.clone(),
            body,
            events: WholeEvents::new(ANSWER_LIMIT),
            asker,
            id,
            over: false,
        })
    }

    /// Nobody asked for it: the gateway passes on no `Accept-Encoding` unless it is told to.
    fn not_compressed(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let plain = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
        if plain {
            return Ok(());
        }
        Err(self.unreadable("it is compressed, and this server has rules"))
    }

    fn unreadable(&self, why: &str) -> Refusal {
        let message = format!(
            "What came from the MCP server {} is not passed on: {why}.",
            self.server.name
        );
        Refusal::because(ErrorCode::UpstreamNotMcp, message)
    }
}

/// A message, or a batch of them (MCP 2025-03-26), without the tools that are hidden.
fn message<'t>(rules: &Rules, text: &'t str) -> Result<Cow<'t, str>, Unreadable> {
    if !text.trim_ascii_start().starts_with('[') {
        return one_message(rules, text);
    }
    let messages: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable)?;
    let mut whole = String::new();
    let mut copied = 0;
    for raw in messages {
        if let Cow::Owned(filtered) = one_message(rules, raw.get())? {
            let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
            whole.push_str(&text[copied..start]);
            whole.push_str(&filtered);
            copied = start + raw.get().len();
        }
    }
    if copied == 0 {
        return Ok(text.into());
    }
    whole.push_str(&text[copied..]);
    Ok(whole.into())
}

fn one_message<'t>(rules: &Rules, text: &'t str) -> Result<Cow<'t, str>, Unreadable> {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => {}
        Some(b'[') => return Err(Unreadable),
        // No message, and no list for any reader.
        _ => {
            let read = serde_json::from_str::<IgnoredAny>(text);
            return read.map(|_| text.into()).map_err(|_| Unreadable);
        }
    }
    let members = Members::read_any(text).map_err(|_| Unreadable)?;
    if let Some(result) = members.only("result").map_err(|_| Unreadable)?
        && let Cow::Owned(filtered) = rules.filter_result(result.get())?
    {
        return Ok(replaced(text, result.get(), &filtered).into());
    }
    Ok(text.into())
}

/// A stream of events of which each is read, and passed on as it came unless something in it has to go.
pub(super) struct FilteredEvents {
    server: Arc<Server>,
    rules: Rules,
    body: RelayedBody,
    events: WholeEvents,
    asker: Option<Arc<UpstreamClient>>,
    id: RequestId,
    over: bool,
}

impl FilteredEvents {
    /// `None` for an event of which nothing may pass.
    fn filtered(&self, event: WholeEvent) -> Result<Option<Bytes>, Box<dyn Error>> {
        // An event to be resumed from has an id and no message.
        let Some(data) = event.data.as_ref().filter(|data| !data.trim_ascii().is_empty()) else {
            return Ok(Some(event.bytes));
        };
        let asked = if withholds(&self.server) {
            self.asked(data)?
        } else {
            Some(data.as_str().into())
        };
        let Some(asked) = asked else { return Ok(None) };
        let left = if self.rules.are_none() {
            asked
        } else {
            match message(&self.rules, &asked)? {
                Cow::Borrowed(_) => asked,
                Cow::Owned(filtered) => filtered.into(),
            }
        };
        Ok(Some(match left {
            Cow::Borrowed(_) => event.bytes,
            Cow::Owned(data) => event.with_data(&data),
        }))
    }

    /// What passes of a message; the server is told of the rest.
    fn asked<'d>(&self, data: &'d str) -> Result<Option<Cow<'d, str>>, Box<dyn Error>> {
        let heard = Heard::of(&self.server, data)?;
        for request in heard.refused {
            tracing::info!(request_id = %self.id, server = %self.server.name, "a question that the server may not ask was refused");
            if let Some(asker) = &self.asker {
                refuse(asker, request);
            }
        }
        Ok(heard.passes)
    }

    fn cut(&mut self, why: &dyn Error) -> io::Error {
        self.over = true;
        let name = &self.server.name;
        tracing::warn!(request_id = %self.id, server = %name, code = ErrorCode::UpstreamNotMcp.name(), %why, "an answer was cut");
        io::Error::other("a message of the stream cannot be read")
    }
}

impl Body for FilteredEvents {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            match this.events.next_event() {
                Ok(Some(event)) => match this.filtered(event) {
                    Ok(None) => continue,
                    Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Err(fault) => return Poll::Ready(Some(Err(this.cut(&*fault)))),
                },
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(this.cut(&fault)))),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.events.push(&data);
                    }
                }
                // What follows the last whole event is none.
                other => {
                    this.over = true;
                    return Poll::Ready(other);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tools::{Names, ToolRules};

    #[test]
    fn a_large_batch_is_copied_once() {
        let rules =
            Rules::from(ToolRules::new(Names::new(["one"]), None, &["b".to_owned()], &[]).expect("rules"));
        let messages =
            |tools: &str| vec![format!(r#"{{"result":{{"tools":[{tools}]}}}}"#); 100_000].join(" ,");
        // Moved for each message, these bytes are some hundred gigabytes.
        let text = format!("[{}]", messages(r#"{"name":"b"}"#));
        let filtered = message(&rules, &text).expect("readable");
        assert!(filtered == format!("[{}]", messages("")));
    }

    #[test]
    fn messages_and_batches_of_them() {
        let rules =
            Rules::from(ToolRules::new(Names::new(["one"]), None, &["b".to_owned()], &[]).expect("rules"));
        for (text, expected) in [
            (
                r#" {"id":1,"result":{"tools":[{"name":"b"},{"name":"a"}]}} "#,
                Ok(r#" {"id":1,"result":{"tools":[{"name":"a"}]}} "#),
            ),
            (
                r#"[{"id":1,"result":{"tools":[{"name":"b"}]}}, {"method":"x"},{"id":2,"result":{"tools":[{"name":"a"},{"name":"b"}]}}]"#,
                Ok(
                    r#"[{"id":1,"result":{"tools":[]}}, {"method":"x"},{"id":2,"result":{"tools":[{"name":"a"}]}}]"#,
                ),
            ),
            (
                r#"{"method":"x","params":{"tools":[{"name":"b"}]}}"#,
                Ok(r#"{"method":"x","params":{"tools":[{"name":"b"}]}}"#),
            ),
            (
                r#"{"id":1,"error":{"code":1}}"#,
                Ok(r#"{"id":1,"error":{"code":1}}"#),
            ),
            (
                r#"{"result":{},"result":{"tools":[{"name":"b"}]}}"#,
                Err(Unreadable),
            ),
            (
                r#"{"result":{},"Result":{"tools":[{"name":"b"}]}}"#,
                Err(Unreadable),
            ),
            (r#"[[{"result":{"tools":[{"name":"b"}]}}]]"#, Err(Unreadable)),
            (r#"{"result":{"tools":[{"name":"b"}]},"x":NaN}"#, Err(Unreadable)),
            ("ping", Err(Unreadable)),
            ("1", Ok("1")),
            ("[1, null]", Ok("[1, null]")),
        ] {
            assert_eq!(message(&rules, text).as_deref(), expected.as_deref(), "{text}");
        }
    }
}

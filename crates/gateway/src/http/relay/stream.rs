//! A server's body for the client: what was buffered, then the rest as it comes, cut after a silence. A cut is
//! logged here, because the head of the answer is gone by then. Of an event stream that the gateway makes itself the
//! client hears now and then that it is there.

use crate::ids::RequestId;
use crate::net::stream::UpstreamBody;
use crate::registry::{Server, UnderWay};
use crate::web::error::ErrorCode;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// How often a silent stream says that it is there; what stands between often cuts at 30 s.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment, which no client takes for a message.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// The body.
pub(super) struct RelayedBody {
    head: Option<Bytes>,
    rest: UpstreamBody,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// When the client is due a comment. Only where each frame is a whole event.
    pulse: Option<Pin<Box<Sleep>>>,
    call: UnderWay<Arc<Server>>,
    id: RequestId,
    under_way: Gauge,
}

impl RelayedBody {
    /// `head` is what was read of `rest` before; `under_way` is counted up until the body is dropped.
    pub(super) fn new(
        head: Bytes,
        rest: UpstreamBody,
        idle: Duration,
        server: Arc<Server>,
        id: RequestId,
        under_way: Gauge,
    ) -> Self {
        under_way.inc();
        Self {
            head: (!head.is_empty()).then_some(head),
            rest,
            idle,
            silence: None,
            pulse: None,
            call: UnderWay::begin(server),
            id,
            under_way,
        }
    }

    /// With comments in silence, which do not count against it. For streams whose frames are whole events.
    pub(super) fn kept_alive(mut self) -> Self {
        self.pulse = Some(Box::pin(sleep(KEEP_ALIVE)));
        self
    }

    fn cut(&self, error: &io::Error) {
        tracing::warn!(request_id = %self.id, server = %self.call.server().name, code = ErrorCode::UpstreamTruncated.name(), %error, "an answer was cut");
    }
}

impl Drop for RelayedBody {
    fn drop(&mut self) {
        self.under_way.dec();
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.rest).poll_frame(cx) {
            if let Some(silence) = &mut this.silence {
                silence.as_mut().reset(Instant::now() + this.idle);
            }
            if let Some(pulse) = &mut this.pulse {
                pulse.as_mut().reset(Instant::now() + KEEP_ALIVE);
            }
            if let Some(Err(error)) = &frame {
                this.cut(error);
            }
            return Poll::Ready(frame);
        }
        let idle = this.idle;
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        if silence.as_mut().poll(cx).is_pending() {
            let pulse = this.pulse.as_mut().map(|pulse| (pulse.as_mut().poll(cx), pulse));
            let Some((Poll::Ready(()), pulse)) = pulse else {
                return Poll::Pending;
            };
            pulse.as_mut().reset(Instant::now() + KEEP_ALIVE);
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
        }
        let error = io::Error::new(io::ErrorKind::TimedOut, "the server was silent for too long");
        this.cut(&error);
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What was buffered is gone from the rest's own count.
        if self.head.is_none() {
            self.rest.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

//! A server's response body, read from the connection that carries it, frame by frame and no faster than it
//! is taken.

use crate::net::bridge::MessageBody;
use crate::net::gather::Gathered;
use crate::net::pool::{Connection, Pool};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A server's body: of HTTP, or of messages that came another way.
pub struct UpstreamBody(Source);

enum Source {
    Connection(ConnectionBody),
    /// Boxed, so that bodies of HTTP carry no room for it.
    Messages(Box<MessageBody>),
}

/// A body with the connection that carries it. When it ends the connection goes back to its pool; dropped
/// before, the connection is closed.
struct ConnectionBody {
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
    ended: bool,
}

impl UpstreamBody {
    pub(crate) fn new(body: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        Self(Source::Connection(ConnectionBody {
            body,
            connection: Some(connection),
            pool,
            ended: false,
        }))
    }

    pub(crate) fn messages(body: MessageBody) -> Self {
        Self(Source::Messages(Box::new(body)))
    }

    /// What arrived of the body by now, up to `limit` bytes, and whether that is all of it.
    /// Waits until the body ends, the limit is passed, or `patience` runs out.
    pub async fn buffer(&mut self, limit: usize, patience: Duration) -> io::Result<(Bytes, bool)> {
        let deadline = tokio::time::sleep(patience);
        let mut deadline = std::pin::pin!(deadline);
        let mut gathered = Gathered::default();
        loop {
            let frame = std::future::poll_fn(|cx| match self.poll_data(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
            });
            let done = match frame.await {
                None => break Ok((gathered.whole(), false)),
                Some(None) => true,
                Some(Some(Err(error))) => return Err(error),
                Some(Some(Ok(data))) => {
                    gathered.push(data);
                    false
                }
            };
            if done || self.is_end_stream() {
                break Ok((gathered.whole(), true));
            }
            if gathered.len() > limit {
                break Ok((gathered.whole(), false));
            }
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            return match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => continue,
                },
            };
        }
    }

    /// Gives the connection back at once when there is no body to read.
    pub(crate) fn release_if_over(&mut self, cx: &mut Context<'_>) {
        if let Source::Connection(connection) = &mut self.0
            && connection.body.is_end_stream()
        {
            connection.release(cx);
        }
    }
}

impl ConnectionBody {
    fn release(&mut self, cx: &mut Context<'_>) {
        self.ended = true;
        if let Some(connection) = self.connection.take() {
            self.pool.keep(connection, cx);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Source::Connection(body) => Pin::new(body).poll_frame(cx),
            Source::Messages(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Connection(body) => body.is_end_stream(),
            Source::Messages(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Connection(body) => body.size_hint(),
            Source::Messages(body) => body.size_hint(),
        }
    }
}

impl Body for ConnectionBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            if !connection.drive(cx) {
                this.connection = None;
            }
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        match ready!(polled) {
            None => {
                this.release(cx);
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if this.body.is_end_stream() {
                    this.release(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.ended = true;
                this.connection = None;
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

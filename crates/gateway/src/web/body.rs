//! The body of every response: whole bytes, or something that comes frame by frame.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response body.
pub struct Body {
    content: Content,
    /// Dropped with the body, which is when the last byte was handed over or the client left.
    attached: Option<Box<dyn Any + Send>>,
}

enum Content {
    /// `None` once they are taken.
    Full(Option<Bytes>),
    Frames(Pin<Box<dyn HttpBody<Data = Bytes, Error = io::Error> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self {
            content: Content::Full(None),
            attached: None,
        }
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        Self {
            content: Content::Full((!bytes.is_empty()).then_some(bytes)),
            attached: None,
        }
    }

    /// What `frames` gives.
    pub fn frames(frames: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self {
            content: Content::Frames(Box::pin(frames)),
            attached: None,
        }
    }

    /// Keeps `guard` for as long as the body is under way.
    pub fn attach(&mut self, guard: impl Any + Send) {
        self.attached = Some(Box::new(guard));
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Frames(frames) => frames.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_none(),
            Content::Frames(frames) => frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Frames(frames) => frames.size_hint(),
        }
    }
}

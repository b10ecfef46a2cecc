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
    /// Nothing more may come when one of them resolves.
    until: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
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
            until: Vec::new(),
        }
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        Self {
            content: Content::Full((!bytes.is_empty()).then_some(bytes)),
            attached: None,
            until: Vec::new(),
        }
    }

    /// What `frames` gives.
    pub fn frames(frames: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self {
            content: Content::Frames(Box::pin(frames)),
            attached: None,
            until: Vec::new(),
        }
    }

    /// Keeps `guard` for as long as the body is under way.
    pub fn attach(&mut self, guard: impl Any + Send) {
        self.attached = Some(Box::new(guard));
    }

    /// Whether it comes frame by frame.
    pub fn is_stream(&self) -> bool {
        matches!(self.content, Content::Frames(_))
    }

    /// Cuts what comes frame by frame when `over` resolves, too.
    pub fn cut_at(&mut self, over: impl Future<Output = ()> + Send + 'static) {
        self.until.push(Box::pin(over));
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Frames(frames) => {
                let mut until = this.until.iter_mut();
                if until.any(|over| over.as_mut().poll(cx).is_ready()) {
                    this.until.clear();
                    this.content = Content::Full(None);
                    return Poll::Ready(Some(Err(io::Error::other("nothing more may come"))));
                }
                frames.as_mut().poll_frame(cx)
            }
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

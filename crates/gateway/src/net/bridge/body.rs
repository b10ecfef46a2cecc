//! What a bridged answer is made of: messages of a session as a JSON body or as events, no faster than they are
//! taken.

use super::session::{Exchange, Item};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// A body.
pub(crate) enum MessageBody {
    /// One message, or nothing; `None` once it is taken.
    Whole(Option<Bytes>),
    /// The messages that belong to one request, the last of which answers it.
    Answer(AnswerBody),
    /// The messages that belong to no request.
    Listener(mpsc::Receiver<Bytes>),
}

/// The messages of one request.
pub(crate) struct AnswerBody {
    first: Option<Item>,
    exchange: Exchange,
    ended: bool,
}

impl AnswerBody {
    /// `first` has been received of `exchange`; `None` when it was over without a message.
    pub(super) fn new(first: Option<Item>, exchange: Exchange) -> Self {
        Self {
            ended: first.is_none(),
            first,
            exchange,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match self.first.take() {
            Some(item) => Some(item),
            None => ready!(self.exchange.poll_next(cx)),
        };
        Poll::Ready(match item {
            Some(Item::Message(message)) => Some(event(&message)),
            Some(Item::Last(message)) => {
                self.ended = true;
                Some(event(&message))
            }
            None => {
                self.ended = true;
                self.exchange.interrupted().map(|message| event(&message))
            }
        })
    }
}

impl Body for MessageBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = match &mut *self {
            Self::Whole(bytes) => bytes.take(),
            Self::Answer(answer) => ready!(answer.poll(cx)),
            Self::Listener(messages) => ready!(messages.poll_recv(cx)).map(|message| event(&message)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Answer(answer) => answer.ended,
            Self::Listener(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}

/// A message, which is one line, as one event.
fn event(message: &Bytes) -> Bytes {
    const START: &[u8] = b"event: message\ndata: ";
    let mut event = BytesMut::with_capacity(START.len() + message.len() + 2);
    event.put_slice(START);
    event.put_slice(message);
    event.put_slice(b"\n\n");
    event.freeze()
}

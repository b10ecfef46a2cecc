//! Server-sent events (WHATWG HTML, "Server-sent events"), read from chunks cut anywhere, with a bound on
//! the size of an event. For readers of a stream; a relay that changes nothing passes the bytes on without this.

mod whole;

pub use whole::{WholeEvent, WholeEvents};

use bytes::{Buf, BytesMut};
use thiserror::Error;

/// One dispatched event. Events without data are not dispatched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The joined `data` lines.
    pub data: String,
    /// The last `id` seen before the event ended, if it set one.
    pub id: Option<String>,
    /// Its type, if it names one; `message` is meant otherwise.
    pub event: Option<String>,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SseFault {
    /// An event grew past the bound.
    #[error("an event of the stream is larger than {0} bytes")]
    TooLarge(usize),
    /// The stream is not UTF-8.
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

/// Collects chunks and gives whole events.
#[derive(Debug)]
pub struct EventReader {
    buffer: BytesMut,
    /// So many bytes at the buffer's start are known to end no line: they are not looked at again.
    scanned: usize,
    event: Event,
    has_data: bool,
    at_start: bool,
    /// A carriage return ended the last line, and a line feed that follows belongs to it.
    after_cr: bool,
    limit: usize,
}

impl EventReader {
    /// A reader that takes events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            event: Event::default(),
            has_data: false,
            at_start: true,
            after_cr: false,
            limit,
        }
    }

    /// Adds what arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, or `None` until more has arrived.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseFault> {
        loop {
            if self.after_cr && self.buffer.first() == Some(&b'\n') {
                self.buffer.advance(1);
                self.after_cr = false;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                return if self.buffer.len() + self.event.data.len() > self.limit {
                    Err(SseFault::TooLarge(self.limit))
                } else {
                    Ok(None)
                };
            };
            let line = self.buffer.split_to(self.scanned + end);
            self.scanned = 0;
            self.after_cr = self.buffer[0] == b'\r';
            self.buffer.advance(1);
            let mut line = std::str::from_utf8(&line).map_err(|_| SseFault::NotUtf8)?;
            if std::mem::take(&mut self.at_start) {
                line = line.strip_prefix('\u{feff}').unwrap_or(line);
            }
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.field(line);
            if self.event.data.len() > self.limit {
                return Err(SseFault::TooLarge(self.limit));
            }
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "event" => self.event.event = Some(value.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(chunks: &[&[u8]]) -> Result<Vec<Event>, SseFault> {
        let mut reader = EventReader::new(1000);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn data(chunks: &[&[u8]]) -> Vec<String> {
        read(chunks)
            .expect("readable")
            .into_iter()
            .map(|event| event.data)
            .collect()
    }

    #[test]
    fn lines_end_in_any_of_three_ways() {
        for stream in [
            "data: a\n\ndata:b\n\n",
            "data: a\r\n\r\ndata:b\r\n\r\n",
            "data: a\r\rdata:b\r\r",
        ] {
            assert_eq!(data(&[stream.as_bytes()]), ["a", "b"], "{stream:?}");
        }
    }

    #[test]
    fn fields_comments_and_priming_events() {
        let stream = "\u{feff}: hello\nid: 7\nretry: 100\ndata:\n\nevent: endpoint\ndata: {\"a\":\ndata: 1}\n\nid: 9\n\n";
        let events = read(&[stream.as_bytes()]).expect("readable");
        assert_eq!(
            events[0],
            Event {
                data: String::new(),
                id: Some("7".into()),
                event: None,
            }
        );
        assert_eq!(events[1].event.as_deref(), Some("endpoint"));
        assert_eq!(events[1].data, "{\"a\":\n1}");
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn an_unfinished_event_is_not_given() {
        assert_eq!(data(&[b"data: a\n"]), Vec::<String>::new());
    }

    #[test]
    fn events_are_bounded() {
        let long = [b'x'; 1100];
        assert_eq!(read(&[b"data: ", &long]), Err(SseFault::TooLarge(1000)));
        let lines = "data: xxxxxxxxxx\n".repeat(200);
        assert_eq!(read(&[lines.as_bytes()]), Err(SseFault::TooLarge(1000)));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(SseFault::NotUtf8));
    }

    #[test]
    fn a_long_line_is_looked_through_once() {
        let mut reader = EventReader::new(1_000_000);
        for sent in 1..=1000 {
            reader.push(&[b'x'; 500]);
            assert_eq!(reader.next_event(), Ok(None));
            assert_eq!(reader.scanned, sent * 500);
        }
        reader.push(b"\r\ndata: a\n\n");
        let event = reader.next_event().expect("readable").expect("an event");
        assert_eq!((event.data.as_str(), reader.scanned), ("a", 0));
    }

    proptest! {
        #[test]
        fn cutting_a_stream_anywhere_changes_nothing(
            parts in prop::collection::vec("(data: ?[a-zé:]{0,9}|id:[0-9]|:c|)(\n|\r\n|\r)", 0..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[&stream]));
        }

        #[test]
        fn no_bytes_make_it_panic(stream in any::<Vec<u8>>()) {
            let _ = read(&[&stream]);
        }
    }
}

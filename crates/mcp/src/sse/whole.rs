//! A stream of server-sent events cut into whole events, each with the bytes it came in: for a relay that has to read
//! what it passes on.

use super::SseFault;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// One event and its bytes, the empty line at its end included. It may be nothing but comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeEvent {
    /// As it came.
    pub bytes: Bytes,
    /// The joined `data` lines; `None` without any.
    pub data: Option<String>,
    /// Where the lines stand in `bytes` that are no `data`, their line ends included.
    others: Vec<Range<usize>>,
}

impl WholeEvent {
    /// The event with other data: its other lines as they came, then the data.
    pub fn with_data(&self, data: &str) -> Bytes {
        let mut event = BytesMut::with_capacity(self.bytes.len());
        for line in &self.others {
            event.extend_from_slice(&self.bytes[line.clone()]);
        }
        for line in data.split('\n') {
            event.extend_from_slice(b"data: ");
            event.extend_from_slice(line.as_bytes());
            event.extend_from_slice(b"\n");
        }
        event.extend_from_slice(b"\n");
        event.freeze()
    }
}

/// Collects chunks and gives whole events with their bytes. What follows the last empty line is no event, and no reader
/// would dispatch it.
#[derive(Debug)]
pub struct WholeEvents {
    buffer: BytesMut,
    /// The line that is being read begins here.
    line: usize,
    /// Up to here no end of that line was found.
    scanned: usize,
    data: Option<String>,
    others: Vec<Range<usize>>,
    at_start: bool,
    /// A carriage return ended the last line, and a line feed that follows belongs to it.
    after_cr: bool,
    limit: usize,
}

impl WholeEvents {
    /// A reader that takes events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            line: 0,
            scanned: 0,
            data: None,
            others: Vec::new(),
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
    pub fn next_event(&mut self) -> Result<Option<WholeEvent>, SseFault> {
        loop {
            if self.after_cr && self.line < self.buffer.len() {
                self.after_cr = false;
                if self.buffer[self.line] == b'\n' {
                    self.line += 1;
                    self.scanned = self.scanned.max(self.line);
                    if let Some(last) = self.others.last_mut().filter(|last| last.end + 1 == self.line) {
                        last.end = self.line;
                    }
                }
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
                self.scanned = self.buffer.len();
                return self.bounded(self.buffer.len()).map(|()| None);
            };
            let (begin, end) = (self.line, self.scanned + length);
            self.bounded(end)?;
            self.after_cr = self.buffer[end] == b'\r';
            self.line = end + 1;
            self.scanned = self.line;
            let mut text = std::str::from_utf8(&self.buffer[begin..end]).map_err(|_| SseFault::NotUtf8)?;
            if std::mem::take(&mut self.at_start) {
                text = text.strip_prefix('\u{feff}').unwrap_or(text);
            }
            if text.is_empty() {
                if self.after_cr && self.buffer.get(self.line) == Some(&b'\n') {
                    self.after_cr = false;
                    self.line += 1;
                }
                let bytes = self.buffer.split_to(self.line).freeze();
                (self.line, self.scanned) = (0, 0);
                return Ok(Some(WholeEvent {
                    bytes,
                    data: self.data.take(),
                    others: std::mem::take(&mut self.others),
                }));
            }
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            if name == "data" {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut self.data {
                    None => self.data = Some(value.to_owned()),
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                }
            } else {
                self.others.push(begin..self.line);
            }
        }
    }

    fn bounded(&self, size: usize) -> Result<(), SseFault> {
        if size > self.limit {
            return Err(SseFault::TooLarge(self.limit));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventReader;
    use super::*;
    use proptest::prelude::*;

    fn read(chunks: &[&[u8]]) -> Result<Vec<WholeEvent>, SseFault> {
        let mut reader = WholeEvents::new(1000);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn data(events: &[WholeEvent]) -> Vec<String> {
        events.iter().filter_map(|event| event.data.clone()).collect()
    }

    #[test]
    fn events_with_other_data_keep_their_other_lines() {
        let stream = "\u{feff}: hello\r\nid: 7\r\ndata: {\"a\":\r\nevent: message\r\ndata: 1}\r\n\r\n";
        let events = read(&[stream.as_bytes()]).expect("readable");
        assert_eq!(events[0].data.as_deref(), Some("{\"a\":\n1}"));
        assert_eq!(events[0].bytes, stream);
        assert_eq!(
            events[0].with_data("x\ny"),
            "\u{feff}: hello\r\nid: 7\r\nevent: message\r\ndata: x\ndata: y\n\n"
        );
    }

    #[test]
    fn events_are_bounded_and_text() {
        let long = [b'x'; 1100];
        assert_eq!(read(&[b"data: ", &long]), Err(SseFault::TooLarge(1000)));
        let lines = "data: xxxxxxxxxx\n".repeat(200);
        assert_eq!(read(&[lines.as_bytes()]), Err(SseFault::TooLarge(1000)));
        assert_eq!(read(&[b"data: \xff\n\n"]), Err(SseFault::NotUtf8));
        assert_eq!(read(&[b"data: a\n"]), Ok(Vec::new()));
    }

    #[test]
    fn a_line_feed_that_comes_late_ends_no_event() {
        let events = read(&[b"data: a\r", b"\ndata: b\r", b"\n\r", b"\ndata: c\n\n"]).expect("readable");
        assert_eq!(data(&events), ["a\nb", "c"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_both_readers_agree(
            parts in prop::collection::vec("(data: ?[a-zé:]{0,9}|id:[0-9]|:c|)(\n|\r\n|\r)", 0..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let events = read(&chunks).expect("readable");
            let bytes: Vec<u8> = events.iter().flat_map(|event| event.bytes.to_vec()).collect();
            prop_assert!(stream.starts_with(&bytes));
            let mut reader = EventReader::new(1000);
            reader.push(&stream);
            let mut expected = Vec::new();
            while let Some(event) = reader.next_event().expect("readable") {
                expected.push(event.data);
            }
            prop_assert_eq!(data(&events), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(stream in any::<Vec<u8>>()) {
            let _ = read(&[&stream]);
        }
    }
}

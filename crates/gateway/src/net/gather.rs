//! A body gathered from its frames: the first is kept as it came, so a body of one frame is not copied.

use bytes::{Bytes, BytesMut};

/// What has come of a body.
#[derive(Default)]
pub(crate) struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    /// So many bytes.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
        } else {
            self.more.extend_from_slice(&data);
        }
    }

    /// All of it.
    pub(crate) fn whole(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.first);
        whole.extend_from_slice(&self.more);
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_join_in_order_and_one_alone_is_not_copied() {
        let mut gathered = Gathered::default();
        let one = Bytes::from(vec![1, 2]);
        gathered.push(Bytes::new());
        gathered.push(one.clone());
        assert_eq!(gathered.whole().as_ptr(), one.as_ptr());

        let mut gathered = Gathered::default();
        for frame in [&b"ab"[..], b"", b"c", b"de"] {
            gathered.push(Bytes::copy_from_slice(frame));
        }
        assert_eq!((gathered.len(), &gathered.whole()[..]), (5, &b"abcde"[..]));
        assert!(Gathered::default().whole().is_empty());
    }
}

//! Request ids: short, unique enough to find one line in the logs of many replicas, and no secret.

use aws_lc_rs::rand;
use http::HeaderValue;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

/// A source of request ids; every worker has its own.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u32,
    next: AtomicU32,
}

/// The id of one request, in `x-request-id`, error bodies and the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestIds {
    /// A source with a random prefix and a random start.
    ///
    /// # Panics
    /// When the system gives no random bytes; nothing here can run without them.
    #[expect(clippy::expect_used, reason = "without randomness there is no sealing either")]
    pub fn new() -> Self {
        let mut bytes = [[0; 2]; 4];
        rand::fill(bytes.as_flattened_mut()).expect("the system gives random bytes");
        let [prefix, start] = [bytes.map(|pair| pair[0]), bytes.map(|pair| pair[1])].map(u32::from_be_bytes);
        Self {
            prefix,
            next: AtomicU32::new(start),
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let number = u64::from(self.prefix) << 32 | u64::from(self.next.fetch_add(1, Ordering::Relaxed));
        let mut text = [0; 16];
        for (index, digit) in text.iter_mut().enumerate() {
            *digit = HEX[(number >> (60 - 4 * index) & 15) as usize];
        }
        RequestId(text)
    }
}

/// 32 random hex digits: a name that nobody else has or guesses.
///
/// # Panics
/// When the system gives no random bytes.
#[expect(clippy::expect_used, reason = "without randomness there is no sealing either")]
pub fn random_hex() -> String {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestId {
    /// The 16 hex digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// For `x-request-id`.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_hex() {
        let ids = RequestIds {
            prefix: 0xab,
            next: AtomicU32::new(u32::MAX),
        };
        assert_eq!(
            [ids.next().as_str(), ids.next().as_str()],
            ["000000abffffffff", "000000ab00000000"]
        );
        assert_eq!(ids.next().header(), ids_header());
    }

    fn ids_header() -> HeaderValue {
        HeaderValue::from_static("000000ab00000001")
    }
}

//! Times as the management shows them.

use jiff::Timestamp;

/// Seconds since 1970 as RFC 3339 has them.
pub(crate) fn utc(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Some(Timestamp::from_second(seconds).ok()?.to_string())
}

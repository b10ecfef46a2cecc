//! LiteLLM's durations: `30s`, `15m`, `12h`, `30d`, `4w`, `1mo`.

use crate::web::error::{ErrorCode, Refusal};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// When what begins at `now` is over, in seconds since 1970; `None` for `-1`, which is never.
pub(super) fn end(text: &str, now: u64) -> Result<Option<u64>, Refusal> {
    if text == "-1" {
        return Ok(None);
    }
    let wrong = || {
        Refusal::because(
            ErrorCode::InvalidField,
            "duration: it is a whole number above 0 with s, m, h, d, w or mo behind it, like 30d, and ends before the \
             year 9999.",
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number
        .parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(wrong)?;
    let span = Span::new();
    let span = match unit {
        "s" => span.try_seconds(number),
        "m" => span.try_minutes(number),
        "h" => span.try_hours(number),
        "d" => span.try_days(number),
        "w" => span.try_weeks(number),
        "mo" => span.try_months(number),
        _ => return Err(wrong()),
    };
    let end = i64::try_from(now)
        .ok()
        .and_then(|now| Timestamp::from_second(now).ok())
        .zip(span.ok())
        .and_then(|(now, span)| now.to_zoned(TimeZone::UTC).checked_add(span).ok());
    let end = end.and_then(|end| u64::try_from(end.timestamp().as_second()).ok());
    end.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit() {
        // 2001-09-09T01:46:40Z.
        let now = 1_000_000_000;
        let day = 24 * 60 * 60;
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43_200),
            ("30d", 30 * day),
            ("4w", 28 * day),
            ("1mo", 30 * day),
            ("12mo", 365 * day),
        ] {
            assert_eq!(end(text, now).expect("a duration"), Some(now + seconds), "{text}");
        }
        assert_eq!(end("-1", now).expect("a duration"), None);
        for wrong in [
            "",
            "0d",
            "-5d",
            "d",
            "5",
            "5 d",
            "5D",
            "5y",
            "1.5h",
            "999999999999d",
            "99999999999999999999s",
            "٣d",
        ] {
            assert_eq!(
                end(wrong, now).expect_err("refused").code,
                ErrorCode::InvalidField,
                "{wrong}"
            );
        }
    }
}

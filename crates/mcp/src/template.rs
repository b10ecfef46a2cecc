//! Whether a URI can come from a URI template (RFC 6570), for finding whose resource it is. Variables are not
//! read out, and what a server makes of the URI is its own affair.

use std::collections::HashMap;

/// One piece of a template.
#[derive(Clone, Copy)]
enum Piece {
    /// This byte.
    Byte(u8),
    /// Any text; without a slash in it where `false`, since simple expansion encodes slashes (section 3.2.2).
    Any(bool),
}

/// Templates and URIs of more bytes match nothing.
const LONGEST: usize = 8 * 1024;

/// Whether some values of the template's variables give `uri`.
pub fn matches(template: &str, uri: &str) -> bool {
    let fixed = template.split('{').next().unwrap_or_default();
    if template.len() > LONGEST || uri.len() > LONGEST || !uri.starts_with(fixed) {
        return false;
    }
    let Some(pieces) = pieces(template) else {
        return false;
    };
    let uri = uri.as_bytes();
    // Which beginnings of the URI the pieces so far can give.
    let mut reached = Places::none(uri.len());
    reached.add(0);
    let no_slash = Places::behind(uri, |byte| byte != b'/');
    let mut behind: HashMap<u8, Places> = HashMap::new();
    for piece in pieces {
        match piece {
            Piece::Byte(byte) => {
                let places = behind
                    .entry(byte)
                    .or_insert_with(|| Places::behind(uri, |other| other == byte));
                reached.step(places);
            }
            Piece::Any(true) => reached.fill(),
            Piece::Any(false) => reached.spread(&no_slash),
        }
        if reached.is_empty() {
            return false;
        }
    }
    reached.has(uri.len())
}

/// Places in a URI, a bit each: before its first byte, and behind each byte. So a piece of a template costs a step for
/// every 64 bytes of the URI.
struct Places {
    words: Vec<u64>,
    /// No word in front of this one has a place.
    first: usize,
}

impl Places {
    /// None of the places in so many bytes.
    fn none(length: usize) -> Self {
        Self {
            words: vec![0; length / 64 + 1],
            first: 0,
        }
    }

    /// Those behind the bytes that `is_one` takes.
    fn behind(uri: &[u8], is_one: impl Fn(u8) -> bool) -> Self {
        let mut places = Self::none(uri.len());
        for (at, byte) in uri.iter().enumerate() {
            if is_one(*byte) {
                places.add(at + 1);
            }
        }
        places
    }

    fn add(&mut self, place: usize) {
        self.words[place / 64] |= 1 << (place % 64);
    }

    fn has(&self, place: usize) -> bool {
        self.words[place / 64] >> (place % 64) & 1 == 1
    }

    fn is_empty(&self) -> bool {
        self.first == self.words.len()
    }

    /// Each place becomes the next one, if that is in `allowed`.
    fn step(&mut self, allowed: &Self) {
        let mut carry = 0;
        for (word, allowed) in self.words.iter_mut().zip(&allowed.words).skip(self.first) {
            let next = (*word << 1) | carry;
            carry = *word >> 63;
            *word = next & allowed;
        }
        let empty = self.words[self.first..].iter().take_while(|word| **word == 0);
        self.first += empty.count();
    }

    /// Adds every place behind the first. Bits that are no place are never asked for.
    fn fill(&mut self) {
        if let [first, rest @ ..] = &mut self.words[self.first..] {
            *first |= u64::MAX << first.trailing_zeros();
            rest.fill(u64::MAX);
        }
    }

    /// Adds every place that is behind one of them with nothing but `through` between.
    fn spread(&mut self, through: &Self) {
        let mut carry = 0;
        for (word, through) in self.words.iter_mut().zip(&through.words).skip(self.first) {
            let (mut found, mut way) = (*word | (carry & through), *through);
            for by in [1, 2, 4, 8, 16, 32] {
                found |= way & (found << by);
                way &= way << by;
            }
            carry = found >> 63;
            *word = found;
        }
    }
}

/// `None` for a template whose braces do not match.
fn pieces(template: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        pieces.extend(literal.bytes().map(Piece::Byte));
        let operator = expression.starts_with(['+', '#', '.', '/', ';', '?', '&']);
        pieces.push(Piece::Any(operator));
        rest = after;
    }
    pieces.extend(rest.bytes().map(Piece::Byte));
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the pieces say, tried out.
    fn tried(pieces: &[Piece], uri: &[u8]) -> bool {
        match (pieces, uri) {
            ([], uri) => uri.is_empty(),
            ([Piece::Byte(byte), pieces @ ..], [first, uri @ ..]) => first == byte && tried(pieces, uri),
            ([Piece::Byte(_), ..], []) => false,
            ([Piece::Any(slashes), rest @ ..], uri) => {
                let goes_on = uri.first().is_some_and(|byte| *slashes || *byte != b'/');
                tried(rest, uri) || (goes_on && tried(pieces, &uri[1..]))
            }
        }
    }

    proptest! {
        #[test]
        fn as_if_tried_out(template in "(a|b|/|[{]x[}]|[{][+]x[}]){0,7}", uri in "(a|b|/){0,12}", far in 0_usize..130) {
            let (template, uri) = (format!("{}{template}", "c".repeat(far)), format!("{}{uri}", "c".repeat(far)));
            let pieces = pieces(&template).expect("a template");
            prop_assert_eq!(matches(&template, &uri), tried(&pieces, uri.as_bytes()));
            // The same without the beginning that is compared at once.
            let (template, far) = (format!("{{+any}}{template}"), pieces.len());
            prop_assert!(far < 1000 && matches(&template, &uri) == (0..=uri.len()).any(|at| tried(&pieces, &uri.as_bytes()[at..])));
        }
    }

    #[test]
    fn what_is_too_long_matches_nothing_and_what_is_long_costs_little() {
        let uri = "a".repeat(LONGEST);
        assert!(matches("{x}", &uri));
        assert!(!matches("{x}", &format!("{uri}a")));
        let literal = "a".repeat(LONGEST - 3);
        assert!(matches(&format!("{{x}}{literal}"), &uri));
        assert!(!matches(&format!("{{xx}}{literal}"), &uri));
        // Quadratic in bytes, this is more than a minute.
        let template = "{x}a".repeat(LONGEST / 4 - 1) + "b";
        for _ in 0..200 {
            assert!(!matches(&template, &uri));
        }
    }

    #[test]
    fn templates_and_uris() {
        for (template, uri, expected) in [
            ("file:///{name}", "file:///a", true),
            ("file:///{name}", "file:///a/b", false),
            ("file:///{+path}", "file:///a/b", true),
            ("file:///{a}/{b}.txt", "file:///x/y.txt", true),
            ("file:///{a}/{b}.txt", "file:///x/y.md", false),
            ("db://t{?q*}", "db://t?q=1", true),
            ("db://t{?q*}", "db://t", true),
            ("db://t", "db://t", true),
            ("db://t", "db://tt", false),
            ("db://{", "db://{", false),
            ("{a}{b}{c}{d}x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaay", false),
        ] {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
    }
}

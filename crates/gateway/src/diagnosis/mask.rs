//! The one function that makes a credential printable.

/// Below this many characters nothing of a secret is shown: four of a short one would say too much.
const SHOWN_FROM: usize = 24;

/// A credential's scheme, four stars, and of a long secret its last four characters: `Bearer****1234`.
/// The number of stars says nothing about the length. Where a password may end the secret there is no tail:
/// four characters of base64 are three of the password.
pub fn mask(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let text = text.trim();
    let (scheme, secret) = match text.split_once(' ') {
        Some((scheme, secret)) if is_scheme(scheme) => (scheme, secret.trim_start()),
        _ => ("", text),
    };
    let length = secret.chars().count();
    let tail: String = secret
        .chars()
        .skip(length.saturating_sub(4))
        .filter(char::is_ascii_graphic)
        .collect();
    let password = scheme.eq_ignore_ascii_case("basic") || secret.contains(':');
    let tail = if password || length < SHOWN_FROM {
        ""
    } else {
        &tail
    };
    format!("{scheme}****{tail}")
}

fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "dpop", "apikey"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks() {
        for (value, expected) in [
            ("", "****"),
            ("sk-1234", "****"),
            ("Bearer sk-1234", "Bearer****"),
            ("Bearer sk-litellm-0123456789-1234", "Bearer****1234"),
            ("sk-litellm-0123456789-1234", "****1234"),
            ("Basic dXNlcjpwYXNz", "Basic****"),
            ("Basic dXNlcm5hbWUtdGhhdC1pcy1sb25nOmFiYw==", "Basic****"),
            ("bASIC dXNlcm5hbWUtdGhhdC1pcy1sb25nOmFiYw==", "bASIC****"),
            ("username-that-is-quite-long:abc", "****"),
            ("hunter2 is my password, all of it!", "****it!"),
        ] {
            assert_eq!(mask(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_short_secret_is_shown_and_no_long_one_beyond_four(secret in "[!-~]{1,60}", scheme in prop::bool::ANY) {
            let value = if scheme { format!("Bearer {secret}") } else { secret.clone() };
            let masked = mask(value.as_bytes());
            let shown = masked.trim_start_matches("Bearer").trim_start_matches("****");
            prop_assert!(shown.is_empty() || secret.len() >= SHOWN_FROM && shown.len() <= 4);
        }

        #[test]
        fn no_bytes_make_it_panic_or_break_a_header(value in any::<Vec<u8>>()) {
            prop_assert!(http::HeaderValue::from_str(&mask(&value)).is_ok());
        }
    }
}

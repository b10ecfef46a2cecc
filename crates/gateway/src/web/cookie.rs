//! Cookies: read from a request, written with every attribute that keeps them ours (RFC 6265, and `SameSite` of
//! its successor). What they hold is sealed elsewhere.

use http::{HeaderMap, HeaderValue, header};
use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

/// The value of the first cookie of this name.
pub fn get<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(header::COOKIE).iter().find_map(|line| {
        line.to_str().ok()?.split(';').find_map(|pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then_some(value)
        })
    })
}

/// The name of a cookie for every path of this host. Over https it has the prefix with which browsers take it from this
/// host alone, so that no neighbouring subdomain sets it (RFC 6265bis, section 4.1.3.2); it needs `Path=/`.
pub fn of_this_host(name: &str, secure: bool) -> Cow<'_, str> {
    if secure {
        Cow::Owned(format!("__Host-{name}"))
    } else {
        Cow::Borrowed(name)
    }
}

/// A `Set-Cookie` value: not readable by scripts, not sent along by other sites' forms, for this path alone.
/// `None` when name or value cannot be written.
pub fn set(name: &str, value: &str, path: &str, life: Duration, secure: bool) -> Option<HeaderValue> {
    let mut text = format!(
        "{name}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Lax",
        life.as_secs()
    );
    if secure {
        let _ = write!(text, "; Secure");
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; vestibule=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=x=y"));
        assert_eq!(get(&headers, "a"), Some("1"));
        assert_eq!(get(&headers, "vestibule"), Some("2"));
        assert_eq!(get(&headers, "b"), Some("x=y"));
        assert_eq!(get(&headers, "vest"), None);
    }

    #[test]
    fn a_cookie_says_how_long_and_for_whom() {
        let line = set("n", "v", "/callback", Duration::from_secs(600), true).expect("written");
        assert_eq!(
            line,
            "n=v; Path=/callback; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
        let plain = set("n", "v", "/", Duration::ZERO, false).expect("written");
        assert_eq!(plain, "n=v; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
        assert_eq!(set("n", "v\r\nX: y", "/", Duration::ZERO, false), None);
    }
}

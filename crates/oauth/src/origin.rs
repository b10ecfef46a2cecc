//! Web origins (RFC 6454 section 4): scheme, host and port as one comparable value, and what counts as a
//! loopback host. Which origin is the gateway's own is decided elsewhere.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use thiserror::Error;
use url::{Host, Url};

/// The schemes that an origin can have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// The scheme's name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant when none is written (RFC 9110 section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Reads a scheme's name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }
}

/// Scheme, host and port (RFC 6454 section 4). Two values are equal when they are the same origin: a
/// default port that is written equals one that is not, and case does not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// The text names no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotAnOrigin {
    /// Not `http` or `https`, or no `://`.
    #[error("an origin starts with http:// or https://")]
    Scheme,
    /// A host that is missing, or written in a way that programs read differently.
    #[error("the host is missing or not written plainly")]
    Host,
    /// A port that is no number from 1 to 65535.
    #[error("the port is no number from 1 to 65535")]
    Port,
}

impl Origin {
    /// The origin of an `http` or `https` URL's text (RFC 6454 section 4). Path, query and fragment are
    /// not looked at; user information is refused.
    pub fn parse(url: &str) -> Result<Self, NotAnOrigin> {
        let (scheme, rest) = url.split_once("://").ok_or(NotAnOrigin::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(NotAnOrigin::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        Self::from_authority(scheme, &rest[..end])
    }

    /// An origin from a scheme and `host[:port]`, the form of a `Host` header (RFC 9110 section 7.2).
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, NotAnOrigin> {
        Authority::parse(authority).map(|authority| Self::from_parts(scheme, &authority))
    }

    pub(crate) fn from_parts(scheme: Scheme, authority: &Authority) -> Self {
        Self {
            scheme,
            host: authority.host.clone(),
            port: authority.port.unwrap_or(scheme.default_port()),
        }
    }

    /// The origin of a parsed URL; `None` when it is not `http` or `https` (RFC 6454 section 4).
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = Scheme::parse(url.scheme())?;
        Some(Self {
            scheme,
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; IPv6 in brackets and in its canonical form (RFC 5952).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also when it is the default one.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    /// `scheme://host[:port]`, without a default port and without a slash at the end (RFC 6454 section 6.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.host)?;
        if self.port == self.scheme.default_port() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// Whether a host is the machine itself: `localhost`, 127.0.0.0/8, `::1` in any textual form, and
/// IPv4-mapped 127.0.0.0/8 (RFC 8252 section 7.3). IPv6 with or without brackets. A name below
/// `localhost`, or one with a dot at its end, is not.
pub fn is_loopback_host(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return v4.is_loopback();
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse::<Ipv6Addr>()
        .is_ok_and(|v6| v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()))
}

/// `host[:port]` in the one spelling that every URL parser reads the same way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// In lower case; IPv6 canonical, in brackets.
    pub(crate) host: String,
    /// As written.
    pub(crate) port: Option<u16>,
}

impl Authority {
    pub(crate) fn parse(text: &str) -> Result<Self, NotAnOrigin> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(NotAnOrigin::Host)?;
            let address: Ipv6Addr = inside.parse().map_err(|_| NotAnOrigin::Host)?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or(NotAnOrigin::Host)?),
            };
            (Host::<&str>::Ipv6(address).to_string(), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (plain_host(host).ok_or(NotAnOrigin::Host)?, port)
        };
        let port = port.map(plain_port).transpose()?;
        Ok(Self { host, port })
    }
}

/// A name or IPv4 address that is written as a parser would write it, case apart: no percent-encoding,
/// no hexadecimal or shortened IPv4, no empty label.
fn plain_host(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let plain = lower
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let labels = lower.strip_suffix('.').unwrap_or(&lower);
    let labels = lower.len() <= 253 && labels.split('.').all(|label| (1..=63).contains(&label.len()));
    let same = || Host::parse(&lower).is_ok_and(|host| host.to_string() == lower);
    (plain && labels && same()).then_some(lower)
}

/// One to five digits without a leading zero (RFC 3986 section 3.2.3 allows more), not zero.
fn plain_port(text: &str) -> Result<u16, NotAnOrigin> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(NotAnOrigin::Port);
    }
    text.parse().map_err(|_| NotAnOrigin::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_forms() {
        for (text, shown) in [
            ("https://llm.example.com", "https://llm.example.com"),
            ("https://llm.example.com:443/", "https://llm.example.com"),
            ("HTTPS://LLM.Example.com/ui/?q#f", "https://llm.example.com"),
            ("https://llm.example.com:8443/x", "https://llm.example.com:8443"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://h:80", "https://h:80"),
            ("http://[2001:DB8:0::1]:8080/x", "http://[2001:db8::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://127.0.0.1:4000", "http://127.0.0.1:4000"),
            ("http://my_host.internal.", "http://my_host.internal."),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://h?x=/", "https://h"),
        ] {
            assert_eq!(Origin::parse(text).expect(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_origin() {
        for text in [
            "",
            "https://",
            "https:///x",
            "llm.example.com",
            "ftp://h",
            "://h",
            "https:/h",
            "javascript://h",
            " https://h",
            "https://h ",
            "https://u@h",
            "https://u:p@h",
            "https://h\\x",
            "https://h:",
            "https://h:0",
            "https://h:080",
            "https://h:65536",
            "https://h:+80",
            "https://h:80:80",
            "https://a..b",
            "https://.a",
            "https://0x7f.1",
            "https://127.1",
            "https://2130706433",
            "https://127.0.0.01",
            "https://127.0.0.1.",
            "https://%6cocalhost",
            "https://b\u{fc}cher.example",
            "https://h\t",
            "https://h\n.x",
            "https://[::1",
            "https://[::1]x",
            "https://[fe80::1%25eth0]",
            "https://[fe80::1%eth0]",
            "https://[127.0.0.1]",
            "https://::1",
            "https://*.x",
        ] {
            assert!(Origin::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn equality_is_that_of_origins() {
        let origin = |text| Origin::parse(text).expect(text);
        assert_eq!(origin("https://a.b:443/x"), origin("HTTPS://A.b"));
        assert_eq!(
            origin("http://[::ffff:127.0.0.1]"),
            origin("http://[::FFFF:7f00:1]:80")
        );
        for other in ["http://a.b", "https://a.b:8443", "https://a.b.", "https://b.b"] {
            assert_ne!(origin("https://a.b"), origin(other));
        }
        let url = Url::parse("https://a.b:8443/x").expect("URL");
        assert_eq!(Origin::of(&url), Some(origin("https://a.b:8443")));
        assert_eq!(Origin::of(&Url::parse("cursor://a/b").expect("URL")), None);
        assert_eq!(
            Origin::from_authority(Scheme::Https, "a.b:443"),
            Ok(origin("https://a.b"))
        );
        assert_eq!(
            Origin::from_authority(Scheme::Https, "a.b/x"),
            Err(NotAnOrigin::Host)
        );
    }

    #[test]
    fn loopback_hosts() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "0:0:0:0:0:0:0:1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "localhost.",
            "a.localhost",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "128.0.0.1",
            "0.0.0.0",
            "127.1",
            "0x7f.1",
            "127.0.0.01",
            "::",
            "[::2]",
            "::127.0.0.1",
            "[::1",
            "[127.0.0.1]",
            "::ffff:10.0.0.1",
            "::1%lo",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_means_the_same_to_a_url_parser(text in "https?://[a-zA-Z0-9.:%@\\[\\]_-]{0,24}(/x)?") {
            if let Ok(origin) = Origin::parse(&text) {
                let url = Url::parse(&text).expect("a URL parser takes it too");
                prop_assert_eq!(Some(origin.clone()), Origin::of(&url));
                prop_assert_eq!(Origin::parse(&origin.to_string()), Ok(origin));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>()) {
            let _ = Origin::parse(&text);
            let _ = Origin::from_authority(Scheme::Http, &text);
            let _ = is_loopback_host(&text);
        }
    }
}

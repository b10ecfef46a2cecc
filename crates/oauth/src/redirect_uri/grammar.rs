//! The strict reading of a redirect URI (RFC 3986): what passes here is read the same way by every
//! parser. Whether it is trusted is not asked here.

use crate::origin::{Authority, NotAnOrigin, Scheme};
use thiserror::Error;
use url::Url;

/// The longest redirect URI, in bytes.
pub const LENGTH_LIMIT: usize = 2048;

/// Schemes that a browser runs, opens as a file, or hands to a program with its own meaning. None of them
/// is ever a place to send an authorization code to (RFC 8252 section 8.4 asks for app-owned schemes).
const DANGEROUS_SCHEMES: &[&str] = &[
    "about",
    "blob",
    "chrome",
    "content",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "jar",
    "javascript",
    "mailto",
    "ms-msdt",
    "resource",
    "search-ms",
    "sms",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Why a text is no redirect URI at all (RFC 6749 section 3.1.2, RFC 3986).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UriFault {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Longer than [`LENGTH_LIMIT`].
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// A space, a control character, a backslash, a character outside ASCII or outside RFC 3986.
    #[error("it has a character that no URI may carry")]
    Character,
    /// `%` without two hexadecimal digits after it.
    #[error("it has a percent sign without two hexadecimal digits")]
    PercentEncoding,
    /// A fragment, which RFC 6749 section 3.1.2 forbids.
    #[error("it has a fragment")]
    Fragment,
    /// No scheme, or none that RFC 3986 section 3.1 allows.
    #[error("it has no scheme")]
    NoScheme,
    /// A scheme that runs or opens something.
    #[error("its scheme is never a place to send an authorization code to")]
    DangerousScheme,
    /// No `//` with a host after it.
    #[error("it has no host")]
    NoHost,
    /// A user name or password.
    #[error("it has user information before the host")]
    UserInformation,
    /// A host or port that programs read differently.
    #[error("its host or port is not written plainly")]
    Host,
    /// A path that changes when it is read: dot segments, plain or encoded.
    #[error("it changes when it is parsed")]
    Rewritten,
}

/// A redirect URI in its parts. Path and query are as written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// In lower case.
    pub(super) scheme: String,
    pub(super) authority: Authority,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(super) fn parse(uri: &'a str) -> Result<Self, UriFault> {
        if uri.is_empty() {
            return Err(UriFault::Empty);
        }
        if uri.len() > LENGTH_LIMIT {
            return Err(UriFault::TooLong);
        }
        check_characters(uri)?;
        let (scheme, rest) = uri.split_once(':').ok_or(UriFault::NoScheme)?;
        if !is_scheme(scheme) {
            return Err(UriFault::NoScheme);
        }
        let scheme = scheme.to_ascii_lowercase();
        if DANGEROUS_SCHEMES.contains(&scheme.as_str()) {
            return Err(UriFault::DangerousScheme);
        }
        let rest = rest.strip_prefix("//").ok_or(UriFault::NoHost)?;
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(UriFault::NoHost);
        }
        if authority.contains('@') {
            return Err(UriFault::UserInformation);
        }
        let authority = Authority::parse(authority).map_err(|fault| match fault {
            NotAnOrigin::Host | NotAnOrigin::Port | NotAnOrigin::Scheme => UriFault::Host,
        })?;
        let (path, query) = match after.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (after, None),
        };
        if path.contains(['[', ']']) || query.is_some_and(|query| query.contains(['[', ']'])) {
            return Err(UriFault::Character);
        }
        let parts = Self {
            scheme,
            authority,
            path,
            query,
        };
        if parts.is_kept_by_a_parser(uri) {
            Ok(parts)
        } else {
            Err(UriFault::Rewritten)
        }
    }

    /// The port, also when it is the default one of `http` or `https`.
    pub(super) fn port(&self) -> Option<u16> {
        self.authority
            .port
            .or_else(|| Scheme::parse(&self.scheme).map(Scheme::default_port))
    }

    /// The path, where none is `/` (RFC 3986 section 6.2.3).
    pub(super) fn path_or_root(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.path }
    }

    /// Whether the URL parser that browsers use (the WHATWG one) finds the same parts, unchanged.
    fn is_kept_by_a_parser(&self, uri: &str) -> bool {
        let Ok(url) = Url::parse(uri) else { return false };
        let special = Scheme::parse(&self.scheme).is_some();
        let path = if special { self.path_or_root() } else { self.path };
        url.scheme() == self.scheme
            && url.username().is_empty()
            && url.password().is_none()
            // The host of an unknown scheme keeps its case.
            && url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&self.authority.host))
            && url.port_or_known_default() == self.port()
            && url.path() == path
            && url.query() == self.query
            && url.fragment().is_none()
    }
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )` (RFC 3986 section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// RFC 3986 section 2: unreserved, reserved and percent-encoded, without `#`.
fn check_characters(uri: &str) -> Result<(), UriFault> {
    let bytes = uri.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'#' => return Err(UriFault::Fragment),
            b'%' => {
                let digits = bytes.get(at + 1..at + 3);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(UriFault::PercentEncoding);
                }
            }
            byte if byte.is_ascii_alphanumeric() => {}
            byte if b"-._~:/?[]@!$&'()*+,;=".contains(byte) => {}
            _ => return Err(UriFault::Character),
        }
    }
    Ok(())
}

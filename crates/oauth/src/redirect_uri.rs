//! The one judge of redirect URIs: where an authorization code may be sent. It reads a URI by one strict
//! grammar, says why it is trusted or what would make it so, and compares a presented URI with a
//! registered one. It does not ask a person; a consent page is built from what it says.

mod grammar;
#[cfg(test)]
mod tests;

use crate::origin::{Authority, Origin, Scheme, is_loopback_host};
use grammar::Parts;
pub use grammar::{LENGTH_LIMIT, UriFault};
use std::fmt;
use std::net::Ipv4Addr;
use thiserror::Error;
use url::form_urlencoded::byte_serialize;

/// The setting that lists further hosts for `https` redirect URIs.
pub const ORIGINS_SETTING: &str = "MCP_TRUSTED_REDIRECT_ORIGINS";

/// The setting that lists further redirect URIs with a scheme of an application's own.
pub const NATIVE_SETTING: &str = "MCP_TRUSTED_NATIVE_REDIRECT_URIS";

/// The callbacks of known applications that are trusted without a setting. An entry needs a reason: any
/// application on a machine can claim a scheme (RFC 8252 section 8.6), and a hosted forwarder hands the
/// code on to whoever the `state` names. That is why neither the editor schemes without a fixed callback
/// nor `https://vscode.dev/redirect` is here: VS Code registers loopback addresses as well.
const KNOWN_NATIVE: &[&str] = &[
    // Cursor registers no loopback address, so without this entry it cannot sign in at all.
    "cursor://anysphere.cursor-mcp/oauth/callback",
];

/// Which redirect URIs are trusted beyond the gateway's own origin and loopback addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectRules {
    hosts: Vec<HostRule>,
    native: Vec<NativeRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    /// This host at this port.
    Exact { host: String, port: u16 },
    /// Every name strictly below `suffix`, which starts with its dot; at any port, or at the one given.
    Below { suffix: String, port: Option<u16> },
}

/// Lower-cased parts of a private-use URI (RFC 8252 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
struct NativeRule {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
    /// The entry ended in `*`.
    below: bool,
}

/// Why a redirect URI is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is on the gateway's own public origin (RFC 6454 section 5).
    SameOrigin,
    /// It stays on the person's machine (RFC 8252 section 7.3).
    Loopback,
    /// The operator listed its host.
    Listed,
    /// An application's own scheme, listed or known (RFC 8252 section 7.1).
    Native,
}

/// A redirect URI that passed, with its exact text (RFC 9700 section 4.1.3 compares texts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedRedirectUri {
    text: String,
    host: String,
    trust: Trust,
}

impl JudgedRedirectUri {
    /// The URI as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Why it is trusted.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The host the code goes to, for a person to read: with its port where one is written, and with its
    /// scheme when that is an application's own.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URI with an answer's parameters (RFC 6749 section 4.1.2). See [`with_parameters`].
    pub fn with_parameters(&self, parameters: &[(&str, &str)]) -> String {
        with_parameters(&self.text, parameters)
    }
}

impl fmt::Display for JudgedRedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a redirect URI is refused (RFC 6749 section 4.1.2.1: the browser is not sent there). The text is
/// for logs; [`RedirectRejection::public_text`] is what a caller may see.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RedirectRejection {
    /// It does not follow the grammar. No setting changes that.
    #[error("the redirect URI is refused whatever the settings say: {0}")]
    Malformed(UriFault),
    /// `http`, and neither loopback nor the gateway's own origin.
    #[error(
        "the redirect URI's origin {origin} is http and not the gateway's own origin {public}: set PROXY_BASE_URL \
         if {origin} is the address that browsers use for this gateway; {ORIGINS_SETTING} takes https only"
    )]
    Insecure {
        /// The URI's origin.
        origin: Origin,
        /// What it was compared with.
        public: Origin,
    },
    /// `https` on a host that is not listed.
    #[error(
        "the redirect URI's origin {origin} is not the gateway's own origin {public}: set PROXY_BASE_URL if \
         {origin} is the address that browsers use for this gateway, or add {} to {ORIGINS_SETTING} if you \
         vouch for that site", authority_of(.origin)
    )]
    NotListed {
        /// The URI's origin.
        origin: Origin,
        /// What it was compared with.
        public: Origin,
    },
    /// A private-use scheme that is not listed.
    #[error(
        "the redirect URI belongs to an application ({target}), not to the gateway's own origin {public}: add it to \
         {NATIVE_SETTING} if you trust that application"
    )]
    NativeNotListed {
        /// Scheme and host.
        target: String,
        /// What it was compared with.
        public: Origin,
    },
    /// A listed application's URI with a query, which the comparison does not cover.
    #[error(
        "the redirect URI belongs to an application ({target}) and has a query, which {NATIVE_SETTING} never allows"
    )]
    NativeWithQuery {
        /// Scheme and host.
        target: String,
    },
}

impl RedirectRejection {
    /// A short sentence for the caller. It names no origin of the gateway.
    pub fn public_text(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "The redirect_uri is not acceptable.",
            Self::Insecure { .. } => "The redirect_uri must be https, or http on a loopback address.",
            Self::NotListed { .. } | Self::NativeNotListed { .. } | Self::NativeWithQuery { .. } => {
                "The redirect_uri is not trusted by this gateway."
            }
        }
    }

    /// The setting that would allow the URI, where one would.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) | Self::NativeWithQuery { .. } => None,
            Self::Insecure { .. } => Some("PROXY_BASE_URL"),
            Self::NotListed { .. } => Some(ORIGINS_SETTING),
            Self::NativeNotListed { .. } => Some(NATIVE_SETTING),
        }
    }
}

fn authority_of(origin: &Origin) -> String {
    let text = origin.to_string();
    text.split_once("://")
        .map_or(text.clone(), |(_, rest)| rest.to_owned())
}

impl RedirectRules {
    /// Reads the values of [`ORIGINS_SETTING`] and [`NATIVE_SETTING`], comma-separated. An entry that can
    /// grant nothing is left out, with a sentence about it.
    pub fn parse(trusted_origins: &str, native: &str) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut rules = Self {
            hosts: Vec::new(),
            native: KNOWN_NATIVE
                .iter()
                .filter_map(|uri| NativeRule::parse(uri).ok())
                .collect(),
        };
        for entry in entries(trusted_origins) {
            match HostRule::parse(entry) {
                Some(rule) => rules.hosts.push(rule),
                None => warnings.push(format!(
                    "{ORIGINS_SETTING}: {entry:?} grants nothing; an entry is host, host:port or *.suffix"
                )),
            }
        }
        for entry in entries(native) {
            match NativeRule::parse(entry) {
                Ok(rule) => rules.native.push(rule),
                Err(why) => warnings.push(format!("{NATIVE_SETTING}: {entry:?} grants nothing: {why}")),
            }
        }
        (rules, warnings)
    }

    /// Judges a redirect URI: the strict grammar first, then same origin, loopback, the listed hosts
    /// (`https` only) and, for other schemes, the native list. `public_origin` is the gateway's own.
    pub fn judge(&self, uri: &str, public_origin: &Origin) -> Result<JudgedRedirectUri, RedirectRejection> {
        let parts = Parts::parse(uri).map_err(RedirectRejection::Malformed)?;
        let (trust, host) = if let Some(scheme) = Scheme::parse(&parts.scheme) {
            let trust = self.judge_web(scheme, &parts, public_origin)?;
            (trust, host_and_port(&parts.authority))
        } else {
            let target = format!("{}://{}", parts.scheme, host_and_port(&parts.authority));
            self.judge_native(&parts, &target, public_origin)?;
            (Trust::Native, target)
        };
        Ok(JudgedRedirectUri {
            text: uri.to_owned(),
            host,
            trust,
        })
    }

    fn judge_web(
        &self,
        scheme: Scheme,
        parts: &Parts<'_>,
        public: &Origin,
    ) -> Result<Trust, RedirectRejection> {
        let origin = Origin::from_parts(scheme, &parts.authority);
        if origin == *public {
            return Ok(Trust::SameOrigin);
        }
        if is_loopback_host(origin.host()) {
            return Ok(Trust::Loopback);
        }
        let public = public.clone();
        if scheme == Scheme::Http {
            return Err(RedirectRejection::Insecure { origin, public });
        }
        if self.hosts.iter().any(|rule| rule.covers(&origin)) {
            return Ok(Trust::Listed);
        }
        Err(RedirectRejection::NotListed { origin, public })
    }

    fn judge_native(
        &self,
        parts: &Parts<'_>,
        target: &str,
        public: &Origin,
    ) -> Result<(), RedirectRejection> {
        let target = target.to_owned();
        if !self.native.iter().any(|rule| rule.covers(parts)) {
            let public = public.clone();
            return Err(RedirectRejection::NativeNotListed { target, public });
        }
        if parts.query.is_some() {
            return Err(RedirectRejection::NativeWithQuery { target });
        }
        Ok(())
    }
}

impl Default for RedirectRules {
    /// No setting: the gateway's own origin, loopback addresses and the known applications.
    fn default() -> Self {
        Self::parse("", "").0
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn host_and_port(authority: &Authority) -> String {
    match authority.port {
        Some(port) => format!("{}:{port}", authority.host),
        None => authority.host.clone(),
    }
}

impl HostRule {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.to_ascii_lowercase();
        let rest = entry.split_once("://").map_or(entry.as_str(), |(_, rest)| rest);
        let rest = rest.split('/').next().unwrap_or_default();
        let Some(suffix) = rest.strip_prefix("*.") else {
            let Authority { host, port } = Authority::parse(rest).ok()?;
            return Some(Self::Exact {
                host,
                port: port.unwrap_or(Scheme::Https.default_port()),
            });
        };
        let Authority { host, port } = Authority::parse(suffix).ok()?;
        let is_name = !host.starts_with('[') && host.parse::<Ipv4Addr>().is_err();
        is_name.then(|| Self::Below {
            suffix: format!(".{host}"),
            port: port.filter(|port| *port != Scheme::Https.default_port()),
        })
    }

    fn covers(&self, origin: &Origin) -> bool {
        match self {
            Self::Exact { host, port } => origin.host() == host && origin.port() == *port,
            // The suffix starts with a dot and the grammar allows no empty label, so what is before it is
            // one or more whole labels.
            Self::Below { suffix, port } => {
                let deeper = origin.host().strip_suffix(suffix.as_str());
                deeper.is_some_and(|labels| !labels.is_empty())
                    && port.is_none_or(|port| port == origin.port())
            }
        }
    }
}

impl NativeRule {
    fn parse(entry: &str) -> Result<Self, String> {
        let (uri, below) = match entry.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (entry, false),
        };
        let lower = uri.to_ascii_lowercase();
        let parts = Parts::parse(&lower).map_err(|fault| fault.to_string())?;
        if Scheme::parse(&parts.scheme).is_some() {
            return Err(format!("{ORIGINS_SETTING} is the list for https"));
        }
        if parts.query.is_some() {
            return Err("it has a query".into());
        }
        if below && parts.path.is_empty() {
            return Err("a * may only end a path".into());
        }
        Ok(Self {
            path: parts.path.to_owned(),
            scheme: parts.scheme,
            host: parts.authority.host,
            port: parts.authority.port,
            below,
        })
    }

    fn covers(&self, parts: &Parts<'_>) -> bool {
        let path = parts.path.to_ascii_lowercase();
        let same_path = match path.strip_prefix(self.path.as_str()) {
            Some("") => true,
            Some(deeper) => self.below && (self.path.ends_with('/') || deeper.starts_with('/')),
            None => false,
        };
        same_path
            && parts.scheme == self.scheme
            && parts.authority.host == self.host
            && parts.authority.port == self.port
    }
}

/// Whether a presented redirect URI is the registered one: the same bytes (RFC 9700 section 4.1.3), except
/// that the port of an `http` loopback address does not count when both name the same host (RFC 8252
/// section 7.3). A registered address without a port matches any port.
pub fn matches_registered(registered: &str, presented: &str) -> bool {
    if registered == presented {
        return true;
    }
    let (Ok(registered), Ok(presented)) = (Parts::parse(registered), Parts::parse(presented)) else {
        return false;
    };
    let on_loopback = |parts: &Parts<'_>| parts.scheme == "http" && is_loopback_host(&parts.authority.host);
    on_loopback(&registered)
        && on_loopback(&presented)
        && registered.authority.host == presented.authority.host
        && registered.path_or_root() == presented.path_or_root()
        && registered.query == presented.query
}

/// Adds an answer's parameters to a redirect URI (RFC 6749 section 4.1.2, appendix B): a query that is
/// there stays in front, the rest of the text is not touched. A fragment, which no judged URI has, is cut.
pub fn with_parameters(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut whole = uri.split('#').next().unwrap_or_default().to_owned();
    let mut separator = match whole.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    for (name, value) in parameters {
        whole.push_str(separator);
        whole.extend(byte_serialize(name.as_bytes()));
        whole.push('=');
        whole.extend(byte_serialize(value.as_bytes()));
        separator = "&";
    }
    whole
}

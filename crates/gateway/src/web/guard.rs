//! Who a browser may be calling for. A page of another site must not reach a gateway on somebody's own
//! machine by a name that resolves to it (DNS rebinding; MCP transports, "Security Warning").

use super::error::{ErrorCode, Refusal};
use crate::config::BrowserAccess;
use http::{HeaderMap, HeaderValue, Uri, header};
use url::{Host, Url};

/// Judges `Host` and `Origin`.
#[derive(Debug)]
pub struct Guard {
    access: BrowserAccess,
    /// `Host` is judged only on a loopback listener: elsewhere the key keeps a page out.
    check_host: bool,
}

impl Guard {
    /// `loopback` says whether the gateway listens on a loopback address.
    pub fn new(access: BrowserAccess, loopback: bool) -> Self {
        Self {
            access,
            check_host: loopback,
        }
    }

    /// Refuses a request that a foreign page may have made by a name that resolves to this machine.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.check_host && !self.host_is_allowed(uri, headers) {
            return Err(Refusal::new(ErrorCode::HostNotAllowed));
        }
        Ok(())
    }

    /// Refuses a request of a page of another origin, and gives the origin of one that may call. What is public to
    /// every page does not ask this.
    pub fn check_origin<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h HeaderValue>, Refusal> {
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.origin_is_allowed(origin.as_bytes()) => {
                Err(Refusal::new(ErrorCode::OriginNotAllowed))
            }
            origin => Ok(origin),
        }
    }

    fn host_is_allowed(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let Ok(host) = host.to_str() else { return false };
        // An absolute request target names the host too, and both must be ours (RFC 9112 section 3.2.2).
        is_common_loopback(host) && uri.authority().is_none()
            || self.authority_is_allowed(host)
                && uri
                    .authority()
                    .is_none_or(|authority| self.authority_is_allowed(authority.as_str()))
    }

    fn authority_is_allowed(&self, authority: &str) -> bool {
        let Ok(url) = Url::parse(&format!("http://{authority}/")) else {
            return false;
        };
        if !url.username().is_empty()
            || url.password().is_some()
            || url.path() != "/"
            || url.query().is_some()
        {
            return false;
        }
        let Some(host) = url.host() else { return false };
        is_loopback(&host) || self.access.hosts.contains(&host.to_string())
    }

    fn origin_is_allowed(&self, origin: &[u8]) -> bool {
        let Some(url) = std::str::from_utf8(origin)
            .ok()
            .and_then(|text| Url::parse(text).ok())
        else {
            return false;
        };
        matches!(url.scheme(), "http" | "https") && url.host().is_some_and(|host| is_loopback(&host))
            || self.access.origins.contains(&url.origin().ascii_serialization())
    }
}

/// What nearly every local client sends, told without parsing.
fn is_common_loopback(host: &str) -> bool {
    let name = host
        .strip_prefix("127.0.0.1")
        .or_else(|| host.strip_prefix("localhost"));
    match name {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|port| {
            !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
        }),
        None => false,
    }
}

/// `localhost`, 127.0.0.0/8 and `::1`.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(guard: &Guard, host: Option<&str>, origin: Option<&str>) -> Option<ErrorCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).expect("value"));
            }
        }
        guard
            .check_host(&Uri::from_static("/a/mcp"), &headers)
            .and_then(|()| guard.check_origin(&headers))
            .err()
            .map(|refusal| refusal.code)
    }

    fn guard(loopback: bool) -> Guard {
        let access = BrowserAccess {
            hosts: vec!["gw.example.com".into()],
            origins: vec!["https://gw.example.com".into()],
        };
        Guard::new(access, loopback)
    }

    #[test]
    fn hosts_on_a_loopback_listener() {
        for good in [
            "localhost",
            "localhost:4000",
            "127.0.0.1:4000",
            "127.9.9.9",
            "[::1]:4000",
            "GW.example.com",
            "LOCALHOST:1",
        ] {
            assert_eq!(judged(&guard(true), Some(good), None), None, "{good}");
        }
        for bad in [
            "evil.example.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "127.0.0.1:4000@evil.com",
            "evil.com#localhost",
            "localhost:",
            "127.0.0.1:port",
            "",
            "10.0.0.1",
            "[::ffff:1.2.3.4]",
        ] {
            // An empty port is the same origin as none.
            let expected = (bad != "localhost:").then_some(ErrorCode::HostNotAllowed);
            assert_eq!(judged(&guard(true), Some(bad), None), expected, "{bad}");
        }
        assert_eq!(judged(&guard(true), None, None), Some(ErrorCode::HostNotAllowed));
        assert_eq!(judged(&guard(false), Some("anything.example"), None), None);
    }

    #[test]
    fn an_absolute_target_is_judged_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let uri = Uri::from_static("http://evil.example/a/mcp");
        assert!(guard(true).check_host(&uri, &headers).is_err());
        let uri = Uri::from_static("http://localhost/a/mcp");
        assert!(guard(true).check_host(&uri, &headers).is_ok());
    }

    #[test]
    fn origins_everywhere() {
        for loopback in [true, false] {
            for good in [
                "http://localhost:6274",
                "https://127.0.0.1",
                "http://[::1]:1",
                "https://gw.example.com",
                "https://gw.example.com:443",
            ] {
                assert_eq!(
                    judged(&guard(loopback), Some("localhost"), Some(good)),
                    None,
                    "{good}"
                );
            }
            for bad in [
                "https://evil.example",
                "null",
                "http://gw.example.com",
                "file://",
                "vscode-file://vscode-app",
                "https://localhost.evil.com",
            ] {
                let found = judged(&guard(loopback), Some("localhost"), Some(bad));
                assert_eq!(found, Some(ErrorCode::OriginNotAllowed), "{bad}");
            }
        }
    }
}

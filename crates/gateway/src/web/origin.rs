//! The one resolver of the public origin: what this gateway is called by whoever made a request. Everything
//! that names the gateway (metadata, challenges, callbacks, redirect rules) asks here.

use crate::config::OriginSettings;
use http::{HeaderMap, Uri, header};
use std::net::IpAddr;
use vestibule_oauth::origin::{Origin, Scheme};

/// Resolves the public origin: `PROXY_BASE_URL`, then forwarded headers of trusted peers, then the request.
#[derive(Debug)]
pub struct PublicOrigin {
    settings: OriginSettings,
}

impl PublicOrigin {
    /// With the configuration's order of belief.
    pub fn new(settings: OriginSettings) -> Self {
        Self { settings }
    }

    /// The origin that the maker of this request sees. `None` when nothing usable names one.
    pub fn of(&self, uri: &Uri, headers: &HeaderMap, peer: IpAddr) -> Option<Origin> {
        if let Some(base) = &self.settings.base {
            return Some(base.clone());
        }
        let asked = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => only(headers, header::HOST.as_str())?,
        };
        if self.trusts(peer) {
            forwarded(headers, asked)
        } else {
            Origin::from_authority(Scheme::Http, asked).ok()
        }
    }

    /// Whether `peer` is a proxy whose word counts. An IPv4 address is the same one written as IPv6.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let mut ranges = self.settings.trusted_peers.iter();
        ranges.any(|range| range.contains(&peer))
    }
}

/// The origin that a trusted proxy tells, over what it asked itself. A host with a port wins over
/// `X-Forwarded-Port`; a value that is no host, port or scheme is as good as absent.
fn forwarded(headers: &HeaderMap, asked: &str) -> Option<Origin> {
    let scheme = first(headers, "x-forwarded-proto").and_then(Scheme::parse);
    let scheme = scheme.unwrap_or(Scheme::Http);
    let host = first(headers, "x-forwarded-host").filter(|host| Origin::from_authority(scheme, host).is_ok());
    let host = host.unwrap_or(asked);
    let port = first(headers, "x-forwarded-port").and_then(|port| port.parse::<u16>().ok());
    match port {
        Some(port) if !has_port(host) => Origin::from_authority(scheme, &format!("{host}:{port}")).ok(),
        _ => Origin::from_authority(scheme, host).ok(),
    }
}

/// The first element of a header's first line: the proxy nearest to the client wrote it.
fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get(name)?.to_str().ok()?;
    let value = value.split(',').next()?.trim();
    (!value.is_empty()).then_some(value)
}

/// The value of a header that stands once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// A colon behind the brackets of an IPv6 address, or anywhere in another host.
fn has_port(host: &str) -> bool {
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    host[end..].contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c str);

    const PROXY: &str = "10.1.2.3";

    fn resolve(
        base: Option<&str>,
        ranges: &[&str],
        peer: &str,
        host: &str,
        headers: &[(&str, &str)],
    ) -> Option<String> {
        let settings = OriginSettings {
            base: base.map(|base| Origin::parse(base).expect("origin")),
            trusted_peers: ranges.iter().map(|range| range.parse().expect("range")).collect(),
        };
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_str(host).expect("host"));
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        let peer = peer.parse().expect("address");
        PublicOrigin::new(settings)
            .of(&Uri::from_static("/x"), &map, peer)
            .map(|origin| origin.to_string())
    }

    #[test]
    fn forwarded_headers_of_a_trusted_peer() {
        let proto = "x-forwarded-proto";
        let host = "x-forwarded-host";
        let port = "x-forwarded-port";
        let cases: &[Case<'_>] = &[
            ("localhost:4000", &[], "http://localhost:4000"),
            ("localhost:4000", &[(proto, "https")], "https://localhost:4000"),
            (
                "localhost:4000",
                &[(proto, "https"), (host, "proxy.example.com")],
                "https://proxy.example.com",
            ),
            (
                "localhost:4000",
                &[(proto, "https"), (host, "p.example:8080")],
                "https://p.example:8080",
            ),
            (
                "localhost:4000",
                &[(proto, "https"), (host, "p.example"), (port, "8443")],
                "https://p.example:8443",
            ),
            (
                "localhost:4000",
                &[(host, "proxy.example.com")],
                "http://proxy.example.com",
            ),
            ("localhost:4000", &[(port, "8443")], "http://localhost:4000"),
            ("internal.local", &[(port, "8443")], "http://internal.local:8443"),
            (
                "localhost",
                &[(host, "[2001:db8::1]:8080")],
                "http://[2001:db8::1]:8080",
            ),
            (
                "localhost",
                &[(host, "[2001:db8::1]"), (port, "8080")],
                "http://[2001:db8::1]:8080",
            ),
            (
                "localhost",
                &[(proto, "https"), (host, "p.example:9000"), (port, "8443")],
                "https://p.example:9000",
            ),
            (
                "localhost",
                &[(proto, "https"), (host, "p.example"), (port, "443")],
                "https://p.example",
            ),
            (
                "internal.local",
                &[(proto, "https"), (port, "443")],
                "https://internal.local",
            ),
            // Lists: the first element is the client's side.
            (
                "internal.local",
                &[(proto, "https, http"), (host, "a.example, b.example")],
                "https://a.example",
            ),
            // Nonsense is as good as absent.
            (
                "internal.local",
                &[(proto, "javascript"), (host, "a.example/evil")],
                "http://internal.local",
            ),
            (
                "internal.local",
                &[(proto, "HTTPS"), (host, "user@evil.example")],
                "https://internal.local",
            ),
            ("internal.local", &[(port, "99999")], "http://internal.local"),
            ("internal.local", &[(host, "")], "http://internal.local"),
        ];
        for (asked, headers, expected) in cases {
            let found = resolve(None, &["10.0.0.0/8"], PROXY, asked, headers);
            assert_eq!(found.as_deref(), Some(*expected), "{asked} {headers:?}");
            // The same peer, written as an IPv4-mapped IPv6 address.
            let mapped = resolve(None, &["10.0.0.0/8"], "::ffff:10.1.2.3", asked, headers);
            assert_eq!(mapped.as_deref(), Some(*expected), "{asked} {headers:?}");
        }
    }

    #[test]
    fn strangers_are_not_believed() {
        let headers = &[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
        ];
        for (ranges, peer) in [
            (&["10.0.0.0/8"][..], "11.0.0.1"),
            (&[][..], "10.0.0.1"),
            (&["10.0.0.0/8"][..], "::ffff:11.0.0.1"),
            (&["fd00::/8"][..], "fe80::1"),
        ] {
            let found = resolve(None, ranges, peer, "gw.local:4000", headers);
            assert_eq!(
                found.as_deref(),
                Some("http://gw.local:4000"),
                "{ranges:?} {peer}"
            );
        }
        let trusted = resolve(None, &["fd00::/8"], "fd00::7", "gw.local:4000", headers);
        assert_eq!(trusted.as_deref(), Some("https://evil.example"));
    }

    #[test]
    fn the_operators_word_counts_first() {
        let headers = &[("x-forwarded-host", "evil.example")];
        let found = resolve(
            Some("https://llm.example.com:443"),
            &["10.0.0.0/8"],
            PROXY,
            "pod:4000",
            headers,
        );
        assert_eq!(found.as_deref(), Some("https://llm.example.com"));
        assert_eq!(resolve(None, &[], PROXY, "not a host", &[]), None);
    }
}

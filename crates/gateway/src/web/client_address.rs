//! The one resolver of a client's address: the peer's, or what trusted proxies say of theirs. Whatever depends on where
//! a client is, or counts clients, asks here.

use crate::config::ProxySettings;
use http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// Whose request it is, by address. IPv4 addresses are IPv4 addresses here, however they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    address: IpAddr,
    known: bool,
}

impl ClientAddress {
    /// The client's own address; `None` where a trusted proxy's word about it cannot be read.
    pub fn known(self) -> Option<IpAddr> {
        self.known.then_some(self.address)
    }

    /// What the client is counted under: its address, or the peer's where it is not known.
    pub fn counted(self) -> IpAddr {
        self.address
    }
}

/// Resolves addresses.
#[derive(Debug)]
pub struct ClientAddresses {
    proxies: ProxySettings,
}

impl ClientAddresses {
    /// With the configuration's trusted proxies.
    pub fn new(proxies: ProxySettings) -> Self {
        Self { proxies }
    }

    /// The address of whoever made the request. Of `X-Forwarded-For` the last address counts that is not a trusted
    /// proxy, or the one so many places from the right: what stands before it anybody can write.
    pub fn of(&self, headers: &HeaderMap, peer: IpAddr) -> ClientAddress {
        let peer = peer.to_canonical();
        let unknown = ClientAddress {
            address: peer,
            known: false,
        };
        let known = |address| ClientAddress { address, known: true };
        if !self.proxies.trusts(peer) {
            return known(peer);
        }
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        // Several lines are one list (RFC 9110 section 5.3). Bytes that are no text end the reading.
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',').map(address));
        if let Some(hops) = self.proxies.hops {
            return entries.nth(hops.get() - 1).flatten().map_or(unknown, known);
        }
        let mut farthest = peer;
        for entry in entries {
            match entry {
                None => return unknown,
                Some(address) if !self.proxies.trusts(address) => return known(address),
                Some(address) => farthest = address,
            }
        }
        known(farthest)
    }
}

/// An address, which some proxies write with the port behind it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::num::NonZeroUsize;

    fn client(ranges: &[&str], hops: usize, peer: &str, lines: &[&str]) -> (Option<String>, String) {
        let proxies = ProxySettings {
            trusted: ranges.iter().map(|range| range.parse().expect("range")).collect(),
            hops: NonZeroUsize::new(hops),
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                "x-forwarded-for",
                HeaderValue::from_bytes(line.as_bytes()).expect("value"),
            );
        }
        let found = ClientAddresses::new(proxies).of(&headers, peer.parse().expect("address"));
        (
            found.known().map(|address| address.to_string()),
            found.counted().to_string(),
        )
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has() {
        let proxy = "10.0.0.1";
        for (peer, lines, expected) in [
            (proxy, &["1.1.1.1, 2.2.2.2, 10.0.0.9"][..], Some("2.2.2.2")),
            (proxy, &["192.168.0.1, 2.2.2.2"], Some("2.2.2.2")),
            (proxy, &["1.1.1.1", "3.3.3.3"], Some("3.3.3.3")),
            (proxy, &["3.3.3.3", "10.0.0.7 ,\t10.0.0.8"], Some("3.3.3.3")),
            (proxy, &["nonsense, 3.3.3.3"], Some("3.3.3.3")),
            (proxy, &["10.0.0.6, 10.0.0.7"], Some("10.0.0.6")),
            (proxy, &["3.3.3.3:443"], Some("3.3.3.3")),
            (proxy, &["[2001:db8::1]:443"], Some("2001:db8::1")),
            (proxy, &["[2001:db8::1]"], Some("2001:db8::1")),
            (proxy, &["::ffff:3.3.3.3"], Some("3.3.3.3")),
            (proxy, &["::ffff:10.0.0.9"], Some("10.0.0.9")),
            (proxy, &["3.3.3.3, ::ffff:10.0.0.9"], Some("3.3.3.3")),
            ("::ffff:10.0.0.1", &["3.3.3.3"], Some("3.3.3.3")),
            (proxy, &[], Some(proxy)),
            // What cannot be read may be anybody.
            (proxy, &["1.1.1.1, nonsense"], None),
            (proxy, &["10.0.0.9,"], None),
            (proxy, &[""], None),
            (proxy, &["unknown"], None),
            (proxy, &["192.168.0.1", "ü"], None),
            (proxy, &["fe80::1%eth0"], None),
            (proxy, &["010.0.0.9"], None),
            // A stranger's word.
            ("9.9.9.9", &["192.168.0.1"], Some("9.9.9.9")),
            ("::ffff:9.9.9.9", &["192.168.0.1"], Some("9.9.9.9")),
        ] {
            let (known, counted) = client(&["10.0.0.0/8"], 0, peer, lines);
            assert_eq!(known.as_deref(), expected, "{peer} {lines:?}");
            let peer = peer.trim_start_matches("::ffff:");
            assert_eq!(counted, expected.unwrap_or(peer), "{peer} {lines:?}");
        }
        assert_eq!(client(&[], 0, proxy, &["3.3.3.3"]).0.as_deref(), Some(proxy));
    }

    #[test]
    fn so_many_places_from_the_right() {
        let proxy = "10.0.0.1";
        for (hops, lines, expected) in [
            (1, &["1.1.1.1, 2.2.2.2"][..], Some("2.2.2.2")),
            (2, &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1")),
            (2, &["1.1.1.1", "2.2.2.2"], Some("1.1.1.1")),
            (2, &["192.168.0.1, 1.1.1.1, 10.0.0.9"], Some("1.1.1.1")),
            (1, &["192.168.0.1, 10.0.0.9"], Some("10.0.0.9")),
            (3, &["1.1.1.1, 2.2.2.2"], None),
            (1, &["1.1.1.1, nonsense"], None),
            (2, &["1.1.1.1, nonsense"], Some("1.1.1.1")),
            (1, &[], None),
        ] {
            let known = client(&["10.0.0.0/8"], hops, proxy, lines).0;
            assert_eq!(known.as_deref(), expected, "{hops} {lines:?}");
        }
        let stranger = client(&["10.0.0.0/8"], 1, "9.9.9.9", &["192.168.0.1"]);
        assert_eq!(stranger.0.as_deref(), Some("9.9.9.9"));
    }
}

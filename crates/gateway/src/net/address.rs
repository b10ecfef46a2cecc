//! How far into the network an address leads. Pure; the client that asks is in [`super::guarded`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far into the network a request may go, or a peer sits. Each step includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Zone {
    /// The internet.
    #[default]
    Public,
    /// The operator's networks: RFC 1918, shared address space (RFC 6598), unique local addresses (RFC 4193).
    Private,
    /// This machine.
    Loopback,
}

/// Where `address` is. `None` for one that no learned URL ever leads to: link-local, metadata services of clouds,
/// multicast, documentation, tunnels, everything reserved.
pub fn zone(address: IpAddr) -> Option<Zone> {
    match address {
        IpAddr::V4(address) => zone_v4(address),
        IpAddr::V6(address) => zone_v6(address),
    }
}

/// By the IANA special-purpose registry (RFC 6890).
fn zone_v4(address: Ipv4Addr) -> Option<Zone> {
    match address.octets() {
        // Metadata services of Alibaba Cloud and Azure, in ranges that are otherwise fine. "This network", multicast
        // and reserved; link-local; protocol assignments and documentation; 6to4 relays; benchmarks; documentation.
        [100, 100, 100, 200]
        | [168, 63, 129, 16]
        | [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => None,
        [127, ..] => Some(Zone::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Zone::Private),
        _ => Some(Zone::Public),
    }
}

fn zone_v6(address: Ipv6Addr) -> Option<Zone> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Zone::Loopback),
        // IPv4-mapped, and NAT64 with the well-known prefix (RFC 6052): the address within decides.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            zone_v4(Ipv4Addr::new(a, b, c, d))
        }
        // The metadata service of AWS; protocol assignments with Teredo, ORCHID and benchmarks; 6to4; documentation.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        | [0x2001, 0..=0x1ff | 0xdb8, ..]
        | [0x2002, ..]
        | [0x3fff, 0..=0xfff, ..] => None,
        [0xfc00..=0xfdff, ..] => Some(Zone::Private),
        [0x2000..=0x3fff, ..] => Some(Zone::Public),
        // Unspecified, IPv4-compatible, link-local, site-local, multicast, and what is not assigned.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range() {
        let (public, private, loopback, never) = (
            Some(Zone::Public),
            Some(Zone::Private),
            Some(Zone::Loopback),
            None,
        );
        let cases = [
            ("1.1.1.1", public),
            ("8.8.8.8", public),
            ("9.255.255.255", public),
            ("11.0.0.0", public),
            ("100.63.255.255", public),
            ("100.128.0.0", public),
            ("172.15.255.255", public),
            ("172.32.0.0", public),
            ("192.167.255.255", public),
            ("192.0.1.1", public),
            ("198.17.255.255", public),
            ("198.20.0.0", public),
            ("223.255.255.255", public),
            ("10.0.0.0", private),
            ("10.255.255.255", private),
            ("172.16.0.1", private),
            ("172.31.255.255", private),
            ("192.168.0.1", private),
            ("100.64.0.1", private),
            ("100.127.255.255", private),
            ("127.0.0.1", loopback),
            ("127.255.255.255", loopback),
            ("0.0.0.0", never),
            ("0.1.2.3", never),
            ("169.254.169.254", never),
            ("169.254.0.1", never),
            ("100.100.100.200", never),
            ("168.63.129.16", never),
            ("192.0.0.192", never),
            ("192.0.2.1", never),
            ("192.88.99.1", never),
            ("198.18.0.1", never),
            ("198.19.255.255", never),
            ("198.51.100.1", never),
            ("203.0.113.1", never),
            ("224.0.0.1", never),
            ("239.255.255.255", never),
            ("240.0.0.1", never),
            ("255.255.255.255", never),
            ("2606:4700:4700::1111", public),
            ("2001:4860:4860::8888", public),
            ("2a00::1", public),
            ("::1", loopback),
            ("fc00::1", private),
            ("fdff:ffff::1", private),
            ("::", never),
            ("::2", never),
            ("::127.0.0.1", never),
            ("::8.8.8.8", never),
            ("fd00:ec2::254", never),
            ("fe80::1", never),
            ("febf::1", never),
            ("fec0::1", never),
            ("ff02::1", never),
            ("100::1", never),
            ("2001::1", never),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", never),
            ("2001:2::1", never),
            ("2001:20::1", never),
            ("2001:db8::1", never),
            ("2002:7f00:1::1", never),
            ("2002:808:808::1", never),
            ("3fff::1", never),
            ("5f00::1", never),
            ("4000::1", never),
            ("::ffff:8.8.8.8", public),
            ("::ffff:10.0.0.1", private),
            ("::ffff:127.0.0.1", loopback),
            ("::ffff:169.254.169.254", never),
            ("::ffff:0.0.0.0", never),
            ("64:ff9b::8.8.8.8", public),
            ("64:ff9b::10.0.0.1", private),
            ("64:ff9b::127.0.0.1", loopback),
            ("64:ff9b::169.254.169.254", never),
            ("64:ff9b:1::8.8.8.8", never),
            ("::ffff:0:127.0.0.1", never),
        ];
        for (address, expected) in cases {
            assert_eq!(zone(address.parse().expect("address")), expected, "{address}");
        }
    }
}

//! Who is in front of the gateway and who is near: the proxies whose forwarded headers count, the internal networks,
//! and the servers that are for them alone.

use super::problem::{Severity, nearest};
use super::reader::{Reader, Section};
use super::settings::{OriginSettings, ProxySettings, ServerSettings};
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use vestibule_oauth::origin::Scheme;

/// What counts as internal where nothing else is configured: RFC 1918, loopback, unique local addresses (RFC 4193).
const INTERNAL: [&str; 6] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "::1/128",
    "fc00::/7",
];

impl Reader<'_> {
    /// Forwarded headers count only from listed peers: nothing else tells a proxy from an attacker.
    pub(super) fn proxies(&mut self, general: &Section) -> ProxySettings {
        let name = "mcp_trusted_proxy_ranges";
        let mut trusted = self.ranges(general, name, "trusts every address there is; list your proxies");
        let forwarded = general.bool("use_x_forwarded_for") == Some(true);
        if forwarded && trusted.is_empty() {
            let message = "has no effect without mcp_trusted_proxy_ranges: forwarded headers of strangers are not believed";
            self.findings.warn(
                general.at("use_x_forwarded_for"),
                general.path_of("use_x_forwarded_for"),
                message,
            );
        }
        if !forwarded && !trusted.is_empty() {
            let message = "has no effect without use_x_forwarded_for: true";
            self.findings
                .warn(general.at(name), general.path_of(name), message);
            trusted.clear();
        }
        let hops = general
            .count("mcp_xff_num_trusted_hops")
            .and_then(NonZeroUsize::new);
        if hops.is_some() && trusted.is_empty() {
            let name = "mcp_xff_num_trusted_hops";
            let message = "has no effect without use_x_forwarded_for: true and mcp_trusted_proxy_ranges";
            self.findings
                .error(general.at(name), general.path_of(name), message);
        }
        ProxySettings { trusted, hops }
    }

    /// `mcp_internal_ip_ranges`, or what is internal everywhere.
    pub(super) fn internal(&mut self, general: &Section) -> Vec<IpNet> {
        let name = "mcp_internal_ip_ranges";
        if !general.has(name) {
            return INTERNAL.iter().filter_map(|range| range.parse().ok()).collect();
        }
        if general.list(name).is_empty() {
            let message =
                "is empty; leave it out for the private ranges, or name the networks that are internal";
            self.findings
                .error(general.at(name), general.path_of(name), message);
        }
        let every = "makes every address internal; drop available_on_public_internet: false instead";
        self.ranges(general, name, every)
    }

    fn ranges(&mut self, general: &Section, name: &str, every: &str) -> Vec<IpNet> {
        let mapped = Ipv6Net::new(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
        let mut ranges = Vec::new();
        for (text, at) in general.list(name) {
            let range = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let message = match range {
                Ok(range) if range.prefix_len() == 0 => every.to_owned(),
                Ok(IpNet::V6(range)) if mapped.as_ref().is_ok_and(|mapped| mapped.contains(&range)) => {
                    format!("{text:?} is a range of IPv4 addresses; write it as one")
                }
                Ok(range) => {
                    ranges.push(range);
                    continue;
                }
                Err(_) => format!("{text:?} is neither an address nor a CIDR range"),
            };
            self.findings.error(*at, general.path_of(name), message);
        }
        ranges
    }

    /// `litellm_settings.public_mcp_servers`: servers that are public whatever their own setting says.
    pub(super) fn public_servers(&mut self, litellm: &Section, servers: &mut [ServerSettings]) {
        for (name, at) in litellm.list("public_mcp_servers") {
            let named = |server: &ServerSettings| {
                server.id == *name || server.name == *name || server.alias.as_ref() == Some(name)
            };
            if let Some(server) = servers.iter_mut().find(|server| named(server)) {
                server.is_public = true;
            } else if !self.findings.has_errors() {
                let near = nearest(name, servers.iter().map(|server| server.name.as_str()));
                let hint = near
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                self.findings.error(
                    *at,
                    litellm.path_of("public_mcp_servers"),
                    format!("there is no server {name}{hint}"),
                );
            }
        }
    }

    /// The gateway speaks no TLS, so with an https origin there is a proxy, and its address stands for everybody's.
    pub(super) fn proxy_in_front(&mut self, origin: &OriginSettings, servers: &[ServerSettings]) {
        let https = origin
            .base
            .as_ref()
            .is_some_and(|base| base.scheme() == Scheme::Https);
        if !https || !origin.trusted_peers.is_empty() {
            return;
        }
        for server in servers.iter().filter(|server| !server.is_public) {
            let path = format!("mcp_servers.{}.available_on_public_internet", server.name);
            let message = "goes by the address of the proxy that PROXY_BASE_URL speaks of, which stands for every client; \
                           set use_x_forwarded_for and mcp_trusted_proxy_ranges";
            self.findings.add(Severity::Warning, None, path, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Loaded, load};
    use std::collections::HashMap;

    fn loaded(general: &str, litellm: &str, server: &str, base: Option<&str>) -> Loaded {
        let environment = base.map(|base| ("PROXY_BASE_URL".to_owned(), base.to_owned()));
        let text = format!(
            "general_settings: {{{general}}}\nlitellm_settings: {{{litellm}}}\nmcp_servers:\n  one: {{url: http://localhost:1/mcp, alias: first, server_id: id1{server}}}\n"
        );
        load(&text, &environment.into_iter().collect::<HashMap<_, _>>())
    }

    #[test]
    fn what_would_not_hold_is_said() {
        let private = ", available_on_public_internet: false";
        let https = Some("https://gateway.example.com");
        let trusted = "use_x_forwarded_for: true, mcp_trusted_proxy_ranges: [10.0.0.1]";
        for (general, litellm, server, base, expected) in [
            (trusted, "", private, https, ""),
            ("", "", private, Some("http://gateway:4000"), ""),
            ("", "", "", https, ""),
            ("", "public_mcp_servers: [one]", private, https, ""),
            (
                "",
                "",
                private,
                https,
                "warning: mcp_servers.one.available_on_public_internet: goes by the address of the proxy",
            ),
            (
                "mcp_xff_num_trusted_hops: 2",
                "",
                "",
                None,
                "error: general_settings.mcp_xff_num_trusted_hops: has no effect without use_x_forwarded_for",
            ),
            (
                "mcp_internal_ip_ranges: []",
                "",
                "",
                None,
                "error: general_settings.mcp_internal_ip_ranges: is empty",
            ),
            (
                "mcp_internal_ip_ranges: [0.0.0.0/0]",
                "",
                "",
                None,
                "makes every address internal",
            ),
            (
                "mcp_internal_ip_ranges: ['::/0']",
                "",
                "",
                None,
                "makes every address internal",
            ),
            (
                "mcp_internal_ip_ranges: ['::ffff:10.0.0.0/104']",
                "",
                "",
                None,
                "is a range of IPv4 addresses; write it as one",
            ),
            (
                "mcp_internal_ip_ranges: [ten]",
                "",
                "",
                None,
                "\"ten\" is neither an address nor a CIDR range",
            ),
            (
                "",
                "public_mcp_servers: [on]",
                private,
                None,
                "there is no server on; did you mean one?",
            ),
        ] {
            let loaded = loaded(general, litellm, server, base);
            let found: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
            match expected {
                "" => assert_eq!(found, Vec::<String>::new(), "{general} {litellm} {server}"),
                expected => assert!(found.len() == 1 && found[0].contains(expected), "{found:?}"),
            }
        }
    }

    #[test]
    fn public_by_id_name_or_alias() {
        let private = ", available_on_public_internet: false";
        let is_public = |litellm: &str| {
            let settings = loaded("", litellm, private, None).settings.expect("usable");
            settings.servers[0].is_public
        };
        assert!(!is_public(""));
        for name in ["one", "first", "id1"] {
            assert!(is_public(&format!("public_mcp_servers: [{name}]")), "{name}");
        }
    }
}

//! Who the gateway is to the world, and where it may send people back to: `PROXY_BASE_URL`, forwarded
//! headers, and the lists of trusted redirect URIs.

use super::problem::Severity;
use super::reader::{Reader, Section};
use super::settings::OriginSettings;
use ipnet::IpNet;
use std::net::IpAddr;
use vestibule_oauth::origin::Origin;
use vestibule_oauth::redirect_uri::RedirectRules;

impl Reader<'_> {
    /// Forwarded headers count only from listed peers: nothing else tells a proxy from an attacker.
    pub(super) fn origin(&mut self, general: &Section) -> OriginSettings {
        let mut ranges = Vec::new();
        for (text, at) in general.list("mcp_trusted_proxy_ranges") {
            let range = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match range {
                Ok(range) if range.prefix_len() == 0 => {
                    let message = "trusts every address there is; list your proxies";
                    self.findings
                        .error(*at, general.path_of("mcp_trusted_proxy_ranges"), message);
                }
                Ok(range) => ranges.push(range),
                Err(_) => self.findings.error(
                    *at,
                    general.path_of("mcp_trusted_proxy_ranges"),
                    format!("{text:?} is neither an address nor a CIDR range"),
                ),
            }
        }
        let forwarded = general.bool("use_x_forwarded_for") == Some(true);
        if forwarded && ranges.is_empty() {
            let message = "has no effect without mcp_trusted_proxy_ranges: forwarded headers of strangers are not believed";
            self.findings.warn(
                general.at("use_x_forwarded_for"),
                general.path_of("use_x_forwarded_for"),
                message,
            );
        }
        if !forwarded && !ranges.is_empty() {
            let message = "has no effect without use_x_forwarded_for: true";
            self.findings.warn(
                general.at("mcp_trusted_proxy_ranges"),
                general.path_of("mcp_trusted_proxy_ranges"),
                message,
            );
            ranges.clear();
        }
        OriginSettings {
            base: self.base(),
            trusted_peers: ranges,
        }
    }

    /// An invalid `PROXY_BASE_URL` is ignored with a warning, as LiteLLM does.
    fn base(&mut self) -> Option<Origin> {
        let text = self.environment.get("PROXY_BASE_URL")?.trim();
        if text.is_empty() {
            return None;
        }
        // An origin alone: a path would have to be served, and is not.
        let bare = text.strip_suffix('/').unwrap_or(text);
        let alone = bare.matches('/').count() == 2 && !bare.contains(['?', '#']);
        let origin = Origin::parse(bare).ok().filter(|_| alone);
        if origin.is_none() {
            let message = format!(
                "{text:?} is ignored: it takes http or https, host and port alone, such as https://gateway.example.com"
            );
            self.findings
                .add(Severity::Warning, None, "PROXY_BASE_URL", message);
        }
        origin
    }

    pub(super) fn redirects(&mut self) -> RedirectRules {
        let value = |name| self.environment.get(name).map_or("", String::as_str);
        let (rules, warnings) = RedirectRules::parse(
            value("MCP_TRUSTED_REDIRECT_ORIGINS"),
            value("MCP_TRUSTED_NATIVE_REDIRECT_URIS"),
        );
        for warning in warnings {
            self.findings
                .add(Severity::Warning, None, "trusted redirect URIs", warning);
        }
        rules
    }
}

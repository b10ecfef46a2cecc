//! Who the gateway is to the world, and where it may send people back to: `PROXY_BASE_URL` and the lists of trusted
//! redirect URIs.

use super::problem::Severity;
use super::reader::Reader;
use vestibule_oauth::origin::Origin;
use vestibule_oauth::redirect_uri::RedirectRules;

impl Reader<'_> {
    /// An invalid `PROXY_BASE_URL` is ignored with a warning, as LiteLLM does.
    pub(super) fn base(&mut self) -> Option<Origin> {
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

//! Servers that are shown the caller's own `Authorization`: which settings mean that, and what cannot stand beside
//! them.

use super::aws_sigv4::AWS_FIELDS;
use super::exchange::KEY_FIELDS;
use super::headers::STATIC_FIELDS;
use super::oauth::INTERACTIVE_ONLY;
use super::reader::{Reader, Section};
use super::server::OAUTH_FIELDS;
use super::settings::{Auth, Passthrough, SignIn};
use super::yaml::{Node, Value};
use std::sync::Arc;
use url::Url;

const DELEGATE: &str = "delegate_auth_to_upstream";
const BRIDGE: &str = "dcr_bridge";
const PASSTHROUGH: &str = "oauth_passthrough";
/// What makes a machine token out of `auth_type: oauth2`.
const MACHINE: [&str; 3] = ["token_url", "client_id", "client_secret"];

impl Reader<'_> {
    /// Which passthrough `section` asks for, if any; `node` is its entry as written.
    pub(super) fn passthrough_mode(
        &mut self,
        section: &Section,
        node: &Node,
        auth_type: &str,
    ) -> Option<Passthrough> {
        let delegated = self.opts_in(section, node, DELEGATE, auth_type, "oauth2");
        let flagged = self.opts_in(section, node, PASSTHROUGH, auth_type, "none");
        match auth_type {
            "true_passthrough" => Some(Passthrough::TruePassthrough),
            "oauth_delegate" => Some(Passthrough::OAuthDelegate),
            _ if delegated => Some(Passthrough::Delegated),
            _ if flagged => Some(Passthrough::Flagged),
            _ => None,
        }
    }

    /// Whether the flag `name` is set for the `auth_type` that it belongs to. Anywhere else it would do nothing while
    /// its reader trusts that it does.
    fn opts_in(
        &mut self,
        section: &Section,
        node: &Node,
        name: &'static str,
        auth_type: &str,
        wanted: &str,
    ) -> bool {
        let Some(written) = value_of(node, name) else {
            return false;
        };
        if !is_literal(written) {
            let message = "takes true or false as written here: neither in quotes nor from the environment";
            self.findings.error(written.at, section.path_of(name), message);
            return false;
        }
        if section.bool(name) != Some(true) {
            return false;
        }
        if auth_type != wanted {
            let message =
                format!("has no effect with auth_type: {auth_type}; it belongs to auth_type: {wanted}");
            self.findings
                .error(section.at(name), section.path_of(name), message);
            return false;
        }
        true
    }

    /// What is judged of a server with this `mode`.
    pub(super) fn passthrough(
        &mut self,
        section: &Section,
        node: &Node,
        mode: Passthrough,
        url: Option<&Url>,
    ) -> Auth {
        if let Some(url) = url {
            let at = section.at("url");
            self.clear_text(url, "the caller's token", at, &section.path_of("url"));
        }
        let machine = section.text("oauth2_flow") == Some("client_credentials")
            || MACHINE.iter().all(|name| section.has(name));
        let machine_delegated = mode == Passthrough::Delegated && machine;
        if machine_delegated {
            let message = "cannot stand beside a machine token: callers without a key would act with the gateway's own \
                           credential. Drop it, or drop oauth2_flow: client_credentials, client_id, client_secret and \
                           token_url";
            self.findings
                .error(section.at(DELEGATE), section.path_of(DELEGATE), message);
        }
        let bridge = self.bridge(section, mode, url);
        if !machine_delegated && bridge.is_none() {
            self.unused_beside(section, mode);
        }
        if !mode.asks_for_key() && is_internal(node) {
            let at = value_of(node, "available_on_public_internet").map_or(section.at, |value| value.at);
            let message = "callers without a gateway key come in all the same, since this server leaves the decision \
                           to the upstream: keep others out at its identity provider and at the network's edge";
            self.findings
                .warn(at, section.path_of("available_on_public_internet"), message);
        }
        Auth::Passthrough { mode, bridge }
    }

    /// How the gateway gets the tokens of its clients, with `dcr_bridge: true`.
    fn bridge(&mut self, section: &Section, mode: Passthrough, url: Option<&Url>) -> Option<Arc<SignIn>> {
        if section.bool(BRIDGE) != Some(true) {
            return None;
        }
        if !matches!(mode, Passthrough::TruePassthrough | Passthrough::OAuthDelegate) {
            self.no_bridge_here(section);
            return None;
        }
        for name in [
            STATIC_FIELDS,
            AWS_FIELDS,
            &["oauth2_flow", "audience", "token_storage_ttl_seconds"],
        ]
        .concat()
        {
            if section.has(name) {
                let message = "has no effect with dcr_bridge: true: people sign in, and nothing is kept";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        if section.bool("require_pkce") == Some(false) {
            let message = "dcr_bridge: true always requires a PKCE challenge";
            self.findings.error(
                section.at("require_pkce"),
                section.path_of("require_pkce"),
                message,
            );
        }
        self.oauth_values(section, url);
        self.sign_in(section, url)
    }

    /// Finds fault with `dcr_bridge: true` on a server without passthrough.
    pub(super) fn no_bridge(&mut self, section: &Section) {
        if section.bool(BRIDGE) == Some(true) {
            self.no_bridge_here(section);
        }
    }

    fn no_bridge_here(&mut self, section: &Section) {
        let message = "belongs to auth_type: true_passthrough and auth_type: oauth_delegate";
        self.findings
            .error(section.at(BRIDGE), section.path_of(BRIDGE), message);
    }

    /// The gateway gets no token for such a server, so what says how to get one does nothing.
    fn unused_beside(&mut self, section: &Section, mode: Passthrough) {
        let setting = match mode {
            Passthrough::Delegated => "delegate_auth_to_upstream: true",
            Passthrough::TruePassthrough => "auth_type: true_passthrough",
            Passthrough::OAuthDelegate => "auth_type: oauth_delegate",
            Passthrough::Flagged => "oauth_passthrough: true",
        };
        for name in [
            STATIC_FIELDS,
            OAUTH_FIELDS,
            INTERACTIVE_ONLY,
            AWS_FIELDS,
            KEY_FIELDS,
        ]
        .concat()
        {
            // The flow that the clients run themselves.
            let true_of_it = name == "oauth2_flow" && mode == Passthrough::Delegated;
            if section.has(name) && !true_of_it {
                let message =
                    format!("has no effect with {setting}: the client brings a token that it got by itself");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
    }
}

/// Whether the entry keeps outside callers away by their address.
fn is_internal(node: &Node) -> bool {
    let value = value_of(node, "available_on_public_internet").map(|node| &node.value);
    matches!(value, Some(Value::Scalar { text, .. }) if text.eq_ignore_ascii_case("false"))
}

fn value_of<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Mapping(pairs) = &node.value else {
        return None;
    };
    let found = pairs.iter().find(|(key, _)| key.text == name);
    found.map(|(_, value)| value).filter(|value| !value.is_null())
}

fn is_literal(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { text, plain: true } if !text.starts_with("os.environ/"))
}

#[cfg(test)]
mod tests;

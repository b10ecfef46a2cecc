//! One entry of `mcp_servers`: which fields belong together, and what they come to.

use super::aws_sigv4::AWS_FIELDS;
use super::document::shown;
use super::exchange::{EXCHANGE_FIELDS, ID_JAG_FIELDS, KEY_FIELDS, SHARED_FIELDS};
use super::fields;
use super::headers::STATIC_FIELDS;
use super::oauth::INTERACTIVE_ONLY;
use super::problem::Severity;
use super::reader::{Reader, Section, Unknown, join};
use super::settings::{Auth, Limits, Provenance, ServerSettings};
use super::yaml::{Key, Node, Position, Value};
use crate::digest::sha256;
use http::HeaderName;
use std::fmt::Write;
use std::sync::Arc;

/// Names that are paths of the gateway, so no server can have them.
pub(super) const RESERVED: &[&str] = &[
    "mcp",
    "mcp-rest",
    "health",
    "metrics",
    "v1",
    "public",
    "toolset",
    "callback",
    "authorize",
    "token",
    "register",
    "revoke",
    "introspect",
    "sse",
    "messages",
    "enabled",
    "proxy",
    "ui",
    "sso",
    "oauth",
    ".well-known",
];

/// Fields that only one family of `auth_type` uses; see also [`INTERACTIVE_ONLY`], [`STATIC_FIELDS`] and [`AWS_FIELDS`].
pub(super) const OAUTH_FIELDS: &[&str] = &[
    "oauth2_flow",
    "client_id",
    "client_secret",
    "token_url",
    "token_endpoint_auth_method",
    "scopes",
    "audience",
    "resource",
    "upstream_resource",
    "authorization_url",
];

impl Reader<'_> {
    /// Reads one server. `None` when a finding forbids its use.
    pub(super) fn server(&mut self, key: &Key, node: &Node, limits: &Limits) -> Option<ServerSettings> {
        let path = join("mcp_servers", &key.text);
        let errors_before = self.findings.has_errors();
        self.name(&key.text, key.at, &path);
        let section = self.section(node, &path, fields::SERVER, Unknown::Error);
        if let Some(alias) = section.text("alias") {
            self.name(alias, section.at("alias"), &section.path_of("alias"));
        }
        let endpoint = self.endpoint(&section, node, key.at);
        let url = section.url("url").cloned();
        let token_header = self.token_header(&section);
        // What belongs to an auth_type that cannot be read is not judged as belonging to none.
        let auth = if section.has("auth_type") || !has_key(node, "auth_type") {
            self.auth(&section, node, key.at, url.as_ref(), &token_header)
        } else {
            None
        };
        let taken = auth.as_ref().map(|auth| auth.headers(&token_header));
        let static_headers = self.static_headers(&section, &taken.unwrap_or_default());
        let extra_headers = self.extra_headers(&section, auth.as_ref());
        let rules = self.rules(&section);
        self.uncompressed(&section, &extra_headers, &static_headers);
        let mut info = match section.node("mcp_info").map(Node::to_json) {
            None => serde_json::Map::new(),
            Some(serde_json::Value::Object(map)) => map,
            Some(_) => {
                self.findings.error(
                    section.at("mcp_info"),
                    section.path_of("mcp_info"),
                    "takes a mapping",
                );
                return None;
            }
        };
        if !info.contains_key("server_name") {
            info.insert("server_name".into(), key.text.clone().into());
        }
        if let (Some(description), false) = (section.text("description"), info.contains_key("description")) {
            info.insert("description".into(), description.into());
        }
        let alias = section.text("alias").map(str::to_owned);
        let derived_id = derived_id(
            &key.text,
            &url.map(|url| url_as_written(node, &url)).unwrap_or_default(),
            section.text("transport").unwrap_or("http"),
            section.text("auth_type"),
            alias.as_deref(),
        );
        let given_id = section.text("server_id").map(str::to_owned);
        let has_derived_id = given_id.is_none();
        let shared = self.shared(&section);
        let (endpoint, auth) = (endpoint?, auth?);
        let document = node.to_json();
        if !errors_before && self.findings.has_errors() {
            return None;
        }
        Some(ServerSettings {
            id: given_id.unwrap_or_else(|| derived_id.clone()),
            has_derived_id,
            derived_id: Some(derived_id),
            name: key.text.clone(),
            alias,
            endpoint,
            auth,
            static_headers,
            extra_headers,
            token_header,
            first_byte_timeout: section.seconds("timeout").unwrap_or(limits.first_byte_timeout),
            is_public: section.bool("available_on_public_internet").unwrap_or(true),
            rules,
            info,
            shared,
            allows_all_keys: section.bool("allow_all_keys").unwrap_or(false),
            provenance: Provenance::File,
            fingerprint: sha256(document.to_string().as_bytes()),
            shown: Arc::new(document.as_object().map(shown).unwrap_or_default()),
            warnings: Vec::new(),
        })
    }

    pub(super) fn name(&mut self, name: &str, at: Position, path: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if name.contains('-') {
            let message =
                "a server's name cannot contain '-', which separates it from a tool's name; use '_'";
            self.findings.error(at, path, message);
        } else if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) || name.starts_with('.') {
            let message =
                "a server's name takes 1 to 64 letters, digits, '_' and '.', and does not begin with '.'";
            self.findings.error(at, path, message);
        } else if RESERVED.contains(&name) {
            self.findings.error(
                at,
                path,
                format!("{name} is a path of the gateway; choose another name"),
            );
        }
    }

    fn auth(
        &mut self,
        section: &Section,
        node: &Node,
        at: Position,
        url: Option<&url::Url>,
        token_header: &HeaderName,
    ) -> Option<Auth> {
        let auth_type = section.text("auth_type").unwrap_or("none");
        let auth_type = fields::AUTH_TYPES
            .iter()
            .find(|known| **known == auth_type)
            .copied()?;
        let byok = self.is_byok(section, auth_type);
        if let Some(mode) = self.passthrough_mode(section, node, auth_type) {
            return Some(self.passthrough(section, node, mode, url));
        }
        self.no_bridge(section);
        let exchanges = [SHARED_FIELDS, EXCHANGE_FIELDS, ID_JAG_FIELDS].concat();
        // `issuer` is of use to an exchange as well.
        let interactive = INTERACTIVE_ONLY.iter().copied().filter(|name| *name != "issuer");
        let interactive = interactive.chain(["oauth2_flow", "authorization_url"]);
        let unused: Vec<&str> = match auth_type {
            "none" => [
                STATIC_FIELDS,
                OAUTH_FIELDS,
                INTERACTIVE_ONLY,
                AWS_FIELDS,
                KEY_FIELDS,
                &exchanges,
            ]
            .concat(),
            "oauth2" => [STATIC_FIELDS, AWS_FIELDS, &exchanges].concat(),
            "aws_sigv4" => [
                STATIC_FIELDS,
                OAUTH_FIELDS,
                INTERACTIVE_ONLY,
                KEY_FIELDS,
                &exchanges,
            ]
            .concat(),
            "oauth2_token_exchange" => interactive
                .chain([STATIC_FIELDS, AWS_FIELDS, ID_JAG_FIELDS].concat())
                .collect(),
            "oauth2_id_jag" => interactive
                .chain([STATIC_FIELDS, AWS_FIELDS, EXCHANGE_FIELDS].concat())
                .collect(),
            _ => [OAUTH_FIELDS, INTERACTIVE_ONLY, AWS_FIELDS, KEY_FIELDS, &exchanges].concat(),
        };
        for name in unused {
            if section.has(name) {
                let wanted = if STATIC_FIELDS.contains(&name) {
                    "a static auth_type"
                } else if AWS_FIELDS.contains(&name) {
                    "auth_type: aws_sigv4"
                } else if ID_JAG_FIELDS.contains(&name) {
                    "auth_type: oauth2_id_jag"
                } else if exchanges.contains(&name) {
                    "auth_type: oauth2_token_exchange"
                } else {
                    "auth_type: oauth2"
                };
                let message = format!("has no effect with auth_type: {auth_type}; it belongs to {wanted}");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        match auth_type {
            "none" => Some(Auth::None),
            "oauth2" => self.oauth(section, at, url),
            "aws_sigv4" => self.aws_sigv4(section, at),
            "oauth2_token_exchange" => self.token_exchange(section, at, url),
            "oauth2_id_jag" => self.id_jag(section, at, url),
            auth_type if byok => Some(self.byok(section, auth_type, token_header)),
            auth_type => self.static_header(section, at, auth_type, token_header),
        }
    }

    /// Every route name once, over all servers.
    pub(super) fn unique_names(&mut self, servers: &[ServerSettings]) {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for server in servers {
            let alias = server.alias.as_deref().filter(|alias| *alias != server.name);
            for name in [Some(server.name.as_str()), alias].into_iter().flatten() {
                if let Some((_, owner)) = seen.iter().find(|(other, _)| *other == name) {
                    let message = format!("the name {name} already belongs to mcp_servers.{owner}");
                    self.findings
                        .add(Severity::Error, None, join("mcp_servers", &server.name), message);
                }
                seen.push((name, &server.name));
            }
            if let Some(other) = servers
                .iter()
                .find(|other| other.name != server.name && other.id == server.id)
            {
                let message = format!("has the same server_id as mcp_servers.{}", other.name);
                self.findings
                    .add(Severity::Error, None, join("mcp_servers", &server.name), message);
            }
        }
    }
}

pub(super) fn has_key(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Mapping(pairs) if pairs.iter().any(|(key, value)| key.text == name && !value.is_null()))
}

/// The id is a digest over the text of the file; `Url` may have normalised it.
fn url_as_written(node: &Node, parsed: &url::Url) -> String {
    let Value::Mapping(pairs) = &node.value else {
        return parsed.to_string();
    };
    match pairs
        .iter()
        .find(|(key, _)| key.text == "url")
        .map(|(_, value)| &value.value)
    {
        Some(Value::Scalar { text, .. }) if !text.starts_with("os.environ/") => text.clone(),
        _ => parsed.to_string(),
    }
}

/// LiteLLM's derivation, so that ids survive a move: 32 hex digits of SHA-256 over the joined parts.
fn derived_id(
    name: &str,
    url: &str,
    transport: &str,
    auth_type: Option<&str>,
    alias: Option<&str>,
) -> String {
    let text = format!(
        "{name}|{url}|{transport}|{}|{}",
        auth_type.unwrap_or_default(),
        alias.unwrap_or_default()
    );
    sha256(text.as_bytes())[..16]
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

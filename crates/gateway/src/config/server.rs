//! One entry of `mcp_servers`: which fields belong together, and what they come to.

use super::fields;
use super::oauth::INTERACTIVE_ONLY;
use super::problem::Severity;
use super::reader::{Reader, Section, Unknown, join};
use super::settings::{Auth, Limits, ServerSettings};
use super::yaml::{Key, Node, Position, Value};
use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use std::fmt::Write;

/// Names that are paths of the gateway, so no server can have them.
const RESERVED: &[&str] = &[
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

/// Fields that only one family of `auth_type` uses; see also [`INTERACTIVE_ONLY`].
const STATIC_FIELDS: &[&str] = &["authentication_token", "auth_value"];
const OAUTH_FIELDS: &[&str] = &[
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

/// Headers that `static_headers` and `extra_headers` cannot name: the transport's own, and the gateway's key.
fn is_reserved_header(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "proxy-authenticate"
            | "expect"
            | "mcp-session-id"
    ) || name.as_str().starts_with("x-litellm-")
}

impl Reader<'_> {
    /// Reads one server. `None` when a finding forbids its use.
    pub(super) fn server(&mut self, key: &Key, node: &Node, limits: &Limits) -> Option<ServerSettings> {
        let path = join("mcp_servers", &key.text);
        let errors_before = self.findings.has_errors();
        self.name(&key.text, key.at, &path);
        let buildable = self.without_not_yet_choices(node, &path);
        let section = self.section(&buildable, &path, fields::SERVER, Unknown::Error);
        if let Some(alias) = section.text("alias") {
            self.name(alias, section.at("alias"), &section.path_of("alias"));
        }
        let url = section.url("url").cloned();
        if url.is_none() && !has_key(node, "url") {
            self.findings
                .error(key.at, &path, "url is missing; it is the MCP server's endpoint");
        }
        // What belongs to an auth_type that cannot be read is not judged as belonging to none.
        let auth = if section.has("auth_type") || !has_key(node, "auth_type") {
            self.auth(&section, key.at, url.as_ref())
        } else {
            None
        };
        let static_headers = self.static_headers(&section, auth.as_ref());
        let extra_headers = self.extra_headers(&section);
        let url = url?;
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
        let id = section.text("server_id").map_or_else(
            || {
                derived_id(
                    &key.text,
                    &url_as_written(node, &url),
                    section.text("auth_type"),
                    alias.as_deref(),
                )
            },
            str::to_owned,
        );
        let auth = auth?;
        if !errors_before && self.findings.has_errors() {
            return None;
        }
        Some(ServerSettings {
            id,
            name: key.text.clone(),
            alias,
            url,
            auth,
            static_headers,
            extra_headers,
            first_byte_timeout: section.seconds("timeout").unwrap_or(limits.first_byte_timeout),
            info,
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

    /// Choices that are known and not built get their own sentence. Gives back what is left to read.
    fn without_not_yet_choices(&mut self, node: &Node, path: &str) -> Node {
        let choices: [(&str, &[(&str, &str)]); 2] = [
            ("auth_type", fields::AUTH_TYPES_NOT_YET),
            (
                "transport",
                &[
                    ("sse", "the HTTP+SSE transport"),
                    ("stdio", "servers run as child processes"),
                ],
            ),
        ];
        let mut left = node.clone();
        let Value::Mapping(pairs) = &mut left.value else {
            return left;
        };
        for (name, known) in choices {
            pairs.retain(|(key, value)| {
                let found = match &value.value {
                    Value::Scalar { text, .. } if key.text == name => {
                        known.iter().find(|(word, _)| word == text)
                    }
                    _ => None,
                };
                if let Some((word, what)) = found {
                    let message = format!("{word} is not supported yet; it belongs to {what}");
                    self.findings.error(value.at, join(path, name), message);
                }
                found.is_none()
            });
        }
        left
    }

    fn auth(&mut self, section: &Section, at: Position, url: Option<&url::Url>) -> Option<Auth> {
        let auth_type = section.text("auth_type").unwrap_or("none");
        let auth_type = fields::AUTH_TYPES
            .iter()
            .find(|known| **known == auth_type)
            .copied()?;
        let (used, unused): (&str, Vec<&str>) = match auth_type {
            "none" => ("none", [STATIC_FIELDS, OAUTH_FIELDS, INTERACTIVE_ONLY].concat()),
            "oauth2" => ("oauth2", STATIC_FIELDS.to_vec()),
            other => (other, [OAUTH_FIELDS, INTERACTIVE_ONLY].concat()),
        };
        for name in unused {
            if section.has(name) {
                let wanted = if STATIC_FIELDS.contains(&name) {
                    "a static auth_type"
                } else {
                    "auth_type: oauth2"
                };
                let message = format!("has no effect with auth_type: {used}; it belongs to {wanted}");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        match auth_type {
            "none" => Some(Auth::None),
            "oauth2" => self.oauth(section, at, url),
            auth_type => self.static_header(section, at, auth_type),
        }
    }

    fn static_header(&mut self, section: &Section, at: Position, auth_type: &'static str) -> Option<Auth> {
        let given: Vec<&str> = STATIC_FIELDS
            .iter()
            .copied()
            .filter(|name| section.has(name))
            .collect();
        let field = match given[..] {
            [one] => one,
            [] => {
                let message = format!("auth_type: {auth_type} needs authentication_token");
                self.findings.error(at, &section.path, message);
                return None;
            }
            _ => {
                let message = "authentication_token and auth_value are the same setting; keep one";
                self.findings
                    .error(section.at("auth_value"), section.path_of("auth_value"), message);
                return None;
            }
        };
        let token = section.text(field)?;
        let (name, value) = match auth_type {
            "api_key" => (HeaderName::from_static("x-api-key"), token.to_owned()),
            "bearer_token" => (
                header::AUTHORIZATION,
                format!("Bearer {}", without_scheme(token, "bearer")),
            ),
            "token" => (
                header::AUTHORIZATION,
                format!("token {}", without_scheme(token, "token")),
            ),
            "basic" => {
                let Some(value) = basic(token) else {
                    let message = "takes user:password, or that in base64";
                    self.findings
                        .error(section.at(field), section.path_of(field), message);
                    return None;
                };
                (header::AUTHORIZATION, value)
            }
            _ => (header::AUTHORIZATION, token.to_owned()),
        };
        let Ok(mut value) = HeaderValue::from_str(&value) else {
            let message = "has a character that no header may carry";
            self.findings
                .error(section.at(field), section.path_of(field), message);
            return None;
        };
        value.set_sensitive(true);
        Some(Auth::Static {
            auth_type,
            name,
            value,
        })
    }

    fn static_headers(&mut self, section: &Section, auth: Option<&Auth>) -> Vec<(HeaderName, HeaderValue)> {
        let taken = match auth {
            Some(Auth::Static { name, .. }) => Some(name.clone()),
            Some(Auth::ClientCredentials { .. } | Auth::AuthorizationCode(_)) => Some(header::AUTHORIZATION),
            _ => None,
        };
        let mut headers = Vec::new();
        for (name, value, at) in section.map("static_headers") {
            let path = join(&section.path_of("static_headers"), name);
            let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else {
                self.findings.error(*at, path, "is not a header name");
                continue;
            };
            let Ok(mut value) = HeaderValue::from_str(value.trim()) else {
                self.findings
                    .error(*at, path, "has a character that no header may carry");
                continue;
            };
            value.set_sensitive(true);
            if is_reserved_header(&name) {
                self.findings
                    .error(*at, path, "is the gateway's own header and cannot be set");
            } else if Some(&name) == taken.as_ref() {
                let message = "would replace the credential that auth_type sends; drop one of them";
                self.findings.error(*at, path, message);
            } else if headers.iter().any(|(other, _)| *other == name) {
                self.findings
                    .error(*at, path, "stands twice; header names do not differ by case");
            } else {
                headers.push((name, value));
            }
        }
        headers
    }

    fn extra_headers(&mut self, section: &Section) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for (name, at) in section.list("extra_headers") {
            let path = section.path_of("extra_headers");
            match HeaderName::from_bytes(name.trim().as_bytes()) {
                Err(_) => self
                    .findings
                    .error(*at, path, format!("{name:?} is not a header name")),
                Ok(name) if is_reserved_header(&name) => {
                    self.findings.error(
                        *at,
                        path,
                        format!("{name} is the gateway's own and is never passed on"),
                    );
                }
                Ok(name) if names.contains(&name) => {}
                Ok(name) => names.push(name),
            }
        }
        names
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

fn has_key(node: &Node, name: &str) -> bool {
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
fn derived_id(name: &str, url: &str, auth_type: Option<&str>, alias: Option<&str>) -> String {
    let text = format!(
        "{name}|{url}|http|{}|{}",
        auth_type.unwrap_or_default(),
        alias.unwrap_or_default()
    );
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref()[..16].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn without_scheme<'t>(token: &'t str, scheme: &str) -> &'t str {
    match token.split_once(' ') {
        Some((first, rest)) if first.eq_ignore_ascii_case(scheme) => rest.trim_start(),
        _ => token,
    }
}

/// `user:password`, or its base64 with or without `Basic` before it, as an `Authorization` value.
/// A value without a colon cannot be raw, so nothing is encoded twice.
fn basic(token: &str) -> Option<String> {
    let token = without_scheme(token, "basic");
    if token.contains(':') {
        return Some(format!("Basic {}", BASE64_STANDARD.encode(token)));
    }
    let decoded = BASE64_STANDARD.decode(token).ok()?;
    decoded.contains(&b':').then(|| format!("Basic {token}"))
}

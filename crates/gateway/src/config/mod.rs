//! From the file to [`Settings`]: read as text with positions, judged as a whole with all findings at once,
//! turned into the program's types. Nothing here binds a port or opens a connection.

mod aws_sigv4;
mod byok;
mod change;
mod document;
mod exchange;
pub mod fields;
mod headers;
mod network;
mod oauth;
mod origin;
mod passthrough;
pub mod problem;
mod reader;
pub mod reference;
mod rules;
mod server;
pub mod settings;
mod shared;
mod stored;
pub mod transport;
mod yaml;

#[cfg(test)]
mod tests;

pub use change::{Change, Changed};
pub use document::{Document, MASK, Shown, shown};
pub use headers::{PER_SERVER, Unfit, by_auth_type, is_reserved_header, per_server};
pub use problem::{Problem, Severity};
pub use settings::{
    AssertionAudience, AuditSettings, Auth, AwsSettings, BrowserAccess, ByokPage, CallerHeaders, ClientKey,
    Consent, Endpoint, EnvValue, Exchange, ExchangeClient, ExchangeProfile, Limits, MachineRequest,
    Management, OriginSettings, Passthrough, Program, ProgramRules, Provenance, ProxySettings, RoleSettings,
    RuleSettings, SendResource, ServerSettings, Settings, SharedSettings, SignIn, SubjectSettings,
    TokenEndpoint,
};
pub use stored::{LeftOut, StoredEntry};
pub use yaml::Position;

use problem::Findings;
pub(crate) use problem::nearest;
use reader::{Reader, Section, Unknown};
use secrecy::SecretString;
use std::collections::HashMap;
use vestibule_oauth::origin::Origin;
use yaml::{Node, Value};

/// The largest number of sessions or processes that can be allowed.
const MAX_PLACES: usize = 1_000_000;
/// The longest that rows of the record may be kept without being kept for ever.
const MAX_DAYS: u64 = 36_500;

/// A judged configuration.
#[derive(Debug)]
pub struct Loaded {
    /// `None` when a finding is an error.
    pub settings: Option<Settings>,
    /// Everything that was found, in the order of the file.
    pub findings: Vec<Problem>,
    /// Sections and keys that are LiteLLM's other business.
    pub passed_over: Vec<String>,
    /// Stored servers that cannot be used.
    pub left_out: Vec<LeftOut>,
}

/// Judges the text of a file. `environment` is the process environment.
pub fn load(text: &str, environment: &HashMap<String, String>) -> Loaded {
    load_with(text, environment, &[])
}

/// The same, with the servers of the store beside those of the file, which come first.
pub fn load_with(text: &str, environment: &HashMap<String, String>, stored: &[StoredEntry]) -> Loaded {
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => Node {
            value: Value::Mapping(Vec::new()),
            at: Position { line: 1, column: 1 },
        },
        Err(faults) => {
            let mut findings = Findings::default();
            for fault in faults {
                findings.error(fault.at, "", fault.message);
            }
            return Loaded {
                settings: None,
                findings: findings.sorted(),
                passed_over: Vec::new(),
                left_out: Vec::new(),
            };
        }
    };
    let mut findings = Findings::default();
    let process = environment;
    let environment = with_section(process, &root, &mut findings);
    let mut reader = Reader {
        environment: &environment,
        process,
        findings,
        passed_over: Vec::new(),
        caller_headers: CallerHeaders::default(),
        may_refer: true,
    };
    let (settings, left_out) = reader.settings(&root, stored);
    let Reader {
        findings,
        passed_over,
        ..
    } = reader;
    let usable = !findings.has_errors();
    let findings = findings.sorted();
    let settings = usable.then(|| with_warnings(settings, &findings));
    Loaded {
        settings,
        findings,
        passed_over,
        left_out,
    }
}

/// With what was found about each server of the file beside it.
fn with_warnings(mut settings: Settings, findings: &[Problem]) -> Settings {
    for server in &mut settings.servers {
        if server.provenance == Provenance::File {
            let about = findings.iter().filter(|finding| finding.is_about(&server.name));
            server.warnings = about.cloned().collect();
        }
        server
            .warnings
            .retain(|finding| finding.severity == Severity::Warning);
    }
    settings
}

/// The process environment with `environment_variables` on top, whose own values may refer to it.
fn with_section(
    process: &HashMap<String, String>,
    root: &Node,
    findings: &mut Findings,
) -> HashMap<String, String> {
    let mut merged = process.clone();
    let Value::Mapping(sections) = &root.value else {
        return merged;
    };
    let Some((_, node)) = sections
        .iter()
        .find(|(key, _)| key.text == "environment_variables")
    else {
        return merged;
    };
    let mut reader = Reader {
        environment: process,
        process,
        findings: std::mem::take(findings),
        passed_over: Vec::new(),
        caller_headers: CallerHeaders::default(),
        may_refer: true,
    };
    let path = "environment_variables";
    for (key, value) in reader.pairs(node, path) {
        let path = reader::join(path, &key.text);
        let mut value = value.clone();
        if !reader.resolve(&mut value, &path) {
            continue;
        }
        match value.value {
            Value::Scalar { text, .. } => drop(merged.insert(key.text.clone(), text)),
            other => reader.findings.error(
                value.at,
                path,
                format!("takes text, and this is {}", other.shape()),
            ),
        }
    }
    *findings = reader.findings;
    merged
}

impl Reader<'_> {
    fn settings(&mut self, root: &Node, stored: &[StoredEntry]) -> (Settings, Vec<LeftOut>) {
        let sections = self.pairs(root, "");
        for (key, _) in sections {
            self.top_level(&key.text, key.at);
        }
        let empty = Node {
            value: Value::Mapping(Vec::new()),
            at: root.at,
        };
        let find = |name: &str| {
            sections
                .iter()
                .find(|(key, _)| key.text == name)
                .map_or(&empty, |(_, node)| node)
        };

        let general = self.section(
            find("general_settings"),
            "general_settings",
            fields::GENERAL,
            Unknown::PassOver,
        );
        let litellm = self.section(
            find("litellm_settings"),
            "litellm_settings",
            fields::LITELLM,
            Unknown::PassOver,
        );
        let own = self.section(find("vestibule"), "vestibule", fields::VESTIBULE, Unknown::Error);
        let limits = self.section(
            own.node("limits").unwrap_or(&empty),
            "vestibule.limits",
            fields::LIMITS,
            Unknown::Error,
        );
        let limits = self.limits(&limits);
        let audit = self.audit(own.node("audit").unwrap_or(&empty));
        let proxies = self.proxies(&general);
        let internal = self.internal(&general);
        let origin = OriginSettings {
            base: self.base(),
            trusted_peers: proxies.trusted.clone(),
        };
        let access = self.access(&own, origin.base.as_ref());
        let redirects = self.redirects();
        self.caller_headers = self.caller_headers(&general);

        let mut servers = Vec::new();
        for (key, node) in self.pairs(find("mcp_servers"), "mcp_servers") {
            servers.extend(self.server(key, node, &limits));
        }
        self.aliases(&litellm, &mut servers);
        self.public_servers(&litellm, &mut servers);
        self.proxy_in_front(&origin, &servers);
        self.unique_names(&servers);
        self.names_in_headers(&servers);
        self.unique_prefixes(&servers);
        self.groups_are_no_servers(&servers);
        let management = Management {
            stored_servers: general.bool("store_model_in_db").unwrap_or(true),
            registry_is_public: general.bool("enable_mcp_registry").unwrap_or(false),
        };
        let stored = if management.stored_servers { stored } else { &[] };
        let left_out = self.stored(stored, &limits, &mut servers);
        let shared = format!(
            "{} {:?}",
            find("environment_variables").to_json(),
            self.caller_headers
        );
        Self::fingerprints(&mut servers, shared.as_bytes());
        if servers.is_empty() && !sections.iter().any(|(key, _)| key.text == "mcp_servers") {
            self.findings
                .add(Severity::Warning, None, "mcp_servers", "no server is configured");
        }

        let master_key = self.master_key(&general);
        self.people_have_keys(&servers, master_key.is_some());
        let settings = Settings {
            master_key,
            servers,
            limits,
            access,
            origin,
            proxies,
            internal,
            redirects,
            keep_tokens_for_master_key: own.bool("keep_tokens_for_master_key").unwrap_or(false),
            require_explicit_scope: general.bool("mcp_require_explicit_server_scope").unwrap_or(false),
            management,
            database_url: general.text("database_url").map(Into::into),
            caller_headers: self.caller_headers.clone(),
            audit,
        };
        (settings, left_out)
    }

    fn master_key(&mut self, general: &Section) -> Option<SecretString> {
        let of_the_environment = || {
            let key = self.environment.get("LITELLM_MASTER_KEY")?;
            (!key.is_empty()).then_some(key.as_str())
        };
        let key = general.text("master_key").or_else(of_the_environment)?;
        let (at, path) = (general.at("master_key"), "general_settings.master_key");
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            let message = "takes printable ASCII without spaces, since it travels in a header";
            self.findings.error(at, path, message);
        } else if key.len() < 16 {
            let message = format!("is only {} characters long; anybody can guess it", key.len());
            self.findings.warn(at, path, message);
        }
        Some(key.into())
    }

    fn top_level(&mut self, name: &str, at: Position) {
        if fields::SECTIONS.iter().any(|(known, _)| *known == name) {
            return;
        }
        if fields::PASSED_OVER.contains(&name) {
            self.passed_over.push(name.to_owned());
        } else if let Some((_, what)) = fields::SECTIONS_NOT_YET.iter().find(|(known, _)| *known == name) {
            self.findings
                .error(at, name, format!("not supported yet; it belongs to {what}"));
        } else {
            let near = nearest(name, fields::SECTIONS.iter().map(|(known, _)| *known));
            let hint = near
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            self.findings.error(at, name, format!("unknown section{hint}"));
        }
    }

    fn limits(&mut self, section: &Section) -> Limits {
        let default = Limits::default();
        let max_header_bytes = section
            .count("max_header_bytes")
            .unwrap_or(default.max_header_bytes);
        if max_header_bytes < 8192 {
            let at = section.at("max_header_bytes");
            self.findings
                .error(at, section.path_of("max_header_bytes"), "takes at least 8192");
        }
        for name in ["max_bridge_sessions", "max_stdio_processes"] {
            if section.count(name).is_some_and(|count| count > MAX_PLACES) {
                let message = format!("takes at most {MAX_PLACES}");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        let max_connections = section
            .count("max_connections")
            .unwrap_or(default.max_connections);
        let seconds = |name, default| section.seconds(name).unwrap_or(default);
        Limits {
            max_connections,
            max_calls_per_server: section
                .count("max_calls_per_server")
                .unwrap_or(max_connections.div_ceil(2)),
            max_header_bytes,
            max_body_bytes: section.count("max_body_bytes").unwrap_or(default.max_body_bytes),
            header_timeout: seconds("header_timeout", default.header_timeout),
            body_timeout: seconds("body_timeout", default.body_timeout),
            keep_alive_timeout: seconds("keep_alive_timeout", default.keep_alive_timeout),
            connect_timeout: seconds("connect_timeout", default.connect_timeout),
            first_byte_timeout: seconds("first_byte_timeout", default.first_byte_timeout),
            stream_idle_timeout: seconds("stream_idle_timeout", default.stream_idle_timeout),
            listing_timeout: seconds("listing_timeout", default.listing_timeout),
            open_timeout: seconds("open_timeout", default.open_timeout),
            token_timeout: seconds("token_timeout", default.token_timeout),
            drain_timeout: seconds("drain_timeout", default.drain_timeout),
            max_bridge_sessions: section
                .count("max_bridge_sessions")
                .unwrap_or(default.max_bridge_sessions),
            max_stdio_processes: section
                .count("max_stdio_processes")
                .unwrap_or(default.max_stdio_processes),
        }
    }

    fn audit(&mut self, node: &Node) -> AuditSettings {
        let section = self.section(node, "vestibule.audit", fields::AUDIT, Unknown::Error);
        let default = AuditSettings::default();
        let days = section.text("retention_days").map(|text| match text {
            "forever" => Some(0),
            days => days.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days)),
        });
        if days == Some(None) {
            let message = format!("takes a number of days from 1 to {MAX_DAYS}, or forever");
            self.findings.error(
                section.at("retention_days"),
                section.path_of("retention_days"),
                message,
            );
        }
        AuditSettings {
            calls: section.bool("calls").unwrap_or(default.calls),
            arguments: section.bool("arguments").unwrap_or(default.arguments),
            retention_days: days.flatten().unwrap_or(default.retention_days),
        }
    }

    fn access(&mut self, own: &Section, base: Option<&Origin>) -> BrowserAccess {
        let mut access = BrowserAccess::default();
        for (host, at) in own.list("allowed_hosts") {
            match url::Host::parse(host) {
                Ok(host) => access.hosts.push(host.to_string()),
                Err(_) => self.findings.error(
                    *at,
                    own.path_of("allowed_hosts"),
                    "takes a host name without port",
                ),
            }
        }
        for (origin, at) in own.list("allowed_origins") {
            match url::Url::parse(origin) {
                Ok(url) if url.origin().is_tuple() && url.path() == "/" && url.query().is_none() => {
                    access.origins.push(url.origin().ascii_serialization());
                }
                _ => self
                    .findings
                    .error(*at, own.path_of("allowed_origins"), "takes scheme, host and port"),
            }
        }
        if let Some(base) = base {
            access.hosts.push(base.host().to_owned());
            access.origins.push(base.to_string());
        }
        access
    }

    /// `litellm_settings.mcp_aliases`: gives an alias to servers that have none; the first one counts.
    fn aliases(&mut self, litellm: &Section, servers: &mut [ServerSettings]) {
        for (alias, server_name, at) in litellm.map("mcp_aliases") {
            let path = reader::join("litellm_settings.mcp_aliases", alias);
            match servers.iter_mut().find(|server| server.name == *server_name) {
                None if self.findings.has_errors() => {}
                None => {
                    let near = nearest(server_name, servers.iter().map(|server| server.name.as_str()));
                    let hint = near
                        .map(|near| format!("; did you mean {near}?"))
                        .unwrap_or_default();
                    self.findings
                        .error(*at, path, format!("there is no server {server_name}{hint}"));
                }
                Some(server) if server.alias.is_some() => {
                    let message = format!("{server_name} has an alias already, which counts");
                    self.findings.warn(*at, path, message);
                }
                Some(server) => {
                    server.alias = Some(alias.clone());
                    self.name(alias, *at, &path);
                }
            }
        }
    }
}

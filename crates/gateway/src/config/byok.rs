//! Servers to which each person brings a key of their own (`is_byok`).

use super::headers::{STATIC_FIELDS, header_of};
use super::problem::Severity;
use super::reader::{Reader, Section, join};
use super::settings::{Auth, ByokPage, ServerSettings};
use http::HeaderName;
use std::sync::Arc;

const FLAG: &str = "is_byok";
const HELP: &str = "byok_api_key_help_url";
/// What says something about `is_byok: true`.
const ABOUT: &[&str] = &["byok_description", HELP];
/// The values of `auth_type` that say how a key is sent.
const STATIC_TYPES: &[&str] = &["api_key", "bearer_token", "basic", "authorization", "token"];

impl Reader<'_> {
    /// Whether each person brings their own key. What would have no effect is a finding.
    pub(super) fn is_byok(&mut self, section: &Section, auth_type: &str) -> bool {
        let flag = section.bool(FLAG).unwrap_or(false);
        if flag && !STATIC_TYPES.contains(&auth_type) {
            let message = format!(
                "has no effect with auth_type: {auth_type}; it takes one of {}, which says how the key is sent",
                STATIC_TYPES.join(", ")
            );
            self.findings
                .error(section.at(FLAG), section.path_of(FLAG), message);
        }
        for name in ABOUT {
            if !flag && section.has(name) {
                let message = "has no effect without is_byok: true";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        flag
    }

    pub(super) fn byok(
        &mut self,
        section: &Section,
        auth_type: &'static str,
        token_header: &HeaderName,
    ) -> Auth {
        for name in STATIC_FIELDS {
            if section.has(name) {
                let message =
                    "has no effect with is_byok: true, where each person brings their own; keep one";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        let help = section.url(HELP).cloned();
        if help.as_ref().is_some_and(|url| url.scheme() != "https") {
            self.findings
                .error(section.at(HELP), section.path_of(HELP), "takes an https URL");
        }
        let lines = section.list("byok_description").iter();
        Auth::Byok {
            auth_type,
            name: header_of(auth_type, token_header),
            page: Arc::new(ByokPage {
                description: lines.map(|(line, _)| line.clone()).collect(),
                help,
            }),
        }
    }

    /// Without keys no caller is anybody in particular, whose key could be kept.
    pub(super) fn people_have_keys(&mut self, servers: &[ServerSettings], has_master_key: bool) {
        if has_master_key {
            return;
        }
        for server in servers {
            if let Auth::Byok { .. } = server.auth {
                let path = join(&join("mcp_servers", &server.name), FLAG);
                let message =
                    "needs general_settings.master_key: a gateway without keys cannot tell people apart";
                self.findings.add(Severity::Error, None, path, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Auth, load};
    use std::collections::HashMap;

    fn text(fields: &str, general: &str) -> String {
        let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
        format!("{general}mcp_servers:\n  one:\n    url: http://localhost:1/mcp\n{fields}")
    }

    const KEYED: &str = "general_settings:\n  master_key: sk-0123456789abcdef\n";

    #[test]
    fn what_belongs_together() {
        let byok = "auth_type: api_key\nis_byok: true";
        for (fields, general, expected) in [
            (
                byok.to_owned(),
                "",
                "mcp_servers.one.is_byok: needs general_settings.master_key",
            ),
            (
                format!("{byok}\nauthentication_token: t"),
                KEYED,
                "mcp_servers.one.authentication_token: has no effect with is_byok: true",
            ),
            (
                "auth_type: oauth2\nis_byok: true".to_owned(),
                KEYED,
                "mcp_servers.one.is_byok: has no effect with auth_type: oauth2",
            ),
            (
                "is_byok: true".to_owned(),
                KEYED,
                "mcp_servers.one.is_byok: has no effect with auth_type: none",
            ),
            (
                format!("{byok}\nbyok_api_key_help_url: http://example.com"),
                KEYED,
                "mcp_servers.one.byok_api_key_help_url: takes an https URL",
            ),
            (
                "auth_type: api_key\nauthentication_token: t\nbyok_description: [x]".to_owned(),
                KEYED,
                "mcp_servers.one.byok_description: has no effect without is_byok: true",
            ),
        ] {
            let loaded = load(&text(&fields, general), &HashMap::new());
            assert!(loaded.settings.is_none(), "{fields}");
            let all: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
            assert!(
                all.iter().any(|one| one.contains(expected)),
                "{all:#?} {expected}"
            );
        }
    }

    #[test]
    fn the_header_is_that_of_the_static_type() {
        for (auth_type, more, header) in [
            ("api_key", "", "x-api-key"),
            ("bearer_token", "", "authorization"),
            ("bearer_token", "\nupstream_token_header: X-Token", "x-token"),
            ("basic", "", "authorization"),
        ] {
            let fields = format!("auth_type: {auth_type}\nis_byok: true{more}");
            let loaded = load(&text(&fields, KEYED), &HashMap::new());
            let settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.findings));
            let Auth::Byok { name, .. } = &settings.servers[0].auth else {
                panic!("another mode");
            };
            assert_eq!(name.as_str(), header);
        }
    }
}

//! Servers that are kept in the store: each is read as an entry of `mcp_servers` is, by itself. One that cannot be used
//! is left out with what is wrong with it, and the rest is served.

use super::problem::Problem;
use super::reader::{Reader, join};
use super::settings::{Limits, Provenance, ServerSettings};
use super::yaml::{self, Key, Position};
use crate::digest::sha256_of_parts;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use vestibule_mcp::naming;
use vestibule_store::Version;

/// A server as the store has it.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// `server_id`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The fields of `mcp_servers.<name>`, as a JSON object.
    pub document: SecretString,
    /// Which writing of it this is.
    pub version: Version,
    /// When it was added, in seconds since 1970.
    pub created_at: u64,
    /// When it was last written.
    pub updated_at: u64,
    /// When a server that is only tried ends, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// A stored server that is left out.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// `server_id`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// The names that the servers have so far, and whose each is.
#[derive(Default)]
struct Taken {
    ids: HashMap<String, String>,
    /// Names and aliases.
    names: HashMap<String, String>,
    /// What stands before tools' names.
    prefixes: HashMap<String, String>,
    groups: HashMap<String, String>,
}

impl Taken {
    fn add(&mut self, server: &ServerSettings) {
        let owner = || server.name.clone();
        self.ids.insert(server.id.clone(), owner());
        for name in names_of(server) {
            self.names.insert(name.to_owned(), owner());
            self.prefixes.insert(naming::prefix(name).into_owned(), owner());
        }
        for group in &server.shared.groups {
            self.groups.insert(group.clone(), owner());
        }
    }

    /// Why `server` cannot stand beside those that are here.
    fn clash(&self, server: &ServerSettings) -> Option<String> {
        if let Some(owner) = self.ids.get(&*server.id) {
            return Some(format!("has the same server_id as {owner}"));
        }
        for name in names_of(server) {
            if let Some(owner) = self.names.get(name) {
                return Some(format!("the name {name} already belongs to {owner}"));
            }
            if let Some(owner) = self.prefixes.get(&*naming::prefix(name)) {
                let message = format!("the tools of {name} would be called like those of {owner}");
                return Some(message);
            }
            if let Some(owner) = self.groups.get(name) {
                return Some(format!("{name} is a group, of which {owner} is"));
            }
        }
        let group = server
            .shared
            .groups
            .iter()
            .find(|group| self.names.contains_key(group.as_str()))?;
        Some(format!(
            "the group {group} has a name of {}",
            self.names[group.as_str()]
        ))
    }
}

fn names_of(server: &ServerSettings) -> impl Iterator<Item = &str> {
    let alias = server.alias.as_deref().filter(|alias| *alias != server.name);
    [Some(server.name.as_str()), alias].into_iter().flatten()
}

impl Reader<'_> {
    /// Reads the stored servers and adds those that can be used to `servers`, which come before them.
    pub(super) fn stored(
        &mut self,
        entries: &[StoredEntry],
        limits: &Limits,
        servers: &mut Vec<ServerSettings>,
    ) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        let mut taken = Taken::default();
        for server in servers.iter() {
            taken.add(server);
        }
        let of_the_file = std::mem::take(&mut self.findings);
        self.may_refer = false;
        for entry in entries {
            let read = self.stored_one(entry, limits);
            let mut findings = std::mem::take(&mut self.findings);
            let usable = read.filter(|_| !findings.has_errors()).and_then(|server| {
                let Some(message) = taken.clash(&server) else {
                    return Some(server);
                };
                findings.error(START, join("mcp_servers", &entry.name), message);
                None
            });
            match usable {
                Some(mut server) => {
                    taken.add(&server);
                    server.warnings = findings.sorted();
                    servers.push(server);
                }
                None => left_out.push(LeftOut {
                    id: entry.id.clone(),
                    name: entry.name.clone(),
                    problems: findings.sorted(),
                }),
            }
        }
        self.may_refer = true;
        self.findings = of_the_file;
        left_out
    }

    fn stored_one(&mut self, entry: &StoredEntry, limits: &Limits) -> Option<ServerSettings> {
        let path = join("mcp_servers", &entry.name);
        // JSON is YAML.
        let node = match yaml::parse(entry.document.expose_secret()) {
            Ok(node) => node?,
            Err(faults) => {
                for fault in faults {
                    self.findings.error(fault.at, &path, fault.message);
                }
                return None;
            }
        };
        let key = Key {
            text: entry.name.clone(),
            at: START,
        };
        let mut server = self.server(&key, &node, limits)?;
        server.id.clone_from(&entry.id);
        server.has_derived_id = false;
        server.derived_id = None;
        server.provenance = Provenance::Store {
            version: entry.version,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
            expires_at: entry.expires_at,
        };
        Some(server)
    }

    /// Completes what a server's fingerprint is made of: `shared` is what all servers have in common.
    pub(super) fn fingerprints(servers: &mut [ServerSettings], shared: &[u8]) {
        for server in servers {
            let alias = server.alias.clone().unwrap_or_default();
            let timeout = server.first_byte_timeout.as_nanos().to_be_bytes();
            let parts = [
                &server.fingerprint[..],
                server.name.as_bytes(),
                server.id.as_bytes(),
                alias.as_bytes(),
                &[
                    u8::from(server.is_public),
                    u8::from(server.provenance == Provenance::File),
                ],
                &timeout,
                shared,
            ];
            server.fingerprint = sha256_of_parts(&parts);
        }
    }
}

pub(super) const START: Position = Position { line: 1, column: 1 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_with;

    const FILE: &str =
        "mcp_servers:\n  one: {url: 'http://localhost:1/mcp', alias: first, access_groups: [all]}\n";

    fn entry(id: &str, name: &str, document: &str) -> StoredEntry {
        StoredEntry {
            id: id.into(),
            name: name.into(),
            document: document.into(),
            version: Version::from_number(1),
            created_at: 0,
            updated_at: 0,
            expires_at: None,
        }
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_the_rest_is_served() {
        let url = r#"{"url": "http://localhost:2/mcp"}"#;
        let entries = [
            entry("2", "two", url),
            entry("3", "first", url),
            entry("4", "all", url),
            entry("2", "five", url),
            entry("6", "six", r#"{"url": "http://localhost:2/mcp", "urls": 1}"#),
            entry("7", "seven", r#"{"url": "os.environ/SECRET"}"#),
            entry("8", "ei-ght", url),
            entry("9", "nine", "{"),
            entry(
                "10",
                "ten",
                r#"{"url": "http://localhost:2/mcp", "access_groups": ["two"]}"#,
            ),
        ];
        let environment = HashMap::from([("SECRET".to_owned(), "http://localhost:3/mcp".to_owned())]);
        let loaded = load_with(FILE, &environment, &entries);
        let settings = loaded.settings.expect("usable");
        let names: Vec<_> = settings.servers.iter().map(|server| &*server.name).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(settings.servers[1].id, "2");
        let why = |name: &str| {
            let found = loaded
                .left_out
                .iter()
                .find(|left| left.name == name)
                .expect("left out");
            found.problems[0].message.clone()
        };
        for (name, reason) in [
            ("first", "already belongs to one"),
            ("all", "is a group"),
            ("five", "same server_id as two"),
            ("six", "unknown field; did you mean url?"),
            ("seven", "configuration file"),
            ("ei-ght", "cannot contain '-'"),
            ("ten", "the group two has a name of two"),
        ] {
            assert!(why(name).contains(reason), "{name}: {}", why(name));
        }
        assert_eq!(loaded.left_out.len(), 8);
    }

    #[test]
    fn a_fingerprint_changes_with_whatever_the_server_depends_on() {
        let of = |text: &str, variable: &str| {
            let environment = HashMap::from([("V".to_owned(), variable.to_owned())]);
            let settings = load_with(text, &environment, &[]).settings.expect("usable");
            settings.servers[0].fingerprint
        };
        let first = of(FILE, "a");
        assert_eq!(first, of(FILE, "a"));
        assert_ne!(first, of(&FILE.replace("localhost:1", "localhost:2"), "a"));
        assert_ne!(
            first,
            of(
                &format!("{FILE}vestibule: {{limits: {{first_byte_timeout: 7}}}}\n"),
                "a"
            )
        );
        assert_ne!(
            first,
            of(&format!("{FILE}environment_variables: {{A: b}}\n"), "a")
        );
        assert_ne!(
            first,
            of(
                &format!("{FILE}litellm_settings: {{public_mcp_servers: [one]}}\n")
                    .replace("alias", "available_on_public_internet: false, alias"),
                "a"
            )
        );
    }
}

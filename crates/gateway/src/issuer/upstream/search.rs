//! One search for a server's sign-in addresses: the server's challenge, its metadata (RFC 9728), its authorization
//! server's metadata (RFC 8414, OIDC). Every step is in the trace; nothing is guessed.

use super::UpstreamConfig;
use crate::net::guarded::{Fetched, Guarded, GuardedFault, Reach, Zone};
use serde_json::json;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;
use url::{Origin, Url};
use vestibule_oauth::metadata::{
    AuthorizationServerMetadata, ChallengeHints, ProtectedResourceMetadata, ResourceDocument,
    authorization_server_candidates, protected_resource_candidates,
};

/// Authorization servers of one document that are asked.
const SERVER_LIMIT: usize = 4;
/// The longest text of a document that is repeated in a trace, in characters.
const QUOTE_LIMIT: usize = 200;

/// Which document a step looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// The server's challenge.
    Challenge,
    /// The server's metadata (RFC 9728).
    Resource,
    /// Its authorization server's (RFC 8414, OIDC).
    AuthorizationServer,
}

/// A document that is what was looked for, and speaks for somebody else or leaves out what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// `resource` is not the server.
    Resource(ProtectedResourceMetadata),
    /// `issuer` is not the one whose document was asked for.
    Issuer(AuthorizationServerMetadata),
    /// It has not the endpoints that are needed, or not where the configuration has them.
    Unfit(AuthorizationServerMetadata),
}

/// One step of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which document was looked for.
    pub sought: Sought,
    /// What was asked, without its query.
    pub url: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// Its document was used.
    pub used: bool,
    /// What came of it.
    pub note: String,
}

impl Probe {
    /// Whether the step found the document of an authorization server.
    pub(super) fn counts(&self) -> bool {
        self.used && self.note == SERVER_FOUND
    }
}

const SERVER_FOUND: &str = "used: the authorization server's metadata";

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.url)?;
        if let Some(status) = self.status {
            write!(f, "{status}, ")?;
        }
        f.write_str(&self.note)
    }
}

/// What a search has found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) server: Option<Learned>,
    pub(super) challenge_scopes: Vec<String>,
    pub(super) resource_scopes: Vec<String>,
    /// `resource` of the server's metadata, which a token is asked for (RFC 8707).
    pub(super) resource: Option<String>,
    /// The whole of that metadata.
    pub(super) document: Option<ResourceDocument>,
    /// What of it is understood.
    pub(super) described: Option<ProtectedResourceMetadata>,
    /// Documents that were not used.
    pub(super) rejected: Vec<Rejected>,
}

/// An authorization server's document, and where it was served.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) metadata: AuthorizationServerMetadata,
    pub(super) zone: Zone,
}

/// Who named a URL; it leads no further in, and no less safely, than there.
#[derive(Debug, Clone, Copy)]
struct Source {
    zone: Zone,
    https: bool,
}

/// Of what the operator wrote.
const CONFIGURED: Source = Source {
    zone: Zone::Public,
    https: false,
};

pub(super) struct Search<'s> {
    guarded: &'s Guarded,
    server: &'s UpstreamConfig,
    limit: Duration,
    pub(super) reach: Reach,
    /// Origins that did not answer; asking again would only use up the time of the others.
    dead: Vec<Origin>,
    sought: Sought,
    pub(super) trace: Vec<Probe>,
    pub(super) found: Found,
}

impl<'s> Search<'s> {
    pub(super) fn new(guarded: &'s Guarded, server: &'s UpstreamConfig, limit: Duration) -> Self {
        Self {
            guarded,
            server,
            limit,
            reach: server.reach(),
            dead: Vec::new(),
            sought: Sought::Challenge,
            trace: Vec::new(),
            found: Found::default(),
        }
    }

    /// Fills `found` as far as it gets.
    pub(super) async fn run(&mut self) {
        if let Some(issuer) = &self.server.issuer {
            // Only this issuer counts. What the server says about scopes is of use all the same.
            self.authorization_server(std::slice::from_ref(issuer), CONFIGURED)
                .await;
            if self.found.server.is_some() && self.server.scopes.is_empty() {
                self.resource().await;
            }
            return;
        }
        let resource = self.resource().await;
        match resource {
            Some((document, source)) if !document.authorization_servers.is_empty() => {
                for issuer in document.authorization_servers.iter().take(SERVER_LIMIT) {
                    self.authorization_server(std::slice::from_ref(issuer), source)
                        .await;
                    if self.found.server.is_some() {
                        return;
                    }
                }
            }
            _ => self.own_origin().await,
        }
    }

    /// MCP 2025-03-26: the server's origin is its authorization server. Nobody wrote that identifier down, so both
    /// spellings of it are its own.
    async fn own_origin(&mut self) {
        let origin = self.server.url.origin().ascii_serialization();
        let twin = format!("{origin}/");
        self.authorization_server(&[origin, twin], CONFIGURED).await;
    }

    /// Fills `found.document`: the server's own, or one that says of its origin what holds without any.
    pub(super) async fn describe(&mut self) {
        if self.resource().await.is_some() {
            return;
        }
        self.own_origin().await;
        let learned = self.found.server.as_ref();
        self.found.document = learned.map(|learned| ResourceDocument::of_issuer(&learned.metadata.issuer));
    }

    /// Looks at the server's own metadata too, where the search had no use for it.
    pub(super) async fn look_at_resource(&mut self) {
        let asked = |probe: &Probe| probe.sought == Sought::Challenge;
        if !self.trace.iter().any(asked) {
            self.resource().await;
        }
    }

    pub(super) fn out_of_time(&mut self) {
        let url = self.server.url.clone();
        self.note(&url, None, "the search was given up: it took too long");
    }

    /// The server's own metadata, by its challenge or at the well-known places.
    async fn resource(&mut self) -> Option<(ProtectedResourceMetadata, Source)> {
        self.sought = Sought::Challenge;
        let (hints, source) = self.challenge().await;
        self.sought = Sought::Resource;
        self.found.challenge_scopes = hints.scopes;
        let well_known = protected_resource_candidates(&self.server.url);
        let well_known = well_known.iter().filter_map(|url| Url::parse(url).ok());
        let mut candidates: Vec<Url> = hints.resource_metadata.into_iter().collect();
        for candidate in well_known {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        for candidate in candidates {
            let Some((fetched, source)) = self.document(&candidate, source).await else {
                continue;
            };
            match ProtectedResourceMetadata::parse(&fetched.body) {
                Err(fault) => self.note(
                    &candidate,
                    Some(fetched.status),
                    &not_usable(&fetched, &fault.to_string()),
                ),
                Ok(document) if !document.speaks_for(&self.server.url) => {
                    let resource = quote(document.resource.as_deref().unwrap_or_default());
                    let note = format!("skipped: its resource is {resource}");
                    self.note(&candidate, Some(fetched.status), &note);
                    self.found.rejected.push(Rejected::Resource(document));
                }
                Ok(document) => {
                    self.use_it(&candidate, fetched.status, "used: the server's metadata");
                    self.found.resource_scopes.clone_from(&document.scopes_supported);
                    self.found.resource.clone_from(&document.resource);
                    self.found.document = ResourceDocument::parse(&fetched.body).ok();
                    self.found.described = Some(document.clone());
                    return Some((document, source));
                }
            }
        }
        None
    }

    /// Asks as a client without a credential does. POST first: a GET may be a stream that says nothing for long.
    async fn challenge(&mut self) -> (ChallengeHints, Source) {
        let url = self.server.url.clone();
        let mut source = Source {
            zone: Zone::Public,
            https: url.scheme() == "https",
        };
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        for post in [true, false] {
            let asked = async {
                if post {
                    self.guarded.probe_post(&url, &ping, &self.reach).await
                } else {
                    self.guarded.probe_get(&url, &self.reach).await
                }
            };
            let asked = timeout(self.limit, asked)
                .await
                .unwrap_or(Err(GuardedFault::Timeout));
            let fetched = match asked {
                Ok(fetched) => fetched,
                Err(fault) => {
                    self.note(&url, None, &fault.to_string());
                    if post && matches!(fault, GuardedFault::Unreachable(_) | GuardedFault::Timeout) {
                        self.dead.push(url.origin());
                        break;
                    }
                    continue;
                }
            };
            source.zone = fetched.zone;
            let hints = ChallengeHints::parse(fetched.www_authenticate.iter().map(String::as_str));
            if fetched.status == 401 || hints != ChallengeHints::default() {
                let note = match &hints.resource_metadata {
                    Some(_) => "a challenge that names metadata",
                    None => "a challenge without metadata",
                };
                self.note(&url, Some(fetched.status), note);
                return (hints, source);
            }
            self.note(&url, Some(fetched.status), "no challenge");
        }
        (ChallengeHints::default(), source)
    }

    /// Looks for the document of one issuer, whose identifier is any of `accepted`.
    async fn authorization_server(&mut self, accepted: &[String], source: Source) {
        self.sought = Sought::AuthorizationServer;
        let candidates = accepted
            .first()
            .map(|issuer| authorization_server_candidates(issuer));
        let candidates = candidates.unwrap_or_default();
        if candidates.is_empty() {
            let shown = accepted.first().map(|issuer| quote(issuer)).unwrap_or_default();
            self.trace.push(Probe {
                sought: self.sought,
                url: shown,
                status: None,
                used: false,
                note: "skipped: it cannot be an issuer".into(),
            });
        }
        for candidate in candidates.iter().filter_map(|url| Url::parse(url).ok()) {
            let Some((fetched, source)) = self.document(&candidate, source).await else {
                continue;
            };
            let status = Some(fetched.status);
            let mut metadata = match AuthorizationServerMetadata::parse(&fetched.body) {
                Ok(metadata) => metadata,
                Err(fault) => {
                    self.note(&candidate, status, &not_usable(&fetched, &fault.to_string()));
                    continue;
                }
            };
            if !accepted.contains(&metadata.issuer) {
                let note = format!("skipped: its issuer is {}", quote(&metadata.issuer));
                self.note(&candidate, status, &note);
                self.found.rejected.push(Rejected::Issuer(metadata));
                continue;
            }
            for endpoint in [
                &mut metadata.authorization_endpoint,
                &mut metadata.token_endpoint,
                &mut metadata.registration_endpoint,
                &mut metadata.revocation_endpoint,
            ] {
                if endpoint
                    .as_ref()
                    .is_some_and(|url| self.reach.downgrades(url, source.https))
                {
                    *endpoint = None;
                }
            }
            if let Some(why) = self.unfit(&metadata) {
                self.note(&candidate, status, &why);
                self.found.rejected.push(Rejected::Unfit(metadata));
                continue;
            }
            self.use_it(&candidate, fetched.status, SERVER_FOUND);
            self.found.server = Some(Learned {
                metadata,
                zone: source.zone,
            });
            return;
        }
    }

    /// Why a document whose issuer is right is of no use here.
    fn unfit(&self, metadata: &AuthorizationServerMetadata) -> Option<String> {
        let pairs = [
            (
                "authorization_endpoint",
                &self.server.authorization_url,
                &metadata.authorization_endpoint,
            ),
            ("token_endpoint", &self.server.token_url, &metadata.token_endpoint),
        ];
        for (name, configured, learned) in pairs {
            match (configured, learned) {
                (None, None) => return Some(format!("skipped: it has no usable {name}")),
                // A server must not add its own endpoints to another authorization server's: a code, a refresh token
                // or a client secret would go to whom it was not meant for. A configured issuer is the operator's word.
                (Some(configured), Some(learned))
                    if configured.origin() != learned.origin() && self.server.issuer.is_none() =>
                {
                    return Some(format!("skipped: its {name} is not at the configured origin"));
                }
                (Some(_), None) if self.server.issuer.is_none() => {
                    return Some(format!(
                        "skipped: it has no {name} to compare with the configured one"
                    ));
                }
                _ => {}
            }
        }
        None
    }

    /// Fetches what may be a metadata document: some answer with status 200. Anything else is noted.
    async fn document(&mut self, url: &Url, source: Source) -> Option<(Fetched, Source)> {
        if self.dead.contains(&url.origin()) {
            self.note(url, None, "not asked: the host did not answer before");
            return None;
        }
        if self.reach.downgrades(url, source.https) {
            self.note(url, None, "not asked: named over https, but not https itself");
            return None;
        }
        let reach = self.reach.named_from(source.zone);
        let asked = timeout(self.limit, self.guarded.get_json(url, &reach)).await;
        match asked.unwrap_or(Err(GuardedFault::Timeout)) {
            Ok(fetched) if fetched.status == 200 => {
                let source = Source {
                    zone: fetched.zone,
                    https: url.scheme() == "https",
                };
                Some((fetched, source))
            }
            Ok(fetched) => {
                self.note(url, Some(fetched.status), "no document");
                None
            }
            Err(fault) => {
                self.note(url, None, &fault.to_string());
                if matches!(
                    fault,
                    GuardedFault::Unreachable(_) | GuardedFault::Timeout | GuardedFault::NotAllowed
                ) {
                    self.dead.push(url.origin());
                }
                None
            }
        }
    }

    fn note(&mut self, url: &Url, status: Option<u16>, note: &str) {
        self.trace.push(Probe {
            sought: self.sought,
            url: shown(url),
            status,
            used: false,
            note: note.to_owned(),
        });
    }

    fn use_it(&mut self, url: &Url, status: u16, note: &str) {
        self.note(url, Some(status), note);
        if let Some(last) = self.trace.last_mut() {
            last.used = true;
        }
    }
}

fn not_usable(fetched: &Fetched, why: &str) -> String {
    let kind = fetched.content_type.as_deref().map(quote).unwrap_or_default();
    let kind = if kind.is_empty() {
        "no content type".to_owned()
    } else {
        kind
    };
    format!("skipped: {why} ({kind})")
}

/// A URL without what may be secret.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.to_string()
}

/// A document's text, fit for a log line.
fn quote(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(QUOTE_LIMIT)
        .collect()
}

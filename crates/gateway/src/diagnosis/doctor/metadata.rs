//! What the server and its authorization server say of themselves, judged as sign-ins judge it.

use super::advice::{Advice, line, list_line, upstream, you};
use super::mode::Mode;
use super::walk::Walk;
use super::{Finding, Verdict};
use crate::config::ExchangeClient;
use crate::issuer::upstream::{Examination, Rejected, Sought, UpstreamConfig, UpstreamEndpoints};
use crate::net::guarded::GuardedFault;
use crate::net::transport::shown;
use std::sync::Arc;
use url::Url;
use vestibule_oauth::ClientAuthMethod;
use vestibule_oauth::metadata::{AuthorizationServerMetadata, ProtectedResourceMetadata};

/// What the search for the authorization server came to.
pub(super) struct Learned {
    pub(super) config: UpstreamConfig,
    pub(super) found: Examination,
}

impl Learned {
    /// The authorization server's metadata, whether or not everything in it is used.
    pub(super) fn server(&self) -> Option<&AuthorizationServerMetadata> {
        let unfit = self.found.rejected.iter().find_map(|rejected| match rejected {
            Rejected::Unfit(metadata) => Some(metadata),
            Rejected::Resource(_) | Rejected::Issuer(_) => None,
        });
        self.found.server.as_ref().or(unfit)
    }

    /// Metadata that is about another resource than the server.
    pub(super) fn foreign(&self) -> Option<&ProtectedResourceMetadata> {
        self.found.rejected.iter().find_map(|rejected| match rejected {
            Rejected::Resource(metadata) => Some(metadata),
            Rejected::Issuer(_) | Rejected::Unfit(_) => None,
        })
    }

    /// A document of the right place with another issuer in it.
    pub(super) fn other_issuer(&self) -> Option<&AuthorizationServerMetadata> {
        self.found.rejected.iter().find_map(|rejected| match rejected {
            Rejected::Issuer(metadata) => Some(metadata),
            Rejected::Resource(_) | Rejected::Unfit(_) => None,
        })
    }

    /// The scopes that the server asks for: its challenge's, or its metadata's.
    pub(super) fn wanted_scopes(&self) -> &[String] {
        match (&self.found.challenge_scopes, &self.found.resource) {
            (scopes, _) if !scopes.is_empty() => scopes,
            (_, Some(metadata)) => &metadata.scopes_supported,
            _ => &[],
        }
    }

    pub(super) fn endpoints(&self) -> Option<&UpstreamEndpoints> {
        self.found.endpoints.as_ref()
    }

    pub(super) fn tried(&self, sought: Sought) -> Vec<String> {
        let probes = self.found.trace.iter();
        let probes = probes.filter(|probe| probe.sought == sought);
        probes.map(ToString::to_string).collect()
    }

    /// The configuration says so much that nothing has to be found.
    fn complete(&self) -> bool {
        !self.config.incomplete()
    }
}

impl Walk {
    /// Whether a configured client's secret goes only where the configuration says: to a configured issuer or token
    /// endpoint.
    pub(super) fn pinned(&self) -> bool {
        match &self.mode {
            Mode::Person(sign_in) => {
                let secret = sign_in
                    .client
                    .as_ref()
                    .is_some_and(|client| client.secret.is_some());
                !secret || sign_in.issuer.is_some() || sign_in.token_url.is_some()
            }
            _ => true,
        }
    }

    /// What the search starts from. A machine needs none; what it finds is for comparison.
    fn config(&self) -> Option<UpstreamConfig> {
        let (url, _) = self.address.as_ref()?;
        Some(match &self.mode {
            Mode::Person(sign_in) => sign_in.upstream(&self.server),
            Mode::Machine { token_url, .. } => UpstreamConfig {
                token_url: Some(token_url.clone()),
                ..UpstreamConfig::bare(&self.server.name, url)
            },
            _ => UpstreamConfig::bare(&self.server.name, url),
        })
    }

    pub(super) async fn resource_metadata(&mut self) -> Option<Finding> {
        let config = self.config()?;
        let asked = self.unasked.as_ref().map(|unasked| unasked.status);
        match &self.mode {
            Mode::Open | Mode::Fixed | Mode::Own | Mode::Signed(_) | Mode::Exchanged(_)
                if asked != Some(401) =>
            {
                return None;
            }
            Mode::Person(_) if config.issuer.is_some() || !config.incomplete() => {}
            _ if !self.reached => return None,
            _ => {}
        }
        let found = self.discovery.examine(&config).await;
        let learned = self.learned.insert(Learned { config, found });
        let tried = learned.tried(Sought::Resource);
        if matches!(self.mode, Mode::Brought(_)) {
            return Some(self.brought_metadata(asked).tried(tried));
        }
        let person = matches!(self.mode, Mode::Person(_));
        if let Some(document) = &learned.found.resource {
            let servers = document.authorization_servers.join(", ");
            let resource = document.resource.as_deref().unwrap_or("no resource");
            return Some(if servers.is_empty() && person {
                Finding::warning(format!("{resource}, which names no authorization server"))
                    .tried(tried)
                    .advise([upstream("name authorization_servers in it (RFC 9728 section 2)")])
            } else {
                Finding::ok(format!("{resource}, authorization server {servers}")).tried(tried)
            });
        }
        // Without it sign-ins may still find their way.
        let needed = person && learned.endpoints().is_none();
        if let Some(document) = learned.foreign() {
            let resource = document.resource.as_deref().unwrap_or_default();
            let seen = format!("it is about {resource}, not about {}", shown(&learned.config.url));
            let mut finding = if needed && learned.config.issuer.is_none() {
                Finding::fault(format!("{seen}, so it is not used"))
            } else if person && !learned.complete() && learned.config.issuer.is_none() {
                Finding::warning(format!("{seen}, so it is not used"))
            } else {
                Finding::ok(format!("{seen}; it is not needed"))
            };
            if finding.verdict != Verdict::Ok {
                let issuer = document.authorization_servers.first();
                finding = finding
                    .advise(issuer.map(|issuer| {
                        line(
                            "issuer",
                            issuer,
                            "the authorization server that the document names; then it needs no document of the server, if you \
                             trust it",
                        )
                    }))
                    .advise([upstream(format!(
                        "serve metadata whose resource is {} (RFC 9728 section 3.3)",
                        shown(&learned.config.url)
                    ))]);
            }
            return Some(finding.tried(tried));
        }
        Some(
            if !person || learned.complete() || learned.config.issuer.is_some() {
                Finding::ok("none; it is not needed here").tried(tried)
            } else {
                Finding::warning(
                    "none, so the server's own origin counts as its authorization server (MCP 2025-03-26)",
                )
                .tried(tried)
                .advise([upstream("serve protected resource metadata (RFC 9728)")])
            },
        )
    }

    pub(super) fn authorization_server(&self) -> Option<Finding> {
        let learned = self.learned.as_ref()?;
        let tried = learned.tried(Sought::AuthorizationServer);
        if let Mode::Machine { token_url, .. } = &self.mode {
            let metadata = learned.server()?;
            let named = metadata.token_endpoint.as_ref();
            return Some(
                match named {
                    Some(named) if named != token_url => Finding::warning(format!(
                        "{} names another token endpoint: {}",
                        metadata.issuer,
                        shown(named)
                    ))
                    .advise([token_url_line(
                        named,
                        "the one that the authorization server of this MCP server names",
                    )]),
                    Some(_) => Finding::ok(format!("{}, with this token endpoint", metadata.issuer)),
                    None => Finding::ok(metadata.issuer.clone()),
                }
                .tried(tried),
            );
        }
        if matches!(self.mode, Mode::Brought(_)) {
            return self.brought_server().map(|finding| finding.tried(tried));
        }
        if let Some(endpoints) = learned.endpoints() {
            let issuer = endpoints.issuer.as_deref();
            return Some(
                match (&learned.found.server, learned.complete()) {
                    (Some(_), _) if !self.pinned() => {
                        let issuer = issuer.unwrap_or_default();
                        Finding::warning(format!(
                            "issuer {issuer}, which the server alone names: it decides who is shown the client's secret"
                        ))
                        .advise([line("issuer", issuer, "pins it, if it is the one you registered the client at")])
                    }
                    (Some(_), _) => named_by_server(issuer.unwrap_or_default(), learned),
                    (None, true) => match learned.server() {
                        Some(other) => Finding::warning(format!(
                            "the configured endpoints are used; those of {} are others",
                            other.issuer
                        )),
                        None => Finding::ok("the configured endpoints are used"),
                    },
                    (None, false) => Finding::warning(
                        "the configured endpoints are used; no metadata was found for the rest",
                    ),
                }
                .tried(tried),
            );
        }
        Some(self.no_server(learned).tried(tried))
    }

    /// Nothing says where people sign in: why, and what would.
    fn no_server(&self, learned: &Learned) -> Finding {
        if let Some(metadata) = learned.other_issuer() {
            let expected = learned.config.issuer.as_deref().or_else(|| {
                let named = learned.found.resource.as_ref()?.authorization_servers.first()?;
                Some(named.as_str())
            });
            let seen = format!(
                "its metadata is of the issuer {}, and {} was asked for; the two have to be equal, letter by letter",
                metadata.issuer,
                expected.unwrap_or("the server's origin")
            );
            return Finding::fault(seen)
                .advise([line(
                    "issuer",
                    &metadata.issuer,
                    "the issuer as its metadata spells it, if you trust it",
                )])
                .advise([upstream(
                    "name the same issuer in the server's metadata and in the authorization server's (RFC 8414 section 3.3)",
                )]);
        }
        if let Some(metadata) = learned.server() {
            return unfit(metadata);
        }
        let not_allowed = GuardedFault::NotAllowed.to_string();
        let kept_out = |text: &String| text.ends_with(&not_allowed);
        if learned.tried(Sought::AuthorizationServer).iter().any(kept_out) {
            let named = learned.found.resource.as_ref();
            let named = named.and_then(|metadata| metadata.authorization_servers.first());
            return Finding::fault(
                "it leads to an address deeper in the network than the server's own, and only the configuration may",
            )
            .advise(named.map(|issuer| line("issuer", issuer, "makes it the operator's own word, if you trust it")));
        }
        let open = self.unasked.as_ref().is_some_and(|unasked| unasked.status < 300);
        let finding = Finding::fault("no metadata of an authorization server was found");
        let finding = if open {
            finding.advise([line(
                "auth_type",
                "none",
                "if the server asks nobody to sign in: it answered without a credential",
            )])
        } else {
            finding
        };
        finding.advise([
            line(
                "authorization_url",
                "https://…",
                "where people sign in, from the provider's manual",
            ),
            line("token_url", "https://…", "its token endpoint"),
            upstream("serve authorization server metadata (RFC 8414)"),
        ])
    }

    pub(super) fn endpoints(&self) -> Option<Finding> {
        let endpoints = self.learned.as_ref()?.endpoints()?;
        let seen = format!(
            "authorization {}, token {}",
            shown(&endpoints.authorization_url),
            shown(&endpoints.token_url)
        );
        let in_clear = [&endpoints.authorization_url, &endpoints.token_url]
            .into_iter()
            .any(|url| url.scheme() == "http" && !is_local(url));
        if in_clear {
            let seen = format!("{seen}: http sends codes and tokens in clear text");
            return Some(Finding::warning(seen).advise([upstream("serve them over https")]));
        }
        let away = endpoints.authorization_url.origin() != endpoints.token_url.origin();
        Some(Finding::ok(if away {
            format!("{seen}, at two origins")
        } else {
            seen
        }))
    }

    pub(super) fn grants(&self) -> Option<Finding> {
        let learned = self.learned.as_ref()?;
        let metadata = match &self.mode {
            Mode::Person(_) | Mode::Brought(_) => learned.found.server.as_ref(),
            _ => learned.server(),
        };
        let offered = metadata?.grant_types_supported.as_ref()?;
        let has = |grant: &str| offered.iter().any(|known| known == grant);
        let seen = offered.join(", ");
        Some(match &self.mode {
            Mode::Machine { .. } if has("client_credentials") => Finding::ok(seen),
            Mode::Machine { .. } => Finding::warning(format!("{seen}, and not client_credentials")),
            _ if !has("authorization_code") => {
                Finding::warning(format!("{seen}, and not authorization_code")).advise([upstream(
                    "offer the authorization code grant, and name it in grant_types_supported",
                )])
            }
            _ if !has("refresh_token") => Finding::warning(format!(
                "{seen}, and not refresh_token: people sign in again whenever their token ends"
            ))
            .advise([upstream(
                "offer refresh tokens, and name them in grant_types_supported",
            )]),
            _ => Finding::ok(seen),
        })
    }

    pub(super) fn pkce(&self) -> Option<Finding> {
        let learned = self.learned.as_ref()?;
        let metadata = learned.found.server.as_ref()?;
        Some(match &metadata.code_challenge_methods_supported {
            Some(methods) if methods.iter().any(|method| method == "S256") => Finding::ok("S256"),
            Some(methods) => Finding::fault(format!(
                "the authorization server offers {} and not S256, which MCP clients send",
                if methods.is_empty() {
                    "nothing".to_owned()
                } else {
                    methods.join(", ")
                }
            ))
            .advise([upstream(
                "offer S256 (RFC 7636); no line of the configuration does without it",
            )]),
            // MCP clients must not go on then (MCP 2025-11-25, "Authorization Code Protection").
            None if matches!(self.mode, Mode::Brought(_)) => {
                Finding::fault("its metadata does not say that it checks PKCE, and MCP clients stop there")
                    .advise([upstream(
                        "name S256 in code_challenge_methods_supported (RFC 8414 section 2)",
                    )])
            }
            None => Finding::warning("its metadata does not say whether it checks PKCE").advise([upstream(
                "name S256 in code_challenge_methods_supported (RFC 8414 section 2)",
            )]),
        })
    }

    pub(super) fn issuer_parameter(&self) -> Option<Finding> {
        let endpoints = self.learned.as_ref()?.endpoints()?;
        Some(if endpoints.iss_promised {
            Finding::ok("the answer to a sign-in names its issuer (RFC 9207)")
        } else {
            Finding::ok("not promised (RFC 9207); it is compared when it comes")
        })
    }

    pub(super) fn scopes(&self) -> Option<Finding> {
        let learned = self.learned.as_ref()?;
        let configured: &[String] = match &self.mode {
            Mode::Machine { request, .. } => &request.grant.scopes,
            Mode::Person(sign_in) => &sign_in.scopes,
            _ => return None,
        };
        let offered: Vec<&String> = learned
            .server()
            .map_or(&[][..], |metadata| &metadata.scopes_supported)
            .iter()
            .chain(
                learned
                    .found
                    .resource
                    .iter()
                    .flat_map(|metadata| &metadata.scopes_supported),
            )
            .chain(&learned.found.challenge_scopes)
            .collect();
        let wanted = learned.wanted_scopes();
        if configured.is_empty() {
            let person = matches!(self.mode, Mode::Person(_));
            return Some(match wanted {
                [] => Finding::ok("none configured, none asked for"),
                _ if person => Finding::ok(format!(
                    "none configured; the server asks for {}",
                    wanted.join(" ")
                )),
                _ => Finding::ok(format!(
                    "none configured; the server knows {}, if the token needs one",
                    wanted.join(" ")
                )),
            });
        }
        let unknown: Vec<&str> = configured
            .iter()
            .filter(|scope| !offered.is_empty() && !offered.contains(scope))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let line = (!wanted.is_empty()).then(|| scopes_line(wanted));
            return Some(
                Finding::warning(format!(
                    "{} is not among the scopes that are offered",
                    unknown.join(" ")
                ))
                .advise(line)
                .advise([you(
                    "check the spelling; a provider need not name all of its scopes",
                )]),
            );
        }
        let missing = learned.found.challenge_scopes.iter();
        let missing: Vec<&str> = missing
            .filter(|scope| !configured.contains(scope))
            .map(String::as_str)
            .collect();
        Some(if missing.is_empty() {
            Finding::ok(configured.join(" "))
        } else {
            Finding::warning(format!(
                "the server's challenge asks for {} too",
                missing.join(" ")
            ))
            .advise([scopes_line(&both(configured, &learned.found.challenge_scopes))])
        })
    }

    pub(super) fn client_authentication(&self) -> Option<Finding> {
        let metadata = self.learned.as_ref()?.server()?;
        let configured = match &self.mode {
            Mode::Machine { request, .. } => match &request.client {
                ExchangeClient::Shared(client) => client.auth_method,
                ExchangeClient::Key(_) => return Some(with_key(metadata)),
            },
            Mode::Person(sign_in) => sign_in.client.as_ref()?.auth_method,
            _ => return None,
        };
        let name = configured.name();
        let Some(offered) = &metadata.token_endpoint_auth_methods_supported else {
            // RFC 8414 section 2: left out it means client_secret_basic.
            return Some(match configured {
                ClientAuthMethod::ClientSecretPost => Finding::ok(format!(
                    "{name}; the metadata names no method, which stands for client_secret_basic"
                )),
                _ => Finding::ok(name),
            });
        };
        if offered.iter().any(|method| method == name) {
            return Some(Finding::ok(name));
        }
        let seen = format!(
            "{name} is configured, and the authorization server takes {}",
            offered.join(", ")
        );
        Some(Finding::fault(seen).advise([method_advice(configured, offered)]))
    }
}

/// RFC 8414 section 2: methods that are left out are `client_secret_basic` alone, which few mean.
fn with_key(metadata: &AuthorizationServerMetadata) -> Finding {
    match &metadata.token_endpoint_auth_methods_supported {
        Some(offered) if !offered.iter().any(|method| method == "private_key_jwt") => {
            Finding::fault(format!(
                "private_key_jwt is configured, and the authorization server takes {}",
                offered.join(", ")
            ))
            .advise([super::advice::drop_line(
                "client_private_key",
                "and set client_secret instead",
            )])
        }
        _ => Finding::ok("private_key_jwt"),
    }
}

/// A document of the right issuer without the endpoints that sign-ins need.
fn unfit(metadata: &AuthorizationServerMetadata) -> Finding {
    let grants = metadata.grant_types_supported.as_deref().unwrap_or_default();
    let machines_only = grants.iter().any(|grant| grant == "client_credentials")
        && !grants.iter().any(|grant| grant == "authorization_code");
    if metadata.authorization_endpoint.is_none() && machines_only {
        let token_url = metadata.token_endpoint.as_ref();
        let why = "the provider has no sign-in for people, and gives tokens to machines";
        return Finding::fault(format!(
            "{}: it offers client_credentials and no sign-in",
            metadata.issuer
        ))
        .advise([line("oauth2_flow", "client_credentials", why)])
        .advise(token_url.map(|url| token_url_line(url, "its token endpoint")))
        .advise([
            line(
                "client_id",
                "os.environ/MCP_CLIENT_ID",
                "the client that the provider gave you",
            ),
            line("client_secret", "os.environ/MCP_CLIENT_SECRET", "its secret"),
        ]);
    }
    let mut missing: Vec<&str> = metadata.refused.clone();
    for (name, endpoint) in [
        ("authorization_endpoint", &metadata.authorization_endpoint),
        ("token_endpoint", &metadata.token_endpoint),
    ] {
        if endpoint.is_none() && !missing.contains(&name) {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Finding::fault(format!(
            "{}: its endpoints are not at the origin of the configured ones",
            metadata.issuer
        ))
        .advise([line(
            "issuer",
            &metadata.issuer,
            "makes its endpoints the operator's own word, if you trust it",
        )]);
    }
    let lines = missing.iter().filter_map(|name| match *name {
        "authorization_endpoint" => Some(line(
            "authorization_url",
            "https://…",
            "where people sign in, from the provider's manual",
        )),
        "token_endpoint" => Some(line("token_url", "https://…", "its token endpoint")),
        _ => None,
    });
    Finding::fault(format!(
        "{}: it has no usable {}",
        metadata.issuer,
        missing.join(", ")
    ))
    .advise(lines)
    .advise([upstream(
        "name these endpoints as https URLs without user name and fragment (RFC 8414 section 2)",
    )])
}

/// A token of an issuer that the server does not name is one that it may well refuse.
fn named_by_server(issuer: &str, learned: &Learned) -> Finding {
    let document = learned.found.resource.as_ref();
    let named = document.map(|document| document.authorization_servers.as_slice());
    let named = named.unwrap_or_default();
    // Which spelling is right was judged before.
    let same = |other: &String| other.trim_end_matches('/') == issuer.trim_end_matches('/');
    match named.first() {
        Some(first) if !named.iter().any(same) => Finding::warning(format!(
            "issuer {issuer}, and the server's metadata names {}",
            named.join(", ")
        ))
        .advise([line(
            "issuer",
            first,
            "the one whose tokens the server says it takes",
        )]),
        _ => Finding::ok(format!("issuer {issuer}")),
    }
}

/// Which method the configuration should name, of those that are offered.
fn method_advice(configured: ClientAuthMethod, offered: &[String]) -> Advice {
    let can = ["client_secret_basic", "client_secret_post"]
        .into_iter()
        .find(|method| offered.iter().any(|known| known == method));
    match can {
        Some(_) if configured == ClientAuthMethod::None => line(
            "client_secret",
            "os.environ/MCP_CLIENT_SECRET",
            "the authorization server takes no public client",
        ),
        Some(method) => method_line(method),
        None if offered.iter().any(|method| method == "none") => super::advice::drop_line(
            "client_secret",
            "the authorization server takes public clients alone",
        ),
        None => upstream("let the client prove itself with client_secret_basic or client_secret_post"),
    }
}

pub(super) fn method_line(method: &str) -> Advice {
    line(
        "token_endpoint_auth_method",
        method,
        "how the authorization server takes the client's secret",
    )
}

/// Each scope once (MCP 2026-07-28, "Scope selection": what was there and what is asked for).
fn both(configured: &[String], asked: &[String]) -> Vec<String> {
    let mut scopes = configured.to_vec();
    scopes.extend(asked.iter().filter(|scope| !configured.contains(scope)).cloned());
    scopes
}

pub(super) fn scopes_line(scopes: &[String]) -> Advice {
    list_line("scopes", scopes, "what the server asks for")
}

pub(super) fn token_url_line(url: &Url, why: &str) -> Advice {
    line("token_url", url.as_str(), why)
}

pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The endpoints that sign-ins use.
pub(super) fn endpoints_of(walk: &Walk) -> Option<Arc<UpstreamEndpoints>> {
    walk.learned.as_ref()?.endpoints().cloned().map(Arc::new)
}

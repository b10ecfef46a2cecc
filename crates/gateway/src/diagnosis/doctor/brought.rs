//! Servers that are shown the caller's own token: what they and their authorization server say of themselves, judged
//! as clients will need it, since the gateway has no part in those sign-ins. No line mends what stands there; it is the
//! server's operator who has to.

use super::Finding;
use super::advice::{line, upstream};
use super::mode::Mode;
use super::walk::Walk;
use crate::config::Passthrough;
use crate::issuer::upstream::Sought;
use crate::net::guarded::GuardedFault;
use crate::net::transport::shown;

/// What clients get where there is no metadata to copy.
const NO_COPY: &str = "the gateway then has no copy for its clients: it answers 503 metadata_unavailable, and passes \
                       the server's 401 on as it came";

impl Walk {
    /// The URL by which clients call the server here, as far as the configuration says.
    fn own_url(&self) -> String {
        let callback = self.callback();
        let base = callback.strip_suffix("/callback").unwrap_or_default();
        format!("{base}/{}/mcp", self.server.name)
    }

    /// The server's metadata, of which the gateway serves a copy. `asked` is the status without a credential.
    pub(super) fn brought_metadata(&self, asked: Option<u16>) -> Finding {
        let Some((learned, (url, _))) = self.learned.as_ref().zip(self.address.as_ref()) else {
            return Finding::skipped("nothing was learned");
        };
        let own = self.own_url();
        if let Some(document) = &learned.found.resource {
            let servers = document.authorization_servers.join(", ");
            let resource = document.resource.as_deref().unwrap_or("no resource");
            return if servers.is_empty() {
                Finding::fault(format!(
                    "{resource}, which names no authorization server; nor does the gateway's copy"
                ))
                .advise([upstream("name authorization_servers in it (RFC 9728 section 2)")])
            } else {
                Finding::ok(format!(
                    "{resource}, authorization server {servers}; the gateway's copy says resource {own}"
                ))
            };
        }
        let (seen, what) = match learned.foreign() {
            Some(document) => (
                format!(
                    "it is about {}, not about {}, so it is not used",
                    document.resource.as_deref().unwrap_or_default(),
                    shown(url)
                ),
                format!(
                    "serve metadata whose resource is {} (RFC 9728 section 3.3)",
                    shown(url)
                ),
            ),
            None => (
                "none".to_owned(),
                "serve protected resource metadata (RFC 9728)".to_owned(),
            ),
        };
        if let Some(server) = &learned.found.server {
            return Finding::warning(format!(
                "{seen}; the gateway's copy says resource {own} and authorization server {}, which is the server's own \
                 origin (MCP 2025-03-26)",
                server.issuer
            ))
            .advise([upstream(what)]);
        }
        if asked == Some(401) {
            Finding::fault(format!("{seen}; {NO_COPY}")).advise([upstream(what)])
        } else {
            Finding::ok(format!("{seen}; the server asks for no credential"))
        }
    }

    /// The authorization server's metadata, which clients read themselves.
    pub(super) fn brought_server(&self) -> Option<Finding> {
        let learned = self.learned.as_ref()?;
        if let (Some(server), Some(_)) = (&learned.found.server, learned.endpoints()) {
            return Some(Finding::ok(format!("issuer {}", server.issuer)));
        }
        if let Some(other) = learned.other_issuer() {
            return Some(
                Finding::fault(format!(
                    "its metadata is of the issuer {}, and another one was asked for; clients compare the two letter by \
                     letter",
                    other.issuer
                ))
                .advise([upstream(
                    "name the same issuer in the server's metadata and in the authorization server's (RFC 8414 section 3.3)",
                )]),
            );
        }
        if let Some(server) = learned.server() {
            return Some(
                Finding::fault(format!(
                    "{}: it has no usable authorization_endpoint and token_endpoint",
                    server.issuer
                ))
                .advise([upstream("name these endpoints in it (RFC 8414 section 2)")]),
            );
        }
        let kept_out = GuardedFault::NotAllowed.to_string();
        let tried = learned.tried(Sought::AuthorizationServer);
        if tried.iter().any(|text| text.ends_with(&kept_out)) {
            return Some(Finding::warning(
                "it is deeper in the network than the server, so it was not looked at; clients ask it themselves",
            ));
        }
        let named = learned.found.resource.is_some();
        let wanted = self.unasked.as_ref().is_some_and(|unasked| unasked.status == 401);
        (named || wanted).then(|| {
            Finding::fault("no metadata of an authorization server was found, so clients cannot sign in")
                .advise([upstream("serve authorization server metadata (RFC 8414)")])
        })
    }

    /// How clients get a `client_id` there.
    pub(super) fn clients_own_registration(&self) -> Option<Finding> {
        let Mode::Brought(mode) = self.mode else {
            return None;
        };
        let server = self.learned.as_ref()?.found.server.as_ref()?;
        let documents = server.client_id_metadata_document_supported;
        Some(match &server.registration_endpoint {
            Some(url) if documents => Finding::ok(format!(
                "clients register at {}, or name a metadata document of theirs",
                shown(url)
            )),
            Some(url) => Finding::ok(format!("clients register at {}", shown(url))),
            None if documents => Finding::ok("clients name a metadata document of theirs as client_id"),
            None => {
                let finding = Finding::warning(
                    "the authorization server registers no clients and takes no client id metadata documents: only \
                     clients that were registered there by hand can sign in",
                );
                let bridged = matches!(mode, Passthrough::TruePassthrough | Passthrough::OAuthDelegate);
                let lines = bridged.then(|| {
                    [
                        line(
                            "dcr_bridge",
                            "true",
                            "clients then sign in through the gateway, as one client",
                        ),
                        line(
                            "client_id",
                            "os.environ/MCP_CLIENT_ID",
                            "that client, registered by hand at the provider",
                        ),
                        line(
                            "client_secret",
                            "os.environ/MCP_CLIENT_SECRET",
                            "its secret, if it has one",
                        ),
                    ]
                });
                finding.advise(lines.into_iter().flatten()).advise([upstream(
                    "let clients register (RFC 7591), or take client id metadata documents",
                )])
            }
        })
    }
}

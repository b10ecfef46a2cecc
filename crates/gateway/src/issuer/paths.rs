//! Which OAuth document or endpoint a path means, for which server, in which spelling. The one reader of these
//! paths, as [`crate::http::relay::target`] is of the MCP endpoints'. Nothing is decoded: no other spelling of
//! a name is the name.

use crate::http::relay::target::{self, Target};

/// A metadata document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// RFC 9728.
    ProtectedResource,
    /// RFC 8414, also under the name that `OpenID` Connect Discovery gives it.
    AuthorizationServer,
}

/// An endpoint of the authorization server that we are toward clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// RFC 6749 section 3.1.
    Authorize,
    /// RFC 6749 section 3.2.
    Token,
    /// RFC 7591 section 3.
    Register,
}

/// Whom an identifier names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'p> {
    /// The server with this name or alias.
    Name(&'p str),
    /// The server with this id.
    Id(&'p str),
    /// The only server with metadata of its own, if there is one alone.
    TheOnlyOne,
}

/// The identifier under which a server is spoken to: the path behind the public origin, and whom it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'p> {
    /// As written, without a slash at the end unless the client wrote one; empty for the root.
    pub path: &'p str,
    /// Whom it names.
    pub named: Named<'p>,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'p> {
    /// A metadata document about what the identifier names.
    Metadata(Document, Identifier<'p>),
    /// An endpoint below an identifier.
    Endpoint(Endpoint, Identifier<'p>),
    /// An endpoint for people's own keys, where the request names the server.
    OwnKeys(Endpoint),
    /// `/callback`, where authorization servers send people back to.
    Callback,
}

const DOCUMENTS: [(&str, Document); 3] = [
    ("oauth-protected-resource", Document::ProtectedResource),
    ("oauth-authorization-server", Document::AuthorizationServer),
    ("openid-configuration", Document::AuthorizationServer),
];

const ENDPOINTS: [(&str, Endpoint); 3] = [
    ("/authorize", Endpoint::Authorize),
    ("/token", Endpoint::Token),
    ("/register", Endpoint::Register),
];

/// LiteLLM's addresses of the endpoints for people's own keys.
const OWN_KEYS: [(&str, Endpoint); 2] = [
    ("/v1/mcp/oauth/authorize", Endpoint::Authorize),
    ("/v1/mcp/oauth/token", Endpoint::Token),
];

/// LiteLLM's management route to the same endpoints, by server id.
const BY_ID: &str = "/v1/mcp/server/oauth/";

/// Reads a path. `None` when it is none of these.
pub fn of(path: &str) -> Option<Route<'_>> {
    if path == "/callback" {
        return Some(Route::Callback);
    }
    if let Some((_, endpoint)) = OWN_KEYS.iter().find(|(known, _)| *known == path) {
        return Some(Route::OwnKeys(*endpoint));
    }
    if let Some(found) = metadata(path) {
        return Some(found);
    }
    let (identifier, endpoint) = ENDPOINTS
        .iter()
        .find_map(|(suffix, endpoint)| path.strip_suffix(suffix).map(|rest| (rest, *endpoint)))?;
    if let Some(id) = identifier.strip_prefix(BY_ID) {
        let named = Named::Id(segment(id)?);
        return Some(Route::Endpoint(endpoint, Identifier { path: "", named }));
    }
    Some(Route::Endpoint(endpoint, issuer(identifier)?))
}

/// Whether a path is one where people authorize a client.
pub fn is_authorize(path: &str) -> bool {
    matches!(
        of(path),
        Some(Route::Endpoint(Endpoint::Authorize, _) | Route::OwnKeys(Endpoint::Authorize))
    )
}

/// `/.well-known/{document}{identifier}` (RFC 8414 section 3, RFC 9728 section 3.1), and
/// `{identifier}/.well-known/{document}` (`OpenID` Connect Discovery 1.0 section 4).
fn metadata(path: &str) -> Option<Route<'_>> {
    const WELL_KNOWN: &str = "/.well-known/";
    let (before, after) = path.split_once(WELL_KNOWN)?;
    let (document, identifier) = DOCUMENTS.iter().find_map(|(name, document)| {
        let behind = after.strip_prefix(name)?;
        match (before, behind) {
            ("", behind) if behind.is_empty() || behind.starts_with('/') => Some((*document, behind)),
            (before, "") => Some((*document, before)),
            _ => None,
        }
    })?;
    let identifier = match document {
        Document::ProtectedResource => resource(identifier)?,
        Document::AuthorizationServer => issuer(identifier)?,
    };
    Some(Route::Metadata(document, identifier))
}

/// Whether a path names a metadata document of anything, readable or not: clients look in several places, and that
/// nothing is in one of them is public too.
pub fn names_document(path: &str) -> bool {
    path.split("/.well-known/").skip(1).any(|after| {
        let name = after.split('/').next().unwrap_or_default();
        DOCUMENTS.iter().any(|(document, _)| *document == name)
    })
}

/// The path of an MCP endpoint, in any of its spellings, or the root.
fn resource(path: &str) -> Option<Identifier<'_>> {
    let named = match target::of(path) {
        Target::Server(name) => Named::Name(name),
        _ if matches!(path, "" | "/") => {
            return Some(Identifier {
                path: "",
                named: Named::TheOnlyOne,
            });
        }
        _ => return None,
    };
    Some(Identifier { path, named })
}

/// The path of an issuer identifier: `/{server}`, or the path of its MCP endpoint, or the root.
fn issuer(path: &str) -> Option<Identifier<'_>> {
    if path.is_empty() {
        return Some(Identifier {
            path,
            named: Named::TheOnlyOne,
        });
    }
    if path.ends_with('/') {
        return None;
    }
    let named = match target::of(path) {
        Target::Server(name) => name,
        _ => segment(path.strip_prefix('/')?)?,
    };
    Some(Identifier {
        path,
        named: Named::Name(named),
    })
}

fn segment(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_wherever_they_stand() {
        for document in [
            "oauth-protected-resource",
            "oauth-authorization-server",
            "openid-configuration",
        ] {
            for path in [
                format!("/.well-known/{document}"),
                format!("/.well-known/{document}/"),
                format!("/.well-known/{document}/a/b/mcp"),
                format!("/a/.well-known/{document}/"),
                format!("/a/b/c/.well-known/{document}"),
                format!("/a/.well-known/{document}/mcp"),
                format!("/.well-known/x/.well-known/{document}"),
                format!("/toolset/x/.well-known/{document}"),
            ] {
                assert!(names_document(&path), "{path}");
            }
            for path in [
                format!("/{document}/mcp"),
                format!("/.well-known/{document}-evil"),
                format!("/x.well-known/{document}"),
                format!("/.well-known/x/{document}"),
            ] {
                assert!(!names_document(&path), "{path}");
            }
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn spellings() {
        use Document::{AuthorizationServer as Issuer, ProtectedResource as Resource};
        let metadata = |document, path, name| {
            Some(Route::Metadata(
                document,
                Identifier {
                    path,
                    named: Named::Name(name),
                },
            ))
        };
        let root = |document| {
            Some(Route::Metadata(
                document,
                Identifier {
                    path: "",
                    named: Named::TheOnlyOne,
                },
            ))
        };
        let endpoint = |endpoint, path, name| {
            Some(Route::Endpoint(
                endpoint,
                Identifier {
                    path,
                    named: Named::Name(name),
                },
            ))
        };
        for (path, expected) in [
            ("/callback", Some(Route::Callback)),
            ("/callback/", None),
            // RFC 9728: inserted, appended, root.
            (
                "/.well-known/oauth-protected-resource/a/mcp",
                metadata(Resource, "/a/mcp", "a"),
            ),
            (
                "/.well-known/oauth-protected-resource/a/mcp/",
                metadata(Resource, "/a/mcp/", "a"),
            ),
            (
                "/.well-known/oauth-protected-resource/mcp/a",
                metadata(Resource, "/mcp/a", "a"),
            ),
            (
                "/a/mcp/.well-known/oauth-protected-resource",
                metadata(Resource, "/a/mcp", "a"),
            ),
            (
                "/mcp/a/.well-known/oauth-protected-resource",
                metadata(Resource, "/mcp/a", "a"),
            ),
            ("/.well-known/oauth-protected-resource", root(Resource)),
            ("/.well-known/oauth-protected-resource/a", None),
            ("/.well-known/oauth-protected-resource/mcp", None),
            // RFC 8414 and OpenID: inserted, appended, root.
            (
                "/.well-known/oauth-authorization-server/a",
                metadata(Issuer, "/a", "a"),
            ),
            (
                "/.well-known/oauth-authorization-server/a/mcp",
                metadata(Issuer, "/a/mcp", "a"),
            ),
            (
                "/.well-known/oauth-authorization-server/mcp/a",
                metadata(Issuer, "/mcp/a", "a"),
            ),
            (
                "/a/.well-known/oauth-authorization-server",
                metadata(Issuer, "/a", "a"),
            ),
            ("/.well-known/openid-configuration/a", metadata(Issuer, "/a", "a")),
            ("/a/.well-known/openid-configuration", metadata(Issuer, "/a", "a")),
            (
                "/a/mcp/.well-known/openid-configuration",
                metadata(Issuer, "/a/mcp", "a"),
            ),
            ("/.well-known/oauth-authorization-server", root(Issuer)),
            ("/.well-known/openid-configuration", root(Issuer)),
            ("/.well-known/oauth-authorization-server/a/", None),
            ("/.well-known/oauth-authorization-server-evil", None),
            ("/.well-known/oauth-authorization-serverx/a", None),
            ("/.well-known/smuggled", None),
            ("/x/.well-known/oauth-authorization-server/y", None),
            ("/.well-known/oauth-authorization-server/a/b", None),
            // Endpoints.
            ("/a/authorize", endpoint(Endpoint::Authorize, "/a", "a")),
            ("/a/mcp/authorize", endpoint(Endpoint::Authorize, "/a/mcp", "a")),
            ("/mcp/a/token", endpoint(Endpoint::Token, "/mcp/a", "a")),
            ("/a/register", endpoint(Endpoint::Register, "/a", "a")),
            (
                "/authorize",
                Some(Route::Endpoint(
                    Endpoint::Authorize,
                    Identifier {
                        path: "",
                        named: Named::TheOnlyOne,
                    },
                )),
            ),
            (
                "/v1/mcp/server/oauth/0123/token",
                Some(Route::Endpoint(
                    Endpoint::Token,
                    Identifier {
                        path: "",
                        named: Named::Id("0123"),
                    },
                )),
            ),
            ("/v1/mcp/server/oauth//token", None),
            ("/v1/mcp/server/oauth/a/b/token", None),
            ("/a/b/authorize", None),
            ("//authorize", None),
            ("/a/mcp", None),
            ("/a/authorize/", None),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }
}

//! Metadata documents: those of a server or its authorization server, read with caution (RFC 9728, RFC 8414,
//! OIDC Discovery), where they are looked for, and the two that we publish.
//!
//! An issuer and a resource are opaque: they are compared and kept byte by byte, and never pass through a
//! URL type, which would turn `https://h` into `https://h/`.

use crate::challenge::bearer_challenges;
use crate::token_request::is_scope_token;
use serde_json::{Map, Value, json};
use url::Url;

/// The longest identifier or URL that is read, in bytes.
const TEXT_LIMIT: usize = 2048;
/// The longest list that is read; what follows is left out.
const LIST_LIMIT: usize = 256;

/// Why a document is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFault {
    /// Not a JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// The member that says whom the document is about is missing or unusable.
    #[error("it has no usable {0}")]
    Missing(&'static str),
}

/// What a server says about itself (RFC 9728 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProtectedResourceMetadata {
    /// `resource`, as written.
    pub resource: Option<String>,
    /// `authorization_servers`: issuers, as written, in their order.
    pub authorization_servers: Vec<String>,
    /// `scopes_supported`.
    pub scopes_supported: Vec<String>,
}

/// What an authorization server says about itself (RFC 8414 section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationServerMetadata {
    /// `issuer`, as written.
    pub issuer: String,
    /// `authorization_endpoint`.
    pub authorization_endpoint: Option<Url>,
    /// `token_endpoint`.
    pub token_endpoint: Option<Url>,
    /// `registration_endpoint` (RFC 7591).
    pub registration_endpoint: Option<Url>,
    /// `revocation_endpoint` (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// `jwks_uri`.
    pub jwks_uri: Option<Url>,
    /// `scopes_supported`.
    pub scopes_supported: Vec<String>,
    /// `grant_types_supported`; absent means `authorization_code` and `implicit`.
    pub grant_types_supported: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`; absent means `client_secret_basic`.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// `code_challenge_methods_supported`.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// `authorization_response_iss_parameter_supported` (RFC 9207).
    pub authorization_response_iss_parameter_supported: bool,
    /// `client_id_metadata_document_supported`.
    pub client_id_metadata_document_supported: bool,
    /// Endpoints that were there and are not usable: no http or https URL, or one with a user name, a
    /// password or a fragment.
    pub refused: Vec<&'static str>,
}

impl ProtectedResourceMetadata {
    /// Reads a document. A member of the wrong type is one that is not there.
    pub fn parse(body: &[u8]) -> Result<Self, MetadataFault> {
        let document = object(body)?;
        Ok(Self {
            resource: text(&document, "resource").map(str::to_owned),
            authorization_servers: texts(&document, "authorization_servers")
                .unwrap_or_default()
                .into_iter()
                .filter(|issuer| split_identifier(issuer).is_some())
                .collect(),
            scopes_supported: scopes(&document),
        })
    }

    /// Whether the document speaks for the server at `url`: `resource` is that URL or a parent of it at the
    /// same origin. A document without `resource` contradicts nobody.
    pub fn speaks_for(&self, url: &Url) -> bool {
        let Some(resource) = &self.resource else {
            return true;
        };
        if resource == url.as_str() {
            return true;
        }
        let Ok(resource) = Url::parse(resource) else {
            return false;
        };
        let parent = resource.path().trim_end_matches('/');
        resource.origin() == url.origin()
            && resource.query().is_none_or(|query| Some(query) == url.query())
            && url
                .path()
                .strip_prefix(parent)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A server's metadata (RFC 9728 section 2) with every member that it has, to be told to its clients by somebody that
/// stands between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceDocument(Map<String, Value>);

impl ResourceDocument {
    /// Reads a document. Of `authorization_servers` those stay that can be issuers, as written.
    pub fn parse(body: &[u8]) -> Result<Self, MetadataFault> {
        let servers = ProtectedResourceMetadata::parse(body)?.authorization_servers;
        let mut document = object(body)?;
        document.insert("authorization_servers".into(), servers.into());
        Ok(Self(document))
    }

    /// Of a server that says nothing itself and has this authorization server.
    pub fn of_issuer(issuer: &str) -> Self {
        let servers = json!([issuer]);
        Self(Map::from_iter([("authorization_servers".to_owned(), servers)]))
    }

    /// The document about `resource`, the URL by which the clients call the server. `signed_metadata` is left out: it
    /// would count before the other members, and is about another URL.
    pub fn about(&self, resource: &str) -> Value {
        let mut document = self.0.clone();
        document.remove("signed_metadata");
        document.insert("resource".into(), resource.into());
        Value::Object(document)
    }
}

impl AuthorizationServerMetadata {
    /// Reads a document. A member of the wrong type is one that is not there, except `issuer`, without which
    /// a document is about nobody.
    pub fn parse(body: &[u8]) -> Result<Self, MetadataFault> {
        let document = object(body)?;
        let issuer = text(&document, "issuer").ok_or(MetadataFault::Missing("issuer"))?;
        let mut refused = Vec::new();
        let mut endpoint = |name| {
            let value = document.get(name).filter(|value| !value.is_null())?;
            let url = value.as_str().and_then(endpoint_url);
            if url.is_none() {
                refused.push(name);
            }
            url
        };
        let flag = |name| document.get(name).and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: endpoint("authorization_endpoint"),
            token_endpoint: endpoint("token_endpoint"),
            registration_endpoint: endpoint("registration_endpoint"),
            revocation_endpoint: endpoint("revocation_endpoint"),
            jwks_uri: endpoint("jwks_uri"),
            scopes_supported: scopes(&document),
            grant_types_supported: texts(&document, "grant_types_supported"),
            token_endpoint_auth_methods_supported: texts(&document, "token_endpoint_auth_methods_supported"),
            code_challenge_methods_supported: texts(&document, "code_challenge_methods_supported"),
            authorization_response_iss_parameter_supported: flag(
                "authorization_response_iss_parameter_supported",
            ),
            client_id_metadata_document_supported: flag("client_id_metadata_document_supported"),
            refused,
        })
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, MetadataFault> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(document)) => Ok(document),
        _ => Err(MetadataFault::NotAnObject),
    }
}

fn usable(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_LIMIT && !text.chars().any(char::is_control)
}

fn text<'d>(document: &'d Map<String, Value>, name: &str) -> Option<&'d str> {
    document.get(name)?.as_str().filter(|text| usable(text))
}

fn texts(document: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let texts = document.get(name)?.as_array()?.iter().filter_map(Value::as_str);
    Some(
        texts
            .filter(|text| usable(text))
            .take(LIST_LIMIT)
            .map(str::to_owned)
            .collect(),
    )
}

fn scopes(document: &Map<String, Value>) -> Vec<String> {
    let mut scopes = texts(document, "scopes_supported").unwrap_or_default();
    scopes.retain(|scope| is_scope_token(scope));
    scopes
}

/// An endpoint that may be used: absolute, http or https, without user name, password and fragment. Anything
/// else could run in a browser or be read in two ways.
pub fn endpoint_url(text: &str) -> Option<Url> {
    // The URL standard drops tabs, line breaks and outer blanks and reads `\` as `/`; a metadata document
    // that needs this is not one to trust.
    if !usable(text) || text.contains(|c: char| c.is_whitespace() || c == '\\') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// Splits an http or https identifier into its origin and its path, both as written. `None` for anything that
/// has a query, a fragment, a user name or a character that no URL has (RFC 8414 section 2).
fn split_identifier(identifier: &str) -> Option<(&str, &str)> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        let (head, rest) = identifier.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    let strange = |b: u8| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'\\' | b'"' | b'<' | b'>');
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty()
        || authority.contains('@')
        || rest.bytes().any(strange)
        || identifier.len() > TEXT_LIMIT
    {
        return None;
    }
    let origin = identifier.len() - rest.len() + authority.len();
    Some(identifier.split_at(origin))
}

/// Where the metadata of the server at `resource` may be: at its path, then at the root of its origin (RFC 9728
/// section 3.1). Empty when `resource` is no http or https URL.
pub fn protected_resource_candidates(resource: &Url) -> Vec<String> {
    let origin = resource.origin();
    if !origin.is_tuple() {
        return Vec::new();
    }
    let root = format!(
        "{}/.well-known/oauth-protected-resource",
        origin.ascii_serialization()
    );
    let path = resource.path();
    let query = resource.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut candidates = Vec::new();
    if path != "/" || !query.is_empty() {
        let path = if path == "/" { "" } else { path };
        candidates.push(format!("{root}{path}{query}"));
        let trimmed = path.trim_end_matches('/');
        if trimmed != path && !trimmed.is_empty() {
            candidates.push(format!("{root}{trimmed}{query}"));
        }
    }
    candidates.push(root);
    candidates
}

/// Where the metadata of `issuer` may be, best first: RFC 8414 and OIDC with the well-known part inserted
/// before the path, OIDC with it appended, then both at the root. Empty when `issuer` cannot be one.
pub fn authorization_server_candidates(issuer: &str) -> Vec<String> {
    let Some((origin, path)) = split_identifier(issuer) else {
        return Vec::new();
    };
    let path = path.trim_end_matches('/');
    let mut candidates = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        candidates.extend([
            format!("{origin}{path}/.well-known/openid-configuration"),
            format!("{origin}/.well-known/oauth-authorization-server"),
            format!("{origin}/.well-known/openid-configuration"),
        ]);
    }
    candidates
}

/// What a 401 tells about the way to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChallengeHints {
    /// `resource_metadata` (RFC 9728 section 5.1).
    pub resource_metadata: Option<Url>,
    /// `scope` (RFC 6750 section 3), one by one.
    pub scopes: Vec<String>,
}

impl ChallengeHints {
    /// Reads every `WWW-Authenticate` value. Of several Bearer challenges the first that says something counts,
    /// each parameter on its own.
    pub fn parse<'h>(headers: impl IntoIterator<Item = &'h str>) -> Self {
        let mut hints = Self::default();
        for challenge in bearer_challenges(headers) {
            if hints.resource_metadata.is_none() {
                hints.resource_metadata = challenge.resource_metadata.as_deref().and_then(endpoint_url);
            }
            if hints.scopes.is_empty() {
                let scopes = challenge.scope.unwrap_or_default();
                let scopes = scopes.split(' ').filter(|scope| is_scope_token(scope));
                hints.scopes = scopes.take(LIST_LIMIT).map(str::to_owned).collect();
            }
        }
        hints
    }
}

/// Our metadata of a protected resource. `resource` is exactly the URL that the client uses, and
/// `authorization_server` exactly the issuer of the other document. Without scopes nothing is said of them (RFC 9728
/// section 3.2).
pub fn protected_resource_document(resource: &str, authorization_server: &str, scopes: &[String]) -> Value {
    let mut document = json!({
        "resource": resource,
        "authorization_servers": [authorization_server],
    });
    if !scopes.is_empty() {
        document["scopes_supported"] = json!(scopes);
    }
    document["bearer_methods_supported"] = json!(["header"]);
    document
}

/// Our endpoints as an authorization server.
#[derive(Debug, Clone, Copy)]
pub struct OwnEndpoints<'a> {
    /// `authorization_endpoint`.
    pub authorization: &'a str,
    /// `token_endpoint`.
    pub token: &'a str,
    /// `registration_endpoint`.
    pub registration: &'a str,
    /// `revocation_endpoint`, where there is one.
    pub revocation: Option<&'a str>,
}

/// Our metadata as an authorization server; the same for RFC 8414 and OIDC. `issuer` is exactly the identifier
/// that the document's URL was built from, and what `iss` says at the redirect (RFC 9207). Without scopes the list is empty,
/// though RFC 8414 section 3.2 would leave it out: mcp-remote asks for scopes of its own where there is no list.
pub fn authorization_server_document(issuer: &str, endpoints: &OwnEndpoints<'_>, scopes: &[String]) -> Value {
    let methods = ["client_secret_post", "client_secret_basic", "none"];
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": endpoints.authorization,
        "token_endpoint": endpoints.token,
        "registration_endpoint": endpoints.registration,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": scopes,
    });
    if let Some(revocation) = endpoints.revocation {
        document["revocation_endpoint"] = revocation.into();
        document["revocation_endpoint_auth_methods_supported"] = json!(methods);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_that_is_passed_on_is_about_our_url() {
        let body = json!({
            "resource": "https://up/mcp",
            "authorization_servers": ["https://as", "https://as/", "javascript:alert(1)", 7],
            "scopes_supported": ["r"],
            "resource_name": "Up",
            "signed_metadata": "a.b.c",
        });
        let document = ResourceDocument::parse(body.to_string().as_bytes()).expect("a document");
        let expected = json!({
            "resource": "https://gw/up/mcp",
            "authorization_servers": ["https://as", "https://as/"],
            "scopes_supported": ["r"],
            "resource_name": "Up",
        });
        assert_eq!(document.about("https://gw/up/mcp"), expected);
        assert_eq!(
            ResourceDocument::of_issuer("https://as").about("https://gw/x"),
            json!({"resource": "https://gw/x", "authorization_servers": ["https://as"]})
        );
        assert!(ResourceDocument::parse(b"[]").is_err());
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect("url")
    }

    #[test]
    fn where_an_authorization_server_is_looked_for() {
        let cases: [(&str, &[&str]); 8] = [
            (
                "https://h",
                &[
                    "https://h/.well-known/oauth-authorization-server",
                    "https://h/.well-known/openid-configuration",
                ],
            ),
            (
                "https://h/",
                &[
                    "https://h/.well-known/oauth-authorization-server",
                    "https://h/.well-known/openid-configuration",
                ],
            ),
            (
                "https://H:8443/realms/a%2Fb/",
                &[
                    "https://H:8443/.well-known/oauth-authorization-server/realms/a%2Fb",
                    "https://H:8443/.well-known/openid-configuration/realms/a%2Fb",
                    "https://H:8443/realms/a%2Fb/.well-known/openid-configuration",
                    "https://H:8443/.well-known/oauth-authorization-server",
                    "https://H:8443/.well-known/openid-configuration",
                ],
            ),
            ("https://h/a?b", &[]),
            ("https://h/a#b", &[]),
            ("https://u@h/a", &[]),
            ("javascript://h/%0aalert(1)", &[]),
            ("https:///path", &[]),
        ];
        for (issuer, expected) in cases {
            assert_eq!(authorization_server_candidates(issuer), expected, "{issuer}");
        }
    }

    #[test]
    fn where_a_resource_is_looked_for() {
        let well_known = "https://h/.well-known/oauth-protected-resource";
        let cases: [(&str, &[&str]); 5] = [
            ("https://h", &[""]),
            ("https://h/", &[""]),
            ("https://h/a/mcp", &["/a/mcp", ""]),
            ("https://h/a/mcp/", &["/a/mcp/", "/a/mcp", ""]),
            ("https://h/mcp?team=1", &["/mcp?team=1", ""]),
        ];
        for (resource, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|end| format!("{well_known}{end}")).collect();
            assert_eq!(
                protected_resource_candidates(&url(resource)),
                expected,
                "{resource}"
            );
        }
        assert!(protected_resource_candidates(&url("data:text/plain,x")).is_empty());
    }

    #[test]
    fn whom_a_resource_document_speaks_for() {
        let cases = [
            (Some("https://h/mcp"), "https://h/mcp", true),
            (Some("https://h/mcp/"), "https://h/mcp", true),
            (Some("https://h/mcp"), "https://h/mcp/", true),
            (Some("https://h"), "https://h/a/mcp", true),
            (Some("https://h:443/a"), "https://h/a/mcp", true),
            (None, "https://h/mcp", true),
            (Some("https://h/mc"), "https://h/mcp", false),
            (Some("https://h/mcp/x"), "https://h/mcp", false),
            (Some("https://other/mcp"), "https://h/mcp", false),
            (Some("http://h/mcp"), "https://h/mcp", false),
            (Some("mcp"), "https://h/mcp", false),
        ];
        for (resource, server, expected) in cases {
            let document = ProtectedResourceMetadata {
                resource: resource.map(str::to_owned),
                ..Default::default()
            };
            assert_eq!(
                document.speaks_for(&url(server)),
                expected,
                "{resource:?} {server}"
            );
        }
    }

    #[test]
    fn only_web_addresses_are_endpoints() {
        for good in ["https://h/authorize?x=1", "http://127.0.0.1:8/t", "https://h"] {
            assert!(endpoint_url(good).is_some(), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "//h/a",
            "/a",
            "",
            "https://u:p@h/",
            "https://h/#f",
            "https://h\\@x/",
            " https://h/",
            "https://h/\t",
            "java\nscript:x",
        ] {
            assert!(endpoint_url(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_authorization_server_document_is_read_with_tolerance() {
        let body = json!({
            "issuer": "https://h",
            "authorization_endpoint": "javascript:alert(1)",
            "token_endpoint": "https://h/token",
            "registration_endpoint": 7,
            "revocation_endpoint": null,
            "scopes_supported": ["a", 1, "b c", "d"],
            "code_challenge_methods_supported": "S256",
            "token_endpoint_auth_methods_supported": ["none", null],
            "authorization_response_iss_parameter_supported": "true",
            "client_id_metadata_document_supported": true,
            "x": {"y": []},
        });
        let read = AuthorizationServerMetadata::parse(body.to_string().as_bytes()).expect("usable");
        assert_eq!(read.issuer, "https://h");
        assert_eq!(read.authorization_endpoint, None);
        assert_eq!(read.token_endpoint, Some(url("https://h/token")));
        assert_eq!(read.refused, ["authorization_endpoint", "registration_endpoint"]);
        assert_eq!(read.scopes_supported, ["a", "d"]);
        assert_eq!(read.code_challenge_methods_supported, None);
        assert_eq!(
            read.token_endpoint_auth_methods_supported,
            Some(vec!["none".into()])
        );
        assert!(!read.authorization_response_iss_parameter_supported);
        assert!(read.client_id_metadata_document_supported);
    }

    #[test]
    fn unusable_documents() {
        for (body, fault) in [
            ("{}", MetadataFault::Missing("issuer")),
            (r#"{"issuer":""}"#, MetadataFault::Missing("issuer")),
            (r#"{"issuer":["https://h"]}"#, MetadataFault::Missing("issuer")),
            ("[]", MetadataFault::NotAnObject),
            ("<html>", MetadataFault::NotAnObject),
            ("", MetadataFault::NotAnObject),
        ] {
            assert_eq!(
                AuthorizationServerMetadata::parse(body.as_bytes()),
                Err(fault),
                "{body}"
            );
        }
        let deep = "[".repeat(100_000);
        assert_eq!(
            ProtectedResourceMetadata::parse(deep.as_bytes()),
            Err(MetadataFault::NotAnObject)
        );
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<_> = (0..10_000).map(|n| format!("https://h/{n}")).collect();
        let body = json!({"authorization_servers": many, "resource": "x".repeat(TEXT_LIMIT + 1)});
        let read = ProtectedResourceMetadata::parse(body.to_string().as_bytes()).expect("usable");
        assert_eq!(read.authorization_servers.len(), LIST_LIMIT);
        assert_eq!(read.resource, None);
    }

    #[test]
    fn hints_of_a_challenge() {
        let hints = |headers: &[&str]| ChallengeHints::parse(headers.iter().copied());
        let metadata = "https://h/.well-known/oauth-protected-resource/mcp";
        let expected = ChallengeHints {
            resource_metadata: Some(url(metadata)),
            scopes: vec!["a".into(), "b".into()],
        };
        for header in [
            format!(r#"Bearer resource_metadata="{metadata}", scope="a b""#),
            format!(r#"bearer realm="x, y=\"z\"" , scope = "a b",resource_metadata={metadata}"#),
            format!(r#"Basic realm="x", Bearer scope="a b", resource_metadata="{metadata}""#),
            // Servers forget commas.
            format!(r#"Bearer realm="x" resource_metadata="{metadata}" scope="a b""#),
            format!(r#"Bearer, Bearer error="invalid_token", scope="a  b", resource_metadata="{metadata}""#),
        ] {
            assert_eq!(hints(&[&header]), expected, "{header}");
        }
        assert_eq!(
            hints(&[
                "Bearer scope=\"a b\"",
                &format!("Bearer resource_metadata=\"{metadata}\"")
            ]),
            expected
        );
        for nothing in [
            "",
            "Bearer",
            "Basic scope=\"a\"",
            "Bearer resource_metadata=\"javascript:x\"",
            "Bearer resource_metadata=\"/relative\"",
            "DPoP scope=\"a\", resource_metadata=\"https://h/\"",
        ] {
            assert_eq!(hints(&[nothing]), ChallengeHints::default(), "{nothing}");
        }
    }

    #[test]
    fn our_documents() {
        let scopes = ["a".to_owned()];
        assert_eq!(
            protected_resource_document("https://g/s/mcp", "https://g/s", &scopes).to_string(),
            r#"{"resource":"https://g/s/mcp","authorization_servers":["https://g/s"],"scopes_supported":["a"],"bearer_methods_supported":["header"]}"#
        );
        let document = protected_resource_document("https://g/s/mcp", "https://g/s", &[]);
        assert_eq!(document.get("scopes_supported"), None);
        let endpoints = OwnEndpoints {
            authorization: "https://g/s/authorize",
            token: "https://g/s/token",
            registration: "https://g/s/register",
            revocation: None,
        };
        let document = authorization_server_document("https://g/s", &endpoints, &[]);
        assert_eq!(document["scopes_supported"], json!([]));
        assert_eq!(document.get("revocation_endpoint"), None);
        let read = AuthorizationServerMetadata::parse(document.to_string().as_bytes()).expect("usable");
        assert_eq!(read.issuer, "https://g/s");
        assert!(read.authorization_response_iss_parameter_supported);
        assert_eq!(read.code_challenge_methods_supported, Some(vec!["S256".into()]));
        assert_eq!(
            read.token_endpoint_auth_methods_supported.expect("methods").len(),
            3
        );
        let revoking = OwnEndpoints {
            revocation: Some("https://g/s/revoke"),
            ..endpoints
        };
        let document = authorization_server_document("https://g/s", &revoking, &[]);
        assert_eq!(document["revocation_endpoint"], "https://g/s/revoke");
    }

    proptest! {
        #[test]
        fn no_input_panics(body in any::<Vec<u8>>(), header in "\\PC*", issuer in "\\PC*") {
            let _ = AuthorizationServerMetadata::parse(&body);
            let _ = ProtectedResourceMetadata::parse(&body);
            let _ = ChallengeHints::parse([header.as_str(), issuer.as_str()]);
            let _ = authorization_server_candidates(&issuer);
            let _ = authorization_server_candidates(&format!("https://{issuer}"));
        }

        #[test]
        fn an_identifier_keeps_its_bytes(path in "(/[a-zA-Z0-9._~%-]{0,8}){0,4}") {
            let issuer = format!("https://h.example{path}");
            let document = json!({"issuer": issuer, "authorization_servers": [issuer]}).to_string();
            let server = AuthorizationServerMetadata::parse(document.as_bytes()).expect("usable");
            prop_assert_eq!(&server.issuer, &issuer);
            let resource = ProtectedResourceMetadata::parse(document.as_bytes()).expect("usable");
            prop_assert_eq!(&resource.authorization_servers, &vec![issuer]);
        }
    }
}

//! What clients read before they sign in: RFC 9728 about an MCP endpoint, RFC 8414 about the authorization server
//! that we are for it. Made from the request and the configuration alone: no provider is asked.

use super::Asked;
use super::paths::Document;
use crate::web::body::Body;
use crate::web::json;
use http::{Response, StatusCode};
use vestibule_oauth::metadata::{OwnEndpoints, authorization_server_document, protected_resource_document};

/// The document about what the identifier names.
pub(super) fn document(asked: &Asked<'_>, document: Document) -> Response<Body> {
    let scopes = &asked.sign_in.scopes;
    let document = match document {
        Document::ProtectedResource => {
            let path = asked.identifier.path;
            let resource = if path.is_empty() {
                format!("{}/{}/mcp", asked.base, asked.server.name)
            } else {
                format!("{}{path}", asked.base)
            };
            let authorization_server = format!("{}/{}", asked.base, asked.server.name);
            protected_resource_document(&resource, &authorization_server, scopes)
        }
        Document::AuthorizationServer => {
            let issuer = asked.issuer();
            let endpoints = OwnEndpoints {
                authorization: &format!("{issuer}/authorize"),
                token: &format!("{issuer}/token"),
                registration: &format!("{issuer}/register"),
                revocation: None,
            };
            authorization_server_document(&issuer, &endpoints, scopes)
        }
    };
    json::no_store(StatusCode::OK, document.to_string())
}

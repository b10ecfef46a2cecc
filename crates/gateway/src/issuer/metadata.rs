//! What clients read before they sign in: RFC 9728 about an MCP endpoint, RFC 8414 about the authorization server
//! that we are for it, made from the request and the configuration alone: no provider is asked. And the servers' own
//! documents, where clients sign in without us.

use super::Asked;
use super::paths::{Document, Identifier};
use super::upstream::UpstreamConfig;
use crate::app::Worker;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{ErrorCode, Refusal};
use crate::web::json;
use http::{Response, StatusCode};
use vestibule_oauth::Origin;
use vestibule_oauth::metadata::{OwnEndpoints, authorization_server_document, protected_resource_document};

/// The document about what the identifier names.
pub(super) fn document(asked: &Asked<'_>, document: Document) -> Response<Body> {
    let scopes = &asked.sign_in.scopes;
    let document = match document {
        Document::ProtectedResource => {
            let resource = resource(asked.server, asked.identifier, &asked.base);
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

/// RFC 9728 about a server for which tokens of `issuer` are exchanged: clients get theirs there, not here.
pub(super) fn of_exchange(
    origin: &Origin,
    identifier: Identifier<'_>,
    server: &Server,
    issuer: &str,
) -> Response<Body> {
    let resource = resource(server, identifier, &origin.to_string());
    // The configured scopes are those of the exchange, which are not the issuer's to give.
    let document = protected_resource_document(&resource, issuer, &[]);
    json::no_store(StatusCode::OK, document.to_string())
}

/// The URL of the MCP endpoint, in the client's spelling.
pub(super) fn resource(server: &Server, identifier: Identifier<'_>, base: &str) -> String {
    if identifier.path.is_empty() {
        format!("{base}/{}/mcp", server.name)
    } else {
        format!("{base}{}", identifier.path)
    }
}

/// The server's own document, about the URL by which the client calls it here: a client compares the two, and stops
/// where they differ.
pub(super) async fn of_server(
    worker: &Worker,
    server: &Server,
    identifier: Identifier<'_>,
    base: &str,
) -> Result<Response<Body>, Refusal> {
    let unavailable = Refusal::new(ErrorCode::MetadataUnavailable);
    let Some(address) = server.endpoint.address() else {
        return Err(unavailable);
    };
    let config = UpstreamConfig::bare(&server.name, &address.url);
    let document = worker
        .app
        .discovery
        .document(&config)
        .await
        .map_err(|error| Refusal {
            retry_after: Some(error.retry_after),
            ..unavailable
        })?;
    let document = document.about(&resource(server, identifier, base));
    Ok(json::no_store(StatusCode::OK, document.to_string()))
}

//! The challenge of a server whose clients sign in at its own authorization server (RFC 9728 section 5.1). It goes to
//! them as it came, but for the place of the metadata: the server's own is about a URL that they do not use, and a
//! strict client stops there.

use crate::app::Worker;
use crate::ids::RequestId;
use crate::issuer::upstream::UpstreamConfig;
use crate::registry::Server;
use crate::web::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use vestibule_oauth::{BearerChallenge, with_resource_metadata};

/// How long a client waits for its challenge while the server's metadata is looked for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Has `response` name our copy of the server's metadata, or our own metadata where people sign in through us, in the
/// spelling that the client used, if there is one.
pub(super) async fn told(
    worker: &Worker,
    server: &Arc<Server>,
    parts: &Parts,
    peer: IpAddr,
    id: RequestId,
    response: &mut Response<Body>,
) {
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let challenged = response.headers().contains_key(header::WWW_AUTHENTICATE);
    if server.passthrough().is_none() || !(unauthorized || challenged) {
        return;
    }
    let Some(url) = document_url(worker, server, parts, peer, id).await else {
        return;
    };
    rewrite(response.headers_mut(), &url);
}

/// Where the copy is; `None` while there is none to be had.
async fn document_url(
    worker: &Worker,
    server: &Server,
    parts: &Parts,
    peer: IpAddr,
    id: RequestId,
) -> Option<String> {
    let origin = worker.app.origin.of(&parts.uri, &parts.headers, peer)?;
    let path = parts.uri.path();
    let url = format!("{origin}/.well-known/oauth-protected-resource{path}");
    // Where people sign in through us the document is our own, and always there.
    if server.bridge().is_some() {
        return Some(url);
    }
    let config = UpstreamConfig::bare(&server.name, &server.endpoint.address()?.url);
    // The search goes on without us, for whoever asks next.
    let found = timeout(PATIENCE, worker.app.discovery.document(&config)).await;
    if !matches!(found, Ok(Ok(_))) {
        tracing::info!(request_id = %id, server = %server.name, "the server's challenge is passed on as it came: its metadata was not found");
        return None;
    }
    Some(url)
}

fn rewrite(headers: &mut HeaderMap, url: &str) {
    let lines: Vec<HeaderValue> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .map(|line| {
            let text = std::str::from_utf8(line.as_bytes()).ok();
            let ours = text.map(|text| with_resource_metadata(text, url));
            ours.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok())
                .unwrap_or_else(|| line.clone())
        })
        .collect();
    headers.remove(header::WWW_AUTHENTICATE);
    if lines.is_empty() {
        let ours = BearerChallenge {
            resource_metadata: Some(url),
            ..Default::default()
        };
        headers.extend(
            HeaderValue::from_str(&ours.to_string())
                .ok()
                .map(|value| (header::WWW_AUTHENTICATE, value)),
        );
        return;
    }
    for line in lines {
        headers.append(header::WWW_AUTHENTICATE, line);
    }
}

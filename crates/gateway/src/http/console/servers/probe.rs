//! What is at an address before it is a server's: whether it speaks MCP, what it asks for, and who its authorization
//! server is. Asked without a credential, through the client for learned addresses, as a configured server would be.

use crate::app::App;
use crate::http::console::parts::Tone;
use crate::issuer::upstream::{Examination, Sought, UpstreamConfig};
use crate::net::address::Zone;
use crate::net::guarded::{Fetched, GuardedFault, Reach};
use crate::web::error::shown;
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest foreign text that is repeated.
const SHOWN: usize = 300;

/// What a probe came to.
#[derive(Debug, Default)]
pub(super) struct Probed {
    lines: Vec<(Tone, String)>,
    /// Fields of the form, where they are empty.
    pub(super) fill: Vec<(&'static str, String)>,
    tried: Vec<String>,
}

/// What answered.
enum Answer {
    Mcp,
    EventStream,
    Challenge,
    Other(Fetched),
    Nothing(GuardedFault),
}

/// The address in `text`, which somebody is typing.
pub(super) fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// Looks at it.
pub(super) async fn probe(app: &App, url: &Url) -> Probed {
    let mut probed = Probed::default();
    match asked(app, url).await {
        Answer::Nothing(GuardedFault::NotAllowed) => probed.say(
            Tone::Bad,
            "This is the address of a metadata service, link-local or reserved. Nobody probes such an address from here.",
        ),
        Answer::Mcp => {
            probed.say(
                Tone::Good,
                "MCP over Streamable HTTP answers here, and asks for no credential to begin with.",
            );
            probed.fill("transport", "http");
        }
        Answer::EventStream => {
            probed.say(
                Tone::Good,
                "An event stream of HTTP+SSE (MCP 2024-11-05) is here: the transport is SSE.",
            );
            probed.fill("transport", "sse");
        }
        Answer::Challenge => {
            probed.say(
                Tone::Good,
                "The server is there, and asks for a credential (401).",
            );
            let found = app
                .discovery
                .examine(&UpstreamConfig::bare("the server", url))
                .await;
            probed.judge(&found);
        }
        Answer::Other(answer) => probed.other(&answer),
        Answer::Nothing(fault) => {
            probed.say(Tone::Bad, format!("Nothing usable answered: {fault}."));
            probed.say(
                Tone::Plain,
                "Check scheme, host and port, and that the gateway's network reaches them.",
            );
        }
    }
    probed
}

async fn asked(app: &App, url: &Url) -> Answer {
    // Into the operator's networks, as a server may be there, and by no name to what is nobody's server.
    let reach = Reach::PublicOnly.named_from(Zone::Loopback);
    let hello = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "vestibule", "version": env!("CARGO_PKG_VERSION")},
        },
    });
    let posted = timeout(PATIENCE, app.guarded.probe_post(url, &hello, &reach)).await;
    let posted = match posted.unwrap_or(Err(GuardedFault::Timeout)) {
        Ok(posted) if (200..300).contains(&posted.status) && is_mcp(&posted) => return Answer::Mcp,
        Ok(posted) if posted.status == 401 => return Answer::Challenge,
        Ok(posted) => posted,
        Err(fault) => return Answer::Nothing(fault),
    };
    let got = timeout(PATIENCE, app.guarded.probe_get(url, &reach)).await;
    match got {
        Ok(Ok(got)) if got.status == 200 && kind(&got).starts_with("text/event-stream") => {
            Answer::EventStream
        }
        Ok(Ok(got)) if got.status == 401 => Answer::Challenge,
        _ => Answer::Other(posted),
    }
}

fn kind(answer: &Fetched) -> &str {
    answer.content_type.as_deref().unwrap_or_default()
}

fn is_mcp(answer: &Fetched) -> bool {
    kind(answer).starts_with("application/json") || kind(answer).starts_with("text/event-stream")
}

impl Probed {
    /// What whoever typed no address is told.
    pub(super) fn no_address() -> Self {
        let mut probed = Self::default();
        probed.say(Tone::Plain, "The MCP Server URL takes an http or https address.");
        probed
    }

    /// What whoever asks too often is told.
    pub(super) fn too_many() -> Self {
        let mut probed = Self::default();
        probed.say(
            Tone::Warn,
            "Too many probes at once; wait some seconds and probe again.",
        );
        probed
    }

    fn say(&mut self, tone: Tone, text: impl Into<String>) {
        self.lines.push((tone, text.into()));
    }

    fn fill(&mut self, name: &'static str, value: impl Into<String>) {
        self.fill.push((name, value.into()));
    }

    fn other(&mut self, answer: &Fetched) {
        let kind = shown(kind(answer), SHOWN);
        let what = if kind.is_empty() {
            "no content type".to_owned()
        } else {
            kind
        };
        self.say(
            Tone::Warn,
            format!(
                "It answered with status {} and {what}, which is not MCP.",
                answer.status
            ),
        );
        let advice = match answer.status {
            404 | 405 => {
                "The path is probably not that of the MCP endpoint; many servers have it at /mcp or /sse."
            }
            403 => {
                "A filter may be in the way, or the server wants a signature. A credential may change the answer."
            }
            300..=399 => "It redirects; use the address where that leads, if you trust it.",
            500..=599 => "The server's own log says more.",
            _ => "With a credential the answer may be another one.",
        };
        self.say(Tone::Plain, advice);
    }

    /// What the server and its authorization server say of themselves.
    fn judge(&mut self, found: &Examination) {
        let steps = found.trace.iter();
        self.tried = steps
            .filter(|probe| probe.sought != Sought::Challenge)
            .map(|probe| shown(&probe.to_string(), SHOWN))
            .collect();
        match &found.resource {
            Some(document) => {
                let servers = document.authorization_servers.join(", ");
                self.say(
                    Tone::Good,
                    format!(
                        "Its metadata names the authorization server {}.",
                        shown(&servers, SHOWN)
                    ),
                );
            }
            None => self.say(
                Tone::Plain,
                "It has no metadata of a protected resource (RFC 9728).",
            ),
        }
        let Some(server) = &found.server else {
            self.say(
                Tone::Warn,
                "No authorization server was found. If it wants an API key or a token, choose that under \
                 Authentication; if it wants OAuth, fill in the URLs by hand.",
            );
            return;
        };
        self.fill("authentication", "oauth2");
        self.say(
            Tone::Good,
            format!(
                "Authorization server {}: people can sign in, and its addresses are discovered, so they may stay blank.",
                shown(&server.issuer, SHOWN)
            ),
        );
        if server.registration_endpoint.is_some() {
            self.say(
                Tone::Good,
                "It registers clients by itself: no Client ID is needed for Interactive (PKCE).",
            );
        } else {
            self.say(
                Tone::Warn,
                "It registers no clients: make an OAuth app there, and fill in its Client ID (and Client Secret).",
            );
        }
        let pkce = found
            .endpoints
            .as_ref()
            .and_then(|endpoints| endpoints.s256_supported);
        match pkce {
            Some(true) => self.say(Tone::Good, "PKCE with S256 is offered."),
            Some(false) => self.say(Tone::Warn, "PKCE with S256 is not offered."),
            None => self.say(Tone::Plain, "It does not say whether PKCE is offered."),
        }
        if let Some(url) = &server.token_endpoint {
            self.fill("token_url", url.as_str());
        }
        let scopes = match &found.resource {
            _ if !found.challenge_scopes.is_empty() => &found.challenge_scopes[..],
            Some(document) => &document.scopes_supported[..],
            None => &[],
        };
        if !scopes.is_empty() {
            let scopes = shown(&scopes.join(" "), SHOWN);
            self.say(Tone::Plain, format!("Scopes that it asks for: {scopes}."));
            self.fill("scopes", scopes);
        }
    }

    /// For the page, with what a script fills in.
    pub(super) fn html(&self) -> Markup {
        let fill: Map<String, Value> = self
            .fill
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        html! {
            div class={ "note " (self.tone().class()) } data-fill=(Value::Object(fill)) {
                ul { @for (_, line) in &self.lines { li { (line) } } }
                @if !self.tried.is_empty() {
                    details {
                        summary { "What was asked" }
                        ul { @for step in &self.tried { li { (step) } } }
                    }
                }
            }
        }
    }

    /// The worst of the lines.
    fn tone(&self) -> Tone {
        let has = |tone| self.lines.iter().any(|(own, _)| *own == tone);
        [Tone::Bad, Tone::Warn, Tone::Good]
            .into_iter()
            .find(|tone| has(*tone))
            .unwrap_or(Tone::Plain)
    }
}

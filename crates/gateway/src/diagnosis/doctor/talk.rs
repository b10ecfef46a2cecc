//! The conversation itself: `initialize` and `tools/list`, on the road that calls take, with the credential that
//! calls would show.

use super::Finding;
use super::advice::{Advice, line, upstream, you};
use super::metadata::{Learned, scopes_line};
use super::mode::{Mode, Way};
use super::walk::{STEP, Walk};
use crate::admission::{Admission, LITELLM_API_KEY};
use crate::config::ExchangeProfile;
use crate::http::relay::forward::Bearer;
use crate::http::relay::upstream_client::{Caller, Hello, UpstreamClient, Welcome};
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::sync::Arc;
use tokio::time::timeout;

/// Pages of a list of tools that are read.
const PAGES: usize = 100;

#[derive(Deserialize)]
struct Page {
    tools: Vec<IgnoredAny>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
}

impl Walk {
    pub(super) async fn initialize(&mut self) -> Finding {
        if !self.reached {
            return Finding::skipped("the server cannot be reached as configured");
        }
        if self.token_failed {
            return Finding::skipped("there is no token to show");
        }
        if self.options.token.is_none() && self.takes_a_token() {
            return Finding::skipped(
                "it takes a person's token: --token-env NAME reads one from the variable NAME",
            );
        }
        let wanted = self.wanted_headers();
        if !wanted.is_empty() {
            return Finding::skipped(format!(
                "the program is started with values of a client's request ({}), and there is no client here",
                wanted.join(", ")
            ));
        }
        let opened = match timeout(STEP, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(Refusal::new(ErrorCode::UpstreamTimeout)),
        };
        let (client, welcome) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                let finding = self.refused(&refusal);
                return match self.way {
                    Way::Program => finding.tried(self.last_words().await),
                    Way::Http | Way::Sse => finding,
                };
            }
        };
        let info = welcome.unwrap_or_default().info;
        let name = info["name"].as_str().map(|name| {
            let version = info["version"].as_str().unwrap_or_default();
            format!("{name} {version}")
        });
        let seen = format!(
            "revision {}, {}, {}",
            client.opened().version,
            name.as_deref().map_or("a server without a name", str::trim),
            if client.opened().session.is_some() {
                "with a session"
            } else {
                "without a session"
            }
        );
        self.client = Some(client);
        Finding::ok(seen)
    }

    /// Whether nothing can be shown to the server without a person's token.
    fn takes_a_token(&self) -> bool {
        match &self.mode {
            Mode::Person(_) | Mode::Own => true,
            // One that asks for nothing is called without, where callers may come without.
            Mode::Brought(mode) => {
                mode.always_has_token() || self.unasked.as_ref().is_some_and(|unasked| unasked.status == 401)
            }
            Mode::Exchanged(settings) => settings.fallback.is_none(),
            Mode::Open | Mode::Fixed | Mode::Machine { .. } | Mode::Signed(_) => false,
        }
    }

    /// The walk as a caller.
    pub(super) fn admission(&self) -> Result<Admission, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.master_key {
            headers.insert(LITELLM_API_KEY, key.clone());
        }
        self.worker.app.gate.admit(&headers)
    }

    async fn open(&self) -> Result<(UpstreamClient, Option<Welcome>), Refusal> {
        let admission = Arc::new(self.admission()?);
        let token = self.options.token.as_ref().and_then(|token| {
            let token = token.expose_secret().trim();
            // A key goes as the server's auth_type says.
            let (name, value) = match self.mode {
                Mode::Own => (
                    self.worker.app.caller_headers.credential.clone(),
                    HeaderValue::from_str(token),
                ),
                _ => (
                    http::header::AUTHORIZATION,
                    HeaderValue::from_str(&format!("Bearer {token}")),
                ),
            };
            let mut value = value.ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let caller = Caller::new(&self.worker, &admission, &token.into_iter().collect());
        UpstreamClient::open(&caller, &self.server, Bearer::ForThisServer, &Hello::default()).await
    }

    pub(super) async fn tools(&mut self) -> Option<Finding> {
        let client = self.client.as_ref()?;
        let listed = async {
            let mut count = 0;
            let mut cursor: Option<String> = None;
            for _ in 0..PAGES {
                let params = cursor
                    .as_ref()
                    .map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
                let result = client.request("tools/list", params, None).await?;
                let Ok(page) = serde_json::from_str::<Page>(result.get()) else {
                    return Ok(None);
                };
                count += page.tools.len();
                cursor = page.next_cursor.filter(|next| !next.is_empty());
                if cursor.is_none() {
                    break;
                }
            }
            Ok(Some((count, cursor.is_some())))
        };
        let listed = match timeout(STEP, listed).await {
            Ok(listed) => listed,
            Err(_) => Err(Refusal::new(ErrorCode::UpstreamTimeout)),
        };
        Some(match listed {
            Ok(Some((_, true))) => Finding::warning(format!("more than {PAGES} pages of tools"))
                .advise([upstream("end the list: a nextCursor on every page has no end")]),
            Ok(Some((0, false))) => Finding::warning("none")
                .advise([you("if there should be some, look at what the credential may do")]),
            Ok(Some((count, false))) => Finding::ok(count.to_string()),
            Ok(None) => Finding::fault("the answer to tools/list has no list of tools")
                .advise([upstream("answer tools/list as MCP has it")]),
            Err(refusal) => self.refused(&refusal),
        })
    }

    /// A refusal as a call would get it, and what mends it.
    fn refused(&self, refusal: &Refusal) -> Finding {
        let code = refusal.code;
        let finding = Finding::fault(format!("{}: {}", code.name(), refusal.message));
        let wanted = self
            .learned
            .as_ref()
            .map(Learned::wanted_scopes)
            .unwrap_or_default();
        let scopes = || (!wanted.is_empty()).then(|| scopes_line(wanted));
        let advice: Vec<Advice> = match code {
            ErrorCode::UpstreamWantsCredential => self.credential_lines(),
            ErrorCode::UpstreamRefusedToken => self.token_lines(),
            ErrorCode::UpstreamRefusedCredential => {
                let mut advice = self.credential_lines();
                advice.insert(0, you("check authentication_token: the server does not take it"));
                advice
            }
            ErrorCode::UpstreamForbidden | ErrorCode::ScopeMissing => {
                let said = refusal
                    .sign_in
                    .as_ref()
                    .and_then(|wanted| wanted.scope.as_deref());
                let said: Vec<String> = said
                    .into_iter()
                    .flat_map(|scope| scope.split(' '))
                    .map(str::to_owned)
                    .collect();
                let line = if said.is_empty() {
                    scopes()
                } else {
                    Some(scopes_line(&said))
                };
                let mut advice: Vec<Advice> = line.into_iter().collect();
                advice.push(upstream(
                    "allow the credential what initialize and tools/list need",
                ));
                advice
            }
            ErrorCode::UpstreamRefusedSignature => self.signature_lines(),
            ErrorCode::UpstreamNotMcp | ErrorCode::EndpointTimeout => {
                let mut advice = self.other_transport_line();
                advice.push(you(code.remedy()));
                advice
            }
            ErrorCode::SignInEnded | ErrorCode::CallersTokenRequired => vec![you(
                "the token of --token-env is not accepted: it may have ended, or be for another server",
            )],
            ErrorCode::SignInRequired => vec![you(
                "the variable of --token-env holds the gateway's own key, which goes to no server; put the person's access token there",
            )],
            _ => vec![you(code.remedy())],
        };
        finding.advise(advice)
    }

    /// Which `auth_type` the server's challenge speaks for.
    fn credential_lines(&self) -> Vec<Advice> {
        let challenges = self.unasked.iter().flat_map(|unasked| &unasked.challenges);
        let mut schemes = challenges.map(|line| line.split([' ', ',']).next().unwrap_or_default());
        if self
            .learned
            .as_ref()
            .is_some_and(|learned| learned.endpoints().is_some())
        {
            return vec![line(
                "auth_type",
                "oauth2",
                "its metadata says where people sign in",
            )];
        }
        let auth_type = if schemes.any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
            "basic"
        } else {
            "bearer_token"
        };
        if self.server.auth_type == auth_type {
            return Vec::new();
        }
        vec![
            line("auth_type", auth_type, "how the server asks for a credential"),
            line(
                "authentication_token",
                "os.environ/MCP_TOKEN",
                "the credential that the server's operator gave you",
            ),
        ]
    }

    /// The other transport, where the end of the url is customary for it: without a credential nothing could be told.
    fn other_transport_line(&self) -> Vec<Advice> {
        let path = self
            .address
            .as_ref()
            .map(|(url, _)| url.path())
            .unwrap_or_default();
        let other = match self.way {
            Way::Http if path.ends_with("/sse") => "sse",
            Way::Sse if path.ends_with("/mcp") => "http",
            Way::Http | Way::Sse | Way::Program => return Vec::new(),
        };
        vec![line(
            "transport",
            other,
            "what a url that ends like this usually is",
        )]
    }

    /// A fresh token was refused: what the server says a token has to be.
    fn token_lines(&self) -> Vec<Advice> {
        let mut advice = Vec::new();
        let asked = match &self.mode {
            Mode::Machine { request, .. } => {
                Some((&request.grant.scopes, &request.grant.resource, "resource"))
            }
            Mode::Exchanged(settings) => match settings.profile {
                ExchangeProfile::Rfc8693 { .. } => Some((&settings.scopes, &settings.resource, "resource")),
                ExchangeProfile::IdJag { .. } => {
                    Some((&settings.scopes, &settings.resource, "id_jag_resource"))
                }
                // What a token is for is in its scopes.
                ExchangeProfile::EntraObo => None,
            },
            _ => None,
        };
        if let (Some((scopes, resource, field)), Some(learned), Some((url, _))) =
            (asked, &self.learned, &self.address)
        {
            let wanted = learned.wanted_scopes();
            if !wanted.is_empty() && wanted.iter().any(|scope| !scopes.contains(scope)) {
                advice.push(scopes_line(wanted));
            }
            let named = learned.found.resource.as_ref();
            if let Some(named) = named.and_then(|metadata| metadata.resource.as_ref())
                && resource.as_ref() != Some(named)
            {
                let server = url.as_str();
                advice.push(line(
                    field,
                    if named == server { "auto" } else { named },
                    "what the server's metadata says a token is for (RFC 8707)",
                ));
            }
        }
        advice.push(you(match &self.mode {
            Mode::Exchanged(_) => {
                "check that the token endpoint is of the authorization server that this MCP server trusts, and audience \
                 and scopes"
            }
            _ => "check that token_url is of the authorization server that this MCP server trusts, and audience",
        }));
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_a_list_is_none() {
        for (page, tools) in [
            (json!({"tools": [{"name": "a"}]}), Some(1)),
            (json!({"tools": []}), Some(0)),
            (json!({}), None),
            (json!(null), None),
        ] {
            let read = serde_json::from_value::<Page>(page).ok();
            assert_eq!(read.map(|page| page.tools.len()), tools);
        }
    }
}

//! What a caller brings for one server: `x-mcp-{server}-{header}`, and `x-mcp-auth`.
//!
//! Read by name from the caller's headers, for the server that the request goes to and for no other. A credential
//! among them is shown instead of the configured one or refused, never quietly left out in favour of another. The
//! exceptions are a value that holds the gateway key, which goes nowhere, a name with `_`, which many servers read as
//! the same name with `-`, and the general `x-mcp-auth` beside something
//! more particular of the caller's own.

use super::{CredentialSource, passthrough};
use crate::config::{Unfit, by_auth_type, is_reserved_header, per_server};
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use vestibule_mcp::headers::crosses_upstream;

/// Headers that LiteLLM takes for an API key, wherever they come from.
const API_KEYS: &[&str] = &["x-api-key", "api-key", "apikey"];

/// What a request brings for one server.
#[derive(Debug, Default)]
pub struct PerRequest {
    headers: Vec<(HeaderName, HeaderValue)>,
    credential: bool,
    subject: Option<HeaderValue>,
}

impl PerRequest {
    /// Reads what `headers` hold for `server`. `shared` is the name of the header that is for whichever server the
    /// request has; `None` when it has several. `holds_key` says whether a gateway key stands in a value.
    pub fn read(
        headers: &HeaderMap,
        server: &Server,
        shared: Option<&HeaderName>,
        holds_key: impl Fn(&HeaderValue) -> bool,
    ) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let mut seen: Vec<HeaderName> = Vec::new();
        for (name, value) in headers {
            let Some((named, header)) = per_server(name).filter(|(named, _)| server.is_called(named)) else {
                continue;
            };
            let Ok(header) = HeaderName::from_bytes(header.as_bytes()) else {
                continue;
            };
            if is_reserved_header(&header)
                || crosses_upstream(&header)
                || says_where_from(&header)
                || header.as_str().contains('_')
            {
                tracing::warn!(server = %server.name, header = %name, "a header that callers may not set was not set for the server");
                continue;
            }
            if value.is_empty() {
                continue;
            }
            if seen.contains(&header) {
                let message = format!("The header {header} for the MCP server {named} stands several times.");
                return Err(Refusal::because(ErrorCode::RepeatedHeader, message));
            }
            seen.push(header.clone());
            found.add(server, name, header, value.clone(), &holds_key)?;
        }
        if let Some(shared) = shared {
            found.add_shared(headers, server, shared, &holds_key)?;
        }
        Ok(found)
    }

    /// `x-mcp-auth`, which gives way to a credential that names the server, and to the caller's `Authorization` where
    /// that is shown.
    fn add_shared(
        &mut self,
        headers: &HeaderMap,
        server: &Server,
        shared: &HeaderName,
        holds_key: &impl Fn(&HeaderValue) -> bool,
    ) -> Result<(), Refusal> {
        // Where `Authorization` has a meaning of its own it keeps that, and its own refusals.
        if *shared == header::AUTHORIZATION && is_shown_authorization(server) {
            return Ok(());
        }
        let mut values = headers.get_all(shared).iter();
        let Some(value) = values.next().filter(|value| !value.is_empty()) else {
            return Ok(());
        };
        if values.next().is_some() {
            let message = format!("The header {shared} stands several times.");
            return Err(Refusal::because(ErrorCode::RepeatedHeader, message));
        }
        if self.credential
            || *shared != header::AUTHORIZATION && shows_authorization(headers, server, holds_key)
        {
            return Ok(());
        }
        if holds_key(value) {
            not_passed_on(server, shared);
            return Ok(());
        }
        let fitted = value
            .to_str()
            .map_err(|_| Unfit::Character)
            .and_then(|text| by_auth_type(server.auth_type, text, &server.token_header));
        let (mut name, value) = fitted.map_err(|unfit| {
            let message = format!(
                "The header {shared} is no credential for the MCP server {}: auth_type {} {}.",
                server.name,
                server.auth_type,
                unfit.why()
            );
            Refusal::because(ErrorCode::CredentialMalformed, message)
        })?;
        // It is exchanged, wherever the server wants what comes of it.
        if matches!(server.credential, CredentialSource::OnBehalf(_)) {
            name = header::AUTHORIZATION;
        }
        self.add(server, shared, name, value, holds_key)
    }

    /// `read_from` is the name in the request.
    fn add(
        &mut self,
        server: &Server,
        read_from: &HeaderName,
        name: HeaderName,
        mut value: HeaderValue,
        holds_key: &impl Fn(&HeaderValue) -> bool,
    ) -> Result<(), Refusal> {
        if holds_key(&value) {
            not_passed_on(server, read_from);
            return Ok(());
        }
        value.set_sensitive(true);
        if matches!(server.credential, CredentialSource::OnBehalf(_)) && name == header::AUTHORIZATION {
            self.subject.get_or_insert(value);
            return Ok(());
        }
        let credential = is_credential(server, &name);
        let why_not = if !credential {
            None
        } else if !server.credential.gives_way() {
            Some("is called with the gateway's own credential")
        } else if server.base_headers.contains_key(&name) {
            Some("has a fixed value for it in static_headers")
        } else {
            None
        };
        if let Some(why) = why_not {
            let message = format!(
                "The header {read_from} brings a credential, and the MCP server {} {why}.",
                server.name
            );
            return Err(Refusal::because(ErrorCode::CredentialNotTaken, message));
        }
        self.credential |= credential;
        self.headers.push((name, value));
        Ok(())
    }

    /// Whether there is a credential among them, so that no other is shown.
    pub fn has_credential(&self) -> bool {
        self.credential
    }

    /// What is to be exchanged for a token of this server's; it never goes there itself.
    pub fn subject(&self) -> Option<&HeaderValue> {
        self.subject.as_ref()
    }

    /// The value of the header `name` among them.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut headers = self.headers.iter();
        headers.find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Name and value for the server.
    pub fn headers(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.headers.iter()
    }
}

/// Whether a header of this name is a credential for `server`: what the configured one would use, `Authorization`,
/// and, where the server is not called with a token of ours, an API key.
fn is_credential(server: &Server, name: &HeaderName) -> bool {
    let fixed = matches!(
        server.credential,
        CredentialSource::None | CredentialSource::Static(_) | CredentialSource::Byok(_)
    );
    *name == header::AUTHORIZATION || server.credential_headers.contains(name) || fixed && is_api_key(name)
}

/// Whether a header of this name is a proxy's word on where a request comes from, which servers may trust.
fn says_where_from(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "x-real-ip" | "via") || name.starts_with("x-forwarded-")
}

/// Whether `server` is shown the caller's `Authorization`, or what it is exchanged for, whatever else is configured.
fn is_shown_authorization(server: &Server) -> bool {
    matches!(
        server.credential,
        CredentialSource::Person(_) | CredentialSource::Caller(..) | CredentialSource::OnBehalf(_)
    )
}

/// Whether the caller's `Authorization` decides what `server` is shown. An envelope does where it is opened.
fn shows_authorization(
    headers: &HeaderMap,
    server: &Server,
    holds_key: &impl Fn(&HeaderValue) -> bool,
) -> bool {
    let wanted = match server.credential {
        CredentialSource::Person(_) | CredentialSource::Caller(..) | CredentialSource::OnBehalf(_) => true,
        CredentialSource::None => {
            server.extra_headers.contains(&header::AUTHORIZATION)
                && !server.base_headers.contains_key(header::AUTHORIZATION)
        }
        CredentialSource::Static(_)
        | CredentialSource::Byok(_)
        | CredentialSource::Machine(_)
        | CredentialSource::AwsSigV4(_) => false,
    };
    let opens = matches!(server.credential, CredentialSource::Caller(_, Some(_)));
    let value = headers.get(header::AUTHORIZATION);
    wanted
        && value
            .is_some_and(|value| opens && passthrough::is_in(value) || !value.is_empty() && !holds_key(value))
}

/// Whether a header of this name carries an API key.
pub fn is_api_key(name: &HeaderName) -> bool {
    API_KEYS.contains(&name.as_str())
}

fn not_passed_on(server: &Server, name: &HeaderName) {
    tracing::warn!(server = %server.name, header = %name, "a header that holds the gateway key was not passed on");
}

/// How each server is called in the names of headers: its alias and name in lower case, and those with `_` for what a
/// header name may not hold, unless another server has a better claim. What two servers could mean is neither's.
pub fn names_in_headers<'s>(servers: impl Iterator<Item = (&'s str, Option<&'s str>)>) -> Vec<Vec<String>> {
    let names = servers.map(|(name, alias)| {
        let names = [alias, Some(name)].into_iter().flatten();
        let exact: Vec<String> = names.map(str::to_ascii_lowercase).collect();
        let plain: Vec<String> = exact.iter().map(|name| plain(name)).collect();
        (exact, plain)
    });
    let names: Vec<(Vec<String>, Vec<String>)> = names.collect();
    let others = |index: usize, name: &String, plain: bool| {
        let mut others = names.iter().enumerate().filter(|(other, _)| *other != index);
        others.any(|(_, (exact, sanitised))| exact.contains(name) || plain && sanitised.contains(name))
    };
    let claims = names.iter().enumerate().map(|(index, (exact, plain))| {
        let exact = exact.iter().filter(|name| !others(index, name, false));
        let plain = plain.iter().filter(|name| !others(index, name, true));
        let mut claims: Vec<String> = Vec::new();
        for name in exact.chain(plain).filter(|name| !name.is_empty()) {
            if !claims.contains(name) {
                claims.push(name.clone());
            }
        }
        claims
    });
    claims.collect()
}

/// LiteLLM's form for header names: `_` for each run of anything but letters, digits and `_`, none at the ends.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !plain.ends_with('_') {
            plain.push(c);
        }
    }
    plain.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_servers_could_mean_is_neithers() {
        let servers = [
            ("GitHub", Some("gh")),
            ("git.hub", None),
            ("git_hub", None),
            ("Jira", None),
            ("jira", Some("tickets")),
            ("a..b_.", None),
        ];
        let names = names_in_headers(servers.into_iter());
        assert_eq!(names[0], ["gh", "github"]);
        assert_eq!(names[1], ["git.hub"], "git_hub is another server's name");
        assert_eq!(names[2], ["git_hub"]);
        assert!(names[3].is_empty(), "{:?}", names[3]);
        assert_eq!(names[4], ["tickets"]);
        assert_eq!(names[5], ["a..b_.", "a_b"]);
    }

    #[test]
    fn the_first_dash_ends_the_servers_name() {
        for (name, expected) in [
            ("x-mcp-github-authorization", Some(("github", "authorization"))),
            (
                "x-mcp-github-123-authorization",
                Some(("github", "123-authorization")),
            ),
            ("x-mcp-github", None),
            ("x-mcp-auth", None),
            ("x-mcp-servers", None),
            ("x-mcp-access-groups", None),
            ("x-mcp-access-key", Some(("access", "key"))),
            ("x-mcp-debug-auth-resolution", None),
            ("x-other-github-authorization", None),
        ] {
            assert_eq!(per_server(&HeaderName::from_static(name)), expected, "{name}");
        }
    }
}

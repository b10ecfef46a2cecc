//! Dynamic client registration (RFC 7591), both sides: what a client sends us, what we send an upstream
//! for it, and what the upstream answers. Redirect URIs are kept here as texts; whether one is trusted is
//! for [`crate::redirect_uri`] to say.

use crate::client_auth::ClientAuthMethod;
use crate::error::{ErrorResponse, OAuthError, OAuthErrorCode, is_object};
use crate::origin::is_loopback_host;
use crate::token_request::is_scope_token;
use crate::token_response::media_type;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;

/// The most redirect URIs a client may register.
pub const REDIRECT_URI_LIMIT: usize = 64;

/// The longest `client_name` that is kept, in characters.
const NAME_LIMIT: usize = 120;
/// The longest other text that is kept, in bytes.
const TEXT_LIMIT: usize = 2048;
/// The most items of a list that are kept.
const LIST_LIMIT: usize = 100;

/// What a client says about itself (RFC 7591 section 2). Texts are bounded and can be shown; nothing in
/// them is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientMetadata {
    /// `redirect_uris`, each exactly as sent, at least one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirect_uris: Vec<String>,
    /// `client_name`, without control and direction characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// `client_uri`, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<String>,
    /// `logo_uri`, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo_uri: Option<String>,
    /// `scope`, valid scope tokens with one space between them (RFC 6749 section 3.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `grant_types`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant_types: Vec<String>,
    /// `response_types`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_types: Vec<String>,
    /// `token_endpoint_auth_method`, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_method: Option<String>,
    /// `contacts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<String>,
    /// `software_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
    /// `software_version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// `application_type` (OIDC dynamic registration, section 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_type: Option<String>,
}

/// Why a registration is refused (RFC 7591 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{error}: {description}")]
pub struct RegistrationRefusal {
    /// `invalid_redirect_uri` or `invalid_client_metadata`.
    pub error: &'static str,
    /// A sentence for a developer.
    pub description: String,
}

impl RegistrationRefusal {
    /// `invalid_redirect_uri` (RFC 7591 section 3.2.2).
    pub fn redirect_uri(description: impl Into<String>) -> Self {
        Self {
            error: "invalid_redirect_uri",
            description: description.into(),
        }
    }

    /// `invalid_client_metadata` (RFC 7591 section 3.2.2).
    pub fn metadata(description: impl Into<String>) -> Self {
        Self {
            error: "invalid_client_metadata",
            description: description.into(),
        }
    }
}

impl From<RegistrationRefusal> for OAuthError {
    fn from(refusal: RegistrationRefusal) -> Self {
        let redirect_uri = OAuthErrorCode::InvalidRedirectUri;
        let code = if refusal.error == redirect_uri.name() {
            redirect_uri
        } else {
            OAuthErrorCode::InvalidClientMetadata
        };
        Self::new(code, refusal.description)
    }
}

impl ClientMetadata {
    /// Reads a registration request (RFC 7591 section 3.1). Unknown members are ignored, and optional ones
    /// of another type than the RFC's are left out; only the redirect URIs have to be usable. An item of
    /// `redirect_uris` that is no text is dropped, so that it does not take the others with it.
    pub fn parse(body: &[u8]) -> Result<Self, RegistrationRefusal> {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return Err(RegistrationRefusal::metadata("The body is not a JSON object."));
        };
        let redirect_uris = match members.get("redirect_uris") {
            None => return Err(RegistrationRefusal::redirect_uri("redirect_uris is missing.")),
            Some(Value::Array(items)) => items,
            Some(_) => {
                return Err(RegistrationRefusal::redirect_uri(
                    "redirect_uris is not an array of strings.",
                ));
            }
        };
        let redirect_uris: Vec<String> = redirect_uris
            .iter()
            .filter_map(Value::as_str)
            .filter(|uri| !uri.is_empty())
            .map(str::to_owned)
            .collect();
        if redirect_uris.is_empty() {
            return Err(RegistrationRefusal::redirect_uri("redirect_uris holds no URI."));
        }
        if redirect_uris.len() > REDIRECT_URI_LIMIT {
            return Err(RegistrationRefusal::redirect_uri(format!(
                "redirect_uris holds more than {REDIRECT_URI_LIMIT} URIs."
            )));
        }
        Ok(Self {
            redirect_uris,
            client_name: text(&members, "client_name", NAME_LIMIT),
            client_uri: web_address(&members, "client_uri"),
            logo_uri: web_address(&members, "logo_uri"),
            scope: scope(members.get("scope")),
            grant_types: list(&members, "grant_types"),
            response_types: list(&members, "response_types"),
            token_endpoint_auth_method: text(&members, "token_endpoint_auth_method", NAME_LIMIT),
            contacts: list(&members, "contacts"),
            software_id: text(&members, "software_id", NAME_LIMIT),
            software_version: text(&members, "software_version", NAME_LIMIT),
            application_type: text(&members, "application_type", NAME_LIMIT),
        })
    }

    /// The registration to send upstream for this client (RFC 7591 section 3.1). Its one redirect URI is
    /// the gateway's `callback`, and `application_type` is what that callback is, whatever the client is.
    /// `auth_methods_supported` is the upstream's `token_endpoint_auth_methods_supported`
    /// (RFC 8414 section 2).
    pub fn upstream_request(&self, callback: &str, auth_methods_supported: Option<&[String]>) -> Value {
        let mut request = Map::new();
        request.insert("redirect_uris".into(), json!([callback]));
        for (name, value) in self.described() {
            request.insert(name.into(), json!(value));
        }
        if let Some(scope) = &self.scope {
            request.insert("scope".into(), json!(scope));
        }
        if !self.contacts.is_empty() {
            request.insert("contacts".into(), json!(self.contacts));
        }
        request.insert(
            "grant_types".into(),
            json!(["authorization_code", "refresh_token"]),
        );
        request.insert("response_types".into(), json!(["code"]));
        let method = self.upstream_auth_method(auth_methods_supported);
        request.insert("token_endpoint_auth_method".into(), json!(method.name()));
        // Only a native client may have a plain http callback, and only a native one must not have an
        // https one elsewhere (OpenID Connect Dynamic Client Registration section 2). Web is the default.
        if on_loopback(callback) {
            request.insert("application_type".into(), json!("native"));
        }
        Value::Object(request)
    }

    /// How the upstream client is to authenticate: what this client asked for when we and the upstream can
    /// do that, else the best that the upstream supports. Without a list upstream the client's wish stands,
    /// and without a wish the default of RFC 7591 section 2 (`client_secret_basic`).
    pub fn upstream_auth_method(&self, supported: Option<&[String]>) -> ClientAuthMethod {
        let asked = self
            .token_endpoint_auth_method
            .as_deref()
            .and_then(ClientAuthMethod::from_name);
        let can = |method: &ClientAuthMethod| {
            supported.is_none_or(|names| names.iter().any(|name| name == method.name()))
        };
        let by_strength = [
            ClientAuthMethod::ClientSecretBasic,
            ClientAuthMethod::ClientSecretPost,
            ClientAuthMethod::None,
        ];
        asked
            .into_iter()
            .chain(by_strength)
            .find(can)
            .unwrap_or(ClientAuthMethod::ClientSecretBasic)
    }

    /// Bytes that are equal for two clients exactly when the registrations sent upstream for them are, the
    /// callback apart: each part with its length in front. The client's own redirect URIs do not count, as
    /// they are not sent, nor does the order of its scopes.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        for (name, value) in self.described() {
            part(name);
            part(value);
        }
        let mut scopes: Vec<&str> = self.scope.iter().flat_map(|scope| scope.split(' ')).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let contacts = self.contacts.iter().map(String::as_str).collect();
        let method = self.token_endpoint_auth_method.as_deref();
        let method = method
            .and_then(ClientAuthMethod::from_name)
            .map(ClientAuthMethod::name);
        let method: Vec<&str> = method.into_iter().collect();
        for (name, values) in [("scope", scopes), ("contacts", contacts), ("method", method)] {
            part(name);
            part(&values.len().to_string());
            values.into_iter().for_each(&mut part);
        }
        bytes
    }

    /// The texts that go upstream as they are.
    fn described(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [
            ("client_name", &self.client_name),
            ("client_uri", &self.client_uri),
            ("logo_uri", &self.logo_uri),
            ("software_id", &self.software_id),
            ("software_version", &self.software_version),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
    }
}

/// A text without control characters, invisible ones and ones that turn the direction of writing, so that
/// a name cannot dress up as another one. `None` when nothing is left.
fn clean(text: &str, limit: usize) -> Option<String> {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
    };
    let kept: String = text.chars().filter(|c| !hidden(*c)).collect();
    let kept: String = kept.trim().chars().take(limit).collect();
    (!kept.is_empty()).then_some(kept)
}

fn text(members: &Map<String, Value>, name: &str, limit: usize) -> Option<String> {
    clean(members.get(name)?.as_str()?, limit)
}

fn list(members: &Map<String, Value>, name: &str) -> Vec<String> {
    let items = match members.get(name) {
        Some(Value::Array(items)) => items.as_slice(),
        Some(item @ Value::String(_)) => std::slice::from_ref(item),
        _ => &[],
    };
    let texts = items.iter().filter_map(Value::as_str);
    texts
        .filter_map(|item| clean(item, NAME_LIMIT))
        .take(LIST_LIMIT)
        .collect()
}

fn web_address(members: &Map<String, Value>, name: &str) -> Option<String> {
    let address = members.get(name)?.as_str()?;
    let url = Url::parse(address).ok()?;
    let plain = address.len() <= TEXT_LIMIT && address.bytes().all(|b| b.is_ascii_graphic());
    let web =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    (plain && web).then(|| address.to_owned())
}

fn scope(value: Option<&Value>) -> Option<String> {
    let texts: Vec<&str> = match value? {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let tokens = texts.iter().flat_map(|text| text.split_ascii_whitespace());
    let tokens: Vec<&str> = tokens
        .filter(|token| is_scope_token(token))
        .take(LIST_LIMIT)
        .collect();
    (!tokens.is_empty()).then(|| tokens.join(" "))
}

fn on_loopback(callback: &str) -> bool {
    Url::parse(callback)
        .is_ok_and(|url| url.scheme() == "http" && url.host_str().is_some_and(is_loopback_host))
}

/// A client that an upstream registered (RFC 7591 section 3.2.1).
#[derive(Debug, Clone)]
pub struct RegisteredClient {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub client_secret: Option<SecretString>,
    /// `token_endpoint_auth_method`: what the upstream says, else what was asked; [`ClientAuthMethod::None`]
    /// when it gave no secret.
    pub auth_method: ClientAuthMethod,
    /// `client_secret_expires_at`, in seconds since 1970; `None` when the secret does not expire.
    pub secret_expires_at: Option<u64>,
}

/// Why an upstream's answer to a registration is not usable. None of the variants carries the body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistrationFault {
    /// The server refused and said why (RFC 7591 section 3.2.2).
    #[error("the authorization server refused to register a client: {}{}", .0.error, .0.description.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused(ErrorResponse),
    /// A redirect, which is not followed.
    #[error("the registration endpoint answered with a redirect ({0}), which is not followed")]
    Redirect(u16),
    /// An error status without RFC 7591 error fields.
    #[error("the registration endpoint answered {status} with {content_type}, and no OAuth error in it")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The media type, for the reader.
        content_type: String,
    },
    /// Success, but no client information.
    #[error("the registration endpoint answered {status} with {content_type} that is no client information")]
    NotAClient {
        /// The HTTP status.
        status: u16,
        /// The media type, for the reader.
        content_type: String,
    },
    /// `client_id` or `client_secret` is empty, too long or holds characters that RFC 6749 appendix A
    /// does not allow.
    #[error("the registration response has no usable client_id, or an unusable client_secret")]
    UnusableClient,
    /// The upstream registered an authentication method that is not offered here.
    #[error(
        "the authorization server registered a client that must authenticate in a way that is not supported"
    )]
    UnsupportedAuthMethod,
}

/// The answer of a registration endpoint.
#[derive(Debug, Clone, Copy)]
pub struct RegistrationResponse;

#[derive(Deserialize)]
struct Wire {
    client_id: String,
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    client_secret_expires_at: Option<Value>,
}

impl RegistrationResponse {
    /// Judges an answer by its status and body (RFC 7591 section 3.2); `content_type` is only repeated to
    /// the reader. `asked` is the authentication method of the request, which counts where the answer
    /// names none.
    pub fn parse(
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        asked: ClientAuthMethod,
    ) -> Result<RegisteredClient, RegistrationFault> {
        if (300..400).contains(&status) {
            return Err(RegistrationFault::Redirect(status));
        }
        if let Some(refusal) = ErrorResponse::parse(body, &[]) {
            return Err(RegistrationFault::Refused(refusal));
        }
        let content_type = media_type(content_type);
        if !(200..300).contains(&status) {
            return Err(RegistrationFault::Status { status, content_type });
        }
        let wire: Option<Wire> = serde_json::from_slice(body).ok().filter(|_| is_object(body));
        let wire = wire.ok_or(RegistrationFault::NotAClient { status, content_type })?;
        let secret = wire.client_secret.filter(|secret| !secret.is_empty());
        if !is_vschar(&wire.client_id) || secret.as_deref().is_some_and(|secret| !is_vschar(secret)) {
            return Err(RegistrationFault::UnusableClient);
        }
        let named = match wire.token_endpoint_auth_method.as_deref() {
            None | Some("") => asked,
            Some(name) => {
                ClientAuthMethod::from_name(name).ok_or(RegistrationFault::UnsupportedAuthMethod)?
            }
        };
        Ok(RegisteredClient {
            auth_method: if secret.is_some() {
                named
            } else {
                ClientAuthMethod::None
            },
            secret_expires_at: wire
                .client_secret_expires_at
                .filter(|_| secret.is_some())
                .and_then(|at| at.as_u64().or_else(|| at.as_str()?.trim().parse().ok()))
                .filter(|at| *at != 0),
            client_id: wire.client_id,
            client_secret: secret.map(SecretString::from),
        })
    }
}

/// `1*VSCHAR`, not longer than [`TEXT_LIMIT`] (RFC 6749 appendixes A.1 and A.2).
fn is_vschar(text: &str) -> bool {
    (1..=TEXT_LIMIT).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x20..=0x7e))
}

#[cfg(test)]
mod tests;

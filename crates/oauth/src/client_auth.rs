//! How a client proves itself at a token endpoint (RFC 6749 section 2.3.1): with a shared secret in one of
//! two places, or not at all. Methods with keys are not here.

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;

/// `token_endpoint_auth_method` (RFC 7591 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuthMethod {
    /// `client_id` and `client_secret` in the form body.
    #[default]
    ClientSecretPost,
    /// Both in an `Authorization: Basic` header, form-encoded first.
    ClientSecretBasic,
    /// A public client: `client_id` alone, in the form body.
    None,
}

impl ClientAuthMethod {
    /// Every method with its registered name (RFC 7591 section 2).
    pub const ALL: [(&'static str, Self); 3] = [
        ("client_secret_post", Self::ClientSecretPost),
        ("client_secret_basic", Self::ClientSecretBasic),
        ("none", Self::None),
    ];

    /// The method of a registered name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, method)| method)
    }

    /// Whether the method sends a secret. The client credentials grant needs one that does
    /// (RFC 6749 section 4.4).
    pub fn sends_secret(self) -> bool {
        !matches!(self, Self::None)
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::None => "none",
        }
    }
}

/// A client identifier with its secret.
#[derive(Debug, Clone)]
pub struct ClientSecret {
    /// `client_id`; public.
    pub id: String,
    /// `client_secret`.
    pub secret: SecretString,
}

impl ClientSecret {
    /// The value of an `Authorization` header: both parts are form-encoded before they are joined, so
    /// that a colon in the identifier cannot move the border (RFC 6749 section 2.3.1).
    pub fn basic(&self) -> SecretString {
        format!("Basic {}", self.base64_pair()).into()
    }

    /// The secret in each form in which a request carries it: bare, form-encoded, and within the pair in
    /// base64. An answer that repeats one of them repeats the secret.
    pub fn sent_secrets(&self) -> [SecretString; 3] {
        [
            self.secret.clone(),
            form_encoded(self.secret.expose_secret()).into(),
            self.base64_pair().into(),
        ]
    }

    fn base64_pair(&self) -> String {
        let secret = form_encoded(self.secret.expose_secret());
        BASE64_STANDARD.encode(format!("{}:{secret}", form_encoded(&self.id)))
    }
}

/// A client of any kind (RFC 6749 section 2.1): confidential with a secret, or public.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`; public.
    pub id: String,
    /// `client_secret`, where there is one.
    pub secret: Option<SecretString>,
    /// How it proves itself. Without a secret it does not, whatever this says.
    pub auth_method: ClientAuthMethod,
}

impl Client {
    /// The identifier and the secret that a request carries; `None` for a public client and for one
    /// registered as `none`.
    pub fn proof(&self) -> Option<ClientSecret> {
        let secret = self.secret.as_ref().filter(|_| self.auth_method.sends_secret())?;
        Some(ClientSecret {
            id: self.id.clone(),
            secret: secret.clone(),
        })
    }
}

pub(crate) fn form_encoded(part: &str) -> String {
    byte_serialize(part.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_encodes_each_part_before_joining() {
        let client = ClientSecret {
            id: "a:b c".into(),
            secret: "p%ss+wörd".into(),
        };
        let header = client.basic();
        let encoded = header.expose_secret().strip_prefix("Basic ").expect("scheme");
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).expect("base64")).expect("utf-8");
        assert_eq!(decoded, "a%3Ab+c:p%25ss%2Bw%C3%B6rd");
    }

    #[test]
    fn the_secret_is_not_printed() {
        let client = ClientSecret {
            id: "id".into(),
            secret: "hush-hush".into(),
        };
        assert!(!format!("{client:?}").contains("hush"));
    }
}

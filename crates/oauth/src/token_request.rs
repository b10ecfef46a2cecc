//! The client credentials grant's token request (RFC 6749 section 4.4.2) as bytes to send.

use crate::client_auth::{ClientAuthMethod, ClientSecret};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::Serializer;

/// Everything that a client credentials token depends on.
#[derive(Debug, Clone)]
pub struct ClientCredentialsRequest {
    /// Who asks.
    pub client: ClientSecret,
    /// How it proves that.
    pub auth_method: ClientAuthMethod,
    /// Sent as one space-separated `scope`; left out when empty.
    pub scopes: Vec<String>,
    /// `audience`, which several authorization servers ask for; not in an RFC for this grant.
    pub audience: Option<String>,
    /// `resource` (RFC 8707).
    pub resource: Option<String>,
}

/// A token request, ready for `application/x-www-form-urlencoded`.
#[derive(Debug)]
pub struct EncodedTokenRequest {
    /// The form.
    pub body: SecretString,
    /// The `Authorization` header, with [`ClientAuthMethod::ClientSecretBasic`].
    pub authorization: Option<SecretString>,
}

impl ClientCredentialsRequest {
    /// Writes the request. With `client_secret_basic` neither identifier nor secret is in the body
    /// (RFC 6749 section 2.3: one method a request).
    pub fn encode(&self) -> EncodedTokenRequest {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let authorization = match self.auth_method {
            ClientAuthMethod::ClientSecretPost => {
                form.append_pair("client_id", &self.client.id);
                form.append_pair("client_secret", self.client.secret.expose_secret());
                None
            }
            ClientAuthMethod::ClientSecretBasic => Some(self.client.basic()),
        };
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        for (name, value) in [("audience", &self.audience), ("resource", &self.resource)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        EncodedTokenRequest {
            body: form.finish().into(),
            authorization,
        }
    }
}

/// Whether `scope` is one scope token: `1*( %x21 / %x23-5B / %x5D-7E )` (RFC 6749 section 3.3).
pub fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(auth_method: ClientAuthMethod) -> ClientCredentialsRequest {
        ClientCredentialsRequest {
            client: ClientSecret {
                id: "me".into(),
                secret: "s&cret".into(),
            },
            auth_method,
            scopes: vec!["mcp:read".into(), "mcp:write".into()],
            audience: Some("api".into()),
            resource: Some("https://mcp.example/mcp".into()),
        }
    }

    #[test]
    fn post_carries_the_client_in_the_body() {
        let encoded = request(ClientAuthMethod::ClientSecretPost).encode();
        assert_eq!(
            encoded.body.expose_secret(),
            "grant_type=client_credentials&client_id=me&client_secret=s%26cret&scope=mcp%3Aread+mcp%3Awrite\
             &audience=api&resource=https%3A%2F%2Fmcp.example%2Fmcp"
        );
        assert!(encoded.authorization.is_none());
    }

    #[test]
    fn basic_keeps_the_client_out_of_the_body() {
        let encoded = request(ClientAuthMethod::ClientSecretBasic).encode();
        assert!(!encoded.body.expose_secret().contains("client_id"));
        assert!(!encoded.body.expose_secret().contains("cret"));
        assert!(encoded.authorization.is_some());
    }

    #[test]
    fn optional_parameters_are_left_out() {
        let bare = ClientCredentialsRequest {
            scopes: vec![],
            audience: None,
            resource: None,
            ..request(ClientAuthMethod::ClientSecretBasic)
        };
        assert_eq!(
            bare.encode().body.expose_secret(),
            "grant_type=client_credentials"
        );
    }

    #[test]
    fn scope_tokens() {
        for good in ["mcp:read", "a", "https://x/y", "!"] {
            assert!(is_scope_token(good), "{good}");
        }
        for bad in ["", "a b", "a\"", "a\\", "ü", "a\n"] {
            assert!(!is_scope_token(bad), "{bad:?}");
        }
    }
}

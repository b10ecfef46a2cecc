//! Token requests as bytes to send: the client credentials grant (RFC 6749 section 4.4.2), a code's
//! exchange (section 4.1.3) and a refresh (section 6). What all of them share is written once.

use crate::client_auth::{Client, ClientAuthMethod, ClientSecret, form_encoded};
use crate::token_exchange::ClientProof;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::Serializer;

/// Everything that a client credentials token depends on, but for the client.
#[derive(Debug, Clone)]
pub struct ClientCredentialsRequest {
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

/// The exchange of an authorization code (RFC 6749 section 4.1.3).
#[derive(Debug, Clone)]
pub struct CodeRequest {
    /// Who asks.
    pub client: Client,
    /// `code`.
    pub code: SecretString,
    /// `redirect_uri`, the one of the authorization request.
    pub redirect_uri: String,
    /// `code_verifier` (RFC 7636 section 4.5).
    pub code_verifier: Option<SecretString>,
    /// `resource` (RFC 8707 section 2.2).
    pub resource: Option<String>,
}

/// A refresh (RFC 6749 section 6).
#[derive(Debug, Clone)]
pub struct RefreshRequest {
    /// Who asks: the client that the refresh token was issued to.
    pub client: Client,
    /// `refresh_token`.
    pub refresh_token: SecretString,
    /// `scope`, when less than before is asked for.
    pub scope: Option<String>,
    /// `resource` (RFC 8707 section 2.2).
    pub resource: Option<String>,
}

/// A revocation (RFC 7009 section 2.1).
#[derive(Debug, Clone)]
pub struct RevocationRequest {
    /// Who asks: the client that the token was issued to.
    pub client: Client,
    /// `token`.
    pub token: SecretString,
    /// `token_type_hint`: `access_token` or `refresh_token`.
    pub token_type_hint: &'static str,
}

impl RevocationRequest {
    /// Writes the request (RFC 7009 section 2.1).
    pub fn encode(&self) -> EncodedTokenRequest {
        let parameters = [
            ("token", Some(self.token.expose_secret())),
            ("token_type_hint", Some(self.token_type_hint)),
        ];
        encode_for(&self.client, None, &parameters)
    }
}

impl ClientCredentialsRequest {
    /// Writes the request. With `client_secret_basic` neither identifier nor secret is in the body
    /// (RFC 6749 section 2.3: one method a request).
    pub fn encode(&self, proof: &ClientProof) -> EncodedTokenRequest {
        let scope = self.scopes.join(" ");
        let parameters = [
            ("scope", Some(scope.as_str()).filter(|scope| !scope.is_empty())),
            ("audience", self.audience.as_deref()),
            ("resource", self.resource.as_deref()),
        ];
        proof.encode("client_credentials", &parameters)
    }

    /// What an answer must not repeat: the client's secret or its assertion, as sent.
    pub fn sent_secrets(&self, proof: &ClientProof) -> Vec<SecretString> {
        proof.sent_secrets(std::iter::empty())
    }
}

impl CodeRequest {
    /// Writes the request (RFC 6749 section 4.1.3).
    pub fn encode(&self) -> EncodedTokenRequest {
        let parameters = [
            ("code", Some(self.code.expose_secret())),
            ("redirect_uri", Some(self.redirect_uri.as_str())),
            (
                "code_verifier",
                self.code_verifier.as_ref().map(ExposeSecret::expose_secret),
            ),
            ("resource", self.resource.as_deref()),
        ];
        encode_for(&self.client, Some("authorization_code"), &parameters)
    }

    /// What an answer must not repeat: the code, the verifier and the client's secret, as sent.
    pub fn sent_secrets(&self) -> Vec<SecretString> {
        sent_secrets(
            &self.client,
            [Some(&self.code), self.code_verifier.as_ref()]
                .into_iter()
                .flatten(),
        )
    }
}

impl RefreshRequest {
    /// Writes the request (RFC 6749 section 6).
    pub fn encode(&self) -> EncodedTokenRequest {
        let parameters = [
            ("refresh_token", Some(self.refresh_token.expose_secret())),
            ("scope", self.scope.as_deref().filter(|scope| !scope.is_empty())),
            ("resource", self.resource.as_deref()),
        ];
        encode_for(&self.client, Some("refresh_token"), &parameters)
    }

    /// What an answer must not repeat: the refresh token and the client's secret, as sent.
    pub fn sent_secrets(&self) -> Vec<SecretString> {
        sent_secrets(&self.client, [&self.refresh_token].into_iter())
    }
}

fn encode_for(
    client: &Client,
    grant: Option<&str>,
    parameters: &[(&str, Option<&str>)],
) -> EncodedTokenRequest {
    let proof = client.proof();
    encode(grant, &client.id, proof.as_ref(), client.auth_method, parameters)
}

/// The shared steps: the grant type, the client in its one place, then the parameters that are there.
pub(crate) fn encode(
    grant: Option<&str>,
    client_id: &str,
    proof: Option<&ClientSecret>,
    method: ClientAuthMethod,
    parameters: &[(&str, Option<&str>)],
) -> EncodedTokenRequest {
    let mut form = Serializer::new(String::new());
    if let Some(grant) = grant {
        form.append_pair("grant_type", grant);
    }
    let basic = proof.filter(|_| method == ClientAuthMethod::ClientSecretBasic);
    if basic.is_none() {
        form.append_pair("client_id", client_id);
        if let Some(client) = proof {
            form.append_pair("client_secret", client.secret.expose_secret());
        }
    }
    for (name, value) in parameters {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    EncodedTokenRequest {
        body: form.finish().into(),
        authorization: basic.map(ClientSecret::basic),
    }
}

fn sent_secrets<'a>(client: &Client, bare: impl Iterator<Item = &'a SecretString>) -> Vec<SecretString> {
    let encoded = |secret: &SecretString| SecretString::from(form_encoded(secret.expose_secret()));
    let mut secrets: Vec<_> = bare
        .flat_map(|secret| [secret.clone(), encoded(secret)])
        .collect();
    secrets.extend(client.proof().iter().flat_map(ClientSecret::sent_secrets));
    secrets
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

    fn proof(auth_method: ClientAuthMethod) -> ClientProof {
        ClientProof::Shared(client(Some("s&cret"), auth_method))
    }

    fn request() -> ClientCredentialsRequest {
        ClientCredentialsRequest {
            scopes: vec!["mcp:read".into(), "mcp:write".into()],
            audience: Some("api".into()),
            resource: Some("https://mcp.example/mcp".into()),
        }
    }

    #[test]
    fn post_carries_the_client_in_the_body() {
        let encoded = request().encode(&proof(ClientAuthMethod::ClientSecretPost));
        assert_eq!(
            encoded.body.expose_secret(),
            "grant_type=client_credentials&client_id=me&client_secret=s%26cret&scope=mcp%3Aread+mcp%3Awrite\
             &audience=api&resource=https%3A%2F%2Fmcp.example%2Fmcp"
        );
        assert!(encoded.authorization.is_none());
    }

    #[test]
    fn basic_keeps_the_client_out_of_the_body() {
        let encoded = request().encode(&proof(ClientAuthMethod::ClientSecretBasic));
        assert!(!encoded.body.expose_secret().contains("client_id"));
        assert!(!encoded.body.expose_secret().contains("cret"));
        assert!(encoded.authorization.is_some());
    }

    #[test]
    fn a_key_sends_an_assertion_in_place_of_a_secret() {
        let proof = ClientProof::Assertion {
            client_id: "me".into(),
            assertion: "a.b.c".into(),
        };
        let encoded = request().encode(&proof);
        assert_eq!(
            encoded.body.expose_secret(),
            "grant_type=client_credentials&client_id=me\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=a.b.c\
             &scope=mcp%3Aread+mcp%3Awrite&audience=api&resource=https%3A%2F%2Fmcp.example%2Fmcp"
        );
        assert!(encoded.authorization.is_none());
        let secrets = request().sent_secrets(&proof);
        assert_eq!(
            secrets
                .iter()
                .map(ExposeSecret::expose_secret)
                .collect::<Vec<_>>(),
            ["a.b.c"]
        );
    }

    #[test]
    fn optional_parameters_are_left_out() {
        let bare = ClientCredentialsRequest {
            scopes: vec![],
            audience: None,
            resource: None,
        };
        assert_eq!(
            bare.encode(&proof(ClientAuthMethod::ClientSecretBasic))
                .body
                .expose_secret(),
            "grant_type=client_credentials"
        );
    }

    fn client(secret: Option<&str>, auth_method: ClientAuthMethod) -> Client {
        Client {
            id: "me".into(),
            secret: secret.map(SecretString::from),
            auth_method,
        }
    }

    #[test]
    fn a_code_is_exchanged() {
        let mut request = CodeRequest {
            client: client(None, ClientAuthMethod::None),
            code: "c o+de".into(),
            redirect_uri: "https://gw.example/callback".into(),
            code_verifier: Some("verifier".into()),
            resource: Some("https://mcp.example/mcp".into()),
        };
        let encoded = request.encode();
        assert_eq!(
            encoded.body.expose_secret(),
            "grant_type=authorization_code&client_id=me&code=c+o%2Bde\
             &redirect_uri=https%3A%2F%2Fgw.example%2Fcallback&code_verifier=verifier\
             &resource=https%3A%2F%2Fmcp.example%2Fmcp"
        );
        assert!(encoded.authorization.is_none());

        request.client = client(Some("s&cret"), ClientAuthMethod::ClientSecretBasic);
        (request.code_verifier, request.resource) = (None, None);
        let encoded = request.encode();
        assert_eq!(
            encoded.body.expose_secret(),
            "grant_type=authorization_code&code=c+o%2Bde&redirect_uri=https%3A%2F%2Fgw.example%2Fcallback"
        );
        assert!(encoded.authorization.is_some());
        let secrets = request.sent_secrets();
        for secret in ["c o+de", "c+o%2Bde", "s&cret", "s%26cret"] {
            assert!(
                secrets.iter().any(|sent| sent.expose_secret() == secret),
                "{secret}"
            );
        }
        assert!(!format!("{request:?}").contains("o+de"));
    }

    #[test]
    fn a_token_is_refreshed() {
        let request = RefreshRequest {
            client: client(Some("s&cret"), ClientAuthMethod::ClientSecretPost),
            refresh_token: "r".into(),
            scope: Some("a b".into()),
            resource: None,
        };
        assert_eq!(
            request.encode().body.expose_secret(),
            "grant_type=refresh_token&client_id=me&client_secret=s%26cret&refresh_token=r&scope=a+b"
        );
    }

    #[test]
    fn without_a_secret_the_client_is_named_whatever_its_method() {
        for (secret, method) in [
            (None, ClientAuthMethod::ClientSecretBasic),
            (None, ClientAuthMethod::ClientSecretPost),
            (Some("s"), ClientAuthMethod::None),
        ] {
            let request = RefreshRequest {
                client: client(secret, method),
                refresh_token: "r".into(),
                scope: None,
                resource: None,
            };
            let encoded = request.encode();
            assert_eq!(
                encoded.body.expose_secret(),
                "grant_type=refresh_token&client_id=me&refresh_token=r"
            );
            assert!(encoded.authorization.is_none());
        }
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

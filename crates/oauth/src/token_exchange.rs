//! Requests that turn a person's token into another: the token exchange grant (RFC 8693) and the JWT bearer grant
//! (RFC 7523 section 2.1) in two uses, Entra's on-behalf-of flow and the second leg of the identity assertion grant.

use crate::client_assertion::CLIENT_ASSERTION_TYPE;
use crate::client_auth::{Client, ClientAuthMethod, ClientSecret, form_encoded};
use crate::error::is_object;
use crate::token_request::{EncodedTokenRequest, encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The grant type of RFC 8693 section 2.1.
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The grant type of RFC 7523 section 2.1.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An access token (RFC 8693 section 3).
pub const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// A JSON Web Token (RFC 8693 section 3).
pub const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
/// An identity token (RFC 8693 section 3).
pub const ID_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:id_token";
/// An identity assertion authorization grant (draft-ietf-oauth-identity-assertion-authz-grant section 3).
pub const ID_JAG_TYPE: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// The longest `claims` that is read from an error.
const CLAIMS_LIMIT: usize = 4096;

/// How the client proves itself in one request.
#[derive(Debug, Clone)]
pub enum ClientProof {
    /// With a shared secret, or not at all.
    Shared(Client),
    /// With a signed assertion (RFC 7523 section 2.2).
    Assertion {
        /// `client_id`, sent beside it (RFC 7521 section 4.2): some authorization servers look there first.
        client_id: String,
        /// `client_assertion`.
        assertion: SecretString,
    },
}

/// A token exchange (RFC 8693 section 2.1).
#[derive(Debug, Clone)]
pub struct ExchangeRequest<'r> {
    /// `subject_token`.
    pub subject_token: &'r SecretString,
    /// `subject_token_type`.
    pub subject_token_type: &'r str,
    /// `requested_token_type`; left out, the authorization server chooses.
    pub requested_token_type: Option<&'r str>,
    /// `actor_token` and `actor_token_type`, which go together.
    pub actor: Option<(&'r SecretString, &'r str)>,
    /// `audience`.
    pub audience: Option<&'r str>,
    /// `resource` (RFC 8707).
    pub resource: Option<&'r str>,
    /// Sent as one `scope`; left out when empty.
    pub scopes: &'r [String],
}

/// A JWT bearer grant (RFC 7523 section 2.1).
#[derive(Debug, Clone)]
pub struct JwtBearerRequest<'r> {
    /// `assertion`.
    pub assertion: &'r SecretString,
    /// Sent as one `scope`; left out when empty.
    pub scopes: &'r [String],
    /// Whether to send Entra's `requested_token_use=on_behalf_of`.
    pub on_behalf_of: bool,
}

impl ExchangeRequest<'_> {
    /// Writes the request.
    pub fn encode(&self, proof: &ClientProof) -> EncodedTokenRequest {
        let scope = self.scopes.join(" ");
        proof.encode(
            TOKEN_EXCHANGE,
            &[
                ("subject_token", Some(self.subject_token.expose_secret())),
                ("subject_token_type", Some(self.subject_token_type)),
                ("requested_token_type", self.requested_token_type),
                ("actor_token", self.actor.map(|(token, _)| token.expose_secret())),
                ("actor_token_type", self.actor.map(|(_, kind)| kind)),
                ("audience", self.audience),
                ("resource", self.resource),
                ("scope", Some(scope.as_str()).filter(|scope| !scope.is_empty())),
            ],
        )
    }

    /// What an answer must not repeat, as sent.
    pub fn sent_secrets(&self, proof: &ClientProof) -> Vec<SecretString> {
        let actor = self.actor.map(|(token, _)| token);
        proof.sent_secrets([Some(self.subject_token), actor].into_iter().flatten())
    }
}

impl JwtBearerRequest<'_> {
    /// Writes the request.
    pub fn encode(&self, proof: &ClientProof) -> EncodedTokenRequest {
        let scope = self.scopes.join(" ");
        proof.encode(
            JWT_BEARER,
            &[
                ("assertion", Some(self.assertion.expose_secret())),
                ("requested_token_use", self.on_behalf_of.then_some("on_behalf_of")),
                ("scope", Some(scope.as_str()).filter(|scope| !scope.is_empty())),
            ],
        )
    }

    /// What an answer must not repeat, as sent.
    pub fn sent_secrets(&self, proof: &ClientProof) -> Vec<SecretString> {
        proof.sent_secrets([self.assertion].into_iter())
    }
}

impl ClientProof {
    pub(crate) fn encode(&self, grant: &str, parameters: &[(&str, Option<&str>)]) -> EncodedTokenRequest {
        match self {
            Self::Shared(client) => {
                let secret = client.proof();
                encode(
                    Some(grant),
                    &client.id,
                    secret.as_ref(),
                    client.auth_method,
                    parameters,
                )
            }
            Self::Assertion { client_id, assertion } => {
                let mut all = vec![
                    ("client_assertion_type", Some(CLIENT_ASSERTION_TYPE)),
                    ("client_assertion", Some(assertion.expose_secret())),
                ];
                all.extend_from_slice(parameters);
                encode(Some(grant), client_id, None, ClientAuthMethod::None, &all)
            }
        }
    }

    pub(crate) fn sent_secrets<'s>(
        &self,
        tokens: impl Iterator<Item = &'s SecretString>,
    ) -> Vec<SecretString> {
        let mut secrets: Vec<SecretString> = tokens
            .flat_map(|token| [token.clone(), form_encoded(token.expose_secret()).into()])
            .collect();
        match self {
            Self::Shared(client) => {
                secrets.extend(client.proof().iter().flat_map(ClientSecret::sent_secrets));
            }
            Self::Assertion { assertion, .. } => secrets.push(assertion.clone()),
        }
        secrets
    }
}

/// `claims` of an Entra error response: a JSON object that the client has to bring back to the authorization endpoint
/// (`OpenID` Connect Core 1.0 section 5.5). `None` when it is absent, too long or no object.
pub fn claims_challenge(error: &Value) -> Option<String> {
    let claims = error.get("claims")?.as_str()?;
    let object = claims.len() <= CLAIMS_LIMIT
        && is_object(claims.as_bytes())
        && serde_json::from_str::<Value>(claims).is_ok();
    object.then(|| claims.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret() -> ClientProof {
        ClientProof::Shared(Client {
            id: "gw".into(),
            secret: Some("s&cret".into()),
            auth_method: ClientAuthMethod::ClientSecretPost,
        })
    }

    fn key() -> ClientProof {
        ClientProof::Assertion {
            client_id: "gw".into(),
            assertion: "a.b.c".into(),
        }
    }

    #[test]
    fn wire_requests() {
        let (subject, actor) = (SecretString::from("sub ject"), SecretString::from("actor"));
        let scopes = ["mcp:read".to_owned(), "mcp:write".to_owned()];
        let full = ExchangeRequest {
            subject_token: &subject,
            subject_token_type: ACCESS_TOKEN_TYPE,
            requested_token_type: None,
            actor: Some((&actor, JWT_TYPE)),
            audience: Some("api"),
            resource: Some("https://mcp.example/mcp"),
            scopes: &scopes,
        };
        let bare = ExchangeRequest {
            requested_token_type: Some(ID_JAG_TYPE),
            actor: None,
            audience: None,
            resource: None,
            scopes: &[],
            ..full.clone()
        };
        let bearer = JwtBearerRequest {
            assertion: &subject,
            scopes: &scopes,
            on_behalf_of: true,
        };
        let exchange = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
        let access = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";
        for (encoded, expected) in [
            (
                full.encode(&secret()),
                format!(
                    "{exchange}&client_id=gw&client_secret=s%26cret&subject_token=sub+ject&subject_token_type={access}\
                     &actor_token=actor&actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience=api\
                     &resource=https%3A%2F%2Fmcp.example%2Fmcp&scope=mcp%3Aread+mcp%3Awrite"
                ),
            ),
            (
                bare.encode(&key()),
                format!(
                    "{exchange}&client_id=gw\
                     &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                     &client_assertion=a.b.c&subject_token=sub+ject&subject_token_type={access}\
                     &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid-jag"
                ),
            ),
            (
                bearer.encode(&secret()),
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&client_id=gw\
                 &client_secret=s%26cret&assertion=sub+ject&requested_token_use=on_behalf_of\
                 &scope=mcp%3Aread+mcp%3Awrite"
                    .to_owned(),
            ),
        ] {
            assert_eq!(encoded.body.expose_secret(), expected);
            assert!(encoded.authorization.is_none());
        }
        let shown = format!("{full:?}{bearer:?}{:?}", key());
        for hidden in ["sub ject", "actor\"", "a.b.c"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        let sent = full.sent_secrets(&secret());
        for hidden in ["sub ject", "sub+ject", "actor", "s&cret", "s%26cret"] {
            assert!(
                sent.iter().any(|known| known.expose_secret() == hidden),
                "{hidden}"
            );
        }
    }

    #[test]
    fn only_an_object_is_a_claims_challenge() {
        let claims = r#"{"access_token":{"acrs":{"essential":true}}}"#;
        assert_eq!(
            claims_challenge(&json!({"claims": claims})).as_deref(),
            Some(claims)
        );
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(CLAIMS_LIMIT));
        for other in [
            json!({}),
            json!({"claims": {}}),
            json!({"claims": "[1]"}),
            json!({"claims": "{"}),
            json!({"claims": long}),
        ] {
            assert_eq!(claims_challenge(&other), None);
        }
    }
}

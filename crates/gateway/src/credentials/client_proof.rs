//! How the gateway proves who it is at a token endpoint: with the configured secret, or with an assertion made for one
//! request.

use crate::clock::Clock;
use crate::config::{AssertionAudience, ClientKey, ExchangeClient};
use crate::ids::random_hex;
use crate::net::token_endpoint::TokenFault;
use url::Url;
use vestibule_oauth::token_exchange::ClientProof;

/// The proof of `client` for one request to `endpoint`.
///
/// # Errors
/// When an assertion cannot be signed.
pub fn proof(client: &ExchangeClient, endpoint: &Url, clock: &Clock) -> Result<ClientProof, TokenFault> {
    match client {
        ExchangeClient::Shared(client) => Ok(ClientProof::Shared(client.clone())),
        ExchangeClient::Key(ClientKey { id, key, audience }) => {
            let audience = match audience {
                AssertionAudience::Issuer(issuer) => issuer,
                AssertionAudience::TokenEndpoint => endpoint.as_str(),
            };
            let assertion = key.assertion(id, audience, &random_hex(), clock.unix_seconds());
            Ok(ClientProof::Assertion {
                client_id: id.clone(),
                assertion: assertion.ok_or(TokenFault::Unsigned)?,
            })
        }
    }
}

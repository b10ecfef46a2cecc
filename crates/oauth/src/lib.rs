//! OAuth 2.0 as types and rules: what a token request says, what a token response may say, how a
//! challenge is written. There is no I/O here and no clock; callers bring bytes and get decisions.

pub mod challenge;
pub mod client_auth;
pub mod error;
pub mod token_request;
pub mod token_response;

pub use challenge::BearerChallenge;
pub use client_auth::{ClientAuthMethod, ClientSecret};
pub use error::ErrorResponse;
pub use token_request::{ClientCredentialsRequest, EncodedTokenRequest};
pub use token_response::{AccessToken, Lifetime, TokenResponse, TokenResponseFault};

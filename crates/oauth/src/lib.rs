//! OAuth 2.0 as types and rules: what a token request says, what a token response may say, how a
//! challenge is written. There is no I/O here and no clock; callers bring bytes and get decisions.

pub mod challenge;
pub mod client_assertion;
pub mod client_auth;
pub mod error;
pub mod jwt;
pub mod metadata;
pub mod origin;
pub mod pkce;
pub mod redirect_uri;
pub mod registration;
pub mod token_exchange;
pub mod token_request;
pub mod token_response;
pub mod token_validation;

pub use challenge::{BearerChallenge, UpstreamChallenge, parse_bearer, with_resource_metadata};
pub use client_auth::{Client, ClientAuthMethod, ClientSecret};
pub use error::{ErrorResponse, OAuthError, OAuthErrorCode};
pub use origin::{NotAnOrigin, Origin, Scheme, is_loopback_host};
pub use pkce::CodeChallenge;
pub use redirect_uri::{JudgedRedirectUri, RedirectRejection, RedirectRules, Trust};
pub use registration::{
    ClientMetadata, RegisteredClient, RegistrationFault, RegistrationRefusal, RegistrationResponse,
};
pub use token_request::{ClientCredentialsRequest, CodeRequest, EncodedTokenRequest, RefreshRequest};
pub use token_response::{AccessToken, Lifetime, TokenDocument, TokenResponse, TokenResponseFault};
pub use token_validation::{Mismatch, TokenRules};

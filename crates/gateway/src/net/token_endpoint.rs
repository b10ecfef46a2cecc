//! The client for token endpoints: one POST, no redirect followed, bounded in time and size.

use bytes::BytesMut;
use reqwest::redirect::Policy;
use reqwest::{Client, header};
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use std::time::Duration;
use thiserror::Error;
use url::Url;
use vestibule_oauth::token_request::ClientCredentialsRequest;
use vestibule_oauth::{TokenResponse, TokenResponseFault};

/// The largest token response that is read.
const BODY_LIMIT: usize = 256 * 1024;

/// Why there is no token. Shown to callers: no variant holds a secret or a body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// No connection.
    #[error("the token endpoint cannot be reached ({0})")]
    Unreachable(String),
    /// No whole answer in time.
    #[error("the token endpoint did not answer in time")]
    Timeout,
    /// The answer is larger than a token response may be.
    #[error("the token endpoint answered with more than {BODY_LIMIT} bytes")]
    TooLarge,
    /// The connection ended within the answer.
    #[error("the token endpoint's answer ended before its end")]
    Truncated,
    /// An answer that is no token.
    #[error(transparent)]
    Response(#[from] TokenResponseFault),
}

/// Sends token requests.
#[derive(Debug, Clone)]
pub struct TokenClient {
    http: Client,
}

impl TokenClient {
    /// `timeout` bounds a whole request.
    pub fn new(timeout: Duration, tls: ClientConfig) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .no_proxy()
            .retry(reqwest::retry::never())
            .user_agent(concat!("vestibule/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http })
    }

    /// Asks for a token of the client credentials grant (RFC 6749 section 4.4).
    pub async fn client_credentials(
        &self,
        token_url: &Url,
        request: &ClientCredentialsRequest,
    ) -> Result<TokenResponse, TokenFault> {
        let encoded = request.encode();
        let mut post = self
            .http
            .post(token_url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(encoded.body.expose_secret().to_owned());
        if let Some(authorization) = encoded.authorization {
            post = post.header(header::AUTHORIZATION, authorization.expose_secret());
        }
        let mut response = post.send().await.map_err(|error| fault(&error))?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| match fault(&error) {
            TokenFault::Timeout => TokenFault::Timeout,
            _ => TokenFault::Truncated,
        })? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(TokenFault::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let sent = request.client.sent_secrets();
        let secrets = sent.each_ref().map(ExposeSecret::expose_secret);
        Ok(TokenResponse::parse(
            status,
            content_type.as_deref(),
            &body,
            &secrets,
        )?)
    }
}

fn fault(error: &reqwest::Error) -> TokenFault {
    if error.is_timeout() {
        TokenFault::Timeout
    } else {
        TokenFault::Unreachable(super::pool::describe(error))
    }
}

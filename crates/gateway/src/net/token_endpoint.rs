//! The client for token endpoints: one POST, no redirect followed, bounded in time and size.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, header};
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use std::time::Duration;
use thiserror::Error;
use url::Url;
use vestibule_oauth::token_exchange::ClientProof;
use vestibule_oauth::token_request::{ClientCredentialsRequest, EncodedTokenRequest};
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
    /// The caller's own token was refused, not the gateway.
    #[error("the authorization server does not accept the caller's token ({error})")]
    Subject {
        /// The registered `error`.
        error: &'static str,
        /// Entra's `claims`, for the caller's client and nobody else.
        claims: Option<String>,
    },
    /// The metadata that would name the token endpoint cannot be had.
    #[error("the token endpoint is not known: {0}")]
    Undiscovered(String),
    /// As many tokens are being exchanged as may be at once; nothing was asked.
    #[error("as many tokens are being exchanged as may be at once")]
    Crowded,
    /// The client assertion, or the request to AWS STS, could not be signed.
    #[error("the request for a token could not be signed")]
    Unsigned,
    /// AWS STS does not give out the role; the `Code` of its error, if that is one.
    #[error("AWS STS refuses to let the role be assumed ({0})")]
    Role(String),
    /// What AWS STS answered is no access key that can be used, and what is wrong with it.
    #[error("what AWS STS answered is no access key of the role ({0})")]
    NoAccessKey(&'static str),
}

/// What a token endpoint answered, unjudged. The body is for reading, not for showing.
pub struct TokenAnswer {
    /// The status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
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
        proof: &ClientProof,
    ) -> Result<TokenResponse, TokenFault> {
        let answer = self.post(token_url, &request.encode(proof)).await?;
        let sent = request.sent_secrets(proof);
        let secrets: Vec<&str> = sent.iter().map(ExposeSecret::expose_secret).collect();
        Ok(TokenResponse::parse(
            answer.status,
            answer.content_type.as_deref(),
            &answer.body,
            &secrets,
        )?)
    }

    /// Sends any token request.
    pub async fn post(
        &self,
        token_url: &Url,
        encoded: &EncodedTokenRequest,
    ) -> Result<TokenAnswer, TokenFault> {
        let mut post = self
            .http
            .post(token_url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(encoded.body.expose_secret().to_owned());
        if let Some(authorization) = &encoded.authorization {
            post = post.header(header::AUTHORIZATION, authorization.expose_secret());
        }
        answer(post).await
    }

    /// Sends a request that is signed, with the headers of its signature.
    pub async fn post_signed(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: String,
    ) -> Result<TokenAnswer, TokenFault> {
        answer(self.http.post(url.clone()).headers(headers).body(body)).await
    }
}

/// Sends, and reads the answer within its limits.
async fn answer(post: RequestBuilder) -> Result<TokenAnswer, TokenFault> {
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
    Ok(TokenAnswer {
        status,
        content_type,
        body: body.freeze(),
    })
}

fn fault(error: &reqwest::Error) -> TokenFault {
    if error.is_timeout() {
        TokenFault::Timeout
    } else {
        TokenFault::Unreachable(super::pool::describe(error))
    }
}

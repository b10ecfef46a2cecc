//! AWS Signature Version 4: every request is signed as it is sent, headers and body, at the time of the gateway's
//! clock. The algorithm is the AWS SDK's; nothing is kept between requests but the access key, which is the configured
//! one or a role's.

mod role;
mod sts_answer;

use super::machine::{MachineTokens, Slot};
use crate::config::AwsSettings;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningParams, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use role::Role;
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use thiserror::Error;
use tracing::Dispatch;
use url::Url;

/// A request that cannot be signed. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the request cannot be signed")]
pub struct Unsignable;

/// Signs requests to one server.
pub struct Signer {
    key: AccessKey,
    scope: Scope,
}

/// Whose signature it is.
pub enum AccessKey {
    /// The configured access key's.
    Configured(Credentials),
    /// A role's, whose access keys come and go.
    OfRole(Arc<Slot<Credentials>>),
}

/// What a signature is good for, beside the request itself.
struct Scope {
    region: String,
    service: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("region", &self.scope.region)
            .field("service", &self.scope.service)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer of requests to `server`. What a role gives out is kept as `tokens` are.
    pub fn new(server: &str, settings: &AwsSettings, tokens: &MachineTokens) -> Self {
        let token = settings.session_token.as_ref();
        let configured = Credentials::new(
            &settings.access_key_id,
            settings.secret_access_key.expose_secret(),
            token.map(|token| token.expose_secret().to_owned()),
            None,
            "configuration",
        );
        let key = match &settings.role {
            None => AccessKey::Configured(configured),
            Some(role) => {
                let source = Role::new(role, &settings.region, configured, tokens);
                AccessKey::OfRole(tokens.slot_from(server, source))
            }
        };
        Self {
            key,
            scope: Scope {
                region: settings.region.clone(),
                service: settings.service.clone(),
            },
        }
    }

    /// Where the access key comes from.
    pub fn key(&self) -> &AccessKey {
        &self.key
    }

    /// Adds the signature of `key` over all of this to `headers`, `Host` included. What a header holds that is not text
    /// stays out of the signature, as do the headers that proxies change.
    ///
    /// # Errors
    /// When the cryptography or a header does not take it.
    pub fn sign(
        &self,
        key: &Credentials,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
        body: &[u8],
        unix_seconds: u64,
    ) -> Result<(), Unsignable> {
        self.scope.sign(key, method, url, headers, body, unix_seconds)
    }
}

impl Scope {
    fn sign(
        &self,
        key: &Credentials,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
        body: &[u8],
        unix_seconds: u64,
    ) -> Result<(), Unsignable> {
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = key.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(UNIX_EPOCH + Duration::from_secs(unix_seconds))
            .settings(settings)
            .build()
            .map_err(|_| Unsignable)?;
        let parameters = SigningParams::from(parameters);
        let text = headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new(
            method.as_str(),
            &url[..url::Position::AfterQuery],
            text,
            SignableBody::Bytes(body),
        )
        .map_err(|_| Unsignable)?;
        // The SDK logs what it signs, which may be secret, at the level of traces.
        let signed = tracing::dispatcher::with_default(&Dispatch::none(), || sign(request, &parameters));
        let (instructions, _) = signed.map_err(|_| Unsignable)?.into_parts();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsignable)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| Unsignable)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }
}

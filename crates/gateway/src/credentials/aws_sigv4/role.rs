//! `AssumeRole`: the configured access key asks AWS STS for one of a role, which is used until shortly before its end.

use super::Scope;
use super::sts_answer::{assumed, refusal};
use crate::clock::Clock;
use crate::config::RoleSettings;
use crate::credentials::machine::{Fetched, MachineTokens, Source};
use crate::net::token_endpoint::{TokenClient, TokenFault};
use aws_credential_types::Credentials;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;
use url::form_urlencoded::Serializer;
use vestibule_oauth::{Lifetime, TokenResponseFault};

/// The version of STS's interface, of which there is one.
const VERSION: &str = "2011-06-15";
/// The longest session that a role can be given, whatever an answer says.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// One role, at one STS.
pub(super) struct Role {
    settings: RoleSettings,
    configured: Credentials,
    scope: Scope,
    client: TokenClient,
    clock: Clock,
}

impl Role {
    /// The role, for which `configured` asks in `region`.
    pub(super) fn new(
        settings: &RoleSettings,
        region: &str,
        configured: Credentials,
        tokens: &MachineTokens,
    ) -> Self {
        Self {
            settings: settings.clone(),
            configured,
            scope: Scope {
                region: region.to_owned(),
                service: "sts".to_owned(),
            },
            client: tokens.client().clone(),
            clock: tokens.clock().clone(),
        }
    }

    async fn assume(&self) -> Result<Fetched<Credentials>, TokenFault> {
        let asked = self.clock.unix_seconds();
        let name = match &self.settings.session_name {
            Some(name) => name.clone(),
            None => format!("vestibule-{asked}"),
        };
        let body = Serializer::new(String::new())
            .append_pair("Action", "AssumeRole")
            .append_pair("Version", VERSION)
            .append_pair("RoleArn", &self.settings.arn)
            .append_pair("RoleSessionName", &name)
            .finish();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        // The interface has JSON too, under another shape.
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/xml"));
        let url = &self.settings.endpoint;
        self.scope
            .sign(
                &self.configured,
                &Method::POST,
                url,
                &mut headers,
                body.as_bytes(),
                asked,
            )
            .map_err(|_| TokenFault::Unsigned)?;
        let answer = self.client.post_signed(url, headers, body).await?;
        match answer.status {
            200 => {
                let assumed = assumed(&answer.body).map_err(TokenFault::NoAccessKey)?;
                let left = assumed.ends.saturating_sub(self.clock.unix_seconds());
                if left == 0 {
                    return Err(TokenFault::NoAccessKey("it has ended already"));
                }
                Ok(Fetched {
                    credential: assumed.key,
                    lifetime: Lifetime::Known(Duration::from_secs(left)),
                    at_most: Some(LONGEST),
                })
            }
            status @ 300..=399 => Err(TokenFault::Response(TokenResponseFault::Redirect(status))),
            _ => Err(match refusal(&answer.body) {
                Some(code) => TokenFault::Role(code),
                None => TokenFault::NoAccessKey("it is an error without a code"),
            }),
        }
    }
}

impl Source<Credentials> for Role {
    fn fetch(&self) -> BoxFuture<'_, Result<Fetched<Credentials>, TokenFault>> {
        Box::pin(self.assume())
    }
}

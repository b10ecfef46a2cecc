//! A code or refresh token redeemed for a client, and kept for the person where the person is known. It runs to its end
//! whoever hangs up: what a provider rotated must not get lost between two machines.

use super::grant::Grant;
use super::renewal::{ExchangeFault, exchange};
use super::{Parts, Person, Persons, Slots};
use crate::config::SignIn;
use crate::issuer::registrations::UpstreamClient;
use crate::issuer::upstream::UpstreamEndpoints;
use crate::live::Live;
use crate::registry::Server;
use secrecy::SecretString;
use std::sync::Arc;
use vestibule_oauth::token_request::EncodedTokenRequest;
use vestibule_oauth::{Mismatch, TokenResponse};
use vestibule_store::{ServerId, StoreError, UserId};

/// What is to be redeemed.
pub struct Redemption {
    /// Where.
    pub endpoints: Arc<UpstreamEndpoints>,
    /// The request.
    pub request: EncodedTokenRequest,
    /// What an answer must not repeat.
    pub secrets: Vec<SecretString>,
    /// Whose rules the tokens must meet.
    pub sign_in: Arc<SignIn>,
    /// The client that asks.
    pub upstream: UpstreamClient,
    /// Whose tokens they become, if that is known.
    pub person: Option<Person>,
    /// For which server, as the request began with it.
    pub server: Arc<Server>,
    /// Where the server may be found moved by the time the tokens come. Nothing for tokens that are not kept and were
    /// there before: a renewal agrees to nothing anew.
    pub live: Option<Arc<Live>>,
    /// By what id the record has the sign-in, where it is known.
    pub flow: Option<String>,
}

/// What came of it.
pub enum Redeemed {
    /// Tokens, and the name that they are kept under, if they are.
    Tokens(Box<TokenResponse>, Option<String>),
    /// Tokens that break the operator's rules: neither kept nor given to anybody.
    RuleBroken(Mismatch),
}

impl Persons {
    /// Redeems, judges and keeps.
    pub async fn redeem(&self, redemption: Redemption) -> Result<Redeemed, ExchangeFault> {
        let (parts, slots) = (Arc::clone(&self.parts), self.slots.clone());
        let work = async move { parts.redeem(&slots, redemption).await };
        let done = self.parts.runtime.spawn(work).await;
        done.unwrap_or_else(|_| Err(ExchangeFault::NoEndpoints("the exchange broke off".into())))
    }
}

impl Parts {
    async fn redeem(&self, slots: &Slots, redemption: Redemption) -> Result<Redeemed, ExchangeFault> {
        let Redemption {
            endpoints,
            request,
            secrets,
            sign_in,
            upstream,
            person,
            server,
            live,
            flow,
        } = redemption;
        let tokens = exchange(&self.guarded, &endpoints, &request, &secrets).await?;
        if let Err(mismatch) = sign_in.token_rules.check(tokens.document.value()) {
            return Ok(Redeemed::RuleBroken(mismatch));
        }
        let unmoved = match live {
            Some(live) => live.is_in_place(&server).await,
            None => Ok(true),
        };
        let kept = match (unmoved, person) {
            (Ok(false), _) => return Err(ExchangeFault::Moved),
            (Ok(true), Some(person)) => {
                let now = self.clock.unix_seconds();
                let grant = Grant::new(&tokens, &upstream, endpoints.authority(), flow, now);
                let id = server.store_id.clone();
                self.keep(slots, person.0, id, grant).await.map(Some)
            }
            (unmoved, _) => unmoved.map(|_| None),
        };
        // The client has its tokens whether or not they can be kept.
        let kept = kept.unwrap_or_else(|error| {
            tracing::error!(%error, "a person's tokens could not be kept");
            None
        });
        Ok(Redeemed::Tokens(Box::new(tokens), kept))
    }

    /// Keeps a grant in the place of the one before, whose name it takes on. It is on disk when this returns.
    pub(super) async fn keep(
        &self,
        slots: &Slots,
        user: UserId,
        server: ServerId,
        grant: Grant,
    ) -> Result<String, StoreError> {
        let before = match self.store.grant(&user, &server).await {
            // It is replaced all the same.
            Err(StoreError::Undecryptable { .. }) => None,
            row => row?.as_ref().and_then(Grant::from_row),
        };
        let grant = match before {
            Some(before) => grant.under_the_name(before.name().to_owned()),
            None => grant,
        };
        let now = self.clock.unix_seconds();
        let (payload, expires_at) = (grant.to_bytes(), grant.expires_at());
        self.store
            .put_grant(&user, &server, &payload, expires_at, now)
            .await?;
        slots.invalidate(&(user, server));
        Ok(grant.name().to_owned())
    }
}

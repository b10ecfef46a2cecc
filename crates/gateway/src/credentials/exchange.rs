//! Tokens on a person's behalf: the token that the caller brought is exchanged for one that the server takes (RFC 8693,
//! Entra's on-behalf-of flow, the identity assertion grant). What comes of it is kept in memory for that subject token
//! alone; the subject token goes to the configured authorization server and to nobody else.

mod flow;
pub mod issuer;

use super::machine::{Fetched, MachineTokens, Slot, Source};
use crate::admission::Principal;
use crate::clock::Clock;
use crate::config::{Exchange, ExchangeProfile, ServerSettings, TokenEndpoint};
use crate::diagnosis::AuthResolution;
use crate::digest::sha256_of_parts;
use crate::net::guarded::{Guarded, Reach};
use crate::net::token_endpoint::{TokenClient, TokenFault};
use flow::Flow;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use issuer::{IssuerDocuments, NoDocuments, Wants};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use vestibule_oauth::jwt::{Algorithm, ClaimRules, Jwt, JwtFault, TOKEN_LIMIT};

/// What subject tokens of one server, with what they were exchanged for, may take in memory, in bytes; about 10,000 of
/// the usual length.
const IN_MEMORY: u64 = 64 * 1024 * 1024;
/// Then a subject token is judged again, and exchanged anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);
/// As many exchanges of one server are under way at once. Who brings a further token comes back.
const UNDER_WAY: usize = 100;
/// The shortest token that is searched for within other text, in bytes.
const SEARCHED: usize = 16;
/// By then an issuer has published the key of a token, in seconds.
const PUBLISHED: u64 = 60;
/// How often a key set is asked for within one judgement.
const LOOKS: usize = 3;

/// A token that no authorization server issued.
const NOBODYS: &str = "vestibule-doctor-not-a-token";

/// Makes what servers with an exchange need.
pub struct Exchanges {
    client: TokenClient,
    guarded: Guarded,
    clock: Clock,
    runtime: Handle,
}

impl Exchanges {
    /// Requests run on `runtime`.
    pub fn new(client: TokenClient, guarded: Guarded, clock: Clock, runtime: Handle) -> Self {
        Self {
            client,
            guarded,
            clock,
            runtime,
        }
    }

    /// The exchange of `server`. `tokens` keeps what comes of it, and the fallback.
    pub fn exchanger(
        &self,
        server: &ServerSettings,
        settings: &Arc<Exchange>,
        tokens: &Arc<MachineTokens>,
    ) -> Arc<Exchanger> {
        let documents = |issuer: &str, jwks_url: Option<&url::Url>, wants| {
            IssuerDocuments::new(
                issuer,
                jwks_url,
                wants,
                self.guarded.clone(),
                self.clock.clone(),
                self.runtime.clone(),
            )
        };
        let endpoint = match &settings.endpoint {
            TokenEndpoint::Configured(_) => None,
            TokenEndpoint::OfIssuer(issuer) => Some(documents(issuer, None, Wants::TokenEndpoint)),
        };
        let judge = settings.subject.as_ref().map(|subject| Judge {
            documents: documents(&subject.rules.issuer, subject.jwks_url.as_ref(), Wants::Keys),
            rules: subject.rules.clone(),
        });
        let fallback = settings
            .fallback
            .as_ref()
            .map(|(token_url, request)| tokens.slot(server, token_url, request));
        Arc::new(Exchanger {
            server: server.name.clone(),
            flow: Arc::new(Flow {
                server: server.name.clone(),
                settings: Arc::clone(settings),
                endpoint,
                client: self.client.clone(),
                guarded: self.guarded.clone(),
                clock: self.clock.clone(),
            }),
            places: Arc::new(Semaphore::new(UNDER_WAY)),
            judge,
            fallback,
            slots: Cache::builder()
                .max_capacity(IN_MEMORY)
                .weigher(|_, known: &Known| known.weight)
                .time_to_live(FORGOTTEN_AFTER)
                .build(),
            tokens: Arc::clone(tokens),
            clock: self.clock.clone(),
        })
    }
}

/// The token that a caller brought, to be exchanged. There is no value for "none".
#[derive(Debug, Clone)]
pub struct SubjectToken(SecretString);

impl SubjectToken {
    /// The token in an `Authorization` value, bare or after `Bearer`. `None` for what cannot be one: another scheme, or
    /// nothing at all behind it.
    pub fn of(authorization: &HeaderValue) -> Option<Self> {
        let value = authorization.to_str().ok()?;
        let token = match value.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim(),
            _ => value.trim(),
        };
        let is_scheme = token.eq_ignore_ascii_case("bearer");
        let usable = !is_scheme
            && (1..=TOKEN_LIMIT).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        usable.then(|| Self(token.into()))
    }

    /// About what it takes in memory with the token that it is exchanged for, in bytes.
    fn weight(&self) -> u32 {
        u32::try_from(2 * self.0.expose_secret().len() + 4096).unwrap_or(u32::MAX)
    }

    /// Whether the token stands anywhere in `value`. One that is too short to be told from other text has to be all of it.
    pub fn stands_in(&self, value: &HeaderValue) -> bool {
        let token = self.0.expose_secret().as_bytes();
        if token.len() < SEARCHED {
            return Self::of(value).is_some_and(|held| held.0.expose_secret().as_bytes() == token);
        }
        memchr::memmem::find(value.as_bytes(), token).is_some()
    }

    /// Whose token it says it is: a digest of issuer and subject. `None` for an opaque one. Not verified.
    pub fn identity(&self) -> Option<[u8; 32]> {
        let claims = Jwt::read(self.0.expose_secret())?.claims;
        let (issuer, subject) = (claims.issuer?, claims.subject?);
        (!subject.is_empty()).then(|| sha256_of_parts(&[issuer.as_bytes(), subject.as_bytes()]))
    }
}

/// Why a subject token is not exchanged.
#[derive(Debug, Clone, Error)]
pub enum SubjectFault {
    /// It does not count.
    #[error("The caller's token does not count: {0}.")]
    Refused(JwtFault),
    /// Whether it counts cannot be said now.
    #[error("The caller's token cannot be judged now: {0}.")]
    Undecided(NoDocuments),
}

/// One server's exchange.
pub struct Exchanger {
    server: String,
    flow: Arc<Flow>,
    /// Places for exchanges that are under way.
    places: Arc<Semaphore>,
    judge: Option<Judge>,
    /// The machine token for callers that bring none, where the operator allows that.
    pub fallback: Option<Arc<Slot>>,
    slots: Cache<[u8; 32], Known>,
    tokens: Arc<MachineTokens>,
    clock: Clock,
}

impl std::fmt::Debug for Exchanger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchanger")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// A subject token that was judged.
#[derive(Clone)]
struct Known {
    slot: Arc<Slot>,
    /// Its own end, in seconds since 1970, where it names one.
    ends: Option<u64>,
    /// About what it takes in memory, in bytes.
    weight: u32,
}

/// What a subject token has to be.
struct Judge {
    documents: Arc<IssuerDocuments>,
    rules: ClaimRules,
}

impl Exchanger {
    /// What a server is shown.
    pub fn resolution(&self) -> AuthResolution {
        match self.flow.settings.profile {
            ExchangeProfile::Rfc8693 { .. } | ExchangeProfile::EntraObo => AuthResolution::TokenExchange,
            ExchangeProfile::IdJag { .. } => AuthResolution::IdJag,
        }
    }

    /// Where subject tokens go first.
    pub fn endpoint(&self) -> &TokenEndpoint {
        &self.flow.settings.endpoint
    }

    /// Who issues subject tokens, where that is configured.
    pub fn subject_issuer(&self) -> Option<&str> {
        let subject = self.flow.settings.subject.as_ref()?;
        Some(&subject.rules.issuer)
    }

    /// The place of the token that `subject` is exchanged for. Two subject tokens never share one, nor do two callers.
    ///
    /// # Errors
    /// When the subject token does not count, or nobody can say.
    pub async fn slot(
        &self,
        subject: &SubjectToken,
        principal: &Principal,
    ) -> Result<Arc<Slot>, SubjectFault> {
        let key = key(principal.id(), subject);
        let known = if let Some(known) = self.slots.get(&key) {
            known
        } else {
            let ends = self.judge(subject).await?;
            let source = OnBehalf {
                flow: Arc::clone(&self.flow),
                places: Arc::clone(&self.places),
                subject: subject.clone(),
                ends,
            };
            let made = || Known {
                slot: self.tokens.slot_from(&self.server, source),
                ends,
                weight: subject.weight(),
            };
            self.slots.get_with(key, made)
        };
        if known.ends.is_some_and(|end| end <= self.clock.unix_seconds()) {
            self.slots.invalidate(&key);
            return Err(SubjectFault::Refused(JwtFault::Expired));
        }
        Ok(known.slot)
    }

    /// The token endpoint that subject tokens go to, looked up where it is not configured; for tools.
    ///
    /// # Errors
    /// When the metadata that would name it cannot be had.
    pub async fn token_endpoint(&self) -> Result<url::Url, TokenFault> {
        Ok(self.flow.door().await?.url().clone())
    }

    /// What becomes of a subject token that nobody issued; for tools.
    ///
    /// # Errors
    /// What the authorization server has to say, which it should.
    pub async fn try_nobodys(&self) -> Result<(), TokenFault> {
        self.flow.token(&NOBODYS.into()).await.map(drop)
    }

    /// The same of the second leg of the identity assertion grant, where there is one; for tools.
    pub async fn redeem_nobodys(&self) -> Option<Result<(), TokenFault>> {
        let ExchangeProfile::IdJag { endpoint, client } = &self.flow.settings.profile else {
            return None;
        };
        let redeemed = self.flow.redeem(&NOBODYS.into(), endpoint, client).await;
        Some(redeemed.map(drop))
    }

    /// How many keys subject tokens are judged by, and the names of their algorithms; for tools. `None` where they are
    /// not judged here.
    pub async fn subject_keys(&self) -> Option<Result<(usize, Vec<&'static str>), NoDocuments>> {
        let found = self.judge.as_ref()?.documents.current().await;
        Some(found.map(|found| {
            let algorithms = found.keys.algorithms();
            (found.keys.len(), algorithms.map(Algorithm::name).collect())
        }))
    }

    /// The end of a subject token that counts. Without rules every one does, and the authorization server judges it.
    ///
    /// # Errors
    /// When it does not count, or nobody can say.
    pub async fn judge(&self, subject: &SubjectToken) -> Result<Option<u64>, SubjectFault> {
        let jwt = Jwt::read(subject.0.expose_secret());
        let Some(Judge { documents, rules }) = &self.judge else {
            return Ok(jwt.and_then(|jwt| jwt.claims.expires));
        };
        let jwt = jwt.ok_or(SubjectFault::Refused(JwtFault::NotAJwt))?;
        let now = self.clock.unix_seconds();
        // Nothing is fetched for a token that cannot count.
        if let Some(fault) = jwt.header_fault().or_else(|| jwt.claims_fault(rules, now)) {
            return Err(SubjectFault::Refused(fault));
        }
        let mut found = documents.current().await.map_err(SubjectFault::Undecided)?;
        let mut begun_for_us = false;
        for _ in 0..LOOKS {
            match jwt.judge(&found.keys, rules, now) {
                Ok(()) => return Ok(jwt.claims.expires),
                Err(JwtFault::UnknownKey) if !begun_for_us => {
                    (found, begun_for_us) = match documents.newer(&found).await {
                        Ok(newer) => newer,
                        // Keys that were asked for after the token was issued have had the time to hold its own. Of
                        // one that does not say when it was issued nobody has to wait for a key.
                        Err(_)
                            if jwt
                                .claims
                                .issued
                                .is_none_or(|at| at.saturating_add(PUBLISHED) < found.asked) =>
                        {
                            return Err(SubjectFault::Refused(JwtFault::UnknownKey));
                        }
                        Err(error) => return Err(SubjectFault::Undecided(error)),
                    };
                }
                Err(fault) => return Err(SubjectFault::Refused(fault)),
            }
        }
        Err(SubjectFault::Undecided(NoDocuments::changing()))
    }
}

/// The slots' source: one subject token's exchange.
struct OnBehalf {
    flow: Arc<Flow>,
    places: Arc<Semaphore>,
    subject: SubjectToken,
    ends: Option<u64>,
}

impl Source<HeaderValue> for OnBehalf {
    fn fetch(&self) -> BoxFuture<'_, Result<Fetched<HeaderValue>, TokenFault>> {
        Box::pin(async {
            let place = self.places.try_acquire().map_err(|_| TokenFault::Crowded)?;
            let response = self.flow.token(&self.subject.0).await?;
            drop(place);
            let now = self.flow.clock.unix_seconds();
            let at_most = self.ends.map(|end| Duration::from_secs(end.saturating_sub(now)));
            Fetched::token(&response, at_most)
        })
    }
}

/// Where a token request goes, and how far it may lead.
#[derive(Debug, Clone)]
enum Door {
    /// As the operator wrote it.
    Configured(url::Url),
    /// As a document named it.
    Learned(url::Url, Reach),
}

/// The slots are one server's, so nothing of its configuration is in it.
fn key(principal: &[u8], subject: &SubjectToken) -> [u8; 32] {
    sha256_of_parts(&[principal, subject.0.expose_secret().as_bytes()])
}

#[cfg(test)]
mod tests;

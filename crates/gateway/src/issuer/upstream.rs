//! Where a person signs in for an upstream server: configured, or discovered, kept, and looked up again in the
//! background. One search in flight for each server however many callers wait, on the gateway's own runtime, so that
//! it outlives the caller that started it; servers share nothing, so that a dead one delays no other.

mod search;

pub use search::{Probe, Rejected, Sought};

use crate::clock::{Clock, Moment};
use crate::net::guarded::{Guarded, Reach};
use arc_swap::ArcSwapOption;
use search::{Found, Search};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use url::Url;
use vestibule_oauth::metadata::{AuthorizationServerMetadata, ProtectedResourceMetadata, ResourceDocument};

/// From this age on what is known is looked up again, in the background.
const RENEW_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long what is known is used while it cannot be looked up again.
const USE_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// The first and the longest wait after a search that found nothing.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What the operator wrote about a server, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name, as in logs and messages.
    pub name: String,
    /// The MCP server.
    pub url: Url,
    /// The one authorization server that counts, byte by byte.
    pub issuer: Option<String>,
    /// `authorization_url`.
    pub authorization_url: Option<Url>,
    /// `token_url`.
    pub token_url: Option<Url>,
    /// `registration_url`.
    pub registration_url: Option<Url>,
    /// `scopes`; empty for those that the server asks for.
    pub scopes: Vec<String>,
    /// There is no configured client, so a registration endpoint is worth a search of its own.
    pub wants_registration: bool,
}

impl UpstreamConfig {
    /// A server of which only the URL is configured.
    pub fn bare(name: &str, url: &Url) -> Self {
        Self {
            name: name.to_owned(),
            url: url.clone(),
            issuer: None,
            authorization_url: None,
            token_url: None,
            registration_url: None,
            scopes: Vec::new(),
            wants_registration: false,
        }
    }

    /// Whether there is something to search. With both `authorization_url` and `token_url` configured nothing is
    /// fetched, unless a registration endpoint is wanted and not configured.
    pub fn incomplete(&self) -> bool {
        self.authorization_url.is_none()
            || self.token_url.is_none()
            || (self.wants_registration && self.registration_url.is_none())
    }

    /// Whether a token that `authority` issued may be revoked at `url`: at its own origin, or that of the configured
    /// issuer. A server's metadata can name any other.
    pub fn may_be_told_at(&self, url: &Url, authority: &str) -> bool {
        let issuer = self.issuer.as_deref().and_then(|issuer| Url::parse(issuer).ok());
        url.origin().ascii_serialization() == authority
            || issuer.is_some_and(|issuer| issuer.origin() == url.origin())
    }

    fn reach(&self) -> Reach {
        let issuer = self.issuer.as_deref().and_then(|issuer| Url::parse(issuer).ok());
        let urls = [
            &Some(self.url.clone()),
            &issuer,
            &self.authorization_url,
            &self.token_url,
            &self.registration_url,
        ];
        Reach::configured(urls.into_iter().flatten())
    }
}

/// Where a person signs in for a server. A configured value is there as configured; the rest was discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamEndpoints {
    /// The authorization server's identifier, byte by byte; what `iss` has to be (RFC 9207). `None` when it was
    /// neither configured nor searched.
    pub issuer: Option<String>,
    /// Where the browser goes.
    pub authorization_url: Url,
    /// Where a code becomes a token.
    pub token_url: Url,
    /// Where a client is registered.
    pub registration_url: Option<Url>,
    /// Where a token is revoked.
    pub revocation_url: Option<Url>,
    /// The configured scopes; else those of the server's challenge; else those of its metadata. Never all that the
    /// authorization server knows.
    pub scopes: Vec<String>,
    /// The authorization server promised `iss` at the redirect: one without is refused.
    pub iss_promised: bool,
    /// `token_endpoint_auth_methods_supported`.
    pub auth_methods: Option<Vec<String>>,
    /// Whether PKCE with S256 is offered; `None` when nothing was said.
    pub s256_supported: Option<bool>,
    /// `resource` as the server's own metadata names it (RFC 9728), for token requests (RFC 8707).
    pub resource: Option<String>,
    /// How far these URLs may lead, for [`Guarded`].
    pub reach: Reach,
}

impl UpstreamEndpoints {
    /// Who gets to see what this authorization server issued: the origin of its token endpoint. What was issued by one
    /// is shown to no other, whatever a server's metadata says later.
    pub fn authority(&self) -> String {
        self.token_url.origin().ascii_serialization()
    }
}

/// No endpoints. Its text is for callers and names no host; the trace is for the log and for tools.
#[derive(Debug, Clone, Error)]
#[error("the sign-in addresses of the MCP server '{server}' could not be found")]
pub struct DiscoveryError {
    /// The server's name.
    pub server: String,
    /// Every address that was tried, in order, with what came of it.
    pub trace: Arc<[Probe]>,
    /// No search is made before this has passed.
    pub retry_after: Duration,
    /// The configuration names an issuer.
    pub issuer_configured: bool,
}

impl DiscoveryError {
    /// What the operator does about it.
    pub fn next_step(&self) -> &'static str {
        if self.issuer_configured {
            "run `vestibule doctor SERVER`: it says whether to change `issuer` of this server, or to set its \
             `authorization_url` and `token_url`; the gateway's log lists what was tried"
        } else {
            "run `vestibule doctor SERVER`: it says whether to set `issuer`, or `authorization_url` and `token_url`, of \
             this server; the gateway's log lists what was tried"
        }
    }
}

/// All that one search learned.
#[derive(Debug, Clone)]
pub struct Examination {
    /// What sign-ins would use.
    pub endpoints: Option<UpstreamEndpoints>,
    /// Every address that was asked, in order, with what came of it.
    pub trace: Vec<Probe>,
    /// The scopes of the server's challenge.
    pub challenge_scopes: Vec<String>,
    /// The server's metadata.
    pub resource: Option<ProtectedResourceMetadata>,
    /// Its authorization server's.
    pub server: Option<AuthorizationServerMetadata>,
    /// Documents that were found and not used.
    pub rejected: Vec<Rejected>,
}

/// How long a search may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One request.
    pub probe: Duration,
    /// The whole search.
    pub search: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(4),
            search: Duration::from_secs(10),
        }
    }
}

/// The endpoints of all servers, and what servers say about themselves.
pub struct Discovery {
    shared: Arc<Shared>,
    slots: Slots<UpstreamEndpoints>,
    documents: Slots<ResourceDocument>,
}

struct Shared {
    guarded: Guarded,
    clock: Clock,
    runtime: Handle,
    patience: Patience,
}

type Outcome<T> = Result<Arc<T>, DiscoveryError>;

/// What a search is for, and kept.
trait SearchedFor: Sized + Send + Sync + 'static {
    /// Searches once.
    fn search(
        shared: &Shared,
        server: &UpstreamConfig,
    ) -> impl Future<Output = (Option<Self>, Vec<Probe>)> + Send;

    /// Whether nothing answered the search, whatever is known without it.
    fn is_unanswered(found: Option<&Self>, trace: &[Probe]) -> bool;
}

impl SearchedFor for UpstreamEndpoints {
    async fn search(shared: &Shared, server: &UpstreamConfig) -> (Option<Self>, Vec<Probe>) {
        shared.search(server).await
    }

    fn is_unanswered(found: Option<&Self>, trace: &[Probe]) -> bool {
        // With both URLs configured there are endpoints without a search.
        found.is_none() || !trace.iter().any(Probe::counts)
    }
}

impl SearchedFor for ResourceDocument {
    async fn search(shared: &Shared, server: &UpstreamConfig) -> (Option<Self>, Vec<Probe>) {
        let mut search = Search::new(&shared.guarded, server, shared.patience.probe);
        if timeout(shared.patience.search, search.describe()).await.is_err() {
            search.out_of_time();
        }
        let Search { found, trace, .. } = search;
        (found.document, trace)
    }

    fn is_unanswered(found: Option<&Self>, _: &[Probe]) -> bool {
        found.is_none()
    }
}

type Slots<T> = Mutex<HashMap<String, Arc<Slot<T>>>>;

impl Discovery {
    /// Searches run on `runtime`.
    pub fn new(guarded: Guarded, clock: Clock, runtime: Handle, patience: Patience) -> Self {
        Self {
            shared: Arc::new(Shared {
                guarded,
                clock,
                runtime,
                patience,
            }),
            slots: Mutex::default(),
            documents: Mutex::default(),
        }
    }

    /// What `server` says about itself (RFC 9728), for clients that sign in at its authorization server themselves. Of
    /// one that says nothing: that its origin is its authorization server (MCP 2025-03-26), if it is. Waits only while
    /// nothing is known.
    pub async fn document(&self, server: &UpstreamConfig) -> Outcome<ResourceDocument> {
        self.slot_in(&self.documents, server).found().await
    }

    /// Where a person signs in for `server`. Waits only while nothing is known.
    pub async fn endpoints(&self, server: &UpstreamConfig) -> Outcome<UpstreamEndpoints> {
        if !server.incomplete()
            && let Some(configured) = merge(server, &Found::default())
        {
            return Ok(Arc::new(configured));
        }
        self.slot_in(&self.slots, server).found().await
    }

    /// What is known of `server` by now. Nothing is fetched and nobody waits.
    pub fn known(&self, server: &UpstreamConfig) -> Option<Arc<UpstreamEndpoints>> {
        self.slot_in(&self.slots, server).known()
    }

    /// One search now, past everything that is kept, and all that came of it; for tools. The server's own metadata is
    /// looked at even where the search has no use for it.
    pub async fn examine(&self, server: &UpstreamConfig) -> Examination {
        let patience = self.shared.patience;
        let mut search = Search::new(&self.shared.guarded, server, patience.probe);
        let mut endpoints = None;
        let whole = async {
            search.run().await;
            endpoints = merge(server, &search.found);
            search.look_at_resource().await;
        };
        if timeout(patience.search, whole).await.is_err() {
            search.out_of_time();
        }
        let Search { found, trace, .. } = search;
        Examination {
            endpoints: endpoints.or_else(|| merge(server, &found)),
            trace,
            challenge_scopes: found.challenge_scopes,
            resource: found.described,
            server: found.server.map(|learned| learned.metadata),
            rejected: found.rejected,
        }
    }

    fn slot_in<T: SearchedFor>(&self, slots: &Slots<T>, server: &UpstreamConfig) -> Arc<Slot<T>> {
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&server.name)
            && slot.server == *server
        {
            return Arc::clone(slot);
        }
        let slot = Arc::new_cyclic(|this| Slot {
            this: this.clone(),
            shared: Arc::clone(&self.shared),
            server: server.clone(),
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        });
        slots.insert(server.name.clone(), Arc::clone(&slot));
        slot
    }
}

impl Shared {
    async fn search(&self, server: &UpstreamConfig) -> (Option<UpstreamEndpoints>, Vec<Probe>) {
        let mut search = Search::new(&self.guarded, server, self.patience.probe);
        if timeout(self.patience.search, search.run()).await.is_err() {
            search.out_of_time();
        }
        let Search { found, trace, .. } = search;
        (merge(server, &found), trace)
    }
}

/// Configured values win, each on its own. `None` while one that is needed is missing.
fn merge(server: &UpstreamConfig, found: &Found) -> Option<UpstreamEndpoints> {
    let learned = found.server.as_ref();
    let metadata = learned.map(|learned| &learned.metadata);
    let pick = |configured: &Option<Url>, learned: Option<&Url>| configured.clone().or(learned.cloned());
    let authorization_url = pick(
        &server.authorization_url,
        metadata.and_then(|known| known.authorization_endpoint.as_ref()),
    )?;
    // A promise binds the endpoint that it was made for.
    let promised = metadata.is_some_and(|known| {
        known.authorization_response_iss_parameter_supported
            && known
                .authorization_endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.origin() == authorization_url.origin())
    });
    let scopes = [&server.scopes, &found.challenge_scopes, &found.resource_scopes];
    Some(UpstreamEndpoints {
        issuer: server
            .issuer
            .clone()
            .or_else(|| metadata.map(|known| known.issuer.clone())),
        token_url: pick(
            &server.token_url,
            metadata.and_then(|known| known.token_endpoint.as_ref()),
        )?,
        registration_url: pick(
            &server.registration_url,
            metadata.and_then(|known| known.registration_endpoint.as_ref()),
        ),
        revocation_url: metadata.and_then(|known| known.revocation_endpoint.clone()),
        scopes: scopes
            .into_iter()
            .find(|scopes| !scopes.is_empty())
            .cloned()
            .unwrap_or_default(),
        iss_promised: promised,
        auth_methods: metadata.and_then(|known| known.token_endpoint_auth_methods_supported.clone()),
        s256_supported: metadata
            .and_then(|known| known.code_challenge_methods_supported.as_ref())
            .map(|methods| methods.iter().any(|method| method == "S256")),
        resource: found.resource.clone(),
        reach: learned.map_or_else(
            || server.reach(),
            |learned| server.reach().named_from(learned.zone),
        ),
        authorization_url,
    })
}

/// One server.
struct Slot<T> {
    this: Weak<Self>,
    shared: Arc<Shared>,
    server: UpstreamConfig,
    current: ArcSwapOption<Known<T>>,
    state: Mutex<State<T>>,
}

struct Known<T> {
    found: Arc<T>,
    renew_from: Moment,
    use_until: Moment,
}

struct State<T> {
    in_flight: Option<watch::Receiver<Option<Outcome<T>>>>,
    /// What the last search, which found nothing, tried; and the end of the wait after it.
    failed: Option<(Arc<[Probe]>, Moment)>,
    failures: u32,
}

enum Begun<T> {
    Flight(watch::Receiver<Option<Outcome<T>>>),
    Known(Arc<T>),
    BackOff(DiscoveryError),
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            in_flight: None,
            failed: None,
            failures: 0,
        }
    }
}

impl<T: SearchedFor> Slot<T> {
    fn known(&self) -> Option<Arc<T>> {
        let now = self.shared.clock.now();
        let known = self.current.load_full().filter(|known| now < known.use_until)?;
        Some(Arc::clone(&known.found))
    }

    async fn found(&self) -> Outcome<T> {
        let now = self.shared.clock.now();
        if let Some(known) = self.current.load_full()
            && now < known.use_until
        {
            if now >= known.renew_from {
                self.begin(now);
            }
            return Ok(Arc::clone(&known.found));
        }
        let mut flight = match self.begin(now) {
            Begun::Flight(flight) => flight,
            Begun::Known(found) => return Ok(found),
            Begun::BackOff(error) => return Err(error),
        };
        let outcome = flight.wait_for(Option::is_some).await;
        // Without an outcome the runtime is going down, and with it the search.
        outcome
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or_else(|| Err(self.error(Arc::default(), BACK_OFF.0)))
    }

    /// Joins the search in flight or starts one, unless another caller finished it between our look and the lock.
    fn begin(&self, now: Moment) -> Begun<T> {
        let mut state = self.state();
        if let Some(flight) = &state.in_flight {
            return Begun::Flight(flight.clone());
        }
        if let Some(known) = self.current.load_full()
            && now < known.renew_from
        {
            return Begun::Known(Arc::clone(&known.found));
        }
        if let Some((trace, until)) = &state.failed
            && now < *until
        {
            return Begun::BackOff(self.error(Arc::clone(trace), now.until(*until)));
        }
        let (report, flight) = watch::channel(None);
        state.in_flight = Some(flight.clone());
        drop(state);
        if let Some(slot) = self.this.upgrade() {
            self.shared.runtime.spawn(async move {
                // A search that panics must not leave its callers waiting on a flight that never lands.
                let mut landing = Landing {
                    slot: &slot,
                    report,
                    result: (None, Vec::new()),
                };
                landing.result = T::search(&slot.shared, &slot.server).await;
            });
        }
        Begun::Flight(flight)
    }

    fn landed(&self, (found, trace): (Option<T>, Vec<Probe>)) -> Outcome<T> {
        let now = self.shared.clock.now();
        let mut state = self.state();
        state.in_flight = None;
        let failed = T::is_unanswered(found.as_ref(), &trace);
        let wait = back_off(state.failures);
        if failed {
            state.failures += 1;
            let steps: Vec<_> = trace.iter().map(ToString::to_string).collect();
            tracing::warn!(server = %self.server.name, trace = %steps.join("; "), "sign-in addresses not found");
        } else {
            state.failures = 0;
            state.failed = None;
            tracing::debug!(server = %self.server.name, "sign-in addresses found");
        }
        let trace: Arc<[Probe]> = trace.into();
        if failed {
            state.failed = Some((Arc::clone(&trace), now.plus(wait)));
        }
        let Some(found) = found else {
            return Err(self.error(trace, wait));
        };
        let found = Arc::new(found);
        // A failed search replaces nothing that an earlier one found.
        let keep = failed
            && self
                .current
                .load()
                .as_ref()
                .is_some_and(|known| now < known.use_until);
        if !keep {
            self.current.store(Some(Arc::new(Known {
                found: Arc::clone(&found),
                renew_from: now.plus(if failed { wait } else { RENEW_AFTER }),
                use_until: now.plus(USE_FOR),
            })));
        }
        Ok(found)
    }

    fn error(&self, trace: Arc<[Probe]>, retry_after: Duration) -> DiscoveryError {
        DiscoveryError {
            server: self.server.name.clone(),
            trace,
            retry_after,
            issuer_configured: self.server.issuer.is_some(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight exactly once, whatever becomes of the search.
struct Landing<'s, T: SearchedFor> {
    slot: &'s Slot<T>,
    report: watch::Sender<Option<Outcome<T>>>,
    result: (Option<T>, Vec<Probe>),
}

impl<T: SearchedFor> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        let (found, trace) = &mut self.result;
        let outcome = self.slot.landed((found.take(), std::mem::take(trace)));
        // Nobody may be waiting.
        let _ = self.report.send(Some(outcome));
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF.0.saturating_mul(1 << failures.min(10)).min(BACK_OFF.1)
}

#[cfg(test)]
mod tests;

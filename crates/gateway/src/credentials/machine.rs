//! Machine tokens: fetched with the client credentials grant, kept in memory, renewed ahead of their end,
//! one request in flight for each credential however many callers wait. A slot keeps exchanged tokens and the access
//! keys of AWS roles the same way.
//!
//! A request runs on the gateway's own runtime, so it outlives the caller that started it. A call with a
//! usable token takes no lock and waits for nothing.

use super::client_proof::proof;
use crate::audit::note;
use crate::clock::{Clock, Moment};
use crate::config::{MachineRequest, ServerSettings};
use crate::digest::sha256_of_parts;
use crate::net::token_endpoint::{TokenClient, TokenFault};
use crate::telemetry::metrics::TokenMetrics;
use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;
use vestibule_oauth::{Lifetime, TokenResponse};

/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(60);
/// What a token with a shorter life than the margin gets all the same.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// The lifetime of a token whose response names none.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(300);
/// The longest that a renewal begins before it must.
const RENEWAL_LEAD: Duration = Duration::from_secs(300);
/// The first and the longest wait after a failed request.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a slot keeps: `Bearer <token>`, marked sensitive, or an access key.
pub trait Credential: Clone + PartialEq + Send + Sync + 'static {}

impl<C: Clone + PartialEq + Send + Sync + 'static> Credential for C {}

/// A credential in hand, for a while.
#[derive(Debug)]
pub struct Kept<C> {
    credential: C,
    use_until: Moment,
    renew_from: Moment,
    /// It was fetched because the server refused the one before.
    after_refusal: bool,
    /// Its life is over when it comes: it is used once and not kept.
    once: bool,
}

impl<C> Kept<C> {
    /// What the server is shown, or what requests to it are signed with.
    pub fn credential(&self) -> &C {
        &self.credential
    }
}

impl Kept<HeaderValue> {
    /// `Bearer <token>`, marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.credential
    }
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub struct TokenError {
    /// What happened.
    pub fault: TokenFault,
    /// The next request is not made before this has passed.
    pub retry_after: Duration,
}

/// How the last token request went.
#[derive(Debug, Clone)]
pub enum Standing {
    /// There was none.
    NotAsked,
    /// It gave a token.
    Good,
    /// It failed.
    Failed(TokenFault),
}

/// What to do after the server answered 401 to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// Ask for a token again and repeat the call once.
    Retry,
    /// The server refuses fresh tokens; asking again so soon would only load the authorization server.
    GiveUp,
}

/// All machine tokens of this process, by everything that each depends on.
pub struct MachineTokens {
    client: TokenClient,
    clock: Clock,
    runtime: Handle,
    metrics: TokenMetrics,
    /// Held by the servers that use them: what is configured no more is not kept.
    slots: Mutex<HashMap<[u8; 32], Weak<Slot>>>,
}

impl MachineTokens {
    /// Requests run on `runtime`.
    pub fn new(client: TokenClient, clock: Clock, runtime: Handle, metrics: TokenMetrics) -> Self {
        Self {
            client,
            clock,
            runtime,
            metrics,
            slots: Mutex::default(),
        }
    }

    /// The place of the token for this server and request. Two servers never share one, nor do a request
    /// and its edited self.
    pub fn slot(&self, server: &ServerSettings, token_url: &Url, request: &MachineRequest) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(&server.id, token_url, request);
        if let Some(slot) = slots.get(&key).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = self.slot_from(
            &server.name,
            ClientCredentials {
                client: self.client.clone(),
                clock: self.clock.clone(),
                token_url: token_url.clone(),
                request: request.clone(),
            },
        );
        slots.retain(|_, slot| slot.strong_count() > 0);
        slots.insert(key, Arc::downgrade(&slot));
        slot
    }

    /// What sends token requests.
    pub(super) fn client(&self) -> &TokenClient {
        &self.client
    }

    /// The time that lifetimes are counted by.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A place of its own for the tokens of `source`, that nobody else finds.
    pub(super) fn slot_from<C: Credential>(
        &self,
        server: &str,
        source: impl Source<C> + 'static,
    ) -> Arc<Slot<C>> {
        Arc::new_cyclic(|this| Slot {
            this: this.clone(),
            clock: self.clock.clone(),
            runtime: self.runtime.clone(),
            metrics: self.metrics.clone(),
            server: server.to_owned(),
            source: Box::new(source),
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        })
    }
}

/// Where a slot's credentials come from.
pub(super) trait Source<C>: Send + Sync {
    /// Asks for one.
    fn fetch(&self) -> BoxFuture<'_, Result<Fetched<C>, TokenFault>>;
}

/// A credential that was asked for.
pub(super) struct Fetched<C> {
    pub(super) credential: C,
    pub(super) lifetime: Lifetime,
    /// It is not used for longer than this, whatever its own lifetime.
    pub(super) at_most: Option<Duration>,
}

struct ClientCredentials {
    client: TokenClient,
    clock: Clock,
    token_url: Url,
    request: MachineRequest,
}

impl Source<HeaderValue> for ClientCredentials {
    fn fetch(&self) -> BoxFuture<'_, Result<Fetched<HeaderValue>, TokenFault>> {
        Box::pin(async {
            let MachineRequest { client, grant } = &self.request;
            let proof = proof(client, &self.token_url, &self.clock)?;
            let response = self.client.client_credentials(&self.token_url, grant, &proof);
            Fetched::token(&response.await?, None)
        })
    }
}

impl Fetched<HeaderValue> {
    /// The access token of a response.
    pub(super) fn token(response: &TokenResponse, at_most: Option<Duration>) -> Result<Self, TokenFault> {
        Ok(Self {
            credential: header_value(response)?,
            lifetime: response.lifetime,
            at_most,
        })
    }
}

/// SHA-256 over everything that the token depends on, each part with its length before it.
fn key(server_id: &str, token_url: &Url, request: &MachineRequest) -> [u8; 32] {
    let MachineRequest { client, grant } = request;
    let optional = |value: &Option<String>| value.as_ref().map(|text| format!("={text}")).unwrap_or_default();
    let (audience, resource) = (optional(&grant.audience), optional(&grant.resource));
    let client = client.parts();
    let mut parts: Vec<&[u8]> = vec![server_id.as_bytes(), token_url.as_str().as_bytes()];
    parts.extend(client.iter().map(Vec::as_slice));
    parts.extend([audience.as_bytes(), resource.as_bytes()]);
    parts.extend(grant.scopes.iter().map(String::as_bytes));
    sha256_of_parts(&parts)
}

/// The place of one credential.
pub struct Slot<C = HeaderValue> {
    this: Weak<Self>,
    clock: Clock,
    runtime: Handle,
    metrics: TokenMetrics,
    /// Its name, as in every other line of the log and the metrics.
    server: String,
    source: Box<dyn Source<C>>,
    current: ArcSwapOption<Kept<C>>,
    state: Mutex<State<C>>,
}

impl<C> std::fmt::Debug for Slot<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

type Outcome<C> = Result<Arc<Kept<C>>, TokenError>;
type Flight<C> = watch::Receiver<Option<Outcome<C>>>;

struct State<C> {
    in_flight: Option<Flight<C>>,
    /// The last request's fault and the end of the wait after it.
    failed: Option<(TokenFault, Moment)>,
    failures: u32,
    /// The server refused a token; the next one is to be judged by that.
    refused: bool,
    /// The server refused fresh tokens; until then no other is fetched because of a refusal.
    refusals_until: Option<Moment>,
    refusals: u32,
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self {
            in_flight: None,
            failed: None,
            failures: 0,
            refused: false,
            refusals_until: None,
            refusals: 0,
        }
    }
}

impl<C: Credential> Slot<C> {
    /// A token to use now. Waits only when there is none.
    pub async fn token(&self) -> Outcome<C> {
        let now = self.clock.now();
        if let Some(token) = self.current.load_full()
            && now < token.use_until
        {
            if now >= token.renew_from {
                self.begin(now, Some(&token));
            }
            note::token(true);
            return Ok(token);
        }
        note::token(false);
        let mut flight = match self.begin(now, None) {
            Begun::Flight(flight) => flight,
            Begun::Token(token) => return Ok(token),
            Begun::BackOff(error) => return Err(error),
        };
        match flight
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| outcome.clone())
        {
            Some(outcome) => outcome,
            // The runtime is going down, and with it the request.
            None => Err(TokenError {
                fault: TokenFault::Unreachable("the gateway is stopping".into()),
                retry_after: BACK_OFF.0,
            }),
        }
    }

    /// How the last token request went.
    pub fn standing(&self) -> Standing {
        match &self.state().failed {
            Some((fault, _)) => Standing::Failed(fault.clone()),
            None if self.current.load().is_some() => Standing::Good,
            None => Standing::NotAsked,
        }
    }

    /// The server answered 401 to `token`.
    pub fn refused(&self, token: &Arc<Kept<C>>) -> AfterRefusal {
        let now = self.clock.now();
        let mut state = self.state();
        if !(self.is_current(token) || token.once && self.current.load().is_none()) {
            return AfterRefusal::Retry;
        }
        match state.refusals_until {
            Some(until) if now < until => return AfterRefusal::GiveUp,
            // One that is used once is a fresh one every time.
            over if token.after_refusal && (over.is_none() || token.once) => {
                let wait = back_off(state.refusals);
                state.refusals += 1;
                state.refusals_until = Some(now.plus(wait));
                if token.once {
                    // Kept for the wait, so that a call within it asks for no other.
                    self.current.store(Some(Arc::new(Kept {
                        credential: token.credential.clone(),
                        use_until: now.plus(wait),
                        renew_from: now.plus(wait),
                        ..**token
                    })));
                }
                return AfterRefusal::GiveUp;
            }
            // The first refusal, or the wait after the last is over: a fresh token is worth a request.
            _ => state.refusals_until = None,
        }
        state.refused = true;
        self.current.store(None);
        AfterRefusal::Retry
    }

    /// The server took `token`: what was held against it or its like is over.
    pub fn accepted(&self, token: &Arc<Kept<C>>) {
        if token.after_refusal {
            let mut state = self.state();
            state.refusals = 0;
            state.refusals_until = None;
            // From here on the token is one like any other; a later refusal is a revocation.
            if self.is_current(token) {
                self.current.store(Some(Arc::new(Kept {
                    credential: token.credential.clone(),
                    after_refusal: false,
                    ..**token
                })));
            }
        }
    }

    fn is_current(&self, token: &Arc<Kept<C>>) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|current| current.credential == token.credential)
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the request in flight or starts one. `renewing` is the token that a renewal would replace.
    fn begin(&self, now: Moment, renewing: Option<&Arc<Kept<C>>>) -> Begun<C> {
        let mut state = self.state();
        if let Some(flight) = &state.in_flight {
            return Begun::Flight(flight.clone());
        }
        // Another caller may have finished between our look and the lock.
        if let Some(current) = self.current.load_full()
            && now < current.use_until
            && renewing.is_none_or(|old| !Arc::ptr_eq(old, &current))
        {
            return Begun::Token(current);
        }
        if let Some((fault, until)) = &state.failed
            && now < *until
        {
            return Begun::BackOff(TokenError {
                fault: fault.clone(),
                retry_after: now.until(*until),
            });
        }
        let (report, flight) = watch::channel(None);
        state.in_flight = Some(flight.clone());
        // While the server refuses tokens, one fetched for another reason is judged by that too.
        let after_refusal = std::mem::take(&mut state.refused) || state.refusals > 0;
        drop(state);
        if let Some(slot) = self.this.upgrade() {
            self.runtime.spawn(async move {
                // A request that panics must not leave its callers waiting on a flight that never lands.
                let landing = Landing {
                    slot: &slot,
                    report,
                    outcome: None,
                };
                landing.land(slot.fetch(after_refusal).await);
            });
        }
        Begun::Flight(flight)
    }

    async fn fetch(&self, after_refusal: bool) -> Result<Kept<C>, TokenFault> {
        let fetched = self.source.fetch().await;
        let now = self.clock.now();
        let Fetched {
            credential,
            lifetime,
            at_most,
        } = fetched?;
        let (mut use_for, mut lead) = schedule(lifetime);
        if let Some(most) = at_most
            && most < use_for
        {
            // A renewal would end at the same time.
            (use_for, lead) = (most, Duration::ZERO);
        }
        Ok(Kept {
            credential,
            use_until: now.plus(use_for),
            renew_from: now.plus(use_for.saturating_sub(lead)),
            after_refusal,
            once: use_for.is_zero(),
        })
    }

    fn landed(&self, result: Result<Kept<C>, TokenFault>) -> Outcome<C> {
        let now = self.clock.now();
        let mut state = self.state();
        state.in_flight = None;
        match result {
            Ok(mut token) => {
                // A refusal while this one was under way: it is the fresh one that was asked for.
                token.after_refusal |= std::mem::take(&mut state.refused);
                let token = Arc::new(token);
                state.failed = None;
                state.failures = 0;
                let fresh = now < token.use_until;
                let spent = |current: &Arc<Kept<C>>| now >= current.use_until;
                if fresh || self.current.load().as_ref().is_some_and(spent) {
                    self.current.store(fresh.then(|| Arc::clone(&token)));
                }
                self.metrics.fetched(&self.server, "ok");
                tracing::debug!(server = %self.server, "token fetched");
                Ok(token)
            }
            Err(fault) => {
                let wait = back_off(state.failures);
                state.failures += 1;
                state.failed = Some((fault.clone(), now.plus(wait)));
                self.metrics.fetched(&self.server, "failed");
                tracing::warn!(server = %self.server, %fault, "no token");
                Err(TokenError {
                    fault,
                    retry_after: wait,
                })
            }
        }
    }
}

/// Ends a flight exactly once, whatever becomes of the request.
struct Landing<'s, C: Credential> {
    slot: &'s Slot<C>,
    report: watch::Sender<Option<Outcome<C>>>,
    outcome: Option<Result<Kept<C>, TokenFault>>,
}

impl<C: Credential> Landing<'_, C> {
    fn land(mut self, outcome: Result<Kept<C>, TokenFault>) {
        self.outcome = Some(outcome);
    }
}

impl<C: Credential> Drop for Landing<'_, C> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let outcome =
            outcome.unwrap_or_else(|| Err(TokenFault::Unreachable("the request was given up".into())));
        let outcome = self.slot.landed(outcome);
        // Nobody may be waiting.
        let _ = self.report.send(Some(outcome));
    }
}

enum Begun<C> {
    Flight(Flight<C>),
    Token(Arc<Kept<C>>),
    BackOff(TokenError),
}

/// For how long a token is used, and how long before the end of that its renewal begins.
fn schedule(lifetime: Lifetime) -> (Duration, Duration) {
    let lifetime = match lifetime {
        Lifetime::Known(lifetime) => lifetime,
        Lifetime::Unknown => UNKNOWN_LIFETIME,
    };
    let use_for = lifetime.saturating_sub(MARGIN).max(lifetime.min(SHORT_LIFE));
    (use_for, (use_for / 10).min(RENEWAL_LEAD))
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF.0.saturating_mul(1 << failures.min(10)).min(BACK_OFF.1)
}

fn header_value(response: &TokenResponse) -> Result<HeaderValue, TokenFault> {
    let text = format!("Bearer {}", response.access_token.secret().expose_secret());
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| TokenFault::Response(vestibule_oauth::TokenResponseFault::UnusableToken))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AssertionAudience, ClientKey, ExchangeClient};
    use vestibule_oauth::ClientAuthMethod;
    use vestibule_oauth::client_assertion::AssertionKey;
    use vestibule_oauth::client_auth::Client;
    use vestibule_oauth::jwt::Algorithm;
    use vestibule_oauth::token_request::ClientCredentialsRequest;
    use vestibule_testkit::SigningKey;

    fn shared(id: &str, secret: &str, auth_method: ClientAuthMethod) -> ExchangeClient {
        ExchangeClient::Shared(Client {
            id: id.into(),
            secret: Some(secret.into()),
            auth_method,
        })
    }

    fn with_key(audience: AssertionAudience) -> ExchangeClient {
        let pem = SigningKey::ed25519("k").pem();
        let key = AssertionKey::from_pem(&pem, Algorithm::EdDsa, None).expect("a key");
        ExchangeClient::Key(ClientKey {
            id: "id".into(),
            key: Arc::new(key),
            audience,
        })
    }

    fn request() -> MachineRequest {
        MachineRequest {
            client: shared("id", "secret", ClientAuthMethod::ClientSecretPost),
            grant: ClientCredentialsRequest {
                scopes: vec!["a".into(), "b".into()],
                audience: None,
                resource: None,
            },
        }
    }

    #[test]
    fn keys_differ_with_everything_a_token_depends_on() {
        let url = |text: &str| Url::parse(text).expect("url");
        let base = request();
        let mut keys = vec![
            key("s", &url("http://x/t"), &base),
            key("s2", &url("http://x/t"), &base),
            key("s", &url("http://x/t2"), &base),
        ];
        let post = ClientAuthMethod::ClientSecretPost;
        let basic = ClientAuthMethod::ClientSecretBasic;
        let edits: [&dyn Fn(&mut MachineRequest); 12] = [
            &|r| r.client = shared("id2", "secret", post),
            &|r| r.client = shared("id", "secret2", post),
            &|r| r.client = shared("id", "secret", basic),
            &|r| r.client = shared("ids", "ecret", post),
            &|r| r.client = with_key(AssertionAudience::TokenEndpoint),
            // Another key.
            &|r| r.client = with_key(AssertionAudience::TokenEndpoint),
            &|r| r.client = with_key(AssertionAudience::Issuer("i".into())),
            &|r| r.grant.scopes = vec!["a b".into()],
            &|r| r.grant.scopes = vec!["b".into(), "a".into()],
            &|r| r.grant.audience = Some("x".into()),
            &|r| r.grant.resource = Some("x".into()),
            &|r| r.grant.audience = Some(String::new()),
        ];
        for edit in edits {
            let mut edited = base.clone();
            edit(&mut edited);
            keys.push(key("s", &url("http://x/t"), &edited));
        }
        for (index, one) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(one), "key {index} is not unique");
        }
        assert_eq!(keys[0], key("s", &url("http://x/t"), &base));
    }

    #[test]
    fn schedules() {
        let seconds = Duration::from_secs;
        for (lifetime, use_for, lead) in [
            (Lifetime::Known(seconds(3600)), 3540, 300),
            (Lifetime::Known(seconds(600)), 540, 54),
            (Lifetime::Known(seconds(60)), 10, 1),
            (Lifetime::Known(seconds(5)), 5, 0),
            (Lifetime::Known(seconds(0)), 0, 0),
            (Lifetime::Unknown, 240, 24),
        ] {
            let (got_use, got_lead) = schedule(lifetime);
            assert_eq!(
                (got_use.as_secs(), got_lead.as_secs()),
                (use_for, lead),
                "{lifetime:?}"
            );
        }
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let waits: Vec<u64> = [0, 1, 2, 4, 5, 90]
            .map(|failures| back_off(failures).as_secs())
            .into();
        assert_eq!(waits, [1, 2, 4, 16, 30, 30]);
    }
}

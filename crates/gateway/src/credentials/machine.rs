//! Machine tokens: fetched with the client credentials grant, kept in memory, renewed ahead of their end,
//! one request in flight for each credential however many callers wait.
//!
//! A request runs on the gateway's own runtime, so it outlives the caller that started it. A call with a
//! usable token takes no lock and waits for nothing.

use crate::clock::{Clock, Moment};
use crate::config::ServerSettings;
use crate::net::token_endpoint::{TokenClient, TokenFault};
use crate::telemetry::metrics::TokenMetrics;
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use http::HeaderValue;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;
use vestibule_oauth::token_request::ClientCredentialsRequest;
use vestibule_oauth::{Lifetime, TokenResponse};
use vestibule_store::join;

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

/// A token in hand.
#[derive(Debug)]
pub struct MachineToken {
    header: HeaderValue,
    use_until: Moment,
    renew_from: Moment,
    /// It was fetched because the server refused the one before.
    after_refusal: bool,
    /// Its life is over when it comes: it is used once and not kept.
    once: bool,
}

impl MachineToken {
    /// `Bearer <token>`, marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
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
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
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
    pub fn slot(
        &self,
        server: &ServerSettings,
        token_url: &Url,
        request: &ClientCredentialsRequest,
    ) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots
            .entry(key(&server.id, token_url, request))
            .or_insert_with(|| {
                Arc::new_cyclic(|this| Slot {
                    this: this.clone(),
                    client: self.client.clone(),
                    clock: self.clock.clone(),
                    runtime: self.runtime.clone(),
                    metrics: self.metrics.clone(),
                    server: server.name.clone(),
                    token_url: token_url.clone(),
                    request: request.clone(),
                    current: ArcSwapOption::empty(),
                    state: Mutex::default(),
                })
            });
        Arc::clone(slot)
    }
}

/// SHA-256 over everything that the token depends on, each part with its length before it.
fn key(server_id: &str, token_url: &Url, request: &ClientCredentialsRequest) -> [u8; 32] {
    let optional = |value: &Option<String>| value.as_ref().map(|text| format!("={text}")).unwrap_or_default();
    let (audience, resource) = (optional(&request.audience), optional(&request.resource));
    let mut parts: Vec<&[u8]> = vec![
        server_id.as_bytes(),
        token_url.as_str().as_bytes(),
        request.client.id.as_bytes(),
        request.client.secret.expose_secret().as_bytes(),
        request.auth_method.name().as_bytes(),
        audience.as_bytes(),
        resource.as_bytes(),
    ];
    parts.extend(request.scopes.iter().map(String::as_bytes));
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&digest::SHA256, &join(&parts)).as_ref());
    whole
}

/// One credential's token.
pub struct Slot {
    this: std::sync::Weak<Self>,
    client: TokenClient,
    clock: Clock,
    runtime: Handle,
    metrics: TokenMetrics,
    /// Its name, as in every other line of the log and the metrics.
    server: String,
    token_url: Url,
    request: ClientCredentialsRequest,
    current: ArcSwapOption<MachineToken>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

type Outcome = Result<Arc<MachineToken>, TokenError>;

#[derive(Default)]
struct State {
    in_flight: Option<watch::Receiver<Option<Outcome>>>,
    /// The last request's fault and the end of the wait after it.
    failed: Option<(TokenFault, Moment)>,
    failures: u32,
    /// The server refused a token; the next one is to be judged by that.
    refused: bool,
    /// The server refused fresh tokens; until then no other is fetched because of a refusal.
    refusals_until: Option<Moment>,
    refusals: u32,
}

impl Slot {
    /// A token to use now. Waits only when there is none.
    pub async fn token(&self) -> Outcome {
        let now = self.clock.now();
        if let Some(token) = self.current.load_full()
            && now < token.use_until
        {
            if now >= token.renew_from {
                self.begin(now, Some(&token));
            }
            return Ok(token);
        }
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

    /// The server answered 401 to `token`.
    pub fn refused(&self, token: &Arc<MachineToken>) -> AfterRefusal {
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
                    self.current.store(Some(Arc::new(MachineToken {
                        header: token.header.clone(),
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
    pub fn accepted(&self, token: &Arc<MachineToken>) {
        if token.after_refusal {
            let mut state = self.state();
            state.refusals = 0;
            state.refusals_until = None;
            // From here on the token is one like any other; a later refusal is a revocation.
            if self.is_current(token) {
                self.current.store(Some(Arc::new(MachineToken {
                    header: token.header.clone(),
                    after_refusal: false,
                    ..**token
                })));
            }
        }
    }

    fn is_current(&self, token: &Arc<MachineToken>) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|current| current.header == token.header)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the request in flight or starts one. `renewing` is the token that a renewal would replace.
    fn begin(&self, now: Moment, renewing: Option<&Arc<MachineToken>>) -> Begun {
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

    async fn fetch(&self, after_refusal: bool) -> Result<MachineToken, TokenFault> {
        let response = self
            .client
            .client_credentials(&self.token_url, &self.request)
            .await;
        let now = self.clock.now();
        let response = response?;
        let (use_for, lead) = schedule(response.lifetime);
        Ok(MachineToken {
            header: header_value(&response)?,
            use_until: now.plus(use_for),
            renew_from: now.plus(use_for.saturating_sub(lead)),
            after_refusal,
            once: use_for.is_zero(),
        })
    }

    fn landed(&self, result: Result<MachineToken, TokenFault>) -> Outcome {
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
                let spent = |current: &Arc<MachineToken>| now >= current.use_until;
                if fresh || self.current.load().as_ref().is_some_and(spent) {
                    self.current.store(fresh.then(|| Arc::clone(&token)));
                }
                self.metrics.fetched(&self.server, "ok");
                tracing::debug!(server = %self.server, "machine token fetched");
                Ok(token)
            }
            Err(fault) => {
                let wait = back_off(state.failures);
                state.failures += 1;
                state.failed = Some((fault.clone(), now.plus(wait)));
                self.metrics.fetched(&self.server, "failed");
                tracing::warn!(server = %self.server, %fault, "no machine token");
                Err(TokenError {
                    fault,
                    retry_after: wait,
                })
            }
        }
    }
}

/// Ends a flight exactly once, whatever becomes of the request.
struct Landing<'s> {
    slot: &'s Slot,
    report: watch::Sender<Option<Outcome>>,
    outcome: Option<Result<MachineToken, TokenFault>>,
}

impl Landing<'_> {
    fn land(mut self, outcome: Result<MachineToken, TokenFault>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let outcome =
            outcome.unwrap_or_else(|| Err(TokenFault::Unreachable("the request was given up".into())));
        let outcome = self.slot.landed(outcome);
        // Nobody may be waiting.
        let _ = self.report.send(Some(outcome));
    }
}

enum Begun {
    Flight(watch::Receiver<Option<Outcome>>),
    Token(Arc<MachineToken>),
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
    use vestibule_oauth::{ClientAuthMethod, ClientSecret};

    fn request() -> ClientCredentialsRequest {
        ClientCredentialsRequest {
            client: ClientSecret {
                id: "id".into(),
                secret: "secret".into(),
            },
            auth_method: ClientAuthMethod::ClientSecretPost,
            scopes: vec!["a".into(), "b".into()],
            audience: None,
            resource: None,
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
        let edits: [fn(&mut ClientCredentialsRequest); 9] = [
            |r| r.client.id = "id2".into(),
            |r| r.client.secret = "secret2".into(),
            |r| r.auth_method = ClientAuthMethod::ClientSecretBasic,
            |r| r.scopes = vec!["a b".into()],
            |r| r.scopes = vec!["b".into(), "a".into()],
            |r| r.audience = Some("x".into()),
            |r| r.resource = Some("x".into()),
            |r| r.audience = Some(String::new()),
            |r| (r.client.id, r.client.secret) = ("ids".into(), "ecret".into()),
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

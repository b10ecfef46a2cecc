//! One person's token for one server in memory: what is in hand, and the one flight that gets another.

use super::grant::{Grant, PersonToken};
use super::renewal::{ExchangeFault, exchange};
use super::{NoToken, Parts};
use crate::audit::note;
use crate::config::SignIn;
use crate::ids;
use crate::issuer;
use crate::issuer::upstream::UpstreamEndpoints;
use crate::registry::Server;
use arc_swap::ArcSwapOption;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vestibule_store::{Grant as Row, Lease, StoreError, UserId, Version};

/// How long what was read from the store counts before it is read again, in the background: so long another
/// replica's deletion may go unnoticed.
const READ_AGAIN: u64 = 5;
/// How much longer than a token request one renewal's lease is: for what the store takes.
const LEASE_MORE: Duration = Duration::from_secs(5);
/// How much longer than a lease anybody waits for somebody else's renewal: who holds it may have died.
const PATIENCE_MORE: Duration = Duration::from_secs(5);
/// How often somebody who waits for another's renewal looks.
const LOOK: Duration = Duration::from_millis(50);
/// A token that was issued less than so many seconds ago is as good as one that is asked for now, unless the server
/// refused it.
const JUST_NOW: u64 = 30;
/// After so many seconds without a look into the store, the next call waits for one.
const BELIEVED: u64 = 60;
/// The wait after a renewal that failed and may succeed later, in seconds.
const BACK_OFF: u64 = 10;

type Outcome = Result<Arc<PersonToken>, NoToken>;

/// A token in hand, and when the store was asked.
struct Held {
    token: Arc<PersonToken>,
    read_at: u64,
}

#[derive(Default)]
struct State {
    flight: Option<watch::Receiver<Option<Outcome>>>,
    /// The server refused this writing: it is renewed however long it would last.
    refused: Option<Version>,
    /// No renewal is tried before this second.
    not_before: u64,
    /// What the last one came to.
    last_fault: Option<ExchangeFault>,
    /// What a renewal gave and the store has not taken yet: the refresh token before it is spent.
    unsaved: Option<Arc<Unsaved>>,
}

/// A grant on its way to the store.
struct Unsaved {
    holder: String,
    replaces: Version,
    grant: Grant,
    token: Arc<PersonToken>,
}

/// The place.
pub(super) struct Slot {
    parts: Arc<Parts>,
    user: UserId,
    server: Arc<Server>,
    sign_in: Arc<SignIn>,
    current: ArcSwapOption<Held>,
    state: Mutex<State>,
}

/// What a flight is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// To know what the store has.
    Read,
    /// To have a token that lasts.
    Renew,
    /// To have a token that was not there before.
    Another,
}

impl Slot {
    /// Whether it is for the server as it is configured now.
    pub(super) fn is_of(&self, server: &Arc<Server>) -> bool {
        Arc::ptr_eq(&self.server, server)
    }

    pub(super) fn new(parts: Arc<Parts>, user: UserId, server: Arc<Server>, sign_in: Arc<SignIn>) -> Self {
        Self {
            parts,
            user,
            server,
            sign_in,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        }
    }

    /// The token in hand, or the one that the store or the provider gives.
    pub(super) async fn token(self: &Arc<Self>) -> Outcome {
        let now = self.parts.clock.unix_seconds();
        if let Some(held) = &*self.current.load()
            && now < held.token.use_until
            && now < held.read_at + BELIEVED
        {
            if now >= held.token.renew_from {
                drop(self.fly(Why::Renew));
            } else if now >= held.read_at + READ_AGAIN {
                drop(self.fly(Why::Read));
            }
            note::token(true);
            return Ok(Arc::clone(&held.token));
        }
        note::token(false);
        self.wait(Why::Read).await
    }

    /// The server refused `token`.
    pub(super) async fn after_refusal(self: &Arc<Self>, token: &PersonToken) -> Outcome {
        {
            let mut state = self.state();
            if state.refused != Some(token.version) {
                state.refused = Some(token.version);
                // One refusal is one renewal, whatever happened before.
                state.not_before = 0;
            }
            let held = self.current.load_full();
            if held.is_some_and(|held| held.token.version == token.version) {
                self.current.store(None);
            }
        }
        loop {
            match self.wait(Why::Renew).await {
                // From a flight that had looked before the refusal.
                Ok(same) if same.version == token.version => {}
                outcome => return outcome,
            }
        }
    }

    /// Fresh tokens for the client that holds our refresh token for the sign-in `name`. Several processes of one
    /// client that ask at once get the same.
    pub(super) async fn refresh(self: &Arc<Self>, name: String) -> Result<Grant, NoToken> {
        let (grant, version) = self.kept(&name).await?;
        let now = self.parts.clock.unix_seconds();
        let refused = self.parts.was_refused(grant.access_token());
        if !refused && now.saturating_sub(grant.issued_at()) < JUST_NOW {
            return Ok(grant);
        }
        if !grant.is_renewable() {
            return Err(NoToken::SignIn);
        }
        // The second try is for a flight that was under way for something less.
        for _ in 0..2 {
            if self.wait(Why::Another).await?.version != version {
                break;
            }
        }
        let (next, renewed) = self.kept(&name).await?;
        if renewed == version {
            // What is kept lasts as long as it lasts; no other provider renews it.
            if matches!(self.backing_off(now), Some(ExchangeFault::AnotherAuthority)) {
                return Err(NoToken::SignIn);
            }
            return Err(NoToken::Renewal(ExchangeFault::NoEndpoints(
                "the token could not be renewed just now".into(),
            )));
        }
        Ok(next)
    }

    /// What is kept, if it goes back to the sign-in `name`.
    async fn kept(self: &Arc<Self>, name: &str) -> Result<(Grant, Version), NoToken> {
        let slot = Arc::clone(self);
        let read = async move { slot.row().await };
        let row = self.parts.runtime.spawn(read).await;
        let row = row
            .unwrap_or(Err(StoreError::Interrupted))?
            .ok_or(NoToken::SignIn)?;
        let grant = Grant::from_row(&row).ok_or(NoToken::SignIn)?;
        if grant.name() == name {
            Ok((grant, row.version))
        } else {
            Err(NoToken::SignIn)
        }
    }

    async fn wait(self: &Arc<Self>, why: Why) -> Outcome {
        let mut flight = self.fly(why);
        match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(NoToken::SignIn)),
            // The task panicked; the next caller starts another.
            Err(_) => Err(NoToken::Renewal(ExchangeFault::NoEndpoints(
                "the renewal broke off".into(),
            ))),
        }
    }

    /// Joins the flight under way, or starts one. It runs on the gateway's own runtime.
    fn fly(self: &Arc<Self>, why: Why) -> watch::Receiver<Option<Outcome>> {
        let mut state = self.state();
        if let Some(flight) = &state.flight
            && flight.has_changed().is_ok()
        {
            return flight.clone();
        }
        let (done, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        let slot = Arc::clone(self);
        self.parts.runtime.spawn(async move {
            let outcome = slot.work(why).await;
            slot.state().flight = None;
            let _ = done.send(Some(outcome));
        });
        flight
    }

    async fn work(&self, why: Why) -> Outcome {
        let give_up = self.parts.clock.now().plus(self.lease() + PATIENCE_MORE);
        loop {
            let unsaved = self.state().unsaved.clone();
            if let Some(unsaved) = unsaved
                && let Err(error) = self.save(&unsaved).await
            {
                return self.unsaved(&unsaved.token, error);
            }
            let row = match self.row().await {
                Ok(row) => row,
                Err(error) => return self.at_a_pinch().ok_or_else(|| error.into()),
            };
            let now = self.parts.clock.unix_seconds();
            let Some((grant, token)) = self.read(row.as_ref()) else {
                self.current.store(None);
                return Err(NoToken::SignIn);
            };
            let refused = self.state().refused == Some(token.version);
            let valid = now < token.over_from && !refused;
            if valid {
                self.hold(&token);
                let enough = match why {
                    Why::Read => true,
                    Why::Renew => now < token.renew_from,
                    Why::Another => false,
                };
                if now < token.use_until && enough {
                    return Ok(token);
                }
            }
            if !grant.is_renewable() {
                // It lasts as long as it lasts.
                return if valid { Ok(token) } else { self.ended() };
            }
            if let Some(fault) = self.backing_off(now) {
                return if valid { Ok(token) } else { Err(fault.into()) };
            }
            match self.renew(&grant, token.version).await {
                Ok(Renewal::Renewed(token)) => return Ok(token),
                Ok(Renewal::Unsaved(token, error)) => return self.unsaved(&token, error),
                Ok(Renewal::Changed) => {}
                Ok(Renewal::Ended) => return self.ended(),
                // Somebody else renews, or nobody can now; what is in hand still serves.
                Ok(Renewal::Elsewhere | Renewal::Failed(_)) | Err(_) if valid => return Ok(token),
                Ok(Renewal::Failed(fault)) => return Err(fault.into()),
                Ok(Renewal::Elsewhere) if self.parts.clock.now() > give_up => {
                    let text = "another replica's renewal takes too long".to_owned();
                    return Err(NoToken::Renewal(ExchangeFault::NoEndpoints(text)));
                }
                Ok(Renewal::Elsewhere) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn row(&self) -> Result<Option<Row>, StoreError> {
        match self.parts.store.grant(&self.user, &self.server.store_id).await {
            // Sealed with a key that is gone: a new sign-in puts it right.
            Err(error @ StoreError::Undecryptable { .. }) => {
                tracing::error!(server = %self.server.name, %error, "a person has to sign in again");
                Ok(None)
            }
            row => row,
        }
    }

    fn read(&self, row: Option<&Row>) -> Option<(Grant, Arc<PersonToken>)> {
        let row = row?;
        let grant = Grant::from_row(row)?;
        let token = grant.token(row.version, &self.sign_in)?;
        Some((grant, Arc::new(token)))
    }

    /// Nobody gets a token that was refused meanwhile.
    fn hold(&self, token: &Arc<PersonToken>) {
        let state = self.state();
        if state.refused != Some(token.version) {
            self.current.store(Some(Arc::new(Held {
                token: Arc::clone(token),
                read_at: self.parts.clock.unix_seconds(),
            })));
        }
    }

    fn ended(&self) -> Outcome {
        self.current.store(None);
        Err(NoToken::SignIn)
    }

    /// What is in hand, if it is not over: for when the store does not answer.
    fn at_a_pinch(&self) -> Option<Arc<PersonToken>> {
        let held = self.current.load_full()?;
        (self.parts.clock.unix_seconds() < held.token.over_from).then(|| Arc::clone(&held.token))
    }

    /// A token that the store has not taken serves all the same; the next flight tries to save it again.
    fn unsaved(&self, token: &Arc<PersonToken>, error: StoreError) -> Outcome {
        tracing::error!(server = %self.server.name, %error, "a renewed token could not be saved yet");
        let refused = self.state().refused == Some(token.version);
        if refused || self.parts.clock.unix_seconds() >= token.over_from {
            return Err(error.into());
        }
        self.hold(token);
        Ok(Arc::clone(token))
    }

    /// The fault that is waited after, while it is.
    fn backing_off(&self, now: u64) -> Option<ExchangeFault> {
        let state = self.state();
        state.last_fault.clone().filter(|_| now < state.not_before)
    }

    /// Longer than a token request, so that its holder is done or dead when it ends.
    fn lease(&self) -> Duration {
        self.parts.token_timeout + LEASE_MORE
    }

    /// One renewal, under a lease that all replicas respect.
    async fn renew(&self, grant: &Grant, version: Version) -> Result<Renewal, StoreError> {
        let store = &self.parts.store;
        let server = &self.server.store_id;
        // Before the lease, which lasts as long as one request.
        let upstream = self.sign_in.upstream(&self.server);
        let endpoints = match self.parts.discovery.endpoints(&upstream).await {
            Ok(endpoints) => endpoints,
            Err(error) => return Ok(self.failed(ExchangeFault::NoEndpoints(error.to_string()))),
        };
        let holder = ids::random_hex();
        let now = self.parts.clock.unix_milliseconds();
        let until = now + u64::try_from(self.lease().as_millis()).unwrap_or(u64::MAX);
        match store.lease_grant(&self.user, server, &holder, now, until).await? {
            Lease::Held(row) if row.version == version => {}
            Lease::Held(_) => {
                // Renewed between our reading and our lease.
                store.release_grant(&self.user, server, &holder).await?;
                return Ok(Renewal::Changed);
            }
            Lease::Busy { .. } => return Ok(Renewal::Elsewhere),
            Lease::Gone => return Ok(Renewal::Changed),
        }
        let fault = match self.refreshed(grant, &endpoints).await {
            Ok(next) => return Ok(self.keep(next, holder, version).await),
            Err(fault) => fault,
        };
        tracing::warn!(server = %self.server.name, %fault, "a person's token could not be renewed");
        self.parts
            .record_renewal(grant, &self.user, &self.server.name, Some(&fault));
        let registered = grant.registration();
        let forgotten = fault.is_unknown_client() && registered.is_some();
        if let (true, Some(key)) = (forgotten, registered) {
            self.parts.registrations.forget(server, key).await?;
        }
        if fault.ends_the_grant() || forgotten {
            let deleted = store.delete_grant_if(&self.user, server, version).await?;
            // Where it is not at this version any more, the person signed in anew meanwhile.
            return Ok(if deleted { Renewal::Ended } else { Renewal::Changed });
        }
        let failed = self.failed(fault);
        store.release_grant(&self.user, server, &holder).await?;
        Ok(failed)
    }

    /// On disk before the old one is forgotten, and until then kept here: what was before is spent.
    async fn keep(&self, next: Grant, holder: String, replaces: Version) -> Renewal {
        let Some(token) = next.token(replaces.next(), &self.sign_in) else {
            return self.failed(ExchangeFault::NoEndpoints("no header can carry the token".into()));
        };
        let token = Arc::new(token);
        let unsaved = Arc::new(Unsaved {
            holder,
            replaces,
            grant: next,
            token: Arc::clone(&token),
        });
        {
            let mut state = self.state();
            state.unsaved = Some(Arc::clone(&unsaved));
            state.not_before = 0;
            state.last_fault = None;
        }
        match self.save(&unsaved).await {
            Ok(true) => {
                tracing::debug!(server = %self.server.name, "a person's token was renewed");
                self.parts
                    .record_renewal(&unsaved.grant, &self.user, &self.server.name, None);
                self.hold(&token);
                Renewal::Renewed(token)
            }
            Ok(false) => Renewal::Changed,
            Err(error) => Renewal::Unsaved(token, error),
        }
    }

    /// False where the row is another one by now: a new sign-in, or this very grant, saved by an earlier try.
    async fn save(&self, unsaved: &Arc<Unsaved>) -> Result<bool, StoreError> {
        let grant = &unsaved.grant;
        let saved = self
            .parts
            .store
            .finish_grant(
                &self.user,
                &self.server.store_id,
                &unsaved.holder,
                unsaved.replaces,
                &grant.to_bytes(),
                grant.expires_at(),
                self.parts.clock.unix_seconds(),
            )
            .await?;
        self.state().unsaved = None;
        Ok(saved.is_some())
    }

    fn failed(&self, fault: ExchangeFault) -> Renewal {
        let mut state = self.state();
        state.not_before = self.parts.clock.unix_seconds() + BACK_OFF;
        state.last_fault = Some(fault.clone());
        Renewal::Failed(fault)
    }

    async fn refreshed(&self, grant: &Grant, endpoints: &UpstreamEndpoints) -> Result<Grant, ExchangeFault> {
        if endpoints.authority() != grant.authority() {
            return Err(ExchangeFault::AnotherAuthority);
        }
        let resource = issuer::resource(&self.sign_in, endpoints);
        let Some(request) = grant.refresh(self.sign_in.client.as_ref(), resource) else {
            return Err(ExchangeFault::NoEndpoints("there is no refresh token".into()));
        };
        let secrets = request.sent_secrets();
        let tokens = exchange(&self.parts.guarded, endpoints, &request.encode(), &secrets).await?;
        if let Err(mismatch) = self.sign_in.token_rules.check(tokens.document.value()) {
            return Err(ExchangeFault::Rule(mismatch.to_string()));
        }
        Ok(grant.renewed(&tokens, self.parts.clock.unix_seconds()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a renewal came to.
enum Renewal {
    /// This is new, and on disk. It is used at least once, however short it lives.
    Renewed(Arc<PersonToken>),
    /// This is new, and the store did not take it.
    Unsaved(Arc<PersonToken>, StoreError),
    /// The store has another row by now.
    Changed,
    /// Somebody else has the lease.
    Elsewhere,
    /// The person has to sign in.
    Ended,
    /// Later it may succeed.
    Failed(ExchangeFault),
}

impl From<ExchangeFault> for NoToken {
    fn from(fault: ExchangeFault) -> Self {
        if fault.needs_a_sign_in() {
            Self::SignIn
        } else {
            Self::Renewal(fault)
        }
    }
}

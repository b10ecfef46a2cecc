//! What an issuer publishes about itself: its token endpoint and its keys. Fetched when first needed, used for a while,
//! looked up again in the background, and dropped in the end. One fetch is in flight at a time, on the control runtime,
//! and a token that names an unknown key causes at most one within [`WINDOW`].

use crate::clock::{Clock, Moment};
use crate::net::guarded::{Fetched, Guarded, GuardedFault, Reach, Zone};
use arc_swap::ArcSwapOption;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;
use vestibule_oauth::jwt::KeySet;
use vestibule_oauth::metadata::{AuthorizationServerMetadata, authorization_server_candidates, endpoint_url};

/// From then on documents are looked up again while they are still used.
const FRESH: Duration = Duration::from_secs(300);
/// From then on they are not used any more.
const END: Duration = Duration::from_secs(60 * 60);
/// The shortest time between two fetches that succeeded.
const WINDOW: Duration = Duration::from_secs(30);
/// The wait after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What the documents are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// `token_endpoint` of the metadata.
    TokenEndpoint,
    /// The keys, at `jwks_uri` of the metadata or where the operator says.
    Keys,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// With the reach that the document's own peer gives it. Always there when it is what was wanted.
    pub(super) token_endpoint: Option<(Url, Reach)>,
    pub(super) keys: KeySet,
    at: Moment,
    /// The same in seconds since 1970.
    pub(super) asked: u64,
}

/// Why there is nothing to go by.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{why}")]
pub struct NoDocuments {
    why: String,
    /// No other attempt is made before this has passed.
    pub retry_after: Duration,
}

impl NoDocuments {
    /// The keys changed under our eyes.
    pub(super) fn changing() -> Self {
        Self {
            why: "the issuer's keys are changing".into(),
            retry_after: AFTER_FAILURE,
        }
    }
}

/// One issuer's documents.
pub(super) struct IssuerDocuments {
    this: Weak<Self>,
    issuer: String,
    jwks_url: Option<Url>,
    wants: Wants,
    guarded: Guarded,
    clock: Clock,
    runtime: Handle,
    current: ArcSwapOption<Found>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_flight: Option<Flight>,
    /// No fetch begins before this.
    not_before: Moment,
    /// What became of the last one, if it failed.
    failed: Option<String>,
}

type Flight = watch::Receiver<Option<Result<Arc<Found>, NoDocuments>>>;

impl IssuerDocuments {
    pub(super) fn new(
        issuer: &str,
        jwks_url: Option<&Url>,
        wants: Wants,
        guarded: Guarded,
        clock: Clock,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            issuer: issuer.to_owned(),
            jwks_url: jwks_url.cloned(),
            wants,
            guarded,
            clock,
            runtime,
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        })
    }

    /// What is known. Waits only when that is nothing.
    pub(super) async fn current(&self) -> Result<Arc<Found>, NoDocuments> {
        let now = self.clock.now();
        if let Some(found) = self.current.load_full()
            && now < found.at.plus(END)
        {
            if now >= found.at.plus(FRESH) {
                // Whether it begins or not: what is known is still good.
                let _ = self.begin(now);
            }
            return Ok(found);
        }
        let (flight, _) = self.begin(now)?;
        self.landed(flight).await
    }

    /// What is newer than `than`, and whether it was fetched from scratch after this was asked.
    pub(super) async fn newer(&self, than: &Arc<Found>) -> Result<(Arc<Found>, bool), NoDocuments> {
        if let Some(found) = self.current.load_full()
            && !Arc::ptr_eq(&found, than)
        {
            return Ok((found, false));
        }
        let (flight, begun) = self.begin(self.clock.now())?;
        Ok((self.landed(flight).await?, begun))
    }

    async fn landed(&self, mut flight: Flight) -> Result<Arc<Found>, NoDocuments> {
        let outcome = flight.wait_for(Option::is_some).await.ok();
        outcome.and_then(|outcome| outcome.clone()).unwrap_or_else(|| {
            // The fetch panicked, or the runtime is going down.
            Err(NoDocuments {
                why: "the fetch was given up".into(),
                retry_after: AFTER_FAILURE,
            })
        })
    }

    /// Joins the fetch in flight or begins one; `true` says the latter.
    fn begin(&self, now: Moment) -> Result<(Flight, bool), NoDocuments> {
        let mut state = self.state();
        // A flight whose sender is gone never lands.
        if let Some(flight) = state
            .in_flight
            .clone()
            .filter(|flight| flight.has_changed().is_ok())
        {
            return Ok((flight, false));
        }
        if now < state.not_before {
            let why = state.failed.clone();
            return Err(NoDocuments {
                why: why.unwrap_or_else(|| format!("the keys of {} were fetched a moment ago", self.issuer)),
                retry_after: now.until(state.not_before),
            });
        }
        let (report, flight) = watch::channel(None);
        state.in_flight = Some(flight.clone());
        drop(state);
        if let Some(this) = self.this.upgrade() {
            self.runtime.spawn(async move {
                let outcome = this.fetch().await;
                let outcome = this.land(outcome);
                // Nobody may be waiting.
                let _ = report.send(Some(outcome));
            });
        }
        Ok((flight, true))
    }

    fn land(&self, outcome: Result<Found, String>) -> Result<Arc<Found>, NoDocuments> {
        let now = self.clock.now();
        let mut state = self.state();
        state.in_flight = None;
        match outcome {
            Ok(found) => {
                let found = Arc::new(found);
                self.current.store(Some(Arc::clone(&found)));
                state.not_before = now.plus(WINDOW);
                state.failed = None;
                tracing::debug!(issuer = %self.issuer, "an issuer's documents were fetched");
                Ok(found)
            }
            Err(why) => {
                tracing::warn!(issuer = %self.issuer, %why, "an issuer's documents cannot be had");
                state.not_before = now.plus(AFTER_FAILURE);
                state.failed = Some(why.clone());
                Err(NoDocuments {
                    why,
                    retry_after: AFTER_FAILURE,
                })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<Found, String> {
        let mut found = Found {
            token_endpoint: None,
            keys: KeySet::default(),
            at: self.clock.now(),
            asked: self.clock.unix_seconds(),
        };
        let configured: Vec<Url> = endpoint_url(&self.issuer)
            .into_iter()
            .chain(self.jwks_url.clone())
            .collect();
        let reach = Reach::configured(&configured);
        if self.wants == Wants::Keys
            && let Some(jwks_url) = &self.jwks_url
        {
            found.keys = self.keys(jwks_url, &reach).await?;
            return Ok(found);
        }
        let (metadata, zone, at) = self.metadata(&reach).await?;
        let learned = reach.named_from(zone);
        match self.wants {
            Wants::TokenEndpoint => {
                let named = self.named(metadata.token_endpoint, "token endpoint", &at, &reach)?;
                found.token_endpoint = Some((named, learned));
            }
            Wants::Keys => {
                let jwks_uri = self.named(metadata.jwks_uri, "keys", &at, &reach)?;
                found.keys = self.keys(&jwks_uri, &learned).await?;
            }
        }
        Ok(found)
    }

    /// The URL that the document at `at` has for `what`, unless it leads from https to http.
    fn named(&self, url: Option<Url>, what: &str, at: &Url, reach: &Reach) -> Result<Url, String> {
        let issuer = &self.issuer;
        let url = url.ok_or_else(|| format!("the metadata of {issuer} names no {what}"))?;
        if reach.downgrades(&url, at.scheme() == "https") {
            return Err(format!(
                "the metadata of {issuer} leads from https to http for the {what}"
            ));
        }
        Ok(url)
    }

    /// The document that is about this issuer and no other (RFC 8414 section 3.3), and where it was.
    async fn metadata(&self, reach: &Reach) -> Result<(AuthorizationServerMetadata, Zone, Url), String> {
        let mut why = "its identifier cannot be one".to_owned();
        for candidate in authorization_server_candidates(&self.issuer) {
            let Some(url) = endpoint_url(&candidate) else {
                continue;
            };
            match self.guarded.get_json(&url, reach).await {
                Ok(Fetched {
                    status: 200,
                    body,
                    zone,
                    ..
                }) => match AuthorizationServerMetadata::parse(&body) {
                    Ok(metadata) if metadata.issuer == self.issuer => return Ok((metadata, zone, url)),
                    Ok(_) => "a document there is about another issuer".clone_into(&mut why),
                    Err(_) => "what is there is no metadata".clone_into(&mut why),
                },
                Ok(Fetched { status, .. }) => why = format!("status {status}"),
                // Whoever does not answer at one address does not at the next.
                Err(fault @ (GuardedFault::Timeout | GuardedFault::Unreachable(_))) => {
                    return Err(format!("the metadata of {}: {fault}", self.issuer));
                }
                Err(fault) => why = fault.to_string(),
            }
        }
        Err(format!("the metadata of {}: {why}", self.issuer))
    }

    async fn keys(&self, url: &Url, reach: &Reach) -> Result<KeySet, String> {
        let wrong = |why: String| format!("the keys of {}: {why}", self.issuer);
        let answer = self.guarded.get_json(url, reach).await;
        let answer = answer.map_err(|fault| wrong(fault.to_string()))?;
        if answer.status != 200 {
            return Err(wrong(format!("status {}", answer.status)));
        }
        let keys = KeySet::parse(&answer.body).map_err(|fault| wrong(fault.to_string()))?;
        if keys.is_empty() {
            return Err(wrong("there is no key of use among them".into()));
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("url")
    }

    #[tokio::test]
    async fn an_issuers_documents_do_not_lead_from_https_to_http() {
        let tls = tls::client_config(false).expect("tls");
        let documents = IssuerDocuments::new(
            "https://idp.example",
            None,
            Wants::Keys,
            Guarded::new(Duration::from_secs(1), &tls).expect("client"),
            Clock::system(),
            Handle::current(),
        );
        let reach = Reach::configured(&[url("https://idp.example"), url("http://keys.example/jwks")]);
        for (at, named, leads) in [
            ("https://idp.example/d", "https://other.example/t", true),
            ("https://idp.example/d", "http://idp.example/t", false),
            ("https://idp.example/d", "http://other.example/t", false),
            // The operator wrote this one.
            ("https://idp.example/d", "http://keys.example/other", true),
            ("http://idp.example/d", "http://other.example/t", true),
        ] {
            let found = documents.named(Some(url(named)), "keys", &url(at), &reach);
            assert_eq!(found.is_ok(), leads, "{at} {named}: {found:?}");
        }
        assert!(
            documents
                .named(None, "keys", &url("https://idp.example/d"), &reach)
                .is_err()
        );
    }
}

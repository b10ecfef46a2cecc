//! The session of a legacy client with several servers. Its id is sealed and holds the servers' own sessions, so
//! any replica opens it; what came later than the id is in this process's memory, and opened anew where it is lost.

use super::era::Era;
use crate::clock::Moment;
use crate::http::relay::capabilities::told;
use crate::http::relay::session::Owner;
use crate::http::relay::upstream_client::{Opened, UpstreamClient};
use crate::ids::random_hex;
use crate::registry::Server;
use http::HeaderValue;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use vestibule_mcp::members::Members;
use vestibule_store::{KeyRing, MasterKeys};

/// Thirty days, as a session with one server.
const LIFETIME: u64 = 30 * 24 * 60 * 60;
/// A client pages through a list without a pause.
const CURSOR_LIFETIME: u64 = 10 * 60;
/// Sessions that are in memory, of everybody and of one caller, and how long without a request.
const MAX_LIVE: u64 = 20_000;
const MAX_LIVE_OF_ONE: usize = 5_000;
const LIVE_IDLE: Duration = Duration::from_secs(30 * 60);
/// How long a server that gave no session id is believed to give none, and to speak the revisions that it spoke.
const STATELESS_FOR: Duration = Duration::from_secs(10 * 60);
/// Names of tools that are in memory, in bytes, and for how long.
const MAX_CATALOGS: u64 = 32 * 1024 * 1024;
const CATALOG_FOR: Duration = Duration::from_secs(5 * 60);
/// How long a name that nobody has is not looked for again.
const MISSED_FOR: Duration = Duration::from_secs(10);
/// How long `initialize` does not wait for a server that failed: doubled with each failure.
const REST: Duration = Duration::from_secs(5);
const MAX_RESTS: u32 = 4;
/// Requests under way whose servers are remembered, for one session.
const MAX_IN_FLIGHT: usize = 1024;
/// The longest declaration of one capability that is passed on whole.
const MAX_CAPABILITY: usize = 512;

/// What endpoints with several servers keep.
pub struct Aggregates {
    sessions: KeyRing,
    cursors: KeyRing,
    live: Cache<String, Arc<Live>>,
    /// By caller: its sessions in memory, oldest first, some of which may be gone from there.
    live_of: Cache<Vec<u8>, Arc<Mutex<VecDeque<String>>>>,
    stateless: Cache<String, Opened>,
    resting: Cache<String, Resting>,
    /// By caller and server: whether the server speaks the newer revisions.
    eras: Cache<[u8; 32], Era>,
    pub(super) catalogs: Cache<[u8; 32], Arc<Vec<String>>>,
    /// By caller, servers and name: when it was last found that nobody has it.
    misses: Cache<[u8; 32], Moment>,
}

#[derive(Clone, Copy)]
struct Resting {
    until: Moment,
    failures: u32,
}

/// What is in memory of a session.
#[derive(Default)]
pub(super) struct Live {
    slots: Mutex<HashMap<String, Arc<OnceCell<Opened>>>>,
    /// The client's last `logging/setLevel`, for servers that are opened after it.
    pub(super) level: Mutex<Option<String>>,
    /// Request ids of the client, by their values, to who works on them.
    pub(super) in_flight: Mutex<HashMap<String, Working>>,
    /// A further server was opened, or the client ended the session.
    pub(super) joined: Notify,
    ended: AtomicBool,
}

/// Who works on a request.
#[derive(Clone)]
pub(super) struct Working {
    /// The server's id.
    pub(super) server: String,
    /// Told when the client cancels. It is the request's own: a client may give one id to several.
    pub(super) cancelled: Arc<Notify>,
}

/// What the sealed id holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "n")]
    nonce: String,
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "c")]
    capabilities: String,
    #[serde(rename = "u")]
    upstreams: BTreeMap<String, Opened>,
}

/// A client's session, opened.
pub(super) struct Session {
    pub(super) nonce: String,
    /// The revision that the client speaks.
    pub(super) version: String,
    /// What of its capabilities concerns servers, as JSON.
    pub(super) capabilities: String,
    sealed: BTreeMap<String, Opened>,
    pub(super) live: Arc<Live>,
}

impl Aggregates {
    /// With nothing remembered.
    pub fn new(keys: &MasterKeys) -> Self {
        let bytes = |_: &[u8; 32], names: &Arc<Vec<String>>| {
            let bytes: usize = names.iter().map(|name| name.len() + 24).sum();
            u32::try_from(bytes + 64).unwrap_or(u32::MAX)
        };
        Self {
            sessions: keys.ring("mcp-aggregate-session"),
            cursors: keys.ring("mcp-list-cursor"),
            live: Cache::builder()
                .max_capacity(MAX_LIVE)
                .time_to_idle(LIVE_IDLE)
                .build(),
            live_of: Cache::builder()
                .max_capacity(MAX_LIVE)
                .time_to_idle(LIVE_IDLE)
                .build(),
            stateless: Cache::builder()
                .max_capacity(MAX_LIVE)
                .time_to_live(STATELESS_FOR)
                .build(),
            resting: Cache::new(MAX_LIVE),
            eras: Cache::builder()
                .max_capacity(MAX_LIVE)
                .time_to_live(STATELESS_FOR)
                .build(),
            catalogs: Cache::builder()
                .max_capacity(MAX_CATALOGS)
                .weigher(bytes)
                .time_to_live(CATALOG_FOR)
                .build(),
            misses: Cache::new(MAX_LIVE),
        }
    }

    /// A session that no client has yet.
    pub(super) fn begin(&self, owner: &Owner, version: String, capabilities: String) -> Session {
        let nonce = random_hex();
        let live = self.live(&nonce, owner);
        Session {
            nonce,
            version,
            capabilities,
            sealed: BTreeMap::new(),
            live,
        }
    }

    /// What is in memory of a session, from now on if not already. A caller with too many loses its own oldest, which
    /// is opened again from its id when it is used.
    fn live(&self, nonce: &str, owner: &Owner) -> Arc<Live> {
        if let Some(live) = self.live.get(nonce) {
            return live;
        }
        let [principal, _] = owner.parts();
        let of_one = self.live_of.get_with_by_ref(principal, Arc::default);
        let mut of_one = locked(&of_one);
        if of_one.len() >= MAX_LIVE_OF_ONE {
            of_one.retain(|nonce| self.live.contains_key(nonce));
        }
        // Several at once, so that whoever goes on and on does not have all of them looked at each time.
        if of_one.len() >= MAX_LIVE_OF_ONE {
            for oldest in of_one.drain(..MAX_LIVE_OF_ONE / 10) {
                self.live.invalidate(&oldest);
            }
        }
        of_one.push_back(nonce.to_owned());
        self.live.get_with_by_ref(nonce, Arc::default)
    }

    /// The client's id of a session. Servers' sessions that do not fit are left out.
    pub(super) fn seal(
        &self,
        session: &Session,
        owner: &Owner,
        named: &str,
        now: u64,
    ) -> Option<HeaderValue> {
        let mut sealed = Sealed {
            nonce: session.nonce.clone(),
            version: session.version.clone(),
            capabilities: session.capabilities.clone(),
            upstreams: session.live.all_opened(),
        };
        loop {
            let payload = serde_json::to_vec(&sealed).ok()?;
            let [principal, subject] = owner.parts();
            let context = [principal, subject, named.as_bytes()];
            if let Some(text) = self.sessions.seal(&payload, now + LIFETIME, &context) {
                return HeaderValue::from_str(&text).ok();
            }
            let longest = sealed
                .upstreams
                .iter()
                .max_by_key(|(_, opened)| opened.session.as_ref().map_or(0, String::len))
                .map(|(id, _)| id.clone())?;
            sealed.upstreams.remove(&longest);
        }
    }

    /// The session of a client's id, if this gateway gave it to this caller for these servers and it was not ended
    /// here.
    pub(super) fn open(&self, sealed: &HeaderValue, owner: &Owner, named: &str, now: u64) -> Option<Session> {
        let [principal, subject] = owner.parts();
        let context = [principal, subject, named.as_bytes()];
        let payload = self.sessions.open(sealed.as_bytes(), now, &context)?;
        let sealed: Sealed = serde_json::from_slice(&payload).ok()?;
        let live = self.live(&sealed.nonce, owner);
        (!live.ended.load(Ordering::Acquire)).then_some(Session {
            nonce: sealed.nonce,
            version: sealed.version,
            capabilities: sealed.capabilities,
            sealed: sealed.upstreams,
            live,
        })
    }

    /// Keeps a session in memory that is used without requests.
    pub(super) fn touch(&self, session: &Session) {
        self.live
            .get_with_by_ref(&session.nonce, || Arc::clone(&session.live));
    }

    /// Seals where the servers are in a list.
    pub(super) fn seal_cursor(&self, payload: &[u8], now: u64, context: &[&[u8]]) -> Option<String> {
        self.cursors.seal(payload, now + CURSOR_LIFETIME, context)
    }

    /// What [`Aggregates::seal_cursor`] sealed.
    pub(super) fn open_cursor(&self, text: &str, now: u64, context: &[&[u8]]) -> Option<Vec<u8>> {
        self.cursors.open(text.as_bytes(), now, context)
    }

    /// What a server that has no sessions is known to speak.
    pub(super) fn stateless(&self, server: &Server) -> Option<Opened> {
        self.stateless.get(&server.id)
    }

    /// Learns from a handshake whether the server has sessions.
    pub(super) fn learn(&self, server: &Server, opened: &Opened) {
        if opened.session.is_none() {
            self.stateless.insert(server.id.clone(), opened.clone());
        } else {
            self.stateless.invalidate(&server.id);
        }
    }

    /// The server wants a handshake after all.
    pub(super) fn unlearn(&self, server: &Server) {
        self.stateless.invalidate(&server.id);
    }

    /// What a client of the newer revisions was found to be served in.
    pub(super) fn era(&self, key: &[u8; 32]) -> Option<Era> {
        self.eras.get(key)
    }

    /// A server answered in this era.
    pub(super) fn learn_era(&self, key: [u8; 32], era: Era) {
        self.eras.insert(key, era);
    }

    /// The server has to say again what it speaks.
    pub(super) fn unlearn_era(&self, key: &[u8; 32]) {
        self.eras.invalidate(key);
    }

    /// Whether a moment ago nobody had what `key` stands for.
    pub(super) fn missed(&self, key: &[u8; 32], now: Moment) -> bool {
        let missed = self.misses.get(key);
        missed.is_some_and(|at| at.until(now) < MISSED_FOR)
    }

    /// All servers were asked anew, and none has it.
    pub(super) fn miss(&self, key: [u8; 32], now: Moment) {
        self.misses.insert(key, now);
    }

    /// Whether `initialize` goes without this server.
    pub(super) fn rests(&self, server: &Server, now: Moment) -> bool {
        let resting = self.resting.get(&server.id);
        resting.is_some_and(|resting| !now.until(resting.until).is_zero())
    }

    /// The server did not open.
    pub(super) fn failed(&self, server: &Server, now: Moment) {
        let failures = self.resting.get(&server.id).map_or(0, |resting| resting.failures);
        let rest = REST * 2_u32.pow(failures.min(MAX_RESTS));
        let resting = Resting {
            until: now.plus(rest),
            failures: failures.saturating_add(1),
        };
        self.resting.insert(server.id.clone(), resting);
    }

    /// The server opened, or listed.
    pub(super) fn succeeded(&self, server: &Server) {
        self.resting.invalidate(&server.id);
    }
}

impl Session {
    /// The place of a server's session: what memory has of it, else what the id has.
    pub(super) fn slot(&self, server: &Server) -> Arc<OnceCell<Opened>> {
        let mut slots = locked(&self.live.slots);
        let slot = slots.entry(server.id.clone()).or_insert_with(|| {
            let known = self.sealed.get(&server.id).cloned();
            Arc::new(OnceCell::new_with(known))
        });
        Arc::clone(slot)
    }

    /// A server's session, if it is open.
    pub(super) fn opened(&self, server: &Server) -> Option<Opened> {
        self.slot(server).get().cloned()
    }

    /// An empty place for a server whose session `stale` is gone, unless somebody made it already.
    pub(super) fn forget(&self, server: &Server, stale: &Opened) {
        let mut slots = locked(&self.live.slots);
        let gone = slots
            .get(&server.id)
            .is_some_and(|slot| slot.get() == Some(stale));
        if gone {
            slots.insert(server.id.clone(), Arc::default());
        }
    }

    /// Nobody opens it here any more.
    pub(super) fn end(&self) {
        self.live.ended.store(true, Ordering::Release);
        self.live.joined.notify_waiters();
    }

    /// Whether the client has ended it, here.
    pub(super) fn has_ended(&self) -> bool {
        self.live.ended.load(Ordering::Acquire)
    }
}

impl Live {
    fn all_opened(&self) -> BTreeMap<String, Opened> {
        let slots = locked(&self.slots);
        let opened = slots.iter();
        opened
            .filter_map(|(id, slot)| Some((id.clone(), slot.get()?.clone())))
            .collect()
    }
}

/// A request of the client's that a server works on; forgotten when dropped.
pub(super) struct InFlight {
    live: Arc<Live>,
    request: String,
    cancelled: Arc<Notify>,
}

impl InFlight {
    /// `request` is the value of the client's id. `None` when there are too many to remember.
    pub(super) fn begin(live: &Arc<Live>, request: String, server: &Server) -> Option<Self> {
        let mut in_flight = locked(&live.in_flight);
        if in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let cancelled = Arc::<Notify>::default();
        let working = Working {
            server: server.id.clone(),
            cancelled: Arc::clone(&cancelled),
        };
        in_flight.insert(request.clone(), working);
        Some(Self {
            live: Arc::clone(live),
            request,
            cancelled,
        })
    }

    /// Told when the client cancels the request.
    pub(super) fn cancelled(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut in_flight = locked(&self.live.in_flight);
        let working = in_flight.get(&self.request);
        if working.is_some_and(|working| Arc::ptr_eq(&working.cancelled, &self.cancelled)) {
            in_flight.remove(&self.request);
        }
    }
}

/// What a server learns of the client's capabilities: those that it uses by asking the client.
pub(super) fn capabilities(declared: Option<&str>) -> String {
    let Some(declared) = declared.and_then(Members::parse) else {
        return "{}".into();
    };
    let asked = ["sampling", "elicitation", "roots"].into_iter();
    let kept: Vec<(&str, &str)> = asked
        .filter_map(|name| {
            let value = declared.get(name)?.get();
            let value = if value.len() > MAX_CAPABILITY { "{}" } else { value };
            value.starts_with('{').then_some((name, value))
        })
        .collect();
    Members::default().rebuilt(|_| true, &kept)
}

/// [`capabilities`] as far as this server may use them.
pub(super) fn capabilities_for(server: &Server, all: &str) -> String {
    let told = |name: &str| told(server, name);
    Members::parse(all).unwrap_or_default().rebuilt(told, &[])
}

/// Ends a server's session when the conversation is dropped.
pub(super) fn ended(mut client: UpstreamClient) {
    client.end_with_this();
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Principal;

    #[test]
    fn one_caller_takes_no_others_place() {
        let aggregates = Aggregates::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"));
        let (many, few) = (Owner::from(Principal::Anyone), Owner::from(Principal::Master));
        let begin = |owner: &Owner| aggregates.begin(owner, "2025-11-25".into(), "{}".into()).nonce;
        let other = begin(&few);
        let oldest = begin(&many);
        for _ in 0..MAX_LIVE_OF_ONE {
            begin(&many);
        }
        let newest = begin(&many);
        let remembered = |nonce: &String| aggregates.live.contains_key(nonce);
        assert_eq!([&other, &oldest, &newest].map(remembered), [true, false, true]);
        aggregates.live.run_pending_tasks();
        assert!(aggregates.live.entry_count() <= MAX_LIVE_OF_ONE as u64 + 1);
        let of_one = aggregates.live_of.get(many.parts()[0]).expect("sessions");
        assert!(locked(&of_one).len() <= MAX_LIVE_OF_ONE);
    }
}

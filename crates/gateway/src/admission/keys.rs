//! Virtual keys: `sk-…` keys that an admin gives out, each with an owner, permissions and limits. This is what a call
//! reads: a snapshot in memory, found by digest. How keys are made and kept is `http::admin::keys`'s.

use super::permissions::KeyDocument;
use crate::clock::{Clock, Moment};
use crate::digest::sha256;
use crate::ending::Ending;
use crate::web::error::{ErrorCode, Refusal};
use arc_swap::ArcSwap;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vestibule_store::{ApiKey, User, UserId};

/// What every key begins with.
pub const PREFIX: &str = "sk-";
/// So long after the store was last heard, keys count no longer: one that was blocked since would be taken.
const BELIEVED: Duration = Duration::from_secs(5 * 60);
/// No time that the store was heard at.
const NEVER: u64 = u64::MAX;
const MINUTE: Duration = Duration::from_secs(60);

/// What a key is kept under: SHA-256 of its text. Keys are random, so nothing slower is needed.
pub fn digest_of(key: &[u8]) -> [u8; 32] {
    sha256(key)
}

/// What a person may do beside calling servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything: servers, keys, people, and every record.
    Admin,
    /// Their own connections.
    #[default]
    Member,
}

impl Role {
    /// The role of this name; LiteLLM's names count too.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "admin" | "proxy_admin" => Some(Self::Admin),
            "member" | "internal_user" => Some(Self::Member),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }
}

/// One key, ready for requests.
#[derive(Debug)]
pub struct VirtualKey {
    /// Its id, which outlives its text.
    pub id: String,
    /// What sessions and sealed values of its holder are bound to.
    principal: Vec<u8>,
    /// Its name for people.
    pub alias: Option<String>,
    /// Whose it is. What is signed in for with it is kept for them; for a key that is nobody's, nothing is.
    pub user: Option<UserId>,
    /// What they may do.
    pub role: Role,
    /// What it is for.
    pub document: KeyDocument,
    /// Its end, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// Whether it, or its owner, is blocked.
    pub blocked: bool,
    usage: Arc<Usage>,
    /// Said when a newer snapshot has no such key.
    gone: Ending<()>,
    /// Of its text, which another one takes when it is rotated.
    digest: [u8; 32],
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, GovernorTime, NoOpMiddleware<Nanos>>;

/// What outlives the snapshots.
#[derive(Debug)]
struct Usage {
    limit: Option<(NonZeroU32, Limiter)>,
    /// When it was last taken, in seconds since 1970; zero for never.
    last: AtomicU64,
    /// Whether the store knows.
    noted: AtomicBool,
}

impl VirtualKey {
    /// A stable name that no other principal has.
    pub fn principal(&self) -> &[u8] {
        &self.principal
    }

    /// The digest of its text.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// See [`KeyDocument::is_narrowed`].
    pub fn is_narrowed(&self) -> bool {
        self.document.is_narrowed()
    }

    /// Whether its holder manages the gateway: an admin's key that is for nothing in particular. One that was narrowed
    /// down to some servers is for those.
    pub fn manages(&self) -> bool {
        self.role == Role::Admin && !self.is_narrowed()
    }

    /// When it was last taken by this process, in seconds since 1970.
    pub fn last_used(&self) -> Option<u64> {
        Some(self.usage.last.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Whether it still counts at `now`, in seconds since 1970. What began with it ends when it does not.
    pub fn counts(&self, now: u64) -> bool {
        !self.blocked && !self.gone.is_said() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Resolves when it counts no longer.
    pub fn over(&self, now: u64) -> impl Future<Output = ()> + Send + 'static {
        let gone = self.gone.heard();
        let end = self
            .expires_at
            .map(|end| Duration::from_secs(end.saturating_sub(now)));
        async move {
            let end = async {
                match end {
                    Some(end) => tokio::time::sleep(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = gone => {}
                () = end => {}
            }
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        (&self.id, &self.alias, &self.user, self.role) == (&other.id, &other.alias, &other.user, other.role)
            && (&self.document, self.expires_at, self.blocked)
                == (&other.document, other.expires_at, other.blocked)
    }

    /// Whether it counts at `now`, with the reason where it does not.
    fn judge(&self, now: u64) -> Result<(), Refusal> {
        if self.blocked {
            return Err(Refusal::new(ErrorCode::KeyBlocked));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::new(ErrorCode::KeyExpired));
        }
        Ok(())
    }

    /// Takes one request.
    fn take(&self, clock: &Clock) -> Result<(), Refusal> {
        let now = clock.unix_seconds();
        self.judge(now)?;
        if let Some((limit, limiter)) = &self.usage.limit
            && let Err(until) = limiter.check()
        {
            let message = format!("The key may make {limit} requests a minute, and has made them.");
            let mut refusal = Refusal::because(ErrorCode::KeyRateLimited, message);
            refusal.retry_after = Some(until.wait_time_from(GovernorTime(clock.clone()).now()));
            return Err(refusal);
        }
        if self.usage.last.swap(now, Ordering::Relaxed) != now {
            self.usage.noted.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

type ByDigest = HashMap<[u8; 32], Arc<VirtualKey>>;

/// All virtual keys, as they were when the store was last read.
#[derive(Debug)]
pub struct Keys {
    clock: Clock,
    all: ArcSwap<ByDigest>,
    /// People who are blocked.
    blocked: ArcSwap<HashSet<UserId>>,
    /// When the store was last heard, in milliseconds of the monotonic clock; [`NEVER`] until then.
    heard: AtomicU64,
}

impl Keys {
    /// No keys.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            all: ArcSwap::default(),
            blocked: ArcSwap::default(),
            heard: AtomicU64::new(NEVER),
        }
    }

    /// The time that keys end by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The store was asked at `asked_at` and answered, whether or not anything changed.
    pub fn heard(&self, asked_at: Moment) {
        self.heard.store(milliseconds(asked_at), Ordering::Relaxed);
    }

    /// Puts what the store has in the place of what was known. A key that did not change stays the same; what began
    /// with one that did is over.
    pub fn replace(&self, rows: Vec<ApiKey>, users: &[User]) {
        let blocked = users.iter().filter(|user| user.blocked);
        let blocked = blocked.map(|user| user.id.clone()).collect();
        self.blocked.store(Arc::new(blocked));
        let users: HashMap<&UserId, &User> = users.iter().map(|user| (&user.id, user)).collect();
        let before = self.all.load();
        let by_id: HashMap<&str, &Arc<VirtualKey>> = before.values().map(|key| (&*key.id, key)).collect();
        let all: ByDigest = rows
            .into_iter()
            .map(|row| {
                let owner = row.user_id.as_ref().and_then(|id| users.get(id)).copied();
                let digest = row.digest;
                let key = self.key(row, owner, |id| by_id.get(id).copied());
                let same = before.get(&digest).filter(|same| key.says_the_same(same));
                (digest, same.map_or_else(|| Arc::new(key), Arc::clone))
            })
            .collect();
        self.all.store(Arc::new(all));
        let all = self.all.load();
        for (digest, key) in before.iter() {
            let stays = all.get(digest).is_some_and(|now| Arc::ptr_eq(now, key));
            if !stays {
                key.gone.say(());
            }
        }
    }

    fn key<'k>(
        &self,
        row: ApiKey,
        owner: Option<&User>,
        before: impl Fn(&str) -> Option<&'k Arc<VirtualKey>>,
    ) -> VirtualKey {
        let before = before(&row.id);
        let parsed: Result<KeyDocument, _> = serde_json::from_str(&row.document);
        let role = owner
            .and_then(|owner| Role::named(&owner.role))
            .unwrap_or_default();
        // A document that nobody can read grants nothing.
        let (document, role) = match parsed {
            Ok(document) => (document, role),
            Err(_) => (KeyDocument::default(), Role::Member),
        };
        let limit = document.rpm_limit;
        let usage = match before {
            Some(key) if key.document.rpm_limit == limit => Arc::clone(&key.usage),
            other => Arc::new(self.usage(limit, other.and_then(|key| key.last_used()))),
        };
        VirtualKey {
            principal: [b"key:", row.id.as_bytes()].concat(),
            id: row.id,
            alias: row.alias,
            role,
            user: row.user_id,
            document,
            expires_at: row.expires_at,
            blocked: row.blocked || owner.is_some_and(|owner| owner.blocked),
            usage,
            gone: Ending::default(),
            digest: row.digest,
        }
    }

    fn usage(&self, limit: Option<NonZeroU32>, last: Option<u64>) -> Usage {
        let time = GovernorTime(self.clock.clone());
        Usage {
            limit: limit.map(|limit| {
                let quota = Quota::per_minute(limit);
                (limit, RateLimiter::direct_with_clock(quota, time))
            }),
            last: AtomicU64::new(last.unwrap_or(0)),
            noted: AtomicBool::new(true),
        }
    }

    /// The key with this text, whether or not it counts.
    pub fn find(&self, text: &[u8]) -> Option<Arc<VirtualKey>> {
        let all = self.all.load();
        if all.is_empty() || !text.starts_with(PREFIX.as_bytes()) {
            return None;
        }
        all.get(&digest_of(text)).cloned()
    }

    /// All keys, in no order.
    pub fn all(&self) -> Vec<Arc<VirtualKey>> {
        self.all.load().values().cloned().collect()
    }

    /// The key with this id.
    pub fn by_id(&self, id: &str) -> Option<Arc<VirtualKey>> {
        self.all.load().values().find(|key| key.id == id).cloned()
    }

    /// Whether a person is blocked; with one, so are all keys of theirs.
    pub fn is_blocked(&self, user: &UserId) -> bool {
        self.blocked.load().contains(user)
    }

    /// The key with this id, and the digest of its text.
    pub fn with_digest(&self, id: &str) -> Option<([u8; 32], Arc<VirtualKey>)> {
        let all = self.all.load();
        let found = all.iter().find(|(_, key)| key.id == id);
        found.map(|(digest, key)| (*digest, Arc::clone(key)))
    }

    /// Takes one request of a key.
    ///
    /// # Errors
    /// When it is blocked, over, at its limit, or nobody can say.
    pub fn take(&self, key: &VirtualKey) -> Result<(), Refusal> {
        self.are_believed()?;
        key.take(&self.clock)
    }

    /// Whether a key counts, with the reason where it does not. It is no request of the key's.
    ///
    /// # Errors
    /// When it is blocked, over, or nobody can say.
    pub fn judge(&self, key: &VirtualKey) -> Result<(), Refusal> {
        self.are_believed()?;
        key.judge(self.clock.unix_seconds())
    }

    fn are_believed(&self) -> Result<(), Refusal> {
        let heard = self.heard.load(Ordering::Relaxed);
        let silent = milliseconds(self.clock.now()).saturating_sub(heard);
        if heard == NEVER || Duration::from_millis(silent) > BELIEVED {
            return Err(Refusal::new(ErrorCode::KeysUnavailable));
        }
        Ok(())
    }

    /// Whether one of the keys stands in `text`.
    pub fn stand_in(&self, text: &[u8]) -> bool {
        let all = self.all.load();
        if all.is_empty() {
            return false;
        }
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        memmem::find_iter(text, PREFIX).any(|start| {
            let rest = &text[start..];
            let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
            all.contains_key(&digest_of(&rest[..end]))
        })
    }

    /// The uses that the store does not know of, by key; they count as known then.
    pub fn unnoted(&self) -> Vec<(String, u64)> {
        let all = self.all.load();
        let news = all
            .values()
            .filter(|key| !key.usage.noted.swap(true, Ordering::Relaxed));
        news.filter_map(|key| Some((key.id.clone(), key.last_used()?)))
            .collect()
    }
}

/// Whoever sets the system's clock back makes nothing count longer.
fn milliseconds(moment: Moment) -> u64 {
    let since = Moment::default().until(moment);
    u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
}

/// Our time, for the limiter.
#[derive(Debug, Clone)]
struct GovernorTime(Clock);

impl GovernorClock for GovernorTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let now = Moment::default().until(self.0.now());
        // The limiter looks one whole period back.
        Nanos::from(now + MINUTE)
    }
}

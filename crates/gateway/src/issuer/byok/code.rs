//! The code between the page and the token request: random, kept as a digest, counted once, and beside it, sealed, what
//! it stands for. The key is not in the browser's history, and nobody who reads the table learns it.

use crate::admission::server_session::Holder;
use crate::issuer::codes::Codes;
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use vestibule_store::StoreError;
use vestibule_store::keys::{KeyRing, MasterKeys};

/// How long a code counts, in seconds.
const LIFE: u64 = 300;
/// Codes of this process that count at once.
const MOST: usize = 1000;
/// Of those, so many are one person's; the oldest makes room.
const MOST_OF_ONE: usize = 10;

/// What a code stands for.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// The server's id.
    pub(super) server: String,
    /// Where the server was; see [`crate::net::transport::Endpoint::place`].
    pub(super) place: String,
    /// The person, and the gateway key that they have.
    pub(super) holder: Holder,
    /// Where the code went.
    pub(super) redirect_uri: String,
    /// The client's PKCE challenge.
    pub(super) challenge: String,
    /// Digest of the client's id.
    pub(super) client: String,
    /// The key that the person typed in; nothing where the one that is kept stays.
    pub(super) key: Option<String>,
}

/// Why there is no code.
pub(super) enum NoCode {
    /// As many as may be count already.
    TooMany,
    /// The store does not take it.
    Store(StoreError),
}

/// Gives and takes codes.
pub(in crate::issuer) struct BroughtKeys {
    ring: KeyRing,
    /// The codes of this process, the oldest first.
    held: Mutex<VecDeque<Held>>,
}

/// A code that counts.
struct Held {
    code: Zeroizing<String>,
    /// Whose it is.
    user: String,
    /// Its end, in seconds since 1970.
    end: u64,
}

impl BroughtKeys {
    /// With a ring for this purpose alone.
    pub(in crate::issuer) fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("byok-code"),
            held: Mutex::default(),
        }
    }

    /// A code for `record`. It is on disk when this returns.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(clippy::expect_used, reason = "without randomness no code is unguessable")]
    pub(super) async fn give(&self, codes: &Codes, record: &Record, now: u64) -> Result<String, NoCode> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).expect("the system gives random bytes");
        let code = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let end = now + LIFE;
        let held = Held {
            code: Zeroizing::new(code.clone()),
            user: record.holder.user.clone(),
            end,
        };
        if let Some(dropped) = self.begins(held, now)? {
            codes.take_kept(&dropped, now).await.map_err(NoCode::Store)?;
        }
        let payload = Zeroizing::new(serde_json::to_vec(record).unwrap_or_default());
        let sealed = self.ring.seal_row(&payload, &[code.as_bytes()]);
        let sealed = sealed.expect("the system gives random bytes");
        let text = BASE64_URL_SAFE_NO_PAD.encode(sealed);
        let kept = codes.keep(&code, text, end, now).await;
        kept.map(|()| code).map_err(NoCode::Store)
    }

    /// Counts one more code, unless there are too many. Gives the person's oldest, where that has to go for it.
    fn begins(&self, new: Held, now: u64) -> Result<Option<Zeroizing<String>>, NoCode> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.front().is_some_and(|oldest| oldest.end <= now) {
            held.pop_front();
        }
        let is_theirs = |other: &Held| other.user == new.user;
        let full = held.iter().filter(|other| is_theirs(other)).count() >= MOST_OF_ONE;
        let oldest = held.iter().position(is_theirs).filter(|_| full);
        let dropped = oldest.and_then(|at| held.remove(at));
        if held.len() >= MOST {
            return Err(NoCode::TooMany);
        }
        held.push_back(new);
        Ok(dropped.map(|dropped| dropped.code))
    }

    /// A code that was shown counts no longer.
    fn ends(&self, code: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|other| *other.code != *code);
    }

    /// What `code` stands for, once.
    pub(super) async fn take(
        &self,
        codes: &Codes,
        code: &str,
        now: u64,
    ) -> Result<Option<Record>, StoreError> {
        let text = codes.take_kept(code, now).await?;
        self.ends(code);
        Ok(text.and_then(|text| {
            let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
            let payload = self.ring.open_row(&sealed, &[code.as_bytes()]).ok()?;
            serde_json::from_slice(payload.expose_secret()).ok()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn code(user: &str, code: &str, now: u64) -> Held {
        Held {
            code: Zeroizing::new(code.to_owned()),
            user: user.to_owned(),
            end: now + LIFE,
        }
    }

    fn brought() -> BroughtKeys {
        BroughtKeys::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"))
    }

    #[test]
    fn only_so_many_count_at_once() {
        let brought = brought();
        let begins = |user: &str, now| brought.begins(code(user, user, now), now).is_ok();
        for number in 0..MOST {
            assert!(begins(&number.to_string(), 100));
        }
        assert!(!begins("late", 100 + LIFE - 1));
        brought.ends("7");
        assert!(begins("late", 100 + LIFE - 1), "a place was given back");
        assert!(!begins("later", 100 + LIFE - 1));
        assert!(begins("later", 100 + LIFE));
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        let brought = brought();
        for number in 0..3 * MOST {
            let dropped = brought.begins(code("mal", &number.to_string(), 100), 100);
            let Ok(dropped) = dropped else {
                panic!("there is room for one's own");
            };
            let expected = number.checked_sub(MOST_OF_ONE).map(|oldest| oldest.to_string());
            assert_eq!(dropped.map(|code| (*code).clone()), expected);
        }
        assert!(matches!(brought.begins(code("ann", "a", 100), 100), Ok(None)));
    }
}

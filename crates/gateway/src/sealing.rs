//! What is in flight is sealed, not stored: authenticated encryption under a key ring, bound to a purpose and
//! a context, with an expiry. The one road to keys; it knows nothing of what is sealed.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hkdf, rand};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use std::collections::HashMap;
use thiserror::Error;

const VERSION: u8 = 1;
const KEY_ID_LENGTH: usize = 4;
const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
const HEAD_LENGTH: usize = 1 + KEY_ID_LENGTH;

/// The longest text that [`KeyRing::open`] looks at.
pub const SEALED_LIMIT: usize = 4096;

/// Why there is no key ring.
#[derive(Debug, Error)]
pub enum KeyFault {
    /// The file cannot be read.
    #[error("VESTIBULE_MASTER_KEY_FILE names {path}, which cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no key.
    #[error(
        "key {0} of VESTIBULE_MASTER_KEY_FILE or VESTIBULE_MASTER_KEY is not 32 bytes in base64 (openssl rand -base64 32)"
    )]
    NotAKey(usize),
    /// The file or variable is there, and empty.
    #[error("VESTIBULE_MASTER_KEY_FILE or VESTIBULE_MASTER_KEY is set and holds no key")]
    Empty,
}

/// Master keys: the first seals, all open.
pub struct MasterKeys {
    keys: Vec<[u8; 32]>,
    /// The keys were made at start and are known to this process alone.
    pub ephemeral: bool,
}

impl MasterKeys {
    /// From the environment, or made up for this process.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(clippy::expect_used, reason = "without randomness nothing can be sealed")]
    pub fn from_environment(environment: &HashMap<String, String>) -> Result<Self, KeyFault> {
        let text = match environment.get("VESTIBULE_MASTER_KEY_FILE") {
            Some(path) => Some(
                std::fs::read_to_string(path).map_err(|source| KeyFault::Unreadable {
                    path: path.clone(),
                    source,
                })?,
            ),
            None => environment.get("VESTIBULE_MASTER_KEY").cloned(),
        };
        let Some(text) = text else {
            let mut key = [0; 32];
            rand::fill(&mut key).expect("the system gives random bytes");
            return Ok(Self {
                keys: vec![key],
                ephemeral: true,
            });
        };
        let lines = text
            .split(['\n', ','])
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines
            .enumerate()
            .map(|(index, line)| {
                let bytes = BASE64_STANDARD
                    .decode(line)
                    .map_err(|_| KeyFault::NotAKey(index + 1))?;
                <[u8; 32]>::try_from(bytes).map_err(|_| KeyFault::NotAKey(index + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            Err(KeyFault::Empty)
        } else {
            Ok(Self {
                keys,
                ephemeral: false,
            })
        }
    }

    /// The ring for one purpose. Rings of different purposes share no key.
    ///
    /// # Panics
    /// Never with the fixed lengths used here.
    #[expect(clippy::expect_used, reason = "lengths are constants of the algorithms")]
    pub fn ring(&self, purpose: &'static str) -> KeyRing {
        let keys = self.keys.iter().map(|master| {
            let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, b"vestibule/sealing/v1").extract(master);
            let mut key = [0; 32];
            pseudorandom
                .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|expanded| expanded.fill(&mut key))
                .expect("32 bytes are within HKDF's limit");
            let mut id = [0; KEY_ID_LENGTH];
            id.copy_from_slice(&digest::digest(&digest::SHA256, &key).as_ref()[..KEY_ID_LENGTH]);
            (
                id,
                RandomizedNonceKey::new(&AES_256_GCM_SIV, &key).expect("a 32-byte key"),
            )
        });
        KeyRing { keys: keys.collect() }
    }
}

/// Keys for one purpose. AES-256-GCM-SIV keeps its secrecy when two replicas ever draw the same nonce.
pub struct KeyRing {
    keys: Vec<([u8; KEY_ID_LENGTH], RandomizedNonceKey)>,
}

impl KeyRing {
    /// Seals `payload` until `expires` (seconds since 1970). It opens only with the same `context`.
    /// The text is base64url without padding. `None` when it would be longer than [`SEALED_LIMIT`].
    pub fn seal(&self, payload: &[u8], expires: u64, context: &[&[u8]]) -> Option<String> {
        let (id, key) = self.keys.first()?;
        let mut sealed = Vec::with_capacity(8 + payload.len() + TAG_LENGTH);
        sealed.extend_from_slice(&expires.to_be_bytes());
        sealed.extend_from_slice(payload);
        let nonce = key
            .seal_in_place_append_tag(Aad::from(join(context)), &mut sealed)
            .ok()?;
        let mut whole = Vec::with_capacity(HEAD_LENGTH + NONCE_LENGTH + sealed.len());
        whole.push(VERSION);
        whole.extend_from_slice(id);
        whole.extend_from_slice(nonce.as_ref());
        whole.extend_from_slice(&sealed);
        let text = BASE64_URL_SAFE_NO_PAD.encode(whole);
        (text.len() <= SEALED_LIMIT).then_some(text)
    }

    /// The payload, if `text` was sealed by one of these keys with this `context` and `now` is before its
    /// expiry. Why not is nobody's business.
    pub fn open(&self, text: &[u8], now: u64, context: &[&[u8]]) -> Option<Vec<u8>> {
        if text.len() > SEALED_LIMIT {
            return None;
        }
        let whole = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (head, rest) = whole.split_at_checked(HEAD_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH)?;
        if head[0] != VERSION {
            return None;
        }
        let (_, key) = self.keys.iter().find(|(id, _)| id[..] == head[1..])?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = key
            .open_in_place(nonce, Aad::from(join(context)), &mut sealed)
            .ok()?;
        let (expires, payload) = opened.split_at_checked(8)?;
        let expires = u64::from_be_bytes(expires.try_into().ok()?);
        (now < expires).then(|| payload.to_vec())
    }
}

/// Parts with their lengths before them, so that no two lists of parts make the same bytes.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[u8]) -> MasterKeys {
        MasterKeys {
            keys: names.iter().map(|name| [*name; 32]).collect(),
            ephemeral: false,
        }
    }

    #[test]
    fn what_is_sealed_opens_only_with_the_same_everything() {
        let ring = keys(&[1]).ring("session");
        let sealed = ring.seal(b"upstream id", 100, &[b"a", b"bc"]).expect("sealed");
        let open =
            |ring: &KeyRing, text: &str, now, context: &[&[u8]]| ring.open(text.as_bytes(), now, context);
        assert_eq!(
            open(&ring, &sealed, 99, &[b"a", b"bc"]).as_deref(),
            Some(&b"upstream id"[..])
        );
        assert_eq!(open(&ring, &sealed, 100, &[b"a", b"bc"]), None, "expired");
        assert_eq!(open(&ring, &sealed, 99, &[b"ab", b"c"]), None, "another context");
        assert_eq!(
            open(&keys(&[2]).ring("session"), &sealed, 99, &[b"a", b"bc"]),
            None,
            "another key"
        );
        assert_eq!(
            open(&keys(&[1]).ring("state"), &sealed, 99, &[b"a", b"bc"]),
            None,
            "another purpose"
        );
    }

    #[test]
    fn no_changed_byte_opens() {
        let ring = keys(&[1]).ring("session");
        let sealed = ring.seal(b"id", 100, &[]).expect("sealed");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert_eq!(
                ring.open(BASE64_URL_SAFE_NO_PAD.encode(changed).as_bytes(), 0, &[]),
                None,
                "byte {index}"
            );
        }
        for length in 0..bytes.len() {
            assert_eq!(
                ring.open(BASE64_URL_SAFE_NO_PAD.encode(&bytes[..length]).as_bytes(), 0, &[]),
                None
            );
        }
    }

    #[test]
    fn a_rotated_ring_opens_what_the_old_one_sealed() {
        let sealed = keys(&[1]).ring("session").seal(b"id", 100, &[]).expect("sealed");
        assert!(
            keys(&[2, 1])
                .ring("session")
                .open(sealed.as_bytes(), 0, &[])
                .is_some()
        );
    }

    #[test]
    fn two_seals_of_the_same_differ() {
        let ring = keys(&[1]).ring("session");
        assert_ne!(ring.seal(b"id", 100, &[]), ring.seal(b"id", 100, &[]));
    }

    #[test]
    fn keys_come_from_the_environment() {
        let from = |name: &str, value: &str| {
            MasterKeys::from_environment(&HashMap::from([(name.to_owned(), value.to_owned())]))
        };
        let one = BASE64_STANDARD.encode([1; 32]);
        let two = BASE64_STANDARD.encode([2; 32]);
        let both = from("VESTIBULE_MASTER_KEY", &format!("{one},{two}")).expect("keys");
        assert_eq!((both.keys.len(), both.ephemeral), (2, false));
        assert!(matches!(
            from("VESTIBULE_MASTER_KEY", "short"),
            Err(KeyFault::NotAKey(1))
        ));
        assert!(matches!(
            from("VESTIBULE_MASTER_KEY", " \n"),
            Err(KeyFault::Empty)
        ));
        assert!(matches!(
            from("VESTIBULE_MASTER_KEY_FILE", "/nowhere"),
            Err(KeyFault::Unreadable { .. })
        ));
        assert!(
            MasterKeys::from_environment(&HashMap::new())
                .expect("made up")
                .ephemeral
        );
    }
}

//! What is sealed and how: authenticated encryption under a key ring, bound to a purpose and a context. The one
//! road to cryptography for what leaves the process or lasts; it knows nothing of what is sealed. Where keys come
//! from is in [`crate::key_source`].

use crate::key_source::{self, Fingerprint, KeyFault, KeySource, MasterKey};
use crate::url::DatabaseUrl;
use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hkdf};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretSlice;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u8 = 1;
const KEY_ID_LENGTH: usize = 4;
const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
/// Version and key id: how everything that is sealed begins.
pub(crate) const HEAD_LENGTH: usize = 1 + KEY_ID_LENGTH;

/// The longest text that [`KeyRing::open`] looks at.
pub const SEALED_LIMIT: usize = 4096;

/// The public name of one key of one ring: the beginning of a digest, from which nothing follows about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_LENGTH]);

impl KeyId {
    /// The key that `sealed` (bytes of [`KeyRing::seal_row`]) says it is under.
    pub fn of(sealed: &[u8]) -> Option<Self> {
        let (version, rest) = sealed.split_first()?;
        let id = rest.first_chunk()?;
        (*version == VERSION).then_some(Self(*id))
    }

    /// How rows under this key begin.
    pub(crate) fn head(self) -> Vec<u8> {
        let mut head = vec![VERSION];
        head.extend_from_slice(&self.0);
        head
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a row does not open.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// These bytes are not what [`KeyRing::seal_row`] makes.
    #[error("it is not sealed data")]
    Malformed,
    /// The ring has no such key.
    #[error("it is sealed with key {0}, which is not among the master keys")]
    UnknownKey(KeyId),
    /// The bytes were changed, or belong to another row.
    #[error("it was changed, or belongs to another row")]
    Altered,
}

/// Master keys: the first seals, all open.
pub struct MasterKeys {
    shared: Arc<Shared>,
    /// The keys were made at start and are known to this process alone.
    pub ephemeral: bool,
}

/// The master keys that every ring is made of; they change when their file does.
struct Shared {
    source: KeySource,
    keys: ArcSwap<Vec<MasterKey>>,
    /// The state of the file when it was last read.
    seen: Mutex<Option<Fingerprint>>,
}

impl MasterKeys {
    /// From the environment, or made up for this process. For a program that keeps nothing.
    pub fn from_environment(environment: &HashMap<String, String>) -> Result<Self, KeyFault> {
        let found = key_source::from_environment(environment)?;
        Ok(Self::found(match found {
            Some(found) => found,
            None => key_source::ephemeral()?,
        }))
    }

    /// For a database: from the environment; else from the file beside a SQLite file, which is made when neither
    /// exists. A PostgreSQL database is shared, so its keys are never made up. In memory they last as long as the
    /// database does.
    pub fn load(environment: &HashMap<String, String>, database: &DatabaseUrl) -> Result<Self, KeyFault> {
        if let Some(found) = key_source::from_environment(environment)? {
            return Ok(Self::found(found));
        }
        if database.is_postgres() {
            return Err(KeyFault::Missing);
        }
        Ok(Self::found(match database.sqlite_file() {
            Some(path) => key_source::beside(path)?,
            None => key_source::ephemeral()?,
        }))
    }

    fn found(found: key_source::Found) -> Self {
        Self {
            ephemeral: matches!(found.source, KeySource::Ephemeral),
            shared: Arc::new(Shared {
                source: found.source,
                keys: ArcSwap::from_pointee(found.keys),
                seen: Mutex::new(found.fingerprint),
            }),
        }
    }

    /// Where the keys come from.
    pub fn source(&self) -> &KeySource {
        &self.shared.source
    }

    /// The ring for one purpose. Rings of different purposes share no key.
    pub fn ring(&self, purpose: &'static str) -> KeyRing {
        let ring = Ring::new(self.shared.keys.load_full(), purpose);
        KeyRing {
            shared: Arc::clone(&self.shared),
            purpose,
            current: ArcSwap::from_pointee(ring),
        }
    }

    /// Puts a new key before the others in the key file, so that it seals and they still open.
    pub fn rotate(&self) -> Result<(), KeyFault> {
        key_source::prepend_key(self.shared.file()?)?;
        self.shared.refresh();
        Ok(())
    }

    /// Drops the keys from the key file whose id in the ring for `purpose` is not in `keep`. The first key stays.
    /// The answer says how many went.
    pub fn retire(&self, purpose: &'static str, keep: &[KeyId]) -> Result<usize, KeyFault> {
        let dropped = key_source::retain_keys(self.shared.file()?, |index, key| {
            index == 0 || keep.contains(&derive(key, purpose).0)
        })?;
        self.shared.refresh();
        Ok(dropped)
    }

    /// Writes the keys at hand to a new file with mode 0600, in their order.
    pub fn write_to(&self, path: &std::path::Path) -> Result<(), KeyFault> {
        key_source::write_new(path, &self.shared.keys.load())
    }
}

impl Shared {
    fn file(&self) -> Result<&std::path::Path, KeyFault> {
        self.source.file().ok_or(KeyFault::NoFile)
    }

    /// Reads the file again if it is another than was last read. What cannot be used changes nothing.
    fn refresh(&self) {
        let Some(path) = self.source.file() else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fingerprint) = Fingerprint::of(path) else {
            return;
        };
        if seen.as_ref() == Some(&fingerprint) {
            return;
        }
        match key_source::read(path, &self.source) {
            Ok((keys, fingerprint)) => {
                *seen = Some(fingerprint);
                self.keys.store(Arc::new(keys));
            }
            Err(fault) => {
                *seen = Some(fingerprint);
                tracing::error!("the key file changed and is not used, the keys at hand stay: {fault}");
            }
        }
    }
}

/// The id and the key of one ring for one master key.
#[expect(clippy::expect_used, reason = "lengths are constants of the algorithms")]
fn derive(master: &MasterKey, purpose: &str) -> (KeyId, RandomizedNonceKey) {
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, b"vestibule/sealing/v1").extract(&master[..]);
    let mut key = Zeroizing::new([0; 32]);
    pseudorandom
        .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|expanded| expanded.fill(&mut key[..]))
        .expect("32 bytes are within HKDF's limit");
    let mut id = [0; KEY_ID_LENGTH];
    id.copy_from_slice(&digest::digest(&digest::SHA256, &key[..]).as_ref()[..KEY_ID_LENGTH]);
    (
        KeyId(id),
        RandomizedNonceKey::new(&AES_256_GCM_SIV, &key[..]).expect("a 32-byte key"),
    )
}

/// The keys of one purpose, as made of one state of the master keys.
struct Ring {
    of: Arc<Vec<MasterKey>>,
    keys: Vec<(KeyId, RandomizedNonceKey)>,
}

impl Ring {
    fn new(of: Arc<Vec<MasterKey>>, purpose: &str) -> Self {
        let keys = of.iter().map(|master| derive(master, purpose)).collect();
        Self { of, keys }
    }

    fn key(&self, id: KeyId) -> Option<&RandomizedNonceKey> {
        let (_, key) = self.keys.iter().find(|(known, _)| *known == id)?;
        Some(key)
    }
}

/// Keys for one purpose. AES-256-GCM-SIV keeps its secrecy when two replicas ever draw the same nonce.
///
/// A key id that the ring does not know makes it look whether the key file changed, so keys are rotated without
/// a restart.
pub struct KeyRing {
    shared: Arc<Shared>,
    purpose: &'static str,
    current: ArcSwap<Ring>,
}

impl KeyRing {
    /// Seals `payload` until `expires` (seconds since 1970). It opens only with the same `context`.
    /// The text is base64url without padding. `None` when it would be longer than [`SEALED_LIMIT`].
    pub fn seal(&self, payload: &[u8], expires: u64, context: &[&[u8]]) -> Option<String> {
        let whole = seal(&self.ring(), &[&expires.to_be_bytes(), payload], context)?;
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
        let opened = self.opened(&whole, context).ok()?;
        let (expires, payload) = opened.split_at_checked(8)?;
        let expires = u64::from_be_bytes(expires.try_into().ok()?);
        (now < expires).then(|| payload.to_vec())
    }

    /// Seals what has no expiry and no limit: a column of a row. It opens only with the same `context`, which
    /// names the row. The newest key of the file is used, even by a process that started before it was written.
    /// `None` when the system gives no random bytes.
    pub fn seal_row(&self, payload: &[u8], context: &[&[u8]]) -> Option<Vec<u8>> {
        self.shared.refresh();
        seal(&self.ring(), &[payload], context)
    }

    /// Opens what [`KeyRing::seal_row`] made with the same `context`.
    pub fn open_row(&self, sealed: &[u8], context: &[&[u8]]) -> Result<SecretSlice<u8>, RowFault> {
        let opened = self.opened(sealed, context)?;
        Ok(SecretSlice::from(opened.to_vec()))
    }

    /// The keys' ids; the first one seals.
    pub fn ids(&self) -> Vec<KeyId> {
        self.ring().keys.iter().map(|(id, _)| *id).collect()
    }

    /// Takes up what changed in the key file.
    pub fn refresh(&self) {
        self.shared.refresh();
    }

    /// Where the keys come from.
    pub fn source(&self) -> &KeySource {
        &self.shared.source
    }

    fn ring(&self) -> Guard<Arc<Ring>> {
        let ring = self.current.load();
        let masters = self.shared.keys.load();
        if Arc::ptr_eq(&ring.of, &masters) {
            return ring;
        }
        let fresh = Arc::new(Ring::new(Arc::clone(&masters), self.purpose));
        self.current.store(Arc::clone(&fresh));
        Guard::from_inner(fresh)
    }

    fn opened(&self, whole: &[u8], context: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, RowFault> {
        let id = KeyId::of(whole).ok_or(RowFault::Malformed)?;
        let (nonce, sealed) = whole[HEAD_LENGTH..]
            .split_at_checked(NONCE_LENGTH)
            .ok_or(RowFault::Malformed)?;
        let mut ring = self.ring();
        if ring.key(id).is_none() {
            self.shared.refresh();
            ring = self.ring();
        }
        let key = ring.key(id).ok_or(RowFault::UnknownKey(id))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| RowFault::Malformed)?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(join(context)), &mut buffer)
            .map_err(|_| RowFault::Altered)?
            .len();
        buffer[length..].zeroize();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// `version ‖ key id ‖ nonce ‖ ciphertext ‖ tag` of the parts one after the other, under the ring's first key.
fn seal(ring: &Ring, parts: &[&[u8]], context: &[&[u8]]) -> Option<Vec<u8>> {
    let (id, key) = ring.keys.first()?;
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut sealed = Zeroizing::new(Vec::with_capacity(length + TAG_LENGTH));
    for part in parts {
        sealed.extend_from_slice(part);
    }
    let nonce = key
        .seal_in_place_append_tag(Aad::from(join(context)), &mut *sealed)
        .ok()?;
    let mut whole = Vec::with_capacity(HEAD_LENGTH + NONCE_LENGTH + sealed.len());
    whole.push(VERSION);
    whole.extend_from_slice(&id.0);
    whole.extend_from_slice(nonce.as_ref());
    whole.extend_from_slice(&sealed);
    Some(whole)
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
    use secrecy::ExposeSecret;

    fn keys(names: &[u8]) -> MasterKeys {
        MasterKeys::found(key_source::Found {
            source: KeySource::Environment,
            keys: names.iter().map(|name| Zeroizing::new([*name; 32])).collect(),
            fingerprint: None,
        })
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
    fn a_row_opens_in_its_place_and_says_why_not() {
        let ring = keys(&[1]).ring("store");
        let long = vec![7; 3 * SEALED_LIMIT];
        let sealed = ring.seal_row(&long, &[b"grants", b"ada"]).expect("sealed");
        assert_eq!(KeyId::of(&sealed), ring.ids().first().copied());
        let fault = |ring: &KeyRing, sealed: &[u8], context: &[&[u8]]| ring.open_row(sealed, context).err();
        let opened = ring.open_row(&sealed, &[b"grants", b"ada"]).expect("opens");
        assert_eq!(opened.expose_secret(), &long);
        assert_eq!(
            fault(&ring, &sealed, &[b"grants", b"eve"]),
            Some(RowFault::Altered)
        );
        let other = keys(&[2]).ring("store");
        assert_eq!(
            fault(&other, &sealed, &[b"grants", b"ada"]),
            Some(RowFault::UnknownKey(ring.ids()[0]))
        );
        for length in 0..HEAD_LENGTH + NONCE_LENGTH {
            assert_eq!(fault(&ring, &sealed[..length], &[]), Some(RowFault::Malformed));
        }
        let mut text = KeyId([0, 1, 0xab, 0xff]).to_string();
        text.push_str(&format!(" {:?}", KeyId([0; 4])));
        assert_eq!(text, "0001abff 00000000");
    }

    #[test]
    fn a_changed_key_file_is_taken_up_without_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys");
        key_source::write_new(&path, &[Zeroizing::new([1; 32])]).expect("written");
        let environment =
            HashMap::from([("VESTIBULE_MASTER_KEY_FILE".to_owned(), path.display().to_string())]);
        let load = || MasterKeys::from_environment(&environment).expect("keys");
        let (old, other) = (load(), load());
        let (session, row) = (old.ring("session"), old.ring("store"));
        let before = session.seal(b"id", 100, &[]).expect("sealed");
        other.rotate().expect("rotated");
        let fresh = load();
        let after = fresh.ring("session").seal(b"id", 100, &[]).expect("sealed");
        assert!(
            session.open(after.as_bytes(), 0, &[]).is_some(),
            "an unknown key id"
        );
        assert!(
            session.open(before.as_bytes(), 0, &[]).is_some(),
            "the old key stays"
        );
        let sealed = row.seal_row(b"row", &[]).expect("sealed");
        assert_eq!(
            KeyId::of(&sealed),
            Some(fresh.ring("store").ids()[0]),
            "the new key seals"
        );

        std::fs::write(&path, "not a key").expect("written");
        assert!(
            row.open_row(&sealed, &[]).is_ok(),
            "a broken file changes nothing"
        );
        assert!(row.seal_row(b"row", &[]).is_some());
        assert_eq!(row.ids().len(), 2);
    }
}

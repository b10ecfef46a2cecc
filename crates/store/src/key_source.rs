//! Where master keys come from, and the file they are kept in: found, made, rewritten. What they seal is in
//! [`crate::keys`].

use aws_lc_rs::{pbkdf2, rand};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// 32 bytes that every other key is derived from.
pub(crate) type MasterKey = Zeroizing<[u8; 32]>;

/// A passphrase is stretched by PBKDF2-HMAC-SHA256 with this many rounds (OWASP's figure), so that a holder of
/// sealed data pays for every guess. The salt is a constant: all replicas have to come to the same key with
/// nothing but the passphrase, before they know a database. PBKDF2 is what aws-lc has; Argon2id would bring a
/// second cryptographic library for a road that is there for people who come from `LiteLLM`.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");
const PASSPHRASE_SALT: &[u8] = b"vestibule/passphrase/v1";
/// Below this, a passphrase is called guessable.
const PASSPHRASE_LENGTH: usize = 16;

const HEADER: &str = "# Master keys of Vestibule, one a line: the first seals, all open. Whoever has them reads the database.\n";

/// Where the master keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `VESTIBULE_MASTER_KEY_FILE`.
    File(PathBuf),
    /// `VESTIBULE_MASTER_KEY`.
    Environment,
    /// `LITELLM_SALT_KEY`, a passphrase.
    Passphrase {
        /// It is so short that it can be guessed.
        short: bool,
    },
    /// The file beside the SQLite file.
    Beside {
        /// The file.
        path: PathBuf,
        /// It was made just now.
        created: bool,
    },
    /// Made at start and known to this process alone.
    Ephemeral,
}

impl KeySource {
    /// The file that holds the keys, when one does.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Beside { path, .. } => Some(path),
            Self::Environment | Self::Passphrase { .. } | Self::Ephemeral => None,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "VESTIBULE_MASTER_KEY_FILE ({})", path.display()),
            Self::Environment => f.write_str("VESTIBULE_MASTER_KEY"),
            Self::Passphrase { short: false } => f.write_str("LITELLM_SALT_KEY"),
            Self::Passphrase { short: true } => {
                write!(
                    f,
                    "LITELLM_SALT_KEY, which is shorter than {PASSPHRASE_LENGTH} characters and can be guessed"
                )
            }
            Self::Beside { path, created: false } => write!(f, "{}", path.display()),
            Self::Beside { path, created: true } => {
                write!(
                    f,
                    "{}, made just now: back it up, without it the database cannot be read",
                    path.display()
                )
            }
            Self::Ephemeral => f.write_str("a key that ends with this process"),
        }
    }
}

/// Why there is no key ring, or why its file stays as it is.
#[derive(Debug, Error)]
pub enum KeyFault {
    /// The file cannot be read.
    #[error("the master keys of {origin} cannot be read: {source}")]
    Unreadable {
        /// The file, and what names it.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// A line is no key.
    #[error("key {1} of {0} is not 32 bytes in base64 (openssl rand -base64 32)")]
    NotAKey(String, usize),
    /// The file or variable is there, and empty.
    #[error("{0} is set and holds no key")]
    Empty(String),
    /// A shared database, and no key.
    #[error(
        "PostgreSQL is used and no master key is set: set VESTIBULE_MASTER_KEY_FILE to a file with a key \
         (openssl rand -base64 32), or VESTIBULE_MASTER_KEY to the key, the same for every replica"
    )]
    Missing,
    /// A database without the key file that was made with it.
    #[error(
        "{database} exists and {file}, which holds its master key, does not: put the file back, or set \
         VESTIBULE_MASTER_KEY_FILE or VESTIBULE_MASTER_KEY; nothing was changed"
    )]
    Lost {
        /// The database.
        database: String,
        /// Where the keys would be.
        file: String,
    },
    /// A key file cannot be written.
    #[error("the key file {path} cannot be written: {source}")]
    Unwritable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The keys do not come from a file.
    #[error("the master keys do not come from a file, so there is no file to change")]
    NoFile,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Keys with where they were found.
pub(crate) struct Found {
    pub(crate) source: KeySource,
    pub(crate) keys: Vec<MasterKey>,
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What differs when a file is another one, or was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([i128; 5]);

impl Fingerprint {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&std::fs::Metadata> for Fingerprint {
    fn from(file: &std::fs::Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self([
            file.dev().into(),
            file.ino().into(),
            file.len().into(),
            nanoseconds(file.mtime(), file.mtime_nsec()),
            nanoseconds(file.ctime(), file.ctime_nsec()),
        ])
    }
}

/// The first of `VESTIBULE_MASTER_KEY_FILE`, `VESTIBULE_MASTER_KEY`, `LITELLM_SALT_KEY` that is set.
pub(crate) fn from_environment(environment: &HashMap<String, String>) -> Result<Option<Found>, KeyFault> {
    if let Some(path) = environment.get("VESTIBULE_MASTER_KEY_FILE") {
        let source = KeySource::File(path.into());
        let (keys, fingerprint) = read(path.as_ref(), &source)?;
        return Ok(Some(Found {
            source,
            keys,
            fingerprint: Some(fingerprint),
        }));
    }
    if let Some(text) = environment.get("VESTIBULE_MASTER_KEY") {
        let source = KeySource::Environment;
        let keys = parse(text, &source)?;
        return Ok(Some(Found {
            source,
            keys,
            fingerprint: None,
        }));
    }
    // An empty variable is how a compose file says that there is none.
    let passphrase = environment
        .get("LITELLM_SALT_KEY")
        .filter(|text| !text.is_empty());
    Ok(passphrase.map(|passphrase| {
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            PASSPHRASE_SALT,
            passphrase.as_bytes(),
            &mut key[..],
        );
        Found {
            source: KeySource::Passphrase {
                short: passphrase.chars().count() < PASSPHRASE_LENGTH,
            },
            keys: vec![key],
            fingerprint: None,
        }
    }))
}

/// A key that nobody else knows.
pub(crate) fn ephemeral() -> Result<Found, KeyFault> {
    Ok(Found {
        source: KeySource::Ephemeral,
        keys: vec![new_key()?],
        fingerprint: None,
    })
}

/// The keys in `<database>.key`, which is made when there is no database either.
pub(crate) fn beside(database: &Path) -> Result<Found, KeyFault> {
    let mut name = database.as_os_str().to_owned();
    name.push(".key");
    let path = PathBuf::from(name);
    let mut created = false;
    if !path.exists() {
        if std::fs::metadata(database).is_ok_and(|file| file.len() > 0) && !path.exists() {
            return Err(KeyFault::Lost {
                database: database.display().to_string(),
                file: path.display().to_string(),
            });
        }
        created = match write_new(&path, &[new_key()?]) {
            Ok(()) => true,
            // Another process that starts at the same time was first.
            Err(KeyFault::Unwritable { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                false
            }
            Err(fault) => return Err(fault),
        };
    }
    let source = KeySource::Beside { path, created };
    let (keys, fingerprint) = read(source.file().ok_or(KeyFault::NoFile)?, &source)?;
    Ok(Found {
        source,
        keys,
        fingerprint: Some(fingerprint),
    })
}

fn new_key() -> Result<MasterKey, KeyFault> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut key[..]).map_err(|_| KeyFault::NoRandomness)?;
    Ok(key)
}

/// The keys of a file, and what the file was when they were read.
pub(crate) fn read(path: &Path, source: &KeySource) -> Result<(Vec<MasterKey>, Fingerprint), KeyFault> {
    let unreadable = |error| KeyFault::Unreadable {
        origin: source.to_string(),
        source: error,
    };
    let file = File::open(path).map_err(unreadable)?;
    let fingerprint = Fingerprint::from(&file.metadata().map_err(unreadable)?);
    let text = Zeroizing::new(io::read_to_string(file).map_err(unreadable)?);
    Ok((parse(&text, source)?, fingerprint))
}

fn parse(text: &str, source: &KeySource) -> Result<Vec<MasterKey>, KeyFault> {
    let keys = text
        .lines()
        .filter(|line| !is_comment(line))
        .flat_map(entries)
        .enumerate()
        .map(|(index, entry)| {
            decode(entry).ok_or_else(|| KeyFault::NotAKey(origin(source).to_owned(), index + 1))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        Err(KeyFault::Empty(origin(source).to_owned()))
    } else {
        Ok(keys)
    }
}

fn origin(source: &KeySource) -> &'static str {
    match source {
        KeySource::File(_) => "VESTIBULE_MASTER_KEY_FILE",
        KeySource::Environment => "VESTIBULE_MASTER_KEY",
        KeySource::Passphrase { .. } => "LITELLM_SALT_KEY",
        KeySource::Beside { .. } => "the key file beside the database",
        KeySource::Ephemeral => "this process",
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn entries(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn decode(entry: &str) -> Option<MasterKey> {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(entry).ok()?);
    Some(Zeroizing::new(bytes[..].try_into().ok()?))
}

fn encoded(keys: &[MasterKey]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(keys.len() * 45));
    for key in keys {
        text.push_str(&Zeroizing::new(BASE64_STANDARD.encode(&key[..])));
        text.push('\n');
    }
    text
}

/// Writes a key file that does not exist yet, whole or not at all. [`io::ErrorKind::AlreadyExists`] when it does.
pub(crate) fn write_new(path: &Path, keys: &[MasterKey]) -> Result<(), KeyFault> {
    let text = encoded(keys);
    let result = beside_then(
        path,
        0o600,
        None,
        &[HEADER.as_bytes(), text.as_bytes()],
        |temporary| {
            match std::fs::hard_link(temporary, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    // A file system without links: exclusive all the same, though not in one step.
                    let mut file = create(path, 0o600)?;
                    file.write_all(HEADER.as_bytes())?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                }
                done => done,
            }?;
            std::fs::remove_file(temporary)
        },
    );
    result.map_err(|source| unwritable(path, source))
}

/// Puts a new key first.
pub(crate) fn prepend_key(path: &Path) -> Result<(), KeyFault> {
    let key = new_key()?;
    rewrite(path, |text| {
        let mut new = encoded(std::slice::from_ref(&key));
        new.push_str(text);
        Some(new)
    })
}

/// Drops the keys that `keep` (index, key) does not want, and says how many.
pub(crate) fn retain_keys(
    path: &Path,
    mut keep: impl FnMut(usize, &MasterKey) -> bool,
) -> Result<usize, KeyFault> {
    let mut dropped = 0;
    rewrite(path, |text| {
        let mut new = Zeroizing::new(String::with_capacity(text.len() + 1));
        let mut index = 0;
        for line in text.lines() {
            if is_comment(line) {
                new.push_str(line);
                new.push('\n');
                continue;
            }
            for entry in entries(line) {
                if decode(entry).is_none_or(|key| keep(index, &key)) {
                    new.push_str(entry);
                    new.push('\n');
                } else {
                    dropped += 1;
                }
                index += 1;
            }
        }
        (dropped > 0).then_some(new)
    })?;
    Ok(dropped)
}

/// Replaces a key file by what `change` makes of it, in one step, keeping its owner and mode. `None` leaves it.
fn rewrite(path: &Path, change: impl FnOnce(&str) -> Option<Zeroizing<String>>) -> Result<(), KeyFault> {
    let attempt = || {
        // What is replaced is the file, not a link to it.
        let path = std::fs::canonicalize(path)?;
        // Two commands at once take turns; the file itself is replaced, so its directory is what they lock.
        let directory = File::open(parent(&path))?;
        directory.lock()?;
        let file = File::open(&path)?;
        let old = file.metadata()?;
        let text = Zeroizing::new(io::read_to_string(file)?);
        let Some(new) = change(&text) else {
            return Ok(());
        };
        let mode = old.permissions().mode() & 0o777;
        let owner = Some((old.uid(), old.gid()));
        beside_then(&path, mode, owner, &[new.as_bytes()], |temporary| {
            std::fs::rename(temporary, &path)
        })
    };
    attempt().map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: io::Error) -> KeyFault {
    KeyFault::Unwritable {
        path: path.display().to_string(),
        source,
    }
}

/// Writes a file beside `path` so that it is on disk, lets `place` put it there, and the directory on disk too.
fn beside_then(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    parts: &[&[u8]],
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut suffix = [0; 9];
    rand::fill(&mut suffix).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", BASE64_URL_SAFE_NO_PAD.encode(suffix)));
    let temporary = PathBuf::from(name);
    let written = create(&temporary, mode).and_then(|mut file| {
        if let Some((user, group)) = owner {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (user, group) {
                fchown(&file, Some(user), Some(group))?;
            }
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        place(&temporary)
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(path)
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

/// The directory that `path` is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Puts the name of `path` on disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MasterKeys;
    use crate::url::DatabaseUrl;

    fn from(name: &str, value: &str) -> Result<Found, KeyFault> {
        let environment = HashMap::from([(name.to_owned(), value.to_owned())]);
        from_environment(&environment).map(|found| found.expect("set"))
    }

    #[test]
    fn keys_come_from_the_environment() {
        let one = BASE64_STANDARD.encode([1; 32]);
        let two = BASE64_STANDARD.encode([2; 32]);
        let both = from(
            "VESTIBULE_MASTER_KEY",
            &format!("{one},{two}\n# no key, a comment\n"),
        )
        .expect("keys");
        assert_eq!((both.keys.len(), both.source), (2, KeySource::Environment));
        let fault = |name: &str, value: &str| from(name, value).err().expect("a fault").to_string();
        assert_eq!(
            fault("VESTIBULE_MASTER_KEY", "short"),
            "key 1 of VESTIBULE_MASTER_KEY is not 32 bytes in base64 (openssl rand -base64 32)"
        );
        assert_eq!(
            fault("VESTIBULE_MASTER_KEY", " \n"),
            "VESTIBULE_MASTER_KEY is set and holds no key"
        );
        assert!(fault("VESTIBULE_MASTER_KEY_FILE", "/nowhere").contains("(/nowhere) cannot be read"));
        assert!(from_environment(&HashMap::new()).expect("nothing set").is_none());
        assert!(
            MasterKeys::from_environment(&HashMap::new())
                .expect("made up")
                .ephemeral
        );
    }

    #[test]
    fn a_passphrase_is_stretched_to_the_same_key_everywhere() {
        let one = from("LITELLM_SALT_KEY", "sk-a-long-and-random-salt-key").expect("a key");
        assert_eq!(one.source, KeySource::Passphrase { short: false });
        assert_eq!(BASE64_STANDARD.encode(&one.keys[0][..]), PASSPHRASE_KEY);
        let short = from("LITELLM_SALT_KEY", "sk-1234").expect("a key");
        assert!(short.source.to_string().contains("can be guessed"));
        assert!(!short.source.to_string().contains("sk-1234"));
        assert!(
            from_environment(&HashMap::from([("LITELLM_SALT_KEY".to_owned(), String::new())]))
                .expect("nothing set")
                .is_none()
        );
    }

    /// As `hashlib.pbkdf2_hmac` of Python gives it.
    const PASSPHRASE_KEY: &str = "wA6eOqvX+kdbxLKUe5Bk4EQsxNzhbc+WBPMmi7gMhmo=";

    #[test]
    fn a_file_beside_the_database_is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("v.db");
        let url = DatabaseUrl::sqlite(&database);
        let load = || MasterKeys::load(&HashMap::new(), &url);
        let path = directory.path().join("v.db.key");
        let first = load().expect("made");
        let made = |created| KeySource::Beside {
            path: path.clone(),
            created,
        };
        assert_eq!(*first.source(), made(true));
        assert_eq!(
            path.metadata().expect("there").permissions().mode() & 0o777,
            0o600
        );
        let second = load().expect("read");
        assert_eq!(*second.source(), made(false));
        assert_eq!(first.ring("a").ids(), second.ring("a").ids());
        assert_eq!(
            directory.path().read_dir().expect("read").count(),
            1,
            "nothing is left over"
        );

        std::fs::write(&database, "data").expect("written");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(load(), Err(KeyFault::Lost { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn many_first_starts_come_to_one_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::sqlite(&directory.path().join("v.db"));
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        MasterKeys::load(&HashMap::new(), &url)
                            .expect("keys")
                            .ring("a")
                            .ids()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("joined"))
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn where_keys_cannot_be_made_up() {
        let postgres = DatabaseUrl::parse("postgres://h/d").expect("a url");
        assert!(matches!(
            MasterKeys::load(&HashMap::new(), &postgres),
            Err(KeyFault::Missing)
        ));
        let memory = DatabaseUrl::parse("sqlite::memory:").expect("a url");
        assert!(
            MasterKeys::load(&HashMap::new(), &memory)
                .expect("made up")
                .ephemeral
        );
    }

    #[test]
    fn a_rewritten_file_keeps_mode_comments_and_the_other_keys() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, link) = (directory.path().join("keys"), directory.path().join("link"));
        let [one, two] = [1, 2].map(|byte| BASE64_STANDARD.encode([byte; 32]));
        std::fs::write(&path, format!("# ours\n{one},{two}")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        prepend_key(&link).expect("rotated");
        assert!(link.is_symlink());
        let (keys, _) = read(&path, &KeySource::Environment).expect("read");
        assert_eq!(keys.len(), 3);
        assert_eq!((&keys[1][..], &keys[2][..]), (&[1; 32][..], &[2; 32][..]));
        assert_eq!(
            retain_keys(&path, |index, key| index == 0 || key[0] == 2).expect("retired"),
            1
        );
        assert_eq!(retain_keys(&path, |_, _| true).expect("retired"), 0);
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(
            text.contains("# ours\n") && text.ends_with(&format!("{two}\n")),
            "{text}"
        );
        assert_eq!(
            path.metadata().expect("there").permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            directory.path().read_dir().expect("read").count(),
            2,
            "nothing is left over"
        );
    }
}

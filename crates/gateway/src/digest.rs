//! SHA-256, for keys of caches and for what is compared without being kept.

use aws_lc_rs::digest;
use vestibule_store::join;

/// SHA-256 over `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    whole
}

/// SHA-256 over each part with its length before it, so that no two lists of parts have the same.
pub fn sha256_of_parts(parts: &[&[u8]]) -> [u8; 32] {
    sha256(&join(parts))
}

//! Names that a gateway serves for what its servers have: `{prefix}-{name}`, valid for every model's tool API,
//! at most [`MAX_NAME`] characters, one name for one tool, and the way back. Pure functions; which prefix a
//! server has is the caller's to say.

use aws_lc_rs::digest;
use std::borrow::Cow;
use std::fmt::Write;

/// The longest name that is served, in characters.
pub const MAX_NAME: usize = 64;
/// The longest prefix; what is left has room for a readable name and its tail.
pub const MAX_PREFIX: usize = 40;
/// Between prefix and name. No prefix has it.
pub const SEPARATOR: char = '-';
/// `_` and eight hex digits.
const TAIL: usize = 9;

/// What stands after the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local<'n> {
    /// The server's own name.
    Plain(&'n str),
    /// A shortened or cleaned name: its owner is the one whose [`local`] name it is.
    Encoded(&'n str),
}

/// The prefix for a server that is called `name`: the name itself where it is plain and fits. A name of letters,
/// digits, `_` and `.` is expected; two of them can come to one prefix, which is for the caller to refuse.
pub fn prefix(name: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.len() <= MAX_PREFIX && name.chars().all(plain) {
        return Cow::Borrowed(name);
    }
    let clean: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if clean.len() <= MAX_PREFIX {
        return Cow::Owned(clean);
    }
    Cow::Owned(format!("{}{}", &clean[..MAX_PREFIX - TAIL], tail(name)))
}

/// The served name of `name` at the server with this [`prefix`].
pub fn served(prefix: &str, name: &str) -> String {
    format!("{prefix}{SEPARATOR}{}", local(prefix, name))
}

/// What stands after the prefix for `name`.
pub fn local<'n>(prefix: &str, name: &'n str) -> Cow<'n, str> {
    let room = MAX_NAME.saturating_sub(prefix.len() + 1);
    let plain = !name.is_empty() && name.len() <= room && name.chars().all(is_plain);
    // A plain name that looks encoded is encoded, so that what looks encoded always is.
    if plain && !looks_encoded(name) {
        return Cow::Borrowed(name);
    }
    let stem = room.saturating_sub(TAIL);
    let clean = name.chars().map(|c| if is_plain(c) { c } else { '_' });
    let mut encoded: String = clean.take(stem).collect();
    encoded.push_str(&tail(name));
    Cow::Owned(encoded)
}

/// Reads what stands after a prefix.
pub fn read(local: &str) -> Local<'_> {
    if looks_encoded(local) {
        Local::Encoded(local)
    } else {
        Local::Plain(local)
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn looks_encoded(name: &str) -> bool {
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match name.as_bytes().split_last_chunk::<TAIL>() {
        Some((_, [b'_', digits @ ..])) => digits.iter().all(hex),
        _ => false,
    }
}

/// `_` and the first eight hex digits of SHA-256 over the whole name: it depends on nothing else, so it stays
/// through restarts, other orders and another prefix.
fn tail(name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    digest.as_ref()[..4]
        .iter()
        .fold(String::from("_"), |mut tail, byte| {
            let _ = write!(tail, "{byte:02x}");
            tail
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_people_meet() {
        for (server, name, expected) in [
            ("github", "search", "github-search"),
            ("github", "list-issues", "github-list-issues"),
            ("my.server", "x", "my_server-x"),
            ("one", "a b", "one-a_b_c8687a08"),
            ("one", "", "one-_e3b0c442"),
            ("one", "_e3b0c442", "one-_e3b0c442_5a249f0e"),
        ] {
            assert_eq!(served(&prefix(server), name), expected);
        }
        assert_eq!(read("search"), Local::Plain("search"));
        assert_eq!(read("a_b_c8687a08"), Local::Encoded("a_b_c8687a08"));
        assert_eq!(read("A_C8687A08"), Local::Plain("A_C8687A08"));
    }

    #[test]
    fn a_long_prefix_is_shortened_and_leaves_room() {
        let (one, two) = ("s".repeat(64), format!("{}t", "s".repeat(63)));
        assert_ne!(prefix(&one), prefix(&two));
        for name in [&one, &two] {
            assert_eq!(prefix(name).len(), MAX_PREFIX);
            assert_eq!(served(&prefix(name), &"t".repeat(200)).len(), MAX_NAME);
        }
    }

    fn server() -> impl Strategy<Value = String> {
        "[A-Za-z0-9_][A-Za-z0-9_.]{0,63}"
    }

    fn tool() -> impl Strategy<Value = String> {
        prop_oneof![".{0,80}", "[A-Za-z0-9_-]{1,70}", "[a-z]{0,4}_[0-9a-f]{8}",]
    }

    proptest! {
        #[test]
        fn every_name_is_valid_short_and_stable(server in server(), name in tool()) {
            let prefix = prefix(&server);
            let whole = served(&prefix, &name);
            prop_assert!(whole.len() <= MAX_NAME && whole.chars().all(is_plain), "{whole}");
            prop_assert_eq!(&served(&prefix, &name), &whole);
            prop_assert!(!prefix.contains(SEPARATOR) && prefix.len() <= MAX_PREFIX);
        }

        #[test]
        fn two_tools_never_have_one_name(server in server(), one in tool(), two in tool()) {
            let prefix = prefix(&server);
            if one != two {
                prop_assert_ne!(served(&prefix, &one), served(&prefix, &two));
            }
        }

        #[test]
        fn two_prefixes_never_have_one_name(a in "[A-Za-z0-9_]{1,40}", b in "[A-Za-z0-9_]{1,40}", one in tool(), two in tool()) {
            if a != b {
                prop_assert_ne!(served(&a, &one), served(&b, &two));
            }
        }

        #[test]
        fn the_way_back_leads_to_the_tool(server in server(), name in tool(), others in prop::collection::vec(tool(), 0..8)) {
            let prefix = prefix(&server);
            let whole = served(&prefix, &name);
            let (before, after) = whole.split_once(SEPARATOR).expect("a separator");
            prop_assert_eq!(before, &*prefix);
            match read(after) {
                Local::Plain(found) => prop_assert_eq!(found, &name),
                Local::Encoded(found) => {
                    let mut listed = others.clone();
                    listed.push(name.clone());
                    let owner = listed.iter().find(|other| local(&prefix, other) == found);
                    prop_assert_eq!(owner, Some(&name));
                }
            }
        }
    }
}

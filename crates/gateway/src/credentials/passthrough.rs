//! What a client gets as access token where the gateway stands between it and a provider whose tokens are only passed
//! through: the provider's token, sealed, for one server and, where a key is asked for, one caller. Nothing is stored.

use crate::admission::Principal;
use crate::config::Passthrough;
use crate::digest::sha256;
use http::HeaderValue;
use memchr::memmem;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use vestibule_store::keys::{KeyRing, MasterKeys};

/// What every envelope begins with, so that one is known wherever it turns up.
const PREFIX: &str = "vestibule_token_";

/// The longest life of an envelope, in seconds: a day.
const LONGEST: u64 = 24 * 60 * 60;
/// The life of one whose token's own is not known: an hour.
const UNKNOWN: u64 = 60 * 60;

/// Seals and opens envelopes.
pub struct Envelopes {
    ring: KeyRing,
}

/// A token for a client.
#[derive(Debug)]
pub struct Envelope {
    /// What the client shows.
    pub text: SecretString,
    /// Its life, in seconds.
    pub expires_in: u64,
}

/// Why there is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEnvelope {
    /// The token's life is over as it comes.
    Ended,
    /// No header would carry it.
    TooLong,
}

/// Whom an envelope counts for, beside its server.
fn holder(mode: Passthrough, principal: &Principal) -> &[u8] {
    if mode.asks_for_key() { principal.id() } else { b"" }
}

impl Envelopes {
    /// With a ring for this purpose alone.
    pub fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("passthrough-token"),
        }
    }

    /// The envelope of `token`, which the provider says is good for `expires_in` seconds; `now` is in seconds since
    /// 1970.
    pub fn seal(
        &self,
        token: &SecretString,
        expires_in: Option<u64>,
        server_id: &str,
        (mode, principal): (Passthrough, &Principal),
        now: u64,
    ) -> Result<Envelope, NoEnvelope> {
        let expires_in = expires_in.unwrap_or(UNKNOWN).min(LONGEST);
        if expires_in == 0 {
            return Err(NoEnvelope::Ended);
        }
        let context = [server_id.as_bytes(), holder(mode, principal)];
        let token = token.expose_secret().as_bytes();
        let sealed = self.ring.seal(token, now.saturating_add(expires_in), &context);
        let sealed = sealed.ok_or(NoEnvelope::TooLong)?;
        Ok(Envelope {
            text: format!("{PREFIX}{sealed}").into(),
            expires_in,
        })
    }

    /// The token in an `Authorization` value, as the value for the server, if the envelope counts for this server,
    /// caller and time. `None` for what is no envelope too; see [`is_in`].
    pub fn open(
        &self,
        value: &HeaderValue,
        server_id: &str,
        (mode, principal): (Passthrough, &Principal),
        now: u64,
    ) -> Option<HeaderValue> {
        let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let sealed = rest.trim_ascii().strip_prefix(PREFIX.as_bytes())?;
        let context = [server_id.as_bytes(), holder(mode, principal)];
        let token = Zeroizing::new(self.ring.open(sealed, now, &context)?);
        let value = Zeroizing::new([b"Bearer ", &token[..]].concat());
        let mut value = HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Whether an envelope stands anywhere in `value`. Such a value goes to no server, since no server can read it.
pub fn is_in(value: &HeaderValue) -> bool {
    memmem::find(value.as_bytes(), PREFIX.as_bytes()).is_some()
}

/// What refresh tokens are bound to, beside client and server; nothing where no key is asked for.
pub fn refresh_holder(mode: Passthrough, principal: &Principal) -> Vec<u8> {
    match holder(mode, principal) {
        b"" => Vec::new(),
        holder => sha256(holder).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Passthrough::{OAuthDelegate, TruePassthrough};
    use Principal::{Anyone, Delegated, Master};
    use std::collections::HashMap;

    fn envelopes() -> Envelopes {
        Envelopes::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"))
    }

    #[test]
    fn an_envelope_counts_for_its_server_caller_and_time() {
        let envelopes = envelopes();
        let seal = |mode, life| {
            let envelope = envelopes.seal(&"the-providers".into(), life, "one", (mode, &Master), 1000);
            envelope.expect("sealed")
        };
        for (mode, life, expires_in) in [
            (OAuthDelegate, Some(600), 600),
            (OAuthDelegate, None, UNKNOWN),
            (TruePassthrough, Some(u64::MAX), LONGEST),
        ] {
            let envelope = seal(mode, life);
            assert_eq!(envelope.expires_in, expires_in);
            let text = envelope.text.expose_secret();
            assert!(!text.contains("providers"));
            let value = HeaderValue::from_str(&format!("bEARER  {text} ")).expect("a value");
            assert!(is_in(&value));
            let open = |value: &HeaderValue, server, mode, principal: &Principal, now| {
                let opened = envelopes.open(value, server, (mode, principal), now);
                opened.map(|value| {
                    assert!(value.is_sensitive());
                    value.to_str().expect("text").to_owned()
                })
            };
            let last = 1000 + expires_in - 1;
            let good = Some("Bearer the-providers".to_owned());
            assert_eq!(open(&value, "one", mode, &Master, last), good);
            assert_eq!(open(&value, "one", mode, &Master, last + 1), None);
            assert_eq!(open(&value, "two", mode, &Master, last), None);
            let any_caller = mode == TruePassthrough;
            for other in &[Anyone, Delegated] {
                assert_eq!(open(&value, "one", mode, other, last).is_some(), any_caller);
            }
            for wrong in [
                text.to_owned(),
                format!("Token {text}"),
                format!("Bearer {text}A"),
            ] {
                let wrong = HeaderValue::from_str(&wrong).expect("a value");
                assert_eq!(open(&wrong, "one", mode, &Master, last), None);
            }
        }
        // What one mode seals is not the other's, whose callers are other people.
        let value = format!("Bearer {}", seal(TruePassthrough, None).text.expose_secret());
        let value = HeaderValue::from_str(&value).expect("a value");
        assert!(
            envelopes
                .open(&value, "one", (OAuthDelegate, &Master), 1000)
                .is_none()
        );
    }

    #[test]
    fn what_no_client_could_show_is_not_made() {
        let seal = |token: String, life| {
            let made = envelopes().seal(&token.into(), life, "one", (TruePassthrough, &Delegated), 0);
            made.map(|envelope| envelope.text.expose_secret().len())
        };
        assert_eq!(seal("x".into(), Some(0)), Err(NoEnvelope::Ended));
        assert_eq!(seal("x".repeat(4000), None), Err(NoEnvelope::TooLong));
        assert!(seal("x".repeat(3000), None).is_ok_and(|length| length < 4200));
    }
}

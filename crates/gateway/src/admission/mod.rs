//! Who is calling. Gives an [`Admission`], from which no outbound credential can be made.

use crate::config::fields;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use aws_lc_rs::{constant_time, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use vestibule_oauth::BearerChallenge;

/// The header that keeps `Authorization` free. It counts before it.
pub const LITELLM_API_KEY: HeaderName = HeaderName::from_static("x-litellm-api-key");

const NOT_THE_KEY: &str = "The Authorization header does not hold the gateway key: send the key in x-litellm-api-key, \
                           so that Authorization stays free for the server's own token.";

/// Who a caller is. Sealed session ids are bound to [`Principal::id`], not to the bytes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// The holder of the master key.
    Master,
    /// Anybody, where no master key is configured.
    Anyone,
    /// Whoever calls servers that all judge their callers themselves. Known to nobody, so nothing is kept for it.
    Delegated,
}

impl Principal {
    /// A stable name; distinct principals have distinct ones.
    pub fn id(self) -> &'static [u8] {
        match self {
            Self::Master => b"master",
            Self::Anyone => b"anyone",
            Self::Delegated => b"delegated",
        }
    }
}

/// What a request is for, as far as its path and headers name it. Who may come in can depend on it.
#[derive(Clone, Copy)]
pub struct Targets<'t> {
    /// The servers that were found.
    pub servers: &'t [Arc<Server>],
    /// Whether every name was found, and there was one.
    pub all_resolved: bool,
}

impl<'t> Targets<'t> {
    /// One server by its own endpoint; `None` when its name is unknown.
    pub fn one(server: Option<&'t Arc<Server>>) -> Self {
        Self {
            servers: server.map_or(&[], std::slice::from_ref),
            all_resolved: server.is_some(),
        }
    }

    /// None that a caller could come in for without a key.
    pub const NONE: Self = Self {
        servers: &[],
        all_resolved: false,
    };

    /// Whether every target judges its callers itself. What is not resolved could be any server.
    fn all_judge_themselves(self) -> bool {
        self.are_all(Server::admits_by_itself)
    }

    fn are_all(self, is_so: impl Fn(&Server) -> bool) -> bool {
        self.all_resolved && !self.servers.is_empty() && self.servers.iter().all(|server| is_so(server))
    }
}

/// An admitted caller.
#[derive(Debug)]
pub struct Admission {
    /// Who.
    pub principal: Principal,
    /// The dedicated header as presented, which may differ from the master key where the gateway is open.
    presented: Option<HeaderValue>,
}

/// Decides who may come in.
#[derive(Debug)]
pub struct Gate {
    master: Option<Key>,
    /// The operator's own header for the key; it counts first.
    key_header: Option<HeaderName>,
}

#[derive(Debug)]
struct Key {
    text: SecretString,
    digest: [u8; 32],
}

impl Gate {
    /// A gate for this master key; without one everybody is admitted. `key_header` is a further header for the key.
    pub fn new(master_key: Option<SecretString>, key_header: Option<HeaderName>) -> Self {
        Self {
            key_header,
            master: master_key.map(|text| Key {
                digest: sha256(text.expose_secret().as_bytes()),
                text,
            }),
        }
    }

    /// Who may come in where no server is named: only who has a key.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Admission, Refusal> {
        self.admit_to(headers, Targets::NONE)
    }

    /// Who may come in to `targets`. The one place that admits without a key, before any key is looked at: where all
    /// targets judge their callers themselves and the request shows no key of ours. No failure of a key leads here.
    pub fn admit_to(&self, headers: &HeaderMap, targets: Targets<'_>) -> Result<Admission, Refusal> {
        let litellm = single(headers, &LITELLM_API_KEY)?;
        let primary = match &self.key_header {
            Some(name) => single(headers, name)?.or(litellm),
            None => litellm,
        };
        let secondary = single(headers, &header::AUTHORIZATION)?;
        // `Authorization` is the servers' own there, unless it is unmistakably ours.
        if targets.all_judge_themselves()
            && primary.is_none()
            && !secondary.is_some_and(|value| self.is_master(value))
        {
            return Ok(Admission {
                principal: Principal::Delegated,
                presented: None,
            });
        }
        let admission = self.admit_with_key(primary, secondary)?;
        let key_in_the_way = self.master.is_some() && primary.is_none();
        if key_in_the_way && targets.are_all(Server::always_has_token) {
            return Err(challenge(ErrorCode::KeyInTheWay, None));
        }
        Ok(admission)
    }

    /// Reads the key: the operator's own header or `x-litellm-api-key` is `primary`, `Authorization` is `secondary`; bare
    /// or after `Bearer`.
    fn admit_with_key(
        &self,
        primary: Option<&HeaderValue>,
        secondary: Option<&HeaderValue>,
    ) -> Result<Admission, Refusal> {
        let presented = primary.cloned();
        let Some(master) = &self.master else {
            return Ok(Admission {
                principal: Principal::Anyone,
                presented,
            });
        };
        let Some(value) = primary.or(secondary) else {
            return Err(challenge(ErrorCode::MissingKey, None));
        };
        if master.is(value) {
            return Ok(Admission {
                principal: Principal::Master,
                presented,
            });
        }
        if primary.is_some() {
            return Err(challenge(ErrorCode::WrongKey, Some("invalid_token")));
        }
        // It may be a token for the server, of a client that forgot the key: told `invalid_token`, such a client would
        // sign in again without end.
        Err(Refusal {
            message: NOT_THE_KEY.into(),
            ..challenge(ErrorCode::WrongKey, None)
        })
    }

    fn is_master(&self, value: &HeaderValue) -> bool {
        self.master.as_ref().is_some_and(|master| master.is(value))
    }

    /// Whether a gateway key stands anywhere in `value`, in the clear or in the Base64 of Basic. Such a value goes to no
    /// server.
    pub fn carries_key(&self, admission: &Admission, value: &HeaderValue) -> bool {
        let master = self
            .master
            .as_ref()
            .map(|key| key.text.expose_secret().as_bytes());
        let presented = admission.presented.as_ref().map(|value| bare(value.as_bytes()));
        let decoded = basic(value.as_bytes());
        // A one-letter key would stand in every value.
        [master, presented]
            .into_iter()
            .flatten()
            .any(|key| match key.len() {
                0 => false,
                1..=3 => bare(value.as_bytes()) == key,
                _ => {
                    let stands_in = |text: &[u8]| memmem::find(text, key).is_some();
                    stands_in(value.as_bytes()) || decoded.as_deref().is_some_and(stands_in)
                }
            })
    }
}

impl Key {
    fn is(&self, value: &HeaderValue) -> bool {
        let digest = sha256(bare(value.as_bytes()));
        constant_time::verify_slices_are_equal(&digest, &self.digest).is_ok()
    }
}

impl Admission {
    /// Where `server` is, for this caller's eyes: its place in the network is not for whoever comes in without a key.
    pub fn address_of(&self, server: &Server) -> String {
        match self.principal {
            Principal::Delegated => "(hidden)".into(),
            Principal::Master | Principal::Anyone => server.endpoint.shown(),
        }
    }

    /// Whether the caller may use `server`: without a key only what judges its callers itself, wherever the server
    /// was found.
    pub fn may_use(&self, server: &Server) -> bool {
        match self.principal {
            Principal::Delegated => server.admits_by_itself(),
            Principal::Master | Principal::Anyone => true,
        }
    }
}

/// The one value of a header; empty is as good as absent.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().filter(|value| !value.is_empty());
    if values.next().is_some() {
        return Err(Refusal::because(
            ErrorCode::RepeatedHeader,
            format!("The header {name} stands several times."),
        ));
    }
    Ok(first)
}

/// The key without the scheme before it.
fn bare(value: &[u8]) -> &[u8] {
    match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => value.trim_ascii(),
    }
}

/// What stands in a value of the scheme Basic (RFC 7617).
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(6)?;
    let is_basic = scheme.eq_ignore_ascii_case(b"basic ");
    is_basic.then(|| BASE64_STANDARD.decode(rest.trim_ascii()).ok())?
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    whole
}

fn challenge(code: ErrorCode, error: Option<&str>) -> Refusal {
    let challenge = BearerChallenge {
        realm: Some(fields::REALM),
        error,
        ..Default::default()
    };
    let value = HeaderValue::from_str(&challenge.to_string()).unwrap_or(HeaderValue::from_static("Bearer"));
    Refusal::new(code).with_header(header::WWW_AUTHENTICATE, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        map
    }

    fn code(pairs: &[(&str, &str)]) -> Option<ErrorCode> {
        let gate = Gate::new(Some("sk-1234567890".into()), None);
        gate.admit(&headers(pairs)).err().map(|refusal| refusal.code)
    }

    const AUTHORIZATION: &str = "authorization";
    const KEY: &str = "x-litellm-api-key";

    #[test]
    fn where_the_key_may_stand() {
        for good in [
            &[(KEY, "sk-1234567890")][..],
            &[(KEY, "Bearer sk-1234567890")],
            &[(KEY, "bearer  sk-1234567890 ")],
            &[(AUTHORIZATION, "Bearer sk-1234567890")],
            &[(AUTHORIZATION, "sk-1234567890")],
            &[(KEY, "sk-1234567890"), (AUTHORIZATION, "Bearer something-else")],
            &[(KEY, ""), (AUTHORIZATION, "Bearer sk-1234567890")],
        ] {
            assert_eq!(code(good), None, "{good:?}");
        }
    }

    #[test]
    fn refusals_say_which_kind() {
        let missing = Some(ErrorCode::MissingKey);
        let wrong = Some(ErrorCode::WrongKey);
        assert_eq!(code(&[]), missing);
        assert_eq!(code(&[(KEY, "")]), missing);
        assert_eq!(code(&[(KEY, "sk-1234567891")]), wrong);
        assert_eq!(code(&[(KEY, "sk-123456789")]), wrong);
        assert_eq!(code(&[(KEY, "Bearer ")]), wrong);
        assert_eq!(code(&[(AUTHORIZATION, "Basic sk-1234567890")]), wrong);
        // The dedicated header counts, even when it is wrong.
        assert_eq!(
            code(&[(KEY, "sk-other"), (AUTHORIZATION, "Bearer sk-1234567890")]),
            wrong
        );
        let twice = code(&[
            (AUTHORIZATION, "Bearer sk-1234567890"),
            (AUTHORIZATION, "Bearer x"),
        ]);
        assert_eq!(twice, Some(ErrorCode::RepeatedHeader));
    }

    #[test]
    fn the_challenge_names_an_error_only_when_a_key_was_meant() {
        let gate = Gate::new(Some("sk-1234567890".into()), None);
        let challenge = |pairs: &[(&str, &str)]| {
            let refusal = gate.admit(&headers(pairs)).expect_err("refused");
            refusal
                .header
                .map(|header| header.1.to_str().expect("text").to_owned())
        };
        assert_eq!(challenge(&[]).as_deref(), Some(r#"Bearer realm="vestibule""#));
        let wrong = challenge(&[(KEY, "x")]);
        assert_eq!(
            wrong.as_deref(),
            Some(r#"Bearer realm="vestibule", error="invalid_token""#)
        );
        // A server's token alone: nothing that a sign-in would mend.
        for pairs in [
            &[(AUTHORIZATION, "Bearer token")][..],
            &[(KEY, ""), (AUTHORIZATION, "Bearer token")],
        ] {
            assert_eq!(
                challenge(pairs).as_deref(),
                Some(r#"Bearer realm="vestibule""#),
                "{pairs:?}"
            );
            let refusal = gate.admit(&headers(pairs)).expect_err("refused");
            assert_eq!(refusal.code, ErrorCode::WrongKey);
            assert!(
                refusal.message.contains("x-litellm-api-key"),
                "{}",
                refusal.message
            );
        }
        let both = challenge(&[(KEY, "x"), (AUTHORIZATION, "Bearer token")]);
        assert_eq!(both, wrong);
    }

    #[test]
    fn keys_are_found_wherever_they_hide() {
        let gate = Gate::new(Some("sk-1234567890".into()), None);
        let admission = gate.admit(&headers(&[(KEY, "sk-1234567890")])).expect("admitted");
        let carries = |value: &'static str| gate.carries_key(&admission, &HeaderValue::from_static(value));
        assert!(carries("Bearer sk-1234567890") && carries("x=sk-1234567890;y") && !carries("sk-123456789"));
        let open = Gate::new(None, None);
        let admission = open.admit(&headers(&[(KEY, "Bearer sk-abc")])).expect("admitted");
        assert!(open.carries_key(&admission, &HeaderValue::from_static("Bearer sk-abc")));
        assert!(!open.carries_key(&admission, &HeaderValue::from_static("Bearer other")));
    }
}

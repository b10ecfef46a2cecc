//! Who is calling. Gives an [`Admission`], from which no outbound credential can be made. What an admitted caller may
//! use is [`crate::policy::access`]'s.

pub mod keys;
pub mod permissions;
pub mod server_session;

use crate::audit::note;
use crate::config::fields;
use crate::ending::Ending;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, Wanted};
use aws_lc_rs::constant_time;
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use keys::{Keys, VirtualKey, digest_of};
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use server_session::{Holder, ServerSessions};
use std::sync::Arc;
use vestibule_oauth::BearerChallenge;
use vestibule_store::UserId;

/// The header that keeps `Authorization` free. It counts before it.
pub const LITELLM_API_KEY: HeaderName = HeaderName::from_static("x-litellm-api-key");

const NOT_THE_KEY: &str = "The Authorization header does not hold the gateway key: send the key in x-litellm-api-key, \
                           so that Authorization stays free for the server's own token.";

/// Who a caller is. Sealed session ids are bound to [`Principal::id`], not to the bytes of a key.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The holder of the master key.
    Master,
    /// The holder of a virtual key.
    Key(Arc<VirtualKey>),
    /// Anybody, where no master key is configured.
    Anyone,
    /// Whoever calls servers that all judge their callers themselves. Known to nobody, so nothing is kept for it.
    Delegated,
}

impl Principal {
    /// A stable name; distinct principals have distinct ones.
    pub fn id(&self) -> &[u8] {
        match self {
            Self::Master => b"master",
            Self::Key(key) => key.principal(),
            Self::Anyone => b"anyone",
            Self::Delegated => b"delegated",
        }
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Principal {}

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

    /// The one server, where people bring keys of their own for it.
    fn of_own_keys(self) -> Option<&'t Arc<Server>> {
        match self.servers {
            [server] if self.all_resolved && server.byok().is_some() => Some(server),
            _ => None,
        }
    }

    /// The refusal, with where a client can sign in instead of showing a key.
    fn with_sign_in(self, refusal: Refusal, error: Option<&'static str>) -> Refusal {
        let Some(server) = self.of_own_keys() else {
            return refusal;
        };
        refusal.with_sign_in(Wanted {
            server: server.name.clone(),
            realm: Some(fields::REALM),
            error,
            ..Wanted::default()
        })
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
    /// Who holds the master key, where they said so.
    holder: Option<UserId>,
    /// The header that the key stood in.
    header: Option<HeaderName>,
}

/// Decides who may come in.
#[derive(Debug)]
pub struct Gate {
    master: Option<Key>,
    /// Said when another master key counts, or one at all where none did.
    rekeyed: Arc<Ending<()>>,
    /// The operator's own header for the key; it counts first.
    key_header: Option<HeaderName>,
    keys: Arc<Keys>,
    sessions: Arc<ServerSessions>,
}

#[derive(Debug)]
struct Key {
    text: SecretString,
    digest: [u8; 32],
}

impl Gate {
    /// A gate for this master key and these virtual keys; without a master key everybody is admitted. `key_header` is a
    /// further header for the key. `sessions` stand for keys at single servers.
    pub fn new(
        master_key: Option<SecretString>,
        key_header: Option<HeaderName>,
        keys: Arc<Keys>,
        sessions: Arc<ServerSessions>,
    ) -> Self {
        Self {
            key_header,
            keys,
            sessions,
            rekeyed: Arc::default(),
            master: master_key.map(|text| Key {
                digest: digest_of(text.expose_secret().as_bytes()),
                text,
            }),
        }
    }

    /// The gate under another configuration.
    #[must_use]
    pub fn next(&self, master_key: Option<SecretString>, key_header: Option<HeaderName>) -> Self {
        let (keys, sessions) = (Arc::clone(&self.keys), Arc::clone(&self.sessions));
        let mut next = Self::new(master_key, key_header, keys, sessions);
        let digest = |gate: &Self| gate.master.as_ref().map(|master| master.digest);
        if digest(&next) == digest(self) {
            next.rekeyed = Arc::clone(&self.rekeyed);
        }
        next
    }

    /// What began with a master key, or without one, is over where `next` has another.
    pub fn give_way_to(&self, next: &Self) {
        if !Arc::ptr_eq(&self.rekeyed, &next.rekeyed) {
            self.rekeyed.say(());
        }
    }

    /// Resolves when what `principal` began is over. `now` is in seconds since 1970.
    pub fn over(&self, principal: &Principal, now: u64) -> BoxFuture<'static, ()> {
        match principal {
            Principal::Key(key) => key.over(now).boxed(),
            Principal::Master | Principal::Anyone => self.rekeyed.heard().boxed(),
            // The servers judge them, and what they began ends with the servers.
            Principal::Delegated => pending().boxed(),
        }
    }

    /// Who may come in where no server is named: only who has a key.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Admission, Refusal> {
        self.admit_to(headers, Targets::NONE)
    }

    /// Who may come in to `targets`. The one place that admits without a key, before any key is looked at: where all
    /// targets judge their callers themselves and the request shows no key of ours. No failure of a key leads here.
    pub fn admit_to(&self, headers: &HeaderMap, targets: Targets<'_>) -> Result<Admission, Refusal> {
        let name = LITELLM_API_KEY;
        let litellm = single(headers, &name)?.map(|value| (&name, value));
        let primary = match &self.key_header {
            Some(name) => single(headers, name)?.map(|value| (name, value)).or(litellm),
            None => litellm,
        };
        let secondary = single(headers, &header::AUTHORIZATION)?;
        // `Authorization` is the servers' own there, unless it is unmistakably ours.
        if targets.all_judge_themselves()
            && primary.is_none()
            && !secondary.is_some_and(|value| self.is_ours(value))
        {
            return Ok(Admission {
                principal: Principal::Delegated,
                presented: None,
                holder: None,
                header: None,
            });
        }
        let admission = self.admit_with_key(primary, secondary, targets)?;
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
        primary: Option<(&HeaderName, &HeaderValue)>,
        secondary: Option<&HeaderValue>,
        targets: Targets<'_>,
    ) -> Result<Admission, Refusal> {
        let presented = primary.map(|(_, value)| value.clone());
        let Some(master) = &self.master else {
            return Ok(Admission {
                principal: Principal::Anyone,
                presented,
                holder: None,
                header: None,
            });
        };
        let authorization = header::AUTHORIZATION;
        let secondary = secondary.map(|value| (&authorization, value));
        let Some((header, value)) = primary.or(secondary) else {
            return Err(targets.with_sign_in(challenge(ErrorCode::MissingKey, None), None));
        };
        if primary.is_none() && server_session::is_one(bare(value.as_bytes())) {
            return self.admit_with_session(value, targets);
        }
        let header = Some(header.clone());
        if master.is(value) {
            return Ok(Admission {
                principal: Principal::Master,
                presented,
                holder: None,
                header,
            });
        }
        if let Some(key) = self.keys.find(bare(value.as_bytes())) {
            note::presented(&key);
            self.keys.take(&key).map_err(challenged)?;
            return Ok(Admission {
                principal: Principal::Key(key),
                presented: Some(value.clone()),
                holder: None,
                header,
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

    /// The holder of a session, which counts for the one server that it was made for.
    fn admit_with_session(&self, value: &HeaderValue, targets: Targets<'_>) -> Result<Admission, Refusal> {
        let error = Some("invalid_token");
        let refused = challenge(ErrorCode::ServerSessionEnded, error);
        let holder = targets.of_own_keys().and_then(|server| {
            let now = self.keys.clock().unix_seconds();
            let text = bare(value.as_bytes());
            self.sessions.open(text, &server.id, now)
        });
        let Some((principal, user)) = holder.and_then(|holder| self.behind(&holder)) else {
            return Err(targets.with_sign_in(refused, error));
        };
        if let Principal::Key(key) = &principal {
            self.keys.take(key).map_err(challenged)?;
        }
        Ok(Admission {
            principal,
            presented: Some(value.clone()),
            holder: Some(user),
            header: Some(header::AUTHORIZATION),
        })
    }

    /// What a session for this caller, as this person, is sealed with.
    pub fn holder(&self, admission: &Admission, user: &UserId) -> Option<Holder> {
        let (key, digest) = match &admission.principal {
            Principal::Master => (None, self.master.as_ref()?.digest),
            Principal::Key(key) => (Some(key.id.clone()), self.keys.with_digest(&key.id)?.0),
            Principal::Anyone | Principal::Delegated => return None,
        };
        let user = user.as_str().to_owned();
        Some(Holder { key, digest, user })
    }

    /// Who is behind a holder now: nobody, once the key is another one or another person's, or the person is blocked.
    pub fn behind(&self, holder: &Holder) -> Option<(Principal, UserId)> {
        let user = holder.user_id()?;
        let Some(id) = &holder.key else {
            let counts = self.master.as_ref()?.digest == holder.digest && !self.keys.is_blocked(&user);
            return counts.then_some((Principal::Master, user));
        };
        let (digest, key) = self.keys.with_digest(id)?;
        let counts = digest == holder.digest && key.user.as_ref() == Some(&user);
        (counts && key.counts(self.keys.clock().unix_seconds())).then_some((Principal::Key(key), user))
    }

    /// A session for `holder` at `server`, from now on.
    pub fn session(&self, holder: &Holder, server: &Server) -> Option<SecretString> {
        let now = self.keys.clock().unix_seconds();
        self.sessions.seal(holder, &server.id, now)
    }

    /// What stands for keys at single servers.
    pub fn sessions(&self) -> &Arc<ServerSessions> {
        &self.sessions
    }

    /// Whether a value is a gateway key, and can be nothing else.
    fn is_ours(&self, value: &HeaderValue) -> bool {
        server_session::is_one(bare(value.as_bytes()))
            || self.master.as_ref().is_some_and(|master| master.is(value))
            || self.keys.find(bare(value.as_bytes())).is_some()
    }

    /// Who holds this key, typed in by a person.
    ///
    /// # Errors
    /// [`ErrorCode::WrongKey`] for a text that is no key; where it is one that does not count, the reason.
    pub fn holder_of(&self, key: &SecretString) -> Result<Principal, Refusal> {
        let text = key.expose_secret().trim().as_bytes();
        if self.master.as_ref().is_some_and(|master| master.is_text(text)) {
            return Ok(Principal::Master);
        }
        match self.keys.find(text) {
            Some(key) if self.master.is_some() => {
                self.keys.judge(&key)?;
                Ok(Principal::Key(key))
            }
            _ => Err(Refusal::new(ErrorCode::WrongKey)),
        }
    }

    /// The digest of the text of the key that makes somebody this principal; another one once the key is another.
    pub fn digest_of<'g>(&'g self, principal: &'g Principal) -> Option<&'g [u8; 32]> {
        match principal {
            Principal::Master => self.master.as_ref().map(|master| &master.digest),
            Principal::Key(key) => Some(key.digest()),
            Principal::Anyone | Principal::Delegated => None,
        }
    }

    /// Whether there is a master key, and with it keys at all.
    pub fn asks_for_keys(&self) -> bool {
        self.master.is_some()
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
        let texts = [Some(value.as_bytes()), decoded.as_deref()];
        let is_of_a_caller = |text| self.keys.stand_in(text) || server_session::stands_in(text);
        if texts.into_iter().flatten().any(is_of_a_caller) {
            return true;
        }
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
        self.is_text(bare(value.as_bytes()))
    }

    fn is_text(&self, text: &[u8]) -> bool {
        let digest = digest_of(text);
        constant_time::verify_slices_are_equal(&digest, &self.digest).is_ok()
    }
}

impl Admission {
    /// Somebody who signed in at a page of the gateway: with a key, or with the master key as this person.
    pub fn of_session(principal: Principal, holder: Option<UserId>) -> Self {
        Self {
            principal,
            presented: None,
            holder,
            header: None,
        }
    }

    /// The header that the key stood in, where it stood in one.
    pub fn header(&self) -> Option<&HeaderName> {
        self.header.as_ref()
    }

    /// The person, where one is known.
    pub fn user(&self) -> Option<&UserId> {
        match &self.principal {
            Principal::Key(key) => key.user.as_ref(),
            Principal::Master => self.holder.as_ref(),
            Principal::Anyone | Principal::Delegated => None,
        }
    }

    /// Where `server` is, for this caller's eyes: its place in the network is not for whoever comes in without a key.
    pub fn address_of(&self, server: &Server) -> String {
        match self.principal {
            Principal::Delegated => "(hidden)".into(),
            Principal::Master | Principal::Key(_) | Principal::Anyone => server.endpoint.shown(),
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

/// A refusal of a key that is known: nothing that a sign-in would mend.
fn challenged(refusal: Refusal) -> Refusal {
    if refusal.code.status() != StatusCode::UNAUTHORIZED {
        return refusal;
    }
    let with_challenge = challenge(refusal.code, Some("invalid_token"));
    Refusal {
        header: with_challenge.header,
        ..refusal
    }
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
    use crate::clock::Clock;
    use std::collections::HashMap;
    use vestibule_store::MasterKeys;

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

    fn gate_for(master: Option<&str>) -> Gate {
        let (clock, _) = Clock::manual();
        let master_keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let sessions = Arc::new(ServerSessions::new(&master_keys));
        Gate::new(master.map(Into::into), None, Arc::new(Keys::new(clock)), sessions)
    }

    fn code(pairs: &[(&str, &str)]) -> Option<ErrorCode> {
        let gate = gate_for(Some("sk-1234567890"));
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
        let gate = gate_for(Some("sk-1234567890"));
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
        let gate = gate_for(Some("sk-1234567890"));
        let admission = gate.admit(&headers(&[(KEY, "sk-1234567890")])).expect("admitted");
        let carries = |value: &'static str| gate.carries_key(&admission, &HeaderValue::from_static(value));
        assert!(carries("Bearer sk-1234567890") && carries("x=sk-1234567890;y") && !carries("sk-123456789"));
        let open = gate_for(None);
        let admission = open.admit(&headers(&[(KEY, "Bearer sk-abc")])).expect("admitted");
        assert!(open.carries_key(&admission, &HeaderValue::from_static("Bearer sk-abc")));
        assert!(!open.carries_key(&admission, &HeaderValue::from_static("Bearer other")));
    }
}

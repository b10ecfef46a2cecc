//! A sign-in between `authorize` and `callback`: sealed into a cookie of the person's browser, under a name that
//! the provider's `state` gives. So `state` is short, any replica can go on, nothing is stored, and what comes
//! back counts only in the browser that left.

use crate::web::cookie;
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vestibule_store::keys::{KeyRing, MasterKeys};

/// How long a person may take at the provider.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// The longest cookie that every browser keeps, name and attributes included.
const COOKIE_LIMIT: usize = 3800;
const PATH: &str = "/callback";

/// What has to be known when the provider sends the person back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flow {
    /// The server's id.
    #[serde(rename = "s")]
    pub(super) server: String,
    /// The client's redirect URI, as it was judged.
    #[serde(rename = "r")]
    pub(super) redirect_uri: String,
    /// Digest of the client's id.
    #[serde(rename = "d")]
    pub(super) client: String,
    /// The client's PKCE challenge.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) challenge: Option<String>,
    /// The client's own `state`.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) client_state: Option<String>,
    /// Our issuer identifier as the client knows it, for `iss` (RFC 9207).
    #[serde(rename = "i")]
    pub(super) issuer: String,
    /// The provider's issuer identifier, if it is known.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) upstream_issuer: Option<String>,
    /// Whether the provider's metadata promises `iss`.
    #[serde(rename = "p", default)]
    pub(super) iss_promised: bool,
    /// Who may be shown what comes of it; see [`super::upstream::UpstreamEndpoints::authority`].
    #[serde(rename = "a")]
    pub(super) authority: String,
    /// Where the server is, as what comes of it goes nowhere else; see [`crate::net::transport::Endpoint::place`].
    #[serde(rename = "l", default)]
    pub(super) place: String,
    /// By what id the record has this sign-in: its first request's.
    #[serde(rename = "f", default)]
    pub(super) id: String,
    /// Who began it, where that was known; for the record alone.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub(super) person: Option<String>,
}

/// Seals and opens flows.
pub(super) struct Flows {
    ring: KeyRing,
}

/// A flow that has begun.
pub(super) struct Begun {
    /// `state` for the provider: 43 characters.
    pub(super) state: String,
    /// The `Set-Cookie` that keeps the flow.
    pub(super) cookie: HeaderValue,
}

impl Flows {
    /// With a ring for this purpose alone.
    pub(super) fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("oauth-flow"),
        }
    }

    /// Seals a flow. `None` when it is too long for a cookie.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(clippy::expect_used, reason = "without randomness no state is unguessable")]
    pub(super) fn begin(&self, flow: &Flow, now: u64, secure: bool) -> Option<Begun> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).expect("the system gives random bytes");
        let state = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let payload = serde_json::to_vec(flow).ok()?;
        let sealed = self
            .ring
            .seal(&payload, now + LIFETIME.as_secs(), &[state.as_bytes()])
            .filter(|sealed| sealed.len() <= COOKIE_LIMIT)?;
        let cookie = cookie::set(&cookie_name(&state)?, &sealed, PATH, LIFETIME, secure)?;
        Some(Begun { state, cookie })
    }

    /// The flow of `state`, if this browser began it and it is not over.
    pub(super) fn resume(&self, state: &str, headers: &HeaderMap, now: u64) -> Option<Flow> {
        let sealed = cookie::get(headers, &cookie_name(state)?)?;
        let payload = self.ring.open(sealed.as_bytes(), now, &[state.as_bytes()])?;
        serde_json::from_slice(&payload).ok()
    }

    /// The `Set-Cookie` that ends the flow of `state`, so that it counts once.
    pub(super) fn end(state: &str, secure: bool) -> Option<HeaderValue> {
        cookie::set(&cookie_name(state)?, "", PATH, Duration::ZERO, secure)
    }
}

/// A name of its own for each flow: a person may sign in to several servers at once.
fn cookie_name(state: &str) -> Option<String> {
    let name = state.get(..16)?;
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    plain.then(|| format!("vestibule_signin_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use std::collections::HashMap;

    fn flow() -> Flow {
        Flow {
            server: "id".into(),
            redirect_uri: "http://localhost:1/cb".into(),
            client: "d".into(),
            challenge: None,
            client_state: Some("s".into()),
            issuer: "http://gw/a".into(),
            upstream_issuer: None,
            iss_promised: false,
            authority: "https://as.example".into(),
            place: "https://mcp.example".into(),
            id: "f".into(),
            person: Some("ada".into()),
        }
    }

    fn headers(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().expect("text").split(';').next().expect("pair");
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(pair).expect("value"))])
    }

    #[test]
    fn a_flow_counts_for_its_state_its_browser_and_ten_minutes() {
        let flows = Flows::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"));
        let begun = flows.begin(&flow(), 100, true).expect("begun");
        assert_eq!(begun.state.len(), 43);
        let headers = headers(&begun.cookie);
        assert_eq!(flows.resume(&begun.state, &headers, 699), Some(flow()));
        assert_eq!(flows.resume(&begun.state, &headers, 700), None);
        assert_eq!(flows.resume(&begun.state, &HeaderMap::new(), 100), None);
        // The same cookie name, another state.
        let mut other = begun.state.clone();
        other.replace_range(42.., "_");
        other.replace_range(41..42, "_");
        assert_eq!(flows.resume(&other, &headers, 100), None);
        for nonsense in ["", "short", "ééééééééééééééééé", "a;b=c\r\n0123456789abcdef"] {
            assert_eq!(flows.resume(nonsense, &headers, 100), None);
        }
        let long = Flow {
            client_state: Some("x".repeat(4000)),
            ..flow()
        };
        assert!(flows.begin(&long, 100, true).is_none());
    }
}

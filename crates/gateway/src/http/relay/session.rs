//! `Mcp-Session-Id` toward the client: the server's own id, sealed and bound to caller and server. Nothing is
//! stored; any replica with the key ring opens it.

use crate::admission::Principal;
use http::HeaderValue;
use vestibule_store::{KeyRing, MasterKeys};

/// Thirty days. A client that comes later starts a new session, as after a 404 of the server's own.
const LIFETIME: u64 = 30 * 24 * 60 * 60;

/// Seals and opens session ids.
pub struct Sessions {
    ring: KeyRing,
}

impl Sessions {
    /// With a ring for this purpose alone.
    pub fn new(keys: &MasterKeys) -> Self {
        Self {
            ring: keys.ring("mcp-session-id"),
        }
    }

    /// The client's id for the server's. `None` for an id that no header can carry sealed.
    pub fn seal(
        &self,
        upstream: &HeaderValue,
        principal: Principal,
        server_id: &str,
        now: u64,
    ) -> Option<HeaderValue> {
        let context = [principal.id(), server_id.as_bytes()];
        let sealed = self.ring.seal(upstream.as_bytes(), now + LIFETIME, &context)?;
        HeaderValue::from_str(&sealed).ok()
    }

    /// The server's id for the client's, if this gateway gave it to this caller for this server.
    pub fn open(
        &self,
        sealed: &HeaderValue,
        principal: Principal,
        server_id: &str,
        now: u64,
    ) -> Option<HeaderValue> {
        let context = [principal.id(), server_id.as_bytes()];
        let upstream = self.ring.open(sealed.as_bytes(), now, &context)?;
        HeaderValue::from_bytes(&upstream).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn another_caller_server_or_time_does_not_open() {
        let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
        let sessions = Sessions::new(&keys);
        let upstream = HeaderValue::from_static("upstream-1");
        let sealed = sessions
            .seal(&upstream, Principal::Master, "one", 100)
            .expect("sealed");
        assert!(!sealed.to_str().expect("text").contains("upstream"));
        let open = |principal, server, now| sessions.open(&sealed, principal, server, now);
        assert_eq!(open(Principal::Master, "one", 100), Some(upstream));
        assert_eq!(open(Principal::Anyone, "one", 100), None);
        assert_eq!(open(Principal::Master, "two", 100), None);
        assert_eq!(open(Principal::Master, "one", 100 + LIFETIME), None);
        let long = HeaderValue::from_str(&"x".repeat(8000)).expect("value");
        assert_eq!(sessions.seal(&long, Principal::Master, "one", 100), None);
    }
}

//! How many requests are taken of what is open to everybody and costs work: registrations, here and, for a new kind of
//! client, at the provider; and beginnings of sign-ins.

use crate::web::limits::{ByAddress, Together, quota};
use governor::Quota;
use std::net::IpAddr;
use vestibule_oauth::error::{OAuthError, OAuthErrorCode};

/// Registrations from one address. Hosted clients come from few addresses.
const REGISTRATIONS: Quota = quota(100, 5);
/// Registrations from all.
const ALL_REGISTRATIONS: Quota = quota(1000, 100);
/// New clients of ours at providers, which keep them.
const NEW_CLIENTS: Quota = quota(60, 1);
/// Sign-ins begun from one address, which a whole office may share.
const SIGN_INS: Quota = quota(300, 20);

/// Counts what comes from outside.
pub(super) struct Flood {
    registrations: ByAddress,
    all_registrations: Together,
    sign_ins: ByAddress,
}

impl Flood {
    /// With nobody counted yet.
    pub(super) fn new() -> Self {
        Self {
            registrations: ByAddress::new(REGISTRATIONS),
            all_registrations: Together::new(ALL_REGISTRATIONS),
            sign_ins: ByAddress::new(SIGN_INS),
        }
    }

    /// Takes one registration from this address, or says that there are too many.
    pub(super) fn admit_registration(&self, address: IpAddr) -> Result<(), OAuthError> {
        if self.registrations.admits(address) && self.all_registrations.admits() {
            return Ok(());
        }
        let text = "There are too many registrations just now; keep the client_id that you have, or try again later.";
        Err(OAuthError::new(OAuthErrorCode::TemporarilyUnavailable, text).with_status(429))
    }

    /// Whether one more sign-in may begin from this address.
    pub(super) fn admits_sign_in(&self, address: IpAddr) -> bool {
        self.sign_ins.admits(address)
    }
}

/// The limit of new clients at providers.
pub(super) fn of_new_clients() -> Together {
    Together::new(NEW_CLIENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_limited_and_the_others_are_not() {
        let flood = Flood::new();
        let one: IpAddr = "2001:db8::1".parse().expect("address");
        let same: IpAddr = "2001:db8::ffff".parse().expect("address");
        let other: IpAddr = "2001:db8:0:1::1".parse().expect("address");
        let taken = (0..2000)
            .filter(|_| flood.admit_registration(one).is_ok())
            .count();
        assert!((100..200).contains(&taken), "{taken}");
        assert_eq!(flood.admit_registration(same).expect_err("limited").status(), 429);
        assert!(flood.admit_registration(other).is_ok());
    }

    #[test]
    fn an_office_may_begin_many_sign_ins() {
        let flood = Flood::new();
        let office: IpAddr = "192.0.2.1".parse().expect("address");
        let begun = (0..2000).filter(|_| flood.admits_sign_in(office)).count();
        assert!((300..600).contains(&begun), "{begun}");
        assert!(flood.admits_sign_in("192.0.2.2".parse().expect("address")));
        // They are no registrations.
        assert!(flood.admit_registration(office).is_ok());
    }
}

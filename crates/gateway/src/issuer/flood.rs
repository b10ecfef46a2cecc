//! How many requests are taken of what is open to everybody and costs work: registrations, here and, for a new kind of
//! client, at the provider; and beginnings of sign-ins.

use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use vestibule_oauth::error::{OAuthError, OAuthErrorCode};

/// So many at once, and then so many a second.
type Limit = (NonZeroU32, NonZeroU32);

/// Registrations from one address. Hosted clients come from few addresses.
const REGISTRATIONS: Limit = (nonzero(100), nonzero(5));
/// Registrations from all.
const ALL_REGISTRATIONS: Limit = (nonzero(1000), nonzero(100));
/// New clients of ours at providers, which keep them.
const NEW_CLIENTS: Limit = (nonzero(60), nonzero(1));
/// Sign-ins begun from one address, which a whole office may share.
const SIGN_INS: Limit = (nonzero(300), nonzero(20));
/// After so many requests, addresses that are quiet again are forgotten.
const SWEEP_EVERY: u32 = 1024;

const fn nonzero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

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

/// One limit for everybody together.
pub(super) struct Together(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl Together {
    fn new(limit: Limit) -> Self {
        Self(RateLimiter::direct(quota(limit)))
    }

    /// For new clients at providers.
    pub(super) fn of_new_clients() -> Self {
        Self::new(NEW_CLIENTS)
    }

    /// Takes one more, if there may be.
    pub(super) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// A limit for each address.
struct ByAddress {
    addresses: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
    count: AtomicU32,
}

impl ByAddress {
    fn new(limit: Limit) -> Self {
        Self {
            addresses: RateLimiter::dashmap(quota(limit)),
            count: AtomicU32::new(0),
        }
    }

    fn admits(&self, address: IpAddr) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.addresses.retain_recent();
        }
        self.addresses.check_key(&household(address)).is_ok()
    }
}

fn quota((burst, rate): Limit) -> Quota {
    Quota::per_second(rate).allow_burst(burst)
}

/// One customer has at least a /64 of IPv6.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
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

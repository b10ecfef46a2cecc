//! Limits on what is open to everybody: for each address, and for all together. They keep no order and no queue: who
//! comes too often is told so.

use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

/// After so many requests, addresses that are quiet again are forgotten.
const SWEEP_EVERY: u32 = 1024;

/// So many at once, and then so many a second.
pub const fn quota(burst: u32, rate: u32) -> Quota {
    Quota::per_second(nonzero(rate)).allow_burst(nonzero(burst))
}

/// So many at once, and then so many a minute.
pub const fn quota_a_minute(burst: u32, rate: u32) -> Quota {
    Quota::per_minute(nonzero(rate)).allow_burst(nonzero(burst))
}

const fn nonzero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// One limit for everybody together.
pub struct Together(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl Together {
    /// With nothing taken yet.
    pub fn new(quota: Quota) -> Self {
        Self(RateLimiter::direct(quota))
    }

    /// Takes one more, if there may be.
    pub fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// A limit for each address.
pub struct ByAddress {
    addresses: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
    count: AtomicU32,
}

impl ByAddress {
    /// With nobody counted yet.
    pub fn new(quota: Quota) -> Self {
        Self {
            addresses: RateLimiter::dashmap(quota),
            count: AtomicU32::new(0),
        }
    }

    /// Takes one more from this address, if there may be.
    pub fn admits(&self, address: IpAddr) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.addresses.retain_recent();
        }
        self.addresses.check_key(&household(address)).is_ok()
    }
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

//! Failed attempts by address: whoever guesses is slowed down and fills no memory. What goes on
//! record of them is the audit log's own ([`scan::audit::Denials`]).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use world::Timestamp;

/// Failed attempts of one address within [`WINDOW`] that are answered as such: a person who pastes the
/// wrong token needs a handful.
const FAILURES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted at a time, 64 bytes each. Beyond it those of past windows go; when there
/// are none, all count as one.
const SOURCES_MAX: usize = 4096;
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    sources: HashMap<Option<IpAddr>, Failures>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Failures {
    fn add(&mut self, now: Timestamp) -> u32 {
        if now >= self.since.plus(WINDOW) || now < self.since {
            *self = Self {
                since: now,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

/// An IPv6 network of one subscriber counts as one address.
fn source(peer: Option<IpAddr>) -> Option<IpAddr> {
    peer.map(|peer| match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    })
}

impl Attempts {
    /// Counts a failed attempt; the seconds to wait where there were too many.
    pub(super) fn failed(&self, peer: Option<IpAddr>, now: Timestamp) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = source(peer);
        if !counted.sources.contains_key(&source) && counted.sources.len() >= SOURCES_MAX {
            counted
                .sources
                .retain(|_, failures| now < failures.since.plus(WINDOW));
            if counted.sources.len() >= SOURCES_MAX {
                source = None;
            }
        }
        let failures = counted.sources.entry(source).or_default();
        if failures.add(now) <= FAILURES_MAX {
            return None;
        }
        let left = failures.since.plus(WINDOW).nanos() - now.nanos();
        Some(left.div_ceil(1_000_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

    #[test]
    fn an_address_may_fail_so_often_in_a_minute_and_then_waits() {
        let attempts = Attempts::default();
        let one = Some(IpAddr::from([10, 0, 0, 1]));
        for _ in 0..FAILURES_MAX {
            assert_eq!(attempts.failed(one, START), None);
        }
        assert_eq!(attempts.failed(one, START), Some(60));
        let other = Some(IpAddr::from([10, 0, 0, 2]));
        assert_eq!(attempts.failed(other, START), None);
        assert_eq!(attempts.failed(one, START.plus(WINDOW)), None);
    }

    #[test]
    fn the_addresses_of_one_network_count_as_one_and_the_table_is_bounded() {
        let attempts = Attempts::default();
        for host in 0..u16::try_from(FAILURES_MAX).unwrap() {
            let peer = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, host);
            assert_eq!(attempts.failed(Some(peer.into()), START), None);
        }
        let more = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 9, 9, 9, 9);
        assert!(attempts.failed(Some(more.into()), START).is_some());
        for host in 0..2 * u32::try_from(SOURCES_MAX).unwrap() {
            attempts.failed(Some(std::net::Ipv4Addr::from(host).into()), START);
        }
        assert!(attempts.0.lock().unwrap().sources.len() <= SOURCES_MAX + 1);
    }
}

//! Who was refused here, and why: for the status and, once each, for the log.
//!
//! Strangers decide how often they call. So the list has a length, the same caller with the same cause is
//! one entry with a count, and the log takes so many lines a minute and no more.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use crate::machine::NodeId;

/// Callers that are remembered; the one that was quiet for longest goes. A handful of nodes does not come
/// to so many, and a status with more is not read.
const REMEMBERED_MAX: usize = 16;
/// Lines of the log in a minute: a person reads the first ones.
const TOLD_MAX: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);

/// A caller that was refused, or whose connection was closed by what came over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub address: IpAddr,
    /// Whose certificate it showed or, where it came that far, who it said it was.
    pub node: Option<NodeId>,
    pub cause: String,
    pub count: u64,
    /// Since the last time.
    pub ago: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Each with when last, on the transport's clock.
    known: VecDeque<(Refused, Duration)>,
    told: VecDeque<Duration>,
}

impl Refusals {
    /// Whether the log is to be told.
    pub(super) fn note(
        &mut self,
        address: IpAddr,
        node: Option<NodeId>,
        cause: String,
        now: Duration,
    ) -> bool {
        let is_same = |(it, _): &(Refused, Duration)| {
            (it.address, it.node, &it.cause) == (address, node, &cause)
        };
        if let Some(index) = self.known.iter().position(is_same) {
            let (mut refused, _) = self.known.remove(index).expect("it was found there");
            refused.count += 1;
            self.known.push_back((refused, now));
            return false;
        }
        if self.known.len() >= REMEMBERED_MAX {
            self.known.pop_front();
        }
        let refused = Refused {
            address,
            node,
            cause,
            count: 1,
            ago: Duration::ZERO,
        };
        self.known.push_back((refused, now));
        while self
            .told
            .front()
            .is_some_and(|told| now.saturating_sub(*told) >= MINUTE)
        {
            self.told.pop_front();
        }
        let is_told = self.told.len() < TOLD_MAX;
        if is_told {
            self.told.push_back(now);
        }
        is_told
    }

    /// The newest first.
    pub(super) fn all(&self, now: Duration) -> Vec<Refused> {
        let newest_first = self.known.iter().rev();
        newest_first
            .map(|(refused, at)| Refused {
                ago: now.saturating_sub(*at),
                ..refused.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_flood_of_callers_fills_neither_the_list_nor_the_log() {
        let mut refusals = Refusals::default();
        let mut told = 0;
        for number in 0..1000 {
            let now = Duration::from_millis(number);
            told += usize::from(refusals.note(HERE, None, format!("cause {number}"), now));
            assert!(
                !refusals.note(HERE, None, format!("cause {number}"), now),
                "told once"
            );
        }
        assert_eq!(told, TOLD_MAX);
        let all = refusals.all(MINUTE);
        assert_eq!(all.len(), REMEMBERED_MAX);
        assert_eq!((all[0].cause.as_str(), all[0].count), ("cause 999", 2));
        assert!(refusals.note(HERE, None, "later".to_owned(), MINUTE * 2));
    }
}

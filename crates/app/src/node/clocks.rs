//! How far the clocks of the other nodes are from this one's, as they say themselves with every other word.
//!
//! Nothing that is promised hangs on it: silence and leases are measured on a monotonic clock, and commits are
//! dated in order whoever writes. But what is recorded is dated by the node that writes, and schedules go by it:
//! so it is told, and not put right.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use replica::machine::NodeId;
use world::{Clock as _, RealClock, Timestamp};

/// From here on a clock is said to be off. A word takes less than a second to be heard. Arbitrary.
const OFF: Duration = Duration::from_secs(10);

/// Nanoseconds that each of the others was ahead of this one when it was heard last.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<BTreeMap<NodeId, i64>>);

impl Clocks {
    /// `peer` said that it is `theirs` there. `Some` is new: by how many seconds that is ahead, or that it is right
    /// again.
    pub(super) fn heard(&self, peer: NodeId, theirs: Timestamp) -> Option<Option<i64>> {
        let ahead = ahead(theirs, RealClock::new().now());
        let before = self.all().insert(peer, ahead);
        let (before, now) = (before.and_then(off), off(ahead));
        (before.is_some() != now.is_some()).then_some(now)
    }

    /// Whole seconds that the clock of `peer` is ahead, where that is worth a word.
    pub(super) fn off(&self, peer: NodeId) -> Option<i64> {
        self.all().get(&peer).copied().and_then(off)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<NodeId, i64>> {
        self.0
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

fn ahead(theirs: Timestamp, ours: Timestamp) -> i64 {
    let ahead = i128::from(theirs.nanos()) - i128::from(ours.nanos());
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

fn off(ahead: i64) -> Option<i64> {
    let is_off = Duration::from_nanos(ahead.unsigned_abs()) >= OFF;
    is_off.then_some(ahead / 1_000_000_000)
}

/// In the words of whoever reads `group status`.
pub(super) fn text(node: &str, ahead: i64) -> String {
    let seconds = ahead.unsigned_abs();
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    format!(
        "the clock of {node} is {seconds} s {side} this node's: what is recorded is dated by the one that writes; \
         set both by a time service (NTP)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_to_be_off_once_and_to_be_right_again_once() {
        let clocks = Clocks::default();
        let (peer, hour) = (NodeId(2), 3_600_000_000_000);
        let now = RealClock::new().now().nanos();
        assert_eq!(clocks.heard(peer, Timestamp::from_nanos(now)), None);
        assert_eq!(clocks.off(peer), None);
        let later = Timestamp::from_nanos(now + hour + 500_000_000);
        assert_eq!(clocks.heard(peer, later), Some(Some(3600)));
        assert_eq!(clocks.heard(peer, later), None);
        assert_eq!(clocks.off(peer), Some(3600));
        assert_eq!(clocks.off(NodeId(3)), None);
        assert_eq!(clocks.heard(peer, Timestamp::from_nanos(now)), Some(None));
        let earlier = Timestamp::from_nanos(now - hour);
        assert!(clocks.heard(peer, earlier).unwrap().unwrap() <= -3600);
        assert!(clocks.heard(peer, Timestamp::from_nanos(0)).is_none());
        assert!(
            clocks
                .heard(peer, Timestamp::from_nanos(u64::MAX))
                .is_none()
        );
    }
}

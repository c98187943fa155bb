//! What compaction may drop.
//!
//! Versions of a key arrive newest first. For reads at or above the floor, the newest version at
//! or below the floor is still seen and everything older of that key is not. Dropping those older
//! ones is right at any level: the newer one stays, and hides whatever lies deeper. A deletion at
//! or below the floor goes only when nothing deeper can be uncovered: at the last level.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lsm_tree::{
    Slice,
    compaction::{CompactionFilter, Factory, ItemAccessor, Verdict, filter::Context},
};
use world::Timestamp;

use crate::tree;

/// What the floor of a tree means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A position: older versions of a key than the newest one at or below it go.
    Versions,
    /// A position: whatever was written below it goes.
    Before,
    /// A time: values that start with an earlier one go.
    Dated,
    /// A position: whatever was written above it goes, because it never was, or comes again.
    Above,
}

/// Makes one [`Sweeper`] for each compaction.
pub(crate) struct Sweep {
    rule: Rule,
    floor: Arc<AtomicU64>,
}

impl Sweep {
    pub(crate) fn new(rule: Rule, floor: Arc<AtomicU64>) -> Self {
        Self { rule, floor }
    }
}

impl Factory for Sweep {
    fn name(&self) -> &str {
        "sweep"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Sweeper {
            rule: self.rule,
            floor: self.floor.load(Ordering::Acquire),
            key: None,
        })
    }
}

struct Sweeper {
    rule: Rule,
    floor: u64,
    /// The key of which a version at or below the floor has passed.
    key: Option<Slice>,
}

impl Sweeper {
    /// True when the version may go.
    fn drops(&mut self, key: &Slice, stored: &[u8], last_level: bool) -> Option<bool> {
        let (lsn, live) = tree::split(stored)?;
        Some(match self.rule {
            Rule::Above => lsn.get() > self.floor,
            Rule::Before => lsn.get() < self.floor,
            Rule::Dated => dated(stored)?.nanos() < self.floor,
            Rule::Versions if lsn.get() > self.floor => false,
            Rule::Versions if self.key.as_ref() == Some(key) => true,
            Rule::Versions => {
                self.key = Some(key.clone());
                !live && last_level
            }
        })
    }
}

impl CompactionFilter for Sweeper {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        context: &Context,
    ) -> lsm_tree::Result<Verdict> {
        let stored = item.value()?;
        match self.drops(item.key(), &stored, context.is_last_level) {
            Some(true) => Ok(Verdict::Destroy),
            Some(false) => Ok(Verdict::Keep),
            None => Err(lsm_tree::Error::Unrecoverable),
        }
    }
}

/// The time at the start of a dated value.
fn dated(stored: &[u8]) -> Option<Timestamp> {
    let value = stored.get(tree::VERSION_LEN..)?;
    let nanos = u64::from_le_bytes(*value.first_chunk()?);
    Some(Timestamp::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version is its key, LSN and whether it is live; kept ones come out.
    fn check(floor: u64, last_level: bool, versions: &[(&str, u64, bool)], kept: &[u64]) {
        let mut sweeper = Sweeper {
            rule: Rule::Versions,
            floor,
            key: None,
        };
        let mut keep = |(key, lsn, live): &(&str, u64, bool)| {
            let stored = (lsn << 1 | u64::from(*live)).to_le_bytes();
            let drops = sweeper.drops(&Slice::from(*key), &stored, last_level);
            (!drops.unwrap()).then_some(*lsn)
        };
        let found: Vec<_> = versions.iter().filter_map(&mut keep).collect();
        assert_eq!(found, kept, "{versions:?} swept below {floor}");
    }

    #[test]
    fn what_no_read_at_or_above_the_floor_sees_goes_and_nothing_else() {
        let versions = [
            ("a", 9, true),
            ("a", 7, true),
            ("a", 3, true),
            ("b", 2, true),
        ];
        check(0, true, &versions, &[9, 7, 3, 2]);
        check(3, true, &versions, &[9, 7, 3, 2]);
        check(6, true, &versions, &[9, 7, 3, 2]);
        check(7, true, &versions, &[9, 7, 2]);
        check(8, true, &versions, &[9, 7, 2]);
        check(9, true, &versions, &[9, 2]);
        check(99, false, &versions, &[9, 2]);
    }

    #[test]
    fn a_deletion_goes_only_where_nothing_deeper_can_come_back() {
        let versions = [
            ("a", 9, true),
            ("a", 7, false),
            ("a", 3, true),
            ("b", 2, false),
        ];
        check(8, false, &versions, &[9, 7, 2]);
        check(8, true, &versions, &[9]);
        check(6, true, &versions, &[9, 7, 3]);
        check(1, true, &versions, &[9, 7, 3, 2]);
    }

    #[test]
    fn a_value_too_short_for_its_version_is_told() {
        let mut sweeper = Sweeper {
            rule: Rule::Dated,
            floor: 1,
            key: None,
        };
        assert_eq!(sweeper.drops(&Slice::from("a"), &[1; 7], true), None);
        assert_eq!(sweeper.drops(&Slice::from("a"), &[1; 15], true), None);
        assert_eq!(sweeper.drops(&Slice::from("a"), &[0; 16], true), Some(true));
    }
}

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

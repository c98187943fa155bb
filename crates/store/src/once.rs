//! Idempotency keys: which commit a request with a key led to.

use std::{sync::Arc, time::Duration};

use lsm_tree::Slice;
use world::Timestamp;

use crate::{
    Commit, Error, Kind,
    tree::{Memory, Tree},
};

/// From key to the time of its commit; the position is the entry's own.
pub(crate) struct OnceKeys {
    tree: Arc<Tree>,
    keep: Duration,
}

impl OnceKeys {
    pub(crate) fn new(tree: Arc<Tree>, keep: Duration) -> Self {
        Self { tree, keep }
    }

    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(crate) fn record(memory: &Memory, key: &Slice, commit: Commit) {
        memory.set(key, Some(&commit.time.nanos().to_le_bytes()), commit.lsn);
    }

    /// The commit that first used `key`, unless that is longer ago than keys are kept. Age is
    /// counted in commit times, so two stores with the same commits answer the same.
    pub(crate) fn outcome(&self, key: &[u8], visible: Commit) -> Result<Option<Commit>, Error> {
        let Some(found) = self.tree.find(key, visible.lsn)? else {
            return Ok(None);
        };
        let nanos = found.value.and_then(|value| (*value).try_into().ok());
        let Some(nanos) = nanos else {
            let message = "the index of idempotency keys holds an entry of the wrong length";
            return Err(Error::new(Kind::Corrupt, message));
        };
        let time = Timestamp::from_nanos(u64::from_le_bytes(nanos));
        let lsn = found.lsn;
        Ok((time >= self.expired_before(visible.time)).then_some(Commit { lsn, time }))
    }

    /// Keys of commits before this are forgotten.
    pub(crate) fn expired_before(&self, now: Timestamp) -> Timestamp {
        now.minus(self.keep)
    }
}

//! [`Bound`]: the journal of a group as one owner of derived state writes it, under one epoch.
//!
//! Whoever leads has applied everything that was written before its epoch, and nothing that others write
//! after it. An authority that goes to another node and comes back is another one: what was written in
//! between is missing here, and an append on top of it would make two histories of the same log. So each
//! append names the epoch that it relies on, and the machine refuses it under any other.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use wal::{Appended, Epoch, Error, Identity, Journal, Kind, Lsn, Pin, RecordKind, Records};

use super::Group;

/// Bound to none: no node holds epoch zero.
const NONE: u64 = 0;

/// Appends under the epoch it is bound to, and reads as the group does.
pub struct Bound {
    group: Arc<Group>,
    under: AtomicU64,
}

impl Bound {
    pub fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            under: AtomicU64::new(NONE),
        }
    }

    /// What is appended from here on relies on `epoch`. Not to be called once the owner leads.
    pub fn bind(&self, epoch: Epoch) {
        self.under.store(epoch.0, Ordering::Release);
    }
}

impl Journal for Bound {
    fn identity(&self) -> Identity {
        self.group.identity()
    }

    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, Error> {
        match self.under.load(Ordering::Acquire) {
            NONE => {
                let message = "cannot append: whoever appends holds no epoch";
                Err(Error::new(Kind::Fenced, message))
            }
            under => self.group.append_under(records, Some(Epoch(under))),
        }
    }

    fn safe_point(&self) -> Lsn {
        self.group.safe_point()
    }

    fn first_retained(&self) -> Lsn {
        self.group.first_retained()
    }

    fn read(&self, from: Lsn) -> Result<Records<'_>, Error> {
        self.group.read(from)
    }

    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.group.wait_above(seen, timeout)
    }

    fn pin(&self, from: Lsn) -> Result<Pin, Error> {
        self.group.pin(from)
    }

    fn milestones(&self, from: Lsn) -> Vec<(Lsn, u64)> {
        self.group.milestones(from)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), Error> {
        self.group.release_below(keep_from)
    }

    fn settle(&self) -> Result<(), Error> {
        self.group.settle()
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("group", &self.group)
            .field("under", &self.under)
            .finish()
    }
}

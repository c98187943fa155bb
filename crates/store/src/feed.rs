//! Every commit, in order, from any position that the journal still has.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use wal::{Lsn, Pin};

use crate::{Bytes, Commit, Error, Kind, TableId, local::Inner, record};

/// Commits read ahead: amortises finding a place in the journal, and bounds memory together with
/// [`AHEAD_BYTES_MAX`]. Arbitrary.
const AHEAD_MAX: usize = 256;
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// One commit and what it changed, by table and key.
#[derive(Clone, Debug)]
pub struct Committed {
    pub commit: Commit,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub table: TableId,
    pub key: Bytes,
    /// `None` when the key was deleted.
    pub value: Option<Bytes>,
}

/// Commits in order of their positions. As an iterator it ends at what is visible, and goes on
/// when asked again later. Holds the journal from its place on until it is dropped. To resume after
/// a restart, keep the position of the last commit that was dealt with and start one above; a
/// commit that was dealt with but not kept is then seen again, with the same position.
pub struct Feed {
    inner: Arc<Inner>,
    pin: Pin,
    /// Position of the next record to read.
    next: Lsn,
    ahead: VecDeque<Committed>,
}

impl Feed {
    pub(crate) fn new(inner: Arc<Inner>, from: Lsn) -> Result<Self, Error> {
        let from = from.max(Lsn::FIRST);
        let visible = inner.horizon.visible();
        // Pinned before the range is looked at, so that nothing is released in between.
        let pin = inner.journal.pin(from);
        let first = inner.journal.first_retained();
        if from < first || from > visible.lsn.next() {
            return Err(inner.outside_feed(from, first)?);
        }
        Ok(Self {
            pin: pin.map_err(|error| Error::journal("starting a feed", error))?,
            inner,
            next: from,
            ahead: VecDeque::new(),
        })
    }

    /// The position at which a new feed would go on as this one does.
    pub fn position(&self) -> Lsn {
        self.ahead
            .front()
            .map_or(self.next, |committed| committed.commit.lsn)
    }

    /// The next commit; waits for one at most `timeout`, then `None`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Committed>, Error> {
        if let Some(committed) = self.next_visible()? {
            return Ok(Some(committed));
        }
        let seen = Lsn::new(self.next.get() - 1);
        self.inner.horizon.wait_above(seen, timeout);
        self.next_visible()
    }

    fn next_visible(&mut self) -> Result<Option<Committed>, Error> {
        if self.ahead.is_empty() {
            self.read_ahead()?;
        }
        Ok(self.ahead.pop_front())
    }

    fn read_ahead(&mut self) -> Result<(), Error> {
        let visible = self.inner.horizon.visible().lsn;
        if self.next > visible {
            return Ok(());
        }
        let reading = |error| Error::journal(format!("feeding from lsn {}", self.next), error);
        let inner = Arc::clone(&self.inner);
        let (mut next, mut bytes) = (self.next, 0);
        for record in inner.journal.read(self.next).map_err(reading)? {
            let record = record.map_err(reading)?;
            // The journal may be ahead of the tables: a commit is fed once it can be read.
            if record.lsn > visible {
                break;
            }
            next = record.lsn.next();
            if record.kind == record::COMMIT {
                bytes += record.bytes.len();
                self.ahead.push_back(committed(&record)?);
            }
            if self.ahead.len() >= AHEAD_MAX || bytes >= AHEAD_BYTES_MAX {
                break;
            }
        }
        self.next = next;
        // Records read ahead are in memory; the pin follows so that the journal can be released.
        self.pin = inner
            .journal
            .pin(next)
            .map_err(|error| Error::journal("advancing a feed", error))?;
        Ok(())
    }
}

fn committed(record: &wal::Record) -> Result<Committed, Error> {
    let decoded = record::decode(&record.bytes)
        .map_err(|what| Error::new(Kind::Corrupt, format!("lsn {}: {what}", record.lsn)))?;
    let changes = decoded
        .changes
        .into_iter()
        .map(|change| Change {
            table: change.table,
            key: change.key.into(),
            value: change.value.map(Bytes::from),
        })
        .collect();
    Ok(Committed {
        commit: Commit {
            lsn: record.lsn,
            time: decoded.time,
        },
        changes,
    })
}

impl Iterator for Feed {
    type Item = Result<Committed, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_visible().transpose()
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("position", &self.position())
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

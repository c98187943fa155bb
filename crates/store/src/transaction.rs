//! Reading and writing as if alone.

use std::{cmp::Ordering, fmt, iter::Peekable, sync::Arc};

use lsm_tree::Slice;
use wal::Lsn;
use world::Timestamp;

use crate::{
    Bytes, Commit, Error, Keys, Kind, Order, Outcome, TableId,
    commit::Request,
    horizon::Hold,
    recent::Reads,
    record::{self, KEY_LEN_MAX, ONCE_LEN_MAX, RECORD_LEN_MAX, VALUE_LEN_MAX},
    store::Inner,
    writes::Writes,
};

/// Sees the store as it was when it began, and its own writes. Commits wholly or not at all, and
/// only if it could have run alone at its place in the journal. Dropping it gives it up.
pub struct Transaction {
    inner: Arc<Inner>,
    begun: Hold,
    snapshot: Commit,
    reads: Reads,
    writes: Writes,
}

impl Transaction {
    pub(crate) fn new(inner: Arc<Inner>, begun: Hold, snapshot: Commit) -> Self {
        Self {
            inner,
            begun,
            snapshot,
            reads: Reads::default(),
            writes: Writes::default(),
        }
    }

    /// The position that it sees.
    pub fn lsn(&self) -> Lsn {
        self.begun.lsn()
    }

    pub fn get(&mut self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let tree = self.inner.tree(table)?;
        if let Some(written) = self.writes.get(table, key) {
            return Ok(written.cloned().map(Bytes::from));
        }
        // Recorded first: the answer is only worth something if the commit vouches for it.
        self.reads.point(self.inner.hasher.name(table, key))?;
        tree.get(key, self.lsn())
    }

    /// At most `limit` keys and values, from the end of `keys` that `order` begins at. The gaps
    /// between them are read too: a key that another transaction puts there is a conflict.
    pub fn range(
        &mut self,
        table: TableId,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let stored = self.inner.tree(table)?.range(keys, self.lsn());
        let written = self.writes.range(table, keys);
        let found = match order {
            Order::Ascending => merge(stored, written, order, limit),
            Order::Descending => merge(stored.rev(), written.rev(), order, limit),
        }?;
        let read = match found.last() {
            Some((last, _)) if found.len() == limit => keys.clone().read_up_to(last, order),
            _ => keys.clone(),
        };
        if limit > 0 {
            self.reads.range(table, read)?;
        }
        Ok(found)
    }

    pub fn put(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if value.len() > VALUE_LEN_MAX {
            let message = format!(
                "value of {} bytes, at most {VALUE_LEN_MAX} are stored",
                value.len()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        self.set(table, key, Some(value))
    }

    /// Deleting what is not there is no error, and is no read either.
    pub fn delete(&mut self, table: TableId, key: &[u8]) -> Result<(), Error> {
        self.set(table, key, None)
    }

    fn set(&mut self, table: TableId, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        self.inner.tree(table)?;
        if key.is_empty() || key.len() > KEY_LEN_MAX {
            let message = format!("key of {} bytes, 1 to {KEY_LEN_MAX} are stored", key.len());
            return Err(Error::new(Kind::Invalid, message));
        }
        let more = record::CHANGE_HEADER_LEN + key.len() + value.map_or(0, <[u8]>::len);
        if record::encoded_len(&self.writes, None) + ONCE_LEN_MAX + 2 + more > RECORD_LEN_MAX {
            let message =
                format!("transaction of more than {RECORD_LEN_MAX} bytes, commit it in several");
            return Err(Error::new(Kind::Invalid, message));
        }
        self.writes.set(table, key, value);
        Ok(())
    }

    /// Returns once the commit is durable and visible. On `Conflict` nothing was written: begin
    /// again. On any other error nothing was written either, except that after `Poisoned` only the
    /// next open can tell. Without writes there is nothing to validate or to write, and the
    /// position that was read is returned.
    pub fn commit(self) -> Result<Commit, Error> {
        if self.writes.is_empty() {
            return Ok(self.snapshot);
        }
        self.send(None, None).map(Outcome::commit)
    }

    /// As [`Transaction::commit`], dated `date`, so that what the transaction wrote about its own
    /// time is found by that time. The order of commits comes first: where `date` is not above the
    /// previous commit's and above every time already asked for, or is more than a millisecond
    /// ahead of the clock, the commit is dated as near to it as these allow. A date more than a
    /// second behind the clock is not taken: the commit is dated now.
    pub fn commit_dated(self, date: Timestamp) -> Result<Commit, Error> {
        if self.writes.is_empty() {
            return Ok(self.snapshot);
        }
        self.send(None, Some(date)).map(Outcome::commit)
    }

    /// As [`Transaction::commit`], at most once for each `key` of 1 to 256 bytes: whoever comes
    /// later with the same key, after a crash too, is told the first commit and writes nothing.
    /// Keys are remembered for [`crate::Options::idempotency`].
    pub fn commit_once(self, key: &[u8]) -> Result<Outcome, Error> {
        if key.is_empty() || key.len() > ONCE_LEN_MAX {
            let message = format!(
                "idempotency key of {} bytes, 1 to {ONCE_LEN_MAX} are allowed",
                key.len()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        self.send(Some(Slice::from(key)), None)
    }

    fn send(self, once: Option<Slice>, date: Option<Timestamp>) -> Result<Outcome, Error> {
        self.inner.open()?;
        self.inner.commit(Request {
            begun: self.begun,
            reads: self.reads,
            writes: Arc::new(self.writes),
            once,
            date,
        })
    }
}

/// Both in `order`; what was written hides what is stored.
fn merge<'a>(
    stored: impl Iterator<Item = Result<(Bytes, Bytes), Error>>,
    written: impl Iterator<Item = (&'a Slice, Option<&'a Slice>)>,
    order: Order,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let (mut stored, mut written) = (stored.peekable(), written.peekable());
    let mut found = Vec::new();
    while found.len() < limit {
        let item = match next_side(&mut stored, &mut written, order) {
            Side::Neither => break,
            Side::Stored => stored.next().transpose()?,
            Side::Written { hides } => {
                if hides {
                    stored.next().transpose()?;
                }
                written
                    .next()
                    .and_then(|(key, value)| Some((key.clone().into(), value?.clone().into())))
            }
        };
        found.extend(item);
    }
    Ok(found)
}

enum Side {
    Neither,
    Stored,
    Written { hides: bool },
}

fn next_side<'a>(
    stored: &mut Peekable<impl Iterator<Item = Result<(Bytes, Bytes), Error>>>,
    written: &mut Peekable<impl Iterator<Item = (&'a Slice, Option<&'a Slice>)>>,
    order: Order,
) -> Side {
    let (stored, written) = match (stored.peek(), written.peek()) {
        (None, None) => return Side::Neither,
        (Some(_), None) | (Some(Err(_)), _) => return Side::Stored,
        (None, Some(_)) => return Side::Written { hides: false },
        (Some(Ok((stored, _))), Some((written, _))) => (stored, written),
    };
    let by_key = (**stored).cmp(&***written);
    let by_order = match order {
        Order::Ascending => by_key,
        Order::Descending => by_key.reverse(),
    };
    match by_order {
        Ordering::Less => Side::Stored,
        Ordering::Equal => Side::Written { hides: true },
        Ordering::Greater => Side::Written { hides: false },
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("begun", &self.lsn())
            .field("writes", &self.writes.count())
            .finish_non_exhaustive()
    }
}

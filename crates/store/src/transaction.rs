//! Reading and writing as if alone.

use std::{cmp::Ordering, fmt, iter::Peekable, sync::Arc};

use lsm_tree::Slice;
use wal::Lsn;
use world::Timestamp;

use crate::{
    Bytes, Commit, Error, Keys, Kind, Order, Outcome, TableId,
    commit::Request,
    engine::{Rows, Work, Write},
    horizon::Hold,
    local::Inner,
    paged,
    recent::Reads,
    record::{self, KEY_LEN_MAX, ONCE_LEN_MAX, RECORD_LEN_MAX, VALUE_LEN_MAX},
    writes::Writes,
};

/// Sees the store as it was when it began, and its own writes. Commits wholly or not at all, and
/// only if it could have run alone at its place among the commits. Dropping it gives it up.
pub struct Transaction {
    kept: Kept,
    snapshot: Commit,
    writes: Writes,
}

enum Kept {
    Here {
        inner: Arc<Inner>,
        begun: Hold,
        reads: Reads,
    },
    Elsewhere(Box<dyn Work>),
}

impl Transaction {
    pub(crate) fn here(inner: Arc<Inner>, begun: Hold, snapshot: Commit) -> Self {
        Self {
            kept: Kept::Here {
                inner,
                begun,
                reads: Reads::default(),
            },
            snapshot,
            writes: Writes::default(),
        }
    }

    pub(crate) fn elsewhere(work: Box<dyn Work>) -> Self {
        Self {
            snapshot: work.commit_seen(),
            kept: Kept::Elsewhere(work),
            writes: Writes::default(),
        }
    }

    /// The position that it sees.
    pub fn lsn(&self) -> Lsn {
        self.snapshot.lsn
    }

    /// The newest commit that it sees: its own is dated later, whatever the clock says.
    pub fn commit_seen(&self) -> Commit {
        self.snapshot
    }

    pub fn get(&mut self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(written) = self.writes.get(table, key) {
            return Ok(written.cloned().map(Bytes::from));
        }
        match &mut self.kept {
            Kept::Here {
                inner,
                begun,
                reads,
            } => {
                let tree = inner.tree(table)?;
                // Recorded first: the answer is only worth something if the commit vouches for it.
                reads.point(inner.hasher.name(table, key))?;
                tree.get(key, begun.lsn())
            }
            Kept::Elsewhere(work) => Ok(work.get_many(&[(table, key)])?.pop().flatten()),
        }
    }

    /// As [`Transaction::get`] for each of `keys`, in their order. Elsewhere it is one round trip.
    pub fn get_many(&mut self, keys: &[(TableId, &[u8])]) -> Result<Vec<Option<Bytes>>, Error> {
        let Kept::Elsewhere(work) = &mut self.kept else {
            return keys
                .iter()
                .map(|(table, key)| self.get(*table, key))
                .collect();
        };
        let stored: Vec<_> = keys
            .iter()
            .copied()
            .filter(|(table, key)| self.writes.get(*table, key).is_none())
            .collect();
        let mut stored = match stored.as_slice() {
            [] => Vec::new(),
            stored => work.get_many(stored)?,
        }
        .into_iter();
        let found = keys
            .iter()
            .map(|(table, key)| match self.writes.get(*table, key) {
                Some(written) => written.cloned().map(Bytes::from),
                None => stored.next().flatten(),
            });
        Ok(found.collect())
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
        let written = self.writes.range(table, keys);
        match &mut self.kept {
            Kept::Here {
                inner,
                begun,
                reads,
            } => {
                let stored = inner.tree(table)?.range(keys, begun.lsn());
                let found = match order {
                    Order::Ascending => merge(stored, written, order, limit),
                    Order::Descending => merge(stored.rev(), written.rev(), order, limit),
                }?;
                let read = match found.last() {
                    Some((last, _)) if found.len() == limit => keys.clone().read_up_to(last, order),
                    _ => keys.clone(),
                };
                if limit > 0 {
                    reads.range(table, read)?;
                }
                Ok(found)
            }
            Kept::Elsewhere(work) => {
                let stored = paged::of_work(work.as_mut(), table, keys, order, limit);
                match order {
                    Order::Ascending => merge(stored, written, order, limit),
                    Order::Descending => merge(stored, written.rev(), order, limit),
                }
            }
        }
    }

    /// At most `limit` keys and values from the start of `keys`, for a transaction that works on
    /// them alone: those that another one claimed and has not ended may be left out, and of two that
    /// were given the same only one commits. May give fewer than there are.
    pub fn claim(
        &mut self,
        table: TableId,
        keys: &Keys,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let Kept::Elsewhere(work) = &mut self.kept else {
            return self.range(table, keys, Order::Ascending, limit);
        };
        if limit == 0 || keys.is_empty() {
            return Ok(Vec::new());
        }
        let claimed: Rows = work.claim(table, keys, limit)?;
        // What was written behind the last of a full answer has unclaimed rows before it.
        let seen = match claimed.last() {
            Some((last, _)) if claimed.len() >= limit => {
                keys.clone().read_up_to(last, Order::Ascending)
            }
            _ => keys.clone(),
        };
        let written = self.writes.range(table, &seen);
        merge(
            claimed.into_iter().map(Ok),
            written,
            Order::Ascending,
            limit,
        )
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
        if let Kept::Here { inner, .. } = &self.kept {
            inner.tree(table)?;
        }
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
    /// next open can tell, and after `InDoubt` only who looks. Without writes there is nothing to validate or to write, and the
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
        self.send(Some(key), None)
    }

    fn send(self, once: Option<&[u8]>, date: Option<Timestamp>) -> Result<Outcome, Error> {
        match self.kept {
            Kept::Here {
                inner,
                begun,
                reads,
            } => {
                inner.open()?;
                inner.commit(Request {
                    begun,
                    reads,
                    writes: Arc::new(self.writes),
                    once: once.map(Slice::from),
                    date,
                })
            }
            Kept::Elsewhere(work) => {
                let written = self.writes.tables().flat_map(|(table, keys)| {
                    keys.iter().map(move |(key, value)| Write {
                        table,
                        key: key.to_vec(),
                        value: value.as_ref().map(|value| value.to_vec()),
                    })
                });
                work.finish(written.collect(), date, once)
            }
        }
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

//! Fleets that were read, for whoever asks for the same again.
//!
//! What a fleet was at a position of the store is decided by that position, so that it is read once
//! while nothing is committed, and for a past moment once for good. After a commit only the rows of
//! hosts that are other bytes than before are decoded: after a scan, one. Nothing here ages, and
//! nobody is given a fleet of a position before the one at which their snapshot was taken.

use std::{
    collections::HashMap,
    fmt,
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use store::Bytes;
use wal::Lsn;

use super::{
    Error,
    fleet::{Fleet, HostStanding},
};

/// Bytes of all fleets of past moments together: some ten moments of a thousand hosts by 250 rules,
/// as many as somebody goes back and forth between. Arbitrary.
const PAST_BYTES_MAX: usize = 16 << 20;
/// Hosts of which rows are remembered, some 3 KB each, and lists of rules. Beyond them all rows are decoded
/// each time.
const HOSTS_MAX: usize = 10_000;

/// The rows of a host as they were read, and what they come to.
struct Decoded {
    host: Box<[u8]>,
    board: Option<Box<[u8]>>,
    standing: Arc<HostStanding>,
}

/// What was decoded, by host, and the lists of rules that boards go by, by their digest.
#[derive(Default)]
pub(super) struct Rows {
    hosts: HashMap<Box<[u8]>, Decoded>,
    lists: HashMap<String, Arc<[String]>>,
}

impl Rows {
    pub(super) fn standing(
        &self,
        name: &[u8],
        host: &[u8],
        board: Option<&[u8]>,
    ) -> Option<Arc<HostStanding>> {
        let known = self.hosts.get(name)?;
        let is_same = *known.host == *host && known.board.as_deref() == board;
        is_same.then(|| Arc::clone(&known.standing))
    }

    pub(super) fn remember(
        &mut self,
        name: &[u8],
        host: &Bytes,
        board: Option<&Bytes>,
        standing: &Arc<HostStanding>,
    ) {
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(name) {
            return;
        }
        let decoded = Decoded {
            host: Box::from(&host[..]),
            board: board.map(|board| Box::from(&board[..])),
            standing: Arc::clone(standing),
        };
        self.hosts.insert(name.into(), decoded);
    }

    pub(super) fn list(&self, digest: &str) -> Option<&Arc<[String]>> {
        self.lists.get(digest)
    }

    /// Before a fleet is read, and not amid it: all of its lists are there until all of it is read. Old
    /// lists stay as long as a standing holds them; a pack changes a few times a year.
    pub(super) fn make_room(&mut self) {
        if self.lists.len() >= HOSTS_MAX {
            self.lists.clear();
        }
    }

    pub(super) fn remember_list(&mut self, digest: &str, list: Arc<[String]>) {
        self.lists.insert(digest.to_owned(), list);
    }
}

#[derive(Default)]
struct Newest {
    rows: Rows,
    read: Option<(Lsn, Arc<Fleet>)>,
}

#[derive(Default)]
struct Past {
    /// Used last, last.
    fleets: Vec<(Lsn, usize, Arc<Fleet>)>,
    bytes: usize,
}

/// The fleets that one process has read of one store.
#[derive(Default)]
pub struct Fleets {
    newest: Mutex<Newest>,
    past: Mutex<Past>,
}

impl fmt::Debug for Fleets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleets")
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Rows are added whole and a fleet last: a panic in between leaves what is true.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleets {
    /// As everything stands at `position` or later. Many who ask at once cost one reading.
    pub(super) fn newest(
        &self,
        position: Lsn,
        read: impl FnOnce(&mut Rows) -> Result<Fleet, Error>,
    ) -> Result<Arc<Fleet>, Error> {
        let mut newest = lock(&self.newest);
        if let Some((at, fleet)) = &newest.read
            && *at >= position
        {
            return Ok(Arc::clone(fleet));
        }
        let fleet = Arc::new(read(&mut newest.rows)?);
        newest.read = Some((position, Arc::clone(&fleet)));
        Ok(fleet)
    }

    /// As everything stood at exactly `position`.
    pub(super) fn past(
        &self,
        position: Lsn,
        read: impl FnOnce(&mut Rows) -> Result<Fleet, Error>,
    ) -> Result<Arc<Fleet>, Error> {
        if let Some(fleet) = lock(&self.past).find(position) {
            return Ok(fleet);
        }
        // Not into the rows of today: they would be replaced at each turn.
        let fleet = Arc::new(read(&mut Rows::default())?);
        lock(&self.past).put(position, &fleet);
        Ok(fleet)
    }
}

impl Past {
    fn find(&mut self, position: Lsn) -> Option<Arc<Fleet>> {
        let place = self.fleets.iter().position(|(at, ..)| *at == position)?;
        let found = self.fleets.remove(place);
        let fleet = Arc::clone(&found.2);
        self.fleets.push(found);
        Some(fleet)
    }

    fn put(&mut self, position: Lsn, fleet: &Arc<Fleet>) {
        let bytes = weight(fleet);
        if bytes > PAST_BYTES_MAX / 2 || self.find(position).is_some() {
            return;
        }
        while self.bytes + bytes > PAST_BYTES_MAX && !self.fleets.is_empty() {
            let (_, freed, _) = self.fleets.remove(0);
            self.bytes -= freed;
        }
        self.bytes += bytes;
        self.fleets.push((position, bytes, Arc::clone(fleet)));
    }
}

/// Roughly what a fleet takes in memory.
fn weight(fleet: &Fleet) -> usize {
    let standings = fleet.hosts.iter().map(|standing| {
        let assessed = standing.assessed.as_ref();
        // Names and ids: some 300 bytes beside what is counted.
        300 + size_of::<HostStanding>() + assessed.map_or(0, super::Assessed::bytes)
    });
    standings.sum()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ledger::apply;

    fn fleet(hosts: usize) -> Fleet {
        let standing = |number: usize| {
            let host = apply::new_host(&format!("host-{number}"), world::Timestamp::default());
            Arc::new(HostStanding {
                host,
                assessed: None,
            })
        };
        Fleet {
            as_of: world::Timestamp::default(),
            hosts: (0..hosts).map(standing).collect(),
        }
    }

    #[test]
    fn a_fleet_is_given_again_at_its_position_and_never_at_a_later_one() {
        let fleets = Fleets::default();
        let read = Cell::new(0);
        let check = |position, wanted| {
            let made = |_: &mut Rows| {
                read.set(read.get() + 1);
                Ok(fleet(1))
            };
            fleets.newest(Lsn::new(position), made).unwrap();
            assert_eq!(read.get(), wanted, "at {position}");
        };
        check(5, 1);
        check(5, 1);
        // Whoever looked earlier may be shown more.
        check(4, 1);
        check(6, 2);
        check(6, 2);
    }

    /// A list that was found to be there was cleared by the next one that was read, and its hosts could not
    /// be shown.
    #[test]
    fn no_list_of_rules_goes_while_a_fleet_is_read() {
        let mut rows = Rows::default();
        let remember = |rows: &mut Rows, of: std::ops::Range<usize>| {
            for number in of {
                rows.remember_list(&number.to_string(), Arc::from([number.to_string()]));
            }
        };
        rows.make_room();
        remember(&mut rows, 0..HOSTS_MAX + 10);
        assert!(rows.list("0").is_some());
        rows.make_room();
        assert!(rows.lists.is_empty());
        remember(&mut rows, 0..HOSTS_MAX - 1);
        rows.make_room();
        assert!(rows.list("0").is_some());
    }

    #[test]
    fn fleets_of_the_past_are_those_of_their_very_position_and_bounded_in_bytes() {
        let fleets = Fleets::default();
        let read = Cell::new(0);
        let ask = |position: u64, hosts| {
            let made = |_: &mut Rows| {
                read.set(read.get() + 1);
                Ok(fleet(hosts))
            };
            let given = fleets.past(Lsn::new(position), made).unwrap();
            assert_eq!(given.hosts.len(), hosts, "at {position}");
            let past = lock(&fleets.past);
            let sum: usize = past.fleets.iter().map(|(_, bytes, _)| bytes).sum();
            assert_eq!(sum, past.bytes);
            assert!(sum <= PAST_BYTES_MAX);
            read.take()
        };
        assert_eq!((ask(7, 1), ask(7, 1), ask(8, 2), ask(7, 1)), (1, 0, 1, 0));
        let many = PAST_BYTES_MAX / weight(&fleet(1)) / 5;
        for position in 10..20 {
            ask(position, many);
            assert_eq!(ask(10, many), 0, "what is asked for stays");
        }
        assert_eq!(ask(11, many), 1, "what nobody asked for goes");
    }
}

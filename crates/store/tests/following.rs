//! A copy of a store that is fed with the journal of another one: what it shows, what it refuses, and
//! how it takes over.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::{sync::Arc, time::Duration};

use site::{Site, text};
use store::{History, Keys, Kind, Store, Table};
use wal::{Journal, Lsn};
use world::Clock;

/// Longer than any wait of these tests takes on a machine that runs at all.
const LONG: Duration = Duration::from_secs(60);

/// A store that leads, and a copy beside it with a journal of its own.
struct Pair {
    leader: site::Running,
    leading: Site,
    copy: Site,
    journal: Arc<wal::Local>,
}

impl Pair {
    fn new() -> Self {
        // The same seed: the same journal id, as a replica has.
        let (leading, copy) = (Site::forever(), Site::forever());
        let (leader, journal) = (leading.open(), copy.journal().unwrap());
        Self {
            leader,
            leading,
            copy,
            journal,
        }
    }

    fn follow(&self) -> Store {
        let journal = Arc::clone(&self.journal) as _;
        let (store, _) = Store::open_following(self.copy.options(), journal).unwrap();
        store
    }

    /// Copies what the leader's journal has and the other does not.
    fn ship(&self) {
        let from = self.journal.safe_point().next();
        for record in self.leader.journal.read(from).unwrap() {
            let record = record.unwrap();
            let appended = self.journal.append(&[(record.kind, &record.bytes)]);
            assert_eq!(appended.unwrap().last, record.lsn);
        }
    }
}

fn wait_applied(store: &Store, lsn: Lsn) {
    let clock = world::RealClock::new();
    while store.applied().is_some_and(|applied| applied < lsn) {
        assert!(clock.monotonic() < LONG, "{:?}", store.failure());
        std::thread::yield_now();
    }
}

fn everything(store: &Store, at: Lsn) -> Vec<(store::Bytes, store::Bytes)> {
    let table = store.table("t").unwrap();
    let snapshot = store.snapshot_at(at).unwrap();
    let items = snapshot.range(table, &Keys::all()).unwrap();
    items.map(|item| item.unwrap()).collect()
}

/// Proves: REP-17
#[test]
fn a_copy_shows_every_moment_that_it_was_fed() {
    let pair = Pair::new();
    let store = pair.follow();
    let mut commits = Vec::new();
    for number in 0..600 {
        pair.leading.clock.advance(Duration::from_millis(3));
        commits.push(
            pair.leader
                .put(&format!("k{}", number % 50), &number.to_string()),
        );
        if number % 97 == 0 {
            pair.ship();
        }
    }
    let last = *commits.last().unwrap();
    let refused = store
        .wait_for(last.lsn, Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    pair.ship();
    store.wait_for(last.lsn, LONG).unwrap();
    let last = *commits.last().unwrap();
    wait_applied(&store, last.lsn);
    assert_eq!(store.snapshot().unwrap().lsn(), last.lsn);
    for commit in commits.iter().step_by(41) {
        assert_eq!(
            everything(&store, commit.lsn),
            everything(&pair.leader.store, commit.lsn)
        );
        let dated = store.snapshot_at_time(commit.time).unwrap();
        assert_eq!(dated.lsn(), commit.lsn);
    }
    // The copy's own clock is irrelevant: later commits may still be dated before it.
    pair.copy.clock.advance(LONG);
    let refused = store.snapshot_at_time(pair.copy.clock.now()).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    let fed = store.feed(Lsn::FIRST).unwrap().count();
    assert_eq!(fed, commits.len());
}

#[test]
fn a_copy_commits_nothing_and_goes_on_where_it_was() {
    let pair = Pair::new();
    let store = pair.follow();
    let first = pair.leader.put("a", "1");
    pair.ship();
    wait_applied(&store, first.lsn);
    let table = store.table("t").unwrap();
    let mut transaction = store.begin().unwrap();
    assert_eq!(
        text(transaction.get(table, b"a").unwrap()).as_deref(),
        Some("1")
    );
    transaction.put(table, b"a", b"2").unwrap();
    let refused = transaction.commit().unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced, "{refused}");
    store.close().unwrap();
    drop(store);
    let second = pair.leader.put("b", "2");
    pair.ship();
    let store = pair.follow();
    wait_applied(&store, second.lsn);
    assert_eq!(
        everything(&store, second.lsn),
        everything(&pair.leader.store, second.lsn)
    );
    assert!(store.failure().is_none());
}

#[test]
fn a_copy_that_takes_over_has_everything_and_dates_on() {
    let pair = Pair::new();
    let store = pair.follow();
    pair.leading.clock.advance(LONG);
    let last = pair.leader.put("a", "1");
    let table = store.table("t").unwrap();
    // Begun before what the leader did came here.
    let mut early = store.begin().unwrap();
    early.get(table, b"a").unwrap();
    early.put(table, b"a", b"early").unwrap();
    pair.ship();
    store.lead().unwrap();
    assert_eq!(store.applied(), None);
    assert_eq!(store.snapshot().unwrap().lsn(), last.lsn);
    let refused = early.commit().unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    let mut transaction = store.begin().unwrap();
    assert_eq!(
        text(transaction.get(table, b"a").unwrap()).as_deref(),
        Some("1")
    );
    transaction.put(table, b"a", b"2").unwrap();
    let commit = transaction.commit().unwrap();
    // One record between them names the tables; the copy's clock is a minute behind.
    assert_eq!(commit.lsn, last.lsn.next().next());
    assert!(commit.time > last.time);
    // What it commits itself is not applied once more from its journal.
    for _ in 0..200 {
        let mut transaction = store.begin().unwrap();
        transaction.put(table, b"a", b"again").unwrap();
        let commit = transaction.commit().unwrap();
        store.lead().unwrap();
        assert_eq!(store.snapshot().unwrap().lsn(), commit.lsn);
    }
    assert_eq!(store.stats().commits, 202);
    store.close().unwrap();
}

/// A journal whose newest records are durable, and readable only once its owner appends.
#[derive(Debug)]
struct Late(Arc<wal::Local>);

impl Journal for Late {
    fn identity(&self) -> wal::Identity {
        self.0.identity()
    }

    fn append(&self, records: &[(wal::RecordKind, &[u8])]) -> Result<wal::Appended, wal::Error> {
        let appended = self.0.append(records)?;
        self.0.show(appended.last);
        Ok(appended)
    }

    fn safe_point(&self) -> Lsn {
        self.0.safe_point()
    }

    fn first_retained(&self) -> Lsn {
        self.0.first_retained()
    }

    fn read(&self, from: Lsn) -> Result<wal::Records<'_>, wal::Error> {
        self.0.read(from)
    }

    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.0.wait_above(seen, timeout)
    }

    fn pin(&self, from: Lsn) -> Result<wal::Pin, wal::Error> {
        self.0.pin(from)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), wal::Error> {
        self.0.release_below(keep_from)
    }

    fn settle(&self) -> Result<(), wal::Error> {
        self.0.settle()
    }
}

/// What a replica has and does not know to be committed is committed by its promotion.
#[test]
fn what_becomes_readable_by_taking_over_is_applied() {
    let (leading, copy) = (Site::forever(), Site::forever());
    let leader = leading.open();
    let mut options = wal::Options::new(
        "/journal",
        Arc::new(copy.disk.clone()),
        Arc::new(copy.clock.clone()),
        Arc::new(world::sim::Random::new(copy.seed)),
    );
    options.upkeep = wal::Upkeep::Caller;
    options.shown = Some(Lsn::ZERO);
    let (local, _) = wal::Local::open(options).unwrap();
    let last = ["a", "b", "c"].map(|key| leader.put(key, key))[2];
    for record in leader.journal.read(Lsn::FIRST).unwrap() {
        let record = record.unwrap();
        local.append(&[(record.kind, &record.bytes)]).unwrap();
    }
    local.show(Lsn::FIRST);
    let journal = Arc::new(Late(Arc::new(local)));
    let (store, _) = Store::open_following(copy.options(), journal).unwrap();
    assert_eq!(store.snapshot().unwrap().lsn(), Lsn::FIRST);
    store.lead().unwrap();
    assert_eq!(store.snapshot().unwrap().lsn(), last.lsn);
    assert_eq!(
        everything(&store, last.lsn),
        everything(&leader.store, last.lsn)
    );
}

#[test]
fn a_copy_with_other_tables_stops_before_it_mixes_them_up() {
    let mut pair = Pair::new();
    pair.copy.tables = vec![
        Table::new("other", History::Forever),
        Table::new("t", History::Forever),
    ];
    let store = pair.follow();
    let journal = Arc::clone(&pair.leader.journal);
    pair.leader.store.close().unwrap();
    drop(pair.leader);
    pair.leader = {
        let (leader, report) =
            Store::open_following(pair.leading.options(), Arc::clone(&journal) as _).unwrap();
        leader.lead().unwrap();
        site::Running {
            store: leader,
            journal,
            report,
        }
    };
    pair.leader.put("a", "1");
    pair.ship();
    let clock = world::RealClock::new();
    while store.failure().is_none() {
        assert!(clock.monotonic() < LONG);
        std::thread::yield_now();
    }
    let failure = store.failure().unwrap();
    assert_eq!(failure.kind(), Kind::Corrupt);
    assert!(
        failure.to_string().contains("table 16 is \"t\""),
        "{failure}"
    );
    let table = store.table("other").unwrap();
    let found = store.snapshot().unwrap().get(table, b"a").unwrap();
    assert!(found.is_none());
    assert!(store.lead().is_err());
}

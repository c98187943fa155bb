//! The store and a plain model live through the same random history; every answer is compared.
//!
//! The model is a list of commits: what a key is at a position is found by looking through it. A
//! failure prints its seed; `HOLDFAST_SEED=<seed> cargo test -p store --test model` repeats it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::{collections::BTreeMap, time::Duration};

use site::{Running, Site};
use store::{Commit, History, Keys, Kind, Order, Snapshot, TableId, Transaction};
use wal::Lsn;
use world::{Clock, Random, sim};

const STEPS: u64 = 400;
const SEEDS: u64 = 12;
const TABLES: [(&str, History); 3] = [
    ("forever", History::Forever),
    ("hour", History::For(Duration::from_secs(3600))),
    ("latest", History::Latest),
];

type Key = (usize, Vec<u8>);
type Value = Option<Vec<u8>>;

/// Every commit, oldest first.
#[derive(Default)]
struct Model(Vec<(Commit, BTreeMap<Key, Value>)>);

/// A transaction of the store, and what the model needs to judge it.
struct InFlight {
    transaction: Transaction,
    begun: Lsn,
    points: Vec<Key>,
    ranges: Vec<(usize, Keys)>,
    writes: BTreeMap<Key, Value>,
}

struct World {
    site: Site,
    running: Running,
    tables: Vec<TableId>,
    model: Model,
    dice: sim::Random,
    in_flight: Vec<InFlight>,
    held: Vec<Snapshot>,
    conflicts: usize,
}

impl Model {
    fn visible(&self) -> Lsn {
        self.0.last().map_or(Lsn::ZERO, |(commit, _)| commit.lsn)
    }

    fn get(&self, key: &Key, at: Lsn) -> Value {
        let seen = self.0.iter().rev().filter(|(commit, _)| commit.lsn <= at);
        seen.filter_map(|(_, writes)| writes.get(key))
            .next()?
            .clone()
    }

    fn range(&self, table: usize, keys: &Keys, at: Lsn) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut state: BTreeMap<&[u8], &Value> = BTreeMap::new();
        for (commit, writes) in &self.0 {
            if commit.lsn <= at {
                let inside = writes
                    .iter()
                    .filter(|((t, key), _)| *t == table && keys.contains(key));
                state.extend(inside.map(|((_, key), value)| (key.as_slice(), value)));
            }
        }
        let live = state
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        live.map(|(key, value)| (key.to_vec(), value.clone()))
            .collect()
    }

    fn conflicts(&self, flight: &InFlight) -> bool {
        let later = self
            .0
            .iter()
            .filter(|(commit, _)| commit.lsn > flight.begun);
        later.flat_map(|(_, writes)| writes.keys()).any(|written| {
            let in_range =
                |(table, keys): &(usize, Keys)| *table == written.0 && keys.contains(&written.1);
            flight.points.contains(written) || flight.ranges.iter().any(in_range)
        })
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut site = Site::new(&TABLES);
        site.change = |options| {
            options.memtable_bytes = 3000;
            options.checkpoint_bytes = 20_000;
        };
        if seed % 2 == 1 {
            site.change = |options| {
                options.memtable_bytes = 1000;
                options.checkpoint_bytes = 50_000;
                options.pin_indexes = false;
                options.compress = false;
                options.cache_bytes = 10_000;
            };
        }
        let running = site.open();
        let mut world = Self {
            site,
            running,
            tables: Vec::new(),
            model: Model::default(),
            dice: sim::Random::new(seed),
            in_flight: Vec::new(),
            held: Vec::new(),
            conflicts: 0,
        };
        world.find_tables();
        world
    }

    fn find_tables(&mut self) {
        let table = |(name, _): &(&str, History)| self.running.store.table(name).unwrap();
        self.tables = TABLES.iter().map(table).collect();
    }

    fn roll(&self, sides: u64) -> u64 {
        self.dice.number().unwrap() % sides
    }

    fn table(&self) -> usize {
        usize::try_from(self.roll(3)).unwrap()
    }

    /// Few keys, so that they meet; some are prefixes of others.
    fn key(&self) -> Key {
        let letters = b"abcd";
        let len = 1 + self.roll(2);
        let key = (0..len).map(|_| letters[usize::try_from(self.roll(4)).unwrap()]);
        (self.table(), key.collect())
    }

    fn keys(&self) -> Keys {
        let (low, high) = (self.key().1, self.key().1);
        match self.roll(4) {
            0 => Keys::all(),
            1 => Keys::prefix(&low),
            2 => Keys::after(&low),
            _ => Keys::between(&low, &high),
        }
    }

    fn step(&mut self) {
        match self.roll(100) {
            0..40 => self.work(),
            40..65 => self.finish(),
            65..80 => self.look_back(),
            80..86 => self.look_at_held(),
            86..90 => self.site.advance(Duration::from_secs(self.roll(1200))),
            90..93 => self.feed(),
            93..95 => drop(self.running.store.checkpoint().unwrap()),
            95..97 => self.running.store.compact().unwrap(),
            97..99 => self.restart(true),
            _ => self.restart(false),
        }
    }

    /// One more operation in a transaction, begun now or earlier.
    fn work(&mut self) {
        if self.in_flight.len() < 4 && self.roll(3) == 0 {
            let transaction = self.running.store.begin().unwrap();
            self.in_flight.push(InFlight {
                begun: transaction.lsn(),
                transaction,
                points: Vec::new(),
                ranges: Vec::new(),
                writes: BTreeMap::new(),
            });
        }
        let Some(index) = self.roll(4).checked_rem(self.in_flight.len() as u64) else {
            return;
        };
        let mut flight = self.in_flight.swap_remove(usize::try_from(index).unwrap());
        for _ in 0..=self.roll(4) {
            self.operate(&mut flight);
        }
        self.in_flight.push(flight);
    }

    fn operate(&self, flight: &mut InFlight) {
        let key = self.key();
        let table = self.tables[key.0];
        match self.roll(4) {
            0 => {
                let value = self.roll(u64::MAX).to_be_bytes();
                let value = value.repeat(1 + usize::try_from(self.roll(20)).unwrap());
                flight.transaction.put(table, &key.1, &value).unwrap();
                flight.writes.insert(key, Some(value));
            }
            1 => {
                flight.transaction.delete(table, &key.1).unwrap();
                flight.writes.insert(key, None);
            }
            2 => {
                let found = flight.transaction.get(table, &key.1).unwrap();
                let expected = match flight.writes.get(&key) {
                    Some(written) => written.clone(),
                    None => self.model.get(&key, flight.begun),
                };
                assert_eq!(found.map(|value| value.to_vec()), expected, "{key:?}");
                if !flight.writes.contains_key(&key) {
                    flight.points.push(key);
                }
            }
            _ => self.operate_range(flight, key.0),
        }
    }

    fn operate_range(&self, flight: &mut InFlight, table: usize) {
        let keys = self.keys();
        let limit = 1 + usize::try_from(self.roll(6)).unwrap();
        let order = [Order::Ascending, Order::Descending][usize::try_from(self.roll(2)).unwrap()];
        let found = flight
            .transaction
            .range(self.tables[table], &keys, order, limit)
            .unwrap();
        let mut expected: BTreeMap<_, _> = self
            .model
            .range(table, &keys, flight.begun)
            .into_iter()
            .collect();
        for ((t, key), value) in &flight.writes {
            if *t == table && keys.contains(key) {
                expected.remove(key);
                expected.extend(value.clone().map(|value| (key.clone(), value)));
            }
        }
        let mut expected: Vec<_> = expected.into_iter().collect();
        if order == Order::Descending {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(
            plain(found.into_iter()),
            expected,
            "{keys:?} {order:?} {limit}"
        );
        let read = match expected.last() {
            Some((last, _)) if expected.len() == limit => match order {
                Order::Ascending => {
                    // Up to and including the last key that was seen.
                    flight.points.push((table, last.clone()));
                    keys.resumed_before(last)
                }
                Order::Descending => {
                    flight.points.push((table, last.clone()));
                    keys.resumed_after(last)
                }
            },
            _ => keys,
        };
        flight.ranges.push((table, read));
    }

    fn finish(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = self.roll(self.in_flight.len() as u64);
        let flight = self.in_flight.swap_remove(usize::try_from(index).unwrap());
        if flight.writes.is_empty() {
            let commit = flight.transaction.commit().unwrap();
            assert_eq!(commit.lsn, flight.begun);
            return;
        }
        let expected = self.model.conflicts(&flight);
        match flight.transaction.commit() {
            Ok(commit) => {
                assert!(!expected, "begun at {} must conflict", flight.begun);
                assert_eq!(commit.lsn, self.model.visible().next());
                self.model.0.push((commit, flight.writes));
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Conflict, "{error}");
                assert!(expected, "{error}");
                self.conflicts += 1;
            }
        }
    }

    fn look_back(&mut self) {
        let lsn = Lsn::new(self.roll(self.model.visible().get() + 1));
        let snapshot = if self.roll(2) == 0 {
            self.running.store.snapshot_at(lsn).unwrap()
        } else {
            let commit = self.model.0.iter().find(|(commit, _)| commit.lsn == lsn);
            let time = commit.map_or(site::START, |(commit, _)| commit.time);
            self.running.store.snapshot_at_time(time).unwrap()
        };
        assert_eq!(snapshot.lsn(), lsn);
        self.compare(&snapshot);
        if self.roll(4) == 0 && self.held.len() < 3 {
            self.held.push(snapshot);
        }
    }

    fn look_at_held(&mut self) {
        if let Some(index) = self.roll(3).checked_rem(self.held.len() as u64) {
            let snapshot = self.held.swap_remove(usize::try_from(index).unwrap());
            self.compare(&snapshot);
            if self.roll(2) == 0 {
                self.held.push(snapshot);
            }
        }
    }

    fn compare(&self, snapshot: &Snapshot) {
        let at = snapshot.lsn();
        for (table, id) in self.tables.iter().enumerate() {
            let keys = self.keys();
            let range = match snapshot.range(*id, &keys) {
                Ok(range) => range,
                Err(error) => {
                    let retained = error.retained().expect("the only error of a sound store");
                    assert!(table > 0 && at < retained.from.lsn, "{error}");
                    continue;
                }
            };
            let expected = self.model.range(table, &keys, at);
            assert_eq!(
                plain(range.map(|item| item.unwrap())),
                expected,
                "{table} at {at}"
            );
            let backwards = snapshot.range(*id, &keys).unwrap().rev();
            let mut backwards = plain(backwards.map(|item| item.unwrap()));
            backwards.reverse();
            assert_eq!(backwards, expected, "{table} at {at}, from above");
            let (_, key) = self.key();
            let found = snapshot.get(*id, &key).unwrap().map(|value| value.to_vec());
            assert_eq!(found, self.model.get(&(table, key), at), "{table} at {at}");
        }
    }

    fn feed(&self) {
        let from = Lsn::new(1 + self.roll(self.model.visible().get() + 1));
        let feed = self.running.store.feed(from).unwrap();
        let mut expected = self.model.0.iter().filter(|(commit, _)| commit.lsn >= from);
        for committed in feed {
            let committed = committed.unwrap();
            let (commit, writes) = expected.next().expect("no more than was committed");
            assert_eq!(committed.commit, *commit);
            let changes = committed.changes.into_iter().map(|change| {
                let table = self
                    .tables
                    .iter()
                    .position(|id| *id == change.table)
                    .unwrap();
                let value = change.value.map(|value| value.to_vec());
                ((table, change.key.to_vec()), value)
            });
            assert_eq!(changes.collect::<BTreeMap<_, _>>(), *writes);
        }
        assert!(expected.next().is_none(), "all that was committed");
    }

    /// Closes and opens again, or goes on with what the death of the process would have left.
    fn restart(&mut self, cleanly: bool) {
        self.in_flight.clear();
        self.held.clear();
        if cleanly {
            self.running.store.close().unwrap();
        } else {
            let died = self.site.process_death();
            self.running = died.open();
            self.site = died;
            self.find_tables();
            return;
        }
        let fresh = self.site.process_death();
        self.running = fresh.open();
        assert_eq!(self.running.report.replayed, None);
        self.site = fresh;
        self.find_tables();
    }
}

fn plain(found: impl Iterator<Item = (store::Bytes, store::Bytes)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    found
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

#[allow(clippy::print_stdout, reason = "shown only when the test fails")]
fn check(seed: u64) -> usize {
    println!("HOLDFAST_SEED={seed} cargo test -p store --test model");
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    let now = world.running.store.snapshot().unwrap();
    assert_eq!(now.lsn(), world.model.visible());
    assert!(now.time() <= world.site.clock.now().plus(Duration::from_secs(1)));
    world.compare(&now);
    world.conflicts
}

/// Proves: DOC-3, DOC-4, DOC-6, DOC-7, DOC-8, DOC-10
#[test]
fn the_store_answers_as_a_plain_model_through_any_history() {
    let seed = std::env::var("HOLDFAST_SEED").ok();
    let conflicts: usize = match seed.and_then(|seed| seed.parse().ok()) {
        Some(seed) => check(seed),
        None => (0..SEEDS).map(check).sum(),
    };
    assert!(
        conflicts > 0,
        "a history without conflicts proves nothing about them"
    );
}

//! Appending: what is acknowledged, what is refused, what is kept once.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use wal::{Appended, Identity, Journal, Lsn, Pin, RecordKind, Records};
use world::sim::{Call, Fault};

use super::{Bench, event, named};
use crate::{Filter, Kind, Log, NewEvent, log::Options};

fn ids(log: &Log) -> Vec<Option<String>> {
    let events = log.read(Lsn::FIRST, &Filter::default()).unwrap();
    events
        .map(|event| event.unwrap().event.producer_id)
        .collect()
}

fn some(ids: &[&str]) -> Vec<Option<String>> {
    ids.iter().map(|id| Some((*id).to_owned())).collect()
}

#[test]
fn an_id_seen_again_is_acknowledged_with_the_position_it_had() {
    let bench = Bench::new();
    let first = bench.append(named("a")).unwrap();
    let again = bench.append(named("a")).unwrap();
    assert_eq!(again.id, first.id);
    assert!(again.is_duplicate && !first.is_duplicate);
    let batch = ["b", "a", "b", "c"].map(named).to_vec();
    let acks = bench.log.append(batch).unwrap();
    let found: Vec<_> = acks
        .iter()
        .map(|ack| (ack.id.lsn.get(), ack.is_duplicate))
        .collect();
    assert_eq!(found, [(2, false), (1, true), (2, true), (3, false)]);
    assert_eq!(ids(&bench.log), some(&["a", "b", "c"]));
}

#[test]
fn the_same_id_of_another_source_is_another_event() {
    let bench = Bench::new();
    let other = NewEvent {
        source: "other".to_owned(),
        ..named("a")
    };
    assert!(!bench.append(named("a")).unwrap().is_duplicate);
    assert!(!bench.append(other).unwrap().is_duplicate);
}

#[test]
fn a_batch_with_an_event_that_cannot_be_taken_is_refused_whole() {
    let bench = Bench::new();
    let batch = vec![named("a"), event("{"), named("b")];
    let refused = bench.log.append(batch).unwrap_err();
    assert_eq!((refused.kind(), refused.index()), (Kind::Invalid, Some(1)));
    assert!(
        refused.to_string().starts_with("event 1: body "),
        "{refused}"
    );
    assert_eq!(ids(&bench.log), []);
    assert!(!bench.append(named("a")).unwrap().is_duplicate);
    assert_eq!(bench.log.append(Vec::new()).unwrap(), []);
}

/// What is acknowledged outlives a power loss that leaves nothing unsynced.
///
/// Proves: EVT-2
#[test]
fn an_event_is_acknowledged_when_it_is_durable_and_under_an_id_it_has_for_ever() {
    let bench = Bench::new();
    let mut acknowledged = Vec::new();
    for number in 0..40 {
        let id = number.to_string();
        acknowledged.push((bench.append(named(&id)).unwrap().id, id));
        let disk = bench.disk.fork().power_loss_total();
        let after = Bench::on(disk);
        let found: Vec<_> = after
            .log
            .read(Lsn::FIRST, &Filter::default())
            .unwrap()
            .map(|event| event.map(|event| (event.id, event.event.producer_id.unwrap())))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(found, acknowledged);
        for (position, id) in &acknowledged {
            let again = after.append(named(id)).unwrap();
            assert_eq!((again.id, again.is_duplicate), (*position, true));
        }
    }
}

/// A journal whose appends wait for a word and may be told to fail: a disk as slow, and as full, as a
/// test wants it.
#[derive(Debug)]
struct Gate {
    journal: Arc<dyn Journal>,
    state: Mutex<(usize, Vec<bool>)>,
    changed: Condvar,
}

impl Gate {
    fn on(journal: Arc<dyn Journal>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            state: Mutex::new((0, Vec::new())),
            changed: Condvar::new(),
        })
    }

    /// Lets one append through, to succeed or to fail.
    fn open(&self, succeeds: bool) {
        self.state.lock().unwrap().1.push(succeeds);
        self.changed.notify_all();
    }

    fn appends(&self) -> usize {
        self.state.lock().unwrap().0
    }

    fn wait_for_appends(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        while state.0 < count {
            state = self.changed.wait(state).unwrap();
        }
    }
}

impl Journal for Gate {
    fn identity(&self) -> Identity {
        self.journal.identity()
    }

    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, wal::Error> {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        while state.1.is_empty() {
            state = self.changed.wait(state).unwrap();
        }
        let succeeds = state.1.remove(0);
        drop(state);
        if succeeds {
            self.journal.append(records)
        } else {
            Err(wal::Error::new(wal::Kind::Full, "told to fail"))
        }
    }

    fn safe_point(&self) -> Lsn {
        self.journal.safe_point()
    }

    fn first_retained(&self) -> Lsn {
        self.journal.first_retained()
    }

    fn read(&self, from: Lsn) -> Result<Records<'_>, wal::Error> {
        self.journal.read(from)
    }

    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.journal.wait_above(seen, timeout)
    }

    fn pin(&self, from: Lsn) -> Result<Pin, wal::Error> {
        self.journal.pin(from)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), wal::Error> {
        self.journal.release_below(keep_from)
    }

    fn settle(&self) -> Result<(), wal::Error> {
        self.journal.settle()
    }
}

fn gated() -> (Arc<Gate>, Log) {
    let bench = Bench::new();
    let gate = Gate::on(Arc::clone(&bench.journal));
    let options = Options::new(
        Arc::clone(&gate) as Arc<dyn Journal>,
        Arc::new(bench.disk.clone()),
        Arc::new(bench.clock.clone()),
        "/events/gated-ids",
    );
    (gate, Log::open(options).unwrap().0)
}

/// Two producers send one id at the same time, while the disk takes its time. Were the id known before the
/// first is durable, the second would be acknowledged for an event that a power loss takes; were it
/// not held, both would be kept.
///
/// Proves: EVT-3
#[test]
fn of_two_batches_with_one_id_the_second_waits_for_the_first() {
    for first_succeeds in [true, false] {
        let (gate, log) = gated();
        let log = &log;
        thread::scope(|scope| {
            let first = scope.spawn(move || log.append(vec![named("a"), named("x")]));
            gate.wait_for_appends(1);
            let second = scope.spawn(move || log.append(vec![named("y"), named("a")]));
            // It waits, or it is wrong and comes to the journal.
            while log.waiting_for_ids() == 0 && gate.appends() == 1 {
                thread::yield_now();
            }
            let came_too_early = gate.appends() == 2;
            gate.open(first_succeeds);
            gate.open(true);
            let first = first.join().unwrap();
            let second = second.join().unwrap().unwrap();
            assert!(!came_too_early, "the first was not durable");
            assert!(!second[0].is_duplicate);
            if first_succeeds {
                let first = first.unwrap();
                assert_eq!(second[1].id, first[0].id);
                assert!(second[1].is_duplicate);
                assert_eq!(ids(log), some(&["a", "x", "y"]));
            } else {
                assert_eq!(first.unwrap_err().kind(), Kind::Full);
                assert!(!second[1].is_duplicate, "the first was not kept");
                assert_eq!(ids(log), some(&["y", "a"]));
            }
        });
    }
}

/// Proves: EVT-9
#[test]
fn what_is_more_than_may_be_in_flight_is_refused_at_once_and_leaves_nothing() {
    let (gate, log) = gated();
    let whole = log.admit(crate::log::IN_FLIGHT_BYTES_MAX).unwrap();
    // Should it be let through, it does not wait.
    gate.open(true);
    let refused = log.append(vec![named("a")]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded, "{refused}");
    assert!(refused.retry_after().is_some());
    drop(whole);
    assert_eq!(log.in_flight_bytes(), 0);
    let too_much = log.admit(crate::log::IN_FLIGHT_BYTES_MAX + 1).unwrap_err();
    assert_eq!(too_much.kind(), Kind::Invalid, "no waiting helps");
    assert!(!log.append(vec![named("c")]).unwrap()[0].is_duplicate);
    let log = &log;
    let (held, beyond) = thread::scope(|scope| {
        let slow = scope.spawn(move || log.append(vec![named("a")]));
        gate.wait_for_appends(2);
        let held = log.in_flight_bytes();
        let rest = log.admit(crate::log::IN_FLIGHT_BYTES_MAX - held);
        let beyond = log.admit(1).map(drop);
        gate.open(true);
        slow.join().unwrap().unwrap();
        drop(rest);
        (held, beyond)
    });
    assert!(held > 0, "what waits for the disk counts");
    assert_eq!(beyond.unwrap_err().kind(), Kind::Overloaded);
    assert_eq!(log.in_flight_bytes(), 0);
    gate.open(true);
    let again = log.append(vec![named("b")]).unwrap();
    assert!(!again[0].is_duplicate, "what was refused left no id behind");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_known() {
    let bench = Bench::new();
    bench.append(named("a")).unwrap();
    bench
        .disk
        .inject(Call::SyncData, 1, Fault::Fail(io::ErrorKind::Other));
    for id in ["b", "b", "c"] {
        let failed = bench.append(named(id)).unwrap_err();
        assert_eq!(failed.kind(), Kind::Poisoned, "{failed}");
    }
    assert_eq!(bench.disk.unmet_faults(), 0);
    assert_eq!(ids(&bench.log), some(&["a"]), "what is read is durable");
    let after = Bench::on(bench.disk.power_loss_total());
    assert!(after.append(named("a")).unwrap().is_duplicate);
    assert!(!after.append(named("b")).unwrap().is_duplicate);
}

#[test]
fn a_closed_log_takes_nothing_and_is_still_read() {
    let bench = Bench::new();
    bench.append(named("a")).unwrap();
    bench.log.close().unwrap();
    assert_eq!(bench.append(named("b")).unwrap_err().kind(), Kind::Closed);
    assert_eq!(ids(&bench.log), some(&["a"]));
}

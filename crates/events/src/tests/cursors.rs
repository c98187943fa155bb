//! Cursors of drains: durable, bound to one generation, never beyond what is there, and holding what
//! is still needed.

use std::sync::Arc;

use wal::{Generation, Journal, Lsn};
use world::sim;

use super::{Bench, event, journal};
use crate::{
    Class, Cursors, EventId, Kind,
    cursors::{DRAINS_MAX, Move},
};

const DIR: &str = "/events/cursors";

fn open(bench: &Bench) -> Cursors {
    let own = journal(&bench.disk, DIR, &bench.clock);
    Cursors::open(own, Arc::clone(&bench.journal)).unwrap()
}

fn fill(bench: &Bench, count: u64) {
    for number in 0..count {
        bench.append(event(&format!("\"{number:0300}\""))).unwrap();
    }
}

fn at(bench: &Bench, lsn: u64) -> EventId {
    EventId::new(bench.log.identity(), Lsn::new(lsn))
}

fn to(to: EventId, class: Class) -> Move<'static> {
    Move {
        drain: "site",
        class,
        to,
    }
}

#[test]
fn a_cursor_outlives_a_power_loss_as_soon_as_it_moved() {
    let bench = Bench::new();
    fill(&bench, 50);
    let cursors = open(&bench);
    for lsn in 1..=50 {
        cursors
            .advance(&[
                to(at(&bench, lsn), Class::Error),
                to(at(&bench, lsn / 2), Class::Other),
            ])
            .unwrap();
        let after = Bench::on(bench.disk.fork().power_loss_total());
        let found = open(&after);
        assert_eq!(
            found.get("site", Class::Error).unwrap(),
            Some(at(&bench, lsn))
        );
        assert_eq!(
            found.get("site", Class::Other).unwrap(),
            Some(at(&bench, lsn / 2))
        );
        assert_eq!(found.get("site", Class::Action).unwrap(), None);
        assert_eq!(found.drains(), ["site"]);
    }
}

/// Proves: EVT-6
#[test]
fn a_cursor_beyond_the_safe_point_or_of_another_generation_is_refused() {
    let bench = Bench::new();
    fill(&bench, 5);
    let cursors = open(&bench);
    cursors.advance(&[to(at(&bench, 3), Class::Error)]).unwrap();
    let of_another = |change: fn(&mut EventId)| {
        let mut id = at(&bench, 4);
        change(&mut id);
        id
    };
    for (wrong, named) in [
        (at(&bench, 6), "beyond the safe point 5"),
        (
            of_another(|id| id.generation = Generation(2)),
            "generation 2",
        ),
        (of_another(|id| id.journal.0[0] ^= 1), "of journal"),
    ] {
        // The first of the moves is right, and is not made either.
        let refused = cursors
            .advance(&[to(at(&bench, 4), Class::Error), to(wrong, Class::Action)])
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::OutOfRange);
        assert!(refused.to_string().contains(named), "{refused}");
        assert_eq!(
            cursors.get("site", Class::Error).unwrap(),
            Some(at(&bench, 3))
        );
    }
}

/// The log was reset, or is shorter than it was: the cursors that were kept are of events that are
/// not there. Going on from them would pass over events.
///
/// Proves: EVT-6
#[test]
fn cursors_that_were_kept_are_refused_by_a_log_they_are_not_of() {
    let bench = Bench::new();
    fill(&bench, 5);
    open(&bench)
        .advance(&[to(at(&bench, 5), Class::Error)])
        .unwrap();
    let shorter = {
        let clock = bench.clock.clone();
        journal(&sim::Disk::new(1), "/events/journal", &clock)
    };
    assert_eq!(
        shorter.identity(),
        bench.journal.identity(),
        "the dice are the same"
    );
    let stranger = stranger(&bench.clock);
    for (events, named) in [
        (shorter, "beyond the safe point 0"),
        (stranger, "of journal"),
    ] {
        let own = journal(&bench.disk, DIR, &bench.clock);
        let cursors = Cursors::open(own, Arc::clone(&events)).unwrap();
        let refused = cursors.get("site", Class::Error).unwrap_err();
        assert_eq!(refused.kind(), Kind::OutOfRange);
        assert!(refused.to_string().contains(named), "{refused}");
        let id = EventId::new(events.identity(), Lsn::ZERO);
        assert!(cursors.advance(&[to(id, Class::Action)]).is_ok());
        cursors.forget("site").unwrap();
        assert_eq!(cursors.get("site", Class::Error).unwrap(), None);
        // As it was, for the next case.
        drop(cursors);
        open(&bench)
            .advance(&[to(at(&bench, 5), Class::Error)])
            .unwrap();
    }
}

fn stranger(clock: &sim::Clock) -> Arc<dyn Journal> {
    let options = wal::Options {
        upkeep: wal::Upkeep::Caller,
        holder: "the test".to_owned(),
        ..wal::Options::new(
            "/other",
            Arc::new(sim::Disk::new(2)),
            Arc::new(clock.clone()),
            Arc::new(sim::Random::new(2)),
        )
    };
    Arc::new(wal::Local::open(options).unwrap().0)
}

#[test]
fn what_a_drain_has_yet_to_send_is_not_removed() {
    let bench = Bench::new();
    let cursors = open(&bench);
    cursors.begin("site").unwrap();
    fill(&bench, 200);
    let end = bench.log.safe_point().next();
    bench.journal.release_below(end).unwrap();
    assert_eq!(
        bench.log.first_retained(),
        Lsn::FIRST,
        "the drain has sent nothing"
    );
    let all = |lsn| Class::ALL.map(|class| to(at(&bench, lsn), class));
    cursors.advance(&all(100)).unwrap();
    cursors
        .advance(&[to(at(&bench, 200), Class::Error)])
        .unwrap();
    bench.journal.release_below(end).unwrap();
    let first = bench.log.first_retained();
    assert!(first > Lsn::FIRST && first <= Lsn::new(101), "{first}");
    // Also after the cursors were opened again.
    drop(cursors);
    let cursors = open(&bench);
    bench.journal.release_below(end).unwrap();
    assert_eq!(bench.log.first_retained(), first);
    cursors.forget("site").unwrap();
    bench.journal.release_below(end).unwrap();
    assert!(bench.log.first_retained() > Lsn::new(101));
}

#[test]
fn a_cursor_never_moves_back() {
    let bench = Bench::new();
    fill(&bench, 5);
    let cursors = open(&bench);
    cursors.advance(&[to(at(&bench, 4), Class::Error)]).unwrap();
    cursors.advance(&[to(at(&bench, 2), Class::Error)]).unwrap();
    assert_eq!(
        cursors.get("site", Class::Error).unwrap(),
        Some(at(&bench, 4))
    );
}

#[test]
fn names_and_number_of_drains_have_bounds() {
    let bench = Bench::new();
    let cursors = open(&bench);
    for name in ["", "a b", "a/b", "ä", &"n".repeat(65)] {
        assert_eq!(
            cursors.begin(name).unwrap_err().kind(),
            Kind::Invalid,
            "{name}"
        );
    }
    for number in 0..DRAINS_MAX {
        cursors.begin(&format!("drain-{number}")).unwrap();
    }
    assert_eq!(cursors.begin("one-more").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(cursors.drains().len(), DRAINS_MAX);
}

#[test]
fn a_record_of_cursors_that_means_nothing_is_refused() {
    let bench = Bench::new();
    let kind = crate::cursors::KIND;
    for bytes in [&b""[..], &[2], &[1, 9], &[1, 1, b'a'], &[1, 1, b'a', 9]] {
        let own = journal(&bench.disk, DIR, &bench.clock);
        own.append(&[(kind, bytes)]).unwrap();
        let refused = Cursors::open(own, Arc::clone(&bench.journal)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{bytes:?}: {refused}");
    }
}

#[test]
fn records_of_other_kinds_hide_no_cursor() {
    let bench = Bench::new();
    fill(&bench, 5);
    open(&bench)
        .advance(&[to(at(&bench, 3), Class::Error)])
        .unwrap();
    let own = journal(&bench.disk, DIR, &bench.clock);
    own.append(&[(wal::RecordKind(9), b"of a kind to come")])
        .unwrap();
    drop(own);
    let cursors = open(&bench);
    assert_eq!(
        cursors.get("site", Class::Error).unwrap(),
        Some(at(&bench, 3))
    );
}

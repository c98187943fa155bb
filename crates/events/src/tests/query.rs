//! Reading: filters, order, following.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use wal::{Lsn, RecordKind};
use world::Timestamp;

use super::{Bench, event};
use crate::{Class, Filter, Kind, NewEvent, TraceId, query::follow};

fn bodies(bench: &Bench, from: u64, filter: &Filter) -> Vec<String> {
    let events = bench.log.read(Lsn::new(from), filter).unwrap();
    events.map(|event| event.unwrap().event.body).collect()
}

/// One event of each class, in order of the classes, each earlier than the one before it.
fn one_of_each(bench: &Bench, trace: Option<TraceId>) {
    for (number, class) in (0..).zip(Class::ALL) {
        let new = NewEvent {
            producer_id: Some(format!("p{number}")),
            time: Timestamp::from_nanos(100 - number),
            source: if number < 2 { "a" } else { "b" }.to_owned(),
            class,
            trace: trace.filter(|_| number == 3),
            ..event(&number.to_string())
        };
        bench.append(new).unwrap();
    }
}

/// Proves: EVT-8
#[test]
fn events_are_found_by_class_source_time_and_trace() {
    let bench = Bench::new();
    let trace = Some(TraceId([7; 16]));
    one_of_each(&bench, trace);
    let all = Filter::default();
    let at = |nanos| Some(Timestamp::from_nanos(nanos));
    let of = |source: &str| Some(source.to_owned());
    let p4 = Some("p4".to_owned());
    let some = vec![Class::Action, Class::Error];
    let others = vec![Class::Other];
    #[rustfmt::skip]
    let cases = [
        (all.clone(), "01234"),
        (Filter { classes: some, ..all.clone() }, "02"),
        (Filter { source: of("a"), ..all.clone() }, "01"),
        (Filter { source: of("A"), ..all.clone() }, ""),
        (Filter { since: at(98), ..all.clone() }, "012"),
        (Filter { until: at(98), ..all.clone() }, "34"),
        (Filter { since: at(97), until: at(99), ..all.clone() }, "23"),
        (Filter { trace, ..all.clone() }, "3"),
        (Filter { producer_id: p4, ..all.clone() }, "4"),
        (Filter { classes: others, source: of("a"), ..all.clone() }, ""),
    ];
    for (filter, expected) in cases {
        assert_eq!(bodies(&bench, 1, &filter).concat(), expected, "{filter:?}");
    }
    assert_eq!(bodies(&bench, 4, &all).concat(), "34");
    assert_eq!(bodies(&bench, 6, &all).concat(), "");
    let refused = bench.log.read(Lsn::ZERO, &all).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange);
}

/// A time server sets the clock back while events come. Whoever ordered by it would show them out of
/// order, or wait for a time that has been.
#[test]
fn a_clock_that_goes_back_changes_no_order() {
    let bench = Bench::new();
    let mut expected = Vec::new();
    for (number, nanos) in [500, 400, 450, 3, 10_000, 1].into_iter().enumerate() {
        bench.clock.set_now(Timestamp::from_nanos(nanos));
        bench.append(event(&number.to_string())).unwrap();
        expected.push((
            u64::try_from(number).unwrap() + 1,
            Timestamp::from_nanos(nanos),
        ));
    }
    let found: Vec<_> = bench
        .log
        .read(Lsn::FIRST, &Filter::default())
        .unwrap()
        .map(|event| {
            event
                .map(|event| (event.id.lsn.get(), event.received))
                .unwrap()
        })
        .collect();
    assert_eq!(found, expected);
}

/// Proves: EVT-8
#[test]
fn a_follower_sees_what_was_there_what_comes_and_stops_when_told() {
    let bench = Bench::new();
    bench.append(event("0")).unwrap();
    let stop = AtomicBool::new(false);
    let filter = Filter {
        classes: vec![Class::Other],
        ..Filter::default()
    };
    let (log, stop) = (&bench.log, &stop);
    thread::scope(|scope| {
        let follower = scope.spawn(move || {
            let mut found = Vec::new();
            follow(log, Lsn::FIRST, &filter, stop, |event| {
                found.push(event.event.body);
                if found.len() == 20 {
                    stop.store(true, Ordering::Relaxed);
                }
                true
            })
            .map(|()| found)
        });
        for number in 1..40 {
            let class = if number % 2 == 0 {
                Class::Other
            } else {
                Class::Error
            };
            bench
                .append(NewEvent {
                    class,
                    ..event(&number.to_string())
                })
                .unwrap();
        }
        let found = follower.join().unwrap().unwrap();
        let expected: Vec<String> = (0..20).map(|number| (2 * number).to_string()).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_record_that_is_no_event_is_passed_over_or_told_and_reading_goes_on() {
    let bench = Bench::new();
    bench.append(event("1")).unwrap();
    bench
        .journal
        .append(&[(RecordKind(9), b"of a kind to come")])
        .unwrap();
    bench
        .journal
        .append(&[(crate::event::KIND, b"\x02later")])
        .unwrap();
    bench.append(event("2")).unwrap();
    let found: Vec<_> = bench
        .log
        .read(Lsn::FIRST, &Filter::default())
        .unwrap()
        .collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].as_ref().unwrap().event.body, "1");
    let refused = found[1].as_ref().unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("version 2"), "{refused}");
    assert_eq!(found[2].as_ref().unwrap().event.body, "2");
}

//! Frames as events in a log of events.

use std::sync::Arc;

use wal::{Journal, Local, Upkeep};
use world::{Timestamp, sim};

use super::{dir, frame, log_of, open, options, put, with};
use crate::{
    Class, Filter, NewEvent,
    v1::{Cause, Imported, SAFE_SEQ, Seq, WAL, events, frames, import, import::event_of},
};

const NOW: Timestamp = Timestamp::from_nanos(5);

/// A log of events on a disk of its own.
fn log_of_events() -> crate::Log {
    let disk: Arc<dyn world::Disk> = Arc::new(sim::Disk::new(1));
    let clock = Arc::new(sim::Clock::new(NOW));
    let journal = wal::Options {
        upkeep: Upkeep::Caller,
        segment_bytes: wal::SEGMENT_BYTES_MIN,
        ..wal::Options::new(
            "/journal",
            Arc::clone(&disk),
            Arc::clone(&clock) as _,
            Arc::new(sim::Random::new(1)),
        )
    };
    let journal: Arc<dyn Journal> = Arc::new(Local::open(journal).unwrap().0);
    let options = crate::Options::new(journal, disk, clock, "/ids");
    crate::Log::open(options).unwrap().0
}

fn kept(log: &crate::Log) -> Vec<NewEvent> {
    log.read(log.first_retained(), &Filter::default())
        .unwrap()
        .map(|event| event.unwrap().event)
        .collect()
}

fn imported(frames: u64, appended: u64) -> Imported {
    Imported {
        frames,
        appended,
        duplicates: frames - appended,
        ..Imported::default()
    }
}

/// Proves: JRN-30
#[test]
fn committed_frames_are_imported_once_however_often_it_is_run() {
    let log = log_of_events();
    let disk = with(&log_of(&[1, 2, 3, 4]), Some(3));
    let run = || import(dir(), &options(&disk), &log, NOW).unwrap();
    assert_eq!(run(), imported(3, 3));
    assert_eq!(run(), imported(3, 0));
    // It grows, and only what is new is taken.
    let (mut opened, _) = open(&disk).unwrap();
    opened.append(&["{}", "{}"]).unwrap();
    assert_eq!(run(), imported(5, 2));
    drop(opened);
    let bodies: Vec<String> = kept(&log).into_iter().map(|event| event.body).collect();
    assert_eq!(bodies[..3], [1, 2, 3].map(super::payload));
    assert_eq!(bodies[3..], [r#"{"seq":4}"#, r#"{"seq":5}"#]);
}

#[test]
fn a_log_that_began_anew_is_not_taken_for_the_one_before() {
    let log = log_of_events();
    for text in ["before", "after"] {
        let frames: Vec<u8> = (1..=3)
            .flat_map(|seq| frame(&format!(r#"{{"seq":{seq},"text":"{text}"}}"#)))
            .collect();
        let disk = with(&frames, Some(3));
        assert_eq!(
            import(dir(), &options(&disk), &log, NOW).unwrap(),
            imported(3, 3)
        );
    }
    assert_eq!(kept(&log).len(), 6);
}

#[test]
fn what_opening_refuses_is_not_imported() {
    let log = log_of_events();
    let disk = with(&log_of(&[1, 3]), Some(3));
    let error = import(dir(), &options(&disk), &log, NOW).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::SeqGap));
    let disk = with(&log_of(&[1, 2]), None);
    let error = import(dir(), &options(&disk), &log, NOW).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::SafePointMissing));
    assert!(kept(&log).is_empty());
    let empty = sim::Disk::new(1);
    put(&empty, SAFE_SEQ, &[0; 8]);
    assert_eq!(events(dir(), &options(&empty), NOW).unwrap().count(), 0);
}

#[test]
fn members_become_parts_of_the_event_and_all_stay_in_its_body() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let payload = format!(
        r#"{{"seq":1,"kind":"ai.policy.decision","timestamp":"1970-01-01T00:00:01Z","service":"arm-7","trace_id":"{trace}","span_id":"b7ad6b7169203331"}}"#
    );
    let event = event_of(payload.as_bytes(), NOW);
    assert_eq!(event.class, Class::Decision);
    assert_eq!(event.time, Timestamp::from_nanos(1_000_000_000));
    assert_eq!(event.source, "arm-7");
    assert_eq!(event.trace.unwrap().to_string(), trace);
    assert_eq!(event.span.unwrap().to_string(), "b7ad6b7169203331");
    assert_eq!(event.body, payload);

    let plain = event_of(br#"{"seq":1,"kind":7,"time":"noon"}"#, NOW);
    assert_eq!((plain.class, plain.time), (Class::Other, NOW));
    assert_eq!(plain.source, "telemetry-v1");
    for (payload, body) in [
        (
            &b"{\"a\":\"\xff\"}"[..],
            r#"{"telemetry_v1_hex":"7b2261223a22ff227d"}"#,
        ),
        (
            br#"{"a":"\ud800"}"#,
            r#"{"telemetry_v1":"{\"a\":\"\\ud800\"}"}"#,
        ),
    ] {
        let event = event_of(payload, NOW);
        assert_eq!(event.body, body);
        event.check().unwrap();
    }
}

#[test]
fn a_frame_that_no_event_can_hold_is_named_and_the_others_are_imported() {
    let long = format!(r#"{{"seq":2,"text":"{}"}}"#, "x".repeat(2 << 20));
    let disk = with(
        &[log_of(&[1]), frame(&long), log_of(&[3])].concat(),
        Some(3),
    );
    let log = log_of_events();
    let done = import(dir(), &options(&disk), &log, NOW).unwrap();
    assert_eq!((done.frames, done.appended, done.refused), (3, 2, 1));
    assert_eq!(done.refusals[0].0, Seq(2));
    assert!(done.refusals[0].1.contains("body of"), "{done:?}");
}

#[test]
fn every_whole_frame_can_be_looked_at_whatever_the_rules_say() {
    let disk = sim::Disk::new(1);
    put(
        &disk,
        WAL,
        &[log_of(&[4, 2]), frame("{"), vec![0; 4], vec![9]].concat(),
    );
    let found: Vec<_> = frames(dir(), &options(&disk))
        .unwrap()
        .map(|frame| frame.map(|frame| (frame.offset, frame.seq)).unwrap())
        .collect();
    let len = log_of(&[1]).len() as u64;
    assert_eq!(
        found,
        [
            (0, Some(Seq(4))),
            (len, Some(Seq(2))),
            (2 * len, None),
            (2 * len + 5, None)
        ]
    );
}

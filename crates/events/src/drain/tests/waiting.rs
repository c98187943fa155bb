//! When a drain sends, by a clock in the hands of the test.

use super::*;

fn failures(engine: &Engine, class: Class) -> u32 {
    engine.class_status(class).failures
}

/// Proves: EVT-5
#[test]
fn a_receiver_that_asks_for_time_gets_it() {
    let site = Site::new();
    site.append([Class::Error]);
    let peer = Peer::new(|_| Answer::Status(429, vec![("retry-after", "30")]));
    let mut engine = Engine::new(site.options(&otlp(&peer), Mode::Follow)).unwrap();
    turn_until(&mut engine, |engine| failures(engine, Class::Error) == 1);
    site.clock.advance(Duration::from_millis(29_900));
    for _ in 0..100 {
        engine.turn();
        assert!(!engine.class_status(Class::Error).is_sending);
    }
    assert_eq!(peer.requests().len(), 1);
    site.clock.advance(Duration::from_secs(2));
    turn_until(&mut engine, |engine| failures(engine, Class::Error) == 2);
    peer.answers(|_| Answer::Accept);
    site.clock.advance(Duration::from_secs(60));
    turn_until(&mut engine, |engine| failures(engine, Class::Error) == 0);
    assert_eq!(peer.requests().len(), 3);
    let status = engine.class_status(Class::Error);
    assert_eq!(status.accepted, 1);
    assert_eq!(status.failing_since, None);
    assert!(status.last_error.is_some(), "kept for whoever looks later");
}

/// Proves: EVT-4
#[test]
fn a_receiver_that_stalls_for_one_class_is_waited_for_by_that_class_alone() {
    let site = Site::new();
    let ids = site.append([Class::Error, Class::Decision, Class::Other]);
    let stalled = ids[0].to_string();
    let peer = Peer::new(move |request| {
        if request.events.contains(&stalled) {
            return Answer::Stall;
        }
        Answer::Accept
    });
    let mut options = site.options(&otlp(&peer), Mode::Follow);
    options.receivers.send_timeout = Duration::from_secs(600);
    let mut engine = Engine::new(options).unwrap();
    engine.turn();
    peer.wait_for_requests(1);
    // The send is slow from here on, and goes on.
    site.clock.advance(Duration::from_secs(2));
    turn_until(&mut engine, |engine| {
        engine.class_status(Class::Decision).accepted == 1
            && engine.class_status(Class::Other).accepted == 1
    });
    let error = engine.class_status(Class::Error);
    assert!(error.is_sending);
    assert_eq!((error.accepted, error.failures), (0, 0));
}

#[test]
fn an_idle_class_moves_its_cursor_when_it_has_rested() {
    let site = Site::new();
    site.append([Class::Other; 50]);
    let peer = Peer::new(|_| Answer::Accept);
    let mut options = site.options(&otlp(&peer), Mode::Follow);
    options.classes = vec![Class::Error];
    let mut engine = Engine::new(options).unwrap();
    engine.turn();
    assert_eq!(site.cursor(Class::Error), Lsn::ZERO, "not a write an event");
    site.clock.advance(Duration::from_secs(6));
    engine.turn();
    assert_eq!(site.cursor(Class::Error), site.events.safe_point());
    assert_eq!(peer.requests().len(), 0);
}

/// Proves: EVT-6
#[test]
fn a_cursor_of_another_generation_is_refused_with_the_way_out() {
    let site = Site::new();
    site.append([Class::Error; 2]);
    let peer = Peer::new(|_| Answer::Accept);
    site.drain_once(&otlp(&peer)).unwrap();
    // The same cursors beside another journal, as after the log was made anew.
    let other = journal(&site.disk, &site.clock, "/another/journal", 2).unwrap();
    let record = event::encode(&new_event(Class::Error), Timestamp::from_nanos(6));
    for _ in 0..5 {
        other.append(&[(event::KIND, &record)]).unwrap();
    }
    let cursors = Cursors::open(Arc::clone(&site.cursor_journal), Arc::clone(&other)).unwrap();
    let options = Options {
        journal: other,
        cursors: Arc::new(cursors),
        ..site.options(&otlp(&peer), Mode::Once)
    };
    let error = Handle::start(options.clone()).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::OutOfRange);
    assert!(error.to_string().contains("--forget drain"), "{error}");
    assert!(error.to_string().contains("generation"), "{error}");
    assert_eq!(peer.taken().len(), 2, "nothing was sent");
    // The way out.
    options.cursors.forget("drain").unwrap();
    assert!(ended(options).unwrap().is_complete);
    assert_eq!(peer.taken().len(), 7);
}

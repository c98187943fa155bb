//! What of the events arrives, in which order, and what becomes of those that are refused.

use super::*;

fn mixed(count: usize) -> impl Iterator<Item = Class> {
    Class::ALL.into_iter().cycle().take(count)
}

/// Proves: EVT-4
#[test]
fn everything_arrives_once_in_order_of_its_class() {
    let site = Site::new();
    let classes: Vec<Class> = mixed(2_000).collect();
    let ids = site.append(classes.iter().copied());
    let known = known(&ids, &classes);
    let peer = Peer::new(|_| Answer::Accept);
    let summary = site.drain_once(&otlp(&peer)).unwrap();
    assert!(summary.is_complete, "{summary:?}");
    assert_eq!(summary.status.accepted(), 2_000);
    assert_eq!(site.dead(), []);
    for class in Class::ALL {
        let wanted: Vec<String> = names(&ids)
            .into_iter()
            .filter(|name| known[name] == class)
            .collect();
        let got: Vec<String> = peer
            .requests()
            .iter()
            .filter(|request| class_of(request, &known) == class)
            .flat_map(|request| request.events.clone())
            .collect();
        assert_eq!(got, wanted, "{class}");
        assert_eq!(site.cursor(class), site.events.safe_point(), "{class}");
    }
    let request = &peer.requests()[0];
    assert_eq!(request.path, "/v1/logs");
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    // A second drain has nothing to do.
    let before = peer.requests().len();
    assert!(site.drain_once(&otlp(&peer)).unwrap().is_complete);
    assert_eq!(peer.requests().len(), before);
}

/// Proves: EVT-4
#[test]
fn the_lowest_class_moves_while_errors_never_run_out() {
    let site = Site::new();
    let mut classes = vec![Class::Error; 20 * 512];
    classes.extend([Class::Other; 3]);
    let ids = site.append(classes.iter().copied());
    let known = known(&ids, &classes);
    let peer = Peer::new(|_| Answer::Accept);
    assert!(site.drain_once(&otlp(&peer)).unwrap().is_complete);
    let sent: Vec<Class> = peer
        .requests()
        .iter()
        .map(|request| class_of(request, &known))
        .collect();
    let place = sent
        .iter()
        .position(|class| *class == Class::Other)
        .unwrap();
    // The survey may find the lowest class a few batches after the first.
    assert!(place < sent.len() - 1, "last of all: {sent:?}");
}

/// Proves: EVT-4, EVT-5
#[test]
fn a_class_that_fails_neither_blocks_nor_resends_another() {
    let site = Site::new();
    let classes: Vec<Class> = mixed(500).collect();
    let ids = site.append(classes.iter().copied());
    let known = known(&ids, &classes);
    let of = known.clone();
    let peer = Peer::new(move |request| match class_of(request, &of) {
        Class::Decision => Answer::Status(503, vec![]),
        _ => Answer::Accept,
    });
    let summary = site.drain_once(&otlp(&peer)).unwrap();
    assert!(!summary.is_complete);
    let mut taken = peer.taken();
    taken.sort();
    let wanted = known.iter().filter(|(_, class)| **class != Class::Decision);
    let mut wanted: Vec<String> = wanted.map(|(name, _)| name.clone()).collect();
    wanted.sort();
    assert_eq!(taken, wanted, "each of the others once");
    assert_eq!(site.cursor(Class::Decision), Lsn::ZERO);
    assert_eq!(site.dead(), [], "a failure is no refusal");
    let status = summary.status.classes;
    let decision = status
        .iter()
        .find(|one| one.class == Class::Decision)
        .unwrap();
    assert_eq!(decision.waiting, 100);
    assert!(decision.failures > 1);
    assert!(decision.failing_since.is_some());
    assert!(decision.last_error.as_ref().unwrap().contains("503"));
    // It comes back.
    peer.answers(|_| Answer::Accept);
    assert!(site.drain_once(&otlp(&peer)).unwrap().is_complete);
    assert_eq!(peer.taken().len(), 500);
}

#[test]
fn what_a_receiver_took_and_did_not_say_is_sent_again() {
    let site = Site::new();
    let ids = site.append([Class::Error; 3]);
    let mut hang_ups = 2;
    let peer = Peer::new(move |_| {
        if hang_ups > 0 {
            hang_ups -= 1;
            return Answer::HangUp;
        }
        Answer::Accept
    });
    assert!(site.drain_once(&otlp(&peer)).unwrap().is_complete);
    assert_eq!(
        peer.taken(),
        [names(&ids), names(&ids), names(&ids)].concat()
    );
}

#[test]
fn a_receiver_that_never_answers_is_given_up_and_loses_nothing() {
    let site = Site::new();
    let ids = site.append([Class::Error, Class::Other]);
    let peer = Peer::new(|_| Answer::Stall);
    let mut options = site.options(&otlp(&peer), Mode::Once);
    options.receivers.send_timeout = Duration::from_millis(50);
    let summary = ended(options).unwrap();
    assert!(!summary.is_complete);
    assert_eq!(summary.status.waiting(), 2);
    assert_eq!(site.cursor(Class::Error), Lsn::ZERO);
    peer.answers(|_| Answer::Accept);
    assert!(site.drain_once(&otlp(&peer)).unwrap().is_complete);
    let mut taken = peer.taken();
    taken.sort();
    assert_eq!(taken, names(&ids));
}

/// Proves: EVT-5
#[test]
fn a_partial_success_keeps_every_event_it_may_be_about() {
    let check = |rejected: i64, dead: usize, said: &str| {
        let site = Site::new();
        let ids = site.append([Class::Action; 4]);
        let peer = Peer::new(move |_| Answer::Refuse(rejected));
        let summary = site.drain_once(&otlp(&peer)).unwrap();
        assert!(summary.is_complete);
        assert_eq!(summary.status.refused(), dead as u64, "{rejected}");
        assert_eq!(site.dead_names(), names(&ids)[..dead], "{rejected}");
        for entry in site.dead() {
            assert!(entry.letter.why.contains(said), "{}", entry.letter.why);
            assert!(entry.letter.why.contains("unfit"), "{}", entry.letter.why);
            assert!(!entry.letter.why.contains('\x1b'));
            assert_eq!(entry.letter.event.event.body, "{\"class\":\"action\"}");
        }
        assert_eq!(peer.requests().len(), 1, "OTLP forbids sending it again");
    };
    check(0, 0, "");
    check(
        1,
        4,
        "1 of 4 of the batch refused, receiver did not say which",
    );
    check(4, 4, "all 4 of the batch refused");
    check(9, 4, "all 4 of the batch refused");
}

/// Proves: EVT-5
#[test]
fn one_unfit_event_is_found_and_takes_no_other_along() {
    for status in [400, 413, 422, 500] {
        let site = Site::new();
        let ids = site.append([Class::Error; 100]);
        let unfit = ids[37].to_string();
        let is_unfit = unfit.clone();
        let peer = Peer::new(move |request| {
            if request.events.contains(&is_unfit) {
                return Answer::Status(status, vec![]);
            }
            Answer::Accept
        });
        let summary = site.drain_once(&otlp(&peer)).unwrap();
        assert!(summary.is_complete, "{status}");
        assert_eq!(site.dead_names(), [unfit.as_str()], "{status}");
        assert!(site.dead()[0].letter.why.contains(&status.to_string()));
        let wanted: Vec<String> = names(&ids).into_iter().filter(|id| *id != unfit).collect();
        assert_eq!(peer.taken(), wanted, "{status}");
    }
}

/// Proves: EVT-5
#[test]
fn a_receiver_that_is_not_set_up_for_us_loses_nothing() {
    for status in [301, 401, 403, 404, 405, 415] {
        let site = Site::new();
        site.append([Class::Error; 10]);
        let peer = Peer::new(move |_| Answer::Status(status, vec![("location", "/elsewhere")]));
        let summary = site.drain_once(&otlp(&peer)).unwrap();
        assert!(!summary.is_complete);
        assert_eq!(site.dead(), [], "{status}");
        assert_eq!(site.cursor(Class::Error), Lsn::ZERO, "{status}");
        assert_eq!(
            peer.requests().len(),
            1,
            "{status}: not asked again at once"
        );
        assert_eq!(summary.status.waiting(), 10);
    }
}

#[test]
fn lines_go_to_another_holdfast_with_their_ids() {
    let site = Site::new();
    let ids = site.append([Class::Error, Class::Error]);
    let peer = Peer::new(|_| Answer::Accept);
    let summary = site
        .drain_once(&format!("holdfast={}", peer.url()))
        .unwrap();
    assert!(summary.is_complete);
    assert_eq!(peer.taken(), names(&ids));
    assert_eq!(peer.requests()[0].path, "/api/v1/events");
}

#[test]
fn who_answers_like_no_holdfast_is_not_believed() {
    let site = Site::new();
    site.append([Class::Error, Class::Error]);
    let peer = Peer::new(|_| Answer::Nonsense);
    let summary = site
        .drain_once(&format!("holdfast={}", peer.url()))
        .unwrap();
    assert!(!summary.is_complete);
    assert_eq!(site.cursor(Class::Error), Lsn::ZERO);
}

#[test]
fn only_the_wanted_classes_are_sent_and_the_rest_holds_back_no_retention() {
    let site = Site::new();
    let ids = site.append(mixed(100));
    let peer = Peer::new(|_| Answer::Accept);
    let mut options = site.options(&otlp(&peer), Mode::Once);
    options.classes = vec![Class::Error];
    let summary = ended(options).unwrap();
    assert!(summary.is_complete);
    let wanted: Vec<EventId> = ids.into_iter().step_by(5).collect();
    assert_eq!(peer.taken(), names(&wanted));
    for class in Class::ALL {
        assert_eq!(site.cursor(class), site.events.safe_point(), "{class}");
    }
}

/// Proves: EVT-5
#[test]
fn dead_letters_are_sent_again_when_asked_and_what_came_of_it_is_kept() {
    let site = Site::new();
    site.append([Class::Action; 3]);
    let peer = Peer::new(|_| Answer::Refuse(3));
    let to = otlp(&peer);
    site.drain_once(&to).unwrap();
    assert_eq!(site.letters.waiting().unwrap(), 3);
    // The second is refused again, then the receiver goes away.
    let mut asked = 0;
    peer.answers(move |_| {
        asked += 1;
        match asked {
            1 => Answer::Accept,
            2 => Answer::Refuse(1),
            _ => Answer::Status(503, vec![]),
        }
    });
    let receivers = site.options(&to, Mode::Once).receivers;
    let again = || {
        let stop = std::sync::atomic::AtomicBool::new(false);
        retry(&site.letters, &receivers, &site.clock, &stop, |_| true).unwrap()
    };
    let retried = again();
    assert_eq!((retried.accepted, retried.refused), (1, 1));
    assert!(retried.stopped.unwrap().contains("503"));
    assert_eq!(site.letters.waiting().unwrap(), 2);
    peer.answers(|_| Answer::Accept);
    let retried = again();
    assert_eq!((retried.accepted, retried.refused), (2, 0));
    assert_eq!(site.letters.waiting().unwrap(), 0);
    assert_eq!(site.dead().len(), 3, "a letter stays on record");
    assert_eq!(again(), Retried::default(), "nothing waits");
}

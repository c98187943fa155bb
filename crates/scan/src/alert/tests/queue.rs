//! The queues of receivers.

use super::*;

fn notices(site: &Site, count: u64) {
    let outbox = site.outbox();
    for number in 0..count {
        let event = Event {
            event: What::Opened,
            alert: number,
            kind: Kind::HostUnreachable,
            severity: Severity::High,
            state: State::Open,
            subject: None,
            detail: String::new(),
            first: 0,
            last: 0,
            count: 1,
        };
        let mut transaction = site.store.begin().unwrap();
        outbox
            .put_in(
                &mut transaction,
                &site.receivers,
                None,
                &[event],
                site.now(),
            )
            .unwrap();
        transaction.commit().unwrap();
    }
}

fn again(after: Option<Duration>) -> Tried {
    Tried::Again {
        reason: "HTTP 503".to_owned(),
        after,
    }
}

#[test]
fn a_full_queue_counts_what_it_cannot_take_and_tells_the_count_when_it_has_drained() {
    let site = Site::new();
    notices(&site, QUEUE_MAX + 10);
    let row = site.outbox().receiver("r").unwrap();
    assert_eq!(
        (row.waiting, row.left_out.as_ref().unwrap().events),
        (QUEUE_MAX, 10)
    );
    // One has left; what comes now is not told before what came earlier.
    let claimed = site
        .outbox()
        .claim("r", "w", site.now(), MINUTE)
        .unwrap()
        .unwrap();
    site.outbox()
        .finish(&claimed, &Tried::Taken, site.now())
        .unwrap();
    notices(&site, 1);
    let told = site.told("r");
    assert_eq!(told.len(), usize::try_from(QUEUE_MAX).unwrap());
    assert_eq!(told.last().unwrap(), "11 left out");
    notices(&site, 1);
    assert_eq!(site.told("r"), ["opened host_unreachable -"]);
}

#[test]
fn waits_double_up_to_a_ceiling_and_attempts_end() {
    let site = Site::new();
    notices(&site, 2);
    let outbox = site.outbox();
    let mut last = Duration::ZERO;
    for attempt in 1..=ATTEMPTS_MAX {
        let claimed = outbox.claim("r", "w", site.now(), MINUTE).unwrap().unwrap();
        assert_eq!(claimed.delivery.number, 0);
        let ended = outbox.finish(&claimed, &again(None), site.now()).unwrap();
        assert_eq!(ended.is_some(), attempt == ATTEMPTS_MAX);
        let row = outbox.receiver("r").unwrap();
        let wait = Duration::from_nanos(row.not_before - site.now().nanos());
        let least = RETRY_FIRST
            .saturating_mul(1 << (attempt - 1))
            .min(RETRY_CEILING);
        assert!(
            wait >= least && wait <= RETRY_CEILING,
            "{attempt}: {wait:?}"
        );
        assert!(
            wait >= last.min(least),
            "{attempt}: {wait:?} after {last:?}"
        );
        // Before that nobody gets it.
        site.wait(wait - Duration::from_nanos(1));
        assert_eq!(outbox.claim("r", "w", site.now(), MINUTE).unwrap(), None);
        site.wait(Duration::from_nanos(1));
        last = wait;
    }
    let (waiting, finished) = outbox.deliveries("r").unwrap();
    assert_eq!((waiting.len(), finished.len()), (1, 1));
    let Some(Ended::Dead { reason, .. }) = &finished[0].ended else {
        panic!("{finished:?}")
    };
    assert_eq!(reason, "16 attempts: HTTP 503");
    // The next one has its own attempts.
    assert_eq!(site.told("r").len(), 1);
    assert_eq!(outbox.receiver("r").unwrap().failures, 0);
}

#[test]
fn a_receiver_may_ask_for_a_longer_wait_and_not_for_one_without_end() {
    for (asked, least, most) in [
        (
            Duration::from_secs(60),
            Duration::from_secs(60),
            Duration::from_secs(72),
        ),
        (Duration::MAX, RETRY_CEILING, RETRY_CEILING),
        (Duration::ZERO, RETRY_FIRST, RETRY_FIRST * 2),
    ] {
        let site = Site::new();
        notices(&site, 1);
        let outbox = site.outbox();
        let claimed = outbox.claim("r", "w", site.now(), MINUTE).unwrap().unwrap();
        outbox
            .finish(&claimed, &again(Some(asked)), site.now())
            .unwrap();
        let row = outbox.receiver("r").unwrap();
        let wait = Duration::from_nanos(row.not_before - site.now().nanos());
        assert!(wait >= least && wait <= most, "{asked:?}: {wait:?}");
    }
}

#[test]
fn one_receiver_that_does_not_answer_holds_no_other_up() {
    let mut site = Site::new();
    site.receivers = vec![receiver("dead"), receiver("r")];
    notices(&site, 3);
    let outbox = site.outbox();
    let claimed = outbox
        .claim("dead", "w", site.now(), MINUTE)
        .unwrap()
        .unwrap();
    outbox.finish(&claimed, &again(None), site.now()).unwrap();
    assert_eq!(outbox.claim("dead", "w", site.now(), MINUTE).unwrap(), None);
    assert_eq!(site.told("r").len(), 3);
    assert_eq!(outbox.receiver("dead").unwrap().waiting, 3);
}

#[test]
fn what_one_sends_another_does_not_until_the_lease_ends() {
    let site = Site::new();
    notices(&site, 1);
    let outbox = site.outbox();
    let first = outbox
        .claim("r", "one", site.now(), MINUTE)
        .unwrap()
        .unwrap();
    assert_eq!(outbox.claim("r", "two", site.now(), MINUTE).unwrap(), None);
    site.wait(MINUTE);
    let second = outbox
        .claim("r", "two", site.now(), MINUTE)
        .unwrap()
        .unwrap();
    assert_eq!(
        first.delivery.notice.id, second.delivery.notice.id,
        "dropped by its id"
    );
    // The one that came too late changes nothing: neither the wait nor who has it.
    let before = (
        outbox.receiver("r").unwrap(),
        outbox.deliveries("r").unwrap(),
    );
    assert_eq!(
        outbox.finish(&first, &again(None), site.now()).unwrap(),
        None
    );
    let after = (
        outbox.receiver("r").unwrap(),
        outbox.deliveries("r").unwrap(),
    );
    assert_eq!(after, before);
    outbox.finish(&second, &Tried::Taken, site.now()).unwrap();
    assert_eq!(
        outbox.finish(&first, &Tried::Taken, site.now()).unwrap(),
        None
    );
    let row = outbox.receiver("r").unwrap();
    assert_eq!((row.sent, row.dead, row.waiting), (1, 0, 0));
}

#[test]
fn what_is_finished_is_kept_for_a_while_and_no_longer() {
    let site = Site::new();
    for _ in 0..FINISHED_MAX + 5 {
        notices(&site, 1);
        site.told("r");
    }
    let (waiting, finished) = site.outbox().deliveries("r").unwrap();
    assert_eq!(waiting.len(), 0);
    assert_eq!(finished.len(), usize::try_from(FINISHED_MAX).unwrap());
    assert_eq!(finished[0].number, FINISHED_MAX + 4, "newest first");
}

#[test]
fn what_a_receiver_says_is_cut_and_writes_over_no_terminal() {
    let site = Site::new();
    notices(&site, 1);
    let outbox = site.outbox();
    let claimed = outbox.claim("r", "w", site.now(), MINUTE).unwrap().unwrap();
    let reason = format!("\u{1b}[2J{}\r\n", "x".repeat(5000));
    outbox
        .finish(&claimed, &Tried::Refused { reason }, site.now())
        .unwrap();
    let error = outbox.receiver("r").unwrap().last_error.unwrap();
    assert!(
        !error.chars().any(char::is_control) && error.len() <= 300,
        "{error:?}"
    );
}

/// Proves: LED-12
#[test]
fn a_receiver_that_fails_is_told_to_the_others() {
    let mut site = Site::new();
    site.receivers = vec![receiver("dead"), receiver("r")];
    notices(&site, 1);
    site.told("r");
    let outbox = site.outbox();
    for _ in 0..5 {
        let claimed = outbox
            .claim("dead", "w", site.now(), MINUTE)
            .unwrap()
            .unwrap();
        outbox.finish(&claimed, &again(None), site.now()).unwrap();
        site.wait(RETRY_CEILING);
    }
    site.look();
    assert_eq!(site.told("r"), ["opened receiver_failing dead"]);
    assert_eq!(
        site.told("dead"),
        ["opened host_unreachable -"],
        "and not of itself"
    );
    site.look();
    assert_eq!(site.told("r"), ["resolved receiver_failing dead"]);
}

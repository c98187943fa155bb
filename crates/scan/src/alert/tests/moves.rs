//! Who may move an alert where.

use super::*;
use Outcome::{Fail, Pass};

/// An alert in `state`.
fn in_state(state: State) -> Site {
    let site = Site::new();
    site.scan("a", &[("critical-1", Pass)]);
    site.scan("a", &[("critical-1", Fail)]);
    site.look();
    let alerts = site.alerts();
    match state {
        State::Open => {}
        State::Acknowledged => drop(alerts.acknowledge(1, "", site.now(), "user anna").unwrap()),
        State::Silenced => {
            let until = site.now().plus(HOUR);
            alerts
                .silence(1, until, "", site.now(), "user anna")
                .unwrap();
        }
        State::Resolved => drop(alerts.resolve(1, "", site.now(), "user anna").unwrap()),
    }
    assert_eq!(alerts.get(1, None).unwrap().unwrap().state, state);
    site
}

/// Every state with every step of a person: done, audited and kept, or refused and nothing.
/// Proves: LED-12
#[test]
fn each_step_of_a_person_is_taken_from_the_states_of_the_table_and_from_no_other() {
    type StepOf = fn(&Site) -> Result<Alert, Error>;
    let steps: [(State, &str, StepOf); 3] = [
        (State::Acknowledged, "alert.acknowledged", |site| {
            site.alerts()
                .acknowledge(1, "seen", site.now(), "user otto")
        }),
        (State::Silenced, "alert.silenced", |site| {
            let until = site.now().plus(HOUR * 2);
            site.alerts()
                .silence(1, until, "at night", site.now(), "user otto")
        }),
        (State::Resolved, "alert.resolved", |site| {
            site.alerts().resolve(1, "done", site.now(), "user otto")
        }),
    ];
    for before in State::ALL {
        for (after, action, step) in steps {
            let site = in_state(before);
            let (row, audited) = (site.all()[0].clone(), site.audited().len());
            let done = step(&site);
            let case = format!("{before} to {after}: {done:?}");
            // Only the same again opens what is over.
            let is_legal = State::MOVES.contains(&(before, after)) && before != State::Resolved;
            assert_eq!(done.is_ok(), is_legal, "{case}");
            let records = site.audited();
            if is_legal {
                assert_eq!(site.all()[0].state, after, "{case}");
                let last = records.last().unwrap();
                assert_eq!(
                    (last.action.as_str(), last.actor.as_str()),
                    (action, "user otto")
                );
                assert_eq!(records.len(), audited + 1, "{case}");
            } else {
                assert_eq!(done.unwrap_err().kind, ErrorKind::Refused);
                assert_eq!(
                    (site.all()[0].clone(), records.len()),
                    (row, audited),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn a_silence_ends_by_itself_and_tells_what_is_so_still() {
    let site = in_state(State::Silenced);
    site.told("r");
    site.wait(HOUR - MINUTE);
    site.look();
    assert_eq!(site.told("r"), [""; 0]);
    site.wait(MINUTE);
    site.look();
    assert_eq!(
        site.told("r"),
        ["silence_ended finding_critical critical-1"]
    );
    site.look();
    assert_eq!(site.told("r"), [""; 0]);
    assert_eq!(site.audited().last().unwrap().action, "alert.silence_ended");
}

#[test]
fn a_silence_outlasts_the_end_of_what_it_silences() {
    let site = in_state(State::Silenced);
    site.told("r");
    site.scan("a", &[("critical-1", Pass)]);
    site.look();
    assert_eq!(site.all()[0].state, State::Resolved);
    site.scan("a", &[("critical-1", Fail)]);
    site.look();
    assert_eq!(site.all()[0].state, State::Silenced);
    let of_finding = |line: &String| line.contains("finding_critical");
    assert!(!site.told("r").iter().any(of_finding));
}

#[test]
fn what_was_acknowledged_and_comes_back_is_open() {
    let site = in_state(State::Acknowledged);
    for verdict in [Pass, Fail] {
        site.wait(HOUR);
        site.scan("a", &[("critical-1", verdict)]);
    }
    site.look();
    let alert = &site.all()[0];
    assert_eq!(
        (alert.state, alert.count, alert.reopened),
        (State::Open, 2, 1)
    );
    assert!(alert.acknowledged.is_none());
    // A day later it is another one.
    site.scan("a", &[("critical-1", Pass)]);
    site.look();
    site.wait(HOUR * 25);
    site.scan("a", &[("critical-1", Fail)]);
    site.look();
    let findings: Vec<Alert> = site
        .all()
        .into_iter()
        .filter(|alert| alert.key.kind == Kind::FindingCritical)
        .collect();
    assert_eq!(findings.len(), 2);
    assert_eq!(findings[1].count, 1);
}

#[test]
fn what_was_open_at_a_past_moment_is_told_as_it_was() {
    let site = Site::new();
    let before = site.now();
    site.wait(MINUTE);
    site.scan("a", &[("critical-1", Pass)]);
    site.scan("a", &[("critical-1", Fail)]);
    site.look();
    site.wait(MINUTE);
    let open = site.now();
    site.wait(MINUTE);
    site.alerts()
        .acknowledge(1, "", site.now(), "user anna")
        .unwrap();
    site.wait(MINUTE);
    let seen = site.now();
    site.wait(MINUTE);
    site.scan("a", &[("critical-1", Pass)]);
    site.look();
    let wanted = |state| Wanted {
        states: [state].into(),
        kinds: [Kind::FindingCritical].into(),
        ..Wanted::default()
    };
    let count = |state, at| site.alerts().list(&wanted(state), at).unwrap().len();
    assert_eq!(count(State::Open, Some(before)), 0);
    assert_eq!(count(State::Open, Some(open)), 1);
    assert_eq!(count(State::Open, Some(seen)), 0);
    assert_eq!(count(State::Acknowledged, Some(seen)), 1);
    assert_eq!(count(State::Acknowledged, None), 0);
    assert_eq!(count(State::Resolved, None), 1);
}

#[test]
fn a_step_that_makes_no_sense_is_refused_with_a_way_out() {
    let site = in_state(State::Open);
    let (alerts, now) = (site.alerts(), site.now());
    for refused in [
        alerts.silence(1, now, "", now, "a"),
        alerts.silence(1, now.plus(SILENCE_MAX).plus(MINUTE), "", now, "a"),
        alerts.acknowledge(1, "two\nlines", now, "a"),
        alerts.acknowledge(1, "", now, " "),
        alerts.resolve(9, "", now, "a"),
    ] {
        let error = refused.unwrap_err();
        assert!(!error.next.is_empty(), "{error}");
    }
    assert_eq!(site.all()[0].state, State::Open);
}

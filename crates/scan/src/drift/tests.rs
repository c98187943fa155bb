use super::*;
use crate::rule::Severity;

fn turn(rule: &str, from: Outcome, to: Outcome, because: &[Cause]) -> Turn {
    Turn {
        rule: rule.to_owned(),
        kind: ChangeKind::StateChanged,
        from: Some(from),
        to,
        severity: Severity::Medium,
        severity_before: Some(Severity::Medium),
        because: because.to_vec(),
    }
}

fn summary(pass: u64, fail: u64) -> Summary {
    Summary {
        pass,
        fail,
        score: score(pass, fail),
        ..Summary::default()
    }
}

/// `turned` rules of a host with `pass` and `fail` before went from one verdict to the other.
fn check(pass: u64, fail: u64, turned: u64, from: Outcome, to: Outcome, expected: Grade) {
    let turns: Vec<Turn> = (0..turned)
        .map(|rule| turn(&rule.to_string(), from, to, &[Cause::Host]))
        .collect();
    let count = |outcome: Outcome| {
        (
            turned * u64::from(from == outcome),
            turned * u64::from(to == outcome),
        )
    };
    let ((pass_less, pass_more), (fail_less, fail_more)) =
        (count(Outcome::Pass), count(Outcome::Fail));
    let after = summary(pass - pass_less + pass_more, fail - fail_less + fail_more);
    let drift = measure(&after, &turns, &[], &mut Unseen::new());
    let case = format!("{turned} of {pass}+{fail} from {from} to {to}: {drift:?}");
    assert_eq!(drift.grade(), expected, "{case}");
    assert_eq!(drift.before, Counts { pass, fail }, "{case}");
    assert_eq!(
        drift.after,
        Counts {
            pass: after.pass,
            fail: after.fail
        },
        "{case}"
    );
}

/// Proves: LED-12
#[test]
fn the_bands_begin_exactly_at_ten_and_five_points() {
    use Outcome::{Fail, NotApplicable, Pass};
    // Of a thousand rules one is a tenth of a point.
    check(900, 100, 100, Pass, Fail, Grade::Major);
    check(900, 100, 99, Pass, Fail, Grade::Minor);
    check(900, 100, 50, Pass, Fail, Grade::Minor);
    check(900, 100, 49, Pass, Fail, Grade::Stable);
    check(900, 100, 49, Fail, Pass, Grade::Stable);
    check(900, 100, 50, Fail, Pass, Grade::Improvement);
    check(900, 100, 0, Pass, Fail, Grade::Stable);
    // A score is shown cut to a decimal and compared uncut: 9.99… points are none of ten.
    check(2, 1, 0, Pass, Fail, Grade::Stable);
    check(30_001, 0, 3000, Pass, Fail, Grade::Minor);
    check(30_000, 0, 3000, Pass, Fail, Grade::Major);
    // A package came, and what is wrong with it: 720 of 800 are 90 percent, 720 of 900 are 80.
    check(720, 80, 100, NotApplicable, Fail, Grade::Major);
    check(720, 80, 99, NotApplicable, Fail, Grade::Minor);
    // Nothing was judged, or is: nothing can be compared.
    check(0, 0, 5, NotApplicable, Fail, Grade::Stable);
    check(0, 5, 5, Fail, NotApplicable, Grade::Stable);
}

/// A pack that was replaced changes hundreds of verdicts on every host, and no host drifted.
/// Proves: LED-12
#[test]
fn what_other_rules_or_other_values_say_is_no_drift_of_the_host() {
    use Outcome::{Fail, Pass};
    for because in [
        vec![Cause::Rule],
        vec![Cause::Variables],
        vec![Cause::Host, Cause::Rule],
    ] {
        let turns: Vec<Turn> = (0..50)
            .map(|rule| turn(&rule.to_string(), Pass, Fail, &because))
            .collect();
        let drift = measure(&summary(50, 50), &turns, &[], &mut Unseen::new());
        assert_eq!(drift.grade(), Grade::Stable, "{because:?}");
        assert_eq!((drift.not_the_host, drift.failing.len()), (50, 0));
    }
    // Beside a hundred verdicts that the pack changed, the host's own are still told.
    let mut turns: Vec<Turn> = (0..50)
        .map(|rule| turn(&rule.to_string(), Pass, Fail, &[Cause::Rule]))
        .collect();
    turns.extend((100..106).map(|rule| turn(&rule.to_string(), Pass, Fail, &[Cause::Host])));
    let drift = measure(&summary(44, 56), &turns, &[], &mut Unseen::new());
    assert_eq!(drift.grade(), Grade::Major);
    assert_eq!(drift.before, Counts { pass: 50, fail: 0 });
    // A rule that is new in the pack fails; one that left it passed.
    let mut new = turn("new", Pass, Fail, &[Cause::Rule]);
    (new.kind, new.from) = (ChangeKind::FirstSeen, None);
    let drift = measure(
        &summary(5, 6),
        &[new],
        &["old".to_owned()],
        &mut Unseen::new(),
    );
    assert_eq!(drift.grade(), Grade::Stable);
}

/// Half of a host went out of sight: its score by what is left may be anything, and says nothing.
/// Proves: LED-12
#[test]
fn what_cannot_be_assessed_is_neither_better_nor_worse_and_is_compared_when_it_is_seen_again() {
    use Outcome::{Error, Fail, NotAssessed, Pass};
    let seen_again = |from: Outcome, to: Outcome| {
        let mut unseen = Unseen::new();
        let rules = || (0..50).map(|rule| rule.to_string());
        let turns = |from, to| -> Vec<Turn> {
            rules()
                .map(|rule| turn(&rule, from, to, &[Cause::Host]))
                .collect()
        };
        let away = measure(&summary(50, 0), &turns(from, NotAssessed), &[], &mut unseen);
        assert_eq!(away.grade(), Grade::Stable, "{from} went out of sight");
        assert_eq!(away.out_of_sight, 50);
        let still = measure(
            &summary(50, 0),
            &turns(NotAssessed, Error),
            &[],
            &mut unseen,
        );
        assert_eq!((still.grade(), still.out_of_sight), (Grade::Stable, 0));
        let (pass, fail) = if to == Pass { (100, 0) } else { (50, 50) };
        let back = measure(&summary(pass, fail), &turns(Error, to), &[], &mut unseen);
        assert!(unseen.is_empty());
        back.grade()
    };
    assert_eq!(seen_again(Fail, Fail), Grade::Stable);
    assert_eq!(seen_again(Pass, Pass), Grade::Stable);
    assert_eq!(seen_again(Pass, Fail), Grade::Major);
    assert_eq!(seen_again(Fail, Pass), Grade::Improvement);
}

#[test]
fn what_was_last_seen_is_forgotten_with_its_rule() {
    use Outcome::{Fail, NotAssessed, Pass};
    let mut unseen = Unseen::new();
    let away = turn("r", Pass, NotAssessed, &[Cause::Host]);
    measure(
        &summary(5, 0),
        std::slice::from_ref(&away),
        &[],
        &mut unseen,
    );
    assert_eq!(unseen.len(), 1);
    measure(&summary(5, 0), &[], &["r".to_owned()], &mut unseen);
    assert!(unseen.is_empty());
    // A rule that was changed while it was out of sight is another one.
    measure(&summary(5, 0), &[away], &[], &mut unseen);
    let changed = turn("r", NotAssessed, Fail, &[Cause::Host, Cause::Rule]);
    let drift = measure(&summary(5, 1), &[changed], &[], &mut unseen);
    assert_eq!((drift.grade(), drift.failing.len()), (Grade::Stable, 0));
    // What was never seen is compared with nothing.
    let first = turn("r", NotAssessed, Fail, &[Cause::Host]);
    let drift = measure(&summary(1, 1), &[first], &[], &mut unseen);
    assert_eq!(drift.grade(), Grade::Stable);
}

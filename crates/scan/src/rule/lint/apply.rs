//! Whether the machine-readable fix of a rule mends the rule: on paper, against its own tests.

use std::collections::BTreeSet;

use crate::{
    fix::project,
    judge::{Outcome, judge},
    rule::{FilePlace, Rule, RuleTest, Step},
};

/// What is wrong with `fix.apply`, and what to do about it.
pub(super) fn faults(rule: &Rule) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    if rule.fix.apply.is_empty() {
        return faults;
    }
    let asked = asked(rule);
    for step in &rule.fix.apply {
        let Step::File(step) = step else { continue };
        let (collector, place) = match &step.place {
            FilePlace::Path(path) => ("files", path),
            FilePlace::Glob(glob) => ("globs", glob),
        };
        if !asked.contains(&(collector.to_owned(), place.clone())) {
            faults.push((
                format!("the fix changes {place}, which the rule does not look at"),
                format!("ask for {collector}[{place}] in `check`, or leave the step out"),
            ));
        }
    }
    let mut failing = rule
        .tests()
        .iter()
        .filter(|test| test.expect == Outcome::Fail);
    if !failing.any(|test| mends(rule, test)) {
        faults.push((
            "the fix makes none of the tests that fail pass".to_owned(),
            "add a test of what it mends, or mend the steps".to_owned(),
        ));
    }
    faults
}

/// Paths and globs of the rule's own selectors, by collector.
fn asked(rule: &Rule) -> BTreeSet<(String, String)> {
    let mut asked = BTreeSet::new();
    for predicate in rule.predicates() {
        predicate.for_each_selector(&mut |selector| {
            if let (Some(collector), Some(key)) = (selector.collector(), selector.steps().first()) {
                asked.insert((collector.to_owned(), key.clone()));
            }
        });
    }
    asked
}

fn mends(rule: &Rule, test: &RuleTest) -> bool {
    let bound = match rule.with_variables(&test.variables) {
        Ok(bound) => bound,
        // A test of its own tells that.
        Err(_) => return false,
    };
    let mut facts = test.bundle();
    facts.facts = project(&bound.fix.apply, &facts.facts);
    let verdict = judge([&bound], &facts).pop();
    verdict.is_some_and(|verdict| verdict.verdict == Outcome::Pass)
}

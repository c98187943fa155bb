//! Runs the tests that rules carry.

use serde::Serialize;

use super::document::{Rule, RuleTest};
use crate::judge::{Outcome, judge, validate_evidence};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TestReport {
    pub rules: usize,
    pub tests: usize,
    pub failures: Vec<Failure>,
}

/// One test that did not give what it expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub rule: String,
    pub file: String,
    pub line: u32,
    pub test: String,
    pub expected: Outcome,
    /// `None` when the rule could not be judged at all; `reason` says why.
    pub actual: Option<Outcome>,
    pub reason: String,
}

/// Judges the facts of every test by its rule.
pub fn test_rules<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> TestReport {
    let mut report = TestReport::default();
    for rule in rules {
        report.rules += 1;
        for test in rule.tests() {
            report.tests += 1;
            report.failures.extend(run(rule, test));
        }
    }
    report
}

fn run(rule: &Rule, test: &RuleTest) -> Option<Failure> {
    let failure = |actual, reason| {
        Some(Failure {
            rule: rule.id.clone(),
            file: rule.file.clone(),
            line: test.line,
            test: test.name.clone(),
            expected: test.expect,
            actual,
            reason,
        })
    };
    let bound;
    let rule = if test.variables.is_empty() {
        rule
    } else {
        match rule.with_variables(&test.variables) {
            Ok(rule) => {
                bound = rule;
                &bound
            }
            Err(fault) => return failure(None, fault.to_string()),
        }
    };
    let verdict = judge([rule], &test.bundle()).pop()?;
    if let Err(error) = validate_evidence(verdict.evidence.bytes(), &rule.id) {
        return failure(Some(verdict.verdict), error.to_string());
    }
    if verdict.verdict == test.expect {
        None
    } else {
        failure(Some(verdict.verdict), verdict.reason)
    }
}

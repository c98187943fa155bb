//! The clause matrix: what the contract promises, where it is kept, what proves it (PRF-4).
//!
//! Everything in it is read from the tree: clauses from docs/contract, tests from their `Proves:`
//! lines, places from comments that name a clause. A clause is proved by a test or listed, with a
//! reason, in [`PENDING`]; it is in both only when the list says what its tests leave out, so no
//! line of the list can outlive its reason unseen.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Finding, Tree};

mod contract;
mod matrix;
mod mentions;

pub(crate) use matrix::render;

use contract::{Clause, Pending};
use mentions::{Proof, enforcements, proofs};

/// The generated document.
pub(crate) const MATRIX: &str = "docs/clauses.md";

/// Clauses that have no live test yet, each with the reason.
pub(crate) const PENDING: &str = "docs/contract/pending.txt";

const CONTRACT: &str = "docs/contract/";

/// `ABC-1`: the three letters of its plane and a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClauseId {
    plane: String,
    number: u32,
}

impl std::fmt::Display for ClauseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.plane, self.number)
    }
}

impl std::str::FromStr for ClauseId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (plane, number) = text.split_once('-').ok_or(())?;
        let letters = plane.len() == 3 && plane.chars().all(|c| c.is_ascii_uppercase());
        let canonical = !number.starts_with('0') && number.chars().all(|c| c.is_ascii_digit());
        match number.parse() {
            Ok(number) if letters && canonical => Ok(Self {
                plane: plane.to_owned(),
                number,
            }),
            _ => Err(()),
        }
    }
}

/// Everything the tree says about its clauses.
#[derive(Debug, Default)]
pub(crate) struct Clauses {
    /// In the order of the contract.
    clauses: Vec<Clause>,
    proofs: BTreeMap<ClauseId, Vec<Proof>>,
    /// Files whose code, tests left out, names the clause in a comment.
    enforced: BTreeMap<ClauseId, BTreeSet<String>>,
    pending: BTreeMap<ClauseId, Pending>,
    findings: Vec<Finding>,
}

impl Clauses {
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut found = Self::default();
        for (path, text) in tree.texts_ending(".md") {
            if path.starts_with(CONTRACT) {
                found.read_contract(path, text);
            }
        }
        let known: BTreeSet<ClauseId> = found.clauses.iter().map(|c| c.id.clone()).collect();
        for (path, text) in tree.texts_ending(".rs") {
            found.read_source(path, text, &known);
        }
        found.read_pending(tree.text(PENDING).unwrap_or_default(), &known);
        found.judge();
        found
    }

    /// What makes the contract untrue: unknown clauses, clauses without proof, rotten reasons.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The text of [`PENDING`] without the clauses that have a test.
    pub(crate) fn pending_without_proved(&self, text: &str) -> String {
        let kept = text.lines().filter(|line| {
            let id = contract::pending_line(line).and_then(Result::ok);
            !id.is_some_and(|(id, why)| !why.partly && self.proofs.contains_key(&id))
        });
        kept.map(|line| format!("{line}\n")).collect()
    }

    fn read_contract(&mut self, path: &str, text: &str) {
        for clause in contract::clauses(path, text) {
            if let Some(first) = self.clauses.iter().find(|first| first.id == clause.id) {
                let what = format!("{} is also a clause of {}", clause.id, first.path);
                self.findings.push(Finding::new(path, clause.line, what));
            } else {
                self.clauses.push(clause);
            }
        }
    }

    fn read_source(&mut self, path: &str, text: &str, known: &BTreeSet<ClauseId>) {
        let (proofs, findings) = proofs(path, text);
        self.findings.extend(findings);
        for (id, proof) in proofs {
            if known.contains(&id) {
                self.proofs.entry(id).or_default().push(proof);
            } else {
                let what = format!("{} proves {id}, which is no clause", proof.test);
                self.findings.push(Finding::new(path, proof.line, what));
            }
        }
        let planes: BTreeSet<&str> = known.iter().map(|id| id.plane.as_str()).collect();
        for (line, id) in enforcements(path, text) {
            if known.contains(&id) {
                self.enforced.entry(id).or_default().insert(path.to_owned());
            } else if planes.contains(id.plane.as_str()) {
                let what = format!("a comment names {id}, which is no clause");
                self.findings.push(Finding::new(path, line, what));
            }
        }
    }

    fn read_pending(&mut self, text: &str, known: &BTreeSet<ClauseId>) {
        for (number, line) in (1..).zip(text.lines()) {
            let what = match contract::pending_line(line) {
                None => continue,
                Some(Err(what)) => what.to_owned(),
                Some(Ok((id, _))) if !known.contains(&id) => format!("{id} is no clause"),
                Some(Ok((id, _))) if self.pending.contains_key(&id) => {
                    format!("{id} is listed twice")
                }
                Some(Ok((id, why))) => {
                    self.pending.insert(id, why);
                    continue;
                }
            };
            self.findings.push(Finding::new(PENDING, number, what));
        }
    }

    fn judge(&mut self) {
        for clause in &self.clauses {
            let id = &clause.id;
            let proved = self.proofs.contains_key(id);
            let partly = self.pending.get(id).map(|why| why.partly);
            let what = match (proved, partly) {
                (_, Some(_)) if clause.given_up => {
                    format!("{id} was given up, and cannot be pending")
                }
                (true, Some(false)) => format!("{id} has a test: take it out of {PENDING}"),
                (false, Some(true)) => format!("{id} has no test that would prove it partly"),
                (false, None) if !clause.given_up => {
                    format!("{id} has no test, and {PENDING} gives no reason")
                }
                _ => continue,
            };
            self.findings
                .push(Finding::new(&clause.path, clause.line, what));
        }
        self.findings.sort();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONTRACT_TEXT: &str = "# Journal (JRN)\n\nNot JRN-9.\n\n- JRN-1 Opens once. And more.\n- JRN-2 Keeps: all\n  of it | always\n- JRN-3 (given up) was never used.\n";
    const PROVED: &str = "/// Proves: JRN-1\n#[test]\nfn opens_once() {}\n";

    fn check(source: &str, pending: &str, expected: &[&str]) {
        let tree = Tree::of(&[
            ("docs/contract/journal.md", CONTRACT_TEXT),
            (PENDING, pending),
            ("crates/wal/src/a.rs", source),
        ]);
        let clauses = Clauses::of(&tree);
        let found: Vec<&str> = clauses.findings().iter().map(|f| f.what.as_str()).collect();
        assert_eq!(found, expected, "{source}{pending}");
    }

    #[test]
    fn a_clause_is_proved_or_pending_with_a_reason() {
        check(PROVED, "# why\n\nJRN-2: not built\n", &[]);
    }

    #[test]
    fn a_clause_with_neither_test_nor_reason_is_found() {
        let lost = ["JRN-2 has no test, and docs/contract/pending.txt gives no reason"];
        check(PROVED, "", &lost);
    }

    #[test]
    fn a_reason_that_outlived_itself_is_found() {
        let both = ["JRN-1 has a test: take it out of docs/contract/pending.txt"];
        check(PROVED, "JRN-2: not built\nJRN-1: not built\n", &both);
        let given_up = ["JRN-3 was given up, and cannot be pending"];
        check(PROVED, "JRN-2: not built\nJRN-3: not built\n", &given_up);
    }

    #[test]
    fn a_clause_proved_partly_has_both_a_test_and_what_is_left_out() {
        let pending = "JRN-2: not built\n";
        check(PROVED, &format!("{pending}JRN-1 partly: not twice\n"), &[]);
        check(
            PROVED,
            "JRN-2 partly: not all of it\n",
            &["JRN-2 has no test that would prove it partly"],
        );
    }

    #[test]
    fn an_unknown_clause_is_found_wherever_it_is_named() {
        let test = "/// Proves: JRN-1, JRN-7\n#[test]\nfn opens() {}\n";
        let pending = "JRN-2: not built\n";
        check(test, pending, &["opens proves JRN-7, which is no clause"]);
        let comment = format!("{PROVED}// JRN-8: SHA-256 and UTF-8 are no clauses.\n");
        check(
            &comment,
            pending,
            &["a comment names JRN-8, which is no clause"],
        );
        check(
            PROVED,
            "JRN-2: not built\nJRN-9: no\n",
            &["JRN-9 is no clause"],
        );
    }

    #[test]
    fn a_pending_line_without_reason_and_a_double_one_are_found() {
        let two = ["JRN-2 is listed twice"];
        check(PROVED, "JRN-2: not built\nJRN-2: again\n", &two);
        let bare = "JRN-2\nJRN-2: not built\n";
        check(
            PROVED,
            bare,
            &["a line is `CLAUSE: reason` or `CLAUSE partly: reason`"],
        );
    }

    #[test]
    fn a_clause_defined_twice_is_found() {
        let tree = Tree::of(&[
            ("docs/contract/a.md", "- JRN-1 One.\n"),
            ("docs/contract/b.md", "- JRN-1 Two.\n"),
            (PENDING, "JRN-1: not built\n"),
        ]);
        let found = Clauses::of(&tree);
        assert_eq!(found.findings().len(), 1);
        assert_eq!(found.findings()[0].path, "docs/contract/b.md");
    }

    #[test]
    fn proved_clauses_leave_the_pending_list_and_its_comments_stay() {
        let pending = "# why\nJRN-1: not built\nJRN-1 partly: not twice\nJRN-2: not built\n";
        let tree = Tree::of(&[
            ("docs/contract/journal.md", CONTRACT_TEXT),
            ("crates/wal/src/a.rs", PROVED),
        ]);
        let kept = Clauses::of(&tree).pending_without_proved(pending);
        assert_eq!(kept, "# why\nJRN-1 partly: not twice\nJRN-2: not built\n");
    }

    /// Proves: PRF-4
    #[test]
    fn every_clause_of_this_tree_is_proved_or_pending_and_the_matrix_is_fresh() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tree = Tree::load(&root).unwrap();
        let clauses = Clauses::of(&tree);
        assert!(clauses.clauses.len() > 100, "the contract was not found");
        let findings: Vec<String> = clauses.findings().iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
        assert!(
            tree.text(MATRIX) == Some(&render(&clauses)),
            "{MATRIX} is stale: run `cargo proof clauses --write`"
        );
    }
}

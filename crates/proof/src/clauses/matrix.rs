//! The matrix as a document.

use std::fmt::Write as _;

use super::{Clauses, contract::Clause};

/// The text of docs/clauses.md. The same tree gives the same bytes.
pub(crate) fn render(clauses: &Clauses) -> String {
    let live: Vec<&Clause> = clauses.clauses.iter().filter(|c| !c.given_up).collect();
    let (tested, open): (Vec<&Clause>, Vec<&Clause>) = live
        .iter()
        .partition(|clause| clauses.proofs.contains_key(&clause.id));
    let (partly, proved): (Vec<&Clause>, Vec<&Clause>) = tested
        .into_iter()
        .partition(|clause| clauses.pending.contains_key(&clause.id));
    let mut text = String::new();
    text.push_str("# Clauses: what is proved\n\n");
    text.push_str("Written by `cargo proof clauses --write` from the [contract](contract/README.md), the comments of the\n");
    text.push_str(
        "code and the `Proves:` lines of the tests. `cargo test` fails when it is stale.\n\n",
    );
    let (whole, part, all) = (proved.len(), partly.len(), live.len());
    writeln!(
        text,
        "Of {all} clauses {whole} are proved by live tests, {part} more are proved in part.\n"
    )
    .expect("text grows");
    text.push_str("## Proved\n\n| Clause | Promise | Kept in | Tests |\n|---|---|---|---|\n");
    for clause in &proved {
        writeln!(text, "{}", tested_row(clauses, clause)).expect("text grows");
    }
    text.push_str("\n## Proved in part\n\n");
    text.push_str("| Clause | Promise | Kept in | Tests | Left out |\n|---|---|---|---|---|\n");
    for clause in &partly {
        let (row, reason) = (tested_row(clauses, clause), reason(clauses, clause));
        writeln!(text, "{row} {reason} |").expect("text grows");
    }
    text.push_str("\n## Not yet proved\n\n| Clause | Promise | Why |\n|---|---|---|\n");
    for clause in &open {
        let (id, promise) = (link(clause), cell(&clause.promise));
        let reason = reason(clauses, clause);
        writeln!(text, "| {id} | {promise} | {reason} |").expect("text grows");
    }
    text
}

fn reason(clauses: &Clauses, clause: &Clause) -> String {
    let pending = clauses.pending.get(&clause.id);
    cell(pending.map_or("no reason given", |why| &why.reason))
}

fn tested_row(clauses: &Clauses, clause: &Clause) -> String {
    let enforced = clauses.enforced.get(&clause.id);
    let mut places: Vec<String> = enforced
        .into_iter()
        .flatten()
        .map(|path| format!("[{}](../{path})", path.trim_start_matches("crates/")))
        .collect();
    if places.is_empty() {
        places.push("—".to_owned());
    }
    let tests: Vec<String> = clauses.proofs[&clause.id]
        .iter()
        .map(|proof| format!("[{}](../{})", proof.test, proof.path))
        .collect();
    let (id, promise) = (link(clause), cell(&clause.promise));
    let (places, tests) = (places.join("<br>"), tests.join("<br>"));
    format!("| {id} | {promise} | {places} | {tests} |")
}

fn link(clause: &Clause) -> String {
    let path = clause.path.trim_start_matches("docs/");
    format!("[{}]({path})", clause.id)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn each_clause_is_shown_with_its_places_and_tests_or_with_the_reason_it_has_none() {
        let tree = Tree::of(&[
            (
                "docs/contract/journal.md",
                "- JRN-1 Opens once. More.\n- JRN-4 Counts.\n- JRN-2 This | that.\n- JRN-3 (given up) gone\n",
            ),
            (
                super::super::PENDING,
                "JRN-2: the tools are not built\nJRN-4 partly: only up\n",
            ),
            ("crates/wal/src/local.rs", "//! Keeps JRN-1.\n"),
            (
                "crates/wal/tests/open.rs",
                "/// Proves: JRN-1, JRN-4\n#[test]\nfn opens_once() {}\n/// Proves: JRN-1\n#[test]\nfn names_the_holder() {}\n",
            ),
        ]);
        let text = render(&Clauses::of(&tree));
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("](contract/journal"))
            .collect();
        assert_eq!(
            rows,
            [
                "| [JRN-1](contract/journal.md) | Opens once | [wal/src/local.rs](../crates/wal/src/local.rs) | \
                 [opens_once](../crates/wal/tests/open.rs)<br>[names_the_holder](../crates/wal/tests/open.rs) |",
                "| [JRN-4](contract/journal.md) | Counts | — | [opens_once](../crates/wal/tests/open.rs) | only up |",
                "| [JRN-2](contract/journal.md) | This \\| that | the tools are not built |",
            ]
        );
        assert!(
            text.contains("Of 3 clauses 1 are proved by live tests, 1 more are proved in part."),
            "{text}"
        );
    }
}

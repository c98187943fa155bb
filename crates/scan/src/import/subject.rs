//! Which of our rules look at what a rule of SCAP Security Guide looks at.

use std::{collections::BTreeMap, sync::LazyLock};

/// A line for each of theirs: its name, then ours. The same subjects as the comparison with oscap in
/// docs/agreement.md has; a test holds the two together.
const SUBJECTS: &str = include_str!("subjects.txt");

static BY_NAME: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    SUBJECTS
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.collect()))
        })
        .collect()
});

/// Ids of our rules for the id of an XCCDF rule; none for most.
pub fn rules_for(rule: &str) -> impl Iterator<Item = &'static str> {
    let name = rule.rsplit_once("_rule_").map_or(rule, |(_, name)| name);
    BY_NAME.get(name).into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Pack;

    #[test]
    fn subjects_are_those_of_the_comparison_with_oscap() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/agreement.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let names = |line: &str| -> Vec<String> {
            let inside = line.split_once('[').unwrap().1;
            let quoted = inside.split('"').skip(1).step_by(2);
            quoted.map(str::to_owned).collect()
        };
        let mut theirs = Vec::new();
        let mut seen = 0;
        let mut is_subject = false;
        for line in text.lines() {
            if line.starts_with("[[") {
                is_subject = line == "[[subject]]";
            } else if is_subject && line.starts_with("oscap = ") {
                theirs = names(line);
            } else if is_subject && line.starts_with("ours = ") {
                for (name, ours) in theirs.iter().flat_map(|name| {
                    let ours = names(line).into_iter();
                    ours.map(move |ours| (name.clone(), ours))
                }) {
                    assert!(
                        rules_for(&name).any(|rule| rule == ours),
                        "{name} has no {ours}"
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, BY_NAME.values().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn each_rule_that_is_named_is_in_the_pack() {
        let pack = Pack::embedded().pack;
        for rule in BY_NAME.values().flatten() {
            assert!(pack.find(rule).is_some(), "no rule {rule}");
        }
        let theirs = "xccdf_org.ssgproject.content_rule_accounts_no_uid_except_zero";
        assert_eq!(
            rules_for(theirs).collect::<Vec<_>>(),
            ["root-only-uid-zero"]
        );
    }
}

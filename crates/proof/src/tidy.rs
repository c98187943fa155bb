//! The rules of the source tree, as a test (PRF-7).
//!
//! Each rule is a function from the tree to what breaks it. What the compiler and clippy already
//! refuse is not asked again; here it is only made sure that they are asked.

use crate::tree::{Finding, Tree};

mod commands;
mod links;
mod rooms;
mod text;

pub(crate) use commands::{Program, readme_against};

/// Everything wrong with the tree, by path and line.
pub(crate) fn findings(tree: &Tree) -> Vec<Finding> {
    let rules = [
        rooms::directions,
        rooms::lints_are_on,
        text::headers,
        text::lengths,
        text::names,
        text::leftovers,
        text::prints,
        text::machine_paths,
        links::resolve,
        commands::readme,
    ];
    let mut findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Proves: PRF-7
    #[test]
    fn the_source_tree_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tree = Tree::load(&root).unwrap();
        assert!(tree.contains("crates/proof/src/tidy.rs"));
        let findings: Vec<String> = findings(&tree).iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }
}

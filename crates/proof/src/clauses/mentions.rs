//! Where the source names clauses: in tests that prove them, in code that keeps them.

use super::ClauseId;
use crate::{
    rust::{is_word, layers, test_lines},
    tree::Finding,
};

/// A test that says which clause it proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) test: String,
}

const PROVES: &str = "/// Proves:";

/// The clauses each test of a file says it proves, and the lines that say so above no test.
pub(super) fn proofs(path: &str, text: &str) -> (Vec<(ClauseId, Proof)>, Vec<Finding>) {
    let layers = layers(text);
    let comments: Vec<&str> = layers.comments.lines().collect();
    let code: Vec<&str> = layers.code.lines().collect();
    let mut found = Vec::new();
    let mut findings = Vec::new();
    for (index, comment) in comments.iter().enumerate() {
        let Some(list) = comment.trim().strip_prefix(PROVES) else {
            continue;
        };
        let line = index + 1;
        let Some(test) = test_below(&layers.code, &code[line..]) else {
            findings.push(Finding::new(path, line, "a `Proves:` line above no test"));
            continue;
        };
        for name in list.split(',').map(str::trim) {
            match name.parse() {
                Ok(id) => found.push((
                    id,
                    Proof {
                        path: path.to_owned(),
                        line,
                        test: test.clone(),
                    },
                )),
                Err(()) => {
                    let what = format!("{name:?} is not the id of a clause");
                    findings.push(Finding::new(path, line, what));
                }
            }
        }
    }
    (found, findings)
}

/// The name of the function that follows, when nothing but attributes stands before it and it is
/// a test: by an attribute, or because the file hands it to a harness of its own.
fn test_below(file: &str, code: &[&str]) -> Option<String> {
    let mut attributes = String::new();
    for line in code.iter().map(|line| line.trim()) {
        let words = line.trim_start_matches("pub ").trim_start_matches("async ");
        if let Some(rest) = words.strip_prefix("fn ") {
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            return (is_test(&attributes) || is_handed_over(file, &name)).then_some(name);
        }
        attributes.push_str(line);
        let open = attributes.matches('[').count() > attributes.matches(']').count();
        if !line.is_empty() && !open && !attributes.ends_with(']') {
            return None;
        }
    }
    None
}

/// `#[test]`, also as another crate spells it: `#[tokio::test]`.
fn is_test(attributes: &str) -> bool {
    attributes.contains("#[test]")
        || attributes.contains("::test]")
        || attributes.contains("::test(")
}

/// `PEER.test("a_name", name)`: how tests that need a program of others are listed.
fn is_handed_over(file: &str, name: &str) -> bool {
    file.split(".test(").skip(1).any(|call| {
        let arguments = call.split(')').next().unwrap_or_default();
        let mut arguments = arguments.split(',').skip(1).map(str::trim);
        arguments.next() == Some(name)
    })
}

/// Lines of comments in code that is not test which name a clause.
pub(super) fn enforcements(path: &str, text: &str) -> Vec<(usize, ClauseId)> {
    let layers = layers(text);
    let tests = test_lines(path, &layers.code);
    let mut found = Vec::new();
    for (index, comment) in layers.comments.lines().enumerate() {
        if tests.get(index) == Some(&true) || comment.trim().starts_with(PROVES) {
            continue;
        }
        let words = comment.split(|c: char| !(is_word(c) || c == '-'));
        found.extend(words.filter_map(|word| Some((index + 1, word.parse().ok()?))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)], findings_expected: usize) {
        let (found, findings) = proofs("a.rs", text);
        let found: Vec<(String, String)> = found
            .into_iter()
            .map(|(id, proof)| (id.to_string(), proof.test))
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(id, test)| ((*id).to_owned(), (*test).to_owned()))
            .collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(findings.len(), findings_expected, "{text}: {findings:?}");
    }

    #[test]
    fn a_test_proves_what_the_line_above_it_says() {
        let both = [("JRN-5", "acks"), ("JRN-6", "acks")];
        check("/// Proves: JRN-5, JRN-6\n#[test]\nfn acks() {}", &both, 0);
        check(
            "    /// Proves: JRN-5\n    /// Proves: JRN-6\n    // why\n    #[cfg(unix)]\n    #[test]\n    fn acks() {}",
            &both,
            0,
        );
        check(
            "/// Proves: JRN-5, JRN-6\n#[allow(\n    x,\n    reason = \"]\"\n)]\n#[tokio::test]\nasync fn acks() {}",
            &both,
            0,
        );
    }

    #[test]
    fn a_function_that_the_file_hands_to_its_harness_is_a_test() {
        let listed =
            "fn tests() { vec![SDK.test(\n  \"it, (sends)\",\n  plain,\n), SDK.test(\"b\", b)] }\n";
        let text = format!("{listed}/// Proves: EVT-11\nfn plain(sdk: &Peer) {{}}");
        check(&text, &[("EVT-11", "plain")], 0);
        let text = format!("{listed}/// Proves: EVT-11\nfn other(sdk: &Peer) {{}}");
        check(&text, &[], 1);
    }

    #[test]
    fn a_proof_above_no_test_and_a_name_that_is_no_id_are_found() {
        check("/// Proves: JRN-5\nfn acks() {}", &[], 1);
        check(
            "/// Proves: JRN-5\nstruct A;\n#[test]\nfn acks() {}",
            &[],
            1,
        );
        check("/// Proves: JRN-5\n", &[], 1);
        check("/// Proves: JRN5\n#[test]\nfn acks() {}", &[], 1);
        check("let a = \"/// Proves: JRN-5\";", &[], 0);
    }

    #[test]
    fn clauses_are_enforced_where_comments_outside_tests_name_them() {
        let text = "//! Keeps JRN-1 (JRN-2).\nfn a() {} // JRN-3: order\nlet b = \"JRN-4\";\n\
            // XJRN-5 JRN-6x JRN-07\n#[cfg(test)]\nmod tests {\n    // JRN-8\n}\n";
        let found: Vec<(usize, String)> = enforcements("crates/wal/src/a.rs", text)
            .into_iter()
            .map(|(line, id)| (line, id.to_string()))
            .collect();
        let expected = [(1, "JRN-1"), (1, "JRN-2"), (2, "JRN-3")];
        assert_eq!(found, expected.map(|(line, id)| (line, id.to_owned())));
        assert!(enforcements("crates/wal/tests/a.rs", "// JRN-1\n").is_empty());
    }
}

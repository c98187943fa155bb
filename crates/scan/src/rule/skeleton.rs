//! The file that a first rule of one's own begins with.
//!
//! It is a rule already: lint finds nothing and its tests pass, so every step from here to the rule
//! that is wanted can be tried.

use super::document::{ID_BYTES_MAX, is_id};

/// A commented rule file for `id` on `platform`.
///
/// # Errors
/// `id` cannot be a rule's: what it must be.
pub fn skeleton(id: &str, platform: &str) -> Result<String, String> {
    if !is_id(id) {
        return Err(format!(
            "an id is lower case words joined by hyphens, at most {ID_BYTES_MAX} bytes"
        ));
    }
    Ok(TEMPLATE.replace("@ID@", id).replace("@PLATFORM@", platform))
}

const TEMPLATE: &str = include_str!("skeleton.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{KNOWN_PLATFORMS, Rule, lint, test_rules};

    /// Proves: RUL-6
    #[test]
    fn the_file_is_a_rule_without_findings_whose_tests_pass_on_every_platform() {
        for platform in KNOWN_PLATFORMS {
            let text = skeleton("my-first-rule", platform).unwrap();
            let rule = Rule::parse(&text, "my-first-rule.yaml").unwrap();
            assert_eq!(lint([&rule]), [], "{platform}");
            let report = test_rules([&rule]);
            assert_eq!(report.failures, [], "{platform}");
            assert!(report.tests >= 4);
            assert!(!text.contains('@'), "{text}");
        }
    }

    #[test]
    fn an_id_that_no_rule_may_have_is_refused() {
        for id in [
            "",
            "A",
            "a_b",
            "a--b",
            "../x",
            "a.yaml",
            "-a",
            &"a".repeat(81),
        ] {
            assert!(skeleton(id, "debian-12").is_err(), "{id}");
        }
    }
}

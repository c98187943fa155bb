//! Rules: what a host should be, as data.
//!
//! Owns the language (docs/RULES.md), the pack of rules that ships in the program, its lint and its
//! tests. A rule is pure: no shell, no clock, no I/O; everything it may look at is a fact. Judging
//! belongs to [`crate::judge`].

mod canonical;
mod coverage;
mod decode;
mod document;
pub(crate) mod fault;
mod lint;
mod needs;
mod operator;
mod pack;
mod predicate;
mod secret;
mod selector;
mod selftest;
mod skeleton;
mod step;
pub(crate) mod wording;
pub(crate) mod yaml;

pub(crate) use canonical::{canonical_json, scalar, write_canonical};
pub use coverage::{Control, Coverage, Framework, PlatformCoverage, WithoutReference, coverage};
pub use document::{Fix, Platform, Rule, RuleTest, Severity, Variable, VariableType, Variables};
pub use fault::{Fault, Place};
pub use lint::{KNOWN_FRAMEWORKS, KNOWN_PLATFORMS, lint};
pub(crate) use operator::{Answer, Context, test, unix_seconds, wanted};
pub use pack::{Loaded, Pack};
pub use predicate::{Comparison, Leaf, Operator, Pattern, Predicate, Quantified, Quantifier};
pub use secret::holds_secrets;
pub(crate) use selector::{Found, Scope};
pub use selector::{OPEN_COLLECTORS, Selector};
pub use selftest::{Failure, TestReport, test_rules};
pub use skeleton::skeleton;
pub use step::{
    BlockedModule, Boot, FileAccess, Place as FilePlace, ServiceState, SshdSetting, Step, Sysctl,
    Wanted,
};
pub(crate) use step::{is_account, is_module, is_path, is_sysctl_key, is_unit};

#[cfg(test)]
mod tests;

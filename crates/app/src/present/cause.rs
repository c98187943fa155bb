//! What changed between two verdicts, in words.

use scan::ledger::Cause;

/// `host`, `rule`, `variables`, joined where there are several.
pub(crate) fn listed(because: &[Cause]) -> String {
    let names: Vec<&str> = because
        .iter()
        .map(|cause| match cause {
            Cause::Host => "host",
            Cause::Rule => "rule",
            Cause::Variables => "variables",
        })
        .collect();
    names.join(", ")
}

/// What to add to a line about a change; nothing where the host alone changed, as hosts do.
pub(crate) fn remark(because: &[Cause]) -> String {
    match because {
        [] | [Cause::Host] => String::new(),
        [Cause::Host, ..] => format!("(changed: {})", listed(because)),
        _ => format!("(the host is as it was; changed: {})", listed(because)),
    }
}

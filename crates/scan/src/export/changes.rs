//! Changes of one host between two moments.

use world::Timestamp;

use super::{Error, source::Source};
use crate::ledger::Change;

/// From `since` on, before `until`; open where nothing is named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Span {
    fn holds(&self, occurred: u64) -> bool {
        self.since.is_none_or(|since| since.nanos() <= occurred)
            && self.until.is_none_or(|until| occurred < until.nanos())
    }
}

/// Oldest first, those of one scan by rule.
pub(super) fn of_host(source: &Source<'_>, host: &str, span: Span) -> Result<Vec<Change>, Error> {
    let mut changes = source
        .ledger()
        .changes_on(host, |change| span.holds(change.occurred))?;
    changes.sort_by(|a, b| (a.occurred, &a.rule).cmp(&(b.occurred, &b.rule)));
    Ok(changes)
}

//! Changes of one host between two moments, a page at a time.

use store::Order;
use world::Timestamp;

use super::{Error, source::Source};
use crate::ledger::{Change, Filter, PAGE_MAX};

/// From `since` on, before `until`; open where nothing is named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

/// Calls `each` with every change of `host`, oldest first.
pub(super) fn each(
    source: &Source<'_>,
    host: &str,
    span: Span,
    mut each: impl FnMut(&Change) -> Result<(), Error>,
) -> Result<(), Error> {
    let filter = Filter {
        host: Some(host.to_owned()),
        hosts: None,
        rule: None,
        since: span.since,
        until: span.until,
    };
    let mut after = None;
    loop {
        let ledger = source.ledger();
        let page = ledger.changes(&filter, Order::Ascending, after.as_ref(), PAGE_MAX)?;
        for entry in &page.rows {
            // The ledger's filter takes in its end, an export leaves it to the next one.
            let is_beyond = span
                .until
                .is_some_and(|until| until.nanos() <= entry.change.occurred);
            if !is_beyond {
                each(&entry.change)?;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

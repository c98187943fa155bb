//! Ranges of an engine, fetched page by page, so that one that is not read to its end is not
//! fetched to its end either.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    Bytes, Error, Keys, Order, TableId,
    engine::{Reader, Rows, Work},
};

/// Rows of the first page of a range that may be left after a few: most are read to the end of a
/// host's or a rule's rows. Arbitrary.
const FIRST_ROWS: usize = 128;
/// Rows of one page. Beyond a thousand a page costs its rows and not its round trip.
const ROWS_MAX: usize = 1024;
/// Bytes of a page after which the next is smaller. A few of them in memory are no burden.
const BYTES_ENOUGH: usize = 4 << 20;

/// How many rows the next page has.
#[derive(Clone, Copy, Debug)]
struct Pace(usize);

impl Pace {
    fn after(self, page: &Rows) -> Self {
        let bytes: usize = page
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > BYTES_ENOUGH {
            Self((self.0 / 2).max(1))
        } else {
            Self((self.0 * 2).min(ROWS_MAX))
        }
    }
}

/// Rows at one position, from either end.
#[derive(Debug)]
pub(crate) struct Paged {
    reader: Arc<dyn Reader>,
    table: TableId,
    /// What was not fetched yet; `None` when everything was.
    rest: Option<Keys>,
    pace: Pace,
    /// Fetched from the start, in order.
    front: VecDeque<(Bytes, Bytes)>,
    /// Fetched from the end, the last key first. All above `front`.
    back: VecDeque<(Bytes, Bytes)>,
}

impl Paged {
    pub(crate) fn new(reader: Arc<dyn Reader>, table: TableId, keys: &Keys) -> Self {
        Self {
            reader,
            table,
            rest: (!keys.is_empty()).then(|| keys.clone()),
            pace: Pace(FIRST_ROWS),
            front: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    pub(crate) fn next(&mut self, order: Order) -> Option<Result<(Bytes, Bytes), Error>> {
        let (near, far) = match order {
            Order::Ascending => (&mut self.front, &mut self.back),
            Order::Descending => (&mut self.back, &mut self.front),
        };
        if near.is_empty()
            && let Some(rest) = self.rest.take()
        {
            // Left without a rest on an error: a range that failed has ended.
            let page = match self.reader.page(self.table, &rest, order, self.pace.0) {
                Ok(page) => page,
                Err(error) => {
                    far.clear();
                    return Some(Err(error));
                }
            };
            if page.len() >= self.pace.0
                && let Some((last, _)) = page.last()
            {
                self.rest = Some(rest.resumed(last, order)).filter(|rest| !rest.is_empty());
            }
            self.pace = self.pace.after(&page);
            near.extend(page);
        }
        near.pop_front().or_else(|| far.pop_back()).map(Ok)
    }
}

/// Rows of a transaction, from one end, at most `limit`.
pub(crate) fn of_work<'a>(
    work: &'a mut dyn Work,
    table: TableId,
    keys: &Keys,
    order: Order,
    limit: usize,
) -> impl Iterator<Item = Result<(Bytes, Bytes), Error>> + use<'a> {
    let mut rest = (!keys.is_empty() && limit > 0).then(|| keys.clone());
    // Nobody asks for a limit and stops before it.
    let mut pace = Pace(limit.min(ROWS_MAX));
    let mut page = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if let Some(row) = page.next() {
            return Some(Ok(row));
        }
        let wanted = rest.take()?;
        match work.page(table, &wanted, order, pace.0) {
            Ok(rows) => {
                if rows.len() >= pace.0
                    && let Some((last, _)) = rows.last()
                {
                    rest = Some(wanted.resumed(last, order)).filter(|rest| !rest.is_empty());
                }
                pace = pace.after(&rows);
                page = rows.into_iter();
                page.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    })
}

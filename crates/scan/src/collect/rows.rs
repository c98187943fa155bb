//! Lists and maps of facts that grow with a file.
//!
//! A row of a fact takes some hundred bytes of memory, a line of a file may have two: without a
//! bound on rows, the cap on bytes would let a file of ten megabytes fill gigabytes.

use crate::facts::{Reason, Unknown};

/// Rows of one list, or keys of one map. Arbitrary: twenty times the largest configuration we know
/// of, and some ten megabytes of memory.
pub(crate) const ROWS_MAX: usize = 20_000;

/// Bytes of all configuration files of one program. The largest we know of, sudo's of a large site,
/// have a tenth of it.
pub(crate) const CONFIG_BYTES_MAX: usize = 1 << 20;

/// # Errors
/// There are more rows than [`ROWS_MAX`] (`truncated`); `object` names what they come from.
pub(crate) fn check(count: usize, object: &str) -> Result<(), Unknown> {
    if count <= ROWS_MAX {
        return Ok(());
    }
    let detail = format!("{object}: over {ROWS_MAX} entries");
    Err(Unknown::new(Reason::Truncated, detail))
}

/// The items, unless there are too many.
///
/// # Errors
/// As [`check`].
pub(crate) fn collect<T, C: FromIterator<T>>(
    items: impl Iterator<Item = T>,
    object: &str,
) -> Result<C, Unknown> {
    let mut count = 0;
    items
        .map(|item| {
            count += 1;
            check(count, object).map(|()| item)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_too_many_is_truncated_and_names_its_object() {
        let all: Result<Vec<usize>, Unknown> = collect(0..ROWS_MAX, "/etc/x");
        assert_eq!(all.map(|rows| rows.len()), Ok(ROWS_MAX));
        let more: Result<Vec<usize>, Unknown> = collect(0..usize::MAX, "/etc/x");
        let unknown = more.unwrap_err();
        assert_eq!(unknown.reason, Reason::Truncated);
        assert!(unknown.detail.starts_with("/etc/x: "), "{unknown}");
    }
}

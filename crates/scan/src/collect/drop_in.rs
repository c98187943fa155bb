//! Directories of drop-in files, where one name masks the same name in a directory of lower rank.
//!
//! The rule is the one of sysctl.d(5), modprobe.d(5) and systemd.unit(5): all names together are
//! sorted, whatever directory they lie in; of two files of one name the one in the earlier
//! directory counts alone. A link to `/dev/null` or an empty file masks by being empty.

use std::collections::BTreeMap;

use super::Context;
use crate::facts::Unknown;

/// Paths of the files that count, in the order in which they apply. `dirs` by rank, highest first.
///
/// # Errors
/// A directory could not be listed: what it masks or sets is unknown.
pub(crate) fn effective(
    context: &Context<'_>,
    dirs: &[&str],
    suffix: &str,
) -> Result<Vec<String>, Unknown> {
    let mut by_name = BTreeMap::new();
    for dir in dirs {
        for path in context.files_in(dir, suffix)? {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            by_name.entry(name).or_insert(path);
        }
    }
    Ok(by_name.into_values().collect())
}

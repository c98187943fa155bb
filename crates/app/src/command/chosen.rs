//! Hosts of which something recorded is asked: named, of groups, or all.

use std::collections::BTreeSet;

use crate::{
    cli::Hosts,
    exit::Refusal,
    site::{Site, fleet_refused},
};

/// Hosts with a record, by name.
pub(super) enum Chosen {
    /// One that was named, or this machine: answered as documents of one host are.
    One(String),
    Several(Vec<String>),
}

impl Chosen {
    pub(super) fn of(asked: &Hosts, site: &Site) -> Result<Self, Refusal> {
        if let ([], false) = (&asked.group[..], asked.all) {
            match &asked.host[..] {
                [] => return Ok(Self::One(super::this_host())),
                [only] => return Ok(Self::One(only.clone())),
                _ => {}
            }
        }
        let recorded: Vec<String> = site
            .ledger()
            .hosts()
            .map_err(Site::refused)?
            .into_iter()
            .filter(|host| host.last_scan.is_some())
            .map(|host| host.name)
            .collect();
        if asked.all {
            return Ok(Self::Several(recorded));
        }
        let hosts = site.inventory()?.list(None).map_err(fleet_refused)?;
        let mut wanted: BTreeSet<&str> = asked.host.iter().map(String::as_str).collect();
        for group in &asked.group {
            let before = wanted.len();
            let of_group = hosts.iter().filter(|host| host.groups.contains(group));
            wanted.extend(of_group.map(|host| host.name.as_str()));
            if wanted.len() == before && !hosts.iter().any(|host| host.groups.contains(group)) {
                return Err(Refusal::new(format!("no host is in the group `{group}`"))
                    .next("`holdfast host list` prints the groups of each host"));
            }
        }
        // One that was misspelt would read as one of which nothing is to be told.
        if let Some(unknown) = asked.host.iter().find(|name| !recorded.contains(name)) {
            return Err(super::status::nothing_recorded(site, unknown, None));
        }
        Ok(Self::Several(
            recorded
                .into_iter()
                .filter(|name| wanted.contains(name.as_str()))
                .collect(),
        ))
    }
}

/// A row of one host, among rows of several.
pub(super) fn with_host<'a, T: From<&'a str>, const N: usize, const M: usize>(
    host: &'a str,
    row: [T; N],
) -> [T; M] {
    const { assert!(M == N + 1, "one cell more") };
    let mut cells = std::iter::once(T::from(host)).chain(row);
    std::array::from_fn(|_| cells.next().expect("there are as many cells"))
}

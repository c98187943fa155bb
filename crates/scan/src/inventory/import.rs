//! Inventories of other programs: OpenSSH's configuration, Ansible's (INI and YAML), CSV.
//!
//! Read into drafts, which say only what the file says: what it does not say stays as it is in a host
//! that is there already. Passwords in a file are named and never taken. Nothing here opens a file:
//! what an `Include` names is asked of the caller.

use std::{collections::BTreeSet, fmt};

use store::Transaction;
use world::Timestamp;

use super::{Error, Host, Inventory, Kind, PORT, Reach};
pub use crate::known_hosts::globbed;

mod ansible;
mod csv;
mod ini;
mod openssh;
mod range;
#[cfg(test)]
mod tests;
mod yaml;

/// Bytes of one file. Ten thousand hosts of Ansible's INI have one MiB.
pub const FILE_LEN_MAX: u64 = 8 << 20;
/// Hosts of one import: one transaction of 16 MiB holds them all, about 2 KiB each with schedule and
/// audit.
pub const HOSTS_MAX: usize = 5_000;
/// Remarks that are kept: one mistake in each line of a file is told this often.
const REMARKS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenSsh,
    AnsibleIni,
    AnsibleYaml,
    Csv,
}

/// Something to be said about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub file: String,
    /// From 1; 0 where the place is not known.
    pub line: u32,
    pub what: String,
    pub next: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)?;
        if !self.next.is_empty() {
            write!(f, "; {}", self.next)?;
        }
        Ok(())
    }
}

/// Where something stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct At {
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// What a file says of one host.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) via: Option<Via>,
    pub(crate) address: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) credential: Option<String>,
    pub(crate) site: Option<String>,
    pub(crate) groups: Option<BTreeSet<String>>,
    pub(crate) tags: Option<BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Ssh,
    Local,
    Offline,
}

/// What a file gave.
#[derive(Debug, Default)]
pub struct Read {
    pub drafts: Vec<Draft>,
    /// What could not be taken: a host, a line, or the whole file.
    pub refused: Vec<Remark>,
    /// What was left out and is worth knowing.
    pub remarks: Vec<Remark>,
}

impl Read {
    fn refuse(&mut self, at: &At, what: impl Into<String>, next: &str) {
        push(&mut self.refused, at, what.into(), next);
    }

    fn remark(&mut self, at: &At, what: impl Into<String>, next: &str) {
        push(&mut self.remarks, at, what.into(), next);
    }

    /// Whether there is room for one more.
    fn draft(&mut self, draft: Draft) -> bool {
        if self.drafts.len() >= HOSTS_MAX {
            let what = format!("more than {HOSTS_MAX} hosts");
            self.refuse(
                &draft.at,
                what,
                "split the file: one import takes that many",
            );
            return false;
        }
        self.drafts.push(draft);
        true
    }
}

fn push(remarks: &mut Vec<Remark>, at: &At, what: String, next: &str) {
    if remarks.len() < REMARKS_MAX {
        remarks.push(Remark {
            file: at.file.clone(),
            line: at.line,
            what,
            next: next.to_owned(),
        });
    }
}

/// What an `Include` of OpenSSH's names, with the names of the files; an error in words.
pub type Include<'a> = dyn FnMut(&str) -> Result<Vec<(String, String)>, String> + 'a;

/// Reads the text of `file`.
pub fn read(format: Format, file: &str, text: &str, include: &mut Include<'_>) -> Read {
    let mut read = Read::default();
    match format {
        Format::OpenSsh => openssh::read(file, text, include, &mut read),
        Format::AnsibleIni => ini::read(file, text, &mut read),
        Format::AnsibleYaml => yaml::read(file, text, &mut read),
        Format::Csv => csv::read(file, text, &mut read),
    }
    read
}

/// What an import does to the inventory.
#[derive(Debug, Default)]
pub struct Outcome {
    pub added: Vec<Host>,
    pub changed: Vec<Host>,
    pub unchanged: Vec<String>,
    pub refused: Vec<Remark>,
}

impl Inventory {
    /// Adds and changes hosts as `drafts` say. Those that cannot be are in `refused`; whether the
    /// rest is committed is the caller's.
    pub fn import_in(
        &self,
        transaction: &mut Transaction,
        drafts: &[Draft],
        at: Timestamp,
        actor: &str,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut seen = BTreeSet::new();
        for draft in drafts {
            let done = if seen.insert(draft.name.as_str()) {
                self.import_one(transaction, draft, at, actor, &mut outcome)
            } else {
                let message = format!("host `{}` stands here twice", draft.name.escape_debug());
                Err(Error::new(Kind::Invalid, message))
            };
            match done {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Retired) => {
                    let next = match error.kind() {
                        Kind::Retired => "take it out, or give the machine another name",
                        _ => "mend this line",
                    };
                    push(&mut outcome.refused, &draft.at, error.to_string(), next);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    fn import_one(
        &self,
        transaction: &mut Transaction,
        draft: &Draft,
        at: Timestamp,
        actor: &str,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        super::field::name("host name", &draft.name)?;
        let found = self.get_in(transaction, &draft.name)?;
        if found.as_ref().is_some_and(|found| found.retired.is_some()) {
            let message = format!("host `{}` is retired", draft.name.escape_debug());
            return Err(Error::new(Kind::Retired, message));
        }
        let host = draft.over(found.as_ref(), at)?.checked()?;
        match found {
            None => {
                self.add_in(transaction, &host, actor)?;
                outcome.added.push(host);
            }
            Some(found) if found == host => outcome.unchanged.push(host.name),
            Some(_) => {
                self.update_in(transaction, &host, at, actor)?;
                outcome.changed.push(host);
            }
        }
        Ok(())
    }
}

impl Draft {
    /// The host that this draft makes of `found`.
    fn over(&self, found: Option<&Host>, at: Timestamp) -> Result<Host, Error> {
        let reach = match self.via.unwrap_or(Via::Ssh) {
            Via::Local => Reach::Local,
            Via::Offline => Reach::Offline,
            Via::Ssh => Reach::Ssh {
                address: self.address.clone().unwrap_or_else(|| self.name.clone()),
                port: self.port.as_deref().map_or(Ok(PORT), port)?,
                user: self.user.clone(),
            },
        };
        let mut host = found
            .cloned()
            .unwrap_or_else(|| Host::new(&self.name, Reach::Offline, at));
        host.reach = reach;
        if let Some(site) = &self.site {
            host.site.clone_from(site);
        }
        if let Some(groups) = &self.groups {
            host.groups.clone_from(groups);
        }
        if let Some(tags) = &self.tags {
            host.tags.clone_from(tags);
        }
        if self.credential.is_some() {
            host.credential.clone_from(&self.credential);
        }
        Ok(host)
    }

    /// What the caller says of every host of the file; what the file says itself stays.
    pub fn default_place(&mut self, site: Option<&str>, credential: Option<&str>) {
        if self.site.is_none() {
            self.site = site.map(str::to_owned);
        }
        if self.credential.is_none() {
            self.credential = credential.map(str::to_owned);
        }
    }

    pub fn add_labels(&mut self, groups: &[String], tags: &[String]) {
        for (kept, more) in [(&mut self.groups, groups), (&mut self.tags, tags)] {
            if !more.is_empty() {
                kept.get_or_insert_default().extend(more.iter().cloned());
            }
        }
    }
}

fn port(text: &str) -> Result<u16, Error> {
    text.trim()
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            let shown: String = text.escape_debug().take(20).collect();
            Error::new(
                Kind::Invalid,
                format!("port `{shown}`: ports are 1 to 65535"),
            )
        })
}

//! What a node's owner makes of its log: a map of keys, of which some prefix is durable.
//!
//! It can go back as far as its last base, and it can tell what changed since any position from
//! there on: the most an owner can do, so that the machine's every choice is possible.

use std::collections::BTreeMap;

use wal::Lsn;

use super::payload::{self, Payload};

/// Which record a key was written by: the operation's number.
pub(crate) type Map = BTreeMap<u8, Version>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) lsn: Lsn,
    pub(crate) number: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Derived {
    base: Lsn,
    at_base: Map,
    /// Applied since the base, in order; records of other kinds change nothing.
    changes: Vec<(u8, Version)>,
    applied: Lsn,
    durable: Lsn,
    now: Map,
}

impl Derived {
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(crate) fn base(&self) -> Lsn {
        self.base
    }

    pub(crate) fn map(&self) -> &Map {
        &self.now
    }

    pub(crate) fn apply(&mut self, lsn: Lsn, payload: Option<Payload>) {
        self.applied = lsn;
        if let Some(Payload { number, key, .. }) = payload {
            let version = Version { lsn, number };
            self.changes.push((key, version));
            self.now.insert(key, version);
        }
    }

    pub(crate) fn flush(&mut self, to: Lsn) {
        self.durable = self.durable.max(to.min(self.applied));
    }

    /// What a crash leaves, or what a cut of the log allows where the durable part lies below it.
    pub(crate) fn go_back(&mut self, to: Lsn) {
        let to = to.max(self.base);
        self.changes.retain(|(_, version)| version.lsn <= to);
        self.applied = self.applied.min(to);
        self.durable = self.durable.min(to);
        self.now = self.at(to);
    }

    pub(crate) fn at(&self, lsn: Lsn) -> Map {
        let mut map = self.at_base.clone();
        for (key, version) in &self.changes {
            if version.lsn > lsn {
                break;
            }
            map.insert(*key, *version);
        }
        map
    }

    /// Begins anew at a base, with what is kept of before.
    pub(crate) fn begin(&mut self, base: Lsn, kept: Map) {
        *self = Self {
            base,
            at_base: kept.clone(),
            changes: Vec::new(),
            applied: base,
            durable: base,
            now: kept,
        };
    }

    /// A part of a base: of a state that stands at the base, whatever was applied behind it since.
    pub(crate) fn store(&mut self, bytes: &[u8]) {
        for (key, version) in payload::map(bytes) {
            self.at_base.insert(key, version);
        }
        self.now = self.at(self.applied);
    }

    /// Keys changed after `since`, or all.
    pub(crate) fn changed(&self, since: Option<Lsn>) -> Map {
        let map = self.at(self.durable);
        let since = since.unwrap_or(Lsn::ZERO);
        map.into_iter().filter(|(_, it)| it.lsn > since).collect()
    }
}

//! What a collector sees of its host: bounded reads, bounded commands, names of ids.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Map, Value};
use world::Clock;

use super::{Collector, Needs, Progress};
use crate::{
    facts::{Reason, Unknown},
    target::{Command, Entry, Found, Links, PackageList, Ran, Stat, Target},
};

/// The hands of one collector during one run. Every call is charged to the collector's bytes and
/// refused (`timeout`) after its deadline.
pub struct Context<'a> {
    pub target: &'a dyn Target,
    pub needs: &'a Needs,
    pub progress: &'a dyn Progress,
    clock: &'a dyn Clock,
    names: &'a LazyNames,
    name: &'static str,
    /// On the monotonic clock.
    end: Duration,
    bytes_left: Cell<usize>,
}

/// How much of the host one collector may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) time: Duration,
    pub(super) bytes: usize,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("collector", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(
        target: &'a dyn Target,
        needs: &'a Needs,
        progress: &'a dyn Progress,
        clock: &'a dyn Clock,
        names: &'a LazyNames,
        collector: &Collector,
        allowed: Allowed,
    ) -> Self {
        Self {
            target,
            needs,
            progress,
            clock,
            names,
            name: collector.name,
            end: clock.monotonic() + allowed.time,
            bytes_left: Cell::new(allowed.bytes),
        }
    }

    /// Time left to this collector.
    ///
    /// # Errors
    /// None is left, or the scan was cancelled.
    pub fn time_left(&self) -> Result<Duration, Unknown> {
        let left = self.end.saturating_sub(self.clock.monotonic());
        if left.is_zero() || self.progress.cancelled() {
            return Err(Unknown::new(Reason::Timeout, self.name));
        }
        Ok(left)
    }

    /// Wall-clock seconds since 1970.
    pub fn now_seconds(&self) -> u64 {
        self.clock.now().nanos() / 1_000_000_000
    }

    /// Content of a file as text. Bytes that are not UTF-8 become U+FFFD: they can match no rule's
    /// expectation by accident.
    pub fn text(&self, path: &str) -> Found<String> {
        self.bytes(path)
            .map(|content| match String::from_utf8(content) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            })
    }

    pub fn bytes(&self, path: &str) -> Found<Vec<u8>> {
        if let Err(late) = self.time_left() {
            return late.into();
        }
        let content = self.target.read(path, self.bytes_left.get());
        if let Found::Present(content) = &content {
            self.charge(content.len());
        }
        content
    }

    /// Content of a file piece by piece, for what is too large to hold. `cap` is the file's own,
    /// not charged to the collector.
    pub fn stream(&self, path: &str, cap: usize, sink: &mut dyn FnMut(&[u8])) -> Found<()> {
        match self.time_left() {
            Ok(_) => self.target.stream(path, cap, sink),
            Err(late) => late.into(),
        }
    }

    /// SHA-256 of a file, `cap` being the file's own.
    pub fn hash(&self, path: &str, cap: usize) -> Found<String> {
        match self.time_left() {
            Ok(_) => self.target.hash(path, cap),
            Err(late) => late.into(),
        }
    }

    /// As [`Target::package_list`].
    pub fn package_list(&self, path: &str) -> Option<Found<PackageList>> {
        match self.time_left() {
            Ok(_) => self.target.package_list(path),
            Err(late) => Some(late.into()),
        }
    }

    /// Sorted names in a directory.
    pub fn list(&self, dir: &str) -> Found<Vec<Entry>> {
        match self.time_left() {
            Ok(_) => self.target.list(dir),
            Err(late) => late.into(),
        }
    }

    /// Paths of the files and links in `dir` whose name ends in `suffix`, sorted. None when there
    /// is no such directory.
    ///
    /// # Errors
    /// The directory could not be listed.
    pub fn files_in(&self, dir: &str, suffix: &str) -> Result<Vec<String>, Unknown> {
        let entries = self.list(dir).known()?.unwrap_or_default();
        Ok(entries
            .into_iter()
            .filter(|entry| entry.name.ends_with(suffix))
            .filter(|entry| {
                matches!(
                    entry.kind,
                    crate::target::Kind::File | crate::target::Kind::Link
                )
            })
            .map(|entry| format!("{dir}/{}", entry.name))
            .collect())
    }

    pub fn stat(&self, path: &str, links: Links) -> Found<Stat> {
        match self.time_left() {
            Ok(_) => self.target.stat(path, links),
            Err(late) => late.into(),
        }
    }

    /// Where a link points, as written in it. Anything but a link is absent.
    pub fn read_link(&self, path: &str) -> Found<String> {
        match self.time_left() {
            Ok(_) => self.target.read_link(path),
            Err(late) => late.into(),
        }
    }

    /// Runs a program with what is left of the collector's time and bytes.
    ///
    /// # Errors
    /// As [`Target::run`].
    pub fn run(&self, programs: &[&str], args: &[&str]) -> Result<Ran, Unknown> {
        let ran = self.target.run(&Command {
            programs,
            args,
            deadline: self.time_left()?,
            output_bytes_max: self.bytes_left.get(),
        })?;
        self.charge(ran.stdout.len());
        Ok(ran)
    }

    /// Names of the host's own users and groups, from `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// One of them could not be read.
    pub fn names(&self) -> Result<Arc<Names>, Unknown> {
        self.names
            .0
            .get_or_init(|| Names::read(self.target).map(Arc::new))
            .clone()
    }

    /// `mode`, `owner` and `group` of a file as they stand in facts.
    pub fn ownership(&self, mode: u32, uid: u32, gid: u32) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("mode".into(), mode_text(mode).into());
        match self.names() {
            Ok(names) => {
                fields.insert("owner".into(), names.user(uid).into());
                fields.insert("group".into(), names.group(gid).into());
            }
            Err(unknown) => {
                fields.insert("owner".into(), unknown.to_value());
                fields.insert("group".into(), unknown.to_value());
            }
        }
        fields
    }

    fn charge(&self, bytes: usize) {
        self.bytes_left
            .set(self.bytes_left.get().saturating_sub(bytes));
    }
}

/// Permission bits as rules write them: `0644`.
pub(crate) fn mode_text(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

/// Read at most once a run, by whichever collector asks first.
#[derive(Default)]
pub(super) struct LazyNames(OnceLock<Result<Arc<Names>, Unknown>>);

/// Names of the ids that the host's own files define.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub users: BTreeMap<u32, String>,
    pub groups: BTreeMap<u32, String>,
}

impl Names {
    fn read(target: &dyn Target) -> Result<Self, Unknown> {
        let table = |path: &str| {
            let content = target.read(path, crate::target::OUTPUT_BYTES_MAX).known()?;
            Ok(Self::parse(&String::from_utf8_lossy(
                &content.unwrap_or_default(),
            )))
        };
        Ok(Self {
            users: table("/etc/passwd")?,
            groups: table("/etc/group")?,
        })
    }

    /// `name:password:id:…`. As in the C library, the first line with an id names it.
    fn parse(text: &str) -> BTreeMap<u32, String> {
        let mut names = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else {
                continue;
            };
            if let Ok(id) = id.parse() {
                names.entry(id).or_insert_with(|| name.to_owned());
            }
        }
        names
    }

    /// The name, or the number of an id without one.
    pub fn user(&self, uid: u32) -> String {
        self.users
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }

    /// The name, or the number of an id without one.
    pub fn group(&self, gid: u32) -> String {
        self.groups
            .get(&gid)
            .cloned()
            .unwrap_or_else(|| gid.to_string())
    }
}

//! A disk in memory that fails on demand and forgets what was not synced.
//!
//! The end of a machine is a call: [`Disk::process_death`] and [`Disk::power_loss`] return the
//! disk the next program finds, and the old one answers nothing any more, whoever still holds a
//! handle to it. Both may be called repeatedly, with many seeds, on one moment. Locks do not
//! survive. What a power loss can leave is told in `image.rs`.
//!
//! Harsher than common file systems on purpose: `sync_all` of a file does not make its name
//! durable, only [`sync_dir`](crate::Disk::sync_dir) of its directory does. There are no symbolic links.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::call::{Call, Effect, Fault, Op, is_crash};
use self::{
    call::{Crashed, Planned, injected},
    image::{FileBytes, Image, Inode, Names, Node, about},
};
use super::dice::Dice;
use crate::disk::{Entry, EntryKind, Lock, Open, Space};

mod call;
mod image;
#[cfg(test)]
mod tests;

/// Operations a log keeps; the oldest go first. Arbitrary, far above what a test looks at.
const LOG_LEN_MAX: usize = 1 << 20;

/// Bytes of a disk nobody called [`Disk::set_capacity`] on: as good as endless.
const CAPACITY_DEFAULT: u64 = 1 << 40;

#[derive(Debug)]
struct Machine {
    image: Image,
    dice: Dice,
    crashed: bool,
    capacity: u64,
    plan: Vec<Planned>,
    /// First and last byte, of blocks that the disk does not read any more.
    unreadable: Vec<(Node, u64, u64)>,
    crash_at: Option<u64>,
    effects: u64,
    counts: BTreeMap<Call, u64>,
    log: VecDeque<Op>,
    locks: BTreeMap<Node, String>,
    opens: BTreeMap<Node, usize>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct File {
    disk: Disk,
    node: Node,
    path: PathBuf,
    writable: bool,
}

#[derive(Debug)]
struct Locked {
    disk: Disk,
    node: Node,
}

impl Disk {
    /// An empty disk. The seed decides only what a [`Fault::FailScattered`] leaves.
    pub fn new(seed: u64) -> Self {
        Self::of(Image::new(), seed, CAPACITY_DEFAULT)
    }

    /// Fails the `nth` call of this kind from here on; 1 is the next one.
    pub fn inject(&self, call: Call, nth: u64, fault: Fault) {
        self.plan(None, call, nth, fault);
    }

    /// Fails the `nth` call of this kind on `path` from here on; 1 is the next one.
    pub fn inject_on(&self, path: &Path, call: Call, nth: u64, fault: Fault) {
        self.plan(Some(path.to_owned()), call, nth, fault);
    }

    /// Faults planned and not met yet: a test that planned one asserts that it came.
    pub fn unmet_faults(&self) -> usize {
        self.machine().plan.len()
    }

    /// Ends the machine in place of the `nth` effect from here on; 1 is the next one. That call
    /// has no effect, and it and all later ones fail with an error that [`is_crash`] knows.
    pub fn crash_at(&self, nth: u64) {
        let mut machine = self.machine();
        machine.crash_at = Some(machine.effects + nth);
    }

    /// Ends the machine at once.
    pub fn crash(&self) {
        self.machine().crashed = true;
    }

    /// Effects so far; a test counts them in one run and crashes at each in the next ones.
    pub fn effects(&self) -> u64 {
        self.machine().effects
    }

    /// An independent copy of this moment without handles, locks and plans, to look at what a
    /// power loss would leave while this machine goes on.
    pub fn fork(&self) -> Self {
        let machine = self.machine();
        let seed = machine.dice.clone().next();
        Self::of(machine.image.clone(), seed, machine.capacity)
    }

    /// The disk after SIGKILL: all that was written is there, synced or not, and what was not
    /// synced can still be lost by a later power loss.
    pub fn process_death(&self) -> Self {
        let mut machine = self.machine();
        machine.crashed = true;
        let mut image = machine.image.clone();
        image.sweep(&BTreeSet::new());
        let seed = machine.dice.clone().next();
        Self::of(image, seed, machine.capacity)
    }

    /// The disk after a power loss. Everything synced is there; of the rest the seed decides.
    pub fn power_loss(&self, seed: u64) -> Self {
        let mut machine = self.machine();
        machine.crashed = true;
        let mut image = machine.image.clone();
        let mut dice = Dice::new(seed);
        image.lose_power(&mut dice);
        Self::of(image, dice.next(), machine.capacity)
    }

    /// The disk after a power loss that left nothing unsynced.
    pub fn power_loss_total(&self) -> Self {
        let mut machine = self.machine();
        machine.crashed = true;
        let mut image = machine.image.clone();
        image.lose_all_unsynced();
        Self::of(image, 0, machine.capacity)
    }

    /// Creates `dir` below a directory that exists, its name not durable: for whoever replays the
    /// calls of a program that syncs by itself.
    pub fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.machine()
            .perform(Call::CreateDir, dir, Effect::CreateDir, |machine| {
                if machine.image.resolve(dir)?.is_some() {
                    return Err(about(io::ErrorKind::AlreadyExists, dir));
                }
                machine.image.create(dir, Inode::Dir(Names::default()))?;
                Ok(())
            })
    }

    /// Bytes all files together may have; a write that does not fit is cut short, then fails with
    /// `StorageFull`. Lengths count, holes included; a removed file gives its bytes back at once.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    /// Lets only `bytes` more be added.
    pub fn set_available(&self, bytes: u64) {
        let mut machine = self.machine();
        machine.capacity = machine.image.used().saturating_add(bytes);
    }

    /// Flips the bits of `mask` in one byte of a file, in memory and on the disk, as rot would.
    pub fn rot(&self, path: &Path, offset: usize, mask: u8) -> io::Result<()> {
        let mut machine = self.machine();
        let node = machine.image.node(path)?;
        let file = machine.image.file(node);
        let mut hit = false;
        for view in [&mut file.current, &mut file.durable] {
            if let Some(byte) = view.get_mut(offset) {
                *byte ^= mask;
                hit = true;
            }
        }
        if hit {
            Ok(())
        } else {
            Err(about(io::ErrorKind::UnexpectedEof, path))
        }
    }

    /// Every read that touches `len` bytes from `offset` of a file fails from here on, whole, as of a
    /// block that the disk has lost. A disk made from this one reads them again.
    pub fn make_unreadable(&self, path: &Path, offset: u64, len: u64) -> io::Result<()> {
        let mut machine = self.machine();
        let node = machine.image.node(path)?;
        let last = offset.saturating_add(len.saturating_sub(1));
        machine.unreadable.push((node, offset, last));
        Ok(())
    }

    /// The bytes of `path` that are durable under a durable name; `None` when no such name is.
    pub fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        self.machine().image.durable(path)
    }

    /// Effects and opens in the order they were made, since the disk or the last
    /// [`Disk::clear_log`].
    pub fn log(&self) -> Vec<Op> {
        self.machine().log.iter().cloned().collect()
    }

    pub fn clear_log(&self) {
        self.machine().log.clear();
    }

    /// Calls of one kind so far, failed ones included.
    pub fn count(&self, call: Call) -> u64 {
        self.machine().counts.get(&call).copied().unwrap_or(0)
    }

    fn of(image: Image, seed: u64, capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            image,
            dice: Dice::new(seed),
            crashed: false,
            capacity,
            plan: Vec::new(),
            unreadable: Vec::new(),
            crash_at: None,
            effects: 0,
            counts: BTreeMap::new(),
            log: VecDeque::new(),
            locks: BTreeMap::new(),
            opens: BTreeMap::new(),
        })))
    }

    fn plan(&self, path: Option<PathBuf>, call: Call, nth: u64, fault: Fault) {
        self.machine().plan.push(Planned {
            call,
            path,
            passes: nth.saturating_sub(1),
            fault,
        });
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        // A test thread that panicked must not hide the disk from the one that reports it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// Counts the call and finds out what is to happen to it.
    fn enter(&mut self, call: Call, path: &Path) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(io::Error::other(Crashed));
        }
        if call.is_effect() {
            self.effects += 1;
            if self.crash_at == Some(self.effects) {
                self.crashed = true;
                return Err(io::Error::other(Crashed));
            }
        }
        *self.counts.entry(call).or_default() += 1;
        let mut hit = None;
        self.plan.retain_mut(|planned| {
            let meant = planned.call == call && planned.path.as_deref().is_none_or(|p| p == path);
            if !meant || hit.is_some() {
                return true;
            }
            if planned.passes > 0 {
                planned.passes -= 1;
                return true;
            }
            hit = Some(planned.fault);
            false
        });
        Ok(hit)
    }

    fn record(&mut self, path: &Path, effect: Effect, done: bool) {
        if self.log.len() == LOG_LEN_MAX {
            self.log.pop_front();
        }
        self.log.push_back(Op {
            path: path.to_owned(),
            effect,
            done,
        });
    }

    /// One call that either happens or does not.
    fn perform<T>(
        &mut self,
        call: Call,
        path: &Path,
        effect: Effect,
        body: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let result = match self.enter(call, path)? {
            Some(Fault::Fail(kind) | Fault::FailScattered(kind)) => Err(injected(kind, call, path)),
            _ => body(self),
        };
        self.record(path, effect, result.is_ok());
        result
    }

    /// Forgets files without a name that nobody has open, so that a long run does not keep all
    /// it ever removed.
    fn sweep(&mut self) {
        let open = self.opens.keys().copied().collect();
        self.image.sweep(&open);
    }

    fn space(&self) -> Space {
        Space {
            total: self.capacity,
            available: self.capacity.saturating_sub(self.image.used()),
        }
    }

    fn entry(&self, name: &str, node: Node) -> Entry {
        let (kind, len) = match self.image.inode(node) {
            Inode::File(file) => (EntryKind::File, file.current.len() as u64),
            Inode::Dir(_) => (EntryKind::Dir, 0),
        };
        Entry {
            name: name.to_owned(),
            kind,
            len,
        }
    }

    fn open(&mut self, path: &Path, how: Open) -> io::Result<Node> {
        let found = self.image.resolve(path)?;
        let creates = found.is_none() && matches!(how, Open::CreateNew | Open::CreateOrOpen);
        let (call, effect) = if creates {
            (Call::Create, Effect::Create)
        } else {
            (Call::Open, Effect::Open)
        };
        self.perform(call, path, effect, |machine| match found {
            None if creates => {
                let file = Inode::File(FileBytes::default());
                machine.image.create(path, file)
            }
            None => Err(about(io::ErrorKind::NotFound, path)),
            Some(_) if how == Open::CreateNew => Err(about(io::ErrorKind::AlreadyExists, path)),
            Some(node) => match machine.image.inode(node) {
                Inode::File(_) => Ok(node),
                Inode::Dir(_) => Err(about(io::ErrorKind::IsADirectory, path)),
            },
        })
    }
}

impl crate::Disk for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn crate::File>> {
        let mut machine = self.machine();
        let node = machine.open(path, how)?;
        *machine.opens.entry(node).or_default() += 1;
        Ok(Arc::new(File {
            disk: self.clone(),
            node,
            path: path.to_owned(),
            writable: how != Open::Read,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut machine = self.machine();
        if let Some(Fault::Fail(kind) | Fault::FailScattered(kind)) =
            machine.enter(Call::List, dir)?
        {
            return Err(injected(kind, Call::List, dir));
        }
        let names = machine.image.dir(dir)?.current.clone();
        let entries = names.iter().map(|(name, node)| machine.entry(name, *node));
        Ok(entries.collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut machine = self.machine();
        if let Some(Fault::Fail(kind) | Fault::FailScattered(kind)) =
            machine.enter(Call::Stat, path)?
        {
            return Err(injected(kind, Call::Stat, path));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let found = machine.image.resolve(path)?;
        Ok(found.map(|node| machine.entry(name.unwrap_or_default(), node)))
    }

    fn create_dir_all_synced(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else {
            return Ok(());
        };
        let found = crate::Disk::stat(self, dir)?;
        if let Some(other) = &found
            && other.kind != EntryKind::Dir
        {
            return Err(about(io::ErrorKind::AlreadyExists, dir));
        }
        if found.is_none() {
            self.create_dir_all_synced(parent)?;
            self.machine()
                .perform(Call::CreateDir, dir, Effect::CreateDir, |machine| {
                    let empty = Inode::Dir(Names::default());
                    machine.image.create(dir, empty).map(|_| ())
                })?;
        }
        self.sync_dir(parent)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let effect = Effect::Rename { to: to.to_owned() };
        self.machine()
            .perform(Call::Rename, from, effect, |machine| {
                machine.image.rename(from, to)
            })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let effect = Effect::Link { to: to.to_owned() };
        self.machine().perform(Call::Link, from, effect, |machine| {
            machine.image.link(from, to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.machine()
            .perform(Call::RemoveFile, path, Effect::RemoveFile, |machine| {
                let node = machine.image.node(path)?;
                match machine.image.inode(node) {
                    Inode::File(_) => machine.image.remove(path),
                    Inode::Dir(_) => Err(about(io::ErrorKind::IsADirectory, path)),
                }
            })
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.machine()
            .perform(Call::RemoveDirAll, dir, Effect::RemoveDirAll, |machine| {
                machine.image.remove_tree(dir)
            })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.machine()
            .perform(Call::SyncDir, dir, Effect::SyncDir, |machine| {
                machine.image.sync_dir(dir)?;
                machine.sweep();
                Ok(())
            })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut machine = self.machine();
        if let Some(Fault::Fail(kind) | Fault::FailScattered(kind)) =
            machine.enter(Call::Space, path)?
        {
            return Err(injected(kind, Call::Space, path));
        }
        machine.image.node(path)?;
        Ok(machine.space())
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let mut machine = self.machine();
        let node = machine.perform(Call::Lock, path, Effect::Lock, |machine| {
            let node = match machine.image.resolve(path)? {
                Some(node) => node,
                None => machine
                    .image
                    .create(path, Inode::File(FileBytes::default()))?,
            };
            if let Some(first) = machine.locks.get(&node) {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, first.clone()));
            }
            machine.locks.insert(node, holder.trim().to_owned());
            let file = machine.image.file(node);
            file.set_len(0);
            file.write(0, holder.as_bytes());
            Ok(node)
        })?;
        *machine.opens.entry(node).or_default() += 1;
        Ok(Box::new(Locked {
            disk: self.clone(),
            node,
        }))
    }

    fn holder(&self, path: &Path) -> io::Result<Option<String>> {
        let machine = self.machine();
        if machine.crashed {
            return Err(io::Error::other(Crashed));
        }
        let found = machine.image.resolve(path)?;
        Ok(found.and_then(|node| machine.locks.get(&node).cloned()))
    }
}

impl Lock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        machine.locks.remove(&self.node);
        close(&mut machine, self.node);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(&mut self.disk.machine(), self.node);
    }
}

fn close(machine: &mut Machine, node: Node) {
    if let Some(count) = machine.opens.get_mut(&node) {
        *count -= 1;
        if *count == 0 {
            machine.opens.remove(&node);
        }
    }
}

impl File {
    fn sync(&self, call: Call, effect: Effect) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let machine = &mut *machine;
        let fault = machine.enter(call, &self.path)?;
        let file = machine.image.file(self.node);
        let result = match fault {
            Some(Fault::Fail(kind)) => {
                file.sync_failed();
                Err(injected(kind, call, &self.path))
            }
            Some(Fault::FailScattered(kind)) => {
                file.sync_failed_scattered(&mut machine.dice);
                Err(injected(kind, call, &self.path))
            }
            _ => {
                file.sync();
                Ok(())
            }
        };
        machine.record(&self.path, effect, result.is_ok());
        result
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(about(io::ErrorKind::PermissionDenied, &self.path))
        }
    }
}

/// Bytes of `len` at `offset` that fit, given the file's length and what is available.
fn fitting(file_len: u64, offset: u64, len: usize, available: u64) -> usize {
    let end_max = file_len.saturating_add(available);
    let room = end_max.saturating_sub(offset);
    usize::try_from(room).unwrap_or(usize::MAX).min(len)
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl crate::File for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.disk.machine();
        let mut wanted = buffer.len();
        match machine.enter(Call::Read, &self.path)? {
            Some(Fault::Fail(kind) | Fault::FailScattered(kind)) => {
                return Err(injected(kind, Call::Read, &self.path));
            }
            Some(Fault::Short(len)) => wanted = wanted.min(len),
            Some(Fault::Lost | Fault::Misdirected(_)) | None => {}
        }
        let held = machine.image.file(self.node).current.len();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(held);
        let len = wanted.min(held - from);
        let end = offset.saturating_add(len as u64);
        let is_lost = machine
            .unreadable
            .iter()
            .any(|&(node, first, last)| node == self.node && first < end && last >= offset);
        if is_lost {
            let message = format!("{} cannot be read here: block lost", self.path.display());
            return Err(io::Error::other(message));
        }
        let bytes = &machine.image.file(self.node).current;
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        let at = position(offset)?;
        let mut machine = self.disk.machine();
        let machine = &mut *machine;
        let fault = machine.enter(Call::Write, &self.path)?;
        let file_len = machine.image.file(self.node).current.len() as u64;
        // Only what lengthens a file needs space, and the sum over all files is not free.
        let fits = if offset.saturating_add(bytes.len() as u64) <= file_len {
            bytes.len()
        } else {
            fitting(file_len, offset, bytes.len(), machine.space().available)
        };
        let result = match fault {
            Some(Fault::Fail(kind) | Fault::FailScattered(kind)) => {
                Err(injected(kind, Call::Write, &self.path))
            }
            _ if fits == 0 && !bytes.is_empty() => {
                Err(about(io::ErrorKind::StorageFull, &self.path))
            }
            Some(Fault::Short(len)) => Ok(fits.min(len)),
            Some(Fault::Lost | Fault::Misdirected(_)) | None => Ok(fits),
        };
        let len = *result.as_ref().unwrap_or(&0);
        if len > 0 {
            let file = machine.image.file(self.node);
            match fault {
                Some(Fault::Lost) => file.write_lost(at, &bytes[..len]),
                Some(Fault::Misdirected(to)) => file.write_misdirected(at, to, &bytes[..len]),
                _ => file.write(at, &bytes[..len]),
            }
        }
        machine.record(&self.path, Effect::Write { offset, len }, result.is_ok());
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData, Effect::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll, Effect::SyncAll)
    }

    fn drop_cache(&self, _offset: u64, _len: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        if machine.crashed {
            return Err(io::Error::other(Crashed));
        }
        machine.image.file(self.node).drop_cache();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut machine = self.disk.machine();
        if let Some(Fault::Fail(kind) | Fault::FailScattered(kind)) =
            machine.enter(Call::Stat, &self.path)?
        {
            return Err(injected(kind, Call::Stat, &self.path));
        }
        Ok(machine.image.file(self.node).current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let new = position(len)?;
        let mut machine = self.disk.machine();
        machine.perform(
            Call::SetLen,
            &self.path,
            Effect::SetLen { len },
            |machine| {
                let available = machine.space().available;
                let file = machine.image.file(self.node);
                if new as u64 > (file.current.len() as u64).saturating_add(available) {
                    return Err(about(io::ErrorKind::StorageFull, &self.path));
                }
                file.set_len(new);
                Ok(())
            },
        )
    }
}

//! One pass over the local filesystems, by two threads.
//!
//! Each directory is opened relative to its parent's descriptor and never through a link, so no
//! rename during the pass leads outside. A mount is never crossed: mount points are known before
//! they would be opened, and the mount of every opened directory is compared. Memory is bounded by
//! depth, not by the number of files: a thread descends with one descriptor and one buffer a level,
//! and hands a directory over only when the other thread has nothing to do.

use std::{
    collections::HashSet,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags},
    io::Errno,
};
use world::Clock;

use super::{device, refusal};
use crate::{
    collect::Progress,
    facts::{Reason, Unknown},
    target::{Walk, Walked, WalkedFile, mount_table, mount_table::Mount, unknown},
};

/// Two find more than one while the disk is slow, and leave the machine its other work.
const THREADS: usize = 2;

/// Levels below a mount point. Deep trees of packages have forty. Two threads hold a descriptor a
/// level and stay under the usual limit of 1,024.
const DEPTH_MAX: usize = 256;

/// Names of about four hundred files; measured, larger ones gain nothing.
const LISTING_BYTES: usize = 16 << 10;

/// Directories waiting for a thread: a few hide the hand-over, each holds a descriptor.
const QUEUE_MAX: usize = 32;

/// Entries between two looks at the clock.
const LOOK_EVERY: u32 = 1_024;

/// Between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Pieces of an overlay that stand for a deleted file; no device answers behind them.
const WHITEOUT: (u32, u32) = (0, 0);

pub(super) fn walk(
    root: &OwnedFd,
    table: Option<Vec<u8>>,
    walk: &Walk<'_>,
    progress: &dyn Progress,
    clock: &dyn Clock,
) -> Result<Walked, Unknown> {
    let (mounts, points, mut walked) = match table {
        None => (vec![None], HashSet::new(), Walked::default()),
        Some(table) => {
            let (plan, walked) = mount_table::begin(&table)?;
            let mounts = plan.enter.into_iter().map(Some).collect();
            (mounts, plan.points, walked)
        }
    };
    let mut queue = Vec::new();
    let mut expected = 0;
    for mount in &mounts {
        match open_mount(root, mount.as_ref()) {
            Ok(Some(job)) => {
                expected += inodes_in_use(&job.dir);
                queue.push(job);
            }
            Ok(None) => {}
            Err(unseen) => note(&mut walked.unseen, unseen),
        }
    }
    let shared = Shared {
        walk,
        points,
        progress,
        clock,
        end: clock.monotonic() + walk.deadline,
        expected: (expected > 0).then_some(expected),
        seen: AtomicU64::new(0),
        reported_ms: AtomicU64::new(0),
        hungry: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        state: Mutex::new(State { queue, idle: 0 }),
        wake: Condvar::new(),
        no_atime: rustix::process::geteuid().is_root(),
    };
    for found in run(&shared) {
        merge(&mut walked, found?, walk.list_max);
    }
    if shared.stopped.load(Ordering::Relaxed) {
        return Err(unknown(Reason::Timeout, "walk", "cut before its end"));
    }
    progress.walked(shared.seen.load(Ordering::Relaxed), shared.expected);
    sort(&mut walked);
    Ok(walked)
}

fn run(shared: &Shared<'_>) -> Vec<Result<Walked, Unknown>> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| Worker::new(shared).run()))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .map_err(|_| unknown(Reason::Unsupported, "walk", "a thread of it broke"))
            })
            .collect()
    })
}

/// A directory to visit with everything below it.
struct Job {
    dir: OwnedFd,
    attributes: Attributes,
    path: Vec<u8>,
    depth: usize,
    /// Of the mount the directory is on.
    place: Place,
}

/// What tells one mount from another: its id where the kernel tells it (5.8), its device before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Mount(u64),
    Device(u32, u32),
}

/// `None` for a mount on a file, or one that went away.
fn open_mount(root: &OwnedFd, mount: Option<&Mount>) -> Result<Option<Job>, Unknown> {
    let point = mount.map_or(&b"/"[..], |mount| &mount.point);
    let relative = match point.strip_prefix(b"/") {
        Some(b"") | None => &b"."[..],
        Some(relative) => relative,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = String::from_utf8_lossy(point);
    let dir = match fs::openat(root, relative, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOTDIR | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(refusal(&name, errno)),
    };
    let (attributes, place) = attributes(&dir).map_err(|errno| refusal(&name, errno))?;
    if let (Some(mount), Place::Mount(id)) = (mount, place)
        && mount.id != id
    {
        return Err(unknown(
            Reason::Unreadable,
            &name,
            "another mount came over it",
        ));
    }
    // The path of `/` is empty: what is below adds the slash.
    let path = if point == b"/" {
        Vec::new()
    } else {
        point.to_vec()
    };
    Ok(Some(Job {
        dir,
        attributes,
        path,
        depth: 0,
        place,
    }))
}

fn inodes_in_use(dir: &OwnedFd) -> u64 {
    fs::fstatvfs(dir).map_or(0, |usage| usage.f_files.saturating_sub(usage.f_ffree))
}

struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
}

fn attributes(dir: &OwnedFd) -> Result<(Attributes, Place), Errno> {
    let mask = StatxFlags::MODE | StatxFlags::UID | StatxFlags::GID | StatxFlags::MNT_ID;
    let stat = fs::statx(dir, "", AtFlags::EMPTY_PATH, mask)?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask);
    let place = if told.contains(StatxFlags::MNT_ID) {
        Place::Mount(stat.stx_mnt_id)
    } else {
        Place::Device(stat.stx_dev_major, stat.stx_dev_minor)
    };
    let attributes = Attributes {
        mode: u32::from(stat.stx_mode),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
    };
    Ok((attributes, place))
}

struct State {
    queue: Vec<Job>,
    idle: usize,
}

struct Shared<'a> {
    walk: &'a Walk<'a>,
    points: HashSet<Vec<u8>>,
    progress: &'a dyn Progress,
    clock: &'a dyn Clock,
    end: Duration,
    expected: Option<u64>,
    seen: AtomicU64,
    reported_ms: AtomicU64,
    /// Threads without work: the others look at it before they descend.
    hungry: AtomicUsize,
    stopped: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    /// Root may list without touching access times.
    no_atime: bool,
}

impl Shared<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means that a worker broke; its own result says so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next directory; `None` once all threads have none.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        if let Some(job) = state.queue.pop() {
            return Some(job);
        }
        state.idle += 1;
        self.hungry.store(state.idle, Ordering::Relaxed);
        loop {
            if state.idle == THREADS || self.stopped.load(Ordering::Relaxed) {
                self.wake.notify_all();
                return None;
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = state.queue.pop() {
                state.idle -= 1;
                self.hungry.store(state.idle, Ordering::Relaxed);
                return Some(job);
            }
        }
    }

    /// Gives a directory away if somebody waits; otherwise it comes back.
    fn offer(&self, job: Job) -> Option<Job> {
        if self.hungry.load(Ordering::Relaxed) == 0 {
            return Some(job);
        }
        let mut state = self.state();
        if state.queue.len() >= QUEUE_MAX {
            return Some(job);
        }
        state.queue.push(job);
        self.wake.notify_one();
        None
    }

    /// Counts, reports, and notices the deadline.
    fn look(&self, seen: u64) {
        let total = self.seen.fetch_add(seen, Ordering::Relaxed) + seen;
        let now = self.clock.monotonic();
        if now >= self.end {
            self.stop();
        }
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let last_ms = self.reported_ms.load(Ordering::Relaxed);
        let due = u128::from(now_ms.saturating_sub(last_ms)) >= REPORT_EVERY.as_millis();
        if due
            && self
                .reported_ms
                .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            if self.progress.cancelled() {
                self.stop();
            }
            self.progress.walked(total, self.expected);
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Under the lock: a thread between its check and its wait would miss the call.
        let _state = self.state();
        self.wake.notify_all();
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    found: Walked,
    /// Listing buffers not in use, at most one a level.
    spare: Vec<Vec<u8>>,
    unlooked: u32,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            found: Walked::default(),
            spare: Vec::new(),
            unlooked: 0,
        }
    }

    fn run(mut self) -> Walked {
        // However this thread ends, the other must not wait for it.
        let end = AtEnd(self.shared);
        while let Some(job) = self.shared.next() {
            let mut path = job.path.clone();
            self.visit(&job, &mut path);
        }
        self.shared.look(u64::from(self.unlooked));
        drop(end);
        self.found
    }

    fn visit(&mut self, job: &Job, path: &mut Vec<u8>) {
        self.directory(path, &job.attributes);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.reserve(LISTING_BYTES);
        self.entries(job, path, buffer.spare_capacity_mut());
        self.spare.push(buffer);
    }

    fn directory(&mut self, path: &[u8], attributes: &Attributes) {
        self.found.dirs += 1;
        if attributes.mode & 0o1002 == 0o002 {
            let list = &mut self.found.world_writable_dirs_no_sticky;
            keep(list, self.shared.walk.list_max, path, attributes);
        }
        self.owners(path, attributes);
    }

    fn entries(&mut self, parent: &Job, path: &mut Vec<u8>, buffer: &mut [MaybeUninit<u8>]) {
        let mut listing = RawDir::new(&parent.dir, buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return self.unseen(path, errno),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.tick();
            if self.shared.stopped.load(Ordering::Relaxed) {
                return;
            }
            let parent_len = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            match entry.file_type() {
                FileType::Directory => self.below(parent, name, path),
                kind => self.file(parent, name, path, kind),
            }
            path.truncate(parent_len);
        }
    }

    fn tick(&mut self) {
        self.unlooked += 1;
        if self.unlooked == LOOK_EVERY {
            self.shared.look(u64::from(LOOK_EVERY));
            self.unlooked = 0;
        }
    }

    fn below(&mut self, parent: &Job, name: &[u8], path: &mut Vec<u8>) {
        if self.shared.points.contains(path.as_slice()) {
            return;
        }
        if parent.depth == DEPTH_MAX {
            let object = String::from_utf8_lossy(path);
            let deep = unknown(
                Reason::Truncated,
                &object,
                format!("over {DEPTH_MAX} levels"),
            );
            note(&mut self.found.unseen, deep);
            return;
        }
        let opened = self.open(&parent.dir, name).and_then(|dir| {
            let (attributes, place) = attributes(&dir)?;
            Ok((dir, attributes, place))
        });
        let (dir, attributes, place) = match opened {
            Ok(opened) => opened,
            Err(errno) => return self.unseen(path, errno),
        };
        if place != parent.place {
            return;
        }
        let mut job = Job {
            dir,
            attributes,
            path: Vec::new(),
            depth: parent.depth + 1,
            place,
        };
        if self.shared.hungry.load(Ordering::Relaxed) > 0 {
            job.path = path.clone();
            if let Some(job) = self.shared.offer(job) {
                self.visit(&job, path);
            }
        } else {
            self.visit(&job, path);
        }
    }

    fn open(&self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        if self.shared.no_atime {
            match fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
                // Root of a user namespace may not, where the owner is outside of it.
                Err(Errno::PERM) => {}
                other => return other,
            }
        }
        fs::openat(parent, name, flags, Mode::empty())
    }

    fn file(&mut self, parent: &Job, name: &[u8], path: &mut Vec<u8>, told: FileType) {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match fs::statat(&parent.dir, name, flags) {
            Ok(stat) => stat,
            Err(errno) => return self.unseen(path, errno),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if told == FileType::Unknown && kind == FileType::Directory {
            // Some filesystems do not tell the kind in their listing.
            return self.below(parent, name, path);
        }
        self.found.files += 1;
        let attributes = Attributes {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        };
        self.owners(path, &attributes);
        let max = self.shared.walk.list_max;
        let found = &mut self.found;
        match kind {
            FileType::RegularFile if attributes.mode & 0o6002 != 0 => {
                for (bit, list) in [
                    (0o0002, &mut found.world_writable_files),
                    (0o4000, &mut found.setuid),
                    (0o2000, &mut found.setgid),
                ] {
                    if attributes.mode & bit != 0 {
                        keep(list, max, path, &attributes);
                    }
                }
            }
            FileType::CharacterDevice | FileType::BlockDevice
                if !path.starts_with(b"/dev/") && device(&stat) != WHITEOUT =>
            {
                keep(&mut found.device_files_outside_dev, max, path, &attributes);
            }
            _ => {}
        }
    }

    fn owners(&mut self, path: &[u8], attributes: &Attributes) {
        let walk = self.shared.walk;
        if walk.known_uids.binary_search(&attributes.uid).is_err() {
            keep(&mut self.found.unowned, walk.list_max, path, attributes);
        }
        if walk.known_gids.binary_search(&attributes.gid).is_err() {
            keep(&mut self.found.ungrouped, walk.list_max, path, attributes);
        }
    }

    fn unseen(&mut self, path: &[u8], errno: Errno) {
        match errno {
            // Gone, or replaced by something else, since it was listed.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {}
            errno => {
                let object = String::from_utf8_lossy(or_root(path));
                note(&mut self.found.unseen, refusal(&object, errno));
            }
        }
    }
}

/// Lets the other threads go when a worker leaves by a panic.
struct AtEnd<'a>(&'a Shared<'a>);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// Of all that could not be seen, the first by name stands for the rest: which one is met first is
/// chance, and the same host gives the same facts.
fn note(unseen: &mut Option<Unknown>, another: Unknown) {
    match unseen {
        Some(known) if known.detail <= another.detail => {}
        _ => *unseen = Some(another),
    }
}

/// Up to one more than `max`: that one says that the list is over its cap.
fn keep(list: &mut Vec<WalkedFile>, max: usize, path: &[u8], attributes: &Attributes) {
    if list.len() <= max {
        list.push(WalkedFile {
            path: String::from_utf8_lossy(or_root(path)).into_owned(),
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
        });
    }
}

/// The root's own path is kept empty, so that what is below it adds the slash.
fn or_root(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

fn lists(walked: &mut Walked) -> [&mut Vec<WalkedFile>; 7] {
    [
        &mut walked.world_writable_files,
        &mut walked.world_writable_dirs_no_sticky,
        &mut walked.unowned,
        &mut walked.ungrouped,
        &mut walked.setuid,
        &mut walked.setgid,
        &mut walked.device_files_outside_dev,
    ]
}

fn merge(walked: &mut Walked, mut found: Walked, max: usize) {
    for (list, more) in lists(walked).into_iter().zip(lists(&mut found)) {
        list.append(more);
        list.truncate(max + 1);
    }
    walked.files += found.files;
    walked.dirs += found.dirs;
    if let Some(unseen) = found.unseen {
        note(&mut walked.unseen, unseen);
    }
}

/// Which thread found what is chance; the same files give the same facts.
fn sort(walked: &mut Walked) {
    for list in lists(walked) {
        list.sort_by(|a, b| a.path.cmp(&b.path));
    }
}

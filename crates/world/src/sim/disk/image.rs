//! What a simulated disk holds: the view of running programs, what would survive, and the
//! changes between the two.
//!
//! A power loss chooses, for each sector of each file, one of the versions it had since the last
//! sync: that is every lost, kept, torn and reordered write a device can leave, and no mixture
//! within one sector. The length of the file is chosen apart from its bytes. Of the unsynced
//! changes of a directory any subset survives, in order. A rename inside one directory is one
//! change; a rename between two directories is one change in each, and either may be lost alone,
//! so the file can end up under both names or under none.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path},
};

use crate::sim::dice::Dice;

/// What a device writes whole or not at all. Disks with larger sectors are only kinder.
pub(super) const SECTOR_LEN: usize = 512;

pub(super) type Node = u64;

const ROOT: Node = 0;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileBytes {
    pub(super) current: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Oldest first: `durable` with all of these applied is `current`, unless a sync failed or a write
    /// went astray.
    unsynced: Vec<Change>,
}

/// Names bound (`Some`) or unbound (`None`) together.
type NameChange = Vec<(String, Option<Node>)>;

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) current: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    unsynced: Vec<NameChange>,
}

#[derive(Clone, Debug)]
pub(super) enum Inode {
    File(FileBytes),
    Dir(Names),
}

/// The unsynced changes of one file or directory that a power loss lets through.
enum Fate {
    All,
    Nothing,
    /// In the order they were made, the last one torn.
    Prefix,
    /// Each sector and each name for itself.
    Scattered,
}

impl Fate {
    fn choose(dice: &mut Dice) -> Self {
        match dice.below(6) {
            0 => Self::All,
            1 => Self::Nothing,
            2 => Self::Prefix,
            _ => Self::Scattered,
        }
    }
}

impl FileBytes {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let change = Change::Write {
            offset,
            bytes: bytes.to_vec(),
        };
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    /// Readers see it until the bytes are read from the disk again; no sync writes it.
    pub(super) fn write_lost(&mut self, offset: usize, bytes: &[u8]) {
        let change = Change::Write {
            offset,
            bytes: bytes.to_vec(),
        };
        change.apply(&mut self.current);
    }

    /// Readers see it where it was meant to be, until they read from the disk; it lands elsewhere.
    pub(super) fn write_misdirected(&mut self, meant: usize, landed: usize, bytes: &[u8]) {
        self.write_lost(meant, bytes);
        let change = Change::Write {
            offset: landed,
            bytes: bytes.to_vec(),
        };
        self.unsynced.push(change);
    }

    /// Forgets what reading would show and the disk does not have. Bytes that wait for a sync stay.
    pub(super) fn drop_cache(&mut self) {
        self.current.clone_from(&self.durable);
        for change in &self.unsynced {
            change.apply(&mut self.current);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.current.resize(len, 0);
        self.unsynced.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// As Linux does: the pages are marked clean, so readers go on seeing the bytes, no later sync
    /// writes them, and nobody is told again.
    pub(super) fn sync_failed(&mut self) {
        self.unsynced.clear();
    }

    /// The failed sync of a device that had written an arbitrary part of it.
    pub(super) fn sync_failed_scattered(&mut self, dice: &mut Dice) {
        self.durable = self.survivor(&Fate::Scattered, dice);
        self.unsynced.clear();
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        let fate = Fate::choose(dice);
        self.durable = self.survivor(&fate, dice);
        self.restart();
    }

    fn restart(&mut self) {
        self.unsynced.clear();
        self.current.clone_from(&self.durable);
    }

    fn survivor(&self, fate: &Fate, dice: &mut Dice) -> Vec<u8> {
        let count = self.unsynced.len();
        let mut lens = vec![self.durable.len()];
        for change in &self.unsynced {
            let last = *lens.last().expect("starts with one");
            lens.push(change.len_after(last));
        }
        let room = lens.iter().copied().max().unwrap_or(0);
        let mut versions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, change) in self.unsynced.iter().enumerate() {
            let (from, to) = change.range(room);
            for sector in from / SECTOR_LEN..to.div_ceil(SECTOR_LEN) {
                versions.entry(sector).or_default().push(index);
            }
        }
        let (whole, len) = match fate {
            Fate::All => (count, lens[count]),
            Fate::Nothing => (0, lens[0]),
            Fate::Prefix => {
                let whole = dice.below(count + 1);
                (whole, lens[(whole + dice.below(2)).min(count)])
            }
            Fate::Scattered => (0, scattered_len(&lens, dice)),
        };
        let mut bytes = self.durable.clone();
        bytes.resize(room, 0);
        for (sector, changes) in &versions {
            let kept = match fate {
                Fate::All => changes.len(),
                Fate::Nothing => 0,
                Fate::Prefix => {
                    let torn = changes.contains(&whole) && dice.coin();
                    changes.iter().filter(|index| **index < whole).count() + usize::from(torn)
                }
                Fate::Scattered => dice.below(changes.len() + 1),
            };
            for index in &changes[..kept] {
                self.unsynced[*index].apply_to_sector(&mut bytes, *sector);
            }
        }
        bytes.resize(len, 0);
        bytes
    }
}

/// One of the lengths the file had, or a whole number of sectors between the extremes.
fn scattered_len(lens: &[usize], dice: &mut Dice) -> usize {
    let least = lens.iter().copied().min().unwrap_or(0);
    let most = lens.iter().copied().max().unwrap_or(0);
    if dice.below(4) > 0 {
        return lens[dice.below(lens.len())];
    }
    let sectors = (most - least) / SECTOR_LEN;
    (least.next_multiple_of(SECTOR_LEN) + dice.below(sectors + 1) * SECTOR_LEN).min(most)
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }

    /// The part of the change that falls into `sector`; `file` is long enough for all changes.
    fn apply_to_sector(&self, file: &mut [u8], sector: usize) {
        let (start, end) = self.range(file.len());
        let from = start.max(sector * SECTOR_LEN);
        let to = end.min((sector + 1) * SECTOR_LEN);
        match self {
            Self::Write { offset, bytes } => {
                file[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
            }
            Self::SetLen(_) => file[from..to].fill(0),
        }
    }

    fn len_after(&self, before: usize) -> usize {
        match self {
            Self::Write { offset, bytes } => before.max(offset + bytes.len()),
            Self::SetLen(len) => *len,
        }
    }

    /// Bytes touched, in a file of `room` bytes: a shorter length clears all that was behind it.
    fn range(&self, room: usize) -> (usize, usize) {
        match self {
            Self::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Self::SetLen(len) => (*len, room),
        }
    }
}

impl Names {
    fn change(&mut self, change: NameChange) {
        apply_names(&mut self.current, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.current);
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        let fate = Fate::choose(dice);
        let whole = dice.below(self.unsynced.len() + 1);
        for (index, change) in self.unsynced.iter().enumerate() {
            let kept = match fate {
                Fate::All => true,
                Fate::Nothing => false,
                Fate::Prefix => index < whole,
                Fate::Scattered => dice.coin(),
            };
            if kept {
                apply_names(&mut self.durable, change);
            }
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.unsynced.clear();
        self.current.clone_from(&self.durable);
    }
}

fn apply_names(names: &mut BTreeMap<String, Node>, change: &NameChange) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// Every file and directory, by node; node 0 is the root directory.
#[derive(Clone, Debug)]
pub(super) struct Image {
    nodes: BTreeMap<Node, Inode>,
    next: Node,
}

impl Image {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Inode::Dir(Names::default()))]),
            next: ROOT + 1,
        }
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<Option<Node>> {
        let mut node = ROOT;
        for name in names_of(path)? {
            let Some(Inode::Dir(dir)) = self.nodes.get(&node) else {
                return Err(about(io::ErrorKind::NotADirectory, path));
            };
            match dir.current.get(name) {
                Some(child) => node = *child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<Node> {
        self.resolve(path)?
            .ok_or_else(|| about(io::ErrorKind::NotFound, path))
    }

    pub(super) fn inode(&self, node: Node) -> &Inode {
        self.nodes
            .get(&node)
            .expect("a node is kept while it is named or open")
    }

    pub(super) fn file(&mut self, node: Node) -> &mut FileBytes {
        match self.nodes.get_mut(&node) {
            Some(Inode::File(file)) => file,
            other => unreachable!("open handles are of files, node {node} is {other:?}"),
        }
    }

    pub(super) fn dir(&mut self, path: &Path) -> io::Result<&mut Names> {
        let node = self.node(path)?;
        match self.nodes.get_mut(&node) {
            Some(Inode::Dir(dir)) => Ok(dir),
            _ => Err(about(io::ErrorKind::NotADirectory, path)),
        }
    }

    /// Creates an empty file or directory; its parent exists and has no such name.
    pub(super) fn create(&mut self, path: &Path, inode: Inode) -> io::Result<Node> {
        let (parent, name) = split(path)?;
        let node = self.next;
        self.dir(parent)?
            .change(vec![(name.to_owned(), Some(node))]);
        self.nodes.insert(node, inode);
        self.next += 1;
        Ok(node)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        self.node(path)?;
        self.dir(parent)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        let children: Vec<String> = self.dir(path)?.current.keys().cloned().collect();
        for child in children {
            let child = path.join(child);
            match self.inode(self.node(&child)?) {
                Inode::Dir(_) => self.remove_tree(&child)?,
                Inode::File(_) => self.remove(&child)?,
            }
        }
        self.remove(path)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.node(from)?;
        if let Some(replaced) = self.resolve(to)? {
            match (self.inode(node), self.inode(replaced)) {
                (Inode::File(_), Inode::File(_)) => {}
                (Inode::Dir(_), Inode::Dir(old)) if old.current.is_empty() => {}
                (_, Inode::Dir(_)) => return Err(about(io::ErrorKind::IsADirectory, to)),
                _ => return Err(about(io::ErrorKind::NotADirectory, to)),
            }
        }
        if from == to {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(about(io::ErrorKind::InvalidInput, to));
        }
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        let unbind = (from_name.to_owned(), None);
        let bind = (to_name.to_owned(), Some(node));
        if self.node(from_dir)? == self.node(to_dir)? {
            self.dir(from_dir)?.change(vec![unbind, bind]);
        } else {
            self.dir(to_dir)?.change(vec![bind]);
            self.dir(from_dir)?.change(vec![unbind]);
        }
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.node(from)?;
        if matches!(self.inode(node), Inode::Dir(_)) {
            return Err(about(io::ErrorKind::PermissionDenied, from));
        }
        if self.resolve(to)?.is_some() {
            return Err(about(io::ErrorKind::AlreadyExists, to));
        }
        let (dir, name) = split(to)?;
        self.dir(dir)?.change(vec![(name.to_owned(), Some(node))]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.dir(path)?.sync();
        Ok(())
    }

    /// Bytes of the files that running programs see by name.
    pub(super) fn used(&self) -> u64 {
        let named = self.reachable(|dir| dir.current.values().copied().collect());
        let files = named.iter().map(|node| match self.inode(*node) {
            Inode::File(file) => file.current.len() as u64,
            Inode::Dir(_) => 0,
        });
        files.sum()
    }

    /// The bytes of `path` if power were lost at once and nothing unsynced survived.
    pub(super) fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let mut node = ROOT;
        for name in names_of(path).ok()? {
            match self.nodes.get(&node) {
                Some(Inode::Dir(dir)) => node = *dir.durable.get(name)?,
                _ => return None,
            }
        }
        match self.inode(node) {
            Inode::File(file) => Some(file.durable.clone()),
            Inode::Dir(_) => None,
        }
    }

    /// Forgets files that have no name left, neither for programs nor on the disk, and are not
    /// in `open`.
    pub(super) fn sweep(&mut self, open: &BTreeSet<Node>) {
        // What an unsynced change names can still come back, with all that lies below it.
        let kept = self.reachable(|dir| {
            let unsynced = dir.unsynced.iter().flatten().filter_map(|(_, node)| *node);
            let named = dir.current.values().chain(dir.durable.values()).copied();
            named.chain(unsynced).collect()
        });
        self.nodes
            .retain(|node, _| kept.contains(node) || open.contains(node));
    }

    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        for inode in self.nodes.values_mut() {
            match inode {
                Inode::File(file) => file.lose_power(dice),
                Inode::Dir(dir) => dir.lose_power(dice),
            }
        }
        self.sweep(&BTreeSet::new());
    }

    pub(super) fn lose_all_unsynced(&mut self) {
        for inode in self.nodes.values_mut() {
            match inode {
                Inode::File(file) => file.restart(),
                Inode::Dir(dir) => dir.restart(),
            }
        }
        self.sweep(&BTreeSet::new());
    }

    fn reachable(&self, children: impl Fn(&Names) -> Vec<Node>) -> BTreeSet<Node> {
        let mut found = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            if let Inode::Dir(dir) = self.inode(node) {
                for child in children(dir) {
                    if found.insert(child) {
                        open.push(child);
                    }
                }
            }
        }
        found
    }
}

fn names_of(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(about(io::ErrorKind::InvalidInput, path));
    }
    for component in components {
        match component {
            Component::Normal(name) => {
                let name = name
                    .to_str()
                    .ok_or_else(|| about(io::ErrorKind::InvalidData, path))?;
                names.push(name);
            }
            _ => return Err(about(io::ErrorKind::InvalidInput, path)),
        }
    }
    Ok(names)
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    match (path.parent(), name) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(about(io::ErrorKind::InvalidInput, path)),
    }
}

pub(super) fn about(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}

//! Trees from what came: opened once as they came, or made of the present ones and what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use wal::Lsn;
use world::{Disk, disk::Open};

use crate::{
    Error, Kind, Options,
    changes::{Changes, Section},
    description::{Description, FileName},
    manifest::{Manifest, TableEntry},
    recovery::{self, OWN, TABLES_DIR},
    sweep::Rule,
    tree::{Shared, Tree},
};

/// The files are those of the trees that the manifest names, or the one of what changed.
pub(crate) fn check_files(description: &Description) -> Result<(), Error> {
    let names: Vec<_> = description.files.iter().map(|file| file.name).collect();
    let is_sound = if description.since.is_some() {
        names == [FileName::Changes]
    } else {
        let mut currents: Vec<u32> = names
            .iter()
            .filter_map(|name| match name {
                FileName::Current { tree } => Some(*tree),
                _ => None,
            })
            .collect();
        currents.sort_unstable();
        let mut trees: Vec<u32> = names_of(&description.manifest).into_keys().collect();
        trees.sort_unstable();
        let is_known = |name: &FileName| match name {
            FileName::Current { tree }
            | FileName::List { tree, .. }
            | FileName::Table { tree, .. } => trees.binary_search(tree).is_ok(),
            FileName::Changes => false,
        };
        let distinct: BTreeSet<_> = names.iter().map(|name| name.path()).collect();
        currents == trees && names.iter().all(is_known) && distinct.len() == names.len()
    };
    if is_sound {
        return Ok(());
    }
    let message = "a base whose files are not those of its tables";
    Err(Error::new(Kind::Corrupt, message))
}

/// Opens every tree that came, as the store will. The files were compared with their checksums.
pub(crate) fn open_all(
    options: &Options,
    new: &Path,
    description: &Description,
) -> Result<Manifest, Error> {
    let reached = reaches(options, new, &description.manifest)?;
    if reached > description.reaches {
        let message = format!(
            "a base holds lsn {reached}, and says that it ends at lsn {}",
            description.reaches
        );
        return Err(Error::new(Kind::Corrupt, message));
    }
    Ok(Manifest {
        // The journal begins behind it, and keeps nothing for feeds that is not there.
        feed_from: description.manifest.checkpoint.next(),
        ..description.manifest.clone()
    })
}

/// The newest position in the trees in `dir`.
pub(crate) fn reaches(options: &Options, dir: &Path, manifest: &Manifest) -> Result<Lsn, Error> {
    let shared = recovery::shared(options);
    let mut reaches = Lsn::ZERO;
    for (id, name) in names_of(manifest) {
        let dir = dir.join(id.to_string());
        let tree = recovery::open_tree(&*options.disk, &dir, &name, rule_of(id), 0, &shared)?;
        reaches = reaches.max(tree.persisted());
    }
    Ok(reaches)
}

/// Makes the trees in `new` of those of the present store up to `since`, and of `changes`.
pub(crate) fn changes(
    options: &Options,
    new: &Path,
    changes: &Path,
    since: Lsn,
    description: &Description,
) -> Result<Manifest, Error> {
    let disk = &*options.disk;
    let present = Manifest::load(disk, &options.dir)?;
    let present = present.expect("looked at when the install began, under the same lock");
    let applying = Applying {
        options,
        new,
        since,
        to: description.manifest.checkpoint,
        present: names_of(&present),
        shared: recovery::shared(options),
    };
    let reading = |error| Error::io("reading", changes, error);
    let file = disk.open(changes, Open::Read).map_err(reading)?;
    let len = file.len().map_err(reading)?;
    let mut read = Changes::new(&*file, len);
    // What an earlier attempt left half-made.
    crate::swap::remove(disk, new)?;
    let mut whole = BTreeSet::new();
    let mut wanted = names_of(&description.manifest);
    while let Some(section) = read.section()? {
        let Some(name) = wanted.remove(&section.tree) else {
            let message = format!("changes of tree {}, which is none", section.tree);
            return Err(Error::new(Kind::Corrupt, message));
        };
        applying.section(section, &name, &mut read)?;
        if section.is_whole {
            whole.insert(section.tree);
        }
    }
    if let Some((tree, name)) = wanted.first_key_value() {
        let message = format!("no word of tree {tree}, {name:?}, in what changed");
        return Err(Error::new(Kind::Corrupt, message));
    }
    Ok(merged(description, &present, &whole))
}

struct Applying<'a> {
    options: &'a Options,
    new: &'a Path,
    since: Lsn,
    to: Lsn,
    /// Trees of the store as it is.
    present: BTreeMap<u32, String>,
    shared: Shared,
}

impl Applying<'_> {
    fn section(&self, section: Section, name: &str, read: &mut Changes<'_>) -> Result<(), Error> {
        let (tree, above) = if section.is_whole {
            let dir = self.dir(section.tree);
            let disk = &*self.options.disk;
            let rule = rule_of(section.tree);
            let tree = recovery::create_tree(disk, &dir, name, rule, &self.shared)?;
            (tree, Lsn::ZERO)
        } else {
            (self.present_tree(section.tree, name)?, self.since)
        };
        read.apply(&tree, self.options.memtable_bytes, above, self.to)
    }

    /// The tree as it is, up to `since`: its files are linked, so the present store keeps its own.
    fn present_tree(&self, id: u32, name: &str) -> Result<Tree, Error> {
        if self.present.get(&id).is_none_or(|present| present != name) {
            let here = self.present.get(&id).map_or("no table", String::as_str);
            let message = format!(
                "table {id} is {name:?} where it is written and {here:?} here: run the same version \
                 on all nodes, or take a full base"
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let dir = self.dir(id);
        self.link_tree(id, name, &dir)?;
        let disk = &*self.options.disk;
        let open = |rule, floor| recovery::open_tree(disk, &dir, name, rule, floor, &self.shared);
        let tree = open(rule_of(id), 0)?;
        if tree.persisted() <= self.since {
            return Ok(tree);
        }
        // Positions above may have been given again, to other commits.
        drop(tree);
        open(Rule::Above, self.since.get())?.compact_all()?;
        let tree = open(rule_of(id), 0)?;
        if tree.persisted() > self.since {
            let message = format!("table {name:?} still holds lsn {}", tree.persisted());
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(tree)
    }

    fn link_tree(&self, id: u32, name: &str, to: &Path) -> Result<(), Error> {
        let disk = &*self.options.disk;
        let from = self.options.dir.join(TABLES_DIR).join(id.to_string());
        let held = recovery::open_tree(disk, &from, name, rule_of(id), 0, &self.shared)?;
        let held = held.held_files();
        make(disk, &to.join("tables"))?;
        let list = FileName::List {
            tree: id,
            number: held.list,
        };
        let tables = held.tables.iter().map(|table| FileName::Table {
            tree: id,
            number: table.id(),
        });
        let all = [FileName::Current { tree: id }, list].into_iter();
        let root = self.options.dir.join(TABLES_DIR);
        for file in all.chain(tables) {
            let path = file.path();
            let (from, to) = (root.join(&path), self.new.join(&path));
            disk.link(&from, &to)
                .map_err(|error| Error::io("linking", &from, error))?;
        }
        sync(disk, &to.join("tables"))?;
        sync(disk, to)
    }

    fn dir(&self, tree: u32) -> PathBuf {
        self.new.join(tree.to_string())
    }
}

/// The manifest of the base; a table that was here keeps no more of its past than it had.
fn merged(description: &Description, present: &Manifest, whole: &BTreeSet<u32>) -> Manifest {
    let floors: BTreeMap<u32, &TableEntry> = present
        .tables
        .iter()
        .filter(|table| !whole.contains(&table.id.0))
        .map(|table| (table.id.0, table))
        .collect();
    let mut manifest = description.manifest.clone();
    manifest.feed_from = manifest.checkpoint.next();
    for table in &mut manifest.tables {
        if let Some(here) = floors.get(&table.id.0)
            && here.floor > table.floor
        {
            (table.floor, table.floor_time) = (here.floor, here.floor_time);
        }
    }
    manifest
}

/// All trees of a store with this manifest, by their numbers.
fn names_of(manifest: &Manifest) -> BTreeMap<u32, String> {
    let own = OWN.map(|(id, _)| (id.0, recovery::own_name(id).to_owned()));
    let tables = manifest.tables.iter();
    tables
        .map(|table| (table.id.0, table.name.clone()))
        .chain(own)
        .collect()
}

fn rule_of(tree: u32) -> Rule {
    let own = OWN.iter().find(|(id, _)| id.0 == tree);
    own.map_or(Rule::Versions, |(_, rule)| *rule)
}

fn make(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    at(dir, "creating", disk.create_dir_all_synced(dir))
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    at(dir, "syncing", disk.sync_dir(dir))
}

fn at(path: &Path, doing: &str, done: io::Result<()>) -> Result<(), Error> {
    done.map_err(|error| Error::io(doing, path, error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wal::{Generation, Identity as JournalIdentity, JournalId};
    use world::Timestamp;

    use super::*;
    use crate::{History, TableId, description::BaseFile, manifest::Identity};

    fn described(since: Option<Lsn>, names: &[FileName]) -> Description {
        let file = |name: &FileName| BaseFile {
            name: *name,
            len: 10,
            checksum: 1,
        };
        Description {
            since,
            reaches: Lsn::new(9),
            identity: Identity {
                journal: JournalIdentity {
                    journal: JournalId([7; 16]),
                    generation: Generation(1),
                },
                created: Timestamp::from_nanos(5),
            },
            manifest: Manifest {
                checkpoint: Lsn::new(8),
                checkpoint_time: Timestamp::from_nanos(80),
                feed_from: Lsn::new(1),
                next_table: 17,
                tables: vec![TableEntry {
                    id: TableId(16),
                    name: "t".to_owned(),
                    history: History::For(Duration::from_secs(1)),
                    floor: Lsn::ZERO,
                    floor_time: Timestamp::default(),
                }],
            },
            files: names.iter().map(file).collect(),
        }
    }

    #[test]
    fn a_base_has_exactly_the_files_that_are_named_by_its_tables() {
        let trees = [1, 2, 16];
        let mut sound = Vec::new();
        for tree in trees {
            sound.push(FileName::Current { tree });
            sound.push(FileName::List { tree, number: 3 });
        }
        sound.push(FileName::Table {
            tree: 16,
            number: 0,
        });
        let check = |since, names: &[FileName], is_sound: bool| {
            let description = described(since, names);
            let read = Description::decode(&description.encode().unwrap(), Path::new("test"));
            assert_eq!(read.unwrap(), description);
            assert_eq!(check_files(&description).is_ok(), is_sound, "{names:?}");
        };
        check(None, &sound, true);
        check(None, &sound[1..], false);
        check(None, &[&sound[..], &sound[6..]].concat(), false);
        for stranger in [
            FileName::Current { tree: 17 },
            FileName::List {
                tree: 17,
                number: 0,
            },
            FileName::Table { tree: 3, number: 0 },
            FileName::Changes,
        ] {
            check(None, &[&sound[..], &[stranger]].concat(), false);
        }
        let since = Some(Lsn::new(4));
        check(since, &[FileName::Changes], true);
        check(since, &[], false);
        check(since, &[FileName::Changes, FileName::Changes], false);
        check(since, &sound, false);
    }

    #[test]
    fn parts_are_all_of_the_files_and_nothing_twice() {
        let mut description = described(None, &[FileName::Changes; 4]);
        for (file, len) in
            description
                .files
                .iter_mut()
                .zip([0, 1, crate::description::PART_BYTES * 2, 7])
        {
            file.len = len;
        }
        let mut ends = [0; 4];
        for part in 1..description.parts() {
            let pieces = description.pieces(part);
            let len: usize = pieces.iter().map(|piece| piece.len).sum();
            assert!(len > 0 && len as u64 <= crate::description::PART_BYTES);
            for piece in pieces {
                assert_eq!(piece.offset, ends[piece.file]);
                ends[piece.file] += piece.len as u64;
            }
        }
        assert_eq!(description.parts(), 4);
        let lens: Vec<_> = description.files.iter().map(|file| file.len).collect();
        assert_eq!(lens, ends);
    }
}

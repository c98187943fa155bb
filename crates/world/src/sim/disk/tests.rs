use std::{collections::BTreeSet, io::ErrorKind};

use super::*;
use crate::Disk as _;

/// Seeds tried where a power loss decides. Arbitrary: each of the outcomes looked for comes up
/// many times among them.
const SEEDS: std::ops::Range<u64> = 0..400;

fn dir() -> &'static Path {
    Path::new("/d")
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

/// A disk with the durable directory `/d`.
fn prepared() -> Disk {
    let disk = Disk::new(1);
    disk.create_dir_all_synced(dir()).unwrap();
    disk
}

fn write(disk: &Disk, name: &str, bytes: &[u8], offset: u64) -> Arc<dyn crate::File> {
    let file = disk.open(&path(name), Open::CreateOrOpen).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file
}

fn write_synced(disk: &Disk, name: &str, bytes: &[u8]) -> Arc<dyn crate::File> {
    let file = write(disk, name, bytes, 0);
    file.sync_data().unwrap();
    disk.sync_dir(dir()).unwrap();
    file
}

fn read(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    match disk.read(&path(name), u64::MAX) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// What the file is after each of many power losses.
fn survivors(disk: &Disk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    SEEDS
        .map(|seed| read(&disk.fork().power_loss(seed), name))
        .collect()
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_power_loss() {
    let disk = prepared();
    write_synced(&disk, "a", b"kept");
    assert_eq!(
        survivors(&disk, "a"),
        BTreeSet::from([Some(b"kept".to_vec())])
    );
    assert_eq!(disk.durable(&path("a")), Some(b"kept".to_vec()));
}

#[test]
fn synced_bytes_under_an_unsynced_name_may_be_gone() {
    let disk = prepared();
    write(&disk, "a", b"kept", 0).sync_all().unwrap();
    assert_eq!(
        survivors(&disk, "a"),
        BTreeSet::from([None, Some(b"kept".to_vec())])
    );
    assert_eq!(disk.durable(&path("a")), None);
    assert_eq!(read(&disk.power_loss_total(), "a"), None);
}

#[test]
fn unsynced_writes_are_kept_lost_torn_by_sector_and_reordered() {
    let disk = prepared();
    let file = write_synced(&disk, "a", &[0; 3 * image::SECTOR_LEN]);
    file.write_all_at(&[1; 3 * image::SECTOR_LEN], 0).unwrap();
    file.write_all_at(&[2; 3 * image::SECTOR_LEN], 0).unwrap();
    let mut seen = BTreeSet::new();
    for bytes in survivors(&disk, "a").into_iter().flatten() {
        assert_eq!(bytes.len(), 3 * image::SECTOR_LEN);
        let sectors: Vec<u8> = bytes
            .chunks(image::SECTOR_LEN)
            .map(|sector| {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "torn within a sector"
                );
                sector[0]
            })
            .collect();
        seen.insert(sectors);
    }
    // Any version of each sector, in any combination.
    assert_eq!(seen.len(), 27, "{seen:?}");
}

/// What a reader sees before and after it asks for the bytes from the disk.
#[test]
fn a_write_that_went_astray_shows_only_when_the_cache_is_dropped() {
    for (fault, from_disk) in [(Fault::Lost, b"oldold"), (Fault::Misdirected(0), b"newold")] {
        let disk = prepared();
        let file = write_synced(&disk, "a", b"oldold");
        disk.inject(Call::Write, 1, fault);
        file.write_all_at(b"new", 3).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&disk, "a").unwrap(), b"oldnew", "{fault:?}");
        file.drop_cache(0, 6).unwrap();
        assert_eq!(read(&disk, "a").unwrap(), from_disk, "{fault:?}");
        assert_eq!(disk.durable(&path("a")).unwrap(), from_disk);
    }
    // Bytes that wait for a sync are in no danger of it.
    let disk = prepared();
    let file = write_synced(&disk, "a", b"oldold");
    file.write_all_at(b"new", 3).unwrap();
    file.drop_cache(0, 6).unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"oldnew");
}

#[test]
fn unsynced_lengths_are_chosen_apart_from_the_bytes() {
    let disk = prepared();
    let file = write_synced(&disk, "a", &[7; 10]);
    file.write_all_at(&[8; 2000], 10).unwrap();
    let seen: Vec<Vec<u8>> = survivors(&disk, "a").into_iter().flatten().collect();
    let lens: BTreeSet<usize> = seen.iter().map(Vec::len).collect();
    assert!(
        lens.contains(&10) && lens.contains(&2010) && lens.len() > 3,
        "{lens:?}"
    );
    assert!(seen.iter().all(|bytes| bytes[..10] == [7; 10]));
    let longer_without_bytes = |bytes: &Vec<u8>| bytes.len() == 2010 && bytes[1500] == 0;
    assert!(seen.iter().any(longer_without_bytes));
}

#[test]
fn an_unsynced_cut_is_kept_or_lost() {
    let disk = prepared();
    let file = write_synced(&disk, "a", &[7; 1024]);
    file.set_len(100).unwrap();
    let seen: Vec<Vec<u8>> = survivors(&disk, "a").into_iter().flatten().collect();
    assert!(seen.contains(&vec![7; 1024]));
    assert!(seen.contains(&vec![7; 100]));
    assert!(seen.iter().all(|bytes| bytes[..100] == [7; 100]));
    file.sync_data().unwrap();
    assert_eq!(survivors(&disk, "a"), BTreeSet::from([Some(vec![7; 100])]));
}

#[test]
fn a_rename_inside_a_directory_is_atomic_and_durable_after_its_sync() {
    let disk = prepared();
    write_synced(&disk, "a", b"old");
    write_synced(&disk, "b", b"new");
    disk.rename(&path("b"), &path("a")).unwrap();
    for seed in SEEDS {
        let after = disk.power_loss(seed);
        match (read(&after, "a").as_deref(), read(&after, "b").as_deref()) {
            (Some(b"old"), Some(b"new")) | (Some(b"new"), None) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn a_rename_between_directories_can_end_under_both_names_or_none() {
    let disk = prepared();
    disk.create_dir_all_synced(Path::new("/e")).unwrap();
    write_synced(&disk, "a", b"one");
    disk.rename(&path("a"), Path::new("/e/a")).unwrap();
    let seen: BTreeSet<(bool, bool)> = SEEDS
        .map(|seed| {
            let after = disk.power_loss(seed);
            let there = after.stat(Path::new("/e/a")).unwrap().is_some();
            (read(&after, "a").is_some(), there)
        })
        .collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn an_unsynced_removal_may_come_back_with_its_bytes() {
    let disk = prepared();
    drop(write_synced(&disk, "a", b"one"));
    disk.remove_file(&path("a")).unwrap();
    assert_eq!(
        survivors(&disk, "a"),
        BTreeSet::from([None, Some(b"one".to_vec())])
    );
    disk.sync_dir(dir()).unwrap();
    assert_eq!(survivors(&disk, "a"), BTreeSet::from([None]));
}

#[test]
fn a_removed_tree_comes_back_in_part_without_dangling_names() {
    let disk = Disk::new(1);
    disk.create_dir_all_synced(Path::new("/x/y/z")).unwrap();
    for name in ["/x/a", "/x/y/b", "/x/y/z/c"] {
        let file = disk.open(Path::new(name), Open::CreateNew).unwrap();
        file.write_all_at(b"1", 0).unwrap();
        disk.sync_dir(Path::new(name).parent().unwrap()).unwrap();
    }
    disk.remove_dir_all(Path::new("/x")).unwrap();
    assert_eq!(disk.stat(Path::new("/x")).unwrap(), None);
    for seed in SEEDS {
        let after = disk.power_loss(seed);
        if after.stat(Path::new("/x")).unwrap().is_some() {
            after.remove_dir_all(Path::new("/x")).unwrap();
            after.sync_dir(Path::new("/")).unwrap();
        }
    }
}

#[test]
fn a_file_made_and_removed_between_syncs_may_come_back_whole() {
    let disk = prepared();
    drop(write(&disk, "a", b"one", 0));
    disk.remove_file(&path("a")).unwrap();
    // Forgets files nothing can name any more; this one can still come back.
    disk.sync_dir(Path::new("/")).unwrap();
    let seen = survivors(&disk, "a");
    assert!(seen.contains(&None), "{seen:?}");
    assert!(seen.contains(&Some(b"one".to_vec())), "{seen:?}");
}

#[test]
fn replace_leaves_the_old_bytes_or_the_new_ones_wherever_power_is_lost() {
    let run = |disk: &Disk| disk.replace(&path("a"), b"new content");
    let rehearsal = prepared();
    write_synced(&rehearsal, "a", b"old");
    let before = rehearsal.effects();
    run(&rehearsal).unwrap();
    let effects = rehearsal.effects() - before;
    for nth in 1..=effects {
        let disk = prepared();
        write_synced(&disk, "a", b"old");
        disk.crash_at(nth);
        let error = run(&disk).unwrap_err();
        assert!(is_crash(&error), "effect {nth}: {error}");
        for seed in SEEDS {
            let after = disk.power_loss(seed);
            let found = read(&after, "a").unwrap_or_default();
            assert!(
                found == b"old" || found == b"new content",
                "effect {nth}, seed {seed}: {found:?}"
            );
            run(&after).unwrap();
            assert_eq!(after.durable(&path("a")).unwrap(), b"new content");
        }
    }
}

#[test]
fn process_death_keeps_all_that_was_written_and_syncs_none_of_it() {
    let disk = prepared();
    write(&disk, "a", b"cached", 0);
    let after = disk.process_death();
    assert_eq!(read(&after, "a"), Some(b"cached".to_vec()));
    assert_eq!(read(&after.power_loss_total(), "a"), None);
}

#[test]
fn handles_of_an_ended_machine_fail_and_its_locks_are_free() {
    let disk = prepared();
    let file = write(&disk, "a", b"1", 0);
    let lock = disk.lock(&path("lock"), "pid 1").unwrap();
    let after = disk.process_death();
    assert!(is_crash(&file.write_at(b"2", 0).unwrap_err()));
    assert!(is_crash(&file.sync_data().unwrap_err()));
    assert!(is_crash(&file.len().unwrap_err()));
    assert!(is_crash(&disk.list(dir()).unwrap_err()));
    after.lock(&path("lock"), "pid 2").unwrap();
    drop((file, lock));
    assert_eq!(read(&after, "a"), Some(b"1".to_vec()));
}

#[test]
fn a_second_lock_names_the_holder_until_the_first_is_dropped() {
    let disk = prepared();
    let first = disk.lock(&path("lock"), "pid 1 holdfast").unwrap();
    let error = disk.lock(&path("lock"), "pid 2").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(error.to_string(), "pid 1 holdfast");
    drop(first);
    disk.lock(&path("lock"), "pid 2").unwrap();
}

#[test]
fn a_failed_sync_leaves_clean_pages_that_no_later_sync_saves() {
    let disk = prepared();
    let file = write_synced(&disk, "a", b"old");
    file.write_all_at(b"new", 0).unwrap();
    disk.inject(Call::SyncData, 1, Fault::Fail(ErrorKind::Other));
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(read(&disk, "a"), Some(b"new".to_vec()));
    assert_eq!(
        survivors(&disk, "a"),
        BTreeSet::from([Some(b"old".to_vec())])
    );
    file.write_all_at(b"N", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        survivors(&disk, "a"),
        BTreeSet::from([Some(b"Nld".to_vec())])
    );
}

#[test]
fn a_failed_sync_may_have_reached_the_disk_in_part() {
    let seen: BTreeSet<Vec<u8>> = SEEDS
        .map(|seed| {
            let disk = Disk::new(seed);
            disk.create_dir_all_synced(dir()).unwrap();
            let file = write_synced(&disk, "a", &[0; 1024]);
            file.write_all_at(&[1; 1024], 0).unwrap();
            disk.inject(Call::SyncData, 1, Fault::FailScattered(ErrorKind::Other));
            file.sync_data().unwrap_err();
            disk.durable(&path("a")).unwrap()
        })
        .collect();
    assert_eq!(seen.len(), 4);
}

#[test]
fn the_planned_call_fails_and_its_neighbours_do_not() {
    let disk = prepared();
    let file = write(&disk, "a", b"", 0);
    let other = write(&disk, "b", b"", 0);
    disk.inject(Call::Write, 3, Fault::Fail(ErrorKind::Interrupted));
    disk.inject_on(&path("b"), Call::Write, 2, Fault::Short(1));
    assert_eq!(disk.unmet_faults(), 2);
    assert_eq!(file.write_at(b"12", 0).unwrap(), 2);
    assert_eq!(other.write_at(b"12", 0).unwrap(), 2);
    let error = file.write_at(b"34", 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(other.write_at(b"34", 2).unwrap(), 1);
    assert_eq!(other.write_at(b"4", 3).unwrap(), 1);
    assert_eq!(read(&disk, "a"), Some(b"12".to_vec()));
    assert_eq!(read(&disk, "b"), Some(b"1234".to_vec()));
    assert_eq!(disk.count(Call::Write), 5);
    assert_eq!(disk.unmet_faults(), 0);

    disk.inject(Call::Rename, 1, Fault::Fail(ErrorKind::PermissionDenied));
    disk.rename(&path("a"), &path("c")).unwrap_err();
    disk.rename(&path("a"), &path("c")).unwrap();
    disk.inject(Call::Create, 1, Fault::Fail(ErrorKind::StorageFull));
    disk.open(&path("c"), Open::Read).unwrap();
    disk.open(&path("d"), Open::CreateNew).unwrap_err();
    assert_eq!(disk.stat(&path("d")).unwrap(), None);
    disk.inject(Call::Read, 1, Fault::Short(1));
    assert_eq!(file.read_at(&mut [0; 2], 0).unwrap(), 1);
}

#[test]
fn a_full_disk_cuts_the_write_short_then_refuses_and_takes_writes_again_when_space_is_back() {
    let disk = prepared();
    let file = write(&disk, "a", &[1; 100], 0);
    disk.set_available(10);
    assert_eq!(disk.space(dir()).unwrap().available, 10);
    assert_eq!(file.write_at(&[2; 30], 100).unwrap(), 10);
    let full = |result: io::Result<usize>| result.unwrap_err().kind();
    assert_eq!(full(file.write_at(&[2; 20], 110)), ErrorKind::StorageFull);
    assert_eq!(
        file.set_len(111).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(
        file.write_at(&[3; 110], 0).unwrap(),
        110,
        "overwriting needs no space"
    );
    file.set_len(50).unwrap();
    assert_eq!(file.write_at(&[4; 60], 50).unwrap(), 60);
    disk.remove_file(&path("a")).unwrap();
    assert_eq!(disk.space(dir()).unwrap().available, 110);
    assert_eq!(
        file.write_at(&[5; 1], 0).unwrap(),
        1,
        "an open file outlives its name"
    );
}

#[test]
fn rot_shows_at_once_and_after_a_power_loss() {
    let disk = prepared();
    write_synced(&disk, "a", &[0; 4]);
    disk.rot(&path("a"), 2, 0x10).unwrap();
    assert_eq!(read(&disk, "a"), Some(vec![0, 0, 0x10, 0]));
    assert_eq!(read(&disk.power_loss(1), "a"), Some(vec![0, 0, 0x10, 0]));
    disk.rot(&path("a"), 4, 1).unwrap_err();
}

#[test]
fn the_log_tells_the_order_of_effects() {
    let disk = prepared();
    disk.clear_log();
    disk.replace(&path("a"), b"12345").unwrap();
    let temporary = path("a.tmp");
    let op = |path: &Path, effect| Op {
        path: path.to_owned(),
        effect,
        done: true,
    };
    assert_eq!(
        disk.log(),
        [
            op(&temporary, Effect::Create),
            op(&temporary, Effect::Write { offset: 0, len: 5 }),
            op(&temporary, Effect::SyncAll),
            op(&temporary, Effect::Rename { to: path("a") }),
            op(dir(), Effect::SyncDir),
        ]
    );
}

#[test]
fn a_directory_left_unsynced_by_a_killed_process_is_synced_by_the_next() {
    for nth in 1..=4 {
        let disk = Disk::new(1);
        disk.crash_at(nth);
        disk.create_dir_all_synced(Path::new("/x/y")).unwrap_err();
        let next = disk.process_death();
        next.create_dir_all_synced(Path::new("/x/y")).unwrap();
        let after = next.power_loss_total();
        assert!(
            after.stat(Path::new("/x/y")).unwrap().is_some(),
            "effect {nth}"
        );
    }
}

#[test]
fn a_seed_replays_its_power_loss() {
    let disk = prepared();
    write(&disk, "a", &[9; 9000], 0);
    for seed in SEEDS {
        let first = read(&disk.power_loss(seed), "a");
        assert_eq!(first, read(&disk.power_loss(seed), "a"), "seed {seed}");
    }
}

#[test]
fn opening_and_listing_answer_as_a_real_disk_does() {
    let disk = prepared();
    let kind = |result: io::Result<Arc<dyn crate::File>>| result.unwrap_err().kind();
    assert_eq!(kind(disk.open(&path("a"), Open::Read)), ErrorKind::NotFound);
    assert_eq!(
        kind(disk.open(&path("a"), Open::Write)),
        ErrorKind::NotFound
    );
    write(&disk, "b", b"12", 0);
    write(&disk, "a", b"1", 0);
    assert_eq!(
        kind(disk.open(&path("a"), Open::CreateNew)),
        ErrorKind::AlreadyExists
    );
    assert_eq!(kind(disk.open(dir(), Open::Read)), ErrorKind::IsADirectory);
    assert_eq!(
        kind(disk.open(Path::new("/d/a/x"), Open::Read)),
        ErrorKind::NotADirectory
    );
    disk.open(&path("a"), Open::Read)
        .unwrap()
        .write_at(b"2", 0)
        .unwrap_err();
    let names: Vec<(String, u64)> = disk
        .list(dir())
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.len))
        .collect();
    assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(disk.stat(dir()).unwrap().unwrap().kind, EntryKind::Dir);
}

/// What a rename between two directories cannot give: at every moment one name is durable.
#[test]
fn a_file_moved_by_a_link_is_under_one_name_whenever_the_power_goes() {
    let from = path("a");
    let to = path("sub/a");
    for effect in 1..=4 {
        for seed in SEEDS {
            let disk = prepared();
            write(&disk, "a", b"kept", 0);
            disk.open(&from, Open::Read).unwrap();
            disk.create_dir_all_synced(&path("sub")).unwrap();
            disk.open(&from, Open::Write).unwrap().sync_all().unwrap();
            disk.sync_dir(dir()).unwrap();
            disk.crash_at(effect);
            let move_it = || -> io::Result<()> {
                disk.link(&from, &to)?;
                disk.sync_dir(&path("sub"))?;
                disk.remove_file(&from)?;
                disk.sync_dir(dir())
            };
            assert!(move_it().is_err());
            let after = disk.power_loss(seed);
            let kept = [&from, &to]
                .into_iter()
                .find(|path| after.stat(path).unwrap().is_some())
                .unwrap_or_else(|| panic!("effect {effect}, seed {seed}: neither name"));
            assert_eq!(after.read(kept, 100).unwrap(), b"kept");
        }
    }
}

#[test]
fn the_holder_of_a_lock_is_told_until_it_is_dropped() {
    let disk = prepared();
    assert_eq!(disk.holder(&path("lock")).unwrap(), None);
    let held = disk.lock(&path("lock"), "someone").unwrap();
    assert_eq!(disk.holder(&path("lock")).unwrap().unwrap(), "someone");
    drop(held);
    assert_eq!(disk.holder(&path("lock")).unwrap(), None);
}

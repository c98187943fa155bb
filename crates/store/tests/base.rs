//! A store rebuilt from a full base of another one, whatever happens on the way.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "damages real files")]

mod site;

use std::{fs, path::Path, sync::Arc};

use site::{
    dying::DyingDisk,
    pair::{Pair, live, transfer},
};
use store::{Derived, History, Install, Kind, Store};
use wal::{Journal, Lsn};
use world::Random as _;

const TABLES: &[(&str, History)] = &[("t", History::Forever), ("queue", History::Latest)];

/// Memories so small that much is in files.
fn small(options: &mut store::Options) {
    options.memtable_bytes = 8 << 10;
}

fn pair() -> Pair {
    let mut pair = Pair::new(TABLES);
    pair.leader.store.close().unwrap();
    (pair.source.change, pair.target.change) = (small, small);
    drop(pair.leader);
    pair.leader = pair.source.open();
    pair
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Proves: REP-9
#[test]
fn a_base_is_what_the_store_was_though_it_goes_on() {
    let pair = pair();
    live(&pair.leader, &pair.source, 120, 1);
    let base = pair.leader.store.open_base().unwrap();
    assert_eq!(base.commit(), pair.leader.store.newest().unwrap());
    assert_eq!(base.reaches(), base.commit().lsn);
    // Replaces every file that the base has.
    live(&pair.leader, &pair.source, 120, 2);
    pair.leader.store.compact().unwrap();
    live(&pair.leader, &pair.source, 30, 3);
    pair.leader.store.checkpoint().unwrap();
    let installed = pair.install(&base).unwrap();
    assert_eq!(installed.commit, base.commit());
    let derived = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
    assert_eq!(derived.checkpoint, base.commit().lsn);
    assert_eq!(derived.reaches, base.reaches());
    let target = pair.open_target();
    let above = (base.commit().lsn.next(), pair.leader.safe_point());
    assert_eq!(target.report.replayed, Some(above));
    site::pair::check_same(&pair.leader.store, &target.store);
}

#[test]
fn bases_taken_amid_commits_flushes_and_compactions_are_whole() {
    let pair = Arc::new(pair());
    live(&pair.leader, &pair.source, 50, 1);
    for turn in 0..8 {
        let base = std::thread::scope(|scope| {
            let writing = scope.spawn(|| live(&pair.leader, &pair.source, 60, 10 + turn));
            let compacting = scope.spawn(|| pair.leader.store.compact().unwrap());
            let base = pair.leader.store.open_base().unwrap();
            writing.join().unwrap();
            compacting.join().unwrap();
            base
        });
        assert!(base.reaches() >= base.commit().lsn);
        pair.install(&base).unwrap();
        let derived = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
        assert_eq!(derived.reaches, base.reaches());
        pair.check_equal();
    }
}

#[test]
fn a_base_holds_the_journal_behind_it_and_goes_when_it_is_dropped() {
    let mut pair = pair();
    pair.leader.store.close().unwrap();
    pair.source.change = |options| {
        small(options);
        options.feed_bytes = 0;
    };
    drop(pair.leader);
    pair.leader = pair.source.open();
    let store = pair.source.dir.path().join("store");
    let bases = store.join("bases");
    live(&pair.leader, &pair.source, 60, 1);
    let base = pair.leader.store.open_base().unwrap();
    let value = "v".repeat(64 << 10);
    for round in 0..64 {
        pair.leader.put(&format!("{}", round % 3), &value);
        // Lets the journal go as far as it may.
        pair.leader.store.checkpoint().unwrap();
    }
    let held_from = pair.leader.journal.first_retained();
    assert!(held_from <= base.commit().lsn.next(), "{held_from}");
    assert_eq!(fs::read_dir(&bases).unwrap().count(), 1);
    drop(base);
    assert_eq!(fs::read_dir(&bases).unwrap().count(), 0);
    pair.leader.put("a", "1");
    pair.leader.store.checkpoint().unwrap();
    assert!(pair.leader.journal.first_retained() > held_from);
    // Bases are bounded in number.
    let held: Vec<_> = (0..8)
        .map(|_| pair.leader.store.open_base().unwrap())
        .collect();
    let refused = pair.leader.store.open_base().unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    // A process that died leaves them to the next open.
    let died = pair.source.process_death();
    drop(held);
    let left = died.dir.path().join("store/bases");
    assert_eq!(fs::read_dir(&left).unwrap().count(), 8);
    let running = died.open();
    assert!(!left.exists());
    drop(running);
}

#[test]
fn a_transfer_that_was_cut_goes_on_where_it_is_durable() {
    let pair = pair();
    live(&pair.leader, &pair.source, 60, 1);
    // Compresses to nothing less, so that there are some parts.
    let random = world::sim::Random::new(3);
    let mut value = vec![0; 1 << 20];
    for index in 0..8u8 {
        random.fill(&mut value).unwrap();
        let mut transaction = pair.leader.store.begin().unwrap();
        transaction.put(pair.leader.t(), &[index], &value).unwrap();
        transaction.commit().unwrap();
    }
    pair.leader.store.compact().unwrap();
    let base = pair.leader.store.open_base().unwrap();
    let mut install = pair.begin(&base).unwrap();
    assert!(install.parts() > 3, "{}", install.parts());
    assert_eq!(install.durable(), 1);
    // In order, and once: what was taken already changes nothing.
    let refused = install.store(2, &base.part(2).unwrap()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert_eq!(install.store(1, &base.part(1).unwrap()).unwrap(), 1);
    install.store(0, b"anything").unwrap();
    install.store(1, b"anything").unwrap();
    let locked = pair.begin(&base).unwrap_err();
    assert_eq!(locked.kind(), Kind::Locked, "{locked}");
    drop(install);
    let install = pair.begin(&base).unwrap();
    assert_eq!(install.durable(), 1, "part 1 was not synced");
    let early = install.finish().unwrap_err();
    assert_eq!(early.kind(), Kind::Invalid, "{early}");
    let mut install = pair.begin(&base).unwrap();
    for index in 1..install.parts() {
        install.store(index, &base.part(index).unwrap()).unwrap();
    }
    assert_eq!(install.durable(), install.parts());
    drop(install);
    // Everything was there; a new base begins again.
    let install = pair.begin(&base).unwrap();
    assert_eq!(install.durable(), install.parts());
    drop(install);
    pair.leader.put("later", "1");
    let other = pair.leader.store.open_base().unwrap();
    let install = pair.begin(&other).unwrap();
    assert_eq!(install.durable(), 1);
    transfer(&other, install).unwrap();
    pair.check_equal();
}

#[test]
fn an_open_throws_away_what_is_not_whole() {
    let pair = pair();
    live(&pair.leader, &pair.source, 60, 1);
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    live(&pair.leader, &pair.source, 60, 2);
    let base = pair.leader.store.open_base().unwrap();
    let mut install = pair.begin(&base).unwrap();
    install.store(1, &base.part(1).unwrap()).unwrap();
    drop(install);
    let store = pair.target.dir.path().join("store");
    assert!(store.join("install").exists() && store.join("tables.new").exists());
    pair.check_equal();
    assert!(!store.join("install").exists() && !store.join("tables.new").exists());
}

/// Whatever call the process dies at, the store is the old one or the new one, and whole.
///
/// Proves: REP-6
#[test]
fn a_process_that_dies_while_a_base_is_installed_leaves_the_old_store_or_the_new() {
    let mut pair = pair();
    live(&pair.leader, &pair.source, 24, 1);
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    let old = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
    live(&pair.leader, &pair.source, 24, 2);
    let base = pair.leader.store.open_base().unwrap();
    live(&pair.leader, &pair.source, 10, 3);
    let (mut olds, mut news) = (0, 0);
    let aside = pair.put_aside();
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::at(call);
        let done = pair.install_with(&base, Arc::new(disk.clone()));
        if done.is_ok() {
            assert!(!disk.has_died());
            break;
        }
        let found = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
        if found.checkpoint == old.checkpoint {
            olds += 1;
        } else {
            assert_eq!(found.checkpoint, base.commit().lsn, "call {call}");
            news += 1;
        }
        pair.check_equal();
    }
    assert!(olds > 20 && news > 5, "{olds} old, {news} new");
}

#[test]
fn a_process_that_dies_while_the_first_base_is_installed_leaves_nothing_or_a_store() {
    let mut pair = pair();
    live(&pair.leader, &pair.source, 24, 1);
    let base = pair.leader.store.open_base().unwrap();
    let (mut nothing, mut stores) = (0, 0);
    let aside = pair.put_aside();
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::at(call);
        if pair.install_with(&base, Arc::new(disk)).is_ok() {
            break;
        }
        match Derived::on_disk(&pair.target.options()).unwrap() {
            None => nothing += 1,
            Some(_) => {
                stores += 1;
                pair.check_equal();
            }
        }
        // And an install goes through after it.
        pair.install(&base).unwrap();
        pair.check_equal();
    }
    assert!(nothing > 20 && stores > 5, "{nothing} {stores}");
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let mut pair = pair();
    live(&pair.leader, &pair.source, 24, 1);
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    let old = Derived::on_disk(&pair.target.options()).unwrap();
    live(&pair.leader, &pair.source, 24, 2);
    let base = pair.leader.store.open_base().unwrap();
    let aside = pair.put_aside();
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::full_at(call);
        match pair.install_with(&base, Arc::new(disk)) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), Kind::Full, "call {call}: {error}"),
        }
        let found = Derived::on_disk(&pair.target.options()).unwrap();
        let is_new = found.is_some_and(|found| found.checkpoint == base.commit().lsn);
        assert!(found == old || is_new, "call {call}: {found:?}");
        pair.check_equal();
    }
}

/// Proves: REP-6
#[test]
fn a_damaged_file_on_either_side_is_told_and_the_store_stays() {
    let pair = pair();
    live(&pair.leader, &pair.source, 80, 1);
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    let old = Derived::on_disk(&pair.target.options()).unwrap();
    live(&pair.leader, &pair.source, 40, 2);
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    // Where it is made: the held names are the store's own files, so each time of a copy.
    let count = {
        let base = pair.leader.store.open_base().unwrap();
        base.files().len()
    };
    for index in 0..count {
        let source = pair.source.process_death();
        let leader = source.open();
        let base = leader.store.open_base().unwrap();
        let held = files_below(&source.dir.path().join("store/bases"));
        damage(&held[index % held.len()]);
        let failed = pair.install(&base).unwrap_err();
        assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
        assert!(failed.to_string().contains("checksum"), "{failed}");
        assert_eq!(Derived::on_disk(&pair.target.options()).unwrap(), old);
    }
    // Where it is taken.
    let base = pair.leader.store.open_base().unwrap();
    for index in 0..base.files().len() {
        let mut install = pair.begin(&base).unwrap();
        for part in 1..install.parts() {
            install.store(part, &base.part(part).unwrap()).unwrap();
        }
        let came = files_below(&pair.target.dir.path().join("store/tables.new"));
        assert_eq!(came.len(), base.files().len());
        damage(&came[index]);
        let failed = install.finish().unwrap_err();
        assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
        assert_eq!(Derived::on_disk(&pair.target.options()).unwrap(), old);
    }
    // On the way; the same part again is taken.
    let mut install = pair.begin(&base).unwrap();
    let part = base.part(1).unwrap();
    for at in [0, part.len() / 2, part.len() - 1] {
        let mut damaged = part.clone();
        damaged[at] ^= 1;
        let refused = install.store(1, &damaged).unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
        let refused = install.store(1, &part[..at]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    }
    transfer(&base, install).unwrap();
    pair.check_equal();
}

#[test]
fn a_first_part_that_is_not_one_is_refused() {
    let pair = pair();
    live(&pair.leader, &pair.source, 20, 1);
    let base = pair.leader.store.open_base().unwrap();
    let (first, identity) = (base.part(0).unwrap(), pair.leader.journal.identity());
    for at in 0..first.len() {
        let mut damaged = first.clone();
        damaged[at] ^= 1;
        let refused = Install::begin(pair.target.options(), identity, &damaged).unwrap_err();
        let expected = if (8..12).contains(&at) {
            Kind::Version
        } else {
            Kind::Corrupt
        };
        assert_eq!(refused.kind(), expected, "byte {at}: {refused}");
        assert!(Install::begin(pair.target.options(), identity, &first[..at]).is_err());
    }
    let mut other = identity;
    other.journal.0[0] ^= 1;
    let refused = Install::begin(pair.target.options(), other, &first).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert!(!pair.target.dir.path().join("store/install").exists());
}

#[test]
fn a_store_of_another_journal_is_not_replaced() {
    let pair = pair();
    live(&pair.leader, &pair.source, 20, 1);
    let base = pair.leader.store.open_base().unwrap();
    let mut stranger = site::Site::new(TABLES);
    stranger.seed = 8;
    let running = stranger.open();
    running.put("a", "1");
    running.store.close().unwrap();
    drop(running);
    let refused = pair.begin_on(&base, stranger.options()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert_eq!(stranger.open().get("a").as_deref(), Some("1"));
}

#[test]
fn a_store_that_is_ahead_of_its_journal_is_not_opened() {
    let pair = pair();
    live(&pair.leader, &pair.source, 20, 1);
    let base = pair.leader.store.open_base().unwrap();
    pair.install(&base).unwrap();
    let journal = pair.target.journal().unwrap();
    assert_eq!(journal.safe_point(), Lsn::ZERO);
    let refused = Store::open_following(pair.target.options(), journal).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    pair.check_equal();
}

//! A store brought up to another one by what changed since the position where it stood.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "damages real files")]

mod site;

use std::{fs, sync::Arc, time::Duration};

use site::{
    Site,
    dying::DyingDisk,
    pair::{Pair, check_same, live},
};
use store::{Base, Derived, History, Kind, Options, Store, Table};
use wal::Lsn;
use world::Random as _;

const HOUR: Duration = Duration::from_secs(3600);
const TABLES: &[(&str, History)] = &[
    ("t", History::Forever),
    ("other", History::Forever),
    ("queue", History::Latest),
    ("recent", History::For(Duration::from_millis(300))),
    ("long", History::For(HOUR)),
];

/// Memories so small that versions lie in many files.
fn small(options: &mut Options) {
    options.memtable_bytes = 8 << 10;
}

fn pair_of(tables: &[(&str, History)]) -> Pair {
    let mut pair = Pair::new(tables);
    pair.leader.store.close().unwrap();
    (pair.source.change, pair.target.change) = (small, small);
    drop(pair.leader);
    pair.leader = pair.source.open();
    pair
}

/// A target that stands where the source is now, closed.
fn stand(pair: &Pair) -> Lsn {
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    let derived = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
    assert_eq!(derived.checkpoint, derived.reaches);
    assert_eq!(derived.checkpoint, pair.leader.store.newest().unwrap().lsn);
    derived.checkpoint
}

fn checkpoint_of(site: &Site) -> Lsn {
    let derived = Derived::on_disk(&site.options()).unwrap().unwrap();
    derived.checkpoint
}

/// Proves: REP-6
#[test]
fn a_store_that_takes_in_what_changed_equals_the_source_at_every_position() {
    for turn in 0..4 {
        let pair = pair_of(TABLES);
        live(&pair.leader, &pair.source, 40 * turn, 1);
        let since = stand(&pair);
        live(&pair.leader, &pair.source, 60, 2);
        if turn % 2 == 1 {
            pair.leader.store.compact().unwrap();
        }
        live(&pair.leader, &pair.source, 30, 3);
        let base = pair.leader.store.open_changes(since).unwrap();
        assert_eq!(base.since(), Some(since));
        assert_eq!(base.reaches(), base.commit().lsn);
        // What comes later is not in it.
        live(&pair.leader, &pair.source, 20, 4);
        pair.leader.store.compact().unwrap();
        let installed = pair.install(&base).unwrap();
        assert_eq!(installed.commit, base.commit());
        let derived = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
        assert_eq!(derived.checkpoint, base.commit().lsn);
        assert_eq!(derived.reaches, base.commit().lsn);
        let target = pair.open_target();
        let above = (base.commit().lsn.next(), pair.leader.safe_point());
        assert_eq!(target.report.replayed, Some(above));
        check_same(&pair.leader.store, &target.store);
        // And what compaction drops from now on is the same too.
        target.store.compact().unwrap();
        check_same(&pair.leader.store, &target.store);
    }
}

#[test]
fn changes_told_amid_commits_flushes_and_compactions_are_whole_and_no_more() {
    let pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 20, 1);
    let mut since = stand(&pair);
    for turn in 0..6 {
        let base = std::thread::scope(|scope| {
            let writing = scope.spawn(|| live(&pair.leader, &pair.source, 40, 10 + turn));
            let compacting = scope.spawn(|| pair.leader.store.compact().unwrap());
            let base = pair.leader.store.open_changes(since).unwrap();
            writing.join().unwrap();
            compacting.join().unwrap();
            base
        });
        let installed = pair.install(&base).unwrap();
        assert_eq!(installed.reaches, installed.commit.lsn);
        let derived = Derived::on_disk(&pair.target.options()).unwrap().unwrap();
        assert_eq!(derived.reaches, base.commit().lsn);
        let target = pair.open_target();
        check_same(&pair.leader.store, &target.store);
        target.store.close().unwrap();
        drop(target);
        since = checkpoint_of(&pair.target);
    }
}

/// Bytes of the versions above a position, as they are kept: key, value, and the eight bytes of
/// position and kind.
fn changed_bytes(pair: &Pair, since: Lsn) -> u64 {
    let mut bytes = 0;
    for committed in pair.leader.store.feed(since.next()).unwrap() {
        for change in committed.unwrap().changes {
            bytes += 8 + change.key.len() + change.value.map_or(0, |value| value.len());
        }
        // Its time.
        bytes += 8 + 8 + 8;
    }
    bytes as u64
}

fn sent_bytes(base: &Base) -> u64 {
    (0..base.parts())
        .map(|index| base.part(index).unwrap().len() as u64)
        .sum()
}

#[test]
fn little_more_is_sent_than_changed() {
    let pair = pair_of(&[("t", History::Forever), ("long", History::For(HOUR))]);
    // Files are compressed, what changed is not: of values that do not compress the two compare.
    let random = world::sim::Random::new(3);
    let put = |keys: &mut dyn Iterator<Item = u64>| {
        let mut transaction = pair.leader.store.begin().unwrap();
        for key in keys {
            let key = format!("key {key:06}");
            let mut value = [0; 100];
            random.fill(&mut value).unwrap();
            transaction
                .put(pair.leader.t(), key.as_bytes(), &value)
                .unwrap();
        }
        transaction.commit().unwrap();
    };
    put(&mut (0..4_000));
    let since = stand(&pair);
    for round in 0..30 {
        put(&mut (0..20).map(|key| key * 200 + round));
    }
    let base = pair.leader.store.open_changes(since).unwrap();
    let (changed, sent) = (changed_bytes(&pair, since), sent_bytes(&base));
    assert!(
        sent * 10 <= changed * 12,
        "{sent} bytes sent for {changed} that changed"
    );
    let full = pair.leader.store.open_base().unwrap();
    assert!(sent < sent_bytes(&full) / 2);
    pair.install(&base).unwrap();
    pair.check_equal();
}

/// A store that held commits which its journal then lost: positions were given again, to others.
///
/// Proves: REP-6
#[test]
fn what_a_store_held_beyond_the_common_position_is_gone_after_what_changed() {
    let mut pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 40, 1);
    let since = stand(&pair);
    // The target goes its own way, flushes and compacts.
    let fork = pair.target.process_death();
    let running = fork.open();
    live(&running, &fork, 50, 7);
    running.put("only here", "1");
    running.store.compact().unwrap();
    running.put("only here", "2");
    running.store.close().unwrap();
    drop(running);
    assert!(checkpoint_of(&fork) > since);
    // Its journal is cut where both were the same.
    let journal = std::mem::replace(&mut pair.target, fork).disk;
    pair.target.disk = journal;
    live(&pair.leader, &pair.source, 90, 2);
    let base = pair.leader.store.open_changes(since).unwrap();
    pair.install(&base).unwrap();
    let target = pair.open_target();
    assert_eq!(target.get("only here"), None);
    check_same(&pair.leader.store, &target.store);
}

#[test]
fn what_changed_is_told_only_where_it_is_known() {
    let pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 30, 1);
    let newest = pair.leader.store.newest().unwrap().lsn;
    let refused = pair.leader.store.open_changes(newest.next()).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    assert_eq!(refused.retained().unwrap().to.lsn, newest);
    assert!(
        refused.to_string().contains("what changed above lsn"),
        "{refused}"
    );
    // Nothing changed: that can be told.
    let since = stand(&pair);
    assert_eq!(since, newest);
    let base = pair.leader.store.open_changes(since).unwrap();
    pair.install(&base).unwrap();
    drop(base);
    pair.check_equal();
    // A table without a past that is most of the store goes whole, so a base costs no more.
    let queue = pair.leader.store.table("queue").unwrap();
    let random = world::sim::Random::new(5);
    for key in 0..24u64 {
        let mut transaction = pair.leader.store.begin().unwrap();
        let mut noise = vec![0; 1 << 20];
        random.fill(&mut noise).unwrap();
        transaction.put(queue, &key.to_be_bytes(), &noise).unwrap();
        transaction.commit().unwrap();
    }
    let refused = pair.leader.store.open_changes(since).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    assert!(
        refused.to_string().contains("take a full base"),
        "{refused}"
    );
    let bases = pair.source.dir.path().join("store/bases");
    assert_eq!(fs::read_dir(bases).unwrap().count(), 0);
}

#[test]
fn what_changed_is_taken_only_by_a_store_that_stands_there() {
    let mut pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 21, 1);
    let held = pair.leader.store.snapshot().unwrap();
    let before = held.lsn();
    live(&pair.leader, &pair.source, 9, 5);
    let since = stand(&pair);
    live(&pair.leader, &pair.source, 30, 2);
    // One that has less.
    let later = pair
        .leader
        .store
        .open_changes(Lsn::new(since.get() + 9))
        .unwrap();
    let refused = pair.begin(&later).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    assert_eq!(refused.retained().unwrap().to.lsn, since);
    // One that has dropped what was there, of a table that the source tells in part.
    let earlier = pair.leader.store.open_changes(before).unwrap();
    let refused = pair.begin(&earlier).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange, "{refused}");
    // None at all, and one with other tables.
    let base = pair.leader.store.open_changes(since).unwrap();
    let none = Site::new(TABLES);
    let refused = pair.begin_on(&base, none.options()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let others = Site {
        tables: vec![Table::new("other", History::Forever)],
        ..Site::new(&[])
    };
    let there = std::mem::replace(&mut pair.target, others);
    let journal = pair.target.journal().unwrap();
    let (store, _) = Store::open_following(pair.target.options(), journal).unwrap();
    store.close().unwrap();
    drop(store);
    let nothing = pair.leader.store.open_changes(Lsn::ZERO).unwrap();
    let refused = pair.install(&nothing).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert!(refused.to_string().contains("\"other\" here"), "{refused}");
    pair.target = there;
    pair.install(&base).unwrap();
    pair.check_equal();
}

#[test]
fn a_table_that_is_younger_than_the_position_comes_whole() {
    let mut pair = pair_of(&[("t", History::Forever)]);
    live(&pair.leader, &pair.source, 30, 1);
    let since = stand(&pair);
    live(&pair.leader, &pair.source, 10, 2);
    pair.leader.store.close().unwrap();
    drop(pair.leader);
    pair.source
        .tables
        .push(Table::new("young", History::Forever));
    pair.target
        .tables
        .push(Table::new("young", History::Forever));
    pair.leader = pair.source.open();
    live(&pair.leader, &pair.source, 30, 3);
    let base = pair.leader.store.open_changes(since).unwrap();
    pair.install(&base).unwrap();
    pair.check_equal();
}

/// Whatever call the process dies at, the store is the old one or the new one, and whole.
///
/// Proves: REP-6
#[test]
fn a_process_that_dies_while_changes_are_taken_in_leaves_the_old_store_or_the_new() {
    let mut pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 20, 1);
    let since = stand(&pair);
    live(&pair.leader, &pair.source, 20, 2);
    let base = pair.leader.store.open_changes(since).unwrap();
    live(&pair.leader, &pair.source, 5, 3);
    let aside = pair.put_aside();
    let (mut olds, mut news) = (0, 0);
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::at(call);
        if pair.install_with(&base, Arc::new(disk)).is_ok() {
            break;
        }
        let found = checkpoint_of(&pair.target);
        if found == since {
            olds += 1;
            // It is taken in again from the beginning, or from where it was.
            if call % 3 == 0 {
                pair.install(&base).unwrap();
            }
        } else {
            assert_eq!(found, base.commit().lsn, "call {call}");
            news += 1;
        }
        pair.check_equal();
    }
    assert!(olds > 20 && news > 5, "{olds} old, {news} new");
}

#[test]
fn a_full_disk_and_damage_leave_the_store_where_it_stood() {
    let mut pair = pair_of(TABLES);
    live(&pair.leader, &pair.source, 20, 1);
    let since = stand(&pair);
    live(&pair.leader, &pair.source, 20, 2);
    let base = pair.leader.store.open_changes(since).unwrap();
    let aside = pair.put_aside();
    for call in 1.. {
        pair.target = aside.process_death();
        match pair.install_with(&base, Arc::new(DyingDisk::full_at(call))) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), Kind::Full, "call {call}: {error}"),
        }
        let found = checkpoint_of(&pair.target);
        assert!(found == since || found == base.commit().lsn, "call {call}");
        pair.check_equal();
    }
    pair.target = aside.process_death();
    let mut install = pair.begin(&base).unwrap();
    for part in 1..install.parts() {
        install.store(part, &base.part(part).unwrap()).unwrap();
    }
    let path = pair.target.dir.path().join("store/install/changes");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let failed = install.finish().unwrap_err();
    assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
    assert_eq!(checkpoint_of(&pair.target), since);
    // Damaged table files here are told too, and nothing is made of them.
    let tables = pair.target.dir.path().join("store/tables/16/tables");
    for entry in fs::read_dir(tables).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let failed = pair.install(&base).unwrap_err();
    assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
}

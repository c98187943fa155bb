//! Opening again: after a clean close, after the death of the process, after a loss of power, and
//! on what is not a store of ours.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "damages real files")]

mod site;

use std::{sync::Arc, time::Duration};

use site::{Running, Site, text};
use store::{History, Kind, Store, Table};
use wal::{Journal, Lsn};

#[test]
fn a_closed_store_opens_without_replaying_anything() {
    let site = Site::forever();
    let running = site.open();
    assert!(running.report.created);
    running.put("a", "1");
    let last = running.put("a", "2");
    running.store.close().unwrap();
    drop(running);
    let running = site.open();
    assert!(!running.report.created);
    assert_eq!(running.report.checkpoint, last.lsn);
    assert_eq!(running.report.replayed, None);
    assert_eq!(running.report.visible, last);
    assert_eq!(
        running.report.to_string(),
        "opened at checkpoint lsn 2, nothing to replay"
    );
    assert_eq!(running.get("a").as_deref(), Some("2"));
    let next = running.put("a", "3");
    assert_eq!(next.lsn, last.lsn.next());
}

/// Proves: DOC-1, DOC-3
#[test]
fn recovery_replays_what_lies_above_the_checkpoint_and_says_so() {
    let site = Site::forever();
    let running = site.open();
    running.put("a", "1");
    let cut = running.store.checkpoint().unwrap();
    running.put("b", "2");
    running.put("c", "3");
    let died = site.process_death();
    let running = died.open();
    assert_eq!(running.report.checkpoint, cut.lsn);
    assert_eq!(running.report.replayed, Some((Lsn::new(2), Lsn::new(3))));
    assert_eq!(running.report.commits, 2);
    assert_eq!(running.report.changes, 2);
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(running.get(key).as_deref(), Some(value));
    }
}

/// Proves: DOC-1
#[test]
fn what_was_acknowledged_survives_a_loss_of_power_and_the_rest_is_wholly_absent() {
    for seed in 0..50 {
        let site = Site::new(&[("t", History::Forever), ("u", History::Forever)]);
        let running = site.open();
        let u = running.store.table("u").unwrap();
        let acknowledged = seed % 7;
        let both = |round: u64| {
            let mut transaction = running.store.begin().unwrap();
            let value = round.to_be_bytes();
            transaction.put(running.t(), b"k", &value).unwrap();
            transaction.put(u, b"k", &value).unwrap();
            transaction.commit()
        };
        for round in 0..acknowledged {
            both(round).unwrap();
        }
        // An append is a write and a sync: the power goes at the one or the other.
        site.disk.crash_at(1 + seed % 2);
        let failed = both(acknowledged).unwrap_err();
        assert_eq!(failed.kind(), Kind::Poisoned, "seed {seed}: {failed}");
        let again = both(acknowledged).unwrap_err();
        assert_eq!(again.kind(), Kind::Poisoned, "seed {seed}: {again}");
        drop(running);

        let mut after = site.process_death();
        after.disk = site.disk.power_loss(seed);
        let running = after.open();
        let snapshot = running.store.snapshot().unwrap();
        let read = |table| {
            let value = snapshot.get(table, b"k").unwrap();
            value.map(|value| u64::from_be_bytes((*value).try_into().unwrap()))
        };
        let found = read(running.t());
        assert_eq!(found, read(u), "seed {seed}: one transaction, two tables");
        let least = acknowledged.checked_sub(1);
        assert!(
            found == least || found == Some(acknowledged),
            "seed {seed}: {found:?} after {acknowledged} acknowledged"
        );
    }
}

#[test]
fn a_commit_that_does_not_fit_leaves_no_trace_and_the_next_one_that_fits_goes_through() {
    let site = Site::forever();
    let running = site.open();
    let t = running.t();
    let value = vec![7; 256 << 10];
    let add = |key: &[u8]| {
        let mut transaction = running.store.begin().unwrap();
        transaction.get(t, key).unwrap();
        transaction.put(t, key, &value).unwrap();
        transaction.commit()
    };
    let first = add(b"a").unwrap();
    site.disk.set_available(0);
    let mut last = first;
    let error = loop {
        match add(b"a") {
            Ok(commit) => last = commit,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert_eq!(running.store.snapshot().unwrap().lsn(), last.lsn);
    site.disk.set_available(1 << 30);
    let next = add(b"a").unwrap();
    assert_eq!(next.lsn, last.lsn.next());
}

/// Proves: DOC-3
#[test]
fn the_same_bytes_recover_to_the_same_state() {
    let site = Site::forever();
    let running = site.open();
    for round in 0..200 {
        running.put(&format!("{}", round % 17), &format!("{round}"));
        if round % 50 == 20 {
            running.store.checkpoint().unwrap();
        }
    }
    let died = site.process_death();
    let twin = died.process_death();
    let contents = |running: &Running| {
        let mut all = Vec::new();
        for lsn in 0..=200 {
            let snapshot = running.store.snapshot_at(Lsn::new(lsn)).unwrap();
            let range = snapshot.range(running.t(), &store::Keys::all()).unwrap();
            all.push(
                range
                    .map(|item| item.unwrap())
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect::<Vec<_>>(),
            );
        }
        all
    };
    let (one, two) = (died.open(), twin.open());
    assert_eq!(one.report, two.report);
    assert_eq!(contents(&one), contents(&two));
    assert_eq!(contents(&one), contents(&running));
}

/// Proves: DOC-4
#[test]
fn positions_survive_checkpoint_and_compaction() {
    let site = Site::forever();
    let running = site.open();
    let lsns: Vec<_> = (1..=5)
        .map(|n| running.put("a", &n.to_string()).lsn)
        .collect();
    running.store.compact().unwrap();
    running.store.close().unwrap();
    drop(running);
    let running = site.open();
    for (index, lsn) in lsns.iter().enumerate() {
        let value = (index + 1).to_string();
        assert_eq!(running.get_at("a", *lsn), Some(value));
    }
    assert_eq!(running.put("a", "6").lsn, lsns[4].next());
}

#[test]
fn a_checkpoint_lets_the_journal_go_but_not_what_feeds_may_want() {
    let mut site = Site::forever();
    site.change = |options| options.feed_bytes = 2 << 20;
    let running = site.open();
    let value = "v".repeat(16 << 10);
    for round in 0..600 {
        running.put(&format!("{}", round % 10), &value);
        if round % 50 == 0 {
            running.store.checkpoint().unwrap();
        }
    }
    let first = running.journal.first_retained();
    assert!(first > Lsn::new(100), "journal still begins at {first}");
    assert!(first < Lsn::new(500), "journal begins at {first}");
    let error = running.store.feed(Lsn::FIRST).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);
    assert_eq!(error.retained().unwrap().from.lsn, first);
    drop(running);
    let running = site.open();
    assert_eq!(running.get("3").map(|value| value.len()), Some(16 << 10));
}

#[test]
fn checkpoints_are_taken_by_themselves_when_the_journal_grows() {
    let mut site = Site::forever();
    site.change = |options| options.checkpoint_bytes = 64 << 10;
    let running = site.open();
    let value = "v".repeat(1000);
    let mut checkpointed = false;
    for round in 0..100_000 {
        running.put(&format!("{}", round % 100), &value);
        if running.store.stats().checkpoint > Lsn::ZERO {
            checkpointed = true;
            break;
        }
    }
    assert!(checkpointed);
}

/// Proves: DOC-5
#[test]
fn a_second_open_is_refused_and_told_who_has_it() {
    let site = Site::forever();
    let running = site.open();
    let journal = Arc::clone(&running.journal);
    let error = Store::open(site.options(), journal).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    let snapshot = running.store.snapshot().unwrap();
    let journal = Arc::clone(&running.journal);
    drop(running);
    assert!(Store::open(site.options(), Arc::clone(&journal) as _).is_err());
    drop(snapshot);
    Store::open(site.options(), journal).unwrap();
}

/// Proves: DOC-5
#[test]
fn the_journal_of_another_store_is_refused() {
    let site = Site::forever();
    drop(site.open());
    let mut other = site.process_death();
    other.disk = world::sim::Disk::new(2);
    other.seed = 8;
    let error = other.try_open().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert!(error.to_string().contains("belongs to journal"), "{error}");
    site.open().put("a", "1");
}

/// Proves: DOC-5
#[test]
fn an_unknown_newer_format_is_refused_by_name() {
    for file in ["identity", "manifest"] {
        let site = Site::forever();
        drop(site.open());
        let path = site.dir.path().join("store").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 2;
        std::fs::write(&path, bytes).unwrap();
        let error = site.try_open().unwrap_err();
        assert_eq!(error.kind(), Kind::Version, "{error}");
        let message = error.to_string();
        assert!(message.contains(file), "{message}");
        assert!(
            message.contains("format version 2, this program reads version 1"),
            "{message}"
        );
    }
}

/// Proves: DOC-2
#[test]
fn a_lost_or_damaged_file_is_an_error_and_never_an_empty_table() {
    let check = |file: &str, damage: fn(&std::path::Path)| {
        let site = Site::forever();
        let running = site.open();
        for round in 0..100 {
            running.put(&format!("{round}"), "v");
        }
        running.store.close().unwrap();
        drop(running);
        damage(&site.dir.path().join("store").join(file));
        let seen = site.try_open().and_then(|running| {
            let snapshot = running.store.snapshot()?;
            let range = snapshot.range(running.t(), &store::Keys::all())?;
            range.collect::<Result<Vec<_>, _>>()
        });
        match seen {
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{file}: {error}"),
            Ok(found) => panic!("{file}: {} keys were read", found.len()),
        }
    };
    let remove = |path: &std::path::Path| std::fs::remove_file(path).unwrap();
    let flip = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    check("identity", remove);
    check("manifest", remove);
    check("manifest", flip);
    check("tables/16/current", remove);
    check("tables/16/tables/0", remove);
    check("tables/16/tables/0", flip);
}

/// Proves: DOC-2
#[test]
fn a_flipped_bit_anywhere_in_a_table_is_an_error_or_without_effect() {
    let site = Site::forever();
    let running = site.open();
    for round in 0..300 {
        running.put(&format!("{round:03}"), &format!("value {round}"));
    }
    running.store.compact().unwrap();
    running.store.close().unwrap();
    drop(running);
    let read = || -> Result<usize, store::Error> {
        let running = site.try_open()?;
        let snapshot = running.store.snapshot()?;
        let range = snapshot.range(running.t(), &store::Keys::all())?;
        let right = |(number, item): (usize, Result<(store::Bytes, store::Bytes), _>)| {
            let (key, value) = item?;
            let expected = format!("value {number}");
            assert_eq!(key, format!("{number:03}").as_bytes());
            assert_eq!(value, expected.as_bytes());
            assert_eq!(
                snapshot.get(running.t(), &key)?.unwrap(),
                expected.as_bytes()
            );
            Ok(())
        };
        let all: Result<Vec<()>, _> = range.enumerate().map(right).collect();
        all.map(|all| all.len())
    };
    assert_eq!(read().unwrap(), 300);
    let table = site.dir.path().join("store/tables/16");
    let files = [&table, &table.join("tables")].map(|dir| std::fs::read_dir(dir).unwrap());
    let files = files
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        let sound = std::fs::read(&file).unwrap();
        // Each costs an open, so some sixty places of a file.
        let stride = 1 + sound.len() / 61;
        for index in (0..sound.len()).step_by(stride) {
            let mut damaged = sound.clone();
            damaged[index] ^= 1 << (index % 8);
            std::fs::write(&file, damaged).unwrap();
            match read() {
                Ok(found) => assert_eq!(found, 300, "{} at {index}", file.display()),
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Corrupt | Kind::Io), "{error}");
                }
            }
        }
        std::fs::write(&file, sound).unwrap();
    }
}

#[test]
fn a_journal_that_ends_before_the_tables_is_refused() {
    let site = Site::forever();
    let running = site.open();
    running.put("a", "1");
    let early = site.process_death();
    running.put("a", "2");
    running.store.close().unwrap();
    let mut mixed = site.process_death();
    mixed.disk = early.disk;
    let error = mixed.try_open().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error
            .to_string()
            .contains("up to lsn 2, the journal ends at lsn 1"),
        "{error}"
    );
}

#[test]
fn tables_are_added_and_kept_across_opens() {
    let mut site = Site::forever();
    let running = site.open();
    running.put("a", "1");
    running.store.close().unwrap();
    drop(running);
    site.tables = vec![
        Table::new("u", History::Latest),
        Table::new("v", History::For(Duration::from_secs(1))),
    ];
    let running = site.open();
    let (t, u) = (running.t(), running.store.table("u").unwrap());
    let mut transaction = running.store.begin().unwrap();
    transaction.put(u, b"a", b"2").unwrap();
    transaction.put(t, b"b", b"2").unwrap();
    transaction.commit().unwrap();
    drop(running);
    site.tables = Vec::new();
    let running = site.open();
    assert_eq!(running.report.commits, 1);
    let snapshot = running.store.snapshot().unwrap();
    let get = |table: &str, key: &[u8]| {
        let table = running.store.table(table).unwrap();
        text(snapshot.get(table, key).unwrap())
    };
    assert_eq!(get("t", b"a").as_deref(), Some("1"));
    assert_eq!(get("t", b"b").as_deref(), Some("2"));
    assert_eq!(get("u", b"a").as_deref(), Some("2"));
    assert_eq!(get("v", b"a"), None);
}

/// The order is manifest, the store's own trees, identity, tables, manifest. Each line is what is
/// missing after a crash at one of these steps.
#[test]
fn a_store_half_made_is_made_again() {
    let check = |tables: &[(&str, History)], gone: &[&str]| {
        let mut half = Site::new(tables);
        drop(half.open());
        for name in gone {
            let path = half.dir.path().join("store").join(name);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        half.tables = vec![Table::new("t", History::Forever)];
        let running = half.open();
        running.put("a", "1");
        assert_eq!(running.get("a").as_deref(), Some("1"), "without {gone:?}");
    };
    let made = [("t", History::Forever)];
    check(&made, &["identity", "manifest", "tables"]);
    check(&[], &["identity", "tables"]);
    check(&[], &["identity", "tables/2"]);
    check(&[], &["identity", "tables/1/current"]);
    check(&[], &["identity"]);
    check(&[], &[]);
}

#[test]
fn a_table_half_made_is_made_again() {
    let mut site = Site::new(&[]);
    drop(site.open());
    let before = site.process_death();
    site.tables = vec![Table::new("t", History::Forever)];
    site.open().put("a", "1");
    // The table's directory is there, with what was written to it; the manifest does not name it.
    let tables = |site: &Site| site.dir.path().join("store/tables");
    site::copy(&tables(&site), &tables(&before));
    let half = Site {
        tables: site.tables.clone(),
        ..before
    };
    let running = half.open();
    assert_eq!(running.get("a"), None);
    running.put("a", "2");
    assert_eq!(running.get("a").as_deref(), Some("2"));
}

#[test]
fn a_store_is_made_on_a_journal_that_others_have_used_before() {
    let site = Site::forever();
    let journal = site.journal().unwrap();
    let other = wal::RecordKind(99);
    for _ in 0..40 {
        journal.append(&[(other, &[0; 64 << 10])]).unwrap();
    }
    journal.release_below(Lsn::new(41)).unwrap();
    let first = journal.first_retained();
    assert!(first > Lsn::FIRST);
    drop(journal);
    let running = site.open();
    let put = running.put("a", "1");
    assert_eq!(put.lsn, Lsn::new(41));
    assert_eq!(running.get_at("a", Lsn::new(40)), None);
    drop(running);
    let running = site.open();
    assert_eq!(running.get("a").as_deref(), Some("1"));
    assert_eq!(running.report.commits, 1);
}

#[test]
fn a_new_directory_is_not_taken_for_the_store_of_a_journal_that_has_commits() {
    let site = Site::forever();
    site.open().put("a", "1");
    let mut lost = site.process_death();
    lost.dir = tempfile::tempdir().unwrap();
    let error = lost.try_open().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error.to_string().contains("restore it from a backup"),
        "{error}"
    );
}

//! Real files and real kills: this program starts itself as a child that promotes and writes in a
//! loop, and kills it at moments that nobody chose.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use wal::{Journal, Local, Options, RecordKind};
use world::{Clock as _, RealClock, RealDisk, RealRandom, disk::EntryKind};

use super::*;
use crate::machine::{ANNOUNCEMENT, STARTS, announce, announced, next_promotion};

/// Where the child works; unset, its side of the test has nothing to do.
const DIR: &str = "REPLICA_TEST_PROMOTES_IN";
const CHILD: &str = "authority::tests::kills::promotes_until_it_is_killed";

/// By eye: enough that kills fall into every step of a promotion, and a few seconds.
const KILLS: u64 = 28;

fn id(epoch: Epoch) -> EpochId {
    EpochId(u128::from(epoch.0) << 64)
}

fn journal_in(dir: &Path) -> Local {
    let options = Options {
        reserve_bytes: 0,
        holder: "the test".to_owned(),
        ..Options::new(
            dir.join("journal"),
            Arc::new(RealDisk),
            Arc::new(RealClock::new()),
            Arc::new(RealRandom),
        )
    };
    Local::open(options).unwrap().0
}

fn authority_in(dir: &Path) -> Authority {
    let path = dir.join("authority");
    if RealDisk.stat(&path).unwrap().is_some() {
        return Authority::open(&RealDisk, &path, owner()).unwrap().0;
    }
    let origin = (Epoch(0), EpochId(0), NodeId(1));
    let first = Record {
        promised: origin,
        granted: origin,
        ..testing::record()
    };
    Authority::create(&RealDisk, &path, owner(), BIRTH, &first, time(1)).unwrap()
}

/// Promise, grant, announce, write, each told once it is durable.
#[allow(clippy::print_stdout, reason = "this is how the parent is told")]
#[test]
fn promotes_until_it_is_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let clock = RealClock::new();
    let mut authority = authority_in(dir);
    let journal = journal_in(dir);
    loop {
        let mut record = authority.entry().record.clone();
        let epoch = next_promotion(record.promised.0).unwrap();
        record.promised = (epoch, id(epoch), NodeId(1));
        authority.keep(&record, BIRTH, clock.now()).unwrap();
        println!("\npromised {}", epoch.0);
        let first = journal.safe_point().next();
        record.granted = record.promised;
        record.start = Some(EpochStart {
            epoch,
            id: id(epoch),
            first,
        });
        authority.keep(&record, BIRTH, clock.now()).unwrap();
        println!("\ngranted {}", epoch.0);
        let announcement = announce(epoch, id(epoch), NodeId(1));
        journal.append(&[(ANNOUNCEMENT, &announcement)]).unwrap();
        let body = epoch.0.to_le_bytes();
        let written = journal.append(&[(RecordKind(1), &body)]).unwrap();
        println!("\nwritten {}", written.last);
    }
}

/// What the child said before it was killed, the last of each.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    promised: u64,
    granted: u64,
    written: u64,
}

fn listen(out: ChildStdout, child: &mut Child, lines: u64, told: &mut Told) {
    let mut heard = 0;
    for line in BufReader::new(out).lines() {
        let line = line.unwrap();
        let Some((what, number)) = line.split_once(' ') else {
            continue;
        };
        let into = match what {
            "promised" => &mut told.promised,
            "granted" => &mut told.granted,
            "written" => &mut told.written,
            _ => continue,
        };
        *into = number.parse().unwrap();
        heard += 1;
        // It runs on while this is on its way: so it is killed in the middle of something.
        if heard == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= lines, "the child ended by itself: {told:?}");
}

/// The record and the log that a kill left, against what was told.
fn check(dir: &Path, told: Told, before: &Entry, story: &str) -> Entry {
    let authority = authority_in(dir);
    let entry = authority.entry().clone();
    let record = &entry.record;
    assert!(entry.sequence >= before.sequence, "{story}");
    assert!(
        record.promised.0.0 >= told.promised,
        "{story}: {told:?} {record:?}"
    );
    assert!(
        record.granted.0.0 >= told.granted,
        "{story}: {told:?} {record:?}"
    );
    // Whole: of one epoch each, and none that nobody asked for.
    assert!(record.granted.0 <= record.promised.0, "{story}");
    assert_eq!(record.promised.0.0 % STARTS, 0, "{story}");
    assert_eq!(record.granted.1, id(record.granted.0), "{story}");
    assert_eq!(record.promised.1, id(record.promised.0), "{story}");
    let journal = journal_in(dir);
    assert!(
        journal.safe_point().get() >= told.written,
        "{story}: {told:?}"
    );
    for read in journal.read(journal.first_retained()).unwrap() {
        let read = read.unwrap();
        if read.kind != ANNOUNCEMENT {
            continue;
        }
        let (start, holder) = announced(read.lsn, &read.bytes).unwrap();
        assert!(
            start.epoch <= record.granted.0,
            "{story}: written before it was on record"
        );
        assert_eq!((start.id, holder), (id(start.epoch), NodeId(1)));
        if let Some(kept) = entry.history.iter().find(|kept| kept.epoch == start.epoch) {
            assert_eq!(
                *kept, start,
                "{story}: the record says where an epoch begins"
            );
        }
    }
    entry
}

/// Proves: AUT-2, AUT-3, AUT-5
#[test]
fn after_a_kill_at_any_moment_the_record_is_old_or_new_and_the_node_promotes_and_writes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = authority_in(dir.path()).entry().clone();
    let mut between = 0;
    for kill in 0..KILLS {
        #[allow(clippy::disallowed_methods, reason = "only a process can be killed")]
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = Told::default();
        let out = child.stdout.take().unwrap();
        listen(out, &mut child, 1 + kill % 7, &mut told);
        let story = format!("kill {kill}");
        let entry = check(dir.path(), told, &last, &story);
        assert!(entry.sequence > last.sequence, "{story}: it went on");
        between += u64::from(entry.record.promised.0 > entry.record.granted.0);
        last = entry;
    }
    let file = RealDisk
        .stat(&dir.path().join("authority"))
        .unwrap()
        .unwrap();
    assert_eq!((file.kind, file.len), (EntryKind::File, FILE_LEN as u64));
    assert!(last.sequence > 2 * KILLS, "{}", last.sequence);
    assert!(between > 0, "no kill fell between a promise and its grant");
}

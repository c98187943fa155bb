//! What a reader of the file sees after crashes, full disks and failed syncs.

use std::collections::BTreeSet;

use wal::{Generation, JournalId, Lsn};
use world::{
    Timestamp,
    sim::{self, Call, Fault},
};

use super::*;
use crate::{Class, EventId, NewEvent, drain::receiver::Receiver as _};

const PATH: &str = "/out/events.jsonl";

fn event(lsn: u64) -> Event {
    Event {
        id: EventId {
            journal: JournalId([7; 16]),
            generation: Generation(1),
            lsn: Lsn::new(lsn),
        },
        received: Timestamp::from_nanos(1),
        event: NewEvent {
            producer_id: None,
            time: Timestamp::from_nanos(1),
            source: "test".to_owned(),
            class: Class::Error,
            trace: None,
            span: None,
            body: format!("\"{}\"", "x".repeat(usize::try_from(lsn).unwrap() * 40)),
        },
    }
}

fn disk() -> sim::Disk {
    let disk = sim::Disk::new(3);
    disk.create_dir("/out".as_ref()).unwrap();
    disk.sync_dir("/".as_ref()).unwrap();
    disk
}

fn open(disk: &sim::Disk, len_max: u64) -> Result<Receiver, Error> {
    let clock = sim::Clock::new(Timestamp::from_nanos(1_000));
    let lines = Lines::open(
        Arc::new(disk.clone()),
        Arc::new(clock),
        PATH.as_ref(),
        len_max,
    )?;
    Ok(Receiver::new(Arc::new(lines)))
}

/// The positions of the lines of all files, in order of the files' names; each line must be whole.
fn lines(disk: &sim::Disk) -> Vec<u64> {
    let mut found = Vec::new();
    let mut names: Vec<String> = disk
        .list("/out".as_ref())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| name.starts_with("events.jsonl") && !name.ends_with(".lock"))
        .collect();
    // The one that is being written comes last.
    names.sort_by_key(|name| (name == "events.jsonl", name.clone()));
    for name in names {
        let bytes = disk.read(&Path::new("/out").join(name), 1 << 30).unwrap();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "half a line");
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            let id: EventId = line["id"].as_str().unwrap().parse().unwrap();
            found.push(id.lsn.get());
        }
    }
    found
}

/// Proves: EVT-4
#[test]
fn no_crash_at_any_effect_loses_a_taken_event_or_leaves_half_a_line() {
    for after in [sim::Disk::process_death, sim::Disk::power_loss_total] {
        sweep(after);
    }
    for seed in 0..8 {
        sweep(|disk| disk.power_loss(seed));
    }
}

fn sweep(after: impl Fn(&sim::Disk) -> sim::Disk) {
    let mut nth = 1;
    loop {
        let disk = disk();
        disk.crash_at(nth);
        let mut taken = BTreeSet::new();
        let done = send_all(&disk, &mut taken);
        let disk = after(&disk);
        disk.create_dir_all_synced("/out".as_ref()).unwrap();
        let mut receiver = open(&disk, 1_000).unwrap();
        receiver.send(&[event(99)]).unwrap();
        let found: BTreeSet<u64> = lines(&disk).into_iter().collect();
        assert!(
            found.is_superset(&taken),
            "effect {nth}: {taken:?} in {found:?}"
        );
        assert!(found.contains(&99));
        if done.is_ok() {
            break;
        }
        nth += 1;
    }
    assert!(nth > 10, "only {nth} effects: nothing was shown");
}

fn send_all(disk: &sim::Disk, taken: &mut BTreeSet<u64>) -> Result<(), String> {
    let mut receiver = open(disk, 1_000).map_err(|error| error.to_string())?;
    for lsn in 1..=12 {
        receiver
            .send(&[event(lsn)])
            .map_err(|error| error.why().to_owned())?;
        taken.insert(lsn);
    }
    Ok(())
}

#[test]
fn a_full_file_is_put_aside_and_none_is_removed() {
    let disk = disk();
    let mut receiver = open(&disk, 1_000).unwrap();
    for lsn in 1..=12 {
        receiver.send(&[event(lsn)]).unwrap();
    }
    assert_eq!(lines(&disk), (1..=12).collect::<Vec<_>>());
    for entry in disk.list("/out".as_ref()).unwrap() {
        assert!(entry.len <= 1_000, "{entry:?}");
    }
}

#[test]
fn a_full_disk_takes_nothing_and_collects_no_copies() {
    let disk = disk();
    let mut receiver = open(&disk, 1 << 20).unwrap();
    receiver.send(&[event(1)]).unwrap();
    disk.set_available(100);
    for _ in 0..3 {
        receiver.send(&[event(2), event(3)]).unwrap_err();
        assert_eq!(lines(&disk), [1]);
    }
    disk.set_available(1 << 20);
    receiver.send(&[event(2), event(3)]).unwrap();
    assert_eq!(lines(&disk), [1, 2, 3]);
}

/// After a failed sync nobody knows which bytes the disk has: the file is not written to again.
#[test]
fn no_position_is_used_again_after_a_failed_sync() {
    let disk = disk();
    let mut receiver = open(&disk, 1 << 20).unwrap();
    receiver.send(&[event(1)]).unwrap();
    disk.inject_on(
        PATH.as_ref(),
        Call::SyncData,
        1,
        Fault::Fail(io::ErrorKind::Other),
    );
    receiver.send(&[event(2)]).unwrap_err();
    assert_eq!(disk.unmet_faults(), 0);
    receiver.send(&[event(2)]).unwrap();
    let bytes = disk.read(PATH.as_ref(), 1 << 20).unwrap();
    assert!(bytes.starts_with(b"{\"id\":\"07070707070707070707070707070707:1:2\""));
    assert!(lines(&disk).starts_with(&[1]));
}

#[test]
fn a_file_that_ends_in_a_line_of_somebody_else_is_left_alone() {
    let disk = disk();
    disk.replace(PATH.as_ref(), b"root:x:0:0\nhalf of somebody")
        .unwrap();
    let error = open(&disk, 1_000).unwrap_err();
    assert!(error.to_string().contains("name another file"), "{error}");
    assert_eq!(
        disk.read(PATH.as_ref(), 100).unwrap(),
        b"root:x:0:0\nhalf of somebody"
    );
}

#[test]
fn two_drains_do_not_share_a_file() {
    let disk = disk();
    let _first = open(&disk, 1_000).unwrap();
    assert_eq!(open(&disk, 1_000).unwrap_err().kind(), Kind::Locked);
}

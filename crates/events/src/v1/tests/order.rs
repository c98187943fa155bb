//! What an append does to the disk, step by step.

use world::sim::{Call, Disk, Effect};

use super::{open, path};
use crate::v1::{SAFE_SEQ, SAFE_SEQ_TMP, WAL};

/// Effects in words.
fn steps(disk: &Disk) -> Vec<String> {
    disk.log()
        .iter()
        .map(|op| {
            let name = op.path.file_name().unwrap().to_str().unwrap();
            let what = match &op.effect {
                Effect::Write { offset, .. } => format!("write {offset}"),
                Effect::Rename { to } => {
                    format!("rename to {}", to.file_name().unwrap().to_str().unwrap())
                }
                other => format!("{other:?}"),
            };
            format!("{name}: {what}")
        })
        .collect()
}

/// Proves: JRN-30
#[test]
fn an_append_is_write_sync_stage_sync_rename_and_one_directory_sync_in_this_order() {
    let disk = Disk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut end = 0;
    for bodies in [&["{}"][..], &["{}", "{\"a\":1}", "{}"], &["{}"]] {
        disk.clear_log();
        let syncs = disk.count(Call::SyncDir);
        log.append(bodies).unwrap();
        assert_eq!(
            steps(&disk),
            [
                format!("{WAL}: write {end}"),
                format!("{WAL}: SyncAll"),
                format!("{SAFE_SEQ_TMP}: Create"),
                format!("{SAFE_SEQ_TMP}: write 0"),
                format!("{SAFE_SEQ_TMP}: SyncAll"),
                format!("{SAFE_SEQ_TMP}: rename to {SAFE_SEQ}"),
                "telemetry: SyncDir".to_owned(),
            ]
        );
        assert_eq!(disk.count(Call::SyncDir) - syncs, 1);
        end = super::get(&disk, WAL).unwrap().len();
    }
    assert_eq!(
        disk.durable(&path(SAFE_SEQ)),
        Some(5_u64.to_le_bytes().to_vec())
    );
}

#[test]
fn opening_what_is_whole_syncs_the_directory_once_and_writes_nothing() {
    let disk = Disk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    log.append(&["{}"]).unwrap();
    drop(log);
    disk.clear_log();
    drop(open(&disk).unwrap());
    // The first sync is of the name of the directory itself, in its parent.
    let steps: Vec<String> = steps_without_reads(&disk);
    assert_eq!(
        steps,
        ["/: SyncDir", "telemetry.lock: Lock", "telemetry: SyncDir"]
    );
}

fn steps_without_reads(disk: &Disk) -> Vec<String> {
    disk.log()
        .iter()
        .filter(|op| op.effect != Effect::Open)
        .map(|op| {
            let name = op
                .path
                .file_name()
                .map_or("/", |name| name.to_str().unwrap());
            format!("{name}: {:?}", op.effect)
        })
        .collect()
}

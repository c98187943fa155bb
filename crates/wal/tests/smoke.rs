//! The journal on this machine's own disk.

use wal::{Journal, Kind, Local, Lsn, Options, RecordKind};

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, report) = Local::open(Options::on_this_machine(dir.path())).unwrap();
    assert!(report.is_new);
    let appended = journal
        .append(&[(RecordKind(1), b"one"), (RecordKind(2), b"two")])
        .unwrap();
    assert_eq!((appended.first, appended.last), (Lsn::new(1), Lsn::new(2)));
    let locked = Local::open(Options::on_this_machine(dir.path())).unwrap_err();
    assert_eq!(locked.kind(), Kind::Locked);
    let holder = std::process::id().to_string();
    assert!(locked.to_string().contains(&holder), "{locked}");
    drop(journal);

    let (journal, report) = Local::open(Options::on_this_machine(dir.path())).unwrap();
    assert_eq!(report.safe_point, Lsn::new(2));
    assert_eq!(report.watermark, Lsn::new(2));
    assert_eq!(report.cut, None);
    let read: Vec<_> = journal
        .read(Lsn::FIRST)
        .unwrap()
        .map(|record| record.unwrap())
        .map(|record| (record.lsn.get(), record.kind.0, record.bytes))
        .collect();
    assert_eq!(read, [(1, 1, b"one".to_vec()), (2, 2, b"two".to_vec())]);
}

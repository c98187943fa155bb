use std::{
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn replace_changes_the_whole_file_and_leaves_no_temporary_one() {
    let dir = directory();
    let path = dir.path().join("a");
    // As a crash between creation and rename leaves it.
    fs::write(dir.path().join("a.tmp"), b"left over").unwrap();
    for bytes in [b"first".as_slice(), b"", b"third and longer"] {
        RealDisk.replace(&path, bytes).unwrap();
        assert_eq!(RealDisk.read(&path, 100).unwrap(), bytes);
        let names = RealDisk.list(dir.path()).unwrap();
        assert_eq!(names.len(), 1, "{names:?}");
    }
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_reader_of_the_old_file_is_not_disturbed_by_its_replacement() {
    let dir = directory();
    let path = dir.path().join("a");
    RealDisk.replace(&path, b"old").unwrap();
    let reader = RealDisk.open(&path, Open::Read).unwrap();
    RealDisk.replace(&path, b"new").unwrap();
    let mut bytes = [0; 3];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"old");
}

#[test]
fn a_file_longer_than_allowed_is_refused_by_name() {
    let dir = directory();
    let path = dir.path().join("a");
    RealDisk.replace(&path, b"12345").unwrap();
    let error = RealDisk.read(&path, 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_second_lock_names_the_holder_until_the_first_is_dropped() {
    let dir = directory();
    let path = dir.path().join("lock");
    let first = RealDisk
        .lock(&path, "pid 1 holdfast with a long name")
        .unwrap();
    let error = RealDisk.lock(&path, "pid 2").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(error.to_string(), "pid 1 holdfast with a long name");
    drop(first);
    let second = RealDisk.lock(&path, "pid 2").unwrap();
    let error = RealDisk.lock(&path, "pid 3").unwrap_err();
    assert_eq!(error.to_string(), "pid 2");
    drop(second);
}

#[test]
fn only_regular_files_open() {
    let dir = directory();
    let file = dir.path().join("file");
    RealDisk.replace(&file, b"secret").unwrap();
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nothing"), &dangling).unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let planted = [&link, &dangling, &pipe, &dir.path().to_owned()];
    for path in planted {
        for how in [Open::Read, Open::Write, Open::CreateOrOpen, Open::CreateNew] {
            assert!(
                RealDisk.open(path, how).is_err(),
                "{} {how:?}",
                path.display()
            );
        }
        assert!(RealDisk.lock(path, "me").is_err(), "{}", path.display());
    }
    assert_eq!(RealDisk.read(&file, 100).unwrap(), b"secret");
    assert!(!dir.path().join("nothing").exists());
    let kind = |path: &Path| RealDisk.stat(path).unwrap().unwrap().kind;
    assert_eq!(kind(&link), EntryKind::Other);
    assert_eq!(kind(&pipe), EntryKind::Other);
    assert_eq!(kind(dir.path()), EntryKind::Dir);
}

#[test]
fn a_listing_is_sorted_and_refuses_a_name_it_cannot_show() {
    let dir = directory();
    for name in ["b", "a", "c"] {
        RealDisk
            .replace(&dir.path().join(name), name.repeat(3).as_bytes())
            .unwrap();
    }
    RealDisk
        .create_dir_all_synced(&dir.path().join("aa"))
        .unwrap();
    let found: Vec<(String, u64)> = RealDisk
        .list(dir.path())
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.len))
        .collect();
    let expected = [("a", 3), ("aa", 0), ("b", 3), ("c", 3)];
    assert_eq!(found, expected.map(|(name, len)| (name.to_owned(), len)));

    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(dir.path().join(name), b"").unwrap();
    let error = RealDisk.list(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn directories_are_made_private_and_making_them_again_changes_nothing() {
    let dir = directory();
    let deep = dir.path().join("x/y/z");
    for _ in 0..2 {
        RealDisk.create_dir_all_synced(&deep).unwrap();
    }
    for made in ["x", "x/y", "x/y/z"] {
        let mode = fs::metadata(dir.path().join(made))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
    fs::write(dir.path().join("file"), b"").unwrap();
    RealDisk
        .create_dir_all_synced(&dir.path().join("file"))
        .unwrap_err();
    RealDisk
        .create_dir_all_synced(&dir.path().join("file/x"))
        .unwrap_err();
}

#[test]
fn opening_answers_as_the_simulated_disk_does() {
    let dir = directory();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let kind = |path: PathBuf, how| RealDisk.open(&path, how).unwrap_err().kind();
    assert_eq!(kind(path("a"), Open::Read), ErrorKind::NotFound);
    assert_eq!(kind(path("a"), Open::Write), ErrorKind::NotFound);
    RealDisk.open(&path("a"), Open::CreateNew).unwrap();
    assert_eq!(kind(path("a"), Open::CreateNew), ErrorKind::AlreadyExists);
    assert_eq!(kind(path("a/x"), Open::Read), ErrorKind::NotADirectory);
    let file = RealDisk.open(&path("a"), Open::CreateOrOpen).unwrap();
    file.write_all_at(b"12", 3).unwrap();
    assert_eq!(file.len().unwrap(), 5);
    file.set_len(4).unwrap();
    file.sync_data().unwrap();
    assert_eq!(RealDisk.read(&path("a"), 100).unwrap(), b"\0\0\x001");
    assert_eq!(file.read_at(&mut [0; 2], 4).unwrap(), 0);
    RealDisk
        .open(&path("a"), Open::Read)
        .unwrap()
        .write_at(b"x", 0)
        .unwrap_err();
    RealDisk.rename(&path("a"), &path("b")).unwrap();
    assert_eq!(RealDisk.stat(&path("a")).unwrap(), None);
    RealDisk.remove_file(&path("b")).unwrap();
    RealDisk.sync_dir(dir.path()).unwrap();
    let space = RealDisk.space(dir.path()).unwrap();
    assert!(space.available <= space.total && space.total > 0);
}

#[test]
fn asking_for_the_holder_neither_takes_the_lock_nor_makes_the_file() {
    let dir = directory();
    let path = dir.path().join("lock");
    assert_eq!(RealDisk.holder(&path).unwrap(), None);
    assert!(!path.exists(), "asking made the file");
    let first = RealDisk.lock(&path, "the first").unwrap();
    assert_eq!(RealDisk.holder(&path).unwrap().unwrap(), "the first");
    drop(first);
    assert_eq!(RealDisk.holder(&path).unwrap(), None);
    RealDisk.lock(&path, "the second").unwrap();
}

/// A journal that had just been closed was said to be in use by this very process: a child that was about to
/// begin held a copy of the lock's file.
#[test]
fn a_lock_that_was_given_back_is_free_though_a_child_has_a_copy_of_its_file() {
    let dir = directory();
    let path = dir.path().join("lock");
    let file = open_file(&path, Open::CreateOrOpen).unwrap();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let held_by_a_child = file.try_clone().unwrap();
    let held = RealLock(file);
    let refused = RealDisk.lock(&path, "too early").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    drop(held);
    RealDisk.lock(&path, "the second").unwrap();
    drop(held_by_a_child);
}

#[test]
fn a_link_is_a_second_name_and_takes_no_name_that_is_in_use() {
    let dir = directory();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    RealDisk.replace(&one, b"bytes").unwrap();
    RealDisk.link(&one, &two).unwrap();
    RealDisk.remove_file(&one).unwrap();
    assert_eq!(RealDisk.read(&two, 100).unwrap(), b"bytes");
    RealDisk.replace(&one, b"other").unwrap();
    let error = RealDisk.link(&one, &two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

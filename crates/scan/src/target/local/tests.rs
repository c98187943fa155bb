//! The local target against files, programs and trees made to mislead it.

use std::{sync::Arc, time::Duration};

use rustix::fs::{FileType, Mode};
use world::RealClock;

use super::*;
use crate::collect::fixture::Fixture;

fn machine() -> LocalTarget {
    LocalTarget::new("/", Arc::new(RealClock::new())).unwrap()
}

fn reason<T: std::fmt::Debug>(found: Found<T>) -> Reason {
    match found {
        Found::Unknown(unknown) => unknown.reason,
        other => panic!("expected an unknown, found {other:?}"),
    }
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let host = Fixture::new(&[("/etc/real", "inside")]);
    host.link("/etc/relative", "real");
    host.link("/etc/absolute", "/etc/real");
    host.link("/etc/escaping", "../../../../../../../../etc/passwd");
    host.link("/etc/outside", "/etc/passwd");
    let target = host.target();
    let inside = Found::Present(b"inside".to_vec());
    assert_eq!(target.read("/etc/relative", 99), inside);
    assert_eq!(target.read("/etc/absolute", 99), inside);
    assert_eq!(target.read("/etc/escaping", 99), Found::Absent);
    assert_eq!(target.read("/etc/outside", 99), Found::Absent);
    let link = Found::Present("/etc/passwd".to_owned());
    assert_eq!(target.read_link("/etc/outside"), link);
    assert_eq!(target.read_link("/etc/real"), Found::Absent);
}

#[test]
fn a_file_longer_than_the_cap_is_truncated_and_one_as_long_is_whole() {
    let host = Fixture::new(&[("/a", "12345")]);
    let target = host.target();
    assert_eq!(target.read("/a", 5), Found::Present(b"12345".to_vec()));
    assert_eq!(reason(target.read("/a", 4)), Reason::Truncated);
    assert_eq!(reason(target.read("/a", 0)), Reason::Truncated);
}

/// Proves: EXE-7
#[test]
fn an_endless_file_is_cut_at_the_cap() {
    let mut taken = 0;
    let found = machine().stream("/proc/self/pagemap", 1 << 20, &mut |piece| {
        taken += piece.len()
    });
    assert_eq!(reason(found), Reason::Truncated);
    assert!(taken <= 1 << 20);
}

#[test]
fn pipes_directories_and_loops_are_refused_and_the_null_device_is_empty() {
    let host = Fixture::new(&[("/etc/a", "")]);
    let fifo = host.at("/etc/pipe");
    fs::mknodat(fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    host.link("/etc/loop", "loop");
    let target = host.target();
    for path in ["/etc/pipe", "/etc", "/etc/loop"] {
        assert_eq!(reason(target.read(path, 99)), Reason::Unreadable, "{path}");
    }
    assert_eq!(target.read("/etc/a/b", 99), Found::Absent);
    assert_eq!(machine().read("/dev/null", 99), Found::Present(Vec::new()));
    assert_eq!(reason(machine().read("/dev/zero", 99)), Reason::Unreadable);
}

#[test]
fn a_directory_with_a_name_that_is_not_text_is_not_listed_with_a_hole() {
    let host = Fixture::new(&[("/d/b", ""), ("/d/a/x", "")]);
    let target = host.target();
    let entry = |name: &str, kind| Entry {
        name: name.to_owned(),
        kind,
    };
    let expected = vec![entry("a", Kind::Dir), entry("b", Kind::File)];
    assert_eq!(target.list("/d"), Found::Present(expected));
    assert_eq!(target.list("/none"), Found::Absent);
    assert_eq!(target.list("/d/b"), Found::Absent);
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    std::os::unix::fs::symlink("x", host.at("/d").join(name)).unwrap();
    assert_eq!(reason(target.list("/d")), Reason::Unsupported);
}

fn shell(script: &str, deadline: Duration, output_bytes_max: usize) -> Result<Ran, Unknown> {
    machine().run(&Command {
        programs: &["/none/sh", "/bin/sh"],
        args: &["-c", script],
        deadline,
        output_bytes_max,
    })
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_program_gets_an_empty_environment_no_input_and_its_own_group() {
    let ran = shell("env; pwd; cat; echo oops >&2; exit 3", LONG, 4096).unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    // The shell itself sets the last three.
    let allowed = ["LC_ALL=C", "PWD=/", "/", "OLDPWD=", "SHLVL=", "_="];
    for line in said.lines() {
        assert!(
            allowed.iter().any(|start| line.starts_with(start)),
            "{line}"
        );
    }
    assert!(said.contains("LC_ALL=C"));
    assert_eq!(ran.status, Some(3));
    assert_eq!(ran.stderr, b"oops\n");
}

/// Proves: EXE-6, EXE-7
#[test]
fn a_program_that_hangs_or_never_stops_talking_is_ended() {
    let check = |script: &str, deadline: Duration, expected: Reason| {
        let ran = shell(script, deadline, 1 << 20);
        assert_eq!(
            ran.map_err(|unknown| unknown.reason),
            Err(expected),
            "{script}"
        );
    };
    check("sleep 600", SHORT, Reason::Timeout);
    check("trap '' TERM INT HUP; sleep 600", SHORT, Reason::Timeout);
    check("exec >&- 2>&-; sleep 600", SHORT, Reason::Timeout);
    check("while :; do echo noise >&2; done", SHORT, Reason::Timeout);
    check("while :; do echo noise; done", LONG, Reason::Truncated);
    check("head -c 2000000 /dev/zero", LONG, Reason::Truncated);
}

#[test]
fn what_a_program_leaves_behind_is_neither_waited_for_nor_left_running() {
    let ran = shell("sleep 600 & echo $!", LONG, 4096).unwrap();
    assert_eq!(ran.status, Some(0));
    let pid = String::from_utf8(ran.stdout).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // Readable once the process is dead, whether or not anybody has reaped it.
    let Ok(left) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut fds = [rustix::event::PollFd::new(
        &left,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1));
}

#[test]
fn a_missing_program_and_one_that_is_no_program_are_told_apart() {
    let run = |program: &str| {
        let programs = [program];
        let command = Command {
            programs: &programs,
            args: &[],
            deadline: LONG,
            output_bytes_max: 99,
        };
        machine().run(&command).unwrap_err().reason
    };
    assert_eq!(run("/none/tool"), Reason::ToolMissing);
    assert_eq!(run("/etc/passwd"), Reason::Privilege);
    let host = Fixture::new(&[("/bin/sh", "")]);
    let command = Command {
        programs: &["/bin/sh"],
        args: &[],
        deadline: LONG,
        output_bytes_max: 99,
    };
    let refused = host.target().run(&command).unwrap_err();
    assert_eq!(refused.reason, Reason::ToolMissing);
}

const EVERYBODY: Walk<'static> = Walk {
    known_uids: &[],
    known_gids: &[],
    list_max: 100,
    deadline: LONG,
};

fn paths(files: &[crate::target::WalkedFile]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn the_walk_finds_each_kind_of_file_and_follows_no_link() {
    let host = Fixture::new(&[
        ("/a/plain", ""),
        ("/a/open", ""),
        ("/a/b/c/su", ""),
        ("/a/both", ""),
        ("/tmp/x", ""),
        ("/drop/y", ""),
    ]);
    host.chmod("/a/open", 0o666);
    host.chmod("/a/b/c/su", 0o4755);
    host.chmod("/a/both", 0o6757);
    host.chmod("/tmp", 0o1777);
    host.chmod("/drop", 0o777);
    host.link("/a/up", "..");
    host.link("/a/out", "/");
    let walked = host.target().walk(&EVERYBODY, &()).unwrap();
    assert_eq!(paths(&walked.world_writable_files), ["/a/both", "/a/open"]);
    assert_eq!(paths(&walked.world_writable_dirs_no_sticky), ["/drop"]);
    assert_eq!(paths(&walked.setuid), ["/a/b/c/su", "/a/both"]);
    assert_eq!(paths(&walked.setgid), ["/a/both"]);
    assert_eq!((walked.files, walked.dirs), (8, 6));
    assert_eq!(walked.unowned.len(), 14);
    assert_eq!(walked.unowned[0].path, "/");
    assert_eq!(walked.unseen, None);
}

#[test]
fn files_of_known_owners_are_not_reported() {
    let host = Fixture::new(&[("/a", "")]);
    let stat = fs::stat(host.at("/a")).unwrap();
    let walk = Walk {
        known_uids: &[stat.st_uid],
        known_gids: &[stat.st_gid],
        ..EVERYBODY
    };
    let walked = host.target().walk(&walk, &()).unwrap();
    assert_eq!((walked.unowned, walked.ungrouped), (Vec::new(), Vec::new()));
}

#[test]
fn a_list_over_its_cap_holds_one_more_than_the_cap() {
    // In one directory, so that one thread finds them all.
    let names: Vec<String> = (0..20).map(|number| format!("/d/{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let host = Fixture::new(&files);
    let walk = Walk {
        list_max: 5,
        ..EVERYBODY
    };
    let walked = host.target().walk(&walk, &()).unwrap();
    assert_eq!(walked.unowned.len(), 6);
    assert_eq!(walked.files, 20);
}

/// A user can nest directories without end. What lies deeper is not seen, and that is said.
#[test]
fn a_tree_deeper_than_the_limit_is_seen_as_far_as_the_limit() {
    let host = Fixture::new(&[]);
    let mut deep = String::from("/top");
    host.dir(&deep);
    for _ in 0..300 {
        deep.push_str("/d");
    }
    host.dir(&deep);
    let walked = host.target().walk(&EVERYBODY, &()).unwrap();
    assert_eq!(walked.unseen.unwrap().reason, Reason::Truncated);
    assert_eq!(walked.dirs, 257);
}

struct Cancelled;

impl Progress for Cancelled {
    fn cancelled(&self) -> bool {
        true
    }
}

/// Proves: EXE-6
#[test]
fn a_walk_past_its_deadline_gives_nothing_rather_than_a_part() {
    let host = Fixture::new(&[("/a", "")]);
    let late = Walk {
        deadline: Duration::ZERO,
        ..EVERYBODY
    };
    let cut = host.target().walk(&late, &()).unwrap_err();
    assert_eq!(cut.reason, Reason::Timeout);
    let cut = machine().walk(&EVERYBODY, &Cancelled).unwrap_err();
    assert_eq!(cut.reason, Reason::Timeout);
}

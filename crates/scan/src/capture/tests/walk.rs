//! The walk by `find` against the walk of a process on the host.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use world::RealClock;

use super::shell::Shell;
use crate::{
    capture::{
        Limits,
        answer::Parts,
        frame::{Session, sections},
        question::WalkAsked,
        shell, walk,
    },
    target::{LocalTarget, Target, Walk, Walked, mount_table},
};

const LIST_MAX: usize = 3;

fn through_a_shell(table: &str, asked: &WalkAsked) -> Walked {
    let clock = RealClock::new();
    let limits = Limits::default();
    let mut host = Shell::start(&["/bin/sh"]);
    let mut session = Session::new(&mut host, &clock, &limits, "mark".into());
    let plan = mount_table::plan(table.as_bytes()).unwrap();
    let questions = walk::questions(&plan, asked).unwrap();
    session
        .send(&shell::walk_script("mark", &questions))
        .unwrap();
    session.send(&shell::script("mark", 1, "w;")).unwrap();
    let body = session.answer(1).unwrap();
    let sections = sections("mark", &body);
    let mut walked = Walked::default();
    for index in 1..=plan.enter.len() {
        let id = index.to_string();
        let parts = &sections[id.as_bytes()];
        walk::take(&mut Parts::new(parts), asked.list_max, &mut walked).unwrap();
    }
    walk::finish(asked, &mut walked);
    walked
}

/// Files for every list, names that are hard to tell, and a directory that a mount will cover.
#[allow(clippy::disallowed_methods, reason = "the scratch host of the test")]
fn plant(root: &Path) {
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for dir in [
        "a",
        "a/b",
        "open",
        "sticky",
        "mnt",
        "mnt/[x]*",
        "mnt/[x]*/deep",
    ] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for (name, bits) in [
        ("a/su", 0o4755),
        ("a/sg", 0o2755),
        ("a/line\nbreak: 'x' D\n.", 0o666),
        ("a/b/w1", 0o666),
        ("a/b/w2", 0o602),
        ("a/b/w3", 0o777),
        ("a/b/w4", 0o777),
        ("a/plain", 0o644),
        ("mnt/[x]*/deep/hidden", 0o4777),
        ("mnt/x", 0o4755),
    ] {
        fs::write(root.join(name), "").unwrap();
        mode(name, bits);
    }
    symlink("/nowhere", root.join("link")).unwrap();
    mode("open", 0o777);
    mode("sticky", 0o1777);
}

/// The paths of a host whose root is `here`, as this machine has them.
fn move_below(local: &mut Walked, here: &str) {
    for list in [
        &mut local.world_writable_files,
        &mut local.world_writable_dirs_no_sticky,
        &mut local.unowned,
        &mut local.ungrouped,
        &mut local.setuid,
        &mut local.setgid,
    ] {
        for file in list {
            let below = if file.path == "/" { "" } else { &file.path };
            file.path = format!("{here}{below}");
        }
    }
}

#[test]
fn find_sees_what_a_process_of_ours_sees() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    plant(root);
    let here = root.to_str().unwrap();
    let table = format!(
        "1 0 0:5 / / rw - nfs host:/ rw\n2 1 254:0 / {here} rw - ext4 /dev/vda rw\n\
         3 2 0:6 / {here}/mnt/[x]* rw - nfs host:/y rw\n"
    );
    let asked = WalkAsked {
        known_uids: vec![1, 2, 3, 70_000],
        known_gids: vec![rustix::process::getegid().as_raw()],
        list_max: LIST_MAX,
        deadline: Duration::from_secs(30),
    };
    let there = through_a_shell(&table, &asked);
    fs::remove_dir_all(root.join("mnt/[x]*")).unwrap();
    let target = LocalTarget::new(here, Arc::new(RealClock::new())).unwrap();
    let mut local = target
        .walk(
            &Walk {
                known_uids: &asked.known_uids,
                known_gids: &asked.known_gids,
                list_max: LIST_MAX,
                deadline: asked.deadline,
            },
            &(),
        )
        .unwrap();
    move_below(&mut local, here);
    // Of a list over its cap the first found are kept, which is chance.
    assert_eq!(local.world_writable_files.len(), LIST_MAX + 1);
    assert_eq!(there.world_writable_files.len(), LIST_MAX + 1);
    local
        .world_writable_files
        .clone_from(&there.world_writable_files);
    assert_eq!(local.unowned.len(), LIST_MAX + 1);
    assert_eq!(there.unowned.len(), LIST_MAX + 1);
    local.unowned.clone_from(&there.unowned);
    assert_eq!(there.setuid.len(), 2, "{:?}", there.setuid);
    assert_eq!(there, local);
}

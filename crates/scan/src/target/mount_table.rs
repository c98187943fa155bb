//! The mount table, and which of its filesystems a walk enters.
//!
//! Decides from the text of `/proc/self/mountinfo` alone, without touching a mount: looking at a
//! dead network filesystem can block for ever, and looking at an automount point mounts it.

use std::collections::{HashMap, HashSet};

use super::{SkippedMount, Walked, unknown};
use crate::facts::{Reason, Unknown};

/// Filesystems that live on this host's own disks or memory. A type that is not here is entered
/// only when it lies on a block device.
const LOCAL: &[&str] = &[
    "aufs", "bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jffs2",
    "jfs", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "squashfs", "tmpfs", "ubifs", "vfat",
    "xfs", "zfs",
];

/// On a block device, and yet answered by a user's process or shared with other machines.
const NOT_LOCAL: &[&str] = &["fuseblk", "gfs2", "ocfs2"];

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    parent: u64,
    /// `major:minor`.
    device: String,
    /// The directory of the filesystem that is mounted: `/`, or another one for a bind mount.
    root: Vec<u8>,
    pub(crate) point: Vec<u8>,
    pub(crate) fstype: String,
}

/// What to enter and what to leave alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Visible local filesystems, each part of them once.
    pub(crate) enter: Vec<Mount>,
    pub(crate) skipped: Vec<SkippedMount>,
    /// Every mount point: a walk of one filesystem stops at them.
    pub(crate) points: HashSet<Vec<u8>>,
}

impl Plan {
    /// The root filesystem, when nothing below it would be entered: then a walk that finds nothing
    /// has not looked. Its type, or `none` for a table without it.
    pub(crate) fn root_left_out(&self) -> Option<&str> {
        let root = self.skipped.iter().find(|mount| mount.path == "/");
        match root {
            Some(root) => Some(&root.fstype),
            None => self.enter.is_empty().then_some("none"),
        }
    }
}

/// The plan, and what a walk knows before it begins: what it leaves out.
///
/// # Errors
/// The text is no mount table.
pub(crate) fn begin(table: &[u8]) -> Result<(Plan, Walked), Unknown> {
    let mut plan = plan(table).ok_or_else(|| {
        unknown(
            Reason::Malformed,
            "/proc/self/mountinfo",
            "not a mount table",
        )
    })?;
    let mut walked = Walked::default();
    if let Some(fstype) = plan.root_left_out() {
        let problem = format!("the filesystem {fstype} is not local, nothing was looked at");
        walked.unseen = Some(unknown(Reason::Unsupported, "/", problem));
    }
    walked.skipped_mounts = std::mem::take(&mut plan.skipped);
    walked.skipped_mounts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((plan, walked))
}

/// `None` when a line is not of proc_pid_mountinfo(5).
pub(crate) fn plan(table: &[u8]) -> Option<Plan> {
    let mounts = table
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse_line)
        .collect::<Option<Vec<Mount>>>()?;
    let tree = Tree::new(&mounts)?;
    let mut plan = Plan {
        points: mounts.iter().map(|mount| mount.point.clone()).collect(),
        ..Plan::default()
    };
    let mut local = Vec::new();
    for mount in &mounts {
        if tree.visible_at(&mount.point) != mount.id {
            continue;
        }
        if is_local(mount) {
            local.push(mount);
        } else {
            plan.skipped.push(SkippedMount {
                path: String::from_utf8_lossy(&mount.point).into_owned(),
                fstype: mount.fstype.clone(),
            });
        }
    }
    // Whole filesystems before their parts, so that a part is recognised as already seen.
    local.sort_by_key(|mount| mount.root.len());
    for mount in local {
        if !plan.enter.iter().any(|whole| tree.shows(whole, mount)) {
            plan.enter.push(mount.clone());
        }
    }
    Some(plan)
}

fn is_local(mount: &Mount) -> bool {
    let fstype = mount.fstype.as_str();
    let on_block_device = !mount.device.starts_with("0:");
    !NOT_LOCAL.contains(&fstype) && (LOCAL.contains(&fstype) || on_block_device)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = |field: &[u8]| str::from_utf8(field).ok()?.parse().ok();
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?)?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let fstype = text(fields.skip_while(|field| *field != b"-").nth(1)?)?;
    if fstype.is_empty() {
        return None;
    }
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        fstype,
    })
}

/// Blanks and backslashes are written in octal: `\040`.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// Which mount is on top at each path.
struct Tree<'a> {
    /// By the mount below and the point.
    on: HashMap<(u64, &'a [u8]), u64>,
    bottom: u64,
}

impl<'a> Tree<'a> {
    /// `None` without a mount on `/`.
    fn new(mounts: &'a [Mount]) -> Option<Self> {
        let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        let is_bottom = |mount: &&Mount| {
            mount.point == b"/" && (mount.parent == mount.id || !ids.contains(&mount.parent))
        };
        let bottom = mounts.iter().find(is_bottom)?.id;
        let above = mounts.iter().filter(|mount| mount.id != bottom);
        let on = above.map(|mount| ((mount.parent, mount.point.as_slice()), mount.id));
        Some(Self {
            on: on.collect(),
            bottom,
        })
    }

    fn visible_at(&self, path: &[u8]) -> u64 {
        let mut top = self.climb(self.bottom, b"/");
        let slashes = path.iter().enumerate().skip(1);
        let ends = slashes
            .filter(|(_, byte)| **byte == b'/')
            .map(|(end, _)| end);
        for end in ends.chain((path.len() > 1).then_some(path.len())) {
            top = self.climb(top, &path[..end]);
        }
        top
    }

    fn climb(&self, mut top: u64, point: &[u8]) -> u64 {
        while let Some(&next) = self.on.get(&(top, point)).filter(|next| **next != top) {
            top = next;
        }
        top
    }

    /// Whether everything that `part` mounts is also seen below `whole`.
    fn shows(&self, whole: &Mount, part: &Mount) -> bool {
        if whole.device != part.device {
            return false;
        }
        let Some(below) = strip_dir(&part.root, &whole.root) else {
            return false;
        };
        let mut path = whole.point.clone();
        for name in below
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        self.visible_at(&path) == whole.id
    }
}

/// `path` below `dir`, or `None` when it is elsewhere.
fn strip_dir<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    if dir == b"/" {
        return Some(path);
    }
    let rest = path.strip_prefix(dir)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &str, enter: &[&str], skipped: &[&str]) {
        let plan = plan(table.as_bytes()).unwrap();
        let points = plan
            .enter
            .iter()
            .map(|mount| String::from_utf8_lossy(&mount.point));
        assert_eq!(points.collect::<Vec<_>>(), enter, "{table}");
        let paths = plan.skipped.iter().map(|mount| mount.path.as_str());
        assert_eq!(paths.collect::<Vec<_>>(), skipped, "{table}");
    }

    #[test]
    fn local_filesystems_are_entered_and_all_others_named() {
        check(
            "\
27 1 254:0 / / rw - ext4 /dev/vda rw
22 27 0:21 / /proc rw - proc proc rw
30 27 0:22 / /tmp rw shared:3 master:1 - tmpfs tmpfs rw
31 27 0:40 / /srv/nfs rw - nfs4 host:/x rw
32 27 0:41 / /home/ann/mnt rw - fuse.sshfs ann@host: rw
33 27 8:17 / /mnt/usb rw - fuseblk /dev/sdb1 rw
34 27 0:42 / /misc rw - autofs systemd-1 rw
35 27 8:18 / /mnt/odd rw - oddfs /dev/sdb2 rw
36 27 0:43 / /mnt/new rw - newfs none rw
",
            &["/", "/tmp", "/mnt/odd"],
            &[
                "/proc",
                "/srv/nfs",
                "/home/ann/mnt",
                "/mnt/usb",
                "/misc",
                "/mnt/new",
            ],
        );
    }

    #[test]
    fn what_two_mounts_show_is_entered_once() {
        check(
            "\
27 1 254:0 / / rw - ext4 /dev/vda rw
28 27 254:0 /home /export/home rw - ext4 /dev/vda rw
29 27 254:0 / /mnt/all rw - ext4 /dev/vda rw
",
            &["/"],
            &[],
        );
        // Two subvolumes of one btrfs: neither is part of the other.
        check(
            "27 1 0:30 /@ / rw - btrfs /dev/a rw\n28 27 0:30 /@home /home rw - btrfs /dev/a rw\n",
            &["/", "/home"],
            &[],
        );
        // The bound directory is covered by another mount where it would be seen first.
        check(
            "\
27 1 254:0 / / rw - ext4 /dev/vda rw
28 27 0:31 / /home rw - tmpfs none rw
29 27 254:0 /home /export rw - ext4 /dev/vda rw
",
            &["/", "/home", "/export"],
            &[],
        );
    }

    #[test]
    fn a_covered_mount_is_neither_entered_nor_named() {
        check(
            "\
27 1 254:0 / / rw - ext4 /dev/vda rw
28 27 0:31 / /a/b rw - nfs host:/x rw
29 27 0:32 / /a rw - tmpfs none rw
30 29 0:33 / /a rw - tmpfs none rw
",
            &["/", "/a"],
            &[],
        );
    }

    #[test]
    fn a_root_that_is_not_local_leaves_the_host_unseen() {
        for (table, left_out) in [
            ("27 1 254:0 / / rw - ext4 /dev/vda rw\n", None),
            (
                "27 1 0:30 / / rw - virtiofs root rw\n28 27 0:31 / /tmp rw - tmpfs none rw\n",
                Some("virtiofs"),
            ),
        ] {
            let plan = plan(table.as_bytes()).unwrap();
            assert_eq!(plan.root_left_out(), left_out, "{table}");
        }
    }

    #[test]
    fn a_table_that_makes_no_sense_gives_no_plan() {
        for table in [
            "",
            "x\n",
            "27 1 254:0 / / rw - \n",
            "28 27 0:1 / /a rw - ext4 d rw\n",
        ] {
            let plan = plan(table.as_bytes());
            assert!(plan.is_none_or(|plan| plan.enter.is_empty()), "{table:?}");
        }
    }
}

//! From a path to the directory that holds its last component, every step of the way looked at.

use std::{collections::VecDeque, os::fd::OwnedFd};

use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::Errno,
};

use super::{LocalHands, checked, words};
use crate::{fix::Fault, rule::is_path};

/// Links on one way, as the kernel limits them.
const LINKS_MAX: u32 = 40;

impl LocalHands {
    /// The directory of `path`, opened, and the name in it. Links between directories are followed
    /// inside the root only, and only out of directories that nobody else may write.
    pub(super) fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Fault> {
        checked(is_path(path), path, "is not a plain absolute path")?;
        let (dirs, name) = path.rsplit_once('/').expect("an absolute path has a slash");
        let refused = |errno| Fault::refused(path, words(errno));
        let mut todo: VecDeque<String> = parts(dirs).collect();
        let mut way = vec![rustix::io::dup(&self.root).map_err(refused)?];
        let mut links = 0;
        closed_to_others(&way[0], path)?;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let here = way.last().expect("the root stays");
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match fs::openat(here, part.as_str(), flags, Mode::empty()) {
                Ok(dir) => {
                    closed_to_others(&dir, path)?;
                    way.push(dir);
                }
                Err(Errno::NOTDIR | Errno::LOOP) if links < LINKS_MAX => {
                    links += 1;
                    let to = fs::readlinkat(here, part.as_str(), Vec::new()).map_err(refused)?;
                    let to = to.into_string().map_err(|_| refused(Errno::INVAL))?;
                    if to.starts_with('/') {
                        way.truncate(1);
                    }
                    for part in parts(&to).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Err(errno) => return Err(refused(errno)),
            }
        }
        Ok((way.pop().expect("the root stays"), name))
    }
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    parts.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Whoever may write a directory may swap what a name in it stands for, between any look and any
/// change.
fn closed_to_others(dir: &OwnedFd, path: &str) -> Result<(), Fault> {
    let stat = fs::fstat(dir).map_err(|errno| Fault::refused(path, words(errno)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Fault::refused(path, "a part of its path is no directory"));
    }
    let owner = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    let group = stat.st_gid == 0 || stat.st_gid == rustix::process::getegid().as_raw();
    let group_may_write = stat.st_mode & 0o020 != 0 && !group;
    if owner && !group_may_write && stat.st_mode & 0o002 == 0 {
        return Ok(());
    }
    Err(Fault::not_safe(
        path,
        "lies below a directory that others may write",
    ))
}

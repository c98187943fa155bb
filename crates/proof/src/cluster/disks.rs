//! Small disks of the proof's own for full ones, and copies of directories for disks that are put back.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Set in the process that has mounts of its own.
const MARK: &str = "HOLDFAST_PROOF_MOUNTS";

/// Of the small disk, in MiB: the journals and their spare segments take less than a third of it.
const DISK_MIB: u32 = 192;

const BALLAST: &str = "ballast";

/// Runs this very command again where mounts are nobody else's and end with it. `None`: this is it.
#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
pub(super) fn with_own_mounts() -> io::Result<Option<ExitCode>> {
    if env::var_os(MARK).is_some() {
        return Ok(None);
    }
    let mut words: Vec<OsString> = ["--mount", "--propagation", "private"]
        .map(Into::into)
        .into();
    words.push(env::current_exe()?.into());
    words.extend(env::args_os().skip(1));
    let status = Command::new("unshare")
        .args(words)
        .env(MARK, "1")
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(ExitCode::from(code.unwrap_or(2))))
}

/// Whether this process may mount.
pub(super) fn is_possible() -> bool {
    rustix::process::geteuid().is_root()
}

/// Puts a small disk where a data directory is to be.
#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
pub(super) fn mount(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let size = format!("size={DISK_MIB}m");
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
        .arg(dir)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "mounting {}: {status}",
            dir.display()
        ))),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
pub(super) fn unmount(dir: &Path) -> io::Result<()> {
    let status = Command::new("umount").arg("--lazy").arg(dir).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "unmounting {}: {status}",
            dir.display()
        ))),
    }
}

/// Takes every byte that is left.
#[allow(
    clippy::disallowed_methods,
    reason = "a file nobody needs after the round"
)]
pub(super) fn fill(dir: &Path) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(BALLAST))?;
    for chunk in [1 << 20, 4 << 10, 512, 1] {
        let bytes = vec![0; chunk];
        while file.write_all(&bytes).is_ok() {}
    }
    Ok(())
}

pub(super) fn give_back(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(BALLAST))
}

/// A copy of a data directory as it is on the disk, without the sockets of a process.
#[allow(
    clippy::disallowed_methods,
    reason = "a copy nobody needs after the round"
)]
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Removes what is in a directory, and not itself: it may be a disk of its own.
#[allow(
    clippy::disallowed_methods,
    reason = "what a disk loses, and no order of writes is promised for"
)]
pub(super) fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Where a copy of `dir` is kept.
pub(super) fn beside(dir: &Path) -> PathBuf {
    dir.with_extension("earlier")
}

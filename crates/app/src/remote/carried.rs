//! The other end: this process carries out a command that a server was asked for.
//!
//! The server starts its own program once for each command, with [`VARIABLE`] set and one line of JSON,
//! a [`Carried`], on standard input; what follows on it is the input of the command. So a command that is
//! asked for elsewhere is the same code as one that is typed here. Files that came along are kept in
//! memory: a private key that is sent is never on this disk.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use world::{Disk, RealDisk};
use zeroize::Zeroizing;

use super::{FILE_LEN_MAX, FILES_MAX, MARK};

/// Set for a process that is to read a command from standard input.
pub(crate) const VARIABLE: &str = "HOLDFAST_CARRIED";

/// Longest line: all files as Base64, and the words.
const LINE_LEN_MAX: u64 = 2 * (FILES_MAX as u64) * (FILE_LEN_MAX as u64);

/// What a server hands to the process that carries a command out.
#[derive(Deserialize, Serialize)]
pub(crate) struct Carried {
    pub(crate) words: Vec<String>,
    pub(crate) files: BTreeMap<u8, String>,
    /// Where files are written, by their number; the server takes them from there.
    pub(crate) scratch: PathBuf,
    /// Who is named where a change is recorded.
    pub(crate) actor: String,
}

struct Kept {
    files: BTreeMap<u8, Zeroizing<Vec<u8>>>,
    scratch: PathBuf,
    actor: String,
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// Set once the server's own configuration is read.
static IS_SEALED: AtomicBool = AtomicBool::new(false);

/// From here on the command reads and writes no files but its own: what it is given may name others, an
/// `Include` for example.
pub(crate) fn seal() {
    IS_SEALED.store(KEPT.get().is_some(), Ordering::Relaxed);
}

/// Refuses a file that is not the command's own.
pub(crate) fn may_touch(path: &Path) -> io::Result<()> {
    if IS_SEALED.load(Ordering::Relaxed) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} did not come along, and files of the server are not read",
                path.display()
            ),
        ));
    }
    Ok(())
}

/// The words of the command that this process is to carry out; `None` where it was started by a person.
pub(crate) fn take() -> io::Result<Option<Vec<String>>> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    let mut line = Zeroizing::new(Vec::new());
    io::stdin()
        .lock()
        .take(LINE_LEN_MAX)
        .read_until(b'\n', &mut line)?;
    let carried: Carried = serde_json::from_slice(&line)?;
    let mut files = BTreeMap::new();
    for (number, text) in carried.files {
        let content = BASE64.decode(Zeroizing::new(text).as_str());
        let content = content.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        files.insert(number, Zeroizing::new(content));
    }
    let kept = Kept {
        files,
        scratch: carried.scratch,
        actor: carried.actor,
    };
    let is_first = KEPT.set(kept).is_ok();
    debug_assert!(is_first, "a process is started for one command");
    Ok(Some(carried.words))
}

/// Who asked for the command, where it was asked for elsewhere.
pub(crate) fn actor() -> Option<&'static str> {
    KEPT.get().map(|kept| kept.actor.as_str())
}

/// The content of a file that came along; `None` for every other path.
pub(crate) fn file(path: &Path) -> Option<&'static [u8]> {
    let content = KEPT.get()?.files.get(&number(path)?)?;
    Some(content)
}

/// A file that came along, where it has to be one on the disk: beside those that are written, and gone
/// with them.
pub(crate) fn spilled(path: &Path) -> Option<io::Result<PathBuf>> {
    let content = file(path)?;
    let kept = KEPT.get()?;
    let place = kept.scratch.join(format!("read-{}", number(path)?));
    Some(RealDisk.replace(&place, content).map(|()| place))
}

/// Where a file of the command is written instead; `None` for every other path.
pub(crate) fn written(path: &Path) -> Option<PathBuf> {
    let number = number(path)?;
    Some(KEPT.get()?.scratch.join(number.to_string()))
}

/// The number of a file of a carried command.
pub(crate) fn number(path: &Path) -> Option<u8> {
    path.to_str()?.strip_prefix(MARK)?.parse().ok()
}

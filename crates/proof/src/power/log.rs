//! What `interpose.c` wrote down about one process.
//!
//! A log that does not parse to its end is an error: nothing may rest on half of what happened.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Bytes of a log read at most. A run writes some MiB; this bounds memory if one runs away.
const LOG_LEN_MAX: u64 = 1 << 30;

const MAGIC: u32 = 0x5257_5048;
const RECORD_LEN: usize = 48;

/// Number a sync has in its process, by which its end is found.
pub(super) type SyncNumber = u64;

#[derive(Debug)]
pub(super) struct Log {
    bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// One call. Paths are absolute on a disk whose root is the directory that was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) what: What,
    /// It was made to fail, or to write less than asked.
    pub(super) injected: bool,
    /// It changed nothing.
    pub(super) failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Create {
        path: PathBuf,
        inode: u64,
    },
    Open {
        path: PathBuf,
    },
    Write {
        path: PathBuf,
        inode: u64,
        offset: u64,
        bytes: Range<usize>,
    },
    SetLen {
        path: PathBuf,
        inode: u64,
        len: u64,
    },
    Sync {
        path: PathBuf,
        inode: u64,
        number: SyncNumber,
        data_only: bool,
    },
    SyncDir {
        path: PathBuf,
        number: SyncNumber,
    },
    /// The sync of this number returned.
    Synced(SyncNumber),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink(PathBuf),
    RemoveDir(PathBuf),
    MakeDir(PathBuf),
    /// Bytes on standard output.
    Told(Range<usize>),
}

impl Log {
    pub(super) fn read(path: &Path, root: &Path) -> io::Result<Self> {
        let len = match fs::metadata(path) {
            Ok(found) => found.len(),
            Err(error) => {
                let words = format!("{}: {error}: the library was not loaded", path.display());
                return Err(io::Error::new(error.kind(), words));
            }
        };
        if len > LOG_LEN_MAX {
            return Err(io::Error::other(format!(
                "{} has {len} bytes, more than {LOG_LEN_MAX}",
                path.display()
            )));
        }
        Self::of(fs::read(path)?, root)
    }

    fn of(bytes: Vec<u8>, root: &Path) -> io::Result<Self> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (entry, end) = entry(&bytes, at, root).ok_or_else(|| {
                let words = format!("the log of a process ends or is damaged at byte {at}");
                io::Error::new(io::ErrorKind::InvalidData, words)
            })?;
            entries.push(entry);
            at = end;
        }
        Ok(Self { bytes, entries })
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// What was on standard output when `cut` calls had been made.
    pub(super) fn told(&self, cut: usize) -> Vec<u8> {
        let mut told = Vec::new();
        for entry in &self.entries[..cut] {
            if let What::Told(range) = &entry.what {
                told.extend_from_slice(self.bytes(range));
            }
        }
        told
    }
}

fn entry(bytes: &[u8], at: usize, root: &Path) -> Option<(Entry, usize)> {
    let record = bytes.get(at..)?.get(..RECORD_LEN)?;
    let word =
        |from: usize| u64::from_le_bytes(record[from..from + 8].try_into().expect("8 bytes"));
    let short = |from: usize| usize::from(u16::from_le_bytes([record[from], record[from + 1]]));
    if u32::from_le_bytes(record[..4].try_into().expect("4 bytes")) != MAGIC {
        return None;
    }
    let (number, inode, offset) = (word(16), word(24), word(32));
    let path_end = at + RECORD_LEN + short(8);
    let to_end = path_end + short(10);
    let end = to_end.checked_add(usize::try_from(word(40)).ok()?)?;
    bytes.get(at..end)?;
    let path = || watched(&bytes[at + RECORD_LEN..path_end], root);
    let range = to_end..end;
    let what = match record[4] {
        1 => What::Create {
            path: path()?,
            inode,
        },
        2 => What::Write {
            path: path()?,
            inode,
            offset,
            bytes: range,
        },
        3 => What::SetLen {
            path: path()?,
            inode,
            len: offset,
        },
        4 => What::Sync {
            path: path()?,
            inode,
            number,
            data_only: record[5] != 0,
        },
        5 => What::SyncDir {
            path: path()?,
            number,
        },
        6 => What::Synced(number),
        7 => What::Rename {
            from: path()?,
            to: watched(&bytes[path_end..to_end], root)?,
        },
        8 => What::Unlink(path()?),
        9 => What::RemoveDir(path()?),
        10 => What::MakeDir(path()?),
        11 => What::Told(range),
        12 => What::Open { path: path()? },
        _ => return None,
    };
    let entry = Entry {
        what,
        injected: record[6] != 0,
        failed: record[7] != 0,
    };
    Some((entry, end))
}

/// `/watched/root/a/b` as `/a/b`.
fn watched(path: &[u8], root: &Path) -> Option<PathBuf> {
    let path = Path::new(str::from_utf8(path).ok()?);
    Some(Path::new("/").join(path.strip_prefix(root).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, path: &str, bytes: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD_LEN];
        record[..4].copy_from_slice(&MAGIC.to_le_bytes());
        record[4] = kind;
        record[8] = u8::try_from(path.len()).unwrap();
        record[24] = 7;
        record[40] = u8::try_from(bytes.len()).unwrap();
        record.extend_from_slice(path.as_bytes());
        record.extend_from_slice(bytes);
        record
    }

    #[test]
    fn a_log_is_read_whole_or_not_at_all() {
        let mut bytes = record(1, "/watched/a", b"");
        bytes.extend(record(2, "/watched/a", b"first"));
        bytes.extend(record(11, "", b"ack\n"));
        let root = Path::new("/watched");
        let log = Log::of(bytes.clone(), root).unwrap();
        assert_eq!(log.entries.len(), 3);
        assert!(matches!(
            &log.entries[0].what,
            What::Create { path, inode: 7 } if path == Path::new("/a")
        ));
        assert!(matches!(
            &log.entries[1].what,
            What::Write { bytes, .. } if log.bytes(bytes) == b"first"
        ));
        assert_eq!((log.told(2), log.told(3)), (Vec::new(), b"ack\n".to_vec()));

        assert!(Log::of(bytes[..bytes.len() - 1].to_vec(), root).is_err());
        assert!(Log::of(bytes[..RECORD_LEN - 1].to_vec(), root).is_err());
        assert!(Log::of(record(99, "/watched/a", b""), root).is_err());
        assert!(Log::of(record(1, "/elsewhere", b""), root).is_err());
        bytes[0] ^= 1;
        assert!(Log::of(bytes, root).is_err());
    }
}

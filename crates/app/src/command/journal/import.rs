//! `holdfast journal import`: what `export` wrote, into a new or empty journal.
//!
//! The file is read twice. First all of it is checked against its trailer; then records are appended,
//! and checked again as they are read, since the file may have changed in between. Until the last one
//! is durable nobody else can open the journal.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use wal::{Epoch, Importing, RECORD_LEN_MAX, RecordKind};
use world::{Disk, File, RealDisk};

use super::{
    IN_DATA_DIR, absolute,
    export::{FORM, Header, Line, Trailer, hex},
    is_older, looks_like_a_journal, older_log, options, refused, unreadable,
};
use crate::{
    cli::journal::Import,
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    screen::Screen,
};

/// A record as text may have a backslash before each byte, and a line its names.
const LINE_LEN_MAX: u64 = 2 * RECORD_LEN_MAX as u64 + 4096;
/// What is appended at once, in bytes and records: one sync for each, and little to hold.
const CHUNK_LEN: usize = 1 << 20;
const CHUNK_RECORDS: usize = 1024;

pub(super) fn run(import: &Import, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if import.file.is_dir() && is_older(&import.file)? {
        return Err(older_log(&import.file));
    }
    let dir = target(import, config)?;
    let trailer = check(&import.file)?;
    if trailer.gaps > 0 && !import.accept_gaps {
        return Err(bad(
            &import.file,
            format!("it has {}", crate::present::counted(trailer.gaps, "gap")),
        )
        .next("import it with --accept-gaps: records behind a gap then get earlier positions"));
    }
    let source = digest_of(&trailer, &import.file)?;
    let begun = wal::import(&options(&dir)?, source, trailer.records)
        .map_err(|error| refused(&dir, &error))?;
    let identity = match begun {
        Importing::Done(identity) => {
            screen.remark("this file was imported before; nothing was changed");
            identity
        }
        Importing::Goes(mut going) => {
            append_all(&mut going, import, &trailer, &dir)?;
            going.finish().map_err(|error| refused(&dir, &error))?
        }
    };
    screen.result(&format!(
        "{} records in {}, journal {} generation {}\n",
        trailer.records,
        dir.display(),
        identity.journal,
        identity.generation.0
    ))?;
    Ok(Exit::Clean)
}

/// A journal, or a directory that is missing or empty: never the inside of something else.
fn target(import: &Import, config: &Config) -> Result<PathBuf, Refusal> {
    if import.place.dir().is_none() {
        return Err(Refusal::new("no directory to import into").next("name one: --dir DIR"));
    }
    let dir = absolute(&import.place, config)?;
    if is_older(&dir)? {
        return Err(older_log(&dir));
    }
    if looks_like_a_journal(&dir)? {
        return Ok(dir);
    }
    for name in IN_DATA_DIR {
        if looks_like_a_journal(&dir.join(name))? {
            return Err(
                Refusal::new(format!("{} is a data directory", dir.display())).next(format!(
                    "name the journal itself: {}",
                    dir.join(name).display()
                )),
            );
        }
    }
    let is_empty = match RealDisk.stat(&dir) {
        Ok(None) => true,
        Ok(Some(_)) => RealDisk
            .list(&dir)
            .map_err(|error| unreadable(&dir, error))?
            .iter()
            .all(|entry| entry.name == "lock"),
        Err(error) => return Err(unreadable(&dir, error)),
    };
    if is_empty {
        return Ok(dir);
    }
    Err(
        Refusal::new(format!("{} is no journal and not empty", dir.display()))
            .next("name a directory that is empty or does not exist"),
    )
}

fn bad(file: &Path, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(format!("export {}: {what}", file.display()))
}

fn not_whole(file: &Path, what: impl std::fmt::Display) -> Refusal {
    bad(file, what).next("nothing was imported; use the whole file that `journal export` wrote")
}

/// A file read from its beginning, line by line, with the digest of what was read.
struct Lines<'a> {
    file: &'a Path,
    reader: BufReader<Reading>,
    digest: Sha256,
    line: Vec<u8>,
}

struct Reading {
    file: Arc<dyn File>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<'a> Lines<'a> {
    fn open(file: &'a Path) -> Result<Self, Refusal> {
        let opened = named_file::open(file)
            .map_err(|error| bad(file, error).next("give what `holdfast journal export` wrote"))?;
        Ok(Self {
            file,
            reader: BufReader::with_capacity(
                256 << 10,
                Reading {
                    file: opened,
                    at: 0,
                },
            ),
            digest: Sha256::new(),
            line: Vec::new(),
        })
    }

    fn header(&mut self) -> Result<Header, Refusal> {
        let header: Header = match self.next()? {
            true => serde_json::from_slice(&self.line)
                .map_err(|error| not_whole(self.file, format!("no export: {error}")))?,
            false => return Err(not_whole(self.file, "it is empty")),
        };
        if header.holdfast_journal_export != FORM {
            let what = format!("form {}", header.holdfast_journal_export);
            return Err(bad(self.file, what).next("import it with the program that wrote it"));
        }
        self.digest.update(&self.line);
        Ok(header)
    }

    /// A record or a gap; the trailer, once, compared with everything before it.
    fn body(&mut self) -> Result<Line, Refusal> {
        if !self.next()? {
            return Err(not_whole(self.file, "it has no trailer: it was cut short"));
        }
        let line: Line = serde_json::from_slice(&self.line)
            .map_err(|error| not_whole(self.file, format!("a line: {error}")))?;
        if let Line::End { end } = &line {
            let found = hex(&std::mem::take(&mut self.digest).finalize());
            if found != end.sha256 {
                return Err(not_whole(
                    self.file,
                    "its bytes do not have the checksum of its trailer",
                ));
            }
            if self.next()? {
                return Err(not_whole(self.file, "there are lines behind its trailer"));
            }
        } else {
            self.digest.update(&self.line);
        }
        Ok(line)
    }

    /// False at the end of the file.
    fn next(&mut self) -> Result<bool, Refusal> {
        self.line.clear();
        let read = (&mut self.reader)
            .take(LINE_LEN_MAX)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| not_whole(self.file, error))?;
        if read as u64 == LINE_LEN_MAX {
            let what = format!("a line of more than {LINE_LEN_MAX} bytes");
            return Err(not_whole(self.file, what));
        }
        Ok(read > 0)
    }
}

/// Reads all of it; an error unless it is whole.
fn check(file: &Path) -> Result<Trailer, Refusal> {
    let mut lines = Lines::open(file)?;
    lines.header()?;
    let (mut records, mut gaps, mut last) = (0, 0, 0);
    loop {
        let line = lines.body()?;
        match line {
            Line::End { end } => {
                if (end.records, end.gaps) != (records, gaps) {
                    return Err(not_whole(file, "its trailer counts other records"));
                }
                return Ok(end);
            }
            Line::Gap { .. } => gaps += 1,
            Line::Text(_) | Line::Bytes(_) => {
                let record = Decoded::of(line, file)?;
                if record.lsn <= last {
                    let what = format!("record {} follows {last}", record.lsn);
                    return Err(not_whole(file, what));
                }
                last = record.lsn;
                records += 1;
            }
        }
    }
}

fn digest_of(trailer: &Trailer, file: &Path) -> Result<[u8; 32], Refusal> {
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = trailer
            .sha256
            .get(2 * index..2 * index + 2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| not_whole(file, "its checksum is none"))?;
    }
    Ok(digest)
}

struct Decoded {
    lsn: u64,
    epoch: Epoch,
    kind: RecordKind,
    bytes: Vec<u8>,
}

impl Decoded {
    fn of(line: Line, file: &Path) -> Result<Self, Refusal> {
        let (lsn, epoch, kind, bytes) = match line {
            Line::Text(record) => (
                record.lsn,
                record.epoch,
                record.kind,
                record.utf8.into_bytes(),
            ),
            Line::Bytes(record) => {
                let bytes = BASE64_STANDARD
                    .decode(&record.base64)
                    .map_err(|error| not_whole(file, format!("record {}: {error}", record.lsn)))?;
                (record.lsn, record.epoch, record.kind, bytes)
            }
            Line::Gap { .. } | Line::End { .. } => return Err(not_whole(file, "no record")),
        };
        if kind == 0 || bytes.len() > RECORD_LEN_MAX {
            return Err(not_whole(file, format!("record {lsn} can be none")));
        }
        Ok(Self {
            lsn,
            epoch: Epoch(epoch),
            kind: RecordKind(kind),
            bytes,
        })
    }
}

fn append_all(
    going: &mut wal::Import,
    import: &Import,
    trailer: &Trailer,
    dir: &Path,
) -> Result<(), Refusal> {
    let mut lines = Lines::open(&import.file)?;
    lines.header()?;
    let mut skip = going.taken();
    let mut chunk: Vec<Decoded> = Vec::new();
    let mut len = 0;
    loop {
        let line = lines.body()?;
        let record = match line {
            Line::End { end } if end.sha256 != trailer.sha256 => {
                return Err(not_whole(&import.file, "it changed while it was read"));
            }
            Line::End { .. } => return append(going, &mut chunk, dir),
            Line::Gap { .. } => continue,
            record => Decoded::of(record, &import.file)?,
        };
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let turns = chunk
            .first()
            .is_some_and(|first| first.epoch != record.epoch);
        if turns || len + record.bytes.len() > CHUNK_LEN || chunk.len() == CHUNK_RECORDS {
            append(going, &mut chunk, dir)?;
            len = 0;
        }
        len += record.bytes.len();
        chunk.push(record);
    }
}

fn append(going: &mut wal::Import, chunk: &mut Vec<Decoded>, dir: &Path) -> Result<(), Refusal> {
    let Some(first) = chunk.first() else {
        return Ok(());
    };
    let records: Vec<(RecordKind, &[u8])> = chunk
        .iter()
        .map(|record| (record.kind, &record.bytes[..]))
        .collect();
    going
        .append(first.epoch, &records)
        .map_err(|error| refused(dir, &error))?;
    chunk.clear();
    Ok(())
}

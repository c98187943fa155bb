//! `holdfast journal export`: records as JSON lines, between a header and a trailer with a checksum.
//!
//! A line a record: `lsn`, `epoch`, `kind`, and its bytes as `utf8` or `base64`. The trailer has the
//! SHA-256 of every byte before it, so a file cut short or changed is told from a whole one.

use std::{
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wal::{
    Cause,
    survey::{Damage, Opening, Record, Seen, Survey},
};
use world::{Disk, File, RealDisk, disk::Open};

use super::{find_journal, options, refused};
use crate::{
    cli::journal::Export,
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::counted,
    screen::{Screen, ignore_closed},
};

/// The form of what is written; another one gets another number.
pub(super) const FORM: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) holdfast_journal_export: u32,
    pub(super) journal: String,
    pub(super) generation: u32,
    /// The first one retained and the last one kept; `null` when damage keeps them from being known.
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    /// Written in full or not at all; otherwise gaps may be named between the records.
    pub(super) salvage: bool,
}

/// A line behind the header: one of the four.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Text(TextRecord),
    Bytes(BytesRecord),
    Gap { gap: Gap },
    End { end: Trailer },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRecord {
    pub(super) lsn: u64,
    pub(super) epoch: u64,
    pub(super) kind: u8,
    pub(super) utf8: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BytesRecord {
    pub(super) lsn: u64,
    pub(super) epoch: u64,
    pub(super) kind: u8,
    pub(super) base64: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gap {
    pub(super) cause: String,
    pub(super) from: u64,
    /// Last position that is missing, when a later one is there.
    pub(super) to: Option<u64>,
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) what: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    pub(super) records: u64,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) gaps: u64,
    pub(super) sha256: String,
}

pub(super) fn run(export: &Export, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = find_journal(&export.place, config, screen)?;
    let Some(to) = &export.to else {
        let mut writer = Writer::new(&dir, export.salvage, None, io::stdout().lock());
        let done = writer.write_all(&dir)?;
        return match done {
            Done::Whole(trailer) => Ok(told(&trailer, "standard output", screen)),
            Done::NoReader => Ok(Exit::Clean),
        };
    };
    let target = target(to, export.force)?;
    let temporary = temporary(&target);
    let file = RealDisk
        .open(&temporary, Open::CreateNew)
        .map_err(|error| unwritable(&temporary, error))?;
    let out = FileWriter {
        file: Arc::clone(&file),
        at: 0,
    };
    let mut writer = Writer::new(&dir, export.salvage, Some(&target), out);
    let written = writer.write_all(&dir).and_then(|done| {
        file.sync_all()
            .and_then(|()| RealDisk.rename(&temporary, &target))
            .and_then(|()| RealDisk.sync_dir(target.parent().unwrap_or(Path::new("/"))))
            .map_err(|error| unwritable(&target, error))?;
        Ok(done)
    });
    match written {
        Ok(Done::Whole(trailer)) => Ok(told(&trailer, &target.display().to_string(), screen)),
        Ok(Done::NoReader) => Ok(Exit::Clean),
        Err(refusal) => {
            // What is left of it is told apart by its name, and the next attempt has another one.
            drop(RealDisk.remove_file(&temporary));
            Err(refusal)
        }
    }
}

fn told(trailer: &Trailer, to: &str, screen: Screen) -> Exit {
    screen.remark(format_args!(
        "{} to {to}",
        counted(trailer.records, "record")
    ));
    if trailer.gaps > 0 {
        screen.remark(format_args!(
            "{}: records are missing, or nothing tells; named in the output",
            counted(trailer.gaps, "gap")
        ));
        return Exit::Incomplete;
    }
    Exit::Clean
}

fn target(to: &Path, force: bool) -> Result<PathBuf, Refusal> {
    let target = named_file::replaceable(to).map_err(|error| unwritable(to, error))?;
    let is_there = RealDisk
        .stat(&target)
        .map_err(|error| unwritable(&target, error))?
        .is_some();
    if is_there && !force {
        return Err(
            Refusal::new(format!("{} is there already", target.display()))
                .next("name another file, or replace it with --force"),
        );
    }
    Ok(target)
}

fn temporary(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    target.with_file_name(name)
}

fn unwritable(path: &Path, error: io::Error) -> Refusal {
    Refusal::new(format!("export to {}", path.display()))
        .source(error)
        .next("name a file in a directory with space, where you may write")
}

enum Done {
    Whole(Trailer),
    /// Whoever read standard output went away.
    NoReader,
}

/// Writes at the end of a file.
struct FileWriter {
    file: Arc<dyn File>,
    at: u64,
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W: Write> {
    dir: PathBuf,
    salvage: bool,
    /// `None`: standard output.
    to: Option<PathBuf>,
    out: BufWriter<W>,
    digest: Sha256,
    trailer: Trailer,
    /// Of a segment header. It is no gap when the batches behind it verify from the first on, or
    /// when they tell the gap themselves.
    header_gap: Option<Damage>,
    fault: Option<Fault>,
}

enum Fault {
    Refused(Refusal),
    Unwritten(io::Error),
}

impl<W: Write> Writer<W> {
    fn new(dir: &Path, salvage: bool, to: Option<&Path>, out: W) -> Self {
        Self {
            to: to.map(Path::to_owned),
            dir: dir.to_owned(),
            salvage,
            out: BufWriter::with_capacity(256 << 10, out),
            digest: Sha256::new(),
            trailer: Trailer {
                records: 0,
                first: None,
                last: None,
                gaps: 0,
                sha256: String::new(),
            },
            header_gap: None,
            fault: None,
        }
    }

    fn write_all(&mut self, dir: &Path) -> Result<Done, Refusal> {
        wal::survey(&options(dir)?, &mut |seen| match self.take(seen) {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => {
                self.fault = Some(fault);
                ControlFlow::Break(())
            }
        })
        .map_err(|error| refused(dir, &error))?;
        let ended = match self.fault.take() {
            Some(fault) => Err(fault),
            None => self.end(),
        };
        match ended {
            Ok(trailer) => Ok(Done::Whole(trailer)),
            Err(Fault::Refused(refusal)) => Err(refusal),
            Err(Fault::Unwritten(error)) => match &self.to {
                Some(to) => Err(unwritable(to, error)),
                None => ignore_closed(Err(error)).map(|()| Done::NoReader),
            },
        }
    }

    fn take(&mut self, seen: Seen<'_>) -> Result<(), Fault> {
        match seen {
            Seen::Begins(survey) => self.begin(survey),
            Seen::Record(record) if !record.is_above => self.record(record),
            Seen::Damage(damage) if self.salvage => self.damage(damage),
            // Opening said that it is whole, and here it is not: sealed segments may be judged by
            // nobody else.
            Seen::Damage(damage) => Err(Fault::Refused(
                Refusal::new(format!(
                    "journal {}: {} at byte {} of {}",
                    self.dir.display(),
                    damage.cause.code(),
                    damage.from,
                    damage.path.display()
                ))
                .next("export what verifies with --salvage"),
            )),
            Seen::Batch(batch) => self.settle_header(|of| batch.base == of.expected),
            Seen::Segment(_) => self.settle_header(|_| false),
            Seen::Record(_) => Ok(()),
        }
    }

    fn begin(&mut self, survey: &Survey) -> Result<(), Fault> {
        let (first, last) = match &survey.opening {
            Ok(Opening::Opens(found)) => {
                (Some(found.first_retained.get()), Some(survey.kept_to.get()))
            }
            Ok(_) => (None, None),
            Err(_) if self.salvage => (None, None),
            Err(error) => {
                let refusal = Refusal::new(format!("journal {}: {error}", self.dir.display()));
                return Err(Fault::Refused(
                    refusal.next("export what verifies with --salvage"),
                ));
            }
        };
        let header = Header {
            holdfast_journal_export: FORM,
            journal: survey
                .identity
                .map_or(String::new(), |identity| identity.journal.to_string()),
            generation: survey.identity.map_or(0, |identity| identity.generation.0),
            first,
            last,
            salvage: self.salvage,
        };
        self.line(&header)
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        let (lsn, epoch, kind) = (record.lsn.get(), record.epoch.0, record.kind.0);
        self.trailer.records += 1;
        self.trailer.first.get_or_insert(lsn);
        self.trailer.last = Some(lsn);
        // Control characters become six bytes each in JSON.
        let text = str::from_utf8(record.bytes)
            .ok()
            .filter(|text| !text.chars().any(char::is_control));
        match text {
            Some(text) => self.line(&TextRecord {
                lsn,
                epoch,
                kind,
                utf8: text.to_owned(),
            }),
            None => self.line(&BytesRecord {
                lsn,
                epoch,
                kind,
                base64: BASE64_STANDARD.encode(record.bytes),
            }),
        }
    }

    fn damage(&mut self, damage: &Damage) -> Result<(), Fault> {
        self.settle_header(|of| damage.path == of.path)?;
        if damage.cause == Cause::SegmentHeaderCorrupt {
            self.header_gap = Some(damage.clone());
            return Ok(());
        }
        self.gap(damage)
    }

    /// Something follows the damage of a header: it makes clear that there is no gap, or the header
    /// was all that is known of its segment.
    fn settle_header(&mut self, is_clear: impl FnOnce(&Damage) -> bool) -> Result<(), Fault> {
        match self.header_gap.take() {
            Some(damage) if !is_clear(&damage) => self.gap(&damage),
            _ => Ok(()),
        }
    }

    fn gap(&mut self, damage: &Damage) -> Result<(), Fault> {
        self.trailer.gaps += 1;
        let gap = Gap {
            cause: damage.cause.code().to_owned(),
            from: damage.expected.get(),
            to: damage
                .resumes
                .map(|resumes| resumes.get().saturating_sub(1)),
            file: damage.path.display().to_string(),
            offset: damage.from,
            what: damage.what.clone(),
        };
        self.line(&Line::Gap { gap })
    }

    fn end(&mut self) -> Result<Trailer, Fault> {
        self.settle_header(|_| false)?;
        let digest = std::mem::take(&mut self.digest).finalize();
        let trailer = Trailer {
            sha256: hex(&digest),
            records: self.trailer.records,
            first: self.trailer.first,
            last: self.trailer.last,
            gaps: self.trailer.gaps,
        };
        let end = Line::End { end: trailer };
        self.line(&end)?;
        self.out.flush().map_err(Fault::Unwritten)?;
        match end {
            Line::End { end } => Ok(end),
            _ => unreachable!("made above"),
        }
    }

    fn line<T: Serialize>(&mut self, line: &T) -> Result<(), Fault> {
        let mut bytes = serde_json::to_vec(line)
            .map_err(|error| Fault::Refused(Refusal::new("a line as JSON").source(error)))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.out.write_all(&bytes).map_err(Fault::Unwritten)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

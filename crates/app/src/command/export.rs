//! `holdfast export`.
//!
//! A file appears under its name only when it is complete and durable: written beside it, synced,
//! renamed. To standard output it goes as it comes, and the exit code says whether it is whole.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::ProgressBar;
use scan::export::{self, Asked, Chosen, Format, Kind, Request, Subject, Written};
use world::{Disk, File, RealDisk, Timestamp, disk::Open};

use crate::{
    cli::export::Export,
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::counted,
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site},
};

pub(crate) fn run(asked: &Export, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let format = Format::named(&asked.format).ok_or_else(|| unknown(&asked.format))?;
    let place = asked
        .to
        .as_deref()
        .map(|to| place(to, asked.force))
        .transpose()?;
    let stop = site::stop_flag()?;
    let site = Site::open_existing(config, screen)?;
    let request = request(asked, format, &site)?;
    let rules = Ruleset::known(config);
    let job = Job {
        format,
        request: &request,
        rules: &rules,
        site: &site,
        screen,
        stop: &stop,
    };
    match &place {
        Some(place) => {
            let written = to_file(&job, place)?;
            screen.remark(format_args!(
                "{} of {} in {}",
                counted(written.rows, rows_name(&request)),
                counted(written.hosts, "host"),
                place.display()
            ));
        }
        None => to_standard_output(&job)?,
    }
    Ok(Exit::Clean)
}

fn rows_name(request: &Request) -> &'static str {
    match request.asked {
        Asked::State { .. } => "verdict",
        Asked::Changes { .. } => "change",
    }
}

fn unknown(name: &str) -> Refusal {
    let names = Format::ALL.map(Format::name).join(", ");
    Refusal::new(format!("no format `{name}`")).next(format!("write one of {names}"))
}

fn request(asked: &Export, format: Format, site: &Site) -> Result<Request, Refusal> {
    let past = |text: &Option<String>| -> Result<Option<Timestamp>, Refusal> {
        let Some(text) = text else { return Ok(None) };
        let at = super::moment(text)?;
        super::must_be_past(at, text, site)?;
        Ok(Some(at))
    };
    let (at, since, until) = (past(&asked.at)?, past(&asked.since)?, past(&asked.until)?);
    let wants_changes = since.is_some() || until.is_some() || format.subject() == Subject::Changes;
    if wants_changes && at.is_some() {
        return Err(
            Refusal::new(format!("{format} holds changes, not the state at a moment"))
                .next("say from when and until when with --since and --until"),
        );
    }
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Refusal::new("--since is later than --until").next("exchange them"));
    }
    let named = |names: &[String]| names.iter().cloned().collect();
    Ok(Request {
        chosen: Chosen {
            hosts: named(&asked.chosen.host),
            groups: named(&asked.chosen.group),
            sites: named(&asked.chosen.site),
        },
        asked: if wants_changes {
            Asked::Changes { since, until }
        } else {
            Asked::State { at }
        },
        now: super::now(),
    })
}

struct Job<'a> {
    format: Format,
    request: &'a Request,
    rules: &'a Ruleset,
    site: &'a Site,
    screen: Screen,
    stop: &'a AtomicBool,
}

impl Job<'_> {
    fn write(&self, out: &mut dyn Write) -> Result<Written, export::Error> {
        let bar = if self.screen.shows_progress() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let mut progress = |done: usize, all: usize| {
            bar.set_message(format!("{done} of {all} hosts"));
            bar.tick();
            !self.stop.load(Ordering::Relaxed)
        };
        let written = export::write(
            self.format,
            self.site.store(),
            self.rules.all(),
            self.request,
            out,
            &mut progress,
        );
        bar.finish_and_clear();
        written
    }
}

fn to_standard_output(job: &Job<'_>) -> Result<(), Refusal> {
    let mut out = io::stdout().lock();
    let written = job.write(&mut out);
    match written {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        Err(error) => Err(refused(
            &error,
            "what was printed is not whole; export again",
        )),
        Ok(_) => Ok(()),
    }
}

/// A reader that has gone away (`head`) is no fault.
fn is_closed_pipe(error: &export::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    error.kind() == Kind::Write
        && source.is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn place(to: &Path, force: bool) -> Result<PathBuf, Refusal> {
    let path = named_file::replaceable(to).map_err(|error| unwritable(to, error))?;
    let found = RealDisk
        .stat(&path)
        .map_err(|error| unwritable(to, error))?;
    if found.is_some() && !force {
        return Err(Refusal::new(format!("{} is there already", path.display()))
            .next("name another file, or replace it with --force"));
    }
    Ok(path)
}

fn unwritable(path: &Path, error: io::Error) -> Refusal {
    Refusal::new(format!("export to {}", path.display()))
        .source(error)
        .next("name a file in a directory with space, where you may write")
}

fn to_file(job: &Job<'_>, path: &Path) -> Result<Written, Refusal> {
    let mut out = Out::create(path).map_err(|error| unwritable(path, error))?;
    let written = job
        .write(&mut out)
        .map_err(|error| match error.kind() {
            Kind::Write => refused(&error, "name a file in a directory with space"),
            _ => refused(&error, "nothing was left behind; export again"),
        })
        .and_then(|written| {
            out.finish().map_err(|error| unwritable(path, error))?;
            Ok(written)
        });
    if written.is_err() {
        out.discard();
    }
    written
}

fn refused(error: &export::Error, next: &str) -> Refusal {
    let next = match error.kind() {
        Kind::Missing => "`holdfast host list` and `holdfast status --all` print the names",
        Kind::Invalid => "ask for the state with --at, for changes with --since and --until",
        Kind::OutOfRange => "ask for a moment within the retained history",
        Kind::Storage => "run `holdfast doctor` to check disk and data directory",
        Kind::Write | Kind::Stopped => next,
    };
    Refusal::new(error.to_string()).next(next)
}

/// A file that is being written under another name.
struct Out<'a> {
    path: &'a Path,
    temporary: PathBuf,
    file: Arc<dyn File>,
    len: u64,
}

impl<'a> Out<'a> {
    fn create(path: &'a Path) -> io::Result<Self> {
        let mut name = path
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_os_string();
        // A process of its own each: two exports to one name do not write into one file.
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = RealDisk.open(&temporary, Open::CreateNew)?;
        Ok(Self {
            path,
            temporary,
            file,
            len: 0,
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        RealDisk.rename(&self.temporary, self.path)?;
        RealDisk.sync_dir(self.path.parent().unwrap_or_else(|| Path::new("/")))
    }

    /// Nothing half done is left; when that fails too, the first error is what is told.
    fn discard(&self) {
        drop(RealDisk.remove_file(&self.temporary));
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

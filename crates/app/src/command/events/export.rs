//! `holdfast events export FILE`.
//!
//! The file appears under its name only when it is complete and durable: written beside it, synced,
//! renamed, its directory synced. One that was interrupted begins again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use events::lines;
use world::{Disk, File, RealDisk, disk::Open};

use super::read::{Wanted, each};
use crate::{
    cli::events::Export,
    config::Config,
    events::Events,
    exit::{Exit, Refusal},
    screen::Screen,
    site,
};

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 1 << 20;

pub(crate) fn run(export: &Export, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let path =
        std::path::absolute(&export.file).map_err(|error| unwritable(&export.file, error))?;
    if !export.force
        && RealDisk
            .stat(&path)
            .map_err(|error| unwritable(&path, error))?
            .is_some()
    {
        return Err(Refusal::new(format!("{} is there already", path.display()))
            .next("name another file, or replace it with --force"));
    }
    let wanted = Wanted::of(&export.filter)?;
    let stop = site::stop_flag()?;
    let access = Events::reach_existing(config, screen)?;
    let mut out = Out::create(&path).map_err(|error| unwritable(&path, error))?;
    let mut count = 0_u64;
    let exported = each(&access, &wanted, &stop, |event| {
        lines::push(&mut out.buffer, &event);
        count += 1;
        out.flush_above(BUFFER_LEN)
            .map_err(|error| unwritable(&path, error))?;
        Ok(true)
    });
    let result = match exported {
        Ok(_) if stop.load(Ordering::Relaxed) => {
            Err(Refusal::new("stopped before all was exported")
                .next("export again; nothing was left behind"))
        }
        Ok(_) => out.finish().map_err(|error| unwritable(&path, error)),
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = result {
        out.discard();
        return Err(refusal);
    }
    screen.remark(format_args!("{count} events in {}", path.display()));
    Ok(Exit::Clean)
}

fn unwritable(path: &Path, error: io::Error) -> Refusal {
    Refusal::new(format!("export to {}", path.display()))
        .source(error)
        .next("name a file in a directory with space, where you may write")
}

/// A file that is being written under another name.
struct Out<'a> {
    path: &'a Path,
    temporary: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    buffer: String,
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
            buffer: String::new(),
        })
    }

    fn flush_above(&mut self, len: usize) -> io::Result<()> {
        if self.buffer.len() > len {
            self.file.write_all_at(self.buffer.as_bytes(), self.len)?;
            self.len += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush_above(0)?;
        self.file.sync_all()?;
        RealDisk.rename(&self.temporary, self.path)?;
        RealDisk.sync_dir(self.path.parent().unwrap_or_else(|| Path::new("/")))
    }

    /// Nothing half done is left; when that fails too, the first error is what is told.
    fn discard(&self) {
        drop(RealDisk.remove_file(&self.temporary));
    }
}

//! `holdfast journal`: its commands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const AFTER_HELP: &str = "\
DIR is a journal, or a data directory with one in it (journal/ or events/journal/). No server is
needed. inspect, verify and export change nothing, take no lock, and work beside a running Holdfast.

Exit codes:
  0  done; verify: every check holds
  1  verify, inspect, repair --dry-run: the journal is damaged, and the output names the cause code
  2  could not be carried out: wrong usage, unreadable, in use, refused, a full disk
  3  export --salvage: written, but records are missing, and the output names the gaps

What a cause code means, and what to do: holdfast journal explain CODE";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Journal {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Show what a journal directory holds, and where the first damage lies
    Inspect(Inspect),
    /// Check every byte; exit 0 only if every check holds
    Verify(Place),
    /// Do what opening would do: cut a torn tail, and keep what was cut in quarantine/
    Repair(Repair),
    /// End this generation: move everything aside, begin an empty one
    Reset(Reset),
    /// Write the records as JSON lines
    Export(Export),
    /// Fill a new or empty journal with exported records
    Import(Import),
    /// Measure appends on a directory, beside plain write and sync of the same sizes
    Bench(Bench),
    /// What a cause code means, and what to do
    Explain {
        /// Such as FRAME_CORRUPT; without one, the list
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The journal [default: the data directory]
    #[arg(value_name = "DIR", conflicts_with = "named")]
    dir: Option<PathBuf>,
    /// The same as DIR
    #[arg(long = "dir", value_name = "DIR", id = "named")]
    named: Option<PathBuf>,
}

impl Place {
    pub(crate) fn dir(&self) -> Option<&PathBuf> {
        self.dir.as_ref().or(self.named.as_ref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Also list batches
    #[arg(long)]
    pub(crate) batches: bool,
    /// Also list records
    #[arg(long)]
    pub(crate) records: bool,
    /// List from this position on
    #[arg(long, value_name = "LSN", default_value_t = 1)]
    pub(crate) from: u64,
    /// List at most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Why; written into the journal and into its audit file
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Replace FILE when it is there
    #[arg(long, requires = "to")]
    pub(crate) force: bool,
    /// Of a damaged journal, write what verifies and name the gaps
    #[arg(long)]
    pub(crate) salvage: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// What `journal export` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Import an export with gaps; later records move up
    #[arg(long)]
    pub(crate) accept_gaps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A directory that does not exist or is empty; what is made in it is removed afterwards
    #[arg(value_name = "DIR", required_unless_present = "named")]
    pub(crate) dir: Option<PathBuf>,
    /// The same as DIR
    #[arg(long = "dir", value_name = "DIR", id = "named", conflicts_with = "dir")]
    pub(crate) named: Option<PathBuf>,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    pub(crate) size: u32,
    /// Concurrent appenders
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) appenders: u16,
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Stop each measurement after this many appends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Keep the journal that was measured last
    #[arg(long)]
    pub(crate) keep: bool,
}

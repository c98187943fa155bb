//! `holdfast export`.

use std::path::PathBuf;

use clap::Args;

const AFTER_HELP: &str = "\
Formats:
  jsonl  JSON Lines, all that is recorded, evidence included (docs/schema/export.json)
  csv    one line for each verdict or change
  html   one page that needs nothing else, for reading and printing
  oscal  OSCAL 1.1.3 assessment results, JSON
  xccdf  XCCDF 1.2 benchmark with a TestResult for each host
  sarif  SARIF 2.1.0
  ocsf   OCSF compliance findings, one JSON line for each change
  junit  JUnit XML, a suite for each host

What each format cannot say is in docs/EXPORTS.md. With --at the same command gives the same bytes
whenever it is run. Exits with 0 once everything is written, whatever the verdicts are.";

/// Write what is recorded in a format that others read
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Export {
    /// jsonl, csv, html, oscal, xccdf, sarif, ocsf or junit
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) format: String,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// The state at this moment, written as for `status --at` [default: as it is]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["since", "until"])]
    pub(crate) at: Option<String>,
    /// Changes from this moment on, and not a state; for jsonl, csv and ocsf
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Changes before this moment [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Where to write; the file appears once it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Replace FILE when it is there already
    #[arg(long, requires = "to")]
    pub(crate) force: bool,
}

/// Hosts. Those that several of these name are meant once.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Only these hosts
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) host: Vec<String>,
    /// The hosts of this group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// The hosts of this site
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Vec<String>,
    /// Every host that is not retired; the default
    #[arg(long, conflicts_with_all = ["host", "group", "site"])]
    pub(crate) all: bool,
}

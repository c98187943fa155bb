//! `holdfast schedule`, `maintenance` and `audit`: their commands and flags.

use super::ledger::AuditAction;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// Only these hosts [default: all of them]
    #[arg(value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// What the schedule counted instead: due, dispatched, skipped, refused
    #[arg(long, conflicts_with_all = ["hosts", "jobs"])]
    pub(crate) counters: bool,
    /// The jobs that wait or run instead
    #[arg(long, conflicts_with_all = ["hosts", "now"])]
    pub(crate) jobs: bool,
    /// Make these hosts due at once and forget how often they failed
    #[arg(long, requires = "hosts", conflicts_with = "counters")]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    #[command(subcommand)]
    pub(crate) action: MaintenanceAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceAction {
    /// Leave a host, a group or a site alone: it is not scanned until the end, or until cleared
    Set(Set),
    /// End it
    Clear(Which),
    /// What is left alone, since when and until when
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How long, such as 90m, 2h or 3d [default: until it is cleared]
    #[arg(long = "for", value_name = "SPAN")]
    pub(crate) span: Option<String>,
    /// Until when: RFC 3339, or a local date and time
    #[arg(long, value_name = "TIME", conflicts_with = "span")]
    pub(crate) until: Option<String>,
    /// Why, for whoever wonders
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// One host
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Every host of a group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Every host of a site
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) action: Option<AuditAction>,
    #[command(flatten)]
    pub(crate) which: Records,
    /// The newest so many
    #[arg(long = "lines", short = 'n', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) lines: u32,
}

/// Which audit records are meant.
#[derive(Debug, Args)]
pub(crate) struct Records {
    /// Only what was done at this time or later: RFC 3339, a local date and time, a span ago (2h)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Only what was done before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Only by this one: scheduler, 'user NAME', 'worker NAME'
    #[arg(long, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// Only this action, or all that begin with it: schedule, job.refused, maintenance
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<String>,
    /// Only what was done to this host, job or other thing
    #[arg(long, value_name = "NAME")]
    pub(crate) object: Option<String>,
}

//! `holdfast alert`: its commands and flags.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Alert {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Alerts that are not over, newest first
    List(List),
    /// One alert, and what became of it
    Show {
        id: u64,
        /// As it was at a moment, written as for `status --at`
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// Say that somebody sees to alerts
    Acknowledge(Step),
    /// Have nobody told of alerts for a while
    Silence {
        #[command(flatten)]
        step: Step,
        /// When the silence ends: a date, a moment, or a span such as 4h; 90 days at most
        #[arg(long, value_name = "TIME")]
        until: String,
    },
    /// Say that alerts are over; what is so still comes back
    Resolve(Step),
    /// Who is told, and how their queues stand
    Receivers,
    /// Send a receiver a test at once, past its queue and its filters
    Test {
        /// Name of the receiver
        receiver: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// As it was at a moment, written as for `status --at`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Those that are over too
    #[arg(long)]
    pub(crate) all: bool,
    /// Of one host only
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Of one kind only, as drift_major
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Of this severity or above: info, medium, high, critical
    #[arg(long, value_name = "SEVERITY")]
    pub(crate) minimum: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Step {
    /// Numbers of the alerts
    #[arg(required = true, value_name = "ID", num_args = 1..)]
    pub(crate) ids: Vec<u64>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

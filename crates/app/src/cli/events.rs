//! `holdfast events`: its commands and flags.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Keep an event, or one a line of standard input; tell each one's id once it is durable
    Append(Append),
    /// The newest events, and with -f those to come
    Tail(Tail),
    /// Events by class, source, time or trace, oldest first
    Query(Query),
    /// Write events to a file as JSON lines
    Export(Export),
    /// Take in a version 1 telemetry log; what is there already is not stored twice
    Import(Import),
    /// Take events over HTTP (OTLP, JSON lines) and Unix sockets until stopped
    Serve(Serve),
    /// Hand events on to a receiver, at least once
    Drain(super::drain::Drain),
    /// Events that a receiver refused: list them, send them again, write them out
    DeadLetter(super::drain::DeadLetter),
    /// Take OTLP and hand it on at once; say yes only to what the receiver took
    Bridge(super::drain::Bridge),
}

#[derive(Debug, Args)]
pub(crate) struct Append {
    /// Body of one event, a JSON value; `-` or none: JSON lines from standard input, each
    /// {"body":...} with any of time, source, class, trace, span, producer_id
    #[arg(value_name = "BODY", allow_hyphen_values = true)]
    pub(crate) body: Option<String>,
    /// error, decision, action, lifecycle or other
    #[arg(long, value_name = "CLASS", default_value = "other", value_parser = class)]
    pub(crate) class: events::Class,
    /// Who says so [default: the name of this host]
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// When it happened [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) time: Option<String>,
    /// Id of your own: the same one from the same source is kept once. Goes with BODY only
    #[arg(long, value_name = "ID", requires = "body")]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Go on with events as they come, until stopped
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many to begin with
    #[arg(long = "lines", short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) lines: u32,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// Stop after this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Go on with events as they come, until stopped
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to make; it appears under this name only when it is complete
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replace the file when it is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

const AFTER_IMPORT: &str = "\
The log is verified first; what is refused stores nothing. DIR is left as it is, also what was
never acknowledged. Interrupted, or run again, it stores what is missing. A running server takes the
events itself. Stop the program that writes DIR before the last import.

Where DIR has no telemetry.safe_seq, one of two variables, once each:
  AUTONOMYOPS_WAL_LEGACY_UPGRADE=1  take over a log from before safe sequences; gaps and duplicates
                                    are reported, the old files kept in DIR/telemetry.legacy
  AUTONOMYOPS_WAL_OPERATOR_RESET=1  begin anew after telemetry.wal was removed, accepting the loss

Exit codes:
  0  done; with --dry-run: it verifies
  2  refused; the output names the cause code: holdfast journal explain CODE
  3  done, but frames that fit no event (over 1 MiB) were left out; the output names them";

#[derive(Debug, Args)]
#[command(after_help = AFTER_IMPORT)]
pub(crate) struct Import {
    /// Directory with telemetry.wal and telemetry.safe_seq
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Verify and count only; store nothing, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen, on this machine [default: events.listen of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only this class: error, decision, action, lifecycle, other; may be repeated
    #[arg(long = "class", value_name = "CLASS", value_parser = class)]
    pub(crate) classes: Vec<events::Class>,
    /// Only from this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only what happened at this time or later: RFC 3339, a local date and time, a span ago (2h)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Only what happened before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Only of this trace, 32 hex digits
    #[arg(long, value_name = "TRACE", value_parser = trace)]
    pub(crate) trace: Option<events::TraceId>,
    /// From this position on, the last number of an event's id
    #[arg(long, value_name = "LSN")]
    pub(crate) from: Option<u64>,
}

pub(super) fn class(text: &str) -> Result<events::Class, String> {
    events::Class::parse(text)
        .ok_or_else(|| "write error, decision, action, lifecycle or other".to_owned())
}

fn trace(text: &str) -> Result<events::TraceId, String> {
    events::TraceId::parse(text).ok_or_else(|| "a trace has 32 hex digits".to_owned())
}

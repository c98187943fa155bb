//! `holdfast events drain`, `dead-letter` and `bridge`: their flags.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

use super::events::class;

const DRAIN_AFTER_HELP: &str = "\
Exit codes: 0 everything that was there was taken, 1 some of it was refused and is kept as dead
letters, 2 the drain could not be started, 3 some of it is still waiting.";

#[derive(Debug, Args)]
#[command(after_help = DRAIN_AFTER_HELP)]
pub(crate) struct Drain {
    /// otlp=URL, holdfast=URL, file=PATH or nats=nats://HOST:PORT[/SUBJECT]
    #[arg(long, value_name = "RECEIVER", required_unless_present = "forget")]
    pub(crate) to: Option<String>,
    /// Header of each request, its value from a variable or a file: authorization=env:TOKEN,
    /// authorization=file:/etc/holdfast/token; for NATS token, or user and password; may be repeated
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) header: Vec<String>,
    /// End when what is there is delivered, or cannot be
    #[arg(long)]
    pub(crate) once: bool,
    /// Name under which it is kept how far the drain is [default: made from the receiver]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only this class: error, decision, action, lifecycle, other; may be repeated
    #[arg(long = "class", value_name = "CLASS", value_parser = class)]
    pub(crate) classes: Vec<events::Class>,
    /// Forget how far the drain of this name is, and stop: the next one begins with what is there
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "header", "once", "name", "classes"])]
    pub(crate) forget: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeadLetter {
    #[command(subcommand)]
    pub(crate) action: DeadLetterAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterAction {
    /// What was refused, by whom and why
    List {
        /// Also those that were taken when they were sent again
        #[arg(long)]
        all: bool,
    },
    /// Send them once more; what becomes of each is recorded
    Retry {
        /// otlp=URL, holdfast=URL, file=PATH or nats=nats://HOST:PORT[/SUBJECT]
        #[arg(long, value_name = "RECEIVER")]
        to: String,
        /// Header of each request, as for `events drain`
        #[arg(long, value_name = "NAME=SOURCE")]
        header: Vec<String>,
        /// Only those of the drain of this name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Write them to a file as JSON lines: the event, and who refused it and why
    Export {
        /// File to make; it appears under this name only when it is complete
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Bridge {
    /// Where to listen, on this machine
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where to hand on; without a path, /v1/logs there
    #[arg(long, value_name = "URL")]
    pub(crate) forward_url: String,
    /// Header of each request handed on, as for `events drain`
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) header: Vec<String>,
}

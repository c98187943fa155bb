//! `holdfast import`: its commands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Take in TestResults of XCCDF 1.1 or 1.2, alone, in a benchmark or in an ARF report
    ///
    /// They are kept beside the record of this program and change no verdict, no score and no past
    /// answer. The same result a second time changes nothing. A file with a mistake is refused whole.
    Xccdf {
        /// As `oscap xccdf eval --results FILE` or `--results-arf FILE` writes it; `-` for standard input
        file: PathBuf,
        /// The host they are about [default: the target that each result names]
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
    /// Imported results, by host and then by time
    List {
        /// Only those of this host
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
    /// What the tool said of each rule
    Show {
        /// The id of an imported result, or how it begins
        id: String,
    },
}

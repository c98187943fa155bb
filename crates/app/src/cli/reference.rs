//! `holdfast completions`, `holdfast man`, `holdfast reference`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell that they are for
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for each command into this directory, instead of the first page to standard output
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

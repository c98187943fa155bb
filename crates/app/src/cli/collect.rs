//! The command line of `holdfast collect`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::Scope;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("how").required(true)))]
pub(crate) struct Collect {
    /// Write the facts of this machine to a file
    #[arg(long, value_name = "FILE", group = "how")]
    pub(crate) out: Option<PathBuf>,
    /// Print a shell script that collects on a host where no program may be brought: run it there
    /// with `sh FILE > CAPTURE`; it makes no walk
    #[arg(long, group = "how", conflicts_with = "no_walk")]
    pub(crate) print_script: bool,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

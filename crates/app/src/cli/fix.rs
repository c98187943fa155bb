//! `holdfast fix`: its commands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const AFTER_HELP: &str = "\
Without --apply nothing is changed: the plan is shown, a difference a file and the commands.
With --apply each step is on record before it is done, the rule is judged again on fresh facts, and
what does not make it pass is undone. A fix that could cut off logins over the network is undone by
the host itself after two minutes, unless a new connection was made.

Exit codes:
  0  planned; or applied, and the rule passes
  1  applied and undone again: the rule did not pass
  2  could not be carried out, or could not be undone: the output says what is left";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Fix {
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    /// Id of the rule to mend
    #[arg(required = true)]
    pub(crate) rule: Option<String>,
    /// A host of the inventory, over SSH with the rights of root [default: this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Do it, after a question on the terminal
    #[arg(long)]
    pub(crate) apply: bool,
    /// Do not ask
    #[arg(long, requires = "apply")]
    pub(crate) yes: bool,
    /// A directory that stands for a host, such as an image; commands are not run for it
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Directory of additional rules [default: scan.rules_dir of the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) rules_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Fixes on record, the latest first
    List,
    /// One fix: what it changed, and how it ended
    Show {
        /// Its id, or enough of its beginning
        id: String,
    },
    /// Undo a fix that was kept
    Rollback {
        /// Its id, or enough of its beginning
        id: String,
        /// Also where somebody changed the same since
        #[arg(long)]
        force: bool,
    },
    /// Undo what was interrupted
    Recover {
        /// Also where somebody changed the same since
        #[arg(long)]
        force: bool,
    },
}

//! `holdfast variable`: its commands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Variable {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Give a variable of a rule another value than its default, from the next scan on
    Set {
        #[command(flatten)]
        which: Which,
        /// The value, as the rule declares it: 5, true, 0640, text; a list as a,b,c or in JSON
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        scope: Scope,
        /// Directory of additional rules [default: scan.rules_dir of the configuration]
        #[arg(long, value_name = "DIR")]
        rules_dir: Option<PathBuf>,
    },
    /// Values that are set; with --host those that hold for it, and which they overrule
    List {
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
    },
    /// Take a value back; the next nearest holds, in the end the rule's default
    Unset {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        scope: Scope,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Id of the rule
    pub(crate) rule: String,
    /// Name of its variable; `holdfast rules show RULE` names them
    pub(crate) variable: String,
}

/// None of them: everywhere. Nearest wins: host, group, site, everywhere; of groups the first by name.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Scope {
    /// For one host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// For every host of a group; of two groups of a host, the first by name wins
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// For every host of a site
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<String>,
}

//! `holdfast waiver`: its commands and flags.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Waiver {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Ask that a failure be waived until a date; it holds once somebody else approved it
    Add(Add),
    /// Agree to a waiver that somebody else owns
    Approve {
        id: u32,
        #[command(flatten)]
        by: By,
    },
    /// Waivers and where they stand
    List(List),
    /// End a waiver, or a request, before its time
    Revoke {
        id: u32,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        by: By,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Id of the rule
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Who answers for the failure while it is waived
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: String,
    /// Why it is not mended
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// When the waiver ends: a date, a moment, or a span such as 30d; 366 days at most
    #[arg(long, value_name = "TIME")]
    pub(crate) until: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// For one host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// For every host of a group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// For every host of a site
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<String>,
    /// For every host with a tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct By {
    /// Who takes this step [default: the user who runs this]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// As it was at a moment, written as for `status --at`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Revoked and expired ones too
    #[arg(long)]
    pub(crate) all: bool,
}

//! `holdfast token`: who may ask this site over the network.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make a token and print it, this once
    Add(Add),
    /// Tokens by name, revoked ones too; what they open is not kept
    List,
    /// Refuse a token from here on
    Revoke {
        /// Its name, as `holdfast token list` prints it
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// A name of your own; it is one token for ever, and the audit log tells by it who did what
    pub(crate) name: String,
    /// What it may do
    #[arg(long, value_enum, default_value_t = Role::Viewer)]
    pub(crate) role: Role,
    /// Only for the hosts of this site; may be given several times
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Vec<String>,
    /// Only for the hosts of this group; may be given several times
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Only for this host; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// It ends after this long, such as 90d; without it, when it is revoked
    #[arg(long, value_name = "SPAN")]
    pub(crate) expires: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Reads how hosts stand
    Viewer,
    /// Reads also the audit log, and takes away exports
    Auditor,
    /// Changes also hosts, waivers, variables and the schedule
    Operator,
    /// Changes also credentials, policies and tokens
    Admin,
}

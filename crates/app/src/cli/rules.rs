//! Arguments of `holdfast rules new` and `holdfast rules coverage`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RulesPlace;

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Id of the rule: lower case words joined by hyphens; the file gets its name
    pub(crate) id: String,
    /// Directory of the file [default: scan.rules_dir of the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// System the rule is for [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Coverage {
    /// Whose controls
    #[arg(long, value_name = "FRAMEWORK")]
    pub(crate) framework: Framework,
    /// Only rules for this system, such as rhel-9 [default: each]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) place: RulesPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framework {
    /// CIS benchmark of the platform
    Cis,
    /// DISA STIG
    Stig,
    /// NIST SP 800-53
    Nist,
    /// PCI DSS 4
    Pci,
    /// ANSSI-BP-028
    Anssi,
}

//! `holdfast node`, `group`, `promote`, `switchover`: a site on several machines.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) action: NodeAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// Make this site the first node of a cluster; its record stays as it is
    Init {
        /// A name for this node
        name: String,
        /// Where other nodes reach it
        #[arg(long, value_name = "ADDRESS")]
        listen: SocketAddr,
    },
    /// Write the file that makes another machine a node, and show the code that opens it
    Invite {
        /// A name for the other node
        name: String,
        /// Where it will listen for other nodes
        address: SocketAddr,
        /// Where to write the file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// For how long it may be used, up to 30d
        #[arg(long, value_name = "SPAN", default_value = "1d")]
        valid: String,
    },
    /// Make this machine the node that the file was written for
    Join {
        /// What `holdfast node invite` wrote; `-` for standard input
        invitation: PathBuf,
        /// A file with the code that was shown, instead of asking for it
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
    },
    /// Nodes by name, and where they listen
    List,
    /// Shut a node out of the cluster for ever; it must not be a member of the group any more
    Remove {
        /// Its name
        name: String,
    },
    /// Take over the nodes that another node of this cluster knows, where the two cannot reach each other
    Meet {
        /// What `holdfast node list --output json` printed there; `-` for standard input
        list: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Group {
    #[command(subcommand)]
    pub(crate) action: GroupAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupAction {
    /// Who writes, who copies, and how far each one is
    Status,
    /// Let an invited node that runs take copies, and count
    Add {
        /// Its name
        name: String,
    },
    /// Let a node count no more
    Remove {
        /// Its name
        name: String,
        /// Where it cannot be told: how you made sure that it will not be promoted
        #[arg(long, value_name = "STATEMENT")]
        fenced: Option<String>,
    },
    /// What happens to a write while too few copies are in sync
    Policy {
        /// wait: up to ten seconds; refuse: at once
        policy: Policy,
    },
    /// How many copies an acknowledgement waits for
    Mode {
        /// async, sync:COPIES besides this node's, or all
        mode: String,
        /// Where other nodes cannot be told: how you made sure that they will not be promoted
        #[arg(long, value_name = "STATEMENT")]
        fenced: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    Wait,
    Refuse,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub(crate) what: Explained,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Explained {
    /// Each replica: its session, its plan and what that rests on, and why it is not in sync
    Replication,
    /// The rules of the last promotion: what evidence was used, and what each gave
    Promotion,
}

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Write without waiting for copies: for the last node that is left
    #[arg(long, requires = "fenced_by")]
    pub(crate) alone: bool,
    /// Also where it cannot be shown that nothing acknowledged is lost; tells the bound and asks on the terminal
    #[arg(long, requires = "fenced_by", requires = "accept_loss")]
    pub(crate) force: bool,
    /// How you made sure that the other one writes no more, in your own words
    #[arg(long, value_name = "STATEMENT")]
    pub(crate) fenced_by: Option<String>,
    /// What only the other one has may be lost
    #[arg(long, requires = "force")]
    pub(crate) accept_loss: bool,
}

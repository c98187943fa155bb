//! `holdfast policy`: its commands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make a key that signs policies, and print its id and public key
    Keygen(Keygen),
    /// Let a key sign policies for this data directory; without FILE list those that may
    Trust(Trust),
    /// Sign a policy in place; what it says stays, comments too
    Sign(Sign),
    /// Tell everything that is wrong with a policy, without loading it
    Verify(Verify),
    /// Print the policy in force as a document to edit, sign and reload
    Show(Show),
    /// Put a signed policy or revocation list in force; a bad one leaves everything as it is
    Reload(Reload),
    /// Take a key's right to sign away for good
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Where the private key goes; the public one goes beside it, with `.pub`
    /// [default: keys/policy.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Let the key sign for this data directory at once
    #[arg(long)]
    pub(crate) trust: bool,
    /// Replace a key that is there; what it signed verifies still, nobody can sign with it again
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// The public key: PEM, or one line of base64
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The private key [default: keys/policy.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Who signs [default: the user who runs this, at this host]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The policy; its signature is written into it
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) key: Key,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The policy, signed or not
    pub(crate) file: PathBuf,
    /// A public key to check against, instead of what the data directory trusts; may be repeated
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Every policy that came into force, the newest first
    #[arg(long)]
    pub(crate) history: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// The signed policy
    #[arg(required_unless_present = "revocations")]
    pub(crate) file: Option<PathBuf>,
    /// A signed revocation list; loaded before the policy
    #[arg(long, value_name = "FILE")]
    pub(crate) revocations: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Id of the key, or its first 8 characters or more
    pub(crate) key_id: String,
    /// Why; it is kept, and told to whoever is refused
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// How long the list holds; beyond that no policy is taken until a newer list is
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    pub(crate) valid_for: String,
    /// Also write the signed list here, for other data directories
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signer: Key,
}

//! `holdfast ledger`, and what `holdfast audit` shares with it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Ledger {
    #[command(subcommand)]
    pub(crate) action: LedgerAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerAction {
    /// Sign where the chains of all hosts and of the audit log stand
    Seal,
    /// Check every chain, statement, signature and evidence, here or in an export
    Verify(Verify),
    /// Write everything that an auditor needs to verify it elsewhere into one file
    Export(LedgerExport),
    /// The key that signs: show its public part, change it
    Key(LedgerKey),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An export, instead of this data directory; nothing but the key is needed then
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) export: Option<PathBuf>,
    /// Public key that must have signed: a PEM file, or its base64 as `ledger key show` prints it
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// A statement noted earlier that must be in it, as number:digest; shows that it is not an older one
    #[arg(long, value_name = "N:SHA256")]
    pub(crate) noted: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LedgerExport {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only these hosts; of the others where their chains stand
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The file to write; compressed where its name ends in .zst
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Replace the file when it is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LedgerKey {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Print the public key, for whoever verifies
    Show,
    /// Make another key, for which the one before signs; it is gone then
    Rotate,
    /// Make another key in place of one that is lost; nobody vouches for it, and the chain says so
    Replace(Replace),
}

#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// Says that the key is lost for good and in no backup
    #[arg(long, required = true)]
    pub(crate) lost: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditAction {
    /// Check that no record was edited, removed or added, here or in an export
    Verify(Verify),
    /// Write records into a file that verifies elsewhere; of those left out it has the digests
    Export(AuditExport),
}

#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) which: super::schedule::Records,
}

//! `holdfast credential`: its commands and flags. No secret is ever an argument: arguments are in the
//! process list and in the shell's history.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Credential {
    #[command(subcommand)]
    pub(crate) action: Action,
}

const AFTER_HELP: &str = "\
The credential called `default` logs in to every host that names none of its own (host add
--credential NAME). Everything secret is sealed under the data key, DATA_DIR/keys/data.key; keep a
copy of that file apart from the backups of the directory.";

#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub(crate) enum Action {
    /// Seal a key, a password, or both, under a name
    Add(Add),
    /// Names, users and key fingerprints; never a secret
    List,
    /// Replace secrets, or with --data-key the key that all of them are sealed under
    Rotate(Rotate),
    /// Remove a credential that no host uses
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Its name; `default` is for all hosts without their own
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Who logs in
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) secrets: Secrets,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("stdin").args(["password_stdin", "sudo_password_stdin"]))]
#[command(group = ArgGroup::new("login-password").args(["password", "password_file", "password_stdin"]))]
#[command(group = ArgGroup::new("root-password").args(["sudo_password", "sudo_password_file", "sudo_password_stdin"]))]
pub(crate) struct Secrets {
    /// Private key: OpenSSH, PKCS#8 or PEM. Asks for its passphrase when it has one
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Read the passphrase of the key from the first line of a file
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Ask for the login password
    #[arg(long)]
    pub(crate) password: bool,
    /// Read the login password from the first line of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the login password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// How root is reached on the host [default: nopassword]
    #[arg(long, value_name = "HOW")]
    pub(crate) sudo: Option<Sudo>,
    /// Ask for sudo's password, where it is not the login password
    #[arg(long)]
    pub(crate) sudo_password: bool,
    /// Read sudo's password from the first line of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) sudo_password_file: Option<PathBuf>,
    /// Read sudo's password from standard input
    #[arg(long)]
    pub(crate) sudo_password_stdin: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Sudo {
    /// Not at all; what needs root is not assessed
    Never,
    /// Where sudo asks for no password
    Nopassword,
    /// With the sudo password, or the login password where there is none
    Password,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Which credential; what is not given stays as it is
    #[arg(value_name = "NAME", required_unless_present = "data_key")]
    pub(crate) name: Option<String>,
    /// Make another data key and seal everything again under it
    #[arg(long, conflicts_with_all = ["name", "user", "key", "sudo", "login-password", "root-password"])]
    pub(crate) data_key: bool,
    /// Who logs in
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) secrets: Secrets,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Also while hosts use it: they cannot be scanned any more
    #[arg(long)]
    pub(crate) force: bool,
}

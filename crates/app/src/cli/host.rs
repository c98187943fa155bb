//! `holdfast host`: its commands and flags.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Host {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Watch a host: over SSH, this machine, or one that facts are brought from by hand
    Add(Add),
    /// Every host, or those of a site, group or tag; with --at as of any past moment
    List(List),
    /// One host in full, with the keys that it is known by
    Show(Show),
    /// Connect and log in now: tell as whom, how root is reached, and what to mend
    Check(Check),
    /// Watch a host no longer; what was recorded of it stays
    Retire(Retire),
    /// Take over the hosts of an OpenSSH configuration, an Ansible inventory, or a CSV file
    Import(Import),
    /// Vouch for the key of a host, or take over a file of known hosts
    Trust(Trust),
}

const AFTER_ADD: &str = "\
The host's key is taken from your ~/.ssh/known_hosts when it is there. Otherwise it is fetched and
its fingerprint shown: compare it with what this prints on the host:
  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
Without a terminal to answer on, give the fingerprint with --accept-key.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_ADD)]
#[command(group = ArgGroup::new("without").args(["local", "offline"]))]
pub(crate) struct Add {
    /// What the host is called here, for good
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// DNS name or IP address [default: NAME]
    #[arg(value_name = "ADDRESS", conflicts_with = "without")]
    pub(crate) address: Option<String>,
    /// Port of the SSH server
    #[arg(long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "without")]
    pub(crate) port: u16,
    /// Who logs in [default: the user of the credential]
    #[arg(long, value_name = "USER", conflicts_with = "without")]
    pub(crate) user: Option<String>,
    /// This machine itself
    #[arg(long)]
    pub(crate) local: bool,
    /// Never connected to: facts are collected there and judged here with `scan --replay`
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) vouching: Vouching,
    /// Add it without a key: it is not scanned before `host trust NAME`
    #[arg(long, conflicts_with_all = ["accept_key", "key_file"])]
    pub(crate) no_key: bool,
}

/// Where a host belongs.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Its own credential [default: the one called `default`]
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: Option<String>,
    /// Where it is [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// A group that it belongs to; may be repeated
    #[arg(long = "group", value_name = "NAME", value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
}

/// How somebody vouches for a host's key.
#[derive(Debug, Args)]
pub(crate) struct Vouching {
    /// Take the fetched key without asking, if it has this fingerprint
    #[arg(long, value_name = "SHA256:…")]
    pub(crate) accept_key: Option<String>,
    /// Take the public key in a file, such as a copy of ssh_host_ed25519_key.pub; `-`: standard input
    #[arg(long, value_name = "FILE", conflicts_with = "accept_key")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// As it was at this moment: RFC 3339, a local date and time, a date, or a span ago (2h)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Only this site
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Only this group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Only this tag
    #[arg(long, value_name = "NAME")]
    pub(crate) tag: Option<String>,
    /// Retired hosts too
    #[arg(long)]
    pub(crate) retired: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which host
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Which host
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Retire {
    /// Which host
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

const AFTER_IMPORT: &str = "\
Formats: an OpenSSH client configuration (Host, HostName, Port, User, Include), an Ansible inventory
as INI or YAML (groups, children, group variables, ansible_host, ansible_port, ansible_user), CSV with
a header line (name, via, address, port, user, credential, site, groups, tags), as `host list -o csv`
prints it. Passwords in a file are named and never taken. What is there already is changed to what the
file says; what the file does not say stays. Nothing is imported when anything is refused, unless
--skip-bad. Keys are vouched for apart: holdfast host trust --known-hosts ~/.ssh/known_hosts";

#[derive(Debug, Args)]
#[command(after_help = AFTER_IMPORT)]
pub(crate) struct Import {
    /// File to read; `-`: standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What it is [default: by its name and content]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Print what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Import the rest when something is refused
    #[arg(long)]
    pub(crate) skip_bad: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// ssh_config
    Openssh,
    /// Ansible inventory as INI
    AnsibleIni,
    /// Ansible inventory as YAML
    AnsibleYaml,
    /// A header line and one line a host
    Csv,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("file").args(["known_hosts", "export"]))]
pub(crate) struct Trust {
    /// Which host
    #[arg(
        value_name = "NAME",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) vouching: Vouching,
    /// In place of the keys on record: the host was set up anew
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Take over an OpenSSH known_hosts file; `-`: standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["accept_key", "key_file"])]
    pub(crate) known_hosts: Option<PathBuf>,
    /// Print every key on record as an OpenSSH known_hosts file
    #[arg(long, conflicts_with_all = ["accept_key", "key_file"])]
    pub(crate) export: bool,
}

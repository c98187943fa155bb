//! The command line: every command and flag, and nothing of what they do.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) mod alert;
pub(crate) mod collect;
pub(crate) mod credential;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod fix;
pub(crate) mod host;
pub(crate) mod import;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod migrate;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod reference;
pub(crate) mod rules;
pub(crate) mod schedule;
pub(crate) mod token;
pub(crate) mod variable;
pub(crate) mod waiver;

const AFTER_HELP: &str = "\
Exit codes:
  0  clean: everything that applies was looked at and passes
  1  findings: at least one rule fails
  2  the command could not be carried out: wrong usage, unreadable data, a full disk, damage
  3  incomplete: nothing fails, but something could not be assessed

Times (--at, diff): RFC 3339 (2026-01-15T08:00:00Z), local (2026-01-15 08:00), a date (its
midnight), `now`, or a span ago (90m, 2h, 3d, 1w). The answer is what was recorded by then: a scan
counts once it is recorded, a moment after it finished.";

/// Keeps what a site must not lose: watches for compliance drift and answers for any past moment.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Global options")]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where everything is kept [default: /var/lib/holdfast for root, else ~/.local/state/holdfast]
    #[arg(long, global = true, env = "HOLDFAST_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Configuration file [default: /etc/holdfast/holdfast.toml, if present]
    #[arg(long, global = true, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Carry the command out at this server: https://HOST:PORT
    #[arg(long, global = true, env = "HOLDFAST_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,

    /// File with a token of the server [default: HOLDFAST_TOKEN]
    #[arg(long, global = true, env = "HOLDFAST_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The server's certificate or its authority, PEM [default: the well-known authorities]
    #[arg(long, global = true, env = "HOLDFAST_SERVER_CERT", value_name = "FILE")]
    pub(crate) server_cert: Option<PathBuf>,

    /// Show what this record changed, once it is here: waits 10 s for it at most
    #[arg(long, global = true, value_name = "LSN")]
    pub(crate) wait_for: Option<u64>,

    /// How results are printed
    #[arg(
        long,
        short,
        global = true,
        env = "HOLDFAST_OUTPUT",
        value_name = "FORMAT"
    )]
    pub(crate) output: Option<Output>,

    /// Print results and errors only: no progress, no remarks
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Tell on standard error what is being done
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One JSON document, described by docs/schema/
    Json,
    /// A header line and one line a row
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Scan this machine, print what was found, and keep watching every host until stopped
    Up(Up),
    /// Scan this machine, or hosts of the inventory, once and record what changed
    Scan(Scan),
    /// The hosts that are watched: add, import, look at, retire
    Host(host::Host),
    /// What logs in to hosts, sealed: add, rotate, remove
    Credential(credential::Credential),
    /// Facts of a host that cannot be reached, for `scan --replay` elsewhere
    Collect(collect::Collect),
    /// The latest verdicts, or those of any past moment
    Status(Status),
    /// Every change of one rule's verdict, oldest first
    History(History),
    /// What differs between two moments
    Diff(Diff),
    /// Write what is recorded in a format that others read: OSCAL, XCCDF, SARIF, HTML and more
    Export(export::Export),
    /// Results of other tools, kept beside the record: take in, list, show
    Import(import::Import),
    /// Tamper evidence: seal, verify, export what is recorded
    Ledger(ledger::Ledger),
    /// The rules: list, show, test, lint
    Rules(Rules),
    /// Show what would mend a rule; with --apply do it, judge again, keep it or undo it
    Fix(fix::Fix),
    /// The signed policy: how often hosts are scanned, and what a scan may cost
    Policy(policy::Policy),
    /// What is wrong and who is told of it: list, acknowledge, silence, resolve
    Alert(alert::Alert),
    /// Failures that somebody answers for until a date; the verdict stays what it is
    Waiver(waiver::Waiver),
    /// Values of the variables of rules: everywhere, for a site, a group or one host
    Variable(variable::Variable),
    /// When each host is scanned next, and what the schedule counted
    Schedule(schedule::Schedule),
    /// Leave hosts alone for a while: set, clear, list
    Maintenance(schedule::Maintenance),
    /// Tokens of the HTTP interface and the console: make, list, revoke
    Token(token::Token),
    /// Machines that keep this site together: make, invite, join, list
    Node(node::Node),
    /// The copies of this site's record: how they stand, members, mode
    Group(node::Group),
    /// Make this node the one that writes
    Promote(node::Promote),
    /// Why copies count or do not, and on what the last promotion of this node was decided
    Explain(node::Explain),
    /// Hand writing over to another node, with nothing lost
    Switchover {
        /// Its name, as `holdfast node list` prints it
        to: String,
    },
    /// Who did what to what, and when
    Audit(schedule::Audit),
    /// Check that this machine can keep what it is given: disk, clock, permissions, rules
    Doctor,
    /// The configuration in force
    Config(Config),
    /// What happened: keep events, read them back, hand them on
    Events(events::Events),
    /// Look at, check, rescue and measure journals; no server is needed
    Journal(journal::Journal),
    /// Move the record of this data directory into a PostgreSQL database, its past included
    Migrate(migrate::Migrate),
    /// The plug test: write numbered records, and afterwards check that none is missing
    Load(Load),
    /// Print a script that completes commands and flags in a shell
    Completions(reference::Completions),
    /// The manual pages
    Man(reference::Man),
    /// The reference of the command line, as Markdown: docs/CLI.md
    Reference,
    /// The OpenAPI document of the HTTP interface: docs/openapi.json
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// A node of several: listen for the others here from now on; they are told
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_listen: Option<SocketAddr>,
    /// Of a site on several machines: who writes is who has its lease, and another one takes over by itself;
    /// etcd://HOST:PORT[,HOST:PORT][/PREFIX][?user=NAME&ttl=2s], etcds for TLS [default: node.coordinator of
    /// the configuration]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) coordinator: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// Leave out the walk over the whole file system; rules that need it are not assessed
    #[arg(long)]
    pub(crate) no_walk: bool,
    /// Directory of additional rules [default: scan.rules_dir of the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) rules_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Judge facts collected before instead of this machine; recorded under their host, as of now
    #[arg(long, value_name = "FACTS", conflicts_with_all = ["facts_out", "no_walk", "chosen"])]
    pub(crate) replay: Option<PathBuf>,
    /// Also write the collected facts to a file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "chosen")]
    pub(crate) facts_out: Option<PathBuf>,
    /// List what the collectors read and run on the machine, and stop
    #[arg(long, conflicts_with_all = ["replay", "facts_out", "no_walk", "rules_dir", "chosen"])]
    pub(crate) show_collectors: bool,
}

/// Hosts of the inventory. Those that several of these name are meant once.
#[derive(Debug, Args)]
#[group(id = "chosen", multiple = true, required = false)]
pub(crate) struct Chosen {
    /// Scan these hosts of the inventory at once, whatever the schedule says
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) host: Vec<String>,
    /// Scan the hosts of this group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Scan the hosts of this site
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Vec<String>,
    /// Scan every host
    #[arg(long)]
    pub(crate) all: bool,
}

impl Chosen {
    /// Whether any host of the inventory is asked for, and not this machine.
    pub(crate) fn is_some(&self) -> bool {
        self.all || !(self.host.is_empty() && self.group.is_empty() && self.site.is_empty())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The moment to answer for: RFC 3339, a local date and time, a date, or a span ago (2h)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Which host, where facts of several were replayed [default: this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Every host that is watched, each on one line; the default where there are several
    #[arg(long, conflicts_with_all = ["host", "rule"])]
    pub(crate) all: bool,
    /// Only this rule, with its evidence
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Id of the rule
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) of: Hosts,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The earlier moment, written as for `status --at`
    #[arg(value_name = "T1", allow_hyphen_values = true)]
    pub(crate) from: String,
    /// The later moment
    #[arg(value_name = "T2", allow_hyphen_values = true)]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) of: Hosts,
}

/// Hosts of which something recorded is asked.
#[derive(Debug, Args)]
pub(crate) struct Hosts {
    /// Which host; may be repeated [default: this machine]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// The hosts of this group; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<String>,
    /// Every host with a record
    #[arg(long, conflicts_with_all = ["host", "group"])]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rules {
    #[command(subcommand)]
    pub(crate) action: RulesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesAction {
    /// Every rule with its severity and title
    List(RulesPlace),
    /// One rule in full: what it wants, why, and how to mend it
    Show {
        /// Id of the rule
        rule: String,
        #[command(flatten)]
        place: RulesPlace,
    },
    /// Run the tests that the rules carry
    Test(RulesChosen),
    /// Check rules for mistakes: unknown facts, missing tests, wrong operators
    Lint(RulesChosen),
    /// Begin a rule of your own: a commented file that works and has its tests
    New(rules::New),
    /// Controls of a framework that rules name, and rules that name none
    Coverage(rules::Coverage),
}

#[derive(Debug, Args)]
pub(crate) struct RulesChosen {
    /// Only the rules of this directory [default: the built-in ones and the site's own]
    #[arg(value_name = "DIR", conflicts_with = "rules_dir")]
    pub(crate) only: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: RulesPlace,
}

#[derive(Debug, Args)]
pub(crate) struct RulesPlace {
    /// Directory of additional rules [default: scan.rules_dir of the configuration]
    #[arg(long, value_name = "DIR")]
    pub(crate) rules_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print the configuration in force and where each value comes from
    Show {
        /// Print every key with its default and what it means, as a file to start from
        #[arg(long)]
        default: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    #[command(subcommand)]
    pub(crate) action: LoadAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadAction {
    /// Write until stopped; print `ack WRITER NUMBER LSN` for each commit once it is acknowledged
    Run {
        /// Concurrent writers
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
        writers: u8,
        /// Stop after this many commits a writer [default: only when stopped]
        #[arg(long, value_name = "N")]
        commits: Option<u64>,
    },
    /// Compare what is there with the acknowledgements that `load run` printed
    Check {
        /// File holding the printed lines; `-` for standard input
        #[arg(value_name = "ACKS")]
        acks: PathBuf,
    },
}

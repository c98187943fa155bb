//! Which commands a server carries out, and for whom.

use clap::ArgMatches;

/// Who may ask a server for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nobody: it is about files, keys or a process of the machine where it is typed.
    Here,
    Viewer,
    Auditor,
    Operator,
    Admin,
}

use Standing::{Admin, Auditor, Here, Operator, Viewer};

/// Every command that does something, in the order of the reference. `fix` without a command under it
/// plans and applies.
const STANDINGS: &[(&str, Standing)] = &[
    ("up", Here),
    ("scan", Operator),
    ("host add", Admin),
    ("host list", Viewer),
    ("host show", Viewer),
    ("host check", Operator),
    ("host retire", Operator),
    ("host import", Admin),
    ("host trust", Admin),
    ("credential add", Admin),
    ("credential list", Operator),
    ("credential rotate", Admin),
    ("credential remove", Admin),
    ("collect", Here),
    ("status", Viewer),
    ("history", Viewer),
    ("diff", Viewer),
    ("rules list", Viewer),
    ("rules show", Viewer),
    ("rules test", Viewer),
    ("rules lint", Viewer),
    ("rules new", Here),
    ("rules coverage", Viewer),
    ("fix", Operator),
    ("fix list", Viewer),
    ("fix show", Viewer),
    ("fix rollback", Operator),
    ("fix recover", Operator),
    ("policy keygen", Here),
    ("policy trust", Admin),
    ("policy sign", Here),
    ("policy verify", Viewer),
    ("policy show", Viewer),
    ("policy reload", Admin),
    ("policy revoke", Admin),
    ("alert list", Viewer),
    ("alert show", Viewer),
    ("alert acknowledge", Operator),
    ("alert silence", Operator),
    ("alert resolve", Operator),
    ("alert receivers", Operator),
    ("alert test", Admin),
    ("waiver add", Operator),
    ("waiver approve", Admin),
    ("waiver list", Viewer),
    ("waiver revoke", Operator),
    ("variable set", Operator),
    ("variable list", Viewer),
    ("variable unset", Operator),
    ("schedule", Viewer),
    ("maintenance set", Operator),
    ("maintenance clear", Operator),
    ("maintenance list", Viewer),
    ("node init", Here),
    ("node invite", Here),
    ("node join", Here),
    ("node list", Here),
    ("node meet", Here),
    ("node remove", Here),
    ("group status", Here),
    ("group add", Here),
    ("group remove", Here),
    ("group mode", Here),
    ("group policy", Here),
    ("explain replication", Here),
    ("explain promotion", Here),
    ("promote", Here),
    ("switchover", Here),
    ("audit", Auditor),
    ("doctor", Admin),
    ("config show", Admin),
    ("events append", Here),
    ("events tail", Here),
    ("events query", Viewer),
    ("events export", Here),
    ("events import", Here),
    ("events serve", Here),
    ("events drain", Here),
    ("events dead-letter list", Here),
    ("events dead-letter retry", Here),
    ("events dead-letter export", Here),
    ("events bridge", Here),
    ("journal inspect", Here),
    ("journal verify", Here),
    ("journal repair", Here),
    ("journal reset", Here),
    ("journal export", Here),
    ("journal import", Here),
    ("journal bench", Here),
    ("journal explain", Viewer),
    ("export", Auditor),
    ("import xccdf", Operator),
    ("import list", Viewer),
    ("import show", Viewer),
    ("ledger seal", Operator),
    ("ledger verify", Auditor),
    ("ledger export", Auditor),
    ("ledger key show", Viewer),
    ("ledger key replace", Admin),
    ("ledger key rotate", Admin),
    ("token add", Admin),
    ("token list", Admin),
    ("token revoke", Admin),
    ("audit verify", Auditor),
    ("audit export", Auditor),
    ("openapi", Here),
    ("migrate", Here),
    ("load run", Here),
    ("load check", Here),
    ("completions", Here),
    ("man", Here),
    ("reference", Here),
];

/// Of those that a server carries out, the ones that record nothing. One that is not listed is taken for one
/// that does.
const READS: &[&str] = &[
    "host list",
    "host show",
    "credential list",
    "status",
    "history",
    "diff",
    "rules list",
    "rules show",
    "rules test",
    "rules lint",
    "rules coverage",
    "fix list",
    "fix show",
    "policy verify",
    "policy show",
    "alert list",
    "alert show",
    "alert receivers",
    "waiver list",
    "variable list",
    "schedule",
    "maintenance list",
    "audit",
    "doctor",
    "config show",
    "journal explain",
    "export",
    "import list",
    "import show",
    "ledger verify",
    "ledger key show",
    "token list",
    "audit verify",
];

/// Whether a node may carry a command out that records nothing itself.
pub(crate) fn only_reads(name: &str) -> bool {
    READS.contains(&name)
}

/// The standing of the command that was given; of one that is not listed nobody's.
pub(crate) fn of(matches: &ArgMatches) -> (String, Standing) {
    let mut names = Vec::new();
    let mut matches = matches;
    while let Some((name, below)) = matches.subcommand() {
        names.push(name);
        matches = below;
    }
    let name = names.join(" ");
    let found = STANDINGS.iter().find(|(known, _)| *known == name);
    let standing = found.map_or(Here, |(_, standing)| *standing);
    (name, standing)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, CommandFactory};

    use super::{Here, READS, STANDINGS};
    use crate::cli::Cli;

    /// Every command that can be given, by its words.
    fn commands(command: &Command) -> Vec<String> {
        let mut found = Vec::new();
        collect(command, "", &mut found);
        found
    }

    fn collect(command: &Command, above: &str, found: &mut Vec<String>) {
        for below in command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
        {
            let name = format!("{above} {}", below.get_name()).trim().to_owned();
            if !below.is_subcommand_required_set() {
                found.push(name.clone());
            }
            collect(below, &name, found);
        }
    }

    #[test]
    fn every_command_says_who_may_ask_a_server_for_it() {
        let listed: BTreeSet<String> = STANDINGS
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let there: BTreeSet<String> = commands(&Cli::command()).into_iter().collect();
        assert_eq!(listed, there);
        assert_eq!(listed.len(), STANDINGS.len());
    }

    #[test]
    fn what_only_reads_is_a_command_that_a_server_carries_out() {
        for name in READS {
            let found = STANDINGS.iter().find(|(known, _)| known == name);
            assert!(found.is_some_and(|(_, it)| *it != Here), "{name}");
        }
    }
}
